//! The files of the operating system.

mod lock;
mod open;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lock::LockGuard;
pub use lock::ProcessLock;
pub(crate) use open::{create_file, open_file};
use open::{follow, identity};

use super::attributes::{self, Attributes};
use super::{FileSystem, ReadFile, WriteFile, directory_of, retry};

/// The file system of the operating system.
///
/// Files are created with mode 0640 (a PID file's lock with 0600), less the umask, and never
/// through a symbolic link. A file that replaces another ([`FileSystem::create_like`]) takes over
/// its owner and group, as far as the process may, its permissions, whatever the umask is, its
/// POSIX ACL and its SELinux label.
///
/// Only regular files are opened. The name may be a symbolic link to one, if the link is owned by
/// the superuser, by the user of this process, or by the owner of the directory that the link is
/// in; any other link is a [`PermissionDenied`](io::ErrorKind::PermissionDenied) error. A lock's
/// file may not be a link at all. Links to directories on the way to a file are followed as the
/// kernel does it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(open_file(path, OpenOptions::new().read(true))?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(create_file(path, OpenOptions::new().write(true))?))
    }

    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let mut options = OpenOptions::new();
        // Access for the owner alone, until the file has its owner and group.
        let file = options.write(true).create_new(true).mode(attributes.mode & 0o600).open(path)?;
        match attributes::give(&file, attributes) {
            Ok(()) => Ok(Box::new(file)),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        attributes::give(&open_file(path, OpenOptions::new().read(true))?, attributes)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(open_file(path, OpenOptions::new().write(true))?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(AppendFile(open_file(path, OpenOptions::new().append(true))?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        follow(path).map(|(path, _)| path)
    }

    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let directory = |path| std::fs::metadata(directory_of(path)).map(|metadata| identity(&metadata));
        Ok(one == other || (one.file_name() == other.file_name() && directory(one)? == directory(other)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        open_file(path, OpenOptions::new().read(true))?.sync_all()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(LockGuard::take(path)?))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(LockGuard::try_take(path)?.map(|guard| Box::new(guard) as _))
    }

    fn try_lock_for_process(&self, path: &Path) -> io::Result<Option<ProcessLock>> {
        Ok(LockGuard::try_take(path)?.map(ProcessLock::new))
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
        Ok(identity(&self.metadata()?))
    }

    fn attributes(&self) -> io::Result<Option<Attributes>> {
        Attributes::of(self).map(Some)
    }
}

impl WriteFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, self.metadata()?.len())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        // `pwrite` of the C library is a cancellation point, which makes each call slower.
        Ok(rustix::io::pwrite(self, bytes, at)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file in append mode.
struct AppendFile(File);

impl WriteFile for AppendFile {
    fn append(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match retry(|| Ok(rustix::io::write(&self.0, bytes)?))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(super::opened_to_append())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
