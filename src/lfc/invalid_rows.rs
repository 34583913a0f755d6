//! The file in which a cleanup keeps invalid rows.
//!
//! A row that is left out of the result would be deleted with the input, so it is first appended to
//! this file, which is synced. Each row has two lines: the first begins with `# ` and contains the
//! location and the error of the row, the second is the row, byte for byte.
//!
//! A cleanup after an interrupted one finds the same rows in the same lines, and does not append
//! rows that the file already contains.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::LfcError;
use super::source::{InvalidRow, InvalidRows, Source};
use crate::fs::{Attributes, FileSystem, ReadFile, WriteFile, create_in_place_of, directory_of, read_full};
use crate::lease_file::RowError;
use crate::lease_file::row::FileLease;

/// Length in bytes from which the file takes no more rows. The last rows may have made it longer.
pub(super) const LIMIT: u64 = 16 * 1024 * 1024;
/// Maximum length in bytes of a file that is read.
const MAX_READ: u64 = 4 * LIMIT;

/// The invalid rows of one file.
pub(super) struct LeftOut<'a> {
    pub(super) source: &'a Source,
    pub(super) rows: &'a [InvalidRow],
}

/// Appends rows to the file of this name, which is created with these attributes if it does not
/// exist, and makes them durable. Returns the number of rows.
///
/// # Errors
/// Returns an error if that failed, and [`LfcError::InvalidRowsFull`] if the file takes no more
/// rows. The file then has none of the new rows, unless truncating it failed too.
pub(super) fn keep<L: FileLease>(
    fs: &dyn FileSystem,
    path: &Path,
    attributes: Option<&Attributes>,
    left_out: &[LeftOut<'_>],
) -> Result<u64, LfcError> {
    let count = left_out.iter().map(|LeftOut { rows, .. }| rows.len() as u64).sum();
    if count == 0 {
        return Ok(0);
    }
    let failed = |action| LfcError::io(action, path);
    let text = match fs.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => Some(read(file.map_err(failed("open"))?.as_ref(), path)?),
    };
    let kept = KeptRows::of(text.as_deref().unwrap_or_default());
    let mut new = Vec::new();
    for LeftOut { source, rows } in left_out {
        let mut reader = InvalidRows::of(source);
        for row in *rows {
            if !kept.has::<L>(&mut reader, source, *row)? {
                new.push((*source, *row));
            }
        }
    }
    let len = text.as_ref().map_or(0, |text| text.len() as u64);
    if !new.is_empty() && len >= LIMIT {
        return Err(LfcError::InvalidRowsFull { path: path.to_owned(), len });
    }
    let file = match text {
        Some(_) => fs.open_append(path).map_err(failed("open"))?,
        None => create_in_place_of(fs, path, attributes).map_err(failed("create"))?,
    };
    append::<L>(file.as_ref(), path, kept.end, &new).inspect_err(|_| {
        let _ = file.set_len(len);
    })?;
    // Also if nothing was appended: an earlier cleanup may have appended the rows and not synced
    // them.
    file.sync().map_err(failed("sync"))?;
    fs.sync_directory(directory_of(path)).map_err(failed("sync the directory of"))?;
    Ok(count)
}

/// Reads the whole file.
fn read(file: &dyn ReadFile, path: &Path) -> Result<Vec<u8>, LfcError> {
    let len = file.len().map_err(LfcError::io("read", path))?;
    if len > MAX_READ {
        return Err(LfcError::InvalidRowsFull { path: path.to_owned(), len });
    }
    let mut text = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = read_full(file, &mut text, 0).map_err(LfcError::io("read", path))?;
    text.truncate(read);
    Ok(text)
}

/// Appends rows, each after a line with its location and error.
fn append<L: FileLease>(
    file: &dyn WriteFile,
    path: &Path,
    end: &[u8],
    rows: &[(&Source, InvalidRow)],
) -> Result<(), LfcError> {
    /// Minimum number of bytes that are written at once.
    const STEP: usize = 256 * 1024;
    let write = |text: &mut Vec<u8>| {
        file.append(text).map_err(LfcError::io("write", path))?;
        text.clear();
        Ok::<_, LfcError>(())
    };
    if rows.is_empty() {
        return Ok(());
    }
    let mut text = end.to_vec();
    for rows in rows.chunk_by(|(one, _), (next, _)| std::ptr::eq(*one, *next)) {
        let mut reader = InvalidRows::of(rows[0].0);
        for (source, row) in rows {
            text.extend_from_slice(comment(source, &reader.error_of::<L>(*row)?).as_bytes());
            text.push(b'\n');
            reader.each_part(*row, |part| {
                text.extend_from_slice(part);
                if text.len() >= STEP { write(&mut text) } else { Ok(()) }
            })?;
            text.push(b'\n');
        }
    }
    write(&mut text)
}

/// Returns the line before a row, without its newline.
fn comment(source: &Source, error: &RowError) -> String {
    one_line(&format!("# {}: {error}", source.path().display()))
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    line
}

/// The content of the file.
struct KeptRows<'a> {
    /// The rows, by the lines before them.
    rows: HashMap<&'a [u8], Vec<&'a [u8]>>,
    /// The text that must precede the next row, after an interrupted append.
    end: &'static [u8],
}

impl<'a> KeptRows<'a> {
    fn of(text: &'a [u8]) -> Self {
        let (mut rows, mut comment) = (HashMap::<_, Vec<_>>::new(), None);
        let whole = memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1);
        for line in text[..whole].split_inclusive(|&byte| byte == b'\n') {
            let line = &line[..line.len() - 1];
            match comment.take() {
                Some(comment) => rows.entry(comment).or_default().push(line),
                // Other lines were added by an operator.
                None => comment = line.starts_with(b"# ").then_some(line),
            }
        }
        let is_torn = whole < text.len();
        if let Some(comment) = comment.filter(|_| is_torn) {
            // Possibly only the newline is missing.
            rows.entry(comment).or_default().push(&text[whole..]);
        }
        let end: &[u8] = match (comment, is_torn) {
            // The row is torn or missing: it is completed with a newline.
            (Some(_), _) => b"\n",
            (None, true) if text[whole..].starts_with(b"#") => b"\n\n",
            (None, true) => b"\n",
            (None, false) => b"",
        };
        Self { rows, end }
    }

    /// Returns whether the file already contains a row.
    fn has<L: FileLease>(
        &self,
        reader: &mut InvalidRows<'_>,
        source: &Source,
        row: InvalidRow,
    ) -> Result<bool, LfcError> {
        if self.rows.is_empty() {
            return Ok(false);
        }
        let comment = comment(source, &reader.error_of::<L>(row)?);
        for text in self.rows.get(comment.as_bytes()).into_iter().flatten() {
            let mut rest = Some(*text);
            reader.each_part(row, |part| {
                rest = rest.and_then(|rest| rest.strip_prefix(part));
                Ok(())
            })?;
            if rest.is_some_and(<[u8]>::is_empty) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty("", &[], "")]
    #[case::whole("# a\nrow\n# b\n# row\n", &[("# a", "row"), ("# b", "# row")], "")]
    #[case::with_a_torn_row("# a\nrow\n# b\nro", &[("# a", "row"), ("# b", "ro")], "\n")]
    #[case::with_a_missing_row("# a\nrow\n# b\n", &[("# a", "row")], "\n")]
    #[case::with_a_torn_comment("# a\nrow\n# b", &[("# a", "row")], "\n\n")]
    #[case::with_the_start_of_a_comment("#", &[], "\n\n")]
    #[case::edited_by_an_operator("look at these:\n\n# a\nrow\nmine", &[("# a", "row")], "\n")]
    fn kept_rows_are_found_among_torn_and_edited_lines(
        #[case] text: &str,
        #[case] rows: &[(&str, &str)],
        #[case] end: &str,
    ) {
        let kept = KeptRows::of(text.as_bytes());
        let mut found: Vec<_> = kept.rows.iter().map(|(comment, rows)| (*comment, rows[0])).collect();
        found.sort_unstable();
        let expected: Vec<_> =
            rows.iter().map(|(comment, row)| (comment.as_bytes(), row.as_bytes())).collect();
        assert_eq!(found, expected);
        assert_eq!(kept.end, end.as_bytes());
        // The next row is found after that text.
        let next = format!("{text}{end}# next\nits row\n");
        assert_eq!(KeptRows::of(next.as_bytes()).rows[&b"# next"[..]], [b"its row"]);
    }

    #[test]
    fn a_comment_is_one_line() {
        let comment = one_line("# /a\nb/f.1: line 3: x is \"\u{7f}\r\"");
        assert_eq!(comment, "# /a\\nb/f.1: line 3: x is \"\\u{7f}\\r\"");
    }
}
