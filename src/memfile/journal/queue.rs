//! Rows that wait to be written by another thread than the one that appends them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::Shared;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::fair::{Mutex, MutexGuard, PoisonError};
use crate::sync::thread::{self, Thread};

/// Rows that wait to be written. Whoever puts some gets a ticket, a number that is one more each time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// The last ticket that was given.
    given: CachePadded<AtomicU64>,
    /// The last ticket that is decided: its rows are where the durability promises, or found no room.
    done: CachePadded<AtomicU64>,
    /// The ticket whose thread is to lead the next group of those that share a sync.
    leader: AtomicU64,
    /// The last ticket whose rows found no room.
    last_rejected: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: Vec<u8>,
    /// Who sleeps until its rows are synced, or it is to lead the next group; in the order of the tickets.
    sleepers: VecDeque<(u64, Thread)>,
    /// Tickets whose rows found no room, and whose threads have not seen it yet.
    rejected: BTreeMap<u64, Arc<io::Error>>,
    /// Whether a thread gathers a group, or syncs one.
    pub(super) is_led: bool,
    /// How many rows the group will have, judging by the one before.
    pub(super) expected: u64,
    /// How long a sync takes.
    pub(super) sync_time: Duration,
}

#[cfg(all(test, not(shuttle)))]
impl Waiting {
    /// Whether somebody has taken all rows.
    pub(super) fn has_no_rows(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether everybody whose rows found no room has seen it.
    pub(super) fn has_no_rejections(&self) -> bool {
        self.rejected.is_empty()
    }
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

    /// Decides the tickets up to `upto`: their rows found no room. The thread of the ticket `own` knows.
    pub(super) fn reject(&self, upto: u64, own: u64, source: &Arc<io::Error>) {
        let undecided = self.done() + 1..=upto;
        let others = undecided.filter(|&ticket| ticket != own);
        self.lock().rejected.extend(others.map(|ticket| (ticket, Arc::clone(source))));
        self.last_rejected.store(upto, Ordering::Relaxed);
        self.set_done(upto);
    }

    /// Why there was no room for the rows of a ticket that is decided, if that was so. It is told once.
    fn take_rejection(&self, ticket: u64) -> Option<Arc<io::Error>> {
        // Not older than what was read of `done`.
        if ticket > self.last_rejected.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().rejected.remove(&ticket)
    }

    /// Sleeps until the rows of a ticket are decided, and tells what became of them; or until its thread is to lead the next
    /// group.
    pub(super) fn sleep<T>(
        &self,
        mut waiting: MutexGuard<'_, Waiting>,
        ticket: u64,
        outcome: impl Fn() -> Option<T>,
    ) -> Option<T> {
        waiting.sleepers.push_back((ticket, thread::current()));
        drop(waiting);
        loop {
            thread::park();
            if let Some(outcome) = outcome() {
                return Some(outcome);
            }
            if self.leader.load(Ordering::Acquire) == ticket {
                return None;
            }
        }
    }

    /// Takes out those who have nothing more to sleep for, which are all after a failure. Who sleeps on
    /// longest, if anybody does, is to lead the next group, and comes first.
    pub(super) fn take_sleepers(&self, waiting: &mut Waiting, has_failed: bool) -> Vec<Thread> {
        let upto = if has_failed { u64::MAX } else { self.done() };
        let count = waiting.sleepers.partition_point(|(ticket, _)| *ticket <= upto);
        let leads = waiting.sleepers.len() > count;
        if leads {
            self.leader.store(waiting.sleepers[count].0, Ordering::Release);
        }
        waiting.is_led = leads;
        let mut woken: Vec<_> =
            waiting.sleepers.drain(..count + usize::from(leads)).map(|(_, thread)| thread).collect();
        woken.rotate_right(usize::from(leads));
        woken
    }
}

impl Shared {
    /// What has become of the rows of a ticket, once that is decided.
    pub(super) fn outcome(&self, ticket: u64) -> Option<Result<(), LeaseMgrError>> {
        // In this order: after a failure nothing more is done.
        let failure = self.failure.get();
        if self.queue.done() >= ticket {
            let rejected = self.queue.take_rejection(ticket);
            return Some(rejected.map_or(Ok(()), |source| Err(self.rejection(source))));
        }
        failure.map(|failure| Err(failure.of_ticket(ticket)))
    }
}
