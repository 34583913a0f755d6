//! Where a request ends that comes without its length: after one complete JSON value.

use std::borrow::Cow;

use memchr::memchr2;

/// Maximum nesting of maps and lists in a request.
pub(super) const MAX_DEPTH: usize = 1000;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing but blanks and comments.
    Blank,
    /// The beginning of a value.
    Begun,
    /// A value that ends before this offset; or text that is no JSON, whatever follows it.
    Complete(usize),
    /// Maps and lists that are nested too deep.
    TooDeep,
}

/// The place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    String,
    /// After a backslash.
    Escape,
    /// After a slash, which may begin a comment.
    Slash,
    /// In a comment that ends with its line.
    Line,
    /// In a comment that ends with an asterisk and a slash.
    Block,
    /// In such a comment, after an asterisk.
    Asterisk,
}

/// Finds the end of the first JSON value of a text that comes in parts. Looks at each byte once,
/// and checks only what the end depends on: strings, comments and brackets.
#[derive(Debug)]
pub(super) struct Scan {
    place: Place,
    at: usize,
    /// The brackets that will close what is open.
    closing: Vec<u8>,
    begun: bool,
}

impl Scan {
    pub(super) fn new() -> Self {
        Self { place: Place::Between, at: 0, closing: Vec::new(), begun: false }
    }

    /// Looks at the bytes of `text` that no earlier call has looked at. The text of a call begins
    /// with that of the call before.
    pub(super) fn advance(&mut self, text: &[u8]) -> Progress {
        while let Some(&byte) = text.get(self.at) {
            self.at += 1;
            match (self.place, byte) {
                (Place::Between, b' ' | b'\t' | b'\n' | b'\r' | 0x08 | 0x0c) => {}
                (Place::Between, b'#') => self.place = Place::Line,
                (Place::Between, b'/') => self.place = Place::Slash,
                (Place::Between, b'"') => (self.place, self.begun) = (Place::String, true),
                (Place::Between, b'{' | b'[') => {
                    if self.closing.len() >= MAX_DEPTH {
                        return Progress::TooDeep;
                    }
                    self.closing.push(if byte == b'{' { b'}' } else { b']' });
                    self.begun = true;
                }
                (Place::Between, b'}' | b']') => {
                    if self.closing.pop() != Some(byte) {
                        return Progress::Complete(text.len());
                    }
                    if self.closing.is_empty() {
                        return Progress::Complete(self.at);
                    }
                }
                // A value of another type is no request. Where it ends does not matter.
                (Place::Between, _) if !self.begun => return Progress::Complete(text.len()),
                (Place::Between, _) => {}
                (Place::String, b'"') => {
                    self.place = Place::Between;
                    if self.closing.is_empty() {
                        return Progress::Complete(self.at);
                    }
                }
                (Place::String, b'\\') => self.place = Place::Escape,
                (Place::String, _) => {}
                (Place::Escape, _) => self.place = Place::String,
                (Place::Slash, b'*') => self.place = Place::Block,
                (Place::Slash, _) if !self.begun => return Progress::Complete(text.len()),
                (Place::Slash, _) => {
                    // No comment: the byte is one of the text, and the slash is an error.
                    self.place = Place::Between;
                    self.at -= 1;
                }
                (Place::Line, b'\n') | (Place::Asterisk, b'/') => self.place = Place::Between,
                (Place::Line, _) => {}
                (Place::Block | Place::Asterisk, b'*') => self.place = Place::Asterisk,
                (Place::Block | Place::Asterisk, _) => self.place = Place::Block,
            }
        }
        if self.begun { Progress::Begun } else { Progress::Blank }
    }
}

/// Returns the text with blanks in place of its comments, so that offsets stay the same.
pub(super) fn without_comments(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'#', b'/', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = text.to_vec();
    let mut scan = Scan::new();
    // The value never ends, so all of the text is looked at.
    scan.closing.push(b']');
    scan.begun = true;
    let mut start = 0;
    for at in 0..text.len() {
        let before = scan.place;
        if scan.advance(text.get(..=at).unwrap_or_default()) != Progress::Begun {
            break;
        }
        match (before, scan.place) {
            (Place::Between | Place::Slash, Place::Line | Place::Slash) => start = at,
            (Place::Line | Place::Asterisk, Place::Between) => {
                if let Some(comment) = out.get_mut(start..=at) {
                    comment.fill(b' ');
                }
            }
            _ => {}
        }
    }
    if scan.place == Place::Line
        && let Some(comment) = out.get_mut(start..)
    {
        comment.fill(b' ');
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::kea_json::Json;

    #[rstest]
    #[case::nothing("", Progress::Blank)]
    #[case::blanks_and_comments(" \n# {\n/* { ** */ ", Progress::Blank)]
    #[case::a_map("{}", Progress::Complete(2))]
    #[case::text_after_it("{\"a\": [1, {}]} x", Progress::Complete(14))]
    #[case::another_after_it("[]{}", Progress::Complete(2))]
    #[case::a_string("\"a\\\"}\" x", Progress::Complete(6))]
    #[case::brackets_in_strings(r#"{"}\"}": "[\\"}"#, Progress::Complete(15))]
    #[case::brackets_in_comments("{ # }\n /* } */ }", Progress::Complete(16))]
    #[case::an_open_comment("{ # }", Progress::Begun)]
    #[case::a_comment_with_asterisks("{/***/}", Progress::Complete(7))]
    #[case::a_slash("{/}", Progress::Complete(3))]
    #[case::truncated("{\"command\": \"list-commands\"", Progress::Begun)]
    #[case::a_truncated_string("{\"}", Progress::Begun)]
    #[case::the_wrong_bracket("{]  ", Progress::Complete(4))]
    #[case::no_json("hello", Progress::Complete(5))]
    #[case::a_slash_before_it("/hello", Progress::Complete(6))]
    fn a_request_ends_where_its_value_ends(#[case] text: &str, #[case] expected: Progress) {
        assert_eq!(Scan::new().advance(text.as_bytes()), expected);
    }

    #[test]
    fn nesting_is_limited() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(Scan::new().advance(deep(MAX_DEPTH).as_bytes()), Progress::Complete(2 * MAX_DEPTH));
        assert_eq!(Scan::new().advance(deep(MAX_DEPTH + 1).as_bytes()), Progress::TooDeep);
        assert_eq!(Scan::new().advance("{\"a\":".repeat(MAX_DEPTH + 1).as_bytes()), Progress::TooDeep);
    }

    #[rstest]
    #[case("{ # a\n}", "{    \n}")]
    #[case("{/* \" */\"#\": \"/*\"}", "{       \"#\": \"/*\"}")]
    #[case("{} # end", "{}      ")]
    #[case("/**/{}//", "    {}//")]
    #[case("{//**/ /# x\n}", "{/     /   \n}")]
    fn comments_become_blanks(#[case] text: &str, #[case] expected: &str) {
        let found = String::from_utf8(without_comments(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(found.replace('\n', " "), expected.replace('\n', " "));
    }

    proptest! {
        #[test]
        fn parts_make_no_difference(text in r#"([{}\[\]"\\/*#\n a]|"[}]"){0,40}"#, parts in prop::collection::vec(1_usize..5, 0..20)) {
            let text = text.as_bytes();
            let whole = Scan::new().advance(text);
            let (mut scan, mut end) = (Scan::new(), 0);
            let mut found = Progress::Blank;
            for part in parts.into_iter().chain([text.len()]) {
                end = text.len().min(end + part);
                found = scan.advance(&text[..end]);
                if matches!(found, Progress::Complete(_)) {
                    break;
                }
            }
            match (whole, found) {
                // What is no JSON ends with what has come.
                (Progress::Complete(whole), Progress::Complete(found)) => prop_assert!(found <= whole),
                (whole, found) => prop_assert_eq!(whole, found),
            }
        }

        #[test]
        fn a_value_ends_with_its_text(value in crate::kea_json::tests::json(), after in "[ a{]{0,3}") {
            let value = format!("[{value}]");
            let text = format!("{value}{after}");
            prop_assert_eq!(Scan::new().advance(text.as_bytes()), Progress::Complete(value.len()));
        }

        #[test]
        fn a_text_without_comments_is_unchanged(value in crate::kea_json::tests::json()) {
            prop_assert_eq!(&*without_comments(value.as_bytes()), value.as_bytes());
            let commented = format!("#{{\n{value}/*]*/#");
            prop_assert!(Json::parse(&without_comments(commented.as_bytes())).is_ok());
        }
    }
}
