//! Messages of clients and relay agents, the replies, and the resulting leases.

use std::collections::HashSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use dhcproto::v4::relay::{RelayAgentInformation, RelayInfo};
use dhcproto::v4::{Decodable, Decoder, Encodable, Flags, Message, Opcode, OptionCode};
use leasemgr::LeaseMgrFactory;
use leasemgr::allocator::{Pool, Strategy};
use leasemgr::lease::{ClientId, Hostname, HwAddr, system_time};
use rstest::rstest;

use super::super::server::reclaim;
use super::*;

const SERVER_ID: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
const RELAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const BROADCAST: Ipv4Addr = Ipv4Addr::BROADCAST;
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LIFETIME: Lifetime = Lifetime(1000);
const OFFER_TIME: Duration = Duration::from_secs(10);
const BEGIN: i64 = 1_790_000_000;

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

/// A server of 192.0.2.0/24 with leases in memory, and a simulated clock.
struct Fixture {
    server: Server4,
    clock: Clock,
}

impl Fixture {
    /// Creates a server with a pool from 192.0.2.10 to `last`.
    fn new(last: u8) -> Self {
        Self::with(last, Strategy::FreeList, LIFETIME)
    }

    fn with(last: u8, strategy: Strategy, valid_lifetime: Lifetime) -> Self {
        let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false").unwrap();
        let pool = Pool::new(address(10), address(last)).unwrap();
        let allocator = Arc::new(Allocator::new(pool, strategy, OFFER_TIME));
        allocator.follow(&leases).unwrap();
        let subnet = "192.0.2.0/24".parse().unwrap();
        let server = Server4 { leases, allocator, subnet, server_id: SERVER_ID, valid_lifetime };
        Self { server, clock: Clock { epoch: BEGIN, instant: Instant::now() } }
    }

    fn wait(&mut self, seconds: u32) {
        self.clock.epoch += i64::from(seconds);
        self.clock.instant += Duration::from_secs(seconds.into());
    }

    fn reclaim(&self) {
        reclaim(self.server.leases.as_ref(), system_time(self.clock.epoch), || false).unwrap();
    }

    fn send(&self, message: &Message) -> Option<(Message, SocketAddr)> {
        answer(&self.server, message, self.clock)
    }

    /// Gets an address for a client, in four messages.
    fn lease(&self, client: &Message) -> Ipv4Addr {
        let offer = self.send(&kind(client, MessageType::Discover)).unwrap().0;
        let ack = self.send(&selecting(client, offer.yiaddr())).unwrap().0;
        assert_eq!((type_of(&ack), ack.yiaddr()), (MessageType::Ack, offer.yiaddr()));
        ack.yiaddr()
    }

    fn get(&self, address: Ipv4Addr) -> Option<Lease4> {
        self.server.leases.get(address).unwrap()
    }

    fn state(&self, address: Ipv4Addr) -> Option<LeaseState> {
        self.get(address).map(|lease| lease.state())
    }
}

fn answer(server: &Server4, message: &Message, clock: Clock) -> Option<(Message, SocketAddr)> {
    let (bytes, to) = server.answer(&message.to_vec().unwrap(), clock).unwrap()?;
    assert!(bytes.len() >= 300);
    Some((Message::decode(&mut Decoder::new(&bytes)).unwrap(), to))
}

fn type_of(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

/// Returns a client's message without type and client id.
fn client(n: u16) -> Message {
    let [a, b] = n.to_be_bytes();
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootRequest)
        .set_chaddr(&[2, 0, 0, 0, a, b])
        .set_xid(0x1234_0000 + u32::from(n));
    message
}

fn with(client: &Message, option: DhcpOption) -> Message {
    let mut message = client.clone();
    message.opts_mut().insert(option);
    message
}

fn with_id(client: &Message, id: &[u8]) -> Message {
    with(client, DhcpOption::ClientIdentifier(id.to_vec()))
}

fn kind(client: &Message, kind: MessageType) -> Message {
    with(client, DhcpOption::MessageType(kind))
}

fn selecting(client: &Message, address: Ipv4Addr) -> Message {
    let message = with(&kind(client, MessageType::Request), DhcpOption::RequestedIpAddress(address));
    with(&message, DhcpOption::ServerIdentifier(SERVER_ID))
}

fn init_reboot(client: &Message, address: Ipv4Addr) -> Message {
    with(&kind(client, MessageType::Request), DhcpOption::RequestedIpAddress(address))
}

fn renewing(client: &Message, address: Ipv4Addr) -> Message {
    let mut message = kind(client, MessageType::Request);
    message.set_ciaddr(address);
    message
}

fn releasing(client: &Message, address: Ipv4Addr) -> Message {
    let mut message = with(&kind(client, MessageType::Release), DhcpOption::ServerIdentifier(SERVER_ID));
    message.set_ciaddr(address);
    message
}

fn declining(client: &Message, address: Ipv4Addr) -> Message {
    let message = with(&kind(client, MessageType::Decline), DhcpOption::RequestedIpAddress(address));
    with(&message, DhcpOption::ServerIdentifier(SERVER_ID))
}

fn relayed(message: &Message, info: &[RelayInfo]) -> Message {
    let mut options = RelayAgentInformation::default();
    for info in info {
        options.insert(info.clone());
    }
    let mut message = with(message, DhcpOption::RelayAgentInformation(options));
    message.set_giaddr(RELAY);
    message
}

fn sent_to(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

fn option(message: &Message, code: OptionCode) -> Option<DhcpOption> {
    message.opts().get(code).cloned()
}

// Contents of replies.

#[test]
fn an_offer_and_an_acknowledgement_follow_table_3_of_rfc_2131() {
    let fixture = Fixture::new(20);
    let mut client = client(1);
    client.set_flags(Flags::default().set_broadcast());
    let (offer, to) = fixture.send(&kind(&client, MessageType::Discover)).unwrap();
    assert_eq!(to, sent_to(BROADCAST, 68));
    let (ack, to) = fixture.send(&selecting(&client, offer.yiaddr())).unwrap();
    assert_eq!(to, sent_to(BROADCAST, 68));
    for (reply, kind) in [(&offer, MessageType::Offer), (&ack, MessageType::Ack)] {
        assert_eq!(reply.opcode(), Opcode::BootReply);
        assert_eq!((reply.hops(), reply.secs(), reply.xid()), (0, 0, client.xid()));
        assert!(reply.flags().broadcast());
        assert_eq!((reply.ciaddr(), reply.siaddr(), reply.giaddr()), (NONE, NONE, NONE));
        assert_eq!(reply.chaddr(), client.chaddr());
        let mut options: Vec<_> = reply.opts().iter().map(|(_, option)| option.clone()).collect();
        options.sort_by_key(|option| u8::from(OptionCode::from(option)));
        assert_eq!(
            options,
            [
                DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
                DhcpOption::AddressLeaseTime(1000),
                DhcpOption::MessageType(kind),
                DhcpOption::ServerIdentifier(SERVER_ID),
                DhcpOption::Renewal(500),
                DhcpOption::Rebinding(875),
            ]
        );
    }
    let lease = fixture.get(ack.yiaddr()).unwrap();
    assert_eq!(lease.hwaddr(), Some(&HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap()));
    assert_eq!(lease.state(), LeaseState::DEFAULT);
    let data = lease.data();
    assert_eq!((data.cltt, data.valid_lifetime, data.subnet_id), (BEGIN, LIFETIME, SUBNET));
}

#[test]
fn an_infinite_lease_has_infinite_renewal_times() {
    let fixture = Fixture::with(20, Strategy::FreeList, Lifetime::INFINITE);
    let offer = fixture.send(&kind(&client(1), MessageType::Discover)).unwrap().0;
    assert_eq!(option(&offer, OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(u32::MAX)));
    assert_eq!(option(&offer, OptionCode::Renewal), None);
    assert_eq!(option(&offer, OptionCode::Rebinding), None);
}

#[test]
fn the_client_identifier_is_sent_back_and_the_hostname_is_stored() {
    let fixture = Fixture::new(20);
    let named = with(&with_id(&client(1), b"one"), DhcpOption::Hostname("Printer".into()));
    let id = Some(DhcpOption::ClientIdentifier(b"one".to_vec()));
    let offer = fixture.send(&kind(&named, MessageType::Discover)).unwrap().0;
    assert_eq!(option(&offer, OptionCode::ClientIdentifier), id);
    let lease = fixture.get(fixture.lease(&named)).unwrap();
    assert_eq!(lease.client_id(), Some(&ClientId::new(b"one").unwrap()));
    // In lower case, as in lease files.
    assert_eq!(lease.data().hostname, Hostname::from("printer"));
    let nak = fixture.send(&init_reboot(&named, Ipv4Addr::new(10, 0, 0, 1))).unwrap().0;
    assert_eq!((type_of(&nak), option(&nak, OptionCode::ClientIdentifier)), (MessageType::Nak, id));
}

// Selection of the address.

#[test]
fn a_client_is_offered_the_address_that_it_has() {
    let fixture = Fixture::new(200);
    let own = fixture.lease(&client(1));
    let requested =
        with(&kind(&client(1), MessageType::Discover), DhcpOption::RequestedIpAddress(address(199)));
    assert_eq!(fixture.send(&requested).unwrap().0.yiaddr(), own);
}

#[test]
fn a_client_is_offered_the_requested_address_if_it_is_free() {
    let fixture = Fixture::new(200);
    let requested = |n, address| {
        let requested =
            with(&kind(&client(n), MessageType::Discover), DhcpOption::RequestedIpAddress(address));
        fixture.send(&requested).unwrap().0.yiaddr()
    };
    assert_eq!(requested(1, address(77)), address(77));
    assert_ne!(requested(2, address(77)), address(77));
    assert!(fixture.server.allocator.pool().contains(requested(3, address(9))));
    let leased = fixture.lease(&client(4));
    assert_ne!(requested(5, leased), leased);
}

#[test]
fn a_client_with_an_identifier_keeps_its_lease_with_another_hardware_address() {
    let fixture = Fixture::new(20);
    let own = fixture.lease(&with_id(&client(1), b"one"));
    assert_eq!(fixture.lease(&with_id(&client(2), b"one")), own);
    assert_ne!(fixture.lease(&with_id(&client(2), b"two")), own);
}

#[test]
fn an_offered_address_is_reserved_for_its_client() {
    let mut fixture = Fixture::new(10);
    let discover = |n| kind(&client(n), MessageType::Discover);
    assert_eq!(fixture.send(&discover(1)).unwrap().0.yiaddr(), address(10));
    assert_eq!(fixture.send(&discover(1)).unwrap().0.yiaddr(), address(10));
    assert_eq!(fixture.send(&discover(2)), None);
    // Not even if the client requests it.
    assert_eq!(type_of(&fixture.send(&selecting(&client(2), address(10))).unwrap().0), MessageType::Nak);
    fixture.wait(10);
    assert_eq!(fixture.send(&discover(2)).unwrap().0.yiaddr(), address(10));
    // An offer is not stored as a lease.
    assert_eq!(fixture.get(address(10)), None);
}

#[test]
fn an_offer_is_withdrawn_when_the_client_chooses_another_server() {
    let fixture = Fixture::new(10);
    assert!(fixture.send(&kind(&client(1), MessageType::Discover)).is_some());
    let other = with(&selecting(&client(1), address(99)), DhcpOption::ServerIdentifier(OTHER_SERVER));
    assert_eq!(fixture.send(&other), None);
    assert_eq!(fixture.lease(&client(2)), address(10));
    // A lease is kept: the client may have it from either server.
    let other = with(&selecting(&client(2), address(99)), DhcpOption::ServerIdentifier(OTHER_SERVER));
    assert_eq!(fixture.send(&other), None);
    assert_eq!(fixture.state(address(10)), Some(LeaseState::DEFAULT));
}

#[test]
fn an_address_offered_before_a_restart_is_leased_if_it_is_free() {
    let fixture = Fixture::new(20);
    let ack = fixture.send(&selecting(&client(1), address(15))).unwrap().0;
    assert_eq!((type_of(&ack), ack.yiaddr()), (MessageType::Ack, address(15)));
    // But a client cannot collect addresses in this way.
    assert_eq!(type_of(&fixture.send(&selecting(&client(1), address(16))).unwrap().0), MessageType::Nak);
}

#[rstest]
#[case::of_another_client(address(10))]
#[case::outside_the_pool(address(9))]
#[case::outside_the_subnet(Ipv4Addr::new(198, 51, 100, 7))]
#[case::the_servers_own(SERVER_ID)]
fn an_address_that_the_client_cannot_have_is_refused(#[case] wanted: Ipv4Addr) {
    let fixture = Fixture::new(10);
    assert_eq!(fixture.lease(&client(1)), address(10));
    let (nak, to) = fixture.send(&selecting(&client(2), wanted)).unwrap();
    assert_eq!((type_of(&nak), nak.yiaddr(), to), (MessageType::Nak, NONE, sent_to(BROADCAST, 68)));
    let options: HashSet<_> = nak.opts().iter().map(|(code, _)| *code).collect();
    assert_eq!(options, HashSet::from([OptionCode::MessageType, OptionCode::ServerIdentifier]));
}

#[test]
fn a_full_pool_has_no_offers() {
    let mut fixture = Fixture::new(12);
    let given: HashSet<_> = (0..3).map(|n| fixture.lease(&client(n))).collect();
    assert_eq!(given, HashSet::from([address(10), address(11), address(12)]));
    assert_eq!(fixture.send(&kind(&client(3), MessageType::Discover)), None);
    fixture.wait(999);
    fixture.reclaim();
    assert_eq!(fixture.send(&kind(&client(3), MessageType::Discover)), None);
    fixture.wait(1);
    fixture.reclaim();
    assert!(given.contains(&fixture.lease(&client(3))));
}

// Clients that have an address.

#[test]
fn a_renewal_extends_the_lease_and_is_answered_by_unicast() {
    let mut fixture = Fixture::new(20);
    let own = fixture.lease(&client(1));
    fixture.wait(500);
    let (ack, to) = fixture.send(&renewing(&client(1), own)).unwrap();
    assert_eq!((type_of(&ack), ack.yiaddr(), ack.ciaddr()), (MessageType::Ack, own, own));
    assert_eq!(to, sent_to(own, 68));
    assert_eq!(fixture.get(own).unwrap().data().cltt, BEGIN + 500);
}

#[rstest]
#[case::renewing(renewing)]
#[case::init_reboot(init_reboot)]
fn an_unknown_client_gets_no_reply(#[case] request: fn(&Message, Ipv4Addr) -> Message) {
    let fixture = Fixture::new(20);
    assert_eq!(fixture.send(&request(&client(1), address(15))), None);
    assert_eq!(fixture.get(address(15)), None);
}

#[rstest]
#[case::renewing(renewing)]
#[case::init_reboot(init_reboot)]
fn a_client_with_a_wrong_address_gets_a_nak(#[case] request: fn(&Message, Ipv4Addr) -> Message) {
    let fixture = Fixture::new(20);
    let other = fixture.lease(&client(1));
    let nak = |n, address| {
        let (nak, to) = fixture.send(&request(&client(n), address)).unwrap();
        type_of(&nak) == MessageType::Nak && to == sent_to(BROADCAST, 68)
    };
    assert!(nak(2, other), "another client's");
    assert!(nak(2, Ipv4Addr::new(198, 51, 100, 7)), "of another network");
    let own = fixture.lease(&client(2));
    let free = (10..=20).map(address).find(|&free| free != own && free != other).unwrap();
    assert!(nak(2, free), "it has another one");
    assert_eq!(fixture.state(free), None);
}

#[test]
fn a_client_that_has_restarted_is_acknowledged_its_address() {
    let mut fixture = Fixture::new(20);
    let own = fixture.lease(&client(1));
    fixture.wait(100);
    let (ack, to) = fixture.send(&init_reboot(&client(1), own)).unwrap();
    assert_eq!((type_of(&ack), ack.yiaddr(), to), (MessageType::Ack, own, sent_to(BROADCAST, 68)));
    assert_eq!(fixture.get(own).unwrap().data().cltt, BEGIN + 100);
}

#[rstest]
#[case::offered(|fixture: &Fixture, own: Ipv4Addr| assert_eq!(fixture.lease(&client(1)), own))]
#[case::renewing(|fixture: &Fixture, own: Ipv4Addr| {
    assert_eq!(type_of(&fixture.send(&renewing(&client(1), own)).unwrap().0), MessageType::Ack);
})]
#[case::init_reboot(|fixture: &Fixture, own: Ipv4Addr| {
    assert_eq!(type_of(&fixture.send(&init_reboot(&client(1), own)).unwrap().0), MessageType::Ack);
})]
fn a_client_gets_its_expired_lease_back(
    #[case] come_back: fn(&Fixture, Ipv4Addr),
    #[values(false, true)] is_reclaimed: bool,
) {
    let mut fixture = Fixture::new(30);
    let own = fixture.lease(&client(1));
    fixture.wait(1000);
    if is_reclaimed {
        fixture.reclaim();
        assert_eq!(fixture.state(own), Some(LeaseState::EXPIRED_RECLAIMED));
        // Other clients get other addresses while there are any.
        assert!((2..10).all(|n| fixture.lease(&client(n)) != own));
    }
    come_back(&fixture, own);
    let lease = fixture.get(own).unwrap();
    assert_eq!((lease.state(), lease.data().cltt), (LeaseState::DEFAULT, BEGIN + 1000));
}

#[test]
fn a_reclaimed_address_is_assigned_to_another_client_if_no_other_is_free() {
    let mut fixture = Fixture::new(10);
    let own = fixture.lease(&client(1));
    fixture.wait(1000);
    fixture.reclaim();
    assert_eq!(fixture.lease(&client(2)), own);
    assert_eq!(type_of(&fixture.send(&renewing(&client(1), own)).unwrap().0), MessageType::Nak);
    assert_eq!(fixture.send(&kind(&client(1), MessageType::Discover)), None);
}

#[test]
fn reclaimed_leases_are_deleted_after_an_hour() {
    let mut fixture = Fixture::new(10);
    let own = fixture.lease(&client(1));
    fixture.wait(1000 + 3599);
    fixture.reclaim();
    assert_eq!(fixture.state(own), Some(LeaseState::EXPIRED_RECLAIMED));
    fixture.wait(1);
    fixture.reclaim();
    assert_eq!(fixture.get(own), None);
    assert_eq!(fixture.lease(&client(2)), own);
}

// Clients that no longer use an address.

#[test]
fn a_released_address_is_free_and_kept_for_its_client() {
    let fixture = Fixture::new(10);
    let own = fixture.lease(&client(1));
    assert_eq!(fixture.send(&releasing(&client(1), own)), None);
    let lease = fixture.get(own).unwrap();
    assert_eq!((lease.state(), lease.expires_at()), (LeaseState::EXPIRED_RECLAIMED, BEGIN as u64 + 1));
    assert_eq!(fixture.lease(&client(1)), own);
    fixture.send(&releasing(&client(1), own));
    assert_eq!(fixture.lease(&client(2)), own);
}

#[test]
fn a_declined_address_is_not_assigned_before_its_probation_is_over() {
    let mut fixture = Fixture::new(10);
    let own = fixture.lease(&client(1));
    fixture.wait(5);
    assert_eq!(fixture.send(&declining(&client(1), own)), None);
    let lease = fixture.get(own).unwrap();
    assert_eq!((lease.state(), lease.data().cltt), (LeaseState::DECLINED, BEGIN + 5));
    assert_eq!(lease.data().valid_lifetime, PROBATION);
    assert_eq!((lease.hwaddr(), lease.client_id()), (None, None));
    assert_eq!(fixture.send(&kind(&client(1), MessageType::Discover)), None);
    assert_eq!(type_of(&fixture.send(&init_reboot(&client(1), own)).unwrap().0), MessageType::Nak);
    fixture.wait(PROBATION.0 - 1);
    fixture.reclaim();
    assert_eq!(fixture.send(&kind(&client(1), MessageType::Discover)), None);
    fixture.wait(1);
    fixture.reclaim();
    assert_eq!(fixture.lease(&client(1)), own);
}

#[rstest]
#[case::released_by_another(releasing(&client(2), address(10)))]
#[case::declined_by_another(declining(&client(2), address(10)))]
#[case::released_at_another_server(
    with(&releasing(&client(1), address(10)), DhcpOption::ServerIdentifier(OTHER_SERVER))
)]
#[case::declined_at_another_server(
    with(&declining(&client(1), address(10)), DhcpOption::ServerIdentifier(OTHER_SERVER))
)]
#[case::an_address_without_a_lease(releasing(&client(1), address(11)))]
fn messages_about_other_leases_change_nothing(#[case] message: Message) {
    let fixture = Fixture::new(10);
    assert_eq!(fixture.lease(&client(1)), address(10));
    let before = fixture.get(address(10));
    assert_eq!(fixture.send(&message), None);
    assert_eq!(fixture.get(address(10)), before);
}

// Clients with statically configured addresses.

#[test]
fn an_inform_is_answered_with_options_and_no_lease() {
    let fixture = Fixture::new(20);
    let mut inform = kind(&client(1), MessageType::Inform);
    inform.set_ciaddr(address(5));
    for inform in [inform.clone(), relayed(&inform, &[])] {
        let (ack, to) = fixture.send(&inform).unwrap();
        assert_eq!((type_of(&ack), ack.yiaddr(), to), (MessageType::Ack, NONE, sent_to(address(5), 68)));
        assert!(ack.opts().contains(OptionCode::SubnetMask));
        assert!(!ack.opts().contains(OptionCode::AddressLeaseTime));
    }
    assert_eq!(fixture.server.leases.all().unwrap(), []);
    inform.set_ciaddr(Ipv4Addr::new(198, 51, 100, 7));
    assert_eq!(fixture.send(&inform), None);
}

// Relay agents.

#[test]
fn relay_agent_information_is_sent_back_and_stored_in_the_lease() {
    let mut fixture = Fixture::new(20);
    let info = [RelayInfo::AgentCircuitId(b"port 7".to_vec()), RelayInfo::AgentRemoteId(vec![0xC0, 0, 2, 1])];
    let client = relayed(&client(1), &info);
    let (offer, to) = fixture.send(&kind(&client, MessageType::Discover)).unwrap();
    assert_eq!((to, offer.giaddr()), (sent_to(RELAY, 67), RELAY));
    let info = option(&client, OptionCode::RelayAgentInformation);
    assert!(info.is_some());
    assert_eq!(option(&offer, OptionCode::RelayAgentInformation), info);
    let own = fixture.lease(&client);
    let kept = r#"{ "ISC": { "relay-agent-info": { "remote-id": "C0000201", "sub-options": "0x0106706F727420370204C0000201" } } }"#;
    let context = |fixture: &Fixture| fixture.get(own).unwrap().data().user_context.clone().unwrap();
    assert_eq!(context(&fixture).as_str(), kept);
    // The client renews without the relay agent.
    fixture.wait(500);
    assert!(fixture.send(&renewing(&super::tests::client(1), own)).is_some());
    assert_eq!(fixture.get(own).unwrap().data().cltt, BEGIN + 500);
    assert_eq!(context(&fixture).as_str(), kept);
    // The client has moved to another line.
    let moved = relayed(&super::tests::client(1), &[RelayInfo::AgentCircuitId(b"8".to_vec())]);
    assert!(fixture.send(&init_reboot(&moved, own)).is_some());
    assert_eq!(
        context(&fixture).as_str(),
        r#"{ "ISC": { "relay-agent-info": { "sub-options": "0x010138" } } }"#
    );
}

#[test]
fn a_relay_agent_is_told_to_broadcast_a_nak() {
    let fixture = Fixture::new(20);
    let request = init_reboot(&relayed(&client(1), &[]), Ipv4Addr::new(198, 51, 100, 7));
    assert!(!request.flags().broadcast());
    let (nak, to) = fixture.send(&request).unwrap();
    assert_eq!((type_of(&nak), to), (MessageType::Nak, sent_to(RELAY, 67)));
    assert!(nak.flags().broadcast());
}

#[test]
fn clients_of_other_links_get_no_reply() {
    let fixture = Fixture::new(20);
    let mut discover = kind(&client(1), MessageType::Discover);
    discover.set_giaddr(Ipv4Addr::new(198, 51, 100, 1));
    assert_eq!(fixture.send(&discover), None);
    // A relay agent with an address of another link names the client's link (RFC 3527).
    let mut selected = relayed(&discover, &[RelayInfo::LinkSelection(address(0))]);
    selected.set_giaddr(discover.giaddr());
    assert_eq!(fixture.send(&selected).unwrap().1, sent_to(discover.giaddr(), 67));
    let elsewhere = relayed(&discover, &[RelayInfo::LinkSelection(Ipv4Addr::new(198, 51, 100, 0))]);
    assert_eq!(fixture.send(&elsewhere), None);
}

// Other messages.

#[test]
fn invalid_requests_get_no_reply() {
    let fixture = Fixture::new(20);
    let discover = kind(&client(1), MessageType::Discover);
    assert!(fixture.send(&discover).is_some());
    let mut reply = discover.clone();
    reply.set_opcode(Opcode::BootReply);
    assert_eq!(fixture.send(&reply), None);
    assert_eq!(fixture.send(&client(1)), None, "BOOTP");
    assert_eq!(fixture.send(&kind(&client(1), MessageType::Offer)), None);
    let mut anonymous = discover.clone();
    anonymous.set_chaddr(&[]);
    assert_eq!(fixture.send(&anonymous), None);
    assert!(fixture.send(&with_id(&anonymous, b"client")).is_some());

    let bytes = discover.to_vec().unwrap();
    let silent = |bytes: &[u8]| fixture.server.answer(bytes, fixture.clock).unwrap().is_none();
    // Cut off before the end of the message type.
    assert!((0..243).all(|len| silent(&bytes[..len])));
    for (place, value) in [(2, 17), (2, 255), (236, 0)] {
        let mut bad = bytes.clone();
        bad[place] = value;
        assert!(silent(&bad), "{value} in byte {place}");
    }
}

#[test]
fn options_continue_in_the_file_and_the_server_name() {
    let fixture = Fixture::new(200);
    let mut bytes = with(&client(1), DhcpOption::OptionOverload(3)).to_vec().unwrap();
    bytes[108..112].copy_from_slice(&[53, 1, 1, 255]);
    bytes[44..51].copy_from_slice(&[50, 4, 192, 0, 2, 123, 255]);
    let offer = fixture.server.answer(&bytes, fixture.clock).unwrap().unwrap().0;
    let offer = Message::decode(&mut Decoder::new(&offer)).unwrap();
    assert_eq!((type_of(&offer), offer.yiaddr()), (MessageType::Offer, address(123)));
}

// Concurrency.

/// More clients than addresses acquire and release leases in several threads. An address that was
/// acknowledged to a client and not released is that client's only.
#[rstest]
#[case::free_list(Strategy::FreeList)]
#[case::random(Strategy::Random)]
#[case::iterative(Strategy::Iterative)]
#[case::lowest_first(Strategy::LowestFirst)]
fn no_address_has_two_clients(#[case] strategy: Strategy) {
    const THREADS: u16 = 4;
    const CLIENTS: u16 = 16;
    const ROUNDS: u32 = 60;
    let fixture = Fixture::with(10 + 39, strategy, LIFETIME);
    let (server, clock) = (&fixture.server, fixture.clock);
    let start = Barrier::new(THREADS.into());
    let held: Vec<Ipv4Addr> = thread::scope(|scope| {
        let serve = |thread: u16| {
            let mut held = vec![None; CLIENTS.into()];
            start.wait();
            for round in 0..ROUNDS {
                for n in 0..CLIENTS {
                    let client = client(thread * CLIENTS + n);
                    let own = &mut held[usize::from(n)];
                    if let Some(own) = own.take_if(|_| (round + u32::from(n)) % 3 == 0) {
                        assert_eq!(answer(server, &releasing(&client, own), clock), None);
                        continue;
                    }
                    if let Some(own) = *own {
                        let ack = answer(server, &renewing(&client, own), clock).unwrap().0;
                        assert_eq!(type_of(&ack), MessageType::Ack);
                    } else if let Some((offer, _)) =
                        answer(server, &kind(&client, MessageType::Discover), clock)
                    {
                        let (reply, _) = answer(server, &selecting(&client, offer.yiaddr()), clock).unwrap();
                        *own = (type_of(&reply) == MessageType::Ack).then(|| offer.yiaddr());
                    }
                }
            }
            held.into_iter().flatten().collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || serve(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let different: HashSet<_> = held.iter().copied().collect();
    assert_eq!(different.len(), held.len());
    let in_use = fixture.server.leases.by_state(LeaseState::DEFAULT, None).unwrap();
    assert_eq!(in_use.iter().map(Lease::address).collect::<HashSet<_>>(), different);
    // Of 64 clients, more than half have a lease at the end.
    assert!(held.len() > 20, "{} of 40 addresses are in use", held.len());
}
