//! Leases to test lease managers with, and the answers that a manager must give for a list of them.
//!
//! Answers are computed by visiting every lease. A table lists what the user contexts contain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use leasemgr::lease::{
    ClientClass, ClientId, Duid, Family, Hostname, HwAddr, HwSource, HwType, Iaid, Lease, Lease4, Lease6,
    LeaseData, LeaseKind, LeaseState, LeaseType, Lifetime, PoolId, RelayId, RemoteId, SubnetId, UserContext,
    system_time,
};
use leasemgr::lease_file::FileLease;
use leasemgr::{
    ClientKey, Key, LeaseMgr, LeaseMgrError, ManagedLease, Query, StatisticsQuery, StatisticsRow, Subnets,
};
use proptest::prelude::*;

/// Client last transmission time of the first leases, in seconds since the epoch.
pub(crate) const FIRST_CLTT: i64 = 1_700_000_000;

/// Leases of either family.
pub(crate) trait TestLease: ManagedLease + FileLease {
    /// Returns the `n`th address; addresses ascend with their numbers.
    fn numbered(n: u32) -> Self::Address;

    /// Generates any lease that a lease file can hold, with one of `addresses` addresses. There are
    /// few clients and subnets, so that leases share them.
    fn any(addresses: u32) -> BoxedStrategy<Self>;

    /// Returns the same lease with another address.
    fn at(&self, address: Self::Address) -> Self;

    /// Returns the lease as a manager stores it.
    fn kept(self) -> Self;

    /// Returns the lease of address `n` that belongs to the number `tag`: different numbers have
    /// different leases, but share clients, names and subnets.
    fn tagged(n: u32, tag: u32) -> Self;

    /// Returns the keys by which the client can be found.
    fn clients(&self) -> Vec<ClientKey<'_>>;
}

/// A user context, and what it contains.
struct Facts {
    context: UserContext,
    classes: &'static [&'static str],
    relays4: &'static [&'static [u8]],
    remotes4: &'static [&'static [u8]],
    relays6: &'static [&'static [u8]],
    remotes6: &'static [&'static [u8]],
}

impl Facts {
    const NONE: [&'static [&'static [u8]]; 4] = [&[]; 4];

    fn new(json: &str, classes: &'static [&'static str], ids: [&'static [&'static [u8]]; 4]) -> Self {
        let context = UserContext::parse(json.as_bytes()).unwrap();
        let [relays4, remotes4, relays6, remotes6] = ids;
        Self { context, classes, relays4, remotes4, relays6, remotes6 }
    }
}

const RELAY: &[u8] = &[1, 2, 3, 4];
const OTHER_RELAY: &[u8] = &[9, 9, 9];
const REMOTE: &[u8] = &[0x55];
const RELAY6: &[u8] = &[0xaa, 0xbb, 0xcc, 0xdd];
const OTHER_RELAY6: &[u8] = &[0, 1, 2];
const REMOTE6: &[u8] = &[0xbe, 0xef];

static FACTS: LazyLock<Vec<Facts>> = LazyLock::new(|| {
    let isc = |json: &str| format!(r#"{{ "ISC": {{ {json} }} }}"#);
    let gold = r#""client-classes": [ "gold" ]"#;
    let both = r#""client-classes": [ "gold", "silver" ]"#;
    let relay = r#""relay-agent-info": { "sub-options": "0x0C0401020304020155" }"#;
    let keyed = r#""relay-agent-info": { "relay-id": "01020304", "sub-options": "0x0C03090909020155" }"#;
    let other = r#""relay-agent-info": { "sub-options": "0x0C03090909" }"#;
    let relay6 = r#""relay-info": [ { "options": "0x00350004AABBCCDD00250002BEEF" } ]"#;
    let hops6 = r#""relay-info": [ { "options": "0x0035000300010200250002BEEF" }, { "options": "0x00350004AABBCCDD" } ]"#;
    let twice6 = r#""relay-info": [ { "remote-id": "BEEF" }, { "options": "0x0035000300010200250002BEEF" }, { "relay-id": "000102" } ]"#;
    let long = |len| format!(r#"{{ "x": "{}" }}"#, "y".repeat(len));
    vec![
        Facts::new(&isc(gold), &["gold"], Facts::NONE),
        Facts::new(&isc(r#""client-classes": [  ]"#), &[], Facts::NONE),
        Facts::new(&isc(&format!("{both}, {relay}")), &["gold", "silver"], [&[RELAY], &[REMOTE], &[], &[]]),
        Facts::new(&isc(keyed), &[], [&[RELAY], &[REMOTE], &[], &[]]),
        Facts::new(&isc(&format!("{gold}, {other}")), &["gold"], [&[OTHER_RELAY], &[], &[], &[]]),
        Facts::new(&isc(relay6), &[], [&[], &[], &[RELAY6], &[REMOTE6]]),
        Facts::new(&isc(hops6), &[], [&[], &[], &[OTHER_RELAY6, RELAY6], &[REMOTE6]]),
        Facts::new(
            &isc(&format!("{both}, {twice6}")),
            &["gold", "silver"],
            [&[], &[], &[OTHER_RELAY6], &[REMOTE6]],
        ),
        Facts::new(&long(100), &[], Facts::NONE),
        Facts::new(&long(2500), &[], Facts::NONE),
    ]
});

fn facts<L: Lease>(lease: &L) -> Option<&'static Facts> {
    let context = lease.data().user_context.as_ref()?;
    FACTS.iter().find(|facts| facts.context == *context)
}

fn classes<L: Lease>(lease: &L) -> &'static [&'static str] {
    facts(lease).map_or(&[], |facts| facts.classes)
}

fn relays<L: Lease>(lease: &L) -> &'static [&'static [u8]] {
    facts(lease).map_or(&[], |facts| if L::FAMILY == Family::V4 { facts.relays4 } else { facts.relays6 })
}

fn remotes<L: Lease>(lease: &L) -> &'static [&'static [u8]] {
    facts(lease).map_or(&[], |facts| if L::FAMILY == Family::V4 { facts.remotes4 } else { facts.remotes6 })
}

// Arbitrary leases.

fn any_data(family: Family) -> impl Strategy<Value = LeaseData> {
    let context = prop_oneof![
        2 => Just(None),
        3 => (0..FACTS.len()).prop_map(|n| Some(FACTS[n].context.clone())),
    ];
    let lifetime = prop_oneof![6 => 1..60_u32, 2 => Just(3600), 1 => Just(u32::MAX), 1 => Just(u32::MAX - 1)];
    let cltt = match family {
        // Up to the width of the columns in a lease file.
        Family::V4 => {
            prop_oneof![20 => FIRST_CLTT..FIRST_CLTT + 60, 1 => Just(-5), 1 => Just(1 << 40), 1 => Just(0)]
                .boxed()
        }
        Family::V6 => {
            prop_oneof![20 => FIRST_CLTT..FIRST_CLTT + 60, 1 => Just(u32::MAX.into()), 1 => Just(0)].boxed()
        }
    };
    let hostname = prop_oneof![
        2 => Just(Vec::new()),
        4 => "host-[ab]".prop_map(String::into_bytes),
        1 => "[Hh][Oo]st-[ab]".prop_map(String::into_bytes),
        1 => Just(b"a,b&c \xff\n".to_vec()),
        1 => Just(vec![b'x'; 300]),
    ];
    let subnet = prop_oneof![8 => 0..3_u32, 1 => Just(u32::MAX)];
    // One digit, as a row that is torn within its last number is read as a whole row.
    let pool = prop::sample::select(vec![0, 0, 7, 9]);
    (lifetime, cltt, subnet, pool, any::<(bool, bool)>(), hostname, context).prop_map(
        |(lifetime, cltt, subnet, pool, (fqdn_fwd, fqdn_rev), hostname, user_context)| LeaseData {
            valid_lifetime: Lifetime(lifetime),
            cltt,
            subnet_id: SubnetId(subnet),
            pool_id: PoolId(pool),
            fqdn_fwd,
            fqdn_rev,
            hostname: Hostname::new(&hostname),
            user_context,
        },
    )
}

fn any_state() -> impl Strategy<Value = LeaseState> {
    prop::sample::select(vec![0, 0, 0, 0, 1, 2, 2, 3, 4, 700]).prop_map(LeaseState)
}

fn any_hwaddr() -> impl Strategy<Value = Option<HwAddr>> {
    let bytes = prop_oneof![6 => (0..4_u8).prop_map(|n| vec![2, 0, 0, 0, 0, n]), 1 => Just(vec![7]), 1 => Just(vec![9; 20])];
    prop_oneof![1 => Just(None), 4 => bytes.prop_map(|bytes| HwAddr::new(&bytes).ok())]
}

/// Generates byte strings of usual and extreme lengths.
fn any_id(shortest: usize, longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let of_length = move |n: u8| match n {
        0..4 => vec![1, 2, 0, 0, 0, 0, n],
        4 => vec![1; shortest],
        5 => vec![5; 20],
        _ => vec![6; longest],
    };
    (0..7_u8).prop_map(of_length)
}

impl TestLease for Lease4 {
    fn numbered(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_00f8 + n)
    }

    fn any(addresses: u32) -> BoxedStrategy<Self> {
        let client_id = prop::option::of(any_id(ClientId::MIN_LEN, ClientId::MAX_LEN));
        (0..addresses, any_hwaddr(), client_id, any_state(), any_data(Family::V4))
            .prop_map(|(n, hwaddr, id, state, data)| {
                let state = if hwaddr.is_none() && id.is_none() { LeaseState::DECLINED } else { state };
                let client_id = id.map(|id| ClientId::new(&id).unwrap());
                let mut lease = Self::new(Self::numbered(n), hwaddr, client_id, state).unwrap();
                *lease.data_mut() = data;
                lease
            })
            .boxed()
    }

    fn at(&self, address: Ipv4Addr) -> Self {
        let mut lease =
            Self::new(address, self.hwaddr().cloned(), self.client_id().cloned(), self.state()).unwrap();
        *lease.data_mut() = self.data().clone();
        lease
    }

    fn kept(mut self) -> Self {
        // Hostnames in a file are read in lower case.
        let name = self.data().hostname.as_bytes().to_ascii_lowercase();
        self.data_mut().hostname = Hostname::new(&name);
        self
    }

    fn tagged(n: u32, tag: u32) -> Self {
        let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, tag.to_le_bytes()[0] % 3]).unwrap();
        let client_id = ClientId::new(&[1, tag.to_le_bytes()[0] % 5]).ok().filter(|_| !tag.is_multiple_of(5));
        let mut lease = Self::new(Self::numbered(n), Some(hwaddr), client_id, state_of(tag)).unwrap();
        *lease.data_mut() = tagged_data(tag);
        lease
    }

    fn clients(&self) -> Vec<ClientKey<'_>> {
        self.client_id().into_iter().map(ClientKey::from).collect()
    }
}

impl TestLease for Lease6 {
    fn numbered(n: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits((0x2001_0db8 << 96) + (u128::from(n / 4) << 64) + u128::from(n % 4))
    }

    fn any(addresses: u32) -> BoxedStrategy<Self> {
        let duid = any_id(Duid::MIN_RECORDED_LEN, Duid::MAX_LEN).prop_map(|id| Duid::recorded(&id).unwrap());
        let hardware = (prop::sample::select(vec![1, 1, 6_u16]), prop::sample::select(vec![0, 0, 2_u32]));
        let hwaddr = (any_hwaddr(), hardware).prop_map(|(hwaddr, (htype, source))| {
            hwaddr.map(|mut hwaddr| {
                hwaddr.htype = HwType(htype);
                hwaddr.source = HwSource(source);
                hwaddr
            })
        });
        let kind = prop::sample::select(vec![0, 0, 0, 1, 2, 2, 9_u16]).prop_map(LeaseType);
        let preferred = prop::sample::select(vec![0, 30, u32::MAX]);
        let has_no_client = prop::bool::weighted(0.5);
        (
            0..addresses,
            kind,
            duid,
            0..3_u32,
            (any_state(), has_no_client),
            any_data(Family::V6),
            hwaddr,
            preferred,
        )
            .prop_map(|(n, kind, duid, iaid, (state, has_no_client), data, hwaddr, preferred)| {
                let has_no_client = has_no_client && state == LeaseState::DECLINED;
                let duid = if has_no_client { Duid::empty() } else { duid };
                let mut lease = lease6(kind, Self::numbered(n), duid, Iaid(iaid), state);
                lease.set_hwaddr(hwaddr);
                lease.set_preferred_lifetime(Lifetime(preferred));
                *lease.data_mut() = data;
                lease
            })
            .boxed()
    }

    fn at(&self, address: Ipv6Addr) -> Self {
        let mut lease = lease6(self.lease_type(), address, self.duid().clone(), self.iaid(), self.state());
        lease.set_hwaddr(self.hwaddr().cloned());
        lease.set_preferred_lifetime(self.preferred_lifetime());
        *lease.data_mut() = self.data().clone();
        lease
    }

    fn kept(self) -> Self {
        self
    }

    fn tagged(n: u32, tag: u32) -> Self {
        let [low, ..] = tag.to_le_bytes();
        let kind = if low % 4 == 0 { LeaseType::PD } else { LeaseType::NA };
        let duid = Duid::new(&[0, 3, 1, low % 3]).unwrap();
        let mut lease = lease6(kind, Self::numbered(n), duid, Iaid(tag % 2), state_of(tag));
        lease.set_hwaddr(HwAddr::new(&[2, 0, 0, 0, 0, low % 5]).ok().filter(|_| !tag.is_multiple_of(5)));
        *lease.data_mut() = tagged_data(tag);
        lease
    }

    fn clients(&self) -> Vec<ClientKey<'_>> {
        if self.duid().is_empty() {
            return Vec::new();
        }
        let (client, lease_type) = (ClientKey::from(self.duid()), self.lease_type());
        let in_iaid = client.iaid(self.iaid());
        vec![client, in_iaid, client.lease_type(lease_type), in_iaid.lease_type(lease_type)]
    }
}

fn lease6(kind: LeaseType, address: Ipv6Addr, duid: Duid, iaid: Iaid, state: LeaseState) -> Lease6 {
    if kind == LeaseType::PD {
        // Kea 2.2 records prefixes with host bits.
        Lease6::recorded_prefix(address, 64, duid, iaid, state).unwrap()
    } else {
        Lease6::new(kind, address, duid, iaid, state).unwrap()
    }
}

// Tagged leases.

/// Valid lifetime of tagged leases, in seconds.
pub(crate) const TAGGED_VALID: u32 = 3600;

fn state_of(tag: u32) -> LeaseState {
    if tag.is_multiple_of(7) { LeaseState::EXPIRED_RECLAIMED } else { LeaseState::DEFAULT }
}

fn tagged_data(tag: u32) -> LeaseData {
    let context = match tag % 8 {
        n @ 0..4 => Some(FACTS[n as usize * 2].context.clone()),
        4 => Some(FACTS[9].context.clone()),
        _ => None,
    };
    LeaseData {
        valid_lifetime: Lifetime(TAGGED_VALID),
        cltt: FIRST_CLTT + i64::from(tag),
        subnet_id: SubnetId(tag % 2),
        pool_id: PoolId(tag % 11),
        hostname: Hostname::new(format!("host-{}", tag % 3).as_bytes()),
        user_context: context,
        ..LeaseData::default()
    }
}

/// Returns the tag of a lease. Panics unless the lease is the one of [`TestLease::tagged`].
pub(crate) fn tag_of<L: TestLease>(n: u32, lease: &L) -> u32 {
    let tag = u32::try_from(lease.data().cltt - FIRST_CLTT).unwrap();
    assert_eq!(*lease, L::tagged(n, tag), "a lease that was never written");
    tag
}

// Expected answers.

/// Whether DHCPv6 leases can be found by relay and remote ids. DHCPv4 leases always can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayTables(pub(crate) bool);

impl RelayTables {
    fn exist_for<L: TestLease>(self) -> bool {
        self.0 || L::FAMILY == Family::V4
    }
}

/// The values by which a lease can be found.
pub(crate) struct KeyValues<'a, L> {
    lease: &'a L,
    hostname: Hostname,
    relays: Vec<RelayId>,
    remotes: Vec<RemoteId>,
}

impl<'a, L: TestLease> KeyValues<'a, L> {
    pub(crate) fn of(lease: &'a L) -> Self {
        let hostname = Hostname::new(&lease.data().hostname.as_bytes().to_ascii_lowercase());
        let relays = relays(lease).iter().map(|id| RelayId::new(id).unwrap()).collect();
        let remotes = remotes(lease).iter().map(|id| RemoteId::new(id).unwrap()).collect();
        Self { lease, hostname, relays, remotes }
    }

    pub(crate) fn keys(&self) -> Vec<Key<'_>> {
        let mut keys = vec![Key::All, Key::State(self.lease.state()), Key::Hostname(&self.hostname)];
        keys.extend(self.lease.hwaddr().map(Key::HwAddr));
        keys.extend(self.lease.clients().into_iter().map(Key::Client));
        keys.extend(self.relays.iter().map(Key::RelayId));
        keys.extend(self.remotes.iter().map(Key::RemoteId));
        keys
    }
}

/// Returns whether a query matches a lease, apart from the query's limit.
fn matches_query<L: TestLease>(query: &Query<'_, L>, lease: &L) -> bool {
    let data = lease.data();
    let has_key = match query.key {
        Key::All => true,
        Key::State(state) => lease.state() == state,
        Key::HwAddr(hwaddr) => lease.hwaddr().is_some_and(|own| own.as_bytes() == hwaddr.as_bytes()),
        Key::Client(client) => lease.clients().contains(&client),
        Key::Hostname(name) => {
            !name.is_empty() && data.hostname.as_bytes().eq_ignore_ascii_case(name.as_bytes())
        }
        Key::RelayId(id) => relays(lease).contains(&id.as_bytes()),
        Key::RemoteId(id) => remotes(lease).contains(&id.as_bytes()),
        key => unreachable!("{key:?} is unknown to this test"),
    };
    has_key
        && query.subnet.is_none_or(|subnet| data.subnet_id == subnet)
        && query.heard_since.is_none_or(|since| data.cltt >= since)
        && query.heard_until.is_none_or(|until| data.cltt <= until)
        && query.ended_by.is_none_or(|time| data.valid_lifetime.0 != u32::MAX && end(lease) <= time.into())
        && query.first.is_none_or(|first| first <= lease.address())
        && query.last.is_none_or(|last| lease.address() <= last)
        && match query.after {
            None => true,
            Some(after) => (lease.address() > after) != query.reversed && lease.address() != after,
        }
}

/// Returns the expired leases that are reclaimed, or those that are not, ordered by expiry.
pub(crate) fn expired<L: TestLease>(leases: &[L], now: i64, reclaimed: bool) -> Vec<&L> {
    let mut expired: Vec<_> = leases
        .iter()
        .filter(|lease| (lease.state().0 == 2) == reclaimed && lease.data().valid_lifetime.0 != u32::MAX)
        .filter(|lease| end(*lease) <= now.into())
        .collect();
    expired.sort_by_key(|lease| (end(*lease), lease.address()));
    expired
}

fn end<L: TestLease>(lease: &L) -> i128 {
    i128::from(lease.data().cltt) + i128::from(lease.data().valid_lifetime.0)
}

fn statistics<L: TestLease>(leases: &[L], query: &StatisticsQuery) -> Vec<StatisticsRow> {
    let mut counts = BTreeMap::new();
    for lease in leases {
        let LeaseData { subnet_id, pool_id, .. } = *lease.data();
        let is_in = match query.subnets {
            Subnets::All => true,
            Subnets::One(subnet) => subnet_id == subnet,
            Subnets::Range(first, last) => first <= subnet_id && subnet_id <= last,
        };
        let states: &[u32] = match lease.kind().map(|kind| kind.0) {
            None => &[0, 1],
            Some(0) => &[0, 1, 4],
            Some(2) => &[0],
            Some(_) => &[],
        };
        if is_in && states.contains(&lease.state().0) {
            let pool_id = query.by_pool.then_some(pool_id);
            *counts.entry((subnet_id, pool_id, lease.kind(), lease.state())).or_default() += 1;
        }
    }
    let row = |((subnet_id, pool_id, lease_type, state), count)| {
        StatisticsRow::new(subnet_id, pool_id, lease_type, state, count)
    };
    counts.into_iter().map(row).collect()
}

fn class_leases<L: TestLease>(leases: &[L], class: &str, kind: LeaseKind) -> u64 {
    let types = match kind {
        LeaseKind::Address => [None, Some(LeaseType::NA)],
        LeaseKind::Prefix => [Some(LeaseType::PD); 2],
    };
    let counts = |lease: &&L| {
        lease.state().0 == 0 && types.contains(&lease.kind()) && classes(*lease).contains(&class)
    };
    leases.iter().filter(counts).count() as u64
}

// Checks.

/// Panics unless the leases are the same, in the same order.
#[track_caller]
pub(crate) fn assert_same<'a, L: TestLease>(
    what: impl Display,
    found: &[L],
    expected: impl IntoIterator<Item = &'a L>,
) {
    let expected: Vec<_> = expected.into_iter().collect();
    let is_same = found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| a == *b);
    let addresses = |leases: &[&L]| leases.iter().map(|lease| lease.address()).collect::<Vec<_>>();
    let both = || found.iter().zip(&expected).find(|(a, b)| a != *b);
    assert!(
        is_same,
        "{what}: found {:?}, expected {:?}; the first difference: {:?}",
        addresses(&found.iter().collect::<Vec<_>>()),
        addresses(&expected),
        both()
    );
}

/// Panics unless the answer to a query is correct. Without relay tables, the correct answer is an
/// error.
#[track_caller]
pub(crate) fn check_query<L: TestLease>(
    mgr: &dyn LeaseMgr<L>,
    tables: RelayTables,
    leases: &[L],
    query: &Query<'_, L>,
) {
    let found = mgr.find(query);
    let backward = query.heard_since.zip(query.heard_until).is_some_and(|(since, until)| until < since);
    let no_range = query.first.zip(query.last).is_some_and(|(first, last)| last < first);
    if query.limit == Some(0) || backward || no_range {
        assert!(matches!(found, Err(LeaseMgrError::BadArgument { .. })), "{query:?}: {found:?}");
        return;
    }
    if matches!(query.key, Key::RelayId(_) | Key::RemoteId(_)) && !tables.exist_for::<L>() {
        assert!(matches!(found, Err(LeaseMgrError::Unsupported { .. })), "{query:?}: {found:?}");
        return;
    }
    let mut expected: Vec<_> = leases.iter().filter(|lease| matches_query(query, *lease)).collect();
    if query.reversed {
        expected.reverse();
    }
    expected.truncate(query.limit.unwrap_or(usize::MAX));
    assert_same(format_args!("{query:?}"), &found.unwrap(), expected);
}

#[track_caller]
pub(crate) fn check_expired<L: TestLease>(mgr: &dyn LeaseMgr<L>, leases: &[L], now: i64, limit: usize) {
    let expected = expired(leases, now, false).into_iter().take(if limit == 0 { usize::MAX } else { limit });
    assert_same(
        format_args!("expired({now}, {limit})"),
        &mgr.list_expired(system_time(now), limit).unwrap(),
        expected,
    );
}

#[track_caller]
pub(crate) fn check_statistics<L: TestLease>(mgr: &dyn LeaseMgr<L>, leases: &[L], query: &StatisticsQuery) {
    let found = mgr.statistics(query);
    let is_invalid = match query.subnets {
        Subnets::All => false,
        Subnets::One(subnet) => subnet.0 == 0,
        Subnets::Range(first, last) => first.0 == 0 || last < first,
    };
    if is_invalid {
        assert!(matches!(found, Err(LeaseMgrError::BadArgument { .. })), "{query:?}: {found:?}");
        return;
    }
    assert_eq!(found.unwrap(), statistics(leases, query), "{query:?}");
}

/// Panics unless all queries about `leases` and about `others` are answered correctly. `leases` are
/// all leases that the manager should have, in address order.
#[track_caller]
pub(crate) fn check_all<L: TestLease>(
    mgr: &dyn LeaseMgr<L>,
    tables: RelayTables,
    leases: &[L],
    others: &[L],
) {
    assert_same("all", &mgr.find(&Query::all()).unwrap(), leases);
    assert_eq!(mgr.status().leases, Some(leases.len() as u64));
    let has: BTreeMap<_, _> = leases.iter().map(|lease| (lease.address(), lease)).collect();
    let mut asked = BTreeSet::new();
    let mut is_new = |question: &dyn Debug| asked.insert(format!("{question:?}"));
    let mut ends = BTreeSet::from([0, i64::MAX]);
    let mut subnets = BTreeSet::from([SubnetId(1)]);
    for lease in leases.iter().chain(others) {
        let found = mgr.get(lease.address()).unwrap();
        assert_eq!(found.as_ref(), has.get(&lease.address()).copied(), "get {}", lease.address());
        let key_values = KeyValues::of(lease);
        for key in key_values.keys() {
            if is_new(&key) {
                check_query(mgr, tables, leases, &Query::new(key));
            }
            let query = Query::new(key).in_subnet(lease.data().subnet_id);
            if is_new(&query) {
                check_query(mgr, tables, leases, &query);
            }
        }
        if ends.len() < 100 {
            let end = end(lease);
            ends.extend([end, end - 1].into_iter().filter_map(|end| i64::try_from(end).ok()));
        }
        subnets.insert(lease.data().subnet_id);
    }
    for now in ends {
        check_expired(mgr, leases, now, 0);
    }
    let (first, last) = (*subnets.first().unwrap(), *subnets.last().unwrap());
    let ranges = [Subnets::All, Subnets::Range(first, last), Subnets::Range(last, first)];
    for subnets in ranges.into_iter().chain(subnets.into_iter().map(Subnets::One)) {
        let query = StatisticsQuery::from(subnets);
        check_statistics(mgr, leases, &query);
        check_statistics(mgr, leases, &query.by_pool());
    }
    for class in ["gold", "silver", "unknown"] {
        for kind in [LeaseKind::Address, LeaseKind::Prefix] {
            let found = mgr.class_leases(&ClientClass::from(class), kind).unwrap();
            assert_eq!(found, class_leases(leases, class, kind), "leases of class {class}, {kind}");
        }
    }
}
