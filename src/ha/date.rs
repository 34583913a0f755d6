//! Dates as in HTTP (RFC 1123): `Wed, 25 Nov 2026 21:46:37 GMT`.

use crate::civil::{Civil, DAY};

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns the number of days from 1970-01-01 to a date of the Gregorian calendar, with months
/// from 1 and days from 1.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        + day
        - 719_469
}

/// Returns the time as a date of HTTP, in GMT.
///
/// ```
/// use leasemgr::ha::{http_date, parse_http_date};
///
/// assert_eq!(http_date(1_795_643_197), "Wed, 25 Nov 2026 21:46:37 GMT");
/// assert_eq!(parse_http_date("Wed, 25 Nov 2026 21:46:37 GMT"), Some(1_795_643_197));
/// ```
#[must_use]
pub fn http_date(seconds: i64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(seconds);
    // 1970-01-01 was a Thursday.
    let weekday = (seconds.div_euclid(DAY) + 4).rem_euclid(7);
    let name =
        |names: &[&'static str], at: i64| usize::try_from(at).ok().and_then(|at| names.get(at).copied());
    let weekday = name(&WEEKDAYS, weekday).unwrap_or_default();
    let month = name(&MONTHS, month - 1).unwrap_or_default();
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Returns the time of a date of HTTP, in seconds since the epoch; `None` if it is not one. The
/// day of the week is not checked.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<i64> {
    let mut parts = text.split_ascii_whitespace();
    let weekday = parts.next()?.strip_suffix(',')?;
    let number = |text: &str, digits: usize| -> Option<i64> {
        let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let day = number(parts.next()?, 2)?;
    let month = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let year = number(parts.next()?, 4)?;
    let mut clock = parts.next()?.split(':');
    let mut next = |limit| number(clock.next()?, 2).filter(|value| *value < limit);
    let (hour, minute, second) = (next(24)?, next(60)?, next(61)?);
    let is_whole = clock.next().is_none() && parts.next() == Some("GMT") && parts.next().is_none();
    // The next month begins after the day, also in December.
    let next_month = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
    let date = days(year, month, day);
    let is_date = WEEKDAYS.contains(&weekday) && is_whole && day >= 1 && date < next_month;
    is_date.then_some(date * DAY + hour * 3600 + minute * 60 + second)
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
