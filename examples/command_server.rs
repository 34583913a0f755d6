//! Answers Kea's lease commands on a UNIX socket, and does not serve DHCP clients: for recordings of
//! commands, and for programs that are tested with a server.
//!
//! ```text
//! command_server CONNECTION-STRING --socket PATH [--subnet ID=PREFIX/LENGTH]... [--pool ID=FIRST-LAST]...
//!     [--pd-pool ID=PREFIX/LENGTH/DELEGATED]... [--valid-lifetime SECONDS] [--preferred-lifetime SECONDS] [--ddns]
//! ```
//!
//! For example: `command_server 'type=memfile persist=false' --socket /tmp/commands --subnet 1=192.0.2.0/24
//! --pool 1=192.0.2.10-192.0.2.200`
//!
//! * The leases are those of DHCPv6 if the subnets are, or without subnets if the connection string
//!   has `universe=6`.
//! * The options of subnets may be given several times. `--pd-pool` may also be
//!   `ID=PREFIX/DELEGATED`, of one prefix of that length.
//! * The lifetimes are those of leases without one in a command, by default 7200 and 3600 seconds.
//!   Commands use the valid lifetime for both, as in Kea; `config-get` shows both.
//! * With `--ddns`, DNS updates are on: their requests are printed.
//!
//! `socat - UNIX-CONNECT:/tmp/commands <<<'{ "command": "list-commands" }'` shows the commands.
//! The server ends with SIGTERM or SIGINT.

use std::error::Error;
use std::io::{Write as _, stderr, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use leasemgr::commands::{Commands, NameChange, Subnet};
use leasemgr::connection::ConnectionString;
use leasemgr::control::{Server, UnixSocket};
use leasemgr::lease::{Family, Json, Lease4, Lease6, Lifetime};
use leasemgr::{LeaseMgrFactory, ManagedLease, with_sources};
use lexopt::{Arg, Parser, ValueExt};
use signal_hook::consts::{SIGINT, SIGTERM};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Time between two looks for a signal.
const TICK: Duration = Duration::from_millis(50);

const USAGE: &str = "usage: command_server CONNECTION-STRING --socket PATH [--subnet ID=PREFIX/LENGTH]... \
    [--pool ID=FIRST-LAST]... [--pd-pool ID=PREFIX/LENGTH/DELEGATED]... [--valid-lifetime SECONDS] \
    [--preferred-lifetime SECONDS] [--ddns]";

fn main() -> ExitCode {
    match Options::parse(Parser::from_env()).map_err(|error| format!("{error}\n{USAGE}").into()).and_then(run)
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "command_server: {}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let commands = options.commands()?;
    let server = Server::builder(Arc::new(commands)).unix(UnixSocket::new(&options.socket)).start()?;
    writeln!(stderr(), "command_server: commands are answered on {}", options.socket)?;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(TICK);
    }
    drop(server);
    Ok(())
}

/// The command line.
#[derive(Debug, Default, PartialEq)]
struct Options {
    connection: String,
    socket: String,
    subnets: Vec<Given>,
    valid_lifetime: Option<Lifetime>,
    preferred_lifetime: Option<Lifetime>,
    has_ddns: bool,
}

/// A subnet of the command line.
#[derive(Debug, PartialEq)]
struct Given {
    id: u32,
    prefix: IpAddr,
    len: u8,
    pools: Vec<RangeInclusive<IpAddr>>,
    /// Lengths of the prefix and of the prefixes in it.
    prefix_pools: Vec<(u8, u8)>,
}

/// An address of a family.
trait Address: Copy {
    fn of(address: IpAddr) -> Option<Self>;
}

impl Address for Ipv4Addr {
    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(address) } else { None }
    }
}

impl Address for Ipv6Addr {
    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V6(address) = address { Some(address) } else { None }
    }
}

impl Options {
    fn parse(mut parser: Parser) -> Outcome<Self> {
        let mut options = Self::default();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(given) if options.connection.is_empty() => options.connection = given.string()?,
                Arg::Long("socket") => options.socket = parser.value()?.string()?,
                Arg::Long("subnet") => {
                    let (id, subnet) = of_subnet(&parser.value()?.string()?)?;
                    let (prefix, len) = pair(&subnet, '/')?;
                    let (pools, prefix_pools) = (Vec::new(), Vec::new());
                    options.subnets.push(Given { id, prefix, len, pools, prefix_pools });
                }
                Arg::Long("pool") => {
                    let (id, pool) = of_subnet(&parser.value()?.string()?)?;
                    let (first, last): (IpAddr, IpAddr) = pair(&pool, '-')?;
                    options.subnet(id)?.pools.push(first..=last);
                }
                Arg::Long("pd-pool") => {
                    let (id, pool) = of_subnet(&parser.value()?.string()?)?;
                    let (prefix, lens) = pool.split_once('/').ok_or_else(|| format!("{pool} has no '/'"))?;
                    let _: Ipv6Addr = number(prefix)?;
                    let lens =
                        if lens.contains('/') { pair(lens, '/')? } else { (number(lens)?, number(lens)?) };
                    options.subnet(id)?.prefix_pools.push(lens);
                }
                Arg::Long("valid-lifetime") => {
                    options.valid_lifetime = Some(Lifetime(parser.value()?.parse()?));
                }
                Arg::Long("preferred-lifetime") => {
                    options.preferred_lifetime = Some(Lifetime(parser.value()?.parse()?));
                }
                Arg::Long("ddns") => options.has_ddns = true,
                other => return Err(other.unexpected().into()),
            }
        }
        if options.connection.is_empty() || options.socket.is_empty() {
            return Err("the connection string or --socket is missing".into());
        }
        Ok(options)
    }

    /// Returns the subnet with an id, which must be given before its pools.
    fn subnet(&mut self, id: u32) -> Outcome<&mut Given> {
        let subnet = self.subnets.iter_mut().find(|subnet| subnet.id == id);
        subnet.ok_or_else(|| format!("there is no subnet {id} before its pools").into())
    }

    fn family(&self) -> Outcome<Family> {
        if let Some(subnet) = self.subnets.first() {
            return Ok(if subnet.prefix.is_ipv4() { Family::V4 } else { Family::V6 });
        }
        let connection: ConnectionString = self.connection.parse()?;
        Ok(if connection.get("universe") == Some("6") { Family::V6 } else { Family::V4 })
    }

    /// Opens the leases, and returns the commands for them.
    fn commands(&self) -> Outcome<Commands> {
        let commands = Commands::new().with_version(env!("CARGO_PKG_VERSION"));
        let commands = if self.has_ddns { commands.with_ddns(print_change) } else { commands };
        let (commands, key) = match self.family()? {
            Family::V4 => {
                let leases = LeaseMgrFactory::<Lease4>::new().open(&self.connection)?;
                (commands.with_leases4(leases, self.subnets_of::<Lease4>()?), "Dhcp4")
            }
            Family::V6 => {
                let leases = LeaseMgrFactory::<Lease6>::new().open(&self.connection)?;
                let mut subnets = self.subnets_of::<Lease6>()?;
                for (subnet, given) in subnets.iter_mut().zip(&self.subnets) {
                    for &(len, delegated) in &given.prefix_pools {
                        *subnet = subnet.clone().prefix_pool(len, delegated);
                    }
                }
                (commands.with_leases6(leases, subnets), "Dhcp6")
            }
        };
        let config = Json::map([(key, self.config())]);
        Ok(commands.with_config(move || config.clone()))
    }

    fn subnets_of<L: ManagedLease<Address: Address>>(&self) -> Outcome<Vec<Subnet<L>>> {
        let of_family = |address: IpAddr| {
            L::Address::of(address)
                .ok_or_else(|| format!("the address {address}, expected one of {}", L::FAMILY))
        };
        let mut subnets = Vec::new();
        for given in &self.subnets {
            let mut subnet = Subnet::new(given.id, of_family(given.prefix)?, given.len);
            for pool in &given.pools {
                subnet = subnet.pool(of_family(*pool.start())?..=of_family(*pool.end())?);
            }
            subnets.push(subnet.valid_lifetime(self.lifetimes().0));
        }
        Ok(subnets)
    }

    /// Returns the valid and the preferred lifetime.
    fn lifetimes(&self) -> (Lifetime, Lifetime) {
        (self.valid_lifetime.unwrap_or(Lifetime(7200)), self.preferred_lifetime.unwrap_or(Lifetime(3600)))
    }

    fn config(&self) -> Json {
        let (valid, preferred) = self.lifetimes();
        let subnet = |given: &Given| {
            let prefix = format!("{}/{}", given.prefix, given.len);
            Json::map([("id", Json::from(given.id)), ("subnet", Json::from(prefix.as_str()))])
        };
        Json::map([
            ("valid-lifetime", Json::from(valid.0)),
            ("preferred-lifetime", Json::from(preferred.0)),
            ("subnets", self.subnets.iter().map(subnet).collect()),
        ])
    }
}

fn print_change(change: NameChange<'_>) -> Outcome {
    let (action, lease) = match change {
        NameChange::Add(lease) => ("add", lease),
        NameChange::Remove(lease) => ("remove", lease),
        _ => return Err("an unknown change".into()),
    };
    Ok(writeln!(stdout(), "{action} {} {}", lease.hostname.escape_ascii(), lease.address)?)
}

/// Returns the id and the value of `ID=VALUE`.
fn of_subnet(text: &str) -> Outcome<(u32, String)> {
    let (id, value) = text.split_once('=').ok_or_else(|| format!("{text} has no '='"))?;
    Ok((number(id)?, value.to_owned()))
}

/// Returns the values around a separator.
fn pair<A, B>(text: &str, separator: char) -> Outcome<(A, B)>
where
    A: FromStr<Err: Error + Send + Sync + 'static>,
    B: FromStr<Err: Error + Send + Sync + 'static>,
{
    let (first, second) = text.split_once(separator).ok_or_else(|| format!("{text} has no '{separator}'"))?;
    Ok((number(first)?, number(second)?))
}

fn number<T: FromStr<Err: Error + Send + Sync + 'static>>(text: &str) -> Outcome<T> {
    Ok(text.parse().map_err(|error| format!("{text}: {error}"))?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn parse(line: &str) -> Outcome<Options> {
        Options::parse(Parser::from_iter(std::iter::once("command_server").chain(line.split(' '))))
    }

    #[test]
    fn subnets_have_their_pools() {
        let options = parse(
            "type=memfile --socket /s --subnet 1=2001:db8::/64 --subnet 2=2001:db8:2::/64 --pool \
             2=2001:db8:2::1-2001:db8:2::9 --pd-pool 2=2001:db8:8000::/48/56 --pd-pool 2=2001:db8:9000::/56",
        );
        let subnets = options.unwrap().subnets;
        assert_eq!((subnets[0].id, subnets[0].len, subnets[0].pools.len()), (1, 64, 0));
        let pool = "2001:db8:2::1".parse().unwrap()..="2001:db8:2::9".parse().unwrap();
        assert_eq!((&subnets[1].pools, &subnets[1].prefix_pools), (&vec![pool], &vec![(48, 56), (56, 56)]));
    }

    #[test]
    fn an_invalid_command_line_is_refused() {
        for line in [
            "type=memfile",
            "--socket /s",
            "type=memfile --socket /s --subnet 1",
            "type=memfile --socket /s --subnet 1=192.0.2.0",
            "type=memfile --socket /s --pool 1=192.0.2.1-192.0.2.9",
            "type=memfile --socket /s --subnet 1=192.0.2.0/24 --pool 1=192.0.2.1",
            "type=memfile --socket /s --subnet 1=2001:db8::/64 --pd-pool 1=2001:db8::",
            "type=memfile --socket /s --unknown",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let mixed =
            parse("type=memfile --socket /s --subnet 1=192.0.2.0/24 --subnet 2=2001:db8::/64").unwrap();
        assert!(mixed.subnets_of::<Lease4>().is_err());
    }
}
