//! Evidence inside a certificate request (draft-ietf-lamps-csr-attestation). The draft may change:
//! an appendix that was withdrawn defined the statement of TPM2_Certify.

use super::bundle::Bundle;
use crate::ber::{OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, encoded};
use crate::oid::{ATTESTATION_ATTRIBUTE, TCG_ATTEST_TPM_CERTIFY};
use crate::x509::RequestContent;

impl Bundle {
    /// Returns the content of a request with the added attribute id-aa-attestation. The attribute
    /// holds one statement about the key. If the attestation key has certificates, the attribute
    /// holds them too.
    #[must_use]
    pub fn within(&self, content: RequestContent) -> RequestContent {
        content.with_attribute(ATTESTATION_ATTRIBUTE, self.attestation_bundle())
    }

    /// Returns an AttestationBundle in DER. It contains TPMS_ATTEST, TPMT_SIGNATURE and
    /// TPMT_PUBLIC, each without a size field.
    fn attestation_bundle(&self) -> Vec<u8> {
        let key = &self.key;
        let parts = [&key.certify, &key.signature, &key.public];
        let parts = parts.map(|part| encoded(OCTET_STRING, part)).concat();
        let kind = encoded(OBJECT_IDENTIFIER, TCG_ATTEST_TPM_CERTIFY.as_bytes());
        let statement = encoded(SEQUENCE, &[kind, encoded(SEQUENCE, &parts)].concat());
        let mut bundle = encoded(SEQUENCE, &statement);
        let certificates = &self.attestation_key.certificates;
        if !certificates.is_empty() {
            let all: Vec<u8> = certificates.iter().flat_map(|one| one.to_vec()).collect();
            bundle.extend(encoded(SEQUENCE, &all));
        }
        encoded(SEQUENCE, &bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ber::Element;
    use crate::evidence::verify::samples::{AK_PURPOSE, Kind, leaf, parts};
    use crate::key::Curve;

    #[test]
    fn the_statement_holds_bare_structures_and_the_certificates_of_the_signer() {
        let mut parts = parts(Kind::Ec(Curve::P256));
        for certificates in [0, 1] {
            if certificates == 1 {
                parts.ak_certificate = Some(leaf("CN=ak", Some(AK_PURPOSE)));
            }
            let bundle = parts.bundle();
            let der = bundle.attestation_bundle();
            let members = Element::only(&der).unwrap().children_of(SEQUENCE).unwrap();
            assert_eq!(members.len(), 1 + certificates);
            let statement = members[0].children_of(SEQUENCE).unwrap();
            let [kind, structures] = &statement[0].children().unwrap()[..] else {
                panic!("a type and a statement");
            };
            assert_eq!(kind.whole, b"\x06\x05\x67\x81\x05\x14\x01".as_slice());
            let structures = structures.children().unwrap();
            let found: Vec<&[u8]> = structures.iter().map(|one| one.content).collect();
            let key = &bundle.key;
            assert_eq!(found, [&key.certify[..], &key.signature, &key.public]);
            let there = members.get(1).map(|all| all.content);
            let expected = bundle.attestation_key.certificates.first();
            assert_eq!(there, expected.map(|one| &one[..]));
        }
    }
}
