//! Lease file cleanup (LFC): of all rows in a journal, the last one of each lease is kept.
//!
//! A lease manager appends a row for every change, so its lease file grows without bound. Now and then it
//! renames the file and has it cleaned up: what the previous cleanup gave, and the renamed
//! journal behind it, become one file with a row a lease. [`Cleanup`] does that by Kea's file
//! protocol, so that either side may be Kea's: as a function, or as the program `kea-lfc`.
//!
//! # Safety
//! At every moment, the files that a lease manager loads hold every lease. The new file is made durable
//! before it gets the name that says so; that name is made durable before the old files
//! are deleted. If the cleanup is interrupted, the next one goes on from where it can.
//!
//! # Cost
//! The previous file is read once, the journal about five times, from the page cache; memory is
//! taken for 12 (DHCPv4) or 24 (DHCPv6) bytes a row of the journal, twice that while it is sorted, and for a fourth of the rows that
//! the journal contributes. The previous file takes none, whatever its size: it is in address order.

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
    /// The files of a cleanup.
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
    /// What the previous cleanup gave, and what this one gives in the end.
    pub previous: PathBuf,
    /// The journal to be cleaned up.
    pub input: PathBuf,
    /// What is being written.
    pub output: PathBuf,
    /// The output when it is complete: it replaces previous and input.
    pub finish: PathBuf,
    /// Which process does the cleanup.
    pub pid: PathBuf,
}

impl LfcFiles {
    /// Returns the name of the file in which rows are kept that cannot be read: that of the lease file, with `.bad`.
    ///
    /// The lease file is the one that input is named after (`F.1`). If input has another name, it is the one that finish
    /// (`F.completed`) or previous (`F.2`) is named after, or else input itself.
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

/// A look at a cleanup from another thread, and a way to stop it.
#[derive(Debug, Default)]
pub struct Monitor {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Monitor {
    /// How many bytes were read, out of how many; both are 0 before reading starts.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Makes the cleanup end soon, with [`LfcError::Cancelled`], and without a change to the files. Once the
    /// output is complete, it is too late for that.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Rows that were read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Good rows, also those that delete a lease.
    pub leases: u64,
    /// All rows, and one more for the end of each file.
    pub attempts: u64,
    /// Bad rows.
    pub errors: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { leases, attempts, errors } = self;
        write!(f, "Leases: {leases}, attempts: {attempts}, errors: {errors}")
    }
}

/// What a cleanup did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The files were read, and the leases written.
    Cleaned {
        /// What was read from previous and input.
        read: Figures,
        /// What was written.
        written: Figures,
    },
    /// An earlier cleanup was complete but for its last renames, which were done.
    Finished,
    /// Another cleanup of these files is running, in the process with this PID; 0 if the PID file names none.
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
    /// A cleanup of these files, which bears 100 bad rows in each, on all processors.
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

    /// Does all file operations with `fs`.
    #[must_use]
    pub fn file_system(self, fs: &'a dyn FileSystem) -> Self {
        Self { fs, ..self }
    }

    /// Tells `monitor` how far it is, and ends when it says so.
    #[must_use]
    pub fn monitor(self, monitor: &'a Monitor) -> Self {
        Self { monitor: Some(monitor), ..self }
    }

    /// How many bad rows in one file are borne. One more, and the cleanup fails.
    #[must_use]
    pub fn max_invalid_rows(self, max_invalid_rows: u64) -> Self {
        Self { max_invalid_rows, ..self }
    }

    /// On how many threads the work is done, at least 1. Small files are cleaned up on one.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.clamp(1, 16), ..self }
    }

    /// Takes the lock that this file holds for this process's own. A lease manager that starts a program for a cleanup gives it that lock
    /// as its standard input, so that the lock is held as long as the program lives.
    #[must_use]
    pub fn inherited_lock(self, file: File) -> Self {
        Self { inherited: Some(file), ..self }
    }

    /// Does the cleanup.
    ///
    /// # Errors
    /// [`LfcError`] says which file and why. Previous and input are as they were, unless the new file is
    /// complete under the name of finish.
    pub fn run(&self) -> Result<Outcome, LfcError> {
        let pid_file = match PidFile::take(self.fs, &self.files.pid, self.inherited.as_ref()) {
            Ok(Taken::Ours(pid_file)) => pid_file,
            Ok(Taken::Running(running)) => {
                warn!(id = "LFC_RUNNING", "nothing is done: {running}");
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

    /// Does the cleanup, which the caller has claimed.
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
        // Removed while they are open, the old files take no time to remove; closing them does, one each on a thread.
        in_parallel(sources, |source| {
            drop(source);
            Ok::<_, LfcError>(())
        })?;
        Ok(outcome)
    }

    /// Whether an earlier cleanup has left its complete result. A finish file without the whole header of a lease
    /// file is not complete, whatever its name says: it is set aside.
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
            Ok(Some(_)) => "it has no whole header".to_owned(),
            Err(LfcError::File(error @ LeaseFileError::Header { .. })) => error.to_string(),
            Err(error) => return Err(error),
        };
        let mut aside = finish.as_os_str().to_owned();
        aside.push(".bad");
        let aside = Path::new(&aside);
        warn!(
            id = "LFC_BAD_FINISH",
            "{} is not the result of a cleanup: {problem}; it is set aside as {}, and the cleanup is done again",
            finish.display(),
            aside.display()
        );
        self.fs.rename(finish, aside).map_err(LfcError::io("set aside", finish))?;
        self.fs.sync_directory(directory_of(finish)).map_err(LfcError::io("sync the folder of", finish))?;
        Ok(false)
    }

    /// Gives finish the owner, group and mode of the previous file, whose place it is to take: the cleanup that has
    /// written it may have been one of another program and user.
    fn give_attributes_of_previous(&self, finish: &Source) -> Result<(), LfcError> {
        let previous = &self.files.previous;
        let wanted = attributes_of(self.fs, &[previous]).map_err(LfcError::io("look at", previous))?;
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
            info!(id = "DHCPSRV_MEMFILE_LEASE_FILE_LOAD", "{} is read", source.path().display());
            report_conversion::<L>(source);
        }
        Ok(sources)
    }

    /// Writes the newest rows of previous and input to output, and renames that to finish.
    fn write_finish<L: FileLease>(&self, sources: &[Option<Source>; 2]) -> Result<Outcome, LfcError> {
        let LfcFiles { output, finish, .. } = &self.files;
        let outcome = self.write_output::<L>(sources).inspect_err(|_| {
            // Half an output is of no use. If it stays, the next cleanup replaces it.
            let _ = self.fs.remove(output);
        })?;
        self.fs.rename(output, finish).map_err(|error| {
            let _ = self.fs.remove(output);
            LfcError::io("rename to its finish name", output)(error)
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
                // Then it is a journal as well, the older one.
                debug!(id = "LFC_UNSORTED", "the previous file is not in address order, it is sorted");
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

    /// More threads than one are worth their while for more than a few windows.
    fn threads_for(&self, bytes: u64) -> usize {
        let windows = usize::try_from(bytes / (2 * window::WINDOW as u64)).unwrap_or(usize::MAX);
        self.threads.min(windows).max(1)
    }

    /// Puts the complete result in place of previous and input.
    fn rotate(&self) -> Result<(), LfcError> {
        let LfcFiles { previous, input, finish, .. } = &self.files;
        // Also where an earlier cleanup gave the name: it may have been interrupted before it came to this.
        self.fs.sync_directory(directory_of(finish)).map_err(LfcError::io("sync the folder of", finish))?;
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
            .map_err(LfcError::io("sync the folder of", previous))?;
        if directory_of(previous) != directory_of(finish) {
            self.fs
                .sync_directory(directory_of(finish))
                .map_err(LfcError::io("sync the folder of", finish))?;
        }
        Ok(())
    }
}

/// Ends a cleanup with this result: removes its PID file.
pub(crate) fn end(pid_file: PidFile<'_>, result: Result<Outcome, LfcError>) -> Result<Outcome, LfcError> {
    if let Err(error) = pid_file.remove() {
        error!(id = "LFC_FAIL_PID_DEL", "{}", with_sources(&error));
        return result.and(Err(error));
    }
    result
}

/// What all that work at a cleanup must know.
struct Control<'a> {
    monitor: &'a Monitor,
    max_invalid_rows: u64,
    threads: usize,
}

impl Control<'_> {
    /// Counts bytes as read, and ends the work if it was cancelled.
    fn advance(&self, bytes: u64) -> Result<(), LfcError> {
        self.monitor.done.fetch_add(bytes, Ordering::Relaxed);
        self.check()
    }

    /// Ends the work if it was cancelled.
    fn check(&self) -> Result<(), LfcError> {
        if self.monitor.cancelled.load(Ordering::Relaxed) { Err(LfcError::Cancelled) } else { Ok(()) }
    }
}

/// A journal, indexed.
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
    /// Adds what reading a file gave.
    fn add(&mut self, source: Option<&Source>, tally: &Tally) {
        self.leases += tally.leases;
        self.errors += tally.invalid_rows;
        self.attempts += tally.leases + tally.invalid_rows + u64::from(source.is_some());
    }
}

/// Says that the rows of a file are converted.
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
