//! Names, which are byte strings: neither DHCP nor Kea defines their character set.

use std::borrow::Borrow;
use std::fmt;

use super::bytes::name;
use super::short_bytes::ShortBytes;

/// The name of a client, as bytes: DHCP does not define its character set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(ShortBytes);
name!(Hostname);

impl Hostname {
    /// Returns the name with its ASCII letters in lower case.
    #[must_use]
    pub fn to_ascii_lowercase(&self) -> Self {
        Self::new(&self.as_bytes().to_ascii_lowercase())
    }

    /// Returns whether the name is empty.
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

/// The name of a client class, as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientClass(ShortBytes);
name!(ClientClass);

/// Allows lookups by the bytes of a name in maps with client classes as keys.
impl Borrow<[u8]> for ClientClass {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}
