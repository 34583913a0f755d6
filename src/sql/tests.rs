//! Tests of the lease manager with a database in memory that fails when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use super::columns::{Column, Kind, Value};
use super::driver::{ClientColumn, DbError, DbErrorKind, Dialect, Driver, Schema, Session, Write};
use super::manager::{READ_LEADERS, SqlLeaseMgr};
use super::options::SqlOptions;
use super::sessions::Sessions;
use crate::lease::{ClientId, HwAddr, Lease4, LeaseState, LeaseType, SubnetId, system_time};
use crate::lease_mgr::{
    Added, Availability, ChangeKind, ClientKey, Deleted, Done, ImportOptions, LeaseMgr, LeaseMgrError,
    LeaseMgrExt, LookUp, Operation, Query,
};
use crate::panics::contained;

/// What happens to the next write instead of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is written, and this error is returned.
    Before(DbErrorKind),
    /// It is written, but the answer is lost.
    LostAfter,
    /// No row has the expected values, as they are in another form.
    OtherForm,
}

#[derive(Debug, Default)]
struct Database {
    rows: Mutex<BTreeMap<Ipv4Addr, Lease4>>,
    writes: Mutex<VecDeque<Fault>>,
    /// Number of addresses in each look-up.
    gets: Mutex<Vec<usize>>,
    /// Errors of the next reads.
    reads: Mutex<VecDeque<DbErrorKind>>,
    /// The error of each attempt to connect.
    connecting: Mutex<Option<DbErrorKind>>,
    connections: AtomicU32,
    /// The numbers of sessions that have ended while they were idle.
    ended: Mutex<Vec<u32>>,
    /// Number of changes in each transaction.
    batches: Mutex<Vec<usize>>,
    /// An address whose changes are refused.
    refused: Mutex<Option<Ipv4Addr>>,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Database>);

struct FakeSession {
    database: Arc<Database>,
    number: u32,
    schema: Schema,
}

fn fails(kind: DbErrorKind) -> DbError {
    DbError::new(kind, "told to")
}

impl Driver<Lease4> for Fake {
    type Session = FakeSession;

    const NAME: &'static str = "fake";

    fn connect(&self, _: &SqlOptions) -> Result<FakeSession, DbError> {
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed);
        let fault = *self.0.connecting.lock().unwrap();
        if let Some(kind) = fault {
            return Err(fails(kind));
        }
        let schema = Schema {
            version: (34, 0),
            has_relay_ids: true,
            has_pool_ids: false,
            has_text_addresses: false,
            max_client: 128,
            states: (0..=4).map(LeaseState).collect(),
            lease_types: vec![LeaseType::NA, LeaseType::PD],
            hwaddr_sources: None,
            max_hardware: (u16::MAX, u32::MAX),
            times: (1, 2_147_483_647),
            max_user_context: 65_535,
        };
        Ok(FakeSession { database: Arc::clone(&self.0), number, schema })
    }
}

impl Dialect for FakeSession {
    fn placeholder(&self, _: &mut String, _: usize, _: Kind) {}
    fn column(&self, _: &mut String, _: Column) {}
    fn address_order(&self, _: &mut String) {}
    fn hostname_is(&self, _: &mut String, _: usize) {}

    fn or_lock(&self, _: &str, _: &str, _: &str) -> String {
        String::new()
    }

    fn skips_locked(&self) -> bool {
        false
    }
}

impl FakeSession {
    fn make(
        &self,
        changes: &[Write<'_, Lease4>],
        is_expected: impl Fn(&Lease4, &Lease4) -> bool,
    ) -> Vec<bool> {
        let mut rows = self.database.rows.lock().unwrap();
        let make = |change: &Write<'_, Lease4>| {
            let address = change.address();
            let there = rows.get(&address).cloned();
            match (change, there) {
                (Write::Insert(lease), None) => rows.insert(address, (*lease).clone()).is_none(),
                (Write::Update { new, expected }, Some(there)) if is_expected(&there, expected) => {
                    rows.insert(address, (*new).clone()).is_some()
                }
                (Write::Delete(expected), Some(there)) if is_expected(&there, expected) => {
                    rows.remove(&address).is_some()
                }
                _ => false,
            }
        };
        changes.iter().map(make).collect()
    }
}

impl Session<Lease4> for FakeSession {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn has_ended(&mut self, _: Duration) -> bool {
        self.database.ended.lock().unwrap().contains(&self.number)
    }

    fn query(&mut self, _: &str, _: &[Value<'_>], _: &[Kind]) -> Result<Vec<Vec<Value<'static>>>, DbError> {
        Ok(Vec::new())
    }

    fn select(&mut self, _: &str, _: &[Value<'_>], _: &[Column]) -> Result<Vec<Lease4>, DbError> {
        Ok(Vec::new())
    }

    fn execute(&mut self, _: &str, _: &[Value<'_>]) -> Result<u64, DbError> {
        Ok(0)
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(bool, T), DbError>,
    ) -> Result<T, DbError> {
        work(self).map(|(_, value)| value)
    }

    fn overwrite(&mut self, changes: &[Write<'_, Lease4>]) -> Result<(), DbError> {
        self.make(changes, |_, _| true);
        Ok(())
    }

    fn write(&mut self, changes: &[Write<'_, Lease4>]) -> Result<Vec<bool>, DbError> {
        assert!(changes.is_sorted_by(|a, b| a.address() < b.address()), "each address once, in order");
        self.database.batches.lock().unwrap().push(changes.len());
        // Others arrive meanwhile.
        thread::sleep(Duration::from_millis(1));
        let refused = *self.database.refused.lock().unwrap();
        if changes.iter().any(|change| Some(change.address()) == refused) {
            return Err(fails(DbErrorKind::Refused));
        }
        let fault = self.database.writes.lock().unwrap().pop_front();
        match fault {
            None => Ok(self.make(changes, |there, expected| there == expected)),
            Some(Fault::Before(kind)) => Err(fails(kind)),
            Some(Fault::LostAfter) => {
                self.make(changes, |there, expected| there == expected);
                Err(fails(DbErrorKind::Lost))
            }
            Some(Fault::OtherForm) => Ok(self.make(changes, |_, _| false)),
        }
    }

    fn write_compared(
        &mut self,
        change: &Write<'_, Lease4>,
        is_expected: &dyn Fn(&Lease4) -> bool,
    ) -> Result<bool, DbError> {
        Ok(self.make(std::slice::from_ref(change), |there, _| is_expected(there))[0])
    }

    fn get(&mut self, addresses: &[Ipv4Addr]) -> Result<Vec<Lease4>, DbError> {
        let fault = self.database.reads.lock().unwrap().pop_front();
        if let Some(kind) = fault {
            return Err(fails(kind));
        }
        self.database.gets.lock().unwrap().push(addresses.len());
        let rows = self.database.rows.lock().unwrap();
        Ok(addresses.iter().filter_map(|address| rows.get(address)).cloned().collect())
    }

    fn of_clients(&mut self, by: ClientColumn, clients: &[(&[u8], u32)]) -> Result<Vec<Lease4>, DbError> {
        assert!(clients.is_sorted_by(|a, b| a < b), "each client once");
        self.database.batches.lock().unwrap().push(clients.len());
        thread::sleep(Duration::from_millis(1));
        let rows = self.database.rows.lock().unwrap();
        let of = |&(id, subnet): &(&[u8], u32)| {
            let is_of = move |lease: &&Lease4| {
                let of_lease = match by {
                    ClientColumn::Id => lease.client_id().map(ClientId::as_bytes),
                    ClientColumn::HwAddr => lease.hwaddr().map(HwAddr::as_bytes),
                };
                of_lease == Some(id) && lease.data().subnet_id.0 == subnet
            };
            rows.values().filter(is_of).cloned().collect::<Vec<_>>()
        };
        Ok(clients.iter().flat_map(of).collect())
    }

    fn recount(&mut self) -> Result<(), DbError> {
        Ok(())
    }
}

fn options(more: &str) -> SqlOptions {
    SqlOptions::read(&format!("type=fake name=kea user=kea {more}").parse().unwrap()).unwrap()
}

fn open(more: &str) -> (Arc<Database>, SqlLeaseMgr<Lease4, Fake>) {
    let fake = Fake::default();
    let database = Arc::clone(&fake.0);
    (database, SqlLeaseMgr::open(fake, options(more)).unwrap())
}

fn lease(n: u8) -> Lease4 {
    let client = HwAddr::from([2, 0, 0, 0, 0, n]);
    let heard = system_time(1_790_000_000);
    Lease4::builder([192, 0, 2, n].into())
        .client(client)
        .subnet(1)
        .lifetime(60)
        .heard_at(heard)
        .build()
        .unwrap()
}

fn renewed(n: u8) -> Lease4 {
    let mut lease = lease(n);
    lease.set_heard_at(system_time(1_790_000_030));
    lease
}

#[test]
fn changes_have_their_outcomes() {
    let (database, mgr) = open("");
    assert_eq!(mgr.add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(mgr.add(&renewed(1)).unwrap(), Added::AddressTaken);
    mgr.update_if_unchanged(&lease(1), &renewed(1)).unwrap();
    let error = mgr.update_if_unchanged(&lease(1), &renewed(1)).unwrap_err();
    assert!(matches!(error, LeaseMgrError::ChangedMeanwhile { .. }), "{error}");
    let error = mgr.update(&lease(2)).unwrap_err();
    assert!(matches!(error, LeaseMgrError::NoSuchLease { .. }), "{error}");
    mgr.update(&lease(1)).unwrap();
    assert_eq!(mgr.get(lease(1).address()).unwrap(), Some(lease(1)));
    let error = mgr.delete_if_unchanged(&renewed(1)).unwrap_err();
    assert!(matches!(error, LeaseMgrError::ChangedMeanwhile { .. }), "{error}");
    assert_eq!(mgr.delete(lease(1).address()).unwrap(), Deleted::Deleted);
    assert_eq!(mgr.delete(lease(1).address()).unwrap(), Deleted::NoSuchLease);
    assert_eq!(mgr.delete_if_unchanged(&lease(1)).unwrap(), Deleted::NoSuchLease);
    assert!(database.rows.lock().unwrap().is_empty());
}

#[test]
fn an_expected_lease_of_another_address_is_no_lease_of_the_address() {
    let (_, mgr) = open("");
    assert!(mgr.update_expecting(&lease(1), Some(&lease(2))).unwrap_err().is_stale());
    let _ = mgr.add(&lease(1)).unwrap();
    let error = mgr.update_expecting(&renewed(1), Some(&lease(2))).unwrap_err();
    assert!(matches!(error, LeaseMgrError::ChangedMeanwhile { .. }), "{error}");
    assert!(mgr.delete_expecting(lease(1).address(), Some(&lease(2))).unwrap_err().is_stale());
}

#[rstest]
#[case::an_add(Operation::Add(lease(2)))]
#[case::an_update(Operation::update_if_unchanged(&lease(1), renewed(1)))]
#[case::an_unconditional_update(Operation::update(renewed(1)))]
#[case::a_deletion(Operation::delete_if_unchanged(&lease(1)))]
fn the_outcome_is_found_out_by_reading_if_no_answer_comes(#[case] operation: Operation<Lease4>) {
    let (database, mgr) = open("");
    let _ = mgr.add(&lease(1)).unwrap();
    database.writes.lock().unwrap().push_back(Fault::Before(DbErrorKind::Lost));
    let error = operation.run(&mgr).unwrap_err();
    assert!(error.is_unknown(), "{error}");
    database.writes.lock().unwrap().push_back(Fault::LostAfter);
    let done = operation.run(&mgr).unwrap();
    assert!(matches!(done, Done::Added | Done::Updated | Done::Deleted), "{done:?}");
    let connections = database.connections.load(Ordering::Relaxed);
    assert_eq!(connections, 3, "one after each loss");
}

#[test]
fn a_change_is_not_sent_in_a_session_that_has_ended() {
    let (database, mgr) = open("");
    database.ended.lock().unwrap().push(0);
    database.writes.lock().unwrap().clear();
    assert_eq!(mgr.add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(database.connections.load(Ordering::Relaxed), 2);
}

#[test]
fn a_change_that_was_not_made_before_the_session_ended_is_repeated_once() {
    let (database, mgr) = open("");
    let ended = Fault::Before(DbErrorKind::Ended);
    database.writes.lock().unwrap().push_back(ended);
    assert_eq!(mgr.add(&lease(1)).unwrap(), Added::Added);
    database.writes.lock().unwrap().extend([ended; 2]);
    let error = mgr.add(&lease(2)).unwrap_err();
    assert!(matches!(error, LeaseMgrError::Unavailable { .. }), "{error}");
    assert_eq!(mgr.get(lease(2).address()).unwrap(), None);
}

#[test]
fn a_change_that_is_made_is_told_if_another_one_of_its_batch_fails() {
    let (database, mgr) = open("");
    let _ = mgr.add(&lease(2)).unwrap();
    // The reading that finds out why the second one was not made.
    for kind in [DbErrorKind::Lost, DbErrorKind::Other] {
        database.reads.lock().unwrap().extend([kind; 2]);
        let operations = [Operation::Add(lease(1)), Operation::Add(lease(2))];
        let results = mgr.apply(&operations);
        assert!(matches!(results[0], Ok(Done::Added)), "{results:?}");
        database.reads.lock().unwrap().clear();
        assert_eq!(mgr.delete(lease(1).address()).unwrap(), Deleted::Deleted);
    }
}

#[test]
fn a_conflict_is_repeated_but_not_forever() {
    let (database, mgr) = open("");
    let conflict = Fault::Before(DbErrorKind::Conflict);
    database.writes.lock().unwrap().extend([conflict; 5]);
    assert_eq!(mgr.add(&lease(1)).unwrap(), Added::Added);
    assert!(database.writes.lock().unwrap().is_empty());
    database.writes.lock().unwrap().extend([conflict; 1000]);
    let error = mgr.add(&lease(2)).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn one_change_that_is_refused_does_not_fail_the_others() {
    let (database, mgr) = open("");
    *database.refused.lock().unwrap() = Some(lease(3).address());
    let operations: Vec<_> = (1..=5).map(|n| Operation::Add(lease(n))).collect();
    let results = mgr.apply(&operations);
    for (n, result) in (1..=5).zip(results) {
        if n == 3 {
            assert!(matches!(result, Err(LeaseMgrError::Backend(_))), "{result:?}");
        } else {
            assert_eq!(result.unwrap(), Done::Added, "{n}");
        }
    }
}

#[test]
fn a_panic_takes_no_place_of_a_session() {
    let sessions = Sessions::<Lease4, Fake>::open(Fake::default(), options("pool-size=2"), |_| {}).unwrap();
    for _ in 0..5 {
        let used =
            contained(|| sessions.with(false, |_| -> Result<(), DbError> { panic!("meant") }).unwrap());
        assert_eq!(used, Err("meant".to_owned()));
    }
    // Both places can be used at the same time.
    let both = sessions.with(false, |_| sessions.with(false, |_| Ok(7)));
    assert_eq!(both.unwrap(), 7);
}

/// Imports leases in portions of two, and returns the numbers of those that were added, were there,
/// and were refused.
fn import(mgr: &SqlLeaseMgr<Lease4, Fake>, count: u8) -> Result<(u64, u64, u64), LeaseMgrError> {
    let mut leases = (1..=count).map(lease).map(Ok);
    let imported = mgr.import(&mut leases, &ImportOptions::default().portion(2), &mut |_| {})?;
    assert_eq!(imported.conflicts, 0);
    Ok((imported.added, imported.same, imported.refused))
}

#[test]
fn a_portion_whose_answer_is_lost_is_imported_once() {
    let (database, mgr) = open("");
    database.writes.lock().unwrap().extend([Fault::LostAfter, Fault::Before(DbErrorKind::Conflict)]);
    assert_eq!(import(&mgr, 6).unwrap(), (4, 2, 0));
    assert_eq!(database.rows.lock().unwrap().len(), 6);
}

#[test]
fn an_import_ends_with_the_portion_that_fails() {
    let (database, mgr) = open("");
    database.writes.lock().unwrap().extend([Fault::Before(DbErrorKind::Lost); 2]);
    assert!(import(&mgr, 6).unwrap_err().is_transient());
    assert!(database.rows.lock().unwrap().is_empty());
    assert_eq!(import(&mgr, 6).unwrap(), (6, 0, 0));
    database.writes.lock().unwrap().push_back(Fault::Before(DbErrorKind::NoSpace));
    assert!(import(&mgr, 8).unwrap_err().is_transient());
    assert_eq!(database.rows.lock().unwrap().len(), 6);
    assert_eq!(import(&mgr, 8).unwrap(), (2, 6, 0));
}

#[test]
fn a_lease_that_the_database_refuses_does_not_end_an_import() {
    let (database, mgr) = open("");
    *database.refused.lock().unwrap() = Some(lease(3).address());
    assert_eq!(import(&mgr, 6).unwrap(), (5, 0, 1));
    assert_eq!(database.rows.lock().unwrap().len(), 5);
}

#[test]
fn a_row_in_another_form_is_compared_as_a_lease() {
    let (database, mgr) = open("");
    let _ = mgr.add(&lease(1)).unwrap();
    for (n, operation) in [
        Operation::update_if_unchanged(&lease(1), renewed(1)),
        Operation::update(lease(1)),
        Operation::delete_if_unchanged(&lease(1)),
    ]
    .into_iter()
    .enumerate()
    {
        database.writes.lock().unwrap().push_back(Fault::OtherForm);
        let done = operation.run(&mgr).unwrap();
        assert!(matches!(done, Done::Updated | Done::Deleted), "operation {n}: {done:?}");
    }
}

#[test]
fn waiting_changes_go_out_together() {
    const THREADS: u8 = 8;
    let (database, mgr) = open("");
    let (mgr, start) = (Arc::new(mgr), Arc::new(std::sync::Barrier::new(THREADS.into())));
    let threads = (0..THREADS).map(|thread| {
        let (mgr, start) = (Arc::clone(&mgr), Arc::clone(&start));
        thread::spawn(move || {
            start.wait();
            for n in 0..20 {
                assert_eq!(mgr.add(&lease(thread * 20 + n)).unwrap(), Added::Added);
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    let batches = database.batches.lock().unwrap();
    assert_eq!(batches.iter().sum::<usize>(), 160);
    assert!(batches.len() < 80, "{} batches", batches.len());
}

#[test]
fn callers_that_ask_for_the_same_client_each_get_its_leases() {
    let (database, mgr) = open("");
    let client = |n: u8| ClientId::new(&[1, 2, 0, 0, 0, 0, n]).unwrap();
    for n in 0..4 {
        let mut lease = lease(n);
        lease.set_client(client(n / 2));
        let _ = mgr.add(&lease).unwrap();
    }
    database.batches.lock().unwrap().clear();
    thread::scope(|scope| {
        for thread in 0..8 {
            let (mgr, client) = (&mgr, client(thread % 2));
            scope.spawn(move || {
                for _ in 0..20 {
                    let query = Query::client(&client).in_subnet(SubnetId(1));
                    let found = mgr.find(&query).unwrap();
                    let addresses: Vec<_> = found.iter().map(|lease| lease.address().octets()[3]).collect();
                    assert_eq!(addresses, [2 * (thread % 2), 2 * (thread % 2) + 1]);
                }
            });
        }
    });
    let batches = database.batches.lock().unwrap();
    assert!(batches.iter().all(|&clients| clients <= 2) && batches.len() < 120, "{batches:?}");
}

#[test]
fn a_read_is_repeated_once() {
    let (database, mgr) = open("");
    let _ = mgr.add(&lease(1)).unwrap();
    database.reads.lock().unwrap().push_back(DbErrorKind::Lost);
    assert_eq!(mgr.get(lease(1).address()).unwrap(), Some(lease(1)));
    database.reads.lock().unwrap().extend([DbErrorKind::Lost; 2]);
    let error = mgr.get(lease(1).address()).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

/// Waits until the manager has this availability.
fn wait_for(mgr: &SqlLeaseMgr<Lease4, Fake>, what: impl Fn(Availability) -> bool) {
    let start = Instant::now();
    while !what(mgr.status().availability) {
        assert!(start.elapsed() < Duration::from_secs(300), "{:?}", mgr.status().availability);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_lost_database_comes_back_by_itself() {
    let (database, mgr) = open("reconnect-wait-time=10");
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    mgr.tracking().on_availability("test", move |availability| tell.lock().unwrap().push(availability));
    *database.connecting.lock().unwrap() = Some(DbErrorKind::NotConnected);
    database.writes.lock().unwrap().push_back(Fault::Before(DbErrorKind::Lost));
    let error = mgr.add(&lease(1)).unwrap_err();
    assert!(error.is_unknown(), "{error}");
    wait_for(&mgr, |availability| matches!(availability, Availability::Lost { tries: 2.., .. }));
    let connections = database.connections.load(Ordering::Relaxed);
    let error = mgr.add(&lease(1)).unwrap_err();
    assert!(matches!(error, LeaseMgrError::Unavailable { .. }), "{error}");
    assert!(error.is_transient());
    assert!(connections <= database.connections.load(Ordering::Relaxed));
    *database.connecting.lock().unwrap() = None;
    wait_for(&mgr, |availability| availability == Availability::Up);
    assert_eq!(mgr.add(&lease(1)).unwrap(), Added::Added);
    let told = told.lock().unwrap();
    assert!(matches!(told.first(), Some(Availability::Lost { tries: 0, .. })), "{told:?}");
    assert_eq!(told.last(), Some(&Availability::Up));
}

#[rstest]
#[case(0)]
#[case(3)]
fn attempts_to_reach_a_lost_database_end(#[case] tries: u32) {
    let (database, mgr) = open(&format!("reconnect-wait-time=1 max-reconnect-tries={tries}"));
    *database.connecting.lock().unwrap() = Some(DbErrorKind::NotConnected);
    database.reads.lock().unwrap().push_back(DbErrorKind::Lost);
    assert!(mgr.get(lease(1).address()).is_err());
    wait_for(&mgr, |availability| matches!(availability, Availability::GivenUp { .. }));
    assert_eq!(database.connections.load(Ordering::Relaxed), 2 + tries);
    let error = mgr.add(&lease(1)).unwrap_err();
    assert!(matches!(error, LeaseMgrError::Unavailable { .. }), "{error}");
}

#[test]
fn an_absent_database_is_waited_for_at_the_start_if_asked_for() {
    let fake = Fake::default();
    *fake.0.connecting.lock().unwrap() = Some(DbErrorKind::NotConnected);
    let retries = "reconnect-wait-time=1 max-reconnect-tries=3";
    assert!(SqlLeaseMgr::open(fake.clone(), options(retries)).is_err());
    assert_eq!(fake.0.connections.load(Ordering::Relaxed), 1);
    let retries = format!("{retries} retry-on-startup=true");
    assert!(SqlLeaseMgr::open(fake.clone(), options(&retries)).is_err());
    assert_eq!(fake.0.connections.load(Ordering::Relaxed), 5);
}

#[test]
fn what_no_column_holds_is_not_kept() {
    let (_, mgr) = open("");
    let kept = |change: &dyn Fn(&mut Lease4)| {
        let mut lease = lease(1);
        change(&mut lease);
        mgr.kept(&lease)
    };
    let error = kept(&|lease| lease.set_state(LeaseState::OFFERED).unwrap()).unwrap_err();
    assert!(matches!(error, LeaseMgrError::CannotKeep { field: "state", .. }), "{error}");
    let error = kept(&|lease| lease.set_heard_at(system_time(2_147_483_640))).unwrap_err();
    assert!(matches!(error, LeaseMgrError::CannotKeep { field: "end", .. }), "{error}");
    let named = kept(&|lease| lease.data_mut().hostname = crate::lease::Hostname::new(b"A.Example")).unwrap();
    assert_eq!(named.data().hostname.as_bytes(), b"a.example");
    let in_pool = kept(&|lease| lease.data_mut().pool_id = crate::lease::PoolId(7)).unwrap();
    assert_eq!(in_pool.data().pool_id.0, 0);
    assert_eq!(kept(&|_| {}).unwrap(), lease(1));
}

#[test]
fn callbacks_see_the_changes_of_an_address_in_order() {
    let (_, mgr) = open("");
    let mgr = Arc::new(mgr);
    let told = Arc::new(Mutex::new(Vec::new()));
    for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
        let told = Arc::clone(&told);
        let tell = move |change: &crate::Change<'_, Lease4>| {
            told.lock().unwrap().push((change.before().cloned(), change.now().cloned()));
        };
        mgr.tracking().register("test", kind, Some(SubnetId(1)), tell).unwrap();
    }
    thread::scope(|scope| {
        for thread in 0..4 {
            let mgr = &mgr;
            scope.spawn(move || {
                for n in 0..25 {
                    let _ = match (thread + n) % 3 {
                        0 => mgr.add(&lease(1)).map(drop),
                        1 => mgr.update(&renewed(1)).map(drop),
                        _ => mgr.delete(lease(1).address()).map(drop),
                    };
                }
            });
        }
    });
    let told = told.lock().unwrap();
    let mut there = None;
    for (before, now) in &*told {
        assert_eq!(*before, there);
        there = now.clone();
    }
    assert_eq!(mgr.get(lease(1).address()).unwrap(), there);
}

/// Calls `work` while the threads of submitted look-ups wait in completions.
fn while_look_ups_wait(mgr: &SqlLeaseMgr<Lease4, Fake>, work: impl FnOnce()) {
    let (started, is_started) = mpsc::channel();
    let mut waiting = Vec::new();
    for _ in 0..READ_LEADERS {
        let (done, is_done) = mpsc::channel::<()>();
        let started = started.clone();
        let wait = move |_| {
            started.send(()).unwrap();
            is_done.recv().unwrap();
        };
        mgr.submit_look_up(LookUp::Address(lease(0).address()), Box::new(wait));
        is_started.recv().unwrap();
        waiting.push(done);
    }
    work();
    waiting.iter().for_each(|done| done.send(()).unwrap());
}

#[test]
fn submitted_look_ups_that_wait_go_out_together() {
    const COUNT: u8 = 64;
    let (database, mgr) = open("");
    let id = |n| ClientId::new(&[1, n, n]).unwrap();
    // Leases of odd numbers have a client id, those of multiples of four do not exist.
    let leases = (0..COUNT).map(|n| {
        let mut lease = lease(n);
        if n % 2 == 1 {
            lease.set_client((HwAddr::from([2, 0, 0, 0, 0, n]), id(n)));
        }
        (n % 4 != 0).then_some(lease)
    });
    let leases: Vec<_> = leases.collect();
    leases.iter().flatten().for_each(|lease| assert_eq!(mgr.add(lease).unwrap(), Added::Added));
    let (sender, answers) = mpsc::channel();
    while_look_ups_wait(&mgr, || {
        database.gets.lock().unwrap().clear();
        database.batches.lock().unwrap().clear();
        for n in 0..COUNT {
            let (hwaddr, id) = (HwAddr::from([2, 0, 0, 0, 0, n]), id(n));
            let of_client = LookUp::client(Some(&hwaddr), Some(ClientKey::from(&id)), SubnetId(1));
            for look_up in [LookUp::Address(lease(n).address()), of_client] {
                let sender = sender.clone();
                mgr.submit_look_up(look_up, Box::new(move |found| sender.send((n, found)).unwrap()));
            }
        }
    });
    // All are answered before the end.
    drop((mgr, sender));
    let mut answered = 0;
    for (n, found) in answers.iter() {
        assert_eq!(found.unwrap(), Vec::from_iter(leases[usize::from(n)].clone()));
        answered += 1;
    }
    assert_eq!(answered, 2 * usize::from(COUNT));
    assert_eq!(*database.gets.lock().unwrap(), [64]);
    // By client id, and those not found by hardware address.
    assert_eq!(*database.batches.lock().unwrap(), [64, 32]);
}

#[test]
fn a_failed_look_up_is_answered() {
    let (database, mgr) = open("");
    database.reads.lock().unwrap().push_back(DbErrorKind::Other);
    let (sender, answers) = mpsc::channel();
    let look_up = LookUp::Address(lease(1).address());
    mgr.submit_look_up(look_up, Box::new(move |found| sender.send(found).unwrap()));
    assert!(matches!(answers.recv().unwrap(), Err(LeaseMgrError::Backend(_))));
}
