//! Connections to databases: encryption, authentication, several hosts, and servers that are
//! read-only, on the servers of `scripts/databases` (`postgresql standby mariadb`).
//!
//! The suite makes certificates, and has the servers use them; of MariaDB, that needs a restart.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/database_servers.rs"]
mod database_servers;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use database_servers::Server;
use leasemgr::connection::ConnectionString;
use leasemgr::lease::{HwAddr, Lease4};
use leasemgr::{Added, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrFactory, with_sources};
use rstest::rstest;

/// The password of all users of this suite but `kea`.
const PASSWORD: &str = "pass-of-the-suite";
const WRONG_PASSWORD: &str = "not-that-of-the-suite";

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Certificates and keys, in a directory that the servers can read.
struct Certificates(PathBuf);

impl Certificates {
    /// Makes two authorities, a server's certificate of the first one, and clients' of both.
    fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        let certificates = Self(directory);
        for authority in ["authority", "other"] {
            certificates.key(authority);
            let subject = format!("/CN={authority}");
            certificates.openssl(&["req", "-x509", "-new", "-days", "2", "-subj", &subject], authority, &[]);
        }
        let of_server = "subjectAltName=DNS:db.example,IP:127.0.0.1";
        certificates.signed("server", "authority", "db.example", of_server);
        certificates.signed("client", "authority", "holder", "extendedKeyUsage=clientAuth");
        certificates.signed("stranger", "other", "holder", "extendedKeyUsage=clientAuth");
        certificates
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn key(&self, name: &str) {
        let key = self.path(&format!("{name}.key"));
        run("openssl", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
    }

    fn openssl(&self, command: &[&str], name: &str, more: &[&str]) {
        let (key, out) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pem")));
        run("openssl", &[command, &["-key", &key, "-out", &out], more].concat());
    }

    fn signed(&self, name: &str, authority: &str, subject: &str, extension: &str) {
        self.key(name);
        let file = |name: &str, kind: &str| self.path(&format!("{name}.{kind}"));
        let (request, extensions) = (file(name, "csr"), file(name, "ext"));
        fs::write(&extensions, extension).unwrap();
        let subject = format!("/CN={subject}");
        run("openssl", &["req", "-new", "-subj", &subject, "-key", &file(name, "key"), "-out", &request]);
        let (ca, ca_key, out) = (file(authority, "pem"), file(authority, "key"), file(name, "pem"));
        let sign = ["x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
        run("openssl", &[&sign[..], &["-CAcreateserial", "-extfile", &extensions, "-out", &out]].concat());
    }

    /// Gives the key of the server to the account of a database, which alone may read it.
    fn give_to(&self, server: &Path) {
        // The directory of the server belongs to it.
        run("chown", &["--reference", server.to_str().unwrap(), &self.path("server.key")]);
        run("chmod", &["600", &self.path("server.key")]);
    }
}

fn directory(server: &str) -> PathBuf {
    let all = env::var("LEASEMGR_DATABASES")
        .unwrap_or_else(|_| panic!("run scripts/databases run postgresql standby mariadb -- cargo test ..."));
    Path::new(&all).join(server)
}

fn address(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; see scripts/databases"))
}

/// Returns the port of the server that a variable names.
fn port(variable: &str) -> String {
    let connection: ConnectionString = format!("type=postgresql {}", address(variable)).parse().unwrap();
    connection.get("port").unwrap().to_owned()
}

/// Executes statements in a database of PostgreSQL as its superuser.
fn as_postgres(statements: &[&str]) -> String {
    let (host, port) = (directory("postgresql"), port("LEASEMGR_POSTGRESQL"));
    let mut arguments = vec!["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", host.to_str().unwrap()];
    arguments.extend(["-p", &port, "-U", "postgres", "-d", "kea22"]);
    arguments.extend(statements.iter().flat_map(|statement| ["-c", statement]));
    run("psql", &arguments)
}

fn as_root_of_mariadb(sql: &str) -> String {
    let socket = format!("--socket={}", directory("mariadb").join("socket").display());
    run("mariadb", &["--no-defaults", &socket, "--user=root", "-N", "-B", "-e", sql])
}

/// Has a PostgreSQL use the certificates, and makes users that it accepts in different ways.
fn postgresql() -> &'static Certificates {
    static PREPARED: OnceLock<Certificates> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let server = directory("postgresql");
        let certificates = Certificates::new(server.join("tls"));
        certificates.give_to(&server);
        // Only of the address from which the suite connects; others are refused.
        let rules = "\
            local   all         all              trust\n\
            hostssl all         only_tls 127.0.0.0/8 scram-sha-256\n\
            host    all         only_tls 127.0.0.0/8 reject\n\
            hostnossl all       no_tls   127.0.0.0/8 scram-sha-256\n\
            host    all         no_tls   127.0.0.0/8 reject\n\
            hostssl all         holder   127.0.0.0/8 cert\n\
            host    all         holder   127.0.0.0/8 reject\n\
            host    all         of_md5   127.0.0.0/8 md5\n\
            host    all         all      127.0.0.0/8 scram-sha-256\n";
        fs::write(server.join("data/pg_hba.conf"), rules).unwrap();
        let set = |name: &str, value: &str| format!("ALTER SYSTEM SET {name} = '{value}'");
        let user = |name: &str| format!("CREATE USER {name} PASSWORD '{PASSWORD}' IN ROLE kea");
        let md5 = user("of_md5");
        as_postgres(&[
            &set("ssl_cert_file", &certificates.path("server.pem")),
            &set("ssl_key_file", &certificates.path("server.key")),
            &set("ssl_ca_file", &certificates.path("authority.pem")),
            &set("ssl", "on"),
            &user("only_tls"),
            &user("no_tls"),
            &user("holder"),
            &format!("SET password_encryption = 'md5'; {md5}"),
            "SELECT pg_reload_conf()",
        ]);
        // A server reads its settings soon after it was told to.
        for _ in 0..600 {
            if as_postgres(&["SHOW ssl"]) == "on\n" {
                return certificates;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!(
            "PostgreSQL does not use the certificates: {}",
            fs::read_to_string(server.join("log")).unwrap()
        );
    })
}

/// Has a MariaDB use the certificates, and makes users that it accepts in different ways.
fn mariadb() -> &'static Certificates {
    static PREPARED: OnceLock<Certificates> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let server = directory("mariadb");
        let certificates = Certificates::new(server.join("tls"));
        certificates.give_to(&server);
        let pid = fs::read_to_string(server.join("pid")).unwrap();
        run("kill", &["-KILL", pid.trim()]);
        let option = |name: &str, file: &str| format!("--ssl-{name}={}", certificates.path(file));
        run(
            server.join("start").to_str().unwrap(),
            &[&option("cert", "server.pem"), &option("key", "server.key"), &option("ca", "authority.pem")],
        );
        let user = |name: &str, how: &str, require: &str| {
            format!("CREATE USER {name} IDENTIFIED {how} REQUIRE {require}; GRANT ALL ON kea22.* TO {name};")
        };
        let password = format!("BY '{PASSWORD}'");
        as_root_of_mariadb(&format!(
            "INSTALL SONAME 'auth_ed25519'; {} {} {} {} {}",
            user("only_tls", &password, "SSL"),
            user("holder", &password, "SUBJECT '/CN=holder'"),
            user("aes128", &password, "CIPHER 'TLS_AES_128_GCM_SHA256'"),
            user("aes256", &password, "CIPHER 'ECDHE-ECDSA-AES256-GCM-SHA384'"),
            user("of_ed25519", &format!("VIA ed25519 USING PASSWORD('{PASSWORD}')"), "NONE"),
        ));
        certificates
    })
}

type Opened = Result<Arc<dyn LeaseMgr<Lease4>>, String>;

/// Opens a database; an error has no password.
fn open(connection: &str) -> Opened {
    LeaseMgrFactory::<Lease4>::new().open(connection).map_err(|error| {
        let shown = format!("{} {error:?}", with_sources(&error));
        for password in [PASSWORD, WRONG_PASSWORD] {
            assert!(!shown.contains(password), "{shown}");
        }
        with_sources(&error).to_string()
    })
}

/// Opens `kea22` as a user. `{authority}` and others are files with certificates, `{client.key}`
/// and others with keys.
fn open_as(server: Server, user: &str, options: &str) -> Opened {
    let (certificates, variable) = match server {
        Server::Postgresql => (postgresql(), "LEASEMGR_POSTGRESQL"),
        Server::Mariadb => (mariadb(), "LEASEMGR_MYSQL"),
    };
    let password = if user == "kea" { "kea" } else { PASSWORD };
    let mut options = options.to_owned();
    for name in ["authority", "other", "client", "stranger"] {
        options = options.replace(&format!("{{{name}}}"), &certificates.path(&format!("{name}.pem")));
        options = options.replace(&format!("{{{name}.key}}"), &certificates.path(&format!("{name}.key")));
    }
    for (keyword, default) in [("host", "127.0.0.1"), ("password", password)] {
        if !options.contains(&format!("{keyword}=")) && !options.contains("password-file=") {
            options = format!("{options} {keyword}={default}");
        }
    }
    if !options.contains("host=") {
        options += " host=127.0.0.1";
    }
    let port = if options.contains("host=/") && server == Server::Mariadb {
        String::new()
    } else {
        format!("port={}", port(variable))
    };
    open(&format!("type={} name=kea22 user={user} {port} {options}", server.backend()))
}

/// What a connection is like: the version and the cipher, or `None` if it is not encrypted.
fn encryption(user: &str) -> Option<String> {
    let sql = format!(
        "SELECT DISTINCT version || ' ' || cipher FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE usename = '{user}' AND application_name = 'leasemgr'"
    );
    let found = as_postgres(&[&sql]);
    let found = found.trim();
    assert!(!found.contains('\n'), "{found}");
    (!found.is_empty()).then(|| found.to_owned())
}

/// A user, options, and what is expected: an encryption or none, or a part of an error.
type Case = (&'static str, &'static str, Result<Option<&'static str>, &'static str>);

#[rstest]
fn postgresql_is_encrypted_as_wanted() {
    let server = Server::Postgresql;
    let usual = "TLSv1.3 TLS_AES_256_GCM_SHA384";
    let cases: &[Case] = &[
        ("kea", "ssl-mode=disable", Ok(None)),
        ("kea", "", Ok(Some(usual))),
        ("kea", "ssl-mode=prefer", Ok(Some(usual))),
        ("kea", "ssl-mode=require", Ok(Some(usual))),
        ("kea", "ssl-mode=require trust-anchor={authority}", Ok(Some(usual))),
        ("kea", "ssl-mode=require trust-anchor={other}", Err("invalid peer certificate")),
        ("kea", "ssl-mode=verify-ca trust-anchor={authority}", Ok(Some(usual))),
        ("kea", "ssl-mode=verify-ca trust-anchor={authority} host=localhost", Ok(Some(usual))),
        ("kea", "ssl-mode=verify-ca trust-anchor={other}", Err("invalid peer certificate")),
        ("kea", "ssl-mode=verify-ca", Err("the ssl-mode needs a trust-anchor")),
        ("kea", "ssl-mode=verify-ca trust-anchor=/nowhere", Err("/nowhere: cannot read")),
        ("kea", "ssl-mode=verify-full trust-anchor={authority}", Ok(Some(usual))),
        ("kea", "ssl-mode=verify-full trust-anchor={authority} host=localhost", Err("not valid for name")),
        ("kea", "ssl-mode=verify-full trust-anchor={other}", Err("invalid peer certificate")),
        ("kea", "cipher-list=TLS_AES_128_GCM_SHA256", Ok(Some("TLSv1.3 TLS_AES_128_GCM_SHA256"))),
        (
            "kea",
            "cipher-list=ECDHE-ECDSA-AES256-GCM-SHA384",
            Ok(Some("TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384")),
        ),
        ("kea", "cipher-list=RC4-MD5", Err("cipher-list has no cipher")),
        ("only_tls", "ssl-mode=disable", Err("pg_hba.conf")),
        ("only_tls", "", Ok(Some(usual))),
        ("only_tls", "ssl-mode=require", Ok(Some(usual))),
        ("no_tls", "ssl-mode=disable", Ok(None)),
        ("no_tls", "ssl-mode=require", Err("pg_hba.conf")),
        // What is preferred is not what is accepted.
        ("no_tls", "", Ok(None)),
        ("holder", "ssl-mode=require", Err("certificate")),
        ("holder", "ssl-mode=require cert-file={client} key-file={client.key}", Ok(Some(usual))),
        (
            "holder",
            "ssl-mode=require cert-file={stranger} key-file={stranger.key}",
            Err("received fatal alert"),
        ),
        ("holder", "ssl-mode=require cert-file={client}", Err("belong together")),
        ("of_md5", "", Ok(Some(usual))),
        ("of_md5", "ssl-mode=disable", Ok(None)),
        ("of_md5", "ssl-mode=disable password=not-that-of-the-suite", Err("SQLSTATE 28P01")),
        ("only_tls", "password=not-that-of-the-suite", Err("SQLSTATE 28P01")),
    ];
    let mut wrong = Vec::new();
    for (user, options, expected) in cases {
        let opened = open_as(server, user, options);
        let found = opened.as_ref().map(|_| encryption(user)).map_err(String::as_str);
        let is_expected = match (&found, expected) {
            (Ok(found), Ok(expected)) => found.as_deref() == *expected,
            (Err(error), Err(part)) => error.contains(part),
            _ => false,
        };
        if !is_expected {
            wrong.push(format!("{user} {options}: {found:?}, not {expected:?}"));
        }
        drop(opened);
        // The next one is another's.
        for _ in 0..600 {
            if encryption(user).is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[rstest]
fn mariadb_is_encrypted_as_wanted() {
    let cases: &[(&str, &str, Result<(), &str>)] = &[
        ("kea", "ssl-mode=disable", Ok(())),
        ("kea", "", Ok(())),
        ("only_tls", "ssl-mode=disable", Err("1045")),
        ("only_tls", "", Ok(())),
        ("only_tls", "ssl-mode=prefer", Ok(())),
        ("only_tls", "ssl-mode=require", Ok(())),
        ("only_tls", "ssl-mode=verify-ca trust-anchor={authority}", Ok(())),
        ("only_tls", "ssl-mode=verify-ca trust-anchor={other}", Err("invalid peer certificate")),
        ("only_tls", "ssl-mode=verify-ca", Err("invalid peer certificate")),
        ("only_tls", "ssl-mode=verify-ca trust-anchor=/nowhere", Err("/nowhere")),
        ("only_tls", "ssl-mode=verify-full trust-anchor={authority}", Ok(())),
        (
            "only_tls",
            "ssl-mode=verify-full trust-anchor={authority} host=localhost",
            Err("not valid for name"),
        ),
        ("only_tls", "ssl-mode=verify-full trust-anchor={other}", Err("invalid peer certificate")),
        ("only_tls", "password=not-that-of-the-suite", Err("1045")),
        ("holder", "ssl-mode=require", Err("1045")),
        ("holder", "ssl-mode=require cert-file={client} key-file={client.key}", Ok(())),
        ("holder", "ssl-mode=require cert-file={client}", Err("key")),
        ("holder", "ssl-mode=require cert-file={stranger} key-file={stranger.key}", Err("")),
        ("aes128", "", Err("1045")),
        ("aes128", "cipher-list=TLS_AES_128_GCM_SHA256", Ok(())),
        ("aes256", "cipher-list=TLS_AES_128_GCM_SHA256", Err("1045")),
        ("aes256", "cipher-list=ECDHE-ECDSA-AES256-GCM-SHA384", Ok(())),
        ("kea", "cipher-list=RC4-MD5", Err("cipher")),
        ("of_ed25519", "ssl-mode=disable", Err("ed25519")),
    ];
    let mut wrong = Vec::new();
    for (user, options, expected) in cases {
        let opened = open_as(Server::Mariadb, user, options).map(drop);
        let is_expected = match (&opened, expected) {
            (Ok(()), Ok(())) => true,
            (Err(error), Err(part)) => error.contains(part),
            _ => false,
        };
        if !is_expected {
            wrong.push(format!("{user} {options}: {opened:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server that offers no encryption.
#[rstest]
fn encryption_is_preferred_or_required() {
    let address = address("LEASEMGR_PRIMARY");
    let open = |options: &str| open(&format!("type=postgresql name=kea22 {address} {options}"));
    for options in ["", "ssl-mode=prefer", "ssl-mode=disable"] {
        open(options).unwrap();
    }
    let error = open("ssl-mode=require").unwrap_err();
    assert!(error.contains("TLS"), "{error}");
}

fn lease(last: u8) -> Lease4 {
    let builder = Lease4::builder([192, 0, 2, last].into()).client(HwAddr::from([2, 0, 0, 0, 0, last]));
    builder.subnet(1).lifetime(3600).build().unwrap()
}

/// Adds a lease and deletes it.
fn change(leases: &dyn LeaseMgr<Lease4>, last: u8) -> Result<(), LeaseMgrError> {
    let lease = lease(last);
    assert_eq!(leases.add(&lease)?, Added::Added);
    assert_eq!(leases.delete(lease.address())?, Deleted::Deleted);
    Ok(())
}

#[rstest]
fn the_first_host_that_is_wanted_is_used() {
    let port = port("LEASEMGR_PRIMARY");
    let open = |options: &str| {
        open(&format!("type=postgresql name=kea22 user=kea password=kea port={port} {options}"))
    };
    let is_read_only = |leases: &dyn LeaseMgr<Lease4>, last| {
        let error = change(leases, last).unwrap_err();
        assert!(matches!(error, LeaseMgrError::ReadOnly { .. }), "{error}");
        assert_eq!(leases.get(lease(last).address()).unwrap(), None);
    };
    // The standby is 127.0.0.2, and 127.0.0.3 is no server.
    for (n, hosts) in ["127.0.0.1", "127.0.0.2,127.0.0.1", "127.0.0.3,127.0.0.2,127.0.0.1"].iter().enumerate()
    {
        for target in ["", "target-session-attrs=read-write"] {
            change(&*open(&format!("host={hosts} {target}")).unwrap(), 1 + u8::try_from(n).unwrap()).unwrap();
        }
    }
    change(&*open("host=127.0.0.1,127.0.0.2 target-session-attrs=any").unwrap(), 4).unwrap();
    is_read_only(&*open("host=127.0.0.2,127.0.0.1 target-session-attrs=any").unwrap(), 5);
    for hosts in ["127.0.0.2", "127.0.0.3,127.0.0.2"] {
        let error = open(&format!("host={hosts}")).unwrap_err();
        assert!(error.contains("127.0.0.2 is read-only"), "{error}");
    }
    for hosts in ["127.0.0.1", "127.0.0.2", "127.0.0.2,127.0.0.1"] {
        is_read_only(&*open(&format!("host={hosts} readonly=true")).unwrap(), 6);
    }
}

#[rstest]
fn the_first_host_of_mariadb_that_can_be_reached_is_used() {
    let leases = open_as(Server::Mariadb, "kea", "host=127.0.0.9,127.0.0.1").unwrap();
    change(&*leases, 1).unwrap();
    let leases = open_as(Server::Mariadb, "kea", "readonly=true").unwrap();
    let error = change(&*leases, 2).unwrap_err();
    assert!(matches!(error, LeaseMgrError::ReadOnly { .. }), "{error}");
    assert_eq!(leases.get(lease(2).address()).unwrap(), None);
}

#[rstest]
fn passwords_can_be_in_files_and_sockets_need_no_port(
    #[values(Server::Postgresql, Server::Mariadb)] server: Server,
) {
    let directory_of_test = tempfile::tempdir().unwrap();
    let file = directory_of_test.path().join("password");
    fs::write(&file, format!("{PASSWORD}\nanother line\n")).unwrap();
    open_as(server, "only_tls", &format!("password-file={}", file.display())).unwrap();
    fs::write(&file, WRONG_PASSWORD).unwrap();
    let error = open_as(server, "only_tls", &format!("password-file={}", file.display())).unwrap_err();
    assert!(error.contains("28P01") || error.contains("1045"), "{error}");

    let socket = match server {
        Server::Postgresql => directory("postgresql"),
        Server::Mariadb => directory("mariadb").join("socket"),
    };
    for mode in ["disable", "prefer"] {
        let leases = open_as(server, "kea", &format!("host={} ssl-mode={mode}", socket.display())).unwrap();
        change(&*leases, 7).unwrap();
    }
}
