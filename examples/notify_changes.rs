//! Installs the triggers by which lease managers learn of the changes of others in a PostgreSQL
//! database, or removes them.
//!
//! ```text
//! notify_changes 'type=postgresql name=kea host=db user=kea password-file=FILE' [remove]
//! ```
//!
//! The user must own the tables. Kea's servers and `kea-admin` go on as before.

use std::error::Error;
use std::io::{Write, stdout};

use leasemgr::connection::ConnectionString;
use leasemgr::{postgresql, with_sources};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (connection, done, change): (_, _, fn(&ConnectionString) -> _) = match arguments.as_slice() {
        [connection] => (connection, "installed", postgresql::install_notify),
        [connection, "remove"] => (connection, "removed", postgresql::remove_notify),
        _ => return Err("usage: notify_changes CONNECTION-STRING [remove]".into()),
    };
    let connection: ConnectionString = connection.parse()?;
    change(&connection).map_err(|error| with_sources(&*error).to_string())?;
    Ok(writeln!(stdout(), "{connection}: the triggers were {done}")?)
}
