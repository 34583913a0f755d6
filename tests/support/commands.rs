//! The recorded commands of a Kea server, and what that server knew.

use std::fs;
use std::path::Path;

use leasemgr::commands::Subnet;
use leasemgr::lease::{Lease4, Lease6};
use leasemgr::request::{Channel, Source};
use serde_json::{Map, Value};

/// The time at which all commands are made; that of the recorded files.
pub(crate) const NOW: i64 = 6_090_611_384 - u32::MAX as i64;

pub(crate) const SOURCE: Source = Source { channel: Channel::Unix, user: None };

/// The recording. Values that occur often stand once in front of the cases, which have their
/// numbers.
pub(crate) struct Recording {
    pub(crate) setups: Vec<Vec<Value>>,
    pub(crate) leases: Vec<Value>,
    pub(crate) stats: Vec<Value>,
    pub(crate) cases: Vec<Map<String, Value>>,
}

impl Recording {
    pub(crate) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lease-commands.jsonl");
        let mut recording =
            Self { setups: Vec::new(), leases: Vec::new(), stats: Vec::new(), cases: Vec::new() };
        for line in fs::read_to_string(path).unwrap().lines() {
            let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
            if let Some(Value::Array(setup)) = line.remove("@setup") {
                recording.setups.push(setup);
            } else if let Some(lease) = line.remove("@lease") {
                recording.leases.push(lease);
            } else if let Some(stats) = line.remove("@stats") {
                recording.stats.push(stats);
            } else {
                recording.cases.push(line);
            }
        }
        recording
    }

    pub(crate) fn leases(&self, numbers: &Value) -> Value {
        let lease = |number: &Value| self.leases[usize::try_from(number.as_u64().unwrap()).unwrap()].clone();
        numbers.as_array().unwrap().iter().map(lease).collect()
    }
}

pub(crate) fn subnets4() -> [Subnet<Lease4>; 2] {
    [(1, [192, 0, 2]), (2, [198, 51, 100])].map(|(id, [a, b, c])| {
        let address = |last| [a, b, c, last].into();
        Subnet::new(id, address(0), 24).pool(address(10)..=address(200)).valid_lifetime(4000)
    })
}

pub(crate) fn subnets6() -> [Subnet<Lease6>; 2] {
    let subnet = |id, prefix: &str, last: &str| {
        let prefix = prefix.parse().unwrap();
        Subnet::new(id, prefix, 64).pool(prefix..=last.parse().unwrap()).valid_lifetime(4000)
    };
    [
        subnet(1, "2001:db8:1::", "2001:db8:1::ffff:ffff:ffff").prefix_pool(48, 56),
        subnet(2, "2001:db8:2::", "2001:db8:2::ffff:ffff:ffff"),
    ]
}

/// Returns JSON with escapes for all other characters, as the recorded commands were sent.
pub(crate) fn ascii(json: &str) -> String {
    let mut text = String::new();
    for unit in json.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\u{unit:04x}")),
        }
    }
    text
}
