//! Formats an error together with its sources.

use std::error::Error;
use std::fmt;

/// Formats an error with all its sources, separated by colons: `error: source: source of the
/// source`.
///
/// [`Display`](fmt::Display) of an error of this crate does not include the text of its
/// [source](Error::source), so a program that displays or logs errors should use this.
///
/// ```
/// use leasemgr::lease::Lease4;
/// use leasemgr::{LeaseMgrFactory, with_sources};
///
/// let error = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=perhaps").unwrap_err();
/// assert_eq!(error.to_string(), "the connection string is invalid");
/// let text = with_sources(&error).to_string();
/// assert!(text.ends_with("invalid: persist is \"perhaps\", expected true or false"), "{text}");
/// ```
pub fn with_sources(error: &dyn Error) -> impl fmt::Display + '_ {
    WithSources(error)
}

struct WithSources<'a>(&'a dyn Error);

impl fmt::Display for WithSources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}
