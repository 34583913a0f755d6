//! Input that no server has written: files of other programs, endless rows, terminal escapes. Each
//! invalid row is reported with its file, line and reason, the other leases are kept, and time and
//! memory stay within bounds.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasemgr::LeaseMgrExt;
use leasemgr::fs::{OsFileSystem, ReadFile};
use leasemgr::lease::{Family, Lease4, UserContext};
use leasemgr::lease_file::{LeaseFileSet, LeaseSet, MAX_INVALID_ROWS, MAX_LINE, Reader};
use leasemgr::lfc::{Cleanup, Outcome};
use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions};
use rstest::rstest;
use support::wrap_files::{WrapFiles, WrappedFileSystem};
use tempfile::TempDir;

const HEADER: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n";

/// Maximum memory of a program, in bytes, for input of any size.
const MEMORY: u64 = 200 << 20;

fn row(n: u32) -> String {
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
    format!("{address},02:00:00:00:00:01,,3600,1790003600,1,0,0,host-{n},0,,0\n")
}

struct Directory {
    directory: TempDir,
    files: LeaseFileSet,
}

impl Directory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = LeaseFileSet::new(directory.path().join("leases.csv"));
        Self { directory, files }
    }

    /// Creates a directory with these bytes between two leases, in the input of a cleanup.
    fn with_rows_between_leases(rows: &[u8]) -> Self {
        let directory = Self::new();
        let text = [HEADER.as_bytes(), row(1).as_bytes(), rows, b"\n", row(2).as_bytes()].concat();
        fs::write(directory.files.input_path(), text).unwrap();
        directory
    }

    fn options(&self) -> MemfileOptions {
        MemfileOptions::at(self.files.current_path().to_owned())
            .lfc_program(LfcProgram::Internal)
            .lfc_interval(None)
    }

    /// Runs `kea-lfc` with at most [`MEMORY`] bytes of memory.
    fn run_kea_lfc(&self) -> Output {
        self.run_kea_lfc_within(MEMORY)
    }

    fn run_kea_lfc_within(&self, memory: u64) -> Output {
        let mut command = within(memory, Path::new(env!("CARGO_BIN_EXE_kea-lfc")));
        command.arg("-4d");
        let files = self.files.lfc_files();
        let config = self.directory.path().join("config");
        for (option, path) in [
            ("-x", &files.previous),
            ("-i", &files.input),
            ("-o", &files.output),
            ("-f", &files.finish),
            ("-p", &files.pid),
            ("-c", &config),
        ] {
            command.arg(option).arg(path);
        }
        command.output().unwrap()
    }

    /// Returns the last part of the addresses of the leases, and the invalid rows.
    fn read(&self) -> (Vec<u32>, LeaseSet<Lease4>) {
        let set = self.files.read::<Lease4>().unwrap();
        (set.leases.keys().map(|address| address.to_bits() - 0x0a00_0000).collect(), set)
    }
}

/// Returns a command with limited memory.
fn within(memory: u64, program: &Path) -> Command {
    let limit = format!("ulimit -v {}; exec \"$0\" \"$@\"", memory >> 10);
    let mut command = Command::new("sh");
    // The C library's allocator reserves addresses for each thread that it does not use.
    command.args(["-c", &limit]).arg(program).env("MALLOC_ARENA_MAX", "1");
    command
}

fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// Returns the output of a program.
fn text_of(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

/// Returns whether a text has no control characters for a terminal.
fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() && c != '\n')
}

#[rstest]
#[case::zeros(vec![0; 100_000], "column 1 is \"\\x00\\x00")]
#[case::carriage_returns(HEADER.replace('\n', "\r\n"), "column 12 is \"pool_id\\r\", expected \"pool_id\"")]
#[case::byte_order_mark(format!("\u{feff}{HEADER}"), "column 1 is \"\\xef\\xbb\\xbfaddress\", expected \"address\"")]
#[case::utf_16(HEADER.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), "column 1 is \"a\\x00d\\x00d\\x00")]
#[case::elf(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0>\0\x01\0\0\0", "column 1 is \"\\x7fELF\\x02")]
#[case::gzip(b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x4c\x49", "column 1 is \"\\x1f\\x8b\\x08")]
#[case::sqlite(b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20", "column 1 is \"SQLite format 3\\x00")]
#[case::json(b"{\n  \"Dhcp4\": {}\n}\n", "column 1 is \"{\", expected \"address\"")]
#[case::the_other_family(b"address,duid,valid_lifetime\n", "column 2 is \"duid\", expected \"hwaddr\"")]
#[case::a_terminal(
    b"\x1b]0;owned\x07\x1b[2J\n",
    "column 1 is \"\\x1b]0;owned\\x07\\x1b[2J\", expected \"address\""
)]
fn a_file_of_another_program_is_rejected_and_kept(#[case] content: impl AsRef<[u8]>, #[case] reason: &str) {
    let (directory, content) = (Directory::new(), content.as_ref());
    let start = "line 1: no DHCPv4 lease file: ";
    let check = |path: &Path, error: &str| {
        let expected = format!("{}: {start}{reason}", path.display());
        assert!(error.contains(&expected) && is_plain(error), "{error:?}, expected {expected:?}");
        assert_eq!(fs::read(path).unwrap(), content);
    };
    for path in [
        directory.files.current_path().to_owned(),
        directory.files.previous_path(),
        directory.files.input_path(),
    ] {
        fs::write(&path, content).unwrap();
        check(&path, &leasemgr::with_sources(&Reader::<Lease4, _>::open(&path).unwrap_err()).to_string());
        check(&path, &leasemgr::with_sources(&directory.files.read::<Lease4>().unwrap_err()).to_string());
        check(
            &path,
            &leasemgr::with_sources(&Memfile::<Lease4>::open(directory.options()).unwrap_err()).to_string(),
        );
        if path != directory.files.current_path() {
            let output = directory.run_kea_lfc();
            assert_eq!(output.status.code(), Some(1));
            check(&path, &text_of(&output));
        }
        fs::remove_file(&path).unwrap();
    }
}

fn deep(open: &str, close: &str, depth: usize) -> Vec<u8> {
    let (open, close) = (open.repeat(depth), close.repeat(depth));
    format!("10.0.0.9,02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,{{ \"a\": {open}{close} }},0").into_bytes()
}

#[rstest]
#[case::zeros(vec![0; 100_000], &format!("line 3: 1 values, expected 12 (address {}...)", "\\x00".repeat(64)))]
#[case::a_million_columns(vec![b','; 999_999], "line 3: 1000000 values, expected 12")]
#[case::no_columns(b"x".to_vec(), "line 3: 1 values, expected 12 (address x)")]
#[case::beyond_a_line(vec![b'x'; MAX_LINE + 1], &format!("line 3: more than 16777216 bytes in one line (address {}...)", "x".repeat(64)))]
#[case::a_carriage_return([row(9).trim_end().as_bytes(), b"\r"].concat(), "line 3: pool_id is \"0\\r\", expected a number from 0 to 4294967295 (address 10.0.0.9)")]
#[case::deep_lists(
    deep("[", "]", 1_000_000),
    "line 3: user_context: maps and lists nested too deep at byte 1007 (address 10.0.0.9)"
)]
#[case::deep_maps(
    deep("{\"a\":", "}", 1_000_000),
    "line 3: user_context: maps and lists nested too deep at byte 5003 (address 10.0.0.9)"
)]
#[case::unclosed_lists(
    deep("[", "", 1_000_000),
    "line 3: user_context: maps and lists nested too deep at byte 1007 (address 10.0.0.9)"
)]
#[case::a_terminal(b"\x1b[31m,02:00:00:00:00:01,,3600,1790003600,1,0,0,\x1b]0;x\x07,0,,0".to_vec(), "line 3: address is \"\\x1b[31m\", expected an IPv4 address")]
fn an_invalid_row_is_reported_and_the_others_are_kept(#[case] bad: Vec<u8>, #[case] problem: &str) {
    let directory = Directory::with_rows_between_leases(&bad);
    let input = directory.files.input_path();
    let (found, set) = directory.read();
    assert_eq!(found, [1, 2]);
    let invalid_rows: Vec<_> =
        set.invalid_rows.iter().map(|row| (row.path.clone(), row.error.to_string())).collect();
    assert_eq!(invalid_rows, [(input.clone(), problem.to_owned())]);

    let leases = Memfile::<Lease4>::open(directory.options()).unwrap();
    assert_eq!(leases.all().unwrap().len(), 2);
    drop(leases);

    let output = directory.run_kea_lfc();
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("{}: {problem}", input.display())) && is_plain(&text), "{text:?}");
    assert_eq!(directory.read().0, [1, 2]);
}

#[test]
fn a_million_unknown_columns_are_accepted() {
    let mut long = row(9).trim_end().to_owned();
    long.push_str(&",x".repeat(1_000_000));
    let directory = Directory::with_rows_between_leases(long.as_bytes());
    let (found, set) = directory.read();
    assert_eq!((found, set.invalid_rows.len()), (vec![1, 2, 9], 0));
    assert!(directory.run_kea_lfc().status.success());
    assert_eq!(directory.read().0, [1, 2, 9]);
}

#[test]
fn a_user_context_of_maximum_depth_is_read_on_a_small_stack() {
    const LARGEST: usize = 999;
    let text = format!("{{\"a\":{}{}}}", "[".repeat(LARGEST), "]".repeat(LARGEST));
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        let context = UserContext::parse(text.as_bytes()).unwrap();
        assert_eq!(UserContext::parse(context.as_str().as_bytes()).as_ref(), Ok(&context));
        context
    });
    assert!(thread.unwrap().join().unwrap().as_str().len() > 2 * LARGEST);
}

/// A file of a gigabyte that uses no disk space: two leases, and a line of zeros between them.
#[test]
fn a_line_of_a_gigabyte_is_not_kept_in_memory() {
    const LEN: u64 = 1 << 30;
    let directory = Directory::new();
    let mut file = fs::File::create(directory.files.input_path()).unwrap();
    file.write_all([HEADER, &row(1)].concat().as_bytes()).unwrap();
    file.seek(SeekFrom::Current(i64::try_from(LEN).unwrap())).unwrap();
    file.write_all(format!("\n{}", row(2)).as_bytes()).unwrap();
    drop(file);
    let output = directory.run_kea_lfc();
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("line 3: more than 16777216 bytes in one line"), "{text}");
    assert_eq!(directory.read().0, [1, 2]);
}

/// The longest line that is read, with the maximum number of values.
#[rstest]
#[case::no_lease("")]
#[case::a_lease(&row(9))]
fn a_line_of_commas_needs_memory_for_its_text_only(#[case] beginning: &str) {
    let mut line = beginning.trim_end().as_bytes().to_vec();
    line.resize(MAX_LINE, b',');
    // A buffer of twice the line, the memory that the program needs anyway, and the stack of each
    // thread.
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let memory = 6 * MAX_LINE as u64 + threads * (4 << 20);
    let check = |output: Output| assert!(output.status.success(), "{}", text_of(&output));

    let directory = Directory::with_rows_between_leases(&line);
    check(
        within(memory, &example("list_leases"))
            .arg("4")
            .arg(directory.files.current_path())
            .output()
            .unwrap(),
    );
    let server =
        format!("type=memfile universe=4 lfc-interval=0 name={}", directory.files.current_path().display());
    let args = [server.as_str(), "--threads", "1", "--seconds", "0"];
    check(within(memory, &example("lease_server")).args(args).output().unwrap());
    check(directory.run_kea_lfc_within(memory));

    let directory = Directory::with_rows_between_leases(&line);
    fs::rename(directory.files.input_path(), directory.files.previous_path()).unwrap();
    check(directory.run_kea_lfc_within(memory));
}

#[test]
fn a_last_row_without_a_newline_is_listed_and_reported() {
    let directory = Directory::new();
    fs::write(directory.files.current_path(), format!("{HEADER}{}", row(1).trim_end())).unwrap();
    let output =
        Command::new(example("list_leases")).arg("4").arg(directory.files.current_path()).output().unwrap();
    let (listed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && listed.lines().count() == 1, "{listed}{errors}");
    assert!(errors.ends_with("the last line has no newline; it may be incomplete\n"), "{errors}");
}

#[test]
fn only_the_first_invalid_rows_of_a_file_are_listed() {
    let directory = Directory::new();
    let rows = MAX_INVALID_ROWS + 10;
    fs::write(directory.files.current_path(), format!("{HEADER}{}{}", "x\n".repeat(rows), row(1))).unwrap();
    let (found, set) = directory.read();
    assert_eq!(
        (found, set.invalid_rows.len(), set.stats.invalid_rows),
        (vec![1], MAX_INVALID_ROWS, rows as u64)
    );
    assert_eq!(set.invalid_rows.last().unwrap().error.line, MAX_INVALID_ROWS as u64 + 1);

    let output =
        Command::new(example("list_leases")).arg("4").arg(directory.files.current_path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.ends_with("\nlist_leases: 10 more rows are no lease\n"), "{text}");
}

#[test]
fn any_number_of_invalid_rows_may_be_tolerated() {
    let directory = Directory::with_rows_between_leases(b"x\ny");
    let outcome =
        Cleanup::new(Family::V4, directory.files.lfc_files()).max_invalid_rows(u64::MAX).run().unwrap();
    assert!(matches!(outcome, Outcome::Cleaned { read, .. } if read.errors == 2));
    assert_eq!(directory.read().0, [1, 2]);
}

/// Names and user contexts of clients with terminal escapes, in valid and in invalid rows.
#[test]
fn no_terminal_escape_of_a_client_reaches_the_output() {
    let directory = Directory::new();
    let mut text = HEADER.as_bytes().to_vec();
    for (n, control) in [&b"\x1b[2J"[..], b"\x07", b"\x08", b"\r", b"\x7f", b"\xc2\x9b", b"\x9b", b"&#x1b[2J"]
        .iter()
        .enumerate()
    {
        for column in 0..12 {
            let row = row(u32::try_from(12 * n + column).unwrap());
            let mut values: Vec<_> =
                row.trim_end().split(',').map(|value| value.as_bytes().to_vec()).collect();
            values[column].extend_from_slice(control);
            text.extend(values.join(&b','));
            text.push(b'\n');
        }
    }
    fs::write(directory.files.input_path(), text).unwrap();
    let set = directory.read().1;
    // In leases, they are in the name.
    assert!(
        set.leases.len() >= 8 && set.invalid_rows.len() >= 50,
        "{} {}",
        set.leases.len(),
        set.invalid_rows.len()
    );
    let mut shown = String::new();
    for row in &set.invalid_rows {
        write!(shown, "{} {:?} {row:?}", row.error, row.error).unwrap();
    }
    for lease in set.leases.values() {
        write!(shown, "{lease:?} {}", lease.data().hostname).unwrap();
    }
    assert!(is_plain(&shown), "{shown:?}");

    let output =
        Command::new(example("list_leases")).arg("4").arg(directory.files.current_path()).output().unwrap();
    assert!(output.status.success());
    let text = text_of(&output);
    // The columns are separated by tabs.
    assert!(text.contains("10.0.0.") && is_plain(&text.replace('\t', " ")), "{text:?}");
    let text = text_of(&directory.run_kea_lfc());
    assert!(text.contains("LFC_READ_STATS") && is_plain(&text), "{text:?}");
}

/// Counts the bytes that are read.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicU64>);

struct CountedFile(Box<dyn ReadFile>, Arc<AtomicU64>);

impl ReadFile for CountedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let count = self.0.read_at(buffer, at)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
    fn identity(&self) -> io::Result<(u64, u64)> {
        self.0.identity()
    }
}

impl WrapFiles for Counting {
    fn wrap_read(&self, file: Box<dyn ReadFile>) -> Box<dyn ReadFile> {
        Box::new(CountedFile(file, Arc::clone(&self.0)))
    }
}

fn valid_rows(bytes: usize) -> Vec<u8> {
    (0..)
        .map(row)
        .scan(0, |len, row| (*len < bytes).then(|| *len += row.len()).map(|()| row))
        .collect::<String>()
        .into()
}

fn backward_rows(bytes: usize) -> Vec<u8> {
    let count = u32::try_from(bytes / row(100_000).len()).unwrap();
    (0..count).rev().map(row).collect::<String>().into()
}

/// Lines longer than the windows of a cleanup.
fn long_lines(bytes: usize) -> Vec<u8> {
    let mut line = vec![b','; 1 << 19];
    line[0] = b'\n';
    [row(1).into_bytes(), line.repeat(bytes / line.len())].concat()
}

#[rstest]
#[case::valid_rows(valid_rows)]
#[case::out_of_order(backward_rows)]
#[case::one_address(|bytes| row(1).repeat(bytes / row(1).len()).into())]
#[case::invalid_rows(|bytes| [row(1).as_bytes(), &b"no lease at all\n".repeat(bytes / 16)].concat())]
#[case::empty_lines(|bytes| vec![b'\n'; bytes / 8])]
#[case::long_lines(long_lines)]
#[case::one_line(|bytes| vec![b'x'; bytes])]
fn the_bytes_read_are_linear_in_the_size_of_the_file(#[case] content: fn(usize) -> Vec<u8>) {
    /// Maximum number of times that each byte is read: about five for a journal, in windows that
    /// may overlap by a line.
    const TIMES: u64 = 8;
    /// For small windows at the ends, and the header.
    const MORE: u64 = 1 << 20;
    let bytes_read = |bytes: usize, role: fn(&LeaseFileSet) -> PathBuf, load: bool| {
        let directory = Directory::new();
        let content = [HEADER.as_bytes(), &content(bytes)].concat();
        fs::write(role(&directory.files), &content).unwrap();
        let counting = Counting::default();
        let fs = WrappedFileSystem(counting.clone(), OsFileSystem);
        if load {
            drop(Memfile::<Lease4>::open_on(directory.options(), Arc::new(fs)).unwrap());
        } else {
            let files = directory.files.lfc_files();
            Cleanup::new(Family::V4, files)
                .file_system(&fs)
                .max_invalid_rows(u64::MAX)
                .threads(2)
                .run()
                .unwrap();
        }
        let read = counting.0.load(Ordering::Relaxed);
        let len = content.len() as u64;
        assert!(read >= len && read <= TIMES * len + MORE, "{read} bytes read for a file of {len}");
        read
    };
    const SMALL: usize = 2 << 20;
    for (role, load) in [
        (LeaseFileSet::input_path as fn(&_) -> _, false),
        (LeaseFileSet::previous_path, false),
        (LeaseFileSet::input_path, true),
    ] {
        let (small, large) = (bytes_read(SMALL, role, load), bytes_read(2 * SMALL, role, load));
        assert!(large <= 2 * small + MORE, "{small} bytes read, of a file of twice the length {large}");
    }
}
