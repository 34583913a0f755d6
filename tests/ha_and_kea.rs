//! High availability with a server of Kea 2.2 as the partner: start-up with the leases of both,
//! changes, and the return of a partner that was killed.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "of suites with leases of all kinds")]
#[path = "support/kea.rs"]
mod kea;
#[path = "support/ports.rs"]
mod ports;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use kea::{KeaServer, OfKea, all, kea_is_installed, wait_until, with};
use leasemgr::commands::{Commands, Subnet};
use leasemgr::control::{Client, HA_COMMANDS, Http, Server};
use leasemgr::ha::{ClientHash, Config, PageLease, Service, State};
use leasemgr::lease::{Duid, HwAddr, Lease4, Lease6, LeaseState, Lifetime};
use leasemgr::{Added, LeaseMgr, LeaseMgrFactory};
use ports::free_port;
use rstest::rstest;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Number of leases of each server before they start.
const COUNT: u16 = 1500;

/// A family, with leases for this suite.
trait Case: OfKea + PageLease + Serialize {
    /// Returns a lease of this server or of Kea's, with its age in seconds.
    fn lease(is_kea: bool, number: u16, age: i64) -> Self;

    /// The subnets in Kea's configuration.
    fn subnets() -> Value;

    fn open() -> Arc<dyn LeaseMgr<Self>>;

    fn own_commands(leases: &Arc<dyn LeaseMgr<Self>>) -> Commands;
}

/// A lifetime that Kea has, too.
const LIFETIME: u32 = 3600;

fn cltt(age: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() - age
}

impl Case for Lease4 {
    fn lease(is_kea: bool, number: u16, age: i64) -> Self {
        let ([high, low], server) = (number.to_be_bytes(), u8::from(is_kea));
        let builder = Self::builder(Ipv4Addr::new(10, server, high, low));
        let builder = builder.client(HwAddr::from([2, 0, 0, server, high, low]));
        builder.subnet(1).lifetime(LIFETIME).cltt(cltt(age)).build().unwrap()
    }

    fn subnets() -> Value {
        json!({ "subnet4": [{ "id": 1, "subnet": "10.0.0.0/8" }] })
    }

    fn open() -> Arc<dyn LeaseMgr<Self>> {
        LeaseMgrFactory::new().open("type=memfile persist=false").unwrap()
    }

    fn own_commands(leases: &Arc<dyn LeaseMgr<Self>>) -> Commands {
        Commands::new().with_leases4(Arc::clone(leases), [Subnet::new(1, [10, 0, 0, 0].into(), 8)])
    }
}

impl Case for Lease6 {
    fn lease(is_kea: bool, number: u16, age: i64) -> Self {
        let ([high, low], server) = (number.to_be_bytes(), u8::from(is_kea));
        let builder = Self::builder(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, server.into(), number));
        let builder = builder.client(Duid::new(&[0, 3, 0, 1, server, high, low]).unwrap(), 1);
        builder.subnet(1).lifetime(LIFETIME).cltt(cltt(age)).build().unwrap()
    }

    fn subnets() -> Value {
        json!({ "subnet6": [{ "id": 1, "subnet": "2001:db8:1::/48" }] })
    }

    fn open() -> Arc<dyn LeaseMgr<Self>> {
        LeaseMgrFactory::new().open("type=memfile persist=false").unwrap()
    }

    fn own_commands(leases: &Arc<dyn LeaseMgr<Self>>) -> Commands {
        let prefix = "2001:db8:1::".parse().unwrap();
        Commands::new().with_leases6(Arc::clone(leases), [Subnet::new(1, prefix, 48)])
    }
}

/// The relationship, as one of the servers sees it.
fn relationship(this: &str, roles: [&str; 2], ports: [u16; 2], mode: &str) -> Value {
    let peer = |at: usize| {
        let name = ["ours", "kea"][at];
        json!({ "name": name, "url": format!("http://127.0.0.1:{}/", ports[at]), "role": roles[at] })
    };
    json!({
        "this-server-name": this,
        "mode": mode,
        "heartbeat-delay": 200,
        "max-response-delay": 4000,
        "max-unacked-clients": 0,
        "sync-page-limit": 400,
        "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true },
        "peers": [peer(0), peer(1)],
    })
}

fn start_kea<L: Case>(directory: &TempDir, ha: &Value) -> KeaServer {
    let hooks = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path().join("kea/hooks"));
    let hooks = hooks.into_iter().find(|path| path.join("libdhcp_ha.so").exists()).unwrap();
    let configuration = json!({
        "lease-database": { "type": "memfile", "persist": false },
        "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2 },
        "hooks-libraries": [
            { "library": hooks.join("libdhcp_lease_cmds.so") },
            { "library": hooks.join("libdhcp_ha.so"), "parameters": { "high-availability": [ha] } },
        ],
    });
    KeaServer::start::<L>(directory.path(), &with(&configuration, &L::subnets()), &[])
}

fn state_of(kea: &KeaServer) -> String {
    let answer = kea.ask("status-get", None).unwrap();
    let state = &answer["arguments"]["high-availability"][0]["ha-servers"]["local"]["state"];
    state.as_str().unwrap_or_default().to_owned()
}

fn told<L: Case>(service: &Service<L>, changed: Vec<L>) -> bool {
    let (sender, told) = mpsc::channel();
    service.replicate(changed, Vec::new(), move |is_made| sender.send(is_made).unwrap());
    told.recv_timeout(Duration::from_secs(60)).unwrap()
}

#[rstest]
#[case::ours_is_primary(["primary", "standby"], "hot-standby")]
#[case::kea_is_primary(["standby", "primary"], "hot-standby")]
#[case::ours_is_secondary(["secondary", "primary"], "load-balancing")]
fn a_server_of_kea_is_the_partner(#[case] roles: [&str; 2], #[case] mode: &str) {
    pair::<Lease4>(roles, mode);
}

#[rstest]
#[case::ours_is_primary(["primary", "standby"], "hot-standby")]
#[case::kea_is_primary(["secondary", "primary"], "load-balancing")]
fn a_server_of_kea_for_dhcpv6_is_the_partner(#[case] roles: [&str; 2], #[case] mode: &str) {
    pair::<Lease6>(roles, mode);
}

fn pair<L: Case>(roles: [&str; 2], mode: &str) {
    if !kea_is_installed() {
        return;
    }
    let ports = [free_port(), free_port()];
    let directory = tempfile::tempdir().unwrap();
    let of_kea = relationship("kea", roles, ports, mode);
    let kea = start_kea::<L>(&directory, &of_kea);
    let mut client = Client::http(&format!("http://127.0.0.1:{}/", ports[1])).unwrap();
    for number in 0..COUNT {
        let lease = L::lease(true, number, 100);
        let mut arguments = serde_json::to_value(&lease).unwrap();
        let map = arguments.as_object_mut().unwrap();
        map.insert("expire".to_owned(), (map["cltt"].as_i64().unwrap() + i64::from(LIFETIME)).into());
        map.remove("cltt");
        let request = json!({ "command": format!("lease{}-add", L::NUMBER), "arguments": arguments });
        let answer = client.send(request.to_string().as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer[0]["result"], 0, "{answer}");
    }

    let leases = L::open();
    for number in 0..COUNT {
        assert_eq!(leases.add(&L::lease(false, number, 100)).unwrap(), Added::Added);
    }
    let mut commands = L::own_commands(&leases);
    let config = json!([relationship("ours", roles, ports, mode)]).to_string();
    let config = Config::parse(config.as_bytes()).unwrap();
    let served = Arc::clone(commands.service());
    let service = Service::start(config, Arc::clone(&leases), served, SystemTime::now).unwrap();
    service.register(&mut commands);
    let http = Http::new((Ipv4Addr::LOCALHOST, ports[0]).into()).allow_only(HA_COMMANDS.iter().copied());
    let server = Server::builder(Arc::new(commands)).http(http).start().unwrap();

    let normal = State::from_name(mode).unwrap();
    let both_are_normal = |kea: &KeaServer| service.state() == normal && state_of(kea) == mode;
    let are_equal = |kea: &KeaServer| all(&*leases) == kea.leases::<L>();
    wait_until("both servers are in the normal state", || both_are_normal(&kea));
    wait_until("both servers have the same leases", || are_equal(&kea));
    assert_eq!(all(&*leases).len(), usize::from(2 * COUNT));
    let answered = || (0..=255).filter(|&client| service.may_answer(ClientHash::of(&[client]))).count();
    let expected = match roles[0] {
        "primary" => 256,
        "secondary" => 128,
        _ => 0,
    };
    wait_until("this server answers its clients", || answered() == expected);

    // New, renewed and released leases, if this server answers clients.
    if expected > 0 {
        for number in COUNT..COUNT + 50 {
            let new = L::lease(false, number, 10);
            assert_eq!(leases.add(&new).unwrap(), Added::Added);
            assert!(told(&service, vec![new]));
        }
        assert!(are_equal(&kea));
        let renewed = L::lease(false, COUNT, 5);
        leases.update_expecting(&renewed, None).unwrap();
        assert!(told(&service, vec![renewed]));
        assert!(are_equal(&kea));
        let mut released = L::lease(false, COUNT + 1, 5);
        released.set_state(LeaseState::RELEASED).unwrap();
        released.data_mut().valid_lifetime = Lifetime(0);
        leases.update_expecting(&released, None).unwrap();
        assert!(told(&service, vec![released.clone()]));
        // Kea 2.2 has no such state.
        assert!(!kea.leases::<L>().contains_key(&released.address()));
        assert_eq!(kea.leases::<L>().len(), all(&*leases).len() - 1);
        let _ = leases.delete_expecting(released.address(), None).unwrap();
    }

    // The partner is killed, and loses its leases.
    drop(kea);
    wait_until("the partner is down", || service.state() == State::PartnerDown);
    assert_eq!(answered(), 256);
    let alone = L::lease(false, COUNT + 100, 0);
    assert_eq!(leases.add(&alone).unwrap(), Added::Added);
    assert!(told(&service, vec![alone]));
    let kea = start_kea::<L>(&directory, &of_kea);
    wait_until("both servers are in the normal state again", || both_are_normal(&kea));
    wait_until("the partner has all leases", || are_equal(&kea));
    drop(server);
}
