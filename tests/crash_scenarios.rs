//! Scenarios of a memfile on a disk that fails and loses unsynced data: it is opened with files of
//! an old schema, which it converts; leases are added, updated and deleted, singly and in batches;
//! files are cleaned up, synced, closed and reopened.
//!
//! In a scripted scenario, each file operation fails in one of several ways, and the process is
//! killed or the power cut at each moment. Random scenarios follow. The next start must find every
//! acknowledged lease, and none that was never written.
//!
//! `LEASEMGR_SCENARIOS=n` sets the number of random scenarios, and lets each operation of the
//! scripted one fail in all ways; `LEASEMGR_SEED=n` sets the seed of the first random scenario. Ten
//! thousand scenarios take two to three minutes in a release build.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::Durability;
use leasemgr::fs::simulated::{Action, EINTR, EIO, ENOSPC, Effect, Fault, SimulatedDisk, State};
use leasemgr::lease::{Lease4, Lease6};
use leasemgr::memfile::{self, LfcProgram, MemfileOptions, OpenError};
use leasemgr::{Added, Done, LeaseMgr, LeaseMgrError, LeaseMgrExt, Operation};
use rstest::rstest;

use support::leases::TestLease;
use support::{Contents, Names, Random, oldest_lease_file, row};

/// Too long for a periodic sync during a test.
const HOUR: Durability = Durability::SyncedEvery(Duration::from_secs(3600));

/// A step of a scenario. The number is that of the lease's address.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u32),
    Update(u32),
    Delete(u32),
    /// Several changes of this address and the next two, in one batch.
    Batch(u32),
    /// The same changes, submitted one after the other.
    Submit(u32),
    CleanUp,
    Flush,
    Reopen,
}

use Step::{Add, Batch, CleanUp, Delete, Flush, Reopen, Submit, Update};

const STEPS: [Step; 18] = [
    Add(10),
    Update(1),
    Delete(2),
    Flush,
    Add(11),
    Batch(1),
    CleanUp,
    Update(10),
    Add(12),
    Submit(11),
    Reopen,
    Delete(11),
    Add(2),
    CleanUp,
    CleanUp,
    Update(12),
    Delete(1),
    Flush,
];

/// A value that a lease was to get; `None` for a deletion.
struct Attempt<L> {
    lease: Option<L>,
    /// Number of moments of the disk when the change was acknowledged, if it was.
    acknowledged: Option<usize>,
    /// Number of moments of the disk when the change became durable, if it did.
    durable: Option<usize>,
}

/// The values that each lease was to get, from the start.
struct History<L: TestLease>(BTreeMap<L::Address, Vec<Attempt<L>>>);

impl<L: TestLease + Debug> History<L> {
    fn of(leases: Vec<L>) -> Self {
        let initial = |lease| vec![Attempt { lease: Some(lease), acknowledged: Some(0), durable: Some(0) }];
        Self(leases.into_iter().map(|lease| (lease.address(), initial(lease))).collect())
    }

    fn attempts(&mut self, address: L::Address) -> &mut Vec<Attempt<L>> {
        self.0
            .entry(address)
            .or_insert_with(|| vec![Attempt { lease: None, acknowledged: Some(0), durable: Some(0) }])
    }

    fn all_durable(&mut self, moment: usize) {
        for attempt in self.0.values_mut().flatten() {
            if attempt.acknowledged.is_some() && attempt.durable.is_none() {
                attempt.durable = Some(moment);
            }
        }
    }

    /// Panics unless each lease found has its last promised value, or a later one if `later` is
    /// set.
    #[track_caller]
    fn check(&self, found: Vec<L>, promised: impl Fn(&Attempt<L>) -> bool, later: bool, context: &str) {
        let found: BTreeMap<_, _> = found.into_iter().map(|lease| (lease.address(), lease)).collect();
        for address in found.keys() {
            assert!(self.0.contains_key(address), "{context}: {address} was never written");
        }
        for (address, attempts) in &self.0 {
            let last = attempts.iter().rposition(&promised).unwrap();
            let found = found.get(address);
            let is_promised = attempts[last].lease.as_ref() == found;
            let mut others = if later { attempts[last + 1..].iter() } else { [].iter() };
            assert!(
                is_promised || others.any(|attempt| may_be_found(attempt.lease.as_ref(), found)),
                "{context}: {address} is {found:?}, promised was {:?}",
                attempts[last].lease
            );
        }
    }
}

/// Returns whether a lease that was not promised may be found. If its row is torn after the first
/// digits of the last column, the pool id, the rest is a valid row.
fn may_be_found<L: TestLease>(written: Option<&L>, found: Option<&L>) -> bool {
    let (Some(written), Some(found)) = (written, found) else {
        return written.is_none() && found.is_none();
    };
    let (pool, left) = (written.data().pool_id, found.data().pool_id);
    let mut torn = written.clone();
    torn.data_mut().pool_id = left;
    torn == *found && pool.to_string().starts_with(&left.to_string())
}

fn initial_files<L: TestLease>() -> Contents {
    let names = Names::in_directory(Path::new("/leases"));
    let rows = |numbers: &[u32]| -> Vec<_> { numbers.iter().map(|&n| row(L::FAMILY, n, 0, 3600)).collect() };
    // The steps use the addresses from 248 on.
    let previous = oldest_lease_file(L::FAMILY, &rows(&[1, 2, 248, 249]));
    let current = oldest_lease_file(L::FAMILY, &rows(&[3, 249, 250, 251]));
    Contents::from([(names.lfc.previous, previous), (names.current, current)])
}

fn open<L: TestLease>(
    disk: &SimulatedDisk,
    durability: Durability,
) -> Result<Arc<dyn LeaseMgr<L>>, OpenError> {
    let options = MemfileOptions::at(Names::in_directory(Path::new("/leases")).current)
        .lfc_interval(None)
        // A torn last row in the journal, and one in the journal of the cleanup.
        .max_row_errors(2)
        .extended_info_tables(true)
        .durability(durability)
        .lfc_program(LfcProgram::Internal);
    let mgr = memfile::open_on(options, Arc::new(disk.clone()))?;
    wait_for_cleanup(&*mgr);
    Ok(mgr)
}

/// Waits until no cleanup is running or requested.
fn wait_for_cleanup<L: TestLease>(mgr: &dyn LeaseMgr<L>) {
    let start = Instant::now();
    loop {
        let status = mgr.status().cleanup.unwrap();
        if !status.running && status.next.is_none() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(600), "the cleanup does not end: {status:?}");
        thread::sleep(Duration::from_micros(100));
    }
}

/// Returns the leases that the next start finds. Panics unless the start after that finds them too,
/// along with a lease added in between.
#[track_caller]
fn found<L: TestLease + Debug>(contents: &Contents, context: &str) -> Vec<L> {
    let disk = SimulatedDisk::new(State::holding(contents));
    let start = || open::<L>(&disk, Durability::Written).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mgr = start();
    let found = mgr.all().unwrap();
    let new = L::tagged(100, 0).kept();
    assert_eq!(mgr.add(&new).unwrap(), Added::Added, "{context}");
    drop(mgr);
    let later = start().all().unwrap();
    assert!(later.contains(&new), "{context}: a lease added later");
    assert!(later.iter().filter(|lease| **lease != new).eq(&found), "{context}: at the second start");
    found
}

/// Returns changes of an address and the next two, each with the resulting lease. Later changes
/// depend on earlier ones.
fn batch<L: TestLease>(mgr: &dyn LeaseMgr<L>, n: u32, tag: u32) -> Vec<(Operation<L>, Option<L>)> {
    let mut there: BTreeSet<_> = mgr.all().unwrap().iter().map(L::address).collect();
    let mut batch = Vec::new();
    for (tag, (n, is_kept)) in
        (tag..).zip([(n, true), (n + 1, true), (n, false), (n + 2, true), (n + 1, true), (n, true)])
    {
        let lease = L::tagged(n, tag).kept();
        let address = lease.address();
        let is_there = if is_kept { !there.insert(address) } else { there.remove(&address) };
        batch.push(match (is_kept, is_there) {
            (false, _) => (Operation::delete(address), None),
            (true, true) => (Operation::update(lease.clone()), Some(lease)),
            (true, false) => (Operation::Add(lease.clone()), Some(lease)),
        });
    }
    batch
}

/// Submits changes. Returns their results, each with the number of moments of the disk at its time.
fn submit_all<L: TestLease>(
    mgr: &dyn LeaseMgr<L>,
    operations: Vec<Operation<L>>,
    disk: &SimulatedDisk,
) -> Vec<(Result<Done, LeaseMgrError>, usize)> {
    let submit = |operation| {
        let (sender, answer) = mpsc::channel();
        let disk = disk.clone();
        let then = move |result| sender.send((result, disk.moment_count())).unwrap();
        mgr.submit(operation, Box::new(then));
        answer
    };
    let answers: Vec<_> = operations.into_iter().map(submit).collect();
    answers.into_iter().map(|answer| answer.recv_timeout(Duration::from_secs(600)).unwrap()).collect()
}

/// Runs the steps as far as the disk allows. Returns the values that the leases were to get.
fn run_steps<L: TestLease + Debug>(
    disk: &SimulatedDisk,
    durability: Durability,
    steps: &[Step],
) -> History<L> {
    let mut history = History::of(found(&initial_files::<L>(), "the initial files"));
    let Ok(mut mgr) = open::<L>(disk, durability) else { return history };
    for (tag, &step) in (0..).zip(steps) {
        match step {
            Add(n) | Update(n) | Delete(n) => {
                let lease = L::tagged(n, tag).kept();
                let address = lease.address();
                let is_there = mgr.get(address).unwrap().is_some();
                let (result, becomes) = match step {
                    Delete(_) => (mgr.delete(address).map(drop), None),
                    _ if is_there => (mgr.update(&lease), Some(lease)),
                    _ => (mgr.add(&lease).map(drop), Some(lease)),
                };
                if matches!(result, Err(LeaseMgrError::Refused { .. })) || (!is_there && becomes.is_none()) {
                    continue;
                }
                let acknowledged = result.is_ok().then(|| disk.moment_count());
                let durable = acknowledged.filter(|_| durability == Durability::Synced);
                history.attempts(address).push(Attempt { lease: becomes, acknowledged, durable });
            }
            Batch(n) | Submit(n) => {
                let batch = batch(&*mgr, n, 100 + 8 * tag);
                let operations: Vec<_> = batch.iter().map(|(operation, _)| operation.clone()).collect();
                let results = if matches!(step, Batch(_)) {
                    let results = mgr.apply(&operations);
                    let moment = disk.moment_count();
                    results.into_iter().map(|result| (result, moment)).collect()
                } else {
                    submit_all(&*mgr, operations, disk)
                };
                for ((operation, becomes), (result, moment)) in batch.into_iter().zip(results) {
                    let acknowledged = match result {
                        Ok(Done::Added | Done::Updated | Done::Deleted) => Some(moment),
                        Err(LeaseMgrError::Write { .. }) => None,
                        // Not tried, as an earlier operation of the batch has failed.
                        _ => continue,
                    };
                    let durable = acknowledged.filter(|_| durability == Durability::Synced);
                    let attempt = Attempt { lease: becomes, acknowledged, durable };
                    history.attempts(operation.address()).push(attempt);
                }
            }
            CleanUp => {
                mgr.clean_up().unwrap();
                wait_for_cleanup(&*mgr);
            }
            Flush => {
                if mgr.flush().is_ok() {
                    history.all_durable(disk.moment_count());
                }
            }
            Reopen => {
                drop(mgr);
                match open(disk, durability) {
                    Ok(opened) => mgr = opened,
                    Err(_) => return history,
                }
            }
        }
        history.check(
            mgr.all().unwrap(),
            |attempt| attempt.acknowledged.is_some(),
            // A row of a failed change that could not be cut off is read again.
            steps[..tag as usize].iter().any(|step| matches!(step, Reopen)),
            &format!("in memory after {step:?}"),
        );
    }
    history
}

/// Checks what is left by a kill, and by a power cut, at some moments.
fn check_moments<L: TestLease + Debug>(
    disk: &SimulatedDisk,
    history: &History<L>,
    chosen: impl Fn(usize) -> bool,
    random: &mut Random,
    context: &str,
) -> usize {
    const SURVIVORS: usize = 3;
    let mut checked = BTreeSet::new();
    for (n, moment) in disk.moments().iter().enumerate().filter(|&(n, _)| chosen(n)) {
        // State `n` is left from the time when there are n + 1 of them.
        let until = |time: Option<usize>| time.is_some_and(|time| time <= n + 1);
        let mut check = |contents: Contents, power: bool| {
            if !checked.insert((n, power, contents.clone())) {
                return;
            }
            let context = format!("{context}, moment {n}, power cut: {power}");
            let promised =
                |attempt: &Attempt<L>| until(if power { attempt.durable } else { attempt.acknowledged });
            history.check(found(&contents, &context), promised, true, &context);
        };
        check(moment.contents(), false);
        moment
            .some_survivors(random.next(), SURVIVORS)
            .into_iter()
            .for_each(|contents| check(contents, true));
    }
    checked.len()
}

/// Checks what the next start finds after a scenario with a failure.
fn check_failure<L: TestLease + Debug>(durability: Durability, steps: &[Step], fault: Fault) {
    let context = format!("{fault:?}, {durability:?}, {steps:?}");
    let disk = SimulatedDisk::new(State::holding(&initial_files::<L>())).with_fault(fault);
    let history = run_steps::<L>(&disk, durability, steps);
    let left = found(&disk.state().contents(), &context);
    // A row that could not be cut off may be found.
    history.check(left, |attempt| attempt.acknowledged.is_some(), fault.lasting, &context);
}

fn faults(at: usize, action: Action) -> Vec<Fault> {
    let effects: &[Effect] = match action {
        Action::Append | Action::WriteAt => &[Effect::Nothing, Effect::Half, Effect::Everything],
        Action::Create | Action::Rename | Action::Remove | Action::SetLen => {
            &[Effect::Nothing, Effect::Everything]
        }
        _ => &[Effect::Nothing],
    };
    let mut faults = vec![Fault { at, error: EINTR, effect: Effect::Nothing, lasting: false }];
    for &effect in effects {
        for (error, lasting) in [(EIO, false), (EIO, true), (ENOSPC, false)] {
            faults.push(Fault { at, error, effect, lasting });
        }
    }
    faults
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// Returns one fault of an operation, or all of them.
fn some_faults(at: usize, action: Action, random: &mut Random) -> Vec<Fault> {
    let mut faults = faults(at, action);
    if number("LEASEMGR_SCENARIOS").is_none() {
        let chosen = random.below(faults.len().try_into().unwrap()) as usize;
        faults = vec![faults[chosen]];
    }
    faults
}

fn check_scripted<L: TestLease + Debug>(durability: Durability) {
    let disk = SimulatedDisk::new(State::holding(&initial_files::<L>())).with_moments();
    let history = run_steps::<L>(&disk, durability, &STEPS);
    assert!(history.0.values().flatten().all(|attempt| attempt.acknowledged.is_some()));
    let moments = check_moments(&disk, &history, |_| true, &mut Random(1), "undisturbed");
    let operations = disk.operations();
    let mut failures = 0;
    for (at, operation) in operations.iter().enumerate() {
        for fault in some_faults(at, operation.action, &mut Random(at as u64)) {
            check_failure::<L>(durability, &STEPS, fault);
            failures += 1;
        }
    }
    println!(
        "{} {durability:?}: {} operations, {failures} failures, {moments} disks after a crash",
        L::FAMILY,
        operations.len()
    );
    assert!(failures > 200 && moments > 200, "{failures} failures, {moments} disks");
}

#[rstest]
fn no_failing_operation_loses_a_lease(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
    #[values(4, 6)] family: u8,
) {
    if family == 4 { check_scripted::<Lease4>(durability) } else { check_scripted::<Lease6>(durability) }
}

fn check_random<L: TestLease + Debug>(seed: u64) {
    let random = &mut Random(seed);
    let durability = [Durability::Written, Durability::Synced, HOUR][random.below(3) as usize];
    let mut steps = Vec::new();
    for _ in 0..5 + random.below(30) {
        let n = random.below(14);
        steps.push(match random.below(18) {
            0..6 => Add(n),
            6..10 => Update(n),
            10..12 => Delete(n),
            12 | 13 => CleanUp,
            14 => Flush,
            16 => Batch(n),
            17 => Submit(n),
            _ => Reopen,
        });
    }
    let disk = SimulatedDisk::new(State::holding(&initial_files::<L>())).with_moments();
    let history = run_steps::<L>(&disk, durability, &steps);
    let moments: BTreeSet<_> =
        (0..2).map(|_| random.below(disk.moment_count().try_into().unwrap()) as usize).collect();
    let context = format!("seed {seed}, {durability:?}, {steps:?}");
    check_moments(&disk, &history, |n| moments.contains(&n), random, &context);
    let operations = disk.operations();
    let at = random.below(operations.len().try_into().unwrap()) as usize;
    let faults = faults(at, operations[at].action);
    let chosen = random.below(faults.len().try_into().unwrap()) as usize;
    check_failure::<L>(durability, &steps, faults[chosen]);
}

#[test]
fn no_random_scenario_loses_a_lease() {
    let first = number("LEASEMGR_SEED").unwrap_or(0);
    let end = first + number("LEASEMGR_SCENARIOS").unwrap_or(400);
    let next = AtomicU64::new(first);
    // A scenario spends most of its time waiting for cleanup threads.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|&seed| seed < end) {
                    if seed % 2 == 0 { check_random::<Lease4>(seed) } else { check_random::<Lease6>(seed) }
                }
            });
        }
    });
}
