//! The backends for databases, on the servers of `scripts/databases`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/database_pool.rs"]
mod database_pool;
#[path = "support/database_servers.rs"]
mod database_servers;
#[path = "support/databases.rs"]
mod databases;
#[path = "support/kea_admin.rs"]
mod kea_admin;
#[path = "support/kea_database.rs"]
mod kea_database;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, iter};

use databases::{Database, Server};
use leasemgr::conformance::{Fixture, TestedLease};
use leasemgr::lease::{
    Duid, Family, HwAddr, Iaid, Lease4, Lease6, Lifetime, Recorded, SubnetId, UserContext, system_time,
};
use leasemgr::{
    Added, AddedWithin, AsyncLeaseMgr, Availability, Change, ChangeKind, Cursor, Deleted, Done, FreeRange,
    ImportOptions, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrFactory, ManagedLease, Operation, Origin,
    Query, WriteLeases, postgresql,
};
use rstest::rstest;
use serde_json::Value;

/// Time limit of a rule: a database on a busy machine is slow.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// The suite, with several managers on one database.
struct Shared(Database);

impl Shared {
    fn new(server: Server) -> Self {
        Self(Database::new(server))
    }
}

impl<L: TestedLease + ManagedLease> Fixture<L> for Shared {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        self.0.open()
    }

    fn is_shared(&self) -> bool {
        true
    }
}

mod postgresql4 {
    leasemgr::conformance_tests!(
        v4,
        shared,
        || super::Shared::new(super::Server::Postgresql),
        time_limit = super::TIME_LIMIT
    );
}

mod postgresql6 {
    leasemgr::conformance_tests!(
        v6,
        shared,
        || super::Shared::new(super::Server::Postgresql),
        time_limit = super::TIME_LIMIT
    );
}

mod mysql4 {
    leasemgr::conformance_tests!(
        v4,
        shared,
        || super::Shared::new(super::Server::Mariadb),
        time_limit = super::TIME_LIMIT
    );
}

mod mysql6 {
    leasemgr::conformance_tests!(
        v6,
        shared,
        || super::Shared::new(super::Server::Mariadb),
        time_limit = super::TIME_LIMIT
    );
}

/// Adds a lease, and compares its row with the recorded one, column by column.
fn check_row<L: ManagedLease>(database: &Database, mgr: &dyn LeaseMgr<L>, lease: &L, recorded: &Value) {
    let name = &recorded["name"];
    assert_eq!(mgr.add(lease).unwrap(), Added::Added, "{name}");
    assert_eq!(mgr.get(lease.address()).unwrap().as_ref(), Some(lease), "{name}");
    let table = if recorded["family"] == 4 { "lease4" } else { "lease6" };
    let row = recorded["row"].as_object().unwrap();
    let shown = |(column, expected): (&String, &Value)| {
        let is_bytes = expected.as_str().is_some_and(|text| text.starts_with("0x"));
        let text = match (database.server, column.as_str()) {
            (Server::Postgresql, "expire") => "extract(epoch from expire)::bigint::text".to_owned(),
            (Server::Mariadb, "expire") => "unix_timestamp(expire)".to_owned(),
            (Server::Postgresql, "address") if table == "lease6" => "host(address::inet)".to_owned(),
            (Server::Postgresql, _) => format!("{column}::text"),
            (Server::Mariadb, _) if is_bytes => format!("concat('0x', hex({column}))"),
            (Server::Mariadb, _) => column.clone(),
        };
        format!("coalesce({text}, 'NULL')")
    };
    let columns: Vec<_> = row.iter().map(shown).collect();
    // No recorded value contains the separator.
    let found = database.execute(&format!("SELECT concat_ws('|', {}) FROM {table}", columns.join(", ")));
    let found: Vec<_> = found.trim_end_matches('\n').split('|').collect();
    let expected: Vec<_> = row.values().map(|value| value.as_str().unwrap_or("NULL")).collect();
    let expected: Vec<_> = expected.iter().map(|value| value.trim_end_matches("/128")).collect();
    let names: Vec<_> = row.keys().collect();
    assert_eq!(found, expected, "{name}: {names:?}");
    let deleted = mgr.delete_expecting(lease.address(), Some(lease)).unwrap();
    assert_eq!(deleted, Deleted::Deleted, "{name}");
}

#[rstest]
#[case::postgresql_of_kea_2_2(Server::Postgresql, "2.2")]
#[case::postgresql_of_kea_3_3(Server::Postgresql, "3.3.1")]
#[case::mariadb_of_kea_2_2(Server::Mariadb, "2.2")]
#[case::mariadb_of_kea_3_3(Server::Mariadb, "3.3.1")]
fn rows_are_those_that_kea_writes(#[case] server: Server, #[case] version: &str) {
    let database = if version == "2.2" { Database::of_kea(server) } else { Database::new(server) };
    let (mgr4, mgr6) = (database.open::<Lease4>(), database.open::<Lease6>());
    let text = fs::read_to_string("tests/data/sql-rows.jsonl").unwrap();
    let recorded = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_meant = |row: &Value| row["backend"] == server.backend() && row["version"] == version;
    let mut count = 0;
    // A lease that is valid for 0 seconds is refused here.
    let is_valid = |row: &Value| row["lease"]["valid-lft"] != 0;
    for recorded in recorded.filter(is_meant).filter(is_valid) {
        let lease = recorded["lease"].clone();
        if recorded["family"] == 4 {
            check_row::<Lease4>(&database, &*mgr4, &serde_json::from_value(lease).unwrap(), &recorded);
        } else {
            let Recorded(lease) = serde_json::from_value(lease).unwrap();
            check_row::<Lease6>(&database, &*mgr6, &lease, &recorded);
        }
        count += 1;
    }
    assert!(count > 20, "{count} rows");
}

#[rstest]
#[case(Server::Postgresql, "13.0")]
#[case(Server::Mariadb, "14.0")]
fn kea_admin_accepts_the_schema(#[case] server: Server, #[case] version: &str) {
    let database = Database::of_version_2_2(server);
    assert!(database.kea_admin("db-version", &[]).lines().any(|line| line == version));
    if server == Server::Postgresql {
        postgresql::install_notify(&database.connection().parse().unwrap()).unwrap();
    }
    let mgr = database.open::<Lease4>();
    let client = leasemgr::lease::HwAddr::from([2, 0, 0, 0, 0, 1]);
    let builder = Lease4::builder([192, 0, 2, 7].into()).client(client).subnet(1).lifetime(3600);
    let heard = leasemgr::lease::system_time(1_700_000_000);
    let _ = mgr.add(&builder.hostname("host.example").heard_at(heard).build().unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leases.csv");
    database.kea_admin("lease-dump", &["-4", "-y", "-o", file.to_str().unwrap()]);
    let dumped = fs::read_to_string(&file).unwrap();
    let row = "192.0.2.7,02:00:00:00:00:01,,3600,1700003600,1,0,0,host.example,0,";
    assert_eq!(dumped.lines().nth(1), Some(row), "{dumped}");
    assert_eq!(dumped.lines().count(), 2);
}

/// Opens two managers, and lets threads of both add, renew and delete the same leases.
#[rstest]
fn managers_of_one_database_lose_no_update(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    const EACH: i64 = 40;
    let database = Database::new(server);
    let managers: Vec<_> = iter::repeat_with(|| database.open::<Lease4>()).take(2).collect();
    let client = leasemgr::lease::HwAddr::from([2, 0, 0, 0, 0, 1]);
    let leases = (1..=4).map(|n| {
        let builder = Lease4::builder([192, 0, 2, n].into()).client(client.clone()).subnet(1).lifetime(3600);
        builder.heard_at(leasemgr::lease::system_time(1_700_000_000)).build().unwrap()
    });
    let leases: Vec<_> = leases.collect();
    for lease in &leases {
        let _ = managers[0].add(lease).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (mgr, leases) = (&managers[thread % 2], &leases);
            scope.spawn(move || {
                for n in 0..EACH {
                    let address = leases[(thread + usize::try_from(n).unwrap()) % leases.len()].address();
                    let renew = |lease: &Lease4| {
                        let mut renewed = lease.clone();
                        renewed.data_mut().cltt += 1;
                        Some(renewed)
                    };
                    assert!(mgr.update_with(address, renew).unwrap().is_some());
                }
            });
        }
    });
    let heard = managers[1].all().unwrap().iter().map(|lease| lease.data().cltt - 1_700_000_000).sum::<i64>();
    assert_eq!(heard, 6 * EACH);
}

/// Leases of a pool, by their numbers in it.
trait Numbered: TestedLease + ManagedLease {
    /// The pools: of addresses, and in DHCPv6 of prefixes, too.
    const LENGTHS: &[u8];

    fn at(n: u32, length: u8) -> Self;
}

impl Numbered for Lease4 {
    const LENGTHS: &[u8] = &[32];

    fn at(n: u32, _: u8) -> Self {
        let [.., a, b, c] = n.to_be_bytes();
        let builder = Self::builder([10, a, b, c].into()).client(HwAddr::from([2, 0, 0, a, b, c]));
        builder.subnet(1).lifetime(3600).heard_at(system_time(1_700_000_000)).build().unwrap()
    }
}

impl Numbered for Lease6 {
    const LENGTHS: &[u8] = &[128, 120, 64, 56];

    fn at(n: u32, length: u8) -> Self {
        let pool = u128::from(u16::from(length)) << 80 | 0x2001_0db8 << 96;
        let address = Ipv6Addr::from_bits(pool | u128::from(n) << (128 - length));
        let builder =
            if length == 128 { Self::builder(address) } else { Self::prefix_builder(address, length.into()) };
        let builder = builder.client(Duid::new(&n.to_be_bytes()).unwrap(), Iaid(1));
        builder.subnet(1).lifetime(3600).heard_at(system_time(1_700_000_000)).build().unwrap()
    }
}

/// Compares the free addresses of a pool, of `L::at` of `number(n)` for each n, with those of a lease
/// file. `lengths` are those of `L::at`, and of the ranges.
fn free_addresses_are_those_of_a_lease_file<L: Numbered>(
    database: &Database,
    lengths: &[(u8, u8)],
    number: impl Fn(u32) -> u32,
) {
    const LAST: u32 = 59;
    let managers = [database.open::<L>(), LeaseMgrFactory::new().open("type=memfile persist=false").unwrap()];
    let mut random = 1_u64;
    let mut random = |below: u32| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(random >> 33).unwrap() % below
    };
    for &(length, of_range) in lengths {
        for _ in 0..40 {
            for mgr in &managers {
                mgr.wipe_subnet(SubnetId(1)).unwrap();
            }
            let gaps = random(4);
            let leases = (0..=LAST + 1).filter_map(|n| {
                let mut lease = L::at(number(n), length);
                match random(40) {
                    found if found < gaps => return None,
                    found if found < 2 * gaps => lease.reclaim(),
                    found if found < 3 * gaps => lease.data_mut().valid_lifetime = Lifetime(60),
                    39 => lease.data_mut().valid_lifetime = Lifetime::INFINITE,
                    _ => {}
                }
                Some(Operation::Add(lease))
            });
            let leases: Vec<_> = leases.collect();
            for mgr in &managers {
                assert!(mgr.apply(&leases).into_iter().all(|result| result.unwrap() == Done::Added));
            }
            let address = |n| L::at(number(n), length).address();
            let (first, last) = (random(10), LAST - random(10));
            let mut range = FreeRange::<L>::prefixes(address(first)..=address(last), of_range);
            for _ in 0..random(4) {
                let excluded = random(LAST);
                range = range.without(address(excluded)..=address(excluded + random(9)));
            }
            for now in [1_700_000_059, 1_700_000_060, 1_700_003_600].map(system_time) {
                let [found, expected] = managers.each_ref().map(|mgr| mgr.first_free(&range, now).unwrap());
                assert_eq!(found, expected, "{range:?} {now:?}");
                let any = managers[0].free_address(&range, now).unwrap();
                assert_eq!(any.is_some(), expected.is_some(), "{range:?} {now:?}");
                if let Some(any) = any {
                    let one = FreeRange::prefixes(any..=any, of_range);
                    assert!(range.contains(any));
                    assert_eq!(managers[1].first_free(&one, now).unwrap(), Some(any), "{now:?}");
                }
            }
        }
    }
}

#[rstest]
fn free_addresses_are_found_in_the_database(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let database = Database::new(server);
    let same = |length: &u8| (*length, *length);
    let lengths =
        [Lease4::LENGTHS, Lease6::LENGTHS].map(|lengths| lengths.iter().map(same).collect::<Vec<_>>());
    free_addresses_are_those_of_a_lease_file::<Lease4>(&database, &lengths[0], |n| n);
    free_addresses_are_those_of_a_lease_file::<Lease6>(&database, &lengths[1], |n| n);
    // As text.
    let old = Database::of_version_2_2(server);
    free_addresses_are_those_of_a_lease_file::<Lease6>(&old, &lengths[1], |n| n);
}

#[rstest]
fn ranges_need_not_begin_at_a_multiple_of_the_size_of_a_prefix(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    let database = Database::new(server);
    free_addresses_are_those_of_a_lease_file::<Lease4>(&database, &[(32, 30)], |n| 4 * n + 3);
    free_addresses_are_those_of_a_lease_file::<Lease6>(&database, &[(128, 120)], |n| 256 * n + 1);
    free_addresses_are_those_of_a_lease_file::<Lease6>(&database, &[(60, 56)], |n| 16 * n + 1);
    // The first 64 bits of the addresses differ.
    let middle = 1 << 20;
    free_addresses_are_those_of_a_lease_file::<Lease6>(&database, &[(84, 84)], |n| middle - 30 + n);
}

/// A pool of many windows, of which one address is free, in the tables of Kea 2.2.
#[rstest]
fn the_only_free_address_is_found_among_thousands(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    const COUNT: u32 = 3000;
    let database = Database::of_version_2_2(server);
    let mgr = database.open::<Lease6>();
    let leases: Vec<_> = (0..COUNT).map(|n| Operation::Add(Lease6::at(n, 128))).collect();
    assert!(mgr.apply(&leases).into_iter().all(|result| result.unwrap() == Done::Added));
    let address = |n| Lease6::at(n, 128).address();
    let range = FreeRange::new(address(0)..=address(COUNT - 1));
    let now = system_time(1_700_000_000);
    let free = || [mgr.first_free(&range, now), mgr.free_address(&range, now)].map(Result::unwrap);
    assert_eq!(free(), [None, None]);
    for n in [0, 31, 32, 1000, COUNT - 1] {
        assert_eq!(mgr.delete(address(n)).unwrap(), Deleted::Deleted);
        assert_eq!(free(), [Some(address(n)); 2]);
        assert_eq!(mgr.add(&Lease6::at(n, 128)).unwrap(), Added::Added);
    }
    assert_eq!(free(), [None, None]);
}

/// In the tables of Kea 2.2, whose order of DHCPv6 addresses is that of their texts.
#[rstest]
fn all_leases_are_read_in_the_order_that_each_way_promises(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    // More than are read at a time.
    const COUNT: u32 = 11_000;
    let database = Database::of_version_2_2(server);
    let mgr = database.open::<Lease6>();
    assert_eq!(mgr.all().unwrap(), []);
    assert_eq!(mgr.leases(Query::all()).count(), 0);
    assert!(mgr.scan(None, 5).unwrap().0.is_empty());
    // Addresses far from each other and of different lengths as text.
    let leases = (0..COUNT).map(|n| Lease6::at(n.wrapping_mul(2_654_435_761) >> (n % 32), 128));
    let mut expected: BTreeMap<_, _> = leases.map(|lease| (lease.address(), lease)).collect();
    let mut leases = expected.values().cloned().map(Ok);
    mgr.import(&mut leases, &ImportOptions::default(), &mut |_| {}).unwrap();
    let is_all = |expected: &BTreeMap<Ipv6Addr, Lease6>| {
        assert!(mgr.all().unwrap().iter().eq(expected.values()));
        assert!(mgr.find(&Query::all().reverse()).unwrap().iter().eq(expected.values().rev()));
        assert!(mgr.leases(Query::all()).map(Result::unwrap).eq(expected.values().cloned()));
        let reversed = mgr.pages(Query::all().reverse().limit(5000), 200).map(Result::unwrap);
        assert!(reversed.flatten().eq(expected.values().rev().take(5000).cloned()));
        let (mut scanned, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = mgr.scan(cursor.as_ref(), 700).unwrap();
            assert!(page.len() <= 700);
            scanned.extend(page);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        scanned.sort_unstable_by_key(Lease6::address);
        assert!(scanned.iter().eq(expected.values()));
    };
    is_all(&expected);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leases6.csv");
    assert_eq!(mgr.write_to(&file).unwrap(), u64::try_from(expected.len()).unwrap());
    let memfile = LeaseMgrFactory::<Lease6>::new();
    let memfile = memfile.open(&format!("type=memfile name={}", file.to_str().unwrap())).unwrap();
    assert!(memfile.all().unwrap().iter().eq(expected.values()));

    // A lease that is deleted before its page is read.
    let mut pages = mgr.pages(Query::all(), 300);
    let mut read = pages.next().unwrap().unwrap();
    let deleted = *expected.keys().nth(3000).unwrap();
    assert_eq!(mgr.delete(deleted).unwrap(), Deleted::Deleted);
    expected.remove(&deleted);
    read.extend(pages.flat_map(Result::unwrap));
    assert!(read.iter().eq(expected.values()));

    // Another program has written an address in another form.
    let (address, lease) = expected.pop_first().unwrap();
    let text = address.to_string().to_uppercase();
    assert_ne!(text, address.to_string());
    database.execute(&format!("UPDATE lease6 SET address = '{text}' WHERE address = '{address}'"));
    expected.insert(address, lease);
    is_all(&expected);
    for bytes in [&b"\xff"[..], &[0xc3]] {
        let error = mgr.scan(Some(&Cursor::new(bytes)), 5).unwrap_err();
        assert!(matches!(error, LeaseMgrError::BadArgument { .. }), "{error}");
    }
    assert!(matches!(mgr.scan(None, 0).unwrap_err(), LeaseMgrError::BadArgument { .. }));
}

fn expired_leases_are_divided<L: Numbered>(server: Server) {
    const COUNT: u32 = 5000;
    let database = Database::new(server);
    let managers: Vec<_> = iter::repeat_with(|| database.open::<L>()).take(2).collect();
    let leases = (0..COUNT).map(|n| {
        let mut lease = L::at(n, L::LENGTHS[0]);
        lease.data_mut().valid_lifetime = Lifetime(1 + n % 100);
        lease
    });
    let leases: Vec<_> = leases.collect();
    let operations: Vec<_> = leases.iter().cloned().map(Operation::Add).collect();
    assert!(managers[0].apply(&operations).into_iter().all(|result| result.unwrap() == Done::Added));
    // A declined lease is deleted.
    let table = if L::FAMILY == Family::V4 { "lease4" } else { "lease6" };
    let declined = "valid_lifetime = 7";
    database.execute(&format!("UPDATE {table} SET state = 1 WHERE {declined}"));
    let told = Arc::new(Mutex::new(Vec::new()));
    for mgr in &managers {
        for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
            let told = Arc::clone(&told);
            let function = move |change: &Change<'_, L>| {
                assert!(change.before().is_some_and(|before| !before.is_reclaimed()));
                told.lock().unwrap().push(change.address());
            };
            mgr.tracking().register("test", kind, None, function).unwrap();
        }
    }
    let now = system_time(1_700_000_100);
    let start = std::sync::Barrier::new(managers.len());
    let reclaimed = std::thread::scope(|scope| {
        let threads = managers.iter().map(|mgr| {
            scope.spawn(|| {
                start.wait();
                mgr.reclaim_expired(now, 0).unwrap()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let expected: Vec<_> = leases.iter().map(L::address).collect();
    let mut returned: Vec<_> = reclaimed.iter().flatten().map(L::address).collect();
    returned.sort_unstable();
    assert_eq!(returned, expected);
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort_unstable();
    assert_eq!(told, expected);
    assert_eq!(managers[0].list_expired(now, 0).unwrap(), []);
    let left = managers[0].all().unwrap();
    assert!(left.iter().all(L::is_reclaimed));
    let declined = reclaimed.iter().flatten().filter(|lease| !lease.is_reclaimed()).count();
    assert_eq!(left.len() + declined, COUNT as usize);
    assert_eq!(declined, COUNT as usize / 100);
    // At most as many as asked for.
    let renewed: Vec<_> = leases[..30].iter().cloned().map(Operation::update).collect();
    let _ = managers[0].apply(&renewed);
    let renewed = managers[0].list_expired(now, 0).unwrap().len();
    assert_eq!(managers[1].reclaim_expired(now, 20).unwrap().len(), 20);
    assert_eq!(managers[1].list_expired(now, 0).unwrap().len(), renewed - 20);
}

#[rstest]
fn each_expired_lease_is_reclaimed_by_one_of_several_managers(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    expired_leases_are_divided::<Lease4>(server);
    expired_leases_are_divided::<Lease6>(server);
}

fn limits_hold_between_managers<L: Numbered>(server: Server, length: u8, kind: &str, of_class: bool) {
    const LIMIT: usize = 25;
    let database = Database::new(server);
    let managers: Vec<_> = iter::repeat_with(|| database.open::<L>()).take(3).collect();
    let context = if of_class {
        format!(
            r#"{{ "ISC": {{ "client-classes": [ "gold" ], "limits": {{ "client-classes": [
                {{ "name": "gold", "{kind}-limit": {LIMIT} }} ] }} }} }}"#
        )
    } else {
        format!(r#"{{ "ISC": {{ "limits": {{ "subnet": {{ "id": 1, "{kind}-limit": {LIMIT} }} }} }} }}"#)
    };
    let context = UserContext::parse(context.as_bytes()).unwrap();
    let added = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..6_u32 {
            let (mgr, context, added) = (&managers[thread as usize % 3], &context, &added);
            scope.spawn(move || {
                for n in 0..10 {
                    let mut lease = L::at(thread * 10 + n, length);
                    lease.data_mut().user_context = Some(context.clone());
                    match mgr.add_within(&lease, context).unwrap() {
                        AddedWithin::Added => added.fetch_add(1, Ordering::Relaxed),
                        AddedWithin::LimitReached(_) => 0,
                        AddedWithin::AddressTaken => panic!("the address of {lease:?} is taken"),
                    };
                }
            });
        }
    });
    assert_eq!(added.into_inner(), LIMIT);
    let left = managers[0].all().unwrap();
    assert_eq!(left.len(), LIMIT);
    // A lease that goes makes room for another one.
    managers[1].delete(left[0].address()).unwrap();
    assert_eq!(managers[2].add_within(&left[0], &context).unwrap(), AddedWithin::Added);
    let reached = managers[1].add_within(&L::at(100, length), &context).unwrap();
    assert!(matches!(reached, AddedWithin::LimitReached(_)), "{reached:?}");
    let _ = managers[1].delete(left[0].address()).unwrap();
    let taken = managers[1].add_within(&left[1], &context).unwrap();
    assert_eq!(taken, AddedWithin::AddressTaken);
}

#[rstest]
fn limits_hold_for_all_managers(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(true, false)] of_class: bool,
) {
    limits_hold_between_managers::<Lease4>(server, 32, "address", of_class);
    limits_hold_between_managers::<Lease6>(server, 128, "address", of_class);
    limits_hold_between_managers::<Lease6>(server, 56, "prefix", of_class);
}

/// What the callbacks of a manager were told.
struct Told<L: ManagedLease> {
    /// The leases as they were told last.
    leases: Mutex<BTreeMap<L::Address, L>>,
    /// The changes that the manager has made itself, and those that were made elsewhere.
    counts: [AtomicUsize; 2],
    /// How often the manager has become available.
    returns: AtomicUsize,
}

impl<L: ManagedLease> Told<L> {
    fn by(mgr: &dyn LeaseMgr<L>) -> Arc<Self> {
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let told = Arc::new(Self { leases: Mutex::default(), counts, returns: AtomicUsize::new(0) });
        for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
            let told = Arc::clone(&told);
            let function = move |change: &Change<'_, L>| {
                let mut leases = told.leases.lock().unwrap();
                match change.now() {
                    Some(lease) => leases.insert(change.address(), lease.clone()),
                    None => leases.remove(&change.address()),
                };
                told.counts[usize::from(change.origin() != Origin::Here)].fetch_add(1, Ordering::Relaxed);
            };
            mgr.tracking().register("told", kind, None, function).unwrap();
        }
        let returned = Arc::clone(&told);
        mgr.tracking().on_availability("told", move |availability| {
            assert_eq!(availability, Availability::Up);
            returned.returns.fetch_add(1, Ordering::Relaxed);
        });
        told
    }

    fn count(&self, is_elsewhere: bool) -> usize {
        self.counts[usize::from(is_elsewhere)].load(Ordering::Relaxed)
    }

    /// Waits until the leases that were told are those of the database.
    fn is_told_all(&self, mgr: &dyn LeaseMgr<L>) {
        let all: BTreeMap<_, _> =
            mgr.all().unwrap().into_iter().map(|lease| (lease.address(), lease)).collect();
        wait_until(|| *self.leases.lock().unwrap() == all, "all changes are told");
    }
}

fn wait_until(is_done: impl Fn() -> bool, what: &str) {
    let until = Instant::now() + Duration::from_secs(120);
    while !is_done() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Lets one manager change leases, and the other one change some of them and others.
fn changes_are_told_to_the_other<L: Numbered>(
    one: &dyn LeaseMgr<L>,
    two: &dyn LeaseMgr<L>,
) -> [Arc<Told<L>>; 2] {
    let told = [Told::by(one), Told::by(two)];
    let length = L::LENGTHS[0];
    let of_one: Vec<_> = (0..450).map(|n| Operation::Add(L::at(n, length))).collect();
    let _ = one.apply(&of_one);
    for n in 1000..1030 {
        let _ = two.add(&L::at(n, length)).unwrap();
    }
    told.iter().for_each(|told| told.is_told_all(one));
    assert_eq!(told.each_ref().map(|told| told.count(false)), [450, 30]);
    let renewed = |n: u32| {
        let mut lease = L::at(n, length);
        lease.data_mut().cltt += 60;
        lease
    };
    let renewals: Vec<_> = (100..300).map(|n| Operation::update(renewed(n))).collect();
    let deletions: Vec<_> = (0..50).map(|n| Operation::delete(L::at(n, length).address())).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| two.apply(&renewals));
        for deletion in &deletions {
            let _ = deletion.run(one).unwrap();
        }
    });
    told.iter().for_each(|told| told.is_told_all(one));
    assert_eq!(told.each_ref().map(|told| told.count(false)), [500, 230]);
    // Each change, once; those that follow each other may be told as one.
    assert_eq!(told.each_ref().map(|told| told.count(true)), [230, 500]);
    told
}

fn changes_are_notified<L: Numbered>(database: &Database, table: &str, row: &str) {
    let (one, two) = (database.open::<L>(), database.open::<L>());
    let told = changes_are_told_to_the_other(&*one, &*two);
    // Another program.
    database.execute(&format!("INSERT INTO {table} {row}"));
    told.iter().for_each(|told| told.is_told_all(&*one));
    assert_eq!(told.each_ref().map(|told| told.count(true)), [231, 501]);
    // The connections are lost, and what is changed meanwhile is not told.
    let returns = || told.each_ref().map(|told| told.returns.load(Ordering::Relaxed));
    assert_eq!(returns(), [0, 0]);
    let terminated = database.execute(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() \
         AND query LIKE 'LISTEN leasemgr_{table}%'"
    ));
    assert_eq!(terminated.trim(), "2");
    wait_until(|| returns() == [1, 1], "the managers listen again");
    database.execute(&format!("DELETE FROM {table}"));
    told.iter().for_each(|told| told.is_told_all(&*one));
    assert!(told[0].leases.lock().unwrap().is_empty());
}

#[test]
fn a_database_tells_managers_of_the_changes_of_others() {
    let database = Database::new(Server::Postgresql);
    let connection = database.connection().parse().unwrap();
    postgresql::install_notify(&connection).unwrap();
    // Again, with the same result.
    postgresql::install_notify(&connection).unwrap();
    let common = "valid_lifetime, expire, subnet_id, fqdn_fwd, fqdn_rev, hostname, state";
    let values = "3600, now(), 1, false, false, '', 0";
    let row = format!("(address, hwaddr, client_id, {common}) VALUES (1, '\\x020000000001', '', {values})");
    changes_are_notified::<Lease4>(&database, "lease4", &row);
    let row = format!(
        "(address, duid, lease_type, iaid, prefix_len, pref_lifetime, {common}) \
         VALUES ('2001:db8:ffff::', '\\x010203', 0, 1, 128, 60, {values})"
    );
    changes_are_notified::<Lease6>(&database, "lease6", &row);
    postgresql::remove_notify(&connection).unwrap();
    let mgr = database.open::<Lease4>();
    assert_eq!(mgr.add(&Lease4::at(1, 32)).unwrap(), Added::Added);
}

#[rstest]
fn changes_of_others_are_found_out_by_reading(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    fn check<L: Numbered>(database: &Database) {
        let open = || {
            let connection = format!("{} poll-interval=1", database.connection());
            LeaseMgrFactory::<L>::new().open(&connection).unwrap()
        };
        let (one, two) = (open(), open());
        changes_are_told_to_the_other(&*one, &*two);
    }
    check::<Lease4>(&Database::new(server));
    check::<Lease6>(&Database::new(server));
    check::<Lease6>(&Database::of_version_2_2(server));
}

#[rstest]
fn tasks_look_up_leases(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    fn check<L: Numbered>(server: Server) {
        let database = Database::new(server);
        let mgr = AsyncLeaseMgr::new(database.open::<L>());
        let lease = |n| L::at(n, L::LENGTHS[0]);
        for n in 0..32 {
            assert_eq!(mgr.leases().add(&lease(n)).unwrap(), Added::Added);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = (0..64).map(|n| {
            let (mgr, lease) = (mgr.clone(), lease(n));
            let look_up = async move {
                let got = mgr.get(lease.address()).await;
                let subnet = lease.data().subnet_id;
                (got, mgr.by_client_in_subnet(lease.hwaddr(), lease.client_key(), subnet).await)
            };
            (n, runtime.spawn(look_up))
        });
        for (n, task) in tasks.collect::<Vec<_>>() {
            let (got, of_client) = runtime.block_on(task).unwrap();
            let expected = (n < 32).then(|| lease(n));
            assert_eq!(got.unwrap(), expected);
            assert_eq!(of_client.unwrap(), Vec::from_iter(expected));
        }
    }
    check::<Lease4>(server);
    check::<Lease6>(server);
}
