//! Seeing to it that the name of the lease file stands for the file that rows go to.
//!
//! A file that somebody removes or replaces while it is open goes on to take rows, and at the next start nobody finds
//! them. So the name is looked at: every second, before a rotation, when a sync is asked for, and in the end. Where it stands for
//! another file, or for none, all rows are copied from the file that is still open to a new one, which gets the name; what somebody has put
//! there is kept under another.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::Shared;
use super::tail::retry;
use crate::fs::{ReadFile, WriteFile, create_in_place_of, folder_of, read_full, write_full};

/// What is wrong though rows are taken.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// With the name of the file.
    name: Option<String>,
    /// With the room for it.
    pub(super) room: Option<String>,
}

impl Warnings {
    pub(super) fn text(&self) -> Option<String> {
        let all: Vec<_> = [&self.name, &self.room].into_iter().flatten().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

impl Shared {
    /// Gives the file its name back, if somebody has taken it.
    pub(super) fn keep_name(&self) {
        let rotation = self.rotation.lock();
        // Who needs the name looks at the error, all others at the log and the warning.
        let _ = self.keep_name_of(rotation.as_deref());
    }

    /// As [`Shared::keep_name`], where the file has this name after a rotation that has come no further.
    pub(super) fn keep_name_of(&self, renamed: Option<&Path>) -> io::Result<()> {
        let name = renamed.unwrap_or(&self.path);
        let reader = self.tail.lock().reader();
        // If that cannot be told, as without a free descriptor, nothing is known to be wrong.
        if self.is_name_of(name, reader.as_ref())? {
            self.warnings.lock().name = None;
            return Ok(());
        }
        self.restore(name, reader.as_ref()).inspect_err(|error| {
            let warning = format!(
                "{}: somebody has removed or replaced it, and it cannot be restored: {error}; until it is, changes are \
                 lost when the lease manager ends: make room for it, and let it be created",
                name.display()
            );
            let mut warnings = self.warnings.lock();
            if warnings.name.as_ref() != Some(&warning) {
                tracing::error!(id = "DHCPSRV_MEMFILE_LEASE_FILE_GONE", "{warning}");
                warnings.name = Some(warning);
            }
        })
    }

    fn is_name_of(&self, name: &Path, file: &dyn ReadFile) -> io::Result<bool> {
        match retry(|| self.fs.open(name)) {
            Ok(named) => Ok(retry(|| named.identity())? == retry(|| file.identity())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes all rows to a new file of this name, and lets rows go there.
    fn restore(&self, name: &Path, from: &dyn ReadFile) -> io::Result<()> {
        let copy = with_suffix(name, ".restored");
        self.remove(&copy)?;
        let attributes = retry(|| from.attributes())?;
        let file = retry(|| create_in_place_of(self.fs.as_ref(), &copy, attributes.as_ref()))?;
        let restored = self.restore_by(&copy, file, name, from);
        if restored.is_err() {
            let _ = self.remove(&copy);
        }
        restored
    }

    fn restore_by(
        &self,
        copy: &Path,
        file: Box<dyn WriteFile>,
        name: &Path,
        from: &dyn ReadFile,
    ) -> io::Result<()> {
        let reader = retry(|| self.fs.open(copy))?;
        // Most of it while rows are still written to the old file.
        let most = self.tail.lock().end();
        copy_rows(from, file.as_ref(), 0, most)?;
        let _order = self.syncs.lock();
        let tail = &mut *self.tail.lock();
        let end = tail.end();
        copy_rows(from, file.as_ref(), most, end)?;
        retry(|| file.sync())?;
        let kept = with_suffix(name, ".replaced");
        let is_replaced = match retry(|| self.fs.open(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            file => file.map(|_| true)?,
        };
        if is_replaced {
            self.rename(name, &kept)?;
        }
        self.rename(copy, name)?;
        *tail = self.tail_of(file, reader, end);
        self.warnings.lock().name = None;
        let name = name.display();
        if is_replaced {
            tracing::error!(
                id = "DHCPSRV_MEMFILE_LEASE_FILE_RESTORED",
                "{name}: somebody has replaced it while it was in use; all changes were written to a new file of that \
                 name, and what was found there is kept as {}: end the server before you change its lease file",
                kept.display()
            );
        } else {
            tracing::error!(
                id = "DHCPSRV_MEMFILE_LEASE_FILE_RESTORED",
                "{name}: somebody has removed it while it was in use; all changes were written to a new file of that \
                 name: end the server before you remove its lease file"
            );
        }
        retry(|| self.fs.sync_folder(folder_of(copy)))
    }

    /// Removes a file, if it is there.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match retry(|| self.fs.remove(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Copies the bytes from one place to another, which are the same in both files.
fn copy_rows(from: &dyn ReadFile, to: &dyn WriteFile, mut at: u64, end: u64) -> io::Result<()> {
    const STEP: u64 = 256 * 1024;
    let mut buffer = Vec::new();
    while at < end {
        buffer.resize(usize::try_from(STEP.min(end - at)).unwrap_or_default(), 0);
        if read_full(from, &mut buffer, at)? < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_full(to, &buffer, at)?;
        at += buffer.len() as u64;
    }
    Ok(())
}

fn with_suffix(name: &Path, suffix: impl AsRef<OsStr>) -> PathBuf {
    let mut name = name.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
