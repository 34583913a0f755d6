//! Advisory locks of files that are removed when the lock is released.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::open::{identity, not_a_link, open_as};
use crate::fs::directory_of;

/// The mode of a PID file's lock, as in Kea.
const LOCK_MODE: u32 = 0o600;

/// Opens a lock's file, and creates it if it does not exist.
///
/// A symbolic link is refused: the file is to be removed again, and the file that is locked must be
/// the one that has the name.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    loop {
        // Readable and empty: a process that gets the file as its standard input finds nothing to
        // read.
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
            // The holder has removed the file meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
}

/// Gives a lock's file that the superuser has created to the owner of the directory. If this
/// process is killed, the file that is left must not keep a server that runs as another user from
/// the lock.
fn give_to_owner_of_directory(file: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(directory) = std::fs::metadata(directory_of(path)) {
        // The lock works without it.
        let _ = std::os::unix::fs::fchown(file, Some(directory.uid()), Some(directory.gid()));
    }
}

/// A lock that can be passed to a process, as its standard input.
///
/// The lock is held until this is dropped. After [`leave`](Self::leave), or if this process ends,
/// it is held as long as another process has the descriptor, or a copy of it.
#[derive(Debug)]
pub struct ProcessLock(LockGuard);

impl ProcessLock {
    pub(super) fn new(guard: LockGuard) -> Self {
        Self(guard)
    }

    /// Returns the descriptor for the process: an empty file, which holds the lock.
    ///
    /// # Errors
    /// Returns the error of the operating system if there is no free descriptor.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.file.try_clone().map(OwnedFd::from)
    }

    /// Leaves the lock to the process that has the descriptor, which holds it until it ends.
    pub fn leave(mut self) {
        self.0.is_left = true;
    }
}

#[derive(Debug)]
pub(super) struct LockGuard {
    file: File,
    path: PathBuf,
    /// Whether another process continues to hold the lock.
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

    /// Takes the lock of a file. Returns `None` if it is held.
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

    /// Makes the guard of a locked file. Returns `None` if the previous holder has removed or
    /// replaced the file, which makes the lock void.
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
        // Removed while still locked, so that the file of another holder is never removed. If
        // removal fails, the file that is left is harmless.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
