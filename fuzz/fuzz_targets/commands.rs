//! Commands: any bytes, line by line, are requests to a server of both families. Each answer is one
//! JSON map with a result, and its memory is bounded by the requests.
#![no_main]

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use leasemgr::LeaseMgrFactory;
use leasemgr::commands::{Commands, Subnet};
use leasemgr::lease::{Json, Lease4, Lease6, system_time};
use leasemgr::request::{Channel, Outcome, Source};
use leasemgr_fuzz::with_memory;
use libfuzzer_sys::fuzz_target;

/// A server with leases in memory, so no command writes a file.
static COMMANDS: LazyLock<Commands> = LazyLock::new(|| {
    const MEMORY: &str = "type=memfile persist=false";
    let leases4 = LeaseMgrFactory::<Lease4>::new().open(MEMORY).expect("a store in memory");
    let leases6 = LeaseMgrFactory::<Lease6>::new().open(MEMORY).expect("a store in memory");
    let first = Ipv4Addr::new(192, 0, 2, 0);
    let subnet4 = Subnet::new(1, first, 24).pool(first..=Ipv4Addr::new(192, 0, 2, 200));
    let subnet6 = Subnet::new(1, "2001:db8:1::".parse().expect("an address"), 64).prefix_pool(48, 56);
    Commands::new()
        .with_leases4(leases4, [subnet4])
        .with_leases6(leases6, [subnet6])
        .with_clock(|| system_time(1_790_000_000))
        .with_ddns(|_| Ok(()))
});

/// Makes a command, and returns its result.
fn make(request: &[u8], channel: Channel) -> Option<u64> {
    let mut answer = Vec::new();
    let source = Source { channel, user: None };
    match COMMANDS.answer(request, &source, &mut answer).expect("writing to memory") {
        Outcome::NoAnswer => {
            assert_eq!(answer, b"");
            None
        }
        Outcome::Answered => {
            assert!(answer.iter().all(|byte| matches!(byte, b' '..=b'~')));
            let answer = Json::parse_map(&answer).expect("one map");
            assert!(answer.root().get("text").is_none_or(|text| text.as_bytes().is_some()));
            let result = answer.root().get("result").and_then(|result| result.as_u64());
            Some(result.filter(|result| *result <= 4).expect("a result"))
        }
    }
}

fuzz_target!(|text: &[u8]| {
    const FIXED: usize = 256 * 1024;
    const FACTOR: usize = 4096;
    LazyLock::force(&COMMANDS);
    with_memory(text.len(), FIXED, FACTOR, || {
        for request in text.split(|&byte| byte == b'\n') {
            let by_unix = make(request, Channel::Unix);
            let by_http = make(request, Channel::Http);
            assert!(by_http.is_none() || by_unix.is_some());
        }
        for command in ["lease4-get-all", "lease6-get-all", "stat-lease4-get", "stat-lease6-get"] {
            let result = make(format!("{{ \"command\": \"{command}\" }}").as_bytes(), Channel::Unix);
            assert!(matches!(result, Some(0 | 3)));
        }
    });
    for command in ["lease4-wipe", "lease6-wipe"] {
        assert!(matches!(
            make(format!("{{ \"command\": \"{command}\" }}").as_bytes(), Channel::Unix),
            Some(0 | 3)
        ));
    }
});
