//! Errors of identifiers.

use std::fmt;

use super::octets::{octets, separated_octets};
use super::short_bytes::ShortBytes;

/// A kind of identifier that consists of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IdentifierKind {
    /// A [`ClientId`](super::ClientId).
    ClientId,
    /// A [`Duid`](super::Duid).
    Duid,
    /// A [`HwAddr`](super::HwAddr).
    HwAddr,
    /// A [`RelayId`](super::RelayId).
    RelayId,
    /// A [`RemoteId`](super::RemoteId).
    RemoteId,
}

impl IdentifierKind {
    /// Returns a description of its text form.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::HwAddr => "hex octets with ':' between them",
            _ => "hex octets with ':' or blanks between them, or plain hex digits",
        }
    }

    /// Parses the text form, of any length, to bytes.
    pub(crate) fn bytes_of(self, text: &str) -> Result<Vec<u8>, IdentifierError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let octets = match self {
            Self::HwAddr => separated_octets(text.as_bytes(), b':'),
            _ => octets(text.as_bytes()),
        };
        let octets = octets.ok_or(IdentifierError::Text { kind: self })?;
        Ok(octets.as_slice().to_vec())
    }
}

impl fmt::Display for IdentifierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientId => "client id",
            Self::Duid => "DUID",
            Self::HwAddr => "hardware address",
            Self::RelayId => "relay id",
            Self::RemoteId => "remote id",
        })
    }
}

/// Why bytes or a text are not a valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifierError {
    /// The identifier is too short or too long.
    #[error("a {kind} of {len} bytes, expected {min} to {max}")]
    Length {
        /// The kind of identifier.
        kind: IdentifierKind,
        /// Its length in bytes.
        len: usize,
        /// Minimum length in bytes.
        min: u8,
        /// Maximum length in bytes.
        max: u8,
    },
    /// The text is not a valid form of the identifier.
    #[error("a {kind} that is not {}", .kind.text())]
    Text {
        /// The kind of identifier.
        kind: IdentifierKind,
    },
}

impl IdentifierError {
    /// Checks that there are `min` to `max` bytes, at most 255.
    #[inline]
    pub(super) fn check(
        kind: IdentifierKind,
        bytes: &[u8],
        min: usize,
        max: usize,
    ) -> Result<ShortBytes, Self> {
        if (min..=max).contains(&bytes.len()) {
            return Ok(ShortBytes::new(bytes));
        }
        let octet = |len| u8::try_from(len).unwrap_or(u8::MAX);
        Err(Self::Length { kind, len: bytes.len(), min: octet(min), max: octet(max) })
    }
}
