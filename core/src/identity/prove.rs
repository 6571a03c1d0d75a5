//! Proof of possession: a signature over random bytes shows that a private key belongs to a public
//! key.

use crate::key::PublicKey;
use crate::signature::{SignRequest, verify};
use crate::store::{Key, SignError};
use crate::system::random;
use crate::tpm::{Hash, SignatureScheme, Tpm};

/// The result of a proof of possession.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PossessionProof {
    /// The private key made a signature that the public key verifies.
    Proven,
    /// Another private key made the signature.
    OtherKey,
    /// The key was not used. Its use might count as a failed try of an authorisation value, and the
    /// TPM still counts earlier failed tries.
    NotTried,
    /// The private key made no signature. The value is the error.
    NoSignature(SignError),
}

/// The message for [`PossessionProof::NotTried`].
pub(super) const NOT_TRIED: &str = "the key was not used: if it has an authorisation value, a use \
                                    would count as a failed try, and the TPM already counts failed \
                                    tries. Wait until the TPM forgets them (devid status prints \
                                    when), or set auth under [[identity]] in config.toml";

/// Signs random bytes with the key, and verifies the signature with `public`. Such a signature is
/// useless to an attacker.
pub(crate) fn prove(tpm: &Tpm, key: &Key, public: &PublicKey) -> PossessionProof {
    let mut fresh = [0; 32];
    if let Err(error) = random(&mut fresh) {
        let why =
            crate::tpm::TpmError::Unsupported(format!("the system gives no random bytes: {error}"));
        return PossessionProof::NoSignature(why.into());
    }
    if let Err(error) = key.prepare(tpm) {
        return PossessionProof::NoSignature(error);
    }
    // One try of the empty authorisation value is permitted. While the TPM counts a failed try,
    // devid makes no further try.
    if key.supposes_empty_value()
        && let Ok(lockout) = tpm.lockout()
        && (lockout.counter > 0 || lockout.tries_left() == 1)
        && lockout.tries_left() > 0
    {
        return PossessionProof::NotTried;
    }
    let scheme = match public {
        PublicKey::Ec { .. } => Some(SignatureScheme::Ecdsa(Hash::Sha256)),
        PublicKey::Rsa { .. } => rsa_scheme(key),
    };
    let Some(scheme) = scheme else {
        return PossessionProof::NoSignature(SignError::Scheme);
    };
    let digest = scheme.hash().digest(&[&fresh]);
    let request = SignRequest::of(scheme, &digest);
    match key.sign(tpm, request) {
        Ok(signature) if verify(public, request, &signature) => PossessionProof::Proven,
        Ok(_) => PossessionProof::OtherKey,
        Err(error) => PossessionProof::NoSignature(error),
    }
}

/// Returns a signature scheme that the RSA key supports.
pub(super) fn rsa_scheme(key: &Key) -> Option<SignatureScheme> {
    let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
    let pkcs1 = hashes.into_iter().map(SignatureScheme::Rsassa);
    let pss = hashes.into_iter().map(SignatureScheme::Rsapss);
    pkcs1.chain(pss).find(|scheme| key.signs(*scheme))
}
