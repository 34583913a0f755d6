//! Loading the leases from the files of a server.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::OpenError;
use super::cleanup::running_cleanup;
use super::record::pack;
use super::storage::{NoRoom, Storage};
use crate::fs::{FileSystem, folder_of};
use crate::lease_file::{Conversion, LeaseFileError, LeaseFileSet, ReadError};
use crate::lease_mgr::ManagedLease;
use crate::lfc::{Cleanup, LfcError};

/// What was loaded.
pub(super) struct Loaded<L: ManagedLease> {
    pub(super) storage: Storage<L>,
    /// Whether a cleanup should bring files into the current schema.
    pub(super) needs_conversion: bool,
    /// While this is held, nobody else opens the files.
    pub(super) owner: Box<dyn Send + Sync>,
}

/// Loads the leases, when nobody else has the files.
pub(super) fn load<L: ManagedLease>(
    mut storage: Storage<L>,
    files: &LeaseFileSet,
    fs: &dyn FileSystem,
    max_row_errors: Option<u64>,
) -> Result<Loaded<L>, OpenError> {
    let io = |path: &Path, action| {
        let path = path.to_owned();
        move |source| LeaseFileError::Io { path, action, source }
    };
    let lock = files.lock();
    let Some(owner) = fs.try_lock(&lock).map_err(io(&lock, "lock"))? else {
        return Err(OpenError::Owned { path: files.current().to_owned(), lock });
    };
    let pid_file = files.pid();
    if let Some(pid) = running_cleanup(fs, &pid_file).map_err(io(&pid_file, "read"))? {
        return Err(OpenError::CleanupRunning { path: files.current().to_owned(), pid });
    }
    let mut bad_rows = 0;
    let mut needs_conversion = false;
    let mut convert_current = false;
    for (file, path) in files.open_for_loading::<L>(fs)? {
        let mut reader = crate::lease_file::read_file::<L>(file.as_ref(), &path)?;
        if reader.header().conversion != Conversion::None {
            let (version, current) = (reader.header().version, L::SCHEMA.version());
            warn!(
                id = "DHCPSRV_MEMFILE_CONVERTING",
                "{} has schema version {version}, it is converted to {current}",
                path.display()
            );
            needs_conversion = true;
            convert_current |= path == files.current();
        }
        let mut record = Vec::new();
        while let Some(row) = reader.next() {
            match row {
                Ok(parsed) => {
                    if let Some(dropped) = &parsed.dropped {
                        warn!(
                            id = "DHCPSRV_MEMFILE_HWADDR_DROPPED",
                            "{}: line {}: the lease is kept without its hardware address: {dropped}",
                            path.display(),
                            reader.line()
                        );
                    }
                    if parsed.deletes() {
                        storage.load_deletion(parsed.lease.key());
                    } else {
                        pack(&parsed.lease, &mut record);
                        let no_room = |NoRoom| OpenError::NoRoom { path: path.clone() };
                        storage.load(&record).map_err(no_room)?;
                    }
                }
                Err(ReadError::Row(error)) => {
                    warn!(id = "DHCPSRV_MEMFILE_BAD_ROW", "{}: {error}, the row is skipped", path.display());
                    bad_rows += 1;
                    if let Some(limit) = max_row_errors.filter(|&limit| bad_rows > limit) {
                        return Err(OpenError::TooManyBadRows { path, limit, last: error });
                    }
                }
                Err(ReadError::File(error)) => return Err(error.into()),
            }
        }
        let stats = reader.stats();
        info!(
            id = "DHCPSRV_MEMFILE_LOADED",
            "{}: {} rows, {} bad ones",
            path.display(),
            stats.leases,
            stats.bad_rows
        );
    }
    storage.build_indexes();
    if convert_current {
        put_aside::<L>(files, fs)?;
    }
    Ok(Loaded { storage, needs_conversion, owner })
}

/// Makes a journal of another schema the input of a cleanup: rows of this schema cannot be appended to it.
fn put_aside<L: ManagedLease>(files: &LeaseFileSet, fs: &dyn FileSystem) -> Result<(), OpenError> {
    let failed = |path: PathBuf| move |source: LfcError| OpenError::Conversion { path, source };
    let exists = |path: &Path| match fs.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LeaseFileError::Io { path: path.to_owned(), action: "open", source }),
    };
    let (current, input) = (files.current(), files.input());
    if exists(&input)? || exists(&files.finish())? {
        // An earlier cleanup was interrupted; its files are in the way.
        let cleanup = Cleanup::new(L::FAMILY, files.lfc_files()).file_system(fs);
        cleanup.run().map_err(failed(current.to_owned()))?;
    }
    let rename = || {
        fs.rename(current, &input)?;
        fs.sync_folder(folder_of(current))
    };
    rename().map_err(|source| {
        LeaseFileError::Io { path: current.to_owned(), action: "rename for its conversion", source }.into()
    })
}
