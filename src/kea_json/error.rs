//! Errors of parsing and changing JSON.

/// Why a text is not JSON as Kea reads it, or why a change of a value is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// Offset in the (unescaped) text, in bytes.
    pub at: usize,
    pub(super) what: &'static str,
}
