//! Checking that the lease file is still the file that rows go to, and unchanged.
//!
//! If another process removes or replaces the open file, rows still go to it, and no server finds
//! them at the next start. If another process changes the file in place, it no longer has the
//! acknowledged rows. So the file is checked: every second, before a rotation, when a sync is
//! requested, and when the journal is closed. The owner of the journal, which knows the leases,
//! rewrites a file that is not as expected (`rewrite`).

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Journal, Shared};
use crate::fs::ReadFile;
use crate::fs::retry;

/// Problems with the file while rows are still accepted.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// A problem with the name or the contents of the file.
    file: Option<String>,
    /// A full disk.
    pub(super) room: Option<String>,
}

impl Warnings {
    pub(super) fn text(&self) -> Option<String> {
        let all: Vec<_> = [&self.file, &self.room].into_iter().flatten().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Clears the problem with the name or the contents of the file.
    pub(super) fn clear_file(&mut self) {
        self.file = None;
    }
}

/// The state of the lease file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    /// It is unchanged.
    Unchanged,
    /// Its name refers to another file, or to none.
    Lost,
    /// Another process has changed it in place.
    Changed,
    /// It has to be rewritten for a reason that is already known.
    Due,
}

impl Journal {
    /// Checks whether the lease file is still the file that rows go to, and unchanged.
    ///
    /// # Errors
    /// Returns an error if the check fails, as without a free descriptor.
    pub(crate) fn file_state(&self) -> io::Result<FileState> {
        let shared = &self.shared;
        let _rotation = shared.rotation.lock();
        if shared.failure.get().is_some() {
            // Rows are refused, so there is nothing to restore.
            return Ok(FileState::Unchanged);
        }
        let found = shared.file_state()?;
        if found == FileState::Unchanged {
            shared.warnings.lock().clear_file();
        }
        Ok(found)
    }

    /// Records why the lease file could not be rewritten. Returns whether this is new.
    pub(crate) fn set_warning(&self, warning: String) -> bool {
        let old = self.shared.warnings.lock().file.replace(warning.clone());
        old.as_ref() != Some(&warning)
    }

    /// Has the next check report that the lease file has to be rewritten.
    pub(crate) fn set_due(&self) {
        self.shared.is_due.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    pub(super) fn file_state(&self) -> io::Result<FileState> {
        let reader = self.tail.lock().reader();
        if !self.is_name_of(&self.path, reader.as_ref())? {
            return Ok(FileState::Lost);
        }
        if self.tail.lock().check_changed()? {
            return Ok(FileState::Changed);
        }
        Ok(if self.is_due.load(Ordering::SeqCst) { FileState::Due } else { FileState::Unchanged })
    }

    /// Returns whether a name refers to a file.
    pub(super) fn is_name_of(&self, name: &Path, file: &dyn ReadFile) -> io::Result<bool> {
        match retry(|| self.fs.open(name)) {
            Ok(named) => Ok(retry(|| named.identity())? == retry(|| file.identity())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
