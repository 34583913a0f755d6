//! Changes of all leases that a condition selects. The leases are found, and written to the
//! journal, in their packed form.

use super::batch::Batch;
use super::storage::ExpiryKind;
use super::storage::packed_lease::{Packed, StoredLease};
use super::store::{STEP, Store};
use crate::lease::{LeaseState, SubnetId};
use crate::lease_mgr::{Borrowed, LeaseMgrError, is_reclaimed};

impl<L: StoredLease> Store<L> {
    /// Deletes the leases of a subnet, up to the last one that it has now. Returns their number.
    pub(super) fn wipe(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        let Some(last) = self.read().last_in_subnet(subnet) else {
            return Ok(0);
        };
        let (mut deleted, mut after) = (0, None);
        loop {
            let keys = self.read().keys_in_subnet(subnet, after, last, STEP);
            after = keys.last().copied();
            if after.is_none() {
                return Ok(deleted);
            }
            deleted += self.delete_selected(&keys, |lease| lease.subnet_id() == subnet)?;
        }
    }

    /// Deletes the leases of a queue that have ended at `time`. Returns their number.
    pub(super) fn delete_ended(&self, queue: ExpiryKind, time: i64) -> Result<u64, LeaseMgrError> {
        let mut deleted = 0;
        loop {
            let keys = self.ended(queue, time, STEP, |lease| lease.key())?;
            if keys.is_empty() {
                return Ok(deleted);
            }
            deleted += self.delete_selected(&keys, |lease| queue.has_ended(lease, time))?;
        }
    }

    /// Deletes those leases of at most [`STEP`] addresses that are selected, with one write.
    /// Returns their number.
    fn delete_selected(
        &self,
        keys: &[L::AddressKey],
        is_selected: impl Fn(&Packed<'_, L>) -> bool,
    ) -> Result<u64, LeaseMgrError> {
        self.make_change(|store| {
            let _rows = store.rows.lock_all(keys.iter().copied());
            let mut batch = Batch::with_capacity(keys.len());
            let storage = store.read();
            for packed in keys.iter().filter_map(|&key| storage.get(key)).filter(is_selected) {
                batch.delete(store, &storage, &packed);
            }
            drop(storage);
            batch.make(store)?;
            batch.notify(&store.tracking);
            Ok(batch.len() as u64)
        })
    }

    /// Reclaims leases that have ended at `now`, in the order of their ends, at most `limit`.
    /// Returns them as [`LeaseMgr::reclaim_expired`](crate::LeaseMgr::reclaim_expired) does.
    pub(super) fn reclaim(&self, now: i64, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let keys = self.ended(ExpiryKind::Expiring, now, limit, |lease| lease.key())?;
        let mut reclaimed = Vec::new();
        for step in keys.chunks(STEP) {
            let result = self.make_change(|store| store.reclaim_step(step, now, &mut reclaimed));
            if let Err(error) = result {
                // The caller needs the leases that were reclaimed. If the error persists, the next
                // call returns it.
                return if reclaimed.is_empty() { Err(error) } else { Ok(reclaimed) };
            }
        }
        Ok(reclaimed)
    }

    /// Reclaims those leases of at most [`STEP`] addresses that have ended at `now`, with one
    /// write, and appends them to `reclaimed`.
    fn reclaim_step(
        &self,
        keys: &[L::AddressKey],
        now: i64,
        reclaimed: &mut Vec<L>,
    ) -> Result<(), LeaseMgrError> {
        let _rows = self.rows.lock_all(keys.iter().copied());
        let (mut counted, mut leases) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        let storage = self.read();
        for packed in keys.iter().filter_map(|&key| storage.get(key)) {
            if ExpiryKind::Expiring.has_ended(&packed, now) {
                let mut lease = packed.lease();
                if lease.state() != LeaseState::DECLINED {
                    lease.reclaim();
                }
                counted.push(packed.counted_as());
                leases.push(lease);
            }
        }
        drop(storage);
        // No other change of these addresses can come between.
        let operations = leases.iter().map(|lease: &L| match lease.state() {
            LeaseState::DECLINED => Borrowed::Delete(lease.address(), None),
            _ => Borrowed::Update(lease, None),
        });
        let results = self.apply_locked(&operations.collect::<Vec<_>>());
        let mut failure = None;
        for ((lease, counted), result) in leases.into_iter().zip(counted).zip(results) {
            match is_reclaimed(&self.tracking, counted, result) {
                Ok(true) => reclaimed.push(lease),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
