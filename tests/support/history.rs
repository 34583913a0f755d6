//! Recorded calls of several threads about leases, and whether they can be explained by one call
//! after the other (linearizability, for each address).
//!
//! A lost lease, a change that is made twice, and an address that is given out twice have no such
//! explanation, and neither has an error after which a change was made that was reported as not
//! made.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A call about an address. Leases have numbers, which differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    Add(u32),
    /// Replaces the lease of the first number by that of the second one.
    Update(u32, u32),
    /// Deletes the lease of this number.
    Delete(u32),
}

/// What a call has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Read(Option<u32>),
    Made,
    /// The address to add has a lease.
    Taken,
    /// The address has no lease.
    Absent,
    /// The address has another lease.
    Changed,
    /// The change may have been made, or may be made later.
    Unknown,
    /// Nothing was read or changed.
    Failed,
}

/// A call with its answer, and the times of both, which differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) call: Call,
    pub(crate) outcome: Outcome,
    pub(crate) called: u64,
    pub(crate) answered: u64,
}

/// Records calls.
#[derive(Debug, Default)]
pub(crate) struct History {
    clock: AtomicU64,
    events: Mutex<BTreeMap<u16, Vec<Event>>>,
}

impl History {
    /// Makes a call about an address, and records it.
    pub(crate) fn record(&self, address: u16, call: Call, make: impl FnOnce() -> Outcome) -> Outcome {
        let called = self.clock.fetch_add(1, Ordering::SeqCst);
        let outcome = make();
        let answered = self.clock.fetch_add(1, Ordering::SeqCst);
        let event = Event { call, outcome, called, answered };
        self.lock().entry(address).or_default().push(event);
        outcome
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Vec<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of calls with an outcome.
    pub(crate) fn count(&self, is_counted: impl Fn(Outcome) -> bool) -> usize {
        self.lock().values().flatten().filter(|event| is_counted(event.outcome)).count()
    }

    /// Panics unless the calls about each address can be explained.
    pub(crate) fn check(&self) {
        for (address, events) in &*self.lock() {
            if let Err(unexplained) = explain(events) {
                panic!("address {address}: no order of the calls explains {unexplained:#?}");
            }
        }
    }
}

/// Returns the lease of an address after a call that had this outcome; `None` if the call cannot
/// have had it.
fn after(there: Option<u32>, call: Call, outcome: Outcome) -> Option<Option<u32>> {
    let made = match call {
        Call::Get => None,
        Call::Add(new) => there.is_none().then_some(Some(new)),
        Call::Update(expected, new) => (there == Some(expected)).then_some(Some(new)),
        Call::Delete(expected) => (there == Some(expected)).then_some(None),
    };
    match (call, outcome) {
        (_, Outcome::Made | Outcome::Unknown) => made,
        (Call::Get, Outcome::Read(read)) => (read == there).then_some(there),
        (Call::Add(_), Outcome::Taken) => there.map(Some),
        (Call::Update(..) | Call::Delete(_), Outcome::Absent) => there.is_none().then_some(None),
        (Call::Update(expected, _) | Call::Delete(expected), Outcome::Changed) => {
            there.filter(|&there| there != expected).map(Some)
        }
        _ => None,
    }
}

/// Searches an order of calls about one address, which has no lease at first, that explains their
/// outcomes. A call takes effect at one time between the call and the answer; one with an unknown
/// outcome at any time after the call, or never.
///
/// # Errors
/// Returns the calls that were left in the order that explains most of them.
pub(crate) fn explain(events: &[Event]) -> Result<(), Vec<Event>> {
    let mut events: Vec<_> =
        events.iter().filter(|event| event.outcome != Outcome::Failed).copied().collect();
    events.sort_unstable_by_key(|event| event.called);
    let must = events.iter().filter(|event| event.outcome != Outcome::Unknown).count();
    let is_done = |done: &[u64], n: usize| done[n / 64] & (1 << (n % 64)) != 0;
    let mut seen = HashSet::new();
    // What is explained, how many of the calls whose outcome is known, and the lease.
    let mut open = vec![(vec![0_u64; events.len().div_ceil(64)], 0, None)];
    let mut best = (0, Vec::new());
    while let Some((done, count, there)) = open.pop() {
        if count == must {
            return Ok(());
        }
        if count >= best.0 {
            best = (count, done.clone());
        }
        let left = || events.iter().enumerate().filter(|(n, _)| !is_done(&done, *n));
        let known = left().filter(|(_, event)| event.outcome != Outcome::Unknown);
        let first_answer = known.map(|(_, event)| event.answered).min().unwrap_or(u64::MAX);
        for (n, event) in left().take_while(|(_, event)| event.called < first_answer) {
            let Some(there) = after(there, event.call, event.outcome) else {
                continue;
            };
            let mut done = done.clone();
            done[n / 64] |= 1 << (n % 64);
            let count = count + usize::from(event.outcome != Outcome::Unknown);
            if seen.insert((done.clone(), there)) {
                open.push((done, count, there));
            }
        }
    }
    let left = events.iter().enumerate().filter(|(n, _)| !is_done(&best.1, *n));
    Err(left.map(|(_, event)| *event).take(12).collect())
}

mod tests {
    use rstest::rstest;

    use super::*;

    const fn event(called: u64, answered: u64, call: Call, outcome: Outcome) -> Event {
        Event { call, outcome, called, answered }
    }

    #[rstest]
    #[case::one_after_the_other(&[
        event(0, 1, Call::Add(1), Outcome::Made),
        event(2, 3, Call::Add(2), Outcome::Taken),
        event(4, 5, Call::Get, Outcome::Read(Some(1))),
        event(6, 7, Call::Update(1, 3), Outcome::Made),
        event(8, 9, Call::Delete(1), Outcome::Changed),
        event(10, 11, Call::Delete(3), Outcome::Made),
        event(12, 13, Call::Delete(3), Outcome::Absent),
    ])]
    #[case::at_the_same_time(&[
        event(0, 5, Call::Add(1), Outcome::Made),
        event(1, 2, Call::Get, Outcome::Read(None)),
        event(3, 4, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::an_unknown_change_was_made(&[
        event(0, 1, Call::Add(1), Outcome::Unknown),
        event(2, 3, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::an_unknown_change_was_made_later(&[
        event(0, 1, Call::Add(1), Outcome::Unknown),
        event(2, 3, Call::Get, Outcome::Read(None)),
        event(4, 5, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::an_unknown_change_was_not_made(&[
        event(0, 1, Call::Add(1), Outcome::Unknown),
        event(2, 3, Call::Add(2), Outcome::Made),
        event(4, 5, Call::Get, Outcome::Read(Some(2))),
    ])]
    #[case::a_failed_change_was_not_made(&[
        event(0, 1, Call::Add(1), Outcome::Failed),
        event(2, 3, Call::Get, Outcome::Read(None)),
    ])]
    fn right_histories_are_explained(#[case] events: &[Event]) {
        assert!(explain(events).is_ok());
    }

    #[rstest]
    #[case::a_lost_lease(&[
        event(0, 1, Call::Add(1), Outcome::Made),
        event(2, 3, Call::Get, Outcome::Read(None)),
    ])]
    #[case::an_address_given_out_twice(&[
        event(0, 3, Call::Add(1), Outcome::Made),
        event(1, 2, Call::Add(2), Outcome::Made),
        event(4, 5, Call::Get, Outcome::Read(Some(2))),
    ])]
    #[case::a_lost_update(&[
        event(0, 1, Call::Add(1), Outcome::Made),
        event(2, 5, Call::Update(1, 2), Outcome::Made),
        event(3, 4, Call::Update(1, 3), Outcome::Made),
    ])]
    #[case::a_stale_read(&[
        event(0, 1, Call::Add(1), Outcome::Made),
        event(2, 3, Call::Update(1, 2), Outcome::Made),
        event(4, 5, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::a_read_that_goes_back(&[
        event(0, 1, Call::Add(1), Outcome::Made),
        event(2, 9, Call::Update(1, 2), Outcome::Made),
        event(3, 4, Call::Get, Outcome::Read(Some(2))),
        event(5, 6, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::a_failed_change_was_made(&[
        event(0, 1, Call::Add(1), Outcome::Failed),
        event(2, 3, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::an_unknown_change_was_made_twice(&[
        event(0, 1, Call::Add(1), Outcome::Unknown),
        event(2, 3, Call::Get, Outcome::Read(Some(1))),
        event(4, 5, Call::Delete(1), Outcome::Made),
        event(6, 7, Call::Get, Outcome::Read(Some(1))),
    ])]
    #[case::a_lease_of_nobody(&[event(0, 1, Call::Get, Outcome::Read(Some(1)))])]
    fn wrong_histories_are_refused(#[case] events: &[Event]) {
        assert!(explain(events).is_err());
    }
}
