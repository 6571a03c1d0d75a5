//! Answers of an EST server: certificates (CMS, PEM, base64), and the contents that the server
//! requires in a request.
#![no_main]

use devid_core::x509::{CsrAttributes, RequestContent, certificates_of_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = certificates_of_answer(data);
    if let Ok(wishes) = CsrAttributes::parse(data) {
        let mut content = RequestContent::default();
        let _ = content.with_wishes(&wishes);
    }
});
