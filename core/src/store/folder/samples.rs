//! Sample contents for the tests of the key folder.

use super::{
    Data, EntryContent, KeyAuth, KeyMaterial, KeyOrigin, KeyPair, ObjectAttributes, SecretKeyFile,
    Tss2Key, Tss2Kind, Usage, Use, format,
};
use crate::key::{Curve, PrivateKeyInfo, PublicKey, SecretKeyType};
use crate::x509::{Certificate, Date};

/// The file was made by tpm2_encodeobject; the tests of `tss2` give the command.
pub(super) const KEY: &[u8] = include_bytes!("../../../testdata/tss2-encodeobject.pem");
pub(super) const LEAF: &[u8] = include_bytes!("../../../testdata/leaf.pem");

pub(super) fn pair() -> KeyPair {
    match format::parse("stem", KEY).unwrap().0 {
        EntryContent::Pair(pair) => pair,
        other => panic!("{other:?}"),
    }
}

pub(super) fn key() -> Tss2Key {
    match pair().material {
        KeyMaterial::Wrapped(key) => key,
        other => panic!("{other:?}"),
    }
}

/// Returns two key pairs: a key that is not encrypted, and a sealed key.
fn in_memory() -> [KeyPair; 2] {
    let curve = Curve::P384;
    let key = PrivateKeyInfo::from_scalar(curve, &[7; 48]).unwrap();
    let public = key.public().clone();
    let clear = KeyPair {
        material: KeyMaterial::Clear(key),
        public: public.clone(),
        origin: KeyOrigin::Imported,
        ..pair()
    };
    let sealed = KeyPair {
        material: KeyMaterial::Sealed {
            seal: Tss2Key {
                kind: Tss2Kind::Sealed,
                ..Tss2Key::loadable(0x8100_0080, vec![0, 8, 0, 11], vec![1; 40])
            },
            encrypted: vec![0x30, 0],
        },
        auth: KeyAuth::Salt(vec![1; 16]),
        ..clear.clone()
    };
    [clear, sealed]
}

fn secret_key(
    key_type: SecretKeyType,
    auth: KeyAuth,
    description: ObjectAttributes,
) -> EntryContent {
    EntryContent::SecretKey(SecretKeyFile {
        key_type,
        seal: Tss2Key {
            kind: Tss2Kind::Sealed,
            ..Tss2Key::loadable(0x8100_0080, vec![0, 8, 0, 11], vec![1; 40])
        },
        encrypted: vec![9; 12 + 32 + 16],
        sensitive: auth.salt().is_some(),
        auth,
        origin: KeyOrigin::Generated,
        description,
    })
}

pub(super) fn data() -> Data {
    Data {
        description: ObjectAttributes::labelled("note"),
        application: "an application:\nwith two lines".into(),
        object_id: vec![0x06, 0x01, 0x2A],
        value: b"any bytes".to_vec(),
    }
}

/// Returns a data object whose CKA_VALUE contains this number.
pub(super) fn numbered(number: usize) -> EntryContent {
    EntryContent::Data(Data {
        value: number.to_string().into_bytes(),
        ..data()
    })
}

pub(super) fn samples() -> Vec<EntryContent> {
    let full = ObjectAttributes {
        label: " a label:\nwith -----BEGIN DATA-----".into(),
        id: Some(vec![1, 2, 3]),
        subject: vec![0x30, 0x00],
        start: Some(Date {
            year: 2031,
            month: 2,
            day: 28,
        }),
        private: true,
        modifiable: false,
        usage: Some([Use::Sign, Use::Derive].into_iter().collect()),
        mechanisms: vec![0x1041, u64::MAX],
        ..ObjectAttributes::labelled("")
    };
    let leaf = Certificate::parse_all(LEAF).unwrap().remove(0);
    let rsa = PublicKey::from_rsa(&[0xC1; 256], &[1, 0, 1]).unwrap();
    let [clear, sealed] = in_memory();
    vec![
        EntryContent::Pair(clear),
        EntryContent::Pair(sealed),
        EntryContent::Pair(pair()),
        EntryContent::Pair(KeyPair {
            handle: Some(0x8100_0100),
            auth: KeyAuth::Open,
            origin: KeyOrigin::Generated,
            private: full.clone(),
            shown_public: Some(ObjectAttributes {
                usage: Some(Usage::NONE),
                ..ObjectAttributes::labelled("public only")
            }),
            ..pair()
        }),
        EntryContent::Pair(KeyPair {
            material: KeyMaterial::Wrapped(Tss2Key {
                description: Some("für später".into()),
                ..key()
            }),
            origin: KeyOrigin::Imported,
            shown_public: None,
            ..pair()
        }),
        secret_key(
            SecretKeyType::Aes,
            KeyAuth::Salt(vec![1; 16]),
            ObjectAttributes {
                usage: Some([Use::Decrypt, Use::Encrypt].into_iter().collect()),
                ..full.clone()
            },
        ),
        secret_key(
            SecretKeyType::GenericSecret,
            KeyAuth::Open,
            ObjectAttributes::labelled("stem"),
        ),
        EntryContent::Public(rsa, full.clone()),
        EntryContent::Public(pair().public, ObjectAttributes::labelled("stem")),
        EntryContent::Certificate(leaf.clone(), ObjectAttributes::labelled("")),
        EntryContent::Certificate(leaf, full.clone()),
        EntryContent::Data(data()),
        EntryContent::Data(Data {
            description: full,
            application: String::new(),
            object_id: Vec::new(),
            value: Vec::new(),
        }),
    ]
}
