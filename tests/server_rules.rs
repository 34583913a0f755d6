//! Rules for servers that are built on a lease manager: limits, declined leases, leases that
//! expired before 1970, invalid queries, and a journal that fails.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::{fs, io};

use leasemgr::fs::{OsFileSystem, WriteFile};

use leasemgr::lease::{
    Lease, Lease4, Lease6, LeaseState, LeaseType, Lifetime, RelayId, RemoteId, SubnetId, UserContext,
    system_time,
};
use leasemgr::lease_file::{FileLease, LeaseFileSet};
use leasemgr::lfc::Cleanup;
use leasemgr::memfile::{self, LfcProgram, Memfile, MemfileOptions};
use leasemgr::{
    Added, Availability, Durability, LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease, Query, Subnets,
};
use rstest::rstest;
use support::header;
use support::leases::TestLease;
use support::wrap_files::{WrapFiles, WrappedFileSystem};

fn in_memory<L: ManagedLease + FileLease>() -> Arc<dyn LeaseMgr<L>> {
    memfile::open(MemfileOptions::default().extended_info_tables(true)).unwrap()
}

fn in_directory<L: ManagedLease + FileLease>(directory: &tempfile::TempDir) -> Arc<dyn LeaseMgr<L>> {
    memfile::open(
        MemfileOptions::at(directory.path().join("leases.csv"))
            .extended_info_tables(true)
            .lfc_program(LfcProgram::Internal),
    )
    .unwrap()
}

fn context(text: &str) -> UserContext {
    UserContext::parse(text.as_bytes()).unwrap()
}

/// Adds leases of subnet 1 in these states, all of the class `gold`.
fn with_states<L: TestLease>(mgr: &dyn LeaseMgr<L>, states: &[u32]) {
    for (&state, n) in states.iter().zip(1..) {
        let mut lease = L::tagged(n, 1);
        lease.data_mut().subnet_id = SubnetId(1);
        lease.data_mut().user_context = Some(context(r#"{ "ISC": { "client-classes": [ "gold" ] } }"#));
        lease.set_state(LeaseState(state)).unwrap();
        assert_eq!(mgr.add(&lease).unwrap(), Added::Added);
    }
}

fn check_limit<L: ManagedLease + FileLease>(mgr: &dyn LeaseMgr<L>, limits: &str) -> Option<String> {
    let context = context(&format!(r#"{{ "ISC": {{ "limits": {limits} }} }}"#));
    mgr.check_limits(&context).unwrap().map(|exceeded| {
        assert!(exceeded.count >= exceeded.limit.into());
        exceeded.to_string()
    })
}

fn the_limit_of_a_subnet_counts_leases_in_use_and_declined_ones<L: TestLease>() {
    let mgr = in_memory::<L>();
    // Reclaimed, released and registered leases are not assigned.
    with_states(&*mgr, &[0, 1, 2, 0, 1, 3, 1, 4]);
    let subnet = |limit| format!(r#"{{ "subnet": {{ "id": 1, "address-limit": {limit} }} }}"#);
    assert_eq!(check_limit(&*mgr, &subnet(6)), None);
    for limit in [5, 4, 1, 0] {
        let reason = format!("address limit {limit} of subnet 1 reached, current count 5");
        assert_eq!(check_limit(&*mgr, &subnet(limit)), Some(reason));
    }
    let class =
        |limit| format!(r#"{{ "client-classes": [ {{ "name": "gold", "address-limit": {limit} }} ] }}"#);
    assert_eq!(check_limit(&*mgr, &class(3)), None);
    for limit in [2, 1] {
        let reason = format!("address limit {limit} of client class \"gold\" reached, current count 2");
        assert_eq!(check_limit(&*mgr, &class(limit)), Some(reason));
    }
    // A declined lease stays assigned.
    let mut declined = mgr.by_state(LeaseState::DEFAULT, None).unwrap().remove(0);
    declined.decline(leasemgr::lease::system_time(1_790_000_000), Lifetime(86400));
    mgr.update(&declined).unwrap();
    assert!(check_limit(&*mgr, &subnet(5)).is_some());
    assert_eq!(check_limit(&*mgr, &class(2)), None);
    assert!(check_limit(&*mgr, &class(1)).unwrap().ends_with("current count 1"));
}

#[test]
fn the_limit_of_a_subnet_counts_leases_in_use_and_declined_ones4() {
    the_limit_of_a_subnet_counts_leases_in_use_and_declined_ones::<Lease4>();
}

#[test]
fn the_limit_of_a_subnet_counts_leases_in_use_and_declined_ones6() {
    the_limit_of_a_subnet_counts_leases_in_use_and_declined_ones::<Lease6>();
}

#[test]
fn a_limit_of_subnet_0_is_refused() {
    let limits = context(r#"{ "ISC": { "limits": { "subnet": { "id": 0, "address-limit": 1 } } } }"#);
    let error = in_memory::<Lease4>().check_limits(&limits).unwrap_err();
    assert!(matches!(error, LeaseMgrError::BadArgument { .. }), "{error:?}");
}

const RELAYED4: &str = r#"{ "ISC": { "client-classes": [ "gold" ], "relay-agent-info": { "sub-options": "0x0C0401020304020155" } } }"#;
const RELAYED6: &str = r#"{ "ISC": { "relay-info": [ { "options": "0x0035000401020304002500020055" } ] } }"#;

/// Declines a lease in memory and in a file. Returns both managers, the second one reopened.
fn declined<L: TestLease>(text: &str) -> Vec<(Arc<dyn LeaseMgr<L>>, Arc<tempfile::TempDir>)> {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let (before, after) = (in_memory(), in_directory(&directory));
    let mut lease = L::tagged(1, 1);
    lease.data_mut().user_context = Some(context(text));
    let mut declined = lease.clone();
    declined.decline(leasemgr::lease::system_time(1_790_000_000), Lifetime(86400));
    for mgr in [&before, &after] {
        assert_eq!(mgr.add(&lease).unwrap(), Added::Added);
        assert_eq!(mgr.find(&Query::relay_id(&relay())).unwrap().len(), 1);
        mgr.update(&declined).unwrap();
    }
    drop(after);
    vec![(before, Arc::clone(&directory)), (in_directory(&directory), directory)]
}

fn relay() -> RelayId {
    RelayId::new(&[1, 2, 3, 4]).unwrap()
}

/// A declined lease is reclaimed without a client, also after its manager is reopened and its files
/// are cleaned up.
fn a_reclaimed_lease_without_a_client_is_kept<L: TestLease>() {
    let directory = tempfile::tempdir().unwrap();
    let mut lease = L::tagged(1, 1);
    lease.decline(leasemgr::lease::system_time(1_790_000_000), Lifetime(86400));
    let mgr = in_directory::<L>(&directory);
    assert_eq!(mgr.add(&lease).unwrap(), Added::Added);
    lease.reclaim();
    mgr.update(&lease).unwrap();
    drop(mgr);
    let files = LeaseFileSet::new(directory.path().join("leases.csv"));
    for is_cleaned in [false, true] {
        if is_cleaned {
            fs::rename(files.current_path(), files.input_path()).unwrap();
            Cleanup::new(L::FAMILY, files.lfc_files()).run().unwrap();
        }
        let kept = in_directory::<L>(&directory).all().unwrap();
        assert_eq!(kept, [lease.clone()]);
        assert_eq!(kept[0].reclaimed_from(), Some(LeaseState::DECLINED));
        assert!(kept[0].check_state(LeaseState::DEFAULT).is_err());
    }
}

#[test]
fn a_reclaimed_lease_without_a_client_is_kept4() {
    a_reclaimed_lease_without_a_client_is_kept::<Lease4>();
}

#[test]
fn a_reclaimed_lease_without_a_client_is_kept6() {
    a_reclaimed_lease_without_a_client_is_kept::<Lease6>();
}

#[test]
fn a_declined_dhcpv4_lease_loses_its_user_context_and_relay_ids() {
    for (mgr, _directory) in declined::<Lease4>(RELAYED4) {
        let lease = mgr.all().unwrap().remove(0);
        assert_eq!((lease.state(), &lease.data().user_context), (LeaseState::DECLINED, &None));
        assert_eq!(mgr.find(&Query::relay_id(&relay())).unwrap(), []);
        assert_eq!(mgr.find(&Query::remote_id(&RemoteId::new(&[0x55]).unwrap())).unwrap(), []);
    }
}

#[test]
fn a_declined_dhcpv6_lease_keeps_its_user_context_as_in_kea() {
    for (mgr, _directory) in declined::<Lease6>(RELAYED6) {
        let lease = mgr.all().unwrap().remove(0);
        assert_eq!(lease.state(), LeaseState::DECLINED);
        assert_eq!(lease.data().user_context, Some(context(RELAYED6)));
        assert_eq!(mgr.find(&Query::relay_id(&relay())).unwrap(), [lease]);
    }
}

/// Writes a lease file with these rows of valid lifetime, expiry time and state.
fn file4(directory: &tempfile::TempDir, rows: &[(u32, u64, u32)]) {
    let rows = rows.iter().zip(1..).map(|((valid, expire, state), n): (_, u8)| {
        format!("192.0.2.{n},02:00:00:00:00:{n:02x},,{valid},{expire},1,0,0,,{state},,0\n")
    });
    let text = format!("{}\n{}", header(leasemgr::lease::Family::V4), rows.collect::<String>());
    fs::write(directory.path().join("leases.csv"), text).unwrap();
}

#[test]
fn a_lease_that_expired_before_1970_is_listed_reclaimed_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    // They expire at -100, -50 and 1, never, and far in the future.
    let rows = [
        (200, 18_446_744_073_709_551_516, 0),
        (100, 18_446_744_073_709_551_566, 1),
        (u32::MAX, 4_294_967_200, 0),
        (200, 1, 0),
        (200, 18_446_744_073_709_551_516, 2),
        (3600, 1 << 63, 0),
    ];
    file4(&directory, &rows);
    let mgr = in_directory::<Lease4>(&directory);
    let first = mgr.get([192, 0, 2, 1].into()).unwrap().unwrap();
    assert_eq!((first.data().cltt, first.end()), (-300, Some(-100)));
    let last =
        |leases: Vec<Lease4>| -> Vec<u8> { leases.iter().map(|lease| lease.address().octets()[3]).collect() };
    assert_eq!(last(mgr.list_expired(system_time(0), 0).unwrap()), [1, 2]);
    assert_eq!(last(mgr.list_expired(system_time(0), 1).unwrap()), [1]);
    assert_eq!(last(mgr.list_expired(system_time(1_790_000_000), 0).unwrap()), [1, 2, 4]);
    assert_eq!(last(mgr.list_expired(system_time(i64::MAX), 0).unwrap()), [1, 2, 4]);
    for lease in mgr.list_expired(system_time(1_790_000_000), 0).unwrap() {
        assert!(mgr.reclaim(&lease).unwrap());
    }
    drop(mgr);
    let mgr = in_directory::<Lease4>(&directory);
    assert_eq!(mgr.list_expired(system_time(1_790_000_000), 0).unwrap(), []);
    assert_eq!(mgr.delete_reclaimed(system_time(1_790_000_000 - 3600)).unwrap(), 3);
    assert_eq!(last(mgr.all().unwrap()), [3, 6]);
}

#[test]
fn a_dhcpv6_lease_that_expired_before_1970_is_expired_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mgr = in_directory::<Lease6>(&directory);
    let mut lease = Lease6::tagged(1, 1);
    lease.set_state(LeaseState::DEFAULT).unwrap();
    (lease.data_mut().cltt, lease.data_mut().valid_lifetime) = (-300, Lifetime(200));
    assert_eq!(mgr.add(&lease).unwrap(), Added::Added);
    assert_eq!(mgr.list_expired(system_time(0), 0).unwrap().len(), 1);
    drop(mgr);
    // The file cannot represent -300.
    let mgr = in_directory::<Lease6>(&directory);
    let found = mgr.list_expired(system_time(1_790_000_000), 0).unwrap();
    assert_eq!(found.iter().map(Lease::end).collect::<Vec<_>>(), [Some(200)]);
    assert!(mgr.reclaim(&found[0]).unwrap());
    assert_eq!(mgr.delete_reclaimed(system_time(1_790_000_000 - 3600)).unwrap(), 1);
}

#[rstest]
#[case::page(|mgr: &dyn LeaseMgr<Lease6>| mgr.page(None, 0).map(drop), "the limit of a query is 0, expected at least 1, or none for all leases")]
#[case::limit(|mgr: &dyn LeaseMgr<Lease6>| mgr.find(&Query::state(LeaseState::DEFAULT).limit(0)).map(drop), "the limit of a query is 0, expected at least 1, or none for all leases")]
#[case::backward(|mgr: &dyn LeaseMgr<Lease6>| mgr.find(&Query::all().heard_since(system_time(100)).heard_until(system_time(50))).map(drop), "heard_until is 50, expected a time that is not before heard_since")]
#[case::since(|mgr: &dyn LeaseMgr<Lease6>| mgr.find(&Query::all().heard_since(system_time(-7))).map(drop), "heard_since is -7, expected seconds since the epoch, 0 or more")]
#[case::until(|mgr: &dyn LeaseMgr<Lease6>| mgr.find(&Query::all().heard_until(system_time(-7))).map(drop), "heard_until is -7, expected seconds since the epoch, 0 or more")]
#[case::subnet(|mgr: &dyn LeaseMgr<Lease6>| statistics(mgr, Subnets::One(SubnetId(0))), "the subnet of statistics is 0, expected a number from 1 to 4294967295")]
#[case::range(|mgr: &dyn LeaseMgr<Lease6>| statistics(mgr, Subnets::Range(SubnetId(7), SubnetId(3))), "the subnet range of statistics is 7 to 3, expected a first number of at least 1, and a last one that is not less")]
#[case::range_from_0(|mgr: &dyn LeaseMgr<Lease6>| statistics(mgr, Subnets::Range(SubnetId(0), SubnetId(3))), "the subnet range of statistics is 0 to 3, expected a first number of at least 1, and a last one that is not less")]
fn an_invalid_query_is_refused_with_its_value(
    #[case] ask: fn(&dyn LeaseMgr<Lease6>) -> Result<(), LeaseMgrError>,
    #[case] message: &str,
) {
    let mgr = in_memory();
    with_states(&*mgr, &[0, 1]);
    let error = ask(&*mgr).unwrap_err();
    assert!(matches!(error, LeaseMgrError::BadArgument { .. }), "{error:?}");
    assert_eq!(error.to_string(), message);
}

fn statistics(mgr: &dyn LeaseMgr<Lease6>, subnets: Subnets) -> Result<(), LeaseMgrError> {
    mgr.statistics(&subnets.into()).map(drop)
}

#[test]
fn the_bounds_of_a_query_by_relay_agent_are_checked_first() {
    let mgr = Memfile::<Lease6>::open(MemfileOptions::default()).unwrap();
    let relay = relay();
    let query = Query::relay_id(&relay);
    assert!(matches!(mgr.find(&query), Err(LeaseMgrError::Unsupported { .. })));
    assert!(matches!(mgr.find(&query.limit(0)), Err(LeaseMgrError::BadArgument { .. })));
}

#[test]
fn temporary_addresses_do_not_count_for_limits() {
    let mgr = in_memory::<Lease6>();
    let lease = Lease6::tagged(1, 1);
    let mut temporary =
        Lease6::new(LeaseType::TA, lease.address(), lease.duid().clone(), lease.iaid(), LeaseState::DEFAULT)
            .unwrap();
    *temporary.data_mut() = lease.data().clone();
    temporary.data_mut().subnet_id = SubnetId(1);
    assert_eq!(mgr.add(&temporary).unwrap(), Added::Added);
    assert_eq!(check_limit(&*mgr, r#"{ "subnet": { "id": 1, "address-limit": 1 } }"#), None);
}

/// Files whose writes fail once the flag is set.
#[derive(Clone, Debug, Default)]
struct Failing(Arc<AtomicBool>);

struct FailingFile(Failing, Box<dyn WriteFile>);

impl WrapFiles for Failing {
    fn wrap_write(&self, file: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        Box::new(FailingFile(self.clone(), file))
    }
}

impl Failing {
    fn pass(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("out of order")) } else { Ok(()) }
    }
}

impl WriteFile for FailingFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.pass()?;
        self.1.append(bytes)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.pass()?;
        self.1.write_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.pass()?;
        self.1.sync()
    }
}

#[rstest]
#[case::v4(PhantomData::<Lease4>)]
#[case::v6(PhantomData::<Lease6>)]
fn a_failing_journal_is_given_up_and_reported_once<L: TestLease>(
    #[case] _family: PhantomData<L>,
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let (directory, failing) = (tempfile::tempdir().unwrap(), Failing::default());
    let options = MemfileOptions::at(directory.path().join("leases.csv"))
        .lfc_interval(None)
        .lfc_program(LfcProgram::Internal)
        .durability(durability);
    let mgr =
        memfile::open_on::<L>(options, Arc::new(WrappedFileSystem(failing.clone(), OsFileSystem))).unwrap();
    let (sender, changes) = mpsc::channel();
    mgr.tracking().on_availability("test", move |availability| sender.send(availability).unwrap());
    let panics = |_| resume_unwind(Box::new("out of order"));
    mgr.tracking().on_availability("another", panics);
    // The callback can use the manager, and change leases of another one.
    let (weak, other, used) = (Arc::downgrade(&mgr), in_memory::<L>(), Arc::new(AtomicBool::new(false)));
    let is_used = Arc::clone(&used);
    mgr.tracking().on_availability("a third", move |_| {
        let mgr = weak.upgrade().unwrap();
        assert_eq!(mgr.kept(&L::tagged(1, 1)).unwrap(), mgr.all().unwrap()[0]);
        assert!(mgr.update(&L::tagged(1, 2)).is_err());
        assert_eq!(other.add(&L::tagged(1, 1)).unwrap(), Added::Added);
        is_used.store(true, Ordering::Relaxed);
    });
    assert_eq!(mgr.add(&L::tagged(1, 1)).unwrap(), Added::Added);
    assert_eq!(mgr.status().availability, Availability::Up);

    failing.0.store(true, Ordering::Relaxed);
    for n in 2..4 {
        let error = mgr.add(&L::tagged(n, n)).unwrap_err();
        assert!(!error.is_transient() && !error.is_unknown(), "{error}");
    }
    let status = mgr.status();
    assert!(matches!(status.availability, Availability::GivenUp { .. }) && status.refused.is_some());
    assert_eq!(changes.try_iter().collect::<Vec<_>>(), [status.availability]);
    assert!(used.load(Ordering::Relaxed));
    // Leases can still be read.
    assert_eq!(mgr.all().unwrap(), [L::tagged(1, 1).kept()]);
    assert!(mgr.tracking().forget_availability("test") && !mgr.tracking().forget_availability("test"));
}

#[test]
fn a_wipe_ends_while_leases_are_added() {
    let mgr = memfile::open::<Lease4>(MemfileOptions::in_memory()).unwrap();
    let lease = |n: u32| {
        let builder = Lease4::builder(std::net::Ipv4Addr::from_bits(n))
            .client(leasemgr::lease::HwAddr::from([2, 0, 0, 0, 0, 1]));
        builder.subnet(1).lifetime(3600).build().unwrap()
    };
    for n in 0..5000 {
        assert_eq!(mgr.add(&lease(n)).unwrap(), Added::Added);
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mgr, is_over, lease) = (&mgr, &is_over, &lease);
        scope.spawn(move || {
            for n in (5000..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                assert_eq!(mgr.add(&lease(n)).unwrap(), Added::Added);
            }
        });
        let deleted = mgr.wipe_subnet(SubnetId(1)).unwrap();
        is_over.store(true, Ordering::Relaxed);
        assert!(deleted >= 5000, "{deleted} leases");
    });
    assert!(mgr.all().unwrap().iter().all(|lease| lease.address().to_bits() >= 5000));
}
