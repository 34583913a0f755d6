//! Cleans up the same files with Kea's `kea-lfc` and with this crate, and compares the results.
//!
//! Debian has Kea 2.2. It writes an older format, and has faults that later versions have fixed.
//! The generated files avoid these differences:
//!
//! * it writes no pool id, so the last column is removed from our result before the comparison;
//! * without a hardware address, it writes empty values for its type and source instead of 0;
//! * it accepts the DUID `00:00:00` for leases that are not declined, but not `00`; it rejects
//!   client ids and DUIDs of more than 128 bytes;
//! * it checks the prefix length of leases that are not prefixes, and accepts lengths above 128;
//! * it does not escape control bytes and bytes outside ASCII in a hostname, nor any byte of a JSON
//!   key, and reads an escape that is cut off by the end of a hostname as a NUL byte;
//! * it rejects integers of more than 64 bits in user contexts, and writes other numbers with six
//!   digits;
//! * it wraps negative numbers around, accepts addresses of the other family, and ends values at a
//!   NUL byte;
//! * in DHCPv6 rows, it accepts a missing type or source of the hardware address.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test, as the test itself does"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use leasemgr::lease::{
    ClientId, Duid, Family, Hostname, HwAddr, HwSource, HwType, Iaid, Lease, Lease4, Lease6, LeaseData,
    LeaseState, LeaseType, Lifetime, PoolId, SubnetId, UserContext,
};
use leasemgr::lease_file::{FileLease, Reader, Writer, unescape};
use leasemgr::lfc::{Cleanup, Figures, LfcError, LfcFiles, Outcome};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

/// Kea's cleanup program.
const KEA_LFC: &str = "/usr/sbin/kea-lfc";

/// Returns a configuration with `cases` cases by default, which are the same in every run.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(2131);
    }
    config
}

/// Returns whether Kea is installed. Panics if it is not, unless `LEASEMGR_WITHOUT_KEA` is set:
/// otherwise a missing comparison would go unnoticed.
fn kea_is_installed() -> bool {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    if std::env::var_os("LEASEMGR_WITHOUT_KEA").is_some_and(|value| value == "1") {
        return false;
    }
    let version = VERSION.get_or_init(|| {
        let version = Command::new(KEA_LFC).arg("-v").output().ok()?;
        Some(String::from_utf8_lossy(&version.stdout).trim().to_owned())
    });
    assert!(
        version.as_ref().is_some_and(|version| version.starts_with("2.2.")),
        "{KEA_LFC} of Kea 2.2 is needed, found {version:?}: install Debian's package kea-common, \
         or set LEASEMGR_WITHOUT_KEA=1 to skip the comparison"
    );
    true
}

// Comparison.

/// The files of a cleanup by the letter of their option.
#[derive(Clone, PartialEq)]
struct Files(BTreeMap<char, Vec<u8>>);

impl<const N: usize> From<[(char, Vec<u8>); N]> for Files {
    fn from(files: [(char, Vec<u8>); N]) -> Self {
        Self(files.into())
    }
}

/// Shows the files line by line, so that failures are readable.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Files {
    fn shown(&self) -> impl Iterator<Item = String> {
        self.0.iter().flat_map(|(role, file)| {
            file.split(|&b| b == b'\n').map(move |line| format!("{role}: {}", line.escape_ascii()))
        })
    }

    /// Returns the content of the previous file.
    fn previous(&self) -> &[u8] {
        &self.0[&'x']
    }
}

/// The files and the counts that a cleanup leaves.
#[derive(Debug, PartialEq)]
struct Cleaned {
    files: Files,
    read: Figures,
    written: Figures,
}

/// Creates a directory with these files.
fn directory_of(files: &Files) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (role, content) in &files.0 {
        std::fs::write(directory.path().join(role.to_string()), content).unwrap();
    }
    directory
}

fn files_in(directory: &Path) -> Files {
    let entries = directory.read_dir().unwrap().map(Result::unwrap);
    let file = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name.len(), 1, "{} is not a file of the cleanup", path.display());
        (name.chars().next().unwrap(), std::fs::read(&path).unwrap())
    };
    Files(entries.map(|entry| file(entry.path())).collect())
}

/// Cleans up with this crate. Returns `None` if a file is rejected because all its rows are
/// invalid; Kea has no such check.
fn by_us(family: Family, files: &Files) -> Option<Cleaned> {
    let directory = directory_of(files);
    let path = |role: &str| directory.path().join(role);
    let files = LfcFiles {
        previous: path("x"),
        input: path("i"),
        output: path("o"),
        finish: path("f"),
        pid: path("p"),
    };
    let bad = files.bad();
    let outcome = match Cleanup::new(family, files).run() {
        Err(LfcError::NoValidRow { .. }) => return None,
        outcome => outcome.unwrap(),
    };
    let Outcome::Cleaned { read, written } = outcome else {
        panic!("{outcome:?}");
    };
    // Kea does not keep invalid rows.
    assert_eq!(std::fs::remove_file(bad).is_ok(), read.errors > 0);
    Some(Cleaned { files: files_in(directory.path()), read, written })
}

fn by_kea(family: Family, files: &Files) -> Cleaned {
    let directory = directory_of(files);
    let mut command = Command::new(KEA_LFC);
    // Kea would lock its logs in a directory that is writable only for its own account.
    command.env("KEA_LOCKFILE_DIR", "none").args([if family == Family::V4 { "-4" } else { "-6" }, "-d"]);
    for role in ["x", "i", "o", "f", "p"] {
        command.arg(format!("-{role}")).arg(directory.path().join(role));
    }
    let run = command.args(["-c", "/dev/null"]).output().unwrap();
    let log = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success(), "{}: {log}", run.status);
    let figures = |id: &str| {
        let line = log.lines().find_map(|line| line.split_once(id));
        let (_, line) = line.unwrap_or_else(|| panic!("Kea's log has no {id}: {log}"));
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        Figures { leases: numbers[0], attempts: numbers[1], errors: numbers[2] }
    };
    let (read, written) = (figures("LFC_READ_STATS"), figures("LFC_WRITE_STATS"));
    Cleaned { files: files_in(directory.path()), read, written }
}

/// Returns the lines of a text, each without its newline.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&b| b == b'\n')
}

/// Returns each line of a lease file without its last column.
fn without_last_column(text: &[u8]) -> Vec<u8> {
    let cut = |line: &[u8]| line[..line.iter().rposition(|&b| b == b',').unwrap()].to_vec();
    lines(text).flat_map(|line| [cut(line), b"\n".to_vec()].concat()).collect()
}

/// Adds the zeros that Kea omits after an empty hardware address.
fn with_zeros(text: &[u8]) -> Vec<u8> {
    let zeros = |line: &[u8]| {
        let mut values: Vec<&[u8]> = line.split(|&b| b == b',').collect();
        if let [.., hwaddr, _state, _context, htype, source] = &mut values[..]
            && [*hwaddr, *htype, *source].iter().all(|value| value.is_empty())
        {
            (*htype, *source) = (b"0", b"0");
        }
        values.join(&b',')
    };
    lines(text).flat_map(|line| [zeros(line), b"\n".to_vec()].concat()).collect()
}

/// Cleans up these files with both programs. Returns Kea's result, or an error if the results
/// differ.
fn compare(family: Family, files: &Files) -> Result<Cleaned, TestCaseError> {
    let (ours, mut keas) = (by_us(family, files), by_kea(family, files));
    let Some(mut ours) = ours else {
        return Ok(keas);
    };
    let change = |cleaned: &mut Cleaned, change: fn(&[u8]) -> Vec<u8>| {
        let changed = change(cleaned.files.previous());
        cleaned.files.0.insert('x', changed);
    };
    change(&mut ours, without_last_column);
    if family == Family::V6 {
        change(&mut keas, with_zeros);
    }
    if ours == keas {
        return Ok(keas);
    }
    let (ours, keas) = (shown(&ours), shown(&keas));
    let only = |these: &[String], others: &[String], whose: &str| -> String {
        these.iter().filter(|line| !others.contains(line)).map(|line| format!("\n  {whose} {line}")).collect()
    };
    let differences = only(&ours, &keas, "ours: ") + &only(&keas, &ours, "Kea's:");
    Err(TestCaseError::fail(differences))
}

fn shown(cleaned: &Cleaned) -> Vec<String> {
    let figures = format!("read {}, written {}", cleaned.read, cleaned.written);
    std::iter::once(figures).chain(cleaned.files.shown()).collect()
}

// Texts in lease files, in all their spellings.

/// A value of a row, or a row.
type Text = Vec<u8>;

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = Text> {
    select(texts).prop_map(|text| text.as_bytes().to_vec())
}

/// Generates a value that is occasionally invalid.
fn seldom_invalid(
    good: impl Strategy<Value = Text>,
    bad: &'static [&'static str],
) -> impl Strategy<Value = Text> {
    prop_oneof![80 => good, 1 => one_of(bad)]
}

/// Generates a number, mostly in the spelling of servers.
fn spelled(number: impl Strategy<Value = u64>) -> impl Strategy<Value = Text> {
    let style = prop_oneof![20 => Just(""), 1 => Just("0"), 1 => Just("000"), 1 => Just("+")];
    (number, style).prop_map(|(number, style)| format!("{style}{number}").into_bytes())
}

/// Generates a number of 32 bits, mostly one of `usual`.
fn number(usual: &'static [u64]) -> impl Strategy<Value = Text> {
    let number =
        prop_oneof![8 => select(usual), 1 => any::<u32>().prop_map_into(), 1 => Just(u32::MAX.into())];
    seldom_invalid(
        spelled(number),
        &["", "x", "1 ", " 1", "4294967296", "99999999999999999999", "0x1", "1.0", "--1", "+"],
    )
}

fn valid_lifetime() -> impl Strategy<Value = Text> {
    number(&[0, 1, 3600, 3600, 7200, 86400])
}

fn expire() -> impl Strategy<Value = Text> {
    let number = prop_oneof![8 => 1_790_000_000..1_790_100_000_u64, 1 => 0..10_000_u64, 1 => any::<u64>()];
    seldom_invalid(spelled(number), &["", "x", "18446744073709551616", "1e9"])
}

fn flag() -> impl Strategy<Value = Text> {
    seldom_invalid(
        prop_oneof![9 => one_of(&["0", "1"]), 1 => one_of(&["00", "01", "+1"])],
        &["", "2", "x", "true"],
    )
}

fn state() -> impl Strategy<Value = Text> {
    number(&[0, 0, 0, 1, 2, 3, 4, 99])
}

/// Spelling of octets.
#[derive(Clone, Copy, Debug)]
enum Octets {
    Canonical,
    UpperCase,
    ShortAndColons,
    Blanks,
    Plain,
    Hex,
    /// Plain, with the leading zero omitted.
    Odd,
}

fn spell_octets(bytes: &[u8], style: Octets) -> Text {
    let join = |separator: &str, octet: fn(&u8) -> String| {
        bytes.iter().map(octet).collect::<Vec<_>>().join(separator)
    };
    let two = |octet: &u8| format!("{octet:02x}");
    match style {
        Octets::Canonical => join(":", two),
        Octets::UpperCase => join(":", |octet| format!("{octet:02X}")),
        Octets::ShortAndColons => join(":", |octet| format!("{octet:x}")),
        Octets::Blanks => join(" ", two),
        Octets::Plain => join("", two),
        Octets::Hex => format!("0x{}", join("", two)),
        Octets::Odd => join("", two).strip_prefix('0').map_or_else(|| join("", two), str::to_owned),
    }
    .into_bytes()
}

fn hwaddr() -> impl Strategy<Value = Text> {
    let bytes = prop_oneof![6 => vec(any::<u8>(), 6), 1 => vec(any::<u8>(), 1..=20)];
    let style =
        select(&[Octets::Canonical, Octets::Canonical, Octets::UpperCase, Octets::ShortAndColons][..]);
    let good = (bytes, style).prop_map(|(bytes, style)| spell_octets(&bytes, style));
    let good = prop_oneof![9 => good, 1 => Just(Text::new())];
    let bad = &[
        "zz",
        "abc",
        "0102",
        "01:",
        ":01",
        "01::02",
        "01 02",
        "001:02",
        "01:02 ",
        "01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15",
    ];
    seldom_invalid(good, bad)
}

/// Generates a client id or a DUID without leading zero bytes, so that it is not the empty DUID.
fn identifier(min: usize) -> impl Strategy<Value = Text> {
    let bytes = prop_oneof![8 => vec(any::<u8>(), 5), 1 => vec(any::<u8>(), min - 1..128)];
    let styles = &[
        Octets::Canonical,
        Octets::Canonical,
        Octets::Canonical,
        Octets::UpperCase,
        Octets::ShortAndColons,
        Octets::Blanks,
        Octets::Plain,
        Octets::Hex,
        Octets::Odd,
    ][..];
    let good = (1..=255_u8, bytes, select(styles));
    let good = good.prop_map(|(first, rest, style)| spell_octets(&[vec![first], rest].concat(), style));
    seldom_invalid(good, &["zz", "01-02", "01:02:", "0X010203", " 01:02:03", "0x", ":", "01:2x", "01  02 03"])
}

fn client_id() -> impl Strategy<Value = Text> {
    prop_oneof![9 => identifier(2), 1 => Just(Text::new())]
}

/// Generates names of printable ASCII, with escapes and similar text.
fn hostname() -> impl Strategy<Value = Text> {
    let piece = prop_oneof![
        9 => "[a-zA-Z0-9.-]{0,8}",
        1 => select(&["&#x2c", "&#x2C", "&#x26", "&#x41", "&", "&#", "&#x", "#x2c", "&#xzz", "&#x2z", " ", "\"'"][..])
            .prop_map(str::to_owned),
    ];
    let name = vec(piece, 0..4).prop_map(|pieces| pieces.concat().into_bytes());
    name.prop_filter("Kea 2.2 writes no escapes, and misreads those without an end", |name| {
        let mut meaning = Vec::new();
        unescape(name, &mut meaning);
        let cut_short = name.windows(3).enumerate().any(|(at, text)| text == b"&#x" && at + 5 > name.len());
        !cut_short && meaning.iter().all(|byte| matches!(byte, 0x20..=0x7e))
    })
}

/// Generates blanks between JSON tokens that Kea accepts.
fn blanks() -> impl Strategy<Value = Text> {
    prop_oneof![12 => one_of(&["", " "]), 1 => one_of(&["  ", "\t", "\n", "\r", "\x0c", "\x08"])]
}

/// Joins `items` with commas and blanks, in brackets.
fn bracketed(brackets: [u8; 2], items: Vec<Text>, blank: &[u8]) -> Text {
    [&brackets[..1], blank, &items.join(&[blank, b",", blank].concat()[..]), blank, &brackets[1..]].concat()
}

/// Generates a JSON string in one of its spellings.
fn json_string() -> impl Strategy<Value = Text> {
    let piece = prop_oneof![
        9 => "[a-zA-Z0-9 .:/{}\\[\\],&#'-]{0,6}".prop_map(String::into_bytes),
        2 => one_of(&["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u0041", "\\u00e9", "\\u00E9"]),
        1 => one_of(&["\\u0000", "\\u001f", "\\u0022", "\\u005c", "\\u007f", "\t", "\x01", "é"]),
        1 => vec(0x80..=0xff_u8, 1..3),
    ];
    vec(piece, 0..4).prop_map(|pieces| [b"\"".to_vec(), pieces.concat(), b"\"".to_vec()].concat())
}

/// Generates a JSON value in one of its spellings; six digits are enough for its numbers.
fn json_value() -> impl Strategy<Value = Text> {
    let number = one_of(&["0", "-0", "007", "+1", "-5", "0.5", ".5", "1.", "-2.25", "1.0", "100.0", "-.125"]);
    let leaf = prop_oneof![
        one_of(&["null", "true", "false"]),
        number,
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        json_string(),
    ];
    leaf.prop_recursive(3, 12, 4, |value| {
        prop_oneof![
            (vec(value.clone(), 0..4), blanks(), any::<bool>()).prop_map(|(mut items, blank, comma)| {
                if let Some(last) = items.last_mut().filter(|_| comma) {
                    last.push(b',');
                }
                bracketed(*b"[]", items, &blank)
            }),
            json_map(value),
        ]
    })
}

fn json_map(value: impl Strategy<Value = Text>) -> impl Strategy<Value = Text> {
    let key = "[a-zA-Z0-9 _,&#.:-]{0,5}";
    let member = (key, value).prop_map(|(key, value)| [format!("\"{key}\":").into_bytes(), value].concat());
    (vec(member, 0..4), blanks()).prop_map(|(members, blank)| bracketed(*b"{}", members, &blank))
}

/// Generates a JSON map in one of its spellings that Kea 2.2 and later versions read alike.
fn context() -> impl Strategy<Value = Text> {
    json_map(json_value())
}

/// Escapes a text for a row: always the characters that require it, others as `choices` say.
fn escaped(text: &[u8], choices: &[u8]) -> Text {
    let mut out = Text::new();
    for (&byte, choice) in text.iter().zip(choices.iter().cycle()) {
        let must = matches!(byte, b',' | b'&' | b'\n' | 0);
        let written = match choice {
            1 => format!("&#x{byte:02X}").into_bytes(),
            _ if must || *choice == 0 => format!("&#x{byte:02x}").into_bytes(),
            _ => vec![byte],
        };
        out.extend_from_slice(&written);
    }
    out
}

fn user_context() -> impl Strategy<Value = Text> {
    let good = (context(), vec(0..32_u8, 7)).prop_map(|(text, choices)| escaped(&text, &choices));
    let good = prop_oneof![1 => Just(Text::new()), 1 => good];
    let bad = &["[ 1 ]", "1", "null", "{", "{ \"a\": }", "x", " ", "{} x", "{ 'a': 1 }", "{\"a\":1 \"b\":2}"];
    seldom_invalid(good, bad)
}

fn address4() -> impl Strategy<Value = Text> {
    let address = prop_oneof![
        20 => (0..24_u32).prop_map(|n| Ipv4Addr::from(0x0a00_00f0 + n)),
        1 => any::<Ipv4Addr>(),
    ];
    let bad = &["", "1.2.3", "01.2.3.4", "1.2.3.4 ", "256.1.1.1", "1.2.3.4/24", "localhost", "1.2.3.4.5"];
    seldom_invalid(address.prop_map(|address| address.to_string().into_bytes()), bad)
}

fn some_address6() -> impl Strategy<Value = u128> {
    let near = 0x2001_0db8_0000_0000_0000_0000_0000_00f0_u128;
    prop_oneof![
        10 => (0..24_u128).prop_map(move |n| near + n),
        10 => (0..24_u128).prop_map(move |n| (near & !0xffff) + (n << 64)),
        1 => any::<u32>().prop_map_into(),
        1 => any::<u32>().prop_map(|n| 0xffff_0000_0000 + u128::from(n)),
        1 => any::<u128>(),
        // Zero groups at random positions, for all forms of compression.
        2 => (any::<u128>(), any::<u8>()).prop_map(|(address, kept)| {
            (0..8).filter(|n| kept >> n & 1 == 1).fold(0, |sum, n| sum | address & 0xffff << (16 * n))
        }),
    ]
}

fn spell_address6(address: u128, style: u8) -> Text {
    let address = Ipv6Addr::from(address);
    let groups = address.segments();
    match style {
        0 => groups.map(|group| format!("{group:04x}")).join(":"),
        1 => groups.map(|group| format!("{group:X}")).join(":"),
        2 => address.to_string().to_uppercase(),
        _ => address.to_string(),
    }
    .into_bytes()
}

/// Returns the bits that the address of a delegated prefix may have.
fn kept_bits(len: u32, host_bits: bool) -> u128 {
    if host_bits { u128::MAX } else { u128::MAX.checked_shl(128 - len).unwrap_or(0) }
}

/// Generates address, lease type and prefix length.
fn leased6() -> impl Strategy<Value = [Text; 3]> {
    let spelling = 0..12_u8;
    let address =
        (some_address6(), spelling.clone()).prop_map(|(address, style)| spell_address6(address, style));
    let bad = &[
        "",
        "1::2::3",
        "12345::1",
        "2001:db8::1 ",
        "[::1]",
        "x",
        ":::",
        "1:2:3:4:5:6:7",
        "::1/64",
        "::1.2.3",
    ];
    let kind = spelled(prop_oneof![8 => select(&[0, 0, 0, 1, 3][..]), 1 => 3..65536_u64]);
    let kind = seldom_invalid(kind, &["", "x", "0 ", "2147483648", "4294967295"]);
    let single =
        (seldom_invalid(address, bad), kind).prop_map(|(address, kind)| [address, kind, b"128".to_vec()]);
    let bad_len = prop_oneof![20 => Just(None), 1 => select(&["", "x", "64 "][..]).prop_map(Some)];
    let prefix =
        (some_address6(), spelling, select(&[128_u32, 80, 64, 56, 48, 1][..]), bad_len, any::<bool>());
    let prefix = prefix.prop_map(|(address, style, len, bad_len, host_bits)| {
        let address = spell_address6(address & kept_bits(len, host_bits), style);
        [address, b"2".to_vec(), bad_len.map_or_else(|| len.to_string(), str::to_owned).into_bytes()]
    });
    prop_oneof![3 => single, 1 => prefix]
}

/// Generates a valid pool id; Kea 2.2 drops the column.
fn pool_id() -> impl Strategy<Value = Text> {
    spelled(prop_oneof![Just(0_u64), any::<u32>().prop_map_into()])
}

/// Generates all values of a DHCPv4 row.
fn row4() -> impl Strategy<Value = Vec<Text>> {
    let first = (address4(), hwaddr(), client_id(), valid_lifetime(), expire(), number(&[1, 2]));
    let second = (flag(), flag(), hostname(), state(), user_context(), pool_id());
    (first, second)
        .prop_map(|((a, b, c, d, e, f), (g, h, i, j, k, l))| vec![a, b, c, d, e, f, g, h, i, j, k, l])
}

/// Generates all values of a DHCPv6 row.
fn row6() -> impl Strategy<Value = Vec<Text>> {
    let declined = one_of(&["00:00:00", "0:0:0", "00", "0"]);
    let client = prop_oneof![
        20 => (identifier(Duid::MIN_RECORDED_LEN), state()),
        1 => (declined, Just(b"1".to_vec())),
        1 => (Just(Text::new()), state()),
    ];
    let times = (valid_lifetime(), expire(), number(&[1, 2]), number(&[0, 1800, 3600]));
    let names = (number(&[1, 7]), flag(), flag(), hostname());
    let hw_type = seldom_invalid(
        prop_oneof![9 => one_of(&["1", "1", "", "0", "255", "65535"]), 1 => spelled(0..65536_u64)],
        &["x", "65536", "1 "],
    );
    let source = prop_oneof![9 => one_of(&["0", "1", "", "255"]), 1 => spelled(any::<u32>().prop_map_into())];
    let hw = (hwaddr(), hw_type, seldom_invalid(source, &["x", "4294967296"]));
    (leased6(), client, times, names, hw, user_context(), pool_id()).prop_map(
        |(
            [address, kind, len],
            (duid, state),
            (valid, expire, subnet, preferred),
            names,
            hw,
            context,
            pool,
        )| {
            let (iaid, fwd, rev, hostname) = names;
            let (hwaddr, htype, source) = hw;
            let first =
                [address, duid, valid, expire, subnet, preferred, kind, iaid, len, fwd, rev, hostname];
            let second = [hwaddr, state, context, htype, source, pool];
            first.into_iter().chain(second).collect()
        },
    )
}

// Files.

/// The format of a family's files, for Kea 2.2 and this crate.
#[derive(Clone, Copy, Debug)]
struct Format {
    columns: &'static str,
    /// Number of columns in the oldest files.
    oldest: usize,
    /// Index of the state column.
    state: usize,
    /// Number of values that is too small for any reader.
    too_few: usize,
}

const FORMAT4: Format = Format {
    columns: "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,\
              pool_id",
    oldest: 9,
    state: 9,
    too_few: 10,
};

const FORMAT6: Format = Format {
    columns: "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,\
              hostname,hwaddr,state,user_context,hwtype,hwaddr_source,pool_id",
    oldest: 12,
    state: 13,
    too_few: 14,
};

impl Format {
    fn newest(self) -> usize {
        self.columns.split(',').count()
    }

    /// Returns a header of `count` columns; a column beyond the known ones is unknown.
    fn header(self, count: usize) -> String {
        let known: Vec<_> = self.columns.split(',').take(count).collect();
        let more = if count > known.len() { ",future" } else { "" };
        known.join(",") + more
    }
}

/// The number of values in a row.
#[derive(Clone, Copy, Debug)]
enum Length {
    /// That of the file's header.
    Header,
    /// That of the newest files, and more values.
    Beyond(usize),
    /// Fewer values than are required.
    Short(usize),
}

/// A line of a file.
#[derive(Clone, Debug)]
enum Line {
    Row(Vec<Text>, Length),
    Other(Text),
}

fn line(row: impl Strategy<Value = Vec<Text>>) -> impl Strategy<Value = Line> {
    let length = prop_oneof![
        30 => Just(Length::Header),
        2 => (0..3_usize).prop_map(Length::Beyond),
        1 => (0..4_usize).prop_map(Length::Short),
    ];
    prop_oneof![
        40 => (row, length).prop_map(|(row, length)| Line::Row(row, length)),
        1 => Just(Line::Other(Text::new())),
        1 => one_of(&[" ", "\t", ",", "address", ",,,,,,,,,,,,,,,,,"]).prop_map(Line::Other),
    ]
}

/// Generates a file of such lines.
fn file(
    format: Format,
    row: impl Strategy<Value = Vec<Text>>,
    max_lines: usize,
) -> impl Strategy<Value = Text> {
    let columns = prop_oneof![3 => Just(format.newest()), 3 => Just(format.newest() - 1), 2 => format.oldest..format.newest() + 2];
    // Number of blank lines before the header, and whether the last newline is missing.
    let ends = (prop_oneof![9 => Just(0), 1 => 1..3_usize], prop::bool::weighted(0.2));
    (columns, vec(line(row), 0..=max_lines), ends).prop_map(move |(columns, lines, (blank, torn))| {
        let mut text = [b"\n".repeat(blank), format.header(columns).into_bytes(), b"\n".to_vec()].concat();
        for line in lines {
            match line {
                Line::Other(line) => text.extend_from_slice(&line),
                Line::Row(mut row, length) => {
                    let length = match length {
                        Length::Header => columns,
                        Length::Beyond(more) => format.newest() + more,
                        Length::Short(less) => format.too_few.min(columns - 1) - less,
                    };
                    // The empty DUID is invalid if the row ends before its state says that the
                    // lease is declined.
                    if length <= format.state && matches!(&row[1][..], b"00:00:00" | b"0:0:0" | b"00" | b"0")
                    {
                        row[1] = b"01:02:03".to_vec();
                    }
                    row.resize(length.max(row.len()), b"more".to_vec());
                    text.extend_from_slice(&row[..length].join(&b','));
                }
            }
            text.push(b'\n');
        }
        if torn {
            text.pop();
        }
        text
    })
}

/// Generates a file as a cleanup leaves it: sorted, one row for each lease, in canonical form; with
/// or without pool ids.
fn clean_file<L: FileLease>(lease: impl Strategy<Value = L>) -> impl Strategy<Value = Text> {
    (vec(lease, 0..30), any::<bool>()).prop_map(|(leases, with_pools)| {
        let leases: BTreeMap<_, _> = leases.into_iter().map(|lease| (lease.address(), lease)).collect();
        let text = written(leases.values().filter(|lease| lease.data().valid_lifetime.0 > 0));
        if with_pools { text } else { without_last_column(&text) }
    })
}

/// Generates the previous file and the input file of a cleanup.
fn file_set<L: FileLease>(
    format: Format,
    row: impl Strategy<Value = Vec<Text>> + Clone + 'static,
    lease: impl Strategy<Value = L> + 'static,
) -> impl Strategy<Value = Files> {
    let bare = || {
        let headers =
            (format.newest() - 1..=format.newest(), any::<bool>()).prop_map(move |(columns, whole)| {
                (format.header(columns) + if whole { "\n" } else { "" }).into_bytes()
            });
        prop_oneof![Just(Text::new()), headers]
    };
    let previous = prop_oneof![
        1 => Just(None),
        1 => bare().prop_map(Some),
        6 => clean_file(lease).prop_map(Some),
        3 => file(format, row.clone(), 20).prop_map(Some),
    ];
    let input =
        prop_oneof![1 => Just(None), 1 => bare().prop_map(Some), 12 => file(format, row, 60).prop_map(Some)];
    (previous, input).prop_map(|(previous, input)| {
        let files = [('x', previous), ('i', input)].into_iter();
        Files(files.filter_map(|(role, file)| Some((role, file?))).collect())
    })
}

// Leases.

/// Range of identifiers and names.
#[derive(Clone, Copy, Debug)]
enum Extent {
    /// Everything that the types allow.
    All,
    /// What Kea 2.2 accepts and does not change.
    Kea,
}

fn a_hwaddr() -> impl Strategy<Value = HwAddr> {
    prop_oneof![3 => vec(any::<u8>(), 6), 1 => vec(any::<u8>(), 1..=20)]
        .prop_map(|bytes| HwAddr::new(&bytes).unwrap())
}

fn a_name(extent: Extent) -> impl Strategy<Value = Vec<u8>> {
    let byte = match extent {
        Extent::All => any::<u8>().boxed(),
        Extent::Kea => (b' '..=b'~').boxed(),
    };
    let text = "[a-zA-Z0-9.,&#-]{0,20}".prop_map(String::into_bytes);
    prop_oneof![3 => text, 1 => vec(byte, 0..40)]
}

fn a_context() -> impl Strategy<Value = UserContext> {
    context().prop_filter_map("a map", |text| UserContext::parse(&text).ok())
}

/// Generates the data of both families, with these lifetimes.
fn lease_data(
    extent: Extent,
    valid: impl Strategy<Value = u32>,
    cltt: impl Strategy<Value = i64>,
) -> impl Strategy<Value = LeaseData> {
    let name = a_name(extent);
    let numbers = (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>());
    (valid, cltt, numbers, name, option::weighted(0.4, a_context())).prop_map(
        |(valid, cltt, (subnet, pool, fqdn_fwd, fqdn_rev), name, user_context)| LeaseData {
            valid_lifetime: Lifetime(valid),
            cltt,
            subnet_id: SubnetId(subnet),
            pool_id: PoolId(pool),
            fqdn_fwd,
            fqdn_rev,
            hostname: Hostname::new(&name),
            user_context,
        },
    )
}

/// Generates a lifetime; the row of a deleted lease has 0.
fn lifetime() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 6 => Just(3600), 1 => Just(u32::MAX), 2 => any::<u32>()]
}

fn lease_state() -> impl Strategy<Value = LeaseState> {
    prop_oneof![9 => 0..5_u32, 1 => any::<u32>()].prop_map(LeaseState)
}

fn lease4(extent: Extent) -> impl Strategy<Value = Lease4> {
    let max = if matches!(extent, Extent::All) { ClientId::MAX_LEN } else { 128 };
    let client_id = prop_oneof![3 => vec(any::<u8>(), 7), 1 => vec(any::<u8>(), ClientId::MIN_LEN..=max)];
    let client_id = client_id.prop_map(|bytes| ClientId::new(&bytes).unwrap());
    let client = (option::weighted(0.8, a_hwaddr()), option::weighted(0.8, client_id), lease_state());
    let address =
        prop_oneof![9 => (0..40_u32).prop_map(|n| Ipv4Addr::from(0x0a00_00f0 + n)), 1 => any::<Ipv4Addr>()];
    let cltt = prop_oneof![9 => 1_700_000_000..1_800_000_000_i64, 1 => any::<i64>()];
    (address, client, lease_data(extent, lifetime(), cltt)).prop_map(
        |(address, (hwaddr, client_id, state), mut data)| {
            // A lease without a client is declined.
            let state = if hwaddr.is_none() && client_id.is_none() { LeaseState::DECLINED } else { state };
            // Names of DHCPv4 clients are stored in lower case.
            data.hostname = Hostname::new(&data.hostname.as_bytes().to_ascii_lowercase());
            let mut lease = Lease4::new(address, hwaddr, client_id, state).unwrap();
            *lease.data_mut() = data;
            lease
        },
    )
}

fn lease6(extent: Extent) -> impl Strategy<Value = Lease6> {
    let max = if matches!(extent, Extent::All) { Duid::MAX_LEN } else { 128 };
    let duid = prop_oneof![3 => vec(any::<u8>(), 14), 1 => vec(any::<u8>(), Duid::MIN_RECORDED_LEN..=max)];
    let duid =
        prop_oneof![9 => duid.prop_map(|bytes| Duid::recorded(&bytes).unwrap()), 1 => Just(Duid::empty())];
    let leased = prop_oneof![
        8 => (some_address6(), Just(None), select(&[0_u16, 0, 0, 1, 3, 65535][..])),
        4 => (some_address6(), (0..=128_u32, any::<bool>()).prop_map(Some), Just(2)),
    ];
    let hwaddr = (a_hwaddr(), any::<u16>(), any::<u32>()).prop_map(|(mut hwaddr, htype, source)| {
        (hwaddr.htype, hwaddr.source) = (HwType(htype), HwSource(source));
        hwaddr
    });
    // Kea stores 32 bits of the time of a DHCPv6 lease.
    let cltt = prop_oneof![9 => 1_700_000_000..1_800_000_000_i64, 1 => 0..=i64::from(u32::MAX)];
    let client = (duid, lease_state(), option::weighted(0.8, hwaddr), any::<u32>(), lifetime());
    (leased, client, lease_data(extent, lifetime(), cltt)).prop_map(
        |((address, len, kind), (duid, state, hwaddr, iaid, preferred), data)| {
            let state = if duid.is_empty() { LeaseState::DECLINED } else { state };
            let iaid = Iaid(iaid);
            let mut lease = match len {
                Some((len, host_bits)) => {
                    let address = address & kept_bits(len, host_bits);
                    Lease6::recorded_prefix(address.into(), len, duid, iaid, state)
                }
                None => Lease6::new(LeaseType(kind), address.into(), duid, iaid, state),
            }
            .unwrap();
            lease.set_preferred_lifetime(Lifetime(preferred));
            lease.set_hwaddr(hwaddr);
            *lease.data_mut() = data;
            lease
        },
    )
}

/// Makes a lease occasionally a declined one.
fn or_declined<L: Lease>(lease: impl Strategy<Value = L>) -> impl Strategy<Value = L> {
    (lease, prop::bool::weighted(0.1)).prop_map(|(mut lease, declined)| {
        if declined {
            lease.decline(leasemgr::lease::system_time(1_790_000_000), Lifetime(86400));
        }
        lease
    })
}

fn leases4(extent: Extent) -> impl Strategy<Value = Lease4> {
    or_declined(lease4(extent))
}

fn leases6(extent: Extent) -> impl Strategy<Value = Lease6> {
    or_declined(lease6(extent))
}

fn written<'a, L: FileLease>(leases: impl IntoIterator<Item = &'a L>) -> Text {
    let mut writer = Writer::new(Text::new()).unwrap();
    leases.into_iter().for_each(|lease| writer.append(lease).unwrap());
    writer.into_inner()
}

fn read<L: FileLease>(text: &[u8]) -> Vec<L> {
    Reader::<L, _>::new(text).unwrap().map(|row| row.unwrap().lease).collect()
}

/// Returns the newest leases of consecutive rows.
fn newest<L: FileLease>(leases: &[L]) -> Vec<L> {
    let mut newest = BTreeMap::new();
    for lease in leases {
        if lease.data().valid_lifetime.0 == 0 {
            newest.remove(&lease.address());
        } else {
            newest.insert(lease.address(), lease.clone());
        }
    }
    newest.into_values().collect()
}

/// Lets Kea clean up files of this crate, and checks that the leases are the same.
fn through_kea<L: FileLease>(previous: Vec<L>, input: Vec<L>) -> Result<(), TestCaseError> {
    let previous = newest(&previous);
    let files = [('x', written(&previous)), ('i', written(&input))].into();
    let keas = compare(L::FAMILY, &files)?;
    let mut wanted = newest(&[previous, input].concat());
    // Kea 2.2 has no pool ids.
    wanted.iter_mut().for_each(|lease| lease.data_mut().pool_id = PoolId(0));
    prop_assert_eq!(read::<L>(keas.files.previous()), wanted);
    Ok(())
}

fn survives_a_file<L: FileLease>(leases: Vec<L>) -> Result<(), TestCaseError> {
    prop_assert_eq!(read::<L>(&written(&leases)), leases);
    Ok(())
}

/// Cleans up a clean file: each byte must stay.
fn is_clean_already<L: FileLease>(leases: Vec<L>) -> Result<(), TestCaseError> {
    let previous = written(&newest(&leases));
    let cleaned = by_us(L::FAMILY, &[('x', previous.clone())].into()).unwrap();
    prop_assert_eq!(cleaned.files.previous().escape_ascii().to_string(), previous.escape_ascii().to_string());
    Ok(())
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn any_dhcpv4_files_are_cleaned_up_as_by_kea(files in file_set(FORMAT4, row4().boxed(), leases4(Extent::Kea))) {
        if kea_is_installed() {
            compare(Family::V4, &files)?;
        }
    }

    #[test]
    fn any_dhcpv6_files_are_cleaned_up_as_by_kea(files in file_set(FORMAT6, row6().boxed(), leases6(Extent::Kea))) {
        if kea_is_installed() {
            compare(Family::V6, &files)?;
        }
    }

    #[test]
    fn written_dhcpv4_leases_survive_a_cleanup_by_kea(
        previous in vec(leases4(Extent::Kea), 0..30),
        input in vec(leases4(Extent::Kea), 0..40),
    ) {
        if kea_is_installed() {
            through_kea(previous, input)?;
        }
    }

    #[test]
    fn written_dhcpv6_leases_survive_a_cleanup_by_kea(
        previous in vec(leases6(Extent::Kea), 0..30),
        input in vec(leases6(Extent::Kea), 0..40),
    ) {
        if kea_is_installed() {
            through_kea(previous, input)?;
        }
    }

    #[test]
    fn a_clean_dhcpv4_file_stays_as_it_is(leases in vec(leases4(Extent::All), 0..30)) {
        is_clean_already(leases)?;
    }

    #[test]
    fn a_clean_dhcpv6_file_stays_as_it_is(leases in vec(leases6(Extent::All), 0..30)) {
        is_clean_already(leases)?;
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn a_dhcpv4_lease_is_read_as_it_was_written(leases in vec(leases4(Extent::All), 1..4)) {
        survives_a_file(leases)?;
    }

    #[test]
    fn a_dhcpv6_lease_is_read_as_it_was_written(leases in vec(leases6(Extent::All), 1..4)) {
        survives_a_file(leases)?;
    }
}

/// Rows that Kea 2.2 records and Kea 3.3 drops are kept. The key of a lease is its address as
/// written.
///
/// Each case is a list of rows, by address, DUID, valid lifetime, lease type, prefix length and
/// state, and the indexes of the rows that are kept.
#[rstest::rstest]
#[case::one_byte(&["2001:db8::1 01 3600 0 128 0"], &[0])]
#[case::two_bytes(&["2001:db8::1 00:01 3600 0 128 0"], &[0])]
#[case::declined(&["2001:db8::1 00 3600 0 128 1"], &[0])]
#[case::reclaimed(&["2001:db8::1 01:02 3600 0 128 2", "2001:db8::2 ff 3600 2 128 2"], &[0, 1])]
#[case::temporary(&["2001:db8::1 01 3600 1 128 0"], &[0])]
#[case::host_bits(&["2001:db8:8:1::1 00:01:02 3600 2 64 0"], &[0])]
#[case::host_bits_of_all(&["8001::1 01 3600 2 0 0"], &[0])]
#[case::host_bits_of_either(&["2001:db8:8:1:: 00:01:02 3600 2 64 0", "2001:db8:8:1::1 00:01:02 3600 2 64 0"],
    &[0, 1],
)]
#[case::longer_prefix(&["2001:db8:8:: 00:01:02 3600 2 48 0", "2001:db8:8:: 00:01:02 3600 2 56 0"], &[1])]
#[case::shorter_prefix(&["2001:db8:8:1::1 00:01:02 3600 2 64 0", "2001:db8:8:1::1 00:01 3600 2 56 0"], &[1])]
#[case::address_then_prefix(&["2001:db8:8:1::1 00:01:02 3600 0 128 0", "2001:db8:8:1::1 01 3600 2 64 0"], &[1])]
#[case::prefix_then_address(&["2001:db8:8:1::1 01 3600 2 64 0", "2001:db8:8:1::1 00:01:02 3600 0 128 0"], &[1])]
#[case::deleted(&["2001:db8:8:1::1 01 3600 2 64 0", "2001:db8:8:1::1 01 0 2 64 0"], &[])]
#[case::deleted_by_another_length(&["2001:db8:8:1::1 01 3600 2 64 0", "2001:db8:8:1::1 01 0 2 56 0"], &[])]
#[case::not_deleted_by_other_bits(&["2001:db8:8:1::1 01 3600 2 64 0", "2001:db8:8:1:: 01 0 2 64 0"], &[0])]
#[case::deleted_by_another_duid(&["2001:db8::1 01 3600 0 128 0", "2001:db8::1 00:01:02 0 0 128 0"], &[])]
fn rows_recorded_by_kea_2_are_kept_as_by_kea(
    #[case] rows: &[&str],
    #[case] kept: &[usize],
    #[values(false, true)] in_previous: bool,
) {
    let row = |row: &&str| {
        let [address, duid, valid, kind, len, state] = row.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{row}: expected six values");
        };
        format!("{address},{duid},{valid},1790003600,1,0,{kind},7,{len},0,0,h,02:00:00:00:00:01,{state},,1,0")
    };
    let header = FORMAT6.header(FORMAT6.newest() - 1);
    let text = |rows: &[String]| {
        format!("{header}\n{}", rows.iter().map(|row| format!("{row}\n")).collect::<String>())
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let (previous, input) = rows.split_at(usize::from(in_previous));
    let files: Files = [('x', text(previous).into_bytes()), ('i', text(input).into_bytes())].into();
    let kept: Vec<_> = kept.iter().map(|&n| rows[n].clone()).collect();
    let cleaned = without_last_column(by_us(Family::V6, &files).unwrap().files.previous());
    assert_eq!(String::from_utf8(cleaned).unwrap(), text(&kept));
    if kea_is_installed() {
        let keas = compare(Family::V6, &files).unwrap();
        assert_eq!(String::from_utf8(keas.files.previous().to_vec()).unwrap(), text(&kept));
    }
}

/// A server that is killed while it writes leaves the beginning of a row.
#[test]
fn a_torn_row_is_read_as_by_kea() {
    if !kea_is_installed() {
        return;
    }
    let rows = [
        (
            FORMAT4,
            Family::V4,
            "10.0.0.9,02:00:00:00:00:01,01:02,3600,1790003600,1,0,0,a&#x2cb,0,{ \"a\": 1&#x2c \"b\": 2 }",
        ),
        (
            FORMAT6,
            Family::V6,
            "2001:db8::9,00:01:02,3600,1790003600,1,2250,0,7,128,0,0,a&#x2cb,02:03,0,{  },1,0",
        ),
    ];
    for (format, family, row) in rows {
        let header = format.header(format.newest() - 1);
        // Kea accepts a DHCPv6 row without the type or the source of its hardware address.
        let values = row.split(',').take(if family == Family::V6 { format.too_few } else { format.newest() });
        let last = values.collect::<Vec<_>>().join(",").len();
        for end in 0..=last {
            let (whole, torn) = (row.replace('9', "8"), &row[..end]);
            let input = format!("{header}\n{whole}\n{torn}").into_bytes();
            compare(family, &[('i', input)].into()).unwrap();
        }
    }
}
