//! A single cleanup, from the rotation of the journal to its report.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, error, info, warn};

use super::process::{Captured, End, GRACE, Process};
use super::program::{self, Chooser};
use super::version::FileVersion;
use super::{Handover, Shared, WATCH_INTERVAL};
use crate::fs::{FileSystem, ProcessLock};
use crate::lease::{Family, Lease4, Lease6};
use crate::lease_file::{Conversion, FileLease, Header, read_file};
use crate::lease_mgr::{CleanupReport, CleanupRows, CleanupWork};
use crate::lfc::pid_file::{Claim, Claimed, PidFile, PidFileError, PidLock, lock_path};
use crate::lfc::{self, Cleanup, LfcError, LfcFiles, Outcome, RunningCleanup};
use crate::memfile::journal::RotateError;
use crate::panics::panic_message;
use crate::with_sources::with_sources;

/// The first and the longest interval between two checks of a process.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The amount by which the priority of a cleanup in this process is lowered, as `kea-lfc` does.
const NICE: i32 = 4;

/// The reason why a cleanup failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Cleanup(#[from] LfcError),
    #[error("the journal cannot be handed over to the cleanup")]
    Rotate(#[from] RotateError),
    #[error("{0}")]
    Running(RunningCleanup),
    #[error("another process holds the lock of {}, and the lease manager is closing; end that process", .0.display())]
    Locked(PathBuf),
    #[error("the lease manager is closing")]
    Ending,
    #[error("{}: {status}{}", program.display(), Reason(message))]
    Exit { program: PathBuf, status: ExitStatus, message: String },
    #[error("{}: it ended, but {} still exists{}", program.display(), path.display(), Reason(message))]
    NotDone { program: PathBuf, path: PathBuf, message: String },
    #[error("process {0} cannot be stopped")]
    Unstoppable(i32),
    #[error("the cleanup panicked: {0}")]
    Panicked(String),
}

impl From<PidFileError> for Failure {
    fn from(error: PidFileError) -> Self {
        LfcError::from(error).into()
    }
}

/// The last output of a program, which usually explains its failure.
struct Reason<'a>(&'a str);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

/// The process or thread that does a cleanup.
enum Worker<'a, 'p> {
    /// A process of this program, and the lock that it was given.
    Process(Process, &'p Path, Option<ProcessLock>),
    /// A thread of this process, which the PID file names.
    Thread(PidFile<'a>),
}

/// A cleanup.
pub(super) struct Run<'a> {
    shared: &'a Shared,
    files: LfcFiles,
    work: CleanupWork,
    rows: Option<CleanupRows>,
    bytes_before: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let files = shared.config.files.lfc_files();
        Self { shared, files, work: CleanupWork::Thread, rows: None, bytes_before: 0 }
    }

    /// Runs the cleanup, and reports the result.
    pub(super) fn report(mut self) -> CleanupReport {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let result = catch_unwind(AssertUnwindSafe(|| self.clean()))
            .unwrap_or_else(|panic| Err(Failure::Panicked(panic_message(panic.as_ref()))));
        let duration = clock.elapsed();
        let bytes_after = self.bytes();
        let Self { work, rows, bytes_before, .. } = self;
        match &result {
            Ok(()) => info!(
                id = "DHCPSRV_MEMFILE_LFC_END",
                "the cleanup took {duration:.3?}; the lease files had {bytes_before} bytes, and have {bytes_after} now"
            ),
            Err(failure @ Failure::Running(_)) => {
                warn!(id = "DHCPSRV_MEMFILE_LFC_RUNNING", "no cleanup is started: {}", with_sources(failure));
            }
            Err(failure @ Failure::Rotate(_)) => {
                error!(
                    id = "DHCPSRV_MEMFILE_LFC_LEASE_FILE_RENAME_FAIL",
                    "no cleanup is started: {}",
                    with_sources(failure)
                );
            }
            Err(failure) => {
                error!(
                    id = "DHCPSRV_MEMFILE_LFC_FAIL",
                    "the cleanup failed after {duration:.3?}: {}",
                    with_sources(failure)
                );
            }
        }
        let failure = result.err().map(|failure| with_sources(&failure).to_string());
        CleanupReport {
            failure,
            rows,
            bytes_before,
            bytes_after,
            ..CleanupReport::new(work, started, duration)
        }
    }

    fn clean(&mut self) -> Result<(), Failure> {
        let shared = self.shared;
        let chooser = Chooser {
            wanted: &shared.config.program,
            family: shared.config.family,
            answers: &shared.answers,
            pause: &|time| shared.pause(time),
        };
        let program = chooser.choose();
        if shared.pause(Duration::ZERO) {
            return Err(Failure::Ending);
        }
        self.work = program.clone().map_or(CleanupWork::Thread, CleanupWork::Program);
        loop {
            match self.begin(program.as_deref())? {
                Worker::Process(process, program, lock) => match self.supervise(process, lock, program) {
                    Err(Failure::NotDone { .. }) if self.reduce_handover() => {}
                    result => {
                        if result.is_ok() {
                            self.check_result(program);
                        }
                        return result;
                    }
                },
                Worker::Thread(pid_file) => {
                    self.work = CleanupWork::Thread;
                    return self.clean_in_thread(pid_file);
                }
            }
        }
    }

    /// Checks whether a program, which may not have reported its version, has written an older file
    /// than the journal. In this case it is not used again.
    fn check_result(&self, program: &Path) {
        fn header<L: FileLease>(fs: &dyn FileSystem, path: &Path) -> Option<Header> {
            let file = fs.open(path).ok()?;
            Some(*read_file::<L>(file.as_ref(), path).ok()?.header())
        }
        let path = &self.files.previous;
        let header = match self.shared.config.family {
            Family::V4 => header::<Lease4>(self.fs(), path),
            Family::V6 => header::<Lease6>(self.fs(), path),
        };
        if let Some(Header { conversion: Conversion::Upgrade, version, .. }) = header
            && let Some(files) = FileVersion::parse(version)
        {
            warn!(
                id = "DHCPSRV_MEMFILE_LFC_OLD_PROGRAM",
                "{} has written {} in version {version}, and dropped newer columns; it is not used again: name a newer program, or internal",
                program.display(),
                path.display()
            );
            self.shared.answers.record(program, files);
        }
    }

    /// Makes sure that there is something to clean up and no other cleanup, and starts the program,
    /// if one is used.
    fn begin<'p>(&mut self, program: Option<&'p Path>) -> Result<Worker<'a, 'p>, Failure> {
        let lock = self.lock()?;
        let claimed = match program {
            Some(_) if self.shared.handover() != Handover::Nothing => lock.claim_for_process()?,
            _ => lock.claim()?,
        };
        let claim = match claimed {
            Claimed::Ours(claim) => claim,
            Claimed::Running(running) => return Err(Failure::Running(running)),
        };
        self.prepare()?;
        self.bytes_before = self.bytes();
        let started = program.and_then(|program| Some((self.start(program, &lock, &claim)?, program)));
        Ok(match started {
            // The process waits for this lock until it is released.
            Some((process, program)) => Worker::Process(process, program, claim.into_lock()),
            None => Worker::Thread(lock.hold(claim)?),
        })
    }

    /// Decides whether to retry a program that ended well but did nothing, which happens at most
    /// twice in the life of a manager.
    ///
    /// Kea's program up to version 2.2 does nothing if the PID file names it, and any version does
    /// nothing if it runs as a child of the started process. This project's program does nothing
    /// if a script that starts it does not pass on the lock. From now on, programs write the PID
    /// file themselves, and in the second step also take the lock themselves.
    fn reduce_handover(&self) -> bool {
        let (less, what) = match self.shared.handover() {
            Handover::PidAndLock => (Handover::Lock, "their process ID in the PID file"),
            Handover::Lock => (Handover::Nothing, "their process ID in the PID file, or the lock held"),
            Handover::Nothing => return false,
        };
        self.shared.handover.store(less as u8, Ordering::Relaxed);
        info!(
            id = "DHCPSRV_MEMFILE_LFC_PID_FILE",
            "the program did nothing, as some do if they find {what}; it is started again without this"
        );
        !self.shared.pause(Duration::ZERO)
    }

    /// Waits for the lock of the PID file, but only briefly if the manager is closing: the process
    /// that holds the lock may be suspended.
    fn lock(&self) -> Result<PidLock<'a>, Failure> {
        let start = Instant::now();
        let pause = PAUSES.1;
        loop {
            if let Some(lock) = PidLock::try_take(self.fs(), &self.files.pid)? {
                return Ok(lock);
            }
            if self.shared.pause(pause) {
                if start.elapsed() > GRACE {
                    return Err(Failure::Locked(lock_path(&self.files.pid)));
                }
                thread::sleep(pause);
            }
        }
    }

    /// Prepares the files for a cleanup. Called under the lock of the PID file.
    fn prepare(&self) -> Result<(), Failure> {
        let LfcFiles { input, output, .. } = &self.files;
        // Kea's program trusts any finish file, and appends to an existing output file.
        let is_finished = self.is_finished()?;
        match self.fs().remove(output) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", output, error));
            }
            _ => {}
        }
        let journal = &self.shared.journal;
        let is_linked = || journal.is_linked(input).map_err(|error| io_error("open", input, error));
        if !is_finished && (!self.exists(input)? || is_linked()?) {
            self.shared.watch();
            journal.rotate(input)?;
        } else {
            info!(id = "DHCPSRV_MEMFILE_LFC_RESUME", "an interrupted cleanup is completed first");
        }
        Ok(())
    }

    /// Starts the program, gives it the lock, and writes it into the PID file.
    fn start(&self, program: &Path, lock: &PidLock<'_>, claim: &Claim) -> Option<Process> {
        let arguments = program::arguments(self.shared.config.family, &self.files);
        let process = claim
            .descriptor()
            .and_then(|descriptor| Process::start(program, &arguments, descriptor, Captured::Errors))
            .inspect_err(|error| {
                error!(
                    id = "DHCPSRV_MEMFILE_LFC_SPAWN_FAIL",
                    "cannot start {}: {error}; a thread of this process does the cleanup",
                    program.display()
                );
            })
            .ok()?;
        let pid = process.pid();
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        info!(
            id = "DHCPSRV_MEMFILE_LFC_EXECUTE",
            "process {pid} cleans up: {} {}",
            program.display(),
            words.join(" ")
        );
        if self.shared.handover() == Handover::PidAndLock
            && let Err(error) = lock.write(pid)
        {
            // The program writes the PID file as well, and fails if it cannot.
            warn!(id = "DHCPSRV_MEMFILE_LFC_FAIL_PID_CREATE", "{}", with_sources(&error));
        }
        Some(process)
    }

    /// Waits for the process, and checks its result.
    fn supervise(
        &self,
        mut process: Process,
        given_lock: Option<ProcessLock>,
        program: &Path,
    ) -> Result<(), Failure> {
        let pid = process.pid();
        let end = self.wait(&mut process).or_else(|| process.stop(GRACE));
        if end.is_none() {
            // The process may still change the files.
            if let Some(lock) = given_lock {
                lock.leave();
            }
            return Err(Failure::Unstoppable(pid));
        }
        let removed = self.lock().and_then(|lock| Ok(lock.remove_if_of(pid)?));
        if let Err(error) = removed {
            warn!(id = "DHCPSRV_MEMFILE_LFC_FAIL_PID_DEL", "{}", with_sources(&error));
        }
        drop(given_lock);
        let message = process.message();
        match end {
            Some(End::Status(status)) if !status.success() => {
                return Err(Failure::Exit { program: program.to_owned(), status, message });
            }
            Some(End::Status(_)) => {}
            Some(End::Unknown) | None => {
                debug!(id = "DHCPSRV_MEMFILE_LFC_UNKNOWN_END", "the exit status of process {pid} is unknown");
            }
        }
        // Kea's program exits with 0 even if it has failed, or found another cleanup.
        for path in [&self.files.input, &self.files.finish] {
            if self.exists(path)? {
                return Err(Failure::NotDone { program: program.to_owned(), path: path.clone(), message });
            }
        }
        Ok(())
    }

    /// Returns how the process ended; `None` if the manager is closing.
    fn wait(&self, process: &mut Process) -> Option<End> {
        let start = Instant::now();
        let mut time_limit = self.shared.interval();
        let mut last_check = start;
        let (mut pause, longest) = PAUSES;
        loop {
            if let Some(end) = process.end() {
                return Some(end);
            }
            if self.shared.pause(pause) {
                return None;
            }
            pause = (pause * 2).min(longest);
            if last_check.elapsed() >= WATCH_INTERVAL {
                self.shared.watch();
                last_check = Instant::now();
            }
            if time_limit.take_if(|time_limit| start.elapsed() > *time_limit).is_some() {
                warn!(
                    id = "DHCPSRV_MEMFILE_LFC_SLOW",
                    "the cleanup by process {} takes longer than the interval; if it makes no progress, end the \
                     process: the next cleanup completes its work",
                    process.pid()
                );
            }
        }
    }

    /// Runs the cleanup in this process, on a thread of lower priority if one can be started.
    fn clean_in_thread(&mut self, pid_file: PidFile<'_>) -> Result<(), Failure> {
        let cleanup = self.cleanup();
        let work = || {
            // On Linux, the priority is that of the thread, and of the threads that it starts.
            if cfg!(target_os = "linux") {
                let _ = rustix::process::nice(NICE);
            }
            cleanup.run_claimed()
        };
        let result = thread::scope(|scope| {
            match thread::Builder::new().name("lease-cleanup".to_owned()).spawn_scoped(scope, work) {
                Ok(thread) => thread.join().map_err(|panic| Failure::Panicked(panic_message(panic.as_ref()))),
                Err(_) => Ok(cleanup.run_claimed()),
            }
        })?;
        if let Outcome::Cleaned { read, written } = lfc::end(pid_file, result)? {
            self.rows =
                Some(CleanupRows { read: read.leases, invalid: read.errors, written: written.leases });
        }
        Ok(())
    }

    fn cleanup(&self) -> Cleanup<'a> {
        let shared = self.shared;
        // The other half of the processors is left to the clients.
        let threads = thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        Cleanup::new(shared.config.family, self.files.clone())
            .file_system(self.fs())
            .monitor(&shared.monitor)
            .threads(threads)
    }

    fn is_finished(&self) -> Result<bool, LfcError> {
        match self.shared.config.family {
            Family::V4 => self.cleanup().is_finished::<Lease4>(),
            Family::V6 => self.cleanup().is_finished::<Lease6>(),
        }
    }

    fn fs(&self) -> &'a dyn FileSystem {
        self.shared.config.fs.as_ref()
    }

    fn exists(&self, path: &Path) -> Result<bool, Failure> {
        match self.fs().open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("open", path, error)),
        }
    }

    /// Returns the total size in bytes of the files that a cleanup reads or writes.
    fn bytes(&self) -> u64 {
        let LfcFiles { previous, input, finish, .. } = &self.files;
        let bytes = |path: &PathBuf| self.fs().open(path).and_then(|file| file.len()).unwrap_or(0);
        [previous, input, finish].map(bytes).iter().sum()
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Failure {
    LfcError::Io { action, path: path.to_owned(), source }.into()
}
