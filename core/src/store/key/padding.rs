//! RSA signatures with padding in software, and the raw private operation. Both serve keys that may
//! decrypt. The padding in software also serves schemes that the TPM does not support.

use super::{Key, KeyLocation};
use crate::key::{PublicKey, pad_left};
use crate::signature::{SignRequest, verify};
use crate::store::SignError;
use crate::store::key::decrypting::masked;
use crate::tpm::{Hash, SignatureScheme, Tpm, TpmError, random_secret};

impl Key {
    /// Returns true if the TPM offers the raw private operation of this RSA key (TPM2_RSA_Decrypt
    /// without scheme). The module then makes the padding in software. Only keys in files are used
    /// in this way. A factory key is used only as its maker intended.
    pub fn pads(&self) -> bool {
        let KeyLocation::Disk(_, area, _) = &self.place else {
            return false;
        };
        matches!(area.key, PublicKey::Rsa { .. }) && area.decrypts() && area.takes_any_scheme()
    }

    /// Returns true if the key signs without padding. The same operation decrypts, so the user
    /// needs the right to decrypt as well.
    pub fn signs_unpadded(&self) -> bool {
        self.allows_unpadded && self.pads()
    }

    /// Returns this key, which may or may not sign without padding.
    #[must_use]
    pub(in crate::store) fn allowing_unpadded(self, allows_unpadded: bool) -> Self {
        Self {
            allows_unpadded,
            ..self
        }
    }

    /// Returns true if the module can make the padding of this scheme, and the padding fits into
    /// the modulus.
    pub(super) fn pads_by(&self, scheme: SignatureScheme) -> bool {
        self.pads() && has_room(self.public(), scheme)
    }

    /// Signs by the raw private operation. Costs as many commands as a signature. A padded block is
    /// not secret. For a number that the caller chose, the result may be a decrypted message. So
    /// that result crosses the bus encrypted, which costs one more command.
    pub(super) fn sign_padded(
        &self,
        tpm: &Tpm,
        request: SignRequest<'_>,
    ) -> Result<Vec<u8>, SignError> {
        let width = self.public().signature_width();
        let block = match request {
            SignRequest::Pkcs1(hash, digest) => {
                pkcs1(&[hash.digest_info(), digest].concat(), width)
            }
            SignRequest::Pkcs1Of(data) => pkcs1(data, width),
            SignRequest::Pss(hash, digest) => {
                pss(hash, digest, &random_secret(hash.width())?, width)
            }
            SignRequest::Unpadded(number) => pad_left(number, width),
            SignRequest::Ecdsa(_) => None,
        };
        // For a number that is not less than the modulus, a TPM returns an error code of its own.
        let block = block.filter(|block| self.public().has_below_modulus(block));
        let block = block.ok_or(SignError::Scheme)?;
        let value = match request {
            SignRequest::Unpadded(_) => self.access.value()?.encrypting_response(),
            _ => self.access.value()?,
        };
        let (answer, doubtful) = self.with(tpm, "RSA_Decrypt", &value, |link, key| {
            link.rsa_decrypt(key, &block)
        })?;
        let too_wide =
            || TpmError::WrongAnswer("the signature is longer than the modulus of the key".into());
        let signature = pad_left(&answer, width).ok_or_else(too_wide)?;
        if !doubtful && tpm.has_proven(None, self.public()) && !tpm.verifies_signatures() {
            return Ok(signature);
        }
        if verify(self.public(), request, &signature) {
            tpm.note_proven(None, self.public());
            return Ok(signature);
        }
        match self.leave_handle() {
            true => self.sign_padded(tpm, request),
            false => Err(SignError::unverified("the private RSA operation")),
        }
    }
}

/// The number of bytes that EMSA-PKCS1-v1_5 adds to the data, at least.
const PKCS1_BESIDE: usize = 11;

/// Returns true if the padding of this scheme fits into the modulus of an RSA key (RFC 8017,
/// sections 9.1.1 and 9.2). For PSS the salt is as long as the digest.
pub(super) fn has_room(key: &PublicKey, scheme: SignatureScheme) -> bool {
    let needed = match scheme {
        SignatureScheme::Rsassa(hash) => hash.digest_info().len() + hash.width() + PKCS1_BESIDE,
        SignatureScheme::Rsapss(hash) => 2 * hash.width() + 2,
        SignatureScheme::Ecdsa(_) => return false,
    };
    needed <= key.signature_width()
}

/// Returns the EMSA-PKCS1-v1_5 block (RFC 8017, section 9.2):
/// `00 01 ‖ eight or more bytes FF ‖ 00 ‖ data`.
fn pkcs1(data: &[u8], width: usize) -> Option<Vec<u8>> {
    let padding = width.checked_sub(data.len() + 3).filter(|&ffs| ffs >= 8)?;
    Some([&[0, 1][..], &vec![0xFF; padding], &[0], data].concat())
}

/// Returns the EMSA-PSS block (RFC 8017, section 9.1.1) for a modulus of whole bytes. MGF1 uses the
/// hash of the digest.
fn pss(hash: Hash, digest: &[u8], salt: &[u8], width: usize) -> Option<Vec<u8>> {
    let sealed = hash.digest(&[&[0; 8], digest, salt]);
    let zeros = width.checked_sub(sealed.len() + salt.len() + 2)?;
    let data = [&vec![0; zeros][..], &[1], salt].concat();
    let mut block = masked(&data, &sealed, hash).to_vec();
    // The top bit is cleared, so that the number is less than the modulus.
    *block.first_mut()? &= 0x7F;
    block.extend(sealed);
    block.push(0xBC);
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pkcs1_has_room_for_eight_bytes_of_padding_or_does_not_pad() {
        let block = pkcs1(b"data", 15).unwrap();
        assert_eq!(block, [&[0, 1][..], &[0xFF; 8], &[0], b"data"].concat());
        assert_eq!(pkcs1(b"data", 14), None);
        assert_eq!(pkcs1(&[], 10), None);
        assert_eq!(pkcs1(&[], 300).unwrap().len(), 300);
    }

    #[test]
    fn pss_needs_a_modulus_with_room() {
        for hash in Hash::ALL {
            let (digest, salt) = (vec![7; hash.width()], vec![9; hash.width()]);
            let least = 2 * hash.width() + 2;
            assert_eq!(pss(hash, &digest, &salt, least - 1), None);
            let block = pss(hash, &digest, &salt, least).unwrap();
            assert_eq!((block.len(), block[least - 1]), (least, 0xBC));
            assert!(block[0] < 0x80);
        }
    }
}
