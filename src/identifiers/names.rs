//! Names, which are bytes: neither DHCP nor Kea says in which character set.

use std::borrow::Borrow;
use std::fmt;

use super::bytes::name;
use super::short_bytes::ShortBytes;

/// The name of a client, as bytes: DHCP does not say in which character set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(ShortBytes);
name!(Hostname);

impl Hostname {
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

/// The name of a client class, as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientClass(ShortBytes);
name!(ClientClass);

/// So that a map with classes as keys can be asked for the bytes of a name.
impl Borrow<[u8]> for ClientClass {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}
