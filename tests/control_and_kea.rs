//! The channels of commands with real clients and servers: curl, socat, and Kea's shell, control
//! agent and high availability.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/directory.rs"]
mod directory;
#[expect(dead_code, reason = "this suite has no leases")]
#[path = "support/kea.rs"]
mod kea;
#[path = "support/ports.rs"]
mod ports;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use certificates::{Authority, Certificate};
use directory::Directory;
use kea::{KeaServer, kea_is_installed, wait_until};
use leasemgr::control::{BasicAuth, Client, ClientTls, Http, Limits, Server, ServerTls, UnixSocket};
use leasemgr::lease::Lease4;
use leasemgr::request::{Handler, Outcome, Source};
use ports::free_port;
use rstest::rstest;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Answers as a partner that is ready and has no leases, and remembers the commands.
#[derive(Default)]
struct Partner {
    commands: Mutex<Vec<String>>,
}

impl Partner {
    fn has(&self, command: &str) -> bool {
        self.commands.lock().unwrap().iter().any(|made| made == command)
    }
}

impl Handler for Partner {
    fn answer(&self, request: &[u8], source: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        let Ok(request) = serde_json::from_slice::<Value>(request) else {
            return Ok(Outcome::NoAnswer);
        };
        let command = request["command"].as_str().unwrap().to_owned();
        let result = match command.as_str() {
            "ha-heartbeat" => json!({
                "result": 0,
                "arguments": {
                    "state": "ready", "scopes": [], "unsent-update-count": 0,
                    "date-time": httpdate::fmt_http_date(SystemTime::now()),
                },
            }),
            "lease4-get-page" => json!({ "result": 3, "arguments": { "leases": [], "count": 0 } }),
            "big" => json!({ "result": 0, "arguments": "x".repeat(5_000_000) }),
            _ => json!({ "result": 0, "arguments": { "request": request, "user": source.user } }),
        };
        self.commands.lock().unwrap().push(command);
        write!(answer, "{result}")?;
        Ok(Outcome::Answered)
    }
}

/// A server on a UNIX socket, and on an address.
struct Fixture {
    directory: Directory,
    partner: Arc<Partner>,
    server: Server,
}

impl Fixture {
    fn new(http: impl FnOnce(&Directory, Http) -> Http) -> Self {
        let directory = Directory::new();
        let partner = Arc::new(Partner::default());
        let address = Http::new((Ipv4Addr::LOCALHOST, 0).into());
        let mut limits = Limits::default();
        limits.answer_memory = 1 << 20;
        let server = Server::builder(Arc::clone(&partner) as Arc<dyn Handler>)
            .limits(limits)
            .unix(UnixSocket::new(directory.path("control.socket")))
            .http(http(&directory, address))
            .start()
            .unwrap();
        Self { directory, partner, server }
    }

    fn port(&self) -> String {
        self.server.addresses()[0].port().to_string()
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/", self.port())
    }
}

/// Runs a program with a standard input, and returns its standard output.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs curl with a request.
fn curl(arguments: &[&str], request: &str) -> Value {
    let usual = ["-sS", "-m", "60", "-H", "Content-Type: application/json", "--data-binary", "@-"];
    let output = run("curl", &[&usual, arguments].concat(), request);
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{output}: {error}"))
}

const REQUEST: &str = r#"{"command": "list-commands"}"#;

#[rstest]
#[case::usual(&[])]
#[case::old(&["--http1.0"])]
#[case::no_keep_alive(&["-H", "Connection: close"])]
fn curl_is_answered(#[case] arguments: &[&str]) {
    let fixture = Fixture::new(|_, http| http);
    let url = fixture.url("http");
    let answer = curl(&[arguments, &[&url]].concat(), REQUEST);
    assert_eq!(answer[0]["arguments"]["request"]["command"], "list-commands");
    let big = curl(&[arguments, &[&url]].concat(), r#"{"command": "big"}"#);
    assert_eq!(big[0]["arguments"].as_str().unwrap().len(), 5_000_000);
    // It asks before it sends a large body.
    let long = json!({ "command": "x", "arguments": "y".repeat(3_000_000) }).to_string();
    let answer = curl(&[arguments, &[&url]].concat(), &long);
    assert_eq!(answer[0]["arguments"]["request"]["arguments"].as_str().unwrap().len(), 3_000_000);
}

#[test]
fn socat_is_answered_and_the_connection_closed() {
    let fixture = Fixture::new(|_, http| http);
    let socket = format!("UNIX-CONNECT:{}", fixture.directory.path("control.socket").display());
    for stdio in ["-", "-,ignoreeof"] {
        let answer: Value =
            serde_json::from_str(&run("socat", &["-t", "60", &socket, stdio], REQUEST)).unwrap();
        assert_eq!(answer["arguments"]["request"]["command"], "list-commands");
    }
}

fn users() -> BasicAuth {
    BasicAuth::new("leases").user("admin", "12:34").unwrap()
}

#[test]
fn kea_shell_is_answered() {
    if !kea_is_installed() {
        return;
    }
    let fixture = Fixture::new(|_, http| http.basic_auth(users()));
    let port = fixture.port();
    let shell = ["/usr/sbin/kea-shell", "--port", &port, "--service", "dhcp4", "--auth-user", "admin"];
    let right = [&shell[..], &["--auth-password", "12:34", "lease4-get-all"]].concat();
    let answer = run("python3", &right, "\"subnets\": [ 1 ]\n");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let request =
        json!({ "command": "lease4-get-all", "service": ["dhcp4"], "arguments": { "subnets": [1] } });
    assert_eq!(answer[0]["arguments"], json!({ "request": request, "user": "admin" }));
    let wrong = [&shell[..], &["--auth-password", "1234", "lease4-get-all"]].concat();
    let output = Command::new("python3").args(wrong).stdin(Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("401"), "{output:?}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn https_clients_are_answered() {
    let mut made = None;
    let fixture = Fixture::new(|directory, http| {
        let authority = Authority::new(directory.root(), "authority");
        let server = authority.certify("server");
        let tls = ServerTls::with_client_certificates(&server.cert, &server.key, authority.file()).unwrap();
        made = Some((authority.certify("client"), authority));
        http.tls(tls)
    });
    let (client, authority) = made.unwrap();
    let url = fixture.url("https");
    let Certificate { cert, key } = &client;
    for version in ["--tlsv1.3", "--tls-max"] {
        let version = if version == "--tls-max" { vec!["--tls-max", "1.2"] } else { vec![version] };
        let own = ["--cacert", path(authority.file()), "--cert", path(cert), "--key", path(key), &url];
        let answer = curl(&[&version, &own[..]].concat(), REQUEST);
        assert_eq!(answer[0]["arguments"]["request"]["command"], "list-commands");
    }
    if !kea_is_installed() {
        return;
    }
    let port = fixture.port();
    let shell = [
        "/usr/sbin/kea-shell",
        "--port",
        &port,
        "--ca",
        path(authority.file()),
        "--cert",
        path(cert),
        "--key",
        path(key),
        "version-get",
    ];
    let answer: Value = serde_json::from_str(&run("python3", &shell, "")).unwrap();
    assert_eq!(answer[0]["arguments"]["request"]["command"], "version-get");
}

/// A program of Kea that runs until this is dropped.
struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    fn start(program: &str, directory: &Directory, configuration: &Value) -> Self {
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let file = directory.path(format!("{name}.json"));
        fs::write(&file, configuration.to_string()).unwrap();
        let output = directory.path(format!("{name}.out"));
        let out = File::create(&output).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(file)
            .env("KEA_LOCKFILE_DIR", "none")
            .env("KEA_PIDFILE_DIR", directory.root())
            .env("KEA_LOGGER_DESTINATION", "stdout")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, output }
    }

    fn wait_until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        wait_until(what, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{status}: {}", fs::read_to_string(&self.output).unwrap());
            }
            is_so()
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if the program has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(port: u16, tls: Option<&ClientTls>) -> Client {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let client = Client::http(&format!("{scheme}://127.0.0.1:{port}/")).unwrap();
    let mut client = client.user("admin", "12:34").unwrap();
    if let Some(tls) = tls {
        client = client.tls(tls.clone());
    }
    client.set_time(TIMEOUT);
    client
}

/// Starts Kea's control agent in front of a server's socket, and returns its port.
fn start_agent(directory: &Directory, socket: &Path, more: &Value) -> (Running, u16) {
    let port = free_port();
    let mut configuration = json!({
        "http-host": "127.0.0.1",
        "http-port": port,
        "authentication": {
            "type": "basic", "realm": "agent", "clients": [{ "user": "admin", "password": "12:34" }],
        },
        "control-sockets": { "dhcp4": { "socket-type": "unix", "socket-name": socket } },
    });
    configuration.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let agent =
        Running::start("/usr/sbin/kea-ctrl-agent", directory, &json!({ "Control-agent": configuration }));
    (agent, port)
}

#[test]
fn the_control_agent_is_answered() {
    if !kea_is_installed() {
        return;
    }
    let fixture = Fixture::new(|_, http| http);
    let directory = Directory::new();
    let authority = Authority::new(directory.root(), "authority");
    let own = authority.certify("agent");
    let certificate = authority.certify("client");
    let tls = ClientTls::with_certificate(authority.file(), &certificate.cert, &certificate.key).unwrap();
    let encrypted = json!({
        "trust-anchor": authority.file(), "cert-file": own.cert, "key-file": own.key, "cert-required": true,
    });
    for (more, tls) in [(json!({}), None), (encrypted, Some(&tls))] {
        let socket = fixture.directory.path("control.socket");
        let (mut agent, port) = start_agent(&directory, &socket, &more);
        let mut client = client(port, tls);
        let request = json!({ "command": "a", "service": ["dhcp4"], "arguments": { "b": [1, "ü"] } });
        let mut answer = Value::Null;
        agent.wait_until("the agent answers", || {
            let sent = client.send(request.to_string().as_bytes());
            sent.map(|text| answer = serde_json::from_slice(&text).unwrap()).is_ok()
        });
        for _ in 0..20 {
            assert_eq!(answer[0]["arguments"]["request"]["command"], "a", "{answer}");
            let text = client.send(request.to_string().as_bytes()).unwrap();
            answer = serde_json::from_slice(&text).unwrap();
        }
        let big = client.send(br#"{ "command": "big", "service": [ "dhcp4" ] }"#).unwrap();
        let big: Value = serde_json::from_slice(&big).unwrap();
        assert_eq!(big[0]["arguments"].as_str().map(str::len), Some(5_000_000));
        let wrong = client.user("admin", "1234").unwrap().send(request.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&wrong).unwrap()["result"], 401);
    }
}

#[test]
fn a_server_of_kea_is_asked() {
    if !kea_is_installed() {
        return;
    }
    let directory = Directory::new();
    let no_leases = json!({ "lease-database": { "type": "memfile", "persist": false } });
    let server = KeaServer::start::<Lease4>(directory.root(), &no_leases, &[]);
    let mut client = Client::unix(directory.path("socket"));
    client.set_time(TIMEOUT);
    for _ in 0..20 {
        let answer = client.send(br#"{ "command": "version-get" }"#).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["text"].as_str().unwrap().starts_with("2.2."), "{answer}");
    }
    drop(server);
    assert!(client.send(REQUEST.as_bytes()).unwrap_err().is_unsent());
}

#[rstest]
#[case::plain(false)]
#[case::encrypted(true)]
fn a_partner_of_kea_finds_this_server(#[case] is_encrypted: bool) {
    if !kea_is_installed() {
        return;
    }
    let mut more = json!({});
    let fixture = Fixture::new(|directory, http| {
        let http = http.basic_auth(users());
        if !is_encrypted {
            return http;
        }
        let authority = Authority::new(directory.root(), "authority");
        let (own, kea) = (authority.certify("server"), authority.certify("kea"));
        more = json!({ "trust-anchor": authority.file(), "cert-file": kea.cert, "key-file": kea.key });
        http.tls(ServerTls::with_client_certificates(&own.cert, &own.key, authority.file()).unwrap())
    });
    let hooks = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path().join("kea/hooks"));
    let hooks = hooks.into_iter().find(|path| path.join("libdhcp_ha.so").exists()).unwrap();
    let scheme = if is_encrypted { "https" } else { "http" };
    let own_port = free_port();
    let credentials = json!({ "basic-auth-user": "admin", "basic-auth-password": "12:34" });
    let peer = |name: &str, url: String, role: &str| {
        let mut peer = json!({ "name": name, "url": url, "role": role });
        peer.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
        peer
    };
    let mut ha = json!({
        "this-server-name": "server1",
        "mode": "hot-standby",
        "heartbeat-delay": 200,
        "multi-threading": { "enable-multi-threading": true, "http-dedicated-listener": true },
        "peers": [
            peer("server1", format!("{scheme}://127.0.0.1:{own_port}/"), "primary"),
            peer("server2", fixture.url(scheme), "standby"),
        ],
    });
    ha.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let directory = Directory::new();
    let configuration = json!({ "Dhcp4": {
        "interfaces-config": { "interfaces": [] },
        "lease-database": { "type": "memfile", "persist": false },
        "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 2 },
        "hooks-libraries": [
            { "library": hooks.join("libdhcp_lease_cmds.so") },
            { "library": hooks.join("libdhcp_ha.so"), "parameters": { "high-availability": [ha] } },
        ],
    } });
    let mut kea = Running::start("/usr/sbin/kea-dhcp4", &directory, &configuration);
    let steps = ["ha-heartbeat", "dhcp-disable", "lease4-get-page", "ha-sync-complete-notify"];
    for step in steps {
        kea.wait_until(step, || fixture.partner.has(step));
    }
    // The next one is sent on a connection that was kept.
    let heartbeats =
        || fixture.partner.commands.lock().unwrap().iter().filter(|made| *made == "ha-heartbeat").count();
    let before = heartbeats();
    kea.wait_until("heartbeats", || heartbeats() >= before + 3);
    if is_encrypted {
        return;
    }
    // The server of Kea is asked, too.
    let mut client = client(own_port, None);
    for _ in 0..3 {
        let answer = client.send(br#"{ "command": "ha-heartbeat", "service": [ "dhcp4" ] }"#).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer[0]["arguments"]["state"], "hot-standby", "{answer}");
    }
}
