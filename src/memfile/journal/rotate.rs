//! Renaming the journal for the cleanup, and beginning a new one.
//!
//! 1. The file is renamed. Rows go on to be written to it, and the folder is synced: a power cut must not
//!    leave the new file under the name without the old one under its new name.
//! 2. The new file is created, with owner, group and mode of the old one, and with the header; it and the folder are synced, before any row is in it.
//! 3. Rows go to the new file.
//! 4. The old one is synced.
//!
//! If the second step fails, the old file gets its name back. If that fails too, rows go on to be written to
//! it under its new name, and the next rotation begins with the second step.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::failure::Action;
use super::tail::{Tail, retry};
use crate::fs::{ReadFile, WriteFile, create_in_place_of, folder_of, read_full, write_full};
use crate::lease_mgr::LeaseMgrError;
use crate::memfile::options::Durability;

/// Why a journal was not renamed, or what is left to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RotateError {
    /// Nothing has changed.
    #[error("cannot rename {} to {}: {source}", from.display(), to.display())]
    Rename {
        /// The lease file.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no new file, so the old one has its name again.
    #[error("{}: cannot {action} after a rename: {source}", path.display())]
    NewFile {
        /// The lease file.
        path: PathBuf,
        /// What was tried: "create it", ...
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no new file, and the old one cannot get its name back: rows go to it under its new name.
    #[error(
        "{}: cannot {action} after a rename: {source}; and {} cannot be renamed back: {rename}; changes are written to it",
        path.display(), input.display()
    )]
    HalfWay {
        /// The lease file, which is not there now.
        path: PathBuf,
        /// Its name now.
        input: PathBuf,
        /// What was tried: "create it", ...
        action: &'static str,
        /// Why it failed.
        source: io::Error,
        /// Why it cannot be renamed back.
        rename: io::Error,
    },
    /// Nothing is written any more, or the renamed file could not be synced. Then there is a new file.
    #[error(transparent)]
    Journal(#[from] LeaseMgrError),
}

impl Shared {
    pub(super) fn rotate(&self, input: &Path) -> Result<(), RotateError> {
        let rotation = &mut *self.rotation.lock();
        self.check()?;
        let input = match rotation {
            Some(input) => input.clone(),
            None => {
                let (from, to) = (self.path.to_path_buf(), input.to_owned());
                let failed = |source| RotateError::Rename { from: from.clone(), to: to.clone(), source };
                // Otherwise a file of somebody else would be renamed, and the rows stay where nobody finds them.
                self.keep_name_of(None).map_err(failed)?;
                self.is_input.store(true, Ordering::SeqCst);
                if let Err(source) = self.rename(&from, &to) {
                    self.is_input.store(false, Ordering::SeqCst);
                    return Err(failed(source));
                }
                rotation.insert(to).clone()
            }
        };
        // From here on rows that are still written to it must be found under this name.
        let _ = self.keep_name_of(Some(&input));
        let begun = self.begin_file();
        let ended = match begun {
            Ok(tail) => self.swap(tail).map_err(RotateError::from),
            Err((action, source)) => {
                let path = self.path.to_path_buf();
                if let Err(rename) = self.rename_back(&input) {
                    return Err(RotateError::HalfWay { path, input, action, source, rename });
                }
                self.is_input.store(false, Ordering::SeqCst);
                Err(RotateError::NewFile { path, action, source })
            }
        };
        *rotation = None;
        ended
    }

    /// Creates the new file, and makes it durable.
    fn begin_file(&self) -> Result<Tail, (&'static str, io::Error)> {
        let sync_folder = || {
            retry(|| self.fs.sync_folder(folder_of(&self.path))).map_err(|error| ("sync the folder", error))
        };
        sync_folder()?;
        let reader = self.tail.lock().reader();
        let attributes = retry(|| reader.attributes());
        let attributes = attributes.map_err(|error| ("look at the owner of it", error))?;
        let create = || retry(|| create_in_place_of(self.fs.as_ref(), &self.path, attributes.as_ref()));
        let create_anew = |error: io::Error| {
            if error.kind() != io::ErrorKind::AlreadyExists || !self.is_begun()? {
                return Err(error);
            }
            retry(|| self.fs.remove(&self.path))?;
            create()
        };
        let file = create().or_else(create_anew).map_err(|error| ("create it", error))?;
        write_full(file.as_ref(), self.header.as_bytes(), 0).map_err(|error| {
            // Without any byte of it the file counts as an empty one.
            let _ = file.set_len(0);
            ("write the header", error)
        })?;
        retry(|| file.sync()).map_err(|error| ("sync the header", error))?;
        let reader = retry(|| self.fs.open(&self.path)).map_err(|error| ("open it", error))?;
        sync_folder()?;
        Ok(self.tail_of(file, reader, self.header.len() as u64))
    }

    /// What goes on with a file that has rows up to its end.
    pub(super) fn tail_of(&self, file: Box<dyn WriteFile>, reader: Box<dyn ReadFile>, end: u64) -> Tail {
        Tail::new(Arc::clone(&self.path), file, reader, end, self.durability == Durability::Synced)
    }

    /// Lets rows go to the new file, and makes the old one durable.
    fn swap(&self, new: Tail) -> Result<(), LeaseMgrError> {
        let _order = self.syncs.lock();
        let mut old = mem::replace(&mut *self.tail.lock(), new);
        self.is_input.store(false, Ordering::SeqCst);
        old.cut();
        if !old.unsynced {
            return Ok(());
        }
        retry(|| old.file().sync()).map_err(|error| {
            let tail = &mut *self.tail.lock();
            tail.doubtful = true;
            self.fail(tail, Action::Sync, error, self.queue.done())
        })
    }

    /// Gives the renamed file its name back, in place of a new one that has got no further than its header.
    fn rename_back(&self, input: &Path) -> io::Result<()> {
        if !self.is_begun()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(input, &self.path)
    }

    /// Whether the lease file, if there is one, is nothing but the header or a part of it.
    fn is_begun(&self) -> io::Result<bool> {
        let file = match retry(|| self.fs.open(&self.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            file => file?,
        };
        let mut content = vec![0; self.header.len() + 1];
        let len = read_full(file.as_ref(), &mut content, 0)?;
        Ok(self.header.as_bytes().starts_with(&content[..len]))
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
}
