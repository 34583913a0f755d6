//! Parses connection strings and the values of their keywords.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::ConnectionStringError;
use super::keywords::{COMMON, Keyword, is_known, keyword, nearest};
use super::redaction::{HIDDEN, PASSWORD, Redaction, Word, is_secret, may_have_password};

/// Encloses a value that contains blanks.
const QUOTE: char = '\'';
/// Separate the pairs.
const BLANKS: [char; 2] = [' ', '\t'];

/// Selects and configures a backend: pairs `keyword=value`, separated by blanks or tabs.
///
/// A value with blanks is enclosed in apostrophes: `name='/srv/my leases.csv'`. Such a value
/// contains no apostrophe, and a value without enclosing apostrophes does not begin with one.
///
/// Neither [`Display`](fmt::Display), [`Debug`] nor an error shows a password, or text that may be
/// part of one: words after a password up to the next known keyword, words like `password:secret`,
/// and the values of unknown keywords.
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
    /// Keywords and values, in their original order.
    pairs: Vec<(String, String)>,
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    /// Parses the pairs. [`ConnectionString::check_keywords`] checks the keywords.
    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        if let Some(at) = text.chars().position(|c| c.is_control() && c != '\t') {
            return Err(ConnectionStringError::ControlCharacter { position: at + 1 });
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut redaction = Redaction::default();
        let mut rest = text.trim_start_matches(BLANKS);
        while !rest.is_empty() {
            let number = pairs.len() + 1;
            let (word, after) = rest.split_at(rest.find(BLANKS).unwrap_or(rest.len()));
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
            let (value, after) = if value.starts_with(QUOTE) {
                let quoted = &rest[name.len() + "='".len()..];
                quoted.split_once(QUOTE).ok_or(ConnectionStringError::Unterminated { number })?
            } else {
                (value, after)
            };
            if !(after.is_empty() || after.starts_with(BLANKS)) {
                return Err(ConnectionStringError::AfterApostrophe { number });
            }
            redaction.value(value);
            pairs.push((name.to_owned(), value.to_owned()));
            rest = after.trim_start_matches(BLANKS);
        }
        Ok(Self { pairs })
    }
}

impl ConnectionString {
    /// Returns the value of a keyword, if given.
    #[must_use]
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == keyword).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a required keyword.
    ///
    /// # Errors
    /// Returns [`ConnectionStringError::Missing`] if it is not given.
    pub fn required(&self, keyword: &str) -> Result<&str, ConnectionStringError> {
        self.get(keyword).ok_or_else(|| {
            let is_near = |name: &String| !is_known(name) && nearest(name, [keyword]).is_some();
            let instead = self.words(is_known).filter_map(|(word, ..)| word.text).find(is_near);
            ConnectionStringError::Missing { keyword: keyword.to_owned(), instead }
        })
    }

    /// Returns the value of a keyword that is `true` or `false`, if given.
    ///
    /// # Errors
    /// Returns [`ConnectionStringError::Value`] if it is neither.
    pub fn flag(&self, keyword: &str) -> Result<Option<bool>, ConnectionStringError> {
        match self.get(keyword) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.bad_value(keyword, "true or false")),
        }
    }

    /// Returns the value of a keyword that is a number in decimal digits, if given.
    ///
    /// # Errors
    /// Returns [`ConnectionStringError::Value`] if it is not a number in this range.
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

    /// Returns the value of a keyword that is one of several words, if given.
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

    /// Returns the error that the value of a keyword is invalid. For backends that parse values of
    /// other forms. Hides the value of a password, and of a backend's own keyword that contains
    /// `pass` or `pwd`.
    pub fn bad_value(&self, keyword: &str, expected: impl Into<String>) -> ConnectionStringError {
        let value = self.get(keyword).unwrap_or_default();
        let value = if is_secret(keyword) || may_have_password(value) { HIDDEN } else { value };
        ConnectionStringError::Value {
            keyword: keyword.to_owned(),
            value: value.to_owned(),
            expected: expected.into(),
        }
    }

    /// Checks that there are no keywords except these, `type` and `universe`. The factory does this
    /// before it lets a backend open a lease manager.
    ///
    /// # Errors
    /// Returns [`ConnectionStringError::UnknownKeyword`] if no lease manager has a keyword, and
    /// [`ConnectionStringError::OtherBackend`] if only others have it.
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

    /// Returns the pairs: the keyword for display, the keyword, and the value.
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
    /// Formats the pairs, separated by one blank, with passwords and the values of unknown keywords
    /// hidden.
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

/// Parses a number in decimal digits, without a sign.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
