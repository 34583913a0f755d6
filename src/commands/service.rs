//! Whether the server may serve clients, and the commands that change it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Answer, CommandError, Commands, Reply, Request};
use crate::lease::Json;

/// Whether a server may serve clients. Each origin disables and enables the service separately: it
/// is enabled when no origin disables it.
///
/// | origin | it is |
/// |---|---|
/// | [`USER`](Self::USER), 1 | a user, with `dhcp-disable` |
/// | [`LOCAL`](Self::LOCAL), 1000 to 1999 | the server itself, in a state of high availability |
/// | [`PARTNER`](Self::PARTNER), 2000 to 2999 | its partner, with `dhcp-disable` |
/// | [`DATABASE`](Self::DATABASE), from 3000 on | the server itself, while a database cannot be reached |
///
/// ```
/// use std::time::Duration;
/// use leasemgr::commands::ServiceState;
///
/// let service = ServiceState::default();
/// service.disable(ServiceState::USER, None);
/// service.disable(ServiceState::PARTNER, Some(Duration::from_secs(60)));
/// service.enable(ServiceState::USER);
/// assert!(!service.is_enabled());
/// assert_eq!(service.disabled_by(), [ServiceState::PARTNER]);
/// ```
///
/// A server holds what [`serve`](Self::serve) returns while it serves a client. Then, when
/// `dhcp-disable` is answered, no client is being served any more, and the leases do not change by
/// one that was: a partner may copy them.
#[derive(Debug, Default)]
pub struct ServiceState {
    state: Mutex<State>,
    /// Notified when a client was served, and when the service is enabled.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The origins that disable the service, each until a time or without an end.
    disabled: BTreeMap<u32, Option<Instant>>,
    /// Number of clients that are being served.
    serving: usize,
}

impl State {
    /// Returns whether the service is enabled.
    fn is_enabled_at(&mut self, now: Instant) -> bool {
        // The usual case does nothing.
        if !self.disabled.is_empty() {
            self.disabled.retain(|_, end| end.is_none_or(|end| now < end));
        }
        self.disabled.is_empty()
    }
}

/// The permission to serve one client, which ends when this is dropped.
#[derive(Debug)]
#[must_use = "the permission ends when this is dropped"]
pub struct Serving<'a>(&'a ServiceState);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.serving -= 1;
        self.0.idle.notify_all();
    }
}

impl ServiceState {
    /// The origin of a user.
    pub const USER: u32 = 1;
    /// The first origin of the server itself in high availability.
    pub const LOCAL: u32 = 1000;
    /// The first origin of a partner.
    pub const PARTNER: u32 = 2000;
    /// The first origin of a database.
    pub const DATABASE: u32 = 3000;

    /// Returns whether the server may serve clients now.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state.lock().is_enabled_at(Instant::now())
    }

    /// Returns the permission to serve a client, which is to be held until the client has its answer;
    /// `None` if the service is disabled.
    ///
    /// ```
    /// use leasemgr::commands::ServiceState;
    ///
    /// let service = ServiceState::default();
    /// if let Some(_serving) = service.serve() {
    ///     // Answer a message of a client.
    /// }
    /// service.disable(ServiceState::USER, None);
    /// assert!(service.serve().is_none());
    /// ```
    pub fn serve(&self) -> Option<Serving<'_>> {
        let mut state = self.state.lock();
        if !state.is_enabled_at(Instant::now()) {
            return None;
        }
        state.serving += 1;
        Some(Serving(self))
    }

    /// Waits until no client is being served, unless the service is enabled. Not to be called while
    /// a client is being served by the same thread.
    fn wait_until_idle(&self) {
        let mut state = self.state.lock();
        while state.serving > 0 && !state.is_enabled_at(Instant::now()) {
            self.idle.wait(&mut state);
        }
    }

    /// Returns the origins that disable the service now, in order.
    #[must_use]
    pub fn disabled_by(&self) -> Vec<u32> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<u32> {
        let mut state = self.state.lock();
        state.is_enabled_at(now);
        state.disabled.keys().copied().collect()
    }

    /// Disables the service by an origin, for a period or until the origin enables it. Replaces an
    /// earlier period of the origin. Does not wait for clients that are being served.
    pub fn disable(&self, origin: u32, period: Option<Duration>) {
        // A period whose end is not a time does not end.
        let end = period.and_then(|period| Instant::now().checked_add(period));
        self.state.lock().disabled.insert(origin, end);
    }

    /// Enables the service, as far as this origin has disabled it.
    pub fn enable(&self, origin: u32) {
        self.state.lock().disabled.remove(&origin);
        self.idle.notify_all();
    }

    /// Returns the state as in the answer to `status-get`.
    pub(super) fn to_json(&self) -> Json {
        let origins = self.disabled_by();
        let of = |range: std::ops::RangeInclusive<u32>| {
            origins.iter().filter(|origin| range.contains(origin)).map(|&origin| Json::from(origin)).collect()
        };
        Json::map([
            ("disabled-by-db-connection", of(Self::DATABASE..=u32::MAX)),
            ("disabled-by-local-command", of(Self::LOCAL..=Self::PARTNER - 1)),
            ("disabled-by-remote-command", of(Self::PARTNER..=Self::DATABASE - 1)),
            ("disabled-by-user", Json::from(origins.iter().any(|&origin| origin < Self::LOCAL))),
            ("globally-disabled", Json::from(!origins.is_empty())),
        ])
    }
}

/// Returns the origin in the arguments: `origin-id`, or `origin` as a number or as a word.
fn origin(request: &Request<'_>) -> Result<u32, CommandError> {
    let Some(arguments) = request.optional_map()? else {
        return Ok(ServiceState::USER);
    };
    if let Some(id) = arguments.u32("origin-id")? {
        return Ok(id);
    }
    let expected = "user, ha-partner or an integer from 0 to 4294967295";
    let Some(origin) = arguments.get("origin") else {
        return Ok(ServiceState::USER);
    };
    match origin.as_bytes().as_deref() {
        Some(b"user") => Ok(ServiceState::USER),
        Some(b"ha-partner") => Ok(ServiceState::PARTNER),
        Some(_) => Err(arguments.wrong("origin", expected)),
        None => arguments
            .u32("origin")
            .map_err(|_| arguments.wrong("origin", expected))
            .map(Option::unwrap_or_default),
    }
}

/// `dhcp-disable`
pub(super) fn disable<'a>(commands: &'a Commands, request: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let origin = origin(request)?;
    let period = match request.optional_map()? {
        Some(arguments) => match arguments.integer("max-period")? {
            Some(seconds) => Some(
                u64::try_from(seconds)
                    .ok()
                    .filter(|&seconds| seconds > 0)
                    .ok_or_else(|| arguments.wrong("max-period", "a number of seconds from 1 on"))?,
            ),
            None => None,
        },
        None => None,
    };
    commands.service().disable(origin, period.map(Duration::from_secs));
    commands.service().wait_until_idle();
    Ok(Answer::success(match period {
        Some(seconds) => format!("the service is disabled for {seconds} seconds"),
        None => "the service is disabled".to_owned(),
    })
    .into())
}

/// `dhcp-enable`
pub(super) fn enable<'a>(commands: &'a Commands, request: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    commands.service().enable(origin(request)?);
    let by = commands.service().disabled_by();
    Ok(Answer::success(if by.is_empty() {
        "the service is enabled"
    } else {
        "the service is still disabled by another origin"
    })
    .into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::request::{Channel, Source};

    #[test]
    fn a_period_ends_by_itself_and_other_origins_stay() {
        let service = ServiceState::default();
        let start = Instant::now();
        service.disable(ServiceState::PARTNER, Some(Duration::from_secs(60)));
        service.disable(ServiceState::LOCAL, None);
        assert_eq!(service.at(start), [ServiceState::LOCAL, ServiceState::PARTNER]);
        assert_eq!(service.at(start + Duration::from_secs(3600)), [ServiceState::LOCAL]);
        service.enable(ServiceState::USER);
        assert!(!service.is_enabled());
        service.enable(ServiceState::LOCAL);
        assert!(service.is_enabled());
    }

    #[test]
    fn disabling_waits_for_the_clients_that_are_being_served() {
        let commands = Commands::new();
        let source = Source { channel: Channel::Unix, user: None };
        let make = |request: &[u8]| {
            let mut answer = Vec::new();
            commands.answer(request, &source, &mut answer).unwrap();
            answer
        };
        let served = AtomicBool::new(false);
        let serving = commands.service().serve().unwrap();
        thread::scope(|scope| {
            let disabling = scope.spawn(|| {
                make(br#"{ "command": "dhcp-disable" }"#);
                served.load(Ordering::SeqCst)
            });
            while commands.service().is_enabled() {
                thread::yield_now();
            }
            assert!(commands.service().serve().is_none());
            // Time for a command that does not wait to return.
            thread::sleep(Duration::from_millis(50));
            served.store(true, Ordering::SeqCst);
            drop(serving);
            assert!(disabling.join().unwrap());
        });

        // Neither does it wait for a client if the service is enabled meanwhile.
        commands.service().enable(ServiceState::USER);
        let _serving = commands.service().serve().unwrap();
        thread::scope(|scope| {
            let disabling = scope.spawn(|| make(br#"{ "command": "dhcp-disable" }"#));
            while commands.service().is_enabled() {
                thread::yield_now();
            }
            make(br#"{ "command": "dhcp-enable" }"#);
            disabling.join().unwrap();
        });
    }

    #[test]
    fn a_later_period_replaces_an_earlier_one() {
        let service = ServiceState::default();
        service.disable(ServiceState::PARTNER, Some(Duration::from_secs(60)));
        service.disable(ServiceState::PARTNER, Some(Duration::from_secs(6000)));
        assert_eq!(service.at(Instant::now() + Duration::from_secs(3600)), [ServiceState::PARTNER]);
        service.disable(ServiceState::PARTNER, Some(Duration::MAX));
        assert!(!service.is_enabled());
    }
}
