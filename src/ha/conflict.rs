//! Which of two leases of an address remains, the own one or that of the partner.

use crate::lease::{Fields, Lease, LeaseState, system_time};

/// How a lease came from the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// As a change that the partner has just made.
    Update,
    /// In a copy of all leases.
    Page,
}

/// What happens to a lease of the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is added: there is no lease of this address.
    Add,
    /// It replaces the own lease of the same client.
    Replace,
    /// It replaces the own lease of another client: both servers gave the address.
    ReplaceOther,
    /// The own lease of the same client remains.
    Keep,
    /// The own lease of another client remains: both servers gave the address.
    KeepOther,
}

impl Decision {
    /// Returns whether the partner's lease is stored.
    #[must_use]
    pub fn takes(self) -> bool {
        matches!(self, Self::Add | Self::Replace | Self::ReplaceOther)
    }
}

/// Numbers of conflicts, each of an address that both servers gave to different clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflicts {
    /// Conflicts in which the partner's lease remained.
    pub replaced: u64,
    /// Conflicts in which the own lease remained.
    pub kept: u64,
}

impl Conflicts {
    /// Counts a decision.
    pub fn count(&mut self, decision: Decision) {
        match decision {
            Decision::ReplaceOther => self.replaced = self.replaced.saturating_add(1),
            Decision::KeepOther => self.kept = self.kept.saturating_add(1),
            Decision::Add | Decision::Replace | Decision::Keep => {}
        }
    }
}

/// Decides what happens to the partner's lease of an address, at `now` in seconds since the epoch.
///
/// Of one client's leases, that with the newer cltt remains. At the same cltt, a change replaces
/// the own lease; in a copy, a lease in use remains, then that of the primary, so that both servers
/// come to the same end. Of different clients' leases, one in use remains before one that has
/// ended, then that with the newer cltt, then that of the primary: if both servers give an address
/// at the same time, one of them is told so, before its client is. A lease that has expired, was reclaimed or released never
/// stands in the way of a change.
///
/// Clocks that differ do no harm if a server that changes a lease gives it [`next_cltt`].
#[must_use]
pub fn decide<L: Lease>(own: Option<&L>, other: &L, via: Via, now: i64, other_is_primary: bool) -> Decision {
    let Some(own) = own else { return Decision::Add };
    let is_same_client = same_client(&own.fields(), &other.fields());
    let in_use = |lease: &L| {
        let state = lease.state();
        !lease.is_reclaimed() && state != LeaseState::RELEASED && !lease.is_expired(system_time(now))
    };
    let (own_in_use, other_in_use) = (in_use(own), in_use(other));
    let (own_cltt, other_cltt) = (own.data().cltt, other.data().cltt);
    let takes = if !is_same_client && own_in_use != other_in_use {
        other_in_use
    } else if via == Via::Update && (is_same_client || !own_in_use) {
        other_cltt >= own_cltt || !own_in_use
    } else if other_cltt != own_cltt {
        other_cltt > own_cltt
    } else if own_in_use != other_in_use {
        other_in_use
    } else {
        other_is_primary && own != other
    };
    match (takes, is_same_client) {
        (true, true) => Decision::Replace,
        (true, false) => Decision::ReplaceOther,
        (false, true) => Decision::Keep,
        (false, false) => Decision::KeepOther,
    }
}

/// Returns whether two leases of an address belong to one client. Leases without a client, such as
/// declined ones, belong together.
fn same_client(one: &Fields<'_>, other: &Fields<'_>) -> bool {
    match (one.client, other.client) {
        (Some(_), Some(_)) => one.client == other.client && one.iaid == other.iaid,
        _ => one.client == other.client && one.hwaddr == other.hwaddr,
    }
}

/// Returns the cltt of a lease that is changed now, after what it was: of all changes of a lease
/// the last has the newest cltt, also if servers with different clocks made them.
///
/// ```
/// use leasemgr::ha::next_cltt;
///
/// assert_eq!(next_cltt(1_790_000_000, None), 1_790_000_000);
/// assert_eq!(next_cltt(1_790_000_000, Some(1_790_000_030)), 1_790_000_031);
/// ```
#[must_use]
pub fn next_cltt(now: i64, previous: Option<i64>) -> i64 {
    previous.map_or(now, |previous| now.max(previous.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{HwAddr, Lease4};

    const NOW: i64 = 1_790_000_500;

    /// Returns a lease of a client, with its age and its valid lifetime in seconds.
    fn lease(client: u8, age: i64, lifetime: u32) -> Lease4 {
        let builder = Lease4::builder([192, 0, 2, 1].into()).client(HwAddr::from([2, 0, 0, 0, 0, client]));
        builder.subnet(1).lifetime(lifetime).cltt(NOW - age).build().unwrap()
    }

    fn released(client: u8, age: i64) -> Lease4 {
        let mut lease = lease(client, age, 1000);
        lease.set_state(LeaseState::RELEASED).unwrap();
        lease
    }

    #[rstest]
    #[case::newer(lease(1, 9, 1000), lease(1, 8, 1000), Decision::Replace, Decision::Replace)]
    #[case::older(lease(1, 8, 1000), lease(1, 9, 1000), Decision::Keep, Decision::Keep)]
    #[case::same(lease(1, 9, 1000), lease(1, 9, 1000), Decision::Replace, Decision::Keep)]
    #[case::other_newer(lease(1, 9, 1000), lease(2, 8, 1000), Decision::ReplaceOther, Decision::ReplaceOther)]
    #[case::other_older(lease(1, 8, 1000), lease(2, 9, 1000), Decision::KeepOther, Decision::KeepOther)]
    #[case::other_at_the_same_time(
        lease(1, 9, 1000),
        lease(2, 9, 1000),
        Decision::KeepOther,
        Decision::KeepOther
    )]
    #[case::expired(lease(1, 8, 5), lease(2, 9, 1000), Decision::ReplaceOther, Decision::ReplaceOther)]
    #[case::released(released(1, 8), lease(2, 9, 1000), Decision::ReplaceOther, Decision::ReplaceOther)]
    #[case::released_by_this_client(released(1, 8), lease(1, 9, 1000), Decision::Replace, Decision::Keep)]
    #[case::release(lease(1, 9, 1000), released(1, 9), Decision::Replace, Decision::Keep)]
    #[case::release_of_another(lease(1, 9, 1000), released(2, 8), Decision::KeepOther, Decision::KeepOther)]
    fn decisions(
        #[case] own: Lease4,
        #[case] other: Lease4,
        #[case] update: Decision,
        #[case] page: Decision,
    ) {
        assert_eq!(decide(None, &other, Via::Page, NOW, false), Decision::Add);
        assert_eq!(decide(Some(&own), &other, Via::Update, NOW, false), update);
        assert_eq!(decide(Some(&own), &other, Via::Page, NOW, false), page);
    }

    #[test]
    fn at_the_same_time_the_primary_gives_an_address() {
        let (own, other) = (lease(1, 9, 1000), lease(2, 9, 1000));
        for via in [Via::Update, Via::Page] {
            assert_eq!(decide(Some(&own), &other, via, NOW, true), Decision::ReplaceOther);
            assert_eq!(decide(Some(&own), &other, via, NOW, false), Decision::KeepOther);
        }
    }

    /// Two servers that copy each other's leases then have the same one, in either order.
    #[test]
    fn copies_of_any_two_leases_end_equal() {
        let leases: Vec<_> = (1..=2)
            .flat_map(|client| {
                let ages = [8, 9];
                ages.map(|age| [lease(client, age, 1000), lease(client, age, 5), released(client, age)])
            })
            .flatten()
            .chain([lease(1, 9, 900)])
            .collect();
        for primary in &leases {
            for secondary in &leases {
                let at_primary = decide(Some(primary), secondary, Via::Page, NOW, false);
                let first = if at_primary.takes() { secondary } else { primary };
                let at_secondary = decide(Some(secondary), first, Via::Page, NOW, true);
                let second = if at_secondary.takes() { first } else { secondary };
                assert_eq!(first, second, "{primary:?} and {secondary:?}");
                let at_secondary = decide(Some(secondary), primary, Via::Page, NOW, true);
                let second = if at_secondary.takes() { primary } else { secondary };
                let at_primary = decide(Some(primary), second, Via::Page, NOW, false);
                let first = if at_primary.takes() { second } else { primary };
                assert_eq!(first, second, "{primary:?} and {secondary:?}");
            }
        }
    }

    #[test]
    fn conflicts_are_counted() {
        let mut conflicts = Conflicts::default();
        for decision in [Decision::Add, Decision::ReplaceOther, Decision::KeepOther, Decision::KeepOther] {
            conflicts.count(decision);
        }
        assert_eq!(conflicts, Conflicts { replaced: 1, kept: 2 });
    }
}
