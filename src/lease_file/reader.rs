//! Reading lease files row by row.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use super::MAX_LINE;
use super::error::{LeaseFileError, RowError, RowProblem};
use super::row::{FileLease, Parsed};
use super::schema::Header;

/// The leases of a lease file, in the order of its rows.
///
/// An invalid row is an error with its line, and reading continues after it. An empty file has no
/// rows.
///
/// ```
/// use leasemgr::lease::{Lease, Lease4};
/// use leasemgr::lease_file::{ReadError, Reader};
///
/// let text = "\
/// address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
/// 192.0.2.1,02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,,0
/// 192.0.2.300,02:00:00:00:00:02,,3600,1790003600,1,0,0,,0,,0
/// ";
/// let mut reader = Reader::<Lease4, _>::new(text.as_bytes())?;
/// assert_eq!(reader.next().unwrap()?.lease.expires_at(), 1_790_003_600);
/// let error = reader.next().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "line 3: address is \"192.0.2.300\", expected an IPv4 address");
/// assert!(reader.next().is_none());
/// assert_eq!((reader.stats().leases, reader.stats().invalid_rows), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader<L, R> {
    input: BufReader<R>,
    path: PathBuf,
    header: Header,
    has_whole_header: bool,
    leading_zeros: u64,
    /// A line that was read where a header was expected.
    pending: Option<Line>,
    line: Vec<u8>,
    lines: u64,
    stats: ReadStats,
    torn: bool,
    failed: bool,
    leases: PhantomData<L>,
}

/// Numbers of rows that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Valid rows, including those that delete a lease.
    pub leases: u64,
    /// Invalid rows.
    pub invalid_rows: u64,
}

/// The reason why a row was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The row is invalid. The next one can be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The file cannot be read any further.
    #[error(transparent)]
    File(#[from] LeaseFileError),
}

/// How a line ended.
#[derive(Debug)]
enum Line {
    /// At a newline.
    Whole,
    /// At the end of the file.
    Torn,
    /// Longer than [`MAX_LINE`].
    TooLong,
    /// There is no further line.
    None,
}

impl<L: FileLease> Reader<L, File> {
    /// Opens a lease file.
    ///
    /// # Errors
    /// Returns [`LeaseFileError`] if the file cannot be read, or is not a lease file of the family.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LeaseFileError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| LeaseFileError::Io {
            path: path.to_owned(),
            action: "open",
            source,
        })?;
        Self::with_path(file, path)
    }
}

impl<L: FileLease, R: Read> Reader<L, R> {
    /// Reads from any input.
    ///
    /// # Errors
    /// Returns [`LeaseFileError`] if the input cannot be read, or is not a lease file of the
    /// family.
    pub fn new(input: R) -> Result<Self, LeaseFileError> {
        Self::with_path(input, Path::new("lease file"))
    }

    /// Reads from an input that errors refer to as `path`.
    ///
    /// # Errors
    /// Returns [`LeaseFileError`] if the input cannot be read, or is not a lease file of the
    /// family.
    pub fn with_path(input: R, path: &Path) -> Result<Self, LeaseFileError> {
        let mut reader = Self {
            input: BufReader::with_capacity(64 * 1024, input),
            path: path.to_owned(),
            header: L::SCHEMA.current(),
            has_whole_header: false,
            leading_zeros: 0,
            pending: None,
            line: Vec::new(),
            lines: 0,
            stats: ReadStats::default(),
            torn: false,
            failed: false,
            leases: PhantomData,
        };
        reader.leading_zeros = reader.skip_zeros()?;
        let mut any = reader.leading_zeros > 0;
        let end = loop {
            match reader.next_line()? {
                // Newlines alone are not a lease file; no bytes at all are an empty one.
                Line::None if !any => return Ok(reader),
                Line::Whole if reader.line.is_empty() => any = true,
                end => break end,
            }
        };
        reader.has_whole_header = matches!(end, Line::Whole) && reader.leading_zeros == 0;
        if matches!(end, Line::None) && reader.leading_zeros > 0 {
            // The text for the error, as the file has no other bytes.
            reader.line = ZEROS.to_vec();
            reader.lines = 1;
        }
        match L::SCHEMA.parse_header(&reader.line) {
            Ok(header) => Ok(Self { header, ..reader }),
            // The file was truncated, and a process then wrote rows at the offset that it had
            // before.
            Err(_) if reader.leading_zeros > 0 && is_row(&reader.line) => {
                Ok(Self { pending: Some(end), ..reader })
            }
            Err(problem) => Err(LeaseFileError::Header {
                path: reader.path,
                line: reader.lines,
                family: L::FAMILY,
                problem,
            }),
        }
    }

    /// Returns the header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns whether the header is complete with its newline: a truncated one may look like that
    /// of an older file.
    pub(super) fn has_whole_header(&self) -> bool {
        self.has_whole_header
    }

    /// Returns the number of zero bytes before the header or the first row, which are skipped. A
    /// file begins with them if it was truncated while a process was writing at a later offset.
    #[must_use]
    pub fn leading_zeros(&self) -> u64 {
        self.leading_zeros
    }

    /// Returns the number of the line that was read last, counted from 1 with the header.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.lines
    }

    /// Returns an error for the row that was read last.
    pub(crate) fn error(&self, problem: RowProblem) -> RowError {
        RowError::new(self.lines, &self.line, problem)
    }

    /// Returns the numbers of rows that were read so far.
    #[must_use]
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    /// Returns the line that was read last, without its newline; empty if the line is too long.
    pub(crate) fn text(&self) -> &[u8] {
        &self.line
    }

    /// Returns whether the last line that was read has no newline: its writer was interrupted, or
    /// has not finished it.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Skips the zero bytes that come next, and returns their number.
    fn skip_zeros(&mut self) -> Result<u64, LeaseFileError> {
        let mut skipped = 0;
        loop {
            let text = match self.input.fill_buf() {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let path = self.path.clone();
                    return Err(LeaseFileError::Io { path, action: "read", source });
                }
            };
            let zeros = text.iter().take_while(|&&byte| byte == 0).count();
            let is_end = zeros < text.len() || zeros == 0;
            self.input.consume(zeros);
            skipped += zeros as u64;
            if is_end {
                return Ok(skipped);
            }
        }
    }

    /// Reads the next line, without its newline.
    fn next_line(&mut self) -> Result<Line, LeaseFileError> {
        self.line.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let text = match self.input.fill_buf() {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let path = self.path.clone();
                    return Err(LeaseFileError::Io { path, action: "read", source });
                }
            };
            if text.is_empty() {
                if !any {
                    return Ok(Line::None);
                }
                self.lines += 1;
                self.torn = true;
                return Ok(if too_long { Line::TooLong } else { Line::Torn });
            }
            any = true;
            let newline = memchr::memchr(b'\n', text);
            let part = &text[..newline.unwrap_or(text.len())];
            too_long |= self.line.len() + part.len() > MAX_LINE;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(newline.is_some());
            self.input.consume(used);
            if newline.is_some() {
                self.lines += 1;
                return Ok(if too_long { Line::TooLong } else { Line::Whole });
            }
        }
    }

    fn next_row(&mut self) -> Result<Option<Parsed<L>>, ReadError> {
        loop {
            let line = match self.pending.take() {
                Some(line) => line,
                None => self.next_line()?,
            };
            let result = match line {
                Line::None => return Ok(None),
                Line::Whole if self.line.is_empty() => continue,
                Line::TooLong => Err(RowProblem::TooLong { limit: MAX_LINE }),
                Line::Whole | Line::Torn => L::parse_row(&self.line, &self.header),
            };
            return match result {
                Ok(parsed) => {
                    self.stats.leases += 1;
                    Ok(Some(parsed))
                }
                Err(problem) => {
                    self.stats.invalid_rows += 1;
                    Err(self.error(problem).into())
                }
            };
        }
    }
}

/// The text that stands for a file of zeros alone in place of a header.
pub(crate) const ZEROS: &[u8] = &[0; 64];

/// Returns whether a line after zeros is read as a row, valid or not, and not as a header.
pub(crate) fn is_row(line: &[u8]) -> bool {
    !line.is_empty() && line != ZEROS && !line.starts_with(b"address")
}

impl<L: FileLease, R: Read> Iterator for Reader<L, R> {
    type Item = Result<Parsed<L>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.next_row();
        self.failed = matches!(row, Err(ReadError::File(_)));
        row.transpose()
    }
}
