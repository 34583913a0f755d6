//! A single change: its row is appended to the journal, it is applied in memory, and the callbacks
//! are notified.

use super::scratch::with_scratch;
use super::storage::NoRoom;
use super::storage::packed_lease::{Packed, StoredLease, pack};
use super::store::Store;
use crate::lease_mgr::{Added, Change, Deleted, LeaseMgrError, check};

/// Returns an error if there is an expected lease and the current one differs; `buffer` is scratch
/// memory.
#[inline]
pub(super) fn check_expected<L: StoredLease>(
    current: &Packed<'_, L>,
    expected: Option<&L>,
    buffer: &mut Vec<u8>,
) -> Result<(), LeaseMgrError> {
    if let Some(expected) = expected {
        pack(expected, buffer);
        if !current.is_same(&Packed::new(buffer)) {
            return Err(LeaseMgrError::ChangedMeanwhile { address: L::address_of(current.key()).into() });
        }
    }
    Ok(())
}

impl<L: StoredLease> Store<L> {
    /// Adds a lease, if its address has none.
    pub(super) fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        check(lease)?;
        let key = lease.key();
        let _row = self.rows.lock(key);
        let added = with_scratch(|scratch| {
            pack(lease, &mut scratch.record);
            let hashes = {
                let storage = self.read();
                let hashes = storage.prefetch(&Packed::new(&scratch.record));
                if self.persistence.is_some() {
                    // Writing the row gives the prefetched memory time to arrive.
                    lease.write_row(&mut scratch.row);
                }
                if storage.get(key).is_some() {
                    return Ok(Added::AddressTaken);
                }
                if !self.has_room(&storage) {
                    return Err(NoRoom.into());
                }
                hashes
            };
            self.journal(&scratch.row)?;
            self.write()?.insert_prefetched(&scratch.record, &hashes)?;
            Ok::<_, LeaseMgrError>(Added::Added)
        })?;
        if added == Added::AddressTaken {
            return Ok(added);
        }
        self.tracking.notify(&Change::added(lease));
        Ok(Added::Added)
    }

    /// Replaces the lease of an address.
    pub(super) fn update(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        check(lease)?;
        let key = lease.key();
        let _row = self.rows.lock(key);
        let old = with_scratch(|scratch| {
            let storage = self.read();
            let Some(packed) = storage.get(key) else {
                return Err(LeaseMgrError::NoSuchLease { address: lease.address().into() });
            };
            check_expected(&packed, expected, &mut scratch.expected)?;
            if !self.has_room(&storage) {
                return Err(NoRoom.into());
            }
            let counted = packed.counted_as();
            let old = self.tracking.is_watched().then(|| packed.lease());
            drop(storage);
            pack(lease, &mut scratch.record);
            if self.persistence.is_some() {
                lease.write_row(&mut scratch.row);
            }
            self.journal(&scratch.row)?;
            self.write()?.replace(&scratch.record)?;
            Ok((old, counted))
        })?;
        match &old {
            (Some(old), _) => self.tracking.notify(&Change::updated(old, lease)),
            (None, counted) => self.tracking.count_updated(*counted, lease),
        }
        Ok(())
    }

    /// Deletes the lease of an address.
    pub(super) fn delete(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        let key = L::key_of(address);
        let _row = self.rows.lock(key);
        let old = with_scratch(|scratch| {
            let storage = self.read();
            let Some(packed) = storage.get(key) else {
                return Ok(None);
            };
            check_expected(&packed, expected, &mut scratch.expected)?;
            let hashes = storage.prefetch(&packed);
            if self.persistence.is_some() {
                L::write_deletion(&packed, &mut scratch.row);
            }
            let old = self.tracking.is_watched().then(|| packed.lease());
            drop(storage);
            self.journal(&scratch.row)?;
            self.write()?.remove_prefetched(key, &hashes);
            Ok::<_, LeaseMgrError>(Some(old))
        })?;
        let Some(old) = old else {
            return Ok(Deleted::NoSuchLease);
        };
        if let Some(old) = &old {
            self.tracking.notify(&Change::deleted(old));
        }
        Ok(Deleted::Deleted)
    }
}
