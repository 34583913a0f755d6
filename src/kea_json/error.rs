//! What makes a text no JSON, or a change of a value impossible.

/// Why a text is not JSON as Kea reads it, or why a value cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// Byte of the (unescaped) text, counted from 0.
    pub at: usize,
    pub(super) what: &'static str,
}
