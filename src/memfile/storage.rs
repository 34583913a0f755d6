//! All leases in memory, and an index for every question that is asked of them.
//!
//! Nothing here locks, waits or does I/O: who has a `&Storage` reads, who has a `&mut Storage` changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Bound;

use foldhash::fast::RandomState;

use super::arena::BlockId;
use super::client_index::{ClientIndex, Found};
use super::expire_queue::{ExpireQueue, Place, moment};
use super::ordered::OrderedMap;
use super::record::{Packed, StoredLease, set_lag};
use super::records::Records;
use super::relay_index::RelayIndex;
use super::row_locks::LOCKS;
use super::threads::in_parallel;
use crate::lease::{
    ClientClass, LeaseKind, LeaseState, LeaseType, PoolId, SubnetId, UserContext, client_classes,
};
use crate::lease_file::row::private::RowFormat;
use crate::lease_mgr::{Key, Query, StatisticsQuery, StatisticsRow};

/// A set of addresses.
type Addresses<K> = OrderedMap<K, ()>;

/// The addresses of a subnet, by the state of their leases.
type States<K> = Vec<(LeaseState, Addresses<K>)>;

/// What leases are counted by.
type CountKey = (SubnetId, PoolId, Option<LeaseType>, LeaseState);

/// All leases in memory, with their indexes.
pub(super) struct Storage<L: StoredLease> {
    records: Records<L>,
    /// The addresses of each subnet, by the state of their leases. There are few states.
    subnets: BTreeMap<SubnetId, States<L::Key>>,
    queues: [ExpireQueue<L::Key>; 2],
    hwaddrs: ClientIndex<L>,
    clients: ClientIndex<L>,
    hostnames: ClientIndex<L>,
    relays: RelayIndex<L>,
    counts: BTreeMap<CountKey, u64>,
    classes: Classes,
}

/// How many leases in use name each client class: addresses, and prefixes.
type Classes = HashMap<ClientClass, [u64; 2], RandomState>;

/// The queues of leases that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Of those that are not reclaimed.
    Expiring,
    /// Of those that are.
    Reclaimed,
}

impl Queue {
    fn of(state: LeaseState) -> Self {
        if state == LeaseState::EXPIRED_RECLAIMED { Self::Reclaimed } else { Self::Expiring }
    }
}

/// The hashes of what a lease is found by.
pub(super) struct Hashes {
    hwaddr: u64,
    client: u64,
    hostname: u64,
}

/// Leases that have ended, and their places in the queue.
pub(super) type Ended<L> = Vec<(Place<<L as RowFormat>::Key>, L)>;

/// Leases in a queue are not where they belong.
#[derive(Debug)]
pub(super) struct Misplaced;

/// There is no room for another lease.
#[derive(Debug)]
pub(super) struct NoRoom;

impl<L: StoredLease> Storage<L> {
    /// An empty one. `relay_tables`: whether leases are found by relay and remote ids.
    pub(super) fn new(relay_tables: bool) -> Self {
        let subnet = |packed: &Packed<'_, L>| packed.subnet_id().0;
        Self {
            records: Records::new(),
            subnets: BTreeMap::new(),
            queues: [ExpireQueue::default(), ExpireQueue::default()],
            hwaddrs: ClientIndex::new(|packed| packed.hwaddr(), subnet, false),
            clients: ClientIndex::new(|packed| packed.client(), L::client_order, false),
            hostnames: ClientIndex::new(|packed| packed.hostname(), subnet, true),
            relays: RelayIndex::new(relay_tables),
            counts: BTreeMap::new(),
            classes: HashMap::default(),
        }
    }

    /// Whether leases are found by relay and remote ids.
    pub(super) fn has_relay_tables(&self) -> bool {
        self.relays.is_enabled()
    }

    /// How many leases there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the leases of all changes that may be going on find room: whatever was found by one of them before its row was
    /// written is so after that, too. Each change that is made alone holds a lock; `batched` is the number of the others.
    pub(super) fn has_room(&self, batched: usize) -> bool {
        self.records.arena.has_room_for(LOCKS + batched)
    }

    /// The lease of an address.
    #[inline]
    pub(super) fn get(&self, key: L::Key) -> Option<Packed<'_, L>> {
        self.records.get(key)
    }

    /// Has the processor fetch what a change with this lease needs. Whoever is about to change the storage does it
    /// before, while others still may.
    pub(super) fn fetch(&self, packed: &Packed<'_, L>) -> Hashes {
        // Each of the tables costs a cache miss, so they are asked for all at once.
        self.records.fetch(packed.key());
        Hashes {
            hwaddr: self.hwaddrs.fetch(packed),
            client: self.clients.fetch(packed),
            hostname: self.hostnames.fetch(packed),
        }
    }

    /// Takes in a lease whose address has none.
    pub(super) fn insert(&mut self, record: &[u8]) -> Result<(), NoRoom> {
        let hashes = self.fetch(&Packed::new(record));
        self.insert_fetched(record, &hashes)
    }

    /// Takes in a lease whose address has none, and for which was fetched what it needs.
    pub(super) fn insert_fetched(&mut self, record: &[u8], hashes: &Hashes) -> Result<(), NoRoom> {
        let packed = Packed::<L>::new(record);
        let &Hashes { hwaddr, client, hostname } = hashes;
        let id = self.records.arena.insert(record).ok_or(NoRoom)?;
        self.records.insert(packed.key(), id);
        self.hwaddrs.insert_hashed(&self.records, id, hwaddr);
        self.clients.insert_hashed(&self.records, id, client);
        self.hostnames.insert_hashed(&self.records, id, hostname);
        self.subnet_set(&packed).insert(packed.key(), ());
        self.count(&packed, true);
        if let Some(context) = packed.user_context() {
            self.context(&packed, &context, true);
        }
        self.enqueue(id, &packed);
        Ok(())
    }

    /// Puts a lease in the place of the one of its address; or takes it in.
    pub(super) fn replace(&mut self, record: &[u8]) -> Result<(), NoRoom> {
        let new = Packed::<L>::new(record);
        let key = new.key();
        let Some(id) = self.records.block_of(key) else {
            return self.insert(record);
        };
        let old = self.records.packed(id);
        let order = (old.subnet_id(), L::client_order(&old)) != (new.subnet_id(), L::client_order(&new));
        let hwaddr = order || old.hwaddr() != new.hwaddr();
        let client = order || old.client() != new.client();
        let hostname = order || old.hostname() != new.hostname();
        let place = (old.subnet_id(), old.state()) != (new.subnet_id(), new.state());
        let counted = place || (old.pool_id(), L::kind_in(&old)) != (new.pool_id(), L::kind_in(&new));
        let context = !old.has_context_of(&new) || (counted && (old.user_context().is_some()));
        let lag = self.lag_in_place(&old, &new);

        let moved_to = if self.records.arena.fits(id, record.len()) {
            None
        } else {
            Some(self.records.arena.insert(record).ok_or(NoRoom)?)
        };
        if hwaddr {
            self.hwaddrs.remove(&self.records, id);
        }
        if client {
            self.clients.remove(&self.records, id);
        }
        if hostname {
            self.hostnames.remove(&self.records, id);
        }
        if place || counted || context || lag.is_none() {
            self.forget(id, place, counted, context, lag.is_none());
        }
        let id = match moved_to {
            None => {
                self.records.arena.put(id, record);
                id
            }
            Some(new_id) => {
                self.records.relocate(key, id, new_id);
                for (changed, index) in [
                    (hwaddr, &mut self.hwaddrs),
                    (client, &mut self.clients),
                    (hostname, &mut self.hostnames),
                ] {
                    if !changed {
                        index.relocate(&self.records, id, new_id);
                    }
                }
                self.records.arena.remove(id);
                new_id
            }
        };
        set_lag(self.records.arena.get_mut(id), lag.unwrap_or(0));
        if hwaddr {
            self.hwaddrs.insert(&self.records, id);
        }
        if client {
            self.clients.insert(&self.records, id);
        }
        if hostname {
            self.hostnames.insert(&self.records, id);
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
        Ok(())
    }

    /// Lets go of the lease of an address, and tells whether there was one.
    pub(super) fn remove(&mut self, key: L::Key) -> bool {
        let Some(packed) = self.records.get(key) else {
            return false;
        };
        let hashes = self.fetch(&packed);
        self.remove_fetched(key, &hashes)
    }

    /// Lets go of the lease of an address, for which was fetched what it needs, and tells whether there was one.
    pub(super) fn remove_fetched(&mut self, key: L::Key, hashes: &Hashes) -> bool {
        let Some(id) = self.records.block_of(key) else {
            return false;
        };
        self.hwaddrs.remove_hashed(&self.records, id, hashes.hwaddr);
        self.clients.remove_hashed(&self.records, id, hashes.client);
        self.hostnames.remove_hashed(&self.records, id, hashes.hostname);
        self.forget(id, true, true, true, true);
        self.records.remove(key, id);
        self.records.arena.remove(id);
        true
    }

    /// Takes a lease out of the indexes other than those of its client.
    fn forget(&mut self, id: BlockId, place: bool, counted: bool, context: bool, queue: bool) {
        let Self { records, subnets, queues, .. } = self;
        let packed = records.packed(id);
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
            queues[Queue::of(state) as usize].remove(end.wrapping_sub(packed.lag().into()), key);
        }
        if !counted && !context {
            return;
        }
        let (count_key, user_context) = (count_key(&packed), packed.user_context());
        if counted {
            change_count::<L>(&mut self.counts, count_key, false);
        }
        if context && let Some(text) = user_context {
            // Only what the context and these two say is looked at.
            let (_, _, kind, state) = count_key;
            change_classes(&mut self.classes, &text, kind, state, false);
            self.relays.remove(&text, key);
        }
    }

    /// The addresses of a lease's subnet and state.
    fn subnet_set(&mut self, packed: &Packed<'_, L>) -> &mut Addresses<L::Key> {
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

    /// Puts a lease where it belongs in its queue.
    fn enqueue(&mut self, id: BlockId, packed: &Packed<'_, L>) {
        if let Some(end) = packed.end() {
            self.queues[Queue::of(packed.state()) as usize].insert(end, packed.key());
        }
        set_lag(self.records.arena.get_mut(id), 0);
    }

    /// The lag with which a lease can have the place of the one that it replaces; `None` where it cannot.
    fn lag_in_place(&self, old: &Packed<'_, L>, new: &Packed<'_, L>) -> Option<u32> {
        if Queue::of(old.state()) != Queue::of(new.state()) {
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

    /// The leases that a query asks for, after `after` in its order instead of the address that it names. At most `budget`
    /// are looked at; if there may be more, the address is given to go on after.
    pub(super) fn find(
        &self,
        query: &Query<'_, L>,
        after: Option<L::Key>,
        limit: usize,
        budget: usize,
        found: &mut Vec<L>,
    ) -> Option<L::Key> {
        let span = Span::of(query, after);
        let mut search = Search { query, span, records: &self.records, limit, budget, found };
        match (query.key, query.subnet) {
            (Key::All, None) if span.reversed => search.blocks(self.records.iter_back_from(span.start())),
            (Key::All, None) => search.blocks(self.records.iter_from(span.start())),
            (Key::All, Some(subnet)) => {
                let states = self.subnets.get(&subnet).map_or(&[][..], Vec::as_slice);
                search.merged(states.iter().map(|(_, addresses)| addresses))
            }
            (Key::State(state), Some(subnet)) => {
                let states = self.subnets.get(&subnet).map_or(&[][..], Vec::as_slice);
                let states = states.iter().filter(|(other, _)| *other == state);
                search.merged(states.map(|(_, addresses)| addresses))
            }
            (Key::State(_), None) if span.reversed => {
                search.blocks(self.records.iter_back_from(span.start()))
            }
            (Key::State(_), None) => search.blocks(self.records.iter_from(span.start())),
            (Key::HwAddr(hwaddr), subnet) => {
                let order = subnet.map(|subnet| subnet.0);
                search.client(self.hwaddrs.find(&self.records, hwaddr.as_bytes()), order)
            }
            (Key::Hostname(hostname), subnet) => {
                let order = subnet.map(|subnet| subnet.0);
                search.client(self.hostnames.find(&self.records, hostname.as_bytes()), order)
            }
            (Key::Client(client), subnet) => {
                let order = L::order_of_query(&client, subnet);
                search.client(self.clients.find(&self.records, client.id), order)
            }
            (Key::RelayId(id), _) => search.merged(self.relays.by_relay(id)),
            (Key::RemoteId(id), _) => search.merged(self.relays.by_remote(id)),
        }
    }

    /// The addresses of the leases in a state, those that a query is about, in its order; `None` if that is a large part of
    /// all leases, which [`Storage::find`] looks at then. Takes time for each subnet and for each of the addresses.
    pub(super) fn in_state(&self, state: LeaseState, query: &Query<'_, L>) -> Option<Vec<L::Key>> {
        /// The part of all leases from which on they are looked at one by one.
        const PART: usize = 4;
        let sets = || self.subnets.values().flatten().filter(|(other, _)| *other == state);
        let count: usize = sets().map(|(_, addresses)| addresses.len()).sum();
        if count > self.len() / PART {
            return None;
        }
        let span = Span::of(query, query.after.map(L::key_of));
        let mut keys = Vec::with_capacity(count);
        for (_, addresses) in sets() {
            let all = addresses.iter_from(Bound::Unbounded).map(|(key, ())| key);
            keys.extend(all.filter(|&key| span.contains(key)));
        }
        keys.sort_unstable();
        if span.reversed {
            keys.reverse();
        }
        Some(keys)
    }

    /// Of the leases of these addresses, which are in the order of the query, those that the query asks for. Returns whether
    /// these are as many as it asks for.
    pub(super) fn find_among(
        &self,
        query: &Query<'_, L>,
        keys: &[L::Key],
        limit: usize,
        found: &mut Vec<L>,
    ) -> bool {
        let span = Span::of(query, None);
        let mut search = Search { query, span, records: &self.records, limit, budget: usize::MAX, found };
        search.keys(keys.iter().copied());
        found.len() >= limit
    }

    /// Appends the rows of leases, at most `count`, from the one behind `after` on. Returns the address to go on behind, if
    /// there may be more.
    pub(super) fn write_rows(
        &self,
        after: Option<L::Key>,
        count: usize,
        out: &mut Vec<u8>,
    ) -> (usize, Option<L::Key>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut written = (0, None);
        for (key, id) in self.records.iter_from(from).take(count) {
            self.records.packed(id).lease().write_row(out);
            written = (written.0 + 1, Some(key));
        }
        written
    }

    /// The leases of a queue that have ended at `time` (seconds since the epoch), from a place on, at most `count`.
    pub(super) fn ended(
        &self,
        queue: Queue,
        time: u64,
        after: Option<Place<L::Key>>,
        count: usize,
    ) -> Result<Ended<L>, Misplaced> {
        let places = self.queues[queue as usize].until(moment(time), after, count);
        let leases = places.into_iter().filter_map(|place| Some((place, self.records.get(place.key)?)));
        leases
            .map(
                |(place, packed)| {
                    if packed.lag() == 0 { Ok((place, packed.lease())) } else { Err(Misplaced) }
                },
            )
            .collect()
    }

    /// Moves those of the first `count` leases of a queue that are ahead of their time to where they belong.
    pub(super) fn put_in_place(
        &mut self,
        queue: Queue,
        time: u64,
        after: Option<Place<L::Key>>,
        count: usize,
    ) {
        let queue = &mut self.queues[queue as usize];
        for place in queue.until(moment(time), after, count) {
            let Some(id) = self.records.block_of(place.key) else {
                continue;
            };
            let lag = self.records.packed(id).lag();
            if lag > 0 {
                queue.remove(place.time(), place.key);
                queue.insert(place.time().wrapping_add(lag.into()), place.key);
                set_lag(self.records.arena.get_mut(id), 0);
            }
        }
    }

    /// How many leases there are.
    pub(super) fn statistics(&self, query: &StatisticsQuery) -> Vec<StatisticsRow> {
        let (first, last) = query.subnets.bounds();
        let lowest = (first, PoolId(0), None, LeaseState(0));
        let counts = self.counts.range(lowest..).take_while(|((subnet, ..), _)| *subnet <= last);
        if first > last {
            return Vec::new();
        }
        let mut rows: Vec<StatisticsRow> = Vec::new();
        for (&(subnet_id, pool_id, lease_type, state), &count) in counts {
            let pool_id = query.by_pool.then_some(pool_id);
            rows.push(StatisticsRow { subnet_id, pool_id, lease_type, state, count });
        }
        rows.sort_unstable();
        rows.dedup_by(|row, kept| {
            let same = StatisticsRow { count: 0, ..*row } == StatisticsRow { count: 0, ..*kept };
            kept.count += if same { row.count } else { 0 };
            same
        });
        rows
    }

    /// Counts all leases again.
    pub(super) fn recount(&mut self) {
        self.counts.clear();
        self.classes.clear();
        for (_, id) in self.records.iter_from(Bound::Unbounded) {
            let packed = self.records.packed(id);
            change_count::<L>(&mut self.counts, count_key(&packed), true);
            if let Some(context) = packed.user_context() {
                let (kind, state) = (L::kind_in(&packed), packed.state());
                change_classes(&mut self.classes, &context, kind, state, true);
            }
        }
    }

    /// How many leases in use name a client class.
    pub(super) fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> u64 {
        self.classes.get(class).map_or(0, |counts| counts[kind as usize])
    }

    /// Takes in a row of a lease file, before [`Storage::build_indexes`].
    pub(super) fn load(&mut self, record: &[u8]) -> Result<(), NoRoom> {
        let key = Packed::<L>::new(record).key();
        let Some(old) = self.records.block_of(key) else {
            let id = self.records.arena.insert(record).ok_or(NoRoom)?;
            self.records.insert(key, id);
            return Ok(());
        };
        if self.records.arena.fits(old, record.len()) {
            self.records.arena.put(old, record);
        } else {
            let id = self.records.arena.insert(record).ok_or(NoRoom)?;
            self.records.relocate(key, old, id);
            self.records.arena.remove(old);
        }
        Ok(())
    }

    /// Takes in a row of a lease file that deletes a lease.
    pub(super) fn load_deletion(&mut self, key: L::Key) {
        if let Some(id) = self.records.block_of(key) {
            self.records.remove(key, id);
            self.records.arena.remove(id);
        }
    }

    /// All leases, in the order of their addresses, also before [`Storage::build_indexes`].
    pub(super) fn loaded(&self) -> impl Iterator<Item = Packed<'_, L>> {
        self.records.iter_from(Bound::Unbounded).map(|(_, id)| self.records.packed(id))
    }

    /// Builds all indexes, when all rows are loaded.
    pub(super) fn build_indexes(&mut self) {
        let Self { records, hwaddrs, clients, hostnames, subnets, queues, relays, counts, classes } = self;
        let records = &*records;
        let blocks = || records.iter_from(Bound::Unbounded).map(|(_, id)| id);
        let fill = |index: &mut ClientIndex<L>| {
            let named = blocks().filter(|&id| index.is_in(records, id)).count();
            index.reserve(named);
            blocks().for_each(|id| index.insert(records, id));
        };
        let build_others = || {
            let mut places = [Vec::new(), Vec::new()];
            for id in blocks() {
                let packed = records.packed(id);
                let (key, state) = (packed.key(), packed.state());
                if let Some(end) = packed.end() {
                    places[Queue::of(state) as usize].push(Place::new(end, key));
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
        in_parallel([
            Box::new(|| fill(hwaddrs)) as Box<dyn FnOnce() + Send>,
            Box::new(|| fill(clients)),
            Box::new(|| fill(hostnames)),
            Box::new(build_others),
        ]);
    }

    /// How many bytes are allocated, by what for.
    pub(super) fn memory(&self) -> [(&'static str, usize); 7] {
        let subnets = self.subnets.values().flatten();
        let (leases, addresses) = self.records.memory();
        [
            ("leases", leases),
            ("by address", addresses),
            ("by subnet and state", subnets.map(|(_, addresses)| addresses.memory()).sum()),
            ("by expiry", self.queues.iter().map(ExpireQueue::memory).sum()),
            ("by hardware address", self.hwaddrs.memory()),
            ("by client", self.clients.memory()),
            ("by hostname", self.hostnames.memory()),
        ]
    }

    /// Says where the indexes and the leases disagree, if they do.
    #[cfg(test)]
    pub(super) fn check(&self) -> Result<(), String> {
        let mut built = Self::new(self.relays.is_enabled());
        for (_, id) in self.records.iter_from(Bound::Unbounded) {
            let packed = self.records.packed(id);
            let mut record = Vec::new();
            super::record::pack(&packed.lease(), &mut record);
            built.insert(&record).map_err(|NoRoom| "no room")?;
            for (name, index, key) in [
                ("hwaddr", &self.hwaddrs, packed.hwaddr()),
                ("client", &self.clients, packed.client()),
                ("hostname", &self.hostnames, packed.hostname()),
            ] {
                let found = match index.find(&self.records, key) {
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
                let queue = &self.queues[Queue::of(packed.state()) as usize];
                let before = Place::new(time, packed.key());
                if !queue.until(time, None, usize::MAX).contains(&before) {
                    return Err(format!("{:?} is not in its queue", packed.lease()));
                }
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
                self.queues.each_ref().map(ExpireQueue::len) == built.queues.each_ref().map(ExpireQueue::len),
            ),
        ] {
            if !same {
                return Err(format!("the index of {name} is not that of the leases"));
            }
        }
        Ok(())
    }
}

/// What a lease is counted by.
fn count_key<L: StoredLease>(packed: &Packed<'_, L>) -> CountKey {
    (packed.subnet_id(), packed.pool_id(), L::kind_in(packed), packed.state())
}

fn change_count<L: StoredLease>(counts: &mut BTreeMap<CountKey, u64>, key: CountKey, add: bool) {
    let (_, _, kind, state) = key;
    if !L::is_counted(kind, state) {
        return;
    }
    let count = counts.entry(key).or_default();
    *count = if add { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        counts.remove(&key);
    }
}

fn change_classes(
    classes: &mut Classes,
    context: &UserContext,
    kind: Option<LeaseType>,
    state: LeaseState,
    add: bool,
) {
    let Some(kind) = kind.map_or(Some(LeaseKind::Address), LeaseKind::of) else {
        return;
    };
    if state != LeaseState::DEFAULT {
        return;
    }
    let mut named: Vec<_> = client_classes(context).collect();
    named.sort_unstable();
    named.dedup();
    for class in named {
        if add {
            classes.entry(ClientClass::new(&class)).or_default()[kind as usize] += 1;
        } else if let Some(counts) = classes.get_mut(&*class) {
            counts[kind as usize] = counts[kind as usize].saturating_sub(1);
            if *counts == [0, 0] {
                classes.remove(&*class);
            }
        }
    }
}

/// The addresses that a query is about, from the one that comes first in its order to the one that comes last.
#[derive(Clone, Copy)]
struct Span<K> {
    from: Bound<K>,
    last: Option<K>,
    reversed: bool,
}

impl<K: Copy + Ord> Span<K> {
    fn of<L: StoredLease<Key = K>>(query: &Query<'_, L>, after: Option<K>) -> Self {
        let (mut first, mut last) = (query.first.map(L::key_of), query.last.map(L::key_of));
        if query.reversed {
            std::mem::swap(&mut first, &mut last);
        }
        let reversed = query.reversed;
        let comes_first = |a: K, b: K| if reversed { a > b } else { a < b };
        let from = match (after, first) {
            (Some(after), Some(first)) if comes_first(after, first) => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        Self { from, last, reversed }
    }

    fn start(&self) -> Bound<K> {
        self.from
    }

    /// Whether an address comes after the last one.
    fn is_past(&self, key: K) -> bool {
        self.last.is_some_and(|last| if self.reversed { key < last } else { key > last })
    }

    /// Whether an address comes before the first one.
    fn is_before(&self, key: K) -> bool {
        match self.from {
            Bound::Unbounded => false,
            Bound::Included(from) => {
                if self.reversed {
                    key > from
                } else {
                    key < from
                }
            }
            Bound::Excluded(from) => {
                if self.reversed {
                    key >= from
                } else {
                    key <= from
                }
            }
        }
    }

    fn contains(&self, key: K) -> bool {
        !self.is_before(key) && !self.is_past(key)
    }
}

/// A search for the leases of a query.
struct Search<'a, 'q, L: StoredLease> {
    query: &'a Query<'q, L>,
    span: Span<L::Key>,
    records: &'a Records<L>,
    limit: usize,
    budget: usize,
    found: &'a mut Vec<L>,
}

impl<L: StoredLease> Search<'_, '_, L> {
    /// Takes a lease if it is one of those asked for; whether that was enough.
    fn look_at(&mut self, packed: &Packed<'_, L>) -> bool {
        let query = self.query;
        let cltt = packed.cltt();
        if query.subnet.is_none_or(|subnet| packed.subnet_id() == subnet)
            && query.heard_since.is_none_or(|since| cltt >= since)
            && query.heard_until.is_none_or(|until| cltt <= until)
            && query.ended_by.is_none_or(|time| packed.has_ended(time))
            && match &query.key {
                Key::State(state) => packed.state() == *state,
                Key::Client(client) => {
                    client.lease_type.is_none_or(|wanted| L::kind_in(packed) == Some(wanted))
                        && client.iaid.is_none_or(|wanted| L::iaid_in(packed) == Some(wanted))
                }
                _ => true,
            }
        {
            self.found.push(packed.lease());
        }
        self.budget -= 1;
        self.found.len() >= self.limit || self.budget == 0
    }

    /// Looks at leases in the order of the query, from the first in its span on.
    fn blocks(&mut self, blocks: impl Iterator<Item = (L::Key, BlockId)>) -> Option<L::Key> {
        if self.limit == 0 {
            return None;
        }
        for (key, id) in blocks {
            if self.span.is_past(key) {
                return None;
            }
            if self.look_at(&self.records.packed(id)) {
                return (self.found.len() < self.limit).then_some(key);
            }
        }
        None
    }

    fn keys(&mut self, keys: impl Iterator<Item = L::Key>) -> Option<L::Key> {
        let records = self.records;
        self.blocks(keys.filter_map(|key| Some((key, records.block_of(key)?))))
    }

    /// Looks at the leases of sets of addresses, in the order of the query.
    fn merged<'s>(&mut self, sets: impl IntoIterator<Item = &'s Addresses<L::Key>>) -> Option<L::Key>
    where
        L: 's,
    {
        let start = self.span.start();
        if self.span.reversed {
            let sets = sets.into_iter().map(|set| set.iter_back_from(start).map(|(key, ())| Reverse(key)));
            self.keys(merge(sets.collect()).map(|Reverse(key)| key))
        } else {
            let sets = sets.into_iter().map(|set| set.iter_from(start).map(|(key, ())| key));
            self.keys(merge(sets.collect()))
        }
    }

    /// Looks at the leases of a client: where it has several, at those with the same order in its set, if one is given.
    fn client(&mut self, leases: Found<'_, L::Key>, order: Option<u32>) -> Option<L::Key> {
        // They are of one client, so all are looked at.
        self.budget = usize::MAX;
        let span = self.span;
        match (leases, order) {
            (Found::None, _) => None,
            (Found::One(id), _) => {
                let key = self.records.packed(id).key();
                self.blocks(span.contains(key).then_some((key, id)).into_iter())
            }
            (Found::Several(set), Some(order)) if !span.reversed => {
                let from = match span.start() {
                    Bound::Unbounded => Bound::Included((order, L::Key::default())),
                    Bound::Included(key) => Bound::Included((order, key)),
                    Bound::Excluded(key) => Bound::Excluded((order, key)),
                };
                let of_order = set.iter_from(from).map(|(member, ())| member);
                self.keys(of_order.take_while(|&(other, _)| other == order).map(|(_, key)| key))
            }
            (Found::Several(set), order) => {
                let all = set.iter_from(
                    order.map_or(Bound::Unbounded, |order| Bound::Included((order, L::Key::default()))),
                );
                let of_order = all.take_while(|((other, _), ())| order.is_none_or(|order| *other == order));
                let mut keys: Vec<_> =
                    of_order.map(|((_, key), ())| key).filter(|&key| span.contains(key)).collect();
                keys.sort_unstable();
                if span.reversed {
                    keys.reverse();
                }
                self.keys(keys.into_iter())
            }
        }
    }
}

/// The elements of iterators that ascend, in their order.
fn merge<K: Copy + Ord, I: Iterator<Item = K>>(mut sets: Vec<I>) -> impl Iterator<Item = K> {
    let mut next: BinaryHeap<_> =
        sets.iter_mut().enumerate().filter_map(|(n, set)| Some(Reverse((set.next()?, n)))).collect();
    std::iter::from_fn(move || {
        // With one set left there is nothing to compare.
        let Reverse((key, n)) = next.peek().copied()?;
        match sets[n].next() {
            Some(following) => *next.peek_mut()? = Reverse((following, n)),
            None => drop(next.pop()),
        }
        Some(key)
    })
}

#[cfg(test)]
mod tests;
