//! The heads of requests and answers of HTTP/1.1.

use memchr::memchr_iter;

/// Maximum size of a head, in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Maximum number of header lines.
const MAX_HEADERS: usize = 64;

/// Why a text is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadHead;

/// Returns the length of the head at the beginning of a text, with the blank line after it, as soon
/// as that is there. A line that ends with a line feed only is refused, as in Kea: where a head
/// ends must not depend on which server reads it.
pub(super) fn head_len(text: &[u8]) -> Result<Option<usize>, BadHead> {
    let mut start = 0;
    for end in memchr_iter(b'\n', text) {
        let line = text.get(start..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BadHead)?;
        if line.is_empty() {
            return Ok(Some(end + 1));
        }
        start = end + 1;
    }
    if text.len() >= MAX_HEAD { Err(BadHead) } else { Ok(None) }
}

/// What the server needs of the head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) is_post: bool,
    pub(super) is_json: bool,
    /// `None` if the length of the body is not given in the one form that is accepted.
    pub(super) body_len: Option<u64>,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) authorization: Option<Vec<u8>>,
}

/// Returns whether a head that may be invalid is that of HTTP/1.1. All others are answered as
/// HTTP/1.0 is.
pub(super) fn is_http11(head: &[u8]) -> bool {
    first_line(head).ends_with(b" HTTP/1.1")
}

fn first_line(head: &[u8]) -> &[u8] {
    head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default()
}

impl RequestHead {
    pub(super) fn parse(head: &[u8]) -> Result<Self, BadHead> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        // As Kea does, newer versions are answered in the oldest one.
        let line = first_line(head);
        let older;
        let head = match line.strip_suffix(b" HTTP/2.0") {
            Some(line_before) => {
                older = [line_before, b" HTTP/1.0", head.get(line.len()..).unwrap_or_default()].concat();
                &older
            }
            None => head,
        };
        if !request.parse(head).is_ok_and(|status| status.is_complete()) {
            return Err(BadHead);
        }
        let fields = Fields::new(request.headers)?;
        let is_http11 = request.version == Some(1);
        Ok(Self {
            is_post: request.method == Some("POST"),
            is_json: fields.is_json,
            body_len: fields.body_len,
            keep_alive: if is_http11 { !fields.close } else { fields.keep_alive },
            expects_continue: is_http11 && fields.expects_continue,
            authorization: fields.authorization,
        })
    }
}

/// What the client needs of the head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    /// `None` if the length of the body is not given.
    pub(super) body_len: Option<u64>,
    pub(super) keep_alive: bool,
}

impl AnswerHead {
    pub(super) fn parse(head: &[u8]) -> Result<Self, BadHead> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        if !answer.parse(head).is_ok_and(|status| status.is_complete()) {
            return Err(BadHead);
        }
        let fields = Fields::new(answer.headers)?;
        Ok(Self {
            status: answer.code.unwrap_or_default(),
            body_len: fields.body_len,
            keep_alive: if answer.version == Some(1) { !fields.close } else { fields.keep_alive },
        })
    }
}

/// The header fields that matter.
#[derive(Default)]
struct Fields {
    is_json: bool,
    body_len: Option<u64>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    authorization: Option<Vec<u8>>,
}

impl Fields {
    fn new(headers: &[httparse::Header<'_>]) -> Result<Self, BadHead> {
        let mut fields = Self::default();
        let mut has_encoding = false;
        for header in headers {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("Content-Length") {
                let text =
                    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let len = text.and_then(|text| text.parse().ok()).ok_or(BadHead)?;
                if fields.body_len.replace(len).is_some() {
                    return Err(BadHead);
                }
            } else if is("Transfer-Encoding") {
                has_encoding = true;
            } else if is("Content-Type") {
                let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
                fields.is_json = kind.trim_ascii().eq_ignore_ascii_case(b"application/json");
            } else if is("Connection") {
                let mut words = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                fields.close |= words.clone().any(|word| word.eq_ignore_ascii_case(b"close"));
                fields.keep_alive |= words.any(|word| word.eq_ignore_ascii_case(b"keep-alive"));
            } else if is("Expect") {
                fields.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            } else if is("Authorization") && fields.authorization.replace(value.to_vec()).is_some() {
                return Err(BadHead);
            }
        }
        if has_encoding {
            fields.body_len = None;
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("POST / HTTP/1.1\r\n\r\nbody", Ok(Some(19)))]
    #[case("POST / HTTP/1.1\r\na: b\r\n\r\n", Ok(Some(25)))]
    #[case("POST / HTTP/1.1\r\na: b\r\n\r", Ok(None))]
    #[case("", Ok(None))]
    #[case("POST / HTTP/1.1\n", Err(BadHead))]
    #[case("POST / HTTP/1.1\r\na: b\n\r\n", Err(BadHead))]
    #[case("POST / HTTP/1.1\r\na: b\r\n\n", Err(BadHead))]
    fn a_head_ends_with_a_blank_line(#[case] text: &str, #[case] expected: Result<Option<usize>, BadHead>) {
        assert_eq!(head_len(text.as_bytes()), expected);
    }

    fn parse(lines: &[&str]) -> Result<RequestHead, BadHead> {
        RequestHead::parse(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes())
    }

    #[test]
    fn a_head_has_what_the_server_needs() {
        let head = parse(&[
            "POST /x HTTP/1.1",
            "host: a",
            "CONTENT-type: Application/JSON ; charset=utf-8",
            "content-length: 12",
            "Authorization:  Basic eA== ",
            "Expect: 100-Continue",
        ]);
        let expected = RequestHead {
            is_post: true,
            is_json: true,
            body_len: Some(12),
            keep_alive: true,
            expects_continue: true,
            authorization: Some(b"Basic eA==".to_vec()),
        };
        assert_eq!(head.unwrap(), expected);
    }

    #[rstest]
    #[case(&["POST / HTTP/1.1"], true)]
    #[case(&["POST / HTTP/1.1", "Connection: x, Close"], false)]
    #[case(&["POST / HTTP/1.0"], false)]
    #[case(&["POST / HTTP/1.0", "Connection: Keep-Alive"], true)]
    #[case(&["POST / HTTP/2.0"], false)]
    fn a_connection_is_kept_as_the_version_says(#[case] lines: &[&str], #[case] kept: bool) {
        assert_eq!(parse(lines).unwrap().keep_alive, kept);
    }

    #[rstest]
    #[case::twice(&["Content-Length: 1", "Content-Length: 1"])]
    #[case::signed(&["Content-Length: +1"])]
    #[case::a_list(&["Content-Length: 1, 1"])]
    #[case::too_large(&["Content-Length: 99999999999999999999"])]
    #[case::two_users(&["Authorization: Basic eA==", "Authorization: Basic eQ=="])]
    #[case::a_folded_line(&["a: b", " c"])]
    #[case::no_colon(&["a"])]
    #[case::a_blank_in_a_name(&["a b: c"])]
    fn ambiguous_headers_are_refused(#[case] lines: &[&str]) {
        assert_eq!(parse(&[&["POST / HTTP/1.1"], lines].concat()), Err(BadHead));
    }

    #[test]
    fn a_transfer_encoding_is_no_length() {
        let lines = ["POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: identity"];
        assert_eq!(parse(&lines).unwrap().body_len, None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in prop::collection::vec(any::<u8>(), 0..60), line in "[ -~]{0,20}") {
            let _ = (head_len(&text), RequestHead::parse(&text), AnswerHead::parse(&text), is_http11(&text));
            let _ = parse(&["POST / HTTP/1.1", &line]);
        }
    }
}
