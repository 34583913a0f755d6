//! Ranges of addresses and prefixes that a server can lease.

use std::iter;
use std::ops::RangeInclusive;

use super::ManagedLease;

/// The addresses of a range, or the prefixes of one length in it, that a server may lease, without
/// exclusions.
///
/// ```
/// use std::net::{Ipv4Addr, Ipv6Addr};
/// use leasemgr::FreeRange;
/// use leasemgr::lease::{Lease4, Lease6};
///
/// let first = Ipv4Addr::new(192, 0, 2, 1);
/// let range = FreeRange::<Lease4>::new(first..=Ipv4Addr::new(192, 0, 2, 254))
///     .without(first..=Ipv4Addr::new(192, 0, 2, 9));
/// assert_eq!(range.from(first), Some(Ipv4Addr::new(192, 0, 2, 10)));
///
/// let first: Ipv6Addr = "2001:db8::".parse()?;
/// let prefixes = FreeRange::<Lease6>::prefixes(first..="2001:db8:ff::".parse()?, 48);
/// assert_eq!(prefixes.after(first), Some("2001:db8:1::".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeRange<L: ManagedLease> {
    first: L::Address,
    last: L::Address,
    /// Length of the prefixes in bits; the length of an address if these are addresses.
    prefix_len: u32,
    /// In the order of their first addresses.
    exclusions: Vec<(u128, u128)>,
}

impl<L: ManagedLease> FreeRange<L> {
    /// Creates a range of addresses; it is empty if its last address is less than its first.
    #[must_use]
    pub fn new(range: RangeInclusive<L::Address>) -> Self {
        let (first, last) = range.into_inner();
        Self { first, last, prefix_len: L::ADDRESS_BITS, exclusions: Vec::new() }
    }

    /// Creates a range of prefixes of one length in bits (at most the length of an address; 0
    /// counts as 1) whose first addresses are in a range: each starts at a multiple of the size of
    /// a prefix after the first address of the range.
    #[must_use]
    pub fn prefixes(range: RangeInclusive<L::Address>, prefix_len: u8) -> Self {
        Self { prefix_len: u32::from(prefix_len).clamp(1, L::ADDRESS_BITS), ..Self::new(range) }
    }

    /// Excludes the addresses of a range, or the prefixes whose first addresses are in it.
    #[must_use]
    pub fn without(mut self, excluded: RangeInclusive<L::Address>) -> Self {
        let (first, last) = excluded.into_inner();
        let exclusion = (L::bits_of(first), L::bits_of(last));
        let place = self.exclusions.partition_point(|other| *other < exclusion);
        self.exclusions.insert(place, exclusion);
        self
    }

    /// Returns the first address of the range.
    #[must_use]
    pub fn first(&self) -> L::Address {
        self.first
    }

    /// Returns the last address of the range.
    #[must_use]
    pub fn last(&self) -> L::Address {
        self.last
    }

    /// Returns the distance between two addresses, or between the first addresses of two prefixes.
    pub(crate) fn step(&self) -> u128 {
        1 << (L::ADDRESS_BITS - self.prefix_len)
    }

    /// Returns whether the server may lease this address, or the prefix with this first address.
    #[must_use]
    pub fn contains(&self, address: L::Address) -> bool {
        self.from(address) == Some(address)
    }

    /// Returns the lowest address of the range that is not less than this one.
    #[must_use]
    pub fn from(&self, address: L::Address) -> Option<L::Address> {
        self.at_or_after(L::bits_of(address))
    }

    /// Returns the lowest address of the range that is greater than this one.
    #[must_use]
    pub fn after(&self, address: L::Address) -> Option<L::Address> {
        self.at_or_after(L::bits_of(address).checked_add(1)?)
    }

    fn at_or_after(&self, bits: u128) -> Option<L::Address> {
        let (first, last, step) = (L::bits_of(self.first), L::bits_of(self.last), self.step());
        let round_up = |bits: u128| {
            let remainder = bits.saturating_sub(first) % step;
            if remainder == 0 { Some(bits.max(first)) } else { bits.checked_add(step - remainder) }
        };
        let mut bits = round_up(bits)?;
        for &(from, to) in &self.exclusions {
            if (from..=to).contains(&bits) {
                bits = round_up(to.checked_add(1)?)?;
            }
        }
        (bits <= last).then(|| L::address_of_bits(bits))
    }

    /// Returns the part of the range after this address.
    #[must_use]
    pub fn starting_after(&self, address: L::Address) -> Option<Self> {
        let first = self.after(address)?;
        Some(Self { first, ..self.clone() })
    }

    /// Returns all addresses, or first addresses of prefixes, in order.
    pub fn iter(&self) -> impl Iterator<Item = L::Address> {
        iter::successors(self.from(self.first), |&address| self.after(address))
    }

    /// Returns the lowest address, from `from` on, that is in none of these leases. `occupied` are
    /// the leases of the range in the order of their addresses, without those that a new lease may
    /// replace.
    pub(crate) fn lowest_gap(&self, from: L::Address, occupied: impl Iterator<Item = L::Address>) -> Gap<L> {
        let mut next = self.from(from);
        for address in occupied {
            match next {
                Some(candidate) if candidate == address => next = self.after(address),
                Some(candidate) if candidate < address => return Gap::Found(candidate),
                Some(_) => {}
                None => return Gap::None,
            }
        }
        next.map_or(Gap::None, Gap::After)
    }
}

/// The result of a search for an address without a lease.
#[derive(Debug)]
pub(crate) enum Gap<L: ManagedLease> {
    /// This address has no lease.
    Found(L::Address),
    /// All addresses before this one are occupied; this one was not examined.
    After(L::Address),
    /// All addresses are occupied.
    None,
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::lease::{Lease4, Lease6};

    fn v4(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_range_has_the_addresses_that_are_in_no_exclusion(
            first in 0..40_u32,
            len in 0..40_u32,
            excluded in prop::collection::vec((0..80_u32, 0..20_u32), 0..4),
            from in 0..80_u32,
        ) {
            let mut range = FreeRange::<Lease4>::new(v4(first)..=v4(first + len));
            for &(start, len) in &excluded {
                range = range.without(v4(start)..=v4(start + len));
            }
            let is_in = |n: u32| !excluded.iter().any(|&(start, len)| (start..=start + len).contains(&n));
            let expected: Vec<_> = (first..=first + len).filter(|&n| is_in(n)).map(v4).collect();
            prop_assert_eq!(range.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(range.from(v4(from)), expected.iter().copied().find(|&address| address >= v4(from)));
            prop_assert_eq!(range.contains(v4(from)), expected.contains(&v4(from)));
            let rest = range.starting_after(v4(from));
            let rest: Vec<_> = rest.iter().flat_map(FreeRange::iter).collect();
            prop_assert_eq!(rest, expected.into_iter().filter(|&address| address > v4(from)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_ends_of_the_address_space_are_in_a_range_of_everything() {
        let last = Ipv6Addr::from_bits(u128::MAX);
        let all = FreeRange::<Lease6>::new(Ipv6Addr::UNSPECIFIED..=last);
        assert_eq!(all.from(last), Some(last));
        assert_eq!(all.after(last), None);
        let halves = FreeRange::<Lease6>::prefixes(Ipv6Addr::UNSPECIFIED..=last, 1);
        assert_eq!(halves.iter().count(), 2);
        assert_eq!(FreeRange::<Lease6>::prefixes(last..=last, 0).iter().count(), 1);
        let all = FreeRange::<Lease4>::new(Ipv4Addr::UNSPECIFIED..=Ipv4Addr::BROADCAST);
        assert_eq!(all.after(Ipv4Addr::BROADCAST), None);
        assert_eq!(all.without(v4(0)..=Ipv4Addr::BROADCAST).from(v4(1)), None);
    }
}
