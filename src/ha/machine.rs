//! The state machine: takes events and the time, gives actions. It does no I/O and has no clock.

use std::time::Duration;

use super::communication::Communication;
use super::{ClientHash, Config, Mode, Pause, Role, State};

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// The time since any start, by a clock that is never set.
    pub monotonic: Duration,
    /// Seconds since the epoch, by the clock that leases are written with.
    pub wall: i64,
}

/// What a server tells in the answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The state of the server.
    pub state: State,
    /// The time of its clock, in seconds since the epoch.
    pub date_time: i64,
    /// The scopes that it serves. Empty if it does not tell them.
    pub scopes: Vec<String>,
    /// A number that is another one after each change that the other server does not know, so that
    /// the latter copies the leases again. `None` if the server does not tell it.
    pub unsent_update_count: Option<u64>,
}

/// What happens to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Time passed.
    Tick,
    /// The partner answered the heartbeat.
    HeartbeatAnswered(Heartbeat),
    /// The heartbeat was not answered, or the answer was not one.
    HeartbeatFailed,
    /// All leases of the partner were copied, for [`Action::Sync`] or [`Action::Pull`].
    Copied {
        /// The partner's count of changes after its service was disabled and before the first
        /// page was read. `None` if it was not asked for.
        unsent_update_count: Option<u64>,
    },
    /// The leases could not be copied.
    CopyFailed,
    /// The partner has all changes that were kept for it.
    OutstandingSent {
        /// Number of changes that are kept now, because clients were served meanwhile.
        kept: usize,
    },
    /// The partner did not take all changes that were kept for it.
    OutstandingFailed,
    /// The partner has a change that was sent to it.
    UpdateAnswered,
    /// The partner did not answer a change, or could not make it.
    UpdateFailed {
        /// Whether there was no answer.
        unreachable: bool,
    },
    /// The partner refused a change because of a conflict.
    UpdateRejected {
        /// The client of the lease: any bytes that identify it.
        client: Box<[u8]>,
    },
    /// A client of the partner sent a packet.
    PartnerPacket {
        /// The client: any bytes that identify it.
        client: Box<[u8]>,
        /// For how long it has waited: [`waited_secs`](super::waited_secs), or the elapsed time
        /// of DHCPv6.
        waited: Duration,
    },
    /// The partner has copied this server's leases (`ha-sync-complete-notify`).
    SyncCompleteNotified,
    /// The partner starts or cancels the maintenance of this server (`ha-maintenance-notify`).
    MaintenanceNotified {
        /// Whether it is cancelled.
        cancel: bool,
        /// The state of the partner before the maintenance, if it tells it.
        partner: Option<State>,
    },
    /// The partner answered [`Action::NotifyMaintenance`], or did not.
    MaintenanceAnswered(MaintenanceAnswer),
    /// An administrator is about to stop the partner (`ha-maintenance-start`).
    MaintenanceStart,
    /// An administrator does not stop the partner (`ha-maintenance-cancel`).
    MaintenanceCancel,
    /// An administrator continues the state machine (`ha-continue`).
    Continue,
    /// An administrator or the partner starts the state machine again (`ha-reset`).
    Reset,
    /// An administrator chooses the scopes that are served, until the next change of state
    /// (`ha-scopes`).
    Scopes(Vec<String>),
}

/// The partner's answer to [`Action::NotifyMaintenance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintenanceAnswer {
    /// Result 0.
    Done,
    /// Result 1, or no answer.
    Offline,
    /// Any other result.
    Refused,
}

/// What the server has to do. Answers of the partner come back as [`Event`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Send `ha-heartbeat` to the partner.
    SendHeartbeat,
    /// Disable the partner's service, copy its leases, and notify it.
    Sync,
    /// Copy the partner's leases, without a change of its service.
    Pull,
    /// Send the changes that were kept.
    SendOutstanding,
    /// Forget the changes that were kept: the partner copies all leases.
    DropOutstanding,
    /// Send `ha-reset` to the partner. Its answer does not matter.
    ResetPartner,
    /// Send `ha-maintenance-notify` to the partner.
    NotifyMaintenance {
        /// Whether the maintenance is cancelled.
        cancel: bool,
        /// The state of this server before the maintenance.
        state: State,
    },
    /// Enable or disable the own service, for the origin of this server, not of the partner.
    SetService(bool),
    /// Answer the command that was the event.
    Reply(Reply),
    /// Write to the log.
    Log(Notice),
}

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// It is done.
    Done,
    /// The maintenance is cancelled, and this is the state now.
    Returned(State),
    /// It cannot be done in this state.
    NotIn(State),
    /// The state machine is not paused. This is no error.
    NotPaused,
    /// The partner refused.
    PartnerRefused,
    /// The partner did not answer.
    PartnerOffline,
    /// Leases are being copied, or another command is being worked on.
    Busy,
}

/// What an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The state changed.
    Changed {
        /// The state before.
        from: State,
        /// The state now.
        to: State,
    },
    /// The state machine stops in this state until it is continued.
    Paused(State),
    /// There was no answer for longer than `max-response-delay`.
    Interrupted,
    /// The number of seconds, more than 30, by which the partner's clock is ahead of the own one.
    Skew(i64),
    /// The clocks differ by more than 60 s, so the servers do not work together any more.
    SkewTooLarge(i64),
    /// The partner rejected changes of `max-rejected-lease-updates` clients.
    TooManyRejected,
    /// The partner is configured for another mode: this is its state.
    OtherMode(State),
    /// The partner works on alone, until both servers are restarted.
    PartnerTerminated,
    /// More changes happened than are kept, so all leases are copied.
    Overflow,
}

/// What to do with a change of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// Send it to the partner, and acknowledge it when the partner has it.
    Send,
    /// Keep it for the partner ([`Action::SendOutstanding`]), and acknowledge it at once.
    Keep,
    /// Acknowledge it at once: there is no partner, or it copies all leases when it is back.
    Local,
}

/// What is going on with the partner, besides heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// For the state [`State::Syncing`].
    Sync,
    Pull,
    Outstanding,
    Maintenance {
        cancel: bool,
    },
}

/// Largest difference of the clocks without a warning, in seconds.
const TOLERATED_SKEW: u64 = 30;
/// Largest difference of the clocks with which the servers work together, in seconds.
const MAX_SKEW: u64 = 60;

/// The state of a server, and what follows from an event.
///
/// The caller serializes the calls: with one lock for the machine and the changes that are kept, a
/// change and the state that it happens in fit together.
///
/// ```
/// use std::time::Duration;
///
/// use leasemgr::ha::{Action, Config, Event, Heartbeat, Machine, Notice, State, Time};
///
/// # let config = Config::parse(br#"[{ "this-server-name": "a", "mode": "hot-standby", "peers": [
/// #     { "name": "a", "url": "http://192.0.2.1:8000/", "role": "primary" },
/// #     { "name": "b", "url": "http://192.0.2.2:8000/", "role": "standby" } ] }]"#)?;
/// let at = |seconds| Time { monotonic: Duration::from_secs(seconds), wall: 1_790_000_000 };
/// let mut machine = Machine::new(config, at(0), 0);
/// assert_eq!(machine.handle(at(0), Event::Tick), [Action::SetService(false)]);
/// assert_eq!(machine.handle(at(10), Event::Tick), [Action::SendHeartbeat]);
/// let answer = Heartbeat {
///     state: State::Waiting, date_time: 1_790_000_000, scopes: Vec::new(), unsent_update_count: Some(0),
/// };
/// assert_eq!(machine.handle(at(10), Event::HeartbeatAnswered(answer)), [
///     Action::Log(Notice::Changed { from: State::Waiting, to: State::Syncing }),
///     Action::Sync,
/// ]);
/// # Ok::<(), leasemgr::ha::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Machine {
    config: Config,
    state: State,
    /// The state before this one.
    previous: State,
    /// What the caller was last told about the service; `None` before that.
    service: Option<bool>,
    /// In partner-down: the partner has all leases, so none may be given before it goes on.
    held: bool,
    paused: bool,
    /// The states that were entered, for [`Pause::Once`].
    entered: Vec<State>,
    /// The maintenance of the partner is being cancelled: it may serve its clients already.
    cancelling: bool,
    /// The scopes that an administrator chose.
    scopes: Option<Vec<String>>,
    next_heartbeat: Duration,
    heartbeat_sent: bool,
    /// The state changed since the heartbeat was sent, so the partner's one may be of before.
    heartbeat_is_stale: bool,
    work: Option<Work>,
    partner: Communication,
    /// Number of changes that are kept for the partner.
    kept: usize,
    /// Whether more changes happened than are kept.
    overflow: bool,
    unsent: u64,
    /// The partner did not take a change, and does not know that yet.
    is_refused: bool,
    /// When the partner may be told next that it did not take changes.
    next_refusal: Duration,
    skew_warned: bool,
}

impl Machine {
    /// Creates the machine of a server that has just started.
    ///
    /// `unsent_update_count` is the first value of [`Heartbeat::unsent_update_count`]. A server
    /// that cannot rule out that it stopped with changes that the partner does not know gives a
    /// number that it never gave before, such as the time, and the partner copies its leases.
    #[must_use]
    pub fn new(config: Config, now: Time, unsent_update_count: u64) -> Self {
        let state = match (config.mode, config.this.role) {
            (_, Role::Backup) => State::Backup,
            (Mode::PassiveBackup, _) => State::PassiveBackup,
            _ => State::Waiting,
        };
        let mut machine = Self {
            state,
            previous: State::Waiting,
            service: None,
            held: false,
            paused: false,
            entered: Vec::new(),
            cancelling: false,
            scopes: None,
            next_heartbeat: now.monotonic.saturating_add(config.heartbeat_delay),
            heartbeat_sent: false,
            heartbeat_is_stale: false,
            work: None,
            partner: Communication::new(now),
            kept: 0,
            overflow: false,
            unsent: unsent_update_count,
            is_refused: false,
            next_refusal: Duration::ZERO,
            skew_warned: false,
            config,
        };
        machine.paused = machine.pauses();
        machine
    }

    /// Handles an event, and returns what to do, in this order.
    #[must_use]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let out = &mut out;
        match event {
            Event::Tick => {}
            Event::HeartbeatAnswered(heartbeat) => self.heartbeat_answered(now, &heartbeat, out),
            Event::HeartbeatFailed => self.heartbeat_failed(now, out),
            Event::Copied { unsent_update_count } => self.copied(now, unsent_update_count, out),
            Event::CopyFailed => {
                self.work_failed(now, Work::Sync);
                self.work_failed(now, Work::Pull);
            }
            Event::OutstandingSent { kept } => self.outstanding_sent(now, kept, out),
            Event::OutstandingFailed => self.work_failed(now, Work::Outstanding),
            Event::UpdateAnswered => self.partner.heard(now),
            // The heartbeat finds out at once whether the partner is there.
            Event::UpdateFailed { unreachable: true } => self.hasten(now),
            Event::UpdateFailed { unreachable: false } => self.partner.heard(now),
            Event::UpdateRejected { client } => self.rejected(now, client, out),
            Event::PartnerPacket { client, waited } => self.partner_packet(client, waited),
            Event::SyncCompleteNotified => {
                self.held |= self.state == State::PartnerDown;
                self.tell_service(out);
                out.push(Action::Reply(Reply::Done));
            }
            Event::MaintenanceNotified { cancel, partner } => {
                let reply = self.maintenance_notified(now, cancel, partner, out);
                out.push(Action::Reply(reply));
            }
            Event::MaintenanceAnswered(answer) => self.maintenance_answered(now, answer, out),
            Event::MaintenanceStart => self.maintenance(false, out),
            Event::MaintenanceCancel => self.maintenance(true, out),
            Event::Continue => {
                let reply = if self.paused { Reply::Done } else { Reply::NotPaused };
                self.paused = false;
                self.hasten(now);
                out.push(Action::Reply(reply));
            }
            Event::Reset => {
                let reply = match self.state {
                    State::Backup | State::PassiveBackup => Reply::NotIn(self.state),
                    State::Waiting => Reply::Done,
                    _ => {
                        self.enter(now, State::Waiting, out);
                        Reply::Done
                    }
                };
                out.push(Action::Reply(reply));
            }
            Event::Scopes(scopes) => {
                self.scopes = Some(scopes);
                out.push(Action::Reply(Reply::Done));
            }
        }
        self.tell_service(out);
        if now.monotonic >= self.next_heartbeat && self.may_send_heartbeat() {
            self.heartbeat_sent = true;
            self.heartbeat_is_stale = false;
            out.push(Action::SendHeartbeat);
        }
        std::mem::take(out)
    }

    /// Returns when [`Event::Tick`] is due; `None` while an answer of the partner is awaited, and
    /// if there is nothing to do.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        self.may_send_heartbeat().then_some(self.next_heartbeat)
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether the state machine stops in this state until it is continued.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Returns whether the service is enabled, as far as this server decides that.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state.serves() && !self.held
    }

    /// Returns the scopes that are served: the names of the servers whose clients are answered.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        if let Some(scopes) = &self.scopes {
            return scopes.clone();
        }
        let (this, primary) = (&self.config.this, self.config.primary());
        let own = || vec![this.name.clone()];
        // As in the normal state, which may be that of the partner already.
        let state = if self.cancelling { self.config.mode.normal() } else { self.state };
        match (state, self.config.mode) {
            (State::PartnerDown | State::PartnerInMaintenance, Mode::LoadBalancing) => {
                // In the order primary, secondary.
                let other = self.config.partner().filter(|_| this.role == Role::Primary).unwrap_or(this);
                vec![primary.name.clone(), other.name.clone()]
            }
            (State::PartnerDown | State::PartnerInMaintenance, _) => vec![primary.name.clone()],
            (State::HotStandby | State::PassiveBackup, _) | (State::Terminated, Mode::HotStandby) => {
                if this.role == Role::Primary { own() } else { Vec::new() }
            }
            (State::LoadBalancing | State::CommunicationRecovery | State::Terminated, _) => own(),
            (State::Backup | State::InMaintenance | State::Ready | State::Syncing | State::Waiting, _) => {
                Vec::new()
            }
        }
    }

    /// Returns the scope of a client: the name of the server that answers it normally.
    #[must_use]
    pub fn scope_of(&self, client: ClientHash) -> &str {
        let primary = self.config.primary();
        if self.config.mode != Mode::LoadBalancing || client.is_primary() {
            return &primary.name;
        }
        let this = &self.config.this;
        let secondary = if this.role == Role::Secondary { Some(this) } else { None };
        secondary.or(self.config.partner()).map_or(&primary.name, |peer| &peer.name)
    }

    /// Returns whether this server answers a client now.
    #[must_use]
    pub fn may_answer(&self, client: ClientHash) -> bool {
        self.is_serving() && self.scopes().iter().any(|scope| scope == self.scope_of(client))
    }

    /// Returns the answer to the partner's heartbeat.
    #[must_use]
    pub fn heartbeat(&self, now: Time) -> Heartbeat {
        Heartbeat {
            state: self.state,
            date_time: now.wall,
            scopes: self.scopes(),
            unsent_update_count: Some(self.unsent),
        }
    }

    /// Returns what is known about the partner.
    #[must_use]
    pub fn partner(&self) -> &Communication {
        &self.partner
    }

    /// Decides about a change that was made for a client. If the change is to be sent and that
    /// fails, [`Machine::not_replicated`] decides again.
    #[must_use]
    pub fn replicate(&mut self) -> Replication {
        if !self.config.send_lease_updates || self.config.partner().is_none() {
            return Replication::Local;
        }
        match self.state {
            State::HotStandby | State::LoadBalancing | State::PartnerInMaintenance => Replication::Send,
            State::CommunicationRecovery => Replication::Keep,
            _ => {
                self.unsent = self.unsent.wrapping_add(1);
                Replication::Local
            }
        }
    }

    /// Decides about a change that was sent and that the partner did not take. With
    /// [`Replication::Send`], it may not be acknowledged, and the partner is told to copy the
    /// leases, at most once in `max-response-delay`.
    #[must_use]
    pub fn not_replicated(&mut self) -> Replication {
        let replication = self.replicate();
        self.is_refused |= replication == Replication::Send;
        replication
    }

    /// Tells how many changes are kept, after one of [`Replication::Keep`] was added. Returns
    /// whether they are kept on; otherwise there are too many, and all are forgotten.
    #[must_use]
    pub fn keep(&mut self, kept: usize) -> bool {
        let limit = usize::try_from(self.config.delayed_updates_limit).unwrap_or(usize::MAX);
        if kept > limit && !self.overflow {
            self.overflow = true;
            self.unsent = self.unsent.wrapping_add(1);
        }
        self.kept = if self.overflow { 0 } else { kept };
        !self.overflow
    }

    /// Tells whether the service is enabled, if that has changed. Before a reply: the partner may
    /// rely on it.
    fn tell_service(&mut self, out: &mut Vec<Action>) {
        let service = self.is_serving();
        if self.service.replace(service) != Some(service) {
            out.push(Action::SetService(service));
        }
    }

    fn may_send_heartbeat(&self) -> bool {
        let is_copying = matches!(self.work, Some(Work::Sync | Work::Outstanding));
        self.state.sends_heartbeats()
            && self.config.partner().is_some()
            && !is_copying
            && !self.heartbeat_sent
    }

    /// Has the next heartbeat sent at once.
    fn hasten(&mut self, now: Time) {
        self.next_heartbeat = self.next_heartbeat.min(now.monotonic);
    }

    /// Returns whether the machine stops in its state, which it has just entered.
    fn pauses(&mut self) -> bool {
        let is_first = !self.entered.contains(&self.state);
        if is_first {
            self.entered.push(self.state);
        }
        match self.config.pause(self.state) {
            Pause::Never => false,
            Pause::Once => is_first,
            Pause::Always => true,
        }
    }

    fn enter(&mut self, now: Time, to: State, out: &mut Vec<Action>) {
        // The partner has to copy the changes that it did not get.
        if self.state == State::CommunicationRecovery && (self.kept > 0 || self.overflow) {
            self.kept = 0;
            self.overflow = false;
            self.unsent = self.unsent.wrapping_add(1);
            out.push(Action::DropOutstanding);
        }
        self.previous = self.state;
        self.state = to;
        self.scopes = None;
        self.cancelling = false;
        self.held = false;
        self.heartbeat_is_stale = true;
        self.tell_service(out);
        out.push(Action::Log(Notice::Changed { from: self.previous, to }));
        self.paused = self.pauses();
        if self.paused {
            out.push(Action::Log(Notice::Paused(to)));
            return;
        }
        match to {
            State::Syncing => self.start(Work::Sync, Action::Sync, out),
            // What the partner did meanwhile decides how to go on.
            State::Waiting | State::Ready => self.hasten(now),
            _ => {}
        }
    }

    /// Starts to work with the partner, unless it is worked with.
    fn start(&mut self, work: Work, action: Action, out: &mut Vec<Action>) {
        if self.work.is_none() {
            self.work = Some(work);
            self.partner.remember_count();
            out.push(action);
        }
    }

    /// Returns whether the partner made changes that this server does not have.
    fn is_behind(&self) -> bool {
        self.config.sync_leases && self.partner.has_unseen_changes()
    }

    fn heartbeat_answered(&mut self, now: Time, heartbeat: &Heartbeat, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.heartbeat_sent) {
            return;
        }
        self.next_heartbeat = now.monotonic.saturating_add(self.config.heartbeat_delay);
        self.partner.answered(now, heartbeat);
        // Not more often: a change that is never taken would have the leases copied all the time.
        if now.monotonic >= self.next_refusal && std::mem::take(&mut self.is_refused) {
            self.unsent = self.unsent.wrapping_add(1);
            self.next_refusal = now.monotonic.saturating_add(self.config.max_response_delay);
        }
        if self.state == State::PartnerDown && !matches!(heartbeat.state, State::Syncing | State::Ready) {
            self.held = false;
        }
        if self.paused {
            return;
        }
        if self.heartbeat_is_stale {
            return self.hasten(now);
        }
        let skew = self.partner.clock_skew().unwrap_or(0);
        let is_warned = skew.unsigned_abs() > TOLERATED_SKEW;
        let is_in_maintenance = matches!(self.state, State::InMaintenance | State::PartnerInMaintenance);
        if skew.unsigned_abs() > MAX_SKEW && self.state.sends_heartbeats() && !is_in_maintenance {
            out.push(Action::Log(Notice::SkewTooLarge(skew)));
            return self.enter(now, State::Terminated, out);
        }
        if is_warned && !self.skew_warned {
            out.push(Action::Log(Notice::Skew(skew)));
        }
        self.skew_warned = is_warned;
        self.partner_is(now, heartbeat.state, out);
    }

    /// Goes on as the state of the partner asks for.
    fn partner_is(&mut self, now: Time, partner: State, out: &mut Vec<Action>) {
        let mode = self.config.mode;
        let normal = mode.normal();
        let is_working = partner == normal || partner == State::CommunicationRecovery;
        let to = match self.state {
            State::PartnerInMaintenance if self.cancelling && self.work.is_none() => {
                self.cancelling = false;
                // The partner did what it was asked for, but its answer was lost.
                (partner != State::InMaintenance).then_some(self.previous)
            }
            State::InMaintenance | State::PartnerInMaintenance | State::Terminated => None,
            State::Waiting => self.waits_no_more(partner),
            _ if mode.excludes(partner) => {
                out.push(Action::Log(Notice::OtherMode(partner)));
                Some(State::Waiting)
            }
            _ if partner == State::Terminated => {
                out.push(Action::Log(Notice::PartnerTerminated));
                Some(State::Terminated)
            }
            State::Syncing => return self.start(Work::Sync, Action::Sync, out),
            State::Ready => {
                let goes_on = match partner {
                    State::Ready if self.config.this.role == Role::Primary => Some(normal),
                    _ if is_working => Some(normal),
                    State::InMaintenance => Some(State::PartnerInMaintenance),
                    State::PartnerInMaintenance => Some(State::InMaintenance),
                    _ => None,
                };
                // The leases were copied too early: the partner gave others since.
                if goes_on.is_some() && self.is_behind() { Some(State::Syncing) } else { goes_on }
            }
            State::HotStandby | State::LoadBalancing => match partner {
                State::PartnerDown => Some(State::Waiting),
                State::InMaintenance => Some(State::PartnerInMaintenance),
                State::PartnerInMaintenance => Some(State::InMaintenance),
                _ => None,
            },
            State::CommunicationRecovery => match partner {
                _ if is_working => return self.recover(now, out),
                State::PartnerDown | State::PassiveBackup | State::Backup => Some(State::Waiting),
                State::InMaintenance => Some(State::PartnerInMaintenance),
                State::PartnerInMaintenance => Some(State::InMaintenance),
                _ => None,
            },
            State::PartnerDown => match partner {
                // The partner served clients, too, which it does not do while it is ready.
                State::Ready if self.is_behind() => None,
                State::Ready => Some(normal),
                State::PartnerDown | State::PartnerInMaintenance | State::CommunicationRecovery => {
                    Some(State::Waiting)
                }
                _ => None,
            },
            State::Backup | State::PassiveBackup => None,
        };
        match to {
            Some(to) => self.enter(now, to, out),
            None if self.is_behind() && self.is_serving_with(partner) => {
                self.start(Work::Pull, Action::Pull, out);
            }
            None => {}
        }
    }

    /// Returns whether this server gives leases, and one that it does not have would not come with
    /// a sync, given the state of the partner.
    fn is_serving_with(&self, partner: State) -> bool {
        match self.state {
            State::PartnerDown => partner == State::Ready,
            State::HotStandby | State::LoadBalancing | State::PartnerInMaintenance => true,
            _ => false,
        }
    }

    /// Returns the state after waiting.
    fn waits_no_more(&self, partner: State) -> Option<State> {
        let goes_on = match partner {
            State::Waiting => self.config.this.role == Role::Primary,
            State::Ready
            | State::HotStandby
            | State::LoadBalancing
            | State::CommunicationRecovery
            | State::PartnerDown
            | State::InMaintenance
            | State::PartnerInMaintenance => !self.config.mode.excludes(partner),
            State::Syncing | State::Terminated | State::PassiveBackup | State::Backup => false,
        };
        let next = if self.config.sync_leases { State::Syncing } else { State::Ready };
        // An earlier copy of the leases still runs: its end has the next heartbeat sent.
        (goes_on && self.work.is_none()).then_some(next)
    }

    /// Goes on together with a partner that was cut off.
    fn recover(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.overflow {
            out.push(Action::Log(Notice::Overflow));
            out.push(Action::ResetPartner);
            self.enter(now, State::Waiting, out);
        } else if self.kept > 0 {
            self.start(Work::Outstanding, Action::SendOutstanding, out);
        } else {
            self.enter(now, self.config.mode.normal(), out);
        }
    }

    fn outstanding_sent(&mut self, now: Time, kept: usize, out: &mut Vec<Action>) {
        if self.work.take_if(|work| *work == Work::Outstanding).is_none() {
            return;
        }
        self.partner.heard(now);
        if self.state == State::CommunicationRecovery && !self.overflow {
            self.kept = kept;
            self.recover(now, out);
        } else {
            self.hasten(now);
        }
    }

    fn heartbeat_failed(&mut self, now: Time, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.heartbeat_sent) {
            return;
        }
        self.next_heartbeat = now.monotonic.saturating_add(self.config.heartbeat_delay);
        self.partner.failed(now, self.config.max_response_delay);
        self.held = false;
        if self.partner.is_interrupted() {
            out.push(Action::Log(Notice::Interrupted));
        }
        if self.paused {
            return;
        }
        let is_down = self.partner.is_interrupted() && self.config.this.auto_failover;
        let is_observed = self.config.max_unacked_clients > 0;
        let is_seen_down =
            is_down && (!is_observed || self.partner.unacked() > self.config.max_unacked_clients);
        let to = match self.state {
            State::Waiting | State::Syncing | State::Ready if is_down => Some(State::PartnerDown),
            // There is nothing to observe: all clients are this server's.
            State::HotStandby if is_down && self.config.this.role == Role::Primary => {
                Some(State::PartnerDown)
            }
            State::LoadBalancing if self.config.delayed_updates_limit > 0 => {
                Some(State::CommunicationRecovery)
            }
            State::HotStandby | State::LoadBalancing | State::CommunicationRecovery if is_seen_down => {
                Some(State::PartnerDown)
            }
            // The administrator has stopped it.
            State::PartnerInMaintenance => Some(State::PartnerDown),
            _ => None,
        };
        if let Some(to) = to {
            self.enter(now, to, out);
        }
    }

    fn copied(&mut self, now: Time, count: Option<u64>, out: &mut Vec<Action>) {
        let Some(work) = self.work.take_if(|work| matches!(work, Work::Sync | Work::Pull)) else {
            return;
        };
        self.partner.heard(now);
        self.partner.copied(count);
        self.hasten(now);
        if work == Work::Sync && self.state == State::Syncing {
            self.enter(now, State::Ready, out);
        }
    }

    /// Ends work that failed. It is tried again after the next heartbeat.
    fn work_failed(&mut self, now: Time, failed: Work) {
        if self.work.take_if(|work| *work == failed).is_some() {
            self.next_heartbeat = now.monotonic.saturating_add(self.config.heartbeat_delay);
        }
    }

    fn rejected(&mut self, now: Time, client: Box<[u8]>, out: &mut Vec<Action>) {
        self.partner.heard(now);
        let limit = self.config.max_rejected_lease_updates;
        let rejected = self.partner.rejected(client, limit);
        if limit > 0 && rejected >= limit && matches!(self.state, State::HotStandby | State::LoadBalancing) {
            out.push(Action::Log(Notice::TooManyRejected));
            self.enter(now, State::Terminated, out);
        } else if self.config.sync_leases && self.is_serving_with(State::Ready) {
            // The partner has a newer lease, which its client has to get.
            self.start(Work::Pull, Action::Pull, out);
        }
    }

    fn partner_packet(&mut self, client: Box<[u8]>, waited: Duration) {
        let observes = match self.state {
            State::HotStandby => self.config.this.role != Role::Primary,
            State::LoadBalancing | State::CommunicationRecovery => true,
            _ => false,
        };
        if observes && self.partner.is_interrupted() {
            let is_unacked = waited > self.config.max_ack_delay;
            self.partner.observed(client, is_unacked, self.config.max_unacked_clients);
        }
    }

    fn maintenance_notified(
        &mut self,
        now: Time,
        cancel: bool,
        partner: Option<State>,
        out: &mut Vec<Action>,
    ) -> Reply {
        match self.state {
            State::InMaintenance if !cancel => {
                // Notified twice: what the state before was is not certain any more.
                self.previous = State::InMaintenance;
                Reply::Done
            }
            State::InMaintenance => {
                let normal = self.config.mode.normal();
                let is_alone = partner == Some(State::PartnerDown)
                    || self.partner.is_failing()
                    || self.partner.state() == Some(State::PartnerDown);
                let knows_all = self.previous == normal && !is_alone && !self.is_behind();
                let to = if knows_all { normal } else { State::Waiting };
                self.enter(now, to, out);
                Reply::Returned(to)
            }
            State::Backup | State::PassiveBackup | State::PartnerInMaintenance | State::Terminated => {
                Reply::NotIn(self.state)
            }
            _ if cancel => Reply::NotIn(self.state),
            _ => {
                self.enter(now, State::InMaintenance, out);
                Reply::Done
            }
        }
    }

    /// Returns whether the maintenance of the partner may start or be cancelled in this state.
    fn may_maintain(&self, cancel: bool) -> bool {
        match self.state {
            State::PartnerInMaintenance => cancel,
            State::HotStandby | State::LoadBalancing | State::CommunicationRecovery | State::PartnerDown => {
                !cancel
            }
            _ => false,
        }
    }

    fn maintenance(&mut self, cancel: bool, out: &mut Vec<Action>) {
        let is_possible = match self.state {
            State::PartnerInMaintenance => cancel,
            State::HotStandby | State::LoadBalancing | State::CommunicationRecovery | State::PartnerDown => {
                !cancel
            }
            _ => false,
        };
        if !is_possible {
            out.push(Action::Reply(Reply::NotIn(self.state)));
        } else if self.work.is_some() {
            out.push(Action::Reply(Reply::Busy));
        } else {
            self.work = Some(Work::Maintenance { cancel });
            self.cancelling = cancel;
            let state = if cancel { self.previous } else { self.state };
            out.push(Action::NotifyMaintenance { cancel, state });
        }
    }

    fn maintenance_answered(&mut self, now: Time, answer: MaintenanceAnswer, out: &mut Vec<Action>) {
        let Some(Work::Maintenance { cancel }) =
            self.work.take_if(|work| matches!(work, Work::Maintenance { .. }))
        else {
            return;
        };
        // The state may be another one since the command.
        let is_possible = self.may_maintain(cancel);
        let to = match (answer, cancel) {
            (MaintenanceAnswer::Done, false) => Ok(State::PartnerInMaintenance),
            (MaintenanceAnswer::Done, true) => Ok(self.previous),
            (MaintenanceAnswer::Offline, false) => Ok(State::PartnerDown),
            (MaintenanceAnswer::Offline, true) => Err(Reply::PartnerOffline),
            (MaintenanceAnswer::Refused, _) => Err(Reply::PartnerRefused),
        };
        // Without an answer, the next heartbeat tells whether it is cancelled.
        self.cancelling &= answer == MaintenanceAnswer::Offline;
        let reply = match to {
            Ok(_) if !is_possible => Reply::NotIn(self.state),
            Ok(to) if to == self.state => Reply::Done,
            Ok(to) => {
                self.enter(now, to, out);
                Reply::Done
            }
            Err(reply) => reply,
        };
        out.push(Action::Reply(reply));
    }
}
