use super::*;

const LEAF: &[u8] = include_bytes!("../../testdata/leaf.pem");
const CA: &[u8] = include_bytes!("../../testdata/ca.pem");

fn one(pem: &[u8]) -> Certificate {
    Certificate::parse_all(pem).unwrap().remove(0)
}

#[test]
fn what_a_certificate_says() {
    let (leaf, ca) = (one(LEAF), one(CA));
    assert!(!leaf.is_authority() && ca.is_authority());
    assert_eq!(leaf.issuer_der(), ca.subject_der());
    assert_eq!(
        leaf.subject(),
        "SERIALNUMBER=SN-000001,CN=Example-1000,O=Example Devices"
    );
    assert_eq!(
        leaf.validity().1,
        Some(Day {
            year: 9999,
            month: 12,
            day: 31
        })
    );
    let key = leaf.public_key().unwrap();
    assert_eq!(key.id(), leaf.key_id());
    assert!(
        leaf.public_key_info_der()
            .ends_with(&key.subject_public_key())
    );
    assert_eq!(leaf.serial_der()[0], 0x02, "a whole INTEGER");
}

#[test]
fn every_form_that_factories_write() {
    let (leaf, ca) = (one(LEAF), one(CA));
    let both = vec![leaf.clone(), ca.clone()];
    let concatenated = [leaf.der(), ca.der()].concat();
    let parse = |bytes: &[u8]| Certificate::parse_all(bytes).unwrap();
    assert_eq!(parse(&concatenated), both);
    assert_eq!(parse(&[LEAF, b"\nsome text\n", CA].concat()), both);
    assert_eq!(parse(&[LEAF, &[0; 40]].concat()), both[..1]);
    for padding in [0x00, 0xFF] {
        assert_eq!(parse(&[leaf.der(), &[padding; 100]].concat()), both[..1]);
    }
}

#[test]
fn what_is_broken_behind_a_sound_certificate_costs_only_itself() {
    let leaf = one(LEAF);
    let stale = [leaf.der(), &leaf.der()[..20]].concat();
    assert_eq!(
        Certificate::parse_all(&stale).unwrap(),
        std::slice::from_ref(&leaf)
    );
    let broken = &LEAF[..LEAF.len() / 2];
    let mixed = [LEAF, broken, b"\n", CA].concat();
    assert_eq!(Certificate::parse_all(&mixed).unwrap(), [leaf, one(CA)]);
}

#[test]
fn a_cut_or_damaged_certificate_is_none_and_never_a_panic() {
    let der = one(LEAF).der().to_vec();
    for end in 0..der.len() {
        assert!(Certificate::parse_all(&der[..end]).is_err(), "{end}");
    }
    for end in 30..LEAF.len() - 30 {
        assert!(Certificate::parse_all(&LEAF[..end]).is_err(), "{end}");
    }
    for (at, flip) in (0..der.len()).flat_map(|at| [(at, 0x01), (at, 0x80), (at, 0xFF)]) {
        let mut damaged = der.clone();
        damaged[at] ^= flip;
        for certificate in Certificate::parse_all(&damaged).unwrap_or_default() {
            // Whatever still parses can be shown.
            certificate.public_key();
            certificate.validity();
            certificate.is_authority();
            assert!(!certificate.subject_der().is_empty());
        }
    }
}
