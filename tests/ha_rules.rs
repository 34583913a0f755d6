//! Rules of the state machine that recordings of transitions do not show, one by one.

#![expect(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

use std::time::Duration;

use leasemgr::ha::{
    Action, ClientHash, Config, Event, Heartbeat, Machine, MaintenanceAnswer, Mode, Notice, Replication,
    Reply, Role, State, Time,
};
use rstest::rstest;
use serde_json::{Value, json};

const WALL: i64 = 1_790_000_000;

/// A machine, and the time, which passes with heartbeats.
struct Server {
    machine: Machine,
    now: u64,
}

impl Server {
    fn new(mode: Mode, role: Role, parameters: &Value) -> Self {
        let other = if mode == Mode::HotStandby { "standby" } else { "secondary" };
        let name = if role == Role::Primary { "server1" } else { "server2" };
        let mut map = json!({ "this-server-name": name, "mode": mode.name(), "peers": [
            { "name": "server1", "url": "http://192.0.2.1:8000/", "role": "primary" },
            { "name": "server2", "url": "http://192.0.2.2:8000/", "role": other },
        ]});
        map.as_object_mut().unwrap().extend(parameters.as_object().unwrap().clone());
        let config = Config::parse(json!([map]).to_string().as_bytes()).unwrap();
        let mut server = Self { machine: Machine::new(config, time(0), 0), now: 0 };
        let _ = server.event(Event::Tick);
        server
    }

    /// A server in its normal state.
    fn normal(mode: Mode, role: Role, parameters: &Value) -> Self {
        let mut server = Self::new(mode, role, parameters);
        let together = if role == Role::Primary { State::Ready } else { mode.normal() };
        let _ = server.heartbeat(together, 0);
        let _ = server.event(Event::Copied { unsent_update_count: None });
        let _ = server.heartbeat(together, 0);
        assert_eq!(server.machine.state(), mode.normal());
        server
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(time(self.now), event)
    }

    fn until_heartbeat(&mut self) {
        if let Some(next) = self.machine.next_tick() {
            self.now = self.now.max(next.as_secs());
            let actions = self.event(Event::Tick);
            assert!(actions.contains(&Action::SendHeartbeat), "{actions:?}");
        }
    }

    /// Has the next heartbeat answered.
    fn heartbeat(&mut self, state: State, count: u64) -> Vec<Action> {
        self.heartbeat_at(state, count, 0)
    }

    fn heartbeat_at(&mut self, state: State, count: u64, skew: i64) -> Vec<Action> {
        self.until_heartbeat();
        let date_time = time(self.now).wall + skew;
        let unsent_update_count = Some(count);
        self.event(Event::HeartbeatAnswered(Heartbeat {
            state,
            date_time,
            scopes: Vec::new(),
            unsent_update_count,
        }))
    }

    fn fails(&mut self, times: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..times {
            self.until_heartbeat();
            actions = self.event(Event::HeartbeatFailed);
        }
        actions
    }

    fn count(&self) -> Option<u64> {
        self.machine.heartbeat(time(self.now)).unsent_update_count
    }
}

fn time(seconds: u64) -> Time {
    Time { monotonic: Duration::from_secs(seconds), wall: WALL + i64::try_from(seconds).unwrap() }
}

fn changed(from: State, to: State) -> Action {
    Action::Log(Notice::Changed { from, to })
}

#[test]
fn heartbeats_come_at_their_time() {
    let mut server = Server::new(Mode::HotStandby, Role::Primary, &json!({}));
    assert_eq!(server.machine.next_tick(), Some(Duration::from_secs(10)));
    server.now = 9;
    assert_eq!(server.event(Event::Tick), []);
    server.now = 10;
    assert_eq!(server.event(Event::Tick), [Action::SendHeartbeat]);
    assert_eq!((server.machine.next_tick(), server.event(Event::Tick)), (None, vec![]));
    server.now = 12;
    let _ = server.event(Event::HeartbeatFailed);
    assert_eq!(server.machine.next_tick(), Some(Duration::from_secs(22)));
}

/// The 11th client with more than 10 s makes the partner count as down, as recorded (`defaults-ack`).
#[test]
fn a_partner_is_down_if_many_of_its_clients_wait() {
    let mut server = Server::normal(Mode::HotStandby, Role::Standby, &json!({}));
    let packet = |client: u8, secs| Event::PartnerPacket {
        client: [client].into(),
        waited: Duration::from_secs(secs),
    };
    // Before the interruption, clients are not observed.
    for client in 0..20 {
        let _ = server.event(packet(client, 60));
    }
    let _ = server.fails(8);
    assert!(server.machine.partner().is_interrupted());
    for client in 0..10 {
        let _ = server.event(packet(client, 11));
        let _ = server.event(packet(client, 20));
    }
    let _ = server.event(packet(10, 10));
    let _ = server.fails(1);
    assert_eq!((server.machine.state(), server.machine.partner().unacked()), (State::HotStandby, 10));
    let _ = server.event(packet(10, 11));
    let _ = server.fails(1);
    assert_eq!(server.machine.state(), State::PartnerDown);
    assert_eq!(server.machine.scopes(), ["server1"]);
}

#[test]
fn a_partner_that_answers_again_has_no_waiting_clients() {
    let mut server = Server::normal(Mode::HotStandby, Role::Standby, &json!({}));
    let _ = server.fails(8);
    let _ = server.event(Event::PartnerPacket { client: [1].into(), waited: Duration::from_secs(11) });
    assert_eq!(server.machine.partner().unacked(), 1);
    let _ = server.heartbeat(State::HotStandby, 0);
    assert_eq!(server.machine.partner().unacked(), 0);
    assert!(!server.machine.partner().is_interrupted());
}

#[rstest]
#[case::primary_of_hot_standby(Mode::HotStandby, Role::Primary, 6, 7)]
#[case::load_balancing(Mode::LoadBalancing, Role::Primary, 0, 1)]
fn how_soon_a_failure_changes_the_state(
    #[case] mode: Mode,
    #[case] role: Role,
    #[case] before: usize,
    #[case] after: usize,
) {
    let mut server = Server::normal(mode, role, &json!({}));
    let _ = server.fails(before);
    assert_eq!(server.machine.state(), mode.normal());
    let _ = server.fails(after - before);
    assert_ne!(server.machine.state(), mode.normal());
}

#[test]
fn without_automatic_failover_a_person_has_to_act() {
    let peers = json!([
        { "name": "server1", "url": "http://192.0.2.1/", "role": "primary", "auto-failover": false },
        { "name": "server2", "url": "http://192.0.2.2/", "role": "standby" },
    ]);
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({ "peers": peers }));
    let _ = server.fails(30);
    assert_eq!(server.machine.state(), State::HotStandby);
    let actions = server.event(Event::MaintenanceStart);
    assert_eq!(actions, [Action::NotifyMaintenance { cancel: false, state: State::HotStandby }]);
    let actions = server.event(Event::MaintenanceAnswered(MaintenanceAnswer::Offline));
    assert_eq!(actions, [changed(State::HotStandby, State::PartnerDown), Action::Reply(Reply::Done)]);
}

#[rstest]
#[case::little(30, State::HotStandby, None)]
#[case::warned(31, State::HotStandby, Some(Notice::Skew(31)))]
#[case::behind(-60, State::HotStandby, Some(Notice::Skew(-60)))]
#[case::too_large(61, State::Terminated, Some(Notice::SkewTooLarge(61)))]
#[case::too_large_behind(-61, State::Terminated, Some(Notice::SkewTooLarge(-61)))]
fn clocks_may_differ(#[case] skew: i64, #[case] state: State, #[case] notice: Option<Notice>) {
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({}));
    let actions = server.heartbeat_at(State::HotStandby, 0, skew);
    assert_eq!(server.machine.state(), state);
    assert_eq!(server.machine.partner().clock_skew(), Some(skew));
    assert_eq!(actions.first(), notice.map(Action::Log).as_ref());
    // The warning comes once.
    if state == State::HotStandby {
        assert_eq!(server.heartbeat_at(State::HotStandby, 0, skew), []);
    }
}

#[test]
fn changes_are_acknowledged_as_the_state_says() {
    let mut server =
        Server::normal(Mode::LoadBalancing, Role::Primary, &json!({ "delayed-updates-limit": 2 }));
    assert_eq!((server.machine.replicate(), server.count()), (Replication::Send, Some(0)));
    // The partner is told with the next heartbeat, and not again before it had time to copy.
    for _ in 0..4 {
        assert_eq!(server.machine.not_replicated(), Replication::Send);
        let _ = server.heartbeat(State::LoadBalancing, 0);
        assert_eq!(server.count(), Some(1));
    }
    let _ = server.fails(1);
    assert_eq!(server.machine.state(), State::CommunicationRecovery);
    assert_eq!(server.machine.not_replicated(), Replication::Keep);
    assert!(server.machine.keep(1) && server.machine.keep(2));
    assert_eq!(server.count(), Some(1));
    assert_eq!(server.heartbeat(State::LoadBalancing, 0), [Action::SendOutstanding]);
    // A client was served meanwhile.
    assert_eq!(server.event(Event::OutstandingSent { kept: 1 }), [Action::SendOutstanding]);
    let actions = server.event(Event::OutstandingSent { kept: 0 });
    assert_eq!(actions, [changed(State::CommunicationRecovery, State::LoadBalancing)]);
}

#[test]
fn too_many_changes_have_all_leases_copied() {
    let mut server =
        Server::normal(Mode::LoadBalancing, Role::Primary, &json!({ "delayed-updates-limit": 2 }));
    let _ = server.fails(1);
    assert!(server.machine.keep(2) && !server.machine.keep(3) && !server.machine.keep(1));
    assert_ne!(server.count(), Some(0));
    let actions = server.heartbeat(State::CommunicationRecovery, 0);
    assert_eq!(actions.get(..2).unwrap(), [Action::Log(Notice::Overflow), Action::ResetPartner]);
    assert_eq!(server.machine.state(), State::Waiting);
}

#[test]
fn kept_changes_are_not_forgotten() {
    let mut server = Server::normal(Mode::LoadBalancing, Role::Primary, &json!({}));
    let _ = server.fails(1);
    assert!(server.machine.keep(1));
    let before = server.count();
    let actions = server.heartbeat(State::PartnerDown, 0);
    assert_eq!(actions.first(), Some(&Action::DropOutstanding));
    assert_eq!(server.machine.state(), State::Waiting);
    assert_ne!(server.count(), before, "the partner copies the leases");
}

#[test]
fn a_partner_that_served_is_copied_before_it_is_worked_with() {
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({}));
    let _ = server.fails(7);
    assert_eq!(server.machine.state(), State::PartnerDown);
    assert_eq!(server.heartbeat(State::Ready, 5), [Action::Pull]);
    assert!(server.machine.may_answer(ClientHash::of(&[1, 2])), "clients are served meanwhile");
    let _ = server.event(Event::Copied { unsent_update_count: Some(5) });
    let actions = server.event(Event::HeartbeatAnswered(Heartbeat {
        state: State::Ready,
        date_time: time(server.now).wall,
        scopes: Vec::new(),
        unsent_update_count: Some(5),
    }));
    assert_eq!(actions, [changed(State::PartnerDown, State::HotStandby)]);
}

#[test]
fn leases_that_were_copied_too_early_are_copied_again() {
    let mut server = Server::new(Mode::HotStandby, Role::Standby, &json!({}));
    let _ = server.heartbeat(State::PartnerDown, 3);
    assert_eq!(server.machine.state(), State::Syncing);
    let _ = server.event(Event::Copied { unsent_update_count: Some(3) });
    assert_eq!(server.machine.state(), State::Ready);
    let actions = server.heartbeat(State::HotStandby, 4);
    assert_eq!(actions, [changed(State::Ready, State::Syncing), Action::Sync]);
}

#[test]
fn a_server_that_was_copied_waits_for_its_partner() {
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({}));
    let _ = server.fails(7);
    let actions = server.event(Event::SyncCompleteNotified);
    assert_eq!(actions, [Action::SetService(false), Action::Reply(Reply::Done)]);
    let _ = server.heartbeat(State::Syncing, 0);
    assert!(!server.machine.is_serving());
    assert!(server.fails(1).contains(&Action::SetService(true)));
}

#[test]
fn a_conflict_has_the_leases_copied_and_many_end_the_work() {
    let mut server =
        Server::normal(Mode::HotStandby, Role::Primary, &json!({ "max-rejected-lease-updates": 2 }));
    let rejected = |client: u8| Event::UpdateRejected { client: [client].into() };
    assert_eq!(server.event(rejected(1)), [Action::Pull]);
    assert_eq!(server.event(rejected(1)), []);
    let actions = server.event(rejected(2));
    let expected = [Action::Log(Notice::TooManyRejected), changed(State::HotStandby, State::Terminated)];
    assert_eq!(actions, expected);
}

#[test]
fn a_maintenance_is_cancelled_without_overlap() {
    let mut server = Server::normal(Mode::HotStandby, Role::Standby, &json!({}));
    let _ = server.event(Event::MaintenanceStart);
    let _ = server.event(Event::MaintenanceAnswered(MaintenanceAnswer::Done));
    assert_eq!(
        (server.machine.state(), server.machine.scopes()),
        (State::PartnerInMaintenance, vec!["server1".to_owned()])
    );
    assert_eq!(
        server.event(Event::MaintenanceStart),
        [Action::Reply(Reply::NotIn(State::PartnerInMaintenance))]
    );
    let actions = server.event(Event::MaintenanceCancel);
    assert_eq!(actions, [Action::NotifyMaintenance { cancel: true, state: State::HotStandby }]);
    assert!(server.machine.scopes().is_empty());
    let actions = server.event(Event::MaintenanceAnswered(MaintenanceAnswer::Offline));
    assert_eq!(actions, [Action::Reply(Reply::PartnerOffline)]);
    assert!(server.machine.scopes().is_empty());
    // The partner did not hear it.
    let _ = server.heartbeat(State::InMaintenance, 0);
    assert_eq!(server.machine.scopes(), ["server1"]);
    // The partner heard it, but its answer was lost.
    let _ = server.event(Event::MaintenanceCancel);
    let _ = server.event(Event::MaintenanceAnswered(MaintenanceAnswer::Offline));
    let actions = server.heartbeat(State::HotStandby, 0);
    assert_eq!(actions, [changed(State::PartnerInMaintenance, State::HotStandby)]);
}

#[test]
fn a_server_in_maintenance_returns() {
    let notified = |cancel| Event::MaintenanceNotified { cancel, partner: Some(State::HotStandby) };
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({}));
    assert_eq!(server.event(notified(true)), [Action::Reply(Reply::NotIn(State::HotStandby))]);
    let actions = server.event(notified(false));
    let expected = [
        Action::SetService(false),
        changed(State::HotStandby, State::InMaintenance),
        Action::Reply(Reply::Done),
    ];
    assert_eq!(actions, expected);
    let actions = server.event(notified(true));
    assert_eq!(actions.last(), Some(&Action::Reply(Reply::Returned(State::HotStandby))));
    // Notified twice, the state before is not known any more.
    for cancel in [false, false, true] {
        let _ = server.event(notified(cancel));
    }
    assert_eq!(server.machine.state(), State::Waiting);
}

#[rstest]
#[case::once("once", false)]
#[case::always("always", true)]
fn the_machine_pauses(#[case] pause: &str, #[case] again: bool) {
    let states = json!({ "states": [{ "state": "hot-standby", "pause": pause }] });
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({ "state-machine": states }));
    assert!(server.machine.is_paused());
    let _ = server.heartbeat(State::Terminated, 0);
    assert_eq!(server.machine.state(), State::HotStandby);
    assert!(server.event(Event::Continue).contains(&Action::Reply(Reply::Done)));
    assert!(server.event(Event::Continue).contains(&Action::Reply(Reply::NotPaused)));
    let _ = server.event(Event::HeartbeatFailed);
    let _ = server.fails(7);
    assert_eq!(server.machine.state(), State::PartnerDown);
    let _ = server.heartbeat(State::Ready, 0);
    assert_eq!((server.machine.state(), server.machine.is_paused()), (State::HotStandby, again));
}

#[test]
fn scopes_are_chosen_until_the_state_changes() {
    let mut server = Server::normal(Mode::LoadBalancing, Role::Primary, &json!({}));
    let _ = server.event(Event::Scopes(vec!["server2".to_owned()]));
    assert_eq!(server.machine.scopes(), ["server2"]);
    let _ = server.fails(1);
    assert_eq!(server.machine.scopes(), ["server1"]);
}

#[test]
fn without_copies_waiting_ends_in_ready() {
    let mut server = Server::new(Mode::HotStandby, Role::Standby, &json!({ "sync-leases": false }));
    let actions = server.heartbeat(State::HotStandby, 9);
    assert_eq!(actions, [changed(State::Waiting, State::Ready), Action::SendHeartbeat]);
    assert_eq!(
        server.heartbeat(State::HotStandby, 9).get(1),
        Some(&changed(State::Ready, State::HotStandby))
    );
}

#[test]
fn without_updates_all_changes_are_local() {
    let mut server = Server::normal(Mode::HotStandby, Role::Primary, &json!({ "send-lease-updates": false }));
    assert_eq!((server.machine.replicate(), server.count()), (Replication::Local, Some(0)));
}

#[test]
fn a_primary_with_backups_serves_alone() {
    let peers = json!([
        { "name": "server1", "url": "http://192.0.2.1/", "role": "primary" },
        { "name": "server2", "url": "http://192.0.2.2/", "role": "backup" },
    ]);
    let parameters = json!({ "mode": "passive-backup", "peers": peers });
    let primary = Server::new(Mode::PassiveBackup, Role::Primary, &parameters);
    assert_eq!((primary.machine.state(), primary.machine.next_tick()), (State::PassiveBackup, None));
    assert!(primary.machine.may_answer(ClientHash::of(&[1, 2])));
    assert_eq!(primary.machine.config().backups().count(), 1);
    let mut backup = Server::new(Mode::PassiveBackup, Role::Secondary, &parameters);
    assert_eq!((backup.machine.state(), backup.machine.scopes()), (State::Backup, Vec::new()));
    assert!(!backup.machine.may_answer(ClientHash::of(&[1, 2])));
    assert_eq!(backup.event(Event::Reset), [Action::Reply(Reply::NotIn(State::Backup))]);
}
