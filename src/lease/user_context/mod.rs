//! The JSON map that servers and hooks attach to a lease.

mod edit;
mod parse;
mod read;

use std::fmt;

pub use edit::Json;
pub use read::{JsonItems, JsonMembers, JsonRef};

/// Why a text is no user context, or a change of one is impossible.
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
///
/// ```
/// use leasemgr::lease::UserContext;
///
/// let context = UserContext::parse(br#"{ "ISC": { "client-classes": [ "ALL", "voip" ] }, "rack": 12 }"#)?;
/// assert_eq!(context.get("rack").and_then(|rack| rack.as_u64()), Some(12));
///
/// let classes = context.get("ISC").and_then(|isc| isc.get("client-classes")).unwrap();
/// assert_eq!(classes.as_list().unwrap().nth(1).unwrap().as_bytes().unwrap(), "voip".as_bytes());
///
/// let moved = context.with(&["rack"], 13)?.with(&["site", "name"], "west")?;
/// assert_eq!(
///     moved.as_str(),
///     r#"{ "ISC": { "client-classes": [ "ALL", "voip" ] }, "rack": 13, "site": { "name": "west" } }"#
/// );
/// # Ok::<(), leasemgr::lease::UserContextError>(())
/// ```
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
        parse::map(text).map(|text| Self(text.into_boxed_str()))
    }

    /// A user context of a text that was one before.
    pub(crate) fn from_stored(text: &[u8]) -> Self {
        Self(std::str::from_utf8(text).unwrap_or_default().into())
    }

    /// The JSON text, printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole map.
    #[must_use]
    pub fn root(&self) -> JsonRef<'_> {
        JsonRef::new(&self.0)
    }

    /// The member with this key.
    #[must_use]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<JsonRef<'_>> {
        self.root().get(key)
    }
}

/// The empty map.
impl Default for UserContext {
    fn default() -> Self {
        Self("{  }".into())
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

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::parse::write_string;

    /// Any JSON value, not in canonical spelling, nested up to 4 deep.
    pub(in crate::lease) fn json() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            "[a-c]{0,2}",
            prop::collection::vec(any::<u8>(), 0..6)
                .prop_map(|bytes| bytes.into_iter().map(char::from).collect::<String>()),
        ]
        .prop_map(|text| {
            let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
            let mut out = String::new();
            write_string(&mut out, &bytes);
            out
        })
        .boxed();
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            any::<u64>().prop_map(|value| value.to_string()),
            "-?[1-9]{1,3}\\.[0-9]{1,3}([eE][+-]?[0-9])?",
            string.clone(),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let member = (string.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(" ,"))),
                prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }
}
