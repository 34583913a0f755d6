//! Batches and submitted changes of a memfile, and the async handle of a manager.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use leasemgr::fs::simulated::{Action, EIO, ENOSPC, Effect, Fault, SimulatedDisk, State};
use leasemgr::lease::{Lease4, SubnetId};
use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions};
use leasemgr::{
    Added, AsyncLeaseMgr, Change, ChangeKind, ClientKey, Deleted, Done, Durability, LeaseMgr, LeaseMgrError,
    LeaseMgrExt, Operation, Query, StatisticsQuery, StatisticsRow, Status, Tracking, Work,
};
use rstest::rstest;

use support::Names;
use support::leases::TestLease;

/// Maximum time to wait for anything.
const LONG: Duration = Duration::from_secs(600);

fn disk() -> SimulatedDisk {
    SimulatedDisk::new(State::default())
}

fn options(durability: Durability) -> MemfileOptions {
    MemfileOptions::at(Names::in_directory(Path::new("/leases")).current)
        .lfc_interval(None)
        .durability(durability)
        .lfc_program(LfcProgram::Internal)
}

fn open(disk: &SimulatedDisk, durability: Durability) -> Arc<Memfile<Lease4>> {
    Arc::new(Memfile::open_on(options(durability), Arc::new(disk.clone())).unwrap())
}

fn lease(n: u32) -> Lease4 {
    Lease4::tagged(n, n).kept()
}

fn renewed(lease: &Lease4) -> Lease4 {
    let mut renewed = lease.clone();
    renewed.data_mut().cltt += 1;
    renewed
}

fn additions(numbers: std::ops::Range<u32>) -> Vec<Operation<Lease4>> {
    numbers.map(|n| Operation::Add(lease(n))).collect()
}

/// Returns the number of operations of these kinds since the disk was created.
fn count(disk: &SimulatedDisk, actions: &[Action]) -> usize {
    disk.operations().iter().filter(|operation| actions.contains(&operation.action)).count()
}

const WRITES: [Action; 2] = [Action::Append, Action::WriteAt];

fn submit(
    leases: &dyn LeaseMgr<Lease4>,
    operation: Operation<Lease4>,
    answers: &Sender<Result<Done, LeaseMgrError>>,
) {
    let answers = answers.clone();
    leases.submit(operation, Box::new(move |answer| answers.send(answer).unwrap()));
}

fn answer<T>(answers: &Receiver<T>) -> T {
    answers.recv_timeout(LONG).unwrap()
}

/// Blocks the syncs of a disk while it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    is_closed: bool,
    /// Number of waiting syncs.
    waiting: usize,
}

impl Gate {
    fn before_syncs_of(disk: &SimulatedDisk) -> Self {
        let gate = Self::default();
        let waits = gate.clone();
        let _ = disk.clone().before_each(move |_, operation| {
            if operation.action == Action::Sync {
                waits.pass();
            }
        });
        gate
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        changed.notify_all();
        let mut state = changed.wait_while(state, |state| state.is_closed).unwrap();
        state.waiting -= 1;
    }

    fn set_closed(&self, is_closed: bool) {
        self.0.0.lock().unwrap().is_closed = is_closed;
        self.0.1.notify_all();
    }

    fn wait_for_a_sync(&self) {
        let (state, changed) = &*self.0;
        let waiting = changed.wait_timeout_while(state.lock().unwrap(), LONG, |state| state.waiting == 0);
        assert!(!waiting.unwrap().1.timed_out());
    }
}

// Batches.

#[rstest]
#[case::written(Durability::Written, 0)]
#[case::synced(Durability::Synced, 1)]
fn a_batch_is_one_write_and_at_most_one_sync(#[case] durability: Durability, #[case] syncs: usize) {
    let disk = disk();
    let leases = open(&disk, durability);
    // After the first change, the file has its preallocated length.
    let _ = leases.add(&lease(999)).unwrap();
    let before = (count(&disk, &WRITES), count(&disk, &[Action::Sync]));
    let mut batch = additions(0..100);
    batch.extend((0..50).map(|n| Operation::delete(lease(n).address())));
    assert!(leases.apply(&batch).iter().all(Result::is_ok));
    let after = (count(&disk, &WRITES), count(&disk, &[Action::Sync]));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, syncs));
    let expected = || (50..100).chain([999]).map(lease);
    assert!(leases.all().unwrap().into_iter().eq(expected()));
    drop(leases);
    assert!(open(&disk, durability).all().unwrap().into_iter().eq(expected()));
}

#[rstest]
fn a_batch_that_cannot_be_written_changes_nothing(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(ENOSPC, EIO)] error: i32,
) {
    let disk = disk();
    let leases = open(&disk, durability);
    let _ = leases.add(&lease(1)).unwrap();
    let notified = Arc::new(AtomicUsize::new(0));
    for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
        let notified = Arc::clone(&notified);
        let count = move |_: &Change<'_, _>| {
            notified.fetch_add(1, Ordering::Relaxed);
        };
        leases.tracking().register("test", kind, None, count).unwrap();
    }
    let mut ended = lease(5);
    ended.data_mut().valid_lifetime = leasemgr::lease::Lifetime(0);
    let mut batch = additions(1..4);
    batch.extend([Operation::update(renewed(&lease(1))), Operation::delete(lease(2).address())]);
    // These depend on the result of an earlier change, or on no lease.
    batch.extend([Operation::Add(lease(3)), Operation::Add(ended)]);
    let at = disk.operations().len() + usize::from(durability == Durability::Synced);
    let _ = disk.clone().with_fault(Fault { at, error, effect: Effect::Half, lasting: false });
    let results = leases.apply(&batch);
    let (invalid, others) = results.split_last().unwrap();
    assert!(matches!(invalid, Err(LeaseMgrError::ZeroLifetime { .. })), "{invalid:?}");
    assert_eq!(others.len(), 6);
    for result in others {
        assert!(matches!(result, Err(LeaseMgrError::Write { .. })), "{result:?}");
    }
    assert_eq!(leases.all().unwrap(), [lease(1)]);
    assert_eq!(notified.load(Ordering::Relaxed), 0);
    // Later changes find room, or are refused.
    let results = leases.apply(&additions(2..4));
    assert_eq!(results.len(), 2);
    if error == ENOSPC {
        assert!(results.iter().all(|result| matches!(result, Ok(Done::Added))), "{results:?}");
        assert_eq!(notified.load(Ordering::Relaxed), 2);
    } else {
        assert!(results.iter().all(|result| matches!(result, Err(LeaseMgrError::Refused { .. }))));
    }
    let left = leases.all().unwrap();
    drop(leases);
    assert_eq!(open(&disk, durability).all().unwrap(), left);
}

// Submitted changes.

#[test]
fn a_submitted_change_does_not_wait_for_the_sync() {
    let disk = disk();
    let leases = open(&disk, Durability::Synced);
    assert!(leases.may_block() && leases.submits() && leases.submits_look_ups());
    let gate = Gate::before_syncs_of(&disk);
    gate.set_closed(true);
    let (sender, answers) = channel();
    for operation in additions(0..10) {
        submit(&*leases, operation, &sender);
    }
    gate.wait_for_a_sync();
    assert!(answers.try_recv().is_err());
    assert_eq!(leases.all().unwrap(), []);
    gate.set_closed(false);
    for _ in 0..10 {
        assert!(matches!(answer(&answers), Ok(Done::Added)));
    }
    assert_eq!(leases.all().unwrap().len(), 10);
}

#[test]
fn changes_submitted_during_a_sync_share_the_next_one() {
    let disk = disk();
    let leases = open(&disk, Durability::Synced);
    let gate = Gate::before_syncs_of(&disk);
    let (sender, answers) = channel();
    submit(&*leases, Operation::Add(lease(500)), &sender);
    assert!(matches!(answer(&answers), Ok(Done::Added)));
    gate.set_closed(true);
    let before = count(&disk, &[Action::Sync]);
    submit(&*leases, Operation::Add(lease(501)), &sender);
    gate.wait_for_a_sync();
    additions(0..100).into_iter().for_each(|operation| submit(&*leases, operation, &sender));
    gate.set_closed(false);
    (0..101).for_each(|_| assert!(matches!(answer(&answers), Ok(Done::Added))));
    assert_eq!(count(&disk, &[Action::Sync]) - before, 2);
}

#[test]
fn without_blocking_a_submitted_change_is_made_at_once() {
    for leases in [
        Arc::new(Memfile::<Lease4>::open(MemfileOptions::default()).unwrap()),
        open(&disk(), Durability::Written),
        open(&disk(), Durability::SyncedEvery(Duration::from_secs(3600))),
    ] {
        assert!(!leases.may_block() && leases.submits());
        let (sender, answers) = channel();
        submit(&*leases, Operation::Add(lease(1)), &sender);
        assert!(matches!(answers.try_recv().unwrap(), Ok(Done::Added)));
        assert_eq!(leases.all().unwrap(), [lease(1)]);
    }
}

#[test]
fn a_completion_may_drop_the_last_handle_of_the_manager() {
    let disk = disk();
    let leases = open(&disk, Durability::Synced);
    let gate = Gate::before_syncs_of(&disk);
    gate.set_closed(true);
    let (sender, answers) = channel();
    let last: Arc<dyn LeaseMgr<Lease4>> = leases;
    let (handle, own) = (Arc::clone(&last), sender.clone());
    let then = move |answer: Result<Done, _>| {
        drop(handle);
        own.send(answer).unwrap();
    };
    last.submit(Operation::Add(lease(0)), Box::new(then));
    additions(1..600).into_iter().for_each(|operation| submit(&*last, operation, &sender));
    drop(last);
    gate.set_closed(false);
    (0..600).for_each(|_| assert!(matches!(answer(&answers), Ok(Done::Added))));
    assert!(reopened(&disk).all().unwrap().into_iter().eq((0..600).map(lease)));
}

/// Opens the files after their manager has been closed.
fn reopened(disk: &SimulatedDisk) -> Memfile<Lease4> {
    let start = Instant::now();
    loop {
        match Memfile::open_on(options(Durability::Synced), Arc::new(disk.clone())) {
            Ok(leases) => return leases,
            Err(error) => assert!(start.elapsed() < LONG, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_callback_may_drop_the_last_handle_of_the_manager() {
    let disk = disk();
    let last: Arc<dyn LeaseMgr<Lease4>> = open(&disk, Durability::Synced);
    let gate = Gate::before_syncs_of(&disk);
    gate.set_closed(true);
    let (handle, is_dropped) = (Mutex::new(Some(Arc::clone(&last))), Arc::new(AtomicBool::new(false)));
    let dropped = Arc::clone(&is_dropped);
    let drop_it = move |_: &Change<'_, Lease4>| {
        let handle = handle.lock().unwrap().take();
        dropped.fetch_or(handle.is_some(), Ordering::Relaxed);
    };
    last.tracking().register("test", ChangeKind::Add, None, drop_it).unwrap();
    let (sender, answers) = channel();
    additions(0..20).into_iter().for_each(|operation| submit(&*last, operation, &sender));
    drop(last);
    gate.set_closed(false);
    (0..20).for_each(|_| assert!(matches!(answer(&answers), Ok(Done::Added))));
    assert!(is_dropped.load(Ordering::Relaxed));
    assert_eq!(reopened(&disk).all().unwrap().len(), 20);
}

#[test]
fn a_panic_of_the_disk_is_returned_as_an_error() {
    let disk = disk();
    let leases = open(&disk, Durability::Synced);
    let panics = disk.operations().len();
    let _ = disk.clone().before_each(move |number, _| {
        if number == panics {
            std::panic::resume_unwind(Box::new("as wanted"));
        }
    });
    let (sender, answers) = channel();
    additions(0..3).into_iter().for_each(|operation| submit(&*leases, operation, &sender));
    for _ in 0..3 {
        assert!(answer(&answers).is_err());
    }
    assert_eq!(leases.all().unwrap(), []);
    submit(&*leases, Operation::Add(lease(5)), &sender);
    assert!(answer(&answers).is_err());
}

#[test]
fn direct_and_submitted_changes_of_one_address_are_each_made_once() {
    const ROUNDS: i64 = 200;
    let disk = disk();
    let leases = open(&disk, Durability::Synced);
    let _ = leases.add(&lease(1)).unwrap();
    let address = lease(1).address();
    // Adds one second with a conditional update, retried until it succeeds.
    let increment = |submits: bool| {
        for _ in 0..ROUNDS {
            loop {
                let read = leases.get(address).unwrap().unwrap();
                let operation = Operation::update_if_unchanged(&read, renewed(&read));
                let result = if submits {
                    let (sender, answers) = channel();
                    submit(&*leases, operation, &sender);
                    answer(&answers)
                } else {
                    operation.run(&*leases)
                };
                match result {
                    Ok(_) => break,
                    Err(error) => assert!(error.is_stale(), "{error}"),
                }
            }
        }
    };
    thread::scope(|scope| {
        for submits in [true, false, true] {
            scope.spawn(move || increment(submits));
        }
    });
    assert_eq!(leases.get(address).unwrap().unwrap().data().cltt, lease(1).data().cltt + 3 * ROUNDS);
}

// The async handle.

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits for a future in this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park_timeout(LONG);
        assert!(start.elapsed() < LONG);
    }
}

/// Calls every method.
fn use_all(leases: &AsyncLeaseMgr<Lease4>) {
    let (one, two) = (lease(1), lease(2));
    let (later, address) = (renewed(&one), one.address());
    assert_eq!(wait(leases.add(&one)).unwrap(), Added::Added);
    assert_eq!(wait(leases.add(&one)).unwrap(), Added::AddressTaken);
    wait(leases.update_if_unchanged(&one, &later)).unwrap();
    let stale = wait(leases.update_if_unchanged(&one, &later));
    assert!(matches!(stale, Err(LeaseMgrError::ChangedMeanwhile { .. })), "{stale:?}");
    assert!(matches!(wait(leases.update(&two)), Err(LeaseMgrError::NoSuchLease { .. })));
    let (hwaddr, subnet) = (one.hwaddr().unwrap(), one.data().subnet_id);
    let of = |client| wait(leases.by_client_in_subnet(Some(hwaddr), client, subnet)).unwrap();
    assert_eq!(wait(leases.get(address)).unwrap(), Some(later.clone()));
    assert_eq!(wait(leases.get(two.address())).unwrap(), None);
    assert_eq!(of(one.client_id().map(ClientKey::from)), std::slice::from_ref(&later));
    assert_eq!(of(Some(ClientKey::new(b"another client"))), []);
    wait(leases.update(&one)).unwrap();
    assert_eq!(leases.leases().get(address).unwrap(), Some(one.clone()));
    assert!(wait(leases.delete_if_unchanged(&later)).is_err_and(|error| error.is_stale()));
    assert_eq!(wait(leases.delete_if_unchanged(&one)).unwrap(), Deleted::Deleted);
    assert_eq!(wait(leases.delete(address)).unwrap(), Deleted::NoSuchLease);
    let batch =
        vec![Operation::Add(one.clone()), Operation::update(two.clone()), Operation::Add(two.clone())];
    let results = wait(leases.apply(batch));
    assert!(
        matches!(&results[..], [Ok(Done::Added), Err(LeaseMgrError::NoSuchLease { .. }), Ok(Done::Added)]),
        "{results:?}"
    );
    assert!(wait(leases.apply(Vec::new())).is_empty());
    wait(leases.flush()).unwrap();
    // Reclaimed and counted once.
    let reclaimed = || -> u64 {
        let query = StatisticsQuery::all();
        leases.leases().totals(&query).unwrap().iter().map(|row| row.reclaimed).sum()
    };
    let before = reclaimed();
    assert!(wait(leases.reclaim(&one)).unwrap());
    assert!(!wait(leases.reclaim(&one)).unwrap());
    assert_eq!(reclaimed() - before, 1);
    let count = wait(leases.run(|leases| leases.all().map(|all| all.len()))).unwrap();
    assert_eq!(count, leases.leases().all().unwrap().len());
    let subnet = two.data().subnet_id;
    assert!(wait(leases.run(move |leases| leases.wipe_subnet(subnet))).unwrap() > 0);
}

#[rstest]
fn an_async_handle_does_what_the_manager_does(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let disk = disk();
    let leases = AsyncLeaseMgr::new(open(&disk, durability));
    use_all(&leases);
    let left = leases.leases().all().unwrap();
    wait(leases.close());
    assert_eq!(open(&disk, durability).all().unwrap(), left);
}

#[test]
fn without_blocking_a_future_is_ready_at_once() {
    let leases = AsyncLeaseMgr::new(open(&disk(), Durability::Written));
    assert!(poll(&mut leases.add(&lease(1))).is_ready());
    assert!(poll(&mut leases.apply(additions(0..5))).is_ready());
    assert!(poll(&mut leases.run(|leases| leases.all())).is_ready());
}

#[test]
fn a_change_completes_without_its_future() {
    let disk = disk();
    let leases = AsyncLeaseMgr::new(open(&disk, Durability::Synced));
    let gate = Gate::before_syncs_of(&disk);
    gate.set_closed(true);
    let mut dropped = leases.add(&lease(1));
    assert!(poll(&mut dropped).is_pending());
    drop(dropped);
    drop(leases.add(&lease(2)));
    // Submitted in this order, whichever is awaited first.
    let update = leases.update_if_unchanged(&lease(2), &renewed(&lease(2)));
    gate.set_closed(false);
    wait(update).unwrap();
    assert_eq!(leases.leases().all().unwrap(), [lease(1), renewed(&lease(2))]);
}

/// A backend that blocks, and does not make submitted changes in threads of its own.
#[derive(Debug)]
struct Blocking {
    leases: Memfile<Lease4>,
    /// The thread that must not call the backend.
    caller: thread::ThreadId,
}

impl Blocking {
    fn leases(&self) -> &Memfile<Lease4> {
        assert_ne!(thread::current().id(), self.caller);
        &self.leases
    }
}

impl LeaseMgr<Lease4> for Blocking {
    fn status(&self) -> Status {
        self.leases.status()
    }

    fn add(&self, lease: &Lease4) -> Result<Added, LeaseMgrError> {
        self.leases().add(lease)
    }

    fn get(&self, address: std::net::Ipv4Addr) -> Result<Option<Lease4>, LeaseMgrError> {
        self.leases.get(address)
    }

    fn find(&self, query: &Query<'_, Lease4>) -> Result<Vec<Lease4>, LeaseMgrError> {
        self.leases.find(query)
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<Lease4>, LeaseMgrError> {
        self.leases().list_expired(now, limit)
    }

    fn update_expecting(&self, lease: &Lease4, expected: Option<&Lease4>) -> Result<(), LeaseMgrError> {
        self.leases().update_expecting(lease, expected)
    }

    fn delete_expecting(
        &self,
        address: std::net::Ipv4Addr,
        expected: Option<&Lease4>,
    ) -> Result<Deleted, LeaseMgrError> {
        self.leases().delete_expecting(address, expected)
    }

    fn delete_reclaimed(&self, until: SystemTime) -> Result<u64, LeaseMgrError> {
        self.leases().delete_reclaimed(until)
    }

    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        self.leases().wipe_subnet(subnet)
    }

    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        self.leases.statistics(query)
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        self.leases().recount()
    }

    fn class_leases(
        &self,
        class: &leasemgr::lease::ClientClass,
        kind: leasemgr::lease::LeaseKind,
    ) -> Result<u64, LeaseMgrError> {
        self.leases.class_leases(class, kind)
    }

    fn tracking(&self) -> &Tracking<Lease4> {
        self.leases.tracking()
    }

    fn flush(&self) -> Result<(), LeaseMgrError> {
        self.leases().flush()
    }
}

fn blocking() -> Arc<Blocking> {
    let leases = Memfile::open(MemfileOptions::default()).unwrap();
    let blocking = Blocking { leases, caller: thread::current().id() };
    assert!(blocking.may_block() && !blocking.submits() && !blocking.submits_look_ups());
    Arc::new(blocking)
}

#[test]
fn calls_of_a_blocking_backend_are_made_by_the_pool() {
    let leases = AsyncLeaseMgr::with_pool(blocking(), |work: Work| drop(thread::spawn(work)));
    use_all(&leases);
}

#[test]
fn a_job_that_the_pool_drops_is_an_error() {
    let leases = AsyncLeaseMgr::with_pool(blocking(), |work: Work| drop(work));
    assert!(wait(leases.add(&lease(1))).is_err_and(|error| error.is_unknown()));
    let results = wait(leases.apply(additions(0..3)));
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|result| matches!(result, Err(LeaseMgrError::OutcomeUnknown { .. }))));
    assert!(wait(leases.run(|leases| leases.all())).is_err());
    assert!(wait(leases.get(lease(1).address())).is_err());
    assert!(wait(leases.flush()).is_err());
    wait(leases.close());
}

#[cfg(feature = "tokio")]
mod tokio_runtime {
    use leasemgr::LeaseMgrFactory;

    use super::*;

    #[tokio::test]
    async fn calls_of_a_blocking_backend_are_made_by_blocking_threads() {
        let leases = AsyncLeaseMgr::new(blocking());
        assert_eq!(leases.add(&lease(1)).await.unwrap(), Added::Added);
        assert_eq!(leases.run(|leases| leases.all()).await.unwrap(), [lease(1)]);
        leases.close().await;
    }

    #[tokio::test]
    async fn a_manager_is_opened_in_a_blocking_thread() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases4.csv").display().to_string();
        let factory = LeaseMgrFactory::<Lease4>::new();
        let connection = format!("type=memfile name={file} durability=synced lfc-interval=0");
        let leases = factory.open_async(&connection).await.unwrap();
        assert_eq!(leases.leases().status().durability, Some(Durability::Synced));
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let leases = leases.clone();
                tokio::spawn(async move { leases.add(&lease(n)).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), Added::Added);
        }
        leases.close().await;
        let again = factory.open_async(&connection).await.unwrap();
        assert_eq!(again.leases().all().unwrap().len(), 64);
        assert!(factory.open_async("type=nothing").await.is_err());
    }
}

/// A precondition of the tests: leases of different numbers differ.
#[test]
fn leases_of_different_numbers_are_different() {
    let leases: BTreeMap<_, _> = (0..1000).map(|n| (lease(n).address(), lease(n))).collect();
    assert_eq!(leases.len(), 1000);
    assert!(leases.values().all(|lease| renewed(lease) != *lease));
}
