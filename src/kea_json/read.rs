//! Reads values directly from canonical text, without building a tree.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use memchr::memchr2;

use super::parse::unescape;

/// A value in a user context or a [`Json`](super::Json), which is read from the text on access.
///
/// Only strings with escapes are allocated; values that are not accessed are only skipped. The
/// methods return `None` if the value has another type.
#[derive(Clone, Copy)]
pub struct JsonRef<'a> {
    /// Begins with the value, and extends to the end of the whole text: the end of the value is
    /// searched only when needed.
    text: &'a str,
}

impl<'a> JsonRef<'a> {
    /// Returns the value at the beginning of the canonical `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// Returns the text from the value to the end.
    pub(super) fn and_rest(self) -> &'a str {
        self.text
    }

    fn first(self) -> Option<u8> {
        self.text.bytes().next()
    }

    /// Returns the member of a map with this key. Keys are sorted, so the members after it are not
    /// read.
    #[must_use]
    pub fn get(self, key: impl AsRef<[u8]>) -> Option<Self> {
        let key = key.as_ref();
        for entry in Entries::members(self)? {
            match entry.cmp_key(key) {
                Ordering::Less => {}
                Ordering::Equal => return Some(entry.value),
                Ordering::Greater => break,
            }
        }
        None
    }

    /// Returns the members of a map: keys, as bytes, and values.
    #[must_use]
    pub fn as_map(self) -> Option<JsonMembers<'a>> {
        Entries::members(self).map(JsonMembers)
    }

    /// Returns the items of a list.
    #[must_use]
    pub fn as_list(self) -> Option<JsonItems<'a>> {
        Entries::items(self).map(JsonItems)
    }

    /// Returns the bytes of a string.
    #[must_use]
    pub fn as_bytes(self) -> Option<Cow<'a, [u8]>> {
        Quoted::new(self.text).map(Quoted::bytes)
    }

    /// Returns a number without fraction and exponent, if it is in range.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        self.number()?.parse().ok()
    }

    /// Returns a number without fraction and exponent, if it is in range.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        self.number()?.parse().ok()
    }

    /// Returns a number, as the nearest double.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        self.number()?.parse().ok()
    }

    /// Returns the text of a number.
    fn number(self) -> Option<&'a str> {
        matches!(self.first(), Some(b'-' | b'0'..=b'9')).then(|| self.as_json())
    }

    /// Returns `true` or `false`.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.first() {
            Some(b't') => Some(true),
            Some(b'f') => Some(false),
            _ => None,
        }
    }

    /// Returns whether the value is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.first() == Some(b'n')
    }

    /// Returns the text of the value.
    #[must_use]
    pub fn as_json(self) -> &'a str {
        self.text.get(..value_len(self.text.as_bytes())).unwrap_or(self.text)
    }
}

impl PartialEq for JsonRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for JsonRef<'_> {}

impl fmt::Display for JsonRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl fmt::Debug for JsonRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonRef({self})")
    }
}

/// The members of a map, in the order of their keys. See [`JsonRef::as_map`].
#[derive(Clone, Debug)]
pub struct JsonMembers<'a>(Entries<'a>);

impl<'a> Iterator for JsonMembers<'a> {
    type Item = (Cow<'a, [u8]>, JsonRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|entry| (entry.key(), entry.value))
    }
}

/// The items of a list. See [`JsonRef::as_list`].
#[derive(Clone, Debug)]
pub struct JsonItems<'a>(Entries<'a>);

impl<'a> Iterator for JsonItems<'a> {
    type Item = JsonRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|entry| entry.value)
    }
}

/// The entries of a map or a list.
#[derive(Clone, Debug)]
pub(super) struct Entries<'a> {
    /// Begins with the next entry or, if `inside`, with the value of the last one.
    text: &'a str,
    inside: bool,
    keys: bool,
}

/// An entry of a map or of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Begins with the key, in a list with the value, and extends to the end of the whole text.
    pub(super) text: &'a str,
    key: Quoted<'a>,
    pub(super) value: JsonRef<'a>,
}

impl<'a> Entry<'a> {
    /// Returns the key in a map; in a list, an empty one.
    pub(super) fn key(&self) -> Cow<'a, [u8]> {
        self.key.bytes()
    }

    /// Compares the key in a map with `key`.
    pub(super) fn cmp_key(&self, key: &[u8]) -> Ordering {
        if self.key.escaped { self.key().as_ref().cmp(key) } else { self.key.inner.cmp(key) }
    }
}

impl<'a> Entries<'a> {
    fn members(map: JsonRef<'a>) -> Option<Self> {
        let text = map.text.strip_prefix("{ ")?;
        Some(Self { text, inside: false, keys: true })
    }

    fn items(list: JsonRef<'a>) -> Option<Self> {
        let text = list.text.strip_prefix("[ ")?;
        Some(Self { text, inside: false, keys: false })
    }

    /// Returns the entries of a map (true) or of a list (false).
    pub(super) fn of(container: JsonRef<'a>) -> Option<(Self, bool)> {
        let entries = Self::members(container).or_else(|| Self::items(container))?;
        let keys = entries.keys;
        Some((entries, keys))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.inside {
            let len = value_len(self.text.as_bytes());
            self.text = self.text.get(len..).and_then(|rest| rest.strip_prefix(", ")).unwrap_or_default();
        }
        let text = self.text;
        let (key, value) = if self.keys {
            let key = Quoted::new(text)?;
            (key, text.get(key.len() + ": ".len()..)?)
        } else {
            (Quoted::default(), Some(text).filter(|text| !text.is_empty() && !text.starts_with(' '))?)
        };
        self.text = value;
        self.inside = true;
        Some(Entry { text, key, value: JsonRef { text: value } })
    }
}

/// The text between the quotes of a string.
#[derive(Clone, Copy, Debug, Default)]
struct Quoted<'a> {
    inner: &'a [u8],
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// Returns the string at the beginning of `text`.
    fn new(text: &'a str) -> Option<Self> {
        let rest = text.as_bytes().strip_prefix(b"\"")?;
        let (len, escaped) = inner_len(rest);
        Some(Self { inner: rest.get(..len)?, escaped })
    }

    /// Returns its length including the quotes.
    fn len(self) -> usize {
        self.inner.len() + 2
    }

    fn bytes(self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.inner);
        }
        let mut rest = self.inner;
        let mut bytes = Vec::with_capacity(rest.len());
        while let Some((&byte, after)) = rest.split_first() {
            let (byte, after) = match unescape(rest) {
                Ok((unescaped, len)) if byte == b'\\' => (unescaped, rest.get(len..).unwrap_or_default()),
                _ => (byte, after),
            };
            bytes.push(byte);
            rest = after;
        }
        Cow::Owned(bytes)
    }
}

/// Returns the length up to the quote that ends a string, and whether there are escapes before it.
fn inner_len(text: &[u8]) -> (usize, bool) {
    let mut escaped = false;
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(len) = find_stop(rest) else {
            return (text.len(), escaped);
        };
        at += len;
        if rest.get(len) == Some(&b'"') {
            return (at, escaped);
        }
        escaped = true;
        at += 2;
    }
}

/// Returns the position of the first quote or backslash.
fn find_stop(text: &[u8]) -> Option<usize> {
    // Most strings are too short for memchr to pay off.
    const SHORT: usize = 16;
    let (short, long) = text.split_at(text.len().min(SHORT));
    let is_stop = |byte: &u8| matches!(byte, b'"' | b'\\');
    short.iter().position(is_stop).or_else(|| memchr2(b'"', b'\\', long).map(|at| SHORT + at))
}

/// Returns the length of the string at the beginning of `text`, including the quotes.
fn string_len(text: &[u8]) -> usize {
    let rest = text.get(1..).unwrap_or_default();
    text.len().min(inner_len(rest).0 + 2)
}

/// Returns the length of the value at the beginning of `text`.
fn value_len(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => string_len(text),
        Some(b'{' | b'[') => container_len(text),
        _ => text.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(text.len()),
    }
}

/// Returns the length of the map or list at the beginning of `text`. Not recursive, so its stack is
/// bounded.
fn container_len(text: &[u8]) -> usize {
    let mut at = 0;
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += string_len(text.get(at..).unwrap_or_default()),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// Returns the nesting depth of maps and lists in `text`.
pub(super) fn depth(text: &str) -> usize {
    let text = text.as_bytes();
    let (mut at, mut depth, mut deepest) = (0, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += string_len(text.get(at..).unwrap_or_default());
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        at += 1;
    }
    deepest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;

    use super::super::tests::json;
    use super::*;
    use crate::kea_json::Json;

    fn map(text: &str) -> Json {
        Json::parse_map(text.as_bytes()).unwrap()
    }

    const ALL_KINDS: &str = r#"{ "b": [ ], "c": { "}": "]", "x": "\"}" }, "d": "a\u00e9\n", "e": -5, "f": true,
        "g": false, "h": null, "i": 18446744073709551615, "j": 1.5, "k": "12", "l": [ [ 1, [ 2 ] ], "[", 3 ] }"#;

    #[rstest]
    #[case("b", "[  ]")]
    #[case("c", r#"{ "x": "\"}", "}": "]" }"#)]
    #[case("d", r#""a\u00e9\n""#)]
    #[case("e", "-5")]
    #[case("h", "null")]
    #[case("j", "1.5")]
    #[case("l", r#"[ [ 1, [ 2 ] ], "[", 3 ]"#)]
    fn a_member_is_found_after_all_kinds_of_members(#[case] key: &str, #[case] text: &str) {
        assert_eq!(map(ALL_KINDS).root().get(key).unwrap().as_json(), text);
    }

    #[rstest]
    #[case::before_the_first("a")]
    #[case::between("bb")]
    #[case::after_the_last("m")]
    #[case::of_an_inner_map("x")]
    #[case::a_value("12")]
    #[case::empty("")]
    fn a_missing_key_is_not_found(#[case] key: &str) {
        assert_eq!(map(ALL_KINDS).root().get(key), None);
    }

    #[test]
    fn a_value_has_one_type() {
        let map = map(ALL_KINDS);
        let ints = |key| map.root().get(key).map(|v| (v.as_u64(), v.as_i64()));
        assert_eq!(ints("e"), Some((None, Some(-5))));
        assert_eq!(ints("i"), Some((Some(u64::MAX), None)));
        for other in ["b", "c", "d", "f", "h", "j", "k"] {
            assert_eq!(ints(other), Some((None, None)), "{other}");
        }
        let value = |key| map.root().get(key).unwrap();
        assert_eq!((value("j").as_f64(), value("k").as_f64()), (Some(1.5), None));
        assert_eq!((value("f").as_bool(), value("g").as_bool()), (Some(true), Some(false)));
        assert_eq!((value("h").as_bool(), value("h").is_null(), value("e").is_null()), (None, true, false));
        assert_eq!(value("d").as_bytes().as_deref(), Some(&b"a\xe9\n"[..]));
        assert_eq!((value("b").as_bytes(), value("e").as_bytes()), (None, None));
        assert!(value("b").as_map().is_none() && value("c").as_list().is_none());
        assert!(value("b").as_list().is_some_and(|mut items| items.next().is_none()));
        assert_eq!(value("l").get("x"), None);
    }

    #[test]
    fn keys_and_strings_without_escapes_are_borrowed() {
        let map = map(r#"{ "a": "plain", "\u00e9": "\u00e9" }"#);
        let members: Vec<_> = map.root().as_map().unwrap().collect();
        assert!(
            matches!(&members[0], (Cow::Borrowed(b"a"), value) if matches!(value.as_bytes(), Some(Cow::Borrowed(b"plain"))))
        );
        assert_eq!((&*members[1].0, members[1].1.as_bytes().as_deref()), (&b"\xe9"[..], Some(&b"\xe9"[..])));
        assert_eq!(map.root().get([0xe9]).map(JsonRef::as_json), Some(r#""\u00e9""#));
    }

    /// Compares two values recursively.
    fn assert_same(value: JsonRef<'_>, expected: &Value) {
        let characters = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
        assert_eq!(&serde_json::from_str::<Value>(value.as_json()).unwrap(), expected);
        assert_eq!(value.as_u64(), expected.as_u64());
        assert_eq!(value.as_i64(), expected.as_i64());
        assert_eq!(value.as_f64().is_some(), expected.is_number());
        assert_eq!(value.as_bool(), expected.as_bool());
        assert_eq!(value.is_null(), expected.is_null());
        assert_eq!(value.as_bytes().map(|bytes| characters(&bytes)).as_deref(), expected.as_str());
        let items = value.as_list().map(Iterator::collect::<Vec<_>>);
        assert_eq!(items.as_ref().map(Vec::len), expected.as_array().map(Vec::len));
        for (item, expected) in items.iter().flatten().zip(expected.as_array().into_iter().flatten()) {
            assert_same(*item, expected);
        }
        let members = value.as_map().map(Iterator::collect::<Vec<_>>);
        assert_eq!(members.as_ref().map(Vec::len), expected.as_object().map(serde_json::Map::len));
        for (key, member) in members.into_iter().flatten() {
            assert_eq!(value.get(&key), Some(member));
            assert_same(member, &expected[characters(&key)]);
        }
    }

    proptest! {
        #[test]
        fn values_equal_those_of_serde_json(value in json(), others in prop::collection::vec("\\PC{0,3}", 4)) {
            let map = Json::parse_map(format!("{{\"root\": {value}}}").as_bytes()).unwrap();
            let expected: Value = serde_json::from_str(map.as_str()).unwrap();
            assert_same(map.root(), &expected);
            let inner = map.root().get("root").unwrap();
            for other in others {
                let key: String = other.bytes().map(char::from).collect();
                prop_assert_eq!(inner.get(&other).is_some(), expected["root"].get(key).is_some());
            }
        }

        #[test]
        fn reading_any_text_does_not_panic(text in r#"([{\[]|[{\[] |[}\]]|"|\\|\\u00|: |, |[a-z0-9é ]){0,40}"#) {
            let mut open = vec![JsonRef::new(&text)];
            while let Some(value) = open.pop() {
                let _ = (value.as_json(), value.as_bytes(), value.as_u64(), value.as_f64(), value.get("a"));
                open.extend(value.as_map().into_iter().flatten().map(|(_, value)| value));
                open.extend(value.as_list().into_iter().flatten());
            }
            let _ = depth(&text);
        }
    }
}
