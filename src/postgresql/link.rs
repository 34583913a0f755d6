//! A connection to a server, with its prepared statements.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio_postgres::{Client, Connection, Row, Statement};

use super::errors;
use super::stream::{Executor, Limits, Stream};
use super::tls::Encrypted;
use crate::sql::columns::Value;
use crate::sql::driver::{DbError, DbErrorKind};

/// Maximum number of prepared statements of a session.
const MAX_PREPARED: usize = 500;

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn tokio_postgres::types::ToSql + Sync);

/// The session has ended before.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
struct Ended;

/// A connection to a server, with its prepared statements.
pub(super) struct Link {
    /// Dropped before the wire, which then tells the server that the session ends.
    pub(super) client: Client,
    prepared: HashMap<String, Statement>,
    pub(super) wire: Wire,
}

impl Link {
    pub(super) fn new(
        client: Client,
        connection: Connection<Stream, Encrypted>,
        executor: Executor,
        limits: Limits,
    ) -> Self {
        let wire = Wire { connection: Some(connection), executor, limits };
        Self { client, prepared: HashMap::new(), wire }
    }

    /// Returns the prepared statement of a text.
    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, DbError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wire.run(self.client.prepare(sql)).map_err(DbError::of_unchanged)?;
        if self.prepared.len() >= MAX_PREPARED {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Returns the rows that a statement selects.
    pub(super) fn query(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, DbError> {
        let statement = self.prepare(sql)?;
        self.wire.run(self.client.query(&statement, &parameters(values)))
    }

    /// Returns the rows that a statement selects by arrays.
    pub(super) fn query_arrays(&mut self, sql: &str, arrays: &[Vec<Value<'_>>]) -> Result<Vec<Row>, DbError> {
        let statement = self.prepare(sql)?;
        self.wire.run(self.client.query(&statement, &parameters(arrays)))
    }

    /// Executes a statement on its own, and returns the number of changed rows.
    pub(super) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError> {
        let statement = self.prepare(sql)?;
        self.wire.run(self.client.execute(&statement, &parameters(values)))
    }

    /// Ends the transaction that has failed, or the session if that is not possible.
    pub(super) fn roll_back(&mut self) {
        if self.wire.run(self.client.batch_execute("ROLLBACK")).is_err() {
            self.wire.connection = None;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("wire", &self.wire.executor).finish_non_exhaustive()
    }
}

/// Returns values as parameters.
pub(super) fn parameters<'a, V: tokio_postgres::types::ToSql + Sync>(values: &'a [V]) -> Vec<Parameter<'a>> {
    values.iter().map(|value| value as Parameter<'a>).collect()
}

/// What moves the bytes of a session.
pub(super) struct Wire {
    /// `None` after the session has ended.
    connection: Option<Connection<Stream, Encrypted>>,
    executor: Executor,
    limits: Limits,
}

impl Wire {
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Looks, without waiting, whether the session has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        let mut context = Context::from_waker(self.executor.waker());
        let is_open =
            self.connection.as_mut().is_some_and(|open| Pin::new(open).poll(&mut context).is_pending());
        if !is_open {
            self.connection = None;
        }
        !is_open
    }

    /// Waits for a future of the client.
    pub(super) fn run<T>(
        &mut self,
        future: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        let mut future = pin!(future);
        let Self { connection, executor, limits } = self;
        let mut cause = None;
        let result = executor.run(limits, |context| {
            if let Poll::Ready(result) = future.as_mut().poll(context) {
                return Poll::Ready(Some(result));
            }
            // What the future has woken is polled now.
            executor.forget_wakes();
            let Some(open) = connection.as_mut() else {
                return Poll::Ready(None);
            };
            let Poll::Ready(end) = Pin::new(open).poll(context) else {
                return Poll::Pending;
            };
            cause = end.err();
            *connection = None;
            // The answer may have come before the end.
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            })
        });
        let error = match result {
            Ok(Some(Ok(value))) => return Ok(value),
            Ok(Some(Err(error))) if !error.is_closed() => errors::statement(error),
            Ok(end) => match (cause, end) {
                (Some(cause), _) => DbError { kind: DbErrorKind::Lost, ..errors::statement(cause) },
                (None, Some(Err(closed))) => errors::statement(closed),
                // Nothing was sent.
                (None, _) => DbError::new(DbErrorKind::Ended, Ended),
            },
            Err(error) => DbError::new(DbErrorKind::Lost, error),
        };
        if error.kind == DbErrorKind::Lost {
            self.connection = None;
        }
        Err(error)
    }
}

impl Drop for Wire {
    /// Tells the server that the session ends, as far as that does not block.
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            let _ = Pin::new(connection).poll(&mut Context::from_waker(self.executor.waker()));
        }
    }
}
