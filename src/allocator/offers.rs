//! Addresses that are offered to clients.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use super::Tier;

/// The reservation of an address for a client.
#[derive(Debug)]
pub(super) struct Offer<C> {
    client: C,
    /// When the offer ends; `None` for a time beyond the range of [`Instant`].
    until: Option<Instant>,
    /// The tier to which the address is put back if it is not assigned.
    pub(super) tier: Option<Tier>,
    /// Whether `tier` was set after the offer was made.
    pub(super) tier_changed: bool,
}

impl<C> Offer<C> {
    fn is_kept(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Offers by client and by address. A client has at most one.
pub(super) struct Offers<A, C> {
    by_client: HashMap<C, A, RandomState>,
    by_address: HashMap<A, Offer<C>, RandomState>,
    /// Ends of offers.
    ends: BTreeSet<(Instant, A)>,
}

impl<A: Copy + Hash + Ord, C: Clone + Eq + Hash> Offers<A, C> {
    pub(super) fn new() -> Self {
        Self { by_client: HashMap::default(), by_address: HashMap::default(), ends: BTreeSet::new() }
    }

    /// Offers an address to a client for a time; neither must have an offer.
    pub(super) fn add(
        &mut self,
        client: &C,
        address: A,
        tier: Option<Tier>,
        (now, time): (Instant, Duration),
    ) {
        let until = now.checked_add(time);
        self.by_client.insert(client.clone(), address);
        self.by_address.insert(address, Offer { client: client.clone(), until, tier, tier_changed: false });
        self.ends.extend(until.map(|until| (until, address)));
    }

    /// Returns the address that is offered to a client, if the offer has not ended.
    pub(super) fn of_client(&self, client: &C, now: Instant) -> Option<A> {
        let address = *self.by_client.get(client)?;
        self.by_address.get(&address).is_some_and(|offer| offer.is_kept(now)).then_some(address)
    }

    pub(super) fn is_offered(&self, address: A) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Returns whether an address is offered to another client.
    pub(super) fn is_of_other_client(&self, address: A, client: &C, now: Instant) -> bool {
        self.by_address.get(&address).is_some_and(|offer| offer.is_kept(now) && offer.client != *client)
    }

    /// Returns all offered addresses, in no order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = A> {
        self.by_address.keys().copied()
    }

    pub(super) fn get_mut(&mut self, address: A) -> Option<&mut Offer<C>> {
        self.by_address.get_mut(&address)
    }

    pub(super) fn remove(&mut self, address: A) -> Option<Offer<C>> {
        let offer = self.by_address.remove(&address)?;
        self.by_client.remove(&offer.client);
        if let Some(until) = offer.until {
            self.ends.remove(&(until, address));
        }
        Some(offer)
    }

    /// Removes the offer of a client.
    pub(super) fn remove_of(&mut self, client: &C) -> Option<(A, Offer<C>)> {
        let address = *self.by_client.get(client)?;
        Some((address, self.remove(address)?))
    }

    /// Removes the offer of a client if it is for this address.
    pub(super) fn remove_if(&mut self, client: &C, address: A) -> Option<Offer<C>> {
        if self.by_client.get(client) == Some(&address) { self.remove(address) } else { None }
    }

    /// Removes an offer that has ended.
    pub(super) fn expire(&mut self, now: Instant) -> Option<(A, Offer<C>)> {
        let &(_, address) = self.ends.first().filter(|(until, _)| *until <= now)?;
        Some((address, self.remove(address)?))
    }
}
