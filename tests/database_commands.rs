//! Kea's lease commands on databases: each recorded command has the result and the arguments that it
//! has with a memfile, and the leases afterwards are the same.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, also where it is not in a test function"
)]

#[path = "support/database_pool.rs"]
mod database_pool;
#[path = "support/database_servers.rs"]
mod database_servers;
#[path = "support/databases.rs"]
mod databases;
#[path = "support/commands.rs"]
#[expect(dead_code, reason = "what the suite of a memfile needs")]
mod recorded;

use std::sync::Arc;

use databases::{Database, Server};
use leasemgr::commands::Commands;
use leasemgr::lease::{Lease4, Lease6, system_time};
use leasemgr::request::Outcome;
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease};
use recorded::{NOW, Recording, SOURCE, ascii, subnets4, subnets6};
use rstest::rstest;
use serde_json::{Map, Value, json};

/// The ends of the names of cases whose leases no database keeps: of hostnames that are too long or
/// not UTF-8, and of the latest time.
const NOT_KEPT: [&str; 4] =
    ["hostname 256 chars", "lease6-add hostname utf-8", "raw escape \\u00f6", "expire=2^63-1"];

/// The same for MariaDB, whose times end in 2038.
const NOT_KEPT_BY_MARIADB: [&str; 2] = ["expire=2^32", "expire=2^32-1"];

fn in_memory<L: ManagedLease>() -> Arc<dyn LeaseMgr<L>> {
    LeaseMgrFactory::new().open("type=memfile persist=false").unwrap()
}

/// Returns the commands of a server of a family.
fn commands(
    family: u64,
    four: impl FnOnce() -> Arc<dyn LeaseMgr<Lease4>>,
    six: impl FnOnce() -> Arc<dyn LeaseMgr<Lease6>>,
) -> Commands {
    let commands = Commands::new().with_clock(|| system_time(NOW)).with_ddns(|_| Ok(()));
    if family == 4 {
        commands.with_leases4(four(), subnets4())
    } else {
        commands.with_leases6(six(), subnets6())
    }
}

/// Makes a command, and returns its answer without the texts for people.
fn make(commands: &Commands, command: &Value) -> Option<Value> {
    let text = match command.get("@raw") {
        Some(raw) => raw.as_str().unwrap().to_owned(),
        None => ascii(&command.to_string()),
    };
    let mut answer = Vec::new();
    if commands.answer(text.as_bytes(), &SOURCE, &mut answer).unwrap() == Outcome::NoAnswer {
        return None;
    }
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    answer.as_object_mut().unwrap().remove("text");
    for key in ["failed-leases", "failed-deleted-leases"] {
        let list = answer.pointer_mut(&format!("/arguments/{key}")).and_then(Value::as_array_mut);
        for failed in list.into_iter().flatten() {
            failed.as_object_mut().unwrap().remove("error-message");
        }
    }
    Some(answer)
}

/// Makes the commands of a case, and returns their answers, and the leases and statistics
/// afterwards.
fn answers(commands: &Commands, recording: &Recording, case: &Map<String, Value>) -> Vec<Option<Value>> {
    let setup = &recording.setups[usize::try_from(case["setup"].as_u64().unwrap()).unwrap()];
    let setup = setup.iter().filter(|command| command.get("@config").is_none());
    let family = &case["family"];
    let after = ["get-all", "x"].map(|name| match name {
        "x" => json!({ "command": format!("stat-lease{family}-get") }),
        name => json!({ "command": format!("lease{family}-{name}") }),
    });
    setup.chain([&case["command"]]).chain(&after).map(|command| make(commands, command)).collect()
}

#[rstest]
fn commands_have_the_results_of_a_memfile(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(4, 6)] family: u64,
) {
    let recording = Recording::read();
    let wipe = json!({ "command": format!("lease{family}-wipe") });
    let database = Database::new(server);
    let on_database = commands(family, || database.open(), || database.open());
    let not_kept = NOT_KEPT.iter().chain(NOT_KEPT_BY_MARIADB.iter().filter(|_| server == Server::Mariadb));
    let not_kept: Vec<_> = not_kept.collect();
    let is_kept = |name: &str| !not_kept.iter().any(|end| name.ends_with(**end));
    let mut differing = Vec::new();
    for case in recording.cases.iter().filter(|case| case["family"] == family) {
        let here = answers(&on_database, &recording, case);
        let expected = answers(&commands(family, in_memory, in_memory), &recording, case);
        let name = case["name"].as_str().unwrap();
        if (here == expected) == is_kept(name) {
            make(&on_database, &wipe);
            continue;
        }
        differing.push(name);
        for (here, expected) in here.iter().zip(&expected).filter(|(here, expected)| here != expected) {
            println!("{} {}\n  database {here:?}\n  memfile  {expected:?}", case["name"], case["command"]);
        }
        make(&on_database, &wipe);
    }
    assert_eq!(differing, [] as [&str; 0], "cases that differ, or exceptions that do not");
}
