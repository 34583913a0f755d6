//! The state machine against recordings of Kea: `ha-states.jsonl` has what servers of Kea 2.2 and
//! 3.3.1 did in each state, for each state that the partner reported, and `ha-hash.jsonl` which
//! server answered a client.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, also where it is not in a test function"
)]

use std::time::Duration;

use leasemgr::ha::{
    Action, ClientHash, Config, Event, Heartbeat, Machine, MaintenanceAnswer, Mode, Notice, Role, State, Time,
};
use serde_json::{Value, json};

const WALL: i64 = 1_790_000_000;

/// What the partner does.
#[derive(Clone, Copy)]
enum Partner {
    Reports(State),
    /// Does not answer, or reports a state that does not exist.
    Fails,
}

/// A machine whose partner always does the same.
struct Server {
    machine: Machine,
    now: Duration,
    partner: Partner,
    states: Vec<State>,
    syncs: usize,
}

fn config(mode: Mode, role: Role, paused: Option<State>) -> Config {
    let other = if mode == Mode::HotStandby { "standby" } else { "secondary" };
    let this = if role == Role::Primary { "server1" } else { "server2" };
    let pauses: Vec<_> =
        paused.iter().map(|state| json!({ "state": state.name(), "pause": "always" })).collect();
    let map = json!([{
        "this-server-name": this, "mode": mode.name(), "heartbeat-delay": 1000, "max-response-delay": 4000,
        "max-unacked-clients": 0, "state-machine": { "states": pauses }, "peers": [
            { "name": "server1", "url": "http://192.0.2.1:8000/", "role": "primary" },
            { "name": "server2", "url": "http://192.0.2.2:8000/", "role": other },
        ],
    }]);
    Config::parse(map.to_string().as_bytes()).unwrap()
}

impl Server {
    fn new(config: Config) -> Self {
        let start = Time { monotonic: Duration::ZERO, wall: WALL };
        let machine = Machine::new(config, start, 0);
        let states = vec![machine.state()];
        Self { machine, now: Duration::ZERO, partner: Partner::Fails, states, syncs: 0 }
    }

    fn handle(&mut self, event: Event) {
        let now = Time { monotonic: self.now, wall: WALL };
        for action in self.machine.handle(now, event) {
            match (action, self.partner) {
                (Action::SendHeartbeat, Partner::Reports(state)) => {
                    let answer = Heartbeat {
                        state,
                        date_time: WALL,
                        scopes: Vec::new(),
                        unsent_update_count: Some(0),
                    };
                    self.handle(Event::HeartbeatAnswered(answer));
                }
                (Action::SendHeartbeat, Partner::Fails) => self.handle(Event::HeartbeatFailed),
                (Action::Sync, Partner::Reports(_)) => {
                    self.syncs += 1;
                    self.handle(Event::Copied { unsent_update_count: None });
                }
                (Action::Sync, Partner::Fails) => self.handle(Event::CopyFailed),
                (Action::NotifyMaintenance { .. }, _) => {
                    self.handle(Event::MaintenanceAnswered(MaintenanceAnswer::Done));
                }
                (Action::Log(Notice::Changed { from, to }), _) => {
                    assert_eq!(self.states.last(), Some(&from));
                    self.states.push(to);
                }
                (Action::SetService(_) | Action::Reply(_) | Action::Log(_), _) => {}
                (action, _) => panic!("{action:?}"),
            }
        }
    }

    fn run(&mut self, seconds: u32) {
        for _ in 0..seconds * 10 {
            self.now += Duration::from_millis(100);
            self.handle(Event::Tick);
        }
    }

    /// Brings a new server into a state.
    fn reach(mode: Mode, role: Role, state: State) -> Self {
        let pauses = matches!(state, State::Waiting | State::Syncing | State::Ready);
        let mut server = Self::new(config(mode, role, pauses.then_some(state)));
        let together = if role == Role::Primary { State::Ready } else { mode.normal() };
        match state {
            State::Waiting => {}
            State::Syncing | State::Ready => server.partner = Partner::Reports(State::PartnerDown),
            State::PartnerDown => server.partner = Partner::Fails,
            _ => server.partner = Partner::Reports(together),
        }
        server.run(6);
        match state {
            State::CommunicationRecovery => {
                server.partner = Partner::Fails;
                server.run(2);
            }
            State::InMaintenance => {
                server.handle(Event::MaintenanceNotified { cancel: false, partner: None });
            }
            State::PartnerInMaintenance => server.handle(Event::MaintenanceStart),
            State::Terminated => {
                server.partner = Partner::Reports(State::Terminated);
                server.run(2);
            }
            _ => {}
        }
        assert_eq!(server.machine.state(), state);
        assert_eq!(server.machine.is_paused(), pauses);
        server
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn all_transitions_are_those_of_kea() {
    let mut rows = 0;
    for row in lines(include_str!("data/ha-states.jsonl")) {
        let text = |key: &str| row[key].as_str().unwrap();
        let (mode, role) = (Mode::from_name(text("mode")).unwrap(), Role::from_name(text("role")).unwrap());
        let local = State::from_name(text("local")).unwrap();
        let mut server = Server::reach(mode, role, local);
        assert_eq!(json!(server.machine.scopes()), row["scopes"], "{row}");
        server.partner = State::from_name(text("partner")).map_or(Partner::Fails, Partner::Reports);
        server.states = vec![local];
        server.syncs = 0;
        if server.machine.is_paused() {
            server.handle(Event::Continue);
        }
        server.run(15);
        let path: Vec<_> = server.states.iter().map(|state| state.name()).collect();
        assert_eq!(path.join(">"), text("path"), "{row}");
        // A server of the recording was stopped before its scopes were asked for.
        if !row["scopes-after"].is_null() {
            assert_eq!(json!(server.machine.scopes()), row["scopes-after"], "{row}");
        }
        let syncs = text("sent").matches("dhcp-disable").count();
        assert_eq!(server.syncs, syncs, "{row}");
        assert_eq!(server.machine.is_serving(), server.machine.state().serves(), "{row}");
        rows += row["kea"].as_array().unwrap().len();
    }
    assert_eq!(rows, 952);
}

#[test]
fn clients_are_divided_as_by_kea() {
    let rows = lines(include_str!("data/ha-hash.jsonl"));
    assert_eq!(rows.len(), 50);
    for row in rows {
        let key: Vec<u8> = row["key"]
            .as_str()
            .unwrap()
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let hash = ClientHash::of(&key);
        let server = if hash.is_primary() { "server1" } else { "server2" };
        assert_eq!(row["server"], server, "{row}");
        for role in [Role::Primary, Role::Secondary] {
            let balanced = Machine::new(config(Mode::LoadBalancing, role, None), start(), 0);
            assert_eq!(balanced.scope_of(hash), server);
        }
        for role in [Role::Primary, Role::Standby] {
            let standby = Machine::new(config(Mode::HotStandby, role, None), start(), 0);
            assert_eq!(standby.scope_of(hash), "server1");
        }
    }
}

fn start() -> Time {
    Time { monotonic: Duration::ZERO, wall: WALL }
}
