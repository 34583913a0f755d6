//! Message handling of a DHCPv6 server (RFC 8415), without sockets: from the bytes of a packet and
//! its source to the bytes of a reply and its destination.
//!
//! The server serves one link: a subnet for addresses, and prefixes to delegate. A client gets one
//! address or prefix for each of its identity associations (IA_NA, IA_PD), and keeps it as long as
//! it renews it. Renew and Rebind also create bindings for clients that have none (RFC 8415
//! sections 18.3.4 and 18.3.5), and Rapid Commit is granted to every client that requests it, so
//! this must be the only server on its link.

mod bindings;
pub(crate) mod server_id;
#[cfg(test)]
mod tests;
mod wire;

use std::net::{Ipv6Addr, SocketAddrV6};

use dhcproto::v6::{
    CLIENT_PORT, DhcpOption, DhcpOptions, Message, MessageType, OptionCode, SERVER_PORT, Status, StatusCode,
};
use leasemgr::lease::{Duid, HwAddr, HwSource, HwType, LeaseType};

pub(crate) use bindings::Bindings;
use bindings::{Client, Lifetimes};
use wire::{Ia, Packet, Prefix, Relay, Request};

use super::server::Outcome;

/// Kea's numbers for the source of a hardware address: a DUID, or a relay agent's Client Link-Layer
/// Address option (RFC 6939).
const FROM_DUID: HwSource = HwSource(0x02);
const FROM_RELAY: HwSource = HwSource(0x08);
/// The Client Link-Layer Address option.
const CLIENT_LINK_LAYER_ADDRESS: u16 = 79;

/// The source of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The sender.
    pub(crate) peer: SocketAddrV6,
    /// Whether the packet was sent to a multicast address.
    pub(crate) is_multicast: bool,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server6 {
    /// The server's own DUID.
    pub(crate) server_id: Duid,
    /// The leases of the server.
    pub(crate) bindings: Bindings,
}

impl Server6 {
    /// Returns the reply to a packet and its destination, if there is one. `now` is in seconds
    /// since the epoch.
    ///
    /// # Errors
    /// Returns an error if the leases cannot be read or written.
    pub(crate) fn handle(
        &self,
        bytes: &[u8],
        arrival: Arrival,
        now: i64,
    ) -> Outcome<Option<(Vec<u8>, SocketAddrV6)>> {
        // Invalid packets get no reply.
        let Some(packet) = Packet::decode(bytes) else {
            return Ok(None);
        };
        let Some(reply) = self.answer(&packet, arrival, now)? else {
            return Ok(None);
        };
        let mut peer = arrival.peer;
        if packet.relays.is_empty() {
            peer.set_port(CLIENT_PORT);
        } else if !packet.wants_source_port() {
            peer.set_port(SERVER_PORT);
        }
        Ok(packet.encode_reply(&reply).map(|bytes| (bytes, peer)))
    }

    fn answer(&self, packet: &Packet<'_>, arrival: Arrival, now: i64) -> Outcome<Option<Message>> {
        let Packet { relays, request } = packet;
        let is_unicast = relays.is_empty() && !arrival.is_multicast;
        if !self.is_valid(request, is_unicast) || !self.is_on_link(relays) {
            return Ok(None);
        }
        let Some(client_id) = request.client_id else {
            // Only an Information-request may have no client identifier.
            return Ok(Some(self.reply(MessageType::Reply, request)));
        };
        // The DUID of a declined lease is no client's.
        let Some(duid) = Duid::new(client_id).ok().filter(|duid| !duid.is_empty()) else {
            return Ok(None);
        };
        let hwaddr = hwaddr(&duid, relays);
        let client = Client { duid, hwaddr, relays, now };

        let mut reply = self.reply(MessageType::Reply, request);
        match request.kind {
            // Clients may not use unicast (RFC 8415 sections 18.3.2, 18.3.4, 18.3.7 and 18.3.8).
            _ if is_unicast => {
                reply.opts_mut().insert(status(Status::UseMulticast, "use multicast"));
            }
            MessageType::Solicit if request.rapid_commit => {
                self.put_ias(&mut reply, request, |ia| self.commit(&client, request.kind, ia))?;
                reply.opts_mut().insert(DhcpOption::RapidCommit);
            }
            MessageType::Solicit => {
                reply.set_msg_type(MessageType::Advertise);
                self.put_ias(&mut reply, request, |ia| self.offer(&client, ia))?;
            }
            MessageType::Request | MessageType::Renew | MessageType::Rebind => {
                self.put_ias(&mut reply, request, |ia| self.commit(&client, request.kind, ia))?;
            }
            MessageType::Confirm => match self.confirmed(request) {
                Some(true) => reply.opts_mut().insert(status(Status::Success, "still on this link")),
                Some(false) => reply.opts_mut().insert(status(Status::NotOnLink, "not of this link")),
                None => return Ok(None),
            },
            MessageType::Release => {
                self.put_ias(&mut reply, request, |ia| {
                    Ok(no_binding(ia, self.bindings.release(&client, ia)?))
                })?;
                reply.opts_mut().insert(status(Status::Success, "released"));
            }
            MessageType::Decline => {
                self.put_ias(&mut reply, request, |ia| {
                    Ok(no_binding(ia, self.bindings.decline(&client, ia)?))
                })?;
                reply.opts_mut().insert(status(Status::Success, "declined"));
            }
            // The reply contains the identifiers only.
            _ => {}
        }
        Ok(Some(reply))
    }

    /// Returns whether this server answers a message (RFC 8415 section 16).
    fn is_valid(&self, request: &Request<'_>, is_unicast: bool) -> bool {
        let is_for_any = request.server_id.is_none();
        let is_for_us = request.server_id == Some(self.server_id.as_bytes());
        let has_client = request.client_id.is_some();
        match request.kind {
            MessageType::Solicit | MessageType::Confirm | MessageType::Rebind => {
                has_client && is_for_any && !is_unicast
            }
            MessageType::Request | MessageType::Renew | MessageType::Release | MessageType::Decline => {
                has_client && is_for_us
            }
            MessageType::InformationRequest => {
                (is_for_any || is_for_us) && request.ias.is_empty() && !is_unicast
            }
            _ => false,
        }
    }

    /// Returns whether the client is on the link that this server serves. The relay agent next to
    /// the client names the link; if it does not (RFC 6221), the next one does, and if none does,
    /// it is the link on which the packet arrived (RFC 8415 section 13.1).
    fn is_on_link(&self, relays: &[Relay<'_>]) -> bool {
        let mut links = relays.iter().rev().map(|relay| relay.link);
        let link = links.find(|link| !link.is_unspecified() && !link.is_unicast_link_local());
        link.is_none_or(|link| self.bindings.is_on_link(link))
    }

    /// Returns a reply with the identifiers of client and server only.
    fn reply(&self, kind: MessageType, request: &Request<'_>) -> Message {
        let mut reply = Message::new_with_id(kind, request.xid);
        let client_id = request.client_id.map(|id| DhcpOption::ClientId(id.to_vec()));
        let server_id = DhcpOption::ServerId(self.server_id.as_bytes().to_vec());
        reply.set_opts(client_id.into_iter().chain([server_id]).collect());
        reply
    }

    /// Adds an answer for each identity association that needs one.
    fn put_ias(
        &self,
        reply: &mut Message,
        request: &Request<'_>,
        answer: impl FnMut(&Ia) -> Outcome<Option<DhcpOption>>,
    ) -> Outcome {
        let answers: Vec<_> = request.ias.iter().map(answer).collect::<Outcome<_>>()?;
        // An option is inserted before those with the same code, so the reverse order results in
        // that of the message.
        for option in answers.into_iter().rev().flatten() {
            reply.opts_mut().insert(option);
        }
        Ok(())
    }

    /// Returns the option for what a client would get.
    fn offer(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<Option<DhcpOption>> {
        let offered = self.bindings.offer(client, ia)?;
        Ok(Some(self.granted(ia, &offered, &[])))
    }

    /// Assigns or extends what a client asks for.
    fn commit(&self, client: &Client<'_, '_>, kind: MessageType, ia: &Ia) -> Outcome<Option<DhcpOption>> {
        let is_elsewhere = |named: &Prefix| !self.bindings.is_on_link(named.address);
        if kind == MessageType::Request && ia.lease_type == LeaseType::NA && ia.named.iter().any(is_elsewhere)
        {
            let status = status(Status::NotOnLink, "an address that is not of this link");
            return Ok(Some(ia.option((0, 0), [status].into_iter().collect())));
        }
        let granted = self.bindings.commit(client, ia)?;
        // A renewing client is told what it no longer has (RFC 8415 sections 18.3.4 and 18.3.5).
        let gone: Vec<_> = match kind {
            MessageType::Renew | MessageType::Rebind => {
                let is_gone = |p: &&Prefix| !p.address.is_unspecified() && !granted.contains(p);
                ia.named.iter().filter(is_gone).copied().collect()
            }
            _ => Vec::new(),
        };
        Ok(Some(self.granted(ia, &granted, &gone)))
    }

    /// Returns the option with what a client has, and what it no longer has.
    fn granted(&self, ia: &Ia, granted: &[Prefix], gone: &[Prefix]) -> DhcpOption {
        let Lifetimes { valid, preferred, t1, t2 } = self.bindings.lifetimes;
        let mut options: Vec<_> = granted.iter().map(|p| ia.leased(*p, preferred.0, valid.0)).collect();
        options.extend(gone.iter().map(|p| ia.leased(*p, 0, 0)));
        let mut times = (t1, t2);
        if granted.is_empty() {
            times = (0, 0);
            options.push(match ia.lease_type {
                LeaseType::PD => status(Status::NoPrefixAvail, "no prefix is free"),
                LeaseType::TA => status(Status::NoAddrsAvail, "there are no temporary addresses"),
                _ => status(Status::NoAddrsAvail, "no address is free"),
            });
        }
        ia.option(times, options.into_iter().collect())
    }

    /// Returns whether all addresses of a client are on the link; `None` if it names none (RFC 8415
    /// section 18.3.3).
    fn confirmed(&self, request: &Request<'_>) -> Option<bool> {
        let ias = request.ias.iter().filter(|ia| ia.lease_type != LeaseType::PD);
        let addresses: Vec<Ipv6Addr> = ias.flat_map(|ia| &ia.named).map(|named| named.address).collect();
        let on_link = |address: &Ipv6Addr| self.bindings.is_on_link(*address);
        (!addresses.is_empty()).then(|| addresses.iter().all(on_link))
    }
}

/// Returns the status for a client that releases or declines a lease that it does not have.
fn no_binding(ia: &Ia, had_binding: bool) -> Option<DhcpOption> {
    let options: DhcpOptions = [status(Status::NoBinding, "nothing is bound here")].into_iter().collect();
    (!had_binding).then(|| ia.option((0, 0), options))
}

fn status(status: Status, text: &str) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode { status, msg: text.to_owned() })
}

/// Returns the hardware address of a client, from its DUID (RFC 8415 sections 11.2 and 11.4), or
/// else from the relay agent next to it.
fn hwaddr(duid: &Duid, relays: &[Relay<'_>]) -> Option<HwAddr> {
    let new = |[high, low]: [u8; 2], bytes: &[u8], source| {
        let mut hwaddr = HwAddr::new(bytes).ok()?;
        hwaddr.htype = HwType(u16::from_be_bytes([high, low]));
        hwaddr.source = source;
        Some(hwaddr)
    };
    let of_duid = match *duid.as_bytes() {
        [0, 1, h, t, _, _, _, _, ref bytes @ ..] | [0, 3, h, t, ref bytes @ ..] => {
            new([h, t], bytes, FROM_DUID)
        }
        _ => None,
    };
    of_duid.or_else(|| match relays.last()?.option(OptionCode::from(CLIENT_LINK_LAYER_ADDRESS))? {
        [h, t, bytes @ ..] => new([*h, *t], bytes, FROM_RELAY),
        _ => None,
    })
}
