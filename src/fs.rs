//! The file operations of the journal and of the cleanup.
//!
//! All of them go through [`FileSystem`], so that tests can make any one of them fail, and can
//! discard what was never synced. [`OsFileSystem`] is the file system of the operating system,
//! [`Memory`] keeps files in memory, and the module `simulated` (feature `simulated-disk`) is a
//! disk that fails and loses power.

mod attributes;
mod file_system;
mod memory;
mod os;
#[cfg(any(test, feature = "simulated-disk"))]
pub mod simulated;
mod transfer;

use std::io;
use std::path::Path;

pub use attributes::{Attributes, OwnerNotKept};
pub use file_system::{FileSystem, ReadFile, WriteFile};
pub use memory::Memory;
pub use os::{OsFileSystem, ProcessLock};
pub(crate) use os::{create_file, open_file};
pub(crate) use transfer::{copy_range, read_full, retry, write_full};

/// Creates a file that is to replace one with these attributes, if there was one.
pub(crate) fn create_in_place_of(
    fs: &dyn FileSystem,
    path: &Path,
    attributes: Option<&Attributes>,
) -> io::Result<Box<dyn WriteFile>> {
    attributes.map_or_else(|| fs.create(path), |attributes| fs.create_like(path, attributes))
}

/// Returns the attributes of the first of these files that exists.
pub(crate) fn attributes_of(fs: &dyn FileSystem, paths: &[&Path]) -> io::Result<Option<Attributes>> {
    for path in paths {
        match fs.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => return file?.attributes(),
        }
    }
    Ok(None)
}

/// Returns the directory that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Returns the error of [`WriteFile::write_at`] on a file opened by [`FileSystem::open_append`].
fn opened_to_append() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the file was opened to append to it")
}

/// Converts a length or an offset in a file, if a `Vec` can have it.
fn in_memory(at: u64) -> io::Result<usize> {
    isize::try_from(at).map(isize::cast_unsigned).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
