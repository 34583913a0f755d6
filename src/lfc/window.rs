//! Windows of complete lines of a part of a file.

use std::io;

use crate::fs::{ReadFile, read_full};
use crate::lease_file::MAX_LINE;
use crate::lease_file::scan::WINDOW_PADDING;

/// Number of bytes of a file that are processed at once: they fit into the second-level cache of
/// the processor. Tests have smaller windows, so that small files have many.
pub(super) const WINDOW: usize = if cfg!(test) { 512 } else { 256 * 1024 };

/// Iterates over windows of the lines that start in a part of a file.
pub(super) struct Windows<'a> {
    file: &'a dyn ReadFile,
    /// Number of bytes that are read at once.
    window: usize,
    /// The offset of the next read.
    at: u64,
    /// The end of the part: the last line starts before it.
    to: u64,
    buffer: Vec<u8>,
    /// Number of bytes in the buffer.
    filled: usize,
    /// Number of these bytes that were returned, and are no longer needed.
    taken: usize,
    /// Whether the end of a line that started before the part must be skipped first.
    skip: bool,
}

/// A window: complete lines, each with its newline.
pub(super) struct Window<'b> {
    /// The lines, followed by [`WINDOW_PADDING`] arbitrary bytes.
    pub(super) text: &'b [u8],
    /// The length of the lines.
    pub(super) len: usize,
    /// The offset of the lines in the file.
    pub(super) position: u64,
    /// Whether a line of more than [`MAX_LINE`] bytes was skipped instead.
    pub(super) overlong: bool,
}

impl<'a> Windows<'a> {
    /// Makes windows of the lines that start in `from..to`, where `first` is the start of the
    /// file's first row.
    pub(super) fn new(file: &'a dyn ReadFile, first: u64, from: u64, to: u64, buffer: Vec<u8>) -> Self {
        // The previous byte shows whether a line starts at `from`.
        let skip = from > first;
        let at = if skip { from - 1 } else { from };
        Self { file, window: WINDOW, at, to, buffer, filled: 0, taken: 0, skip }
    }

    /// Sets the number of bytes that are read at once.
    pub(super) fn with_window(self, window: usize) -> Self {
        Self { window, ..self }
    }

    /// Returns the buffer, for reuse.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Returns the next window, `None` after the last line.
    pub(super) fn next(&mut self) -> io::Result<Option<Window<'_>>> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        let mut searched = 0;
        loop {
            // Also while the end of a line is skipped: then no other line starts in the part.
            if self.at - self.filled as u64 >= self.to {
                return Ok(None);
            }
            let ended = self.fill()?;
            if self.skip {
                match memchr::memchr(b'\n', &self.buffer[..self.filled]) {
                    Some(newline) => {
                        self.skip = false;
                        self.buffer.copy_within(newline + 1..self.filled, 0);
                        self.filled -= newline + 1;
                    }
                    None if ended => return Ok(None),
                    None => self.filled = 0,
                }
                continue;
            }
            let start = self.at - self.filled as u64;
            // The line that crosses the end of the part is included completely, but no later line.
            let last = usize::try_from(self.to - start).unwrap_or(usize::MAX) - 1;
            let lines_end = if self.filled > last {
                memchr::memchr(b'\n', &self.buffer[last.max(searched)..self.filled])
                    .map(|newline| last.max(searched) + newline + 1)
            } else {
                None
            };
            let lines_end = lines_end.or_else(|| {
                let upto = self.filled.min(last);
                memchr::memrchr(b'\n', &self.buffer[..upto]).map(|newline| newline + 1)
            });
            if let Some(len) = lines_end {
                self.taken = len;
                return Ok(Some(Window { text: &self.buffer, len, position: start, overlong: false }));
            }
            if ended {
                if self.filled == 0 {
                    return Ok(None);
                }
                // The last line has no newline.
                self.buffer[self.filled] = b'\n';
                self.taken = self.filled;
                let len = self.filled + 1;
                return Ok(Some(Window { text: &self.buffer, len, position: start, overlong: false }));
            }
            if self.filled > MAX_LINE {
                self.skip_line()?;
                return Ok(Some(Window { text: &self.buffer, len: 0, position: start, overlong: true }));
            }
            // The line is longer than the window.
            searched = self.filled;
            self.buffer.resize(self.buffer.len() + self.filled, 0);
        }
    }

    /// Skips the rest of the line that fills the buffer.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            self.filled = 0;
            let ended = self.fill()?;
            if let Some(newline) = memchr::memchr(b'\n', &self.buffer[..self.filled]) {
                self.taken = newline + 1;
                return Ok(());
            }
            if ended {
                self.taken = self.filled;
                return Ok(());
            }
        }
    }

    /// Fills the buffer. Returns whether the file has ended.
    fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.len() < self.window + WINDOW_PADDING {
            // At first, so nothing is kept. Zeroed pages of the system cost nothing until they are used.
            self.buffer = vec![0; self.window + WINDOW_PADDING];
        }
        let mut room = self.buffer.len() - WINDOW_PADDING - self.filled;
        let left = self.to.saturating_sub(self.at);
        if left > 0 {
            // At most the part, and probably the rest of its last line.
            room = room.min(usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1024));
        }
        let count = read_full(self.file, &mut self.buffer[self.filled..self.filled + room], self.at)?;
        self.filled += count;
        self.at += count as u64;
        Ok(count < room)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::{FileSystem, Memory};

    /// Makes a file of these bytes.
    fn file(bytes: &[u8]) -> Box<dyn ReadFile> {
        let files = Memory::default();
        files.put("f", bytes);
        files.open(Path::new("f")).unwrap()
    }

    fn lines_of(text: &dyn ReadFile, from: u64, to: u64) -> Vec<(u64, Vec<u8>)> {
        let mut windows = Windows::new(text, 3, from, to, Vec::new());
        let mut lines = Vec::new();
        while let Some(window) = windows.next().unwrap() {
            if window.overlong {
                lines.push((window.position, b"overlong".to_vec()));
            }
            let mut at = window.position;
            for line in window.text[..window.len].split_inclusive(|&b| b == b'\n') {
                lines.push((at, line.to_vec()));
                at += line.len() as u64;
            }
        }
        lines
    }

    #[test]
    fn each_line_is_only_in_the_part_in_which_it_starts() {
        let text = file(b"hd\na\n\nbcd\ne\n\n\nfgh\nrest");
        let len = text.len().unwrap();
        let all = lines_of(&*text, 3, len);
        assert_eq!(all.last().unwrap(), &(18, b"rest\n".to_vec()));
        for cut in 3..=len {
            for other in cut..=len {
                let mut parts = lines_of(&*text, 3, cut);
                parts.extend(lines_of(&*text, cut, other));
                parts.extend(lines_of(&*text, other, len));
                assert_eq!(parts, all, "cut at {cut} and {other}");
            }
        }
    }

    #[test]
    fn a_line_longer_than_the_maximum_is_skipped() {
        let mut bytes = b"hd\na\n".to_vec();
        bytes.extend(std::iter::repeat_n(b'x', MAX_LINE * 2));
        bytes.extend(b"\nb\nc");
        let text = file(&bytes);
        let len = text.len().unwrap();
        let all = lines_of(&*text, 3, len);
        let lines: Vec<_> = all.iter().map(|(_, line)| line.as_slice()).collect();
        assert_eq!(lines, [&b"a\n"[..], b"overlong", b"b\n", b"c\n"]);
        for cut in [4, 5, 6, 1_000_000, len - 4, len - 3, len - 2, len - 1] {
            let mut parts = lines_of(&*text, 3, cut);
            parts.extend(lines_of(&*text, cut, len));
            assert_eq!(parts, all, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_longer_than_a_window_is_complete() {
        let mut bytes = b"hd\n".to_vec();
        for (len, fill) in [(10, b'a'), (3 * WINDOW, b'b'), (10, b'c'), (WINDOW, b'd'), (5 * WINDOW, b'e')] {
            bytes.extend(std::iter::repeat_n(fill, len));
            bytes.push(b'\n');
        }
        let text = file(&bytes);
        let len = text.len().unwrap();
        let all = lines_of(&*text, 3, len);
        assert_eq!(
            all.iter().map(|(_, line)| line.len()).collect::<Vec<_>>(),
            [11, 3 * WINDOW + 1, 11, WINDOW + 1, 5 * WINDOW + 1]
        );
        for cut in (3..len).step_by(WINDOW / 3) {
            let mut parts = lines_of(&*text, 3, cut);
            parts.extend(lines_of(&*text, cut, len));
            assert_eq!(parts, all, "cut at {cut}");
        }
    }
}
