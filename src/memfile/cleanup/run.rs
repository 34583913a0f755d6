//! One cleanup, from the rotation of the journal to what is left in the end.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, error, info, warn};

use super::process::{End, GRACE, Process};
use super::program;
use super::{Shared, WATCH};
use crate::fs::FileSystem;
use crate::lease::{Family, Lease4, Lease6};
use crate::lease_mgr::{CleanupReport, CleanupWork};
use crate::lfc::pid_file::PidLock;
use crate::lfc::{Cleanup, Figures, LfcError, LfcFiles, Outcome};
use crate::memfile::journal::RotateError;

/// A process is looked after at intervals that grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How far the priority of a cleanup in this process is lowered, as `kea-lfc` does it.
const NICE: i32 = 4;

/// Why a cleanup came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Cleanup(#[from] LfcError),
    #[error("the journal was not set aside for the cleanup: {0}")]
    Rotate(#[from] RotateError),
    #[error("process {0} is cleaning up these lease files")]
    Running(i32),
    #[error("somebody holds the lock of {}, and the lease manager comes to its end", .0.display())]
    Locked(PathBuf),
    #[error("{}: {status}", program.display())]
    Exit { program: PathBuf, status: ExitStatus },
    #[error("{}: it ended, but {} is still there", program.display(), path.display())]
    Undone { program: PathBuf, path: PathBuf },
    #[error("process {0} cannot be ended")]
    Immortal(i32),
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// One cleanup.
pub(super) struct Run<'a> {
    shared: &'a Shared,
    files: LfcFiles,
    work: CleanupWork,
    figures: Option<(Figures, Figures)>,
    bytes_before: u64,
}

impl<'a> Run<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let files = shared.config.files.lfc_files();
        Self { shared, files, work: CleanupWork::Thread, figures: None, bytes_before: 0 }
    }

    /// Does the cleanup, and tells how that went.
    pub(super) fn report(mut self) -> CleanupReport {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let result = catch_unwind(AssertUnwindSafe(|| self.clean()))
            .unwrap_or_else(|panic| Err(Failure::Panicked(text_of(panic.as_ref()))));
        let duration = clock.elapsed();
        let bytes_after = self.bytes();
        let Self { work, figures, bytes_before, .. } = self;
        match &result {
            Ok(()) => info!(
                id = "DHCPSRV_MEMFILE_LFC_END",
                "the cleanup took {duration:.3?}: {bytes_before} bytes of lease files are {bytes_after} now"
            ),
            Err(failure @ Failure::Running(_)) => {
                warn!(id = "DHCPSRV_MEMFILE_LFC_RUNNING", "no cleanup is started: {failure}");
            }
            Err(failure @ Failure::Rotate(_)) => {
                error!(id = "DHCPSRV_MEMFILE_LFC_LEASE_FILE_RENAME_FAIL", "no cleanup is started: {failure}");
            }
            Err(failure) => {
                error!(id = "DHCPSRV_MEMFILE_LFC_FAIL", "the cleanup failed after {duration:.3?}: {failure}");
            }
        }
        let failure = result.err().map(|failure| failure.to_string());
        CleanupReport { work, started, duration, failure, figures, bytes_before, bytes_after }
    }

    fn clean(&mut self) -> Result<(), Failure> {
        let program = program::choose(&self.shared.config.program);
        self.work = program.clone().map_or(CleanupWork::Thread, CleanupWork::Program);
        loop {
            let process = self.begin(program.as_deref())?;
            let (Some(process), Some(program)) = (process, &program) else {
                self.work = CleanupWork::Thread;
                return self.clean_here();
            };
            match self.attend(process, program) {
                Err(Failure::Undone { .. }) if self.leaves_pid_file_to_program() => {}
                result => return result,
            }
        }
    }

    /// Makes sure that there is something to clean up and nobody who does, and starts the program, if it is to be one.
    fn begin(&mut self, program: Option<&Path>) -> Result<Option<Process>, Failure> {
        let lock = self.lock()?;
        if let Some(pid) = lock.running()? {
            return Err(Failure::Running(pid));
        }
        self.prepare()?;
        let bytes = self.bytes();
        let process = program.and_then(|program| self.start(program, &lock));
        drop(lock);
        self.bytes_before = bytes;
        Ok(process)
    }

    /// After a program has done nothing, though it ended well: whether it is worth another try, which is at most once in
    /// the life of a manager.
    ///
    /// Kea's program does nothing up to version 2.2 if the PID file names it, and neither does any that is not the
    /// process which was started but a child of that. From now on, programs write the PID file themselves.
    fn leaves_pid_file_to_program(&self) -> bool {
        let is_new = !self.shared.programs_write_pid_file.swap(true, Ordering::Relaxed);
        if is_new {
            info!(
                id = "DHCPSRV_MEMFILE_LFC_PID_FILE",
                "the program did nothing, as some do if they find themselves in the PID file; it is started again without that"
            );
        }
        is_new && !self.shared.pause(Duration::ZERO)
    }

    /// Waits for the lock of the PID file, but not long when the manager comes to its end: whoever has the lock may have
    /// stopped for good.
    fn lock(&self) -> Result<PidLock<'_>, Failure> {
        let start = Instant::now();
        let pause = PAUSES.1;
        loop {
            if let Some(lock) = PidLock::try_take(self.fs(), &self.files.pid)? {
                return Ok(lock);
            }
            if self.shared.pause(pause) {
                if start.elapsed() > GRACE {
                    return Err(Failure::Locked(self.files.pid.clone()));
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
        if self.shared.journal.is_input() || !(is_finished || self.exists(input)?) {
            self.shared.journal.rotate(input)?;
        } else {
            info!(id = "DHCPSRV_MEMFILE_LFC_RESUME", "an interrupted cleanup is done first");
        }
        Ok(())
    }

    /// Starts the program, and writes it into the PID file.
    fn start(&self, program: &Path, lock: &PidLock<'_>) -> Option<Process> {
        let arguments = program::arguments(self.shared.config.family, &self.files);
        let process = Process::start(program, &arguments)
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
        if !self.shared.programs_write_pid_file.load(Ordering::Relaxed)
            && let Err(error) = lock.write(pid)
        {
            // The process does the same, and fails if it cannot.
            warn!(id = "DHCPSRV_MEMFILE_LFC_FAIL_PID_CREATE", "{error}");
        }
        Some(process)
    }

    /// Waits for the process, and looks at what it has done.
    fn attend(&self, mut process: Process, program: &Path) -> Result<(), Failure> {
        let pid = process.pid();
        let end = self.wait(&mut process).or_else(|| process.stop(GRACE));
        if end.is_some() {
            let removed = self.lock().and_then(|lock| Ok(lock.remove_if_of(pid)?));
            if let Err(error) = removed {
                warn!(id = "DHCPSRV_MEMFILE_LFC_FAIL_PID_DEL", "{error}");
            }
        }
        match end {
            None => return Err(Failure::Immortal(pid)),
            Some(End::Status(status)) if !status.success() => {
                return Err(Failure::Exit { program: program.to_owned(), status });
            }
            Some(End::Status(_)) => {}
            Some(End::Unknown) => {
                debug!(id = "DHCPSRV_MEMFILE_LFC_UNKNOWN_END", "how process {pid} ended is not known");
            }
        }
        // Kea's program ends well even if it has failed, or found another one at work.
        for path in [&self.files.input, &self.files.finish] {
            if self.exists(path)? {
                return Err(Failure::Undone { program: program.to_owned(), path: path.clone() });
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
                self.shared.journal.keep_name();
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
    fn clean_here(&mut self) -> Result<(), Failure> {
        let cleanup = self.cleanup();
        let work = || {
            // On Linux, the priority is that of the thread, and of those that it starts.
            if cfg!(target_os = "linux") {
                let _ = rustix::process::nice(NICE);
            }
            cleanup.run()
        };
        let outcome = thread::scope(|scope| {
            match thread::Builder::new().name("lease-cleanup".to_owned()).spawn_scoped(scope, work) {
                Ok(thread) => thread
                    .join()
                    .map_err(|panic| Failure::Panicked(text_of(panic.as_ref())))?
                    .map_err(Failure::from),
                Err(_) => cleanup.run().map_err(Failure::from),
            }
        })?;
        match outcome {
            Outcome::Cleaned { read, written } => self.figures = Some((read, written)),
            Outcome::Finished => {}
            Outcome::Running(pid) => return Err(Failure::Running(pid)),
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

/// What a panic says.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|&text| text.to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "for no known reason".to_owned())
}
