//! Errors of a cleanup.

use std::io;
use std::path::{Path, PathBuf};

use crate::lease_file::{LeaseFileError, RowError};
use crate::parallel::Panicked;

/// The reason why a cleanup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LfcError {
    /// A file cannot be read, or is not a lease file.
    #[error(transparent)]
    File(#[from] LeaseFileError),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The PID file cannot be taken, so the cleanup was not started.
    #[error("cannot {action} {}", path.display())]
    PidFile {
        /// The operation.
        action: &'static str,
        /// The PID file, or one of its lock files.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// No row of a file is valid, so that it is probably another kind of file. Nothing was changed.
    #[error(
        "{}: none of its {rows} rows can be read, the first: {first}; correct the file, or move it away if its leases \
         are not needed", path.display()
    )]
    NoValidRow {
        /// The file.
        path: PathBuf,
        /// Number of rows.
        rows: u64,
        /// The error of the first row.
        first: Box<RowError>,
    },
    /// The file of invalid rows is full. Nothing was changed.
    #[error(
        "{}: the file of invalid rows is full ({len} bytes), and there are more rows; inspect it, and move it \
         away", path.display()
    )]
    InvalidRowsFull {
        /// The file of invalid rows.
        path: PathBuf,
        /// The length of the file, in bytes.
        len: u64,
    },
    /// The caller cancelled the cleanup.
    #[error("the cleanup was cancelled")]
    Cancelled,
    /// The merged rows were not in address order.
    #[error("the rows were not in address order after they were sorted")]
    Order,
    /// The journal has more than 4 GiB of rows for a few addresses, more than valid rows can have.
    #[error("the journal has more than 4 GiB of rows between two addresses")]
    TooLarge,
    /// A thread of the cleanup panicked.
    #[error("a thread of the cleanup panicked")]
    Panicked,
}

impl LfcError {
    /// Converts an error of a file operation.
    pub(super) fn io<P: AsRef<Path> + ?Sized>(
        action: &'static str,
        path: &P,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }
}

impl From<Panicked> for LfcError {
    fn from(Panicked: Panicked) -> Self {
        Self::Panicked
    }
}
