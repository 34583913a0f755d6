//! Why a cleanup fails.

use std::io;
use std::path::{Path, PathBuf};

use crate::lease_file::{LeaseFileError, RowError};
use crate::parallel::Panicked;

/// Why a cleanup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LfcError {
    /// A lease file cannot be read, or is none.
    #[error(transparent)]
    File(#[from] LeaseFileError),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The PID file cannot be taken, so nothing was begun.
    #[error("cannot {action} {}", path.display())]
    PidFile {
        /// What was tried.
        action: &'static str,
        /// The PID file, or one of the files that are locked for it.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No row of a file can be read, so that it is another file than it is taken for. Nothing was changed.
    #[error(
        "{}: none of its {rows} rows can be read, the first one: {first}; correct the file, or move it away if no lease \
         is to be read from it", path.display()
    )]
    NoValidRow {
        /// The file.
        path: PathBuf,
        /// Number of rows.
        rows: u64,
        /// What is wrong with the first one.
        first: Box<RowError>,
    },
    /// The file in which invalid rows are kept takes no more of them. Nothing was changed.
    #[error(
        "{}: it has {len} bytes of rows that cannot be read, and there are more of them; look at them, and move the file \
         away", path.display()
    )]
    InvalidRowsFull {
        /// The file in which they are kept.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// Somebody asked for it to end.
    #[error("the cleanup was cancelled")]
    Cancelled,
    /// The merged rows were not in address order.
    #[error("the rows were not in address order after they were sorted")]
    Order,
    /// The journal has more than 4 GiB of rows for a few addresses, which no rows that are read can have.
    #[error("the journal has more than 4 GiB of rows between two addresses")]
    TooLarge,
    /// A thread of the cleanup panicked.
    #[error("a thread of the cleanup panicked")]
    Panicked,
}

impl LfcError {
    /// What a file operation that fails is made into.
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
