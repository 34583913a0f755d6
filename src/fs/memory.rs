//! Files in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::{FileSystem, ReadFile, WriteFile, in_memory};

/// Files in memory, for tests, examples and benchmarks. Clones share the files.
///
/// All directories exist. There are no symbolic links, owners or modes, and nothing is durable: for
/// power cuts and failures there is the module `simulated` (feature `simulated-disk`).
///
/// ```
/// use std::sync::Arc;
/// use leasemgr::fs::Memory;
/// use leasemgr::lease::Lease4;
/// use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions};
///
/// let files = Memory::default();
/// let leases = Memfile::<Lease4>::open_on(
///     MemfileOptions::at("leases4.csv").lfc_program(LfcProgram::Internal),
///     Arc::new(files.clone()),
/// )?;
/// assert!(files.get("leases4.csv").is_some_and(|text| text.starts_with(b"address,")));
/// # drop(leases);
/// # Ok::<(), leasemgr::memfile::OpenError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Files>);

#[derive(Debug, Default)]
struct Files {
    by_name: Mutex<BTreeMap<PathBuf, Content>>,
    locked: Mutex<BTreeSet<PathBuf>>,
    unlocked: Condvar,
}

/// A file, which may have several names or none.
#[derive(Clone, Debug)]
struct Content {
    number: u64,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Content {
    fn new(bytes: Vec<u8>) -> Self {
        static FILES: AtomicU64 = AtomicU64::new(0);
        Self { number: FILES.fetch_add(1, Ordering::Relaxed), bytes: Arc::new(Mutex::new(bytes)) }
    }
}

impl Memory {
    /// Creates a file with these bytes, and replaces a file of that name. Open handles keep the old
    /// file.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: &[u8]) {
        self.0.by_name.lock().insert(path.into(), Content::new(bytes.to_vec()));
    }

    /// Returns the bytes of a file; `None` if no file has this name.
    #[must_use]
    pub fn get(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.0.by_name.lock().get(path.as_ref()).map(|content| content.bytes.lock().clone())
    }

    /// Returns the names of all files, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<PathBuf> {
        self.0.by_name.lock().keys().cloned().collect()
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        self.0.by_name.lock().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock_guard(&self, path: &Path) -> LockGuard {
        LockGuard { files: Arc::clone(&self.0), path: path.to_owned() }
    }
}

impl FileSystem for Memory {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(self.content(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut files = self.0.by_name.lock();
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Content::new(Vec::new());
        files.insert(path.to_owned(), content.clone());
        Ok(Box::new(content))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.content(path)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(AppendOnly(self.content(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.by_name.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.by_name.lock();
        let content = files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.by_name.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.content(path).map(drop)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        let mut locked = self.0.locked.lock();
        while !locked.insert(path.to_owned()) {
            self.0.unlocked.wait(&mut locked);
        }
        Ok(Box::new(self.lock_guard(path)))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let is_free = self.0.locked.lock().insert(path.to_owned());
        Ok(is_free.then(|| Box::new(self.lock_guard(path)) as _))
    }
}

/// A lock, until it is dropped.
struct LockGuard {
    files: Arc<Files>,
    path: PathBuf,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.files.locked.lock().remove(&self.path);
        self.files.unlocked.notify_all();
    }
}

impl ReadFile for Content {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock();
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, self.number))
    }
}

impl WriteFile for Content {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, new: &[u8], at: u64) -> io::Result<usize> {
        let (start, end) = (in_memory(at)?, in_memory(at.saturating_add(new.len() as u64))?);
        let mut bytes = self.bytes.lock();
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[start..end].copy_from_slice(new);
        Ok(new.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().resize(in_memory(len)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that was opened to append to it.
struct AppendOnly(Content);

impl WriteFile for AppendOnly {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(super::opened_to_append())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_open_handle_keeps_its_file_when_the_name_is_replaced_or_removed() {
        let files = Memory::default();
        files.put("a", b"old");
        let old = files.open(Path::new("a")).unwrap();
        files.put("a", b"newer");
        assert_eq!((old.len().unwrap(), files.get("a").unwrap()), (3, b"newer".to_vec()));
        assert_ne!(old.identity().unwrap(), files.open(Path::new("a")).unwrap().identity().unwrap());
        files.link(Path::new("a"), Path::new("b")).unwrap();
        files.rename(Path::new("a"), Path::new("c")).unwrap();
        files.open_append(Path::new("b")).unwrap().append(b"!").unwrap();
        assert_eq!(files.names(), [Path::new("b"), Path::new("c")]);
        assert_eq!(files.get("c").unwrap(), b"newer!");
        files.remove(Path::new("b")).unwrap();
        assert_eq!(files.remove(Path::new("b")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn bytes_are_written_and_read_at_their_offsets() {
        let files = Memory::default();
        let file = files.create(Path::new("a")).unwrap();
        assert_eq!(file.write_at(b"xy", 3).unwrap(), 2);
        assert_eq!(files.get("a").unwrap(), b"\0\0\0xy");
        file.set_len(4).unwrap();
        file.append(b"z").unwrap();
        assert_eq!(files.get("a").unwrap(), b"\0\0\0xz");
        let mut buffer = [0; 8];
        let read = files.open(Path::new("a")).unwrap();
        assert_eq!((read.read_at(&mut buffer, 3).unwrap(), &buffer[..2]), (2, &b"xz"[..]));
        assert_eq!(read.read_at(&mut buffer, u64::MAX).unwrap(), 0);
        assert_eq!(file.write_at(b"x", u64::MAX).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let append = files.open_append(Path::new("a")).unwrap();
        assert_eq!(append.write_at(b"x", 0).unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(files.create(Path::new("a")).map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn lock_waits_until_the_holder_drops_its_guard() {
        let files = Memory::default();
        let path = Path::new("a.lock");
        let held = files.try_lock(path).unwrap().expect("the lock is free");
        assert!(files.try_lock(path).unwrap().is_none());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let files = files.clone();
            scope.spawn(move || {
                let lock = files.lock(path).unwrap();
                sender.send(()).unwrap();
                drop(lock);
            });
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            drop(held);
            receiver.recv().unwrap();
        });
        assert!(files.try_lock(path).unwrap().is_some());
    }
}
