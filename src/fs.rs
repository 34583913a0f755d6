//! The file operations of the journal and of the cleanup.
//!
//! All of them go through [`FileSystem`], so that tests can let any one of them fail, and can
//! forget what was never synced. [`OsFileSystem`] is the real thing, [`Memory`] keeps files in memory, and the module `simulated`
//! (feature `simulated-disk`) is a disk that fails and loses its power.

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

/// Creates a file that is to take the place of one with these attributes, or of none.
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

/// The folder that a file is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The error of [`WriteFile::write_at`] on a file that was opened by [`FileSystem::open_append`].
fn opened_to_append() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the file was opened to append to it")
}

/// A length or a place in a file, if it is one that a `Vec` can have.
fn in_memory(at: u64) -> io::Result<usize> {
    isize::try_from(at).map(isize::cast_unsigned).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
