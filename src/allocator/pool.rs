//! What is given out.

use std::fmt;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// An address as pools count it: [`Ipv4Addr`] and [`Ipv6Addr`].
pub trait PoolAddress: Copy + fmt::Debug + fmt::Display + Eq + Hash + Ord + Send + Sync + 'static {
    /// How many bits it has: 32 or 128.
    const BITS: u32;

    /// The address as a number.
    fn to_bits(self) -> u128;

    /// The address with this number, of which the lowest [`BITS`](Self::BITS) bits count.
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

/// Why a pool is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The last address comes before the first.
    #[error("a pool cannot reach from {first} to {last}, which comes before it")]
    Backwards {
        /// The first address.
        first: String,
        /// The last address.
        last: String,
    },
    /// Delegated prefixes are no longer than what they are taken from, or longer than an address.
    #[error(
        "prefixes of {delegated_len} bits cannot be delegated from {prefix}/{len}, expected {len} to 128"
    )]
    DelegatedLength {
        /// The prefix that they were to be taken from.
        prefix: Ipv6Addr,
        /// Its length in bits.
        len: u8,
        /// The length of the delegated ones in bits.
        delegated_len: u8,
    },
    /// A prefix has bits behind its end.
    #[error("{prefix} has more bits than the {len} of its length")]
    HostBits {
        /// The prefix.
        prefix: Ipv6Addr,
        /// Its length in bits.
        len: u8,
    },
}

/// The addresses, or the prefixes of one length, that a server gives out: all from a first to a last one.
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
    /// The number of the last one, if the first is 0. The number of all would not fit for `::/0`.
    last: u128,
    /// By so many bits, the addresses are apart.
    shift: u32,
}

impl<A: PoolAddress> Pool<A> {
    /// All addresses from `first` to `last`.
    ///
    /// # Errors
    /// [`PoolError::Backwards`] where `last` comes before `first`.
    pub fn new(first: A, last: A) -> Result<Self, PoolError> {
        match last.to_bits().checked_sub(first.to_bits()) {
            Some(last) => Ok(Self { first, last, shift: 0 }),
            None => Err(PoolError::Backwards { first: first.to_string(), last: last.to_string() }),
        }
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> A {
        self.first
    }

    /// The last address; of prefixes, the first address of the last one.
    #[must_use]
    pub fn last(&self) -> A {
        self.nth(self.last)
    }

    /// Whether this is one of its addresses or, of a pool of prefixes, the first address of one.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        self.index(address).is_some()
    }

    /// The length of its prefixes in bits: that of an address where it has addresses.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        u8::try_from(A::BITS - self.shift).unwrap_or(u8::MAX)
    }

    /// The number of an address, from 0 on.
    pub(super) fn index(&self, address: A) -> Option<u128> {
        self.index_around(address).filter(|&index| self.nth(index) == address)
    }

    /// The number of the address, or of the prefix that it is in.
    pub(super) fn index_around(&self, address: A) -> Option<u128> {
        let offset = address.to_bits().checked_sub(self.first.to_bits())?;
        Some(offset.checked_shr(self.shift).unwrap_or(0)).filter(|&index| index <= self.last)
    }

    /// Returns the numbers of the first and the last address of the pool in a range, or of the first and the last prefix that has an
    /// address in it; `None` if the pool has none there.
    pub(super) fn indexes(&self, range: &RangeInclusive<A>) -> Option<(u128, u128)> {
        let (start, end) = (*range.start(), *range.end());
        if start > end || end < self.first {
            return None;
        }
        let first = if start <= self.first { 0 } else { self.index_around(start)? };
        Some((first, self.index_around(end).unwrap_or(self.last)))
    }

    /// The last address, also of the last prefix.
    pub(super) fn end(&self) -> A {
        let within = if self.shift == 0 { 0 } else { u128::MAX >> (128 - self.shift) };
        A::from_bits(self.last().to_bits().saturating_add(within))
    }

    /// The address with a number, which must not be greater than [`last_index`](Self::last_index).
    pub(super) fn nth(&self, index: u128) -> A {
        A::from_bits(self.first.to_bits().wrapping_add(index.checked_shl(self.shift).unwrap_or(0)))
    }

    /// The number of the last address.
    pub(super) fn last_index(&self) -> u128 {
        self.last
    }
}

impl Pool<Ipv6Addr> {
    /// The prefixes of `delegated_len` bits that start with `prefix`, which has `len` bits (RFC 8415 section 6.3).
    ///
    /// # Errors
    /// [`PoolError::DelegatedLength`] where they are shorter than `prefix`, or longer than 128 bits, and
    /// [`PoolError::HostBits`] where `prefix` has bits behind its length.
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

/// The first and the last address with a hyphen between them; prefixes with their length.
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
    fn every_address_has_its_number(#[case] pool: Pool<Ipv6Addr>, #[case] size: u128) {
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
    fn the_greatest_pool_is_counted() {
        let all = Pool::new(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)).unwrap();
        assert_eq!(all.index(Ipv6Addr::from_bits(u128::MAX)), Some(u128::MAX));
        assert_eq!(all.nth(u128::MAX), Ipv6Addr::from_bits(u128::MAX));
        let prefixes = Pool::prefixes(Ipv6Addr::UNSPECIFIED, 0, 128).unwrap();
        assert_eq!(prefixes, all);
    }

    #[test]
    fn what_is_no_pool_is_refused() {
        let pool = Pool::new(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(
            pool.unwrap_err().to_string(),
            "a pool cannot reach from 10.0.0.2 to 10.0.0.1, which comes before it"
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
