use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rstest::rstest;

use super::*;
use crate::fs::{OsFileSystem, ProcessLock, ReadFile, WriteFile};
use crate::lease::{Lease4, Lease6};
use crate::lease_file::FileLease;
use crate::lease_mgr::{CleanupRows, CleanupWork, Durability};
use crate::lfc::{Cleanup, Outcome, RunningCleanup};

/// The work of a program without faults.
const CLEAN: &str = "mv -f f.1 f.2";

/// The answer of a program about its version: it writes files of the current version.
const VERSION: &str = r#"case "$*" in *-V) echo kea-lfc 1; echo lease files: DHCPv4 schema 3.0, DHCPv6 schema 5.0; exit;; esac"#;

fn header<L: FileLease>() -> &'static str {
    L::SCHEMA.header
}

fn row(n: u8) -> String {
    format!("192.0.2.{n},02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,,0\n")
}

/// Returns the contents of a file with these leases.
fn file(rows: &[u8]) -> String {
    let rows: String = rows.iter().copied().map(row).collect();
    format!("{}\n{rows}", header::<Lease4>())
}

/// A directory with the lease file `f`.
struct Setup {
    directory: tempfile::TempDir,
    fs: Arc<FaultyFileSystem>,
    journal: Arc<Journal>,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fs = Arc::new(FaultyFileSystem::default());
        let path = directory.path().join("f");
        let header = header::<Lease4>();
        let journal = Journal::open(Arc::clone(&fs) as _, path, header, Durability::Written).unwrap();
        Self { directory, fs, journal: Arc::new(journal) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Adds leases to the journal.
    fn append(&self, rows: &[u8]) {
        let rows: String = rows.iter().copied().map(row).collect();
        self.journal.append(rows.as_bytes()).unwrap();
    }

    /// Writes a program that runs a script in the directory.
    ///
    /// Another process writes it: a child of another test that has not executed its program yet
    /// would still have the file open for writing, and the kernel does not run such a file.
    fn program(&self, script: &str) -> LfcProgram {
        let path = self.path("program");
        let text =
            format!("#!/bin/sh\n{VERSION}\ncd '{}' || exit 9\n{script}\n", self.directory.path().display());
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
        assert!(status.success());
        LfcProgram::Program(path)
    }

    /// Returns the running cleanup, as other processes see it.
    fn running(&self) -> Option<RunningCleanup> {
        PidLock::take(&OsFileSystem, &self.path("f.pid")).unwrap().running().unwrap()
    }

    /// Starts another process that is cleaning up these files, according to its name and the PID
    /// file.
    fn other_cleanup(&self) -> OtherCleanup {
        let path = self.path("kea-lfc");
        assert!(Command::new("cp").arg("/bin/sleep").arg(&path).status().unwrap().success());
        let child = Command::new(&path).arg("1000").spawn().unwrap();
        std::fs::remove_file(path).unwrap();
        self.write("f.pid", format!("{}\n", child.id()));
        OtherCleanup(child)
    }

    fn config(&self, program: LfcProgram) -> CleanerConfig {
        CleanerConfig {
            family: Family::V4,
            files: LeaseFileSet::new(self.path("f")),
            fs: Arc::clone(&self.fs) as _,
            program,
            interval: None,
            at_once: false,
            watch: Watch(Box::new(|| ())),
        }
    }

    fn start(&self, config: CleanerConfig) -> Cleaner {
        Cleaner::start(config, Arc::clone(&self.journal)).unwrap()
    }

    /// Starts a cleaner that uses this program on request.
    fn cleaner(&self, program: LfcProgram) -> Cleaner {
        self.start(self.config(program))
    }
}

/// A process with the name of a cleanup program.
struct OtherCleanup(Child);

impl Drop for OtherCleanup {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The file system of the operating system, with faults.
#[derive(Debug, Default)]
struct FaultyFileSystem {
    /// Whether renaming fails.
    refuse_rename: AtomicBool,
    /// Whether creating a new lease file fails.
    refuse_new: AtomicBool,
    panic: AtomicBool,
    /// Whether locks for other processes are unsupported.
    no_process_locks: AtomicBool,
    /// Whether creating the output file blocks, and whether it is blocked now.
    block: AtomicBool,
    is_blocked: AtomicBool,
    /// The priority of the thread that created the output file.
    priority: AtomicI32,
}

impl FaultyFileSystem {
    fn check(flag: &AtomicBool) -> io::Result<()> {
        if flag.load(Ordering::SeqCst) { Err(io::Error::other("refused")) } else { Ok(()) }
    }
}

impl FileSystem for FaultyFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        OsFileSystem.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if path.ends_with("f.next") {
            Self::check(&self.refuse_new)?;
        }
        if path.extension() == Some("output".as_ref()) {
            assert!(!self.panic.load(Ordering::SeqCst), "injected panic");
            self.priority.store(rustix::process::nice(0).unwrap(), Ordering::SeqCst);
            self.is_blocked.store(true, Ordering::SeqCst);
            wait_until("creating the output is allowed", || !self.block.load(Ordering::SeqCst));
            self.is_blocked.store(false, Ordering::SeqCst);
        }
        OsFileSystem.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Self::check(&self.refuse_rename)?;
        OsFileSystem.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Self::check(&self.refuse_rename)?;
        OsFileSystem.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.remove(path)
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.sync_file(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        OsFileSystem.sync_directory(directory)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        OsFileSystem.lock(path)
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        OsFileSystem.open_write(path)
    }
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        OsFileSystem.open_append(path)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        OsFileSystem.try_lock(path)
    }
    fn try_lock_for_process(&self, path: &Path) -> io::Result<Option<ProcessLock>> {
        if self.no_process_locks.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        OsFileSystem.try_lock_for_process(path)
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(600), "timeout: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Cleaner {
    fn wait_for(&self, count: u64) -> CleanupStatus {
        wait_until("cleanups have ended", || self.status().succeeded + self.status().failed >= count);
        self.status()
    }

    /// Requests a cleanup, and waits for its end.
    fn clean(&self) -> CleanupReport {
        let before = self.status();
        assert_eq!(self.request(), CleanupStart::Requested);
        self.wait_for(before.succeeded + before.failed + 1).last.unwrap()
    }

    #[track_caller]
    fn assert_fails(&self, reason: &str) -> CleanupReport {
        let before = self.status();
        let report = self.clean();
        let failure = report.failure.clone().unwrap();
        assert!(failure.contains(reason), "{failure:?} does not say {reason:?}");
        assert_eq!((self.status().succeeded, self.status().failed), (before.succeeded, before.failed + 1));
        report
    }

    #[track_caller]
    fn assert_succeeds(&self) -> CleanupReport {
        let before = self.status();
        let report = self.clean();
        assert_eq!(report.failure, None);
        assert_eq!((self.status().succeeded, self.status().failed), (before.succeeded + 1, before.failed));
        report
    }
}

/// Returns whether the process exists and has not ended.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

// Schedule

#[test]
fn without_an_interval_cleanups_run_only_on_request() {
    for interval in [None, Some(Duration::ZERO)] {
        let setup = Setup::new();
        let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
        let status = cleaner.status();
        assert!(!status.running && status.last.is_none() && status.next.is_none());
        cleaner.assert_succeeds();
        assert!(cleaner.status().next.is_none());
    }
}

#[test]
fn with_an_interval_cleanups_follow_each_other() {
    let setup = Setup::new();
    let interval = Some(Duration::from_millis(5));
    let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
    let status = cleaner.wait_for(3);
    assert_eq!(status.failed, 0);
}

#[test]
fn the_next_cleanup_is_due_an_interval_after_the_last_one_began() {
    let setup = Setup::new();
    let hour = Duration::from_secs(3600);
    let before = SystemTime::now();
    let interval = Some(hour);
    let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
    let first = cleaner.status().next.unwrap();
    assert!(before + hour <= first && first <= SystemTime::now() + hour);
    let report = cleaner.assert_succeeds();
    let second = cleaner.status().next.unwrap();
    assert!(second > first);
    // The two times come from different clocks.
    let slack = Duration::from_secs(60);
    assert!(report.started + hour < second + slack && second <= SystemTime::now() + hour);
}

#[test]
fn a_cleanup_longer_than_the_interval_is_followed_by_another_at_once() {
    let setup = Setup::new();
    let interval = Some(Duration::from_secs(3600));
    let program = setup.program(&format!("until [ -e go ]; do sleep 0.01; done; {CLEAN}"));
    let cleaner = setup.start(CleanerConfig { interval, ..setup.config(program) });
    cleaner.request();
    wait_until("it runs", || cleaner.status().running);
    // As if the interval had passed.
    cleaner.shared.state.lock().due = Some(Instant::now());
    setup.write("go", "");
    let status = cleaner.wait_for(2);
    assert_eq!((status.succeeded, status.failed), (2, 0));
    assert!(status.next.unwrap() > SystemTime::now() + Duration::from_secs(1800));
}

#[test]
fn an_interval_beyond_the_clock_disables_cleanups() {
    let setup = Setup::new();
    let interval = Some(Duration::MAX);
    let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
    cleaner.assert_succeeds();
    assert!(cleaner.status().next.is_none());
}

#[test]
fn the_first_cleanup_can_run_at_the_start() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.start(CleanerConfig { at_once: true, ..setup.config(LfcProgram::Internal) });
    assert_eq!(cleaner.wait_for(1).succeeded, 1);
    assert_eq!(setup.read("f.2"), file(&[1]));
}

#[test]
fn a_request_during_a_cleanup_is_rejected() {
    let setup = Setup::new();
    let cleaner = setup.cleaner(setup.program(&format!("until [ -e go ]; do sleep 0.01; done; {CLEAN}")));
    assert_eq!(cleaner.request(), CleanupStart::Requested);
    wait_until("it runs", || cleaner.status().running);
    assert_eq!(cleaner.request(), CleanupStart::Running);
    setup.write("go", "");
    cleaner.wait_for(1);
    assert!(!cleaner.status().running);
    cleaner.assert_succeeds();
}

// Cleanups in this process

#[test]
fn an_internal_cleanup_counts_rows() {
    let setup = Setup::new();
    setup.write("f.2", file(&[1, 2]));
    setup.append(&[2, 3, 3]);
    let before = (file(&[1, 2]).len() + file(&[2, 3, 3]).len()) as u64;
    let cleaner = setup.cleaner(LfcProgram::Internal);
    let report = cleaner.assert_succeeds();
    assert_eq!(setup.read("f.2"), file(&[1, 2, 3]));
    assert_eq!(setup.read("f"), file(&[]));
    assert_eq!(report.work, CleanupWork::Thread);
    assert_eq!(report.rows, Some(CleanupRows { read: 5, invalid: 0, written: 3 }));
    assert_eq!((report.bytes_before, report.bytes_after), (before, file(&[1, 2, 3]).len() as u64));
    assert!(!setup.has("f.1") && !setup.has("f.pid") && !setup.has("f.pid.lock"));
}

/// Like `kea-lfc`.
#[test]
#[cfg(target_os = "linux")]
fn an_internal_cleanup_has_a_lower_priority() {
    let setup = Setup::new();
    let own = rustix::process::nice(0).unwrap();
    setup.cleaner(LfcProgram::Internal).assert_succeeds();
    let niceness = setup.fs.priority.load(Ordering::SeqCst);
    assert_eq!((niceness, rustix::process::nice(0).unwrap()), ((own + 4).min(19), own));
}

#[test]
fn a_panic_fails_the_cleanup() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(LfcProgram::Internal);
    setup.fs.panic.store(true, Ordering::SeqCst);
    cleaner.assert_fails("injected panic");
    setup.fs.panic.store(false, Ordering::SeqCst);
    cleaner.assert_succeeds();
    assert_eq!(setup.read("f.2"), file(&[1]));
}

#[test]
fn closing_the_manager_cancels_an_internal_cleanup() {
    let setup = Setup::new();
    setup.append(&[1]);
    setup.fs.block.store(true, Ordering::SeqCst);
    let cleaner = setup.cleaner(LfcProgram::Internal);
    cleaner.request();
    wait_until("the cleanup has begun", || setup.fs.is_blocked.load(Ordering::SeqCst));
    let shared = Arc::clone(&cleaner.shared);
    let end = thread::spawn(move || drop(cleaner));
    wait_until("the end has begun", || shared.state.lock().ending);
    setup.fs.block.store(false, Ordering::SeqCst);
    end.join().unwrap();
    let failure = shared.state.lock().last.clone().unwrap().failure.unwrap();
    assert!(failure.contains("cancelled"), "{failure}");
    assert_eq!(setup.read("f.1"), file(&[1]));
    assert!(!setup.has("f.2") && !setup.has("f.output") && !setup.has("f.pid"));
}

// Cleanups by a program

#[rstest]
#[case(Family::V4, "-4")]
#[case(Family::V6, "-6")]
fn a_program_gets_the_files_as_arguments_and_no_input(#[case] family: Family, #[case] option: &str) {
    let setup = Setup::new();
    let program = setup.program(&format!("printf '%s\\n' \"$@\" > arguments; cat >> arguments; {CLEAN}"));
    let cleaner = setup.start(CleanerConfig { family, ..setup.config(program.clone()) });
    let report = cleaner.assert_succeeds();
    let f = setup.path("f");
    let f = f.display();
    let expected =
        format!("{option} -x {f}.2 -i {f}.1 -o {f}.output -f {f}.completed -p {f}.pid -c ignored-path");
    assert_eq!(setup.read("arguments").lines().collect::<Vec<_>>(), expected.split(' ').collect::<Vec<_>>());
    let LfcProgram::Program(path) = program else { unreachable!() };
    assert_eq!((report.work, report.rows), (CleanupWork::Program(path), None));
}

#[test]
fn a_program_gets_the_journal_and_later_rows_go_to_the_next_one() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(setup.program(&format!("until [ -e go ]; do sleep 0.01; done; {CLEAN}")));
    cleaner.request();
    wait_until("the journal is renamed, and the program started", || setup.has("f.pid"));
    setup.append(&[2]);
    assert_eq!((setup.read("f.1"), setup.read("f")), (file(&[1]), file(&[2])));
    setup.write("go", "");
    let report = cleaner.wait_for(1).last.unwrap();
    assert_eq!(report.failure, None);
    assert_eq!((report.bytes_before, report.bytes_after), (file(&[1]).len() as u64, file(&[1]).len() as u64));
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1]), file(&[2])));
}

#[test]
fn the_pid_file_names_the_program_while_it_runs() {
    let setup = Setup::new();
    let script = format!("echo $$ > own; until [ -e go ]; do sleep 0.01; done; {CLEAN}");
    let cleaner = setup.cleaner(setup.program(&script));
    cleaner.request();
    wait_until("it runs", || !setup.read("own").is_empty() && setup.has("f.pid") && !setup.has("f.pid.lock"));
    assert_eq!(setup.read("f.pid"), setup.read("own"));
    let pid = setup.read("own").trim().parse().unwrap();
    let running = || setup.running();
    assert_eq!(running().unwrap().pid(), Some(pid));
    std::fs::remove_file(setup.path("f.pid")).unwrap();
    assert_eq!(running().unwrap().pid(), None, "the lock shows that it runs");
    setup.write("f.pid", format!("{pid}\n"));
    setup.write("go", "");
    cleaner.wait_for(1);
    assert_eq!(running(), None);
    assert!(!setup.has("f.pid"), "the PID file is left over");
    assert!(!Path::new("/proc").join(pid.to_string()).exists(), "the process was not reaped");
}

#[test]
fn a_pid_file_of_another_process_is_kept() {
    let setup = Setup::new();
    let script = format!("until [ -e go ]; do sleep 0.01; done; {CLEAN}");
    let cleaner = setup.cleaner(setup.program(&script));
    cleaner.request();
    wait_until("it runs", || setup.has("f.pid") && !setup.has("f.pid.lock"));
    setup.write("f.pid", "1\n");
    setup.write("go", "");
    cleaner.wait_for(1);
    assert_eq!(setup.read("f.pid"), "1\n");
}

/// The evidence of a cleanup of another process: the lock, or only the process name.
#[derive(Clone, Copy, Debug)]
enum Evidence {
    Lock,
    Name,
}

#[rstest]
fn during_a_cleanup_of_another_process_no_file_is_changed(
    #[values(false, true)] program: bool,
    #[values(Evidence::Lock, Evidence::Name)] evidence: Evidence,
) {
    let setup = Setup::new();
    setup.append(&[1]);
    let mut lock = None;
    let mut other = None;
    match evidence {
        Evidence::Lock => {
            setup.write("f.pid", "4711\n");
            lock = Some(OsFileSystem.try_lock(&setup.path("f.pid.running")).unwrap().unwrap());
        }
        Evidence::Name => other = Some(setup.other_cleanup()),
    }
    let before = setup.read("f.pid");
    let program = if program { setup.program("touch started") } else { LfcProgram::Internal };
    let cleaner = setup.cleaner(program.clone());
    assert_eq!(cleaner.request(), CleanupStart::Running);
    let status = cleaner.status();
    assert!(!status.running && status.last.is_none() && (status.succeeded, status.failed) == (0, 0));
    // A cleanup that becomes due instead fails.
    let due = setup.start(CleanerConfig { at_once: true, ..setup.config(program) });
    let failure = due.wait_for(1).last.unwrap().failure.unwrap();
    let pid = before.trim();
    assert!(failure.contains(&format!("process {pid} of {}", setup.path("f.pid").display())), "{failure}");
    assert!(failure.contains("; wait until it has ended, or "), "{failure}");
    assert!(!setup.has("started") && !setup.has("f.1"));
    assert_eq!((setup.read("f"), setup.read("f.pid")), (file(&[1]), before));

    drop((lock, other));
    let cleaner = setup.cleaner(LfcProgram::Internal);
    cleaner.assert_succeeds();
}

#[test]
fn a_cleanup_by_hand_is_detected() {
    let setup = Setup::new();
    setup.append(&[1]);
    setup.write("f.1", file(&[2]));
    let cleaner = setup.cleaner(LfcProgram::Internal);
    setup.fs.block.store(true, Ordering::SeqCst);
    let cleanup = Cleanup::new(Family::V4, LeaseFileSet::new(setup.path("f")).lfc_files());
    let cleanup = cleanup.file_system(setup.fs.as_ref());
    thread::scope(|scope| {
        let by_hand = scope.spawn(|| cleanup.run().unwrap());
        wait_until("it has begun", || setup.fs.is_blocked.load(Ordering::SeqCst));
        assert_eq!(cleaner.request(), CleanupStart::Running);
        // Even without its PID file.
        std::fs::remove_file(setup.path("f.pid")).unwrap();
        assert_eq!(cleaner.request(), CleanupStart::Running);
        setup.fs.block.store(false, Ordering::SeqCst);
        assert!(matches!(by_hand.join().unwrap(), Outcome::Cleaned { .. }));
    });
    cleaner.assert_succeeds();
    assert_eq!(setup.read("f.2"), file(&[1, 2]));
}

#[test]
fn a_program_keeps_the_lock_of_a_killed_manager() {
    let setup = Setup::new();
    let script = format!("echo $$ > own; until [ -e go ]; do sleep 0.01; done; {CLEAN}");
    let cleaner = setup.cleaner(setup.program(&script));
    cleaner.request();
    wait_until("it runs", || !setup.read("own").is_empty() && setup.has("f.pid"));
    // The process name is not that of a cleanup program, and the PID file is empty, as after a
    // crash.
    setup.write("f.pid", "");
    let running = || setup.running();
    assert!(running().is_some());
    let own = setup.read("own");
    let stdin = std::fs::read_link(format!("/proc/{}/fd/0", own.trim())).unwrap();
    assert_eq!(stdin, setup.path("f.pid.running"));
    setup.write("go", "");
    cleaner.wait_for(1);
    assert_eq!(running(), None);
}

#[test]
fn a_program_takes_the_lock_itself_if_it_cannot_be_given_one() {
    let setup = Setup::new();
    setup.fs.no_process_locks.store(true, Ordering::SeqCst);
    let script = format!("[ -s /dev/stdin ] && exit 1; until [ -e go ]; do sleep 0.01; done; {CLEAN}");
    let cleaner = setup.cleaner(setup.program(&script));
    cleaner.request();
    wait_until("it runs", || setup.has("f.pid") && !setup.has("f.pid.lock"));
    assert!(!setup.has("f.pid.running"));
    setup.write("go", "");
    assert_eq!(cleaner.wait_for(1).succeeded, 1);
}

/// A program that finds this file, and then does nothing, when it starts for the first times.
#[rstest]
// Like Kea's program of version 2.2, and like a program in a child of the started process.
#[case::it_mistakes_itself_for_another_cleanup("f.pid", [2, 3])]
// Like this project's program, if a script that starts it does not pass on the lock.
#[case::it_finds_the_lock_taken("f.pid.running", [3, 4])]
fn a_program_that_does_nothing_at_first_is_started_again(#[case] found: &str, #[case] starts: [usize; 2]) {
    let setup = Setup::new();
    setup.append(&[1]);
    let script =
        format!("while [ -e f.pid.lock ]; do sleep 0.01; done; echo >> starts; [ -e {found} ] && exit");
    let cleaner = setup.cleaner(setup.program(&format!("{script}; {CLEAN}")));
    cleaner.assert_succeeds();
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[1]), starts[0]));
    setup.append(&[2]);
    cleaner.assert_succeeds();
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[2]), starts[1]), "started only once");
}

#[test]
fn a_program_that_does_nothing_is_started_at_most_three_times() {
    let setup = Setup::new();
    let cleaner = setup.cleaner(setup.program("echo >> starts"));
    cleaner.assert_fails("still exists");
    assert_eq!(setup.read("starts").len(), 3);
    cleaner.assert_fails("still exists");
    assert_eq!(setup.read("starts").len(), 4);
}

#[test]
fn a_cleanup_waits_for_the_lock_of_the_pid_file() {
    let setup = Setup::new();
    let lock = OsFileSystem.lock(&setup.path("f.pid.lock")).unwrap();
    let cleaner = setup.cleaner(setup.program(&format!("touch started; {CLEAN}")));
    cleaner.request();
    wait_until("it waits for the lock", || cleaner.status().running);
    assert!(!setup.has("f.1") && !setup.has("started"));
    drop(lock);
    assert_eq!(cleaner.wait_for(1).succeeded, 1);
}

#[rstest]
#[case::dead("999999\n")]
#[case::of_another_program("1\n")]
#[case::empty("")]
#[case::without_a_newline("1")]
fn a_stale_pid_file_stops_nothing(#[case] content: &str) {
    let setup = Setup::new();
    setup.write("f.pid", content);
    setup.cleaner(setup.program(CLEAN)).assert_succeeds();
    assert!(!setup.has("f.pid"));
}

#[rstest]
#[case::it_fails("exit 3", "exit status: 3")]
#[case::it_fails_and_says_why(
    "echo 'f.1: no' >&2; echo because >&2; exit 1",
    "exit status: 1: f.1: no; because"
)]
#[case::it_exits_with_0_and_says_why("echo because >&2; exit 0", "f.1 still exists: because")]
#[case::it_leaves_another_process(
    "sleep 1000 & echo $! >> helper; echo because >&2; exit 1",
    "exit status: 1: because"
)]
#[case::it_is_killed("kill -9 $$", "signal: 9")]
#[case::it_does_nothing_and_exits_with_0("exit 0", "f.1 still exists")]
#[case::it_stops_half_way("[ -e f.completed ] || mv f.1 f.completed", "f.completed still exists")]
fn a_failed_cleanup_is_completed_by_the_next_one(#[case] fault: &str, #[case] reason: &str) {
    let setup = Setup::new();
    setup.append(&[1]);
    let program = setup.program(&format!(
        "[ -e good ] || {{ {fault}; exit; }}\n[ ! -e f.completed ] || mv f.completed f.1; {CLEAN}"
    ));
    let cleaner = setup.cleaner(program);
    cleaner.assert_fails(reason);
    assert!(!setup.has("f.pid"));
    setup.append(&[2]);
    cleaner.assert_fails(reason);
    assert_eq!(setup.read("f"), file(&[2]), "the journal is only renamed if there is no input file");
    setup.write("good", "");
    cleaner.assert_succeeds();
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1]), file(&[2])));
    for helper in setup.read("helper").lines() {
        let helper = rustix::process::Pid::from_raw(helper.parse().unwrap()).unwrap();
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).unwrap();
    }
}

#[rstest]
#[case::absent(None)]
#[case::in_an_unknown_format(Some("no program\n"))]
#[case::its_interpreter_is_absent(Some("#!/absent\n"))]
fn the_thread_replaces_a_program_that_cannot_be_started(#[case] content: Option<&str>) {
    let setup = Setup::new();
    setup.append(&[1]);
    let LfcProgram::Program(path) = setup.program("") else { unreachable!() };
    std::fs::remove_file(&path).unwrap();
    if let Some(content) = content {
        setup.write("text", content);
        let status = Command::new("install").args(["-m", "755"]).arg(setup.path("text")).arg(&path).status();
        assert!(status.unwrap().success());
    }
    let report = setup.cleaner(LfcProgram::Program(path)).assert_succeeds();
    assert_eq!(report.work, CleanupWork::Thread);
    assert_eq!(setup.read("f.2"), file(&[1]));
}

/// A program that does not report its version, and writes files of an older version.
#[test]
fn a_program_that_has_written_an_older_file_is_not_used_again() {
    let setup = Setup::new();
    setup.append(&[1]);
    let script = "echo >> starts; sed 's/,[^,]*$//' f.1 > f.2; rm f.1";
    let LfcProgram::Program(path) = setup.program(script) else { unreachable!() };
    let text = std::fs::read_to_string(&path).unwrap().replace(VERSION, r#"case "$*" in *-V) exit;; esac"#);
    setup.write("text", text);
    let install = Command::new("install").args(["-m", "755"]).arg(setup.path("text")).arg(&path).status();
    assert!(install.unwrap().success());
    let cleaner = setup.cleaner(LfcProgram::Program(path.clone()));
    assert_eq!(cleaner.assert_succeeds().work, CleanupWork::Program(path));
    assert!(!setup.read("f.2").starts_with(header::<Lease4>()));
    setup.append(&[2]);
    assert_eq!(cleaner.assert_succeeds().work, CleanupWork::Thread);
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[1, 2]), 1));
}

// Interrupted cleanups and failed rotations

#[rstest]
#[case::before_the_end("f.1", false)]
#[case::before_the_end_by_a_program("f.1", true)]
#[case::after_the_end("f.completed", false)]
#[case::after_the_end_by_a_program("f.completed", true)]
fn an_interrupted_cleanup_is_completed_before_the_journal_is_renamed(
    #[case] left: &str,
    #[case] program: bool,
) {
    let setup = Setup::new();
    setup.write(left, file(&[1]));
    setup.append(&[2]);
    let program = if program { setup.program(&format!("mv -f {left} f.2")) } else { LfcProgram::Internal };
    let cleaner = setup.cleaner(program);
    cleaner.assert_succeeds();
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1]), file(&[2])));
    assert!(!setup.has("f.1") && !setup.has("f.completed"));
}

#[test]
fn a_program_never_finds_an_invalid_finish_file() {
    let setup = Setup::new();
    setup.write("f.1", file(&[1]));
    setup.write("f.completed", "");
    setup.cleaner(setup.program(&format!("[ ! -e f.completed ] && {CLEAN}"))).assert_succeeds();
    assert_eq!((setup.read("f.2"), setup.has("f.completed.bad")), (file(&[1]), true));
}

#[test]
fn a_program_never_finds_the_output_file_of_another() {
    let setup = Setup::new();
    setup.append(&[1]);
    setup.write("f.output", "half a r");
    setup.cleaner(setup.program("cat f.1 >> f.output; mv f.output f.2; rm f.1")).assert_succeeds();
    assert_eq!(setup.read("f.2"), file(&[1]));
}

#[rstest]
#[case::renaming_fails(true)]
#[case::creating_the_new_file_fails(false)]
fn no_cleanup_starts_if_the_journal_cannot_be_rotated(#[case] rename: bool) {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(setup.program(&format!("touch started; {CLEAN}")));
    let flag = if rename { &setup.fs.refuse_rename } else { &setup.fs.refuse_new };
    flag.store(true, Ordering::SeqCst);
    cleaner.assert_fails("refused");
    setup.append(&[2]);
    assert_eq!((setup.has("started"), setup.has("f.1")), (false, false));
    assert_eq!(setup.read("f"), file(&[1, 2]));
    flag.store(false, Ordering::SeqCst);
    cleaner.assert_succeeds();
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1, 2]), file(&[])));
}

/// As left by a process that is killed during a rotation.
#[test]
fn a_journal_that_is_still_written_to_is_not_cleaned_up() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(setup.program(&format!("touch started; {CLEAN}")));
    std::fs::hard_link(setup.path("f"), setup.path("f.1")).unwrap();
    setup.append(&[2]);
    setup.fs.refuse_new.store(true, Ordering::SeqCst);
    cleaner.assert_fails("refused");
    assert!(!setup.has("started"));
    setup.fs.refuse_new.store(false, Ordering::SeqCst);
    cleaner.assert_succeeds();
    setup.append(&[3]);
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1, 2]), file(&[3])));
}

#[rstest]
#[case::a_program(true)]
#[case::a_thread(false)]
fn a_cleanup_fails_while_the_directory_is_missing(#[case] program: bool) {
    let mut setup = Setup::new();
    let outer = std::mem::replace(&mut setup.directory, tempfile::tempdir().unwrap());
    let inner = outer.path().join("inner");
    let away = outer.path().join("away");
    std::fs::create_dir(&inner).unwrap();
    let fs = Arc::clone(&setup.fs);
    let journal = Journal::open(fs as _, inner.join("f"), header::<Lease4>(), Durability::Written).unwrap();
    setup.journal = Arc::new(journal);
    setup.append(&[1]);
    let script = format!("cd '{}' && {CLEAN}", inner.display());
    let program = if program { setup.program(&script) } else { LfcProgram::Internal };
    let files = LeaseFileSet::new(inner.join("f"));
    let cleaner = setup.start(CleanerConfig { files, ..setup.config(program) });
    std::fs::rename(&inner, &away).unwrap();
    cleaner.assert_fails("f.pid");
    std::fs::rename(&away, &inner).unwrap();
    cleaner.assert_succeeds();
    assert_eq!(std::fs::read_to_string(inner.join("f.2")).unwrap(), file(&[1]));
}

#[test]
fn an_internal_cleanup_supports_both_families() {
    let setup = Setup::new();
    let row = "2001:db8::1,00:01:02:03,3600,1790003600,1,2250,0,7,128,0,0,,,0,,0,0,0\n";
    let header = header::<Lease6>();
    setup.write("f.1", format!("{header}\n{row}{row}"));
    let config = CleanerConfig { family: Family::V6, ..setup.config(LfcProgram::Internal) };
    setup.start(config).assert_succeeds();
    assert_eq!(setup.read("f.2"), format!("{header}\n{row}"));
}

// Closing the manager

#[rstest]
#[case::it_obeys("", "signal: ")]
#[case::it_does_not_obey("trap '' TERM\n", "signal: 9")]
fn closing_the_manager_leaves_no_process(#[case] trap: &str, #[case] end: &str) {
    let setup = Setup::new();
    setup.append(&[1]);
    let script = format!("{trap}sleep 1000 &\necho $! > helper; echo $$ > own; wait; sleep 1000");
    let cleaner = setup.cleaner(setup.program(&script));
    cleaner.request();
    wait_until("it runs", || !setup.read("own").is_empty() && setup.has("f.pid"));
    let (own, helper) = (setup.read("own"), setup.read("helper"));
    assert!(is_alive(&own) && is_alive(&helper));
    let shared = Arc::clone(&cleaner.shared);
    drop(cleaner);
    assert!(!Path::new("/proc").join(own.trim()).exists(), "the process was not reaped");
    wait_until("its child has ended as well", || !is_alive(&helper));
    let failure = shared.state.lock().last.clone().unwrap().failure.unwrap();
    assert!(failure.contains(end), "{failure}");
    assert!(!setup.has("f.pid") && !setup.has("f.pid.lock"));
    assert_eq!(setup.read("f.1"), file(&[1]));
    assert_eq!(Arc::strong_count(&shared), 1, "the thread has ended");
}

#[test]
fn a_manager_closes_even_if_another_process_keeps_the_lock_of_the_pid_file() {
    let setup = Setup::new();
    let lock = OsFileSystem.lock(&setup.path("f.pid.lock")).unwrap();
    // The manager may be closed before its cleanup waits for the lock.
    wait_until("a manager is closed while it waits for the lock", || {
        let cleaner = setup.cleaner(LfcProgram::Internal);
        cleaner.request();
        wait_until("the cleanup begins", || cleaner.status().running);
        let shared = Arc::clone(&cleaner.shared);
        drop(cleaner);
        let failure = shared.state.lock().last.clone().and_then(|report| report.failure);
        failure.is_some_and(|failure| failure.contains("the lock of ") && failure.contains("f.pid.lock, "))
    });
    drop(lock);
}

#[test]
fn an_idle_manager_closes_at_once() {
    let setup = Setup::new();
    for interval in [None, Some(Duration::from_secs(3600))] {
        let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
        let shared = Arc::clone(&cleaner.shared);
        drop(cleaner);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
