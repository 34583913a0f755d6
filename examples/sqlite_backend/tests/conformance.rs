//! The backend keeps all rules, in both families, and what it keeps outlives it.

use std::sync::Arc;

use leasemgr::conformance::{Subject, TestedLease, assert_persists4, assert_persists6};
use leasemgr::lease::Lease4;
use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory, ManagedLease};
use sqlite_backend::{Sqlite, SqliteOpener};
use tempfile::TempDir;

struct InFile(TempDir);

impl<L: TestedLease + ManagedLease> Subject<L> for InFile {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        let name = self.0.path().join("leases.db");
        Arc::new(Sqlite::open(name.to_str().unwrap()).unwrap())
    }
}

fn in_file() -> InFile {
    InFile(tempfile::tempdir().unwrap())
}

#[test]
fn all_rules_are_kept_in_dhcpv4() {
    assert_persists4(in_file);
}

#[test]
fn all_rules_are_kept_in_dhcpv6() {
    assert_persists6(in_file);
}

#[test]
fn it_is_opened_by_connection_string() {
    let factory = LeaseMgrFactory::<Lease4>::new();
    factory.register(Arc::new(SqliteOpener)).unwrap();
    let leases = factory.open("type=sqlite name=:memory:").unwrap();
    assert_eq!((leases.status().backend.as_str(), leases.all().unwrap()), ("sqlite", vec![]));
}
