//! Parses the bytes of hardware addresses, client ids and DUIDs from text.

/// The value of each hex digit, of either case; [`NO_DIGIT`] for other bytes.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut n = 0;
    while n < 10 {
        digits[b'0' as usize + n] = n as u8;
        n += 1;
    }
    while n < 16 {
        digits[b'a' as usize + n - 10] = n as u8;
        digits[b'A' as usize + n - 10] = n as u8;
        n += 1;
    }
    digits
};
const NO_DIGIT: u8 = 0x80;

/// Returns the byte for two hex digits, of either case.
#[inline]
pub(crate) fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let (high, low) = (DIGITS[usize::from(high)], DIGITS[usize::from(low)]);
    ((high | low) & NO_DIGIT == 0).then_some(high << 4 | low)
}

/// Bytes parsed from text. Client ids, DUIDs and hardware addresses have at most 255.
pub(crate) struct Octets {
    bytes: [u8; Self::SHORT],
    /// Used for more than [`Octets::SHORT`] bytes.
    long: Vec<u8>,
    len: usize,
}

impl Octets {
    const SHORT: usize = 32;

    fn new() -> Self {
        Self { bytes: [0; Self::SHORT], long: Vec::new(), len: 0 }
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
        } else {
            if self.long.is_empty() {
                self.long.extend_from_slice(&self.bytes);
            }
            self.long.push(byte);
        }
        self.len += 1;
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.len <= Self::SHORT { &self.bytes[..self.len] } else { &self.long }
    }
}

/// Parses bytes of one or two hex digits, separated by `separator`.
pub(crate) fn separated_octets(text: &[u8], separator: u8) -> Option<Octets> {
    let mut octets = Octets::new();
    let mut rest = text;
    loop {
        rest = match rest {
            // The common case of two digits.
            [high, low, found, rest @ ..] if *found == separator => {
                octets.push(hex_byte(*high, *low)?);
                rest
            }
            [high, low] => {
                octets.push(hex_byte(*high, *low)?);
                return Some(octets);
            }
            [low, found, rest @ ..] if *found == separator => {
                octets.push(hex_byte(b'0', *low)?);
                rest
            }
            [low] => {
                octets.push(hex_byte(b'0', *low)?);
                return Some(octets);
            }
            _ => return None,
        }
    }
}

/// Parses the bytes of a client id or DUID: separated by `:` or by blanks, or plain hex digits with
/// or without `0x`, where an odd number of digits is preceded by an implied 0.
pub(crate) fn octets(text: &[u8]) -> Option<Octets> {
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
    let mut octets = Octets::new();
    let (odd, pairs) = digits.split_at(digits.len() % 2);
    if let [low] = odd {
        octets.push(hex_byte(b'0', *low)?);
    }
    for pair in pairs.chunks_exact(2) {
        octets.push(hex_byte(pair[0], pair[1])?);
    }
    Some(octets)
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
    #[case(":", None)]
    #[case("1:", None)]
    #[case("12:3", Some(&[0x12, 3][..]))]
    fn octets_are_separated_by_colons_blanks_or_nothing(#[case] text: &str, #[case] bytes: Option<&[u8]>) {
        let octets = octets(text.as_bytes());
        assert_eq!(octets.as_ref().map(Octets::as_slice), bytes);
    }

    #[test]
    fn any_number_of_octets_is_parsed() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 1..=bytes.len() {
            let digits: Vec<_> = bytes[..len].iter().map(|byte| format!("{byte:02x}")).collect();
            for text in [digits.join(":"), digits.join(" "), digits.concat()] {
                assert_eq!(octets(text.as_bytes()).unwrap().as_slice(), &bytes[..len], "{text}");
            }
        }
    }
}
