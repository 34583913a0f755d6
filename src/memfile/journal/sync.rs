//! Making durable what was acknowledged before: on demand, every so often, and in the end.

use std::sync::OnceLock;
use std::time::Duration;

use super::failure::{Action, Undecided};
use super::{Journal, Shared};
use crate::fs::retry;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, Thread};

/// How the thread that syncs every so often is reached.
#[derive(Debug, Default)]
pub(super) struct Timer {
    thread: OnceLock<Thread>,
    is_stopped: AtomicBool,
}

impl Timer {
    /// Tells the thread, if there is one, that there is something to sync.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Makes durable all that was acknowledged.
    pub(super) fn sync(&self) -> Result<(), LeaseMgrError> {
        let _order = self.syncs.lock();
        let file = {
            let mut tail = self.tail.lock();
            if tail.doubtful {
                return self.check();
            }
            if !tail.unsynced {
                return Ok(());
            }
            // What is appended from here on may miss the sync.
            tail.unsynced = false;
            tail.file()
        };
        retry(|| file.sync()).map_err(|error| {
            let tail = &mut *self.tail.lock();
            tail.doubtful = true;
            self.fail(tail, Action::Sync, error, self.queue.done())
        })
    }

    /// Leaves the file as it should be when nobody writes to it any more.
    pub(super) fn close(&self) {
        self.tail.lock().cut();
        // A failure is logged where it happens.
        let _ = self.sync();
    }

    /// Syncs when so much time has passed since something was written.
    fn sync_every(&self, time: Duration) {
        let _undecided = Undecided(self);
        while !self.timer.is_stopped() {
            if !self.tail.lock().unsynced {
                thread::park();
                continue;
            }
            let start = Instant::now();
            while start.elapsed() < time && !self.timer.is_stopped() {
                thread::park_timeout(time.saturating_sub(start.elapsed()));
            }
            // In the end the journal syncs itself.
            if !self.timer.is_stopped() && self.sync().is_err() {
                return;
            }
        }
    }
}

impl Journal {
    /// Starts the thread that syncs every so often.
    pub(super) fn start_timer(&mut self, time: Duration) -> std::io::Result<()> {
        let shared = std::sync::Arc::clone(&self.shared);
        let timer = thread::Builder::new().name("lease-sync".to_owned());
        let timer = timer.spawn(move || shared.sync_every(time))?;
        let _ = self.shared.timer.thread.set(timer.thread().clone());
        self.timer = Some(timer);
        Ok(())
    }

    /// Ends the thread that syncs every so often, and waits until it has.
    pub(super) fn end_timer(&mut self) {
        self.shared.timer.is_stopped.store(true, Ordering::SeqCst);
        self.shared.timer.wake();
        if let Some(timer) = self.timer.take() {
            // If it has panicked, that is noted as a failure.
            let _ = timer.join();
        }
    }
}
