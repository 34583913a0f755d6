//! Connection strings: the displayed text is the same connection, without passwords.
#![no_main]

use leasemgr::connection::{ConnectionString, KEYWORDS};
use leasemgr_fuzz::{is_plain, with_memory};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "q7Wz9";

/// Checks that the secret is not in a text.
fn hides(shown: &str) {
    assert!(!shown.contains(SECRET), "{shown}");
}

fuzz_target!(|text: &str| {
    const FIXED: usize = 32 * 1024;
    const FACTOR: usize = 64;
    with_memory(text.len(), FIXED, FACTOR, || {
        match text.parse::<ConnectionString>() {
            Ok(connection) => {
                // Two hidden keywords look the same, and the text is then invalid.
                if let Ok(shown) = connection.to_string().parse::<ConnectionString>() {
                    // A value in apostrophes that may contain a password is hidden, too.
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
    let (start, after) = text.split_at(half);
    let with_password = format!("{start} password={SECRET}{after}");
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
