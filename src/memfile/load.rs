//! Loading the leases from the files of a server.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use parking_lot::Mutex;
use tracing::{info, warn};

use super::OpenError;
use super::cleanup::running_cleanup;
use super::record::pack;
use super::storage::{NoRoom, Storage};
use crate::fs::{FileSystem, folder_of};
use crate::lease_file::{Conversion, LeaseFileError, LeaseFileSet, ReadError, Reader, RowError, is_begun};
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
    let running = running_cleanup(fs, &files.pid()).map_err(LeaseFileError::from)?;
    if let Some(running) = running {
        let pid = running.pid().unwrap_or_default();
        return Err(OpenError::CleanupRunning { path: files.current().to_owned(), pid, running });
    }
    let mut bad_rows = BadRows { count: 0, limit: max_row_errors };
    let mut needs_conversion = false;
    let mut convert_current = false;
    for (file, path) in files.open_for_loading::<L>(fs)? {
        if path == files.current() && is_begun::<L>(file.as_ref()).map_err(io(&path, "read"))? {
            warn!(
                id = "DHCPSRV_MEMFILE_TORN_HEADER",
                "{}: its header is cut off, and there is nothing behind it; it is begun anew",
                path.display()
            );
            fs.open_write(&path).and_then(|file| file.set_len(0)).map_err(io(&path, "empty"))?;
            continue;
        }
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
        load_rows(&mut reader, &path, &mut storage, &mut bad_rows)?;
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

/// How many rows were no leases, in all files.
struct BadRows {
    count: u64,
    limit: Option<u64>,
}

impl BadRows {
    fn add(&mut self, path: &Path, error: RowError) -> Result<(), OpenError> {
        warn!(id = "DHCPSRV_MEMFILE_BAD_ROW", "{}: {error}, the row is skipped", path.display());
        self.count += 1;
        match self.limit {
            Some(limit) if self.count > limit => {
                Err(OpenError::TooManyBadRows { path: path.to_owned(), limit, last: error })
            }
            _ => Ok(()),
        }
    }
}

/// What a row says, for the storage.
enum Row<K> {
    /// A lease, packed into so many bytes.
    Lease(usize),
    Deletion(K),
    Bad(RowError),
    /// The lease of the next row is without its hardware address, for this reason.
    Dropped(RowError),
}

/// Rows that are handed over together.
struct Batch<K> {
    rows: Vec<Row<K>>,
    records: Vec<u8>,
}

impl<K> Batch<K> {
    const ROWS: usize = 1024;

    fn new() -> Self {
        Self { rows: Vec::with_capacity(Self::ROWS), records: Vec::new() }
    }
}

/// Loads the rows of a file. One thread reads them while another puts them into the storage, if there are two to be had.
fn load_rows<L: ManagedLease, R: Read + Send>(
    reader: &mut Reader<L, R>,
    path: &Path,
    storage: &mut Storage<L>,
    bad_rows: &mut BadRows,
) -> Result<(), OpenError> {
    /// So many batches may wait.
    const WAITING: usize = 8;
    let (sender, receiver) = mpsc::sync_channel::<Batch<L::Key>>(WAITING);
    let reader = Mutex::new(reader);
    std::thread::scope(|scope| {
        let read = || {
            let sender = sender;
            read_rows(&mut reader.lock(), |batch| sender.send(batch).is_ok())
        };
        let Ok(thread) = std::thread::Builder::new().spawn_scoped(scope, read) else {
            let mut result = Ok(());
            read_rows(&mut reader.lock(), |batch| {
                result = apply(&batch, path, storage, bad_rows);
                result.is_ok()
            })?;
            return result;
        };
        receiver.into_iter().try_for_each(|batch| apply(&batch, path, storage, bad_rows))?;
        Ok(thread.join().map_err(|_| OpenError::Panicked)??)
    })
}

/// Reads all rows, and gives them away in batches until that is refused.
fn read_rows<L: ManagedLease, R: Read>(
    reader: &mut Reader<L, R>,
    mut give: impl FnMut(Batch<L::Key>) -> bool,
) -> Result<(), LeaseFileError> {
    let mut batch = Batch::new();
    let mut record = Vec::new();
    while let Some(row) = reader.next() {
        match row {
            Ok(parsed) => {
                if let Some(problem) = parsed.dropped.clone() {
                    batch.rows.push(Row::Dropped(RowError { line: reader.line(), problem }));
                }
                if parsed.deletes() {
                    batch.rows.push(Row::Deletion(parsed.lease.key()));
                } else {
                    pack(&parsed.lease, &mut record);
                    batch.records.extend_from_slice(&record);
                    batch.rows.push(Row::Lease(record.len()));
                }
            }
            Err(ReadError::Row(error)) => batch.rows.push(Row::Bad(error)),
            Err(ReadError::File(error)) => return Err(error),
        }
        if batch.rows.len() >= Batch::<L::Key>::ROWS && !give(std::mem::replace(&mut batch, Batch::new())) {
            return Ok(());
        }
    }
    give(batch);
    Ok(())
}

/// Puts rows into the storage.
fn apply<L: ManagedLease>(
    batch: &Batch<L::Key>,
    path: &Path,
    storage: &mut Storage<L>,
    bad_rows: &mut BadRows,
) -> Result<(), OpenError> {
    let mut records = &batch.records[..];
    for row in &batch.rows {
        match row {
            Row::Lease(len) => {
                let (record, rest) = records.split_at(*len);
                records = rest;
                storage.load(record).map_err(|NoRoom| OpenError::NoRoom { path: path.to_owned() })?;
            }
            Row::Deletion(key) => storage.load_deletion(*key),
            Row::Bad(error) => bad_rows.add(path, error.clone())?,
            Row::Dropped(error) => warn!(
                id = "DHCPSRV_MEMFILE_HWADDR_DROPPED",
                "{}: {error}, the lease is kept without its hardware address",
                path.display()
            ),
        }
    }
    Ok(())
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
