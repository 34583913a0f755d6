//! Errors of lease files.

use std::io;
use std::path::PathBuf;

use crate::lease::{Family, LeaseError};
use crate::lease_mgr::LeaseMgrError;

/// The reason why a whole file cannot be read as a lease file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseFileError {
    /// The file cannot be opened, read or written.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation that failed: "open", "read", "write", ...
        action: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The first line is not the header of a lease file of the family.
    #[error("{}: line {line}: no {family} lease file: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The line of the header, counted from 1.
        line: u64,
        /// The family that was expected.
        family: Family,
        /// The problem of the header.
        problem: HeaderProblem,
    },
    /// A file of another schema, to which rows of the current one cannot be appended.
    #[error("{}: cannot append to schema version {version}; run a cleanup to convert the file", path.display())]
    NeedsConversion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: &'static str,
    },
    /// More invalid rows than the reader tolerates.
    #[error("{}: more than {limit} invalid rows, the last in {last}", path.display())]
    TooManyInvalidRows {
        /// The file.
        path: PathBuf,
        /// Maximum number of invalid rows.
        limit: u64,
        /// The first row beyond the maximum.
        last: RowError,
    },
    /// The files of a set were modified concurrently at each attempt to open them.
    #[error("{}: the lease files were renamed at each attempt to open them; retry", path.display())]
    ModifiedConcurrently {
        /// The lease file after which the set is named.
        path: PathBuf,
    },
}

impl From<LeaseFileError> for LeaseMgrError {
    fn from(error: LeaseFileError) -> Self {
        Self::Backend(error.into())
    }
}

/// The problem of a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// A column has another name than the expected one.
    #[error("column {column} is \"{}\", expected \"{expected}\"", found.escape_ascii())]
    Column {
        /// The column, counted from 1.
        column: usize,
        /// Its name in the file, truncated to 64 bytes.
        found: Vec<u8>,
        /// The expected name.
        expected: &'static str,
    },
    /// Fewer columns than the oldest schema has.
    #[error("{found} columns, expected at least {expected}")]
    TooFewColumns {
        /// Number of columns in the file.
        found: usize,
        /// Number of columns in the oldest schema.
        expected: usize,
    },
}

/// The reason why a row was not read, and its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}{}", self.lease())]
pub struct RowError {
    /// The line, counted from 1 with the header.
    pub line: u64,
    /// The row's text in place of its address, truncated to [`RowError::MAX_ADDRESS`] bytes.
    pub address: Box<[u8]>,
    /// The problem of the row.
    pub problem: RowProblem,
}

impl RowError {
    /// Maximum length of an address in an error, in bytes. An address of this length may be
    /// truncated.
    pub const MAX_ADDRESS: usize = 64;

    /// Returns the error of a row, which may be truncated.
    pub(crate) fn new(line: u64, row: &[u8], problem: RowProblem) -> Self {
        let head = &row[..row.len().min(Self::MAX_ADDRESS)];
        let address = head.split(|&byte| byte == b',').next().unwrap_or_default().into();
        Self { line, address, problem }
    }

    /// Returns which lease the row is about, unless the problem contains the address.
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

/// The problem of a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// Fewer values than columns in the header.
    #[error("{found} values, expected {}", range(*least, *most))]
    TooFewValues {
        /// Number of values in the row.
        found: usize,
        /// Number of columns in the header.
        least: usize,
        /// Number of columns in the newest schema, which rows of an older file may have.
        most: usize,
    },
    /// More values than columns, and the values at the places of the columns are not a lease.
    #[error("{found} values, expected {}", range(*least, *most))]
    TooManyValues {
        /// Number of values in the row.
        found: usize,
        /// Number of columns in the header.
        least: usize,
        /// Number of columns in the newest schema, which rows of an older file may have.
        most: usize,
    },
    /// A line longer than the maximum of a row.
    #[error("more than {limit} bytes in one line")]
    TooLong {
        /// Maximum length of a line, in bytes.
        limit: usize,
    },
    /// A value is not in the form of its column.
    #[error("{column} is \"{}\", expected {expected}", value.escape_ascii())]
    Value {
        /// The column.
        column: &'static str,
        /// The value, truncated to 64 bytes.
        value: Vec<u8>,
        /// The expected form.
        expected: &'static str,
    },
    /// The values are in the right form, but no lease has them.
    #[error("{column}: {problem}")]
    Lease {
        /// The column.
        column: &'static str,
        /// The problem of the lease.
        problem: LeaseError,
    },
}

/// Returns the text of a range of numbers.
fn range(least: usize, most: usize) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

/// Returns the beginning of a value, for an error.
pub(super) fn excerpt(value: &[u8]) -> Vec<u8> {
    value[..value.len().min(64)].to_vec()
}
