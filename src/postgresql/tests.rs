//! Tests with a server: that of the connection string in `LEASEMGR_TEST_POSTGRESQL`, whose database
//! has Kea's schema and no rows that matter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};
use std::{env, fmt, thread};

use super::PostgreSql;
use super::session::PostgreSqlSession;
use crate::connection::ConnectionString;
use crate::lease::{
    Family, Fields, HwSource, HwType, Iaid, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId,
};
use crate::lease_mgr::ManagedLease;
use crate::sql::columns::{Column, Kind, Value};
use crate::sql::driver::{ClientColumn, DbErrorKind, Dialect, Driver, Session, Write};
use crate::sql::options::SqlOptions;

const VARIABLE: &str = "LEASEMGR_TEST_POSTGRESQL";

/// The time at which the clients were heard.
const NOW: i64 = 1_763_000_000;

/// Returns the options of the server, with others added; `None` if there is no server.
fn options(added: &str) -> Option<SqlOptions> {
    let Ok(connection) = env::var(VARIABLE) else {
        println!("skipped: {VARIABLE} is not set");
        return None;
    };
    let connection: ConnectionString = format!("{connection} {added}").parse().unwrap();
    Some(SqlOptions::read(&connection).unwrap())
}

fn open<L: ManagedLease>(options: &SqlOptions) -> PostgreSqlSession<L> {
    Driver::<L>::connect(&PostgreSql::default(), options).unwrap()
}

/// Opens a session, and deletes the rows of a subnet.
fn session<L: ManagedLease>(subnet: u32) -> Option<PostgreSqlSession<L>> {
    let mut session = open::<L>(&options("")?);
    let table = if L::FAMILY == Family::V4 { "lease4" } else { "lease6" };
    let sql = format!("DELETE FROM {table} WHERE subnet_id = $1");
    session.execute(&sql, &[Value::Number(subnet.into())]).unwrap();
    Some(session)
}

fn address(family: Family, subnet: u32, number: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(10 << 24 | subnet << 16 | u32::from(number)).into(),
        Family::V6 => {
            let subnet = u16::try_from(subnet).unwrap();
            Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, number).into()
        }
    }
}

/// Returns a lease after a change of its fields.
fn lease_with<L: ManagedLease>(subnet: u32, number: u16, change: impl FnOnce(&mut Fields<'_>)) -> L {
    let mut fields = Fields::new(address(L::FAMILY, subnet, number));
    fields.cltt = NOW;
    fields.valid_lifetime = Lifetime(3600);
    fields.subnet_id = SubnetId(subnet);
    let client = [1, 2, 3, 4, 5, u8::try_from(number & 255).unwrap()];
    fields.client = Some(&client);
    change(&mut fields);
    L::from_fields(fields).unwrap()
}

fn lease<L: ManagedLease>(subnet: u32, number: u16) -> L {
    lease_with(subnet, number, |_| {})
}

/// Returns the leases of a subnet in the order of their addresses.
fn all<L: ManagedLease>(session: &mut PostgreSqlSession<L>, subnet: u32) -> Vec<L> {
    let addresses: Vec<_> = (0..600).map(|number| lease::<L>(subnet, number).address()).collect();
    let mut leases = session.get(&addresses).unwrap();
    leases.sort_by_key(L::address);
    leases
}

#[track_caller]
fn assert_leases<L: ManagedLease + fmt::Debug>(
    session: &mut PostgreSqlSession<L>,
    subnet: u32,
    expected: &[&L],
) {
    let all = all(session, subnet);
    assert_eq!(all.iter().collect::<Vec<_>>(), expected);
    for &lease in expected {
        assert_eq!(session.get(&[lease.address()]).unwrap(), std::slice::from_ref(lease));
    }
}

fn changes_are_made_as_asked<L: ManagedLease>() {
    let Some(mut session) = session::<L>(1) else { return };
    let session = &mut session;
    let old: Vec<L> = (0..5).map(|number| lease(1, number)).collect();
    let new: Vec<L> =
        (0..5).map(|number| lease_with(1, number, |fields| fields.hostname = b"new.example")).collect();
    let [a, b, c, d, e] = old.as_slice() else { panic!() };
    let [new_a, new_b, new_c, ..] = new.as_slice() else { panic!() };
    // Alone and together; what is there is not replaced.
    assert!(session.write(&[]).unwrap().is_empty());
    assert_eq!(session.write(&[Write::Insert(b)]).unwrap(), [true]);
    assert_eq!(session.write(&[Write::Insert(new_b)]).unwrap(), [false]);
    assert_eq!(
        session.write(&[Write::Insert(a), Write::Insert(new_b), Write::Insert(c)]).unwrap(),
        [true, false, true]
    );
    assert_leases(session, 1, &[a, b, c]);
    // Only the expected row is changed.
    let update = |new, expected| Write::Update { new, expected };
    assert_eq!(session.write(&[update(new_a, new_a)]).unwrap(), [false]);
    assert_eq!(session.write(&[update(new_a, a)]).unwrap(), [true]);
    assert_eq!(session.write(&[update(new_a, a)]).unwrap(), [false]);
    assert_eq!(
        session.write(&[update(a, new_a), update(new_b, new_b), update(new_c, c), update(d, d)]).unwrap(),
        [true, false, true, false]
    );
    assert_leases(session, 1, &[a, b, new_c]);
    assert_eq!(session.write(&[Write::Delete(new_a)]).unwrap(), [false]);
    assert_eq!(session.write(&[Write::Delete(a)]).unwrap(), [true]);
    assert_eq!(session.write(&[Write::Delete(new_b), Write::Delete(new_c)]).unwrap(), [false, true]);
    assert_leases(session, 1, &[b]);
    // All kinds in one transaction.
    let mixed = [Write::Insert(a), update(new_b, b), Write::Delete(c), Write::Insert(d), Write::Insert(e)];
    assert_eq!(session.write(&mixed).unwrap(), [true, true, false, true, true]);
    assert_leases(session, 1, &[a, new_b, d, e]);
    // A lease that the database refuses, by a foreign key.
    let refused: L = lease_with(1, 2, |fields| fields.state = LeaseState(77));
    for changes in [
        vec![Write::Insert(&refused)],
        vec![Write::Delete(a), Write::Insert(&refused)],
        vec![Write::Insert(c), update(&refused, d)],
    ] {
        assert_eq!(session.write(&changes).unwrap_err().kind, DbErrorKind::Refused);
        assert_leases(session, 1, &[a, new_b, d, e]);
    }
    // Rows that are compared as leases.
    let is_a = |lease: &L| lease == a;
    assert!(!session.write_compared(&Write::Insert(a), &|_| true).unwrap());
    assert!(session.write_compared(&Write::Insert(c), &|_| true).unwrap());
    assert!(!session.write_compared(&update(new_a, new_a), &|_| false).unwrap());
    assert!(session.write_compared(&update(new_a, new_a), &is_a).unwrap());
    assert!(!session.write_compared(&Write::Delete(a), &is_a).unwrap());
    assert!(session.write_compared(&Write::Delete(a), &|_| true).unwrap());
    assert!(!session.write_compared(&Write::Delete(a), &|_| true).unwrap());
    let error = session.write_compared(&update(&refused, c), &|_| true).unwrap_err();
    assert_eq!(error.kind, DbErrorKind::Refused);
    assert_leases(session, 1, &[new_b, c, d, e]);
}

#[test]
fn changes_are_made_as_asked_v4() {
    changes_are_made_as_asked::<Lease4>();
}

#[test]
fn changes_are_made_as_asked_v6() {
    changes_are_made_as_asked::<Lease6>();
}

fn leases_are_read_as_they_were_written<L: ManagedLease>(odd: &[L]) {
    let Some(mut session) = session::<L>(2) else { return };
    let session = &mut session;
    let mut expected: Vec<&L> = odd.iter().collect();
    expected.sort_by_key(|lease| lease.address());
    for many in [false, true] {
        if many {
            let inserts: Vec<_> = expected.iter().map(|&lease| Write::Insert(lease)).collect();
            assert_eq!(session.write(&inserts).unwrap(), vec![true; odd.len()]);
        } else {
            for lease in &expected {
                assert_eq!(session.write(&[Write::Insert(lease)]).unwrap(), [true]);
            }
        }
        assert_leases(session, 2, &expected);
        let updates: Vec<_> =
            expected.iter().map(|&lease| Write::Update { new: lease, expected: lease }).collect();
        assert_eq!(session.write(&updates).unwrap(), vec![true; odd.len()]);
        for update in updates {
            assert_eq!(session.write(&[update]).unwrap(), [true]);
        }
        assert_leases(session, 2, &expected);
        let deletes: Vec<_> = expected.iter().map(|&lease| Write::Delete(lease)).collect();
        assert_eq!(session.write(&deletes).unwrap(), vec![true; odd.len()]);
        assert_leases(session, 2, &[]);
    }
}

fn declined(fields: &mut Fields<'_>) {
    fields.state = LeaseState::DECLINED;
    fields.client = (fields.address.is_ipv6()).then_some(&[0, 0, 0]);
}

#[test]
fn leases_are_read_as_they_were_written_v4() {
    leases_are_read_as_they_were_written::<Lease4>(&[
        lease(2, 0),
        lease_with(2, 1, declined),
        lease_with(2, 2, |fields| {
            fields.hwaddr = Some(&[8; 20]);
            fields.client = None;
        }),
        lease_with(2, 3, |fields| {
            fields.valid_lifetime = Lifetime::INFINITE;
            fields.client = Some(&[9; 255]);
            fields.hostname = "höst.example".as_bytes();
            (fields.fqdn_fwd, fields.fqdn_rev) = (true, true);
        }),
        lease_with(2, 4, |fields| fields.user_context = Some(r#"{ "a": [ 1, "\"x\\" ] }"#)),
        lease_with(2, 5, |fields| fields.cltt = 5_000_000_000),
        lease_with(2, 6, |fields| (fields.cltt, fields.valid_lifetime) = (0, Lifetime(0))),
    ]);
}

#[test]
fn leases_are_read_as_they_were_written_v6() {
    leases_are_read_as_they_were_written::<Lease6>(&[
        lease_with(2, 0, |fields| fields.iaid = Iaid(u32::MAX)),
        lease_with(2, 1, declined),
        lease_with(2, 2, |fields| {
            fields.hwaddr = Some(&[8, 0, 39, 0, 0, 1]);
            (fields.hwtype, fields.hwaddr_source) = (HwType(6), HwSource(2));
            fields.iaid = Iaid(1 << 31);
        }),
        lease_with(2, 256, |fields| {
            (fields.lease_type, fields.prefix_len) = (LeaseType::PD, 120);
            fields.valid_lifetime = Lifetime::INFINITE;
            fields.preferred_lifetime = Lifetime::INFINITE;
        }),
        lease_with(2, 4, |fields| {
            fields.client = Some(&[7; 130]);
            fields.iaid = Iaid(i32::MAX as u32);
            fields.user_context = Some(r#"{ "a": null }"#);
            (fields.fqdn_fwd, fields.fqdn_rev) = (false, true);
        }),
    ]);
}

fn leases_of_clients_are_found<L: ManagedLease>() {
    let Some(mut session) = session::<L>(3) else { return };
    let leases: Vec<L> = (0..3).map(|number| lease(3, number)).collect();
    session.write(&leases.iter().map(Write::Insert).collect::<Vec<_>>()).unwrap();
    let client = |number| [1, 2, 3, 4, 5, number];
    assert_eq!(session.of_clients(ClientColumn::Id, &[]).unwrap(), []);
    assert_eq!(session.of_clients(ClientColumn::Id, &[(&client(1), 3)]).unwrap(), leases[1..2]);
    assert_eq!(session.of_clients(ClientColumn::Id, &[(&client(1), 99)]).unwrap(), []);
    let pairs: [(&[u8], u32); 4] = [(&client(2), 3), (&client(1), 98), (&client(0), 3), (&client(9), 3)];
    let mut found = session.of_clients(ClientColumn::Id, &pairs).unwrap();
    found.sort_by_key(L::address);
    assert_eq!(found, [leases[0].clone(), leases[2].clone()]);
}

#[test]
fn leases_of_clients_are_found_v4() {
    leases_of_clients_are_found::<Lease4>();
}

#[test]
fn leases_of_clients_are_found_v6() {
    leases_of_clients_are_found::<Lease6>();
}

fn pages_are_in_the_order_of_addresses<L: ManagedLease>() {
    let Some(mut session) = session::<L>(4) else { return };
    let leases: Vec<L> = [9, 16, 255, 256, 300].map(|number| lease(4, number)).to_vec();
    session.write(&leases.iter().map(Write::Insert).collect::<Vec<_>>()).unwrap();
    let columns = Column::of(L::FAMILY, session.schema());
    let table = if L::FAMILY == Family::V4 { "lease4" } else { "lease6" };
    let mut sql = "SELECT ".to_owned();
    for (index, &column) in columns.iter().enumerate() {
        sql.push_str(if index == 0 { "" } else { ", " });
        session.column(&mut sql, column);
    }
    sql.push_str(&format!(" FROM {table} WHERE subnet_id = "));
    session.placeholder(&mut sql, 1, Kind::Number);
    sql.push_str(" AND ");
    session.address_order(&mut sql);
    sql.push_str(" > ");
    session.placeholder(&mut sql, 2, Kind::Address);
    sql.push_str(" AND expire > ");
    session.placeholder(&mut sql, 3, Kind::Time);
    sql.push_str(" ORDER BY ");
    session.address_order(&mut sql);
    sql.push_str(" LIMIT 3");
    let kinds: Vec<_> = columns.iter().map(|column| column.kind()).collect();
    let values = [Value::Number(4), Value::Address(leases[0].address().into()), Value::Time(NOW)];
    let rows = session.query(&sql, &values, &kinds).unwrap();
    let page: Vec<L> = rows.iter().map(|row| crate::sql::columns::lease(&columns, row).unwrap()).collect();
    assert_eq!(page, leases[1..4]);
    let mut sql =
        format!("SELECT count(*), sum(subnet_id), max(hostname) FROM {table} WHERE subnet_id = 4 AND ");
    session.hostname_is(&mut sql, 1);
    let kinds = [Kind::Number, Kind::Number, Kind::Text];
    let rows = session.query(&sql, &[Value::Text("x".into())], &kinds).unwrap();
    assert_eq!(rows, [[Value::Number(0), Value::Null, Value::Null]]);
    // Another subnet may have used the statement before: the answers are of these values.
    let sql = format!("SELECT count(*), sum(subnet_id) FROM {table} WHERE subnet_id = $1");
    let rows = session.query(&sql, &[Value::Number(4)], &kinds[..2]).unwrap();
    assert_eq!(rows, [[Value::Number(5), Value::Number(20)]]);
    session.query("SELECT nothing", &[], &[]).unwrap_err();
    assert_eq!(session.query(&sql, &[Value::Number(4)], &kinds[..2]).unwrap(), rows);
}

#[test]
fn pages_are_in_the_order_of_addresses_v4() {
    pages_are_in_the_order_of_addresses::<Lease4>();
}

#[test]
fn pages_are_in_the_order_of_addresses_v6() {
    pages_are_in_the_order_of_addresses::<Lease6>();
}

/// Returns the number of the server's process of a session.
fn process<L: ManagedLease>(session: &mut PostgreSqlSession<L>) -> Value<'static> {
    session.query("SELECT pg_backend_pid()", &[], &[Kind::Number]).unwrap().remove(0).remove(0)
}

#[test]
fn an_ended_session_makes_no_changes() {
    let Some(mut session) = session::<Lease4>(5) else { return };
    assert!(!session.has_ended(Duration::ZERO));
    let process = process(&mut session);
    let mut other = self::session::<Lease4>(5).unwrap();
    other.query("SELECT pg_terminate_backend($1)", std::slice::from_ref(&process), &[Kind::Flag]).unwrap();
    let start = Instant::now();
    while !session.has_ended(Duration::ZERO) {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(1));
    }
    let error = session.write(&[Write::Insert(&lease(5, 1))]).unwrap_err();
    assert_eq!(error.kind, DbErrorKind::Ended, "{error}");
    assert_eq!(session.get(&[[10, 5, 0, 1].into()]).unwrap_err().kind, DbErrorKind::Ended);
    assert_eq!(other.get(&[[10, 5, 0, 1].into()]).unwrap(), []);
}

#[test]
fn a_statement_without_an_answer_is_lost_after_the_timeout() {
    let Some(options) = options("read-timeout=1") else { return };
    let mut session = open::<Lease4>(&options);
    let start = Instant::now();
    let error = session.query("SELECT count(pg_sleep(30))", &[], &[Kind::Number]).unwrap_err();
    assert_eq!(error.kind, DbErrorKind::Lost);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(session.query("SELECT 1", &[], &[Kind::Number]).unwrap_err().kind, DbErrorKind::Ended);
}

#[test]
fn a_change_in_a_statement_that_was_ended_is_lost() {
    let Some(mut session) = session::<Lease4>(6) else { return };
    let process = process(&mut session);
    let mut locker = self::session::<Lease4>(6).unwrap();
    locker.execute("SELECT pg_advisory_lock(6)", &[]).unwrap();
    let waiter = thread::spawn(move || session.execute("SELECT pg_advisory_lock(6)", &[]).unwrap_err().kind);
    thread::sleep(Duration::from_millis(200));
    locker.query("SELECT pg_terminate_backend($1)", &[process], &[Kind::Flag]).unwrap();
    assert_eq!(waiter.join().unwrap(), DbErrorKind::Lost);
}

#[test]
fn a_read_only_session_makes_no_changes() {
    let Some(mut session) = session::<Lease4>(7) else { return };
    session.write(&[Write::Insert(&lease(7, 1))]).unwrap();
    let mut read_only = open::<Lease4>(&options("readonly=true").unwrap());
    assert_eq!(read_only.get(&[[10, 7, 0, 1].into()]).unwrap(), [lease(7, 1)]);
    let changes = [lease(7, 2), lease(7, 3)];
    let changes: Vec<_> = changes.iter().map(Write::Insert).collect();
    assert_eq!(read_only.write(&changes).unwrap_err().kind, DbErrorKind::ReadOnly);
    assert_eq!(read_only.write(&changes[..1]).unwrap_err().kind, DbErrorKind::ReadOnly);
    assert_leases(&mut session, 7, &[&lease(7, 1)]);
}

#[test]
fn what_refuses_a_session_is_told() {
    let Some(options) = options("connect-timeout=2") else { return };
    let kind = |change: &dyn Fn(&mut SqlOptions)| {
        let mut options = options.clone();
        change(&mut options);
        let error = Driver::<Lease4>::connect(&PostgreSql::default(), &options).unwrap_err();
        println!("{}", crate::with_sources(&error));
        error.kind
    };
    assert_eq!(kind(&|options| options.port = Some(1)), DbErrorKind::NotConnected);
    assert_eq!(kind(&|options| options.hosts = vec!["/nowhere".into()]), DbErrorKind::NotConnected);
    assert_eq!(kind(&|options| options.hosts = vec!["no.invalid".into()]), DbErrorKind::NotConnected);
    assert_eq!(kind(&|options| options.password = Some("wrong".into())), DbErrorKind::Other);
    assert_eq!(kind(&|options| options.password = None), DbErrorKind::Other);
    assert_eq!(kind(&|options| options.database = "missing".into()), DbErrorKind::Other);
    // The first host that accepts the session is used.
    let mut hosts = options.clone();
    hosts.hosts.insert(0, "/nowhere".into());
    open::<Lease4>(&hosts);
}

#[test]
fn a_session_works_in_a_thread_of_a_runtime() {
    let Some(options) = options("") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let task =
        runtime.spawn(async move { open::<Lease4>(&options).get(&[[10, 8, 0, 1].into()]).unwrap().len() });
    assert_eq!(runtime.block_on(task).unwrap(), 0);
}
