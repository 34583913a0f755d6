//! Identifiers in the form of Kea's JSON.

use ::serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClientClass, ClientId, Duid, Hostname, HwAddr, IdentifierError, RelayId, RemoteId};

/// The error of a text.
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
        "Hex octets with colons between them."
        "Hex octets of one or two digits with colons between them, taken for an Ethernet address from an unknown source.";
    ClientId
        "Hex octets with colons between them."
        "Hex octets of one or two digits with colons or blanks between them, or plain hex digits.";
    Duid
        "Hex octets with colons between them."
        "Hex octets of one or two digits with colons or blanks between them, or plain hex digits.";
    RelayId
        "Upper-case hex digits."
        "Hex octets of one or two digits with colons or blanks between them, or plain hex digits.";
    RemoteId
        "Upper-case hex digits."
        "Hex octets of one or two digits with colons or blanks between them, or plain hex digits.";
);

/// The string of these bytes, a character for each.
fn string_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes of a string: a byte for each character if all are below U+0100, else its UTF-8.
pub(crate) fn bytes_of(string: &str) -> Vec<u8> {
    let bytes: Result<_, _> = string.chars().map(u8::try_from).collect();
    bytes.unwrap_or_else(|_| string.as_bytes().to_vec())
}

macro_rules! name {
    ($($name:ident),*) => {
        $(/// A string with a character from U+0000 to U+00FF for each byte, as Kea writes it: the name `é` in
        /// UTF-8 is `"Ã©"`.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                string_of(self.as_bytes()).serialize(serializer)
            }
        }

        /// Each character is a byte if all are below U+0100. Else the name is the UTF-8 of the string.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::new(&bytes_of(&String::deserialize(deserializer)?)))
            }
        })*
    };
}

name!(Hostname, ClientClass);
