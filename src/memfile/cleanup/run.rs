//! One cleanup, from the rotation of the journal to what is left in the end.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, error, info, warn};

use super::process::{End, GRACE, Heard, Process};
use super::program::{self, Chooser};
use super::version::FileVersion;
use super::{Given, Shared, WATCH};
use crate::fs::{FileSystem, ProcessLock};
use crate::lease::{Family, Lease4, Lease6};
use crate::lease_file::{Conversion, FileLease, Header, read_file};
use crate::lease_mgr::{CleanupReport, CleanupRows, CleanupWork};
use crate::lfc::pid_file::{Claim, Claimed, PidFile, PidFileError, PidLock, lock_path};
use crate::lfc::{self, Cleanup, LfcError, LfcFiles, Outcome, RunningCleanup};
use crate::memfile::journal::RotateError;
use crate::panics::panic_message;
use crate::with_sources::with_sources;

/// A process is looked after at intervals that grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How far the priority of a cleanup in this process is lowered, as `kea-lfc` does it.
const NICE: i32 = 4;

/// Why a cleanup came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Cleanup(#[from] LfcError),
    #[error("the journal was not set aside for the cleanup")]
    Rotate(#[from] RotateError),
    #[error("{0}")]
    Running(RunningCleanup),
    #[error("another process holds the lock of {}, and the lease manager comes to its end; end that process", .0.display())]
    Locked(PathBuf),
    #[error("the lease manager comes to its end")]
    Ending,
    #[error("{}: {status}{}", program.display(), Reason(words))]
    Exit { program: PathBuf, status: ExitStatus, words: String },
    #[error("{}: it ended, but {} is still there{}", program.display(), path.display(), Reason(words))]
    Undone { program: PathBuf, path: PathBuf, words: String },
    #[error("process {0} cannot be ended")]
    Immortal(i32),
    #[error("it panicked: {0}")]
    Panicked(String),
}

impl From<PidFileError> for Failure {
    fn from(error: PidFileError) -> Self {
        LfcError::from(error).into()
    }
}

/// What a program has said in the end, which is why it failed.
struct Reason<'a>(&'a str);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

/// What does a cleanup that has begun.
enum Worker<'a, 'p> {
    /// A process of this program, and the lock that it was given.
    Process(Process, &'p Path, Option<ProcessLock>),
    /// This process, which is in the PID file.
    Here(PidFile<'a>),
}

/// One cleanup.
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

    /// Does the cleanup, and tells how that went.
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
                "the cleanup took {duration:.3?}: {bytes_before} bytes of lease files are {bytes_after} now"
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
                Worker::Process(process, program, lock) => match self.attend(process, lock, program) {
                    Err(Failure::Undone { .. }) if self.gives_less() => {}
                    result => {
                        if result.is_ok() {
                            self.look_at_result(program);
                        }
                        return result;
                    }
                },
                Worker::Here(pid_file) => {
                    self.work = CleanupWork::Thread;
                    return self.clean_here(pid_file);
                }
            }
        }
    }

    /// Finds out whether a program, which may not have told its version, has written an older file than the journal. Then it is not used again.
    fn look_at_result(&self, program: &Path) {
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
                "{} has written {} in version {version}, and dropped newer columns: it is not used again; name a newer program, or internal",
                program.display(),
                path.display()
            );
            self.shared.answers.learn(program, files);
        }
    }

    /// Makes sure that there is something to clean up and no other cleanup, and starts the program, if it is to be one.
    fn begin<'p>(&mut self, program: Option<&'p Path>) -> Result<Worker<'a, 'p>, Failure> {
        let lock = self.lock()?;
        let claimed = match program {
            Some(_) if self.shared.given() != Given::Nothing => lock.claim_for_process()?,
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
            // Until this lock is given up, the process waits for it.
            Some((process, program)) => Worker::Process(process, program, claim.given()),
            None => Worker::Here(lock.hold(claim)?),
        })
    }

    /// After a program has done nothing, though it ended well: whether it is worth another try, which is at most twice in
    /// the life of a manager.
    ///
    /// Kea's program does nothing up to version 2.2 if the PID file names it, and neither does any that is not the
    /// process which was started but a child of that. And this project's program does nothing if a script that starts it does not hand on
    /// the lock. From now on, programs write the PID file themselves, and then also take the lock themselves.
    fn gives_less(&self) -> bool {
        let (less, what) = match self.shared.given() {
            Given::NumberAndLock => (Given::Lock, "in the PID file"),
            Given::Lock => (Given::Nothing, "in the PID file, or the lock taken"),
            Given::Nothing => return false,
        };
        self.shared.given.store(less as u8, Ordering::Relaxed);
        info!(
            id = "DHCPSRV_MEMFILE_LFC_PID_FILE",
            "the program did nothing, as some do if they find themselves {what}; it is started again without that"
        );
        !self.shared.pause(Duration::ZERO)
    }

    /// Waits for the lock of the PID file, but not long when the manager comes to its end: whoever has the lock may have
    /// stopped for good.
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

    /// Puts the files in order for a cleanup. To be called under the lock of the PID file.
    fn prepare(&self) -> Result<(), Failure> {
        let LfcFiles { input, output, .. } = &self.files;
        // Kea's program takes any finish file for good, and appends to an output file that is there.
        let is_finished = self.is_finished()?;
        match self.fs().remove(output) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", output, error));
            }
            _ => {}
        }
        let journal = &self.shared.journal;
        let is_linked = || journal.is_linked(input).map_err(|error| io_error("look at", input, error));
        if !is_finished && (!self.exists(input)? || is_linked()?) {
            self.shared.watch();
            journal.rotate(input)?;
        } else {
            info!(id = "DHCPSRV_MEMFILE_LFC_RESUME", "an interrupted cleanup is done first");
        }
        Ok(())
    }

    /// Starts the program, gives it the lock, and writes it into the PID file.
    fn start(&self, program: &Path, lock: &PidLock<'_>, claim: &Claim) -> Option<Process> {
        let arguments = program::arguments(self.shared.config.family, &self.files);
        let process = claim
            .descriptor()
            .and_then(|descriptor| Process::start(program, &arguments, descriptor, Heard::Errors))
            .inspect_err(|error| {
                error!(
                    id = "DHCPSRV_MEMFILE_LFC_SPAWN_FAIL",
                    "cannot start {}: {error}; this process cleans up itself",
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
        if self.shared.given() == Given::NumberAndLock
            && let Err(error) = lock.write(pid)
        {
            // The process does the same, and fails if it cannot.
            warn!(id = "DHCPSRV_MEMFILE_LFC_FAIL_PID_CREATE", "{}", with_sources(&error));
        }
        Some(process)
    }

    /// Waits for the process, and looks at what it has done.
    fn attend(
        &self,
        mut process: Process,
        given: Option<ProcessLock>,
        program: &Path,
    ) -> Result<(), Failure> {
        let pid = process.pid();
        let end = self.wait(&mut process).or_else(|| process.stop(GRACE));
        if end.is_none() {
            // It may change the files still.
            if let Some(lock) = given {
                lock.leave();
            }
            return Err(Failure::Immortal(pid));
        }
        let removed = self.lock().and_then(|lock| Ok(lock.remove_if_of(pid)?));
        if let Err(error) = removed {
            warn!(id = "DHCPSRV_MEMFILE_LFC_FAIL_PID_DEL", "{}", with_sources(&error));
        }
        drop(given);
        let words = process.words();
        match end {
            Some(End::Status(status)) if !status.success() => {
                return Err(Failure::Exit { program: program.to_owned(), status, words });
            }
            Some(End::Status(_)) => {}
            Some(End::Unknown) | None => {
                debug!(id = "DHCPSRV_MEMFILE_LFC_UNKNOWN_END", "how process {pid} ended is not known");
            }
        }
        // Kea's program ends well even if it has failed, or found another one at work.
        for path in [&self.files.input, &self.files.finish] {
            if self.exists(path)? {
                return Err(Failure::Undone { program: program.to_owned(), path: path.clone(), words });
            }
        }
        Ok(())
    }

    /// How the process ended; `None` if the manager comes to its end before it.
    fn wait(&self, process: &mut Process) -> Option<End> {
        let start = Instant::now();
        let mut patience = self.shared.interval();
        let mut looked = start;
        let (mut pause, longest) = PAUSES;
        loop {
            if let Some(end) = process.end() {
                return Some(end);
            }
            if self.shared.pause(pause) {
                return None;
            }
            pause = (pause * 2).min(longest);
            if looked.elapsed() >= WATCH {
                self.shared.watch();
                looked = Instant::now();
            }
            if patience.take_if(|patience| start.elapsed() > *patience).is_some() {
                warn!(
                    id = "DHCPSRV_MEMFILE_LFC_SLOW",
                    "the cleanup by process {} takes longer than the time between two; if it makes no progress, end that \
                     process: the next cleanup does its work",
                    process.pid()
                );
            }
        }
    }

    /// Does the cleanup in this process, on a thread of lower priority if there is one to be had.
    fn clean_here(&mut self, pid_file: PidFile<'_>) -> Result<(), Failure> {
        let cleanup = self.cleanup();
        let work = || {
            // On Linux, the priority is that of the thread, and of those that it starts.
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
        // The other half of the processors is for clients.
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

    /// Bytes of the files that a cleanup starts from or ends with.
    fn bytes(&self) -> u64 {
        let LfcFiles { previous, input, finish, .. } = &self.files;
        let bytes = |path: &PathBuf| self.fs().open(path).and_then(|file| file.len()).unwrap_or(0);
        [previous, input, finish].map(bytes).iter().sum()
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Failure {
    LfcError::Io { action, path: path.to_owned(), source }.into()
}
