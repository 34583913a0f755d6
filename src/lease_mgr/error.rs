//! Errors of a lease manager.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Why a lease manager has refused or failed an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseMgrError {
    /// The lease to change does not exist.
    #[error("{address} has no lease")]
    NoSuchLease {
        /// The address.
        address: IpAddr,
    },
    /// The lease to change is not the one that the caller has read.
    #[error("the lease of {address} was modified concurrently")]
    ChangedMeanwhile {
        /// The address.
        address: IpAddr,
    },
    /// The lease is in use and valid for 0 seconds. A lease file cannot hold it, as such a row
    /// deletes a lease.
    #[error("the lease of {address} has a valid lifetime of 0, expected at least 1; delete it instead")]
    ZeroLifetime {
        /// The address.
        address: IpAddr,
    },
    /// The backend cannot store a field of the lease: it would be lost, or read back with another
    /// value. Nothing was changed.
    #[error("the {field} of the lease of {address} cannot be kept, expected {limit}")]
    CannotKeep {
        /// The address.
        address: IpAddr,
        /// The field, such as `hostname`.
        field: &'static str,
        /// The values that can be kept.
        limit: String,
    },
    /// The leases cannot be reached at present. Nothing was changed; the caller can try again
    /// later.
    #[error("{place} is not available")]
    Unavailable {
        /// Where the leases are kept, for display.
        place: String,
        /// Since when the leases cannot be reached.
        since: SystemTime,
        /// Why.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// A change was sent, but no answer came: it may or may not have been made. A server reads the
    /// lease before it answers the client.
    #[error(
        "no answer came to the change of the lease of {address}, which may have been made or not; read the lease"
    )]
    OutcomeUnknown {
        /// The address.
        address: IpAddr,
        /// Why no answer came.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The lease manager was opened read-only, or the leases are kept in a read-only place.
    #[error("{place} is read-only")]
    ReadOnly {
        /// Where the leases are kept, for display.
        place: String,
    },
    /// An argument that is invalid for every backend, such as subnet 0, or a page of 0 leases.
    #[error("{argument} is {value}, expected {expected}")]
    BadArgument {
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: String,
        /// The values that it may have.
        expected: &'static str,
    },
    /// A callback tried to change a lease of the manager that called it, which would wait for that
    /// callback, or of a manager that waits for that one; see [`Tracking`](super::Tracking).
    #[error(
        "a callback cannot change leases of the lease manager that calls it, or of one that waits for that; hand the \
         change to another thread"
    )]
    InCallback,
    /// The change could not be written, and was not made. After a lack of space (`ENOSPC`,
    /// `EDQUOT`) the manager accepts changes again as soon as there is space. After any other
    /// failure it refuses further changes, and [`Status::refused`](super::Status::refused) gives
    /// the reason.
    #[error("{place}: cannot {action}")]
    Write {
        /// Where the leases are kept, such as the path of a lease file.
        place: String,
        /// The action that failed: "write", "sync", ...
        action: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// An earlier write or sync failed, other than for lack of space; no write is tried until the
    /// manager is reopened.
    #[error(
        "{place}: no change is accepted until the lease manager is reopened, as an earlier one failed: cannot {action}"
    )]
    Refused {
        /// Where the leases are kept, such as the path of a lease file.
        place: String,
        /// The action that failed then.
        action: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// An earlier change panicked, so the state in memory is unreliable.
    #[error("no change is accepted until the lease manager is reopened, as an earlier one panicked")]
    Panicked,
    /// There is no room for another lease.
    #[error("no room for another lease: {what}")]
    Full {
        /// The resource that is used up.
        what: &'static str,
    },
    /// Leases were to be written to a file that the lease manager maintains itself.
    #[error("{}: belongs to the lease file {}; write to another name", path.display(), lease_file.display())]
    OwnFile {
        /// The file.
        path: PathBuf,
        /// The lease file.
        lease_file: PathBuf,
    },
    /// The limits in the user context have another form.
    #[error(transparent)]
    Limits(#[from] crate::lease::LimitsError),
    /// The backend does not support this operation.
    #[error("the backend {backend} cannot {operation}")]
    Unsupported {
        /// The name of the backend.
        backend: String,
        /// The operation.
        operation: String,
    },
    /// Another error of the backend.
    #[error(transparent)]
    Backend(#[from] Box<dyn Error + Send + Sync>),
}

impl LeaseMgrError {
    /// Returns whether the lease to change was modified or deleted since the caller has read it.
    /// Nothing was changed; the caller can read it again and decide again.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::NoSuchLease { .. } | Self::ChangedMeanwhile { .. })
    }

    /// Returns whether nothing was changed and the same call may succeed later: the leases cannot
    /// be reached at present, or there is no room for the change.
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

    /// Returns whether it is unknown if the change was made.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }
}
