//! Reading a connection string, and the values of its keywords.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::ConnectionStringError;
use super::keywords::{COMMON, Keyword, is_known, keyword, nearest};
use super::redaction::{HIDDEN, PASSWORD, Redaction, Word, is_secret, may_have_password};

/// What stands around a value with blanks.
const QUOTE: char = '\'';
/// What stands between two pairs.
const BLANKS: [char; 2] = [' ', '\t'];

/// What a lease manager is opened with: pairs `keyword=value`, with blanks or tabs between them.
///
/// A value with blanks in it is in apostrophes: `name='/srv/my leases.csv'`. There is no apostrophe in such a value, and one
/// without apostrophes around it does not begin with one.
///
/// No password is ever shown, neither by [`Display`](fmt::Display) and [`Debug`] nor by an error. Nor is what may be a part
/// of one: words behind a password up to the next keyword that is known, words that look like `password:secret`, and the
/// values of unknown keywords.
///
/// ```
/// use leasemgr::connection::ConnectionString;
///
/// let connection: ConnectionString = "type=mysql host=db password='two words' port=3306".parse()?;
/// assert_eq!(connection.get("host"), Some("db"));
/// assert_eq!(connection.get("user"), None);
/// assert_eq!(connection.number("port", 1..=65535)?, Some(3306));
/// assert_eq!(connection.get("password"), Some("two words"));
/// assert_eq!(connection.to_string(), "type=mysql host=db password=***** port=3306");
/// # Ok::<(), leasemgr::connection::ConnectionStringError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// Keywords and values, in the order in which they were given.
    pairs: Vec<(String, String)>,
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    /// Reads the pairs. Which keywords there are is checked by [`ConnectionString::check_keywords`].
    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        if let Some(at) = text.chars().position(|c| c.is_control() && c != '\t') {
            return Err(ConnectionStringError::ControlCharacter { position: at + 1 });
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut redaction = Redaction::default();
        let mut rest = text.trim_start_matches(BLANKS);
        while !rest.is_empty() {
            let number = pairs.len() + 1;
            let (word, behind) = rest.split_at(rest.find(BLANKS).unwrap_or(rest.len()));
            let Some((name, value)) = word.split_once('=') else {
                return Err(ConnectionStringError::NoEqualsSign {
                    word: redaction.next(word, is_known(word)),
                });
            };
            if name.is_empty() {
                return Err(ConnectionStringError::NoKeyword { number });
            }
            let shown = redaction.next(name, is_known(name));
            if pairs.iter().any(|(given, _)| given == name) {
                return Err(ConnectionStringError::Repeated { word: shown });
            }
            let (value, behind) = if value.starts_with(QUOTE) {
                let quoted = &rest[name.len() + "='".len()..];
                quoted.split_once(QUOTE).ok_or(ConnectionStringError::Unterminated { number })?
            } else {
                (value, behind)
            };
            if !(behind.is_empty() || behind.starts_with(BLANKS)) {
                return Err(ConnectionStringError::BehindApostrophe { number });
            }
            redaction.value(value);
            pairs.push((name.to_owned(), value.to_owned()));
            rest = behind.trim_start_matches(BLANKS);
        }
        Ok(Self { pairs })
    }
}

impl ConnectionString {
    /// The value of a keyword, if it is given.
    #[must_use]
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == keyword).map(|(_, value)| value.as_str())
    }

    /// The value of a keyword that must be given.
    ///
    /// # Errors
    /// [`ConnectionStringError::Missing`].
    pub fn required(&self, keyword: &str) -> Result<&str, ConnectionStringError> {
        self.get(keyword).ok_or_else(|| {
            let is_near = |name: &String| !is_known(name) && nearest(name, [keyword]).is_some();
            let instead = self.words(is_known).filter_map(|(word, ..)| word.text).find(is_near);
            ConnectionStringError::Missing { keyword: keyword.to_owned(), instead }
        })
    }

    /// The value of a keyword that is `true` or `false`, if it is given.
    ///
    /// # Errors
    /// [`ConnectionStringError::Value`] where it is something else.
    pub fn flag(&self, keyword: &str) -> Result<Option<bool>, ConnectionStringError> {
        match self.get(keyword) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.bad_value(keyword, "true or false")),
        }
    }

    /// The value of a keyword that is a number, in decimal digits, if it is given.
    ///
    /// # Errors
    /// [`ConnectionStringError::Value`] where it is something else, or not in this range.
    pub fn number(
        &self,
        keyword: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConnectionStringError> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        match decimal(value).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                Err(self.bad_value(keyword, format!("a number from {} to {}", range.start(), range.end())))
            }
        }
    }

    /// The value of a keyword that is one of a few words, if it is given.
    ///
    /// # Errors
    /// Returns [`ConnectionStringError::Value`] if it is none of them.
    pub fn choice<T: Copy>(
        &self,
        keyword: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConnectionStringError> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, chosen)) => Ok(Some(*chosen)),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(self.bad_value(keyword, format!("one of {}", words.join(", "))))
            }
        }
    }

    /// That the value of a keyword is not what is expected there: what a backend answers that reads values of other
    /// forms. Of a password nothing is shown, also where an own keyword of the backend has `pass` or `pwd` in its name.
    pub fn bad_value(&self, keyword: &str, expected: impl Into<String>) -> ConnectionStringError {
        let value = self.get(keyword).unwrap_or_default();
        let value = if is_secret(keyword) || may_have_password(value) { HIDDEN } else { value };
        ConnectionStringError::Value {
            keyword: keyword.to_owned(),
            value: value.to_owned(),
            expected: expected.into(),
        }
    }

    /// Makes sure that there are no other keywords than these, `type`, and `universe`. The factory does that before it
    /// has a backend open a lease manager.
    ///
    /// # Errors
    /// [`ConnectionStringError::UnknownKeyword`] or [`ConnectionStringError::OtherBackend`].
    pub fn check_keywords(&self, backend: &str, keywords: &[&str]) -> Result<(), ConnectionStringError> {
        let own = keywords.iter().copied().filter(|name| !COMMON.contains(name));
        let keywords: Vec<_> = COMMON.into_iter().chain(own).collect();
        let is_own = |name: &str| keywords.contains(&name);
        let Some((word, name, _)) =
            self.words(|name| is_own(name) || is_known(name)).find(|(_, name, _)| !is_own(name))
        else {
            return Ok(());
        };
        let backend = backend.to_owned();
        let nearest = word.text.as_ref().and_then(|name| nearest(name, keywords.iter().copied()));
        let nearest = nearest.map(str::to_owned);
        let keywords = owned(&keywords);
        Err(match keyword(name) {
            Some(Keyword { backends, .. }) => {
                let keyword = name.to_owned();
                ConnectionStringError::OtherBackend { keyword, backend, backends: owned(backends), keywords }
            }
            None => ConnectionStringError::UnknownKeyword { word, backend, nearest, keywords },
        })
    }

    /// Each pair: the keyword as it may be shown, keyword, and value.
    fn words(&self, is_known: impl Fn(&str) -> bool) -> impl Iterator<Item = (Word, &str, &str)> {
        let mut redaction = Redaction::default();
        self.pairs.iter().map(move |(name, value)| {
            let word = redaction.next(name, is_known(name));
            redaction.value(value);
            (word, name.as_str(), value.as_str())
        })
    }
}

impl fmt::Display for ConnectionString {
    /// The pairs with one blank between them, without passwords and values of unknown keywords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, name, value) in self.words(is_known) {
            let is_shown = is_known(name) && name != PASSWORD && !may_have_password(value);
            let value = if is_shown { value } else { HIDDEN };
            let separator = if word.number > 1 { " " } else { "" };
            let quote = if value.contains(BLANKS) { "'" } else { "" };
            write!(f, "{separator}{}={quote}{value}{quote}", word.text.as_deref().unwrap_or(HIDDEN))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionString({self})")
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A number in decimal digits, without a sign.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
