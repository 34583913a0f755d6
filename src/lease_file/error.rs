//! What is wrong with a lease file.

use std::io;
use std::path::PathBuf;

use crate::lease::{Family, LeaseError};
use crate::lease_mgr::LeaseMgrError;

/// Why a whole file cannot be read as a lease file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseFileError {
    /// The file cannot be opened, read or written.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "open", "read", "write", ...
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The first line names other columns than a lease file of the family has.
    #[error("{}: line {line}: no {family} lease file: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The line of the header, counted from 1.
        line: u64,
        /// The family that was expected.
        family: Family,
        /// What is wrong with the header.
        problem: HeaderProblem,
    },
    /// A file of another schema, which rows of the current one cannot be appended to.
    #[error("{}: of schema version {version}, a cleanup must convert it before rows are appended", path.display())]
    NeedsConversion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: &'static str,
    },
    /// More bad rows than the reader was told to bear.
    #[error("{}: more than {limit} bad rows, the last in {last}", path.display())]
    TooManyInvalidRows {
        /// The file.
        path: PathBuf,
        /// How many were allowed.
        limit: u64,
        /// The row that was one too many.
        last: RowError,
    },
    /// The files of a set went on changing places while they were opened.
    #[error("{}: the lease files are being renamed, and no two looks at them were the same", path.display())]
    Unsteady {
        /// The lease file that the set is named after.
        path: PathBuf,
    },
}

impl From<LeaseFileError> for LeaseMgrError {
    fn from(error: LeaseFileError) -> Self {
        Self::Backend(error.into())
    }
}

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// A column has another name than the one that belongs there.
    #[error("column {column} is \"{}\", expected \"{expected}\"", found.escape_ascii())]
    Column {
        /// The column, counted from 1.
        column: usize,
        /// Its name in the file, cut off behind 64 bytes.
        found: Vec<u8>,
        /// The name that belongs there.
        expected: &'static str,
    },
    /// Less columns than the oldest lease files had.
    #[error("{found} columns, expected at least {expected}")]
    TooFewColumns {
        /// How many there are.
        found: usize,
        /// How many the oldest schema has.
        expected: usize,
    },
}

/// Why a row was not read, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}{}", self.lease())]
pub struct RowError {
    /// The line, counted from 1 with the header.
    pub line: u64,
    /// What the row has in place of its address, cut off after [`RowError::MAX_ADDRESS`] bytes.
    pub address: Box<[u8]>,
    /// What is wrong with it.
    pub problem: RowProblem,
}

impl RowError {
    /// Maximum length of an address in an error, in bytes. One that is as long may have been longer in the row.
    pub const MAX_ADDRESS: usize = 64;

    /// Returns the error of a row, of which the beginning may be enough.
    pub(crate) fn new(line: u64, row: &[u8], problem: RowProblem) -> Self {
        let head = &row[..row.len().min(Self::MAX_ADDRESS)];
        let address = head.split(|&byte| byte == b',').next().unwrap_or_default().into();
        Self { line, address, problem }
    }

    /// Returns what tells which lease the row was to be of, unless the problem says so already.
    fn lease(&self) -> String {
        match &self.problem {
            RowProblem::Value { column: "address", .. } => String::new(),
            _ if self.address.is_empty() => String::new(),
            _ => {
                let more = if self.address.len() < Self::MAX_ADDRESS { "" } else { "..." };
                format!(" (address {}{more})", self.address.escape_ascii())
            }
        }
    }
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// Fewer values than the header has columns.
    #[error("{found} values, expected {}", range(*least, *most))]
    TooFewValues {
        /// Number of values in the row.
        found: usize,
        /// Number of columns in the header.
        least: usize,
        /// Number of columns in the newest schema, which rows of an older file may have.
        most: usize,
    },
    /// More values than there are columns, and those at the place of the columns are no lease.
    #[error("{found} values, expected {}", range(*least, *most))]
    TooManyValues {
        /// Number of values in the row.
        found: usize,
        /// Number of columns in the header.
        least: usize,
        /// Number of columns in the newest schema, which rows of an older file may have.
        most: usize,
    },
    /// A line longer than any row is.
    #[error("more than {limit} bytes in one line")]
    TooLong {
        /// The longest line that is read as a row, in bytes.
        limit: usize,
    },
    /// A value is not of its column's form.
    #[error("{column} is \"{}\", expected {expected}", value.escape_ascii())]
    Value {
        /// The column.
        column: &'static str,
        /// The value, cut off behind 64 bytes.
        value: Vec<u8>,
        /// What belongs there.
        expected: &'static str,
    },
    /// The values are of their form, but no lease has them.
    #[error("{column}: {problem}")]
    Lease {
        /// The column.
        column: &'static str,
        /// What is wrong with the lease.
        problem: LeaseError,
    },
}

/// Returns the text of a range of numbers.
fn range(least: usize, most: usize) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

/// The beginning of a value, for an error.
pub(super) fn excerpt(value: &[u8]) -> Vec<u8> {
    value[..value.len().min(64)].to_vec()
}
