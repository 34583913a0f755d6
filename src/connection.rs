//! Connection strings: what a lease manager is opened with, as text.

mod error;
mod keywords;
mod redaction;
mod string;

pub use error::ConnectionStringError;
pub(crate) use keywords::TYPES;
pub use keywords::{KEYWORDS, Keyword};
pub use redaction::Word;
pub use string::ConnectionString;
pub(crate) use string::decimal;
