//! Opening a memfile: loading its files, and starting its journal and its cleanups.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::cleanup::{Cleaner, CleanerConfig, Watch};
use super::journal::Journal;
use super::load;
use super::storage::Storage;
use super::storage::packed_lease::StoredLease;
use super::store::{Persistence, Store};
use super::{Memfile, MemfileOptions, OpenError, OpenRetries};
use crate::fs::{FileSystem, OsFileSystem};
use crate::lease::{Family, Lease4, Lease6};
use crate::lease_file::LeaseFileSet;
use crate::lease_mgr::{Durability, LeaseMgr, ManagedLease};
use crate::sync::atomic::AtomicBool;
use crate::with_sources::with_sources;

/// Opens a memfile like [`Memfile::open`], in code that is generic over the family of the leases.
///
/// # Errors
/// Returns the errors of [`Memfile::open`].
pub fn open<L: ManagedLease>(options: MemfileOptions) -> Result<Arc<dyn LeaseMgr<L>>, OpenError> {
    open_on(options, Arc::new(OsFileSystem))
}

/// Opens a memfile like [`Memfile::open_on`], in code that is generic over the family of the
/// leases.
///
/// # Errors
/// Returns the errors of [`Memfile::open`].
pub fn open_on<L: ManagedLease>(
    options: MemfileOptions,
    fs: Arc<dyn FileSystem>,
) -> Result<Arc<dyn LeaseMgr<L>>, OpenError> {
    fn opened<S: StoredLease, L: ManagedLease>(
        options: MemfileOptions,
        fs: Arc<dyn FileSystem>,
    ) -> Result<Arc<dyn LeaseMgr<L>>, OpenError> {
        let memfile: Arc<dyn LeaseMgr<S>> = Arc::new(Memfile::<S>::open_on(options, fs)?);
        let memfile: Box<dyn Any> = Box::new(memfile);
        // Each family has exactly one lease type.
        memfile.downcast().map(|memfile| *memfile).map_err(|_| OpenError::Panicked)
    }
    match L::FAMILY {
        Family::V4 => opened::<Lease4, L>(options, fs),
        Family::V6 => opened::<Lease6, L>(options, fs),
    }
}

impl<L: StoredLease> Memfile<L> {
    /// Opens a memfile: loads the leases from its files, and starts the journal. With
    /// [`MemfileOptions::open_retries`], the calling thread waits for files that another process
    /// uses.
    ///
    /// # Errors
    /// Returns [`OpenError`], with the file and the reason, if a file is in use or cannot be
    /// loaded. The leases on disk are unchanged in this case.
    pub fn open(options: MemfileOptions) -> Result<Self, OpenError> {
        Self::open_on(options, Arc::new(OsFileSystem))
    }

    /// Opens a memfile like [`Memfile::open`], but on another file system than that of the
    /// operating system, such as a simulated one in a test.
    ///
    /// # Errors
    /// Returns the errors of [`Memfile::open`].
    pub fn open_on(options: MemfileOptions, fs: Arc<dyn FileSystem>) -> Result<Self, OpenError> {
        let OpenRetries { tries, wait } =
            options.open_retries.unwrap_or(OpenRetries { tries: 0, wait: Duration::ZERO });
        for next in 1..=tries {
            match Self::open_once(&options, &fs) {
                Err(error) if error.is_transient() => warn!(
                    id = "DHCPSRV_MEMFILE_OPEN_RETRY",
                    "{}; try {next} of {tries} follows in {} ms",
                    with_sources(&error),
                    wait.as_millis()
                ),
                opened => return opened,
            }
            std::thread::sleep(wait);
        }
        Self::open_once(&options, &fs)
    }

    fn open_once(options: &MemfileOptions, fs: &Arc<dyn FileSystem>) -> Result<Self, OpenError> {
        let relay_tables = options.extended_info_tables || L::FAMILY == Family::V4;
        let storage = Storage::new(relay_tables);
        let Some(path) = options.file.clone() else {
            let store = Arc::new(Store::new(storage, options.on_fail, None));
            return Ok(Self { writer: None, cleaner: None, store });
        };
        let files = LeaseFileSet::new(path);
        let loaded = load::load(storage, &files, options, fs.as_ref())?;
        let path = files.current_path().to_owned();
        let journal = Journal::open(Arc::clone(fs), path, L::SCHEMA.header, options.durability)?;
        let journal = Arc::new(journal);
        let persistence = Persistence {
            journal: Arc::clone(&journal),
            files: files.clone(),
            fs: Arc::clone(fs),
            has_invalid_rows: AtomicBool::new(loaded.has_invalid_rows),
            _owners: loaded.owners,
        };
        let store = Arc::new(Store::new(loaded.storage, options.on_fail, Some(persistence)));
        if loaded.needs_rewrite {
            journal.set_due();
            store.check_file();
        }
        let watched = Arc::clone(&store);
        let config = CleanerConfig {
            family: L::FAMILY,
            files,
            fs: Arc::clone(fs),
            program: options.lfc_program.clone(),
            interval: options.lfc_interval,
            at_once: loaded.needs_conversion,
            watch: Watch(Box::new(move || watched.check_file())),
        };
        let cleaner = Cleaner::start(config, journal);
        let cleaner = Some(cleaner.map_err(|source| OpenError::Thread { source })?);
        let writer = (options.durability == Durability::Synced).then(|| store.writer());
        Ok(Self { writer, cleaner, store })
    }
}
