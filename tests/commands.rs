//! The recorded commands of a Kea server (`tests/data/lease-commands.jsonl`): result, arguments,
//! the leases and statistics afterwards, and files are the same.

#![expect(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

#[path = "support/commands.rs"]
mod recorded;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::mem;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use leasemgr::commands::{Answer, Commands, NameChange};
use leasemgr::control::{self, Client, Http, UnixSocket};
use leasemgr::lease::{HwAddr, Json, Lease4, Lease6, system_time};
use leasemgr::request::{Channel, Handler, Outcome, Source};
use leasemgr::{Added, LeaseMgr, LeaseMgrFactory, ManagedLease};
use recorded::{NOW, Recording, SOURCE, ascii, subnets4, subnets6};
use rstest::rstest;
use serde_json::{Map, Value, json};

/// The cases that differ from the recording, and why.
const EXCEPTIONS: [(&str, &str); 3] = [
    ("lease4-add valid-lft 0 with expire", "no backend keeps a lease that is in use for 0 seconds"),
    ("lease4-resend-ddns no arguments", "Kea's server crashes"),
    ("list-commands", "some commands are the server's own"),
];

/// The commands of Kea's server that are not here: for its configuration, sockets and statistics.
const MISSING: [&str; 24] = [
    "config-backend-pull",
    "config-hash-get",
    "config-reload",
    "config-set",
    "config-test",
    "config-write",
    "interface-add",
    "interface-list",
    "interface-redetect",
    "server-tag-get",
    "shutdown",
    "statistic-get",
    "statistic-get-all",
    "statistic-global-get-all",
    "statistic-remove",
    "statistic-remove-all",
    "statistic-reset",
    "statistic-reset-all",
    "statistic-sample-age-set",
    "statistic-sample-age-set-all",
    "statistic-sample-count-set",
    "statistic-sample-count-set-all",
    "subnet4-select-test",
    "subnet4o6-select-test",
];

/// A server as that of the recording.
struct Server {
    commands: Arc<Commands>,
    directory: tempfile::TempDir,
}

impl Server {
    fn new(family: u64, has_ddns: bool, has_files: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let connection = if has_files {
            format!("type=memfile name={}", data.join(format!("leases{family}.csv")).display())
        } else {
            "type=memfile persist=false".to_owned()
        };
        let commands = Commands::new().with_clock(|| system_time(NOW));
        let commands = if family == 4 {
            commands.with_leases4(open::<Lease4>(&connection), subnets4())
        } else {
            commands.with_leases6(open::<Lease6>(&connection), subnets6())
        };
        let commands = if has_ddns { commands.with_ddns(|_: NameChange<'_>| Ok(())) } else { commands };
        Self { commands: Arc::new(commands), directory }
    }

    /// Changes what the server gives its commands.
    fn change(&mut self, change: impl FnOnce(Commands) -> Commands) {
        let commands = Arc::into_inner(mem::take(&mut self.commands)).unwrap();
        self.commands = Arc::new(change(commands));
    }

    /// Returns the answer by a channel; `None` if the server does not answer.
    fn answer_by(&self, channel: Option<Channel>, request: &[u8]) -> Option<Value> {
        let builder = control::Server::builder(Arc::clone(&self.commands) as Arc<dyn Handler>);
        match channel {
            None => self.answer(request),
            Some(Channel::Unix) => {
                let path = self.directory.path().join("socket");
                let _server = builder.unix(UnixSocket::new(&path)).start().unwrap();
                let answer = Client::unix(path).send(request).unwrap_or_default();
                serde_json::from_slice(&answer).ok()
            }
            Some(Channel::Http) => {
                let server = builder.http(Http::new((Ipv4Addr::LOCALHOST, 0).into())).start().unwrap();
                let mut client = Client::http(&format!("http://{}/", server.addresses()[0])).unwrap();
                let answer: Value = serde_json::from_slice(&client.send(request).unwrap()).unwrap();
                match answer {
                    Value::Array(mut answers) if answers.len() == 1 => answers.pop(),
                    // A status of HTTP.
                    answer => {
                        assert_eq!(answer["result"], 400);
                        None
                    }
                }
            }
        }
    }

    fn answer(&self, request: &[u8]) -> Option<Value> {
        let mut answer = Vec::new();
        match self.commands.answer(request, &SOURCE, &mut answer).unwrap() {
            Outcome::Answered => Some(serde_json::from_slice(&answer).unwrap()),
            Outcome::NoAnswer => {
                assert_eq!(answer, b"");
                None
            }
        }
    }

    /// Makes a command, in which `@dir` stands for the directory of the server.
    fn make(&self, command: &Value) -> Option<Value> {
        self.make_by(None, command)
    }

    fn make_by(&self, channel: Option<Channel>, command: &Value) -> Option<Value> {
        let text = match command.get("@raw") {
            Some(raw) => raw.as_str().unwrap().to_owned(),
            None => ascii(&command.to_string()),
        };
        let text = text.replace("@dir", &self.directory.path().display().to_string());
        self.answer_by(channel, text.as_bytes())
    }

    fn leases(&self, family: u64) -> Value {
        let answer = self.make(&json!({ "command": format!("lease{family}-get-all") })).unwrap();
        answer["arguments"]["leases"].clone()
    }

    fn stats(&self, family: u64) -> Value {
        let answer = self.make(&json!({ "command": format!("stat-lease{family}-get") })).unwrap();
        let mut set = answer["arguments"]["result-set"].clone();
        set.as_object_mut().unwrap().remove("timestamp");
        set
    }
}

fn open<L: ManagedLease>(connection: &str) -> Arc<dyn LeaseMgr<L>> {
    LeaseMgrFactory::new().open(connection).unwrap()
}

/// Returns whether a value is the recorded one: `@now` stands for the time, `@timestamp` for a text.
fn is_recorded(recorded: &Value, value: &Value) -> bool {
    match (recorded, value) {
        (Value::String(text), Value::Number(number)) if text == "@now" => number.as_i64() == Some(NOW),
        (Value::String(text), Value::String(_)) if text == "@timestamp" => true,
        (Value::Array(recorded), Value::Array(values)) => {
            recorded.len() == values.len()
                && recorded.iter().zip(values).all(|(recorded, value)| is_recorded(recorded, value))
        }
        (Value::Object(recorded), Value::Object(values)) => {
            values.keys().all(|key| recorded.contains_key(key))
                && recorded.iter().all(|(key, recorded)| match values.get(key) {
                    Some(value) => is_recorded(recorded, value),
                    // Kea's memfile distinguishes an empty one from none, its PostgreSQL does not.
                    None => key == "hw-address" && recorded == "",
                })
        }
        _ => recorded == value,
    }
}

/// Returns the arguments of an answer with its leases in the order of their addresses.
fn sorted(arguments: &Value) -> Value {
    let mut arguments = arguments.clone();
    if let Some(Value::Array(leases)) = arguments.pointer_mut("/leases") {
        leases.sort_by_key(|lease| lease["ip-address"].to_string());
    }
    arguments
}

/// Returns the arguments of an answer without the texts for people, which were not recorded.
fn without_texts(arguments: &Value) -> Value {
    let mut arguments = arguments.clone();
    for key in ["failed-leases", "failed-deleted-leases"] {
        for failed in arguments.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            assert!(failed.as_object_mut().unwrap().remove("error-message").unwrap().is_string());
        }
    }
    arguments
}

/// Makes the command of a case, directly or by a channel, and returns what differs from the
/// recording.
fn differences(recording: &Recording, case: &Map<String, Value>, channel: Option<Channel>) -> Vec<String> {
    let family = case["family"].as_u64().unwrap();
    let setup = &recording.setups[usize::try_from(case["setup"].as_u64().unwrap()).unwrap()];
    let command = &case["command"];
    let name = command.get("command").and_then(Value::as_str).unwrap_or_default();
    let has_files = name.ends_with("-write") || name == "kea-lfc-start";
    let has_ddns = setup.iter().any(|command| command.get("@config").is_some());
    let server = Server::new(family, has_ddns, has_files);
    let mut found = Vec::new();
    // Queries by other keys than the address have no order in Kea.
    let has_order = !name.contains("-get-by-");
    let mut compare = |what: &str, recorded: &Value, value: &Value| {
        let (recorded, value) =
            if has_order { (recorded, value) } else { (&sorted(recorded), &sorted(value)) };
        if !is_recorded(recorded, value) {
            found.push(format!("{what}\n    recorded {recorded}\n    here     {value}"));
        }
    };
    for command in setup.iter().filter(|command| command.get("@config").is_none()) {
        let answer = server.make(command).unwrap();
        compare(&format!("setup {command} text {}", answer["text"]), &json!(0), &answer["result"]);
    }
    let mut recorded = case["answer"].clone();
    if let Some(leases) = recorded.pointer_mut("/arguments/leases") {
        *leases = recording.leases(leases);
    }
    let answer = server.make_by(channel, command);
    let is_text = command.get("@raw").is_some();
    match (recorded.get("@no-answer"), &answer) {
        // By HTTP, the whole body has to be JSON.
        (None, None) if channel == Some(Channel::Http) && is_text => {
            let text = command["@raw"].as_str().unwrap();
            assert!(recorded["result"] == 1 || Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        (None, Some(answer)) => {
            let text = &answer["text"];
            compare(&format!("result, text {text}"), &recorded["result"], &answer["result"]);
            compare("arguments", &recorded["arguments"], &without_texts(&answer["arguments"]));
        }
        (Some(_), None) => {}
        // Each request by HTTP has an answer.
        (Some(_), Some(answer)) if channel == Some(Channel::Http) && is_text => {
            compare("result", &json!(1), &answer["result"]);
        }
        (recorded, _) => compare("answer", &json!(recorded), &json!(answer)),
    }
    if let Some(leases) = case.get("leases-after") {
        compare("leases", &recording.leases(leases), &server.leases(family));
    }
    if let Some(stats) = case.get("stats-after") {
        compare(
            "statistics",
            &recording.stats[usize::try_from(stats.as_u64().unwrap()).unwrap()],
            &server.stats(family),
        );
    }
    if let Some(file) = case.get("file-after") {
        let path = server.directory.path().join("data/out.csv");
        compare("file", file, &json!(fs::read_to_string(&path).ok()));
        let mode = fs::metadata(&path).map_or(0, |file| file.permissions().mode() & 0o7777);
        compare("mode", &case["file-mode"], &json!(format!("0o{mode:o}")));
    }
    found
}

#[rstest]
#[case::directly(None)]
#[case::by_a_unix_socket(Some(Channel::Unix))]
#[case::by_http(Some(Channel::Http))]
fn recorded_commands_have_the_recorded_results(#[case] channel: Option<Channel>) {
    let recording = Recording::read();
    assert_eq!(recording.cases.len(), 1198);
    let mut failed = 0;
    for case in &recording.cases {
        let found = differences(&recording, case, channel);
        let is_exception = EXCEPTIONS.iter().any(|(name, _)| case["name"] == *name);
        if found.is_empty() == is_exception {
            failed += 1;
            println!("{} ({}) {}", case["name"], case["family"], case["command"]);
            found.iter().for_each(|difference| println!("  {difference}"));
        }
    }
    assert_eq!(failed, 0, "cases that differ, or exceptions that do not");
}

#[test]
fn commands_other_than_for_the_configuration_are_those_of_kea() {
    let recording = Recording::read();
    let case = recording.cases.iter().find(|case| case["name"] == "list-commands").unwrap();
    let texts = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let recorded = texts(&case["answer"]["arguments"]);
    let mut server = Server::new(4, false, false);
    server.change(|commands| commands.with_config(|| json_of(r#"{ "Dhcp4": {} }"#)));
    let here = texts(&server.make(&json!({ "command": "list-commands" })).unwrap()["arguments"]);
    assert_eq!(here.difference(&recorded).collect::<Vec<_>>(), [] as [&String; 0]);
    let missing: Vec<_> = recorded.difference(&here).map(String::as_str).collect();
    assert_eq!(missing, MISSING);
}

/// Returns JSON as the values that a server gives.
fn json_of(text: &str) -> Json {
    Json::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_lease_in_use_for_0_seconds_is_refused_and_others_are_kept() {
    let server = Server::new(4, false, false);
    let lease = |state: u8| {
        let arguments = json!({
            "ip-address": "192.0.2.20", "hw-address": "2:0:0:0:0:1", "valid-lft": 0, "state": state, "force-create": true,
        });
        server.make(&json!({ "command": "lease4-update", "arguments": arguments })).unwrap()
    };
    assert_eq!(lease(0)["result"], 1);
    assert_eq!(server.leases(4), json!([]));
    for state in [3, 2, 1] {
        assert_eq!(lease(state)["result"], 0);
        assert_eq!(server.leases(4)[0]["state"], state);
    }
}

#[test]
fn resend_ddns_without_arguments_is_an_error() {
    for family in [4, 6] {
        let server = Server::new(family, true, false);
        let answer = server.make(&json!({ "command": format!("lease{family}-resend-ddns") })).unwrap();
        assert_eq!(answer["result"], 1);
    }
}

/// Kea 2.2 sends its declined leases with the DUID `00` to its partner.
#[rstest]
#[case::update("lease6-update", json!({}), 0)]
#[case::add("lease6-add", json!({}), 1)]
#[case::update_of_a_lease_in_use("lease6-update", json!({ "state": 0 }), 1)]
fn a_declined_lease_of_a_partner_may_have_the_duid_of_kea_2(
    #[case] command: &str,
    #[case] other: Value,
    #[case] result: u64,
) {
    let server = Server::new(6, false, false);
    let mut arguments = json!({
        "ip-address": "2001:db8:1::20", "duid": "00", "iaid": 1, "state": 1, "subnet-id": 1, "force-create": true,
    });
    arguments.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    let answer = server.make(&json!({ "command": command, "arguments": arguments })).unwrap();
    assert_eq!(answer["result"], result, "{answer}");
}

#[rstest]
#[case::resend(json!({ "command": "lease4-resend-ddns", "arguments": { "ip-address": "192.0.2.20" } }), "add")]
#[case::delete(
    json!({ "command": "lease4-del", "arguments": { "ip-address": "192.0.2.20", "update-ddns": true } }),
    "remove"
)]
#[case::delete_only(json!({ "command": "lease4-del", "arguments": { "ip-address": "192.0.2.20" } }), "")]
fn dns_updates_are_asked_for(#[case] command: Value, #[case] asked: &str) {
    let mut server = Server::new(4, false, false);
    let calls = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&calls);
    let ddns = move |change: NameChange<'_>| {
        let (kind, lease) = match change {
            NameChange::Add(lease) => ("add", lease),
            NameChange::Remove(lease) => ("remove", lease),
            other => panic!("{other:?}"),
        };
        assert_eq!((lease.hostname, lease.address.to_string().as_str()), (&b"a.example"[..], "192.0.2.20"));
        seen.lock().unwrap().push_str(kind);
        Ok(())
    };
    server.change(|commands| commands.with_ddns(ddns));
    let lease = json!({ "ip-address": "192.0.2.20", "hw-address": "2:0:0:0:0:1", "hostname": "a.example" });
    server.make(&json!({ "command": "lease4-add", "arguments": lease })).unwrap();
    assert_eq!(server.make(&command).unwrap()["result"], 0);
    assert_eq!(*calls.lock().unwrap(), asked);
}

#[test]
fn the_service_is_disabled_by_each_origin_separately() {
    let server = Server::new(4, false, false);
    let make = |command: &str, arguments: Value| {
        let answer = server.make(&json!({ "command": command, "arguments": arguments })).unwrap();
        answer["result"].as_u64().unwrap()
    };
    let service = server.commands.service();
    assert_eq!(make("dhcp-disable", json!({ "origin": "ha-partner", "max-period": 100_000 })), 0);
    assert_eq!(make("dhcp-disable", json!({})), 0);
    assert_eq!(make("dhcp-disable", json!({ "origin": "ha-partner", "origin-id": 2001 })), 0);
    assert_eq!(service.disabled_by(), [1, 2000, 2001]);
    let status = server.make(&json!({ "command": "status-get" })).unwrap();
    assert_eq!(
        status["arguments"]["dhcp-state"],
        json!({
            "disabled-by-db-connection": [], "disabled-by-local-command": [],
            "disabled-by-remote-command": [2000, 2001], "disabled-by-user": true, "globally-disabled": true,
        })
    );
    assert_eq!(make("dhcp-enable", json!({ "origin": "user" })), 0);
    assert_eq!(make("dhcp-enable", json!({ "origin": 2001 })), 0);
    assert_eq!(service.disabled_by(), [2000]);
    for arguments in [
        json!({ "origin": "nobody" }),
        json!({ "origin": -1 }),
        json!({ "origin": [] }),
        json!({ "origin-id": "x" }),
        json!({ "max-period": 0 }),
        json!({ "max-period": "1" }),
        json!([]),
    ] {
        assert_eq!(make("dhcp-disable", arguments.clone()), 1, "{arguments}");
    }
    assert_eq!(service.disabled_by(), [2000]);
    assert_eq!(make("dhcp-enable", json!({ "origin": "ha-partner" })), 0);
    assert!(service.is_enabled());
}

#[test]
fn a_server_has_its_own_commands_and_values() {
    let mut server = Server::new(4, false, false);
    server.change(|commands| {
        let mut commands = commands
            .with_version("7.1")
            .with_config(|| json_of(r#"{ "Dhcp4": { "valid-lifetime": 4000 } }"#))
            .with_status("high-availability", || json_of("[ 1 ]"));
        commands.register("echo", |request| {
            assert_eq!(request.command(), "echo");
            let arguments = request.arguments().map_or_else(Json::empty_map, Json::from);
            Answer::new(403, "no").with_arguments(arguments)
        });
        commands.register("panic", |_| panic!("on purpose"));
        commands
    });
    let make = |command: &str| server.answer(request(command).as_bytes()).unwrap();
    assert_eq!(make("echo"), json!({ "result": 403, "text": "no", "arguments": { "a": "Ã¶" } }));
    assert_eq!(make("panic"), json!({ "result": 1, "text": "the command panicked: on purpose" }));
    assert_eq!(make("version-get")["text"], "7.1");
    assert_eq!(make("config-get")["arguments"], json!({ "Dhcp4": { "valid-lifetime": 4000 } }));
    assert_eq!(make("status-get")["arguments"]["high-availability"], json!([1]));
}

fn request(command: &str) -> String {
    format!(r#"{{ "command": "{command}", "arguments": {{ "a": "ö" }} }}"#)
}

#[rstest]
#[case::empty("", None, None)]
#[case::blank(" \n", None, None)]
#[case::only_a_comment("# x", None, None)]
#[case::truncated_text("{ \"command\": \"list", None, None)]
#[case::truncated_escape("{ \"command\": \"\\u00", None, None)]
#[case::truncated_word("{ \"command\": nu", None, None)]
#[case::truncated_comment("{ /* ", None, None)]
#[case::word("{ \"command\": trua", Some(1), None)]
#[case::comma_after_the_last_item("{ \"command\": [ 1, ] }", Some(1), None)]
#[case::point("{ \"command\": .5 }", Some(1), None)]
#[case::unknown("{ \"command\": \"x\" }", Some(2), Some(2))]
#[case::second("{ \"command\": \"x\" } { \"command\": \"list-commands\" }", Some(2), Some(2))]
#[case::slashes("// x\n{ \"command\": \"list-commands\" }", Some(0), Some(0))]
fn what_is_not_a_request_has_no_answer_or_an_error(
    #[case] request: &str,
    #[case] by_unix: Option<u64>,
    #[case] by_http: Option<u64>,
) {
    let server = Server::new(4, false, false);
    assert_eq!(server.answer(request.as_bytes()).map(|answer| answer["result"].as_u64().unwrap()), by_unix);
    let source = Source { channel: Channel::Http, user: None };
    let mut answer = Vec::new();
    let outcome = server.commands.answer(request.as_bytes(), &source, &mut answer).unwrap();
    assert_eq!(outcome == Outcome::Answered, by_http.is_some());
    assert_eq!(!answer.is_empty(), by_http.is_some());
}

#[test]
fn deep_json_is_an_error() {
    let server = Server::new(4, false, false);
    let request = format!("{{ \"command\": {}", "[".repeat(1_000_000));
    assert_eq!(server.answer(request.as_bytes()).unwrap()["result"], 1);
}

/// Counts what is written, and the largest piece.
#[derive(Default)]
struct Counter {
    written: usize,
    largest: usize,
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        self.largest = self.largest.max(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn all_leases_are_written_piece_by_piece() {
    let leases = open::<Lease4>("type=memfile persist=false");
    for n in 0..5000_u32 {
        let lease = Lease4::builder((0x0a00_0000 + n).into())
            .client(HwAddr::new(&n.to_be_bytes()).unwrap())
            .subnet(1)
            .lifetime(60)
            .build()
            .unwrap();
        assert_eq!(leases.add(&lease).unwrap(), Added::Added);
    }
    let commands = Commands::new().with_leases4(leases, subnets4());
    let request = br#"{ "command": "lease4-get-all" }"#;
    let mut counter = Counter::default();
    commands.answer(request, &SOURCE, &mut counter).unwrap();
    assert!(counter.written > 500_000 && counter.largest < counter.written / 4);
    let mut answer = Vec::new();
    commands.answer(request, &SOURCE, &mut answer).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["arguments"]["leases"].as_array().unwrap().len(), 5000);
    assert_eq!(answer["arguments"]["leases"][4999]["ip-address"], "10.0.19.135");
}
