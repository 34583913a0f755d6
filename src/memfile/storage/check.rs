//! Checking, in tests, that all indexes agree with the leases.

use std::ops::Bound;

use super::client_index::Found;
use super::ended::ExpiryKind;
use super::expiry_queue::{ExpiryQueue, Place};
use super::free_range::free_from;
use super::packed_lease::{StoredLease, pack};
use super::{NoRoom, Storage};

impl<L: StoredLease> Storage<L> {
    /// Returns an error that names the first disagreement between the indexes and the leases.
    pub(in crate::memfile) fn check(&self) -> Result<(), String> {
        let mut built = Self::new(self.relays.is_enabled());
        for (_, id) in self.primary.iter_from(Bound::Unbounded) {
            let packed = self.primary.packed(id);
            let mut record = Vec::new();
            pack(&packed.lease(), &mut record);
            built.insert(&record).map_err(|NoRoom| "no room")?;
            for (name, index, key) in [
                ("hwaddr", &self.hwaddrs, packed.hwaddr()),
                ("client", &self.clients, packed.client()),
                ("hostname", &self.hostnames, packed.hostname()),
            ] {
                let found = match index.find(&self.primary, key) {
                    Found::None => key.is_empty(),
                    Found::One(other) => other == id,
                    Found::Several(set) => {
                        set.len() > 1 && set.iter_from(Bound::Unbounded).any(|((_, k), ())| k == packed.key())
                    }
                };
                if !found {
                    return Err(format!("{:?} is not found by {name}", packed.lease()));
                }
            }
            if let Some(end) = packed.end() {
                let time = end.wrapping_sub(packed.lag().into());
                let queue = &self.queues[ExpiryKind::of(packed.state()) as usize];
                let before = Place::new(time, packed.key());
                if !queue.until(time, None, usize::MAX).contains(&before) {
                    return Err(format!("{:?} is not in its queue", packed.lease()));
                }
            }
        }
        for leaf in self.primary.leaves_from(L::AddressKey::default()) {
            let earliest = leaf.values.iter().map(|&id| free_from(&self.primary.packed(id))).min();
            if earliest.is_some_and(|earliest| leaf.summary.get() > earliest) {
                return Err(format!("{:?} is noted for leases that end at {earliest:?}", leaf.summary));
            }
        }
        let addresses = |storage: &Self| -> Vec<_> {
            let mut all = Vec::new();
            for (subnet, states) in &storage.subnets {
                for (state, addresses) in states {
                    let mut keys: Vec<_> = addresses.iter_from(Bound::Unbounded).map(|(k, ())| k).collect();
                    keys.sort_unstable();
                    all.push((*subnet, *state, keys));
                }
            }
            all.sort();
            all
        };
        for (name, same) in [
            ("subnets", addresses(self) == addresses(&built)),
            ("counts", self.counts == built.counts),
            ("classes", self.classes == built.classes),
            ("relays", self.relays.content() == built.relays.content()),
            ("hwaddrs", self.hwaddrs.count() == built.hwaddrs.count()),
            ("clients", self.clients.count() == built.clients.count()),
            ("hostnames", self.hostnames.count() == built.hostnames.count()),
            (
                "queues",
                self.queues.each_ref().map(ExpiryQueue::len) == built.queues.each_ref().map(ExpiryQueue::len),
            ),
        ] {
            if !same {
                return Err(format!("the index of {name} is not that of the leases"));
            }
        }
        Ok(())
    }
}
