//! The example servers as processes, and a relay agent on the loopback interface.
//!
//! No privileges are needed: the server is bound to an unprivileged port and, for DHCPv6, replies to the
//! relay agent's port (RFC 8357).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a part of tests")]

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Encodable};
use rustix::process::{Pid, Signal, kill_process};

/// Maximum time to wait for anything.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);

/// A running server, which is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    pub(crate) relay: UdpSocket,
    /// The lines before the one that says where it listens.
    pub(crate) lines: Vec<String>,
}

impl Server {
    /// Starts an example with these arguments.
    pub(crate) fn start(example: &str, arguments: &[&str]) -> Self {
        let own = std::env::current_exe().unwrap();
        let program = own.parent().and_then(Path::parent).unwrap().join("examples").join(example);
        assert!(program.exists(), "{}: build it with cargo build --example {example}", program.display());
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut lines = Vec::new();
        let address: SocketAddr = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "{example} has ended: {lines:?}");
            match line.strip_prefix("listening on ").and_then(|rest| rest.split_once(", ")) {
                Some((address, _)) => break address.parse().unwrap(),
                None => lines.push(line.trim_end().to_owned()),
            }
        };
        let local: IpAddr =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
        let relay = UdpSocket::bind((local, 0)).unwrap();
        relay.connect(address).unwrap();
        relay.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { child, stderr, relay, lines }
    }

    /// Relays a message of DHCPv6.
    pub(crate) fn send(&self, message: &Message) {
        let message = message.to_vec().unwrap();
        // The relay agent gives no link address, and uses a port of its own.
        let mut packet = vec![0; 34];
        packet[0] = 12;
        packet.extend([0, 135, 0, 2, 0, 0]);
        packet.extend([0, 9, 0, u8::try_from(message.len()).unwrap()]);
        packet.extend(message);
        self.relay.send(&packet).unwrap();
    }

    /// Relays a message of DHCPv6. Returns the server identifier of the reply, and the address with its
    /// valid lifetime.
    pub(crate) fn ask(&self, message: &Message) -> (Vec<u8>, Option<(Ipv6Addr, u32)>) {
        self.send(message);
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
    pub(crate) fn end(mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.ended()
    }

    /// Waits until the server has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let rest: Vec<_> = self.stderr.by_ref().lines().map(Result::unwrap).collect();
        assert_eq!(rest.len(), usize::from(status.success()), "{rest:?}");
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if the server has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a client's message, to one server or to all, with the address that it names.
pub(crate) fn message(
    kind: MessageType,
    client: u8,
    server: Option<&[u8]>,
    address: Option<Ipv6Addr>,
) -> Message {
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
