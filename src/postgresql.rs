//! Leases in a PostgreSQL database of Kea.
//!
//! The calling thread does the input and output of a session itself: there is no runtime and no
//! other thread, so a session can be used from any thread, also from one of an async runtime.

mod connect;
mod errors;
mod link;
mod load;
mod notify;
mod opener;
mod session;
mod statements;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::hash::{BuildHasher, RandomState};

pub use opener::{PostgresqlOpener, create_schema, install_notify, remove_notify};

use self::session::PostgreSqlSession;
use crate::lease_mgr::ManagedLease;
use crate::sql::driver::{DbError, Driver, Listener};
use crate::sql::options::SqlOptions;

/// Opens sessions of PostgreSQL for one manager.
#[derive(Clone, Debug)]
pub(crate) struct PostgreSql {
    /// A random name, of hexadecimal digits.
    manager: String,
}

impl Default for PostgreSql {
    fn default() -> Self {
        let random = || RandomState::new().hash_one(std::process::id());
        Self { manager: format!("{:016x}{:016x}", random(), random()) }
    }
}

impl<L: ManagedLease> Driver<L> for PostgreSql {
    type Session = PostgreSqlSession<L>;

    const NAME: &'static str = "postgresql";

    fn connect(&self, options: &SqlOptions) -> Result<PostgreSqlSession<L>, DbError> {
        let (link, schema) = connect::connect(options, &notify::belongs_to(&self.manager))?;
        Ok(PostgreSqlSession::new(link, schema))
    }

    fn listen(&self, options: &SqlOptions) -> Result<Option<Box<dyn Listener<L>>>, DbError> {
        notify::listen(options, &self.manager)
    }
}
