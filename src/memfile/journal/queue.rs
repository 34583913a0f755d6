//! Rows that wait to be written by another thread than the one that appends them.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::Shared;
use crate::lease_mgr::LeaseMgrError;

/// Rows that wait to be written. Whoever puts some gets a ticket, a number that is one more each time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// The last ticket that was given.
    given: CachePadded<AtomicU64>,
    /// The last ticket whose rows are where the durability promises.
    done: CachePadded<AtomicU64>,
    /// What the groups of even and of odd numbers wait for.
    ended: [Condvar; 2],
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: Vec<u8>,
    /// The number of the group that is being gathered, of those that share a sync.
    pub(super) group: u64,
    /// Whether a thread gathers the group, or syncs the one before.
    pub(super) is_led: bool,
    /// How many rows the group will have, judging by the one before.
    pub(super) expected: u64,
    /// How long a sync takes.
    pub(super) sync_time: Duration,
}

impl Queue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds rows, and gives their ticket.
    pub(super) fn put(&self, waiting: &mut Waiting, rows: &[u8]) -> u64 {
        waiting.rows.extend_from_slice(rows);
        // Only changed under the lock.
        let ticket = self.given.load(Ordering::Relaxed) + 1;
        self.given.store(ticket, Ordering::Release);
        ticket
    }

    /// Moves the rows into an empty buffer, and gives the last of their tickets.
    pub(super) fn take(&self, waiting: &mut Waiting, buffer: &mut Vec<u8>) -> u64 {
        mem::swap(&mut waiting.rows, buffer);
        self.given.load(Ordering::Relaxed)
    }

    /// How many tickets are undecided.
    pub(super) fn len(&self) -> u64 {
        // In this order: `done` never overtakes a `given` that is read later.
        let done = self.done.load(Ordering::Acquire);
        self.given.load(Ordering::Acquire) - done
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn set_done(&self, upto: u64) {
        self.done.store(upto, Ordering::Release);
    }

    /// Waits until a group ends, or its first thread may lead it.
    pub(super) fn wait<'a>(&self, group: u64, waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        self.condition(group).wait(waiting).unwrap_or_else(PoisonError::into_inner)
    }

    /// What the threads of a group wait for.
    pub(super) fn condition(&self, group: u64) -> &Condvar {
        &self.ended[usize::from(group % 2 == 1)]
    }
}

impl Shared {
    /// What has become of the rows of a ticket, once that is decided.
    pub(super) fn outcome(&self, ticket: u64) -> Option<Result<(), LeaseMgrError>> {
        // In this order: after a failure nothing more is done.
        let failure = self.failure.get();
        if self.queue.done() >= ticket {
            return Some(Ok(()));
        }
        failure.map(|failure| Err(failure.of_ticket(ticket)))
    }
}
