//! Databases with the schema of Kea 2.2, and its program for them.

use std::process::Command;

use leasemgr::connection::ConnectionString;

use crate::databases::{Database, Server};

impl Database {
    /// Makes a database with the schema of Kea 2.2, by this crate.
    pub(crate) fn of_version_2_2(server: Server) -> Self {
        let version = if server == Server::Postgresql { 13 } else { 14 };
        let name = Self::new_name("own22");
        server.create(&name, Some(version));
        Self { server, name, _turn: None }
    }

    /// Runs `kea-admin` with a command for the database, and returns what it prints.
    pub(crate) fn kea_admin(&self, command: &str, arguments: &[&str]) -> String {
        let address: ConnectionString = self.connection().parse().unwrap();
        let value = |keyword| address.get(keyword).unwrap();
        let kind = if self.server == Server::Postgresql { "pgsql" } else { "mysql" };
        let mut program = Command::new("/usr/sbin/kea-admin");
        // `kea-admin` of Kea 2.2 passes the port only to some of the programs that it starts.
        program.env("PGPORT", value("port")).args([command, kind, "-h", value("host"), "-P", value("port")]);
        program.args(["-u", value("user"), "-p", value("password"), "-n", &self.name]).args(arguments);
        if self.server == Server::Mariadb {
            program.args(["-x", &format!("--port={}", value("port"))]);
        }
        let output = program.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        text
    }
}
