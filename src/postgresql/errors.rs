//! What errors of PostgreSQL say about what was changed.

use std::error::Error;
use std::io;

use tokio_postgres::error::{DbError as ServerError, Severity};

use super::values::Unencodable;
use crate::sql::driver::{DbError, DbErrorKind};

/// An error that the server answered.
#[derive(Debug, thiserror::Error)]
#[error("the database answers: {message} (SQLSTATE {code})")]
struct Answer {
    /// The message of the server, in its language, and its details.
    message: String,
    code: String,
}

/// Returns the error of a statement.
pub(super) fn statement(error: tokio_postgres::Error) -> DbError {
    if let Some(answer) = error.as_db_error() {
        return DbError::new(kind(answer), self::answer(answer));
    }
    if caused_by::<Unencodable>(&error) {
        return DbError::new(DbErrorKind::Refused, error);
    }
    // An answer that is not understood leaves the session in an unknown state.
    DbError::new(DbErrorKind::Lost, error)
}

/// Returns the error of opening a session.
pub(super) fn connect(error: tokio_postgres::Error) -> DbError {
    if let Some(answer) = error.as_db_error() {
        let code = answer.code().code();
        let may_accept_later = code == "53300" || code.starts_with("57P") || code.starts_with("08");
        let kind = if may_accept_later { DbErrorKind::NotConnected } else { DbErrorKind::Other };
        return DbError::new(kind, self::answer(answer));
    }
    let is_gone = error.is_closed() || (caused_by::<io::Error>(&error) && !is_tls(&error));
    DbError::new(if is_gone { DbErrorKind::NotConnected } else { DbErrorKind::Other }, error)
}

/// Returns whether an error is of the encryption itself.
pub(super) fn is_tls(error: &(dyn Error + 'static)) -> bool {
    caused_by::<rustls::Error>(error)
}

/// Returns whether the server refuses this user from here in this way, encrypted or not
/// (`invalid_authorization_specification`).
pub(super) fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(|answer: &Answer| answer.code == "28000")
}

/// Returns whether an error, or what caused it, is of this type.
fn caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        // The source of an I/O error that contains an error is that of the contained one.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    false
}

fn answer(answer: &ServerError) -> Answer {
    let message = match answer.detail() {
        Some(detail) => format!("{}: {detail}", answer.message()),
        None => answer.message().to_owned(),
    };
    Answer { message, code: answer.code().code().to_owned() }
}

fn kind(answer: &ServerError) -> DbErrorKind {
    if matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
        return DbErrorKind::Lost;
    }
    of_code(answer.code().code())
}

/// Returns the kind of an SQLSTATE.
fn of_code(code: &str) -> DbErrorKind {
    match code {
        "40001" | "40P01" => DbErrorKind::Conflict,
        "25006" => DbErrorKind::ReadOnly,
        "53100" | "53200" => DbErrorKind::NoSpace,
        "57P01" | "57P02" | "57P03" => DbErrorKind::Lost,
        _ => match code.get(..2) {
            Some("08") => DbErrorKind::Lost,
            Some("22" | "23") => DbErrorKind::Refused,
            _ => DbErrorKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("40001", DbErrorKind::Conflict)]
    #[case("40P01", DbErrorKind::Conflict)]
    #[case("25006", DbErrorKind::ReadOnly)]
    #[case("53100", DbErrorKind::NoSpace)]
    #[case("57P01", DbErrorKind::Lost)]
    #[case("57014", DbErrorKind::Other)]
    #[case("08006", DbErrorKind::Lost)]
    #[case("22001", DbErrorKind::Refused)]
    #[case("23503", DbErrorKind::Refused)]
    #[case("42501", DbErrorKind::Other)]
    #[case("", DbErrorKind::Other)]
    fn codes_say_what_was_changed(#[case] code: &str, #[case] kind: DbErrorKind) {
        assert_eq!(of_code(code), kind);
    }
}
