//! Tests with a server, which the connection string in the environment variable
//! `LEASEMGR_TEST_MYSQL` names. The tables of leases of its database are emptied.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rstest::rstest;

use super::connect::MySql;
use super::session::MySqlSession;
use crate::connection::ConnectionString;
use crate::lease::{
    Fields, HwSource, HwType, Iaid, Lease, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId,
};
use crate::lease_mgr::ManagedLease;
use crate::sql::columns::{self, Column, Kind, Value};
use crate::sql::driver::{ClientColumn, DbErrorKind, Dialect, Driver, Session, Write};
use crate::sql::options::SqlOptions;

static DATABASE: Mutex<()> = Mutex::new(());

/// Returns the options of the database of the tests, for one test at a time.
fn options() -> Option<(SqlOptions, MutexGuard<'static, ()>)> {
    let Ok(text) = std::env::var("LEASEMGR_TEST_MYSQL") else {
        println!("skipped: LEASEMGR_TEST_MYSQL names no database");
        return None;
    };
    let guard = DATABASE.lock();
    let connection: ConnectionString = text.parse().unwrap();
    Some((SqlOptions::read(&connection).unwrap(), guard))
}

fn connect<L: ManagedLease>(options: &SqlOptions) -> MySqlSession<L> {
    MySql.connect(options).unwrap()
}

/// Returns a session with an empty table.
fn empty<L: ManagedLease>(options: &SqlOptions) -> MySqlSession<L> {
    let mut session = connect::<L>(options);
    session.execute(&format!("DELETE FROM {}", columns::table(L::FAMILY)), &[]).unwrap();
    session
}

/// A family, for tests of both.
trait Sample: ManagedLease {
    fn address(number: u32) -> IpAddr;

    fn fields(number: u32) -> Fields<'static> {
        let mut fields = Fields::new(<Self as Sample>::address(number));
        fields.client = Some(&[0, 1, 0xff, 0xfe]);
        fields.valid_lifetime = Lifetime(3600);
        fields.cltt = 1_763_000_000;
        fields.subnet_id = SubnetId(7);
        fields.hostname = b"host.example";
        fields
    }

    fn sample(number: u32) -> Self {
        Self::from_fields(<Self as Sample>::fields(number)).unwrap()
    }

    fn with(number: u32, change: impl FnOnce(&mut Fields<'static>)) -> Self {
        let mut fields = <Self as Sample>::fields(number);
        change(&mut fields);
        Self::from_fields(fields).unwrap()
    }
}

impl Sample for Lease4 {
    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xC000_0200 + number).into()
    }
}

impl Sample for Lease6 {
    fn address(number: u32) -> IpAddr {
        Ipv6Addr::from_bits(0x2001_0db8_0000_0000_0000_0000_0000_0000 + u128::from(number)).into()
    }
}

fn get<L: Sample>(session: &mut MySqlSession<L>, numbers: impl IntoIterator<Item = u32>) -> Vec<L> {
    let addresses: Vec<_> = numbers.into_iter().map(|number| L::sample(number).address()).collect();
    let mut leases = session.get(&addresses).unwrap();
    leases.sort_by_key(Lease::address);
    leases
}

fn insert<L: ManagedLease>(session: &mut MySqlSession<L>, leases: &[L]) -> Vec<bool> {
    session.write(&leases.iter().map(Write::Insert).collect::<Vec<_>>()).unwrap()
}

/// Batches of prepared and of literal statements.
fn inserts_add_what_has_no_row<L: Sample>(count: u32) {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<L>(&options);
    let leases: Vec<_> = (0..count).map(L::sample).collect();
    assert_eq!(insert(&mut session, &leases), vec![true; leases.len()]);
    assert_eq!(get(&mut session, 0..count), leases);
    let more: Vec<_> = (count - 1..2 * count).map(L::sample).collect();
    let mut expected = vec![true; more.len()];
    expected[0] = false;
    assert_eq!(insert(&mut session, &more), expected);
    assert_eq!(get(&mut session, 0..2 * count).len(), 2 * leases.len());
    assert_eq!(insert(&mut session, &leases), vec![false; leases.len()]);
}

#[rstest]
fn inserts_add_what_has_no_row4(#[values(1, 2, 3, 16, 100)] count: u32) {
    inserts_add_what_has_no_row::<Lease4>(count);
}

#[rstest]
fn inserts_add_what_has_no_row6(#[values(1, 2, 3, 16, 100)] count: u32) {
    inserts_add_what_has_no_row::<Lease6>(count);
}

fn changes_expect_values<L: Sample>(count: u32) {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<L>(&options);
    let leases: Vec<_> = (0..count).map(L::sample).collect();
    insert(&mut session, &leases);
    let renewed = |number| L::with(number, |fields| fields.cltt += 100);
    let new: Vec<_> = (0..count).map(renewed).collect();
    let updates = |new: &[L], expected: &[L], session: &mut MySqlSession<L>| {
        let pairs = new.iter().zip(expected);
        let updates: Vec<_> = pairs.map(|(new, expected)| Write::Update { new, expected }).collect();
        session.write(&updates).unwrap()
    };
    // Nothing has the values of the new leases yet.
    assert_eq!(updates(&new, &new, &mut session), vec![false; new.len()]);
    assert_eq!(get(&mut session, 0..count), leases);
    assert_eq!(updates(&new, &leases, &mut session), vec![true; new.len()]);
    // An update that changes nothing is made.
    assert_eq!(updates(&new, &new, &mut session), vec![true; new.len()]);
    assert_eq!(get(&mut session, 0..count), new);
    let mut mixed = new.clone();
    mixed[0] = leases[0].clone();
    let mut made = vec![true; new.len()];
    made[0] = false;
    assert_eq!(updates(&leases, &mixed, &mut session), made);
    let mut now = leases.clone();
    now[0] = new[0].clone();
    assert_eq!(get(&mut session, 0..count), now);
    let deletes = |leases: &[L], session: &mut MySqlSession<L>| {
        session.write(&leases.iter().map(Write::Delete).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(deletes(&leases, &mut session), made);
    assert_eq!(get(&mut session, 0..count), new[..1]);
    assert_eq!(deletes(&new[..1], &mut session), [true]);
    assert_eq!(deletes(&new, &mut session), vec![false; new.len()]);
}

#[rstest]
fn changes_expect_values4(#[values(1, 2, 3, 16, 70)] count: u32) {
    changes_expect_values::<Lease4>(count);
}

#[rstest]
fn changes_expect_values6(#[values(1, 2, 3, 16, 70)] count: u32) {
    changes_expect_values::<Lease6>(count);
}

fn mixed_batches<L: Sample>() {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<L>(&options);
    let old: Vec<_> = (0..8).map(L::sample).collect();
    insert(&mut session, &old[..6]);
    let new = |number| L::with(number, |fields| fields.hostname = b"new");
    let changes: Vec<_> = (0..8).map(new).collect();
    let batch = |wrong: usize| {
        let expected = |index: usize| if index == wrong { &changes[index] } else { &old[index] };
        vec![
            Write::Update { new: &changes[0], expected: expected(0) },
            Write::Delete(expected(1)),
            Write::Update { new: &changes[2], expected: expected(2) },
            Write::Delete(expected(3)),
            Write::Insert(&changes[6]),
            Write::Insert(if wrong == 9 { &changes[4] } else { &changes[7] }),
        ]
    };
    assert_eq!(session.write(&batch(8)).unwrap(), [true; 6]);
    let now = [&changes[0], &changes[2], &old[4], &old[5], &changes[6], &changes[7]];
    assert!(get(&mut session, 0..8).iter().eq(now));
    let mut session = empty::<L>(&options);
    insert(&mut session, &old[..6]);
    assert_eq!(session.write(&batch(2)).unwrap(), [true, true, false, true, true, true]);
    let mut session = empty::<L>(&options);
    insert(&mut session, &old[..6]);
    assert_eq!(session.write(&batch(9)).unwrap(), [true, true, true, true, true, false]);
    let now = [&changes[0], &changes[2], &old[4], &old[5], &changes[6]];
    assert!(get(&mut session, 0..8).iter().eq(now));
}

#[test]
fn mixed_batches_make_what_they_can() {
    mixed_batches::<Lease4>();
    mixed_batches::<Lease6>();
}

/// Leases of both families with values at their limits.
fn odd<L: Sample>() -> Vec<L> {
    static CONTEXT: &str = r#"{ "a": "it's \"quoted\" ? :p1 \\ " }"#;
    static LONG: [u8; 128] = [0xc3; 128];
    vec![
        L::with(0, |fields| fields.valid_lifetime = Lifetime::INFINITE),
        L::with(1, |fields| fields.hostname = "hö:st'\\".as_bytes()),
        L::with(2, |fields| fields.hostname = b""),
        L::with(3, |fields| fields.user_context = Some(CONTEXT)),
        L::with(4, |fields| {
            fields.hwaddr = Some(&[0xff; 20]);
            fields.hwtype = HwType(1);
        }),
        L::with(5, |fields| fields.client = Some(&LONG)),
        L::with(6, |fields| fields.cltt = i64::from(i32::MAX) - 3600),
        L::with(7, |fields| (fields.cltt, fields.valid_lifetime) = (1, Lifetime(0))),
        L::with(8, |fields| (fields.fqdn_fwd, fields.fqdn_rev) = (true, true)),
        L::with(9, |fields| fields.subnet_id = SubnetId(u32::MAX - 1)),
        L::with(10, |fields| fields.client = Some(&[b'\'', b'\\', 0, b'?', 0xff])),
    ]
}

fn odd_values<L: Sample>(mut leases: Vec<L>) {
    let Some((options, _guard)) = options() else { return };
    leases.sort_by_key(Lease::address);
    // As one batch, in pairs, and one by one.
    for size in [leases.len(), 2, 1] {
        let mut session = empty::<L>(&options);
        for leases in leases.chunks(size) {
            assert_eq!(insert(&mut session, leases), vec![true; leases.len()]);
        }
        let addresses: Vec<_> = leases.iter().map(Lease::address).collect();
        let mut found = session.get(&addresses).unwrap();
        found.sort_by_key(Lease::address);
        assert_eq!(found, leases);
        for leases in leases.chunks(size) {
            let updates: Vec<_> =
                leases.iter().map(|lease| Write::Update { new: lease, expected: lease }).collect();
            assert_eq!(session.write(&updates).unwrap(), vec![true; leases.len()], "{leases:?}");
        }
        for lease in &leases {
            let change = Write::Update { new: lease, expected: lease };
            assert!(session.write_compared(&change, &|found| found == lease).unwrap());
            assert!(!session.write_compared(&change, &|_| false).unwrap());
            assert!(!session.write_compared(&Write::Insert(lease), &|_| true).unwrap());
        }
        found = session.get(&addresses).unwrap();
        found.sort_by_key(Lease::address);
        assert_eq!(found, leases);
        for leases in leases.chunks(size) {
            let deletes: Vec<_> = leases.iter().map(Write::Delete).collect();
            assert_eq!(session.write(&deletes).unwrap(), vec![true; leases.len()]);
        }
    }
}

#[test]
fn odd_values4() {
    let mut leases = odd::<Lease4>();
    leases.push(Lease4::with(11, |fields| {
        (fields.client, fields.hwaddr) = (None, None);
        (fields.state, fields.hostname) = (LeaseState::DECLINED, b"");
    }));
    leases.push(Lease4::with(12, |fields| {
        fields.client = None;
        fields.hwaddr = Some(&[1, 2, 3, 4, 5, 6]);
    }));
    odd_values(leases);
}

#[test]
fn odd_values6() {
    let mut leases = odd::<Lease6>();
    leases.push(Lease6::with(11, |fields| {
        fields.client = Some(&[0, 0, 0]);
        fields.state = LeaseState::DECLINED;
    }));
    leases.push(Lease6::with(12, |fields| fields.iaid = Iaid(u32::MAX)));
    leases.push(Lease6::with(0x100, |fields| (fields.lease_type, fields.prefix_len) = (LeaseType::PD, 120)));
    leases.push(Lease6::with(13, |fields| {
        fields.hwaddr = Some(&[1]);
        (fields.hwtype, fields.hwaddr_source) = (HwType(u16::MAX), HwSource(128));
    }));
    leases.push(Lease6::with(14, |fields| fields.preferred_lifetime = Lifetime::INFINITE));
    odd_values(leases);
}

#[test]
fn hostnames_that_differ_in_case_only_are_other_values() {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<Lease4>(&options);
    let lower: Vec<_> = (0..3).map(Lease4::sample).collect();
    let named = |name| move |number| Lease4::with(number, |fields| fields.hostname = name);
    insert(&mut session, &lower);
    for other in [b"Host.example".as_slice(), b"host.example "] {
        let upper: Vec<_> = (0..3).map(named(other)).collect();
        let updates: Vec<_> =
            lower.iter().zip(&upper).map(|(new, expected)| Write::Update { new, expected }).collect();
        assert_eq!(session.write(&updates).unwrap(), [false; 3]);
        assert_eq!(session.write(&updates[..1]).unwrap(), [false]);
        assert_eq!(session.write(&updates[..2]).unwrap(), [false; 2]);
    }
    let context: Vec<_> =
        (0..2).map(|number| Lease4::with(number, |fields| fields.user_context = Some("{}"))).collect();
    let updates: Vec<_> =
        context.iter().zip(&lower).map(|(new, expected)| Write::Update { new, expected }).collect();
    assert_eq!(session.write(&updates).unwrap(), [true; 2]);
    assert_eq!(session.write(&updates).unwrap(), [false; 2]);
}

#[test]
fn null_and_empty_are_the_same_expected_value() {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<Lease4>(&options);
    let leases: Vec<_> = (0..2)
        .map(|number| Lease4::with(number, |fields| (fields.hostname, fields.state) = (b"", LeaseState(2))))
        .collect();
    for sql in
        ["UPDATE lease4 SET hostname = NULL, hwaddr = NULL", "UPDATE lease4 SET hostname = '', hwaddr = ''"]
    {
        insert(&mut session, &leases);
        assert_eq!(session.execute(sql, &[]).unwrap(), 2);
        assert_eq!(get(&mut session, 0..2), leases);
        let same: Vec<_> = leases.iter().map(|lease| Write::Update { new: lease, expected: lease }).collect();
        assert_eq!(session.write(&same).unwrap(), [true; 2]);
        session.execute(sql, &[]).unwrap();
        assert_eq!(session.write(&[Write::Delete(&leases[0])]).unwrap(), [true]);
        // The slow way compares in the same manner.
        let deletes = [Write::Delete(&leases[0]), Write::Delete(&leases[1])];
        assert_eq!(session.write(&deletes).unwrap(), [false, true]);
    }
}

#[test]
fn clients_are_found_in_their_subnets() {
    let Some((options, _guard)) = options() else { return };
    fn check<L: Sample>(options: &SqlOptions) {
        let mut session = empty::<L>(options);
        let client = |number: u32, id: &'static [u8], subnet| {
            L::with(number, |fields| (fields.client, fields.subnet_id) = (Some(id), SubnetId(subnet)))
        };
        let leases = [
            client(0, b"aaa", 1),
            client(1, b"aaa", 2),
            client(2, &[0xff, 0xfe, 0xfd], 1),
            client(3, b"AAA", 1),
        ];
        insert(&mut session, &leases);
        let mut find = |clients: &[(&[u8], u32)]| {
            let mut found = session.of_clients(ClientColumn::Id, clients).unwrap();
            found.sort_by_key(Lease::address);
            found
        };
        assert_eq!(find(&[(b"aaa", 1)]), [leases[0].clone()]);
        assert_eq!(
            find(&[(b"aaa", 2), (&[0xff, 0xfe, 0xfd], 1), (b"aaa", 2)]),
            [leases[1].clone(), leases[2].clone()]
        );
        assert_eq!(find(&[(b"bbb", 1), (b"AAA", 1)]), [leases[3].clone()]);
    }
    check::<Lease4>(&options);
    check::<Lease6>(&options);
}

/// The statements of the shared part, composed as it does.
#[test]
fn statements_of_the_dialect() {
    let Some((options, _guard)) = options() else { return };
    fn check<L: Sample>(options: &SqlOptions) {
        let mut session = empty::<L>(options);
        // In the order of the text, 2001:db8::10 is before 2001:db8::9.
        let mut leases: Vec<_> = [9, 0x10, 0x100].into_iter().map(L::sample).collect();
        leases[1] = L::with(0x10, |fields| fields.hostname = "HÉ".as_bytes());
        insert(&mut session, &leases);
        let table = columns::table(L::FAMILY);
        let mut sql = String::from("SELECT ");
        session.column(&mut sql, Column::Address);
        sql.push_str(", ");
        session.column(&mut sql, Column::Expire);
        sql.push_str(&format!(" FROM {table} WHERE "));
        let start = sql.clone();
        session.address_order(&mut sql);
        sql.push_str(" > ");
        session.placeholder(&mut sql, 1, Kind::Address);
        sql.push_str(" AND expire <= ");
        session.placeholder(&mut sql, 2, Kind::Time);
        sql.push_str(" ORDER BY ");
        session.address_order(&mut sql);
        sql.push_str(" LIMIT ");
        session.placeholder(&mut sql, 3, Kind::Number);
        let address = |number| Value::Address(<L as Sample>::address(number));
        let kinds = [Kind::Address, Kind::Time];
        let expire = 1_763_003_600;
        let mut find = |from, time, limit: i64| {
            let values = [address(from), Value::Time(time), Value::Number(limit)];
            session.query(&sql, &values, &kinds).unwrap()
        };
        let row = |number| vec![address(number), Value::Time(expire)];
        assert_eq!(find(8, expire, 2), [row(9), row(0x10)]);
        assert_eq!(find(9, expire, 9), [row(0x10), row(0x100)]);
        assert_eq!(find(9, i64::MAX, 9).len(), 2);
        assert!(find(9, expire - 1, 9).is_empty());
        assert!(find(9, -5, 9).is_empty());
        for (name, count) in [("host.example", 2), ("hé", 1), ("he", 0), ("host.example ", 0), ("日本", 0)]
        {
            let mut sql = start.clone();
            session.hostname_is(&mut sql, 1);
            let found = session.query(&sql, &[Value::Text(name.into())], &kinds).unwrap();
            assert_eq!(found.len(), count, "{name}");
        }
        let mut sql = format!("DELETE FROM {table} WHERE state = ");
        session.placeholder(&mut sql, 1, Kind::Number);
        sql.push_str(" LIMIT 2");
        assert_eq!(session.execute(&sql, &[Value::Number(0)]).unwrap(), 2);
        assert_eq!(session.execute(&sql, &[Value::Number(0)]).unwrap(), 1);
    }
    check::<Lease4>(&options);
    check::<Lease6>(&options);
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<Lease6>(&options);
    let late = Lease6::with(1, |fields| fields.cltt = i64::from(i32::MAX));
    assert_eq!(session.write(&[Write::Insert(&late)]).unwrap_err().kind, DbErrorKind::Refused);
    let source = Lease6::with(1, |fields| {
        fields.hwaddr = Some(&[1]);
        fields.hwaddr_source = HwSource(3);
    });
    assert_eq!(session.write(&[Write::Insert(&source)]).unwrap_err().kind, DbErrorKind::Refused);
    let good = Lease6::sample(0);
    let both = [Write::Insert(&good), Write::Insert(&source)];
    assert_eq!(session.write(&both).unwrap_err().kind, DbErrorKind::Refused);
    assert!(get(&mut session, 0..2).is_empty());
    let japanese = Lease6::with(1, |fields| fields.hostname = "日本".as_bytes());
    let result = session.write(&[Write::Insert(&japanese)]);
    // A table in UTF-8 accepts it.
    assert!(
        result.is_err_and(|error| error.kind == DbErrorKind::Refused) || get(&mut session, [1]).len() == 1
    );
}

#[test]
fn a_transaction_that_waits_for_another_is_a_conflict() {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<Lease4>(&options);
    let mut other = connect::<Lease4>(&options);
    let leases = [Lease4::sample(0), Lease4::sample(1)];
    insert(&mut session, &leases);
    other.execute("SET innodb_lock_wait_timeout = 1", &[]).unwrap();
    let begin = "START TRANSACTION";
    ::mysql::prelude::Queryable::query_drop(&mut session.connection, begin).unwrap();
    session.execute("UPDATE lease4 SET state = 1", &[]).unwrap();
    let deletes = [Write::Delete(&leases[0]), Write::Delete(&leases[1])];
    assert_eq!(other.write(&deletes).unwrap_err().kind, DbErrorKind::Conflict);
    drop(session);
    assert_eq!(other.write(&deletes).unwrap(), [true; 2]);
}

#[test]
fn a_session_that_is_killed_makes_no_changes() {
    let Some((options, _guard)) = options() else { return };
    let mut session = empty::<Lease4>(&options);
    let mut other = connect::<Lease4>(&options);
    let lease = Lease4::sample(0);
    for several in [false, true] {
        let kill = format!("KILL {}", session.connection.connection_id());
        ::mysql::prelude::Queryable::query_drop(&mut other.connection, kill).unwrap();
        let result = if several {
            session.write(&[Write::Insert(&lease), Write::Delete(&lease)]).map(drop)
        } else {
            session.get(&[lease.address()]).map(drop)
        };
        assert_eq!(result.unwrap_err().kind, DbErrorKind::Ended);
        assert!(session.has_ended(Duration::from_secs(1)));
        session = connect::<Lease4>(&options);
        assert!(!session.has_ended(Duration::from_secs(1)));
    }
}

#[test]
fn sessions_that_cannot_be_opened() {
    let Some((options, _guard)) = options() else { return };
    let kind = |options: &SqlOptions| {
        let error = Driver::<Lease4>::connect(&MySql, options).unwrap_err();
        let text = crate::with_sources(&error).to_string();
        println!("{text}");
        assert!(!text.contains("wrong"), "{text}");
        error.kind
    };
    let wrong = SqlOptions { password: Some("wrong".into()), ..options.clone() };
    assert_eq!(kind(&wrong), DbErrorKind::Other);
    let unknown = SqlOptions { database: "nothing".into(), ..options.clone() };
    assert_eq!(kind(&unknown), DbErrorKind::Other);
    let empty = SqlOptions { database: "information_schema".into(), ..options.clone() };
    assert_eq!(kind(&empty), DbErrorKind::Other);
    let gone = SqlOptions {
        hosts: vec!["/nothing/socket".into(), "127.0.0.1".into()],
        port: Some(1),
        ..options.clone()
    };
    assert_eq!(kind(&gone), DbErrorKind::NotConnected);
    let mut hosts = vec!["/nothing/socket".to_owned()];
    hosts.extend(options.hosts.iter().cloned());
    connect::<Lease4>(&SqlOptions { hosts, ..options.clone() });
    let readonly = SqlOptions { readonly: true, ..options.clone() };
    let mut session = connect::<Lease4>(&readonly);
    let lease = Lease4::sample(0);
    assert_eq!(session.write(&[Write::Insert(&lease)]).unwrap_err().kind, DbErrorKind::ReadOnly);
}
