//! Reads and writes the file format of the key folder.

use super::text::{
    Lines, NO_AUTH, NO_PUBLIC_HALF, PUBLIC_HALF, escaped, handle, origin, public_half,
    read_description, unescaped, write_description, write_line, yes_no,
};
use super::{
    Data, EntryContent, KeyAuth, KeyMaterial, KeyOrigin, KeyPair, ObjectAttributes, SecretKeyFile,
    Tss2Key, Tss2Kind as ObjectKind,
};
use crate::key::{PrivateKeyInfo, PublicKey, SecretKeyType, from_hex, hex, refuse_encrypted};
use crate::pem;
use crate::tpm::{PublicArea, other_kind};
use crate::x509::{Certificate, is_certificate_label};

/// The largest size of a file in the folder, in bytes. The module writes and reads no larger file.
pub(super) const LARGEST: u64 = 64 << 10;

const PAIR: &str = "TSS2 PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const CLEAR: &str = "PRIVATE KEY";
/// The label of a secret key's PEM block. This project defined it; no standard has such a label.
/// Older versions of the module refuse the file and do not change it.
const SECRET: &str = "DEVID SECRET KEY";
const PUBLIC: &str = "PUBLIC KEY";
const CERTIFICATE: &str = "CERTIFICATE";
const DATA: &str = "DATA";

/// Text of a file that is no part of the object. A rewritten file keeps this text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Remarks {
    above: Vec<Vec<u8>>,
    below: Vec<u8>,
}

/// Parses the content of the file called `name` (without `.pem`).
///
/// # Errors
///
/// Fails with the reason why the file holds no valid object.
pub(super) fn parse(name: &str, file: &[u8]) -> Result<(EntryContent, Remarks), String> {
    refuse_encrypted(file)?;
    let parts = pem::parse(file)?;
    let labels: Vec<&str> = parts.blocks.iter().map(|block| block.label).collect();
    let der = |at: usize| &parts.blocks[at].der[..];
    let mut lines = Lines::new(parts.above);
    let absent = ObjectAttributes::labelled(name);
    let content = match labels[..] {
        [PAIR] => {
            let (material, public) = wrapped(der(0))?;
            EntryContent::Pair(read_pair(&mut lines, material, public, absent)?)
        }
        [PAIR, ENCRYPTED, PUBLIC] => {
            let (material, public) = sealed(der(0), der(1), der(2))?;
            EntryContent::Pair(read_pair(&mut lines, material, public, absent)?)
        }
        [PAIR, SECRET] => {
            let key_type = lines.take("Key-Type", SecretKeyType::from_word)?;
            EntryContent::SecretKey(SecretKeyFile {
                key_type: key_type.ok_or("the line Key-Type of a secret key is missing")?,
                seal: seal(der(0))?,
                encrypted: der(1).to_vec(),
                auth: lines.take("Auth", auth)?.unwrap_or_default(),
                origin: lines.take("Origin", origin)?.unwrap_or_default(),
                sensitive: lines.take("Sensitive", yes_no)?.unwrap_or(true),
                description: read_description(&mut lines, "", absent)?,
            })
        }
        [PUBLIC] => {
            let key = PublicKey::from_info_der(der(0));
            let key =
                key.ok_or("the public key is of a type that this version does not support")?;
            EntryContent::Public(key, read_description(&mut lines, "", absent)?)
        }
        [label] if is_certificate_label(label) => {
            let certificate = Certificate::in_block(der(0)).map_err(|why| why.to_string())?;
            EntryContent::Certificate(certificate, read_description(&mut lines, "", absent)?)
        }
        [DATA] => {
            let application = lines.take("Application", unescaped)?;
            let object_id = lines.take("Object-ID", from_hex)?;
            EntryContent::Data(Data {
                description: read_description(&mut lines, "", absent)?,
                application: application.unwrap_or_default(),
                object_id: object_id.unwrap_or_default(),
                value: der(0).to_vec(),
            })
        }
        _ => {
            let key = match (PrivateKeyInfo::from_blocks(&parts.blocks), &labels[..]) {
                (Some(key), _) => key?,
                (None, [other]) => {
                    return Err(format!(
                        "the type of the PEM block is not supported: {other:?}"
                    ));
                }
                (None, _) => {
                    return Err(
                        "the file has more than one PEM block; store each object in its own file"
                            .into(),
                    );
                }
            };
            let public = key.public().clone();
            EntryContent::Pair(read_pair(
                &mut lines,
                KeyMaterial::Clear(key),
                public,
                absent,
            )?)
        }
    };
    let remarks = Remarks {
        above: lines.rest(),
        below: parts.below.to_vec(),
    };
    Ok((content, remarks))
}

impl EntryContent {
    /// Parses bytes as the content of a file `name.pem` in the key folder.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the bytes are no valid object.
    pub fn of_file(name: &str, file: &[u8]) -> Result<Self, String> {
        if file.len() as u64 > LARGEST {
            return Err(format!(
                "larger than {LARGEST} bytes, the limit for a file in the key folder"
            ));
        }
        parse(name, file).map(|(content, _)| content)
    }
}

impl Tss2Key {
    /// Parses the only TSS2 object of a PEM file.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the file holds no such object.
    pub fn of_file(file: &[u8]) -> Result<Self, String> {
        let parts = pem::parse(file)?;
        match &parts.blocks[..] {
            [block] if block.label == PAIR => {
                Self::from_der(&block.der).map_err(|why| why.to_string())
            }
            _ => Err(format!(
                "the file does not hold exactly one PEM block {PAIR}"
            )),
        }
    }
}

/// Renders the content and the other text as the bytes of a file. Parses the bytes again and
/// compares the result.
///
/// # Errors
///
/// Fails with the reason why [`parse`] would not give this content back.
pub(super) fn render(
    name: &str,
    content: &EntryContent,
    beside: &Remarks,
) -> Result<Vec<u8>, String> {
    let absent = ObjectAttributes::labelled(name);
    let mut text = String::new();
    let tss2 = |key: &Tss2Key| key.to_der().map_err(|why| why.to_string());
    let blocks = match content {
        EntryContent::Pair(pair) => {
            write_pair(&mut text, pair, &absent);
            match &pair.material {
                KeyMaterial::Wrapped(key) => vec![(PAIR, tss2(key)?)],
                KeyMaterial::Sealed { seal, encrypted } => vec![
                    (PAIR, tss2(seal)?),
                    (ENCRYPTED, encrypted.clone()),
                    (PUBLIC, pair.public.info_der()),
                ],
                KeyMaterial::Clear(key) => vec![(CLEAR, key.der().to_vec())],
            }
        }
        EntryContent::SecretKey(key) => {
            write_line(&mut text, "Key-Type", key.key_type.word());
            write_description(&mut text, "", &key.description, &absent);
            if !key.sensitive {
                write_line(&mut text, "Sensitive", "no");
            }
            write_protection(&mut text, &key.auth, key.origin);
            vec![(PAIR, tss2(&key.seal)?), (SECRET, key.encrypted.clone())]
        }
        EntryContent::Public(key, description) => {
            write_description(&mut text, "", description, &absent);
            vec![(PUBLIC, key.info_der())]
        }
        EntryContent::Certificate(certificate, description) => {
            write_description(&mut text, "", description, &absent);
            vec![(CERTIFICATE, certificate.der().to_vec())]
        }
        EntryContent::Data(data) => {
            write_description(&mut text, "", &data.description, &absent);
            if !data.application.is_empty() {
                write_line(&mut text, "Application", &escaped(&data.application));
            }
            if !data.object_id.is_empty() {
                write_line(&mut text, "Object-ID", &hex(&data.object_id));
            }
            vec![(DATA, data.value.clone())]
        }
    };
    let mut file = Vec::new();
    for remark in &beside.above {
        file.extend_from_slice(remark);
        file.push(b'\n');
    }
    file.extend(text.bytes());
    for (label, der) in blocks {
        file.extend(pem::render(label, &der)?.bytes());
    }
    file.extend_from_slice(&beside.below);
    if file.len() as u64 > LARGEST {
        return Err(format!(
            "larger than {LARGEST} bytes, the limit for a file in the key folder"
        ));
    }
    match parse(name, &file)? {
        (again, remarks) if again == *content && remarks == *beside => Ok(file),
        _ => Err("a program that reads the file would get another object".into()),
    }
}

fn wrapped(der: &[u8]) -> Result<(KeyMaterial, PublicKey), String> {
    let key = Tss2Key::from_der(der).map_err(|why| why.to_string())?;
    if key.kind == ObjectKind::Sealed {
        return Err("sealed data, not a key".into());
    }
    let area = PublicArea::parse(&key.public);
    let public = area.ok_or_else(|| other_kind(&key.public))?.key;
    Ok((KeyMaterial::Wrapped(key), public))
}

fn seal(der: &[u8]) -> Result<Tss2Key, String> {
    let seal = Tss2Key::from_der(der).map_err(|why| why.to_string())?;
    match seal.kind {
        ObjectKind::Sealed => Ok(seal),
        _ => Err("the TSS2 block holds a key, not the sealed data that decrypts this key".into()),
    }
}

fn sealed(
    seal_der: &[u8],
    encrypted: &[u8],
    public: &[u8],
) -> Result<(KeyMaterial, PublicKey), String> {
    let seal = seal(seal_der)?;
    let public = PublicKey::from_info_der(public);
    let public = public.ok_or("the public key is of a type that this version does not support")?;
    let encrypted = encrypted.to_vec();
    Ok((KeyMaterial::Sealed { seal, encrypted }, public))
}

fn read_pair(
    lines: &mut Lines<'_>,
    material: KeyMaterial,
    public: PublicKey,
    absent: ObjectAttributes,
) -> Result<KeyPair, String> {
    let none = |text: &str| (text == NO_PUBLIC_HALF).then_some(());
    let hidden = lines.take("Public", none)?.is_some();
    let private = read_description(lines, "", absent)?;
    let shown = read_description(lines, PUBLIC_HALF, public_half(&private))?;
    Ok(KeyPair {
        handle: lines.take("Handle", handle)?,
        auth: lines.take("Auth", auth)?.unwrap_or_default(),
        origin: lines.take("Origin", origin)?.unwrap_or_default(),
        shown_public: (!hidden).then_some(shown),
        material,
        public,
        private,
    })
}

fn write_pair(text: &mut String, pair: &KeyPair, absent: &ObjectAttributes) {
    write_description(text, "", &pair.private, absent);
    match &pair.shown_public {
        Some(shown) => write_description(text, PUBLIC_HALF, shown, &public_half(&pair.private)),
        None => write_line(text, "Public", NO_PUBLIC_HALF),
    }
    if let Some(handle) = pair.handle {
        write_line(text, "Handle", &format!("0x{handle:08x}"));
    }
    write_protection(text, &pair.auth, pair.origin);
}

fn auth(text: &str) -> Option<KeyAuth> {
    match text {
        NO_AUTH => Some(KeyAuth::Open),
        salt => from_hex(salt).map(KeyAuth::Salt),
    }
}

fn write_protection(text: &mut String, auth: &KeyAuth, origin: KeyOrigin) {
    match auth {
        KeyAuth::Unsaid => {}
        KeyAuth::Open => write_line(text, "Auth", NO_AUTH),
        KeyAuth::Salt(salt) => write_line(text, "Auth", &hex(salt)),
    }
    match origin {
        KeyOrigin::Generated => write_line(text, "Origin", "generated"),
        KeyOrigin::Imported => write_line(text, "Origin", "imported"),
        KeyOrigin::Unknown => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{KEY, LEAF, data, key, pair, samples};
    use super::*;

    fn written(content: &EntryContent) -> String {
        String::from_utf8(render("stem", content, &Remarks::default()).unwrap()).unwrap()
    }

    #[test]
    fn every_content_goes_there_and_back() {
        for content in samples() {
            let file = written(&content);
            let (again, remarks) = parse("stem", file.as_bytes()).unwrap();
            assert_eq!((again, remarks), (content, Remarks::default()), "{file}");
        }
    }

    #[test]
    fn a_file_of_another_program_is_an_ordinary_object() {
        let (content, _) = parse("server", KEY).unwrap();
        let EntryContent::Pair(pair) = &content else {
            panic!("{content:?}");
        };
        assert_eq!(pair.private, ObjectAttributes::labelled("server"));
        assert_eq!(
            pair.shown_public,
            Some(ObjectAttributes::labelled("server"))
        );
        assert_eq!((pair.handle, pair.origin), (None, KeyOrigin::Unknown));
        let again = render("server", &content, &Remarks::default()).unwrap();
        assert_eq!(again, KEY, "no line is needed to say so");
        let (leaf, _) = parse("server", LEAF).unwrap();
        assert!(matches!(leaf, EntryContent::Certificate(_, it) if it.label == "server"));
    }

    #[test]
    fn remarks_and_lines_of_a_newer_version_stay() {
        let note = "# of the web server\n\nColour: red\nLabel: old\n";
        let file = [note.as_bytes(), KEY, b"and below\n"].concat();
        let (content, remarks) = parse("stem", &file).unwrap();
        let EntryContent::Pair(mut pair) = content else {
            panic!("{content:?}");
        };
        pair.private.label = "new".into();
        let again = render("stem", &EntryContent::Pair(pair), &remarks).unwrap();
        let again = String::from_utf8(again).unwrap();
        // The line `Public-Label` preserves the old label of the public key object.
        let above = "# of the web server\n\nColour: red\nLabel: new\nPublic-Label: old\n-----BEGIN";
        assert!(again.starts_with(above), "{again}");
        assert!(again.ends_with("-----\nand below\n"));
    }

    #[test]
    fn what_is_damaged_is_said() {
        let lines = |line: &str| [line.as_bytes(), b"\n", KEY].concat();
        let sealed = Tss2Key {
            kind: ObjectKind::Sealed,
            ..key()
        };
        let sealed = pem::render(PAIR, &sealed.to_der().unwrap()).unwrap();
        for (file, why) in [
            (b"".to_vec(), "no PEM block"),
            (KEY[..KEY.len() / 2].to_vec(), "has no end"),
            (lines("Handle: here"), "the line Handle"),
            (lines("Origin: stolen"), "the line Origin"),
            (lines("Public: perhaps"), "the line Public "),
            (lines("Public-ID: 1"), "the line Public-ID"),
            (sealed.into_bytes(), "sealed data"),
            (
                pem::render("RSA PRIVATE KEY", &[0x30, 0]).unwrap().into(),
                "not an RSA key",
            ),
            (
                pem::render("EC PRIVATE KEY", &[0x30, 0]).unwrap().into(),
                "not an EC key",
            ),
            (
                pem::render("OPENSSH PRIVATE KEY", &[0x30, 0])
                    .unwrap()
                    .into(),
                "OpenSSH",
            ),
            (
                pem::render(ENCRYPTED, &[0x30, 0]).unwrap().into(),
                "is encrypted",
            ),
            (
                pem::render("PKCS7", &[0x30, 0]).unwrap().into(),
                "not supported: \"PKCS7\"",
            ),
            (
                pem::render(CLEAR, &[0x30, 0]).unwrap().into(),
                "not a private key",
            ),
            ([KEY, KEY].concat(), "more than one"),
            ([KEY, LEAF].concat(), "more than one"),
            (
                pem::render(PUBLIC, &[0x30, 0]).unwrap().into(),
                "the public key is of a type",
            ),
            (pem::render(PAIR, &[0x30, 0]).unwrap().into(), "type"),
            (
                pem::render(CERTIFICATE, &[0x30, 0]).unwrap().into(),
                "certificate",
            ),
        ] {
            let said = parse("stem", &file).unwrap_err();
            assert!(said.contains(why), "{said}, not {why}");
        }
    }

    #[test]
    fn what_would_not_read_back_is_not_written() {
        let other = EntryContent::Pair(KeyPair {
            public: PublicKey::from_rsa(&[0xC1; 256], &[1, 0, 1]).unwrap(),
            ..pair()
        });
        assert!(render("stem", &other, &Remarks::default()).is_err());
        let large = EntryContent::Data(Data {
            value: vec![0; 60_000],
            ..data()
        });
        let why = render("stem", &large, &Remarks::default()).unwrap_err();
        assert!(why.contains("larger"), "{why}");
    }

    #[test]
    fn a_cut_or_damaged_file_is_never_a_panic() {
        for content in samples() {
            let file = written(&content).into_bytes();
            for end in 0..file.len() {
                let _ = parse("stem", &file[..end]);
            }
            for (at, flip) in (0..file.len()).flat_map(|at| [(at, 0x01), (at, 0x80), (at, 0x2A)]) {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                if let Ok((content, remarks)) = parse("stem", &damaged) {
                    render("stem", &content, &remarks).unwrap();
                }
            }
        }
    }
}
