//! Certification of a key: TPM2_Certify.

use super::{Key, Protection};
use crate::store::SignError;
use crate::tpm::{
    AttestationKey, AuthValue, Certification, PublicArea, Tpm, is_certified_by_value,
    no_certification,
};

impl Key {
    /// The reason why no TPM can certify the key; `None` if one may. Costs no TPM command.
    pub fn no_certification(&self) -> Option<String> {
        let why = match (self.protection(), self.area()) {
            (Protection::Sealed, _) => {
                "it is used in memory, and the TPM seals only what opens its file: the TPM has no such key \
                 to certify"
            }
            (Protection::File, _) => "it is in a file: the TPM has no such key to certify",
            (Protection::Tpm, Some(area)) if !area.is_of_this_tpm() => {
                "it was made outside of the TPM and imported, so copies may be anywhere (fixedTPM or \
                 sensitiveDataOrigin is clear): no verifier accepts it as the TPM's own"
            }
            (Protection::Tpm, Some(area)) => self.idle().or(no_certification(area))?,
            (Protection::Tpm, None) => self.idle()?,
        };
        Some(why.into())
    }

    /// Has the TPM certify the key: TPMS_ATTEST with `qualifying` as extraData, and the attestation
    /// key's signature. The key's authorisation value is used only if its policy does not suffice.
    ///
    /// # Errors
    ///
    /// [`SignError::Refused`] for a key that cannot be certified.
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
