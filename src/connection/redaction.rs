//! What of a connection string may be shown: no password, and nothing that may be a part of one.

use std::fmt;

use super::keywords::{is_known, nearest};

/// What stands for a text that is not shown.
pub(super) const HIDDEN: &str = "*****";

pub(super) const PASSWORD: &str = "password";

/// A word of a connection string, as an error names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Which word it is, counted from 1. A value in apostrophes is part of its word.
    pub number: usize,
    /// The word, or the keyword of the pair. `None` where that may be a part of a password.
    pub text: Option<String>,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "word {} ({text:?})", self.number),
            None => write!(f, "word {} (not shown, it may be of a password)", self.number),
        }
    }
}

/// Tells, word for word, which ones may be shown.
#[derive(Default)]
pub(super) struct Redaction {
    words: usize,
    behind_password: bool,
}

impl Redaction {
    /// The next word, with its text if that may be shown. A known keyword always may.
    pub(super) fn next(&mut self, text: &str, known: bool) -> Word {
        self.words += 1;
        let resembles = !known && resembles_password(text);
        let show = known || !self.behind_password && (!resembles || is_password_misspelt(text));
        if known {
            self.behind_password = text == PASSWORD;
        } else if resembles {
            self.behind_password = true;
        }
        Word { number: self.words, text: show.then(|| text.to_owned()) }
    }

    /// The value of the last keyword.
    pub(super) fn value(&mut self, value: &str) {
        self.behind_password |= may_have_password(value);
    }
}

/// Whether the value of a keyword is a password, or may be one.
pub(super) fn is_secret(keyword: &str) -> bool {
    keyword == PASSWORD || !is_known(keyword) && resembles_password(keyword)
}

/// Whether there may be a password in a value in apostrophes, as behind a closing apostrophe that is missing.
pub(super) fn may_have_password(value: &str) -> bool {
    let mut words = value.split([' ', '\t', '=']);
    value.contains([' ', '\t']) && words.any(resembles_password)
}

/// Whether an unknown word is meant to be `password`, or has it in it, as `password:secret`.
fn resembles_password(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    ["pass", "pwd"].iter().any(|part| lower.contains(part)) || is_password_misspelt(word)
}

/// Whether a word is so near to `password` that there is no password in it.
fn is_password_misspelt(word: &str) -> bool {
    let letters = word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    letters && nearest(word, [PASSWORD, "password-file"]).is_some()
}
