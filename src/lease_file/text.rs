//! The spelling of single values in a lease file.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::identifiers::octets::hex_byte;

/// Returns whether a byte of a name or a user context is written unescaped.
pub(super) fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'&'
}

/// Appends `text` with every byte below 0x20 or above 0x7e, `,` and `&` written as `&#xHH`.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    // Nearly every text is plain; the check has no branch for each byte.
    if text.iter().fold(true, |plain, &byte| plain & is_plain(byte)) {
        return out.extend_from_slice(text);
    }
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| !is_plain(byte)) {
        out.extend_from_slice(&rest[..at]);
        let [high, low] = hex_digits(rest[at]);
        out.extend_from_slice(&[b'&', b'#', b'x', high, low]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends `text` with every `&#x` and two hex digits of either case replaced by the byte that they
/// encode. Any other `&` is kept.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let byte = match rest {
            &[b'&', b'#', b'x', high, low, ..] => hex_byte(high, low),
            _ => None,
        };
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &rest[5..];
            }
            None => {
                out.push(b'&');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

/// Parses a decimal number that fits `T`: digits, possibly with leading zeros or after a `+`.
///
/// A `-` is refused. Kea wraps such numbers around (`-1` becomes 4294967295), but no server writes
/// them.
pub(super) fn number<T: TryFrom<u64>>(text: &[u8]) -> Option<T> {
    /// Maximum number of digits that cannot overflow.
    const SHORT: usize = 18;
    if (1..=SHORT).contains(&text.len()) && text.iter().fold(true, |all, byte| all & byte.is_ascii_digit()) {
        let value = text.iter().fold(0, |value, byte| value * 10 + u64::from(byte - b'0'));
        return T::try_from(value).ok();
    }
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_u64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    T::try_from(value).ok()
}

/// Parses a flag, `0` or `1`.
pub(super) fn flag(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => return Some(false),
        b"1" => return Some(true),
        _ => {}
    }
    match number::<u8>(text)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Parses an IPv4 address: four numbers up to 255, without leading zeros.
pub(super) fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut address = 0_u32;
    let (mut octet, mut digits, mut dots) = (0_u32, 0, 0);
    for &byte in text {
        match byte {
            b'0'..=b'9' if digits < 3 && (digits == 0 || octet > 0) => {
                octet = octet * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if digits > 0 && octet <= 255 && dots < 3 => {
                address = address << 8 | octet;
                dots += 1;
                (octet, digits) = (0, 0);
            }
            _ => return None,
        }
    }
    (dots == 3 && digits > 0 && octet <= 255).then(|| Ipv4Addr::from_bits(address << 8 | octet))
}

/// Appends the text of an IPv6 address as `inet_ntop` writes it: lower case, the first of the
/// longest runs of two or more zero groups compressed, the addresses `::a.b.c.d` and
/// `::ffff:a.b.c.d` with their last four bytes in decimal.
pub(super) fn write_ipv6(address: Ipv6Addr, out: &mut Vec<u8>) {
    let groups = address.segments();
    let zeros = longest_zero_run(&groups);
    let dotted = matches!((zeros, groups[5]), ((0, 6), _) | ((0, 5), 0xffff));
    let mut at = 0;
    while at < 8 {
        if (at, zeros.1 > 0) == (zeros.0, true) {
            out.extend_from_slice(b"::");
            at += zeros.1;
            continue;
        }
        if at > 0 && out.last() != Some(&b':') {
            out.push(b':');
        }
        if dotted && at == 6 {
            let [.., a, b, c, d] = address.octets();
            write_ipv4([a, b, c, d].into(), out);
            return;
        }
        let [high, low] = groups[at].to_be_bytes();
        let ([a, b], [c, d]) = (hex_digits(high), hex_digits(low));
        let digits = [a, b, c, d];
        let zeros = digits[..3].iter().take_while(|&&digit| digit == b'0').count();
        out.extend_from_slice(&digits[zeros..]);
        at += 1;
    }
}

/// Returns start and length of the first of the longest runs of two or more zero groups; length 0
/// if there is none.
pub(super) fn longest_zero_run(groups: &[u16; 8]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut at = 0;
    while at < 8 {
        let len = groups[at..].iter().take_while(|&&group| group == 0).count();
        if len >= 2 && len > best.1 {
            best = (at, len);
        }
        at += len + 1;
    }
    best
}

/// Appends two hex digits for each octet, separated by colons.
pub(super) fn write_octets(bytes: &[u8], out: &mut Vec<u8>) {
    // Number of octets that are formatted and appended at once.
    const PIECE: usize = 20;
    let Some(last) = bytes.len().checked_sub(1) else {
        return;
    };
    for (n, piece) in bytes.chunks(PIECE).enumerate() {
        let mut text = [[b':'; 3]; PIECE];
        for ([high, low, _], &byte) in text.iter_mut().zip(piece) {
            [*high, *low] = hex_digits(byte);
        }
        let colon = usize::from(n * PIECE + piece.len() <= last);
        out.extend_from_slice(&text.as_flattened()[..piece.len() * 3 - 1 + colon]);
    }
}

/// Returns the two lower-case hex digits of a byte.
fn hex_digits(byte: u8) -> [u8; 2] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

/// Appends a number in decimal.
#[inline]
pub(super) fn write_number(number: impl Into<u64>, out: &mut Vec<u8>) {
    let number = number.into();
    match u8::try_from(number) {
        Ok(digit @ ..=9) => out.push(b'0' + digit),
        _ => write_long_number(number, out),
    }
}

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

fn write_long_number(number: u64, out: &mut Vec<u8>) {
    let mut rest = number;
    let mut digits = [0; 20];
    let mut at = digits.len();
    while rest >= 10 {
        at -= 2;
        let pair = PAIRS[(rest % 100) as usize];
        digits[at..at + 2].copy_from_slice(&pair);
        rest /= 100;
    }
    if rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the text of an IPv4 address.
pub(super) fn write_ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    let mut text = [0; 16];
    let mut at = 0;
    for octet in address.octets() {
        let (hundreds, [tens, ones]) = (octet / 100, PAIRS[usize::from(octet % 100)]);
        text[at] = b'0' + hundreds;
        at += usize::from(hundreds > 0);
        text[at] = tens;
        at += usize::from(octet >= 10);
        text[at] = ones;
        text[at + 1] = b'.';
        at += 2;
    }
    out.extend_from_slice(&text[..at - 1]);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn escaped(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape(text, &mut out);
        out
    }

    fn unescaped(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        unescape(text, &mut out);
        out
    }

    #[test]
    fn every_byte_can_be_escaped_and_unescaped() {
        let all: Vec<u8> = (0..=255).collect();
        let text = escaped(&all);
        assert!(text.iter().all(|&b| is_plain(b) || b == b'&'));
        assert_eq!(unescaped(&text), all);
    }

    #[rstest]
    #[case::comma("a&#x2cb", "a,b")]
    #[case::upper_case_digits("a&#x2Cb", "a,b")]
    #[case::unescaped_once("&#x26#x2c", "&#x2c")]
    #[case::after_an_ampersand("&&#x2c", "&,")]
    #[case::letters("&#x41bc", "Abc")]
    #[case::truncated("&#x", "&#x")]
    #[case::truncated_by_a_digit("a&#x2", "a&#x2")]
    #[case::no_hex("&#xzz", "&#xzz")]
    #[case::half_hex("&#x2z", "&#x2z")]
    #[case::upper_case_x("&#X2c", "&#X2c")]
    #[case::sign("&#x+1", "&#x+1")]
    fn only_a_complete_escape_is_replaced(#[case] text: &str, #[case] meaning: &str) {
        assert_eq!(unescaped(text.as_bytes()), meaning.as_bytes());
    }

    #[rstest]
    #[case("0", Some(0))]
    #[case("4294967295", Some(u32::MAX))]
    #[case("4294967296", None)]
    #[case("18446744073709551616", None)]
    #[case("007", Some(7))]
    #[case("0000000000000000000000000000001", Some(1))]
    #[case("+1", Some(1))]
    #[case("-1", None)]
    #[case("-0", None)]
    #[case("++1", None)]
    #[case("+", None)]
    #[case("", None)]
    #[case(" 1", None)]
    #[case("1 ", None)]
    #[case("0x1", None)]
    #[case("1e3", None)]
    fn a_number_consists_of_digits(#[case] text: &str, #[case] value: Option<u32>) {
        assert_eq!(number(text.as_bytes()), value);
    }

    #[test]
    fn numbers_addresses_and_octets_are_written_as_they_are_read() {
        let mut numbers = vec![0, u64::MAX, u64::from(u32::MAX)];
        for power in 0..20 {
            let ten = 10_u64.saturating_pow(power);
            numbers.extend([ten - 1, ten, ten + 1, ten.saturating_mul(7)]);
        }
        for number in numbers {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
        for n in 0..=255_u8 {
            for address in [Ipv4Addr::new(n, 0, 255, n), Ipv4Addr::new(10, n, n, 9)] {
                let mut out = Vec::new();
                write_ipv4(address, &mut out);
                assert_eq!(ipv4(&out), Some(address));
                assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
            }
        }
        for bad in [
            "",
            "1.2.3",
            "1.2.3.",
            "1.2.3.4.",
            ".1.2.3",
            "1..2.3",
            "1.2.3.256",
            "01.2.3.4",
            "1.2.3.00",
            "1.2.3.4a",
        ] {
            assert_eq!((ipv4(bad.as_bytes()), bad.parse::<Ipv4Addr>().ok()), (None, None), "{bad}");
        }
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..=bytes.len() {
            let mut out = Vec::new();
            write_octets(&bytes[..len], &mut out);
            let digits: Vec<_> = bytes[..len].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(String::from_utf8(out).unwrap(), digits.join(":"));
        }
    }

    #[rstest]
    #[case("::", "::")]
    #[case("::1", "::1")]
    #[case("1::", "1::")]
    #[case("::192.0.2.1", "::192.0.2.1")]
    #[case("::c000:201", "::192.0.2.1")]
    #[case("::ffff:192.0.2.1", "::ffff:192.0.2.1")]
    #[case("::1:0", "::0.1.0.0")]
    #[case("::fffe:0:1", "::fffe:0:1")]
    #[case("64:ff9b::192.0.2.1", "64:ff9b::c000:201")]
    #[case("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1")]
    #[case("2001:0:0:1:0:0:0:1", "2001:0:0:1::1")]
    #[case("2001:0:0:1:1:0:0:1", "2001::1:1:0:0:1")]
    #[case("0:0:1:1:1:1:0:0", "::1:1:1:1:0:0")]
    #[case("1:1:1:1:1:1:0:0", "1:1:1:1:1:1::")]
    #[case("0:1:1:1:1:1:1:0", "0:1:1:1:1:1:1:0")]
    #[case("ABCD::EF01", "abcd::ef01")]
    fn an_ipv6_address_is_written_as_inet_ntop_does(#[case] address: Ipv6Addr, #[case] text: &str) {
        let mut out = Vec::new();
        write_ipv6(address, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}
