//! Loading of lease files: invalid rows, extended info in old formats, leases outside of their
//! subnets, and files in use.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::lease::{
    ExtendedInfoChecks, Family, Lease4, Lease6, LeaseType, RelayId, RemoteId, SubnetId, UserContext,
};
use leasemgr::lease_file::FileLease;
use leasemgr::memfile::{
    self, LeaseChecks, LeaseSanity, LfcProgram, Memfile, MemfileOptions, OpenError, OpenRetries, SubnetMap,
};
use leasemgr::{CleanupStart, LeaseMgr, LeaseMgrExt, ManagedLease, OnFail, Query};
use rstest::rstest;
use support::logs::Logs;

const HEADER4: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,\
    state,user_context,pool_id\n";
const HEADER6: &str = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,\
    fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source,pool_id\n";

/// What these tests need of either family.
trait Loaded: ManagedLease + FileLease {
    const HEADER: &'static str;

    /// Returns the `n`th address of a subnet: 10.0.SUBNET.N or 2001:db8:SUBNET::N.
    fn nth(subnet: u32, n: u32) -> Self::Address;

    /// Returns the row of a lease whose subnet column is `named`, with the newline.
    fn row(subnet: u32, n: u32, named: u32, context: &str) -> String;

    /// Returns the prefix of a subnet.
    fn prefix(subnet: u32) -> (SubnetId, IpAddr, u8);

    /// Returns the options of a relay agent with these relay and remote ids, in hex.
    fn options(relay: [u8; 4], remote: [u8; 2]) -> String;

    /// Returns a user context with these options in the old format.
    fn old(options: &str) -> String;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02X}");
        hex
    })
}

/// Returns a user context as a file spells it.
fn escaped(context: &str) -> String {
    context.replace(',', "&#x2c")
}

impl Loaded for Lease4 {
    const HEADER: &'static str = HEADER4;

    fn nth(subnet: u32, n: u32) -> Self::Address {
        (0x0a00_0000 + (subnet << 8) + n).into()
    }

    fn row(subnet: u32, n: u32, named: u32, context: &str) -> String {
        let (address, context) = (Self::nth(subnet, n), escaped(context));
        format!("{address},02:00:00:00:00:{n:02x},,3600,1790003600,{named},0,0,,0,{context},0\n")
    }

    fn prefix(subnet: u32) -> (SubnetId, IpAddr, u8) {
        (SubnetId(subnet), Self::nth(subnet, 0).into(), 24)
    }

    fn options(relay: [u8; 4], remote: [u8; 2]) -> String {
        format!("0x0C04{}0202{}", hex(&relay), hex(&remote))
    }

    fn old(options: &str) -> String {
        format!(r#"{{ "ISC": {{ "relay-agent-info": "{options}" }} }}"#)
    }
}

impl Loaded for Lease6 {
    const HEADER: &'static str = HEADER6;

    fn nth(subnet: u32, n: u32) -> Self::Address {
        ((0x2001_0db8 << 96) + (u128::from(subnet) << 80) + u128::from(n)).into()
    }

    fn row(subnet: u32, n: u32, named: u32, context: &str) -> String {
        let (address, context) = (Self::nth(subnet, n), escaped(context));
        format!(
            "{address},00:01:00:00:00:{n:02x},3600,1790003600,{named},1800,0,{n},128,0,0,,,0,{context},0,0,0\n"
        )
    }

    fn prefix(subnet: u32) -> (SubnetId, IpAddr, u8) {
        (SubnetId(subnet), Self::nth(subnet, 0).into(), 48)
    }

    fn options(relay: [u8; 4], remote: [u8; 2]) -> String {
        format!("0x00350004{}00250002{}", hex(&relay), hex(&remote))
    }

    fn old(options: &str) -> String {
        format!(
            r#"{{ "ISC": {{ "relays": [ {{ "hop": 0, "link": "2001:db8::1", "options": "{options}", "peer": "fe80::1" }} ] }} }}"#
        )
    }
}

/// A directory with lease files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn current(&self) -> PathBuf {
        self.0.path().join("leases.csv")
    }

    /// Writes the file with this suffix, with these rows.
    fn write<L: Loaded>(&self, suffix: &str, rows: &str) {
        let path = self.0.path().join(format!("leases.csv{suffix}"));
        fs::write(path, [L::HEADER, rows].concat()).unwrap();
    }

    fn options(&self) -> MemfileOptions {
        MemfileOptions::at(self.current())
            .lfc_interval(None)
            .lfc_program(LfcProgram::Internal)
            .extended_info_tables(true)
    }

    fn open<L: ManagedLease>(&self) -> Arc<dyn LeaseMgr<L>> {
        memfile::open(self.options()).unwrap()
    }
}

fn clean_up<L: ManagedLease + FileLease>(mgr: &dyn LeaseMgr<L>) {
    assert_eq!(mgr.clean_up().unwrap(), CleanupStart::Requested);
    let done = || {
        let status = mgr.status().cleanup.unwrap();
        assert_eq!(status.failed, 0, "{:?}", status.last);
        !status.running && status.succeeded > 0
    };
    while !done() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns invalid rows.
fn invalid(count: usize) -> String {
    "nonsense\n".repeat(count)
}

#[rstest]
#[case::within_the_limit_in_each_file([2, 2, 2], None)]
#[case::too_many_in_the_first([3, 0, 0], Some(".2"))]
#[case::too_many_in_the_second([2, 3, 0], Some(".1"))]
#[case::too_many_in_the_last([2, 2, 3], Some(""))]
fn the_limit_of_invalid_rows_is_for_each_file(
    #[case] invalid_rows: [usize; 3],
    #[case] refused: Option<&str>,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    fn load<L: Loaded>(invalid_rows: [usize; 3], refused: Option<&str>) {
        let files = Files::new();
        for (n, (suffix, count)) in (1..).zip([".2", ".1", ""].into_iter().zip(invalid_rows)) {
            files.write::<L>(suffix, &(invalid(count) + &L::row(1, n, 1, "")));
        }
        let options = files.options().max_row_errors(2);
        match (memfile::open::<L>(options), refused) {
            (Ok(mgr), None) => assert_eq!(mgr.all().unwrap().len(), 3),
            (Err(error), Some(suffix)) => {
                let expected =
                    format!("leases.csv{suffix}: more than 2 invalid rows in this file, the last in line");
                assert!(error.to_string().contains(&expected), "{error}");
                assert!(
                    error.to_string().ends_with("; fix the file, or raise max-row-errors (0 for any number)")
                );
            }
            (result, _) => panic!("{result:?}"),
        }
    }
    match family {
        Family::V4 => load::<Lease4>(invalid_rows, refused),
        Family::V6 => load::<Lease6>(invalid_rows, refused),
    }
}

#[rstest]
#[case(OnFail::StopRetryExit)]
#[case(OnFail::ServeRetryExit)]
#[case(OnFail::ServeRetryContinue)]
fn the_status_contains_the_action_on_a_failure(#[case] on_fail: OnFail) {
    let files = Files::new();
    let mgr = Memfile::<Lease4>::open(files.options().on_fail(on_fail)).unwrap();
    assert_eq!(mgr.status().on_fail, Some(on_fail));
    let in_memory = MemfileOptions::default().on_fail(on_fail);
    assert_eq!(Memfile::<Lease6>::open(in_memory).unwrap().status().on_fail, Some(on_fail));
}

const RETRIES: OpenRetries = OpenRetries { tries: u32::MAX, wait: Duration::from_millis(1) };

/// Waits until opening has failed twice for this reason.
fn wait_for_tries(logs: &Logs, reason: &str) {
    let start = Instant::now();
    while logs.count(reason) < 2 {
        assert!(start.elapsed() < Duration::from_secs(600), "{:?}", logs.lines());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn opening_waits_until_another_manager_is_closed() {
    let files = Files::new();
    let first = files.open::<Lease4>();
    let options = files.options().open_retries(RETRIES);
    let logs = Logs::default();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| logs.of(|| Memfile::<Lease4>::open(options).unwrap()));
        wait_for_tries(&logs, "is in use by another lease manager");
        drop(first);
        assert_eq!(waiting.join().unwrap().all().unwrap(), []);
    });
}

#[test]
fn opening_waits_for_a_missing_directory() {
    let files = Files::new();
    let late = files.0.path().join("later");
    let file = Some(late.join("leases6.csv"));
    let options = files.options().file(file).open_retries(RETRIES);
    let logs = Logs::default();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| logs.of(|| Memfile::<Lease6>::open(options).unwrap()));
        wait_for_tries(&logs, "later");
        fs::create_dir(&late).unwrap();
        assert_eq!(waiting.join().unwrap().all().unwrap(), []);
    });
}

#[rstest]
#[case::no_retries(None, 1)]
#[case::two(Some(2), 3)]
fn opening_gives_up_after_its_tries(#[case] tries: Option<u32>, #[case] all: usize) {
    let files = Files::new();
    let _first = files.open::<Lease4>();
    let retries = tries.map(|tries| OpenRetries { tries, wait: Duration::from_millis(1) });
    let logs = Logs::default();
    let opened = logs.of(|| Memfile::<Lease4>::open(files.options().open_retries(retries)));
    assert!(matches!(opened.unwrap_err(), OpenError::Owned { .. }));
    assert_eq!(logs.count("is in use by another lease manager") + 1, all);
}

#[test]
fn opening_does_not_retry_for_invalid_content() {
    let files = Files::new();
    fs::write(files.current(), "this,is,no,lease,file\n").unwrap();
    // With this number of tries, a test that waits would not end.
    let options = files.options().open_retries(RETRIES);
    assert!(matches!(Memfile::<Lease4>::open(options).unwrap_err(), OpenError::File(_)));
}

fn upgraded<L: Loaded>(context: &str, checks: ExtendedInfoChecks) -> Option<UserContext> {
    let context = UserContext::parse(context.as_bytes()).unwrap();
    match leasemgr::lease::check_extended_info(L::FAMILY, &context, checks) {
        Some(checked) => checked.context,
        None => Some(context),
    }
}

fn loading_upgrades_old_extended_info<L: Loaded>(checks: ExtendedInfoChecks) {
    let files = Files::new();
    let (relay, remote) = ([1, 2, 3, 4], [0xbe, 0xef]);
    let contexts = [
        L::old(&L::options(relay, remote)),
        L::old("0x"),
        L::old("nonsense"),
        r#"{ "ISC": 7, "rack": 12 }"#.to_owned(),
        r#"{ "ISC": { "relay-agent-info": { "foo": 1 }, "relay-info": [ { "foo": 1 } ] } }"#.to_owned(),
        "{  }".to_owned(),
        r#"{ "rack": 12 }"#.to_owned(),
    ];
    let rows = (1..).zip(&contexts).map(|(n, context)| L::row(1, n, 1, context)).collect::<String>();
    // In the previous file as well as in the journal.
    files.write::<L>(".2", &rows);
    files.write::<L>("", &L::row(1, 99, 1, &contexts[0]));
    let options = files.options().extended_info_checks(checks);
    let mgr = memfile::open::<L>(options).unwrap();
    for (n, context) in (1..).zip(&contexts).chain([(99, &contexts[0])]) {
        let lease = mgr.get(L::nth(1, n)).unwrap().unwrap();
        assert_eq!(lease.data().user_context, upgraded::<L>(context, checks), "{context}");
    }
    let (relay, remote) = (RelayId::new(&relay).unwrap(), RemoteId::new(&remote).unwrap());
    let addresses =
        |query: Query<'_, L>| mgr.find(&query).unwrap().iter().map(L::address).collect::<Vec<_>>();
    let both = [L::nth(1, 1), L::nth(1, 99)];
    assert_eq!(addresses(Query::relay_id(&relay)), both);
    assert_eq!(addresses(Query::remote_id(&remote)), both);

    // An upgraded lease can be changed conditionally.
    let read = mgr.get(L::nth(1, 1)).unwrap().unwrap();
    let mut renewed = read.clone();
    renewed.data_mut().cltt += 10;
    mgr.update_if_unchanged(&read, &renewed).unwrap();
    drop(mgr);
    let mgr = memfile::open::<L>(files.options().extended_info_checks(ExtendedInfoChecks::None)).unwrap();
    assert_eq!(mgr.get(L::nth(1, 1)).unwrap(), Some(renewed));
    // The user contexts of other leases are unchanged.
    let context = |n| mgr.get(L::nth(1, n)).unwrap().unwrap().data().user_context.clone();
    assert_eq!(context(99), upgraded::<L>(&contexts[0], ExtendedInfoChecks::None));
}

#[rstest]
fn loading_upgrades_old_extended_info_in_both_families(
    #[values(
        ExtendedInfoChecks::None,
        ExtendedInfoChecks::Fix,
        ExtendedInfoChecks::Strict,
        ExtendedInfoChecks::Pedantic
    )]
    checks: ExtendedInfoChecks,
) {
    loading_upgrades_old_extended_info::<Lease4>(checks);
    loading_upgrades_old_extended_info::<Lease6>(checks);
}

fn one_call_upgrades_in_pages<L: Loaded>(page_size: usize) {
    let files = Files::new();
    let (relay, remote) = ([1, 2, 3, 4], [0xbe, 0xef]);
    let old = L::old(&L::options(relay, remote));
    let rows = (1..=20).map(|n| match n % 4 {
        0 => L::row(1, n, 1, ""),
        1 => L::row(1, n, 1, &old),
        2 => L::row(1, n, 1, r#"{ "rack": 12 }"#),
        _ => L::row(1, n, 1, &L::old("nonsense")),
    });
    files.write::<L>("", &rows.collect::<String>());
    let options = files.options().extended_info_checks(ExtendedInfoChecks::None);
    let mgr = memfile::open::<L>(options).unwrap();
    assert_eq!(mgr.upgrade_extended_info(ExtendedInfoChecks::None, page_size).unwrap(), 0);
    assert_eq!(mgr.upgrade_extended_info(ExtendedInfoChecks::Fix, page_size).unwrap(), 10);
    assert_eq!(mgr.upgrade_extended_info(ExtendedInfoChecks::Fix, page_size).unwrap(), 0);
    for lease in mgr.all().unwrap() {
        let context = lease.data().user_context.as_ref();
        let clean = context.and_then(|context| {
            leasemgr::lease::check_extended_info(L::FAMILY, context, ExtendedInfoChecks::Pedantic)
        });
        assert_eq!(clean, None);
    }
    assert_eq!(mgr.rebuild_relay_tables(page_size).unwrap(), 5);
    assert_eq!(mgr.find(&Query::relay_id(&RelayId::new(&relay).unwrap())).unwrap().len(), 5);
    // The upgrade was written to the file.
    let all = mgr.all().unwrap();
    drop(mgr);
    let options = files.options().extended_info_checks(ExtendedInfoChecks::None);
    assert_eq!(memfile::open::<L>(options).unwrap().all().unwrap(), all);
}

#[rstest]
fn one_call_upgrades_all_leases_in_pages(#[values(1, 3, 20, 1000)] page_size: usize) {
    one_call_upgrades_in_pages::<Lease4>(page_size);
    one_call_upgrades_in_pages::<Lease6>(page_size);
}

fn an_upgrade_undoes_no_change<L: Loaded>() {
    const LEASES: u32 = 200;
    let files = Files::new();
    let old = L::old(&L::options([1, 2, 3, 4], [0xbe, 0xef]));
    let rows = (1..=LEASES).map(|n| L::row(1, n, 1, &old));
    files.write::<L>("", &rows.collect::<String>());
    let options = files.options().extended_info_checks(ExtendedInfoChecks::None);
    let mgr = memfile::open::<L>(options).unwrap();
    let renewals: u64 = thread::scope(|scope| {
        let renewing = scope.spawn(|| {
            (1..=LEASES)
                .map(|n| {
                    loop {
                        let read = mgr.get(L::nth(1, n)).unwrap().unwrap();
                        let mut renewed = read.clone();
                        renewed.data_mut().cltt += 7;
                        match mgr.update_if_unchanged(&read, &renewed) {
                            Ok(()) => break 1,
                            Err(error) => assert!(error.is_stale(), "{error}"),
                        }
                    }
                })
                .sum()
        });
        assert_eq!(mgr.upgrade_extended_info(ExtendedInfoChecks::Fix, 3).unwrap(), u64::from(LEASES));
        renewing.join().unwrap()
    });
    assert_eq!(renewals, u64::from(LEASES));
    for lease in mgr.all().unwrap() {
        assert_eq!(lease.data().cltt, 1_790_000_007);
        assert_eq!(lease.data().user_context, upgraded::<L>(&old, ExtendedInfoChecks::Fix));
    }
}

#[test]
fn an_upgrade_undoes_no_concurrent_change() {
    an_upgrade_undoes_no_change::<Lease4>();
    an_upgrade_undoes_no_change::<Lease6>();
}

/// Leases outside of their subnets, as (subnet, number, named subnet): one in the right subnet, one
/// in another subnet, one of an unknown subnet, and one that is in no subnet.
const LEASES: [(u32, u32, u32); 4] = [(1, 1, 1), (1, 2, 2), (2, 3, 77), (9, 4, 1)];

fn sanity<L: Loaded>(checks: LeaseChecks, subnets: impl IntoIterator<Item = u32>) -> Option<LeaseSanity> {
    let subnets = SubnetMap::new(subnets.into_iter().map(L::prefix)).unwrap();
    Some(LeaseSanity { checks, subnets })
}

fn leases_outside_their_subnets<L: Loaded>(checks: LeaseChecks, subnets: [Option<u32>; 4]) {
    let files = Files::new();
    let rows = LEASES.map(|(subnet, n, named)| L::row(subnet, n, named, ""));
    files.write::<L>("", &rows.concat());
    let named = |mgr: &dyn LeaseMgr<L>| {
        LEASES.map(|(subnet, n, _)| mgr.get(L::nth(subnet, n)).unwrap().map(|lease| lease.data().subnet_id.0))
    };
    let open = |lease_sanity| memfile::open::<L>(files.options().lease_sanity(lease_sanity)).unwrap();

    let logs = Logs::default();
    let mgr = logs.of(|| open(sanity::<L>(checks, [1, 2])));
    assert_eq!(named(&*mgr), subnets);
    assert_eq!(logs.count("is not in its subnet"), if checks == LeaseChecks::None { 0 } else { 3 });
    // The indexes have the new subnets.
    for subnet in [1, 2, 77] {
        let found = mgr.by_subnet(SubnetId(subnet)).unwrap().len();
        assert_eq!(found, subnets.iter().filter(|named| **named == Some(subnet)).count());
    }
    // After a cleanup, the next start with the same map has the same result.
    clean_up(&*mgr);
    assert_eq!(named(&*mgr), subnets);
    drop(mgr);
    let mgr = open(sanity::<L>(checks, [1, 2]));
    assert_eq!(named(&*mgr), subnets);
    // Without a map, and with a map of all subnets, nothing was lost.
    drop(mgr);
    let mgr = open(None);
    assert_eq!(named(&*mgr), LEASES.map(|(_, _, named)| Some(named)));
    drop(mgr);
    let mgr = open(sanity::<L>(LeaseChecks::FixDel, [1, 2, 9]));
    assert_eq!(named(&*mgr), LEASES.map(|(subnet, ..)| Some(subnet)));
    // A change is written with the new subnet.
    let read = mgr.get(L::nth(9, 4)).unwrap().unwrap();
    let mut renewed = read.clone();
    renewed.data_mut().cltt += 1;
    mgr.update_if_unchanged(&read, &renewed).unwrap();
    drop(mgr);
    assert_eq!(named(&*open(None))[3], Some(9));
}

#[rstest]
#[case::none(LeaseChecks::None, [Some(1), Some(2), Some(77), Some(1)])]
#[case::warn(LeaseChecks::Warn, [Some(1), Some(2), Some(77), Some(1)])]
#[case::fix(LeaseChecks::Fix, [Some(1), Some(1), Some(2), Some(1)])]
#[case::fix_del(LeaseChecks::FixDel, [Some(1), Some(1), Some(2), None])]
#[case::del(LeaseChecks::Del, [Some(1), None, None, None])]
fn leases_outside_their_subnets_are_kept_moved_or_left_out(
    #[case] checks: LeaseChecks,
    #[case] subnets: [Option<u32>; 4],
) {
    leases_outside_their_subnets::<Lease4>(checks, subnets);
    leases_outside_their_subnets::<Lease6>(checks, subnets);
}

#[test]
fn the_address_of_a_lease_that_was_left_out_can_be_leased() {
    let files = Files::new();
    files.write::<Lease4>("", &Lease4::row(9, 1, 9, ""));
    let options = || files.options().lease_sanity(sanity::<Lease4>(LeaseChecks::Del, [1]));
    let mgr = Memfile::<Lease4>::open(options()).unwrap();
    assert_eq!(mgr.all().unwrap(), []);
    files.write::<Lease4>(".new", &Lease4::row(9, 1, 1, ""));
    let lease = Memfile::<Lease4>::open(files.options().file(files.0.path().join("leases.csv.new")))
        .unwrap()
        .all()
        .unwrap()
        .remove(0);
    assert_eq!(mgr.add(&lease).unwrap(), leasemgr::Added::Added);
    drop(mgr);
    assert_eq!(files.open::<Lease4>().all().unwrap(), [lease]);
}

#[test]
fn the_last_row_of_a_lease_is_checked() {
    let files = Files::new();
    files.write::<Lease4>(".2", &Lease4::row(1, 1, 7, ""));
    files.write::<Lease4>("", &Lease4::row(1, 1, 1, ""));
    let logs = Logs::default();
    let lease_sanity = sanity::<Lease4>(LeaseChecks::Del, [1]);
    let mgr = logs.of(|| Memfile::<Lease4>::open(files.options().lease_sanity(lease_sanity)).unwrap());
    assert_eq!(mgr.all().unwrap().len(), 1);
    assert_eq!(logs.count("not in its subnet"), 0);
}

#[rstest]
#[case::na(0, 128, 0)]
#[case::ta(1, 128, 0)]
#[case::pd(2, 64, 1)]
fn delegated_prefixes_need_not_be_in_a_subnet(
    #[case] lease_type: u16,
    #[case] length: u8,
    #[case] left: usize,
) {
    let files = Files::new();
    let row = "2001:db8:9::,00:01:00:01,3600,1790003600,9,1800,TYPE,7,LENGTH,0,0,,,0,,0,0,0\n";
    let row = row.replace("TYPE", &lease_type.to_string()).replace("LENGTH", &length.to_string());
    files.write::<Lease6>("", &row);
    let lease_sanity = sanity::<Lease6>(LeaseChecks::Del, [1]);
    let mgr = Memfile::<Lease6>::open(files.options().lease_sanity(lease_sanity)).unwrap();
    let leases = mgr.all().unwrap();
    assert_eq!(leases.len(), left);
    assert!(leases.iter().all(|lease| lease.lease_type() == LeaseType::PD));
}

#[rstest]
#[case(20, 20)]
#[case(21, 20)]
#[case(200, 20)]
fn the_first_leases_outside_their_subnets_are_logged_and_their_number(
    #[case] leases: u32,
    #[case] logged: usize,
) {
    let files = Files::new();
    let rows = (1..=leases).map(|n| Lease4::row(1, n, 2, &Lease4::old("nonsense")));
    files.write::<Lease4>("", &rows.collect::<String>());
    let logs = Logs::default();
    let lease_sanity = sanity::<Lease4>(LeaseChecks::Fix, [1]);
    let mgr = logs.of(|| Memfile::<Lease4>::open(files.options().lease_sanity(lease_sanity)).unwrap());
    assert_eq!(mgr.by_subnet(SubnetId(1)).unwrap().len(), leases as usize);
    assert_eq!(logs.count("not in its subnet"), logged);
    assert_eq!(
        logs.count(&format!("{leases} leases are not in their subnets: 0 are kept, {leases} are moved")),
        1
    );
    assert_eq!(logs.count("relay-agent-info in the user context is \"nonsense\""), logged);
    let summary = format!("extended info was removed from {leases} rows in total");
    assert_eq!(logs.count(&summary), usize::from(leases > 20));
}

#[rstest]
#[case(20, 20)]
#[case(21, 20)]
#[case(5000, 20)]
fn the_first_invalid_rows_of_each_file_are_logged_and_their_number(
    #[case] rows: usize,
    #[case] logged: usize,
) {
    let files = Files::new();
    for suffix in [".2", ".1", ""] {
        files.write::<Lease4>(suffix, &(invalid(rows) + &Lease4::row(1, 1, 1, "")));
    }
    let logs = Logs::default();
    drop(logs.of(|| Memfile::<Lease4>::open(files.options()).unwrap()));
    assert_eq!(logs.count("1 values, expected 12 (address nonsense); the row is skipped"), 3 * logged);
    let summary = format!("{rows} rows were skipped in total");
    assert_eq!(logs.count(&summary), if rows > 20 { 3 } else { 0 });
}

#[rstest]
#[case(20, 20)]
#[case(5000, 20)]
fn the_first_hardware_addresses_that_are_left_out_are_logged_and_their_number(
    #[case] rows: u32,
    #[case] logged: usize,
) {
    let files = Files::new();
    let row = |n| Lease6::row(1, n % 200, 1, "").replace(",,0,,", ",zz,0,,");
    files.write::<Lease6>("", &(1..=rows).map(row).collect::<String>());
    let logs = Logs::default();
    let mgr = logs.of(|| Memfile::<Lease6>::open(files.options()).unwrap());
    assert_eq!(mgr.all().unwrap().len(), rows.min(200) as usize);
    assert_eq!(logs.count("hwaddr is \"zz\""), logged);
    let summary = format!("{rows} leases in total are kept without their hardware addresses");
    assert_eq!(logs.count(&summary), usize::from(rows > 20));
}

#[test]
fn a_missing_directory_is_reported_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("missing");
    let file = directory.join("leases4.csv");
    let options = MemfileOptions::at(file.clone());
    let error = Memfile::<Lease4>::open(options).unwrap_err();
    let expected = format!("{}: its directory {} does not exist; ", file.display(), directory.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}
