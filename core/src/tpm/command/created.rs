//! Checks that the TPM created an object with the public area that the template requested.

use super::marshalled;
use crate::tpm::TpmError;
use tpm2_protocol::data::{TpmtPublic, TpmuPublicParms};

/// Checks a TPMT_PUBLIC against its template, and returns the TPMT_PUBLIC as bytes. All fields
/// except the unique field must be equal. The exponent 0 is equal to 65537.
pub(super) fn check_created(template: &TpmtPublic, made: &TpmtPublic) -> Result<Vec<u8>, TpmError> {
    const F4: u32 = 65537;
    let mut expected = TpmtPublic {
        unique: made.unique.clone(),
        ..template.clone()
    };
    if let (TpmuPublicParms::Rsa(asked), TpmuPublicParms::Rsa(given)) =
        (&mut expected.parameters, &made.parameters)
        && asked.exponent.value() == 0
        && given.exponent.value() == F4
    {
        asked.exponent = given.exponent;
    }
    let area = marshalled(made)?;
    match marshalled(&expected)? == area {
        true => Ok(area),
        false => Err(TpmError::Unsupported(
            "the TPM answered with another key than the command asked for".into(),
        )),
    }
}
