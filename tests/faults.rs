//! The cleanup on a disk that fails at every file operation, and with a power cut at every moment.
//!
//! In each case a server that starts afterwards must load exactly the leases of the files, and the
//! next cleanup must write the same file as an undisturbed one.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leasemgr::fs::FileSystem as _;
use leasemgr::fs::simulated::{Action, EINTR, EIO, ENOSPC, Effect, Fault, Operation, SimulatedDisk, State};
use leasemgr::lease::Family;
use leasemgr::lfc::{Cleanup, LfcError, LfcFiles, Monitor, Outcome};
use rstest::rstest;

use support::{Contents, Leases, Names, Random, header, lease_file, oldest_header, oldest_lease_file, row};

/// The files before the cleanup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    PreviousAndInput,
    PreviousOnly,
    InputOnly,
    Nothing,
    EmptyPreviousAndEmptyInput,
    /// An earlier cleanup was interrupted after it had renamed its output to the finish file.
    FinishWithPreviousAndInput,
    /// ... and after it had removed previous.
    FinishWithInput,
    /// ... and after it had removed input.
    FinishOnly,
    /// An earlier cleanup, of other leases, was interrupted while it wrote.
    StaleOutput,
    EmptyFinish,
    /// A finish file that is no lease file.
    InvalidFinish,
    /// A finish file that ends within the first column names.
    FinishWithPartialHeader,
    /// A finish file that ends after the name of the last column of the oldest schema, without a
    /// newline.
    FinishWithTornHeader,
    StalePidFile,
    EmptyPidFile,
    UnsortedPrevious,
    PreviousOfTheOldestSchema,
    InputOfTheOldestSchema,
    /// Previous is in another directory than the other files.
    PreviousElsewhere,
}

impl Start {
    fn names(self) -> Names {
        let mut names = Names::in_directory(Path::new("/leases"));
        if self == Self::PreviousElsewhere {
            names.lfc.previous = "/elsewhere/leases.csv.2".into();
        }
        names
    }

    fn contents(self, family: Family) -> Contents {
        let Names { current, lfc } = self.names();
        let LfcFiles { previous, input, output, finish, pid } = lfc;
        let row = |n, change, valid_lifetime| row(family, n, change, valid_lifetime);
        let previous_rows = [1, 2, 3, 5, 10, 12, 300].map(|n| row(n, 0, 3600));
        let input_rows = [
            row(11, 1, 3600),
            row(2, 1, 7200),
            row(3, 1, 0),
            row(4, 1, 3600),
            row(4, 2, 1800),
            // One lease that is added and deleted, and one that is deleted and added.
            row(6, 1, 3600),
            row(6, 2, 0),
            row(12, 1, 0),
            row(12, 2, 3600),
        ];
        let current_rows = [row(1, 3, 3600), row(5, 3, 0), row(13, 3, 3600)];
        let previous_file = lease_file(family, &previous_rows);
        let input_file = lease_file(family, &input_rows);

        let mut contents = Contents::from([(current, lease_file(family, &current_rows))]);
        let mut add = |files: &[(&PathBuf, Vec<u8>)]| {
            contents.extend(files.iter().map(|(path, content)| ((*path).clone(), content.clone())));
        };
        match self {
            Self::Nothing => {}
            Self::PreviousOnly => add(&[(&previous, previous_file)]),
            Self::InputOnly => add(&[(&input, input_file)]),
            Self::EmptyPreviousAndEmptyInput => add(&[(&previous, Vec::new()), (&input, Vec::new())]),
            Self::FinishWithPreviousAndInput | Self::FinishWithInput | Self::FinishOnly => {
                let before = Contents::from([(previous.clone(), previous_file), (input.clone(), input_file)]);
                add(&[(&finish, self.names().cleaned(family, &before).unwrap())]);
                if self != Self::FinishOnly {
                    add(&[(&input, before[&input].clone())]);
                }
                if self == Self::FinishWithPreviousAndInput {
                    add(&[(&previous, before[&previous].clone())]);
                }
            }
            _ => add(&[(&previous, previous_file), (&input, input_file)]),
        }
        match self {
            Self::StaleOutput => {
                let mut stale = lease_file(family, &[row(2, 0, 3600), row(3, 0, 3600), row(9, 0, 3600)]);
                stale.truncate(stale.len() - 7);
                add(&[(&output, stale)]);
            }
            Self::EmptyFinish => add(&[(&finish, Vec::new())]),
            Self::InvalidFinish => add(&[(&finish, vec![0; 100])]),
            Self::FinishWithPartialHeader => add(&[(&finish, header(family).as_bytes()[..10].to_vec())]),
            Self::FinishWithTornHeader => add(&[(&finish, oldest_header(family).into())]),
            // No process has this PID: it exceeds the maximum of Linux.
            Self::StalePidFile => add(&[(&pid, b"2147483647\n".to_vec())]),
            Self::EmptyPidFile => add(&[(&pid, Vec::new())]),
            Self::UnsortedPrevious => {
                let rows = [300, 12, 3, 5, 10, 1, 2].map(|n| row(n, 0, 3600));
                add(&[(&previous, lease_file(family, &rows))]);
            }
            Self::PreviousOfTheOldestSchema => {
                add(&[(&previous, oldest_lease_file(family, &previous_rows))]);
            }
            Self::InputOfTheOldestSchema => add(&[(&input, oldest_lease_file(family, &input_rows))]),
            _ => {}
        }
        contents
    }
}

/// The rules for every disk that a cleanup leaves.
struct Rules {
    family: Family,
    names: Names,
    start: Contents,
    leases: Leases,
    cleaned: Vec<u8>,
    random: Random,
    /// Whether only one of the disks that differ just in the PID file is checked.
    ignores_pid_file: bool,
    /// Disks that were checked.
    checked: BTreeSet<Contents>,
    /// Disks that were checked with all results of a power cut.
    checked_moments: BTreeSet<State>,
    tried: Counts,
}

/// Counts of tested cases.
#[derive(Debug, Default)]
struct Counts {
    /// Number of failed operations.
    faults: usize,
    /// Number of power cuts.
    power_cuts: usize,
    /// Number of combinations of data that survive a power cut.
    combinations: usize,
}

impl Rules {
    fn of(start: Start, family: Family) -> Self {
        let names = start.names();
        let contents = start.contents(family);
        let leases = names.load(family, &contents).unwrap();
        let cleaned = names.cleaned(family, &contents).unwrap();
        Self {
            family,
            names,
            start: contents,
            leases,
            cleaned,
            random: Random(20),
            ignores_pid_file: false,
            checked: BTreeSet::new(),
            checked_moments: BTreeSet::new(),
            tried: Counts::default(),
        }
    }

    fn disk(&self) -> SimulatedDisk {
        SimulatedDisk::new(State::holding(&self.start))
    }

    fn clean(&self, disk: &SimulatedDisk) -> Result<Outcome, LfcError> {
        Cleanup::new(self.family, self.names.lfc.clone()).file_system(disk).threads(1).run()
    }

    /// Returns the operations of an undisturbed cleanup.
    fn operations(&self) -> Vec<Operation> {
        let disk = self.disk();
        self.clean(&disk).unwrap();
        disk.operations()
    }

    /// Returns an error unless previous and input are unchanged, or a finish file exists, or has
    /// replaced them.
    fn files_kept(&self, after: &Contents) -> Result<(), String> {
        let LfcFiles { previous, input, finish, .. } = &self.names.lfc;
        let replaced = [finish, previous].iter().any(|path| after.get(*path) == Some(&self.cleaned));
        let kept = [previous, input].iter().all(|path| after.get(*path) == self.start.get(*path));
        if replaced || kept { Ok(()) } else { Err(show(after)) }
    }

    /// Returns whether the files are those that a cleanup leaves.
    fn is_cleaned(&self, contents: &Contents) -> bool {
        let mut rest = contents.clone();
        // An invalid finish file is kept for inspection.
        rest.remove(&invalid_finish(&self.names));
        rest == Contents::from([
            (self.names.current.clone(), self.start[&self.names.current].clone()),
            (self.names.lfc.previous.clone(), self.cleaned.clone()),
        ])
    }

    /// Checks a disk.
    fn check(&mut self, contents: &Contents, history: &dyn Fn() -> String) {
        let mut case = contents.clone();
        if self.ignores_pid_file {
            case.remove(&self.names.lfc.pid);
        }
        if !self.checked.insert(case) {
            return;
        }
        assert_eq!(
            self.names.load(self.family, contents),
            Ok(self.leases.clone()),
            "leases after {} on {}",
            history(),
            show(contents)
        );
        let disk = SimulatedDisk::new(State::holding(contents));
        let mut expected_rest = Contents::new();
        match self.clean(&disk) {
            Ok(Outcome::Finished) => {
                // Nothing is written, so a stale output stays, as with Kea.
                let output = contents.get_key_value(&self.names.lfc.output);
                expected_rest.extend(output.map(|(path, content)| (path.clone(), content.clone())));
            }
            Ok(_) => {}
            Err(error) => {
                panic!("the next cleanup after {} fails with {error} on {}", history(), show(contents))
            }
        }
        let mut after = disk.state().contents();
        for (path, content) in expected_rest {
            assert_eq!(after.remove(&path), Some(content), "after {}", history());
        }
        assert!(
            self.is_cleaned(&after),
            "the next cleanup after {} on {} leaves {}",
            history(),
            show(contents),
            show(&after)
        );
    }

    /// Checks a disk as it is, and after a power cut.
    fn check_with_power_cut(&mut self, state: &State, history: &dyn Fn() -> String) {
        self.tried.power_cuts += 1;
        if !self.checked_moments.insert(state.clone()) {
            return;
        }
        self.check(&state.contents(), history);
        let survivors = state.survivors(self.random.next());
        self.tried.combinations += survivors.combinations;
        for disk in &survivors.disks {
            self.check(disk, &|| format!("{} and a power cut", history()));
        }
    }

    /// Runs a cleanup on a disk, and checks all its moments. Returns its result.
    fn check_run(&mut self, disk: SimulatedDisk, history: &dyn Fn() -> String) -> Ended {
        let disk = disk.with_moments();
        let result = self.clean(&disk);
        for (n, state) in disk.moments().iter().enumerate() {
            self.check_with_power_cut(state, &|| format!("{} (after change {n})", history()));
        }
        if result.is_ok() {
            // A power cut must not undo a completed cleanup.
            for mut survivor in disk.state().survivors(self.random.next()).disks {
                survivor.remove(&self.names.lfc.pid);
                assert!(
                    self.is_cleaned(&survivor),
                    "{} and a power cut leave {}",
                    history(),
                    show(&survivor)
                );
            }
        }
        Ended { result, state: disk.state() }
    }

    fn report(self, start: Start) -> Counts {
        let Counts { faults, power_cuts, combinations } = &self.tried;
        let different = self.checked.len();
        println!(
            "{start:?} {}: {faults} faults, {power_cuts} power cuts, {combinations} combinations of what survives, \
             {different} different disks",
            self.family
        );
        self.tried
    }
}

struct Ended {
    result: Result<Outcome, LfcError>,
    state: State,
}

fn invalid_finish(names: &Names) -> PathBuf {
    let mut name = names.lfc.finish.clone().into_os_string();
    name.push(".bad");
    name.into()
}

fn show(contents: &Contents) -> String {
    let files = contents.iter().map(|(path, bytes)| {
        let name = path.file_name().unwrap().display();
        format!(
            "\n--- {name}, {} bytes\n{}",
            bytes.len(),
            bytes.escape_ascii().to_string().replace("\\n", "\n")
        )
    });
    files.collect()
}

/// Returns the relevant faults of an operation.
fn faults_at(at: usize, action: Action) -> Vec<Fault> {
    let effects: &[Effect] = match action {
        Action::Append => &[Effect::Nothing, Effect::Half, Effect::AllButOne, Effect::Everything],
        Action::Create | Action::Rename | Action::Remove | Action::Sync | Action::SyncDirectory => {
            &[Effect::Nothing, Effect::Everything]
        }
        _ => &[Effect::Nothing],
    };
    let mut faults = Vec::new();
    for error in [EIO, ENOSPC] {
        for &effect in effects {
            faults.extend([false, true].map(|lasting| Fault { at, error, effect, lasting }));
        }
    }
    faults
}

/// Defines a test of every start for both families.
macro_rules! rule {
    (fn $name:ident($start:ident: Start, $family:ident: Family) $body:block) => {
        #[rstest]
        fn $name(
            #[values(Family::V4, Family::V6)] $family: Family,
            #[values(
                Start::PreviousAndInput,
                Start::PreviousOnly,
                Start::InputOnly,
                Start::Nothing,
                Start::EmptyPreviousAndEmptyInput,
                Start::FinishWithPreviousAndInput,
                Start::FinishWithInput,
                Start::FinishOnly,
                Start::StaleOutput,
                Start::EmptyFinish,
                Start::InvalidFinish,
                Start::FinishWithPartialHeader,
                Start::FinishWithTornHeader,
                Start::StalePidFile,
                Start::EmptyPidFile,
                Start::UnsortedPrevious,
                Start::PreviousOfTheOldestSchema,
                Start::InputOfTheOldestSchema,
                Start::PreviousElsewhere
            )]
            $start: Start,
        ) $body
    };
}

rule! {
    fn a_power_cut_loses_no_lease(start: Start, family: Family) {
        let mut rules = Rules::of(start, family);
        let ended = rules.check_run(rules.disk(), &|| "an undisturbed cleanup".to_owned());
        ended.result.unwrap();
        assert!(rules.is_cleaned(&ended.state.contents()), "{}", show(&ended.state.contents()));
        let tried = rules.report(start);
        assert!(tried.power_cuts >= 6, "{tried:?}");
        assert!(tried.combinations >= 40, "{tried:?}");
    }
}

rule! {
    fn a_failing_operation_loses_no_lease(start: Start, family: Family) {
        let mut rules = Rules::of(start, family);
        for (at, operation) in rules.operations().into_iter().enumerate() {
            for fault in faults_at(at, operation.action) {
                rules.tried.faults += 1;
                let history = || format!("{operation} (number {at}) failed, {fault:?}");
                let ended = rules.check_run(rules.disk().with_fault(fault), &history);
                assert!(ended.result.is_err(), "no error, although {}", history());
                let after = ended.state.contents();
                assert_eq!(rules.files_kept(&after), Ok(()), "{}", history());
                let LfcFiles { output, .. } = &rules.names.lfc;
                assert!(
                    fault.lasting || !after.contains_key(output) || start == Start::StaleOutput,
                    "an output is left after {}",
                    history()
                );
            }
        }
        let tried = rules.report(start);
        assert!(tried.faults >= 80, "{tried:?}");
        assert!(tried.power_cuts >= 300, "{tried:?}");
    }
}

rule! {
    fn a_power_cut_after_a_failed_cleanup_loses_no_lease(start: Start, family: Family) {
        let mut rules = Rules::of(start, family);
        // The PID file is tested with a single cleanup; here it would only multiply the cases.
        rules.ignores_pid_file = true;
        let mut ended = BTreeMap::new();
        for (at, operation) in rules.operations().into_iter().enumerate() {
            // The kind of error does not affect the disk.
            for fault in faults_at(at, operation.action).into_iter().filter(|fault| fault.error == EIO) {
                rules.tried.faults += 1;
                let disk = rules.disk().with_fault(fault);
                rules.clean(&disk).unwrap_err();
                ended.entry(disk.state()).or_insert((operation.clone(), fault));
            }
        }
        // Unsynced changes of the first cleanup are still in memory only.
        for (state, (operation, fault)) in ended {
            let history = || format!("{operation} failed, {fault:?}, then the next cleanup");
            let ended = rules.check_run(SimulatedDisk::new(state), &history);
            assert!(ended.result.is_ok(), "{}: {:?}", history(), ended.result);
            assert!(rules.is_cleaned(&ended.state.contents()), "{}", history());
        }
        let tried = rules.report(start);
        assert!(tried.power_cuts >= 50, "{tried:?}");
        assert!(tried.combinations >= 1000, "{tried:?}");
    }
}

rule! {
    fn an_interrupted_read_is_retried(start: Start, family: Family) {
        let rules = Rules::of(start, family);
        for (at, operation) in rules.operations().into_iter().enumerate() {
            if operation.action == Action::Read {
                let fault = Fault { at, error: EINTR, effect: Effect::Nothing, lasting: false };
                let disk = rules.disk().with_fault(fault);
                rules.clean(&disk).unwrap();
                assert!(rules.is_cleaned(&disk.state().contents()), "{operation} (number {at})");
            }
        }
    }
}

rule! {
    fn a_read_may_give_less_than_was_asked_for(start: Start, family: Family) {
        let rules = Rules::of(start, family);
        for most in [1, 7, 100] {
            let disk = rules.disk().reading_at_most(most);
            rules.clean(&disk).unwrap();
            assert!(rules.is_cleaned(&disk.state().contents()), "reads of {most} bytes");
        }
    }
}

rule! {
    fn a_cancelled_cleanup_changes_nothing(start: Start, family: Family) {
        let rules = Rules::of(start, family);
        let mut expected = rules.start.clone();
        expected.remove(&rules.names.lfc.output);
        expected.remove(&rules.names.lfc.pid);
        let clean = |disk: &SimulatedDisk, monitor: &Monitor| {
            let cleanup = Cleanup::new(family, rules.names.lfc.clone()).file_system(disk).threads(1);
            cleanup.monitor(monitor).run()
        };
        let is_finished = matches!(rules.clean(&rules.disk()), Ok(Outcome::Finished));

        let monitor = Monitor::default();
        monitor.cancel();
        let disk = rules.disk();
        let result = clean(&disk, &monitor);
        let after = disk.state().contents();
        if is_finished {
            // A later cancellation has no effect: only renames are left.
            assert!(matches!(result, Ok(Outcome::Finished)), "{result:?}");
            assert!(rules.is_cleaned(&after), "{}", show(&after));
            return;
        }
        assert!(matches!(result, Err(LfcError::Cancelled)), "{result:?}");
        assert_eq!(show(&without_invalid_finish(&rules, &after)), show(&without_finish(&rules, &expected)));

        let (mut cancelled, mut too_late) = (0, 0);
        for at in 0..rules.operations().len() {
            let monitor = Arc::new(Monitor::default());
            let cancels = Arc::clone(&monitor);
            let disk = rules.disk().before_each(move |number, _| {
                if number == at {
                    cancels.cancel();
                }
            });
            let result = clean(&disk, &monitor);
            let after = disk.state().contents();
            match result {
                Err(LfcError::Cancelled) => {
                    cancelled += 1;
                    assert_eq!(show(&without_invalid_finish(&rules, &after)), show(&without_finish(&rules, &expected)));
                }
                Ok(_) => {
                    too_late += 1;
                    assert!(rules.is_cleaned(&after), "{}", show(&after));
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(cancelled >= 5 && too_late >= 5, "{cancelled} cancelled, {too_late} too late");
    }
}

/// Returns the files without an invalid finish file that was set aside.
fn without_invalid_finish(rules: &Rules, contents: &Contents) -> Contents {
    let mut rest = contents.clone();
    rest.remove(&invalid_finish(&rules.names));
    rest
}

/// Returns the files without a finish file that is not the result of a cleanup.
fn without_finish(rules: &Rules, contents: &Contents) -> Contents {
    let mut rest = contents.clone();
    rest.remove(&rules.names.lfc.finish);
    rest
}

#[rstest]
fn no_cleanup_begins_while_another_process_cleans_up(#[values(Family::V4, Family::V6)] family: Family) {
    let mut rules = Rules::of(Start::StaleOutput, family);
    rules.start.insert(rules.names.lfc.pid.clone(), b"4711\n".to_vec());
    let disk = rules.disk();
    let mut running = rules.names.lfc.pid.clone().into_os_string();
    running.push(".running");
    let lock = disk.try_lock(Path::new(&running)).unwrap().unwrap();
    assert!(matches!(rules.clean(&disk), Ok(Outcome::Running(4711))));
    assert_eq!(disk.state().contents(), rules.start);
    drop(lock);
    assert!(
        matches!(rules.clean(&disk), Ok(Outcome::Cleaned { .. })),
        "a PID alone is not a running cleanup"
    );
}

/// The output is synced at intervals, so that the last sync is short.
#[rstest]
fn a_failed_intermediate_sync_fails_the_cleanup(#[values(Family::V4, Family::V6)] family: Family) {
    let names = Names::in_directory(Path::new("/leases"));
    let rows: Vec<_> = (0..250_000).map(|n| row(family, n, 0, 3600)).collect();
    let start = Contents::from([(names.lfc.input.clone(), lease_file(family, &rows))]);
    let clean = |disk: &SimulatedDisk| Cleanup::new(family, names.lfc.clone()).file_system(disk).run();

    let disk = SimulatedDisk::new(State::holding(&start)).with_failing_sync(1);
    clean(&disk).unwrap_err();
    let syncs = disk.operations().iter().filter(|operation| operation.action == Action::Sync).count();
    assert_eq!(syncs, 1, "no sync follows a failed one");
    assert_eq!(disk.state().contents(), start);
}
