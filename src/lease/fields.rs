//! The columns of a lease, for backends that keep them apart.

use std::net::IpAddr;

use super::{HwAddr, HwSource, HwType, Iaid, LeaseError, LeaseState, LeaseType, Lifetime, PoolId, SubnetId};

/// What a lease of either family is made of, one value for each column that a backend has for it.
///
/// [`Lease::fields`](super::Lease::fields) takes a lease apart, [`Lease::from_fields`](super::Lease::from_fields) makes
/// one. A backend with tables for both families needs no code of its own for each:
///
/// ```
/// use leasemgr::lease::{Fields, HwAddr, Lease, Lease4, LeaseError};
///
/// fn insert<L: Lease>(lease: &L) -> Vec<String> {
///     let fields = lease.fields();
///     vec![fields.address.to_string(), fields.cltt.to_string(), fields.valid_lifetime.to_string()]
/// }
///
/// let lease = Lease4::builder([192, 0, 2, 1].into()).client(HwAddr::from([2, 0, 0, 0, 0, 1])).build()?;
/// assert_eq!(insert(&lease), ["192.0.2.1", "0", "0"]);
///
/// let mut fields = Fields::new([192, 0, 2, 1].into());
/// fields.hwaddr = Some(&[2, 0, 0, 0, 0, 1]);
/// assert_eq!(Lease4::from_fields(fields)?, lease);
/// # Ok::<(), LeaseError>(())
/// ```
///
/// Ids of relay agents are not values of their own: they are part of the user context
/// ([`RelayInfo`](super::RelayInfo)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fields<'a> {
    /// The address; of a delegated prefix, its first address. Of the lease's family.
    pub address: IpAddr,
    /// What the lease is used as.
    pub state: LeaseState,
    /// For how long the lease is valid, in seconds from `cltt`.
    pub valid_lifetime: Lifetime,
    /// When the client was last heard, in seconds since the epoch.
    pub cltt: i64,
    /// The subnet that the address is in.
    pub subnet_id: SubnetId,
    /// The pool that the address is from.
    pub pool_id: PoolId,
    /// Whether the server has put the name into the forward zone of the DNS.
    pub fqdn_fwd: bool,
    /// Whether the server has put the name into the reverse zone of the DNS.
    pub fqdn_rev: bool,
    /// The name of the client, empty where it has none.
    pub hostname: &'a [u8],
    /// The JSON map of the user context.
    pub user_context: Option<&'a str>,
    /// The hardware address of the client, 1 to 20 bytes.
    pub hwaddr: Option<&'a [u8]>,
    /// The type of the hardware address.
    pub hwtype: HwType,
    /// Where a DHCPv6 server learned the hardware address.
    pub hwaddr_source: HwSource,
    /// What names the client: of DHCPv4 the client id, 2 to 255 bytes, which a lease may lack; of DHCPv6 the DUID, 1 to 130 bytes, `00:00:00`
    /// where the lease belongs to no client.
    pub client: Option<&'a [u8]>,
    /// What is leased; `NA` in DHCPv4.
    pub lease_type: LeaseType,
    /// The length of a delegated prefix in bits, 0 to 128; 128 of everything else in DHCPv6, 32 in DHCPv4.
    pub prefix_len: u8,
    /// The identity association; 0 in DHCPv4.
    pub iaid: Iaid,
    /// For how long the client should prefer the address, in seconds; 0 in DHCPv4.
    pub preferred_lifetime: Lifetime,
}

impl Fields<'_> {
    /// Those of an address, with all else 0, empty or none.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            state: LeaseState::DEFAULT,
            valid_lifetime: Lifetime(0),
            cltt: 0,
            subnet_id: SubnetId(0),
            pool_id: PoolId(0),
            fqdn_fwd: false,
            fqdn_rev: false,
            hostname: &[],
            user_context: None,
            hwaddr: None,
            hwtype: HwType::ETHERNET,
            hwaddr_source: HwSource(0),
            client: None,
            lease_type: LeaseType::NA,
            prefix_len: if address.is_ipv4() { 32 } else { 128 },
            iaid: Iaid(0),
            preferred_lifetime: Lifetime(0),
        }
    }

    /// The hardware address.
    pub(super) fn hwaddr(&self) -> Result<Option<HwAddr>, LeaseError> {
        let Some(bytes) = self.hwaddr else {
            return Ok(None);
        };
        let mut hwaddr = HwAddr::new(bytes)?;
        (hwaddr.htype, hwaddr.source) = (self.hwtype, self.hwaddr_source);
        Ok(Some(hwaddr))
    }
}
