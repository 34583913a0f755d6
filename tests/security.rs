//! Attacks by other users: symbolic links in place of files, names that leave the directory or
//! contain shell syntax, and disclosure of passwords. See SECURITY.md.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasemgr::WriteLeases;
use leasemgr::connection::ConnectionString;
use leasemgr::lease::{Family, HwAddr, Lease4, LeaseState, Lifetime};
use leasemgr::lease_file::{LeaseFileSet, Writer};
use leasemgr::lfc::{Cleanup, Outcome};
use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions};
use leasemgr::{Added, CleanupReport, CleanupStatus, LeaseMgr, LeaseMgrFactory};
use leasemgr::{LeaseMgrOpener, OpenerError};
use rstest::rstest;
use support::logs::Logs;
use tempfile::TempDir;

const HEADER: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n";

/// Another user.
const OTHER_USER: u32 = 65534;

fn row(n: u8) -> String {
    format!("192.0.2.{n},02:00:00:00:00:{n:02x},,3600,1790003600,1,0,0,,0,,0\n")
}

fn lease(n: u8) -> Lease4 {
    let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, n]).unwrap();
    let mut lease = Lease4::new([192, 0, 2, n].into(), Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
    lease.data_mut().valid_lifetime = Lifetime(3600);
    lease
}

/// A directory with the lease files of a server, and another one with a file that must not be
/// touched.
struct Place {
    directory: TempDir,
    other: TempDir,
    files: LeaseFileSet,
}

impl Place {
    fn new() -> Self {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = LeaseFileSet::new(directory.path().join("leases.csv"));
        fs::write(files.previous_path(), [HEADER, &row(1)].concat()).unwrap();
        fs::write(files.input_path(), [HEADER, &row(2)].concat()).unwrap();
        fs::write(files.current_path(), [HEADER, &row(3)].concat()).unwrap();
        Self { directory, other, files }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("leases.csv{suffix}"))
    }

    fn target(&self) -> PathBuf {
        self.other.path().join("target")
    }

    /// Replaces a file by a symbolic link to the target. Returns `false` if the link cannot be
    /// given to another user, which needs root.
    fn plant(&self, suffix: &str, owner: u32) -> bool {
        let path = self.file(suffix);
        let _ = fs::remove_file(&path);
        symlink(self.target(), &path).unwrap();
        let planted = lchown(&path, Some(owner), None).is_ok();
        if !planted {
            eprintln!("skipped: only root can make links of other users");
        }
        planted
    }

    fn open(&self) -> Result<Memfile<Lease4>, leasemgr::memfile::OpenError> {
        Memfile::open(
            MemfileOptions::at(self.files.current_path().to_owned())
                .lfc_program(LfcProgram::Internal)
                .lfc_interval(None),
        )
    }

    fn addresses(&self) -> Vec<u8> {
        let set = self.files.read::<Lease4>().unwrap();
        set.leases.keys().map(|address| address.octets()[3]).collect()
    }
}

fn add(leases: &impl LeaseMgr<Lease4>, n: u8) {
    assert_eq!(leases.add(&lease(n)).unwrap(), Added::Added);
}

/// Cleans up, and waits until the cleanup has ended.
fn clean_up(leases: &impl LeaseMgr<Lease4>) -> CleanupReport {
    let ended = |status: &CleanupStatus| status.succeeded + status.failed;
    let before = ended(&leases.status().cleanup.unwrap());
    leases.clean_up().unwrap();
    let start = Instant::now();
    loop {
        let status = leases.status().cleanup.unwrap();
        if ended(&status) > before {
            return status.last.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(600), "no cleanup has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The target of a link: a valid lease file, so that only the link is wrong, or a missing file.
const TARGETS: [Option<&str>; 2] = [Some(HEADER), None];

#[rstest]
#[case::previous(".2", "leases.csv.2: cannot open: a symbolic link of user 65534, which is not followed")]
#[case::input(".1", "leases.csv.1: cannot open: a symbolic link of user 65534, which is not followed")]
#[case::finish(
    ".completed",
    "leases.csv.completed: cannot open: a symbolic link of user 65534, which is not followed"
)]
#[case::pid(".pid", "leases.csv.pid: a symbolic link of user 65534, which is not followed")]
#[case::pid_lock(".pid.lock", "leases.csv.pid.lock: not a regular file")]
#[case::pid_running(".pid.running", "leases.csv.pid.running: not a regular file")]
#[case::output(".output", "")]
fn a_cleanup_follows_no_planted_link(#[case] suffix: &str, #[case] problem: &str) {
    for target in TARGETS {
        let place = Place::new();
        target.inspect(|text| fs::write(place.target(), text).unwrap());
        if !place.plant(suffix, OTHER_USER) {
            return;
        }
        let result = Cleanup::new(Family::V4, place.files.lfc_files()).run();
        match result {
            Ok(outcome) => {
                assert_eq!(problem, "");
                assert!(matches!(outcome, Outcome::Cleaned { .. }));
                assert_eq!(place.addresses(), [1, 2, 3]);
                assert!(fs::symlink_metadata(place.files.previous_path()).unwrap().is_file());
            }
            Err(error) => {
                let error = leasemgr::with_sources(&error).to_string();
                assert!(!problem.is_empty() && error.ends_with(problem), "{error}");
                assert!(fs::symlink_metadata(place.file(suffix)).unwrap().is_symlink());
            }
        }
        assert_eq!(fs::read_to_string(place.target()).ok().as_deref(), target);
    }
}

#[rstest]
#[case::current("", "leases.csv: cannot open: a symbolic link of user 65534, which is not followed")]
#[case::previous(".2", "leases.csv.2: cannot open: a symbolic link of user 65534, which is not followed")]
#[case::input(".1", "leases.csv.1: cannot open: a symbolic link of user 65534, which is not followed")]
#[case::finish(
    ".completed",
    "leases.csv.completed: cannot open: a symbolic link of user 65534, which is not followed"
)]
#[case::lock(".lock", "leases.csv.lock: cannot lock: not a regular file")]
#[case::pid(
    ".pid",
    "leases.csv.pid: cannot read the PID file: a symbolic link of user 65534, which is not followed"
)]
#[case::pid_lock(".pid.lock", "leases.csv.pid.lock: cannot lock: not a regular file")]
#[case::pid_running(".pid.running", "leases.csv.pid.running: cannot lock: not a regular file")]
fn a_lease_manager_follows_no_planted_link(#[case] suffix: &str, #[case] problem: &str) {
    for target in TARGETS {
        let place = Place::new();
        target.inspect(|text| fs::write(place.target(), text).unwrap());
        if !place.plant(suffix, OTHER_USER) {
            return;
        }
        let error = leasemgr::with_sources(&place.open().unwrap_err()).to_string();
        assert!(error.ends_with(problem), "{error}");
        assert_eq!(fs::read_to_string(place.target()).ok().as_deref(), target);
    }
}

#[test]
fn a_rotation_follows_no_planted_link() {
    let place = Place::new();
    for old in [place.files.previous_path(), place.files.input_path()] {
        fs::remove_file(old).unwrap();
    }
    let leases = place.open().unwrap();
    fs::write(place.target(), HEADER).unwrap();
    if !place.plant(".output", OTHER_USER) || !place.plant(".1", OTHER_USER) {
        return;
    }
    let failure = clean_up(&leases).failure.unwrap();
    assert!(failure.ends_with("a symbolic link of user 65534, which is not followed"), "{failure}");
    add(&leases, 4);
    drop(leases);
    assert_eq!(fs::read_to_string(place.target()).unwrap(), HEADER);
    fs::remove_file(place.file(".1")).unwrap();
    assert_eq!(place.addresses(), [3, 4]);
}

#[rstest]
#[case::the_file("")]
#[case::the_temporary_file(".part")]
fn writing_all_leases_replaces_a_planted_link(#[case] suffix: &str) {
    for target in TARGETS {
        let place = Place::new();
        let leases = place.open().unwrap();
        target.inspect(|text| fs::write(place.target(), text).unwrap());
        if !place.plant(&format!(".all{suffix}"), OTHER_USER) {
            return;
        }
        assert_eq!(leases.write_to(&place.file(".all")).unwrap(), 3);
        assert_eq!(fs::read_to_string(place.target()).ok().as_deref(), target);
        assert!(fs::symlink_metadata(place.file(".all")).unwrap().is_file());
    }
}

#[test]
fn a_writer_follows_no_planted_link() {
    for target in TARGETS {
        let place = Place::new();
        target.inspect(|text| fs::write(place.target(), text).unwrap());
        if !place.plant("", OTHER_USER) {
            return;
        }
        let error = leasemgr::with_sources(
            &Writer::<Lease4, _>::open(place.files.current_path()).map(drop).unwrap_err(),
        )
        .to_string();
        assert!(error.ends_with("a symbolic link of user 65534, which is not followed"), "{error}");
        assert_eq!(fs::read_to_string(place.target()).ok().as_deref(), target);
    }
}

#[test]
fn a_link_of_the_same_user_to_a_file_is_followed() {
    let place = Place::new();
    let own = fs::metadata(place.directory.path()).unwrap().uid();
    fs::rename(place.files.current_path(), place.target()).unwrap();
    assert!(place.plant("", own));
    let leases = place.open().unwrap();
    add(&leases, 4);
    assert!(fs::read_to_string(place.target()).unwrap().contains("192.0.2.4,"));
    // The link is kept, whatever replaces its target.
    assert_eq!(clean_up(&leases).failure, None);
    add(&leases, 5);
    assert_eq!(clean_up(&leases).failure, None);
    add(&leases, 6);
    drop(leases);
    assert_eq!(place.addresses(), [1, 2, 3, 4, 5, 6]);
    assert!(place.files.current_path().is_symlink() && place.target().is_file());

    // A missing target is created, as after a boot.
    let place = Place::new();
    let own = fs::metadata(place.directory.path()).unwrap().uid();
    let _ = fs::remove_file(place.files.current_path());
    assert!(place.plant("", own));
    let leases = place.open().unwrap();
    add(&leases, 4);
    assert!(fs::read_to_string(place.target()).unwrap().contains("192.0.2.4,"));
}

#[test]
fn the_directory_of_the_lease_files_may_be_a_link() {
    let place = Place::new();
    let link = place.other.path().join("link");
    symlink(place.directory.path(), &link).unwrap();
    let file = link.join("leases.csv");
    let options = MemfileOptions::at(file).lfc_program(LfcProgram::Internal);
    let leases = Memfile::<Lease4>::open(options).unwrap();
    add(&leases, 4);
    assert_eq!(clean_up(&leases).failure, None);
    drop(leases);
    assert_eq!(place.addresses(), [1, 2, 3, 4]);
}

#[rstest]
fn files_that_are_not_regular_are_not_opened(
    #[values("", ".1", ".2", ".completed", ".lock", ".pid", ".pid.lock", ".pid.running")] suffix: &str,
) {
    let place = Place::new();
    let _ = fs::remove_file(place.file(suffix));
    // Opening a FIFO would wait for a writer.
    let made = std::process::Command::new("mkfifo").arg(place.file(suffix)).status().unwrap();
    assert!(made.success());
    let error = leasemgr::with_sources(&place.open().unwrap_err()).to_string();
    assert!(error.ends_with("not a regular file"), "{error}");
}

/// Creates a program that writes its arguments, one on each line, and the modes of the lease files
/// to files beside it.
fn recording_program(directory: &Path) -> PathBuf {
    let program = directory.join("recording_program; $(touch pwned)");
    let script =
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$0.args\"\nstat -c '%a %n' \"${3%/*}\"/*.csv* > \"$0.modes\"\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn a_name_full_of_shell_characters_is_one_argument_of_the_program() {
    let place = Place::new();
    let directory =
        place.directory.path().join("a $(touch pwned) `touch pwned` ; touch pwned & 'b' \"c\" * \\ -d | >d");
    fs::create_dir(&directory).unwrap();
    let program = recording_program(place.other.path());
    let file = directory.join("leases.csv");
    let options =
        MemfileOptions::at(file.clone()).lfc_program(LfcProgram::Program(program.clone())).lfc_interval(None);
    let leases = Memfile::<Lease4>::open(options).unwrap();
    add(&leases, 1);
    let report = clean_up(&leases);
    assert!(report.failure.is_some(), "the program does not clean up anything");

    let beside = |suffix: &str| fs::read_to_string(format!("{}{suffix}", program.display())).unwrap();
    let at = |suffix: &str| format!("{}{suffix}", file.display());
    let expected = [
        ["-4".to_owned(), "-x".to_owned()],
        [at(".2"), "-i".to_owned()],
        [at(".1"), "-o".to_owned()],
        [at(".output"), "-f".to_owned()],
        [at(".completed"), "-p".to_owned()],
        [at(".pid"), "-c".to_owned()],
    ];
    let mut expected = expected.concat();
    expected.push("ignored-path".to_owned());
    assert_eq!(beside(".args").lines().collect::<Vec<_>>(), expected);
    for directory in [Path::new("."), place.directory.path(), &directory, place.other.path()] {
        assert!(!directory.join("pwned").exists());
    }
}

#[test]
fn files_are_not_readable_by_others() {
    let place = Place::new();
    let directory = place.directory.path().join("new");
    fs::create_dir(&directory).unwrap();
    let program = recording_program(place.other.path());
    let options = |lfc_program| {
        MemfileOptions::at(directory.join("leases.csv")).lfc_program(lfc_program).lfc_interval(None)
    };
    let leases = Memfile::<Lease4>::open(options(LfcProgram::Program(program.clone()))).unwrap();
    add(&leases, 1);
    clean_up(&leases);
    drop(leases);
    let modes = fs::read_to_string(format!("{}.modes", program.display())).unwrap();
    let mode_of = |suffix: &str| {
        let name = format!("{}/leases.csv{suffix}", directory.display());
        let line = modes.lines().find(|line| line.ends_with(&format!(" {name}")));
        let mode = line.and_then(|line| line.split_once(' ')).map(|(mode, _)| mode);
        u32::from_str_radix(mode.unwrap_or_else(|| panic!("no {name} in {modes}")), 8).unwrap()
    };
    for (suffix, mode) in [("", 0o640), (".1", 0o640), (".lock", 0o600)] {
        // The umask may remove more permissions.
        assert_eq!(mode_of(suffix) & !mode, 0, "{suffix}: {modes}");
        assert_eq!(mode_of(suffix) & 0o600, 0o600, "{suffix}: {modes}");
    }

    let leases = Memfile::<Lease4>::open(options(LfcProgram::Internal)).unwrap();
    assert_eq!(clean_up(&leases).failure, None);
    leases.write_to(&directory.join("all")).unwrap();
    drop(leases);
    let names = ["leases.csv", "leases.csv.2", "all"];
    let mut found: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert_eq!(found, ["all", "leases.csv", "leases.csv.2"].map(|name| directory.join(name)));
    for name in names {
        let mode = fs::metadata(directory.join(name)).unwrap().mode();
        assert_eq!(mode & 0o777 & !0o640, 0, "{name}: {mode:o}");
    }
}

#[test]
fn the_lease_file_stays_in_the_data_directory() {
    let place = Place::new();
    let (inside, outside) = (place.directory.path(), place.other.path());
    let factory = LeaseMgrFactory::<Lease4>::new();
    let open = |name: &str| {
        factory.open(&format!("type=memfile data-directory={} name={name}", inside.display())).map(drop)
    };
    open("a.csv").unwrap();
    assert!(inside.join("a.csv").exists());
    open(&format!("{}/b.csv", inside.display())).unwrap();
    assert!(inside.join("b.csv").exists());
    let outside_name = outside.file_name().unwrap().to_str().unwrap();
    for name in [format!("{}/c.csv", outside.display()), format!("../{outside_name}/c.csv")] {
        let error = leasemgr::with_sources(&open(&name).unwrap_err()).to_string();
        let expected = format!(
            "the connection string is invalid: name is {name:?}, expected a file in the data directory {inside:?}"
        );
        assert_eq!(error, expected);
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

/// A backend for a database that does not exist.
struct Database;

impl LeaseMgrOpener<Lease4> for Database {
    fn name(&self) -> &'static str {
        "mysql"
    }
    fn version(&self) -> String {
        "1".to_owned()
    }
    fn keywords(&self) -> &[&str] {
        &["name", "host", "port", "user", "password", "password-file", "readonly", "my-passphrase"]
    }
    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<Lease4>>, OpenerError> {
        connection.number("port", 1..=65535)?;
        connection.flag("readonly")?;
        match connection.get("host") {
            Some("away") => Err(format!("{connection}: no answer").into()),
            Some("denied") => Err(connection.bad_value("password", "the right one").into()),
            Some("phrase") => Err(connection.bad_value("my-passphrase", "the right one").into()),
            _ => Ok(Arc::new(Memfile::open(MemfileOptions::default())?)),
        }
    }
}

#[test]
fn no_password_is_in_any_log_error_or_debug_output() {
    const SECRETS: [&str; 3] = ["hunter2", "correct", "horse"];
    let logs = Logs::default();
    let mut shown = String::new();
    let tries = [
        "password=hunter2 host=db",
        "password='correct horse' host=db",
        "password='correct horse' host=away",
        "password=hunter2 host=denied",
        "my-passphrase=hunter2 host=phrase",
        "name=kea user=kea password=hunter2 host=/absent",
        "password=hunter2 port=x",
        "password=hunter2 readonly=perhaps",
        "password=hunter2 universe=6",
        "password=hunter2 nonsense=1",
        "password=hunter2 persist=true",
        "password=hunter2 password=correct",
        "password=correct horse host=db",
        "password='correct horse",
        "password='correct 'horse",
        "password = hunter2",
        "password:hunter2",
        "passwd=hunter2",
        "PASSWORD=hunter2",
        "pasword=hunter2",
        "pwd=hunter2 host=db",
        "password=hunter2\u{7}",
    ];
    logs.of(|| {
        let factory = LeaseMgrFactory::<Lease4>::new();
        let mut opened = 0;
        for registered in [false, true] {
            if registered {
                // In the place of the real one, if its feature is on.
                factory.deregister("mysql");
                factory.register(Arc::new(Database)).unwrap();
            }
            for kind in ["mysql", "postgresql", "memfile", "oracle", "", "hunter2"] {
                // The type is not secret; an unknown one is shown.
                let kind =
                    if kind == "hunter2" { "password=hunter2 type=mysql" } else { &format!("type={kind}") };
                for connection in tries.map(|rest| format!("{kind} {rest}")) {
                    for result in [factory.open(&connection).map(drop), factory.create(&connection)] {
                        match result {
                            Ok(()) => opened += 1,
                            Err(error) => {
                                writeln!(shown, "{} {error:?} {error:#?}", leasemgr::with_sources(&error))
                                    .unwrap();
                                let mut source = error.source();
                                while let Some(error) = source {
                                    writeln!(shown, "{} {error:?}", leasemgr::with_sources(&error)).unwrap();
                                    source = error.source();
                                }
                            }
                        }
                    }
                    if factory.have_instance() {
                        factory.recreate(false).unwrap();
                    }
                    writeln!(shown, "{factory:?}").unwrap();
                    if let Ok(parsed) = connection.parse::<ConnectionString>() {
                        writeln!(shown, "{parsed} {parsed:?} {parsed:#?}").unwrap();
                    }
                    factory.destroy();
                }
            }
        }
        assert!(opened > 0);
    });
    let logged = logs.lines().join("\n");
    assert!(logged.contains("DHCPSRV_LEASE_MGR_OPENED") && logged.contains("password=*****"), "{logged}");
    assert!(shown.contains("password is \"*****\"") && shown.contains("no answer"), "{shown}");
    for line in logged.lines().chain(shown.lines()) {
        assert!(!SECRETS.iter().any(|secret| line.contains(secret)), "{line}");
    }
}
