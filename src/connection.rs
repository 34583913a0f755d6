//! Connection strings, which select and configure the backend of a lease manager.

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
