//! Scanning the rows of a window of text, each by the fastest method that is correct.

use std::ops::Range;

use super::MAX_LINE;
use super::canonical::{Canonical, PADDING, separator_mask};
use super::error::{RowError, RowProblem};
use super::row::{FileLease, Parsed};
use super::schema::Header;

/// Number of bytes after the text of a window, so that whole blocks can be loaded.
pub(crate) const WINDOW_PADDING: usize = 64;
const _: () = assert!(WINDOW_PADDING >= PADDING);

/// Number of bytes of a window that are scanned at once. A window is usually smaller; one with a
/// line of many megabytes is larger, and the offsets of its commas would take four times as much
/// memory as the line. Tests have a smaller value, so that lines exceed it.
const CHUNK: usize = if cfg!(test) { 256 } else { 512 * 1024 };

/// A row of a window.
pub(crate) enum Row<'a, K> {
    /// A row that the writer would write identically, apart from its tail.
    Canonical {
        /// Its content.
        row: Canonical<K>,
        /// The offset of its text in the window.
        start: usize,
    },
    /// A valid row that the writer would write differently.
    Converted {
        /// Its address.
        key: K,
        /// Whether it deletes the lease.
        deletes: bool,
        /// The offset of its text in the window.
        start: usize,
        /// The row as the writer writes it, with its newline.
        row: &'a [u8],
        /// The error of a hardware address that was left out.
        dropped: Option<RowError>,
    },
    /// An invalid row: [`problem_of`] returns the reason.
    Invalid {
        /// The offset of its text in the window.
        start: usize,
        /// Its line.
        line: u64,
    },
}

/// Finds and checks the rows of windows. Reuses its memory for all windows.
#[derive(Default)]
pub(crate) struct Scanner {
    separators: Vec<u32>,
    row: Vec<u8>,
}

impl Scanner {
    /// Passes every row of `window[..len]` to `each`, in order, until it returns `false`.
    ///
    /// The text ends with a newline; [`WINDOW_PADDING`] bytes follow it. `lines` is the number of
    /// lines before it, and is updated.
    pub(crate) fn scan<L: FileLease>(
        &mut self,
        window: &[u8],
        len: usize,
        header: &Header,
        lines: &mut u64,
        mut each: impl FnMut(Row<'_, L::AddressKey>) -> bool,
    ) {
        let mut from = 0;
        while from < len {
            let end = len.min(from + CHUNK);
            let continues = match memchr::memrchr(b'\n', &window[from..end]) {
                Some(newline) => {
                    let lines_of_chunk = from..from + newline + 1;
                    from = lines_of_chunk.end;
                    self.scan_lines::<L>(window, lines_of_chunk, header, lines, &mut each)
                }
                None => {
                    let Some(newline) = memchr::memchr(b'\n', &window[end..len]) else {
                        return;
                    };
                    let line = from..end + newline;
                    from = line.end + 1;
                    *lines += 1;
                    self.long_row::<L>(window, line, header, *lines, &mut each)
                }
            };
            if !continues {
                return;
            }
        }
    }

    /// Passes every row of some lines to `each`. Returns `false` if `each` did.
    fn scan_lines<L: FileLease>(
        &mut self,
        window: &[u8],
        Range { mut start, end: len }: Range<usize>,
        header: &Header,
        lines: &mut u64,
        each: &mut impl FnMut(Row<'_, L::AddressKey>) -> bool,
    ) -> bool {
        let count = find_separators(window, start..len, &mut self.separators);
        // Number of values of the previous rows, which is most likely that of the next row too.
        let mut usual = header.columns;
        let mut at = 0;
        while start < len {
            *lines += 1;
            if let Some(ends) = self.separators[..count].get(at..at + usual)
                && let Some(row) = L::canonical(window, start, ends, usual)
            {
                let end = ends[usual - 1] as usize;
                at += usual;
                if !each(Row::Canonical { row, start }) {
                    return false;
                }
                start = end + 1;
                continue;
            }
            let rest = &self.separators[at.min(count)..count];
            let Some(newline) = rest.iter().position(|&i| window[i as usize] == b'\n') else {
                return true;
            };
            let end = rest[newline] as usize;
            let values = newline + 1;
            at += values;
            // An older file may have rows of newer schemas.
            let is_of_another_schema =
                values != usual && (header.columns..=L::SCHEMA.columns.len()).contains(&values);
            let row = if is_of_another_schema { L::canonical(window, start, rest, values) } else { None };
            let continues = match row {
                Some(row) => {
                    usual = values;
                    each(Row::Canonical { row, start })
                }
                None if end > start => self.slow_row::<L>(&window[start..end], start, header, *lines, each),
                None => true,
            };
            if !continues {
                return false;
            }
            start = end + 1;
        }
        true
    }

    /// Passes a row that is longer than [`CHUNK`] to `each`. Returns `false` if `each` did.
    #[cold]
    #[inline(never)]
    fn long_row<L: FileLease>(
        &mut self,
        window: &[u8],
        Range { start, end }: Range<usize>,
        header: &Header,
        line: u64,
        each: &mut impl FnMut(Row<'_, L::AddressKey>) -> bool,
    ) -> bool {
        // There may be millions of separators, of which only these are needed.
        let ends: Vec<u32> = memchr::memchr2_iter(b',', b'\n', &window[start..=end])
            .map_while(|at| u32::try_from(start + at).ok())
            .take(L::SCHEMA.columns.len())
            .collect();
        let values = ends.iter().position(|&at| at as usize == end).map_or(0, |newline| newline + 1);
        let row = if values < header.columns { None } else { L::canonical(window, start, &ends, values) };
        match row {
            Some(row) if end - start <= MAX_LINE => each(Row::Canonical { row, start }),
            _ => self.slow_row::<L>(&window[start..end], start, header, line, each),
        }
    }

    #[cold]
    #[inline(never)]
    fn slow_row<L: FileLease>(
        &mut self,
        text: &[u8],
        start: usize,
        header: &Header,
        line: u64,
        each: &mut impl FnMut(Row<'_, L::AddressKey>) -> bool,
    ) -> bool {
        match parse::<L>(text, header) {
            Ok(parsed) => {
                self.row.clear();
                parsed.lease.write_row(&mut self.row);
                let key = parsed.lease.key();
                let deletes = parsed.deletes();
                let dropped = parsed.dropped.map(|problem| RowError::new(line, text, problem));
                each(Row::Converted { key, deletes, start, row: &self.row, dropped })
            }
            Err(_) => each(Row::Invalid { start, line }),
        }
    }
}

fn parse<L: FileLease>(text: &[u8], header: &Header) -> Result<Parsed<L>, RowProblem> {
    if text.len() > MAX_LINE {
        return Err(RowProblem::TooLong { limit: MAX_LINE });
    }
    L::parse_row(text, header)
}

/// Returns the problem of a row, of which the first [`MAX_LINE`] bytes and one more are sufficient.
pub(crate) fn problem_of<L: FileLease>(text: &[u8], header: &Header) -> Option<RowProblem> {
    parse::<L>(text, header).err()
}

/// Puts the offsets of all commas and newlines of a part of a window at the front of `found`, and
/// returns their number.
fn find_separators(window: &[u8], Range { start, end }: Range<usize>, found: &mut Vec<u32>) -> usize {
    // Number of offsets that are written at once; the next ones overwrite those in excess.
    const STEP: usize = 12;
    let mut count = 0;
    let mut base = start as u32;
    let (blocks, _) = window[start..start + (end - start).next_multiple_of(64)].as_chunks::<64>();
    for block in blocks {
        let mut mask = separator_mask(block);
        let rest = end - base as usize;
        if rest < 64 {
            mask &= (1 << rest) - 1;
        }
        if found.len() < count + 64 + STEP {
            found.resize((count + 64 + STEP) * 2, 0);
        }
        let total = mask.count_ones() as usize;
        for places in found[count..].chunks_exact_mut(STEP) {
            for place in places {
                *place = base + mask.trailing_zeros();
                mask &= mask.wrapping_sub(1);
            }
            if mask == 0 {
                break;
            }
        }
        count += total;
        base += 64;
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::lease::{Lease4, Lease6};
    use crate::lease_file::canonical::Tail;
    use crate::lease_file::row::private::RowFormat;

    const ROW4: &str =
        "192.0.2.1,02:00:00:00:00:01,01:02:00:00:00:00:01,3600,1790003600,1,0,0,h1.example.org,0,,0";
    const ROW6: &str = "2001:db8::1,00:01:00:01:2a:bb:cc:dd,3600,1790003600,1,2250,0,7,128,0,0,h1,02:00:00:00:00:01,0,,1,0,0";

    /// The result for a row: the row that is kept, if any, and whether it was copied.
    #[derive(Debug, PartialEq)]
    struct Outcome<K> {
        key: Option<K>,
        deletes: bool,
        written: Vec<u8>,
        copied: bool,
    }

    fn scan<L: FileLease>(text: &[u8]) -> Vec<Outcome<L::AddressKey>> {
        scan_as::<L>(text, &L::SCHEMA.current())
    }

    fn scan_as<L: FileLease>(text: &[u8], header: &Header) -> Vec<Outcome<L::AddressKey>> {
        let mut window = text.to_vec();
        window.extend([b'9'; WINDOW_PADDING]);
        let mut rows = Vec::new();
        Scanner::default().scan::<L>(&window, text.len(), header, &mut 0, |row| {
            rows.push(match row {
                Row::Canonical { row: Canonical { key, deletes, end, tail }, start } => {
                    let written = [&window[start..end], tail.text()].concat();
                    Outcome { key: Some(key), deletes, written, copied: true }
                }
                Row::Converted { key, deletes, row, .. } => {
                    Outcome { key: Some(key), deletes, written: row.to_vec(), copied: false }
                }
                Row::Invalid { .. } => {
                    Outcome { key: None, deletes: false, written: Vec::new(), copied: false }
                }
            });
            true
        });
        rows
    }

    /// Returns the result of the slow method.
    fn slow_result<L: FileLease>(line: &[u8], header: &Header) -> Outcome<L::AddressKey> {
        match L::parse_row(line, header) {
            Ok(parsed) => {
                let mut written = Vec::new();
                parsed.lease.write_row(&mut written);
                Outcome { key: Some(parsed.lease.key()), deletes: parsed.deletes(), written, copied: false }
            }
            Err(_) => Outcome { key: None, deletes: false, written: Vec::new(), copied: false },
        }
    }

    /// Returns headers of all schemas.
    fn headers<L: FileLease>() -> Vec<Header> {
        let columns = L::SCHEMA.columns;
        let headers =
            (1..=columns.len()).map(|count| L::SCHEMA.parse_header(columns[..count].join(",").as_bytes()));
        headers.filter_map(Result::ok).collect()
    }

    /// Checks the result for a row in files of all schemas.
    fn check<L: FileLease>(line: &[u8]) {
        for header in headers::<L>() {
            check_as::<L>(line, &header);
        }
    }

    fn check_as<L: FileLease>(line: &[u8], header: &Header) {
        let text = [b"\n", line, b"\n\n", line, b"\n"].concat();
        let rows = scan_as::<L>(&text, header);
        let expected = slow_result::<L>(line, header);
        let lines = if line.is_empty() { 0 } else { 2 };
        assert_eq!(rows.len(), lines);
        for row in rows {
            assert_eq!(
                (&row.key, row.deletes, &row.written),
                (&expected.key, expected.deletes, &expected.written),
                "{}",
                line.escape_ascii()
            );
        }
    }

    #[rstest]
    #[case(ROW4)]
    #[case("0.0.0.0,,01:02,0,0,0,1,1,,4294967295,,4294967295")]
    #[case("255.255.255.255,00,,4294967295,1790003600,1,0,1,a&#x2cb&#x26c&#x0a&#xff,99,{ \"a\": 1 },0")]
    #[case("10.20.30.40,,,3600,1790003600,1,0,0,,1,{  },0")]
    #[case(
        "10.0.0.1,02:00:00:00:00:01,,1,2,3,0,0,,0,{ \"ISC\": { \"a\": [ \"x\"&#x2c -1&#x2c true&#x2c null&#x2c [  ]&#x2c {  } ]&#x2c \"b\": \"\\u00e9\\n\\\\\" } },0"
    )]
    fn a_row_as_a_dhcpv4_server_writes_it_is_copied(#[case] line: &str) {
        check::<Lease4>(line.as_bytes());
        assert!(scan::<Lease4>(format!("{line}\n").as_bytes())[0].copied);
    }

    #[rstest]
    #[case(ROW6)]
    #[case("::,00:00:00,4294967295,6084970896,1,0,1,0,128,1,0,Host,,1,,0,0,7")]
    #[case("2001:db8:1::,00:01:02,3600,1790003600,1,2250,2,7,48,0,0,,,0,{ \"a\": 1 },0,0,0")]
    #[case("1:2:3:4:5:6:7:8,00:01:02,0,4294967295,1,2250,65535,7,128,0,0,,ab,0,,65535,4294967295,0")]
    #[case("2001:db8:0:1:1:1:1:1,00:01:02,1,2,1,2250,0,7,128,0,0,,,0,,0,0,0")]
    #[case("1:0:0:2::3,00:01:02,1,2,1,2250,0,7,128,0,0,,,0,,0,0,0")]
    fn a_row_as_a_dhcpv6_server_writes_it_is_copied(#[case] line: &str) {
        check::<Lease6>(line.as_bytes());
        assert!(scan::<Lease6>(format!("{line}\n").as_bytes())[0].copied);
    }

    #[rstest]
    #[case::one_byte("::1", "01", "0", "0,128")]
    #[case::two_bytes("::1", "00:01", "0", "0,128")]
    #[case::empty_of_kea_2("::1", "00", "1", "0,128")]
    #[case::empty_of_kea_2_in_use("::1", "00", "0", "0,128")]
    #[case::empty_of_kea_2_reclaimed("::1", "00", "2", "2,0")]
    #[case::two_zeros("::1", "00:00", "0", "0,128")]
    #[case::longest("::1", "longest", "0", "0,128")]
    #[case::host_bits("2001:db8:8:1::1", "01:02:03", "0", "2,64")]
    #[case::host_bits_next_to_the_length("2001:db8:8:1:8000::", "01:02:03", "0", "2,64")]
    #[case::host_bits_of_all("ff::", "01", "0", "2,0")]
    #[case::last_host_bit("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "01", "0", "2,127")]
    fn a_row_that_only_kea_2_writes_is_copied(
        #[case] address: &str,
        #[case] duid: &str,
        #[case] state: &str,
        #[case] kind: &str,
    ) {
        let duid = duid.replace("longest", &vec!["ab"; 130].join(":"));
        let (lease_type, len) = kind.split_once(',').unwrap();
        let line = format!(
            "{address},{duid},3600,1790003600,1,0,{lease_type},0,{len},0,0,,02:00:00:00:00:01,{state},,1,0,0"
        );
        check::<Lease6>(line.as_bytes());
        let rows = scan::<Lease6>(format!("{line}\n").as_bytes());
        assert!(rows[0].copied);
        assert_eq!(String::from_utf8_lossy(&rows[0].written), format!("{line}\n"));
    }

    #[rstest]
    #[case::no_state("::1", "00", "x", "0,128")]
    #[case::empty("::1", "00:00:00", "0", "0,128")]
    #[case::no_duid("::1", "", "0", "0,128")]
    #[case::too_long("::1", "longest:ab", "0", "0,128")]
    #[case::length_beyond_128("::1", "01:02:03", "0", "2,129")]
    #[case::length_that_wraps("::1", "01:02:03", "0", "2,256")]
    #[case::no_length("::1", "01:02:03", "0", "2,")]
    fn a_row_that_no_version_of_kea_keeps_is_invalid(
        #[case] address: &str,
        #[case] duid: &str,
        #[case] state: &str,
        #[case] kind: &str,
    ) {
        let duid = duid.replace("longest", &vec!["ab"; 130].join(":"));
        let (lease_type, len) = kind.split_once(',').unwrap();
        let line = format!("{address},{duid},3600,1790003600,1,0,{lease_type},0,{len},0,0,,,{state},,0,0,0");
        check::<Lease6>(line.as_bytes());
        let rows = scan::<Lease6>(format!("{line}\n").as_bytes());
        assert_eq!(rows[0].key, None);
    }

    #[rstest]
    #[case::dotted("::192.0.2.1", "::192.0.2.1")]
    #[case::hex_for_dotted("::c000:201", "::192.0.2.1")]
    #[case::mapped("::ffff:c000:201", "::ffff:192.0.2.1")]
    #[case::low("::2", "::2")]
    #[case::wrong_gap("1::2:0:0:0:3", "1:0:0:2::3")]
    #[case::single_zero("1::2:3:4:5:6:7", "1:0:2:3:4:5:6:7")]
    #[case::leading_zero("2001:0db8::1", "2001:db8::1")]
    #[case::upper_case("2001:DB8::1", "2001:db8::1")]
    fn an_address_in_another_spelling_is_converted(#[case] address: &str, #[case] canonical: &str) {
        let line = ROW6.replacen("2001:db8::1", address, 1);
        check::<Lease6>(line.as_bytes());
        let rows = scan::<Lease6>(format!("{line}\n").as_bytes());
        assert!(String::from_utf8_lossy(&rows[0].written).starts_with(&format!("{canonical},")));
    }

    #[rstest]
    fn fast_and_slow_methods_agree_on_truncated_rows_and_extra_values(
        #[values("", ",", ",x", ",1,2,3")] more: &str,
    ) {
        check::<Lease4>(format!("{ROW4}{more}").as_bytes());
        check::<Lease6>(format!("{ROW6}{more}").as_bytes());
        for cut in 0..ROW4.len() {
            check::<Lease4>(&ROW4.as_bytes()[..cut]);
        }
        for cut in 0..ROW6.len() {
            check::<Lease6>(&ROW6.as_bytes()[..cut]);
        }
    }

    #[test]
    fn fast_and_slow_methods_agree_on_rows_longer_than_a_chunk() {
        let context = format!("{{ \"a\": \"{}\" }}", "x".repeat(3 * CHUNK));
        let long = ROW4.replace(",,0", &format!(",{context},0"));
        assert!(scan::<Lease4>(format!("{ROW4}\n{long}\n").as_bytes()).iter().all(|row| row.copied));
        is_copied::<Lease4>(&long, 11, ",0");
        let more = ",".repeat(3 * CHUNK);
        for line in [&long, &format!("{long},x"), &more, &format!("{ROW4}{more}")] {
            check::<Lease4>(line.as_bytes());
        }
        check::<Lease6>(format!("{ROW6}{more}").as_bytes());
    }

    #[test]
    fn separators_of_a_long_line_take_bounded_memory() {
        let text = [&vec![b','; 1000 * CHUNK][..], b"\n", &[b'\n'; WINDOW_PADDING]].concat();
        let mut scanner = Scanner::default();
        let (mut lines, mut rows) = (0, 0);
        let len = text.len() - WINDOW_PADDING;
        scanner.scan::<Lease4>(&text, len, &Lease4::SCHEMA.current(), &mut lines, |row| {
            rows += u32::from(matches!(row, Row::Invalid { .. }));
            true
        });
        assert_eq!((lines, rows), (1, 1));
        assert!(scanner.separators.capacity() <= 4 * CHUNK);
    }

    /// The number of values of a row, under headers of schemas with no more columns, and the
    /// appended text.
    #[rstest]
    #[case(9, ",0,,0")]
    #[case(10, ",,0")]
    #[case(11, ",0")]
    #[case(12, "")]
    fn a_dhcpv4_row_of_an_older_schema_is_copied(
        #[case] values: usize,
        #[case] appended: &str,
        #[values(
            "",
            "192.0.2.1,,01:02,3600,1790003600,1,0,0,,1,{ \"a\": 1 },0",
            "10.0.0.1,01,,0,5,1,1,0,a&#x2c,2,,7"
        )]
        row: &str,
    ) {
        is_copied::<Lease4>(if row.is_empty() { ROW4 } else { row }, values, appended);
    }

    #[rstest]
    #[case(12, ",,0,,0,0,0", ",,0,,0,0,0")]
    #[case(13, ",0,,1,0,0", ",0,,0,0,0")]
    #[case(14, ",,1,0,0", ",,0,0,0")]
    #[case(15, ",1,0,0", ",0,0,0")]
    #[case(16, ",0,0", ",0,0")]
    #[case(17, ",0", ",0")]
    #[case(18, "", "")]
    fn a_dhcpv6_row_of_an_older_schema_is_copied(
        #[case] values: usize,
        #[case] with_hwaddr: &str,
        #[case] without: &str,
    ) {
        is_copied::<Lease6>(ROW6, values, with_hwaddr);
        let row = "2001:db8::,01:02,3600,1790003600,1,2250,2,7,48,0,0,h1,,0,{ \"a\": 1 },0,0,7";
        is_copied::<Lease6>(row, values, without);
        let row = "::1,00:00,3600,1790003600,1,2250,0,7,128,0,0,h1,ab:cd,1,,65535,4294967295,7";
        is_copied::<Lease6>(row, values, with_hwaddr);
    }

    fn is_copied<L: FileLease>(row: &str, values: usize, appended: &str) {
        let line = row.split(',').take(values).collect::<Vec<_>>().join(",");
        check::<L>(line.as_bytes());
        for header in headers::<L>() {
            let seen = scan_as::<L>(format!("{line}\n").as_bytes(), &header);
            if header.columns > values {
                assert_eq!(seen[0].key, None);
            } else {
                assert!(seen[0].copied);
                assert_eq!(String::from_utf8_lossy(&seen[0].written), format!("{line}{appended}\n"));
            }
        }
    }

    /// Kea 2.2 omits the type and the source of an absent hardware address.
    #[rstest]
    #[case::both("::2,01,3600,1790003600,1,0,0,7,128,0,0,h,,0,{ \"a\": 1 },,", true)]
    #[case::without_a_source("::2,01,3600,1790003600,1,0,0,7,128,0,0,h,,0,,", true)]
    #[case::with_a_type_only("::2,01,3600,1790003600,1,0,0,7,128,0,0,h,,0,,0,", false)]
    #[case::with_a_pool("::2,01,3600,1790003600,1,0,0,7,128,0,0,h,,0,,,,7", false)]
    fn an_absent_hardware_address_gets_a_type_and_a_source_of_0(#[case] line: &str, #[case] copied: bool) {
        check::<Lease6>(line.as_bytes());
        let header = headers::<Lease6>()[0];
        let seen = scan_as::<Lease6>(format!("{line}\n").as_bytes(), &header);
        assert_eq!(seen[0].copied, copied);
        let end: &[u8] = if line.ends_with('7') { b",0,0,7\n" } else { b",0,0,0\n" };
        assert!(seen[0].written.ends_with(end));
    }

    #[test]
    fn rows_of_several_schemas_in_one_file_are_copied() {
        fn run<L: FileLease>(row: &str) {
            let oldest = headers::<L>()[0];
            let line = |count: usize| row.split(',').take(count).collect::<Vec<_>>().join(",") + "\n";
            let counts: Vec<_> = (oldest.columns..=L::SCHEMA.columns.len()).collect();
            let text: String = counts.iter().chain(counts.iter().rev()).map(|&count| line(count)).collect();
            let rows = scan_as::<L>(text.as_bytes(), &oldest);
            assert_eq!(rows.len(), 2 * counts.len());
            assert!(rows.iter().all(|row| row.copied));
            // Each is the row that the slow method writes.
            for (row, line) in rows.iter().zip(text.lines()) {
                assert_eq!(row.written, slow_result::<L>(line.as_bytes(), &oldest).written);
            }
        }
        run::<Lease4>(ROW4);
        run::<Lease6>(ROW6);
    }

    #[test]
    fn every_tail_has_its_number() {
        let tails: Vec<_> = (0..=Tail::COUNT).filter_map(Tail::of_number).collect();
        assert_eq!(tails.len(), usize::from(Tail::COUNT));
        for (n, tail) in (0..).zip(&tails) {
            assert_eq!(tail.number(), n);
            assert!(tails.iter().filter(|other| other.text() == tail.text()).count() == 1);
        }
    }

    /// Parts of valid and invalid rows.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::sample::select(&b"0123456789abcdefABF:.,&#x{}[]\"\\ +-{}\n"[..]).prop_map(|b| vec![b]),
            1 => any::<u8>().prop_map(|b| vec![b]),
            2 => prop::sample::select(vec![
                "&#x2c", "&#x26", "&#x2C", "&#x41", "&#x", "00", "0", "1", "2", "128", "64", "65535", "65536",
                "4294967295", "4294967296", "18446744073709551615", "99999999999999999", "::", ":0:0:", "\"a\": ",
                "{  }", "[  ]", "{ \"a\": 1 }", "{ \"b\": 1&#x2c \"a\": 2 }", "{ \"a\": 1.5 }", "\\u00e9", "\\u0041",
                "\\u000a", "\\n", "null", "-0", "00:00:00", "",
            ]).prop_map(|text| text.as_bytes().to_vec()),
        ]
    }

    /// A row, of the newest or of an older schema, with some values replaced and some bytes
    /// changed; and the index of the header of its file.
    fn row(base: &'static str) -> impl Strategy<Value = (Vec<u8>, prop::sample::Index)> {
        let columns = base.split(',').count();
        let lengths = prop_oneof![1 => Just(columns), 2 => columns - 7..columns];
        let values = prop::collection::vec((0..columns, prop::collection::vec(piece(), 0..4)), 0..3);
        let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, piece()), 0..3);
        let parts = (values, edits, lengths, any::<prop::sample::Index>());
        parts.prop_map(move |(values, edits, length, header)| {
            let mut row: Vec<Vec<u8>> = base.split(',').map(|value| value.as_bytes().to_vec()).collect();
            for (column, pieces) in values {
                row[column] = pieces.concat();
            }
            row.truncate(length);
            let mut row = row.join(&b',');
            for (at, removed, added) in edits {
                let at = at.index(row.len() + 1);
                let end = (at + removed).min(row.len());
                row.splice(at..end, added);
            }
            row.retain(|&b| b != b'\n');
            (row, header)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_dhcpv4_row_is_copied_only_if_it_would_be_written_identically((line, header) in row(ROW4)) {
            check_as::<Lease4>(&line, header.get(&headers::<Lease4>()));
        }

        #[test]
        fn a_dhcpv6_row_is_copied_only_if_it_would_be_written_identically((line, header) in row(ROW6)) {
            check_as::<Lease6>(&line, header.get(&headers::<Lease6>()));
        }

        #[test]
        fn a_written_row_is_read_back((line, _) in row(ROW6)) {
            if let Ok(parsed) = Lease6::parse_row(&line, &Lease6::SCHEMA.current()) {
                let mut written = Vec::new();
                parsed.lease.write_row(&mut written);
                written.pop();
                let again = Lease6::parse_row(&written, &Lease6::SCHEMA.current()).unwrap();
                prop_assert_eq!(again.lease.address(), parsed.lease.address());
                prop_assert_eq!(again.lease, parsed.lease);
            }
        }
    }

    #[test]
    fn separators_are_found_at_any_block_boundary() {
        for len in 0..200_usize {
            let text: Vec<u8> = (0..len)
                .map(|i| {
                    if i % 7 == 3 {
                        b','
                    } else if i % 31 == 30 {
                        b'\n'
                    } else {
                        b'x'
                    }
                })
                .collect();
            let mut window = text.clone();
            window.extend([b','; WINDOW_PADDING]);
            for start in [0, 1, len / 2, len] {
                let start = start.min(len);
                let mut found = Vec::new();
                let count = find_separators(&window, start..len, &mut found);
                let expected: Vec<u32> = (0..)
                    .zip(&text)
                    .skip(start)
                    .filter(|&(_, &b)| b == b',' || b == b'\n')
                    .map(|(i, _)| i)
                    .collect();
                assert_eq!(found[..count], expected, "{start}..{len}");
            }
        }
    }
}
