//! Lease files that other processes modify, follow or link to while a manager has them open.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::lease::{Family, Lease4, Lease6};
use leasemgr::lease_file::{FileLease, LeaseFileSet, Reader};
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use leasemgr::{Added, ChangeKind, LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease};
use leasemgr::{Durability, WriteLeases};
use rstest::rstest;

const TIMED: Durability = Durability::SyncedEvery(Duration::from_millis(20));

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(600), "timed out: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn header<L: FileLease>() -> &'static str {
    support::header(L::FAMILY)
}

/// Returns the row of a lease, with its newline.
fn row<L: FileLease>(n: u32, change: u32) -> String {
    support::row(L::FAMILY, n, change, 3600)
}

/// Returns the lease of a row.
fn lease<L: FileLease>(n: u32, change: u32) -> L {
    let text = format!("{}\n{}", header::<L>(), row::<L>(n, change));
    let mut reader = Reader::<L, _>::new(text.as_bytes()).unwrap();
    reader.next().unwrap().unwrap().lease
}

fn options(file: &Path, durability: Durability) -> MemfileOptions {
    MemfileOptions::at(file.to_owned())
        .lfc_interval(None)
        .lfc_program(LfcProgram::Internal)
        .durability(durability)
}

/// A manager, and the leases that it must have.
struct Server<L: ManagedLease + FileLease> {
    directory: tempfile::TempDir,
    file: PathBuf,
    durability: Durability,
    mgr: Option<Arc<dyn LeaseMgr<L>>>,
    leases: BTreeMap<L::Address, L>,
}

impl<L: ManagedLease + FileLease> Server<L> {
    fn new(durability: Durability) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases.csv");
        Self::open(directory, file, durability)
    }

    fn open(directory: tempfile::TempDir, file: PathBuf, durability: Durability) -> Self {
        let mgr = memfile::open(options(&file, durability)).unwrap();
        let leases = mgr.all().unwrap().into_iter().map(|lease: L| (lease.address(), lease)).collect();
        Self { directory, file, durability, mgr: Some(mgr), leases }
    }

    fn mgr(&self) -> &dyn LeaseMgr<L> {
        self.mgr.as_deref().unwrap()
    }

    fn path(&self, suffix: &str) -> PathBuf {
        let mut path = self.file.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn add(&mut self, n: u32) {
        let lease = lease::<L>(n, 0);
        assert_eq!(self.mgr().add(&lease).unwrap(), Added::Added);
        self.leases.insert(lease.address(), lease);
    }

    fn update(&mut self, n: u32, change: u32) {
        let lease = lease::<L>(n, change);
        self.mgr().update(&lease).unwrap();
        self.leases.insert(lease.address(), lease);
    }

    fn delete(&mut self, n: u32) {
        let lease = lease::<L>(n, 0);
        self.mgr().delete(lease.address()).unwrap();
        self.leases.remove(&lease.address());
    }

    /// Expects a lease that another process has written.
    fn expect(&mut self, lease: L) {
        self.leases.insert(lease.address(), lease);
    }

    /// Waits until the manager has restored its file.
    fn wait_for_restoration(&self) {
        wait_until("the file is restored", || {
            let set = LeaseFileSet::new(&self.file).read::<L>();
            set.is_ok_and(|set| set.leases == self.leases && set.invalid_rows.is_empty())
                && self.mgr().all().unwrap().iter().eq(self.leases.values())
        });
        assert_eq!((self.mgr().status().refused, self.mgr().status().warning), (None, None));
    }

    fn check(&self) {
        assert!(self.mgr().all().unwrap().iter().eq(self.leases.values()));
        let set = LeaseFileSet::new(&self.file).read::<L>().unwrap();
        assert_eq!(set.leases, self.leases);
        assert_eq!(set.invalid_rows, []);
    }

    fn clean_up(&self) {
        let count = || {
            let cleanup = self.mgr().status().cleanup.unwrap();
            (cleanup.succeeded + cleanup.failed, cleanup.last.and_then(|last| last.failure))
        };
        let before = count().0;
        let _ = self.mgr().clean_up().unwrap();
        wait_until("the cleanup has ended", || count().0 > before);
        assert_eq!(count().1, None);
    }

    /// Closes and reopens the manager, and also opens copies of the files as after a kill.
    fn reopen(&mut self) {
        drop(self.mgr.take());
        self.mgr = Some(memfile::open(options(&self.file, self.durability)).unwrap());
        self.check();
    }

    fn end(mut self) {
        self.check();
        self.reopen();
        self.clean_up();
        self.check();
        self.reopen();
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Calls a function for one of the families.
macro_rules! for_family {
    ($family:expr, $run:ident($($argument:expr),* $(,)?)) => {
        match $family {
            Family::V4 => $run::<Lease4>($($argument),*),
            Family::V6 => $run::<Lease6>($($argument),*),
        }
    };
}

#[rstest]
fn a_row_that_another_process_appends_is_a_lease(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Durability::Written, Durability::Synced, TIMED)] durability: Durability,
    #[values(false, true)] changes_follow: bool,
) {
    fn run<L: ManagedLease + FileLease>(durability: Durability, changes_follow: bool) {
        let mut server = Server::<L>::new(durability);
        (0..20).for_each(|n| server.add(n));
        let notified = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&notified);
        let tracking = server.mgr().tracking();
        let registered = tracking.register("test", ChangeKind::Add, None, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        registered.unwrap();
        append(&server.file, &row::<L>(100, 0));
        server.expect(lease(100, 0));
        if changes_follow {
            server.add(20);
            server.delete(3);
            server.update(4, 1);
        }
        server.wait_for_restoration();
        assert_eq!(notified.load(Ordering::SeqCst), 1 + usize::from(changes_follow));
        server.add(21);
        server.end();
    }
    for_family!(family, run(durability, changes_follow));
}

/// A modification of the file by another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// `: > F`
    Emptied,
    /// `cat backup > F`, where the backup is shorter than the file.
    ShorterBackup,
    /// `cat backup > F`, where the backup is longer than the file.
    LongerBackup,
    /// A row without a newline.
    TornRow,
    /// Half a row, and the rest of it later.
    HalfRow,
    /// The last rows are cut off, in the middle of a row.
    CutOff,
    /// The first rows are overwritten with other text.
    Overwritten,
    /// A deletion, an update, a new lease and an invalid row.
    SeveralRows,
    Removed,
    Replaced,
}

impl Change {
    fn make<L: ManagedLease + FileLease>(self, server: &mut Server<L>) {
        let path = server.file.clone();
        match self {
            Self::Emptied => drop(File::create(&path).unwrap()),
            Self::ShorterBackup => {
                let rows: String = (0..5).map(|n| row::<L>(n, 0)).collect();
                fs::write(&path, format!("{}\n{rows}", header::<L>())).unwrap();
            }
            Self::LongerBackup => {
                // Rows of unknown addresses are accepted as leases, as they may come from any
                // process.
                let rows: String = (0..90).map(|n| row::<L>(n, 0)).collect();
                fs::write(&path, format!("{}\n{rows}", header::<L>())).unwrap();
                for n in (0..90).filter(|n| *n == 7 || *n >= 20) {
                    server.expect(lease(n, 0));
                }
            }
            Self::TornRow => {
                append(&path, row::<L>(100, 0).trim_end());
                server.expect(lease(100, 0));
            }
            Self::HalfRow => append(&path, &row::<L>(100, 0)[..15]),
            Self::CutOff => {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(file.metadata().unwrap().len().min(1000) - 150).unwrap();
            }
            Self::Overwritten => {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(header::<L>().len() as u64 + 1).unwrap();
                file.write_all_at(&[b'x'; 5000], header::<L>().len() as u64 + 1).unwrap();
            }
            Self::SeveralRows => {
                let deletion = support::row(L::FAMILY, 2, 0, 0);
                let rows = [deletion, row::<L>(5, 3), row::<L>(101, 0), "something,else\n".to_owned()];
                append(&path, &rows.concat());
                server.leases.remove(&lease::<L>(2, 0).address());
                server.expect(lease(5, 3));
                server.expect(lease(101, 0));
            }
            Self::Removed => fs::remove_file(&path).unwrap(),
            Self::Replaced => {
                fs::rename(&path, server.path(".away")).unwrap();
                fs::write(&path, "something else\n").unwrap();
            }
        }
    }
}

#[rstest]
fn modifications_by_other_processes_lose_no_lease_and_garble_no_row(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(
        Change::Emptied,
        Change::ShorterBackup,
        Change::LongerBackup,
        Change::TornRow,
        Change::HalfRow,
        Change::CutOff,
        Change::Overwritten,
        Change::SeveralRows,
        Change::Removed,
        Change::Replaced
    )]
    change: Change,
    #[values(false, true)] after_cleanup: bool,
) {
    fn run<L: ManagedLease + FileLease>(durability: Durability, change: Change, after_cleanup: bool) {
        let mut server = Server::<L>::new(durability);
        (0..20).for_each(|n| server.add(n));
        if after_cleanup {
            server.clean_up();
            (0..20).filter(|n| n % 3 == 0).for_each(|n| server.update(n, 1));
        }
        // If the row of a deletion is cut off but not that of the lease, the lease is restored.
        if after_cleanup || change != Change::CutOff {
            server.delete(7);
        }
        change.make(&mut server);
        // Before and during the restoration of the file.
        for n in 0..40 {
            server.add(200 + n);
            server.update(10 + n % 10, 4 + n);
            thread::sleep(Duration::from_micros(200));
        }
        server.wait_for_restoration();
        server.add(300);
        server.delete(11);
        server.end();
    }
    for_family!(family, run(durability, change, after_cleanup));
}

/// Overwritten rows are kept in another file.
#[rstest]
fn an_overwritten_file_is_kept_beside_the_new_one(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Change::Overwritten, Change::LongerBackup, Change::SeveralRows, Change::Replaced)]
    change: Change,
) {
    fn run<L: ManagedLease + FileLease>(change: Change) {
        let mut server = Server::<L>::new(Durability::Written);
        (0..20).for_each(|n| server.add(n));
        server.delete(7);
        change.make(&mut server);
        let theirs = fs::read(&server.file).unwrap();
        wait_until("the file is kept", || server.path(".replaced").exists());
        server.wait_for_restoration();
        assert!(fs::read(server.path(".replaced")).unwrap().starts_with(&theirs));
        server.end();
    }
    for_family!(family, run(change));
}

/// Closing at once: the periodic check does not come first.
#[rstest]
fn changes_in_place_are_detected_at_close_and_by_a_flush(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(false, true)] flushes: bool,
) {
    fn run<L: ManagedLease + FileLease>(durability: Durability, flushes: bool) {
        let mut server = Server::<L>::new(durability);
        (0..20).for_each(|n| server.add(n));
        drop(File::create(&server.file).unwrap());
        server.add(20);
        append(&server.file, &row::<L>(21, 0));
        server.expect(lease(21, 0));
        if flushes {
            server.mgr().flush().unwrap();
            server.check();
        }
        server.reopen();
        server.end();
    }
    for_family!(family, run(durability, flushes));
}

#[rstest]
#[case::zeros_and_rows(1000, false)]
#[case::zeros_and_a_header(1000, true)]
#[case::many_zeros(10_000_000, false)]
#[case::rows_without_a_header(0, false)]
fn a_file_whose_beginning_was_cut_off_is_loaded(
    #[values(Family::V4, Family::V6)] family: Family,
    #[case] zeros: usize,
    #[case] has_header: bool,
) {
    fn run<L: ManagedLease + FileLease>(zeros: usize, has_header: bool) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases.csv");
        let mut text = vec![0; zeros];
        if has_header {
            text.extend_from_slice(format!("{}\n", header::<L>()).as_bytes());
        }
        (0..5).for_each(|n| text.extend_from_slice(row::<L>(n, 0).as_bytes()));
        fs::write(&file, text).unwrap();
        let server = Server::<L>::open(directory, file, Durability::Written);
        let expected = (0..5).map(|n| lease::<L>(n, 0)).map(|lease| (lease.address(), lease)).collect();
        assert_eq!(server.leases, expected);
        // The file is restored at once.
        let text = fs::read_to_string(&server.file).unwrap();
        assert!(text.starts_with(header::<L>()) && !text.contains('\0'));
        server.end();
    }
    for_family!(family, run(zeros, has_header));
}

/// An older version of this crate, or another server, may have left zeros.
#[rstest]
fn a_cleanup_and_a_reader_skip_zeros_at_the_beginning(#[values(Family::V4, Family::V6)] family: Family) {
    fn run<L: ManagedLease + FileLease>() {
        let directory = tempfile::tempdir().unwrap();
        let files = LeaseFileSet::new(directory.path().join("leases.csv"));
        let rows = row::<L>(1, 0) + &row::<L>(2, 0);
        fs::write(files.previous_path(), format!("{}\n{}", header::<L>(), row::<L>(3, 0))).unwrap();
        fs::write(files.input_path(), ["\0".repeat(5000), rows].concat()).unwrap();
        let addresses =
            |files: &LeaseFileSet| files.read::<L>().unwrap().leases.into_keys().collect::<Vec<_>>();
        let expected: Vec<_> = (1..4).map(|n| lease::<L>(n, 0).address()).collect();
        assert_eq!(addresses(&files), expected);
        leasemgr::lfc::Cleanup::new(L::FAMILY, files.lfc_files()).run().unwrap();
        assert_eq!(addresses(&files), expected);
        assert!(!files.input_path().exists());
        // A file of zeros alone is no lease file.
        fs::write(files.current_path(), "\0".repeat(5000)).unwrap();
        assert!(files.read::<L>().is_err());
        assert!(memfile::open::<L>(options(files.current_path(), Durability::Written)).is_err());
    }
    for_family!(family, run());
}

#[rstest]
fn leases_written_to_the_own_lease_file_and_later_changes_are_kept(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Durability::Written, Durability::Synced, TIMED)] durability: Durability,
    #[values("", ".1", ".2")] existing: &str,
) {
    fn run<L: ManagedLease + FileLease>(durability: Durability, existing: &str) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases.csv");
        // Leases in the other files, which are deleted: they must not be restored.
        let files = LeaseFileSet::new(&file);
        for path in [files.input_path(), files.previous_path()] {
            if path.to_string_lossy().ends_with(existing) {
                let rows: String = (500..520).map(|n| row::<L>(n, 0)).collect();
                fs::write(path, format!("{}\n{rows}", header::<L>())).unwrap();
            }
        }
        let mut server = Server::<L>::open(directory, file, durability);
        for n in 0..50 {
            server.add(n);
            if !existing.is_empty() || n % 2 == 0 {
                server.delete(if existing.is_empty() { n } else { 500 + n % 20 });
            }
        }
        let link = server.path(".link");
        symlink(&server.file, &link).unwrap();
        for path in [server.file.clone(), server.directory.path().join("./leases.csv"), link.clone()] {
            let count = server.mgr().write_to(&path).unwrap();
            assert_eq!(count, server.leases.len() as u64);
            let text = fs::read_to_string(&server.file).unwrap();
            assert!(server.leases.keys().all(|address| text.contains(&format!("\n{address},"))));
            server.add(1000 + u32::try_from(text.len()).unwrap());
            server.check();
            // The files that a kill would leave at this point.
            let copy = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(server.directory.path()).unwrap() {
                let name = entry.unwrap().file_name();
                if !name.to_string_lossy().ends_with("lock") {
                    fs::copy(server.directory.path().join(&name), copy.path().join(&name)).unwrap();
                }
            }
            let set = LeaseFileSet::new(copy.path().join("leases.csv")).read::<L>().unwrap();
            assert_eq!(set.leases, server.leases);
        }
        assert!(link.is_symlink());
        // Checks the file, as is done every second.
        server.mgr().flush().unwrap();
        server.check();
        assert!(!server.path(".replaced").exists());
        server.end();
    }
    for_family!(family, run(durability, existing));
}

#[rstest]
#[case(".1")]
#[case(".2")]
#[case(".completed")]
#[case(".output")]
#[case(".pid")]
#[case(".lock")]
#[case(".bad")]
fn leases_are_not_written_to_the_other_files_of_the_manager(#[case] suffix: &str) {
    let mut server = Server::<Lease4>::new(Durability::Written);
    server.add(1);
    let path = server.path(suffix);
    let before = fs::read(&path).ok();
    let error = server.mgr().write_to(&path).unwrap_err();
    assert!(matches!(&error, LeaseMgrError::OwnFile { path: named, .. } if *named == path), "{error}");
    assert_eq!(fs::read(&path).ok(), before);
    // Such names in other directories are allowed.
    let other = tempfile::tempdir().unwrap();
    let other = other.path().join(path.file_name().unwrap());
    assert_eq!(server.mgr().write_to(&other).unwrap(), 1);
    server.end();
}

#[test]
fn a_callback_can_flush_and_cannot_write_the_own_lease_file() {
    let mut server = Server::<Lease4>::new(Durability::Written);
    let directory = tempfile::tempdir().unwrap();
    let mgr = server.mgr.take().unwrap();
    let weak = Arc::downgrade(&mgr);
    let (own, other) = (server.file.clone(), directory.path().join("other.csv"));
    let notified = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&notified);
    let registered = mgr.tracking().register("test", ChangeKind::Add, None, move |_| {
        let mgr = weak.upgrade().unwrap();
        append(&own, "something\n");
        mgr.flush().unwrap();
        assert!(matches!(mgr.write_to(&own), Err(LeaseMgrError::InCallback)));
        assert_eq!(mgr.write_to(&other).unwrap(), 1);
        count.fetch_add(1, Ordering::SeqCst);
    });
    registered.unwrap();
    assert_eq!(mgr.add(&lease(1, 0)).unwrap(), Added::Added);
    assert_eq!(notified.load(Ordering::SeqCst), 1);
    wait_until("the file is rewritten", || !fs::read_to_string(&server.file).unwrap().contains("something"));
    drop(mgr);
    server.expect(lease(1, 0));
    server.mgr = Some(memfile::open(options(&server.file, Durability::Written)).unwrap());
    server.end();
}

#[test]
fn many_threads_change_leases_while_the_file_is_rewritten() {
    const THREADS: u32 = 4;
    let server = Server::<Lease4>::new(Durability::Written);
    let is_done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (mgr, is_done) = (server.mgr(), &is_done);
            scope.spawn(move || {
                for n in 0..2000 {
                    let number = thread * 10_000 + n;
                    assert_eq!(mgr.add(&lease(number, 0)).unwrap(), Added::Added);
                    match n % 3 {
                        0 => mgr.update(&lease(number, 5)).unwrap(),
                        1 => {
                            mgr.delete(lease::<Lease4>(number, 0).address()).unwrap();
                        }
                        _ => {}
                    }
                }
                is_done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut count = 0;
        while is_done.load(Ordering::SeqCst) < THREADS as usize || count < 10 {
            match count % 3 {
                0 => drop(server.mgr().write_to(&server.file).unwrap()),
                1 => append(&server.file, &row::<Lease4>(900_000 + count, 0)),
                _ => server.mgr().flush().unwrap(),
            }
            count += 1;
        }
        server.mgr().flush().unwrap();
        for n in (0..count).filter(|n| n % 3 == 1) {
            let found = server.mgr().get(lease::<Lease4>(900_000 + n, 0).address()).unwrap();
            assert_eq!(found, Some(lease(900_000 + n, 0)));
        }
    });
    let mut server = server;
    for thread in 0..THREADS {
        for n in 0..2000 {
            let number = thread * 10_000 + n;
            let expected = match n % 3 {
                0 => Some(lease(number, 5)),
                1 => None,
                _ => Some(lease::<Lease4>(number, 0)),
            };
            assert_eq!(server.mgr().get(lease::<Lease4>(number, 0).address()).unwrap(), expected);
        }
    }
    server.leases = server.mgr().all().unwrap().into_iter().map(|lease| (lease.address(), lease)).collect();
    server.end();
}

/// `tail -F` follows the file by name through frequent rotations.
#[rstest]
fn a_program_that_follows_the_lease_file_by_name_misses_no_row(
    #[values(Durability::Written, TIMED)] durability: Durability,
) {
    const CHANGES: u32 = 1500;
    let mut server = Server::<Lease4>::new(durability);
    let out = server.path(".followed");
    let mut tail = Command::new("tail")
        .args(["-n", "+1", "-F"])
        .arg(&server.file)
        .stdout(File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let followed = || fs::read_to_string(&out).unwrap();
    wait_until("the file is followed", || followed().contains("address"));
    for n in 0..CHANGES {
        server.add(n);
        if n % 150 == 75 {
            server.clean_up();
        }
        thread::sleep(Duration::from_micros(300));
    }
    let last = row::<Lease4>(CHANGES - 1, 0);
    wait_until("the last row is found", || followed().contains(&last));
    let text = followed();
    let found: std::collections::BTreeSet<&str> = text.lines().collect();
    let missed: Vec<_> = (0..CHANGES).filter(|&n| !found.contains(row::<Lease4>(n, 0).trim_end())).collect();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert_eq!(missed, Vec::<u32>::new());
    server.end();
}

/// The location of the target of a symbolic link.
#[derive(Clone, Copy, Debug)]
enum Place {
    SameDirectory,
    OtherDirectory,
    /// A file system in memory, which is empty after a boot.
    OtherFileSystem,
}

#[rstest]
fn a_symbolic_link_is_kept_and_leads_to_the_lease_file(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(Place::SameDirectory, Place::OtherDirectory, Place::OtherFileSystem)] place: Place,
    #[values(false, true)] is_dangling: bool,
) {
    fn run<L: ManagedLease + FileLease>(durability: Durability, place: Place, is_dangling: bool) {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = match place {
            Place::SameDirectory => None,
            Place::OtherDirectory => Some(tempfile::tempdir_in(directory.path()).unwrap()),
            Place::OtherFileSystem => match tempfile::tempdir_in("/dev/shm") {
                Ok(shm)
                    if shm.path().metadata().unwrap().dev() != directory.path().metadata().unwrap().dev() =>
                {
                    Some(shm)
                }
                _ => {
                    eprintln!("skipped: /dev/shm is on the same file system");
                    return;
                }
            },
        };
        let target =
            elsewhere.as_ref().map_or(directory.path(), |directory| directory.path()).join("target.csv");
        let file = directory.path().join("leases.csv");
        symlink(&target, &file).unwrap();
        if !is_dangling {
            // Of an older schema, so that it is converted at once.
            fs::write(&target, support::oldest_lease_file(L::FAMILY, &[row::<L>(900, 0)])).unwrap();
        }
        let mut server = Server::<L>::open(directory, file, durability);
        assert_eq!(server.leases.len(), usize::from(!is_dangling));
        let check_link = |server: &Server<L>| {
            assert_eq!(fs::read_link(&server.file).unwrap(), target);
            assert!(target.is_file() && !target.is_symlink());
        };
        check_link(&server);
        // One manager locks the file, under any of its names.
        assert!(memfile::open::<L>(options(&target, durability)).is_err());
        for n in 0..30 {
            server.add(n);
            if n % 10 == 5 {
                server.clean_up();
                check_link(&server);
                server.check();
            }
        }
        // The cleanup files are beside the link, where other servers look for them.
        assert!(server.path(".2").is_file());
        fs::remove_file(&target).unwrap();
        server.add(30);
        server.wait_for_restoration();
        check_link(&server);
        drop(File::create(&target).unwrap());
        server.add(31);
        server.wait_for_restoration();
        check_link(&server);
        server.reopen();
        check_link(&server);
        server.end();
    }
    for_family!(family, run(durability, place, is_dangling));
}

/// A lease file of an older schema is rotated at the start, and a new one created.
#[rstest]
fn a_converted_file_keeps_its_mode(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(0o664, 0o600)] mode: u32,
) {
    fn run<L: ManagedLease + FileLease>(mode: u32) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases.csv");
        fs::write(&file, support::oldest_lease_file(L::FAMILY, &[row::<L>(1, 0)])).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let server = Server::<L>::open(directory, file, Durability::Written);
        let has_mode = |path: &Path| path.metadata().is_ok_and(|found| found.mode() & 0o777 == mode);
        wait_until("it is converted", || server.path(".2").exists());
        assert!(has_mode(&server.file) && has_mode(&server.path(".2")));
        server.end();
    }
    for_family!(family, run(mode));
}
