//! Reading all lease files of a server as one snapshot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test, as the test itself does"
)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use leasemgr::lease::{ClientId, Family, HwAddr, Lease4, Lease6, LeaseState, Lifetime, SubnetId};
use leasemgr::lease_file::{FileLease, LeaseFileError, LeaseFileSet, LeaseSet, Writer};
use leasemgr::lfc::{Cleanup, Outcome};
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use leasemgr::{LeaseMgrExt, ManagedLease};
use rstest::rstest;
use tempfile::TempDir;

/// A directory with a server's lease files.
struct Server {
    directory: TempDir,
    files: LeaseFileSet,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = LeaseFileSet::new(directory.path().join("leases.csv"));
        Self { directory, files }
    }

    /// Returns the path of the lease file with this suffix.
    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("leases.csv{suffix}"))
    }

    fn write(&self, suffix: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(suffix), content).unwrap();
    }

    fn read(&self) -> LeaseSet<Lease4> {
        self.files.read().unwrap()
    }

    /// Returns the leases as the last byte of the address, and the subnet.
    fn subnets(&self) -> Vec<(u8, u32)> {
        let set = self.read();
        set.leases.iter().map(|(address, lease)| (address.octets()[3], lease.data().subnet_id.0)).collect()
    }

    /// Returns the suffixes of the files that were read, in their order.
    fn files_read(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.read().files.iter().map(|path| name(path).replace("leases.csv", "")).collect()
    }
}

/// Returns a lease of 192.0.2.`last`; a lifetime of 0 makes its row a deletion.
fn lease(last: u8, subnet: u32, lifetime: u32) -> Lease4 {
    let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, last]).unwrap();
    let client_id = ClientId::new(&[1, last]).unwrap();
    let address = Ipv4Addr::new(192, 0, 2, last);
    let mut lease = Lease4::new(address, Some(hwaddr), Some(client_id), LeaseState::DEFAULT).unwrap();
    lease.data_mut().subnet_id = SubnetId(subnet);
    lease.data_mut().valid_lifetime = Lifetime(lifetime);
    lease.data_mut().cltt = 1_790_000_000;
    lease
}

fn file(leases: &[Lease4]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    leases.iter().for_each(|lease| writer.append(lease).unwrap());
    writer.into_inner()
}

/// Returns a file with one lease in a subnet.
fn one(last: u8, subnet: u32) -> Vec<u8> {
    file(&[lease(last, subnet, 3600)])
}

#[test]
fn the_files_have_keas_names() {
    let files = LeaseFileSet::new("/srv/leases.csv");
    assert_eq!(files.current_path(), Path::new("/srv/leases.csv"));
    assert_eq!(files.input_path(), Path::new("/srv/leases.csv.1"));
    assert_eq!(files.previous_path(), Path::new("/srv/leases.csv.2"));
    assert_eq!(files.output_path(), Path::new("/srv/leases.csv.output"));
    assert_eq!(files.finish_path(), Path::new("/srv/leases.csv.completed"));
    assert_eq!(files.pid_path(), Path::new("/srv/leases.csv.pid"));
    let of_cleanup = files.lfc_files();
    assert_eq!(of_cleanup.previous, files.previous_path());
    assert_eq!(of_cleanup.input, files.input_path());
    assert_eq!(of_cleanup.output, files.output_path());
    assert_eq!(of_cleanup.finish, files.finish_path());
    assert_eq!(of_cleanup.pid, files.pid_path());
}

#[rstest]
#[case::none(&[], &[])]
#[case::current(&[""], &[""])]
#[case::previous(&[".2"], &[".2"])]
#[case::input_alone(&[".1"], &[".1"])]
#[case::between_cleanups(&["", ".2"], &[".2", ""])]
#[case::during_a_cleanup(&["", ".1", ".2", ".output", ".pid"], &[".2", ".1", ""])]
#[case::before_current_is_recreated(&[".1", ".2"], &[".2", ".1"])]
#[case::finished(&["", ".1", ".2", ".completed"], &[".completed", ""])]
#[case::finished_and_previous_removed(&["", ".1", ".completed"], &[".completed", ""])]
#[case::finished_and_input_removed(&["", ".completed"], &[".completed", ""])]
fn the_files_are_read_from_the_oldest_to_the_newest(#[case] there: &[&str], #[case] read: &[&str]) {
    let server = Server::new();
    for suffix in there {
        server.write(suffix, one(1, 1));
    }
    assert_eq!(server.files_read(), read);
}

#[test]
fn the_newest_row_of_an_address_counts() {
    let server = Server::new();
    server.write(".2", [one(1, 21), one(2, 22)[HEADER..].to_vec(), one(3, 23)[HEADER..].to_vec()].concat());
    server.write(".1", [one(2, 12), one(3, 13)[HEADER..].to_vec(), one(4, 14)[HEADER..].to_vec()].concat());
    server.write("", [one(3, 3), one(5, 5)[HEADER..].to_vec(), one(5, 6)[HEADER..].to_vec()].concat());
    assert_eq!(server.subnets(), [(1, 21), (2, 12), (3, 3), (4, 14), (5, 6)]);
    assert_eq!(server.read().stats.leases, 9);
}

/// Length of the header of a DHCPv4 lease file, with its newline.
const HEADER: usize =
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n"
        .len();

#[test]
fn a_finish_file_replaces_previous_and_input() {
    let server = Server::new();
    server.write(".2", one(1, 2));
    server.write(".1", one(2, 1));
    server.write(".completed", one(3, 4));
    server.write("", one(4, 0));
    assert_eq!(server.subnets(), [(3, 4), (4, 0)]);
}

#[rstest]
#[case::empty("")]
#[case::garbage("garbage\n")]
#[case::half_a_header("address,hwaddr,cli")]
#[case::newlines("\n\n")]
fn a_finish_file_without_a_header_is_not_read(#[case] finish: &str) {
    let server = Server::new();
    server.write(".2", one(1, 2));
    server.write(".1", one(2, 1));
    server.write(".completed", finish);
    server.write("", one(3, 0));
    assert_eq!(server.subnets(), [(1, 2), (2, 1), (3, 0)]);
    assert_eq!(server.files_read(), [".2", ".1", ""]);
}

#[test]
fn the_output_of_a_cleanup_is_not_read() {
    let server = Server::new();
    server.write(".output", one(1, 1));
    server.write(".2", one(2, 2));
    assert_eq!(server.subnets(), [(2, 2)]);
}

#[test]
fn a_row_with_a_lifetime_of_zero_deletes_the_lease_of_an_older_file() {
    let server = Server::new();
    server.write(".2", file(&[lease(1, 1, 3600), lease(2, 1, 3600), lease(3, 1, 3600)]));
    server.write(".1", file(&[lease(1, 1, 0), lease(2, 1, 0)]));
    server.write("", file(&[lease(2, 7, 3600), lease(3, 1, 0), lease(9, 1, 0)]));
    assert_eq!(server.subnets(), [(2, 7)]);
}

#[test]
fn an_empty_current_file_has_just_been_created() {
    let server = Server::new();
    server.write(".2", one(1, 1));
    server.write("", "");
    assert_eq!(server.subnets(), [(1, 1)]);
    assert!(!server.read().needs_conversion);
}

#[test]
fn invalid_rows_are_reported_with_their_file_and_line() {
    let server = Server::new();
    let with_bad_rows =
        |content: Vec<u8>| [&content[..HEADER], b"192.0.2.300,\n", &content[HEADER..], b"x\n"].concat();
    server.write(".2", with_bad_rows(one(1, 1)));
    server.write("", with_bad_rows(one(2, 2)));
    let set = server.read();
    let rows: Vec<_> = set.invalid_rows.iter().map(|row| (row.path.clone(), row.error.line)).collect();
    let (previous, current) = (server.path(".2"), server.path(""));
    assert_eq!(rows, [(previous.clone(), 2), (previous, 4), (current.clone(), 2), (current, 4)]);
    assert_eq!((set.stats.leases, set.stats.invalid_rows), (2, 4));
    assert_eq!(server.subnets(), [(1, 1), (2, 2)]);
}

#[rstest]
#[case::current_schema(
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id",
    false
)]
#[case::older_schema(
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state",
    true
)]
#[case::newer_schema(
    "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id,x",
    true
)]
fn one_file_of_another_schema_is_enough_for_a_conversion(#[case] header: &str, #[case] converted: bool) {
    let server = Server::new();
    server.write(".2", one(1, 1));
    server.write(".1", format!("{header}\n"));
    server.write("", one(2, 2));
    assert_eq!(server.read().needs_conversion, converted);
}

#[test]
fn the_files_of_the_other_family_are_refused() {
    let server = Server::new();
    server.write(".2", one(1, 1));
    let error = server.files.read::<Lease6>().unwrap_err();
    let LeaseFileError::Header { path, line, family, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((path, line, family), (server.path(".2"), 1, Family::V6));
}

#[test]
fn a_directory_in_place_of_a_file_is_an_error() {
    let server = Server::new();
    std::fs::create_dir(server.path(".1")).unwrap();
    assert!(
        matches!(server.files.read::<Lease4>(), Err(LeaseFileError::Io { path, .. }) if path == server.path(".1"))
    );
}

// While a server runs.

/// The progress of the server in [`a_snapshot_has_every_lease_of_its_moment`].
///
/// Lease `n` has address `n`: it is added as the `n`th, renewed `AGE / 2` leases later, and deleted
/// after `AGE` more leases. So one number determines which leases must be, may be or must not be in
/// a snapshot.
#[derive(Default)]
struct Journal {
    /// The last lease whose row is being written or is written.
    begun: AtomicU32,
    /// The last lease whose row is written.
    done: AtomicU32,
    cleanups: AtomicU32,
    stop: AtomicBool,
}

/// Approximate number of leases at a time.
const AGE: u32 = 40;
/// Subnet of a lease that was added; the next one is that of a renewed lease.
const ADDED: SubnetId = SubnetId(1);
const RENEWED: SubnetId = SubnetId(2);

fn numbered(n: u32, subnet: SubnetId, lifetime: u32) -> Lease4 {
    let mut lease = lease(1, subnet.0, lifetime);
    let hwaddr = lease.hwaddr().cloned();
    let client_id = lease.client_id().cloned();
    let data = lease.data().clone();
    lease = Lease4::new(Ipv4Addr::from(n), hwaddr, client_id, LeaseState::DEFAULT).unwrap();
    *lease.data_mut() = data;
    lease
}

/// Appends to the current file and, as lease managers do, starts a cleanup now and then unless one
/// is running.
fn serve(files: &LeaseFileSet, journal: &Journal) {
    let create = || {
        let file = OpenOptions::new().append(true).create_new(true).open(files.current_path()).unwrap();
        Writer::<Lease4, File>::new(file).unwrap()
    };
    let mut writer = create();
    let mut n = 0;
    while !journal.stop.load(Ordering::SeqCst) {
        n += 1;
        journal.begun.store(n, Ordering::SeqCst);
        writer.append(&numbered(n, ADDED, 3600)).unwrap();
        if n > AGE / 2 {
            writer.append(&numbered(n - AGE / 2, RENEWED, 3600)).unwrap();
        }
        if n > AGE {
            writer.append(&numbered(n - AGE, RENEWED, 0)).unwrap();
        }
        journal.done.store(n, Ordering::SeqCst);
        if n % 5 == 0 && !files.finish_path().exists() && !files.input_path().exists() {
            std::fs::rename(files.current_path(), files.input_path()).unwrap();
            writer = create();
        }
        // Some thousand rows a second, as for a busy server. More rows would take longer to read
        // than they exist.
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn clean(files: &LeaseFileSet, journal: &Journal) {
    while !journal.stop.load(Ordering::SeqCst) {
        if files.input_path().exists() {
            let outcome = Cleanup::new(Family::V4, files.lfc_files()).run().unwrap();
            assert!(matches!(outcome, Outcome::Cleaned { read, .. } if read.errors == 0), "{outcome:?}");
            journal.cleanups.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::yield_now();
    }
}

/// Panics unless a snapshot that began after `done` and ended before `begun` is correct.
fn check(set: &LeaseSet<Lease4>, done: u32, begun: u32) {
    let files: Vec<_> = set.files.iter().map(|path| path.extension().unwrap_or_default()).collect();
    assert!(set.invalid_rows.is_empty(), "{:?}", set.invalid_rows);
    let leases: BTreeMap<u32, SubnetId> =
        set.leases.iter().map(|(address, lease)| (address.to_bits(), lease.data().subnet_id)).collect();
    let moment = format!("in a snapshot of {files:?} between {done} and {begun}");
    // Written before the snapshot began, and not deleted before it ended.
    for n in begun.saturating_sub(AGE) + 1..=done {
        let subnet = leases.get(&n);
        assert!(subnet.is_some(), "lease {n} is missing {moment}");
        if n + AGE / 2 <= done {
            assert_eq!(subnet, Some(&RENEWED), "lease {n} is outdated {moment}");
        }
        if n + AGE / 2 > begun {
            assert_eq!(subnet, Some(&ADDED), "lease {n} is renewed too early {moment}");
        }
    }
    // Nothing that was deleted before it began, and nothing written after it ended.
    for n in leases.keys() {
        assert!(n + AGE > done, "lease {n} was deleted {moment}");
        assert!(*n <= begun, "lease {n} is not written yet {moment}");
    }
}

#[test]
fn a_snapshot_has_every_lease_of_its_moment() {
    let server = Server::new();
    let (files, journal) = (&server.files, Journal::default());
    /// Stops the other threads when a thread panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let begin = Instant::now();
    let snapshots = AtomicU32::new(0);
    // Two seconds, or longer on a slow machine.
    let enough = || {
        let counts = (snapshots.load(Ordering::SeqCst), journal.cleanups.load(Ordering::SeqCst));
        begin.elapsed() > Duration::from_secs(if counts.0 >= 50 && counts.1 >= 10 { 2 } else { 600 })
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = Stop(&journal.stop);
            serve(files, &journal);
        });
        scope.spawn(|| {
            let _stop = Stop(&journal.stop);
            clean(files, &journal);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let _stop = Stop(&journal.stop);
                while !enough() && !journal.stop.load(Ordering::SeqCst) {
                    let done = journal.done.load(Ordering::SeqCst);
                    let set = files.read::<Lease4>().unwrap();
                    let begun = journal.begun.load(Ordering::SeqCst);
                    check(&set, done, begun);
                    snapshots.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    let (snapshots, cleanups) = (snapshots.load(Ordering::SeqCst), journal.cleanups.load(Ordering::SeqCst));
    assert!(snapshots >= 50 && cleanups >= 10, "{snapshots} snapshots and {cleanups} cleanups in a minute");
}

#[test]
fn a_cleanup_does_not_change_what_is_read() {
    fn leases<L: FileLease>(files: &LeaseFileSet) -> BTreeMap<L::Address, L> {
        files.read::<L>().unwrap().leases
    }
    let server = Server::new();
    server.write(".2", file(&[lease(1, 1, 3600), lease(2, 2, 3600), lease(3, 3, 3600)]));
    server.write(".1", file(&[lease(4, 4, 3600), lease(2, 7, 3600), lease(3, 3, 0)]));
    server.write("", file(&[lease(5, 5, 3600), lease(1, 1, 0)]));
    let before = leases::<Lease4>(&server.files);
    Cleanup::new(Family::V4, server.files.lfc_files()).run().unwrap();
    assert_eq!(server.files_read(), [".2", ""]);
    assert_eq!(leases::<Lease4>(&server.files), before);
}

#[test]
fn a_torn_row_does_not_hide_whole_rows() {
    let server = Server::new();
    server.write("", one(1, 1));
    let mut current = OpenOptions::new().append(true).open(server.path("")).unwrap();
    current.write_all(b"192.0.2.2,02:00").unwrap();
    assert_eq!(server.subnets(), [(1, 1)]);
    let set = server.read();
    assert_eq!((set.stats.invalid_rows, set.invalid_rows[0].error.line), (1, 3));
    assert_eq!(set.torn, [server.path("")]);
    current.write_all(b":00:00:00:02,,3600,1790003600,2,0,0,,0,,0\n").unwrap();
    assert_eq!(server.subnets(), [(1, 1), (2, 2)]);
    assert_eq!((server.read().stats.invalid_rows, server.read().torn), (0, vec![]));
}

#[rstest]
#[case::current(&[""], &[""])]
#[case::previous(&[".2"], &[".2"])]
#[case::input(&[".1"], &[".1"])]
#[case::finish(&[".completed"], &[".completed"])]
#[case::all(&["", ".1", ".2"], &[".2", ".1", ""])]
#[case::one_that_is_not_read(&["", ".2", ".completed"], &[".completed", ""])]
fn a_last_row_without_a_newline_counts_and_is_reported(#[case] torn: &[&str], #[case] reported: &[&str]) {
    let server = Server::new();
    for suffix in ["", ".1", ".2"] {
        server.write(suffix, one(1, 1));
    }
    for (suffix, last) in torn.iter().zip(2..) {
        let text = file(&[lease(1, 1, 3600), lease(last, 7, 3600)]);
        server.write(suffix, &text[..text.len() - 1]);
    }
    let set = server.read();
    assert_eq!(set.torn, reported.iter().map(|suffix| server.path(suffix)).collect::<Vec<_>>());
    assert_eq!((set.leases.len(), set.stats.invalid_rows), (1 + reported.len(), 0));
}

/// A file of each family: its header, a whole row, and a row cut off at any byte. The last column
/// has two digits.
#[rstest]
#[case::current("", "")]
#[case::with_zeros("", "\0\0\0\0\0\0\0\0\0")]
#[case::input(".1", "")]
#[case::previous(".2", "")]
fn a_truncated_file_is_read_as_a_lease_manager_loads_it(
    #[case] suffix: &str,
    #[case] rest: &str,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    fn check<L: ManagedLease + FileLease>(suffix: &str, rows: [&str; 2], rest: &str) {
        let whole = format!("{}\n{}\n{}\n", L::schema().header, rows[0], rows[1]);
        let mut leases_of_last = std::collections::BTreeSet::new();
        let last_row = whole.len() - rows[1].len() - 2;
        for end in (0..last_row).step_by(17).chain(last_row..=whole.len()) {
            let server = Server::new();
            server.write(suffix, [&whole.as_bytes()[..end], rest.as_bytes()].concat());
            let read = server.files.read::<L>();
            let options =
                MemfileOptions::at(server.path("")).lfc_interval(None).lfc_program(LfcProgram::Internal);
            let loaded = memfile::open::<L>(options);
            let (Ok(read), Ok(loaded)) = (&read, &loaded) else {
                assert_eq!(read.is_err(), loaded.is_err(), "{end}: {read:?}, {loaded:?}");
                continue;
            };
            let loaded: BTreeMap<_, _> =
                loaded.all().unwrap().into_iter().map(|lease| (lease.address(), lease)).collect();
            assert_eq!(read.leases, loaded, "{end}");
            let ends_within_a_line = end > 0 && !whole[..end].ends_with('\n') || !rest.is_empty();
            assert_eq!(!read.torn.is_empty(), ends_within_a_line, "{end}");
            leases_of_last.insert(loaded.len());
        }
        assert_eq!(leases_of_last.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
    }
    match family {
        Family::V4 => check::<Lease4>(
            suffix,
            [
                "192.0.2.1,02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,,12",
                "192.0.2.2,02:00:00:00:00:02,,3600,1790003600,1,0,0,,0,,12",
            ],
            rest,
        ),
        Family::V6 => check::<Lease6>(
            suffix,
            [
                "2001:db8::1,01,3600,1790003600,1,0,0,7,128,0,0,,,0,,0,0,12",
                "2001:db8::2,01,3600,1790003600,1,0,0,7,128,0,0,,,0,,0,0,12",
            ],
            rest,
        ),
    }
}
