//! A memfile that many threads use concurrently, while its files are cleaned up.
//!
//! Every written lease has a unique number, its tag, so each answer shows which change it follows,
//! and each row of the journal which change wrote it.
//!
//! `LEASEMGR_MODEL_CASES=n` multiplies the number of rounds by `n`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use leasemgr::Durability;
use leasemgr::fs::simulated::{SimulatedDisk, State};
use leasemgr::fs::{FileSystem, OsFileSystem, ReadFile, WriteFile};
use leasemgr::lease::{Family, Hostname, HwAddr, Lease4, Lease6, LeaseState, SubnetId, system_time};
use leasemgr::lease_file::LeaseFileSet;
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use leasemgr::{
    Added, Change, ChangeKind, CleanupStart, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt, Query,
    StatisticsQuery,
};
use rstest::rstest;

use support::leases::{FIRST_CLTT, RelayTables, TestLease, assert_same, check_all, tag_of};
use support::wrap_files::{WrapFiles, WrappedFileSystem};
use support::{Contents, Random, header};

const THREADS: u64 = 4;
/// Few, so that threads collide.
const ADDRESSES: u32 = 4;

fn times() -> u64 {
    std::env::var("LEASEMGR_MODEL_CASES").map_or(1, |times| times.parse().unwrap())
}

/// Runs `work` in a thread, and panics if it does not end.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    const LONG: Duration = Duration::from_secs(1200);
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = work();
        let _ = sender.send(());
        result
    });
    for _ in 0..LONG.as_secs() {
        if receiver.recv_timeout(Duration::from_secs(1)) != Err(mpsc::RecvTimeoutError::Timeout) {
            return worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        #[cfg(deadlock_detection)]
        if let Some(threads) = support::deadlocks::find() {
            panic!("{threads}");
        }
    }
    panic!("no end after {LONG:?}: deadlock")
}

// Recorded calls.

/// The leases that a query is about.
#[derive(Clone, Debug)]
enum Filter {
    All,
    State(LeaseState),
    Subnet(SubnetId),
    HwAddr(HwAddr),
    Name(Hostname),
}

impl Filter {
    fn any(random: &mut Random) -> Self {
        let n = random.below(3);
        match random.below(5) {
            0 => Self::All,
            1 => Self::State(LeaseState(n)),
            2 => Self::Subnet(SubnetId(n)),
            3 => Self::HwAddr(HwAddr::new(&[2, 0, 0, 0, 0, n.to_le_bytes()[0]]).unwrap()),
            _ => Self::Name(Hostname::new(format!("host-{n}").as_bytes())),
        }
    }

    fn query<L: TestLease>(&self) -> Query<'_, L> {
        match self {
            Self::All => Query::all(),
            Self::State(state) => Query::state(*state),
            Self::Subnet(subnet) => Query::all().in_subnet(*subnet),
            Self::HwAddr(hwaddr) => Query::hwaddr(hwaddr),
            Self::Name(name) => Query::hostname(name),
        }
    }

    fn keeps<L: TestLease>(&self, lease: &L) -> bool {
        match self {
            Self::All => true,
            Self::State(state) => lease.state() == *state,
            Self::Subnet(subnet) => lease.data().subnet_id == *subnet,
            Self::HwAddr(hwaddr) => lease.hwaddr() == Some(hwaddr),
            Self::Name(name) => lease.data().hostname == *name,
        }
    }
}

/// What a call did with an address or learned of it. Leases are represented by their tags.
#[derive(Clone, Debug)]
enum Event {
    Added(u32),
    Taken,
    /// With the previous lease, if it is known.
    Updated(Option<u32>, u32),
    /// With the previous lease.
    UpdatedIf(u32, u32),
    Deleted(Option<u32>),
    DeletedIf(u32),
    /// There was no lease to update or to delete.
    Missing,
    /// The lease was not the expected one.
    Changed(u32),
    /// The lease of this address among those found.
    Seen(Filter, Option<u32>),
}

impl Event {
    /// Returns the lease of the address afterwards, if the event is possible with `lease` before.
    fn apply<L: TestLease>(&self, n: u32, lease: Option<u32>) -> Option<Option<u32>> {
        let unless_other =
            |expected: Option<u32>| lease.is_some() && expected.is_none_or(|tag| lease == Some(tag));
        let (possible, after) = match self {
            Self::Added(new) => (lease.is_none(), Some(*new)),
            Self::Taken => (lease.is_some(), lease),
            Self::Updated(old, new) => (unless_other(*old), Some(*new)),
            Self::UpdatedIf(old, new) => (lease == Some(*old), Some(*new)),
            Self::Deleted(old) => (unless_other(*old), None),
            Self::DeletedIf(old) => (lease == Some(*old), None),
            Self::Missing => (lease.is_none(), None),
            Self::Changed(expected) => (lease.is_some_and(|tag| tag != *expected), lease),
            Self::Seen(filter, seen) => {
                (lease.filter(|&tag| filter.keeps(&L::tagged(n, tag))) == *seen, lease)
            }
        };
        possible.then_some(after)
    }

    /// Returns the row that the event writes to the journal: the tag of the lease, and whether it
    /// is a deletion.
    fn row(&self) -> Option<(u32, bool)> {
        match self {
            Self::Added(new) | Self::Updated(_, new) | Self::UpdatedIf(_, new) => Some((*new, false)),
            Self::Deleted(Some(old)) | Self::DeletedIf(old) => Some((*old, true)),
            _ => None,
        }
    }

    fn is_change(&self) -> bool {
        matches!(self, Self::Deleted(None)) || self.row().is_some()
    }
}

/// A call, or the part of a call for one address.
#[derive(Clone, Debug)]
struct Call {
    /// The number of the address.
    n: u32,
    /// Times of the begin and the end, on the clock of all threads.
    began: u64,
    ended: u64,
    event: Event,
    /// Number of synced bytes of each journal file when the call ended.
    synced: Vec<u64>,
}

/// Returns an error unless the calls of several threads are linearizable: they can be put in an
/// order that is possible and in which no call precedes one that had ended when it began. (Wing and
/// Gong, Testing and Verifying Concurrent Objects, 1993.)
fn explain<L: TestLease>(n: u32, before: Option<u32>, threads: &[Vec<Call>]) -> Result<(), String> {
    let start = (vec![0_usize; threads.len()], before);
    let mut furthest = start.clone();
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some((done, lease)) = open.pop() {
        if done.iter().sum::<usize>() > furthest.0.iter().sum() {
            furthest = (done.clone(), lease);
        }
        let next = || {
            threads.iter().zip(&done).enumerate().filter_map(|(t, (calls, &at))| Some((t, calls.get(at)?)))
        };
        let Some(first_end) = next().map(|(_, call)| call.ended).min() else {
            return Ok(());
        };
        for (thread, call) in next().filter(|(_, call)| call.began <= first_end) {
            if let Some(after) = call.event.apply::<L>(n, lease) {
                let mut done = done.clone();
                done[thread] += 1;
                if seen.insert((done.clone(), after)) {
                    open.push((done, after));
                }
            }
        }
    }
    let (done, lease) = furthest;
    let next: Vec<_> = threads.iter().zip(&done).filter_map(|(calls, &at)| calls.get(at)).collect();
    Err(format!("address {n} has {lease:?}, and none of these can come next: {next:#?}"))
}

// A file system that watches the journal.

/// The underlying file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Real files, which are not synced: only the calls of sync are observed.
    Real,
    /// A simulated disk. It has no space for preallocation, so that a power cut may leave fewer
    /// rows.
    Simulated,
}

/// Yields to other threads at each write, and knows the content of all journal files, including
/// deleted ones.
#[derive(Clone)]
struct Watched(Arc<WatchedInner>);

struct WatchedInner {
    inner: Arc<dyn FileSystem>,
    journal: PathBuf,
    kind: Kind,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    names: BTreeMap<PathBuf, usize>,
    list: Vec<WatchedFile>,
}

/// A file opened for writing.
struct WatchedFile {
    content: Box<dyn ReadFile>,
    is_journal: bool,
    /// The position after the last written row, and after the last synced one.
    written: u64,
    synced: u64,
}

impl Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    fn new(inner: Arc<dyn FileSystem>, journal: PathBuf, kind: Kind) -> Self {
        Self(Arc::new(WatchedInner { inner, journal, kind, files: Mutex::default() }))
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.files.lock().unwrap()
    }

    /// Watches a file that is opened again.
    fn watch_again(&self, path: &Path, file: Box<dyn WriteFile>) -> io::Result<Box<dyn WriteFile>> {
        let number = self.files().names.get(path).copied();
        match number {
            Some(number) => Ok(Box::new(Writer { watched: self.clone(), number, inner: file })),
            None => self.watch(path, file),
        }
    }

    fn watch(&self, path: &Path, file: Box<dyn WriteFile>) -> io::Result<Box<dyn WriteFile>> {
        let content = self.0.inner.open(path)?;
        let mut files = self.files();
        let number = files.list.len();
        files.names.insert(path.to_owned(), number);
        let is_journal = path == self.0.journal;
        files.list.push(WatchedFile { content, is_journal, written: 0, synced: 0 });
        Ok(Box::new(Writer { watched: self.clone(), number, inner: file }))
    }

    /// Returns the number of synced bytes of each journal file.
    fn synced(&self) -> Vec<u64> {
        self.files().list.iter().filter(|file| file.is_journal).map(|file| file.synced).collect()
    }

    /// Returns the journal files in the order of their creation.
    fn journals(&self) -> Vec<Vec<u8>> {
        let files = self.files();
        let read = |file: &WatchedFile| {
            let mut bytes = vec![0; file.content.len().unwrap().try_into().unwrap()];
            let mut at = 0;
            while at < bytes.len() {
                match file.content.read_at(&mut bytes[at..], at as u64).unwrap() {
                    0 => panic!("the file became shorter"),
                    count => at += count,
                }
            }
            bytes
        };
        files.list.iter().filter(|file| file.is_journal).map(read).collect()
    }
}

impl FileSystem for Watched {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.0.inner.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.watch(path, self.0.inner.create(path)?)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.watch_again(path, self.0.inner.open_write(path)?)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.watch_again(path, self.0.inner.open_append(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        thread::yield_now();
        self.0.inner.rename(from, to)?;
        let mut files = self.files();
        if let Some(number) = files.names.remove(from) {
            files.names.insert(to.to_owned(), number);
            files.list[number].is_journal |= to == self.0.journal;
        }
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        thread::yield_now();
        self.0.inner.link(from, to)?;
        let mut files = self.files();
        if let Some(&number) = files.names.get(from) {
            files.names.insert(to.to_owned(), number);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.inner.remove(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let number = self.files().names.get(path).copied();
        let written = number.map(|number| self.files().list[number].written);
        if self.0.kind == Kind::Simulated {
            self.0.inner.sync_file(path)?;
        }
        if let (Some(number), Some(written)) = (number, written) {
            let file = &mut self.files().list[number];
            file.synced = file.synced.max(written);
        }
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        thread::yield_now();
        if self.0.kind == Kind::Simulated { self.0.inner.sync_directory(directory) } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        self.0.inner.lock(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.0.inner.try_lock(path)
    }
}

struct Writer {
    watched: Watched,
    number: usize,
    inner: Box<dyn WriteFile>,
}

impl Writer {
    fn wrote(&self, bytes: &[u8], at: u64) {
        // Empty lines are not rows.
        if let Some(last) = bytes.iter().rposition(|&byte| byte != b'\n') {
            let file = &mut self.watched.files().list[self.number];
            file.written = file.written.max(at + last as u64 + 1);
        }
        thread::yield_now();
    }
}

impl WriteFile for Writer {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let at = self.watched.files().list[self.number].content.len()?;
        self.inner.append(bytes)?;
        self.wrote(bytes, at);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        thread::yield_now();
        let is_padding = bytes.len() > 1 && bytes.iter().all(|&byte| byte == b'\n');
        if self.watched.0.kind == Kind::Simulated && is_padding {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let count = self.inner.write_at(bytes, at)?;
        self.wrote(&bytes[..count], at);
        Ok(count)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let written = self.watched.files().list[self.number].written;
        thread::yield_now();
        if self.watched.0.kind == Kind::Simulated {
            self.inner.sync()?;
        }
        let file = &mut self.watched.files().list[self.number];
        file.synced = file.synced.max(written);
        Ok(())
    }
}

/// A row of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    n: u32,
    tag: u32,
    deletes: bool,
    /// The index of its journal file, and the position after it.
    file: usize,
    end: u64,
}

/// Returns all rows of the journal files, in order.
fn rows<L: TestLease>(files: &[Vec<u8>]) -> Vec<Row> {
    let names: Vec<_> = header(L::FAMILY).split(',').collect();
    let column = |name| names.iter().position(|column| *column == name).unwrap();
    let (lifetime, expire) = (column("valid_lifetime"), column("expire"));
    let numbers: BTreeMap<IpAddr, u32> = (0..ADDRESSES).map(|n| (L::numbered(n).into(), n)).collect();
    let mut rows = Vec::new();
    for (file, content) in files.iter().enumerate() {
        assert_eq!(content.last(), Some(&b'\n'), "journal file {file} ends within a row");
        let mut end = 0;
        let mut is_first = true;
        for line in content.split_inclusive(|&byte| byte == b'\n') {
            end += line.len() as u64;
            let line = std::str::from_utf8(line).unwrap().trim_end();
            if is_first {
                assert_eq!(line, header(L::FAMILY));
                is_first = false;
            } else if !line.is_empty() {
                let values: Vec<_> = line.split(',').collect();
                assert_eq!(values.len(), names.len(), "journal file {file}: {line}");
                let n = numbers[&values[0].parse::<IpAddr>().unwrap()];
                let seconds: i64 = values[lifetime].parse().unwrap();
                let cltt = values[expire].parse::<i64>().unwrap() - seconds;
                let tag = u32::try_from(cltt - FIRST_CLTT).unwrap();
                rows.push(Row { n, tag, deletes: seconds == 0, file, end: end - 1 });
            }
        }
    }
    rows
}

// Worker threads.

/// An address, and the tags of its lease before and after a change.
type Notified = (u32, Option<u32>, Option<u32>);

thread_local! {
    /// The calls of callbacks in this thread.
    static NOTIFIED: RefCell<Vec<Notified>> = const { RefCell::new(Vec::new()) };
}

/// The changes of an address, by the tags before and after.
type Chain = Vec<(Option<u32>, Option<u32>)>;

/// State shared by all threads.
struct Work<L: TestLease> {
    mgr: Arc<dyn LeaseMgr<L>>,
    /// The journal, if there are files.
    watched: Option<Watched>,
    /// The calls of callbacks for each address, if there are callbacks.
    chains: Option<Arc<Mutex<Vec<Chain>>>>,
    clock: AtomicU64,
    tags: AtomicU32,
}

impl<L: TestLease> Work<L> {
    fn new(mgr: Arc<dyn LeaseMgr<L>>, watched: Option<Watched>, calls_back: bool) -> Self {
        let chains = calls_back.then(|| Arc::new(Mutex::new(vec![Chain::new(); ADDRESSES as usize])));
        if let Some(chains) = &chains {
            for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
                let chains = Arc::clone(chains);
                mgr.tracking()
                    .register("threads", kind, None, move |change| record(change, &chains))
                    .unwrap();
            }
        }
        Self { mgr, watched, chains, clock: AtomicU64::new(0), tags: AtomicU32::new(1) }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn new_lease(&self, n: u32) -> (u32, L) {
        let tag = self.tags.fetch_add(1, Ordering::SeqCst);
        (tag, L::tagged(n, tag))
    }

    fn synced(&self) -> Vec<u64> {
        self.watched.as_ref().map(Watched::synced).unwrap_or_default()
    }

    /// Returns the tag of each address.
    fn leases(&self) -> Vec<Option<u32>> {
        let has = |n| self.mgr.get(L::numbered(n)).unwrap().map(|lease| tag_of(n, &lease));
        (0..ADDRESSES).map(has).collect()
    }
}

fn record<L: TestLease>(change: &Change<'_, L>, chains: &Mutex<Vec<Chain>>) {
    let address = change.address();
    let n = (0..ADDRESSES).find(|&n| L::numbered(n) == address).unwrap();
    let tag = |lease: &L| tag_of(n, lease);
    let (old, new) = (change.before().map(tag), change.now().map(tag));
    NOTIFIED.with_borrow_mut(|notified| notified.push((n, old, new)));
    // So that other threads overtake if they can.
    thread::yield_now();
    chains.lock().unwrap()[n as usize].push((old, new));
}

/// A worker thread.
struct Worker<'a, L: TestLease> {
    work: &'a Work<L>,
    random: Random,
    /// The last tag that it saw of each address.
    seen: Vec<Option<u32>>,
    calls: Vec<Call>,
    /// The times of its flushes, and what was synced then.
    flushes: Vec<(u64, Vec<u64>)>,
    /// Percentage of calls that delete several leases, which only callbacks tell apart.
    bulk: u32,
}

impl<'a, L: TestLease> Worker<'a, L> {
    fn new(work: &'a Work<L>, seed: u64, bulk: u32) -> Self {
        let seen = vec![None; ADDRESSES as usize];
        NOTIFIED.take();
        Self { work, random: Random(seed), seen, calls: Vec::new(), flushes: Vec::new(), bulk }
    }

    /// Calls the manager, and records the events.
    fn call(&mut self, call: impl FnOnce(&mut Self, &dyn LeaseMgr<L>) -> Vec<(u32, Event)>) {
        let mgr = Arc::clone(&self.work.mgr);
        let began = self.work.now();
        let events = call(self, mgr.as_ref());
        let synced = self.work.synced();
        let ended = self.work.now();
        for (n, event) in events {
            if let Some((tag, deletes)) = event.row() {
                self.seen[n as usize] = (!deletes).then_some(tag);
            }
            self.calls.push(Call { n, began, ended, event, synced: synced.clone() });
        }
    }

    /// Returns the tag of the old lease in the callback of the last change.
    fn notified_old(&self) -> Option<u32> {
        self.work.chains.as_ref().map(|_| NOTIFIED.take().pop().unwrap().1.unwrap())
    }

    fn step(&mut self) {
        if self.random.below(100) < self.bulk {
            return if self.random.below(2) == 0 { self.wipe() } else { self.remove_reclaimed() };
        }
        let n = self.random.below(ADDRESSES);
        let (tag, lease) = self.work.new_lease(n);
        let address = lease.address();
        let read = self.seen[n as usize].unwrap_or(0);
        let believed = L::tagged(n, read);
        match self.random.below(100) {
            0..20 => self.call(|_, mgr| match mgr.add(&lease).unwrap() {
                Added::Added => vec![(n, Event::Added(tag))],
                Added::AddressTaken => vec![(n, Event::Taken)],
            }),
            20..35 => self.call(|this, mgr| match mgr.update(&lease) {
                Ok(()) => vec![(n, Event::Updated(this.notified_old(), tag))],
                Err(LeaseMgrError::NoSuchLease { .. }) => vec![(n, Event::Missing)],
                Err(error) => panic!("update: {error}"),
            }),
            35..60 => self.call(|_, mgr| match mgr.update_if_unchanged(&believed, &lease) {
                Ok(()) => vec![(n, Event::UpdatedIf(read, tag))],
                Err(LeaseMgrError::NoSuchLease { .. }) => vec![(n, Event::Missing)],
                Err(LeaseMgrError::ChangedMeanwhile { .. }) => vec![(n, Event::Changed(read))],
                Err(error) => panic!("conditional update: {error}"),
            }),
            60..67 => self.call(|this, mgr| match mgr.delete(address).unwrap() {
                Deleted::Deleted => vec![(n, Event::Deleted(this.notified_old()))],
                Deleted::NoSuchLease => vec![(n, Event::Missing)],
            }),
            67..74 => self.call(|_, mgr| match mgr.delete_if_unchanged(&believed) {
                Ok(Deleted::Deleted) => vec![(n, Event::DeletedIf(read))],
                Ok(Deleted::NoSuchLease) => vec![(n, Event::Missing)],
                Err(LeaseMgrError::ChangedMeanwhile { .. }) => vec![(n, Event::Changed(read))],
                Err(error) => panic!("conditional deletion: {error}"),
            }),
            74..86 => self.call(|this, mgr| {
                let found = mgr.get(address).unwrap().map(|lease| tag_of(n, &lease));
                this.seen[n as usize] = found;
                vec![(n, Event::Seen(Filter::All, found))]
            }),
            86..94 => self.find(),
            94..96 => {
                self.work.mgr.flush().unwrap();
                let synced = self.work.synced();
                self.flushes.push((self.calls.last().map_or(0, |call| call.ended), synced));
            }
            96..99 => self.query_several(),
            _ => self.work.mgr.recount().unwrap(),
        }
        NOTIFIED.take();
    }

    fn find(&mut self) {
        let filter = Filter::any(&mut self.random);
        self.call(|this, mgr| {
            let found = mgr.find(&filter.query()).unwrap();
            assert!(found.is_sorted_by(|a, b| a.address() < b.address()), "{filter:?}: {found:?}");
            let seen = |n| {
                let lease = found.iter().find(|lease| lease.address() == L::numbered(n));
                let tag = lease.map(|lease| tag_of(n, lease));
                if tag.is_some() {
                    this.seen[n as usize] = tag;
                }
                (n, Event::Seen(filter.clone(), tag))
            };
            (0..ADDRESSES).map(seen).collect()
        });
    }

    /// Deletes leases, and records them.
    fn delete_all(&mut self, filter: Filter, delete: impl FnOnce(&dyn LeaseMgr<L>) -> u64) {
        self.call(|_, mgr| {
            NOTIFIED.take();
            let count = delete(mgr);
            let notified = NOTIFIED.take();
            assert_eq!(count, notified.len() as u64, "deleted leases");
            let mut events: Vec<_> =
                notified.into_iter().map(|(n, old, _)| (n, Event::Deleted(old))).collect();
            // At one moment of the call no such lease was left.
            events.extend((0..ADDRESSES).map(|n| (n, Event::Seen(filter.clone(), None))));
            events
        });
    }

    fn wipe(&mut self) {
        let subnet = SubnetId(self.random.below(2));
        self.delete_all(Filter::Subnet(subnet), |mgr| mgr.wipe_subnet(subnet).unwrap());
    }

    fn remove_reclaimed(&mut self) {
        let reclaimed = Filter::State(LeaseState::EXPIRED_RECLAIMED);
        self.delete_all(reclaimed, |mgr| mgr.delete_reclaimed(system_time(i64::MAX)).unwrap());
    }

    /// Queries several leases, whose answers can only be checked for impossible ones.
    fn query_several(&self) {
        let mgr = self.work.mgr.as_ref();
        let expired = mgr.list_expired(system_time(i64::MAX), 0).unwrap();
        assert!(expired.iter().all(|lease| !lease.is_reclaimed()), "{expired:?}");
        assert!(expired.is_sorted_by_key(L::expires_at), "{expired:?}");
        let counted: u64 =
            mgr.statistics(&StatisticsQuery::default()).unwrap().iter().map(|row| row.count).sum();
        assert!(counted <= ADDRESSES.into(), "{counted} leases");
        assert!(mgr.status().leases <= Some(ADDRESSES.into()));
        for n in 0..ADDRESSES {
            if let Some(lease) = expired.iter().find(|lease| lease.address() == L::numbered(n)) {
                tag_of(n, lease);
            }
        }
    }
}

/// Requests cleanups repeatedly until `is_over` is set.
fn clean_up_repeatedly<L: TestLease>(mgr: &dyn LeaseMgr<L>, is_over: &AtomicBool, count: &AtomicU64) {
    while !is_over.load(Ordering::SeqCst) {
        assert!(matches!(mgr.clean_up().unwrap(), CleanupStart::Requested | CleanupStart::Running));
        let status = mgr.status().cleanup.unwrap();
        assert_eq!(status.failed, 0, "{:?}", status.last);
        count.store(status.succeeded, Ordering::SeqCst);
        // Requests during a cleanup are merged.
        thread::sleep(Duration::from_micros(300));
    }
}

/// Sets a flag when dropped, also by a panic.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The calls of all threads in one round.
struct Round {
    calls: Vec<Vec<Call>>,
    flushes: Vec<(u64, Vec<u64>)>,
}

/// Lets all threads take at least `steps` steps, and waits for some cleanups if there are files.
fn run_round<L: TestLease>(work: &Work<L>, seed: u64, steps: usize) -> Round {
    const CLEANUPS: u64 = 2;
    let (is_over, cleanups) = (AtomicBool::new(false), AtomicU64::new(0));
    let ended_before = work.mgr.status().cleanup.map_or(0, |cleanup| cleanup.succeeded);
    thread::scope(|scope| {
        if work.watched.is_some() {
            scope.spawn(|| {
                let _over_if_it_panics = RaiseOnPanic(&is_over);
                clean_up_repeatedly(work.mgr.as_ref(), &is_over, &cleanups);
            });
        }
        let bulk = if work.chains.is_none() { 0 } else { [2, 30][(seed % 2) as usize] };
        let run = |thread: u64| {
            let (is_over, cleanups) = (&is_over, &cleanups);
            let work_on = move || {
                let mut worker = Worker::new(work, seed << 8 | thread, bulk);
                let enough =
                    || work.watched.is_none() || cleanups.load(Ordering::SeqCst) >= ended_before + CLEANUPS;
                let mut taken = 0;
                while (taken < steps || !enough()) && !is_over.load(Ordering::SeqCst) {
                    worker.step();
                    taken += 1;
                }
                (worker.calls, worker.flushes)
            };
            scope.spawn(move || {
                let _over_if_it_panics = RaiseOnPanic(is_over);
                work_on()
            })
        };
        let _over = Raise(&is_over);
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        let (calls, flushes): (Vec<_>, Vec<_>) =
            threads.into_iter().map(|thread| thread.join().unwrap()).unzip();
        Round { calls, flushes: flushes.concat() }
    })
}

/// Stops the other threads when a thread panics.
struct RaiseOnPanic<'a>(&'a AtomicBool);

impl Drop for RaiseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// The storage of the leases, and whether there are callbacks.
#[derive(Clone, Copy, Debug)]
struct Setting {
    durability: Option<Durability>,
    calls_back: bool,
}

fn check_histories<L: TestLease>(setting: Setting) {
    const STEPS: usize = 150;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.csv");
    let tables = RelayTables(true);
    let options = || {
        MemfileOptions::default()
            .file(setting.durability.map(|_| path.clone()))
            .lfc_interval(None)
            .extended_info_tables(tables.0)
            .durability(setting.durability.unwrap_or_default())
            .lfc_program(LfcProgram::Internal)
    };
    let watched = Watched::new(Arc::new(OsFileSystem), path.clone(), Kind::Real);
    let mgr = memfile::open_on::<L>(options(), Arc::new(watched.clone())).unwrap();
    let work = Arc::new(Work::new(mgr, setting.durability.map(|_| watched), setting.calls_back));
    let mut rounds = Vec::new();
    let usual_rounds = if setting.durability.is_some() { 8 } else { 30 };
    for seed in 0..usual_rounds * times() {
        let before = work.leases();
        let round = {
            let work = Arc::clone(&work);
            ends(move || run_round(&work, seed, STEPS))
        };
        check_quiet(&work, tables);
        check_order::<L>(&round, &before, &work.leases());
        rounds.push(round);
    }
    let leases = work.mgr.all().unwrap();
    if let Some(chains) = &work.chains {
        check_chains(&chains.lock().unwrap(), &work.leases());
    }
    let Some(durability) = setting.durability else {
        return;
    };
    let read = LeaseFileSet::new(&path).read::<L>().unwrap();
    assert_eq!((read.invalid_rows.len(), read.needs_conversion), (0, false));
    assert_same("the lease files", &read.leases.into_values().collect::<Vec<_>>(), &leases);

    let work = Arc::into_inner(work).unwrap();
    let Work { mgr, watched, chains, .. } = work;
    drop(mgr);
    check_rows::<L>(&watched.unwrap(), durability, &rounds, chains.as_deref());
    let mgr = memfile::open::<L>(options()).unwrap();
    check_all(&*mgr, tables, &leases, &[]);
}

/// Panics unless all indexes agree with the leases while no thread runs.
fn check_quiet<L: TestLease>(work: &Work<L>, tables: RelayTables) {
    let leases = work.mgr.all().unwrap();
    let others: Vec<_> = (0..ADDRESSES).flat_map(|n| (1..12).map(move |tag| L::tagged(n, tag))).collect();
    check_all(work.mgr.as_ref(), tables, &leases, &others);
    assert_eq!(work.mgr.status().refused, None);
}

/// Panics unless the calls of a round are linearizable for each address.
fn check_order<L: TestLease>(round: &Round, before: &[Option<u32>], after: &[Option<u32>]) {
    let end = round.calls.iter().flatten().map(|call| call.ended).max().unwrap();
    for n in 0..ADDRESSES {
        let (first, last) = (before[n as usize], after[n as usize]);
        let of_address = |calls: &Vec<Call>| calls.iter().filter(|call| call.n == n).cloned().collect();
        let mut threads: Vec<Vec<Call>> = round.calls.iter().map(of_address).collect();
        let event = Event::Seen(Filter::All, last);
        threads.push(vec![Call { n, began: end + 1, ended: end + 2, event, synced: Vec::new() }]);
        explain::<L>(n, first, &threads).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Panics unless callbacks were called for all changes, in order.
fn check_chains(chains: &[Chain], leases: &[Option<u32>]) {
    for (n, chain) in chains.iter().enumerate() {
        let mut lease = None;
        for (old, new) in chain {
            assert_eq!(*old, lease, "address {n}: the old lease in the callback");
            lease = *new;
        }
        assert_eq!(lease, leases[n], "address {n}: the new lease in the last callback");
    }
}

/// Panics unless each change has one row in the journal, in the order of the changes, with the
/// promised durability.
fn check_rows<L: TestLease>(
    watched: &Watched,
    durability: Durability,
    rounds: &[Round],
    chains: Option<&Mutex<Vec<Chain>>>,
) {
    let journals = watched.journals();
    assert!(journals.len() > 1, "the journal was never rotated");
    let rows = rows::<L>(&journals);
    for n in 0..ADDRESSES {
        let of_address: Vec<_> =
            rows.iter().filter(|row| row.n == n).map(|row| (row.tag, row.deletes)).collect();
        if let Some(chains) = chains {
            let row = |(old, new): &(Option<u32>, Option<u32>)| match new {
                Some(tag) => (*tag, false),
                None => (old.unwrap(), true),
            };
            let expected: Vec<_> = chains.lock().unwrap()[n as usize].iter().map(row).collect();
            assert_eq!(of_address, expected, "rows of address {n}");
        }
        // A lease is deleted only if it exists, and only once.
        let mut there = None;
        for (tag, deletes) in &of_address {
            assert!(!deletes || there == Some(*tag), "address {n}: {tag} is deleted, {there:?} is there");
            there = (!deletes).then_some(*tag);
        }
    }

    let calls = || rounds.iter().flat_map(|round| round.calls.iter().flatten());
    assert_eq!(rows.len(), calls().filter(|call| call.event.is_change()).count(), "rows and changes");
    let places: BTreeMap<_, _> =
        rows.iter().map(|row| ((row.n, row.tag, row.deletes), (row.file, row.end))).collect();
    assert_eq!(places.len(), rows.len(), "a row is written twice");
    let changes: Vec<_> = calls()
        .filter_map(|call| call.event.row().map(|(tag, deletes)| (call, (call.n, tag, deletes))))
        .map(|(call, row)| (call, *places.get(&row).unwrap_or_else(|| panic!("no row for {call:?}"))))
        .collect();
    let is_synced =
        |synced: &[u64], (file, end): (usize, u64)| synced.get(file).is_some_and(|&upto| upto >= end);
    if durability == Durability::Synced {
        for (call, place) in &changes {
            assert!(
                is_synced(&call.synced, *place),
                "acknowledged before its row at {place:?} was synced: {call:?}"
            );
        }
    }
    for (time, synced) in rounds.iter().flat_map(|round| &round.flushes) {
        for (call, place) in changes.iter().filter(|(call, _)| call.ended <= *time) {
            assert!(is_synced(synced, *place), "not synced by a flush: the row at {place:?} of {call:?}");
        }
    }
}

#[rstest]
#[case::in_memory(None, false)]
#[case::in_memory_with_callbacks(None, true)]
#[case::written(Some(Durability::Written), false)]
#[case::written_with_callbacks(Some(Durability::Written), true)]
#[case::synced(Some(Durability::Synced), false)]
#[case::synced_with_callbacks(Some(Durability::Synced), true)]
#[case::synced_at_times(Some(Durability::SyncedEvery(Duration::from_millis(1))), true)]
fn calls_for_an_address_are_linearizable(
    #[case] durability: Option<Durability>,
    #[case] calls_back: bool,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    let setting = Setting { durability, calls_back };
    match family {
        Family::V4 => check_histories::<Lease4>(setting),
        Family::V6 => check_histories::<Lease6>(setting),
    }
}

// Concurrent bulk deletions.

/// Threads delete the same leases: some those of a subnet, in address order, others the reclaimed
/// ones, in expiry order, which is the reverse.
fn check_bulk_deletions<L: TestLease>() {
    const LEASES: u32 = 48;
    const ROUNDS: u32 = 100;
    let rounds = ROUNDS * u32::try_from(times()).unwrap();
    let mgr = memfile::open::<L>(MemfileOptions::default()).unwrap();
    let deleted = {
        let mgr = Arc::clone(&mgr);
        ends(move || {
            let delete = |start: &Barrier, delete_all: &dyn Fn() -> u64| {
                let delete_in_round = |_| {
                    start.wait();
                    let deleted = delete_all();
                    start.wait();
                    deleted
                };
                (0..rounds).map(delete_in_round).sum::<u64>()
            };
            let wipe = || mgr.wipe_subnet(SubnetId(0)).unwrap();
            let remove = || mgr.delete_reclaimed(system_time(i64::MAX)).unwrap();
            let start = Barrier::new(5);
            thread::scope(|scope| {
                let threads = [0, 1].map(|_| {
                    [scope.spawn(|| delete(&start, &wipe)), scope.spawn(|| delete(&start, &remove))]
                });
                for round in 0..rounds {
                    for n in 0..LEASES {
                        // Reclaimed, and in subnet 0.
                        let tag = 14 * (LEASES * (round + 1) - n);
                        assert_eq!(mgr.add(&L::tagged(n, tag)).unwrap(), Added::Added);
                    }
                    start.wait();
                    start.wait();
                    assert_eq!(mgr.status().leases, Some(0));
                }
                threads.into_iter().flatten().map(|thread| thread.join().unwrap()).sum::<u64>()
            })
        })
    };
    assert_eq!(deleted, u64::from(LEASES * rounds));
}

#[rstest]
fn concurrent_bulk_deletions_do_not_deadlock(#[values(Family::V4, Family::V6)] family: Family) {
    match family {
        Family::V4 => check_bulk_deletions::<Lease4>(),
        Family::V6 => check_bulk_deletions::<Lease6>(),
    }
}

// Power cuts.

/// A moment, and the state of the disk.
struct Moment {
    before: u64,
    state: State,
    after: u64,
}

fn check_power_cuts<L: TestLease>() {
    const MOMENTS: u64 = 20;
    const STEPS: usize = 100;
    const TRIED: usize = 3;
    let path = PathBuf::from("/leases/leases.csv");
    let options = || {
        MemfileOptions::at(path.clone())
            .lfc_interval(None)
            .durability(Durability::Synced)
            .lfc_program(LfcProgram::Internal)
    };
    let disk = SimulatedDisk::new(State::holding(&Contents::new()));
    let watched = Watched::new(Arc::new(disk.clone()), path.clone(), Kind::Simulated);
    let mgr = memfile::open_on::<L>(options(), Arc::new(watched.clone())).unwrap();
    let work = Arc::new(Work::new(mgr, Some(watched), true));
    let (calls, moments) = {
        let (work, disk) = (Arc::clone(&work), disk.clone());
        ends(move || {
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                let rounds = scope.spawn({
                    let (work, is_over) = (&work, &is_over);
                    move || {
                        let _over = Raise(is_over);
                        let mut rounds = Vec::new();
                        for seed in 0..2 * times() {
                            rounds.push(run_round(work, 1000 + seed, STEPS));
                        }
                        rounds
                    }
                });
                let mut moments = Vec::new();
                while !is_over.load(Ordering::SeqCst) && moments.len() < (MOMENTS * times()) as usize {
                    let before = work.now();
                    let state = disk.state();
                    moments.push(Moment { before, state, after: work.now() });
                    // The next moment differs.
                    thread::sleep(Duration::from_millis(5));
                }
                let calls: Vec<_> =
                    rounds.join().unwrap().into_iter().flat_map(|round| round.calls).flatten().collect();
                (calls, moments)
            })
        })
    };
    let chains = work.chains.as_ref().unwrap().lock().unwrap().clone();
    check_chains(&chains, &work.leases());
    // The index of each call's row among the changes of its address.
    let mut places = BTreeMap::new();
    for (n, chain) in (0..).zip(&chains) {
        for (at, (old, new)) in chain.iter().enumerate() {
            places.insert((n, new.or(*old).unwrap(), new.is_none()), at);
        }
    }
    let place = |call: &Call| call.event.row().map(|(tag, deletes)| places[&(call.n, tag, deletes)]);
    let mut random = Random(7);
    for Moment { before, state, after } in moments {
        for contents in state.some_survivors(random.next(), TRIED) {
            let left = Arc::new(SimulatedDisk::new(State::holding(&contents)));
            let left = memfile::open_on::<L>(options(), left).unwrap();
            for n in 0..ADDRESSES {
                let of_address = || calls.iter().filter(|call| call.n == n);
                let acknowledged = of_address().filter(|call| call.ended < before).filter_map(place).max();
                let tried = of_address().filter(|call| call.began < after).filter_map(place).max();
                let least = acknowledged.map_or(0, |at| at + 1);
                let most = tried.map_or(0, |at| at + 1);
                let found = left.get(L::numbered(n)).unwrap().map(|lease| tag_of(n, &lease));
                let chain = &chains[n as usize];
                let lease_behind = |changes: usize| if changes == 0 { None } else { chain[changes - 1].1 };
                let possible: Vec<_> = (least..=most).map(lease_behind).collect();
                assert!(
                    possible.contains(&found),
                    "address {n} after a power cut: found {found:?}, expected one of {possible:?}"
                );
            }
        }
    }
}

#[rstest]
fn acknowledged_changes_of_many_threads_survive_a_power_cut(
    #[values(Family::V4, Family::V6)] family: Family,
) {
    match family {
        Family::V4 => check_power_cuts::<Lease4>(),
        Family::V6 => check_power_cuts::<Lease6>(),
    }
}

// A file that blocks writers.

/// The operation that a gate blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Write,
    Sync,
}

/// Blocks writes or syncs while it is closed.
#[derive(Debug)]
struct Gate {
    stop: Stop,
    /// Whether it is closed, and the number of waiting threads.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, stop: Stop) {
        if stop == self.stop {
            let mut state = self.state.lock().unwrap();
            state.1 += 1;
            self.changed.notify_all();
            let mut state = self.changed.wait_while(state, |(is_closed, _)| *is_closed).unwrap();
            state.1 -= 1;
        }
    }

    fn set_closed(&self, is_closed: bool) {
        self.state.lock().unwrap().0 = is_closed;
        self.changed.notify_all();
    }

    fn wait_for_a_waiter(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |(_, waiting)| *waiting == 0).unwrap());
    }
}

/// Adds a gate to files.
#[derive(Debug)]
struct Gated(Arc<Gate>);

struct GatedFile(Arc<Gate>, Box<dyn WriteFile>);

impl WrapFiles for Gated {
    fn wrap_write(&self, file: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        Box::new(GatedFile(Arc::clone(&self.0), file))
    }
}

impl WriteFile for GatedFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.pass(Stop::Write);
        self.1.append(bytes)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.pass(Stop::Write);
        self.1.write_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.pass(Stop::Sync);
        self.1.sync()
    }
}

fn check_readers<L: TestLease>(durability: Durability, stop: Stop) {
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate { stop, state: Mutex::default(), changed: Condvar::new() });
    let options = MemfileOptions::at(directory.path().join("leases.csv"))
        .lfc_interval(None)
        .durability(durability)
        .lfc_program(LfcProgram::Internal);
    let fs = WrappedFileSystem(Gated(Arc::clone(&gate)), OsFileSystem);
    let mgr = memfile::open_on::<L>(options, Arc::new(fs));
    let mgr = mgr.unwrap();
    let leases: Vec<L> = [1, 2, 3].map(|n| L::tagged(n, n)).to_vec();
    for lease in &leases {
        assert_eq!(mgr.add(lease).unwrap(), Added::Added);
    }
    // A renewed lease is at another position of the expiry index.
    let renewed = L::tagged(1, 8);
    mgr.update(&renewed).unwrap();
    let leases = [renewed.clone(), leases[1].clone(), leases[2].clone()];

    gate.set_closed(true);
    let changers: Vec<_> = [
        |mgr: &dyn LeaseMgr<L>| mgr.update(&L::tagged(2, 16)).unwrap(),
        |mgr: &dyn LeaseMgr<L>| assert_eq!(mgr.add(&L::tagged(0, 17)).unwrap(), Added::Added),
        |mgr: &dyn LeaseMgr<L>| assert_eq!(mgr.delete(L::numbered(3)).unwrap(), Deleted::Deleted),
    ]
    .into_iter()
    .map(|change| {
        let mgr = Arc::clone(&mgr);
        thread::spawn(move || change(&*mgr))
    })
    .collect();
    gate.wait_for_a_waiter();
    {
        let (mgr, leases) = (Arc::clone(&mgr), leases.clone());
        ends(move || {
            check_all(&*mgr, RelayTables(false), &leases, &[L::tagged(2, 16), L::tagged(0, 17)]);
            assert_eq!(mgr.status().refused, None);
            assert!(mgr.tracking().try_lock(L::numbered(2)).is_some());
        });
    }
    gate.set_closed(false);
    ends(move || changers.into_iter().for_each(|changer| changer.join().unwrap()));
    let after = [L::tagged(0, 17), renewed, L::tagged(2, 16)];
    check_all(&*mgr, RelayTables(false), &after, &leases);
}

#[rstest]
#[case::of_a_row(Durability::Written, Stop::Write)]
#[case::of_a_synced_row(Durability::Synced, Stop::Write)]
#[case::of_a_sync(Durability::Synced, Stop::Sync)]
fn readers_do_not_wait_for_the_write(
    #[case] durability: Durability,
    #[case] stop: Stop,
    #[values(Family::V4, Family::V6)] family: Family,
) {
    match family {
        Family::V4 => check_readers::<Lease4>(durability, stop),
        Family::V6 => check_readers::<Lease6>(durability, stop),
    }
}
