//! Identifiers of relay agents, and of circuits at them.

use std::fmt;

use super::bytes::octets;
use super::short_bytes::ShortBytes;
use super::{Duid, IdentifierError, IdentifierKind};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ShortBytes);

        impl $name {
            /// Maximum length in bytes.
            pub const MAX_LEN: usize = 255;

            /// Creates an id from bytes.
            ///
            /// # Errors
            /// Returns [`IdentifierError`] if there are no bytes or more than 255.
            pub fn new(bytes: &[u8]) -> Result<Self, IdentifierError> {
                IdentifierError::check(IdentifierKind::$name, bytes, 1, Self::MAX_LEN).map(Self)
            }
        }

        octets!($name);

        /// Formats two upper-case hex digits for each byte, as in a user context.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
        }
    };
}

id!(
    /// The id of a relay agent, 1 to 255 bytes: in DHCPv4 its relay identifier (RFC 6925), in
    /// DHCPv6 its DUID (RFC 5460), which is shorter.
    RelayId
);
id!(
    /// The id of the remote host end of a circuit, assigned by a relay agent, 1 to 255 bytes (RFC
    /// 3046; RFC 4649, where it includes the enterprise number).
    RemoteId
);

impl From<&Duid> for RelayId {
    fn from(duid: &Duid) -> Self {
        Self(ShortBytes::new(duid.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_255_bytes() {
        assert_eq!(RelayId::new(&[]).unwrap_err().to_string(), "a relay id of 0 bytes, expected 1 to 255");
        assert_eq!(
            RemoteId::new(&[0; 256]).unwrap_err().to_string(),
            "a remote id of 256 bytes, expected 1 to 255"
        );
        assert_eq!(RemoteId::new(&[7; 255]).unwrap().as_bytes(), [7; 255]);
        assert!(RelayId::new(&[1]).unwrap() < RelayId::new(&[1, 0]).unwrap());
        let duid = Duid::new(&[1, 2, 0xab]).unwrap();
        assert_eq!(format!("{:?}", RelayId::from(&duid)), "RelayId(0102AB)");
    }
}
