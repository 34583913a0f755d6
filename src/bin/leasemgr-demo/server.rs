//! The process that holds the store.

use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use leasemgr::lease::Lease4;
use leasemgr::{CleanupWork, LeaseMgr, LeaseMgrFactory, with_sources};

use crate::steps::Steps;
use crate::{Outcome, THREADS};

/// The first argument of the child process.
pub(crate) const ARGUMENT: &str = "--hold-store";

/// The line that reports a cleanup.
const CLEANUP: &str = "cleanup";

/// Changes leases, and reports each change after it was acknowledged, until it is killed.
pub(crate) fn run(connection: &str) -> Outcome {
    let leases = LeaseMgrFactory::<Lease4>::new().open(connection)?;
    let leases = leases.as_ref();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || end_at_error(change_leases(leases, thread)));
        }
        end_at_error(watch_cleanups(leases));
    });
    Ok(())
}

/// Ends the process, whatever its other threads do.
fn end_at_error(result: Outcome) {
    if let Err(error) = result {
        eprintln!("the process that holds the store: {}", with_sources(error.as_ref()));
        std::process::exit(1);
    }
}

fn change_leases(leases: &dyn LeaseMgr<Lease4>, thread: u32) -> Outcome {
    for step in Steps::new(thread) {
        step.make(leases)?;
        report(&format!("{thread} {}\n", step.number))?;
    }
    Ok(())
}

fn watch_cleanups(leases: &dyn LeaseMgr<Lease4>) -> Outcome {
    let mut known = 0;
    loop {
        let cleanup = leases.status().cleanup.unwrap_or_default();
        if cleanup.failed > 0 {
            let failure = cleanup.last.and_then(|report| report.failure);
            return Err(format!("a cleanup failed: {}", failure.unwrap_or_default()).into());
        }
        if cleanup.succeeded > known {
            known = cleanup.succeeded;
            match cleanup.last.map(|report| report.work) {
                Some(CleanupWork::Program(_)) => report(&format!("{CLEANUP} {known}\n"))?,
                work => return Err(format!("a cleanup was made by {work:?}").into()),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a line with one call, so that a kill leaves no part of a line.
fn report(line: &str) -> Outcome {
    // The lock lasts until the line is written, so that lines of two threads do not mix.
    let mut stdout = stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// The reports of the process.
#[derive(Default)]
pub(crate) struct Reports {
    /// The number of the last acknowledged step of each thread.
    pub(crate) acknowledged: [u64; THREADS as usize],
    pub(crate) cleanups: u64,
}

impl Reports {
    fn add(&mut self, line: &str) -> Outcome {
        let unexpected = || format!("unexpected report: {line:?}");
        let (what, number) = line.split_once(' ').ok_or_else(unexpected)?;
        let number = number.parse().map_err(|_| unexpected())?;
        if what == CLEANUP {
            self.cleanups = number;
            return Ok(());
        }
        let thread: usize = what.parse().map_err(|_| unexpected())?;
        let last = self.acknowledged.get_mut(thread).ok_or_else(unexpected)?;
        if number != *last + 1 {
            return Err(unexpected().into());
        }
        *last = number;
        Ok(())
    }
}

/// The process, from the side of its parent.
pub(crate) struct Server {
    child: Child,
    cleanups: Arc<AtomicU64>,
    reader: JoinHandle<Outcome<Reports>>,
}

impl Server {
    pub(crate) fn start(connection: &str) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, connection])
            // These variables restrict or override the paths of the store and of the cleanup
            // program.
            .env_remove("KEA_DHCP_DATA_DIR")
            .env_remove("KEA_LFC_EXECUTABLE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no pipe")?;
        let cleanups = Arc::new(AtomicU64::new(0));
        let so_far = Arc::clone(&cleanups);
        let reader = thread::spawn(move || {
            let mut reports = Reports::default();
            for line in BufReader::new(stdout).lines() {
                reports.add(&line?)?;
                so_far.store(reports.cleanups, Ordering::Relaxed);
            }
            Ok(reports)
        });
        Ok(Self { child, cleanups, reader })
    }

    pub(crate) fn is_running(&mut self) -> Outcome<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Returns the number of cleanups that have ended so far.
    pub(crate) fn cleanups(&self) -> u64 {
        self.cleanups.load(Ordering::Relaxed)
    }

    /// Kills the process, and returns what it has reported before.
    pub(crate) fn kill(mut self) -> Outcome<Reports> {
        let ended = self.child.try_wait()?;
        self.child.kill()?;
        self.child.wait()?;
        let reports = self.reader.join().map_err(|_| "the reader of the reports panicked")??;
        match ended {
            Some(status) => Err(format!("the process that holds the store ended by itself: {status}").into()),
            None => Ok(reports),
        }
    }
}
