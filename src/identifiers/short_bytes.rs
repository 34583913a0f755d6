//! Byte strings that are mostly short.

use std::fmt;
use std::hash::{Hash, Hasher};

use thin_vec::ThinVec;

/// Number of bytes beside the tag and the length in 16 bytes.
const INLINE: usize = 14;

/// An immutable byte string in 16 bytes: up to 14 bytes are stored inline, longer strings are
/// allocated.
///
/// A hardware address, the usual client id (7 bytes) and a DUID of type LLT over Ethernet (14
/// bytes) need no allocation.
#[derive(Clone)]
pub(crate) enum ShortBytes {
    /// Only the first `len` of `bytes` are used, the others are 0.
    Inline { len: u8, bytes: [u8; INLINE] },
    /// A thin pointer, so that long strings do not increase the size of short ones.
    Heap(ThinVec<u8>),
}

impl ShortBytes {
    pub(crate) const EMPTY: Self = Self::Inline { len: 0, bytes: [0; INLINE] };

    #[inline]
    pub(crate) fn new(from: &[u8]) -> Self {
        match u8::try_from(from.len()) {
            Ok(len) if from.len() <= INLINE => Self::Inline { len, bytes: inline(from) },
            _ => Self::Heap(ThinVec::from(from)),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

/// Copies up to `INLINE` bytes, followed by zeros. Two overlapping copies of fixed length are
/// faster than one of variable length.
#[inline]
fn inline(from: &[u8]) -> [u8; INLINE] {
    let mut bytes = [0; INLINE];
    let to = &mut bytes[..from.len().min(INLINE)];
    if let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>()) {
        copy(to, first, last);
    } else if let (Some(first), Some(last)) = (from.first_chunk::<4>(), from.last_chunk::<4>()) {
        copy(to, first, last);
    } else {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    bytes
}

#[inline]
fn copy<const N: usize>(to: &mut [u8], first: &[u8; N], last: &[u8; N]) {
    if let Some(to) = to.first_chunk_mut() {
        *to = *first;
    }
    if let Some(to) = to.last_chunk_mut() {
        *to = *last;
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ShortBytes {}

impl PartialOrd for ShortBytes {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortBytes {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for ShortBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for ShortBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_string_takes_sixteen_bytes_and_keeps_its_content() {
        assert_eq!(size_of::<ShortBytes>(), 16);
        assert_eq!(size_of::<Option<ShortBytes>>(), 16);
        for len in (0..=16).chain([255]) {
            let bytes: Vec<u8> = (0..len).collect();
            assert_eq!(ShortBytes::new(&bytes).as_slice(), bytes);
        }
    }
}
