//! Copies of the partner's leases, with a partner that gives the answers that were recorded of
//! Kea, and odd ones.

#![expect(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use leasemgr::ha::{
    Config, Copied, CopyError, Copying, Decision, Dialect, Event, Heartbeat, Machine, Partner, State, Time,
    Via, copy_leases, store,
};
use leasemgr::lease::{Duid, Family, HwAddr, Lease, Lease4, Lease6, LeaseState};
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease, Query};
use rstest::rstest;
use serde::Serialize;
use serde_json::{Value, json};

const NOW: i64 = 1_790_000_000;

/// A partner with these leases, which gives another answer to one of the commands.
struct Fake<L> {
    leases: Vec<L>,
    /// The command, how often it is answered well before, and the answer; none if it is null.
    odd: Option<(&'static str, usize, Value)>,
    commands: Vec<String>,
}

impl<L> Fake<L> {
    fn new(leases: Vec<L>) -> Self {
        Self { leases, odd: None, commands: Vec::new() }
    }
}

impl<L: Lease + Serialize> Partner for Fake<L> {
    type Error = io::Error;

    fn send(&mut self, body: &[u8]) -> Result<Vec<u8>, io::Error> {
        let request: Value = serde_json::from_slice(body).unwrap();
        let command = request["command"].as_str().unwrap().to_owned();
        self.commands.push(command.clone());
        if let Some((name, times, answer)) = &mut self.odd
            && *name == command
        {
            if *times == 0 {
                return match answer {
                    Value::Null => Err(io::ErrorKind::TimedOut.into()),
                    answer => Ok(json!([answer]).to_string().into_bytes()),
                };
            }
            *times -= 1;
        }
        let answer = match command.as_str() {
            "ha-heartbeat" => json!({ "result": 0, "arguments": {
                "state": "ready", "date-time": "Wed, 25 Nov 2026 21:46:37 GMT", "unsent-update-count": 7,
            }}),
            "lease4-get-page" | "lease6-get-page" => {
                let from: Option<IpAddr> = request["arguments"]["from"].as_str().unwrap().parse().ok();
                let limit = usize::try_from(request["arguments"]["limit"].as_u64().unwrap()).unwrap();
                let is_after = |lease: &&L| from.is_none_or(|from| lease.address().into() > from);
                let page: Vec<_> = self.leases.iter().filter(is_after).take(limit).collect();
                let result = if page.is_empty() { 3 } else { 0 };
                json!({ "result": result, "arguments": { "count": page.len(), "leases": page } })
            }
            _ => json!({ "result": 0 }),
        };
        Ok(json!([answer]).to_string().into_bytes())
    }
}

fn config() -> Config {
    Config::parse(
        br#"[{ "this-server-name": "b", "mode": "hot-standby", "sync-page-limit": 3, "peers": [
            { "name": "a", "url": "http://192.0.2.1:8000/", "role": "primary" },
            { "name": "b", "url": "http://192.0.2.2:8000/", "role": "standby" } ] }]"#,
    )
    .unwrap()
}

fn open<L: ManagedLease>(leases: &[L]) -> Arc<dyn LeaseMgr<L>> {
    let manager = LeaseMgrFactory::<L>::new().open("type=memfile persist=false").unwrap();
    for lease in leases {
        let _ = manager.add(lease).unwrap();
    }
    manager
}

fn all<L: ManagedLease>(leases: &dyn LeaseMgr<L>) -> Vec<L> {
    leases.find(&Query::all()).unwrap()
}

fn lease(host: u8, client: u8, age: i64) -> Lease4 {
    let builder = Lease4::builder([192, 0, 2, host].into()).client(HwAddr::from([2, 0, 0, 0, 0, client]));
    builder.subnet(1).lifetime(1000).cltt(NOW - age).build().unwrap()
}

fn copy(
    partner: &mut Fake<Lease4>,
    own: &dyn LeaseMgr<Lease4>,
    copying: Copying,
) -> Result<Copied, CopyError> {
    copy_leases(partner, own, &config(), Dialect::Current, copying, || NOW)
}

#[test]
fn all_pages_are_copied() {
    let leases: Vec<_> = (1..=7).map(|host| lease(host, host, 5)).collect();
    let (mut partner, own) = (Fake::new(leases.clone()), open(&[]));
    let copied = copy(&mut partner, &*own, Copying::Disabled).unwrap();
    assert_eq!((copied.read, copied.taken, copied.unsent_update_count), (7, 7, Some(7)));
    assert_eq!(all(&*own), leases);
    let page = "lease4-get-page";
    let off = "dhcp-disable";
    assert_eq!(
        partner.commands,
        [off, "ha-heartbeat", page, off, page, off, page, "ha-sync-complete-notify"]
    );

    // A full page is not the last.
    let mut partner = Fake::new(leases.get(..6).unwrap().to_vec());
    let copied = copy(&mut partner, &*own, Copying::Enabled).unwrap();
    assert_eq!((copied.read, copied.taken), (6, 0));
    assert_eq!(partner.commands, ["ha-heartbeat", page, page, page]);
}

#[test]
fn the_newer_lease_remains() {
    let own =
        [lease(1, 1, 9), lease(2, 2, 5), lease(3, 3, 7), lease(4, 9, 5), lease(5, 9, 9), lease(9, 9, 9)];
    let theirs = [lease(1, 1, 5), lease(2, 2, 9), lease(3, 3, 7), lease(4, 4, 9), lease(5, 5, 5)];
    let (mut partner, manager) = (Fake::new(theirs.to_vec()), open(&own));
    let copied = copy(&mut partner, &*manager, Copying::Disabled).unwrap();
    assert_eq!((copied.taken, copied.conflicts.replaced, copied.conflicts.kept), (2, 1, 1));
    let remaining = all(&*manager);
    let [_, second, third, fourth, _, last] = own;
    let [first, _, _, _, fifth] = theirs;
    assert_eq!(remaining, [first, second, third, fourth, fifth, last]);
}

#[test]
fn leases_of_dhcpv6_are_copied() {
    let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]).unwrap();
    let address = Lease6::builder("2001:db8::1".parse().unwrap()).client(duid.clone(), 1);
    let prefix = Lease6::prefix_builder("2001:db8:8::".parse().unwrap(), 56).client(duid, 2);
    let leases = vec![
        address.subnet(1).lifetime(600).cltt(NOW).build().unwrap(),
        prefix.subnet(1).lifetime(600).cltt(NOW).build().unwrap(),
    ];
    let (mut partner, own) = (Fake::new(leases.clone()), open::<Lease6>(&[]));
    let copying = Copying::Enabled;
    let copied = copy_leases(&mut partner, &*own, &config(), Dialect::Kea22, copying, || NOW).unwrap();
    assert_eq!((Lease6::FAMILY, copied.taken), (Family::V6, 2));
    assert_eq!(all(&*own), leases);
    assert_eq!(partner.commands, ["ha-heartbeat", "lease6-get-page"]);
}

/// As recorded of Kea: what follows each odd answer.
#[rstest]
#[case::disabled_1("dhcp-disable", 0, json!({ "result": 1 }), &["dhcp-disable"])]
#[case::disabled_2("dhcp-disable", 0, json!({ "result": 2 }), &["dhcp-disable"])]
#[case::unreachable("dhcp-disable", 0, Value::Null, &["dhcp-disable"])]
#[case::page_1("lease4-get-page", 0, json!({ "result": 1 }),
    &["dhcp-disable", "ha-heartbeat", "lease4-get-page", "dhcp-enable"])]
#[case::page_without_leases("lease4-get-page", 0, json!({ "result": 3 }),
    &["dhcp-disable", "ha-heartbeat", "lease4-get-page", "dhcp-enable"])]
#[case::second_page("lease4-get-page", 1, Value::Null,
    &["dhcp-disable", "ha-heartbeat", "lease4-get-page", "dhcp-disable", "lease4-get-page", "dhcp-enable"])]
#[case::notify_1("ha-sync-complete-notify", 0, json!({ "result": 1 }),
    &["dhcp-disable", "ha-heartbeat", "lease4-get-page", "dhcp-disable", "lease4-get-page",
      "ha-sync-complete-notify", "dhcp-enable"])]
fn a_failure_enables_the_service(
    #[case] command: &'static str,
    #[case] times: usize,
    #[case] answer: Value,
    #[case] commands: &[&str],
) {
    let mut partner = Fake::new((1..=5).map(|host| lease(host, host, 5)).collect());
    let is_silent = answer.is_null();
    partner.odd = Some((command, times, answer));
    let error = copy(&mut partner, &*open(&[]), Copying::Disabled).unwrap_err();
    assert_eq!(matches!(error, CopyError::Unreachable(_)), is_silent, "{error}");
    assert_eq!(partner.commands, commands);
}

#[test]
fn a_partner_that_knows_no_notification_is_enabled() {
    let mut partner = Fake::new(vec![lease(1, 1, 5)]);
    partner.odd = Some(("ha-sync-complete-notify", 0, json!({ "result": 2 })));
    copy(&mut partner, &*open(&[]), Copying::Disabled).unwrap();
    assert_eq!(partner.commands.last().unwrap(), "dhcp-enable");
}

#[test]
fn pages_come_to_an_end() {
    let page: Vec<_> = (1..=3).map(|host| lease(host, host, 5)).collect();
    let mut partner = Fake::new(page.clone());
    partner.odd = Some(("lease4-get-page", 0, json!({ "result": 0, "arguments": { "leases": page } })));
    let error = copy(&mut partner, &*open(&[]), Copying::Enabled).unwrap_err();
    assert_eq!(error.to_string(), "the page after 192.0.2.3 ends with 192.0.2.3, expected a later address");
}

#[test]
fn invalid_leases_are_skipped() {
    let leases = json!([lease(1, 1, 5), { "ip-address": "192.0.2.2" }, 5]);
    let mut partner = Fake::new(Vec::new());
    let page = json!({ "result": 0, "arguments": { "leases": leases } });
    partner.odd = Some(("lease4-get-page", 0, page));
    let own = open(&[]);
    let error = copy(&mut partner, &*own, Copying::Enabled).unwrap_err();
    assert!(matches!(error, CopyError::Endless { .. }), "a full page without an address at its end: {error}");
    assert_eq!(all(&*own).len(), 1);
}

#[test]
fn a_change_is_stored_unless_a_newer_lease_is_there() {
    let own = open(&[lease(1, 1, 5)]);
    let put = |lease: &Lease4| store(&*own, lease, Via::Update, NOW, true).unwrap();
    assert_eq!(put(&lease(2, 2, 5)), Decision::Add);
    assert_eq!(put(&lease(1, 1, 4)), Decision::Replace);
    assert_eq!(put(&lease(1, 1, 5)), Decision::Keep);
    assert_eq!(put(&lease(1, 3, 5)), Decision::KeepOther);
    let mut released = lease(1, 1, 3);
    released.set_state(LeaseState::RELEASED).unwrap();
    assert_eq!(put(&released), Decision::Replace);
    assert_eq!(put(&lease(1, 3, 5)), Decision::ReplaceOther);
    assert_eq!(own.get([192, 0, 2, 1].into()).unwrap(), Some(lease(1, 3, 5)));
}

/// As recorded of Kea 3.3.1 (`hs-clock-skew-40`).
#[test]
fn the_status_has_keas_form() {
    let at = |seconds: u64| Time { monotonic: Duration::from_secs(seconds), wall: 1_795_643_355 };
    let mut machine = Machine::new(config(), at(0), 0);
    let remote = |machine: &Machine, seconds| machine.status(at(seconds))[0]["ha-servers"]["remote"].clone();
    assert_eq!(remote(&machine, 3)["last-state"], "unavailable");
    assert_eq!(remote(&machine, 3)["in-touch"], false);
    let _ = machine.handle(at(10), Event::Tick);
    let answer = Heartbeat {
        state: State::Ready,
        date_time: 1_795_643_315,
        scopes: vec!["a".to_owned()],
        unsent_update_count: None,
    };
    let _ = machine.handle(at(10), Event::HeartbeatAnswered(answer));
    let expected = json!([{ "ha-mode": "hot-standby", "ha-servers": {
        "local": { "role": "standby", "scopes": [], "server-name": "b", "state": "syncing",
            "system-time": "2026-11-25 21:49:15" },
        "remote": { "age": 2, "analyzed-packets": 0, "clock-skew": -40, "communication-interrupted": false,
            "connecting-clients": 0, "in-touch": true, "last-scopes": ["a"], "last-state": "ready",
            "role": "primary", "server-name": "a", "system-time": "2026-11-25 21:48:35",
            "unacked-clients": 0, "unacked-clients-left": 0 },
    }}]);
    assert_eq!(machine.status(at(12)), expected);
}
