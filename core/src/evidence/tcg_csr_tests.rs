//! Tests of both TCG-CSR forms, of variants that other readers accept or refuse, and of bytes that
//! are no TCG-CSR.

use super::*;
use crate::evidence::verify::samples::{Kind, parts};
use crate::key::Curve;

fn bundle(curve: Curve) -> Bundle {
    let mut bundle = parts(Kind::Ec(curve)).bundle();
    bundle.device.serial = Some("SN0001".into());
    bundle.device.model = Some("EX-1000".into());
    bundle
}

fn idevid(csr: &TcgCsr) -> &IdevidContents {
    match &csr.contents {
        TcgContents::Idevid(contents) => contents,
        TcgContents::Ldevid(_) => panic!("an LDevID's"),
    }
}

/// Returns hashAlgoId, hashSz and the 13 sizes.
fn sizes(contents: &[u8], hash: usize) -> (u32, u32, Vec<u32>) {
    let at = |at| word(contents, at).unwrap();
    let sizes = (0..13).map(|field| at(3 + hash / 4 + field)).collect();
    (at(1), at(2), sizes)
}

/// The lengths come from the structure of a switch, which OpenConfig publishes as a sample. The
/// keys are P-384, and ECDSA signs with SHA-384. Attest structures have 189 bytes, signatures 104,
/// public areas 168, the EK certificate 1033. The model has 14 characters and the serial number 11.
#[test]
fn the_detached_form_has_the_shape_of_a_real_one() {
    let contents = IdevidContents {
        product_model: vec![b'M'; 14],
        product_serial: vec![b'S'; 11],
        ek_certificate: vec![0x30; 1033],
        attestation_public: [&[0, 0x23, 0, 0x0C][..], &[1; 164]].concat(),
        signing_public: [&[0, 0x23, 0, 0x0C][..], &[2; 164]].concat(),
        certify: [&[0xFF, 0x54, 0x43, 0x47][..], &[3; 185]].concat(),
        certify_signature: vec![0, 0x18, 0, 0x0C].into_iter().chain([4; 100]).collect(),
        ..IdevidContents::default()
    };
    let bytes = contents.encode(TcgCsrForm::Detached);
    assert_eq!(bytes.len(), 1808);
    let (algorithm, hash, sizes) = sizes(&bytes, 48);
    assert_eq!((algorithm, hash), (0x0C, 48));
    let expected = [14, 11, 0, 0, 1033, 168, 0, 0, 0, 168, 189, 104, 9];
    assert_eq!(sizes, expected);
    assert_eq!(bytes[bytes.len() - 9..], [0; 9]);
    let read = TcgCsr::read(&bytes).unwrap();
    assert_eq!(*idevid(&read), contents);
    assert_eq!(read.hash_is_right, Some(true));
    assert_eq!((read.signed, read.signature), (bytes, None));
}

#[test]
fn both_forms_of_a_bundle() {
    for (curve, hash) in [(Curve::P256, 32), (Curve::P384, 48), (Curve::P521, 64)] {
        let bundle = bundle(curve);
        let contents = IdevidContents::of(&bundle);
        let text = str::from_utf8(&contents.ca_data).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));

        let detached = contents.encode(TcgCsrForm::Detached);
        assert_eq!(detached.len() % 16, 0);
        let (_, size, fields) = sizes(&detached, hash);
        assert_eq!(size as usize, hash);
        assert_eq!(fields[5] as usize, bundle.attestation_key.public.len());
        assert_eq!(*idevid(&TcgCsr::read(&detached).unwrap()), contents);

        let plain = contents.encode(TcgCsrForm::Enveloped);
        let (_, size, fields) = sizes(&plain, 0);
        assert_eq!(size as usize, hash, "named, although no hash follows");
        assert_eq!(fields[5] as usize, bundle.attestation_key.public.len() + 2);
        assert_eq!(fields[12], 0);
        let payload: usize = fields.iter().map(|size| *size as usize).sum();
        assert_eq!(plain.len(), 64 + payload);
        let whole = enveloped(&plain, &[9; 70]);
        assert_eq!(&whole[..4], [1, 0, 1, 0]);
        let read = TcgCsr::read(&[&whole[..], b"more"].concat()).unwrap();
        assert_eq!(*idevid(&read), contents);
        assert_eq!(read.signature, Some(vec![9; 70]));
        assert_eq!(read.hash_is_right, None);
        assert_eq!(read.signed, plain);
    }
}

#[test]
fn ldevids() {
    let mut bundle = bundle(Curve::P256);
    bundle.attestation_key.certificates = vec![vec![0x30, 1, 0].into()];
    let contents = LdevidContents::of(&bundle);
    let bytes = contents.encode();
    assert_eq!(bytes.len() % 16, 0);
    for bytes in [bytes.clone(), enveloped(&bytes, &[9; 70])] {
        let read = TcgCsr::read(&bytes).unwrap();
        assert_eq!(read.contents, TcgContents::Ldevid(contents.clone().into()));
        assert_eq!(read.hash_is_right, Some(true));
    }
}

/// Covers padding of every length, of zeros and of other bytes.
#[test]
fn padding_of_any_kind() {
    let mut contents = IdevidContents::of(&bundle(Curve::P256));
    for more in 0..16 {
        contents.product_model = vec![b'M'; more];
        let mut bytes = contents.encode(TcgCsrForm::Detached);
        let padding = sizes(&bytes, 32).2[12] as usize;
        assert!(padding < 16);
        assert_eq!(TcgCsr::read(&bytes).unwrap().hash_is_right, Some(true));
        if padding > 0 {
            *bytes.last_mut().unwrap() = 0xA5;
            let read = TcgCsr::read(&bytes).unwrap();
            assert_eq!(*idevid(&read), contents);
            assert_eq!(read.hash_is_right, Some(false), "the padding is covered");
        }
    }
}

#[test]
fn fields_that_may_be_there() {
    let mut contents = IdevidContents::of(&bundle(Curve::P256));
    contents.boot_event_log = vec![1; 3];
    contents.creation_ticket = vec![2; 5];
    contents.creation_attest = vec![3; 7];
    contents.creation_signature = vec![4; 9];
    // A TPM without EK certificate gives the public area of the EK instead.
    contents.ek_certificate = parts(Kind::Ec(Curve::P256)).ek_area();
    for form in [TcgCsrForm::Detached, TcgCsrForm::Enveloped] {
        let bytes = contents.encode(form);
        assert_eq!(*idevid(&TcgCsr::read(&bytes).unwrap()), contents);
    }
}

#[test]
fn what_is_cut_or_longer_is_none() {
    let contents = IdevidContents::of(&bundle(Curve::P256));
    for form in [TcgCsrForm::Detached, TcgCsrForm::Enveloped] {
        let bytes = contents.encode(form);
        for end in 0..bytes.len() {
            assert!(
                TcgCsr::read(&bytes[..end]).is_err(),
                "{form:?}: {end} bytes"
            );
        }
        assert!(TcgCsr::read(&[&bytes[..], &[0]].concat()).is_err());
        // One size field is too large by one, or has the largest value.
        let start = if form == TcgCsrForm::Detached { 44 } else { 12 };
        for field in 0..13 {
            let at = start + 4 * field;
            let mut larger = bytes.clone();
            larger[at + 3] ^= 1;
            assert!(TcgCsr::read(&larger).is_err(), "{form:?}: field {field}");
            larger[at..at + 4].fill(0xFF);
            assert!(TcgCsr::read(&larger).is_err(), "{form:?}: field {field}");
        }
        let whole = enveloped(&bytes, &[9; 70]);
        for end in 0..whole.len() {
            assert!(TcgCsr::read(&whole[..end]).is_err());
        }
    }
    for wrong in [&b""[..], b"\x01\0\x01\0", b"\0\0\x02\0", &[0xFF; 64]] {
        assert!(TcgCsr::read(wrong).is_err());
    }
    assert!(TcgCsr::read(&vec![0; LARGEST + 1]).is_err());
}

/// The reader must not panic, whichever byte of the structure changes.
#[test]
fn changed_bytes_never_panic() {
    let bytes = IdevidContents::of(&bundle(Curve::P256)).encode(TcgCsrForm::Detached);
    let good = TcgCsr::read(&bytes).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(read) = TcgCsr::read(&changed) {
                assert_ne!(read.signed, good.signed);
                assert!(read.hash_is_right == Some(false), "byte {at}");
            }
        }
    }
}

/// Parses the structure of a switch and writes it again. All bytes are equal, except the random
/// padding. The statements of its attestation key pass the checks.
#[test]
#[ignore = "the sample is in the Go module of attestz: scripts/test-evidence"]
fn a_switchs_own() {
    use crate::evidence::bundle::CertifiedKey;
    use crate::evidence::verify::failures;

    let bytes = std::fs::read(std::env::var_os("DEVID_TCG_CSR").unwrap()).unwrap();
    let read = TcgCsr::read(&bytes).unwrap();
    assert_eq!(read.hash_is_right, Some(true));
    let contents = idevid(&read);
    let written = contents.encode(TcgCsrForm::Detached);
    assert_eq!(written.len(), bytes.len());
    let padding = sizes(&bytes, 48).2[12] as usize;
    let end = bytes.len() - padding;
    // The bytes after the hash field, which the hash covers together with the padding.
    assert_eq!(written[60..end], bytes[60..end]);
    let key = CertifiedKey {
        label: None,
        public: contents.signing_public.clone().into(),
        certify: contents.certify.clone().into(),
        signature: contents.certify_signature.clone().into(),
        creation_data: None,
        certificates: Vec::new(),
    };
    assert_eq!(failures(&key, &contents.attestation_public), [""; 0]);
}
