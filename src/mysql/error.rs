//! What the errors of the server and the connection mean for a change.

use std::io;

use ::mysql::{DriverError, Error};

use crate::sql::driver::{DbError, DbErrorKind};

/// A row with this primary key exists.
pub(super) const DUPLICATE_KEY: u16 = 1062;
/// The server holds as many prepared statements as it may.
pub(super) const TOO_MANY_STATEMENTS: u16 = 1461;

/// An error of the server or of the connection.
#[derive(Debug, thiserror::Error)]
enum DatabaseError {
    #[error("the server refused with error {code} ({state}): {message}")]
    Server { code: u16, state: String, message: String },
    #[error("connection to the server failed")]
    Io(#[source] io::Error),
    #[error("{0}")]
    Client(String),
}

/// Returns the number of an error of the server.
pub(super) fn code(error: &Error) -> Option<u16> {
    match error {
        Error::MySqlError(error) => Some(error.code),
        _ => None,
    }
}

/// Returns what an error of a statement means.
pub(super) fn of_statement(error: Error) -> DbError {
    let kind = match &error {
        Error::MySqlError(error) => kind_of(error.code),
        // The values are larger than the server takes, which the client knows before it sends them.
        Error::DriverError(DriverError::PacketTooLarge) => DbErrorKind::Refused,
        Error::DriverError(DriverError::MismatchedStmtParams(..) | DriverError::Params(_)) => {
            DbErrorKind::Other
        }
        Error::DriverError(DriverError::MixedParams) | Error::UrlError(_) => DbErrorKind::Other,
        // Also after an answer that is not understood: what follows it cannot be told apart.
        _ => DbErrorKind::Lost,
    };
    DbError::new(kind, source(error))
}

/// Returns what an error of opening a session means.
pub(super) fn of_connect(error: Error) -> DbError {
    let kind = match &error {
        // A certificate that is not trusted.
        error if io(error).is_some_and(|error| error.kind() == io::ErrorKind::InvalidData) => {
            DbErrorKind::Other
        }
        // Too many connections of all, of this user, or of this user in an hour; the host is
        // blocked after failed connections.
        Error::MySqlError(error) if matches!(error.code, 1040 | 1129 | 1203 | 1226) => {
            DbErrorKind::NotConnected
        }
        Error::MySqlError(error) => in_connect(kind_of(error.code)),
        Error::DriverError(
            DriverError::CouldNotConnect(_) | DriverError::ConnectTimeout | DriverError::Timeout,
        )
        | Error::IoError(_)
        | Error::CodecError(_) => DbErrorKind::NotConnected,
        _ => DbErrorKind::Other,
    };
    DbError::new(kind, source(error))
}

/// Returns what an error of a statement means that was sent to open a session.
pub(super) fn in_connect(kind: DbErrorKind) -> DbErrorKind {
    match kind {
        DbErrorKind::Lost | DbErrorKind::Ended | DbErrorKind::Conflict | DbErrorKind::NotConnected => {
            DbErrorKind::NotConnected
        }
        _ => DbErrorKind::Other,
    }
}

/// Returns an error of input or output, which the reader of packets has inside of its own.
fn io(error: &Error) -> Option<&io::Error> {
    match error {
        Error::IoError(error) => Some(error),
        Error::CodecError(error) => std::error::Error::source(error)?.downcast_ref(),
        _ => None,
    }
}

fn source(error: Error) -> DatabaseError {
    if let (Error::CodecError(_), Some(io)) = (&error, io(&error)) {
        return DatabaseError::Io(io::Error::new(io.kind(), io.to_string()));
    }
    match error {
        Error::MySqlError(error) => {
            DatabaseError::Server { code: error.code, state: error.state, message: error.message }
        }
        Error::IoError(error) => DatabaseError::Io(error),
        Error::DriverError(error) => DatabaseError::Client(error.to_string()),
        error => DatabaseError::Client(error.to_string()),
    }
}

/// Returns what an error of the server means for the statement.
fn kind_of(code: u16) -> DbErrorKind {
    match code {
        // Deadlock or failed certification in a cluster, lock wait timeout, row changed since the
        // snapshot, interrupted by KILL QUERY, statement to be prepared again, rolled back by the
        // group in COMMIT.
        1213 | 1205 | 1020 | 1317 | 1615 | 3101 => DbErrorKind::Conflict,
        // Option read_only, read-only transaction, read-only mode.
        1290 | 1792 | 1836 => DbErrorKind::ReadOnly,
        // Table full, disk full, out of memory.
        1114 | 1021 | 1037 | 1038 | 1041 => DbErrorKind::NoSpace,
        // Node of a cluster not ready, which executes no statement.
        1047 => DbErrorKind::Ended,
        // Shutdown, connection killed, closed after a packet too
        // large or for inactivity; the client's numbers for a lost connection. After an error in
        // COMMIT (1180), whether the changes were made is unknown.
        1053 | 1079 | 1153 | 1158..=1161 | 1180 | 1184 | 1927 | 2006 | 2013 | 4031 => DbErrorKind::Lost,
        // No value or NULL, number out of range, text not in the column's character set or of
        // another type, too long, invalid date, no such row in a referenced table, invalid JSON, a check.
        1048
        | 1062
        | 1264
        | 1265
        | 1292
        | 1364
        | 1366
        | 1406
        | 1411
        | 1452
        | 3140
        | 3141
        | 3819
        | 4025
        | 4036..=4038 => DbErrorKind::Refused,
        _ => DbErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn server(code: u16) -> Error {
        Error::MySqlError(::mysql::MySqlError { state: "HY000".into(), message: "text".into(), code })
    }

    #[rstest]
    #[case(1213, DbErrorKind::Conflict)]
    #[case(1290, DbErrorKind::ReadOnly)]
    #[case(1114, DbErrorKind::NoSpace)]
    #[case(1047, DbErrorKind::Ended)]
    #[case(1180, DbErrorKind::Lost)]
    #[case(1452, DbErrorKind::Refused)]
    #[case(1064, DbErrorKind::Other)]
    fn errors_of_statements(#[case] code: u16, #[case] kind: DbErrorKind) {
        assert_eq!(of_statement(server(code)).kind, kind);
    }

    #[rstest]
    #[case(1040, DbErrorKind::NotConnected)]
    #[case(1053, DbErrorKind::NotConnected)]
    #[case(1047, DbErrorKind::NotConnected)]
    #[case(1045, DbErrorKind::Other)]
    #[case(1049, DbErrorKind::Other)]
    fn errors_of_connecting(#[case] code: u16, #[case] kind: DbErrorKind) {
        assert_eq!(of_connect(server(code)).kind, kind);
    }
}
