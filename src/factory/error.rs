//! Why there is no lease manager.

use super::OpenerError;
use crate::connection::ConnectionStringError;

/// Why the factory did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// The connection string is not right.
    #[error("the connection string is invalid")]
    ConnectionString(#[from] ConnectionStringError),
    /// There is no backend of this name.
    #[error("unknown type {name:?} of a lease manager, known: {}", registered.join(", "))]
    UnknownType {
        /// The name.
        name: String,
        /// The names that are registered.
        registered: Vec<String>,
    },
    /// Kea has a backend of this name, and this build has not.
    #[error("this build has no lease manager of type {name:?}, it has: {}", registered.join(", "))]
    NotBuilt {
        /// The name.
        name: String,
        /// The names that are registered.
        registered: Vec<String>,
    },
    /// The name of a backend is taken.
    #[error("a lease manager type {name:?} is registered already")]
    Registered {
        /// The name.
        name: String,
    },
    /// There is no current lease manager.
    #[error("there is no lease manager: none was created, or it was destroyed or is being opened")]
    NoInstance,
    /// The current lease manager cannot be closed to be opened again.
    #[error("the lease manager cannot be opened again while others hold it, references: {holders}")]
    InUse {
        /// How many references there are outside of the factory.
        holders: usize,
    },
    /// The backend cannot open the lease manager.
    #[error("cannot open a lease manager of type {backend}")]
    Open {
        /// The backend.
        backend: String,
        /// Why.
        source: OpenerError,
    },
}
