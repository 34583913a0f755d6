//! Whether the server may serve clients, and the commands that change it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

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
#[derive(Debug, Default)]
pub struct ServiceState {
    /// The origins that disable the service, each until a time or without an end.
    disabled: Mutex<BTreeMap<u32, Option<Instant>>>,
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
        self.at(Instant::now()).is_empty()
    }

    /// Returns the origins that disable the service now, in order.
    #[must_use]
    pub fn disabled_by(&self) -> Vec<u32> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<u32> {
        let mut disabled = self.disabled.lock();
        // The usual case does nothing.
        if !disabled.is_empty() {
            disabled.retain(|_, end| end.is_none_or(|end| now < end));
        }
        disabled.keys().copied().collect()
    }

    /// Disables the service by an origin, for a period or until the origin enables it. Replaces an
    /// earlier period of the origin.
    pub fn disable(&self, origin: u32, period: Option<Duration>) {
        // A period whose end is not a time does not end.
        let end = period.and_then(|period| Instant::now().checked_add(period));
        self.disabled.lock().insert(origin, end);
    }

    /// Enables the service, as far as this origin has disabled it.
    pub fn enable(&self, origin: u32) {
        self.disabled.lock().remove(&origin);
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
    use super::*;

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
    fn a_later_period_replaces_an_earlier_one() {
        let service = ServiceState::default();
        service.disable(ServiceState::PARTNER, Some(Duration::from_secs(60)));
        service.disable(ServiceState::PARTNER, Some(Duration::from_secs(6000)));
        assert_eq!(service.at(Instant::now() + Duration::from_secs(3600)), [ServiceState::PARTNER]);
        service.disable(ServiceState::PARTNER, Some(Duration::MAX));
        assert!(!service.is_enabled());
    }
}
