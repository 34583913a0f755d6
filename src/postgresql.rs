//! Leases in a PostgreSQL database of Kea.
//!
//! The calling thread does the input and output of a session itself: there is no runtime and no
//! other thread, so a session can be used from any thread, also from one of an async runtime.

mod connect;
mod errors;
mod link;
mod load;
mod opener;
mod session;
mod statements;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod values;

pub use opener::{PostgresqlOpener, create_schema};

use self::session::PostgreSqlSession;
use crate::lease_mgr::ManagedLease;
use crate::sql::driver::{DbError, Driver};
use crate::sql::options::SqlOptions;

/// Opens sessions of PostgreSQL.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PostgreSql;

impl<L: ManagedLease> Driver<L> for PostgreSql {
    type Session = PostgreSqlSession<L>;

    const NAME: &'static str = "postgresql";

    fn connect(&self, options: &SqlOptions) -> Result<PostgreSqlSession<L>, DbError> {
        let (link, schema) = connect::connect(options)?;
        Ok(PostgreSqlSession::new(link, schema))
    }
}
