//! Errors of the factory.

use super::OpenerError;
use crate::connection::ConnectionStringError;

/// Why the factory cannot do an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// The connection string is invalid.
    #[error("the connection string is invalid")]
    ConnectionString(#[from] ConnectionStringError),
    /// No backend has this name.
    #[error("unknown type {name:?} of a lease manager, known: {}", registered.join(", "))]
    UnknownType {
        /// The name.
        name: String,
        /// The names of the registered backends.
        registered: Vec<String>,
    },
    /// Kea has a backend of this name, but this build does not.
    #[error("this build has no lease manager of type {name:?}, it has: {}", registered.join(", "))]
    NotBuilt {
        /// The name.
        name: String,
        /// The names of the registered backends.
        registered: Vec<String>,
    },
    /// A backend of this name is registered already.
    #[error("a lease manager type {name:?} is registered already")]
    Registered {
        /// The name.
        name: String,
    },
    /// There is no current lease manager.
    #[error("there is no lease manager: none was created, or it was destroyed or is being opened")]
    NoInstance,
    /// The current lease manager has other owners, so it cannot be closed and reopened.
    #[error("the lease manager cannot be reopened while it is in use, references: {holders}")]
    InUse {
        /// Number of references outside the factory.
        holders: usize,
    },
    /// The backend cannot open the lease manager.
    #[error("cannot open a lease manager of type {backend}")]
    Open {
        /// The backend.
        backend: String,
        /// The error of the backend.
        source: OpenerError,
    },
}
