//! The statements that select leases by a query.

use std::fmt::Write;
use std::net::IpAddr;

use super::columns::{Column, Kind, Value, table};
use super::driver::{Dialect, Schema};
use crate::lease::{Family, LeaseState};
use crate::lease_mgr::{Key, ManagedLease, Query};

/// A statement, and the values of its parameters.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub(super) sql: String,
    pub(super) values: Vec<Value<'a>>,
}

/// Builds a statement.
pub(super) struct Builder<'a, 'd, D: Dialect + ?Sized> {
    statement: Statement<'a>,
    dialect: &'d D,
    has_conditions: bool,
}

impl<'a, 'd, D: Dialect + ?Sized> Builder<'a, 'd, D> {
    /// Begins a statement with this text.
    pub(super) fn new(dialect: &'d D, sql: impl Into<String>) -> Self {
        let statement = Statement { sql: sql.into(), values: Vec::new() };
        Self { statement, dialect, has_conditions: false }
    }

    /// Begins a selection of whole leases.
    pub(super) fn leases(dialect: &'d D, family: Family, columns: &[Column]) -> Self {
        let mut sql = "SELECT ".to_owned();
        for (n, column) in columns.iter().enumerate() {
            if n > 0 {
                sql.push_str(", ");
            }
            dialect.column(&mut sql, *column);
        }
        let _ = write!(sql, " FROM {}", table(family));
        Self::new(dialect, sql)
    }

    /// Appends text.
    pub(super) fn text(&mut self, sql: &str) {
        self.statement.sql.push_str(sql);
    }

    /// Appends a parameter.
    pub(super) fn value(&mut self, kind: Kind, value: Value<'a>) {
        self.statement.values.push(value);
        let number = self.statement.values.len();
        self.dialect.placeholder(&mut self.statement.sql, number, kind);
    }

    /// Begins the conditions of another selection.
    pub(super) fn begin_conditions(&mut self) {
        self.has_conditions = false;
    }

    /// Begins another condition.
    fn and(&mut self) {
        self.text(if self.has_conditions { " AND " } else { " WHERE " });
        self.has_conditions = true;
    }

    /// Appends a condition on a column: its name, an operator, and a parameter.
    pub(super) fn condition(&mut self, left: &str, kind: Kind, value: Value<'a>) {
        self.and();
        self.text(left);
        self.text(" ");
        self.value(kind, value);
    }

    /// Appends a condition without parameters.
    pub(super) fn fixed(&mut self, condition: &str) {
        self.and();
        self.text(condition);
    }

    /// Appends a condition on the order of addresses.
    fn address(&mut self, operator: &str, address: Value<'a>) {
        self.and();
        self.dialect.address_order(&mut self.statement.sql);
        self.text(operator);
        self.value(Kind::Address, address);
    }

    /// Appends the condition that the row has one of these addresses, in the form of the column.
    pub(super) fn addresses<A: Into<IpAddr>>(&mut self, addresses: impl Iterator<Item = A>) {
        self.and();
        self.text("address IN (");
        for (index, address) in addresses.enumerate() {
            self.text(if index > 0 { ", " } else { "" });
            // A placeholder of `Kind::Address` would be in the form of `Dialect::address_order`.
            self.value(Kind::Text, Value::Address(address.into()));
        }
        self.text(")");
    }

    /// Orders the rows by their addresses.
    pub(super) fn by_address(&mut self, reversed: bool) {
        self.text(" ORDER BY ");
        self.dialect.address_order(&mut self.statement.sql);
        if reversed {
            self.text(" DESC");
        }
    }

    pub(super) fn limit(&mut self, limit: usize) {
        // A larger limit does not fit in the database's type, and selects all rows anyway.
        if i64::try_from(limit).is_ok() {
            let _ = write!(self.statement.sql, " LIMIT {limit}");
        }
    }

    pub(super) fn end(self) -> Statement<'a> {
        self.statement
    }
}

/// Returns whether the conditions of [`find`] are those of the query, so that every selected lease
/// is meant.
pub(super) fn is_exact<L: ManagedLease>(query: &Query<'_, L>, schema: &Schema) -> bool {
    let by_key = match query.key {
        Key::All | Key::State(_) | Key::HwAddr(_) => true,
        Key::Client(client) => client.iaid.is_none() && client.lease_type.is_none(),
        Key::RelayId(_) | Key::RemoteId(_) => L::FAMILY == Family::V4 && schema.has_relay_ids,
        Key::Hostname(_) => false,
    };
    by_key && query.heard_since.is_none() && query.heard_until.is_none()
}

/// Returns the statement that selects at least the leases of a query, at most `limit`, in the order
/// of their addresses.
pub(super) fn find<'a, L: ManagedLease>(
    dialect: &(impl Dialect + ?Sized),
    schema: &Schema,
    columns: &[Column],
    query: &Query<'a, L>,
    limit: Option<usize>,
) -> Statement<'a> {
    let mut builder = Builder::leases(dialect, L::FAMILY, columns);
    conditions(&mut builder, schema, query);
    builder.by_address(query.reversed);
    if let Some(limit) = limit {
        builder.limit(limit);
    }
    builder.end()
}

/// Returns the statement that selects these columns of the leases whose addresses are after this one
/// in the order of the texts of addresses, which is that of the primary key: at most `limit`, in this
/// order.
pub(super) fn in_text_order(
    dialect: &(impl Dialect + ?Sized),
    family: Family,
    columns: &[Column],
    after: Option<&str>,
    limit: usize,
) -> Statement<'static> {
    let mut builder = Builder::leases(dialect, family, columns);
    if let Some(after) = after {
        builder.condition("address >", Kind::Text, Value::Text(after.to_owned().into()));
    }
    builder.text(" ORDER BY address");
    builder.limit(limit);
    builder.end()
}

/// Appends the conditions of a query, as far as columns have them.
pub(super) fn conditions<'a, L: ManagedLease, D: Dialect + ?Sized>(
    builder: &mut Builder<'a, '_, D>,
    schema: &Schema,
    query: &Query<'a, L>,
) {
    let bytes = |bytes: &'a [u8]| Value::Bytes(bytes.into());
    let has_relay_ids = L::FAMILY == Family::V4 && schema.has_relay_ids;
    match query.key {
        Key::All => {}
        Key::State(state) => builder.condition("state =", Kind::Number, Value::Number(state.0.into())),
        Key::HwAddr(hwaddr) => builder.condition("hwaddr =", Kind::Bytes, bytes(hwaddr.as_bytes())),
        Key::Client(client) => {
            let column = if L::FAMILY == Family::V4 { "client_id =" } else { "duid =" };
            builder.condition(column, Kind::Bytes, bytes(client.id));
        }
        Key::Hostname(name) => {
            let name = String::from_utf8_lossy(name.as_bytes()).to_ascii_lowercase();
            builder.and();
            builder.statement.values.push(Value::Text(name.into()));
            let number = builder.statement.values.len();
            builder.dialect.hostname_is(&mut builder.statement.sql, number);
        }
        Key::RelayId(id) if has_relay_ids => {
            builder.condition("relay_id =", Kind::Bytes, bytes(id.as_bytes()));
        }
        Key::RemoteId(id) if has_relay_ids => {
            builder.condition("remote_id =", Kind::Bytes, bytes(id.as_bytes()));
        }
        // The ids are in the user context.
        Key::RelayId(_) | Key::RemoteId(_) => builder.fixed("user_context LIKE '%ISC%'"),
    }
    if let Some(subnet) = query.subnet {
        builder.condition("subnet_id =", Kind::Number, Value::Number(subnet.0.into()));
    }
    if let Some(ended_by) = query.ended_by {
        has_ended(builder, ended_by);
    }
    let after = if query.reversed { " < " } else { " > " };
    let bounds = [(" >= ", query.first), (" <= ", query.last), (after, query.after)];
    for (operator, address) in bounds {
        if let Some(address) = address {
            builder.address(operator, Value::Address(address.into()));
        }
    }
}

/// Appends the condition that a lease has ended at a time, in seconds since the epoch.
fn has_ended<D: Dialect + ?Sized>(builder: &mut Builder<'_, '_, D>, time: i64) {
    builder.condition("valid_lifetime <>", Kind::Number, Value::Number(u32::MAX.into()));
    builder.condition("expire <=", Kind::Time, Value::Time(time));
}

/// Returns the statement that selects the leases that have ended at a time and are not reclaimed,
/// in the order of their ends and addresses.
pub(super) fn ended<'a>(
    dialect: &(impl Dialect + ?Sized),
    family: Family,
    columns: &[Column],
    time: i64,
    limit: Option<usize>,
) -> Statement<'a> {
    let mut builder = unordered_ended(dialect, family, columns, time);
    builder.text(" ORDER BY expire, ");
    dialect.address_order(&mut builder.statement.sql);
    if let Some(limit) = limit {
        builder.limit(limit);
    }
    builder.end()
}

/// Returns the statement that selects at most `limit` of the leases of [`ended`], the first by their
/// ends, and locks them; it skips those that others have locked.
pub(super) fn lock_ended<'a>(
    dialect: &(impl Dialect + ?Sized),
    family: Family,
    columns: &[Column],
    time: i64,
    limit: usize,
) -> Statement<'a> {
    let mut builder = unordered_ended(dialect, family, columns, time);
    // By an order that no index has, MySQL would lock all of them.
    builder.text(" ORDER BY expire");
    builder.limit(limit);
    builder.text(" FOR UPDATE SKIP LOCKED");
    builder.end()
}

fn unordered_ended<'a, 'd, D: Dialect + ?Sized>(
    dialect: &'d D,
    family: Family,
    columns: &[Column],
    time: i64,
) -> Builder<'a, 'd, D> {
    let mut builder = Builder::leases(dialect, family, columns);
    let reclaimed = Value::Number(LeaseState::EXPIRED_RECLAIMED.0.into());
    builder.condition("state <>", Kind::Number, reclaimed);
    has_ended(&mut builder, time);
    builder
}
