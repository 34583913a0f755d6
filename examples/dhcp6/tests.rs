//! Messages of clients and relay agents, and the replies, as bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::{Arc, Barrier};
use std::thread;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, IATA, Message, MessageType as Kind, OptionCode,
    Status,
};
use dhcproto::{Decodable, Encodable};
use leasemgr::allocator::{Pool, Strategy};
use leasemgr::lease::{
    Duid, HwSource, Lease6, LeaseState, LeaseType, Lifetime, RelayId, RemoteId, system_time,
};
use leasemgr::{Added, LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
use rstest::rstest;

use super::super::server::reclaim;
use super::{Arrival, Bindings, Server6};

const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 0xaa];
const XID: [u8; 3] = [0xa1, 0xb2, 0xc3];
const NOW: i64 = 1_790_000_000;
const CLIENT: &str = "fe80::c";
const RELAY: &str = "2001:db8::3";

struct Fixture {
    leases: Arc<dyn LeaseMgr<Lease6>>,
    server: Server6,
}

/// Returns a server for 2001:db8::/64, with the pool 2001:db8::10 to ::1f and the prefixes
/// 2001:db8:8000:0::/64 to :f::/64.
fn fixture() -> Fixture {
    fixture_up_to("2001:db8::1f")
}

fn fixture_up_to(last: &str) -> Fixture {
    fixture_on(&open(), last, Strategy::FreeList)
}

fn open() -> Arc<dyn LeaseMgr<Lease6>> {
    let connection = "type=memfile universe=6 persist=false extended-info-tables=true";
    LeaseMgrFactory::new().open(connection).unwrap()
}

/// Returns a server with the pool from 2001:db8::10 to `last`.
fn fixture_on(leases: &Arc<dyn LeaseMgr<Lease6>>, last: &str, strategy: Strategy) -> Fixture {
    let leases = Arc::clone(leases);
    let pool = Pool::new(ip("2001:db8::10"), ip(last)).unwrap();
    let prefixes = Pool::prefixes(ip("2001:db8:8000::"), 60, 64).unwrap();
    let subnet = "2001:db8::/64".parse().unwrap();
    let bindings = Bindings::new(leases.clone(), subnet, pool, Some(prefixes), strategy, Lifetime(4000));
    Fixture { leases, server: Server6 { server_id: Duid::new(SERVER).unwrap(), bindings: bindings.unwrap() } }
}

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Returns a DUID-LL.
fn duid(client: u8) -> Vec<u8> {
    vec![0, 3, 0, 1, 2, 0, 0, 0, 0, client]
}

fn message(kind: Kind, options: impl IntoIterator<Item = DhcpOption>) -> Message {
    let mut message = Message::new_with_id(kind, XID);
    message.set_opts(options.into_iter().collect());
    message
}

/// Returns a client's message, with the server identifier if the type requires it.
fn from_client(kind: Kind, client: u8, ias: impl IntoIterator<Item = DhcpOption>) -> Message {
    let mut message = message(kind, ias);
    message.opts_mut().insert(DhcpOption::ClientId(duid(client)));
    if matches!(kind, Kind::Request | Kind::Renew | Kind::Release | Kind::Decline) {
        message.opts_mut().insert(DhcpOption::ServerId(SERVER.to_vec()));
    }
    message
}

fn rapid(mut message: Message) -> Message {
    message.opts_mut().insert(DhcpOption::RapidCommit);
    message
}

fn na(id: u32, addresses: &[&str]) -> DhcpOption {
    let address = |a: &&str| {
        DhcpOption::IAAddr(IAAddr { addr: ip(a), preferred_life: 0, valid_life: 0, opts: DhcpOptions::new() })
    };
    DhcpOption::IANA(IANA { id, t1: 0, t2: 0, opts: addresses.iter().map(address).collect() })
}

fn pd(id: u32, prefixes: &[(&str, u8)]) -> DhcpOption {
    let prefix = |p: &(&str, u8)| {
        DhcpOption::IAPrefix(IAPrefix {
            preferred_lifetime: 0,
            valid_lifetime: 0,
            prefix_len: p.1,
            prefix_ip: ip(p.0),
            opts: DhcpOptions::new(),
        })
    };
    DhcpOption::IAPD(IAPD { id, t1: 0, t2: 0, opts: prefixes.iter().map(prefix).collect() })
}

/// The contents of an identity association in a reply: (address, length, preferred and valid
/// lifetime), T1 and T2, status.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    leased: Vec<(Ipv6Addr, u8, u32, u32)>,
    times: (u32, u32),
    status: Option<Status>,
}

impl Contents {
    /// Returns the only lease of the association.
    fn only(&self) -> String {
        assert_eq!((self.leased.len(), self.status), (1, None), "{self:?}");
        self.leased[0].0.to_string()
    }
}

fn status_of(options: &DhcpOptions) -> Option<Status> {
    match options.get(OptionCode::StatusCode)? {
        DhcpOption::StatusCode(status) => Some(status.status),
        other => panic!("{other:?}"),
    }
}

/// Returns all identity associations of a reply, by type and IAID.
fn contents(reply: &Message) -> BTreeMap<(u16, u32), Contents> {
    let of = |options: &DhcpOptions, times| {
        let leased = options.iter().filter_map(|option| match option {
            DhcpOption::IAAddr(a) => Some((a.addr, 128, a.preferred_life, a.valid_life)),
            DhcpOption::IAPrefix(p) => {
                Some((p.prefix_ip, p.prefix_len, p.preferred_lifetime, p.valid_lifetime))
            }
            _ => None,
        });
        Contents { leased: leased.collect(), times, status: status_of(options) }
    };
    let ias = reply.opts().iter().filter_map(|option| match option {
        DhcpOption::IANA(ia) => Some(((0, ia.id), of(&ia.opts, (ia.t1, ia.t2)))),
        DhcpOption::IATA(ia) => Some(((1, ia.id), of(&ia.opts, (0, 0)))),
        DhcpOption::IAPD(ia) => Some(((2, ia.id), of(&ia.opts, (ia.t1, ia.t2)))),
        _ => None,
    });
    ias.collect()
}

fn multicast() -> Arrival {
    Arrival { peer: SocketAddrV6::new(ip(CLIENT), 546, 0, 7), is_multicast: true }
}

impl Fixture {
    fn send_at(&self, now: i64, message: &Message, arrival: Arrival) -> Option<Message> {
        let (bytes, to) = self.server.handle(&message.to_vec().unwrap(), arrival, now).unwrap()?;
        assert_eq!(to, SocketAddrV6::new(*arrival.peer.ip(), 546, 0, arrival.peer.scope_id()));
        let reply = Message::from_bytes(&bytes).unwrap();
        assert_eq!(reply.to_vec().unwrap(), bytes);
        assert_eq!(reply.xid(), XID);
        assert_eq!(reply.opts().get(OptionCode::ServerId), Some(&DhcpOption::ServerId(SERVER.to_vec())));
        assert_eq!(reply.opts().get(OptionCode::ClientId), message.opts().get(OptionCode::ClientId));
        Some(reply)
    }

    fn send(&self, message: &Message) -> Option<Message> {
        self.send_at(NOW, message, multicast())
    }

    /// Returns the reply to a message with one identity association.
    fn ask_at(&self, now: i64, kind: Kind, client: u8, ia: DhcpOption) -> Contents {
        let reply = self.send_at(now, &from_client(kind, client, [ia]), multicast()).unwrap();
        let expected = if kind == Kind::Solicit { Kind::Advertise } else { Kind::Reply };
        assert_eq!(reply.msg_type(), expected);
        let mut contents = contents(&reply);
        assert_eq!(contents.len(), 1);
        contents.pop_first().unwrap().1
    }

    fn ask(&self, kind: Kind, client: u8, ia: DhcpOption) -> Contents {
        self.ask_at(NOW, kind, client, ia)
    }

    fn lease(&self, address: &str) -> Option<Lease6> {
        self.leases.get(ip(address)).unwrap()
    }

    fn count(&self) -> usize {
        self.leases.all().unwrap().len()
    }
}

#[test]
fn a_client_gets_what_it_was_advertised() {
    let fixture = fixture();
    let advertised = fixture.ask(Kind::Solicit, 1, na(5, &[])).only();
    assert_eq!(fixture.count(), 0);
    // If repeated, the same address is advertised.
    assert_eq!(fixture.ask(Kind::Solicit, 1, na(5, &[])).only(), advertised);

    let got = fixture.ask(Kind::Request, 1, na(5, &[&advertised]));
    assert_eq!(got.leased, [(ip(&advertised), 128, 2500, 4000)]);
    assert_eq!((got.times, got.status), ((1250, 2000), None));
    let lease = fixture.lease(&advertised).unwrap();
    assert_eq!(
        (lease.duid().as_bytes(), lease.iaid().0, lease.lease_type()),
        (&duid(1)[..], 5, LeaseType::NA)
    );
    assert_eq!(
        (lease.data().cltt, lease.data().valid_lifetime, lease.preferred_lifetime()),
        (NOW, Lifetime(4000), Lifetime(2500))
    );
    let hwaddr = lease.hwaddr().unwrap();
    assert_eq!((hwaddr.as_bytes(), hwaddr.htype.0, hwaddr.source), (&[2, 0, 0, 0, 0, 1][..], 1, HwSource(2)));
    assert_eq!(lease.data().user_context, None);

    // A repeated request creates no second lease.
    assert_eq!(fixture.ask(Kind::Request, 1, na(5, &[&advertised])), got);
    assert_eq!(fixture.count(), 1);
}

#[test]
fn an_advertised_address_is_not_advertised_to_another_client() {
    let fixture = fixture_up_to("2001:db8::11");
    let one = fixture.ask(Kind::Solicit, 1, na(1, &[])).only();
    let two = fixture.ask(Kind::Solicit, 2, na(1, &[&one])).only();
    assert_ne!(one, two);
    let three = fixture.ask(Kind::Solicit, 3, na(1, &[]));
    assert_eq!(three, Contents { status: Some(Status::NoAddrsAvail), ..Contents::default() });
}

#[rstest]
#[case::free("2001:db8::17", true)]
#[case::outside_the_pool("2001:db8::99", false)]
#[case::on_another_link("2001:db9::17", false)]
fn a_client_may_request_an_address(#[case] requested: &str, #[case] granted: bool) {
    let fixture = fixture();
    assert_eq!(fixture.ask(Kind::Solicit, 1, na(1, &[requested])).only() == requested, granted);
}

#[test]
fn each_identity_association_gets_its_own_lease() {
    let fixture = fixture();
    let prefixes = [pd(1, &[("2001:db8:8000:3::", 64)]), pd(9, &[("2001:db8:8000:7::", 64)])];
    let ias: Vec<_> = [na(1, &[]), na(2, &[])].into_iter().chain(prefixes).collect();
    let advertise = fixture.send(&from_client(Kind::Solicit, 1, ias.clone())).unwrap();
    let got = fixture.send(&from_client(Kind::Request, 1, ias)).unwrap();
    let got = contents(&got);
    assert_eq!(got, contents(&advertise));
    assert_eq!(got.keys().copied().collect::<Vec<_>>(), [(0, 1), (0, 2), (2, 1), (2, 9)]);
    assert_ne!(got[&(0, 1)].only(), got[&(0, 2)].only());
    assert_eq!(got[&(2, 9)].leased, [(ip("2001:db8:8000:7::"), 64, 2500, 4000)]);
    assert_eq!(got[&(2, 9)].times, (1250, 2000));
    assert_eq!(fixture.count(), 4);
    let prefix = fixture.lease("2001:db8:8000:7::").unwrap();
    assert_eq!((prefix.lease_type(), prefix.prefix_len()), (LeaseType::PD, 64));
}

#[test]
fn a_reply_has_the_identity_associations_in_the_order_of_the_message() {
    let fixture = fixture();
    let reply = fixture.send(&from_client(Kind::Solicit, 1, (1..10).map(|id| na(id, &[])))).unwrap();
    let ids =
        reply.opts().iter().filter_map(|o| if let DhcpOption::IANA(ia) = o { Some(ia.id) } else { None });
    assert!(ids.eq(1..10));
}

#[test]
fn with_rapid_commit_a_client_gets_its_lease_immediately() {
    let fixture = fixture();
    let reply = fixture.send(&rapid(from_client(Kind::Solicit, 1, [na(1, &[])]))).unwrap();
    assert_eq!(reply.msg_type(), Kind::Reply);
    assert!(reply.opts().get(OptionCode::RapidCommit).is_some());
    assert!(fixture.lease(&contents(&reply)[&(0, 1)].only()).is_some());
}

#[test]
fn rapid_commit_is_for_solicit_only() {
    let fixture = fixture();
    let reply = fixture.send(&rapid(from_client(Kind::Request, 1, [na(1, &[])]))).unwrap();
    assert_eq!(reply.opts().get(OptionCode::RapidCommit), None);
}

#[test]
fn there_may_be_too_few_addresses_and_prefixes() {
    let fixture = fixture_up_to("2001:db8::10");
    for client in 0..16 {
        fixture.ask(Kind::Request, client, pd(1, &[])).only();
    }
    fixture.ask(Kind::Request, 0, na(1, &[])).only();
    for kind in [Kind::Solicit, Kind::Request, Kind::Renew, Kind::Rebind] {
        assert_eq!(fixture.ask(kind, 20, na(1, &[])).status, Some(Status::NoAddrsAvail));
        assert_eq!(fixture.ask(kind, 20, pd(1, &[])).status, Some(Status::NoPrefixAvail));
    }
    // It gets what is left.
    let reply = fixture.send(&from_client(Kind::Request, 0, [na(1, &[]), na(2, &[]), pd(1, &[])])).unwrap();
    let contents = contents(&reply);
    assert_eq!((contents[&(0, 1)].only().as_str(), contents[&(2, 1)].leased.len()), ("2001:db8::10", 1));
    assert_eq!(contents[&(0, 2)].status, Some(Status::NoAddrsAvail));
}

#[test]
fn there_are_no_temporary_addresses() {
    let fixture = fixture();
    let ta = || DhcpOption::IATA(IATA { id: 3, opts: DhcpOptions::new() });
    assert_eq!(fixture.ask(Kind::Solicit, 1, ta()).status, Some(Status::NoAddrsAvail));
    assert_eq!(fixture.ask(Kind::Request, 1, ta()).status, Some(Status::NoAddrsAvail));
    assert_eq!(fixture.ask(Kind::Release, 1, ta()).status, Some(Status::NoBinding));
    assert_eq!(fixture.count(), 0);
}

#[test]
fn an_address_of_another_link_cannot_be_requested() {
    let fixture = fixture();
    let contents = fixture.ask(Kind::Request, 1, na(1, &["2001:db8::10", "2001:db9::10"]));
    assert_eq!(contents, Contents { status: Some(Status::NotOnLink), ..Contents::default() });
    assert_eq!(fixture.count(), 0);
    // A prefix does not belong to a link.
    assert_eq!(fixture.ask(Kind::Request, 1, pd(1, &[("2001:db9::", 64)])).leased.len(), 1);
}

#[test]
fn another_clients_address_cannot_be_requested() {
    let fixture = fixture();
    let one = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    assert_ne!(fixture.ask(Kind::Request, 2, na(1, &[&one])).only(), one);
    assert_eq!(fixture.lease(&one).unwrap().duid().as_bytes(), duid(1));
}

#[rstest]
fn renew_and_rebind_extend_a_lease(#[values(Kind::Renew, Kind::Rebind)] kind: Kind) {
    let fixture = fixture();
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let contents = fixture.ask_at(NOW + 1250, kind, 1, na(1, &[&address]));
    assert_eq!((contents.leased, contents.times), (vec![(ip(&address), 128, 2500, 4000)], (1250, 2000)));
    assert_eq!(fixture.lease(&address).unwrap().data().cltt, NOW + 1250);
}

#[rstest]
fn renew_and_rebind_withdraw_lost_leases(#[values(Kind::Renew, Kind::Rebind)] kind: Kind) {
    let fixture = fixture();
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let other = fixture.ask(Kind::Request, 2, na(1, &[])).only();
    let contents = fixture.ask(kind, 1, na(1, &[&other, "2001:db9::1", &address, "::"]));
    assert_eq!(
        contents.leased.iter().map(|l| (l.0.to_string(), l.3)).collect::<BTreeMap<_, _>>(),
        BTreeMap::from([(address, 4000), (other.clone(), 0), ("2001:db9::1".to_owned(), 0)])
    );
    assert_eq!(fixture.lease(&other).unwrap().duid().as_bytes(), duid(2));
}

#[rstest]
fn renew_and_rebind_create_bindings(#[values(Kind::Renew, Kind::Rebind)] kind: Kind) {
    let fixture = fixture();
    // The server has lost its leases.
    assert_eq!(fixture.ask(kind, 1, na(1, &["2001:db8::15"])).only(), "2001:db8::15");
    let contents = fixture.ask(kind, 1, pd(1, &[("2001:db8:9000::", 64)]));
    assert_eq!(contents.leased.iter().map(|l| l.3 > 0).collect::<Vec<_>>(), [true, false]);
    assert_eq!(contents.leased[1].0, ip("2001:db8:9000::"));
}

#[test]
fn a_prefix_of_another_length_is_another_prefix() {
    let fixture = fixture();
    let prefix = fixture.ask(Kind::Request, 1, pd(1, &[])).only();
    let contents = fixture.ask(Kind::Renew, 1, pd(1, &[(&prefix, 56)]));
    let lens: Vec<_> = contents.leased.iter().map(|l| (l.1, l.3 > 0)).collect();
    assert!(lens.contains(&(64, true)) && lens.contains(&(56, false)), "{lens:?}");
    fixture.ask_release(1, pd(1, &[(&prefix, 56)]));
    assert!(fixture.lease(&prefix).is_some());
}

impl Fixture {
    /// Releases. Returns the status of the reply and of each identity association that has one.
    fn ask_release(&self, client: u8, ia: DhcpOption) -> (Option<Status>, Vec<Option<Status>>) {
        let reply = self.send(&from_client(Kind::Release, client, [ia])).unwrap();
        (status_of(reply.opts()), contents(&reply).values().map(|contents| contents.status).collect())
    }
}

#[test]
fn a_prefix_of_a_length_no_longer_delegated_is_replaced() {
    let fixture = fixture();
    let old = ip("2001:db8:8000:4::");
    let client = Duid::new(&duid(1)).unwrap();
    let mut lease = Lease6::new_prefix(old, 62, client, 1.into(), LeaseState::DEFAULT).unwrap();
    lease.data_mut().valid_lifetime = Lifetime(4000);
    lease.data_mut().cltt = NOW;
    lease.data_mut().subnet_id = 1.into();
    assert_eq!(fixture.leases.add(&lease).unwrap(), Added::Added);
    let contents = fixture.ask(Kind::Renew, 1, pd(1, &[("2001:db8:8000:4::", 62)]));
    let (new, of_old): (Vec<_>, Vec<_>) = contents.leased.into_iter().partition(|leased| leased.1 == 64);
    assert_eq!((new.len(), new[0].3), (1, 4000));
    assert_eq!(of_old, [(old, 62, 0, 0)]);
}

/// A delegated prefix as Kea 2.2 may have recorded it: with host bits.
#[rstest]
fn a_prefix_recorded_with_host_bits_is_not_assigned_to_another_client(
    #[values(Strategy::FreeList, Strategy::Random, Strategy::Iterative, Strategy::LowestFirst)]
    strategy: Strategy,
    #[values("2001:db8:8000:4::1", "2001:db8:8000:f:ffff:ffff:ffff:ffff")] recorded: &str,
    #[values(false, true)] is_loaded: bool,
) {
    let leases = open();
    let client = Duid::recorded(&[1]).unwrap();
    let mut lease = Lease6::recorded_prefix(ip(recorded), 64, client, 1.into(), LeaseState::DEFAULT).unwrap();
    lease.data_mut().valid_lifetime = Lifetime(4000);
    lease.data_mut().cltt = NOW;
    lease.data_mut().subnet_id = 1.into();
    let add = || assert_eq!(leases.add(&lease).unwrap(), Added::Added);
    if is_loaded {
        add();
    }
    let fixture = fixture_on(&leases, "2001:db8::1f", strategy);
    if !is_loaded {
        add();
    }
    let prefixes: BTreeSet<_> = (2..17).map(|n| fixture.ask(Kind::Request, n, pd(1, &[])).only()).collect();
    assert_eq!(prefixes.len(), 15);
    let network = |address: &str| ip(address).segments()[..4].to_vec();
    assert!(prefixes.iter().all(|prefix| network(prefix) != network(recorded)), "{prefixes:?}");
    assert_eq!(fixture.ask(Kind::Request, 17, pd(1, &[])).status, Some(Status::NoPrefixAvail));
    // It is free when the lease is deleted.
    leases.delete(lease.address()).unwrap();
    assert_eq!(network(&fixture.ask(Kind::Request, 17, pd(1, &[])).only()), network(recorded));
}

#[test]
fn a_released_lease_is_free() {
    let fixture = fixture_up_to("2001:db8::10");
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    assert_eq!(fixture.ask(Kind::Solicit, 2, na(1, &[])).status, Some(Status::NoAddrsAvail));
    assert_eq!(fixture.ask_release(1, na(1, &[&address])), (Some(Status::Success), vec![]));
    assert_eq!(fixture.lease(&address), None);
    assert_eq!(fixture.ask(Kind::Solicit, 2, na(1, &[])).only(), address);
    // If repeated, there is no binding.
    assert_eq!(
        fixture.ask_release(1, na(1, &[&address])),
        (Some(Status::Success), vec![Some(Status::NoBinding)])
    );
}

#[test]
fn a_client_releases_and_declines_only_its_own_named_leases() {
    let fixture = fixture();
    let one = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let two = fixture.ask(Kind::Request, 2, na(1, &[])).only();
    let bindings = fixture.leases.all().unwrap();
    for kind in [Kind::Release, Kind::Decline] {
        for (client, ia, status) in [
            (1, na(1, &[&two]), vec![]),
            (1, na(1, &[]), vec![]),
            (1, na(2, &[&one]), vec![Some(Status::NoBinding)]),
            (3, na(1, &[&one]), vec![Some(Status::NoBinding)]),
        ] {
            let reply = fixture.send(&from_client(kind, client, [ia])).unwrap();
            assert_eq!(status_of(reply.opts()), Some(Status::Success));
            assert_eq!(contents(&reply).values().map(|contents| contents.status).collect::<Vec<_>>(), status);
        }
    }
    assert_eq!(fixture.leases.all().unwrap(), bindings);
}

#[test]
fn a_declined_address_is_not_assigned_before_its_probation_is_over() {
    let fixture = fixture_up_to("2001:db8::10");
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let reply = fixture.send(&from_client(Kind::Decline, 1, [na(1, &[&address])])).unwrap();
    assert_eq!((status_of(reply.opts()), contents(&reply).len()), (Some(Status::Success), 0));
    let declined = fixture.lease(&address).unwrap();
    assert_eq!(
        (declined.state(), declined.duid().is_empty(), declined.expires_at()),
        (LeaseState::DECLINED, true, 1_790_086_400)
    );
    for client in [1, 2] {
        assert_eq!(fixture.ask(Kind::Solicit, client, na(1, &[])).status, Some(Status::NoAddrsAvail));
    }
    let later = NOW + 86_400;
    reclaim(fixture.leases.as_ref(), system_time(later), || false).unwrap();
    assert_eq!(fixture.ask_at(later, Kind::Request, 2, na(1, &[])).only(), address);
}

#[test]
fn a_prefix_cannot_be_declined() {
    let fixture = fixture();
    let prefix = fixture.ask(Kind::Request, 1, pd(1, &[])).only();
    let reply = fixture.send(&from_client(Kind::Decline, 1, [pd(1, &[(&prefix, 64)])])).unwrap();
    assert_eq!((status_of(reply.opts()), contents(&reply).len()), (Some(Status::Success), 0));
    assert_eq!(fixture.lease(&prefix).unwrap().state(), LeaseState::DEFAULT);
}

#[test]
fn a_client_gets_its_expired_lease_back() {
    let fixture = fixture();
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let later = NOW + 5000;
    reclaim(fixture.leases.as_ref(), system_time(later), || false).unwrap();
    assert_eq!(fixture.lease(&address).unwrap().state(), LeaseState::EXPIRED_RECLAIMED);
    // The client has nothing to release.
    assert_eq!(fixture.ask_release(1, na(1, &[&address])).1, [Some(Status::NoBinding)]);
    assert_eq!(fixture.ask_at(later, Kind::Solicit, 1, na(1, &[])).only(), address);
    assert_eq!(fixture.ask_at(later, Kind::Request, 1, na(1, &[])).only(), address);
    assert_eq!(fixture.lease(&address).unwrap().state(), LeaseState::DEFAULT);
}

#[test]
fn an_expired_lease_is_assigned_to_another_client_if_nothing_else_is_free() {
    let fixture = fixture_up_to("2001:db8::10");
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let later = NOW + 4000;
    assert_eq!(fixture.ask_at(later - 1, Kind::Request, 2, na(1, &[])).status, Some(Status::NoAddrsAvail));
    reclaim(fixture.leases.as_ref(), system_time(later), || false).unwrap();
    assert_eq!(fixture.ask_at(later, Kind::Request, 2, na(1, &[])).only(), address);
    assert_eq!(
        fixture.ask_at(later, Kind::Request, 1, na(1, &[&address])).status,
        Some(Status::NoAddrsAvail)
    );
}

#[rstest]
fn an_expired_lease_not_reclaimed_yet_is_assigned_to_a_client_that_requests_it(
    #[values(Kind::Request, Kind::Decline)] last: Kind,
) {
    let fixture = fixture();
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    fixture.send(&from_client(last, 1, [na(1, &[&address])])).unwrap();
    let end = i64::try_from(fixture.lease(&address).unwrap().expires_at()).unwrap();
    assert_ne!(fixture.ask_at(end - 1, Kind::Request, 2, na(1, &[&address])).only(), address);
    assert_eq!(fixture.ask_at(end, Kind::Request, 3, na(1, &[&address])).only(), address);
    assert_eq!(fixture.lease(&address).unwrap().duid().as_bytes(), duid(3));
}

#[rstest]
#[case::on_link(vec![na(1, &["2001:db8::1"]), na(2, &["2001:db8::ff"])], Some(Status::Success))]
#[case::one_is_off_link(vec![na(1, &["2001:db8::1", "2001:db9::1"])], Some(Status::NotOnLink))]
#[case::no_address(vec![na(1, &[])], None)]
#[case::prefixes_are_not_checked(vec![pd(1, &[("2001:db8:8000::", 64)])], None)]
fn confirm_checks_whether_addresses_are_on_the_link(
    #[case] ias: Vec<DhcpOption>,
    #[case] status: Option<Status>,
) {
    let reply = fixture().send(&from_client(Kind::Confirm, 1, ias));
    assert_eq!(reply.as_ref().and_then(|reply| status_of(reply.opts())), status);
    assert_eq!(reply.map(|reply| reply.msg_type()), status.map(|_| Kind::Reply));
}

#[test]
fn every_client_gets_information() {
    let fixture = fixture();
    for message in [message(Kind::InformationRequest, []), from_client(Kind::InformationRequest, 1, [])] {
        assert_eq!(fixture.send(&message).unwrap().msg_type(), Kind::Reply);
    }
}

/// RFC 8415 section 16.
#[test]
fn invalid_messages_get_no_reply() {
    let fixture = fixture();
    let no_client = |kind, server: Option<&[u8]>| {
        message(
            kind,
            server.map(|id| DhcpOption::ServerId(id.to_vec())).into_iter().chain([na(1, &["2001:db8::10"])]),
        )
    };
    let client = |kind, server: Option<&[u8]>| {
        let mut message = no_client(kind, server);
        message.opts_mut().insert(DhcpOption::ClientId(duid(1)));
        message
    };
    let other: &[u8] = &[0, 3, 0, 1, 9, 9, 9];
    for kind in [Kind::Solicit, Kind::Rebind, Kind::Confirm] {
        assert!(fixture.send(&client(kind, None)).is_some());
        for bad in [no_client(kind, None), client(kind, Some(SERVER)), client(kind, Some(other))] {
            assert_eq!(fixture.send(&bad), None, "{bad}");
        }
    }
    for kind in [Kind::Request, Kind::Renew, Kind::Release, Kind::Decline] {
        assert!(fixture.send(&client(kind, Some(SERVER))).is_some());
        for bad in [no_client(kind, Some(SERVER)), client(kind, None), client(kind, Some(other))] {
            assert_eq!(fixture.send(&bad), None, "{bad}");
        }
    }
    for server in [None, Some(SERVER), Some(other)] {
        assert_eq!(fixture.send(&client(Kind::InformationRequest, server)), None);
        let server = server.map(|id| DhcpOption::ServerId(id.to_vec()));
        let is_other = server == Some(DhcpOption::ServerId(other.to_vec()));
        assert_eq!(fixture.send(&message(Kind::InformationRequest, server)).is_none(), is_other);
    }
    for kind in [
        Kind::Advertise,
        Kind::Reply,
        Kind::Reconfigure,
        Kind::RelayRepl,
        Kind::LeaseQuery,
        Kind::Unknown(99),
    ] {
        assert_eq!(fixture.send(&client(kind, None)), None);
        assert_eq!(fixture.send(&client(kind, Some(SERVER))), None);
    }
    for bad in [vec![], vec![0; 2], vec![0; 3], vec![1; 131]] {
        let solicit = message(Kind::Solicit, [DhcpOption::ClientId(bad), na(1, &[])]);
        assert_eq!(fixture.send(&solicit), None);
    }
}

/// RFC 8415 sections 16 and 18.3.
#[test]
fn clients_must_use_multicast() {
    let fixture = fixture();
    let unicast = Arrival { is_multicast: false, ..multicast() };
    let address = fixture.ask(Kind::Request, 1, na(1, &[])).only();
    let before = fixture.leases.all().unwrap();
    for kind in [Kind::Request, Kind::Renew, Kind::Release, Kind::Decline] {
        let reply = fixture.send_at(NOW + 1, &from_client(kind, 1, [na(1, &[&address])]), unicast).unwrap();
        assert_eq!((reply.msg_type(), status_of(reply.opts())), (Kind::Reply, Some(Status::UseMulticast)));
        assert_eq!(reply.opts().iter().count(), 3);
    }
    for kind in [Kind::Solicit, Kind::Rebind, Kind::Confirm] {
        assert_eq!(fixture.send_at(NOW + 1, &from_client(kind, 1, [na(1, &[&address])]), unicast), None);
    }
    assert_eq!(fixture.send_at(NOW, &message(Kind::InformationRequest, []), unicast), None);
    assert_eq!(fixture.leases.all().unwrap(), before);
}

// Relay agents.

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

/// Returns a relay message of this type that contains another message.
fn relayed(kind: u8, hops: u8, link: &str, options: &[u8], message: &[u8]) -> Vec<u8> {
    let addresses = [ip(link).octets(), ip(CLIENT).octets()].concat();
    [&[kind, hops][..], &addresses, options, &option(9, message)].concat()
}

fn from_relay() -> Arrival {
    // A relay agent may send from any port, and to the server's own address.
    Arrival { peer: SocketAddrV6::new(ip(RELAY), 4000, 0, 0), is_multicast: false }
}

impl Fixture {
    fn relay(&self, bytes: &[u8]) -> Option<(Vec<u8>, SocketAddrV6)> {
        self.server.handle(bytes, from_relay(), NOW).unwrap()
    }
}

#[test]
fn a_reply_goes_back_through_the_relay_agents() {
    let fixture = fixture();
    let solicit = rapid(from_client(Kind::Solicit, 1, [na(1, &["2001:db8::10"])])).to_vec().unwrap();
    let ids =
        [option(37, &[0, 0, 0, 9, 0xbe, 0xef]), option(18, b"port 7"), option(53, &[0, 3, 0, 1, 9])].concat();
    let inner = relayed(12, 0, "2001:db8::2", &ids, &solicit);
    let outer = relayed(12, 1, "2001:db9::2", &[], &inner);
    let (bytes, to) = fixture.relay(&outer).unwrap();
    assert_eq!(to, SocketAddrV6::new(ip(RELAY), 547, 0, 0));

    let header = |link| relayed(13, 0, link, &[], &[])[2..34].to_vec();
    assert_eq!((&bytes[..2], &bytes[2..34]), (&[13, 1][..], &header("2001:db9::2")[..]));
    let inner = &bytes[38..];
    assert_eq!(bytes[34..38], [0, 9, 0, u8::try_from(inner.len()).unwrap()]);
    assert_eq!((&inner[..2], &inner[2..34]), (&[13, 0][..], &header("2001:db8::2")[..]));
    // Only the interface id is returned.
    assert_eq!(inner[34..44], option(18, b"port 7"));
    let reply = Message::from_bytes(&inner[48..]).unwrap();
    assert_eq!(inner[44..48], option(9, &reply.to_vec().unwrap())[..4]);
    assert_eq!((reply.msg_type(), contents(&reply)[&(0, 1)].only().as_str()), (Kind::Reply, "2001:db8::10"));

    let lease = fixture.lease("2001:db8::10").unwrap();
    assert_eq!(
        lease.data().user_context.as_ref().unwrap().as_str(),
        r#"{ "ISC": { "relay-info": [ { "hop": 1, "link": "2001:db9::2", "peer": "fe80::c" }, { "hop": 0, "link": "2001:db8::2", "options": "0x0025000600000009BEEF00120006706F72742037003500050003000109", "peer": "fe80::c", "relay-id": "0003000109", "remote-id": "00000009BEEF" } ] } }"#
    );
    assert_eq!(lease.relay_ids().collect::<Vec<_>>(), [RelayId::new(&[0, 3, 0, 1, 9]).unwrap()]);
    let remote_id = RemoteId::new(&[0, 0, 0, 9, 0xbe, 0xef]).unwrap();
    assert_eq!(fixture.leases.find(&leasemgr::Query::remote_id(&remote_id)).unwrap(), [lease]);
}

#[test]
fn the_last_relay_agent_information_is_stored() {
    let fixture = fixture();
    let request = |options: &[u8]| {
        let request = from_client(Kind::Request, 1, [na(1, &["2001:db8::10"])]).to_vec().unwrap();
        fixture.relay(&relayed(12, 0, "2001:db8::2", options, &request)).unwrap();
        fixture.lease("2001:db8::10").unwrap().remote_ids().collect::<Vec<_>>()
    };
    assert_eq!(request(&option(37, &[0, 0, 0, 1, 1])), [RemoteId::new(&[0, 0, 0, 1, 1]).unwrap()]);
    assert_eq!(request(&option(37, &[0, 0, 0, 1, 2])), [RemoteId::new(&[0, 0, 0, 1, 2]).unwrap()]);
    // Other parts of the context stay, and a message that comes directly does not change it.
    let mut lease = fixture.lease("2001:db8::10").unwrap();
    lease.data_mut().user_context =
        Some(lease.data().user_context.as_ref().unwrap().with(&["note"], "mine").unwrap());
    fixture.leases.update(&lease).unwrap();
    assert_eq!(request(&[]), []);
    fixture.ask(Kind::Renew, 1, na(1, &["2001:db8::10"])).only();
    let context = fixture.lease("2001:db8::10").unwrap().data().user_context.clone().unwrap();
    assert_eq!(
        context.as_str(),
        r#"{ "ISC": { "relay-info": [ { "hop": 0, "link": "2001:db8::2", "peer": "fe80::c" } ] }, "note": "mine" }"#
    );
}

#[rstest]
#[case::on_this_link("2001:db8::2", "2001:db9::2", true)]
#[case::on_another_link("2001:db9::2", "2001:db8::2", false)]
#[case::without_link_at_the_inner("::", "2001:db8::2", true)]
#[case::without_link_at_the_inner_and_elsewhere("fe80::1", "2001:db9::2", false)]
#[case::without_link("::", "::", true)]
fn the_relay_agent_next_to_the_client_determines_the_link(
    #[case] inner: &str,
    #[case] outer: &str,
    #[case] ours: bool,
) {
    let solicit = from_client(Kind::Solicit, 1, [na(1, &[])]).to_vec().unwrap();
    let message = relayed(12, 1, outer, &[], &relayed(12, 0, inner, &[], &solicit));
    assert_eq!(fixture().relay(&message).is_some(), ours);
}

/// RFC 8357.
#[test]
fn a_relay_agent_may_use_its_own_port() {
    let solicit = from_client(Kind::Solicit, 1, [na(1, &[])]).to_vec().unwrap();
    let (bytes, to) = fixture().relay(&relayed(12, 0, "::", &option(135, &[0, 0]), &solicit)).unwrap();
    assert_eq!(to, from_relay().peer);
    assert_eq!(bytes[34..40], option(135, &[0, 0]));
}

#[test]
fn the_relay_agent_provides_a_hardware_address_that_the_duid_lacks() {
    let fixture = fixture();
    let mut request = from_client(Kind::Request, 1, [na(1, &["2001:db8::10"])]);
    request.opts_mut().remove(OptionCode::ClientId);
    request.opts_mut().insert(DhcpOption::ClientId(vec![0, 2, 0, 0, 0, 9, 1]));
    let address = option(79, &[0, 6, 1, 2, 3]);
    fixture.relay(&relayed(12, 0, "::", &address, &request.to_vec().unwrap())).unwrap();
    let hwaddr = fixture.lease("2001:db8::10").unwrap().hwaddr().cloned().unwrap();
    assert_eq!((hwaddr.as_bytes(), hwaddr.htype.0, hwaddr.source), (&[1, 2, 3][..], 6, HwSource(8)));
}

#[test]
fn damaged_packets_are_dropped() {
    let fixture = fixture();
    let request =
        from_client(Kind::Request, 1, [na(1, &["2001:db8::10"]), pd(1, &[("2001:db8:8000::", 64)])]);
    let whole = relayed(12, 0, "2001:db8::2", &option(18, b"x"), &request.to_vec().unwrap());
    for len in 0..whole.len() {
        assert_eq!(fixture.relay(&whole[..len]), None, "{len}");
    }
    // Truncated options inside of complete ones.
    let in_ia = |ia: &[u8]| [&[3][..], &XID, &option(1, &duid(1)), &option(2, SERVER), ia].concat();
    for bad in [
        option(3, &[0; 11]),
        option(4, &[0; 3]),
        option(25, &[0; 11]),
        option(3, &[&[0; 12][..], &option(5, &[0; 23])].concat()),
        option(25, &[&[0; 12][..], &option(26, &[0; 24])].concat()),
        option(3, &[&[0; 12][..], &[0, 5, 0, 24]].concat()),
    ] {
        assert_eq!(fixture.server.handle(&in_ia(&bad), multicast(), NOW).unwrap(), None, "{bad:?}");
    }
    assert_eq!(fixture.relay(&relayed(12, 0, "::", &[], &[])), None);
    assert_eq!(fixture.relay(&relayed(12, 0, "::", &[], &[])[..34]), None);
    assert_eq!(fixture.count(), 0);
    assert!(fixture.relay(&whole).is_some());
}

#[test]
fn the_nesting_depth_of_messages_is_limited() {
    let fixture = fixture();
    let nested = |depth: u8| {
        let solicit = from_client(Kind::Solicit, 1, [na(1, &[])]).to_vec().unwrap();
        (0..depth).fold(solicit, |message, hops| relayed(12, hops, "2001:db8::2", &[], &message))
    };
    assert!(fixture.relay(&nested(32)).is_some());
    assert_eq!(fixture.relay(&nested(33)), None);
    assert!(fixture.send(&from_client(Kind::Solicit, 1, (0..32).map(|id| na(id, &[])))).is_some());
    assert_eq!(fixture.send(&from_client(Kind::Solicit, 1, (0..33).map(|id| na(id, &[])))), None);
}

#[test]
fn unknown_options_do_no_harm() {
    let fixture = fixture();
    // With these, dhcproto's decoder ends early or panics: status, authentication, vendor class,
    // preference, elapsed time.
    let odd: Vec<u8> =
        [13, 11, 16, 7, 8, 14, 6, 65_000].iter().flat_map(|&code| option(code, &[7])).collect();
    let client = [option(1, &duid(1)), option(3, &[&[0, 0, 0, 1][..], &[0; 8], &odd].concat())].concat();
    let packet = [&[1][..], &XID, &odd, &client].concat();
    let (bytes, _) = fixture.server.handle(&packet, multicast(), NOW).unwrap().unwrap();
    contents(&Message::from_bytes(&bytes).unwrap())[&(0, 1)].only();
}

// Many clients.

#[test]
fn no_address_is_assigned_to_two_concurrent_clients() {
    // 16 addresses for 40 clients, each of which asks twice at the same time.
    let fixture = fixture();
    let given: Vec<(u8, String)> = thread::scope(|scope| {
        let ask = |client: u8| {
            let fixture = &fixture;
            scope.spawn(move || {
                let contents = fixture.ask(Kind::Request, client, na(1, &["2001:db8::10"]));
                (client, contents.leased.first().map(|l| l.0.to_string()))
            })
        };
        let threads: Vec<_> = (0..80).map(|n| ask(n % 40)).collect();
        threads
            .into_iter()
            .filter_map(|t| {
                let (client, address) = t.join().unwrap();
                Some((client, address?))
            })
            .collect()
    });
    let mut of_client = BTreeMap::new();
    let mut of_address = BTreeMap::new();
    for (client, address) in given {
        assert_eq!(of_client.entry(client).or_insert_with(|| address.clone()), &address);
        assert_eq!(of_address.entry(address.clone()).or_insert(client), &client);
        assert_eq!(fixture.lease(&address).unwrap().duid().as_bytes(), duid(client));
    }
    assert_eq!((of_address.len(), fixture.count()), (16, 16));
}

/// The servers have separate allocators, which do not know each other's offers: the lease manager
/// decides.
#[test]
fn two_servers_with_the_same_leases_assign_no_address_twice() {
    for _ in 0..50 {
        let leases = open();
        // An allocator follows a lease manager once for each pool.
        let delegating = fixture_on(&leases, "2001:db8::1f", Strategy::Iterative);
        let pool = Pool::new(ip("2001:db8::10"), ip("2001:db8::1e")).unwrap();
        let bindings = Bindings::new(
            leases.clone(),
            "2001:db8::/64".parse().unwrap(),
            pool,
            None,
            Strategy::Iterative,
            Lifetime(4000),
        );
        let server = Server6 { server_id: Duid::new(SERVER).unwrap(), bindings: bindings.unwrap() };
        let fixtures = [delegating, Fixture { leases, server }];
        let barrier = Barrier::new(fixtures.len());
        let given: Vec<_> = thread::scope(|scope| {
            let serve = |(i, fixture): (u8, &Fixture)| {
                let ask = |n: u8| {
                    barrier.wait();
                    fixture.ask(Kind::Request, n * 2 + i, na(1, &[])).only()
                };
                (0..7).map(ask).collect::<Vec<_>>()
            };
            let threads: Vec<_> =
                (0..).zip(&fixtures).map(|fixture| scope.spawn(move || serve(fixture))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 14, "{given:?}");
    }
}

#[test]
fn lifetimes_may_be_infinite_or_short() {
    let of = |valid| {
        let all = super::Lifetimes::of(Lifetime(valid));
        (all.preferred.0, all.t1, all.t2)
    };
    assert_eq!(of(3600), (2250, 1125, 1800));
    assert_eq!(of(u32::MAX), (u32::MAX, u32::MAX, u32::MAX));
    assert_eq!(of(u32::MAX - 1), (2_684_354_558, 1_342_177_279, 2_147_483_646));
    assert_eq!(of(8), (5, 2, 4));
}
