//! A memfile compared with a model, a plain map: random changes and queries. In between the manager
//! is reopened, cleans up, is killed, loses the end of its last row, or the power is cut. All
//! leases and answers must be those of the model.
//!
//! `LEASEMGR_MODEL_CASES=n` multiplies the number of cases by `n`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::Durability;
use leasemgr::fs::simulated::{EINTR, EIO, ENOSPC, Effect, Fault, SimulatedDisk, State};
use leasemgr::lease::{Family, Lease4, Lease6, LeaseState, Lifetime, SubnetId, system_time};
use leasemgr::lease_file::LeaseFileSet;
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use leasemgr::{
    Added, Change, ChangeKind, CleanupStart, CleanupStatus, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt,
    Query, StatisticsQuery, Subnets,
};
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use rstest::rstest;

use support::leases::{
    FIRST_CLTT, KeyValues, RelayTables, TestLease, assert_same, check_all, check_expired, check_query,
    check_statistics, expired,
};
use support::{Contents, Names, Random, header};

/// The storage of the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Memory,
    Directory,
    Disk,
}

/// The options with which the manager is opened.
#[derive(Clone, Copy, Debug)]
struct Opening {
    place: Place,
    durability: Durability,
    tables: RelayTables,
}

/// The lease that the caller of a conditional change expects.
#[derive(Clone, Debug)]
enum Expected<L> {
    /// The stored lease.
    Stored,
    /// The stored lease with one field changed.
    Near(u8),
    /// Any other lease.
    Other(L),
}

/// A query by a key of a lease.
#[derive(Clone, Debug)]
struct KeyQuery<L> {
    like: L,
    key: usize,
    subnet: Option<u32>,
    after: Option<u32>,
    limit: Option<usize>,
    since: Option<i64>,
    until: Option<i64>,
    ended_by: Option<i64>,
    first: Option<u32>,
    last: Option<u32>,
    reversed: bool,
}

/// A step. Numbers of existing leases are counted from the first one.
#[derive(Clone, Debug)]
enum Step<L> {
    Add(L),
    Update(L),
    UpdateIf(L, Expected<L>),
    Renew(u32, i64),
    Delete(u32),
    DeleteIf(u32, Expected<L>),
    /// Reclaims expired leases as a server does.
    Reclaim(i64, usize),
    RemoveReclaimed(i64),
    Wipe(u32),
    ZeroLifetime(L),
    Recount,
    Ask(KeyQuery<L>),
    Expired(i64, usize),
    Statistics(u32, Option<u32>, bool),
    Flush,
    /// A number of cleanups, each of which is waited for; with 0, one cleanup that is not.
    CleanUp(u8),
    Reopen,
    /// The process is killed.
    Kill,
    /// The process is killed, and part of the last row is missing in the file.
    Tear(usize),
    /// The power is cut.
    PowerCut(u64),
    /// The disk fails in a file operation of an addition or update, counted from its start.
    Fail(L, usize, Failure),
}

/// A failure of the disk.
#[derive(Clone, Copy, Debug)]
struct Failure {
    error: i32,
    effect: Effect,
    lasting: bool,
}

fn any_expected<L: TestLease>(addresses: u32) -> impl Strategy<Value = Expected<L>> {
    prop_oneof![
        4 => Just(Expected::Stored),
        2 => (0..9_u8).prop_map(Expected::Near),
        1 => L::any(addresses).prop_map(Expected::Other),
    ]
}

fn any_key_query<L: TestLease>(addresses: u32) -> impl Strategy<Value = KeyQuery<L>> {
    let time = || prop::option::weighted(0.2, FIRST_CLTT - 1..FIRST_CLTT + 60);
    let subnet = prop::option::weighted(0.4, 0..3_u32);
    let after = prop::option::weighted(0.4, 0..addresses);
    let limit = prop::option::weighted(0.4, prop_oneof![8 => 0..6_usize, 1 => 0..400_usize]);
    let end = prop::option::weighted(0.2, FIRST_CLTT..FIRST_CLTT + 130);
    let bound = || prop::option::weighted(0.3, 0..addresses);
    let order = (bound(), bound(), any::<bool>());
    (L::any(addresses), 0..12_usize, subnet, after, limit, (time(), time()), end, order).prop_map(
        |(like, key, subnet, after, limit, (since, until), ended_by, (first, last, reversed))| KeyQuery {
            like,
            key,
            subnet,
            after,
            limit,
            since,
            until,
            ended_by,
            first,
            last,
            reversed,
        },
    )
}

fn any_step<L: TestLease>(addresses: u32) -> impl Strategy<Value = Step<L>> {
    let lease = || L::any(addresses);
    let time = || prop_oneof![20 => FIRST_CLTT..FIRST_CLTT + 130, 1 => Just(0), 1 => Just(i64::MAX)];
    let limit = || prop_oneof![1 => Just(0_usize), 2 => 1..5_usize];
    prop_oneof![
        12 => lease().prop_map(Step::Add),
        8 => lease().prop_map(Step::Update),
        6 => (lease(), any_expected(addresses)).prop_map(|(lease, expectation)| Step::UpdateIf(lease, expectation)),
        8 => (0..addresses, prop_oneof![8 => 0..40_i64, 1 => -40..0_i64]).prop_map(|(n, by)| Step::Renew(n, by)),
        3 => (0..addresses).prop_map(Step::Delete),
        4 => (0..addresses, any_expected(addresses)).prop_map(|(n, expectation)| Step::DeleteIf(n, expectation)),
        3 => (time(), limit()).prop_map(|(now, limit)| Step::Reclaim(now, limit)),
        1 => time().prop_map(Step::RemoveReclaimed),
        1 => (0..4_u32).prop_map(Step::Wipe),
        1 => lease().prop_map(Step::ZeroLifetime),
        1 => Just(Step::Recount),
        20 => any_key_query(addresses).prop_map(Step::Ask),
        4 => (time(), limit()).prop_map(|(now, limit)| Step::Expired(now, limit)),
        3 => (0..4_u32, prop::option::of(0..4_u32), any::<bool>())
            .prop_map(|(first, last, by_pool)| Step::Statistics(first, last, by_pool)),
        2 => Just(Step::Flush),
        2 => (0..3_u8).prop_map(Step::CleanUp),
        1 => Just(Step::Reopen),
        2 => Just(Step::Kill),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::Tear(at.index(1 << 20))),
        2 => any::<u64>().prop_map(Step::PowerCut),
        2 => (lease(), 0..4_usize, any_failure()).prop_map(|(lease, at, failure)| Step::Fail(lease, at, failure)),
    ]
}

fn any_failure() -> impl Strategy<Value = Failure> {
    let error = prop::sample::select(vec![EIO, ENOSPC, EINTR]);
    let effect =
        prop::sample::select(vec![Effect::Nothing, Effect::Half, Effect::AllButOne, Effect::Everything]);
    let failure = |(error, effect, lasting)| {
        // A call that is interrupted each time is retried for ever.
        Failure { error, effect, lasting: lasting && error != EINTR }
    };
    (error, effect, any::<bool>()).prop_map(failure)
}

fn any_durability() -> impl Strategy<Value = Durability> {
    prop::sample::select(vec![
        Durability::Written,
        Durability::Synced,
        Durability::SyncedEvery(Duration::from_millis(1)),
    ])
}

/// A call of a callback, with the old and the new lease.
#[derive(Clone, Debug, PartialEq)]
struct Call<L> {
    old: Option<L>,
    new: Option<L>,
}

impl<L: TestLease> Call<L> {
    fn of(change: &Change<'_, L>) -> Self {
        let kept = |lease: Option<&L>| lease.map(|lease| lease.clone().kept());
        Self { old: kept(change.before()), new: kept(change.now()) }
    }

    fn address(&self) -> Option<L::Address> {
        self.old.as_ref().or(self.new.as_ref()).map(L::address)
    }
}

/// The model, and the leases that a power cut may leave.
struct Model<L: TestLease> {
    leases: BTreeMap<L::Address, L>,
    /// The leases before their last change.
    before: BTreeMap<L::Address, Option<L>>,
    /// The leases since the last time at which all changes were durable, for addresses that have
    /// changed.
    since_durable: BTreeMap<L::Address, Vec<Option<L>>>,
    /// Whether the last row of the journal, if any, is that of the last change.
    last_row_is_whole: bool,
    expected_calls: Vec<Call<L>>,
}

impl<L: TestLease> Model<L> {
    fn new() -> Self {
        Self {
            leases: BTreeMap::new(),
            before: BTreeMap::new(),
            since_durable: BTreeMap::new(),
            last_row_is_whole: false,
            expected_calls: Vec::new(),
        }
    }

    fn set(&mut self, address: L::Address, new: Option<L>) {
        let old = match new.clone() {
            Some(lease) => self.leases.insert(address, lease),
            None => self.leases.remove(&address),
        };
        self.since_durable.entry(address).or_insert_with(|| vec![old.clone()]).push(new.clone());
        self.before.insert(address, old.clone());
        self.last_row_is_whole = true;
        self.expected_calls.push(Call { old, new });
    }

    fn put(&mut self, lease: L) {
        self.set(lease.address(), Some(lease));
    }

    /// Returns the address of lease `n`, modulo the number of leases.
    fn nth(&self, n: u32) -> Option<L::Address> {
        let count = self.leases.len();
        if count == 0 { None } else { self.leases.keys().nth(n as usize % count).copied() }
    }

    fn list(&self) -> Vec<L> {
        self.leases.values().cloned().collect()
    }

    /// Returns the lease that a caller expects at an address.
    fn expected_by_caller(&self, address: L::Address, expectation: &Expected<L>, like: &L) -> L {
        let now = self.leases.get(&address).unwrap_or(like);
        match expectation {
            Expected::Stored => now.clone(),
            Expected::Near(n) => near(now, *n),
            Expected::Other(other) => other.at(address),
        }
    }
}

/// Returns the lease with one field changed.
fn near<L: TestLease>(lease: &L, field: u8) -> L {
    let mut near = lease.clone();
    let state = LeaseState(if lease.state().0 == 1 { 1 } else { 3 - lease.state().0.min(3) });
    let data = near.data_mut();
    match field {
        0 => data.cltt ^= 1,
        1 => data.valid_lifetime = Lifetime(data.valid_lifetime.0 ^ 2),
        2 => data.subnet_id.0 ^= 1,
        3 => data.pool_id.0 ^= 1,
        4 => data.fqdn_fwd = !data.fqdn_fwd,
        5 => data.fqdn_rev = !data.fqdn_rev,
        6 => data.hostname = "another".into(),
        7 => data.user_context = data.user_context.take().map_or_else(|| Some(Default::default()), |_| None),
        _ => near.set_state(state).unwrap(),
    }
    near
}

/// A manager, its storage, and its expected leases.
struct Case<L: TestLease> {
    opening: Opening,
    directory: tempfile::TempDir,
    disk: SimulatedDisk,
    mgr: Option<Arc<dyn LeaseMgr<L>>>,
    /// Number of cleanups that must have ended.
    cleanups: u64,
    /// Whether the files may contain a torn row.
    torn: bool,
    calls: Arc<Mutex<Vec<Call<L>>>>,
    model: Model<L>,
}

impl<L: TestLease> Case<L> {
    fn new(opening: Opening) -> Self {
        let mut case = Self {
            opening,
            directory: tempfile::tempdir().unwrap(),
            disk: SimulatedDisk::new(State::holding(&Contents::new())),
            mgr: None,
            cleanups: 0,
            torn: false,
            calls: Arc::default(),
            model: Model::new(),
        };
        case.open();
        case
    }

    fn mgr(&self) -> &dyn LeaseMgr<L> {
        self.mgr.as_deref().unwrap()
    }

    fn names(&self) -> Names {
        match self.opening.place {
            Place::Disk => Names::in_directory(Path::new("/leases")),
            _ => Names::in_directory(self.directory.path()),
        }
    }

    /// Opens the leases on a disk, or in their other storage.
    fn opened_on(&self, disk: &SimulatedDisk) -> Arc<dyn LeaseMgr<L>> {
        let Opening { place, durability, tables } = self.opening;
        let options = MemfileOptions::default()
            .lfc_interval(None)
            .extended_info_tables(tables.0)
            // Random user contexts are loaded unchanged.
            .extended_info_checks(leasemgr::lease::ExtendedInfoChecks::None)
            .durability(durability)
            .lfc_program(LfcProgram::Internal);
        let file = Some(self.names().current);
        match place {
            Place::Memory => memfile::open::<L>(options),
            Place::Directory => memfile::open::<L>(options.file(file)),
            Place::Disk => memfile::open_on::<L>(options.file(file), Arc::new(disk.clone())),
        }
        .unwrap()
    }

    fn open(&mut self) {
        let mgr = self.opened_on(&self.disk);
        for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
            let calls = Arc::clone(&self.calls);
            let call = move |change: &Change<'_, L>| {
                assert_eq!(change.kind(), kind);
                calls.lock().unwrap().push(Call::of(change));
            };
            mgr.tracking().register("model", kind, None, call).unwrap();
        }
        self.mgr = Some(mgr);
        self.cleanups = 0;
    }

    fn files(&self) -> Contents {
        match self.opening.place {
            Place::Disk => self.disk.state().contents(),
            _ => fs::read_dir(self.directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .map(|path| (path.clone(), fs::read(path).unwrap()))
                .collect(),
        }
    }

    /// Kills the process, and opens the leases in these files.
    fn start_with(&mut self, files: &Contents) {
        if self.opening.place == Place::Disk {
            self.disk = SimulatedDisk::new(State::holding(files));
            self.mgr = None;
            self.model.since_durable.clear();
        } else {
            let directory = tempfile::tempdir().unwrap();
            for (path, content) in files {
                fs::write(directory.path().join(path.file_name().unwrap()), content).unwrap();
            }
            self.mgr = None;
            self.directory = directory;
        }
        self.open();
    }

    fn cleanup(&self) -> CleanupStatus {
        self.mgr().status().cleanup.unwrap()
    }

    /// Returns whether a cleanup is running or requested.
    fn is_cleaning(&self) -> bool {
        let status = self.cleanup();
        status.running || status.succeeded + status.failed < self.cleanups
    }

    /// Waits until no cleanup is running or requested.
    fn wait_for_cleanups(&self) {
        let start = Instant::now();
        while self.is_cleaning() {
            assert!(
                start.elapsed() < Duration::from_secs(600),
                "the cleanup does not end: {:?}",
                self.cleanup()
            );
            thread::sleep(Duration::from_micros(200));
        }
        let status = self.cleanup();
        assert_eq!(status.failed, 0, "{:?}", status.last);
    }

    fn clean_up(&mut self, times: u8) {
        if self.opening.place == Place::Memory {
            assert_eq!(self.mgr().clean_up().unwrap(), CleanupStart::NotNeeded);
            return;
        }
        for _ in 0..times.max(1) {
            self.wait_for_cleanups();
            let status = self.cleanup();
            assert_eq!(self.mgr().clean_up().unwrap(), CleanupStart::Requested);
            self.cleanups = status.succeeded + 1;
        }
        if times > 0 {
            self.wait_for_cleanups();
            let files = self.files();
            let Leftovers { previous, current, others } = Leftovers::of(&self.names(), &files);
            assert_eq!(others, [""; 0], "files left by a cleanup");
            if times > 1 {
                // The first cleanup may have completed an interrupted one, but the last one had all
                // rows.
                assert_eq!((previous, current), (self.model.leases.len(), 0), "rows in F.2 and F");
                self.torn = false;
                self.model.last_row_is_whole = false;
            }
        }
    }

    /// Panics unless the files hold the leases, by the crate's reader and by the tests' own.
    fn check_files(&self) {
        if self.opening.place == Place::Memory {
            return;
        }
        let leases = self.model.list();
        if self.opening.place == Place::Directory {
            self.wait_for_cleanups();
            let read = LeaseFileSet::new(self.names().current).read::<L>().unwrap();
            assert_same("the lease files", &read.leases.into_values().collect::<Vec<_>>(), &leases);
            assert_eq!((read.invalid_rows.is_empty() || self.torn, read.needs_conversion), (true, false));
        }
        if !self.torn {
            let mut files = self.files();
            files.values_mut().for_each(remove_empty_lines);
            let rows = self.names().load(L::FAMILY, &files).unwrap();
            let numbers = |lease: &L| {
                let data = lease.data();
                let numbers = [data.valid_lifetime.0.into(), lease.expires_at(), data.subnet_id.0.into()];
                [numbers[0], numbers[1], numbers[2], lease.state().0.into(), data.pool_id.0.into()]
            };
            let expected: BTreeMap<IpAddr, _> =
                leases.iter().map(|lease| (lease.address().into(), numbers(lease))).collect();
            let columns = ["valid_lifetime", "expire", "subnet_id", "state", "pool_id"]
                .map(|name| header(L::FAMILY).split(',').position(|column| column == name).unwrap());
            let found: BTreeMap<IpAddr, _> = rows
                .into_iter()
                .map(|(address, row)| {
                    let values: Vec<_> = row.split(',').collect();
                    (address, columns.map(|column| values[column].parse().unwrap()))
                })
                .collect();
            assert_eq!(found, expected, "rows in the lease files");
        }
    }

    fn check_all(&self) {
        let leases = self.model.list();
        // Deleted and replaced leases may remain in an index by mistake.
        let before: Vec<_> = self.model.before.values().flatten().cloned().collect();
        check_all(self.mgr(), self.opening.tables, &leases, &before);
    }

    fn check_calls(&mut self) {
        let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let mut expected = std::mem::take(&mut self.model.expected_calls);
        // Calls for one address are in order.
        calls.sort_by_key(Call::address);
        expected.sort_by_key(Call::address);
        assert_eq!(calls, expected, "callbacks of changes");
    }

    fn run(&mut self, step: &Step<L>) {
        match step {
            Step::Reopen => {
                self.mgr = None;
                if self.opening.place == Place::Memory {
                    self.model = Model::new();
                }
                self.open();
            }
            Step::Kill => self.kill(),
            Step::Tear(at) => self.tear(*at),
            Step::PowerCut(seed) => self.cut_power(&mut Random(*seed)),
            Step::CleanUp(times) => self.clean_up(*times),
            Step::Fail(lease, at, failure) => self.fail(lease, *at, *failure),
            Step::Flush => {
                self.mgr().flush().unwrap();
                self.model.since_durable.clear();
                return;
            }
            _ => {
                self.change_or_ask(step);
                self.check_calls();
                if self.opening.durability == Durability::Synced {
                    self.model.since_durable.clear();
                }
                return;
            }
        }
        self.check_all();
        self.check_files();
    }

    fn kill(&mut self) {
        match self.opening.place {
            Place::Memory => {}
            Place::Directory => {
                // Several files cannot be copied at one moment.
                self.wait_for_cleanups();
                let files = self.files();
                self.start_with(&files);
            }
            Place::Disk if self.is_cleaning() => {
                let files = self.files();
                self.start_with(&files);
            }
            Place::Disk => {
                // Data that is not durable is lost.
                self.disk = SimulatedDisk::new(self.disk.state());
                self.mgr = None;
                self.open();
            }
        }
    }

    /// Cuts off the end of the last row of the journal, if it has one.
    fn tear(&mut self, at: usize) {
        if self.opening.place == Place::Memory {
            return;
        }
        if self.opening.place == Place::Directory {
            self.wait_for_cleanups();
        }
        let mut files = self.files();
        // During a rotation there is no journal, or an empty one.
        let journal = files.entry(self.names().current).or_default();
        let end = journal.iter().rposition(|&byte| byte != b'\n').map_or(0, |at| at + 1);
        let start = journal[..end].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if start == 0 || !self.model.last_row_is_whole {
            return self.start_with(&files);
        }
        assert_eq!(journal.get(end), Some(&b'\n'), "the last row has no newline");
        let row = String::from_utf8(journal[start..end].to_vec()).unwrap();
        let kept = 1 + at % row.len();
        journal.truncate(start + kept);
        self.torn = true;
        self.model.last_row_is_whole = false;
        self.start_with(&files);

        let address: IpAddr = row.split(',').next().unwrap().parse().unwrap();
        let (address, before) = self.model.before.iter().find(|(of, _)| (**of).into() == address).unwrap();
        let (address, before) = (*address, before.clone());
        let found = self.mgr().get(address).unwrap();
        // A row that is torn within its last column counts, with the rest of the pool id.
        let is_whole_but_for_pool = |found: &L| {
            let mut found = found.clone();
            let there = self.model.leases.get(&address);
            if let Some(there) = there {
                found.data_mut().pool_id = there.data().pool_id;
            }
            there == Some(&found)
        };
        let last_column = row.rfind(',').map_or(0, |at| at + 1);
        if (last_column..row.len()).contains(&kept) && found.as_ref().is_some_and(is_whole_but_for_pool) {
            self.model.set(address, found);
            self.model.expected_calls.clear();
            self.model.last_row_is_whole = false;
        // A row that lacks only the newline may count.
        } else if kept < row.len() || found != self.model.leases.get(&address).cloned() {
            self.model.set(address, before);
            self.model.expected_calls.clear();
            self.model.last_row_is_whole = false;
        }
        self.model.since_durable.clear();
    }

    /// Returns some of the possible results of a power cut; all leases in each of them were
    /// checked.
    fn try_power_cuts(&self, random: &mut Random) -> Vec<Contents> {
        const TRIED: usize = 4;
        // During a cleanup there may be more or fewer rows, which other tests check.
        self.wait_for_cleanups();
        let disks = self.disk.state().some_survivors(random.next(), TRIED);
        for contents in &disks {
            let disk = SimulatedDisk::new(State::holding(contents));
            let left = self.opened_on(&disk).all().unwrap();
            self.check_survivors(left);
        }
        disks.into_iter().collect()
    }

    /// Cuts the power: unsynced data is lost, in whole or in part.
    fn cut_power(&mut self, random: &mut Random) {
        if self.opening.place != Place::Disk {
            return;
        }
        let disks = self.try_power_cuts(random);
        let files = disks[random.below(disks.len().try_into().unwrap()) as usize].clone();
        self.mgr = None;
        self.disk = SimulatedDisk::new(State::holding(&files));
        self.open();
        let left = self.mgr().all().unwrap();
        self.model.leases = self.check_survivors(left);
        self.model.since_durable.clear();
        self.model.before.clear();
        self.model.last_row_is_whole = false;
        self.torn = true;
    }

    /// Adds or updates a lease on a failing disk. If this fails, the leases must be unchanged; if
    /// the disk is full, the change must succeed as soon as there is room.
    fn fail(&mut self, lease: &L, at: usize, failure: Failure) {
        // The failure could hit the thread that syncs periodically instead.
        if self.opening.place != Place::Disk
            || !matches!(self.opening.durability, Durability::Written | Durability::Synced)
        {
            return;
        }
        self.wait_for_cleanups();
        let Failure { error, effect, lasting } = failure;
        let at = self.disk.operations().len() + at;
        let _ = self.disk.clone().with_fault(Fault { at, error, effect, lasting });
        let lease = lease.clone().kept();
        let address = lease.address();
        let is_free = !self.model.leases.contains_key(&address);
        let change = || if is_free { self.mgr().add(&lease).map(|_| ()) } else { self.mgr().update(&lease) };
        let result = change();
        let mut changed = result.is_ok();
        let mut is_refused = false;
        if changed {
            self.model.put(lease.clone());
        } else {
            assert!(matches!(result, Err(LeaseMgrError::Write { .. })), "{result:?}");
            assert_eq!(self.calls.lock().unwrap().len(), 0, "calls for a change that failed");
            let status = self.mgr().status();
            is_refused = status.refused.is_some();
            if is_refused {
                let result = self.mgr().add(&lease.at(L::numbered(9999))).map(|_| ());
                assert!(matches!(result, Err(LeaseMgrError::Refused { .. })), "{result:?}");
            } else {
                // With a full disk, the change is retried, and succeeds as soon as there is room.
                assert_eq!(error, ENOSPC);
                assert!(status.warning.is_some());
                let again = change();
                if lasting {
                    assert!(matches!(again, Err(LeaseMgrError::Write { .. })), "{again:?}");
                    assert!(self.mgr().status().warning.is_some());
                } else {
                    again.unwrap();
                    assert_eq!(self.mgr().status().warning, None);
                    self.model.put(lease.clone());
                    changed = true;
                }
            }
        }
        self.check_calls();
        self.check_all();
        // The simulated disk treats an interrupted sync as failed, and no later sync proves
        // anything.
        if changed && self.opening.durability == Durability::Synced && error != EINTR {
            self.model.since_durable.clear();
            self.try_power_cuts(&mut Random(at as u64));
        }
        // The disk works again, and the content of its files stays.
        let files = self.files();
        self.start_with(&files);
        if !changed && self.mgr().get(address).unwrap().as_ref() == Some(&lease) {
            // Only a row that could not be cut off may be found, and then all further changes are
            // refused.
            assert!(lasting && is_refused, "a failed change was restored: {lease:?}");
            self.model.put(lease);
            self.model.expected_calls.clear();
        }
        self.model.last_row_is_whole = false;
        self.torn = true;
    }

    /// Panics unless the leases left by a power cut are those that were durable, or later ones.
    fn check_survivors(&self, left: Vec<L>) -> BTreeMap<L::Address, L> {
        let left: BTreeMap<_, _> = left.into_iter().map(|lease| (lease.address(), lease)).collect();
        let Model { leases, since_durable, .. } = &self.model;
        for address in left.keys().chain(leases.keys()).chain(since_durable.keys()) {
            let found = left.get(address);
            match since_durable.get(address) {
                None => assert_eq!(found, leases.get(address), "{address} after a power cut"),
                Some(values) => assert!(
                    values.iter().any(|value| value.as_ref() == found),
                    "{address} after a power cut: found {found:?}, expected one of {values:?}"
                ),
            }
        }
        left
    }

    fn change_or_ask(&mut self, step: &Step<L>) {
        let tables = self.opening.tables;
        let mgr = Arc::clone(self.mgr.as_ref().unwrap());
        let mgr = mgr.as_ref();
        let model = &mut self.model;
        match step {
            Step::Add(lease) => {
                let added = mgr.add(lease).unwrap();
                let is_free = !model.leases.contains_key(&lease.address());
                assert_eq!(added, if is_free { Added::Added } else { Added::AddressTaken });
                if is_free {
                    model.put(lease.clone().kept());
                }
                check_get(mgr, model, lease.address());
            }
            Step::Update(lease) => {
                let there = model.leases.contains_key(&lease.address());
                check_update(&mgr.update(lease), lease, there, true);
                if there {
                    model.put(lease.clone().kept());
                }
                check_get(mgr, model, lease.address());
            }
            Step::UpdateIf(lease, expectation) => {
                let expected_by_caller = model.expected_by_caller(lease.address(), expectation, lease);
                let now = model.leases.get(&lease.address());
                let (there, right) = (now.is_some(), now == Some(&expected_by_caller.clone().kept()));
                check_update(&mgr.update_if_unchanged(&expected_by_caller, lease), lease, there, right);
                if right {
                    model.put(lease.clone().kept());
                }
                check_get(mgr, model, lease.address());
            }
            Step::Renew(n, by) => {
                let Some(address) = model.nth(*n) else { return };
                let old = model.leases[&address].clone();
                let mut renewed = old.clone();
                renewed.data_mut().cltt = old.data().cltt.saturating_add(*by).max(0);
                if L::FAMILY == Family::V6 {
                    renewed.data_mut().cltt &= i64::from(u32::MAX);
                }
                mgr.update_if_unchanged(&old, &renewed).unwrap();
                model.put(renewed);
                check_get(mgr, model, address);
            }
            Step::Delete(n) => {
                let address = L::numbered(*n);
                check_delete(&mgr.delete(address), address, model.leases.contains_key(&address), true);
                if model.leases.contains_key(&address) {
                    model.set(address, None);
                }
                check_get(mgr, model, address);
            }
            Step::DeleteIf(n, expectation) => {
                let Some(address) = model.nth(*n) else { return };
                let now = model.leases[&address].clone();
                let expected_by_caller = model.expected_by_caller(address, expectation, &now);
                let right = expected_by_caller.clone().kept() == now;
                check_delete(&mgr.delete_if_unchanged(&expected_by_caller), address, true, right);
                if right {
                    model.set(address, None);
                }
                check_get(mgr, model, address);
                check_delete(&mgr.delete_if_unchanged(&now.at(L::numbered(9999))), address, false, false);
            }
            Step::Reclaim(now, limit) => {
                check_expired(mgr, &model.list(), *now, *limit);
                for lease in mgr.list_expired(system_time(*now), *limit).unwrap() {
                    let mut reclaimed = lease.clone();
                    if reclaimed.set_state(LeaseState::EXPIRED_RECLAIMED).is_ok() {
                        mgr.update_if_unchanged(&lease, &reclaimed).unwrap();
                        model.put(reclaimed);
                    } else {
                        assert_eq!(mgr.delete_if_unchanged(&lease).unwrap(), Deleted::Deleted);
                        model.set(lease.address(), None);
                    }
                }
            }
            Step::RemoveReclaimed(until) => {
                let list = model.list();
                let gone: Vec<_> = expired(&list, *until, true).into_iter().map(L::address).collect();
                assert_eq!(mgr.delete_reclaimed(system_time(*until)).unwrap(), gone.len() as u64);
                gone.into_iter().for_each(|address| model.set(address, None));
                assert_eq!(mgr.delete_reclaimed(system_time(*until)).unwrap(), 0);
            }
            Step::Wipe(subnet) => {
                let subnet = SubnetId(*subnet);
                let in_subnet = |lease: &&L| lease.data().subnet_id == subnet;
                let gone: Vec<_> = model.leases.values().filter(in_subnet).map(L::address).collect();
                assert_eq!(mgr.wipe_subnet(subnet).unwrap(), gone.len() as u64);
                gone.into_iter().for_each(|address| model.set(address, None));
                check_query(mgr, tables, &model.list(), &Query::all());
            }
            Step::ZeroLifetime(lease) => {
                let mut ended = lease.clone();
                ended.data_mut().valid_lifetime = Lifetime(0);
                // A lease without a client cannot be in use.
                if ended.set_state(LeaseState::DEFAULT).is_ok() {
                    for result in [mgr.add(&ended).map(|_| ()), mgr.update(&ended)] {
                        assert!(matches!(result, Err(LeaseMgrError::ZeroLifetime { .. })), "{result:?}");
                    }
                }
                check_get(mgr, model, lease.address());
            }
            Step::Recount => mgr.recount().unwrap(),
            Step::Ask(key_query) => {
                let key_values = KeyValues::of(&key_query.like);
                let keys = key_values.keys();
                let mut query = Query::new(keys[key_query.key % keys.len()]);
                query.subnet = key_query.subnet.map(SubnetId);
                query.after = key_query.after.map(L::numbered);
                query.limit = key_query.limit;
                (query.heard_since, query.heard_until) = (key_query.since, key_query.until);
                query.ended_by = key_query.ended_by;
                query.reversed = key_query.reversed;
                (query.first, query.last) =
                    (key_query.first.map(L::numbered), key_query.last.map(L::numbered));
                check_query(mgr, tables, &model.list(), &query);
            }
            Step::Expired(now, limit) => check_expired(mgr, &model.list(), *now, *limit),
            Step::Statistics(first, last, by_pool) => {
                let one = Subnets::One(SubnetId(*first));
                let subnets = last.map_or(one, |last| Subnets::Range(SubnetId(*first), SubnetId(last)));
                let mut query = StatisticsQuery::from(subnets);
                query.by_pool = *by_pool;
                check_statistics(mgr, &model.list(), &query);
            }
            Step::Flush
            | Step::CleanUp(_)
            | Step::Reopen
            | Step::Kill
            | Step::Tear(_)
            | Step::PowerCut(_)
            | Step::Fail(..) => unreachable!("neither a change nor a query"),
        }
    }
}

#[track_caller]
fn check_get<L: TestLease>(mgr: &dyn LeaseMgr<L>, model: &Model<L>, address: L::Address) {
    assert_eq!(mgr.get(address).unwrap().as_ref(), model.leases.get(&address));
}

/// Panics unless the result of an update is correct, given whether there is a lease and whether the
/// caller expects it.
#[track_caller]
fn check_update<L: TestLease>(result: &Result<(), LeaseMgrError>, lease: &L, there: bool, right: bool) {
    let expected: IpAddr = lease.address().into();
    let is_right = match result {
        Ok(()) => there && right,
        Err(LeaseMgrError::NoSuchLease { address }) => !there && *address == expected,
        Err(LeaseMgrError::ChangedMeanwhile { address }) => there && !right && *address == expected,
        Err(_) => false,
    };
    assert!(is_right, "{result:?} where there is a lease: {there}, the expected one: {right}");
}

/// As [`check_update`], for a deletion.
#[track_caller]
fn check_delete<A: Into<IpAddr>>(
    result: &Result<Deleted, LeaseMgrError>,
    address: A,
    there: bool,
    right: bool,
) {
    let expected = address.into();
    let is_right = match result {
        Ok(Deleted::Deleted) => there && right,
        Ok(Deleted::NoSuchLease) => !there,
        Err(LeaseMgrError::ChangedMeanwhile { address }) => there && !right && *address == expected,
        Err(_) => false,
    };
    assert!(is_right, "{result:?} where there is a lease: {there}, the expected one: {right}");
}

/// Empty lines separate rows where journal space was preallocated, and have no meaning.
fn remove_empty_lines(file: &mut Vec<u8>) {
    let mut before = b'\n';
    file.retain(|&byte| {
        let is_needed = (before, byte) != (b'\n', b'\n');
        before = byte;
        is_needed
    });
}

/// The files: number of rows in the previous file and in the journal, and other files of a cleanup.
struct Leftovers {
    previous: usize,
    current: usize,
    others: Vec<String>,
}

impl Leftovers {
    fn of(names: &Names, files: &Contents) -> Self {
        let rows = |path: &PathBuf| {
            let lines = files.get(path).map_or(&[][..], Vec::as_slice).split(|&byte| byte == b'\n');
            lines.filter(|line| !line.is_empty()).count().saturating_sub(1)
        };
        let lfc = &names.lfc;
        let others = [&lfc.input, &lfc.output, &lfc.finish, &lfc.pid].into_iter();
        let others = others.filter(|path| files.contains_key(*path)).map(|path| path.display().to_string());
        Self { previous: rows(&lfc.previous), current: rows(&names.current), others: others.collect() }
    }
}

fn cases(usual: u32) -> ProptestConfig {
    let times = std::env::var("LEASEMGR_MODEL_CASES").map_or(1, |times| times.parse().unwrap());
    ProptestConfig {
        cases: usual * times,
        failure_persistence: None,
        max_shrink_time: 120_000,
        ..ProptestConfig::default()
    }
}

/// Shows a failure with one step on each line.
fn shown<O: Debug, L: TestLease>(error: TestError<(O, Vec<Step<L>>)>) -> String {
    match error {
        TestError::Abort(reason) => reason.to_string(),
        TestError::Fail(reason, (opening, steps)) => {
            let steps: String = steps.iter().map(|step| format!("    {step:?}\n")).collect();
            format!("{reason}\n{opening:?}\n{steps}")
        }
    }
}

/// Runs random steps with few addresses.
fn check_few<L: TestLease>(place: Place, usual_cases: u32) {
    const ADDRESSES: u32 = 12;
    let steps = prop::collection::vec(any_step::<L>(ADDRESSES), 1..80);
    TestRunner::new(cases(usual_cases))
        .run(&((any_durability(), any::<bool>()), steps), |((durability, tables), steps)| {
            let mut case = Case::<L>::new(Opening { place, durability, tables: RelayTables(tables) });
            for step in &steps {
                case.run(step);
            }
            case.check_all();
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{}", shown(error)));
}

/// Runs random steps with more leases than a manager processes at once.
fn check_many<L: TestLease>(usual_cases: u32) {
    const ADDRESSES: u32 = 700;
    let leases = prop::collection::vec(L::any(ADDRESSES), 900);
    let steps = prop::collection::vec(any_step::<L>(ADDRESSES), 30);
    TestRunner::new(cases(usual_cases))
        .run(&(leases, steps), |(leases, steps)| {
            let tables = RelayTables(true);
            let mut case =
                Case::<L>::new(Opening { place: Place::Directory, durability: Durability::Written, tables });
            for mut lease in leases {
                lease.data_mut().subnet_id.0 %= 2;
                case.run(&Step::Add(lease));
            }
            let in_bulk =
                [Step::Wipe(0), Step::Reclaim(i64::MAX, 0), Step::RemoveReclaimed(i64::MAX), Step::Reopen];
            for step in steps.iter().chain(&in_bulk) {
                case.run(step);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{}", shown(error)));
}

#[rstest]
#[case::in_memory(Place::Memory, 40)]
#[case::in_files(Place::Directory, 20)]
#[case::on_a_simulated_disk(Place::Disk, 40)]
fn a_memfile_behaves_like_a_map(
    #[case] place: Place,
    #[case] usual_cases: u32,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    match family {
        Family::V4 => check_few::<Lease4>(place, usual_cases),
        Family::V6 => check_few::<Lease6>(place, usual_cases),
    }
}

#[test]
fn a_memfile_with_many_leases_behaves_like_a_map() {
    check_many::<Lease4>(2);
    check_many::<Lease6>(2);
}
