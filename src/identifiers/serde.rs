//! Identifiers in the form of Kea's JSON.

use ::serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClientClass, ClientId, Duid, Hostname, HwAddr, IdentifierError, RelayId, RemoteId};

/// Returns the error of an invalid text.
pub(crate) fn text_error<E: ::serde::de::Error>(text: &str, error: IdentifierError) -> E {
    match error {
        IdentifierError::Text { kind } => E::invalid_value(::serde::de::Unexpected::Str(text), &kind.text()),
        error => E::custom(error),
    }
}

macro_rules! identifier {
    ($($name:ident $written:literal $read:literal;)*) => {
        $(#[doc = $written]
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[doc = $read]
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|error| text_error(&text, error))
            }
        })*
    };
}

identifier!(
    HwAddr
        "Hex octets separated by colons."
        "Hex octets of one or two digits separated by colons, read as an Ethernet address from an unknown source.";
    ClientId
        "Hex octets separated by colons."
        "Hex octets of one or two digits separated by colons or blanks, or plain hex digits.";
    Duid
        "Hex octets separated by colons."
        "Hex octets of one or two digits separated by colons or blanks, or plain hex digits.";
    RelayId
        "Upper-case hex digits."
        "Hex octets of one or two digits separated by colons or blanks, or plain hex digits.";
    RemoteId
        "Upper-case hex digits."
        "Hex octets of one or two digits separated by colons or blanks, or plain hex digits.";
);

/// Returns a string with a character for each byte.
fn string_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Returns the bytes of a string: one for each character if all are below U+0100, otherwise its
/// UTF-8.
pub(crate) fn bytes_of(string: &str) -> Vec<u8> {
    let bytes: Result<_, _> = string.chars().map(u8::try_from).collect();
    bytes.unwrap_or_else(|_| string.as_bytes().to_vec())
}

macro_rules! name {
    ($($name:ident),*) => {
        $(/// Serializes to a string with a character from U+0000 to U+00FF for each byte, as in Kea:
        /// the name `é` in UTF-8 is `"Ã©"`.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                string_of(self.as_bytes()).serialize(serializer)
            }
        }

        /// If all characters are below U+0100, each is a byte; otherwise the name is the UTF-8 of
        /// the string.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::new(&bytes_of(&String::deserialize(deserializer)?)))
            }
        })*
    };
}

name!(Hostname, ClientClass);
