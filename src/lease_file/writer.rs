//! Writing lease files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::LeaseFileError;
use super::reader::Reader;
use super::row::FileLease;
use super::schema::Conversion;
use crate::fs::{create_file, open_file};

/// Writes a lease file, with the header and a row for each lease that is appended.
///
/// Each row is passed to the output in one write, so that an interrupted writer leaves at most one
/// torn row. A [`std::io::BufWriter`] as output is faster without this guarantee.
///
/// ```
/// use leasemgr::lease::{Duid, Lease6};
/// use leasemgr::lease_file::{Reader, Writer};
///
/// let duid = Duid::new(&[0, 1, 2, 3])?;
/// let address = "2001:db8::1".parse()?;
/// let lease = Lease6::builder(address).client(duid, 7).build()?;
/// let mut writer = Writer::new(Vec::new())?;
/// writer.append(&lease)?;
/// let text = writer.into_inner();
/// assert_eq!(Reader::<Lease6, _>::new(&text[..])?.next().unwrap()?.lease, lease);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer<L, W> {
    output: W,
    row: Vec<u8>,
    rows: u64,
    leases: PhantomData<L>,
}

impl<L: FileLease> Writer<L, File> {
    /// Opens a lease file to append to. A file that is absent or empty gets its header. A last row
    /// that an interrupted writer left without a newline gets one, so that the next row does not
    /// become part of it. Symbolic links are followed as by
    /// [`OsFileSystem`](crate::fs::OsFileSystem).
    ///
    /// # Errors
    /// Returns [`LeaseFileError`] if the file cannot be opened, is not a lease file of the family,
    /// or has another schema.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LeaseFileError> {
        let path = path.as_ref();
        let error = |action| move |source| LeaseFileError::Io { path: path.to_owned(), action, source };
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        let file = match open_file(path, &options) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_file(path, &mut options),
            file => file,
        };
        let file = file.map_err(error("open"))?;
        let len = file.metadata().map_err(error("read"))?.len();
        if len == 0 {
            return Self::new(file).map_err(error("write"));
        }
        let header = *Reader::<L, _>::with_path(&file, path)?.header();
        if header.conversion != Conversion::None {
            return Err(LeaseFileError::NeedsConversion { path: path.to_owned(), version: header.version });
        }
        let mut last = [0];
        file.read_exact_at(&mut last, len - 1).map_err(error("read"))?;
        if last != *b"\n" {
            (&file).write_all(b"\n").map_err(error("write"))?;
        }
        Ok(Self::resume(file))
    }
}

impl<L: FileLease, W: Write> Writer<L, W> {
    /// Starts a file by writing the header.
    ///
    /// # Errors
    /// Returns the error of writing to `output`.
    pub fn new(mut output: W) -> io::Result<Self> {
        let mut row = L::SCHEMA.header.as_bytes().to_vec();
        row.push(b'\n');
        output.write_all(&row)?;
        Ok(Self::resume(output))
    }

    /// Continues a file that already has its header.
    pub fn resume(output: W) -> Self {
        Self { output, row: Vec::new(), rows: 0, leases: PhantomData }
    }

    /// Appends the row of a lease.
    ///
    /// # Errors
    /// Returns the error of writing to the output; a part of the row may have been written.
    pub fn append(&mut self, lease: &L) -> io::Result<()> {
        self.row.clear();
        lease.write_row(&mut self.row);
        self.output.write_all(&self.row)?;
        self.rows += 1;
        Ok(())
    }

    /// Returns the number of rows that were appended.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.output
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{HwAddr, Lease4, LeaseState};
    use crate::lease_file::row::private::RowFormat;

    const ROW: &str = "192.0.2.1,02:00:00:00:00:01,,0,0,0,0,0,,0,,0\n";

    fn append(path: &Path) -> Result<(), LeaseFileError> {
        let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap();
        let lease = Lease4::new([192, 0, 2, 1].into(), Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
        Writer::open(path)?.append(&lease).unwrap();
        Ok(())
    }

    #[rstest]
    #[case::absent(None, "")]
    #[case::empty(Some(""), "")]
    #[case::with_a_row(Some(ROW), ROW)]
    #[case::torn(Some("192.0.2.9,02:00"), "192.0.2.9,02:00\n")]
    fn a_row_is_appended_after_a_newline(#[case] rows: Option<&str>, #[case] before: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.csv");
        let header = format!("{}\n", Lease4::SCHEMA.header);
        if let Some(rows) = rows {
            std::fs::write(&path, if rows.is_empty() { String::new() } else { header.clone() + rows })
                .unwrap();
        }
        append(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{header}{before}{ROW}"));
    }

    #[test]
    fn a_header_without_its_newline_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.csv");
        std::fs::write(&path, Lease4::SCHEMA.header).unwrap();
        append(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n{ROW}", Lease4::SCHEMA.header));
    }

    #[rstest]
    #[case::older(&Lease4::SCHEMA.columns[..10].join(","), "2.0")]
    #[case::newer(&format!("{},future", Lease4::SCHEMA.header), "3.0")]
    fn a_file_of_another_schema_is_not_appended_to(#[case] header: &str, #[case] found: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.csv");
        std::fs::write(&path, format!("{header}\n")).unwrap();
        let result = append(&path);
        assert!(matches!(result, Err(LeaseFileError::NeedsConversion { version, .. }) if version == found));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{header}\n"));
    }
}
