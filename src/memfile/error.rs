//! Why a memfile cannot be opened.

use std::io;
use std::path::PathBuf;

use crate::lease_file::{LeaseFileError, RowError};
use crate::lfc::{LfcError, RunningCleanup};

/// Why a memfile cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another manager, in this process or another, has the lease file.
    #[error("{}: the lease file is in use by another lease manager, which holds {}", path.display(), lock.display())]
    Owned {
        /// The lease file.
        path: PathBuf,
        /// Its lock.
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
    /// A cleanup process is at work with the files.
    #[error("{}: {running}", path.display())]
    CleanupRunning {
        /// The lease file.
        path: PathBuf,
        /// The process; 0 if the PID file names none.
        pid: i32,
        /// What is known of the cleanup.
        running: RunningCleanup,
    },
    /// A lease file cannot be read or written, or is none.
    #[error(transparent)]
    File(#[from] LeaseFileError),
    /// A file has more invalid rows than are tolerated.
    #[error(
        "{}: more than {limit} invalid rows in this file, the last in {last}; \
         fix the file, or raise max-row-errors (0 for any number)",
        path.display()
    )]
    TooManyBadRows {
        /// The file.
        path: PathBuf,
        /// How many are tolerated in each file.
        limit: u64,
        /// The row that was one too many.
        last: RowError,
    },
    /// A lease file of another version cannot be converted.
    #[error("{}: cannot be converted", path.display())]
    Conversion {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<LfcError>,
    },
    /// There are more leases than fit.
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
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether opening may succeed later though the content of the files stays what it is.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Owned { .. }
                | Self::NoDirectory { .. }
                | Self::CleanupRunning { .. }
                | Self::File(LeaseFileError::Io { .. })
        )
    }
}
