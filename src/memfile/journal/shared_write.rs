//! Appending without a sync: whoever finds the file busy leaves its rows to the next that writes.

use std::mem;

use super::Shared;
use super::failure::{Action, Undecided};
use super::tail::Tail;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::hint;

/// How often a thread tries to write its rows itself: for about as long as two writes take.
const TRIES: u32 = if cfg!(shuttle) { 1 } else { 100 };
/// How often it looks then at what has become of its rows, before it sleeps: to be woken takes many times as long as a write.
const LOOKS: u32 = if cfg!(shuttle) { 2 } else { 400 };
/// After so many looks it sees whether it can write them itself after all. Not each time: that keeps who writes from its work.
const TURN: u32 = 4;

impl Shared {
    /// Appends rows; returns when they are with the operating system.
    pub(super) fn append_written(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        for _ in 0..TRIES {
            if let Some(mut tail) = self.tail.try_lock() {
                return self.write_waiting(&mut tail, rows, 0);
            }
            hint::spin_loop();
        }
        let ticket = self.queue.put(&mut self.queue.lock(), rows);
        for look in 0..LOOKS {
            hint::spin_loop();
            if let Some(outcome) = self.outcome(ticket) {
                return outcome;
            }
            if look % TURN == 0
                && let Some(mut tail) = self.tail.try_lock()
            {
                return self.finish(&mut tail, ticket);
            }
        }
        self.finish(&mut self.tail.lock(), ticket)
    }

    /// Sees to it that the rows of a ticket are written.
    fn finish(&self, tail: &mut Tail, ticket: u64) -> Result<(), LeaseMgrError> {
        self.outcome(ticket).unwrap_or_else(|| self.write_waiting(tail, &[], ticket))
    }

    /// Writes all rows that wait, those of the caller's ticket among them if it has one, and those that it brings, in one go.
    fn write_waiting(&self, tail: &mut Tail, own: &[u8], ticket: u64) -> Result<(), LeaseMgrError> {
        self.check()?;
        let _undecided = Undecided(self);
        let done = self.queue.done();
        let (upto, result) = if self.queue.len() == 0 {
            (done, tail.write(own))
        } else {
            let mut rows = mem::take(&mut tail.rows);
            let upto = self.queue.take(&mut self.queue.lock(), &mut rows);
            rows.extend_from_slice(own);
            let result = tail.write(&rows);
            rows.clear();
            tail.rows = rows;
            (upto, result)
        };
        result.map_err(|error| self.fail_rows(tail, (Action::Write, error), upto, ticket))?;
        self.has_room();
        if upto != done {
            self.queue.set_done(upto);
        }
        if !mem::replace(&mut tail.unsynced, true) {
            self.timer.wake();
        }
        Ok(())
    }
}
