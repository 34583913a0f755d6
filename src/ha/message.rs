//! What the servers send to each other, in Kea's form.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{Heartbeat, State, http_date, parse_http_date};
use crate::lease::{Family, Lease4, Lease6, LeaseState, Recorded, to_ascii};
use crate::lease_mgr::ManagedLease;

/// What a partner understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Kea 2.2: no names of servers, no state of released leases.
    Kea22,
    /// Kea 3.3, and this crate.
    Current,
}

impl Dialect {
    /// Returns the dialect of a partner that sent this heartbeat.
    #[must_use]
    pub fn of_heartbeat(request: &Request) -> Option<Self> {
        match request {
            Request::Heartbeat { server_name: None } => Some(Self::Kea22),
            Request::Heartbeat { server_name: Some(_) } => Some(Self::Current),
            _ => None,
        }
    }
}

/// What is wrong with a message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The text is not JSON.
    #[error("the message is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// The message is not as expected.
    #[error("{what} is {found}, expected {expected}")]
    Unexpected {
        /// The part of the message.
        what: &'static str,
        /// The part as JSON.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A lease cannot be read.
    #[error("a lease of the message is invalid")]
    Lease(#[source] serde_json::Error),
    /// The partner did not do what it was asked for.
    #[error("the partner answered with result {result}: {text}")]
    Failed {
        /// The result code.
        result: i64,
        /// The partner's words.
        text: String,
    },
}

pub(super) fn unexpected(what: &'static str, found: &Value, expected: &'static str) -> MessageError {
    let mut found = found.to_string();
    if found.len() > 200 {
        found = format!("{} characters of JSON", found.len());
    }
    MessageError::Unexpected { what, found, expected }
}

/// The origin of changes and of disabled services, by name and by number.
const ORIGIN: &str = "ha-partner";
const ORIGIN_ID: u64 = 2000;

/// A command that a server sends to its partner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `ha-heartbeat`.
    Heartbeat {
        /// The sender; `None` from Kea 2.2.
        server_name: Option<String>,
    },
    /// `dhcp-disable`.
    DisableService {
        /// The number of seconds after which the service is enabled again; `None` if never.
        max_period: Option<u32>,
    },
    /// `dhcp-enable`.
    EnableService,
    /// `lease4-get-page` or `lease6-get-page`.
    GetPage {
        /// The last address of the page before; `None` for the first page.
        from: Option<IpAddr>,
        /// Maximum number of leases.
        limit: u32,
    },
    /// `ha-sync-complete-notify`.
    SyncCompleteNotify {
        /// The sender; `None` from Kea 2.2.
        server_name: Option<String>,
    },
    /// `lease4-update`.
    Update(Box<Lease4>),
    /// `lease4-del`.
    Delete(Box<Lease4>),
    /// `lease6-bulk-apply`.
    Apply {
        /// The leases that are added or updated.
        leases: Vec<Lease6>,
        /// The leases that are deleted.
        deleted: Vec<Lease6>,
    },
    /// `ha-maintenance-notify`.
    MaintenanceNotify {
        /// Whether the maintenance is cancelled.
        cancel: bool,
        /// The sender; `None` from Kea 2.2.
        server_name: Option<String>,
        /// The state of the sender before the maintenance; `None` from Kea 2.2.
        state: Option<State>,
    },
    /// `ha-reset`.
    Reset {
        /// The sender; `None` from Kea 2.2.
        server_name: Option<String>,
    },
}

impl Request {
    /// Returns the request for a DHCPv4 lease that was changed or, with `deleted`, deleted.
    ///
    /// Kea 2.2 refuses released leases, so it is asked to delete them.
    #[must_use]
    pub fn of_change4(mut lease: Lease4, deleted: bool, dialect: Dialect) -> Self {
        let refused = dialect == Dialect::Kea22 && lease.state() == LeaseState::RELEASED;
        if refused && lease.set_state(LeaseState::DEFAULT).is_err() {
            // A lease without a client was never given, so no server has it.
            return Self::Delete(Box::new(lease));
        }
        if deleted || refused { Self::Delete(Box::new(lease)) } else { Self::Update(Box::new(lease)) }
    }

    /// Returns the request for all DHCPv6 leases that one packet changed or deleted; see
    /// [`Request::of_change4`].
    #[must_use]
    pub fn of_changes6(changed: Vec<Lease6>, mut deleted: Vec<Lease6>, dialect: Dialect) -> Self {
        let refused = |lease: &Lease6| dialect == Dialect::Kea22 && lease.state() == LeaseState::RELEASED;
        let (released, leases): (Vec<_>, Vec<_>) = changed.into_iter().partition(refused);
        deleted.extend(released.into_iter().map(|mut lease| {
            // A lease without a client keeps its state: no server has it as given.
            let _ = lease.set_state(LeaseState::DEFAULT);
            lease
        }));
        Self::Apply { leases, deleted }
    }

    /// Returns the name of the command.
    #[must_use]
    pub fn command(&self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Heartbeat { .. }, _) => "ha-heartbeat",
            (Self::DisableService { .. }, _) => "dhcp-disable",
            (Self::EnableService, _) => "dhcp-enable",
            (Self::GetPage { .. }, Family::V4) => "lease4-get-page",
            (Self::GetPage { .. }, Family::V6) => "lease6-get-page",
            (Self::SyncCompleteNotify { .. }, _) => "ha-sync-complete-notify",
            (Self::Update(_), _) => "lease4-update",
            (Self::Delete(_), _) => "lease4-del",
            (Self::Apply { .. }, _) => "lease6-bulk-apply",
            (Self::MaintenanceNotify { .. }, _) => "ha-maintenance-notify",
            (Self::Reset { .. }, _) => "ha-reset",
        }
    }

    /// Returns the body of the request, in printable ASCII.
    ///
    /// # Errors
    /// Returns an error if a user context is nested deeper than serde_json supports (128 levels).
    pub fn encode(&self, family: Family, dialect: Dialect) -> Result<String, MessageError> {
        let mut body = json!({ "command": self.command(family), "service": [service(family)] });
        let arguments = self.arguments(dialect)?;
        if let (Value::Object(body), false) = (&mut body, arguments.is_empty()) {
            body.insert("arguments".to_owned(), Value::Object(arguments));
        }
        Ok(to_ascii(&body.to_string()))
    }

    fn arguments(&self, dialect: Dialect) -> Result<Map<String, Value>, MessageError> {
        let is_current = dialect == Dialect::Current;
        let mut arguments = Map::new();
        let mut put = |key: &str, value: Value| drop(arguments.insert(key.to_owned(), value));
        match self {
            Self::Heartbeat { .. } | Self::Reset { .. } => {}
            Self::DisableService { max_period } => {
                if let Some(max_period) = max_period {
                    put("max-period", (*max_period).into());
                }
                put("origin", ORIGIN.into());
            }
            Self::EnableService => put("origin", ORIGIN.into()),
            Self::GetPage { from, limit } => {
                put("from", from.map_or_else(|| "start".into(), |from| from.to_string().into()));
                put("limit", (*limit).into());
            }
            Self::SyncCompleteNotify { .. } if is_current => put("origin", ORIGIN_ID.into()),
            Self::SyncCompleteNotify { .. } => {}
            Self::Update(lease) => {
                arguments = with_expire(&**lease)?;
                arguments.insert("force-create".to_owned(), true.into());
            }
            Self::Delete(lease) => arguments = with_expire(&**lease)?,
            Self::Apply { leases, deleted } => {
                put("leases", with_expires(leases)?);
                put("deleted-leases", with_expires(deleted)?);
            }
            Self::MaintenanceNotify { cancel, state, .. } => {
                put("cancel", (*cancel).into());
                if let (Some(state), true) = (state, is_current) {
                    put("state", state.name().into());
                }
            }
        }
        if !is_current {
            return Ok(arguments);
        }
        let mut put = |key: &str, value: Value| drop(arguments.insert(key.to_owned(), value));
        match self {
            Self::Heartbeat { server_name }
            | Self::Reset { server_name }
            | Self::MaintenanceNotify { server_name, .. }
            | Self::SyncCompleteNotify { server_name } => {
                if let Some(server_name) = server_name {
                    put("server-name", server_name.as_str().into());
                }
            }
            Self::DisableService { .. } | Self::EnableService | Self::GetPage { .. } => {}
            Self::Update(_) | Self::Delete(_) | Self::Apply { .. } => put("origin", ORIGIN.into()),
        }
        if matches!(self, Self::DisableService { .. } | Self::EnableService | Self::SyncCompleteNotify { .. })
        {
            put("origin-id", ORIGIN_ID.into());
        }
        Ok(arguments)
    }

    /// Parses the body of a request. Returns it with the family of the service; `None` if it is
    /// another command.
    ///
    /// Arguments that are not known are ignored.
    ///
    /// # Errors
    /// Returns [`MessageError`] if an argument is missing or invalid.
    pub fn decode(body: &[u8]) -> Result<Option<(Self, Family)>, MessageError> {
        let mut body: Value = serde_json::from_slice(body).map_err(MessageError::NotJson)?;
        let arguments = body.get_mut("arguments").map(Value::take).unwrap_or(Value::Null);
        let command = body.get("command").unwrap_or(&Value::Null);
        let command =
            command.as_str().ok_or_else(|| unexpected("command", command, "the name of a command"))?;
        let family = match body.pointer("/service/0").and_then(Value::as_str) {
            Some("dhcp6") => Family::V6,
            Some(_) => Family::V4,
            None if command.starts_with("lease6") => Family::V6,
            None => Family::V4,
        };
        let arguments = Arguments(arguments);
        let server_name = arguments.text("server-name").map(str::to_owned);
        let request = match command {
            "ha-heartbeat" => Self::Heartbeat { server_name },
            "ha-reset" => Self::Reset { server_name },
            "dhcp-disable" => Self::DisableService {
                max_period: arguments
                    .0
                    .get("max-period")
                    .map(|_| arguments.number("max-period"))
                    .transpose()?,
            },
            "dhcp-enable" => Self::EnableService,
            "ha-sync-complete-notify" => Self::SyncCompleteNotify { server_name },
            "lease4-get-page" | "lease6-get-page" => {
                Self::GetPage { from: arguments.start()?, limit: arguments.number("limit")? }
            }
            "lease4-update" => Self::Update(Box::new(lease(arguments.0)?)),
            "lease4-del" => Self::Delete(Box::new(lease(arguments.0)?)),
            "lease6-bulk-apply" => Self::Apply {
                leases: arguments.leases("leases")?,
                deleted: arguments.leases("deleted-leases")?,
            },
            "ha-maintenance-notify" => Self::MaintenanceNotify {
                cancel: arguments.flag("cancel")?,
                server_name,
                state: arguments.text("state").and_then(State::from_name),
            },
            _ => return Ok(None),
        };
        Ok(Some((request, family)))
    }
}

fn service(family: Family) -> &'static str {
    match family {
        Family::V4 => "dhcp4",
        Family::V6 => "dhcp6",
    }
}

fn lease<L: DeserializeOwned>(value: Value) -> Result<L, MessageError> {
    serde_json::from_value(value).map_err(MessageError::Lease)
}

/// Returns a lease with its end instead of its cltt.
fn with_expire<L: serde::Serialize + crate::lease::Lease>(
    lease: &L,
) -> Result<Map<String, Value>, MessageError> {
    let value = serde_json::to_value(lease).map_err(MessageError::Lease)?;
    let Value::Object(mut map) = value else {
        return Err(unexpected("lease", &value, "a map"));
    };
    map.remove("cltt");
    let data = lease.data();
    map.insert("expire".to_owned(), data.cltt.saturating_add(data.valid_lifetime.0.into()).into());
    Ok(map)
}

fn with_expires(leases: &[Lease6]) -> Result<Value, MessageError> {
    leases.iter().map(|lease| with_expire(lease).map(Value::Object)).collect()
}

struct Arguments(Value);

impl Arguments {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    fn get(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }

    fn number(&self, key: &'static str) -> Result<u32, MessageError> {
        let number = self.get(key).as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| unexpected(key, self.get(key), "an integer from 0 to 4294967295"))
    }

    fn flag(&self, key: &'static str) -> Result<bool, MessageError> {
        self.get(key).as_bool().ok_or_else(|| unexpected(key, self.get(key), "true or false"))
    }

    fn start(&self) -> Result<Option<IpAddr>, MessageError> {
        let from = self.text("from");
        if from == Some("start") {
            return Ok(None);
        }
        let address = from.and_then(|from| from.parse().ok());
        address.map(Some).ok_or_else(|| unexpected("from", self.get("from"), "start or an address"))
    }

    fn leases(&self, key: &'static str) -> Result<Vec<Lease6>, MessageError> {
        let list = self.get(key);
        let list = list.as_array().ok_or_else(|| unexpected(key, list, "a list of leases"))?;
        list.iter().map(|value| Lease6::of_page(value.clone())).collect()
    }
}

/// Leases of a page.
#[derive(Debug)]
#[non_exhaustive]
pub struct Leases<L> {
    /// The leases that can be read.
    pub leases: Vec<L>,
    /// What is wrong with the others.
    pub invalid: Vec<MessageError>,
    /// The number of all leases. A page with less than the limit is the last.
    pub number: usize,
    /// The last address, from which the next page is read; `None` if the page is empty or the
    /// address cannot be read.
    pub last: Option<IpAddr>,
}

/// A lease that servers send to each other.
pub trait PageLease: ManagedLease {
    /// Reads a lease of a page.
    ///
    /// # Errors
    /// Returns [`MessageError::Lease`] if it is not one.
    fn of_page(value: Value) -> Result<Self, MessageError>;

    /// Returns the requests for all leases that one packet changed or deleted, in the order in
    /// which they are sent.
    #[must_use]
    fn requests(changed: Vec<Self>, deleted: Vec<Self>, dialect: Dialect) -> Vec<Request>;

    /// Returns the leases that a request changes and deletes; `None` if it is another request, or
    /// one of the other family.
    #[must_use]
    fn changes_of(request: Request) -> Option<(Vec<Self>, Vec<Self>)>;
}

impl PageLease for Lease4 {
    fn of_page(value: Value) -> Result<Self, MessageError> {
        lease(value)
    }

    fn requests(changed: Vec<Self>, deleted: Vec<Self>, dialect: Dialect) -> Vec<Request> {
        let deleted = deleted.into_iter().map(|lease| (lease, true));
        let changes = deleted.chain(changed.into_iter().map(|lease| (lease, false)));
        changes.map(|(lease, deleted)| Request::of_change4(lease, deleted, dialect)).collect()
    }

    fn changes_of(request: Request) -> Option<(Vec<Self>, Vec<Self>)> {
        match request {
            Request::Update(lease) => Some((vec![*lease], Vec::new())),
            Request::Delete(lease) => Some((Vec::new(), vec![*lease])),
            _ => None,
        }
    }
}

impl PageLease for Lease6 {
    fn of_page(value: Value) -> Result<Self, MessageError> {
        // Kea 2.2 has a DUID of one byte in a declined lease.
        lease(value).map(|Recorded(lease)| lease)
    }

    fn requests(changed: Vec<Self>, deleted: Vec<Self>, dialect: Dialect) -> Vec<Request> {
        vec![Request::of_changes6(changed, deleted, dialect)]
    }

    fn changes_of(request: Request) -> Option<(Vec<Self>, Vec<Self>)> {
        match request {
            Request::Apply { leases, deleted } => Some((leases, deleted)),
            _ => None,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The result code.
    pub result: i64,
    /// Words for operators.
    pub text: String,
    /// The arguments; null if they are absent.
    pub arguments: Value,
}

impl Response {
    /// Parses the body of an answer: a list with one map.
    ///
    /// # Errors
    /// Returns [`MessageError`] if it is anything else: Kea, too, takes that for a failure.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let mut body: Value = serde_json::from_slice(body).map_err(MessageError::NotJson)?;
        let Some([Value::Object(map)]) = body.as_array_mut().map(Vec::as_mut_slice) else {
            return Err(unexpected("answer", &body, "a list with one map"));
        };
        let result = map.get("result").unwrap_or(&Value::Null);
        let result = result.as_i64().ok_or_else(|| unexpected("result", result, "an integer"))?;
        let text = map.get("text").and_then(Value::as_str).unwrap_or("").to_owned();
        let arguments = map.get_mut("arguments").map(Value::take).unwrap_or(Value::Null);
        Ok(Self { result, text, arguments })
    }

    /// Returns the heartbeat.
    ///
    /// # Errors
    /// Returns [`MessageError`] if the result is not 0, or the state or the date is missing or
    /// unknown. The scopes and the count may be missing or of any type.
    pub fn heartbeat(&self) -> Result<Heartbeat, MessageError> {
        self.check(&[0])?;
        let get = |key| self.arguments.get(key).unwrap_or(&Value::Null);
        let state = get("state").as_str().and_then(State::from_name);
        let date_time = get("date-time").as_str().and_then(parse_http_date);
        let scopes = get("scopes").as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Heartbeat {
            state: state.ok_or_else(|| unexpected("state", get("state"), "the name of a state"))?,
            date_time: date_time
                .ok_or_else(|| unexpected("date-time", get("date-time"), "a date of HTTP"))?,
            scopes: scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            unsent_update_count: get("unsent-update-count").as_u64(),
        })
    }

    /// Returns the leases of a page.
    ///
    /// # Errors
    /// Returns [`MessageError`] if the result is neither 0 nor 3, or the list is missing.
    pub fn page<L: PageLease>(mut self) -> Result<Leases<L>, MessageError> {
        self.check(&[0, 3])?;
        let list = self.arguments.get_mut("leases").map(Value::take).unwrap_or(Value::Null);
        let Value::Array(list) = list else {
            return Err(unexpected("leases", &list, "a list of leases"));
        };
        let address = |value: &Value| value.get("ip-address")?.as_str()?.parse().ok();
        let (number, last) = (list.len(), list.last().and_then(address));
        let mut page = Leases { leases: Vec::with_capacity(number), invalid: Vec::new(), number, last };
        for value in list {
            match L::of_page(value) {
                Ok(lease) => page.leases.push(lease),
                Err(error) => page.invalid.push(error),
            }
        }
        Ok(page)
    }

    /// Checks that the result is one of these.
    ///
    /// # Errors
    /// Returns [`MessageError::Failed`] if it is not.
    pub fn check(&self, results: &[i64]) -> Result<(), MessageError> {
        if results.contains(&self.result) {
            return Ok(());
        }
        Err(MessageError::Failed { result: self.result, text: self.text.clone() })
    }
}

impl Heartbeat {
    /// Returns the arguments of the answer to a heartbeat.
    #[must_use]
    pub fn to_arguments(&self) -> Value {
        json!({
            "state": self.state.name(),
            "date-time": http_date(self.date_time),
            "scopes": self.scopes,
            "unsent-update-count": self.unsent_update_count.unwrap_or(0),
        })
    }
}
