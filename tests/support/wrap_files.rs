//! A file system whose files are wrapped by a test or a benchmark.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use leasemgr::fs::{Attributes, FileSystem, ReadFile, WriteFile};

/// Wraps files. The provided methods return the file unchanged.
pub(crate) trait WrapFiles: fmt::Debug + Send + Sync {
    /// Wraps a file that is opened for reading.
    fn wrap_read(&self, file: Box<dyn ReadFile>) -> Box<dyn ReadFile> {
        file
    }

    /// Wraps a file that is created or opened for writing.
    fn wrap_write(&self, file: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        file
    }
}

/// A file system whose files are wrapped.
#[derive(Debug)]
pub(crate) struct WrappedFileSystem<A, F>(pub(crate) A, pub(crate) F);

impl<A: WrapFiles, F: FileSystem> FileSystem for WrappedFileSystem<A, F> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(self.0.wrap_read(self.1.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.wrap_write(self.1.create(path)?))
    }

    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.wrap_write(self.1.create_like(path, attributes)?))
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        self.1.set_attributes(path, attributes)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.wrap_write(self.1.open_write(path)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(self.0.wrap_write(self.1.open_append(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.1.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.1.link(from, to)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.1.resolve(path)
    }

    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        self.1.is_same_name(one, other)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.1.remove(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.1.sync_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.1.sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        self.1.lock(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.1.try_lock(path)
    }
}
