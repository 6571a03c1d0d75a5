//! Computes the remaining validity of a certificate, in seconds and days.

use crate::x509::{Certificate, Time};
use serde::Serialize;
use std::fmt;
use x509_cert::der::DateTime;

const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

/// The remaining validity of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "ends")]
pub enum Expiry {
    /// The validity has no end (RFC 5280, section 4.1.2.5).
    Never,
    /// The validity ends at a known time.
    #[serde(rename_all = "snake_case")]
    At {
        /// The end of the validity (RFC 3339, UTC).
        not_after: String,
        /// The number of whole days that remain. After the end: -1 on the first day, -2 on the
        /// second day.
        days_left: i64,
        /// The number of seconds that remain. Zero or negative after the end.
        seconds_left: i64,
    },
    /// The certificate is not valid yet.
    #[serde(rename_all = "snake_case")]
    NotYet {
        /// The start of the validity (RFC 3339, UTC).
        not_before: String,
        /// The end of the validity (RFC 3339, UTC).
        not_after: String,
    },
    /// A validity time of the certificate cannot be parsed.
    #[serde(rename_all = "snake_case")]
    Unreadable {
        /// The value that cannot be parsed, as text.
        not_after: String,
    },
    /// The end of the validity is known. The clock of the device is wrong, so the remaining time is
    /// unknown.
    #[serde(rename_all = "snake_case")]
    ClockWrong {
        /// The end of the validity (RFC 3339, UTC).
        not_after: String,
    },
}

impl Expiry {
    /// Returns the remaining validity at the time `now`. `Err` holds the time of a wrong clock.
    pub(super) fn of(certificate: &Certificate, now: Result<DateTime, DateTime>) -> Self {
        let (from, end) = match (certificate.not_before(), certificate.not_after()) {
            (Ok(from), Ok(end)) => (from, end),
            (Err(why), _) | (_, Err(why)) => {
                let not_after = why.to_string();
                return Self::Unreadable { not_after };
            }
        };
        let not_after = end.to_string();
        match now {
            Ok(now) if Time::from(now) < from => Self::NotYet {
                not_before: from.to_string(),
                not_after,
            },
            _ if end.is_no_end() => Self::Never,
            Err(_) => Self::ClockWrong { not_after },
            Ok(now) => {
                let seconds_left = end.unix_seconds() - Time::from(now).unix_seconds();
                Self::At {
                    not_after,
                    days_left: whole_days(seconds_left),
                    seconds_left,
                }
            }
        }
    }
}

impl fmt::Display for Expiry {
    /// Writes the remaining validity, or the time since the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("without end"),
            Self::At {
                days_left: days, ..
            } => match days {
                ..=-3 => write!(f, "expired for {} days", -days - 1),
                -2 => f.write_str("expired for 1 day"),
                -1 => f.write_str("expired for less than a day"),
                0 => f.write_str("less than a day left"),
                1 => f.write_str("1 day left"),
                2.. => write!(f, "{days} days left"),
            },
            Self::NotYet { not_before, .. } => write!(f, "not valid before {not_before}"),
            Self::Unreadable { not_after } => write!(f, "invalid validity time: {not_after}"),
            Self::ClockWrong { not_after } => {
                write!(f, "valid until {not_after}; the clock is wrong")
            }
        }
    }
}

/// Returns the number of whole days in `seconds_left`. The certificate counts as expired when its
/// last second begins.
fn whole_days(seconds_left: i64) -> i64 {
    let days = seconds_left.abs() / SECONDS_OF_A_DAY;
    match seconds_left > 0 {
        true => days,
        false => -days - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::samples::{Party, Sample, in_year};

    fn expiry(end: &'static str, now: Result<DateTime, DateTime>) -> Expiry {
        let (ca, device) = (Party::new("CN=ca", 1), Party::new("CN=device", 2));
        Expiry::of(&Sample::of_device().until(end).issued(&ca, &device), now)
    }

    #[test]
    fn days_are_counted_down_and_below_nothing() {
        let now = in_year(2026);
        for (end, left, seconds, words) in [
            ("260711000001Z", 10, 864_001, "10 days left"),
            ("260711000000Z", 10, 864_000, "10 days left"),
            ("260710235959Z", 9, 863_999, "9 days left"),
            ("260702000000Z", 1, 86_400, "1 day left"),
            ("260701235959Z", 0, 86_399, "less than a day left"),
            ("260701000001Z", 0, 1, "less than a day left"),
            ("260701000000Z", -1, 0, "expired for less than a day"),
            ("260630235959Z", -1, -1, "expired for less than a day"),
            ("260630000001Z", -1, -86_399, "expired for less than a day"),
            ("260630000000Z", -2, -86_400, "expired for 1 day"),
            ("260621000000Z", -11, -864_000, "expired for 10 days"),
        ] {
            assert_eq!(expiry(end, Ok(now)).to_string(), words, "{end}");
            let Expiry::At {
                days_left,
                seconds_left,
                ..
            } = expiry(end, Ok(now))
            else {
                panic!("{end}");
            };
            assert_eq!((days_left, seconds_left), (left, seconds), "{end}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_counts_no_days() {
        let not_after = "2026-07-11T00:00:01Z".into();
        let wrong = expiry("260711000001Z", Err(in_year(2026)));
        assert_eq!(wrong, Expiry::ClockWrong { not_after });
        let (ca, device) = (Party::new("CN=ca", 1), Party::new("CN=device", 2));
        let endless = Sample::of_device().issued(&ca, &device);
        for now in [Ok(in_year(2026)), Err(in_year(2026)), Ok(in_year(9998))] {
            assert_eq!(Expiry::of(&endless, now), Expiry::Never);
        }
        // A certificate whose validity has no end still has a start.
        let early = Expiry::of(&endless, Ok(in_year(2001)));
        assert!(matches!(early, Expiry::NotYet { .. }), "{early:?}");
        let early = expiry("260711000001Z", Ok(in_year(2001)));
        assert!(matches!(early, Expiry::NotYet { .. }), "{early:?}");
    }
}
