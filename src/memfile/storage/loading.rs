//! Filling the storage with the rows of lease files, and building its indexes afterwards.

use std::ops::Bound;

use super::b_tree::OrderedMap;
use super::client_index::ClientIndex;
use super::counts::{change_classes, change_count, count_key};
use super::ended::ExpiryKind;
use super::expiry_queue::Place;
use super::packed_lease::{Packed, StoredLease};
use super::{NoRoom, Storage};
use crate::parallel::{Panicked, in_parallel};

impl<L: StoredLease> Storage<L> {
    /// Inserts a row of a lease file. Called before [`Storage::build_indexes`].
    pub(in crate::memfile) fn load(&mut self, record: &[u8]) -> Result<(), NoRoom> {
        let key = Packed::<L>::new(record).key();
        let Some(old) = self.primary.block_of(key) else {
            let id = self.primary.arena.insert(record).ok_or(NoRoom)?;
            self.primary.insert(key, id);
            return Ok(());
        };
        if self.primary.arena.fits(old, record.len()) {
            self.primary.arena.put(old, record);
        } else {
            let id = self.primary.arena.insert(record).ok_or(NoRoom)?;
            self.primary.relocate(key, old, id);
            self.primary.arena.remove(old);
        }
        Ok(())
    }

    /// Applies a row of a lease file that deletes a lease. Called before
    /// [`Storage::build_indexes`].
    pub(in crate::memfile) fn load_deletion(&mut self, key: L::AddressKey) {
        if let Some(id) = self.primary.block_of(key) {
            self.primary.remove(key, id);
            self.primary.arena.remove(id);
        }
    }

    /// Returns all leases in the order of their addresses. Can be called before
    /// [`Storage::build_indexes`].
    pub(in crate::memfile) fn loaded(&self) -> impl Iterator<Item = Packed<'_, L>> {
        self.primary.iter_from(Bound::Unbounded).map(|(_, id)| self.primary.packed(id))
    }

    /// Builds all indexes, after all rows are loaded.
    pub(in crate::memfile) fn build_indexes(&mut self) -> Result<(), Panicked> {
        let Self { primary, hwaddrs, clients, hostnames, subnets, queues, relays, counts, classes } = self;
        let primary = &*primary;
        primary.forget_free_from();
        let blocks = || primary.iter_from(Bound::Unbounded).map(|(_, id)| id);
        let fill = |index: &mut ClientIndex<L>| {
            let named = blocks().filter(|&id| index.is_in(primary, id)).count();
            index.reserve(named);
            blocks().for_each(|id| index.insert(primary, id));
        };
        let build_others = || {
            let mut places = [Vec::new(), Vec::new()];
            for id in blocks() {
                let packed = primary.packed(id);
                let (key, state) = (packed.key(), packed.state());
                if let Some(end) = packed.end() {
                    places[ExpiryKind::of(state) as usize].push(Place::new(end, key));
                }
                let states = subnets.entry(packed.subnet_id()).or_default();
                match states.iter_mut().find(|(other, _)| *other == state) {
                    Some((_, addresses)) => addresses.insert(key, ()),
                    None => {
                        let mut addresses = OrderedMap::default();
                        addresses.insert(key, ());
                        states.push((state, addresses));
                        None
                    }
                };
                change_count::<L>(counts, count_key(&packed), true);
                if let Some(context) = packed.user_context() {
                    change_classes(classes, &context, L::kind_in(&packed), state, true);
                    relays.insert(&context, key);
                }
            }
            for (queue, places) in queues.iter_mut().zip(places) {
                queue.fill(places);
            }
        };
        let work = [
            Box::new(build_others) as Box<dyn FnOnce() + Send>,
            Box::new(|| fill(hwaddrs)),
            Box::new(|| fill(clients)),
            Box::new(|| fill(hostnames)),
        ];
        in_parallel(work, |build| {
            build();
            Ok::<_, Panicked>(())
        })?;
        Ok(())
    }
}
