//! Finding the leases of a query by the index that fits it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;

use super::arena::BlockId;
use super::client_index::Found;
use super::packed_lease::{Packed, StoredLease};
use super::primary_index::PrimaryIndex;
use super::{Addresses, Storage};
use crate::lease::{LeaseState, SubnetId};
use crate::lease_mgr::{Key, Query};

impl<L: StoredLease> Storage<L> {
    /// Adds the leases that match a query to `found`. In the order of the query, `after` replaces
    /// the address that the query starts after. At most `budget` leases are examined; if there may
    /// be more, returns the address to continue after.
    pub(in crate::memfile) fn find(
        &self,
        query: &Query<'_, L>,
        after: Option<L::AddressKey>,
        limit: usize,
        budget: usize,
        found: &mut Vec<L>,
    ) -> Option<L::AddressKey> {
        let span = Span::of(query, after);
        let is_filtered = is_filtered(query);
        if !is_filtered && query.key == Key::All && span.last.is_none() {
            // Every lease that is examined is found.
            found.reserve(limit.saturating_sub(found.len()).min(budget).min(self.len()));
        }
        let mut search = Search { query, is_filtered, span, primary: &self.primary, limit, budget, found };
        match (query.key, query.subnet) {
            (Key::All, None) if span.reversed => search.blocks(self.primary.iter_back_from(span.start())),
            (Key::All, None) => search.blocks(self.primary.iter_from(span.start())),
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
                search.blocks(self.primary.iter_back_from(span.start()))
            }
            (Key::State(_), None) => search.blocks(self.primary.iter_from(span.start())),
            (Key::HwAddr(hwaddr), subnet) => {
                let order = subnet.map(|subnet| subnet.0);
                search.client(self.hwaddrs.find(&self.primary, hwaddr.as_bytes()), order)
            }
            (Key::Hostname(hostname), subnet) => {
                let order = subnet.map(|subnet| subnet.0);
                search.client(self.hostnames.find(&self.primary, hostname.as_bytes()), order)
            }
            (Key::Client(client), subnet) => {
                let order = L::order_of_query(&client, subnet);
                search.client(self.clients.find(&self.primary, client.id), order)
            }
            (Key::RelayId(id), _) => search.merged(self.relays.by_relay(id)),
            (Key::RemoteId(id), _) => search.merged(self.relays.by_remote(id)),
        }
    }

    /// Returns the greatest address that has a lease of a subnet.
    pub(in crate::memfile) fn last_in_subnet(&self, subnet: SubnetId) -> Option<L::AddressKey> {
        let sets = self.subnets.get(&subnet)?.iter();
        sets.filter_map(|(_, addresses)| addresses.iter_back_from(Bound::Unbounded).next())
            .map(|(key, ())| key)
            .max()
    }

    /// Returns the first `count` addresses that have a lease of a subnet, in order, after `after` and
    /// up to `last`.
    pub(in crate::memfile) fn keys_in_subnet(
        &self,
        subnet: SubnetId,
        after: Option<L::AddressKey>,
        last: L::AddressKey,
        count: usize,
    ) -> Vec<L::AddressKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let sets = self.subnets.get(&subnet).into_iter().flatten();
        let sets = sets.map(|(_, addresses)| addresses.iter_from(from).map(|(key, ())| key));
        merge(sets.collect()).take_while(|&key| key <= last).take(count).collect()
    }

    /// Returns the number of subnets that have leases.
    pub(in crate::memfile) fn subnets(&self) -> usize {
        self.subnets.len()
    }

    /// Returns the addresses of the leases in a state, in the order and range of the query, from
    /// `after` on; `None` if they are a large part of all leases, so that [`Storage::find`] is
    /// faster. Takes time for each subnet and for each of the addresses.
    pub(in crate::memfile) fn in_state(
        &self,
        state: LeaseState,
        query: &Query<'_, L>,
        after: Option<L::AddressKey>,
    ) -> Option<Vec<L::AddressKey>> {
        /// From one `PART`th of all leases on, all leases are scanned.
        const PART: usize = 4;
        let sets = || self.subnets.values().flatten().filter(|(other, _)| *other == state);
        let count: usize = sets().map(|(_, addresses)| addresses.len()).sum();
        if count > self.len() / PART {
            return None;
        }
        let span = Span::of(query, after);
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

    /// Adds the leases of these addresses, sorted in the order of the query, that match the query.
    /// Returns whether the limit is reached.
    pub(in crate::memfile) fn find_among(
        &self,
        query: &Query<'_, L>,
        keys: &[L::AddressKey],
        limit: usize,
        found: &mut Vec<L>,
    ) -> bool {
        let span = Span::of(query, None);
        let (primary, budget) = (&self.primary, usize::MAX);
        let mut search = Search { query, is_filtered: true, span, primary, limit, budget, found };
        search.keys(keys.iter().copied());
        found.len() >= limit
    }
}

/// The range of addresses of a query, in its order.
#[derive(Clone, Copy)]
struct Span<K> {
    from: Bound<K>,
    last: Option<K>,
    reversed: bool,
}

impl<K: Copy + Ord> Span<K> {
    fn of<L: StoredLease<AddressKey = K>>(query: &Query<'_, L>, after: Option<K>) -> Self {
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

    /// Returns whether an address is after the last one.
    fn is_past(&self, key: K) -> bool {
        self.last.is_some_and(|last| if self.reversed { key < last } else { key > last })
    }

    /// Returns whether an address is before the first one.
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

/// Returns whether a lease that the index of the key finds may not match the query. Bounds of
/// addresses are checked by the [`Span`].
fn is_filtered<L: StoredLease>(query: &Query<'_, L>) -> bool {
    query.subnet.is_some()
        || query.heard_since.is_some()
        || query.heard_until.is_some()
        || query.ended_by.is_some()
        || matches!(query.key, Key::State(_) | Key::Client(_))
}

/// A search for the leases of a query.
struct Search<'a, 'q, L: StoredLease> {
    query: &'a Query<'q, L>,
    /// See [`is_filtered`].
    is_filtered: bool,
    span: Span<L::AddressKey>,
    primary: &'a PrimaryIndex<L>,
    limit: usize,
    budget: usize,
    found: &'a mut Vec<L>,
}

impl<L: StoredLease> Search<'_, '_, L> {
    /// Adds a lease if it matches the query. Returns whether the limit or the budget is reached.
    fn consider(&mut self, packed: &Packed<'_, L>) -> bool {
        if !self.is_filtered || self.matches(packed) {
            if self.limit == 1 {
                // A vector that grows by itself takes room for four leases.
                self.found.reserve_exact(1);
            }
            self.found.push(packed.lease());
        }
        self.budget -= 1;
        self.found.len() >= self.limit || self.budget == 0
    }

    /// Returns whether a lease that the index has found matches the query.
    #[inline]
    fn matches(&self, packed: &Packed<'_, L>) -> bool {
        let query = self.query;
        let cltt = packed.cltt();
        query.subnet.is_none_or(|subnet| packed.subnet_id() == subnet)
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
    }

    /// Examines leases in the order of the query, from the first in its range on.
    fn blocks(&mut self, blocks: impl Iterator<Item = (L::AddressKey, BlockId)>) -> Option<L::AddressKey> {
        if self.limit == 0 {
            return None;
        }
        for (key, id) in blocks {
            if self.span.is_past(key) {
                return None;
            }
            if self.consider(&self.primary.packed(id)) {
                return (self.found.len() < self.limit).then_some(key);
            }
        }
        None
    }

    fn keys(&mut self, keys: impl Iterator<Item = L::AddressKey>) -> Option<L::AddressKey> {
        let primary = self.primary;
        self.blocks(keys.filter_map(|key| Some((key, primary.block_of(key)?))))
    }

    /// Examines the leases of sets of addresses, in the order of the query.
    fn merged<'s>(
        &mut self,
        sets: impl IntoIterator<Item = &'s Addresses<L::AddressKey>>,
    ) -> Option<L::AddressKey>
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

    /// Examines the leases of a client; of a set, only those with `order`, if there is one.
    fn client(&mut self, leases: Found<'_, L::AddressKey>, order: Option<u32>) -> Option<L::AddressKey> {
        // All leases are of one client, so all are examined.
        self.budget = usize::MAX;
        let span = self.span;
        match (leases, order) {
            (Found::None, _) => None,
            (Found::One(id), _) => {
                let key = self.primary.packed(id).key();
                self.blocks(span.contains(key).then_some((key, id)).into_iter())
            }
            (Found::Several(set), Some(order)) if !span.reversed => {
                let from = match span.start() {
                    Bound::Unbounded => Bound::Included((order, L::AddressKey::default())),
                    Bound::Included(key) => Bound::Included((order, key)),
                    Bound::Excluded(key) => Bound::Excluded((order, key)),
                };
                let of_order = set.iter_from(from).map(|(member, ())| member);
                self.keys(of_order.take_while(|&(other, _)| other == order).map(|(_, key)| key))
            }
            (Found::Several(set), order) => {
                let all = set
                    .iter_from(order.map_or(Bound::Unbounded, |order| {
                        Bound::Included((order, L::AddressKey::default()))
                    }));
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

/// Merges ascending iterators into one.
fn merge<K: Copy + Ord, I: Iterator<Item = K>>(mut sets: Vec<I>) -> impl Iterator<Item = K> {
    let mut next: BinaryHeap<_> =
        sets.iter_mut().enumerate().filter_map(|(n, set)| Some(Reverse((set.next()?, n)))).collect();
    std::iter::from_fn(move || {
        // With one set left, nothing is compared.
        let Reverse((key, n)) = next.peek().copied()?;
        match sets[n].next() {
            Some(following) => *next.peek_mut()? = Reverse((following, n)),
            None => drop(next.pop()),
        }
        Some(key)
    })
}
