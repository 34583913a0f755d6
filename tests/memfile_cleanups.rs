//! Cleanups of a memfile by this project's program, by Kea's and by a thread: while leases change,
//! and when the server or the program is killed.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "support/directory.rs"]
mod directory;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use directory::Directory;
use leasemgr::lease::{
    Duid, HwAddr, Iaid, Lease4, Lease6, LeaseState, LeaseType, Lifetime, PoolId, SubnetId,
};
use leasemgr::lease_file::FileLease;
use leasemgr::lease_file::LeaseFileSet;
use leasemgr::memfile::{self, LfcProgram, Memfile, MemfileOptions, OpenError};
use leasemgr::{
    Added, CleanupReport, CleanupStart, CleanupStatus, CleanupWork, Deleted, LeaseMgr, LeaseMgrExt,
    LeaseMgrFactory, ManagedLease,
};
use rstest::rstest;

const OURS: &str = env!("CARGO_BIN_EXE_kea-lfc");
const KEAS: &str = "/usr/sbin/kea-lfc";

/// Leases of either family.
trait Sample: ManagedLease + FileLease {
    /// Returns the `n`th lease after its `change`th change.
    fn sample(n: u32, change: u32) -> Self;

    fn finish(mut self, change: u32) -> Self {
        let data = self.data_mut();
        data.subnet_id = SubnetId(1);
        // Files of Kea 2.2 have no column for it.
        data.pool_id = PoolId(7);
        data.valid_lifetime = Lifetime(3600);
        data.cltt = 1_790_000_000 + i64::from(change);
        self
    }
}

impl Sample for Lease4 {
    fn sample(n: u32, change: u32) -> Self {
        let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap();
        let address = Ipv4Addr::from(0x0a00_0000 + n);
        Self::new(address, Some(hwaddr), None, LeaseState::DEFAULT).unwrap().finish(change)
    }
}

impl Sample for Lease6 {
    fn sample(n: u32, change: u32) -> Self {
        let duid = Duid::new(&[0, 1, 2, 3]).unwrap();
        let address = Ipv6Addr::from((0x2001_0db8 << 96) + u128::from(n));
        Self::new(LeaseType::NA, address, duid, Iaid(7), LeaseState::DEFAULT).unwrap().finish(change)
    }
}

/// The directory of the lease file `f`.
impl Directory {
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Creates a program that runs this script in the directory, with the arguments of the cleanup.
    ///
    /// A child process writes it: if this process did, a child that another test has forked but not
    /// yet executed could still have it open for writing, and it could not be executed.
    fn program(&self, script: &str) -> LfcProgram {
        let path = self.path("program");
        // The query for its version before the first use is not part of the script.
        let asked = r#"case "$*" in *-V) exit 0;; esac"#;
        let text = format!("#!/bin/sh\n{asked}\ncd '{}' || exit 9\n{script}\n", self.root().display());
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
        assert!(status.success());
        LfcProgram::Program(path)
    }

    fn options(&self, lfc_program: LfcProgram) -> MemfileOptions {
        let file = Some(self.path("f"));
        MemfileOptions::default().file(file).lfc_interval(None).lfc_program(lfc_program)
    }

    fn open<L: ManagedLease>(&self, lfc_program: LfcProgram) -> Arc<dyn LeaseMgr<L>> {
        memfile::open(self.options(lfc_program)).unwrap()
    }

    /// Returns the leases in all files.
    fn leases<L: ManagedLease + FileLease>(&self) -> Vec<L> {
        LeaseFileSet::new(self.path("f")).read().unwrap().leases.into_values().collect()
    }

    /// Returns the files of a cleanup other than its result.
    fn leftovers(&self) -> Vec<&str> {
        let names =
            ["f.1", "f.output", "f.completed", "f.completed.bad", "f.pid", "f.pid.lock", "f.pid.running"];
        names.into_iter().filter(|name| self.has(name)).collect()
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(600), "timed out: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn cleanup<L: ManagedLease + FileLease>(leases: &dyn LeaseMgr<L>) -> CleanupStatus {
    leases.status().cleanup.unwrap()
}

fn wait_for<L: ManagedLease + FileLease>(leases: &dyn LeaseMgr<L>, count: u64) -> CleanupReport {
    let ended = || cleanup(leases).succeeded + cleanup(leases).failed;
    wait_until("the cleanups have ended", || ended() >= count);
    cleanup(leases).last.unwrap()
}

/// Cleans up, and waits until the cleanup has ended.
fn clean<L: ManagedLease + FileLease>(leases: &dyn LeaseMgr<L>) -> CleanupReport {
    let before = cleanup(leases);
    assert_eq!(leases.clean_up().unwrap(), CleanupStart::Requested);
    wait_for(leases, before.succeeded + before.failed + 1)
}

fn add<L: Sample>(leases: &dyn LeaseMgr<L>, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        assert_eq!(leases.add(&L::sample(n, 0)).unwrap(), Added::Added);
    }
}

fn rows(directory: &Directory, name: &str) -> usize {
    directory.read(name).lines().skip(1).count()
}

/// Returns whether such a process exists, also as a zombie.
fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

#[rstest]
#[case::own(Some(OURS))]
#[case::keas(Some(KEAS))]
#[case::thread(None)]
fn the_files_hold_one_row_for_each_lease_after_a_cleanup(#[case] program: Option<&str>) {
    if program.is_some_and(|program| !Path::new(program).exists()) {
        eprintln!("skipped: {KEAS} is not installed");
        return;
    }
    check_rounds::<Lease4>(program);
    check_rounds::<Lease6>(program);
}

/// Adds, updates and deletes leases, with a cleanup between each.
fn check_rounds<L: Sample + Debug>(program: Option<&str>) {
    let directory = Directory::new();
    let lfc = program.map_or(LfcProgram::Internal, |program| LfcProgram::Program(program.into()));
    // Kea 2.2's program would drop a column, and is not used although it is configured.
    let program = program.filter(|program| !is_old(program));
    let leases = directory.open::<L>(lfc.clone());
    add(&*leases, 0..100);
    assert_succeeded(&clean(&*leases), program);
    assert_eq!((rows(&directory, "f.2"), rows(&directory, "f")), (100, 0));

    for n in 0..50 {
        leases.update(&L::sample(n, 1)).unwrap();
        leases.update(&L::sample(n, 2)).unwrap();
    }
    for n in 90..100 {
        leases.delete(L::sample(n, 0).address()).unwrap();
    }
    assert_succeeded(&clean(&*leases), program);
    add(&*leases, 200..210);
    assert_eq!((rows(&directory, "f.2"), rows(&directory, "f")), (90, 10));
    assert_eq!(directory.leftovers(), [""; 0]);

    let expected: Vec<_> =
        (0..50).map(|n| L::sample(n, 2)).chain((50..90).chain(200..210).map(|n| L::sample(n, 0))).collect();
    assert_eq!(directory.leases::<L>(), expected);
    drop(leases);
    assert_eq!(directory.open::<L>(lfc).all().unwrap(), expected);
}

/// Returns whether a program is Kea 2.2's.
fn is_old(program: &str) -> bool {
    let output = Command::new(program).args(["-4", "-V"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("Memfile backend 2.1")
}

#[track_caller]
fn assert_succeeded(report: &CleanupReport, program: Option<&str>) {
    assert_eq!(report.failure, None);
    let work = program.map_or(CleanupWork::Thread, |program| CleanupWork::Program(program.into()));
    assert_eq!((&report.work, report.rows.is_some()), (&work, program.is_none()));
    assert!(report.bytes_before > 0 && report.bytes_after > 0);
}

#[rstest]
#[case::program(LfcProgram::Program(OURS.into()))]
#[case::thread(LfcProgram::Internal)]
fn consecutive_cleanups_lose_no_change(#[case] program: LfcProgram) {
    const THREADS: u32 = 3;
    let directory = Directory::new();
    let interval = Duration::from_millis(1);
    let options = directory.options(program.clone()).lfc_interval(interval);
    let leases = Memfile::<Lease4>::open(options).unwrap();
    let enough = AtomicBool::new(false);
    let expected: Vec<Lease4> = thread::scope(|scope| {
        let (leases, enough) = (&leases, &enough);
        let change = |first| move || change_until(enough, leases, first..first + 100);
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(change(thread << 8))).collect();
        wait_for(leases, 20);
        enough.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let status = cleanup(&leases);
    assert_eq!(status.failed, 0, "{:?}", status.last);
    assert_eq!(leases.all().unwrap(), expected);
    drop(leases);
    assert_eq!(directory.leases::<Lease4>(), expected);
    assert_eq!(directory.open::<Lease4>(program).all().unwrap(), expected);
}

/// Adds, updates and deletes leases in turn. Returns those that exist in the end.
fn change_until(enough: &AtomicBool, leases: &Memfile<Lease4>, numbers: Range<u32>) -> Vec<Lease4> {
    let mut newest = BTreeMap::new();
    for (change, n) in (0..).flat_map(|change| numbers.clone().map(move |n| (change, n))) {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let lease = Lease4::sample(n, change);
        match change % 3 {
            0 => assert_eq!(leases.add(&lease).unwrap(), Added::Added),
            1 => leases.update(&lease).unwrap(),
            _ => assert_eq!(leases.delete(lease.address()).unwrap(), Deleted::Deleted),
        }
        if change % 3 == 2 {
            newest.remove(&n)
        } else {
            newest.insert(n, lease)
        };
        // The cleanup of a journal that grows faster than it is read would never end.
        thread::sleep(Duration::from_millis(1));
    }
    newest.into_values().collect()
}

#[test]
fn a_cleanup_whose_program_is_killed_is_completed_by_the_next() {
    let directory = Directory::new();
    let program = directory.program(&format!("[ -e go ] || kill -9 $$; exec '{OURS}' \"$@\""));
    let leases = directory.open::<Lease4>(program);
    add(&*leases, 0..10);
    let failure = clean(&*leases).failure.unwrap();
    assert!(failure.contains("signal: 9"), "{failure}");
    add(&*leases, 10..20);
    fs::write(directory.path("go"), "").unwrap();
    assert_eq!(clean(&*leases).failure, None);
    assert_eq!((rows(&directory, "f.2"), rows(&directory, "f")), (10, 10));
    assert_eq!(directory.leases::<Lease4>(), leases.all().unwrap());
    assert_eq!(directory.leftovers(), [""; 0]);
    let status = cleanup(&*leases);
    assert_eq!((status.succeeded, status.failed), (1, 1));
}

#[test]
fn closing_a_manager_ends_a_hanging_program() {
    let directory = Directory::new();
    let program = directory.program("trap '' TERM; echo $$ > own; while :; do sleep 0.1; done");
    let leases = directory.open::<Lease4>(program);
    add(&*leases, 0..10);
    leases.clean_up().unwrap();
    wait_until("the program runs", || directory.read("own").ends_with('\n'));
    add(&*leases, 10..20);
    drop(leases);
    assert!(!exists(&directory.read("own")));
    assert_eq!(directory.leftovers(), ["f.1"]);
    let leases = directory.open::<Lease4>(LfcProgram::Program(OURS.into()));
    assert_eq!(leases.all().unwrap().len(), 20);
    assert_eq!(clean(&*leases).failure, None);
    assert_eq!((rows(&directory, "f.2"), rows(&directory, "f")), (10, 10));
}

/// Role of a child process, from the environment.
const ROLE: &str = "MEMFILE_CLEANUPS_ROLE";
const DIRECTORY: &str = "MEMFILE_CLEANUPS_DIRECTORY";
const CONNECTION: &str = "MEMFILE_CLEANUPS_CONNECTION";

/// Starts this test program as a child process in a role.
fn start(role: &str, directory: &Directory, variables: &[(&str, &Path)]) -> Child {
    start_program(&std::env::current_exe().unwrap(), role, directory, variables)
}

/// Starts this test program, or a copy of it, in a role.
fn start_program(program: &Path, role: &str, directory: &Directory, variables: &[(&str, &Path)]) -> Child {
    Command::new(program)
        .args(["--exact", "a_server_in_a_child_process", "--ignored"])
        .env_remove("KEA_LFC_EXECUTABLE")
        .env_remove("KEA_DHCP_DATA_DIR")
        .env(ROLE, role)
        .env(DIRECTORY, directory.root())
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "a part of other tests"]
fn a_server_in_a_child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let file = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    if let Ok(connection) = std::env::var(CONNECTION) {
        let leases = LeaseMgrFactory::<Lease4>::new().open(&connection).unwrap();
        assert_eq!(leases.add(&Lease4::sample(1, 0)).unwrap(), Added::Added);
        assert_eq!(leases.clean_up().unwrap(), CleanupStart::Requested);
        let mut last = None;
        wait_until("a cleanup has ended", || {
            last = leases.status().cleanup.unwrap().last;
            last.is_some()
        });
        let report = last.unwrap();
        assert_eq!(report.failure, None);
        fs::write(file.join("work"), format!("{:?}", report.work)).unwrap();
        return;
    }
    let program = match role.as_str() {
        "installed" => LfcProgram::Installed,
        _ => LfcProgram::Program(file.join("program")),
    };
    let options = MemfileOptions::at(file.join("f")).lfc_program(program);
    let leases = Memfile::<Lease4>::open(options).unwrap();
    add(&leases, 0..10);
    if role == "installed" {
        let report = clean(&leases);
        assert_eq!(report.failure, None);
        fs::write(file.join("work"), format!("{:?}", report.work)).unwrap();
        return;
    }
    leases.clean_up().unwrap();
    let own = file.join("own");
    // The program may run before the manager has written its PID file.
    let is_named =
        |text: Vec<u8>| text.ends_with(b"\n") && fs::read(file.join("f.pid")).is_ok_and(|pid| pid == text);
    wait_until("the program runs", || fs::read(&own).is_ok_and(is_named));
    add(&leases, 10..20);
    fs::write(file.join("ready"), "").unwrap();
    loop {
        thread::park();
    }
}

#[rstest]
#[case::of_a_program("program", true)]
#[case::missing("absent", false)]
fn the_environment_names_the_program(#[case] name: &str, #[case] started: bool) {
    let directory = Directory::new();
    let LfcProgram::Program(path) = directory.program(&format!("touch started; exec '{OURS}' \"$@\"")) else {
        unreachable!()
    };
    let named = directory.path(name);
    let mut server = start("installed", &directory, &[("KEA_LFC_EXECUTABLE", &named)]);
    assert!(server.wait().unwrap().success());
    let work = if started { CleanupWork::Program(path) } else { CleanupWork::Thread };
    assert_eq!(directory.read("work"), format!("{work:?}"));
    assert_eq!(directory.has("started"), started);
}

/// Copies a program by a child process: see `Directory::program`.
fn copy(program: &Path, to: &Path) {
    assert!(Command::new("cp").args([program, to]).status().unwrap().success());
}

#[rstest]
#[case::ours(Some(OURS), true)]
#[case::keas(Some(KEAS), false)]
#[case::none(None, false)]
fn without_a_name_only_this_projects_program_is_used(#[case] beside: Option<&str>, #[case] taken: bool) {
    if beside.is_some_and(|program| !Path::new(program).exists()) {
        eprintln!("skipped: {KEAS} is not installed");
        return;
    }
    let directory = Directory::new();
    let server = directory.path("server");
    copy(&std::env::current_exe().unwrap(), &server);
    let program = directory.path("kea-lfc");
    if let Some(beside) = beside {
        copy(Path::new(beside), &program);
    }
    assert!(start_program(&server, "installed", &directory, &[]).wait().unwrap().success());
    let work = directory.read("work");
    if taken {
        assert_eq!(work, format!("{:?}", CleanupWork::Program(program)));
    } else {
        // An installed program may be this project's; Kea's is not used.
        assert!(!work.contains(directory.root().to_str().unwrap()), "{work}");
        assert!(work == format!("{:?}", CleanupWork::Thread) || !is_keas(&work), "{work}");
    }
    assert_eq!(directory.leases::<Lease4>(), (0..10).map(|n| Lease4::sample(n, 0)).collect::<Vec<_>>());
}

/// Returns whether an installed program that was found is Kea's.
fn is_keas(work: &str) -> bool {
    let program = work.split('"').nth(1).unwrap();
    let output = Command::new(program).args(["-4", "-V"]).output().unwrap();
    !output.stdout.starts_with(b"kea-lfc ")
}

#[rstest]
#[case::a_program("OURS", Some("absent"), Some(OURS))]
#[case::internal("internal", Some(OURS), None)]
#[case::kea_2_2(KEAS, Some(OURS), None)]
#[case::absent("/absent/kea-lfc", Some(OURS), None)]
#[case::the_environment("", Some(OURS), Some(OURS))]
#[case::keas_in_the_environment("", Some(KEAS), None)]
fn the_connection_string_overrides_the_environment(
    #[case] keyword: &str,
    #[case] variable: Option<&str>,
    #[case] work: Option<&str>,
) {
    if (keyword == KEAS || variable == Some(KEAS)) && !(Path::new(KEAS).exists() && is_old(KEAS)) {
        eprintln!("skipped: {KEAS} is not Kea 2.2's");
        return;
    }
    let directory = Directory::new();
    let keyword = match keyword {
        "" => String::new(),
        "OURS" => format!("lfc-executable={OURS}"),
        program => format!("lfc-executable={program}"),
    };
    let connection = format!("type=memfile name={} lfc-interval=0 {keyword}", directory.path("f").display());
    let mut variables = vec![(CONNECTION, Path::new(&connection))];
    variables.extend(variable.map(|variable| ("KEA_LFC_EXECUTABLE", Path::new(variable))));
    assert!(start("connection", &directory, &variables).wait().unwrap().success());
    let work = work.map_or(CleanupWork::Thread, |program| CleanupWork::Program(program.into()));
    assert_eq!(directory.read("work"), format!("{work:?}"));
    assert_eq!(directory.leases::<Lease4>(), [Lease4::sample(1, 0)]);
}

/// A manager begins no cleanup while Kea's own program is run by hand.
#[test]
fn no_cleanup_begins_while_keas_program_is_running() {
    if !Path::new(KEAS).exists() {
        eprintln!("skipped: {KEAS} is not installed");
        return;
    }
    let directory = Directory::new();
    let leases = directory.open::<Lease4>(LfcProgram::Internal);
    add(&*leases, 0..10);
    // It has much to read, and is stopped meanwhile.
    let mut input = String::from(
        "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context\n",
    );
    for n in 0..200_000_u32 {
        let address = Ipv4Addr::from(0x0a10_0000 + n);
        input += &format!("{address},02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,\n");
    }
    fs::write(directory.path("f.1"), input).unwrap();
    let path = |name: &str| directory.path(name);
    let mut child = Command::new(KEAS)
        .args(["-4", "-c", "ignored-path", "-x"])
        .arg(path("f.2"))
        .arg("-i")
        .arg(path("f.1"))
        .arg("-o")
        .arg(path("f.output"))
        .arg("-f")
        .arg(path("f.completed"))
        .arg("-p")
        .arg(path("f.pid"))
        .env("KEA_LOCKFILE_DIR", "none")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    wait_until("its PID is in the PID file", || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before it was stopped");
        directory.read("f.pid").trim() == pid
    });
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    assert_eq!(leases.clean_up().unwrap(), CleanupStart::Running);
    assert!(cleanup(&*leases).last.is_none());
    drop(leases);
    match Memfile::<Lease4>::open(directory.options(LfcProgram::Internal)) {
        Err(error @ OpenError::CleanupRunning { .. }) => {
            let expected = format!("process {pid} of {}", directory.path("f.pid").display());
            assert!(error.to_string().contains(&expected), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // It is killed, and its PID stays in the file.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(directory.has("f.pid"));
    let leases = directory.open::<Lease4>(LfcProgram::Internal);
    assert_eq!(leases.all().unwrap().len(), 200_010);
    // Older files are cleaned up at once.
    assert_eq!(wait_for(&*leases, 1).failure, None);
}

/// A failing program logs the reason, and the report contains it.
#[rstest]
#[case::ours(OURS, "more than 100 invalid rows")]
fn the_report_of_a_failed_cleanup_has_the_reason_of_the_program(#[case] program: &str, #[case] reason: &str) {
    let directory = Directory::new();
    let leases = directory.open::<Lease4>(LfcProgram::Program(program.into()));
    add(&*leases, 0..10);
    let header = directory.read("f").lines().next().unwrap().to_owned();
    fs::write(directory.path("f.1"), format!("{header}\n{}", "bad\n".repeat(101))).unwrap();
    let failure = clean(&*leases).failure.unwrap();
    assert!(failure.starts_with(&format!("{program}: exit status: 1: kea-lfc: ")), "{failure}");
    assert!(failure.contains(reason) && failure.contains("f.1"), "{failure}");
}

/// After a reboot, the PID in the PID file may belong to another process.
#[test]
fn the_pid_of_another_process_in_the_pid_file_stops_no_manager() {
    let directory = Directory::new();
    fs::write(directory.path("f.pid"), "1\n").unwrap();
    let leases = directory.open::<Lease4>(LfcProgram::Program(OURS.into()));
    add(&*leases, 0..10);
    assert_eq!(clean(&*leases).failure, None);
    assert_eq!((rows(&directory, "f.2"), directory.leftovers()), (10, vec![]));
    // Also while a manager is running.
    fs::write(directory.path("f.pid"), format!("{}\n", std::process::id())).unwrap();
    assert_eq!(clean(&*leases).failure, None);
    assert_eq!(directory.leftovers(), [""; 0]);
}

#[test]
fn a_server_waits_for_the_cleanup_of_a_killed_server() {
    let directory = Directory::new();
    let waiting = format!("echo $$ > own; until [ -e go ]; do sleep 0.01; done; exec '{OURS}' \"$@\"");
    directory.program(&waiting);
    let mut server = start("killed", &directory, &[]);
    wait_until("the server is ready", || {
        assert!(server.try_wait().unwrap().is_none(), "it has ended");
        directory.has("ready")
    });
    server.kill().unwrap();
    server.wait().unwrap();
    let program: i32 = directory.read("own").trim().parse().unwrap();
    let open = || Memfile::<Lease4>::open(directory.options(LfcProgram::Internal));
    match open() {
        Err(OpenError::CleanupRunning { pid, .. }) => assert_eq!(pid, program),
        other => panic!("{other:?}"),
    }
    fs::write(directory.path("go"), "").unwrap();
    let mut opened = open();
    wait_until("the cleanup has ended", || {
        opened = open();
        opened.is_ok()
    });
    let expected: Vec<_> = (0..20).map(|n| Lease4::sample(n, 0)).collect();
    assert_eq!(opened.unwrap().all().unwrap(), expected);
    assert_eq!(directory.leftovers(), [""; 0]);
    assert_eq!((rows(&directory, "f.2"), rows(&directory, "f")), (10, 10));
}
