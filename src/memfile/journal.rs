//! The journal of a memfile: the lease file that changes are appended to.
//!
//! It deals in bytes, and knows no leases. What happens to it:
//! * it is opened (`open`): the end of the rows is found, a torn one is closed;
//! * rows are appended, and threads that come at the same time share a write (`shared_write`) or a sync (`group_commit`);
//! * it is synced, on demand or every so often (`sync`);
//! * it gets another name for the cleanup, and a new file takes its place (`rotate`);
//! * it is looked at (`name`), and written anew where another process has removed, replaced or changed it (`rewrite`).
//!
//! What a failure leaves (`failure`): rows of which the write or the sync failed are cut off again, so that the file has
//! exactly the rows that were acknowledged. If all that was wrong is that there was no room, the next rows are written where there is
//! some. What the system makes of a file after any other failure is not known, so nothing is written any more after the first one.
//!
//! The order of rows is that of the calls of [`Journal::append`] where one returned before the other began. Who needs an order
//! between rows of several threads must see to that.

mod failure;
mod group_commit;
#[cfg(test)]
#[cfg(shuttle)]
mod models;
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
pub(crate) use name::Look;
use name::Warnings;
use queue::Queue;
pub(crate) use rewrite::Rewrite;
pub(crate) use rotate::RotateError;
use sync::Timer;
pub(crate) use tail::Changed;
use tail::Tail;

use crate::fs::FileSystem;
use crate::lease_mgr::{Durability, LeaseMgrError};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::sync::thread::JoinHandle;

/// The lease file that changes are appended to. All methods may be called from several threads.
///
/// When it is dropped, what was appended is synced, whatever the durability.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    timer: Option<JoinHandle<()>>,
}

/// What the callers and the thread that syncs have in common.
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
    /// Rows that wait for whoever has the tail.
    queue: Queue,
    /// Held by whoever makes durable what was acknowledged before, so that nobody takes it for durable too early.
    syncs: Mutex<()>,
    timer: Timer,
    /// Held while another file takes the place of the lease file.
    rotation: Mutex<()>,
    warnings: Mutex<Warnings>,
    /// Whether the lease file is to be written anew, whatever a look at it finds.
    is_due: AtomicBool,
    /// Set at most once, under the lock of the tail.
    failure: OnceLock<Failure>,
    /// Whether the last write found no room.
    is_full: AtomicBool,
}

impl Journal {
    /// Appends rows, each with its newline. When it returns, they have gone as far as the durability promises.
    ///
    /// # Errors
    /// [`LeaseMgrError::Write`] if that failed: the rows are not in the file, as far as they could be cut off.
    /// [`LeaseMgrError::Refused`] if something failed before, other than for want of room.
    pub(crate) fn append(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        self.shared.check()?;
        match self.shared.durability {
            _ if rows.is_empty() => Ok(()),
            Durability::Written | Durability::SyncedEvery(_) => self.shared.append_written(rows),
            Durability::Synced => self.shared.append_synced(rows),
        }
    }

    /// How far rows have gone when [`Journal::append`] returns.
    pub(crate) fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// Makes durable all that was acknowledged.
    ///
    /// # Errors
    /// [`LeaseMgrError::Write`] if the sync failed, [`LeaseMgrError::Refused`] if an earlier one did.
    pub(crate) fn sync(&self) -> Result<(), LeaseMgrError> {
        self.shared.sync()
    }

    /// Gives the file the name `input`, and puts a new one in its place, so that there is a lease file at each moment. Rows can be
    /// appended all the time, and go to one or the other. When it returns, nothing is written to `input` any more, and all rows in it are
    /// durable.
    ///
    /// There must be no file `input`, unless an earlier rotation has left it ([`Journal::is_linked`]). After an error rows go on to the old file
    /// under its name.
    ///
    /// All this is synced in every durability mode: it is done once in an hour or so, and appending does not wait for it, but in
    /// [`Durability::Synced`] for the sync of the directory.
    ///
    /// # Errors
    /// [`RotateError`].
    pub(crate) fn rotate(&self, input: &Path) -> Result<(), RotateError> {
        self.shared.rotate(input)
    }

    /// Returns whether `input` is another name of the file that rows go to, as a rotation leaves it that was
    /// interrupted: then no cleanup may read it.
    ///
    /// # Errors
    /// Returns an error if a file cannot be looked at.
    pub(crate) fn is_linked(&self, input: &Path) -> std::io::Result<bool> {
        let reader = self.shared.tail.lock().reader();
        self.shared.is_name_of(input, reader.as_ref())
    }

    /// Makes sure that rows are appended.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Refused`] if a write or sync has failed, other than for want of room.
    pub(crate) fn check(&self) -> Result<(), LeaseMgrError> {
        self.shared.check()
    }

    /// Why nothing is appended any more, if so.
    pub(crate) fn refused(&self) -> Option<String> {
        self.shared.failure.get().map(Failure::to_string)
    }

    /// Since when nothing is appended any more, if so.
    pub(crate) fn failed_since(&self) -> Option<SystemTime> {
        self.shared.failure.get().map(Failure::since)
    }

    /// What is wrong with the file though rows are taken, if anything is.
    pub(crate) fn warning(&self) -> Option<String> {
        self.shared.warnings.lock().text()
    }
}

/// A name with something behind it.
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
