//! The table of mechanisms. C_GetMechanismList, C_GetMechanismInfo, CKA_ALLOWED_MECHANISMS and the
//! checks of each call read the table. `scripts/support` writes docs/SUPPORT.md from the table.

use crate::error::Error;
use crate::mechanism::digest::Digest;
use crate::mechanism::key_type::KeyType;
use crate::mechanism::params::{Parameter, Shape};
use cryptoki_sys::*;
use devid_core::key::PublicKey;
use devid_core::tpm::Hash;

/// A row of the table: one mechanism for one kind of operation. A mechanism that signs and encrypts
/// has two rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mechanism {
    /// The name of the mechanism in PKCS#11 (CKM_…).
    pub(crate) name: &'static str,
    /// The number of the mechanism (CK_MECHANISM_TYPE).
    pub(crate) kind: CK_MECHANISM_TYPE,
    /// The algorithm of the mechanism.
    pub(crate) algorithm: Algorithm,
    /// The type of key that the mechanism uses. `None`: the mechanism uses no key.
    pub(crate) key_type: Option<KeyType>,
    /// The key sizes that C_GetMechanismInfo returns.
    pub(crate) sizes: Sizes,
    /// The C type of the parameter in CK_MECHANISM.
    pub(crate) shape: Shape,
    /// The hash function that the mechanism uses.
    pub(crate) digest: Option<Digest>,
    /// The flags (CKF_…): the functions that take the mechanism, whether the TPM does the work, and
    /// the properties of the curves.
    pub(crate) flags: CK_FLAGS,
}

/// The algorithm of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// Makes a key pair of the row's key type (`template/key_pair.rs`).
    GenerateKeyPair,
    /// Signs and verifies (`sign.rs`).
    Sign(SignAlgorithm),
    /// Encrypts and decrypts (`encrypt.rs`).
    Encrypt(EncryptAlgorithm),
    /// Derives a key by Diffie-Hellman on elliptic curves (`derive.rs`).
    Derive,
    /// Makes a secret key of the row's key type (`template/secret.rs`).
    GenerateKey,
    /// Encrypts and decrypts by a secret key (`cipher/`).
    Cipher(CipherAlgorithm),
    /// Makes and checks message authentication codes by the row's digest (`mac.rs`).
    Mac,
    /// Unwraps private keys (`unwrap.rs`).
    Unwrap(UnwrapAlgorithm),
    /// Hashes by the row's digest (`digest.rs`).
    Digest,
}

/// Signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignAlgorithm {
    Ecdsa,
    /// RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2).
    Pkcs1,
    /// RSASSA-PSS (RFC 8017, section 8.1).
    Pss,
    /// RSA without padding (CKM_RSA_X_509). The algorithm decrypts as well as it signs.
    RawRsa,
}

/// Encryption algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncryptAlgorithm {
    /// RSAES-PKCS1-v1_5 (RFC 8017, section 7.2).
    Pkcs1,
    /// RSAES-OAEP (RFC 8017, section 7.1).
    Oaep,
}

/// The modes of AES for encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CipherAlgorithm {
    /// NIST SP 800-38A, section 6.1.
    Ecb,
    /// NIST SP 800-38A, section 6.2.
    Cbc,
    /// CBC with the padding of PKCS#7 (RFC 5652, section 6.3).
    CbcPad,
    /// NIST SP 800-38D.
    Gcm,
}

/// Algorithms that unwrap a wrapped key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnwrapAlgorithm {
    /// First an AES key, encrypted by RSAES-OAEP. Then the key to be unwrapped, wrapped by
    /// [`Self::Kwp`] under that AES key.
    RsaAes,
    /// KW of NIST SP 800-38F (RFC 3394).
    Kw,
    /// KWP of NIST SP 800-38F (RFC 5649).
    Kwp,
}

/// The key sizes of a mechanism: bits for EC, RSA and generic secrets, bytes for AES keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// The sizes of the token's keys, and of the keys that the token can generate. The size is 0
    /// for a mechanism without key.
    OfToken,
    /// The smallest and the largest key size.
    Range(u32, u32),
}

const PAIR: CK_FLAGS = CKF_GENERATE_KEY_PAIR;
const KEY: CK_FLAGS = CKF_GENERATE;
const SIGN: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
const ENCRYPT: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
const DERIVE: CK_FLAGS = CKF_DERIVE;
const UNWRAP: CK_FLAGS = CKF_UNWRAP;
const DIGEST: CK_FLAGS = CKF_DIGEST;
/// The flag of a mechanism that the TPM executes.
const TPM: CK_FLAGS = CKF_HW;
/// Marks a mechanism for curves over prime fields, named by their OIDs, with uncompressed points.
pub(crate) const CURVES: CK_FLAGS = CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS;

/// Makes a table row of each line. A line has a value for each column, and `-` is an absent value.
macro_rules! table {
    ($($kind:ident: $($algorithm:ident)+, $key_type:tt, $sizes:tt, $shape:tt, $digest:tt, $flags:expr;)*) => {
        /// The rows of the table, in the order in which C_GetMechanismList lists the mechanisms.
        pub(crate) const MECHANISMS: &[Mechanism] = &[$(Mechanism {
            name: stringify!($kind),
            kind: $kind,
            algorithm: table!(@algorithm $($algorithm)+),
            key_type: table!(@some KeyType $key_type),
            sizes: table!(@sizes $sizes),
            shape: table!(@shape $shape),
            digest: table!(@some Digest $digest),
            flags: $flags,
        }),*];
    };
    (@algorithm Sign $algorithm:ident) => { Algorithm::Sign(SignAlgorithm::$algorithm) };
    (@algorithm Encrypt $algorithm:ident) => { Algorithm::Encrypt(EncryptAlgorithm::$algorithm) };
    (@algorithm Cipher $algorithm:ident) => { Algorithm::Cipher(CipherAlgorithm::$algorithm) };
    (@algorithm Unwrap $algorithm:ident) => { Algorithm::Unwrap(UnwrapAlgorithm::$algorithm) };
    (@algorithm $algorithm:ident) => { Algorithm::$algorithm };
    (@some $column:ident -) => { None };
    (@some $column:ident $value:ident) => { Some($column::$value) };
    (@sizes -) => { Sizes::OfToken };
    (@sizes ($smallest:literal to $largest:literal)) => { Sizes::Range($smallest, $largest) };
    (@shape -) => { Shape::None };
    (@shape $shape:ident) => { Shape::$shape };
}

// If the column of sizes has `-`, the sizes are the sizes of the token's keys. `scripts/support`
// reads each row from its line.
table! {
    // mechanism               algorithm        key   sizes          parameter digest flags
    CKM_EC_KEY_PAIR_GEN:       GenerateKeyPair, Ec,   (256 to 521),   -,        -,      PAIR | TPM | CURVES;
    CKM_RSA_PKCS_KEY_PAIR_GEN: GenerateKeyPair, Rsa,  (2048 to 4096), -,        -,      PAIR | TPM;
    CKM_ECDSA:                 Sign Ecdsa,      Ec,   -,              -,        -,      SIGN | TPM | CURVES;
    CKM_ECDSA_SHA1:            Sign Ecdsa,      Ec,   -,              -,        Sha1,   SIGN | TPM | CURVES;
    CKM_ECDSA_SHA256:          Sign Ecdsa,      Ec,   -,              -,        Sha256, SIGN | TPM | CURVES;
    CKM_ECDSA_SHA384:          Sign Ecdsa,      Ec,   -,              -,        Sha384, SIGN | TPM | CURVES;
    CKM_ECDSA_SHA512:          Sign Ecdsa,      Ec,   -,              -,        Sha512, SIGN | TPM | CURVES;
    CKM_RSA_PKCS:              Sign Pkcs1,      Rsa,  -,              -,        -,      SIGN | TPM;
    CKM_SHA1_RSA_PKCS:         Sign Pkcs1,      Rsa,  -,              -,        Sha1,   SIGN | TPM;
    CKM_SHA256_RSA_PKCS:       Sign Pkcs1,      Rsa,  -,              -,        Sha256, SIGN | TPM;
    CKM_SHA384_RSA_PKCS:       Sign Pkcs1,      Rsa,  -,              -,        Sha384, SIGN | TPM;
    CKM_SHA512_RSA_PKCS:       Sign Pkcs1,      Rsa,  -,              -,        Sha512, SIGN | TPM;
    CKM_RSA_PKCS_PSS:          Sign Pss,        Rsa,  -,              Pss,      -,      SIGN | TPM;
    CKM_SHA256_RSA_PKCS_PSS:   Sign Pss,        Rsa,  -,              Pss,      Sha256, SIGN | TPM;
    CKM_SHA384_RSA_PKCS_PSS:   Sign Pss,        Rsa,  -,              Pss,      Sha384, SIGN | TPM;
    CKM_SHA512_RSA_PKCS_PSS:   Sign Pss,        Rsa,  -,              Pss,      Sha512, SIGN | TPM;
    CKM_RSA_X_509:             Sign RawRsa,     Rsa,  -,              -,        -,      SIGN | TPM;
    CKM_ECDH1_DERIVE:          Derive,          Ec,   -,              Ecdh,     -,      DERIVE | TPM | CURVES;
    CKM_ECDH1_COFACTOR_DERIVE: Derive,          Ec,   -,              Ecdh,     -,      DERIVE | TPM | CURVES;
    CKM_RSA_PKCS:              Encrypt Pkcs1,   Rsa,  -,              -,        -,      ENCRYPT | TPM;
    CKM_RSA_PKCS_OAEP:         Encrypt Oaep,    Rsa,  -,              Oaep,     -,      ENCRYPT | TPM;
    CKM_AES_KEY_GEN:           GenerateKey,     Aes,  (16 to 32),     -,        -,      KEY;
    CKM_AES_ECB:               Cipher Ecb,      Aes,  (16 to 32),     -,        -,      ENCRYPT;
    CKM_AES_CBC:               Cipher Cbc,      Aes,  (16 to 32),     Iv,       -,      ENCRYPT;
    CKM_AES_CBC_PAD:           Cipher CbcPad,   Aes,  (16 to 32),     Iv,       -,      ENCRYPT;
    CKM_AES_GCM:               Cipher Gcm,      Aes,  (16 to 32),     Gcm,      -,      ENCRYPT;
    CKM_GENERIC_SECRET_KEY_GEN: GenerateKey,    GenericSecret, (8 to 8192), -,  -,      KEY;
    CKM_SHA_1_HMAC:            Mac,             GenericSecret, (8 to 8192), -,  Sha1,   SIGN;
    CKM_SHA224_HMAC:           Mac,             GenericSecret, (8 to 8192), -,  Sha224, SIGN;
    CKM_SHA256_HMAC:           Mac,             GenericSecret, (8 to 8192), -,  Sha256, SIGN;
    CKM_SHA384_HMAC:           Mac,             GenericSecret, (8 to 8192), -,  Sha384, SIGN;
    CKM_SHA512_HMAC:           Mac,             GenericSecret, (8 to 8192), -,  Sha512, SIGN;
    CKM_SHA_1_HMAC_GENERAL:    Mac,             GenericSecret, (8 to 8192), CodeLength, Sha1, SIGN;
    CKM_SHA224_HMAC_GENERAL:   Mac,             GenericSecret, (8 to 8192), CodeLength, Sha224, SIGN;
    CKM_SHA256_HMAC_GENERAL:   Mac,             GenericSecret, (8 to 8192), CodeLength, Sha256, SIGN;
    CKM_SHA384_HMAC_GENERAL:   Mac,             GenericSecret, (8 to 8192), CodeLength, Sha384, SIGN;
    CKM_SHA512_HMAC_GENERAL:   Mac,             GenericSecret, (8 to 8192), CodeLength, Sha512, SIGN;
    CKM_RSA_AES_KEY_WRAP:      Unwrap RsaAes,   Rsa,  -,              RsaAes,   -,      UNWRAP | TPM;
    CKM_AES_KEY_WRAP:          Unwrap Kw,       Aes,  (16 to 32),     Initial,  -,      UNWRAP;
    CKM_AES_KEY_WRAP_KWP:      Unwrap Kwp,      Aes,  (16 to 32),     Initial,  -,      UNWRAP;
    CKM_SHA_1:                 Digest,          -,    -,              -,        Sha1,   DIGEST;
    CKM_SHA224:                Digest,          -,    -,              -,        Sha224, DIGEST;
    CKM_SHA256:                Digest,          -,    -,              -,        Sha256, DIGEST;
    CKM_SHA384:                Digest,          -,    -,              -,        Sha384, DIGEST;
    CKM_SHA512:                Digest,          -,    -,              -,        Sha512, DIGEST;
}

impl Mechanism {
    /// Returns the row of a mechanism. `call` is the flag of the PKCS#11 function, for example
    /// CKF_SIGN for C_SignInit.
    ///
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] if the function does not take the mechanism.
    pub(crate) fn find(kind: CK_MECHANISM_TYPE, call: CK_FLAGS) -> Result<&'static Self, Error> {
        let found = MECHANISMS
            .iter()
            .find(|row| row.kind == kind && row.flags & call != 0);
        found.ok_or(Error::MechanismInvalid)
    }

    /// Checks that a parameter has the shape of the mechanism.
    ///
    /// # Errors
    ///
    /// [`Error::MechanismParamInvalid`] if the parameter has another C type.
    pub(crate) fn check_shape(&self, parameter: &Parameter) -> Result<(), Error> {
        match (self.shape, parameter) {
            (Shape::None | Shape::Initial, Parameter::None)
            | (Shape::Pss, Parameter::Pss { .. })
            | (Shape::Oaep, Parameter::Oaep { .. })
            | (Shape::Ecdh, Parameter::Ecdh { .. })
            | (Shape::Initial, Parameter::Initial(_))
            | (Shape::RsaAes, Parameter::RsaAes { .. })
            | (Shape::Iv, Parameter::Iv(_))
            | (Shape::Gcm, Parameter::Gcm { .. })
            | (Shape::CodeLength, Parameter::CodeLength(_)) => Ok(()),
            _ => Err(Error::MechanismParamInvalid),
        }
    }

    /// Returns true if a public or private key has the type of the mechanism.
    pub(crate) fn takes_key(&self, key: &PublicKey) -> bool {
        self.key_type == Some(KeyType::from_public(key))
    }
}

/// Returns the hash that CKM_SHA_1, CKM_SHA256 and similar numbers name. Returns `None` if a TPM
/// cannot sign digests of that hash.
pub(crate) fn hash_of(kind: CK_MECHANISM_TYPE) -> Option<Hash> {
    Mechanism::find(kind, CKF_DIGEST).ok()?.digest?.hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_refused_and_so_is_another_mechanism() {
        for kind in [CKM_SHA_1, CKM_SHA224, CKM_SHA256, CKM_SHA384, CKM_SHA512] {
            let found = Mechanism::find(kind, CKF_DIGEST).unwrap();
            assert_eq!((found.kind, found.algorithm), (kind, Algorithm::Digest));
            assert_eq!(found.check_shape(&Parameter::None), Ok(()));
            let wrong = Err(Error::MechanismParamInvalid);
            assert_eq!(found.check_shape(&Parameter::Other), wrong);
        }
        for other in [CKM_MD5, CKM_SHA512_256, CKM_SHA3_256, CKM_SHA256_HMAC] {
            let found = Mechanism::find(other, CKF_DIGEST);
            assert_eq!(found, Err(Error::MechanismInvalid));
        }
    }

    #[test]
    fn each_row_says_one_thing() {
        for (n, row) in MECHANISMS.iter().enumerate() {
            let calls = !(CKF_HW | CURVES);
            let same =
                |other: &&Mechanism| other.kind == row.kind && other.flags & row.flags & calls != 0;
            let first = MECHANISMS.iter().position(|other| same(&other));
            assert_eq!(first, Some(n), "{row:x?}");
            let is_ec = row.key_type == Some(KeyType::Ec);
            assert_eq!(
                row.flags & CURVES,
                if is_ec { CURVES } else { 0 },
                "{row:x?}"
            );
            let expected = match row.algorithm {
                Algorithm::GenerateKeyPair => CKF_GENERATE_KEY_PAIR,
                Algorithm::GenerateKey => CKF_GENERATE,
                Algorithm::Sign(_) | Algorithm::Mac => CKF_SIGN | CKF_VERIFY,
                Algorithm::Encrypt(_) | Algorithm::Cipher(_) => CKF_ENCRYPT | CKF_DECRYPT,
                Algorithm::Derive => CKF_DERIVE,
                Algorithm::Unwrap(_) => CKF_UNWRAP,
                Algorithm::Digest => CKF_DIGEST,
            };
            assert_eq!(row.flags & calls, expected, "{row:x?}");
            // A signature mechanism whose hash the TPM does not know could not sign.
            let is_signed = matches!(row.algorithm, Algorithm::Sign(_));
            let by_tpm = row.digest.is_none_or(|digest| digest.hash().is_some());
            assert!(!is_signed || by_tpm, "{row:x?}");
        }
    }
}
