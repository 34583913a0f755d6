//! Redaction of connection strings: hides passwords, and text that may be part of a password.

use std::fmt;

use super::keywords::{is_known, nearest};

/// The replacement of hidden text.
pub(super) const HIDDEN: &str = "*****";

pub(super) const PASSWORD: &str = "password";

/// A word of a connection string, as shown in errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The number of the word, from 1. A value in apostrophes is part of its word.
    pub number: usize,
    /// The word, or the keyword of the pair. `None` if it may be part of a password.
    pub text: Option<String>,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "word {} ({text:?})", self.number),
            None => write!(f, "word {} (hidden, as it may be part of a password)", self.number),
        }
    }
}

/// Decides for one word after the other whether it may be shown.
#[derive(Default)]
pub(super) struct Redaction {
    words: usize,
    after_password: bool,
}

impl Redaction {
    /// Returns the next word, with its text if that may be shown. Known keywords are always shown.
    pub(super) fn next(&mut self, text: &str, known: bool) -> Word {
        self.words += 1;
        let resembles = !known && resembles_password(text);
        let show = known || !self.after_password && (!resembles || is_password_misspelt(text));
        if known {
            self.after_password = text == PASSWORD;
        } else if resembles {
            self.after_password = true;
        }
        Word { number: self.words, text: show.then(|| text.to_owned()) }
    }

    /// Passes the value of the last keyword.
    pub(super) fn value(&mut self, value: &str) {
        self.after_password |= may_have_password(value);
    }
}

/// Returns whether the value of a keyword is a password, or may be one.
pub(super) fn is_secret(keyword: &str) -> bool {
    keyword == PASSWORD || !is_known(keyword) && resembles_password(keyword)
}

/// Returns whether a value in apostrophes may contain a password, such as after a missing closing
/// apostrophe.
pub(super) fn may_have_password(value: &str) -> bool {
    let mut words = value.split([' ', '\t', '=']);
    value.contains([' ', '\t']) && words.any(resembles_password)
}

/// Returns whether an unknown word may be a misspelling of `password` or contain a password, such
/// as `password:secret`.
fn resembles_password(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    ["pass", "pwd"].iter().any(|part| lower.contains(part)) || is_password_misspelt(word)
}

/// Returns whether a word is so similar to `password` that it cannot contain a password.
fn is_password_misspelt(word: &str) -> bool {
    let letters = word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    letters && nearest(word, [PASSWORD, "password-file"]).is_some()
}
