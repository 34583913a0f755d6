//! DHCPv6 messages as bytes (RFC 8415 sections 8, 9 and 21).
//!
//! Options are split here, and `dhcproto` only decodes those that the server knows: its decoder
//! ends silently at the first option that it cannot decode, takes the content of a Relay Message
//! option for another relay message, and follows nested options to any depth, which the sender of a
//! packet could exploit.

use std::net::Ipv6Addr;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, IATA, Message, MessageType, OptionCode,
};
use dhcproto::{Decodable, Encodable};
use leasemgr::lease::{Iaid, LeaseType, Relayed};

/// Maximum number of relay agents between client and server (RFC 3315 section 5.5; 8 in RFC 8415).
const RELAYS_MAX: usize = 32;
/// Maximum number of identity associations in a message.
const IAS_MAX: usize = 32;
/// Length of the header of a relay message: type, hop count, link address, peer address.
const RELAY_HEADER: usize = 34;
/// The Relay Source Port option (RFC 8357).
const RELAY_SOURCE_PORT: u16 = 135;

/// What a relay agent has added to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relay<'p> {
    pub(crate) hop_count: u8,
    /// An address of the client's link.
    pub(crate) link: Ipv6Addr,
    pub(crate) peer: Ipv6Addr,
    /// All options but the Relay Message option, as code and value, in order.
    pub(crate) options: Vec<(u16, &'p [u8])>,
}

impl<'p> Relay<'p> {
    pub(crate) fn option(&self, code: OptionCode) -> Option<&'p [u8]> {
        let code = u16::from(code);
        self.options.iter().find(|option| option.0 == code).map(|option| option.1)
    }

    /// Returns the information that is stored with a lease.
    pub(crate) fn to_kept(&self) -> Relayed {
        let mut options = Vec::new();
        for &(code, value) in &self.options {
            // The options come from a message, so none is too long.
            let _ = put_option(&mut options, code.into(), value);
        }
        Relayed { hop_count: self.hop_count, link: self.link, peer: self.peer, options }
    }
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'p> {
    pub(crate) kind: MessageType,
    pub(crate) xid: [u8; 3],
    pub(crate) client_id: Option<&'p [u8]>,
    pub(crate) server_id: Option<&'p [u8]>,
    pub(crate) rapid_commit: bool,
    pub(crate) ias: Vec<Ia>,
}

/// An identity association of a client (RFC 8415 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ia {
    /// IA_NA, IA_TA or IA_PD.
    pub(crate) lease_type: LeaseType,
    pub(crate) iaid: Iaid,
    /// The addresses or prefixes that the client names.
    pub(crate) named: Vec<Prefix>,
}

/// An address, which has a length of 128 bits, or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: Ipv6Addr,
    pub(crate) len: u8,
}

/// A client's message, and the relay agents that have forwarded it: the one next to the server
/// first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'p> {
    pub(crate) relays: Vec<Relay<'p>>,
    pub(crate) request: Request<'p>,
}

impl<'p> Packet<'p> {
    /// Parses a packet. Returns `None` for a packet that is no DHCPv6 message, or that no client or
    /// relay agent sends.
    pub(crate) fn decode(mut bytes: &'p [u8]) -> Option<Self> {
        let mut relays = Vec::new();
        while bytes.first() == Some(&u8::from(MessageType::RelayForw)) {
            if relays.len() == RELAYS_MAX {
                return None;
            }
            let (relay, message) = decode_relay(bytes)?;
            relays.push(relay);
            bytes = message;
        }
        Some(Self { relays, request: Request::decode(bytes)? })
    }

    /// Returns the bytes of a reply to this packet, through the same relay agents (RFC 8415 section
    /// 19.3), or `None` if it is too long.
    pub(crate) fn encode_reply(&self, reply: &Message) -> Option<Vec<u8>> {
        let mut bytes = reply.to_vec().ok()?;
        for relay in self.relays.iter().rev() {
            let mut outer = Vec::with_capacity(RELAY_HEADER + bytes.len() + 64);
            outer.extend([u8::from(MessageType::RelayRepl), relay.hop_count]);
            outer.extend(relay.link.octets());
            outer.extend(relay.peer.octets());
            for code in [OptionCode::InterfaceId, OptionCode::from(RELAY_SOURCE_PORT)] {
                if let Some(value) = relay.option(code) {
                    put_option(&mut outer, code, value)?;
                }
            }
            put_option(&mut outer, OptionCode::RelayMsg, &bytes)?;
            bytes = outer;
        }
        Some(bytes)
    }

    /// Returns whether the relay agent next to the server wants the reply at the port that it sends
    /// from (RFC 8357).
    pub(crate) fn wants_source_port(&self) -> bool {
        self.relays.first().is_some_and(|relay| relay.option(OptionCode::from(RELAY_SOURCE_PORT)).is_some())
    }
}

impl<'p> Request<'p> {
    fn decode(bytes: &'p [u8]) -> Option<Self> {
        let (&[kind, x, i, d], options) = bytes.split_first_chunk()?;
        let mut request = Self {
            kind: kind.into(),
            xid: [x, i, d],
            client_id: None,
            server_id: None,
            rapid_commit: false,
            ias: Vec::new(),
        };
        for option in Options(options) {
            let (code, value) = option?;
            match OptionCode::from(code) {
                OptionCode::ClientId => _ = request.client_id.get_or_insert(value),
                OptionCode::ServerId => _ = request.server_id.get_or_insert(value),
                OptionCode::RapidCommit => request.rapid_commit = true,
                code @ (OptionCode::IANA | OptionCode::IATA | OptionCode::IAPD) => {
                    if request.ias.len() == IAS_MAX {
                        return None;
                    }
                    request.ias.push(Ia::decode(code, value)?);
                }
                _ => {}
            }
        }
        Some(request)
    }
}

impl Ia {
    fn decode(code: OptionCode, value: &[u8]) -> Option<Self> {
        // IAID, T1, T2; IA_TA has no times.
        let header = if code == OptionCode::IATA { 4 } else { 12 };
        let (header, options) = value.split_at_checked(header)?;
        let (lease_type, iaid) = match code {
            OptionCode::IANA => (LeaseType::NA, IANA::from_bytes(header).ok()?.id),
            OptionCode::IATA => (LeaseType::TA, IATA::from_bytes(header).ok()?.id),
            _ => (LeaseType::PD, IAPD::from_bytes(header).ok()?.id),
        };
        let mut named = Vec::new();
        for option in Options(options) {
            let (code, value) = option?;
            match (lease_type, OptionCode::from(code)) {
                (LeaseType::PD, OptionCode::IAPrefix) => {
                    let fixed = value.get(..25)?;
                    let prefix = IAPrefix::from_bytes(fixed).ok()?;
                    named.push(Prefix { address: prefix.prefix_ip, len: prefix.prefix_len });
                }
                (LeaseType::NA | LeaseType::TA, OptionCode::IAAddr) => {
                    let fixed = value.get(..24)?;
                    let address = IAAddr::from_bytes(fixed).ok()?;
                    named.push(Prefix { address: address.addr, len: 128 });
                }
                _ => {}
            }
        }
        Some(Self { lease_type, iaid: Iaid(iaid), named })
    }

    /// Returns the option that answers this one. IA_TA has no times.
    pub(crate) fn option(&self, (t1, t2): (u32, u32), opts: DhcpOptions) -> DhcpOption {
        let Self { lease_type, iaid: Iaid(id), .. } = *self;
        match lease_type {
            LeaseType::PD => DhcpOption::IAPD(IAPD { id, t1, t2, opts }),
            LeaseType::TA => DhcpOption::IATA(IATA { id, opts }),
            _ => DhcpOption::IANA(IANA { id, t1, t2, opts }),
        }
    }

    /// Returns the option for an address or a prefix in this association, with these lifetimes.
    pub(crate) fn leased(&self, prefix: Prefix, preferred: u32, valid: u32) -> DhcpOption {
        let opts = DhcpOptions::new();
        let Prefix { address, len } = prefix;
        if self.lease_type == LeaseType::PD {
            DhcpOption::IAPrefix(IAPrefix {
                preferred_lifetime: preferred,
                valid_lifetime: valid,
                prefix_len: len,
                prefix_ip: address,
                opts,
            })
        } else {
            DhcpOption::IAAddr(IAAddr { addr: address, preferred_life: preferred, valid_life: valid, opts })
        }
    }
}

/// Splits a relay message into what the relay agent has added, and the message in it.
fn decode_relay(bytes: &[u8]) -> Option<(Relay<'_>, &[u8])> {
    let (&[_, hop_count], rest) = bytes.split_first_chunk()?;
    let (&link, rest) = rest.split_first_chunk::<16>()?;
    let (&peer, rest) = rest.split_first_chunk::<16>()?;
    let mut message = None;
    let mut options = Vec::new();
    for option in Options(rest) {
        let (code, value) = option?;
        if code == u16::from(OptionCode::RelayMsg) {
            message.get_or_insert(value);
        } else {
            options.push((code, value));
        }
    }
    Some((Relay { hop_count, link: link.into(), peer: peer.into(), options }, message?))
}

/// Appends an option. Returns `None` if its value is too long.
fn put_option(bytes: &mut Vec<u8>, code: OptionCode, value: &[u8]) -> Option<()> {
    bytes.extend(u16::from(code).to_be_bytes());
    bytes.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
    bytes.extend(value);
    Some(())
}

/// Iterates over options, as code and value, up to the first truncated one, for which it returns
/// `None`.
struct Options<'p>(&'p [u8]);

impl<'p> Iterator for Options<'p> {
    type Item = Option<(u16, &'p [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let next = || {
            let (&[code, code_low, len, len_low], rest) = self.0.split_first_chunk()?;
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes([len, len_low]).into())?;
            Some(((u16::from_be_bytes([code, code_low]), value), rest))
        };
        let (option, rest) = next().map_or((None, &[][..]), |(option, rest)| (Some(option), rest));
        self.0 = rest;
        Some(option)
    }
}
