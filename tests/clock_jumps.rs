//! The system clock jumps while the example `lease_server` serves: a day forward, two days back,
//! and to and fro.
//!
//! After a kill, every acknowledged change must be found in the files and no deleted lease
//! restored. Cleanups keep their interval, clients are served, and leases expire by the new time.
//!
//! Only the clock of the server and its `kea-lfc` jumps: Debian's package `libfaketime` overrides
//! functions of the C library, and adds the offset in a file to the time. As on a system whose
//! clock is set, the monotonic clock does not jump.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leasemgr::LeaseMgrExt;
use leasemgr::lease::{Family, Lease4, Lease6};
use leasemgr::lease_file::LeaseFileSet;
use rstest::rstest;

use support::Random;
use support::lease_server::{
    History, Last, OfClient, Server, Setting, What, clean, last_change, last_changes,
};

const DAY: i64 = 86_400;
/// Minimum time that a server serves before and after each jump.
const PHASE: Duration = Duration::from_secs(5);
/// Maximum time for a status line, and for the work of a phase on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Number of cleanups in a phase; each begins a second after the one before.
const CLEANUPS: usize = 4;
/// Client messages in a second. Most make one change, some two.
const RATE: u32 = 1000;
/// Number of changes in a phase.
const CHANGES: usize = 2 * RATE as usize;
/// Maximum age of current leases, in seconds of the server's clock: much longer than leases are
/// valid, also on a slow machine, and much shorter than a day.
const PRESENT: i64 = 3600;
/// Time between jumps to and fro.
const STAY: Duration = Duration::from_millis(50);

/// The clock of a server and its programs.
struct Clock {
    library: PathBuf,
    directory: tempfile::TempDir,
    /// Seconds before the real time.
    ahead: i64,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { library: library(), directory: tempfile::tempdir().unwrap(), ahead: 0 };
        clock.write_offset();
        clock
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    /// Sets the clock to the real time plus `ahead` seconds.
    fn jump_to(&mut self, ahead: i64) {
        self.ahead = ahead;
        self.write_offset();
    }

    fn write_offset(&self) {
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{:+}\n", self.ahead)).unwrap();
        // A rename is atomic: readers never see a partial number.
        fs::rename(new, self.path()).unwrap();
    }

    fn now(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        i64::try_from(now).unwrap() + self.ahead
    }

    /// Makes a program and its child processes use this clock.
    fn set_for(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.path())
            // Without this, a jump takes effect after some seconds.
            .env("FAKETIME_NO_CACHE", "1")
            // The monotonic clock does not jump. Newer versions of the library use the second name.
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // It would override the file.
            .env_remove("FAKETIME");
    }

    /// Removes the shared memory that the library leaves for a killed process: it would break a
    /// later one with the same PID.
    fn clear_after(&self, process: u32) {
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            // Other versions of the library use other names, or none.
            let _ = fs::remove_file(format!("/dev/shm/{name}{process}"));
        }
    }
}

/// Returns the path of the library for programs with threads, in Debian's location.
fn library() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").unwrap().map(|directory| directory.unwrap().path());
    directories
        .map(|directory| directory.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .unwrap_or_else(|| {
            panic!(
                "there is no /usr/lib/*/faketime/libfaketimeMT.so.1, without which no clock can be set: \
                 install Debian's package libfaketime, as scripts/test does"
            )
        })
}

/// A running server, and the counts of its status lines so far.
struct Watched<'a> {
    setting: &'a Setting,
    server: Server,
    reports: usize,
    cleanups: usize,
    /// A moment before the server wrote the last status line.
    reported_after: Instant,
    /// Number of times that a program was seen to clean up with the same clock.
    programs: usize,
}

impl<'a> Watched<'a> {
    /// Starts a server, and waits until it serves clients.
    fn start(setting: &'a Setting, clock: &Clock, history: History) -> Self {
        let server = setting.start_with(history, |command| clock.set_for(command));
        let reported_after = Instant::now();
        let mut watched = Self { setting, server, reports: 0, cleanups: 0, reported_after, programs: 0 };
        watched.wait_for_report("the start", || {});
        watched
    }

    /// Waits for the next status line, which is written every second.
    fn wait_for_report(&mut self, when: &str, mut meanwhile: impl FnMut()) {
        let begin = Instant::now();
        loop {
            meanwhile();
            self.check_program();
            self.server.check(when);
            let look = Instant::now();
            let output = self.server.report();
            assert!(!output.contains("panicked") && !output.contains("refused"), "{when}: {output}");
            let reports: Vec<_> = output.split_inclusive('\n').filter_map(cleanups_in).collect();
            if let Some(&(done, failed)) = reports.last().filter(|_| reports.len() > self.reports) {
                assert_eq!(failed, 0, "{when}: {output}");
                (self.reports, self.cleanups) = (reports.len(), done);
                return;
            }
            self.reported_after = look;
            assert!(begin.elapsed() < TIMEOUT, "{when}: no status line after\n{output}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Checks whether a cleanup program is running, and uses the same clock.
    fn check_program(&mut self) {
        if let Some(program) = self.setting.running_program() {
            // It may have ended, or not have loaded its libraries yet.
            let maps = fs::read_to_string(format!("/proc/{}/maps", program.as_raw_nonzero()));
            self.programs += usize::from(maps.is_ok_and(|maps| maps.contains("/libfaketimeMT.so")));
        }
    }

    /// Lets the server serve for some time, at its usual rate.
    fn serve(&mut self, what: &str, mut meanwhile: impl FnMut()) {
        let (lines_before, cleanups_before, begin) =
            (self.server.lines(), self.cleanups, self.reported_after);
        loop {
            self.wait_for_report(what, &mut meanwhile);
            let (lines, cleanups) = (self.server.lines() - lines_before, self.cleanups - cleanups_before);
            let time = begin.elapsed();
            let news = format!("{lines} changes and {cleanups} cleanups in {time:.1?}");
            // A jump does not trigger the cleanups of the skipped time at once.
            assert!(cleanups as f64 <= time.as_secs_f64() + 3.0, "{what}: {news}");
            if time >= PHASE && lines >= CHANGES && cleanups >= CLEANUPS {
                println!("{} {what}: {news}", self.setting.family);
                return;
            }
            assert!(time < TIMEOUT, "{what}: only {news}");
        }
    }

    /// Returns the last transmission time of each lease in the files, and the change that wrote it.
    fn leases<L: OfClient>(&self) -> Vec<(i64, Last)> {
        let files = LeaseFileSet::new(self.setting.path("")).read::<L>().unwrap();
        files.leases.values().map(|lease| (lease.data().cltt, last_change(self.setting, lease))).collect()
    }

    /// Panics unless the newest lease is current and expired leases are reclaimed by this clock.
    fn check_time<L: OfClient>(&self, what: &str, clock: &Clock) {
        let leases = self.leases::<L>();
        let now = clock.now();
        let is_present = |cltt: i64| (now - PRESENT..=now).contains(&cltt);
        let in_use = || leases.iter().filter(|(_, last)| last.what == What::InUse);
        let (newest, _) = in_use().max_by_key(|(_, last)| last.number).unwrap();
        assert!(is_present(*newest), "{what}: it is {now}, but the newest lease is of {newest}");
        let (oldest, _) = in_use().min().unwrap();
        assert!(*oldest >= now - PRESENT, "{what}: it is {now}, and a lease of {oldest} has not expired");
        let reclaimed =
            leases.iter().filter(|(cltt, last)| last.what == What::Reclaimed && is_present(*cltt));
        assert!(reclaimed.count() > 0, "{what}: no lease made at {now} was reclaimed");
    }

    /// Kills the server, and looks for all acknowledged changes, before and after a cleanup.
    fn kill<L: OfClient>(self, clock: &Clock) -> History {
        // Cleanup programs run long enough to be seen.
        assert!(self.programs > 0, "{} cleanups, none of which was seen to use the clock", self.cleanups);
        let process = self.server.id();
        let (mut history, lines) = self.server.kill();
        clock.clear_after(process);
        let leases = self.setting.open::<L>();
        let unacknowledged = history.compare(&last_changes(self.setting, &*leases));
        clean(&*leases);
        drop(leases);
        let leases = self.setting.open::<L>();
        assert_eq!(history.compare(&last_changes(self.setting, &*leases)), 0);
        assert_eq!(self.setting.situation(), "none");
        println!(
            "{} killed: {lines} changes, {unacknowledged} not acknowledged, {} leases, programs seen {} times",
            self.setting.family,
            leases.all().unwrap().len(),
            self.programs
        );
        history
    }
}

/// Returns the number of cleanups that have succeeded and failed, if the line contains them. The
/// last line may be incomplete.
fn cleanups_in(line: &str) -> Option<(usize, usize)> {
    let (_, cleanups) = line.strip_suffix('\n')?.split_once("cleanups: ")?;
    let mut words = cleanups.split([' ', ',']).filter(|word| !word.is_empty());
    let (done, "done", failed, "failed") = (words.next()?, words.next()?, words.next()?, words.next()?)
    else {
        panic!("{line}");
    };
    Some((done.parse().unwrap(), failed.parse().unwrap()))
}

#[rstest]
#[case::v4(Family::V4, "written")]
#[case::v6(Family::V6, "200ms")]
fn clock_jumps_lose_no_lease_and_cleanups_keep_their_interval(
    #[case] family: Family,
    #[case] durability: &'static str,
) {
    let setting = Setting {
        directory: tempfile::tempdir().unwrap(),
        family,
        durability,
        program: Some(env!("CARGO_BIN_EXE_kea-lfc")),
        lfc_interval: 1,
        // Each client sends one message a second, so many are too late.
        clients: RATE,
        lifetime: 2,
        options: vec!["--rate".to_owned(), RATE.to_string()],
    };
    match family {
        Family::V4 => jump::<Lease4>(&setting),
        Family::V6 => jump::<Lease6>(&setting),
    }
}

fn jump<L: OfClient>(setting: &Setting) {
    let mut clock = Clock::new();
    let mut server = Watched::start(setting, &clock, History::default());
    for (what, ahead) in [("before the jumps", 0), ("a day forward", DAY), ("two days back", -DAY)] {
        clock.jump_to(ahead);
        server.serve(what, || {});
        server.check_time::<L>(what, &clock);
    }
    let history = server.kill::<L>(&clock);

    // By its clock, the next server starts a day before the first one did.
    let mut server = Watched::start(setting, &clock, history);
    server.serve("a start in the past", || {});
    server.check_time::<L>("a start in the past", &clock);
    let (mut random, mut jumped, mut jumps) = (Random(setting.clients.into()), Instant::now(), 0);
    server.serve("to and fro", || {
        if jumped.elapsed() >= STAY {
            clock.jump_to((i64::from(random.below(5)) - 2) * DAY);
            (jumped, jumps) = (Instant::now(), jumps + 1);
        }
    });
    let leases = server.leases::<L>();
    let times = leases.iter().filter(|(_, last)| last.what == What::InUse).map(|(cltt, _)| *cltt);
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    println!("{} {jumps} jumps, leases of {first} to {last}", setting.family);
    assert!(last - first >= DAY, "{jumps} jumps, but all leases are of {first} to {last}");
    server.kill::<L>(&clock);
}
