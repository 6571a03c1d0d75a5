//! Certificates as NV indices and files contain them: DER, PEM, several, truncated, padded. Each
//! certificate that is read is shown in all forms of the module and the tool.
#![no_main]

use devid_core::x509::{Certificate, Profile, RequestContent, certificates_of_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let read = Certificate::read_all(data);
    let answered = certificates_of_answer(data).unwrap_or_default();
    for certificate in read.certificates.iter().chain(&answered) {
        // A certificate that was found among other bytes must parse alone, too.
        let again = Certificate::from_der(certificate.der()).expect("it was read before");
        assert!(again == *certificate);
        let pem = Certificate::parse_all(certificate.pem().as_bytes()).expect("as PEM");
        assert!(pem == [again]);
        let _ = (
            Profile::of(certificate),
            RequestContent::renewing(certificate),
        );
        let _ = (
            certificate.public_key(),
            certificate.key_id(),
            certificate.validity(),
        );
        let _ = (
            certificate.subject(),
            certificate.issuer(),
            certificate.serial(),
        );
        let _ = (certificate.is_ca(), certificate.is_for_clients());
        let _ = (
            certificate.is_of_attestation_key(),
            certificate.is_of_registration_authority(),
        );
    }
});
