//! Databases with the schema of Kea 3.3, which tests use one after the other.

use std::fmt::Write;
use std::sync::Mutex;

use crate::databases::{Database, Server};

/// Databases that no test uses now.
static UNUSED: Mutex<Vec<(Server, String)>> = Mutex::new(Vec::new());

impl Server {
    /// Makes a database with this name for the suite.
    fn make(self, name: &str) {
        self.create(name, None);
        // What the database can hold beyond Kea's own states and types, if its reference tables have it.
        self.execute(
            name,
            "INSERT INTO lease_state VALUES (5, '5'), (77, '77'), (78, '78'), (256, '256'), (257, '257'), \
             (258, '258'), (4294967295, '4294967295'); \
             INSERT INTO lease6_types VALUES (1, 'IA_TA'), (7, '7')",
        );
    }
}

impl Database {
    /// Returns a database without leases.
    pub(crate) fn new(server: Server) -> Self {
        let unused = {
            let mut unused = UNUSED.lock().unwrap();
            unused.iter().position(|(of, _)| *of == server).map(|n| unused.swap_remove(n).1)
        };
        let name = unused.unwrap_or_else(|| {
            let name = Self::new_name("test");
            server.make(&name);
            name
        });
        let mut sql = "DELETE FROM lease4; DELETE FROM lease6".to_owned();
        for family in ["lease4", "lease6"] {
            for statistics in ["stat", "pool_stat", "stat_by_client_class"] {
                let _ = write!(sql, "; DELETE FROM {family}_{statistics}");
            }
        }
        let database = Self { server, name, _turn: None };
        database.execute(&sql);
        database
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.name.starts_with("test_") {
            UNUSED.lock().unwrap().push((self.server, self.name.clone()));
        }
    }
}
