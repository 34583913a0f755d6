//! The DHCPv6 lease.

use std::net::Ipv6Addr;

use super::private::{Parts, Token};
use super::{
    Duid, Family, Fields, HwAddr, Iaid, Lease, LeaseBase, LeaseError, LeaseState, LeaseType, Lifetime,
};

/// A DHCPv6 lease, of an address or of a delegated prefix.
///
/// It identifies its client by DUID and IAID; only a declined or reclaimed lease may have the empty
/// DUID. A lease that a server has recorded may have values that a new lease must not have
/// ([`Duid::recorded`], [`Lease6::recorded_prefix`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease6 {
    base: LeaseBase<Ipv6Addr>,
    pub(super) lease_type: LeaseType,
    prefix_len: u8,
    pub(super) duid: Duid,
    /// The client's identity association for the lease.
    pub(super) iaid: Iaid,
    /// The preferred lifetime of the address, in seconds.
    pub(super) preferred_lifetime: Lifetime,
    /// The hardware address of the client, if the server knows it.
    pub(super) hwaddr: Option<HwAddr>,
}

impl Lease6 {
    /// Creates a lease of a single address, with all other values at their defaults.
    ///
    /// # Errors
    /// Returns [`LeaseError::EmptyDuid`] if the DUID is empty and the state is neither declined nor
    /// reclaimed.
    pub fn new(
        lease_type: LeaseType,
        address: Ipv6Addr,
        duid: Duid,
        iaid: Iaid,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let lease = Self { lease_type, duid, iaid, ..Self::without_client(address, state) };
        lease.check_state(state)?;
        Ok(lease)
    }

    /// Creates a lease of the delegated prefix `address`/`prefix_len`, with all other values at
    /// their defaults.
    ///
    /// # Errors
    /// Returns [`LeaseError::PrefixLength`] if the length is greater than 128,
    /// [`LeaseError::PrefixBits`] if the address has bits set after it, and the errors of
    /// [`Lease6::new`].
    pub fn new_prefix(
        address: Ipv6Addr,
        prefix_len: u32,
        duid: Duid,
        iaid: Iaid,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let lease = Self::recorded_prefix(address, prefix_len, duid, iaid, state)?;
        lease.check_prefix_bits()?;
        Ok(lease)
    }

    /// Creates a lease of the delegated prefix `address`/`prefix_len` as a server has recorded it,
    /// with all other values at their defaults. Kea 2.2 also delegates prefixes with bits set after
    /// their length. Such bits are kept, and two leases whose addresses differ only in such bits
    /// are different leases.
    ///
    /// # Errors
    /// Returns [`LeaseError::PrefixLength`] if the length is greater than 128, and the errors of
    /// [`Lease6::new`].
    pub fn recorded_prefix(
        address: Ipv6Addr,
        prefix_len: u32,
        duid: Duid,
        iaid: Iaid,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let mut lease = Self { duid, iaid, ..Self::without_client(address, state) };
        lease.set_prefix(prefix_len)?;
        lease.check_state(state)?;
        Ok(lease)
    }

    /// Creates a lease of a non-temporary address without a client. The state must be declined or
    /// reclaimed.
    pub(super) fn without_client(address: Ipv6Addr, state: LeaseState) -> Self {
        Self {
            base: LeaseBase::new(address, state),
            lease_type: LeaseType::NA,
            prefix_len: 128,
            duid: Duid::empty(),
            iaid: Iaid(0),
            preferred_lifetime: Lifetime(0),
            hwaddr: None,
        }
    }

    /// Makes the lease that of a prefix of this length.
    pub(super) fn set_prefix(&mut self, prefix_len: u32) -> Result<(), LeaseError> {
        self.prefix_len = match u8::try_from(prefix_len) {
            Ok(len) if len <= 128 => len,
            _ => return Err(LeaseError::PrefixLength { len: prefix_len }),
        };
        self.lease_type = LeaseType::PD;
        Ok(())
    }

    pub(super) fn check_prefix_bits(&self) -> Result<(), LeaseError> {
        let (address, len) = (self.address(), self.prefix_len);
        if address.to_bits().checked_shl(len.into()).unwrap_or(0) != 0 {
            return Err(LeaseError::PrefixBits { address, len });
        }
        Ok(())
    }

    /// Creates a lease from the parts of a stored lease, which was valid. The preferred lifetime is
    /// 0.
    pub(crate) fn from_stored(
        base: LeaseBase<Ipv6Addr>,
        (lease_type, prefix_len): (LeaseType, u8),
        duid: Duid,
        iaid: Iaid,
        hwaddr: Option<HwAddr>,
    ) -> Self {
        Self { base, lease_type, prefix_len, duid, iaid, preferred_lifetime: Lifetime(0), hwaddr }
    }

    /// Returns the type of the lease.
    #[must_use]
    pub fn lease_type(&self) -> LeaseType {
        self.lease_type
    }

    /// Returns the length of a delegated prefix in bits; 128 for other leases.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Returns the client's DUID; [`Duid::empty`] if the lease has no client.
    #[must_use]
    pub fn duid(&self) -> &Duid {
        &self.duid
    }

    /// Returns the client's identity association for the lease.
    #[must_use]
    pub fn iaid(&self) -> Iaid {
        self.iaid
    }

    /// Changes the client's identity association for the lease.
    pub fn set_iaid(&mut self, iaid: impl Into<Iaid>) {
        self.iaid = iaid.into();
    }

    /// Changes the client of the lease, and its identity association.
    ///
    /// # Errors
    /// Returns [`LeaseError::EmptyDuid`] if the DUID is empty and the lease is neither declined nor
    /// reclaimed.
    pub fn set_client(&mut self, duid: Duid, iaid: impl Into<Iaid>) -> Result<(), LeaseError> {
        let state = self.state();
        if duid.is_new_empty() && !state.may_lack_client() {
            return Err(LeaseError::EmptyDuid { state });
        }
        (self.duid, self.iaid) = (duid, iaid.into());
        Ok(())
    }

    /// Returns the preferred lifetime of the address, in seconds.
    #[must_use]
    pub fn preferred_lifetime(&self) -> Lifetime {
        self.preferred_lifetime
    }

    /// Changes the preferred lifetime of the address, in seconds.
    pub fn set_preferred_lifetime(&mut self, lifetime: impl Into<Lifetime>) {
        self.preferred_lifetime = lifetime.into();
    }

    /// Changes the hardware address of the client.
    pub fn set_hwaddr(&mut self, hwaddr: impl Into<Option<HwAddr>>) {
        self.hwaddr = hwaddr.into();
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

    fn client_fields<'a>(&'a self, fields: &mut Fields<'a>) {
        fields.client = Some(self.duid.as_bytes());
        fields.lease_type = self.lease_type;
        fields.prefix_len = self.prefix_len;
        fields.iaid = self.iaid;
        fields.preferred_lifetime = self.preferred_lifetime;
    }

    fn of_client_fields(base: LeaseBase<Ipv6Addr>, fields: &Fields<'_>) -> Result<Self, LeaseError> {
        let mut lease = Self {
            base,
            lease_type: fields.lease_type,
            prefix_len: 128,
            duid: Duid::recorded(fields.client.unwrap_or_default())?,
            iaid: fields.iaid,
            preferred_lifetime: fields.preferred_lifetime,
            hwaddr: fields.hwaddr()?,
        };
        if lease.lease_type == LeaseType::PD {
            lease.set_prefix(fields.prefix_len.into())?;
        }
        Ok(lease)
    }
}

impl Lease for Lease6 {
    type Address = Ipv6Addr;

    const FAMILY: Family = Family::V6;

    fn hwaddr(&self) -> Option<&HwAddr> {
        self.hwaddr.as_ref()
    }

    fn check_state(&self, state: LeaseState) -> Result<(), LeaseError> {
        if self.duid.is_new_empty() && !state.may_lack_client() {
            return Err(LeaseError::EmptyDuid { state });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{UserContext, system_time};

    fn duid() -> Duid {
        Duid::new(&[0, 1, 0, 1, 5]).unwrap()
    }

    #[test]
    fn only_a_declined_or_reclaimed_lease_may_lack_a_client() {
        let new = |state| Lease6::new(LeaseType::NA, Ipv6Addr::LOCALHOST, Duid::empty(), Iaid(1), state);
        assert!(new(LeaseState::DECLINED).is_ok() && new(LeaseState::EXPIRED_RECLAIMED).is_ok());
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
        #[case] valid: bool,
    ) {
        let lease = Lease6::new_prefix(address, len, duid(), Iaid(1), LeaseState::DEFAULT);
        assert_eq!(lease.is_ok(), valid, "{lease:?}");
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
    fn the_empty_duid_of_kea_2_is_recorded_in_any_state() {
        let duid = Duid::recorded(&[0]).unwrap();
        assert!(duid.is_empty() && duid != Duid::empty());
        let lease = |state| Lease6::new(LeaseType::NA, Ipv6Addr::LOCALHOST, duid.clone(), Iaid(1), state);
        let mut lease = lease(LeaseState::DEFAULT).unwrap();
        // Otherwise an expired one could not be reclaimed.
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
        lease.decline(system_time(1000), Lifetime(60));
        assert_eq!(lease.data().user_context, Some(context));
        assert!(lease.duid().is_empty());
        assert_eq!((lease.hwaddr(), lease.preferred_lifetime), (None, Lifetime(0)));
        assert_eq!(lease.expires_at(), 1060);
    }

    #[test]
    fn a_lease_is_compact() {
        assert!(size_of::<Lease6>() <= 144, "{}", size_of::<Lease6>());
    }
}
