//! The statements of a lease table.
//!
//! A statement for several leases has an array for each column, and joins it in the order of its
//! addresses, so that all sessions lock rows in the same order.

use std::fmt::Write as _;

use crate::lease::Family;
use crate::sql::columns::{Column, Kind, table};
use crate::sql::driver::{ClientColumn, MAX_FOUND, Schema};

/// The statements of a lease table. Parameters are values, or arrays of values, of columns.
#[derive(Debug)]
pub(super) struct Statements {
    /// The columns of results, and of a new row.
    pub(super) columns: Vec<Column>,
    /// The columns by which a conditional change selects a row: the address, and those that it
    /// compares.
    pub(super) expected: Vec<Column>,
    /// Parameters: a new row. The result of the statements for several rows are the addresses of
    /// changed rows.
    pub(super) insert: OneOrMany,
    /// Parameters: a new row, the address and values of the expected row.
    pub(super) update: OneOrMany,
    /// Parameters: the address and values of the expected row.
    pub(super) delete: OneOrMany,
    /// Parameter: an address, whose row is locked.
    pub(super) lock: String,
    /// Parameters: a new row.
    pub(super) replace: OneOrMany,
    /// Parameter: an address, or an array of addresses.
    pub(super) remove: OneOrMany,
    /// Parameter: an address, or an array of addresses.
    pub(super) get: OneOrMany,
    /// Parameters: a client id or DUID and a subnet, or an array of each. At most [`MAX_FOUND`] rows.
    of_ids: OneOrMany,
    /// The same by hardware address.
    of_hwaddrs: OneOrMany,
}

/// A statement for one lease, and the one that does the same for several.
#[derive(Debug)]
pub(super) struct OneOrMany {
    pub(super) one: String,
    pub(super) many: String,
}

impl Statements {
    pub(super) fn new(family: Family, schema: &Schema) -> Self {
        let columns = Column::of(family, schema);
        let expected: Vec<_> = columns
            .iter()
            .copied()
            .filter(|&column| column == Column::Address || column.is_compared())
            .collect();
        let table = table(family);
        let names = list(&columns, |_, column| column.name().to_owned());
        let selected = list(&columns, |_, column| selected(column));
        let array = |number, column| format!("${number}::{}[]", array_type(family, schema, column));
        let arrays =
            |columns: &[Column], after: usize| list(columns, |number, column| array(after + number, column));
        let count = columns.len();
        // The columns of the arrays have names that no column of the table has.
        let aliases = |prefix, count| {
            let aliases: Vec<_> = (1..=count).map(|number| format!("{prefix}{number}")).collect();
            aliases.join(", ")
        };
        let (new_names, expected_names) = (aliases("n", count), aliases("e", expected.len()));
        let new_arrays = arrays(&columns, 0);
        let set = |prefix| {
            list(columns.get(1..).unwrap_or_default(), |number, column| {
                format!("{} = {prefix}{}", column.name(), number + 1)
            })
        };
        let is_expected = |prefix: &str, after: usize| {
            let conditions: Vec<_> = (after + 1..)
                .zip(&expected)
                .map(|(number, &column)| format!("{} = {prefix}{number}", compared(column)))
                .collect();
            conditions.join(" AND ")
        };
        let address_type = array_type(family, schema, Column::Address);
        let of_clients = |by: ClientColumn| {
            let client = by.column(family).name();
            OneOrMany {
                one: format!(
                    "SELECT {selected} FROM {table} WHERE {client} = $1 AND subnet_id = $2 LIMIT {MAX_FOUND}"
                ),
                many: format!(
                    "SELECT {selected} FROM unnest($1::bytea[], $2::int8[]) AS n(client, subnet) \
                     JOIN {table} ON {client} = client AND subnet_id = subnet LIMIT {MAX_FOUND}",
                ),
            }
        };
        Self {
            insert: OneOrMany {
                one: format!(
                    "INSERT INTO {table} ({names}) VALUES ({}) ON CONFLICT (address) DO NOTHING",
                    list(&columns, |number, _| format!("${number}")),
                ),
                many: format!(
                    "INSERT INTO {table} ({names}) SELECT * FROM unnest({new_arrays}) \
                     ON CONFLICT (address) DO NOTHING RETURNING address",
                ),
            },
            update: OneOrMany {
                // The server infers the type of a parameter only where it is used.
                one: format!(
                    "UPDATE {table} AS l SET {} WHERE l.address = $1 AND {}",
                    set("$"),
                    is_expected("$", count)
                ),
                many: format!(
                    "UPDATE {table} AS l SET {} FROM unnest({new_arrays}, {}) AS n({new_names}, \
                     {expected_names}) WHERE {} RETURNING l.address",
                    set("n"),
                    arrays(&expected, count),
                    is_expected("e", 0),
                ),
            },
            delete: OneOrMany {
                one: format!("DELETE FROM {table} AS l WHERE {}", is_expected("$", 0)),
                many: format!(
                    "DELETE FROM {table} AS l USING unnest({}) AS n({expected_names}) WHERE {} \
                     RETURNING l.address",
                    arrays(&expected, 0),
                    is_expected("e", 0),
                ),
            },
            lock: format!("SELECT {selected} FROM {table} WHERE address = $1 FOR UPDATE"),
            replace: OneOrMany {
                one: format!("UPDATE {table} SET {} WHERE address = $1", set("$")),
                many: format!(
                    "UPDATE {table} AS l SET {} FROM unnest({new_arrays}) AS n({new_names}) \
                     WHERE l.address = n1",
                    set("n"),
                ),
            },
            remove: OneOrMany {
                one: format!("DELETE FROM {table} WHERE address = $1"),
                many: format!("DELETE FROM {table} WHERE address = ANY($1::{address_type}[])"),
            },
            get: OneOrMany {
                one: format!("SELECT {selected} FROM {table} WHERE address = $1"),
                many: format!("SELECT {selected} FROM {table} WHERE address = ANY($1::{address_type}[])"),
            },
            of_ids: of_clients(ClientColumn::Id),
            of_hwaddrs: of_clients(ClientColumn::HwAddr),
            columns,
            expected,
        }
    }

    pub(super) fn of_clients(&self, by: ClientColumn) -> &OneOrMany {
        match by {
            ClientColumn::Id => &self.of_ids,
            ClientColumn::HwAddr => &self.of_hwaddrs,
        }
    }
}

/// Returns a list of what there is for each column, whose numbers are from 1.
fn list(columns: &[Column], item: impl Fn(usize, Column) -> String) -> String {
    let mut list = String::new();
    for (number, &column) in (1..).zip(columns) {
        let separator = if number == 1 { "" } else { ", " };
        let _ = write!(list, "{separator}{}", item(number, column));
    }
    list
}

/// Returns the expression of a column in a result. The type and source of a hardware address have
/// values without meaning if there is no address, and identity associations have a sign.
pub(super) fn selected(column: Column) -> String {
    let name = column.name();
    match column {
        Column::HwType | Column::HwAddrSource => format!("CASE WHEN hwaddr <> '' THEN {name} END"),
        Column::Iaid => format!("{name}::int8 & 4294967295"),
        _ => name.to_owned(),
    }
}

/// Returns the expression that is compared with the value of a lease. NULL is read as the value
/// that a lease without the field has.
fn compared(column: Column) -> String {
    let name = column.name();
    match column {
        Column::HwType => "CASE WHEN l.hwaddr <> '' THEN coalesce(l.hwtype, 1) ELSE 0 END".to_owned(),
        Column::HwAddrSource => {
            "CASE WHEN l.hwaddr <> '' THEN coalesce(l.hwaddr_source, 0) ELSE 0 END".to_owned()
        }
        _ => match column.kind() {
            Kind::Address | Kind::Time => format!("l.{name}"),
            Kind::Number => format!("coalesce(l.{name}, 0)"),
            Kind::Flag => format!("coalesce(l.{name}, false)"),
            Kind::Bytes | Kind::Text => format!("coalesce(l.{name}, '')"),
        },
    }
}

/// Returns the type of the elements of an array of the values of a column.
fn array_type(family: Family, schema: &Schema, column: Column) -> &'static str {
    match column {
        Column::Address if family == Family::V4 => "int8",
        Column::Address if schema.has_text_addresses => "text",
        Column::Address => "inet",
        Column::LeaseType | Column::PrefixLen | Column::HwType | Column::HwAddrSource => "int2",
        Column::Iaid => "int4",
        _ => match column.kind() {
            Kind::Number | Kind::Address => "int8",
            Kind::Flag => "bool",
            Kind::Bytes => "bytea",
            Kind::Text => "text",
            Kind::Time => "timestamptz",
        },
    }
}
