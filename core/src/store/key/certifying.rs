//! Certifies a key by TPM2_Certify.

use super::{Key, Protection};
use crate::store::SignError;
use crate::tpm::{
    AttestationKey, AuthValue, Certification, PublicArea, Tpm, is_certified_by_value,
    no_certification,
};

impl Key {
    /// Returns the reason why no TPM can certify the key. Returns `None` if a TPM may certify it.
    /// Costs no TPM command.
    pub fn no_certification(&self) -> Option<String> {
        let why = match (self.protection(), self.area()) {
            (Protection::Sealed, _) => {
                "the module uses it in memory, and the TPM seals only the key to its file: the TPM \
                 does not hold this key, so it cannot certify it"
            }
            (Protection::File, _) => {
                "it is stored in a file: the TPM does not hold this key, so it cannot certify it"
            }
            (Protection::Tpm, Some(area)) if !area.is_of_this_tpm() => {
                "it was created outside of the TPM and imported (fixedTPM or sensitiveDataOrigin \
                 is clear): copies of it may exist, so verifiers reject it as a key of the TPM"
            }
            (Protection::Tpm, Some(area)) => self.idle().or(no_certification(area))?,
            (Protection::Tpm, None) => self.idle()?,
        };
        Some(why.into())
    }

    /// Lets the TPM certify the key. Returns a TPMS_ATTEST with `qualifying` as extraData, signed
    /// by the attestation key. Uses the authorisation value of the key only if the policy of the
    /// key does not permit TPM2_Certify.
    ///
    /// # Errors
    ///
    /// Fails with [`SignError::Refused`] for a key that cannot be certified.
    pub(crate) fn certify(
        &self,
        tpm: &Tpm,
        by: &AttestationKey,
        qualifying: &[u8],
    ) -> Result<Certification, SignError> {
        self.prepare(tpm)?;
        if let Some(why) = self.no_certification() {
            return Err(SignError::Refused(self.of_file(&why)));
        }
        let area = self.area().ok_or(SignError::NotInThisTpm)?;
        let value = match is_certified_by_value(area) {
            true => self.access.value()?,
            false => AuthValue::default(),
        };
        let area = PublicArea::as_bytes(area);
        let (certified, _) = self.with(tpm, "Certify", &value, |link, key| {
            link.certify_by(key, area, by, qualifying)
        })?;
        Ok(certified)
    }
}
