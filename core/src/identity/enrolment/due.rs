//! Decides when the device must renew a certificate.

use crate::config::RenewWithin;
use crate::identity::EnrolmentRecord;
use crate::tpm::Hash;
use crate::x509::Certificate;
use crate::x509::clock::now;
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The shortest and the longest pause after a failed enrolment, in seconds.
const FIRST_REST: u64 = 5 * 60;
const LONGEST_REST: u64 = 12 * 60 * 60;

/// When the certificate of a key must be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "need")]
pub enum RenewalNeed {
    /// The certificate must be renewed after the given number of seconds.
    Later {
        /// The number of seconds until the renewal.
        seconds: u64,
    },
    /// The validity of the certificate has no end.
    Never,
    /// The certificate must be renewed now.
    Due,
    /// The key has no certificate from a CA yet.
    Missing,
    /// The clock is wrong, so the device cannot check the validity. The server decides about a
    /// renewal.
    ClockWrong,
}

impl RenewalNeed {
    /// Returns when a certificate must be renewed. `None` stands for a key without certificate.
    pub fn of(certificate: Option<&Certificate>, within: RenewWithin) -> Self {
        let Some(certificate) = certificate.filter(|one| !one.is_self_signed()) else {
            return Self::Missing;
        };
        let seconds = now().ok().map(|_| seconds_now());
        Self::at(certificate, within, seconds)
    }

    /// Returns the result of [`of`](Self::of) for the time `now`, in seconds since 1970. `now` is
    /// `None` if the clock is not plausible.
    fn at(certificate: &Certificate, within: RenewWithin, now: Option<u64>) -> Self {
        let times = (certificate.not_before(), certificate.not_after());
        let (Ok(from), Ok(until)) = times else {
            return Self::Due;
        };
        if until.is_no_end() {
            return Self::Never;
        }
        let whole = |seconds: i64| u64::try_from(seconds).unwrap_or_default();
        let (from, until) = (whole(from.unix_seconds()), whole(until.unix_seconds()));
        let Some(now) = now.filter(|now| *now >= from) else {
            return Self::ClockWrong;
        };
        let left = within.of(until.saturating_sub(from));
        let begins = until.saturating_sub(spread(left, certificate));
        match begins.saturating_sub(now) {
            0 => Self::Due,
            seconds => Self::Later { seconds },
        }
    }
}

/// Changes the time until renewal by at most a tenth. The change depends on the certificate, so
/// devices that were made together renew at different times.
fn spread(left: u64, certificate: &Certificate) -> u64 {
    let digest = Hash::Sha256.digest(&[certificate.serial_der(), certificate.issuer_der()]);
    let part = u64::from(u16::from_be_bytes([digest[0], digest[1]]));
    // The result is between nine and eleven tenths of the time.
    let tenths = left / 10;
    left - tenths + (2 * u128::from(tenths) * u128::from(part) / 0xFFFF) as u64
}

impl EnrolmentRecord {
    /// Returns how long the device still waits before it asks the server again. The device waits
    /// after a failure, or because the server requested it. If the stored time is too far in the
    /// future, the clock was wrong, and the time is ignored.
    pub fn rest(&self) -> Option<Duration> {
        self.rest_at(seconds_now())
    }

    fn rest_at(&self, now: u64) -> Option<Duration> {
        let doubled = FIRST_REST
            .checked_shl(self.failures.saturating_sub(1))
            .unwrap_or(LONGEST_REST);
        let after_failure = match self.failures {
            0 => 0,
            1..=16 => self.failed_at.saturating_add(doubled.min(LONGEST_REST)),
            _ => self.failed_at.saturating_add(LONGEST_REST),
        };
        let until = after_failure.max(self.retry_at);
        let left = until.checked_sub(now).filter(|left| *left > 0)?;
        (left <= 24 * 60 * 60).then(|| Duration::from_secs(left))
    }
}

fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::samples::{Party, Sample};

    const DAY: u64 = 24 * 60 * 60;

    /// Returns a certificate with these times. The time is a UTCTime, or a GeneralizedTime from the
    /// year 2050 on.
    fn lasting(from: &'static str, until: &'static str) -> Certificate {
        let tag = if until.len() == 13 { 0x17 } else { 0x18 };
        let mut sample = Sample::of_device();
        (sample.from, sample.until) = ((0x17, from), (tag, until));
        sample.issued(&Party::new("CN=ca", 1), &Party::new("CN=device", 2))
    }

    fn at(text: &str) -> u64 {
        let one = lasting("260101000000Z", "261231000000Z");
        let from = one.not_before().unwrap().unix_seconds() as u64;
        from + text.parse::<u64>().unwrap() * DAY
    }

    #[test]
    fn a_third_before_the_end_it_is_due() {
        let year = lasting("260101000000Z", "261231000000Z");
        let need = |day: &str| RenewalNeed::at(&year, RenewWithin::default(), Some(at(day)));
        // The certificate is valid for 364 days. Its renewal is due from day 242 on, plus or minus
        // twelve days.
        assert!(
            matches!(need("0"), RenewalNeed::Later { seconds } if seconds > 229 * DAY && seconds < 256 * DAY)
        );
        assert!(matches!(need("229"), RenewalNeed::Later { .. }));
        assert_eq!(need("256"), RenewalNeed::Due);
        assert_eq!(
            need("900"),
            RenewalNeed::Due,
            "over, and tried all the same"
        );
        assert_eq!(need("0"), need("0"), "the same each time");
    }

    #[test]
    fn a_clock_that_is_wrong_judges_nothing() {
        let year = lasting("260101000000Z", "261231000000Z");
        for now in [None, Some(at("0") - 1), Some(0)] {
            let need = RenewalNeed::at(&year, RenewWithin::default(), now);
            assert_eq!(need, RenewalNeed::ClockWrong);
        }
        let endless = lasting("260101000000Z", "99991231235959Z");
        assert_eq!(
            RenewalNeed::at(&endless, RenewWithin::default(), None),
            RenewalNeed::Never
        );
        assert_eq!(
            RenewalNeed::of(None, RenewWithin::default()),
            RenewalNeed::Missing
        );
    }

    #[test]
    fn failures_are_followed_by_ever_longer_rests() {
        let failed = |failures| EnrolmentRecord {
            failures,
            failed_at: 1_000_000,
            ..EnrolmentRecord::default()
        };
        let rest = |failures, now| failed(failures).rest_at(now).map(|rest| rest.as_secs());
        assert_eq!(rest(0, 1_000_000), None);
        assert_eq!(rest(1, 1_000_000), Some(300));
        assert_eq!(rest(2, 1_000_000), Some(600));
        assert_eq!(rest(1, 1_000_300), None);
        for many in [10, 16, 17, 63, 64, 65, u32::MAX] {
            assert_eq!(rest(many, 1_000_000), Some(LONGEST_REST), "{many}");
        }
        assert_eq!(rest(1, 0), None, "the clock went back");
        let waits = EnrolmentRecord {
            retry_at: 1_000_060,
            ..EnrolmentRecord::default()
        };
        assert_eq!(waits.rest_at(1_000_000), Some(Duration::from_secs(60)));
    }
}
