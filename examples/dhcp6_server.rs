//! A small DHCPv6 server (RFC 8415) that stores its leases in a lease manager.
//!
//! ```text
//! dhcp6_server CONNECTION-STRING --subnet CIDR [--pool FIRST-LAST] [--pd-pool PREFIX/LEN/DELEGATED]
//!     [--bind ADDR:PORT] [--interface NAME] [--valid-lifetime SECONDS] [--threads N]
//!     [--allocator random|iterative|free-list|lowest-first] [--server-id HEX]
//!     [--control-socket PATH]... [--control-http ADDR:PORT]...
//! ```
//!
//! For example: `dhcp6_server 'type=memfile universe=6 name=/var/lib/dhcp/leases6.csv' --interface eth1
//! --subnet 2001:db8::/64 --pd-pool 2001:db8:8000::/33/64`
//!
//! The connection string may be that of a database (`type=postgresql ...`, `type=mysql ...`), if the
//! example is built with the features `postgresql` and `mysql`. Servers of Kea may use the same
//! database and the same pool.
//!
//! It serves one link, and must be the only server on it. It answers Solicit (immediately with a
//! lease, if the client requests Rapid Commit), Request, Renew, Rebind, Release, Decline, Confirm
//! and Information-request, with an address for each IA_NA and a prefix for each IA_PD, also
//! through relay agents, whose information is stored in the leases as Kea's servers do.
//!
//! * `--interface` is the link whose clients are served directly, at the multicast address
//!   ff02::1:2 and port 547. Without it, the server only serves clients of relay agents that send
//!   to its unicast address.
//! * `--bind` is the address to which relay agents send, by default every address of the host, and
//!   port 547. With an interface, they may also send to ff05::1:3 on that link.
//! * `--subnet` contains the addresses of the link. A client's addresses outside of it are
//!   withdrawn. Relay agents name the link of a client; clients of other links get no reply.
//! * `--pool` contains the addresses that are assigned, by default all of the subnet.
//! * `--pd-pool`: prefixes of `DELEGATED` bits are delegated from `PREFIX/LEN`; by default there
//!   are none. That length must not be changed while prefixes are leased: otherwise overlapping
//!   prefixes could be leased.
//! * `--threads` is the number of threads for the relay agents' socket, and for the link's socket;
//!   2 by default.
//! * `--valid-lifetime` is 3600 by default; 4294967295 is infinite. The preferred lifetime is 5/8
//!   of it.
//! * `--server-id` is the server's DUID. By default a random one is created when the server runs
//!   for the first time, and is stored beside the lease file. With a database it must be given: after
//!   a restart with another one, clients would have to look for a server.
//! * `--control-socket` and `--control-http`, each as often as needed, are UNIX sockets and addresses
//!   on which Kea's commands are answered (`docs/commands.md`), and `shutdown`. HTTP has neither users
//!   nor encryption here: any client that reaches the address can change leases. Both need a build with the
//!   features `commands` and `control`.
//!
//! Declined addresses are not used for a day. Expired leases are reclaimed, and kept for an hour
//! for their clients to return. The server ends with SIGTERM or SIGINT, when all acknowledged
//! changes are durable.
//!
//! Not supported: options that configure clients (DNS servers and others), names of clients and DNS
//! updates, temporary addresses (the reply says that there are none), more than one link or server,
//! Reconfigure, authentication, leasequery, the Server Unicast option.

#![allow(clippy::print_stderr, reason = "a program's own reports")]

mod dhcp6;
mod server;

use std::error::Error;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;

use dhcp6::{Arrival, Bindings, Server6, server_id};
use dhcproto::v6::SERVER_PORT;
use leasemgr::allocator::Pool;
use leasemgr::lease::Lease6;
use server::{Answer, Control, Listener, Options, Outcome, Served, now, value};

const USAGE: &str = "\
usage: dhcp6_server CONNECTION-STRING --subnet CIDR [--pool FIRST-LAST] [--pd-pool PREFIX/LEN/DELEGATED]
           [--bind ADDR:PORT] [--interface NAME] [--valid-lifetime SECONDS] [--threads N]
           [--allocator random|iterative|free-list|lowest-first] [--server-id HEX]
           [--control-socket PATH]... [--control-http ADDR:PORT]...";

/// All_DHCP_Relay_Agents_and_Servers, to which clients send (RFC 8415 section 7.1).
const RELAYS_AND_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// All_DHCP_Servers, to which relay agents may send.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

fn main() -> ExitCode {
    server::exit("dhcp6_server", run)
}

fn run() -> Outcome {
    let (mut prefixes, mut server_id) = (None, None);
    let bind = SocketAddr::from((Ipv6Addr::UNSPECIFIED, SERVER_PORT));
    let options = Options::<Ipv6Addr>::parse(USAGE, bind, |option, parser| {
        match option {
            "pd-pool" => prefixes = Some(value::<Delegation>(option, parser)?.0),
            "server-id" => server_id = Some(server_id::parse(&value::<String>(option, parser)?)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let leases = server::open::<Lease6>(&options.connection)?;
    let server_id = match server_id {
        Some(given) => given,
        None if leases.is_shared() => {
            return Err("--server-id is missing: there is no lease file to keep it beside".into());
        }
        None => server_id::kept_beside(leases.status().lease_file.as_deref())?,
    };
    let strategy = options.strategy(leases.as_ref());
    let bindings = Bindings::new(
        leases.clone(),
        options.subnet,
        options.pool,
        prefixes,
        strategy,
        options.valid_lifetime,
    )?;
    let preferred_lifetime = Some(bindings.lifetimes.preferred);
    let control =
        Control::start(&Served { options: &options, leases: &leases, prefixes, preferred_lifetime })?;
    let server = Server6 { server_id, bindings };

    let unicast = server::socket(options.bind, options.interface.as_deref())?;
    let multicast = match &options.interface {
        Some(interface) => Some(join(&unicast, options.bind, interface)?),
        None => None,
    };
    let answer = |message: &[u8], from: SocketAddr, is_multicast| -> Answer {
        let SocketAddr::V6(peer) = from else {
            return Ok(None);
        };
        let answer = server.handle(message, Arrival { peer, is_multicast }, now())?;
        Ok(answer.map(|(bytes, to)| (bytes, to.into())))
    };
    let from_unicast = |message: &[u8], from| answer(message, from, false);
    let from_multicast = |message: &[u8], from| answer(message, from, true);
    let mut listeners = vec![Listener { socket: &unicast, handle: &from_unicast }];
    if let Some(socket) = &multicast {
        listeners.push(Listener { socket, handle: &from_multicast });
    }
    server::serve(&leases, &listeners, options.threads, control)
}

/// Opens a second socket, for messages that clients of the link send to all servers: a client must
/// not send some messages to the server's own address, and a single socket could not tell them
/// apart. The first socket receives messages of relay agents to all servers.
fn join(unicast: &UdpSocket, bind: SocketAddr, interface: &str) -> Outcome<UdpSocket> {
    let joined = || -> Outcome<UdpSocket> {
        // Resolving an address with a zone is the portable way to the index of an interface.
        let zone = (format!("{RELAYS_AND_SERVERS}%{interface}"), bind.port()).to_socket_addrs()?;
        let group =
            zone.filter_map(|address| if let SocketAddr::V6(v6) = address { Some(v6) } else { None }).next();
        let group = group.filter(|group| group.scope_id() != 0).ok_or("there is no such interface")?;
        let multicast = server::socket(group.into(), Some(interface))?;
        multicast.join_multicast_v6(&RELAYS_AND_SERVERS, group.scope_id())?;
        unicast.join_multicast_v6(&SERVERS, group.scope_id())?;
        Ok(multicast)
    };
    joined().map_err(|error| format!("{interface}: {error}").into())
}

/// A pool of prefixes, written as `PREFIX/LEN/DELEGATED`.
struct Delegation(Pool<Ipv6Addr>);

impl FromStr for Delegation {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/').map(str::trim);
        let (Some(prefix), Some(len), Some(delegated_len), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("expected PREFIX/LEN/DELEGATED".into());
        };
        Ok(Self(Pool::prefixes(prefix.parse()?, len.parse()?, delegated_len.parse()?)?))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2001:db8:8000::/33/64", Some((33, 64)))]
    #[case("2001:db8:8000::/64/64", Some((64, 64)))]
    #[case("2001:db8:8000::/64", None)]
    #[case("2001:db8:8000::/33/64/64", None)]
    #[case("2001:db8:8000::/33/32", None)]
    #[case("2001:db8:8000::1/33/64", None)]
    #[case("10.0.0.0/8/24", None)]
    #[case("2001:db8:8000::/33/129", None)]
    fn a_pool_of_prefixes_has_three_parts(#[case] text: &str, #[case] lens: Option<(u8, u8)>) {
        let pool = text.parse::<Delegation>().ok().map(|delegation| delegation.0);
        let prefix = "2001:db8:8000::".parse().unwrap();
        let expected = lens.map(|(len, delegated)| Pool::prefixes(prefix, len, delegated).unwrap());
        assert_eq!(pool, expected);
    }
}
