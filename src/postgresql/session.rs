//! The statements of a session.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::{join, join5};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::errors;
use super::link::{Link, parameters};
use super::load::Loading;
use super::statements::{self, Statements};
use super::values;
use crate::lease::{Family, Fields};
use crate::lease_mgr::ManagedLease;
use crate::sql::columns::{self, Column, Kind, Value};
use crate::sql::driver::{ClientColumn, DbError, DbErrorKind, Dialect, Schema, Session, Table, Write};

/// A session with a PostgreSQL server.
pub(crate) struct PostgreSqlSession<L> {
    pub(super) link: Link,
    pub(super) schema: Schema,
    pub(super) statements: Statements,
    /// The transaction in which leases are loaded.
    pub(super) loading: Option<Loading>,
    lease: PhantomData<fn() -> L>,
}

impl<L> fmt::Debug for PostgreSqlSession<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgreSqlSession").field("link", &self.link).finish_non_exhaustive()
    }
}

impl<L: ManagedLease> PostgreSqlSession<L> {
    pub(super) fn new(link: Link, schema: Schema) -> Self {
        let statements = Statements::new(L::FAMILY, &schema);
        Self { link, schema, statements, loading: None, lease: PhantomData }
    }

    /// Makes one change.
    fn write_one(&mut self, change: &Write<'_, L>) -> Result<bool, DbError> {
        let Statements { columns, expected, .. } = &self.statements;
        let (sql, values) = match change {
            Write::Insert(lease) => (&self.statements.insert.one, row(columns, *lease)),
            Write::Update { new, expected: old } => {
                let mut values = row(columns, *new);
                values.extend(row(expected, *old));
                (&self.statements.update.one, values)
            }
            Write::Delete(lease) => (&self.statements.delete.one, row(expected, *lease)),
        };
        Ok(self.link.execute(sql, &values)? > 0)
    }

    /// Returns the leases that one of the statements selects.
    fn leases<V: ToSql + Sync>(
        &mut self,
        sql: impl FnOnce(&Statements) -> &str,
        values: &[V],
    ) -> Result<Vec<L>, DbError> {
        let Self { link, statements, .. } = self;
        link.query(sql(statements), values, |row| lease(row, &statements.columns))
    }
}

/// Returns the lease of a row with these columns.
fn lease<L: ManagedLease>(row: &Row, columns: &[Column]) -> Result<L, Box<dyn Error + Send + Sync>> {
    let values = values::values(row, columns.iter().map(|column| column.kind()))?;
    Ok(columns::lease(columns, &values)?)
}

pub(super) fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> DbError {
    DbError::new(DbErrorKind::Other, error)
}

/// Returns what a row has in these columns for a lease.
fn row<'a, L: ManagedLease>(columns: &[Column], lease: &'a L) -> Vec<Value<'a>> {
    let fields = lease.fields();
    columns.iter().map(|&column| stored(column, lease, &fields)).collect()
}

/// Returns an array for each of these columns, of what rows have for leases.
fn arrays<'a, L: ManagedLease>(columns: &[Column], leases: &[(&'a L, Fields<'a>)]) -> Vec<Vec<Value<'a>>> {
    let array = |&column| leases.iter().map(|(lease, fields)| stored(column, *lease, fields)).collect();
    columns.iter().map(array).collect()
}

pub(super) fn stored<'a, L: ManagedLease>(column: Column, lease: &'a L, fields: &Fields<'a>) -> Value<'a> {
    values::stored(column, column.value(lease, fields))
}

/// A statement for several leases, with its arrays.
struct Part<'a> {
    statement: Statement,
    arrays: Vec<Vec<Value<'a>>>,
}

impl<'a> Part<'a> {
    /// Returns the statement with these arrays, or `None` if they are empty.
    fn new(link: &mut Link, sql: &str, arrays: Vec<Vec<Value<'a>>>) -> Result<Option<Self>, DbError> {
        if arrays.first().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        Ok(Some(Self { statement: link.prepare(sql)?, arrays }))
    }

    async fn run(&self, client: &Client) -> Result<Vec<Row>, tokio_postgres::Error> {
        client.query(&self.statement, &parameters(&self.arrays)).await
    }
}

/// Ends a transaction, whose statements have been sent before, but not necessarily answered. A
/// statement that could not be sent is unknown to the server, which would commit the others.
async fn end(client: &Client, is_incomplete: &Cell<bool>) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(if is_incomplete.get() { "ROLLBACK" } else { "COMMIT" }).await
}

impl<L: ManagedLease> Dialect for PostgreSqlSession<L> {
    /// The server infers the type of a parameter from what it is compared with.
    fn placeholder(&self, sql: &mut String, number: usize, _: Kind) {
        sql.push_str(&format!("${number}"));
    }

    fn column(&self, sql: &mut String, column: Column) {
        sql.push_str(&statements::selected(column));
    }

    fn address_order(&self, sql: &mut String) {
        let is_text = L::FAMILY == Family::V6 && self.schema.has_text_addresses;
        sql.push_str(if is_text { "address::inet" } else { "address" });
    }

    fn hostname_is(&self, sql: &mut String, number: usize) {
        sql.push_str(&format!("(lower(hostname) = ${number} AND hostname IS NOT NULL)"));
    }

    fn following(&self, row: &str, step: u128) -> Option<String> {
        let length = u128::BITS - step.trailing_zeros();
        match L::FAMILY {
            Family::V4 => Some(format!("(({row}.address | {}) + 1)", step - 1)),
            Family::V6 if self.schema.has_text_addresses => None,
            Family::V6 => {
                Some(format!("set_masklen(broadcast(set_masklen({row}.address, {length})) + 1, 128)"))
            }
        }
    }

    fn or_lock(&self, table: &str, key: &str, column: &str) -> String {
        format!(" ON CONFLICT ({key}) DO UPDATE SET {column} = {table}.{column}")
    }

    fn skips_locked(&self) -> bool {
        true
    }
}

impl<L: ManagedLease> Session<L> for PostgreSqlSession<L> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn has_ended(&mut self, _: Duration) -> bool {
        self.link.wire.has_ended()
    }

    fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Value<'static>>>, DbError> {
        self.link.query(sql, values, |row| {
            let values = values::values(row, kinds.iter().copied())?;
            Ok(values.into_iter().map(values::owned).collect())
        })
    }

    fn select(&mut self, sql: &str, values: &[Value<'_>], columns: &[Column]) -> Result<Vec<L>, DbError> {
        self.link.query(sql, values, |row| lease(row, columns))
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError> {
        self.link.execute(sql, values)
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(bool, T), DbError>,
    ) -> Result<T, DbError> {
        self.link.wire.run(self.link.client.batch_execute("BEGIN"))?;
        let result = work(self).and_then(|(commits, value)| {
            if commits {
                self.link.wire.run(self.link.client.batch_execute("COMMIT"))?;
            }
            Ok((commits, value))
        });
        if !matches!(result, Ok((true, _))) {
            self.link.roll_back();
        }
        result.map(|(_, value)| value)
    }

    fn overwrite(&mut self, changes: &[Write<'_, L>]) -> Result<(), DbError> {
        let (mut new, mut deleted) = (vec![], vec![]);
        for change in changes {
            match change {
                Write::Insert(lease) | Write::Update { new: lease, .. } => {
                    new.push((*lease, lease.fields()));
                }
                Write::Delete(lease) => deleted.push(Value::Address(lease.address().into())),
            }
        }
        if !new.is_empty() {
            self.link.execute(&self.statements.replace.many, &arrays(&self.statements.columns, &new))?;
        }
        if !deleted.is_empty() {
            self.link.execute(&self.statements.remove.many, &[deleted])?;
        }
        Ok(())
    }

    fn write(&mut self, changes: &[Write<'_, L>]) -> Result<Vec<bool>, DbError> {
        if let [change] = changes {
            return Ok(vec![self.write_one(change)?]);
        }
        let (mut inserted, mut new, mut expected, mut deleted) = (vec![], vec![], vec![], vec![]);
        for change in changes {
            match change {
                Write::Insert(lease) => inserted.push((*lease, lease.fields())),
                Write::Update { new: lease, expected: old } => {
                    new.push((*lease, lease.fields()));
                    expected.push((*old, old.fields()));
                }
                Write::Delete(lease) => deleted.push((*lease, lease.fields())),
            }
        }
        let Self { link, statements, .. } = self;
        let insert = Part::new(link, &statements.insert.many, arrays(&statements.columns, &inserted))?;
        let mut values = arrays(&statements.columns, &new);
        values.extend(arrays(&statements.expected, &expected));
        let update = Part::new(link, &statements.update.many, values)?;
        let delete = Part::new(link, &statements.delete.many, arrays(&statements.expected, &deleted))?;

        let client = &link.client;
        let rows = match (&insert, &update, &delete) {
            (None, None, None) => vec![],
            (Some(part), None, None) | (None, Some(part), None) | (None, None, Some(part)) => {
                link.wire.run(part.run(client))?
            }
            _ => {
                let is_incomplete = Cell::new(false);
                let run = async |part: &Option<Part<'_>>| {
                    let Some(part) = part else { return Ok(vec![]) };
                    part.run(client).await.inspect_err(|_| is_incomplete.set(true))
                };
                // All are sent in this order before the first answer is awaited.
                let all = join5(
                    client.batch_execute("BEGIN"),
                    run(&insert),
                    run(&update),
                    run(&delete),
                    end(client, &is_incomplete),
                );
                let (begun, inserted, updated, deleted, ended) = link.wire.run(async { Ok(all.await) })?;
                // Without a transaction, each statement was executed on its own.
                begun.map_err(|err| DbError::new(DbErrorKind::Lost, err))?;
                let rows = [inserted, updated, deleted].into_iter().collect::<Result<Vec<_>, _>>();
                let rows = rows.map_err(errors::statement)?;
                ended.map_err(errors::statement)?;
                rows.into_iter().flatten().collect()
            }
        };
        made(changes, &rows)
    }

    fn write_compared(
        &mut self,
        change: &Write<'_, L>,
        is_expected: &dyn Fn(&L) -> bool,
    ) -> Result<bool, DbError> {
        let (sql, values) = match change {
            Write::Insert(_) => return self.write_one(change),
            Write::Update { new, .. } => (&self.statements.replace.one, row(&self.statements.columns, *new)),
            Write::Delete(lease) => (&self.statements.remove.one, row(&[Column::Address], *lease)),
        };
        let lock = self.link.prepare(&self.statements.lock)?;
        let write = self.link.prepare(sql)?;
        let address = [Value::Address(change.address().into())];
        let client = &self.link.client;
        let address = parameters(&address);
        let locked = join(client.batch_execute("BEGIN"), client.query(&lock, &address));
        let locked = self.link.wire.run(async {
            let (begun, rows) = locked.await;
            begun.and(rows)
        });
        let columns = &self.statements.columns;
        let found = locked.map_err(DbError::of_unchanged).and_then(|rows| {
            let lease = rows.first().map(|row| lease(row, columns)).transpose();
            lease.map_err(|error| DbError::new(DbErrorKind::Other, error))
        });
        let is_wanted = found.as_ref().is_ok_and(|lease| lease.as_ref().is_some_and(is_expected));
        if !is_wanted {
            self.link.roll_back();
            return found.map(|_| false);
        }
        let client = &self.link.client;
        let is_incomplete = Cell::new(false);
        let values = parameters(&values);
        let written =
            async { client.execute(&write, &values).await.inspect_err(|_| is_incomplete.set(true)) };
        let written = join(written, end(client, &is_incomplete));
        let count = self.link.wire.run(async {
            let (written, ended) = written.await;
            written.and_then(|count| ended.map(|()| count))
        })?;
        Ok(count > 0)
    }

    fn get(&mut self, addresses: &[L::Address]) -> Result<Vec<L>, DbError> {
        let value = |&address| Value::Address(L::Address::into(address));
        let values: Vec<_> = addresses.iter().map(value).collect();
        match values.as_slice() {
            [] => Ok(vec![]),
            [_] => self.leases(|statements| &statements.get.one, &values),
            _ => self.leases(|statements| &statements.get.many, &[values]),
        }
    }

    fn of_clients(&mut self, by: ClientColumn, clients: &[(&[u8], u32)]) -> Result<Vec<L>, DbError> {
        let ids = clients.iter().map(|(id, _)| Value::Bytes((*id).into()));
        let subnets = clients.iter().map(|&(_, subnet)| Value::Number(subnet.into()));
        match clients {
            [] => Ok(vec![]),
            [_] => {
                let values: Vec<_> = ids.chain(subnets).collect();
                self.leases(|statements| &statements.of_clients(by).one, &values)
            }
            _ => {
                let arrays: [Vec<_>; 2] = [ids.collect(), subnets.collect()];
                self.leases(|statements| &statements.of_clients(by).many, &arrays)
            }
        }
    }

    fn recount(&mut self) -> Result<(), DbError> {
        self.recount_all()
    }

    fn begin_load(&mut self) -> Result<ControlFlow<(), Table>, DbError> {
        self.begin_loading()
    }

    fn load(&mut self, leases: &[&L]) -> Result<(), DbError> {
        self.load_leases(leases)
    }

    fn end_load(&mut self) -> Result<(), DbError> {
        self.end_loading()
    }

    fn cancel_load(&mut self) {
        self.cancel_loading();
    }
}

/// Returns for each change whether its address is that of a changed row.
fn made<L: ManagedLease>(changes: &[Write<'_, L>], rows: &[Row]) -> Result<Vec<bool>, DbError> {
    let mut made = vec![false; changes.len()];
    for row in rows {
        let values = values::values(row, [Kind::Address].into_iter()).map_err(unknown)?;
        let Some(&Value::Address(address)) = values.first() else {
            return Err(unknown("the address of a changed row is missing"));
        };
        let index = changes.binary_search_by_key(&address, |change| change.address().into());
        let made = index.ok().and_then(|index| made.get_mut(index));
        *made.ok_or_else(|| unknown(format!("the row of {address} was changed unasked")))? = true;
    }
    Ok(made)
}

/// Returns an error after a change has been made, whose extent is unknown.
fn unknown(error: impl Into<Box<dyn Error + Send + Sync>>) -> DbError {
    DbError::new(DbErrorKind::Lost, error)
}
