//! The current time, if the clock is plausible. The clock of a device without a battery starts in
//! 1970.

use crate::x509::path::is_signed_by;
use crate::x509::{Certificate, Time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::der::DateTime;

/// Returns the time of the system clock.
///
/// # Errors
///
/// Fails with the build time of this program if the clock is before the build time. The clock is
/// then wrong.
pub(crate) fn now() -> Result<DateTime, DateTime> {
    judged(SystemTime::now(), built())
}

fn built() -> SystemTime {
    let seconds = env!("DEVID_BUILT").parse().unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn judged(now: SystemTime, built: SystemTime) -> Result<DateTime, DateTime> {
    let epoch = DateTime::from_unix_duration(Duration::ZERO);
    let built = DateTime::from_system_time(built).or(epoch);
    match (DateTime::from_system_time(now), built) {
        (Ok(now), Ok(built)) if now >= built => Ok(now),
        (Ok(now), Err(_)) => Ok(now),
        (_, Ok(built)) => Err(built),
        (Err(_), Err(_)) => Err(DateTime::INFINITY),
    }
}

/// Returns true if the system clock is before the build time of this program. The validity of
/// certificates can then not be checked.
pub fn clock_is_wrong() -> bool {
    now().is_err()
}

impl Certificate {
    /// Checks that the certificate is valid now. Succeeds if the clock is wrong.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the certificate is not valid.
    pub fn is_valid_now(&self) -> Result<(), String> {
        now().map_or(Ok(()), |now| valid_at(self, now))
    }

    /// Returns true if the certificate is signed by its own key.
    pub fn is_self_signed(&self) -> bool {
        self.subject_der() == self.issuer_der() && is_signed_by(self, self) == Ok(true)
    }
}

/// Checks that a certificate is valid at this time. Fails with the reason if it is not.
pub(crate) fn valid_at(certificate: &Certificate, now: DateTime) -> Result<(), String> {
    let now = Time::from(now);
    let read = |time: Result<Time, _>| time.map_err(|why| format!("has a time that {why}"));
    let (from, until) = (
        read(certificate.not_before())?,
        read(certificate.not_after())?,
    );
    match until {
        _ if now < from => Err(format!("is not valid before {from}; now it is {now}")),
        // As in OpenSSL, a certificate is no longer valid in the second of its notAfter.
        until if until <= now && !until.is_no_end() => {
            Err(format!("was valid until {until}; now it is {now}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_build_is_wrong() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let built = DateTime::from_system_time(at(1000)).unwrap();
        assert_eq!(judged(at(10), at(1000)), Err(built));
        assert_eq!(judged(at(1000), at(1000)), Ok(built));
        assert!(now().is_ok());
    }

    #[test]
    fn the_last_day_of_9999_never_comes() {
        let pem = include_bytes!("../../testdata/leaf.pem");
        let leaf = Certificate::parse_all(pem).unwrap().remove(0);
        assert_eq!(valid_at(&leaf, DateTime::INFINITY), Ok(()));
        let early = DateTime::new(2023, 12, 31, 0, 0, 0).unwrap();
        assert!(valid_at(&leaf, early).is_err());
    }
}
