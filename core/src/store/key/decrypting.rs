//! Decrypts, and agrees on secrets.
//!
//! The module removes RSA padding in software, so that it supports every hash and label. The
//! removal takes constant time. An attacker who can distinguish padding errors can decrypt without
//! the key (Bleichenbacher 1998, Manger 2001).

use super::{Key, KeyLocation};
use crate::key::{Curve, PublicKey, pad_left};
use crate::store::SignError;
use crate::tpm::{Hash, Secret, Tpm, TpmError};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeLess};

/// The padding of a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecryptRequest<'a> {
    /// RSAES-PKCS1-v1_5 (RFC 8017, section 7.2).
    Pkcs1,
    /// RSAES-OAEP (RFC 8017, section 7.1).
    Oaep {
        /// The hash of the label.
        hash: Hash,
        /// The hash of the mask generation function MGF1.
        mgf: Hash,
        /// The label, which may be empty.
        label: &'a [u8],
    },
}

impl Key {
    /// Returns true if the key decrypts, or agrees on secrets if it is on a curve. Also returns
    /// false for two kinds of keys:
    ///
    /// - a key with a fixed scheme, because the TPM would remove the padding;
    /// - a primary key that is not derived yet.
    pub fn decrypts(&self) -> bool {
        let area = self.area();
        matches!(self.place, KeyLocation::Memory(_))
            || area.is_some_and(|area| area.decrypts() && area.takes_any_scheme())
    }

    /// Returns true if the key can decrypt this padding. Keys of the TPM support every padding.
    /// Keys in memory support no OAEP with two different hashes.
    pub fn opens(&self, request: DecryptRequest) -> bool {
        match &self.place {
            KeyLocation::Memory(soft) => soft.opens(request),
            _ => self.decrypts(),
        }
    }

    /// Decrypts a ciphertext. Costs as many commands as a signature, and one command for the auth
    /// session that encrypts the response.
    ///
    /// # Errors
    ///
    /// - [`SignError::Ciphertext`] for every error of the ciphertext; the caller cannot distinguish
    ///   them.
    /// - [`SignError::Scheme`] for a padding that the key does not [support](Self::opens).
    pub fn decrypt(
        &self,
        tpm: &Tpm,
        request: DecryptRequest,
        ciphertext: &[u8],
    ) -> Result<Secret, SignError> {
        let PublicKey::Rsa { modulus, .. } = self.public() else {
            return Err(SignError::Scheme);
        };
        if !self.decrypts() {
            return Err(SignError::Scheme);
        }
        // For a number that is not less than the modulus, a TPM returns an error code of its own.
        if ciphertext.len() != modulus.len() || ciphertext >= &modulus[..] {
            return Err(SignError::Ciphertext);
        }
        if let KeyLocation::Memory(soft) = &self.place {
            let opened = soft.decrypt(tpm, &self.access, request, ciphertext);
            return opened.map_err(|error| self.judged(tpm, error));
        }
        let value = self.access.value()?.encrypting_response();
        let (block, _) = self.with(tpm, "RSA_Decrypt", &value, |link, key| {
            link.rsa_decrypt(key, ciphertext)
        })?;
        let block = pad_left(&block, modulus.len()).map(Secret::new);
        let block = block.ok_or_else(|| {
            TpmError::WrongAnswer(
                "the decrypted block is longer than the modulus of the key".into(),
            )
        })?;
        let plain = match request {
            DecryptRequest::Pkcs1 => pkcs1(&block),
            DecryptRequest::Oaep { hash, mgf, label } => oaep(&block, hash, mgf, label),
        };
        plain.ok_or(SignError::Ciphertext)
    }

    /// Agrees on a secret with the point of the peer, `04 ‖ x ‖ y`. Returns the x coordinate with
    /// the length of the field (SEC 1, section 3.3.1).
    ///
    /// # Errors
    ///
    /// Fails with [`SignError::Ciphertext`] if the point is not on the curve of the key.
    pub fn agree(&self, tpm: &Tpm, point: &[u8]) -> Result<Secret, SignError> {
        let PublicKey::Ec { curve, .. } = self.public() else {
            return Err(SignError::Scheme);
        };
        if !self.decrypts() {
            return Err(SignError::Scheme);
        }
        let Some(PublicKey::Ec { point, .. }) = PublicKey::from_point(*curve, point) else {
            return Err(SignError::Ciphertext);
        };
        let (x, y) = point[1..].split_at(curve.width());
        if let KeyLocation::Memory(soft) = &self.place {
            let agreed = soft.agree(tpm, &self.access, &point);
            return agreed.map_err(|error| self.judged(tpm, error));
        }
        let value = self.access.value()?.encrypting_response();
        let (z, _) = self.with(tpm, "ECDH_ZGen", &value, |link, key| {
            link.ecdh_z(key, (x, y))
        })?;
        padded(&z, *curve)
    }
}

fn padded(z: &Secret, curve: Curve) -> Result<Secret, SignError> {
    let z = pad_left(z, curve.width()).map(Secret::new);
    z.ok_or_else(|| TpmError::WrongAnswer("the coordinate is longer than its field".into()).into())
}

/// Returns the message in the block `00 02 ‖ eight or more bytes other than 00 ‖ 00 ‖ message`.
///
/// Processes every byte in constant time. An observer can learn only where the message starts, and
/// so its length.
fn pkcs1(block: &[u8]) -> Option<Secret> {
    const SHORTEST_PADDING: u32 = 8;
    let mut sound = block.first()?.ct_eq(&0) & block.get(1)?.ct_eq(&2);
    let mut ended = Choice::from(0);
    let mut start = 0_u32;
    for (at, byte) in (0_u32..).zip(block).skip(2) {
        let is_end = byte.ct_eq(&0) & !ended;
        start = u32::conditional_select(&start, &(at + 1), is_end);
        ended |= is_end;
    }
    sound &= ended;
    sound &= !start.ct_lt(&(2 + SHORTEST_PADDING + 1));
    bool::from(sound).then(|| Secret::new(block[start as usize..].to_vec()))
}

/// Returns the message in the block
/// `00 ‖ masked seed ‖ masked(hash of the label ‖ 00… ‖ 01 ‖ message)`.
fn oaep(block: &[u8], hash: Hash, mgf: Hash, label: &[u8]) -> Option<Secret> {
    let width = hash.width();
    if block.len() < 2 * width + 2 {
        return None;
    }
    let mut sound = block[0].ct_eq(&0);
    let (masked_seed, masked_data) = block[1..].split_at(width);
    let seed = masked(masked_seed, masked_data, mgf);
    let data = masked(masked_data, &seed, mgf);
    let (label_hash, rest) = data.split_at(width);
    sound &= label_hash.ct_eq(&hash.digest(&[label]));
    let mut begun = Choice::from(0);
    let mut start = 0_u32;
    for (at, byte) in (0_u32..).zip(rest) {
        let is_one = byte.ct_eq(&1);
        let is_zero = byte.ct_eq(&0);
        start = u32::conditional_select(&start, &(at + 1), is_one & !begun);
        // Only bytes 00 may precede the byte 01.
        sound &= begun | is_one | is_zero;
        begun |= is_one;
    }
    sound &= begun;
    bool::from(sound).then(|| Secret::new(rest[start as usize..].to_vec()))
}

/// Returns `data` XOR the MGF1 mask of `seed` (RFC 8017, appendix B.2.1). The function adds a mask
/// and also removes it.
pub(super) fn masked(data: &[u8], seed: &[u8], mgf: Hash) -> Secret {
    let mut plain = Secret::new(data.to_vec());
    for (counter, chunk) in (0_u32..).zip(plain.chunks_mut(mgf.width())) {
        let mask = Secret::new(mgf.digest(&[seed, &counter.to_be_bytes()]));
        chunk
            .iter_mut()
            .zip(&*mask)
            .for_each(|(byte, mask)| *byte ^= mask);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(begin: &[u8], padding: usize, end: &[u8]) -> Vec<u8> {
        [begin, &vec![7; padding], end].concat()
    }

    #[test]
    fn only_a_sound_padding_gives_its_message() {
        let plain = |block: &[u8]| pkcs1(block).map(|plain| plain.to_vec());
        assert_eq!(
            plain(&block(&[0, 2], 8, b"\0hello")),
            Some(b"hello".to_vec())
        );
        assert_eq!(plain(&block(&[0, 2], 20, b"\0")), Some(vec![]));
        assert_eq!(plain(&block(&[0, 2], 8, b"\0a\0b")), Some(b"a\0b".to_vec()));
        for wrong in [
            block(&[0, 2], 7, b"\0hello"),
            block(&[0, 1], 8, b"\0hello"),
            block(&[1, 2], 8, b"\0hello"),
            block(&[0, 2], 30, b""),
            vec![0],
            vec![],
        ] {
            assert_eq!(plain(&wrong), None, "{wrong:x?}");
        }
    }

    fn oaep_block(hash: Hash, mgf: Hash, label: &[u8], middle: &[u8], message: &[u8]) -> Vec<u8> {
        let mut data = hash.digest(&[label]);
        data.extend(middle);
        data.extend(message);
        data.resize(data.len(), 0);
        let seed = vec![9; hash.width()];
        let masked_data = masked(&data, &seed, mgf);
        let masked_seed = masked(&seed, &masked_data, mgf);
        [&[0][..], &masked_seed, &masked_data].concat()
    }

    #[test]
    fn oaep_of_every_hash_gives_its_message_and_nothing_else() {
        for hash in Hash::ALL {
            for mgf in Hash::ALL {
                let plain = |block: &[u8], label| oaep(block, hash, mgf, label).map(|m| m.to_vec());
                let middle = [&[0; 40][..], &[1]].concat();
                let sound = oaep_block(hash, mgf, b"label", &middle, b"hello");
                assert_eq!(plain(&sound, b"label"), Some(b"hello".to_vec()));
                assert_eq!(plain(&sound, b"other"), None);
                for wrong in [&[0; 41][..], &[[0; 20].as_slice(), &[2], &[1; 20]].concat()] {
                    assert_eq!(plain(&oaep_block(hash, mgf, b"", wrong, b""), b""), None);
                }
                let mut first = sound.clone();
                first[0] = 1;
                assert_eq!(plain(&first, b"label"), None);
                assert_eq!(plain(&sound[..hash.width()], b"label"), None);
            }
        }
    }
}
