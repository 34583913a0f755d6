//! Rewriting the lease file from the leases that the caller has in memory, while rows are appended.
//!
//! 1. A new file is created next to the old one.
//! 2. While nothing is appended, the caller examines the changes of other processes, and the end of
//!    the old file is recorded.
//! 3. The caller writes its rows to the new file. Meanwhile, rows are appended to the old file.
//! 4. These rows are copied to the end of the new file, the last of them while nothing is appended.
//! 5. The new file is synced and replaces the old one, and rows go to it.
//!
//! At each moment, the name refers to a file that has all rows. A crash before the last step
//! changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tail::ChangedRange;
use super::{Journal, Shared, with_suffix};
use crate::fs::{ReadFile, WriteFile, copy_range, directory_of, retry};
use crate::lease_file::LeaseFileError;
use crate::sync::MutexGuard;

/// Suffix of a file that will replace the lease file.
pub(super) const RESTORED: &str = ".restored";
/// Suffix of a file that is kept because another process has changed or created it.
pub(super) const REPLACED: &str = ".replaced";

/// A rewrite of the lease file. If it is dropped before [`Rewrite::finish`], the lease file is
/// unchanged.
pub(crate) struct Rewrite<'a> {
    shared: &'a Shared,
    _rotation: MutexGuard<'a, ()>,
    /// The name of the lease file, with symbolic links resolved.
    target: PathBuf,
    /// The name of the new file, until it is renamed.
    path: Option<PathBuf>,
    file: Arc<dyn WriteFile>,
    /// Length of the new file in bytes.
    len: u64,
    /// Position in the old file from which rows have to be copied.
    mark: u64,
    /// Whether the old file has to be kept under another name.
    keeps_old: bool,
}

impl Journal {
    /// Starts to rewrite the lease file. Blocks rotations until it is dropped.
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
    /// Passes the range that another process may have changed in the old file to `examine`, and
    /// records the end of the file: rows that are appended later are copied to the new file. The
    /// caller must block appends meanwhile.
    ///
    /// # Errors
    /// Returns an error if the old file cannot be read, or if `examine` fails.
    pub(crate) fn merge_changes(
        &mut self,
        examine: impl FnOnce(&dyn ReadFile, ChangedRange) -> Result<(), LeaseFileError>,
    ) -> Result<(), LeaseFileError> {
        let (reader, changed) = {
            let tail = &mut *self.shared.tail.lock();
            let changed = if tail.check_changed().map_err(error("read", &self.shared.path))? {
                Some(tail.changed().map_err(error("read", &self.shared.path))?)
            } else {
                None
            };
            (tail.reader(), changed)
        };
        if let Some(changed) = changed {
            examine(reader.as_ref(), changed)?;
            // Until the new file is in place, rows go after the foreign ones.
            self.shared.is_due.store(true, Ordering::SeqCst);
            let tail = &mut *self.shared.tail.lock();
            tail.accept(changed.end).map_err(error("write", &self.shared.path))?;
        }
        self.mark = self.shared.tail.lock().end();
        Ok(())
    }

    /// Has the old file kept under another name, because no other file has some of its contents.
    pub(crate) fn keep_old(&mut self) {
        self.keeps_old = true;
    }

    /// Appends rows to the new file.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub(crate) fn append(&mut self, rows: &[u8]) -> Result<(), LeaseFileError> {
        let path = self.path.as_deref().unwrap_or(&self.target);
        self.file.append(rows).map_err(error("write", path))?;
        self.len += rows.len() as u64;
        Ok(())
    }

    /// Copies the rows that were appended meanwhile, and replaces the old file by the new one. If
    /// the old file, or one that another process has put in its place, is kept, returns its name.
    ///
    /// # Errors
    /// Returns an error if a step fails. The lease file is unchanged then; only if the last step
    /// failed, the sync of the directory, the new file is in place, and the old one may reappear
    /// after a power cut.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, LeaseFileError> {
        let shared = self.shared;
        let Some(path) = self.path.clone() else {
            return Ok(None);
        };
        let reader = shared.tail.lock().reader();
        let begin = self.len;
        // Most rows are copied while others are still appended.
        let most = shared.tail.lock().end();
        let mut copied = self.copy(reader.as_ref(), self.mark, most)?;
        let _order = shared.syncs.lock();
        let tail = &mut *shared.tail.lock();
        if let Some(failure) = shared.failure.get() {
            return Err(error("write", &shared.path)(io::Error::other(failure.to_string())));
        }
        let is_changed = tail.check_changed().map_err(error("read", &shared.path))?;
        let mut end = tail.end();
        if is_changed {
            let changed = tail.changed().map_err(error("read", &shared.path))?;
            if changed.from < self.mark {
                // Rows that were acknowledged since the mark may be missing. The next check handles
                // this.
                let text = "another process changed the file while it was being copied";
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
            new.set_changed_from(begin).map_err(error("read", &path))?;
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

    /// Copies bytes of the old file to the end of the new one, and returns the position after them.
    fn copy(&mut self, from: &dyn ReadFile, at: u64, end: u64) -> Result<u64, LeaseFileError> {
        let path = self.path.as_deref().unwrap_or(&self.target);
        let count = copy_range(from, self.file.as_ref(), at, end).map_err(error("copy rows to", path))?;
        self.len += count;
        Ok(at + count)
    }

    /// Keeps the file that the name of the lease file refers to, if it is not the journal's file,
    /// or if it has contents that no other file has.
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
            // Without links, there is no lease file for a moment, but the new file has all its
            // rows.
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
            // A leftover file is removed by the next rewrite.
            let _ = self.shared.remove(path);
        }
    }
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LeaseFileError + use<> {
    let path = path.to_owned();
    move |source| LeaseFileError::Io { path, action, source }
}
