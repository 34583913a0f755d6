//! What servers ask of a lease and change in it, without the trait [`Lease`], which is for code over both families.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use super::{
    Fields, Hostname, HwAddr, Lease, Lease4, Lease6, LeaseData, LeaseError, LeaseState, Lifetime, PoolId,
    SubnetId, UserContext, seconds_since_epoch,
};

macro_rules! inherent {
    ($lease:ident, $address:ident) => {
        impl $lease {
            /// The address; of a delegated prefix, its first address.
            #[must_use]
            pub fn address(&self) -> $address {
                Lease::address(self)
            }

            /// What is common to both families.
            #[must_use]
            pub fn data(&self) -> &LeaseData {
                Lease::data(self)
            }

            /// What is common to both families, to be changed.
            pub fn data_mut(&mut self) -> &mut LeaseData {
                Lease::data_mut(self)
            }

            /// The hardware address of the client, where it is known.
            #[must_use]
            pub fn hwaddr(&self) -> Option<&HwAddr> {
                Lease::hwaddr(self)
            }

            /// What the lease is used as.
            #[must_use]
            pub fn state(&self) -> LeaseState {
                Lease::state(self)
            }

            /// Changes what the lease is used as.
            ///
            /// # Errors
            /// Returns [`LeaseError`] if the lease belongs to no client and would be neither declined nor reclaimed.
            pub fn set_state(&mut self, state: LeaseState) -> Result<(), LeaseError> {
                Lease::set_state(self, state)
            }

            /// When the client was last heard.
            #[must_use]
            pub fn heard_at(&self) -> SystemTime {
                Lease::heard_at(self)
            }

            /// Notes when the client was heard. A fraction of a second is cut off.
            pub fn set_heard_at(&mut self, time: SystemTime) {
                self.data_mut().cltt = seconds_since_epoch(time);
            }

            /// Client last transmission time: when the client was last heard, in seconds since the epoch.
            #[must_use]
            pub fn cltt(&self) -> i64 {
                self.data().cltt
            }

            /// For how long the lease is valid, in seconds from when the client was heard.
            #[must_use]
            pub fn valid_lifetime(&self) -> Lifetime {
                self.data().valid_lifetime
            }

            /// Changes for how long the lease is valid.
            pub fn set_valid_lifetime(&mut self, lifetime: impl Into<Lifetime>) {
                self.data_mut().valid_lifetime = lifetime.into();
            }

            /// When the lease ends; `None` for one with an infinite lifetime, which never ends.
            #[must_use]
            pub fn valid_until(&self) -> Option<SystemTime> {
                Lease::valid_until(self)
            }

            /// Makes the lease valid from `now`, when the client was heard, until `end`, or for ever; see
            /// [`Lease::set_valid_until`].
            pub fn set_valid_until(&mut self, now: SystemTime, end: impl Into<Option<SystemTime>>) {
                Lease::set_valid_until(self, now, end);
            }

            /// When the lease ends, in seconds since the epoch, as it stands in a lease file; see
            /// [`Lease::expires_at`].
            #[must_use]
            pub fn expires_at(&self) -> u64 {
                Lease::expires_at(self)
            }

            /// When the lease ends, in seconds since the epoch; see [`Lease::end`].
            #[must_use]
            pub fn end(&self) -> Option<i128> {
                Lease::end(self)
            }

            /// Whether the lease has ended at `now`; one with an infinite lifetime never does.
            #[must_use]
            pub fn is_expired(&self, now: SystemTime) -> bool {
                Lease::is_expired(self, now)
            }

            /// The subnet that the address is in.
            #[must_use]
            pub fn subnet_id(&self) -> SubnetId {
                self.data().subnet_id
            }

            /// Changes the subnet that the address is in.
            pub fn set_subnet_id(&mut self, subnet: impl Into<SubnetId>) {
                self.data_mut().subnet_id = subnet.into();
            }

            /// The pool that the address is from, 0 where pools have no numbers.
            #[must_use]
            pub fn pool_id(&self) -> PoolId {
                self.data().pool_id
            }

            /// Changes the pool that the address is from.
            pub fn set_pool_id(&mut self, pool: impl Into<PoolId>) {
                self.data_mut().pool_id = pool.into();
            }

            /// The name of the client, empty where it has none.
            #[must_use]
            pub fn hostname(&self) -> &Hostname {
                &self.data().hostname
            }

            /// Changes the name of the client.
            pub fn set_hostname(&mut self, hostname: impl Into<Hostname>) {
                self.data_mut().hostname = hostname.into();
            }

            /// Whether the server has put the name into the forward zone of the DNS.
            #[must_use]
            pub fn fqdn_fwd(&self) -> bool {
                self.data().fqdn_fwd
            }

            /// Whether the server has put the name into the reverse zone of the DNS.
            #[must_use]
            pub fn fqdn_rev(&self) -> bool {
                self.data().fqdn_rev
            }

            /// Notes whether the server has put the name into the forward and into the reverse zone of the DNS.
            pub fn set_fqdn(&mut self, forward: bool, reverse: bool) {
                self.data_mut().fqdn_fwd = forward;
                self.data_mut().fqdn_rev = reverse;
            }

            /// What the server and its hooks attach to the lease.
            #[must_use]
            pub fn user_context(&self) -> Option<&UserContext> {
                self.data().user_context.as_ref()
            }

            /// Changes what is attached to the lease.
            pub fn set_user_context(&mut self, context: impl Into<Option<UserContext>>) {
                self.data_mut().user_context = context.into();
            }

            /// Takes the address out of use for `probation`, because it was found to be in use by another host; see
            /// [`Lease::decline`].
            pub fn decline(&mut self, now: SystemTime, probation: Lifetime) {
                Lease::decline(self, now, probation);
            }

            /// Makes the lease a reclaimed one, which remembers what it was; see [`Lease::reclaim`].
            pub fn reclaim(&mut self) {
                Lease::reclaim(self);
            }

            /// Whether the lease has expired and its clean-up is done.
            #[must_use]
            pub fn is_reclaimed(&self) -> bool {
                Lease::is_reclaimed(self)
            }

            /// What the lease was before it was reclaimed; see [`Lease::reclaimed_from`].
            #[must_use]
            pub fn reclaimed_from(&self) -> Option<LeaseState> {
                Lease::reclaimed_from(self)
            }

            /// The values of the lease, one for each column that a backend has.
            #[must_use]
            pub fn fields(&self) -> Fields<'_> {
                Lease::fields(self)
            }

            /// The lease of these values, as a server has recorded it; see [`Lease::from_fields`].
            ///
            /// # Errors
            /// As [`Lease::from_fields`].
            pub fn from_fields(fields: Fields<'_>) -> Result<Self, LeaseError> {
                Lease::from_fields(fields)
            }
        }
    };
}

inherent!(Lease4, Ipv4Addr);
inherent!(Lease6, Ipv6Addr);
