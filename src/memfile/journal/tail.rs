//! The file that is written to, and where its rows end.

use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use memchr::memmem;

use super::failure::Action;
use crate::fs::{ReadFile, WriteFile, read_full, retry, write_full};

/// A disk writes so many bytes as a whole, or not at all.
const SECTOR: usize = 512;

/// In [`Durability::Synced`](super::Durability::Synced) the file is made longer in steps of so many bytes.
const EXTENT: u64 = if cfg!(test) { 4096 } else { 256 * 1024 };

/// The beginning of a row, which may not be missing where the rest of it is there, and the end, of which no part may be missing
/// where the rest is: any address and any number is shorter.
const HEAD: usize = 64;
const FOOT: usize = 16;

/// Number of bytes before a place in the file that tell whether these are still the same.
const SAMPLE: u64 = 64;

/// The file that is written to.
///
/// # Changes by others
/// Other processes may append to the file, cut it off or write over it. Nothing of theirs is written over: where rows are not
/// synced one by one, they are appended by the system wherever the file ends; where they are, the length is looked at before each
/// write. [`Tail::look`] finds out that there was such a change.
///
/// # Padding
/// A sync is quicker by a third when the length of the file does not change. Where every row is synced, the file is therefore longer than its rows, and
/// the rest is newlines: empty lines, which every reader of lease files skips. They are cut off when the journal goes on with another
/// file, when it is closed, and when it is opened after a crash.
///
/// After a power cut in the middle of a write, any of the sectors written may be newlines still. So that what is left
/// of a row is never taken for another row, a row does not lie across the end of a sector, unless it is longer than one; there are
/// empty lines before it instead.
pub(super) struct Tail {
    /// The lease file's name, whatever it is called now.
    path: Arc<Path>,
    file: Arc<dyn WriteFile>,
    /// The same file, to be read: so it stays known when its name stands for another.
    reader: Arc<dyn ReadFile>,
    /// Where the rows end, those which were acknowledged.
    end: u64,
    /// The length of the file, if no other process has changed it.
    size: u64,
    /// Whether the system finds the place to write to.
    appends: bool,
    pads: bool,
    /// Whether anything was written since the last sync.
    pub(super) unsynced: bool,
    /// A sync has failed, so that nobody knows what is on the disk, and another sync proves nothing.
    pub(super) doubtful: bool,
    /// Rows that a failed write may have left after the end.
    left: Option<Vec<u8>>,
    /// Up to where the file is known to be as it was written.
    seen: Seen,
    /// Whether another process is known to have changed the file.
    is_changed: bool,
    /// Room for the rows of several threads, empty.
    pub(super) rows: Vec<u8>,
    /// Room for rows with empty lines between them, empty.
    buffer: Vec<u8>,
}

/// A place in a file, and what is around it.
struct Seen {
    at: u64,
    /// The bytes before it.
    sample: Vec<u8>,
    /// The beginning of what was written after it first, and the end of what was written last. Other processes may have
    /// appended something before, between and after these.
    next: Vec<u8>,
    last: Vec<u8>,
}

impl Seen {
    fn new(file: &dyn ReadFile, at: u64) -> io::Result<Self> {
        let sample = read_range(file, at.saturating_sub(SAMPLE), at)?;
        Ok(Self { at, sample, next: Vec::new(), last: Vec::new() })
    }

    /// Notes what is written.
    fn note(&mut self, rows: &[u8]) {
        if self.next.is_empty() {
            let rows = rows.trim_ascii_start();
            self.next.extend_from_slice(&rows[..rows.len().min(SAMPLE as usize)]);
        }
        self.last.clear();
        self.last.extend_from_slice(&rows[rows.len().saturating_sub(SAMPLE as usize)..]);
    }

    /// Returns whether a file was changed by nothing but what was appended to it, as far as it can be told.
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

/// Returns whether the bytes of a file from one place to another have some others among them.
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

/// What is to be looked at in a file that another process has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The first byte to be looked at: 0, or where a row begins.
    pub(crate) from: u64,
    /// Where the file ends.
    pub(crate) end: u64,
}

impl Tail {
    /// Goes on with a file that has rows up to its end.
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
        let seen = Seen::new(reader.as_ref(), end)?;
        let reader = reader.into();
        let (pads, unsynced, doubtful, left, is_changed) = (!appends, false, false, None, false);
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
            doubtful,
            left,
            seen,
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

    /// Where the rows end, those which were acknowledged.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns whether another process has changed the file since the last look that found it as it was written.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        if !self.is_changed {
            let len = retry(|| self.reader.len())?;
            self.is_changed = len != self.size || !self.has_sample()?;
        }
        if !self.is_changed && self.seen.at != self.end {
            self.seen = Seen::new(self.reader.as_ref(), self.end)?;
        }
        Ok(self.is_changed)
    }

    fn has_sample(&self) -> io::Result<bool> {
        let Seen { at, sample, .. } = &self.seen;
        Ok(read_range(self.reader.as_ref(), at - sample.len() as u64, *at)? == *sample)
    }

    /// Returns what another process may have changed: what came after the last look, or everything.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn changed(&self) -> io::Result<Changed> {
        let end = retry(|| self.reader.len())?;
        let is_kept = self.seen.is_kept(self.reader.as_ref(), end)?;
        Ok(Changed { from: if is_kept { self.seen.at } else { 0 }, end })
    }

    /// Goes on after everything that is in the file, up to byte `end` at least.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or written.
    pub(super) fn accept(&mut self, end: u64) -> io::Result<()> {
        let last = read_range(self.reader.as_ref(), end.saturating_sub(1), end)?;
        let mut accepted = end;
        if last != b"\n" && end > 0 {
            // The next row must not become a part of that one.
            if self.appends {
                self.file.append(b"\n")?;
            } else {
                write_full(self.file.as_ref(), b"\n", end)?;
            }
            accepted += 1;
        }
        (self.end, self.size, self.left, self.is_changed) = (accepted, accepted, None, false);
        self.seen = Seen::new(self.reader.as_ref(), accepted)?;
        Ok(())
    }

    /// Makes the rows from byte `from` on those that are looked at next, because another process may have changed them.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn doubt_from(&mut self, from: u64) -> io::Result<()> {
        self.seen = Seen::new(self.reader.as_ref(), from)?;
        self.is_changed = true;
        Ok(())
    }

    /// Writes rows behind the last one. After an error none of them is there, if they can be cut off.
    pub(super) fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        let written = if self.appends {
            self.file.append(rows)
        } else {
            write_full(self.file.as_ref(), rows, self.end)
        };
        if let Err(error) = written {
            self.left = Some(rows.to_vec());
            self.cut();
            return Err(error);
        }
        self.end += rows.len() as u64;
        self.size = self.size.max(self.end);
        self.seen.note(rows);
        Ok(())
    }

    /// Writes rows behind the last one, and syncs them. After an error none of them is there, if they can be cut off.
    pub(super) fn write_synced(&mut self, rows: &[u8], header: &[u8]) -> Result<(), (Action, io::Error)> {
        self.make_way(header).map_err(|error| (Action::Write, error))?;
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
                self.doubtful = true;
                self.end = before;
                self.cut();
                (Action::Sync, error)
            })
        });
        if result.is_err() {
            // The rows are cut off. If this succeeds, they do not come back after a power cut either.
            self.doubtful |= self.file.sync().is_err();
        }
        result
    }

    /// Makes rows go after what other processes have written, and not into a hole where they have cut the file off.
    fn make_way(&mut self, header: &[u8]) -> io::Result<()> {
        let len = retry(|| self.reader.len())?;
        if len == self.size {
            return Ok(());
        }
        if len == 0 {
            write_full(self.file.as_ref(), header, 0)?;
        }
        let len = retry(|| self.reader.len())?;
        let seen = Seen::new(self.reader.as_ref(), 0)?;
        let seen = mem::replace(&mut self.seen, seen);
        let accepted = self.accept(len);
        // It is left to the next look to find out what was changed.
        (self.seen, self.is_changed) = (seen, true);
        accepted
    }

    /// Makes the file longer than its rows, if it is not and should be.
    fn pad(&mut self) {
        if !self.pads || self.size > self.end {
            return;
        }
        let size = (self.end + 1).next_multiple_of(EXTENT);
        let padding = vec![b'\n'; usize::try_from(size - self.end).unwrap_or_default()];
        self.size = size;
        if let Err(error) = write_full(self.file.as_ref(), &padding, self.end) {
            let path = self.path.display();
            tracing::warn!("{path}: cannot be made longer in advance, so that syncs take longer: {error}");
            self.pads = false;
            self.cut();
        }
    }

    /// Whether the file is known to have the rows that were acknowledged and nothing of others that failed, after an error.
    pub(super) fn is_sound(&self) -> bool {
        !self.doubtful && self.left.is_none() && self.size == self.end
    }

    /// Cuts off what is behind the rows: padding, or what a failed write has left. What other processes have written stays.
    pub(super) fn cut(&mut self) {
        if self.left.is_none() && self.size <= self.end {
            return;
        }
        match self.cut_own() {
            Ok(true) => (self.size, self.left) = (self.end, None),
            Ok(false) => self.is_changed = true,
            Err(error) => {
                let (path, end) = (self.path.display(), self.end);
                tracing::error!("{path}: cannot be cut off at byte {end}, behind its last row: {error}");
            }
        }
    }

    /// Cuts the file off, unless other processes have written behind the rows.
    fn cut_own(&mut self) -> io::Result<bool> {
        let left = self.left.as_deref().unwrap_or_default();
        let most = self.size.max(self.end + left.len() as u64);
        let len = retry(|| self.reader.len())?;
        if !(self.end..=most).contains(&len) {
            return Ok(false);
        }
        // Where the system appends, others may have been faster.
        let is_own = |found: Vec<u8>| left.starts_with(&found);
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

/// Reads the bytes from one place of a file to another, or to its end.
fn read_range(file: &dyn ReadFile, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
    let count = read_full(file, &mut bytes, from)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Rows as they are written from byte `at` on, with empty lines between them where a row would lie across the end of a sector.
fn lay_out(rows: &[u8], at: u64, out: &mut Vec<u8>) {
    for row in rows.split_inclusive(|&byte| byte == b'\n') {
        let used = usize::try_from(at % SECTOR as u64).unwrap_or_default() + out.len();
        out.resize(out.len() + gap(used % SECTOR, row.len()), b'\n');
        out.extend_from_slice(row);
    }
}

/// How many empty lines must stand before a row of `len` bytes, behind the first `used` bytes of a sector.
fn gap(used: usize, len: usize) -> usize {
    let fits = |gap: &usize| {
        let start = (used + gap) % SECTOR;
        if len <= SECTOR {
            start + len <= SECTOR
        } else {
            start + HEAD <= SECTOR && (start + len - 1) % SECTOR + 1 >= FOOT
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
        fn no_sector_that_is_missing_makes_another_row_of_one(at: u16, lengths: Vec<u16>) {
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
                    prop_assert_eq!(sector(first), sector(first + HEAD - 1));
                    prop_assert_eq!(sector(last), sector(last + 1 - FOOT));
                }
            }
            let rows: Vec<_> = rows.into_iter().filter(|row| row != b"\n").collect();
            prop_assert_eq!(found, rows);
        }
    }
}
