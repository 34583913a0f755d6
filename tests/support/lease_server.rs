//! The example `lease_server` as a process that is killed, what it has acknowledged before, and what is found afterwards.

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

/// How many threads of the server serve clients.
pub(crate) const THREADS: usize = 4;
/// The server deletes so many reclaimed leases with one write.
const BATCH: usize = 256;
/// Who waits longer than this waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom the server serves, and how it keeps its leases.
pub(crate) struct Setting {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) family: Family,
    pub(crate) durability: &'static str,
    /// What it starts for a cleanup; `None` is nothing, it cleans up itself.
    pub(crate) program: Option<&'static str>,
    /// Seconds between cleanups.
    pub(crate) lfc_interval: u32,
    pub(crate) clients: u32,
    /// Seconds that a lease is valid.
    pub(crate) lifetime: u32,
    /// More of its options.
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

    /// How many addresses the leases of the clients are from.
    fn pool(&self) -> u32 {
        self.clients + self.clients / 4 + 1
    }

    /// Starts a server, and adds to the history what it tells.
    pub(crate) fn start(&self, history: History) -> Server {
        self.start_with(history, |_| {})
    }

    /// The same for a server with something of its own, as in its environment.
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

    /// Opens the leases as the next server would, and waits for a cleanup that is still running.
    pub(crate) fn open<L: ManagedLease + FileLease>(&self) -> Arc<dyn LeaseMgr<L>> {
        let start = Instant::now();
        loop {
            let opened = memfile::open(
                MemfileOptions::at(self.path(""))
                    .lfc_interval(None)
                    // A kill may tear a row, which may be there still at the next.
                    .max_row_errors(2)
                    .lfc_program(LfcProgram::Internal),
            );
            match opened {
                Err(OpenError::CleanupRunning { .. }) if start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// The program that the server has started for a cleanup, if it is running.
    pub(crate) fn running_program(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.path(".pid")).unwrap_or_default();
        let pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)?;
        // The number may be somebody else's by now.
        let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(&self.path(".pid").display().to_string()).then_some(pid)
    }

    /// Kills the program that the server has started for a cleanup, if it is running.
    pub(crate) fn kill_program(&self) {
        if let Some(pid) = self.running_program() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// How many bytes wait for a cleanup.
    pub(crate) fn journal_size(&self) -> u64 {
        ["", ".1"].iter().map(|suffix| fs::metadata(self.path(suffix)).map_or(0, |file| file.len())).sum()
    }

    /// The files that a cleanup is about.
    pub(crate) fn situation(&self) -> String {
        let suffixes = [".1", ".output", ".completed", ".pid"];
        let there: Vec<_> = suffixes.into_iter().filter(|suffix| self.path(suffix).exists()).collect();
        if there.is_empty() { "none".to_owned() } else { there.join(" ") }
    }
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    errors: PathBuf,
    /// How many lines were read so far.
    lines: Arc<AtomicUsize>,
    reader: JoinHandle<History>,
}

/// Adds lines to the history up to the end, and counts them.
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

    /// How many lines it has told so far.
    pub(crate) fn lines(&self) -> usize {
        self.lines.load(Ordering::Relaxed)
    }

    /// What it has said of itself so far.
    pub(crate) fn report(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    /// Makes sure that it runs, and that what it has told makes sense.
    pub(crate) fn check(&mut self, when: &str) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{status} {when}: {}", self.report());
        }
        assert!(!self.reader.is_finished(), "what it told {when} was refused, see above");
    }

    pub(crate) fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(usize) -> bool) {
        let start = Instant::now();
        while !is_so(self.lines()) {
            self.check(&format!("before {what}"));
            assert!(start.elapsed() < PATIENCE, "not yet {what} after {:?}", start.elapsed());
            thread::yield_now();
        }
    }

    /// Kills it, and gives the history with what it has told, and the number of these lines.
    pub(crate) fn kill(mut self) -> (History, usize) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.reader.join().unwrap(), self.lines.load(Ordering::Relaxed))
    }

    /// Asks it to end and waits for that; gives the history with what it has told, and what it has said of itself.
    pub(crate) fn end(mut self) -> (History, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let errors = fs::read_to_string(&self.errors).unwrap();
        assert!(status.success(), "{status}: {errors}");
        (self.reader.join().unwrap(), errors)
    }
}

/// What is known of an address: the number of its last change, and what that was. In the order of time.
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

/// What servers have acknowledged, and what was left of it.
#[derive(Default)]
pub(crate) struct History {
    known: BTreeMap<IpAddr, Last>,
    /// Leases that clients wanted to release.
    releasing: BTreeSet<(IpAddr, u64)>,
    /// Leases that were given to a client when, as far as told, another had them: the numbers of the last change for that one, and of the
    /// gift. They were reclaimed in between, by another thread, which tells of it later.
    gifts: BTreeMap<IpAddr, (u64, u64)>,
}

impl History {
    /// Takes in what a server has told.
    pub(crate) fn read(&mut self, line: &str) {
        // Each line was written with one call.
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
        // Lines of several threads may be in another order than the changes.
        if known.is_some_and(|known| last < known) {
            self.explain(address, last);
            return;
        }
        match known {
            None | Some(Last { what: What::Deleted, .. }) => {
                assert!(word == "added" || known == Some(last), "{text}: there was none, but {known:?}");
            }
            Some(Last { number: before, what: What::InUse }) if word == "added" || word == "reassigned" => {
                if !self.is_released(address, before) {
                    let twice = self.gifts.insert(address, (before, number));
                    assert!(twice.is_none(), "{text}: given to others at {twice:?} and {before}");
                }
            }
            Some(_) => self.explain(address, last),
        }
        self.known.insert(address, last);
    }

    /// Whether a client wanted to release the lease that came from this change, or a later one.
    fn is_released(&self, address: IpAddr, number: u64) -> bool {
        self.releasing.range((address, number)..=(address, u64::MAX)).next().is_some()
    }

    /// A change that may be how a lease became free to be given to another client.
    fn explain(&mut self, address: IpAddr, last: Last) {
        if let Some((before, gift)) = self.gifts.get(&address)
            && (*before..*gift).contains(&last.number)
            && last.what != What::InUse
        {
            self.gifts.remove(&address);
        }
    }

    /// Compares with what was found in the files, which is what is known from then on. Gives how many changes had been made
    /// and not been acknowledged.
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
                // Deleted when its time had come, many at a time.
                deleted += 1;
            }
            self.known.insert(address, Last { what: What::Deleted, ..known });
        }
        self.releasing.clear();
        // Each thread makes one change at a time, and the one that reclaims leases too.
        assert!(newer <= THREADS + 1, "{newer} changes by {THREADS} threads were not acknowledged");
        assert!(deleted <= BATCH + 1, "{deleted} leases were not acknowledged to be deleted");
        // The one that reclaims leases had made one change more than it has told.
        assert!(self.gifts.len() <= 1, "given to a client while another had it: {:?}", self.gifts);
        newer + deleted + std::mem::take(&mut self.gifts).len()
    }
}

/// A lease of a client of the server.
pub(crate) trait OfClient: ManagedLease + FileLease {
    /// The number of the client.
    fn number_of_client(&self) -> u32;

    /// Whether the rest is as it must be for this client.
    fn is_for(&self, client: u32) -> bool;

    /// The number of the address in the pool.
    fn place(&self) -> u128;
}

impl OfClient for Lease4 {
    fn number_of_client(&self) -> u32 {
        number_in(self.hwaddr().unwrap().as_bytes(), &[2, 0])
    }

    fn is_for(&self, client: u32) -> bool {
        match self.client_id() {
            Some(id) => client % 2 == 1 && number_in(id.as_bytes(), &[1, 2, 0]) == client,
            None => client.is_multiple_of(2),
        }
    }

    fn place(&self) -> u128 {
        u128::from(self.address().to_bits()) - u128::from(Ipv4Addr::new(10, 0, 0, 1).to_bits())
    }
}

impl OfClient for Lease6 {
    fn number_of_client(&self) -> u32 {
        number_in(self.duid().as_bytes(), &[0, 3, 0, 1, 2, 0])
    }

    fn is_for(&self, client: u32) -> bool {
        let hwaddr = self.hwaddr().unwrap().as_bytes();
        let (kind, len) = if client % 4 == 3 { (LeaseType::PD, 64) } else { (LeaseType::NA, 128) };
        self.iaid().0 == client
            && number_in(hwaddr, &[2, 0]) == client
            && (self.lease_type(), self.prefix_len()) == (kind, len)
    }

    fn place(&self) -> u128 {
        let address = self.address().to_bits();
        if self.lease_type() == LeaseType::PD {
            (address - Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0).to_bits()) >> 64
        } else {
            address - Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).to_bits()
        }
    }
}

/// The number behind these bytes.
fn number_in(bytes: &[u8], prefix: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.strip_prefix(prefix).unwrap().try_into().unwrap())
}

/// The change that a lease comes from. That it is one that the server makes is looked at too.
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
        let client = lease.number_of_client();
        assert!(client < setting.clients && lease.is_for(client), "{lease:?}");
        format!("client-{client}.example.org")
    };
    let data = lease.data();
    assert_eq!(data.hostname.as_bytes(), hostname.as_bytes(), "{lease:?}");
    assert_eq!(data.subnet_id, SubnetId(1), "{lease:?}");
    let valid_lifetime = if what == What::Declined { 10 } else { setting.lifetime };
    assert_eq!(data.valid_lifetime.0, valid_lifetime, "{lease:?}");
    assert!(lease.place() < setting.pool().into(), "{lease:?}");
    let number = data.user_context.as_ref().and_then(|context| context.get("change")?.as_u64());
    Last { number: number.unwrap_or_else(|| panic!("{lease:?}")), what }
}

/// The changes that all leases come from. That no client has two is looked at too.
pub(crate) fn last_changes<L: OfClient>(
    setting: &Setting,
    leases: &dyn LeaseMgr<L>,
) -> BTreeMap<IpAddr, Last> {
    let mut has_lease = vec![false; setting.clients as usize];
    let mut look_at = |lease: &L| {
        let last = last_change(setting, lease);
        if last.what == What::InUse {
            let client = lease.number_of_client();
            let had_one = std::mem::replace(&mut has_lease[client as usize], true);
            assert!(!had_one, "client {client} has another lease besides {lease:?}");
        }
        (lease.address().into(), last)
    };
    leases.all().unwrap().iter().map(&mut look_at).collect()
}

/// Cleans up, and waits for the end of it.
pub(crate) fn clean<L: OfClient>(leases: &dyn LeaseMgr<L>) {
    assert_eq!(leases.clean_up().unwrap(), CleanupStart::Requested);
    let start = Instant::now();
    loop {
        if let Some(report) = leases.status().cleanup.unwrap().last {
            assert_eq!(report.failure, None);
            return;
        }
        assert!(start.elapsed() < PATIENCE, "no cleanup");
        thread::sleep(Duration::from_millis(1));
    }
}
