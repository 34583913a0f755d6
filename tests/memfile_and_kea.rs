//! Lease files shared by real Kea servers and a memfile, in both directions.
//!
//! Debian's Kea 2.2 is older than the format of this crate: its files have no pool ids and are
//! upgraded when they are loaded, and it downgrades those of a memfile. Its lease commands omit
//! pool ids, and the type and the source of hardware addresses.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

#[path = "support/directory.rs"]
mod directory;
#[path = "support/kea.rs"]
mod kea;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use directory::Directory;
use kea::{KEA_LFC, KeaServer, OfKea, all, kea_is_installed, shown, wait_until, with};
use leasemgr::lease::{ExtendedInfoChecks, Family, Lease4, Lease6, Recorded};
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use leasemgr::{
    Added, CleanupReport, CleanupStart, CleanupWork, Deleted, LeaseMgr, LeaseMgrExt, ManagedLease,
};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// This crate's cleanup program.
const OUR_LFC: &str = env!("CARGO_BIN_EXE_kea-lfc");

impl KeaServer {
    fn command(&self, commands: &[Value]) {
        for command in commands {
            let answer = self.ask(command[0].as_str().unwrap(), Some(&command[1])).unwrap();
            assert_eq!(answer["result"], 0, "{command}: {answer}");
        }
    }
}

/// Returns commands that change the leases of [`OfKea::samples`].
fn more_commands(family: Family) -> Value {
    match family {
        Family::V4 => json!([
            ["lease4-add", { "ip-address": "198.51.100.9", "hw-address": "02:00:00:00:00:09" }],
            ["lease4-update", { "ip-address": "192.0.2.2", "hw-address": "02:00:00:00:00:22" }],
            ["lease4-del", { "ip-address": "192.0.2.6" }],
        ]),
        Family::V6 => json!([
            ["lease6-add", { "ip-address": "2001:db8:1:ff::1", "duid": "01:02:03", "iaid": 1, "subnet-id": 1 }],
            ["lease6-update", { "ip-address": "2001:db8:1::2", "duid": "01:02:03", "iaid": 1, "subnet-id": 1 }],
            ["lease6-del", { "ip-address": "2001:db8:1::6" }],
        ]),
    }
}

/// The directory of lease files that one server after the other uses.
impl Directory {
    fn open<L: ManagedLease>(&self, lfc_program: LfcProgram) -> Arc<dyn LeaseMgr<L>> {
        let file = Some(self.path("leases.csv"));
        memfile::open(
            MemfileOptions::default()
                .file(file)
                .lfc_interval(None)
                .max_row_errors(1)
                // Empty user contexts are kept, as in Kea 2.2.
                .extended_info_checks(ExtendedInfoChecks::None)
                .lfc_program(lfc_program),
        )
        .unwrap()
    }

    /// Returns Kea's own program. It would lock its logs in a directory that is writable only for
    /// its own account.
    fn kea_lfc(&self) -> LfcProgram {
        let path = self.path("kea-lfc");
        fs::write(&path, format!("#!/bin/sh\nKEA_LOCKFILE_DIR=none exec {KEA_LFC} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        LfcProgram::Program(path)
    }

    /// Returns whether a lease file has the newest schema, and not that of Kea 2.2.
    fn has_pools(&self, name: &str) -> bool {
        let text = fs::read(self.path(name)).unwrap();
        text.split(|&byte| byte == b'\n').next().unwrap().ends_with(b",pool_id")
    }

    /// Returns whether a cleanup of these files is running or about to begin.
    fn is_cleaned_up(&self) -> bool {
        let name = self.path("leases.csv.output").display().to_string();
        let mut processes = fs::read_dir("/proc").unwrap();
        processes.any(|process| {
            // A process that has just ended has no arguments.
            let arguments = fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&name)
        })
    }
}

/// A Kea server on the files of a directory.
struct Kea<'a> {
    server: KeaServer,
    directory: &'a Directory,
}

impl<'a> Kea<'a> {
    /// Starts a server, and waits until it has loaded the leases. With an interval of 0 seconds, it
    /// cleans up only files of another version.
    fn start<L: OfKea>(directory: &'a Directory, lfc_interval: u32) -> Self {
        let database = json!({
            "type": "memfile", "name": directory.path("leases.csv"), "lfc-interval": lfc_interval,
        });
        let configuration = json!({ "lease-database": database });
        let server = KeaServer::start::<L>(directory.root(), &configuration, &[]);
        // Files of another version are cleaned up at once.
        wait_until("Kea has cleaned up", || {
            !directory.path("leases.csv.1").exists() && !directory.is_cleaned_up()
        });
        Self { server, directory }
    }

    /// Ends the server, and waits for a cleanup that it has started.
    fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.server.child), signal).unwrap();
        let mut status = None;
        wait_until("Kea ends", || {
            status = self.server.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(signal == Signal::KILL || status.unwrap().success(), "{status:?}");
        wait_until("Kea's cleanup ends", || !self.directory.is_cleaned_up());
    }
}

/// Cleans up, and waits until the cleanup has ended.
fn clean<L: OfKea>(leases: &dyn LeaseMgr<L>) -> CleanupReport {
    let cleanup = || leases.status().cleanup.unwrap();
    let ended = || cleanup().succeeded + cleanup().failed;
    // A cleanup is running already if the files were of another version.
    wait_until("no cleanup is running", || {
        let cleanup = cleanup();
        !cleanup.running && cleanup.next.is_none()
    });
    let before = ended();
    assert_eq!(leases.clean_up().unwrap(), CleanupStart::Requested);
    wait_until("the cleanup has ended", || ended() > before);
    let report = cleanup().last.unwrap();
    assert_eq!(report.failure, None);
    report
}

#[rstest]
fn leases_of_a_real_server_are_loaded(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Signal::TERM, Signal::KILL)] signal: Signal,
    #[values(false, true)] with_cleanups: bool,
) {
    if kea_is_installed() {
        match family {
            Family::V4 => load_from_kea::<Lease4>(signal, with_cleanups),
            Family::V6 => load_from_kea::<Lease6>(signal, with_cleanups),
        }
    }
}

fn load_from_kea<L: OfKea>(signal: Signal, with_cleanups: bool) {
    let directory = Directory::new();
    let kea = Kea::start::<L>(&directory, u32::from(with_cleanups));
    let commands = L::commands();
    let (first, second) = commands.as_array().unwrap().split_at(10);
    kea.server.command(first);
    if with_cleanups {
        let previous = directory.path("leases.csv.2");
        wait_until("Kea has cleaned up", || fs::read(&previous).is_ok_and(|text| text.len() > 1000));
    }
    kea.server.command(second);
    let keas = kea.server.leases::<L>();
    assert!(keas.len() >= 8, "{keas:#?}");
    kea.end(signal);
    assert!(!directory.has_pools("leases.csv"));

    let leases = directory.open::<L>(LfcProgram::Internal);
    assert_eq!(shown(&all(&*leases)), keas);
    // Kea's files are older, and are converted at once without loss.
    let before = all(&*leases);
    clean(&*leases);
    assert!(directory.has_pools("leases.csv") && directory.has_pools("leases.csv.2"));
    assert_eq!(all(&*leases), before);
    drop(leases);
    assert_eq!(all(&*directory.open::<L>(LfcProgram::Internal)), before);
}

/// Kea 2.2 assigns leases to clients with DUIDs of 1 and 2 bytes, and prefixes with host bits: such
/// leases are added, changed and deleted, and one is declined.
fn commands_of_recorded_leases() -> Value {
    let hardware = json!({ "hw-address": "02:00:00:00:00:01", "iaid": 7, "subnet-id": 1 });
    let lease = |lease: Value| with(&hardware, &lease);
    let prefix =
        |address: &str, len: u8| json!({ "ip-address": address, "type": "IA_PD", "prefix-len": len });
    let of = |duid: &str, more: Value| lease(with(&json!({ "duid": duid }), &more));
    json!([
        ["lease6-add", of("01", json!({ "ip-address": "2001:db8:1::1" }))],
        ["lease6-add", of("00:01", json!({ "ip-address": "2001:db8:1::2" }))],
        ["lease6-add", of("00", json!({ "ip-address": "2001:db8:1::3", "state": 1, "preferred-lft": 0 }))],
        ["lease6-add", of("01", json!({ "ip-address": "2001:db8:1::4", "state": 2 }))],
        ["lease6-add", of("ff", json!({ "ip-address": "2001:db8:1::5" }))],
        ["lease6-add", of("00:01:02", prefix("2001:db8:1:1::1", 64))],
        ["lease6-add", of("00:01:02", prefix("2001:db8:1:1::", 64))],
        ["lease6-add", of("02", prefix("2001:db8:1:2::f", 56))],
        ["lease6-add", of("02", prefix("2001:db8:1:2::e", 56))],
        ["lease6-add", of("00:01:02", prefix("2001:db8:1:3::1", 64))],
        ["lease6-update", of("00:02", json!({ "ip-address": "2001:db8:1::2", "hostname": "new.example" }))],
        ["lease6-update", of("03", prefix("2001:db8:1:2::f", 48))],
        ["lease6-del", { "ip-address": "2001:db8:1::5" }],
        ["lease6-del", { "ip-address": "2001:db8:1:3::1", "type": "IA_PD" }],
    ])
}

/// Returns the last row of each address in a journal of Kea 2.2, without deleted leases, in address
/// order.
fn newest_rows(journal: &str) -> Vec<String> {
    let mut newest = BTreeMap::new();
    for row in journal.lines().skip(1) {
        let values: Vec<_> = row.split(',').collect();
        newest.insert(values[0].parse::<Ipv6Addr>().unwrap(), (values[2] != "0").then(|| row.to_owned()));
    }
    newest.into_values().flatten().collect()
}

#[rstest]
fn rows_of_a_real_server_are_cleaned_up_byte_for_byte_and_loaded(
    #[values(Cleaner::Thread, Cleaner::Ours)] cleaner: Cleaner,
) {
    if !kea_is_installed() {
        return;
    }
    let directory = Directory::new();
    let kea = Kea::start::<Lease6>(&directory, 0);
    kea.server.command(commands_of_recorded_leases().as_array().unwrap());
    let answer = kea.server.ask("lease6-get-all", None).unwrap();
    let keas = answer["arguments"]["leases"].as_array().unwrap().iter();
    let keas = keas.map(|lease| serde_json::from_value(lease.clone()).unwrap());
    let keas: BTreeMap<_, _> = keas.map(|Recorded(lease)| (lease.address(), lease)).collect();
    assert_eq!(keas.len(), 8);
    kea.end(Signal::TERM);
    let rows = newest_rows(&fs::read_to_string(directory.path("leases.csv")).unwrap());

    let program = match cleaner {
        Cleaner::Ours => LfcProgram::Program(OUR_LFC.into()),
        _ => LfcProgram::Internal,
    };
    let leases = directory.open::<Lease6>(program.clone());
    let before = all(&*leases);
    assert_eq!(shown(&before), keas);
    clean(&*leases);
    let cleaned = fs::read_to_string(directory.path("leases.csv.2")).unwrap();
    let wanted: Vec<_> = rows.iter().map(|row| format!("{row},0")).collect();
    assert_eq!(cleaned.lines().skip(1).collect::<Vec<_>>(), wanted);
    // They can be renewed and deleted like others, and their rows can be read.
    for (n, lease) in before.values().enumerate() {
        let mut renewed = lease.clone();
        renewed.data_mut().cltt += 1;
        leases.update_if_unchanged(lease, &renewed).unwrap();
        if n % 2 == 0 {
            assert_eq!(leases.delete(renewed.address()).unwrap(), Deleted::Deleted);
        }
    }
    let after = all(&*leases);
    assert_eq!(after.len(), 4);
    drop(leases);
    let leases = directory.open::<Lease6>(program);
    assert_eq!(all(&*leases), after);
    clean(&*leases);
    assert_eq!(all(&*leases), after);
}

#[derive(Clone, Copy, Debug)]
enum Cleaner {
    Thread,
    Ours,
    Kea,
}

#[rstest]
fn leases_go_to_a_real_server_and_back(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Cleaner::Thread, Cleaner::Ours, Cleaner::Kea)] cleaner: Cleaner,
) {
    if kea_is_installed() {
        match family {
            Family::V4 => go_to_kea_and_back::<Lease4>(cleaner),
            Family::V6 => go_to_kea_and_back::<Lease6>(cleaner),
        }
    }
}

fn go_to_kea_and_back<L: OfKea>(cleaner: Cleaner) {
    let directory = Directory::new();
    let program = match cleaner {
        Cleaner::Thread => LfcProgram::Internal,
        Cleaner::Ours => LfcProgram::Program(OUR_LFC.into()),
        Cleaner::Kea => directory.kea_lfc(),
    };
    // Kea 2.2's program would drop the pools, and is not used although it is configured.
    let work = match (&program, cleaner) {
        (LfcProgram::Program(path), Cleaner::Ours) => CleanupWork::Program(path.clone()),
        _ => CleanupWork::Thread,
    };
    let samples = L::samples();

    // Changes of all kinds before and after a cleanup.
    let leases = directory.open::<L>(program.clone());
    for lease in &samples {
        assert_eq!(leases.add(lease).unwrap(), Added::Added);
    }
    change(&*leases, &samples[..samples.len() / 2]);
    assert_eq!(clean(&*leases).work, work);
    assert!(directory.has_pools("leases.csv.2"));
    change(&*leases, &samples[samples.len() / 4..]);
    let ours = all(&*leases);
    drop(leases);

    assert!(directory.has_pools("leases.csv"));
    let kea = Kea::start::<L>(&directory, 0);
    assert!(!directory.has_pools("leases.csv") && !directory.has_pools("leases.csv.2"));
    assert_eq!(kea.server.leases(), shown(&ours));
    kea.server.command(more_commands(L::FAMILY).as_array().unwrap());
    let keas = kea.server.leases::<L>();
    assert_ne!(keas, shown(&ours));
    kea.end(Signal::TERM);

    let leases = directory.open::<L>(program.clone());
    let back = all(&*leases);
    assert_eq!(shown(&back), keas);
    // Leases that Kea has not changed are unchanged, including the values that it does not show.
    let untouched = ours
        .into_values()
        .filter(|lease| keas.get(&lease.address()).is_some_and(|keas| *keas == lease.clone().into_shown()));
    for lease in untouched {
        assert_eq!(back[&lease.address()], lease.without_pool());
    }

    // Again, with a cleanup that begins with Kea's files.
    change(&*leases, &samples);
    assert_eq!(clean(&*leases).work, work);
    let ours = all(&*leases);
    drop(leases);
    let kea = Kea::start::<L>(&directory, 0);
    assert_eq!(kea.server.leases(), shown(&ours));
    kea.end(Signal::KILL);
    let ours: BTreeMap<_, _> =
        ours.into_iter().map(|(address, lease)| (address, lease.without_pool())).collect();
    assert_eq!(all(&*directory.open::<L>(program)), ours);
}

/// Renews some of these leases, deletes some, and adds deleted ones again.
fn change<L: OfKea>(leases: &dyn LeaseMgr<L>, samples: &[L]) {
    for (n, sample) in samples.iter().enumerate() {
        match leases.get(sample.address()).unwrap() {
            None => assert_eq!(leases.add(sample).unwrap(), Added::Added),
            Some(lease) if n % 3 == 0 => {
                assert_eq!(leases.delete_if_unchanged(&lease).unwrap(), Deleted::Deleted);
            }
            Some(lease) => {
                let mut renewed = lease.clone();
                renewed.data_mut().cltt += 100;
                renewed.data_mut().hostname = format!("renewed-{n}.example").as_str().into();
                leases.update_if_unchanged(&lease, &renewed).unwrap();
            }
        }
    }
}
