//! Appending with a sync: threads that come at the same time share one.
//!
//! One thread leads a group: it waits a moment for the others, writes the rows of all, and syncs them. Who comes meanwhile
//! belongs to the next group.
//!
//! When a sync ends, the threads of its group often come with their next rows at once. A leader that set out with the first of them
//! would have the others wait for two syncs. So it waits until there are as many as the last time, as long as they keep coming, and
//! no longer than a sync takes.

use std::mem;
use std::time::Duration;

use super::Shared;
use super::failure::Undecided;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::Instant;
use crate::sync::thread::{self, Thread};

/// A leader does not wait any more when nobody has come for this fraction of the time of a sync.
const PATIENCE: u32 = 4;

impl Shared {
    /// Appends rows; returns when they are on the disk.
    pub(super) fn append_synced(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        let mut waiting = self.queue.lock();
        let ticket = self.queue.put(&mut waiting, rows);
        if waiting.is_led {
            if let Some(outcome) = self.queue.sleep(waiting, ticket, || self.outcome(ticket)) {
                return outcome;
            }
            waiting = self.queue.lock();
        }
        waiting.is_led = true;
        let mut leader = Leader { shared: self, expected: 0, sync_time: waiting.sync_time };
        let expected = waiting.expected;
        drop(waiting);
        leader.gather(expected);
        leader.write(ticket)
    }
}

/// The thread that leads a group. When it is dropped, the others are woken.
struct Leader<'a> {
    shared: &'a Shared,
    expected: u64,
    sync_time: Duration,
}

impl Leader<'_> {
    /// Waits until so many have come.
    fn gather(&self, expected: u64) {
        let start = Instant::now();
        let mut last = (0, start);
        loop {
            let (count, now) = (self.shared.queue.len(), Instant::now());
            if count > last.0 {
                last = (count, now);
            }
            if count >= expected || now - last.1 > self.sync_time / PATIENCE || now - start > self.sync_time {
                return;
            }
            thread::yield_now();
        }
    }

    /// Writes and syncs the rows of the group, those of the leader's ticket among them.
    fn write(&mut self, ticket: u64) -> Result<(), LeaseMgrError> {
        let queue = &self.shared.queue;
        let tail = &mut *self.shared.tail.lock();
        self.shared.check()?;
        let _undecided = Undecided(self.shared);
        let mut rows = mem::take(&mut tail.rows);
        let upto = queue.take(&mut queue.lock(), &mut rows);
        let start = Instant::now();
        let result = tail.write_synced(&rows, self.shared.header.as_bytes());
        self.sync_time = (7 * self.sync_time + start.elapsed()) / 8;
        rows.clear();
        tail.rows = rows;
        result.map_err(|failed| self.shared.fail_rows(tail, failed, upto, ticket))?;
        self.shared.has_room();
        self.expected = upto - queue.done();
        queue.set_done(upto);
        Ok(())
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let queue = &self.shared.queue;
        let mut waiting = queue.lock();
        // Those that came during the sync, and those of this group once more.
        waiting.expected = self.expected + queue.len();
        waiting.sync_time = self.sync_time;
        let woken = queue.take_sleepers(&mut waiting, self.shared.failure.get().is_some());
        drop(waiting);
        // Each by itself: if they all woke to the same lock, they would wait for one another once more.
        woken.iter().for_each(Thread::unpark);
    }
}
