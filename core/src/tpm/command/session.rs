//! HMAC auth sessions (Part 1, sections 17 to 19). They prove an authorisation value to the TPM
//! without sending the value over the bus. Policy sessions use the same HMACs.
//!
//! A session serves one command. Its salt is encrypted for a key of the TPM. A recording of the bus
//! therefore does not let an attacker test guessed values.

use super::kdf::{Secret, kdfa, room, share_secret};
use crate::stack::{Computation, leaving_nothing};
use crate::tpm::{Hash, SaltKey, TpmError};
use aes::Aes128;
use cfb_mode::cipher::KeyIvInit;
use cfb_mode::{Decryptor, Encryptor};
use std::fmt;
use zeroize::Zeroizing;

/// The hash of the HMAC sessions of this project. Nonces and HMACs have the width of its digests.
pub(in crate::tpm) const HASH: Hash = Hash::Sha256;
const KEY_BITS: u32 = 128;
const BLOCK_BITS: u32 = 128;

/// Attributes of a session (TPMA_SESSION; Part 2, section 8.4).
pub(in crate::tpm) const DECRYPT: u8 = 1 << 5;
pub(in crate::tpm) const ENCRYPT: u8 = 1 << 6;
/// The session authorises nothing. Its HMAC protects the response.
pub(in crate::tpm) const AUDIT: u8 = 1 << 7;
/// The TPM sets this bit if no other audit session was used in the meantime.
const AUDIT_EXCLUSIVE: u8 = 1 << 1;

/// An authorisation value, and the salt of the session that proves it.
#[derive(Clone, Default)]
pub struct AuthValue {
    value: Secret,
    pub(in crate::tpm) salt: Salt,
    /// True if the response is a secret, so that the session must encrypt it.
    pub(in crate::tpm) encrypts_response: bool,
}

/// The salt of a session. The salt prevents that a recorded proof is used to test guessed values.
#[derive(Clone, Default)]
pub(in crate::tpm) enum Salt {
    /// The session is salted to any key for salts that the TPM has.
    #[default]
    ForAny,
    /// The session is salted to this key.
    For(SaltKey),
    /// The session has no salt, because the value has too many random bits to be guessed.
    Needless,
}

impl AuthValue {
    /// Creates a value that is proven in a session salted to any suitable key.
    pub fn new(value: Secret) -> Self {
        Self {
            value,
            salt: Salt::ForAny,
            encrypts_response: false,
        }
    }

    /// Creates a value of 256 random bits, which cannot be guessed. Its proof needs no salt. A salt
    /// would cost more time than the signature itself.
    pub fn random(value: Secret) -> Self {
        Self {
            value,
            salt: Salt::Needless,
            encrypts_response: false,
        }
    }

    /// Creates a value that is proven in a session salted to a remembered key. Another TPM, or an
    /// attacker on the bus with his own key, cannot test guessed values.
    pub fn salted(value: Secret, to: SaltKey) -> Self {
        Self {
            value,
            salt: Salt::For(to),
            encrypts_response: false,
        }
    }

    /// Returns the value for a command with a secret response. The response is then encrypted on
    /// the bus, even if the value is empty. The empty value then costs one more command.
    pub(crate) fn encrypting_response(self) -> Self {
        Self {
            encrypts_response: true,
            ..self
        }
    }

    /// Returns the bytes of the value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.value
    }

    /// Returns the authorisation value for sessions that are salted to this key.
    pub fn salted_to(self, key: SaltKey) -> Self {
        Self {
            salt: Salt::For(key),
            ..self
        }
    }

    /// Returns true if the authorisation value is empty.
    pub fn is_empty(&self) -> bool {
        self.value.is_empty()
    }
}

impl fmt::Debug for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthValue(…)")
    }
}

/// Returns true if the response has the session attributes that the command requested. `decrypt` is
/// ignored: some TPMs repeat this attribute in the response, others do not.
pub(in crate::tpm) fn answers_attributes(asked: u8, given: u8) -> bool {
    let own = match asked & AUDIT {
        0 => 0,
        _ => AUDIT_EXCLUSIVE,
    };
    (asked ^ (given | asked & DECRYPT)) & !own == 0
}

/// The inputs of TPM2_StartAuthSession.
pub(in crate::tpm) struct StartAuthSession {
    pub(in crate::tpm) nonce: Secret,
    salt: Secret,
    /// The salt, encrypted for the TPM. Empty if the session has no salt.
    pub(in crate::tpm) encrypted_salt: Vec<u8>,
    pub(in crate::tpm) hash: Hash,
}

impl StartAuthSession {
    /// Creates the inputs of TPM2_StartAuthSession. `hash` is the hash of the session.
    pub(in crate::tpm) fn new(salted_to: Option<&SaltKey>, hash: Hash) -> Result<Self, TpmError> {
        let (salt, encrypted_salt) = match salted_to {
            Some(key) => share_secret(&key.public, key.hash, "SECRET")?,
            None => (Secret::default(), Vec::new()),
        };
        Ok(Self {
            nonce: super::kdf::random_secret(hash.width())?,
            salt,
            encrypted_salt,
            hash,
        })
    }

    /// Returns the session that the TPM started, for an entity with this authorisation value.
    pub(in crate::tpm) fn session(
        self,
        handle: u32,
        nonce_tpm: Vec<u8>,
        value: &[u8],
    ) -> AuthSession {
        let hash = self.hash;
        let bits = 8 * hash.width() as u32;
        let mut key = room(hash.width() + value.len());
        if !self.salt.is_empty() {
            let salted = kdfa(hash, &self.salt, "ATH", &nonce_tpm, &self.nonce, bits);
            key.extend_from_slice(&salted);
        }
        // The TPM removes trailing zeros of authorisation values (Part 1, section 19.6.4.3).
        let zeros = value.iter().rev().take_while(|&&byte| byte == 0).count();
        key.extend_from_slice(&value[..value.len() - zeros]);
        AuthSession {
            handle,
            key,
            nonce_caller: self.nonce,
            nonce_tpm,
            hash,
            is_policy: false,
        }
    }
}

/// A session for one command.
#[derive(Clone)]
pub(in crate::tpm) struct AuthSession {
    pub(in crate::tpm) handle: u32,
    /// The hash of the HMACs and keys of the session.
    pub(in crate::tpm) hash: Hash,
    /// True for a policy session. The HMACs of a policy session without salt are empty.
    pub(in crate::tpm) is_policy: bool,
    /// The session key, followed by the authorisation value of the entity.
    key: Secret,
    nonce_caller: Secret,
    nonce_tpm: Vec<u8>,
}

impl AuthSession {
    /// Generates a new nonceCaller for the next command, and returns the nonce.
    pub(in crate::tpm) fn next_nonce(&mut self) -> Result<&[u8], TpmError> {
        self.nonce_caller = super::kdf::random_secret(self.hash.width())?;
        Ok(&self.nonce_caller)
    }

    fn proves_nothing(&self) -> bool {
        self.is_policy && self.key.is_empty()
    }

    /// Returns the HMAC over a command: its code, the names of its entities, its parameters.
    pub(in crate::tpm) fn command_hmac(
        &self,
        code: u32,
        names: &[&[u8]],
        parameters: &[u8],
        attributes: u8,
    ) -> Secret {
        if self.proves_nothing() {
            return Secret::default();
        }
        let code = code.to_be_bytes();
        let mut parts = vec![&code[..]];
        parts.extend(names);
        parts.push(parameters);
        let command = self.hash.digest(&parts);
        let parts = [
            &command[..],
            &self.nonce_caller,
            &self.nonce_tpm,
            &[attributes],
        ];
        self.hash.hmac(&self.key, &parts)
    }

    /// Returns true if the HMAC of a successful response is correct.
    pub(in crate::tpm) fn verifies_response(
        &mut self,
        code: u32,
        parameters: &[u8],
        nonce_tpm: &[u8],
        attributes: u8,
        hmac: &[u8],
    ) -> bool {
        self.nonce_tpm = nonce_tpm.to_vec();
        if self.proves_nothing() {
            return hmac.is_empty();
        }
        let response = self
            .hash
            .digest(&[&[0; 4], &code.to_be_bytes(), parameters]);
        let parts = [
            &response[..],
            &self.nonce_tpm,
            &self.nonce_caller,
            &[attributes],
        ];
        self.hash.hmac_is(&self.key, &parts, hmac)
    }

    /// Encrypts the content of a command's first parameter, a TPM2B (Part 1, section 21).
    pub(in crate::tpm) fn encrypt(&self, parameters: &mut [u8]) -> Result<(), TpmError> {
        let (key, iv) = self.mask(&self.nonce_caller, &self.nonce_tpm);
        let content = first_content(parameters)?;
        let cipher = || Encryptor::<Aes128>::new_from_slices(&key, &iv);
        leaving_nothing(Computation::Cipher, || {
            cipher().map(|cipher| cipher.encrypt(content))
        })
        .map_err(|_| TpmError::Unsupported("AES-128-CFB".into()))
    }

    /// Decrypts the first parameter of a response. The caller must call
    /// [`AuthSession::verifies_response`] before.
    pub(in crate::tpm) fn decrypt(&self, parameters: &mut [u8]) -> Result<(), TpmError> {
        let (key, iv) = self.mask(&self.nonce_tpm, &self.nonce_caller);
        let content = first_content(parameters)?;
        let cipher = || Decryptor::<Aes128>::new_from_slices(&key, &iv);
        leaving_nothing(Computation::Cipher, || {
            cipher().map(|cipher| cipher.decrypt(content))
        })
        .map_err(|_| TpmError::Unsupported("AES-128-CFB".into()))
    }

    fn mask(&self, newer: &[u8], older: &[u8]) -> (Secret, Secret) {
        let bits = KEY_BITS + BLOCK_BITS;
        let mut key = kdfa(self.hash, &self.key, "CFB", newer, older, bits);
        let iv = key.split_off(KEY_BITS as usize / 8);
        (key, Zeroizing::new(iv))
    }
}

/// Returns the content of the TPM2B at the beginning of the parameters.
fn first_content(parameters: &mut [u8]) -> Result<&mut [u8], TpmError> {
    let short = || TpmError::WrongAnswer("a parameter is shorter than its size field says".into());
    let (size, rest) = parameters.split_first_chunk_mut().ok_or_else(short)?;
    rest.get_mut(..usize::from(u16::from_be_bytes(*size)))
        .ok_or_else(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::key::PublicKey;

    const START_AUTH_SESSION: u32 = 0x176;
    use crate::tpm::command_code::CREATE;
    use crate::tpm::handle::LOADED_SESSION as HMAC_SESSION;

    fn bytes(hex: &str) -> Vec<u8> {
        let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(pair).collect()
    }

    fn word(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(bytes[..4].try_into().unwrap())
    }

    /// Returns the content of a TPM2B, and the bytes that follow.
    fn content(bytes: &[u8]) -> (&[u8], &[u8]) {
        let size = u16::from_be_bytes(bytes[..2].try_into().unwrap());
        bytes[2..].split_at(size.into())
    }

    /// Returns the nonce, attributes and HMAC of an authorisation, and the bytes that follow.
    fn authorisation(bytes: &[u8]) -> (&[u8], u8, &[u8], &[u8]) {
        let (nonce, rest) = content(bytes);
        let (hmac, after) = content(&rest[1..]);
        (nonce, rest[0], hmac, after)
    }

    /// Part 2, section 8.4.
    #[test]
    fn attributes_are_those_of_the_standard() {
        let all = [AUDIT_EXCLUSIVE, DECRYPT, ENCRYPT, AUDIT];
        assert_eq!(all, [0x02, 0x20, 0x40, 0x80]);
    }

    #[test]
    fn a_value_knows_its_salt_and_shows_nothing() {
        let value = || Zeroizing::new(b"value".to_vec());
        let any = AuthValue::new(value());
        assert_eq!(any.as_bytes(), b"value");
        assert!(!any.is_empty() && AuthValue::default().is_empty());
        assert!(matches!(any.salt, Salt::ForAny) && !any.encrypts_response);
        assert!(matches!(AuthValue::random(value()).salt, Salt::Needless));
        let encrypting = AuthValue::random(value()).encrypting_response();
        assert!(encrypting.encrypts_response && matches!(encrypting.salt, Salt::Needless));
        let exponent = vec![1, 0, 1];
        let modulus = vec![0xFF; 256];
        let public = PublicKey::Rsa { modulus, exponent };
        let key = SaltKey::in_handle(1, &public, HASH, &[7]);
        let is_for = |value: &AuthValue| matches!(&value.salt, Salt::For(found) if *found == key);
        let salted = AuthValue::salted(value(), key.clone());
        assert!(is_for(&salted) && salted.as_bytes() == b"value");
        let salted = any.encrypting_response().salted_to(key.clone());
        assert!(is_for(&salted) && salted.encrypts_response && salted.as_bytes() == b"value");
        assert_eq!(format!("{salted:?}"), "AuthValue(…)");
    }

    /// Part 1, section 19.6.4.3: zeros at the end of a value do not count.
    #[test]
    fn a_session_without_salt_has_the_value_as_key() {
        let start = || StartAuthSession::new(None, HASH).unwrap();
        let session = |value: &[u8]| start().session(HMAC_SESSION, vec![1], value);
        assert_eq!(session(&[0, 1, 2, 0, 0]).key[..], [0, 1, 2]);
        assert!(session(&[0, 0]).key.is_empty());
        let mut session = session(b"value");
        let nonce = session.next_nonce().unwrap().to_vec();
        assert_eq!((nonce.len(), &nonce), (32, &session.nonce_caller.to_vec()));
        assert_ne!(session.next_nonce().unwrap(), nonce);
    }

    /// Part 1, section 19.6.8: the digest of KDFa comes before the authorisation value.
    #[test]
    fn a_session_with_salt_has_a_key_as_wide_as_its_hash() {
        use crate::key::Curve;
        let scalar = crate::tpm::command::kdf::random_scalar(Curve::P256).unwrap();
        let public = Curve::P256.public_of(&scalar).unwrap();
        let key = SaltKey::in_handle(1, &public, HASH, &[7]);
        let start = StartAuthSession::new(Some(&key), HASH).unwrap();
        let session = start.session(HMAC_SESSION, vec![1], b"value");
        assert_eq!(session.key.len(), HASH.width() + b"value".len());
    }

    /// Part 1, section 21: the mask of a response swaps the nonces.
    #[test]
    fn a_parameter_is_encrypted_for_the_side_with_the_other_nonce() {
        let start = StartAuthSession::new(None, HASH).unwrap();
        let session = start.session(HMAC_SESSION, vec![1; 32], b"value");
        let mut parameters = [0, 3, 7, 8, 9, 10];
        session.encrypt(&mut parameters).unwrap();
        let content = &parameters[2..5];
        assert_ne!(content, [7, 8, 9]);
        assert_eq!((&parameters[..2], parameters[5]), (&[0, 3][..], 10));
        let other = AuthSession {
            nonce_caller: Zeroizing::new(session.nonce_tpm.clone()),
            nonce_tpm: session.nonce_caller.to_vec(),
            ..session
        };
        other.decrypt(&mut parameters).unwrap();
        assert_eq!(parameters, [0, 3, 7, 8, 9, 10]);
    }

    /// A policy session without a key has empty HMACs; another session never has.
    #[test]
    fn only_a_policy_session_without_key_proves_nothing() {
        for (is_policy, value) in [(true, &b""[..]), (true, b"value"), (false, b"")] {
            let start = StartAuthSession::new(None, HASH).unwrap();
            let mut session = start.session(HMAC_SESSION, vec![1], value);
            session.is_policy = is_policy;
            let empty = is_policy && value.is_empty();
            assert_eq!(session.command_hmac(CREATE, &[], b"", 0).is_empty(), empty);
            let takes_none = session.verifies_response(CREATE, b"", b"", 0, b"");
            assert_eq!(takes_none, empty);
            assert!(!session.verifies_response(CREATE, b"", b"", 0, &[0; 32]));
        }
    }

    #[test]
    fn a_parameter_that_is_shorter_than_its_size_is_refused() {
        let whole: &mut [u8] = &mut [0, 2, 7, 8, 9];
        assert_eq!(first_content(whole).unwrap(), [7, 8]);
        for short in [&mut [][..], &mut [0], &mut [0, 2, 7]] {
            assert!(first_content(short).is_err(), "{short:?}");
        }
    }

    #[test]
    fn a_response_has_the_attributes_that_were_asked_for() {
        for asked in [0, DECRYPT, ENCRYPT, DECRYPT | ENCRYPT, AUDIT] {
            for given in 0..=u8::MAX {
                let is_same = given == asked || given == asked & !DECRYPT;
                let is_exclusive = asked == AUDIT && given == AUDIT | AUDIT_EXCLUSIVE;
                let answers = answers_attributes(asked, given);
                assert_eq!(answers, is_same || is_exclusive, "{asked:#x} {given:#x}");
            }
        }
    }

    /// Replays recorded auth sessions of ESAPI without salt. This project computes the same HMACs
    /// and encrypted parameters as ESAPI and the TPM.
    #[test]
    fn proofs_and_ciphers_are_those_of_esapi() {
        let mut lines = include_str!("vectors/esapi-sessions.txt").lines();
        let (mut root, mut name) = (Vec::new(), Vec::new());
        let (mut began, mut opened) = (Vec::new(), Vec::new());
        let mut proofs = 0;
        while let Some(line) = lines.next() {
            let (kind, rest) = line.split_once(' ').unwrap();
            if kind == "=" {
                let (step, gave) = rest.split_once(": ").unwrap();
                match step {
                    "root" => root = bytes(gave),
                    "key" | "seal" => name = bytes(gave),
                    "unseal" => assert_eq!(opened, bytes(gave)),
                    _ => {}
                }
                continue;
            }
            let command = bytes(rest);
            let answer = bytes(lines.next().unwrap().strip_prefix("< ").unwrap());
            let code = word(&command[6..]);
            if code == START_AUTH_SESSION {
                began = content(&answer[14..]).0.to_vec();
            }
            if command[..2] != [0x80, 2] || word(&command[18..]) != HMAC_SESSION {
                continue;
            }
            if code == CREATE {
                name.clone_from(&root);
            }
            let (nonce, attributes, hmac, parameters) = authorisation(&command[22..]);
            let value: &[u8] = if code == CREATE { b"" } else { b"value" };
            let mut session = AuthSession {
                handle: HMAC_SESSION,
                key: Zeroizing::new(value.to_vec()),
                nonce_caller: Zeroizing::new(nonce.to_vec()),
                nonce_tpm: began.clone(),
                hash: HASH,
                is_policy: false,
            };
            let ours = session.command_hmac(code, &[&name], parameters, attributes);
            assert_eq!(ours[..], *hmac, "command {code:#x}");
            let (body, end) = answer[14..].split_at(word(&answer[10..]) as usize);
            let (nonce, attributes, hmac, _) = authorisation(end);
            assert!(session.verifies_response(code, body, nonce, attributes, hmac));
            let mut body = body.to_vec();
            if attributes & ENCRYPT != 0 {
                session.decrypt(&mut body).unwrap();
                opened = content(&body).0.to_vec();
            }
            proofs += 1;
        }
        assert_eq!(proofs, 4);
    }
}
