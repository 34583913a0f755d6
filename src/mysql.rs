//! Leases in a MySQL or MariaDB database of Kea.

mod connect;
mod error;
mod opener;
mod schema;
mod session;
mod statement;
#[cfg(test)]
mod tests;
mod values;
mod write;

pub use opener::{MysqlOpener, create_schema};
