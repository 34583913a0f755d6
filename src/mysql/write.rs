//! Changes of rows, several in one statement for each kind.

use std::collections::HashMap;

use ::mysql::Value as Wire;
use ::mysql::prelude::Queryable;

use super::error::{self, DUPLICATE_KEY};
use super::schema::table;
use super::session::MySqlSession;
use super::statement::{MAX_ROWS, Statement};
use super::values::{TIMES, absent, encode, is_expected};
use crate::lease_mgr::ManagedLease;
use crate::sql::columns::{self, Column, Kind, Value};
use crate::sql::driver::{DbError, DbErrorKind, Write};

/// Maximum number of bytes of the user contexts of a statement, far below the smallest packet that
/// servers take.
const MAX_BYTES: usize = 128 << 10;

/// A time that a column cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("the time {0} is not from {min} to {max}", min = TIMES.0, max = TIMES.1)]
struct TimeError(i64);

/// The session saw other rows than it had locked.
#[derive(Debug, thiserror::Error)]
#[error("rows were modified concurrently")]
struct ModifiedError;

/// The kinds of changes, in the order of their statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Insert,
    Update,
    Delete,
}

const ACTIONS: [Action; 3] = [Action::Insert, Action::Update, Action::Delete];

impl Action {
    fn of<L>(change: &Write<'_, L>) -> Self {
        match change {
            Write::Insert(_) => Self::Insert,
            Write::Update { .. } => Self::Update,
            Write::Delete(_) => Self::Delete,
        }
    }
}

/// Returns the new lease and the expected one of a change.
fn leases<'a, L>(change: &Write<'a, L>) -> (Option<&'a L>, Option<&'a L>) {
    match *change {
        Write::Insert(new) => (Some(new), None),
        Write::Update { new, expected } => (Some(new), Some(expected)),
        Write::Delete(expected) => (None, Some(expected)),
    }
}

/// The changes of one statement.
struct Chunk<'c, 'a, L> {
    action: Action,
    changes: Vec<&'c Write<'a, L>>,
}

/// Divides changes into those of one statement each.
fn chunks<'c, 'a, L: ManagedLease>(
    changes: impl Iterator<Item = &'c Write<'a, L>> + Clone,
) -> Vec<Chunk<'c, 'a, L>> {
    let mut chunks = Vec::new();
    for action in ACTIONS {
        let mut bytes = 0;
        let mut chunk = Chunk { action, changes: Vec::new() };
        for change in changes.clone().filter(|change| Action::of(change) == action) {
            let (new, expected) = leases(change);
            let context = |lease: &L| lease.fields().user_context.map_or(0, str::len);
            let added = new.map_or(0, context) + expected.map_or(0, context);
            if chunk.changes.len() == MAX_ROWS || (bytes > 0 && bytes + added > MAX_BYTES) {
                chunks.push(std::mem::replace(&mut chunk, Chunk { action, changes: Vec::new() }));
                bytes = 0;
            }
            bytes += added;
            chunk.changes.push(change);
        }
        if !chunk.changes.is_empty() {
            chunks.push(chunk);
        }
    }
    chunks
}

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    All,
    /// Fewer than all. If rows were added, none of them.
    Fewer,
}

impl<L: ManagedLease> MySqlSession<L> {
    /// Makes changes as [`Session::write`](crate::sql::driver::Session::write) does.
    pub(super) fn write_changes(&mut self, changes: &[Write<'_, L>]) -> Result<Vec<bool>, DbError> {
        for change in changes {
            check_times(change)?;
        }
        let chunks = chunks(changes.iter());
        match (changes, chunks.as_slice()) {
            ([], _) => Ok(Vec::new()),
            ([change], [chunk]) => match self.run_chunk(chunk, true)? {
                Made::All => Ok(vec![true]),
                Made::Fewer if chunk.action != Action::Insert => Ok(vec![false]),
                Made::Fewer => self.address_is_taken(change.address()).map(|()| vec![false]),
            },
            // A statement that adds rows adds all of them or none.
            (_, [chunk]) if chunk.action == Action::Insert => match self.run_chunk(chunk, true)? {
                Made::All => Ok(vec![true; changes.len()]),
                Made::Fewer => self.write_locked(changes),
            },
            _ => {
                let made = self.transaction(|session| {
                    for chunk in &chunks {
                        if session.run_chunk(chunk, true)? == Made::Fewer {
                            return Ok((false, Made::Fewer));
                        }
                    }
                    Ok((true, Made::All))
                })?;
                match made {
                    Made::All => Ok(vec![true; changes.len()]),
                    Made::Fewer => self.write_locked(changes),
                }
            }
        }
    }

    /// Makes those changes that find what they expect in the rows, which are locked.
    fn write_locked(&mut self, changes: &[Write<'_, L>]) -> Result<Vec<bool>, DbError> {
        let addresses: Vec<_> = changes.iter().map(Write::address).collect();
        self.transaction(|session| {
            let mut rows = HashMap::with_capacity(addresses.len());
            for addresses in addresses.chunks(MAX_ROWS) {
                for row in session.lock(addresses)? {
                    if let Some(Value::Address(address)) = row.first() {
                        rows.insert(*address, row);
                    }
                }
            }
            let passes = |change: &Write<'_, L>| {
                let row = rows.get(&change.address().into());
                match leases(change).1 {
                    None => row.is_none(),
                    Some(expected) => row.is_some_and(|row| session.has_values(row, expected)),
                }
            };
            let made: Vec<_> = changes.iter().map(passes).collect();
            let passing = changes.iter().zip(&made).filter(|(_, made)| **made).map(|(change, _)| change);
            for chunk in chunks(passing) {
                session.run_locked(&chunk)?;
            }
            Ok((true, made))
        })
    }

    /// Makes a change as [`Session::write_compared`](crate::sql::driver::Session::write_compared)
    /// does.
    pub(super) fn write_if(
        &mut self,
        change: &Write<'_, L>,
        is_expected: &dyn Fn(&L) -> bool,
    ) -> Result<bool, DbError> {
        check_times(change)?;
        let address = change.address();
        self.transaction(|session| {
            let rows = session.lock(&[address])?;
            let passes = match (rows.first(), change) {
                (row, Write::Insert(_)) => row.is_none(),
                // A row that is not a lease is not the expected one.
                (Some(row), _) => session.lease(row).is_ok_and(|lease| is_expected(&lease)),
                (None, _) => false,
            };
            if passes {
                for chunk in chunks([change].into_iter()) {
                    session.run_locked(&chunk)?;
                }
            }
            Ok((passes, passes))
        })
    }

    /// Checks that an address has a row: a duplicate key can also be that of a row of statistics,
    /// which two sessions add at the same time.
    fn address_is_taken(&mut self, address: L::Address) -> Result<(), DbError> {
        let rows = self.rows(1, |session, literal| {
            let mut statement = session.select(literal);
            statement.push("address IN ");
            session.list(&mut statement, &[address]);
            statement
        })?;
        if rows.is_empty() { Err(DbError::new(DbErrorKind::Conflict, ModifiedError)) } else { Ok(()) }
    }

    /// Returns the rows of these addresses, which stay as they are until the transaction ends.
    fn lock(&mut self, addresses: &[L::Address]) -> Result<Vec<Vec<Value<'static>>>, DbError> {
        self.rows(addresses.len(), |session, literal| {
            let mut statement = session.select(literal);
            statement.push("address IN ");
            session.list(&mut statement, addresses);
            statement.push(" ORDER BY address FOR UPDATE");
            statement
        })
    }

    /// Returns whether a row has the values of a lease.
    fn has_values(&self, row: &[Value<'_>], expected: &L) -> bool {
        let fields = expected.fields();
        self.read.iter().zip(row).all(|(&column, value)| {
            !column.is_compared() || is_expected(column, value, &column.value(expected, &fields))
        })
    }

    /// Does something in a transaction, which is committed if it returns true, and else rolled back.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(bool, T), DbError>,
    ) -> Result<T, DbError> {
        self.connection.query_drop("START TRANSACTION").map_err(error::of_statement)?;
        let result = work(self).and_then(|(commit, value)| {
            if commit {
                self.connection.query_drop("COMMIT").map_err(error::of_statement)?;
            }
            Ok((commit, value))
        });
        match result {
            Ok((true, value)) => Ok(value),
            Err(error) if error.kind == DbErrorKind::Lost => Err(error),
            // An error of a lock wait or of COMMIT can leave the transaction open.
            result => match self.connection.query_drop("ROLLBACK") {
                Ok(()) => result.map(|(_, value)| value),
                Err(error) => Err(DbError { kind: DbErrorKind::Lost, ..error::of_statement(error) }),
            },
        }
    }

    /// Makes changes of rows that are locked, or of addresses that had no row.
    fn run_locked(&mut self, chunk: &Chunk<'_, '_, L>) -> Result<(), DbError> {
        match self.run_chunk(chunk, false)? {
            Made::All => Ok(()),
            // Rows that do not exist cannot be locked.
            Made::Fewer => Err(DbError::new(DbErrorKind::Conflict, ModifiedError)),
        }
    }

    /// Sends the statement of several changes.
    fn run_chunk(&mut self, chunk: &Chunk<'_, '_, L>, compare: bool) -> Result<Made, DbError> {
        let count = chunk.changes.len();
        let affected = self.run(
            count,
            |session, literal| match chunk.action {
                Action::Insert => session.insert(&chunk.changes, literal),
                Action::Update | Action::Delete if count == 1 => {
                    session.change_one(&chunk.changes, literal, compare)
                }
                action => session.change_several(action, &chunk.changes, literal, compare),
            },
            |answer| Ok(answer.affected()),
        );
        match affected {
            Ok(affected) if usize::try_from(affected).is_ok_and(|affected| affected >= count) => {
                Ok(Made::All)
            }
            Ok(_) => Ok(Made::Fewer),
            Err(error) if chunk.action == Action::Insert && error::code(&error) == Some(DUPLICATE_KEY) => {
                Ok(Made::Fewer)
            }
            Err(error) => Err(error::of_statement(error)),
        }
    }

    fn insert(&self, changes: &[&Write<'_, L>], literal: bool) -> Statement {
        let mut statement = Statement::new(literal, &format!("INSERT INTO {} (", table(L::FAMILY)));
        for (index, column) in self.written.iter().enumerate() {
            statement.separate(index, ", ");
            statement.push(column.name());
        }
        statement.push(") VALUES ");
        for (index, new) in changes.iter().filter_map(|change| leases(change).0).enumerate() {
            statement.separate(index, ", ");
            statement.push("(");
            let fields = new.fields();
            for (index, &column) in self.written.iter().enumerate() {
                statement.separate(index, ", ");
                statement.value(column.kind(), self.stored(column, &column.value(new, &fields)));
            }
            statement.push(")");
        }
        statement
    }

    /// Returns the columns that an update sets.
    fn set_columns(&self) -> impl Iterator<Item = Column> {
        self.written.iter().copied().filter(|&column| column != Column::Address)
    }

    /// Returns the columns that a conditional change compares.
    fn compared_columns(&self, compare: bool) -> impl Iterator<Item = Column> {
        self.written.iter().copied().filter(move |column| compare && column.is_compared())
    }

    /// Returns the statement that replaces or deletes one row.
    fn change_one(&self, changes: &[&Write<'_, L>], literal: bool, compare: bool) -> Statement {
        let table = table(L::FAMILY);
        let mut statement = Statement::new(literal, "");
        for change in changes {
            let (new, expected) = leases(change);
            match new {
                None => statement.push(&format!("DELETE FROM {table} WHERE address IN ")),
                Some(new) => {
                    statement.push(&format!("UPDATE {table} SET "));
                    let fields = new.fields();
                    for (index, column) in self.set_columns().enumerate() {
                        statement.separate(index, ", ");
                        statement.push(column.name());
                        statement.push(" = ");
                        statement.value(column.kind(), self.stored(column, &column.value(new, &fields)));
                    }
                    statement.push(" WHERE address IN ");
                }
            }
            self.list(&mut statement, &[change.address()]);
            let Some(expected) = expected else { continue };
            let fields = expected.fields();
            for column in self.compared_columns(compare) {
                statement.push(" AND ");
                let value = self.expected(column, &column.value(expected, &fields));
                compare_column(&mut statement, column, "", |statement| {
                    compared_value(statement, column, value.clone());
                });
            }
        }
        statement
    }

    /// Returns the statement that replaces or deletes several rows, by a join with a table of the new
    /// and the expected values. The order of the join is given: the primary key is used for each row.
    fn change_several(
        &self,
        action: Action,
        changes: &[&Write<'_, L>],
        literal: bool,
        compare: bool,
    ) -> Statement {
        let table = table(L::FAMILY);
        let start = if action == Action::Update { "UPDATE (" } else { "DELETE l FROM (" };
        let mut statement = Statement::new(literal, start);
        for (index, change) in changes.iter().enumerate() {
            statement.separate(index, " UNION ALL ");
            statement.push("SELECT ");
            let name = |statement: &mut Statement, prefix: &str, column: Column| {
                if index == 0 {
                    statement.push(&format!(" AS {prefix}{}", column.name()));
                }
            };
            let (new, expected) = leases(change);
            let address = self.addresses.encode(change.address().into());
            statement.derived(Kind::Address, address, &self.addresses);
            name(&mut statement, "", Column::Address);
            if let Some(new) = new {
                let fields = new.fields();
                for column in self.set_columns() {
                    statement.push(", ");
                    let value = self.stored(column, &column.value(new, &fields));
                    statement.derived(column.kind(), value, &self.addresses);
                    name(&mut statement, "", column);
                }
            }
            if let Some(expected) = expected {
                let fields = expected.fields();
                for column in self.compared_columns(compare) {
                    statement.push(", ");
                    let value = self.expected(column, &column.value(expected, &fields));
                    compared_value(&mut statement, column, value);
                    name(&mut statement, "old_", column);
                }
            }
        }
        statement.push(&format!(") n STRAIGHT_JOIN {table} l ON l.address = n.address"));
        for column in self.compared_columns(compare) {
            statement.push(" AND ");
            compare_column(&mut statement, column, "l.", |statement| {
                statement.push("n.old_");
                statement.push(column.name());
            });
        }
        if action == Action::Update {
            for (index, column) in self.set_columns().enumerate() {
                statement.push(if index == 0 { " SET " } else { ", " });
                let name = column.name();
                statement.push(&format!("l.{name} = n.{name}"));
            }
        }
        statement
    }

    /// Returns the value of a column as it is stored.
    fn stored(&self, column: Column, value: &Value<'_>) -> Wire {
        if *value == Value::Null { absent(column, L::FAMILY) } else { encode(value, &self.addresses) }
    }

    /// Returns the value that a column is compared with: empty for bytes and texts that are absent.
    fn expected(&self, column: Column, value: &Value<'_>) -> Wire {
        match (value, column.kind()) {
            (Value::Null, Kind::Bytes | Kind::Text) => Wire::Bytes(Vec::new()),
            _ => encode(value, &self.addresses),
        }
    }
}

/// Appends a value that a column is compared with. Texts are compared as bytes.
fn compared_value(statement: &mut Statement, column: Column, value: Wire) {
    match column.kind() {
        Kind::Bytes | Kind::Text => statement.bytes(value),
        kind => statement.value(kind, value),
    }
}

/// Appends the comparison of a column with an expected value.
fn compare_column(statement: &mut Statement, column: Column, table: &str, expected: impl Fn(&mut Statement)) {
    let name = column.name();
    match column {
        // Those of a hardware address that is absent are not compared.
        Column::HwType | Column::HwAddrSource => {
            statement.push(&format!("{table}{name} <=> IFNULL("));
            expected(statement);
            statement.push(&format!(", {table}{name})"));
        }
        _ => {
            match column.kind() {
                Kind::Bytes => statement.push(&format!("IFNULL({table}{name}, '')")),
                Kind::Text => statement
                    .push(&format!("CAST(CONVERT(IFNULL({table}{name}, '') USING utf8mb4) AS BINARY)")),
                _ => statement.push(&format!("{table}{name}")),
            }
            statement.push(" = ");
            expected(statement);
        }
    }
}

/// Checks that the table can hold the times of a change: a time that it cannot hold would be NULL.
fn check_times<L: ManagedLease>(change: &Write<'_, L>) -> Result<(), DbError> {
    let (new, expected) = leases(change);
    for lease in new.into_iter().chain(expected) {
        let time = columns::expire(&lease.fields());
        if !(TIMES.0..=TIMES.1).contains(&time) {
            return Err(DbError::new(DbErrorKind::Refused, TimeError(time)));
        }
    }
    Ok(())
}
