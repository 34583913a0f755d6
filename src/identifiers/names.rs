//! Names, which are bytes: neither DHCP nor Kea says in which character set.

use std::borrow::Borrow;
use std::fmt;

use super::short_bytes::ShortBytes;

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

/// The name of a client class, as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientClass(ShortBytes);

impl ClientClass {
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
}

impl From<&str> for ClientClass {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

/// So that a map with classes as keys can be asked for the bytes of a name.
impl Borrow<[u8]> for ClientClass {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Control bytes and bytes outside ASCII are shown as `\xHH`.
impl fmt::Display for ClientClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for ClientClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientClass({self})")
    }
}
