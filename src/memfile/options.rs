//! How a memfile is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{FileSystem, OsFileSystem};

/// How a [`Memfile`](super::Memfile) is opened.
#[derive(Clone, Debug)]
pub struct MemfileOptions {
    /// The lease file; `None` keeps the leases in memory only.
    pub file: Option<PathBuf>,
    /// How often the lease files are cleaned up; `None` is never, unless somebody asks for it.
    pub lfc_interval: Option<Duration>,
    /// How many bad rows are borne in loading; `None` is any number.
    pub max_row_errors: Option<u64>,
    /// Whether DHCPv6 leases can be found by relay id and remote id.
    pub extended_info_tables: bool,
    /// How far a change has gone when it is acknowledged.
    pub durability: Durability,
    /// What does the work of a cleanup.
    pub lfc_program: LfcProgram,
    /// The file operations.
    pub file_system: Arc<dyn FileSystem>,
}

impl Default for MemfileOptions {
    /// In memory only; with a file, a cleanup every hour, and each change written when it is acknowledged.
    fn default() -> Self {
        Self {
            file: None,
            lfc_interval: Some(Duration::from_secs(3600)),
            max_row_errors: None,
            extended_info_tables: false,
            durability: Durability::default(),
            lfc_program: LfcProgram::default(),
            file_system: Arc::new(OsFileSystem),
        }
    }
}

/// How far a change has gone when it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It is with the operating system: it survives the end of the process, not a power cut. As Kea does it.
    #[default]
    Written,
    /// It is on the disk: it survives a power cut. Changes that are made at the same time share one sync.
    Synced,
    /// It is with the operating system, and on the disk after this time: a power cut takes the changes of that
    /// time at most.
    SyncedEvery(Duration),
}

/// What does the work of a cleanup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LfcProgram {
    /// The program that the environment variable `KEA_LFC_EXECUTABLE` names, else this project's `kea-lfc` beside the running
    /// program, else the one that is installed, if it is this project's, else a thread of this process.
    ///
    /// Kea's own program is not used unless it is named.
    #[default]
    Installed,
    /// This program.
    ///
    /// A program that is named, here or by the environment, is asked for its version before its first use (`-V`), and again when
    /// its file has changed. One that writes lease files of an older version is not used: it would drop columns. One that does not
    /// tell is used.
    Program(PathBuf),
    /// A thread of this process.
    Internal,
}
