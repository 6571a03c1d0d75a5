//! HTTP authentication (Basic: RFC 7617, Digest: RFC 7616), for a server that requires a password.

use base64ct::{Base64, Encoding};
use devid_core::key::hex;
use devid_core::tpm::Hash;

/// A user name and a password for the EST server.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: devid_core::tpm::Secret,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({:?})", self.user)
    }
}

impl Credentials {
    /// Returns the value of the header Authorization for the challenges of the server (header
    /// WWW-Authenticate). `fresh`: random digits for the nonce of the client.
    ///
    /// # Errors
    ///
    /// Fails if the server requires a scheme that is not supported.
    pub(super) fn answer(
        &self,
        challenges: &[String],
        method: &str,
        path: &str,
        fresh: &str,
    ) -> Result<String, String> {
        let parsed = challenges.iter().flat_map(|text| challenges_of(text));
        let all: Vec<Challenge> = parsed.collect();
        let digest = all
            .iter()
            .find_map(|one| self.digest(one, method, path, fresh));
        if let Some(value) = digest {
            return Ok(value);
        }
        match all
            .iter()
            .any(|one| one.scheme.eq_ignore_ascii_case("basic"))
        {
            true => {
                let pair = [self.user.as_bytes(), b":", &self.password[..]].concat();
                Ok(format!("Basic {}", Base64::encode_string(&pair)))
            }
            false => Err(format!(
                "the server requires a password by {}, but devid supports only Basic, and Digest \
                 with SHA-256",
                challenges.join(", ")
            )),
        }
    }

    fn digest(
        &self,
        challenge: &Challenge,
        method: &str,
        path: &str,
        fresh: &str,
    ) -> Option<String> {
        let algorithm = challenge.parameter("algorithm")?;
        let quality = challenge.parameter("qop")?;
        if !challenge.scheme.eq_ignore_ascii_case("digest")
            || !algorithm.eq_ignore_ascii_case("SHA-256")
            || !quality.split(',').any(|one| one.trim() == "auth")
        {
            return None;
        }
        let (realm, nonce) = (challenge.parameter("realm")?, challenge.parameter("nonce")?);
        let hash = |parts: &[&[u8]]| hex(&Hash::Sha256.digest(parts));
        let secret = hash(&[
            self.user.as_bytes(),
            b":",
            realm.as_bytes(),
            b":",
            &self.password[..],
        ]);
        let about = hash(&[method.as_bytes(), b":", path.as_bytes()]);
        let response =
            hash(&[format!("{secret}:{nonce}:00000001:{fresh}:auth:{about}").as_bytes()]);
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{path}\", algorithm=SHA-256, \
             qop=auth, nc=00000001, cnonce=\"{fresh}\", response=\"{response}\"",
            quoted(&self.user),
            quoted(realm),
            quoted(nonce)
        );
        if let Some(opaque) = challenge.parameter("opaque") {
            value += &format!(", opaque=\"{}\"", quoted(opaque));
        }
        Some(value)
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A challenge: its scheme, and its parameters with names in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Returns the challenges of a header. A header may hold several (RFC 9110, section 11.6.1).
fn challenges_of(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    for part in parts(text) {
        let (first, rest) = match part.split_once(char::is_whitespace) {
            // This part starts a new challenge: the scheme, and possibly its first parameter.
            Some((scheme, rest)) if !scheme.contains('=') => (Some(scheme), rest.trim()),
            None if !part.contains('=') => (Some(part.as_str()), ""),
            _ => (None, part.as_str()),
        };
        if let Some(scheme) = first {
            found.push(Challenge {
                scheme: scheme.to_owned(),
                parameters: Vec::new(),
            });
        }
        if let (Some(last), Some((name, value))) = (found.last_mut(), rest.split_once('=')) {
            let value = value.trim();
            let bare = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            let value = bare.map_or_else(|| value.to_owned(), |bare| bare.replace('\\', ""));
            last.parameters
                .push((name.trim().to_ascii_lowercase(), value));
        }
    }
    found
}

/// Returns the parts of a header value between commas that are not inside quotes.
fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        match c {
            ',' if !quoted => {
                parts.push(String::new());
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    let trimmed = parts.iter().map(|part| part.trim().to_owned());
    trimmed.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa(password: &str) -> Credentials {
        Credentials {
            user: "Mufasa".into(),
            password: devid_core::tpm::Secret::new(password.as_bytes().to_vec()),
        }
    }

    /// The example of RFC 7616, section 3.9.1.
    #[test]
    fn the_standards_digest_is_made() {
        let challenge = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
                         nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                         opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let fresh = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let value =
            mufasa("Circle of Life").answer(&[challenge.into()], "GET", "/dir/index.html", fresh);
        let value = value.unwrap();
        let response =
            "response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\"";
        assert!(value.contains(response), "{value}");
    }

    #[test]
    fn basic_is_made_where_nothing_better_is_offered() {
        let both = "Basic realm=\"a, b\", Digest realm=\"x\", nonce=\"n\", algorithm=MD5";
        let value = mufasa("p\u{e4}ss:word")
            .answer(&[both.into()], "POST", "/", "0")
            .unwrap();
        assert_eq!(value, "Basic TXVmYXNhOnDDpHNzOndvcmQ=");
        let why = mufasa("x")
            .answer(&["Negotiate".into()], "POST", "/", "0")
            .unwrap_err();
        assert!(why.contains("Negotiate"), "{why}");
    }
}
