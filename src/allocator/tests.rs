//! Tests of the guarantees of allocators, with all strategies.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use rstest::rstest;

use super::*;
use crate::lease::{
    Duid, HwAddr, Iaid, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId, system_time,
};
use crate::{Added, Deleted, LeaseMgrExt, LeaseMgrFactory, Status, Tracking};

/// The error of a lease manager that cannot be read.
#[derive(Debug, PartialEq)]
struct NoAnswer;

impl From<LeaseMgrError> for NoAnswer {
    fn from(_: LeaseMgrError) -> Self {
        Self
    }
}

const OFFER_TIME: Duration = Duration::from_secs(10);

type Allocator4 = Allocator<Ipv4Addr, u32>;

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + n)
}

/// Returns an allocator of a pool of `size` addresses.
fn allocator(size: u32, strategy: Strategy) -> Allocator4 {
    Allocator::new(Pool::new(address(0), address(size - 1)).unwrap(), strategy, OFFER_TIME)
}

fn every_address_is_free<A>(_: A) -> Result<bool, NoAnswer> {
    Ok(true)
}

fn offer(allocator: &Allocator4, client: u32, now: Instant) -> Option<Ipv4Addr> {
    allocator.offer(&client, None, now, every_address_is_free).unwrap()
}

fn lease(address: Ipv4Addr) -> Lease4 {
    let hwaddr = HwAddr::new(&address.octets()).unwrap();
    let mut lease = Lease4::new(address, Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
    lease.data_mut().subnet_id = SubnetId(1);
    lease.data_mut().valid_lifetime = Lifetime(100);
    lease
}

fn reclaimed(address: Ipv4Addr) -> Lease4 {
    let mut lease = lease(address);
    lease.set_state(LeaseState::EXPIRED_RECLAIMED).unwrap();
    lease
}

fn in_memory() -> Arc<dyn LeaseMgr<Lease4>> {
    LeaseMgrFactory::new().open("type=memfile persist=false").unwrap()
}

#[rstest]
fn every_address_of_the_pool_is_offered_once(
    #[values(Strategy::Random, Strategy::Iterative, Strategy::FreeList, Strategy::LowestFirst)]
    strategy: Strategy,
    #[values(1, 2, 63, 64, 65, 1000)] size: u32,
) {
    let (allocator, now) = (allocator(size, strategy), Instant::now());
    let offered: Vec<_> = (0..size).map(|client| offer(&allocator, client, now).unwrap()).collect();
    assert_eq!(offered.iter().copied().collect::<BTreeSet<_>>(), (0..size).map(address).collect());
    assert_eq!(offer(&allocator, size, now), None);
    // The offers end, and all addresses are offered again.
    let later = now + OFFER_TIME;
    let again: BTreeSet<_> =
        (0..size).map(|client| offer(&allocator, client + size, later).unwrap()).collect();
    assert_eq!(again.len(), offered.len());
}

#[test]
fn iterative_continues_after_the_last_address() {
    let (allocator, now) = (allocator(4, Strategy::Iterative), Instant::now());
    assert_eq!([0, 1, 2].map(|client| offer(&allocator, client, now)), [0, 1, 2].map(|n| Some(address(n))));
    allocator.withdraw(&0);
    assert_eq!(
        [3, 4, 5].map(|client| offer(&allocator, client, now)),
        [Some(address(3)), Some(address(0)), None]
    );
}

#[rstest]
#[case(Strategy::Random)]
#[case(Strategy::FreeList)]
fn the_next_address_is_unpredictable(#[case] strategy: Strategy) {
    let order = || {
        let (allocator, now) = (allocator(10_000, strategy), Instant::now());
        (0..20).map(|client| offer(&allocator, client, now).unwrap()).collect::<Vec<_>>()
    };
    let first = order();
    assert!(!first.is_sorted());
    assert_ne!(first, order());
}

#[test]
fn a_pool_too_large_for_a_list_is_searched_at_random() {
    let pool = Pool::new("2001:db8::".parse().unwrap(), "2001:db8::ffff:ffff:ffff:ffff".parse().unwrap());
    let allocator = Allocator::<Ipv6Addr, u32>::new(pool.unwrap(), Strategy::FreeList, OFFER_TIME);
    assert_eq!(allocator.strategy(), Strategy::Random);
    let now = Instant::now();
    let offered: HashSet<_> = (0..1000)
        .map(|client| allocator.offer(&client, None, now, every_address_is_free).unwrap().unwrap())
        .collect();
    assert_eq!(offered.len(), 1000);
    assert!(offered.iter().all(|&address| allocator.pool().contains(address)));
}

#[test]
fn prefixes_are_offered_by_their_first_address() {
    let pool = Pool::prefixes("2001:db8::".parse().unwrap(), 48, 50).unwrap();
    let allocator = Allocator::<Ipv6Addr, u32>::new(pool, Strategy::FreeList, OFFER_TIME);
    let now = Instant::now();
    let offered: BTreeSet<Ipv6Addr> = (0..4)
        .map(|client| allocator.offer(&client, None, now, every_address_is_free).unwrap().unwrap())
        .collect();
    let expected = ["2001:db8::", "2001:db8:0:4000::", "2001:db8:0:8000::", "2001:db8:0:c000::"];
    assert_eq!(offered, expected.map(|prefix| prefix.parse().unwrap()).into());
}

#[test]
fn a_full_pool_is_known_without_a_query() {
    const SIZE: u32 = 300_000;
    let (allocator, now) = (allocator(SIZE, Strategy::FreeList), Instant::now());
    for n in 0..SIZE {
        allocator.taken(address(n));
    }
    let ask = |client: u32| {
        let mut questions = 0;
        let offered = allocator.offer(&client, None, now, |_| {
            questions += 1;
            Ok::<_, NoAnswer>(true)
        });
        (offered.unwrap(), questions)
    };
    assert_eq!(ask(1), (None, 0));
    // The only free address is found immediately.
    allocator.released(address(123_456));
    assert_eq!(ask(1), (Some(address(123_456)), 1));
}

#[test]
fn reclaimed_addresses_are_offered_last() {
    let (allocator, now) = (allocator(100, Strategy::FreeList), Instant::now());
    for n in 10..100 {
        allocator.reclaimed(address(n));
    }
    let unused: BTreeSet<_> = (0..10).map(|client| offer(&allocator, client, now).unwrap()).collect();
    assert_eq!(unused, (0..10).map(address).collect());
    assert!(offer(&allocator, 10, now).unwrap() >= address(10));
    // Put back to its tier.
    allocator.withdraw(&3);
    assert!(offer(&allocator, 11, now).unwrap() < address(10));
}

// Offers.

#[rstest]
fn an_offer_is_kept_for_its_client(
    #[values(Strategy::Random, Strategy::Iterative, Strategy::FreeList, Strategy::LowestFirst)]
    strategy: Strategy,
) {
    let (allocator, now) = (allocator(2, strategy), Instant::now());
    let first = offer(&allocator, 1, now).unwrap();
    assert_eq!(offer(&allocator, 1, now), Some(first));
    assert_eq!(allocator.offered(&1, now), Some(first));
    assert!(allocator.may_take(&1, first, now));
    assert!(!allocator.may_take(&2, first, now));
    assert_ne!(offer(&allocator, 2, now), Some(first));
    // No other client gets it, even if it wants it.
    assert_eq!(allocator.offer(&3, Some(first), now, every_address_is_free), Ok(None));
    let just_before = now + OFFER_TIME - Duration::from_nanos(1);
    assert_eq!(offer(&allocator, 3, just_before), None);
    assert_eq!(allocator.offered(&1, now + OFFER_TIME), None);
    assert!(allocator.may_take(&2, first, now + OFFER_TIME));
    assert_eq!(allocator.offer(&3, Some(first), now + OFFER_TIME, every_address_is_free), Ok(Some(first)));
    assert!(!allocator.may_take(&3, address(2), now), "not in the pool");
}

#[rstest]
fn a_client_is_offered_the_address_it_wants_if_free(
    #[values(Strategy::Random, Strategy::Iterative, Strategy::FreeList, Strategy::LowestFirst)]
    strategy: Strategy,
) {
    let (allocator, now) = (allocator(100, strategy), Instant::now());
    let wants =
        |client, wanted| allocator.offer(&client, Some(wanted), now, every_address_is_free).unwrap().unwrap();
    assert_eq!(wants(1, address(77)), address(77));
    let others = [wants(2, address(77)), wants(3, address(100))];
    assert!(others[0] != address(77) && others[1] < address(100));
    // The client wants another address; the one that it was offered before is free.
    let another = [78, 79, 80].map(address).into_iter().find(|address| !others.contains(address)).unwrap();
    assert_eq!(wants(1, another), another);
    assert_eq!(wants(4, address(77)), address(77));
}

#[rstest]
fn an_address_in_use_is_not_offered(
    #[values(Strategy::Random, Strategy::Iterative, Strategy::FreeList, Strategy::LowestFirst)]
    strategy: Strategy,
) {
    let (allocator, now) = (allocator(10, strategy), Instant::now());
    let only = |free: u32| move |asked| Ok::<_, NoAnswer>(asked == address(free));
    assert_eq!(allocator.offer(&1, Some(address(3)), now, only(7)), Ok(Some(address(7))));
    assert_eq!(allocator.offer(&2, None, now, only(7)), Ok(None));
    if matches!(strategy, Strategy::FreeList | Strategy::LowestFirst) {
        // Another program has added these leases; the allocator is told when they are deleted.
        assert_eq!(offer(&allocator, 2, now), None);
        allocator.released(address(5));
        assert_eq!(offer(&allocator, 2, now), Some(address(5)));
    } else {
        assert!(offer(&allocator, 2, now).is_some());
    }
}

#[test]
fn an_address_that_becomes_free_during_the_query_is_not_lost() {
    let (allocator, now) = (allocator(1, Strategy::FreeList), Instant::now());
    let mut asked = 0;
    let released_meanwhile = |address| {
        asked += 1;
        // It had a lease during the query, and has none when the result arrives.
        if asked == 1 {
            allocator.released(address);
        }
        Ok::<_, NoAnswer>(asked > 1)
    };
    assert_eq!(allocator.offer(&1, None, now, released_meanwhile), Ok(Some(address(0))));
}

#[test]
fn an_address_is_not_lost_if_the_query_fails() {
    let (allocator, now) = (allocator(1, Strategy::FreeList), Instant::now());
    assert_eq!(allocator.offer(&1, None, now, |_| Err(NoAnswer)), Err(NoAnswer));
    assert_eq!(allocator.offered(&1, now), None);
    assert_eq!(offer(&allocator, 2, now), Some(address(0)));
}

// Following a lease manager.

#[test]
fn leases_and_changes_of_a_followed_manager_are_known() {
    let (leases, now) = (in_memory(), Instant::now());
    for n in 0..8 {
        assert_eq!(
            leases.add(&if n < 6 { lease(address(n)) } else { reclaimed(address(n)) }).unwrap(),
            Added::Added
        );
    }
    // Also addresses around the pool.
    for n in [u32::MAX, 10, 2000] {
        assert_eq!(
            leases.add(&lease(Ipv4Addr::from_bits(address(0).to_bits().wrapping_add(n)))).unwrap(),
            Added::Added
        );
    }
    let allocator = Arc::new(allocator(10, Strategy::FreeList));
    allocator.follow(&leases).unwrap();
    assert!(matches!(allocator.follow(&leases), Err(FollowError::Followed(_))));
    // Free addresses, in the order in which they are offered.
    let free = || {
        let offered: Vec<_> = (0..).map_while(|client| offer(&allocator, client, now)).collect();
        for client in 0..10 {
            allocator.withdraw(&client);
        }
        let (unused, other): (Vec<_>, Vec<_>) =
            offered.iter().partition(|&&address| leases.get(address).unwrap().is_none());
        assert_eq!(offered, [unused.clone(), other.clone()].concat(), "unused ones come first");
        [unused, other].map(|addresses| addresses.into_iter().collect::<BTreeSet<_>>())
    };
    let expect = |unused: &[u32], reclaimed: &[u32]| {
        let expected =
            [unused, reclaimed].map(|set| set.iter().copied().map(address).collect::<BTreeSet<_>>());
        assert_eq!(free(), expected);
    };
    expect(&[8, 9], &[6, 7]);
    assert_eq!(leases.add(&lease(address(9))).unwrap(), Added::Added);
    expect(&[8], &[6, 7]);
    leases.delete(address(0)).unwrap();
    leases.delete(address(6)).unwrap();
    expect(&[0, 6, 8], &[7]);
    leases.update(&reclaimed(address(1))).unwrap();
    leases.update(&lease(address(7))).unwrap();
    expect(&[0, 6, 8], &[1]);
    let mut declined = lease(address(2));
    declined.decline(UNIX_EPOCH, Lifetime(100));
    leases.update(&declined).unwrap();
    expect(&[0, 6, 8], &[1]);
    leases.delete_reclaimed(system_time(1000)).unwrap();
    expect(&[0, 1, 6, 8], &[]);
    leases.wipe_subnet(SubnetId(1)).unwrap();
    expect(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[]);
}

#[test]
fn an_offer_ends_when_the_lease_is_added() {
    let (leases, now) = (in_memory(), Instant::now());
    let allocator = Arc::new(allocator(2, Strategy::FreeList));
    allocator.follow(&leases).unwrap();
    let own = offer(&allocator, 1, now).unwrap();
    assert_eq!(leases.add(&lease(own)).unwrap(), Added::Added);
    assert_eq!(allocator.offered(&1, now), None);
    // The end of the offer does not make the address free.
    let later = now + OFFER_TIME;
    let other = offer(&allocator, 2, later).unwrap();
    assert_ne!(other, own);
    assert_eq!(offer(&allocator, 3, later), None);
    // A lease that is added and deleted while the address is offered leaves the address free.
    assert_eq!(leases.add(&lease(other)).unwrap(), Added::Added);
    leases.delete(other).unwrap();
    assert_eq!(offer(&allocator, 3, later), Some(other));
}

#[test]
fn each_pool_follows_only_its_own_leases() {
    let leases = LeaseMgrFactory::<Lease6>::new().open("type=memfile universe=6 persist=false").unwrap();
    let addresses = Pool::new(Ipv6Addr::from_bits(0), Ipv6Addr::from_bits(0)).unwrap();
    let prefixes = Pool::prefixes(Ipv6Addr::from_bits(1 << 64), 64, 64).unwrap();
    let [addresses, prefixes] = [addresses, prefixes].map(|pool| {
        let allocator = Arc::new(Allocator::<Ipv6Addr, u32>::new(pool, Strategy::FreeList, OFFER_TIME));
        allocator.follow(&leases).unwrap();
        allocator
    });
    let duid = Duid::new(&[0, 3, 0, 1]).unwrap();
    let mut prefix =
        Lease6::new_prefix(prefixes.pool().first(), 64, duid, Iaid(1), LeaseState::DEFAULT).unwrap();
    assert_eq!(prefix.lease_type(), LeaseType::PD);
    prefix.data_mut().valid_lifetime = Lifetime(100);
    assert_eq!(leases.add(&prefix).unwrap(), Added::Added);
    let offer = |allocator: &Allocator<Ipv6Addr, u32>| {
        allocator.offer(&1, None, Instant::now(), every_address_is_free).unwrap()
    };
    assert_eq!(offer(&prefixes), None);
    assert_eq!(offer(&addresses), Some(Ipv6Addr::from_bits(0)));
}

#[rstest]
fn threads_are_never_offered_the_same_address(
    #[values(Strategy::Random, Strategy::Iterative, Strategy::FreeList, Strategy::LowestFirst)]
    strategy: Strategy,
) {
    const THREADS: u32 = 4;
    const OFFERS: u32 = 500;
    let (allocator, now) = (allocator(THREADS * OFFERS, strategy), Instant::now());
    let start = Barrier::new(THREADS as usize);
    let offered: Vec<_> = thread::scope(|scope| {
        let ask = |thread: u32| {
            start.wait();
            (0..OFFERS).map(|n| offer(&allocator, thread * OFFERS + n, now).unwrap()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || ask(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(offered.iter().collect::<HashSet<_>>().len(), offered.len());
}

#[test]
fn unfollow_and_drop_end_the_following() {
    let (leases, now) = (in_memory(), Instant::now());
    let first = Arc::new(allocator(2, Strategy::LowestFirst));
    first.follow(&leases).unwrap();
    assert!(leases.tracking().is_watched());
    first.unfollow(leases.as_ref());
    assert!(!leases.tracking().is_watched());
    assert_eq!(leases.add(&lease(address(0))).unwrap(), Added::Added);
    assert_eq!(offer(&first, 1, now), Some(address(0)), "the allocator is not notified");
    let second = Arc::new(allocator(2, Strategy::LowestFirst));
    second.follow(&leases).unwrap();
    assert_eq!(offer(&second, 1, now), Some(address(1)));
    // Dropping the allocator that has unfollowed the manager does not affect the other one.
    drop(first);
    assert!(leases.tracking().is_watched());
    drop(second);
    assert!(!leases.tracking().is_watched());
    // Neither keeps the other alive.
    let third = Arc::new(allocator(2, Strategy::LowestFirst));
    third.follow(&leases).unwrap();
    assert_eq!(Arc::strong_count(&third), 1);
    let weak = Arc::downgrade(&leases);
    drop(leases);
    assert!(weak.upgrade().is_none());
}

// Lowest first.

#[test]
fn the_lowest_free_address_is_offered_first() {
    let (leases, now) = (in_memory(), Instant::now());
    for n in [0, 1, 3] {
        assert_eq!(leases.add(&lease(address(n))).unwrap(), Added::Added);
    }
    let allocator = Arc::new(allocator(8, Strategy::LowestFirst));
    allocator.follow(&leases).unwrap();
    assert_eq!([0, 1, 2].map(|client| offer(&allocator, client, now)), [2, 4, 5].map(|n| Some(address(n))));
    leases.update(&reclaimed(address(1))).unwrap();
    assert_eq!(offer(&allocator, 3, now), Some(address(1)));
    allocator.withdraw(&1);
    assert_eq!([4, 5].map(|client| offer(&allocator, client, now)), [4, 6].map(|n| Some(address(n))));
}

#[test]
fn the_lowest_address_of_the_largest_pool_is_found() {
    let pool = Pool::new(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)).unwrap();
    let allocator = Allocator::<Ipv6Addr, u32>::new(pool, Strategy::LowestFirst, OFFER_TIME);
    assert_eq!(allocator.strategy(), Strategy::LowestFirst);
    let offer = |client| allocator.offer(&client, None, Instant::now(), every_address_is_free).unwrap();
    assert_eq!([0, 1].map(offer), [0, 1].map(|n| Some(Ipv6Addr::from_bits(n))));
    allocator.exclude(Ipv6Addr::from_bits(1)..=Ipv6Addr::from_bits(u128::MAX - 1));
    assert_eq!([2, 3].map(offer), [Some(Ipv6Addr::from_bits(u128::MAX)), None]);
}

// Exclusions.

#[rstest]
fn excluded_addresses_are_never_offered(
    #[values(Strategy::Random, Strategy::Iterative, Strategy::FreeList, Strategy::LowestFirst)]
    strategy: Strategy,
) {
    let (allocator, now) = (allocator(200, strategy), Instant::now());
    allocator.exclude(address(60)..=address(70));
    let wants = |client, n| allocator.offer(&client, Some(address(n)), now, every_address_is_free).unwrap();
    assert_ne!(wants(0, 60), Some(address(60)));
    assert_eq!(wants(0, 71), Some(address(71)));
    // An existing offer ends, and its address is not put back.
    assert_eq!(wants(1, 100), Some(address(100)));
    allocator.exclude(address(100)..=address(1000));
    assert_eq!(allocator.offered(&1, now), None);
    assert!(!allocator.may_take(&1, address(100), now));
    for n in [65, 150] {
        allocator.released(address(n));
        allocator.reclaimed(address(n));
    }
    allocator.withdraw(&0);
    let offered: BTreeSet<_> = (0..89).map(|client| offer(&allocator, client, now).unwrap()).collect();
    assert_eq!(offered, (0..60).chain(71..100).map(address).collect());
    let mut questions = 0;
    let none = allocator.offer(&89, None, now, |_| {
        questions += 1;
        Ok::<_, NoAnswer>(true)
    });
    assert_eq!((none, questions), (Ok(None), 0));
    // Ranges outside the pool, and the whole pool.
    allocator.exclude(Ipv4Addr::UNSPECIFIED..=Ipv4Addr::from_bits(address(0).to_bits() - 1));
    assert_eq!(allocator.offered(&0, now).map(|own| allocator.may_take(&0, own, now)), Some(true));
    allocator.exclude(Ipv4Addr::UNSPECIFIED..=Ipv4Addr::BROADCAST);
    assert_eq!(offer(&allocator, 0, now), None);
}

#[test]
fn iterative_continues_after_an_exclusion() {
    let (allocator, now) = (allocator(6, Strategy::Iterative), Instant::now());
    assert_eq!([0, 1].map(|client| offer(&allocator, client, now)), [0, 1].map(|n| Some(address(n))));
    allocator.withdraw(&0);
    allocator.exclude(address(2)..=address(3));
    assert_eq!([2, 3, 4].map(|client| offer(&allocator, client, now)), [4, 5, 0].map(|n| Some(address(n))));
}

#[test]
fn a_prefix_with_an_excluded_address_is_excluded() {
    let pool = Pool::prefixes("2001:db8::".parse().unwrap(), 48, 50).unwrap();
    let allocator = Allocator::<Ipv6Addr, u32>::new(pool, Strategy::LowestFirst, OFFER_TIME);
    allocator.exclude("2001:db8:0:3fff::".parse().unwrap()..="2001:db8:0:4000::".parse().unwrap());
    allocator.exclude("2001:db8:0:ffff::1".parse().unwrap()..="2001:db8:0:ffff::1".parse().unwrap());
    let offer = |client| allocator.offer(&client, None, Instant::now(), every_address_is_free).unwrap();
    assert_eq!([0, 1].map(offer), [Some("2001:db8:0:8000::".parse().unwrap()), None]);
}

// The duration of offers.

#[test]
fn each_offer_has_its_own_duration() {
    let (allocator, now) = (allocator(3, Strategy::LowestFirst), Instant::now());
    let offer_for =
        |client, time| allocator.offer_for(&client, None, (now, time), every_address_is_free).unwrap();
    assert_eq!(offer_for(0, Duration::MAX), Some(address(0)));
    assert_eq!(offer_for(1, OFFER_TIME * 3), Some(address(1)));
    assert_eq!(offer_for(2, OFFER_TIME), Some(address(2)));
    // The offer ends at its original time.
    assert_eq!(offer_for(2, OFFER_TIME * 3), Some(address(2)));
    assert_eq!(offer(&allocator, 3, now + OFFER_TIME), Some(address(2)));
    assert_eq!(offer(&allocator, 4, now + OFFER_TIME * 3), Some(address(1)));
    allocator.withdraw(&3);
    allocator.withdraw(&4);
    let years = Duration::from_secs(1 << 33);
    assert_eq!([0, 5].map(|client| offer(&allocator, client, now + years)), [0, 1].map(|n| Some(address(n))));
}

// Leases that several servers share.

/// A manager whose leases other servers may change without notification. Either finds any free
/// address, from the highest on, or does not support it.
#[derive(Debug)]
struct Shared {
    leases: Arc<dyn LeaseMgr<Lease4>>,
    tracking: Tracking<Lease4>,
    finds_any: bool,
    is_down: AtomicBool,
}

impl LeaseMgr<Lease4> for Shared {
    fn status(&self) -> Status {
        self.leases.status()
    }

    fn add(&self, lease: &Lease4) -> Result<Added, LeaseMgrError> {
        self.leases.add(lease)
    }

    fn get(&self, address: Ipv4Addr) -> Result<Option<Lease4>, LeaseMgrError> {
        self.leases.get(address)
    }

    fn find(&self, query: &Query<'_, Lease4>) -> Result<Vec<Lease4>, LeaseMgrError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(LeaseMgrError::InCallback);
        }
        self.leases.find(query)
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<Lease4>, LeaseMgrError> {
        self.leases.list_expired(now, limit)
    }

    fn update_expecting(&self, lease: &Lease4, expected: Option<&Lease4>) -> Result<(), LeaseMgrError> {
        self.leases.update_expecting(lease, expected)
    }

    fn delete_expecting(
        &self,
        address: Ipv4Addr,
        expected: Option<&Lease4>,
    ) -> Result<Deleted, LeaseMgrError> {
        self.leases.delete_expecting(address, expected)
    }

    fn tracking(&self) -> &Tracking<Lease4> {
        &self.tracking
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn free_address(
        &self,
        range: &FreeRange<Lease4>,
        _: SystemTime,
    ) -> Result<Option<Ipv4Addr>, LeaseMgrError> {
        if !self.finds_any {
            return Err(LeaseMgrError::Unsupported { backend: String::new(), operation: String::new() });
        }
        let is_free = |lease: Option<Lease4>| lease.is_none_or(|lease| lease.is_reclaimed());
        let free: Vec<_> =
            range.iter().filter(|&address| is_free(self.leases.get(address).unwrap())).collect();
        Ok(free.last().copied())
    }
}

fn shared(finds_any: bool) -> Arc<Shared> {
    let (leases, tracking, is_down) = (in_memory(), Tracking::default(), AtomicBool::new(false));
    Arc::new(Shared { leases, tracking, finds_any, is_down })
}

#[rstest]
#[case::any(Strategy::FreeList, true, [7, 6, 5, 3])]
#[case::any_by_the_lowest(Strategy::FreeList, false, [2, 3, 5, 6])]
#[case::lowest(Strategy::LowestFirst, true, [2, 3, 5, 6])]
fn a_shared_manager_is_asked_for_a_free_address(
    #[case] strategy: Strategy,
    #[case] finds_any: bool,
    #[case] expected: [u32; 4],
) {
    let (shared, now) = (shared(finds_any), Instant::now());
    let leases: Arc<dyn LeaseMgr<Lease4>> = shared.clone();
    for n in [0, 1, 4] {
        assert_eq!(leases.add(&lease(address(n))).unwrap(), Added::Added);
    }
    let allocator = Arc::new(allocator(9, strategy));
    allocator.exclude(address(8)..=address(8));
    allocator.follow(&leases).unwrap();
    // Offered and excluded addresses, and those that were not free, are skipped.
    assert_eq!(offer(&allocator, 0, now), Some(address(expected[0])));
    assert_eq!(offer(&allocator, 0, now), Some(address(expected[0])));
    let but_one = |asked| Ok::<_, NoAnswer>(asked != address(expected[1]));
    assert_eq!(allocator.offer(&1, None, now, but_one), Ok(Some(address(expected[2]))));
    assert_eq!(offer(&allocator, 2, now), Some(address(expected[1])));
    // A lease of which the allocator is not notified.
    assert_eq!(leases.add(&lease(address(expected[3]))).unwrap(), Added::Added);
    let left: BTreeSet<_> = (3..).map_while(|client| offer(&allocator, client, now)).collect();
    let gone: BTreeSet<_> = [0, 1, 4].into_iter().chain(expected).map(address).collect();
    assert_eq!(left, (0..8).map(address).filter(|address| !gone.contains(address)).collect());
    leases.update(&reclaimed(address(1))).unwrap();
    assert_eq!(offer(&allocator, 99, now), Some(address(1)));
}

#[test]
fn an_unavailable_shared_manager_is_an_error() {
    let (shared, now) = (shared(false), Instant::now());
    let leases: Arc<dyn LeaseMgr<Lease4>> = shared.clone();
    let allocator = Arc::new(allocator(4, Strategy::LowestFirst));
    allocator.follow(&leases).unwrap();
    let ask = || allocator.offer(&1, None, now, every_address_is_free);
    shared.is_down.store(true, Ordering::Relaxed);
    assert_eq!(ask(), Err(NoAnswer));
    shared.is_down.store(false, Ordering::Relaxed);
    assert_eq!(ask(), Ok(Some(address(0))));
    allocator.withdraw(&1);
    drop((shared, leases));
    assert_eq!(ask(), Err(NoAnswer));
}

#[test]
fn threads_that_ask_a_shared_manager_are_never_offered_the_same_address() {
    const OFFERS: u32 = 50;
    let leases: Arc<dyn LeaseMgr<Lease4>> = shared(false);
    let allocator = Arc::new(allocator(4 * OFFERS, Strategy::LowestFirst));
    allocator.follow(&leases).unwrap();
    let now = Instant::now();
    let offered: Vec<_> = thread::scope(|scope| {
        let ask = |thread: u32| {
            (0..OFFERS).map(|n| offer(&allocator, thread * OFFERS + n, now)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || ask(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let offered: BTreeSet<_> = offered.into_iter().collect();
    assert_eq!(offered, (0..4 * OFFERS).map(|n| Some(address(n))).collect());
}

// Any order of events.

proptest! {
    /// Addresses are leased and freed; offers are made, accepted, withdrawn and forgotten.
    #[test]
    fn a_following_allocator_offers_exactly_the_free_addresses(
        is_lowest_first in any::<bool>(),
        size in 1_u32..12,
        steps in prop::collection::vec((0_u8..7, 0_u32..6, 0_u32..12), 0..80),
    ) {
        let strategy = if is_lowest_first { Strategy::LowestFirst } else { Strategy::FreeList };
        let allocator = allocator(size, strategy);
        let mut now = Instant::now();
        let mut in_use = HashSet::new();
        let mut offers: HashMap<u32, (Ipv4Addr, Instant)> = HashMap::new();
        for (step, client, n) in steps {
            let at = address(n % size);
            match step {
                0..=2 => {
                    let wanted = (step == 2).then_some(at);
                    let is_free = |asked| Ok::<_, NoAnswer>(!in_use.contains(&asked));
                    let got = allocator.offer(&client, wanted, now, is_free).unwrap();
                    let (own, others): (Vec<_>, Vec<_>) =
                        offers.iter().partition(|(of, _)| **of == client);
                    let own = own.first().map(|(_, (own, _))| *own);
                    let others: HashSet<_> = others.iter().map(|(_, (other, _))| *other).collect();
                    let free = |asked: &Ipv4Addr| !in_use.contains(asked) && !others.contains(asked);
                    match got {
                        Some(got) => {
                            prop_assert!(free(&got));
                            let first = match (wanted.filter(free), own) {
                                (None, Some(own)) if wanted.is_none() => Some(own),
                                (wanted, _) => wanted,
                            };
                            prop_assert!(first.is_none_or(|first| first == got));
                            if first.is_none() && is_lowest_first {
                                // The address of its previous offer counts as free.
                                prop_assert_eq!((0..size).map(address).find(free), Some(got));
                            }
                            // An offer of an unwanted address ends first, even if it is the only
                            // one left.
                            if own != Some(got) || wanted.is_some_and(|wanted| wanted != got) {
                                offers.insert(client, (got, now + OFFER_TIME));
                            }
                        }
                        None => prop_assert!(!(0..size).map(address).any(|asked| free(&asked))),
                    }
                }
                3 => {
                    allocator.taken(at);
                    in_use.insert(at);
                    offers.retain(|_, (offered, _)| *offered != at);
                }
                4 => {
                    if n % 2 == 0 { allocator.released(at) } else { allocator.reclaimed(at) }
                    in_use.remove(&at);
                }
                5 => {
                    allocator.withdraw(&client);
                    offers.remove(&client);
                }
                _ => {
                    now += OFFER_TIME / 3;
                    offers.retain(|_, (_, until)| now < *until);
                }
            }
            for of in 0..6 {
                prop_assert_eq!(allocator.offered(&of, now), offers.get(&of).map(|(own, _)| *own));
            }
        }
    }
}
