//! Identifiers of clients: hardware address, client identifier, and DUID.

use std::fmt;

use super::short_bytes::ShortBytes;
use super::{HwSource, HwType, IdentifierError, IdentifierKind};

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
    /// [`IdentifierError::Length`] for less than 2 or more than 255 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
        IdentifierError::check(IdentifierKind::ClientId, bytes, Self::MIN_LEN, Self::MAX_LEN).map(Self)
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
    /// [`IdentifierError::Length`] for less than 3 or more than 130 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
        Self::of_length(bytes, Self::MIN_LEN)
    }

    /// A DUID of these bytes, as a server has recorded it in a lease: Kea 2.2 also gives leases to clients
    /// whose DUIDs have 1 or 2 bytes.
    ///
    /// # Errors
    /// Returns [`IdentifierError::Length`] if there are no or more than 130 bytes.
    pub fn recorded(bytes: &[u8]) -> Result<Self, IdentifierError> {
        Self::of_length(bytes, Self::MIN_RECORDED_LEN)
    }

    fn of_length(bytes: &[u8], min: usize) -> Result<Self, IdentifierError> {
        IdentifierError::check(IdentifierKind::Duid, bytes, min, Self::MAX_LEN).map(Self)
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
    pub(crate) fn is_new_empty(&self) -> bool {
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
    /// [`IdentifierError::Length`] for no or more than 20 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
        let bytes = IdentifierError::check(IdentifierKind::HwAddr, bytes, 1, Self::MAX_LEN)?;
        Ok(Self { bytes, htype: HwType::ETHERNET, source: HwSource(0) })
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, false, false)]
    #[case(1, false, true)]
    #[case(2, false, true)]
    #[case(3, true, true)]
    #[case(130, true, true)]
    #[case(131, false, false)]
    fn a_recorded_duid_may_be_shorter_than_a_new_one(
        #[case] len: usize,
        #[case] new: bool,
        #[case] recorded: bool,
    ) {
        let bytes = vec![7; len];
        let made = |duid: Result<Duid, IdentifierError>| duid.map(|duid| duid.as_bytes().to_vec());
        let wanted = |good, min| {
            if good {
                Ok(bytes.clone())
            } else {
                Err(IdentifierError::Length { kind: IdentifierKind::Duid, len, min, max: 130 })
            }
        };
        assert_eq!(made(Duid::new(&bytes)), wanted(new, 3));
        assert_eq!(made(Duid::recorded(&bytes)), wanted(recorded, 1));
    }
}
