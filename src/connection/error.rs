//! Errors of connection strings.

use super::Word;

/// Why a connection string is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// A word is not a pair `keyword=value`.
    #[error("{word}: no \"=\", expected keyword=value")]
    NoEqualsSign {
        /// The word.
        word: Word,
    },
    /// A value has no keyword.
    #[error("word {number}: no keyword before the \"=\"")]
    NoKeyword {
        /// The number of the word, from 1.
        number: usize,
    },
    /// A keyword is given twice.
    #[error("{word}: the keyword is given twice")]
    Repeated {
        /// The keyword.
        word: Word,
    },
    /// A value begins with an apostrophe, but does not end with one.
    #[error("word {number}: no closing apostrophe")]
    Unterminated {
        /// The number of the word, from 1.
        number: usize,
    },
    /// The apostrophe after a value is not followed by a blank.
    #[error("word {number}: text after the closing apostrophe, expected a blank")]
    AfterApostrophe {
        /// The number of the word, from 1.
        number: usize,
    },
    /// The string contains a control character.
    #[error("character {position} is a control character, expected text, blanks and tabs only")]
    ControlCharacter {
        /// The number of the character, from 1.
        position: usize,
    },
    /// A required keyword is missing.
    #[error("keyword {keyword:?} is missing{}", instead.as_ref().map(|word| format!("; {word:?} may be a misspelling of it")).unwrap_or_default())]
    Missing {
        /// The keyword.
        keyword: String,
        /// A similar keyword that was given.
        instead: Option<String>,
    },
    /// The value of a keyword is invalid.
    #[error("{keyword} is {value:?}, expected {expected}")]
    Value {
        /// The keyword.
        keyword: String,
        /// The value, `*****` for a password.
        value: String,
        /// The valid values.
        expected: String,
    },
    /// No lease manager has this keyword.
    #[error("{word}: unknown keyword; {}{backend} has {}", nearest.as_ref().map(|name| format!("did you mean {name:?}? ")).unwrap_or_default(), keywords.join(", "))]
    UnknownKeyword {
        /// The keyword.
        word: Word,
        /// The type of the lease manager.
        backend: String,
        /// The most similar keyword that the lease manager has.
        nearest: Option<String>,
        /// The keywords that the lease manager has.
        keywords: Vec<String>,
    },
    /// Only lease managers of other types have this keyword.
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
