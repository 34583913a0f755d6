//! The file that is written to, and where its rows end.

use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use super::failure::Action;
use crate::fs::{ReadFile, WriteFile, write_full};

/// A disk writes so many bytes as a whole, or not at all.
const SECTOR: usize = 512;

/// In [`Durability::Synced`](super::Durability::Synced) the file is made longer in steps of so many bytes.
const EXTENT: u64 = if cfg!(test) { 4096 } else { 256 * 1024 };

/// The beginning of a row, which may not be missing where the rest of it is there, and the end, of which no part may be missing
/// where the rest is: any address and any number is shorter.
const HEAD: usize = 64;
const FOOT: usize = 16;

/// The file that is written to.
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
    /// How long the file is at most.
    size: u64,
    pads: bool,
    /// Whether anything was written since the last sync.
    pub(super) unsynced: bool,
    /// A sync has failed, so that nobody knows what is on the disk, and another sync proves nothing.
    pub(super) doubtful: bool,
    /// Room for the rows of several threads, empty.
    pub(super) rows: Vec<u8>,
    /// Room for rows with empty lines between them, empty.
    buffer: Vec<u8>,
}

impl Tail {
    /// Goes on with a file that has rows up to its end.
    pub(super) fn new(
        path: Arc<Path>,
        file: Box<dyn WriteFile>,
        reader: Box<dyn ReadFile>,
        end: u64,
        pads: bool,
    ) -> Self {
        let (file, reader) = (file.into(), reader.into());
        let (unsynced, doubtful) = (false, false);
        let (rows, buffer) = (Vec::new(), Vec::new());
        Self { path, file, reader, end, size: end, pads, unsynced, doubtful, rows, buffer }
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

    /// Writes rows behind the last one. After an error none of them is there, if they can be cut off.
    pub(super) fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        if let Err(error) = write_full(self.file.as_ref(), rows, self.end) {
            self.size = u64::MAX;
            self.cut();
            return Err(error);
        }
        self.end += rows.len() as u64;
        self.size = self.size.max(self.end);
        Ok(())
    }

    /// Writes rows behind the last one, and syncs them. After an error none of them is there, if they can be cut off.
    pub(super) fn write_synced(&mut self, rows: &[u8]) -> Result<(), (Action, io::Error)> {
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

    /// Whether the file is known to have the rows that were acknowledged and nothing behind them, after an error.
    pub(super) fn is_sound(&self) -> bool {
        !self.doubtful && self.size == self.end
    }

    /// Cuts off what is behind the rows.
    pub(super) fn cut(&mut self) {
        if self.size <= self.end {
            return;
        }
        match retry(|| self.file.set_len(self.end)) {
            Ok(()) => {
                self.size = self.end;
                self.unsynced = true;
            }
            Err(error) => {
                let (path, end) = (self.path.display(), self.end);
                tracing::error!("{path}: cannot be cut off at byte {end}, behind its last row: {error}");
            }
        }
    }
}

/// Does something again when a signal has interrupted it.
pub(super) fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
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
