//! Detection of rows that are, byte for byte, what the writer would write for them.
//!
//! Nearly all rows are, as a server wrote them. Such a row is copied unchanged, so only its address
//! and whether it deletes the lease are needed. Rows of older schemas lack some of the last
//! columns, whose values then follow from the others: these are copied as well, and get a [`Tail`].
//! What is assumed here about a row must follow from [`RowFormat`](super::row::private::RowFormat).
//! Where a check would be expensive (dotted IPv6 addresses, keys with escapes), the row is left to
//! the slow method, which is always correct.

use super::text::{is_plain, longest_zero_run};
use crate::simd::{Block, Mask, first};

/// Number of arbitrary bytes after the text that a check may read.
pub(crate) const PADDING: usize = 16;

/// The text that the writer writes after the copied part of a row: the newline, preceded by the
/// columns that a row of an older schema lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail(u8);

impl Tail {
    /// Number of tails.
    pub(crate) const COUNT: u8 = 12;

    /// Returns the tail of this number, which is less than [`Tail::COUNT`].
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    pub(crate) fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn text(self) -> &'static [u8] {
        match self {
            Self::NEWLINE => b"\n",
            Self::POOL => b",0\n",
            Self::SOURCE => b",0,0\n",
            Self::NO_HARDWARE => b",0,0,0\n",
            Self::HARDWARE => b",1,0,0\n",
            Self::CONTEXT_NO_HARDWARE => b",,0,0,0\n",
            Self::CONTEXT_HARDWARE => b",,1,0,0\n",
            Self::STATE_NO_HARDWARE => b",0,,0,0,0\n",
            Self::STATE_HARDWARE => b",0,,1,0,0\n",
            Self::HWADDR => b",,0,,0,0,0\n",
            Self::CONTEXT4 => b",,0\n",
            _ => b",0,,0\n",
        }
    }

    /// No column is missing.
    pub(crate) const NEWLINE: Self = Self(0);
    // All columns from the named one on are missing.
    const POOL: Self = Self(1);
    const SOURCE: Self = Self(2);
    /// The type of an absent hardware address.
    const NO_HARDWARE: Self = Self(3);
    const HARDWARE: Self = Self(4);
    const CONTEXT_NO_HARDWARE: Self = Self(5);
    const CONTEXT_HARDWARE: Self = Self(6);
    const STATE_NO_HARDWARE: Self = Self(7);
    const STATE_HARDWARE: Self = Self(8);
    const HWADDR: Self = Self(9);
    const CONTEXT4: Self = Self(10);
    const STATE4: Self = Self(11);
}

/// The content of a row that is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical<K> {
    /// Its address.
    pub(crate) key: K,
    pub(crate) deletes: bool,
    /// The end of the part of its text that is copied.
    pub(crate) end: usize,
    /// The text after that.
    pub(crate) tail: Tail,
}

/// A row of `COLUMNS` values, with its separators.
struct RowText<'a, const COLUMNS: usize> {
    /// A text that contains the row and at least [`PADDING`] bytes after it.
    text: &'a [u8],
    /// The start of the row.
    start: usize,
    /// The ends of its values, each at its separator.
    ends: &'a [u32; COLUMNS],
}

impl<'a, const COLUMNS: usize> RowText<'a, COLUMNS> {
    /// Makes the text of a row that has exactly as many values as there are columns.
    #[inline(always)]
    fn new(text: &'a [u8], start: usize, ends: &'a [u32]) -> Option<Self> {
        let ends: &[u32; COLUMNS] = ends.first_chunk()?;
        let (&last, others) = ends.split_last()?;
        let commas = others.iter().fold(true, |all, &end| all & (text[end as usize] == b','));
        (commas & (text[last as usize] == b'\n')).then_some(Self { text, start, ends })
    }

    /// Returns value `N`; an empty one if the row ends before it.
    #[inline(always)]
    fn value<const N: usize>(&self) -> Value<'a> {
        if N >= COLUMNS {
            return Value { text: self.text, start: self.end(), end: self.end() };
        }
        let start = if N == 0 { self.start } else { self.ends[N - 1] as usize + 1 };
        Value { text: self.text, start, end: self.ends[N] as usize }
    }

    /// Returns the end of the row, at its newline.
    #[inline(always)]
    fn end(&self) -> usize {
        self.ends[COLUMNS - 1] as usize
    }
}

/// A value of a row.
#[derive(Clone, Copy)]
struct Value<'a> {
    text: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Value<'a> {
    #[inline(always)]
    fn len(self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn bytes(self) -> &'a [u8] {
        &self.text[self.start..self.end]
    }

    /// Returns the 16 bytes from byte `at` of the value on, some of which may be after it.
    #[inline(always)]
    fn block(self, at: usize) -> Option<Block> {
        let bytes = self.text[self.start + at..].first_chunk()?;
        Some(Block::load(bytes))
    }

    #[inline(always)]
    fn is(self, byte: u8) -> bool {
        self.len() == 1 && self.text[self.start] == byte
    }

    #[inline(always)]
    fn is_flag(self) -> bool {
        self.len() == 1 && matches!(self.text[self.start], b'0' | b'1')
    }

    /// Returns whether the value is a number without leading zeros, not above `max`, which has
    /// `MAX` digits, at most 16.
    #[inline(always)]
    fn is_number<const MAX: usize>(self, max: &[u8; MAX]) -> bool {
        let len = self.len();
        let Some(block) = self.block(0) else {
            return false;
        };
        let wanted = first(len);
        (block.is_digit() & wanted == wanted)
            & (1..=MAX).contains(&len)
            & ((len == 1) | (self.text[self.start] != b'0'))
            & (len != MAX || self.bytes() <= &max[..])
    }

    #[inline(always)]
    fn is_u32(self) -> bool {
        self.is_number(b"4294967295")
    }

    /// Returns the number, if [`Value::is_number`] is true; otherwise any number.
    fn number(self) -> u64 {
        let digit = |value: u64, &byte| value.wrapping_mul(10).wrapping_add(u64::from(byte & 15_u8));
        self.bytes().iter().fold(0, digit)
    }

    /// Returns whether the value is `min` to `max` octets of two lower-case hex digits, separated
    /// by colons.
    #[inline(always)]
    fn is_octets(self, min: usize, max: usize) -> bool {
        let len = self.len();
        // Most values have at most ten octets: these are checked without a branch on the length.
        let mut good = self.are_octets(0) & self.are_octets(15);
        let mut at = 30;
        while at < len {
            good &= self.are_octets(at);
            at += 15;
        }
        good & (len % 3 == 2) & (len >= min * 3 - 1) & (len < max * 3)
    }

    /// Returns whether the five octets from byte `at` on, or as many as the value has, are octets
    /// and colons.
    #[inline(always)]
    fn are_octets(self, at: usize) -> bool {
        /// The colons in a block that starts with an octet.
        const COLONS: Mask = 0b0100_1001_0010_0100;
        let Some(block) = self.block(at.min(self.len())) else {
            return false;
        };
        let good = (block.is_hex() & !COLONS) | (block.is(b':') & COLONS);
        let wanted = first(self.len().saturating_sub(at).min(15));
        good & wanted == wanted
    }

    /// Returns whether the value is a name as the writer escapes it; if `LOWER`, without upper-case
    /// letters.
    #[inline(always)]
    fn is_name<const LOWER: bool>(self) -> bool {
        let len = self.len();
        // Most names have at most 32 bytes: these are checked without a branch on the length.
        let mut good = self.is_plain::<LOWER>(0) & self.is_plain::<LOWER>(16);
        let mut at = 32;
        while at < len {
            good &= self.is_plain::<LOWER>(at);
            at += 16;
        }
        good || is_escaped_name(self.bytes(), LOWER)
    }

    /// Returns whether the 16 bytes from byte `at` on, or as many as the value has, need no escapes
    /// in a name.
    #[inline(always)]
    fn is_plain<const LOWER: bool>(self, at: usize) -> bool {
        let Some(block) = self.block(at.min(self.len())) else {
            return false;
        };
        let mut bad = !block.is_printable() | block.is(b'&');
        if LOWER {
            bad |= block.is_upper();
        }
        bad & first(self.len().saturating_sub(at)) == 0
    }

    #[inline(always)]
    fn is_user_context(self) -> bool {
        self.len() == 0 || is_user_context(self.bytes())
    }
}

#[cold]
#[inline(never)]
fn is_escaped_name(name: &[u8], lower: bool) -> bool {
    let mut rest = name;
    while let Some(&byte) = rest.first() {
        rest = if byte == b'&' {
            match escaped_byte(rest) {
                Some(_) => &rest[5..],
                None => return false,
            }
        } else if is_plain(byte) && !(lower && byte.is_ascii_uppercase()) {
            &rest[1..]
        } else {
            return false;
        };
    }
    true
}

/// Returns the byte of the escape at the beginning of `text`, if the writer would escape it the
/// same way.
fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    match text {
        &[b'&', b'#', b'x', high, low, ..] => {
            Some(digit(high)? << 4 | digit(low)?).filter(|&byte| !is_plain(byte))
        }
        _ => None,
    }
}

/// Reads a DHCPv4 row of this number of values.
///
/// The row starts at `start` of `text`, which has [`PADDING`] bytes after it; the first separators
/// from there on are at `ends`.
#[inline]
pub(super) fn row4(text: &[u8], start: usize, ends: &[u32], values: usize) -> Option<Canonical<u32>> {
    match values {
        12 => row4_of::<12>(text, start, ends),
        11 => row4_of::<11>(text, start, ends),
        10 => row4_of::<10>(text, start, ends),
        9 => row4_of::<9>(text, start, ends),
        _ => None,
    }
}

#[inline]
fn row4_of<const N: usize>(text: &[u8], start: usize, ends: &[u32]) -> Option<Canonical<u32>> {
    let row = RowText::<N>::new(text, start, ends)?;
    let (hwaddr, client_id) = (row.value::<1>(), row.value::<2>());
    let (valid_lifetime, expire) = (row.value::<3>(), row.value::<4>());
    let good = ((hwaddr.len() == 0) | hwaddr.is_octets(1, 20))
        & ((client_id.len() == 0) | client_id.is_octets(2, 255))
        & valid_lifetime.is_u32()
        & expire.is_number(b"9999999999999999")
        & row.value::<5>().is_u32()
        & row.value::<6>().is_flag()
        & row.value::<7>().is_flag()
        & row.value::<8>().is_name::<true>()
        & (N <= 9 || row.value::<9>().is_u32())
        & (N <= 10 || row.value::<10>().is_user_context())
        & (N <= 11 || row.value::<11>().is_u32())
        & ((hwaddr.len() + client_id.len() > 0) | row.value::<9>().is(b'1'));
    if !good {
        return None;
    }
    let tail = match N {
        12.. => Tail::NEWLINE,
        11 => Tail::POOL,
        10 => Tail::CONTEXT4,
        _ => Tail::STATE4,
    };
    Some(Canonical { key: ipv4(row.value::<0>())?, deletes: valid_lifetime.is(b'0'), end: row.end(), tail })
}

/// Returns the number of a dotted address without leading zeros.
#[inline(always)]
fn ipv4(value: Value<'_>) -> Option<u32> {
    let len = value.len();
    let block = value.block(0)?;
    let within = first(len);
    let (digits, dots) = (block.is_digit() & within, block.is(b'.') & within);
    // A digit after each dot and at the beginning: with three dots, four groups of digits.
    let starts = dots << 1 | 1;
    let leading_zeros = block.is(b'0') & starts & digits >> 1;
    let fours = digits & digits >> 1 & digits >> 2 & digits >> 3;
    let good = digits | dots == within
        && digits & starts == starts
        && dots.count_ones() == 3
        && leading_zeros | fours == 0
        && len <= 15;
    if !good {
        return None;
    }
    let one = dots.trailing_zeros() as usize;
    let two = (dots & (dots - 1)).trailing_zeros() as usize;
    let three = 31 - dots.leading_zeros() as usize;
    let octet = |start, end| octet(value, start, end);
    Some(
        octet(0, one)? << 24
            | octet(one + 1, two)? << 16
            | octet(two + 1, three)? << 8
            | octet(three + 1, len)?,
    )
}

/// Returns the number of the one to three digits from `start` to `end` of a value, if it is at most
/// 255.
#[inline(always)]
fn octet(value: Value<'_>, start: usize, end: usize) -> Option<u32> {
    let digits = u32::from_le_bytes(*value.text[value.start + start..].first_chunk()?);
    // The digits are moved to the top bytes; the bits shifted in are leading zeros.
    let moved = digits << (8 * (4 - (end - start)));
    let number = (moved >> 24 & 15) + (moved >> 16 & 15) * 10 + (moved >> 8 & 15) * 100;
    (number <= 255).then_some(number)
}

/// Reads a DHCPv6 row, as [`row4`] does.
#[inline]
pub(super) fn row6(text: &[u8], start: usize, ends: &[u32], values: usize) -> Option<Canonical<(u64, u64)>> {
    match values {
        18 => row6_of::<18>(text, start, ends),
        17 => row6_of::<17>(text, start, ends),
        16 => row6_of::<16>(text, start, ends),
        15 => row6_of::<15>(text, start, ends),
        14 => row6_of::<14>(text, start, ends),
        13 => row6_of::<13>(text, start, ends),
        12 => row6_of::<12>(text, start, ends),
        _ => None,
    }
}

#[inline]
fn row6_of<const N: usize>(text: &[u8], start: usize, ends: &[u32]) -> Option<Canonical<(u64, u64)>> {
    let row = RowText::<N>::new(text, start, ends)?;
    let duid = row.value::<1>();
    let (valid_lifetime, expire) = (row.value::<2>(), row.value::<3>());
    let good = duid.is_octets(1, 130)
        & valid_lifetime.is_u32()
        & expire.is_number(b"9999999999999999")
        & is_expire6(valid_lifetime, expire)
        & row.value::<4>().is_u32()
        & row.value::<5>().is_u32()
        & row.value::<7>().is_u32()
        & row.value::<9>().is_flag()
        & row.value::<10>().is_flag()
        & row.value::<11>().is_name::<false>()
        & (N <= 13 || row.value::<13>().is_u32())
        & (N <= 14 || row.value::<14>().is_user_context())
        & (N <= 17 || row.value::<17>().is_u32())
        & (duid.bytes() != b"00:00:00" || row.value::<13>().is(b'1'));
    if !good {
        return None;
    }
    let (end, tail) = hardware(&row)?;
    let (lease_type, prefix_len) = (row.value::<6>(), row.value::<8>());
    let single = lease_type.is_number(b"65535") && !lease_type.is(b'2') && prefix_len.bytes() == b"128";
    let prefix = || lease_type.is(b'2') && prefix_len.is_number(b"128");
    if !(single || prefix()) {
        return None;
    }
    let key = halves(ipv6(row.value::<0>())?);
    Some(Canonical { key, deletes: valid_lifetime.is(b'0'), end, tail })
}

/// Returns the end of the copied part of a DHCPv6 row, and its tail, if the columns of its hardware
/// address are as written.
#[inline(always)]
fn hardware<const N: usize>(row: &RowText<'_, N>) -> Option<(usize, Tail)> {
    let (hwaddr, htype, source) = (row.value::<12>(), row.value::<15>(), row.value::<16>());
    let (is_there, end) = (hwaddr.len() > 0, row.end());
    if is_there && !hwaddr.is_octets(1, 20) {
        return None;
    }
    let good = if is_there {
        (N <= 15 || htype.is_number(b"65535")) & (N <= 16 || source.is_u32())
    } else {
        (N <= 15 || htype.is(b'0')) & (N <= 16 || source.is(b'0'))
    };
    if !good {
        // Kea 2.2 writes nothing for the type and the source of an absent address.
        let is_of_kea_2 = !is_there && matches!(N, 16 | 17) && htype.len() + source.len() == 0;
        return is_of_kea_2.then(|| (row.value::<14>().end, Tail::NO_HARDWARE));
    }
    let tail = match (N, is_there) {
        (18.., _) => Tail::NEWLINE,
        (17, _) => Tail::POOL,
        (16, _) => Tail::SOURCE,
        (15, true) => Tail::HARDWARE,
        (15, false) => Tail::NO_HARDWARE,
        (14, true) => Tail::CONTEXT_HARDWARE,
        (14, false) => Tail::CONTEXT_NO_HARDWARE,
        (13, true) => Tail::STATE_HARDWARE,
        (13, false) => Tail::STATE_NO_HARDWARE,
        _ => Tail::HWADDR,
    };
    Some((end, tail))
}

/// Returns the upper and the lower 64 bits.
pub(crate) fn halves(address: u128) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
    ((address >> 64) as u64, address as u64)
}

/// Returns whether a cltt of 32 bits results in this expiry time.
#[inline(always)]
fn is_expire6(valid_lifetime: Value<'_>, expire: Value<'_>) -> bool {
    // Lifetimes below a billion seconds and times since 2001 are recognized by their lengths.
    if valid_lifetime.len() <= 9 && expire.len() == 10 && expire.bytes() <= &b"4294967295"[..] {
        return true;
    }
    let cltt = expire.number().checked_sub(valid_lifetime.number());
    cltt.is_some_and(|cltt| cltt <= u64::from(u32::MAX))
}

/// Returns the number of an address in canonical text that is not dotted.
#[inline]
fn ipv6(value: Value<'_>) -> Option<u128> {
    const MAX_LEN: usize = 39;
    let len = value.len();
    if !(2..=MAX_LEN).contains(&len) {
        return None;
    }
    let (mut digits, mut colons, mut zeros) = (0_u64, 0_u64, 0_u64);
    let mut at = 0;
    while at < len {
        let block = value.block(at)?;
        digits |= u64::from(block.is_hex()) << at;
        colons |= u64::from(block.is(b':')) << at;
        zeros |= u64::from(block.is(b'0')) << at;
        at += 16;
    }
    let within = (1 << len) - 1;
    (digits, colons) = (digits & within, colons & within);
    // The starts of groups: digits after a colon, or at the beginning.
    let starts = digits & (colons << 1 | 1);
    let double_colons = colons & colons >> 1;
    let leading_zeros = zeros & starts & digits >> 1;
    let fives = digits & digits >> 1 & digits >> 2 & digits >> 3 & digits >> 4;
    let good = digits | colons == within
        && leading_zeros | fives == 0
        // One double colon at most, and single colons only between groups.
        && double_colons & double_colons.wrapping_sub(1) == 0
        && (colons & 1 == 0 || double_colons & 1 != 0)
        && (colons >> (len - 1) & 1 == 0 || double_colons >> (len - 2) & 1 != 0);
    if !good {
        return None;
    }
    let mut groups = [0_u16; 8];
    let mut count = 0;
    let mut zero_groups = false;
    let mut rest = starts;
    while rest != 0 {
        let start = rest.trailing_zeros() as usize;
        let group = hex_group(value, start, (!(digits >> start)).trailing_zeros())?;
        *groups.get_mut(count)? = group;
        zero_groups |= group == 0;
        count += 1;
        rest &= rest - 1;
    }
    if double_colons == 0 {
        if count != 8 || (zero_groups && longest_zero_run(&groups).1 != 0) {
            return None;
        }
    } else {
        if count > 6 {
            return None;
        }
        let before = starts & (double_colons - 1);
        let gap = before.count_ones() as usize;
        groups.copy_within(gap..count, gap + 8 - count);
        groups[gap..gap + 8 - count].fill(0);
        let dotted = gap == 0 && (count == 2 || (count == 3 && groups[5] == 0xffff));
        if dotted || (zero_groups && longest_zero_run(&groups) != (gap, 8 - count)) {
            return None;
        }
    }
    Some(groups.iter().fold(0, |address, &group| address << 16 | u128::from(group)))
}

/// Returns the number of the `len` lower-case hex digits, one to four, from `start` on.
#[inline(always)]
fn hex_group(value: Value<'_>, start: usize, len: u32) -> Option<u16> {
    let digits = u32::from_be_bytes(*value.text[value.start + start..].first_chunk()?);
    let digits = digits >> (32 - 8 * len);
    // Letters are 0x61 to 0x66: the low half of each byte, plus 9 for a letter.
    let nibbles = (digits & 0x0f0f_0f0f) + (digits >> 6 & 0x0101_0101) * 9;
    let pairs = (nibbles | nibbles >> 4) & 0x00ff_00ff;
    u16::try_from((pairs | pairs >> 8) & 0xffff).ok()
}

/// Returns whether a user context, with its escapes, is spelled as the writer spells it.
///
/// Keys with escapes and numbers other than plain integers are left to the slow method.
fn is_user_context(text: &[u8]) -> bool {
    /// Contexts nested more deeply are left to the slow method.
    const MAX_DEPTH: usize = 16;
    // For each open map or list: `None` for a list, the last key for a map.
    let mut open: [Option<&[u8]>; MAX_DEPTH] = [None; MAX_DEPTH];
    let mut depth = 0;
    let mut cursor = Cursor { text, at: 0 };
    loop {
        // A value starts here.
        match cursor.peek() {
            b'{' | b'[' => {
                let map = cursor.peek() == b'{';
                if depth == MAX_DEPTH || !cursor.take(if map { b"{ " } else { b"[ " }) {
                    return false;
                }
                if cursor.take(if map { b" }" } else { b" ]" }) {
                    // Empty.
                } else {
                    open[depth] = None;
                    depth += 1;
                    if map {
                        let Some(key) = cursor.key() else {
                            return false;
                        };
                        open[depth - 1] = Some(key);
                    }
                    continue;
                }
            }
            b'"' => {
                if !cursor.string() {
                    return false;
                }
            }
            b'0'..=b'9' | b'-' => {
                if !cursor.integer() {
                    return false;
                }
            }
            _ => {
                if !(cursor.take(b"true") || cursor.take(b"false") || cursor.take(b"null")) {
                    return false;
                }
            }
        }
        // A value ends here, and so do the maps and lists of which it is the last.
        loop {
            if depth == 0 {
                return text.first() == Some(&b'{') && cursor.at == text.len();
            }
            let within = open[depth - 1];
            if cursor.take(b"&#x2c ") {
                if let Some(last) = within {
                    match cursor.key() {
                        Some(key) if last < key => open[depth - 1] = Some(key),
                        _ => return false,
                    }
                }
                break;
            }
            if !cursor.take(if within.is_some() { b" }" } else { b" ]" }) {
                return false;
            }
            depth -= 1;
        }
    }
}

/// Returns the number of bytes before the first one that is special in a string, or escaped.
fn simple_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(bytes) = text[at..].first_chunk() {
        let block = Block::load(bytes);
        let other = !block.is_printable() | block.is_either(b'"', b'\\') | block.is_either(b',', b'&');
        if other & 0xffff != 0 {
            return at + other.trailing_zeros() as usize;
        }
        at += 16;
    }
    at + text[at..].iter().take_while(|&&byte| is_plain(byte) && byte != b'"' && byte != b'\\').count()
}

/// An offset in the text of a user context.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Returns the current byte, 0 at the end.
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, expected: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Reads a key without escapes, and the separator before its value.
    fn key(&mut self) -> Option<&'a [u8]> {
        if !self.take(b"\"") {
            return None;
        }
        let rest = &self.text[self.at..];
        let len = simple_len(rest);
        self.at += len;
        self.take(b"\": ").then_some(&rest[..len])
    }

    fn string(&mut self) -> bool {
        self.at += 1;
        loop {
            self.at += simple_len(&self.text[self.at..]);
            let rest = &self.text[self.at..];
            match rest {
                [b'"', ..] => {
                    self.at += 1;
                    return true;
                }
                [b'\\', b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
                [b'\\', b'u', b'0', b'0', high, low, ..] => {
                    // Canonical only if there is no shorter escape.
                    let lower = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                    let byte = crate::identifiers::octets::hex_byte(*high, *low);
                    let long =
                        byte.is_some_and(|b| !matches!(b, 0x20..=0x7e | 0x08 | 0x09 | 0x0a | 0x0c | 0x0d));
                    if !(lower(high) && lower(low) && long) {
                        return false;
                    }
                    self.at += 6;
                }
                [b'&', ..] => match escaped_byte(rest) {
                    Some(b',' | b'&') => self.at += 5,
                    _ => return false,
                },
                _ => return false,
            }
        }
    }

    /// Reads an integer of at most 18 digits without leading zeros.
    fn integer(&mut self) -> bool {
        let negative = self.take(b"-");
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let good = match rest {
            [b'0', ..] => len == 1 && !negative,
            _ => (1..=18).contains(&len),
        };
        self.at += len;
        good && !matches!(self.peek(), b'.' | b'e' | b'E' | b'+' | b'-')
    }
}

/// Returns the bits of a block at the offsets of separators.
pub(super) fn separator_mask(bytes: &[u8; 64]) -> u64 {
    let (blocks, _) = bytes.as_chunks::<16>();
    blocks
        .iter()
        .enumerate()
        .fold(0, |mask, (i, block)| mask | u64::from(Block::load(block).is_either(b',', b'\n')) << (16 * i))
}
