//! Lease files in Kea's CSV format, for both families and in every schema version.
//!
//! A lease file is a journal: rows are appended, the last row of an address is valid, and a row
//! with a valid lifetime of 0 deletes the lease. [`Reader`] reads the rows of one file, [`Writer`]
//! writes them, and [`LeaseFileSet`] knows which files together hold a server's leases.

pub(crate) mod canonical;
mod error;
mod file_set;
mod reader;
pub(crate) mod row;
pub(crate) mod scan;
mod schema;
mod text;
mod writer;

pub use error::{HeaderProblem, LeaseFileError, RowError, RowProblem};
pub(crate) use file_set::{FileReader, is_begun, read_file};
pub use file_set::{FileRow, LeaseFileSet, LeaseSet};
pub use reader::{ReadError, ReadStats, Reader};
pub(crate) use reader::{ZEROS, is_row};
pub use row::{FileLease, Parsed};
pub use schema::{Conversion, Header, Schema};
pub use text::{escape, unescape};
pub use writer::Writer;

/// Maximum length of a line that is read as a row, in bytes. Servers write far shorter ones.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// Maximum number of invalid rows that a [`LeaseSet`] lists, so that a file of invalid rows does
/// not take a multiple of its size in memory.
pub const MAX_INVALID_ROWS: usize = 1000;
