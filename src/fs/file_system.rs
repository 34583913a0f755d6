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
    /// As [`File::open`](std::fs::File::open); above all [`io::ErrorKind::NotFound`].
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Creates a file that must not exist, for writing. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`OpenOptions::create_new`](std::fs::OpenOptions::create_new); above all [`io::ErrorKind::AlreadyExists`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Creates a file that must not exist, for writing, with the attributes of a file whose place it is to take. From its
    /// creation on, no user may do more with it than with that file.
    ///
    /// A group, an ACL or a label that cannot be kept is logged. A file system without owners may leave this as it is.
    ///
    /// # Errors
    /// As [`FileSystem::create`], and [`OwnerNotKept`](super::OwnerNotKept) (within an error of kind
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied)) if the file cannot have the owner and that user could not
    /// read it. Then there is no file.
    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let _ = attributes;
        self.create(path)
    }

    /// Gives a file the attributes of one whose place it is to take, as far as [`FileSystem::create_like`] does.
    ///
    /// # Errors
    /// As [`FileSystem::create_like`]; above all [`io::ErrorKind::NotFound`].
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let _ = (path, attributes);
        Ok(())
    }

    /// Opens a file that exists, for writing.
    ///
    /// # Errors
    /// As [`OpenOptions::open`](std::fs::OpenOptions::open); above all [`io::ErrorKind::NotFound`].
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file that exists, to append to it: [`WriteFile::append`] writes at the end of the file, wherever
    /// other processes have put that meanwhile. [`WriteFile::write_at`] is an error.
    ///
    /// # Errors
    /// As [`OpenOptions::open`](std::fs::OpenOptions::open); above all [`io::ErrorKind::NotFound`].
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Gives a file another name, in place of a file of that name.
    ///
    /// # Errors
    /// As [`std::fs::rename`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name (a hard link), which must not exist. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`std::fs::hard_link`]. Where there are no such links, [`io::ErrorKind::Unsupported`] or another error.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the name of the file that a name stands for, by symbolic links that may be followed. The file need
    /// not exist, be it of the name itself or at the end of the links.
    ///
    /// # Errors
    /// Returns an error if a link may not be followed or cannot be read.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Returns whether two names are one: the same name in the same directory, however the directory is called. The
    /// files need not exist, and links of these names are not followed.
    ///
    /// # Errors
    /// Returns an error if a directory cannot be looked at.
    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        Ok(one == other)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As [`std::fs::remove_file`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the content of a file durable that somebody else has written.
    ///
    /// # Errors
    /// As [`File::sync_all`](std::fs::File::sync_all).
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable, as they are now.
    ///
    /// # Errors
    /// As [`File::sync_all`](std::fs::File::sync_all).
    fn sync_directory(&self, folder: &Path) -> io::Result<()>;

    /// Waits for the exclusive advisory lock of a file, which is created for it, and holds it until the
    /// guard is dropped. Then the file is removed.
    ///
    /// # Errors
    /// As opening and [`File::lock`](std::fs::File::lock).
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>>;

    /// As [`FileSystem::lock`], but without waiting: `None` if somebody else holds the lock, in this process or
    /// another.
    ///
    /// # Errors
    /// As opening and [`File::try_lock`](std::fs::File::try_lock).
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// As [`FileSystem::try_lock`], for a process that is about to be started: the lock is held until the guard is dropped, or, if
    /// this process ends before that, until no process has a descriptor of the lock any more.
    ///
    /// # Errors
    /// As [`FileSystem::try_lock`]. Returns [`io::ErrorKind::Unsupported`] if no other process can hold a lock of this file system, as
    /// it does unless implemented.
    fn try_lock_for_process(&self, path: &Path) -> io::Result<Option<ProcessLock>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An open file to read from.
pub trait ReadFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As [`File::metadata`](std::fs::File::metadata).
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As [`ReadFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at most `buffer.len()` bytes from byte `at` on; 0 at the end.
    ///
    /// # Errors
    /// As [`FileExt::read_at`](std::os::unix::fs::FileExt::read_at).
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// What tells this file from every other, whatever its name.
    ///
    /// # Errors
    /// As [`File::metadata`](std::fs::File::metadata).
    fn identity(&self) -> io::Result<(u64, u64)>;

    /// Its owner, group and mode, for a file that is to take its place; `None` where files have no owners.
    ///
    /// # Errors
    /// As [`File::metadata`](std::fs::File::metadata).
    fn attributes(&self) -> io::Result<Option<Attributes>> {
        Ok(None)
    }
}

/// An open file to write to.
pub trait WriteFile: Send + Sync {
    /// Writes all bytes behind those already there.
    ///
    /// # Errors
    /// As [`io::Write::write_all`]; some of the bytes may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Writes bytes over those from byte `at` on, or behind the last one, and tells how many of them it has written.
    ///
    /// # Errors
    /// As [`FileExt::write_at`](std::os::unix::fs::FileExt::write_at).
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Cuts the file off behind byte `len`.
    ///
    /// # Errors
    /// As [`File::set_len`](std::fs::File::set_len).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length.
    ///
    /// # Errors
    /// As [`File::sync_data`](std::fs::File::sync_data). After an error it is not known what of the file is durable.
    fn sync(&self) -> io::Result<()>;
}
