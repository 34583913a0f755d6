//! What follows from a failed write or sync.
//!
//! A write that found no room, and of which nothing is left in the file, is a failure of the rows in it alone: the next one may find room.
//! After any other failure nothing more is written.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Shared;
use super::tail::Tail;
use crate::lease_mgr::LeaseMgrError;

/// What is tried with a file when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Write,
    Sync,
}

/// The first failure.
#[derive(Debug)]
pub(super) struct Failure {
    path: Arc<Path>,
    action: Action,
    source: Arc<io::Error>,
    /// The last ticket whose rows were in what failed.
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

    /// For those whose rows it struck.
    fn struck(&self) -> LeaseMgrError {
        let (place, action, source) = self.parts();
        LeaseMgrError::Write { place, action, source }
    }

    /// Returns when it happened.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// For those who come later.
    pub(super) fn refusal(&self) -> LeaseMgrError {
        let (place, action, source) = self.parts();
        LeaseMgrError::Refused { place, action, source }
    }

    fn parts(&self) -> (String, &'static str, Arc<io::Error>) {
        (self.path.display().to_string(), self.action.name(), Arc::clone(&self.source))
    }

    /// For the holder of a ticket that nothing has come of.
    pub(super) fn of_ticket(&self, ticket: u64) -> LeaseMgrError {
        if ticket <= self.upto { self.struck() } else { self.refusal() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot {}: {}", self.path.display(), self.action.name(), self.source)
    }
}

impl Shared {
    /// Whether anything may be written.
    pub(super) fn check(&self) -> Result<(), LeaseMgrError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.refusal()))
    }

    /// Notes the failure of rows of which the write or the sync did not succeed: those of the tickets behind the last that is
    /// decided, up to `upto`. The ticket `own` is that of the caller, who gets the error here; 0 is none.
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
            let warning = format!("{failure}: changes fail until there is room again");
            tracing::error!(id = "DHCPSRV_MEMFILE_DISK_FULL", "{warning}");
            self.warnings.lock().room = Some(warning);
        }
        self.queue.reject(upto, own, &failure.source);
        failure.struck()
    }

    /// To be called when rows were written.
    pub(super) fn has_room(&self) {
        if self.is_full.load(Ordering::Relaxed) && self.is_full.swap(false, Ordering::Relaxed) {
            self.warnings.lock().room = None;
            tracing::warn!(
                id = "DHCPSRV_MEMFILE_DISK_HAS_ROOM",
                "{}: there is room again, and changes are made",
                self.path.display()
            );
        }
    }

    /// For those whose rows a write without room has struck.
    pub(super) fn rejection(&self, source: Arc<io::Error>) -> LeaseMgrError {
        LeaseMgrError::Write { place: self.path.display().to_string(), action: Action::Write.name(), source }
    }

    /// Notes a failure, which struck the tickets up to `upto`. From now on nothing is written.
    ///
    /// The tail is asked for because the failure is set under its lock.
    pub(super) fn fail(
        &self,
        _tail: &mut Tail,
        action: Action,
        source: io::Error,
        upto: u64,
    ) -> LeaseMgrError {
        let failure = Failure::new(&self.path, action, source, upto);
        tracing::error!("{failure}: no change is taken any more");
        let error = failure.struck();
        // Another sync may have failed before: the first failure keeps its reason.
        let _ = self.failure.set(failure);
        error
    }
}

/// Whether a write failed for want of room, be it on the disk or in what a user may take of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Held by whoever has taken rows of others to write them. If that panics, nobody may take the rows for written.
pub(super) struct Undecided<'a>(pub(super) &'a Shared);

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = io::Error::other("a panic in the middle of it");
            let _ = self.0.failure.set(Failure::new(&self.0.path, Action::Write, source, u64::MAX));
        }
    }
}
