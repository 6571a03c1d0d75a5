//! Creates CMS SignedData (RFC 5652, section 5) with one signer.

use super::MessageSigner;
use crate::ber::{INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, encoded};
use crate::x509::IssueError;
use crate::x509::algorithms::{digest_algorithm, signature_algorithm};
use x509_cert::der::Encode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5911::{
    ID_CONTENT_TYPE, ID_DATA, ID_MESSAGE_DIGEST, ID_SIGNED_DATA,
};

/// The identifier octet of the constructed tag `[0]`. For tag `[n]`, add n (n at most 30).
const CONTEXT: u8 = 0xA0;

/// Returns a ContentInfo with SignedData, in DER. It has only the two mandatory signed attributes:
/// content type and message digest. It has no signing time, because a device may not know the time.
pub(super) fn signed_data<E: From<IssueError>>(
    signer: &MessageSigner<'_, E>,
    content: &[u8],
    content_type: ObjectIdentifier,
    detached: bool,
) -> Result<Vec<u8>, E> {
    let hash = signer.scheme.hash();
    let attributes = set(&[
        attribute(ID_CONTENT_TYPE, &oid(content_type)),
        attribute(
            ID_MESSAGE_DIGEST,
            &encoded(OCTET_STRING, &hash.digest(&[content])),
        ),
    ]);
    // The signature covers the attributes as a SET. In SignedData the attributes have the tag `[0]`
    // instead (RFC 5652, section 5.4).
    let signature = signer.signature_der(&encoded(SET, &attributes))?;
    let certificate = signer.certificate()?;
    let signer_info = sequence(&[
        integer(1),
        sequence(&[
            certificate.issuer_der().to_vec(),
            certificate.serial_der().to_vec(),
        ]),
        sequence(&[oid(digest_algorithm(hash))]),
        encoded(CONTEXT, &attributes),
        signature_algorithm(signer.scheme)
            .and_then(|algorithm| algorithm.to_der())
            .map_err(|error| IssueError::Failed(format!("CMS: {error}")))?,
        encoded(OCTET_STRING, &signature),
    ]);
    let encapsulated = match detached {
        true => sequence(&[oid(content_type)]),
        false => sequence(&[
            oid(content_type),
            encoded(CONTEXT, &encoded(OCTET_STRING, content)),
        ]),
    };
    let certificates: Vec<Vec<u8>> = signer.chain.iter().map(|one| one.der().to_vec()).collect();
    let signed = sequence(&[
        integer(if content_type == ID_DATA { 1 } else { 3 }),
        encoded(SET, &sequence(&[oid(digest_algorithm(hash))])),
        encapsulated,
        encoded(CONTEXT, &set(&certificates)),
        encoded(SET, &signer_info),
    ]);
    Ok(sequence(&[oid(ID_SIGNED_DATA), encoded(CONTEXT, &signed)]))
}

/// Returns the content octets of a SET OF, with its elements in DER order (X.690, section 11.6).
fn set(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut sorted = elements.to_vec();
    sorted.sort();
    sorted.concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    encoded(SEQUENCE, &parts.concat())
}

fn attribute(kind: ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    sequence(&[oid(kind), encoded(SET, value)])
}

fn oid(identifier: ObjectIdentifier) -> Vec<u8> {
    encoded(OBJECT_IDENTIFIER, identifier.as_bytes())
}

/// Returns a DER INTEGER. The value must be less than 128.
fn integer(value: u8) -> Vec<u8> {
    encoded(INTEGER, &[value])
}
