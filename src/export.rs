//! Writing all leases of a lease manager, with any backend, to a file in the lease file format.

use std::iter;
use std::path::Path;

use crate::fs::{FileSystem, OsFileSystem, WriteFile, attributes_of, create_in_place_of, directory_of};
use crate::lease_file::{FileLease, LeaseFileError};
use crate::lease_mgr::{LeaseMgr, LeaseMgrError, ManagedLease};

/// Number of leases that are read at a time.
const PAGE: usize = 1000;

/// Writes leases to files. Implemented for everything that is a [`LeaseMgr`].
pub trait WriteLeases<L: ManagedLease + FileLease>: LeaseMgr<L> {
    /// Writes all leases to a file in the lease file format, in the order of
    /// [`LeaseMgr::scan`], and replaces a file of that name.
    /// Returns the number of leases. A process that opens the name finds the old content or the new
    /// one, never a part. A symbolic link is replaced, not followed, unless it leads to the
    /// manager's own lease file.
    ///
    /// The manager's own lease file is rewritten, and further changes are written to the new file
    /// ([`LeaseMgr::write_own_file`]).
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Backend`] with a [`LeaseFileError`] if the file cannot be written,
    /// and keeps the old file; [`LeaseMgrError::OwnFile`] if it is another file that the manager
    /// uses; and other errors if the leases cannot be read.
    fn write_to(&self, path: &Path) -> Result<u64, LeaseMgrError> {
        self.write_with(&OsFileSystem, path)
    }

    /// Does as [`WriteLeases::write_to`] with these file operations.
    ///
    /// # Errors
    /// Returns the errors of [`WriteLeases::write_to`].
    fn write_with(&self, fs: &dyn FileSystem, path: &Path) -> Result<u64, LeaseMgrError> {
        if let Some(count) = self.write_own_file(path)? {
            return Ok(count);
        }
        write_snapshot(fs, path, scanned(self))
    }
}

impl<L: ManagedLease + FileLease, M: LeaseMgr<L> + ?Sized> WriteLeases<L> for M {}

/// Returns all leases, in pages, in an order that costs the backend least.
fn scanned<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
) -> impl Iterator<Item = Result<Vec<L>, LeaseMgrError>> {
    let (mut cursor, mut is_done) = (None, false);
    iter::from_fn(move || {
        if is_done {
            return None;
        }
        let page = mgr.scan(cursor.as_ref(), PAGE).map(|(leases, next)| {
            cursor = next;
            leases
        });
        is_done = page.is_err() || cursor.is_none();
        Some(page)
    })
}

/// Writes leases, page by page, to a file beside the one of this name, and renames it when it is
/// complete and durable. It takes over the owner, group and mode of a file that it replaces.
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
    // A file left by an interrupted export is of no use.
    let _ = fs.remove(part);
    // A link that may not be followed belongs to another user, and is replaced itself.
    let attributes = match fs.resolve(path) {
        Ok(_) => attributes_of(fs, &[path]).map_err(failed(path, "read the attributes of"))?,
        Err(_) => None,
    };
    let file = create_in_place_of(fs, part, attributes.as_ref()).map_err(failed(part, "create"))?;
    let write = || {
        let count = write_pages(file.as_ref(), pages, failed(part, "write"))?;
        file.sync().map_err(failed(part, "sync"))?;
        fs.rename(part, path).map_err(failed(path, "replace"))?;
        fs.sync_directory(directory_of(path)).map_err(failed(path, "sync the directory of"))?;
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
    // The header is written also if there is no page.
    for page in iter::once(Ok(Vec::new())).chain(pages) {
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
