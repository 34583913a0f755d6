//! The backend `memfile`: leases in memory, and every change of them in a journal in Kea's file format.
//!
//! A change is written to the journal first and made in memory then; a reader never waits for a file. How
//! far a change has gone when it is acknowledged, [`Durability`] says. Now and then the journal is cleaned up
//! ([`crate::lfc`]), while changes go on.
//!
//! # Files
//! Those of Kea's memfile ([`LeaseFileSet`]), and `F.lock`, by which one process owns a lease file.
//!
//! # Cost
//! Looking up a lease takes a fraction of a microsecond, a change about as long as the system takes to write its row. A DHCPv4 lease
//! takes some 130 to 160 bytes of memory with all its indexes. Figures: see the README, and `docs/design.md` for what they are made of.

pub(crate) mod arena;
mod backend;
mod batch;
mod cleanup;
mod client_index;
mod expire_queue;
mod gates;
mod hash_index;
mod journal;
mod load;
mod options;
mod ordered;
mod prefetch;
pub(crate) mod record;
mod records;
mod relay_index;
mod restore;
mod row_locks;
mod sanity;
mod storage;
mod threads;
mod writer;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub use backend::MemfileBackend;
use cleanup::{Cleaner, CleanerConfig, Watch};
use gates::Gates;
use journal::Journal;
pub use options::{LfcProgram, MemfileOptions, OpenRetries};
use record::{Packed, StoredLease, pack};
use row_locks::RowLocks;
pub use sanity::{LeaseChecks, LeaseSanity, SubnetMap, SubnetMapError};
use storage::{NoRoom, Queue, Storage};
use tracing::warn;
use writer::Writer;

use crate::fs::FileSystem;
use crate::lease::{ClientClass, Family, Lease4, Lease6, LeaseKind, SubnetId};
use crate::lease_file::{LeaseFileError, LeaseFileSet, RowError};
use crate::lease_mgr::{
    Added, Availability, Change, CleanupStart, Deleted, Done, Durability, Key, LeaseMgr, LeaseMgrError,
    ManagedLease, OnFail, Operation, Query, StatisticsQuery, StatisticsRow, Status, Then, Tracking,
    call_then, check,
};
use crate::lfc::RunningCleanup;

/// So many leases are looked at in one go, before a change that waits gets its turn.
const STEP: usize = 256;

/// Why a memfile cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another manager, in this process or another, has the lease file.
    #[error("{}: the lease file is in use by another lease manager, which holds {}", path.display(), lock.display())]
    Owned {
        /// The lease file.
        path: PathBuf,
        /// Its lock.
        lock: PathBuf,
    },
    /// A cleanup process is at work with the files.
    #[error("{}: {running}", path.display())]
    CleanupRunning {
        /// The lease file.
        path: PathBuf,
        /// The process; 0 if the PID file names none.
        pid: i32,
        /// What is known of the cleanup.
        running: RunningCleanup,
    },
    /// A lease file cannot be read or written, or is none.
    #[error(transparent)]
    File(#[from] LeaseFileError),
    /// A file has more invalid rows than are tolerated.
    #[error(
        "{}: more than {limit} invalid rows in this file, the last in {last}; \
         fix the file, or raise max-row-errors (0 for any number)",
        path.display()
    )]
    TooManyBadRows {
        /// The file.
        path: PathBuf,
        /// How many are tolerated in each file.
        limit: u64,
        /// The row that was one too many.
        last: RowError,
    },
    /// A lease file of another version cannot be converted.
    #[error("{}: cannot be converted: {source}", path.display())]
    Conversion {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<crate::lfc::LfcError>,
    },
    /// There are more leases than fit.
    #[error("{}: more leases than there is room for", path.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
    },
    /// A thread that read the files panicked.
    #[error("a thread that read the lease files panicked")]
    Panicked,
    /// No thread can be started for the cleanup.
    #[error("cannot start the thread for the cleanup: {source}")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether opening may succeed later though the content of the files stays what it is.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Owned { .. } | Self::CleanupRunning { .. } | Self::File(LeaseFileError::Io { .. })
        )
    }
}

/// Opens a memfile for leases of a family that the caller need not know, as [`Memfile::open`].
///
/// # Errors
/// As [`Memfile::open`].
pub fn open<L: ManagedLease>(options: MemfileOptions) -> Result<Arc<dyn LeaseMgr<L>>, OpenError> {
    fn opened<S: StoredLease, L: ManagedLease>(
        options: MemfileOptions,
    ) -> Result<Arc<dyn LeaseMgr<L>>, OpenError> {
        let memfile: Arc<dyn LeaseMgr<S>> = Arc::new(Memfile::<S>::open(options)?);
        let memfile: Box<dyn Any> = Box::new(memfile);
        // There are no leases but those of the two families, and one type for each.
        memfile.downcast().map(|memfile| *memfile).map_err(|_| OpenError::Panicked)
    }
    match L::FAMILY {
        Family::V4 => opened::<Lease4, L>(options),
        Family::V6 => opened::<Lease6, L>(options),
    }
}

/// Leases in memory, and on disk in Kea's lease files.
///
/// ```no_run
/// use leasemgr::lease::Lease4;
/// use leasemgr::memfile::{Memfile, MemfileOptions};
/// use leasemgr::{Durability, LeaseMgr, LeaseMgrExt};
///
/// let leases = Memfile::<Lease4>::open(MemfileOptions {
///     file: Some("/var/lib/dhcp/leases4.csv".into()),
///     durability: Durability::Synced,
///     ..MemfileOptions::default()
/// })?;
/// for lease in leases.page(None, 100)? {
///     println!("{lease:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Memfile<L: StoredLease> {
    /// Makes the changes that were submitted, where a change waits for a sync. Ended first, and then the cleaner: both use the
    /// store.
    writer: Option<Writer<Operation<L>, Result<Done, LeaseMgrError>>>,
    cleaner: Option<Cleaner>,
    store: Arc<Store<L>>,
}

/// Leases in memory and the journal of their changes: what the users of a [`Memfile`] and the thread of its cleanups share.
struct Store<L: StoredLease> {
    storage: Gates<Storage<L>>,
    /// A change of the storage ended in a panic, and is perhaps half made.
    is_broken: AtomicBool,
    /// Whether it was told that no changes are taken any more.
    is_given_up: AtomicBool,
    on_fail: OnFail,
    rows: RowLocks,
    /// Number of changes in batches that are being made.
    batched: AtomicUsize,
    tracking: Tracking<L>,
    persistence: Option<Persistence>,
}

/// Where the leases are on disk.
struct Persistence {
    journal: Arc<Journal>,
    files: LeaseFileSet,
    fs: Arc<dyn FileSystem>,
    /// Whether the lease file had rows that cannot be read when it was opened, so that they are nowhere else.
    has_invalid_rows: AtomicBool,
    /// Given up last.
    _owners: Vec<Box<dyn Send + Sync>>,
}

impl<L: StoredLease> fmt::Debug for Memfile<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.store.persistence.as_ref().map(|persistence| persistence.files.current());
        f.debug_struct("Memfile").field("file", &file).field("leases", &self.store.read().len()).finish()
    }
}

impl<L: StoredLease> Drop for Memfile<L> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // In a callback, the change that it is told of would be waited for.
            writer.end(self.store.tracking.refuse_in_callback().is_ok());
        }
        drop(self.cleaner.take());
        self.store.look_after_file();
    }
}

/// Memory that every change needs, kept for the next one of the thread.
#[derive(Default)]
struct Scratch {
    row: Vec<u8>,
    record: Vec<u8>,
    expected: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a row takes that is kept as memory for the next.
const SCRATCH_LIMIT: usize = 64 * 1024;

fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = work(scratch);
        for buffer in [&mut scratch.row, &mut scratch.record, &mut scratch.expected] {
            buffer.clear();
            buffer.shrink_to(SCRATCH_LIMIT);
        }
        result
    })
}

impl<L: StoredLease> Memfile<L> {
    /// Opens a memfile: loads the leases from its files, and begins to journal. With
    /// [`MemfileOptions::open_retries`], the calling thread waits for files that others have.
    ///
    /// # Errors
    /// [`OpenError`] says which file and why. The files are as they were then.
    pub fn open(options: MemfileOptions) -> Result<Self, OpenError> {
        let OpenRetries { tries, wait } =
            options.open_retries.unwrap_or(OpenRetries { tries: 0, wait: Duration::ZERO });
        for next in 1..=tries {
            match Self::open_once(&options) {
                Err(error) if error.may_pass() => warn!(
                    id = "DHCPSRV_MEMFILE_OPEN_RETRY",
                    "{error}; try {next} of {tries} comes in {} ms",
                    wait.as_millis()
                ),
                opened => return opened,
            }
            std::thread::sleep(wait);
        }
        Self::open_once(&options)
    }

    fn open_once(options: &MemfileOptions) -> Result<Self, OpenError> {
        let relay_tables = options.extended_info_tables || L::FAMILY == Family::V4;
        let storage = Storage::new(relay_tables);
        let Some(path) = options.file.clone() else {
            let store = Arc::new(Store::new(storage, options.on_fail, None));
            return Ok(Self { writer: None, cleaner: None, store });
        };
        let files = LeaseFileSet::new(path);
        let fs = Arc::clone(&options.file_system);
        let loaded = load::load(storage, &files, options)?;
        let path = files.current().to_owned();
        let journal = Journal::open(fs.clone(), path, L::SCHEMA.header, options.durability)?;
        let journal = Arc::new(journal);
        let persistence = Persistence {
            journal: Arc::clone(&journal),
            files: files.clone(),
            fs: fs.clone(),
            has_invalid_rows: loaded.has_invalid_rows.into(),
            _owners: loaded.owners,
        };
        let store = Arc::new(Store::new(loaded.storage, options.on_fail, Some(persistence)));
        if loaded.needs_rewrite {
            journal.set_due();
            store.look_after_file();
        }
        let watched = Arc::clone(&store);
        let config = CleanerConfig {
            family: L::FAMILY,
            files,
            fs,
            program: options.lfc_program.clone(),
            interval: options.lfc_interval,
            at_once: loaded.needs_conversion,
            watch: Watch(Box::new(move || watched.look_after_file())),
        };
        let cleaner = Cleaner::start(config, journal);
        let cleaner = Some(cleaner.map_err(|source| OpenError::Thread { source })?);
        let writer = (options.durability == Durability::Synced).then(|| store.writer());
        Ok(Self { writer, cleaner, store })
    }

    /// How many bytes of memory the leases and each index take.
    #[must_use]
    pub fn memory(&self) -> Vec<(&'static str, usize)> {
        self.store.read().memory().to_vec()
    }
}

impl<L: StoredLease> Store<L> {
    fn new(storage: Storage<L>, on_fail: OnFail, persistence: Option<Persistence>) -> Self {
        let (storage, tracking) = (Gates::new(storage), Tracking::default());
        let (is_broken, is_given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        let (rows, batched) = (RowLocks::new(), AtomicUsize::new(0));
        Self { storage, is_broken, is_given_up, on_fail, rows, batched, tracking, persistence }
    }

    fn read(&self) -> gates::Reading<'_, Storage<L>> {
        self.storage.read()
    }

    fn write(&self) -> Result<Writing<'_, L>, LeaseMgrError> {
        let storage = self.storage.write();
        self.check()?;
        Ok(Writing { storage, is_broken: &self.is_broken, was_panicking: std::thread::panicking() })
    }

    /// Whether all changes of the storage came to their end.
    fn check(&self) -> Result<(), LeaseMgrError> {
        if self.is_broken.load(Ordering::Acquire) { Err(LeaseMgrError::Panicked) } else { Ok(()) }
    }

    /// Writes rows to the journal, where there is one.
    fn journal(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        self.check()?;
        let Some(persistence) = &self.persistence else {
            return Ok(());
        };
        persistence.journal.append(rows).inspect_err(|_| self.tell_availability())
    }

    fn availability(&self) -> Availability {
        let failed = self.persistence.as_ref().and_then(|persistence| persistence.journal.failed_since());
        failed.map_or(Availability::Up, |since| Availability::GivenUp { since })
    }

    /// Tells that no changes are taken any more, once.
    fn tell_availability(&self) {
        let availability = self.availability();
        if availability != Availability::Up && !self.is_given_up.swap(true, Ordering::Relaxed) {
            self.tracking.notify_availability(availability);
        }
    }

    /// Whether the leases of all changes that may be going on find room.
    fn has_room(&self, storage: &Storage<L>) -> bool {
        storage.has_room(self.batched.load(Ordering::Relaxed))
    }

    /// Leases of a queue that have ended at `time`, at most `limit`, those that ended first first.
    fn ended(&self, queue: Queue, time: u64, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let mut ended = Vec::new();
        let mut after = None;
        while ended.len() < limit {
            let count = STEP.min(limit - ended.len());
            let step = self.read().ended(queue, time, after, count);
            let Ok(step) = step else {
                self.write()?.put_in_place(queue, time, after, count);
                continue;
            };
            let Some((last, _)) = step.last() else {
                break;
            };
            after = Some(*last);
            ended.extend(step.into_iter().map(|(_, lease)| lease));
        }
        Ok(ended)
    }
}

/// The storage, to be changed.
struct Writing<'a, L: StoredLease> {
    storage: gates::Writing<'a, Storage<L>>,
    is_broken: &'a AtomicBool,
    /// The change is made while a panic of something else unwinds the thread.
    was_panicking: bool,
}

impl<L: StoredLease> Drop for Writing<'_, L> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            self.is_broken.store(true, Ordering::Release);
        }
    }
}

impl<L: StoredLease> std::ops::Deref for Writing<'_, L> {
    type Target = Storage<L>;

    fn deref(&self) -> &Storage<L> {
        &self.storage
    }
}

impl<L: StoredLease> std::ops::DerefMut for Writing<'_, L> {
    fn deref_mut(&mut self) -> &mut Storage<L> {
        &mut self.storage
    }
}

impl From<NoRoom> for LeaseMgrError {
    fn from(_: NoRoom) -> Self {
        Self::Full { what: "16 GiB of leases" }
    }
}

/// Makes sure that a lease is the expected one, if one is; `buffer` is for what that takes.
#[inline]
fn check_expected<L: StoredLease>(
    there: &Packed<'_, L>,
    expected: Option<&L>,
    buffer: &mut Vec<u8>,
) -> Result<(), LeaseMgrError> {
    if let Some(expected) = expected {
        pack(expected, buffer);
        if !there.is_same(&Packed::new(buffer)) {
            return Err(LeaseMgrError::ChangedMeanwhile { address: L::address_of(there.key()).into() });
        }
    }
    Ok(())
}

impl<L: StoredLease> LeaseMgr<L> for Memfile<L> {
    fn status(&self) -> Status {
        let store = &*self.store;
        let persistence = store.persistence.as_ref();
        let lease_file = persistence.map(|persistence| persistence.files.current().to_owned());
        Status {
            backend: "memfile".to_owned(),
            location: lease_file
                .as_ref()
                .map_or_else(|| "memory only".to_owned(), |path| path.display().to_string()),
            lease_file,
            leases: Some(store.read().len() as u64),
            refused: match persistence.and_then(|persistence| persistence.journal.refused()) {
                None => store.check().err().map(|error| error.to_string()),
                refused => refused,
            },
            on_fail: Some(store.on_fail),
            durability: persistence.map(|persistence| persistence.journal.durability()),
            availability: store.availability(),
            warning: persistence.and_then(|persistence| persistence.journal.warning()),
            cleanup: self.cleaner.as_ref().map(Cleaner::status),
        }
    }

    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        check(lease)?;
        let key = lease.key();
        let _row = self.store.rows.lock(key);
        let added = with_scratch(|scratch| {
            pack(lease, &mut scratch.record);
            let hashes = {
                let storage = self.store.read();
                let hashes = storage.fetch(&Packed::new(&scratch.record));
                if self.store.persistence.is_some() {
                    // Meanwhile the storage is fetched.
                    lease.write_row(&mut scratch.row);
                }
                if storage.get(key).is_some() {
                    return Ok(Added::AddressTaken);
                }
                if !self.store.has_room(&storage) {
                    return Err(NoRoom.into());
                }
                hashes
            };
            self.store.journal(&scratch.row)?;
            self.store.write()?.insert_fetched(&scratch.record, &hashes)?;
            Ok::<_, LeaseMgrError>(Added::Added)
        })?;
        if added == Added::AddressTaken {
            return Ok(added);
        }
        self.store.tracking.notify(&Change::added(lease));
        Ok(Added::Added)
    }

    fn kept(&self, lease: &L) -> Result<L, LeaseMgrError> {
        check(lease)?;
        Ok(with_scratch(|scratch| {
            pack(lease, &mut scratch.record);
            record::Packed::new(&scratch.record).lease()
        }))
    }

    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.store.read().get(L::key_of(address)).map(|packed| packed.lease()))
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        query.check()?;
        if matches!(query.key, Key::RelayId(_) | Key::RemoteId(_)) && !self.store.read().has_relay_tables() {
            return Err(LeaseMgrError::Unsupported {
                backend: "memfile without extended-info-tables".to_owned(),
                operation: "find leases by what relay agents said".to_owned(),
            });
        }
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut found = Vec::new();
        if let (Key::State(state), None) = (query.key, query.subnet)
            && let Some(keys) = self.store.read().in_state(state, query)
        {
            for step in keys.chunks(STEP) {
                if self.store.read().find_among(query, step, limit, &mut found) {
                    break;
                }
            }
            return Ok(found);
        }
        let mut after = query.after.map(L::key_of);
        loop {
            let step = self.store.read().find(query, after, limit, STEP, &mut found);
            match step {
                Some(last) => after = Some(last),
                None => return Ok(found),
            }
        }
    }

    fn expired(&self, now: u64, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        self.store.ended(Queue::Expiring, now, if limit == 0 { usize::MAX } else { limit })
    }

    fn replace(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        check(lease)?;
        let key = lease.key();
        let _row = self.store.rows.lock(key);
        let old = with_scratch(|scratch| {
            let storage = self.store.read();
            let Some(packed) = storage.get(key) else {
                return Err(LeaseMgrError::NoSuchLease { address: lease.address().into() });
            };
            check_expected(&packed, expected, &mut scratch.expected)?;
            if !self.store.has_room(&storage) {
                return Err(NoRoom.into());
            }
            let counted = packed.counted_as();
            let old = self.store.tracking.is_watched().then(|| packed.lease());
            drop(storage);
            pack(lease, &mut scratch.record);
            if self.store.persistence.is_some() {
                lease.write_row(&mut scratch.row);
            }
            self.store.journal(&scratch.row)?;
            self.store.write()?.replace(&scratch.record)?;
            Ok((old, counted))
        })?;
        match &old {
            (Some(old), _) => self.store.tracking.notify(&Change::updated(old, lease)),
            (None, counted) => self.store.tracking.count_updated(*counted, lease),
        }
        Ok(())
    }

    fn remove(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        let key = L::key_of(address);
        let _row = self.store.rows.lock(key);
        let old = with_scratch(|scratch| {
            let storage = self.store.read();
            let Some(packed) = storage.get(key) else {
                return Ok(None);
            };
            check_expected(&packed, expected, &mut scratch.expected)?;
            let hashes = storage.fetch(&packed);
            if self.store.persistence.is_some() {
                L::write_deletion(&packed, &mut scratch.row);
            }
            let old = self.store.tracking.is_watched().then(|| packed.lease());
            drop(storage);
            self.store.journal(&scratch.row)?;
            self.store.write()?.remove_fetched(key, &hashes);
            Ok::<_, LeaseMgrError>(Some(old))
        })?;
        let Some(old) = old else {
            return Ok(Deleted::NoSuchLease);
        };
        if let Some(old) = &old {
            self.store.tracking.notify(&Change::deleted(old));
        }
        Ok(Deleted::Deleted)
    }

    fn remove_reclaimed(&self, until: u64) -> Result<u64, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        let mut removed = 0;
        loop {
            let leases = self.store.ended(Queue::Reclaimed, until, STEP)?;
            if leases.is_empty() {
                return Ok(removed);
            }
            removed += self.store.remove_all(&leases)?;
        }
    }

    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        let query = Query::all().in_subnet(subnet).limit(STEP);
        let mut removed = 0;
        loop {
            let leases = self.find(&query)?;
            if leases.is_empty() {
                return Ok(removed);
            }
            removed += self.store.remove_all(&leases)?;
        }
    }

    fn apply(&self, operations: &[Operation<L>]) -> Vec<Result<Done, LeaseMgrError>> {
        self.store.apply(operations.iter().map(Operation::borrowed))
    }

    fn submit(&self, operation: Operation<L>, then: Then) {
        let refused = self.store.tracking.refuse_in_callback();
        let (result, then) = match (&self.writer, refused) {
            (_, Err(error)) => (Err(error), then),
            (None, Ok(())) => (operation.run(self), then),
            (Some(writer), Ok(())) => match writer.submit(operation, then) {
                Ok(()) => return,
                // Without a thread for it, this one waits.
                Err((operation, then)) => (operation.run(self), then),
            },
        };
        call_then(then, result);
    }

    fn submits(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        self.writer.is_some()
    }

    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        query.check()?;
        Ok(self.store.read().statistics(query))
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        self.store.write()?.recount();
        Ok(())
    }

    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        Ok(self.store.read().class_leases(class, kind))
    }

    fn tracking(&self) -> &Tracking<L> {
        &self.store.tracking
    }

    fn flush(&self) -> Result<(), LeaseMgrError> {
        let Some(persistence) = &self.store.persistence else {
            return Ok(());
        };
        self.store.look_after_file();
        persistence.journal.sync()
    }

    fn write_own_file(&self, path: &Path) -> Result<Option<u64>, LeaseMgrError> {
        self.store.write_own_file(path)
    }

    fn clean_up(&self) -> Result<CleanupStart, LeaseMgrError> {
        Ok(self.cleaner.as_ref().map_or(CleanupStart::NotNeeded, Cleaner::request))
    }
}
