//! Giving the journal to the cleanup, and beginning a new one.
//!
//! 1. The new file is created beside the old one, with its owner, group and mode, and with the header, and synced.
//! 2. The old file gets the name of the cleanup's input besides its own (a hard link), and the directory is synced: a power cut must
//!    not leave the new file under the name without the old one under its second name.
//! 3. While nothing is appended, the new file takes the name, and rows go to it from then on. So a program that follows the lease file by its
//!    name finds all rows, and a file at each moment.
//! 4. The directory is synced, in [`Durability::Synced`] before any row goes to the new file. The old file is synced.
//!
//! Where the old file cannot have a second name, as between two file systems (the lease file is a symbolic link) and on those that
//! know no hard links, the input is a copy.
//!
//! If a step up to the third fails, the old file keeps its name, and the input is removed. If that fails too, or the process ends,
//! there are two names of one file, or a copy of a part of it: each is read without harm, since the last row of a lease is the same.

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

/// What the name of a file ends with that is to take the place of the lease file.
pub(super) const NEXT: &str = ".next";
/// What the name of a copy ends with that is not complete.
const PART: &str = ".part";

/// Why a journal was not given to the cleanup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RotateError {
    /// Another process has removed, replaced or changed the lease file.
    #[error("{}: another process has changed it; it is written anew first", path.display())]
    Changed {
        /// The lease file.
        path: PathBuf,
    },
    /// It did not get the name of the input.
    #[error("cannot give {} the name {}", from.display(), to.display())]
    Input {
        /// The lease file.
        from: PathBuf,
        /// The other name.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no new file.
    #[error("{}: cannot {action}", path.display())]
    NewFile {
        /// The new file, or the directory of it.
        path: PathBuf,
        /// What was tried: "create it", ...
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Nothing is written any more, or the old file or the directory could not be synced. Then there is a new file.
    #[error(transparent)]
    Journal(#[from] LeaseMgrError),
}

/// What could not be done with which file, and why.
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
        let target = retry(|| self.fs.resolve(&self.path)).map_err(failed(&self.path, "look at it"))?;
        let reader = self.tail.lock().reader();
        self.check_unchanged(reader.as_ref())?;
        let next = with_suffix(&target, NEXT);
        let rotated = self
            .begin_file(&next, reader.as_ref())
            .map_err(RotateError::from)
            .and_then(|new| self.hand_over(input, &target, &next, new, reader.as_ref()));
        if rotated.is_err() {
            // Left over, it is removed before the next one is begun.
            let _ = self.remove(&next);
        }
        rotated
    }

    /// Makes sure that it is not a file of another process that is given away, nor one with rows that are not known here.
    fn check_unchanged(&self, reader: &dyn ReadFile) -> Result<(), RotateError> {
        let failed = failed(&self.path, "look at it");
        let is_own = self.is_name_of(&self.path, reader).and_then(|is| Ok(is && !self.tail.lock().look()?));
        match is_own {
            Ok(true) => Ok(()),
            Ok(false) => Err(RotateError::Changed { path: self.path.to_path_buf() }),
            Err(error) => Err(failed(error).into()),
        }
    }

    /// Creates the new file, with owner, group and mode of the old one.
    fn begin_file(&self, next: &Path, old: &dyn ReadFile) -> Result<Tail, Failed> {
        let file = self.create_like(next, old).map_err(failed(next, "create it"))?;
        write_full(file.as_ref(), self.header.as_bytes(), 0).map_err(failed(next, "write the header"))?;
        retry(|| file.sync()).map_err(failed(next, "sync the header"))?;
        self.open_tail(next, file.into(), self.header.len() as u64).map_err(failed(next, "open it"))
    }

    /// Opens a file that was created here, to go on behind its rows.
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
        let not_given = |source| RotateError::Input { from: target.to_owned(), to: input.to_owned(), source };
        let is_linked = self.link(target, input, reader).map_err(not_given)?;
        let mut copy =
            if is_linked { None } else { Some(self.begin_copy(input, reader).map_err(not_given)?) };
        let sync_input = || retry(|| self.fs.sync_directory(directory_of(input)));
        let order = self.syncs.lock();
        let mut tail = self.tail.lock();
        let replaced = (|| {
            if tail.look().map_err(failed(&self.path, "look at it"))? {
                return Err(RotateError::Changed { path: self.path.to_path_buf() });
            }
            if let Some(copy) = copy.take() {
                self.end_copy(copy, input, reader, tail.end()).map_err(not_given)?;
                sync_input().map_err(not_given)?;
            }
            Ok(self.replace(next, target, &new).map_err(failed(next, "rename it"))?)
        })();
        if let Err(error) = replaced {
            // If it stays, it is another name of the lease file or a copy of its rows; or all that has these, if the new file has
            // taken the name all the same.
            if self.is_name_of(&self.path, reader).is_ok_and(|is| is) {
                let _ = self.remove(input);
            }
            return Err(error);
        }
        let sync = || retry(|| self.fs.sync_directory(directory_of(target)));
        // A row that is acknowledged as synced must be in a file whose name is.
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
            tail.doubtful = true;
            self.fail(tail, Action::Sync, error, self.queue.done()).into()
        });
        drop(order);
        result
    }

    /// Gives the lease file a second name, durably. Returns `false` where it cannot have one.
    fn link(&self, target: &Path, input: &Path, file: &dyn ReadFile) -> io::Result<bool> {
        if !self.is_name_of(input, file)? {
            match retry(|| self.fs.link(target, input)) {
                Ok(()) => {}
                // It may have been done all the same.
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

    /// Begins a copy of the lease file, with most of its rows, while others are appended.
    fn begin_copy(&self, input: &Path, reader: &dyn ReadFile) -> io::Result<Copy> {
        if retry(|| self.fs.open(input)).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let path = with_suffix(input, PART);
        let mut copy = Copy { file: self.create_like(&path, reader)?, path, len: 0 };
        let most = self.tail.lock().end();
        copy.go_on(reader, most).inspect_err(|_| {
            let _ = self.remove(&copy.path);
        })?;
        Ok(copy)
    }

    /// Ends a copy.
    fn end_copy(&self, mut copy: Copy, input: &Path, reader: &dyn ReadFile, end: u64) -> io::Result<()> {
        let ended = copy.go_on(reader, end).and_then(|()| {
            retry(|| copy.file.sync())?;
            self.rename(&copy.path, input)
        });
        ended.inspect_err(|_| {
            let _ = self.remove(&copy.path);
        })
    }

    /// Puts the new file in the place of the lease file. An error says that it was not done: it may have been done all the same, and then it
    /// is none.
    fn replace(&self, next: &Path, target: &Path, new: &Tail) -> io::Result<()> {
        retry(|| self.fs.rename(next, target)).or_else(|error| {
            if self.is_name_of(target, new.reader().as_ref()).is_ok_and(|is| is) {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// Renames a file. An error says that it was not done: it may have been done all the same, and then it is none.
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

    /// Creates a file in the place of one that was left over, with owner, group and mode of another.
    pub(super) fn create_like(&self, path: &Path, other: &dyn ReadFile) -> io::Result<Box<dyn WriteFile>> {
        let attributes = retry(|| other.attributes())?;
        let create = || retry(|| create_in_place_of(self.fs.as_ref(), path, attributes.as_ref()));
        self.remove(path)?;
        create().or_else(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // A signal may have interrupted it when it was done.
            self.remove(path)?;
            create()
        })
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match retry(|| self.fs.remove(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A copy of the lease file that is not complete.
struct Copy {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    len: u64,
}

impl Copy {
    /// Copies bytes up to this one.
    fn go_on(&mut self, from: &dyn ReadFile, end: u64) -> io::Result<()> {
        self.len += copy_range(from, self.file.as_ref(), self.len, end)?;
        if self.len < end { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
