//! Common code of identifiers that consist of bytes.

use std::fmt;

/// Formats bytes as two hex digits each, separated by colons.
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl fmt::Display for Octets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.0.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

/// Implements conversions between an identifier, bytes and text, for types with `new` and
/// `as_bytes`.
macro_rules! identifier {
    ($name:ident) => {
        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = $crate::identifiers::IdentifierError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                Self::new(bytes)
            }
        }

        /// Parses hex bytes separated by colons. The error of an invalid text names all forms.
        impl std::str::FromStr for $name {
            type Err = $crate::identifiers::IdentifierError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let kind = $crate::identifiers::IdentifierKind::$name;
                Self::new(&kind.bytes_of(text)?)
            }
        }
    };
}

/// Implements access to the bytes, and `Debug`, for identifiers without other fields.
macro_rules! octets {
    ($name:ident) => {
        impl $name {
            /// Returns the bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        $crate::identifiers::bytes::identifier!($name);

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

/// Implements conversions between a name, bytes and text.
macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// Creates a name from bytes.
            #[must_use]
            pub fn new(bytes: &[u8]) -> Self {
                Self(ShortBytes::new(bytes))
            }

            /// Returns the bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self::new(bytes)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name.as_bytes())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self::new(name.as_bytes())
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Ok(name.into())
            }
        }

        /// Formats control bytes and bytes outside ASCII as `\xHH`, so that a name cannot send
        /// control codes to a terminal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.as_bytes().escape_ascii())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

pub(super) use {identifier, name, octets};
