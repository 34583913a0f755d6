//! Answers, and how they are written.

use std::io::{self, Write};

use crate::lease::Json;

/// The answer to a command.
///
/// ```
/// use leasemgr::commands::Answer;
/// use leasemgr::lease::Json;
///
/// let answer = Answer::success("7 clients are known").with_arguments(Json::map([("clients", Json::from(7))]));
/// assert_eq!((answer.result, answer.text.as_str()), (Answer::SUCCESS, "7 clients are known"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The result: one of the constants or, by HTTP, a status of HTTP such as 403.
    pub result: u16,
    /// What happened, for people.
    pub text: String,
    /// What was asked for.
    pub arguments: Option<Json>,
}

impl Answer {
    /// The command was made.
    pub const SUCCESS: u16 = 0;
    /// The command is invalid, or failed.
    pub const ERROR: u16 = 1;
    /// The server does not have the command, or cannot make it with its backend.
    pub const UNSUPPORTED: u16 = 2;
    /// The command was made, but there is nothing that it was to find or change.
    pub const EMPTY: u16 = 3;
    /// The command is valid, but does not fit the configuration or the leases.
    pub const CONFLICT: u16 = 4;

    /// Creates an answer without arguments.
    #[must_use]
    pub fn new(result: u16, text: impl Into<String>) -> Self {
        Self { result, text: text.into(), arguments: None }
    }

    /// Creates the answer to a command that was made.
    #[must_use]
    pub fn success(text: impl Into<String>) -> Self {
        Self::new(Self::SUCCESS, text)
    }

    /// Creates the answer to a command that is invalid or failed.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self::new(Self::ERROR, text)
    }

    /// Creates the answer to a command that found nothing.
    #[must_use]
    pub fn empty(text: impl Into<String>) -> Self {
        Self::new(Self::EMPTY, text)
    }

    /// Returns the answer with these arguments.
    #[must_use]
    pub fn with_arguments(self, arguments: Json) -> Self {
        Self { arguments: Some(arguments), ..self }
    }

    /// Writes the members of the map after its arguments, and its end.
    fn write_end(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "\"result\": {}", self.result)?;
        if !self.text.is_empty() {
            write!(out, ", \"text\": {}", Json::from(self.text.as_str()))?;
        }
        out.write_all(b" }")
    }
}

/// Writes arguments as they are read from a backend, and returns the rest of the answer: so the
/// memory for an answer does not grow with the number of leases.
pub(super) type WriteArguments<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<Answer> + 'a>;

/// The answer of a command of this crate.
pub(super) enum Reply<'a> {
    Answer(Answer),
    /// The arguments are written first.
    Streamed(WriteArguments<'a>),
}

impl Reply<'_> {
    /// Writes the answer as one map.
    pub(super) fn write(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Answer(answer) => {
                out.write_all(b"{ ")?;
                if let Some(arguments) = &answer.arguments {
                    write!(out, "\"arguments\": {arguments}, ")?;
                }
                answer.write_end(out)
            }
            Self::Streamed(write_arguments) => {
                out.write_all(b"{ \"arguments\": ")?;
                let answer = write_arguments(out)?;
                out.write_all(b", ")?;
                answer.write_end(out)
            }
        }
    }
}

impl From<Answer> for Reply<'_> {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}
