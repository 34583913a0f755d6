//! Identifiers of clients: hardware address, client identifier, and DUID.

use std::fmt;

use super::bytes::{Octets, identifier, octets};
use super::short_bytes::ShortBytes;
use super::{HwSource, HwType, IdentifierError, IdentifierKind};

/// Formats bytes separated by colons, as in a lease file.
macro_rules! shown_with_colons {
    ($name:ident) => {
        octets!($name);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Octets(self.as_bytes()).fmt(f)
            }
        }
    };
}

/// The client identifier of a DHCPv4 client (RFC 2132 section 9.14), 2 to 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(ShortBytes);
shown_with_colons!(ClientId);

impl ClientId {
    /// Minimum length in bytes.
    pub const MIN_LEN: usize = 2;
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 255;
    /// First byte of the stored form of an option that is too short for Kea.
    const SHORT: u8 = 255;

    /// Creates a client id from bytes.
    ///
    /// # Errors
    /// Returns [`IdentifierError::Length`] if there are less than 2 or more than 255 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
        IdentifierError::check(IdentifierKind::ClientId, bytes, Self::MIN_LEN, Self::MAX_LEN).map(Self)
    }

    /// Creates a client id from option 61 as sent by the client, with 0 to 255 bytes.
    ///
    /// RFC 2132 requires two bytes or more, and Kea cannot store less. A shorter option is stored
    /// after the byte 255 and its length, so that no two clients get the same client id: a client
    /// id of type 255 contains an IAID and a DUID (RFC 4361), and is never so short.
    /// [`ClientId::as_option`] returns the original bytes.
    ///
    /// ```
    /// use leasemgr::lease::ClientId;
    ///
    /// let id = ClientId::from_option(&[0x41])?;
    /// assert_eq!((id.as_bytes(), id.as_option()), (&[255, 1, 0x41][..], &[0x41][..]));
    /// # Ok::<(), leasemgr::lease::IdentifierError>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`IdentifierError::Length`] if there are more than 255 bytes.
    pub fn from_option(octets: &[u8]) -> Result<Self, IdentifierError> {
        match *octets {
            [] => Ok(Self(ShortBytes::new(&[Self::SHORT, 0]))),
            [octet] => Ok(Self(ShortBytes::new(&[Self::SHORT, 1, octet]))),
            _ => Self::new(octets),
        }
    }

    /// Returns the bytes of option 61 as sent by the client, to be sent back to it (RFC 6842).
    #[must_use]
    pub fn as_option(&self) -> &[u8] {
        match self.as_bytes() {
            [Self::SHORT, 0] => &[],
            [Self::SHORT, 1, octet] => std::slice::from_ref(octet),
            octets => octets,
        }
    }

    /// Creates a client id from stored bytes, which were valid.
    pub(crate) fn from_stored(bytes: &[u8]) -> Self {
        Self(ShortBytes::new(bytes))
    }
}

/// The DHCP unique identifier of a DHCPv6 client (RFC 8415 section 11), 3 to 130 bytes.
///
/// The DUID of a recorded lease may be shorter ([`Duid::recorded`]). [`Duid::empty`], three zero
/// bytes, is the DUID of a declined lease, which has no client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duid(ShortBytes);
shown_with_colons!(Duid);

impl Duid {
    /// Minimum length for a new lease, in bytes.
    pub const MIN_LEN: usize = 3;
    /// Minimum length for a recorded lease, in bytes.
    pub const MIN_RECORDED_LEN: usize = 1;
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 130;
    pub(crate) const EMPTY_BYTES: [u8; 3] = [0; 3];
    /// The empty DUID in Kea 2.2.
    const EMPTY_OF_KEA_2: [u8; 1] = [0];

    /// Creates a DUID from bytes, for a new lease.
    ///
    /// # Errors
    /// Returns [`IdentifierError::Length`] if there are less than 3 or more than 130 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
        Self::of_length(bytes, Self::MIN_LEN)
    }

    /// Creates a DUID from bytes in a recorded lease: Kea 2.2 also gives leases to clients with
    /// DUIDs of 1 or 2 bytes.
    ///
    /// # Errors
    /// Returns [`IdentifierError::Length`] if there are no bytes or more than 130.
    pub fn recorded(bytes: &[u8]) -> Result<Self, IdentifierError> {
        Self::of_length(bytes, Self::MIN_RECORDED_LEN)
    }

    fn of_length(bytes: &[u8], min: usize) -> Result<Self, IdentifierError> {
        IdentifierError::check(IdentifierKind::Duid, bytes, min, Self::MAX_LEN).map(Self)
    }

    /// Creates a DUID from stored bytes, which were valid.
    pub(crate) fn from_stored(bytes: &[u8]) -> Self {
        Self(ShortBytes::new(bytes))
    }

    /// Returns the DUID of a lease without a client, `00:00:00`.
    #[must_use]
    pub fn empty() -> Self {
        Self(ShortBytes::new(&Self::EMPTY_BYTES))
    }

    /// Returns whether this is the DUID of a lease without a client: [`Duid::empty`], or `00`, as
    /// in Kea 2.2.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_new_empty() || self.as_bytes() == Self::EMPTY_OF_KEA_2
    }

    /// Returns whether this is [`Duid::empty`], which occurs in declined leases only; `00` also
    /// occurs in others.
    pub(crate) fn is_new_empty(&self) -> bool {
        self.as_bytes() == Self::EMPTY_BYTES
    }
}

/// A hardware address of 1 to 20 bytes, with its type and, in DHCPv6, its source.
///
/// A lease without one has `None`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HwAddr {
    bytes: ShortBytes,
    /// The type of the address.
    pub htype: HwType,
    /// The source from which a DHCPv6 server learned it; 0 in DHCPv4.
    pub source: HwSource,
}

impl HwAddr {
    /// Maximum length in bytes.
    pub const MAX_LEN: usize = 20;

    /// Creates an Ethernet address from bytes, with an unknown source.
    ///
    /// # Errors
    /// Returns [`IdentifierError::Length`] if there are no bytes or more than 20.
    pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
        let bytes = IdentifierError::check(IdentifierKind::HwAddr, bytes, 1, Self::MAX_LEN)?;
        Ok(Self { bytes, htype: HwType::ETHERNET, source: HwSource(0) })
    }

    /// Creates a hardware address from stored bytes, which were valid.
    pub(crate) fn from_stored(bytes: &[u8], htype: HwType, source: HwSource) -> Self {
        Self { bytes: ShortBytes::new(bytes), htype, source }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

identifier!(HwAddr);

/// Creates an Ethernet address with an unknown source.
impl From<[u8; 6]> for HwAddr {
    fn from(bytes: [u8; 6]) -> Self {
        Self::from_stored(&bytes, HwType::ETHERNET, HwSource(0))
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
    #[case(&[], &[255, 0])]
    #[case(&[0x41], &[255, 1, 0x41])]
    #[case(&[255], &[255, 1, 255])]
    #[case(&[0, 0x41], &[0, 0x41])]
    #[case(&[255, 2], &[255, 2])]
    #[case(&[7; 255], &[7; 255])]
    fn an_option_of_any_length_becomes_a_client_id(#[case] option: &[u8], #[case] bytes: &[u8]) {
        let id = ClientId::from_option(option).unwrap();
        assert_eq!((id.as_bytes(), id.as_option()), (bytes, option));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn an_option_is_not_longer_than_a_client_id() {
        let (kind, min, max) = (IdentifierKind::ClientId, 2, 255);
        let error = IdentifierError::Length { kind, len: 256, min, max };
        assert_eq!(ClientId::from_option(&[0; 256]), Err(error));
    }

    #[rstest]
    #[case("2:0:0:0:0:1", Ok(HwAddr::from([2, 0, 0, 0, 0, 1])))]
    #[case("02-00", Err(IdentifierError::Text { kind: IdentifierKind::HwAddr }))]
    #[case("", Err(IdentifierError::Length { kind: IdentifierKind::HwAddr, len: 0, min: 1, max: 20 }))]
    fn a_hardware_address_is_parsed_from_text(
        #[case] text: &str,
        #[case] read: Result<HwAddr, IdentifierError>,
    ) {
        assert_eq!(text.parse(), read);
    }

    #[rstest]
    #[case("01:02:03", Some(&[1, 2, 3][..]))]
    #[case("01 02 03", Some(&[1, 2, 3][..]))]
    #[case("0x010203", Some(&[1, 2, 3][..]))]
    #[case("01", None)]
    #[case("xy", None)]
    fn a_duid_is_parsed_from_text(#[case] text: &str, #[case] bytes: Option<&[u8]>) {
        assert_eq!(text.parse::<Duid>().ok().as_ref().map(AsRef::as_ref), bytes);
        assert_eq!(bytes.map(Duid::try_from).transpose().unwrap(), text.parse().ok());
    }

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
