//! Rows that are appended by one thread and written by another.

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

/// Rows that wait to be written. A thread that adds rows gets a ticket, the next higher number.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// The last issued ticket.
    issued: CachePadded<AtomicU64>,
    /// The last decided ticket: its rows are as durable as promised, or found the disk full.
    done: CachePadded<AtomicU64>,
    /// The ticket whose thread leads the next group that shares a sync.
    leader: AtomicU64,
    /// The last ticket whose rows found the disk full.
    last_rejected: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: Vec<u8>,
    /// The threads that sleep until their rows are synced, or until they lead the next group; in
    /// the order of the tickets.
    waiters: VecDeque<(u64, Thread)>,
    /// Tickets whose rows found the disk full, until their threads have read the error.
    rejected: BTreeMap<u64, Arc<io::Error>>,
    /// Whether a thread is gathering or syncing a group.
    pub(super) has_leader: bool,
    /// Expected number of tickets of the next group, judging by the last one.
    pub(super) expected: u64,
    /// Average duration of a sync.
    pub(super) sync_time: Duration,
}

#[cfg(all(test, not(shuttle)))]
impl Waiting {
    /// Returns whether all rows have been taken.
    pub(super) fn has_no_rows(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns whether all threads whose rows found the disk full have read the error.
    pub(super) fn has_no_rejections(&self) -> bool {
        self.rejected.is_empty()
    }
}

impl Queue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds rows, and returns their ticket.
    pub(super) fn put(&self, waiting: &mut Waiting, rows: &[u8]) -> u64 {
        waiting.rows.extend_from_slice(rows);
        // Only changed under the lock.
        let ticket = self.issued.load(Ordering::Relaxed) + 1;
        self.issued.store(ticket, Ordering::Release);
        ticket
    }

    /// Moves the rows into an empty buffer, and returns the last of their tickets.
    pub(super) fn take(&self, waiting: &mut Waiting, buffer: &mut Vec<u8>) -> u64 {
        mem::swap(&mut waiting.rows, buffer);
        self.issued.load(Ordering::Relaxed)
    }

    /// Returns the number of undecided tickets.
    pub(super) fn len(&self) -> u64 {
        // In this order: `done` never exceeds an `issued` that is read later.
        let done = self.done.load(Ordering::Acquire);
        self.issued.load(Ordering::Acquire) - done
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn set_done(&self, upto: u64) {
        self.done.store(upto, Ordering::Release);
    }

    /// Decides the tickets up to `upto`: their rows found the disk full. The ticket `own` is that
    /// of the caller, which has the error already.
    pub(super) fn reject(&self, upto: u64, own: u64, source: &Arc<io::Error>) {
        let undecided = self.done() + 1..=upto;
        let others = undecided.filter(|&ticket| ticket != own);
        self.lock().rejected.extend(others.map(|ticket| (ticket, Arc::clone(source))));
        self.last_rejected.store(upto, Ordering::Relaxed);
        self.set_done(upto);
    }

    /// Returns, once, the error of a decided ticket whose rows found the disk full.
    fn take_rejection(&self, ticket: u64) -> Option<Arc<io::Error>> {
        // At least as recent as the value read from `done`.
        if ticket > self.last_rejected.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().rejected.remove(&ticket)
    }

    /// Sleeps until the rows of a ticket are decided, and returns their outcome. Returns `None` if
    /// the thread has to lead the next group.
    pub(super) fn wait<T>(
        &self,
        mut waiting: MutexGuard<'_, Waiting>,
        ticket: u64,
        outcome: impl Fn() -> Option<T>,
    ) -> Option<T> {
        waiting.waiters.push_back((ticket, thread::current()));
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

    /// Removes the waiters whose tickets are decided, or all waiters after a failure. The first
    /// remaining waiter, if any, leads the next group, and is the first in the result.
    pub(super) fn take_waiters(&self, waiting: &mut Waiting, has_failed: bool) -> Vec<Thread> {
        let upto = if has_failed { u64::MAX } else { self.done() };
        let count = waiting.waiters.partition_point(|(ticket, _)| *ticket <= upto);
        let leads = waiting.waiters.len() > count;
        if leads {
            self.leader.store(waiting.waiters[count].0, Ordering::Release);
        }
        waiting.has_leader = leads;
        let mut woken: Vec<_> =
            waiting.waiters.drain(..count + usize::from(leads)).map(|(_, thread)| thread).collect();
        woken.rotate_right(usize::from(leads));
        woken
    }
}

impl Shared {
    /// Returns the outcome of a ticket, if it is decided.
    pub(super) fn outcome(&self, ticket: u64) -> Option<Result<(), LeaseMgrError>> {
        // In this order: `done` does not change after a failure.
        let failure = self.failure.get();
        if self.queue.done() >= ticket {
            let rejected = self.queue.take_rejection(ticket);
            return Some(rejected.map_or(Ok(()), |source| Err(self.rejection(source))));
        }
        failure.map(|failure| Err(failure.error_of(ticket)))
    }
}
