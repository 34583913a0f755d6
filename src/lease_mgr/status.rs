//! How a lease manager does.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How a lease manager does.
///
/// With the feature `serde`, it can be written as JSON: times in seconds since the epoch, durations in seconds.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Status {
    /// The name of the backend, such as `memfile`.
    pub backend: String,
    /// Where the leases are kept, in words: a file name, a database without its password.
    pub location: String,
    /// The lease file, where there is one.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::optional_path"))]
    pub lease_file: Option<PathBuf>,
    /// How many leases there are, where that is known without counting.
    pub leases: Option<u64>,
    /// Why changes are refused, where they are.
    pub refused: Option<String>,
    /// What a server is to do while changes are refused, where the backend was told. The server acts on it; the
    /// manager does not.
    pub on_fail: Option<OnFail>,
    /// How far a change has gone when it is acknowledged; `None` if leases do not outlive the manager, or the backend does not
    /// know.
    pub durability: Option<Durability>,
    /// Whether changes are taken.
    pub availability: Availability,
    /// What is wrong though changes are taken, where something is.
    pub warning: Option<String>,
    /// The cleanup of the lease files, where there are such.
    pub cleanup: Option<CleanupStatus>,
}

impl Status {
    /// The status of a backend that keeps leases at a place: a file name, or a database without its password.
    #[must_use]
    pub fn new(backend: impl Into<String>, location: impl Into<String>) -> Self {
        Self { backend: backend.into(), location: location.into(), ..Self::default() }
    }
}

/// How far a change has gone when it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Durability {
    /// It is with the operating system: it survives the end of the process, not a power cut. As Kea does it.
    #[default]
    Written,
    /// It is on the disk: it survives a power cut. Changes that are made at the same time share one sync.
    Synced,
    /// It is with the operating system, and on the disk after this time: a power cut takes the changes of that
    /// time at most.
    SyncedEvery(#[cfg_attr(feature = "serde", serde(serialize_with = "super::json::duration"))] Duration),
}

/// Whether a lease manager takes changes. A change of this is told to what is registered with
/// [`Tracking::on_availability`](super::Tracking::on_availability).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")
)]
#[non_exhaustive]
pub enum Availability {
    /// It takes changes.
    #[default]
    Up,
    /// The leases cannot be reached, and the manager tries to reach them again.
    Lost {
        /// Since when.
        #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::time"))]
        since: SystemTime,
        /// Number of tries so far.
        tries: u32,
        /// When the next try is due.
        #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::optional_time"))]
        next_try: Option<SystemTime>,
    },
    /// The manager takes no changes until it is reopened: a write has failed, or all tries to reach the leases again.
    GivenUp {
        /// Since when.
        #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::time"))]
        since: SystemTime,
    },
}

/// What a server is to do when its lease manager fails: when [`Status::refused`] gives a reason, or the connection to
/// a database is lost. The names are those of the keyword `on-fail` of connection strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum OnFail {
    /// `stop-retry-exit`: answers no clients while it tries to reopen the manager, and exits if it cannot.
    #[default]
    StopRetryExit,
    /// `serve-retry-exit`: goes on answering what needs no change of leases meanwhile, and exits if it cannot reopen the manager.
    ServeRetryExit,
    /// `serve-retry-continue`: goes on answering what needs no change of leases, whether it can reopen the manager or not.
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

/// How the cleanup of the lease files goes.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct CleanupStatus {
    /// Whether one is running.
    pub running: bool,
    /// The last one that has ended.
    pub last: Option<CleanupReport>,
    /// How many have ended well.
    pub succeeded: u64,
    /// How many have failed.
    pub failed: u64,
    /// When the next one is due, unless there is to be none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::optional_time"))]
    pub next: Option<SystemTime>,
}

/// How a cleanup went.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct CleanupReport {
    /// What did the work.
    pub work: CleanupWork,
    /// When it began.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::time"))]
    pub started: SystemTime,
    /// How long it took.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::json::duration"))]
    pub duration: Duration,
    /// Why it failed, if it did; of a program also the end of what it wrote to its standard error, on one line.
    pub failure: Option<String>,
    /// Rows read and written. Known only of work inside the process.
    pub rows: Option<CleanupRows>,
    /// Bytes of the lease files before it, the journal and what the cleanup before had left.
    pub bytes_before: u64,
    /// Bytes of what it left.
    pub bytes_after: u64,
}

/// Numbers of rows that a cleanup has read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub struct CleanupRows {
    /// Valid rows that were read, those that delete a lease included.
    pub read: u64,
    /// Invalid rows that were found.
    pub invalid: u64,
    /// Rows that were written, one for each lease.
    pub written: u64,
}

impl CleanupReport {
    /// A cleanup that has succeeded, with no bytes before and after it.
    #[must_use]
    pub fn new(work: CleanupWork, started: SystemTime, duration: Duration) -> Self {
        Self { work, started, duration, failure: None, rows: None, bytes_before: 0, bytes_after: 0 }
    }
}

/// What does the work of a cleanup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum CleanupWork {
    /// This program, as a process of its own.
    Program(#[cfg_attr(feature = "serde", serde(serialize_with = "super::json::path"))] PathBuf),
    /// A thread of this process.
    Thread,
}

/// What became of the wish for a cleanup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum CleanupStart {
    /// It begins at once.
    Requested,
    /// One is running already, of this manager or of any other process that cleans up these files.
    Running,
    /// There are no files to clean up.
    NotNeeded,
}
