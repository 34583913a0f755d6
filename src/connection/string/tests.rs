//! Tests: parsing, errors, and display of connection strings.

use proptest::prelude::*;
use proptest::sample::select;
use rstest::rstest;

use super::*;
use crate::connection::KEYWORDS;

const KNOWN: [&str; 4] = ["name", "persist", "lfc-interval", "colour"];

fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
    text.parse()
}

fn pairs(text: &str) -> Vec<(String, String)> {
    parse(text).unwrap().pairs
}

/// Returns the error of parsing, or else of the keywords.
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
#[case::apostrophes_of_others("name='a' user=o'b", &[("name", "a"), ("user", "o'b")])]
#[case::blanks_in_name("name='/srv/my leases.csv' type=memfile", &[("name", "/srv/my leases.csv"), ("type", "memfile")])]
#[case::pair_in_name("name='a type=b'\tcolour=''", &[("name", "a type=b"), ("colour", "")])]
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
#[case::c1_control("name=\u{85}", "character 6 is a control character, expected text, blanks and tabs only")]
#[case::unterminated("password='secret", "word 1: no closing apostrophe")]
#[case::unterminated_with_blanks("type=tree password='a b=c ", "word 2: no closing apostrophe")]
#[case::only_an_apostrophe("password='", "word 1: no closing apostrophe")]
#[case::text_after_apostrophe(
    "password='secret'more",
    "word 1: text after the closing apostrophe, expected a blank"
)]
#[case::apostrophe_within("password='it's'", "word 1: text after the closing apostrophe, expected a blank")]
#[case::blank_in_password(
    "password=a b type=tree",
    r#"word 2 (hidden, as it may be part of a password): no "=", expected keyword=value"#
)]
#[case::blank_and_pair_in_password(
    "password=a b=c d",
    r#"word 3 (hidden, as it may be part of a password): no "=", expected keyword=value"#
)]
#[case::colon(
    "password:secret",
    r#"word 1 (hidden, as it may be part of a password): no "=", expected keyword=value"#
)]
#[case::capitals(
    "MyPassWord:secret",
    r#"word 1 (hidden, as it may be part of a password): no "=", expected keyword=value"#
)]
#[case::after_a_misspelt_password(
    "passwrd=a b",
    r#"word 2 (hidden, as it may be part of a password): no "=", expected keyword=value"#
)]
#[case::unterminated_name("name='a b", "word 1: no closing apostrophe")]
#[case::password_without_value(
    "type=tree password secret",
    r#"word 2 ("password"): no "=", expected keyword=value"#
)]
fn an_invalid_string_is_refused_with_the_reason(#[case] text: &str, #[case] message: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), message);
}

const HAS: &str = "tree has type, universe, name, persist, lfc-interval, colour";

#[rstest]
#[case::misspelt(
    "lfc_interval=1",
    r#"word 1 ("lfc_interval"): unknown keyword; did you mean "lfc-interval"?"#
)]
#[case::capitals("Type=tree", r#"word 1 ("Type"): unknown keyword; did you mean "type"?"#)]
#[case::own_keyword_misspelt(
    "type=tree color=red",
    r#"word 2 ("color"): unknown keyword; did you mean "colour"?"#
)]
#[case::similar_to_none("frequency=1", r#"word 1 ("frequency"): unknown keyword"#)]
#[case::similar_only_to_another_backends("hots=x", r#"word 1 ("hots"): unknown keyword"#)]
#[case::misspelt_password("pasword=secret", r#"word 1 ("pasword"): unknown keyword"#)]
#[case::password_and_more(
    "password:c2VjcmV0=",
    "word 1 (hidden, as it may be part of a password): unknown keyword"
)]
#[case::pair_after_misspelt_password(
    "name=x colour=passwd pasword=a",
    r#"word 3 ("pasword"): unknown keyword"#
)]
fn an_unknown_keyword_is_shown_with_the_nearest_one(#[case] text: &str, #[case] message: &str) {
    let problem = problem(text);
    assert!(problem.starts_with(message), "{problem}");
    assert!(problem.ends_with(HAS), "{problem}");
}

#[test]
fn a_keyword_of_another_backend_is_reported_as_such() {
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
fn words_after_a_password_are_hidden_up_to_the_next_keyword(#[case] text: &str, #[case] shown: Option<&str>) {
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
#[case("name=x", r#"keyword "type" is missing"#)]
#[case("tpye=memfile", r#"keyword "type" is missing; "tpye" may be a misspelling of it"#)]
#[case("name=x TYPE=memfile", r#"keyword "type" is missing; "TYPE" may be a misspelling of it"#)]
#[case::after_a_password("password=a tpye=memfile", r#"keyword "type" is missing"#)]
fn a_missing_keyword_is_reported(#[case] text: &str, #[case] message: &str) {
    assert_eq!(parse(text).unwrap().required("type").unwrap_err().to_string(), message);
}

#[rstest]
#[case("type=mysql  password='a b'\tuser=x", "type=mysql password=***** user=x")]
#[case::empty("password=", "password=*****")]
#[case::unknown_keyword("secret=x name=y", "secret=***** name=y")]
#[case::after_password("password=a b=c host=d e=f", "password=***** *****=***** host=d e=*****")]
#[case::misspelt_password("pasword=a b=c", "pasword=***** *****=*****")]
#[case::password_in_keyword("password:c2VjcmV0=", "*****=*****")]
#[case::password_file("password-file=/a", "password-file=/a")]
fn possible_secrets_are_hidden(#[case] text: &str, #[case] shown: &str) {
    let connection = parse(text).unwrap();
    assert_eq!(connection.to_string(), shown);
    assert_eq!(format!("{connection:?}"), format!("ConnectionString({shown})"));
    assert_eq!(format!("{connection:#?}"), format!("ConnectionString({shown})"));
}

#[rstest]
fn an_invalid_password_is_hidden(#[values("password", "passphrase", "admin-pwd")] keyword: &str) {
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

/// Returns all that can be displayed of a text.
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

/// Generates the text before and after a password: pairs and other words, without capital letters.
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
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        shown(&text);
    }

    #[test]
    fn text_like_a_connection_string_is_parsed_or_refused(text in "([a-c]{0,2}|password|type)[=' \t\u{e9}]([a-c=' \t\u{e9}]|password=')*") {
        shown(&text);
    }

    #[test]
    fn no_part_of_a_password_is_ever_shown(
        before in others(),
        keyword in select(vec!["password=", "password='", "pasword=", "Password='", "password:", "my-password="]),
        // Only the password contains these letters.
        password in "[QXZ][QXZ=' \t]{0,12}",
        closing in select(vec!["", "'", "''"]),
        after in others(),
    ) {
        let text = format!("{before} {keyword}{password}{closing} {after}");
        let shown = shown(&text);
        prop_assert!(!shown.contains(['Q', 'X', 'Z']), "{text:?}: {shown}");
    }

    #[test]
    fn a_password_in_apostrophes_is_the_text_between_them(password in "[^'\\pC]*", other in "[a-z]{1,8}") {
        let connection = parse(&format!("type=mysql password='{password}' name={other}")).unwrap();
        prop_assert_eq!(connection.get("password"), Some(password.as_str()));
        prop_assert_eq!(connection.get("name"), Some(other.as_str()));
    }

    #[test]
    fn a_string_without_secrets_is_displayed_in_full(
        pairs in proptest::collection::btree_map(select(vec!["type", "host", "name", "port"]), "([^ '\\pC][^ \\pC]*)?|'[^'\\pC]* [^'\\pC]*'", 0..4),
    ) {
        let text: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let connection = parse(&text.join(" \t")).unwrap();
        prop_assert_eq!(connection.to_string(), text.join(" "));
        prop_assert_eq!(parse(&connection.to_string()).unwrap(), connection);
    }
}
