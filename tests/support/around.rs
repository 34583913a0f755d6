//! The files of the operating system, and what a test puts around those that are opened.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use leasemgr::fs::{Attributes, FileSystem, OsFileSystem, ReadFile, WriteFile};

/// Puts something around files.
pub(crate) trait Around: fmt::Debug + Send + Sync {
    /// Around one that is opened to be read.
    fn around_read(&self, file: Box<dyn ReadFile>) -> Box<dyn ReadFile> {
        file
    }

    /// Around one that is created, or opened to be written.
    fn around_write(&self, file: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        file
    }
}

/// The file system of the operating system, with this around its files.
#[derive(Debug)]
pub(crate) struct Surrounded<A>(pub(crate) A);

impl<A: Around> FileSystem for Surrounded<A> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(self.0.around_read(OsFileSystem.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.around_write(OsFileSystem.create(path)?))
    }

    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.around_write(OsFileSystem.create_like(path, attributes)?))
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        OsFileSystem.set_attributes(path, attributes)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.around_write(OsFileSystem.open_write(path)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.around_write(OsFileSystem.open_append(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFileSystem.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFileSystem.link(from, to)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        OsFileSystem.resolve(path)
    }

    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        OsFileSystem.is_same_name(one, other)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.remove(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.sync_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        OsFileSystem.sync_folder(folder)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        OsFileSystem.lock(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        OsFileSystem.try_lock(path)
    }
}
