//! Writing all leases of a manager at once.

use std::path::Path;

use super::LeaseFileError;
use super::row::FileLease;
use crate::fs::{FileSystem, WriteFile, attributes_of, create_in_place_of, folder_of};
use crate::lease_mgr::LeaseMgrError;

/// Writes leases, page by page, into a file of this name: into another one beside it first, which gets the name when it
/// is complete and durable. A file that is replaced leaves it its owner, group and mode.
pub(crate) fn write_snapshot<L: FileLease>(
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
        fs.sync_folder(folder_of(path)).map_err(failed(path, "sync the folder of"))?;
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
