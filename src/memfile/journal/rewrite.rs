//! Writing the lease file anew, from what its user knows, while rows go on to be appended.
//!
//! 1. A new file is begun beside the old one.
//! 2. While nothing is appended, what other processes have changed is looked at, and the end of the old file is noted.
//! 3. The user gives its rows, which go to the new file. Meanwhile rows are appended to the old one.
//! 4. Those rows are copied behind the others, the last of them while nothing is appended.
//! 5. The new file is synced and takes the place of the old one, and rows go to it.
//!
//! At each moment the name stands for a file that has all rows. A crash before the last step changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tail::Changed;
use super::{Journal, Shared, with_suffix};
use crate::fs::{ReadFile, WriteFile, copy_range, directory_of, retry};
use crate::lease_file::LeaseFileError;
use crate::sync::MutexGuard;

/// What the name of a file that is being written anew ends with.
pub(super) const RESTORED: &str = ".restored";
/// What the name of a file ends with that is kept because another process has changed it or put it there.
pub(super) const REPLACED: &str = ".replaced";

/// A lease file that is being written anew. Dropped before its end, it leaves everything as it was.
pub(crate) struct Rewrite<'a> {
    shared: &'a Shared,
    _rotation: MutexGuard<'a, ()>,
    /// The name of the lease file, behind symbolic links.
    target: PathBuf,
    /// The name of the new file, until it has that of the lease file.
    path: Option<PathBuf>,
    file: Arc<dyn WriteFile>,
    /// Bytes that were written to the new file.
    len: u64,
    /// Where the rows of the old file begin that are to be copied.
    mark: u64,
    /// Whether the old file is to be kept under another name.
    keeps_old: bool,
}

impl Journal {
    /// Begins to write the lease file anew. There is no rotation meanwhile.
    ///
    /// # Errors
    /// Returns an error if the new file cannot be written.
    pub(crate) fn rewrite(&self) -> Result<Rewrite<'_>, LeaseFileError> {
        let shared = &*self.shared;
        let rotation = shared.rotation.lock();
        let target = retry(|| shared.fs.resolve(&shared.path)).map_err(error("open", &shared.path))?;
        let path = with_suffix(&target, RESTORED);
        let reader = shared.tail.lock().reader();
        let file = shared.create_like(&path, reader.as_ref()).map_err(error("create", &path))?;
        let mut rewrite = Rewrite {
            shared,
            _rotation: rotation,
            target,
            path: Some(path),
            file: file.into(),
            len: 0,
            mark: 0,
            keeps_old: false,
        };
        rewrite.append(shared.header.as_bytes())?;
        Ok(rewrite)
    }
}

impl Rewrite<'_> {
    /// Gives what another process may have changed in the old file to `examine`, and notes where the file ends: rows
    /// that are appended later are copied to the new file. Nothing may be appended meanwhile.
    ///
    /// # Errors
    /// Returns an error if the old file cannot be read, and those of `examine`.
    pub(crate) fn settle(
        &mut self,
        examine: impl FnOnce(&dyn ReadFile, Changed) -> Result<(), LeaseFileError>,
    ) -> Result<(), LeaseFileError> {
        let (reader, changed) = {
            let tail = &mut *self.shared.tail.lock();
            let changed = if tail.look().map_err(error("read", &self.shared.path))? {
                Some(tail.changed().map_err(error("read", &self.shared.path))?)
            } else {
                None
            };
            (tail.reader(), changed)
        };
        if let Some(changed) = changed {
            examine(reader.as_ref(), changed)?;
            // Until the new file is in place, rows go behind all that.
            self.shared.is_due.store(true, Ordering::SeqCst);
            let tail = &mut *self.shared.tail.lock();
            tail.accept(changed.end).map_err(error("write", &self.shared.path))?;
        }
        self.mark = self.shared.tail.lock().end();
        Ok(())
    }

    /// Has the old file kept under another name, because there is something in it that is nowhere else.
    pub(crate) fn keep_old(&mut self) {
        self.keeps_old = true;
    }

    /// Writes rows to the new file.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub(crate) fn append(&mut self, rows: &[u8]) -> Result<(), LeaseFileError> {
        let path = self.path.as_deref().unwrap_or(&self.target);
        self.file.append(rows).map_err(error("write", path))?;
        self.len += rows.len() as u64;
        Ok(())
    }

    /// Copies the rows that were appended meanwhile, and puts the new file in the place of the old one. Returns the
    /// name under which the old one, or what another process has put in its place, is kept.
    ///
    /// # Errors
    /// Returns an error if that failed. Then everything is as it was; but if the last sync, that of the directory, failed, the new
    /// file is in its place, and the old one may come back after a power cut.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, LeaseFileError> {
        let shared = self.shared;
        let Some(path) = self.path.clone() else {
            return Ok(None);
        };
        let reader = shared.tail.lock().reader();
        let begin = self.len;
        // Most of it while rows are still written to the old file.
        let most = shared.tail.lock().end();
        let mut copied = self.copy(reader.as_ref(), self.mark, most)?;
        let _order = shared.syncs.lock();
        let tail = &mut *shared.tail.lock();
        if let Some(failure) = shared.failure.get() {
            return Err(error("write", &shared.path)(io::Error::other(failure.to_string())));
        }
        let is_changed = tail.look().map_err(error("read", &shared.path))?;
        let mut end = tail.end();
        if is_changed {
            let changed = tail.changed().map_err(error("read", &shared.path))?;
            if changed.from < self.mark {
                // What was acknowledged since the mark may be gone from it. The next look settles that.
                let text = "another process changed the file while it was copied";
                return Err(error("read", &shared.path)(io::Error::other(text)));
            }
            end = changed.end;
        }
        copied = self.copy(reader.as_ref(), copied, end)?;
        if copied < end {
            return Err(error("read", &shared.path)(io::ErrorKind::UnexpectedEof.into()));
        }
        retry(|| self.file.sync()).map_err(error("sync", &path))?;
        let mut new =
            shared.open_tail(&path, Arc::clone(&self.file), self.len).map_err(error("open", &path))?;
        if is_changed {
            new.doubt_from(begin).map_err(error("read", &path))?;
        }
        let kept = self.put_aside(reader.as_ref())?;
        shared.rename(&path, &self.target).map_err(error("rename", &path))?;
        self.path = None;
        *tail = new;
        shared.is_due.store(false, Ordering::SeqCst);
        shared.warnings.lock().clear_file();
        retry(|| shared.fs.sync_directory(directory_of(&self.target)))
            .map_err(error("sync the directory of", &self.target))?;
        Ok(kept)
    }

    /// Copies bytes of the old file behind those of the new one, and returns up to where.
    fn copy(&mut self, from: &dyn ReadFile, at: u64, end: u64) -> Result<u64, LeaseFileError> {
        let path = self.path.as_deref().unwrap_or(&self.target);
        let count = copy_range(from, self.file.as_ref(), at, end).map_err(error("copy rows to", path))?;
        self.len += count;
        Ok(at + count)
    }

    /// Keeps what the name of the lease file stands for, if it is another file than that which rows go to, or if it
    /// has something that is nowhere else.
    fn put_aside(&self, old: &dyn ReadFile) -> Result<Option<PathBuf>, LeaseFileError> {
        let (shared, target) = (self.shared, &self.target);
        let kept = with_suffix(target, REPLACED);
        let is_there = match retry(|| shared.fs.open(target)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            file => file.map(|_| true).map_err(error("open", target))?,
        };
        let is_other = is_there && !shared.is_name_of(target, old).map_err(error("open", target))?;
        if !is_there || !(is_other || self.keeps_old) {
            return Ok(None);
        }
        if is_other {
            shared.rename(target, &kept).map_err(error("rename", target))?;
            return Ok(Some(kept));
        }
        shared.remove(&kept).map_err(error("remove", &kept))?;
        match retry(|| shared.fs.link(target, &kept)) {
            Ok(()) => Ok(Some(kept)),
            Err(_) if shared.is_name_of(&kept, old).is_ok_and(|is_done| is_done) => Ok(Some(kept)),
            // Where there are no links: for a moment there is no lease file, but all that it has is in the new one.
            Err(_) => {
                shared.rename(target, &kept).map_err(error("rename", target))?;
                Ok(Some(kept))
            }
        }
    }
}

impl Drop for Rewrite<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Left over, it is removed by the next one.
            let _ = self.shared.remove(path);
        }
    }
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeaseFileError + use<> {
    let path = path.to_owned();
    move |source| LeaseFileError::Io { path, action, source }
}
