//! Octets as text: of hardware addresses, client ids and DUIDs.

/// The byte of two hex digits, of either case.
pub(crate) fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Octets of one or two hex digits with `separator` between them.
pub(crate) fn separated_octets(text: &[u8], separator: u8) -> Option<Vec<u8>> {
    text.split(|&b| b == separator)
        .map(|octet| match *octet {
            [low] => hex_byte(b'0', low),
            [high, low] => hex_byte(high, low),
            _ => None,
        })
        .collect()
}

/// The octets of a client id or DUID: separated by `:` or by blanks, or plain hex digits with or
/// without `0x`, where an odd number of them counts as if a 0 stood before.
pub(crate) fn octets(text: &[u8]) -> Option<Vec<u8>> {
    if text.contains(&b':') {
        return separated_octets(text, b':');
    }
    if text.contains(&b' ') {
        return separated_octets(text, b' ');
    }
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let (odd, pairs) = digits.split_at(digits.len() % 2);
    let first = odd.iter().map(|&low| hex_byte(b'0', low));
    first.chain(pairs.chunks_exact(2).map(|pair| hex_byte(pair[0], pair[1]))).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("01:02", Some(&[1, 2][..]))]
    #[case("1:2", Some(&[1, 2][..]))]
    #[case("01 02", Some(&[1, 2][..]))]
    #[case("0102", Some(&[1, 2][..]))]
    #[case("0x0102", Some(&[1, 2][..]))]
    #[case("abc", Some(&[0x0a, 0xbc][..]))]
    #[case("0xabc", Some(&[0x0a, 0xbc][..]))]
    #[case("0X0102", None)]
    #[case("0x", None)]
    #[case("0x ab", None)]
    #[case("01:02:", None)]
    #[case(":01", None)]
    #[case("01::02", None)]
    #[case("001:02", None)]
    #[case("01 02:03", None)]
    #[case(" 01", None)]
    #[case("01-02", None)]
    #[case("zz", None)]
    #[case("", None)]
    fn octets_come_with_colons_blanks_or_nothing_between(#[case] text: &str, #[case] bytes: Option<&[u8]>) {
        assert_eq!(octets(text.as_bytes()).as_deref(), bytes);
    }
}
