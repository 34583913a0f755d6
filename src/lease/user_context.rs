//! The JSON map that servers and hooks attach to a lease.

use std::fmt;

use super::{Json, JsonError, JsonRef};

/// A JSON map in the format of Kea: sorted keys, `{ "a": 1, "b": [ 1, 2 ] }`.
///
/// Kea's strings are byte strings. Bytes outside printable ASCII are written as `\u00XX`, so the
/// text is printable ASCII.
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
/// # Ok::<(), leasemgr::lease::JsonError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserContext(Json);

impl UserContext {
    /// Parses a JSON map, including Kea's extensions to JSON ([`Json::parse`]).
    ///
    /// # Errors
    /// As [`Json::parse_map`].
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        Json::parse_map(text).map(Self)
    }

    /// Creates a user context from a stored text, which was valid.
    pub(crate) fn from_stored(text: &[u8]) -> Self {
        Self(Json::from_stored(std::str::from_utf8(text).unwrap_or_default()))
    }

    /// Returns the JSON text, in printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the whole map.
    #[must_use]
    pub fn root(&self) -> JsonRef<'_> {
        self.0.root()
    }

    /// Returns the member with this key.
    #[must_use]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<JsonRef<'_>> {
        self.root().get(key)
    }

    /// Returns the user context with `value` at `path`, the keys from the outermost map inwards.
    /// Replaces an existing value, and creates missing maps. In a list, a key is the index of an
    /// existing item, from 0, as in a JSON Pointer (RFC 6901).
    ///
    /// # Errors
    /// As [`Json::with`], and returns [`JsonError`] if the path has no keys and `value` is not a
    /// map.
    pub fn with<K: AsRef<[u8]>>(&self, path: &[K], value: impl Into<Json>) -> Result<Self, JsonError> {
        let value = value.into();
        if path.is_empty() {
            return Json::parse_map(value.as_str().as_bytes()).map(Self);
        }
        self.0.with(path, value).map(Self)
    }

    /// Returns the user context without the value at `path`, which is as in [`UserContext::with`];
    /// unchanged if there is no value.
    #[must_use]
    pub fn without<K: AsRef<[u8]>>(&self, path: &[K]) -> Self {
        Self(self.0.without(path))
    }
}

/// The empty map.
impl Default for UserContext {
    fn default() -> Self {
        Self(Json::empty_map())
    }
}

impl fmt::Display for UserContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UserContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserContext({})", self.0)
    }
}

impl From<UserContext> for Json {
    fn from(context: UserContext) -> Self {
        context.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_without_keys_is_the_whole_map() {
        let context = |text: &str| UserContext::parse(text.as_bytes()).unwrap();
        let before = context(r#"{ "a": 1 }"#);
        let none: [&str; 0] = [];
        assert_eq!(before.with(&none, context(r#"{ "b": 2 }"#)).unwrap().as_str(), r#"{ "b": 2 }"#);
        assert_eq!(before.with(&none, 7).unwrap_err().to_string(), "expected a JSON map at byte 0");
        assert_eq!(before.without(&none), before);
    }
}
