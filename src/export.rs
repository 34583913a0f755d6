//! Writing all leases of a lease manager, whatever keeps them, into a file in the lease file format.

use std::path::Path;

use crate::fs::{FileSystem, OsFileSystem, WriteFile, attributes_of, create_in_place_of, directory_of};
use crate::lease_file::{FileLease, LeaseFileError};
use crate::lease_mgr::{LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease, Query};

/// Number of leases that are read at a time.
const PAGE: usize = 1000;

/// Writes leases to files. Implemented for everything that is a [`LeaseMgr`].
pub trait WriteLeases<L: ManagedLease + FileLease>: LeaseMgr<L> {
    /// Writes all leases into a file in the lease file format, in place of a file of that name, and returns the number of
    /// leases. A process that opens the name finds the old content or the new one, never a part. A symbolic link
    /// is replaced, not followed, unless it leads to the manager's own lease file.
    ///
    /// The manager's own lease file is written anew, and further changes go there ([`LeaseMgr::write_own_file`]).
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Backend`] with a [`LeaseFileError`] if the file cannot be written, the old file stays then;
    /// [`LeaseMgrError::OwnFile`] if it is another file that the manager keeps for itself; and others if the leases cannot be read.
    fn write_to(&self, path: &Path) -> Result<u64, LeaseMgrError> {
        self.write_with(&OsFileSystem, path)
    }

    /// As [`WriteLeases::write_to`], through these file operations.
    ///
    /// # Errors
    /// As [`WriteLeases::write_to`].
    fn write_with(&self, fs: &dyn FileSystem, path: &Path) -> Result<u64, LeaseMgrError> {
        if let Some(count) = self.write_own_file(path)? {
            return Ok(count);
        }
        write_snapshot(fs, path, self.pages(Query::all(), PAGE))
    }
}

impl<L: ManagedLease + FileLease, M: LeaseMgr<L> + ?Sized> WriteLeases<L> for M {}

/// Writes leases, page by page, into a file of this name: into another one beside it first, which gets the name when it
/// is complete and durable. A file that is replaced leaves it its owner, group and mode.
fn write_snapshot<L: FileLease>(
    fs: &dyn FileSystem,
    path: &Path,
    pages: impl Iterator<Item = Result<Vec<L>, LeaseMgrError>>,
) -> Result<u64, LeaseMgrError> {
    let failed = |path: &Path, action| {
        let path = path.to_owned();
        move |source| LeaseFileError::Io { path, action, source }
    };
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    // Left by one that was interrupted, it is of no use.
    let _ = fs.remove(part);
    // What a link leads to that may not be followed is another user's: it is replaced as it stands.
    let attributes = match fs.resolve(path) {
        Ok(_) => attributes_of(fs, &[path]).map_err(failed(path, "look at"))?,
        Err(_) => None,
    };
    let file = create_in_place_of(fs, part, attributes.as_ref()).map_err(failed(part, "create"))?;
    let write = || {
        let count = write_pages(file.as_ref(), pages, failed(part, "write"))?;
        file.sync().map_err(failed(part, "sync"))?;
        fs.rename(part, path).map_err(failed(path, "replace"))?;
        fs.sync_directory(directory_of(path)).map_err(failed(path, "sync the folder of"))?;
        Ok(count)
    };
    write().inspect_err(|_| {
        let _ = fs.remove(part);
    })
}

fn write_pages<L: FileLease>(
    file: &dyn WriteFile,
    pages: impl Iterator<Item = Result<Vec<L>, LeaseMgrError>>,
    failed: impl FnOnce(std::io::Error) -> LeaseFileError,
) -> Result<u64, LeaseMgrError> {
    let mut text = L::SCHEMA.header.as_bytes().to_vec();
    text.push(b'\n');
    let mut count = 0;
    for page in pages {
        for lease in page? {
            lease.write_row(&mut text);
            count += 1;
        }
        if let Err(error) = file.append(&text) {
            return Err(failed(error).into());
        }
        text.clear();
    }
    Ok(count)
}
