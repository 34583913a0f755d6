//! The methods of leases as inherent methods, for servers of one family. The trait [`Lease`] is for
//! code that works with both.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use super::{
    Fields, Hostname, HwAddr, Lease, Lease4, Lease6, LeaseData, LeaseError, LeaseState, Lifetime, PoolId,
    SubnetId, UserContext, seconds_since_epoch,
};

macro_rules! inherent {
    ($lease:ident, $address:ident) => {
        impl $lease {
            /// Returns the address; for a delegated prefix, its first address.
            #[must_use]
            pub fn address(&self) -> $address {
                Lease::address(self)
            }

            /// Returns the fields that both families have.
            #[must_use]
            pub fn data(&self) -> &LeaseData {
                Lease::data(self)
            }

            /// Returns the fields that both families have, to change them.
            pub fn data_mut(&mut self) -> &mut LeaseData {
                Lease::data_mut(self)
            }

            /// Returns the hardware address of the client, if known.
            #[must_use]
            pub fn hwaddr(&self) -> Option<&HwAddr> {
                Lease::hwaddr(self)
            }

            /// Returns the state of the lease.
            #[must_use]
            pub fn state(&self) -> LeaseState {
                Lease::state(self)
            }

            /// Changes the state of the lease.
            ///
            /// # Errors
            /// Returns [`LeaseError`] if the lease has no client and the state is neither declined
            /// nor reclaimed.
            pub fn set_state(&mut self, state: LeaseState) -> Result<(), LeaseError> {
                Lease::set_state(self, state)
            }

            /// Returns when the client was last heard.
            #[must_use]
            pub fn heard_at(&self) -> SystemTime {
                Lease::heard_at(self)
            }

            /// Sets when the client was heard. Fractions of a second are dropped.
            pub fn set_heard_at(&mut self, time: SystemTime) {
                self.data_mut().cltt = seconds_since_epoch(time);
            }

            /// Returns the client last transmission time: when the client was last heard, in
            /// seconds since the epoch.
            #[must_use]
            pub fn cltt(&self) -> i64 {
                self.data().cltt
            }

            /// Returns the valid lifetime, in seconds from when the client was heard.
            #[must_use]
            pub fn valid_lifetime(&self) -> Lifetime {
                self.data().valid_lifetime
            }

            /// Changes the valid lifetime.
            pub fn set_valid_lifetime(&mut self, lifetime: impl Into<Lifetime>) {
                self.data_mut().valid_lifetime = lifetime.into();
            }

            /// Returns when the lease ends; `None` for an infinite lifetime.
            #[must_use]
            pub fn valid_until(&self) -> Option<SystemTime> {
                Lease::valid_until(self)
            }

            /// Makes the lease valid from `now`, when the client was heard, until `end`, or without
            /// an end (`None`); see [`Lease::set_valid_until`].
            pub fn set_valid_until(&mut self, now: SystemTime, end: impl Into<Option<SystemTime>>) {
                Lease::set_valid_until(self, now, end);
            }

            /// Returns when the lease ends, in seconds since the epoch, as in a lease file; see
            /// [`Lease::expires_at`].
            #[must_use]
            pub fn expires_at(&self) -> u64 {
                Lease::expires_at(self)
            }

            /// Returns when the lease ends, in seconds since the epoch; see [`Lease::end`].
            #[must_use]
            pub fn end(&self) -> Option<i128> {
                Lease::end(self)
            }

            /// Returns whether the lease has ended at `now`; never true for an infinite lifetime.
            #[must_use]
            pub fn is_expired(&self, now: SystemTime) -> bool {
                Lease::is_expired(self, now)
            }

            /// Returns the subnet of the address.
            #[must_use]
            pub fn subnet_id(&self) -> SubnetId {
                self.data().subnet_id
            }

            /// Changes the subnet of the address.
            pub fn set_subnet_id(&mut self, subnet: impl Into<SubnetId>) {
                self.data_mut().subnet_id = subnet.into();
            }

            /// Returns the pool of the address, 0 if pools have no ids.
            #[must_use]
            pub fn pool_id(&self) -> PoolId {
                self.data().pool_id
            }

            /// Changes the pool of the address.
            pub fn set_pool_id(&mut self, pool: impl Into<PoolId>) {
                self.data_mut().pool_id = pool.into();
            }

            /// Returns the name of the client, empty if it has none.
            #[must_use]
            pub fn hostname(&self) -> &Hostname {
                &self.data().hostname
            }

            /// Changes the name of the client.
            pub fn set_hostname(&mut self, hostname: impl Into<Hostname>) {
                self.data_mut().hostname = hostname.into();
            }

            /// Returns whether the server has added the name to the forward zone of the DNS.
            #[must_use]
            pub fn fqdn_fwd(&self) -> bool {
                self.data().fqdn_fwd
            }

            /// Returns whether the server has added the name to the reverse zone of the DNS.
            #[must_use]
            pub fn fqdn_rev(&self) -> bool {
                self.data().fqdn_rev
            }

            /// Sets whether the server has added the name to the forward and to the reverse zone of
            /// the DNS.
            pub fn set_fqdn(&mut self, forward: bool, reverse: bool) {
                self.data_mut().fqdn_fwd = forward;
                self.data_mut().fqdn_rev = reverse;
            }

            /// Returns the data that the server and its hooks attach to the lease.
            #[must_use]
            pub fn user_context(&self) -> Option<&UserContext> {
                self.data().user_context.as_ref()
            }

            /// Changes the data that is attached to the lease.
            pub fn set_user_context(&mut self, context: impl Into<Option<UserContext>>) {
                self.data_mut().user_context = context.into();
            }

            /// Takes the address out of use for `probation`, because another host was found to use
            /// it; see [`Lease::decline`].
            pub fn decline(&mut self, now: SystemTime, probation: Lifetime) {
                Lease::decline(self, now, probation);
            }

            /// Reclaims the lease, which keeps its former state; see [`Lease::reclaim`].
            pub fn reclaim(&mut self) {
                Lease::reclaim(self);
            }

            /// Returns whether the lease is reclaimed: it has expired, and its cleanup is done.
            #[must_use]
            pub fn is_reclaimed(&self) -> bool {
                Lease::is_reclaimed(self)
            }

            /// Returns the state of the lease before it was reclaimed; see
            /// [`Lease::reclaimed_from`].
            #[must_use]
            pub fn reclaimed_from(&self) -> Option<LeaseState> {
                Lease::reclaimed_from(self)
            }

            /// Returns the values of the lease, one for each column of a table.
            #[must_use]
            pub fn fields(&self) -> Fields<'_> {
                Lease::fields(self)
            }

            /// Creates the lease with these values, as recorded by a server; see
            /// [`Lease::from_fields`].
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
