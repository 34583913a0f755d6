//! The example servers as processes, with commands by a UNIX socket and by HTTP while clients are served.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[expect(dead_code, reason = "this suite sends no signals")]
#[path = "support/dhcp_servers.rs"]
mod dhcp_servers;
#[path = "support/directory.rs"]
mod directory;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use dhcp_servers::{Server, TIMEOUT, message};
use dhcproto::v6::MessageType;
use directory::Directory;
use leasemgr::control::Client;
use serde_json::{Value, json};

/// Number of addresses in the pool of DHCPv6.
const POOL: u8 = 8;

/// A server that answers commands on a UNIX socket and on an address.
struct Commanded {
    server: Server,
    unix: Client,
    http: Client,
    socket: String,
    file: String,
    _directory: Directory,
}

impl Commanded {
    fn start(example: &str, options: &[&str]) -> Self {
        let directory = Directory::new();
        let path = |name: &str| directory.path(name).display().to_string();
        let (socket, file) = (path("socket"), path("leases.csv"));
        let connection = format!("type=memfile name={file} lfc-interval=0");
        let usual = [connection.as_str(), "--control-socket", &socket, "--control-http", "127.0.0.1:0"];
        let server = Server::start(example, &[&usual, options].concat());
        let [line] = &server.lines[..] else {
            panic!("{:?}", server.lines);
        };
        let url = line.strip_prefix(&format!("answering commands on {socket} and ")).unwrap();
        let (unix, http) = (Client::unix(&socket), Client::http(url).unwrap());
        Self { server, unix, http, socket, file, _directory: directory }
    }

    fn command(&mut self, name: &str, arguments: &Value) -> Value {
        let mut request = json!({ "command": name });
        if !arguments.is_null() {
            request["arguments"] = arguments.clone();
        }
        let answer = self.unix.send(request.to_string().as_bytes()).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// Returns the arguments of the answer to a command that must be made.
    fn made(&mut self, name: &str, arguments: &Value) -> Value {
        let mut answer = self.command(name, arguments);
        assert_eq!(answer["result"], 0, "{name} {arguments}: {answer}");
        answer["arguments"].take()
    }

    /// Sends a command by HTTP, and returns the answer.
    fn by_http(&mut self, name: &str) -> Value {
        let answer = self.http.send(json!({ "command": name }).to_string().as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        // The list of one answer, which the client may have opened.
        answer.get(0).cloned().unwrap_or(answer)
    }

    /// Returns the columns of the only row of an answer with statistics.
    fn statistics(&mut self, name: &str) -> Value {
        let set = &self.made(name, &Value::Null)["result-set"];
        let columns =
            set["columns"].as_array().unwrap().iter().map(|column| column.as_str().unwrap().to_owned());
        let rows = set["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{set}");
        columns.zip(rows[0].as_array().unwrap().clone()).collect()
    }

    /// Ends the server by a command, which is answered before.
    fn shut_down(mut self) {
        self.made("shutdown", &Value::Null);
        assert!(self.server.ended().success());
    }
}

fn is_subset(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|other| is_subset(value, other)))
        }
        _ => part == whole,
    }
}

fn start6() -> Commanded {
    let options = ["--bind", "[::1]:0", "--subnet", "2001:db8::/64", "--pool", "2001:db8::1-2001:db8::8"];
    let prefixes = ["--pd-pool", "2001:db8:8000::/48/56", "--threads", "1"];
    Commanded::start("dhcp6_server", &[&options[..], &prefixes].concat())
}

/// Returns the address that a client gets.
fn address_of(server: &Server, client: u8) -> Option<Ipv6Addr> {
    server.ask(&message(MessageType::Solicit, client, None, None)).1.map(|(address, _)| address)
}

#[test]
fn clients_and_commands_share_the_leases() {
    let mut commanded = start6();
    let mut addresses: Vec<_> = (0..5).map(|client| address_of(&commanded.server, client).unwrap()).collect();

    let all = commanded.made("lease6-get-all", &Value::Null);
    let found: BTreeSet<Ipv6Addr> = all["leases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lease| lease["ip-address"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(found, addresses.iter().copied().collect());
    assert_eq!(commanded.by_http("lease6-get-all")["arguments"], all);
    let page = commanded.made("lease6-get-page", &json!({ "from": "start", "limit": 2 }));
    assert_eq!(page["leases"].as_array().unwrap()[..], all["leases"].as_array().unwrap()[..2]);
    let statistics = commanded.statistics("stat-lease6-get");
    let expected =
        json!({ "subnet-id": 1, "total-nas": POOL, "assigned-nas": 5, "total-pds": 256, "assigned-pds": 0 });
    assert!(is_subset(&expected, &statistics), "{statistics}");

    // The client of a deleted lease gets an address again.
    commanded.made("lease6-del", &json!({ "ip-address": addresses[3].to_string() }));
    assert_eq!(
        commanded.command("lease6-get", &json!({ "ip-address": addresses[3].to_string() }))["result"],
        3
    );
    addresses[3] = address_of(&commanded.server, 3).unwrap();
    let lease = commanded.made("lease6-get", &json!({ "ip-address": addresses[3].to_string() }));
    assert_eq!(lease["duid"], "00:03:00:01:02:00:00:00:00:03");

    // An address that a command gives to a client is given to no other.
    let free = (1..=u16::from(POOL)).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
    let taken = free.into_iter().find(|address| !addresses.contains(address)).unwrap();
    commanded.made("lease6-add", &json!({ "ip-address": taken.to_string(), "duid": "01:02:03", "iaid": 1 }));
    addresses.push(taken);
    for client in 10..12 {
        addresses.push(address_of(&commanded.server, client).unwrap());
    }
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), usize::from(POOL), "{addresses:?}");
    assert_eq!(address_of(&commanded.server, 12), None);
    commanded.shut_down();
}

#[test]
fn a_disabled_service_does_not_answer_clients() {
    let mut commanded = start6();
    let address = address_of(&commanded.server, 1);
    assert!(address.is_some());

    commanded.made("dhcp-disable", &Value::Null);
    commanded.server.send(&message(MessageType::Solicit, 1, None, None));
    let start = Instant::now();
    let status = loop {
        let status = commanded.made("status-get", &Value::Null);
        if status["ignored-while-disabled"] == 1 {
            break status;
        }
        assert!(start.elapsed() < TIMEOUT, "{status}");
    };
    assert_eq!(status["dhcp-state"]["globally-disabled"], true);
    // The message has been ignored, so there will be no answer to it.
    commanded.server.relay.set_nonblocking(true).unwrap();
    let error = commanded.server.relay.recv(&mut [0; 1500]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    commanded.server.relay.set_nonblocking(false).unwrap();

    commanded.made("dhcp-enable", &Value::Null);
    assert_eq!(address_of(&commanded.server, 1), address);

    // Without `dhcp-enable`, the service is enabled when the period is over.
    commanded.made("dhcp-disable", &json!({ "max-period": 1 }));
    let start = Instant::now();
    commanded.server.relay.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        commanded.server.send(&message(MessageType::Solicit, 1, None, None));
        if commanded.server.relay.recv(&mut [0; 1500]).is_ok() {
            break;
        }
        assert!(start.elapsed() < TIMEOUT, "the period does not end");
    }
    assert_eq!(commanded.made("status-get", &Value::Null)["dhcp-state"]["globally-disabled"], false);
    commanded.shut_down();
}

#[test]
fn a_server_shows_its_configuration() {
    let mut commanded = start6();
    let config = commanded.made("config-get", &Value::Null)["Dhcp6"].take();
    let file = commanded.file.clone();
    let expected = json!({
        "interfaces-config": { "interfaces": ["*"] },
        "lease-database": { "type": "memfile", "name": file, "lfc-interval": 0 },
        "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 1 },
        "control-sockets": [
            { "socket-type": "unix", "socket-name": commanded.socket },
            { "socket-type": "http", "socket-address": "127.0.0.1", "socket-port": 0 },
        ],
        "subnet6": [{
            "id": 1, "subnet": "2001:db8::/64", "pools": [{ "pool": "2001:db8::1-2001:db8::8" }],
            "pd-pools": [{ "prefix": "2001:db8:8000::", "prefix-len": 48, "delegated-len": 56 }],
        }],
        "valid-lifetime": 3600,
        "preferred-lifetime": 2250,
    });
    assert_eq!(config, expected);
    let status = commanded.made("status-get", &Value::Null);
    assert!(is_subset(&json!({ "csv-lease-file": file, "thread-pool-size": 1 }), &status), "{status}");
    commanded.shut_down();
}

#[test]
fn a_server_of_dhcpv4_makes_commands() {
    let options = ["--bind", "127.0.0.1:0", "--server-id", "192.0.2.1", "--subnet", "192.0.2.0/24"];
    let pool = ["--pool", "192.0.2.10-192.0.2.19", "--valid-lifetime", "4000"];
    let mut commanded = Commanded::start("dhcp4_server", &[&options[..], &pool].concat());
    let lease = json!({ "ip-address": "192.0.2.15", "hw-address": "02:00:00:00:00:01" });
    commanded.made("lease4-add", &lease);
    let found = commanded.made("lease4-get", &json!({ "ip-address": "192.0.2.15" }));
    assert!(is_subset(&lease, &found) && found["valid-lft"] == 4000 && found["subnet-id"] == 1, "{found}");
    let statistics = commanded.statistics("stat-lease4-get");
    let expected = json!({ "subnet-id": 1, "total-addresses": 10, "assigned-addresses": 1 });
    assert!(is_subset(&expected, &statistics), "{statistics}");
    let config = commanded.by_http("config-get")["arguments"]["Dhcp4"]["subnet4"].take();
    let pools = json!([{ "pool": "192.0.2.10-192.0.2.19" }]);
    assert_eq!(config, json!([{ "id": 1, "subnet": "192.0.2.0/24", "pools": pools }]));
    commanded.shut_down();
}
