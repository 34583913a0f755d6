//! What was offered to whom.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use super::Tier;

/// An address that is kept for a client.
#[derive(Debug)]
pub(super) struct Offer<C> {
    client: C,
    until: Instant,
    /// Where the address is put back to, if it is not taken.
    pub(super) tier: Option<Tier>,
    /// Whether that was learned after the offer was made.
    pub(super) is_news: bool,
}

/// Offers by client and by address. A client has one at most.
pub(super) struct Offers<A, C> {
    time: Duration,
    by_client: HashMap<C, A, RandomState>,
    by_address: HashMap<A, Offer<C>, RandomState>,
    /// When offers end, the first to end at the front. Those that were taken or withdrawn are still there.
    ends: VecDeque<(Instant, A)>,
}

impl<A: Copy + Eq + Hash, C: Clone + Eq + Hash> Offers<A, C> {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, by_client: HashMap::default(), by_address: HashMap::default(), ends: VecDeque::new() }
    }

    /// Offers an address to a client; neither must be in an offer.
    pub(super) fn add(&mut self, client: &C, address: A, tier: Option<Tier>, now: Instant) {
        let until = now + self.time;
        self.by_client.insert(client.clone(), address);
        self.by_address.insert(address, Offer { client: client.clone(), until, tier, is_news: false });
        self.ends.push_back((until, address));
    }

    /// What a client was offered, if that is kept for it still.
    pub(super) fn of_client(&self, client: &C, now: Instant) -> Option<A> {
        let address = *self.by_client.get(client)?;
        self.by_address.get(&address).is_some_and(|offer| now < offer.until).then_some(address)
    }

    pub(super) fn is_offered(&self, address: A) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Whether an address is kept for another client than this one.
    pub(super) fn is_anothers(&self, address: A, client: &C, now: Instant) -> bool {
        self.by_address.get(&address).is_some_and(|offer| now < offer.until && offer.client != *client)
    }

    pub(super) fn get_mut(&mut self, address: A) -> Option<&mut Offer<C>> {
        self.by_address.get_mut(&address)
    }

    pub(super) fn remove(&mut self, address: A) -> Option<Offer<C>> {
        let offer = self.by_address.remove(&address)?;
        self.by_client.remove(&offer.client);
        Some(offer)
    }

    /// Removes what a client was offered.
    pub(super) fn remove_of(&mut self, client: &C) -> Option<(A, Offer<C>)> {
        let address = self.by_client.remove(client)?;
        Some((address, self.by_address.remove(&address)?))
    }

    /// Removes what a client was offered, if that is this address.
    pub(super) fn remove_if(&mut self, client: &C, address: A) -> Option<Offer<C>> {
        if self.by_client.get(client) == Some(&address) { self.remove(address) } else { None }
    }

    /// Removes one that has ended.
    pub(super) fn expire(&mut self, now: Instant) -> Option<(A, Offer<C>)> {
        while let Some(&(until, address)) = self.ends.front().filter(|(until, _)| *until <= now) {
            self.ends.pop_front();
            // Unless that one was taken, and the address was offered again since.
            if self.by_address.get(&address).is_some_and(|offer| offer.until == until) {
                return self.remove(address).map(|offer| (address, offer));
            }
        }
        None
    }
}
