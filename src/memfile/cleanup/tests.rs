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

/// What a program does that cleans up without fault or effort.
const CLEAN: &str = "mv -f f.1 f.2";

/// What a program does when it is asked for its version: it says that it writes files of the current one.
const VERSION: &str = r#"case "$*" in *-V) echo kea-lfc 1; echo lease files: DHCPv4 schema 3.0, DHCPv6 schema 5.0; exit;; esac"#;

fn header<L: FileLease>() -> &'static str {
    L::SCHEMA.header
}

fn row(n: u8) -> String {
    format!("192.0.2.{n},02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,,0\n")
}

/// The content of a file with these leases.
fn file(rows: &[u8]) -> String {
    let rows: String = rows.iter().copied().map(row).collect();
    format!("{}\n{rows}", header::<Lease4>())
}

/// A folder with the lease file `f`.
struct Setup {
    folder: tempfile::TempDir,
    fs: Arc<Meddler>,
    journal: Arc<Journal>,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fs = Arc::new(Meddler::default());
        let path = folder.path().join("f");
        let header = header::<Lease4>();
        let journal = Journal::open(Arc::clone(&fs) as _, path, header, Durability::Written).unwrap();
        Self { folder, fs, journal: Arc::new(journal) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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

    /// A program that does this in the folder.
    ///
    /// Another process writes it: a child of another test that has not come to its program yet would still
    /// have it open for writing, which lets nobody run it.
    fn program(&self, script: &str) -> LfcProgram {
        let path = self.path("program");
        let text =
            format!("#!/bin/sh\n{VERSION}\ncd '{}' || exit 9\n{script}\n", self.folder.path().display());
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
        assert!(status.success());
        LfcProgram::Program(path)
    }

    /// The cleanup that is running, as others see it.
    fn running(&self) -> Option<RunningCleanup> {
        PidLock::take(&OsFileSystem, &self.path("f.pid")).unwrap().running().unwrap()
    }

    /// Another process that is cleaning up these files, as its name and the PID file say.
    fn another(&self) -> Another {
        let path = self.path("kea-lfc");
        assert!(Command::new("cp").arg("/bin/sleep").arg(&path).status().unwrap().success());
        let child = Command::new(&path).arg("1000").spawn().unwrap();
        std::fs::remove_file(path).unwrap();
        self.write("f.pid", format!("{}\n", child.id()));
        Another(child)
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

    /// A cleaner that does its work with this program when asked.
    fn cleaner(&self, program: LfcProgram) -> Cleaner {
        self.start(self.config(program))
    }
}

/// A process that looks as if it cleaned up.
struct Another(Child);

impl Drop for Another {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The files of the operating system, with some trouble.
#[derive(Debug, Default)]
struct Meddler {
    /// Whether no file gets another name.
    refuse_rename: AtomicBool,
    /// Whether there can be no new lease file.
    refuse_new: AtomicBool,
    panic: AtomicBool,
    /// Whether no other process can hold a lock.
    no_process_locks: AtomicBool,
    /// Whether creating the output waits, and whether it does so now.
    hold: AtomicBool,
    held: AtomicBool,
    /// That of the thread which created the output.
    priority: AtomicI32,
}

impl Meddler {
    fn check(flag: &AtomicBool) -> io::Result<()> {
        if flag.load(Ordering::SeqCst) { Err(io::Error::other("refused")) } else { Ok(()) }
    }
}

impl FileSystem for Meddler {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        OsFileSystem.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        if path.ends_with("f.next") {
            Self::check(&self.refuse_new)?;
        }
        if path.extension() == Some("output".as_ref()) {
            assert!(!self.panic.load(Ordering::SeqCst), "the file system is upset");
            self.priority.store(rustix::process::nice(0).unwrap(), Ordering::SeqCst);
            self.held.store(true, Ordering::SeqCst);
            wait_until("creating the output is allowed", || !self.hold.load(Ordering::SeqCst));
            self.held.store(false, Ordering::SeqCst);
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
    fn sync_directory(&self, folder: &Path) -> io::Result<()> {
        OsFileSystem.sync_directory(folder)
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
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Cleaner {
    fn wait_for(&self, count: u64) -> CleanupStatus {
        wait_until("cleanups have ended", || self.status().succeeded + self.status().failed >= count);
        self.status()
    }

    /// Has a cleanup done, and waits for its end.
    fn clean(&self) -> CleanupReport {
        let before = self.status();
        assert_eq!(self.request(), CleanupStart::Requested);
        self.wait_for(before.succeeded + before.failed + 1).last.unwrap()
    }

    #[track_caller]
    fn fails(&self, reason: &str) -> CleanupReport {
        let before = self.status();
        let report = self.clean();
        let failure = report.failure.clone().unwrap();
        assert!(failure.contains(reason), "{failure:?} does not say {reason:?}");
        assert_eq!((self.status().succeeded, self.status().failed), (before.succeeded, before.failed + 1));
        report
    }

    #[track_caller]
    fn succeeds(&self) -> CleanupReport {
        let before = self.status();
        let report = self.clean();
        assert_eq!(report.failure, None);
        assert_eq!((self.status().succeeded, self.status().failed), (before.succeeded + 1, before.failed));
        report
    }
}

/// Whether there is such a process that has not ended.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

// When

#[test]
fn without_an_interval_nothing_is_done_unless_asked_for() {
    for interval in [None, Some(Duration::ZERO)] {
        let setup = Setup::new();
        let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
        let status = cleaner.status();
        assert!(!status.running && status.last.is_none() && status.next.is_none());
        cleaner.succeeds();
        assert!(cleaner.status().next.is_none());
    }
}

#[test]
fn with_an_interval_one_cleanup_follows_the_other() {
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
    let report = cleaner.succeeds();
    let second = cleaner.status().next.unwrap();
    assert!(second > first);
    // The clocks of the two times are not the same.
    let slack = Duration::from_secs(60);
    assert!(report.started + hour < second + slack && second <= SystemTime::now() + hour);
}

#[test]
fn a_cleanup_that_takes_too_long_is_followed_by_one_at_once() {
    let setup = Setup::new();
    let interval = Some(Duration::from_secs(3600));
    let program = setup.program(&format!("until [ -e go ]; do sleep 0.01; done; {CLEAN}"));
    let cleaner = setup.start(CleanerConfig { interval, ..setup.config(program) });
    cleaner.request();
    wait_until("it runs", || cleaner.status().running);
    // The hour goes by.
    cleaner.shared.state.lock().due = Some(Instant::now());
    setup.write("go", "");
    let status = cleaner.wait_for(2);
    assert_eq!((status.succeeded, status.failed), (2, 0));
    assert!(status.next.unwrap() > SystemTime::now() + Duration::from_secs(1800));
}

#[test]
fn an_interval_beyond_all_time_is_as_good_as_none() {
    let setup = Setup::new();
    let interval = Some(Duration::MAX);
    let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
    cleaner.succeeds();
    assert!(cleaner.status().next.is_none());
}

#[test]
fn files_that_need_it_are_cleaned_up_at_once() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.start(CleanerConfig { at_once: true, ..setup.config(LfcProgram::Internal) });
    assert_eq!(cleaner.wait_for(1).succeeded, 1);
    assert_eq!(setup.read("f.2"), file(&[1]));
}

#[test]
fn while_a_cleanup_runs_no_other_can_be_asked_for() {
    let setup = Setup::new();
    let cleaner = setup.cleaner(setup.program(&format!("until [ -e go ]; do sleep 0.01; done; {CLEAN}")));
    assert_eq!(cleaner.request(), CleanupStart::Requested);
    wait_until("it runs", || cleaner.status().running);
    assert_eq!(cleaner.request(), CleanupStart::Running);
    setup.write("go", "");
    cleaner.wait_for(1);
    assert!(!cleaner.status().running);
    cleaner.succeeds();
}

// By the thread

#[test]
fn inside_the_process_the_rows_are_counted() {
    let setup = Setup::new();
    setup.write("f.2", file(&[1, 2]));
    setup.append(&[2, 3, 3]);
    let before = (file(&[1, 2]).len() + file(&[2, 3, 3]).len()) as u64;
    let cleaner = setup.cleaner(LfcProgram::Internal);
    let report = cleaner.succeeds();
    assert_eq!(setup.read("f.2"), file(&[1, 2, 3]));
    assert_eq!(setup.read("f"), file(&[]));
    assert_eq!(report.work, CleanupWork::Thread);
    assert_eq!(report.rows, Some(CleanupRows { read: 5, invalid: 0, written: 3 }));
    assert_eq!((report.bytes_before, report.bytes_after), (before, file(&[1, 2, 3]).len() as u64));
    assert!(!setup.has("f.1") && !setup.has("f.pid") && !setup.has("f.pid.lock"));
}

/// As kea-lfc does it.
#[test]
#[cfg(target_os = "linux")]
fn inside_the_process_a_cleanup_gives_way_to_others() {
    let setup = Setup::new();
    let own = rustix::process::nice(0).unwrap();
    setup.cleaner(LfcProgram::Internal).succeeds();
    let seen = setup.fs.priority.load(Ordering::SeqCst);
    assert_eq!((seen, rustix::process::nice(0).unwrap()), ((own + 4).min(19), own));
}

#[test]
fn a_panic_is_a_failure_like_others() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(LfcProgram::Internal);
    setup.fs.panic.store(true, Ordering::SeqCst);
    cleaner.fails("the file system is upset");
    setup.fs.panic.store(false, Ordering::SeqCst);
    cleaner.succeeds();
    assert_eq!(setup.read("f.2"), file(&[1]));
}

#[test]
fn the_end_of_the_manager_cancels_a_cleanup_inside_the_process() {
    let setup = Setup::new();
    setup.append(&[1]);
    setup.fs.hold.store(true, Ordering::SeqCst);
    let cleaner = setup.cleaner(LfcProgram::Internal);
    cleaner.request();
    wait_until("the cleanup has begun", || setup.fs.held.load(Ordering::SeqCst));
    let shared = Arc::clone(&cleaner.shared);
    let end = thread::spawn(move || drop(cleaner));
    wait_until("the end has begun", || shared.state.lock().ending);
    setup.fs.hold.store(false, Ordering::SeqCst);
    end.join().unwrap();
    let failure = shared.state.lock().last.clone().unwrap().failure.unwrap();
    assert!(failure.contains("cancelled"), "{failure}");
    assert_eq!(setup.read("f.1"), file(&[1]));
    assert!(!setup.has("f.2") && !setup.has("f.output") && !setup.has("f.pid"));
}

// By a program

#[rstest]
#[case(Family::V4, "-4")]
#[case(Family::V6, "-6")]
fn a_program_is_told_the_files_and_has_nothing_to_read(#[case] family: Family, #[case] option: &str) {
    let setup = Setup::new();
    let program = setup.program(&format!("printf '%s\\n' \"$@\" > arguments; cat >> arguments; {CLEAN}"));
    let cleaner = setup.start(CleanerConfig { family, ..setup.config(program.clone()) });
    let report = cleaner.succeeds();
    let f = setup.path("f");
    let f = f.display();
    let expected =
        format!("{option} -x {f}.2 -i {f}.1 -o {f}.output -f {f}.completed -p {f}.pid -c ignored-path");
    assert_eq!(setup.read("arguments").lines().collect::<Vec<_>>(), expected.split(' ').collect::<Vec<_>>());
    let LfcProgram::Program(path) = program else { unreachable!() };
    assert_eq!((report.work, report.rows), (CleanupWork::Program(path), None));
}

#[test]
fn a_program_gets_the_journal_and_rows_that_come_later_stay_in_the_next_one() {
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
    assert_eq!(running().unwrap().pid(), None, "the lock says that it runs");
    setup.write("f.pid", format!("{pid}\n"));
    setup.write("go", "");
    cleaner.wait_for(1);
    assert_eq!(running(), None);
    assert!(!setup.has("f.pid"), "the program has left it behind");
    assert!(!Path::new("/proc").join(pid.to_string()).exists(), "it is not reaped");
}

#[test]
fn a_pid_file_that_somebody_else_has_taken_meanwhile_stays() {
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

/// What is known of a cleanup of another process: it holds the lock, or it is only named so.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Lock,
    Name,
}

#[rstest]
fn a_cleanup_of_any_process_is_running_and_nothing_is_touched(
    #[values(false, true)] program: bool,
    #[values(Sign::Lock, Sign::Name)] sign: Sign,
) {
    let setup = Setup::new();
    setup.append(&[1]);
    let mut lock = None;
    let mut another = None;
    match sign {
        Sign::Lock => {
            setup.write("f.pid", "4711\n");
            lock = Some(OsFileSystem.try_lock(&setup.path("f.pid.running")).unwrap().unwrap());
        }
        Sign::Name => another = Some(setup.another()),
    }
    let before = setup.read("f.pid");
    let program = if program { setup.program("touch started") } else { LfcProgram::Internal };
    let cleaner = setup.cleaner(program.clone());
    assert_eq!(cleaner.request(), CleanupStart::Running);
    let status = cleaner.status();
    assert!(!status.running && status.last.is_none() && (status.succeeded, status.failed) == (0, 0));
    // One that is due is not asked for, and fails.
    let due = setup.start(CleanerConfig { at_once: true, ..setup.config(program) });
    let failure = due.wait_for(1).last.unwrap().failure.unwrap();
    let pid = before.trim();
    assert!(failure.contains(&format!("process {pid} of {}", setup.path("f.pid").display())), "{failure}");
    assert!(failure.contains("; wait until it has ended, or "), "{failure}");
    assert!(!setup.has("started") && !setup.has("f.1"));
    assert_eq!((setup.read("f"), setup.read("f.pid")), (file(&[1]), before));

    drop((lock, another));
    let cleaner = setup.cleaner(LfcProgram::Internal);
    cleaner.succeeds();
}

#[test]
fn a_cleanup_by_hand_is_running() {
    let setup = Setup::new();
    setup.append(&[1]);
    setup.write("f.1", file(&[2]));
    let cleaner = setup.cleaner(LfcProgram::Internal);
    setup.fs.hold.store(true, Ordering::SeqCst);
    let cleanup = Cleanup::new(Family::V4, LeaseFileSet::new(setup.path("f")).lfc_files());
    let cleanup = cleanup.file_system(setup.fs.as_ref());
    thread::scope(|scope| {
        let by_hand = scope.spawn(|| cleanup.run().unwrap());
        wait_until("it has begun", || setup.fs.held.load(Ordering::SeqCst));
        assert_eq!(cleaner.request(), CleanupStart::Running);
        // Whatever becomes of its PID file.
        std::fs::remove_file(setup.path("f.pid")).unwrap();
        assert_eq!(cleaner.request(), CleanupStart::Running);
        setup.fs.hold.store(false, Ordering::SeqCst);
        assert!(matches!(by_hand.join().unwrap(), Outcome::Cleaned { .. }));
    });
    cleaner.succeeds();
    assert_eq!(setup.read("f.2"), file(&[1, 2]));
}

#[test]
fn a_manager_that_is_killed_leaves_the_lock_to_its_program() {
    let setup = Setup::new();
    let script = format!("echo $$ > own; until [ -e go ]; do sleep 0.01; done; {CLEAN}");
    let cleaner = setup.cleaner(setup.program(&script));
    cleaner.request();
    wait_until("it runs", || !setup.read("own").is_empty() && setup.has("f.pid"));
    // It is no cleanup by its name, and the PID file is what a crash leaves of it.
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
fn where_no_process_can_be_given_a_lock_the_program_takes_it() {
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

/// As Kea's program of version 2.2, and as one that is not the process that was started.
#[test]
fn a_program_that_takes_itself_for_another_is_started_again() {
    let setup = Setup::new();
    setup.append(&[1]);
    let script = "while [ -e f.pid.lock ]; do sleep 0.01; done; echo >> starts; [ -e f.pid ] && exit";
    let cleaner = setup.cleaner(setup.program(&format!("{script}; {CLEAN}")));
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[1]), 2));
    setup.append(&[2]);
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[2]), 3), "once is enough");
}

/// As this project's program, when a script starts it that keeps the lock to itself.
#[test]
fn a_program_that_finds_the_lock_taken_is_started_again() {
    let setup = Setup::new();
    setup.append(&[1]);
    let script = "while [ -e f.pid.lock ]; do sleep 0.01; done; echo >> starts; [ -e f.pid.running ] && exit";
    let cleaner = setup.cleaner(setup.program(&format!("{script}; {CLEAN}")));
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[1]), 3));
    setup.append(&[2]);
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[2]), 4), "that is remembered");
}

#[test]
fn a_program_that_never_does_anything_is_started_again_but_twice() {
    let setup = Setup::new();
    let cleaner = setup.cleaner(setup.program("echo >> starts"));
    cleaner.fails("still there");
    assert_eq!(setup.read("starts").len(), 3);
    cleaner.fails("still there");
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
#[case::without_its_newline("1")]
fn a_stale_pid_file_stops_nothing(#[case] content: &str) {
    let setup = Setup::new();
    setup.write("f.pid", content);
    setup.cleaner(setup.program(CLEAN)).succeeds();
    assert!(!setup.has("f.pid"));
}

#[rstest]
#[case::it_fails("exit 3", "exit status: 3")]
#[case::it_fails_and_says_why(
    "echo 'f.1: no' >&2; echo because >&2; exit 1",
    "exit status: 1: f.1: no; because"
)]
#[case::it_is_content_and_says_why("echo because >&2; exit 0", "f.1 is still there: because")]
#[case::it_leaves_another_process(
    "sleep 1000 & echo $! >> helper; echo because >&2; exit 1",
    "exit status: 1: because"
)]
#[case::it_is_killed("kill -9 $$", "signal: 9")]
#[case::it_does_nothing_and_is_content("exit 0", "f.1 is still there")]
#[case::it_stops_half_way("[ -e f.completed ] || mv f.1 f.completed", "f.completed is still there")]
fn what_a_program_does_not_do_is_a_failure_and_done_by_the_next(#[case] fault: &str, #[case] reason: &str) {
    let setup = Setup::new();
    setup.append(&[1]);
    let program = setup.program(&format!(
        "[ -e good ] || {{ {fault}; exit; }}\n[ ! -e f.completed ] || mv f.completed f.1; {CLEAN}"
    ));
    let cleaner = setup.cleaner(program);
    cleaner.fails(reason);
    assert!(!setup.has("f.pid"));
    setup.append(&[2]);
    cleaner.fails(reason);
    assert_eq!(setup.read("f"), file(&[2]), "the journal is renamed only when there is no other");
    setup.write("good", "");
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1]), file(&[2])));
    for helper in setup.read("helper").lines() {
        Command::new("kill").arg(helper).status().unwrap();
    }
}

#[rstest]
#[case::absent(None)]
#[case::in_no_known_language(Some("no program\n"))]
#[case::its_interpreter_is_absent(Some("#!/absent\n"))]
fn instead_of_a_program_that_cannot_be_started_the_thread_does_it(#[case] content: Option<&str>) {
    let setup = Setup::new();
    setup.append(&[1]);
    let LfcProgram::Program(path) = setup.program("") else { unreachable!() };
    std::fs::remove_file(&path).unwrap();
    if let Some(content) = content {
        setup.write("text", content);
        let status = Command::new("install").args(["-m", "755"]).arg(setup.path("text")).arg(&path).status();
        assert!(status.unwrap().success());
    }
    let report = setup.cleaner(LfcProgram::Program(path)).succeeds();
    assert_eq!(report.work, CleanupWork::Thread);
    assert_eq!(setup.read("f.2"), file(&[1]));
}

/// A program that does not tell its version, and turns out to write files of an older one.
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
    assert_eq!(cleaner.succeeds().work, CleanupWork::Program(path));
    assert!(!setup.read("f.2").starts_with(header::<Lease4>()));
    setup.append(&[2]);
    assert_eq!(cleaner.succeeds().work, CleanupWork::Thread);
    assert_eq!((setup.read("f.2"), setup.read("starts").len()), (file(&[1, 2]), 1));
}

// From where

#[rstest]
#[case::before_its_end("f.1", false)]
#[case::before_its_end_in_a_program("f.1", true)]
#[case::after_it("f.completed", false)]
#[case::after_it_in_a_program("f.completed", true)]
fn an_interrupted_cleanup_is_done_before_the_journal_is_renamed(#[case] left: &str, #[case] program: bool) {
    let setup = Setup::new();
    setup.write(left, file(&[1]));
    setup.append(&[2]);
    let program = if program { setup.program(&format!("mv -f {left} f.2")) } else { LfcProgram::Internal };
    let cleaner = setup.cleaner(program);
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1]), file(&[2])));
    assert!(!setup.has("f.1") && !setup.has("f.completed"));
}

#[test]
fn a_program_never_meets_a_finish_file_that_is_none() {
    let setup = Setup::new();
    setup.write("f.1", file(&[1]));
    setup.write("f.completed", "");
    setup.cleaner(setup.program(&format!("[ ! -e f.completed ] && {CLEAN}"))).succeeds();
    assert_eq!((setup.read("f.2"), setup.has("f.completed.bad")), (file(&[1]), true));
}

#[test]
fn a_program_never_meets_the_output_of_another() {
    let setup = Setup::new();
    setup.append(&[1]);
    setup.write("f.output", "half a r");
    setup.cleaner(setup.program("cat f.1 >> f.output; mv f.output f.2; rm f.1")).succeeds();
    assert_eq!(setup.read("f.2"), file(&[1]));
}

#[rstest]
#[case::it_cannot_be_renamed(true)]
#[case::there_can_be_no_new_one(false)]
fn if_the_journal_cannot_be_put_aside_no_cleanup_starts(#[case] rename: bool) {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(setup.program(&format!("touch started; {CLEAN}")));
    let flag = if rename { &setup.fs.refuse_rename } else { &setup.fs.refuse_new };
    flag.store(true, Ordering::SeqCst);
    cleaner.fails("refused");
    setup.append(&[2]);
    assert_eq!((setup.has("started"), setup.has("f.1")), (false, false));
    assert_eq!(setup.read("f"), file(&[1, 2]));
    flag.store(false, Ordering::SeqCst);
    cleaner.succeeds();
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1, 2]), file(&[])));
}

/// As a process leaves it that ends in the middle of a rotation.
#[test]
fn a_journal_that_is_still_written_to_is_not_cleaned_up() {
    let setup = Setup::new();
    setup.append(&[1]);
    let cleaner = setup.cleaner(setup.program(&format!("touch started; {CLEAN}")));
    std::fs::hard_link(setup.path("f"), setup.path("f.1")).unwrap();
    setup.append(&[2]);
    setup.fs.refuse_new.store(true, Ordering::SeqCst);
    cleaner.fails("refused");
    assert!(!setup.has("started"));
    setup.fs.refuse_new.store(false, Ordering::SeqCst);
    cleaner.succeeds();
    setup.append(&[3]);
    assert_eq!((setup.read("f.2"), setup.read("f")), (file(&[1, 2]), file(&[3])));
}

#[rstest]
#[case::a_program(true)]
#[case::a_thread(false)]
fn without_its_folder_a_cleanup_fails_until_that_is_back(#[case] program: bool) {
    let mut setup = Setup::new();
    let outer = std::mem::replace(&mut setup.folder, tempfile::tempdir().unwrap());
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
    cleaner.fails("f.pid");
    std::fs::rename(&away, &inner).unwrap();
    cleaner.succeeds();
    assert_eq!(std::fs::read_to_string(inner.join("f.2")).unwrap(), file(&[1]));
}

#[test]
fn leases_of_both_families_are_cleaned_up_inside_the_process() {
    let setup = Setup::new();
    let row = "2001:db8::1,00:01:02:03,3600,1790003600,1,2250,0,7,128,0,0,,,0,,0,0,0\n";
    let header = header::<Lease6>();
    setup.write("f.1", format!("{header}\n{row}{row}"));
    let config = CleanerConfig { family: Family::V6, ..setup.config(LfcProgram::Internal) };
    setup.start(config).succeeds();
    assert_eq!(setup.read("f.2"), format!("{header}\n{row}"));
}

// The end

#[rstest]
#[case::it_obeys("", "signal: ")]
#[case::it_does_not_obey("trap '' TERM\n", "signal: 9")]
fn when_the_manager_ends_no_process_is_left(#[case] trap: &str, #[case] end: &str) {
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
    assert!(!Path::new("/proc").join(own.trim()).exists(), "it is not reaped");
    wait_until("what it has started is gone, too", || !is_alive(&helper));
    let failure = shared.state.lock().last.clone().unwrap().failure.unwrap();
    assert!(failure.contains(end), "{failure}");
    assert!(!setup.has("f.pid") && !setup.has("f.pid.lock"));
    assert_eq!(setup.read("f.1"), file(&[1]));
    assert_eq!(Arc::strong_count(&shared), 1, "the thread has ended");
}

#[test]
fn a_manager_ends_though_somebody_keeps_the_lock_of_the_pid_file() {
    let setup = Setup::new();
    let lock = OsFileSystem.lock(&setup.path("f.pid.lock")).unwrap();
    // It may be told to end before it waits for the lock.
    wait_until("a manager ends that waits for the lock", || {
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
fn a_manager_that_does_nothing_ends_at_once() {
    let setup = Setup::new();
    for interval in [None, Some(Duration::from_secs(3600))] {
        let cleaner = setup.start(CleanerConfig { interval, ..setup.config(LfcProgram::Internal) });
        let shared = Arc::clone(&cleaner.shared);
        drop(cleaner);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
