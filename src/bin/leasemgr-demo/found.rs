//! The leases in the store after the kill, compared with the acknowledged changes.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use leasemgr::LeaseMgrExt;
use leasemgr::lease::Lease4;
use leasemgr::memfile::{self, LfcProgram, MemfileOptions, OpenRetries};

use crate::Outcome;
use crate::server::Reports;
use crate::steps::{Action, Step, Steps};

/// Opening waits for a cleanup that the killed process has started.
const RETRIES: OpenRetries = OpenRetries { tries: 600, wait: Duration::from_millis(100) };

/// The leases of a thread, and its changes.
#[derive(Default)]
struct OfThread {
    added: u64,
    renewed: u64,
    deleted: u64,
    /// Leases that must be in the store.
    expected: u64,
    /// Leases with their last acknowledged change.
    right: u64,
    missing: u64,
    /// Leases without their last acknowledged change.
    older: u64,
    /// Deleted leases that are in the store.
    back: u64,
    /// Leases in the store that no step made.
    unknown: u64,
    /// Whether the step that was not acknowledged was made.
    last_was_made: bool,
}

/// The leases of all threads, and the number of cleanups.
pub(crate) struct Found {
    threads: Vec<OfThread>,
    cleanups: u64,
    /// Number of leases with addresses of no thread.
    others: usize,
}

impl Found {
    /// Opens the store again and compares its leases with the reports.
    pub(crate) fn new(file: &Path, program: &Path, reports: &Reports) -> Outcome<Self> {
        let options = MemfileOptions::at(file)
            .lfc_interval(None)
            .open_retries(RETRIES)
            .lfc_program(LfcProgram::Program(program.to_owned()));
        let leases = memfile::open::<Lease4>(options)?;
        let mut found = HashMap::new();
        for lease in leases.all()? {
            found.insert(lease.address(), Step::number_of(&lease)?);
        }
        let threads = (0..).zip(reports.acknowledged).map(|(n, number)| OfThread::new(n, number, &mut found));
        Ok(Self { threads: threads.collect(), cleanups: reports.cleanups, others: found.len() })
    }

    /// Returns whether the store has every acknowledged change, and no other.
    ///
    /// # Errors
    /// Returns the reason if there were too few changes or cleanups.
    pub(crate) fn is_right(&self) -> Outcome<bool> {
        if self.cleanups == 0 {
            return Err("no cleanup has ended".into());
        }
        if self.threads.iter().any(|thread| thread.added == 0 || thread.renewed == 0 || thread.deleted == 0) {
            return Err("a thread has not made every kind of change".into());
        }
        let wrong = |thread: &OfThread| thread.missing + thread.older + thread.back + thread.unknown;
        Ok(self.others == 0 && self.threads.iter().all(|thread| wrong(thread) == 0))
    }
}

impl OfThread {
    /// Takes the leases of the thread out of those that were found.
    fn new(thread: u32, acknowledged: u64, found: &mut HashMap<Ipv4Addr, u64>) -> Self {
        let mut of_thread = Self::default();
        let mut steps = Steps::new(thread);
        for _ in 0..acknowledged {
            match steps.next().map(|step| step.action) {
                Some(Action::Add) => of_thread.added += 1,
                Some(Action::Renew) => of_thread.renewed += 1,
                Some(Action::Delete) => of_thread.deleted += 1,
                None => {}
            }
        }
        // The kill may have come between the last change and its report.
        let mut after = steps.clone();
        let last = after.next().map(|step| step.address);
        for ((address, expected), (_, if_made)) in steps.leases().zip(after.leases()) {
            let found = found.remove(&address);
            if Some(address) == last && found == if_made {
                of_thread.last_was_made = true;
            }
            let expected = if of_thread.last_was_made && Some(address) == last { if_made } else { expected };
            of_thread.expected += u64::from(expected.is_some());
            match (expected, found) {
                (Some(expected), Some(found)) if found == expected => of_thread.right += 1,
                (Some(expected), Some(found)) if found < expected => of_thread.older += 1,
                (Some(_), None) => of_thread.missing += 1,
                (None, Some(found)) if found <= acknowledged => of_thread.back += 1,
                (_, Some(_)) => of_thread.unknown += 1,
                (None, None) => {}
            }
        }
        of_thread
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:34}", "")?;
        (1..=self.threads.len()).try_for_each(|n| write!(f, "{:>12}", format!("thread {n}")))?;
        writeln!(f)?;
        let mut row = |name: &str, cell: &dyn Fn(&OfThread) -> String| {
            write!(f, "{name:<34}")?;
            self.threads.iter().try_for_each(|thread| write!(f, "{:>12}", cell(thread)))?;
            writeln!(f)
        };
        row("leases added", &|thread| thread.added.to_string())?;
        row("leases renewed", &|thread| thread.renewed.to_string())?;
        row("leases deleted", &|thread| thread.deleted.to_string())?;
        row("leases to be found", &|thread| thread.expected.to_string())?;
        row("found as acknowledged", &|thread| thread.right.to_string())?;
        row("missing", &|thread| thread.missing.to_string())?;
        row("without the last change", &|thread| thread.older.to_string())?;
        row("deleted, but found", &|thread| thread.back.to_string())?;
        row("never made, but found", &|thread| thread.unknown.to_string())?;
        row("change that was not acknowledged", &|thread| {
            if thread.last_was_made { "made" } else { "not made" }.to_owned()
        })?;
        writeln!(f, "\ncleanups by kea-lfc: {}", self.cleanups)
    }
}
