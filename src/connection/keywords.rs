//! The keywords of connection strings.

/// A keyword of connection strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyword {
    /// Its name.
    pub name: &'static str,
    /// The types of lease managers that have it.
    pub backends: &'static [&'static str],
    /// What its value looks like.
    pub value: &'static str,
    /// What it is for, with its unit and default.
    pub meaning: &'static str,
}

/// The types of lease managers that Kea has. Not every build has them all.
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

/// The keywords of all lease managers that Kea has, and what is this crate's own.
pub static KEYWORDS: &[Keyword] = keywords! {
    "type" of TYPES, "memfile, mysql, postgresql, or what is registered": "what keeps the leases; required";
    "universe" of TYPES, "4 or 6": "the family of the leases";
    "name" of TYPES, "a file or database": "the lease file, in the data folder unless there is a / in it, by default \
        kea-leases4.csv or kea-leases6.csv; or the database";

    "data-directory" of MEMFILE, "a folder, with its whole name": "the data folder, which the lease file must be in; not \
        in Kea's connection strings";
    "persist" of MEMFILE, "true or false": "whether there is a lease file; default true";
    "lfc-interval" of MEMFILE, "seconds": "how often the lease files are cleaned up; default 3600, 0 is never";
    "max-row-errors" of MEMFILE, "a number": "how many invalid rows are tolerated in each file that is loaded; default 0, which is no \
        limit";
    "extended-info-tables" of MEMFILE, "true or false": "whether DHCPv6 leases can be found by relay id and remote id; \
        default false";
    "extended-info-checks" of MEMFILE, "none, fix, strict or pedantic": "how strictly the extended info of leases is checked \
        when they are loaded; from fix on, old forms of it are upgraded; default fix, not in Kea's connection strings";
    "durability" of MEMFILE, "written, synced, or milliseconds as 100ms": "how far a change has gone when it is \
        acknowledged: to the operating system, to the disk, or to the disk after this time; default written, not \
        in Kea";
    "lfc-executable" of MEMFILE, "the file name of a program, or internal": "what does the cleanups, internal is a thread of the \
        server; default KEA_LFC_EXECUTABLE, else a kea-lfc of this project beside the server or installed, else internal; \
        not in Kea";

    "host" of SQL, "a name or address": "where the database server is";
    "port" of SQL, "a port number": "where it listens";
    "user" of SQL, "a name": "who the server is told that this is";
    "password" of SQL, "text": "what proves that";
    "password-file" of SQL, "a file": "a file with the password in it";
    "connect-timeout" of SQL, "a number": "how long to wait for a connection";
    "read-timeout" of SQL, "a number": "how long to wait for an answer";
    "write-timeout" of SQL, "a number": "how long to wait until a question is sent";
    "tcp-user-timeout" of SQL, "a number": "how long sent data may stay unacknowledged";
    "max-reconnect-tries" of TYPES, "a number": "how often a lost connection is reopened; of a memfile, how often opening is \
        tried again with retry-on-startup; default 0";
    "reconnect-wait-time" of TYPES, "milliseconds": "how long to wait between two tries; default 0";
    "on-fail" of TYPES, "stop-retry-exit, serve-retry-exit or serve-retry-continue": "what a server does meanwhile and in \
        the end; default stop-retry-exit";
    "retry-on-startup" of TYPES, "true or false": "whether it also tries again when it starts; default false";
    "readonly" of SQL, "true or false": "whether nothing is ever written";
    "trust-anchor" of SQL, "a file": "the certificates that the server's one must go back to";
    "cert-file" of SQL, "a file": "the certificate of the client";
    "key-file" of SQL, "a file": "the key of the client";
    "ssl-mode" of SQL, "a word": "how much TLS there must be";
    "cipher-list" of SQL, "a list": "the ciphers that may be used";
};

/// The keyword of this name.
pub(super) fn keyword(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// Whether Kea or this crate has a keyword of this name, for any lease manager.
pub(super) fn is_known(name: &str) -> bool {
    keyword(name).is_some()
}

/// The name that was probably meant: the nearest one, if it is no more than one change away from a word of up to four
/// characters, two from a longer one. Upper and lower case do not matter.
pub(super) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<_> = word.to_ascii_lowercase().chars().collect();
    let limit = ((word.len() + 1) / 3).min(2);
    let near = |name: &&str| name.chars().count().abs_diff(word.len()) <= limit;
    let measured = names.into_iter().filter(near).map(|name| (distance(&word, name), name));
    measured.filter(|&(distance, _)| distance <= limit).min().map(|(_, name)| name)
}

/// How many characters must be put in, left out, changed, or change places with the next one, to make one of the
/// other; no character more than once.
fn distance(word: &[char], name: &str) -> usize {
    // Of the rows of the table: the one before the last, the last, and the one that is filled in.
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
    #[case::the_same("persist", "persist", 0)]
    #[case::nothing_and_something("", "type", 4)]
    #[case::something_and_nothing("type", "", 4)]
    #[case::left_out("persit", "persist", 1)]
    #[case::put_in("typpe", "type", 1)]
    #[case::changed("typo", "type", 1)]
    #[case::places_changed("tpye", "type", 1)]
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
    #[case::two_changes_in_four_are_another_word("mast", None)]
    #[case("frequency", None)]
    #[case("q", None)]
    #[case("", None)]
    fn a_suggestion_is_near(#[case] word: &str, #[case] meant: Option<&str>) {
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
    fn no_keyword_stands_twice() {
        for (at, keyword) in KEYWORDS.iter().enumerate() {
            assert!(KEYWORDS[..at].iter().all(|other| other.name != keyword.name), "{}", keyword.name);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_distance_is_the_same_both_ways_and_not_longer_than_the_words(a in "[ab\u{e9}]{0,8}", b in "[ab\u{e9}]{0,8}") {
            let changes = distance_of(&a, &b);
            prop_assert_eq!(changes, distance_of(&b, &a));
            prop_assert_eq!(changes == 0, a == b);
            prop_assert!(changes <= a.chars().count().max(b.chars().count()));
        }
    }
}
