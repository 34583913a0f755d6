//! Makes Kea's tables in an empty database, without Kea's tools.
//!
//! ```text
//! create_schema 'type=postgresql name=kea host=db user=kea password-file=FILE' [VERSION]
//! create_schema 'type=mysql name=kea host=db user=kea password-file=FILE' [VERSION]
//! ```
//!
//! The version is that of Kea 2.2 (PostgreSQL 13, MySQL 14) or of Kea 3.3 (34, 35; the default). A
//! server of Kea starts with its own version only.

use std::error::Error;
use std::io::{Write, stdout};

use leasemgr::connection::ConnectionString;
use leasemgr::{mysql, postgresql, with_sources};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (connection, version) = match arguments.as_slice() {
        [connection] => (connection, None),
        [connection, version] => (connection, Some(version.parse()?)),
        _ => return Err("usage: create_schema CONNECTION-STRING [VERSION]".into()),
    };
    let connection: ConnectionString = connection.parse()?;
    match connection.required("type")? {
        "postgresql" => postgresql::create_schema(&connection, version),
        "mysql" => mysql::create_schema(&connection, version),
        other => Err(format!("type is {other:?}, expected postgresql or mysql").into()),
    }
    .map_err(|error| with_sources(&*error).to_string())?;
    Ok(writeln!(stdout(), "{connection}: the schema was made")?)
}
