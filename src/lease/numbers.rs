//! Numbers that say what a lease is: its state, its type, and how long it lasts.

use crate::identifiers::number;

number!(
    /// A lifetime in seconds.
    ///
    /// [`Lifetime::INFINITE`] stands for "for ever" (RFC 2131 section 3.3, RFC 8415 section 7.7).
    Lifetime(u32)
);
number!(
    /// What a lease is used as: 0 in use, 1 declined, 2 expired and reclaimed, 3 released,
    /// 4 registered (DHCPv6 only). Numbers beyond these are kept as they are.
    LeaseState(u32)
);
number!(
    /// The kind of a DHCPv6 lease: 0 IA_NA, 1 IA_TA, 2 IA_PD (RFC 8415). Numbers beyond these are
    /// kept as they are.
    LeaseType(u16)
);

impl Lifetime {
    /// The lifetime of a lease that never expires, 0xffffffff.
    pub const INFINITE: Self = Self(u32::MAX);

    /// Whether the lease never expires.
    #[must_use]
    pub fn is_infinite(self) -> bool {
        self == Self::INFINITE
    }
}

impl LeaseState {
    /// Assigned to a client.
    pub const DEFAULT: Self = Self(0);
    /// Found in use by somebody else, and kept back for a probation period.
    pub const DECLINED: Self = Self(1);
    /// Expired, and its clean-up (DNS, statistics) done.
    pub const EXPIRED_RECLAIMED: Self = Self(2);
    /// Given back by its client.
    pub const RELEASED: Self = Self(3);
    /// An address that its client registered (DHCPv6, RFC 9686).
    pub const REGISTERED: Self = Self(4);
}

impl LeaseType {
    /// A non-temporary address.
    pub const NA: Self = Self(0);
    /// A temporary address.
    pub const TA: Self = Self(1);
    /// A delegated prefix.
    pub const PD: Self = Self(2);
}
