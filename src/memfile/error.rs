//! The errors of opening a memfile.

use std::io;
use std::path::PathBuf;

use crate::lease_file::{LeaseFileError, RowError};
use crate::lfc::{LfcError, RunningCleanup};

/// The reason why a memfile cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another lease manager, in this process or another, uses the lease file.
    #[error("{}: the lease file is in use by another lease manager, which holds {}", path.display(), lock.display())]
    Owned {
        /// The lease file.
        path: PathBuf,
        /// The lock file that the other manager holds.
        lock: PathBuf,
    },
    /// The directory of the lease file is missing.
    #[error("{}: its directory {} does not exist; create it, owned by the user of the server", path.display(), directory.display())]
    NoDirectory {
        /// The lease file.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// A cleanup process works on the files.
    #[error("{}: {running}", path.display())]
    CleanupRunning {
        /// The lease file.
        path: PathBuf,
        /// The process ID; 0 if the PID file names none.
        pid: i32,
        /// What is known about the cleanup.
        running: RunningCleanup,
    },
    /// A lease file cannot be read or written, or is not a lease file.
    #[error(transparent)]
    File(#[from] LeaseFileError),
    /// A file has more invalid rows than are tolerated.
    #[error(
        "{}: more than {limit} invalid rows in this file, the last in {last}; \
         fix the file, or raise max-row-errors (0 for any number)",
        path.display()
    )]
    TooManyInvalidRows {
        /// The file.
        path: PathBuf,
        /// Maximum number of tolerated invalid rows in each file.
        limit: u64,
        /// The first row above the limit.
        last: RowError,
    },
    /// A lease file of another version cannot be converted.
    #[error("{}: cannot be converted", path.display())]
    Conversion {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: Box<LfcError>,
    },
    /// The leases exceed the maximum size of the storage.
    #[error("{}: more leases than there is room for", path.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
    },
    /// A thread that read the files panicked.
    #[error("a thread that read the lease files panicked")]
    Panicked,
    /// No thread can be started for the cleanup.
    #[error("cannot start the thread for the cleanup")]
    Thread {
        /// The reason.
        source: io::Error,
    },
}

impl OpenError {
    /// Returns whether a later attempt may succeed with unchanged file contents.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Owned { .. }
                | Self::NoDirectory { .. }
                | Self::CleanupRunning { .. }
                | Self::File(LeaseFileError::Io { .. })
        )
    }
}
