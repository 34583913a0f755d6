//! The file operations of the journal and of the cleanup.
//!
//! All of them go through [`FileSystem`], so that tests can let any one of them fail, and can
//! forget what was never synced. [`OsFileSystem`] is the real thing.

#[cfg(test)]
pub(crate) mod memory;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The mode of files that are created: no access for others (less what the umask takes away).
pub(crate) const FILE_MODE: u32 = 0o640;
/// The mode of a PID file's lock, as in Kea.
const LOCK_MODE: u32 = 0o600;

/// The file operations that a lease store needs.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`File::open`]; above all [`io::ErrorKind::NotFound`].
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Creates a file that must not exist, for writing. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`OpenOptions::create_new`]; above all [`io::ErrorKind::AlreadyExists`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Gives a file another name, in place of a file of that name.
    ///
    /// # Errors
    /// As [`std::fs::rename`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As [`std::fs::remove_file`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the content of a file durable that somebody else has written.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable, as they are now.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Waits for the exclusive advisory lock of a file, which is created for it, and holds it until the
    /// guard is dropped. Then the file is removed.
    ///
    /// # Errors
    /// As opening and [`File::lock`].
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>>;
}

/// An open file to read from.
pub trait ReadFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As [`File::metadata`].
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
    /// As [`FileExt::read_at`].
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// What tells this file from every other, whatever its name.
    ///
    /// # Errors
    /// As [`File::metadata`].
    fn identity(&self) -> io::Result<(u64, u64)>;
}

/// An open file to append to.
pub trait WriteFile: Send + Sync {
    /// Writes all bytes behind those already there.
    ///
    /// # Errors
    /// As [`io::Write::write_all`]; some of the bytes may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// As [`File::sync_data`]. After an error it is not known what of the file is durable.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `buffer` is full or the file ends, and tells how many bytes that were.
///
/// # Errors
/// As [`ReadFile::read_at`].
pub(crate) fn read_full(file: &dyn ReadFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        loop {
            let file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(LOCK_MODE).open(path)?;
            file.lock()?;
            // Whoever held the lock before removed the file: then this lock is on a file without a name.
            match std::fs::symlink_metadata(path) {
                Ok(named) if named.ino() == file.metadata()?.ino() => {
                    return Ok(Box::new(LockGuard { file, path: path.to_owned() }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct LockGuard {
    file: File,
    path: PathBuf,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // Removed while it is still locked, so that nobody else's file is. Left over, it harms nobody.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

impl ReadFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl WriteFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut &*self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
