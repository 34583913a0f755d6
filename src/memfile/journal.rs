//! The journal of a memfile: the lease file that changes are appended to.
//!
//! The journal handles bytes, and does not know leases. Its parts:
//! * `open` opens the file: it finds the end of the rows, and closes a torn row;
//! * `shared_write` and `group_commit` append rows: concurrent threads share a write or a sync;
//! * `sync` syncs the file, on demand or at intervals;
//! * `rotate` renames the file for the cleanup, and starts a new one;
//! * `name` checks the file, and `rewrite` rewrites it when another process has removed, replaced
//!   or changed it.
//!
//! After a failed write or sync (`failure`), its rows are cut off again, so that the file has
//! exactly the acknowledged rows. If the only reason was a full disk, the next rows may find room.
//! After any other failure, the state of the file is unknown, so nothing is written any more.
//!
//! If one call of [`Journal::append`] returns before another begins, their rows are in this order.
//! Callers that need an order between rows of several threads have to ensure it.

mod failure;
mod group_commit;
#[cfg(test)]
#[cfg(shuttle)]
pub(super) mod models;
mod name;
mod open;
mod queue;
mod rewrite;
mod rotate;
mod shared_write;
mod sync;
mod tail;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crossbeam_utils::CachePadded;

use failure::Failure;
pub(crate) use name::FileState;
use name::Warnings;
use queue::Queue;
pub(crate) use rewrite::Rewrite;
pub(crate) use rotate::RotateError;
use sync::Timer;
pub(crate) use tail::ChangedRange;
use tail::Tail;

use crate::fs::FileSystem;
use crate::lease_mgr::{Durability, LeaseMgrError};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::sync::thread::JoinHandle;

/// The lease file that changes are appended to. All methods may be called by several threads.
///
/// Dropping it syncs the appended rows, with any durability.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    timer: Option<JoinHandle<()>>,
}

/// The state shared by the callers and the sync thread.
///
/// Locks are taken in the order `rotation`, `syncs`, `tail`, `queue`, `warnings`.
struct Shared {
    fs: Arc<dyn FileSystem>,
    path: Arc<Path>,
    /// The first line of a new file, with its newline.
    header: String,
    durability: Durability,
    /// Held while rows are written, and in [`Durability::Synced`] while they are synced.
    tail: CachePadded<Mutex<Tail>>,
    /// Rows that wait for the thread that holds the tail.
    queue: Queue,
    /// Held by a thread that syncs acknowledged rows, so that no other thread takes them for
    /// durable too early.
    syncs: Mutex<()>,
    timer: Timer,
    /// Held while the lease file is replaced.
    rotation: Mutex<()>,
    warnings: Mutex<Warnings>,
    /// Whether the lease file has to be rewritten, whatever state it is in.
    is_due: AtomicBool,
    /// Set at most once, under the lock of the tail.
    failure: OnceLock<Failure>,
    /// Whether the last write failed because the disk was full.
    is_full: AtomicBool,
}

impl Journal {
    /// Appends rows, each with its newline. When it returns, they are as durable as promised.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Write`] if the write or sync failed: the rows are not in the file,
    /// as far as they could be cut off. Returns [`LeaseMgrError::Refused`] if an earlier write or
    /// sync failed, other than because of a full disk.
    pub(crate) fn append(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        self.shared.check()?;
        match self.shared.durability {
            _ if rows.is_empty() => Ok(()),
            Durability::Written | Durability::SyncedEvery(_) => self.shared.append_written(rows),
            Durability::Synced => self.shared.append_synced(rows),
        }
    }

    /// Returns how durable rows are when [`Journal::append`] returns.
    pub(crate) fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// Makes all acknowledged rows durable.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Write`] if the sync failed, or [`LeaseMgrError::Refused`] if an
    /// earlier write or sync failed.
    pub(crate) fn sync(&self) -> Result<(), LeaseMgrError> {
        self.shared.sync()
    }

    /// Renames the file to `input`, and puts a new file in its place, so that there is a lease file
    /// at each moment. Rows can be appended all the time, and go to one or the other. When it
    /// returns, nothing more is written to `input`, and all rows in it are durable.
    ///
    /// `input` must not exist, unless an earlier rotation has left it ([`Journal::is_linked`]).
    /// After an error, rows still go to the old file under its name.
    ///
    /// The files are synced in every durability mode. Appending does not wait for this, except in
    /// [`Durability::Synced`] for the sync of the directory.
    ///
    /// # Errors
    /// Returns [`RotateError`] if the file could not be renamed or replaced, or a sync failed.
    pub(crate) fn rotate(&self, input: &Path) -> Result<(), RotateError> {
        self.shared.rotate(input)
    }

    /// Returns whether `input` is another name of the file that rows go to, left by an interrupted
    /// rotation: then no cleanup may read it.
    ///
    /// # Errors
    /// Returns an error if a file cannot be opened.
    pub(crate) fn is_linked(&self, input: &Path) -> std::io::Result<bool> {
        let reader = self.shared.tail.lock().reader();
        self.shared.is_name_of(input, reader.as_ref())
    }

    /// Checks that rows can be appended.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Refused`] if a write or sync has failed, other than because of a
    /// full disk.
    pub(crate) fn check(&self) -> Result<(), LeaseMgrError> {
        self.shared.check()
    }

    /// Returns why rows are refused, if they are.
    pub(crate) fn refused(&self) -> Option<String> {
        self.shared.failure.get().map(Failure::to_string)
    }

    /// Returns since when rows have been refused, if they are.
    pub(crate) fn failed_since(&self) -> Option<SystemTime> {
        self.shared.failure.get().map(Failure::since)
    }

    /// Returns what is wrong with the file, if anything, while rows are still accepted.
    pub(crate) fn warning(&self) -> Option<String> {
        self.shared.warnings.lock().text()
    }
}

/// Returns a name with a suffix.
fn with_suffix(name: &Path, suffix: &str) -> PathBuf {
    let mut name = name.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.end_timer();
        self.shared.close();
    }
}
