//! Checks that leases are in the subnets that they name.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::lease::{Family, SubnetId};

/// What happens to leases outside of their subnets when they are loaded: leases whose subnet is
/// unknown, or does not contain their address.
///
/// Delegated prefixes are not checked, as in Kea: they need not be part of a subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseChecks {
    /// Nothing is checked.
    None,
    /// They are kept and logged.
    #[default]
    Warn,
    /// They are moved to the subnet that contains their address; without one, as with
    /// [`LeaseChecks::Warn`].
    Fix,
    /// They are moved to the subnet that contains their address; without one, they are dropped.
    FixDel,
    /// They are dropped.
    Del,
}

/// The subnets of a server, and what happens to leases outside of them when they are loaded.
///
/// ```
/// use leasemgr::lease::SubnetId;
/// use leasemgr::memfile::{LeaseChecks, LeaseSanity, MemfileOptions, SubnetMap};
///
/// let subnets = SubnetMap::new([
///     (SubnetId(1), [192, 0, 2, 0].into(), 24),
///     (SubnetId(2), [198, 51, 100, 0].into(), 24),
/// ])?;
/// let options = MemfileOptions::at("/var/lib/dhcp/leases4.csv")
///     .lease_sanity(LeaseSanity { checks: LeaseChecks::Fix, subnets });
/// # let _ = options;
/// # Ok::<(), leasemgr::memfile::SubnetMapError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LeaseSanity {
    /// What happens to leases outside of their subnets.
    pub checks: LeaseChecks,
    /// The subnets.
    pub subnets: SubnetMap,
}

/// The reason why subnets do not form a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetMapError {
    /// A prefix is longer than an address.
    #[error("subnet {}: {address}/{length} is not a prefix, expected a length of at most {}", id.0, bits(*address))]
    Length {
        /// The subnet.
        id: SubnetId,
        /// The address of the prefix.
        address: IpAddr,
        /// The length of the prefix.
        length: u8,
    },
    /// Two subnets have the same id.
    #[error("the subnet id {} is used twice", id.0)]
    Id {
        /// The id.
        id: SubnetId,
    },
    /// Two subnets have the same prefix.
    #[error("the subnets {} and {} have the same prefix {address}/{length}", first.0, second.0)]
    Prefix {
        /// A subnet.
        first: SubnetId,
        /// Another one.
        second: SubnetId,
        /// The address of the prefix.
        address: IpAddr,
        /// The length of the prefix.
        length: u8,
    },
}

/// The subnets of a server: which addresses each one contains, and which one holds an address.
///
/// Where subnets overlap, all of them contain the address, and the one with the longest prefix
/// holds it.
#[derive(Clone, Debug, Default)]
pub struct SubnetMap {
    /// The first and last address of each subnet. IPv4 addresses are 32-bit numbers.
    ranges: HashMap<SubnetId, (Family, u128, u128), RandomState>,
    v4: Holders,
    v6: Holders,
}

/// The addresses at which the holding subnet changes, in ascending order, with the subnet from
/// there on.
type Holders = Vec<(u128, Option<SubnetId>)>;

fn number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(address) => (Family::V4, address.to_bits().into()),
        IpAddr::V6(address) => (Family::V6, address.to_bits()),
    }
}

/// Returns the number of bits of an address of the same family.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl SubnetMap {
    /// Creates a map from subnets: ID, address and length of the prefix. Address bits after the
    /// prefix are ignored.
    ///
    /// # Errors
    /// Returns [`SubnetMapError`] if a prefix is longer than an address, or an ID or a prefix is
    /// used twice.
    pub fn new(subnets: impl IntoIterator<Item = (SubnetId, IpAddr, u8)>) -> Result<Self, SubnetMapError> {
        let mut map = Self::default();
        // In the order of the first address, and then shorter prefixes before the longer ones
        // within them.
        let mut sorted = BTreeMap::new();
        for (id, address, length) in subnets {
            let Some(host_bits) = bits(address).checked_sub(length) else {
                return Err(SubnetMapError::Length { id, address, length });
            };
            let (family, number) = number(address);
            let host = 1_u128.checked_shl(host_bits.into()).map_or(u128::MAX, |size| size - 1);
            let (first, last) = (number & !host, number | host);
            if map.ranges.insert(id, (family, first, last)).is_some() {
                return Err(SubnetMapError::Id { id });
            }
            if let Some((other, _)) = sorted.insert((family, first, length), (id, last)) {
                return Err(SubnetMapError::Prefix { first: other, second: id, address, length });
            }
        }
        map.v4 = holders(&sorted, Family::V4);
        map.v6 = holders(&sorted, Family::V6);
        Ok(map)
    }

    /// Returns whether an address is in the prefix of a subnet; `false` if the subnet is unknown.
    #[must_use]
    pub fn is_in(&self, subnet: SubnetId, address: IpAddr) -> bool {
        let (family, number) = number(address);
        self.ranges
            .get(&subnet)
            .is_some_and(|&(of_subnet, first, last)| of_subnet == family && (first..=last).contains(&number))
    }

    /// Returns the subnet that holds an address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<SubnetId> {
        let (family, number) = number(address);
        let holders = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let at = holders.partition_point(|&(from, _)| from <= number).checked_sub(1)?;
        holders.get(at).and_then(|&(_, holder)| holder)
    }
}

/// Returns which subnets of a family hold which addresses. Two prefixes are either nested or
/// disjoint.
fn holders(sorted: &BTreeMap<(Family, u128, u8), (SubnetId, u128)>, family: Family) -> Holders {
    let mut holders = Holders::new();
    let mut put = |from: u128, holder: Option<SubnetId>| {
        if holders.last().is_some_and(|&(last, _)| last == from) {
            holders.pop();
        }
        holders.push((from, holder));
    };
    // The subnets that contain the current address, the shortest prefix first.
    let mut open: Vec<(SubnetId, u128)> = Vec::new();
    let close = |open: &mut Vec<(SubnetId, u128)>, before: Option<u128>, put: &mut dyn FnMut(_, _)| {
        while let Some((_, last)) = open.pop_if(|(_, last)| before.is_none_or(|before| *last < before)) {
            // There is nothing after the last address of the family.
            if let Some(next) = last.checked_add(1) {
                put(next, open.last().map(|&(id, _)| id));
            }
        }
    };
    for (&(of_subnet, first, _), &(id, last)) in sorted {
        if of_subnet == family {
            close(&mut open, Some(first), &mut put);
            put(first, Some(id));
            open.push((id, last));
        }
    }
    close(&mut open, None, &mut put);
    holders
}

/// What happens to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is kept.
    Valid,
    /// It is outside of its subnet, and is kept.
    Outside,
    /// It is moved to this subnet.
    Moved(SubnetId),
    /// It is dropped.
    Dropped,
}

impl LeaseSanity {
    /// Returns whether leases are checked at all.
    pub(super) fn is_needed(&self) -> bool {
        self.checks != LeaseChecks::None
    }

    /// Returns what happens to a lease of this address that names this subnet.
    pub(super) fn verdict(&self, subnet: SubnetId, address: IpAddr) -> Verdict {
        if !self.is_needed() || self.subnets.is_in(subnet, address) {
            return Verdict::Valid;
        }
        let better = || self.subnets.holder(address).map(Verdict::Moved);
        match self.checks {
            LeaseChecks::None | LeaseChecks::Warn => Verdict::Outside,
            LeaseChecks::Fix => better().unwrap_or(Verdict::Outside),
            LeaseChecks::FixDel => better().unwrap_or(Verdict::Dropped),
            LeaseChecks::Del => Verdict::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn map(subnets: &[(u32, &str)]) -> Result<SubnetMap, SubnetMapError> {
        SubnetMap::new(subnets.iter().map(|&(id, prefix)| {
            let (address, length) = prefix.split_once('/').unwrap();
            (SubnetId(id), address.parse().unwrap(), length.parse().unwrap())
        }))
    }

    const SUBNETS: &[(u32, &str)] = &[
        (1, "192.0.2.0/24"),
        (2, "192.0.2.64/26"),
        (3, "192.0.2.127/32"),
        (4, "198.51.100.100/25"),
        (5, "255.0.0.0/8"),
        (6, "2001:db8::/32"),
        (7, "2001:db8:1::/48"),
        (8, "ffff::/16"),
    ];

    #[rstest]
    #[case("192.0.1.255", None)]
    #[case("192.0.2.0", Some(1))]
    #[case("192.0.2.63", Some(1))]
    #[case::the_longest_prefix("192.0.2.64", Some(2))]
    #[case("192.0.2.126", Some(2))]
    #[case("192.0.2.127", Some(3))]
    #[case("192.0.2.128", Some(1))]
    #[case("192.0.2.255", Some(1))]
    #[case("192.0.3.0", None)]
    #[case::bits_beyond_the_prefix_do_not_matter("198.51.100.0", Some(4))]
    #[case("198.51.100.128", None)]
    #[case::the_last_address("255.255.255.255", Some(5))]
    #[case("0.0.0.0", None)]
    #[case("2001:db8::", Some(6))]
    #[case("2001:db8:1:ffff:ffff:ffff:ffff:ffff", Some(7))]
    #[case("2001:db8:2::", Some(6))]
    #[case("2001:db9::", None)]
    #[case("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(8))]
    #[case::of_the_other_family("::192.0.2.1", None)]
    fn an_address_is_held_by_the_longest_prefix(#[case] address: IpAddr, #[case] holder: Option<u32>) {
        assert_eq!(map(SUBNETS).unwrap().holder(address), holder.map(SubnetId));
    }

    #[rstest]
    #[case("0.0.0.0/0", "255.255.255.255")]
    #[case("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
    fn a_subnet_may_have_all_addresses(#[case] prefix: &str, #[case] address: IpAddr) {
        let all = map(&[(9, prefix)]).unwrap();
        assert_eq!(all.holder(address), Some(SubnetId(9)));
        assert!(all.is_in(SubnetId(9), address));
    }

    #[rstest]
    #[case(&[(1, "192.0.2.0/33")], "subnet 1: 192.0.2.0/33 is not a prefix, expected a length of at most 32")]
    #[case(&[(1, "2001:db8::/129")], "subnet 1: 2001:db8::/129 is not a prefix, expected a length of at most 128")]
    #[case(&[(1, "192.0.2.0/24"), (1, "192.0.3.0/24")], "the subnet id 1 is used twice")]
    #[case(&[(1, "192.0.2.0/24"), (2, "192.0.2.1/24")], "the subnets 1 and 2 have the same prefix 192.0.2.1/24")]
    fn conflicting_and_invalid_subnets_are_refused(#[case] subnets: &[(u32, &str)], #[case] error: &str) {
        assert_eq!(map(subnets).unwrap_err().to_string(), error);
    }

    #[rstest]
    #[case::in_its_subnet(2, "192.0.2.64", [Verdict::Valid; 5])]
    #[case::in_a_larger_subnet(1, "192.0.2.64", [Verdict::Valid; 5])]
    #[case::in_another_subnet(4, "192.0.2.64", [
        Verdict::Valid, Verdict::Outside, Verdict::Moved(SubnetId(2)), Verdict::Moved(SubnetId(2)), Verdict::Dropped,
    ])]
    #[case::of_an_unknown_subnet(77, "192.0.2.1", [
        Verdict::Valid, Verdict::Outside, Verdict::Moved(SubnetId(1)), Verdict::Moved(SubnetId(1)), Verdict::Dropped,
    ])]
    #[case::in_no_subnet(1, "203.0.113.1", [
        Verdict::Valid, Verdict::Outside, Verdict::Outside, Verdict::Dropped, Verdict::Dropped,
    ])]
    fn the_checks_decide_what_happens_to_a_lease(
        #[case] subnet: u32,
        #[case] address: IpAddr,
        #[case] verdicts: [Verdict; 5],
    ) {
        use LeaseChecks::{Del, Fix, FixDel, None, Warn};
        let found = [None, Warn, Fix, FixDel, Del].map(|checks| {
            let sanity = LeaseSanity { checks, subnets: map(SUBNETS).unwrap() };
            sanity.verdict(SubnetId(subnet), address)
        });
        assert_eq!(found, verdicts);
    }

    proptest! {
        #[test]
        fn a_map_finds_what_a_scan_finds(
            prefixes in prop::collection::btree_map(
                (0_u8..16, 28_u8..=32).prop_map(|(bits, length)| {
                    (bits & !((1 << (32 - length)) - 1), length)
                }),
                any::<u32>(),
                0..12,
            ),
            address in 0_u8..20,
        ) {
            let prefixes: Vec<_> = prefixes.keys().copied().zip(1..).collect();
            let subnets = prefixes.iter().map(|&((bits, length), id)| {
                (SubnetId(id), IpAddr::from([10, 0, 0, bits]), length)
            });
            let map = SubnetMap::new(subnets).unwrap();
            let size = |length: u8| 1_u8 << (32 - length);
            let holds = |bits: u8, length: u8| (bits..bits + size(length)).contains(&address);
            let scanned = prefixes.iter().filter(|((bits, length), _)| holds(*bits, *length));
            let longest = scanned.max_by_key(|((_, length), _)| *length).map(|(_, id)| SubnetId(*id));
            prop_assert_eq!(map.holder([10, 0, 0, address].into()), longest);
            for ((bits, length), id) in prefixes {
                prop_assert_eq!(map.is_in(SubnetId(id), [10, 0, 0, address].into()), holds(bits, length));
            }
        }
    }
}
