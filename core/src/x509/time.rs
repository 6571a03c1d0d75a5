//! Times of a certificate (RFC 5280, section 4.1.2.5). Every year that can be encoded is accepted.

use super::decode::Unreadable;
use crate::ber::Element;
use std::fmt;
use std::time::SystemTime;
use x509_cert::der::DateTime;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A day of the Gregorian calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Date {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

impl Date {
    /// Returns the day of the system clock; the first day of 1970 if the clock is out of range.
    pub fn today() -> Self {
        DateTime::from_system_time(SystemTime::now())
            .or(DateTime::new(1970, 1, 1, 0, 0, 0))
            .map_or(
                Self {
                    year: 1970,
                    month: 1,
                    day: 1,
                },
                |now| Time::from(now).day,
            )
    }

    fn exists(self) -> bool {
        let leap = self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => 0,
        };
        (1..=days).contains(&self.day)
    }

    /// Returns the number of days from 1970-01-01 to this day.
    fn number(self) -> i64 {
        // In this calculation a year begins in March, so that the leap day is the last day of a
        // year.
        let early = i64::from(self.month < 3);
        let year = i64::from(self.year) - early;
        let month = i64::from(self.month) + 12 * early - 3;
        let in_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        365 * year + leap_days + in_year - 719_468
    }
}

/// A time of a certificate with a precision of one second, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// The day.
    pub day: Date,
    /// The hour, minute and second of the day.
    clock: [u8; 3],
}

impl Time {
    /// Parses a time of a certificate. By RFC 5280 it has seconds and ends with Z.
    ///
    /// # Errors
    ///
    /// Fails if the format differs, or if the second does not exist.
    pub(super) fn read(element: &Element) -> Result<Self, Unreadable> {
        let unreadable = || {
            let text = String::from_utf8_lossy(element.content);
            Unreadable(format!("{:?}", text.chars().take(24).collect::<String>()))
        };
        let form = (element.tag, element.content.strip_suffix(b"Z"));
        let (century, digits) = match form {
            (UTC_TIME, Some(digits)) if digits.len() == 12 => (None, digits),
            (GENERALIZED_TIME, Some(digits)) if digits.len() == 14 => {
                let (century, digits) = digits.split_at(2);
                (Some(number(century).ok_or_else(unreadable)?), digits)
            }
            _ => return Err(unreadable()),
        };
        let parts: Option<Vec<u8>> = digits.chunks(2).map(number).collect();
        let Some([year, month, day, hour, minute, second]) = parts.as_deref() else {
            return Err(unreadable());
        };
        let century = century.unwrap_or(if *year < 50 { 20 } else { 19 });
        let day = Date {
            year: u16::from(century) * 100 + u16::from(*year),
            month: *month,
            day: *day,
        };
        let clock = [*hour, *minute, *second];
        let is_one = day.exists() && clock < [24, 0, 0] && *minute < 60 && *second < 60;
        is_one.then_some(Self { day, clock }).ok_or_else(unreadable)
    }

    /// Returns true if the time means "no end" (RFC 5280, section 4.1.2.5). Any time in the year
    /// 9999 counts as "no end".
    pub fn is_no_end(self) -> bool {
        self.day.year == 9999
    }

    /// Returns the number of seconds from 1970-01-01 00:00:00 UTC to this time.
    pub fn unix_seconds(self) -> i64 {
        let [hour, minute, second] = self.clock.map(i64::from);
        self.day.number() * 86_400 + hour * 3600 + minute * 60 + second
    }
}

impl From<DateTime> for Time {
    fn from(time: DateTime) -> Self {
        Self {
            day: Date {
                year: time.year(),
                month: time.month(),
                day: time.day(),
            },
            clock: [time.hour(), time.minutes(), time.seconds()],
        }
    }
}

impl fmt::Display for Time {
    /// Writes the time in the format of RFC 3339.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Date { year, month, day } = self.day;
        let [hour, minute, second] = self.clock;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

fn number(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number * 10 + u8::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(tag: u8, text: &str) -> Result<Time, Unreadable> {
        let content = text.as_bytes();
        Time::read(&Element {
            tag,
            whole: content,
            content,
        })
    }

    #[test]
    fn times_of_every_year() {
        for (tag, text, said) in [
            (UTC_TIME, "500101000000Z", "1950-01-01T00:00:00Z"),
            (UTC_TIME, "491231235959Z", "2049-12-31T23:59:59Z"),
            (GENERALIZED_TIME, "00010101000000Z", "0001-01-01T00:00:00Z"),
            (GENERALIZED_TIME, "20240229235959Z", "2024-02-29T23:59:59Z"),
            (GENERALIZED_TIME, "99991231235959Z", "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(read(tag, text).unwrap().to_string(), said);
        }
    }

    #[test]
    fn what_is_no_second_is_unreadable_and_shown() {
        for (tag, text) in [
            (UTC_TIME, "2001010000Z"),
            (UTC_TIME, "200101000000+0100"),
            (UTC_TIME, "20200101000000Z"),
            (UTC_TIME, "200230000000Z"),
            (UTC_TIME, "210229000000Z"),
            (UTC_TIME, "200101240000Z"),
            (UTC_TIME, "200101006000Z"),
            (UTC_TIME, "2001010000 0Z"),
            (GENERALIZED_TIME, "20200101235960Z"),
            (GENERALIZED_TIME, "21000229000000Z"),
            (GENERALIZED_TIME, "20200101000000.5Z"),
            (GENERALIZED_TIME, "20201301000000Z"),
            (0x16, "200101000000Z"),
            (UTC_TIME, ""),
        ] {
            let why = read(tag, text).unwrap_err().to_string();
            assert_eq!(why, format!("cannot be read: {text:?}"));
        }
    }

    #[test]
    fn seconds_are_counted_as_the_system_counts_them() {
        for seconds in [0, 951_782_400, 951_868_800, 4_102_444_799, 253_402_300_799] {
            let time = DateTime::from_unix_duration(Duration::from_secs(seconds)).unwrap();
            assert_eq!(Time::from(time).unix_seconds(), seconds as i64);
        }
        let early = read(UTC_TIME, "691231235959Z").unwrap();
        assert_eq!(early.unix_seconds(), -1);
    }
}
