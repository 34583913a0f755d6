//! Finding out whether the lease file is still the one that rows go to, and as they were written.
//!
//! A file that another process removes or replaces while it is open goes on to take rows, and at the next start no server finds
//! them. One that another process changes in place has other rows than those that were acknowledged. So the file is looked at:
//! every second, before a rotation, when a sync is asked for, and in the end. What is not so is written anew
//! (`rewrite`), by the user of the journal, which knows the leases.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Journal, Shared};
use crate::fs::ReadFile;
use crate::fs::retry;

/// What is wrong though rows are taken.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// With the name or the content of the file.
    file: Option<String>,
    /// With the room for it.
    pub(super) room: Option<String>,
}

impl Warnings {
    pub(super) fn text(&self) -> Option<String> {
        let all: Vec<_> = [&self.file, &self.room].into_iter().flatten().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Forgets what was wrong with the name or the content of the file.
    pub(super) fn clear_file(&mut self) {
        self.file = None;
    }
}

/// What a look at the lease file has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as it was written.
    Unchanged,
    /// Its name stands for another file, or for none.
    Lost,
    /// Another process has changed it in place.
    Changed,
    /// It is to be written anew for a reason that is known already.
    Due,
}

impl Journal {
    /// Looks whether the lease file is still the one that rows go to, and as it was written.
    ///
    /// # Errors
    /// Returns an error if that cannot be told, as without a free descriptor.
    pub(crate) fn look(&self) -> io::Result<Look> {
        let shared = &self.shared;
        let _rotation = shared.rotation.lock();
        if shared.failure.get().is_some() {
            // Nothing is written any more.
            return Ok(Look::Unchanged);
        }
        let found = shared.look()?;
        if found == Look::Unchanged {
            shared.warnings.lock().clear_file();
        }
        Ok(found)
    }

    /// Notes why the lease file could not be written anew. Returns whether that is new.
    pub(crate) fn set_warning(&self, warning: String) -> bool {
        let old = self.shared.warnings.lock().file.replace(warning.clone());
        old.as_ref() != Some(&warning)
    }

    /// Has the next look say that the lease file is to be written anew.
    pub(crate) fn set_due(&self) {
        self.shared.is_due.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    pub(super) fn look(&self) -> io::Result<Look> {
        let reader = self.tail.lock().reader();
        if !self.is_name_of(&self.path, reader.as_ref())? {
            return Ok(Look::Lost);
        }
        if self.tail.lock().look()? {
            return Ok(Look::Changed);
        }
        Ok(if self.is_due.load(Ordering::SeqCst) { Look::Due } else { Look::Unchanged })
    }

    /// Returns whether a name stands for a file.
    pub(super) fn is_name_of(&self, name: &Path, file: &dyn ReadFile) -> io::Result<bool> {
        match retry(|| self.fs.open(name)) {
            Ok(named) => Ok(retry(|| named.identity())? == retry(|| file.identity())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
