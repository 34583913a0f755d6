//! The program is killed at random moments, on real files.
//!
//! Whenever that is, a server that starts on what is left loads exactly the leases that there are, and the
//! next cleanup gives the file that an undisturbed one would have given.

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

/// How often the program is killed for each family, at any moment.
const KILLS: usize = 50;
/// How often it is killed in the short while after its output is complete.
const LATE_KILLS: usize = 20;
/// How long a cleanup takes at least: long against the start of a process.
const DURATION: Duration = Duration::from_millis(30);
/// The signal that no program can catch.
const SIGKILL: i32 = 9;

/// A server's files before a cleanup, and what must come of them.
struct Job {
    family: Family,
    names: Names,
    start: Contents,
    leases: Leases,
    cleaned: Vec<u8>,
}

impl Job {
    /// A previous file of `leases` leases, and a journal half as long.
    fn new(family: Family, directory: &Path, leases: u32, random: &mut Random) -> Self {
        let names = Names::in_directory(directory);
        let previous: Vec<_> = (0..leases).map(|n| row(family, 2 * n, 0, 3600)).collect();
        // Some are new, some change more than once, some go.
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

    /// Puts the files as they were before the cleanup.
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

    /// Runs the program to its end and checks what it leaves; gives how long it took.
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

    /// Starts the program, kills it after `wait`, and checks what it leaves.
    fn kill(&self, history: &str, wait: impl FnOnce(&mut Child)) -> Killed {
        self.reset();
        let mut child = self.spawn();
        wait(&mut child);
        child.kill().unwrap();
        let hit = child.wait().unwrap().signal() == Some(SIGKILL);
        let contents = read_directory(self.directory());
        let loaded = self.names.load(self.family, &contents);
        assert!(loaded.as_ref() == Ok(&self.leases), "{history}: {}", difference(&loaded, &self.leases));
        self.run(history);
        Killed { hit, situation: self.situation(&contents) }
    }

    /// How far a cleanup has come.
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

/// What a kill met with.
struct Killed {
    /// Whether the program was still running.
    hit: bool,
    situation: Situation,
}

/// How far a cleanup had come when it was killed.
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
fn whenever_the_program_is_killed_no_lease_is_lost(#[case] family: Family, #[case] seed: u64) {
    println!("{family}: seed {seed}");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().unwrap();

    // As many leases as it takes.
    let mut leases = 2000;
    let (job, full) = loop {
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
    for n in 0..KILLS {
        let fraction = f64::from(random.below(1101)) / 1000.0;
        let killed = job.kill(&format!("kill {n} at {fraction} of {full:?}"), |_| {
            thread::sleep(full.mul_f64(fraction));
        });
        hits += usize::from(killed.hit);
        situations.push(killed.situation);
    }
    println!("{family}: {hits} of {KILLS} kills hit a running program");
    report(family, &situations);
    assert!(hits >= KILLS / 2, "only {hits} of {KILLS} kills hit a running program");

    let mut situations = Vec::new();
    for n in 0..LATE_KILLS {
        let wait = Duration::from_micros(random.below(200).into());
        let killed = job.kill(&format!("kill {n} when the output was complete for {wait:?}"), |child| {
            while !job.names.lfc.finish.exists() && child.try_wait().unwrap().is_none() {}
            // Sleeping takes longer than that.
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

/// The first lease that is not as it should be.
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
