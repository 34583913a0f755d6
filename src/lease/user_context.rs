//! The JSON map that servers and hooks attach to a lease.

use std::fmt;

use super::octets::hex_byte;

/// How deep maps and lists may be nested in a user context.
pub(crate) const MAX_DEPTH: usize = 1000;

/// Why a text is no user context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user context: {what} at byte {at}")]
pub struct UserContextError {
    /// Byte of the (unescaped) text, counted from 0.
    pub at: usize,
    what: &'static str,
}

/// A JSON map in the spelling that Kea gives it: keys in order, `{ "a": 1, "b": [ 1, 2 ] }`.
///
/// Kea's strings are bytes. Those outside printable ASCII are written as `\u00XX`, one for each
/// byte, so that the text itself is printable ASCII.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserContext(Box<str>);

impl UserContext {
    /// Reads a JSON map. Where a key stands twice, the last one counts.
    ///
    /// Beyond JSON, what Kea's own reader takes is taken: form feeds and backspaces as blanks, a
    /// comma behind the last item of a list, and numbers such as `+1`, `007`, `.5` and `1.`, which
    /// are then written as JSON has them. The value of a number is never changed.
    ///
    /// # Errors
    /// [`UserContextError`] where the text is no JSON map, where a `\u` escape is not `\u00XX`
    /// (Kea has no strings beyond bytes), where a number is beyond the range of a double, and
    /// where maps and lists are nested more than 1000 deep.
    pub fn parse(text: &[u8]) -> Result<Self, UserContextError> {
        let mut parser = Parser { text, at: 0, out: Vec::with_capacity(text.len() + 16), depth: 0 };
        parser.blanks();
        if parser.peek() != Some(b'{') {
            return Err(parser.error("expected a JSON map"));
        }
        parser.map()?;
        parser.blanks();
        if parser.at < text.len() {
            return Err(parser.error("text behind the map"));
        }
        match String::from_utf8(parser.out) {
            Ok(text) => Ok(Self(text.into_boxed_str())),
            Err(_) => Err(UserContextError { at: 0, what: "a byte outside ASCII was left over" }),
        }
    }

    /// The JSON text, printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserContext({})", self.0)
    }
}

/// Reads `text` and writes its canonical spelling to `out` as it goes.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
    depth: usize,
}

/// One member of a map: its key, and where `"key": value` stands in the output.
struct Member {
    key: Vec<u8>,
    start: usize,
    end: usize,
}

impl Parser<'_> {
    fn error(&self, what: &'static str) -> UserContextError {
        UserContextError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r' | 0x08 | 0x0c)) {
            self.at += 1;
        }
    }

    fn enter(&mut self) -> Result<(), UserContextError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("maps and lists nested too deep")) } else { Ok(()) }
    }

    fn value(&mut self) -> Result<(), UserContextError> {
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

    fn word(&mut self, word: &'static str) -> Result<(), UserContextError> {
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        if &rest[..len] != word.as_bytes() {
            return Err(self.error("expected true, false or null"));
        }
        self.at += len;
        self.out.extend_from_slice(word.as_bytes());
        Ok(())
    }

    fn map(&mut self) -> Result<(), UserContextError> {
        self.enter()?;
        self.out.extend_from_slice(b"{ ");
        let first = self.out.len();
        let mut members: Vec<Member> = Vec::new();
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
                    self.out.extend_from_slice(b", ");
                }
                let start = self.out.len();
                write_string(&mut self.out, &key);
                self.out.extend_from_slice(b": ");
                self.blanks();
                if self.peek() != Some(b':') {
                    return Err(self.error("expected ':' behind a key"));
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
                    _ => return Err(self.error("expected ',' or '}' behind a member of a map")),
                }
            }
        }
        if !in_order {
            self.sort(first, members);
        }
        self.out.extend_from_slice(b" }");
        self.depth -= 1;
        Ok(())
    }

    /// Puts the members that stand in the output from `first` on in the order of their keys.
    fn sort(&mut self, first: usize, mut members: Vec<Member>) {
        let written = self.out.split_off(first);
        members.sort_by(|a, b| a.key.cmp(&b.key));
        let last_of_key =
            |i: usize, m: &Member| members.get(i + 1).is_none_or(|next: &Member| next.key != m.key);
        for (i, member) in members.iter().enumerate() {
            if !last_of_key(i, member) {
                continue;
            }
            if self.out.len() > first {
                self.out.extend_from_slice(b", ");
            }
            self.out.extend_from_slice(&written[member.start - first..member.end - first]);
        }
    }

    fn list(&mut self) -> Result<(), UserContextError> {
        self.enter()?;
        self.out.extend_from_slice(b"[ ");
        let mut first = true;
        loop {
            self.blanks();
            if self.peek() == Some(b']') {
                break;
            }
            if !first {
                self.out.extend_from_slice(b", ");
            }
            first = false;
            self.value()?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("expected ',' or ']' behind an item of a list")),
            }
        }
        self.at += 1;
        self.out.extend_from_slice(b" ]");
        self.depth -= 1;
        Ok(())
    }

    /// The bytes of the string that starts here.
    fn string(&mut self) -> Result<Vec<u8>, UserContextError> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                None => {
                    self.at = start;
                    return Err(self.error("a string without its end"));
                }
                Some(b'"') => {
                    self.at += 1;
                    return Ok(bytes);
                }
                Some(b'\\') => bytes.push(self.escape()?),
                Some(byte) => {
                    self.at += 1;
                    bytes.push(byte);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<u8, UserContextError> {
        let byte = match self.text.get(self.at + 1) {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                let byte = match digits {
                    Some(&[b'0', b'0', high, low]) => hex_byte(high, low),
                    _ => None,
                };
                let Some(byte) = byte else {
                    return Err(self.error("an escape other than \\u0000 to \\u00ff"));
                };
                self.at += 6;
                return Ok(byte);
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 2;
        Ok(byte)
    }

    fn number(&mut self) -> Result<(), UserContextError> {
        let rest = &self.text[self.at..];
        let len =
            rest.iter().take_while(|b| matches!(b, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        let Some(number) = Number::parse(&rest[..len]) else {
            return Err(self.error("expected a number"));
        };
        if !number.in_range() {
            return Err(self.error("a number beyond the range of a double"));
        }
        number.write(&mut self.out);
        self.at += len;
        Ok(())
    }
}

/// A number, split where its parts are.
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

    fn in_range(&self) -> bool {
        let mut text = Vec::new();
        self.write(&mut text);
        std::str::from_utf8(&text).ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
    }

    /// As JSON spells it.
    fn write(&self, out: &mut Vec<u8>) {
        let integer = self.fraction.is_none() && self.exponent.is_none();
        if self.negative && !(integer && self.whole == "0") {
            out.push(b'-');
        }
        out.extend_from_slice(self.whole.as_bytes());
        if let Some(fraction) = self.fraction {
            out.push(b'.');
            out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction.as_bytes() });
        }
        if let Some(exponent) = self.exponent {
            out.push(b'e');
            out.extend_from_slice(exponent.as_bytes());
        }
    }
}

fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x20..=0x7e => out.push(byte),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty("{}", "{  }")]
    #[case::spacing("{\"a\":1,\"b\":[1,2]}", r#"{ "a": 1, "b": [ 1, 2 ] }"#)]
    #[case::keys_in_order(r#"{"b":1,"a":{"d":[],"c":{}}}"#, r#"{ "a": { "c": {  }, "d": [  ] }, "b": 1 }"#)]
    #[case::the_last_of_a_key_counts(r#"{"a":1,"b":2,"a":3}"#, r#"{ "a": 3, "b": 2 }"#)]
    #[case::blanks("\t{ \"a\"\n:\r1 } ", r#"{ "a": 1 }"#)]
    #[case::comma_behind_the_last_item(r#"{ "a": [ 1, ] }"#, r#"{ "a": [ 1 ] }"#)]
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
    fn a_map_is_spelled_as_kea_spells_it(#[case] text: &str, #[case] canonical: &str) {
        let context = UserContext::parse(text.as_bytes()).unwrap();
        assert_eq!(context.as_str(), canonical);
        assert_eq!(UserContext::parse(canonical.as_bytes()).unwrap(), context);
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
    #[case("{ \"a\": --1 }", 7)]
    #[case("{ \"a\": 1.2.3 }", 7)]
    #[case("{ \"a\": [,] }", 8)]
    fn what_is_no_map_is_refused_where_it_goes_wrong(#[case] text: &str, #[case] at: usize) {
        assert_eq!(UserContext::parse(text.as_bytes()).unwrap_err().at, at, "{text}");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(UserContext::parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(UserContext::parse(nested(MAX_DEPTH).as_bytes()).is_err());
        assert!(UserContext::parse("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }
}
