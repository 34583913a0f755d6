//! The cleanup of the lease files of a running manager: when it is done, by what, and how it went.
//!
//! A [`Cleaner`] has a thread that waits until a cleanup is due or asked for, and sees to it meanwhile that the lease file keeps its name. Then the journal is renamed, and a
//! program, or the thread itself, makes one file of it and the result of the cleanup before. If a cleanup was
//! interrupted, its files are there still: it is done again, and the journal keeps its name until the next one.
//!
//! Which process works at the files is in the PID file, and it holds a lock as long as it lives ([`crate::lfc::pid_file`]): a program gets that lock
//! as its standard input. From the look at both until the process that was started is in the PID file, the lock of that
//! is held, so that no two cleanups, of whatever servers, are at the same files. Programs take the
//! PID file for themselves once more, which those that were written for older servers do not if they are in it.

mod process;
mod program;
mod run;
#[cfg(test)]
mod tests;
mod version;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
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

/// How often it is seen to that nobody has taken the lease file away.
const WATCH: Duration = Duration::from_secs(1);

/// What is cleaned up, when, and by what.
#[derive(Debug)]
pub(crate) struct CleanerConfig {
    pub(crate) family: Family,
    pub(crate) files: LeaseFileSet,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) program: LfcProgram,
    /// The time from the start of one cleanup to that of the next. `None` and zero are never.
    pub(crate) interval: Option<Duration>,
    /// Whether the first cleanup is at the start.
    pub(crate) at_once: bool,
    /// Looks after the lease file: called every [`WATCH`], and before each rotation.
    pub(crate) watch: Watch,
}

/// What looks after the lease file.
pub(crate) struct Watch(pub(crate) Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Has the lease files cleaned up, from time to time and when asked.
///
/// When it is dropped, a cleanup in this process is cancelled, a program has a short while to finish and is then
/// stopped, and no thread and no process of it is left.
pub(crate) struct Cleaner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and the users of the cleaner share.
struct Shared {
    config: CleanerConfig,
    journal: Arc<Journal>,
    monitor: Monitor,
    /// What programs have said of themselves.
    answers: Answers,
    /// What a program is given, one of [`Given`].
    given: AtomicU8,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a program that does a cleanup finds done when it starts. Some programs take that for another cleanup: see `Run::gives_less`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Given {
    /// It is in the PID file, and has the lock.
    NumberAndLock,
    Lock,
    Nothing,
}

#[derive(Default)]
struct State {
    ending: bool,
    /// Whether somebody has asked for a cleanup that has not begun yet.
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
    /// Where there is no thread to be had.
    pub(crate) fn start(config: CleanerConfig, journal: Arc<Journal>) -> io::Result<Self> {
        let state = Mutex::new(State { wanted: config.at_once, ..State::default() });
        let shared = Shared {
            config,
            journal,
            monitor: Monitor::default(),
            answers: Answers::default(),
            given: AtomicU8::new(Given::NumberAndLock as u8),
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

    /// Has a cleanup done now, unless one is running, of this manager or of any process.
    pub(crate) fn request(&self) -> CleanupStart {
        if self.shared.is_cleaned_by_others() {
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
            // It catches panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Does one cleanup after the other, when they are due.
    fn work(&self) {
        while self.wait_for_work() {
            info!(id = "DHCPSRV_MEMFILE_LFC_START", "the lease files are to be cleaned up");
            let report = Run::new(self).report();
            let mut state = self.state.lock();
            state.running = false;
            *if report.failure.is_none() { &mut state.succeeded } else { &mut state.failed } += 1;
            state.last = Some(report);
        }
    }

    /// Waits until a cleanup is due or asked for, and notes that it runs. `false` is the end.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while !(state.ending || state.wanted || state.due.is_some_and(|due| due <= Instant::now())) {
            let left =
                state.due.map_or(WATCH, |due| due.saturating_duration_since(Instant::now()).min(WATCH));
            if self.changed.wait_for(&mut state, left).timed_out() {
                MutexGuard::unlocked(&mut state, || self.watch());
            }
        }
        state.wanted = false;
        // If this one takes longer than the interval, the next one follows it at once.
        state.due = self.due_next();
        state.running = !state.ending;
        state.running
    }

    /// Waits, and tells whether the manager comes to its end.
    fn pause(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.ending {
            self.changed.wait_for(&mut state, time);
        }
        state.ending
    }

    /// Returns whether a cleanup is running, of this manager or another process.
    ///
    /// What keeps this from being known, such as a file that cannot be read, is the failure of the cleanup that is tried then.
    fn is_cleaned_by_others(&self) -> bool {
        /// How long the lock of the PID file is waited for. Nothing holds it for long.
        const PATIENCE: Duration = Duration::from_secs(1);
        const PAUSE: Duration = Duration::from_millis(5);
        let start = Instant::now();
        let pid_file = self.config.files.pid_path();
        loop {
            if self.state.lock().running {
                return true;
            }
            match PidLock::try_take(self.config.fs.as_ref(), &pid_file) {
                Ok(Some(lock)) => return lock.running().is_ok_and(|running| running.is_some()),
                Ok(None) if start.elapsed() < PATIENCE => thread::sleep(PAUSE),
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// What a program that is started is given.
    fn given(&self) -> Given {
        let given = self.given.load(Ordering::Relaxed);
        [Given::NumberAndLock, Given::Lock]
            .into_iter()
            .find(|one| *one as u8 == given)
            .unwrap_or(Given::Nothing)
    }

    /// Looks whether other processes have changed the lease file.
    fn watch(&self) {
        (self.config.watch.0)();
    }

    fn interval(&self) -> Option<Duration> {
        self.config.interval.filter(|interval| !interval.is_zero())
    }

    /// When the next cleanup is due, if one begins now.
    fn due_next(&self) -> Option<Instant> {
        self.interval().and_then(|interval| Instant::now().checked_add(interval))
    }
}
