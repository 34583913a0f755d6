//! Addresses and prefixes of clients, as leases.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasemgr::allocator::{Allocator, Pool, Strategy};
use leasemgr::lease::{Duid, HwAddr, Iaid, Lease6, LeaseState, LeaseType, Lifetime, system_time};
use leasemgr::{Added, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrExt6, Query};
use parking_lot::{Mutex, MutexGuard};

use super::super::server::{Outcome, SUBNET, Subnet};
use super::wire::{Ia, Prefix, Relay};

/// Number of times that a change is tried if leases are modified concurrently.
const TRIES: usize = 16;
/// Time for which a declined address is not used, as in Kea.
const PROBATION: Lifetime = Lifetime(86_400);
/// Time for which an advertised address or prefix is reserved for a client. It sends its request
/// after a second or two, and retries for up to half a minute (RFC 8415 sections 18.2.1 and
/// 18.2.2).
const OFFER_TIME: Duration = Duration::from_secs(60);
/// Maximum number of clients that are served at the same time.
const SHARDS: usize = 256;

/// Lifetimes of an address or prefix, and renewal times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    pub(crate) valid: Lifetime,
    pub(crate) preferred: Lifetime,
    /// Time after which the client asks its server for an extension.
    pub(crate) t1: u32,
    /// Time after which the client asks any server.
    pub(crate) t2: u32,
}

impl Lifetimes {
    /// Returns the lifetimes for a valid lifetime: the preferred one is 5/8 of it, and T1 and T2
    /// are 0.5 and 0.8 of that (RFC 8415 section 21.4). If one is infinite, all are.
    pub(crate) fn of(valid: Lifetime) -> Self {
        if valid.is_infinite() {
            return Self { valid, preferred: valid, t1: valid.0, t2: valid.0 };
        }
        let part = |of: u32, numerator: u64, denominator: u64| {
            u32::try_from(u64::from(of) * numerator / denominator).unwrap_or(u32::MAX)
        };
        let preferred = part(valid.0, 5, 8);
        let (t1, t2) = (part(preferred, 1, 2), part(preferred, 4, 5));
        Self { valid, preferred: Lifetime(preferred), t1, t2 }
    }
}

/// A client that has sent a message, and the time of the message.
#[derive(Debug)]
pub(crate) struct Client<'a, 'p> {
    pub(crate) duid: Duid,
    pub(crate) hwaddr: Option<HwAddr>,
    /// The relay agents that have forwarded the message.
    pub(crate) relays: &'a [Relay<'p>],
    /// In seconds since the epoch.
    pub(crate) now: i64,
}

/// Allocates free addresses. A client's offers are distinguished by identity association.
type Free = Allocator<Ipv6Addr, (Duid, Iaid)>;

/// The leases of a server for one link, and the pools.
pub(crate) struct Bindings {
    leases: Arc<dyn LeaseMgr<Lease6>>,
    /// The subnet of all addresses.
    subnet: Subnet<Ipv6Addr>,
    addresses: Arc<Free>,
    /// `None` for a server that delegates no prefixes.
    prefixes: Option<Arc<Free>>,
    pub(crate) lifetimes: Lifetimes,
    /// Messages of one client are answered one after the other: of two at the same time, each would
    /// find that the client has no lease yet.
    clients: Locks,
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").field("leases", &self.leases).finish_non_exhaustive()
    }
}

impl Bindings {
    /// # Errors
    /// Returns an error if the leases cannot be read.
    pub(crate) fn new(
        leases: Arc<dyn LeaseMgr<Lease6>>,
        subnet: Subnet<Ipv6Addr>,
        addresses: Pool<Ipv6Addr>,
        prefixes: Option<Pool<Ipv6Addr>>,
        strategy: Strategy,
        valid_lifetime: Lifetime,
    ) -> Outcome<Self> {
        let free = |pool| -> Outcome<Arc<Free>> {
            let free = Arc::new(Allocator::new(pool, strategy, OFFER_TIME));
            free.follow(&leases)?;
            Ok(free)
        };
        let (addresses, prefixes) = (free(addresses)?, prefixes.map(free).transpose()?);
        let lifetimes = Lifetimes::of(valid_lifetime);
        Ok(Self { leases, subnet, addresses, prefixes, lifetimes, clients: Locks::default() })
    }

    /// Returns whether an address is on the link.
    pub(crate) fn is_on_link(&self, address: Ipv6Addr) -> bool {
        self.subnet.contains(address)
    }

    /// Returns what the client would get now: the leases that it has or had, or a free one that is
    /// reserved for a while.
    pub(crate) fn offer(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<Vec<Prefix>> {
        let own = self.own(client, ia)?;
        if !own.is_empty() {
            return Ok(own.iter().map(prefix).collect());
        }
        Ok(self.free(client, ia)?.into_iter().collect())
    }

    /// Extends the leases that a client has or had, or assigns a free one to it. Returns an empty
    /// list if none is free.
    pub(crate) fn commit(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<Vec<Prefix>> {
        let _guard = self.clients.lock(&client.duid);
        for _ in 0..TRIES {
            let own = self.own(client, ia)?;
            if own.is_empty() {
                break;
            }
            let mut extended = Vec::with_capacity(own.len());
            for lease in &own {
                let mut longer = lease.clone();
                self.grant(&mut longer, client)?;
                if self.replace(lease, &longer)? {
                    extended.push(prefix(lease));
                }
            }
            // Otherwise all had expired, and have just been reclaimed or assigned to other clients.
            if !extended.is_empty() {
                return Ok(extended);
            }
        }
        for _ in 0..TRIES {
            let Some(free) = self.free(client, ia)? else {
                break;
            };
            let builder = match ia.lease_type {
                LeaseType::PD => Lease6::prefix_builder(free.address, free.len.into()),
                _ => Lease6::builder(free.address),
            };
            let mut lease = builder.client(client.duid.clone(), ia.iaid).build()?;
            self.grant(&mut lease, client)?;
            if self.take(&lease, client)? {
                return Ok(vec![free]);
            }
            // Another client was faster.
        }
        Ok(Vec::new())
    }

    /// Reserves a free address or prefix for this client: the one that it names or was offered
    /// before, or any.
    fn free(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<Option<Prefix>> {
        let Some(free) = self.free_of(ia.lease_type) else {
            return Ok(None);
        };
        let wanted = ia.named.iter().find(|named| holds(free, **named)).map(|named| named.address);
        let len = free.pool().prefix_len();
        let is_free = |address| self.is_free(client, Prefix { address, len });
        let found = free.offer(&(client.duid.clone(), ia.iaid), wanted, Instant::now(), is_free)?;
        Ok(found.map(|address| Prefix { address, len }))
    }

    /// Returns whether the existing leases allow to assign an address or a prefix to a client. A
    /// prefix may contain leases with other addresses: prefixes that Kea 2.2 has recorded with host
    /// bits.
    fn is_free(&self, client: &Client<'_, '_>, prefix: Prefix) -> Result<bool, LeaseMgrError> {
        let last = prefix.address.to_bits() | u128::MAX.checked_shr(prefix.len.into()).unwrap_or(0);
        let mut next = self.leases.get(prefix.address)?;
        let mut at = prefix.address;
        loop {
            if next.is_some_and(|old| !client.may_have(&old)) {
                return Ok(false);
            }
            if at.to_bits() == last {
                return Ok(true);
            }
            let query = Query::all().after(at).limit(1);
            next = self.leases.find(&query)?.pop().filter(|lease| lease.address().to_bits() <= last);
            let Some(lease) = &next else {
                return Ok(true);
            };
            at = lease.address();
        }
    }

    fn free_of(&self, lease_type: LeaseType) -> Option<&Arc<Free>> {
        match lease_type {
            LeaseType::NA => Some(&self.addresses),
            LeaseType::PD => self.prefixes.as_ref(),
            _ => None,
        }
    }

    /// Releases the leases that a client names. Returns whether it has any lease in this identity
    /// association.
    pub(crate) fn release(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<bool> {
        self.end(client, ia, |lease| match self.leases.delete_if_unchanged(lease) {
            Ok(_) => Ok(true),
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error.into()),
        })
    }

    /// Takes addresses that a client names out of use, because another host uses them. Returns
    /// whether it has any lease in this identity association. Prefixes cannot be declined, and are
    /// not changed (RFC 8415 section 18.2.8).
    pub(crate) fn decline(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<bool> {
        if ia.lease_type == LeaseType::PD {
            return Ok(true);
        }
        self.end(client, ia, |lease| {
            let mut declined = lease.clone();
            declined.decline(system_time(client.now), PROBATION);
            self.replace(lease, &declined)
        })
    }

    /// Ends the leases that a client names. `end` returns `false` if the lease was modified
    /// concurrently.
    fn end(&self, client: &Client<'_, '_>, ia: &Ia, end: impl Fn(&Lease6) -> Outcome<bool>) -> Outcome<bool> {
        let _guard = self.clients.lock(&client.duid);
        let in_use = |own: &mut Vec<Lease6>| own.retain(|lease| lease.state() == LeaseState::DEFAULT);
        let mut own = self.own(client, ia)?;
        in_use(&mut own);
        let has_binding = !own.is_empty();
        for _ in 0..TRIES {
            own.retain(|lease| ia.named.contains(&prefix(lease)));
            let mut is_done = true;
            for lease in &own {
                is_done &= end(lease)?;
            }
            if is_done {
                break;
            }
            own = self.own(client, ia)?;
            in_use(&mut own);
        }
        Ok(has_binding)
    }

    /// Returns the leases that a client has or had in an identity association and that this server
    /// assigns.
    fn own(&self, client: &Client<'_, '_>, ia: &Ia) -> Outcome<Vec<Lease6>> {
        let mut own = self.leases.by_identity_in_subnet(ia.lease_type, &client.duid, ia.iaid, SUBNET)?;
        own.retain(|lease| match lease.lease_type() {
            LeaseType::NA => self.is_on_link(lease.address()),
            LeaseType::PD => self.prefixes.as_ref().is_some_and(|free| holds(free, prefix(lease))),
            _ => false,
        });
        Ok(own)
    }

    /// Sets what a client is granted.
    fn grant(&self, lease: &mut Lease6, client: &Client<'_, '_>) -> Outcome {
        lease.set_state(LeaseState::DEFAULT)?;
        lease.set_preferred_lifetime(self.lifetimes.preferred);
        lease.set_hwaddr(client.hwaddr.clone());
        let data = lease.data_mut();
        data.valid_lifetime = self.lifetimes.valid;
        data.cltt = client.now;
        data.subnet_id = SUBNET;
        if !client.relays.is_empty() {
            let relays: Vec<_> = client.relays.iter().map(Relay::to_kept).collect();
            data.user_context = Some(data.user_context.take().unwrap_or_default().with_relays(&relays));
        }
        Ok(())
    }

    /// Assigns a lease to a client. Returns whether its address was free.
    fn take(&self, lease: &Lease6, client: &Client<'_, '_>) -> Outcome<bool> {
        if self.leases.add(lease)? == Added::Added {
            return Ok(true);
        }
        match self.leases.get(lease.address())? {
            Some(old) if client.may_have(&old) => self.replace(&old, lease),
            _ => Ok(false),
        }
    }

    /// Replaces `old` by `new`. Returns `false` if the lease was modified or deleted concurrently.
    fn replace(&self, old: &Lease6, new: &Lease6) -> Outcome<bool> {
        match self.leases.update_if_unchanged(old, new) {
            Ok(()) => Ok(true),
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Client<'_, '_> {
    /// Returns whether the address of a lease can be assigned to this client: the lease is
    /// reclaimed or expired, or the probation of a declined address is over.
    fn may_have(&self, lease: &Lease6) -> bool {
        lease.is_reclaimed() || lease.is_expired(system_time(self.now))
    }
}

/// Returns whether an address or prefix belongs to a pool.
fn holds(free: &Free, prefix: Prefix) -> bool {
    free.pool().contains(prefix.address) && free.pool().prefix_len() == prefix.len
}

fn prefix(lease: &Lease6) -> Prefix {
    Prefix { address: lease.address(), len: lease.prefix_len() }
}

/// Sharded locks of clients.
struct Locks {
    shards: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl Default for Locks {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Locks {
    fn lock(&self, client: &Duid) -> Option<MutexGuard<'_, ()>> {
        let stripe = usize::try_from(self.hasher.hash_one(client) % self.shards.len() as u64).ok()?;
        self.shards.get(stripe).map(|stripe| stripe.lock())
    }
}
