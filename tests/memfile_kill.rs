//! The example `lease_server` is killed at any moment, again and again, on real files.
//!
//! Whatever it has acknowledged is there when the files are opened: as it was acknowledged, or as one of the few
//! changes left it that were just being made. `LEASEMGR_KILLS` is how often it is killed in each case.

#![cfg(feature = "kea-lfc")]
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

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

use leasemgr::lease::{Family, Lease, Lease4, Lease6, LeaseState, LeaseType, SubnetId};
use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions, OpenError};
use leasemgr::{CleanupStart, LeaseMgr, LeaseMgrExt, ManagedLease};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use support::Random;

/// How often the server is killed in each case where the environment does not say otherwise.
const KILLS: usize = 10;
const THREADS: usize = 4;
const CLIENTS: u32 = 2000;
/// The leases of the server's clients are from the first so many addresses.
const POOL: u32 = CLIENTS + CLIENTS / 4 + 1;
/// The server deletes so many reclaimed leases with one write.
const BATCH: usize = 256;
/// So much is acknowledged at least before the server is killed.
const LINES: usize = 100;
/// A journal that is longer than this, in bytes, is cleaned up between two servers.
const JOURNAL_LIMIT: u64 = 2 << 20;
/// Who waits longer than this waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the server keeps its leases.
struct Setting {
    folder: tempfile::TempDir,
    family: Family,
    durability: &'static str,
    /// What it starts for a cleanup; `None` is nothing, it cleans up itself.
    program: Option<&'static str>,
}

impl Setting {
    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("leases.csv{suffix}"))
    }

    fn connection(&self) -> String {
        let universe = if self.family == Family::V4 { 4 } else { 6 };
        let (name, durability) = (self.path("").display().to_string(), self.durability);
        format!("type=memfile universe={universe} name={name} durability={durability} lfc-interval=1")
    }

    fn start(&self) -> Server {
        let own = std::env::current_exe().unwrap();
        let program = own.parent().and_then(Path::parent).unwrap().join("examples/lease_server");
        assert!(program.exists(), "{}: build it with cargo build --example lease_server", program.display());
        let errors = self.folder.path().join("errors");
        let mut child = Command::new(program)
            .arg(self.connection())
            .args(["--threads", &THREADS.to_string(), "--clients", &CLIENTS.to_string(), "--lifetime", "2"])
            .args(["--clean-up-after", "200"])
            .env("KEA_LFC_EXECUTABLE", self.program.unwrap_or("/nowhere/kea-lfc"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = Arc::new(AtomicUsize::new(0));
        let reader = {
            let lines = Arc::clone(&lines);
            thread::spawn(move || read_all(stdout, &lines))
        };
        Server { child, errors, lines, reader }
    }

    /// Opens the leases as the next server would, and waits for a cleanup that is still running.
    fn open<L: ManagedLease>(&self) -> Memfile<L> {
        let start = Instant::now();
        loop {
            let opened = Memfile::open(MemfileOptions {
                file: Some(self.path("")),
                lfc_interval: None,
                // A kill may tear a row, which may be there still at the next.
                max_row_errors: Some(2),
                lfc_program: LfcProgram::Internal,
                ..MemfileOptions::default()
            });
            match opened {
                Err(OpenError::CleanupRunning { .. }) if start.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// Kills the program that the server has started for a cleanup, if it is running.
    fn kill_program(&self) {
        let text = fs::read_to_string(self.path(".pid")).unwrap_or_default();
        let Some(pid) = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw)
        else {
            return;
        };
        // The number may be somebody else's by now.
        let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(&self.path(".pid").display().to_string()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// How many bytes wait for a cleanup.
    fn journal_size(&self) -> u64 {
        ["", ".1"].iter().map(|suffix| fs::metadata(self.path(suffix)).map_or(0, |file| file.len())).sum()
    }

    /// The files that a cleanup is about.
    fn situation(&self) -> String {
        let suffixes = [".1", ".output", ".completed", ".pid"];
        let there: Vec<_> = suffixes.into_iter().filter(|suffix| self.path(suffix).exists()).collect();
        if there.is_empty() { "none".to_owned() } else { there.join(" ") }
    }
}

/// A server that runs.
struct Server {
    child: Child,
    errors: PathBuf,
    /// How many lines were read so far.
    lines: Arc<AtomicUsize>,
    reader: JoinHandle<Vec<String>>,
}

/// Reads lines up to the end, and counts them.
fn read_all(stdout: ChildStdout, count: &AtomicUsize) -> Vec<String> {
    let mut stdout = BufReader::new(stdout);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).unwrap() == 0 {
            return lines;
        }
        lines.push(line);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Server {
    fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(usize) -> bool) {
        let start = Instant::now();
        while !is_so(self.lines.load(Ordering::Relaxed)) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{status} before {what}: {}", fs::read_to_string(&self.errors).unwrap());
            }
            assert!(start.elapsed() < PATIENCE, "not yet {what} after {:?}", start.elapsed());
            thread::yield_now();
        }
    }

    /// Kills it, and gives all that it has told.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.join().unwrap()
    }

    /// Asks it to end and waits for that; gives all that it has told, and what it has said of itself.
    fn end(mut self) -> (Vec<String>, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let errors = fs::read_to_string(&self.errors).unwrap();
        assert!(status.success(), "{status}: {errors}");
        (self.reader.join().unwrap(), errors)
    }
}

/// What is known of an address: the number of its last change, and what that was. In the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Last {
    number: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    InUse,
    Declined,
    Reclaimed,
    Deleted,
}

/// What a server has acknowledged, and what was left of it.
#[derive(Default)]
struct History {
    known: BTreeMap<IpAddr, Last>,
    /// Leases that clients wanted to release.
    releasing: BTreeSet<(IpAddr, u64)>,
}

impl History {
    /// Takes in what a server has told.
    fn read(&mut self, lines: &[String]) {
        for line in lines {
            // Each of them was written with one call.
            let text = line.strip_suffix('\n').unwrap_or_else(|| panic!("half a line: {line:?}"));
            let [word, address, number] = text.split(' ').collect::<Vec<_>>()[..] else {
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
                    continue;
                }
                _ => panic!("{line:?}"),
            };
            let last = Last { number, what };
            // Lines of several threads may be in another order than the changes.
            self.known.entry(address).and_modify(|known| *known = last.max(*known)).or_insert(last);
        }
    }

    /// Compares with what was found in the files, which is what is known from then on. Gives how many changes had been made
    /// and not been acknowledged.
    fn compare(&mut self, found: &BTreeMap<IpAddr, Last>) -> usize {
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
        for (address, known) in self.known.iter_mut().filter(|(address, _)| !found.contains_key(*address)) {
            match known.what {
                What::Deleted => continue,
                What::InUse => {
                    let is_released = self.releasing.contains(&(*address, known.number));
                    assert!(is_released, "{address}: {known:?} is not in the files");
                    newer += 1;
                }
                // Deleted when their time had come, many at a time.
                What::Declined | What::Reclaimed => deleted += 1,
            }
            known.what = What::Deleted;
        }
        self.releasing.clear();
        // Each thread makes one change at a time, and the one that reclaims leases too.
        assert!(newer <= THREADS + 1, "{newer} changes by {THREADS} threads were not acknowledged");
        assert!(deleted <= BATCH + 1, "{deleted} leases were not acknowledged to be deleted");
        newer + deleted
    }
}

/// A lease of a client of the server.
trait OfClient: ManagedLease {
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
        self.iaid.0 == client
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
fn last_change<L: OfClient>(lease: &L) -> Last {
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
        assert!(client < CLIENTS && lease.is_for(client), "{lease:?}");
        format!("client-{client}.example.org")
    };
    let data = lease.data();
    assert_eq!(data.hostname.as_bytes(), hostname.as_bytes(), "{lease:?}");
    assert_eq!(data.subnet_id, SubnetId(1), "{lease:?}");
    assert_eq!(data.valid_lifetime.0, if what == What::Declined { 10 } else { 2 }, "{lease:?}");
    assert!(lease.place() < POOL.into(), "{lease:?}");
    let number = data.user_context.as_ref().and_then(|context| context.get("change")?.as_u64());
    Last { number: number.unwrap_or_else(|| panic!("{lease:?}")), what }
}

fn last_changes<L: OfClient>(leases: &Memfile<L>) -> BTreeMap<IpAddr, Last> {
    leases.all().unwrap().iter().map(|lease| (lease.address().into(), last_change(lease))).collect()
}

/// When a server is killed, after it has acknowledged something.
#[derive(Clone, Copy, Debug)]
enum Moment {
    After(Duration),
    /// When this file appears, and some time after that.
    With(&'static str, Duration),
}

impl Moment {
    fn any(random: &mut Random) -> Self {
        let suffixes = [".1", ".pid", ".output", ".completed"];
        match suffixes.get(random.below(8) as usize) {
            Some(suffix) => Self::With(suffix, Duration::from_micros(random.below(300).into())),
            None => Self::After(Duration::from_millis(random.below(1500).into())),
        }
    }

    fn wait(self, server: &mut Server, setting: &Setting) {
        let start = Instant::now();
        match self {
            // A server that goes on is what is waited for.
            Self::After(time) => server.wait_until("some time has passed", |_| start.elapsed() >= time),
            Self::With(suffix, time) => {
                let path = setting.path(suffix);
                // Some of them are there for so short a time that it may never be seen.
                server.wait_until("a file is there", |_| path.exists() || start.elapsed().as_secs() >= 2);
                let seen = Instant::now();
                while seen.elapsed() < time {}
            }
        }
    }
}

fn kills() -> usize {
    std::env::var("LEASEMGR_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

#[rstest]
#[case::v4_written_program(Family::V4, "written", Some(env!("CARGO_BIN_EXE_kea-lfc")), 1)]
#[case::v4_synced_thread(Family::V4, "synced", None, 2)]
#[case::v6_written_thread(Family::V6, "written", None, 3)]
#[case::v6_synced_program(Family::V6, "synced", Some(env!("CARGO_BIN_EXE_kea-lfc")), 4)]
fn whenever_a_server_is_killed_what_it_has_acknowledged_is_found(
    #[case] family: Family,
    #[case] durability: &'static str,
    #[case] program: Option<&'static str>,
    #[case] seed: u64,
) {
    let setting = Setting { folder: tempfile::tempdir().unwrap(), family, durability, program };
    match family {
        Family::V4 => kill_again_and_again::<Lease4>(&setting, Random(seed)),
        Family::V6 => kill_again_and_again::<Lease6>(&setting, Random(seed)),
    }
}

fn kill_again_and_again<L: OfClient>(setting: &Setting, mut random: Random) {
    let mut history = History::default();
    let (mut lines, mut unacknowledged) = (0, 0);
    let mut situations = BTreeMap::<_, usize>::new();
    for n in 0..kills() {
        let moment = Moment::any(&mut random);
        let mut server = setting.start();
        server.wait_until("it has begun to acknowledge", |lines| lines >= LINES);
        moment.wait(&mut server, setting);
        let told = server.kill();
        *situations.entry(setting.situation()).or_default() += 1;
        // A power cut takes the program with the server.
        if random.below(2) == 0 {
            setting.kill_program();
        }
        lines += told.len();
        println!("kill {n}, {moment:?}: {} lines", told.len());
        history.read(&told);
        let leases = setting.open::<L>();
        unacknowledged += history.compare(&last_changes(&leases));
        // A server that is killed soon may never come to the end of a cleanup of its own.
        if setting.journal_size() > JOURNAL_LIMIT {
            clean(&leases);
            assert_eq!(history.compare(&last_changes(&leases)), 0);
        }
    }
    println!(
        "{} {}: {lines} lines, {unacknowledged} changes made and not acknowledged; files of a cleanup at the kills: {situations:?}",
        setting.family, setting.durability
    );

    // A server that is asked to end loses nothing at all, and can clean up what the others have left.
    let count = setting.open::<L>().all().unwrap().len();
    let mut server = setting.start();
    server.wait_until("it has acknowledged something", |lines| lines >= LINES);
    let (told, errors) = server.end();
    assert!(errors.contains(&format!("found {count} leases")), "{errors}");
    history.read(&told);
    let leases = setting.open::<L>();
    assert_eq!(history.compare(&last_changes(&leases)), 0);
    let before = leases.all().unwrap();
    clean(&leases);
    drop(leases);
    assert!(setting.open::<L>().all().unwrap() == before);
    assert_eq!(setting.situation(), "none");
}

fn clean<L: OfClient>(leases: &Memfile<L>) {
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
