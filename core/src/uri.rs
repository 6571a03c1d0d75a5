//! PKCS#11 URIs (RFC 7512): the parser and the writer.
//!
//! This parser accepts vendor attributes only if their names begin with `x-`. RFC 7512 permits any
//! name. With any name, a misspelt attribute would count as a vendor attribute and be ignored. The
//! URI would then match more objects.

use std::fmt;

/// `manufacturer` of this module's tokens (CK_TOKEN_INFO), and `library-manufacturer` of the
/// module.
const MANUFACTURER: &str = "devid-pkcs11";
/// `model` of this module's tokens (CK_TOKEN_INFO).
const MODEL: &str = "TPM 2.0";
const SCHEME: &str = "pkcs11:";
const PATH: [&str; 13] = [
    "id",
    "library-description",
    "library-manufacturer",
    "library-version",
    "manufacturer",
    "model",
    "object",
    "serial",
    "slot-description",
    "slot-id",
    "slot-manufacturer",
    "token",
    "type",
];
const QUERY: [&str; 4] = ["module-name", "module-path", "pin-source", "pin-value"];

/// A PKCS#11 URI without its vendor attributes and its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The names and decoded values of the attributes, in the order of the text. Names are unique.
    path: Vec<(&'static str, Vec<u8>)>,
}

/// A type of objects: a value of the attribute `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// CKO_PRIVATE_KEY
    Private,
    /// CKO_PUBLIC_KEY
    Public,
    /// CKO_CERTIFICATE
    Cert,
    /// CKO_SECRET_KEY
    SecretKey,
    /// CKO_DATA
    Data,
}

impl ObjectType {
    const WORDS: [(&str, Self); 5] = [
        ("private", Self::Private),
        ("public", Self::Public),
        ("cert", Self::Cert),
        ("secret-key", Self::SecretKey),
        ("data", Self::Data),
    ];

    fn parse(word: &[u8]) -> Option<Self> {
        let mut words = Self::WORDS.into_iter();
        let found = words.find(|(known, _)| known.as_bytes() == word);
        found.map(|(_, object_type)| object_type)
    }

    fn word(self) -> &'static str {
        let mut words = Self::WORDS.into_iter();
        let found = words.find(|(_, object_type)| *object_type == self);
        found.map_or("", |(word, _)| word)
    }
}

impl Uri {
    /// Returns true if a text begins like a PKCS#11 URI.
    pub fn is_uri(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Returns the URI of an object. An empty label is omitted.
    pub fn of_object(token: &str, label: &str, id: &[u8], object_type: ObjectType) -> Self {
        let mut path = vec![("token", token.as_bytes().to_vec())];
        if !label.is_empty() {
            path.push(("object", label.as_bytes().to_vec()));
        }
        if !id.is_empty() {
            path.push(("id", id.to_vec()));
        }
        path.push(("type", object_type.word().as_bytes().to_vec()));
        Self { path }
    }

    /// Parses a URI (RFC 7512, section 2.3). Vendor attributes and the query are checked, then
    /// dropped.
    ///
    /// # Errors
    ///
    /// Fails with a sentence that names the wrong part.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let rest = uri
            .strip_prefix(SCHEME)
            .ok_or_else(|| format!("{uri}: a PKCS#11 URI must begin with {SCHEME}"))?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(format!(
                "{uri}: the URI has no attributes; give token=, object= or id="
            ));
        }
        let path = attributes(path, ';', &PATH)?;
        for (name, value) in &path {
            check_value(name, value)?;
        }
        let query = match query {
            None | Some("") => Vec::new(),
            Some(query) => attributes(query, '&', &QUERY)?,
        };
        let gives = |wanted| query.iter().any(|(name, _)| *name == wanted);
        if gives("pin-source") && gives("pin-value") {
            return Err(
                "pin-source and pin-value: a URI may have only one of these attributes".into(),
            );
        }
        Ok(Self { path })
    }

    /// Returns the value of a path attribute, without trailing blanks.
    fn text(&self, name: &str) -> Option<&[u8]> {
        let value = self.bytes(name)?;
        Some(value.trim_ascii_end())
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.path.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_slice())
    }

    fn accepts(&self, name: &str, value: &str) -> bool {
        let value = value.trim_ascii_end().as_bytes();
        self.text(name).is_none_or(|wanted| wanted == value)
    }

    /// Returns the value of the attribute `type`.
    pub fn object_type(&self) -> Option<ObjectType> {
        ObjectType::parse(self.bytes("type")?)
    }

    /// Returns true if the URI has the attribute `token` with this label.
    pub fn names_token(&self, label: &str) -> bool {
        self.text("token") == Some(label.as_bytes())
    }

    /// Returns true if the URI has the attribute `object` or `id`.
    pub fn names_object(&self) -> bool {
        self.bytes("object").is_some() || self.bytes("id").is_some()
    }

    /// Returns the token and the label for a new key. A caller cannot choose other attributes.
    ///
    /// # Errors
    ///
    /// Fails if the URI has no label, or has other attributes of the key.
    pub fn for_new_key(&self) -> Result<(Option<String>, String), String> {
        let others = self.path.iter().map(|(name, _)| *name);
        let mut others = others.filter(|name| !matches!(*name, "token" | "object" | "type"));
        if let Some(other) = others.next() {
            return Err(format!(
                "{other}: for a new key a URI may have only token and object"
            ));
        }
        if !matches!(self.object_type(), None | Some(ObjectType::Private)) {
            return Err("type: the URI of a new key pair must have the type private".into());
        }
        let text = |name| {
            let value = self.bytes(name).map(String::from_utf8_lossy);
            value.map(String::from)
        };
        let label = text("object").ok_or("object: the URI has no label for the new key")?;
        Ok((text("token"), label))
    }

    /// Returns true if the URI matches a token of this module with one of these labels.
    /// [`Uri::matches_serial`] checks the serial number.
    pub fn matches_token(&self, labels: &[&str]) -> bool {
        labels.iter().any(|label| self.accepts("token", label))
            && self.accepts("manufacturer", MANUFACTURER)
            && self.accepts("library-manufacturer", MANUFACTURER)
            && self.accepts("model", MODEL)
    }

    /// Returns true if the URI matches this serial number.
    pub fn matches_serial(&self, serial: &str) -> bool {
        self.accepts("serial", serial)
    }

    /// Returns true if the URI matches this CKA_LABEL and CKA_ID.
    pub fn matches_object(&self, label: &str, id: &[u8]) -> bool {
        self.accepts("object", label) && self.bytes("id").is_none_or(|wanted| wanted == id)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for (number, (name, value)) in self.path.iter().enumerate() {
            if number > 0 {
                f.write_str(";")?;
            }
            write!(f, "{name}=")?;
            for byte in value {
                // RFC 7512, section 2.3: each byte of an id is escaped.
                match *name != "id" && is_unreserved(*byte) {
                    true => write!(f, "{}", char::from(*byte))?,
                    false => write!(f, "%{byte:02X}")?,
                }
            }
        }
        Ok(())
    }
}

/// Returns the name and the decoded value of each known attribute.
fn attributes(
    text: &str,
    separator: char,
    known: &[&'static str],
) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let mut found: Vec<(&'static str, Vec<u8>)> = Vec::new();
    for part in text.split(separator) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?}: expected NAME=VALUE"))?;
        let value = decoded(value, separator).map_err(|why| format!("{part}: {why}"))?;
        match known.iter().find(|known| **known == name) {
            Some(known) if found.iter().any(|(there, _)| there == known) => {
                return Err(format!("{name}: a URI may have this attribute only once"));
            }
            Some(known) => found.push((known, value)),
            None if is_vendors(name) => {}
            None => {
                return Err(format!(
                    "{part}: expected one of {}, with =; the attributes of vendors begin with x-",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(found)
}

fn is_vendors(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let rest = name.strip_prefix("x-");
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_of_name))
}

fn check_value(name: &str, value: &[u8]) -> Result<(), String> {
    let are_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let shape = match name {
        "id" => return Ok(()),
        "type" if ObjectType::parse(value).is_none() => {
            Some(ObjectType::WORDS.map(|(word, _)| word).join(", "))
        }
        "slot-id" if !are_digits(value) => Some("a number".into()),
        "library-version" => {
            let mut numbers = value.splitn(2, |byte| *byte == b'.');
            (!numbers.all(are_digits)).then(|| "MAJOR.MINOR in digits".into())
        }
        _ if std::str::from_utf8(value).is_err() => Some("UTF-8".into()),
        _ => None,
    };
    shape.map_or(Ok(()), |shape| Err(format!("{name}: expected {shape}")))
}

/// Returns a value without its escapes.
fn decoded(text: &str, separator: char) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(one) = rest.next() {
        if one != '%' {
            if !stands_for_itself(one, separator) {
                let mut utf8 = [0; 4];
                let utf8 = one.encode_utf8(&mut utf8).bytes();
                let escaped: String = utf8.map(|byte| format!("%{byte:02X}")).collect();
                return Err(format!("{one:?} must be written as {escaped}"));
            }
            bytes.push(u8::try_from(one).unwrap_or_default());
            continue;
        }
        let mut digit = || rest.next()?.to_digit(16);
        let byte = digit().zip(digit());
        let byte = byte.and_then(|(high, low)| u8::try_from(16 * high + low).ok());
        bytes.push(byte.ok_or("% must be followed by two hexadecimal digits")?);
    }
    Ok(bytes)
}

/// Returns true for a character that needs no escape: pk11-pchar in a path, pk11-qchar in a query.
/// A `/` is also accepted in a path, because many programs write it unescaped.
fn stands_for_itself(one: char, separator: char) -> bool {
    let reserved = match separator {
        ';' => ":[]@!$'()*+,=/&",
        _ => ":[]@!$'()*+,=/?|",
    };
    u8::try_from(one).is_ok_and(is_unreserved) || reserved.contains(one)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_read_back() {
        let written = Uri::of_object("b\u{FC}ro 3", "a/b;c", &[0x41, 0xFF], ObjectType::Cert);
        let text = "pkcs11:token=b%C3%BCro%203;object=a%2Fb%3Bc;id=%41%FF;type=cert";
        assert_eq!(written.to_string(), text);
        assert_eq!(Uri::parse(text), Ok(written));
    }

    #[test]
    fn each_attribute_counts() {
        let uri =
            Uri::parse("pkcs11:token=devid;object=my%20cloud;id=%01%Af;type=private").unwrap();
        assert_eq!(uri.object_type(), Some(ObjectType::Private));
        assert!(uri.matches_token(&["device keys", "devid"]));
        assert!(!uri.matches_token(&["device keys"]));
        assert!(uri.matches_object("my cloud", &[1, 0xAF]));
        assert!(!uri.matches_object("my cloud", &[1]));
        assert!(!uri.matches_object("cloud", &[1, 0xAF]));
        assert!(uri.matches_serial("any"));
        // Programs that copy the value from CK_TOKEN_INFO may keep its padding.
        let padded = Uri::parse("pkcs11:serial=7%20%20;model=TPM%202.0%20").unwrap();
        assert!(padded.matches_serial("7") && padded.matches_token(&["devid"]));
    }

    #[test]
    fn a_misspelt_uri_is_refused() {
        for wrong in [
            "idev-id",
            "pkcs11:",
            "pkcs11:idev-id",
            "pkcs11:objekt=idev-id",
            "pkcs11:token=idev-id?pin=1",
            "pkcs11:token=idev-id;",
        ] {
            assert!(Uri::parse(wrong).is_err(), "{wrong}");
        }
        for right in [
            "pkcs11:token=idev-id;type=private",
            "pkcs11:id=%01?pin-source=/p",
        ] {
            assert!(Uri::parse(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        let parts = [
            "pkcs11:", "token", "id", "=", ";", "%", "%4", "%zz", "?", "&", "x-", "\u{FC}", "\0",
        ];
        for a in parts {
            for b in parts {
                for c in parts {
                    for d in parts {
                        let _ = Uri::parse(&format!("pkcs11:{a}{b}{c}{d}"));
                    }
                }
            }
        }
    }
}
