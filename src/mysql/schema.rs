//! What the schema of a database has.

use ::mysql::prelude::Queryable;
use ::mysql::{Conn, Row, Value as Wire};

use super::error;
use super::values::{Addresses, TIMES, number};
use crate::lease::{Family, LeaseState, LeaseType};
use crate::sql::columns::table;
use crate::sql::driver::{DbError, DbErrorKind, Schema};

/// The major versions of Kea 2.2 to 3.3.
const VERSIONS: std::ops::RangeInclusive<u32> = 14..=35;

/// The database cannot keep leases.
#[derive(Debug, thiserror::Error)]
enum SchemaError {
    #[error("the database has no schema of Kea; kea-admin db-init mysql creates it")]
    Missing,
    #[error(
        "the schema of the database has version {major}.{minor}, supported are {} to {}",
        VERSIONS.start(),
        VERSIONS.end()
    )]
    Version { major: u32, minor: u32 },
    #[error("the table {table} of the database has no column {column} of a known type")]
    Column { table: &'static str, column: &'static str },
}

impl From<SchemaError> for DbError {
    fn from(error: SchemaError) -> Self {
        Self::new(DbErrorKind::Other, error)
    }
}

/// A column of the lease table.
struct Described {
    name: String,
    bytes: usize,
    charset: String,
    collation: String,
}

/// What a session knows of the tables.
pub(super) struct Tables {
    pub(super) schema: Schema,
    pub(super) addresses: Addresses,
    /// The character set and collation of hostnames.
    pub(super) hostname: (String, String),
    /// Whether the server can skip rows that others have locked.
    pub(super) skips_locked: bool,
}

/// Reads the schema for the leases of a family.
pub(super) fn read(connection: &mut Conn, family: Family) -> Result<Tables, DbError> {
    let version = version(connection)?;
    let table = table(family);
    let columns = columns(connection, table)?;
    let find = |name: &str| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    let required = |column| find(column).ok_or(SchemaError::Column { table, column });
    let client = required(if family == Family::V4 { "client_id" } else { "duid" })?;
    let user_context = required("user_context")?;
    let address = required("address")?;
    let hostname = required("hostname")?;
    // The names become part of statements.
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name(&address.charset) || !is_name(&address.collation) {
        return Err(SchemaError::Column { table, column: "address" }.into());
    }
    let is_text = !hostname.charset.is_empty() && !hostname.collation.is_empty();
    if !is_text || !is_name(&hostname.charset) || !is_name(&hostname.collation) {
        return Err(SchemaError::Column { table, column: "hostname" }.into());
    }
    let addresses = match family {
        Family::V4 => Addresses::V4,
        Family::V6 if address.charset.is_empty() => Addresses::V6,
        Family::V6 => {
            Addresses::Text { charset: address.charset.clone(), collation: address.collation.clone() }
        }
    };
    let tables = rows(
        connection,
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
         AND TABLE_NAME IN ('lease4_pool_stat', 'lease6_pool_stat')",
    )?;
    let has_pool_tables = tables.first().and_then(|row| row.first()).and_then(number) == Some(2);
    let numbers = |connection: &mut Conn, sql: &str| -> Result<Vec<u32>, DbError> {
        let rows = rows(connection, sql)?;
        let numbers = rows.iter().filter_map(|row| row.first().and_then(number));
        Ok(numbers.filter_map(|number| u32::try_from(number).ok()).collect())
    };
    let states = numbers(connection, "SELECT state FROM lease_state ORDER BY state")?;
    let types = numbers(connection, "SELECT lease_type FROM lease6_types ORDER BY lease_type")?;
    let sources =
        numbers(connection, "SELECT hwaddr_source FROM lease_hwaddr_source ORDER BY hwaddr_source")?;
    let schema = Schema {
        version,
        has_relay_ids: find("relay_id").is_some() && find("remote_id").is_some(),
        has_pool_ids: find("pool_id").is_some() && has_pool_tables,
        has_text_addresses: matches!(addresses, Addresses::Text { .. }),
        max_client: client.bytes,
        states: states.into_iter().map(LeaseState).collect(),
        lease_types: types.into_iter().filter_map(|number| number.try_into().ok().map(LeaseType)).collect(),
        hwaddr_sources: Some(sources),
        max_hardware: (u16::MAX, u32::MAX),
        times: TIMES,
        max_user_context: user_context.bytes,
    };
    let hostname = (hostname.charset.clone(), hostname.collation.clone());
    let server = rows(connection, "SELECT CAST(VERSION() AS CHAR)")?;
    let skips_locked = match server.first().and_then(|row| row.first()) {
        Some(Wire::Bytes(version)) => skips_locked(&String::from_utf8_lossy(version)),
        _ => false,
    };
    Ok(Tables { schema, addresses, hostname, skips_locked })
}

/// Returns whether a server of this version can skip rows that others have locked: MariaDB 10.6 and
/// MySQL 8.0.1 can.
fn skips_locked(version: &str) -> bool {
    let numbers =
        version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let numbers: Vec<_> = numbers.take(3).collect();
    numbers >= if version.contains("MariaDB") { vec![10, 6] } else { vec![8, 0, 1] }
}

/// Reads the version and checks that it is known.
fn version(connection: &mut Conn) -> Result<(u32, u32), DbError> {
    let rows = match connection.query::<Row, _>("SELECT version, minor FROM schema_version") {
        Ok(rows) => rows,
        // No such table.
        Err(error) if error::code(&error) == Some(1146) => return Err(SchemaError::Missing.into()),
        Err(error) => return Err(error::of_statement(error)),
    };
    let row = rows.into_iter().next().map(values).ok_or(SchemaError::Missing)?;
    let column = |index: usize| {
        let number = row.get(index).and_then(number).unwrap_or(0);
        u32::try_from(number).unwrap_or(0)
    };
    let (major, minor) = (column(0), column(1));
    if !VERSIONS.contains(&major) {
        return Err(SchemaError::Version { major, minor }.into());
    }
    Ok((major, minor))
}

fn columns(connection: &mut Conn, table: &str) -> Result<Vec<Described>, DbError> {
    let rows = rows(
        connection,
        &format!(
            "SELECT COLUMN_NAME, CHARACTER_OCTET_LENGTH, CHARACTER_SET_NAME, COLLATION_NAME \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}'"
        ),
    )?;
    let text = |value: Option<&Wire>| match value {
        Some(Wire::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    let columns = rows.iter().map(|row| Described {
        name: text(row.first()),
        bytes: row.get(1).and_then(number).and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
        charset: text(row.get(2)),
        collation: text(row.get(3)),
    });
    Ok(columns.collect())
}

/// Returns the rows of a statement without parameters.
pub(super) fn rows(connection: &mut Conn, sql: &str) -> Result<Vec<Vec<Wire>>, DbError> {
    let rows = connection.query::<Row, _>(sql).map_err(error::of_statement)?;
    Ok(rows.into_iter().map(values).collect())
}

/// Returns the values of a row.
pub(super) fn values(row: Row) -> Vec<Wire> {
    row.unwrap_raw().into_iter().map(|value| value.unwrap_or(Wire::NULL)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    #[rstest]
    #[case("10.11.19-MariaDB-0+deb12u1-log", true)]
    #[case("10.6.0-MariaDB", true)]
    #[case("10.5.28-MariaDB", false)]
    #[case("8.0.36", true)]
    #[case("8.0.0-dmr", false)]
    #[case("5.7.44-log", false)]
    #[case("", false)]
    fn servers_that_skip_locked_rows_are_known(#[case] version: &str, #[case] expected: bool) {
        assert_eq!(super::skips_locked(version), expected);
    }
}
