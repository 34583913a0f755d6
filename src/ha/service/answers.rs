//! The commands of the partner and of administrators.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Map, Value};

use super::{LEAST_TIME, Shared};
use crate::commands::{self, Answer, Bulk, BulkChange, Commands, ServiceState};
use crate::ha::message::unexpected;
use crate::ha::{
    Copying, Decision, Dialect, Event, MessageError, PageLease, Reply, Request, Role, Via, decide, store,
};
use crate::lease::{Family, Json};
use crate::lease_mgr::{Deleted, LeaseMgrError};
use crate::request::Channel;
use crate::with_sources;

/// The result of `ha-maintenance-notify` in a state in which there can be no maintenance.
const NO_MAINTENANCE: u16 = 1001;

/// Makes a command.
type Make<L> = fn(&Shared<L>, &commands::Request<'_>) -> Result<Answer, MessageError>;

/// Adds the commands.
pub(super) fn register<L: PageLease>(shared: &Arc<Shared<L>>, commands: &mut Commands) {
    let made: [(&str, Make<L>); 9] = [
        ("ha-continue", |shared, _| Ok(shared.command(Event::Continue))),
        ("ha-heartbeat", Shared::answer_heartbeat),
        ("ha-maintenance-cancel", |shared, _| Ok(shared.maintain(Event::MaintenanceCancel))),
        ("ha-maintenance-notify", Shared::answer_maintenance),
        ("ha-maintenance-start", |shared, _| Ok(shared.maintain(Event::MaintenanceStart))),
        ("ha-reset", |shared, _| Ok(shared.command(Event::Reset))),
        ("ha-scopes", Shared::answer_scopes),
        ("ha-sync", Shared::answer_sync),
        ("ha-sync-complete-notify", Shared::answer_sync_complete),
    ];
    for (name, make) in made {
        let shared = Arc::clone(shared);
        commands.register(name, move |command| {
            if shared.inner.lock().stopped {
                return Answer::error("high availability has ended");
            }
            make(&shared, command).unwrap_or_else(|error| Answer::error(with_sources(&error).to_string()))
        });
    }
    let changes: &[&str] = match L::FAMILY {
        Family::V4 => &["lease4-update", "lease4-del"],
        Family::V6 => &["lease6-bulk-apply"],
    };
    for &name in changes {
        let shared = Arc::clone(shared);
        commands.register_first(name, move |command| shared.answer_change(command));
    }
    let status = Arc::clone(shared);
    commands.register_status("high-availability", move || {
        let now = status.now();
        let status = status.inner.lock().machine.status(now);
        json(&status)
    });
}

/// Converts JSON.
fn json(value: &Value) -> Json {
    // What is written as JSON can be read.
    Json::parse(value.to_string().as_bytes()).unwrap_or_else(|_| Json::empty_map())
}

/// Returns the arguments of a command; empty if they are no map.
fn arguments(command: &commands::Request<'_>) -> Map<String, Value> {
    let arguments = command.arguments().and_then(|map| serde_json::from_str(map.as_json()).ok());
    arguments.unwrap_or_default()
}

/// Reads a request of the partner.
fn decoded(command: &commands::Request<'_>) -> Result<Request, MessageError> {
    let name = Json::from(command.command());
    let arguments = command.arguments().map_or("{}", |arguments| arguments.as_json());
    let body = format!("{{\"command\": {name}, \"arguments\": {arguments}}}");
    let request = Request::decode(body.as_bytes())?.map(|(request, _)| request);
    let name = command.command().into();
    request.ok_or_else(|| unexpected("command", &name, "a command of high availability"))
}

/// Returns the answer for a reply of the machine.
fn answer(reply: Reply) -> Answer {
    match reply {
        Reply::Done => Answer::success("done"),
        Reply::Returned(state) => {
            Answer::success(format!("the maintenance is cancelled, the state is {state}"))
                .with_arguments(Json::map([("state", Json::from(state.name()))]))
        }
        Reply::NotIn(state) => Answer::error(format!("this is not possible in state {state}")),
        Reply::NotPaused => Answer::success("the state machine is not paused"),
        Reply::PartnerRefused => Answer::error("the partner refused"),
        Reply::PartnerOffline => Answer::error("the partner did not answer"),
        Reply::Busy => Answer::error("leases are being copied, or another command is being made"),
    }
}

impl<L: PageLease> Shared<L> {
    /// Makes a command that the machine answers at once.
    fn command(&self, event: Event) -> Answer {
        self.event(event).map_or_else(|| Answer::error("there is no answer"), answer)
    }

    /// Makes a command that the machine answers after the partner has.
    fn maintain(&self, event: Event) -> Answer {
        let (sender, reply) = mpsc::channel();
        let mut inner = self.inner.lock();
        if let Some(reply) = self.event_in(&mut inner, event) {
            return answer(reply);
        }
        inner.waiting = Some(sender);
        drop(inner);
        reply.recv().map_or_else(|_| Answer::error("high availability has ended"), answer)
    }

    fn answer_heartbeat(&self, command: &commands::Request<'_>) -> Result<Answer, MessageError> {
        let request = decoded(command)?;
        let now = self.now();
        let mut inner = self.inner.lock();
        let is_partner = match &request {
            Request::Heartbeat { server_name: Some(name) } => {
                self.config.partner().is_some_and(|partner| partner.name == *name)
            }
            _ => command.source().channel == Channel::Http,
        };
        if let (Some(dialect), true) = (Dialect::of_heartbeat(&request), is_partner) {
            inner.dialect = dialect;
        }
        let heartbeat = inner.machine.heartbeat(now).to_arguments();
        Ok(Answer::success("the state of this server").with_arguments(json(&heartbeat)))
    }

    fn answer_maintenance(&self, command: &commands::Request<'_>) -> Result<Answer, MessageError> {
        let Request::MaintenanceNotify { cancel, state, .. } = decoded(command)? else {
            return Ok(Answer::error("there is no answer"));
        };
        let reply = self.event(Event::MaintenanceNotified { cancel, partner: state });
        // With 1, the partner would take this server for one that is down.
        Ok(match reply {
            Some(reply @ (Reply::Done | Reply::Returned(_))) => answer(reply),
            Some(reply) => Answer { result: NO_MAINTENANCE, ..answer(reply) },
            None => Answer::new(NO_MAINTENANCE, "there is no answer"),
        })
    }

    fn answer_sync_complete(&self, command: &commands::Request<'_>) -> Result<Answer, MessageError> {
        let arguments = arguments(command);
        let origin = arguments.get("origin-id").or(arguments.get("origin")).and_then(Value::as_u64);
        // Kea 2.2 sends no origin, and means that of its dhcp-disable.
        let origin = origin.and_then(|origin| u32::try_from(origin).ok());
        let origin = origin.filter(|origin| (ServiceState::PARTNER..ServiceState::DATABASE).contains(origin));
        // Before the partner's pause ends: in some states the service stays disabled.
        let answer = self.command(Event::SyncCompleteNotified);
        self.served.enable(origin.unwrap_or(ServiceState::PARTNER));
        Ok(answer)
    }

    fn answer_scopes(&self, command: &commands::Request<'_>) -> Result<Answer, MessageError> {
        let arguments = arguments(command);
        let found = arguments.get("scopes").unwrap_or(&Value::Null);
        let peers = || std::iter::once(&self.config.this).chain(&self.config.others);
        let name = |scope: &Value| {
            let scope = scope.as_str()?;
            peers().any(|peer| peer.name == scope).then(|| scope.to_owned())
        };
        let scopes = found.as_array().and_then(|scopes| scopes.iter().map(name).collect());
        let scopes = scopes.ok_or_else(|| unexpected("scopes", found, "a list of names of servers"))?;
        Ok(self.command(Event::Scopes(scopes)))
    }

    fn answer_sync(&self, command: &commands::Request<'_>) -> Result<Answer, MessageError> {
        let arguments = arguments(command);
        let found = arguments.get("server-name").unwrap_or(&Value::Null);
        let peer = self.config.others.iter().find(|peer| found.as_str() == Some(peer.name.as_str()));
        let peer = peer.ok_or_else(|| unexpected("server-name", found, "the name of another server"))?;
        let period = arguments.get("max-period").and_then(Value::as_u64).map(Duration::from_secs);
        let time = period.unwrap_or(self.config.sync_timeout).max(LEAST_TIME);
        let copied = self.link(peer, time).map_err(|error| with_sources(&error).to_string());
        Ok(match copied.and_then(|mut link| self.copy(&mut link, Copying::Disabled)) {
            Ok(_) => Answer::success("the leases were copied"),
            Err(message) => Answer::error(message),
        })
    }

    /// Stores a change of the partner. `None` if it is a change of others.
    fn answer_change(&self, command: &commands::Request<'_>) -> Option<Answer> {
        let given = command.arguments()?;
        let is_partner = match given.get("origin") {
            Some(origin) => {
                origin.as_bytes().as_deref() == Some(b"ha-partner")
                    || origin.as_u64() == Some(ServiceState::PARTNER.into())
            }
            // Kea 2.2 does not say so, but sends whole leases.
            None => {
                let is_whole = |key: &&str| given.get(key).is_some();
                let keys = ["expire", "deleted-leases"];
                command.source().channel == Channel::Http
                    && keys.iter().any(is_whole)
                    && self.dialect() == Dialect::Kea22
            }
        };
        if !is_partner {
            return None;
        }
        let answer = decoded(command).map(|request| match L::changes_of(request) {
            Some((changed, deleted)) => self.store_changes(&changed, &deleted),
            None => Answer::error("expected a change of leases"),
        });
        Some(answer.unwrap_or_else(|error| Answer::error(with_sources(&error).to_string())))
    }

    fn store_changes(&self, changed: &[L], deleted: &[L]) -> Answer {
        let (now, other_is_primary) = (self.wall(), self.config.this.role != Role::Primary);
        let deleted = deleted.iter().map(|lease| (BulkChange::Deletion, lease, self.delete(lease, now)));
        let changed = changed.iter().map(|lease| {
            let decision = store(&*self.leases, lease, Via::Update, now, other_is_primary);
            (BulkChange::Lease, lease, self.stored(lease, decision))
        });
        let mut bulk = Bulk::default();
        for (change, lease, answer) in deleted.chain(changed) {
            // In DHCPv4, a command has one lease.
            if L::FAMILY == Family::V4 {
                return answer;
            }
            bulk.note(change, Some((lease.address().into(), lease.fields().lease_type)), &answer);
        }
        bulk.answer()
    }

    /// Counts a decision, and returns the answer to the partner.
    fn stored(&self, lease: &L, decision: Result<Decision, LeaseMgrError>) -> Answer {
        let address = lease.address();
        let decision = match decision {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(%address, error = %with_sources(&error), "a change of the partner was not stored");
                return Answer::error(with_sources(&error).to_string());
            }
        };
        self.inner.lock().conflicts.count(decision);
        match decision {
            Decision::Add | Decision::Replace => {
                Answer::success(format!("the lease of {address} was stored"))
            }
            Decision::ReplaceOther => {
                tracing::info!(%address, "the partner's lease replaced that of another client");
                Answer::success(format!("the lease of {address} was stored"))
            }
            Decision::Keep => Answer::success(format!("there is a newer lease of {address}")),
            Decision::KeepOther => {
                tracing::warn!(%address, "the own lease remains, the partner gave it to another client");
                Answer::new(Answer::CONFLICT, format!("another client has {address}"))
            }
        }
    }

    /// Deletes a lease that the partner deleted, unless it is one that was given since.
    fn delete(&self, lease: &L, now: i64) -> Answer {
        let address = lease.address();
        let deleted = loop {
            let own = match self.leases.get(address) {
                Ok(Some(own)) => own,
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            };
            if !decide(Some(&own), lease, Via::Update, now, false).takes() {
                break Ok(false);
            }
            match self.leases.delete_expecting(address, Some(&own)) {
                Ok(Deleted::Deleted) => break Ok(true),
                Ok(Deleted::NoSuchLease) => break Ok(false),
                Err(error) if error.is_stale() => {}
                Err(error) => break Err(error),
            }
        };
        match deleted {
            Ok(true) => Answer::success(format!("the lease of {address} was deleted")),
            Ok(false) => Answer::empty(format!("{address} has no such lease")),
            Err(error) => {
                tracing::error!(%address, error = %with_sources(&error), "a lease was not deleted");
                Answer::error(with_sources(&error).to_string())
            }
        }
    }
}
