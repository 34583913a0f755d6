//! Pools of addresses and prefixes.

use std::fmt;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// An address in a pool: [`Ipv4Addr`] or [`Ipv6Addr`].
pub trait PoolAddress: Copy + fmt::Debug + fmt::Display + Eq + Hash + Ord + Send + Sync + 'static {
    /// Number of bits: 32 or 128.
    const BITS: u32;

    /// Returns the address as a number.
    fn to_bits(self) -> u128;

    /// Returns the address for the lowest [`BITS`](Self::BITS) bits of a number.
    fn from_bits(bits: u128) -> Self;
}

impl PoolAddress for Ipv4Addr {
    const BITS: u32 = 32;

    fn to_bits(self) -> u128 {
        Self::to_bits(self).into()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest 32 bits are what counts")]
    fn from_bits(bits: u128) -> Self {
        Self::from_bits(bits as u32)
    }
}

impl PoolAddress for Ipv6Addr {
    const BITS: u32 = 128;

    fn to_bits(self) -> u128 {
        Self::to_bits(self)
    }

    fn from_bits(bits: u128) -> Self {
        Self::from_bits(bits)
    }
}

/// Why a pool is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The last address is before the first.
    #[error("the last address of a pool, {last}, is before the first, {first}")]
    Backwards {
        /// The first address.
        first: String,
        /// The last address.
        last: String,
    },
    /// Delegated prefixes are shorter than the prefix that contains them, or longer than an
    /// address.
    #[error(
        "prefixes of {delegated_len} bits cannot be delegated from {prefix}/{len}, expected {len} to 128"
    )]
    DelegatedLength {
        /// The prefix that contains the delegated ones.
        prefix: Ipv6Addr,
        /// Its length in bits.
        len: u8,
        /// The length of the delegated prefixes in bits.
        delegated_len: u8,
    },
    /// A prefix has bits set after its length.
    #[error("the prefix {prefix}")]
    HostBits {
        /// The prefix.
        prefix: Ipv6Addr,
        /// Its length in bits.
        len: u8,
    },
}

/// The addresses, or the prefixes of one length, that a server assigns: a range from a first to a
/// last one.
///
/// ```
/// use std::net::{Ipv4Addr, Ipv6Addr};
/// use leasemgr::allocator::Pool;
///
/// let pool = Pool::new(Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 99))?;
/// assert!(pool.contains(Ipv4Addr::new(192, 0, 2, 99)));
/// assert_eq!(pool.to_string(), "192.0.2.10-192.0.2.99");
///
/// let prefixes = Pool::prefixes("2001:db8:8000::".parse()?, 33, 56)?;
/// assert_eq!(prefixes.last(), "2001:db8:ffff:ff00::".parse::<Ipv6Addr>()?);
/// assert!(!prefixes.contains("2001:db8:8000::1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool<A> {
    first: A,
    /// Index of the last one. The number of all would overflow for `::/0`.
    last: u128,
    /// Distance between two of them, as a number of bits to shift.
    shift: u32,
}

impl<A: PoolAddress> Pool<A> {
    /// Creates a pool of all addresses from `first` to `last`.
    ///
    /// # Errors
    /// Returns [`PoolError::Backwards`] if `last` is before `first`.
    pub fn new(first: A, last: A) -> Result<Self, PoolError> {
        match last.to_bits().checked_sub(first.to_bits()) {
            Some(last) => Ok(Self { first, last, shift: 0 }),
            None => Err(PoolError::Backwards { first: first.to_string(), last: last.to_string() }),
        }
    }

    /// Returns the first address.
    #[must_use]
    pub fn first(&self) -> A {
        self.first
    }

    /// Returns the last address; for prefixes, the first address of the last one.
    #[must_use]
    pub fn last(&self) -> A {
        self.nth(self.last)
    }

    /// Returns whether this is an address of the pool or, for prefixes, the first address of one.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        self.index(address).is_some()
    }

    /// Returns the length of its prefixes in bits; that of an address if it has addresses.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        u8::try_from(A::BITS - self.shift).unwrap_or(u8::MAX)
    }

    /// Returns the index of an address, from 0.
    pub(super) fn index(&self, address: A) -> Option<u128> {
        self.index_around(address).filter(|&index| self.nth(index) == address)
    }

    /// Returns the index of the address, or of the prefix that contains it.
    pub(super) fn index_around(&self, address: A) -> Option<u128> {
        let offset = address.to_bits().checked_sub(self.first.to_bits())?;
        Some(offset.checked_shr(self.shift).unwrap_or(0)).filter(|&index| index <= self.last)
    }

    /// Returns the indexes of the first and the last address of the pool in a range, or of the
    /// first and the last prefix with an address in it; `None` if the range has no address of the pool.
    pub(super) fn indexes(&self, range: &RangeInclusive<A>) -> Option<(u128, u128)> {
        let (start, end) = (*range.start(), *range.end());
        if start > end || end < self.first {
            return None;
        }
        let first = if start <= self.first { 0 } else { self.index_around(start)? };
        Some((first, self.index_around(end).unwrap_or(self.last)))
    }

    /// Returns the last address, for prefixes the last address of the last one.
    pub(super) fn end(&self) -> A {
        let within = if self.shift == 0 { 0 } else { u128::MAX >> (128 - self.shift) };
        A::from_bits(self.last().to_bits().saturating_add(within))
    }

    /// Returns the address with an index, which must not be greater than
    /// [`last_index`](Self::last_index).
    pub(super) fn nth(&self, index: u128) -> A {
        A::from_bits(self.first.to_bits().wrapping_add(index.checked_shl(self.shift).unwrap_or(0)))
    }

    /// Returns the index of the last address.
    pub(super) fn last_index(&self) -> u128 {
        self.last
    }
}

impl Pool<Ipv6Addr> {
    /// Creates a pool of the prefixes of `delegated_len` bits in `prefix`, which has `len` bits
    /// (RFC 8415 section 6.3).
    ///
    /// # Errors
    /// Returns [`PoolError::DelegatedLength`] if they are shorter than `prefix` or longer than 128
    /// bits, and [`PoolError::HostBits`] if `prefix` has bits set after its length.
    pub fn prefixes(prefix: Ipv6Addr, len: u8, delegated_len: u8) -> Result<Self, PoolError> {
        if len > delegated_len || delegated_len > 128 {
            return Err(PoolError::DelegatedLength { prefix, len, delegated_len });
        }
        if prefix.to_bits().checked_shl(len.into()).unwrap_or(0) != 0 {
            return Err(PoolError::HostBits { prefix, len });
        }
        let last = match u32::from(delegated_len - len) {
            0 => 0,
            bits => u128::MAX >> (128 - bits),
        };
        Ok(Self { first: prefix, last, shift: u32::from(128 - delegated_len) })
    }
}

/// Formats the first and the last address, separated by a hyphen; prefixes with their length.
impl<A: PoolAddress> fmt::Display for Pool<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shift == 0 {
            write!(f, "{}-{}", self.first, self.last())
        } else {
            let len = self.prefix_len();
            write!(f, "{}/{len}-{}/{len}", self.first, self.last())
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::addresses(Pool::new(Ipv6Addr::from_bits(5), Ipv6Addr::from_bits(9)).unwrap(), 5)]
    #[case::one(Pool::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST).unwrap(), 1)]
    #[case::prefixes(Pool::prefixes("2001:db8::".parse().unwrap(), 32, 34).unwrap(), 4)]
    #[case::one_prefix(Pool::prefixes("2001:db8::".parse().unwrap(), 56, 56).unwrap(), 1)]
    #[case::one_of_all(Pool::prefixes(Ipv6Addr::UNSPECIFIED, 0, 0).unwrap(), 1)]
    fn every_address_has_its_index(#[case] pool: Pool<Ipv6Addr>, #[case] size: u128) {
        assert_eq!(pool.last_index() + 1, size);
        let addresses: Vec<_> = (0..size).map(|n| pool.nth(n)).collect();
        assert_eq!((addresses.first(), addresses.last()), (Some(&pool.first()), Some(&pool.last())));
        assert!(addresses.is_sorted());
        for (n, address) in (0..).zip(addresses) {
            assert_eq!(pool.index(address), Some(n));
        }
        let step = 1_u128.checked_shl(pool.shift).unwrap_or(0);
        if step != 0 {
            assert!(!pool.contains(Ipv6Addr::from_bits(pool.last().to_bits() + step)));
            assert!(!pool.contains(Ipv6Addr::from_bits(pool.first().to_bits() - 1 - (step - 1) / 2)));
        }
        if step > 1 {
            assert!(!pool.contains(Ipv6Addr::from_bits(pool.first().to_bits() + 1)));
        }
    }

    #[test]
    fn the_largest_pool_does_not_overflow() {
        let all = Pool::new(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)).unwrap();
        assert_eq!(all.index(Ipv6Addr::from_bits(u128::MAX)), Some(u128::MAX));
        assert_eq!(all.nth(u128::MAX), Ipv6Addr::from_bits(u128::MAX));
        let prefixes = Pool::prefixes(Ipv6Addr::UNSPECIFIED, 0, 128).unwrap();
        assert_eq!(prefixes, all);
    }

    #[test]
    fn invalid_pools_are_refused() {
        let pool = Pool::new(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(
            pool.unwrap_err().to_string(),
            "the last address of a pool, 10.0.0.1, is before the first, 10.0.0.2"
        );
        let prefix = "2001:db8::".parse().unwrap();
        assert_eq!(
            Pool::prefixes(prefix, 48, 47),
            Err(PoolError::DelegatedLength { prefix, len: 48, delegated_len: 47 })
        );
        assert!(Pool::prefixes(prefix, 48, 129).is_err());
        assert_eq!(Pool::prefixes(prefix, 16, 64), Err(PoolError::HostBits { prefix, len: 16 }));
    }
}
