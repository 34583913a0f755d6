//! The backend passes all rules, in both families, and its leases are persistent.

use std::sync::Arc;

use leasemgr::conformance::{Fixture, TestedLease};
use leasemgr::lease::Lease4;
use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory, ManagedLease};
use sqlite_backend::{Sqlite, SqliteOpener};
use tempfile::TempDir;

struct InFile(TempDir);

impl<L: TestedLease + ManagedLease> Fixture<L> for InFile {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        let name = self.0.path().join("leases.db");
        Arc::new(Sqlite::open(name.to_str().unwrap()).unwrap())
    }
}

fn in_file() -> InFile {
    InFile(tempfile::tempdir().unwrap())
}

mod v4 {
    leasemgr::conformance_tests!(v4, persistent, super::in_file);
}

mod v6 {
    leasemgr::conformance_tests!(v6, persistent, super::in_file);
}

#[test]
fn it_is_opened_by_connection_string() {
    let factory = LeaseMgrFactory::<Lease4>::new();
    factory.register(Arc::new(SqliteOpener)).unwrap();
    let leases = factory.open("type=sqlite name=:memory:").unwrap();
    assert_eq!((leases.status().backend.as_str(), leases.all().unwrap()), ("sqlite", vec![]));
}
