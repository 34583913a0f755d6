//! The file that is written to, and the end of its rows.

use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use memchr::memmem;

use super::failure::Action;
use crate::fs::{ReadFile, WriteFile, read_full, retry, write_full};

/// Number of bytes that a disk writes completely or not at all.
const SECTOR: usize = 512;

/// In [`Durability::Synced`](super::Durability::Synced), the file grows in steps of this number of
/// bytes.
const EXTENT: u64 = if cfg!(test) { 4096 } else { 256 * 1024 };

/// Sizes of the beginning and the end of a long row that must each lie within one sector, so that
/// neither is lost in part: any address and any number is shorter.
const ROW_HEAD: usize = 64;
const ROW_END: usize = 16;

/// Number of bytes before a position that are compared to detect changes.
const SAMPLE: u64 = 64;

/// The file that is written to.
///
/// # Changes by other processes
/// Other processes may append to the file, cut it off or overwrite it. The journal never overwrites
/// their data: where rows are not synced one by one, the system appends them at the end of the
/// file; where they are, the length is checked before each write. [`Tail::check_changed`] detects
/// such changes.
///
/// # Padding
/// A sync is a third faster if the length of the file does not change. Where every row is synced,
/// the file is therefore longer than its rows, and the rest consists of newlines: empty lines,
/// which every reader of lease files skips. They are cut off when the journal continues with
/// another file, when it is closed, and when it is opened after a crash.
///
/// After a power cut during a write, any of the written sectors may still consist of newlines. So
/// that the remains of a row are never taken for another row, a row does not cross the end of a
/// sector, unless it is longer than one; empty lines precede it instead.
pub(super) struct Tail {
    /// The original name of the lease file, even after a rename.
    path: Arc<Path>,
    file: Arc<dyn WriteFile>,
    /// The same file, opened for reading, so that it is accessible after its name refers to another
    /// file.
    reader: Arc<dyn ReadFile>,
    /// The end of the acknowledged rows.
    end: u64,
    /// The length of the file, unless another process has changed it.
    size: u64,
    /// Whether the system determines the position of each write.
    appends: bool,
    pads: bool,
    /// Whether anything was written since the last sync.
    pub(super) unsynced: bool,
    /// Whether a sync has failed: the contents of the disk are unknown, and another sync proves
    /// nothing.
    pub(super) sync_failed: bool,
    /// Rows that a failed write may have left after the end.
    leftover: Option<Vec<u8>>,
    /// The position up to which the file is known to be unchanged.
    checkpoint: Checkpoint,
    /// Whether a change by another process was detected.
    is_changed: bool,
    /// An empty buffer for the rows of several threads.
    pub(super) rows: Vec<u8>,
    /// An empty buffer for rows with empty lines between them.
    buffer: Vec<u8>,
}

/// A position in a file, and the data around it.
struct Checkpoint {
    at: u64,
    /// The bytes before the position.
    sample: Vec<u8>,
    /// The beginning of the first rows written after the position, and the end of the last ones.
    /// Other processes may have appended before, between and after these.
    next: Vec<u8>,
    last: Vec<u8>,
}

impl Checkpoint {
    fn new(file: &dyn ReadFile, at: u64) -> io::Result<Self> {
        let sample = read_range(file, at.saturating_sub(SAMPLE), at)?;
        Ok(Self { at, sample, next: Vec::new(), last: Vec::new() })
    }

    /// Records written rows.
    fn note(&mut self, rows: &[u8]) {
        if self.next.is_empty() {
            let rows = rows.trim_ascii_start();
            self.next.extend_from_slice(&rows[..rows.len().min(SAMPLE as usize)]);
        }
        self.last.clear();
        self.last.extend_from_slice(&rows[rows.len().saturating_sub(SAMPLE as usize)..]);
    }

    /// Returns whether, as far as can be detected, the file has only been appended to.
    fn is_kept(&self, file: &dyn ReadFile, end: u64) -> io::Result<bool> {
        let Self { at, sample, next, last } = self;
        if end < *at || read_range(file, at - sample.len() as u64, *at)? != *sample {
            return Ok(false);
        }
        for written in [next, last] {
            if !written.is_empty() && !contains(file, *at, end, written)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns whether a range of a file contains `bytes`.
fn contains(file: &dyn ReadFile, mut from: u64, end: u64, bytes: &[u8]) -> io::Result<bool> {
    const STEP: u64 = 256 * 1024;
    let overlap = bytes.len() as u64 - 1;
    loop {
        let window = read_range(file, from, end.min(from + STEP + overlap))?;
        if memmem::find(&window, bytes).is_some() {
            return Ok(true);
        }
        from += STEP;
        if from >= end || window.is_empty() {
            return Ok(false);
        }
    }
}

/// The range of a file that another process may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangedRange {
    /// The first byte of the range: 0, or the beginning of a row.
    pub(crate) from: u64,
    /// The end of the file.
    pub(crate) end: u64,
}

impl Tail {
    /// Continues a file that has rows up to `end`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn new(
        path: Arc<Path>,
        file: Arc<dyn WriteFile>,
        reader: Box<dyn ReadFile>,
        end: u64,
        appends: bool,
    ) -> io::Result<Self> {
        let checkpoint = Checkpoint::new(reader.as_ref(), end)?;
        let reader = reader.into();
        let (pads, unsynced, sync_failed, leftover, is_changed) = (!appends, false, false, None, false);
        let (rows, buffer) = (Vec::new(), Vec::new());
        Ok(Self {
            path,
            file,
            reader,
            end,
            size: end,
            appends,
            pads,
            unsynced,
            sync_failed,
            leftover,
            checkpoint,
            is_changed,
            rows,
            buffer,
        })
    }

    pub(super) fn file(&self) -> Arc<dyn WriteFile> {
        Arc::clone(&self.file)
    }

    pub(super) fn reader(&self) -> Arc<dyn ReadFile> {
        Arc::clone(&self.reader)
    }

    /// Returns the end of the acknowledged rows.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns whether another process has changed the file since the last check that found it
    /// unchanged.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn check_changed(&mut self) -> io::Result<bool> {
        if !self.is_changed {
            let len = retry(|| self.reader.len())?;
            self.is_changed = len != self.size || !self.has_sample()?;
        }
        if !self.is_changed && self.checkpoint.at != self.end {
            self.checkpoint = Checkpoint::new(self.reader.as_ref(), self.end)?;
        }
        Ok(self.is_changed)
    }

    fn has_sample(&self) -> io::Result<bool> {
        let Checkpoint { at, sample, .. } = &self.checkpoint;
        Ok(read_range(self.reader.as_ref(), at - sample.len() as u64, *at)? == *sample)
    }

    /// Returns the range that another process may have changed: everything after the last check, or
    /// the whole file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn changed(&self) -> io::Result<ChangedRange> {
        let end = retry(|| self.reader.len())?;
        let is_kept = self.checkpoint.is_kept(self.reader.as_ref(), end)?;
        Ok(ChangedRange { from: if is_kept { self.checkpoint.at } else { 0 }, end })
    }

    /// Continues after the present contents of the file, at least after byte `end`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or written.
    pub(super) fn accept(&mut self, end: u64) -> io::Result<()> {
        let last = read_range(self.reader.as_ref(), end.saturating_sub(1), end)?;
        let mut accepted = end;
        if last != b"\n" && end > 0 {
            // The next row must not become part of this one.
            if self.appends {
                self.file.append(b"\n")?;
            } else {
                write_full(self.file.as_ref(), b"\n", end)?;
            }
            accepted += 1;
        }
        (self.end, self.size, self.leftover, self.is_changed) = (accepted, accepted, None, false);
        self.checkpoint = Checkpoint::new(self.reader.as_ref(), accepted)?;
        Ok(())
    }

    /// Marks the rows from byte `from` on as possibly changed by another process.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn set_changed_from(&mut self, from: u64) -> io::Result<()> {
        self.checkpoint = Checkpoint::new(self.reader.as_ref(), from)?;
        self.is_changed = true;
        Ok(())
    }

    /// Appends rows. After an error, none of them is in the file, if they can be cut off.
    pub(super) fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        let written = if self.appends {
            self.file.append(rows)
        } else {
            write_full(self.file.as_ref(), rows, self.end)
        };
        if let Err(error) = written {
            self.leftover = Some(rows.to_vec());
            self.cut();
            return Err(error);
        }
        self.end += rows.len() as u64;
        self.size = self.size.max(self.end);
        self.checkpoint.note(rows);
        Ok(())
    }

    /// Appends rows, and syncs them. After an error, none of them is in the file, if they can be
    /// cut off.
    pub(super) fn write_synced(&mut self, rows: &[u8], header: &[u8]) -> Result<(), (Action, io::Error)> {
        self.skip_foreign_rows(header).map_err(|error| (Action::Write, error))?;
        let before = self.end;
        let mut buffer = mem::take(&mut self.buffer);
        lay_out(rows, before, &mut buffer);
        let written = self.write(&buffer);
        buffer.clear();
        self.buffer = buffer;
        let result = written.map_err(|error| (Action::Write, error)).and_then(|()| {
            self.pad();
            self.unsynced = false;
            retry(|| self.file.sync()).map_err(|error| {
                self.sync_failed = true;
                self.end = before;
                self.cut();
                (Action::Sync, error)
            })
        });
        if result.is_err() {
            // The rows have been cut off. If this sync succeeds, they do not reappear after a power
            // cut.
            self.sync_failed |= self.file.sync().is_err();
        }
        result
    }

    /// Makes rows go after those of other processes, and not into a hole if the file was cut off.
    fn skip_foreign_rows(&mut self, header: &[u8]) -> io::Result<()> {
        let len = retry(|| self.reader.len())?;
        if len == self.size {
            return Ok(());
        }
        if len == 0 {
            write_full(self.file.as_ref(), header, 0)?;
        }
        let len = retry(|| self.reader.len())?;
        let checkpoint = Checkpoint::new(self.reader.as_ref(), 0)?;
        let checkpoint = mem::replace(&mut self.checkpoint, checkpoint);
        let accepted = self.accept(len);
        // The next check determines the changed range.
        (self.checkpoint, self.is_changed) = (checkpoint, true);
        accepted
    }

    /// Makes the file longer than its rows, where rows are synced one by one.
    fn pad(&mut self) {
        if !self.pads || self.size > self.end {
            return;
        }
        let size = (self.end + 1).next_multiple_of(EXTENT);
        let padding = vec![b'\n'; usize::try_from(size - self.end).unwrap_or_default()];
        self.size = size;
        if let Err(error) = write_full(self.file.as_ref(), &padding, self.end) {
            let path = self.path.display();
            tracing::warn!("{path}: cannot be extended in advance, so syncs take longer: {error}");
            self.pads = false;
            self.cut();
        }
    }

    /// Returns whether, after an error, the file is known to have exactly the acknowledged rows.
    pub(super) fn is_sound(&self) -> bool {
        !self.sync_failed && self.leftover.is_none() && self.size == self.end
    }

    /// Cuts off padding, or the leftovers of a failed write. Data of other processes is kept.
    pub(super) fn cut(&mut self) {
        if self.leftover.is_none() && self.size <= self.end {
            return;
        }
        match self.cut_own() {
            Ok(true) => (self.size, self.leftover) = (self.end, None),
            Ok(false) => self.is_changed = true,
            Err(error) => {
                let (path, end) = (self.path.display(), self.end);
                tracing::error!("{path}: cannot be cut off at byte {end}, after its last row: {error}");
            }
        }
    }

    /// Cuts off the file, unless another process has written after the rows.
    fn cut_own(&mut self) -> io::Result<bool> {
        let leftover = self.leftover.as_deref().unwrap_or_default();
        let most = self.size.max(self.end + leftover.len() as u64);
        let len = retry(|| self.reader.len())?;
        if !(self.end..=most).contains(&len) {
            return Ok(false);
        }
        // Where the system appends, another process may have appended first.
        let is_own = |found: Vec<u8>| leftover.starts_with(&found);
        if self.appends && !is_own(read_range(self.reader.as_ref(), self.end, len)?) {
            return Ok(false);
        }
        if len > self.end {
            retry(|| self.file.set_len(self.end))?;
            self.unsynced = true;
        }
        Ok(true)
    }
}

/// Reads a range of a file, or its part before the end of the file.
fn read_range(file: &dyn ReadFile, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
    let count = read_full(file, &mut bytes, from)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Lays out rows from byte `at` on, with empty lines before a row that would cross the end of a
/// sector.
fn lay_out(rows: &[u8], at: u64, out: &mut Vec<u8>) {
    for row in rows.split_inclusive(|&byte| byte == b'\n') {
        let used = usize::try_from(at % SECTOR as u64).unwrap_or_default() + out.len();
        out.resize(out.len() + gap(used % SECTOR, row.len()), b'\n');
        out.extend_from_slice(row);
    }
}

/// Returns the number of empty lines before a row of `len` bytes, after the first `used` bytes of a
/// sector.
fn gap(used: usize, len: usize) -> usize {
    let fits = |gap: &usize| {
        let start = (used + gap) % SECTOR;
        if len <= SECTOR {
            start + len <= SECTOR
        } else {
            start + ROW_HEAD <= SECTOR && (start + len - 1) % SECTOR + 1 >= ROW_END
        }
    };
    (0..SECTOR).find(fits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_missing_sector_never_turns_a_row_into_another(at: u16, lengths: Vec<u16>) {
            let rows: Vec<Vec<u8>> =
                lengths.iter().map(|len| [vec![b'x'; usize::from(*len % 2000)], vec![b'\n']].concat()).collect();
            let mut out = Vec::new();
            lay_out(&rows.concat(), at.into(), &mut out);
            let mut from = usize::from(at);
            let mut found = Vec::new();
            for line in out.split_inclusive(|&byte| byte == b'\n') {
                let (first, last) = (from, from + line.len() - 1);
                from += line.len();
                if line == b"\n" {
                    continue;
                }
                found.push(line.to_vec());
                let sector = |byte: usize| byte / SECTOR;
                if line.len() <= SECTOR {
                    prop_assert_eq!(sector(first), sector(last));
                } else {
                    prop_assert_eq!(sector(first), sector(first + ROW_HEAD - 1));
                    prop_assert_eq!(sector(last), sector(last + 1 - ROW_END));
                }
            }
            let rows: Vec<_> = rows.into_iter().filter(|row| row != b"\n").collect();
            prop_assert_eq!(found, rows);
        }
    }
}
