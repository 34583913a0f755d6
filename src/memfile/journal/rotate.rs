//! Handing the journal over to the cleanup, and starting a new one.
//!
//! 1. The new file is created next to the old one, with its owner, group and mode and with the
//!    header, and synced.
//! 2. The old file gets the name of the cleanup's input as a second name (a hard link), and the
//!    directory is synced: a power cut must not leave the new file under the name without the old
//!    one under its second name.
//! 3. While nothing is appended, the new file is renamed to the lease file, and rows go to it from
//!    then on. So a program that follows the lease file by its name finds all rows, and a file at
//!    each moment.
//! 4. The directory is synced, in [`Durability::Synced`] before any row goes to the new file. The
//!    old file is synced.
//!
//! If the old file cannot have a second name, as between two file systems (the lease file is a
//! symbolic link) and on file systems without hard links, the input is a copy.
//!
//! If a step up to the third fails, the old file keeps its name, and the input is removed. If that
//! fails too, or the process is killed, there are two names of one file, or a copy of a part of it:
//! reading both is harmless, since the last row of each lease is the same.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Action;
use super::tail::Tail;
use super::{Shared, with_suffix};
use crate::fs::{ReadFile, WriteFile, copy_range, create_in_place_of, directory_of, retry, write_full};
use crate::lease_mgr::Durability;
use crate::lease_mgr::LeaseMgrError;

/// Suffix of a file that will replace the lease file.
pub(super) const NEXT: &str = ".next";
/// Suffix of an incomplete copy.
const PART: &str = ".part";

/// The reason why a journal was not handed over to the cleanup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RotateError {
    /// Another process has removed, replaced or changed the lease file.
    #[error("{}: another process has changed it; it is rewritten first", path.display())]
    Changed {
        /// The lease file.
        path: PathBuf,
    },
    /// The lease file could not be given the name of the input.
    #[error("cannot give {} the name {}", from.display(), to.display())]
    Input {
        /// The lease file.
        from: PathBuf,
        /// The other name.
        to: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The new file could not be created.
    #[error("{}: cannot {action}", path.display())]
    NewFile {
        /// The new file, or its directory.
        path: PathBuf,
        /// The failed action: "create it", ...
        action: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Rows are refused, or the old file or the directory could not be synced. In the latter case,
    /// the new file is in place.
    #[error(transparent)]
    Journal(#[from] LeaseMgrError),
}

/// The file, the failed action and its error.
type Failed = (PathBuf, &'static str, io::Error);

impl From<Failed> for RotateError {
    fn from((path, action, source): Failed) -> Self {
        Self::NewFile { path, action, source }
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Failed + use<> {
    let path = path.to_owned();
    move |source| (path, action, source)
}

impl Shared {
    pub(super) fn rotate(&self, input: &Path) -> Result<(), RotateError> {
        let _rotation = self.rotation.lock();
        self.check()?;
        let target = retry(|| self.fs.resolve(&self.path)).map_err(failed(&self.path, "check it"))?;
        let reader = self.tail.lock().reader();
        self.check_unchanged(reader.as_ref())?;
        let next = with_suffix(&target, NEXT);
        let rotated = self
            .begin_file(&next, reader.as_ref())
            .map_err(RotateError::from)
            .and_then(|new| self.hand_over(input, &target, &next, new, reader.as_ref()));
        if rotated.is_err() {
            // A leftover file is removed before the next one is created.
            let _ = self.remove(&next);
        }
        rotated
    }

    /// Makes sure that the file is the journal's own, without changes of another process.
    fn check_unchanged(&self, reader: &dyn ReadFile) -> Result<(), RotateError> {
        let failed = failed(&self.path, "check it");
        let is_own =
            self.is_name_of(&self.path, reader).and_then(|is| Ok(is && !self.tail.lock().check_changed()?));
        match is_own {
            Ok(true) => Ok(()),
            Ok(false) => Err(RotateError::Changed { path: self.path.to_path_buf() }),
            Err(error) => Err(failed(error).into()),
        }
    }

    /// Creates the new file, with the owner, group and mode of the old one.
    fn begin_file(&self, next: &Path, old: &dyn ReadFile) -> Result<Tail, Failed> {
        let file = self.create_like(next, old).map_err(failed(next, "create it"))?;
        write_full(file.as_ref(), self.header.as_bytes(), 0).map_err(failed(next, "write the header"))?;
        retry(|| file.sync()).map_err(failed(next, "sync the header"))?;
        self.open_tail(next, file.into(), self.header.len() as u64).map_err(failed(next, "open it"))
    }

    /// Opens a file that this process has created, to append after its rows.
    pub(super) fn open_tail(&self, path: &Path, file: Arc<dyn WriteFile>, end: u64) -> io::Result<Tail> {
        let appends = self.durability != Durability::Synced;
        let reader = retry(|| self.fs.open(path))?;
        let file = if appends { retry(|| self.fs.open_append(path))?.into() } else { file };
        Tail::new(Arc::clone(&self.path), file, reader, end, appends)
    }

    /// Makes the old file the input of the cleanup, and the new one the lease file.
    fn hand_over(
        &self,
        input: &Path,
        target: &Path,
        next: &Path,
        new: Tail,
        reader: &dyn ReadFile,
    ) -> Result<(), RotateError> {
        let input_error =
            |source| RotateError::Input { from: target.to_owned(), to: input.to_owned(), source };
        let is_linked = self.link(target, input, reader).map_err(input_error)?;
        let mut copy =
            if is_linked { None } else { Some(self.begin_copy(input, reader).map_err(input_error)?) };
        let sync_input = || retry(|| self.fs.sync_directory(directory_of(input)));
        let order = self.syncs.lock();
        let mut tail = self.tail.lock();
        let replaced = (|| {
            if tail.check_changed().map_err(failed(&self.path, "check it"))? {
                return Err(RotateError::Changed { path: self.path.to_path_buf() });
            }
            if let Some(copy) = copy.take() {
                self.end_copy(copy, input, reader, tail.end()).map_err(input_error)?;
                sync_input().map_err(input_error)?;
            }
            Ok(self.replace(next, target, &new).map_err(failed(next, "rename it"))?)
        })();
        if let Err(error) = replaced {
            // A leftover input is another name of the lease file or a copy of its rows. If the new
            // file has taken the name after all, the input is the only file with these rows.
            if self.is_name_of(&self.path, reader).is_ok_and(|is| is) {
                let _ = self.remove(input);
            }
            return Err(error);
        }
        let sync = || retry(|| self.fs.sync_directory(directory_of(target)));
        // The name of the file must be durable before a row in it is acknowledged as synced.
        let early = if self.durability == Durability::Synced { Some(sync()) } else { None };
        let mut old = mem::replace(&mut *tail, new);
        drop(tail);
        let ended = early.unwrap_or_else(sync).and_then(|()| {
            if !is_linked {
                return Ok(());
            }
            old.cut();
            if old.unsynced { retry(|| old.file().sync()) } else { Ok(()) }
        });
        let result = ended.map_err(|error| {
            let tail = &mut *self.tail.lock();
            tail.sync_failed = true;
            self.fail(tail, Action::Sync, error, self.queue.done()).into()
        });
        drop(order);
        result
    }

    /// Gives the lease file a second name, durably. Returns `false` if it cannot have one.
    fn link(&self, target: &Path, input: &Path, file: &dyn ReadFile) -> io::Result<bool> {
        if !self.is_name_of(input, file)? {
            match retry(|| self.fs.link(target, input)) {
                Ok(()) => {}
                // The link may exist despite the error.
                Err(_) if self.is_name_of(input, file)? => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => return Ok(false),
            }
        }
        retry(|| self.fs.sync_directory(directory_of(input))).inspect_err(|_| {
            let _ = self.remove(input);
        })?;
        Ok(true)
    }

    /// Starts a copy of the lease file, with most of its rows, while others are appended.
    fn begin_copy(&self, input: &Path, reader: &dyn ReadFile) -> io::Result<PartialCopy> {
        if retry(|| self.fs.open(input)).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let path = with_suffix(input, PART);
        let mut copy = PartialCopy { file: self.create_like(&path, reader)?, path, len: 0 };
        let most = self.tail.lock().end();
        copy.copy_until(reader, most).inspect_err(|_| {
            let _ = self.remove(&copy.path);
        })?;
        Ok(copy)
    }

    /// Completes a copy, and renames it to the input.
    fn end_copy(
        &self,
        mut copy: PartialCopy,
        input: &Path,
        reader: &dyn ReadFile,
        end: u64,
    ) -> io::Result<()> {
        let ended = copy.copy_until(reader, end).and_then(|()| {
            retry(|| copy.file.sync())?;
            self.rename(&copy.path, input)
        });
        ended.inspect_err(|_| {
            let _ = self.remove(&copy.path);
        })
    }

    /// Replaces the lease file by the new file. Returns an error only if this was not done, as a
    /// failed call may still have had its effect.
    fn replace(&self, next: &Path, target: &Path, new: &Tail) -> io::Result<()> {
        retry(|| self.fs.rename(next, target)).or_else(|error| {
            if self.is_name_of(target, new.reader().as_ref()).is_ok_and(|is| is) {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// Renames a file. Returns an error only if this was not done, as a failed call may still have
    /// had its effect.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        retry(|| self.fs.rename(from, to)).or_else(|error| {
            let is_there = |path| match retry(|| self.fs.open(path)) {
                Ok(_) => Some(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
                Err(_) => None,
            };
            if (is_there(from), is_there(to)) == (Some(false), Some(true)) { Ok(()) } else { Err(error) }
        })
    }

    /// Creates a file with the owner, group and mode of another, after removing a leftover one.
    pub(super) fn create_like(&self, path: &Path, other: &dyn ReadFile) -> io::Result<Box<dyn WriteFile>> {
        let attributes = retry(|| other.attributes())?;
        let create = || retry(|| create_in_place_of(self.fs.as_ref(), path, attributes.as_ref()));
        self.remove(path)?;
        create().or_else(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // An interrupted call may have created it.
            self.remove(path)?;
            create()
        })
    }

    /// Removes a file, if it exists.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match retry(|| self.fs.remove(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// An incomplete copy of the lease file.
struct PartialCopy {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    len: u64,
}

impl PartialCopy {
    /// Copies bytes up to `end`.
    fn copy_until(&mut self, from: &dyn ReadFile, end: u64) -> io::Result<()> {
        self.len += copy_range(from, self.file.as_ref(), self.len, end)?;
        if self.len < end { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
