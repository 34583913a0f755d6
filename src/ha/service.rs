//! The driver: does what the state machine asks for, over HTTP, in threads of its own.

mod ack;
mod answers;
mod link;
mod queue;

use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use ack::Ack;
use link::Link;
pub use link::ServiceError;
use parking_lot::{Condvar, Mutex};
use queue::Queue;
use serde_json::Value;

use super::copy::ask;
use super::{
    Action, ClientHash, Config, Conflicts, CopyError, Copying, Dialect, Event, Heartbeat, Kept, Machine,
    MaintenanceAnswer, Notice, PageLease, Peer, Replication, Reply, Request, Response, State, Time,
    copy_leases,
};
use crate::commands::{Commands, ServiceState};
use crate::lease::seconds_since_epoch;
use crate::lease_mgr::LeaseMgr;
use crate::panics::contained;
use crate::with_sources;

/// Maximum time of a request, but for pages of leases.
const TIME: Duration = Duration::from_secs(10);
/// Minimum time of a request, with any configuration.
const LEAST_TIME: Duration = Duration::from_secs(2);
/// Number of connections for changes, if the configuration lets the server choose.
const CONNECTIONS: u32 = 4;
/// Maximum number of connections for changes.
const MAX_CONNECTIONS: u32 = 64;
/// Number of changes that wait for a backup. More are left out: a backup is not waited for.
const BACKUP_QUEUE: usize = 65_536;

/// High availability of a server that runs: a [`Machine`] with its partner and its backups.
///
/// A server asks [`may_answer`](Self::may_answer) before it answers a client, and passes each change
/// that it has stored to [`replicate`](Self::replicate). The partner reaches it by the commands of
/// [`register`](Self::register), over HTTP at the URL of the configuration.
///
/// Changes are sent over several connections that are kept open, with one request at a time in each
/// (`http-client-threads`, by default 4). Changes of one address use one connection, so that they
/// arrive in order.
///
/// When it is dropped, requests that are being sent are ended (each within its time limit: 10
/// seconds, or `sync-timeout`), changes that were not sent are not acknowledged, and all threads
/// have ended.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::SystemTime;
///
/// use leasemgr::{Added, LeaseMgr, LeaseMgrFactory};
/// use leasemgr::commands::{Commands, Subnet};
/// use leasemgr::control::{HA_COMMANDS, Http, Server};
/// use leasemgr::ha::{ClientHash, Config, Service};
/// use leasemgr::lease::{HwAddr, Lease4};
///
/// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile")?;
/// let subnet = Subnet::new(1, [192, 0, 2, 0].into(), 24);
/// let mut commands = Commands::new().with_leases4(Arc::clone(&leases), [subnet]);
/// let config = Config::parse(&std::fs::read("ha.json")?)?;
/// let service = Service::start(config, Arc::clone(&leases), Arc::clone(commands.service()), SystemTime::now)?;
/// service.register(&mut commands);
/// let http = Http::new("192.0.2.1:8000".parse()?).allow_only(HA_COMMANDS.iter().copied());
/// let server = Server::builder(Arc::new(commands)).http(http).start()?;
///
/// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
/// if service.may_answer(ClientHash::of_client4(None, Some(&client))) {
///     let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).subnet(1).lifetime(3600).build()?;
///     if leases.add(&lease)? == Added::AddressTaken {
///         return Ok(());
///     }
///     service.replicate(vec![lease], Vec::new(), |may_acknowledge| {
///         // Send the answer to the client, or nothing.
///     });
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Service<L: PageLease> {
    shared: Arc<Shared<L>>,
    threads: Vec<JoinHandle<()>>,
}

impl<L: PageLease> fmt::Debug for Service<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("state", &self.state()).finish_non_exhaustive()
    }
}

type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// What the threads share.
struct Shared<L: PageLease> {
    config: Config,
    leases: Arc<dyn LeaseMgr<L>>,
    served: Arc<ServiceState>,
    clock: Clock,
    start: Instant,
    inner: Mutex<Inner<L>>,
    /// The heartbeat is due, or the next tick is another one.
    wake: Condvar,
    work: Queue<Work>,
    /// Changes for the partner, one queue for each connection.
    updates: Vec<Queue<Update<L>>>,
    /// Changes for the backups, one queue for each.
    backups: Vec<Queue<Update<L>>>,
    /// Held while leases are copied, so that two copies do not end each other's pause of the
    /// partner's service.
    copying: Mutex<()>,
    stop: Arc<AtomicBool>,
    hasher: foldhash::fast::RandomState,
}

/// What is changed under one lock, so that a change and the state that it happens in fit together.
struct Inner<L: PageLease> {
    machine: Machine,
    kept: Kept<L>,
    dialect: Dialect,
    heartbeat_is_due: bool,
    /// The administrator's command that waits for the partner.
    waiting: Option<mpsc::Sender<Reply>>,
    conflicts: Conflicts,
    stopped: bool,
}

/// What takes long.
enum Work {
    Copy(Copying),
    Outstanding,
    ResetPartner,
    Maintenance { cancel: bool, state: State },
}

/// The leases that one packet changed and deleted.
struct Update<L> {
    changed: Vec<L>,
    deleted: Vec<L>,
    /// None if it is not waited for.
    ack: Option<Ack>,
}

/// What became of a change that was sent.
enum Sent {
    Made,
    /// There is a conflict about the lease of this client.
    Rejected(Box<[u8]>),
    Failed {
        unreachable: bool,
    },
}

impl<L: PageLease> Service<L> {
    /// Starts high availability for the leases of a server.
    ///
    /// `served` is [`Commands::service`] of the commands that the partner reaches. The time that
    /// leases are written with is that of `clock`.
    ///
    /// # Errors
    /// Returns [`ServiceError`] if a URL, a user, or a file of the configuration cannot be used, or
    /// a thread cannot be started.
    pub fn start(
        config: Config,
        leases: Arc<dyn LeaseMgr<L>>,
        served: Arc<ServiceState>,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, ServiceError> {
        let time = Time { monotonic: Duration::ZERO, wall: seconds_since_epoch(clock()) };
        // A number that was never given before: there may be changes that the partner did not get.
        let since = clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unsent = u64::try_from(since.as_millis()).unwrap_or_default();
        let inner = Inner {
            machine: Machine::new(config.clone(), time, unsent),
            kept: Kept::new(),
            dialect: Dialect::Current,
            heartbeat_is_due: false,
            waiting: None,
            conflicts: Conflicts::default(),
            stopped: false,
        };
        let connections = match config.client_threads {
            0 => CONNECTIONS,
            number => number.min(MAX_CONNECTIONS),
        };
        let connections = if config.partner().is_some() { connections } else { 0 };
        let shared = Arc::new(Shared {
            leases,
            served,
            clock: Box::new(clock),
            start: Instant::now(),
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            work: Queue::new(usize::MAX),
            updates: (0..connections).map(|_| Queue::new(usize::MAX)).collect(),
            backups: config.backups().map(|_| Queue::new(BACKUP_QUEUE)).collect(),
            copying: Mutex::new(()),
            stop: Arc::default(),
            hasher: foldhash::fast::RandomState::default(),
            config,
        });
        // Before a packet comes, the service is disabled.
        shared.event(Event::Tick);
        // From here on, an error ends the threads that were started.
        let mut service = Self { shared, threads: Vec::new() };
        service.start_threads()?;
        Ok(service)
    }

    fn start_threads(&mut self) -> Result<(), ServiceError> {
        let shared = Arc::clone(&self.shared);
        if let Some(partner) = shared.config.partner() {
            let delay = shared.config.heartbeat_delay;
            let mut link = shared.link(partner, delay.clamp(LEAST_TIME, TIME))?;
            self.spawn("ha-heartbeat", move |shared| shared.drive(&mut link))?;
            let mut pages = shared.link(partner, shared.config.sync_timeout.max(LEAST_TIME))?;
            let mut other = shared.link(partner, TIME)?;
            self.spawn("ha-work", move |shared| {
                while let Some(work) = shared.work.pop() {
                    shared.work_on(work, &mut pages, &mut other);
                }
            })?;
            for at in 0..shared.updates.len() {
                let mut link = shared.link(partner, TIME)?;
                self.spawn("ha-updates", move |shared| {
                    let Some(queue) = shared.updates.get(at) else { return };
                    while let Some(update) = queue.pop() {
                        shared.update(&mut link, update);
                    }
                })?;
            }
        }
        for (at, backup) in shared.config.backups().enumerate() {
            let mut link = shared.link(backup, TIME)?;
            let name = backup.name.clone();
            self.spawn("ha-backup", move |shared| {
                let Some(queue) = shared.backups.get(at) else { return };
                while let Some(update) = queue.pop() {
                    shared.back_up(&mut link, &name, update);
                }
            })?;
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(&Shared<L>) + Send + 'static,
    ) -> Result<(), ServiceError> {
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
        self.threads.push(started.map_err(ServiceError::Thread)?);
        Ok(())
    }

    /// Adds the commands of the partner and of administrators: `ha-heartbeat` and the others of
    /// high availability, and the value `high-availability` of `status-get`. Changes that come from
    /// the partner are stored by the rule of [`decide`](super::decide).
    pub fn register(&self, commands: &mut Commands) {
        answers::register(&self.shared, commands);
    }

    /// Returns whether this server answers a client now. A client that it does not answer is told
    /// to [`packet_of_partner`](Self::packet_of_partner).
    #[must_use]
    pub fn may_answer(&self, client: ClientHash) -> bool {
        self.shared.inner.lock().machine.may_answer(client) && self.shared.served.is_enabled()
    }

    /// Notes a packet of a client that this server does not answer: so a partner that is down is
    /// found. `client` is any bytes that identify it; `waited` is how long it has waited,
    /// [`waited_secs`](super::waited_secs) or the elapsed time of DHCPv6.
    pub fn packet_of_partner(&self, client: &[u8], waited: Duration) {
        self.shared.event(Event::PartnerPacket { client: client.into(), waited });
    }

    /// Tells the other servers about the leases that one packet changed and deleted, after they
    /// were stored in the own lease manager. The changes of one address are told in their order.
    ///
    /// `then` is called once, in this thread or another, with whether the change may be
    /// acknowledged to the client: at once if it is kept for the partner, or if the partner copies
    /// all leases when it is back; otherwise when the partner has answered, with whether it has the
    /// change. Backups are waited for only with `wait-backup-ack`. With `send-lease-updates` off,
    /// nothing is sent. `then` should not block: other changes wait for it.
    pub fn replicate(&self, changed: Vec<L>, deleted: Vec<L>, then: impl FnOnce(bool) + Send + 'static) {
        self.shared.replicate(changed, deleted, Ack::new(then));
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.inner.lock().machine.state()
    }

    /// Returns the number of changes that are kept for the partner, each of another lease.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.shared.inner.lock().kept.len()
    }

    /// Returns how many addresses were found that both servers had given.
    #[must_use]
    pub fn conflicts(&self) -> Conflicts {
        self.shared.inner.lock().conflicts
    }
}

impl<L: PageLease> Drop for Service<L> {
    fn drop(&mut self) {
        let shared = &self.shared;
        let mut inner = shared.inner.lock();
        inner.stopped = true;
        inner.waiting = None;
        drop(inner);
        shared.stop.store(true, Ordering::Release);
        shared.wake.notify_all();
        shared.work.close();
        shared.updates.iter().chain(&shared.backups).for_each(Queue::close);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of high availability panicked");
            }
        }
    }
}

impl<L: PageLease> Shared<L> {
    fn now(&self) -> Time {
        Time { monotonic: self.start.elapsed(), wall: self.wall() }
    }

    /// Returns seconds since the epoch, by the clock of leases.
    fn wall(&self) -> i64 {
        seconds_since_epoch((self.clock)())
    }

    fn link(&self, peer: &Peer, time: Duration) -> Result<Link, ServiceError> {
        Link::new(peer, time, &self.stop)
    }

    fn event(&self, event: Event) -> Option<Reply> {
        self.event_in(&mut self.inner.lock(), event)
    }

    /// Gives the machine an event, and does or starts what follows. Returns its reply to a command.
    fn event_in(&self, inner: &mut Inner<L>, event: Event) -> Option<Reply> {
        let mut answer = None;
        for action in inner.machine.handle(self.now(), event) {
            let work = match action {
                Action::SendHeartbeat => {
                    inner.heartbeat_is_due = true;
                    continue;
                }
                Action::SetService(true) => {
                    self.served.enable(ServiceState::LOCAL);
                    continue;
                }
                Action::SetService(false) => {
                    self.served.disable(ServiceState::LOCAL, None);
                    continue;
                }
                Action::DropOutstanding => {
                    inner.kept.clear();
                    continue;
                }
                Action::Reply(reply) => {
                    answer = Some(reply);
                    continue;
                }
                Action::Log(notice) => {
                    log(notice);
                    continue;
                }
                Action::Sync => Work::Copy(Copying::Disabled),
                Action::Pull => Work::Copy(Copying::Enabled),
                Action::SendOutstanding => Work::Outstanding,
                Action::ResetPartner => Work::ResetPartner,
                Action::NotifyMaintenance { cancel, state } => Work::Maintenance { cancel, state },
            };
            self.work.push(work);
        }
        self.wake.notify_all();
        answer
    }

    /// Sends heartbeats at their times, until the service stops.
    fn drive(&self, link: &mut Link) {
        let mut inner = self.inner.lock();
        while !inner.stopped {
            if std::mem::take(&mut inner.heartbeat_is_due) {
                let dialect = inner.dialect;
                drop(inner);
                let event = match self.heartbeat(link, dialect) {
                    Some(heartbeat) => Event::HeartbeatAnswered(heartbeat),
                    None => Event::HeartbeatFailed,
                };
                self.event(event);
                inner = self.inner.lock();
                continue;
            }
            let now = self.now().monotonic;
            match inner.machine.next_tick() {
                Some(at) if at <= now => drop(self.event_in(&mut inner, Event::Tick)),
                Some(at) => drop(self.wake.wait_for(&mut inner, at.saturating_sub(now))),
                None => self.wake.wait(&mut inner),
            }
        }
    }

    fn heartbeat(&self, link: &mut Link, dialect: Dialect) -> Option<Heartbeat> {
        let request = Request::Heartbeat { server_name: Some(self.config.this.name.clone()) };
        let answer = ask(link, &request, L::FAMILY, dialect, &[0]).and_then(|answer| {
            let command = request.command(L::FAMILY);
            answer.heartbeat().map_err(|source| CopyError::Answer { command, source })
        });
        answer.inspect_err(|error| tracing::warn!(error = %with_sources(error), "the heartbeat failed")).ok()
    }

    fn dialect(&self) -> Dialect {
        self.inner.lock().dialect
    }

    fn work_on(&self, work: Work, pages: &mut Link, other: &mut Link) {
        match work {
            Work::Copy(copying) => {
                let event = match self.copy(pages, copying) {
                    Ok(unsent_update_count) => Event::Copied { unsent_update_count },
                    Err(message) => {
                        tracing::warn!(error = message, "the partner's leases were not copied");
                        Event::CopyFailed
                    }
                };
                self.event(event);
            }
            Work::Outstanding => self.send_kept(other),
            Work::ResetPartner => {
                let request = Request::Reset { server_name: Some(self.config.this.name.clone()) };
                if let Err(error) = ask(other, &request, L::FAMILY, self.dialect(), &[0]) {
                    tracing::warn!(error = %with_sources(&error), "the partner was not reset");
                }
            }
            Work::Maintenance { cancel, state } => {
                let server_name = Some(self.config.this.name.clone());
                let request = Request::MaintenanceNotify { cancel, server_name, state: Some(state) };
                let answer = match ask(other, &request, L::FAMILY, self.dialect(), ANY) {
                    Ok(Response { result: 0, .. }) => MaintenanceAnswer::Done,
                    Ok(Response { result: 1, .. }) | Err(CopyError::Unreachable(_)) => {
                        MaintenanceAnswer::Offline
                    }
                    Ok(_) | Err(_) => MaintenanceAnswer::Refused,
                };
                let mut inner = self.inner.lock();
                let reply = self.event_in(&mut inner, Event::MaintenanceAnswered(answer));
                if let (Some(waiting), Some(reply)) = (inner.waiting.take(), reply) {
                    // The client of the command may be gone.
                    let _ = waiting.send(reply);
                }
            }
        }
    }

    /// Copies a server's leases. Returns its count of changes.
    fn copy(&self, link: &mut Link, copying: Copying) -> Result<Option<u64>, String> {
        let _one = self.copying.lock();
        let (dialect, now) = (self.dialect(), || self.wall());
        let copied = contained(|| copy_leases(link, &*self.leases, &self.config, dialect, copying, now))?;
        let copied = copied.map_err(|error| with_sources(&error).to_string())?;
        tracing::info!(
            read = copied.read,
            taken = copied.taken,
            invalid = copied.invalid,
            replaced = copied.conflicts.replaced,
            kept = copied.conflicts.kept,
            "the partner's leases were copied"
        );
        let mut inner = self.inner.lock();
        let total = &mut inner.conflicts;
        total.replaced = total.replaced.saturating_add(copied.conflicts.replaced);
        total.kept = total.kept.saturating_add(copied.conflicts.kept);
        Ok(copied.unsent_update_count)
    }

    /// Sends the changes that were kept, one after the other.
    fn send_kept(&self, link: &mut Link) {
        let mut rejected = None;
        loop {
            let mut inner = self.inner.lock();
            let Some(change) = inner.kept.next().cloned() else {
                // Under the lock: nothing is kept meanwhile.
                self.event_in(&mut inner, Event::OutstandingSent { kept: 0 });
                if let Some(client) = rejected {
                    self.event_in(&mut inner, Event::UpdateRejected { client });
                }
                return;
            };
            let dialect = inner.dialect;
            drop(inner);
            let lease = std::slice::from_ref(&change.lease);
            let (changed, deleted) = if change.deleted { (&[][..], lease) } else { (lease, &[][..]) };
            match send(link, changed, deleted, dialect) {
                Sent::Made => {}
                // It is not sent again: the partner's lease is copied afterwards.
                Sent::Rejected(client) => rejected = Some(client),
                Sent::Failed { .. } => {
                    self.event(Event::OutstandingFailed);
                    return;
                }
            }
            self.inner.lock().kept.sent(&change);
        }
    }

    fn replicate(&self, changed: Vec<L>, deleted: Vec<L>, ack: Ack) {
        let Some(first) = changed.first().or(deleted.first()).map(L::address) else {
            ack.made();
            return;
        };
        let mut inner = self.inner.lock();
        if inner.stopped {
            drop(inner);
            drop(ack);
            return;
        }
        let replication = inner.machine.replicate();
        if replication == Replication::Keep {
            keep(&mut inner, &changed, &deleted);
        }
        drop(inner);
        if self.config.send_lease_updates {
            for (queue, backup) in self.backups.iter().zip(self.config.backups()) {
                let ack = self.config.wait_backup_ack.then(|| ack.share());
                let (changed, deleted) = (changed.clone(), deleted.clone());
                if !queue.push(Update { changed, deleted, ack }) {
                    tracing::warn!(
                        server = backup.name,
                        "a change is left out: too many wait for the backup"
                    );
                }
            }
        }
        if replication != Replication::Send {
            ack.made();
            return;
        }
        // Changes of one address are sent in order.
        let number = u64::try_from(self.updates.len()).unwrap_or(1).max(1);
        let at = usize::try_from(self.hasher.hash_one(first) % number).unwrap_or_default();
        if let Some(queue) = self.updates.get(at) {
            queue.push(Update { changed, deleted, ack: Some(ack) });
        }
    }

    /// Sends a change to the partner, and acknowledges it.
    fn update(&self, link: &mut Link, update: Update<L>) {
        let Update { changed, deleted, ack } = update;
        let mut inner = self.inner.lock();
        // The state may be another one since the change was put into the queue.
        let replication = inner.machine.replicate();
        let dialect = inner.dialect;
        if replication == Replication::Keep {
            keep(&mut inner, &changed, &deleted);
        }
        drop(inner);
        let is_made = replication != Replication::Send
            || match send(link, &changed, &deleted, dialect) {
                Sent::Made => {
                    self.event(Event::UpdateAnswered);
                    true
                }
                Sent::Rejected(client) => {
                    self.event(Event::UpdateRejected { client });
                    false
                }
                Sent::Failed { unreachable } => {
                    let mut inner = self.inner.lock();
                    let replication = inner.machine.not_replicated();
                    if replication == Replication::Keep {
                        keep(&mut inner, &changed, &deleted);
                    }
                    self.event_in(&mut inner, Event::UpdateFailed { unreachable });
                    replication != Replication::Send
                }
            };
        if let (Some(ack), true) = (ack, is_made) {
            ack.made();
        }
    }

    fn back_up(&self, link: &mut Link, name: &str, update: Update<L>) {
        let Update { changed, deleted, ack } = update;
        match (send(link, &changed, &deleted, self.dialect()), ack) {
            (Sent::Made, Some(ack)) => ack.made(),
            (Sent::Made, None) => {}
            (Sent::Rejected(_) | Sent::Failed { .. }, _) => {
                tracing::warn!(server = name, "the backup did not take a change");
            }
        }
    }
}

/// Sends the changes of a packet to another server.
fn send<L: PageLease>(link: &mut Link, changed: &[L], deleted: &[L], dialect: Dialect) -> Sent {
    for request in L::requests(changed.to_vec(), deleted.to_vec(), dialect) {
        let answer = match ask(link, &request, L::FAMILY, dialect, ANY) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error = %with_sources(&error), "a change was not sent");
                return Sent::Failed { unreachable: matches!(error, CopyError::Unreachable(_)) };
            }
        };
        // A change that made nothing may have failed for each of its leases.
        let failed = answer.arguments.get("failed-leases").and_then(Value::as_array);
        let failed = failed.map(Vec::as_slice).unwrap_or_default();
        let is_conflict = |failed: &Value| failed.get("result").and_then(Value::as_i64) == Some(4);
        let conflict = failed.iter().find(|failed| is_conflict(failed));
        if answer.result == 4 || conflict.is_some() {
            tracing::warn!(answer = answer.text, "a change was rejected");
            let address = conflict.and_then(|failed| failed.get("ip-address")?.as_str());
            let is_it = |lease: &&L| Some(lease.address().to_string().as_str()) == address;
            let lease = changed.iter().find(is_it).or(changed.first()).or(deleted.first());
            return Sent::Rejected(lease.map(client_of).unwrap_or_default());
        }
        if !matches!(answer.result, 0 | 3) || !failed.is_empty() {
            tracing::warn!(result = answer.result, answer = answer.text, "a change failed");
            return Sent::Failed { unreachable: false };
        }
    }
    Sent::Made
}

/// All results of commands between servers.
const ANY: &[i64] = &[0, 1, 2, 3, 4, 5];

/// Keeps changes for the partner.
fn keep<L: PageLease>(inner: &mut Inner<L>, changed: &[L], deleted: &[L]) {
    for (leases, deleted) in [(deleted, true), (changed, false)] {
        for lease in leases {
            inner.kept.put(lease.clone(), deleted);
        }
    }
    if !inner.machine.keep(inner.kept.len()) {
        inner.kept.clear();
    }
}

/// Returns bytes that identify the client of a lease.
fn client_of<L: PageLease>(lease: &L) -> Box<[u8]> {
    let fields = lease.fields();
    [fields.hwaddr.unwrap_or_default(), fields.client.unwrap_or_default()].concat().into()
}

fn log(notice: Notice) {
    match notice {
        Notice::Changed { from, to } => tracing::info!(%from, %to, "high availability: the state changed"),
        Notice::Paused(state) => {
            tracing::info!(%state, "high availability: paused in this state until it is continued");
        }
        Notice::Interrupted => {
            tracing::warn!("high availability: communication with the partner is interrupted");
        }
        Notice::Skew(seconds) => tracing::warn!(seconds, "high availability: the partner's clock differs"),
        Notice::SkewTooLarge(seconds) => {
            tracing::error!(seconds, "high availability: the clocks differ too much to work together");
        }
        Notice::TooManyRejected => {
            tracing::error!("high availability: the partner rejected the changes of too many clients");
        }
        Notice::OtherMode(state) => {
            tracing::error!(%state, "high availability: the partner is configured for another mode");
        }
        Notice::PartnerTerminated => {
            tracing::error!("high availability: the partner works alone until both servers are restarted");
        }
        Notice::Overflow => {
            tracing::warn!("high availability: more changes than are kept, so all leases are copied");
        }
    }
}
