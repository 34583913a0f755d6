//! Identifiers in the form of Kea's JSON.

use ::serde::de::Error as _;
use ::serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::octets::{octets, separated_octets};
use super::{ClientId, Duid, Hostname, HwAddr};

pub(crate) fn hwaddr<E: ::serde::de::Error>(text: &str) -> Result<HwAddr, E> {
    let bytes = separated_octets(text.as_bytes(), b':').ok_or_else(|| {
        E::invalid_value(::serde::de::Unexpected::Str(text), &"hex octets with ':' between them")
    })?;
    HwAddr::new(bytes.as_slice()).map_err(E::custom)
}

/// The octets of a client id or DUID, in any form that a lease file may have.
pub(crate) fn client_octets<E: ::serde::de::Error>(text: &str) -> Result<Vec<u8>, E> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    octets(text.as_bytes()).map(|octets| octets.as_slice().to_vec()).ok_or_else(|| {
        let expected = "hex octets with ':' or blanks between them, or plain hex digits";
        E::invalid_value(::serde::de::Unexpected::Str(text), &expected)
    })
}

/// Hex octets with colons between them.
impl Serialize for HwAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Hex octets of one or two digits with colons between them, taken for an Ethernet address from an
/// unknown source.
impl<'de> Deserialize<'de> for HwAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hwaddr(&String::deserialize(deserializer)?)
    }
}

macro_rules! json_octets {
    ($name:ident) => {
        /// Hex octets with colons between them.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        /// Hex octets of one or two digits with colons or blanks between them, or plain hex digits.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&client_octets(&String::deserialize(deserializer)?)?).map_err(D::Error::custom)
            }
        }
    };
}
json_octets!(ClientId);
json_octets!(Duid);

/// The string of these bytes, a character for each.
pub(crate) fn string_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes of a string: a byte for each character if all are below U+0100, else its UTF-8.
pub(crate) fn bytes_of(string: &str) -> Vec<u8> {
    let bytes: Result<_, _> = string.chars().map(u8::try_from).collect();
    bytes.unwrap_or_else(|_| string.as_bytes().to_vec())
}

/// A string with a character from U+0000 to U+00FF for each byte, as Kea writes it: the name `é` in
/// UTF-8 is `"Ã©"`.
impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        string_of(self.as_bytes()).serialize(serializer)
    }
}

/// Each character is a byte if all are below U+0100. Else the name is the UTF-8 of the string.
impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&bytes_of(&String::deserialize(deserializer)?)))
    }
}
