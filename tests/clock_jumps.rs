//! The system's clock jumps while the example `lease_server` serves: a day forward, two days back, and to and fro.
//!
//! Whatever the clock does, what was acknowledged is there when the files are opened after a kill, nothing that was deleted is
//! back, cleanups go on at their pace, clients are served, and leases expire by the new time.
//!
//! The clock is that of the server and its `kea-lfc` alone: Debian's package `libfaketime` puts its own functions in the place of
//! those of the C library, and adds to the time what a file says at that moment. As on a system whose clock is set, the
//! monotonic clock is left alone.

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
/// So long a server serves before and after each jump, at least.
const PHASE: Duration = Duration::from_secs(5);
/// In this time it has told how it does, and done its work of a phase, whatever else the machine does meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many cleanups are done in a phase, of which each begins a second after the one before.
const CLEANUPS: usize = 4;
/// Messages of clients in a second. Nearly each is one change, some are two.
const RATE: u32 = 1000;
/// How many changes are made in a phase.
const CHANGES: usize = 2 * RATE as usize;
/// How old, in seconds of the server's clock, what belongs to the present may be: leases are valid for 2 seconds, and what
/// has expired is reclaimed every second.
const PRESENT: i64 = 60;
/// How long the clock stays where it has jumped to, when it jumps to and fro.
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
        clock.tell();
        clock
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    /// Sets the clock to the real time and so many seconds.
    fn jump_to(&mut self, ahead: i64) {
        self.ahead = ahead;
        self.tell();
    }

    fn tell(&self) {
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{:+}\n", self.ahead)).unwrap();
        // It is read all the time, and half a number would be another time.
        fs::rename(new, self.path()).unwrap();
    }

    fn now(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        i64::try_from(now).unwrap() + self.ahead
    }

    /// Has a program, and the programs that it starts, go by this clock.
    fn set_for(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.path())
            // Else a jump would be noticed after some seconds only.
            .env("FAKETIME_NO_CACHE", "1")
            // The monotonic clock does not jump. The second name is that of newer versions of the library.
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            // It would go before the file.
            .env_remove("FAKETIME");
    }

    /// Removes what the library leaves of a process that was killed, which is in the way of a later one with the same number.
    fn clear_after(&self, process: u32) {
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            // Other versions of the library may have other names, or none.
            let _ = fs::remove_file(format!("/dev/shm/{name}{process}"));
        }
    }
}

/// The library, for programs with threads, where Debian has it.
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

/// A server that runs, and what it has told of itself up to some moment.
struct Watched<'a> {
    setting: &'a Setting,
    server: Server,
    reports: usize,
    cleanups: usize,
    /// How often a program was seen to clean up by the same clock.
    programs: usize,
}

impl<'a> Watched<'a> {
    /// Starts a server, and waits until it serves clients.
    fn start(setting: &'a Setting, clock: &Clock, history: History) -> Self {
        let server = setting.start_with(history, |command| clock.set_for(command));
        let mut watched = Self { setting, server, reports: 0, cleanups: 0, programs: 0 };
        watched.wait_for_report("the start", || {});
        watched
    }

    /// Looks after the server until it tells the next time how it does, which is once a second.
    fn wait_for_report(&mut self, when: &str, mut meanwhile: impl FnMut()) {
        let begin = Instant::now();
        loop {
            meanwhile();
            self.look_at_program();
            self.server.check(when);
            let told = self.server.report();
            assert!(!told.contains("panicked") && !told.contains("refused"), "{when}: {told}");
            let reports: Vec<_> = told.split_inclusive('\n').filter_map(cleanups_in).collect();
            if let Some(&(done, failed)) = reports.last().filter(|_| reports.len() > self.reports) {
                assert_eq!(failed, 0, "{when}: {told}");
                (self.reports, self.cleanups) = (reports.len(), done);
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{when}: no word any more after\n{told}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Looks whether a program cleans up, and goes by the same clock.
    fn look_at_program(&mut self) {
        if let Some(program) = self.setting.running_program() {
            // It may have ended, or not have come so far that it has its libraries.
            let maps = fs::read_to_string(format!("/proc/{}/maps", program.as_raw_nonzero()));
            self.programs += usize::from(maps.is_ok_and(|maps| maps.contains("/libfaketimeMT.so")));
        }
    }

    /// Has it serve for some time, at its usual pace.
    fn serve(&mut self, what: &str, mut meanwhile: impl FnMut()) {
        let (lines_before, cleanups_before, begin) = (self.server.lines(), self.cleanups, Instant::now());
        loop {
            self.wait_for_report(what, &mut meanwhile);
            let (lines, cleanups) = (self.server.lines() - lines_before, self.cleanups - cleanups_before);
            let time = begin.elapsed();
            let news = format!("{lines} changes and {cleanups} cleanups in {time:.1?}");
            // A jump does not have them done at once that would have come in the time between. Some more than one a second may
            // be told of, because this process looks later than the server tells.
            assert!(cleanups as f64 <= time.as_secs_f64() + 3.0, "{what}: {news}");
            if time >= PHASE && lines >= CHANGES && cleanups >= CLEANUPS {
                println!("{} {what}: {news}", self.setting.family);
                return;
            }
            assert!(time < PATIENCE, "{what}: only {news}");
        }
    }

    /// The leases that are in the files now: when their clients were last heard of, and the change that they come from.
    fn leases<L: OfClient>(&self) -> Vec<(i64, Last)> {
        let files = LeaseFileSet::new(self.setting.path("")).read::<L>().unwrap();
        files.leases.values().map(|lease| (lease.data().cltt, last_change(self.setting, lease))).collect()
    }

    /// The server goes by this clock: the newest lease is of the present, what has expired is reclaimed.
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
        assert!(reclaimed.count() > 0, "{what}: of the leases that were made at {now}, none was reclaimed");
    }

    /// Kills it, and looks for what it has acknowledged, also after the files were cleaned up.
    fn kill<L: OfClient>(self, clock: &Clock) -> History {
        // Each took its time, and they were looked for all the time.
        assert!(self.programs > 0, "{} cleanups, and none was seen to go by the clock", self.cleanups);
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

/// The cleanups that have succeeded and failed, if this line tells of them. The last line may be written still.
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
fn when_the_clock_jumps_no_lease_is_lost_and_cleanups_keep_their_pace(
    #[case] family: Family,
    #[case] durability: &'static str,
) {
    let setting = Setting {
        directory: tempfile::tempdir().unwrap(),
        family,
        durability,
        program: Some(env!("CARGO_BIN_EXE_kea-lfc")),
        lfc_interval: 1,
        // Each asks for something once a second, so that many come too late.
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

    // By its clock, the next one begins a day before the first one did.
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
