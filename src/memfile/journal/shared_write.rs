//! Appending without a sync: a thread that finds the file busy leaves its rows to the next writer.

use std::mem;

use super::Shared;
use super::failure::{Action, UndecidedGuard};
use super::tail::Tail;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::hint;

/// Number of attempts of a thread to write its rows itself, which take about as long as two writes.
const TRIES: u32 = if cfg!(shuttle) { 1 } else { 100 };
/// Number of times that a thread then polls the outcome of its rows, before it sleeps: waking a
/// thread takes many times as long as a write.
const POLLS: u32 = if cfg!(shuttle) { 2 } else { 400 };
/// Every this number of polls, the thread tries to write the rows itself. Trying each time would
/// slow the writer down.
const LOCK_INTERVAL: u32 = 4;

impl Shared {
    /// Appends rows; returns when the operating system has them.
    pub(super) fn append_written(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        for _ in 0..TRIES {
            if let Some(mut tail) = self.tail.try_lock() {
                return self.write_waiting(&mut tail, rows, 0);
            }
            hint::spin_loop();
        }
        let ticket = self.queue.put(&mut self.queue.lock(), rows);
        for poll in 0..POLLS {
            hint::spin_loop();
            if let Some(outcome) = self.outcome(ticket) {
                return outcome;
            }
            if poll % LOCK_INTERVAL == 0
                && let Some(mut tail) = self.tail.try_lock()
            {
                return self.finish(&mut tail, ticket);
            }
        }
        self.finish(&mut self.tail.lock(), ticket)
    }

    /// Returns the outcome of a ticket, and writes its rows if they are undecided.
    fn finish(&self, tail: &mut Tail, ticket: u64) -> Result<(), LeaseMgrError> {
        self.outcome(ticket).unwrap_or_else(|| self.write_waiting(tail, &[], ticket))
    }

    /// Writes all waiting rows and those in `own` at once. `ticket` is the caller's ticket among
    /// the waiting rows; 0 if it has none.
    fn write_waiting(&self, tail: &mut Tail, own: &[u8], ticket: u64) -> Result<(), LeaseMgrError> {
        self.check()?;
        let _undecided = UndecidedGuard(self);
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
        self.clear_full();
        if upto != done {
            self.queue.set_done(upto);
        }
        if !mem::replace(&mut tail.unsynced, true) {
            self.timer.wake();
        }
        Ok(())
    }
}
