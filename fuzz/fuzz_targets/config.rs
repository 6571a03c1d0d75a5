//! Configuration files, TCTI strings and PKCS#11 URIs. An error message must be a sentence that
//! names the file.
#![no_main]

use devid_core::tpm::Tcti;
use devid_core::uri::Uri;
use devid_fuzz::host;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match host::loaded(data).config {
        Ok(config) => {
            let _ = (config.warnings().count(), format!("{config:?}"));
        }
        Err(fault) => {
            let said = fault.to_string();
            assert!(said.contains("config.toml"), "{said}");
            assert!(!said.contains('\u{1b}'), "an escape character for a terminal: {said:?}");
        }
    }
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(tcti) = text.parse::<Tcti>() {
        let _ = (tcti.to_string(), tcti.is_managed());
    }
    if let Ok(uri) = Uri::parse(text) {
        let _ = (
            uri.for_new_key(),
            uri.names_object(),
            uri.matches_token(&["devid"]),
        );
        let _ = uri.matches_object("devid", &[1, 2]);
    }
});
