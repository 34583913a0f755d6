//! Syncing acknowledged rows: on demand, at intervals, and when the journal is closed.

use std::sync::OnceLock;
use std::time::Duration;

use super::failure::{Action, UndecidedGuard};
use super::{Journal, Shared};
use crate::fs::retry;
use crate::lease_mgr::LeaseMgrError;
use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, Thread};

/// A handle of the thread that syncs at intervals.
#[derive(Debug, Default)]
pub(super) struct Timer {
    thread: OnceLock<Thread>,
    is_stopped: AtomicBool,
}

impl Timer {
    /// Wakes the thread, if there is one, when there are rows to sync.
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
    /// Makes all acknowledged rows durable.
    pub(super) fn sync(&self) -> Result<(), LeaseMgrError> {
        let _order = self.syncs.lock();
        let file = {
            let mut tail = self.tail.lock();
            if tail.sync_failed {
                return self.check();
            }
            if !tail.unsynced {
                return Ok(());
            }
            // Rows that are appended from here on may miss the sync.
            tail.unsynced = false;
            tail.file()
        };
        retry(|| file.sync()).map_err(|error| {
            let tail = &mut *self.tail.lock();
            tail.sync_failed = true;
            self.fail(tail, Action::Sync, error, self.queue.done())
        })
    }

    /// Cuts off the padding, and syncs the file for the last time.
    pub(super) fn close(&self) {
        self.tail.lock().cut();
        // A failure has been logged already.
        let _ = self.sync();
    }

    /// Syncs when `time` has passed since the first unsynced write.
    fn sync_every(&self, time: Duration) {
        let _undecided = UndecidedGuard(self);
        while !self.timer.is_stopped() {
            if !self.tail.lock().unsynced {
                thread::park();
                continue;
            }
            let start = Instant::now();
            while start.elapsed() < time && !self.timer.is_stopped() {
                thread::park_timeout(time.saturating_sub(start.elapsed()));
            }
            // The journal syncs itself when it is closed.
            if !self.timer.is_stopped() && self.sync().is_err() {
                return;
            }
        }
    }
}

impl Journal {
    /// Starts the thread that syncs at intervals.
    pub(super) fn start_timer(&mut self, time: Duration) -> std::io::Result<()> {
        let shared = std::sync::Arc::clone(&self.shared);
        let timer = thread::Builder::new().name("lease-sync".to_owned());
        let timer = timer.spawn(move || shared.sync_every(time))?;
        let _ = self.shared.timer.thread.set(timer.thread().clone());
        self.timer = Some(timer);
        Ok(())
    }

    /// Ends the thread that syncs at intervals, and waits for its end.
    pub(super) fn end_timer(&mut self) {
        self.shared.timer.is_stopped.store(true, Ordering::SeqCst);
        self.shared.timer.wake();
        if let Some(timer) = self.timer.take() {
            // A panic of the thread has been recorded as a failure.
            let _ = timer.join();
        }
    }
}
