//! Databases with Kea's schema, on the servers of `scripts/databases`.

use std::any::Any;
use std::env;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use leasemgr::connection::ConnectionString;
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease};

pub(crate) use crate::database_servers::Server;

/// A database with Kea's schema, for one test at a time.
pub(crate) struct Database {
    pub(crate) server: Server,
    pub(crate) name: String,
    /// What a test holds while it uses a database that others wait for.
    pub(crate) _turn: Option<Box<dyn Any + Send + Sync>>,
}

impl Server {
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
}

impl Database {
    pub(crate) fn new_name(start: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("{start}_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns a connection string. A session may take long on a busy machine.
    pub(crate) fn connection(&self) -> String {
        let (server, name, address) = (self.server.backend(), &self.name, self.server.address());
        format!("type={server} name={name} {address} connect-timeout=60")
    }

    pub(crate) fn open<L: ManagedLease>(&self) -> Arc<dyn LeaseMgr<L>> {
        LeaseMgrFactory::<L>::new().open(&self.connection()).unwrap()
    }

    pub(crate) fn execute(&self, sql: &str) -> String {
        self.server.execute(&self.name, sql)
    }
}
