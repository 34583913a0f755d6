//! Databases that real Kea servers and this crate use at the same time, on the servers of
//! `scripts/databases`, in the database that `kea-admin` has made.
//!
//! The suite must have a network namespace of its own, with these databases in it: servers listen
//! on the ports of DHCP. `scripts/test` runs it so. The clients are in another namespace, with one
//! link to Kea's server and one to the example of this crate: `perfdhcp` makes the load, and
//! `scripts/ack-recorder.py` records what clients are granted.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

#[path = "support/database_servers.rs"]
mod database_servers;
#[path = "support/databases.rs"]
mod databases;
#[path = "support/kea.rs"]
mod kea;
#[path = "support/kea_admin.rs"]
mod kea_admin;
#[path = "support/kea_database.rs"]
mod kea_database;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use databases::{Database, Server};
use kea::{KeaServer, OfKea, all, kea_is_installed, shown, wait_until};
use leasemgr::connection::ConnectionString;
use leasemgr::lease::{Family, Lease4, Lease6};
use leasemgr::{Added, Change, ChangeKind, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt, Origin};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Number of clients. It is 256, because `perfdhcp` adds numbers to the octets of the first client
/// without carry.
const CLIENTS: u32 = 256;
/// Exchanges begun each second with DHCPv4 and, for an address and a prefix, with DHCPv6: programs
/// that are not optimised can make them in time, on a busy machine.
const RATES: [u32; 2] = [150, 50];
/// Maximum time until both see the same leases.
const LIMIT: Duration = Duration::from_secs(300);

/// One test at a time has the network.
static NETWORK: Mutex<()> = Mutex::new(());

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The namespace of the clients. Each server has a link to it, `srv0` or `srv1` here and `cli0` or
/// `cli1` there: 10.0.N.1/24 and 10.0.N.2/24, and 2001:db8:N::1/48 and 2001:db8:N::2/48.
struct Clients {
    /// A process that keeps the namespace until it ends.
    holder: Child,
}

impl Clients {
    fn new() -> Self {
        let links = fs::read_to_string("/proc/self/net/dev").unwrap();
        let is_expected = |line: &str| line.trim_start().starts_with("lo:");
        assert!(
            links.lines().skip(2).all(is_expected),
            "not in a network namespace of its own; run scripts/test databases as root"
        );
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let clients = Self { holder };
        let (pid, inside) = (clients.holder.id(), clients.prefix());
        run(&format!("{inside} ip link set lo up"));
        for n in 0..2 {
            run(&format!("ip link add srv{n} type veth peer name cli{n} netns {pid}"));
            for (within, name, end) in [("", format!("srv{n}"), 1), (&inside, format!("cli{n}"), 2)] {
                // The address of the link must be usable at once.
                let setting = format!("net.ipv6.conf.{name}.accept_dad=0");
                run(&format!("{within} sysctl -q -w {setting} net.ipv6.conf.{name}.disable_ipv6=0"));
                run(&format!("{within} ip link set {name} up"));
                run(&format!("{within} ip addr add 10.0.{n}.{end}/24 dev {name}"));
                run(&format!("{within} ip addr add 2001:db8:{n}::{end}/48 dev {name} nodad"));
            }
        }
        clients
    }

    /// Returns the start of a command in this namespace.
    fn prefix(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.holder.id())
    }

    fn command(&self, program: &str) -> Command {
        let prefix = self.prefix();
        let mut words = prefix.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(program);
        command
    }

    /// Starts clients with these numbers at the server of a link.
    fn load<L: OfKea>(&self, link: u8, first: u32, count: u32) -> Child {
        let number = format!("{:012x}", 0x000c_0000_0000_u64 + u64::from(first));
        let mac: Vec<_> = (0..6).map(|n| &number[2 * n..2 * n + 2]).collect();
        let mut command = self.command("perfdhcp");
        let rate = RATES[usize::from(L::FAMILY == Family::V6)];
        command.arg(format!("-{}", L::NUMBER)).args(["-r", &rate.to_string(), "-R", &count.to_string()]);
        command.args(["-n", &count.to_string(), "-W", "1000000", "-d", "5"]);
        command.args(["-b", &format!("mac={}", mac.join(":")), "-l", &format!("cli{link}")]);
        if L::FAMILY == Family::V4 {
            // A hostname, and the information of a relay agent.
            command.args(["-o", "12,486f7374", "-o", "82,0104aabbccdd02020a0b", &format!("10.0.{link}.1")]);
        } else {
            command.args(["-A1", "-b", &format!("duid=00030001{number}")]);
            command.args(["-e", "address-and-prefix", "all"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Lets clients ask servers, each with its link, the first client and the number of clients, until
    /// there are `expected` leases: on a busy machine, answers come too late.
    fn serve<L: OfKea>(
        &self,
        loads: &[(u8, u32, u32)],
        kea: &KeaServer,
        ours: &dyn LeaseMgr<L>,
        expected: usize,
    ) -> BTreeMap<L::Address, L> {
        let start = Instant::now();
        loop {
            let running = loads.iter().map(|&(link, first, count)| self.load::<L>(link, first, count));
            for load in running.collect::<Vec<_>>() {
                let output = load.wait_with_output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout);
                // The status is that of drops, too.
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(text.contains("***Statistics for: "), "{text}{error}");
            }
            let leases = compare(kea, ours);
            if leases.len() >= expected {
                return leases;
            }
            assert!(start.elapsed() < LIMIT, "{} leases, not {expected}", leases.len());
        }
    }

    /// Starts to record the grants of a link.
    fn record<L: OfKea>(&self, link: u8, directory: &Path) -> Recorder {
        let file = directory.join(format!("acks{link}"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ack-recorder.py");
        let mut child = self
            .command("python3")
            .arg(script)
            .args([&L::NUMBER.to_string(), &format!("cli{link}")])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Recorder { child, file }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for n in 0..2 {
            // At once, and not when the kernel removes the namespace.
            let _ = Command::new("ip").args(["link", "del", &format!("srv{n}")]).output();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

struct Recorder {
    child: Child,
    file: PathBuf,
}

/// A client was granted an address.
struct Grant {
    address: IpAddr,
    client: String,
}

impl Recorder {
    fn end(mut self) -> Vec<Grant> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let text = fs::read_to_string(&self.file).unwrap();
        let mut grants = Vec::new();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[0] {
                "ack" => grants.push(Grant { address: words[3].parse().unwrap(), client: words[4].into() }),
                "end" => assert_eq!(words[2], "0", "packets that were not recorded"),
                _ => panic!("{line}"),
            }
        }
        grants
    }
}

/// The example server of this crate, on the first link.
struct Ours(Child);

impl Ours {
    fn start<L: OfKea>(database: &Database, directory: &Path) -> Self {
        let own = std::env::current_exe().unwrap();
        let name = format!("examples/dhcp{}_server", L::NUMBER);
        let program = own.parent().and_then(Path::parent).unwrap().join(name);
        assert!(program.exists(), "{}: build it with cargo build --examples", program.display());
        let log = directory.join("ours.log");
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.arg(database.connection()).args(["--interface", "srv0"]);
        let [subnet, pool, prefixes] = ranges::<L>();
        command.args(["--subnet", subnet, "--pool", pool]);
        if L::FAMILY == Family::V4 {
            command.args(["--bind", "10.0.0.1:67", "--server-id", "10.0.0.1"]);
        } else {
            command.args([
                "--bind",
                "[::]:547",
                "--pd-pool",
                prefixes,
                "--server-id",
                "00:02:00:00:09:bf:01",
            ]);
        }
        let mut child = command.stdin(Stdio::null()).stderr(output).spawn().unwrap();
        wait_until("the server listens", || {
            let text = fs::read_to_string(&log).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "{text}");
            text.starts_with("listening on ")
        });
        Self(child)
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the subnet, the pool and the pool of prefixes of both servers. The pools have room for
/// all clients, and little more.
fn ranges<L: OfKea>() -> [&'static str; 3] {
    match L::FAMILY {
        Family::V4 => ["10.0.0.0/8", "10.64.0.0-10.64.23.255", ""],
        Family::V6 => ["2001:db8::/32", "2001:db8:ffff::-2001:db8:ffff::17ff", "2001:db8:8000::/51/64"],
    }
}

/// Returns what the configuration of Kea's server adds to the usual one.
fn configuration<L: OfKea>(database: &Database) -> Value {
    let connection: ConnectionString = database.connection().parse().unwrap();
    let value = |keyword| connection.get(keyword).unwrap();
    let [subnet, pool, prefixes] = ranges::<L>();
    let mut subnet = json!({
        "id": 1, "subnet": subnet, "pools": [{ "pool": pool.replace('-', " - ") }], "store-extended-info": true,
    });
    let mut interfaces = json!({ "interfaces": ["srv1"] });
    if L::FAMILY == Family::V4 {
        interfaces["dhcp-socket-type"] = "udp".into();
    } else {
        let parts: Vec<_> = prefixes.split('/').collect();
        let number = |n: usize| parts[n].parse::<u8>().unwrap();
        subnet["interface"] = "srv1".into();
        subnet["pd-pools"] =
            json!([{ "prefix": parts[0], "prefix-len": number(1), "delegated-len": number(2) }]);
    }
    json!({
        "interfaces-config": interfaces,
        "lease-database": {
            "type": value("type"), "name": value("name"), "host": value("host"),
            "port": value("port").parse::<u16>().unwrap(), "user": value("user"), "password": value("password"),
        },
        "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2 },
        format!("subnet{}", L::NUMBER): [subnet],
    })
}

/// Returns who has an address or prefix, as the recorder writes it.
trait Granted: OfKea {
    fn owner(&self) -> String;
}

impl Granted for Lease4 {
    fn owner(&self) -> String {
        self.hwaddr().unwrap().to_string()
    }
}

impl Granted for Lease6 {
    fn owner(&self) -> String {
        format!("{}/{}", self.duid(), self.iaid())
    }
}

/// Checks that no address was granted to two clients, and that each client has what it was granted.
fn check<L: Granted>(grants: &[Grant], leases: &BTreeMap<L::Address, L>) {
    let leases: BTreeMap<IpAddr, _> =
        leases.iter().map(|(address, lease)| ((*address).into(), lease.owner())).collect();
    let mut owners = BTreeMap::new();
    for Grant { address, client } in grants {
        let owner = owners.entry(address).or_insert(client);
        assert_eq!(*owner, client, "{address} was given out twice");
        assert_eq!(leases.get(address), Some(client), "{address}");
    }
}

/// Waits until both see the same leases: a server may still answer messages that clients have
/// repeated.
fn compare<L: OfKea>(kea: &KeaServer, ours: &dyn LeaseMgr<L>) -> BTreeMap<L::Address, L> {
    let start = Instant::now();
    loop {
        let leases = all(ours);
        let (mut keas, shown) = (kea.leases::<L>(), shown(&leases));
        if keas == shown {
            return leases;
        }
        if start.elapsed() > LIMIT {
            for (address, lease) in &shown {
                assert_eq!(keas.remove(address).as_ref(), Some(lease), "of Kea, and of this crate");
            }
            panic!("only Kea has {keas:?}");
        }
    }
}

fn load<L: Granted>(server: Server) {
    let database = Database::of_kea(server);
    let directory = tempfile::tempdir().unwrap();
    let clients = Clients::new();
    let kea = KeaServer::start::<L>(directory.path(), &configuration::<L>(&database), &[]);
    let ours = Ours::start::<L>(&database, directory.path());
    let leases = database.open::<L>();
    let recorders = [clients.record::<L>(0, directory.path()), clients.record::<L>(1, directory.path())];

    let count = usize::try_from(CLIENTS).unwrap() * if L::FAMILY == Family::V4 { 1 } else { 2 };
    clients.serve(&[(1, CLIENTS, CLIENTS)], &kea, &*leases, count);
    clients.serve(&[(0, 2 * CLIENTS, CLIENTS)], &kea, &*leases, 2 * count);
    // At once: new clients of each server, and at both servers those that have leases.
    let loads = [(0, 0, 3 * CLIENTS), (1, CLIENTS, 3 * CLIENTS)];
    let leases = clients.serve(&loads, &kea, &*leases, 4 * count);
    let grants = recorders.map(Recorder::end);
    println!("{} leases; grants: {} and {}", leases.len(), grants[0].len(), grants[1].len());
    assert!(grants.iter().all(|of_server| of_server.len() >= 2 * count));
    check(&grants.into_iter().flatten().collect::<Vec<_>>(), &leases);
    ours.end();
}

/// What is written with Kea's commands is read here, and leases of all kinds from here are read by
/// Kea, each field equal.
fn exchange<L: OfKea>(server: Server) {
    let database = Database::of_kea(server);
    let directory = tempfile::tempdir().unwrap();
    let connection = json!({ "lease-database": configuration::<L>(&database)["lease-database"] });
    let kea = KeaServer::start::<L>(directory.path(), &connection, &[]);
    let leases = database.open::<L>();
    let mut refused = Vec::new();
    for command in L::commands().as_array().unwrap() {
        let answer = kea.ask(command[0].as_str().unwrap(), Some(&command[1])).unwrap();
        if answer["result"] != 0 {
            refused.push(format!("{command}: {answer}"));
        }
        compare(&kea, &*leases);
    }
    println!("refused by Kea: {}", refused.join("\n"));
    assert!(refused.len() < 5, "{refused:#?}");
    assert!(all(&*leases).len() >= 5);

    database.execute("DELETE FROM lease4; DELETE FROM lease6");
    let mut kept = 0;
    for lease in L::samples() {
        match leases.add(&lease) {
            Ok(added) => {
                assert_eq!(added, Added::Added);
                assert_eq!(leases.get(lease.address()).unwrap(), Some(lease.without_pool()));
                kept += 1;
            }
            Err(LeaseMgrError::CannotKeep { field, .. }) => println!("{}: {field}", lease.address()),
            Err(error) => panic!("{}: {error}", lease.address()),
        }
        compare(&kea, &*leases);
    }
    assert!(kept >= 8, "{kept} leases");
}

#[rstest]
fn servers_share_one_pool_under_load(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let _network = NETWORK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if kea_is_installed() {
        match family {
            Family::V4 => load::<Lease4>(server),
            Family::V6 => load::<Lease6>(server),
        }
    }
}

#[rstest]
fn leases_of_all_kinds_are_the_same_for_both(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let _network = NETWORK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if kea_is_installed() {
        match family {
            Family::V4 => exchange::<Lease4>(server),
            Family::V6 => exchange::<Lease6>(server),
        }
    }
}

impl Database {
    /// Makes a database with the schema before that of Kea 2.2, by Kea's own script.
    fn of_version_12() -> Self {
        let database = Self { server: Server::Postgresql, name: Self::new_name("old12"), _turn: None };
        database.server.execute("postgres", &format!("CREATE DATABASE {}", database.name));
        let script = fs::read_to_string("/usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql").unwrap();
        // It makes one version after the other, in one transaction.
        let version = script.find("SET version = '12'").unwrap();
        let end = version + script[version..].find(';').unwrap() + 1;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{} COMMIT;", &script[..end]).unwrap();
        let address = format!("{} dbname={}", database.server.address(), database.name);
        let psql = Command::new("psql")
            .args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", &address])
            .arg("-f")
            .arg(file.path())
            .output()
            .unwrap();
        assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
        assert_eq!(database.execute("SELECT version FROM schema_version").trim(), "12");
        database
    }

    /// Returns the triggers of the lease tables that are not Kea's.
    fn own_triggers(&self) -> String {
        self.execute(
            "SELECT pg_get_triggerdef(oid) || ' ' || tgenabled::text FROM pg_trigger \
             WHERE tgname LIKE 'leasemgr%' ORDER BY tgrelid::regclass::text, tgname",
        )
    }
}

/// Upgrades a database, and checks that Kea's server starts with it, that both read each other's
/// leases, and that the manager is told of those of Kea, if the database has triggers for it.
fn is_accepted_after_an_upgrade<L: OfKea>(database: &Database, version: &str, is_notified: bool) {
    database.kea_admin("db-upgrade", &[]);
    assert!(database.kea_admin("db-version", &[]).lines().any(|line| line == version));
    let directory = tempfile::tempdir().unwrap();
    let connection = json!({ "lease-database": configuration::<L>(database)["lease-database"] });
    let kea = KeaServer::start::<L>(directory.path(), &connection, &[]);
    let leases = database.open::<L>();
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&told);
    let note = move |change: &Change<'_, L>| {
        if change.origin() == Origin::Elsewhere {
            noted.lock().unwrap().insert(change.address());
        }
    };
    leases.tracking().register("told", ChangeKind::Add, None, note).unwrap();
    let commands = L::commands();
    let accepted =
        commands.as_array().unwrap().iter().filter(|command| {
            kea.ask(command[0].as_str().unwrap(), Some(&command[1])).unwrap()["result"] == 0
        });
    assert!(accepted.count() >= 5);
    let there = compare(&kea, &*leases);
    if is_notified {
        wait_until("the manager is told", || {
            there.keys().all(|address| told.lock().unwrap().contains(address))
        });
    }
    for address in there.keys() {
        assert_eq!(leases.delete(*address).unwrap(), Deleted::Deleted);
    }
    assert!(compare(&kea, &*leases).is_empty());
}

#[rstest]
#[case::made_here(Database::of_version_2_2(Server::Postgresql), "13.0")]
#[case::of_the_version_before(Database::of_version_12(), "13.0")]
fn triggers_that_notify_stay_after_an_upgrade(#[case] database: Database, #[case] version: &str) {
    if kea_is_installed() {
        leasemgr::postgresql::install_notify(&database.connection().parse().unwrap()).unwrap();
        let triggers = database.own_triggers();
        assert_eq!(triggers.lines().count(), 6);
        is_accepted_after_an_upgrade::<Lease4>(&database, version, true);
        is_accepted_after_an_upgrade::<Lease6>(&database, version, true);
        assert_eq!(database.own_triggers(), triggers);
    }
}

#[test]
fn a_schema_made_here_is_accepted_after_an_upgrade_of_mariadb() {
    if kea_is_installed() {
        let database = Database::of_version_2_2(Server::Mariadb);
        is_accepted_after_an_upgrade::<Lease4>(&database, "14.0", false);
        is_accepted_after_an_upgrade::<Lease6>(&database, "14.0", false);
    }
}
