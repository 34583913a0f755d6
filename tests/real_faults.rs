//! Faults of a real system: a full disk, a disk that becomes read-only, files that are removed, no
//! free descriptors.
//!
//! No acknowledged lease may be lost, nothing may panic, and the log must say what the operator can
//! do. Faults of the cleanup program are tested in `memfile_cleanups` and in `memfile::cleanup`.

#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::Durability;
use leasemgr::lease::{HwAddr, Lease4, LeaseState, Lifetime, SubnetId};
use leasemgr::lease_file::LeaseFileSet;
use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions};
use leasemgr::{Added, CleanupStart, LeaseMgr, LeaseMgrError, LeaseMgrExt};
use rstest::rstest;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// The log of this process, one line for each event.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Layer<Registry> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, Registry>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LOG.lock().unwrap().push(line.0);
    }
}

/// Returns the number of log lines that contain all these words.
fn logged(words: &[&str]) -> usize {
    LOG.lock().unwrap().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn record_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(Recorder).init());
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(600), "timed out: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn lease(n: u32) -> Lease4 {
    let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap();
    let mut lease =
        Lease4::new(Ipv4Addr::from(0x0a00_0000 + n), Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
    let data = lease.data_mut();
    data.subnet_id = SubnetId(1);
    data.valid_lifetime = Lifetime(3600);
    data.cltt = 1_790_000_000;
    lease
}

fn options(file: &Path, durability: Durability) -> MemfileOptions {
    MemfileOptions::at(file.to_owned())
        .lfc_interval(None)
        .lfc_program(LfcProgram::Internal)
        .durability(durability)
}

/// A manager, and its expected leases.
struct Server {
    file: PathBuf,
    durability: Durability,
    leases: Option<Memfile<Lease4>>,
    acknowledged: BTreeMap<Ipv4Addr, Lease4>,
    next: u32,
}

impl Server {
    fn open(directory: &Path, durability: Durability) -> Self {
        record_log();
        let file = directory.join("f");
        let leases = Some(Memfile::open(options(&file, durability)).unwrap());
        Self { file, durability, leases, acknowledged: BTreeMap::new(), next: 0 }
    }

    fn mgr(&self) -> &Memfile<Lease4> {
        self.leases.as_ref().unwrap()
    }

    fn path(&self, suffix: &str) -> PathBuf {
        format!("{}{suffix}", self.file.display()).into()
    }

    /// Adds another lease.
    fn add(&mut self) -> Result<(), LeaseMgrError> {
        let lease = lease(self.next);
        self.next += 1;
        let added = self.mgr().add(&lease)?;
        assert_eq!(added, Added::Added);
        self.acknowledged.insert(lease.address(), lease);
        Ok(())
    }

    fn add_some(&mut self) {
        for _ in 0..10 {
            self.add().unwrap();
        }
    }

    /// Panics unless memory holds exactly the acknowledged leases.
    #[track_caller]
    fn check_memory(&self) {
        assert_eq!(self.mgr().all().unwrap(), self.expected());
    }

    /// Panics unless memory and files hold exactly the acknowledged leases.
    #[track_caller]
    fn check(&self) {
        self.check_memory();
        let files = LeaseFileSet::new(&self.file).read::<Lease4>().unwrap();
        assert!(files.invalid_rows.is_empty(), "{:?}", files.invalid_rows);
        assert_eq!(files.leases.into_values().collect::<Vec<_>>(), self.expected());
    }

    fn expected(&self) -> Vec<Lease4> {
        self.acknowledged.values().cloned().collect()
    }

    /// Cleans up. Returns the reason of a failure.
    fn clean_up(&self) -> Option<String> {
        let ended = || {
            let status = self.mgr().status().cleanup.unwrap();
            status.succeeded + status.failed
        };
        let before = ended();
        assert_eq!(self.mgr().clean_up().unwrap(), CleanupStart::Requested);
        wait_until("the cleanup has ended", || ended() > before);
        self.mgr().status().cleanup.unwrap().last.unwrap().failure
    }

    /// Reopens the manager.
    fn reopen(&mut self) {
        self.leases = None;
        self.leases = Some(Memfile::open(options(&self.file, self.durability)).unwrap());
        self.check();
    }
}

/// A small file system, which is unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts a file system of `size` KiB; returns `None` for users who may not mount.
    fn new(size: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can mount a disk");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}k"), "tmpfs"], directory.path());
        Some(Self(directory))
    }

    fn remount(&self, mode: &str) {
        run("mount", &["-o", &format!("remount,{mode}")], self.0.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l"], self.0.path());
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    assert!(Command::new(program).args(arguments).arg(path).status().unwrap().success());
}

#[rstest]
fn on_a_full_disk_changes_fail_until_there_is_room(
    #[values(Durability::Written, Durability::Synced, Durability::SyncedEvery(Duration::from_millis(1)))]
    durability: Durability,
) {
    let Some(disk) = Disk::new(256) else { return };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 128 << 10]).unwrap();
    let mut server = Server::open(disk.0.path(), durability);
    let file = server.file.display().to_string();
    for round in 1..=2 {
        let error = loop {
            if let Err(error) = server.add() {
                break error;
            }
        };
        assert!(matches!(error, LeaseMgrError::Write { action: "write", .. }), "{error:?}");
        assert_eq!(
            leasemgr::with_sources(&error).to_string(),
            format!("{file}: cannot write: No space left on device (os error 28)")
        );
        for _ in 0..100 {
            assert!(matches!(server.add(), Err(LeaseMgrError::Write { .. })));
        }
        let known = server.expected().pop().unwrap();
        let mut renewed = known.clone();
        renewed.data_mut().cltt += 1;
        server.mgr().update(&renewed).unwrap_err();
        let status = server.mgr().status();
        assert_eq!(status.refused, None);
        assert!(status.warning.unwrap().contains("No space left on device"));
        assert_eq!(logged(&["ERROR", &file, "DISK_FULL", "until there is room again"]), round, "logged once");
        server.check();
        assert!(server.clean_up().is_some(), "without room there is no cleanup");
        server.check();

        if round == 1 {
            fs::remove_file(&ballast).unwrap();
            server.add().unwrap();
            assert_eq!(server.mgr().status().warning, None);
            assert_eq!(logged(&[&file, "DISK_HAS_ROOM"]), 1);
            server.check();
        }
    }
    assert!(server.acknowledged.len() > 2000, "{} leases", server.acknowledged.len());
    // It can be closed on the full disk. The next manager finds all leases, and refuses changes as
    // well.
    server.reopen();
    server.add().unwrap_err();
    server.check();
    // On a larger disk, it can be cleaned up.
    disk.remount("size=4m");
    server.add_some();
    assert_eq!(server.clean_up(), None);
    server.add_some();
    server.reopen();
}

#[rstest]
fn opening_on_a_read_only_disk_fails_with_the_reason(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let Some(disk) = Disk::new(1024) else { return };
    let mut server = Server::open(disk.0.path(), durability);
    server.add_some();
    // While a file is open for writing, a disk cannot be remounted read-only; the kernel does so
    // after errors of its own.
    server.leases = None;
    disk.remount("ro");
    let error =
        leasemgr::with_sources(&Memfile::<Lease4>::open(options(&server.file, durability)).unwrap_err())
            .to_string();
    assert!(error.contains("f.lock") && error.contains("Read-only file system"), "{error}");
    disk.remount("rw");
    server.reopen();
    server.add_some();
    server.reopen();
}

#[rstest]
fn in_a_directory_that_becomes_read_only_leases_are_kept_and_cleanups_fail(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let Some(disk) = Disk::new(1024) else { return };
    // A second mount of the same disk, which can be made read-only while the file is open through
    // the first.
    let second = tempfile::tempdir().unwrap();
    run("mount", &["--bind", disk.0.path().to_str().unwrap()], second.path());
    let second = Disk(second);
    let mut server = Server::open(disk.0.path(), durability);
    server.add_some();
    run("mount", &["-o", "remount,bind,ro"], second.0.path());
    let error = Memfile::<Lease4>::open(options(&second.0.path().join("f"), durability)).unwrap_err();
    let error = leasemgr::with_sources(&error).to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    server.add_some();
    server.check();
    drop(second);
    assert_eq!(server.clean_up(), None);
    server.reopen();
}

#[rstest]
fn a_removed_lease_file_is_rewritten_within_seconds(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values("removed", "replaced", "renamed")] how: &str,
) {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::open(directory.path(), durability);
    let file = server.file.clone();
    for round in 1..=2 {
        server.add_some();
        match how {
            "removed" => fs::remove_file(&file).unwrap(),
            "renamed" => fs::rename(&file, server.path(".moved")).unwrap(),
            _ => {
                fs::write(server.path(".new"), "theirs").unwrap();
                fs::rename(server.path(".new"), &file).unwrap();
            }
        }
        server.add_some();
        let name = file.display().to_string();
        wait_until("it is rewritten", || {
            logged(&["ERROR", &name, "LEASE_FILE_RESTORED", "stop the server before you"]) == round
        });
        server.check();
        server.add_some();
    }
    let kept = fs::read_to_string(server.path(".replaced")).ok();
    assert_eq!(kept.as_deref(), (how == "replaced").then_some("theirs"));
    server.reopen();
}

#[rstest]
fn a_removed_lease_file_loses_no_lease_in_a_cleanup_or_at_close(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(true, false)] replaced: bool,
) {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::open(directory.path(), durability);
    let take = |server: &Server| {
        fs::remove_file(&server.file).unwrap();
        if replaced {
            fs::write(&server.file, "theirs").unwrap();
        }
    };
    server.add_some();
    take(&server);
    server.add_some();
    assert_eq!(server.clean_up(), None);
    server.check();
    server.add_some();
    take(&server);
    server.reopen();
}

#[test]
fn a_lease_file_that_cannot_be_rewritten_is_rewritten_later() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let mut server = Server::open(&inner, Durability::Written);
    server.add_some();
    fs::remove_dir_all(&inner).unwrap();
    let file = server.file.display().to_string();
    wait_until("it is in the status", || server.mgr().status().warning.is_some());
    let warning = server.mgr().status().warning.unwrap();
    assert!(warning.contains(&file) && warning.contains("changes may be lost when"), "{warning}");
    assert_eq!(logged(&["ERROR", &file, "LEASE_FILE_GONE"]), 1, "logged once");
    server.add_some();
    fs::create_dir(&inner).unwrap();
    wait_until("it is rewritten", || server.mgr().status().warning.is_none());
    server.check();
    server.reopen();
}

/// Role of a child process.
const ROLE: &str = "REAL_FAULTS_ROLE";

#[test]
fn without_free_descriptors_changes_go_on_and_cleanups_wait() {
    // The limit is that of the process, which other tests share.
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_without_free_descriptors", "--ignored"])
        .env(ROLE, "descriptors")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "a part of another test"]
fn a_process_without_free_descriptors() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    for durability in [Durability::Written, Durability::Synced] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::open(directory.path(), durability);
        server.add_some();
        for spare in 0..8 {
            let mut taken = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                taken.push(file);
            }
            // Number of descriptors left for the cleanup, which fails at some step or succeeds.
            taken.truncate(taken.len() - spare);
            let failure = server.clean_up();
            assert!(spare > 0 || failure.as_ref().unwrap().contains("Too many open files"), "{failure:?}");
            server.add_some();
            server.check_memory();
            let status = server.mgr().status();
            assert_eq!((status.refused, status.warning), (None, None));
            drop(taken);
            server.check();
            assert_eq!(server.clean_up(), None, "after {failure:?}");
            server.check();
        }
        server.reopen();
    }
}
