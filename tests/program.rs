//! The program `kea-lfc`, as run by a server or on a terminal.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "support/directory.rs"]
mod directory;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use directory::Directory;
use leasemgr::fs::{FileSystem, OsFileSystem};
use rstest::rstest;
use rustix::process::{Pid, Signal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kea-lfc");
const HEADER4: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,\
                       user_context,pool_id\n";
const HEADER6: &str = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,\
                       fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source,pool_id\n";
const FILES: [&str; 12] =
    ["-p", "pid", "-x", "previous", "-i", "input", "-o", "output", "-f", "finish", "-c", "config"];

fn row4(n: u32) -> String {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
    format!("{address},02:00:00:00:00:01,,3600,1790003600,1,0,0,host-{n},0,,0\n")
}

/// A directory with lease files.
impl Directory {
    /// Creates a directory with work for a cleanup: a lease in each file, and one that is in both.
    fn with_leases() -> Self {
        let directory = Self::new();
        directory.write("previous", [HEADER4, &row4(1), &row4(2)].concat());
        directory.write("input", [HEADER4, &row4(3), &row4(2).replace("host-2", "newest")].concat());
        directory
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Returns the names and contents of all files.
    fn all(&self) -> Vec<(OsString, Vec<u8>)> {
        let entries = fs::read_dir(self.root()).unwrap().map(Result::unwrap);
        let mut all: Vec<_> =
            entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap_or_default())).collect();
        all.sort();
        all
    }

    fn names(&self) -> Vec<OsString> {
        self.all().into_iter().map(|(name, _)| name).collect()
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root()).stdin(Stdio::null());
        command
    }

    fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.command(PROGRAM).args(args).output().unwrap()
    }

    /// Cleans up with the log on the console.
    fn clean(&self) -> (bool, Log) {
        let output = self.run([&["-4d"], &FILES[..]].concat());
        (output.status.success(), Log::new(&output.stderr))
    }

    /// Starts a cleanup, and stops it when it has written its PID file and is reading the file
    /// `previous`, which takes long: it has a line of 2 GiB.
    fn start_and_stop_at_previous(&self) -> Child {
        self.write("previous", HEADER4);
        fs::OpenOptions::new().write(true).open(self.path("previous")).unwrap().set_len(2 << 30).unwrap();
        let args = [&["-4d"], &FILES[..]].concat();
        let child =
            self.command(PROGRAM).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = format!("{}\n", child.id());
        // If it were stopped while it holds the lock of the PID file, other cleanups could not read
        // that file.
        let is_there = || {
            fs::read(self.path("pid")).is_ok_and(|text| text == pid.as_bytes())
                && !self.path("pid.lock").exists()
        };
        wait_until("the PID file exists", is_there);
        signal(&child, Signal::STOP);
        assert!(is_there(), "the cleanup was stopped too late");
        child
    }
}

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(600), "timed out: {what}");
        sleep(Duration::from_millis(1));
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A log on the console.
struct Log(Vec<Line>);

struct Line {
    level: String,
    id: String,
    message: String,
}

impl Log {
    /// Parses the log, and checks the format of every line.
    fn new(stderr: &[u8]) -> Self {
        Self(text(stderr).lines().map(Line::new).collect())
    }

    /// Returns the ids that begin with `LFC_`, in order.
    fn ids(&self) -> Vec<&str> {
        self.0.iter().map(|line| line.id.as_str()).filter(|id| id.starts_with("LFC_")).collect()
    }

    fn of(&self, id: &str) -> Vec<&Line> {
        self.0.iter().filter(|line| line.id == id).collect()
    }

    fn message(&self, id: &str) -> &str {
        let lines = self.of(id);
        assert_eq!(lines.len(), 1, "{id}");
        &lines[0].message
    }
}

impl Line {
    fn new(line: &str) -> Self {
        let (time, rest) = line.split_at(23);
        let form = time.replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(form, "0000-00-00 00:00:00.000", "{line}");
        let rest = rest.strip_prefix(' ').unwrap();
        let (level, rest) = rest.split_at(5);
        let (name, rest) = rest.strip_prefix(" [").unwrap().split_once("] ").unwrap();
        let pid = name.strip_prefix("kea-lfc.lfc/").unwrap();
        assert!(pid.parse::<u32>().is_ok(), "{line}");
        let (id, message) = rest.split_once(' ').unwrap();
        Self { level: level.trim_end().to_owned(), id: id.to_owned(), message: message.to_owned() }
    }
}

// Arguments.

#[rstest]
#[case::version("-v", &[env!("CARGO_PKG_VERSION")])]
#[case::with_file_formats("-V", &[env!("CARGO_PKG_VERSION"), "3.0", "5.0"])]
#[case::build_information("-W", &[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, "profile", "kea-lfc"])]
fn information_about_the_program_is_written_to_standard_output(#[case] option: &str, #[case] words: &[&str]) {
    let output = Directory::new().run([option]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
    let stdout = text(&output.stdout);
    assert!(words.iter().all(|word| stdout.contains(word)), "{stdout}");
}

#[test]
fn the_version_is_the_only_output() {
    let output = Directory::new().run(["-v"]);
    assert_eq!(text(&output.stdout), concat!(env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_usage_goes_to_standard_error_and_names_every_option() {
    let output = Directory::new().run(["-h"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "");
    let usage = text(&output.stderr);
    for option in "46pxiofcdvVWh".chars() {
        assert!(usage.contains(&format!("\n  -{option} ")), "{option}: {usage}");
    }
}

#[rstest]
#[case::the_first_counts(&["-v", "-h"], 0, "0.1.0\n", "")]
#[case::joined(&["-vh"], 0, "0.1.0\n", "")]
#[case::joined_after_others(&["-4dv"], 0, "0.1.0\n", "")]
#[case::before_an_error(&["-v", "-z"], 0, "0.1.0\n", "")]
#[case::after_an_extra_word(&["word", "-v"], 0, "0.1.0\n", "")]
#[case::after_an_error(&["-z", "-v"], 1, "", "-z")]
#[case::after_the_end_of_options(&["--", "-v"], 1, "", "-v")]
#[case::as_an_argument(&["-p", "-v"], 1, "", "neither -4 nor -6")]
fn options_act_in_order(
    #[case] args: &[&str],
    #[case] status: i32,
    #[case] stdout: &str,
    #[case] reason: &str,
) {
    let output = Directory::new().run(args);
    assert_eq!(output.status.code(), Some(status));
    assert_eq!(text(&output.stdout), stdout.replace("0.1.0", env!("CARGO_PKG_VERSION")));
    assert!(text(&output.stderr).lines().next().unwrap_or_default().contains(reason));
}

#[rstest]
#[case::nothing(&[], "-4 nor -6")]
#[case::no_pid(&["-4"], "(-p)")]
#[case::no_previous(&["-4", "-pp"], "(-x)")]
#[case::no_input(&["-6", "-pp", "-xx"], "(-i)")]
#[case::no_output(&["-4", "-pp", "-xx", "-ii"], "(-o)")]
#[case::no_finish(&["-4", "-pp", "-xx", "-ii", "-oo"], "(-f)")]
#[case::no_config(&["-4", "-pp", "-xx", "-ii", "-oo", "-ff"], "(-c)")]
#[case::files_but_no_family(&["-pp", "-xx", "-ii", "-oo", "-ff", "-cc"], "-4 nor -6")]
#[case::an_empty_name(&["-4", "-p", "", "-xx", "-ii", "-oo", "-ff", "-cc"], "(-p)")]
#[case::a_name_cleared(&["-4", "-pp", "-xx", "-ii", "-oo", "-ff", "-cc", "-i", ""], "(-i)")]
#[case::no_argument(&["-4", "-x"], "'-x'")]
#[case::unknown(&["-4", "-z"], "'-z'")]
#[case::unknown_among_joined(&["-4z"], "'-z'")]
#[case::long(&["--version"], "'--version'")]
#[case::word(&["-4", "-pp", "-xx", "-ii", "-oo", "-ff", "-cc", "word"], "word")]
#[case::dash(&["-4", "-"], "-")]
#[case::value_of_a_flag(&["-4=yes"], "'-='")]
fn invalid_usage_is_explained_and_changes_nothing(#[case] args: &[&str], #[case] reason: &str) {
    let directory = Directory::new();
    directory.write("i", [HEADER4, &row4(1)].concat());
    let before = directory.all();
    let output = directory.run(args);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let (first, usage) = text(&output.stderr).split_once('\n').unwrap();
    assert!(first.starts_with("kea-lfc: ") && first.contains(reason), "{first}");
    assert!(usage.starts_with("Usage: kea-lfc "), "{usage}");
    assert_eq!(directory.all(), before);
}

#[rstest]
#[case::apart("-4 -p pid -x previous -i input -o output -f finish -c config")]
#[case::joined("-4 -ppid -xprevious -iinput -ooutput -ffinish -cconfig")]
#[case::after_a_flag("-4dp pid -dxprevious -i input -o output -f finish -c config")]
#[case::in_another_order("-c config -f finish -o output -i input -x previous -p pid -4")]
#[case::the_last_family_counts("-6 -4 -p pid -x previous -i input -o output -f finish -c config")]
#[case::the_last_file_counts("-4 -x wrong -p pid -x previous -i input -o output -f finish -c config")]
#[case::with_the_end_of_options("-4 -p pid -x previous -i input -o output -f finish -c config --")]
fn options_may_be_joined_and_repeated(#[case] args: &str) {
    let directory = Directory::with_leases();
    let output = directory.run(args.split(' '));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(directory.names(), ["previous"]);
    let newest = row4(2).replace("host-2", "newest");
    assert_eq!(directory.read("previous"), [HEADER4, &row4(1), &newest, &row4(3)].concat());
}

#[test]
fn an_equals_sign_belongs_to_the_name() {
    let directory = Directory::new();
    directory.write("=input", [HEADER4, &row4(1)].concat());
    let output = directory.run("-4 -p=pid -x=previous -i=input -o=output -f=finish -c=config".split(' '));
    assert!(output.status.success());
    assert_eq!(directory.names(), ["=previous"]);
}

#[test]
fn names_need_not_be_utf8() {
    let directory = Directory::new();
    let input = OsStr::from_bytes(b"in\xff\x1bput");
    fs::write(directory.path(input), [HEADER4, &row4(1)].concat()).unwrap();
    let mut args = [&["-4d"], &FILES[..]].concat().into_iter().map(OsString::from).collect::<Vec<_>>();
    args[6] = input.to_owned();
    args[4] = OsString::from_vec(b"previous\xfe".to_vec());
    let output = directory.run(&args);
    assert!(output.status.success());
    assert_eq!(directory.names(), [args[4].clone()]);
}

#[test]
fn leases_of_both_families_are_cleaned_up() {
    let directory = Directory::new();
    let row = "2001:db8::1,00:01:02:03,3600,1790003600,1,2250,0,7,128,0,0,,,0,,,,0\n";
    directory.write("input", [HEADER6, row, row].concat());
    let output = directory.run([&["-6"], &FILES[..]].concat());
    assert!(output.status.success());
    let previous = directory.read("previous");
    assert!(previous.starts_with(HEADER6) && previous.lines().count() == 2, "{previous}");
}

// Log.

#[test]
fn a_cleanup_logs_each_step() {
    let directory = Directory::with_leases();
    let (succeeded, log) = directory.clean();
    assert!(succeeded);
    let ids =
        ["LFC_START", "LFC_PROCESSING", "LFC_READ_STATS", "LFC_WRITE_STATS", "LFC_ROTATING", "LFC_TERMINATE"];
    assert_eq!(log.ids(), ids);
    assert!(log.0.iter().all(|line| line.level == "INFO"));
    assert_eq!(log.message("LFC_READ_STATS"), "Leases: 4, attempts: 6, errors: 0");
    assert_eq!(log.message("LFC_WRITE_STATS"), "Leases: 3, attempts: 3, errors: 0");
}

#[test]
fn with_d_the_arguments_are_shown_and_details_are_logged() {
    let directory = Directory::new();
    directory.write("previous", [HEADER4, &row4(2), &row4(1)].concat());
    let output = directory.run([&["-4d"], &FILES[..]].concat());
    let stdout = text(&output.stdout);
    for value in ["DHCPv4", "pid", "previous", "input", "output", "finish", "config"] {
        assert_eq!(stdout.lines().filter(|line| line.ends_with(&format!(" {value}"))).count(), 1, "{stdout}");
    }
    let log = Log::new(&output.stderr);
    assert!(log.0.iter().any(|line| line.level == "DEBUG"));
}

#[test]
fn without_d_nothing_but_a_failure_is_on_the_console() {
    for directory in [Directory::with_leases(), Directory::new()] {
        directory.write("input", [HEADER4, "bad\n"].concat());
        let output = directory.run([&["-4"], &FILES[..]].concat());
        assert!(output.status.success());
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
    }
    let directory = Directory::new();
    directory.write("input", "no header\n");
    let output = directory.run([&["-4"], &FILES[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let reason = "kea-lfc: input: line 1: no DHCPv4 lease file: ";
    assert!(output.stdout.is_empty() && text(&output.stderr).starts_with(reason), "{}", text(&output.stderr));
}

#[test]
fn control_characters_in_names_are_escaped() {
    let directory = Directory::new();
    let mut args = [&["-4d"], &FILES[..]].concat();
    args[4] = "pre\x1b[31mvious\n2030";
    args[6] = "in\u{9b}put\r";
    directory.write(args[6], [HEADER4, "\x1b[31m\n"].concat());
    let clean = directory.run(&args);
    assert!(clean.status.success());
    let usage = directory.run(["-4", "wo\x1brd"]);
    let option = directory.run(["-\x1b"]);
    for output in [clean, usage, option] {
        for bytes in [output.stdout, output.stderr] {
            let text = text(&bytes);
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
            assert!(text.lines().all(|line| !line.starts_with("2030")), "{text:?}");
        }
    }
}

#[test]
fn output_may_be_closed() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else {
        return;
    };
    let directory = Directory::with_leases();
    let args = [&["-4d"], &FILES[..]].concat();
    let mut command = directory.command(PROGRAM);
    let full = || Stdio::from(full.try_clone().unwrap());
    assert!(command.args(args).stdout(full()).stderr(full()).status().unwrap().success());
    assert_eq!(directory.names(), ["previous"]);

    let output = directory.command(PROGRAM).arg("-v").stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "");
}

/// Needs a mount namespace, for a `/dev/log` that no other process uses.
#[test]
fn without_d_the_log_goes_to_syslog() {
    let directory = Directory::with_leases();
    let script = "mount -t tmpfs none /dev && : > /dev/log && mount --bind log /dev/log";
    let socket = UnixDatagram::bind(directory.path("log")).unwrap();
    let mut probe = directory.command("unshare");
    if !probe.args(["-rm", "sh", "-c", script]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespaces");
        return;
    }
    directory.write("input", [HEADER4, &row4(1), "bad\n"].concat());
    let script = format!("{script} && exec \"$@\"");
    let mut command = directory.command("unshare");
    command.args(["-rm", "sh", "-c", &script, "sh", PROGRAM, "-4"]).args(FILES);
    // An unsorted previous file is logged at level DEBUG, which syslog does not get.
    directory.write("previous", [HEADER4, &row4(2), &row4(1)].concat());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));

    socket.set_nonblocking(true).unwrap();
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = socket.recv(&mut buffer) {
        lines.push(text(&buffer[..count]).to_owned());
    }
    let (daemon, error, info) = (3 << 3, 3, 6);
    let mut seen = Vec::new();
    for line in &lines {
        let (priority, rest) = line.strip_prefix('<').unwrap().split_once('>').unwrap();
        // A time such as "Jan  1 00:00:00".
        let (time, rest) = rest.split_at(15);
        assert!(time.as_bytes()[3] == b' ' && time.as_bytes()[9] == b':', "{line}");
        let (pid, rest) = rest.strip_prefix(" kea-lfc[").unwrap().split_once("]: ").unwrap();
        let (level, rest) = rest.split_at(5);
        let severity = if level == "ERROR" { error } else { info };
        assert_eq!(priority, (daemon | severity).to_string(), "{line}");
        let rest = rest.strip_prefix(&format!(" [kea-lfc.lfc/{pid}] ")).unwrap();
        seen.push(rest.split_once(' ').unwrap());
    }
    let ids: Vec<_> = seen.iter().map(|(id, _)| *id).collect();
    assert_eq!((ids.first(), ids.last()), (Some(&"LFC_START"), Some(&"LFC_TERMINATE")));
    assert!(
        ids.contains(&"DHCPSRV_MEMFILE_LEASE_LOAD_ROW_ERROR") && !ids.contains(&"LFC_UNSORTED"),
        "{ids:?}"
    );
    assert!(seen.contains(&("LFC_READ_STATS", "Leases: 3, attempts: 6, errors: 1")), "{seen:?}");
}

#[test]
fn on_a_terminal_a_bar_shows_the_progress_below_whole_lines() {
    let directory = Directory::new();
    let rows: String = (0..20_000).map(row4).collect();
    directory.write("input", [HEADER4, &rows, "bad\n"].concat());
    let program = format!("'{PROGRAM}' -4d {}", FILES.join(" "));
    let mut script = directory.command("script");
    script.args(["-qec", &program, "/dev/null"]).env("TERM", "xterm");
    let Ok(output) = script.output() else {
        eprintln!("skipped: script is not installed");
        return;
    };
    assert!(output.status.success());
    let shown = String::from_utf8(output.stdout).unwrap();

    // Before each log line, the bar is erased by a carriage return and "erase line".
    let mut log = String::new();
    let mut last_bar = "";
    for part in shown.split("\r\x1b[2K") {
        let (lines, bar) = part.split_at(part.rfind('\n').map_or(0, |newline| newline + 1));
        assert!(bar.is_empty() || bar.starts_with('['), "{part:?}");
        log.push_str(lines);
        last_bar = bar;
    }
    let (bytes, rest) = last_bar.split_once("] ").unwrap().1.split_once('/').unwrap();
    assert!(bytes.ends_with(" MiB") && rest.starts_with(&format!("{bytes} ")), "{last_bar:?}");
    assert!(rest.contains("iB/s ETA "), "{last_bar:?}");

    let log: String = log.split_inclusive('\n').filter(|line| line.starts_with("20")).collect();
    let log = Log::new(log.as_bytes());
    assert_eq!(log.ids().first(), Some(&"LFC_START"));
    assert_eq!(log.ids().last(), Some(&"LFC_TERMINATE"));
    assert_eq!(log.message("LFC_READ_STATS"), "Leases: 20000, attempts: 20002, errors: 1");
}

#[rstest]
#[case::no_terminal("xterm", "2>&1 | cat")]
#[case::no_log_requested("xterm", "")]
#[case::a_dumb_terminal("dumb", "")]
fn without_a_capable_terminal_there_is_no_bar(#[case] terminal: &str, #[case] pipe: &str) {
    let directory = Directory::with_leases();
    let debug = if pipe.is_empty() && terminal == "xterm" { "" } else { "-d" };
    let program = format!("'{PROGRAM}' -4 {debug} {} {pipe}", FILES.join(" "));
    let mut script = directory.command("script");
    script.args(["-qec", &program, "/dev/null"]).env("TERM", terminal);
    let Ok(output) = script.output() else {
        eprintln!("skipped: script is not installed");
        return;
    };
    let shown = text(&output.stdout);
    assert!(!shown.contains("ETA") && !shown.contains('\x1b'), "{shown:?}");
    assert_eq!(directory.names(), ["previous"]);
    assert_eq!(shown.is_empty(), debug.is_empty(), "{shown:?}");
}

// Results.

/// Starts a process from a copy of a program under another name.
fn start_as(directory: &Directory, name: &str) -> Child {
    let path = directory.path(name);
    assert!(Command::new("cp").arg("/bin/sleep").arg(&path).status().unwrap().success());
    let child = Command::new(&path).arg("1000").spawn().unwrap();
    fs::remove_file(path).unwrap();
    child
}

#[cfg(target_os = "linux")]
#[rstest]
#[case::keas_program("kea-lfc", true)]
#[case::a_server("kea-dhcp4", false)]
#[case::any_other("sleep", false)]
fn no_cleanup_begins_while_another_one_is_running(#[case] name: &str, #[case] is_cleanup: bool) {
    let directory = Directory::with_leases();
    let mut other = start_as(&directory, name);
    directory.write("pid", format!("{}\n", other.id()));
    let before = directory.all();
    let (succeeded, log) = directory.clean();
    assert!(succeeded);
    if is_cleanup {
        assert_eq!(log.ids(), ["LFC_START", "LFC_RUNNING"]);
        let message = log.message("LFC_RUNNING");
        assert!(message.contains(&format!("process {} of pid ", other.id())), "{message}");
        assert!(message.contains("or remove pid if "), "{message}");
        assert_eq!(directory.all(), before);
    } else {
        assert!(log.of("LFC_RUNNING").is_empty());
        assert_eq!(directory.names(), ["previous"]);
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_pid_file_with_the_pid_of_the_test_stops_nothing() {
    let directory = Directory::with_leases();
    directory.write("pid", format!("{}\n", std::process::id()));
    let (succeeded, _) = directory.clean();
    assert!(succeeded);
    assert_eq!(directory.names(), ["previous"]);
}

#[rstest]
#[case::removed(None)]
#[case::emptied(Some(""))]
#[case::of_another_process(Some("1\n"))]
fn a_running_cleanup_is_detected_whatever_its_pid_file_contains(#[case] content: Option<&str>) {
    let directory = Directory::with_leases();
    let mut first = directory.start_and_stop_at_previous();
    match content {
        None => fs::remove_file(directory.path("pid")).unwrap(),
        Some(content) => directory.write("pid", content),
    }
    let (succeeded, log) = directory.clean();
    assert!(succeeded);
    assert_eq!(log.ids(), ["LFC_START", "LFC_RUNNING"]);
    assert!(log.message("LFC_RUNNING").contains("pid.running; wait"), "{}", log.message("LFC_RUNNING"));
    first.kill().unwrap();
    first.wait().unwrap();
    fs::remove_file(directory.path("previous")).unwrap();
    let (succeeded, _) = directory.clean();
    assert!(succeeded);
    assert_eq!(directory.names(), ["previous"]);
}

/// As a lease manager starts it, directly and through a script.
#[rstest]
#[case::directly(r#"exec "$@""#)]
#[case::by_a_script(r#""$@""#)]
#[case::without_the_lock(r#""$@" < /dev/null"#)]
fn a_program_uses_the_lock_that_it_inherits(#[case] script: &str) {
    let directory = Directory::with_leases();
    let lock = OsFileSystem.try_lock_for_process(&directory.path("pid.running")).unwrap().unwrap();
    let status = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_kea-lfc"), "-4"])
        .args(FILES)
        .current_dir(directory.path(""))
        .stdin(lock.descriptor().unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    let is_done = !script.contains("/dev/null");
    assert_eq!(directory.path("input").exists(), !is_done);
    // The manager releases the lock.
    assert!(
        directory.path("pid.running").exists()
            && OsFileSystem.try_lock(&directory.path("pid.running")).unwrap().is_none()
    );
}

#[rstest]
#[case::too_many_invalid_rows("input", &[HEADER4, &"bad\n".repeat(101)].concat(), "more than 100 invalid rows")]
#[case::another_header("previous", "address,foo\n", "previous: line 1: ")]
#[case::with_an_escape("input", "address,\u{1b}[31m\n", "input: line 1: ")]
fn a_failure_is_also_written_to_standard_error(
    #[case] name: &str,
    #[case] content: &str,
    #[case] reason: &str,
) {
    let directory = Directory::with_leases();
    directory.write(name, content);
    let output = directory.run([&["-4"], &FILES[..]].concat());
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    let error = text(&output.stderr);
    assert!(error.starts_with("kea-lfc: ") && error.contains(reason), "{error}");
    assert!(error.ends_with('\n') && error.lines().count() == 1 && !error.contains('\u{1b}'), "{error:?}");
    // With -d, the log has the message once.
    let output = directory.run([&["-4d"], &FILES[..]].concat());
    assert_eq!(text(&output.stderr).matches(reason).count(), 1, "{}", text(&output.stderr));
}

#[test]
fn a_success_is_not_written_to_standard_error() {
    let directory = Directory::with_leases();
    let output = directory.run([&["-4"], &FILES[..]].concat());
    assert!(output.status.success());
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
}

#[test]
fn a_stopped_process_with_the_lock_of_the_pid_file_is_waited_for_for_a_limited_time() {
    let directory = Directory::with_leases();
    let lock = OsFileSystem.lock(&directory.path("pid.lock")).unwrap();
    let before = directory.all();
    let (succeeded, log) = directory.clean();
    assert!(!succeeded);
    let message = log.message("LFC_FAIL_PID_CREATE");
    assert!(
        message.contains("cannot lock pid.lock: another process has held it for 10s; end that"),
        "{message}"
    );
    assert_eq!(directory.all(), before);
    drop(lock);
}

/// A lease manager recognizes this program, and the formats that it writes, by these lines.
#[test]
fn the_output_of_option_v_has_two_lines_for_programs() {
    let directory = Directory::with_leases();
    for args in [&["-V"][..], &["-4", "-V"], &["-6", "-V"]] {
        let output = directory.run(args);
        assert!(output.status.success());
        let lines: Vec<_> = text(&output.stdout).lines().collect();
        let expected = [
            concat!("kea-lfc ", env!("CARGO_PKG_VERSION")),
            "lease files: DHCPv4 schema 3.0, DHCPv6 schema 5.0",
        ];
        assert_eq!(lines, expected);
    }
}

#[test]
fn two_cleanups_do_not_run_on_the_same_files() {
    let directory = Directory::with_leases();
    let mut first = directory.start_and_stop_at_previous();
    let (succeeded, log) = directory.clean();
    assert!(succeeded);
    assert_eq!(log.ids(), ["LFC_START", "LFC_RUNNING"]);
    assert_eq!(directory.read("pid"), format!("{}\n", first.id()));
    first.kill().unwrap();
    first.wait().unwrap();

    // The files of the killed cleanup do not stop the next one.
    fs::remove_file(directory.path("previous")).unwrap();
    let (succeeded, _) = directory.clean();
    assert!(succeeded);
    assert_eq!(directory.names(), ["previous"]);
}

#[test]
fn an_interrupted_cleanup_is_completed() {
    let directory = Directory::with_leases();
    directory.write("finish", [HEADER4, &row4(9)].concat());
    let (succeeded, log) = directory.clean();
    assert!(succeeded);
    assert!(log.of("LFC_READ_STATS").is_empty());
    assert_eq!(log.ids()[log.ids().len() - 2..], ["LFC_ROTATING", "LFC_TERMINATE"]);
    assert_eq!(directory.names(), ["previous"]);
    assert_eq!(directory.read("previous"), [HEADER4, &row4(9)].concat());
}

#[test]
fn a_hundred_invalid_rows_are_tolerated() {
    let directory = Directory::with_leases();
    directory.write("input", [HEADER4, &row4(3), &"bad\n".repeat(100)].concat());
    let (succeeded, log) = directory.clean();
    assert!(succeeded);
    assert_eq!(log.of("DHCPSRV_MEMFILE_LEASE_LOAD_ROW_ERROR").len(), 20);
    assert!(log.message("DHCPSRV_MEMFILE_MORE_BAD_ROWS").ends_with("input: 80 more rows are left out"));
    let kept = log.message("LFC_INVALID_ROWS_KEPT");
    assert!(
        kept.starts_with("100 rows that cannot be read are kept in ") && kept.ends_with("input.bad"),
        "{kept}"
    );
    assert_eq!(directory.read("input.bad").lines().filter(|line| *line == "bad").count(), 100);
    assert_eq!(log.message("LFC_READ_STATS"), "Leases: 3, attempts: 105, errors: 100");
}

#[rstest]
#[case::too_many_invalid_rows(&[HEADER4, &"bad\n".repeat(101)].concat())]
#[case::invalid_header("address,foo\n")]
#[case::the_other_family(HEADER6)]
fn an_invalid_file_makes_it_fail_and_changes_nothing(#[case] input: &str) {
    let directory = Directory::with_leases();
    directory.write("input", input);
    let before = directory.all();
    let (succeeded, log) = directory.clean();
    assert!(!succeeded);
    assert_eq!(log.ids(), ["LFC_START", "LFC_PROCESSING", "LFC_FAIL_PROCESS", "LFC_TERMINATE"]);
    assert_eq!(log.of("LFC_FAIL_PROCESS")[0].level, "FATAL");
    assert!(log.message("LFC_FAIL_PROCESS").contains("input"));
    assert_eq!(directory.all(), before);
}

#[rstest]
#[case::pid(2, &["LFC_FAIL_PID_CREATE"])]
#[case::output(8, &["LFC_PROCESSING", "LFC_FAIL_PROCESS", "LFC_TERMINATE"])]
#[case::finish(10, &["LFC_PROCESSING", "LFC_FAIL_PROCESS", "LFC_TERMINATE"])]
#[case::previous(4, &[
    "LFC_PROCESSING",
    "LFC_READ_STATS",
    "LFC_WRITE_STATS",
    "LFC_ROTATING",
    "LFC_FAIL_ROTATE",
    "LFC_TERMINATE",
])]
fn a_missing_directory_makes_it_fail(#[case] arg: usize, #[case] ids: &[&str]) {
    let directory = Directory::with_leases();
    let before = directory.names();
    let mut args = [&["-4d"], &FILES[..]].concat();
    args[arg] = "missing/file";
    let output = directory.run(args);
    assert_eq!(output.status.code(), Some(1));
    let log = Log::new(&output.stderr);
    assert_eq!(log.ids(), [&["LFC_START"], ids].concat());
    let failure = ids.iter().find(|id| id.starts_with("LFC_FAIL_")).unwrap();
    assert_eq!(log.of(failure)[0].level, "FATAL");
    if *failure != "LFC_FAIL_ROTATE" {
        assert_eq!(directory.names(), before);
    }
}

#[test]
fn a_pid_file_that_cannot_be_removed_is_a_failure_but_the_end_is_logged() {
    let directory = Directory::with_leases();
    let child = directory.start_and_stop_at_previous();
    fs::remove_file(directory.path("pid")).unwrap();
    fs::create_dir(directory.path("pid")).unwrap();
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = Log::new(&output.stderr);
    assert_eq!(log.ids()[log.ids().len() - 2..], ["LFC_FAIL_PID_DEL", "LFC_TERMINATE"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_cleanup_has_lower_priority_than_servers() {
    /// Returns the nice value of a process.
    fn nice(pid: u32) -> i32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name of the program, which may contain blanks, the nice value is the 17th
        // field.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }
    let directory = Directory::with_leases();
    let mut child = directory.start_and_stop_at_previous();
    let found = nice(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, (nice(std::process::id()) + 4).min(19));
}

// Manual page.

const MANUAL: &str = include_str!("../man/kea-lfc.8");

#[test]
fn the_manual_page_renders_without_warnings() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/kea-lfc.8");
    let Ok(output) = Command::new("groff").args(["-man", "-ww", "-z", page]).output() else {
        eprintln!("skipped: groff is not installed");
        return;
    };
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_manual_page_is_about_this_version_and_all_its_options() {
    assert!(MANUAL.lines().next().unwrap().contains(concat!(
        '"',
        "leasemgr ",
        env!("CARGO_PKG_VERSION"),
        '"'
    )));
    for option in "46dvVWh".chars() {
        assert!(MANUAL.contains(&format!("\n.TP\n.B \\-{option}\n")), "{option}");
    }
    for option in "pxiofc".chars() {
        assert!(MANUAL.contains(&format!("\n.TP\n.BI \\-{option} \" file\"\n")), "{option}");
    }
}
