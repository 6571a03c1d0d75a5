//! Proof of possession: a signature over fresh random bytes shows that a private key belongs to a
//! public key.

use crate::key::PublicKey;
use crate::signature::{SignRequest, verify};
use crate::store::{Key, SignError};
use crate::system::random;
use crate::tpm::{Hash, SignatureScheme, Tpm};

/// The result of such a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PossessionProof {
    /// The key belongs to the public key.
    Proven,
    /// Another key signed.
    OtherKey,
    /// The key was not used: the try might count as a wrong authorisation value, and earlier failed
    /// tries still count.
    NotTried,
    /// The key gave no signature.
    NoSignature(SignError),
}

/// The text for [`PossessionProof::NotTried`].
pub(super) const NOT_TRIED: &str = "it was not asked to sign: if it has an authorisation value, \
                                    the try would count as a failed one, and failed tries count \
                                    already. Try again when the TPM has forgotten them (devid \
                                    status says when), or set the value with auth under \
                                    [[identity]] in config.toml";

/// Signs random bytes with the key and verifies the signature with `public`. Nobody can misuse the
/// signature, since the bytes are random.
pub(crate) fn prove(tpm: &Tpm, key: &Key, public: &PublicKey) -> PossessionProof {
    let mut fresh = [0; 32];
    if let Err(error) = random(&mut fresh) {
        let why = crate::tpm::TpmError::Unsupported(format!("no random bytes: {error}"));
        return PossessionProof::NoSignature(why.into());
    }
    if let Err(error) = key.prepare(tpm) {
        return PossessionProof::NoSignature(error);
    }
    // One try is allowed. A failed try counts, and no further try follows while it counts.
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

/// A scheme by which an RSA key signs.
pub(super) fn rsa_scheme(key: &Key) -> Option<SignatureScheme> {
    let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
    let pkcs1 = hashes.into_iter().map(SignatureScheme::Rsassa);
    let pss = hashes.into_iter().map(SignatureScheme::Rsapss);
    pkcs1.chain(pss).find(|scheme| key.signs(*scheme))
}
