//! What makes an identifier impossible.

use std::fmt;

use super::octets::{octets, separated_octets};
use super::short_bytes::ShortBytes;

/// A kind of identifier that is made of bytes.
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
    /// What the text of one is made of.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::HwAddr => "hex octets with ':' between them",
            _ => "hex octets with ':' or blanks between them, or plain hex digits",
        }
    }

    /// The bytes of the text of one, of any length.
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

/// Why bytes are not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifierError {
    /// The identifier is too short or too long.
    #[error("a {kind} of {len} bytes, expected {min} to {max}")]
    Length {
        /// What it should be.
        kind: IdentifierKind,
        /// Its length in bytes.
        len: usize,
        /// Minimum length in bytes.
        min: u8,
        /// Maximum length in bytes.
        max: u8,
    },
    /// The text is not that of an identifier.
    #[error("a {kind} that is not {}", .kind.text())]
    Text {
        /// What it should be.
        kind: IdentifierKind,
    },
}

impl IdentifierError {
    /// The bytes, if there are `min` to `max` of them, at most 255.
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
