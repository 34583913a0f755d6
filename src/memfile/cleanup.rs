//! The cleanups of the lease files of a running manager: when they run, what does them, and their
//! results.
//!
//! A [`Cleaner`] has a thread that waits until a cleanup is due or requested, and meanwhile checks
//! that the lease file keeps its name. For a cleanup, the journal is renamed, and a program, or the
//! thread itself, merges it with the result of the last cleanup. The files of an interrupted
//! cleanup are processed first, and the journal keeps its name until the next one.
//!
//! The PID file names the process that works on the files, and the process holds a lock until it
//! ends ([`crate::lfc::pid_file`]): a program inherits that lock as its standard input. The lock of
//! the PID file is held from the check of both until the PID file names the started process, so
//! that no two cleanups, of any servers, work on the same files. Programs claim the PID file again
//! for themselves, and programs that were written for older servers fail to do so if it already
//! names them.

#[cfg(test)]
#[cfg(shuttle)]
mod models;
mod process;
mod program;
mod run;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod version;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use tracing::info;

use run::Run;
use version::Answers;

use super::LfcProgram;
use super::journal::Journal;
use crate::fs::FileSystem;
use crate::lease::Family;
use crate::lease_file::LeaseFileSet;
use crate::lease_mgr::{CleanupReport, CleanupStart, CleanupStatus};
use crate::lfc::Monitor;
use crate::lfc::pid_file::PidLock;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// Interval between two checks that the lease file is unchanged.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The configuration of the cleanups.
#[derive(Debug)]
pub(crate) struct CleanerConfig {
    pub(crate) family: Family,
    pub(crate) files: LeaseFileSet,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) program: LfcProgram,
    /// The time from the start of one cleanup to that of the next. `None` and zero disable
    /// cleanups, except on request.
    pub(crate) interval: Option<Duration>,
    /// Whether the first cleanup runs at the start.
    pub(crate) at_once: bool,
    /// Checks the lease file: called every [`WATCH_INTERVAL`], and before each rotation.
    pub(crate) watch: Watch,
}

/// Checks the lease file.
pub(crate) struct Watch(pub(crate) Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Runs cleanups of the lease files, at intervals and on request.
///
/// Dropping it cancels a cleanup in this process; a program has a short time to finish and is then
/// stopped. It leaves no thread and no process.
pub(crate) struct Cleaner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The state shared by the thread and the users of the cleaner.
struct Shared {
    config: CleanerConfig,
    journal: Arc<Journal>,
    monitor: Monitor,
    /// The answers of programs about their version.
    answers: Answers,
    /// What a program is given, as a number of [`Handover`].
    handover: AtomicU8,
    state: Mutex<State>,
    changed: Condvar,
}

/// What is prepared for a program that does a cleanup. Some programs mistake this for another
/// cleanup: see `Run::reduce_handover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Handover {
    /// The PID file names the program, and it has the lock.
    PidAndLock,
    Lock,
    Nothing,
}

#[derive(Default)]
struct State {
    ending: bool,
    /// Whether a cleanup was requested and has not begun.
    wanted: bool,
    running: bool,
    due: Option<Instant>,
    last: Option<CleanupReport>,
    succeeded: u64,
    failed: u64,
}

impl Cleaner {
    /// Starts the thread.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(crate) fn start(config: CleanerConfig, journal: Arc<Journal>) -> io::Result<Self> {
        let state = Mutex::new(State { wanted: config.at_once, ..State::default() });
        let shared = Shared {
            config,
            journal,
            monitor: Monitor::default(),
            answers: Answers::default(),
            handover: AtomicU8::new(Handover::PidAndLock as u8),
            state,
            changed: Condvar::new(),
        };
        if let Some(interval) = shared.interval() {
            info!(id = "DHCPSRV_MEMFILE_LFC_SETUP", "the lease files are cleaned up every {interval:?}");
        }
        shared.state.lock().due = shared.due_next();
        let shared = Arc::new(shared);
        let work = {
            let shared = Arc::clone(&shared);
            move || shared.work()
        };
        let thread = thread::Builder::new().name("lease-cleaner".to_owned()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Requests a cleanup, unless one is running, of this manager or of any process.
    pub(crate) fn request(&self) -> CleanupStart {
        if self.shared.is_cleanup_running() {
            return CleanupStart::Running;
        }
        let mut state = self.shared.state.lock();
        if state.running {
            return CleanupStart::Running;
        }
        state.wanted = true;
        self.shared.changed.notify_all();
        CleanupStart::Requested
    }

    pub(crate) fn status(&self) -> CleanupStatus {
        let state = self.shared.state.lock();
        let now = Instant::now();
        let due = if state.wanted { Some(now) } else { state.due };
        CleanupStatus {
            running: state.running,
            last: state.last.clone(),
            succeeded: state.succeeded,
            failed: state.failed,
            next: due.and_then(|due| SystemTime::now().checked_add(due.saturating_duration_since(now))),
        }
    }
}

impl fmt::Debug for Cleaner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cleaner").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.shared.monitor.cancel();
        self.shared.state.lock().ending = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread catches panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Runs the cleanups that are due.
    fn work(&self) {
        while self.wait_for_work() {
            info!(id = "DHCPSRV_MEMFILE_LFC_START", "the cleanup of the lease files starts");
            let report = Run::new(self).report();
            let mut state = self.state.lock();
            state.running = false;
            *if report.failure.is_none() { &mut state.succeeded } else { &mut state.failed } += 1;
            state.last = Some(report);
        }
    }

    /// Waits until a cleanup is due or requested, and records that it runs. Returns `false` if the
    /// manager is closing.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while !(state.ending || state.wanted || state.due.is_some_and(|due| due <= Instant::now())) {
            let left = state.due.map_or(WATCH_INTERVAL, |due| {
                due.saturating_duration_since(Instant::now()).min(WATCH_INTERVAL)
            });
            if self.changed.wait_for(&mut state, left).timed_out() {
                MutexGuard::unlocked(&mut state, || self.watch());
            }
        }
        state.wanted = false;
        // If this cleanup takes longer than the interval, the next one follows at once.
        state.due = self.due_next();
        state.running = !state.ending;
        state.running
    }

    /// Waits. Returns whether the manager is closing.
    fn pause(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.ending {
            self.changed.wait_for(&mut state, time);
        }
        state.ending
    }

    /// Returns whether a cleanup is running, of this manager or of another process.
    ///
    /// Errors, such as an unreadable file, are reported by the cleanup that is attempted then.
    fn is_cleanup_running(&self) -> bool {
        /// Maximum time to wait for the lock of the PID file, which is only held briefly.
        const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
        const PAUSE: Duration = Duration::from_millis(5);
        let start = Instant::now();
        let pid_file = self.config.files.pid_path();
        loop {
            if self.state.lock().running {
                return true;
            }
            match PidLock::try_take(self.config.fs.as_ref(), &pid_file) {
                Ok(Some(lock)) => return lock.running().is_ok_and(|running| running.is_some()),
                Ok(None) if start.elapsed() < LOCK_TIMEOUT => thread::sleep(PAUSE),
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// Returns what a program is given when it is started.
    fn handover(&self) -> Handover {
        let given = self.handover.load(Ordering::Relaxed);
        [Handover::PidAndLock, Handover::Lock]
            .into_iter()
            .find(|one| *one as u8 == given)
            .unwrap_or(Handover::Nothing)
    }

    /// Checks whether other processes have changed the lease file.
    fn watch(&self) {
        (self.config.watch.0)();
    }

    fn interval(&self) -> Option<Duration> {
        self.config.interval.filter(|interval| !interval.is_zero())
    }

    /// Returns when the next cleanup is due, if one begins now.
    fn due_next(&self) -> Option<Instant> {
        self.interval().and_then(|interval| Instant::now().checked_add(interval))
    }
}
