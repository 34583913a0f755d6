//! Requests of control channels, and the handlers that answer them.

use std::io;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// By a UNIX socket.
    Unix,
    /// By HTTP.
    Http,
}

/// Where a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// How it came.
    pub channel: Channel,
    /// The authenticated user, if any.
    pub user: Option<String>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer was written.
    Answered,
    /// The request has no command, so there is no answer to it.
    NoAnswer,
}

/// Answers requests. Called by several threads at the same time; may block.
pub trait Handler: Send + Sync + 'static {
    /// Makes the command of a request, and writes the answer: one JSON map.
    ///
    /// # Errors
    /// Returns an error if the answer cannot be written.
    fn answer(&self, request: &[u8], source: &Source, answer: &mut dyn io::Write) -> io::Result<Outcome>;
}
