//! Parsing of DHCPv4 requests and encoding of replies.

use std::fmt;
use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::borrowed::{DhcpOptionIterator, Message as Received};
use dhcproto::v4::{DhcpOption, Flags, MAGIC, Message, MessageType, Opcode, OptionCode, UnknownOption};
use leasemgr::lease::{ClientId, Hostname, HwAddr, HwType};

/// Length of a message without options, up to the end of the magic cookie, in bytes.
const HEADER_LEN: usize = 240;
/// Maximum length of a hardware address in a message, in bytes.
const CHADDR_LEN: usize = 16;
/// Minimum length of a BOOTP message, in bytes (RFC 1542 section 2.1).
const MIN_LEN: usize = 300;
/// The sub-option that names the link of the client if `giaddr` does not (RFC 3527).
const LINK_SELECTION: u8 = 5;

/// The identity of a client to which addresses are offered: its client id or, without one, its
/// hardware address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    Id(ClientId),
    HwAddr(HwAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "client id {id}"),
            Self::HwAddr(hwaddr) => write!(f, "hardware address {hwaddr}"),
        }
    }
}

/// The parts of a client's message that this server reads.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) kind: MessageType,
    header: Received<'a>,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) hwaddr: Option<HwAddr>,
    pub(crate) client_id: Option<ClientId>,
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server_id: Option<Ipv4Addr>,
    pub(crate) hostname: Hostname,
    /// The sub-options of the Relay Agent Information option (RFC 3046), byte for byte.
    pub(crate) relay_agent_info: Option<Vec<u8>>,
    /// The client identifier, byte for byte, also if it is too short to be valid.
    raw_client_id: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    /// Parses a message. Returns `None` if it is no DHCP request or does not identify a client.
    pub(crate) fn decode(message: &'a [u8]) -> Option<Self> {
        let header = Received::new(message).ok()?;
        if header.opcode() != Opcode::BootRequest
            || usize::from(header.hlen()) > CHADDR_LEN
            || message.get(HEADER_LEN - MAGIC.len()..HEADER_LEN)? != MAGIC
        {
            return None;
        }
        let options = Options::read(message)?;
        let mut hwaddr = HwAddr::new(header.chaddr()).ok();
        if let Some(hwaddr) = &mut hwaddr {
            hwaddr.htype = HwType(u8::from(header.htype()).into());
        }
        let client_id = options.get(OptionCode::ClientIdentifier).and_then(|id| ClientId::new(id).ok());
        if hwaddr.is_none() && client_id.is_none() {
            return None;
        }
        let &[kind] = options.get(OptionCode::MessageType)? else {
            return None;
        };
        Some(Self {
            kind: kind.into(),
            ciaddr: header.ciaddr(),
            giaddr: header.giaddr(),
            hwaddr,
            client_id,
            requested: options.address(OptionCode::RequestedIpAddress),
            server_id: options.address(OptionCode::ServerIdentifier),
            hostname: Hostname::new(options.get(OptionCode::Hostname).unwrap_or_default()),
            relay_agent_info: options.get(OptionCode::RelayAgentInformation).map(<[u8]>::to_vec),
            raw_client_id: options.get(OptionCode::ClientIdentifier).map(<[u8]>::to_vec),
            header,
        })
    }

    /// Returns the client that has sent the message.
    pub(crate) fn client(&self) -> Option<Client> {
        let id = self.client_id.clone().map(Client::Id);
        id.or_else(|| self.hwaddr.clone().map(Client::HwAddr))
    }

    /// Returns an address of the client's link, if a relay agent names one; `None` if the client is
    /// on the server's link.
    pub(crate) fn link(&self) -> Option<Ipv4Addr> {
        let selected = self.relay_agent_info.as_deref().and_then(|info| sub_option(info, LINK_SELECTION));
        let selected = selected.and_then(|address| <[u8; 4]>::try_from(address).ok()).map(Ipv4Addr::from);
        selected.or_else(|| (!self.giaddr.is_unspecified()).then_some(self.giaddr))
    }
}

/// Returns the value of a sub-option.
fn sub_option(mut options: &[u8], code: u8) -> Option<&[u8]> {
    while let [this, len, rest @ ..] = options {
        let (value, rest) = rest.split_at_checked((*len).into())?;
        if *this == code {
            return Some(value);
        }
        options = rest;
    }
    None
}

/// The options of a message. Parts of a split option are joined (RFC 3396).
struct Options(Vec<(OptionCode, Vec<u8>)>);

impl Options {
    fn read(message: &[u8]) -> Option<Self> {
        let mut options = Self(Vec::new());
        options.add(message.get(HEADER_LEN..)?);
        // Options that do not fit continue in the fields of the file and the server name (RFC 2132
        // section 9.3).
        let more = options.get(OptionCode::OptionOverload).and_then(|value| value.first().copied());
        if more.is_some_and(|more| more & 1 != 0) {
            options.add(message.get(108..236)?);
        }
        if more.is_some_and(|more| more & 2 != 0) {
            options.add(message.get(44..108)?);
        }
        Some(options)
    }

    fn add(&mut self, field: &[u8]) {
        for option in DhcpOptionIterator::new(field) {
            match self.0.iter_mut().find(|(code, _)| *code == option.code()) {
                Some((_, value)) => value.extend_from_slice(option.data()),
                None => self.0.push((option.code(), option.data().to_vec())),
            }
        }
    }

    fn get(&self, code: OptionCode) -> Option<&[u8]> {
        self.0.iter().find(|(this, _)| *this == code).map(|(_, value)| value.as_slice())
    }

    fn address(&self, code: OptionCode) -> Option<Ipv4Addr> {
        Some(<[u8; 4]>::try_from(self.get(code)?).ok()?.into())
    }
}

/// The parts of a reply that are not copied from the request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: MessageType,
    pub(crate) yiaddr: Ipv4Addr,
    /// The options other than the message type, the server identifier, and copied ones.
    pub(crate) options: Vec<DhcpOption>,
}

impl Reply {
    /// Returns the bytes of the reply to a request (RFC 2131 table 3), including the client
    /// identifier (RFC 6842) and the Relay Agent Information (RFC 3046 section 2.2).
    pub(crate) fn encode(
        self,
        request: &Request<'_>,
        server_id: Ipv4Addr,
    ) -> Result<Vec<u8>, dhcproto::v4::EncodeError> {
        let is_nak = self.kind == MessageType::Nak;
        // The relay agent can reach the client in no other way (section 4.3.2).
        let must_broadcast = is_nak && !request.giaddr.is_unspecified();
        let flags = request.header.flags();
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootReply)
            .set_htype(request.header.htype())
            .set_chaddr(request.header.chaddr())
            .set_xid(request.header.xid())
            .set_flags(if must_broadcast { flags.set_broadcast() } else { Flags::new(flags.into()) })
            .set_yiaddr(self.yiaddr)
            .set_giaddr(request.giaddr);
        if self.kind == MessageType::Ack {
            message.set_ciaddr(request.ciaddr);
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(self.kind));
        options.insert(DhcpOption::ServerIdentifier(server_id));
        for option in self.options {
            options.insert(option);
        }
        if let Some(id) = &request.raw_client_id {
            options.insert(DhcpOption::ClientIdentifier(id.clone()));
        }
        if let Some(info) = &request.relay_agent_info {
            let option = UnknownOption::new(OptionCode::RelayAgentInformation, info.clone());
            options.insert(DhcpOption::Unknown(option));
        }
        let mut bytes = message.to_vec()?;
        if bytes.len() < MIN_LEN {
            bytes.resize(MIN_LEN, 0);
        }
        Ok(bytes)
    }
}
