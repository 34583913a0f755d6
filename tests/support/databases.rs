//! Databases with Kea's schema, on the servers of `scripts/databases`.

use std::env;
use std::fmt::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use leasemgr::connection::ConnectionString;
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease};

/// A database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Postgresql,
    Mariadb,
}

/// Databases that no test uses now.
static UNUSED: Mutex<Vec<(Server, String)>> = Mutex::new(Vec::new());

/// A database with the schema of Kea 3.3 and without leases, for one test at a time.
pub(crate) struct Database {
    pub(crate) server: Server,
    pub(crate) name: String,
    /// Only one test at a time uses the database of `kea-admin`.
    pub(crate) _turn: Option<Turn>,
}

/// The turn of a test, which others wait for. Unlike a guard of a mutex, it can be sent.
pub(crate) struct Turn;

/// Whether a test has its turn.
static TAKEN: Mutex<bool> = Mutex::new(false);
static ENDED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap();
        *ENDED.wait_while(taken, |taken| *taken).unwrap() = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap() = false;
        ENDED.notify_one();
    }
}

impl Server {
    /// The type in connection strings.
    pub(crate) fn backend(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mysql",
        }
    }

    /// Returns how to reach the server, without a database.
    pub(crate) fn address(self) -> String {
        let variable = match self {
            Self::Postgresql => "LEASEMGR_POSTGRESQL",
            Self::Mariadb => "LEASEMGR_MYSQL",
        };
        env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set; run scripts/databases run postgresql mariadb -- cargo test ...")
        })
    }

    /// Executes statements in a database, and returns what they print.
    pub(crate) fn execute(self, database: &str, sql: &str) -> String {
        let address: ConnectionString =
            format!("type={} {}", self.backend(), self.address()).parse().unwrap();
        let (host, port) = (address.get("host").unwrap(), address.get("port").unwrap());
        let (user, password) = (address.get("user").unwrap(), address.get("password").unwrap());
        let mut command;
        match self {
            Self::Postgresql => {
                command = Command::new("psql");
                command.env("PGPASSWORD", password).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
                command.args(["-h", host, "-p", port, "-U", user, "-d", database, "-c", sql]);
            }
            Self::Mariadb => {
                command = Command::new("mariadb");
                command.env("MYSQL_PWD", password).args([
                    "--no-defaults",
                    "-N",
                    "-B",
                    "-r",
                    "--protocol=tcp",
                ]);
                command.args(["-h", host, "-P", port, "-u", user, "-e", sql, database]);
            }
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a database with this name and a schema of this version, by default of Kea 3.3.
    pub(crate) fn create(self, name: &str, version: Option<u32>) {
        let connection = format!("type={} name={name} {}", self.backend(), self.address()).parse().unwrap();
        match self {
            Self::Postgresql => {
                self.execute("postgres", &format!("CREATE DATABASE {name}"));
                leasemgr::postgresql::create_schema(&connection, version).unwrap();
            }
            Self::Mariadb => {
                self.execute("kea22", &format!("CREATE DATABASE {name}"));
                leasemgr::mysql::create_schema(&connection, version).unwrap();
            }
        }
    }

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
    pub(crate) fn new_name(start: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("{start}_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }

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
        server.execute(&name, &sql);
        Self { server, name, _turn: None }
    }

    /// Returns a connection string. A session may take long on a busy machine.
    pub(crate) fn connection(&self) -> String {
        let (server, name, address) = (self.server.backend(), &self.name, self.server.address());
        format!("type={server} name={name} {address} connect-timeout=60")
    }

    /// Returns the database of `kea-admin`, of Kea 2.2, without leases.
    pub(crate) fn of_kea(server: Server) -> Self {
        let turn = Turn::take();
        let name = "kea22".to_owned();
        server.execute(&name, "DELETE FROM lease4; DELETE FROM lease6");
        Self { server, name, _turn: Some(turn) }
    }

    pub(crate) fn open<L: ManagedLease>(&self) -> Arc<dyn LeaseMgr<L>> {
        LeaseMgrFactory::<L>::new().open(&self.connection()).unwrap()
    }

    pub(crate) fn execute(&self, sql: &str) -> String {
        self.server.execute(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.name.starts_with("test_") {
            UNUSED.lock().unwrap().push((self.server, self.name.clone()));
        }
    }
}
