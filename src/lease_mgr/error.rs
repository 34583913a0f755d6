//! Why a lease manager does not do what it is asked.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Why a lease manager did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseMgrError {
    /// The lease that was to be changed is not there.
    #[error("{address} has no lease")]
    NoSuchLease {
        /// The address.
        address: IpAddr,
    },
    /// The lease that was to be changed is not the one that the caller has read.
    #[error("the lease of {address} was changed meanwhile")]
    ChangedMeanwhile {
        /// The address.
        address: IpAddr,
    },
    /// A lease that is valid for 0 seconds: a lease file cannot hold it, such a row deletes.
    #[error("the lease of {address} has a valid lifetime of 0, expected at least 1; delete it instead")]
    ZeroLifetime {
        /// The address.
        address: IpAddr,
    },
    /// The backend cannot keep what is in a field of the lease: it would be lost, or come back as something else. Nothing was
    /// changed.
    #[error("the {field} of the lease of {address} cannot be kept, expected {limit}")]
    CannotKeep {
        /// The address.
        address: IpAddr,
        /// The field, such as `hostname`.
        field: &'static str,
        /// The values that can be kept.
        limit: String,
    },
    /// The leases cannot be reached at present. Nothing was changed; the call can be tried again later.
    #[error("{place} is not available")]
    Unavailable {
        /// Where the leases are, in words.
        place: String,
        /// Since when that is so.
        since: SystemTime,
        /// Why.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// A change was sent, and no answer came: it was made, or not. A server reads the lease before it answers the client.
    #[error("whether the lease of {address} was changed is not known, as no answer came; read it")]
    OutcomeUnknown {
        /// The address.
        address: IpAddr,
        /// Why no answer came.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The lease manager was opened to read only, or the place of the leases can be read only.
    #[error("{place} is read-only")]
    ReadOnly {
        /// Where the leases are, in words.
        place: String,
    },
    /// An argument that no backend has a right answer to, such as the number 0 of a subnet, or a page of no leases.
    #[error("{argument} is {value}, expected {expected}")]
    BadArgument {
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// A callback tried to change a lease of the manager that called it, which would wait for the change that the callback
    /// is told of, or of a manager that waits for that one; see [`Tracking`](super::Tracking).
    #[error(
        "a callback cannot change leases of the lease manager that calls it, or of one that waits for that; hand the \
         change to another thread"
    )]
    InCallback,
    /// The change could not be written, and was not made. If there was no room for it (`ENOSPC`, `EDQUOT`), others are made as
    /// soon as there is some; after any other failure the manager refuses further ones, which [`Status::refused`](super::Status::refused) tells.
    #[error("{place}: cannot {action}")]
    Write {
        /// Where the leases are kept, such as the path of a lease file.
        place: String,
        /// What was tried: "write", "sync", ...
        action: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// An earlier write or sync failed, other than for want of room, so none is tried until the manager is reopened.
    #[error(
        "{place}: no change is accepted until the lease manager is reopened, as an earlier one failed: cannot {action}"
    )]
    Refused {
        /// Where the leases are kept, such as the path of a lease file.
        place: String,
        /// What was tried then.
        action: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// An earlier change ended in a panic, so that what is in memory cannot be trusted.
    #[error("no change is accepted until the lease manager is reopened, as an earlier one ended in a panic")]
    Panicked,
    /// There is no room for another lease.
    #[error("no room for another lease: {what}")]
    Full {
        /// What is used up.
        what: &'static str,
    },
    /// A file that leases were to be written to is one that the lease manager keeps for itself.
    #[error("{}: belongs to the lease file {}; write to another name", path.display(), lease_file.display())]
    OwnFile {
        /// The file.
        path: PathBuf,
        /// The lease file.
        lease_file: PathBuf,
    },
    /// The user context that limits were to be taken from has them in another form.
    #[error(transparent)]
    Limits(#[from] crate::lease::LimitsError),
    /// The backend does not know this operation.
    #[error("the backend {backend} cannot {operation}")]
    Unsupported {
        /// The name of the backend.
        backend: String,
        /// What it was asked for.
        operation: String,
    },
    /// A backend failed in its own way.
    #[error(transparent)]
    Backend(#[from] Box<dyn Error + Send + Sync>),
}

impl LeaseMgrError {
    /// Returns whether the lease that was to be changed has changed since it was read, or is gone. Nothing was changed; the
    /// caller can read it again and decide again.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::NoSuchLease { .. } | Self::ChangedMeanwhile { .. })
    }

    /// Returns whether nothing was changed and the same call may succeed later: the leases cannot be reached at present, or
    /// there is no room for the change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Write { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// Returns whether the change may have been made, or not.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }
}
