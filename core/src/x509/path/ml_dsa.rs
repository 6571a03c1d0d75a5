//! Verification of ML-DSA signatures (FIPS 204) in certificates and CRLs (RFC 9881).

use ml_dsa::pkcs8::spki::{AssociatedAlgorithmIdentifier, SubjectPublicKeyInfoRef};
use ml_dsa::signature::Verifier;
use ml_dsa::{MlDsa44, MlDsa65, MlDsa87, MlDsaParams, Signature, VerifyingKey};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// A parameter set of ML-DSA. A key and its signatures have one identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterSet {
    MlDsa44,
    MlDsa65,
    MlDsa87,
}

impl ParameterSet {
    const ALL: [Self; 3] = [Self::MlDsa44, Self::MlDsa65, Self::MlDsa87];

    /// Returns the object identifier of this parameter set (RFC 9881, section 2).
    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::MlDsa44 => MlDsa44::ALGORITHM_IDENTIFIER.oid,
            Self::MlDsa65 => MlDsa65::ALGORITHM_IDENTIFIER.oid,
            Self::MlDsa87 => MlDsa87::ALGORITHM_IDENTIFIER.oid,
        }
    }

    /// Returns the parameter set with an object identifier.
    pub(super) fn by_oid(oid: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.oid() == oid)
    }

    /// Returns the parameter set that an AlgorithmIdentifier names. The AlgorithmIdentifier must
    /// have no parameters (RFC 9881, section 3).
    pub(super) fn of(algorithm: &AlgorithmIdentifierOwned) -> Option<Self> {
        Self::by_oid(algorithm.oid).filter(|_| algorithm.parameters.is_none())
    }

    /// Verifies a signature over `data` with the ML-DSA key in a SubjectPublicKeyInfo, with an
    /// empty context. Returns false for keys of other algorithms.
    pub(super) fn verifies(self, info: &[u8], data: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::MlDsa44 => verifies::<MlDsa44>(info, data, signature),
            Self::MlDsa65 => verifies::<MlDsa65>(info, data, signature),
            Self::MlDsa87 => verifies::<MlDsa87>(info, data, signature),
        }
    }
}

fn verifies<P>(info: &[u8], data: &[u8], signature: &[u8]) -> bool
where
    P: MlDsaParams + AssociatedAlgorithmIdentifier<Params = AnyRef<'static>>,
{
    let info = SubjectPublicKeyInfoRef::from_der(info).ok();
    let key = info.and_then(|info| VerifyingKey::<P>::try_from(info).ok());
    let signature = Signature::<P>::try_from(signature);
    key.is_some_and(|key| signature.is_ok_and(|signature| key.verify(data, &signature).is_ok()))
}
