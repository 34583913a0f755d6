//! Connection strings: what is shown of one is the same connection, and never a password.
#![no_main]

use leasemgr::connection::{ConnectionString, KEYWORDS};
use leasemgr_fuzz::{is_plain, with_memory};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "q7Wz9";

/// Makes sure that the secret is not shown.
fn hides(shown: &str) {
    assert!(!shown.contains(SECRET), "{shown}");
}

fuzz_target!(|text: &str| {
    const FIXED: usize = 32 * 1024;
    const FACTOR: usize = 64;
    with_memory(text.len(), FIXED, FACTOR, || {
        match text.parse::<ConnectionString>() {
            Ok(connection) => {
                // Two keywords that are hidden look the same, and then it is not one any more.
                if let Ok(shown) = connection.to_string().parse::<ConnectionString>() {
                    // So does a value in apostrophes that may have a password in it.
                    let is_shown = |name: &&str| *name != "password" && shown.get(name) != Some("*****");
                    for name in KEYWORDS.iter().map(|keyword| keyword.name).filter(is_shown) {
                        assert_eq!(shown.get(name), connection.get(name), "{name}");
                    }
                }
            }
            Err(error) => assert!(is_plain(&error.to_string()), "{error}"),
        }
    });

    if text.contains(SECRET) {
        return;
    }
    let half = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (before, behind) = text.split_at(half);
    let with_password = format!("{before} password={SECRET}{behind}");
    match with_password.parse::<ConnectionString>() {
        Ok(connection) => {
            hides(&format!("{connection} {connection:?}"));
            for error in [
                connection.check_keywords("memfile", &["name", "persist"]).err(),
                connection.required("host").err(),
                Some(connection.bad_value("password", "something else")),
                connection.flag("password").err(),
                connection.number("password", 0..=1).err(),
            ] {
                hides(&format!("{error:?} {}", error.as_ref().map(ToString::to_string).unwrap_or_default()));
            }
        }
        Err(error) => hides(&format!("{error} {error:?}")),
    }
});
