//! Identifiers and scalar values of a lease, each a type of its own.

use std::fmt;

use super::error::LeaseError;
use super::short_bytes::ShortBytes;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// The number of the subnet that an address belongs to, as the server's configuration gives it.
    SubnetId(u32)
);
number!(
    /// The number of the pool within its subnet; 0 where pools have none.
    PoolId(u32)
);
number!(
    /// Identity association identifier of a DHCPv6 client (RFC 8415 section 4.2).
    Iaid(u32)
);
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
    /// Hardware type, the `htype` of RFC 2131; 1 is Ethernet.
    HwType(u16)
);
number!(
    /// Where a DHCPv6 server learned a hardware address from, as a bit mask; 0 is unknown.
    HwSource(u32)
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

impl HwType {
    /// Ethernet, 1.
    pub const ETHERNET: Self = Self(1);
}

/// Octets as two hex digits each, separated by colons.
struct Octets<'a>(&'a [u8]);

impl fmt::Display for Octets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

macro_rules! octets {
    ($name:ident) => {
        impl $name {
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Octets(self.as_bytes()).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

/// The client identifier of a DHCPv4 client (RFC 2132 section 9.14), 2 to 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(ShortBytes);
octets!(ClientId);

impl ClientId {
    /// The shortest client id, in bytes.
    pub const MIN_LEN: usize = 2;
    /// The longest client id, in bytes.
    pub const MAX_LEN: usize = 255;

    /// A client id of these bytes.
    ///
    /// # Errors
    /// [`LeaseError::ClientIdLength`] for less than 2 or more than 255 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, LeaseError> {
        if (Self::MIN_LEN..=Self::MAX_LEN).contains(&bytes.len()) {
            Ok(Self(ShortBytes::new(bytes)))
        } else {
            Err(LeaseError::ClientIdLength { len: bytes.len() })
        }
    }

    /// A client id of bytes that were one before.
    pub(crate) fn from_stored(bytes: &[u8]) -> Self {
        Self(ShortBytes::new(bytes))
    }
}

/// The DHCP unique identifier of a DHCPv6 client (RFC 8415 section 11), 3 to 130 bytes.
///
/// One of a lease that a server has recorded may be shorter ([`Duid::recorded`]).
/// [`Duid::empty`], three zero bytes, is the DUID of a declined lease, which belongs to no client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duid(ShortBytes);
octets!(Duid);

impl Duid {
    /// The shortest DUID of a new lease, in bytes.
    pub const MIN_LEN: usize = 3;
    /// The shortest DUID of a recorded lease, in bytes.
    pub const MIN_RECORDED_LEN: usize = 1;
    /// The longest DUID, in bytes.
    pub const MAX_LEN: usize = 130;
    const EMPTY_BYTES: [u8; 3] = [0; 3];
    /// How Kea 2.2 writes the empty DUID.
    const EMPTY_OF_KEA_2: [u8; 1] = [0];

    /// A DUID of these bytes, for a new lease.
    ///
    /// # Errors
    /// [`LeaseError::DuidLength`] for less than 3 or more than 130 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, LeaseError> {
        Self::of_length(bytes, Self::MIN_LEN)
    }

    /// A DUID of these bytes, as a server has recorded it in a lease: Kea 2.2 also gives leases to clients
    /// whose DUIDs have 1 or 2 bytes.
    ///
    /// # Errors
    /// Returns [`LeaseError::DuidLength`] if there are no or more than 130 bytes.
    pub fn recorded(bytes: &[u8]) -> Result<Self, LeaseError> {
        Self::of_length(bytes, Self::MIN_RECORDED_LEN)
    }

    fn of_length(bytes: &[u8], min: usize) -> Result<Self, LeaseError> {
        if (min..=Self::MAX_LEN).contains(&bytes.len()) {
            Ok(Self(ShortBytes::new(bytes)))
        } else {
            Err(LeaseError::DuidLength { len: bytes.len(), min })
        }
    }

    /// A DUID of bytes that were one before.
    pub(crate) fn from_stored(bytes: &[u8]) -> Self {
        Self(ShortBytes::new(bytes))
    }

    /// The DUID of a lease that belongs to no client, `00:00:00`.
    #[must_use]
    pub fn empty() -> Self {
        Self(ShortBytes::new(&Self::EMPTY_BYTES))
    }

    /// Whether this is the DUID of a lease that belongs to no client: [`Duid::empty`], or `00`, which Kea 2.2
    /// writes in its place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_new_empty() || self.as_bytes() == Self::EMPTY_OF_KEA_2
    }

    /// Whether this is [`Duid::empty`], which stands in declined leases only; `00` is also found in others.
    pub(super) fn is_new_empty(&self) -> bool {
        self.as_bytes() == Self::EMPTY_BYTES
    }
}

/// A hardware address, 1 to 20 bytes, with its type and, in DHCPv6, where it was learned.
///
/// An absent one is `None` where a lease holds it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HwAddr {
    bytes: ShortBytes,
    /// What kind of address it is.
    pub htype: HwType,
    /// Where a DHCPv6 server learned it; 0 in DHCPv4.
    pub source: HwSource,
}

impl HwAddr {
    /// The longest hardware address, in bytes.
    pub const MAX_LEN: usize = 20;

    /// An Ethernet-type address of these bytes, from an unknown source.
    ///
    /// # Errors
    /// [`LeaseError::HwAddrLength`] for no or more than 20 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, LeaseError> {
        if (1..=Self::MAX_LEN).contains(&bytes.len()) {
            Ok(Self { bytes: ShortBytes::new(bytes), htype: HwType::ETHERNET, source: HwSource(0) })
        } else {
            Err(LeaseError::HwAddrLength { len: bytes.len() })
        }
    }

    /// A hardware address of bytes that were one before.
    pub(crate) fn from_stored(bytes: &[u8], htype: HwType, source: HwSource) -> Self {
        Self { bytes: ShortBytes::new(bytes), htype, source }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl fmt::Display for HwAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Octets(self.as_bytes()).fmt(f)
    }
}

impl fmt::Debug for HwAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HwAddr({self}, type {}, source {})", self.htype, self.source)
    }
}

/// The name of a client, as bytes: DHCP does not say in which character set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(ShortBytes);

impl Hostname {
    /// A name of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(ShortBytes::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Returns the name with its ASCII letters in lower case.
    #[must_use]
    pub fn to_ascii_lowercase(&self) -> Self {
        Self::new(&self.as_bytes().to_ascii_lowercase())
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

impl Default for Hostname {
    fn default() -> Self {
        Self(ShortBytes::EMPTY)
    }
}

impl From<&str> for Hostname {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

/// Control bytes and bytes outside ASCII are shown as `\xHH`, so that a hostile name cannot steer a terminal.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostname({self})")
    }
}
