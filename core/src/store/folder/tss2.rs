//! Reads and writes the DER inside a PEM block "TSS2 PRIVATE KEY" (draft-bottomley-tpm2-keys,
//! section 3.1: TPMKey).
//!
//! The reader accepts more than the writer produces, because programs encode the BOOLEAN and the
//! INTEGER of the parent differently.

use crate::tpm::handle;
use std::fmt;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, Utf8StringRef};
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};

const LOADABLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
const IMPORTABLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.4");
const SEALED: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.5");
/// The type of a loadable key that tpm2-tss-engine wrote before the draft defined the identifiers
/// above.
const LOADABLE_OF_OLD: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.2");

const EMPTY_AUTH: u32 = 0;
const POLICY: u32 = 1;
const SECRET: u32 = 2;
const AUTH_POLICY: u32 = 3;
const DESCRIPTION: u32 = 4;
const RSA_PARENT: u32 = 5;

/// An object that a storage key of the TPM has wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tss2Key {
    /// The kind of the object. The kind decides which commands the TPM needs.
    pub kind: Tss2Kind,
    /// The handle of the parent. A persistent handle names the parent itself. The handle of a
    /// hierarchy stands for the standard storage key of the hierarchy.
    pub parent: u32,
    /// The TPMT_PUBLIC, without the size field of a TPM2B_PUBLIC.
    pub public: Vec<u8>,
    /// The content of the TPM2B_PRIVATE, without its size field.
    pub private: Vec<u8>,
    /// True if the authorisation value is empty. `Some(false)` does not prove that the value is not
    /// empty, because tpm2_encodeobject writes `false` for every key.
    pub empty_auth: Option<bool>,
    /// The SEQUENCE of policy commands that a use of the object needs, in DER as found.
    pub policy: Option<Vec<u8>>,
    /// The SEQUENCE of alternative policies (AuthPolicy) in DER, as the file contains it.
    pub auth_policy: Option<Vec<u8>>,
    /// The encrypted seed of an importable object (the secret of TPM2_Import).
    pub secret: Option<Vec<u8>>,
    /// True if the parent is the RSA storage key of the hierarchy, false if it is the storage key
    /// on P-256.
    pub rsa_parent: bool,
    /// A description for people who read the file.
    pub description: Option<String>,
}

/// The kind of a wrapped object. The kind decides which commands the TPM needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tss2Kind {
    /// A key for TPM2_Load.
    Loadable,
    /// A key for TPM2_Import and then TPM2_Load.
    Importable,
    /// Data for TPM2_Load and then TPM2_Unseal.
    Sealed,
}

/// The reason why bytes are not the DER of a TSS2 object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoTss2Key(String);

impl Tss2Key {
    /// Returns a loadable key whose authorisation value is empty.
    pub fn loadable(parent: u32, public: Vec<u8>, private: Vec<u8>) -> Self {
        Self {
            kind: Tss2Kind::Loadable,
            parent,
            public,
            private,
            empty_auth: Some(true),
            policy: None,
            auth_policy: None,
            secret: None,
            rsa_parent: false,
            description: None,
        }
    }

    /// Returns true if a use of the key needs a policy session.
    pub fn has_policy(&self) -> bool {
        // An empty SEQUENCE is two bytes long.
        let filled = |der: &Option<Vec<u8>>| der.as_ref().is_some_and(|der| der.len() > 2);
        filled(&self.policy) || filled(&self.auth_policy)
    }

    /// Parses the DER that this project or another known program wrote.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are no TSS2 object, or if they have an unknown member. An unknown member
    /// may restrict the use of the key.
    pub fn from_der(der: &[u8]) -> Result<Self, NoTss2Key> {
        let outer = AnyRef::from_der(der)
            .ok()
            .filter(|outer| outer.tag() == Tag::Sequence);
        let outer = outer.ok_or_else(|| NoTss2Key::because("it is not exactly one SEQUENCE"))?;
        let mut members = Members::of(outer.value())?;
        let kind = match members.next("type")?.decode_as::<ObjectIdentifier>() {
            Ok(LOADABLE | LOADABLE_OF_OLD) => Tss2Kind::Loadable,
            Ok(IMPORTABLE) => Tss2Kind::Importable,
            Ok(SEALED) => Tss2Kind::Sealed,
            Ok(other) => return Err(NoTss2Key(format!("its type {other} is unknown"))),
            Err(_) => return Err(NoTss2Key::because("its type is not an OBJECT IDENTIFIER")),
        };
        let empty_auth = members.optional(EMPTY_AUTH, "emptyAuth", boolean)?;
        let policy = members.optional(POLICY, "policy", raw_sequence)?;
        let secret = members.optional(SECRET, "secret", octets)?;
        let auth_policy = members.optional(AUTH_POLICY, "authPolicy", raw_sequence)?;
        let description = members.optional(DESCRIPTION, "description", text)?;
        let rsa_parent = members.optional(RSA_PARENT, "rsaParent", boolean)?;
        let key = Self {
            kind,
            parent: members.parent()?,
            public: members.sized("pubkey")?,
            private: members.sized("privkey")?,
            empty_auth,
            policy,
            auth_policy,
            secret,
            rsa_parent: rsa_parent.unwrap_or(false),
            description,
        };
        match members.reader.is_finished() {
            true => Ok(key),
            false => Err(NoTss2Key::because("bytes follow the member privkey")),
        }
    }

    /// Encodes the object in DER. Writes only members that the draft defines, so that every reader
    /// accepts the result.
    ///
    /// # Errors
    ///
    /// Fails if a part is too long for its size field.
    pub fn to_der(&self) -> Result<Vec<u8>, NoTss2Key> {
        let kind = match self.kind {
            Tss2Kind::Loadable => LOADABLE,
            Tss2Kind::Importable => IMPORTABLE,
            Tss2Kind::Sealed => SEALED,
        };
        let (public, private) = (with_size(&self.public)?, with_size(&self.private)?);
        let encoded = || -> der::Result<Vec<u8>> {
            let mut body = kind.to_der()?;
            if let Some(empty) = self.empty_auth {
                body.extend(explicit(EMPTY_AUTH, &empty.to_der()?)?);
            }
            if let Some(policy) = &self.policy {
                body.extend(explicit(POLICY, policy)?);
            }
            if let Some(secret) = &self.secret {
                let secret = OctetStringRef::new(secret)?.to_der()?;
                body.extend(explicit(SECRET, &secret)?);
            }
            if let Some(policies) = &self.auth_policy {
                body.extend(explicit(AUTH_POLICY, policies)?);
            }
            if let Some(text) = &self.description {
                let text = Utf8StringRef::new(text)?.to_der()?;
                body.extend(explicit(DESCRIPTION, &text)?);
            }
            if self.rsa_parent {
                body.extend(explicit(RSA_PARENT, &true.to_der()?)?);
            }
            body.extend(self.parent.to_der()?);
            body.extend(OctetStringRef::new(&public)?.to_der()?);
            body.extend(OctetStringRef::new(&private)?.to_der()?);
            AnyRef::new(Tag::Sequence, &body)?.to_der()
        };
        encoded().map_err(|error| NoTss2Key(error.to_string()))
    }
}

/// An iterator over the fields of the SEQUENCE of a TSS2 key file.
struct Members<'a> {
    reader: SliceReader<'a>,
    /// A field of the SEQUENCE that was decoded but not returned yet.
    here: Option<AnyRef<'a>>,
}

impl<'a> Members<'a> {
    fn of(content: &'a [u8]) -> Result<Self, NoTss2Key> {
        let reader =
            SliceReader::new(content).map_err(|_| NoTss2Key::because("its SEQUENCE is empty"))?;
        Ok(Self { reader, here: None })
    }

    fn next(&mut self, what: &str) -> Result<AnyRef<'a>, NoTss2Key> {
        match self.here.take() {
            Some(member) => Ok(member),
            None => AnyRef::decode(&mut self.reader)
                .map_err(|_| NoTss2Key(format!("its member {what} is incomplete or missing"))),
        }
    }

    /// Returns the content of the next member, if the member has this tag.
    fn optional<T>(
        &mut self,
        number: u32,
        what: &str,
        content: fn(AnyRef<'_>) -> Option<T>,
    ) -> Result<Option<T>, NoTss2Key> {
        let member = self.next(what)?;
        if member.tag() != context(number) {
            self.here = Some(member);
            return Ok(None);
        }
        let inner = AnyRef::from_der(member.value()).ok().and_then(content);
        let wrong = || NoTss2Key(format!("its member {what} has the wrong type"));
        inner.ok_or_else(wrong).map(Some)
    }

    fn parent(&mut self) -> Result<u32, NoTss2Key> {
        let member = self.next("parent")?;
        match member.tag() {
            Tag::Integer => handle(member.value())
                .ok_or_else(|| NoTss2Key::because("its member parent is not a 32-bit number")),
            Tag::ContextSpecific { number, .. } => Err(NoTss2Key(format!(
                "its member [{number}] is unknown, or stands at the wrong position"
            ))),
            _ => Err(NoTss2Key::because("its member parent is not an INTEGER")),
        }
    }

    /// Returns the content of the TPM2B in the next member, which is an OCTET STRING.
    fn sized(&mut self, what: &str) -> Result<Vec<u8>, NoTss2Key> {
        let member = octets(self.next(what)?);
        let sized =
            member.ok_or_else(|| NoTss2Key(format!("its member {what} is not an OCTET STRING")))?;
        match sized.split_first_chunk() {
            Some((size, content)) if usize::from(u16::from_be_bytes(*size)) == content.len() => {
                Ok(content.to_vec())
            }
            _ => Err(NoTss2Key(format!(
                "the length of its member {what} differs from the member's size field"
            ))),
        }
    }
}

impl NoTss2Key {
    fn because(why: &str) -> Self {
        Self(why.into())
    }
}

/// Decodes a BOOLEAN. BER permits every byte other than 0 as TRUE. tpm2-openssl 1.1 writes 0x01,
/// which DER forbids.
fn boolean(member: AnyRef<'_>) -> Option<bool> {
    match (member.tag(), member.value()) {
        (Tag::Boolean, &[byte]) => Some(byte != 0),
        _ => None,
    }
}

fn octets(member: AnyRef<'_>) -> Option<Vec<u8>> {
    (member.tag() == Tag::OctetString).then(|| member.value().to_vec())
}

fn text(member: AnyRef<'_>) -> Option<String> {
    let text = Utf8StringRef::try_from(member).ok()?;
    Some(text.as_str().into())
}

fn raw_sequence(member: AnyRef<'_>) -> Option<Vec<u8>> {
    member
        .to_der()
        .ok()
        .filter(|_| member.tag() == Tag::Sequence)
}

/// Decodes a handle, which is an unsigned number. Some programs encode it in four bytes, like a
/// negative number.
fn handle(integer: &[u8]) -> Option<u32> {
    let bytes = match integer {
        [] => return None,
        [0, rest @ ..] => rest,
        whole => whole,
    };
    let mut padded = [0; 4];
    padded
        .get_mut(4usize.checked_sub(bytes.len())?..)?
        .copy_from_slice(bytes);
    let negative = integer[0] & 0x80 != 0;
    match u32::from_be_bytes(padded) {
        _ if negative && bytes.len() < 4 => None,
        0 => Some(handle::OWNER),
        handle => Some(handle),
    }
}

fn context(number: u32) -> Tag {
    Tag::ContextSpecific {
        number: TagNumber(number),
        constructed: true,
    }
}

fn explicit(number: u32, inner: &[u8]) -> der::Result<Vec<u8>> {
    AnyRef::new(context(number), inner)?.to_der()
}

fn with_size(content: &[u8]) -> Result<Vec<u8>, NoTss2Key> {
    match u16::try_from(content.len()) {
        Ok(size) => Ok([&size.to_be_bytes(), content].concat()),
        Err(_) => Err(NoTss2Key::because(
            "a structure is too long for the size field of a TPM2B",
        )),
    }
}

impl fmt::Display for NoTss2Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a TSS2 private key: {}", self.0)
    }
}

impl std::error::Error for NoTss2Key {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem;

    /// A file made with tpm2-tools 5.4 and tpm2-openssl 1.1.1 on swtpm, by the commands tpm2_create
    /// and tpm2_encodeobject -C 0x81000001.
    const ENCODEOBJECT: &[u8] = include_bytes!("../../../testdata/tss2-encodeobject.pem");
    /// A file made by openssl genpkey -algorithm EC. The key is below the storage key of the owner
    /// hierarchy.
    const OPENSSL_OWNER: &[u8] = include_bytes!("../../../testdata/tss2-openssl-owner.pem");
    /// A file made by go-tpm-keyfiles (NewLoadableKey), with a description.
    const GO_KEYFILES: &[u8] = include_bytes!("../../../testdata/tss2-go-keyfiles.pem");
    /// A file made by openssl genpkey -algorithm RSA -pkeyopt parent:0x81000001 -pkeyopt
    /// user-auth:…
    const OPENSSL_PASSWORD: &[u8] = include_bytes!("../../../testdata/tss2-openssl-password.pem");

    fn der_of(file: &[u8]) -> Vec<u8> {
        pem::parse(file).unwrap().blocks.remove(0).der
    }

    fn key() -> Tss2Key {
        Tss2Key::loadable(0x8100_0080, vec![1, 2, 3], vec![4, 5])
    }

    /// Replaces the only occurrence of the bytes `old` in the DER of a key. `old` and `new` have
    /// equal lengths, so no length field changes.
    fn exchanged(der: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
        let at: Vec<_> = (0..der.len())
            .filter(|&at| der[at..].starts_with(old))
            .collect();
        assert_eq!(at.len(), 1, "{old:x?}");
        [&der[..at[0]], new, &der[at[0] + old.len()..]].concat()
    }

    #[test]
    fn what_other_programs_write() {
        for (file, parent, empty_auth, true_byte) in [
            (ENCODEOBJECT, 0x8100_0001, Some(false), None),
            (OPENSSL_OWNER, handle::OWNER, Some(true), Some(0x01)),
            (OPENSSL_PASSWORD, 0x8100_0001, Some(false), None),
            (GO_KEYFILES, handle::OWNER, Some(true), None),
        ] {
            let der = der_of(file);
            let key = Tss2Key::from_der(&der).unwrap();
            assert_eq!((key.kind, key.parent), (Tss2Kind::Loadable, parent));
            assert_eq!(key.empty_auth, empty_auth);
            assert!(!key.has_policy());
            assert!(crate::tpm::PublicArea::parse(&key.public).is_some());
            let ours = key.to_der().unwrap();
            match true_byte {
                Some(byte) => {
                    assert_eq!(exchanged(&ours, &[1, 1, 0xFF], &[1, 1, byte]), der);
                }
                None => assert_eq!(ours, der),
            }
            assert_eq!(Tss2Key::from_der(&ours), Ok(key));
        }
    }

    #[test]
    fn every_member_goes_there_and_back() {
        let policy = vec![0x30, 0x03, 0x02, 0x01, 0x07];
        for full in [
            key(),
            Tss2Key {
                kind: Tss2Kind::Importable,
                empty_auth: None,
                policy: Some(policy.clone()),
                auth_policy: Some(vec![0x30, 0x00]),
                secret: Some(vec![9; 300]),
                rsa_parent: true,
                description: Some("für den Webserver".into()),
                ..key()
            },
            Tss2Key {
                kind: Tss2Kind::Sealed,
                parent: handle::OWNER,
                auth_policy: Some(policy),
                ..key()
            },
        ] {
            let der = full.to_der().unwrap();
            assert_eq!(Tss2Key::from_der(&der), Ok(full.clone()));
            assert_eq!(full.has_policy(), full.kind != Tss2Kind::Loadable);
        }
        let only_empty = Tss2Key {
            policy: Some(vec![0x30, 0x00]),
            ..key()
        };
        assert!(!only_empty.has_policy());
        assert!(
            Tss2Key {
                public: vec![0; 70_000],
                ..key()
            }
            .to_der()
            .is_err()
        );
    }

    #[test]
    fn a_parent_in_every_spelling() {
        let spelt = |integer: &[u8]| {
            let body = [
                &LOADABLE.to_der().unwrap()[..],
                &AnyRef::new(Tag::Integer, integer)
                    .unwrap()
                    .to_der()
                    .unwrap(),
                &[0x04, 0x03, 0, 1, 7, 0x04, 0x03, 0, 1, 8],
            ]
            .concat();
            let der = AnyRef::new(Tag::Sequence, &body).unwrap().to_der().unwrap();
            Tss2Key::from_der(&der).map(|key| key.parent)
        };
        assert_eq!(spelt(&[0, 0x81, 0, 0, 1]), Ok(0x8100_0001));
        assert_eq!(spelt(&[0x81, 0, 0, 1]), Ok(0x8100_0001));
        assert_eq!(spelt(&[0x40, 0, 0, 7]), Ok(0x4000_0007));
        assert_eq!(spelt(&[0]), Ok(handle::OWNER));
        for wrong in [&[][..], &[0x81], &[1, 0x81, 0, 0, 1], &[0, 0, 0, 0, 0, 1]] {
            assert!(spelt(wrong).is_err(), "{wrong:x?}");
        }
    }

    #[test]
    fn the_type_of_old_files() {
        let der = key().to_der().unwrap();
        let old = LOADABLE_OF_OLD.to_der().unwrap();
        // One arc of the identifier is missing, which is one byte. So the SEQUENCE is one byte
        // shorter.
        let mut der = exchanged(&der, &LOADABLE.to_der().unwrap(), &old);
        der[1] -= 1;
        assert_eq!(Tss2Key::from_der(&der), Ok(key()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let der = key().to_der().unwrap();
        let mut longer = [&der[..], &[0x05, 0x00]].concat();
        longer[1] += 2;
        for (wrong, why) in [
            (vec![], "SEQUENCE"),
            (b"-----BEGIN".to_vec(), "SEQUENCE"),
            ([&der[..], &[0]].concat(), "SEQUENCE"),
            (longer, "bytes follow"),
            (
                exchanged(&der, &[0x0A, 1, 3], &[0x0A, 1, 9]),
                "2.23.133.10.1.9",
            ),
            (exchanged(&der, &[0xA0, 3], &[0xA6, 3]), "[6]"),
            (exchanged(&der, &[0xA0, 3, 1], &[0xA0, 3, 2]), "emptyAuth"),
            (exchanged(&der, &[4, 5, 0, 3], &[4, 5, 0, 4]), "pubkey"),
            (exchanged(&der, &[4, 4, 0, 2], &[4, 4, 0, 1]), "privkey"),
        ] {
            let said = Tss2Key::from_der(&wrong).unwrap_err().to_string();
            assert!(said.contains(why), "{said}, not {why}");
        }
    }

    #[test]
    fn a_cut_or_damaged_key_is_never_a_panic() {
        const FLIPS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 255];
        for file in [ENCODEOBJECT, OPENSSL_OWNER, OPENSSL_PASSWORD] {
            let der = der_of(file);
            for end in 0..der.len() {
                assert!(Tss2Key::from_der(&der[..end]).is_err(), "{end}");
            }
            for (at, flip) in (0..der.len()).flat_map(|at| FLIPS.map(move |flip| (at, flip))) {
                let mut damaged = der.clone();
                damaged[at] ^= flip;
                if let Ok(key) = Tss2Key::from_der(&damaged) {
                    assert_eq!(Tss2Key::from_der(&key.to_der().unwrap()), Ok(key));
                }
            }
        }
    }
}
