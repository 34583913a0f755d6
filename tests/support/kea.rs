//! The real Kea servers, without a network, and leases of all kinds in the format of their commands.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::lease::{HwAddr, HwSource, HwType, Lease4, Lease6, LeaseState, PoolId};
use leasemgr::{LeaseMgr, LeaseMgrExt, ManagedLease};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Kea's cleanup program.
pub(crate) const KEA_LFC: &str = "/usr/sbin/kea-lfc";
/// Maximum time to wait for anything.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Returns whether Kea is installed. Panics if it is not, unless `LEASEMGR_WITHOUT_KEA` is set:
/// otherwise the missing test would go unnoticed.
pub(crate) fn kea_is_installed() -> bool {
    if std::env::var_os("LEASEMGR_WITHOUT_KEA").is_some_and(|value| value == "1") {
        println!("skipped: LEASEMGR_WITHOUT_KEA is set");
        return false;
    }
    for program in [KEA_LFC, "/usr/sbin/kea-dhcp4", "/usr/sbin/kea-dhcp6"] {
        let version = Command::new(program).arg("-v").output().ok();
        let version = version.map(|version| String::from_utf8_lossy(&version.stdout).trim().to_owned());
        assert!(
            version.as_ref().is_some_and(|version| version.starts_with("2.2.")),
            "{program} of Kea 2.2 is needed, found {version:?}: install Debian's packages kea-common, kea-dhcp4-server and \
             kea-dhcp6-server, or set LEASEMGR_WITHOUT_KEA=1 to skip the tests that need them"
        );
    }
    true
}

/// Returns the library of Kea's lease commands.
fn lease_commands() -> PathBuf {
    let hooks = fs::read_dir("/usr/lib").unwrap().map(|directory| {
        let directory = directory.unwrap().path();
        directory.join("kea/hooks/libdhcp_lease_cmds.so")
    });
    hooks.into_iter().find(|path| path.exists()).expect("libdhcp_lease_cmds.so in /usr/lib/*/kea/hooks")
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "timed out after {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A lease in the format of Kea's lease commands.
pub(crate) trait OfKea: ManagedLease + DeserializeOwned {
    /// The number of the family in the names of Kea's commands.
    const NUMBER: u8;

    /// Returns the part of Kea's configuration that depends on the family.
    fn configuration() -> Value;

    /// Returns commands that create leases of all kinds: a list of names and arguments.
    fn commands() -> Value;

    /// Returns leases of all kinds that Kea 2.2 supports.
    fn samples() -> Vec<Self>;

    /// Returns the lease as a memfile loads it from Kea 2.2.
    fn without_pool(mut self) -> Self {
        self.data_mut().pool_id = PoolId(0);
        self
    }

    /// Returns the lease as Kea's commands show it.
    fn into_shown(self) -> Self;
}

/// A Kea server that is asked through its control socket.
pub(crate) struct KeaServer {
    pub(crate) child: Child,
    directory: PathBuf,
}

impl KeaServer {
    /// Starts the server of a family with its files in a directory, and waits until it answers.
    /// `configuration` adds to the usual one, and `prefix` is the command that starts it, if any.
    pub(crate) fn start<L: OfKea>(directory: &Path, configuration: &Value, prefix: &[&str]) -> Self {
        let number = L::NUMBER;
        let path = |name: &str| directory.join(name);
        let _ = fs::remove_file(path("socket"));
        let usual = json!({
            "interfaces-config": { "interfaces": [] },
            "control-socket": { "socket-type": "unix", "socket-name": path("socket") },
            "hooks-libraries": [{ "library": lease_commands() }],
            // Leases do not change by themselves.
            "expired-leases-processing": { "reclaim-timer-wait-time": 0, "flush-reclaimed-timer-wait-time": 0 },
            "loggers": [{
                "name": format!("kea-dhcp{number}"), "severity": "INFO",
                "output_options": [{ "output": path("server.log") }],
            }],
        });
        let configuration = with(&with(&usual, &L::configuration()), configuration);
        let file = path("server.json");
        fs::write(&file, json!({ format!("Dhcp{number}"): configuration }).to_string()).unwrap();
        let output = File::create(path("server.out")).unwrap();
        let program = format!("/usr/sbin/kea-dhcp{number}");
        let mut words = prefix.iter().copied().chain([program.as_str()]);
        let child = Command::new(words.next().unwrap())
            .args(words)
            .arg("-c")
            .arg(file)
            .env_remove("KEA_LFC_EXECUTABLE")
            .env("KEA_LOCKFILE_DIR", "none")
            .env("KEA_PIDFILE_DIR", directory)
            .env("KEA_DHCP_DATA_DIR", directory)
            .env("KEA_LOGGER_DESTINATION", path("server.log"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut kea = Self { child, directory: directory.to_owned() };
        wait_until("Kea answers", || {
            if let Some(status) = kea.child.try_wait().unwrap() {
                panic!("{status}: {}", kea.log());
            }
            kea.ask("status-get", None).is_ok()
        });
        kea
    }

    /// Returns what the server has written.
    pub(crate) fn log(&self) -> String {
        let log = |name| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        format!("{}{}", log("server.out"), log("server.log"))
    }

    pub(crate) fn ask(&self, command: &str, arguments: Option<&Value>) -> std::io::Result<Value> {
        let mut socket = UnixStream::connect(self.directory.join("socket"))?;
        let mut question = json!({ "command": command });
        if let Some(arguments) = arguments {
            question["arguments"] = arguments.clone();
        }
        socket.write_all(question.to_string().as_bytes())?;
        socket.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Returns all leases of the server, as it shows them.
    pub(crate) fn leases<L: OfKea>(&self) -> BTreeMap<L::Address, L> {
        let answer = self.ask(&format!("lease{}-get-all", L::NUMBER), None).unwrap();
        assert!(answer["result"] == 0 || answer["result"] == 3, "{answer}");
        let leases = answer["arguments"]["leases"].as_array().unwrap().iter();
        let leases = leases.map(|lease| serde_json::from_value(lease.clone()).unwrap());
        leases.map(|lease: L| (lease.address(), lease)).collect()
    }
}

impl Drop for KeaServer {
    fn drop(&mut self) {
        // Fails if the server has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns all leases of a manager.
pub(crate) fn all<L: OfKea>(leases: &dyn LeaseMgr<L>) -> BTreeMap<L::Address, L> {
    leases.all().unwrap().into_iter().map(|lease| (lease.address(), lease)).collect()
}

pub(crate) fn shown<L: OfKea>(leases: &BTreeMap<L::Address, L>) -> BTreeMap<L::Address, L> {
    leases.values().map(|lease| (lease.address(), lease.clone().into_shown())).collect()
}

/// Returns `count` different bytes as text.
fn octets(count: u8) -> String {
    (1..=count).map(|n| format!("{n:02x}")).collect::<Vec<_>>().join(":")
}

/// Returns a user context with values of all types.
fn context() -> Value {
    json!({
        "ISC": { "relay-agent-info": { "sub-options": "0x0104AABBCCDD", "remote-id": "0A0B" } },
        "list": [1, -2.5, null, true, {}, [], "a,b&c\u{e9}\n\""],
    })
}

/// Merges two maps; members of `more` take precedence.
pub(crate) fn with(base: &Value, more: &Value) -> Value {
    let mut map = base.clone();
    map.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    map
}

impl OfKea for Lease4 {
    const NUMBER: u8 = 4;

    fn configuration() -> Value {
        json!({
            "valid-lifetime": 4000,
            "subnet4": [{ "id": 1, "subnet": "192.0.2.0/24" }, { "id": 2, "subnet": "198.51.100.0/24" }],
        })
    }

    fn commands() -> Value {
        json!([
            ["lease4-add", { "ip-address": "192.0.2.1", "hw-address": "02:00:00:00:00:01" }],
            ["lease4-add", {
                "ip-address": "192.0.2.2", "hw-address": "02:00:00:00:00:02", "client-id": "01:02:00:00:00:00:02",
                "hostname": "odd,na&me.example", "fqdn-fwd": true, "fqdn-rev": true, "valid-lft": 1000,
                "expire": 1_990_001_000, "subnet-id": 1, "user-context": context(),
            }],
            ["lease4-add", {
                "ip-address": "192.0.2.3", "hw-address": "02:00:00:00:00:03", "valid-lft": 4_294_967_295_u32,
                "expire": 6_095_000_000_u64,
            }],
            ["lease4-add", { "ip-address": "192.0.2.4", "hw-address": "02:00:00:00:00:04", "state": 1 }],
            ["lease4-add", { "ip-address": "192.0.2.5", "hw-address": "", "state": 1 }],
            ["lease4-add", { "ip-address": "192.0.2.6", "hw-address": "02:00:00:00:00:06", "state": 2 }],
            ["lease4-add", { "ip-address": "192.0.2.7", "hw-address": "", "client-id": "ff:01" }],
            ["lease4-add", { "ip-address": "192.0.2.8", "hw-address": octets(20), "client-id": octets(128) }],
            ["lease4-add", {
                "ip-address": "192.0.2.9", "hw-address": "02:00:00:00:00:09", "hostname": "caf\u{e9}", "user-context": {},
            }],
            // Expired, and reclaimed below.
            ["lease4-add", {
                "ip-address": "192.0.2.10", "hw-address": "02:00:00:00:00:0a", "valid-lft": 100, "expire": 1_600_000_000,
            }],
            ["lease4-add", { "ip-address": "192.0.2.11", "hw-address": "02:00:00:00:00:0b" }],
            ["lease4-add", { "ip-address": "198.51.100.1", "hw-address": "02:00:00:00:00:01" }],
            ["lease4-add", { "ip-address": "198.51.100.2", "hw-address": "02:00:00:00:00:02", "client-id": "01:02:03" }],
            ["lease4-update", { "ip-address": "192.0.2.1", "hw-address": "02:00:00:00:00:11", "hostname": "new.example" }],
            ["lease4-update", { "ip-address": "192.0.2.12", "hw-address": "02:00:00:00:00:0c", "force-create": true }],
            ["lease4-del", { "ip-address": "192.0.2.11" }],
            ["lease4-wipe", { "subnet-id": 2 }],
            ["leases-reclaim", { "remove": false }],
            ["lease4-add", { "ip-address": "198.51.100.2", "hw-address": "02:00:00:00:00:03" }],
        ])
    }

    fn samples() -> Vec<Self> {
        let leases = json!([
            {},
            {
                "client-id": "01:02:00:00:00:00:02", "hostname": "odd,na&me.example", "fqdn-fwd": true, "fqdn-rev": true,
                "user-context": context(),
            },
            { "hw-address": "", "client-id": octets(128) },
            { "hw-address": octets(20), "subnet-id": 4_294_967_295_u32 },
            { "hw-address": "07", "valid-lft": 4_294_967_295_u32 },
            { "hw-address": "", "state": 1, "valid-lft": 86400 },
            { "client-id": "ff:01", "state": 1 },
            { "state": 2, "cltt": 1_600_000_000 },
            { "state": 3 },
            { "state": LeaseState::OFFERED },
            { "state": LeaseState::APPLICATION.end() },
            { "hostname": "caf\u{e9}&#x2c", "user-context": {} },
            { "pool-id": 7 },
            { "cltt": 5_000_000_000_u64 },
            { "cltt": 1_600_000_000 },
            { "valid-lft": 1 },
        ]);
        let lease = |(n, lease): (usize, &Value)| {
            let base = json!({
                "ip-address": format!("192.0.2.{}", n + 1), "hw-address": format!("02:00:00:00:00:{n:02x}"),
                "subnet-id": 1, "valid-lft": 3600, "cltt": 1_990_000_000,
            });
            serde_json::from_value(with(&base, lease)).unwrap()
        };
        leases.as_array().unwrap().iter().enumerate().map(lease).collect()
    }

    fn into_shown(self) -> Self {
        self.without_pool()
    }
}

impl OfKea for Lease6 {
    const NUMBER: u8 = 6;

    fn configuration() -> Value {
        json!({
            "valid-lifetime": 4000,
            "preferred-lifetime": 3000,
            "server-id": { "type": "EN", "enterprise-id": 2495, "identifier": "0102030405", "persist": false },
            "subnet6": [{ "id": 1, "subnet": "2001:db8:1::/48" }, { "id": 2, "subnet": "2001:db8:2::/48" }],
        })
    }

    fn commands() -> Value {
        let client = json!({ "duid": "00:03:00:01:02:00:00:00:00:01", "iaid": 7, "subnet-id": 1 });
        let lease = |lease: Value| with(&client, &lease);
        json!([
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1::1" }))],
            ["lease6-add", lease(json!({
                "ip-address": "2001:db8:1::2", "iaid": 4_294_967_295_u32, "hw-address": "02:00:00:00:00:02",
                "hostname": "odd,na&me.example", "fqdn-fwd": true, "fqdn-rev": true, "preferred-lft": 500,
                "valid-lft": 1000, "expire": 1_990_001_000, "user-context": context(),
            }))],
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1::3", "type": "IA_TA", "hw-address": octets(20) }))],
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1:100::", "type": "IA_PD", "prefix-len": 56 }))],
            ["lease6-add", lease(json!({
                "ip-address": "2001:db8:1:200::", "type": "IA_PD", "prefix-len": 64, "duid": octets(128),
                "user-context": {},
            }))],
            ["lease6-add", lease(json!({
                "ip-address": "2001:db8:1::4", "duid": "00:00:00", "state": 1, "preferred-lft": 0,
            }))],
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1::5", "duid": "01:02:03", "state": 2 }))],
            ["lease6-add", lease(json!({
                "ip-address": "2001:db8:1::6", "valid-lft": 4_294_967_295_u32, "preferred-lft": 4_294_967_295_u32,
            }))],
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1::7", "hostname": "caf\u{e9}" }))],
            // Expired, and reclaimed below.
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1::8", "valid-lft": 100, "expire": 1_600_000_000 }))],
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:1::9" }))],
            ["lease6-add", lease(json!({ "ip-address": "2001:db8:2::1", "subnet-id": 2 }))],
            ["lease6-update", lease(json!({
                "ip-address": "2001:db8:1::1", "hw-address": "02:00:00:00:00:11", "hostname": "new.example",
            }))],
            ["lease6-update", lease(json!({ "ip-address": "2001:db8:1::a", "force-create": true }))],
            ["lease6-del", { "ip-address": "2001:db8:1::9" }],
            ["lease6-wipe", { "subnet-id": 2 }],
            ["leases-reclaim", { "remove": false }],
            ["lease6-bulk-apply", {
                "deleted-leases": [{ "ip-address": "2001:db8:1::7" }],
                "leases": [
                    lease(json!({ "ip-address": "2001:db8:2::2", "subnet-id": 2, "hw-address": "01:02" })),
                    lease(json!({ "ip-address": "2001:db8:1::3", "type": "IA_TA", "iaid": 8 })),
                ],
            }],
        ])
    }

    fn samples() -> Vec<Self> {
        let leases = json!([
            {},
            {
                "hostname": "odd,na&me.example", "fqdn-fwd": true, "fqdn-rev": true, "user-context": context(),
                "hw-address": "02:00:00:00:00:02",
            },
            { "hw-address": octets(20) },
            { "hw-address": "07" },
            { "duid": octets(128), "iaid": 4_294_967_295_u32, "subnet-id": 4_294_967_295_u32 },
            { "duid": "01:02:03", "valid-lft": 4_294_967_295_u32, "preferred-lft": 4_294_967_295_u32 },
            { "type": "IA_TA", "preferred-lft": 0 },
            { "duid": "00:00:00", "state": 1, "preferred-lft": 0, "valid-lft": 86400 },
            { "state": 2, "cltt": 1_600_000_000 },
            { "state": 3 },
            { "state": 4 },
            { "hostname": "caf\u{e9}&#x2c", "user-context": {} },
            { "pool-id": 7, "state": LeaseState::OFFERED },
            { "cltt": 1_600_000_000 },
            { "ip-address": "2001:db8:1:100::", "type": "IA_PD", "prefix-len": 56 },
            { "ip-address": "2001:db8:8000::", "type": "IA_PD", "prefix-len": 33, "state": 2 },
            { "ip-address": "2001:db8:1:200::1", "type": "IA_PD", "prefix-len": 128 },
            { "ip-address": "::192.0.2.1", "state": LeaseState::APPLICATION.end() },
        ]);
        let lease = |(n, lease): (usize, &Value)| {
            let base = json!({
                "ip-address": format!("2001:db8:1::{:x}", n + 1), "duid": format!("00:03:00:01:02:00:00:00:00:{n:02x}"),
                "iaid": n, "subnet-id": 1, "preferred-lft": 1800, "valid-lft": 3600, "cltt": 1_990_000_000,
            });
            let mut lease: Self = serde_json::from_value(with(&base, lease)).unwrap();
            let hwaddr = lease.hwaddr().cloned().map(|mut hwaddr| {
                match hwaddr.as_bytes().len() {
                    20 => (hwaddr.htype, hwaddr.source) = (HwType(6), HwSource(2)),
                    1 => (hwaddr.htype, hwaddr.source) = (HwType(u16::MAX), HwSource(u32::MAX)),
                    _ => {}
                }
                hwaddr
            });
            lease.set_hwaddr(hwaddr);
            lease
        };
        leases.as_array().unwrap().iter().enumerate().map(lease).collect()
    }

    fn into_shown(mut self) -> Self {
        let hwaddr = self.hwaddr().map(|hwaddr| HwAddr::new(hwaddr.as_bytes()).unwrap());
        self.set_hwaddr(hwaddr);
        self.without_pool()
    }
}
