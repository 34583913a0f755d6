//! Reading and writing all bytes, also if one system call does only a part.

use std::io;

use super::{ReadFile, WriteFile};

/// Repeats an operation while a signal interrupts it.
pub(crate) fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes.
///
/// # Errors
/// Returns the errors of [`ReadFile::read_at`].
pub(crate) fn read_full(file: &dyn ReadFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match retry(|| file.read_at(&mut buffer[done..], at + done as u64))? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Writes all bytes from byte `at` on.
///
/// # Errors
/// Returns the errors of [`WriteFile::write_at`]; some of the bytes may have been written.
pub(crate) fn write_full(file: &dyn WriteFile, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry(|| file.write_at(bytes, at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = &bytes[count..];
                at += count as u64;
            }
        }
    }
    Ok(())
}

/// Appends the bytes of one file from `start` to `end`, or to its end, to another file. Returns
/// their number.
pub(crate) fn copy_range(from: &dyn ReadFile, to: &dyn WriteFile, start: u64, end: u64) -> io::Result<u64> {
    const STEP: u64 = 256 * 1024;
    let mut buffer = Vec::new();
    let mut at = start;
    while at < end {
        buffer.resize(usize::try_from(STEP.min(end - at)).unwrap_or_default(), 0);
        let count = read_full(from, &mut buffer, at)?;
        if count == 0 {
            break;
        }
        to.append(&buffer[..count])?;
        at += count as u64;
    }
    Ok(at.saturating_sub(start))
}
