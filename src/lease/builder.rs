//! Builds leases value by value.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use super::private::Token;
use super::{
    Client4, Duid, Hostname, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseError, LeaseState, LeaseType,
    Lifetime, PoolId, SubnetId, UserContext, seconds_since_epoch,
};

/// State of a [`Builder`] without a client: it cannot build.
#[derive(Clone, Copy, Debug)]
pub enum WithoutClient {}

/// State of a [`Builder`] whose client is given, or whose lease has no client.
#[derive(Clone, Copy, Debug)]
pub enum WithClient {}

/// Builds a lease. Created by [`Lease4::builder`], [`Lease6::builder`],
/// [`Lease6::temporary_builder`], [`Lease6::prefix_builder`], [`Lease4::declined`] or
/// [`Lease6::declined`].
///
/// Values that are not given are 0, empty or `None`: the lease is in use ([`LeaseState::DEFAULT`])
/// in subnet 0 with a lifetime of 0.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder<L, C = WithClient> {
    /// Client and state may be inconsistent until the lease is built.
    lease: Result<L, LeaseError>,
    client: PhantomData<C>,
}

impl<L: Lease, C> Builder<L, C> {
    pub(super) fn new(lease: Result<L, LeaseError>) -> Self {
        Self { lease, client: PhantomData }
    }

    fn with(mut self, set: impl FnOnce(&mut L)) -> Self {
        if let Ok(lease) = &mut self.lease {
            set(lease);
        }
        self
    }

    /// Sets the client, or records an error.
    fn of_client(self, set: impl FnOnce(&mut L) -> Result<(), LeaseError>) -> Builder<L> {
        Builder::new(self.lease.and_then(|mut lease| set(&mut lease).map(|()| lease)))
    }

    /// Sets the state of the lease.
    pub fn state(self, state: LeaseState) -> Self {
        self.with(|lease| lease.base_mut(Token(())).state = state)
    }

    /// Sets the subnet of the address.
    pub fn subnet(self, subnet: impl Into<SubnetId>) -> Self {
        self.with(|lease| lease.data_mut().subnet_id = subnet.into())
    }

    /// Sets the pool of the address.
    pub fn pool(self, pool: impl Into<PoolId>) -> Self {
        self.with(|lease| lease.data_mut().pool_id = pool.into())
    }

    /// Sets the valid lifetime, in seconds from when the client was heard.
    pub fn lifetime(self, lifetime: impl Into<Lifetime>) -> Self {
        self.with(|lease| lease.data_mut().valid_lifetime = lifetime.into())
    }

    /// Sets when the client was heard. Fractions of a second are dropped.
    pub fn heard_at(self, time: SystemTime) -> Self {
        self.cltt(seconds_since_epoch(time))
    }

    /// Sets when the client was heard, in seconds since the epoch.
    pub fn cltt(self, seconds: i64) -> Self {
        self.with(|lease| lease.data_mut().cltt = seconds)
    }

    /// Sets the name of the client.
    pub fn hostname(self, hostname: impl Into<Hostname>) -> Self {
        self.with(|lease| lease.data_mut().hostname = hostname.into())
    }

    /// Sets whether the server has added the name to the forward and to the reverse zone of the
    /// DNS.
    pub fn fqdn(self, forward: bool, reverse: bool) -> Self {
        self.with(|lease| {
            lease.data_mut().fqdn_fwd = forward;
            lease.data_mut().fqdn_rev = reverse;
        })
    }

    /// Sets the data that the server and its hooks attach to the lease.
    pub fn user_context(self, context: impl Into<Option<UserContext>>) -> Self {
        self.with(|lease| lease.data_mut().user_context = context.into())
    }
}

impl<L: Lease> Builder<L> {
    /// Returns the lease.
    ///
    /// # Errors
    /// Returns the error of the first invalid value, and [`LeaseError`] if the lease has no client
    /// in a state that requires one.
    pub fn build(self) -> Result<L, LeaseError> {
        let lease = self.lease?;
        lease.check_state(lease.state())?;
        Ok(lease)
    }
}

impl<C> Builder<Lease4, C> {
    /// Sets the client: a [`HwAddr`], a [`ClientId`](super::ClientId), or both as a pair.
    pub fn client<T: TryInto<Client4, Error: Into<LeaseError>>>(self, client: T) -> Builder<Lease4> {
        self.of_client(|lease| {
            lease.set_client(client.try_into().map_err(Into::into)?);
            Ok(())
        })
    }
}

impl<C> Builder<Lease6, C> {
    /// Sets the client, and its identity association for the lease.
    pub fn client<T: TryInto<Duid, Error: Into<LeaseError>>>(
        self,
        duid: T,
        iaid: impl Into<Iaid>,
    ) -> Builder<Lease6> {
        self.of_client(|lease| {
            lease.duid = duid.try_into().map_err(Into::into)?;
            lease.iaid = iaid.into();
            Ok(())
        })
    }

    /// Sets the preferred lifetime of the address, in seconds.
    pub fn preferred_lifetime(self, lifetime: impl Into<Lifetime>) -> Self {
        self.with(|lease| lease.preferred_lifetime = lifetime.into())
    }

    /// Sets the hardware address of the client, if the server knows it.
    pub fn hwaddr(self, hwaddr: impl Into<Option<HwAddr>>) -> Self {
        self.with(|lease| lease.hwaddr = hwaddr.into())
    }
}

impl Lease4 {
    /// Starts a lease of `address`. It can be built once it has a client:
    ///
    /// ```compile_fail,E0599
    /// use leasemgr::lease::Lease4;
    ///
    /// let lease = Lease4::builder([192, 0, 2, 1].into()).subnet(1).lifetime(3600).build();
    /// ```
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use leasemgr::lease::{HwAddr, Lease4, LeaseError};
    ///
    /// let now = SystemTime::now();
    /// let lease = Lease4::builder([192, 0, 2, 1].into())
    ///     .client(HwAddr::from([2, 0, 0, 0, 0, 1]))
    ///     .subnet(1)
    ///     .lifetime(3600)
    ///     .heard_at(now)
    ///     .build()?;
    /// assert!(!lease.is_expired(now) && lease.is_expired(now + Duration::from_secs(3600)));
    /// # Ok::<(), LeaseError>(())
    /// ```
    pub fn builder(address: Ipv4Addr) -> Builder<Self, WithoutClient> {
        Builder::new(Ok(Self::without_client(address, LeaseState::DEFAULT)))
    }

    /// Starts a declined lease of `address`, which has no client. Its lifetime is the probation
    /// period.
    ///
    /// ```
    /// use leasemgr::lease::{Lease4, LeaseState};
    ///
    /// let lease = Lease4::declined([192, 0, 2, 1].into()).subnet(1).lifetime(86400).build()?;
    /// assert_eq!((lease.state(), lease.client()), (LeaseState::DECLINED, None));
    /// # Ok::<(), leasemgr::lease::LeaseError>(())
    /// ```
    pub fn declined(address: Ipv4Addr) -> Builder<Self> {
        Builder::new(Ok(Self::without_client(address, LeaseState::DECLINED)))
    }
}

impl Lease6 {
    /// Starts a lease of a non-temporary address. It can be built once it has a client.
    ///
    /// ```
    /// use leasemgr::lease::{Duid, Iaid, Lease6};
    ///
    /// let lease = Lease6::builder("2001:db8::1".parse()?)
    ///     .client(Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1])?, 7)
    ///     .subnet(1)
    ///     .lifetime(3600)
    ///     .preferred_lifetime(1800)
    ///     .build()?;
    /// assert_eq!(lease.iaid(), Iaid(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(address: Ipv6Addr) -> Builder<Self, WithoutClient> {
        Builder::new(Ok(Self::without_client(address, LeaseState::DEFAULT)))
    }

    /// Starts a lease of a temporary address (RFC 8415 section 13.2).
    pub fn temporary_builder(address: Ipv6Addr) -> Builder<Self, WithoutClient> {
        let mut lease = Self::without_client(address, LeaseState::DEFAULT);
        lease.lease_type = LeaseType::TA;
        Builder::new(Ok(lease))
    }

    /// Starts a lease of the delegated prefix `address`/`prefix_len`. Building it returns
    /// [`LeaseError::PrefixLength`] if the length is greater than 128, and
    /// [`LeaseError::PrefixBits`] if the address has bits set after the length.
    ///
    /// ```
    /// use leasemgr::lease::{Duid, Lease6};
    ///
    /// let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1])?;
    /// let lease = Lease6::prefix_builder("2001:db8:8::".parse()?, 56).client(duid.clone(), 1).build()?;
    /// assert_eq!(lease.prefix_len(), 56);
    /// assert!(Lease6::prefix_builder("2001:db8:8::1".parse()?, 56).client(duid, 1).build().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefix_builder(address: Ipv6Addr, prefix_len: u32) -> Builder<Self, WithoutClient> {
        let mut lease = Self::without_client(address, LeaseState::DEFAULT);
        let set = lease.set_prefix(prefix_len).and_then(|()| lease.check_prefix_bits());
        Builder::new(set.map(|()| lease))
    }

    /// Starts a declined lease of a non-temporary address, which has no client. Its lifetime is the
    /// probation period.
    pub fn declined(address: Ipv6Addr) -> Builder<Self> {
        Builder::new(Ok(Self::without_client(address, LeaseState::DECLINED)))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{ClientId, system_time};

    const ADDRESS4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn hwaddr() -> HwAddr {
        HwAddr::from([2, 0, 0, 0, 0, 1])
    }

    fn duid() -> Duid {
        Duid::new(&[0, 3, 0, 1, 7]).unwrap()
    }

    #[test]
    fn a_lease_has_the_given_values() {
        let context = UserContext::parse(br#"{ "a": 1 }"#).unwrap();
        let id = ClientId::new(&[1, 2]).unwrap();
        let lease = Lease4::builder(ADDRESS4)
            .client((hwaddr(), id.clone()))
            .state(LeaseState::OFFERED)
            .subnet(7)
            .pool(8)
            .lifetime(60)
            .heard_at(system_time(-20))
            .hostname("a.example")
            .fqdn(true, false)
            .user_context(context.clone())
            .build()
            .unwrap();
        assert_eq!((lease.address(), lease.state()), (ADDRESS4, LeaseState::OFFERED));
        assert_eq!((lease.hwaddr(), lease.client_id()), (Some(&hwaddr()), Some(&id)));
        assert_eq!(lease.client(), Some((hwaddr(), id).into()));
        assert_eq!((lease.subnet_id(), lease.pool_id()), (SubnetId(7), PoolId(8)));
        assert_eq!((lease.valid_lifetime(), lease.cltt()), (Lifetime(60), -20));
        assert_eq!(lease.valid_until(), Some(system_time(40)));
        assert_eq!(
            (lease.hostname(), lease.fqdn_fwd(), lease.fqdn_rev()),
            (&"a.example".into(), true, false)
        );
        assert_eq!(lease.user_context(), Some(&context));
    }

    #[test]
    fn a_dhcpv6_lease_has_the_given_values() {
        let lease = Lease6::temporary_builder(Ipv6Addr::LOCALHOST)
            .client(duid().as_bytes(), 9)
            .preferred_lifetime(30)
            .hwaddr(hwaddr())
            .build()
            .unwrap();
        assert_eq!((lease.lease_type(), lease.prefix_len()), (LeaseType::TA, 128));
        assert_eq!((lease.duid(), lease.iaid()), (&duid(), Iaid(9)));
        assert_eq!((lease.preferred_lifetime(), lease.hwaddr()), (Lifetime(30), Some(&hwaddr())));
    }

    #[test]
    fn build_returns_the_first_error() {
        let none = (None, None);
        let error = LeaseError::NoIdentity { state: LeaseState::DEFAULT };
        assert_eq!(Lease4::builder(ADDRESS4).client(none).subnet(1).build(), Err(error));
        let len = LeaseError::PrefixLength { len: 129 };
        assert_eq!(Lease6::prefix_builder(Ipv6Addr::LOCALHOST, 129).client(&[0][..], 1).build(), Err(len));
        let empty = LeaseError::EmptyDuid { state: LeaseState::DEFAULT };
        assert_eq!(Lease6::builder(Ipv6Addr::LOCALHOST).client(Duid::empty(), 1).build(), Err(empty));
    }

    #[rstest]
    #[case(LeaseState::DECLINED, true)]
    #[case(LeaseState::EXPIRED_RECLAIMED, true)]
    #[case(LeaseState::DEFAULT, false)]
    #[case(LeaseState::RELEASED, false)]
    #[case(LeaseState::OFFERED, false)]
    fn a_lease_without_a_client_is_declined_or_reclaimed(#[case] state: LeaseState, #[case] possible: bool) {
        let lease4 = Lease4::declined(ADDRESS4).state(state).build();
        let lease6 = Lease6::declined(Ipv6Addr::LOCALHOST).state(state).build();
        assert_eq!((lease4.is_ok(), lease6.is_ok()), (possible, possible));
    }
}
