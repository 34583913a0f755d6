//! Kills the program `kea-lfc` at random moments, on real files.
//!
//! Whenever it is killed, a server that starts loads exactly the leases of the files, and the next
//! cleanup writes the same file as an undisturbed one.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::lease::Family;
use leasemgr::lfc::LfcFiles;
use rstest::rstest;

use support::{Contents, Leases, Names, Random, lease_file, row};

/// Number of kills for each family, at random moments.
const KILLS: usize = 50;
/// Number of kills shortly after the output is complete.
const LATE_KILLS: usize = 20;
/// Minimum duration of a cleanup: long compared with the start of a process.
const DURATION: Duration = Duration::from_millis(30);
/// The signal that no program can catch.
const SIGKILL: i32 = 9;

/// A server's files before a cleanup, and the expected result.
struct Job {
    family: Family,
    names: Names,
    start: Contents,
    leases: Leases,
    cleaned: Vec<u8>,
}

impl Job {
    /// Creates a previous file of `leases` leases, and a journal of half the length.
    fn new(family: Family, directory: &Path, leases: u32, random: &mut Random) -> Self {
        let names = Names::in_directory(directory);
        let previous: Vec<_> = (0..leases).map(|n| row(family, 2 * n, 0, 3600)).collect();
        // Some leases are new, some change more than once, some are deleted.
        let mut change = |change| {
            let valid_lifetime = if random.below(4) == 0 { 0 } else { 7200 };
            row(family, random.below(2 * leases), change, valid_lifetime)
        };
        let input: Vec<_> = (0..leases / 2).map(|n| change(n + 1)).collect();
        let current: Vec<_> = (0..leases / 100).map(|n| change(leases + n)).collect();
        let start = Contents::from([
            (names.lfc.previous.clone(), lease_file(family, &previous)),
            (names.lfc.input.clone(), lease_file(family, &input)),
            (names.current.clone(), lease_file(family, &current)),
        ]);
        let leases = names.load(family, &start).unwrap();
        let cleaned = names.cleaned(family, &start).unwrap();
        Self { family, names, start, leases, cleaned }
    }

    /// Restores the files before the cleanup.
    fn reset(&self) {
        for path in read_directory(self.directory()).keys() {
            fs::remove_file(path).unwrap();
        }
        for (path, content) in &self.start {
            fs::write(path, content).unwrap();
        }
    }

    fn directory(&self) -> &Path {
        self.names.current.parent().unwrap()
    }

    fn spawn(&self) -> Child {
        let LfcFiles { previous, input, output, finish, pid } = &self.names.lfc;
        let family = match self.family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_kea-lfc"));
        command.arg(family).args(["-c", "/dev/null"]).stdin(Stdio::null()).stderr(Stdio::null());
        for (option, path) in [("-x", previous), ("-i", input), ("-o", output), ("-f", finish), ("-p", pid)] {
            command.arg(option).arg(path);
        }
        command.spawn().unwrap()
    }

    /// Runs the program to its end, and checks the files. Returns its duration.
    fn run(&self, history: &str) -> Duration {
        let started = Instant::now();
        let status = self.spawn().wait().unwrap();
        let duration = started.elapsed();
        assert!(status.success(), "{status} after {history}");
        let mut after = read_directory(self.directory());
        assert!(
            after.remove(&self.names.lfc.previous) == Some(self.cleaned.clone()),
            "previous after {history}"
        );
        let current = after.remove(&self.names.current);
        assert!(current.as_ref() == self.start.get(&self.names.current), "current after {history}");
        assert_eq!(after.keys().collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "after {history}");
        duration
    }

    /// Starts the program, kills it after `wait`, and checks the files.
    fn kill(&self, history: &str, wait: impl FnOnce(&mut Child)) -> Killed {
        self.reset();
        let mut child = self.spawn();
        wait(&mut child);
        child.kill().unwrap();
        let hit = child.wait().unwrap().signal() == Some(SIGKILL);
        let contents = read_directory(self.directory());
        let loaded = self.names.load(self.family, &contents);
        assert!(loaded.as_ref() == Ok(&self.leases), "{history}: {}", difference(&loaded, &self.leases));
        let after = self.run(history);
        Killed { hit, situation: self.situation(&contents), after }
    }

    /// Returns how far a cleanup has progressed.
    fn situation(&self, contents: &Contents) -> Situation {
        let LfcFiles { previous, input, output, finish, .. } = &self.names.lfc;
        if contents.contains_key(finish) {
            Situation::Finish
        } else if contents.contains_key(output) {
            Situation::Output
        } else if !contents.contains_key(input) && contents.contains_key(previous) {
            Situation::Done
        } else {
            Situation::NoOutput
        }
    }
}

/// The result of a kill.
struct Killed {
    /// Whether the program was still running.
    hit: bool,
    situation: Situation,
    /// Duration of the next cleanup.
    after: Duration,
}

/// The progress of a cleanup at the time of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    NoOutput,
    Output,
    Finish,
    Done,
}

fn read_directory(directory: &Path) -> Contents {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

#[rstest]
#[case::v4(Family::V4, 4)]
#[case::v6(Family::V6, 6)]
fn a_killed_program_loses_no_lease(#[case] family: Family, #[case] seed: u64) {
    println!("{family}: seed {seed}");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().unwrap();

    // As many leases as a cleanup of `DURATION` takes.
    let mut leases = 2000;
    let (job, mut full) = loop {
        let job = Job::new(family, directory.path(), leases, &mut random);
        let durations = [(); 3].map(|()| {
            job.reset();
            job.run("nothing")
        });
        let full = durations.into_iter().min().unwrap();
        if full >= DURATION || leases >= 200_000 {
            break (job, full);
        }
        leases *= 2;
    };
    println!("{family}: {leases} leases, a cleanup takes {full:?}");

    let mut situations = Vec::new();
    let mut hits = 0;
    for n in 0.. {
        if n >= KILLS && hits >= KILLS / 2 || n >= 20 * KILLS {
            break;
        }
        let fraction = f64::from(random.below(1101)) / 1000.0;
        let killed = job.kill(&format!("kill {n} at {fraction} of {full:?}"), |_| {
            thread::sleep(full.mul_f64(fraction));
        });
        hits += usize::from(killed.hit);
        // The machine may have become slower or faster.
        full = killed.after;
        situations.push(killed.situation);
    }
    let kills = situations.len();
    println!("{family}: {hits} of {kills} kills hit a running program");
    report(family, &situations);
    assert!(hits >= KILLS / 2, "only {hits} of {kills} kills hit a running program");

    let mut situations = Vec::new();
    for n in 0..LATE_KILLS {
        let wait = Duration::from_micros(random.below(200).into());
        let killed = job.kill(&format!("kill {n} when the output was complete for {wait:?}"), |child| {
            while !job.names.lfc.finish.exists() && child.try_wait().unwrap().is_none() {}
            // Sleeping would take longer than `wait`.
            let complete = Instant::now();
            while complete.elapsed() < wait {}
        });
        situations.push(killed.situation);
    }
    println!("{family}: {LATE_KILLS} kills when the output was complete");
    report(family, &situations);
}

fn report(family: Family, situations: &[Situation]) {
    for situation in [Situation::NoOutput, Situation::Output, Situation::Finish, Situation::Done] {
        let count = situations.iter().filter(|&&other| other == situation).count();
        println!("{family}: {count} times {situation:?}");
    }
}

/// Describes the first lease that differs.
fn difference(loaded: &Result<Leases, String>, expected: &Leases) -> String {
    match loaded {
        Err(error) => error.clone(),
        Ok(loaded) => {
            let mut addresses = expected.keys().chain(loaded.keys());
            match addresses.find(|&address| loaded.get(address) != expected.get(address)) {
                Some(address) => format!("{:?} instead of {:?}", loaded.get(address), expected.get(address)),
                None => "none".to_owned(),
            }
        }
    }
}
