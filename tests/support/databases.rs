//! Databases with Kea's schema, on the servers of `scripts/databases`.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use leasemgr::connection::ConnectionString;
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease};

/// A database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Postgresql,
    Mariadb,
}

/// Databases that no test uses now.
static UNUSED: Mutex<Vec<(Server, String)>> = Mutex::new(Vec::new());

/// A database with the schema of Kea 2.2 and without leases, for one test at a time.
pub struct Database {
    pub server: Server,
    pub name: String,
}

impl Server {
    /// The type in connection strings.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mysql",
        }
    }

    /// Returns how to reach the server, without a database.
    fn address(self) -> String {
        let variable = match self {
            Self::Postgresql => "LEASEMGR_POSTGRESQL",
            Self::Mariadb => "LEASEMGR_MYSQL",
        };
        env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set; run scripts/databases run postgresql mariadb -- cargo test ...")
        })
    }

    /// Executes statements in a database, and returns what they print.
    pub fn execute(self, database: &str, sql: &str) -> String {
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
                command.env("MYSQL_PWD", password).args(["--no-defaults", "-N", "-B", "--protocol=tcp"]);
                command.args(["-h", host, "-P", port, "-u", user, "-e", sql, database]);
            }
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a database with this name.
    fn make(self, name: &str) {
        match self {
            Self::Postgresql => {
                self.execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE kea22"));
            }
            Self::Mariadb => {
                self.execute("kea22", &format!("CREATE DATABASE {name}"));
                let dump = env::var("LEASEMGR_MYSQL_DUMP").unwrap();
                self.execute(name, &format!("source {dump}"));
            }
        }
    }
}

impl Database {
    pub fn new(server: Server) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let unused = {
            let mut unused = UNUSED.lock().unwrap();
            unused.iter().position(|(of, _)| *of == server).map(|n| unused.swap_remove(n).1)
        };
        let name = unused.unwrap_or_else(|| {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("test_{}_{number}", std::process::id());
            server.make(&name);
            name
        });
        let tables = ["lease4", "lease6", "lease4_stat", "lease6_stat"];
        let by_class = ["lease4_stat_by_client_class", "lease6_stat_by_client_class"];
        for table in tables.into_iter().chain(by_class) {
            server.execute(&name, &format!("DELETE FROM {table}"));
        }
        Self { server, name }
    }

    pub fn connection(&self) -> String {
        format!("type={} name={} {}", self.server.backend(), self.name, self.server.address())
    }

    pub fn open<L: ManagedLease>(&self) -> Arc<dyn LeaseMgr<L>> {
        LeaseMgrFactory::<L>::new().open(&self.connection()).unwrap()
    }

    pub fn execute(&self, sql: &str) -> String {
        self.server.execute(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        UNUSED.lock().unwrap().push((self.server, self.name.clone()));
    }
}
