//! All leases in memory, with an index for each kind of query.
//!
//! Nothing in this module locks, waits or does I/O: a `&Storage` reads, a `&mut Storage` changes.

mod arena;
mod b_tree;
#[cfg(test)]
mod check;
mod client_index;
mod counts;
mod ended;
mod expiry_queue;
pub(super) mod free_range;
mod hash_index;
mod loading;
pub(crate) mod packed_lease;
mod prefetch;
mod primary_index;
mod relay_index;
mod search;
pub(super) mod sharded_lock;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use arena::BlockId;
use b_tree::OrderedMap;
use client_index::ClientIndex;
use counts::{Classes, CountKey, change_classes, change_count, count_key};
pub(super) use ended::ExpiryKind;
use expiry_queue::ExpiryQueue;
use free_range::free_from;
use packed_lease::{Packed, StoredLease, set_lag};
use primary_index::PrimaryIndex;
use relay_index::RelayIndex;

use super::row_locks::LOCKS;
use crate::lease::{LeaseState, SubnetId, UserContext};

/// A set of addresses.
type Addresses<K> = OrderedMap<K, ()>;

/// The addresses of a subnet, by the state of their leases.
type States<K> = Vec<(LeaseState, Addresses<K>)>;

/// All leases in memory, with their indexes.
pub(super) struct Storage<L: StoredLease> {
    primary: PrimaryIndex<L>,
    /// The addresses of each subnet, by the state of their leases. There are few states.
    subnets: BTreeMap<SubnetId, States<L::AddressKey>>,
    queues: [ExpiryQueue<L::AddressKey>; 2],
    hwaddrs: ClientIndex<L>,
    clients: ClientIndex<L>,
    hostnames: ClientIndex<L>,
    relays: RelayIndex<L>,
    counts: BTreeMap<CountKey, u64>,
    classes: Classes,
}

/// The hashes under which a lease is indexed.
pub(super) struct Hashes {
    hwaddr: u64,
    client: u64,
    hostname: u64,
}

/// There is no room for another lease.
#[derive(Debug)]
pub(super) struct NoRoom;

impl<L: StoredLease> Storage<L> {
    /// Creates an empty storage. `relay_tables`: whether leases can be found by relay and remote
    /// IDs.
    pub(super) fn new(relay_tables: bool) -> Self {
        let subnet = |packed: &Packed<'_, L>| packed.subnet_id().0;
        Self {
            primary: PrimaryIndex::new(),
            subnets: BTreeMap::new(),
            queues: [ExpiryQueue::default(), ExpiryQueue::default()],
            hwaddrs: ClientIndex::new(|packed| packed.hwaddr(), subnet, false),
            clients: ClientIndex::new(|packed| packed.client(), L::client_order, false),
            hostnames: ClientIndex::new(|packed| packed.hostname(), subnet, true),
            relays: RelayIndex::new(relay_tables),
            counts: BTreeMap::new(),
            classes: HashMap::default(),
        }
    }

    /// Returns whether leases can be found by relay and remote IDs.
    pub(super) fn has_relay_tables(&self) -> bool {
        self.relays.is_enabled()
    }

    /// Returns the number of leases.
    pub(super) fn len(&self) -> usize {
        self.primary.len()
    }

    /// Returns whether there is room for the leases of all changes that may be in progress, so that
    /// a result found before a row is written stays true after it. A single change holds a row
    /// lock; `batched` is the number of the other changes.
    pub(super) fn has_room(&self, batched: usize) -> bool {
        self.primary.arena.has_room_for(LOCKS + batched)
    }

    /// Returns the lease of an address.
    #[inline]
    pub(super) fn get(&self, key: L::AddressKey) -> Option<Packed<'_, L>> {
        self.primary.get(key)
    }

    /// Prefetches the memory that a change of this lease needs. A thread calls it before it takes
    /// the exclusive lock.
    pub(super) fn prefetch(&self, packed: &Packed<'_, L>) -> Hashes {
        // Each table costs a cache miss, so all prefetches are started at once.
        self.primary.prefetch(packed.key());
        Hashes {
            hwaddr: self.hwaddrs.prefetch(packed),
            client: self.clients.prefetch(packed),
            hostname: self.hostnames.prefetch(packed),
        }
    }

    /// Inserts a lease whose address has none.
    pub(super) fn insert(&mut self, record: &[u8]) -> Result<(), NoRoom> {
        let hashes = self.prefetch(&Packed::new(record));
        self.insert_prefetched(record, &hashes)
    }

    /// Inserts a lease whose address has none, after [`Storage::prefetch`].
    pub(super) fn insert_prefetched(&mut self, record: &[u8], hashes: &Hashes) -> Result<(), NoRoom> {
        let packed = Packed::<L>::new(record);
        let &Hashes { hwaddr, client, hostname } = hashes;
        let id = self.primary.arena.insert(record).ok_or(NoRoom)?;
        self.primary.insert(packed.key(), id);
        self.hwaddrs.insert_hashed(&self.primary, id, hwaddr);
        self.clients.insert_hashed(&self.primary, id, client);
        self.hostnames.insert_hashed(&self.primary, id, hostname);
        self.subnet_set(&packed).insert(packed.key(), ());
        self.count(&packed, true);
        if let Some(context) = packed.user_context() {
            self.context(&packed, &context, true);
        }
        self.enqueue(id, &packed);
        Ok(())
    }

    /// Replaces the lease of an address, or inserts it if the address has none.
    pub(super) fn replace(&mut self, record: &[u8]) -> Result<(), NoRoom> {
        let new = Packed::<L>::new(record);
        let key = new.key();
        let Some(id) = self.primary.block_of(key) else {
            return self.insert(record);
        };
        let old = self.primary.packed(id);
        let order = (old.subnet_id(), L::client_order(&old)) != (new.subnet_id(), L::client_order(&new));
        let hwaddr = order || old.hwaddr() != new.hwaddr();
        let client = order || old.client() != new.client();
        let hostname = order || old.hostname() != new.hostname();
        let place = (old.subnet_id(), old.state()) != (new.subnet_id(), new.state());
        let counted = place || (old.pool_id(), L::kind_in(&old)) != (new.pool_id(), L::kind_in(&new));
        let context = !old.has_context_of(&new) || (counted && (old.user_context().is_some()));
        let lag = self.lag_in_place(&old, &new);
        let is_free_earlier = free_from(&new) < free_from(&old);

        let moved_to = if self.primary.arena.fits(id, record.len()) {
            None
        } else {
            Some(self.primary.arena.insert(record).ok_or(NoRoom)?)
        };
        if hwaddr {
            self.hwaddrs.remove(&self.primary, id);
        }
        if client {
            self.clients.remove(&self.primary, id);
        }
        if hostname {
            self.hostnames.remove(&self.primary, id);
        }
        if place || counted || context || lag.is_none() {
            self.unindex(id, place, counted, context, lag.is_none());
        }
        let id = match moved_to {
            None => {
                self.primary.arena.put(id, record);
                id
            }
            Some(new_id) => {
                self.primary.relocate(key, id, new_id);
                for (changed, index) in [
                    (hwaddr, &mut self.hwaddrs),
                    (client, &mut self.clients),
                    (hostname, &mut self.hostnames),
                ] {
                    if !changed {
                        index.relocate(&self.primary, id, new_id);
                    }
                }
                self.primary.arena.remove(id);
                new_id
            }
        };
        set_lag(self.primary.arena.get_mut(id), lag.unwrap_or(0));
        if hwaddr {
            self.hwaddrs.insert(&self.primary, id);
        }
        if client {
            self.clients.insert(&self.primary, id);
        }
        if hostname {
            self.hostnames.insert(&self.primary, id);
        }
        if place {
            self.subnet_set(&new).insert(key, ());
        }
        if counted {
            self.count(&new, true);
        }
        if context && let Some(text) = new.user_context() {
            self.context(&new, &text, true);
        }
        if lag.is_none() {
            self.enqueue(id, &new);
        }
        if is_free_earlier {
            self.primary.lower_free_from(&new);
        }
        Ok(())
    }

    /// Removes the lease of an address. Returns whether there was one.
    pub(super) fn remove(&mut self, key: L::AddressKey) -> bool {
        let Some(packed) = self.primary.get(key) else {
            return false;
        };
        let hashes = self.prefetch(&packed);
        self.remove_prefetched(key, &hashes)
    }

    /// Removes the lease of an address, after [`Storage::prefetch`]. Returns whether there was one.
    pub(super) fn remove_prefetched(&mut self, key: L::AddressKey, hashes: &Hashes) -> bool {
        let Some(id) = self.primary.block_of(key) else {
            return false;
        };
        self.hwaddrs.remove_hashed(&self.primary, id, hashes.hwaddr);
        self.clients.remove_hashed(&self.primary, id, hashes.client);
        self.hostnames.remove_hashed(&self.primary, id, hashes.hostname);
        self.unindex(id, true, true, true, true);
        self.primary.remove(key, id);
        self.primary.arena.remove(id);
        true
    }

    /// Removes a lease from the indexes other than those by client and hostname, as far as the
    /// flags say.
    fn unindex(&mut self, id: BlockId, place: bool, counted: bool, context: bool, queue: bool) {
        let Self { primary, subnets, queues, .. } = self;
        let packed = primary.packed(id);
        let (key, subnet, state) = (packed.key(), packed.subnet_id(), packed.state());
        if place && let Some(states) = subnets.get_mut(&subnet) {
            if let Some(at) = states.iter().position(|(other, _)| *other == state) {
                states[at].1.remove(key);
                if states[at].1.is_empty() {
                    states.swap_remove(at);
                }
            }
            if states.is_empty() {
                subnets.remove(&subnet);
            }
        }
        if queue && let Some(end) = packed.end() {
            queues[ExpiryKind::of(state) as usize].remove(end.wrapping_sub(packed.lag().into()), key);
        }
        if !counted && !context {
            return;
        }
        let (count_key, user_context) = (count_key(&packed), packed.user_context());
        if counted {
            change_count::<L>(&mut self.counts, count_key, false);
        }
        if context && let Some(text) = user_context {
            // Depends only on the context and these two values.
            let (_, _, kind, state) = count_key;
            change_classes(&mut self.classes, &text, kind, state, false);
            self.relays.remove(&text, key);
        }
    }

    /// Returns the addresses of a lease's subnet and state.
    fn subnet_set(&mut self, packed: &Packed<'_, L>) -> &mut Addresses<L::AddressKey> {
        let states = self.subnets.entry(packed.subnet_id()).or_default();
        let state = packed.state();
        let at = match states.iter().position(|(other, _)| *other == state) {
            Some(at) => at,
            None => {
                states.push((state, OrderedMap::default()));
                states.len() - 1
            }
        };
        &mut states[at].1
    }

    /// Inserts a lease into its queue, at the time of its end.
    fn enqueue(&mut self, id: BlockId, packed: &Packed<'_, L>) {
        if let Some(end) = packed.end() {
            self.queues[ExpiryKind::of(packed.state()) as usize].insert(end, packed.key());
        }
        set_lag(self.primary.arena.get_mut(id), 0);
    }

    /// Returns the lag with which a lease can keep the place of the lease that it replaces; `None`
    /// if it cannot.
    fn lag_in_place(&self, old: &Packed<'_, L>, new: &Packed<'_, L>) -> Option<u32> {
        if ExpiryKind::of(old.state()) != ExpiryKind::of(new.state()) {
            return None;
        }
        match (old.end(), new.end()) {
            (None, None) => Some(0),
            (Some(old_end), Some(new_end)) => {
                let place = old_end.wrapping_sub(old.lag().into());
                new_end.checked_sub(place).and_then(|lag| u32::try_from(lag).ok())
            }
            _ => None,
        }
    }

    fn count(&mut self, packed: &Packed<'_, L>, add: bool) {
        change_count::<L>(&mut self.counts, count_key(packed), add);
    }

    fn context(&mut self, packed: &Packed<'_, L>, context: &UserContext, add: bool) {
        change_classes(&mut self.classes, context, L::kind_in(packed), packed.state(), add);
        self.relays.insert(context, packed.key());
    }

    /// Appends the rows of at most `count` leases, from the one after `after` on. Returns the
    /// number of rows, and the address to continue after if there may be more.
    pub(super) fn write_rows(
        &self,
        after: Option<L::AddressKey>,
        count: usize,
        out: &mut Vec<u8>,
    ) -> (usize, Option<L::AddressKey>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut written = (0, None);
        for (key, id) in self.primary.iter_from(from).take(count) {
            self.primary.packed(id).lease().write_row(out);
            written = (written.0 + 1, Some(key));
        }
        written
    }

    /// Returns the number of allocated bytes by purpose.
    pub(super) fn memory(&self) -> [(&'static str, usize); 7] {
        let subnets = self.subnets.values().flatten();
        let (leases, addresses) = self.primary.memory();
        [
            ("leases", leases),
            ("by address", addresses),
            ("by subnet and state", subnets.map(|(_, addresses)| addresses.memory()).sum()),
            ("by expiry", self.queues.iter().map(ExpiryQueue::memory).sum()),
            ("by hardware address", self.hwaddrs.memory()),
            ("by client", self.clients.memory()),
            ("by hostname", self.hostnames.memory()),
        ]
    }
}

#[cfg(test)]
mod tests;
