//! A file that replaces another keeps its owner, group and mode: otherwise a server of another user
//! could no longer read its leases.
//!
//! Most tests need root, as only root can change owners; otherwise they are skipped.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test, as the test itself does"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use leasemgr::Durability;
use leasemgr::LeaseMgr;
use leasemgr::WriteLeases;
use leasemgr::lease::{Family, HwAddr, Lease4, LeaseState, Lifetime};
use leasemgr::lease_file::LeaseFileSet;
use leasemgr::lfc::Cleanup;
use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions};
use rstest::rstest;

use support::{lease_file, oldest_lease_file, row};

/// Owner, group and permissions.
type Attributes = (u32, u32, u32);

const KEA: Attributes = (4321, 4322, 0o644);
const ADMIN: Attributes = (0, 4, 0o664);
const PRIVATE: Attributes = (4321, 0, 0o600);

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can change owners");
    }
    is_root
}

/// The files of a server, in a directory that all users can write to.
struct Place {
    directory: tempfile::TempDir,
    files: LeaseFileSet,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let files = LeaseFileSet::new(directory.path().join("leases.csv"));
        Self { directory, files }
    }

    fn put(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>, (owner, group, mode): Attributes) {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(group)).unwrap();
    }

    /// Runs the program with a umask that removes all permissions of others.
    fn command(&self, family: Family) -> Command {
        let files = self.files.lfc_files();
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kea-lfc")]);
        command.arg(if family == Family::V4 { "-4d" } else { "-6d" });
        for (option, path) in [
            ("-x", files.previous),
            ("-i", files.input),
            ("-o", files.output),
            ("-f", files.finish),
            ("-p", files.pid),
        ] {
            command.arg(option).arg(path);
        }
        command.args(["-c", "/dev/null"]);
        command
    }

    fn run(&self, family: Family, by_program: bool) {
        if by_program {
            let output = self.command(family).output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
        } else {
            Cleanup::new(family, self.files.lfc_files()).run().unwrap();
        }
    }

    /// Returns the names, contents and attributes of all files.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>, Attributes)> {
        let paths = self.directory.path().read_dir().unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            paths.map(|path| (path.clone(), fs::read(&path).unwrap(), attributes(&path))).collect();
        files.sort();
        files
    }

    fn open(&self, durability: Durability, program: LfcProgram) -> Memfile<Lease4> {
        Memfile::open(
            MemfileOptions::at(self.files.current_path().to_owned())
                .durability(durability)
                .lfc_interval(None)
                .lfc_program(program),
        )
        .unwrap()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn attributes(path: impl AsRef<Path>) -> Attributes {
    let metadata = fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()));
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

fn leases(family: Family, numbers: &[u32]) -> Vec<u8> {
    lease_file(family, &numbers.iter().map(|&n| row(family, n, 1, 3600)).collect::<Vec<_>>())
}

fn lease(n: u8) -> Lease4 {
    let client = HwAddr::new(&[2, 0, 0, 0, 0, n]).unwrap();
    let mut lease = Lease4::new([192, 0, 2, n].into(), Some(client), None, LeaseState::DEFAULT).unwrap();
    lease.data_mut().valid_lifetime = Lifetime(3600);
    lease
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(600), "timed out: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[rstest]
fn a_cleanup_gives_its_result_the_attributes_of_previous_or_else_of_input(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(false, true)] by_program: bool,
    #[values(
        (Some(KEA), Some(PRIVATE), KEA),
        (Some(PRIVATE), None, PRIVATE),
        (None, Some(ADMIN), ADMIN),
        (Some((4321, 4322, 0o6751)), Some(KEA), (4321, 4322, 0o751)),
    )]
    (previous, input, expected): (Option<Attributes>, Option<Attributes>, Attributes),
) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let files = place.files.lfc_files();
    for (path, of_file, numbers) in [(&files.previous, previous, [1, 2]), (&files.input, input, [2, 3])] {
        if let Some(of_file) = of_file {
            place.put(path, leases(family, &numbers), of_file);
        }
    }
    place.run(family, by_program);
    assert_eq!(attributes(&files.previous), expected);
    // Also for unsorted files, which are read in another way.
    place.put(&files.previous, leases(family, &[2, 1]), expected);
    place.run(family, by_program);
    assert_eq!(attributes(&files.previous).2, expected.2 & 0o777);
}

#[rstest]
fn without_any_file_the_result_is_for_the_owner_and_the_group(#[values(false, true)] by_program: bool) {
    let place = Place::new();
    place.run(Family::V4, by_program);
    let (_, _, mode) = attributes(place.files.previous_path());
    assert_eq!((mode & 0o600, mode & !0o640), (0o600, 0));
}

#[test]
fn a_stale_output_gets_the_attributes_of_previous() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.put(place.files.previous_path(), leases(Family::V4, &[1]), KEA);
    place.put(place.files.finish_path(), leases(Family::V4, &[1, 2]), (0, 0, 0o640));
    place.run(Family::V4, true);
    assert_eq!(attributes(place.files.previous_path()), KEA);
}

#[rstest]
fn invalid_rows_are_kept_with_the_attributes_of_input(#[values(false, true)] by_program: bool) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.put(place.files.input_path(), [leases(Family::V4, &[1]), b"what\n".to_vec()].concat(), ADMIN);
    place.put(place.files.previous_path(), leases(Family::V4, &[1]), KEA);
    place.run(Family::V4, by_program);
    assert_eq!(attributes(place.files.bad_path()), ADMIN);
    // Once the file exists, it keeps its own attributes.
    place.put(place.files.bad_path(), fs::read(place.files.bad_path()).unwrap(), PRIVATE);
    place.put(place.files.input_path(), [leases(Family::V4, &[1]), b"more\n".to_vec()].concat(), ADMIN);
    place.run(Family::V4, by_program);
    assert_eq!(attributes(place.files.bad_path()), PRIVATE);
}

#[rstest]
fn a_journal_keeps_its_attributes_through_rotations(
    #[values(Durability::Written, Durability::Synced, Durability::SyncedEvery(Duration::from_secs(1)))]
    durability: Durability,
    #[values(KEA, ADMIN, PRIVATE)] expected: Attributes,
    #[values(false, true)] by_program: bool,
) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let program = if by_program {
        LfcProgram::Program(env!("CARGO_BIN_EXE_kea-lfc").into())
    } else {
        LfcProgram::Internal
    };
    let journal = place.files.current_path();
    let manager = place.open(durability, program);
    place.put(journal, fs::read(journal).unwrap(), expected);
    for n in 1..4 {
        assert_eq!(manager.add(&lease(n)).unwrap(), leasemgr::Added::Added);
        manager.clean_up().unwrap();
        let ended = || manager.status().cleanup.is_some_and(|cleanup| cleanup.succeeded >= u64::from(n));
        wait_until("the cleanup", ended);
        assert_eq!(attributes(journal), expected);
    }
    drop(manager);
    assert_eq!(attributes(journal), expected);
    assert_eq!(attributes(place.files.previous_path()), expected);
}

#[test]
fn a_removed_journal_is_restored_with_its_attributes() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let manager = place.open(Durability::Written, LfcProgram::Internal);
    let journal = place.files.current_path();
    place.put(journal, fs::read(journal).unwrap(), ADMIN);
    assert_eq!(manager.add(&lease(1)).unwrap(), leasemgr::Added::Added);
    fs::remove_file(journal).unwrap();
    manager.flush().unwrap();
    wait_until("rewriting the journal", || journal.exists());
    assert_eq!(attributes(journal), ADMIN);
    // So does a file that another process has modified and that is rewritten.
    fs::write(journal, "").unwrap();
    manager.flush().unwrap();
    wait_until("rewriting the journal", || fs::metadata(journal).unwrap().len() > 0);
    assert_eq!(attributes(journal), ADMIN);
}

#[rstest]
#[case::another_file("all.csv")]
#[case::its_own_file("leases.csv")]
fn a_file_that_all_leases_are_written_to_keeps_its_attributes(#[case] name: &str) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let manager = place.open(Durability::Written, LfcProgram::Internal);
    assert_eq!(manager.add(&lease(1)).unwrap(), leasemgr::Added::Added);
    let path = place.directory.path().join(name);
    if !path.exists() {
        fs::write(&path, "").unwrap();
    }
    place.put(&path, fs::read(&path).unwrap(), KEA);
    manager.write_to(&path).unwrap();
    assert_eq!(attributes(&path), KEA);
}

#[test]
fn a_journal_of_an_older_schema_keeps_its_attributes() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.put(
        place.files.current_path(),
        oldest_lease_file(Family::V4, &[row(Family::V4, 1, 1, 3600)]),
        ADMIN,
    );
    let manager = place.open(Durability::Written, LfcProgram::Internal);
    assert_eq!(manager.add(&lease(1)).unwrap(), leasemgr::Added::Added);
    assert_eq!(attributes(place.files.current_path()), ADMIN);
    wait_until("the conversion", || {
        place.files.previous_path().exists() && !place.files.input_path().exists()
    });
    drop(manager);
    assert_eq!(attributes(place.files.previous_path()), ADMIN);
    assert_eq!(attributes(place.files.current_path()), ADMIN);
}

/// Files of user 4321, cleaned up by user 5555.
#[rstest]
#[case::all_users_can_read(0o644, 5555, Some((5555, 5555, 0o644)))]
#[case::the_group_can_read_but_not_that_user(0o640, 5555, None)]
#[case::another_group(0o666, 4322, Some((5555, 5555, 0o666)))]
fn a_cleanup_by_another_user_fails_if_the_owner_would_lose_access(
    #[case] mode: u32,
    #[case] group: u32,
    #[case] expected: Option<Attributes>,
    #[values(false, true)] with_previous: bool,
) {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.put(place.files.input_path(), leases(Family::V4, &[1]), (4321, group, mode));
    if with_previous {
        place.put(place.files.previous_path(), leases(Family::V4, &[2]), (4321, group, mode));
    }
    let before = place.contents();
    let output = place.command(Family::V4).uid(5555).gid(5555).output().unwrap();
    match expected {
        Some(expected) => {
            assert!(output.status.success(), "{}", text(&output));
            assert_eq!(attributes(place.files.previous_path()), expected);
        }
        None => {
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            let log = text(&output);
            let reason = "user 4321 owns the file to be replaced and could not read the new one";
            assert!(log.contains("LFC_FAIL_PROCESS") && log.contains(reason), "{log}");
            assert_eq!(place.contents(), before);
        }
    }
}

/// A running `kea-dhcp4`.
struct KeaServer {
    process: Child,
    socket: PathBuf,
}

impl KeaServer {
    fn start(directory: &Path, lease_file: &Path, user: (u32, u32)) -> Self {
        let socket = directory.join("control");
        let config = directory.join("kea-dhcp4.conf");
        let text = format!(
            r#"{{ "Dhcp4": {{
                "interfaces-config": {{ "interfaces": [] }},
                "control-socket": {{ "socket-type": "unix", "socket-name": "{}" }},
                "lease-database": {{ "type": "memfile", "name": "{}", "lfc-interval": 0 }},
                "subnet4": [ {{ "id": 1, "subnet": "10.0.0.0/8", "pools": [ {{ "pool": "10.0.0.1-10.1.0.0" }} ] }} ],
                "loggers": [ {{ "name": "kea-dhcp4", "severity": "INFO",
                                "output_options": [ {{ "output": "stdout" }} ] }} ]
            }} }}"#,
            socket.display(),
            lease_file.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let process = Command::new("/usr/sbin/kea-dhcp4")
            .args(["-p", "20067", "-c"])
            .arg(&config)
            .env("KEA_LOCKFILE_DIR", "none")
            .env("KEA_PIDFILE_DIR", directory)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .uid(user.0)
            .gid(user.1)
            .spawn()
            .unwrap();
        let server = Self { process, socket };
        wait_until("the start of kea-dhcp4", || UnixStream::connect(&server.socket).is_ok());
        server
    }

    fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(command.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for KeaServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the uid and gid of a user.
fn user(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<_> = line.split(':').collect();
    Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
}

#[rstest]
fn a_kea_server_of_another_user_reads_files_cleaned_up_by_root(
    #[values(0o644, 0o640, 0o600)] mode: u32,
    #[values(false, true)] with_previous: bool,
) {
    let Some((owner, group)) = user("_kea") else {
        eprintln!("skipped: the user _kea does not exist");
        return;
    };
    if !is_root() || !Path::new("/usr/sbin/kea-dhcp4").exists() {
        eprintln!("skipped: kea-dhcp4 is not installed");
        return;
    }
    let place = Place::new();
    chown(place.directory.path(), Some(owner), Some(group)).unwrap();
    place.put(place.files.input_path(), leases(Family::V4, &[1, 2, 3, 4, 5]), (owner, group, mode));
    if with_previous {
        place.put(place.files.previous_path(), leases(Family::V4, &[6, 7]), (owner, group, mode));
    }
    place.run(Family::V4, true);
    assert_eq!(attributes(place.files.previous_path()), (owner, group, mode));
    let server = KeaServer::start(place.directory.path(), place.files.current_path(), (owner, group));
    let name = "subnet[1].assigned-addresses";
    let ask = format!(r#"{{ "command": "statistic-get", "arguments": {{ "name": "{name}" }} }}"#);
    let answer = server.ask(&ask);
    let count = if with_previous { 7 } else { 5 };
    let log = fs::read_to_string(place.directory.path().join("log")).unwrap();
    assert!(answer.contains(&format!("[ [ {count}, ")), "{answer}\n{log}");
}
