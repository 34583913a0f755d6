//! Soak test of the example `lease_server` with a million leases: renewals, releases, expiry, a
//! cleanup by `kea-lfc` every 3 seconds, and a kill every minute.
//!
//! No acknowledged change may be lost, no deleted lease restored, no address assigned to two
//! clients, and neither memory nor descriptors nor files may grow. `scripts/soak-memfile` runs it.
//!
//! In the last sixth of the time the server is not killed, so that slow growth shows. Memory grows
//! in each run until each lease has been changed a few times, because tables are loaded without
//! free space between their entries. So the last run has a high load, and only its second half
//! counts.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::LeaseMgrExt;
use leasemgr::lease::{Family, Lease4};
use rstest::rstest;

use support::Random;
use support::lease_server::{History, Last, Server, Setting, What, clean, last_changes};

/// About a million of these clients have leases at a time: at this rate each sends a message every
/// 150 seconds on average; six of seven messages ask for a lease, and one of seven clients lets its
/// lease expire.
const CLIENTS: u32 = 1_200_000;
const RATE: u32 = 8000;
/// Rate of the last run.
const LAST_RATE: u32 = 10 * RATE;
const LIFETIME: u32 = 300;
const LFC_INTERVAL: u32 = 3;
/// Time between two kills.
const RUN: Duration = Duration::from_secs(60);
/// Minimum number of leases at all times, in millions.
const LEAST: f64 = 0.9;
/// Maximum ratio of the last third to the first.
const GROWTH: f64 = 1.05;
/// Time after its start in which a server may still grow.
const WARM_UP: Duration = Duration::from_secs(15);

/// Measurements of a server at one time.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    /// Memory in bytes.
    memory: u64,
    descriptors: u64,
    /// Size in bytes of the lease files and the files beside them.
    files: u64,
}

impl Sample {
    fn of(server: &Server, setting: &Setting) -> Self {
        let process = Path::new("/proc").join(server.id().to_string());
        let status = fs::read_to_string(process.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        let descriptors = fs::read_dir(process.join("fd")).unwrap().count() as u64;
        let files = fs::read_dir(setting.directory.path()).unwrap();
        // Some files are deleted meanwhile.
        let files = files.filter_map(|entry| entry.unwrap().metadata().ok()).map(|file| file.len()).sum();
        Self { at: Instant::now(), memory: kilobytes * 1024, descriptors, files }
    }
}

/// Returns the median, which is independent of whether a cleanup happens to run.
fn median(values: impl Iterator<Item = u64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default() as f64
}

/// Prints the medians of the first and the last third. Returns what has grown.
fn compare_thirds(name: &str, samples: &[Sample]) -> Vec<String> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return vec![format!("{name}: no samples")];
    };
    let third = (last.at - first.at) / 3;
    let medians = |of: fn(&Sample) -> u64| {
        let in_first = samples.iter().filter(|sample| sample.at <= first.at + third);
        let in_last = samples.iter().filter(|sample| sample.at >= last.at - third);
        (median(in_first.map(of)), median(in_last.map(of)))
    };
    let mebibytes = 1024.0 * 1024.0;
    let figures = [
        ("memory, MiB", medians(|sample| sample.memory), mebibytes),
        ("descriptors", medians(|sample| sample.descriptors), 1.0),
        ("files, MiB", medians(|sample| sample.files), mebibytes),
    ];
    let mut grown = Vec::new();
    for (what, (first, last), unit) in figures {
        let line =
            format!("{name}: {what}: {:.1} in the first third, {:.1} in the last", first / unit, last / unit);
        println!("{line}");
        if last > first * GROWTH {
            grown.push(line);
        }
    }
    let most = samples.iter().map(|sample| sample.descriptors).max().unwrap_or_default();
    println!("{name}: descriptors: {most} at most, {} samples", samples.len());
    grown
}

/// Returns the number of cleanups that a server has reported as succeeded and failed.
fn cleanups(report: &str) -> (u64, u64) {
    let counts = |line: &str| {
        let (done, rest) = line.split_once("cleanups: ")?.1.split_once(" done, ")?;
        Some((done.parse().ok()?, rest.split_once(" failed")?.0.parse().ok()?))
    };
    report.lines().rev().find_map(counts).unwrap_or_default()
}

/// Sums over all runs.
#[derive(Default)]
struct Totals {
    lines: usize,
    kills: usize,
    programs_killed: usize,
    unacknowledged: usize,
    leases_compared: usize,
    most_leases: usize,
    least_leases: Option<usize>,
    cleanups: u64,
    /// From the start of the process to the end of loading.
    longest_start: Duration,
}

impl Totals {
    fn count_leases(&mut self, count: usize) {
        self.leases_compared += count;
        self.most_leases = self.most_leases.max(count);
        self.least_leases = Some(self.least_leases.map_or(count, |least| least.min(count)));
    }

    fn count_cleanups(&mut self, report: &str) {
        let (done, failed) = cleanups(report);
        assert_eq!(failed, 0, "{report}");
        self.cleanups += done;
    }

    fn print(&self) {
        println!("changes and releases acknowledged: {}", self.lines);
        println!("kills: {}, {} of them with the running kea-lfc", self.kills, self.programs_killed);
        println!("cleanups: {} done, 0 failed", self.cleanups);
        println!("longest start, seconds: {:.2}", self.longest_start.as_secs_f64());
        let least = self.least_leases.unwrap_or_default();
        println!("leases at a time: {least} to {}", self.most_leases);
        println!("leases compared after a restart: {}", self.leases_compared);
        println!("changes made and not acknowledged: {}", self.unacknowledged);
        println!("lost: 0, restored: 0, assigned twice: 0");
    }
}

/// Starts a server, and waits until it has loaded its leases: as many as there were.
fn start(setting: &Setting, history: History, count: usize, totals: &mut Totals) -> Server {
    let begin = Instant::now();
    let mut server = setting.start(history);
    while !server.report().contains("found ") {
        server.check("at the start");
        assert!(begin.elapsed() < Duration::from_secs(600), "it does not start");
        thread::sleep(Duration::from_millis(10));
    }
    totals.longest_start = totals.longest_start.max(begin.elapsed());
    let report = server.report();
    assert!(report.contains(&format!("found {count} leases")), "{count}: {report}");
    server
}

/// Samples a running server for some time.
fn watch(server: &mut Server, setting: &Setting, time: Duration) -> Vec<Sample> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    let mut acknowledged = server.lines();
    let mut reported_at = begin;
    while begin.elapsed() < time {
        thread::sleep(Duration::from_millis(500));
        server.check("while running");
        samples.push(Sample::of(server, setting));
        if server.lines() > acknowledged {
            (acknowledged, reported_at) = (server.lines(), Instant::now());
        }
        assert!(
            reported_at.elapsed() < Duration::from_secs(20),
            "it has stopped serving: {}",
            server.report()
        );
    }
    samples.retain(|sample| sample.at - begin > WARM_UP);
    samples
}

#[test]
#[ignore = "takes an hour; scripts/soak-memfile runs it"]
fn a_million_leases_survive_an_hour_of_kills() {
    let seconds = std::env::var("LEASEMGR_SOAK_SECONDS").map_or(3600, |seconds| seconds.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let mut setting = Setting {
        directory: tempfile::tempdir().unwrap(),
        family: Family::V4,
        durability: "written",
        program: Some(env!("CARGO_BIN_EXE_kea-lfc")),
        lfc_interval: LFC_INTERVAL,
        clients: CLIENTS,
        lifetime: LIFETIME,
        options: Vec::new(),
    };
    // If a check fails, the files are kept for inspection.
    setting.directory.disable_cleanup(true);
    println!("{} seconds in {}", time.as_secs(), setting.directory.path().display());
    let begin = Instant::now();
    let mut random = Random(1);
    let mut totals = Totals::default();

    // At full rate, until nearly all clients have sent a message.
    let mut server = start(&setting, History::default(), 0, &mut totals);
    while server.lines() < 3 * CLIENTS as usize {
        server.check("while clients come for the first time");
        thread::sleep(Duration::from_millis(100));
    }
    println!("filled after {:.1} seconds", begin.elapsed().as_secs_f64());
    setting.options = vec!["--rate".to_owned(), RATE.to_string()];

    let steady = begin + (time / 6).min(2 * Duration::from_secs(LIFETIME.into()));
    let mut samples = Vec::new();
    let mut last_run = false;
    let (mut history, count) = loop {
        totals.count_cleanups(&server.report());
        let (mut history, acknowledged) = server.kill();
        totals.kills += 1;
        totals.lines += acknowledged;
        // A power cut ends the program together with the server.
        if random.below(2) == 0 && setting.path(".pid").exists() {
            setting.kill_program();
            totals.programs_killed += 1;
        }
        let leases = setting.open::<Lease4>();
        let found = last_changes(&setting, &*leases);
        drop(leases);
        totals.unacknowledged += history.compare(&found);
        totals.count_leases(found.len());
        assert!(found.len() as f64 > 1e6 * LEAST, "only {} leases", found.len());
        let now = begin.elapsed();
        println!(
            "{:.0} s: kill {}, {acknowledged} lines, {} leases, {} changes not acknowledged so far",
            now.as_secs_f64(),
            totals.kills,
            found.len(),
            totals.unacknowledged
        );
        if last_run {
            break (history, found.len());
        }
        server = start(&setting, history, found.len(), &mut totals);
        last_run = now + 2 * RUN > time * 5 / 6;
        samples.extend(watch(&mut server, &setting, RUN));
    };
    samples.retain(|sample| sample.at > steady);

    // A run without kills, ended by a signal, which loses nothing.
    setting.options = vec!["--rate".to_owned(), LAST_RATE.to_string()];
    let mut server = start(&setting, history, count, &mut totals);
    let mut last_samples = watch(&mut server, &setting, time.saturating_sub(begin.elapsed()).max(RUN));
    last_samples.drain(..last_samples.len() / 2);
    totals.count_cleanups(&server.report());
    totals.lines += server.lines();
    (history, _) = server.end();
    let leases = setting.open::<Lease4>();
    let found = last_changes(&setting, &*leases);
    assert_eq!(history.compare(&found), 0);
    totals.count_leases(found.len());
    clean(&*leases);
    assert!(last_changes(&setting, &*leases) == found);
    assert_eq!(leases.status().leases, Some(found.len() as u64));
    drop(leases);
    assert!(setting.open::<Lease4>().all().unwrap().len() == found.len());
    assert_eq!(setting.situation(), "none");

    println!("seconds: {:.0}", begin.elapsed().as_secs_f64());
    totals.print();
    let mut grown = compare_thirds("runs of a minute", &samples);
    grown.extend(compare_thirds("the last run", &last_samples));
    assert_eq!(grown, [""; 0]);
    setting.directory.disable_cleanup(false);
}

const ADDRESS: &str = "10.0.0.1";

/// Compares lines of a server with the lease that is found in the files.
fn judge(acknowledged: &[&str], found: Option<(u64, What)>) -> usize {
    let mut history = History::default();
    for line in acknowledged {
        let (word, number) = line.split_once(' ').unwrap();
        history.read(&format!("{word} {ADDRESS} {number}\n"));
    }
    let found = found.map(|(number, what)| (ADDRESS.parse().unwrap(), Last { number, what }));
    history.compare(&BTreeMap::from_iter(found))
}

#[rstest]
#[case::as_acknowledged(&["added 1", "renewed 2"], Some((2, What::InUse)), 0)]
#[case::newer(&["added 1"], Some((2, What::InUse)), 1)]
#[case::released(&["added 1", "releasing 1", "deleted 1"], None, 0)]
#[case::being_released(&["added 1", "releasing 1"], None, 1)]
#[case::reclaimed_and_acknowledged_late(&["added 1", "reassigned 3", "reclaimed 2"], Some((3, What::InUse)), 0)]
#[case::reclaimed_and_not_acknowledged(&["added 1", "reassigned 3"], Some((3, What::InUse)), 1)]
#[case::released_and_added(&["added 1", "releasing 1", "added 2", "deleted 1"], Some((2, What::InUse)), 0)]
fn possible_differences_are_accepted(
    #[case] acknowledged: &[&str],
    #[case] found: Option<(u64, What)>,
    #[case] unacknowledged: usize,
) {
    assert_eq!(judge(acknowledged, found), unacknowledged);
}

#[rstest]
#[case::lost(&["added 1"], None, "is not in the files")]
#[case::older(&["added 1", "renewed 2"], Some((1, What::InUse)), "in the files")]
#[case::restored_in_the_files(&["added 1", "releasing 1", "deleted 1"], Some((1, What::InUse)), "in the files")]
#[case::restored_in_memory(&["added 1", "releasing 1", "deleted 1", "renewed 2"], Some((2, What::InUse)), "without a lease")]
#[case::never_added(&["renewed 1"], Some((1, What::InUse)), "without a lease")]
#[case::assigned_to_three(&["added 1", "added 2", "added 3"], Some((3, What::InUse)), "assigned to others")]
fn impossible_differences_are_found(
    #[case] acknowledged: &[&str],
    #[case] found: Option<(u64, What)>,
    #[case] complaint: &str,
) {
    let panic = std::panic::catch_unwind(|| judge(acknowledged, found)).unwrap_err();
    let message = panic.downcast::<String>().unwrap();
    assert!(message.contains(complaint), "{message}");
}
