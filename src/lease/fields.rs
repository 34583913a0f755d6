//! The values of a lease as columns, for backends that store them separately.

use std::net::IpAddr;

use super::{HwAddr, HwSource, HwType, Iaid, LeaseError, LeaseState, LeaseType, Lifetime, PoolId, SubnetId};

/// The values of a lease of either family, one for each column of a table.
///
/// [`Lease::fields`](super::Lease::fields) returns them,
/// [`Lease::from_fields`](super::Lease::from_fields) creates a lease from them. A backend with
/// tables for both families does not need code of its own for each:
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
/// The ids of relay agents are not separate values: they are in the user context
/// ([`RelayInfo`](super::RelayInfo)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Fields<'a> {
    /// The address; for a delegated prefix, its first address. Of the lease's family.
    pub address: IpAddr,
    /// The state of the lease.
    pub state: LeaseState,
    /// For how long the lease is valid, in seconds from `cltt`.
    pub valid_lifetime: Lifetime,
    /// When the client was last heard, in seconds since the epoch.
    pub cltt: i64,
    /// The subnet of the address.
    pub subnet_id: SubnetId,
    /// The pool of the address.
    pub pool_id: PoolId,
    /// Whether the server has added the name to the forward zone of the DNS.
    pub fqdn_fwd: bool,
    /// Whether the server has added the name to the reverse zone of the DNS.
    pub fqdn_rev: bool,
    /// The name of the client, empty if it has none.
    pub hostname: &'a [u8],
    /// The JSON map of the user context.
    pub user_context: Option<&'a str>,
    /// The hardware address of the client, 1 to 20 bytes.
    pub hwaddr: Option<&'a [u8]>,
    /// The type of the hardware address.
    pub hwtype: HwType,
    /// The source from which a DHCPv6 server learned the hardware address.
    pub hwaddr_source: HwSource,
    /// The identifier of the client: in DHCPv4 the client id, 2 to 255 bytes, which a lease may
    /// lack; in DHCPv6 the DUID, 1 to 130 bytes, `00:00:00` if the lease has no client.
    pub client: Option<&'a [u8]>,
    /// The type of the lease; `NA` in DHCPv4.
    pub lease_type: LeaseType,
    /// The length of a delegated prefix in bits, 0 to 128; 128 for other leases in DHCPv6, 32 in
    /// DHCPv4.
    pub prefix_len: u8,
    /// The identity association; 0 in DHCPv4.
    pub iaid: Iaid,
    /// The preferred lifetime of the address, in seconds; 0 in DHCPv4.
    pub preferred_lifetime: Lifetime,
}

impl Fields<'_> {
    /// Creates the fields of an address, with all other values 0, empty or `None`.
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

    /// Returns the hardware address.
    pub(super) fn hwaddr(&self) -> Result<Option<HwAddr>, LeaseError> {
        let Some(bytes) = self.hwaddr else {
            return Ok(None);
        };
        let mut hwaddr = HwAddr::new(bytes)?;
        (hwaddr.htype, hwaddr.source) = (self.hwtype, self.hwaddr_source);
        Ok(Some(hwaddr))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::lease::{
        ClientId, Duid, Hostname, IdentifierError, IdentifierKind, Lease, Lease4, Lease6, LeaseData,
        UserContext,
    };

    fn any_data() -> impl Strategy<Value = LeaseData> {
        let context = prop::option::of(
            crate::kea_json::tests::json()
                .prop_map(|json| UserContext::parse(format!("{{\"a\": {json}}}").as_bytes()).unwrap()),
        );
        let numbers = (any::<u32>(), any::<i64>(), any::<u32>(), any::<u32>());
        let name = prop::collection::vec(any::<u8>(), 0..40);
        (numbers, any::<(bool, bool)>(), name, context).prop_map(|(numbers, fqdn, name, user_context)| {
            let (valid_lifetime, cltt, subnet_id, pool_id) = numbers;
            LeaseData {
                valid_lifetime: Lifetime(valid_lifetime),
                cltt,
                subnet_id: SubnetId(subnet_id),
                pool_id: PoolId(pool_id),
                fqdn_fwd: fqdn.0,
                fqdn_rev: fqdn.1,
                hostname: Hostname::new(&name),
                user_context,
            }
        })
    }

    fn any_hwaddr() -> impl Strategy<Value = HwAddr> {
        let bytes = prop::collection::vec(any::<u8>(), 1..=HwAddr::MAX_LEN);
        (bytes, any::<u16>(), any::<u32>()).prop_map(|(bytes, htype, source)| {
            let mut hwaddr = HwAddr::new(&bytes).unwrap();
            (hwaddr.htype, hwaddr.source) = (HwType(htype), HwSource(source));
            hwaddr
        })
    }

    fn any_state() -> impl Strategy<Value = LeaseState> {
        prop_oneof![0..5_u32, Just(128), any::<u32>()].prop_map(LeaseState)
    }

    fn any_lease4() -> impl Strategy<Value = Lease4> {
        let id = prop::collection::vec(any::<u8>(), 2..=255).prop_map(|id| ClientId::new(&id).unwrap());
        let client = (prop::option::of(any_hwaddr()), prop::option::of(id));
        (any::<Ipv4Addr>(), client, any_state(), any_data()).prop_filter_map(
            "a lease belongs to no client",
            |(address, (hwaddr, id), state, data)| {
                let mut lease = Lease4::new(address, hwaddr, id, state).ok()?;
                *lease.data_mut() = data;
                Some(lease)
            },
        )
    }

    fn any_lease6() -> impl Strategy<Value = Lease6> {
        let duid = prop_oneof![Just(vec![0; 3]), prop::collection::vec(any::<u8>(), 1..=130),];
        let lease_type = prop_oneof![0..3_u16, any::<u16>()].prop_map(LeaseType);
        let what = (any::<Ipv6Addr>(), lease_type, 0..=128_u32, any::<u32>(), any::<u32>());
        (what, duid, prop::option::of(any_hwaddr()), any_state(), any_data()).prop_filter_map(
            "a lease belongs to no client",
            |((address, lease_type, len, iaid, preferred), duid, hwaddr, state, data)| {
                let (duid, iaid) = (Duid::recorded(&duid).unwrap(), Iaid(iaid));
                let lease = if lease_type == LeaseType::PD {
                    Lease6::recorded_prefix(address, len, duid, iaid, state)
                } else {
                    Lease6::new(lease_type, address, duid, iaid, state)
                };
                let mut lease = lease.ok()?;
                lease.set_hwaddr(hwaddr);
                lease.set_preferred_lifetime(preferred);
                *lease.data_mut() = data;
                Some(lease)
            },
        )
    }

    proptest! {
        #[test]
        fn fields_give_an_equal_lease(lease4 in any_lease4(), lease6 in any_lease6()) {
            prop_assert_eq!(Lease4::from_fields(lease4.fields()), Ok(lease4));
            prop_assert_eq!(Lease6::from_fields(lease6.fields()), Ok(lease6));
        }
    }

    #[rstest]
    #[case::of_the_other_family(|fields: &mut Fields<'_>| fields.address = Ipv6Addr::LOCALHOST.into(), LeaseError::Family {
        address: Ipv6Addr::LOCALHOST.into(), expected: crate::lease::Family::V4,
    })]
    #[case::without_a_client(|fields: &mut Fields<'_>| fields.hwaddr = None, LeaseError::NoIdentity { state: LeaseState::DEFAULT })]
    #[case::of_a_short_client_id(
        |fields: &mut Fields<'_>| fields.client = Some(&[1]),
        IdentifierError::Length { kind: IdentifierKind::ClientId, len: 1, min: 2, max: 255 }.into(),
    )]
    #[case::of_an_empty_hardware_address(
        |fields: &mut Fields<'_>| fields.hwaddr = Some(&[]),
        IdentifierError::Length { kind: IdentifierKind::HwAddr, len: 0, min: 1, max: 20 }.into(),
    )]
    #[case::with_an_invalid_context(
        |fields: &mut Fields<'_>| fields.user_context = Some("[]"),
        UserContext::parse(b"[]").unwrap_err().into(),
    )]
    fn invalid_fields_are_refused(#[case] change: fn(&mut Fields<'_>), #[case] error: LeaseError) {
        let mut fields = Fields::new(Ipv4Addr::LOCALHOST.into());
        fields.hwaddr = Some(&[2, 0, 0, 0, 0, 1]);
        assert!(Lease4::from_fields(fields.clone()).is_ok());
        change(&mut fields);
        assert_eq!(Lease4::from_fields(fields), Err(error));
    }

    #[test]
    fn a_prefix_has_at_most_128_bits() {
        let mut fields = Fields::new(Ipv6Addr::LOCALHOST.into());
        (fields.client, fields.lease_type, fields.prefix_len) = (Some(&[1, 2, 3][..]), LeaseType::PD, 129);
        assert_eq!(Lease6::from_fields(fields.clone()), Err(LeaseError::PrefixLength { len: 129 }));
        fields.lease_type = LeaseType::NA;
        assert_eq!(Lease6::from_fields(fields).map(|lease| lease.prefix_len()), Ok(128));
    }

    fn columns<L: Lease>(lease: &L) -> (u8, Option<&[u8]>) {
        let fields = lease.fields();
        (fields.prefix_len, fields.client)
    }

    #[test]
    fn both_families_have_the_same_fields() {
        let lease4 = Lease4::declined(Ipv4Addr::LOCALHOST).build().unwrap();
        let lease6 = Lease6::declined(Ipv6Addr::LOCALHOST).build().unwrap();
        assert_eq!((columns(&lease4), columns(&lease6)), ((32, None), (128, Some(&[0, 0, 0][..]))));
    }
}
