//! Dates as in HTTP (RFC 1123): `Wed, 25 Nov 2026 21:46:37 GMT`.

use std::time::{Duration, SystemTime};

/// The last second of the year 9999, after which dates have no form.
const LAST: u64 = 253_402_300_799;

/// Returns seconds since the epoch as a date of HTTP, in GMT. A time out of the years 1970 to 9999
/// is that of the nearest of them.
///
/// ```
/// use leasemgr::ha::{http_date, parse_http_date};
///
/// assert_eq!(http_date(1_795_643_197), "Wed, 25 Nov 2026 21:46:37 GMT");
/// assert_eq!(parse_http_date("Wed, 25 Nov 2026 21:46:37 GMT"), Some(1_795_643_197));
/// ```
#[must_use]
pub fn http_date(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or_default().min(LAST);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns a date of HTTP as seconds since the epoch; `None` if the text is not a date.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs().try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "Thu, 01 Jan 1970 00:00:00 GMT")]
    #[case(951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT")]
    #[case(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT")]
    #[case(4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT")]
    #[case(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT")]
    #[case(253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT")]
    fn dates(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(http_date(seconds), text);
        assert_eq!(parse_http_date(text), Some(seconds));
    }

    #[rstest]
    #[case::word("yesterday")]
    #[case::iso("2026-01-01T00:00:00Z")]
    #[case::no_such_day("Tue, 29 Feb 2100 00:00:00 GMT")]
    #[case::day_zero("Tue, 00 Feb 2100 00:00:00 GMT")]
    #[case::hour("Thu, 01 Jan 1970 24:00:00 GMT")]
    #[case::zone("Thu, 01 Jan 1970 00:00:00 CET")]
    #[case::more("Thu, 01 Jan 1970 00:00:00 GMT x")]
    #[case::sign("Thu, +1 Jan 1970 00:00:00 GMT")]
    fn other_texts_are_no_dates(#[case] text: &str) {
        assert_eq!(parse_http_date(text), None);
    }

    proptest! {
        #[test]
        fn each_date_reads_back(seconds in 0..253_402_300_800_i64) {
            prop_assert_eq!(parse_http_date(&http_date(seconds)), Some(seconds));
        }
    }
}
