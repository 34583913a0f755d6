//! The commands of a server: Kea's for leases and for the server itself, and `shutdown`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use leasemgr::allocator::{Pool, PoolAddress};
use leasemgr::commands::{self, Answer, Commands, ServiceState, Serving};
use leasemgr::connection::ConnectionString;
use leasemgr::control::{Http, Server, UnixSocket};
use leasemgr::lease::{Json, Lease4, Lease6};
use leasemgr::{LeaseMgr, ManagedLease};

use super::args::Channels;
use super::{Outcome, SUBNET, Served};

/// What commands do to a server. When this is dropped, commands are no longer answered.
pub(crate) struct Control {
    stop: Arc<AtomicBool>,
    service: Arc<ServiceState>,
    /// Number of messages that were not answered because the service was disabled.
    ignored: Arc<AtomicU64>,
    _server: Option<Server>,
}

/// The family of a server.
pub(crate) trait Family: ManagedLease<Address: PoolAddress> {
    /// The key of a configuration.
    const CONFIG: &str;
    /// The key of the subnets in it.
    const SUBNETS: &str;

    /// Makes commands for these leases and this subnet.
    fn make_for(
        commands: Commands,
        leases: Arc<dyn LeaseMgr<Self>>,
        subnet: commands::Subnet<Self>,
        prefixes: Option<Prefixes>,
    ) -> Commands;
}

impl Family for Lease4 {
    const CONFIG: &str = "Dhcp4";
    const SUBNETS: &str = "subnet4";

    fn make_for(
        commands: Commands,
        leases: Arc<dyn LeaseMgr<Self>>,
        subnet: commands::Subnet<Self>,
        _: Option<Prefixes>,
    ) -> Commands {
        commands.with_leases4(leases, [subnet])
    }
}

impl Family for Lease6 {
    const CONFIG: &str = "Dhcp6";
    const SUBNETS: &str = "subnet6";

    fn make_for(
        commands: Commands,
        leases: Arc<dyn LeaseMgr<Self>>,
        subnet: commands::Subnet<Self>,
        prefixes: Option<Prefixes>,
    ) -> Commands {
        let subnet = match prefixes {
            Some(prefixes) => subnet.prefix_pool(prefixes.len, prefixes.delegated_len),
            None => subnet,
        };
        commands.with_leases6(leases, [subnet])
    }
}

/// The lengths of a pool of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes {
    /// The length of the prefix that has all of them.
    len: u8,
    delegated_len: u8,
}

impl Prefixes {
    fn of<A: PoolAddress>(pool: &Pool<A>) -> Self {
        // The first and the last one differ in all bits that the prefix around them leaves.
        let differing = pool.first().to_bits() ^ pool.last().to_bits();
        let bits = (128 - differing.leading_zeros()).min(A::BITS);
        let len = u8::try_from(A::BITS - bits).unwrap_or(u8::MAX).min(pool.prefix_len());
        Self { len, delegated_len: pool.prefix_len() }
    }
}

impl Control {
    /// Starts to answer commands, if the options say where.
    ///
    /// # Errors
    /// Returns an error if a socket or an address cannot be listened on.
    pub(crate) fn start<L: Family>(served: &Served<'_, L>) -> Outcome<Self> {
        let Served { options, leases, prefixes, .. } = served;
        let (stop, ignored) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());

        let subnet = commands::Subnet::new(SUBNET, options.subnet.prefix, options.subnet.len)
            .pool(options.pool.first()..=options.pool.last())
            .valid_lifetime(options.valid_lifetime);
        let config = Json::map([(L::CONFIG, config(served)?)]);
        let (threads, count) = (u128::try_from(options.threads)?, Arc::clone(&ignored));
        let commands = Commands::new()
            .with_config(move || config.clone())
            .with_status("multi-threading-enabled", || true.into())
            .with_status("thread-pool-size", move || threads.into())
            .with_status("ignored-while-disabled", move || count.load(Ordering::Relaxed).into());
        let mut commands =
            L::make_for(commands, Arc::clone(leases), subnet, prefixes.as_ref().map(Prefixes::of));
        let ends = Arc::clone(&stop);
        commands.register("shutdown", move |_| {
            ends.store(true, Ordering::Relaxed);
            Answer::success("the server ends")
        });
        let service = Arc::clone(commands.service());
        Ok(Self { stop, service, ignored, _server: listen(&options.channels, commands)? })
    }

    /// Returns whether the server is to end.
    pub(crate) fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Returns the permission to serve a client, which is held until the client has its answer;
    /// `None` if the service is disabled.
    pub(crate) fn serve(&self) -> Option<Serving<'_>> {
        let serving = self.service.serve();
        if serving.is_none() {
            self.ignored.fetch_add(1, Ordering::Relaxed);
        }
        serving
    }
}

/// Answers commands on these channels.
fn listen(channels: &Channels, commands: Commands) -> Outcome<Option<Server>> {
    if channels.is_empty() {
        return Ok(None);
    }
    let mut builder = Server::builder(Arc::new(commands));
    for path in &channels.sockets {
        builder = builder.unix(UnixSocket::new(path));
    }
    for &address in &channels.addresses {
        builder = builder.http(Http::new(address));
    }
    let server = builder.start()?;
    let addresses = server.addresses().iter().map(|address| format!("http://{address}/"));
    let places: Vec<_> = channels.sockets.iter().cloned().chain(addresses).collect();
    eprintln!("answering commands on {}", places.join(" and "));
    Ok(Some(server))
}

/// Returns what the server was started with, in the form of Kea's configuration.
fn config<L: Family>(served: &Served<'_, L>) -> Outcome<Json> {
    let Served { options, prefixes, preferred_lifetime, .. } = served;
    let text = |text: String| Json::from(text.as_str());
    let of_prefixes = |pool: &Pool<L::Address>| {
        let Prefixes { len, delegated_len } = Prefixes::of(pool);
        Json::map([
            ("prefix", text(pool.first().to_string())),
            ("prefix-len", Json::from(u32::from(len))),
            ("delegated-len", Json::from(u32::from(delegated_len))),
        ])
    };
    let pool = format!("{}-{}", options.pool.first(), options.pool.last());
    let mut subnet = vec![
        ("id", Json::from(SUBNET.0)),
        ("subnet", text(options.subnet.to_string())),
        ("pools", [Json::map([("pool", text(pool))])].into_iter().collect()),
    ];
    subnet.extend(prefixes.as_ref().map(|pool| ("pd-pools", [of_prefixes(pool)].into_iter().collect())));
    let interface = Json::from(options.interface.as_deref().unwrap_or("*"));
    let threads = Json::from(u128::try_from(options.threads)?);
    let mut members = vec![
        ("interfaces-config", Json::map([("interfaces", [interface].into_iter().collect::<Json>())])),
        ("lease-database", lease_database(&options.connection)?),
        (
            "multi-threading",
            Json::map([("enable-multi-threading", true.into()), ("thread-pool-size", threads)]),
        ),
        ("control-sockets", control_sockets(&options.channels)),
        ("valid-lifetime", Json::from(options.valid_lifetime.0)),
        (L::SUBNETS, [Json::map(subnet)].into_iter().collect()),
    ];
    members.extend(preferred_lifetime.map(|preferred| ("preferred-lifetime", Json::from(preferred.0))));
    Ok(Json::map(members))
}

/// Returns what Kea has in its configuration of a connection, apart from the password.
fn lease_database(connection: &str) -> Outcome<Json> {
    let connection: ConnectionString = connection.parse()?;
    let mut members = Vec::new();
    for keyword in ["type", "name", "host", "user"] {
        members.extend(connection.get(keyword).map(|value| (keyword, Json::from(value))));
    }
    for keyword in ["port", "lfc-interval"] {
        members.extend(connection.number(keyword, 0..=u64::MAX)?.map(|value| (keyword, Json::from(value))));
    }
    for keyword in ["persist", "readonly"] {
        members.extend(connection.flag(keyword)?.map(|value| (keyword, Json::from(value))));
    }
    Ok(Json::map(members))
}

fn control_sockets(channels: &Channels) -> Json {
    let sockets = channels.sockets.iter().map(|path| {
        Json::map([("socket-type", Json::from("unix")), ("socket-name", Json::from(path.as_str()))])
    });
    let addresses = channels.addresses.iter().map(|address| {
        Json::map([
            ("socket-type", Json::from("http")),
            ("socket-address", Json::from(address.ip().to_string().as_str())),
            ("socket-port", Json::from(u32::from(address.port()))),
        ])
    });
    sockets.chain(addresses).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(33, 64)]
    #[case(64, 64)]
    #[case(0, 128)]
    #[case(0, 0)]
    #[case(127, 128)]
    fn a_pool_of_prefixes_has_two_lengths(#[case] len: u8, #[case] delegated_len: u8) {
        let prefix = if len == 0 { std::net::Ipv6Addr::UNSPECIFIED } else { "2001:db8::".parse().unwrap() };
        let pool = Pool::prefixes(prefix, len, delegated_len).unwrap();
        assert_eq!(Prefixes::of(&pool), Prefixes { len, delegated_len });
    }

    #[test]
    fn a_configuration_has_no_password() {
        let connection = "type=postgresql name=kea host=db.example port=5432 user=kea password=secret";
        let json =
            r#"{ "host": "db.example", "name": "kea", "port": 5432, "type": "postgresql", "user": "kea" }"#;
        assert_eq!(lease_database(connection).unwrap().as_str(), json);
        let json = r#"{ "lfc-interval": 0, "name": "/tmp/leases", "persist": true, "type": "memfile" }"#;
        let connection = "type=memfile name=/tmp/leases persist=true lfc-interval=0";
        assert_eq!(lease_database(connection).unwrap().as_str(), json);
    }
}
