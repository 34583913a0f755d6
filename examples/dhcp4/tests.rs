//! Messages as clients and relay agents send them, and what becomes of the leases.

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

/// A server of 192.0.2.0/24 with leases in memory, and a clock of its own.
struct Scene {
    server: Server4,
    clock: Clock,
}

impl Scene {
    /// With a pool from 192.0.2.10 to `last`.
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

    /// The client gets an address in four messages.
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

/// What all messages of a client have in common; it has no client id.
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

// What answers say.

#[test]
fn an_offer_and_an_acknowledgement_have_what_table_3_of_rfc_2131_asks_for() {
    let scene = Scene::new(20);
    let mut client = client(1);
    client.set_flags(Flags::default().set_broadcast());
    let (offer, to) = scene.send(&kind(&client, MessageType::Discover)).unwrap();
    assert_eq!(to, sent_to(BROADCAST, 68));
    let (ack, to) = scene.send(&selecting(&client, offer.yiaddr())).unwrap();
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
    let lease = scene.get(ack.yiaddr()).unwrap();
    assert_eq!(lease.hwaddr(), Some(&HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap()));
    assert_eq!(lease.state(), LeaseState::DEFAULT);
    let data = lease.data();
    assert_eq!((data.cltt, data.valid_lifetime, data.subnet_id), (BEGIN, LIFETIME, SubnetId(1)));
}

#[test]
fn a_lease_for_ever_is_never_renewed() {
    let scene = Scene::with(20, Strategy::FreeList, Lifetime::INFINITE);
    let offer = scene.send(&kind(&client(1), MessageType::Discover)).unwrap().0;
    assert_eq!(option(&offer, OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(u32::MAX)));
    assert_eq!(option(&offer, OptionCode::Renewal), None);
    assert_eq!(option(&offer, OptionCode::Rebinding), None);
}

#[test]
fn the_client_identifier_is_sent_back_and_the_host_name_is_kept() {
    let scene = Scene::new(20);
    let named = with(&with_id(&client(1), b"one"), DhcpOption::Hostname("Printer".into()));
    let id = Some(DhcpOption::ClientIdentifier(b"one".to_vec()));
    let offer = scene.send(&kind(&named, MessageType::Discover)).unwrap().0;
    assert_eq!(option(&offer, OptionCode::ClientIdentifier), id);
    let lease = scene.get(scene.lease(&named)).unwrap();
    assert_eq!(lease.client_id(), Some(&ClientId::new(b"one").unwrap()));
    // In lower case, as in lease files.
    assert_eq!(lease.data().hostname, Hostname::from("printer"));
    let nak = scene.send(&init_reboot(&named, Ipv4Addr::new(10, 0, 0, 1))).unwrap().0;
    assert_eq!((type_of(&nak), option(&nak, OptionCode::ClientIdentifier)), (MessageType::Nak, id));
}

// Whose the address is.

#[test]
fn a_client_is_offered_the_address_that_it_has() {
    let scene = Scene::new(200);
    let own = scene.lease(&client(1));
    let wish = with(&kind(&client(1), MessageType::Discover), DhcpOption::RequestedIpAddress(address(199)));
    assert_eq!(scene.send(&wish).unwrap().0.yiaddr(), own);
}

#[test]
fn a_client_is_offered_the_address_that_it_wishes_if_that_is_free() {
    let scene = Scene::new(200);
    let wish = |n, address| {
        let wish = with(&kind(&client(n), MessageType::Discover), DhcpOption::RequestedIpAddress(address));
        scene.send(&wish).unwrap().0.yiaddr()
    };
    assert_eq!(wish(1, address(77)), address(77));
    assert_ne!(wish(2, address(77)), address(77));
    assert!(scene.server.allocator.pool().contains(wish(3, address(9))));
    let leased = scene.lease(&client(4));
    assert_ne!(wish(5, leased), leased);
}

#[test]
fn a_client_with_an_identifier_keeps_its_lease_on_another_card() {
    let scene = Scene::new(20);
    let own = scene.lease(&with_id(&client(1), b"one"));
    assert_eq!(scene.lease(&with_id(&client(2), b"one")), own);
    assert_ne!(scene.lease(&with_id(&client(2), b"two")), own);
}

#[test]
fn an_offer_is_kept_for_its_client_for_a_while() {
    let mut scene = Scene::new(10);
    let discover = |n| kind(&client(n), MessageType::Discover);
    assert_eq!(scene.send(&discover(1)).unwrap().0.yiaddr(), address(10));
    assert_eq!(scene.send(&discover(1)).unwrap().0.yiaddr(), address(10));
    assert_eq!(scene.send(&discover(2)), None);
    // Not even for the asking.
    assert_eq!(type_of(&scene.send(&selecting(&client(2), address(10))).unwrap().0), MessageType::Nak);
    scene.wait(10);
    assert_eq!(scene.send(&discover(2)).unwrap().0.yiaddr(), address(10));
    // Nothing was written for an offer.
    assert_eq!(scene.get(address(10)), None);
}

#[test]
fn an_offer_is_withdrawn_when_the_client_chooses_another_server() {
    let scene = Scene::new(10);
    assert!(scene.send(&kind(&client(1), MessageType::Discover)).is_some());
    let other = with(&selecting(&client(1), address(99)), DhcpOption::ServerIdentifier(OTHER_SERVER));
    assert_eq!(scene.send(&other), None);
    assert_eq!(scene.lease(&client(2)), address(10));
    // As a lease it stays: the client may have it from either server.
    let other = with(&selecting(&client(2), address(99)), DhcpOption::ServerIdentifier(OTHER_SERVER));
    assert_eq!(scene.send(&other), None);
    assert_eq!(scene.state(address(10)), Some(LeaseState::DEFAULT));
}

#[test]
fn what_was_offered_before_a_restart_is_leased_if_it_is_free() {
    let scene = Scene::new(20);
    let ack = scene.send(&selecting(&client(1), address(15))).unwrap().0;
    assert_eq!((type_of(&ack), ack.yiaddr()), (MessageType::Ack, address(15)));
    // But a client does not collect addresses in this way.
    assert_eq!(type_of(&scene.send(&selecting(&client(1), address(16))).unwrap().0), MessageType::Nak);
}

#[rstest]
#[case::of_another_client(address(10))]
#[case::outside_the_pool(address(9))]
#[case::outside_the_subnet(Ipv4Addr::new(198, 51, 100, 7))]
#[case::the_servers_own(SERVER_ID)]
fn an_address_that_the_client_cannot_have_is_refused(#[case] wanted: Ipv4Addr) {
    let scene = Scene::new(10);
    assert_eq!(scene.lease(&client(1)), address(10));
    let (nak, to) = scene.send(&selecting(&client(2), wanted)).unwrap();
    assert_eq!((type_of(&nak), nak.yiaddr(), to), (MessageType::Nak, NONE, sent_to(BROADCAST, 68)));
    let options: HashSet<_> = nak.opts().iter().map(|(code, _)| *code).collect();
    assert_eq!(options, HashSet::from([OptionCode::MessageType, OptionCode::ServerIdentifier]));
}

#[test]
fn a_full_pool_has_no_offers() {
    let mut scene = Scene::new(12);
    let given: HashSet<_> = (0..3).map(|n| scene.lease(&client(n))).collect();
    assert_eq!(given, HashSet::from([address(10), address(11), address(12)]));
    assert_eq!(scene.send(&kind(&client(3), MessageType::Discover)), None);
    scene.wait(999);
    scene.reclaim();
    assert_eq!(scene.send(&kind(&client(3), MessageType::Discover)), None);
    scene.wait(1);
    scene.reclaim();
    assert!(given.contains(&scene.lease(&client(3))));
}

// A client that has an address.

#[test]
fn a_renewal_prolongs_the_lease_and_is_answered_by_unicast() {
    let mut scene = Scene::new(20);
    let own = scene.lease(&client(1));
    scene.wait(500);
    let (ack, to) = scene.send(&renewing(&client(1), own)).unwrap();
    assert_eq!((type_of(&ack), ack.yiaddr(), ack.ciaddr()), (MessageType::Ack, own, own));
    assert_eq!(to, sent_to(own, 68));
    assert_eq!(scene.get(own).unwrap().data().cltt, BEGIN + 500);
}

#[rstest]
#[case::renewing(renewing)]
#[case::init_reboot(init_reboot)]
fn a_client_that_the_server_does_not_know_is_met_with_silence(
    #[case] request: fn(&Message, Ipv4Addr) -> Message,
) {
    let scene = Scene::new(20);
    assert_eq!(scene.send(&request(&client(1), address(15))), None);
    assert_eq!(scene.get(address(15)), None);
}

#[rstest]
#[case::renewing(renewing)]
#[case::init_reboot(init_reboot)]
fn a_client_that_is_wrong_about_its_address_is_told_so(#[case] request: fn(&Message, Ipv4Addr) -> Message) {
    let scene = Scene::new(20);
    let other = scene.lease(&client(1));
    let nak = |n, address| {
        let (nak, to) = scene.send(&request(&client(n), address)).unwrap();
        type_of(&nak) == MessageType::Nak && to == sent_to(BROADCAST, 68)
    };
    assert!(nak(2, other), "another client's");
    assert!(nak(2, Ipv4Addr::new(198, 51, 100, 7)), "of another network");
    let own = scene.lease(&client(2));
    let free = (10..=20).map(address).find(|&free| free != own && free != other).unwrap();
    assert!(nak(2, free), "it has another one");
    assert_eq!(scene.state(free), None);
}

#[test]
fn a_client_that_has_started_anew_is_acknowledged_its_address() {
    let mut scene = Scene::new(20);
    let own = scene.lease(&client(1));
    scene.wait(100);
    let (ack, to) = scene.send(&init_reboot(&client(1), own)).unwrap();
    assert_eq!((type_of(&ack), ack.yiaddr(), to), (MessageType::Ack, own, sent_to(BROADCAST, 68)));
    assert_eq!(scene.get(own).unwrap().data().cltt, BEGIN + 100);
}

#[rstest]
#[case::offered(|scene: &Scene, own: Ipv4Addr| assert_eq!(scene.lease(&client(1)), own))]
#[case::renewing(|scene: &Scene, own: Ipv4Addr| {
    assert_eq!(type_of(&scene.send(&renewing(&client(1), own)).unwrap().0), MessageType::Ack);
})]
#[case::init_reboot(|scene: &Scene, own: Ipv4Addr| {
    assert_eq!(type_of(&scene.send(&init_reboot(&client(1), own)).unwrap().0), MessageType::Ack);
})]
fn a_client_gets_its_expired_lease_back(
    #[case] come_back: fn(&Scene, Ipv4Addr),
    #[values(false, true)] is_reclaimed: bool,
) {
    let mut scene = Scene::new(30);
    let own = scene.lease(&client(1));
    scene.wait(1000);
    if is_reclaimed {
        scene.reclaim();
        assert_eq!(scene.state(own), Some(LeaseState::EXPIRED_RECLAIMED));
        // Others get other addresses while there are such.
        assert!((2..10).all(|n| scene.lease(&client(n)) != own));
    }
    come_back(&scene, own);
    let lease = scene.get(own).unwrap();
    assert_eq!((lease.state(), lease.data().cltt), (LeaseState::DEFAULT, BEGIN + 1000));
}

#[test]
fn a_reclaimed_address_goes_to_another_client_where_there_is_no_other() {
    let mut scene = Scene::new(10);
    let own = scene.lease(&client(1));
    scene.wait(1000);
    scene.reclaim();
    assert_eq!(scene.lease(&client(2)), own);
    assert_eq!(type_of(&scene.send(&renewing(&client(1), own)).unwrap().0), MessageType::Nak);
    assert_eq!(scene.send(&kind(&client(1), MessageType::Discover)), None);
}

#[test]
fn reclaimed_leases_are_forgotten_after_an_hour() {
    let mut scene = Scene::new(10);
    let own = scene.lease(&client(1));
    scene.wait(1000 + 3599);
    scene.reclaim();
    assert_eq!(scene.state(own), Some(LeaseState::EXPIRED_RECLAIMED));
    scene.wait(1);
    scene.reclaim();
    assert_eq!(scene.get(own), None);
    assert_eq!(scene.lease(&client(2)), own);
}

// A client that has no more use for an address.

#[test]
fn a_released_address_is_free_and_remembered() {
    let scene = Scene::new(10);
    let own = scene.lease(&client(1));
    assert_eq!(scene.send(&releasing(&client(1), own)), None);
    let lease = scene.get(own).unwrap();
    assert_eq!((lease.state(), lease.expires_at()), (LeaseState::EXPIRED_RECLAIMED, BEGIN as u64 + 1));
    assert_eq!(scene.lease(&client(1)), own);
    scene.send(&releasing(&client(1), own));
    assert_eq!(scene.lease(&client(2)), own);
}

#[test]
fn a_declined_address_is_nobodys_until_its_probation_is_over() {
    let mut scene = Scene::new(10);
    let own = scene.lease(&client(1));
    scene.wait(5);
    assert_eq!(scene.send(&declining(&client(1), own)), None);
    let lease = scene.get(own).unwrap();
    assert_eq!((lease.state(), lease.data().cltt), (LeaseState::DECLINED, BEGIN + 5));
    assert_eq!(lease.data().valid_lifetime, PROBATION);
    assert_eq!((lease.hwaddr(), lease.client_id()), (None, None));
    assert_eq!(scene.send(&kind(&client(1), MessageType::Discover)), None);
    assert_eq!(type_of(&scene.send(&init_reboot(&client(1), own)).unwrap().0), MessageType::Nak);
    scene.wait(PROBATION.0 - 1);
    scene.reclaim();
    assert_eq!(scene.send(&kind(&client(1), MessageType::Discover)), None);
    scene.wait(1);
    scene.reclaim();
    assert_eq!(scene.lease(&client(1)), own);
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
fn what_concerns_somebody_else_changes_nothing(#[case] message: Message) {
    let scene = Scene::new(10);
    assert_eq!(scene.lease(&client(1)), address(10));
    let before = scene.get(address(10));
    assert_eq!(scene.send(&message), None);
    assert_eq!(scene.get(address(10)), before);
}

// Clients with an address of their own.

#[test]
fn a_client_that_informs_gets_options_and_no_lease() {
    let scene = Scene::new(20);
    let mut inform = kind(&client(1), MessageType::Inform);
    inform.set_ciaddr(address(5));
    for inform in [inform.clone(), relayed(&inform, &[])] {
        let (ack, to) = scene.send(&inform).unwrap();
        assert_eq!((type_of(&ack), ack.yiaddr(), to), (MessageType::Ack, NONE, sent_to(address(5), 68)));
        assert!(ack.opts().contains(OptionCode::SubnetMask));
        assert!(!ack.opts().contains(OptionCode::AddressLeaseTime));
    }
    assert_eq!(scene.server.leases.all().unwrap(), []);
    inform.set_ciaddr(Ipv4Addr::new(198, 51, 100, 7));
    assert_eq!(scene.send(&inform), None);
}

// Relay agents.

#[test]
fn what_a_relay_agent_says_is_sent_back_and_kept_in_the_lease() {
    let mut scene = Scene::new(20);
    let said = [RelayInfo::AgentCircuitId(b"port 7".to_vec()), RelayInfo::AgentRemoteId(vec![0xC0, 0, 2, 1])];
    let client = relayed(&client(1), &said);
    let (offer, to) = scene.send(&kind(&client, MessageType::Discover)).unwrap();
    assert_eq!((to, offer.giaddr()), (sent_to(RELAY, 67), RELAY));
    let info = option(&client, OptionCode::RelayAgentInformation);
    assert!(info.is_some());
    assert_eq!(option(&offer, OptionCode::RelayAgentInformation), info);
    let own = scene.lease(&client);
    let kept = r#"{ "ISC": { "relay-agent-info": { "remote-id": "C0000201", "sub-options": "0x0106706F727420370204C0000201" } } }"#;
    let context = |scene: &Scene| scene.get(own).unwrap().data().user_context.clone().unwrap();
    assert_eq!(context(&scene).as_str(), kept);
    // The client renews without it.
    scene.wait(500);
    assert!(scene.send(&renewing(&super::tests::client(1), own)).is_some());
    assert_eq!(scene.get(own).unwrap().data().cltt, BEGIN + 500);
    assert_eq!(context(&scene).as_str(), kept);
    // It has moved to another line.
    let moved = relayed(&super::tests::client(1), &[RelayInfo::AgentCircuitId(b"8".to_vec())]);
    assert!(scene.send(&init_reboot(&moved, own)).is_some());
    assert_eq!(
        context(&scene).as_str(),
        r#"{ "ISC": { "relay-agent-info": { "sub-options": "0x010138" } } }"#
    );
}

#[test]
fn a_relay_agent_is_told_to_broadcast_what_is_refused() {
    let scene = Scene::new(20);
    let request = init_reboot(&relayed(&client(1), &[]), Ipv4Addr::new(198, 51, 100, 7));
    assert!(!request.flags().broadcast());
    let (nak, to) = scene.send(&request).unwrap();
    assert_eq!((type_of(&nak), to), (MessageType::Nak, sent_to(RELAY, 67)));
    assert!(nak.flags().broadcast());
}

#[test]
fn clients_of_other_links_are_met_with_silence() {
    let scene = Scene::new(20);
    let mut discover = kind(&client(1), MessageType::Discover);
    discover.set_giaddr(Ipv4Addr::new(198, 51, 100, 1));
    assert_eq!(scene.send(&discover), None);
    // A relay agent with an address of another link names the client's (RFC 3527).
    let mut selected = relayed(&discover, &[RelayInfo::LinkSelection(address(0))]);
    selected.set_giaddr(discover.giaddr());
    assert_eq!(scene.send(&selected).unwrap().1, sent_to(discover.giaddr(), 67));
    let elsewhere = relayed(&discover, &[RelayInfo::LinkSelection(Ipv4Addr::new(198, 51, 100, 0))]);
    assert_eq!(scene.send(&elsewhere), None);
}

// What is no request.

#[test]
fn what_is_no_request_is_met_with_silence() {
    let scene = Scene::new(20);
    let discover = kind(&client(1), MessageType::Discover);
    assert!(scene.send(&discover).is_some());
    let mut reply = discover.clone();
    reply.set_opcode(Opcode::BootReply);
    assert_eq!(scene.send(&reply), None);
    assert_eq!(scene.send(&client(1)), None, "BOOTP");
    assert_eq!(scene.send(&kind(&client(1), MessageType::Offer)), None);
    let mut nobody = discover.clone();
    nobody.set_chaddr(&[]);
    assert_eq!(scene.send(&nobody), None);
    assert!(scene.send(&with_id(&nobody, b"somebody")).is_some());

    let bytes = discover.to_vec().unwrap();
    let silent = |bytes: &[u8]| scene.server.answer(bytes, scene.clock).unwrap().is_none();
    // Cut off before the message type ends.
    assert!((0..243).all(|len| silent(&bytes[..len])));
    for (place, value) in [(2, 17), (2, 255), (236, 0)] {
        let mut bad = bytes.clone();
        bad[place] = value;
        assert!(silent(&bad), "{value} in byte {place}");
    }
}

#[test]
fn options_go_on_in_the_file_and_the_server_name() {
    let scene = Scene::new(200);
    let mut bytes = with(&client(1), DhcpOption::OptionOverload(3)).to_vec().unwrap();
    bytes[108..112].copy_from_slice(&[53, 1, 1, 255]);
    bytes[44..51].copy_from_slice(&[50, 4, 192, 0, 2, 123, 255]);
    let offer = scene.server.answer(&bytes, scene.clock).unwrap().unwrap().0;
    let offer = Message::decode(&mut Decoder::new(&offer)).unwrap();
    assert_eq!((type_of(&offer), offer.yiaddr()), (MessageType::Offer, address(123)));
}

// Many at once.

/// More clients than addresses come and go from several threads. What each has been acknowledged and not given back is its own.
#[rstest]
#[case::free_list(Strategy::FreeList)]
#[case::random(Strategy::Random)]
#[case::iterative(Strategy::Iterative)]
#[case::lowest_first(Strategy::LowestFirst)]
fn no_address_has_two_clients(#[case] strategy: Strategy) {
    const THREADS: u16 = 4;
    const CLIENTS: u16 = 16;
    const ROUNDS: u32 = 60;
    let scene = Scene::with(10 + 39, strategy, LIFETIME);
    let (server, clock) = (&scene.server, scene.clock);
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
    let in_use = scene.server.leases.by_state(LeaseState::DEFAULT, None).unwrap();
    assert_eq!(in_use.iter().map(Lease::address).collect::<HashSet<_>>(), different);
    // 64 clients, of which more than half are there at the end.
    assert!(held.len() > 20, "{} of 40 addresses are in use", held.len());
}
