//! The configuration of a relationship, from Kea's JSON.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

use super::{Mode, Role, State};
use crate::lease::{Json, JsonError};

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON.
    #[error("the configuration is not JSON")]
    NotJson(#[source] JsonError),
    /// A parameter that is required is missing.
    #[error("{parameter} is missing")]
    Missing {
        /// The parameter, with the maps and lists that it is in: `peers[1].url`.
        parameter: String,
    },
    /// A parameter has a value that it cannot have.
    #[error("{parameter} is {found}, expected {expected}")]
    Invalid {
        /// The parameter, with the maps and lists that it is in.
        parameter: String,
        /// The value as JSON; `(hidden)` for a password.
        found: String,
        /// What the parameter may be.
        expected: String,
    },
}

/// Whether the state machine stops when it enters a state, until an administrator continues it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Does not stop.
    Never,
    /// Stops the first time.
    Once,
    /// Stops every time.
    Always,
}

/// Files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// A file, or a directory of files, with certificates of authorities (`trust-anchor`).
    pub trust_anchor: PathBuf,
    /// The file of the own certificate (`cert-file`).
    pub cert_file: PathBuf,
    /// The file of the own key (`key-file`).
    pub key_file: PathBuf,
}

/// Where a server answers commands: `http://192.0.2.1:8000/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is used (`https`).
    pub tls: bool,
    /// The address of the server.
    pub host: IpAddr,
    /// The port; 80 or, with TLS, 443 if the URL does not name it.
    pub port: u16,
    /// The path, which begins with `/`.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let place = std::net::SocketAddr::new(self.host, self.port);
        write!(f, "{scheme}://{place}{}", self.path)
    }
}

/// A password, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Returns the password.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

/// A server of the relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The name, which is also that of its scope.
    pub name: String,
    /// Where it answers commands.
    pub url: Url,
    /// What it is in the relationship.
    pub role: Role,
    /// Whether this server takes over by itself if its partner is down.
    pub auto_failover: bool,
    /// The user for requests to this server; `None` if it asks for none.
    pub user: Option<String>,
    /// The password for requests to this server.
    pub password: Option<Password>,
    /// The file with the password (`basic-auth-password-file`).
    pub password_file: Option<PathBuf>,
    /// The files for TLS, its own or those of the relationship.
    pub tls: Option<Tls>,
}

/// The relationship of servers, as this server sees it: Kea's map `high-availability`.
///
/// ```
/// use leasemgr::ha::{Config, Mode};
///
/// let config = Config::parse(br#"{ "high-availability": [ {
///     "this-server-name": "server1", "mode": "hot-standby", // A comment.
///     "peers": [
///         { "name": "server1", "url": "http://192.0.2.1:8000/", "role": "primary" },
///         { "name": "server2", "url": "http://192.0.2.2:8000/", "role": "standby" } ] } ] }"#)?;
/// assert_eq!((config.mode, config.this.name.as_str()), (Mode::HotStandby, "server1"));
/// assert_eq!(config.partner().map(|peer| peer.name.as_str()), Some("server2"));
/// # Ok::<(), leasemgr::ha::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How the servers divide the clients.
    pub mode: Mode,
    /// This server.
    pub this: Peer,
    /// The other servers. All names are different.
    pub others: Vec<Peer>,
    /// The time from one heartbeat to the next, up to 65,535 ms. The default is 10 s.
    pub heartbeat_delay: Duration,
    /// The time without an answer after which communication counts as interrupted, up to
    /// 65,535 ms. The default is 60 s.
    pub max_response_delay: Duration,
    /// For how long a client may have waited before it counts as unacked, up to 65,535 ms. The
    /// default is 10 s.
    pub max_ack_delay: Duration,
    /// Maximum number of unacked clients with which the partner does not count as down. The
    /// default is 10; with 0, clients are not observed.
    pub max_unacked_clients: u32,
    /// Whether changes are sent to the other servers. The default is true.
    pub send_lease_updates: bool,
    /// Whether leases are copied from the partner after a start or an interruption. The default
    /// is true.
    pub sync_leases: bool,
    /// Maximum time for a page of leases; for as long the partner's service is disabled. The
    /// default is 60 s.
    pub sync_timeout: Duration,
    /// Maximum number of leases in a page. The default is 10,000; 0 works as 1.
    pub sync_page_limit: u32,
    /// Maximum number of changes that are kept while cut off from the partner. 0 switches the
    /// state [`State::CommunicationRecovery`] off, and is the only value outside
    /// [`Mode::LoadBalancing`], where the default is 100.
    pub delayed_updates_limit: u32,
    /// Number of clients whose changes the partner rejected after which the state is
    /// [`State::Terminated`]. The default is 10; with 0, rejections have no consequence.
    pub max_rejected_lease_updates: u32,
    /// Whether a client's answer waits for the backups. Only in [`Mode::PassiveBackup`]. The
    /// default is false.
    pub wait_backup_ack: bool,
    /// Whether the listener answers only commands of the relationship. The default is true.
    pub restrict_commands: bool,
    /// Whether the listener asks for certificates of clients. The default is true.
    pub require_client_certs: bool,
    /// Number of connections to the partner (`http-client-threads`); 0 lets the server choose.
    pub client_threads: u32,
    /// Number of threads that answer requests (`http-listener-threads`); 0 lets the server choose.
    pub listener_threads: u32,
    pauses: HashMap<State, Pause>,
}

impl Config {
    /// Parses the list with one relationship, or a map with this list as `high-availability`.
    ///
    /// Comments (`#`, `//`, `/* */`) are allowed, and parameters that are not known are ignored,
    /// as in Kea.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if a server of Kea would refuse the configuration, or if a URL has
    /// no valid port.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let json = Json::parse(&without_comments(text)).map_err(ConfigError::NotJson)?;
        let root: Value = serde_json::from_str(json.as_str()).map_err(|_| {
            invalid("the configuration", &Value::from("too deep"), "at most 128 levels of maps and lists")
        })?;
        let list = root.get("high-availability").unwrap_or(&root);
        match list.as_array().map(Vec::as_slice) {
            Some([Value::Object(map)]) => Self::of(&Parameters { map, path: String::new() }),
            Some([other]) => Err(invalid("high-availability[0]", other, "a map")),
            Some(all) => {
                let found = Value::from(format!("a list of {}", all.len()));
                Err(invalid("high-availability", &found, "a list of one relationship"))
            }
            None => Err(invalid("high-availability", list, "a list of one relationship")),
        }
    }

    fn of(top: &Parameters<'_>) -> Result<Self, ConfigError> {
        let this_name = top.nonempty("this-server-name")?;
        let mode = top.named("mode", Mode::ALL, Mode::name)?;
        let tls = top.tls()?;
        let peers = top.peers(tls.as_ref())?;
        check_roles(mode, &peers)?;
        let (mut this, others): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| peer.name == this_name);
        let this =
            this.pop().ok_or_else(|| invalid("this-server-name", &this_name.into(), "the name of a peer"))?;
        let balanced = mode == Mode::LoadBalancing;
        let delayed_updates_limit = top.number("delayed-updates-limit", if balanced { 100 } else { 0 })?;
        if !balanced && delayed_updates_limit != 0 {
            return Err(top.refuse("delayed-updates-limit", "0 in modes other than load-balancing"));
        }
        let wait_backup_ack = top.flag("wait-backup-ack", false)?;
        if mode != Mode::PassiveBackup && wait_backup_ack {
            return Err(top.refuse("wait-backup-ack", "false in modes other than passive-backup"));
        }
        let threads = top.map("multi-threading")?;
        let thread_number = |key| threads.as_ref().map_or(Ok(0), |threads| threads.number(key, 0));
        if let Some(threads) = &threads {
            threads.flag("enable-multi-threading", true)?;
            threads.flag("http-dedicated-listener", true)?;
        }
        Ok(Self {
            mode,
            this,
            others,
            heartbeat_delay: top.short_delay("heartbeat-delay", 10_000)?,
            max_response_delay: top.short_delay("max-response-delay", 60_000)?,
            max_ack_delay: top.short_delay("max-ack-delay", 10_000)?,
            max_unacked_clients: top.number("max-unacked-clients", 10)?,
            send_lease_updates: top.flag("send-lease-updates", true)?,
            sync_leases: top.flag("sync-leases", true)?,
            sync_timeout: Duration::from_millis(top.number("sync-timeout", 60_000)?.into()),
            sync_page_limit: top.number("sync-page-limit", 10_000)?,
            delayed_updates_limit,
            max_rejected_lease_updates: top.number("max-rejected-lease-updates", 10)?,
            wait_backup_ack,
            restrict_commands: top.flag("restrict-commands", true)?,
            require_client_certs: top.flag("require-client-certs", true)?,
            client_threads: thread_number("http-client-threads")?,
            listener_threads: thread_number("http-listener-threads")?,
            pauses: top.pauses()?,
        })
    }

    /// Returns the server with which this one shares the clients; `None` for a backup and in
    /// [`Mode::PassiveBackup`].
    #[must_use]
    pub fn partner(&self) -> Option<&Peer> {
        let is_active = |peer: &&Peer| peer.role != Role::Backup;
        is_active(&&self.this).then(|| self.others.iter().find(is_active)).flatten()
    }

    /// Returns the other servers that only receive changes.
    pub fn backups(&self) -> impl Iterator<Item = &Peer> {
        self.others.iter().filter(|peer| peer.role == Role::Backup)
    }

    /// Returns the server that is the primary.
    #[must_use]
    pub fn primary(&self) -> &Peer {
        let other = self.others.iter().find(|peer| peer.role == Role::Primary);
        other.unwrap_or(&self.this)
    }

    /// Returns whether the state machine stops when it enters a state.
    #[must_use]
    pub fn pause(&self, state: State) -> Pause {
        self.pauses.get(&state).copied().unwrap_or(Pause::Never)
    }
}

fn check_roles(mode: Mode, peers: &[Peer]) -> Result<(), ConfigError> {
    let (other, expected) = match mode {
        Mode::HotStandby => {
            (Some(Role::Standby), "one primary, one standby, and backups, in mode hot-standby")
        }
        Mode::LoadBalancing => {
            (Some(Role::Secondary), "one primary, one secondary, and backups, in mode load-balancing")
        }
        Mode::PassiveBackup => (None, "one primary, and backups, in mode passive-backup"),
    };
    let number = |role| peers.iter().filter(|peer| peer.role == role).count();
    let is_right = number(Role::Primary) == 1
        && [Role::Secondary, Role::Standby]
            .iter()
            .all(|role| number(*role) == usize::from(Some(*role) == other));
    let roles: Vec<_> = peers.iter().map(|peer| peer.role.name()).collect();
    if is_right {
        Ok(())
    } else {
        Err(invalid("peers", &format!("of roles {}", roles.join(", ")).into(), expected))
    }
}

fn invalid(parameter: &str, found: &Value, expected: &str) -> ConfigError {
    let found = match found {
        Value::String(text) if parameter == "peers" || text.starts_with("a list of ") => text.clone(),
        other => other.to_string(),
    };
    ConfigError::Invalid { parameter: parameter.to_owned(), found, expected: expected.to_owned() }
}

/// A map of parameters, and where it is.
struct Parameters<'a> {
    map: &'a Map<String, Value>,
    /// Empty for the relationship, otherwise with a dot at the end: `peers[0].`.
    path: String,
}

impl<'a> Parameters<'a> {
    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn invalid(&self, key: &str, found: &Value, expected: &str) -> ConfigError {
        if key.contains("password") {
            let hidden = "(hidden)".to_owned();
            return ConfigError::Invalid {
                parameter: self.path(key),
                found: hidden,
                expected: expected.to_owned(),
            };
        }
        invalid(&self.path(key), found, expected)
    }

    /// Returns the error that a value that is there cannot be as it is.
    fn refuse(&self, key: &str, expected: &str) -> ConfigError {
        self.invalid(key, self.map.get(key).unwrap_or(&Value::Null), expected)
    }

    fn required(&self, key: &str) -> ConfigError {
        ConfigError::Missing { parameter: self.path(key) }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, value, "a string"))
    }

    /// Returns a string; `None` if it is missing or empty.
    fn optional(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        Ok(self.text(key)?.filter(|text| !text.is_empty()))
    }

    fn nonempty(&self, key: &str) -> Result<&'a str, ConfigError> {
        let text = self.text(key)?.ok_or_else(|| self.required(key))?;
        if text.is_empty() { Err(self.refuse(key, "a name")) } else { Ok(text) }
    }

    fn named<T: Copy>(&self, key: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, ConfigError> {
        let text = self.text(key)?.ok_or_else(|| self.required(key))?;
        all.iter().copied().find(|value| name(*value) == text).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
            self.refuse(key, &format!("one of {}", names.join(", ")))
        })
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let Some(value) = self.map.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.invalid(key, value, "true or false"))
    }

    fn number(&self, key: &str, default: u32) -> Result<u32, ConfigError> {
        let Some(value) = self.map.get(key) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| self.invalid(key, value, "an integer from 0 to 4294967295"))
    }

    fn short_delay(&self, key: &str, default: u32) -> Result<Duration, ConfigError> {
        match self.number(key, default) {
            Ok(number @ ..=65_535) => Ok(Duration::from_millis(number.into())),
            _ => Err(self.refuse(key, "an integer from 0 to 65535, in milliseconds")),
        }
    }

    fn map(&self, key: &str) -> Result<Option<Parameters<'a>>, ConfigError> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.invalid(key, value, "a map"))?;
        Ok(Some(Parameters { map, path: format!("{}.", self.path(key)) }))
    }

    fn maps(&self, key: &str) -> Result<Option<Vec<Parameters<'a>>>, ConfigError> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| self.invalid(key, value, "a list of maps"))?;
        let entry = |(i, value): (usize, &'a Value)| {
            let path = format!("{}[{i}]", self.path(key));
            let map = value.as_object().ok_or_else(|| invalid(&path, value, "a map"))?;
            Ok(Parameters { map, path: format!("{path}.") })
        };
        list.iter().enumerate().map(entry).collect::<Result<_, _>>().map(Some)
    }

    fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        let files = ["trust-anchor", "cert-file", "key-file"];
        let mut found = Vec::new();
        for key in files {
            found.extend(self.optional(key)?.map(PathBuf::from));
        }
        match <[PathBuf; 3]>::try_from(found) {
            Ok([trust_anchor, cert_file, key_file]) => Ok(Some(Tls { trust_anchor, cert_file, key_file })),
            Err(found) if found.is_empty() => Ok(None),
            Err(_) => {
                let missing = files.into_iter().find(|key| !matches!(self.optional(key), Ok(Some(_))));
                Err(self.required(missing.unwrap_or("key-file")))
            }
        }
    }

    fn peers(&self, tls: Option<&Tls>) -> Result<Vec<Peer>, ConfigError> {
        let mut peers: Vec<Peer> = Vec::new();
        for entry in self.maps("peers")?.ok_or_else(|| self.required("peers"))? {
            let peer = entry.peer(tls)?;
            if peers.iter().any(|other| other.name == peer.name) {
                return Err(entry.refuse("name", "a name that no other peer has"));
            }
            peers.push(peer);
        }
        Ok(peers)
    }

    fn peer(&self, tls: Option<&Tls>) -> Result<Peer, ConfigError> {
        let name = self.nonempty("name")?.to_owned();
        let tls = self.tls()?.or_else(|| tls.cloned());
        let user = self.optional("basic-auth-user")?.map(str::to_owned);
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(self.refuse("basic-auth-user", "a name without a colon"));
        }
        Ok(Peer {
            name,
            url: self.url(tls.is_some())?,
            role: self.named("role", Role::ALL, Role::name)?,
            auto_failover: self.flag("auto-failover", true)?,
            user,
            password: self.text("basic-auth-password")?.map(|text| Password(text.to_owned())),
            password_file: self.optional("basic-auth-password-file")?.map(PathBuf::from),
            tls,
        })
    }

    fn url(&self, tls: bool) -> Result<Url, ConfigError> {
        let text = self.text("url")?.ok_or_else(|| self.required("url"))?;
        let url = Url::parse(text).ok_or_else(|| {
            self.refuse("url", "http or https, an IP address, and a port, such as http://192.0.2.1:8000/")
        })?;
        if url.tls && !tls {
            return Err(self.refuse("url", "http without trust-anchor, cert-file and key-file"));
        }
        Ok(url)
    }

    fn pauses(&self) -> Result<HashMap<State, Pause>, ConfigError> {
        let mut pauses = HashMap::new();
        let machine = self.map("state-machine")?;
        let states = machine.as_ref().map_or(Ok(None), |machine| machine.maps("states"))?;
        for entry in states.into_iter().flatten() {
            let state = entry.named("state", State::ALL, State::name)?;
            let pause = match entry.text("pause")? {
                None | Some("never") => Pause::Never,
                Some("once") => Pause::Once,
                Some("always") => Pause::Always,
                Some(_) => return Err(entry.refuse("pause", "one of never, once, always")),
            };
            if pauses.insert(state, pause).is_some() {
                return Err(entry.refuse("state", "a state that no other entry has"));
            }
        }
        Ok(pauses)
    }
}

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (tls, default) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let host = host.parse().ok()?;
        let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port != 0))?;
        Some(Self { tls, host, port, path: path.to_owned() })
    }
}

/// Returns the text with a blank for each byte of a comment.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some((first, after)) = rest.split_first() {
        let comment = match rest {
            _ if in_string => 0,
            [b'#', ..] | [b'/', b'/', ..] => {
                rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
            }
            [b'/', b'*', ..] => {
                let body = rest.get(2..).unwrap_or_default();
                body.windows(2).position(|two| two == b"*/").map_or(rest.len(), |end| end + 4)
            }
            _ => 0,
        };
        if comment > 0 {
            out.resize(out.len() + comment, b' ');
            rest = rest.get(comment..).unwrap_or_default();
            continue;
        }
        out.push(*first);
        rest = after;
        if in_string && *first == b'\\' {
            if let Some((escaped, after)) = rest.split_first() {
                out.push(*escaped);
                rest = after;
            }
        } else if *first == b'"' {
            in_string = !in_string;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn base(mode: &str) -> Value {
        let other = match mode {
            "hot-standby" => "standby",
            "load-balancing" => "secondary",
            _ => "backup",
        };
        json!({ "this-server-name": "server1", "mode": mode, "peers": [
            { "name": "server1", "url": "http://192.0.2.1:8000/", "role": "primary" },
            { "name": "server2", "url": "http://192.0.2.2:8000/", "role": other },
        ]})
    }

    fn parse(map: &Value) -> Result<Config, ConfigError> {
        Config::parse(json!([map]).to_string().as_bytes())
    }

    /// Replaces the value at a JSON pointer; removes it if the new one is null.
    fn with(mut map: Value, pointer: &str, value: Value) -> Value {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = map.pointer_mut(parent).unwrap();
        match (parent, value) {
            (Value::Object(members), Value::Null) => drop(members.remove(key)),
            (Value::Object(members), value) => drop(members.insert(key.to_owned(), value)),
            (Value::Array(items), value) if key == "-" => items.push(value),
            (Value::Array(items), _) => drop(items.remove(key.parse().unwrap())),
            _ => panic!("no such place"),
        }
        map
    }

    #[test]
    fn defaults_are_those_of_kea() {
        let config = parse(&base("load-balancing")).unwrap();
        assert_eq!(config.heartbeat_delay, Duration::from_secs(10));
        assert_eq!(config.max_response_delay, Duration::from_secs(60));
        assert_eq!(config.max_ack_delay, Duration::from_secs(10));
        assert_eq!(config.max_unacked_clients, 10);
        assert_eq!((config.sync_timeout, config.sync_page_limit), (Duration::from_secs(60), 10_000));
        assert_eq!((config.delayed_updates_limit, config.max_rejected_lease_updates), (100, 10));
        assert!(config.send_lease_updates && config.sync_leases && config.restrict_commands);
        assert!(!config.wait_backup_ack && config.this.auto_failover && config.require_client_certs);
        assert_eq!(config.pause(State::Waiting), Pause::Never);
        assert_eq!(parse(&base("hot-standby")).unwrap().delayed_updates_limit, 0);
    }

    /// What Kea 2.2 accepts, too.
    #[rstest]
    #[case::hot_standby("hot-standby", "/x", json!(1))]
    #[case::passive_backup("passive-backup", "/x", json!(1))]
    #[case::passive_backup_alone("passive-backup", "/peers/1", json!(null))]
    #[case::unknown_key_of_a_peer("load-balancing", "/peers/0/foo", json!(1))]
    #[case::a_backup("load-balancing", "/peers/-", json!({ "name": "b", "url": "http://192.0.2.3/", "role": "backup" }))]
    #[case::url_without_port("load-balancing", "/peers/1/url", json!("http://192.0.2.2"))]
    #[case::url_of_ipv6("load-balancing", "/peers/1/url", json!("http://[2001:db8::1]:8000/a/b"))]
    #[case::zero("load-balancing", "/heartbeat-delay", json!(0))]
    #[case::large("load-balancing", "/max-unacked-clients", json!(4_294_967_295_u32))]
    #[case::wait("passive-backup", "/wait-backup-ack", json!(true))]
    #[case::user("load-balancing", "/peers/0/basic-auth-user", json!(""))]
    #[case::states("load-balancing", "/state-machine", json!({ "states": [{ "state": "ready" }] }))]
    #[case::threads("load-balancing", "/multi-threading", json!({ "enable-multi-threading": true, "http-client-threads": 4 }))]
    #[case::tls("load-balancing", "/trust-anchor", json!(""))]
    fn accepted(#[case] mode: &str, #[case] pointer: &str, #[case] value: Value) {
        parse(&with(base(mode), pointer, value)).unwrap();
    }

    /// What Kea 2.2 refuses, too.
    #[rstest]
    #[case::no_name("load-balancing", "/this-server-name", json!(null), "this-server-name is missing")]
    #[case::empty_name("load-balancing", "/this-server-name", json!(""), "this-server-name is \"\", expected a name")]
    #[case::not_a_peer("load-balancing", "/this-server-name", json!("x"), "this-server-name is \"x\", expected the name of a peer")]
    #[case::no_mode("load-balancing", "/mode", json!(null), "mode is missing")]
    #[case::mode("load-balancing", "/mode", json!("Hot-Standby"),
        "mode is \"Hot-Standby\", expected one of hot-standby, load-balancing, passive-backup")]
    #[case::mode_number("load-balancing", "/mode", json!(1), "mode is 1, expected a string")]
    #[case::no_peers("load-balancing", "/peers", json!(null), "peers is missing")]
    #[case::peers_map("load-balancing", "/peers", json!({}), "peers is {}, expected a list of maps")]
    #[case::peer("load-balancing", "/peers", json!([1]), "peers[0] is 1, expected a map")]
    #[case::peer_name("load-balancing", "/peers/1/name", json!(null), "peers[1].name is missing")]
    #[case::same_name("load-balancing", "/peers/1/name", json!("server1"),
        "peers[1].name is \"server1\", expected a name that no other peer has")]
    #[case::peer_url("load-balancing", "/peers/1/url", json!(null), "peers[1].url is missing")]
    #[case::url_host("load-balancing", "/peers/1/url", json!("http://host:8000/"),
        "peers[1].url is \"http://host:8000/\", expected http or https, an IP address, and a port, such as http://192.0.2.1:8000/")]
    #[case::url_scheme("load-balancing", "/peers/1/url", json!("192.0.2.2:8000"),
        "peers[1].url is \"192.0.2.2:8000\", expected http or https, an IP address, and a port, such as http://192.0.2.1:8000/")]
    #[case::url_tls("load-balancing", "/peers/1/url", json!("https://192.0.2.2/"),
        "peers[1].url is \"https://192.0.2.2/\", expected http without trust-anchor, cert-file and key-file")]
    #[case::role("load-balancing", "/peers/1/role", json!("x"),
        "peers[1].role is \"x\", expected one of primary, secondary, standby, backup")]
    #[case::no_other("load-balancing", "/peers/1", json!(null),
        "peers is of roles primary, expected one primary, one secondary, and backups, in mode load-balancing")]
    #[case::two_primaries("hot-standby", "/peers/1/role", json!("primary"),
        "peers is of roles primary, primary, expected one primary, one standby, and backups, in mode hot-standby")]
    #[case::standby("passive-backup", "/peers/1/role", json!("standby"),
        "peers is of roles primary, standby, expected one primary, and backups, in mode passive-backup")]
    #[case::delay("load-balancing", "/heartbeat-delay", json!(65_536),
        "heartbeat-delay is 65536, expected an integer from 0 to 65535, in milliseconds")]
    #[case::negative("load-balancing", "/max-ack-delay", json!(-1),
        "max-ack-delay is -1, expected an integer from 0 to 65535, in milliseconds")]
    #[case::fraction("load-balancing", "/sync-timeout", json!(1.5),
        "sync-timeout is 1.5, expected an integer from 0 to 4294967295")]
    #[case::text("load-balancing", "/sync-page-limit", json!("5"),
        "sync-page-limit is \"5\", expected an integer from 0 to 4294967295")]
    #[case::flag("load-balancing", "/sync-leases", json!(1), "sync-leases is 1, expected true or false")]
    #[case::delayed("hot-standby", "/delayed-updates-limit", json!(100),
        "delayed-updates-limit is 100, expected 0 in modes other than load-balancing")]
    #[case::wait("hot-standby", "/wait-backup-ack", json!(true),
        "wait-backup-ack is true, expected false in modes other than passive-backup")]
    #[case::user("hot-standby", "/peers/0/basic-auth-user", json!("a:b"),
        "peers[0].basic-auth-user is \"a:b\", expected a name without a colon")]
    #[case::password("hot-standby", "/peers/0/basic-auth-password", json!(123),
        "peers[0].basic-auth-password is (hidden), expected a string")]
    #[case::state("hot-standby", "/state-machine", json!({ "states": [{ "state": "waiting", "pause": "x" }] }),
        "state-machine.states[0].pause is \"x\", expected one of never, once, always")]
    #[case::no_state("hot-standby", "/state-machine", json!({ "states": [{ "pause": "once" }] }),
        "state-machine.states[0].state is missing")]
    #[case::state_twice("hot-standby", "/state-machine", json!({ "states": [{ "state": "ready" }, { "state": "ready" }] }),
        "state-machine.states[1].state is \"ready\", expected a state that no other entry has")]
    #[case::threads("hot-standby", "/multi-threading", json!({ "http-listener-threads": -1 }),
        "multi-threading.http-listener-threads is -1, expected an integer from 0 to 4294967295")]
    #[case::tls("hot-standby", "/trust-anchor", json!("/a"), "cert-file is missing")]
    fn refused(#[case] mode: &str, #[case] pointer: &str, #[case] value: Value, #[case] expected: &str) {
        let error = parse(&with(base(mode), pointer, value)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[rstest]
    #[case::two("[{}, {}]", "high-availability is a list of 2, expected a list of one relationship")]
    #[case::none("[]", "high-availability is a list of 0, expected a list of one relationship")]
    #[case::a_map(
        "{\"high-availability\": {}}",
        "high-availability is {}, expected a list of one relationship"
    )]
    #[case::not_json("[", "the configuration is not JSON")]
    fn other_texts_are_refused(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(Config::parse(text.as_bytes()).unwrap_err().to_string(), expected);
    }

    #[test]
    fn passwords_are_not_shown() {
        let map = with(base("hot-standby"), "/peers/0/basic-auth-password", json!("secret"));
        let config = parse(&map).unwrap();
        assert_eq!(config.this.password.as_ref().unwrap().reveal(), "secret");
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn comments_are_skipped_outside_strings() {
        let text = b"/* a */ { \"a#\": \"//\\\"#\" # b\n, // c\n\"d\": 1 }";
        let json = Json::parse(&without_comments(text)).unwrap();
        assert_eq!(json.as_str(), "{ \"a#\": \"//\\\"#\", \"d\": 1 }");
    }
}
