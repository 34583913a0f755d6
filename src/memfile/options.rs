//! The options with which a memfile is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::LeaseSanity;
use crate::lease::ExtendedInfoChecks;
use crate::lease_mgr::{Durability, OnFail};

/// The options with which a [`Memfile`](super::Memfile) is opened: a builder, whose methods each
/// set one option.
///
/// By default, leases are in memory only. A lease file is cleaned up every hour by default, and
/// each change is written before it is acknowledged.
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
    /// Returns options for leases in memory only.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Returns options for leases in a lease file.
    pub fn at(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// Sets the lease file; with `None`, the leases are in memory only.
    pub fn file(self, file: impl Into<Option<PathBuf>>) -> Self {
        Self { file: file.into(), ..self }
    }

    /// Sets how often the lease files are cleaned up; with `None`, only on request.
    pub fn lfc_interval(self, interval: impl Into<Option<Duration>>) -> Self {
        Self { lfc_interval: interval.into(), ..self }
    }

    /// Sets the maximum number of tolerated invalid rows in each loaded file; `None` is any number.
    pub fn max_row_errors(self, number: impl Into<Option<u64>>) -> Self {
        Self { max_row_errors: number.into(), ..self }
    }

    /// Sets whether DHCPv6 leases can be found by relay ID and remote ID.
    pub fn extended_info_tables(self, wanted: bool) -> Self {
        Self { extended_info_tables: wanted, ..self }
    }

    /// Sets how the extended info of leases is checked, and upgraded from old forms, when they are
    /// loaded.
    pub fn extended_info_checks(self, checks: ExtendedInfoChecks) -> Self {
        Self { extended_info_checks: checks, ..self }
    }

    /// Sets what happens to leases outside of their subnets when they are loaded. With `None`,
    /// nothing is checked.
    pub fn lease_sanity(self, sanity: impl Into<Option<LeaseSanity>>) -> Self {
        Self { lease_sanity: sanity.into(), ..self }
    }

    /// Sets what a server does while the journal refuses changes, as
    /// [`Status::on_fail`](crate::Status::on_fail) reports. The manager itself behaves the same
    /// with each value: it refuses changes until it is reopened.
    pub fn on_fail(self, on_fail: OnFail) -> Self {
        Self { on_fail, ..self }
    }

    /// Sets how often and how long opening waits for files that another process uses; with `None`,
    /// it does not wait.
    pub fn open_retries(self, retries: impl Into<Option<OpenRetries>>) -> Self {
        Self { open_retries: retries.into(), ..self }
    }

    /// Sets how durable a change is when it is acknowledged.
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Sets the program that does cleanups.
    pub fn lfc_program(self, program: LfcProgram) -> Self {
        Self { lfc_program: program, ..self }
    }
}

/// The program that does cleanups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LfcProgram {
    /// The first of these that exists: the program that the environment variable
    /// `KEA_LFC_EXECUTABLE` names, this project's `kea-lfc` next to the running program, the
    /// installed one if it is this project's, a thread of this process.
    /// Kea's own program is not used unless it is named.
    #[default]
    Installed,
    /// This program.
    ///
    /// A program that is named, here or by the environment, is asked for its version (`-V`) before
    /// its first use, and again when its file has changed. A program that writes lease files of an
    /// older version is not used, as it would drop columns. A program that does not report its
    /// version is used, until it writes an older version.
    Program(PathBuf),
    /// A thread of this process.
    Internal,
}

/// How opening a memfile waits while another manager uses the lease file, a cleanup runs, or a file
/// cannot be read or written. Invalid file contents are reported at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRetries {
    /// Maximum number of attempts after the first one.
    pub tries: u32,
    /// Time before each further attempt.
    pub wait: Duration,
}
