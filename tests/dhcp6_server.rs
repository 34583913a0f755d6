//! The example `dhcp6_server` as a process: a relay agent on the loopback interface sends messages
//! while the server is killed and restarted.
//!
//! No privileges are needed: the server is bound to an unprivileged port, and replies to the relay
//! agent's port (RFC 8357).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Encodable};
use leasemgr::lease::{Lease6, LeaseState};
use leasemgr::lease_file::LeaseFileSet;
use rustix::process::{Pid, Signal, kill_process};

const CLIENTS: u8 = 50;
/// Maximum time to wait for anything.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A running server.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    relay: UdpSocket,
}

impl Server {
    /// Starts a server on this lease file, with one address for each client.
    fn start(file: &Path) -> Self {
        let own = std::env::current_exe().unwrap();
        let program = own.parent().and_then(Path::parent).unwrap().join("examples/dhcp6_server");
        assert!(program.exists(), "{}: build it with cargo build --example dhcp6_server", program.display());
        let mut child = Command::new(program)
            .arg(format!("type=memfile universe=6 name={}", file.display()))
            .args(["--bind", "[::1]:0", "--subnet", "2001:db8::/64", "--pool", "2001:db8::1-2001:db8::32"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let place = line.strip_prefix("listening on ").and_then(|rest| rest.split_once(", "));
        let address: SocketAddr = place.unwrap_or_else(|| panic!("{line}")).0.parse().unwrap();
        let relay = UdpSocket::bind("[::1]:0").unwrap();
        relay.connect(address).unwrap();
        relay.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { child, stderr, relay }
    }

    /// Relays a message. Returns the server identifier of the reply, and the address with its valid
    /// lifetime.
    fn ask(&self, message: &Message) -> (Vec<u8>, Option<(Ipv6Addr, u32)>) {
        let message = message.to_vec().unwrap();
        // The relay agent gives no link address, and uses a port of its own.
        let mut packet = vec![0; 34];
        packet[0] = 12;
        packet.extend([0, 135, 0, 2, 0, 0]);
        packet.extend([0, 9, 0, u8::try_from(message.len()).unwrap()]);
        packet.extend(message);
        self.relay.send(&packet).unwrap();

        let mut buffer = [0; 1500];
        let len = self.relay.recv(&mut buffer).unwrap();
        assert_eq!((buffer[0], &buffer[34..42]), (13, &[0, 135, 0, 2, 0, 0, 0, 9][..]));
        let reply = Message::from_bytes(&buffer[44..len]).unwrap();
        assert_eq!(reply.msg_type(), MessageType::Reply);
        let Some(DhcpOption::ServerId(server)) = reply.opts().get(OptionCode::ServerId) else {
            panic!("{reply}");
        };
        let leased = reply.opts().get(OptionCode::IANA).and_then(|option| match option {
            DhcpOption::IANA(ia) => ia.opts.get(OptionCode::IAAddr),
            _ => None,
        });
        let leased = leased.map(|option| match option {
            DhcpOption::IAAddr(address) => (address.addr, address.valid_life),
            other => panic!("{other:?}"),
        });
        (server.clone(), leased)
    }

    /// Ends the server with a signal.
    fn end(mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        let rest: Vec<_> = self.stderr.lines().map(Result::unwrap).collect();
        assert_eq!(rest.len(), usize::from(status.success()), "{rest:?}");
        status
    }
}

/// Returns a client's message, to one server or to all, with the address that it names.
fn message(kind: MessageType, client: u8, server: Option<&[u8]>, address: Option<Ipv6Addr>) -> Message {
    let named = address.map(|addr| {
        DhcpOption::IAAddr(IAAddr { addr, preferred_life: 0, valid_life: 0, opts: DhcpOptions::new() })
    });
    let options = [
        DhcpOption::ClientId(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, client]),
        DhcpOption::RapidCommit,
        DhcpOption::IANA(IANA { id: 1, t1: 0, t2: 0, opts: named.into_iter().collect() }),
    ];
    let mut message = Message::new(kind);
    message.set_opts(options.into_iter().chain(server.map(|id| DhcpOption::ServerId(id.to_vec()))).collect());
    message
}

#[test]
fn clients_keep_their_addresses_when_the_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leases6.csv");

    let server = Server::start(&file);
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
    let server = Server::start(&file);
    for (&address, &client) in &leased {
        let renewed = server.ask(&message(MessageType::Renew, client, Some(&id), Some(address)));
        assert_eq!(renewed, (id.clone(), Some((address, 3600))));
    }
    assert_eq!(server.ask(&message(MessageType::Solicit, CLIENTS, None, None)).1, None);
    let (&given_back, &client) = leased.first_key_value().unwrap();
    server.ask(&message(MessageType::Release, client, Some(&id), Some(given_back)));
    assert!(server.end(Signal::TERM).success());

    let server = Server::start(&file);
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
