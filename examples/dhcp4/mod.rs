//! Message handling of a DHCPv4 server (RFC 2131 section 4.3): changes of the client's lease, and
//! the reply.

#[cfg(test)]
mod tests;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use dhcproto::v4::{CLIENT_PORT, DhcpOption, MessageType, SERVER_PORT};
use leasemgr::allocator::{Allocator, PoolAddress};
use leasemgr::lease::{Lease, Lease4, LeaseState, Lifetime, system_time};
use leasemgr::{Added, ClientKey, LeaseMgr, LeaseMgrError, LeaseMgrExt};

use super::server::{Answer, Outcome, SUBNET, Subnet};
pub(crate) use wire::Client;
use wire::{Reply, Request};

/// Time for which a declined address is not used.
const PROBATION: Lifetime = Lifetime(24 * 3600);
/// Number of times that a change is tried if other threads change the same lease. After that the
/// client may ask again.
const TRIES: u32 = 8;

/// The current time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Seconds since the epoch.
    pub(crate) epoch: i64,
    pub(crate) instant: Instant,
}

/// A server of one subnet.
pub(crate) struct Server4 {
    pub(crate) leases: Arc<dyn LeaseMgr<Lease4>>,
    pub(crate) allocator: Arc<Allocator<Ipv4Addr, Client>>,
    pub(crate) subnet: Subnet<Ipv4Addr>,
    /// An address of the server, which identifies it to clients.
    pub(crate) server_id: Ipv4Addr,
    pub(crate) valid_lifetime: Lifetime,
}

/// The result of a request for an address.
enum Granted {
    Lease(Lease4),
    /// The client must not use the address.
    Refused,
    /// The server does not know the client. Another server may.
    Unknown,
}

/// The kind of a request for an address (RFC 2131 section 4.3.2).
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    /// The address was offered.
    Selecting,
    /// The client assumes that it has the address: after a restart, or because it renews its lease.
    Having,
}

impl Server4 {
    /// Returns the reply to a message, and its destination.
    pub(crate) fn answer(&self, message: &[u8], clock: Clock) -> Answer {
        let Some(request) = Request::decode(message) else {
            return Ok(None);
        };
        // The server has no addresses for other links.
        if request.link().is_some_and(|link| !self.subnet.contains(link)) {
            return Ok(None);
        }
        let reply = match request.kind {
            MessageType::Discover => self.discover(&request, clock)?,
            MessageType::Request => self.request(&request, clock)?,
            MessageType::Decline => self.decline(&request, clock)?,
            MessageType::Release => self.release(&request, clock)?,
            MessageType::Inform => self.inform(&request),
            _ => None,
        };
        let Some(reply) = reply else {
            return Ok(None);
        };
        let to = destination(&request, &reply);
        Ok(Some((reply.encode(&request, self.server_id)?, to)))
    }

    /// Handles a search for servers (section 4.3.1). The client is offered the address that it has
    /// or had, or else the one that it requests, or else any.
    fn discover(&self, request: &Request<'_>, clock: Clock) -> Outcome<Option<Reply>> {
        let own = self.own_lease(request)?;
        if let Some(lease) = own.as_ref().filter(|lease| !lease.is_reclaimed()) {
            return Ok(Some(self.reply(MessageType::Offer, lease.address())));
        }
        let wanted = own.map(|lease| lease.address()).or(request.requested);
        let Some(client) = request.client() else {
            return Ok(None);
        };
        let is_free = |address| -> Result<bool, LeaseMgrError> {
            let lease = self.leases.get(address)?;
            Ok(address != self.server_id && lease.is_none_or(|lease| lease.is_reclaimed()))
        };
        let address = self.allocator.offer(&client, wanted, clock.instant, is_free)?;
        Ok(address.map(|address| self.reply(MessageType::Offer, address)))
    }

    /// Handles a request for an address, or for more time (section 4.3.2).
    fn request(&self, request: &Request<'_>, clock: Clock) -> Outcome<Option<Reply>> {
        let Some(client) = request.client() else {
            return Ok(None);
        };
        let (address, asked) = match (request.server_id, request.requested) {
            (Some(server), _) if server != self.server_id => {
                self.allocator.withdraw(&client);
                return Ok(None);
            }
            (Some(_), Some(address)) => (address, Asked::Selecting),
            (None, Some(address)) if request.ciaddr.is_unspecified() => (address, Asked::Having),
            (None, _) if !request.ciaddr.is_unspecified() => (request.ciaddr, Asked::Having),
            _ => return Ok(None),
        };
        let granted = if self.subnet.contains(address) {
            self.grant(request, &client, address, asked, clock)?
        } else {
            Granted::Refused
        };
        Ok(match granted {
            Granted::Lease(lease) => Some(self.reply(MessageType::Ack, lease.address())),
            Granted::Refused => {
                Some(Reply { kind: MessageType::Nak, yiaddr: Ipv4Addr::UNSPECIFIED, options: Vec::new() })
            }
            Granted::Unknown => None,
        })
    }

    /// Gives a client the lease that it asks for, or extends it.
    fn grant(
        &self,
        request: &Request<'_>,
        client: &Client,
        address: Ipv4Addr,
        asked: Asked,
        clock: Clock,
    ) -> Outcome<Granted> {
        for _ in 0..TRIES {
            let old = self.leases.get(address)?;
            let is_own = old.as_ref().is_some_and(|old| belongs(old, request));
            let is_free = old.as_ref().is_none_or(Lease::is_reclaimed);
            // A lease that is neither belongs to another client, or is declined.
            if !is_own && !is_free {
                return Ok(Granted::Refused);
            }
            if is_free && (address == self.server_id || !self.may_take(client, address, clock, is_own)) {
                return Ok(Granted::Refused);
            }
            if !is_own {
                // Unless this address has just been offered to it, the client keeps the one that it
                // has.
                let is_offered = self.allocator.offered(client, clock.instant) == Some(address);
                match asked {
                    Asked::Selecting if is_offered => {}
                    _ if self.own_lease(request)?.is_some_and(|own| !own.is_reclaimed()) => {
                        return Ok(Granted::Refused);
                    }
                    Asked::Selecting => {}
                    Asked::Having => return Ok(Granted::Unknown),
                }
            }
            let lease = self.lease(request, address, old.as_ref().filter(|_| is_own), clock)?;
            let changed = match &old {
                None => match self.leases.add(&lease)? {
                    Added::Added => true,
                    Added::AddressTaken => false,
                },
                Some(old) => was_changed(self.leases.update_if_unchanged(old, &lease))?,
            };
            if changed {
                return Ok(Granted::Lease(lease));
            }
            // Another thread was faster.
        }
        Ok(Granted::Unknown)
    }

    /// Returns whether the pool and offers to other clients allow to assign a free address. An
    /// address that the client had before may no longer be in the pool.
    fn may_take(&self, client: &Client, address: Ipv4Addr, clock: Clock, is_own: bool) -> bool {
        (is_own && !self.allocator.pool().contains(address))
            || self.allocator.may_take(client, address, clock.instant)
    }

    /// Handles a message that the address is in use by another host (section 4.3.3).
    fn decline(&self, request: &Request<'_>, clock: Clock) -> Outcome<Option<Reply>> {
        let Some(address) = request.requested.filter(|_| request.server_id == Some(self.server_id)) else {
            return Ok(None);
        };
        let declined = self.change_own(request, address, |lease| {
            lease.decline(system_time(clock.epoch), PROBATION);
            Ok(())
        })?;
        if let Some(client) = request.client().filter(|_| declined) {
            eprintln!("{address} was declined by {client}: another host uses it");
        }
        Ok(None)
    }

    /// Handles a release (section 4.3.4). The lease is kept for the client to return, like an
    /// expired one.
    fn release(&self, request: &Request<'_>, clock: Clock) -> Outcome<Option<Reply>> {
        if request.server_id == Some(self.server_id) {
            self.change_own(request, request.ciaddr, |lease| {
                lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
                // It ends now, or after one second, as a lifetime of 0 is not allowed.
                let used = clock.epoch.saturating_sub(lease.data().cltt);
                lease.data_mut().valid_lifetime = Lifetime(u32::try_from(used).unwrap_or(0).max(1));
                Ok(())
            })?;
        }
        Ok(None)
    }

    /// Changes the lease of an address, if it is the client's and in use. Returns whether it was.
    fn change_own(
        &self,
        request: &Request<'_>,
        address: Ipv4Addr,
        change: impl Fn(&mut Lease4) -> Outcome,
    ) -> Outcome<bool> {
        for _ in 0..TRIES {
            let Some(old) = self.leases.get(address)? else {
                return Ok(false);
            };
            if old.is_reclaimed() || !belongs(&old, request) {
                return Ok(false);
            }
            let mut new = old.clone();
            change(&mut new)?;
            if was_changed(self.leases.update_if_unchanged(&old, &new))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Handles a client with an address from elsewhere that asks for options (section 4.3.5).
    fn inform(&self, request: &Request<'_>) -> Option<Reply> {
        let is_here = !request.ciaddr.is_unspecified() && self.subnet.contains(request.ciaddr);
        is_here.then(|| Reply {
            kind: MessageType::Ack,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            options: vec![self.subnet_mask()],
        })
    }

    /// Returns the lease that a client has or had with an address of the pool; one in use takes
    /// precedence over a reclaimed one.
    fn own_lease(&self, request: &Request<'_>) -> Result<Option<Lease4>, LeaseMgrError> {
        let client = request.client_id.as_ref().map(ClientKey::from);
        let leases = self.leases.by_client_in_subnet(request.hwaddr.as_ref(), client, SUBNET)?;
        let of_pool = leases.into_iter().filter(|lease| self.allocator.pool().contains(lease.address()));
        Ok(of_pool.min_by_key(Lease::is_reclaimed))
    }

    /// Returns the lease that is assigned to a client, with the values known from `old`.
    fn lease(
        &self,
        request: &Request<'_>,
        address: Ipv4Addr,
        old: Option<&Lease4>,
        clock: Clock,
    ) -> Outcome<Lease4> {
        let client_id = request.client_id.clone().or_else(|| old?.client_id().cloned());
        let known = old.and_then(Lease4::user_context);
        let context = match &request.relay_agent_info {
            Some(info) => Some(known.cloned().unwrap_or_default().with_relay_agent_info(info)),
            // A client renews its lease directly, although it is still behind the relay agent.
            None => known.cloned(),
        };
        Ok(Lease4::builder(address)
            .client((request.hwaddr.clone(), client_id))
            .subnet(SUBNET)
            .lifetime(self.valid_lifetime)
            .cltt(clock.epoch)
            .hostname(request.hostname.clone())
            .user_context(context)
            .build()?)
    }

    /// Returns an offer or an acknowledgement of an address.
    fn reply(&self, kind: MessageType, address: Ipv4Addr) -> Reply {
        let mut options = vec![self.subnet_mask(), DhcpOption::AddressLeaseTime(self.valid_lifetime.0)];
        if !self.valid_lifetime.is_infinite() {
            // Section 4.4.5.
            options.push(DhcpOption::Renewal(self.valid_lifetime.0 / 2));
            options.push(DhcpOption::Rebinding(self.valid_lifetime.0 - self.valid_lifetime.0.div_ceil(8)));
        }
        Reply { kind, yiaddr: address, options }
    }

    fn subnet_mask(&self) -> DhcpOption {
        DhcpOption::SubnetMask(PoolAddress::from_bits(self.subnet.mask_bits()))
    }
}

/// Returns the destination of a reply (section 4.1). Reaching a client without an address by its
/// hardware address requires a raw socket; it is sent a broadcast instead, which that section
/// allows.
fn destination(request: &Request<'_>, reply: &Reply) -> SocketAddr {
    let is_inform = request.kind == MessageType::Inform;
    let (address, port) = if !request.giaddr.is_unspecified() && !is_inform {
        (request.giaddr, SERVER_PORT)
    } else if reply.kind == MessageType::Nak || request.ciaddr.is_unspecified() {
        (Ipv4Addr::BROADCAST, CLIENT_PORT)
    } else {
        (request.ciaddr, CLIENT_PORT)
    };
    SocketAddr::from((address, port))
}

fn belongs(lease: &Lease4, request: &Request<'_>) -> bool {
    lease.belongs_to_client(request.hwaddr.as_ref(), request.client_id.as_ref())
}

/// Returns whether a lease was changed, and not modified concurrently by another thread.
fn was_changed(changed: Result<(), LeaseMgrError>) -> Result<bool, LeaseMgrError> {
    match changed {
        Ok(()) => Ok(true),
        Err(error) if error.is_stale() => Ok(false),
        Err(error) => Err(error),
    }
}
