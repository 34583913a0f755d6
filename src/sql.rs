//! What the backends for databases of Kea share: the columns of its tables, the statements that
//! both kinds of databases understand, and the lease manager, which sends waiting operations
//! together.
//!
//! A backend has a [`Driver`](driver::Driver), which opens connections, and their
//! [`Session`](driver::Session), which sends statements in the dialect of its database.

pub(crate) mod columns;
pub(crate) mod driver;
mod free;
mod import;
mod kept;
pub(crate) mod manager;
pub(crate) mod opener;
pub(crate) mod options;
mod queue;
pub(crate) mod recount;
pub(crate) mod schema;
mod select;
mod sessions;

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
