//! What the tests of this folder put into one.

use super::{Content, Data, Description, Origin, Pair, Tss2Key, Usage, Use, format};
use crate::certificate::{Certificate, Day};
use crate::key::PublicKey;

/// Of tpm2_encodeobject, see `tss2`.
pub(super) const KEY: &[u8] = include_bytes!("../../../testdata/tss2-encodeobject.pem");
pub(super) const LEAF: &[u8] = include_bytes!("../../../testdata/leaf.pem");

pub(super) fn pair() -> Pair {
    match format::parse("stem", KEY).unwrap().0 {
        Content::Pair(pair) => pair,
        other => panic!("{other:?}"),
    }
}

pub(super) fn data() -> Data {
    Data {
        description: Description::labelled("note"),
        application: "an application:\nwith two lines".into(),
        object_id: vec![0x06, 0x01, 0x2A],
        value: b"any bytes".to_vec(),
    }
}

/// A data object that only differs by its value.
pub(super) fn numbered(number: usize) -> Content {
    Content::Data(Data {
        value: number.to_string().into_bytes(),
        ..data()
    })
}

pub(super) fn samples() -> Vec<Content> {
    let full = Description {
        label: " a label:\nwith -----BEGIN DATA-----".into(),
        id: Some(vec![1, 2, 3]),
        subject: vec![0x30, 0x00],
        start: Some(Day {
            year: 2031,
            month: 2,
            day: 28,
        }),
        private: true,
        modifiable: false,
        usage: Some([Use::Sign, Use::Derive].into_iter().collect()),
        mechanisms: vec![0x1041, u64::MAX],
        ..Description::labelled("")
    };
    let leaf = Certificate::parse_all(LEAF).unwrap().remove(0);
    let rsa = PublicKey::from_rsa(&[0xC1; 256], &[1, 0, 1]).unwrap();
    vec![
        Content::Pair(pair()),
        Content::Pair(Pair {
            handle: Some(0x8100_0100),
            auth: None,
            origin: Origin::Generated,
            private: full.clone(),
            shown_public: Some(Description {
                usage: Some(Usage::NONE),
                ..Description::labelled("public only")
            }),
            ..pair()
        }),
        Content::Pair(Pair {
            material: Tss2Key {
                description: Some("für später".into()),
                ..pair().material
            },
            origin: Origin::Imported,
            shown_public: None,
            ..pair()
        }),
        Content::Public(rsa, full.clone()),
        Content::Public(pair().public, Description::labelled("stem")),
        Content::Certificate(leaf.clone(), Description::labelled("")),
        Content::Certificate(leaf, full.clone()),
        Content::Data(data()),
        Content::Data(Data {
            description: full,
            application: String::new(),
            object_id: Vec::new(),
            value: Vec::new(),
        }),
    ]
}
