//! How a memfile is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::LeaseSanity;
use crate::lease::ExtendedInfoChecks;
use crate::lease_mgr::{Durability, OnFail};

/// How a [`Memfile`](super::Memfile) is opened: a builder, of which each method changes one option.
///
/// By default, leases are in memory only; with a file, it is cleaned up every hour, and each change is written when it is
/// acknowledged.
///
/// ```
/// use std::time::Duration;
///
/// use leasemgr::Durability;
/// use leasemgr::memfile::{LfcProgram, MemfileOptions};
///
/// let options = MemfileOptions::at("/var/lib/dhcp/leases4.csv")
///     .durability(Durability::Synced)
///     .lfc_interval(Duration::from_secs(600))
///     .lfc_program(LfcProgram::Internal);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MemfileOptions {
    pub(super) file: Option<PathBuf>,
    pub(super) lfc_interval: Option<Duration>,
    pub(super) max_row_errors: Option<u64>,
    pub(super) extended_info_tables: bool,
    pub(super) extended_info_checks: ExtendedInfoChecks,
    pub(super) lease_sanity: Option<LeaseSanity>,
    pub(super) on_fail: OnFail,
    pub(super) open_retries: Option<OpenRetries>,
    pub(super) durability: Durability,
    pub(super) lfc_program: LfcProgram,
}

impl Default for MemfileOptions {
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
        }
    }
}

impl MemfileOptions {
    /// Leases in memory only.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Leases in this lease file.
    pub fn at(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// The lease file; `None` keeps the leases in memory only.
    pub fn file(self, file: impl Into<Option<PathBuf>>) -> Self {
        Self { file: file.into(), ..self }
    }

    /// How often the lease files are cleaned up; `None` is never, unless somebody asks for it.
    pub fn lfc_interval(self, interval: impl Into<Option<Duration>>) -> Self {
        Self { lfc_interval: interval.into(), ..self }
    }

    /// How many invalid rows are tolerated in each file that is loaded; `None` is any number.
    pub fn max_row_errors(self, number: impl Into<Option<u64>>) -> Self {
        Self { max_row_errors: number.into(), ..self }
    }

    /// Whether DHCPv6 leases can be found by relay id and remote id.
    pub fn extended_info_tables(self, wanted: bool) -> Self {
        Self { extended_info_tables: wanted, ..self }
    }

    /// What is checked of the extended info of leases when they are loaded, and upgraded if it is in an old form.
    pub fn extended_info_checks(self, checks: ExtendedInfoChecks) -> Self {
        Self { extended_info_checks: checks, ..self }
    }

    /// What becomes of leases that are outside of their subnets when they are loaded; `None` without a map of the subnets,
    /// and then nothing is checked.
    pub fn lease_sanity(self, sanity: impl Into<Option<LeaseSanity>>) -> Self {
        Self { lease_sanity: sanity.into(), ..self }
    }

    /// What a server is to do while the journal is refused, which [`Status::on_fail`](crate::Status::on_fail) tells.
    /// The manager itself does the same with each value: it refuses changes until it is reopened.
    pub fn on_fail(self, on_fail: OnFail) -> Self {
        Self { on_fail, ..self }
    }

    /// How often and how long opening waits for files that another process has; `None` is not at all.
    pub fn open_retries(self, retries: impl Into<Option<OpenRetries>>) -> Self {
        Self { open_retries: retries.into(), ..self }
    }

    /// How far a change has gone when it is acknowledged.
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// What does the work of a cleanup.
    pub fn lfc_program(self, program: LfcProgram) -> Self {
        Self { lfc_program: program, ..self }
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
