//! Creates a JWS in the general JSON serialisation (RFC 7515, section 7.2.1), with algorithms of
//! RFC 7518.

use super::MessageSigner;
use crate::key::{Curve, PublicKey};
use crate::tpm::{Hash, SignatureScheme};
use crate::x509::IssueError;
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value, json};

/// Returns a JWS with one signature. The parameter `x5c` of its protected header holds the signer's
/// certificates.
pub(super) fn general_json<E: From<IssueError>>(
    signer: &MessageSigner<'_, E>,
    content: &[u8],
    typ: Option<&str>,
    detached: bool,
) -> Result<Vec<u8>, E> {
    let mut header = Map::new();
    header.insert("alg".into(), algorithm(signer)?.into());
    if let Some(typ) = typ {
        header.insert("typ".into(), typ.into());
    }
    signer.certificate()?;
    let chain = signer.chain.iter();
    let chain: Vec<String> = chain.map(|one| Base64::encode_string(one.der())).collect();
    header.insert("x5c".into(), chain.into());

    let header = Base64UrlUnpadded::encode_string(Value::Object(header).to_string().as_bytes());
    let payload = Base64UrlUnpadded::encode_string(content);
    let signature = (signer.sign)(format!("{header}.{payload}").as_bytes())?;
    let mut document = Map::new();
    if !detached {
        document.insert("payload".into(), payload.into());
    }
    let signature = Base64UrlUnpadded::encode_string(&signature);
    let signatures = json!([{ "protected": header, "signature": signature }]);
    document.insert("signatures".into(), signatures);
    Ok(format!("{}\n", Value::Object(document)).into_bytes())
}

/// Returns the JWS `alg` value for the signer's key (RFC 7518, section 3.1). For ECDSA, each curve
/// has one hash.
fn algorithm<E>(signer: &MessageSigner<'_, E>) -> Result<&'static str, IssueError> {
    let curve = match signer.public {
        PublicKey::Ec { curve, .. } => Some(*curve),
        PublicKey::Rsa { .. } => None,
    };
    match (signer.scheme, curve) {
        (SignatureScheme::Ecdsa(Hash::Sha256), Some(Curve::P256)) => Ok("ES256"),
        (SignatureScheme::Ecdsa(Hash::Sha384), Some(Curve::P384)) => Ok("ES384"),
        (SignatureScheme::Ecdsa(Hash::Sha512), Some(Curve::P521)) => Ok("ES512"),
        (SignatureScheme::Rsassa(Hash::Sha256), None) => Ok("RS256"),
        (SignatureScheme::Rsassa(Hash::Sha384), None) => Ok("RS384"),
        (SignatureScheme::Rsassa(Hash::Sha512), None) => Ok("RS512"),
        (SignatureScheme::Rsapss(Hash::Sha256), None) => Ok("PS256"),
        (SignatureScheme::Rsapss(Hash::Sha384), None) => Ok("PS384"),
        (SignatureScheme::Rsapss(Hash::Sha512), None) => Ok("PS512"),
        (scheme, _) => Err(IssueError::Failed(format!(
            "JWS has no name for {scheme} with this key (RFC 7518, section 3.1); use --cms instead"
        ))),
    }
}
