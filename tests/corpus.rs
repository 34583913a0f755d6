//! The results of Kea's cleanup for 519 sets of files.
//!
//! For a strict case, every file, count and exit status must be the same. For other cases Kea's
//! result is not the wanted one: the note of the case names the rule that applies instead, and
//! [`wanted`] implements it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test, as the test itself does"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use leasemgr::lease::Family;
use leasemgr::lfc::{Cleanup, Figures, LfcFiles, Outcome};
use serde_json::Value;

/// Number of cases, to detect missing ones.
const CASES: usize = 519;

/// Strict cases that contradict the rule for truncated escapes, and their hostnames: as recorded,
/// and as wanted.
///
/// Kea reads an `&#x` that is cut off by the end of the hostname as a NUL byte, and so changes the
/// name. By the rule (see the cases with the note "a truncated escape") the text is kept, and
/// written with its `&` escaped. The rest of these cases is compared as recorded.
const TRUNCATED_ESCAPES: [(&str, &str, &str); 3] = [
    ("v4/random/08", ",a&#x00b,", ",a&#x26#xb,"),
    ("v6/random/01", ",&#x002,", ",&#x26#x2,"),
    ("v6/random/04", ",&#x002,", ",&#x26#x2,"),
];

/// The note of cases in which a number is compared by value.
const NUMBERS: &str = "a number: keep its value, in any JSON spelling";

/// The note of cases whose rows Kea 2.2 writes and Kea 3.3 drops.
const RECORDED_BY_KEA_2: &str = "rows with a DUID of 1 or 2 bytes, or a delegated prefix with host bits, are kept as they stand (Kea 2.2 writes them)";

/// Files by their role in the case. A file without a role is listed by name.
type Files = BTreeMap<String, Vec<u8>>;

struct Case {
    name: String,
    family: Family,
    before: Files,
    recorded: Outcomes,
    strict: bool,
    note: String,
}

/// The files and the output of a cleanup.
#[derive(Clone, Debug, PartialEq)]
struct Outcomes {
    files: Files,
    read: Option<Figures>,
    written: Option<Figures>,
    good: bool,
}

/// Returns the stand-in for byte `n` of 0x80 to 0xff from the reading of the corpus to the writing
/// of its files: a private-use character that no case contains.
fn stand_in(byte: u32) -> char {
    char::from_u32(0x0010_0000 + byte).unwrap()
}

/// Replaces each escape of a lone surrogate `\udc80` to `\udcff`, which stands for a byte that is
/// not UTF-8, with a character that the JSON parser accepts.
fn without_lone_surrogates(json: &str) -> String {
    let code = |text: &str| text.get(2..6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = match (rest.as_bytes().get(1), code(rest)) {
            (Some(b'u'), Some(0xd800..=0xdbff)) => 12,
            (Some(b'u'), Some(code @ 0xdc80..=0xdcff)) => {
                out.push(stand_in(code - 0xdc00));
                rest = &rest[6..];
                continue;
            }
            (Some(b'u'), _) => 6,
            _ => 2,
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out + rest
}

/// Returns the bytes of a text of the corpus.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for char in text.chars() {
        match u32::from(char) {
            code @ 0x10_0080..=0x10_00ff => out.push(u8::try_from(code - 0x10_0000).unwrap()),
            _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

fn files(value: &Value) -> Files {
    let map = value.as_object().unwrap();
    map.iter().map(|(role, text)| (role.clone(), bytes(text.as_str().unwrap()))).collect()
}

fn figures(value: &Value) -> Option<Figures> {
    let figures = value.as_array()?;
    let at = |n: usize| figures[n].as_u64().unwrap();
    assert_eq!(figures.len(), 3);
    Some(Figures { leases: at(0), attempts: at(1), errors: at(2) })
}

fn corpus() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kea-lfc-cases.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<_> = text
        .lines()
        .map(|line| {
            let case: Value = serde_json::from_str(&without_lone_surrogates(line)).unwrap();
            let good = match &case["exit"] {
                Value::String(failure) => {
                    assert_eq!(failure, "failure");
                    false
                }
                exit => exit.as_u64().unwrap() == 0,
            };
            Case {
                name: case["name"].as_str().unwrap().to_owned(),
                family: match case["family"].as_u64() {
                    Some(4) => Family::V4,
                    Some(6) => Family::V6,
                    family => panic!("unknown family {family:?}"),
                },
                before: files(&case["before"]),
                recorded: Outcomes {
                    files: files(&case["after"]),
                    read: figures(&case["read"]),
                    written: figures(&case["written"]),
                    good,
                },
                strict: case["strict"].as_bool().unwrap(),
                note: case["note"].as_str().unwrap_or_default().to_owned(),
            }
        })
        .collect();
    assert_eq!(cases.len(), CASES);
    cases
}

/// Returns the accepted results of a case.
fn wanted(case: &Case) -> Vec<Outcomes> {
    let recorded = || case.recorded.clone();
    match case.note.as_str() {
        "" | "expire before valid_lifetime" => vec![recorded()],
        "an IPv6 address in a v4 file: reject the row" | "an IPv4 address in a v6 file: reject the row" => {
            vec![first_row_rejected(case)]
        }
        "a scoped address: reject the row or drop the scope" => {
            vec![first_row_rejected(case), replaced(recorded(), "fe80::1%lo,", "fe80::1,")]
        }
        "signs in numbers" | "signs in numbers: never written by a server" => {
            // An invalid hardware address is dropped, but not its row.
            let dropped = column(case).is_some_and(|column| column.starts_with("hw"));
            let less = if dropped { first_hwaddr_dropped(case) } else { first_row_rejected(case) };
            vec![recorded(), less]
        }
        "a truncated escape: keep the text as it stands" => {
            let hostname = first_row(case)[if case.family == Family::V4 { 8 } else { 11 }];
            let wanted = hostname.replace('&', "&#x26");
            let read_as_nul = hostname.replace("&#x", "&#x00");
            vec![replaced(recorded(), &format!(",{read_as_nul},"), &format!(",{wanted},"))]
        }
        RECORDED_BY_KEA_2 => vec![kept_as_recorded(case)],
        NUMBERS => {
            let mut wanted = recorded();
            take_context(&mut wanted);
            vec![wanted]
        }
        "an output file left by an interrupted cleanup is replaced, not appended to and not an error"
        | "a PID file that names no running process must not stop the cleanup" => vec![cleaned(case)],
        "an empty finish file is no finished cleanup: clean previous and input instead" => {
            // It is set aside for inspection, not deleted.
            let mut wanted = cleaned(case);
            wanted.files.insert("finish.bad".to_owned(), Vec::new());
            vec![wanted]
        }
        note => panic!("{}: unknown note \"{note}\"", case.name),
    }
}

/// Returns an error if the result of a case is not accepted.
fn judge(case: &Case, found: &Outcomes) -> Result<(), String> {
    let mut wanted = if case.strict { vec![case.recorded.clone()] } else { wanted(case) };
    for (name, recorded, by_the_rule) in TRUNCATED_ESCAPES {
        if case.name == name {
            assert!(case.strict);
            wanted = vec![replaced(case.recorded.clone(), recorded, by_the_rule)];
        }
    }
    let mut found = found.clone();
    if case.note == NUMBERS {
        // The input counts, not the recorded number: Kea rounds.
        let went_in = first_row(case)[if case.family == Family::V4 { 10 } else { 14 }];
        let came_out = take_context(&mut found);
        if json_values(went_in) != json_values(&came_out) {
            return Err(format!("{went_in} has become {came_out}"));
        }
    }
    if wanted.contains(&found) {
        return Ok(());
    }
    let differences: Vec<_> = wanted.iter().map(|wanted| difference(&found, wanted)).collect();
    Err(differences.join("\n  or"))
}

/// Takes the only user context out of the previous file.
fn take_context(outcomes: &mut Outcomes) -> String {
    let Some(previous) = outcomes.files.get_mut("previous") else {
        return String::new();
    };
    let text = String::from_utf8(previous.clone()).unwrap();
    let (Some(start), Some(end)) = (text.find("{ "), text.rfind('}')) else {
        return String::new();
    };
    *previous = format!("{}{}", &text[..start], &text[end + 1..]).into_bytes();
    text[start..=end].to_owned()
}

/// Returns a JSON text without blanks, with each number as sign, digits and power of ten.
fn json_values(text: &str) -> Vec<String> {
    let starts_number = |c: char| matches!(c, '+' | '-' | '.' | '0'..='9');
    let is_number = |c: char| starts_number(c) || matches!(c, 'e' | 'E');
    let mut values = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let number = starts_number(first);
        let len = if number { rest.find(|c| !is_number(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (value, tail) = rest.split_at(len);
        values.push(if number { decimal(value) } else { value.to_owned() });
        rest = tail.trim_start();
    }
    values
}

fn decimal(number: &str) -> String {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => (true, mantissa),
        None => (false, mantissa.trim_start_matches('+')),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let places = |digits: &str| i64::try_from(digits.len()).unwrap();
    let power = exponent.parse::<i64>().unwrap() + places(digits) - places(significant) - places(fraction);
    format!("{}{significant} * 10^{power}", if negative { "-" } else { "" })
}

/// Returns the rows of a file, after its header.
fn rows<'a>(files: &'a Files, role: &str) -> Vec<&'a str> {
    let text = files.get(role).map_or("", |text| std::str::from_utf8(text).unwrap());
    text.lines().skip(1).collect()
}

/// Returns the values of the first row of the input.
fn first_row(case: &Case) -> Vec<&str> {
    rows(&case.before, "input")[0].split(',').collect()
}

/// Returns the column that a case tests, if it tests one.
fn column(case: &Case) -> Option<&str> {
    match case.name.split('/').collect::<Vec<_>>()[..] {
        [_, "value", column, _] => Some(column),
        _ => None,
    }
}

/// Returns the result without the first of two input rows; the second one is in canonical form.
fn first_row_rejected(case: &Case) -> Outcomes {
    let input = std::str::from_utf8(&case.before["input"]).unwrap();
    let [header, _, second] = input.lines().collect::<Vec<_>>()[..] else {
        panic!("{}: an input of a header and two rows, expected by the rule for its note", case.name);
    };
    Outcomes {
        files: [("previous".to_owned(), format!("{header}\n{second}\n").into_bytes())].into(),
        read: Some(Figures { leases: 1, attempts: 3, errors: 1 }),
        written: Some(Figures { leases: 1, attempts: 1, errors: 0 }),
        good: true,
    }
}

/// Returns the result with both input rows, or with the second one if they have the same address.
/// All values are in canonical form, except possibly the DUID of the first row.
fn kept_as_recorded(case: &Case) -> Outcomes {
    let input = rows(&case.before, "input");
    let header = std::str::from_utf8(&case.before["input"]).unwrap().lines().next().unwrap();
    let mut newest: BTreeMap<&str, String> = BTreeMap::new();
    for row in &input {
        let mut values: Vec<_> = row.split(',').map(str::to_owned).collect();
        values[1] = spelled_out(&values[1]);
        newest.insert(row.split(',').next().unwrap(), values.join(","));
    }
    let (read, written) = (input.len() as u64, newest.len() as u64);
    let text = newest.values().fold(format!("{header}\n"), |text, row| text + row + "\n");
    Outcomes {
        files: [("previous".to_owned(), text.into_bytes())].into(),
        read: Some(Figures { leases: read, attempts: read + 1, errors: 0 }),
        written: Some(Figures { leases: written, attempts: written, errors: 0 }),
        good: true,
    }
}

/// Returns a DUID in canonical form.
fn spelled_out(duid: &str) -> String {
    if duid.contains(':') {
        return duid.to_owned();
    }
    let digits = duid.trim_start_matches("0x");
    let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
    let octets: Vec<_> =
        digits.as_bytes().chunks(2).map(|octet| std::str::from_utf8(octet).unwrap()).collect();
    octets.join(":")
}

/// Returns the recorded result without the hardware address of its first row.
fn first_hwaddr_dropped(case: &Case) -> Outcomes {
    let first = rows(&case.recorded.files, "previous")[0].to_owned();
    let mut values: Vec<_> = first.split(',').collect();
    (values[12], values[15], values[16]) = ("", "0", "0");
    replaced(case.recorded.clone(), &first, &values.join(","))
}

/// Returns the result of a cleanup of previous and input. Their rows are in canonical form; input
/// has only addresses of previous, or there is no previous.
fn cleaned(case: &Case) -> Outcomes {
    let (previous, input) = (rows(&case.before, "previous"), rows(&case.before, "input"));
    let address = |row: &str| row.split(',').next().unwrap().to_owned();
    let mut newest: Vec<(String, &str)> = Vec::new();
    for row in previous.iter().chain(&input) {
        match newest.iter_mut().find(|(known, _)| *known == address(row)) {
            Some(old) => old.1 = row,
            None => newest.push((address(row), row)),
        }
    }
    let leases = newest.len() as u64;
    let read = (previous.len() + input.len()) as u64;
    let read_from =
        ["previous", "input"].iter().filter(|&&role| case.before.contains_key(role)).count() as u64;
    let header = std::str::from_utf8(&case.before["input"]).unwrap().lines().next().unwrap();
    let newest: Vec<_> = std::iter::once(header).chain(newest.into_iter().map(|(_, row)| row)).collect();
    Outcomes {
        files: [("previous".to_owned(), (newest.join("\n") + "\n").into_bytes())].into(),
        read: Some(Figures { leases: read, attempts: read + read_from, errors: 0 }),
        written: Some(Figures { leases, attempts: leases, errors: 0 }),
        good: true,
    }
}

/// Replaces text of the previous file. Panics if the text is missing.
fn replaced(mut outcomes: Outcomes, from: &str, to: &str) -> Outcomes {
    let previous = outcomes.files.get_mut("previous").unwrap();
    let text = std::str::from_utf8(previous).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    *previous = text.replace(from, to).into_bytes();
    outcomes
}

/// Returns the lines that only one of the two results has.
fn difference(found: &Outcomes, wanted: &Outcomes) -> String {
    fn lines(outcomes: &Outcomes) -> Vec<String> {
        let Outcomes { files, read, written, good } = outcomes;
        let mut lines =
            vec![format!("good: {good}"), format!("read: {read:?}"), format!("written: {written:?}")];
        for (role, content) in files {
            lines.push(format!("{role}, {} bytes", content.len()));
            let rows = content.split(|&b| b == b'\n').enumerate();
            lines.extend(rows.map(|(n, row)| format!("{role}:{}: {}", n + 1, row.escape_ascii())));
        }
        lines
    }
    let (found, wanted) = (lines(found), lines(wanted));
    let only = |these: &[String], others: &[String], what: &str| -> String {
        these.iter().filter(|line| !others.contains(line)).map(|line| format!("\n  {what} {line}")).collect()
    };
    only(&found, &wanted, "found ") + &only(&wanted, &found, "wanted")
}

fn lfc_files(directory: &Path) -> LfcFiles {
    let path = |role: &str| -> PathBuf { directory.join(role) };
    LfcFiles {
        previous: path("previous"),
        input: path("input"),
        output: path("output"),
        finish: path("finish"),
        pid: path("pid"),
    }
}

fn in_process(case: &Case, directory: &Path) -> Outcomes {
    let result = Cleanup::new(case.family, lfc_files(directory)).run();
    let (read, written) = match result {
        Ok(Outcome::Cleaned { read, written }) => (Some(read), Some(written)),
        _ => (None, None),
    };
    Outcomes { files: Files::new(), read, written, good: result.is_ok() }
}

fn program(case: &Case, directory: &Path) -> Outcomes {
    let LfcFiles { previous, input, output, finish, pid } = lfc_files(directory);
    let run = Command::new(env!("CARGO_BIN_EXE_kea-lfc"))
        .arg(if case.family == Family::V4 { "-4" } else { "-6" })
        .arg("-d")
        .arg("-x")
        .arg(previous)
        .arg("-i")
        .arg(input)
        .arg("-o")
        .arg(output)
        .arg("-f")
        .arg(finish)
        .arg("-p")
        .arg(pid)
        .args(["-c", "/dev/null"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&run.stderr).into_owned();
    let figures = |id: &str| {
        let (_, line) = log.lines().find_map(|line| line.split_once(id))?;
        let numbers: Vec<u64> =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let [leases, attempts, errors] = numbers[..] else {
            panic!("not three counts in \"{id}{line}\"");
        };
        let text = Figures { leases, attempts, errors };
        assert!(line.contains(&text.to_string()), "{line}");
        Some(text)
    };
    let (read, written) = (figures("LFC_READ_STATS"), figures("LFC_WRITE_STATS"));
    assert!(run.status.code().is_some(), "{}: ended by a signal: {}", case.name, run.status);
    Outcomes { files: Files::new(), read, written, good: run.status.success() }
}

/// Takes the file of invalid rows, which Kea does not keep, out of the result. It must exist
/// exactly if rows were left out, and contain all of them unchanged.
fn check_kept(case: &Case, found: &mut Outcomes) -> Result<(), String> {
    let kept = found.files.remove("input.bad");
    let errors = found.read.filter(|_| found.good).map_or(0, |read| read.errors);
    if kept.is_some() != (errors > 0) {
        return Err(format!("{errors} rows were left out, and these are kept: {kept:?}"));
    }
    let kept = kept.unwrap_or_default();
    let lines: Vec<_> = kept.split(|&byte| byte == b'\n').collect();
    let (pairs, end) = lines.as_chunks::<2>();
    if pairs.len() as u64 != errors || end != [b""] {
        return Err(format!("{errors} rows were left out, and {} are kept", pairs.len()));
    }
    for [comment, row] in pairs {
        let comment = String::from_utf8_lossy(comment);
        let (path, rest) = comment.strip_prefix("# ").unwrap().split_once(": line ").unwrap();
        let role = Path::new(path).file_name().unwrap().to_str().unwrap();
        let (line, reason) = rest.split_once(": ").unwrap();
        let mut lines = case.before[role].split(|&byte| byte == b'\n');
        if lines.nth(line.parse::<usize>().unwrap() - 1) != Some(row) || reason.is_empty() {
            return Err(format!("{comment} is kept with the row {}", row.escape_ascii()));
        }
    }
    Ok(())
}

/// Cleans up every case, and panics with all unexpected results.
fn check_all(clean: impl Fn(&Case, &Path) -> Outcomes) {
    let cases = corpus();
    let mut mismatches = Vec::new();
    for case in &cases {
        let directory = tempfile::tempdir().unwrap();
        for (role, content) in &case.before {
            std::fs::write(directory.path().join(role), content).unwrap();
        }
        let mut found = clean(case, directory.path());
        for entry in directory.path().read_dir().unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            found.files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        if let Err(problem) = check_kept(case, &mut found).and_then(|()| judge(case, &found)) {
            mismatches.push(format!("{}: {problem}", case.name));
        }
    }
    let (bad, count) = (mismatches.len(), cases.len());
    assert!(mismatches.is_empty(), "{bad} of {count} cases:\n{}", mismatches.join("\n"));
}

#[test]
fn the_library_gives_the_wanted_result_in_every_case() {
    check_all(in_process);
}

#[test]
fn the_program_gives_the_wanted_result_in_every_case() {
    check_all(program);
}

#[test]
fn bytes_that_are_not_utf8_survive_the_reading_of_the_corpus() {
    let json = r#""a\udc80\\udc80\udcff\u00e9\ud83d\udc80\n\udce9""#;
    let text: String = serde_json::from_str(&without_lone_surrogates(json)).unwrap();
    assert_eq!(bytes(&text), b"a\x80\\udc80\xff\xc3\xa9\xf0\x9f\x92\x80\n\xe9");
}

#[test]
fn numbers_are_compared_by_value() {
    for (one, other) in [("1e3", "1000.0"), ("0.5", "+.5"), ("-10", "-1E+1"), ("0", "0e7")] {
        let (one, other) = (format!(r#"{{ "a": {one} }}"#), format!(r#"{{"a":{other}}}"#));
        assert_eq!(json_values(&one), json_values(&other));
    }
    for (one, other) in [("1e8", "100000000.5"), ("9223372036854775808", "9223372036854775807"), ("1", "-1")]
    {
        assert_ne!(json_values(one), json_values(other));
    }
}
