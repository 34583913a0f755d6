//! Dates of the Gregorian calendar, in UTC.

use std::fmt;

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// Days of 400 years.
const DAYS_OF_ERA: i64 = 146_097;

/// Days from 1 March of the year 0, with which eras of 400 years begin, to 1970-01-01.
const EPOCH: i64 = 719_468;

/// A date and a time of day, with months and days from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Civil {
    /// Returns the date and the time of seconds since the epoch.
    pub(crate) fn of(seconds: i64) -> Self {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let days = days + EPOCH;
        let (era, day) = (days.div_euclid(DAYS_OF_ERA), days.rem_euclid(DAYS_OF_ERA));
        let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        // The months from March to January have 153 days in five.
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        Self { year, month, day, hour: second / 3600, minute: second / 60 % 60, second: second % 60 }
    }
}

/// Writes a date such as `2026-11-25 21:46:37`.
impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "1970-01-01 00:00:00")]
    #[case(-1, "1969-12-31 23:59:59")]
    #[case(951_782_399, "2000-02-28 23:59:59")]
    #[case(951_782_400, "2000-02-29 00:00:00")]
    #[case(1_790_000_000, "2026-09-21 14:13:20")]
    #[case(4_107_542_399, "2100-02-28 23:59:59")]
    #[case(4_107_542_400, "2100-03-01 00:00:00")]
    // The first day of a year after others of which one was a leap year.
    #[case(86_529_081_600, "4712-01-01 00:00:00")]
    fn seconds_are_a_date_in_utc(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(Civil::of(seconds).to_string(), text);
    }

    /// Each day follows the one before.
    #[test]
    fn days_follow_each_other() {
        let mut last = Civil::of(-400 * 366 * DAY);
        for day in -400 * 366 + 1..800 * 366 {
            let next = Civil::of(day * DAY);
            let (same_month, same_year) = (next.month == last.month, next.year == last.year);
            let expected = match (same_year, same_month) {
                (true, true) => next.day == last.day + 1,
                (true, false) => next.month == last.month + 1 && next.day == 1 && last.day >= 28,
                (false, _) => {
                    (next.year, next.month, next.day, last.month, last.day) == (last.year + 1, 1, 1, 12, 31)
                }
            };
            assert!(expected, "{last} and {next}");
            last = next;
        }
    }
}
