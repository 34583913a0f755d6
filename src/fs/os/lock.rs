//! Locks of files that are removed with the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::open::{identity, not_a_link, open_as};
use crate::fs::directory_of;

/// The mode of a PID file's lock, as in Kea.
const LOCK_MODE: u32 = 0o600;

/// Opens a lock's file, and creates it if there is none.
///
/// A symbolic link is refused: the file is to be removed again, and what is locked must be what the name stands for.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    loop {
        // A process that gets it as its standard input finds nothing to read.
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match options.clone().create_new(true).mode(LOCK_MODE).open(path) {
            Ok(file) => {
                give_to_owner_of_directory(&file, path);
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match open_as(path, &options, not_a_link) {
            // Its holder has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
}

/// Gives a lock's file that the superuser has created to the owner of the folder: what a kill leaves of it must not keep the server, which
/// runs as another user, from its own lock.
fn give_to_owner_of_directory(file: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(folder) = std::fs::metadata(directory_of(path)) {
        // Without it, the lock is as good.
        let _ = std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

/// A lock that a process can be given, as its standard input.
///
/// It is held as long as this is not dropped, and then as long as another process has the descriptor that it was given, or one
/// that comes from it.
#[derive(Debug)]
pub struct ProcessLock(LockGuard);

impl ProcessLock {
    pub(super) fn new(guard: LockGuard) -> Self {
        Self(guard)
    }

    /// Returns what a process is given: an empty file, with which the process holds the lock.
    ///
    /// # Errors
    /// Returns the system's error if there is no free descriptor.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.file.try_clone().map(OwnedFd::from)
    }

    /// Leaves the lock to the process that was given it, which holds it until it ends.
    pub fn leave(mut self) {
        self.0.is_left = true;
    }
}

#[derive(Debug)]
pub(super) struct LockGuard {
    file: File,
    path: PathBuf,
    /// Whether another process goes on to hold the lock.
    is_left: bool,
}

impl LockGuard {
    /// Waits for the lock of a file, and takes it.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        loop {
            let file = open_lock(path)?;
            file.lock()?;
            if let Some(guard) = Self::new(file, path)? {
                return Ok(guard);
            }
        }
    }

    /// Takes the lock of a file, unless it is held.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open_lock(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if let Some(guard) = Self::new(file, path)? {
                return Ok(Some(guard));
            }
        }
    }

    /// Takes a file that is locked. `None` if whoever held the lock before has removed it: then it is a lock on a file
    /// without a name.
    pub(super) fn new(file: File, path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(named) if identity(&named) == identity(&file.metadata()?) => {
                Ok(Some(Self { file, path: path.to_owned(), is_left: false }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        // Removed while it is still locked, so that nobody else's file is. Left over, it harms nobody.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
