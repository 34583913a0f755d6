//! The implementation of the traits of `fs`.

use std::io;
use std::path::{Path, PathBuf};

use super::state::{FileId, State, apply, sync};
use super::{Action, SimulatedDisk};
use crate::fs::{Attributes, FileSystem, ReadFile, WriteFile, directory_of, in_memory};

impl FileSystem for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(self.open_by(Action::Open, path, 4)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let attributes = self.inner().users.of_new_file();
        Ok(Box::new(self.create_with(path, Ok(attributes))?))
    }

    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let users = self.inner().users.clone();
        let attributes = users.take_over(attributes, &users.of_new_file());
        Ok(Box::new(self.create_with(path, attributes)?))
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let users = self.inner().users.clone();
        self.operate(Action::SetAttributes, path, |state, _| {
            let id = state.id_of(path)?;
            let now = &mut state.files[id].attributes;
            *now = users.take_over(attributes, now)?;
            Ok(())
        })
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.open_by(Action::OpenWrite, path, 2)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.open_by(Action::OpenAppend, path, 2)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(Action::Rename, from, |state, _| {
            let id = state.id_of(from)?;
            state.change(vec![(from.to_owned(), None), (to.to_owned(), Some(id))]);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.inner().has_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.operate(Action::Link, from, |state, _| {
            let id = state.id_of(from)?;
            if state.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.change(vec![(to.to_owned(), Some(id))]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(Action::Remove, path, |state, _| {
            state.id_of(path)?;
            state.change(vec![(path.to_owned(), None)]);
            Ok(())
        })
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.operate(Action::Sync, path, |state, effect| {
            let id = state.id_of(path)?;
            sync(state, id, effect);
            Ok(())
        })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.operate(Action::SyncDirectory, directory, |state, _| {
            for change in &mut state.pending {
                let names = std::mem::take(&mut change.names).into_iter();
                let (durable, pending): (Vec<_>, _) =
                    names.partition(|(path, _)| directory_of(path) == directory);
                change.names = pending;
                apply(&mut state.durable_names, &durable);
            }
            state.pending.retain(|change| !change.names.is_empty());
            Ok(())
        })
    }

    // The lock's file is empty, so that it does not matter whether its name survives.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        self.operate(Action::Lock, path, |_, _| Ok(()))?;
        match self.hold(path) {
            Some(lock) => Ok(Box::new(lock)),
            None => Err(io::Error::other("the lock is held: a real file system would wait for its holder")),
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.operate(Action::Lock, path, |_, _| Ok(()))?;
        Ok(self.hold(path).map(|lock| Box::new(lock) as _))
    }
}

/// A lock, held until it is dropped.
pub(super) struct Lock(SimulatedDisk, PathBuf);

impl Lock {
    pub(super) fn new(disk: SimulatedDisk, path: PathBuf) -> Self {
        Self(disk, path)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.inner().locked.remove(&self.1);
    }
}

/// An open file, with the name by which it was opened.
pub(super) struct OpenFile {
    disk: SimulatedDisk,
    id: FileId,
    path: PathBuf,
}

impl OpenFile {
    pub(super) fn new(disk: SimulatedDisk, id: FileId, path: PathBuf) -> Self {
        Self { disk, id, path }
    }
}

impl ReadFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.operate(Action::Len, &self.path, |state, _| Ok(state.files[self.id].bytes.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let most = self.disk.inner().read_at_most;
        self.disk.operate(Action::Read, &self.path, |state, _| {
            let bytes = &state.files[self.id].bytes;
            let rest = &bytes[usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()))..];
            let count = rest.len().min(buffer.len()).min(most);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.disk.operate(Action::Identity, &self.path, |_, _| Ok((0, self.id as u64)))
    }

    fn attributes(&self) -> io::Result<Option<Attributes>> {
        let of = |state: &mut State, _| Ok(Some(state.files[self.id].attributes.clone()));
        self.disk.operate(Action::Attributes, &self.path, of)
    }
}

impl WriteFile for OpenFile {
    fn append(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let mut count = 0;
            let result = self.disk.operate(Action::Append, &self.path, |state, effect| {
                count = effect.of(bytes.len());
                state.files[self.id].change(|content| content.extend_from_slice(&bytes[..count]));
                Ok(())
            });
            bytes = &bytes[count..];
            match result {
                // Retries, as `write_all` does.
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !bytes.is_empty() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                result => return result,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let most = self.disk.inner().write_at_most;
        self.disk.operate(Action::WriteAt, &self.path, |state, effect| {
            let written = &bytes[..effect.of(bytes.len().min(most))];
            let at = in_memory(at)?;
            state.files[self.id].change(|bytes| {
                bytes.resize(bytes.len().max(at + written.len()), 0);
                bytes[at..at + written.len()].copy_from_slice(written);
            });
            Ok(written.len())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate(Action::SetLen, &self.path, |state, _| {
            let len = in_memory(len)?;
            state.files[self.id].change(|bytes| bytes.resize(len, 0));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(Action::Sync, &self.path, |state, effect| {
            sync(state, self.id, effect);
            Ok(())
        })
    }
}
