//! The backends for databases, on the servers of `scripts/databases`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/databases.rs"]
mod databases;

use std::sync::Arc;

use databases::{Database, Server};
use leasemgr::conformance::{Fixture, TestedLease};
use leasemgr::{LeaseMgr, ManagedLease};

/// The suite, with several managers on one database.
struct Shared(Database);

impl Shared {
    fn new(server: Server) -> Self {
        Self(Database::new(server))
    }
}

impl<L: TestedLease + ManagedLease> Fixture<L> for Shared {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        self.0.open()
    }

    fn is_shared(&self) -> bool {
        true
    }
}

mod postgresql4 {
    leasemgr::conformance_tests!(v4, shared, || super::Shared::new(super::Server::Postgresql));
}

mod postgresql6 {
    leasemgr::conformance_tests!(v6, shared, || super::Shared::new(super::Server::Postgresql));
}

mod mysql4 {
    leasemgr::conformance_tests!(v4, shared, || super::Shared::new(super::Server::Mariadb));
}

mod mysql6 {
    leasemgr::conformance_tests!(v6, shared, || super::Shared::new(super::Server::Mariadb));
}
