//! Parses JSON as Kea does, and writes it in Kea's format.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memmem};

use super::JsonError;
use crate::identifiers::octets::hex_byte;

/// Maximum nesting of maps and lists.
pub(super) const MAX_DEPTH: usize = 1000;

/// Returns the canonical form of a text that is a map.
pub(super) fn map(text: &[u8]) -> Result<String, JsonError> {
    let mut parser = Parser::new(text);
    if parser.peek() != Some(b'{') {
        return Err(parser.error("expected a JSON map"));
    }
    parser.all()
}

/// Returns the canonical form of a text that is a value.
pub(super) fn value(text: &[u8]) -> Result<String, JsonError> {
    Parser::new(text).all()
}

/// Returns the canonical form of the value at the beginning of a request, which ends with the
/// value; `None` if the text ends before the value does.
#[cfg_attr(not(feature = "commands"), expect(dead_code, reason = "only commands read requests"))]
pub(super) fn request(text: &[u8]) -> Result<Option<String>, JsonError> {
    let mut parser = Parser::of_dialect(text, Dialect::Request);
    match parser.value() {
        Ok(()) => Ok(Some(parser.out)),
        Err(_) if parser.ended => Ok(None),
        Err(error) => Err(error),
    }
}

/// What Kea reads apart from the JSON of RFC 8259.
#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    /// The user context of a recorded lease: a comma after the last item of a list, and other
    /// forms of numbers.
    Recorded,
    /// A request: comments, but no integer of more than 64 bits.
    Request,
}

/// Parses `text` and writes its canonical form to `out` at the same time.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    out: String,
    depth: usize,
    dialect: Dialect,
    /// Whether an error is due to the end of the text.
    ended: bool,
}

/// A member of a map: its key, and the position of `"key": value` in the output.
struct Member<'a> {
    key: Cow<'a, [u8]>,
    start: usize,
    end: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self::of_dialect(text, Dialect::Recorded)
    }

    fn of_dialect(text: &'a [u8], dialect: Dialect) -> Self {
        let out = String::with_capacity(text.len());
        let mut parser = Self { text, at: 0, out, depth: 0, dialect, ended: false };
        parser.blanks();
        parser
    }

    fn all(mut self) -> Result<String, JsonError> {
        self.value()?;
        self.blanks();
        if self.at < self.text.len() {
            return Err(self.error("text after the end"));
        }
        Ok(self.out)
    }

    fn error(&mut self, what: &'static str) -> JsonError {
        self.ended |= self.at >= self.text.len();
        JsonError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        loop {
            while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | 0x08 | 0x0c)) {
                self.at += 1;
            }
            let rest = self.text.get(self.at..).unwrap_or_default();
            match rest {
                _ if self.dialect != Dialect::Request => return,
                [b'#', ..] | [b'/', b'/', ..] => self.at += memchr(b'\n', rest).unwrap_or(rest.len()),
                [b'/', b'*', inner @ ..] => {
                    self.at += memmem::find(inner, b"*/").map_or(rest.len(), |len| len + "/**/".len());
                }
                _ => return,
            }
        }
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("maps and lists nested too deep")) } else { Ok(()) }
    }

    fn value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.map(),
            Some(b'[') => self.list(),
            Some(b'"') => {
                let bytes = self.string()?;
                write_string(&mut self.out, &bytes);
                Ok(())
            }
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'+' | b'-' | b'.' | b'0'..=b'9') => self.number(),
            _ => Err(self.error("expected a JSON value")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        if &rest[..len] != word.as_bytes() {
            self.ended |= len == rest.len() && word.as_bytes().starts_with(rest);
            return Err(self.error("expected true, false or null"));
        }
        self.at += len;
        self.out.push_str(word);
        Ok(())
    }

    fn map(&mut self) -> Result<(), JsonError> {
        self.enter()?;
        self.out.push_str("{ ");
        let first = self.out.len();
        let mut members: Vec<Member<'_>> = Vec::new();
        let mut in_order = true;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.blanks();
                if self.peek() != Some(b'"') {
                    return Err(self.error("expected a key in double quotes"));
                }
                let key = self.string()?;
                in_order &= members.last().is_none_or(|last| last.key < key);
                if !members.is_empty() {
                    self.out.push_str(", ");
                }
                let start = self.out.len();
                write_string(&mut self.out, &key);
                self.out.push_str(": ");
                self.blanks();
                if self.peek() != Some(b':') {
                    return Err(self.error("expected ':' after a key"));
                }
                self.at += 1;
                self.blanks();
                self.value()?;
                members.push(Member { key, start, end: self.out.len() });
                self.blanks();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.error("expected ',' or '}' after a member of a map")),
                }
            }
        }
        if !in_order {
            self.sort(first, members);
        }
        self.out.push_str(" }");
        self.depth -= 1;
        Ok(())
    }

    /// Sorts the members in the output from `first` on by their keys.
    fn sort(&mut self, first: usize, mut members: Vec<Member<'_>>) {
        let written = self.out.split_off(first);
        members.sort_by(|a, b| a.key.cmp(&b.key));
        let last_of_key =
            |i: usize, m: &Member<'_>| members.get(i + 1).is_none_or(|next: &Member<'_>| next.key != m.key);
        for (i, member) in members.iter().enumerate() {
            if !last_of_key(i, member) {
                continue;
            }
            if self.out.len() > first {
                self.out.push_str(", ");
            }
            self.out.push_str(&written[member.start - first..member.end - first]);
        }
    }

    fn list(&mut self) -> Result<(), JsonError> {
        self.enter()?;
        self.out.push_str("[ ");
        let mut first = true;
        loop {
            self.blanks();
            if self.peek() == Some(b']') {
                break;
            }
            if !first {
                self.out.push_str(", ");
            }
            first = false;
            self.value()?;
            self.blanks();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.blanks();
                    if self.dialect == Dialect::Request && self.peek() == Some(b']') {
                        return Err(self.error("expected an item after ','"));
                    }
                }
                Some(b']') => break,
                _ => return Err(self.error("expected ',' or ']' after an item of a list")),
            }
        }
        self.at += 1;
        self.out.push_str(" ]");
        self.depth -= 1;
        Ok(())
    }

    /// Parses the string that starts here, and returns its bytes.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, JsonError> {
        let start = self.at;
        let mut bytes = Cow::Borrowed(&[][..]);
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(len) = memchr2(b'"', b'\\', rest) else {
                self.at = start;
                self.ended = true;
                return Err(self.error("a string without a closing quote"));
            };
            self.at += len;
            if bytes.is_empty() {
                bytes = Cow::Borrowed(&rest[..len]);
            } else {
                bytes.to_mut().extend_from_slice(&rest[..len]);
            }
            if rest[len] == b'"' {
                self.at += 1;
                return Ok(bytes);
            }
            let escaped = self.escape()?;
            bytes.to_mut().push(escaped);
        }
    }

    fn escape(&mut self) -> Result<u8, JsonError> {
        let rest = &self.text[self.at..];
        match unescape(rest) {
            Ok((byte, len)) => {
                self.at += len;
                Ok(byte)
            }
            Err(what) => {
                let hex = |rest: &[u8]| rest.iter().all(u8::is_ascii_hexdigit);
                self.ended |= match rest {
                    [_] => true,
                    [_, b'u', rest @ ..] => rest.len() < 4 && hex(rest),
                    _ => false,
                };
                Err(self.error(what))
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let len =
            rest.iter().take_while(|b| matches!(b, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        let Some(number) = Number::parse(&rest[..len]) else {
            return Err(self.error("expected a number"));
        };
        if !number.in_range() {
            return Err(self.error("a number beyond the range of a double"));
        }
        if self.dialect == Dialect::Request && !number.is_of_request(&rest[..len]) {
            return Err(self.error("expected a number as in JSON, an integer of at most 64 bits"));
        }
        number.write(&mut self.out);
        self.at += len;
        Ok(())
    }
}

/// Returns the byte of the escape at the beginning of `text`, and the length of the escape; or an
/// error.
pub(super) fn unescape(text: &[u8]) -> Result<(u8, usize), &'static str> {
    let byte = match text.get(1) {
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'u') => {
            let byte = match text.get(2..6) {
                Some(&[b'0', b'0', high, low]) => hex_byte(high, low),
                _ => None,
            };
            return byte.map(|byte| (byte, 6)).ok_or("an escape other than \\u0000 to \\u00ff");
        }
        _ => return Err("an unknown escape"),
    };
    Ok((byte, 2))
}

/// A number, split into its parts.
struct Number<'a> {
    negative: bool,
    whole: &'a str,
    fraction: Option<&'a str>,
    exponent: Option<&'a str>,
}

impl<'a> Number<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let exponent_digits = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
        let good = digits(whole)
            && fraction.is_none_or(digits)
            && exponent_digits.is_none_or(|e| !e.is_empty() && digits(e))
            && !(whole.is_empty() && fraction.unwrap_or("").is_empty());
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            trimmed => trimmed,
        };
        good.then_some(Self { negative, whole, fraction, exponent })
    }

    /// Returns whether the number, which has this text, is written as in JSON, and an integer has
    /// at most 64 bits.
    fn is_of_request(&self, text: &[u8]) -> bool {
        let written = self.whole.len() + usize::from(self.negative);
        let is_json = text.len() >= written
            && text.get(usize::from(self.negative)..written) == Some(self.whole.as_bytes())
            && self.fraction.is_none_or(|fraction| !fraction.is_empty());
        let is_integer = self.fraction.is_none() && self.exponent.is_none();
        is_json && (!is_integer || std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok()))
    }

    fn in_range(&self) -> bool {
        // Below 10^308.
        if self.exponent.is_none() && self.whole.len() <= 308 {
            return true;
        }
        let mut text = String::new();
        self.write(&mut text);
        text.parse::<f64>().is_ok_and(f64::is_finite)
    }

    /// Writes the number as in JSON.
    fn write(&self, out: &mut String) {
        let integer = self.fraction.is_none() && self.exponent.is_none();
        if self.negative && !(integer && self.whole == "0") {
            out.push('-');
        }
        out.push_str(self.whole);
        if let Some(fraction) = self.fraction {
            out.push('.');
            out.push_str(if fraction.is_empty() { "0" } else { fraction });
        }
        if let Some(exponent) = self.exponent {
            out.push('e');
            out.push_str(exponent);
        }
    }
}

/// Appends `bytes` as a JSON string.
pub(crate) fn write_string(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    out.push('"');
    let mut rest = bytes;
    loop {
        let len = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
        // A run of plain bytes is ASCII, so this conversion never fails.
        out.push_str(std::str::from_utf8(&rest[..len]).unwrap_or_default());
        let Some((&byte, after)) = rest[len..].split_first() else {
            break;
        };
        rest = after;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                out.push_str("\\u00");
                out.push(HEX[usize::from(byte >> 4)].into());
                out.push(HEX[usize::from(byte & 15)].into());
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kea_json::Json;

    #[rstest]
    #[case::empty("{}", "{  }")]
    #[case::spacing("{\"a\":1,\"b\":[1,2]}", r#"{ "a": 1, "b": [ 1, 2 ] }"#)]
    #[case::keys_in_order(r#"{"b":1,"a":{"d":[],"c":{}}}"#, r#"{ "a": { "c": {  }, "d": [  ] }, "b": 1 }"#)]
    #[case::last_value_of_a_key(r#"{"a":1,"b":2,"a":3}"#, r#"{ "a": 3, "b": 2 }"#)]
    #[case::blanks("\t{ \"a\"\n:\r1 } ", r#"{ "a": 1 }"#)]
    #[case::comma_after_the_last_item(r#"{ "a": [ 1, ] }"#, r#"{ "a": [ 1 ] }"#)]
    #[case::words(r#"{"a":[true,false,null]}"#, r#"{ "a": [ true, false, null ] }"#)]
    #[case::escapes(r#"{"a":"\/\u0041\u00E9\u000a\u0022"}"#, r#"{ "a": "/A\u00e9\n\"" }"#)]
    #[case::bytes_outside_ascii("{\"a\":\"é\u{7f}\"}", r#"{ "a": "\u00c3\u00a9\u007f" }"#)]
    #[case::keys_are_escaped(r#"{"\"":1}"#, r#"{ "\"": 1 }"#)]
    #[case::integers(
        r#"{"a":[-0,+1,007,-01,9223372036854775808]}"#,
        r#"{ "a": [ 0, 1, 7, -1, 9223372036854775808 ] }"#
    )]
    #[case::numbers_keep_their_value(
        r#"{"a":[.5,1.,-.5,1.50,1e3,100000000.5,1E+5]}"#,
        r#"{ "a": [ 0.5, 1.0, -0.5, 1.50, 1e3, 100000000.5, 1e+5 ] }"#
    )]
    fn a_map_is_written_as_in_kea(#[case] text: &str, #[case] canonical: &str) {
        let map = Json::parse_map(text.as_bytes()).unwrap();
        assert_eq!(map.as_str(), canonical);
        assert_eq!(Json::parse_map(canonical.as_bytes()).unwrap(), map);
    }

    #[rstest]
    #[case("", 0)]
    #[case("[ 1 ]", 0)]
    #[case("null", 0)]
    #[case("{ a: 1 }", 2)]
    #[case("{ 'a': 1 }", 2)]
    #[case("{ \"a\": 1, }", 10)]
    #[case("{ \"a\" 1 }", 6)]
    #[case("{} x", 3)]
    #[case("{ \"a\": truex }", 7)]
    #[case("{ \"a\": True }", 7)]
    #[case("{ \"a\": \"x }", 7)]
    #[case("{ \"a\": \"\\u0100\" }", 8)]
    #[case("{ \"a\": \"\\x41\" }", 8)]
    #[case("{ \"a\": 1e400 }", 7)]
    #[case("{ \"a\": \"\\n\\n x }", 7)]
    #[case("{ \"a\": --1 }", 7)]
    #[case("{ \"a\": 1.2.3 }", 7)]
    #[case("{ \"a\": [,] }", 8)]
    fn an_invalid_map_is_refused_with_its_position(#[case] text: &str, #[case] at: usize) {
        assert_eq!(Json::parse_map(text.as_bytes()).unwrap_err().at, at, "{text}");
    }

    #[test]
    fn a_number_is_below_the_largest_double() {
        let number = |digits: String| Json::parse_map(format!("{{\"a\": {digits}.5}}").as_bytes());
        assert!(number("9".repeat(308)).is_ok());
        assert!(number(format!("1{}", "0".repeat(308))).is_ok());
        assert!(number("9".repeat(309)).is_err());
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse_map(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(Json::parse_map(nested(MAX_DEPTH).as_bytes()).is_err());
        assert!(Json::parse_map("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }
}
