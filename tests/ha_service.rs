//! Two servers of this crate with high availability over HTTP: start-up, changes, failures, return,
//! maintenance.

#![expect(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

use std::fmt::Debug;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use leasemgr::commands::{Commands, Subnet};
use leasemgr::control::{Http, Server};
use leasemgr::ha::{ClientHash, Config, PageLease, Service, State};
use leasemgr::lease::{Duid, HwAddr, Lease4, Lease6};
use leasemgr::request::{Channel, Handler, Outcome, Source};
use leasemgr::{Added, LeaseMgr, LeaseMgrFactory, Query};
use rstest::rstest;
use serde_json::{Value, json};

/// Maximum time until a condition holds.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
fn until<T: PartialEq + Debug>(what: &str, expected: T, mut found: impl FnMut() -> T) {
    let start = Instant::now();
    loop {
        let found = found();
        if found == expected {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{what}: {found:?}, expected {expected:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A family, with leases for tests.
trait Case: PageLease {
    /// Returns a lease of a client and of an address, with its age in seconds.
    fn lease(address: u8, client: u8, age: i64) -> Self;

    fn open() -> Arc<dyn LeaseMgr<Self>>;

    fn commands(leases: &Arc<dyn LeaseMgr<Self>>) -> Commands;
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

const MEMORY: &str = "type=memfile persist=false";

impl Case for Lease4 {
    fn lease(address: u8, client: u8, age: i64) -> Self {
        let builder = Self::builder(Ipv4Addr::new(192, 0, 2, address));
        let builder = builder.client(HwAddr::from([2, 0, 0, 0, 0, client]));
        builder.subnet(1).lifetime(3600).cltt(now() - age).build().unwrap()
    }

    fn open() -> Arc<dyn LeaseMgr<Self>> {
        LeaseMgrFactory::new().open(MEMORY).unwrap()
    }

    fn commands(leases: &Arc<dyn LeaseMgr<Self>>) -> Commands {
        Commands::new().with_leases4(Arc::clone(leases), [Subnet::new(1, [192, 0, 2, 0].into(), 24)])
    }
}

impl Case for Lease6 {
    fn lease(address: u8, client: u8, age: i64) -> Self {
        let builder = Self::builder(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, address.into()));
        let builder = builder.client(Duid::new(&[0, 3, 0, 1, client]).unwrap(), 1);
        builder.subnet(1).lifetime(3600).cltt(now() - age).build().unwrap()
    }

    fn open() -> Arc<dyn LeaseMgr<Self>> {
        LeaseMgrFactory::new().open(MEMORY).unwrap()
    }

    fn commands(leases: &Arc<dyn LeaseMgr<Self>>) -> Commands {
        let prefix = "2001:db8::".parse().unwrap();
        Commands::new().with_leases6(Arc::clone(leases), [Subnet::new(1, prefix, 64)])
    }
}

/// The commands of a server that may not have started yet. Notes those that come by HTTP.
#[derive(Default)]
struct Late {
    commands: Mutex<Option<Arc<Commands>>>,
    came: Mutex<Vec<String>>,
}

impl Handler for Late {
    fn answer(&self, request: &[u8], source: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        let json: Value = serde_json::from_slice(request).unwrap();
        self.came.lock().unwrap().push(json["command"].as_str().unwrap().to_owned());
        let commands = self.commands.lock().unwrap().clone();
        commands.ok_or(io::ErrorKind::NotConnected)?.answer(request, source, answer)
    }
}

/// A server.
struct Node<L: Case> {
    name: &'static str,
    address: SocketAddr,
    leases: Arc<dyn LeaseMgr<L>>,
    handler: Arc<Late>,
    server: Option<Server>,
    service: Option<Service<L>>,
}

impl<L: Case> Node<L> {
    fn new(name: &'static str) -> Self {
        let address = ([127, 0, 0, 1], 0).into();
        let (leases, handler) = (L::open(), Arc::default());
        let mut node = Self { name, address, leases, handler, server: None, service: None };
        node.listen();
        node
    }

    /// Listens, after the first time with the same port.
    fn listen(&mut self) {
        let start = Instant::now();
        self.server = loop {
            let handler = Arc::clone(&self.handler);
            match Server::builder(handler).http(Http::new(self.address)).start() {
                Ok(server) => break Some(server),
                Err(error) => assert!(start.elapsed() < LIMIT, "{error:?}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.address = self.server.as_ref().unwrap().addresses()[0];
    }

    fn start(&mut self, config: &Value) {
        let mut config = config.clone();
        config["this-server-name"] = self.name.into();
        let config = Config::parse(json!([config]).to_string().as_bytes()).unwrap();
        let mut commands = L::commands(&self.leases);
        let (leases, served) = (Arc::clone(&self.leases), Arc::clone(commands.service()));
        let service = Service::start(config, leases, served, SystemTime::now).unwrap();
        service.register(&mut commands);
        *self.handler.commands.lock().unwrap() = Some(Arc::new(commands));
        self.service = Some(service);
    }

    /// Stops to listen, cuts off the partner's connections, and then ends the service.
    fn stop(&mut self) {
        self.server = None;
        *self.handler.commands.lock().unwrap() = None;
        self.service = None;
    }

    fn service(&self) -> &Service<L> {
        self.service.as_ref().unwrap()
    }

    fn reaches(&self, state: State) {
        until(&format!("state of {}", self.name), state, || self.service().state());
    }

    fn all(&self) -> Vec<L> {
        let mut leases = self.leases.find(&Query::all()).unwrap();
        leases.sort_by_key(L::address);
        leases
    }

    /// Makes a command of an administrator without arguments.
    fn command(&self, name: &str) -> Value {
        self.ask(&json!({ "command": name }))
    }

    /// Makes a command of an administrator.
    fn ask(&self, request: &Value) -> Value {
        let commands = self.handler.commands.lock().unwrap().clone().unwrap();
        let source = Source { channel: Channel::Unix, user: None };
        let mut answer = Vec::new();
        commands.answer(request.to_string().as_bytes(), &source, &mut answer).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// Stores and replicates a lease. Returns whether it may be acknowledged, once that is known.
    fn give(&self, lease: &L) -> mpsc::Receiver<bool> {
        assert_eq!(self.leases.add(lease).unwrap(), Added::Added);
        self.change(vec![lease.clone()], Vec::new())
    }

    fn change(&self, changed: Vec<L>, deleted: Vec<L>) -> mpsc::Receiver<bool> {
        let (sender, told) = mpsc::channel();
        self.service().replicate(changed, deleted, move |is_made| sender.send(is_made).unwrap());
        told
    }

    fn came(&self, command: &str) -> usize {
        self.handler.came.lock().unwrap().iter().filter(|came| *came == command).count()
    }
}

impl<L: Case> Drop for Node<L> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Two servers.
struct Pair<L: Case> {
    one: Node<L>,
    two: Node<L>,
    config: Value,
}

impl<L: Case> Pair<L> {
    fn new(mode: &str, more: Value) -> Self {
        let (one, two) = (Node::new("one"), Node::new("two"));
        let role = match mode {
            "hot-standby" => "standby",
            "load-balancing" => "secondary",
            _ => "backup",
        };
        let mut config = json!({
            "mode": mode,
            "heartbeat-delay": 50,
            "max-response-delay": 2000,
            "max-unacked-clients": 0,
            "sync-page-limit": 50,
            "peers": [
                { "name": "one", "url": format!("http://{}/", one.address), "role": "primary" },
                { "name": "two", "url": format!("http://{}/", two.address), "role": role },
            ],
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self { one, two, config }
    }

    fn start(&mut self) {
        self.one.start(&self.config);
        self.two.start(&self.config);
    }

    /// Creates two servers that have come to the normal state.
    fn normal(mode: &str, more: Value) -> Self {
        let mut pair = Self::new(mode, more);
        pair.start();
        pair.reach_normal();
        pair
    }

    fn reach_normal(&self) {
        let normal = State::from_name(self.config["mode"].as_str().unwrap()).unwrap();
        let states = || (self.one.service().state(), self.two.service().state());
        until("states", (normal, normal), states);
    }
}

fn told(answer: &mpsc::Receiver<bool>) -> bool {
    answer.recv_timeout(LIMIT).unwrap()
}

fn start_up<L: Case>(mode: &str) {
    let mut pair = Pair::<L>::new(mode, json!({}));
    for address in 1..=200 {
        let node = if address <= 120 { &pair.one } else { &pair.two };
        assert_eq!(node.leases.add(&L::lease(address, address, 1000)).unwrap(), Added::Added);
    }
    // Both have a lease of one client, and the secondary has the newer one.
    assert_eq!(pair.one.leases.add(&L::lease(201, 201, 900)).unwrap(), Added::Added);
    assert_eq!(pair.two.leases.add(&L::lease(201, 201, 800)).unwrap(), Added::Added);
    pair.start();
    pair.reach_normal();
    until("leases", true, || pair.one.all() == pair.two.all());
    assert_eq!(pair.one.all().len(), 201);
    let newest = L::lease(201, 201, 0).data().cltt - pair.one.all()[200].data().cltt;
    assert!(newest < 900, "{newest}");
    for node in [&pair.one, &pair.two] {
        let answered =
            || (0..=255).filter(|&client| node.service().may_answer(ClientHash::of(&[client]))).count();
        let expected = match (mode, node.name) {
            ("load-balancing", _) => 128,
            (_, "one") => 256,
            _ => 0,
        };
        // The service is disabled until the partner has copied the leases.
        until(&format!("clients of {}", node.name), expected, answered);
        let status = node.command("status-get");
        let status = &status["arguments"]["high-availability"][0];
        assert_eq!(status["ha-mode"], mode);
        assert_eq!(status["ha-servers"]["local"]["state"], mode);
    }
}

#[rstest]
#[case("hot-standby")]
#[case("load-balancing")]
fn servers_start_with_the_leases_of_both(#[case] mode: &str) {
    start_up::<Lease4>(mode);
}

#[test]
fn servers_of_dhcpv6_start_with_the_leases_of_both() {
    start_up::<Lease6>("hot-standby");
}

#[test]
fn a_server_that_has_just_started_serves_nobody() {
    let mut pair = Pair::<Lease4>::new("hot-standby", json!({ "heartbeat-delay": 60_000 }));
    pair.start();
    for node in [&pair.one, &pair.two] {
        assert!((0..=255).all(|client| !node.service().may_answer(ClientHash::of(&[client]))));
    }
}

/// Gives, renews and deletes leases, and looks at the partner's when a change is acknowledged.
fn changes<L: Case>() {
    let pair = Pair::<L>::normal("hot-standby", json!({}));
    let (sender, results) = mpsc::channel();
    let change = |changed: Vec<L>, deleted: Vec<L>| {
        let (sender, there) = (sender.clone(), Arc::clone(&pair.two.leases));
        let looked = (changed.clone(), deleted.clone());
        pair.one.service().replicate(changed, deleted, move |is_made| {
            let get = |lease: &L| there.get(lease.address()).unwrap();
            let are_there = looked.0.iter().all(|lease| get(lease).as_ref() == Some(lease))
                && looked.1.iter().all(|lease| get(lease).is_none());
            sender.send((is_made, are_there)).unwrap();
        });
    };
    let leases: Vec<_> = (1..=100).map(|address| L::lease(address, address, 10)).collect();
    for lease in &leases {
        assert_eq!(pair.one.leases.add(lease).unwrap(), Added::Added);
        change(vec![lease.clone()], Vec::new());
    }
    for _ in &leases {
        assert_eq!(results.recv_timeout(LIMIT), Ok((true, true)));
    }
    // Those of one packet.
    let renewed: Vec<_> = (1..=3).map(|address| L::lease(address, address, 0)).collect();
    for lease in &renewed {
        pair.one.leases.update_expecting(lease, None).unwrap();
    }
    pair.one.leases.delete_expecting(leases[3].address(), None).unwrap();
    change(renewed, vec![leases[3].clone()]);
    assert_eq!(results.recv_timeout(LIMIT), Ok((true, true)));
    assert_eq!(pair.one.all(), pair.two.all());
    assert_eq!(pair.one.all().len(), 99);
    let (bulks, updates, deletions) =
        (pair.two.came("lease6-bulk-apply"), pair.two.came("lease4-update"), pair.two.came("lease4-del"));
    let expected = if bulks > 0 { (101, 0, 0) } else { (0, 103, 1) };
    assert_eq!((bulks, updates, deletions), expected);
}

#[test]
fn the_partner_has_changes_before_they_are_acknowledged() {
    changes::<Lease4>();
}

#[test]
fn the_partner_has_changes_of_dhcpv6_before_they_are_acknowledged() {
    changes::<Lease6>();
}

fn conflict<L: Case>() {
    let pair = Pair::<L>::normal("hot-standby", json!({}));
    let newer = L::lease(1, 2, 0);
    assert_eq!(pair.two.leases.add(&newer).unwrap(), Added::Added);
    assert!(!told(&pair.one.give(&L::lease(1, 1, 100))));
    assert_eq!(pair.two.service().conflicts().kept, 1);
    // The partner's lease is copied, so that the client gets another one.
    until("lease", Some(newer.clone()), || pair.one.leases.get(newer.address()).unwrap());
    until("conflicts", 1, || pair.one.service().conflicts().replaced);
    assert_eq!(pair.one.service().state(), State::HotStandby);
    // An older lease gives way.
    assert_eq!(pair.two.leases.add(&L::lease(2, 2, 100)).unwrap(), Added::Added);
    assert!(told(&pair.one.give(&L::lease(2, 1, 0))));
    assert_eq!(pair.one.all(), pair.two.all());
}

#[test]
fn of_a_conflict_the_newer_lease_remains() {
    conflict::<Lease4>();
}

#[test]
fn of_a_conflict_in_dhcpv6_the_newer_lease_remains() {
    conflict::<Lease6>();
}

#[rstest]
#[case("one", "hot-standby")]
#[case("two", "hot-standby")]
#[case("two", "load-balancing")]
fn a_partner_that_is_down_copies_what_it_missed(#[case] stopped: &str, #[case] mode: &str) {
    let mut pair = Pair::<Lease4>::normal(mode, json!({ "delayed-updates-limit": 0 }));
    let config = pair.config.clone();
    let (down, up) =
        if stopped == "one" { (&mut pair.one, &mut pair.two) } else { (&mut pair.two, &mut pair.one) };
    assert!(told(&up.give(&Lease4::lease(1, 1, 10))));
    down.stop();
    up.reaches(State::PartnerDown);
    assert!((0..=255).all(|client| up.service().may_answer(ClientHash::of(&[client]))));
    assert!(told(&up.give(&Lease4::lease(2, 2, 10))));
    // It lost its leases, too.
    down.leases = Lease4::open();
    down.listen();
    down.start(&config);
    pair.reach_normal();
    assert_eq!(pair.one.all().len(), 2);
    assert_eq!(pair.one.all(), pair.two.all());
    assert!(told(&pair.one.give(&Lease4::lease(3, 3, 10))));
    assert_eq!(pair.one.all(), pair.two.all());
}

#[test]
fn changes_are_kept_for_a_partner_that_is_cut_off() {
    let more = json!({ "max-unacked-clients": 10, "delayed-updates-limit": 10 });
    let mut pair = Pair::<Lease4>::normal("load-balancing", more);
    pair.two.server = None;
    pair.one.reaches(State::CommunicationRecovery);
    let leases: Vec<_> = (1..=5).map(|address| Lease4::lease(address, address, 10)).collect();
    for lease in &leases {
        assert!(told(&pair.one.give(lease)));
    }
    pair.one.leases.delete_expecting(leases[4].address(), None).unwrap();
    assert!(told(&pair.one.change(Vec::new(), vec![leases[4].clone()])));
    assert_eq!(pair.one.service().kept(), 5);
    assert_eq!(pair.two.all(), []);
    pair.two.listen();
    pair.reach_normal();
    assert_eq!(pair.one.service().kept(), 0);
    assert_eq!(pair.two.all(), leases[..4]);
    assert_eq!(pair.two.came("lease4-update"), 4);
}

#[test]
fn more_changes_than_are_kept_are_copied() {
    let more = json!({ "max-unacked-clients": 10, "delayed-updates-limit": 3 });
    let mut pair = Pair::<Lease4>::normal("load-balancing", more);
    pair.two.server = None;
    pair.one.reaches(State::CommunicationRecovery);
    for address in 1..=5 {
        assert!(told(&pair.one.give(&Lease4::lease(address, address, 10))));
    }
    assert_eq!(pair.one.service().kept(), 0);
    pair.two.listen();
    until("leases", true, || pair.one.all() == pair.two.all());
    pair.reach_normal();
    assert_eq!(pair.two.came("lease4-update"), 0);
}

#[test]
fn a_partner_that_does_not_answer_has_no_change_acknowledged() {
    // In this mode only packets of its clients show that the primary is down.
    let mut pair = Pair::<Lease4>::normal("hot-standby", json!({ "max-unacked-clients": 1000 }));
    *pair.two.handler.commands.lock().unwrap() = None;
    let answer = pair.one.give(&Lease4::lease(1, 1, 10));
    // The partner answers with an error, or is taken for down.
    let is_made = told(&answer);
    assert!(!is_made || pair.one.service().state() == State::PartnerDown);
    pair.one.reaches(State::PartnerDown);
    pair.two.stop();
}

#[test]
fn a_partner_is_maintained() {
    let pair = Pair::<Lease4>::normal("load-balancing", json!({}));
    let answer = pair.one.command("ha-maintenance-cancel");
    assert_eq!(answer["result"], 1, "{answer}");
    let answer = pair.one.command("ha-maintenance-start");
    assert_eq!(answer["result"], 0, "{answer}");
    let states = (pair.one.service().state(), pair.two.service().state());
    assert_eq!(states, (State::PartnerInMaintenance, State::InMaintenance));
    let clients = |node: &Node<Lease4>| {
        (0..=255).filter(|&client| node.service().may_answer(ClientHash::of(&[client]))).count()
    };
    assert_eq!((clients(&pair.one), clients(&pair.two)), (256, 0));
    assert!(told(&pair.one.give(&Lease4::lease(1, 1, 10))));
    assert_eq!(pair.one.all(), pair.two.all());
    let answer = pair.one.command("ha-maintenance-cancel");
    assert_eq!(answer["result"], 0, "{answer}");
    pair.reach_normal();
    until("clients", (128, 128), || (clients(&pair.one), clients(&pair.two)));
}

#[test]
fn administrators_have_commands() {
    let pair = Pair::<Lease4>::normal("load-balancing", json!({}));
    let one = &pair.one;
    let command = |name: &str, arguments: Value| one.ask(&json!({ "command": name, "arguments": arguments }));
    let answered = || (0..=255).filter(|&client| one.service().may_answer(ClientHash::of(&[client]))).count();
    for scopes in [json!(["one", "three"]), json!("one"), json!([1]), json!(null)] {
        assert_eq!(command("ha-scopes", json!({ "scopes": scopes }))["result"], 1, "{scopes}");
    }
    assert_eq!(one.command("ha-scopes")["result"], 1);
    until("clients", 128, answered);
    assert_eq!(command("ha-scopes", json!({ "scopes": ["one", "two"] }))["result"], 0);
    assert_eq!(answered(), 256);
    assert_eq!(one.command("ha-continue")["result"], 0);

    // The partner's lease was stored by itself only.
    let lease = Lease4::lease(1, 1, 10);
    assert_eq!(pair.two.leases.add(&lease).unwrap(), Added::Added);
    assert_eq!(command("ha-sync", json!({ "server-name": "one" }))["result"], 1);
    assert_eq!(command("ha-sync", json!({ "server-name": "two", "max-period": 60 }))["result"], 0);
    assert_eq!(one.all(), std::slice::from_ref(&lease));

    // A change of an administrator is made also if it is older; one of the partner is not.
    let update = |client: u8, origin: &str| {
        let mut arguments = json!({
            "ip-address": "192.0.2.1", "hw-address": format!("02:00:00:00:00:{client:02x}"), "subnet-id": 1,
            "valid-lft": 3600, "expire": now() + 2600,
        });
        if !origin.is_empty() {
            arguments["origin"] = origin.into();
        }
        arguments["force-create"] = true.into();
        command("lease4-update", arguments)
    };
    assert_eq!(update(2, "ha-partner")["result"], 4);
    assert_eq!(one.all(), [lease]);
    assert_eq!(update(2, "")["result"], 0);
    assert_eq!(one.all()[0].hwaddr(), Some(&HwAddr::from([2, 0, 0, 0, 0, 2])));

    assert_eq!(one.command("ha-reset")["result"], 0);
    pair.reach_normal();
    assert_eq!(one.command("ha-sync-complete-notify")["result"], 0);
}

#[test]
fn a_partner_in_maintenance_is_stopped() {
    let mut pair = Pair::<Lease4>::normal("hot-standby", json!({ "max-response-delay": 60_000 }));
    assert_eq!(pair.one.command("ha-maintenance-start")["result"], 0);
    pair.two.stop();
    // Long before max-response-delay.
    pair.one.reaches(State::PartnerDown);
    assert!(told(&pair.one.give(&Lease4::lease(1, 1, 10))));
}

#[test]
fn without_lease_updates_nothing_is_sent() {
    let pair = Pair::<Lease4>::normal("hot-standby", json!({ "send-lease-updates": false }));
    assert!(told(&pair.one.give(&Lease4::lease(1, 1, 10))));
    assert_eq!(pair.two.came("lease4-update"), 0);
    assert_eq!(pair.two.all(), []);
}

#[test]
fn a_backup_is_waited_for_if_that_is_configured() {
    let mut pair = Pair::<Lease4>::new("passive-backup", json!({ "wait-backup-ack": true }));
    pair.start();
    let states = (pair.one.service().state(), pair.two.service().state());
    assert_eq!(states, (State::PassiveBackup, State::Backup));
    assert!(pair.one.service().may_answer(ClientHash::of(&[1])));
    assert!(!pair.two.service().may_answer(ClientHash::of(&[1])));
    assert!(told(&pair.one.give(&Lease4::lease(1, 1, 10))));
    assert_eq!(pair.one.all(), pair.two.all());
    pair.two.stop();
    assert!(!told(&pair.one.give(&Lease4::lease(2, 2, 10))));
}

#[test]
fn a_backup_is_not_waited_for_otherwise() {
    let mut pair = Pair::<Lease4>::new("passive-backup", json!({}));
    pair.start();
    assert!(told(&pair.one.give(&Lease4::lease(1, 1, 10))));
    until("leases", true, || pair.one.all() == pair.two.all());
    pair.two.stop();
    assert!(told(&pair.one.give(&Lease4::lease(2, 2, 10))));
}

#[test]
fn a_server_that_has_ended_answers_and_acknowledges_nothing() {
    let mut pair = Pair::<Lease4>::normal("hot-standby", json!({}));
    pair.one.service = None;
    let answer = pair.one.command("ha-heartbeat");
    assert_eq!(answer["result"], 1, "{answer}");
    pair.two.reaches(State::PartnerDown);
}
