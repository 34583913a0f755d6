//! Faults of databases, on the servers of `scripts/databases`: connections that end at any message,
//! and servers that are killed.
//!
//! The nightly tier sets `LEASEMGR_FAULTS=all`: every message, and more kills.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

#[path = "support/database_pool.rs"]
mod database_pool;
#[path = "support/database_servers.rs"]
mod database_servers;
#[path = "support/databases.rs"]
mod databases;
#[path = "support/history.rs"]
mod history;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use databases::{Database, Server};
use history::{Call, History, Outcome};
use leasemgr::conformance::{Fixture, Suite};
use leasemgr::connection::ConnectionString;
use leasemgr::lease::{Family, Fields, Lease4, Lease6, Lifetime, SubnetId};
use leasemgr::{
    Availability, ClientKey, Done, LeaseMgr, LeaseMgrError, LeaseMgrFactory, ManagedLease, Operation, Query,
};
use proxy::{Cut, Message, Protocol, Proxy};
use rstest::rstest;

impl Database {
    /// Makes a database that no other test gets afterwards.
    fn spoiled(server: Server) -> Self {
        let name = Self::new_name("spoiled");
        server.create(&name, None);
        Self { server, name, _turn: None }
    }

    /// Returns a connection string for the same database through another port of this machine.
    fn connection_at(&self, port: u16, options: &str) -> String {
        let (server, name) = (self.server.backend(), &self.name);
        format!("type={server} name={name} host=127.0.0.1 port={port} user=kea password=kea {options}")
    }
}

/// Maximum time to wait for what must happen at last.
const LIMIT: Duration = Duration::from_secs(300);
const SUBNET: u32 = 7;

/// Whether everything is tried, which takes long.
fn is_thorough() -> bool {
    env::var("LEASEMGR_FAULTS").is_ok_and(|value| value == "all")
}

/// Returns the right to use a server alone: a test may kill it.
fn alone(server: Server) -> MutexGuard<'static, ()> {
    static POSTGRESQL: Mutex<()> = Mutex::new(());
    static MARIADB: Mutex<()> = Mutex::new(());
    let mutex = if server == Server::Postgresql { &POSTGRESQL } else { &MARIADB };
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn protocol(server: Server) -> Protocol {
    if server == Server::Postgresql { Protocol::Postgresql } else { Protocol::Mysql }
}

/// Returns a proxy before a server.
fn proxy(server: Server) -> Proxy {
    let address: ConnectionString =
        format!("type={} {}", server.backend(), server.address()).parse().unwrap();
    let port = address.get("port").unwrap().parse().unwrap();
    Proxy::new(protocol(server), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Returns the lease of the `n`th address for a client.
fn lease<L: ManagedLease>(n: u16, client: u32, heard: i64) -> L {
    let mut fields = Fields::new(address(L::FAMILY, n));
    fields.cltt = 1_763_000_000 + heard;
    fields.valid_lifetime = Lifetime(3600);
    fields.subnet_id = SubnetId(SUBNET);
    let [a, b, c, d] = client.to_be_bytes();
    let client = [0, 1, a, b, c, d];
    fields.client = Some(&client);
    L::from_fields(fields).unwrap()
}

fn address(family: Family, n: u16) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(10 << 24 | u32::from(n)).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into(),
    }
}

fn wait_until_up<L: ManagedLease>(mgr: &dyn LeaseMgr<L>) {
    let start = Instant::now();
    while mgr.status().availability != Availability::Up {
        assert!(start.elapsed() < LIMIT, "{:?}", mgr.status().availability);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns what an operation is to answer if an address has this lease, and which lease it has
/// afterwards; `None` if the operation is refused.
fn expected<L: ManagedLease>(operation: &Operation<L>, there: Option<&L>) -> Option<(Done, Option<L>)> {
    let is_there = |expected: &Option<L>| expected.is_none() || expected.as_ref() == there;
    Some(match (operation, there) {
        (Operation::Add(lease), None) => (Done::Added, Some(lease.clone())),
        (Operation::Add(_), there) => (Done::AddressTaken, there.cloned()),
        (Operation::Update { lease, expected }, Some(_)) if is_there(expected) => {
            (Done::Updated, Some(lease.clone()))
        }
        (Operation::Delete { expected, .. }, Some(_)) if is_there(expected) => (Done::Deleted, None),
        (Operation::Delete { .. }, None) => (Done::NoSuchLease, None),
        _ => return None,
    })
}

/// Returns whether it can be told, from the message at which the connection ended, that an operation
/// was not made, or whether it was.
fn is_decidable(protocol: Protocol, message: &Message, is_alone: bool) -> bool {
    let starts =
        |at: usize, text: &str| message.bytes.get(at..).is_some_and(|sql| sql.starts_with(text.as_bytes()));
    match protocol {
        // Only the preparation of a statement has these.
        Protocol::Postgresql if message.is_of_client => matches!(message.bytes.first(), Some(b'P' | b'D')),
        // The answer to a statement on its own is sent after it is committed. The client may have sent
        // a statement before the last message about the one before has come.
        Protocol::Postgresql => is_alone && message.bytes.first() == Some(&b'C'),
        Protocol::Mysql if message.is_of_client => {
            message.bytes.get(4) == Some(&0x16) || starts(5, "START") || starts(5, "ROLLBACK")
        }
        Protocol::Mysql => true,
    }
}

/// Changes and look-ups of one manager behind a proxy, and the leases that must be there.
struct Life<'a, L: ManagedLease> {
    proxy: &'a Proxy,
    protocol: Protocol,
    direct: &'a dyn LeaseMgr<L>,
    mgr: Arc<dyn LeaseMgr<L>>,
    leases: BTreeMap<L::Address, L>,
    has_fired: bool,
}

impl<'a, L: ManagedLease> Life<'a, L> {
    fn open(proxy: &'a Proxy, database: &Database, direct: &'a dyn LeaseMgr<L>) -> Self {
        let connection = database.connection_at(
            proxy.port,
            "ssl-mode=disable reconnect-wait-time=5 pool-size=2 connect-timeout=60",
        );
        let open = || LeaseMgrFactory::<L>::new().open(&connection);
        let mgr = open().unwrap_or_else(|error| {
            assert!(proxy.fired().is_some(), "{error}");
            proxy.settle();
            open().unwrap()
        });
        let has_fired = proxy.fired().is_some();
        Self { proxy, protocol: protocol(database.server), direct, mgr, leases: BTreeMap::new(), has_fired }
    }

    fn change(&mut self, operations: &[Operation<L>]) {
        let results = match operations {
            [operation] => vec![operation.run(&*self.mgr)],
            _ => self.mgr.apply(operations),
        };
        let fired = self.proxy.fired().filter(|_| !self.has_fired);
        self.has_fired |= fired.is_some();
        if fired.is_some() {
            self.proxy.settle();
        }
        for (operation, result) in operations.iter().zip(results) {
            let address = operation.address();
            let before = self.leases.get(&address);
            let expected = expected(operation, before);
            let after = match (&result, &expected) {
                (Ok(done), Some((expected, after))) if done == expected => after.clone(),
                (Err(LeaseMgrError::NoSuchLease { .. }), None) if before.is_none() => None,
                (Err(LeaseMgrError::ChangedMeanwhile { .. }), None) if before.is_some() => before.cloned(),
                (Err(LeaseMgrError::OutcomeUnknown { .. }), _) => {
                    let message = fired.as_ref().unwrap();
                    let after = expected.map_or_else(|| before.cloned(), |(_, after)| after);
                    let is_decided = is_decidable(self.protocol, message, operations.len() == 1)
                        && after.as_ref() != before;
                    assert!(!is_decided, "{operation:?}: the outcome is known after {message:?}");
                    let there = self.direct.get(address).unwrap();
                    assert!(
                        there == after || there.as_ref() == before,
                        "{operation:?}: half made: {there:?}"
                    );
                    there
                }
                _ => panic!("{operation:?} of {before:?}: {result:?} after {fired:?}"),
            };
            if fired.is_some() {
                assert_eq!(
                    self.direct.get(address).unwrap(),
                    after,
                    "{operation:?}: {result:?} after {fired:?}"
                );
            }
            match after {
                Some(lease) => self.leases.insert(address, lease),
                None => self.leases.remove(&address),
            };
        }
    }

    fn look_up(&mut self) {
        let address = |n| lease::<L>(n, 0, 0).address();
        for n in [1, 5] {
            assert_eq!(self.mgr.get(address(n)).unwrap().as_ref(), self.leases.get(&address(n)));
        }
        let addresses = [1, 2, 3].map(address);
        let found = self.mgr.get_many(&addresses).unwrap();
        assert!(
            found.iter().map(Option::as_ref).eq(addresses.iter().map(|address| self.leases.get(address)))
        );
        let client = [0, 1, 0, 0, 0, 2];
        let query = Query::<L>::client(ClientKey::new(&client)).in_subnet(SubnetId(SUBNET));
        let expected: Vec<_> = self.leases.values().filter(|&lease| query.matches(lease)).cloned().collect();
        assert_eq!(self.mgr.find(&query).unwrap(), expected);
        let page = self.mgr.find(&Query::all().in_subnet(SubnetId(SUBNET)).limit(3)).unwrap();
        assert!(page.iter().eq(self.leases.values().take(3)));
        self.has_fired |= self.proxy.fired().is_some();
    }

    fn run(mut self) {
        let lease = lease::<L>;
        let renewed = |n, client| Operation::update_if_unchanged(&lease(n, client, 0), lease(n, client, 1));
        self.change(&[Operation::Add(lease(1, 1, 0))]);
        self.change(&[Operation::Add(lease(1, 2, 0))]);
        self.look_up();
        self.change(&[renewed(1, 1)]);
        self.change(&[
            Operation::Add(lease(2, 2, 0)),
            Operation::Add(lease(3, 2, 0)),
            Operation::Add(lease(4, 3, 0)),
        ]);
        self.look_up();
        // Not all of them can be made.
        self.change(&[
            Operation::Add(lease(1, 9, 0)),
            renewed(2, 2),
            Operation::delete_if_unchanged(&lease(3, 2, 0)),
            Operation::delete_if_unchanged(&lease(4, 4, 0)),
            Operation::Add(lease(5, 5, 0)),
        ]);
        self.change(&[Operation::update(lease(5, 5, 7))]);
        self.change(&[Operation::delete(lease(1, 1, 0).address())]);
        self.look_up();
        let all = self.direct.find(&Query::all().in_subnet(SubnetId(SUBNET))).unwrap();
        assert!(all.iter().eq(self.leases.values()), "{all:?}");
        wait_until_up(&*self.mgr);
    }
}

fn ends_at_any_message<L: ManagedLease>(server: Server) {
    let _alone = alone(server);
    let database = Database::new(server);
    let (direct, proxy) = (database.open::<L>(), proxy(server));
    for (start, cut) in [(1, Cut::Lost), (2, Cut::Delivered), (3, Cut::Late)] {
        let (start, step) = if is_thorough() { (1, 1) } else { (start, 41) };
        let mut n = start;
        loop {
            direct.wipe_subnet(SubnetId(SUBNET)).unwrap();
            proxy.cut_at(n, cut);
            Life::open(&proxy, &database, &*direct).run();
            if proxy.fired().is_none() {
                break;
            }
            n += step;
        }
        assert!(n > 50, "{n} messages");
        println!("{server:?} {:?}: {cut:?} at {n} messages", L::FAMILY);
    }
}

#[rstest]
fn a_connection_may_end_at_any_message_v4(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    ends_at_any_message::<Lease4>(server);
}

#[rstest]
fn a_connection_may_end_at_any_message_v6(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    ends_at_any_message::<Lease6>(server);
}

/// An idle session that has ended is replaced before a change is sent.
#[rstest]
fn a_change_after_idle_sessions_have_ended_is_made(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    let _alone = alone(server);
    let database = Database::new(server);
    let proxy = proxy(server);
    let connection = database.connection_at(proxy.port, "ssl-mode=disable connect-timeout=60");
    let mgr = LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap();
    for n in 0..3 {
        let operation = Operation::Add(lease::<Lease4>(n, 1, 0));
        assert_eq!(operation.run(&*mgr).unwrap(), Done::Added);
        proxy.end_connections();
        // The end arrives, and the session counts as idle.
        thread::sleep(Duration::from_millis(300));
    }
}

/// A server that accepts a connection and does not answer is given up after `connect-timeout`.
#[rstest]
fn a_silent_server_is_given_up(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let _alone = alone(server);
    let database = Database::new(server);
    let proxy = proxy(server);
    proxy.set_silent(true);
    let start = Instant::now();
    let connection = database.connection_at(proxy.port, "ssl-mode=disable connect-timeout=1");
    let error = LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap_err();
    // The driver for MySQL would wait for a minute.
    assert!(start.elapsed() < Duration::from_secs(40), "{error}");
    proxy.set_silent(false);
    let connection = connection.replace("connect-timeout=1", "connect-timeout=60");
    let _ = LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap();
}

/// A server of `scripts/databases`, by its name there.
#[derive(Clone, Copy, Debug)]
struct Machine(&'static str);

impl Machine {
    fn of(server: Server) -> Self {
        Self(if server == Server::Postgresql { "postgresql" } else { "mariadb" })
    }

    fn directory(self) -> PathBuf {
        PathBuf::from(env::var("LEASEMGR_DATABASES").unwrap()).join(self.0)
    }

    /// Kills the server, first its main process and then its others.
    fn kill(self) {
        let pid = fs::read_to_string(self.directory().join("pid")).unwrap().trim().to_owned();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &pid]).output().unwrap().stdout;
        let children = String::from_utf8(children).unwrap();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        for child in children.split_whitespace() {
            // It may have ended with the main process.
            let _ = Command::new("kill").args(["-KILL", child]).stderr(Stdio::null()).status();
        }
    }

    fn is_running(self) -> bool {
        let pid = fs::read_to_string(self.directory().join("pid")).unwrap();
        fs::read_link(format!("/proc/{}/exe", pid.trim())).is_ok()
    }

    fn start(self) {
        let mut start = Command::new(self.directory().join("start"));
        if self.0 == "postgresql" {
            // Else it syncs each file of all databases first.
            start.args(["-c", "recovery_init_sync_method=syncfs"]);
        }
        let start = start.output().unwrap();
        assert!(start.status.success(), "{self:?}: {}", String::from_utf8_lossy(&start.stderr));
    }
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Number of addresses that the threads of a load use.
const ADDRESSES: u16 = 48;

/// Returns the number of a lease.
fn number_of(lease: &Lease4) -> u32 {
    let fields = lease.fields();
    let client = fields.client.and_then(|client| client.last_chunk()).unwrap();
    u32::from_be_bytes(*client)
}

/// Returns the outcome of a call that has failed.
fn failed(error: &LeaseMgrError) -> Outcome {
    match error {
        LeaseMgrError::NoSuchLease { .. } => Outcome::Absent,
        LeaseMgrError::ChangedMeanwhile { .. } => Outcome::Changed,
        LeaseMgrError::OutcomeUnknown { .. } => Outcome::Unknown,
        LeaseMgrError::Unavailable { .. } => Outcome::Failed,
        error => panic!("{}", leasemgr::with_sources(error)),
    }
}

fn call(mgr: &dyn LeaseMgr<Lease4>, n: u16, call: Call) -> Outcome {
    let lease = |number| lease::<Lease4>(n, number, 0);
    let operation = match call {
        Call::Get => {
            let found = mgr.get(lease(0).address());
            return found
                .map_or_else(|error| failed(&error), |found| Outcome::Read(found.as_ref().map(number_of)));
        }
        Call::Add(number) => Operation::Add(lease(number)),
        Call::Update(read, number) => Operation::update_if_unchanged(&lease(read), lease(number)),
        Call::Delete(read) => Operation::delete_if_unchanged(&lease(read)),
    };
    match operation.run(mgr) {
        Ok(Done::AddressTaken) => Outcome::Taken,
        Ok(Done::NoSuchLease) => Outcome::Absent,
        Ok(_) => Outcome::Made,
        Err(error) => failed(&error),
    }
}

/// Threads that add, renew, delete and read leases of the same addresses, and what they have seen.
struct Load {
    seed: u64,
    history: History,
    numbers: AtomicU32,
    is_over: AtomicBool,
}

impl Load {
    /// Runs threads, `threads` for each manager, while `disturb` does something.
    fn run(
        managers: &[Arc<dyn LeaseMgr<Lease4>>],
        threads: u64,
        seed: u64,
        disturb: impl FnOnce(&Self),
    ) -> Self {
        let load = Self {
            seed,
            history: History::default(),
            numbers: AtomicU32::new(1),
            is_over: AtomicBool::new(false),
        };
        thread::scope(|scope| {
            /// Ends the threads also after a panic.
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let end = End(&load.is_over);
            for (number, mgr) in managers.iter().enumerate() {
                for thread in 0..threads {
                    let random = Random(seed * 1_000_003 + number as u64 * 1009 + thread + 1);
                    let load = &load;
                    scope.spawn(move || load.work(&**mgr, random));
                }
            }
            disturb(&load);
            drop(end);
        });
        load
    }

    fn work(&self, mgr: &dyn LeaseMgr<Lease4>, mut random: Random) {
        let mut known = [None; ADDRESSES as usize];
        while !self.is_over.load(Ordering::Relaxed) {
            let n = u16::try_from(random.below(ADDRESSES.into())).unwrap();
            let known = &mut known[usize::from(n)];
            let new = || self.numbers.fetch_add(1, Ordering::Relaxed);
            let next = match (*known, random.below(8)) {
                (_, 0 | 1) => Call::Get,
                (None, _) => Call::Add(new()),
                (Some(there), 2..=4) => Call::Update(there, new()),
                (Some(there), _) => Call::Delete(there),
            };
            let outcome = self.history.record(n, next, || call(mgr, n, next));
            *known = match (next, outcome) {
                (_, Outcome::Read(read)) => read,
                (Call::Add(new) | Call::Update(_, new), Outcome::Made) => Some(new),
                // Something to refer to, though it has changed.
                (Call::Update(read, _) | Call::Delete(read), Outcome::Changed) if random.below(2) == 0 => {
                    Some(read)
                }
                _ => None,
            };
            if outcome == Outcome::Failed {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn made(&self) -> usize {
        self.history.count(|outcome| outcome == Outcome::Made)
    }

    /// Waits until the threads have made further changes.
    fn wait_for_changes(&self, count: usize) {
        let (start, wanted) = (Instant::now(), self.made() + count);
        while self.made() < wanted {
            assert!(start.elapsed() < LIMIT, "no changes are made");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads all addresses, and checks what was seen.
    fn check(&self, managers: &[Arc<dyn LeaseMgr<Lease4>>]) {
        for mgr in managers {
            wait_until_up(&**mgr);
            for n in 0..ADDRESSES {
                let outcome = self.history.record(n, Call::Get, || call(&**mgr, n, Call::Get));
                assert!(matches!(outcome, Outcome::Read(_)), "{outcome:?}");
            }
        }
        let count = |wanted| self.history.count(|outcome| outcome == wanted);
        println!(
            "seed {}: {} changes, {} unknown, {} unavailable",
            self.seed,
            self.made(),
            count(Outcome::Unknown),
            count(Outcome::Failed)
        );
        self.history.check();
    }
}

/// Kills the server again and again, while 8 threads of two managers change leases.
#[rstest]
fn killed_servers_lose_nothing(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let _alone = alone(server);
    let database = Database::new(server);
    let connection = database.connection() + " reconnect-wait-time=50";
    let open = || LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap();
    let managers = [open(), open()];
    let seed = 1;
    let load = Load::run(&managers, 4, seed, |load| {
        let mut random = Random(seed);
        for _ in 0..if is_thorough() { 50 } else { 5 } {
            load.wait_for_changes(50 + usize::try_from(random.below(100)).unwrap());
            Machine::of(server).kill();
            Machine::of(server).start();
        }
        load.wait_for_changes(50);
    });
    load.check(&managers);
}

/// The connection of one of two managers of a database ends, or is silent for a while, again and
/// again.
#[rstest]
fn a_manager_that_is_cut_off_from_its_database_sees_no_other_leases(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    let _alone = alone(server);
    let database = Database::new(server);
    let proxy = proxy(server);
    let open = |connection: String| LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap();
    let options = "ssl-mode=disable reconnect-wait-time=5 connect-timeout=60";
    let managers = [open(database.connection()), open(database.connection_at(proxy.port, options))];
    for seed in 1..=if is_thorough() { 20 } else { 1 } {
        managers[0].wipe_subnet(SubnetId(SUBNET)).unwrap();
        let load = Load::run(&managers, 4, seed, |load| {
            let mut random = Random(seed);
            for _ in 0..10 {
                load.wait_for_changes(usize::try_from(random.below(40)).unwrap());
                proxy.set_silent(random.below(2) == 0);
                proxy.end_connections();
                load.wait_for_changes(usize::try_from(random.below(40)).unwrap());
                proxy.set_silent(false);
            }
        });
        load.check(&managers);
    }
}

/// Returns a connection string for the database of `kea-admin` on several machines, given by the
/// variable with their hosts, or on some of them.
fn connection_to(kind: &str, variable: &str, hosts: &str) -> String {
    let address = env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"));
    let address: ConnectionString = format!("type={kind} {address}").parse().unwrap();
    let port = address.get("port").unwrap();
    format!(
        "type={kind} name=kea22 host={hosts} port={port} user=kea password=kea reconnect-wait-time=50 connect-timeout=60"
    )
}

fn open(connection: &str) -> Arc<dyn LeaseMgr<Lease4>> {
    let mgr = LeaseMgrFactory::<Lease4>::new().open(connection).unwrap();
    mgr.wipe_subnet(SubnetId(SUBNET)).unwrap();
    mgr
}

/// The standby takes the place of its primary, which is killed. It cannot be repeated.
#[test]
fn a_promoted_standby_has_what_the_primary_acknowledged() {
    let connection = connection_to("postgresql", "LEASEMGR_PRIMARY", "127.0.0.1,127.0.0.2")
        + " target-session-attrs=read-write";
    let managers = [open(&connection), open(&connection)];
    let load = Load::run(&managers, 4, 2, |load| {
        load.wait_for_changes(200);
        Machine("primary").kill();
        let standby = Machine("standby").directory();
        let port = connection.parse::<ConnectionString>().unwrap();
        let mut promote = Command::new("psql");
        promote.arg("-X").arg("-h").arg(standby).args(["-U", "postgres", "-p", port.get("port").unwrap()]);
        let promoted = promote.args(["-d", "postgres", "-c", "SELECT pg_promote()"]).output().unwrap();
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
        load.wait_for_changes(200);
    });
    load.check(&managers);
}

/// Returns the right to disturb the cluster.
fn cluster_alone() -> MutexGuard<'static, ()> {
    static CLUSTER: Mutex<()> = Mutex::new(());
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a manager on each node.
fn nodes() -> [Arc<dyn LeaseMgr<Lease4>>; 3] {
    ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|host| open(&connection_to("mysql", "LEASEMGR_GALERA", host)))
}

/// Executes a statement on a node of the cluster as its administrator.
fn administer(node: Machine, sql: &str) -> String {
    let socket = format!("--socket={}", node.directory().join("socket").display());
    let output = Command::new("mariadb")
        .args(["--no-defaults", "-N", "-B", "-u", "root", &socket, "-e", sql])
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a node is in step with the cluster, or until it is not in the majority.
fn wait_for_node(node: Machine, is_in: bool) {
    let start = Instant::now();
    let status = "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_status', 'wsrep_local_state_comment')";
    loop {
        let status = administer(node, status);
        let is_synced = status.contains("\tPrimary") && status.contains("Synced");
        if if is_in { is_synced } else { !status.contains("\tPrimary") } {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{node:?}: {status}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn nodes_of_a_cluster_change_the_same_leases() {
    let _alone = cluster_alone();
    let managers = nodes();
    Load::run(&managers, 2, 3, |load| load.wait_for_changes(300)).check(&managers);
}

#[test]
fn a_killed_node_of_a_cluster_loses_nothing() {
    let _alone = cluster_alone();
    let managers = nodes();
    let load = Load::run(&managers, 2, 4, |load| {
        for node in if is_thorough() { vec!["galera1", "galera2", "galera3"] } else { vec!["galera3"] } {
            load.wait_for_changes(100);
            Machine(node).kill();
            load.wait_for_changes(50);
            Machine(node).start();
            load.wait_for_changes(50);
        }
    });
    load.check(&managers);
}

/// A node that is late with the changes of others waits for them before it reads.
#[test]
fn a_node_of_a_cluster_reads_what_another_one_has_acknowledged() {
    let _alone = cluster_alone();
    let [first, second, _] = nodes();
    let node = Machine("galera1");
    administer(
        node,
        "CREATE DATABASE IF NOT EXISTS big; CREATE OR REPLACE TABLE big.big (n INT PRIMARY KEY)",
    );
    // A change that the others make for longer than the next one takes here.
    administer(node, "USE big; INSERT INTO big SELECT seq FROM seq_1_to_200000");
    assert_eq!(call(&*first, 1, Call::Add(1)), Outcome::Made);
    assert_eq!(call(&*second, 1, Call::Get), Outcome::Read(Some(1)));
    administer(node, "DELETE FROM big.big");
    assert_eq!(call(&*first, 1, Call::Update(1, 2)), Outcome::Made);
    assert_eq!(call(&*second, 1, Call::Update(2, 3)), Outcome::Made);
    administer(node, "DROP DATABASE big");
}

/// A database of the cluster, whose managers are each on another node.
struct Nodes {
    next: AtomicUsize,
    is_shared: bool,
}

impl Nodes {
    const NAME: &str = "nodes";

    fn connection(&self) -> String {
        let host = format!("127.0.0.{}", 1 + self.next.fetch_add(1, Ordering::Relaxed) % 3);
        connection_to("mysql", "LEASEMGR_GALERA", &host)
            .replace("name=kea22", &format!("name={}", Self::NAME))
    }
}

impl Fixture<Lease4> for Nodes {
    fn open(&self) -> Arc<dyn LeaseMgr<Lease4>> {
        LeaseMgrFactory::new().open(&self.connection()).unwrap()
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }
}

/// Managers on different nodes obey the rules about managers of one database.
#[test]
fn managers_on_nodes_of_a_cluster_obey_the_rules() {
    let _alone = cluster_alone();
    let node = Machine("galera1");
    let name = Nodes::NAME;
    administer(node, &format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"));
    let nodes = |is_shared| Nodes { next: AtomicUsize::new(0), is_shared };
    leasemgr::mysql::create_schema(&nodes(true).connection().parse().unwrap(), None).unwrap();
    let suite = Suite::<Lease4>::new().time_limit(LIMIT);
    let (mut violations, mut count) = (Vec::new(), 0);
    for rule in suite.rules() {
        let is_about_sharing = !rule.applies_to(&nodes(false));
        if !is_about_sharing {
            continue;
        }
        let tables = ["lease4", "lease4_stat", "lease4_pool_stat", "lease4_stat_by_client_class"];
        let emptied = tables.map(|table| format!("DELETE FROM {name}.{table}")).join(";");
        administer(node, &emptied);
        let states = format!(
            "INSERT IGNORE INTO {name}.lease_state VALUES (5, '5'), (77, '77'), (78, '78'), (256, '256')"
        );
        administer(node, &states);
        violations.extend(rule.check(Arc::new(nodes(true))).err());
        count += 1;
    }
    assert!(count > 3, "{count} rules");
    leasemgr::conformance::assert_none(&violations);
}

/// A node without a majority changes and reads nothing; the others go on.
#[test]
fn a_node_that_is_cut_off_from_its_cluster_refuses() {
    let _alone = cluster_alone();
    let managers = nodes();
    let load = Load::run(&managers, 2, 5, |load| {
        for node in ["galera3", "galera1"].map(Machine).into_iter().take(if is_thorough() { 2 } else { 1 }) {
            load.wait_for_changes(100);
            administer(node, "SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'");
            wait_for_node(node, false);
            load.wait_for_changes(100);
            let mgr = &managers[if node.0 == "galera3" { 2 } else { 0 }];
            assert_eq!(call(&**mgr, ADDRESSES, Call::Get), Outcome::Failed);
            assert_eq!(call(&**mgr, ADDRESSES, Call::Add(1)), Outcome::Failed);
            administer(node, "SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'");
            wait_for_node(node, true);
            load.wait_for_changes(100);
        }
    });
    load.check(&managers);
}

/// Returns the text of an error with its causes.
fn text(error: &dyn std::error::Error) -> String {
    leasemgr::with_sources(error).to_string()
}

fn add(mgr: &dyn LeaseMgr<Lease4>, n: u16) -> Result<Done, LeaseMgrError> {
    Operation::Add(lease::<Lease4>(n, 1, 0)).run(mgr)
}

#[rstest]
fn a_wrong_password_is_not_shown(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let _alone = alone(server);
    let database = Database::new(server);
    let connection = database.connection().replace("password=kea", "password=Secret4711");
    let error = LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap_err();
    for text in [text(&error), format!("{error:?}")] {
        assert!(text.contains("kea") && !text.contains("Secret4711"), "{text}");
    }
}

#[rstest]
fn a_read_only_database_is_not_changed(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let _alone = alone(server);
    let database = Database::spoiled(server);
    let mgr = database.open::<Lease4>();
    assert_eq!(add(&*mgr, 1).unwrap(), Done::Added);
    let connection = match server {
        Server::Postgresql => {
            database
                .execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
            database.connection()
        }
        Server::Mariadb => {
            // The user of the tests may change a server that is read-only.
            administer(
                Machine::of(server),
                &format!(
                    "CREATE OR REPLACE USER plain IDENTIFIED BY 'kea'; GRANT ALL ON {}.* TO plain; SET GLOBAL read_only = 1",
                    database.name
                ),
            );
            database.connection().replace("user=kea", "user=plain")
        }
    };
    let opened = LeaseMgrFactory::<Lease4>::new().open(&connection);
    let any = LeaseMgrFactory::<Lease4>::new().open(&format!("{connection} target-session-attrs=any"));
    let results = any.as_ref().map(|any| (add(&**any, 2), any.get(lease::<Lease4>(1, 0, 0).address())));
    if server == Server::Mariadb {
        administer(Machine::of(server), "SET GLOBAL read_only = 0; DROP USER plain");
    }
    let error = text(&opened.unwrap_err());
    assert!(error.contains("read-only"), "{error}");
    let (added, read) = results.unwrap();
    assert!(matches!(added, Err(LeaseMgrError::ReadOnly { .. })), "{added:?}");
    assert_eq!(read.unwrap(), Some(lease(1, 1, 0)));
    let readonly =
        LeaseMgrFactory::<Lease4>::new().open(&format!("{} readonly=true", database.connection())).unwrap();
    assert!(matches!(add(&*readonly, 2), Err(LeaseMgrError::ReadOnly { .. })));
    assert_eq!(mgr.get(lease::<Lease4>(2, 0, 0).address()).unwrap(), None);
}

#[rstest]
fn a_missing_table_is_named(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    let _alone = alone(server);
    let database = Database::spoiled(server);
    let mgr = database.open::<Lease4>();
    assert_eq!(add(&*mgr, 1).unwrap(), Done::Added);
    database.execute("ALTER TABLE lease4 RENAME TO lease4_away");
    let error = add(&*mgr, 2).unwrap_err();
    assert!(matches!(error, LeaseMgrError::Backend(_)) && text(&error).contains("lease4"), "{error:?}");
    let error = mgr.get(lease::<Lease4>(1, 0, 0).address()).unwrap_err();
    assert!(matches!(error, LeaseMgrError::Backend(_)) && text(&error).contains("lease4"), "{error:?}");
    database.execute("ALTER TABLE lease4_away RENAME TO lease4");
    assert_eq!(add(&*mgr, 2).unwrap(), Done::Added);
    database.execute("ALTER TABLE schema_version RENAME TO schema_away");
    let error = LeaseMgrFactory::<Lease4>::new().open(&database.connection()).unwrap_err();
    assert!(text(&error).contains("schema"), "{}", text(&error));
}

/// The error of a server whose disk is full.
#[rstest]
fn a_full_disk_refuses_changes_and_not_look_ups(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    let _alone = alone(server);
    let database = Database::spoiled(server);
    let mgr = database.open::<Lease4>();
    assert_eq!(add(&*mgr, 1).unwrap(), Done::Added);
    database.execute(match server {
        Server::Postgresql => {
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$; \
             CREATE TRIGGER full_disk BEFORE INSERT ON lease4 FOR EACH ROW EXECUTE FUNCTION full_disk()"
        }
        Server::Mariadb => {
            "CREATE TRIGGER full_disk BEFORE INSERT ON lease4 FOR EACH ROW \
             SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'the table is full'"
        }
    });
    let error = add(&*mgr, 2).unwrap_err();
    let LeaseMgrError::Write { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(mgr.get(lease::<Lease4>(1, 0, 0).address()).unwrap(), Some(lease(1, 1, 0)));
    database.execute(match server {
        Server::Postgresql => "DROP TRIGGER full_disk ON lease4",
        Server::Mariadb => "DROP TRIGGER full_disk",
    });
    assert_eq!(add(&*mgr, 2).unwrap(), Done::Added);
}

/// A file system in memory that has the tables of a database, and little room.
struct SmallDisk {
    place: PathBuf,
    database: Database,
}

impl SmallDisk {
    const BYTES: u64 = 64 << 20;
    /// Room that is left beside the tables.
    const ROOM: u64 = 1 << 20;

    fn new(server: Server) -> Self {
        let name = Database::new_name("small");
        // A directory within the data is a database of MariaDB, and a tablespace of PostgreSQL is
        // outside of it.
        let (place, owner) = match server {
            Server::Postgresql => (Machine::of(server).directory().join(&name), "postgres"),
            Server::Mariadb => (Machine::of(server).directory().join("data").join(&name), "mysql"),
        };
        fs::create_dir(&place).unwrap();
        let options = format!("size={},uid={owner},gid={owner},mode=700", Self::BYTES);
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", place.to_str().unwrap()]);
        let disk = Self { place, database: Database { server, name, _turn: None } };
        let (database, name) = (&disk.database, &disk.database.name);
        let connection = database.connection().parse().unwrap();
        match server {
            Server::Postgresql => {
                let directory = Machine::of(server).directory();
                let address: ConnectionString =
                    format!("type=postgresql {}", server.address()).parse().unwrap();
                let tablespace =
                    format!("CREATE TABLESPACE {name} OWNER kea LOCATION '{}'", disk.place.display());
                let (directory, port) = (directory.to_str().unwrap(), address.get("port").unwrap());
                run(
                    "psql",
                    &[
                        "-X",
                        "-q",
                        "-h",
                        directory,
                        "-p",
                        port,
                        "-U",
                        "postgres",
                        "-d",
                        "postgres",
                        "-c",
                        &tablespace,
                    ],
                );
                server.execute("postgres", &format!("CREATE DATABASE {name} TABLESPACE {name}"));
                leasemgr::postgresql::create_schema(&connection, None).unwrap();
            }
            Server::Mariadb => leasemgr::mysql::create_schema(&connection, None).unwrap(),
        }
        disk
    }

    fn ballast(&self) -> PathBuf {
        self.place.join("ballast")
    }

    /// Fills the file system but for a small room.
    fn fill(&self) {
        let statistics = rustix::fs::statvfs(&self.place).unwrap();
        let free = statistics.f_bavail * statistics.f_frsize;
        let ballast = vec![0; usize::try_from(free - Self::ROOM).unwrap()];
        fs::write(self.ballast(), ballast).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that cannot find its tables any longer is not asked to use them.
        let (server, name) = (self.database.server, &self.database.name);
        if !thread::panicking() {
            match server {
                Server::Postgresql => {
                    server.execute("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"))
                }
                Server::Mariadb => {
                    let tables = format!(
                        "SELECT concat('DROP TABLE ', table_schema, '.', table_name) FROM information_schema.tables \
                         WHERE table_schema = '{name}'"
                    );
                    let tables = server.execute("kea22", &tables).trim().replace('\n', "; ");
                    server.execute("kea22", &format!("SET foreign_key_checks = 0; {tables}"))
                }
            };
        }
        run("umount", &["--lazy", self.place.to_str().unwrap()]);
        let _ = fs::remove_dir(&self.place);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

/// What became of an operation on a full disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addition {
    Made,
    /// There was no room.
    Refused,
    /// There was no server any longer.
    Unavailable,
    Unknown,
}

/// Adds leases of addresses of its own until a batch is refused, and returns what became of each.
fn fill_up(mgr: &dyn LeaseMgr<Lease4>, numbers: Range<u16>) -> Vec<(u16, Addition)> {
    const BATCH: usize = 50;
    let mut additions = Vec::new();
    for first in numbers.clone().step_by(BATCH) {
        let numbers: Vec<_> = (first..numbers.end).take(BATCH).collect();
        let operations: Vec<_> = numbers.iter().map(|&n| Operation::Add(lease::<Lease4>(n, 1, 0))).collect();
        for (n, result) in numbers.into_iter().zip(mgr.apply(&operations)) {
            let addition = match result {
                Ok(Done::Added) => Addition::Made,
                Err(LeaseMgrError::Write { source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{}", text(&source));
                    Addition::Refused
                }
                Err(LeaseMgrError::Unavailable { .. }) => Addition::Unavailable,
                Err(LeaseMgrError::OutcomeUnknown { .. }) => Addition::Unknown,
                result => panic!("{n}: {result:?}"),
            };
            additions.push((n, addition));
        }
        if additions.iter().any(|(_, addition)| *addition != Addition::Made) {
            return additions;
        }
    }
    panic!("the disk is not full");
}

/// Returns the numbers of all leases, which are of client 1.
fn numbers_of_all(mgr: &dyn LeaseMgr<Lease4>) -> BTreeSet<u16> {
    let all = mgr.find(&Query::all()).unwrap();
    assert!(all.iter().all(|there| number_of(there) == 1));
    all.iter().map(|lease| u16::try_from(lease.address().to_bits() & 0xffff).unwrap()).collect()
}

/// Threads add leases until the file system with the tables is full, and again when there is room.
/// MariaDB may end when it cannot roll a transaction back for want of room.
#[rstest]
fn a_disk_that_becomes_full_loses_no_lease(#[values(Server::Postgresql, Server::Mariadb)] server: Server) {
    const THREADS: u16 = 4;
    const EACH: u16 = 10_000;
    assert!(rustix::process::geteuid().is_root(), "a file system is mounted; run as root");
    let _alone = alone(server);
    let machine = Machine::of(server);
    let disk = SmallDisk::new(server);
    let mgr = disk.database.open::<Lease4>();
    assert_eq!(add(&*mgr, u16::MAX).unwrap(), Done::Added);
    disk.fill();
    let additions: Vec<_> = thread::scope(|scope| {
        let mgr = &*mgr;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || fill_up(mgr, thread * EACH..(thread + 1) * EACH)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let those = |addition| additions.iter().filter(move |of| of.1 == addition).map(|of| of.0);
    let mut made: BTreeSet<_> = those(Addition::Made).chain([u16::MAX]).collect();
    let count = |addition| those(addition).count();
    let [refused, unavailable, unknown] =
        [Addition::Refused, Addition::Unavailable, Addition::Unknown].map(count);
    let has_ended = unavailable > 0 || unknown > 0 || !machine.is_running();
    println!(
        "{server:?}: {} made, {refused} refused, {unavailable} unavailable, {unknown} unknown; ended: {has_ended}",
        made.len()
    );
    let of_another = |number| {
        let operations: Vec<_> =
            made.iter().step_by(50).map(|&n| Operation::Add(lease::<Lease4>(n, number, 0))).collect();
        disk.database.open::<Lease4>().apply(&operations)
    };
    if has_ended {
        assert_eq!(server, Server::Mariadb);
        let start = Instant::now();
        while machine.is_running() {
            assert!(start.elapsed() < LIMIT, "the server has not ended");
            thread::sleep(Duration::from_millis(10));
        }
        disk.make_room();
        machine.start();
    } else {
        assert_eq!(numbers_of_all(&*mgr), made);
        assert_eq!(mgr.status().availability, Availability::Up);
        for result in of_another(2) {
            assert!(!matches!(result, Ok(Done::Added)), "{result:?}");
        }
        disk.make_room();
    }
    for result in of_another(3) {
        assert_eq!(result.map_err(|error| text(&error)), Ok(Done::AddressTaken));
    }
    wait_until_up(&*mgr);
    let there = numbers_of_all(&*mgr);
    assert!(there.is_superset(&made), "lost: {:?}", made.difference(&there));
    let mut refused = those(Addition::Refused).chain(those(Addition::Unavailable));
    assert!(refused.all(|n| !there.contains(&n)), "a refused lease is there");

    for (n, _) in additions.iter().filter(|(_, addition)| *addition != Addition::Made) {
        let expected = if there.contains(n) { Done::AddressTaken } else { Done::Added };
        assert_eq!(add(&*mgr, *n).map_err(|error| text(&error)), Ok(expected), "{n}");
        made.insert(*n);
    }
    assert_eq!(numbers_of_all(&*mgr), made);
    machine.kill();
    machine.start();
    assert_eq!(numbers_of_all(&*disk.database.open::<Lease4>()), made);
}

#[rstest]
fn a_statement_whose_time_is_over_has_changed_nothing(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    let _alone = alone(server);
    let database = Database::spoiled(server);
    database.execute(match server {
        Server::Postgresql => {
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM pg_sleep(300); RETURN NEW; END $$; \
             CREATE TRIGGER slow BEFORE INSERT ON lease4 FOR EACH ROW EXECUTE FUNCTION slow()"
        }
        Server::Mariadb => {
            "CREATE TRIGGER slow BEFORE INSERT ON lease4 FOR EACH ROW SET @slow = (SELECT sleep(300))"
        }
    });
    let limit = |seconds| match server {
        Server::Postgresql => {
            format!("ALTER DATABASE {} SET statement_timeout = '{seconds}s'", database.name)
        }
        Server::Mariadb => format!("SET GLOBAL max_statement_time = {seconds}"),
    };
    database.execute(&limit(2));
    let mgr = database.open::<Lease4>();
    let result = add(&*mgr, 1);
    database.execute(&limit(0));
    assert!(
        matches!(result, Err(LeaseMgrError::Backend(_) | LeaseMgrError::Unavailable { .. })),
        "{result:?}"
    );
    assert_eq!(mgr.get(lease::<Lease4>(1, 0, 0).address()).unwrap(), None);
}

#[rstest]
#[case(Server::Postgresql, "34.0", 33)]
#[case(Server::Mariadb, "35.0", 34)]
fn a_database_that_comes_back_with_another_schema_is_refused(
    #[case] server: Server,
    #[case] had: &str,
    #[case] version: u32,
) {
    let _alone = alone(server);
    let database = Database::spoiled(server);
    let proxy = proxy(server);
    let connection = database.connection_at(proxy.port, "ssl-mode=disable connect-timeout=60");
    let mgr = LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap();
    assert_eq!(add(&*mgr, 1).unwrap(), Done::Added);
    database.execute(&format!("UPDATE schema_version SET version = {version}"));
    proxy.end_connections();
    let start = Instant::now();
    let error = loop {
        // A connection that has just ended may be used once more.
        match add(&*mgr, 2) {
            Err(error) if !error.is_unknown() => break error,
            result => assert!(start.elapsed() < LIMIT, "{result:?}"),
        }
    };
    let text = text(&error);
    assert!(text.contains(had) && text.contains(&format!("{version}.0")), "{text}");
}
