//! A small DHCPv4 server (RFC 2131) that stores its leases in a lease manager.
//!
//! ```text
//! dhcp4_server CONNECTION-STRING --subnet CIDR [--pool FIRST-LAST] [--bind ADDR:PORT] [--interface NAME]
//!     [--valid-lifetime SECONDS] [--threads N] [--allocator random|iterative|free-list|lowest-first] [--server-id ADDR]
//!     [--control-socket PATH]... [--control-http ADDR:PORT]...
//! ```
//!
//! For example: `dhcp4_server 'type=memfile name=/var/lib/dhcp/leases4.csv' --interface eth1 --subnet 192.0.2.0/24
//! --pool 192.0.2.10-192.0.2.99`
//!
//! The connection string may be that of a database (`type=postgresql ...`, `type=mysql ...`), if the
//! example is built with the features `postgresql` and `mysql`. Servers of Kea may use the same
//! database and the same pool. While the database cannot be reached, clients get no answers.
//!
//! It serves one subnet. It answers Discover, Request, Decline, Release and Inform, of clients on
//! its own link and, through relay agents, on others; the relay agents' information (option 82) is
//! sent back, and stored in the lease as Kea's servers do. Clients are identified by client
//! identifier or, without one, by hardware address. The reply contains an address, the subnet mask,
//! the lease time, T1 and T2.
//!
//! * `--interface` is the link whose clients are served directly. Without it, the routing table
//!   determines where replies are broadcast.
//! * `--bind` is by default every address of the host, and port 67. Bound to one address, the
//!   server receives no broadcasts, and so only serves clients of relay agents.
//! * `--pool` contains the addresses that are assigned, by default all of the subnet but the first,
//!   the last and the server's own.
//! * `--valid-lifetime` is 3600 by default; 4294967295 is infinite.
//! * `--threads` is 2 by default, and `--allocator` is `free-list`, which finds an address in
//!   constant time in a full pool; with a database it is `random`, which tries one address after the
//!   other.
//! * `--server-id` is the server identifier, an address of the server; by default its address in
//!   the subnet.
//! * `--control-socket` and `--control-http`, each as often as needed, are UNIX sockets and addresses
//!   on which Kea's commands are answered (`docs/commands.md`), and `shutdown`. HTTP has neither users
//!   nor encryption here: any client that reaches the address can change leases. Both need a build with the
//!   features `commands` and `control`.
//!
//! An offered address is reserved for its client for ten seconds. Declined addresses are not used
//! for a day. Expired and released leases are kept for an hour for their clients to return, unless
//! no other address is free. The server ends with SIGTERM or SIGINT, when all acknowledged changes
//! are durable.
//!
//! Not supported:
//! * Replies by unicast to clients that have no address; they are broadcast, as RFC 2131 section
//!   4.1 allows where unicast is not possible: it requires raw sockets to reach a client before it
//!   can answer ARP.
//! * Probing of addresses before they are offered (section 2.2); clients are expected to do so.
//! * Lease times that clients request, options that configure clients (routers, DNS servers and
//!   others), the client's maximum message size, DNS updates. The hostname in option 12 is stored
//!   in the lease.
//! * Server identifier override (RFC 5107) and source port (RFC 8357) of relay agents.
//! * BOOTP clients, Rapid Commit (RFC 4039), authentication, forced renewal, leasequery.

#![allow(clippy::print_stderr, reason = "a program's own reports")]

mod dhcp4;
mod server;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhcp4::{Clock, Server4};
use dhcproto::v4::SERVER_PORT;
use leasemgr::allocator::Allocator;
use leasemgr::lease::Lease4;
use server::{Control, Listener, Options, Outcome, Served, now, value};

const USAGE: &str = "\
usage: dhcp4_server CONNECTION-STRING --subnet CIDR [--pool FIRST-LAST] [--bind ADDR:PORT] [--interface NAME]
           [--valid-lifetime SECONDS] [--threads N] [--allocator random|iterative|free-list|lowest-first] [--server-id ADDR]
           [--control-socket PATH]... [--control-http ADDR:PORT]...";

/// Time for which an offered address is reserved. A client sends its request within seconds (RFC
/// 2131 section 4.4.1).
const OFFER_TIME: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    server::exit("dhcp4_server", run)
}

fn run() -> Outcome {
    let mut server_id = None;
    let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT));
    let options = Options::<Ipv4Addr>::parse(USAGE, bind, |option, parser| match option {
        "server-id" => {
            server_id = Some(value(option, parser)?);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    let SocketAddr::V4(bind) = options.bind else {
        return Err(format!("--bind {}: expected an IPv4 address and a port", options.bind).into());
    };
    let socket = server::socket(options.bind, options.interface.as_deref())?;
    let server_id = match server_id {
        Some(server_id) => server_id,
        None if !bind.ip().is_unspecified() => *bind.ip(),
        None => own_address(options.pool.first(), options.interface.as_deref())?,
    };

    let leases = server::open::<Lease4>(&options.connection)?;
    let control = Control::start(&Served {
        options: &options,
        leases: &leases,
        prefixes: None,
        preferred_lifetime: None,
    })?;
    let strategy = options.strategy(leases.as_ref());
    let allocator = Arc::new(Allocator::new(options.pool, strategy, OFFER_TIME));
    allocator.follow(&leases)?;
    allocator.exclude(server_id..=server_id);
    let server = Server4 {
        leases: Arc::clone(&leases),
        allocator,
        subnet: options.subnet,
        server_id,
        valid_lifetime: options.valid_lifetime,
    };
    let handle = |message: &[u8], _| server.answer(message, Clock { epoch: now(), instant: Instant::now() });
    server::serve(&leases, &[Listener { socket: &socket, handle: &handle }], options.threads, control)
}

/// Returns the address that the server has on the way to `peer`.
fn own_address(peer: Ipv4Addr, interface: Option<&str>) -> Outcome<Ipv4Addr> {
    // Nothing is sent: connecting a UDP socket only looks up the route.
    let local_address = || -> Outcome<SocketAddr> {
        let socket: UdpSocket = server::socket((Ipv4Addr::UNSPECIFIED, 0).into(), interface)?;
        socket.connect((peer, SERVER_PORT))?;
        Ok(socket.local_addr()?)
    };
    match local_address() {
        Ok(SocketAddr::V4(own)) if !own.ip().is_unspecified() => Ok(*own.ip()),
        Ok(_) => Err("the server's address in the subnet is not known, give --server-id".into()),
        Err(error) => {
            Err(format!("the server's address in the subnet is not known, give --server-id: {error}").into())
        }
    }
}
