//! Owned JSON values, and changes of them by cutting and joining canonical text.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use super::parse::{self, MAX_DEPTH, write_string};
use super::read::{Entries, Entry, depth};
use super::{JsonError, JsonRef};

/// An owned JSON value in canonical form, to be added to a user context.
///
/// ```
/// use leasemgr::lease::Json;
///
/// assert_eq!(Json::from("a\tb").root().as_json(), r#""a\tb""#);
/// assert_eq!(Json::parse(b"[1,2]")?.root().as_json(), "[ 1, 2 ]");
/// # Ok::<(), leasemgr::lease::JsonError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json(Box<str>);

impl Json {
    /// Parses a JSON value. If a key occurs several times, its last value is used.
    ///
    /// Kea's extensions to JSON are accepted: form feeds and backspaces as blanks, a comma after
    /// the last item of a list, and numbers such as `+1`, `007`, `.5` and `1.`, which are then
    /// written as in JSON. The value of a number is never changed.
    ///
    /// # Errors
    /// Returns [`JsonError`] if the text is not JSON, if a `\u` escape is not `\u00XX` (strings in
    /// Kea consist of bytes), if a number is beyond the range of a double, or if maps and lists are
    /// nested more than 1000 levels deep.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        parse::value(text).map(|text| Self(text.into_boxed_str()))
    }

    /// Parses a JSON map.
    ///
    /// # Errors
    /// Returns [`JsonError`] if the value is not a map, and the errors of [`Json::parse`].
    pub fn parse_map(text: &[u8]) -> Result<Self, JsonError> {
        parse::map(text).map(|text| Self(text.into_boxed_str()))
    }

    /// Parses the value at the beginning of a request to a server, and ignores what follows it;
    /// `None` if the text ends before the value does.
    ///
    /// There may be comments (`#` and `//` up to the end of the line, `/* */`). Numbers are written
    /// as in JSON, and integers have at most 64 bits.
    #[cfg(feature = "commands")]
    pub(crate) fn parse_request(text: &[u8]) -> Result<Option<Self>, JsonError> {
        Ok(parse::request(text)?.map(|text| Self(text.into_boxed_str())))
    }

    /// Creates a map. Of several members with the same key, the last one is kept.
    ///
    /// ```
    /// use leasemgr::lease::Json;
    ///
    /// let map = Json::map([("pid", Json::from(7)), ("names", ["a", "b"].map(Json::from).into_iter().collect())]);
    /// assert_eq!(map.as_str(), r#"{ "names": [ "a", "b" ], "pid": 7 }"#);
    /// ```
    pub fn map<K: AsRef<[u8]>>(members: impl IntoIterator<Item = (K, Json)>) -> Self {
        let members = members.into_iter().map(|(key, value)| (key.as_ref().to_vec(), value));
        let mut out = String::from("{ ");
        for (i, (key, value)) in members.collect::<BTreeMap<_, _>>().iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push_str(&member(key, &[] as &[&str], value.as_str()));
        }
        out.push_str(" }");
        Self(out.into_boxed_str())
    }

    /// Creates a value from canonical text.
    pub(crate) fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the empty map.
    #[must_use]
    pub fn empty_map() -> Self {
        Self("{  }".into())
    }

    /// Returns the JSON text, in printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value.
    #[must_use]
    pub fn root(&self) -> JsonRef<'_> {
        JsonRef::new(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({self})")
    }
}

/// Creates a string from bytes.
impl From<&[u8]> for Json {
    fn from(bytes: &[u8]) -> Self {
        let mut out = String::with_capacity(bytes.len() + 2);
        write_string(&mut out, bytes);
        Self(out.into_boxed_str())
    }
}

/// Creates a string from UTF-8 bytes.
impl From<&str> for Json {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// Creates a list.
impl FromIterator<Json> for Json {
    fn from_iter<I: IntoIterator<Item = Json>>(items: I) -> Self {
        let mut out = String::from("[ ");
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push_str(item.as_str());
        }
        out.push_str(" ]");
        Self(out.into_boxed_str())
    }
}

macro_rules! as_displayed {
    ($($inner:ty),*) => {
        $(impl From<$inner> for Json {
            fn from(value: $inner) -> Self {
                Self(value.to_string().into_boxed_str())
            }
        })*
    };
}
as_displayed!(bool, i32, i64, u32, u64, u128);

impl From<JsonRef<'_>> for Json {
    fn from(value: JsonRef<'_>) -> Self {
        Self(value.as_json().into())
    }
}

impl Json {
    /// Returns the value with `value` at `path`, the keys from the outermost map inwards. Replaces
    /// an existing value, and creates missing maps. In a list, a key is the index of an existing
    /// item, from 0, as in a JSON Pointer (RFC 6901).
    ///
    /// # Errors
    /// Returns [`JsonError`] if the path leads through a value that is neither map nor list or to
    /// an item that a list does not have, or if maps and lists would be nested more than 1000
    /// levels deep.
    pub fn with<K: AsRef<[u8]>>(&self, path: &[K], value: impl Into<Json>) -> Result<Self, JsonError> {
        let Json(value) = value.into();
        let mut here = self.root();
        let mut path = path.iter();
        while let Some(key) = path.next() {
            match place(here, key.as_ref()) {
                Ok(Place::Entry { entry, .. }) => here = entry.value,
                Ok(Place::Gap { rest, before, after }) => {
                    let member = format!("{before}{}{after}", member(key, path.as_slice(), &value));
                    return self.spliced(rest, 0, &member);
                }
                Err(what) => return Err(JsonError { at: self.offset(here.and_rest()), what }),
            }
        }
        self.spliced(here.and_rest(), here.as_json().len(), &value)
    }

    /// Returns the value without the value at `path`, which is as in [`Json::with`]; unchanged if
    /// there is none.
    #[must_use]
    pub fn without<K: AsRef<[u8]>>(&self, path: &[K]) -> Self {
        let mut here = self.root();
        let mut removed = None;
        for key in path {
            let Ok(Place::Entry { entry, last }) = place(here, key.as_ref()) else {
                return self.clone();
            };
            here = entry.value;
            removed = Some((entry, last));
        }
        let Some((entry, last)) = removed else {
            return self.clone();
        };
        let mut start = self.offset(entry.text);
        let mut end = self.offset(entry.value.and_rest()) + entry.value.as_json().len();
        // With the comma after it or, for the last one of several, the comma before it.
        if self.0.get(end..).is_some_and(|rest| rest.starts_with(", ")) {
            end += 2;
        } else if let Some(last) = last {
            start = self.offset(last.value.and_rest()) + last.value.as_json().len();
        }
        Self(joined(&self.0, start, "", end))
    }

    /// Returns the offset of `rest`, which extends to the end of the text.
    fn offset(&self, rest: &str) -> usize {
        self.0.len().saturating_sub(rest.len())
    }

    /// Replaces the first `len` bytes of `rest` by `text`.
    fn spliced(&self, rest: &str, len: usize, text: &str) -> Result<Self, JsonError> {
        let start = self.offset(rest);
        let spliced = joined(&self.0, start, text, start + len);
        if depth(&spliced) > MAX_DEPTH {
            return Err(JsonError { at: start, what: "maps and lists nested too deep" });
        }
        Ok(Self(spliced))
    }
}

/// The position of a key in a map or list.
enum Place<'a> {
    /// This entry, which follows `last`.
    Entry { entry: Entry<'a>, last: Option<Entry<'a>> },
    /// In a map, no entry yet: a new member is inserted before `rest`, between `before` and
    /// `after`.
    Gap { rest: &'a str, before: &'static str, after: &'static str },
}

/// Returns the position of `key` in `container`, or an error.
fn place<'a>(container: JsonRef<'a>, key: &[u8]) -> Result<Place<'a>, &'static str> {
    let Some((entries, is_map)) = Entries::of(container) else {
        return Err("expected a map or a list");
    };
    let mut last: Option<Entry<'a>> = None;
    for (i, entry) in entries.enumerate() {
        if is_map {
            match entry.cmp_key(key) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(Place::Entry { entry, last }),
                Ordering::Greater => return Ok(Place::Gap { rest: entry.text, before: "", after: ", " }),
            }
        } else if i.to_string().as_bytes() == key {
            return Ok(Place::Entry { entry, last });
        }
        last = Some(entry);
    }
    if !is_map {
        return Err("expected a list with such an item");
    }
    Ok(match last {
        Some(last) => {
            let value = last.value.and_rest();
            let rest = value.get(last.value.as_json().len()..).unwrap_or_default();
            Place::Gap { rest, before: ", ", after: "" }
        }
        None => {
            let rest = container.and_rest().get("{ ".len()..).unwrap_or_default();
            Place::Gap { rest, before: "", after: "" }
        }
    })
}

/// Returns a member `key` with `value`, or with nested maps for the rest of `path`.
fn member(key: &impl AsRef<[u8]>, path: &[impl AsRef<[u8]>], value: &str) -> String {
    let mut out = String::new();
    write_string(&mut out, key.as_ref());
    out.push_str(": ");
    for key in path {
        out.push_str("{ ");
        write_string(&mut out, key.as_ref());
        out.push_str(": ");
    }
    out.push_str(value);
    out.push_str(&" }".repeat(path.len()));
    out
}

/// Returns `whole` with `text` in place of the bytes from `start` to `end`.
fn joined(whole: &str, start: usize, text: &str, end: usize) -> Box<str> {
    let head = whole.get(..start).unwrap_or_default();
    let tail = whole.get(end..).unwrap_or_default();
    [head, text, tail].concat().into_boxed_str()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::Value;

    use super::super::tests::json;
    use super::*;

    fn map(text: &str) -> Json {
        Json::parse_map(text.as_bytes()).unwrap()
    }

    #[rstest]
    #[case::into_the_empty_map("{}", &["a"], r#"{ "a": 7 }"#)]
    #[case::before(r#"{ "b": 1 }"#, &["a"], r#"{ "a": 7, "b": 1 }"#)]
    #[case::between(r#"{ "a": 1, "c": 2 }"#, &["b"], r#"{ "a": 1, "b": 7, "c": 2 }"#)]
    #[case::after(r#"{ "a": { "x": 1 } }"#, &["b"], r#"{ "a": { "x": 1 }, "b": 7 }"#)]
    #[case::replaces_a_value(r#"{ "a": [ 1, "]" ], "b": 1 }"#, &["a"], r#"{ "a": 7, "b": 1 }"#)]
    #[case::in_an_inner_map(r#"{ "a": { "x": 1 }, "b": 1 }"#, &["a", "y"], r#"{ "a": { "x": 1, "y": 7 }, "b": 1 }"#)]
    #[case::in_an_empty_inner_map(r#"{ "a": {} }"#, &["a", "y"], r#"{ "a": { "y": 7 } }"#)]
    #[case::creates_maps("{}", &["a", "b", "c"], r#"{ "a": { "b": { "c": 7 } } }"#)]
    #[case::in_an_item_of_a_list(r#"{ "a": [ {}, { "b": 1 } ] }"#, &["a", "1", "c"], r#"{ "a": [ {  }, { "b": 1, "c": 7 } ] }"#)]
    #[case::replaces_an_item(r#"{ "a": [ 1, 2 ] }"#, &["a", "1"], r#"{ "a": [ 1, 7 ] }"#)]
    #[case::a_key_with_escapes("{}", &["\"\u{e9}"], r#"{ "\"\u00c3\u00a9": 7 }"#)]
    fn a_value_is_set_at_its_path(#[case] before: &str, #[case] path: &[&str], #[case] after: &str) {
        assert_eq!(map(before).with(path, 7).unwrap().as_str(), after);
    }

    #[rstest]
    #[case::through_a_number(&["a", "b"], "1, ", "expected a map or a list")]
    #[case::through_a_string(&["c", "b"], "\"\", ", "expected a map or a list")]
    #[case::after_the_end_of_a_list(&["l", "2"], "[ ", "expected a list with such an item")]
    #[case::a_word_in_a_list(&["l", "x"], "[ ", "expected a list with such an item")]
    #[case::a_number_with_a_leading_zero(&["l", "01"], "[ ", "expected a list with such an item")]
    fn an_invalid_path_is_refused_where_it_ends(
        #[case] path: &[&str],
        #[case] there: &str,
        #[case] what: &str,
    ) {
        let map = map(r#"{ "a": 1, "b": {}, "c": "", "l": [ 1, 2 ] }"#);
        let error = map.with(path, 7).unwrap_err();
        assert_eq!(error.what, what);
        assert!(map.as_str()[error.at..].starts_with(there), "{error}");
        assert_eq!(map.without(path), map);
    }

    #[test]
    fn the_path_without_keys_is_the_whole_value() {
        let before = map(r#"{ "a": 1 }"#);
        let none: [&str; 0] = [];
        assert_eq!(before.with(&none, 7).unwrap().as_str(), "7");
        assert_eq!(before.without(&none), before);
    }

    #[rstest]
    #[case::the_only_one(r#"{ "a": 1 }"#, &["a"], "{  }")]
    #[case::the_first(r#"{ "a": 1, "b": 2 }"#, &["a"], r#"{ "b": 2 }"#)]
    #[case::in_the_middle(r#"{ "a": 1, "b": 2, "c": 3 }"#, &["b"], r#"{ "a": 1, "c": 3 }"#)]
    #[case::the_last(r#"{ "a": 1, "b": 2 }"#, &["b"], r#"{ "a": 1 }"#)]
    #[case::inside(r#"{ "a": { "x": 1 }, "b": 2 }"#, &["a", "x"], r#"{ "a": {  }, "b": 2 }"#)]
    #[case::an_item(r#"{ "a": [ 1, 2 ] }"#, &["a", "1"], r#"{ "a": [ 1 ] }"#)]
    #[case::nothing(r#"{ "a": 1 }"#, &["b"], r#"{ "a": 1 }"#)]
    fn a_value_is_removed(#[case] before: &str, #[case] path: &[&str], #[case] after: &str) {
        assert_eq!(map(before).without(path).as_str(), after);
    }

    #[test]
    fn nesting_is_limited_in_changes() {
        let path = |keys: usize| vec!["a"; keys];
        let empty = Json::empty_map();
        let deepest = empty.with(&path(MAX_DEPTH), 7).unwrap();
        assert_eq!(map(deepest.as_str()), deepest);
        assert!(empty.with(&path(MAX_DEPTH + 1), 7).is_err());
        assert!(empty.with(&path(MAX_DEPTH), Json::empty_map()).is_err());
        assert!(deepest.with(&path(MAX_DEPTH), Json::from("[[")).is_ok());
    }

    #[rstest]
    #[case(Json::from("\u{1}\"é"), r#""\u0001\"\u00c3\u00a9""#)]
    #[case(Json::from(&b"\xff"[..]), r#""\u00ff""#)]
    #[case(Json::from(-1), "-1")]
    #[case(Json::from(u64::MAX), "18446744073709551615")]
    #[case(Json::from(true), "true")]
    #[case(Json::from(map(r#"{ "a": [ 1 ] }"#).root().get("a").unwrap()), "[ 1 ]")]
    #[case(Json::parse(b" [1,{\"b\":2,\"a\":1}] ").unwrap(), r#"[ 1, { "a": 1, "b": 2 } ]"#)]
    fn an_owned_value_is_canonical(#[case] value: Json, #[case] text: &str) {
        assert_eq!(value.root().as_json(), text);
        assert_eq!(Json::parse(text.as_bytes()).unwrap(), value);
    }

    proptest! {
        #[test]
        fn changes_equal_those_of_serde_json(
            before in json(),
            value in json(),
            path in prop::collection::vec(prop_oneof!["[a-c]{0,2}", "[0-6]"], 0..5),
        ) {
            let before = Json::parse_map(format!("{{\"a\": {before}}}").as_bytes()).unwrap();
            let value = Json::parse(value.as_bytes()).unwrap();
            let path: Vec<&str> = std::iter::once("a").chain(path.iter().map(String::as_str)).collect();
            let canonical = |value: &Value| {
                // The characters of serde_json's strings are bytes here.
                let bytes: Vec<u8> = value.to_string().chars().map(|c| u8::try_from(c).unwrap()).collect();
                Json::parse_map(&bytes).unwrap()
            };
            let read = |map: &Json| serde_json::from_str::<Value>(map.as_str()).unwrap();

            let mut expected = read(&before);
            let put = put(&mut expected, &path, serde_json::from_str(value.root().as_json()).unwrap());
            match before.with(&path, value) {
                Ok(after) => {
                    prop_assert!(put);
                    prop_assert_eq!(&read(&after), &expected);
                    prop_assert_eq!(&Json::parse_map(after.as_str().as_bytes()).unwrap(), &after);
                }
                Err(_) => prop_assert!(!put),
            }

            let mut expected = read(&before);
            take(&mut expected, &path);
            let after = before.without(&path);
            prop_assert_eq!(canonical(&read(&after)), canonical(&expected));
            prop_assert_eq!(&Json::parse_map(after.as_str().as_bytes()).unwrap(), &after);
        }
    }

    /// Sets `value` at `path`, and returns whether that was possible.
    fn put(mut here: &mut Value, path: &[&str], value: Value) -> bool {
        for key in path {
            here = match here {
                Value::Object(members) => {
                    members.entry(*key).or_insert_with(|| Value::Object(Default::default()))
                }
                Value::Array(items) => match key.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
                    Some(item) => item,
                    None => return false,
                },
                _ => return false,
            };
        }
        *here = value;
        true
    }

    fn take(here: &mut Value, path: &[&str]) {
        let (key, outer) = path.split_last().unwrap();
        match here.pointer_mut(&outer.iter().map(|key| format!("/{key}")).collect::<String>()) {
            Some(Value::Object(members)) => drop(members.remove(*key)),
            Some(Value::Array(items)) => {
                if let Some(i) = key.parse().ok().filter(|i| *i < items.len()) {
                    items.remove(i);
                }
            }
            _ => {}
        }
    }
}
