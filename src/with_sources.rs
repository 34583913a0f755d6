//! An error together with what has caused it, as one text.

use std::error::Error;
use std::fmt;

/// Returns an error with all its sources, to show it: `the error: its source: the source of that`.
///
/// An error of this crate shows only what it adds to its [source](Error::source). A program that shows errors to people, or
/// logs them, shows the sources, too.
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
