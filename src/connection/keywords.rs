//! The keywords of connection strings.

/// A keyword of connection strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyword {
    /// The name.
    pub name: &'static str,
    /// The types of lease managers that have the keyword.
    pub backends: &'static [&'static str],
    /// The form of the value.
    pub value: &'static str,
    /// The meaning, with unit and default.
    pub meaning: &'static str,
}

/// The types of lease managers in Kea. A build may lack some of them.
pub(crate) const TYPES: &[&str] = &["memfile", "mysql", "postgresql"];

/// The keywords that every backend has.
pub(super) const COMMON: [&str; 2] = ["type", "universe"];

const MEMFILE: &[&str] = &["memfile"];
const SQL: &[&str] = &["mysql", "postgresql"];

macro_rules! keywords {
    ($($name:literal of $backends:ident, $value:literal: $meaning:literal;)*) => {
        &[$(Keyword { name: $name, backends: $backends, value: $value, meaning: $meaning }),*]
    };
}

/// The keywords of all lease managers of Kea, and those of this crate.
pub static KEYWORDS: &[Keyword] = keywords! {
    "type" of TYPES, "memfile, mysql, postgresql, or a registered backend": "the backend; required";
    "universe" of TYPES, "4 or 6": "the family of the leases";
    "name" of TYPES, "a file or database": "the lease file, in the data directory unless the name contains a /, by default \
        kea-leases4.csv or kea-leases6.csv; or the database";

    "data-directory" of MEMFILE, "the absolute path of a directory": "the data directory, which must contain the lease \
        file; not in Kea's connection strings";
    "persist" of MEMFILE, "true or false": "whether leases are stored in a lease file; default true";
    "lfc-interval" of MEMFILE, "seconds": "the interval of lease file cleanups; default 3600, 0 disables them";
    "max-row-errors" of MEMFILE, "a number": "the maximum number of invalid rows in each lease file; default 0, no limit";
    "extended-info-tables" of MEMFILE, "true or false": "whether DHCPv6 leases can be found by relay id and remote id; \
        default false";
    "extended-info-checks" of MEMFILE, "none, fix, strict or pedantic": "how strictly the extended info of leases is \
        checked on loading; from fix on, old forms are upgraded; default fix, not in Kea's connection strings";
    "durability" of MEMFILE, "written, synced, or milliseconds as 100ms": "where a change is when it is acknowledged: with \
        the operating system, on the disk, or with the operating system and on the disk after this time; default \
        written, not in Kea";
    "lfc-executable" of MEMFILE, "the path of a program, or internal": "the program that cleans up lease files, or a thread of \
        the server (internal); default KEA_LFC_EXECUTABLE, else a kea-lfc of this project beside the server or \
        installed, else internal; not in Kea";

    "host" of SQL, "names or addresses, separated by commas": "the hosts of the database servers, in the order in which \
        they are tried; with a / at the beginning, a Unix socket; default localhost";
    "port" of SQL, "a port number": "the port of the database server";
    "user" of SQL, "a name": "the name of the database user";
    "password" of SQL, "text": "the password of the database user";
    "password-file" of SQL, "a file": "a file that contains the password";
    "connect-timeout" of SQL, "seconds": "how long to wait for a connection; default 5, and for 0";
    "read-timeout" of SQL, "seconds": "how long to wait for an answer; default 0, no limit";
    "write-timeout" of SQL, "seconds": "how long to wait until a request is sent; default 0, no limit";
    "tcp-user-timeout" of SQL, "seconds": "how long sent data may stay unacknowledged; default 0, that of the system";
    "max-reconnect-tries" of TYPES, "a number": "the maximum number of attempts to reopen a lost connection, default no \
        limit; for a memfile, of attempts to open it with retry-on-startup, default 0";
    "reconnect-wait-time" of TYPES, "milliseconds": "the time between two attempts; default 0 for a memfile, and otherwise a \
        time that grows from 100 to 5000";
    "on-fail" of TYPES, "stop-retry-exit, serve-retry-exit or serve-retry-continue": "what a server does during the \
        attempts and after the last one; default stop-retry-exit";
    "retry-on-startup" of TYPES, "true or false": "whether failed attempts are also repeated on startup; default false";
    "readonly" of SQL, "true or false": "whether the database is only read";
    "trust-anchor" of SQL, "a file": "the certificate authorities that are trusted to sign the server's certificate";
    "cert-file" of SQL, "a file": "the certificate of the client";
    "key-file" of SQL, "a file": "the private key of the client";
    "ssl-mode" of SQL, "disable, prefer, require, verify-ca or verify-full": "to what extent TLS is required; default \
        prefer";
    "cipher-list" of SQL, "a list": "the permitted ciphers";
    "pool-size" of SQL, "a number": "the maximum number of connections, at least 2; default 4; not in Kea";
    "target-session-attrs" of SQL, "any or read-write": "which of the hosts is used: the first one, or the first one that \
        accepts changes; default read-write; not in Kea";
};

/// Returns the keyword of this name.
pub(super) fn keyword(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// Returns whether any lease manager of Kea or of this crate has a keyword of this name.
pub(super) fn is_known(name: &str) -> bool {
    keyword(name).is_some()
}

/// Returns the most similar name, ignoring case, if its distance is at most 1 from a word of up to
/// four characters, or at most 2 from a longer word.
pub(super) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<_> = word.to_ascii_lowercase().chars().collect();
    let limit = ((word.len() + 1) / 3).min(2);
    let near = |name: &&str| name.chars().count().abs_diff(word.len()) <= limit;
    let measured = names.into_iter().filter(near).map(|name| (distance(&word, name), name));
    measured.filter(|&(distance, _)| distance <= limit).min().map(|(_, name)| name)
}

/// Returns the minimum number of insertions, deletions, substitutions and swaps of adjacent
/// characters that turn one into the other, with no character changed twice (optimal string
/// alignment distance).
fn distance(word: &[char], name: &str) -> usize {
    // Three rows of the table: the last but one, the last, and the current one.
    let mut before = vec![0; word.len() + 1];
    let mut last: Vec<_> = (0..=word.len()).collect();
    let mut row = last.clone();
    let mut left_of = None;
    for (done, c) in name.chars().enumerate() {
        row[0] = done + 1;
        for i in 1..=word.len() {
            let changed = last[i - 1] + usize::from(word[i - 1] != c);
            row[i] = changed.min(last[i] + 1).min(row[i - 1] + 1);
            if i > 1 && word[i - 2] == c && left_of == Some(word[i - 1]) {
                row[i] = row[i].min(before[i - 2] + 1);
            }
        }
        left_of = Some(c);
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[word.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn distance_of(a: &str, b: &str) -> usize {
        distance(&a.chars().collect::<Vec<_>>(), b)
    }

    #[rstest]
    #[case::equal("persist", "persist", 0)]
    #[case::empty_word("", "type", 4)]
    #[case::empty_name("type", "", 4)]
    #[case::deletion("persit", "persist", 1)]
    #[case::insertion("typpe", "type", 1)]
    #[case::substitution("typo", "type", 1)]
    #[case::swap("tpye", "type", 1)]
    #[case::twice("tpyee", "type", 2)]
    #[case::far_away("kitten", "sitting", 3)]
    #[case::characters_not_bytes("tÿpe", "type", 1)]
    fn the_distance_is_the_number_of_changes(#[case] a: &str, #[case] b: &str, #[case] changes: usize) {
        assert_eq!(distance_of(a, b), changes);
        assert_eq!(distance_of(b, a), changes);
    }

    #[rstest]
    #[case("presist", Some("persist"))]
    #[case("Type", Some("type"))]
    #[case("lfc_interval", Some("lfc-interval"))]
    #[case("lfcinterval", Some("lfc-interval"))]
    #[case("max-rows-error", Some("max-row-errors"))]
    #[case("hots", Some("host"))]
    #[case("ost", Some("host"))]
    #[case::distance_2_of_a_short_word("mast", None)]
    #[case("frequency", None)]
    #[case("q", None)]
    #[case("", None)]
    fn only_a_similar_name_is_suggested(#[case] word: &str, #[case] meant: Option<&str>) {
        assert_eq!(nearest(word, KEYWORDS.iter().map(|keyword| keyword.name)), meant);
    }

    #[test]
    fn the_nearest_of_several_is_suggested() {
        assert_eq!(
            nearest("read-timeuot", ["write-timeout", "red-timeouts", "read-timeout"]),
            Some("read-timeout")
        );
    }

    #[test]
    fn keywords_are_unique() {
        for (at, keyword) in KEYWORDS.iter().enumerate() {
            assert!(KEYWORDS[..at].iter().all(|other| other.name != keyword.name), "{}", keyword.name);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn distance_is_symmetric_and_at_most_the_length_of_the_longer_word(a in "[ab\u{e9}]{0,8}", b in "[ab\u{e9}]{0,8}") {
            let changes = distance_of(&a, &b);
            prop_assert_eq!(changes, distance_of(&b, &a));
            prop_assert_eq!(changes == 0, a == b);
            prop_assert!(changes <= a.chars().count().max(b.chars().count()));
        }
    }
}
