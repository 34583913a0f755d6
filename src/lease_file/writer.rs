//! Writing lease files.

use std::io::{self, Write};
use std::marker::PhantomData;

use super::row::FileLease;

/// Writes a lease file, with the header and a row for each lease that is appended.
///
/// Each row goes to the output in one write, so that an interrupted writer leaves one torn row at
/// most. Give it a [`std::io::BufWriter`] where that is not wanted.
///
/// ```
/// use leasemgr::lease::{Duid, Iaid, Lease6, LeaseState, LeaseType};
/// use leasemgr::lease_file::{Reader, Writer};
///
/// let duid = Duid::new(&[0, 1, 2, 3])?;
/// let address = "2001:db8::1".parse()?;
/// let lease = Lease6::new(LeaseType::NA, address, duid, Iaid(7), LeaseState::DEFAULT)?;
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

impl<L: FileLease, W: Write> Writer<L, W> {
    /// Starts a file: writes the header.
    ///
    /// # Errors
    /// As writing to `output`.
    pub fn new(mut output: W) -> io::Result<Self> {
        let mut row = L::SCHEMA.header.as_bytes().to_vec();
        row.push(b'\n');
        output.write_all(&row)?;
        Ok(Self::resume(output))
    }

    /// Goes on with a file that has its header already.
    pub fn resume(output: W) -> Self {
        Self { output, row: Vec::new(), rows: 0, leases: PhantomData }
    }

    /// Appends the row of a lease.
    ///
    /// # Errors
    /// As writing to the output; a part of the row may then be there.
    pub fn append(&mut self, lease: &L) -> io::Result<()> {
        self.row.clear();
        lease.write_row(&mut self.row);
        self.output.write_all(&self.row)?;
        self.rows += 1;
        Ok(())
    }

    /// How many rows were appended.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What is written to.
    pub fn into_inner(self) -> W {
        self.output
    }
}
