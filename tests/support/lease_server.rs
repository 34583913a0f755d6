//! Runs the example `lease_server` as a process, kills it, and compares what it acknowledged with
//! its files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a part of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use leasemgr::lease::{Family, Lease4, Lease6, LeaseState, LeaseType, SubnetId};
use leasemgr::lease_file::FileLease;
use leasemgr::memfile::{self, LfcProgram, MemfileOptions, OpenError};
use leasemgr::{CleanupStart, LeaseMgr, LeaseMgrExt, ManagedLease};
use rustix::process::{Pid, Signal, kill_process};

/// Number of server threads that serve clients.
pub(crate) const THREADS: usize = 4;
/// Maximum number of reclaimed leases that the server deletes with one write.
const BATCH: usize = 256;
/// Maximum time to wait for anything.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The configuration of a server.
pub(crate) struct Setting {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) family: Family,
    pub(crate) durability: &'static str,
    /// Program that the server starts for a cleanup; `None` for a cleanup in a thread.
    pub(crate) program: Option<&'static str>,
    /// Interval between cleanups, in seconds.
    pub(crate) lfc_interval: u32,
    pub(crate) clients: u32,
    /// Valid lifetime of a lease, in seconds.
    pub(crate) lifetime: u32,
    /// Additional command-line options.
    pub(crate) options: Vec<String>,
}

impl Setting {
    pub(crate) fn path(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("leases.csv{suffix}"))
    }

    fn connection(&self) -> String {
        let universe = if self.family == Family::V4 { 4 } else { 6 };
        let (name, durability) = (self.path("").display().to_string(), self.durability);
        let interval = self.lfc_interval;
        format!(
            "type=memfile universe={universe} name={name} durability={durability} lfc-interval={interval}"
        )
    }

    /// Returns the number of addresses in the pool.
    fn pool(&self) -> u32 {
        self.clients + self.clients / 4 + 1
    }

    /// Starts a server whose output is added to the history.
    pub(crate) fn start(&self, history: History) -> Server {
        self.start_with(history, |_| {})
    }

    /// Starts a server as [`start`](Self::start) does, after `prepare` has changed its command (for
    /// example its environment).
    pub(crate) fn start_with(&self, history: History, prepare: impl FnOnce(&mut Command)) -> Server {
        let own = std::env::current_exe().unwrap();
        let program = own.parent().and_then(Path::parent).unwrap().join("examples/lease_server");
        assert!(program.exists(), "{}: build it with cargo build --example lease_server", program.display());
        let errors = self.directory.path().join("errors");
        let mut command = Command::new(program);
        command
            .arg(self.connection())
            .args(["--threads", &THREADS.to_string(), "--clients", &self.clients.to_string()])
            .args(["--lifetime", &self.lifetime.to_string()])
            .args(&self.options)
            .env("KEA_LFC_EXECUTABLE", self.program.unwrap_or("/nowhere/kea-lfc"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = Arc::new(AtomicUsize::new(0));
        let reader = {
            let lines = Arc::clone(&lines);
            thread::spawn(move || read_all(stdout, history, &lines))
        };
        Server { child, errors, lines, reader }
    }

    /// Opens the leases after a server has ended, and waits for a cleanup that is still running.
    pub(crate) fn open<L: ManagedLease + FileLease>(&self) -> Arc<dyn LeaseMgr<L>> {
        let start = Instant::now();
        loop {
            let opened = memfile::open(
                MemfileOptions::at(self.path(""))
                    .lfc_interval(None)
                    // A kill may leave a torn row, and the next kill another one.
                    .max_row_errors(2)
                    .lfc_program(LfcProgram::Internal),
            );
            match opened {
                Err(OpenError::CleanupRunning { .. }) if start.elapsed() < TIMEOUT => {
                    thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// Returns the process of the cleanup program that the server has started, if it is running.
    pub(crate) fn running_program(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path(".pid")).unwrap_or_default();
        let pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)?;
        // The PID may belong to another process by now.
        let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&self.path(".pid").display().to_string()).then_some(pid)
    }

    /// Kills the cleanup program that the server has started, if it is running.
    pub(crate) fn kill_program(&self) {
        if let Some(pid) = self.running_program() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Returns the number of bytes that are not cleaned up yet.
    pub(crate) fn journal_size(&self) -> u64 {
        ["", ".1"].iter().map(|suffix| fs::metadata(self.path(suffix)).map_or(0, |file| file.len())).sum()
    }

    /// Returns the suffixes of the cleanup files that exist.
    pub(crate) fn situation(&self) -> String {
        let suffixes = [".1", ".output", ".completed", ".pid"];
        let there: Vec<_> = suffixes.into_iter().filter(|suffix| self.path(suffix).exists()).collect();
        if there.is_empty() { "none".to_owned() } else { there.join(" ") }
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    errors: PathBuf,
    /// Number of lines read so far.
    lines: Arc<AtomicUsize>,
    reader: JoinHandle<History>,
}

/// Reads lines into the history until the end of the output, and counts them.
fn read_all(stdout: ChildStdout, mut history: History, count: &AtomicUsize) -> History {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    while stdout.read_line(&mut line).unwrap() > 0 {
        history.read(&line);
        line.clear();
        count.fetch_add(1, Ordering::Relaxed);
    }
    history
}

impl Server {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the number of lines that the server has written so far.
    pub(crate) fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }

    /// Returns what the server has written to standard error so far.
    pub(crate) fn report(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    /// Panics if the server has ended or has written an inconsistent line.
    pub(crate) fn check(&mut self, when: &str) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{status} {when}: {}", self.report());
        }
        assert!(!self.reader.is_finished(), "its output {when} was inconsistent, see above");
    }

    pub(crate) fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(usize) -> bool) {
        let start = Instant::now();
        while !is_so(self.lines()) {
            self.check(&format!("before {what}"));
            assert!(start.elapsed() < TIMEOUT, "timed out waiting until {what}, after {:?}", start.elapsed());
            thread::yield_now();
        }
    }

    /// Kills the server. Returns the history and the number of lines that were read.
    pub(crate) fn kill(mut self) -> (History, usize) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.reader.join().unwrap(), self.lines.load(Ordering::Relaxed))
    }

    /// Ends the server with SIGTERM. Returns the history and the text on standard error.
    pub(crate) fn end(mut self) -> (History, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let errors = fs::read_to_string(&self.errors).unwrap();
        assert!(status.success(), "{status}: {errors}");
        (self.reader.join().unwrap(), errors)
    }
}

/// The last known change of an address. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Last {
    pub(crate) number: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    InUse,
    Declined,
    Reclaimed,
    Deleted,
}

/// The changes that servers have acknowledged, compared with the files after each kill.
#[derive(Default)]
pub(crate) struct History {
    known: BTreeMap<IpAddr, Last>,
    /// Leases that clients have asked to release.
    releasing: BTreeSet<(IpAddr, u64)>,
    /// Leases that were assigned to another client before the end of the old lease was
    /// acknowledged: the numbers of the old client's last change and of the assignment. Another
    /// thread has reclaimed the lease in between and acknowledges it later.
    reassigned: BTreeMap<IpAddr, (u64, u64)>,
}

impl History {
    /// Records a line of a server.
    pub(crate) fn read(&mut self, line: &str) {
        // Each line is written with one call.
        let text = line.strip_suffix('\n').unwrap_or_else(|| panic!("half a line: {line:?}"));
        let mut words = text.split(' ');
        let (Some(word), Some(address), Some(number), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            panic!("{line:?}");
        };
        let (address, number): (IpAddr, u64) = (address.parse().unwrap(), number.parse().unwrap());
        let what = match word {
            "added" | "renewed" | "reassigned" => What::InUse,
            "declined" => What::Declined,
            "reclaimed" => What::Reclaimed,
            "deleted" => What::Deleted,
            "releasing" => {
                self.releasing.insert((address, number));
                return;
            }
            _ => panic!("{line:?}"),
        };
        let last = Last { number, what };
        let known = self.known.get(&address).copied();
        // Lines of different threads may be in another order than the changes.
        if known.is_some_and(|known| last < known) {
            self.record_reassignment(address, last);
            return;
        }
        match known {
            None | Some(Last { what: What::Deleted, .. }) => {
                assert!(
                    word == "added" || known == Some(last),
                    "{text}: without a lease; last change: {known:?}"
                );
            }
            Some(Last { number: before, what: What::InUse }) if word == "added" || word == "reassigned" => {
                if !self.is_released(address, before) {
                    let twice = self.reassigned.insert(address, (before, number));
                    assert!(twice.is_none(), "{text}: assigned to others at {twice:?} and {before}");
                }
            }
            Some(_) => self.record_reassignment(address, last),
        }
        self.known.insert(address, last);
    }

    /// Returns whether a client has asked to release the lease of this change or of a later one.
    fn is_released(&self, address: IpAddr, number: u64) -> bool {
        self.releasing.range((address, number)..=(address, u64::MAX)).next().is_some()
    }

    /// Records a change that may have freed an address before it was reassigned.
    fn record_reassignment(&mut self, address: IpAddr, last: Last) {
        if let Some((before, assignment)) = self.reassigned.get(&address)
            && (*before..*assignment).contains(&last.number)
            && last.what != What::InUse
        {
            self.reassigned.remove(&address);
        }
    }

    /// Compares the history with the leases found in the files, and continues from these. Returns
    /// the number of changes that were made but not acknowledged.
    pub(crate) fn compare(&mut self, found: &BTreeMap<IpAddr, Last>) -> usize {
        let (mut newer, mut deleted) = (0, 0);
        for (address, found) in found {
            match self.known.get(address) {
                Some(known) if found == known => {}
                Some(known) => {
                    assert!(found.number > known.number, "{address}: {known:?} is {found:?} in the files");
                    newer += 1;
                }
                None => newer += 1,
            }
            self.known.insert(*address, *found);
        }
        let missing: Vec<_> = self
            .known
            .iter()
            .filter(|(address, known)| known.what != What::Deleted && !found.contains_key(*address))
            .map(|(address, known)| (*address, *known))
            .collect();
        for (address, known) in missing {
            if known.what == What::InUse {
                assert!(self.is_released(address, known.number), "{address}: {known:?} is not in the files");
                newer += 1;
            } else {
                // Deleted in a batch after its expiry.
                deleted += 1;
            }
            self.known.insert(address, Last { what: What::Deleted, ..known });
        }
        self.releasing.clear();
        // Each client thread and the reclaiming thread have at most one unacknowledged change.
        assert!(newer <= THREADS + 1, "{newer} changes by {THREADS} threads were not acknowledged");
        assert!(deleted <= BATCH + 1, "{deleted} leases were not acknowledged to be deleted");
        // The reclaiming thread has at most one unacknowledged change.
        assert!(
            self.reassigned.len() <= 1,
            "assigned to a client while another had it: {:?}",
            self.reassigned
        );
        newer + deleted + std::mem::take(&mut self.reassigned).len()
    }
}

/// A lease of a client of the server.
pub(crate) trait OfClient: ManagedLease + FileLease {
    /// Returns the number of the client.
    fn client_number(&self) -> u32;

    /// Returns whether the other fields of the lease are those of this client.
    fn is_for(&self, client: u32) -> bool;

    /// Returns the index of the address in the pool.
    fn pool_index(&self) -> u128;
}

impl OfClient for Lease4 {
    fn client_number(&self) -> u32 {
        number_in(self.hwaddr().unwrap().as_bytes(), &[2, 0])
    }

    fn is_for(&self, client: u32) -> bool {
        match self.client_id() {
            Some(id) => client % 2 == 1 && number_in(id.as_bytes(), &[1, 2, 0]) == client,
            None => client.is_multiple_of(2),
        }
    }

    fn pool_index(&self) -> u128 {
        u128::from(self.address().to_bits()) - u128::from(Ipv4Addr::new(10, 0, 0, 1).to_bits())
    }
}

impl OfClient for Lease6 {
    fn client_number(&self) -> u32 {
        number_in(self.duid().as_bytes(), &[0, 3, 0, 1, 2, 0])
    }

    fn is_for(&self, client: u32) -> bool {
        let hwaddr = self.hwaddr().unwrap().as_bytes();
        let (kind, len) = if client % 4 == 3 { (LeaseType::PD, 64) } else { (LeaseType::NA, 128) };
        self.iaid().0 == client
            && number_in(hwaddr, &[2, 0]) == client
            && (self.lease_type(), self.prefix_len()) == (kind, len)
    }

    fn pool_index(&self) -> u128 {
        let address = self.address().to_bits();
        if self.lease_type() == LeaseType::PD {
            (address - Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0).to_bits()) >> 64
        } else {
            address - Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).to_bits()
        }
    }
}

/// Returns the number that follows a prefix.
fn number_in(bytes: &[u8], prefix: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.strip_prefix(prefix).unwrap().try_into().unwrap())
}

/// Returns the change that wrote a lease. Panics if the server makes no such lease.
pub(crate) fn last_change<L: OfClient>(setting: &Setting, lease: &L) -> Last {
    let what = match lease.state() {
        LeaseState::DEFAULT => What::InUse,
        LeaseState::DECLINED => What::Declined,
        LeaseState::EXPIRED_RECLAIMED => What::Reclaimed,
        other => panic!("state {other}: {lease:?}"),
    };
    let hostname = if what == What::Declined {
        String::new()
    } else {
        let client = lease.client_number();
        assert!(client < setting.clients && lease.is_for(client), "{lease:?}");
        format!("client-{client}.example.org")
    };
    let data = lease.data();
    assert_eq!(data.hostname.as_bytes(), hostname.as_bytes(), "{lease:?}");
    assert_eq!(data.subnet_id, SubnetId(1), "{lease:?}");
    let valid_lifetime = if what == What::Declined { 10 } else { setting.lifetime };
    assert_eq!(data.valid_lifetime.0, valid_lifetime, "{lease:?}");
    assert!(lease.pool_index() < setting.pool().into(), "{lease:?}");
    let number = data.user_context.as_ref().and_then(|context| context.get("change")?.as_u64());
    Last { number: number.unwrap_or_else(|| panic!("{lease:?}")), what }
}

/// Returns the changes that wrote these leases. Panics if a client has two leases.
pub(crate) fn last_changes<L: OfClient>(
    setting: &Setting,
    leases: &dyn LeaseMgr<L>,
) -> BTreeMap<IpAddr, Last> {
    let mut has_lease = vec![false; setting.clients as usize];
    let mut look_at = |lease: &L| {
        let last = last_change(setting, lease);
        if last.what == What::InUse {
            let client = lease.client_number();
            let had_one = std::mem::replace(&mut has_lease[client as usize], true);
            assert!(!had_one, "client {client} has another lease besides {lease:?}");
        }
        (lease.address().into(), last)
    };
    leases.all().unwrap().iter().map(&mut look_at).collect()
}

/// Cleans up, and waits until the cleanup has ended.
pub(crate) fn clean<L: OfClient>(leases: &dyn LeaseMgr<L>) {
    assert_eq!(leases.clean_up().unwrap(), CleanupStart::Requested);
    let start = Instant::now();
    loop {
        if let Some(report) = leases.status().cleanup.unwrap().last {
            assert_eq!(report.failure, None);
            return;
        }
        assert!(start.elapsed() < TIMEOUT, "timed out waiting for the cleanup");
        thread::sleep(Duration::from_millis(1));
    }
}
