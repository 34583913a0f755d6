//! What a backend implements: a driver that opens sessions, and the statements whose form depends
//! on the database.

use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use super::columns::{Column, Kind, Value};
use super::options::SqlOptions;
use crate::lease::{Family, LeaseState, LeaseType};
use crate::lease_mgr::{ChangeKind, ManagedLease};

/// What a schema of Kea has, read when a session is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    /// The version: 13.0 is `(13, 0)`.
    pub(crate) version: (u32, u32),
    /// Whether `lease4` has the columns `relay_id` and `remote_id`.
    pub(crate) has_relay_ids: bool,
    /// Whether the lease tables have the column `pool_id`, and there are tables of statistics by
    /// pool.
    pub(crate) has_pool_ids: bool,
    /// Whether `lease6.address` is text (Kea 2.2), and not an address or bytes.
    pub(crate) has_text_addresses: bool,
    /// Maximum number of bytes of a client id or DUID, where the column has one.
    pub(crate) max_client: usize,
    /// The states that the schema has.
    pub(crate) states: Vec<LeaseState>,
    /// The types of DHCPv6 leases that the schema has.
    pub(crate) lease_types: Vec<LeaseType>,
    /// The sources of hardware addresses that the schema has, if it checks them.
    pub(crate) hwaddr_sources: Option<Vec<u32>>,
    /// Maximum type and source of the hardware address of a DHCPv6 lease.
    pub(crate) max_hardware: (u16, u32),
    /// The times that the column `expire` holds, in seconds since the epoch.
    pub(crate) times: (i64, i64),
    /// Maximum number of bytes of a user context.
    pub(crate) max_user_context: usize,
}

/// Opens sessions of a database.
pub(crate) trait Driver<L: ManagedLease>: fmt::Debug + Send + Sync + 'static {
    type Session: Session<L>;

    /// The name of the backend, such as `postgresql`.
    const NAME: &'static str;

    /// Opens a session with the first host of the options that accepts it, and reads the schema.
    ///
    /// # Errors
    /// Returns [`DbErrorKind::NotConnected`] if no host can be reached, and
    /// [`DbErrorKind::Other`] if the database refuses the session or has no schema of a known
    /// version.
    fn connect(&self, options: &SqlOptions) -> Result<Self::Session, DbError>;

    /// Listens for the changes of others; `None` if the database does not tell them.
    ///
    /// # Errors
    /// As [`Driver::connect`].
    fn listen(&self, options: &SqlOptions) -> Result<Option<Box<dyn Listener<L>>>, DbError> {
        let _ = options;
        Ok(None)
    }
}

/// Changes that another manager, server or program has made.
#[derive(Debug)]
pub(crate) struct Notice<L: ManagedLease> {
    pub(crate) kind: ChangeKind,
    pub(crate) addresses: Vec<L::Address>,
}

/// A connection on which a database tells of the changes of others.
pub(crate) trait Listener<L: ManagedLease>: Send {
    /// Waits until changes were told, but not longer than this.
    ///
    /// # Errors
    /// Returns [`DbErrorKind::Lost`] if the connection has ended. It is not used again.
    fn wait(&mut self, time: Duration) -> Result<Vec<Notice<L>>, DbError>;
}

/// A change of a row. The leases are in their kept form.
#[derive(Debug)]
pub(crate) enum Write<'a, L> {
    /// Adds a row, if the address has none.
    Insert(&'a L),
    /// Replaces the row of an address if it has the values of `expected`.
    Update { new: &'a L, expected: &'a L },
    /// Deletes the row of an address if it has the values of this lease.
    Delete(&'a L),
}

impl<L: ManagedLease> Write<'_, L> {
    pub(crate) fn address(&self) -> L::Address {
        match self {
            Self::Insert(lease) | Self::Update { new: lease, .. } | Self::Delete(lease) => lease.address(),
        }
    }
}

/// Maximum number of leases that a batch of look-ups by client reads.
pub(crate) const MAX_FOUND: usize = 4096;

/// The key by which the leases of a client in a subnet are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientColumn {
    /// The client id (DHCPv4) or DUID (DHCPv6).
    Id,
    /// The hardware address.
    HwAddr,
}

impl ClientColumn {
    pub(crate) fn column(self, family: Family) -> Column {
        match (self, family) {
            (Self::Id, Family::V4) => Column::ClientId,
            (Self::Id, Family::V6) => Column::Duid,
            (Self::HwAddr, _) => Column::HwAddr,
        }
    }
}

/// The lease table when leases are loaded into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// It had no rows.
    Empty,
    /// It has rows.
    Filled,
}

/// The dialect of the statements that both kinds of databases understand otherwise alike.
pub(crate) trait Dialect {
    /// Appends the placeholder of the parameter of this number, from 1, for a value of this kind, as
    /// an expression that can be compared with a column: `$1`, or `to_timestamp($1)`.
    fn placeholder(&self, sql: &mut String, number: usize, kind: Kind);

    /// Appends an expression of the value of a column in a result: the name of the column, or a
    /// conversion of it to the type that the session returns for its kind.
    fn column(&self, sql: &mut String, column: Column);

    /// Appends an expression by which rows are ordered as their addresses are, in which addresses
    /// can be compared with [`Dialect::placeholder`] of [`Kind::Address`].
    fn address_order(&self, sql: &mut String);

    /// Appends a condition that is true for the rows whose hostname is the parameter of this
    /// number, which is in lower case. It must be able to use the index of the hostname.
    fn hostname_is(&self, sql: &mut String, number: usize);

    /// Returns an expression of the lowest multiple of `step`, a power of two, that is greater than
    /// the address in a row of this name; `None` if the database cannot calculate it in the form of
    /// the column. The result has another form for a `step` of less than 2^64 if the first 64 bits
    /// of a DHCPv6 address would change.
    fn following(&self, row: &str, step: u128) -> Option<String> {
        let _ = (row, step);
        None
    }

    /// Returns the end of a statement that adds a row to a table, by which an existing row of the
    /// same `key`, a list of columns, is locked and keeps its value of another column.
    fn or_lock(&self, table: &str, key: &str, column: &str) -> String;

    /// Returns whether a selection can skip rows that others have locked.
    fn skips_locked(&self) -> bool;
}

/// A connection to a database. A session that has returned [`DbErrorKind::Lost`] or
/// [`DbErrorKind::Ended`] is not used again.
pub(crate) trait Session<L: ManagedLease>: Dialect + Send {
    /// Returns the schema that was read when the session was opened.
    fn schema(&self) -> &Schema;

    /// Returns whether the session, which was not used for this time, is known to have ended. Asked
    /// before changes, whose outcome is unknown if they are sent in a session that has ended; so it
    /// costs little in a session that is used often.
    fn has_ended(&mut self, idle: Duration) -> bool;

    /// Returns the rows that a statement selects. Their values have the types of `kinds`, or are
    /// [`Value::Null`].
    fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Value<'static>>>, DbError>;

    /// Returns the leases that a statement selects, whose rows have these columns.
    fn select(&mut self, sql: &str, values: &[Value<'_>], columns: &[Column]) -> Result<Vec<L>, DbError>;

    /// Executes a statement, and returns the number of changed rows.
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DbError>;

    /// Calls `work` in a transaction, which is committed if `work` returns true with its result, and
    /// else rolled back. Each statement sees what was committed before it.
    ///
    /// After an error nothing was changed, except after [`DbErrorKind::Lost`].
    fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(bool, T), DbError>,
    ) -> Result<T, DbError>;

    /// Replaces and deletes rows that [`Session::transaction`] has locked, whichever values they
    /// have. Each address occurs once; the changes are in the order of the addresses, and none of
    /// them adds a row.
    fn overwrite(&mut self, changes: &[Write<'_, L>]) -> Result<(), DbError>;

    /// Makes all these changes in one transaction, with one statement for each kind, and returns
    /// for each whether it was made: a row is not added if the address has one, and not replaced or
    /// deleted if it has other values. Each address occurs once; the changes are in the order of
    /// the addresses.
    ///
    /// After an error nothing was changed, except after [`DbErrorKind::Lost`]. In
    /// [`Session::transaction`], only one change can be made.
    fn write(&mut self, changes: &[Write<'_, L>]) -> Result<Vec<bool>, DbError>;

    /// Makes one change as [`Session::write`] does, but compares the row as a lease, not its
    /// values: in one transaction, locks the row, reads it, and changes it if `is_expected` returns
    /// true.
    fn write_compared(
        &mut self,
        change: &Write<'_, L>,
        is_expected: &dyn Fn(&L) -> bool,
    ) -> Result<bool, DbError>;

    /// Returns the leases of several addresses, in any order, with one statement.
    fn get(&mut self, addresses: &[L::Address]) -> Result<Vec<L>, DbError>;

    /// Returns the leases with any of these pairs of a key and a subnet, in any order, at most
    /// [`MAX_FOUND`], with one statement. Each pair occurs once.
    fn of_clients(&mut self, by: ClientColumn, clients: &[(&[u8], u32)]) -> Result<Vec<L>, DbError>;

    /// Replaces the statistics by what the leases say, in one transaction, in which no other session
    /// changes leases.
    fn recount(&mut self) -> Result<(), DbError>;

    /// Begins a transaction that adds many leases faster than [`Session::write`] does, and locks the
    /// lease table until its end; [`ControlFlow::Break`], without a transaction, if the database has
    /// no such way. After an error there is no transaction.
    fn begin_load(&mut self) -> Result<ControlFlow<(), Table>, DbError> {
        Ok(ControlFlow::Break(()))
    }

    /// Adds leases, whose addresses have none, in the transaction of [`Session::begin_load`].
    fn load(&mut self, leases: &[&L]) -> Result<(), DbError> {
        self.write(&leases.iter().copied().map(Write::Insert).collect::<Vec<_>>()).map(drop)
    }

    /// Counts the statistics, and ends the transaction of [`Session::begin_load`]. After an error
    /// other than [`DbErrorKind::Lost`] nothing was added.
    fn end_load(&mut self) -> Result<(), DbError> {
        Ok(())
    }

    /// Ends the transaction of [`Session::begin_load`], so that nothing was added.
    fn cancel_load(&mut self) {}
}

/// What the failure of a statement says about what was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DbErrorKind {
    /// The database cannot be reached, or accepts no sessions now. Nothing was changed.
    NotConnected,
    /// The session has ended. A change that was in progress may have been made.
    Lost,
    /// The session has ended, or accepts no statements any longer. Nothing was changed, nor will be.
    Ended,
    /// The transaction was rolled back because of others: a deadlock, a serialization failure, or a
    /// conflict in a cluster. Nothing was changed; the same may succeed now.
    Conflict,
    /// The database, or its session, is read-only. Nothing was changed.
    ReadOnly,
    /// The database has no space left, or not enough memory. Nothing was changed.
    NoSpace,
    /// The database refuses the values. Nothing was changed.
    Refused,
    /// Another error. Nothing was changed.
    Other,
}

/// An error of a database. Contains no password.
#[derive(Debug)]
pub(crate) struct DbError {
    pub(crate) kind: DbErrorKind,
    pub(crate) source: Box<dyn Error + Send + Sync>,
}

impl DbError {
    pub(crate) fn new(kind: DbErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// Returns the error of a statement that changes nothing, or whose changes are rolled back when
    /// the session ends.
    pub(crate) fn of_unchanged(self) -> Self {
        let kind = if self.kind == DbErrorKind::Lost { DbErrorKind::Ended } else { self.kind };
        Self { kind, ..self }
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for DbError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
