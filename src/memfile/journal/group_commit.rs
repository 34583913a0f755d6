//! Appending with a sync: concurrent threads share one.
//!
//! One thread leads a group: it waits briefly for other threads, writes the rows of all, and syncs
//! them. Threads that arrive meanwhile belong to the next group.
//!
//! After a sync, the threads of its group often append their next rows at once. If a leader started
//! with the first of them, the others would wait for two syncs. So it waits until as many threads
//! have arrived as last time, while they keep arriving, and at most for the duration of a sync.

use std::mem;
use std::time::Duration;

use super::Shared;
use super::failure::UndecidedGuard;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::Instant;
use crate::sync::thread::{self, Thread};

/// A leader stops waiting when no thread has arrived for the duration of a sync divided by this.
const IDLE_DIVISOR: u32 = 4;

impl Shared {
    /// Appends rows; returns when they are durable.
    pub(super) fn append_synced(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        let mut waiting = self.queue.lock();
        let ticket = self.queue.put(&mut waiting, rows);
        if waiting.has_leader {
            if let Some(outcome) = self.queue.wait(waiting, ticket, || self.outcome(ticket)) {
                return outcome;
            }
            waiting = self.queue.lock();
        }
        waiting.has_leader = true;
        let mut leader = Leader { shared: self, expected: 0, sync_time: waiting.sync_time };
        let expected = waiting.expected;
        drop(waiting);
        leader.gather(expected);
        leader.write(ticket)
    }
}

/// The thread that leads a group. Dropping it wakes the others.
struct Leader<'a> {
    shared: &'a Shared,
    expected: u64,
    sync_time: Duration,
}

impl Leader<'_> {
    /// Waits for the rows of `expected` tickets, within the limits on the waiting time.
    fn gather(&self, expected: u64) {
        let start = Instant::now();
        let mut last = (0, start);
        loop {
            let (count, now) = (self.shared.queue.len(), Instant::now());
            if count > last.0 {
                last = (count, now);
            }
            if count >= expected
                || now - last.1 > self.sync_time / IDLE_DIVISOR
                || now - start > self.sync_time
            {
                return;
            }
            thread::yield_now();
        }
    }

    /// Writes and syncs the rows of the group, including those of the leader's ticket.
    fn write(&mut self, ticket: u64) -> Result<(), LeaseMgrError> {
        let queue = &self.shared.queue;
        let tail = &mut *self.shared.tail.lock();
        self.shared.check()?;
        let _undecided = UndecidedGuard(self.shared);
        let mut rows = mem::take(&mut tail.rows);
        let upto = queue.take(&mut queue.lock(), &mut rows);
        let start = Instant::now();
        let result = tail.write_synced(&rows, self.shared.header.as_bytes());
        self.sync_time = (7 * self.sync_time + start.elapsed()) / 8;
        rows.clear();
        tail.rows = rows;
        result.map_err(|failed| self.shared.fail_rows(tail, failed, upto, ticket))?;
        self.shared.clear_full();
        self.expected = upto - queue.done();
        queue.set_done(upto);
        Ok(())
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let queue = &self.shared.queue;
        let mut waiting = queue.lock();
        // The rows that have arrived during the sync, and as many again as this group had.
        waiting.expected = self.expected + queue.len();
        waiting.sync_time = self.sync_time;
        let woken = queue.take_waiters(&mut waiting, self.shared.failure.get().is_some());
        drop(waiting);
        // One after the other: if all threads woke up to the same lock, they would wait for each
        // other again.
        woken.iter().for_each(Thread::unpark);
    }
}
