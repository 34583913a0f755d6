//! A session: reads leases, and sends the statements of the shared part.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use ::mysql::prelude::Queryable;
use ::mysql::{Conn, Params, QueryResult, Row, Value as Wire};

use super::error::{self, TOO_MANY_STATEMENTS};
use super::schema::{Tables, values};
use super::statement::{MAX_ROWS, Statement};
use super::values::{Addresses, encode};
use crate::lease_mgr::ManagedLease;
use crate::sql::columns::{self, Column, Kind, Value};
use crate::sql::driver::{ClientColumn, DbError, DbErrorKind, Dialect, MAX_FOUND, Schema, Session, Write};
use crate::sql::recount::{self, Counting};

/// How leases are counted: in the order of the primary key, so that locks are those of whole rows.
/// The names of classes can be the same in the collation of Kea's table.
const COUNTING: Counting = Counting {
    hint: "FORCE INDEX (PRIMARY)",
    classes: "JSON_TABLE(IF(l.user_context <> '', l.user_context, '{}'), '$.ISC.\"client-classes\"[*]' \
        COLUMNS (class VARCHAR(128) PATH '$')) AS c",
    class: "CONVERT(class USING utf8mb4) COLLATE utf8mb4_bin",
    is_class: "class IS NOT NULL",
    on_conflict: "ON DUPLICATE KEY UPDATE leases = leases + VALUES(leases)",
};

/// Time after which the server is asked whether a session is there.
const LONG_IDLE: Duration = Duration::from_millis(100);

/// A connection to a server.
pub(crate) struct MySqlSession<L> {
    pub(super) connection: Conn,
    schema: Schema,
    pub(super) addresses: Addresses,
    /// The character set and collation of hostnames.
    hostname: (String, String),
    /// The columns that are written.
    pub(super) written: Vec<Column>,
    /// The columns that are read: not those that follow from others.
    pub(super) read: Vec<Column>,
    /// Text of `read` in a statement.
    pub(super) selected: String,
    /// Whether the server can skip rows that others have locked.
    skips_locked: bool,
    leases: PhantomData<fn() -> L>,
}

impl<L> fmt::Debug for MySqlSession<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlSession").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl<L: ManagedLease> MySqlSession<L> {
    pub(super) fn new(connection: Conn, tables: Tables) -> Self {
        let Tables { schema, addresses, hostname, skips_locked } = tables;
        let written = Column::of(L::FAMILY, &schema);
        let is_read = |column: &Column| !matches!(column, Column::RelayId | Column::RemoteId);
        let read: Vec<_> = written.iter().copied().filter(is_read).collect();
        let mut session = Self {
            connection,
            schema,
            addresses,
            hostname,
            written,
            read,
            selected: String::new(),
            skips_locked,
            leases: PhantomData,
        };
        let mut selected = String::new();
        for (index, &column) in session.read.iter().enumerate() {
            if index > 0 {
                selected.push_str(", ");
            }
            session.column(&mut selected, column);
        }
        session.selected = selected;
        session
    }

    /// Sends a statement about this number of rows, and returns what `read` does with the answer.
    /// It is prepared if others of the same text will follow.
    pub(super) fn run<T>(
        &mut self,
        rows: usize,
        compose: impl Fn(&Self, bool) -> Statement,
        read: impl Fn(&mut dyn Answer) -> Result<T, ::mysql::Error>,
    ) -> Result<T, Failure> {
        if rows.is_power_of_two() && rows <= MAX_ROWS {
            let statement = compose(self, false);
            match self.connection.prep(&statement.sql) {
                Ok(prepared) => {
                    let values = Params::Positional(statement.values);
                    let answer = self.connection.exec_iter(prepared, values);
                    return answer.and_then(|mut answer| read(&mut answer)).map_err(Failure::Executed);
                }
                Err(error) if error::code(&error) == Some(TOO_MANY_STATEMENTS) => {}
                Err(error) => return Err(Failure::Unprepared(error)),
            }
        }
        let statement = compose(self, true);
        let answer = self.connection.query_iter(statement.sql);
        answer.and_then(|mut answer| read(&mut answer)).map_err(Failure::Executed)
    }

    /// Returns the rows that a statement selects, whose columns are those that are read.
    pub(super) fn rows(
        &mut self,
        rows: usize,
        compose: impl Fn(&Self, bool) -> Statement,
    ) -> Result<Vec<Vec<Value<'static>>>, DbError> {
        let rows = self.run(rows, compose, |answer| answer.rows()).map_err(Failure::into_error)?;
        Ok(rows
            .into_iter()
            .map(|row| self.decode(row, self.read.iter().map(|column| column.kind())))
            .collect())
    }

    fn decode(&self, row: Vec<Wire>, kinds: impl Iterator<Item = Kind>) -> Vec<Value<'static>> {
        row.into_iter().zip(kinds).map(|(value, kind)| self.addresses.decode_as(value, kind)).collect()
    }

    /// Returns the lease of a row.
    pub(super) fn lease(&self, row: &[Value<'_>]) -> Result<L, DbError> {
        lease(&self.read, row)
    }

    /// Returns the start of a statement that selects leases.
    pub(super) fn select(&self, literal: bool) -> Statement {
        Statement::new(
            literal,
            &format!("SELECT {} FROM {} WHERE ", self.selected, columns::table(L::FAMILY)),
        )
    }

    /// Appends a list of addresses in parentheses.
    pub(super) fn list(&self, statement: &mut Statement, addresses: &[L::Address]) {
        statement.push("(");
        for (index, &address) in addresses.iter().enumerate() {
            statement.separate(index, ", ");
            let value = self.addresses.encode(address.into());
            match self.addresses {
                // In the character set of the column: if the column were converted to that of the
                // literals, the server would read the whole table.
                Addresses::Text { .. } => statement.derived(Kind::Address, value, &self.addresses),
                _ => statement.value(Kind::Address, value),
            }
        }
        statement.push(")");
    }

    /// Returns the parameters of a statement of the shared part, which has their numbers.
    fn parameters(&self, values: &[Value<'_>]) -> Params {
        if values.is_empty() {
            return Params::Empty;
        }
        let named = values.iter().enumerate().map(|(index, value)| {
            let value = match value {
                // A time outside of the type is NULL, with which no comparison is true.
                Value::Time(time) => Wire::Int((*time).clamp(0, self.schema.times.1)),
                value => encode(value, &self.addresses),
            };
            (format!("p{}", index + 1).into_bytes(), value)
        });
        Params::Named(named.collect())
    }
}

/// Returns the lease of a row with these columns.
fn lease<L: ManagedLease>(columns: &[Column], row: &[Value<'_>]) -> Result<L, DbError> {
    columns::lease(columns, row).map_err(|error| DbError::new(DbErrorKind::Other, error))
}

/// Why there is no answer to a statement.
pub(super) enum Failure {
    /// It was not prepared, and so not executed.
    Unprepared(::mysql::Error),
    Executed(::mysql::Error),
}

impl Failure {
    /// Returns the number of an error of the server.
    pub(super) fn code(&self) -> Option<u16> {
        let (Self::Unprepared(error) | Self::Executed(error)) = self;
        error::code(error)
    }

    pub(super) fn into_error(self) -> DbError {
        match self {
            Self::Unprepared(error) => error::of_statement(error).of_unchanged(),
            Self::Executed(error) => error::of_statement(error),
        }
    }
}

/// The answer to a statement, prepared or not.
pub(super) trait Answer {
    fn rows(&mut self) -> Result<Vec<Vec<Wire>>, ::mysql::Error>;
    /// Returns the number of rows that were added, found or deleted.
    fn affected(&mut self) -> u64;
}

impl<P: ::mysql::prelude::Protocol> Answer for QueryResult<'_, '_, '_, P> {
    fn rows(&mut self) -> Result<Vec<Vec<Wire>>, ::mysql::Error> {
        self.map(|row: Result<Row, _>| row.map(values)).collect()
    }

    fn affected(&mut self) -> u64 {
        self.affected_rows()
    }
}

impl<L: ManagedLease> Dialect for MySqlSession<L> {
    fn placeholder(&self, sql: &mut String, number: usize, kind: Kind) {
        let text = match (kind, &self.addresses) {
            (Kind::Time, _) => format!("FROM_UNIXTIME(:p{number})"),
            (Kind::Address, Addresses::Text { .. }) => format!("INET6_ATON(:p{number})"),
            _ => format!(":p{number}"),
        };
        sql.push_str(&text);
    }

    fn column(&self, sql: &mut String, column: Column) {
        if column == Column::Expire {
            sql.push_str("UNIX_TIMESTAMP(expire)");
        } else {
            sql.push_str(column.name());
        }
    }

    fn address_order(&self, sql: &mut String) {
        sql.push_str(match self.addresses {
            Addresses::Text { .. } => "INET6_ATON(address)",
            _ => "address",
        });
    }

    fn hostname_is(&self, sql: &mut String, number: usize) {
        // The first comparison finds the rows in the index, by the column's collation, in which other
        // names can be equal; the second one is exact. A name that the column's character set does
        // not have is an error without the conversion.
        let (charset, collation) = &self.hostname;
        sql.push_str(&format!(
            "(hostname = CONVERT(:p{number} USING {charset}) COLLATE {collation} AND CAST(LOWER(CONVERT(hostname USING utf8mb4)) AS BINARY) \
             = CAST(:p{number} AS BINARY))"
        ));
    }

    /// The server calculates with 64 bits.
    fn following(&self, row: &str, step: u128) -> Option<String> {
        let half = |bytes: &str, step: u128| {
            let number = format!("CAST(CONV(HEX({bytes}), 16, 10) AS UNSIGNED)");
            format!("UNHEX(LPAD(HEX(({number} | {}) + 1), 16, '0'))", step - 1)
        };
        match self.addresses {
            Addresses::V4 => Some(format!("(({row}.address | {}) + 1)", step - 1)),
            Addresses::Text { .. } => None,
            Addresses::V6 if step > u64::MAX.into() => {
                let high = half(&format!("LEFT({row}.address, 8)"), step >> 64);
                Some(format!("CONCAT({high}, REPEAT(CHAR(0), 8))"))
            }
            Addresses::V6 => {
                let low = half(&format!("RIGHT({row}.address, 8)"), step);
                Some(format!("CONCAT(LEFT({row}.address, 8), {low})"))
            }
        }
    }

    fn or_lock(&self, _: &str, _: &str, column: &str) -> String {
        format!(" ON DUPLICATE KEY UPDATE {column} = {column}")
    }

    fn skips_locked(&self) -> bool {
        self.skips_locked
    }
}

impl<L: ManagedLease> Session<L> for MySqlSession<L> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The socket of the connection is not accessible, so the server is asked.
    fn has_ended(&mut self, idle: Duration) -> bool {
        idle >= LONG_IDLE && self.connection.ping().is_err()
    }

    fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Value<'static>>>, DbError> {
        let parameters = self.parameters(values);
        let rows = self
            .connection
            .exec_iter(sql, parameters)
            .and_then(|mut answer| Answer::rows(&mut answer))
            .map_err(error::of_statement)?;
        Ok(rows.into_iter().map(|row| self.decode(row, kinds.iter().copied())).collect())
    }

    fn select(&mut self, sql: &str, values: &[Value<'_>], columns: &[Column]) -> Result<Vec<L>, DbError> {
        let kinds: Vec<_> = columns.iter().map(|column| column.kind()).collect();
        let rows = self.query(sql, values, &kinds)?;
        rows.iter().map(|row| lease(columns, row)).collect()
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError> {
        let parameters = self.parameters(values);
        let answer = self.connection.exec_iter(sql, parameters).map_err(error::of_statement)?;
        Ok(answer.affected_rows())
    }

    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(bool, T), DbError>,
    ) -> Result<T, DbError> {
        self.in_transaction(work)
    }

    fn overwrite(&mut self, changes: &[Write<'_, L>]) -> Result<(), DbError> {
        self.overwrite_locked(changes)
    }

    fn write(&mut self, changes: &[Write<'_, L>]) -> Result<Vec<bool>, DbError> {
        self.write_changes(changes)
    }

    fn write_compared(
        &mut self,
        change: &Write<'_, L>,
        is_expected: &dyn Fn(&L) -> bool,
    ) -> Result<bool, DbError> {
        self.write_if(change, is_expected)
    }

    fn get(&mut self, addresses: &[L::Address]) -> Result<Vec<L>, DbError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.rows(addresses.len(), |session, literal| {
            let mut statement = session.select(literal);
            statement.push("address IN ");
            session.list(&mut statement, addresses);
            statement
        })?;
        rows.iter().map(|row| self.lease(row)).collect()
    }

    fn of_clients(&mut self, by: ClientColumn, clients: &[(&[u8], u32)]) -> Result<Vec<L>, DbError> {
        if clients.is_empty() {
            return Ok(Vec::new());
        }
        let client = by.column(L::FAMILY);
        let rows = self.rows(clients.len(), |session, literal| {
            let mut statement = session.select(literal);
            for (index, &(id, subnet)) in clients.iter().enumerate() {
                statement.separate(index, " OR ");
                statement.push(&format!("({} = ", client.name()));
                statement.value(Kind::Bytes, Wire::Bytes(id.to_vec()));
                statement.push(" AND subnet_id = ");
                statement.value(Kind::Number, Wire::UInt(subnet.into()));
                statement.push(")");
            }
            statement.push(&format!(" LIMIT {MAX_FOUND}"));
            statement
        })?;
        rows.iter().map(|row| self.lease(row)).collect()
    }

    fn recount(&mut self) -> Result<(), DbError> {
        let table = columns::table(L::FAMILY);
        let statements = recount::statements(L::FAMILY, &self.schema, COUNTING);
        // The next transaction locks also the gaps between the rows that it reads.
        let isolated = self.connection.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        isolated.map_err(error::of_statement)?;
        self.in_transaction(|session| {
            let lock = format!("SELECT COUNT(*) FROM {table} {} LOCK IN SHARE MODE", COUNTING.hint);
            for sql in [lock].iter().chain(&statements) {
                session.connection.query_drop(sql).map_err(error::of_statement)?;
            }
            Ok((true, ()))
        })
    }
}
