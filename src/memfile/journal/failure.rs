//! The consequences of a failed write or sync.
//!
//! If a write found the disk full and nothing of it is left in the file, only its own rows fail:
//! the next write may find room. After any other failure, nothing more is written.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Shared;
use super::tail::Tail;
use crate::lease_mgr::LeaseMgrError;

/// The action that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Write,
    Sync,
}

/// The first failure, after which nothing is written.
#[derive(Debug)]
pub(super) struct Failure {
    path: Arc<Path>,
    action: Action,
    source: Arc<io::Error>,
    /// The last ticket whose rows were part of the failed action.
    upto: u64,
    since: SystemTime,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sync => "sync",
        }
    }
}

impl Failure {
    fn new(path: &Arc<Path>, action: Action, source: io::Error, upto: u64) -> Self {
        Self { path: Arc::clone(path), action, source: Arc::new(source), upto, since: SystemTime::now() }
    }

    /// Returns the error for callers whose rows were part of the failed action.
    fn write_error(&self) -> LeaseMgrError {
        let (place, action, source) = self.parts();
        LeaseMgrError::Write { place, action, source }
    }

    /// Returns when the failure happened.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// Returns the error for later callers.
    pub(super) fn refusal(&self) -> LeaseMgrError {
        let (place, action, source) = self.parts();
        LeaseMgrError::Refused { place, action, source }
    }

    fn parts(&self) -> (String, &'static str, Arc<io::Error>) {
        (self.path.display().to_string(), self.action.name(), Arc::clone(&self.source))
    }

    /// Returns the error for an undecided ticket.
    pub(super) fn error_of(&self, ticket: u64) -> LeaseMgrError {
        if ticket <= self.upto { self.write_error() } else { self.refusal() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot {}: {}", self.path.display(), self.action.name(), self.source)
    }
}

impl Shared {
    /// Returns an error if nothing may be written any more.
    pub(super) fn check(&self) -> Result<(), LeaseMgrError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.refusal()))
    }

    /// Records the failed write or sync of rows: those of the undecided tickets up to `upto`. The
    /// ticket `own` is that of the caller, which gets the error as the result; 0 if it has none.
    pub(super) fn fail_rows(
        &self,
        tail: &mut Tail,
        (action, source): (Action, io::Error),
        upto: u64,
        own: u64,
    ) -> LeaseMgrError {
        if !(action == Action::Write && is_full(&source) && tail.is_sound()) {
            return self.fail(tail, action, source, upto);
        }
        let failure = Failure::new(&self.path, action, source, upto);
        if !self.is_full.swap(true, Ordering::Relaxed) {
            let warning = format!("{failure}; changes fail until there is room again");
            tracing::error!(id = "DHCPSRV_MEMFILE_DISK_FULL", "{warning}");
            self.warnings.lock().room = Some(warning);
        }
        self.queue.reject(upto, own, &failure.source);
        failure.write_error()
    }

    /// Clears the warning about a full disk. Called after a successful write.
    pub(super) fn clear_full(&self) {
        if self.is_full.load(Ordering::Relaxed) && self.is_full.swap(false, Ordering::Relaxed) {
            self.warnings.lock().room = None;
            tracing::warn!(
                id = "DHCPSRV_MEMFILE_DISK_HAS_ROOM",
                "{}: there is room again; changes are accepted",
                self.path.display()
            );
        }
    }

    /// Returns the error for callers whose rows found the disk full.
    pub(super) fn rejection(&self, source: Arc<io::Error>) -> LeaseMgrError {
        LeaseMgrError::Write { place: self.path.display().to_string(), action: Action::Write.name(), source }
    }

    /// Records a failure of the tickets up to `upto`. From now on, nothing is written.
    ///
    /// The parameter `_tail` proves that the lock of the tail is held.
    pub(super) fn fail(
        &self,
        _tail: &mut Tail,
        action: Action,
        source: io::Error,
        upto: u64,
    ) -> LeaseMgrError {
        let failure = Failure::new(&self.path, action, source, upto);
        tracing::error!("{failure}; changes are refused from now on");
        let error = failure.write_error();
        // The first failure keeps its reason.
        let _ = self.failure.set(failure);
        error
    }
}

/// Returns whether a write failed because the disk, or the quota of the user, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Held by a thread that writes rows of other threads. If it panics, the rows count as failed.
pub(super) struct UndecidedGuard<'a>(pub(super) &'a Shared);

impl Drop for UndecidedGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = io::Error::other("the thread panicked during the write");
            let _ = self.0.failure.set(Failure::new(&self.0.path, Action::Write, source, u64::MAX));
        }
    }
}
