//! A connection to a server, with its prepared statements.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Statement};

use super::errors;
use super::stream::{Executor, Limits, Stream};
use super::tls::Encrypted;
use crate::sql::driver::{DbError, DbErrorKind};

/// Maximum number of prepared statements of a session.
const MAX_PREPARED: usize = 500;

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

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
        let wire = Wire { connection: Some(connection), executor, limits, notifications: Vec::new() };
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

    /// Returns what `read` makes of each row that a statement selects. Rows are read while the server
    /// sends the next ones. Parameters are values, or arrays of values.
    pub(super) fn query<V: ToSql + Sync, T>(
        &mut self,
        sql: &str,
        values: &[V],
        read: impl Fn(&Row) -> Result<T, Box<dyn Error + Send + Sync>>,
    ) -> Result<Vec<T>, DbError> {
        let statement = self.prepare(sql)?;
        let (mut found, mut failure) = (Vec::new(), None);
        let client = &self.client;
        self.wire.run(async {
            let mut rows = pin!(client.query_raw(&statement, parameters(values)).await?);
            while let Some(row) = rows.try_next().await? {
                match read(&row) {
                    Ok(row) => found.push(row),
                    Err(error) => failure = failure.take().or(Some(error)),
                }
            }
            Ok(())
        })?;
        failure.map_or(Ok(found), |error| Err(DbError::new(DbErrorKind::Other, error)))
    }

    /// Executes a statement on its own, and returns the number of changed rows.
    pub(super) fn execute<V: ToSql + Sync>(&mut self, sql: &str, values: &[V]) -> Result<u64, DbError> {
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
pub(super) fn parameters<'a, V: ToSql + Sync>(values: &'a [V]) -> Vec<Parameter<'a>> {
    values.iter().map(|value| value as Parameter<'a>).collect()
}

/// What moves the bytes of a session.
pub(super) struct Wire {
    /// `None` after the session has ended.
    connection: Option<Connection<Stream, Encrypted>>,
    executor: Executor,
    limits: Limits,
    /// The texts of notifications that nothing has waited for yet.
    notifications: Vec<String>,
}

/// Moves the bytes of a connection. The result is why it has ended, if there is a reason.
fn advance(
    connection: &mut Connection<Stream, Encrypted>,
    notifications: &mut Vec<String>,
    context: &mut Context<'_>,
) -> Poll<Option<tokio_postgres::Error>> {
    loop {
        match connection.poll_message(context) {
            Poll::Ready(Some(Ok(AsyncMessage::Notification(told)))) => {
                notifications.push(told.payload().to_owned());
            }
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(error)),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

impl Wire {
    /// Returns the texts of the notifications that have arrived, after waiting until this time for
    /// the first one.
    pub(super) fn notifications(&mut self, until: Instant) -> Result<Vec<String>, DbError> {
        let Self { connection, executor, notifications, .. } = self;
        let Some(open) = connection.as_mut() else {
            return Err(DbError::new(DbErrorKind::Lost, Ended));
        };
        let waited = executor.run(&Limits::Until(until), |context| {
            executor.forget_wakes();
            match advance(open, notifications, context) {
                Poll::Pending if notifications.is_empty() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
                Poll::Ready(cause) => Poll::Ready(Some(cause)),
            }
        });
        match waited {
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Ok(Some(cause)) => {
                self.connection = None;
                return Err(cause.map_or_else(
                    || DbError::new(DbErrorKind::Lost, Ended),
                    |cause| DbError { kind: DbErrorKind::Lost, ..errors::statement(cause) },
                ));
            }
            Err(error) => return Err(DbError::new(DbErrorKind::Lost, error)),
        }
        Ok(mem::take(&mut self.notifications))
    }

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
        let Self { connection, executor, limits, notifications } = self;
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
            let Poll::Ready(end) = advance(open, notifications, context) else {
                return Poll::Pending;
            };
            cause = end;
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
