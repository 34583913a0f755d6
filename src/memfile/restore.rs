//! Rewriting the lease file from the leases in memory: after another process has removed, replaced
//! or changed it, and when the caller asks for it.
//!
//! Rows that another process has appended count, as at the next start. Rows that it has overwritten
//! cannot take leases away: from such a file, only leases of addresses without a lease and leases
//! with a later time are taken over, and the file is kept.
//!
//! The new lease file has all leases, and deletions of those leases of the older files (finish or
//! previous, and input) that are no longer in memory. So it is correct whatever happens to these
//! files.

use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::Ordering;

use tracing::{error, warn};

use super::storage::packed_lease::{Packed, StoredLease, pack};
use super::store::{Persistence, STEP, Store};
use crate::fs::ReadFile;
use crate::lease_file::{FileReader, LeaseFileError, LeaseFileSet, ReadError, Reader};
use crate::lease_mgr::{Change, LeaseMgrError};
use crate::memfile::journal::{ChangedRange, FileState, Rewrite};
use crate::with_sources::with_sources;

/// Number of bytes of rows that are written together.
const CHUNK: usize = 256 * 1024;

/// Maximum length of a line that is searched for two joined rows.
const MAX_SPLIT: usize = 64 * 1024;

/// The rows of a lease file that another process has changed.
struct ForeignRows<L: StoredLease> {
    /// The last row of each address: whether it is a row of this process or differs from memory.
    rows: HashMap<L::AddressKey, Foreign<L>>,
    /// Number of invalid rows.
    invalid: u64,
}

enum Foreign<L> {
    /// A row of this process.
    Own,
    Lease(L),
    Deletion,
}

/// The effects of the rows of another process.
#[derive(Debug, Default)]
struct TakenOver {
    updated: u64,
    deleted: u64,
    invalid: u64,
    is_overwritten: bool,
}

impl<L: StoredLease> Store<L> {
    /// Checks whether the lease file is as this process wrote it, and rewrites it if it is not.
    pub(super) fn check_file(&self) {
        let Some(persistence) = &self.persistence else {
            return;
        };
        if self.tracking.refuse_in_callback().is_err() {
            // The caller is within a change, for which the rewrite would wait.
            return;
        }
        self.notify_availability();
        let journal = &persistence.journal;
        // If the check fails, as without a free descriptor, the file counts as unchanged.
        let Ok(state @ (FileState::Lost | FileState::Changed | FileState::Due)) = journal.file_state() else {
            return;
        };
        if self.check().is_err() {
            // The leases in memory may be wrong.
            return;
        }
        if let Err(error) = self.rewrite_file(state) {
            let what = match state {
                FileState::Lost => "another process has removed or replaced it",
                _ => "another process has changed it",
            };
            let path = persistence.files.current_path().display();
            let warning = format!(
                "{path}: {what}, and it cannot be rewritten: {}; until it is, changes may be lost when the lease \
                 manager ends: make room for it, and let it be created",
                with_sources(&error)
            );
            if journal.set_warning(warning.clone()) {
                error!(id = "DHCPSRV_MEMFILE_LEASE_FILE_GONE", "{warning}");
            }
        }
    }

    /// Writes all leases to the lease file if `path` refers to it.
    pub(super) fn write_own_file(&self, path: &Path) -> Result<Option<u64>, LeaseMgrError> {
        let Some(persistence) = &self.persistence else {
            return Ok(None);
        };
        let Persistence { journal, files, fs, .. } = persistence;
        let current = files.current_path();
        let failed = |source| LeaseFileError::Io { path: path.to_owned(), action: "open", source };
        let own = fs.resolve(current).map_err(failed)?;
        // A link that must not be followed is replaced.
        let target = fs.resolve(path).unwrap_or_else(|_| path.to_owned());
        if fs.is_same_name(&target, &own).map_err(failed)? {
            self.tracking.refuse_in_callback()?;
            self.check()?;
            journal.check()?;
            return Ok(Some(self.rewrite_file(FileState::Unchanged)?));
        }
        let of_target = LeaseFileSet::new(own);
        for other in files.kept_beside().into_iter().chain(of_target.kept_beside()) {
            if fs.is_same_name(&target, &other).map_err(failed)? {
                let (path, lease_file) = (path.to_owned(), current.to_owned());
                return Err(LeaseMgrError::OwnFile { path, lease_file });
            }
        }
        Ok(None)
    }

    /// Replaces the contents of the lease file by all leases. Returns the number of leases.
    pub(super) fn rewrite_file(&self, state: FileState) -> Result<u64, LeaseFileError> {
        let Some(persistence) = &self.persistence else {
            return Ok(0);
        };
        let mut rewrite = persistence.journal.rewrite()?;
        let taken = self.merge_changes(&mut rewrite)?;
        let count = self.write_leases(&mut rewrite)?;
        self.write_deletions(&mut rewrite)?;
        let kept = rewrite.finish()?;
        persistence.has_invalid_rows.store(false, Ordering::Relaxed);
        self.report(state, taken.as_ref(), kept.as_deref());
        Ok(count)
    }

    /// Takes over the changes of another process. From then on, the rewrite copies the rows of all
    /// changes in memory.
    fn merge_changes(&self, rewrite: &mut Rewrite<'_>) -> Result<Option<TakenOver>, LeaseFileError> {
        let _blocked = self.rows.lock_everything();
        let mut taken = None;
        rewrite.merge_changes(|file, changed| {
            let found = self.examine(file, changed)?;
            taken = Some(self.take_over(found, changed.from == 0));
            Ok(())
        })?;
        let has_invalid_rows =
            |persistence: &Persistence| persistence.has_invalid_rows.load(Ordering::Relaxed);
        if self.persistence.as_ref().is_some_and(has_invalid_rows)
            || taken.as_ref().is_some_and(|taken| taken.is_overwritten || taken.invalid > 0)
        {
            rewrite.keep_old();
        }
        Ok(taken)
    }

    /// Reads the rows that another process may have changed. The caller blocks changes of leases.
    fn examine(&self, file: &dyn ReadFile, changed: ChangedRange) -> Result<ForeignRows<L>, LeaseFileError> {
        let path = self.persistence.as_ref().map(|persistence| persistence.files.current_path());
        let path = path.unwrap_or(Path::new("lease file"));
        let rest = || FileReader::starting_at(file, changed.from);
        let own_header = format!("{}\n", L::SCHEMA.header);
        let after_header = || Reader::with_path(own_header.as_bytes().chain(rest()), path);
        let mut found = ForeignRows { rows: HashMap::new(), invalid: 0 };
        if changed.from > 0 {
            found.read(self, after_header()?)?;
            return Ok(found);
        }
        match Reader::with_path(rest(), path) {
            Ok(reader) => found.read(self, reader)?,
            Err(LeaseFileError::Header { .. }) => found.read(self, after_header()?)?,
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Applies the rows of another process to the leases in memory. The caller blocks changes of
    /// leases.
    fn take_over(&self, found: ForeignRows<L>, is_overwritten: bool) -> TakenOver {
        let mut taken = TakenOver { invalid: found.invalid, is_overwritten, ..TakenOver::default() };
        let mut record = Vec::new();
        for (key, row) in found.rows {
            let old = self.read().get(key).map(|packed| packed.lease());
            match (row, old) {
                (Foreign::Lease(lease), old) => {
                    // An overwritten file may be a copy from an earlier time.
                    let is_older = |old: &L| is_overwritten && old.data().cltt >= lease.data().cltt;
                    if old.as_ref().is_some_and(is_older) {
                        continue;
                    }
                    pack(&lease, &mut record);
                    let Ok(()) = self.write().and_then(|mut storage| Ok(storage.replace(&record)?)) else {
                        taken.invalid += 1;
                        continue;
                    };
                    taken.updated += 1;
                    match &old {
                        Some(old) => self.tracking.notify(&Change::updated(old, &lease)),
                        None => self.tracking.notify(&Change::added(&lease)),
                    }
                }
                (Foreign::Deletion, Some(old)) if !is_overwritten => {
                    let Ok(()) = self.write().map(|mut storage| {
                        storage.remove(key);
                    }) else {
                        continue;
                    };
                    taken.deleted += 1;
                    self.tracking.notify(&Change::deleted(&old));
                }
                _ => {}
            }
        }
        taken
    }

    fn write_leases(&self, rewrite: &mut Rewrite<'_>) -> Result<u64, LeaseFileError> {
        let (mut text, mut after, mut count) = (Vec::new(), None, 0);
        loop {
            let (written, last) = self.read().write_rows(after, STEP, &mut text);
            count += written as u64;
            if text.len() >= CHUNK || last.is_none() {
                rewrite.append(&text)?;
                text.clear();
            }
            match last {
                Some(_) => after = last,
                None => return Ok(count),
            }
        }
    }

    /// Appends deletions of the leases that are in older files and not in memory.
    fn write_deletions(&self, rewrite: &mut Rewrite<'_>) -> Result<(), LeaseFileError> {
        let Some(persistence) = &self.persistence else {
            return Ok(());
        };
        let (mut text, mut record) = (Vec::new(), Vec::new());
        let current = persistence.files.current_path();
        for (file, path) in persistence.files.open_for_loading::<L>(persistence.fs.as_ref())? {
            if path == current {
                continue;
            }
            for row in crate::lease_file::read_file::<L>(file.as_ref(), &path)? {
                let parsed = match row {
                    Ok(parsed) if !parsed.deletes() => parsed,
                    Ok(_) | Err(ReadError::Row(_)) => continue,
                    Err(ReadError::File(error)) => return Err(error),
                };
                if self.read().get(parsed.lease.key()).is_none() {
                    pack(&parsed.lease, &mut record);
                    L::write_deletion(&Packed::new(&record), &mut text);
                }
                if text.len() >= CHUNK {
                    rewrite.append(&text)?;
                    text.clear();
                }
            }
        }
        rewrite.append(&text)
    }

    fn report(&self, state: FileState, taken: Option<&TakenOver>, kept: Option<&Path>) {
        let Some(persistence) = &self.persistence else {
            return;
        };
        let path = persistence.files.current_path().display();
        let what = match state {
            FileState::Lost if kept.is_some() && taken.is_none() => "replaced",
            FileState::Lost => "removed",
            FileState::Changed => "changed",
            FileState::Due | FileState::Unchanged if taken.is_some() => "changed",
            FileState::Due | FileState::Unchanged => {
                if let Some(kept) = kept {
                    let kept = kept.display();
                    warn!(
                        id = "DHCPSRV_MEMFILE_INVALID_ROWS_KEPT",
                        "{path}: it was rewritten from memory; its old contents, with the invalid rows, are kept as {kept}"
                    );
                }
                return;
            }
        };
        let changes = taken.map_or_else(String::new, |TakenOver { updated, deleted, invalid, .. }| {
            format!(" with {updated} leases of that process added or updated, {deleted} deleted, and {invalid} invalid rows")
        });
        let kept = kept
            .map_or_else(String::new, |kept| format!("; its old contents are kept as {}", kept.display()));
        error!(
            id = "DHCPSRV_MEMFILE_LEASE_FILE_RESTORED",
            "{path}: another process has {what} it while it was in use; it was rewritten from memory{changes}{kept}; stop \
             the server before you change its lease file"
        );
    }
}

impl<L: StoredLease> ForeignRows<L> {
    /// Reads rows, and compares them with the leases in memory.
    fn read<R: Read>(&mut self, store: &Store<L>, mut reader: Reader<L, R>) -> Result<(), LeaseFileError> {
        let mut own = Vec::new();
        while let Some(row) = reader.next() {
            match row {
                Ok(parsed) => self.add(store, parsed.lease, reader.text(), &mut own),
                Err(ReadError::Row(_)) => {
                    let text = reader.text();
                    match self.split(store, text, &mut own) {
                        // An unfinished row of another process, followed by a row of this process.
                        Some(at) => match L::parse_row(&text[..at], reader.header()) {
                            Ok(parsed) => self.add(store, parsed.lease, &text[..at], &mut own),
                            Err(_) => self.invalid += 1,
                        },
                        None => self.invalid += 1,
                    }
                }
                Err(ReadError::File(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn add(&mut self, store: &Store<L>, lease: L, text: &[u8], own: &mut Vec<u8>) {
        let key = lease.key();
        let storage = store.read();
        let packed = storage.get(key);
        let deletes = lease.data().valid_lifetime.0 == 0;
        own.clear();
        if let Some(packed) = &packed {
            packed.lease().write_row(own);
        }
        let row = match packed {
            Some(_) if own.strip_suffix(b"\n") == Some(text) => Foreign::Own,
            None if deletes => Foreign::Own,
            _ if deletes => Foreign::Deletion,
            _ => Foreign::Lease(lease),
        };
        self.rows.insert(key, row);
    }

    /// Returns where the row of a lease in memory begins, if `line` ends with one.
    fn split(&mut self, store: &Store<L>, line: &[u8], own: &mut Vec<u8>) -> Option<usize> {
        if line.len() > MAX_SPLIT {
            return None;
        }
        let storage = store.read();
        for at in 1..line.len() {
            let end = line[at..].iter().position(|&byte| byte == b',').map(|len| at + len)?;
            let begins_row =
                std::str::from_utf8(&line[at..end]).is_ok_and(|text| text.parse::<IpAddr>().is_ok());
            if !begins_row {
                continue;
            }
            let parsed = L::parse_row(&line[at..], &L::SCHEMA.current());
            let Some(packed) = parsed.ok().and_then(|parsed| storage.get(parsed.lease.key())) else {
                continue;
            };
            own.clear();
            packed.lease().write_row(own);
            if own.strip_suffix(b"\n") == Some(&line[at..]) {
                self.rows.insert(packed.key(), Foreign::Own);
                return Some(at);
            }
        }
        None
    }
}
