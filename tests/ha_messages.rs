//! What servers send to each other, against recordings of Kea 2.2 and 3.3.1 (`ha-messages.jsonl`).

#![expect(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

use leasemgr::ha::{Dialect, Request, Response};
use leasemgr::lease::{Duid, Family, HwAddr, Lease4, Lease6, LeaseState};
use serde_json::{Value, json};

struct Row {
    dialect: Dialect,
    request: Value,
    response: Value,
}

fn rows() -> Vec<Row> {
    let row = |line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        let dialect = if row["kea"] == "2.2" { Dialect::Kea22 } else { Dialect::Current };
        Row { dialect, request: row["request"].take(), response: row["response"].take() }
    };
    include_str!("data/ha-messages.jsonl").lines().map(row).collect()
}

fn decoded(body: &Value) -> (Request, Family) {
    Request::decode(body.to_string().as_bytes()).unwrap().unwrap()
}

#[test]
fn requests_have_keas_form() {
    let mut commands = Vec::new();
    for row in rows() {
        let (request, family) = decoded(&row.request);
        let body: Value = serde_json::from_str(&request.encode(family, row.dialect).unwrap()).unwrap();
        assert_eq!(body, row.request);
        commands.push(request.command(family));
    }
    commands.sort_unstable();
    commands.dedup();
    let expected = [
        "dhcp-disable",
        "ha-heartbeat",
        "ha-maintenance-notify",
        "ha-reset",
        "ha-sync-complete-notify",
        "lease4-del",
        "lease4-get-page",
        "lease4-update",
        "lease6-bulk-apply",
        "lease6-get-page",
    ];
    assert_eq!(commands, expected);
    let enable = json!({ "arguments": { "origin": "ha-partner", "origin-id": 2000 }, "command": "dhcp-enable",
        "service": ["dhcp4"] });
    assert_eq!(decoded(&enable), (Request::EnableService, Family::V4));
    let body = Request::EnableService.encode(Family::V4, Dialect::Current).unwrap();
    assert_eq!(body, enable.to_string());
}

#[test]
fn answers_are_read_as_by_kea() {
    let (mut heartbeats, mut leases, mut others) = (0, 0, 0);
    for Row { request, response, .. } in rows() {
        let body = response.to_string();
        let is_answer = response.as_array().is_some_and(|list| list.len() == 1 && list[0]["result"].is_i64());
        let Ok(answer) = Response::parse(body.as_bytes()) else {
            assert!(!is_answer, "{body}");
            others += 1;
            continue;
        };
        let (request, family) = decoded(&request);
        let arguments = answer.arguments.clone();
        match (request, family) {
            (Request::Heartbeat { .. }, _) if answer.result == 0 => {
                assert_eq!(answer.heartbeat().unwrap().to_arguments(), arguments);
                heartbeats += 1;
            }
            (Request::GetPage { .. }, Family::V4) if answer.result != 1 => {
                let page = answer.page::<Lease4>().unwrap();
                assert!(page.invalid.is_empty(), "{:?}", page.invalid);
                assert_eq!(json!(page.leases), arguments["leases"]);
                assert_eq!(page.last.is_none(), page.leases.is_empty());
                leases += page.number;
            }
            (Request::GetPage { .. }, Family::V6) if answer.result != 1 => {
                let page = answer.page::<Lease6>().unwrap();
                assert!(page.invalid.is_empty(), "{:?}", page.invalid);
                assert_eq!(json!(page.leases), arguments["leases"]);
                leases += page.number;
            }
            _ => {}
        }
    }
    assert!(heartbeats > 50 && leases > 10 && others > 5, "{heartbeats} {leases} {others}");
}

#[test]
fn a_heartbeat_needs_a_state_and_a_date() {
    let good = json!({ "state": "ready", "date-time": "Wed, 25 Nov 2026 21:46:37 GMT", "scopes": ["a"],
        "unsent-update-count": 3 });
    let heartbeat = |arguments: &Value, result: i64| {
        let body = json!([{ "result": result, "arguments": arguments }]).to_string();
        Response::parse(body.as_bytes()).unwrap().heartbeat()
    };
    assert!(heartbeat(&good, 0).is_ok());
    assert_eq!(heartbeat(&good, 1).unwrap_err().to_string(), "the partner answered with result 1: ");
    for (key, value, accepted) in [
        ("state", json!("nonsense"), false),
        ("state", json!(1), false),
        ("date-time", json!("yesterday"), false),
        ("date-time", json!("2026-01-01T00:00:00Z"), false),
        ("scopes", json!("text"), true),
        ("unsent-update-count", json!(-1), true),
        ("unsent-update-count", json!(null), true),
    ] {
        let mut arguments = good.clone();
        arguments[key] = value;
        assert_eq!(heartbeat(&arguments, 0).is_ok(), accepted, "{arguments}");
    }
    let unknown = json!({ "state": "nonsense", "date-time": "Wed, 25 Nov 2026 21:46:37 GMT" });
    let error = heartbeat(&unknown, 0).unwrap_err().to_string();
    assert_eq!(error, "state is \"nonsense\", expected the name of a state");
}

#[test]
fn an_answer_is_a_list_with_one_map() {
    for body in
        ["{\"result\": 0}", "[]", "[{\"result\": 0}, {\"result\": 0}]", "\"hello\"", "", "[{}]", "[1]"]
    {
        assert!(Response::parse(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn an_invalid_lease_of_a_page_is_skipped() {
    let lease = |address: &str| {
        json!({ "ip-address": address, "hw-address": "02:00:00:00:00:01", "subnet-id": 1, "valid-lft": 600,
            "cltt": 1_790_000_000, "state": 0, "fqdn-fwd": false, "fqdn-rev": false, "hostname": "" })
    };
    let mut invalid = lease("192.0.2.9");
    invalid["hw-address"] = json!("x");
    let body = json!([{ "result": 0, "arguments": { "count": 2, "leases": [lease("192.0.2.1"), invalid] } }]);
    let page = Response::parse(body.to_string().as_bytes()).unwrap().page::<Lease4>().unwrap();
    assert_eq!((page.leases.len(), page.invalid.len(), page.number), (1, 1, 2));
    assert_eq!(page.last, Some([192, 0, 2, 9].into()));
    let empty = json!([{ "result": 3, "arguments": { "count": 0, "leases": [] } }]);
    assert_eq!(Response::parse(empty.to_string().as_bytes()).unwrap().page::<Lease4>().unwrap().last, None);
    assert!(Response::parse(b"[{\"result\": 3}]").unwrap().page::<Lease4>().is_err());
}

/// Kea 2.2 refuses a released lease, and would keep the address until the lease expires.
#[test]
fn a_release_is_a_deletion_for_kea_2_2() {
    let builder = Lease4::builder([192, 0, 2, 1].into()).client(HwAddr::from([2, 0, 0, 0, 0, 1]));
    let mut lease = builder.subnet(1).cltt(1_790_000_000).build().unwrap();
    lease.set_state(LeaseState::RELEASED).unwrap();
    let request = Request::of_change4(lease.clone(), false, Dialect::Kea22);
    let body: Value = serde_json::from_str(&request.encode(Family::V4, Dialect::Kea22).unwrap()).unwrap();
    assert_eq!((&body["command"], &body["arguments"]["state"]), (&json!("lease4-del"), &json!(0)));
    let request = Request::of_change4(lease, false, Dialect::Current);
    let body: Value = serde_json::from_str(&request.encode(Family::V4, Dialect::Current).unwrap()).unwrap();
    assert_eq!((&body["command"], &body["arguments"]["state"]), (&json!("lease4-update"), &json!(3)));

    let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]).unwrap();
    let given = Lease6::builder("2001:db8::1".parse().unwrap()).client(duid, 1).subnet(1).build().unwrap();
    let mut released = given.clone();
    released.set_state(LeaseState::RELEASED).unwrap();
    let changed = || vec![given.clone(), released.clone()];
    let expected = Request::Apply { leases: vec![given.clone()], deleted: vec![given.clone()] };
    assert_eq!(Request::of_changes6(changed(), Vec::new(), Dialect::Kea22), expected);
    let expected = Request::Apply { leases: changed(), deleted: Vec::new() };
    assert_eq!(Request::of_changes6(changed(), Vec::new(), Dialect::Current), expected);
}

#[test]
fn the_first_heartbeat_tells_the_dialect() {
    let of = |body: &Value| Dialect::of_heartbeat(&decoded(body).0);
    assert_eq!(of(&json!({ "command": "ha-heartbeat" })), Some(Dialect::Kea22));
    let named = json!({ "command": "ha-heartbeat", "arguments": { "server-name": "a" } });
    assert_eq!(of(&named), Some(Dialect::Current));
    assert_eq!(of(&json!({ "command": "ha-reset" })), None);
}

#[test]
fn other_commands_are_left_to_others() {
    assert_eq!(Request::decode(b"{ \"command\": \"config-get\" }").unwrap(), None);
    assert!(Request::decode(b"[]").is_err());
    let without_flag = json!({ "command": "ha-maintenance-notify", "arguments": { "cancel": "x" } });
    let error = Request::decode(without_flag.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "cancel is \"x\", expected true or false");
}
