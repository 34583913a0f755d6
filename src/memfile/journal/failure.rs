//! What follows from a failed write or sync.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

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
    /// For those whose rows it struck.
    fn struck(&self) -> LeaseMgrError {
        let (path, action, source) = (self.path.to_path_buf(), self.action.name(), Arc::clone(&self.source));
        LeaseMgrError::Write { path, action, source }
    }

    /// For those who come later.
    pub(super) fn refusal(&self) -> LeaseMgrError {
        let (path, action, source) = (self.path.to_path_buf(), self.action.name(), Arc::clone(&self.source));
        LeaseMgrError::Refused { path, action, source }
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
        let failure = Failure { path: Arc::clone(&self.path), action, source: Arc::new(source), upto };
        tracing::error!("{failure}: no change is taken any more");
        let error = failure.struck();
        // Another sync may have failed before: the first failure keeps its reason.
        let _ = self.failure.set(failure);
        error
    }
}

/// Held by whoever has taken rows of others to write them. If that panics, nobody may take the rows for written.
pub(super) struct Undecided<'a>(pub(super) &'a Shared);

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = Arc::new(io::Error::other("a panic in the middle of it"));
            let path = Arc::clone(&self.0.path);
            let _ = self.0.failure.set(Failure { path, action: Action::Write, source, upto: u64::MAX });
        }
    }
}
