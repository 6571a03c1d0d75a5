//! An HMAC key of a verifier certifies an attestation key. The verifier wrapped the HMAC key for an
//! endorsement key. The certification therefore proves that the endorsement key and the attestation
//! key are in one TPM (Part 1, sections 23.3 and 31; OpenConfig, enrollz: `HMACChallenge`).

use super::command::policy::{Certification, by_endorsement};
use super::exchange::Exchange;
use super::policy::{AuthRole, AuthWay, auth_way};
use super::public::{attributes_of, counts_wrong_auth, name_hash_of};
use super::structures::attest::split_sized;
use super::{
    AttestationKey, AuthHandle, EndorsementKey, Hash, KeyAlgorithm, Link, ResponseCode, Tpm,
    TpmError, algorithm, command_code, flush, name_of,
};
use crate::key::{Curve, PublicKey};
use tpm2_protocol::data::TpmaObject;

/// A wrapped HMAC key, as TPM2_Import accepts it. The parts have no size fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HmacKey {
    /// The TPMT_PUBLIC of the key.
    area: Vec<u8>,
    name: Vec<u8>,
    /// The content of the TPM2B_PRIVATE: a duplicate with an outer wrapper and no inner wrapper.
    duplicate: Vec<u8>,
    /// The content of the TPM2B_ENCRYPTED_SECRET.
    seed: Vec<u8>,
}

/// The result of a certification (TPM2_Certify) by an imported HMAC key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HmacOutcome {
    /// The HMAC key certified the attestation key.
    Certified(Certification),
    /// TPM2_Import refused the HMAC key.
    NotImported(ResponseCode),
    /// The public and the private part belong to two keys. Some TPMs detect this at TPM2_Import,
    /// others at TPM2_Load.
    NotLoaded(ResponseCode),
    /// TPM2_Certify refused the empty authorisation value of the HMAC key.
    HasValue,
}

impl HmacKey {
    /// Creates the value for a wrapped key with this TPMT_PUBLIC.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the public area is not usable. The key must be a restricted HMAC
    /// key that can be imported, and that the empty authorisation value authorises.
    pub(crate) fn new(
        area: Vec<u8>,
        duplicate: Vec<u8>,
        seed: Vec<u8>,
    ) -> Result<Self, &'static str> {
        check_area(&area)?;
        let name = name_of(&area).ok_or("its nameAlg is not a known hash")?;
        Ok(Self {
            area,
            name,
            duplicate,
            seed,
        })
    }

    /// Returns the algorithm of the key for which the seed is encrypted. For RSA the seed is as
    /// long as the modulus. For a curve the seed is a point. Returns `None` if the seed has neither
    /// form.
    pub(crate) fn wrapped_for(&self) -> Option<KeyAlgorithm> {
        let point = split_sized(&self.seed)
            .and_then(|(x, rest)| Some((x, split_sized(rest)?)))
            .filter(|(_, (_, rest))| rest.is_empty());
        let longest = point.map(|(x, (y, _))| x.len().max(y.len()));
        match (self.seed.len(), longest) {
            // A TPM may omit leading zeros.
            (_, Some(1..=32)) => Some(KeyAlgorithm::Ec(Curve::P256)),
            (_, Some(33..=48)) => Some(KeyAlgorithm::Ec(Curve::P384)),
            (_, Some(49..=66)) => Some(KeyAlgorithm::Ec(Curve::P521)),
            (bytes @ (256 | 384 | 512), _) => Some(KeyAlgorithm::Rsa(8 * bytes as u32)),
            _ => None,
        }
    }

    /// Returns true if the seed can be encrypted for this key. For RSA the seed must be a number
    /// below the modulus. With a larger number some TPMs go into failure mode.
    pub(crate) fn may_be_for(&self, parent: &EndorsementKey) -> bool {
        let is_usable = match auth_way(parent.area(), AuthRole::User) {
            AuthWay::Policy(_) => true,
            // The empty value may be wrong. The value is tried only if the TPM does not count wrong
            // values for this key.
            AuthWay::Value => !counts_wrong_auth(parent.area()),
            AuthWay::UnknownPolicy => false,
        };
        let public = parent.public();
        let is_rsa = matches!(public, PublicKey::Rsa { .. });
        is_usable && (!is_rsa || public.has_below_modulus(&self.seed))
    }
}

fn check_area(area: &[u8]) -> Result<(), &'static str> {
    const HMAC: u16 = 0x0005;
    let word = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    };
    if word(area, 0) != Some(algorithm::KEYEDHASH) {
        return Err("its type is not TPM_ALG_KEYEDHASH");
    }
    if name_hash_of(area).is_none() {
        return Err("its nameAlg is not a known hash");
    }
    let (_policy, rest) = area
        .get(8..)
        .and_then(split_sized)
        .ok_or("the public area is truncated")?;
    let hash = word(rest, 2).and_then(Hash::of_algorithm);
    if word(rest, 0) != Some(HMAC) || hash.is_none() {
        return Err("its scheme is not TPM_ALG_HMAC with a known hash");
    }
    match rest.get(4..).and_then(split_sized) {
        None => return Err("the public area is truncated"),
        Some((_unique, [])) => {}
        Some(_) => return Err("the public area is followed by more bytes"),
    }
    let attributes = attributes_of(area);
    let has = |bit: TpmaObject| attributes & bit.bits() != 0;
    for (bit, why) in [
        (TpmaObject::RESTRICTED, "its attribute restricted is clear"),
        (TpmaObject::SIGN_ENCRYPT, "its attribute sign is clear"),
        (
            TpmaObject::USER_WITH_AUTH,
            "its attribute userWithAuth is clear",
        ),
        // The TPM counts wrong authorisation values for a key without noDA towards lockout.
        (TpmaObject::NO_DA, "its attribute noDA is clear"),
    ] {
        if !has(bit) {
            return Err(why);
        }
    }
    for (bit, why) in [
        (TpmaObject::DECRYPT, "its attribute decrypt is set"),
        (TpmaObject::FIXED_TPM, "its attribute fixedTPM is set"),
        (TpmaObject::FIXED_PARENT, "its attribute fixedParent is set"),
        (
            TpmaObject::ENCRYPTED_DUPLICATION,
            "its attribute encryptedDuplication is set",
        ),
    ] {
        if has(bit) {
            return Err(why);
        }
    }
    Ok(())
}

impl Link {
    /// Imports the HMAC key and certifies the attestation key. Sends up to eighteen commands. The
    /// TPM first has the endorsement key and the HMAC key loaded, then the HMAC key and the
    /// attestation key. All are flushed at the end.
    fn certify_by_hmac_key(
        &mut self,
        key: &AttestationKey,
        endorsement: &EndorsementKey,
        hmac: &HmacKey,
        qualifying: &[u8],
    ) -> Result<HmacOutcome, TpmError> {
        let handle = match self.imported(endorsement, hmac)? {
            Ok(handle) => handle,
            Err(refused) => return Ok(refused),
        };
        let certified = key.load(self).and_then(|(attesting, is_passing)| {
            let used = AuthHandle::open(attesting, key.name());
            let way = auth_way(key.area(), AuthRole::Admin(command_code::CERTIFY));
            let certified = self.by_role(used, way, None, |link, used| {
                link.certify(used, AuthHandle::open(handle, &hmac.name), qualifying)
            });
            if is_passing {
                flush(self, attesting, &certified);
            }
            certified
        });
        flush(self, handle, &certified);
        match certified {
            Ok(certification) => Ok(HmacOutcome::Certified(certification)),
            Err(TpmError::Response(code))
                if code.is_wrong_auth() && code.is_of_second_session() =>
            {
                Ok(HmacOutcome::HasValue)
            }
            Err(error) => Err(error),
        }
    }

    /// Imports and loads the HMAC key. Returns its transient handle.
    fn imported(
        &mut self,
        endorsement: &EndorsementKey,
        hmac: &HmacKey,
    ) -> Result<Result<u32, HmacOutcome>, TpmError> {
        let loaded = self.with_salt_key(endorsement.salt_key());
        let (_, parent, is_passing) = loaded.map_err(by_endorsement)?;
        let way = || auth_way(endorsement.area(), AuthRole::User);
        let used = AuthHandle::open(parent, endorsement.name());
        let imported = self.by_role(used, way(), None, |link, used| {
            link.import(used, &hmac.area, &hmac.duplicate, &hmac.seed)
        });
        let loaded = match imported {
            Ok(private) => {
                let loaded = self.by_role(used, way(), None, |link, used| {
                    link.load(used, &hmac.area, &private)
                });
                match loaded {
                    Ok((handle, name)) if name == hmac.name => Ok(Ok(handle)),
                    Ok((handle, _)) => {
                        flush(self, handle, &Ok(()));
                        Err(TpmError::WrongAnswer("the TPM loaded another key".into()))
                    }
                    Err(TpmError::Response(code)) if code.is_unsound_object() => {
                        Ok(Err(HmacOutcome::NotLoaded(code)))
                    }
                    Err(error) => Err(error),
                }
            }
            Err(TpmError::Response(code)) if code.is_of_unbound_halves() => {
                Ok(Err(HmacOutcome::NotLoaded(code)))
            }
            Err(TpmError::Response(code)) if code.is_parameter() => {
                Ok(Err(HmacOutcome::NotImported(code)))
            }
            Err(TpmError::Response(code)) if code.is_wrong_auth() => Err(TpmError::Unsupported(
                "the HMAC key is wrapped for a key that has an authorisation value".into(),
            )),
            Err(error) => Err(error),
        };
        if is_passing {
            flush(self, parent, &loaded);
        }
        loaded
    }
}

impl Tpm {
    /// Imports an HMAC key below an endorsement key. The HMAC key then certifies an attestation
    /// key, with these bytes in extraData.
    ///
    /// # Errors
    ///
    /// [`TpmError::EndorsementAuth`] if the endorsement hierarchy has an authorisation value. Also
    /// the errors of the TPM commands that do not concern the HMAC key.
    pub(crate) fn certify_by_hmac_key(
        &self,
        key: &AttestationKey,
        endorsement: &EndorsementKey,
        hmac: &HmacKey,
        qualifying: &[u8],
    ) -> Result<HmacOutcome, TpmError> {
        // After a transport fault the HMAC key is found by its name and flushed.
        self.register_flushable(&hmac.name);
        let certifying = Exchange::new("Certify by an HMAC key").needing_object_slot();
        certifying.run(self, |link| {
            link.certify_by_hmac_key(key, endorsement, hmac, qualifying)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The public area of an HMAC key as OpenConfig's attestz makes it. The digest has any value.
    fn area() -> Vec<u8> {
        let mut area = vec![0, 8, 0, 0x0B, 0, 5, 4, 0x40, 0, 0, 0, 5, 0, 0x0B, 0, 32];
        area.extend([7; 32]);
        area
    }

    fn refusal(area: Vec<u8>) -> &'static str {
        HmacKey::new(area, Vec::new(), Vec::new()).unwrap_err()
    }

    #[test]
    fn a_restricted_hmac_key_is_taken() {
        HmacKey::new(area(), Vec::new(), Vec::new()).unwrap();
    }

    #[test]
    fn each_other_attribute_is_named() {
        for (byte, bit, name) in [
            (5, 1, "restricted"),
            (5, 4, "sign"),
            (7, 0x40, "userWithAuth"),
            (6, 4, "noDA"),
            (5, 2, "decrypt"),
            (7, 2, "fixedTPM"),
            (7, 0x10, "fixedParent"),
            (6, 8, "encryptedDuplication"),
        ] {
            let mut changed = area();
            changed[byte] ^= bit;
            let why = refusal(changed);
            assert!(why.split_whitespace().any(|word| word == name), "{why}");
        }
    }

    #[test]
    fn other_areas_are_refused_in_words() {
        let whole = area();
        for end in 0..whole.len() {
            refusal(whole[..end].to_vec());
        }
        assert!(refusal([&whole[..], &[0]].concat()).contains("followed by more bytes"));
        for (at, value, word) in [(1, 1, "KEYEDHASH"), (3, 0x77, "hash"), (11, 0x10, "HMAC")] {
            let mut changed = whole.clone();
            changed[at] = value;
            assert!(refusal(changed).contains(word), "{word}");
        }
    }
}
