//! Models of the threads in a journal, in thousands of interleavings (`scripts/threads`).
//!
//! The journal is the real one; only `crate::sync` and the disk are replaced. The disk lets other
//! threads run before and after each operation, and tracks which contents are synced.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use shuttle::{check_pct, check_random, thread};

use super::*;
use crate::fs::{ReadFile, WriteFile};

const F: &str = "/leases/f";
const INPUT: &str = "/leases/f.1";
const HEADER: &str = "address,text";
const ORDERS: usize = 5000;

/// A file and its contents on the disk.
#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    /// The number of the failing operation, counted from the opening of the journal.
    fails: Option<usize>,
    operations: usize,
    /// The file that must not be written to any more.
    closed: Option<usize>,
    refuses_locks: bool,
}

/// A disk in memory.
#[derive(Clone, Debug, Default)]
pub(in crate::memfile) struct Disk(Arc<Mutex<Inner>>);

struct OpenFile(Disk, usize);

impl Disk {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Performs an operation between two points at which other threads may run.
    fn operate<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        thread::yield_now();
        let result = {
            let inner = &mut *self.inner();
            inner.operations += 1;
            if inner.fails == Some(inner.operations) { Err(io::ErrorKind::Other.into()) } else { work(inner) }
        };
        thread::yield_now();
        result
    }

    fn open_file(&self, path: &Path) -> io::Result<OpenFile> {
        let number =
            self.operate(|inner| inner.names.get(path).copied().ok_or(io::ErrorKind::NotFound.into()))?;
        Ok(OpenFile(self.clone(), number))
    }

    /// The operation of this number fails, counted from now.
    pub(in crate::memfile) fn fail_after_now(&self, fails: Option<usize>) {
        let inner = &mut *self.inner();
        (inner.operations, inner.fails) = (0, fails);
    }

    /// Returns whether that operation has come.
    pub(in crate::memfile) fn has_failed(&self) -> bool {
        let inner = self.inner();
        inner.fails.is_some_and(|fails| inner.operations >= fails)
    }

    /// Lets all locks of files fail.
    pub(in crate::memfile) fn refuse_locks(&self) {
        self.inner().refuses_locks = true;
    }

    /// Returns the rows of all files, in any order; if `durable` is set, only those on the disk.
    pub(in crate::memfile) fn rows(&self, durable: bool) -> Vec<String> {
        let inner = self.inner();
        let files = inner.names.values().map(|&number| &inner.files[number]);
        let text = |file: &File| {
            let bytes = if durable { &file.durable } else { &file.content };
            String::from_utf8(bytes.clone()).unwrap()
        };
        let mut rows = Vec::new();
        for text in files.map(text) {
            rows.extend(text.lines().skip(1).filter(|row| !row.is_empty()).map(str::to_owned));
        }
        rows
    }
}

impl FileSystem for Disk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(self.open_file(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let number = self.operate(|inner| {
            if inner.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.files.push(File::default());
            inner.names.insert(path.to_owned(), inner.files.len() - 1);
            Ok(inner.files.len() - 1)
        })?;
        Ok(Box::new(OpenFile(self.clone(), number)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.open_file(path)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.open_file(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|inner| {
            let number = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            inner.names.insert(to.to_owned(), number);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|inner| {
            let number = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            inner.names.insert(to.to_owned(), number);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|inner| inner.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into()))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.open_file(path)?.sync()
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.operate(|_| Ok(()))
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(()))
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        thread::yield_now();
        if self.inner().refuses_locks { Err(io::ErrorKind::Other.into()) } else { Ok(Some(Box::new(()))) }
    }
}

impl ReadFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.0.operate(|inner| Ok(inner.files[self.1].content.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.operate(|inner| {
            let rest = inner.files[self.1].content.get(at as usize..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.1 as u64))
    }
}

impl WriteFile for OpenFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.operate(|inner| {
            assert!(inner.closed != Some(self.1), "appended to a file that is cleaned up");
            inner.files[self.1].content.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.0.operate(|inner| {
            assert!(inner.closed != Some(self.1), "written to a file that is cleaned up");
            let (content, at) = (&mut inner.files[self.1].content, at as usize);
            content.resize(content.len().max(at + bytes.len()), 0);
            content[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.operate(|inner| {
            assert!(inner.closed != Some(self.1), "cut off, a file that is cleaned up");
            inner.files[self.1].content.resize(len as usize, 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.0.operate(|inner| {
            let file = &mut inner.files[self.1];
            file.durable = file.content.clone();
            Ok(())
        })
    }
}

/// A journal, and the expected rows.
struct Model {
    disk: Disk,
    journal: Journal,
    durability: Durability,
    acknowledged: Mutex<Vec<String>>,
    failed: Mutex<Vec<String>>,
}

impl Model {
    fn new(durability: Durability, fails: Option<usize>) -> Arc<Self> {
        let disk = Disk::default();
        let journal = Journal::open(Arc::new(disk.clone()), F.into(), HEADER, durability).unwrap();
        disk.fail_after_now(fails);
        Arc::new(Self {
            disk,
            journal,
            durability,
            acknowledged: Default::default(),
            failed: Default::default(),
        })
    }

    /// Appends rows, and checks where each of them is when it is acknowledged.
    fn append(&self, thread: usize, rows: usize) {
        for n in 0..rows {
            let row = format!("10.0.{thread}.{n},x");
            match self.journal.append(format!("{row}\n").as_bytes()) {
                Ok(()) => {
                    let is_there = self.disk.rows(self.durability == Durability::Synced).contains(&row);
                    assert!(is_there, "{row} was acknowledged");
                    self.acknowledged.lock().unwrap().push(row);
                }
                Err(_) => self.failed.lock().unwrap().push(row),
            }
        }
    }

    /// Syncs, and checks that all rows acknowledged before are durable.
    fn sync(&self) {
        let before = self.acknowledged.lock().unwrap().clone();
        if self.journal.sync().is_ok() {
            let durable = self.disk.rows(true);
            before.iter().for_each(|row| assert!(durable.contains(row), "{row} was synced"));
        }
    }

    fn rotate(&self) {
        if self.journal.rotate(Path::new(INPUT)).is_ok() {
            let inner = &mut *self.disk.inner();
            let number = inner.names[Path::new(INPUT)];
            assert_eq!(inner.files[number].content, inner.files[number].durable);
            // The cleanup may read it from here on.
            inner.closed = Some(number);
        }
    }

    /// Checks that every acknowledged row is in the files once, and no other row.
    fn end(self: Arc<Self>, mut threads: Vec<thread::JoinHandle<()>>) {
        threads.drain(..).for_each(|thread| thread.join().unwrap());
        let Self { disk, journal, acknowledged, failed, .. } = Arc::into_inner(self).unwrap();
        drop(journal);
        let (mut found, mut expected) = (disk.rows(false), acknowledged.into_inner().unwrap());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "without {:?}", failed.into_inner().unwrap());
        if disk.inner().fails.is_none() {
            // Closing the journal syncs it in every mode.
            assert_eq!(disk.rows(true).len(), found.len());
        }
    }

    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let own = Arc::clone(self);
        thread::spawn(move || work(&own))
    }
}

/// Threads append; then the journal is closed.
fn appending(durability: Durability, fails: Option<usize>) {
    let model = Model::new(durability, fails);
    let threads = (0..3).map(|thread| model.spawn(move |model| model.append(thread, 2))).collect();
    model.end(threads);
}

/// Threads append, one syncs and one rotates.
fn rotating(durability: Durability) {
    let model = Model::new(durability, None);
    let mut threads: Vec<_> =
        (0..2).map(|thread| model.spawn(move |model| model.append(thread, 3))).collect();
    threads.push(model.spawn(Model::sync));
    threads.push(model.spawn(Model::rotate));
    model.end(threads);
}

#[test]
fn a_row_is_acknowledged_after_its_sync_and_written_once() {
    check_random(|| appending(Durability::Synced, None), ORDERS);
    check_pct(|| appending(Durability::Synced, None), ORDERS, 3);
}

#[test]
fn a_row_is_acknowledged_after_its_write_and_written_once() {
    check_random(|| appending(Durability::Written, None), ORDERS);
    check_pct(|| appending(Durability::Written, None), ORDERS, 3);
}

#[test]
fn a_row_whose_write_or_sync_fails_is_not_in_the_file_and_no_thread_waits_for_it() {
    for durability in [Durability::Written, Durability::Synced] {
        for fails in 1..=12 {
            check_random(move || appending(durability, Some(fails)), ORDERS / 10);
        }
    }
}

#[test]
fn no_row_is_lost_in_a_rotation_or_written_to_a_file_that_is_cleaned_up() {
    for durability in [Durability::Written, Durability::Synced] {
        check_random(move || rotating(durability), ORDERS);
        check_pct(move || rotating(durability), ORDERS, 3);
    }
}

#[test]
fn acknowledged_rows_are_synced_at_intervals_and_when_the_journal_is_closed() {
    check_random(|| rotating(Durability::SyncedEvery(std::time::Duration::from_micros(5))), ORDERS);
}
