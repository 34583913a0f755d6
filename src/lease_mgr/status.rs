//! The status of a lease manager.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The status of a lease manager.
///
/// With the feature `serde`, it can be serialized to JSON, with times in seconds since the epoch
/// and durations in seconds.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Status {
    /// The name of the backend, such as `memfile`.
    pub backend: String,
    /// Where the leases are kept, for display: a file name, or a database without its password.
    pub location: String,
    /// The lease file, if there is one.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::optional_path"))]
    pub lease_file: Option<PathBuf>,
    /// Number of leases, if known without counting.
    pub leases: Option<u64>,
    /// Why changes are refused, if they are.
    pub refused: Option<String>,
    /// What a server is to do while changes are refused, if configured. The manager itself does not
    /// act on it.
    pub on_fail: Option<OnFail>,
    /// How durable a change is when it is acknowledged; `None` if leases do not outlive the
    /// manager, or the backend does not know.
    pub durability: Option<Durability>,
    /// Whether the manager accepts changes.
    pub availability: Availability,
    /// A problem that does not keep the manager from accepting changes.
    pub warning: Option<String>,
    /// The cleanup of the lease files, if there are any.
    pub cleanup: Option<CleanupStatus>,
}

impl Status {
    /// Creates the status of a backend that keeps its leases in a place: a file name, or a database
    /// without its password.
    #[must_use]
    pub fn new(backend: impl Into<String>, location: impl Into<String>) -> Self {
        Self { backend: backend.into(), location: location.into(), ..Self::default() }
    }
}

/// How durable a change is when it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Durability {
    /// Written to the operating system: survives the end of the process, but not a power failure.
    /// The same as in Kea.
    #[default]
    Written,
    /// Synced to the disk: survives a power failure. Concurrent changes share one sync.
    Synced,
    /// Written to the operating system, and synced to the disk after this interval: a power failure
    /// loses at most the changes of the interval.
    SyncedEvery(#[cfg_attr(feature = "serde", serde(serialize_with = "super::json::duration"))] Duration),
}

/// Whether a lease manager accepts changes. When it changes, the manager calls the functions that
/// are registered with [`Tracking::on_availability`](super::Tracking::on_availability).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")
)]
#[non_exhaustive]
pub enum Availability {
    /// The manager accepts changes.
    #[default]
    Up,
    /// The leases cannot be reached, and the manager tries to reach them again.
    Lost {
        /// Since when.
        #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::time"))]
        since: SystemTime,
        /// Number of attempts so far.
        tries: u32,
        /// When the next attempt is due.
        #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::optional_time"))]
        next_try: Option<SystemTime>,
    },
    /// The manager accepts no changes until it is reopened: a write has failed, or all attempts to
    /// reach the leases again have.
    GivenUp {
        /// Since when.
        #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::time"))]
        since: SystemTime,
    },
}

/// What a server is to do when its lease manager fails: when [`Status::refused`] gives a reason, or
/// the connection to a database is lost. The values are those of the keyword `on-fail` of
/// connection strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum OnFail {
    /// `stop-retry-exit`: serves no clients while it tries to reopen the manager, and exits if it
    /// cannot.
    #[default]
    StopRetryExit,
    /// `serve-retry-exit`: meanwhile serves requests that change no lease, and exits if it cannot
    /// reopen the manager.
    ServeRetryExit,
    /// `serve-retry-continue`: serves requests that change no lease, whether it can reopen the
    /// manager or not.
    ServeRetryContinue,
}

impl OnFail {
    /// The values with their names in connection strings.
    pub const NAMES: [(&str, Self); 3] = [
        ("stop-retry-exit", Self::StopRetryExit),
        ("serve-retry-exit", Self::ServeRetryExit),
        ("serve-retry-continue", Self::ServeRetryContinue),
    ];
}

/// The state of the cleanups of the lease files.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct CleanupStatus {
    /// Whether a cleanup is running.
    pub running: bool,
    /// The last finished cleanup.
    pub last: Option<CleanupReport>,
    /// Number of cleanups that have succeeded.
    pub succeeded: u64,
    /// Number of cleanups that have failed.
    pub failed: u64,
    /// When the next cleanup is due, if one is scheduled.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::optional_time"))]
    pub next: Option<SystemTime>,
}

/// The result of a cleanup.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct CleanupReport {
    /// Where the cleanup was done.
    pub work: CleanupWork,
    /// When it began.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::time"))]
    pub started: SystemTime,
    /// How long it took.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::duration"))]
    pub duration: Duration,
    /// Why the cleanup failed, if it did; for a program also the end of its standard error, on one
    /// line.
    pub failure: Option<String>,
    /// Numbers of rows; known only for a cleanup inside the process.
    pub rows: Option<CleanupRows>,
    /// Size in bytes of the lease files before the cleanup: the journal and the result of the
    /// previous cleanup.
    pub bytes_before: u64,
    /// Size in bytes of the lease file after the cleanup.
    pub bytes_after: u64,
}

/// Numbers of rows that a cleanup has read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct CleanupRows {
    /// Number of valid rows that were read, including those that delete a lease.
    pub read: u64,
    /// Number of invalid rows that were read.
    pub invalid: u64,
    /// Number of rows that were written, one for each lease.
    pub written: u64,
}

impl CleanupReport {
    /// Creates the report of a cleanup that has succeeded, with sizes of 0.
    #[must_use]
    pub fn new(work: CleanupWork, started: SystemTime, duration: Duration) -> Self {
        Self { work, started, duration, failure: None, rows: None, bytes_before: 0, bytes_after: 0 }
    }
}

/// Where a cleanup is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum CleanupWork {
    /// In a process of its own, by this program.
    Program(#[cfg_attr(feature = "serde", serde(serialize_with = "super::json::path"))] PathBuf),
    /// In a thread of this process.
    Thread,
}

/// The outcome of a request for a cleanup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum CleanupStart {
    /// The cleanup starts at once.
    Requested,
    /// A cleanup is already running, of this manager or of another process that uses these files.
    Running,
    /// There are no files to clean up.
    NotNeeded,
}
