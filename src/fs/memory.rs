//! Files in memory, for tests.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{FileSystem, ReadFile, WriteFile};

/// Files in memory.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<HashMap<PathBuf, Content>>, Arc<Mutex<HashSet<PathBuf>>>);

/// What is locked by [`FileSystem::try_lock`], until it is dropped.
struct Locked(Arc<Mutex<HashSet<PathBuf>>>, PathBuf);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.lock().unwrap().remove(&self.1);
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Content(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub(crate) fn put(&self, path: &Path, text: &[u8]) {
        self.0.lock().unwrap().insert(path.to_owned(), Content(Arc::new(Mutex::new(text.to_vec()))));
    }

    pub(crate) fn get(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(path).map(|content| content.0.lock().unwrap().clone())
    }
}

impl Memory {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl FileSystem for Memory {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let content = self.0.lock().unwrap().get(path).cloned();
        content.map(|content| Box::new(content) as _).ok_or(io::ErrorKind::NotFound.into())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        assert_eq!(self.get(path), None, "{} must not exist", path.display());
        self.put(path, b"");
        Ok(Box::new(self.0.lock().unwrap()[path].clone()))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let content = self.0.lock().unwrap().get(path).cloned();
        content.map(|content| Box::new(content) as _).ok_or(io::ErrorKind::NotFound.into())
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.open_write(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(()))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let free = self.1.lock().unwrap().insert(path.to_owned());
        Ok(free.then(|| Box::new(Locked(Arc::clone(&self.1), path.to_owned())) as _))
    }
}

impl ReadFile for Content {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let content = self.0.lock().unwrap();
        let rest = &content[usize::try_from(at).unwrap().min(content.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok((0, Arc::as_ptr(&self.0).addr() as u64))
    }
}

impl WriteFile for Content {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let (content, at) = (&mut *self.0.lock().unwrap(), usize::try_from(at).unwrap());
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
