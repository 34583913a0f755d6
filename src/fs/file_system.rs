//! The file operations of the journal and of the cleanup, as traits.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Attributes, ProcessLock};

/// The file operations that a lease store needs.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// Returns the errors of [`File::open`](std::fs::File::open), above all
    /// [`io::ErrorKind::NotFound`].
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Creates a file that must not exist, for writing. A symbolic link is not followed.
    ///
    /// # Errors
    /// Returns the errors of [`OpenOptions::create_new`](std::fs::OpenOptions::create_new), above
    /// all [`io::ErrorKind::AlreadyExists`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Creates a file that must not exist, for writing, with the attributes of a file that it is to
    /// replace. From its creation on, no user has more rights to it than to that file.
    ///
    /// A group, an ACL or a label that cannot be kept is logged. A file system without owners may
    /// keep the default.
    ///
    /// # Errors
    /// Returns the errors of [`FileSystem::create`], and [`OwnerNotKept`](super::OwnerNotKept)
    /// (within an error of kind [`PermissionDenied`](io::ErrorKind::PermissionDenied)) if the file
    /// cannot have the owner and that user could not read it. The file then does not exist.
    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let _ = attributes;
        self.create(path)
    }

    /// Gives a file the attributes of one that it is to replace, as far as
    /// [`FileSystem::create_like`] does.
    ///
    /// # Errors
    /// Returns the errors of [`FileSystem::create_like`], above all [`io::ErrorKind::NotFound`].
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let _ = (path, attributes);
        Ok(())
    }

    /// Opens a file that exists, for writing.
    ///
    /// # Errors
    /// Returns the errors of [`OpenOptions::open`](std::fs::OpenOptions::open), above all
    /// [`io::ErrorKind::NotFound`].
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file that exists, to append to it: [`WriteFile::append`] writes at the end of the
    /// file, also when other processes have changed its length. [`WriteFile::write_at`] fails.
    ///
    /// # Errors
    /// Returns the errors of [`OpenOptions::open`](std::fs::OpenOptions::open), above all
    /// [`io::ErrorKind::NotFound`].
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Renames a file, and replaces a file that has the new name.
    ///
    /// # Errors
    /// Returns the errors of [`std::fs::rename`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name (a hard link), which must not exist. A symbolic link is not
    /// followed.
    ///
    /// # Errors
    /// Returns the errors of [`std::fs::hard_link`]; [`io::ErrorKind::Unsupported`] or another
    /// error if the file system has no hard links.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the name of the file that a name stands for, by symbolic links that may be followed.
    /// Neither the name nor the target of the links need exist.
    ///
    /// # Errors
    /// Returns an error if a link may not be followed or cannot be read.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Returns whether two names are the same name in the same directory, whatever the path of the
    /// directory. The files need not exist, and links of these names are not followed.
    ///
    /// # Errors
    /// Returns an error if the attributes of a directory cannot be read.
    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        Ok(one == other)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Returns the errors of [`std::fs::remove_file`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the content of a file durable that another process has written.
    ///
    /// # Errors
    /// Returns the errors of [`File::sync_all`](std::fs::File::sync_all).
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable, as they are now.
    ///
    /// # Errors
    /// Returns the errors of [`File::sync_all`](std::fs::File::sync_all).
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Waits for the exclusive advisory lock of a file, which is created for it, and holds the lock
    /// until the guard is dropped. Then the file is removed.
    ///
    /// # Errors
    /// Returns the errors of opening and of [`File::lock`](std::fs::File::lock).
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>>;

    /// Takes the lock as [`FileSystem::lock`] does, but without waiting. Returns `None` if another
    /// thread or process holds the lock.
    ///
    /// # Errors
    /// Returns the errors of opening and of [`File::try_lock`](std::fs::File::try_lock).
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// Takes the lock as [`FileSystem::try_lock`] does, for a process that is about to be started:
    /// the lock is held until the guard is dropped, or, if this process ends before that, until no
    /// process has a descriptor of the lock.
    ///
    /// # Errors
    /// Returns the errors of [`FileSystem::try_lock`], and [`io::ErrorKind::Unsupported`] if no
    /// other process can hold a lock of this file system, which is the default.
    fn try_lock_for_process(&self, path: &Path) -> io::Result<Option<ProcessLock>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An open file to read from.
pub trait ReadFile: Send + Sync {
    /// Returns the length in bytes.
    ///
    /// # Errors
    /// Returns the errors of [`File::metadata`](std::fs::File::metadata).
    fn len(&self) -> io::Result<u64>;

    /// Returns whether the file has no bytes.
    ///
    /// # Errors
    /// Returns the errors of [`ReadFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at most `buffer.len()` bytes from byte `at` on. Returns the number of bytes, 0 at the
    /// end.
    ///
    /// # Errors
    /// Returns the errors of [`FileExt::read_at`](std::os::unix::fs::FileExt::read_at).
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Returns what distinguishes this file from every other, whatever its name.
    ///
    /// # Errors
    /// Returns the errors of [`File::metadata`](std::fs::File::metadata).
    fn identity(&self) -> io::Result<(u64, u64)>;

    /// Returns the attributes, for a file that is to replace this one; `None` if files have no
    /// owners.
    ///
    /// # Errors
    /// Returns the errors of [`File::metadata`](std::fs::File::metadata).
    fn attributes(&self) -> io::Result<Option<Attributes>> {
        Ok(None)
    }
}

/// An open file to write to.
pub trait WriteFile: Send + Sync {
    /// Writes all bytes after the existing ones.
    ///
    /// # Errors
    /// Returns the errors of [`io::Write::write_all`]; some of the bytes may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Writes bytes over those from byte `at` on, and beyond the end. Returns the number of bytes
    /// written.
    ///
    /// # Errors
    /// Returns the errors of [`FileExt::write_at`](std::os::unix::fs::FileExt::write_at).
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Truncates the file after byte `len`.
    ///
    /// # Errors
    /// Returns the errors of [`File::set_len`](std::fs::File::set_len).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the written bytes and the length durable.
    ///
    /// # Errors
    /// Returns the errors of [`File::sync_data`](std::fs::File::sync_data). After an error it is
    /// unknown which bytes of the file are durable.
    fn sync(&self) -> io::Result<()>;
}
