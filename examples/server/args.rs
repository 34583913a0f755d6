//! The command line.

use std::error::Error;
use std::fmt;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::process::exit;
use std::str::FromStr;

use leasemgr::allocator::{Pool, PoolAddress, Strategy};
use leasemgr::lease::Lifetime;
use leasemgr::{LeaseMgr, ManagedLease};
use lexopt::{Arg, Parser, ValueExt};

use super::Outcome;

/// Where commands are answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    /// The paths of UNIX sockets.
    pub(crate) sockets: Vec<String>,
    /// The addresses for HTTP.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Channels {
    /// Returns whether commands are answered nowhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.addresses.is_empty()
    }
}

/// Options of the servers of both families.
pub(crate) struct Options<A> {
    pub(crate) connection: String,
    pub(crate) bind: SocketAddr,
    pub(crate) interface: Option<String>,
    pub(crate) subnet: Subnet<A>,
    pub(crate) pool: Pool<A>,
    pub(crate) valid_lifetime: Lifetime,
    pub(crate) threads: usize,
    pub(crate) channels: Channels,
    strategy: Option<Strategy>,
}

impl<A: PoolAddress + FromStr<Err: Error + Send + Sync>> Options<A> {
    /// Parses the command line. Options of one family are passed to `own`, without their dashes;
    /// for those that it knows, it reads the value from the parser, as with [`value`], and returns
    /// `true`.
    pub(crate) fn parse(
        usage: &str,
        bind: SocketAddr,
        own: impl FnMut(&str, &mut Parser) -> Outcome<bool>,
    ) -> Outcome<Self> {
        if std::env::args().skip(1).any(|arg| arg == "--help" || arg == "-h") {
            writeln!(stdout(), "{usage}")?;
            exit(0);
        }
        Self::parse_with(Parser::from_env(), bind, own).map_err(|error| format!("{error}\n{usage}").into())
    }

    /// Returns how free addresses are found: as given, or else from a set of them. Of a database that
    /// servers share there is no such set, and addresses are tried.
    pub(crate) fn strategy<L: ManagedLease>(&self, leases: &dyn LeaseMgr<L>) -> Strategy {
        let usual = if leases.is_shared() { Strategy::Random } else { Strategy::FreeList };
        self.strategy.unwrap_or(usual)
    }

    fn parse_with(
        mut parser: Parser,
        mut bind: SocketAddr,
        mut own: impl FnMut(&str, &mut Parser) -> Outcome<bool>,
    ) -> Outcome<Self> {
        let (mut connection, mut interface, mut subnet, mut pool) = (None, None, None, None);
        let mut valid_lifetime = Lifetime(3600);
        let mut threads = 2;
        let mut channels = Channels::default();
        let mut strategy = None;
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(given) if connection.is_none() => connection = Some(given.string()?),
                Arg::Long("bind") => bind = value("bind", &mut parser)?,
                Arg::Long("interface") => interface = Some(parser.value()?.string()?),
                Arg::Long("subnet") => subnet = Some(value("subnet", &mut parser)?),
                Arg::Long("pool") => pool = Some(value::<Range<A>>("pool", &mut parser)?.0),
                Arg::Long("valid-lifetime") => {
                    valid_lifetime = Lifetime(value("valid-lifetime", &mut parser)?);
                }
                Arg::Long("threads") => threads = value("threads", &mut parser)?,
                Arg::Long("control-socket") => channels.sockets.push(parser.value()?.string()?),
                Arg::Long("control-http") => channels.addresses.push(value("control-http", &mut parser)?),
                Arg::Long("allocator") => strategy = Some(value("allocator", &mut parser)?),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    if !own(&name, &mut parser)? {
                        return Err(Arg::Long(&name).unexpected().into());
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let subnet: Subnet<A> = subnet.ok_or("--subnet is missing")?;
        let pool = pool.map_or_else(|| subnet.hosts(), Ok)?;
        if !subnet.contains(pool.first()) || !subnet.contains(pool.last()) {
            return Err(format!("the pool {pool} is not in the subnet {subnet}").into());
        }
        if valid_lifetime.0 == 0 || threads == 0 {
            return Err("--valid-lifetime and --threads must be at least 1".into());
        }
        let connection = connection.ok_or("the connection string is missing")?;
        Ok(Self { connection, bind, interface, subnet, pool, valid_lifetime, threads, channels, strategy })
    }
}

/// Returns the value of the option of this name, which the parser has just read.
pub(crate) fn value<T>(name: &str, parser: &mut Parser) -> Outcome<T>
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>>,
{
    Ok(parser.value()?.parse().map_err(|error| format!("--{name}: {error}"))?)
}

/// A subnet: a prefix and its length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet<A> {
    pub(crate) prefix: A,
    pub(crate) len: u8,
}

impl<A: PoolAddress> Subnet<A> {
    pub(crate) fn contains(&self, address: A) -> bool {
        (address.to_bits() ^ self.prefix.to_bits()) & self.mask_bits() == 0
    }

    /// Returns a mask with the bits of the prefix set.
    pub(crate) fn mask_bits(&self) -> u128 {
        Self::all_bits() ^ self.host_bits()
    }

    /// Returns a mask with the host bits set.
    fn host_bits(&self) -> u128 {
        Self::all_bits().checked_shr(self.len.into()).filter(|_| u32::from(self.len) < A::BITS).unwrap_or(0)
    }

    fn all_bits() -> u128 {
        u128::MAX >> (128 - A::BITS)
    }

    /// Returns all addresses but the first and the last: in IPv4 these are no host addresses, and
    /// in IPv6 they include the anycast address of the routers (RFC 4291 section 2.6.1).
    fn hosts(&self) -> Outcome<Pool<A>> {
        let (first, last) = (self.prefix.to_bits(), self.prefix.to_bits() | self.host_bits());
        if last - first < 3 {
            return Err(format!("the subnet {self} is too small to do without --pool").into());
        }
        Ok(Pool::new(A::from_bits(first + 1), A::from_bits(last - 1))?)
    }
}

impl<A: PoolAddress + FromStr<Err: Error + Send + Sync>> FromStr for Subnet<A> {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, len) = text.split_once('/').ok_or("expected PREFIX/LENGTH")?;
        let subnet = Self { prefix: prefix.trim().parse()?, len: len.trim().parse()? };
        if u32::from(subnet.len) > A::BITS {
            return Err(format!("a prefix has at most {} bits", A::BITS).into());
        }
        if subnet.prefix.to_bits() & subnet.host_bits() != 0 {
            return Err(format!("{} has more bits than {}", subnet.prefix, subnet.len).into());
        }
        Ok(subnet)
    }
}

impl<A: PoolAddress> fmt::Display for Subnet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.len)
    }
}

/// A pool, written as its first and last address.
struct Range<A>(Pool<A>);

impl<A: PoolAddress + FromStr<Err: Error + Send + Sync>> FromStr for Range<A> {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').ok_or("expected FIRST-LAST")?;
        Ok(Self(Pool::new(first.trim().parse()?, last.trim().parse()?)?))
    }
}
