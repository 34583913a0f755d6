//! Look-ups as values, so that they can be made in another thread, together with others.

#[cfg(any(feature = "mysql", feature = "postgresql"))]
use super::Query;
use super::{ClientKey, LeaseMgr, LeaseMgrError, ManagedLease};
use crate::lease::{HwAddr, Iaid, LeaseType, SubnetId};

/// A look-up as a server makes it for a packet, for [`LeaseMgr::submit_look_up`].
///
/// ```
/// use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
/// use leasemgr::{ClientKey, LeaseMgr, LeaseMgrFactory, LookUp};
///
/// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
/// let (card, id) = (HwAddr::from([2, 0, 0, 0, 0, 1]), ClientId::new(b"one")?);
/// let look_up = LookUp::client(Some(&card), Some(ClientKey::from(&id)), SubnetId(1));
/// assert_eq!(look_up.run(&*leases)?, []);
/// leases.submit_look_up(look_up, Box::new(|found| println!("{found:?}")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookUp<L: ManagedLease> {
    /// The lease of an address, as [`LeaseMgr::get`] returns it.
    Address(L::Address),
    /// The leases of a client in a subnet, as [`LeaseMgr::by_client_in_subnet`] returns them.
    Client {
        /// The hardware address, if it is known.
        hwaddr: Option<HwAddr>,
        /// Bytes of the client id (DHCPv4) or DUID (DHCPv6), if it is known.
        id: Option<Box<[u8]>>,
        /// Selects only leases in this identity association (DHCPv6).
        iaid: Option<Iaid>,
        /// Selects only leases of this type (DHCPv6).
        lease_type: Option<LeaseType>,
        /// The subnet.
        subnet: SubnetId,
    },
}

impl<L: ManagedLease> LookUp<L> {
    /// Creates a look-up of the leases of a client in a subnet.
    #[must_use]
    pub fn client(hwaddr: Option<&HwAddr>, client: Option<ClientKey<'_>>, subnet: SubnetId) -> Self {
        Self::Client {
            hwaddr: hwaddr.cloned(),
            id: client.map(|client| client.id.into()),
            iaid: client.and_then(|client| client.iaid),
            lease_type: client.and_then(|client| client.lease_type),
            subnet,
        }
    }

    /// Makes the look-up in the calling thread, and returns the leases in the order of their
    /// addresses.
    ///
    /// # Errors
    /// Returns the error of the method of the manager for this kind of look-up.
    pub fn run<M: LeaseMgr<L> + ?Sized>(&self, manager: &M) -> Result<Vec<L>, LeaseMgrError> {
        match self {
            Self::Address(address) => Ok(manager.get(*address)?.into_iter().collect()),
            Self::Client { hwaddr, subnet, .. } => {
                manager.by_client_in_subnet(hwaddr.as_ref(), self.client_key(), *subnet)
            }
        }
    }

    fn client_key(&self) -> Option<ClientKey<'_>> {
        match self {
            Self::Client { id: Some(id), iaid, lease_type, .. } => {
                Some(ClientKey { id, iaid: *iaid, lease_type: *lease_type })
            }
            _ => None,
        }
    }
}

#[cfg(any(feature = "mysql", feature = "postgresql"))]
impl<L: ManagedLease> LookUp<L> {
    /// Returns the query by the client id or DUID.
    pub(crate) fn by_id(&self) -> Option<Query<'_, L>> {
        match self {
            Self::Client { subnet, .. } => Some(Query::client(self.client_key()?).in_subnet(*subnet)),
            Self::Address(_) => None,
        }
    }

    /// Returns the query by the hardware address, which is made if [`LookUp::by_id`] finds nothing.
    pub(crate) fn by_hwaddr(&self) -> Option<Query<'_, L>> {
        match self {
            Self::Client { hwaddr: Some(hwaddr), subnet, .. } => {
                Some(Query::hwaddr(hwaddr).in_subnet(*subnet))
            }
            _ => None,
        }
    }

    /// Removes the leases found by [`LookUp::by_hwaddr`] that are not of the client: those of a
    /// hardware address of another type, and those with a client id if the client has one.
    pub(crate) fn retain_own(&self, leases: &mut Vec<L>) {
        if let Self::Client { hwaddr: Some(hwaddr), id, .. } = self {
            retain_of_hwaddr(leases, hwaddr, id.is_some());
        }
    }
}

/// Removes the leases of other clients from those with the bytes of a hardware address: another type
/// of it is another client, and so is any client id if the client `has_id`.
pub(super) fn retain_of_hwaddr<L: ManagedLease>(leases: &mut Vec<L>, hwaddr: &HwAddr, has_id: bool) {
    leases.retain(|lease| {
        let is_same_type = lease.hwaddr().is_some_and(|own| own.htype == hwaddr.htype);
        is_same_type && (!has_id || lease.client_key().is_none())
    });
}
