//! The DHCPv4 lease.

use std::net::Ipv4Addr;

use super::private::{Parts, Token};
use super::{Client4, ClientId, Family, Fields, HwAddr, Lease, LeaseBase, LeaseError, LeaseState};

/// A DHCPv4 lease.
///
/// It identifies its client by hardware address, client id or both; only a declined or reclaimed
/// lease may have neither.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use leasemgr::lease::{HwAddr, Lease4};
///
/// let now = SystemTime::now();
/// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
/// let mut lease =
///     Lease4::builder([192, 0, 2, 1].into()).client(client).subnet(1).lifetime(3600).heard_at(now).build()?;
/// assert!(lease.is_expired(now + Duration::from_secs(3600)));
///
/// lease.set_valid_until(now, now + Duration::from_secs(60));
/// assert!(lease.is_expired(now + Duration::from_secs(60)));
/// # Ok::<(), leasemgr::lease::LeaseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease4 {
    base: LeaseBase<Ipv4Addr>,
    hwaddr: Option<HwAddr>,
    client_id: Option<ClientId>,
}

impl Lease4 {
    /// Creates a lease of `address`, with all of [`LeaseData`](super::LeaseData) at its defaults.
    ///
    /// # Errors
    /// Returns [`LeaseError::NoIdentity`] if there is neither a hardware address nor a client id
    /// and the state is neither declined nor reclaimed.
    pub fn new(
        address: Ipv4Addr,
        hwaddr: Option<HwAddr>,
        client_id: Option<ClientId>,
        state: LeaseState,
    ) -> Result<Self, LeaseError> {
        let lease = Self { base: LeaseBase::new(address, state), hwaddr, client_id };
        lease.check_state(state)?;
        Ok(lease)
    }

    /// Creates a lease from the parts of a stored lease, which was valid.
    pub(crate) fn from_stored(
        base: LeaseBase<Ipv4Addr>,
        hwaddr: Option<HwAddr>,
        client_id: Option<ClientId>,
    ) -> Self {
        Self { base, hwaddr, client_id }
    }

    /// Creates a lease without a client. The state must be declined or reclaimed.
    pub(super) fn without_client(address: Ipv4Addr, state: LeaseState) -> Self {
        Self { base: LeaseBase::new(address, state), hwaddr: None, client_id: None }
    }

    /// Returns the client; `None` if the lease has no client.
    #[must_use]
    pub fn client(&self) -> Option<Client4> {
        (self.hwaddr.clone(), self.client_id.clone()).try_into().ok()
    }

    /// Changes the client of the lease.
    pub fn set_client(&mut self, client: impl Into<Client4>) {
        (self.hwaddr, self.client_id) = client.into().into_parts();
    }

    /// Returns the client identifier, if the client sent one.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        self.client_id.as_ref()
    }

    /// Returns whether the lease belongs to the client with this hardware address and client id.
    ///
    /// If both the lease and the client have a client id, these are compared (RFC 2131 section
    /// 4.2); otherwise the hardware addresses are.
    #[must_use]
    pub fn belongs_to_client(&self, hwaddr: Option<&HwAddr>, client_id: Option<&ClientId>) -> bool {
        match (&self.client_id, client_id, &self.hwaddr, hwaddr) {
            (Some(own), Some(other), _, _) => own == other,
            (_, _, Some(own), Some(other)) => own.htype == other.htype && own.as_bytes() == other.as_bytes(),
            _ => false,
        }
    }
}

impl Parts<Ipv4Addr> for Lease4 {
    fn base(&self) -> &LeaseBase<Ipv4Addr> {
        &self.base
    }

    fn base_mut(&mut self, _: Token) -> &mut LeaseBase<Ipv4Addr> {
        &mut self.base
    }

    fn forget_client(&mut self, _: Token) {
        self.hwaddr = None;
        self.client_id = None;
        // It contains data of the client: its classes, and the ids from relay agents.
        self.base.data.user_context = None;
    }

    fn client_fields<'a>(&'a self, fields: &mut Fields<'a>) {
        fields.client = self.client_id.as_ref().map(ClientId::as_bytes);
    }

    fn of_client_fields(base: LeaseBase<Ipv4Addr>, fields: &Fields<'_>) -> Result<Self, LeaseError> {
        let client_id = fields.client.map(ClientId::new).transpose()?;
        Ok(Self { base, hwaddr: fields.hwaddr()?, client_id })
    }
}

impl Lease for Lease4 {
    type Address = Ipv4Addr;

    const FAMILY: Family = Family::V4;

    fn hwaddr(&self) -> Option<&HwAddr> {
        self.hwaddr.as_ref()
    }

    fn check_state(&self, state: LeaseState) -> Result<(), LeaseError> {
        if self.hwaddr.is_none() && self.client_id.is_none() && !state.may_lack_client() {
            return Err(LeaseError::NoIdentity { state });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{LeaseData, Lifetime, SubnetId, UserContext, system_time};

    fn hwaddr(last: u8) -> HwAddr {
        HwAddr::new(&[2, 0, 0, 0, 0, last]).unwrap()
    }

    fn client_id(last: u8) -> ClientId {
        ClientId::new(&[1, last]).unwrap()
    }

    #[test]
    fn only_a_declined_or_reclaimed_lease_may_lack_a_client() {
        let new = |state| Lease4::new(Ipv4Addr::LOCALHOST, None, None, state);
        assert!(new(LeaseState::DECLINED).is_ok());
        assert_eq!(new(LeaseState::DEFAULT), Err(LeaseError::NoIdentity { state: LeaseState(0) }));
        let mut declined = new(LeaseState::DECLINED).unwrap();
        assert!(declined.set_state(LeaseState::RELEASED).is_err());
        assert_eq!(declined.state(), LeaseState::DECLINED);
        assert_eq!(declined.set_state(LeaseState::EXPIRED_RECLAIMED), Ok(()));
    }

    #[rstest]
    #[case::same_client_id(Some(hwaddr(9)), Some(client_id(1)), true)]
    #[case::other_client_id_same_hwaddr(Some(hwaddr(1)), Some(client_id(2)), false)]
    #[case::no_client_id_same_hwaddr(Some(hwaddr(1)), None, true)]
    #[case::no_client_id_other_hwaddr(Some(hwaddr(2)), None, false)]
    #[case::nothing(None, None, false)]
    fn a_lease_belongs_to_the_client_with_its_client_id_else_its_hwaddr(
        #[case] of: Option<HwAddr>,
        #[case] id: Option<ClientId>,
        #[case] belongs: bool,
    ) {
        let lease =
            Lease4::new(Ipv4Addr::LOCALHOST, Some(hwaddr(1)), Some(client_id(1)), LeaseState::DEFAULT)
                .unwrap();
        assert_eq!(lease.belongs_to_client(of.as_ref(), id.as_ref()), belongs);
    }

    #[test]
    fn declining_forgets_the_client_and_starts_the_probation() {
        let mut lease =
            Lease4::new(Ipv4Addr::LOCALHOST, Some(hwaddr(1)), Some(client_id(1)), LeaseState::DEFAULT)
                .unwrap();
        lease.data_mut().hostname = "a.example".into();
        lease.data_mut().fqdn_fwd = true;
        lease.data_mut().fqdn_rev = true;
        lease.data_mut().user_context =
            Some(UserContext::parse(b"{ \"ISC\": { \"client-classes\": [ \"gold\" ] } }").unwrap());
        lease.data_mut().subnet_id = SubnetId(7);
        lease.decline(system_time(1000), Lifetime(60));
        assert_eq!((lease.hwaddr(), lease.client_id()), (None, None));
        assert_eq!(lease.state(), LeaseState::DECLINED);
        assert_eq!(
            lease.data(),
            &LeaseData {
                cltt: 1000,
                valid_lifetime: Lifetime(60),
                subnet_id: SubnetId(7),
                ..LeaseData::default()
            }
        );
    }

    #[rstest]
    #[case::before(100, 10, 109, false)]
    #[case::at(100, 10, 110, true)]
    #[case::infinite(100, u32::MAX, i64::MAX, false)]
    #[case::beyond_32_bits(1 << 32, 10, 1 << 32, false)]
    #[case::before_1970(-300, 200, 0, true)]
    #[case::heard_before_1970_and_ended_after_it(-10, 20, 9, false)]
    #[case::ended_after_it(-10, 20, 10, true)]
    #[case::infinite_before_1970(-300, u32::MAX, i64::MAX, false)]
    #[case::latest_time(i64::MAX, 10, i64::MAX, false)]
    #[case::ended_at_latest_time(i64::MAX - 10, 10, i64::MAX, true)]
    #[case::now_before_1970(-300, 200, -101, false)]
    #[case::ended_at_now_before_1970(-300, 200, -100, true)]
    #[case::earliest_time(i64::MIN, 10, 0, true)]
    fn a_lease_expires_when_its_lifetime_ends(
        #[case] cltt: i64,
        #[case] valid: u32,
        #[case] now: i64,
        #[case] expired: bool,
    ) {
        let mut lease = Lease4::new(Ipv4Addr::LOCALHOST, Some(hwaddr(1)), None, LeaseState::DEFAULT).unwrap();
        lease.data_mut().cltt = cltt;
        lease.data_mut().valid_lifetime = Lifetime(valid);
        assert_eq!(lease.is_expired(system_time(now)), expired);
    }

    #[rstest]
    #[case::as_given(1000, Some(1060), 60, Some(1060))]
    #[case::without_end(1000, None, u32::MAX, None)]
    #[case::already_over(1000, Some(999), 0, Some(1000))]
    #[case::longer_than_the_maximum(0, Some(1 << 40), u32::MAX - 1, Some(i64::from(u32::MAX) - 1))]
    #[case::before_1970(-300, Some(-100), 200, Some(-100))]
    #[case::from_before_1970_on(-10, Some(10), 20, Some(10))]
    #[case::latest_time(i64::MAX - 5, Some(i64::MAX), 5, Some(i64::MAX))]
    fn a_lease_is_valid_until_its_end(
        #[case] now: i64,
        #[case] end: Option<i64>,
        #[case] lifetime: u32,
        #[case] valid_until: Option<i64>,
    ) {
        let mut lease = Lease4::declined(Ipv4Addr::LOCALHOST).build().unwrap();
        lease.set_valid_until(system_time(now), end.map(system_time));
        assert_eq!((lease.cltt(), lease.valid_lifetime()), (now, Lifetime(lifetime)));
        assert_eq!(lease.heard_at(), system_time(now));
        assert_eq!(lease.valid_until(), valid_until.map(system_time));
        if let Some(end) = valid_until {
            assert!(lease.is_expired(system_time(end)) && !lease.is_expired(system_time(end - 1)));
        }
    }

    #[test]
    fn a_lease_is_compact() {
        assert_eq!(size_of::<Lease4>(), 104);
    }
}
