//! How a memfile is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::LeaseSanity;
use crate::fs::{FileSystem, OsFileSystem};
use crate::lease::ExtendedInfoChecks;
use crate::lease_mgr::{Durability, OnFail};

/// How a [`Memfile`](super::Memfile) is opened.
#[derive(Clone, Debug)]
pub struct MemfileOptions {
    /// The lease file; `None` keeps the leases in memory only.
    pub file: Option<PathBuf>,
    /// How often the lease files are cleaned up; `None` is never, unless somebody asks for it.
    pub lfc_interval: Option<Duration>,
    /// How many invalid rows are tolerated in each file that is loaded; `None` is any number.
    pub max_row_errors: Option<u64>,
    /// Whether DHCPv6 leases can be found by relay id and remote id.
    pub extended_info_tables: bool,
    /// What is checked of the extended info of leases when they are loaded, and upgraded if it is in an old form.
    pub extended_info_checks: ExtendedInfoChecks,
    /// What becomes of leases that are outside of their subnets when they are loaded; `None` without a map of the subnets,
    /// and then nothing is checked.
    pub lease_sanity: Option<LeaseSanity>,
    /// What a server is to do while the journal is refused, which [`Status::on_fail`](crate::Status::on_fail) tells.
    /// The manager itself does the same with each value: it refuses changes until it is reopened.
    pub on_fail: OnFail,
    /// How often and how long opening waits for files that another process has; `None` is not at all.
    pub open_retries: Option<OpenRetries>,
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
            extended_info_checks: ExtendedInfoChecks::default(),
            lease_sanity: None,
            on_fail: OnFail::default(),
            open_retries: None,
            durability: Durability::default(),
            lfc_program: LfcProgram::default(),
            file_system: Arc::new(OsFileSystem),
        }
    }
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
    /// tell is used, until it has done so.
    Program(PathBuf),
    /// A thread of this process.
    Internal,
}

/// How opening a memfile waits where the lease file is in use by another manager, a cleanup runs, or a file cannot be read
/// or written. Files with a wrong content are reported at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRetries {
    /// Maximum number of further tries after the first one.
    pub tries: u32,
    /// Time before each of them.
    pub wait: Duration,
}
