//! Lease file cleanup (LFC): of all rows in a journal, the last one of each lease is kept.
//!
//! A lease manager appends a row for every change, so its lease file grows without bound. From time
//! to time it renames the file and has it cleaned up: the result of the previous cleanup and the
//! renamed journal are merged into one file with one row for each lease. [`Cleanup`] does this by
//! Kea's file protocol, so that the manager or the cleanup may be Kea's: as a function, or as the
//! program `kea-lfc`.
//!
//! # Safety
//! At every moment, the files that a lease manager loads hold every lease. The new file is made
//! durable before it gets its final name; that name is made durable before the old files are
//! deleted. After an interrupted cleanup, the next one continues from the files that it finds.
//!
//! # Cost
//! The previous file is read once, the journal about five times, from the page cache. Memory is
//! needed for 12 (DHCPv4) or 24 (DHCPv6) bytes for each row of the journal, twice that while they
//! are sorted, and for a fourth of the rows that the journal contributes. The previous file needs
//! none, whatever its size, as it is in address order.

mod error;
mod index;
mod invalid_rows;
mod merge;
mod output;
pub(crate) mod pid_file;
mod processes;
mod source;
#[cfg(test)]
mod tests;
mod window;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::{debug, error, info, warn};

pub use error::LfcError;
use index::{Part, Tally, index_part};
use invalid_rows::LeftOut;
use merge::{JournalPart, Merged, Stop, merge};
use output::Output;
pub use pid_file::RunningCleanup;
use pid_file::{PidFile, Taken};
use source::Source;

use crate::fs::{Attributes, FileSystem, OsFileSystem, attributes_of, directory_of};
use crate::lease::Family;
use crate::lease::{Lease4, Lease6};
use crate::lease_file::row::FileLease;
use crate::lease_file::{Conversion, LeaseFileError, LeaseFileSet};
use crate::parallel::in_parallel;
use crate::with_sources::with_sources;

impl LeaseFileSet {
    /// Returns the files of a cleanup.
    #[must_use]
    pub fn lfc_files(&self) -> LfcFiles {
        LfcFiles {
            previous: self.previous_path(),
            input: self.input_path(),
            output: self.output_path(),
            finish: self.finish_path(),
            pid: self.pid_path(),
        }
    }
}

/// The files of a cleanup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LfcFiles {
    /// The result of the previous cleanup, and in the end of this one.
    pub previous: PathBuf,
    /// The journal to be cleaned up.
    pub input: PathBuf,
    /// The new file while it is written.
    pub output: PathBuf,
    /// The new file once it is complete: it replaces previous and input.
    pub finish: PathBuf,
    /// The PID file, which names the process that runs the cleanup.
    pub pid: PathBuf,
}

impl LfcFiles {
    /// Returns the name of the file in which invalid rows are kept: that of the lease file, with
    /// `.bad`.
    ///
    /// The lease file is the one after which input is named (`F.1`). If input has another name, it
    /// is the one after which finish (`F.completed`) or previous (`F.2`) is named, or else input
    /// itself.
    #[must_use]
    pub fn bad(&self) -> PathBuf {
        let named_after = |path: &Path, suffix: &str| {
            let name = path.as_os_str().as_bytes();
            let name =
                name.strip_suffix(suffix.as_bytes()).filter(|name| !matches!(name.last(), None | Some(b'/')));
            name.map(|name| OsStr::from_bytes(name).to_owned())
        };
        let lease_file = named_after(&self.input, ".1")
            .or_else(|| named_after(&self.finish, ".completed"))
            .or_else(|| named_after(&self.previous, ".2"));
        let mut name = lease_file.unwrap_or_else(|| self.input.clone().into_os_string());
        name.push(".bad");
        name.into()
    }
}

/// Observes and cancels a cleanup from another thread.
#[derive(Debug, Default)]
pub struct Monitor {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Monitor {
    /// Returns the number of bytes that were read, and their total; both are 0 before reading
    /// starts.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Makes the cleanup end soon, with [`LfcError::Cancelled`] and without changing the files. It
    /// has no effect once the output is complete.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Numbers of rows that were read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Valid rows, including those that delete a lease.
    pub leases: u64,
    /// All rows, and one more for the end of each file.
    pub attempts: u64,
    /// Invalid rows.
    pub errors: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { leases, attempts, errors } = self;
        write!(f, "Leases: {leases}, attempts: {attempts}, errors: {errors}")
    }
}

/// The result of a cleanup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The files were read, and the leases written.
    Cleaned {
        /// The rows that were read from previous and input.
        read: Figures,
        /// The rows that were written.
        written: Figures,
    },
    /// An earlier cleanup was complete except for its last renames, which were done.
    Finished,
    /// Another cleanup of these files is running, in the process with this PID; 0 if the PID file
    /// names none.
    Running(i32),
}

/// A cleanup of lease files.
///
/// ```no_run
/// use leasemgr::lease::Family;
/// use leasemgr::lease_file::LeaseFileSet;
/// use leasemgr::lfc::{Cleanup, Outcome};
///
/// let files = LeaseFileSet::new("/var/lib/kea/kea-leases4.csv").lfc_files();
/// if let Outcome::Cleaned { written, .. } = Cleanup::new(Family::V4, files).run()? {
///     println!("{} leases", written.leases);
/// }
/// # Ok::<(), leasemgr::lfc::LfcError>(())
/// ```
#[derive(Debug)]
pub struct Cleanup<'a> {
    family: Family,
    files: LfcFiles,
    fs: &'a dyn FileSystem,
    monitor: Option<&'a Monitor>,
    max_invalid_rows: u64,
    threads: usize,
    inherited: Option<File>,
}

impl<'a> Cleanup<'a> {
    /// Makes a cleanup of these files that tolerates 100 invalid rows in each and uses all
    /// processors.
    #[must_use]
    pub fn new(family: Family, files: LfcFiles) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            family,
            files,
            fs: &OsFileSystem,
            monitor: None,
            max_invalid_rows: 100,
            threads,
            inherited: None,
        }
    }

    /// Uses `fs` for all file operations.
    #[must_use]
    pub fn file_system(self, fs: &'a dyn FileSystem) -> Self {
        Self { fs, ..self }
    }

    /// Reports progress to `monitor`, and ends if it is cancelled.
    #[must_use]
    pub fn monitor(self, monitor: &'a Monitor) -> Self {
        Self { monitor: Some(monitor), ..self }
    }

    /// Sets the maximum number of invalid rows in one file. If a file has more, the cleanup fails.
    #[must_use]
    pub fn max_invalid_rows(self, max_invalid_rows: u64) -> Self {
        Self { max_invalid_rows, ..self }
    }

    /// Sets the number of threads, at least 1. Small files are cleaned up on one.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.clamp(1, 16), ..self }
    }

    /// Treats the lock that this file holds as held by this process. A lease manager that starts a
    /// program for a cleanup passes the lock as its standard input, so that it is held while the
    /// program runs.
    #[must_use]
    pub fn inherited_lock(self, file: File) -> Self {
        Self { inherited: Some(file), ..self }
    }

    /// Runs the cleanup.
    ///
    /// # Errors
    /// Returns [`LfcError`] with the file and the reason. Previous and input are unchanged, unless
    /// the new file is complete under the name of finish.
    pub fn run(&self) -> Result<Outcome, LfcError> {
        let pid_file = match PidFile::take(self.fs, &self.files.pid, self.inherited.as_ref()) {
            Ok(Taken::Ours(pid_file)) => pid_file,
            Ok(Taken::Running(running)) => {
                warn!(id = "LFC_RUNNING", "the cleanup is not started: {running}");
                return Ok(Outcome::Running(running.pid().unwrap_or_default()));
            }
            Err(error) => {
                error!(id = "LFC_FAIL_PID_CREATE", "{}", with_sources(&error));
                return Err(error);
            }
        };
        let result = self.run_claimed();
        end(pid_file, result)
    }

    /// Runs the cleanup, which the caller has claimed.
    pub(crate) fn run_claimed(&self) -> Result<Outcome, LfcError> {
        match self.family {
            Family::V4 => self.clean::<Lease4>(),
            Family::V6 => self.clean::<Lease6>(),
        }
    }

    fn clean<L: FileLease>(&self) -> Result<Outcome, LfcError> {
        let LfcFiles { previous, input, output, finish, .. } = &self.files;
        let failed = |error| {
            error!(id = "LFC_FAIL_PROCESS", "{}", with_sources(&error));
            error
        };
        let mut sources = [None, None];
        let outcome = if self.is_finished::<L>().map_err(failed)? {
            Outcome::Finished
        } else {
            info!(
                id = "LFC_PROCESSING",
                "previous {}, input {}, output {}, finish {}",
                previous.display(),
                input.display(),
                output.display(),
                finish.display()
            );
            sources = self.open_sources::<L>().map_err(failed)?;
            let outcome = self.write_finish::<L>(&sources).map_err(failed)?;
            if let Outcome::Cleaned { read, written } = outcome {
                info!(id = "LFC_READ_STATS", "{read}");
                info!(id = "LFC_WRITE_STATS", "{written}");
            }
            outcome
        };
        info!(id = "LFC_ROTATING", "{} becomes {}", finish.display(), previous.display());
        self.rotate().inspect_err(|error| error!(id = "LFC_FAIL_ROTATE", "{}", with_sources(error)))?;
        // Removing open files is fast; closing them takes the time, so each is closed on its own
        // thread.
        in_parallel(sources, |source| {
            drop(source);
            Ok::<_, LfcError>(())
        })?;
        Ok(outcome)
    }

    /// Returns whether an earlier cleanup has left its complete result. A finish file without the
    /// complete header of a lease file is not, and is set aside.
    pub(crate) fn is_finished<L: FileLease>(&self) -> Result<bool, LfcError> {
        let finish = &self.files.finish;
        let problem = match Source::open::<L>(self.fs, finish) {
            Ok(None) => return Ok(false),
            Ok(Some(source)) if source.has_whole_header => {
                self.give_attributes_of_previous(&source)?;
                drop(source);
                // Kea's program does not sync what it writes.
                self.fs.sync_file(finish).map_err(LfcError::io("sync", finish))?;
                return Ok(true);
            }
            Ok(Some(_)) => "the header is incomplete".to_owned(),
            Err(LfcError::File(error @ LeaseFileError::Header { .. })) => error.to_string(),
            Err(error) => return Err(error),
        };
        let mut aside = finish.as_os_str().to_owned();
        aside.push(".bad");
        let aside = Path::new(&aside);
        warn!(
            id = "LFC_BAD_FINISH",
            "{} is not the result of a cleanup: {problem}; it is renamed to {}, and the cleanup is repeated",
            finish.display(),
            aside.display()
        );
        self.fs.rename(finish, aside).map_err(LfcError::io("set aside", finish))?;
        self.fs
            .sync_directory(directory_of(finish))
            .map_err(LfcError::io("sync the directory of", finish))?;
        Ok(false)
    }

    /// Gives finish the owner, group and mode of the previous file, which it is to replace: another
    /// program, run by another user, may have written it.
    fn give_attributes_of_previous(&self, finish: &Source) -> Result<(), LfcError> {
        let previous = &self.files.previous;
        let wanted =
            attributes_of(self.fs, &[previous]).map_err(LfcError::io("read the attributes of", previous))?;
        match wanted {
            Some(wanted) if finish.attributes()?.as_ref() != Some(&wanted) => {
                let finish = finish.path();
                let given = self.fs.set_attributes(finish, &wanted);
                given.map_err(LfcError::io("give the owner, group and mode of the previous file to", finish))
            }
            _ => Ok(()),
        }
    }

    /// Opens previous and input.
    fn open_sources<L: FileLease>(&self) -> Result<[Option<Source>; 2], LfcError> {
        let LfcFiles { previous, input, .. } = &self.files;
        let sources = [Source::open::<L>(self.fs, previous)?, Source::open::<L>(self.fs, input)?];
        for source in sources.iter().flatten() {
            info!(id = "DHCPSRV_MEMFILE_LEASE_FILE_LOAD", "reading {}", source.path().display());
            report_conversion::<L>(source);
        }
        Ok(sources)
    }

    /// Writes the newest rows of previous and input to output, and renames that to finish.
    fn write_finish<L: FileLease>(&self, sources: &[Option<Source>; 2]) -> Result<Outcome, LfcError> {
        let LfcFiles { output, finish, .. } = &self.files;
        let outcome = self.write_output::<L>(sources).inspect_err(|_| {
            // An incomplete output is of no use. If it cannot be removed, the next cleanup replaces
            // it.
            let _ = self.fs.remove(output);
        })?;
        self.fs.rename(output, finish).map_err(|error| {
            let _ = self.fs.remove(output);
            LfcError::io("rename to the finish file", output)(error)
        })?;
        Ok(outcome)
    }

    fn write_output<L: FileLease>(&self, sources: &[Option<Source>; 2]) -> Result<Outcome, LfcError> {
        let [previous, input] = sources.each_ref().map(Option::as_ref);
        let fallback_monitor = Monitor::default();
        let monitor = self.monitor.unwrap_or(&fallback_monitor);
        let len = |source: Option<&Source>| source.map_or(0, |source| source.len - source.first);
        monitor.total.store(len(previous) + len(input), Ordering::Relaxed);
        let control = Control {
            monitor,
            max_invalid_rows: self.max_invalid_rows,
            threads: self.threads_for(len(previous) + len(input)),
        };

        let Journal { parts, tally: of_input } = index::<L>(input, &control)?;
        let attributes = |first: Option<&Source>, second: Option<&Source>| match first.or(second) {
            Some(source) => source.attributes(),
            None => Ok(None),
        };
        let of_output = attributes(previous, input)?;
        let merged = self.merge_to_output::<L>(previous, &parts, of_output.as_ref(), &control);
        let (merged, of_previous) = match merged {
            Err(Stop::OutOfOrder) => {
                // The file is then treated as another, older journal.
                debug!(id = "LFC_UNSORTED", "the previous file is not in address order and is sorted");
                monitor.total.fetch_add(len(previous), Ordering::Relaxed);
                let older = index::<L>(previous, &control)?;
                let parts: Vec<_> = older.parts.into_iter().chain(parts).collect();
                let merged = self.merge_to_output::<L>(None, &parts, of_output.as_ref(), &control);
                (merged, older.tally)
            }
            Ok(mut merged) => {
                let tally = std::mem::take(&mut merged.previous);
                if let Some(source) = previous {
                    tally.report::<L>(source)?;
                    tally.check_any::<L>(source)?;
                }
                (Ok(merged), tally)
            }
            failed => (failed, Tally::default()),
        };
        let merged = match merged {
            Ok(merged) => merged,
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::OutOfOrder) => return Err(LfcError::Order),
        };
        let read_from = [(previous, &of_previous), (input, &of_input)];
        let mut read = Figures::default();
        for (source, tally) in read_from {
            read.add(source, tally);
        }
        let left_out =
            read_from.map(|(source, tally)| Some(LeftOut { source: source?, rows: tally.invalid() }));
        let left_out: Vec<_> = left_out.into_iter().flatten().collect();
        let bad = self.files.bad();
        let kept = invalid_rows::keep::<L>(self.fs, &bad, attributes(input, previous)?.as_ref(), &left_out)?;
        if kept > 0 {
            let bad = bad.display();
            error!(id = "LFC_INVALID_ROWS_KEPT", "{kept} rows that cannot be read are kept in {bad}");
        }
        let written = Figures { leases: merged.written, attempts: merged.written, errors: 0 };
        Ok(Outcome::Cleaned { read, written })
    }

    fn merge_to_output<L: FileLease>(
        &self,
        previous: Option<&Source>,
        parts: &[JournalPart<'_, L::AddressKey>],
        attributes: Option<&Attributes>,
        control: &Control<'_>,
    ) -> Result<Merged, Stop> {
        let output = Output::create(self.fs, &self.files.output, attributes)?;
        output.write_durably(|output| {
            output.append(L::SCHEMA.header.as_bytes())?;
            output.append(b"\n")?;
            merge::<L>(previous, parts, output, control)
        })
    }

    /// Returns the number of threads; one per two windows at most is worthwhile.
    fn threads_for(&self, bytes: u64) -> usize {
        let windows = usize::try_from(bytes / (2 * window::WINDOW as u64)).unwrap_or(usize::MAX);
        self.threads.min(windows).max(1)
    }

    /// Replaces previous and input by the complete result.
    fn rotate(&self) -> Result<(), LfcError> {
        let LfcFiles { previous, input, finish, .. } = &self.files;
        // Also if an earlier cleanup renamed the file: it may have been interrupted before this
        // sync.
        self.fs
            .sync_directory(directory_of(finish))
            .map_err(LfcError::io("sync the directory of", finish))?;
        for old in [previous, input] {
            match self.fs.remove(old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LfcError::io("remove", old)(error));
                }
                _ => {}
            }
        }
        self.fs.rename(finish, previous).map_err(LfcError::io("rename to the previous file", finish))?;
        self.fs
            .sync_directory(directory_of(previous))
            .map_err(LfcError::io("sync the directory of", previous))?;
        if directory_of(previous) != directory_of(finish) {
            self.fs
                .sync_directory(directory_of(finish))
                .map_err(LfcError::io("sync the directory of", finish))?;
        }
        Ok(())
    }
}

/// Ends a cleanup with this result by removing its PID file.
pub(crate) fn end(pid_file: PidFile<'_>, result: Result<Outcome, LfcError>) -> Result<Outcome, LfcError> {
    if let Err(error) = pid_file.remove() {
        error!(id = "LFC_FAIL_PID_DEL", "{}", with_sources(&error));
        return result.and(Err(error));
    }
    result
}

/// The settings that all threads of a cleanup share.
struct Control<'a> {
    monitor: &'a Monitor,
    max_invalid_rows: u64,
    threads: usize,
}

impl Control<'_> {
    /// Counts bytes as read. Returns an error if the cleanup was cancelled.
    fn advance(&self, bytes: u64) -> Result<(), LfcError> {
        self.monitor.done.fetch_add(bytes, Ordering::Relaxed);
        self.check()
    }

    /// Returns an error if the cleanup was cancelled.
    fn check(&self) -> Result<(), LfcError> {
        if self.monitor.cancelled.load(Ordering::Relaxed) { Err(LfcError::Cancelled) } else { Ok(()) }
    }
}

/// An indexed journal.
struct Journal<'a, K> {
    parts: Vec<JournalPart<'a, K>>,
    tally: Tally,
}

/// Indexes a file, a part of it on each thread.
fn index<'a, L: FileLease>(
    source: Option<&'a Source>,
    control: &Control<'_>,
) -> Result<Journal<'a, L::AddressKey>, LfcError> {
    let Some(source) = source else {
        return Ok(Journal { parts: Vec::new(), tally: Tally::default() });
    };
    let threads = control.threads as u64;
    let bytes = source.len - source.first;
    let bound = |n: u64| source.first + bytes * n / threads;
    let parts = in_parallel(0..threads, |n| index_part::<L>(source, bound(n), bound(n + 1), control))?;
    let mut tally = Tally::default();
    let parts = parts.into_iter().map(|mut part: Part<L::AddressKey>| {
        tally.add(std::mem::take(&mut part.tally), control.max_invalid_rows);
        JournalPart { source, part }
    });
    let parts = parts.collect();
    tally.report::<L>(source)?;
    tally.check_limit::<L>(source, control.max_invalid_rows)?;
    tally.check_any::<L>(source)?;
    Ok(Journal { parts, tally })
}

impl Figures {
    /// Adds the tally of a file.
    fn add(&mut self, source: Option<&Source>, tally: &Tally) {
        self.leases += tally.leases;
        self.errors += tally.invalid_rows;
        self.attempts += tally.leases + tally.invalid_rows + u64::from(source.is_some());
    }
}

/// Logs that the rows of a file are converted.
fn report_conversion<L: FileLease>(source: &Source) {
    let (id, how) = match source.header.conversion {
        Conversion::None => return,
        Conversion::Upgrade => ("DHCPSRV_MEMFILE_NEEDS_UPGRADING", "upgraded from"),
        Conversion::Downgrade => ("DHCPSRV_MEMFILE_NEEDS_DOWNGRADING", "downgraded from one beyond"),
    };
    let (path, version) = (source.path().display(), source.header.version);
    let current = L::SCHEMA.version();
    warn!(id, "{path} is {how} schema version {version} to {current}");
}
