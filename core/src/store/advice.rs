//! Adds the setting and the remedy to messages about errors of the TPM.

use crate::tpm::{CommandClass, Limit, Obstacle, TpmError, Unloadable};
use std::fmt;

/// The text in messages before the command that ends a lockout of the TPM.
pub(crate) const WAIT: &str = "Wait until the TPM forgets a failed try (devid status prints how \
                               long that takes). Or run this command, with --auth if the lockout \
                               authorisation has a value";

/// A TPM error that is displayed with its remedy.
#[derive(Debug, Clone, Copy)]
pub struct Advised<'a>(pub &'a TpmError);

impl fmt::Display for Advised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.0;
        match error {
            TpmError::Timeout(limit) | TpmError::Busy(limit) => {
                write!(f, "{error} ({})", setting(*limit))
            }
            TpmError::Lockout(tcti) | TpmError::NoTryLeft(tcti) => {
                write!(f, "{error}. {WAIT}: {}", tcti.clearing_lockout())
            }
            TpmError::NoPinLock(_) => write!(f, "{error}; devid doctor names the remedy"),
            TpmError::Unloadable(why) => f.write_str(&unloadable(why)),
            _ => error.fmt(f),
        }
    }
}

/// Returns the setting of `config.toml` for a time limit.
fn setting(limit: Limit) -> &'static str {
    match limit.class {
        CommandClass::Ordinary => "timeout_ms",
        CommandClass::Generation => "generation_timeout_ms",
    }
}

/// Returns the reason why the TPM does not load a key, with the remedy.
pub(crate) fn unloadable(why: &Unloadable) -> String {
    match why.why {
        Obstacle::ParentCounts => format!(
            "{why}; if the parent has no authorisation value, add its handle to parents under \
             [[token]] in config.toml"
        ),
        _ => why.to_string(),
    }
}
