//! A lease file that the cleanup reads.

use std::io;
use std::path::{Path, PathBuf};

use super::LfcError;
use crate::fs::{Attributes, FileSystem, ReadFile, read_full};
use crate::lease::Lease;
use crate::lease_file::row::FileLease;
use crate::lease_file::scan::problem_of;
use crate::lease_file::{Header, LeaseFileError, MAX_LINE, RowError, ZEROS, is_row};

/// The location of an invalid row.
#[derive(Clone, Copy, Debug)]
pub(super) struct InvalidRow {
    /// The line, counted from 1 in the part or the file that is read.
    pub(super) line: u64,
    /// The offset in the file.
    pub(super) position: u64,
}

/// An open lease file, and its header.
pub(super) struct Source {
    path: PathBuf,
    pub(super) file: Box<dyn ReadFile>,
    pub(super) header: Header,
    /// The offset of the first row.
    pub(super) first: u64,
    /// The length of the file when it was opened; what is appended later is ignored.
    pub(super) len: u64,
    /// Number of lines before the first row.
    pub(super) header_lines: u64,
    /// Whether the header is complete with its newline: a truncated one may look like that of an
    /// older file.
    pub(super) has_whole_header: bool,
}

impl Source {
    /// Opens a file and reads its header; `None` if the file does not exist. An empty file is read
    /// as one with a header only.
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

    /// Returns an error with its line counted from the start of the file.
    pub(super) fn located(&self, error: &RowError) -> RowError {
        RowError { line: error.line + self.header_lines, ..error.clone() }
    }

    /// Reads an invalid row again, and returns its error.
    pub(super) fn error_of<L: FileLease>(&self, row: InvalidRow) -> Result<RowError, LfcError> {
        InvalidRows::of(self).error_of::<L>(row)
    }

    /// Returns the attributes that the file that replaces this one takes over.
    pub(super) fn attributes(&self) -> Result<Option<Attributes>, LfcError> {
        self.file.attributes().map_err(|error| self.unreadable(error))
    }

    pub(super) fn unreadable(&self, source: io::Error) -> LfcError {
        LeaseFileError::Io { path: self.path.clone(), action: "read", source }.into()
    }

    /// Returns the error of a file that was modified concurrently.
    pub(super) fn changed(&self) -> LfcError {
        self.unreadable(io::Error::other("the file was changed while it was read"))
    }
}

/// Reads invalid rows again, several at once if they are close to each other.
pub(super) struct InvalidRows<'a> {
    source: &'a Source,
    buffer: Vec<u8>,
    /// The offset of the buffer in the file.
    start: u64,
}

impl<'a> InvalidRows<'a> {
    /// Minimum number of bytes that are read at once.
    const STEP: usize = 16 * 1024;

    pub(super) fn of(source: &'a Source) -> Self {
        Self { source, buffer: Vec::new(), start: 0 }
    }

    /// Returns the text of a row without its newline, and whether it is complete: a row of more
    /// than [`MAX_LINE`] bytes may not be.
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

    /// Passes all parts of a row to `take`, in order.
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

    /// Returns the error of a row.
    pub(super) fn error_of<L: FileLease>(&mut self, row: InvalidRow) -> Result<RowError, LfcError> {
        let source = self.source;
        let (text, _) = self.text(row)?;
        let problem = problem_of::<L>(text, &source.header).ok_or_else(|| source.changed())?;
        Ok(RowError::new(row.line + source.header_lines, text, problem))
    }
}

/// A header and its location.
struct ReadHeader {
    header: Header,
    /// The offset of the first row.
    first: u64,
    /// Number of lines before it.
    lines: u64,
    /// Whether the header ends with a newline.
    whole: bool,
}

/// Reads the header; `None` if the file is empty.
fn read_header<L: FileLease>(
    file: &dyn ReadFile,
    path: &Path,
    len: u64,
) -> Result<Option<ReadHeader>, LfcError> {
    /// Maximum length of a header, which is enough for additional columns.
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
        // Empty lines may precede the header.
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
        // The file was truncated, and a process then wrote rows at the offset that it had before.
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

/// Returns the number of zero bytes at the beginning of a file.
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
