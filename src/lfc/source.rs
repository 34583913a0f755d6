//! A lease file that the cleanup reads.

use std::io;
use std::path::{Path, PathBuf};

use super::LfcError;
use crate::fs::{Attributes, FileSystem, ReadFile, read_full};
use crate::lease::Lease;
use crate::lease_file::row::FileLease;
use crate::lease_file::scan::problem_of;
use crate::lease_file::{Header, LeaseFileError, MAX_LINE, RowError, ZEROS, is_row};

/// Where an invalid row stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct InvalidRow {
    /// Its line, counted from wherever counting began.
    pub(super) line: u64,
    /// Where it starts in the file.
    pub(super) position: u64,
}

/// A lease file that is open to be read, and what its header says.
pub(super) struct Source {
    path: PathBuf,
    pub(super) file: Box<dyn ReadFile>,
    pub(super) header: Header,
    /// Where the first row starts.
    pub(super) first: u64,
    /// Where the file ends; what is appended later is not looked at.
    pub(super) len: u64,
    /// How many lines there are before the first row.
    pub(super) header_lines: u64,
    /// Whether the header is there with its newline: a header cut short may look like that of an older file.
    pub(super) has_whole_header: bool,
}

impl Source {
    /// Opens a file and reads its header; `None` if there is no such file. A file without a single byte is as
    /// good as one with nothing but a header.
    pub(super) fn open<L: FileLease>(fs: &dyn FileSystem, path: &Path) -> Result<Option<Self>, LfcError> {
        let error = |action| move |source| LeaseFileError::Io { path: path.to_owned(), action, source };
        let file = match fs.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(error("open"))?,
        };
        let len = file.len().map_err(error("read"))?;
        let header = read_header::<L>(file.as_ref(), path, len)?;
        let path = path.to_owned();
        Ok(Some(match header {
            Some(ReadHeader { header, first, lines, whole }) => {
                Self { path, file, header, first, len, header_lines: lines, has_whole_header: whole }
            }
            None => {
                let header = L::SCHEMA.current();
                Self { path, file, header, first: 0, len, header_lines: 0, has_whole_header: false }
            }
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error with its line counted from the start of the file.
    pub(super) fn located(&self, error: &RowError) -> RowError {
        RowError { line: error.line + self.header_lines, ..error.clone() }
    }

    /// Reads an invalid row again, and returns what is wrong with it.
    pub(super) fn error_of<L: FileLease>(&self, row: InvalidRow) -> Result<RowError, LfcError> {
        InvalidRows::of(self).error_of::<L>(row)
    }

    /// Returns what the file that takes its place is to take over.
    pub(super) fn attributes(&self) -> Result<Option<Attributes>, LfcError> {
        self.file.attributes().map_err(|error| self.unreadable(error))
    }

    pub(super) fn unreadable(&self, source: io::Error) -> LfcError {
        LeaseFileError::Io { path: self.path.clone(), action: "read", source }.into()
    }

    /// The file is not as it was a moment ago.
    pub(super) fn changed(&self) -> LfcError {
        self.unreadable(io::Error::other("the file was changed while it was read"))
    }
}

/// Reads invalid rows again, those that stand close to each other at once.
pub(super) struct InvalidRows<'a> {
    source: &'a Source,
    buffer: Vec<u8>,
    /// Where in the file the buffer starts.
    start: u64,
}

impl<'a> InvalidRows<'a> {
    /// What is read at once, at least.
    const STEP: usize = 16 * 1024;

    pub(super) fn of(source: &'a Source) -> Self {
        Self { source, buffer: Vec::new(), start: 0 }
    }

    /// Returns the text of a row without its newline, and whether that is all of it: there may be more of one that has more
    /// than [`MAX_LINE`] bytes.
    pub(super) fn text(&mut self, row: InvalidRow) -> Result<(&[u8], bool), LfcError> {
        let mut from = row.position.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let mut searched = 0;
        let (from, len, is_whole) = loop {
            if let Some(rest) = from.and_then(|from| self.buffer.get(from..)) {
                if let Some(newline) = memchr::memchr(b'\n', &rest[searched..]) {
                    break (from.unwrap_or_default(), searched + newline, true);
                }
                if rest.len() > MAX_LINE {
                    break (from.unwrap_or_default(), rest.len(), false);
                }
                searched = rest.len();
                self.buffer.drain(..from.unwrap_or_default());
            } else {
                self.buffer.clear();
            }
            (from, self.start) = (Some(0), row.position);
            let len = self.buffer.len();
            self.buffer.resize(len + len.max(Self::STEP), 0);
            let at = self.start + len as u64;
            let count = read_full(self.source.file.as_ref(), &mut self.buffer[len..], at);
            let count = count.map_err(|error| self.source.unreadable(error))?;
            let ended = count < self.buffer.len() - len;
            self.buffer.truncate(len + count);
            if ended && memchr::memchr(b'\n', &self.buffer[len..]).is_none() {
                break (0, self.buffer.len(), true);
            }
        };
        Ok((&self.buffer[from..from + len], is_whole))
    }

    /// Gives all of a row to `take`, a part after the other.
    pub(super) fn each_part(
        &mut self,
        row: InvalidRow,
        mut take: impl FnMut(&[u8]) -> Result<(), LfcError>,
    ) -> Result<(), LfcError> {
        let mut at = row;
        loop {
            let (part, is_whole) = self.text(at)?;
            at.position += part.len() as u64;
            take(part)?;
            if is_whole {
                return Ok(());
            }
        }
    }

    /// Returns what is wrong with a row.
    pub(super) fn error_of<L: FileLease>(&mut self, row: InvalidRow) -> Result<RowError, LfcError> {
        let source = self.source;
        let (text, _) = self.text(row)?;
        let problem = problem_of::<L>(text, &source.header).ok_or_else(|| source.changed())?;
        Ok(RowError::new(row.line + source.header_lines, text, problem))
    }
}

/// A header, and where it stands.
struct ReadHeader {
    header: Header,
    /// Where the first row starts.
    first: u64,
    /// How many lines there are before it.
    lines: u64,
    /// Whether the header ends with a newline.
    whole: bool,
}

/// Reads the header; `None` for an empty file.
fn read_header<L: FileLease>(
    file: &dyn ReadFile,
    path: &Path,
    len: u64,
) -> Result<Option<ReadHeader>, LfcError> {
    /// More than a header, with whatever columns the future may bring.
    const MAX_HEADER: usize = 16 * 1024;
    if len == 0 {
        return Ok(None);
    }
    let mut buffer = vec![0; MAX_HEADER];
    let unreadable = |source| LeaseFileError::Io { path: path.to_owned(), action: "read", source };
    let zeros = leading_zeros(file, &mut buffer).map_err(unreadable)?;
    let mut at = zeros;
    let mut lines = 0;
    let text = loop {
        let count = read_full(file, &mut buffer, at).map_err(unreadable)?;
        // Empty lines may stand before the header.
        let empty = buffer[..count].iter().take_while(|&&byte| byte == b'\n').count();
        at += empty as u64;
        lines += empty as u64;
        if empty == 0 || count == 0 {
            break &buffer[..count];
        }
    };
    let end = memchr::memchr(b'\n', text);
    let line = &text[..end.unwrap_or(text.len())];
    let line = if line.is_empty() && zeros > 0 { ZEROS } else { line };
    let header = match L::SCHEMA.parse_header(line) {
        Ok(header) => header,
        // The header was cut off, and rows were written where they would have been behind it.
        Err(_) if zeros > 0 && is_row(line) => {
            let header = L::SCHEMA.current();
            return Ok(Some(ReadHeader { header, first: at, lines, whole: false }));
        }
        Err(problem) => {
            let (path, family) = (path.to_owned(), <L as Lease>::FAMILY);
            return Err(LeaseFileError::Header { path, line: lines + 1, family, problem }.into());
        }
    };
    let whole = end.is_some() && zeros == 0;
    let newline = u64::from(end.is_some());
    let first = at + line.len() as u64 + newline;
    Ok(Some(ReadHeader { header, first, lines: lines + 1, whole }))
}

/// How many zero bytes a file begins with.
fn leading_zeros(file: &dyn ReadFile, buffer: &mut [u8]) -> io::Result<u64> {
    let mut zeros = 0;
    loop {
        let count = read_full(file, buffer, zeros)?;
        let found = buffer[..count].iter().take_while(|&&byte| byte == 0).count();
        zeros += found as u64;
        if found < count || count == 0 {
            return Ok(zeros);
        }
    }
}
