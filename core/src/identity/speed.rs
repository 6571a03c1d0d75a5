//! Measures the speed of the device's TPM, and recommends a type of key.

use super::{Device, IdentityError, maker_and_firmware};
use crate::key::Curve;
use crate::tpm::{KeyAlgorithm, Operation, OperationTiming};
use serde::Serialize;
use std::time::Duration;

/// The smallest factor by which a type of key counts as faster than another.
const CLEARLY: f64 = 1.25;
/// If a signature takes longer, the TPM limits services. The advice then mentions sealed keys.
const SLOW: Duration = Duration::from_millis(10);

/// The measured speed of the device's TPM, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct SpeedReport {
    /// The TCTI (transport) of the TPM.
    pub tcti: String,
    /// The maker of the TPM: TPM_PT_MANUFACTURER as text.
    pub maker: String,
    /// The firmware version: TPM_PT_FIRMWARE_VERSION_1 and 2, in hexadecimal digits.
    pub firmware: String,
    /// True if a resource manager serves the TPM. A key from a file then stays loaded.
    pub managed: bool,
    /// The measured operations and their times.
    pub operations: Vec<MeasuredOperation>,
    /// The types of keys that the TPM does not support.
    pub lacks: Vec<&'static str>,
    /// The advice: a sentence that names the best type of key.
    pub advice: String,
}

/// An operation of the TPM, with the measured times.
#[derive(Debug, Clone, Serialize)]
pub struct MeasuredOperation {
    /// The name of the operation: `generate`, `sign`, `load-and-sign`, `unseal` or `login`.
    pub name: &'static str,
    /// The type of the key, if the operation uses a key pair.
    pub key: Option<&'static str>,
    /// The number of TPM commands of the operation.
    pub commands: u32,
    /// The number of measurements.
    pub rounds: usize,
    /// The median time in milliseconds.
    pub median_ms: f64,
    /// The shortest time in milliseconds.
    pub min_ms: f64,
    /// The longest time in milliseconds.
    pub max_ms: f64,
}

impl Device {
    /// Measures the TPM. Writes nothing to the TPM, needs no PIN, and flushes each object that it
    /// loads. Calls `is_ended` between two commands. If `is_ended` returns true, the measurement
    /// ends, and the result is `None`.
    ///
    /// # Errors
    ///
    /// Fails with the errors of the TPM.
    pub fn speed(&self, is_ended: &dyn Fn() -> bool) -> Result<Option<SpeedReport>, IdentityError> {
        let (maker, firmware) = maker_and_firmware(&self.tpm)?;
        let speed = self.tpm.speed(is_ended)?;
        if speed.is_cut {
            return Ok(None);
        }
        let managed = self.tpm.tcti().is_managed();
        Ok(Some(SpeedReport {
            tcti: self.tpm.tcti().to_string(),
            maker,
            firmware,
            managed,
            advice: advice(&speed.timings, managed),
            operations: speed.timings.iter().map(MeasuredOperation::of).collect(),
            lacks: speed.lacks.iter().copied().map(name).collect(),
        }))
    }
}

impl MeasuredOperation {
    fn of(timing: &OperationTiming) -> Self {
        let (name, key, commands) = match timing.operation {
            Operation::Generate(key) => ("generate", Some(key), 1),
            Operation::Sign(key) => ("sign", Some(key), 1),
            Operation::LoadAndSign(key) => ("load-and-sign", Some(key), 3),
            Operation::Unseal => ("unseal", None, 4),
            Operation::Login => ("login", None, 5),
        };
        let in_ms = |time: Option<&Duration>| {
            let ms = time.copied().unwrap_or_default().as_secs_f64() * 1000.0;
            (ms * 1000.0).round() / 1000.0
        };
        Self {
            name,
            key: key.map(self::name),
            commands,
            rounds: timing.times.len(),
            median_ms: in_ms(Some(&median(&timing.times))),
            min_ms: in_ms(timing.times.first()),
            max_ms: in_ms(timing.times.last()),
        }
    }
}

/// Returns the name of a type of key. `devid key generate --algorithm` writes the names in another
/// way.
fn name(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::Ec(Curve::P256) => "P-256",
        KeyAlgorithm::Ec(Curve::P384) => "P-384",
        KeyAlgorithm::Ec(Curve::P521) => "P-521",
        KeyAlgorithm::Rsa(2048) => "RSA-2048",
        KeyAlgorithm::Rsa(_) => "RSA",
    }
}

fn median(times: &[Duration]) -> Duration {
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A type of key for the advice, with the times of a signature and of a key generation.
struct Candidate {
    name: &'static str,
    sign: Duration,
    generate: Duration,
}

/// Returns a sentence that names the best type of key.
fn advice(timings: &[OperationTiming], managed: bool) -> String {
    let took = |operation| {
        let found = timings.iter().find(|one| one.operation == operation);
        found.map(|one| median(&one.times))
    };
    let candidate = |algorithm| {
        let sign = match managed {
            true => Operation::Sign(algorithm),
            false => Operation::LoadAndSign(algorithm),
        };
        Some(Candidate {
            name: name(algorithm),
            sign: took(sign)?,
            generate: took(Operation::Generate(algorithm))?,
        })
    };
    let ec = candidate(KeyAlgorithm::Ec(Curve::P256));
    let rsa = candidate(KeyAlgorithm::Rsa(2048));
    let (fits, why) = match (ec, rsa) {
        (None, None) => {
            return "This TPM supports neither P-256 nor RSA-2048 keys, so it cannot hold the own \
                    keys of the device."
                .into();
        }
        (Some(only), None) | (None, Some(only)) => {
            let why = "this TPM does not support the other of the two common types".into();
            (only, why)
        }
        (Some(ec), Some(rsa)) => {
            let factor = ratio(rsa.sign, ec.sign);
            if factor * CLEARLY < 1.0 {
                let why = format!(
                    "they sign {:.1} times as fast as {} keys, but the generation of a key takes {}",
                    1.0 / factor,
                    ec.name,
                    shown(rsa.generate)
                );
                (rsa, why)
            } else if factor < CLEARLY {
                let why = format!(
                    "they sign about as fast as {} keys, and the generation of a key takes {} \
                     instead of {}",
                    rsa.name,
                    shown(ec.generate),
                    shown(rsa.generate)
                );
                (ec, why)
            } else {
                let why = format!("they sign {factor:.1} times as fast as {} keys", rsa.name);
                (ec, why)
            }
        }
    };
    let sealed = match took(Operation::Unseal) {
        Some(open) if fits.sign > SLOW => format!(
            "; a service that signs more than {} times per second needs a sealed key (devid key \
             generate LABEL --sealed), which signs in memory after the TPM unsealed this key once, \
             in {}",
            (1.0 / fits.sign.as_secs_f64()).floor(),
            shown(open)
        ),
        _ => String::new(),
    };
    format!("{} keys fit this TPM: {why}{sealed}.", fits.name)
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64().max(f64::EPSILON)
}

fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        long if long >= 1.0 => format!("{long:.1} s"),
        short if short >= 0.01 => format!("{:.0} ms", short * 1000.0),
        short => format!("{:.1} ms", short * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: KeyAlgorithm = KeyAlgorithm::Ec(Curve::P256);
    const RSA: KeyAlgorithm = KeyAlgorithm::Rsa(2048);

    /// Returns the advice. The arguments are the milliseconds of a signature and of a key
    /// generation, for P-256 and for RSA-2048.
    fn advised(ec: Option<(u64, u64)>, rsa: Option<(u64, u64)>) -> String {
        let mut timings = Vec::new();
        let mut note = |operation, ms| {
            let times = vec![Duration::from_millis(ms)];
            timings.push(OperationTiming { operation, times });
        };
        for (key, took) in [(EC, ec), (RSA, rsa)] {
            if let Some((sign, generate)) = took {
                note(Operation::Sign(key), sign);
                note(Operation::LoadAndSign(key), 9 * sign);
                note(Operation::Generate(key), generate);
            }
        }
        note(Operation::Unseal, 90);
        advice(&timings, true)
    }

    #[test]
    fn the_kind_that_signs_faster_fits() {
        // Examples of a discrete chip, of a firmware TPM, and of a TPM with equally fast types.
        let chip = advised(Some((36, 60)), Some((77, 1568)));
        assert!(
            chip.starts_with("P-256 keys fit this TPM: they sign 2.1 times as fast"),
            "{chip}"
        );
        assert!(
            chip.contains("more than 27 times per second") && chip.ends_with("in 90 ms."),
            "{chip}"
        );
        let firmware = advised(Some((45, 60)), Some((12, 736)));
        assert!(
            firmware.starts_with("RSA-2048 keys fit this TPM: they sign 3.8 times"),
            "{firmware}"
        );
        assert!(
            firmware.contains("the generation of a key takes 736 ms"),
            "{firmware}"
        );
        let alike = advised(Some((2, 4)), Some((2, 2300)));
        assert_eq!(
            alike,
            "P-256 keys fit this TPM: they sign about as fast as RSA-2048 keys, and the generation of a key \
             takes 4.0 ms instead of 2.3 s."
        );
    }

    #[test]
    fn a_kind_that_is_not_there_is_not_advised() {
        assert!(
            advised(None, Some((3, 5)))
                .starts_with("RSA-2048 keys fit this TPM: this TPM does not support the other")
        );
        assert!(advised(Some((3, 5)), None).starts_with("P-256 keys fit"));
        assert!(advised(None, None).contains("neither"));
    }

    #[test]
    fn each_advice_is_a_sentence() {
        for (ec, rsa) in [
            (Some((36, 60)), Some((77, 1568))),
            (None, None),
            (None, Some((3, 5))),
        ] {
            let text = advised(ec, rsa);
            assert!(text.ends_with('.') && !text.contains(". "), "{text}");
        }
    }
}
