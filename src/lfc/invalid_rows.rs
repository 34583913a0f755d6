//! The file in which rows are kept that no cleanup could read.
//!
//! A row that is left out of the result would be deleted with the input. So it is appended to this file before, and
//! that is synced. Each row has two lines, the first of which begins with `# ` and says where the row stood and what is
//! wrong with it; the second is the row as it was, byte for byte, whatever it is.
//!
//! A cleanup that is done again, after one that was interrupted, finds the same rows in the same lines, and appends none
//! that is there.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::LfcError;
use super::source::{InvalidRow, InvalidRows, Source};
use crate::fs::{Attributes, FileSystem, ReadFile, WriteFile, create_in_place_of, directory_of, read_full};
use crate::lease_file::RowError;
use crate::lease_file::row::FileLease;

/// A file of that many bytes takes no more rows. The last ones that it took may have made it longer.
pub(super) const LIMIT: u64 = 16 * 1024 * 1024;
/// A longer file is not read.
const MAX_READ: u64 = 4 * LIMIT;

/// The invalid rows of one file.
pub(super) struct LeftOut<'a> {
    pub(super) source: &'a Source,
    pub(super) rows: &'a [InvalidRow],
}

/// Appends rows to the file of this name, which is created with these attributes if there is none, and returns how
/// many there are. When it returns, they are durable.
///
/// # Errors
/// Returns an error if that failed; then the file has none of the rows, as far as they could be cut off, and
/// [`LfcError::InvalidRowsFull`] if it takes no more rows.
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
    let kept = Kept::of(text.as_deref().unwrap_or_default());
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
    // Also if nothing was appended: the cleanup that did may not have come to this.
    file.sync().map_err(failed("sync"))?;
    fs.sync_directory(directory_of(path)).map_err(failed("sync the directory of"))?;
    Ok(count)
}

/// Reads all that is in the file.
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

/// Appends rows, each after the line that says where it stood.
fn append<L: FileLease>(
    file: &dyn WriteFile,
    path: &Path,
    end: &[u8],
    rows: &[(&Source, InvalidRow)],
) -> Result<(), LfcError> {
    /// What is written at once, at least.
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

/// The line before a row, without its newline.
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

/// What is in the file.
struct Kept<'a> {
    /// The rows, by the lines before them.
    rows: HashMap<&'a [u8], Vec<&'a [u8]>>,
    /// What must come before the next row, after an append that was interrupted.
    end: &'static [u8],
}

impl<'a> Kept<'a> {
    fn of(text: &'a [u8]) -> Self {
        let (mut rows, mut comment) = (HashMap::<_, Vec<_>>::new(), None);
        let whole = memchr::memrchr(b'\n', text).map_or(0, |newline| newline + 1);
        for line in text[..whole].split_inclusive(|&byte| byte == b'\n') {
            let line = &line[..line.len() - 1];
            match comment.take() {
                Some(comment) => rows.entry(comment).or_default().push(line),
                // What else stands there was put there by a person.
                None => comment = line.starts_with(b"# ").then_some(line),
            }
        }
        let is_torn = whole < text.len();
        if let Some(comment) = comment.filter(|_| is_torn) {
            // It may lack its newline alone.
            rows.entry(comment).or_default().push(&text[whole..]);
        }
        let end: &[u8] = match (comment, is_torn) {
            // The row was torn, or there is none yet: it becomes an empty one.
            (Some(_), _) => b"\n",
            (None, true) if text[whole..].starts_with(b"#") => b"\n\n",
            (None, true) => b"\n",
            (None, false) => b"",
        };
        Self { rows, end }
    }

    /// Whether a row is there already.
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
    #[case::nothing("", &[], "")]
    #[case::whole("# a\nrow\n# b\n# row\n", &[("# a", "row"), ("# b", "# row")], "")]
    #[case::a_row_is_torn("# a\nrow\n# b\nro", &[("# a", "row"), ("# b", "ro")], "\n")]
    #[case::a_row_is_missing("# a\nrow\n# b\n", &[("# a", "row")], "\n")]
    #[case::a_comment_is_torn("# a\nrow\n# b", &[("# a", "row")], "\n\n")]
    #[case::a_comment_has_only_begun("#", &[], "\n\n")]
    #[case::a_person_has_edited_it("look at these:\n\n# a\nrow\nmine", &[("# a", "row")], "\n")]
    fn what_is_kept_is_found_whatever_stands_beside_it(
        #[case] text: &str,
        #[case] rows: &[(&str, &str)],
        #[case] end: &str,
    ) {
        let kept = Kept::of(text.as_bytes());
        let mut found: Vec<_> = kept.rows.iter().map(|(comment, rows)| (*comment, rows[0])).collect();
        found.sort_unstable();
        let expected: Vec<_> =
            rows.iter().map(|(comment, row)| (comment.as_bytes(), row.as_bytes())).collect();
        assert_eq!(found, expected);
        assert_eq!(kept.end, end.as_bytes());
        // What comes next is found after that.
        let next = format!("{text}{end}# next\nits row\n");
        assert_eq!(Kept::of(next.as_bytes()).rows[&b"# next"[..]], [b"its row"]);
    }

    #[test]
    fn a_comment_is_one_line() {
        let comment = one_line("# /a\nb/f.1: line 3: x is \"\u{7f}\r\"");
        assert_eq!(comment, "# /a\\nb/f.1: line 3: x is \"\\u{7f}\\r\"");
    }
}
