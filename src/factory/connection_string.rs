//! What a lease manager is opened with, as text.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::keywords::{COMMON, Keyword, keyword, nearest};

/// What stands between two pairs.
const BLANKS: [char; 2] = [' ', '\t'];

/// What stands for a text that is not shown.
const HIDDEN: &str = "*****";

const PASSWORD: &str = "password";

/// What a lease manager is opened with: pairs `keyword=value`, with blanks or tabs between them.
///
/// There are no blanks in a value, except in a password in apostrophes: `password='two words'`. Such a password has no
/// apostrophe in it, and one without apostrophes around it does not begin with one.
///
/// No password is ever shown, neither by [`Display`](fmt::Display) and [`Debug`] nor by an error. Nor is what may be a part
/// of one: words behind a password up to the next keyword that is known, words that look like `password:secret`, and the
/// values of unknown keywords.
///
/// ```
/// use leasemgr::factory::ConnectionString;
///
/// let connection: ConnectionString = "type=mysql host=db password='two words' port=3306".parse()?;
/// assert_eq!(connection.get("host"), Some("db"));
/// assert_eq!(connection.get("user"), None);
/// assert_eq!(connection.number("port", 1..=65535)?, Some(3306));
/// assert_eq!(connection.get("password"), Some("two words"));
/// assert_eq!(connection.to_string(), "type=mysql host=db password=***** port=3306");
/// # Ok::<(), leasemgr::factory::ConnectionStringError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// Keywords and values, in the order in which they were given.
    pairs: Vec<(String, String)>,
}

/// What is wrong with a connection string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// A word that is no pair.
    #[error("{word}: no \"=\", expected keyword=value")]
    NoEqualsSign {
        /// The word.
        word: Word,
    },
    /// A value without a keyword.
    #[error("word {number}: no keyword before the \"=\"")]
    NoKeyword {
        /// Which word it is, counted from 1.
        number: usize,
    },
    /// A keyword that was there before.
    #[error("{word}: the keyword is given twice")]
    Repeated {
        /// The keyword.
        word: Word,
    },
    /// A password that begins with an apostrophe and does not end with one.
    #[error("word {number}: password: no closing apostrophe")]
    Unterminated {
        /// Which word it is, counted from 1.
        number: usize,
    },
    /// A password in apostrophes, and no blank behind it.
    #[error("word {number}: password: text behind the closing apostrophe, expected a blank")]
    BehindApostrophe {
        /// Which word it is, counted from 1.
        number: usize,
    },
    /// A character that has no place in a text of one line.
    #[error("character {position} is a control character, expected text, blanks and tabs only")]
    ControlCharacter {
        /// Which character it is, counted from 1.
        position: usize,
    },
    /// A keyword that must be there.
    #[error("no keyword {keyword:?}{}", instead.as_ref().map(|word| format!(", or is {word:?} meant to be it?")).unwrap_or_default())]
    Missing {
        /// The keyword.
        keyword: String,
        /// One that was given, and is nearly the same.
        instead: Option<String>,
    },
    /// A value is not of its keyword's form.
    #[error("{keyword} is {value:?}, expected {expected}")]
    Value {
        /// The keyword.
        keyword: String,
        /// The value, `*****` for a password.
        value: String,
        /// What belongs there.
        expected: String,
    },
    /// No lease manager has this keyword.
    #[error("{word}: unknown keyword{}; {backend} has {}", nearest.as_ref().map(|name| format!(", is {name:?} meant?")).unwrap_or_default(), keywords.join(", "))]
    UnknownKeyword {
        /// The keyword.
        word: Word,
        /// The type of the lease manager.
        backend: String,
        /// The keyword that was probably meant.
        nearest: Option<String>,
        /// The keywords that the lease manager has.
        keywords: Vec<String>,
    },
    /// Lease managers of other types have this keyword.
    #[error("{keyword:?} is a keyword of {}, not of {backend}, which has {}", backends.join(" and "), keywords.join(", "))]
    OtherBackend {
        /// The keyword.
        keyword: String,
        /// The type of the lease manager.
        backend: String,
        /// The types that have the keyword.
        backends: Vec<String>,
        /// The keywords that the lease manager has.
        keywords: Vec<String>,
    },
}

/// A word of a connection string, as an error names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Which word it is, counted from 1. A password in apostrophes is one word.
    pub number: usize,
    /// The word, or the keyword of the pair. `None` where that may be a part of a password.
    pub text: Option<String>,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "word {} ({text:?})", self.number),
            None => write!(f, "word {} (not shown, it may be of a password)", self.number),
        }
    }
}

/// Tells, word for word, which ones may be shown.
#[derive(Default)]
struct Discretion {
    words: usize,
    behind_password: bool,
}

impl Discretion {
    /// The next word, with its text if that may be shown. A known keyword always may.
    fn next(&mut self, text: &str, known: bool) -> Word {
        self.words += 1;
        let resembles = !known && resembles_password(text);
        let show = known || !self.behind_password && (!resembles || is_password_misspelt(text));
        if known {
            self.behind_password = text == PASSWORD;
        } else if resembles {
            self.behind_password = true;
        }
        Word { number: self.words, text: show.then(|| text.to_owned()) }
    }
}

/// Whether an unknown word is meant to be `password`, or has it in it, as `password:secret`.
fn resembles_password(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    ["pass", "pwd"].iter().any(|part| lower.contains(part)) || is_password_misspelt(word)
}

/// Whether a word is so near to `password` that there is no password in it.
fn is_password_misspelt(word: &str) -> bool {
    let letters = word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    letters && nearest(word, [PASSWORD, "password-file"]).is_some()
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    /// Reads the pairs. Which keywords there are is checked by [`ConnectionString::check_keywords`].
    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        if let Some(at) = text.chars().position(|c| c.is_control() && c != '\t') {
            return Err(ConnectionStringError::ControlCharacter { position: at + 1 });
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut discretion = Discretion::default();
        let mut rest = text.trim_start_matches(BLANKS);
        while !rest.is_empty() {
            let number = pairs.len() + 1;
            let (word, behind) = rest.split_at(rest.find(BLANKS).unwrap_or(rest.len()));
            let Some((name, value)) = word.split_once('=') else {
                return Err(ConnectionStringError::NoEqualsSign {
                    word: discretion.next(word, is_known(word)),
                });
            };
            if name.is_empty() {
                return Err(ConnectionStringError::NoKeyword { number });
            }
            let shown = discretion.next(name, is_known(name));
            if pairs.iter().any(|(given, _)| given == name) {
                return Err(ConnectionStringError::Repeated { word: shown });
            }
            let (value, behind) = match rest.strip_prefix("password='") {
                Some(quoted) => {
                    quoted.split_once('\'').ok_or(ConnectionStringError::Unterminated { number })?
                }
                None => (value, behind),
            };
            if !(behind.is_empty() || behind.starts_with(BLANKS)) {
                return Err(ConnectionStringError::BehindApostrophe { number });
            }
            pairs.push((name.to_owned(), value.to_owned()));
            rest = behind.trim_start_matches(BLANKS);
        }
        Ok(Self { pairs })
    }
}

impl ConnectionString {
    /// The value of a keyword, if it is given.
    #[must_use]
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == keyword).map(|(_, value)| value.as_str())
    }

    /// The value of a keyword that must be given.
    ///
    /// # Errors
    /// [`ConnectionStringError::Missing`].
    pub fn required(&self, keyword: &str) -> Result<&str, ConnectionStringError> {
        self.get(keyword).ok_or_else(|| {
            let is_near = |name: &String| !is_known(name) && nearest(name, [keyword]).is_some();
            let instead = self.words(is_known).filter_map(|(word, ..)| word.text).find(is_near);
            ConnectionStringError::Missing { keyword: keyword.to_owned(), instead }
        })
    }

    /// The value of a keyword that is `true` or `false`, if it is given.
    ///
    /// # Errors
    /// [`ConnectionStringError::Value`] where it is something else.
    pub fn flag(&self, keyword: &str) -> Result<Option<bool>, ConnectionStringError> {
        match self.get(keyword) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.bad_value(keyword, "true or false")),
        }
    }

    /// The value of a keyword that is a number, in decimal digits, if it is given.
    ///
    /// # Errors
    /// [`ConnectionStringError::Value`] where it is something else, or not in this range.
    pub fn number(
        &self,
        keyword: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConnectionStringError> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        match decimal(value).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                Err(self.bad_value(keyword, format!("a number from {} to {}", range.start(), range.end())))
            }
        }
    }

    /// The value of a keyword that is one of a few words, if it is given.
    ///
    /// # Errors
    /// Returns [`ConnectionStringError::Value`] if it is none of them.
    pub fn choice<T: Copy>(
        &self,
        keyword: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConnectionStringError> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, chosen)) => Ok(Some(*chosen)),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(self.bad_value(keyword, format!("one of {}", words.join(", "))))
            }
        }
    }

    /// That the value of a keyword is not what is expected there: what a backend answers that reads values of other
    /// forms. Of a password nothing is shown, also where an own keyword of the backend has `pass` or `pwd` in its name.
    pub fn bad_value(&self, keyword: &str, expected: impl Into<String>) -> ConnectionStringError {
        let secret = keyword == PASSWORD || !is_known(keyword) && resembles_password(keyword);
        let value = if secret { HIDDEN } else { self.get(keyword).unwrap_or_default() };
        ConnectionStringError::Value {
            keyword: keyword.to_owned(),
            value: value.to_owned(),
            expected: expected.into(),
        }
    }

    /// Makes sure that there are no other keywords than these, `type`, and `universe`. The factory does that before it
    /// has a backend open a lease manager.
    ///
    /// # Errors
    /// [`ConnectionStringError::UnknownKeyword`] or [`ConnectionStringError::OtherBackend`].
    pub fn check_keywords(&self, backend: &str, keywords: &[&str]) -> Result<(), ConnectionStringError> {
        let own = keywords.iter().copied().filter(|name| !COMMON.contains(name));
        let keywords: Vec<_> = COMMON.into_iter().chain(own).collect();
        let is_own = |name: &str| keywords.contains(&name);
        let Some((word, name, _)) =
            self.words(|name| is_own(name) || is_known(name)).find(|(_, name, _)| !is_own(name))
        else {
            return Ok(());
        };
        let backend = backend.to_owned();
        let nearest = word.text.as_ref().and_then(|name| nearest(name, keywords.iter().copied()));
        let nearest = nearest.map(str::to_owned);
        let keywords = owned(&keywords);
        Err(match keyword(name) {
            Some(Keyword { backends, .. }) => {
                let keyword = name.to_owned();
                ConnectionStringError::OtherBackend { keyword, backend, backends: owned(backends), keywords }
            }
            None => ConnectionStringError::UnknownKeyword { word, backend, nearest, keywords },
        })
    }

    /// Each pair: the keyword as it may be shown, keyword, and value.
    fn words(&self, is_known: impl Fn(&str) -> bool) -> impl Iterator<Item = (Word, &str, &str)> {
        let mut discretion = Discretion::default();
        self.pairs
            .iter()
            .map(move |(name, value)| (discretion.next(name, is_known(name)), name.as_str(), value.as_str()))
    }
}

impl fmt::Display for ConnectionString {
    /// The pairs with one blank between them, and without what is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, name, value) in self.words(is_known) {
            let value = if is_known(name) && name != PASSWORD { value } else { HIDDEN };
            let separator = if word.number > 1 { " " } else { "" };
            write!(f, "{separator}{}={value}", word.text.as_deref().unwrap_or(HIDDEN))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionString({self})")
    }
}

/// Whether Kea or this crate has a keyword of this name, for any lease manager.
fn is_known(name: &str) -> bool {
    keyword(name).is_some()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// A number in decimal digits, without a sign.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use rstest::rstest;

    use super::super::keywords::KEYWORDS;
    use super::*;

    const KNOWN: [&str; 4] = ["name", "persist", "lfc-interval", "colour"];

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        text.parse()
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().pairs
    }

    /// What is wrong, as text: in reading it, or else in its keywords.
    fn problem(text: &str) -> String {
        parse(text).and_then(|connection| connection.check_keywords("tree", &KNOWN)).unwrap_err().to_string()
    }

    #[rstest]
    #[case::nothing("", &[])]
    #[case::blanks(" \t ", &[])]
    #[case::one("type=memfile", &[("type", "memfile")])]
    #[case::blanks_and_tabs(" type=memfile\t \tname=/a/b ", &[("type", "memfile"), ("name", "/a/b")])]
    #[case::no_value("type=memfile name=", &[("type", "memfile"), ("name", "")])]
    #[case::further_equals_signs("name=a=b= password==x", &[("name", "a=b="), ("password", "=x")])]
    #[case::beyond_ascii("name=/ä/ö", &[("name", "/ä/ö")])]
    #[case::apostrophes_of_others("name='a' user=o'b", &[("name", "'a'"), ("user", "o'b")])]
    #[case::password("password=it's", &[("password", "it's")])]
    #[case::blanks_in_password("password='a \t=b ' port=1", &[("password", "a \t=b "), ("port", "1")])]
    #[case::pair_in_password("password='a host=b' host=c", &[("password", "a host=b"), ("host", "c")])]
    #[case::empty_password("password='' port=1", &[("password", ""), ("port", "1")])]
    #[case::empty_password_without_apostrophes("password= port=1", &[("password", ""), ("port", "1")])]
    fn pairs_are_read(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        assert_eq!(pairs(text), expected);
    }

    #[rstest]
    #[case::no_equals_sign("type=tree persist", r#"word 2 ("persist"): no "=", expected keyword=value"#)]
    #[case::blank_in_value("name=my file", r#"word 2 ("file"): no "=", expected keyword=value"#)]
    #[case::blanks_around("name = x", r#"word 1 ("name"): no "=", expected keyword=value"#)]
    #[case::no_keyword("type=tree =x", r#"word 2: no keyword before the "=""#)]
    #[case::only_equals_sign("=", r#"word 1: no keyword before the "=""#)]
    #[case::twice("name=a type=tree name=a", r#"word 3 ("name"): the keyword is given twice"#)]
    #[case::unknown_twice("shade=a shade=b", r#"word 2 ("shade"): the keyword is given twice"#)]
    #[case::password_twice("password=a password=b", r#"word 2 ("password"): the keyword is given twice"#)]
    #[case::line_feed(
        "type=tree\nname=x",
        "character 10 is a control character, expected text, blanks and tabs only"
    )]
    #[case::nul_in_password(
        "password='\u{e4}\0'",
        "character 12 is a control character, expected text, blanks and tabs only"
    )]
    #[case::c1_control(
        "name=\u{85}",
        "character 6 is a control character, expected text, blanks and tabs only"
    )]
    #[case::unterminated("password='secret", "word 1: password: no closing apostrophe")]
    #[case::unterminated_with_blanks("type=tree password='a b=c ", "word 2: password: no closing apostrophe")]
    #[case::only_an_apostrophe("password='", "word 1: password: no closing apostrophe")]
    #[case::behind(
        "password='secret'more",
        "word 1: password: text behind the closing apostrophe, expected a blank"
    )]
    #[case::apostrophe_within(
        "password='it's'",
        "word 1: password: text behind the closing apostrophe, expected a blank"
    )]
    #[case::blank_in_password(
        "password=a b type=tree",
        r#"word 2 (not shown, it may be of a password): no "=", expected keyword=value"#
    )]
    #[case::blank_and_pair_in_password(
        "password=a b=c d",
        r#"word 3 (not shown, it may be of a password): no "=", expected keyword=value"#
    )]
    #[case::colon(
        "password:secret",
        r#"word 1 (not shown, it may be of a password): no "=", expected keyword=value"#
    )]
    #[case::capitals(
        "MyPassWord:secret",
        r#"word 1 (not shown, it may be of a password): no "=", expected keyword=value"#
    )]
    #[case::behind_a_misspelt_password(
        "passwrd=a b",
        r#"word 2 (not shown, it may be of a password): no "=", expected keyword=value"#
    )]
    #[case::apostrophes_of_a_misspelt_password(
        "passwor='a b'",
        r#"word 2 (not shown, it may be of a password): no "=", expected keyword=value"#
    )]
    #[case::password_without_value(
        "type=tree password secret",
        r#"word 2 ("password"): no "=", expected keyword=value"#
    )]
    fn what_cannot_be_read_is_named(#[case] text: &str, #[case] message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }

    const HAS: &str = "tree has type, universe, name, persist, lfc-interval, colour";

    #[rstest]
    #[case::misspelt(
        "lfc_interval=1",
        r#"word 1 ("lfc_interval"): unknown keyword, is "lfc-interval" meant?"#
    )]
    #[case::capitals("Type=tree", r#"word 1 ("Type"): unknown keyword, is "type" meant?"#)]
    #[case::its_own_misspelt(
        "type=tree color=red",
        r#"word 2 ("color"): unknown keyword, is "colour" meant?"#
    )]
    #[case::far_from_all("frequency=1", r#"word 1 ("frequency"): unknown keyword"#)]
    #[case::near_to_one_of_another_only("hots=x", r#"word 1 ("hots"): unknown keyword"#)]
    #[case::misspelt_password("pasword=secret", r#"word 1 ("pasword"): unknown keyword"#)]
    #[case::password_and_more(
        "password:c2VjcmV0=",
        "word 1 (not shown, it may be of a password): unknown keyword"
    )]
    #[case::pair_behind_misspelt_password(
        "name=x colour=passwd pasword=a",
        r#"word 3 ("pasword"): unknown keyword"#
    )]
    fn an_unknown_keyword_is_named_with_the_nearest_one(#[case] text: &str, #[case] message: &str) {
        let problem = problem(text);
        assert!(problem.starts_with(message), "{problem}");
        assert!(problem.ends_with(HAS), "{problem}");
    }

    #[test]
    fn a_keyword_of_another_backend_is_told_as_such() {
        let error = parse("type=tree host=x").unwrap().check_keywords("tree", &KNOWN).unwrap_err();
        let ConnectionStringError::OtherBackend { keyword, backend, backends, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((keyword.as_str(), backend.as_str()), ("host", "tree"));
        assert_eq!(backends, &["mysql", "postgresql"]);
        let message =
            r#""host" is a keyword of mysql and postgresql, not of tree, which has type, universe, name"#;
        assert!(error.to_string().starts_with(message), "{error}");
    }

    #[rstest]
    #[case::unknown("password=a b=c", None)]
    #[case::of_the_backend("password=a colour=c d=e", Some("d"))]
    fn words_behind_a_password_are_not_shown_up_to_the_next_keyword(
        #[case] text: &str,
        #[case] shown: Option<&str>,
    ) {
        let error = parse(text).unwrap().check_keywords("tree", &["password", "colour"]).unwrap_err();
        let ConnectionStringError::UnknownKeyword { word, nearest, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((word.text.as_deref(), nearest), (shown, None));
    }

    #[rstest]
    #[case("persist=true", Ok(Some(true)))]
    #[case("persist=false", Ok(Some(false)))]
    #[case("type=tree", Ok(None))]
    #[case("persist=True", Err(r#"persist is "True", expected true or false"#))]
    #[case("persist=1", Err(r#"persist is "1", expected true or false"#))]
    #[case("persist=", Err(r#"persist is "", expected true or false"#))]
    fn a_flag_is_true_or_false(#[case] text: &str, #[case] expected: Result<Option<bool>, &str>) {
        let flag = parse(text).unwrap().flag("persist").map_err(|error| error.to_string());
        assert_eq!(flag, expected.map_err(str::to_owned));
    }

    #[rstest]
    #[case("n=3", Some(3))]
    #[case("n=10", Some(10))]
    #[case("n=010", Some(10))]
    #[case::below("n=2", None)]
    #[case::above("n=11", None)]
    #[case::sign("n=+5", None)]
    #[case::negative("n=-5", None)]
    #[case::fraction("n=5.0", None)]
    #[case::unit("n=5s", None)]
    #[case::hexadecimal("n=0x5", None)]
    #[case::empty("n=", None)]
    #[case::other_digits("n=\u{665}", None)]
    #[case::beyond_64_bits("n=18446744073709551621", None)]
    fn a_number_is_decimal_and_in_its_range(#[case] text: &str, #[case] expected: Option<u64>) {
        let expected = expected.map(Some).ok_or_else(|| {
            format!("n is {:?}, expected a number from 3 to 10", text.strip_prefix("n=").unwrap())
        });
        assert_eq!(parse(text).unwrap().number("n", 3..=10).map_err(|error| error.to_string()), expected);
        assert_eq!(parse("").unwrap().number("n", 3..=10), Ok(None));
    }

    #[rstest]
    #[case("name=x", r#"no keyword "type""#)]
    #[case("tpye=memfile", r#"no keyword "type", or is "tpye" meant to be it?"#)]
    #[case("name=x TYPE=memfile", r#"no keyword "type", or is "TYPE" meant to be it?"#)]
    #[case::of_a_password("password=a tpye=memfile", r#"no keyword "type""#)]
    fn what_is_missing_is_named(#[case] text: &str, #[case] message: &str) {
        assert_eq!(parse(text).unwrap().required("type").unwrap_err().to_string(), message);
    }

    #[rstest]
    #[case("type=mysql  password='a b'\tuser=x", "type=mysql password=***** user=x")]
    #[case::empty("password=", "password=*****")]
    #[case::unknown_keyword("secret=x name=y", "secret=***** name=y")]
    #[case::behind_password("password=a b=c host=d e=f", "password=***** *****=***** host=d e=*****")]
    #[case::misspelt_password("pasword=a b=c", "pasword=***** *****=*****")]
    #[case::password_in_keyword("password:c2VjcmV0=", "*****=*****")]
    #[case::password_file("password-file=/a", "password-file=/a")]
    fn what_may_be_secret_is_not_shown(#[case] text: &str, #[case] shown: &str) {
        let connection = parse(text).unwrap();
        assert_eq!(connection.to_string(), shown);
        assert_eq!(format!("{connection:?}"), format!("ConnectionString({shown})"));
        assert_eq!(format!("{connection:#?}"), format!("ConnectionString({shown})"));
    }

    #[rstest]
    fn a_bad_password_is_not_shown(#[values("password", "passphrase", "admin-pwd")] keyword: &str) {
        let connection = parse(&format!("{keyword}=secret")).unwrap();
        for error in [
            connection.flag(keyword).unwrap_err(),
            connection.number(keyword, 0..=1).unwrap_err(),
            connection.bad_value(keyword, "another one"),
        ] {
            assert!(error.to_string().starts_with(&format!("{keyword} is \"*****\"")), "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn the_name_of_a_password_file_is_shown() {
        let error = parse("password-file=/a").unwrap().bad_value("password-file", "a file that is there");
        assert_eq!(error.to_string(), r#"password-file is "/a", expected a file that is there"#);
    }

    /// All that can be shown of a text.
    fn shown(text: &str) -> String {
        let connection = match parse(text) {
            Ok(connection) => connection,
            Err(error) => return format!("{error} {error:?}"),
        };
        let mut shown = format!("{connection} {connection:?} {connection:#?}");
        for keywords in [&[][..], &["password"], &KNOWN] {
            if let Err(error) = connection.check_keywords("tree", keywords) {
                shown += &format!("{error} {error:?}");
            }
        }
        for Keyword { name, .. } in KEYWORDS {
            let flag = connection.flag(name).err();
            let number = connection.number(name, 7..=7).err();
            let missing = connection.required(name).err();
            for error in [flag, number, missing].into_iter().flatten() {
                shown += &format!("{error} {error:?}");
            }
        }
        shown
    }

    /// What stands before and behind a password: pairs, and what is none, without capitals.
    fn others() -> impl Strategy<Value = String> {
        let word = select(vec![
            "",
            "type=tree",
            "name=x",
            "host=x",
            "tpye=tree",
            "colour=red",
            "shade=x",
            "x",
            "=",
            "'",
            "port='",
            "persist=maybe",
            "user=o'b",
            "pasword=x",
            "password",
            "password=x",
        ]);
        proptest::collection::vec(word, 0..4).prop_map(|words| words.join(" "))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            shown(&text);
        }

        #[test]
        fn what_looks_like_a_connection_string_is_read_or_refused(text in "([a-c]{0,2}|password|type)[=' \t\u{e9}]([a-c=' \t\u{e9}]|password=')*") {
            shown(&text);
        }

        #[test]
        fn no_part_of_a_password_is_ever_shown(
            before in others(),
            keyword in select(vec!["password=", "password='", "pasword=", "Password='", "password:", "my-password="]),
            // Only a password has these capitals.
            password in "[QXZ][QXZ=' \t]{0,12}",
            closing in select(vec!["", "'", "''"]),
            behind in others(),
        ) {
            let text = format!("{before} {keyword}{password}{closing} {behind}");
            let shown = shown(&text);
            prop_assert!(!shown.contains(['Q', 'X', 'Z']), "{text:?}: {shown}");
        }

        #[test]
        fn a_password_in_apostrophes_is_what_is_between_them(password in "[^'\\pC]*", other in "[a-z]{1,8}") {
            let connection = parse(&format!("type=mysql password='{password}' name={other}")).unwrap();
            prop_assert_eq!(connection.get("password"), Some(password.as_str()));
            prop_assert_eq!(connection.get("name"), Some(other.as_str()));
        }

        #[test]
        fn what_is_shown_without_secrets_is_read_as_the_same(
            pairs in proptest::collection::btree_map(select(vec!["type", "host", "name", "port"]), "[^ \\pC]*", 0..4),
        ) {
            let text: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let connection = parse(&text.join(" \t")).unwrap();
            prop_assert_eq!(connection.to_string(), text.join(" "));
            prop_assert_eq!(parse(&connection.to_string()).unwrap(), connection);
        }
    }
}
