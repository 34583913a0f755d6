//! Leases in the JSON format of Kea's lease commands.

#![allow(clippy::unwrap_used, reason = "a test may panic, also where it is not in a test function")]

use std::fmt::Debug;

use leasemgr::lease::{
    Client4, ClientId, Duid, Family, Hostname, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseState, LeaseType,
    Lifetime, Limits, PoolId, Recorded, RelayId, RelayInfo, SubnetId, UserContext,
};
use proptest::prelude::*;
use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The responses of Kea 2.2 to `lease4-get-all` and `lease6-get-all`.
const ANSWER4: &str = include_str!("data/kea-lease4-get-all.json");
const ANSWER6: &str = include_str!("data/kea-lease6-get-all.json");

fn leases_of(answer: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["arguments"]["leases"].as_array().unwrap().clone()
}

fn read<L: DeserializeOwned>(json: &Value) -> Result<L, String> {
    serde_json::from_str(&json.to_string()).map_err(|error| error.to_string())
}

#[test]
fn a_response_of_kea_is_read_and_written_unchanged() {
    let leases = leases_of(ANSWER4);
    assert_eq!(leases.len(), 6);
    for json in leases {
        let lease: Lease4 = read(&json).unwrap();
        assert_eq!(serde_json::to_value(&lease).unwrap(), json);
    }
    let leases = leases_of(ANSWER6);
    assert_eq!(leases.len(), 4);
    for json in leases {
        let lease: Lease6 = read(&json).unwrap();
        assert_eq!(serde_json::to_value(&lease).unwrap(), json);
    }
}

#[test]
fn the_values_of_kea_are_read() {
    let leases: Vec<Lease4> = leases_of(ANSWER4).iter().map(|json| read(json).unwrap()).collect();
    let client_id = ClientId::new(&[1, 2, 0, 0, 0, 0, 2]).unwrap();
    let mut second = Lease4::new([192, 0, 2, 2].into(), None, Some(client_id), LeaseState::DEFAULT).unwrap();
    let data = second.data_mut();
    data.cltt = 1_990_000_000;
    data.valid_lifetime = Lifetime(3600);
    data.subnet_id = SubnetId(1);
    data.fqdn_fwd = true;
    data.hostname = "odd,name.example".into();
    let context = br#"{ "a": [ 1, -9223372036854775808 ], "b": 1.5, "c": "x\n\"" }"#;
    data.user_context = Some(UserContext::parse(context).unwrap());
    assert_eq!(leases[1], second);
    assert_eq!((leases[2].hwaddr(), leases[2].state()), (None, LeaseState::DECLINED));
    assert!(leases[3].data().valid_lifetime.is_infinite());
    assert_eq!(leases[4].data().hostname, "café".into());
    assert_eq!(leases[4].data().user_context.as_ref().unwrap().as_str(), r#"{ "n": "\u00c3\u00a9" }"#);
    assert_eq!(leases[5].data().hostname, Hostname::new(b"caf\xe9"));

    let leases: Vec<Lease6> = leases_of(ANSWER6).iter().map(|json| read(json).unwrap()).collect();
    let types: Vec<u16> = leases.iter().map(|lease| lease.lease_type().0).collect();
    assert_eq!(types, [0, 1, 0, 2]);
    assert_eq!((leases[2].duid().is_empty(), leases[3].prefix_len()), (true, 48));
}

#[test]
fn members_that_lease_add_may_omit_have_their_defaults() {
    let json = json!({
        "ip-address": "192.0.2.1", "hw-address": "2:0:0:0:0:a", "subnet-id": 7, "valid-lft": 100, "expire": 1000,
    });
    let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, 10]).unwrap();
    let mut lease = Lease4::new([192, 0, 2, 1].into(), Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
    lease.data_mut().subnet_id = SubnetId(7);
    lease.data_mut().valid_lifetime = Lifetime(100);
    lease.data_mut().cltt = 900;
    assert_eq!(read::<Lease4>(&json), Ok(lease));

    let json = json!({
        "ip-address": "2001:db8::1", "duid": "1:2:3", "iaid": 5, "subnet-id": 7, "preferred-lft": 50,
        "valid-lft": 100, "cltt": 900, "prefix-len": 64,
    });
    let duid = Duid::new(&[1, 2, 3]).unwrap();
    let address = "2001:db8::1".parse().unwrap();
    let mut lease = Lease6::new(LeaseType::NA, address, duid, Iaid(5), LeaseState::DEFAULT).unwrap();
    lease.set_preferred_lifetime(Lifetime(50));
    lease.data_mut().subnet_id = SubnetId(7);
    lease.data_mut().valid_lifetime = Lifetime(100);
    lease.data_mut().cltt = 900;
    assert_eq!(read::<Lease6>(&json), Ok(lease));
}

#[rstest]
#[case("HOST.Example.ORG", b"host.example.org")]
#[case("\u{c3}\u{89}\u{c9}", b"\xc3\x89\xc9")]
#[case("", b"")]
fn a_hostname_is_lower_cased_as_in_lease_add(#[case] hostname: &str, #[case] kept: &[u8]) {
    let (v4, v6) = (lease4(&json!({ "hostname": hostname })), lease6(&json!({ "hostname": hostname })));
    assert_eq!(v4.unwrap().data().hostname, Hostname::new(kept));
    assert_eq!(v6.unwrap().data().hostname, Hostname::new(kept));
}

#[test]
fn a_hostname_is_written_and_recorded_as_it_is() {
    let mut lease = lease6(&json!({})).unwrap();
    lease.data_mut().hostname = "Host".into();
    let json = serde_json::to_value(&lease).unwrap();
    assert_eq!(json["hostname"], "Host");
    assert_eq!(read(&json), Ok(Recorded(lease)));
}

#[test]
fn a_cltt_of_zero_may_follow_from_the_expiry() {
    let lease = lease4(&json!({ "cltt": null, "valid-lft": 100, "expire": 100 })).unwrap();
    assert_eq!((lease.data().cltt, lease.end()), (0, Some(100)));
    let lease = lease4(&json!({ "cltt": 1, "subnet-id": 1, "valid-lft": 0 })).unwrap();
    assert_eq!((lease.data().cltt, lease.end()), (1, Some(1)));
}

/// Returns a lease with all required members, changed by `change`; `null` removes a member.
fn changed(base: &Value, change: &Value) -> Value {
    let mut json = base.clone();
    let members = json.as_object_mut().unwrap();
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            members.remove(key);
        } else {
            members.insert(key.clone(), value.clone());
        }
    }
    json
}

fn lease4(change: &Value) -> Result<Lease4, String> {
    let base = json!({
        "ip-address": "192.0.2.1", "hw-address": "02:00:00:00:00:01", "subnet-id": 1, "valid-lft": 100, "cltt": 900,
    });
    read(&changed(&base, change))
}

fn lease6(change: &Value) -> Result<Lease6, String> {
    let base = json!({
        "ip-address": "2001:db8::", "duid": "01:02:03", "iaid": 5, "subnet-id": 1, "preferred-lft": 50,
        "valid-lft": 100, "cltt": 900,
    });
    read(&changed(&base, change))
}

#[rstest]
#[case::unknown_keys(json!({"force-create": true, "from-the-future": {}}))]
#[case::empty_hwaddr(json!({"hw-address": "", "client-id": "01:02"}))]
#[case::no_hwaddr(json!({"hw-address": null, "client-id": "01:02"}))]
#[case::client_id_with_blanks(json!({"client-id": "1 2"}))]
#[case::client_id_of_plain_digits(json!({"client-id": "0x102"}))]
#[case::declined(json!({"hw-address": "", "state": 1}))]
#[case::unknown_state(json!({"state": 4_000_000_000_u32}))]
#[case::expire_counts(json!({"expire": 1000, "cltt": 5}))]
#[case::user_context(json!({"user-context": {}}))]
fn a_legal_dhcpv4_lease_is_read(#[case] change: Value) {
    let lease = lease4(&change).unwrap();
    assert_eq!(lease.data().cltt, 900);
    if let Some(id) = lease.client_id() {
        assert_eq!(id.as_bytes(), [1, 2]);
    }
}

#[rstest]
#[case(json!({"hw-address": ""}), "neither a hardware address nor a client id of a lease that is assigned (0)")]
#[case(json!({"hw-address": "02:0g"}), "expected hex octets with ':' between them")]
#[case(json!({"hw-address": "0201"}), "expected hex octets with ':' between them")]
#[case(json!({"hw-address": "0:".repeat(20) + "0"}), "a hardware address of 21 bytes, expected 1 to 20")]
#[case(json!({"client-id": "01"}), "a client id of 1 bytes, expected 2 to 255")]
#[case(json!({"client-id": ""}), "a client id of 0 bytes, expected 2 to 255")]
#[case(json!({"client-id": "01:02 03"}), "expected hex octets with ':' or blanks between them")]
#[case(json!({"ip-address": "2001:db8::1"}), "invalid IPv4 address syntax")]
#[case(json!({"ip-address": null}), "missing field `ip-address`")]
#[case(json!({"subnet-id": null}), "missing field `subnet-id`")]
#[case(json!({"subnet-id": -1}), "invalid value: integer `-1`, expected u32")]
#[case(json!({"valid-lft": null}), "missing field `valid-lft`")]
#[case(json!({"cltt": null}), "missing field `cltt`")]
#[case(json!({"expire": 99}), "expire is 99, expected at least valid-lft, 100")]
#[case(json!({"user-context": [1]}), "expected a JSON map at byte 0")]
#[case(json!({"subnet-id": 0}), "subnet-id is 0, expected at least 1")]
#[case(json!({"cltt": 0}), "cltt is 0, expected at least 1")]
#[case(json!({"cltt": -300}), "cltt is -300, expected at least 1")]
#[case(json!({"cltt": i64::MIN}), "cltt is -9223372036854775808, expected at least 1")]
#[case(json!({"cltt": null, "expire": 0, "valid-lft": 0}), "expire is 0, expected at least 1")]
#[case(json!({"expire": -100}), "expire is -100, expected at least 1")]
fn an_illegal_dhcpv4_lease_is_refused(#[case] change: Value, #[case] reason: &str) {
    let error = lease4(&change).unwrap_err();
    assert!(error.contains(reason), "{error}");
}

#[rstest]
#[case::prefix(json!({"type": "IA_PD", "prefix-len": 48}), 2, 48)]
#[case::everything(json!({"type": "IA_PD", "prefix-len": 128}), 2, 128)]
#[case::temporary(json!({"type": "IA_TA", "prefix-len": 48}), 1, 128)]
#[case::number(json!({"type": 65535}), 65535, 128)]
#[case::number_of_a_name(json!({"type": 2, "prefix-len": 48}), 2, 48)]
#[case::declined(json!({"duid": "00:00:00", "state": 1}), 0, 128)]
#[case::hwaddr(json!({"hw-address": "02:01"}), 0, 128)]
fn a_legal_dhcpv6_lease_is_read(#[case] change: Value, #[case] lease_type: u16, #[case] prefix_len: u8) {
    let lease = lease6(&change).unwrap();
    assert_eq!((lease.lease_type(), lease.prefix_len()), (LeaseType(lease_type), prefix_len));
}

#[rstest]
#[case(json!({"duid": "00:00:00"}), "the empty DUID 00:00:00 of a lease that is assigned (0)")]
#[case(json!({"duid": "01:02"}), "a DUID of 2 bytes, expected 3 to 130")]
#[case(json!({"duid": null}), "missing field `duid`")]
#[case(json!({"type": "IA_PD"}), "missing field `prefix-len`")]
#[case(json!({"type": "IA_PD", "prefix-len": 129}), "a prefix length of 129, expected 0 to 128")]
#[case(json!({"type": "IA_PD", "prefix-len": 16}), "the prefix 2001:db8::/16 has bits set after its length")]
#[case(json!({"type": "NA"}), "type is expected to be IA_NA, IA_TA, IA_PD or a number")]
#[case(json!({"type": 65536}), "type is expected to be IA_NA, IA_TA, IA_PD or a number")]
#[case(json!({"subnet-id": 0}), "subnet-id is 0, expected at least 1")]
#[case(json!({"cltt": 0}), "cltt is 0, expected at least 1")]
#[case(json!({"cltt": -300}), "cltt is -300, expected at least 1")]
#[case(json!({"expire": -100}), "expire is -100, expected at least 1")]
fn an_illegal_dhcpv6_lease_is_refused(#[case] change: Value, #[case] reason: &str) {
    let error = lease6(&change).unwrap_err();
    assert!(error.contains(reason), "{error}");
}

#[rstest]
#[case::duid_of_one_byte(json!({"duid": "01"}))]
#[case::duid_of_two_bytes(json!({"duid": "00:01"}))]
#[case::empty_duid_of_kea_2(json!({"duid": "00", "state": 1}))]
#[case::host_bits(json!({"type": "IA_PD", "ip-address": "2001:db8:8:1::1", "prefix-len": 64}))]
#[case::cltt_at_the_epoch(json!({"cltt": 0}))]
#[case::cltt_before_the_epoch(json!({"cltt": -300}))]
#[case::subnet_0(json!({"subnet-id": 0}))]
#[case::both(json!({"type": "IA_PD", "prefix-len": 0, "duid": "02"}))]
fn values_of_recorded_leases_survive_as_json_of_a_recorded_lease(#[case] change: Value) {
    assert!(lease6(&change).is_err());
    let base = json!({
        "ip-address": "2001:db8::", "duid": "01:02:03", "iaid": 5, "subnet-id": 1, "preferred-lft": 50,
        "valid-lft": 100, "cltt": 900,
    });
    let Recorded(lease) = read(&changed(&base, &change)).unwrap();
    let json = serde_json::to_value(&lease).unwrap();
    for (key, value) in change.as_object().unwrap() {
        assert_eq!(&json[key], value);
    }
    assert_eq!(read(&json), Ok(Recorded(lease.clone())));
    assert_eq!(serde_json::from_str(&lease.to_json()).ok(), Some(Recorded(lease.clone())));
    assert_eq!(serde_json::to_value(Recorded(lease)).unwrap(), json);
}

#[rstest]
#[case(json!({"duid": ""}), "a DUID of 0 bytes, expected 1 to 130")]
#[case(json!({"duid": "00:00:00"}), "the empty DUID 00:00:00 of a lease that is assigned (0)")]
#[case(json!({"type": "IA_PD", "prefix-len": 129}), "a prefix length of 129, expected 0 to 128")]
fn an_illegal_recorded_lease_is_refused(#[case] change: Value, #[case] reason: &str) {
    let base = json!({
        "ip-address": "2001:db8::", "duid": "01:02:03", "iaid": 5, "subnet-id": 1, "preferred-lft": 50,
        "valid-lft": 100, "cltt": 900,
    });
    let error = read::<Recorded>(&changed(&base, &change)).unwrap_err();
    assert!(error.contains(reason), "{error}");
}

#[rstest]
#[case::ascii("a.example", b"a.example")]
#[case::a_character_is_a_byte("\u{e9}", b"\xe9")]
#[case::as_kea_writes_utf8("\u{c3}\u{a9}", "é".as_bytes())]
#[case::text_beyond_bytes_is_utf8("Łé", "Łé".as_bytes())]
fn strings_are_bytes(#[case] string: &str, #[case] bytes: &[u8]) {
    let lease = lease4(&json!({"hostname": string, "user-context": {string: [string]}})).unwrap();
    assert_eq!(lease.data().hostname.as_bytes(), bytes);
    let text = [b"{\"", bytes, b"\":[\"", bytes, b"\"]}"].concat();
    assert_eq!(lease.data().user_context, Some(UserContext::parse(&text).unwrap()));
}

#[test]
fn the_text_for_kea_is_ascii() {
    let mut lease = lease4(&json!({"user-context": {"a\"\\": "\u{e9}\n"}})).unwrap();
    lease.data_mut().hostname = "é".into();
    let text = lease.to_json();
    assert!(text.is_ascii());
    assert!(text.contains(r#""hostname": "\u00c3\u00a9""#), "{text}");
    assert!(text.contains(r#"{ "a\"\\": "\u00e9\n" }"#), "{text}");
    assert_eq!(serde_json::from_str::<Lease4>(&text).unwrap(), lease);
}

#[test]
fn a_user_context_deeper_than_serde_json_reads_is_text_for_kea_only() {
    let mut lease = lease4(&json!({})).unwrap();
    let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    lease.data_mut().user_context = Some(UserContext::parse(nested(200).as_bytes()).unwrap());
    assert!(serde_json::to_string(&lease).unwrap_err().to_string().contains("recursion limit"));
    let text = lease.to_json();
    let context = text.split_once("\"user-context\": ").unwrap().1.rsplit_once(", \"valid-lft\"").unwrap().0;
    assert_eq!(lease.data().user_context, Some(UserContext::parse(context.as_bytes()).unwrap()));
}

#[rstest]
#[case::integers_are_kept(
    "[ -9223372036854775808, 18446744073709551615 ]",
    "[ -9223372036854775808, 18446744073709551615 ]"
)]
#[case::others_are_doubles("[ 1.50, 1e3, 18446744073709551616 ]", "[ 1.5, 1000.0, 1.8446744073709552e+19 ]")]
fn numbers_of_a_user_context(#[case] written: &str, #[case] read: &str) {
    let context = |numbers| UserContext::parse(format!("{{ \"n\": {numbers} }}").as_bytes()).unwrap();
    let json = serde_json::to_string(&context(written)).unwrap();
    assert_eq!(serde_json::from_str::<UserContext>(&json).unwrap(), context(read), "{json}");
}

#[test]
fn limits_clients_and_families_have_a_json_form() {
    fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: Value) {
        assert_eq!(serde_json::to_value(value).unwrap(), expected);
        assert_eq!(&serde_json::from_value::<T>(expected).unwrap(), value);
    }
    let context =
        br#"{ "ISC": { "limits": { "client-classes": [ { "name": "a", "address-limit": 2 } ] } } }"#;
    let limits = Limits::of(&UserContext::parse(context).unwrap()).unwrap();
    let of_class = json!({ "class": "a", "limits": { "addresses": 2, "prefixes": null } });
    same(&limits, json!({ "classes": [of_class], "subnet": null }));
    let exceeded = limits.exceeded(Family::V6, |_, _| 3, |_, _| 0).unwrap();
    same(&exceeded, json!({ "kind": "address", "limit": 2, "count": 3, "of": { "class": "a" } }));
    same(&Client4::from(HwAddr::from([2, 0, 0, 0, 0, 1])), json!({ "hw-addr": "02:00:00:00:00:01" }));
    same(&Family::V4, json!("v4"));
    let relay = RelayInfo { relay_id: RelayId::new(&[0xab]).ok(), remote_id: None };
    same(&relay, json!({ "relay-id": "AB", "remote-id": null }));
}

fn bytes(len: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

/// Generates the text of a JSON value in a user context, with strings of any bytes.
fn json_text() -> impl Strategy<Value = Vec<u8>> {
    let string = || {
        bytes(0..=8).prop_map(|bytes| {
            let mut text = b"\"".to_vec();
            for byte in bytes {
                text.extend_from_slice(format!("\\u00{byte:02x}").as_bytes());
            }
            text.push(b'"');
            text
        })
    };
    let leaf = prop_oneof![
        Just(b"null".to_vec()),
        any::<bool>().prop_map(|b| b.to_string().into_bytes()),
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        any::<u64>().prop_map(|n| n.to_string().into_bytes()),
        // Exact in binary, so that its shortest spelling is unique.
        any::<i16>().prop_map(|n| format!("{:?}", f64::from(n) / 8.0).into_bytes()),
        string(),
    ];
    leaf.prop_recursive(4, 16, 4, move |inner| {
        let member = (string(), inner.clone()).prop_map(|(key, value)| [&key[..], b":", &value].concat());
        let map = prop::collection::vec(member, 0..4);
        let list = prop::collection::vec(inner, 0..4);
        prop_oneof![
            map.prop_map(|members| [b"{", &members.join(&b","[..])[..], b"}"].concat()),
            list.prop_map(|items| [b"[", &items.join(&b","[..])[..], b"]"].concat()),
        ]
    })
}

fn user_context() -> impl Strategy<Value = UserContext> {
    json_text().prop_map(|value| UserContext::parse(&[b"{\"v\":", &value[..], b"}"].concat()).unwrap())
}

fn hwaddr() -> impl Strategy<Value = Option<HwAddr>> {
    prop::option::of(bytes(1..=20).prop_map(|bytes| HwAddr::new(&bytes).unwrap()))
}

fn with_data<L: Lease>(leases: impl Strategy<Value = L>) -> impl Strategy<Value = L> {
    let context = prop::option::of(user_context());
    let cltt = prop_oneof![1 => any::<i64>(), 2 => 1..i64::MAX];
    let numbers = (any::<u32>(), cltt, any::<u32>(), prop_oneof![Just(0), any::<u32>()]);
    (leases, numbers, any::<[bool; 2]>(), bytes(0..=20), context).prop_map(
        |(mut lease, (valid, cltt, subnet, pool), flags, hostname, context)| {
            let data = lease.data_mut();
            data.valid_lifetime = Lifetime(valid);
            data.cltt = cltt;
            data.subnet_id = SubnetId(subnet);
            data.pool_id = PoolId(pool);
            [data.fqdn_fwd, data.fqdn_rev] = flags;
            data.hostname = Hostname::new(&hostname);
            data.user_context = context;
            lease
        },
    )
}

fn any_lease4() -> impl Strategy<Value = Lease4> {
    let client_id = prop::option::of(bytes(2..=255).prop_map(|bytes| ClientId::new(&bytes).unwrap()));
    let lease =
        (any::<[u8; 4]>(), hwaddr(), client_id, any::<u32>()).prop_map(|(address, hwaddr, id, state)| {
            let state =
                if hwaddr.is_none() && id.is_none() { LeaseState::DECLINED } else { LeaseState(state) };
            Lease4::new(address.into(), hwaddr, id, state).unwrap()
        });
    with_data(lease)
}

fn any_lease6() -> impl Strategy<Value = Lease6> {
    let duid = prop_oneof![bytes(3..=130).prop_map(|bytes| Duid::new(&bytes).unwrap()), Just(Duid::empty())];
    let lease_type = prop_oneof![0..=3_u16, any::<u16>()];
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>());
    let lease = (any::<u128>(), lease_type, 0..=128_u32, duid, hwaddr(), numbers).prop_map(
        |(bits, lease_type, len, duid, hwaddr, (iaid, preferred, state))| {
            let state = if duid.is_empty() { LeaseState::DECLINED } else { LeaseState(state) };
            let mut lease = if lease_type == 2 {
                let prefix = bits & u128::MAX.checked_shl(128 - len).unwrap_or(0);
                Lease6::new_prefix(prefix.into(), len, duid, Iaid(iaid), state).unwrap()
            } else {
                Lease6::new(LeaseType(lease_type), bits.into(), duid, Iaid(iaid), state).unwrap()
            };
            lease.set_preferred_lifetime(Lifetime(preferred));
            lease.set_hwaddr(hwaddr);
            lease
        },
    );
    with_data(lease)
}

/// Returns the lease as it is read back by the rules for a new lease; `None` if these reject it.
fn as_new<L: Lease>(lease: &L) -> Option<L> {
    let mut lease = lease.clone();
    let data = lease.data_mut();
    data.hostname = data.hostname.to_ascii_lowercase();
    (data.cltt >= 1 && data.subnet_id.0 >= 1).then_some(lease)
}

/// Checks that a lease that follows the rules for a new one survives as text, as text for Kea, and
/// as a value.
fn survives_as_new<L: Lease + Serialize + DeserializeOwned>(lease: &L, for_kea: &str) {
    match as_new(lease) {
        Some(read) => {
            let text = serde_json::to_string(lease).unwrap();
            assert_eq!(serde_json::from_str::<L>(&text).unwrap(), read);
            assert_eq!(serde_json::from_str::<L>(for_kea).unwrap(), read);
            survives(&read, &serde_json::to_string(&read).unwrap());
        }
        None => assert!(serde_json::from_str::<L>(for_kea).is_err()),
    }
}

/// Checks that a value survives as text, as text for Kea, and as a value.
fn survives<L: Serialize + DeserializeOwned + PartialEq + Debug>(lease: &L, for_kea: &str) {
    let text = serde_json::to_string(lease).unwrap();
    assert_eq!(&serde_json::from_str::<L>(&text).unwrap(), lease);
    assert_eq!(&serde_json::from_str::<L>(for_kea).unwrap(), lease);
    assert_eq!(&serde_json::from_value::<L>(serde_json::to_value(lease).unwrap()).unwrap(), lease);
}

proptest! {
    #[test]
    fn a_dhcpv4_lease_survives_json(lease in any_lease4()) {
        survives_as_new(&lease, &lease.to_json());
    }

    #[test]
    fn a_dhcpv6_lease_survives_json(lease in any_lease6()) {
        survives_as_new(&lease, &lease.to_json());
        survives(&Recorded(lease.clone()), &lease.to_json());
    }
}
