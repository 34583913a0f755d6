//! The DHCPv6 lease.

use std::net::Ipv6Addr;

use super::private::{Parts, Token};
use super::{Duid, Family, HwAddr, Iaid, Lease, LeaseBase, LeaseError, LeaseState, LeaseType, Lifetime};

/// A DHCPv6 lease, of an address or of a delegated prefix.
///
/// It names its client by DUID and IAID; only a declined lease has the empty DUID. A lease that a server has
/// recorded is kept as it stands, where a new one would be refused ([`Duid::recorded`],
/// [`Lease6::recorded_prefix`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease6 {
    base: LeaseBase<Ipv6Addr>,
    lease_type: LeaseType,
    prefix_len: u8,
    duid: Duid,
    /// The identity association that the client uses the lease in.
    pub iaid: Iaid,
    /// For how long the client should prefer the address, in seconds.
    pub preferred_lifetime: Lifetime,
    /// The hardware address of the client, where the server learned it.
    pub hwaddr: Option<HwAddr>,
}

impl Lease6 {
    /// A lease of a single address, with all else at its defaults.
    ///
    /// # Errors
    /// [`LeaseError::EmptyDuid`] where a lease that is not declined has the empty DUID.
    pub fn new(
        lease_type: LeaseType,
        address: Ipv6Addr,
        duid: Duid,
        iaid: Iaid,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let lease = Self {
            base: LeaseBase::new(address, state),
            lease_type,
            prefix_len: 128,
            duid,
            iaid,
            preferred_lifetime: Lifetime(0),
            hwaddr: None,
        };
        lease.check_state(state)?;
        Ok(lease)
    }

    /// A lease of the delegated prefix `address`/`prefix_len`, with all else at its defaults.
    ///
    /// # Errors
    /// [`LeaseError::PrefixLength`] for a length beyond 128, [`LeaseError::PrefixBits`] where the
    /// address has bits set behind it, and as [`Lease6::new`].
    pub fn new_prefix(
        address: Ipv6Addr,
        prefix_len: u32,
        duid: Duid,
        iaid: Iaid,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let lease = Self::recorded_prefix(address, prefix_len, duid, iaid, state)?;
        if address.to_bits().checked_shl(prefix_len).unwrap_or(0) != 0 {
            return Err(LeaseError::PrefixBits { address, len: lease.prefix_len });
        }
        Ok(lease)
    }

    /// A lease of the delegated prefix `address`/`prefix_len` as a server has recorded it, with all else at its
    /// defaults. Kea 2.2 also delegates prefixes that have bits set after their length: these are kept, and two
    /// leases whose addresses differ in such bits only are two leases.
    ///
    /// # Errors
    /// Returns [`LeaseError::PrefixLength`] if the length is beyond 128, and fails as [`Lease6::new`].
    pub fn recorded_prefix(
        address: Ipv6Addr,
        prefix_len: u32,
        duid: Duid,
        iaid: Iaid,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let len = match u8::try_from(prefix_len) {
            Ok(len) if len <= 128 => len,
            _ => return Err(LeaseError::PrefixLength { len: prefix_len }),
        };
        let mut lease = Self::new(LeaseType::PD, address, duid, iaid, state)?;
        lease.prefix_len = len;
        Ok(lease)
    }

    /// A lease of parts that were one before. The preferred lifetime is 0.
    pub(crate) fn from_stored(
        base: LeaseBase<Ipv6Addr>,
        (lease_type, prefix_len): (LeaseType, u8),
        duid: Duid,
        iaid: Iaid,
        hwaddr: Option<HwAddr>,
    ) -> Self {
        Self { base, lease_type, prefix_len, duid, iaid, preferred_lifetime: Lifetime(0), hwaddr }
    }

    /// What is leased.
    #[must_use]
    pub fn lease_type(&self) -> LeaseType {
        self.lease_type
    }

    /// The length of a delegated prefix in bits; 128 of everything else.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The client's DUID.
    #[must_use]
    pub fn duid(&self) -> &Duid {
        &self.duid
    }
}

impl Parts<Ipv6Addr> for Lease6 {
    fn base(&self) -> &LeaseBase<Ipv6Addr> {
        &self.base
    }

    fn base_mut(&mut self, _: Token) -> &mut LeaseBase<Ipv6Addr> {
        &mut self.base
    }

    fn forget_client(&mut self, _: Token) {
        self.duid = Duid::empty();
        self.hwaddr = None;
        self.preferred_lifetime = Lifetime(0);
    }
}

impl Lease for Lease6 {
    type Address = Ipv6Addr;

    const FAMILY: Family = Family::V6;

    fn hwaddr(&self) -> Option<&HwAddr> {
        self.hwaddr.as_ref()
    }

    fn check_state(&self, state: LeaseState) -> Result<(), LeaseError> {
        if self.duid.is_new_empty() && state != LeaseState::DECLINED {
            return Err(LeaseError::EmptyDuid { state });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::UserContext;

    fn duid() -> Duid {
        Duid::new(&[0, 1, 0, 1, 5]).unwrap()
    }

    #[test]
    fn a_lease_without_a_client_is_declined_or_impossible() {
        let new = |state| Lease6::new(LeaseType::NA, Ipv6Addr::LOCALHOST, Duid::empty(), Iaid(1), state);
        assert!(new(LeaseState::DECLINED).is_ok());
        assert_eq!(new(LeaseState::RELEASED), Err(LeaseError::EmptyDuid { state: LeaseState(3) }));
    }

    #[rstest]
    #[case("2001:db8::", 64, true)]
    #[case("2001:db8::1", 64, false)]
    #[case("2001:db8::1", 128, true)]
    #[case("::", 0, true)]
    #[case("8000::", 0, false)]
    #[case("2001:db8::", 129, false)]
    #[case("2001:db8::", 256, false)]
    fn a_new_prefix_has_no_bits_after_its_length_but_a_recorded_one_may(
        #[case] address: Ipv6Addr,
        #[case] len: u32,
        #[case] good: bool,
    ) {
        let lease = Lease6::new_prefix(address, len, duid(), Iaid(1), LeaseState::DEFAULT);
        assert_eq!(lease.is_ok(), good, "{lease:?}");
        let recorded = Lease6::recorded_prefix(address, len, duid(), Iaid(1), LeaseState::DEFAULT);
        match recorded {
            Ok(lease) => assert_eq!((lease.address(), u32::from(lease.prefix_len())), (address, len)),
            Err(error) => assert_eq!((len > 128, error), (true, LeaseError::PrefixLength { len })),
        }
    }

    #[test]
    fn recorded_prefixes_that_differ_in_length_or_later_bits_are_different_leases() {
        let lease = |address: &str, len| {
            let address = address.parse().unwrap();
            Lease6::recorded_prefix(address, len, duid(), Iaid(1), LeaseState::DEFAULT).unwrap()
        };
        let leases = [("2001:db8::", 64), ("2001:db8::1", 64), ("2001:db8::1", 56), ("2001:db8::", 56)];
        let leases = leases.map(|(address, len)| lease(address, len));
        for (n, one) in leases.iter().enumerate() {
            assert_eq!(leases.iter().position(|other| other == one), Some(n));
        }
    }

    #[test]
    fn the_empty_duid_of_kea_2_is_empty_in_any_state() {
        let duid = Duid::recorded(&[0]).unwrap();
        assert!(duid.is_empty() && duid != Duid::empty());
        let lease = |state| Lease6::new(LeaseType::NA, Ipv6Addr::LOCALHOST, duid.clone(), Iaid(1), state);
        let mut lease = lease(LeaseState::DEFAULT).unwrap();
        // Else one that has ended could not be reclaimed.
        assert_eq!(lease.set_state(LeaseState::EXPIRED_RECLAIMED), Ok(()));
    }

    #[test]
    fn declining_forgets_the_client_and_starts_the_probation() {
        let mut lease =
            Lease6::new(LeaseType::NA, Ipv6Addr::LOCALHOST, duid(), Iaid(1), LeaseState::DEFAULT).unwrap();
        lease.hwaddr = Some(HwAddr::new(&[1; 6]).unwrap());
        lease.preferred_lifetime = Lifetime(50);
        lease.data_mut().hostname = "a.example".into();
        let context = UserContext::parse(b"{ \"a\": 1 }").unwrap();
        lease.data_mut().user_context = Some(context.clone());
        lease.decline(1000, Lifetime(60));
        assert_eq!(lease.data().user_context, Some(context));
        assert!(lease.duid().is_empty());
        assert_eq!((lease.hwaddr(), lease.preferred_lifetime), (None, Lifetime(0)));
        assert_eq!(lease.expire(), 1060);
    }

    #[test]
    fn a_lease_is_compact() {
        assert!(size_of::<Lease6>() <= 144, "{}", size_of::<Lease6>());
    }
}
