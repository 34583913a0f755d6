//! The example `dhcp6_server` as a process: a relay agent on the loopback interface sends messages
//! while the server is killed and restarted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/dhcp_servers.rs"]
mod dhcp_servers;

use std::collections::BTreeMap;
use std::path::Path;

use dhcp_servers::{Server, message};
use dhcproto::v6::MessageType;
use leasemgr::lease::{Lease6, LeaseState};
use leasemgr::lease_file::LeaseFileSet;
use rustix::process::Signal;

const CLIENTS: u8 = 50;

/// Starts a server on this lease file, with one address for each client.
fn start(file: &Path) -> Server {
    let connection = format!("type=memfile universe=6 name={}", file.display());
    let options = ["--bind", "[::1]:0", "--subnet", "2001:db8::/64", "--pool", "2001:db8::1-2001:db8::32"];
    let server = Server::start("dhcp6_server", &[&[connection.as_str()], &options[..]].concat());
    assert_eq!(server.lines, [""; 0]);
    server
}

#[test]
fn clients_keep_their_addresses_when_the_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leases6.csv");

    let server = start(&file);
    let mut id = None;
    let mut leased = BTreeMap::new();
    for client in 0..CLIENTS {
        let (server_id, lease) = server.ask(&message(MessageType::Solicit, client, None, None));
        assert_eq!(id.get_or_insert_with(|| server_id.clone()), &server_id);
        let (address, valid) = lease.unwrap();
        assert_eq!(valid, 3600);
        assert_eq!(leased.insert(address, client), None, "{address} is assigned to two clients");
    }
    let id = id.unwrap();
    // The pool is exhausted.
    assert_eq!(server.ask(&message(MessageType::Solicit, CLIENTS, None, None)).1, None);
    assert!(!server.end(Signal::KILL).success());

    // The same server identifier, for the same clients.
    let server = start(&file);
    for (&address, &client) in &leased {
        let renewed = server.ask(&message(MessageType::Renew, client, Some(&id), Some(address)));
        assert_eq!(renewed, (id.clone(), Some((address, 3600))));
    }
    assert_eq!(server.ask(&message(MessageType::Solicit, CLIENTS, None, None)).1, None);
    let (&given_back, &client) = leased.first_key_value().unwrap();
    server.ask(&message(MessageType::Release, client, Some(&id), Some(given_back)));
    assert!(server.end(Signal::TERM).success());

    let server = start(&file);
    let (_, lease) = server.ask(&message(MessageType::Solicit, CLIENTS, None, None));
    assert_eq!(lease, Some((given_back, 3600)));
    leased.insert(given_back, CLIENTS);
    assert!(server.end(Signal::INT).success());

    let kept = LeaseFileSet::new(&file).read::<Lease6>().unwrap().leases;
    let kept = kept.into_iter().map(|(address, lease)| {
        assert_eq!(lease.state(), LeaseState::DEFAULT);
        (address, lease.duid().as_bytes()[9])
    });
    assert_eq!(kept.collect::<BTreeMap<_, _>>(), leased);
}
