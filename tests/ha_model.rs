//! The state machine by model: all sequences of events up to a length, random ones, and two
//! machines in a simulated network with faults and clients.
//!
//! `LEASEMGR_HA_MODEL=N` runs N times as many random sequences and simulations, and sequences that
//! are one event longer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, also where it is not in a test function"
)]

#[path = "support/ha_network.rs"]
mod ha_network;

use std::time::Duration;

use ha_network::{Faults, Random, Script, Simulation, config, scale};
use leasemgr::ha::{Action, Event, Heartbeat, Machine, MaintenanceAnswer, Mode, Notice, Role, State, Time};
use rstest::rstest;
use serde_json::{Value, json};

const WALL: i64 = 1_790_000_000;

/// A machine, and what its caller knows about it.
#[derive(Clone)]
struct Checked {
    machine: Machine,
    now: Duration,
    skew: i64,
    heartbeat_sent: bool,
    work: Option<Action>,
    service: Option<bool>,
    kept: usize,
}

impl Checked {
    fn new(mode: Mode, role: Role) -> Self {
        let start = Time { monotonic: Duration::ZERO, wall: WALL };
        let machine = Machine::new(config(mode, role, "server1"), start, 0);
        Self {
            machine,
            now: Duration::ZERO,
            skew: 0,
            heartbeat_sent: false,
            work: None,
            service: None,
            kept: 0,
        }
    }

    fn time(&self) -> Time {
        Time { monotonic: self.now, wall: WALL + i64::try_from(self.now.as_secs()).unwrap() }
    }

    /// Handles an event, and checks what is true after each.
    fn handle(&mut self, event: &Event) {
        let before = self.machine.state();
        match event {
            Event::HeartbeatAnswered(_) | Event::HeartbeatFailed => self.heartbeat_sent = false,
            Event::Copied { .. } | Event::CopyFailed => {
                self.work.take_if(|work| matches!(work, Action::Sync | Action::Pull));
            }
            Event::OutstandingSent { kept } => {
                let sent = self.work.take_if(|work| *work == Action::SendOutstanding);
                self.kept = if sent.is_some() { *kept } else { self.kept };
            }
            Event::OutstandingFailed => drop(self.work.take_if(|work| *work == Action::SendOutstanding)),
            Event::MaintenanceAnswered(_) => {
                self.work.take_if(|work| matches!(work, Action::NotifyMaintenance { .. }));
            }
            _ => {}
        }
        let mut at = before;
        for action in self.machine.handle(self.time(), event.clone()) {
            match action {
                Action::SendHeartbeat => {
                    assert!(!std::mem::replace(&mut self.heartbeat_sent, true), "one heartbeat at a time");
                }
                Action::Sync | Action::Pull | Action::SendOutstanding | Action::NotifyMaintenance { .. } => {
                    assert_eq!(self.work, None, "one work at a time, not also {action:?}");
                    assert!(action != Action::SendOutstanding || self.kept > 0);
                    assert!(action != Action::Sync || self.machine.state() == State::Syncing);
                    self.work = Some(action);
                }
                Action::SetService(service) => {
                    assert_ne!(self.service, Some(service), "the service changes");
                    self.service = Some(service);
                }
                Action::DropOutstanding => {
                    assert_eq!(at, State::CommunicationRecovery);
                    self.kept = 0;
                }
                Action::Log(Notice::Changed { from, to }) => {
                    assert_eq!(from, at);
                    assert_ne!(from, to);
                    assert!(from != State::Terminated || *event == Event::Reset, "terminated is for good");
                    at = to;
                }
                Action::Reply(_) | Action::Log(_) | Action::ResetPartner => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(at, self.machine.state(), "each change is told");
        self.check();
    }

    fn check(&self) {
        let (machine, state) = (&self.machine, self.machine.state());
        assert_eq!(self.service, Some(machine.is_serving()), "the caller knows whether it serves");
        assert!(state.serves() || !machine.is_serving());
        let scopes = machine.scopes();
        assert!(scopes.iter().all(|scope| ["server1", "server2", "chosen"].contains(&scope.as_str())));
        assert!(state.serves() || scopes.is_empty() || scopes == ["chosen"]);
        let rests = matches!(state, State::Terminated | State::Backup | State::PassiveBackup);
        let waits = self.heartbeat_sent || self.work.is_some();
        assert!(rests || waits || machine.next_tick().is_some(), "there is always something that comes next");
    }

    /// Makes a change for a client, if one is served.
    fn change(&mut self) {
        if !self.machine.is_serving() {
            return;
        }
        let count = self.machine.heartbeat(self.time()).unsent_update_count;
        let state = self.machine.state();
        match self.machine.replicate() {
            leasemgr::ha::Replication::Send => {
                let normal =
                    matches!(state, State::HotStandby | State::LoadBalancing | State::PartnerInMaintenance);
                assert!(normal, "{state}");
            }
            leasemgr::ha::Replication::Keep => {
                assert_eq!(state, State::CommunicationRecovery);
                let is_kept = self.machine.keep(self.kept + 1);
                self.kept = if is_kept { self.kept + 1 } else { 0 };
            }
            leasemgr::ha::Replication::Local if self.machine.config().partner().is_none() => {}
            leasemgr::ha::Replication::Local => {
                assert_ne!(self.machine.heartbeat(self.time()).unsent_update_count, count, "{state}");
            }
        }
    }
}

fn heartbeat(state: State, date_time: i64, count: u64) -> Event {
    Event::HeartbeatAnswered(Heartbeat {
        state,
        date_time,
        scopes: Vec::new(),
        unsent_update_count: Some(count),
    })
}

/// The kinds of events. Times are such that a communication is interrupted after 6 failures.
const KINDS: usize = 34;

/// Makes an event of a kind happen: after each, time passes to the next tick.
fn happens(checked: &mut Checked, kind: usize) {
    let wall = checked.time().wall + checked.skew;
    let event = match kind {
        0..12 => heartbeat(State::ALL[kind], wall, 0),
        12 => Event::HeartbeatFailed,
        13 => Event::Copied { unsent_update_count: None },
        14 => Event::CopyFailed,
        15 => Event::OutstandingSent { kept: 0 },
        16 => Event::OutstandingSent { kept: 1 },
        17 => Event::OutstandingFailed,
        18 => Event::SyncCompleteNotified,
        19 => Event::MaintenanceNotified { cancel: false, partner: None },
        20 => Event::MaintenanceNotified { cancel: true, partner: Some(State::PartnerDown) },
        21 => Event::MaintenanceAnswered(MaintenanceAnswer::Done),
        22 => Event::MaintenanceAnswered(MaintenanceAnswer::Offline),
        23 => Event::MaintenanceStart,
        24 => Event::MaintenanceCancel,
        25 => Event::Reset,
        26 => Event::Continue,
        27 => Event::UpdateFailed { unreachable: true },
        28 => Event::UpdateRejected { client: [1].into() },
        29 => Event::PartnerPacket { client: [1].into(), waited: Duration::from_secs(20) },
        30 => heartbeat(State::Ready, wall, 7),
        31 => heartbeat(State::HotStandby, wall + 61, 0),
        32 => Event::Scopes(vec!["chosen".to_owned()]),
        _ => {
            checked.change();
            Event::Tick
        }
    };
    checked.handle(&event);
    // A heartbeat is due when its answer comes.
    checked.now += Duration::from_secs(if kind == 12 { 4 } else { 1 });
    checked.handle(&Event::Tick);
}

fn all_below(checked: &Checked, depth: usize, number: &mut u64) {
    for kind in 0..KINDS {
        let mut next = checked.clone();
        happens(&mut next, kind);
        *number += 1;
        if depth > 1 {
            all_below(&next, depth - 1, number);
        }
    }
}

#[rstest]
#[case::hot_standby_primary(Mode::HotStandby, Role::Primary)]
#[case::hot_standby_standby(Mode::HotStandby, Role::Standby)]
#[case::load_balancing_primary(Mode::LoadBalancing, Role::Primary)]
#[case::load_balancing_secondary(Mode::LoadBalancing, Role::Secondary)]
#[case::passive_backup(Mode::PassiveBackup, Role::Primary)]
fn every_short_sequence_of_events(#[case] mode: Mode, #[case] role: Role) {
    let depth = if scale() > 1 { 4 } else { 3 };
    let mut number = 0;
    let mut new = Checked::new(mode, role);
    new.handle(&Event::Tick);
    all_below(&new, depth, &mut number);
    // And from the normal state, from one in which the partner is down, and from the interruption.
    for start in [&[4, 4, 4, 8, 13, 8, mode_kind(mode)][..], &[12, 12, 12], &[8, 13, 8, mode_kind(mode), 12]]
    {
        let mut checked = new.clone();
        for kind in start {
            happens(&mut checked, *kind);
        }
        all_below(&checked, depth, &mut number);
    }
    assert!(number > 150_000, "{number}");
}

/// Returns the kind of the heartbeat with the normal state.
fn mode_kind(mode: Mode) -> usize {
    State::ALL.iter().position(|state| *state == mode.normal()).unwrap()
}

#[rstest]
#[case::hot_standby_primary(Mode::HotStandby, Role::Primary)]
#[case::hot_standby_standby(Mode::HotStandby, Role::Standby)]
#[case::load_balancing_primary(Mode::LoadBalancing, Role::Primary)]
#[case::load_balancing_secondary(Mode::LoadBalancing, Role::Secondary)]
fn random_sequences_of_events(#[case] mode: Mode, #[case] role: Role) {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..25_000 * scale() {
        let mut random = Random::new(seed);
        let mut checked = Checked::new(mode, role);
        checked.handle(&Event::Tick);
        for _ in 0..30 {
            // Half of the time, what is awaited comes.
            let kind = match (random.below(4), checked.heartbeat_sent, &checked.work) {
                (0, true, _) => random.below(13),
                (0, false, Some(Action::Sync | Action::Pull)) => 13 + random.below(2),
                (0, false, Some(Action::SendOutstanding)) => 15 + random.below(3),
                (1, _, _) => 33,
                _ => random.below(KINDS),
            };
            happens(&mut checked, kind);
            seen.insert(checked.machine.state());
        }
    }
    assert_eq!(seen.len(), if mode == Mode::HotStandby { 8 } else { 9 }, "{seen:?}");
}

#[rstest]
fn two_servers(
    #[values(Mode::HotStandby, Mode::LoadBalancing)] mode: Mode,
    #[values(
        Faults::None,
        Faults::SingleRestarts,
        Faults::Restarts,
        Faults::Cuts,
        Faults::Loss,
        Faults::Skew,
        Faults::Maintenance,
        Faults::All
    )]
    faults: Faults,
) {
    let mut total = ha_network::Totals::default();
    for seed in 0..40 * scale() {
        let simulation = Simulation::new(mode, faults, seed);
        total.add(&simulation.run());
    }
    // The simulations do what they are there for.
    assert!(total.acknowledged > 1000, "{total:?}");
    let restarts = matches!(faults, Faults::SingleRestarts | Faults::Restarts | Faults::All);
    assert_eq!(total.restarts > 0, restarts, "{total:?}");
    assert!(faults == Faults::None || faults == Faults::Skew || total.interruptions > 0, "{total:?}");
}

/// Recordings of two servers of Kea (`ha-scenarios.jsonl`), played with two of this crate: both
/// enter the same states in the same order. States without service are left out, because a
/// recording has only those that a heartbeat or an administrator saw.
#[test]
fn recordings_of_two_servers() {
    let mut played = 0;
    for line in include_str!("data/ha-scenarios.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let parameters = json!({
            "max-response-delay": row["max-response-delay"],
            "max-unacked-clients": row["max-unacked-clients"],
            "delayed-updates-limit": row["delayed-updates-limit"],
            "send-lease-updates": row["send-lease-updates"],
        });
        let mode = Mode::from_name(row["mode"].as_str().unwrap()).unwrap();
        // It is chance how long two servers need to find each other: give them more time.
        let later = |i: usize| if i < 2 { 0 } else { 3000 };
        let steps = row["steps"].as_array().unwrap().iter().enumerate().map(|(i, step)| {
            let server = usize::try_from(step[2].as_u64().unwrap()).unwrap();
            (step[0].as_u64().unwrap() + later(i), step[1].as_str().unwrap().to_owned(), server)
        });
        let end = row["end"].as_u64().unwrap() + 2 * later(2);
        let script = Script { parameters, steps: steps.collect(), end };
        let entered = Simulation::play(mode, row["skew"].as_i64().unwrap(), script);
        for (server, entered) in entered.iter().enumerate() {
            let names: Vec<_> = entered
                .iter()
                .filter(|state| !matches!(state, State::Waiting | State::Syncing | State::Ready))
                .map(|state| state.name())
                .collect();
            // A server may have been in the normal state, or cut off, between two heartbeats.
            let mut recorded = row["states"][server].as_array().unwrap().iter().peekable();
            let unseen: Vec<_> =
                names.iter().filter(|name| recorded.next_if(|state| *state == *name).is_none()).collect();
            assert!(recorded.next().is_none(), "server{}: {names:?}, {row}", server + 1);
            let passing = |name: &&&str| ["communication-recovery", mode.normal().name()].contains(*name);
            assert!(
                unseen.len() <= 1 && unseen.iter().all(passing),
                "server{}: {names:?}, {row}",
                server + 1
            );
        }
        played += 1;
    }
    assert_eq!(played, 40);
}
