//! Loading the leases from the files of a server.

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use parking_lot::Mutex;
use tracing::{info, warn};

use super::sanity::Verdict;
use super::storage::packed_lease::{StoredLease, pack};
use super::storage::{NoRoom, Storage};
use super::{LeaseSanity, MemfileOptions, OpenError};
use crate::first_of_many::FirstOfMany;
use crate::fs::{FileSystem, ReadFile, copy_range, create_in_place_of, directory_of, read_full};
use crate::lease::{ExtendedInfoChecks, ExtendedInfoError, LeaseType, check_extended_info};
use crate::lease_file::{
    Conversion, FileReader, LeaseFileError, LeaseFileSet, ReadError, Reader, RowError, is_begun,
};
use crate::lfc::pid_file::{Claim, Claimed, PidLock};
use crate::lfc::{Cleanup, LfcError};
use crate::parallel::Panicked;

/// The result of loading.
pub(super) struct Loaded<L: StoredLease> {
    pub(super) storage: Storage<L>,
    /// Whether a cleanup has to convert files to the current schema.
    pub(super) needs_conversion: bool,
    /// Whether the lease file has to be rewritten: it has rows, but no valid beginning.
    pub(super) needs_rewrite: bool,
    /// Whether the lease file has invalid rows.
    pub(super) has_invalid_rows: bool,
    /// While these are held, no other process opens the files.
    pub(super) owners: Vec<Box<dyn Send + Sync>>,
}

/// Loads the leases, unless another process uses the files.
pub(super) fn load<L: StoredLease>(
    mut storage: Storage<L>,
    files: &LeaseFileSet,
    options: &MemfileOptions,
    fs: &dyn FileSystem,
) -> Result<Loaded<L>, OpenError> {
    let io = |path: &Path, action| {
        let path = path.to_owned();
        move |source| LeaseFileError::Io { path, action, source }
    };
    let current = files.current_path();
    let target = fs.resolve(current).map_err(io(current, "open"))?;
    let mut owners = Vec::new();
    // The target of a symbolic link may be in use by a manager that was given the target's own
    // name.
    let of_target = (target != current).then(|| LeaseFileSet::new(target));
    for lock in [Some(files.lock_path()), of_target.map(|files| files.lock_path())].into_iter().flatten() {
        let Some(owner) = fs.try_lock(&lock).map_err(|source| match source.kind() {
            ErrorKind::NotFound => {
                OpenError::NoDirectory { path: current.to_owned(), directory: directory_of(&lock).to_owned() }
            }
            _ => io(&lock, "lock")(source).into(),
        })?
        else {
            return Err(OpenError::Owned { path: current.to_owned(), lock });
        };
        owners.push(owner);
    }
    // A running cleanup changes the files, so they are not read.
    drop(claim(fs, files)?);
    let mut needs_conversion = false;
    let mut convert_current = false;
    let mut needs_rewrite = false;
    let mut has_invalid_rows = false;
    for (file, path) in files.open_for_loading::<L>(fs)? {
        if path == files.current_path() && is_begun::<L>(file.as_ref()).map_err(io(&path, "read"))? {
            warn!(
                id = "DHCPSRV_MEMFILE_TORN_HEADER",
                "{}: its header is cut off, and nothing follows it; the file is started again",
                path.display()
            );
            fs.open_write(&path).and_then(|file| file.set_len(0)).map_err(io(&path, "empty"))?;
            continue;
        }
        let header = format!("{}\n", L::SCHEMA.header);
        let lacks_header =
            path == files.current_path() && begins_with_row::<L>(file.as_ref()).map_err(io(&path, "read"))?;
        let header = if lacks_header { header.as_bytes() } else { &[] };
        let rows = header.chain(FileReader::starting_at(file.as_ref(), 0));
        let mut reader = Reader::<L, _>::with_path(rows, &path)?;
        if lacks_header || reader.leading_zeros() > 0 {
            warn!(
                id = "DHCPSRV_MEMFILE_LEASE_FILE_CUT_OFF",
                "{}: another process has cut off its beginning with the header; the rest is read",
                path.display()
            );
            needs_rewrite |= path == files.current_path();
        }
        if reader.header().conversion != Conversion::None {
            let (version, current) = (reader.header().version, L::SCHEMA.version());
            warn!(
                id = "DHCPSRV_MEMFILE_CONVERTING",
                "{}: it has schema version {version}, and is converted to {current}",
                path.display()
            );
            needs_conversion = true;
            convert_current |= path == files.current_path();
        }
        let mut findings = Findings { path: &path, limit: options.max_row_errors, ..Findings::default() };
        load_rows(&mut reader, options.extended_info_checks, &mut storage, &mut findings)?;
        findings.log();
        has_invalid_rows |= path == files.current_path() && findings.invalid_rows.count() > 0;
        let stats = reader.stats();
        info!(
            id = "DHCPSRV_MEMFILE_LOADED",
            "{}: {} rows, {} of them invalid",
            path.display(),
            stats.leases,
            stats.invalid_rows
        );
    }
    if let Some(sanity) = options.lease_sanity.as_ref().filter(|sanity| sanity.is_needed()) {
        check_subnets(&mut storage, sanity, files.current_path())?;
    }
    storage.build_indexes().map_err(|Panicked| OpenError::Panicked)?;
    if convert_current {
        put_aside::<L>(files, fs)?;
    }
    Ok(Loaded { storage, needs_conversion, needs_rewrite, has_invalid_rows, owners })
}

/// Returns whether a file begins with a row instead of the header: another process has emptied it,
/// and this one has appended to it.
fn begins_with_row<L: StoredLease>(file: &dyn ReadFile) -> std::io::Result<bool> {
    const MAX_ROW: usize = 64 * 1024;
    let mut head = vec![0; MAX_ROW];
    let len = read_full(file, &mut head, 0)?;
    let line = head[..len].split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(!line.is_empty() && line[0] != 0 && L::parse_row(line, &L::SCHEMA.current()).is_ok())
}

/// The problems found in a file.
struct Findings<'a> {
    path: &'a Path,
    /// Invalid rows.
    invalid_rows: FirstOfMany,
    /// Rows whose hardware address was dropped.
    dropped: FirstOfMany,
    limit: Option<u64>,
    /// Rows whose extended info was in an old form.
    upgraded: u64,
    /// Rows whose extended info did not pass its checks.
    failed: FirstOfMany,
}

impl Default for Findings<'_> {
    fn default() -> Self {
        let path = Path::new("");
        Self {
            path,
            invalid_rows: FirstOfMany::default(),
            dropped: FirstOfMany::default(),
            limit: None,
            upgraded: 0,
            failed: FirstOfMany::default(),
        }
    }
}

impl Findings<'_> {
    fn add_invalid_row(&mut self, error: RowError) -> Result<(), OpenError> {
        let path = self.path.display();
        self.invalid_rows
            .add(|| warn!(id = "DHCPSRV_MEMFILE_BAD_ROW", "{path}: {error}; the row is skipped"));
        match self.limit {
            Some(limit) if self.invalid_rows.count() > limit => {
                Err(OpenError::TooManyInvalidRows { path: self.path.to_owned(), limit, last: error })
            }
            _ => Ok(()),
        }
    }

    fn add_failed(&mut self, row: &FailedInfo) {
        let path = self.path.display();
        let FailedInfo { line, address, problem } = row;
        self.failed.add(|| {
            warn!(
                id = "DHCPSRV_MEMFILE_EXTENDED_INFO_REMOVED",
                "{path}: line {line}, {address}: {problem}; the lease is kept without it"
            );
        });
    }

    /// Logs the totals.
    fn log(&self) {
        let path = self.path.display();
        if self.invalid_rows.has_more() {
            let count = self.invalid_rows.count();
            warn!(id = "DHCPSRV_MEMFILE_MORE_BAD_ROWS", "{path}: {count} rows were skipped in total");
        }
        if self.dropped.has_more() {
            warn!(
                id = "DHCPSRV_MEMFILE_MORE_HWADDR_DROPPED",
                "{path}: {} leases in total are kept without their hardware addresses",
                self.dropped.count()
            );
        }
        if self.failed.has_more() {
            warn!(
                id = "DHCPSRV_MEMFILE_EXTENDED_INFO_REMOVED",
                "{path}: extended info was removed from {} rows in total",
                self.failed.count()
            );
        }
        if self.upgraded > 0 {
            info!(
                id = "DHCPSRV_MEMFILE_EXTENDED_INFO_UPGRADED",
                "{path}: {} rows have extended info in an old form; it is upgraded in memory, and in the \
                 file when these leases change",
                self.upgraded
            );
        }
    }
}

/// A row whose extended info did not pass its checks.
struct FailedInfo {
    line: u64,
    address: IpAddr,
    problem: ExtendedInfoError,
}

/// A row, as the storage needs it.
enum Row<K> {
    /// A lease, with its packed size in bytes.
    Lease(usize),
    Deletion(K),
    Invalid(RowError),
    /// The lease of the next row has lost its hardware address, for this reason.
    Dropped(RowError),
    /// The lease of the next row has lost some of its extended info.
    FailedInfo(Box<FailedInfo>),
}

/// Rows that are passed from thread to thread together.
struct Batch<K> {
    rows: Vec<Row<K>>,
    records: Vec<u8>,
    /// Number of leases whose extended info was in an old form.
    upgraded: u64,
}

impl<K> Batch<K> {
    const ROWS: usize = 1024;

    fn new() -> Self {
        Self { rows: Vec::with_capacity(Self::ROWS), records: Vec::new(), upgraded: 0 }
    }
}

/// Loads the rows of a file. One thread reads them while another inserts them into the storage, if
/// a thread can be started.
fn load_rows<L: StoredLease, R: Read + Send>(
    reader: &mut Reader<L, R>,
    checks: ExtendedInfoChecks,
    storage: &mut Storage<L>,
    findings: &mut Findings<'_>,
) -> Result<(), OpenError> {
    /// Maximum number of waiting batches.
    const WAITING: usize = 8;
    let (sender, receiver) = mpsc::sync_channel::<Batch<L::AddressKey>>(WAITING);
    let reader = Mutex::new(reader);
    std::thread::scope(|scope| {
        let read = || {
            let sender = sender;
            read_rows(&mut reader.lock(), checks, |batch| sender.send(batch).is_ok())
        };
        let Ok(thread) = std::thread::Builder::new().spawn_scoped(scope, read) else {
            let mut result = Ok(());
            read_rows(&mut reader.lock(), checks, |batch| {
                result = apply(&batch, storage, findings);
                result.is_ok()
            })?;
            return result;
        };
        receiver.into_iter().try_for_each(|batch| apply(&batch, storage, findings))?;
        Ok(thread.join().map_err(|_| OpenError::Panicked)??)
    })
}

/// Reads all rows, and passes them to `give` in batches until it returns `false`.
fn read_rows<L: StoredLease, R: Read>(
    reader: &mut Reader<L, R>,
    checks: ExtendedInfoChecks,
    mut give: impl FnMut(Batch<L::AddressKey>) -> bool,
) -> Result<(), LeaseFileError> {
    let mut batch = Batch::new();
    let mut record = Vec::new();
    while let Some(row) = reader.next() {
        match row {
            Ok(mut parsed) => {
                if let Some(problem) = parsed.dropped.clone() {
                    batch.rows.push(Row::Dropped(reader.error(problem)));
                }
                if parsed.deletes() {
                    batch.rows.push(Row::Deletion(parsed.lease.key()));
                } else {
                    check_info(&mut parsed.lease, checks, reader.line(), &mut batch);
                    pack(&parsed.lease, &mut record);
                    batch.records.extend_from_slice(&record);
                    batch.rows.push(Row::Lease(record.len()));
                }
            }
            Err(ReadError::Row(error)) => batch.rows.push(Row::Invalid(error)),
            Err(ReadError::File(error)) => return Err(error),
        }
        if batch.rows.len() >= Batch::<L::AddressKey>::ROWS
            && !give(std::mem::replace(&mut batch, Batch::new()))
        {
            return Ok(());
        }
    }
    give(batch);
    Ok(())
}

/// Checks the extended info of a lease, and fixes it.
fn check_info<L: StoredLease>(
    lease: &mut L,
    checks: ExtendedInfoChecks,
    line: u64,
    batch: &mut Batch<L::AddressKey>,
) {
    let context = lease.data().user_context.as_ref();
    let Some(checked) = context.and_then(|context| check_extended_info(L::FAMILY, context, checks)) else {
        return;
    };
    match checked.problem {
        None => batch.upgraded += 1,
        Some(problem) => {
            let address = lease.address().into();
            batch.rows.push(Row::FailedInfo(Box::new(FailedInfo { line, address, problem })));
        }
    }
    lease.data_mut().user_context = checked.context;
}

/// Inserts rows into the storage.
fn apply<L: StoredLease>(
    batch: &Batch<L::AddressKey>,
    storage: &mut Storage<L>,
    findings: &mut Findings<'_>,
) -> Result<(), OpenError> {
    let path = findings.path;
    findings.upgraded += batch.upgraded;
    let mut records = &batch.records[..];
    for row in &batch.rows {
        match row {
            Row::Lease(len) => {
                let (record, rest) = records.split_at(*len);
                records = rest;
                storage.load(record).map_err(|NoRoom| OpenError::NoRoom { path: path.to_owned() })?;
            }
            Row::Deletion(key) => storage.load_deletion(*key),
            Row::Invalid(error) => findings.add_invalid_row(error.clone())?,
            Row::FailedInfo(row) => findings.add_failed(row),
            Row::Dropped(error) => findings.dropped.add(|| {
                warn!(
                    id = "DHCPSRV_MEMFILE_HWADDR_DROPPED",
                    "{}: {error}; the lease is kept without its hardware address",
                    path.display()
                );
            }),
        }
    }
    Ok(())
}

/// Checks for leases outside of their subnets once all rows are loaded, as the last row of an
/// address counts. Leases are moved or dropped in memory only: the files are unchanged, so that
/// nothing is lost if the map was wrong.
fn check_subnets<L: StoredLease>(
    storage: &mut Storage<L>,
    sanity: &LeaseSanity,
    path: &Path,
) -> Result<(), OpenError> {
    let file = path.display();
    let mut logged = FirstOfMany::default();
    let (mut kept, mut moved, mut dropped) = (0_u64, Vec::new(), Vec::new());
    for packed in storage.loaded() {
        if L::kind_in(&packed) == Some(LeaseType::PD) {
            continue;
        }
        let (key, subnet) = (packed.key(), packed.subnet_id());
        let address = L::address_of(key).into();
        let verdict = sanity.verdict(subnet, address);
        let what = match verdict {
            Verdict::Valid => continue,
            Verdict::Outside => {
                kept += 1;
                "it is kept".to_owned()
            }
            Verdict::Moved(to) => {
                moved.push((key, to));
                format!("it is moved to subnet {}", to.0)
            }
            Verdict::Dropped => {
                dropped.push(key);
                "it is dropped".to_owned()
            }
        };
        logged.add(|| {
            warn!(
                id = "DHCPSRV_MEMFILE_LEASE_OUTSIDE_SUBNET",
                "{file}: the lease of {address} is not in its subnet {}; {what}", subnet.0
            );
        });
    }
    if logged.count() > 0 {
        warn!(
            id = "DHCPSRV_MEMFILE_LEASES_OUTSIDE_SUBNETS",
            "{file}: {} leases are not in their subnets: {kept} are kept, {} are moved, {} are \
             dropped; the files are unchanged",
            logged.count(),
            moved.len(),
            dropped.len()
        );
    }
    let mut record = Vec::new();
    for (key, to) in moved {
        let Some(mut lease) = storage.get(key).map(|packed| packed.lease()) else {
            continue;
        };
        lease.data_mut().subnet_id = to;
        pack(&lease, &mut record);
        storage.load(&record).map_err(|NoRoom| OpenError::NoRoom { path: path.to_owned() })?;
    }
    dropped.into_iter().for_each(|key| storage.load_deletion(key));
    Ok(())
}

/// Claims the cleanup, unless one is running.
fn claim<'a>(fs: &'a dyn FileSystem, files: &LeaseFileSet) -> Result<(Claim, PidLock<'a>), OpenError> {
    let lock = PidLock::take(fs, &files.pid_path()).map_err(LeaseFileError::from)?;
    match lock.claim().map_err(LeaseFileError::from)? {
        Claimed::Ours(claim) => Ok((claim, lock)),
        Claimed::Running(running) => {
            let pid = running.pid().unwrap_or_default();
            Err(OpenError::CleanupRunning { path: files.current_path().to_owned(), pid, running })
        }
    }
}

/// Makes a journal of another schema the input of a cleanup: rows of this schema cannot be appended
/// to it.
fn put_aside<L: StoredLease>(files: &LeaseFileSet, fs: &dyn FileSystem) -> Result<(), OpenError> {
    let failed =
        |path: PathBuf| move |source: LfcError| OpenError::Conversion { path, source: Box::new(source) };
    let exists = |path: &Path| match fs.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LeaseFileError::Io { path: path.to_owned(), action: "open", source }),
    };
    let (current, input) = (files.current_path(), files.input_path());
    loop {
        // While the claim is held, no cleanup starts that would remove the input.
        let claimed = claim(fs, files)?;
        if !(exists(&input)? || exists(&files.finish_path())?) {
            give_to_cleanup(fs, current, &input).map_err(|source| {
                let action = "rename for its conversion";
                LeaseFileError::Io { path: current.to_owned(), action, source }
            })?;
            fs.sync_directory(directory_of(current)).map_err(|source| {
                let path = directory_of(current).to_owned();
                LeaseFileError::Io { path, action: "sync after a rename", source }
            })?;
            return Ok(());
        }
        drop(claimed);
        // The files of an interrupted cleanup have to be processed first.
        let cleanup = Cleanup::new(L::FAMILY, files.lfc_files()).file_system(fs);
        cleanup.run().map_err(failed(current.to_owned()))?;
    }
}

/// Makes the lease file the input of a cleanup. A symbolic link is kept, and dangles.
fn give_to_cleanup(fs: &dyn FileSystem, current: &Path, input: &Path) -> std::io::Result<()> {
    let target = fs.resolve(current)?;
    match fs.rename(&target, input) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
        renamed => return renamed,
    }
    let mut part = input.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let from = fs.open(&target)?;
    let _ = fs.remove(part);
    let to = create_in_place_of(fs, part, from.attributes()?.as_ref())?;
    let copied = copy_range(from.as_ref(), to.as_ref(), 0, from.len()?).and_then(|_| {
        to.sync()?;
        fs.rename(part, input)
    });
    copied.inspect_err(|_| {
        let _ = fs.remove(part);
    })?;
    fs.sync_directory(directory_of(input))?;
    // If the removal fails, the rows are read once more, which changes nothing.
    fs.remove(&target)
}
