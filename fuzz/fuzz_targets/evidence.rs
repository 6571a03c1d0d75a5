//! The inputs that a CA receives from a device, and a device from a CA: evidence bundles,
//! challenges, responses, TCG-CSR.
#![no_main]

use devid_core::evidence::tcg_csr::TcgCsr;
use devid_core::evidence::{Bundle, Challenge, Response, is_of_tools, nonce_of, webauthn};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(bundle) = Bundle::from_json(data) {
        let again = bundle.to_json().expect("what was read");
        assert!(Bundle::from_json(again.as_bytes()).is_ok_and(|read| read == bundle));
        let _ = webauthn::attestation_object(&bundle);
    }
    if let Ok(challenge) = Challenge::from_json(data) {
        let _ = challenge.to_json();
    }
    if let Ok(response) = Response::from_json(data) {
        let _ = response.to_json();
    }
    let _ = TcgCsr::read(data);
    let _ = is_of_tools(data);
    let _ = str::from_utf8(data).map(nonce_of);
});
