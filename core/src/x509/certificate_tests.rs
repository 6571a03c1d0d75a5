use super::*;

const LEAF: &[u8] = include_bytes!("../../testdata/leaf.pem");
const CA: &[u8] = include_bytes!("../../testdata/ca.pem");

fn one(pem: &[u8]) -> Certificate {
    Certificate::parse_all(pem).unwrap().remove(0)
}

#[test]
fn what_a_certificate_says() {
    let (leaf, ca) = (one(LEAF), one(CA));
    assert!(!leaf.is_ca() && ca.is_ca());
    assert_eq!(leaf.issuer_der(), ca.subject_der());
    assert_eq!(
        leaf.subject(),
        "SERIALNUMBER=SN-000001,CN=Example-1000,O=Example Devices"
    );
    assert_eq!(
        leaf.validity().1,
        Some(Date {
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
            // No function that reads a certificate may panic, whatever certificate is parsed.
            certificate.public_key();
            certificate.validity();
            certificate.is_ca();
            assert!(!certificate.subject_der().is_empty());
        }
    }
}

/// A certificate in a form that earlier versions refused. Except for the root, the certificates are
/// for software keys.
macro_rules! shape {
    ($name:literal) => {
        Certificate::from_der(include_bytes!(concat!(
            "../../testdata/shapes/",
            $name,
            ".der"
        )))
        .unwrap_or_else(|why| panic!("{}: {why}", $name))
    };
}

#[test]
fn a_field_that_nobody_needs_hides_no_certificate() {
    let usual = shape!("ca-true-leaf").public_key().unwrap();
    for (name, certificate) in [
        ("nb-year1", shape!("nb-year1")),
        ("nb-1949", shape!("nb-1949")),
        ("nb-utc1950", shape!("nb-utc1950")),
        ("nb-utc-noseconds", shape!("nb-utc-noseconds")),
        ("na-235960", shape!("na-235960")),
        ("crit-true-01", shape!("crit-true-01")),
        ("str-universal", shape!("str-universal")),
        ("enc-ber-longlen", shape!("enc-ber-longlen")),
        ("bc-badvalue", shape!("bc-badvalue")),
        ("ext-dup", shape!("ext-dup")),
        ("san-x400", shape!("san-x400")),
    ] {
        assert_eq!(certificate.public_key().unwrap(), usual, "{name}");
        assert_eq!(certificate.key_id(), usual.id(), "{name}");
    }
}

#[test]
fn times_are_read_or_said_to_be_unreadable() {
    let times = |certificate: Certificate| {
        let said = |time: Result<Time, Unreadable>| match time {
            Ok(time) => time.to_string(),
            Err(why) => why.to_string(),
        };
        [
            said(certificate.not_before()),
            said(certificate.not_after()),
        ]
    };
    let (start, end) = ("2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z");
    for (certificate, said) in [
        (shape!("nb-year1"), ["0001-01-01T00:00:00Z", end]),
        (shape!("nb-1949"), ["1949-12-31T00:00:00Z", end]),
        (shape!("nb-utc1950"), ["1950-01-01T00:00:00Z", end]),
        (
            shape!("nb-utc-noseconds"),
            ["cannot be read: \"2001010000Z\"", end],
        ),
        (
            shape!("na-235960"),
            [start, "cannot be read: \"20401231235960Z\""],
        ),
    ] {
        assert_eq!(times(certificate), said);
    }
    let (from, until) = shape!("na-235960").validity();
    assert!(from.is_some() && until.is_none());
}

#[test]
fn names_are_the_certificates_own_bytes() {
    // serialNumber and commonName in one RDN, in an order that DER forbids.
    let leaf = shape!("rdn-multi-unsorted");
    let subject = leaf.subject_der();
    let position = |text: &[u8]| subject.windows(text.len()).position(|it| it == text);
    let [serial, common] = [&[6, 3, 0x55, 4, 5], &[6, 3, 0x55, 4, 3]].map(|oid| position(oid));
    assert!(serial.unwrap() < common.unwrap());
    let at = leaf
        .der()
        .windows(subject.len())
        .position(|it| it == subject);
    assert!(at.is_some());
    assert_eq!(leaf.subject(), "SERIALNUMBER=SN0123456789+CN=E,O=Ex");
}

#[test]
fn the_same_key_in_every_notation() {
    let usual = shape!("ca-true-leaf");
    let key = usual.public_key().unwrap();
    assert_eq!(usual.plain_public_key(), Some(key.clone()));
    for (name, certificate, plain) in [
        ("explicit", shape!("spki-ec-explicit"), false),
        ("id-ecDH", shape!("spki-ec-ecdh-oid"), false),
        ("hybrid", shape!("spki-ec-hybrid"), true),
    ] {
        assert_eq!(certificate.public_key().as_ref(), Some(&key), "{name}");
        assert_eq!(certificate.key_id(), key.id(), "{name}");
        assert_eq!(certificate.plain_public_key().is_some(), plain, "{name}");
    }
    let pss = shape!("spki-rsa-pss-oid");
    assert_eq!(pss.public_key().unwrap().to_string(), "rsa2048");
    assert_eq!(pss.plain_public_key(), None);
}

#[test]
fn an_extension_is_absent_or_read_or_unreadable() {
    let usage = |certificate: &Certificate| match certificate.key_usage() {
        Ok(None) => "absent".to_owned(),
        Ok(Some(_)) => "read".into(),
        Err(why) => why.to_string(),
    };
    assert_eq!(usage(&shape!("crit-true-01")), "read");
    assert_eq!(usage(&shape!("ku-3bytes")), "cannot be read");
    assert!(
        shape!("crit-true-01")
            .extensions()
            .unwrap()
            .iter()
            .any(|one| one.critical)
    );
    let names = ObjectIdentifier::new_unwrap("2.5.29.17");
    let twice = shape!("ext-dup");
    assert_eq!(
        twice.extension(names).unwrap_err().to_string(),
        "cannot be read: the extension occurs twice"
    );
    let root = one(include_bytes!("../../testdata/shapes/root.pem"));
    assert!(root.is_ca() && shape!("ca-true-leaf").is_ca());
    assert!(
        shape!("bc-badvalue").is_well_formed().is_ok(),
        "only its value is unusual"
    );
}
