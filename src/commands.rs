//! The commands of Kea's servers for their leases: JSON in, JSON out.
//!
//! [`Commands`] answers requests of any channel, such as a UNIX socket. It knows the lease manager
//! of one family or of both, and what the server tells it of its configuration, and does no input
//! or output of its own. A server adds its own commands.
//!
//! The commands, their arguments and results are those of Kea 3.3; `docs/commands.md` lists them,
//! and where they differ. The texts are not Kea's.
//!
//! ```
//! use std::sync::Arc;
//!
//! use leasemgr::LeaseMgrFactory;
//! use leasemgr::commands::{Answer, Commands, Subnet};
//! use leasemgr::lease::Lease4;
//! use leasemgr::request::{Channel, Source};
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let subnet = Subnet::new(1, [192, 0, 2, 0].into(), 24).valid_lifetime(4000);
//! let mut commands = Commands::new().with_leases4(Arc::clone(&leases), [subnet]);
//! commands.register("greet", |_| Answer::success("good morning"));
//!
//! let request = br#"{ "command": "lease4-add", "arguments": { "ip-address": "192.0.2.1", "hw-address": "2:0:0:0:0:1" } }"#;
//! let source = Source { channel: Channel::Unix, user: None };
//! let mut answer = Vec::new();
//! commands.answer(request, &source, &mut answer)?;
//! assert!(answer.starts_with(br#"{ "result": 0, "#));
//! assert!(leases.get([192, 0, 2, 1].into())?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod arguments;
mod bulk;
mod change;
mod error;
mod family;
mod find;
mod lease_of;
mod server;
mod service;
mod statistics;
mod subnet;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use answer::Answer;
use answer::Reply;
pub use arguments::Request;
pub(crate) use bulk::{Bulk, BulkChange};
use error::CommandError;
pub use service::{ServiceState, Serving};
use subnet::Store;
pub use subnet::Subnet;

use crate::lease::{Fields, Json, Lease4, Lease6};
use crate::lease_mgr::LeaseMgr;
use crate::panics::contained;
use crate::request::{Channel, Handler, Outcome, Source};

/// A request to change the DNS, with the values of the lease.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NameChange<'a> {
    /// Adds the name of the lease.
    Add(Fields<'a>),
    /// Removes the name of a lease that was deleted.
    Remove(Fields<'a>),
}

type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;
type Ddns = Box<dyn Fn(NameChange<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;
type Value = Box<dyn Fn() -> Json + Send + Sync>;

/// A command of this crate.
type BuiltIn = for<'a> fn(&'a Commands, &Request<'a>) -> Result<Reply<'a>, CommandError>;

/// Answers some of the requests for a command.
type First = Box<dyn Fn(&Request<'_>) -> Option<Answer> + Send + Sync>;

enum Command {
    BuiltIn(BuiltIn),
    Registered(Box<dyn Fn(&Request<'_>) -> Answer + Send + Sync>),
    /// Asked before another command, which answers the requests that this one does not.
    First(First, Option<Box<Command>>),
}

/// The commands of a server.
///
/// A server of one family has the commands of both: those of the other family find no leases and no
/// subnets.
pub struct Commands {
    commands: BTreeMap<String, Command>,
    store4: Store<Lease4>,
    store6: Store<Lease6>,
    service: Arc<ServiceState>,
    started: Instant,
    clock: Clock,
    ddns: Option<Ddns>,
    config: Option<Value>,
    status: Vec<(String, Value)>,
    version: String,
    data_directory: Option<PathBuf>,
}

impl Default for Commands {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("names", &self.names().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// The commands of this crate.
const BUILT_IN: [(&str, BuiltIn); 45] = [
    ("build-report", server::build_report),
    ("dhcp-disable", service::disable),
    ("dhcp-enable", service::enable),
    ("kea-lfc-start", server::start_cleanup),
    ("lease4-add", change::add::<Lease4>),
    ("lease4-del", change::delete::<Lease4>),
    ("lease4-get", find::get::<Lease4>),
    ("lease4-get-all", find::get_all::<Lease4>),
    ("lease4-get-by-client-id", find::by_client_id::<Lease4>),
    ("lease4-get-by-hostname", find::by_hostname::<Lease4>),
    ("lease4-get-by-hw-address", find::by_hwaddr::<Lease4>),
    ("lease4-get-by-state", find::by_state::<Lease4>),
    ("lease4-get-page", find::get_page::<Lease4>),
    ("lease4-resend-ddns", change::resend_ddns::<Lease4>),
    ("lease4-update", change::update::<Lease4>),
    ("lease4-wipe", change::wipe::<Lease4>),
    ("lease4-write", server::write::<Lease4>),
    ("lease6-add", change::add::<Lease6>),
    ("lease6-bulk-apply", change::bulk_apply),
    ("lease6-del", change::delete::<Lease6>),
    ("lease6-get", find::get::<Lease6>),
    ("lease6-get-all", find::get_all::<Lease6>),
    ("lease6-get-by-duid", find::by_duid::<Lease6>),
    ("lease6-get-by-hostname", find::by_hostname::<Lease6>),
    ("lease6-get-by-hw-address", find::by_hwaddr::<Lease6>),
    ("lease6-get-by-state", find::by_state::<Lease6>),
    ("lease6-get-page", find::get_page::<Lease6>),
    ("lease6-resend-ddns", change::resend_ddns::<Lease6>),
    ("lease6-update", change::update::<Lease6>),
    ("lease6-wipe", change::wipe::<Lease6>),
    ("lease6-write", server::write::<Lease6>),
    ("leases-reclaim", change::reclaim),
    ("list-commands", server::list),
    ("sflq-pool4-del", server::no_free_lease_tables),
    ("sflq-pool4-get-all", server::no_free_lease_tables),
    ("sflq-pool4-get-by-range", server::no_free_lease_tables),
    ("sflq-pool4-get-by-subnet", server::no_free_lease_tables),
    ("sflq-pool4-rebuild", server::no_free_lease_tables),
    ("sflq-pool6-del", server::no_free_lease_tables),
    ("sflq-pool6-get-all", server::no_free_lease_tables),
    ("sflq-pool6-get-by-range", server::no_free_lease_tables),
    ("sflq-pool6-get-by-subnet", server::no_free_lease_tables),
    ("sflq-pool6-rebuild", server::no_free_lease_tables),
    ("stat-lease4-get", statistics::get::<Lease4>),
    ("stat-lease6-get", statistics::get::<Lease6>),
];

impl Commands {
    /// Creates the commands of a server without leases.
    #[must_use]
    pub fn new() -> Self {
        let always: [(&str, BuiltIn); 2] = [("status-get", server::status), ("version-get", server::version)];
        let built_in = BUILT_IN.into_iter().chain(always);
        let command = |(name, command): (&str, BuiltIn)| (name.to_owned(), Command::BuiltIn(command));
        Self {
            commands: built_in.map(command).collect(),
            store4: Store::default(),
            store6: Store::default(),
            service: Arc::default(),
            started: Instant::now(),
            clock: Box::new(SystemTime::now),
            ddns: None,
            config: None,
            status: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_directory: None,
        }
    }

    /// Answers for these DHCPv4 leases and subnets.
    #[must_use]
    pub fn with_leases4(
        mut self,
        leases: Arc<dyn LeaseMgr<Lease4>>,
        subnets: impl IntoIterator<Item = Subnet<Lease4>>,
    ) -> Self {
        self.store4.leases = Some(leases);
        self.set_subnets4(subnets);
        self
    }

    /// Answers for these DHCPv6 leases and subnets.
    #[must_use]
    pub fn with_leases6(
        mut self,
        leases: Arc<dyn LeaseMgr<Lease6>>,
        subnets: impl IntoIterator<Item = Subnet<Lease6>>,
    ) -> Self {
        self.store6.leases = Some(leases);
        self.set_subnets6(subnets);
        self
    }

    /// Replaces the DHCPv4 subnets, for a server whose configuration has changed.
    pub fn set_subnets4(&self, subnets: impl IntoIterator<Item = Subnet<Lease4>>) {
        self.store4.set_subnets(subnets);
    }

    /// Replaces the DHCPv6 subnets, for a server whose configuration has changed.
    pub fn set_subnets6(&self, subnets: impl IntoIterator<Item = Subnet<Lease6>>) {
        self.store6.set_subnets(subnets);
    }

    /// Takes the time from this clock instead of the system's.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// Calls a function for the DNS updates that are asked for (`lease4-resend-ddns`, `update-ddns`
    /// of `lease4-del`, and those of DHCPv6). Without it, DNS updates are off. The function queues
    /// the request, and returns an error if it cannot.
    #[must_use]
    pub fn with_ddns(
        self,
        ddns: impl Fn(NameChange<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        Self { ddns: Some(Box::new(ddns)), ..self }
    }

    /// Answers `config-get` with a map such as `{ "Dhcp4": { ... } }`. Without it, there is no such
    /// command.
    #[must_use]
    pub fn with_config(mut self, config: impl Fn() -> Json + Send + Sync + 'static) -> Self {
        self.config = Some(Box::new(config));
        self.commands.insert("config-get".to_owned(), Command::BuiltIn(server::config));
        self
    }

    /// Adds a value to the answer to `status-get`, which replaces one of that key.
    #[must_use]
    pub fn with_status(
        mut self,
        key: impl Into<String>,
        status: impl Fn() -> Json + Send + Sync + 'static,
    ) -> Self {
        self.register_status(key, status);
        self
    }

    /// Sets the version of the server.
    #[must_use]
    pub fn with_version(self, version: impl Into<String>) -> Self {
        Self { version: version.into(), ..self }
    }

    /// Sets the directory in which `lease4-write` and `lease6-write` write, instead of that of the
    /// lease file.
    #[must_use]
    pub fn with_data_directory(self, directory: impl Into<PathBuf>) -> Self {
        Self { data_directory: Some(directory.into()), ..self }
    }

    /// Returns whether the server may serve clients, which `dhcp-disable` and `dhcp-enable` change.
    #[must_use]
    pub fn service(&self) -> &Arc<ServiceState> {
        &self.service
    }

    /// Adds a command, which replaces one of that name. A panic of its handler is answered with an
    /// error.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        handler: impl Fn(&Request<'_>) -> Answer + Send + Sync + 'static,
    ) {
        self.commands.insert(name.into(), Command::Registered(Box::new(handler)));
    }

    /// Adds a handler that is asked before the command of that name. If it returns `None`, the
    /// command that was there answers. A panic of the handler is answered with an error.
    pub fn register_first(
        &mut self,
        name: impl Into<String>,
        handler: impl Fn(&Request<'_>) -> Option<Answer> + Send + Sync + 'static,
    ) {
        let name = name.into();
        let next = self.commands.remove(&name).map(Box::new);
        self.commands.insert(name, Command::First(Box::new(handler), next));
    }

    /// Adds a value to the answer to `status-get`, as [`with_status`](Self::with_status) does.
    pub fn register_status(
        &mut self,
        key: impl Into<String>,
        status: impl Fn() -> Json + Send + Sync + 'static,
    ) {
        self.status.push((key.into(), Box::new(status)));
    }

    /// Returns the names of the commands, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    /// Returns the time.
    fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// Makes the command of a request, and writes the answer: one JSON map, while it is read from
    /// the backend.
    ///
    /// There is no answer to a request that ends before its JSON does, and by HTTP to one that is
    /// not JSON (which is answered with a status of HTTP).
    ///
    /// # Errors
    /// Returns an error if the answer cannot be written.
    pub fn answer(&self, request: &[u8], source: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        let json = match Json::parse_request(request) {
            Ok(Some(json)) => json,
            Ok(None) => return Ok(Outcome::NoAnswer),
            Err(_) if source.channel == Channel::Http => return Ok(Outcome::NoAnswer),
            Err(error) => {
                Reply::from(Answer::from(CommandError::Json(error))).write(answer)?;
                return Ok(Outcome::Answered);
            }
        };
        let mut name = String::new();
        let reply = match Request::of(&json, source, &mut name) {
            Ok(request) => self.reply(&request),
            Err(error) => Answer::from(error).into(),
        };
        reply.write(answer)?;
        Ok(Outcome::Answered)
    }

    fn reply<'a>(&'a self, request: &Request<'a>) -> Reply<'a> {
        let panicked = |message| Answer::error(format!("the command panicked: {message}"));
        let mut command = self.commands.get(request.command());
        while let Some(Command::First(handler, next)) = command {
            match contained(|| handler(request)) {
                Ok(Some(answer)) => return answer.into(),
                Ok(None) => command = next.as_deref(),
                Err(message) => return panicked(message).into(),
            }
        }
        match command {
            Some(Command::BuiltIn(command)) => {
                command(self, request).unwrap_or_else(|error| Answer::from(error).into())
            }
            Some(Command::Registered(handler)) => {
                contained(|| handler(request)).unwrap_or_else(panicked).into()
            }
            Some(Command::First(..)) | None => {
                let text = format!("the command {} is not known", request.command());
                Answer::new(Answer::UNSUPPORTED, text).into()
            }
        }
    }
}

impl Handler for Commands {
    fn answer(&self, request: &[u8], source: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        Self::answer(self, request, source, answer)
    }
}
