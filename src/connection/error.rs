//! What is wrong with a connection string.

use super::Word;

/// What is wrong with a connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// A word that is no pair.
    #[error("{word}: no \"=\", expected keyword=value")]
    NoEqualsSign {
        /// The word.
        word: Word,
    },
    /// A value without a keyword.
    #[error("word {number}: no keyword before the \"=\"")]
    NoKeyword {
        /// Which word it is, counted from 1.
        number: usize,
    },
    /// A keyword that was there before.
    #[error("{word}: the keyword is given twice")]
    Repeated {
        /// The keyword.
        word: Word,
    },
    /// A value that begins with an apostrophe and does not end with one.
    #[error("word {number}: no closing apostrophe")]
    Unterminated {
        /// Which word it is, counted from 1.
        number: usize,
    },
    /// A value in apostrophes, and no blank after it.
    #[error("word {number}: text after the closing apostrophe, expected a blank")]
    BehindApostrophe {
        /// Which word it is, counted from 1.
        number: usize,
    },
    /// A character that has no place in a text of one line.
    #[error("character {position} is a control character, expected text, blanks and tabs only")]
    ControlCharacter {
        /// Which character it is, counted from 1.
        position: usize,
    },
    /// A keyword that must be there.
    #[error("no keyword {keyword:?}{}", instead.as_ref().map(|word| format!(", or is {word:?} meant to be it?")).unwrap_or_default())]
    Missing {
        /// The keyword.
        keyword: String,
        /// One that was given, and is nearly the same.
        instead: Option<String>,
    },
    /// A value is not of its keyword's form.
    #[error("{keyword} is {value:?}, expected {expected}")]
    Value {
        /// The keyword.
        keyword: String,
        /// The value, `*****` for a password.
        value: String,
        /// What belongs there.
        expected: String,
    },
    /// No lease manager has this keyword.
    #[error("{word}: unknown keyword{}; {backend} has {}", nearest.as_ref().map(|name| format!(", is {name:?} meant?")).unwrap_or_default(), keywords.join(", "))]
    UnknownKeyword {
        /// The keyword.
        word: Word,
        /// The type of the lease manager.
        backend: String,
        /// The keyword that was probably meant.
        nearest: Option<String>,
        /// The keywords that the lease manager has.
        keywords: Vec<String>,
    },
    /// Lease managers of other types have this keyword.
    #[error("{keyword:?} is a keyword of {}, not of {backend}, which has {}", backends.join(" and "), keywords.join(", "))]
    OtherBackend {
        /// The keyword.
        keyword: String,
        /// The type of the lease manager.
        backend: String,
        /// The types that have the keyword.
        backends: Vec<String>,
        /// The keywords that the lease manager has.
        keywords: Vec<String>,
    },
}
