//! Two servers in a simulated network, with a virtual clock, faults and clients.
//!
//! A request arrives after a random delay, so that requests overtake each other, and is lost if the
//! link is cut or by chance; so is its answer. Both look alike to the sender, after a time limit.
//! Leases survive a restart, all else does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leasemgr::ha::{
    Action, ClientHash, Config, Event, Heartbeat, Kept, KeptChange, Machine, MaintenanceAnswer, Mode, Notice,
    Replication, Reply, Role, State, Time, Via, decide, next_cltt,
};
use leasemgr::lease::{HwAddr, Lease4};
use serde_json::{Value, json};

/// Returns by how much longer the tests run.
pub(crate) fn scale() -> u64 {
    std::env::var("LEASEMGR_HA_MODEL").map_or(1, |text| text.parse().unwrap())
}

/// Random numbers that a seed repeats (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % limit
    }

    fn millis(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A configuration with short times: a heartbeat each second, and 6 s to an interruption.
pub(crate) fn config(mode: Mode, role: Role, this: &str) -> Config {
    let limit = if mode == Mode::LoadBalancing { 5 } else { 0 };
    let parameters = json!({
        "max-response-delay": 6000, "max-unacked-clients": 1, "delayed-updates-limit": limit,
        "max-rejected-lease-updates": 0,
    });
    config_with(mode, role, this, &parameters)
}

fn config_with(mode: Mode, role: Role, this: &str, parameters: &Value) -> Config {
    let other = match mode {
        Mode::HotStandby => "standby",
        Mode::LoadBalancing => "secondary",
        Mode::PassiveBackup => "backup",
    };
    let is_first = (role == Role::Primary) == (this == "server1");
    let roles = if is_first { ["primary", other] } else { [other, "primary"] };
    let mut map = json!({
        "this-server-name": this, "mode": mode.name(), "heartbeat-delay": 1000, "max-ack-delay": 2000,
        "sync-page-limit": 3, "peers": [
            { "name": "server1", "url": "http://192.0.2.1:8000/", "role": roles[0] },
            { "name": "server2", "url": "http://192.0.2.2:8000/", "role": roles[1] },
        ],
    });
    map.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
    Config::parse(json!([map]).to_string().as_bytes()).unwrap()
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    None,
    /// A server is killed while both are in the normal state.
    SingleRestarts,
    Restarts,
    Cuts,
    /// A tenth of all requests and answers is lost.
    Loss,
    /// Clocks that differ, and are set, within what is tolerated.
    Skew,
    Maintenance,
    All,
}

/// What happened in a simulation.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) acknowledged: u64,
    pub(crate) restarts: u64,
    pub(crate) interruptions: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.restarts += other.restarts;
        self.interruptions += other.interruptions;
    }
}

const WALL: i64 = 1_790_000_000;
/// For how long a request may take.
const TIME_LIMIT: u64 = 2000;
/// After this time without a fault, two servers know each other's state: an answer may be lost with
/// the fault, and the next request comes a second later.
const SETTLED: u64 = 6000;
const FAULTS_END: u64 = 150_000;
const END: u64 = 260_000;
const LIFETIME: u32 = 600;
const PAGE: usize = 3;

#[derive(Clone, Debug)]
enum Body {
    Heartbeat,
    Disable,
    Enable,
    Page(Option<u8>),
    Notify,
    Update(Lease4),
    Reset,
    Maintenance { cancel: bool, state: State },
}

#[derive(Clone, Debug)]
enum Answer {
    Heartbeat(Heartbeat),
    Page(Vec<Lease4>),
    Done,
    Conflict,
    Refused,
}

/// Why a server sent a request.
#[derive(Clone, Debug)]
enum Purpose {
    Heartbeat,
    /// A step of copying the leases: with a change of the partner's service, or without.
    Copy {
        sync: bool,
    },
    Outstanding(KeptChange<Lease4>),
    Change(Lease4),
    Maintenance,
    Ignored,
}

#[derive(Debug)]
enum Happening {
    Request {
        to: usize,
        epoch: u64,
        id: u64,
        body: Body,
    },
    Answer {
        to: usize,
        epoch: u64,
        id: u64,
        answer: Answer,
    },
    TimedOut {
        at: usize,
        epoch: u64,
        id: u64,
    },
    Packet {
        client: u8,
        since: u64,
    },
    /// A new client wants any address.
    NewClient,
    Fault,
    Step {
        what: String,
        at: usize,
    },
    Tick,
}

struct Server {
    machine: Option<Machine>,
    /// Number of the start, so that nothing of an earlier one arrives.
    epoch: u64,
    leases: BTreeMap<u8, Lease4>,
    kept: Kept<Lease4>,
    requests: BTreeMap<u64, Purpose>,
    /// The partner's count when its service was disabled.
    count: Option<u64>,
    disabled_until: u64,
    service: bool,
    skew: i64,
    down_until: u64,
}

pub(crate) struct Simulation {
    mode: Mode,
    faults: Faults,
    seed: u64,
    random: Random,
    now: u64,
    /// By time, then by order.
    queue: BTreeMap<(u64, u64), Happening>,
    next_id: u64,
    servers: [Server; 2],
    /// Whether requests go from a server to the other.
    links: [bool; 2],
    loss: usize,
    /// Of a request or an answer, in ms.
    max_delay: u64,
    /// The end of the last fault of the links.
    disturbed: u64,
    /// The newest lease that each client was told about, by address.
    acknowledged: BTreeMap<u8, Lease4>,
    answered_at: BTreeMap<u8, u64>,
    totals: Totals,
    history: Vec<String>,
    /// Parameters other than those of `config`, and what happens instead of random faults.
    script: Option<Script>,
    /// The states that each server entered.
    entered: [Vec<State>; 2],
}

/// What happens in a recording.
pub(crate) struct Script {
    pub(crate) parameters: Value,
    /// Time in ms, what happens, and to which server.
    pub(crate) steps: Vec<(u64, String, usize)>,
    pub(crate) end: u64,
}

/// Number of addresses, each with a client of its own.
const CLIENTS: u8 = 100;
/// Number of clients that keep their addresses all the time. The others go away, so that nothing
/// but the servers brings their leases to both stores.
const PERMANENT: u8 = 6;

/// The first address of those for new clients.
const SHARED: u8 = 150;

fn hwaddr(client: u8) -> HwAddr {
    HwAddr::from([2, 0, 0, 0, 0, client])
}

impl Simulation {
    pub(crate) fn new(mode: Mode, faults: Faults, seed: u64) -> Self {
        let server = || Server {
            machine: None,
            epoch: 0,
            leases: BTreeMap::new(),
            kept: Kept::new(),
            requests: BTreeMap::new(),
            count: None,
            disabled_until: 0,
            service: false,
            skew: 0,
            down_until: 0,
        };
        Self {
            mode,
            faults,
            seed,
            random: Random::new(seed + 1),
            now: 0,
            queue: BTreeMap::new(),
            next_id: 0,
            servers: [server(), server()],
            links: [true, true],
            loss: 0,
            max_delay: 400,
            disturbed: 0,
            acknowledged: BTreeMap::new(),
            answered_at: BTreeMap::new(),
            totals: Totals::default(),
            history: Vec::new(),
            script: None,
            entered: [Vec::new(), Vec::new()],
        }
    }

    /// Runs a recording with both servers from this crate. Returns the states that each entered.
    pub(crate) fn play(mode: Mode, skew: i64, script: Script) -> [Vec<State>; 2] {
        let mut simulation = Self::new(mode, Faults::None, 0);
        for server in &mut simulation.servers {
            server.down_until = u64::MAX;
        }
        simulation.servers[1].skew = skew;
        simulation.max_delay = 10;
        for (at, what, server) in &script.steps {
            let step = Happening::Step { what: what.clone(), at: *server };
            simulation.after(*at, step);
        }
        let end = script.end;
        simulation.script = Some(script);
        simulation.serve(end);
        simulation.entered
    }

    fn step(&mut self, what: &str, at: usize) {
        let event = match what {
            "start" => return self.start(at),
            "stop" => {
                self.servers[at].machine = None;
                return;
            }
            "cut" | "repair" => {
                self.links = [what == "repair"; 2];
                self.disturbed = self.now;
                return;
            }
            "maintenance-start" => Event::MaintenanceStart,
            "maintenance-cancel" => Event::MaintenanceCancel,
            other => panic!("no step {other}"),
        };
        self.event(at, event);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if std::env::var_os("LEASEMGR_HA_HISTORY").is_some() {
            let line = format!("{:>8} {}", self.now, text());
            self.history.push(line);
        }
    }

    #[track_caller]
    fn assert(&self, is_right: bool, what: &str) {
        if is_right {
            return;
        }
        let cltts = |leases: &BTreeMap<u8, Lease4>| {
            leases.iter().map(|(key, lease)| (*key, lease.cltt() - WALL)).collect::<Vec<_>>()
        };
        let servers: Vec<_> = self.servers.iter().map(|server| cltts(&server.leases)).collect();
        panic!(
            "{}\n{servers:?}\nacknowledged: {:?}\n{what} at {} ms, {:?} {:?} seed {}",
            self.history.join("\n"),
            cltts(&self.acknowledged),
            self.now,
            self.mode,
            self.faults,
            self.seed
        );
    }

    /// Runs the simulation, and checks all that is promised.
    pub(crate) fn run(mut self) -> Totals {
        self.start(0);
        self.start(1);
        self.after(10_000, Happening::Fault);
        self.after(5000, Happening::NewClient);
        self.serve(END);
        self.check_end();
        self.totals
    }

    /// Has all clients served until a time.
    fn serve(&mut self, end: u64) {
        self.after(0, Happening::Tick);
        for client in 0..CLIENTS {
            let until = if client < PERMANENT { 4000 } else { FAULTS_END + 20_000 };
            let since = self.random.millis(0, until);
            self.after(since, Happening::Packet { client, since });
        }
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > end {
                break;
            }
            self.now = at;
            self.happens(happening);
            self.check_scopes();
        }
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.next_id += 1;
        self.queue.insert((self.now + delay, self.next_id), happening);
    }

    fn time(&self, at: usize) -> Time {
        let seconds = i64::try_from(self.now / 1000).unwrap();
        Time { monotonic: Duration::from_millis(self.now), wall: WALL + seconds + self.servers[at].skew }
    }

    fn start(&mut self, at: usize) {
        let role = match (at, self.mode) {
            (0, _) => Role::Primary,
            (_, Mode::LoadBalancing) => Role::Secondary,
            _ => Role::Standby,
        };
        let name = ["server1", "server2"][at];
        // A number that it never gave before.
        self.next_id += 1;
        let count = self.next_id * 1_000_000;
        let config = match &self.script {
            Some(script) => config_with(self.mode, role, name, &script.parameters),
            None => config(self.mode, role, name),
        };
        let machine = Machine::new(config, self.time(at), count);
        let server = &mut self.servers[at];
        server.machine = Some(machine);
        server.epoch += 1;
        server.kept.clear();
        server.requests.clear();
        server.disabled_until = 0;
        server.service = false;
        self.note(|| format!("{name} starts"));
    }

    fn stop(&mut self, at: usize) {
        self.totals.restarts += 1;
        self.servers[at].machine = None;
        let down = self.random.millis(200, 20_000);
        self.servers[at].down_until = self.now + down;
        self.note(|| format!("server{} stops", at + 1));
    }

    fn state(&self, at: usize) -> Option<State> {
        self.servers[at].machine.as_ref().map(Machine::state)
    }

    fn is_disabled(&self, at: usize) -> bool {
        self.servers[at].disabled_until > self.now
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => {
                for at in 0..2 {
                    if self.servers[at].machine.is_none() && self.servers[at].down_until <= self.now {
                        self.start(at);
                    }
                    self.event(at, Event::Tick);
                }
                self.after(100, Happening::Tick);
            }
            Happening::Request { to, epoch, id, body } => self.request(to, epoch, id, body),
            Happening::Answer { to, epoch, id, answer } => {
                if self.servers[to].epoch == epoch
                    && let Some(purpose) = self.servers[to].requests.remove(&id)
                {
                    self.answered(to, purpose, Some(answer));
                }
            }
            Happening::TimedOut { at, epoch, id } => {
                if self.servers[at].epoch == epoch
                    && self.servers[at].machine.is_some()
                    && let Some(purpose) = self.servers[at].requests.remove(&id)
                {
                    self.answered(at, purpose, None);
                }
            }
            Happening::Packet { client, since } => self.packet(client, since),
            Happening::NewClient => self.new_client(),
            Happening::Fault => self.fault(),
            Happening::Step { what, at } => self.step(&what, at),
        }
    }

    fn send(&mut self, from: usize, purpose: Purpose, body: Body) {
        self.next_id += 1;
        let id = self.next_id;
        let epoch = self.servers[from].epoch;
        self.servers[from].requests.insert(id, purpose);
        self.after(TIME_LIMIT, Happening::TimedOut { at: from, epoch, id });
        if self.links[from] && !self.random.percent(self.loss) {
            let delay = self.random.millis(1, self.max_delay);
            self.after(delay, Happening::Request { to: 1 - from, epoch, id, body });
        }
    }

    /// A server answers a request.
    fn request(&mut self, to: usize, epoch: u64, id: u64, body: Body) {
        let now = self.time(to);
        if self.servers[to].machine.is_none() {
            // The connection is refused at once.
            return self.after(1, Happening::TimedOut { at: 1 - to, epoch, id });
        }
        let answer = match body {
            Body::Heartbeat => Answer::Heartbeat(self.servers[to].machine.as_ref().unwrap().heartbeat(now)),
            Body::Disable => {
                self.servers[to].disabled_until = self.now + 60_000;
                Answer::Done
            }
            Body::Enable => {
                self.servers[to].disabled_until = 0;
                Answer::Done
            }
            Body::Page(from) => {
                let after = self.servers[to].leases.range(from.map_or(0, |from| from + 1)..);
                Answer::Page(after.take(PAGE).map(|(_, lease)| lease.clone()).collect())
            }
            Body::Notify => {
                self.event(to, Event::SyncCompleteNotified);
                self.servers[to].disabled_until = 0;
                Answer::Done
            }
            Body::Update(lease) => {
                if self.store(to, lease, Via::Update) {
                    Answer::Done
                } else {
                    Answer::Conflict
                }
            }
            Body::Reset => {
                self.event(to, Event::Reset);
                Answer::Done
            }
            Body::Maintenance { cancel, state } => {
                let event = Event::MaintenanceNotified { cancel, partner: Some(state) };
                let reply = self.reply(to, event);
                if matches!(reply, Some(Reply::NotIn(_))) { Answer::Refused } else { Answer::Done }
            }
        };
        if self.links[to] && !self.random.percent(self.loss) {
            let delay = self.random.millis(1, self.max_delay);
            self.after(delay, Happening::Answer { to: 1 - to, epoch, id, answer });
        }
    }

    /// Stores a lease of the partner. Returns whether that is no conflict of two clients.
    fn store(&mut self, at: usize, lease: Lease4, via: Via) -> bool {
        let wall = self.time(at).wall;
        let key = lease.address().octets()[3];
        let decision = decide(self.servers[at].leases.get(&key), &lease, via, wall, at == 1);
        if decision.takes() {
            self.note(|| format!("server{} takes .{key} of cltt {}", at + 1, lease.cltt()));
            self.servers[at].leases.insert(key, lease);
        }
        decision != leasemgr::ha::Decision::KeepOther
    }

    /// A server gets the answer to its request, or does not.
    fn answered(&mut self, at: usize, purpose: Purpose, answer: Option<Answer>) {
        match (purpose, answer) {
            (Purpose::Heartbeat, Some(Answer::Heartbeat(heartbeat))) => {
                self.event(at, Event::HeartbeatAnswered(heartbeat));
            }
            (Purpose::Heartbeat, _) => {
                self.totals.interruptions += 1;
                self.event(at, Event::HeartbeatFailed);
            }
            (Purpose::Copy { sync }, Some(answer)) => self.copy_on(at, sync, answer),
            (Purpose::Copy { sync }, None) => {
                self.event(at, Event::CopyFailed);
                if sync {
                    self.send(at, Purpose::Ignored, Body::Enable);
                }
            }
            (Purpose::Outstanding(change), Some(Answer::Done)) => {
                self.servers[at].kept.sent(&change);
                self.send_outstanding(at);
            }
            (Purpose::Outstanding(_), _) => self.event(at, Event::OutstandingFailed),
            (Purpose::Change(lease), Some(Answer::Done)) => {
                self.event(at, Event::UpdateAnswered);
                self.acknowledge(&lease);
            }
            (Purpose::Change(lease), Some(_)) => {
                let client = lease.hwaddr().unwrap().as_bytes().into();
                self.event(at, Event::UpdateRejected { client });
            }
            (Purpose::Change(lease), None) => {
                let replication = self.servers[at].machine.as_mut().unwrap().not_replicated();
                self.replicated(at, &lease, replication, true);
                self.event(at, Event::UpdateFailed { unreachable: true });
            }
            (Purpose::Maintenance, answer) => {
                let answer = match answer {
                    Some(Answer::Done) => MaintenanceAnswer::Done,
                    Some(_) => MaintenanceAnswer::Refused,
                    None => MaintenanceAnswer::Offline,
                };
                self.event(at, Event::MaintenanceAnswered(answer));
            }
            (Purpose::Ignored, _) => {}
        }
    }

    /// Goes on to copy the partner's leases: service off, count, pages, notify.
    fn copy_on(&mut self, at: usize, sync: bool, answer: Answer) {
        let purpose = Purpose::Copy { sync };
        match answer {
            Answer::Heartbeat(heartbeat) => {
                self.servers[at].count = heartbeat.unsent_update_count;
                self.send(at, purpose, Body::Page(None));
            }
            Answer::Page(leases) => {
                let last = leases.last().map(|lease| lease.address().octets()[3]);
                let is_last = leases.len() < PAGE;
                for lease in leases {
                    self.store(at, lease, Via::Page);
                }
                match (is_last, sync) {
                    (false, _) => self.send(at, purpose, Body::Page(last)),
                    (true, true) => self.send(at, purpose, Body::Notify),
                    (true, false) => self.copied(at),
                }
            }
            // After the service was disabled, the count; after the notification, the end.
            _ if self.servers[at].count.is_none() => self.send(at, purpose, Body::Heartbeat),
            _ => self.copied(at),
        }
    }

    fn copied(&mut self, at: usize) {
        let unsent_update_count = self.servers[at].count.take();
        self.event(at, Event::Copied { unsent_update_count });
    }

    fn send_outstanding(&mut self, at: usize) {
        let next = self.servers[at].kept.next().cloned();
        match next {
            Some(change) => {
                let body = Body::Update(change.lease.clone());
                self.send(at, Purpose::Outstanding(change), body);
            }
            None => self.event(at, Event::OutstandingSent { kept: 0 }),
        }
    }

    /// Gives an event to a server that runs, and does what it wants.
    fn event(&mut self, at: usize, event: Event) {
        let _ = self.reply(at, event);
    }

    /// As `event`; returns the reply to a command.
    fn reply(&mut self, at: usize, event: Event) -> Option<Reply> {
        let now = self.time(at);
        let actions = self.servers[at].machine.as_mut()?.handle(now, event);
        let mut reply = None;
        for action in actions {
            match action {
                Action::SendHeartbeat => self.send(at, Purpose::Heartbeat, Body::Heartbeat),
                Action::Sync => {
                    self.servers[at].count = None;
                    self.send(at, Purpose::Copy { sync: true }, Body::Disable);
                }
                Action::Pull => self.send(at, Purpose::Copy { sync: false }, Body::Heartbeat),
                Action::SendOutstanding => self.send_outstanding(at),
                Action::DropOutstanding => self.servers[at].kept.clear(),
                Action::ResetPartner => self.send(at, Purpose::Ignored, Body::Reset),
                Action::NotifyMaintenance { cancel, state } => {
                    self.send(at, Purpose::Maintenance, Body::Maintenance { cancel, state });
                }
                Action::SetService(service) => self.servers[at].service = service,
                Action::Reply(given) => reply = Some(given),
                Action::Log(notice) => {
                    if let Notice::Changed { from, to } = notice {
                        self.entered[at].push(to);
                        self.note(|| format!("server{}: {from} to {to}", at + 1));
                    } else {
                        self.note(|| format!("server{}: {notice:?}", at + 1));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        reply
    }

    /// A client asks for its address, or to keep it. Both servers hear it.
    fn packet(&mut self, client: u8, since: u64) {
        let hash = ClientHash::of(hwaddr(client).as_bytes());
        let before = self.acknowledged.get(&client).map(Lease4::cltt);
        for at in 0..2 {
            let Some(machine) = &self.servers[at].machine else { continue };
            if machine.may_answer(hash) && self.servers[at].service && !self.is_disabled(at) {
                self.give(at, client);
            } else {
                let waited = Duration::from_millis(self.now - since);
                self.event(at, Event::PartnerPacket { client: [client].into(), waited });
            }
        }
        // A client that was not answered repeats its packet.
        let is_answered = self.acknowledged.get(&client).map(Lease4::cltt) != before
            || self.answered_at.get(&client).is_some_and(|at| *at >= since);
        if is_answered && client >= PERMANENT && self.random.percent(50) {
            return;
        }
        let delay = if is_answered { self.random.millis(2000, 8000) } else { 1000 };
        let since = if is_answered { self.now + delay } else { since };
        self.after(delay, Happening::Packet { client, since });
    }

    /// A client that was never there asks a server that may answer it, once.
    fn new_client(&mut self) {
        self.next_id += 1;
        let [.., c, d] = self.next_id.to_be_bytes();
        let hwaddr = HwAddr::from([2, 0, 0, 1, c, d]);
        let hash = ClientHash::of(hwaddr.as_bytes());
        for at in 0..2 {
            let Some(machine) = &self.servers[at].machine else { continue };
            if machine.may_answer(hash) && self.servers[at].service && !self.is_disabled(at) {
                let leases = &self.servers[at].leases;
                if let Some(free) = (SHARED..=u8::MAX).find(|key| !leases.contains_key(key)) {
                    self.give_to(at, free, hwaddr.clone());
                }
            }
        }
        let pause = self.random.millis(500, 4000);
        self.after(pause, Happening::NewClient);
    }

    fn give(&mut self, at: usize, client: u8) {
        self.give_to(at, client, hwaddr(client));
    }

    fn give_to(&mut self, at: usize, key: u8, hwaddr: HwAddr) {
        let previous = self.servers[at].leases.get(&key).map(Lease4::cltt);
        let cltt = next_cltt(self.time(at).wall, previous);
        let builder = Lease4::builder([192, 0, 2, key].into()).client(hwaddr);
        let lease = builder.subnet(1).lifetime(LIFETIME).cltt(cltt).build().unwrap();
        self.note(|| format!("server{} gives .{key} at cltt {cltt}", at + 1));
        self.servers[at].leases.insert(key, lease.clone());
        let replication = self.servers[at].machine.as_mut().unwrap().replicate();
        self.replicated(at, &lease, replication, false);
    }

    fn replicated(&mut self, at: usize, lease: &Lease4, replication: Replication, again: bool) {
        match replication {
            Replication::Send if again => {}
            Replication::Send => self.send(at, Purpose::Change(lease.clone()), Body::Update(lease.clone())),
            Replication::Keep => {
                let server = &mut self.servers[at];
                server.kept.put(lease.clone(), false);
                if !server.machine.as_mut().unwrap().keep(server.kept.len()) {
                    server.kept.clear();
                }
                self.acknowledge(lease);
            }
            Replication::Local => self.acknowledge(lease),
        }
    }

    fn acknowledge(&mut self, lease: &Lease4) {
        self.totals.acknowledged += 1;
        let key = lease.address().octets()[3];
        self.answered_at.insert(key, self.now);
        self.note(|| format!(".{key} is acknowledged at cltt {}", lease.cltt()));
        // A server that is alone does not know of leases that its partner gave alone.
        let knows_all = matches!(self.faults, Faults::None | Faults::SingleRestarts | Faults::Skew);
        if self.mode == Mode::HotStandby && knows_all {
            let is_own = self.acknowledged.get(&key).is_none_or(|known| known.hwaddr() == lease.hwaddr());
            self.assert(is_own, &format!("address .{key} is given to two clients"));
        }
        if self.acknowledged.get(&key).is_none_or(|known| known.cltt() < lease.cltt()) {
            self.acknowledged.insert(key, lease.clone());
        }
    }

    fn fault(&mut self) {
        if self.now >= FAULTS_END {
            return self.end_faults();
        }
        let kind = match self.faults {
            Faults::None => return self.after(FAULTS_END - self.now, Happening::Fault),
            Faults::All => [Faults::Restarts, Faults::Cuts, Faults::Loss, Faults::Skew, Faults::Maintenance]
                [self.random.below(5)],
            kind => kind,
        };
        let at = self.random.below(2);
        match kind {
            Faults::SingleRestarts => {
                if (0..2).all(|at| self.state(at) == Some(self.mode.normal())) {
                    self.stop(at);
                }
            }
            Faults::Restarts => {
                if self.servers[at].machine.is_some() {
                    self.stop(at);
                }
            }
            Faults::Cuts => {
                self.disturbed = self.now;
                match self.random.below(5) {
                    0 => self.links = [false, false],
                    1 => self.links[at] = false,
                    _ => self.links = [true, true],
                }
                let links = self.links;
                self.note(|| format!("links {links:?}"));
            }
            Faults::Loss => {
                self.disturbed = self.now;
                self.loss = [0, 10, 20, 60][self.random.below(4)];
                let loss = self.loss;
                self.note(|| format!("loss {loss} %"));
            }
            Faults::Skew => {
                let skew = self.random.millis(0, 55);
                self.servers[at].skew = i64::try_from(skew).unwrap() - 27;
            }
            Faults::Maintenance => {
                let cancel = self.state(at) == Some(State::PartnerInMaintenance);
                let event = if cancel { Event::MaintenanceCancel } else { Event::MaintenanceStart };
                self.event(at, event);
                if self.random.percent(20) && self.state(at) == Some(State::InMaintenance) {
                    self.totals.interruptions += 1;
                    self.stop(at);
                    self.totals.restarts -= 1;
                }
            }
            Faults::None | Faults::All => {}
        }
        let pause = self.random.millis(300, 12_000);
        self.after(pause, Happening::Fault);
    }

    /// The links are whole, and the administrator puts in order what only people do.
    fn end_faults(&mut self) {
        self.links = [true, true];
        self.loss = 0;
        self.disturbed = self.now;
        self.note(|| "faults end".to_owned());
        for at in 0..2 {
            if matches!(self.state(at), Some(State::InMaintenance | State::PartnerInMaintenance)) {
                self.event(at, Event::Reset);
            }
        }
        // A command for the maintenance may still be on its way.
        if self.now < FAULTS_END + 10_000 {
            self.after(5000, Happening::Fault);
        }
    }

    /// No two servers serve a scope while they can talk.
    fn check_scopes(&mut self) {
        let can_talk = self.links == [true, true] && self.loss == 0;
        if !can_talk || self.now < self.disturbed + SETTLED {
            return;
        }
        let [one, other] = &self.servers;
        let (Some(one), Some(other)) = (&one.machine, &other.machine) else { return };
        if one.is_serving() && other.is_serving() {
            let both: BTreeSet<_> = one.scopes().into_iter().collect();
            let overlap = other.scopes().iter().any(|scope| both.contains(scope));
            self.assert(!overlap, "two servers serve one scope");
        }
    }

    fn check_end(&self) {
        for at in 0..2 {
            let is_normal = self.state(at) == Some(self.mode.normal());
            self.assert(is_normal, &format!("server{} is not back to normal: {:?}", at + 1, self.state(at)));
        }
        let [one, other] = &self.servers;
        for (key, acknowledged) in &self.acknowledged {
            for server in [one, other] {
                let stored = server.leases.get(key).map(Lease4::cltt);
                self.assert(stored >= Some(acknowledged.cltt()), &format!("the lease of .{key} is lost"));
            }
        }
        for client in 0..CLIENTS {
            let answered = self.answered_at.get(&client).copied().unwrap_or(0);
            let since = if client < PERMANENT { END - 30_000 } else { 1 };
            self.assert(answered >= since, &format!("client {client} is not served"));
        }
    }
}
