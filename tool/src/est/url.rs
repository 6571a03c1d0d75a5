//! The URL of an EST server (RFC 7030, section 3.2.2).

use std::fmt;

const WELL_KNOWN: &str = "/.well-known/est";
const HTTPS: u16 = 443;

/// The URL of an EST server. The name of an operation is appended to the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EstUrl {
    /// A host name or an IP address. An IPv6 address has no brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The path of the URL, without a slash at its end.
    path: String,
}

/// The target of an HTTP redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// A path on the same server.
    Here(String),
    /// Another server.
    Elsewhere(String),
}

impl EstUrl {
    /// Parses `https://HOST[:PORT][/PATH]`. The default path is the well-known path of EST.
    ///
    /// # Errors
    ///
    /// Describes the mistake in the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fault = |what: &str| {
            Err(format!(
                "{text:?}: {what}; expected https://HOST[:PORT][/PATH]"
            ))
        };
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some(_) => return fault("EST needs a URL with https://"),
            None => return fault("not a URL"),
        };
        if rest.contains(['?', '#', '\\']) || !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fault("the URL of an EST server must not contain a query or blanks");
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return fault("the URL must not contain a password; use --user and --password-file");
        }
        let Some((host, port)) = split_port(authority) else {
            return fault("the URL has no host");
        };
        let path = path.trim_end_matches('/');
        Ok(Self {
            host,
            port,
            path: if path.is_empty() { WELL_KNOWN } else { path }.to_owned(),
        })
    }

    /// Returns the path of an EST operation, for example `simpleenroll`.
    pub(super) fn operation(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Returns the value of the header Host.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            HTTPS => host,
            port => format!("{host}:{port}"),
        }
    }

    /// Resolves the header Location in the response to a request for `path`.
    pub(super) fn redirect(&self, path: &str, location: &str) -> Redirect {
        let elsewhere = || Redirect::Elsewhere(location.to_owned());
        if let Some(rest) = location.strip_prefix("//") {
            return self.redirect(path, &format!("https://{rest}"));
        }
        if let Some((scheme, rest)) = location.split_once("://") {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let same = scheme.eq_ignore_ascii_case("https")
                && split_port(authority).is_some_and(|(host, port)| {
                    host.eq_ignore_ascii_case(&self.host) && port == self.port
                });
            return match (same, path) {
                (true, "") => Redirect::Here("/".into()),
                (true, path) => Redirect::Here(path.to_owned()),
                (false, _) => elsewhere(),
            };
        }
        match location.starts_with('/') {
            true => Redirect::Here(location.to_owned()),
            // A relative path replaces the last part of the requested path.
            false => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Redirect::Here(format!("{folder}/{location}"))
            }
        }
    }
}

/// Splits a text into host and port. An IPv6 address is in brackets.
fn split_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (
                host,
                rest.strip_prefix(':').or(rest.is_empty().then_some(""))?,
            )
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = if port.is_empty() {
        HTTPS
    } else {
        port.parse().ok()?
    };
    (!host.is_empty() && port != 0).then(|| (host.to_owned(), port))
}

impl fmt::Display for EstUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_form() {
        for (text, authority, path) in [
            (
                "https://est.example",
                "est.example",
                "/.well-known/est/cacerts",
            ),
            (
                "HTTPS://est.example:443/",
                "est.example",
                "/.well-known/est/cacerts",
            ),
            (
                "https://est.example:8443/.well-known/est/a/b/",
                "est.example:8443",
                "/.well-known/est/a/b/cacerts",
            ),
            ("https://[::1]:9/x", "[::1]:9", "/x/cacerts"),
            ("https://[::1]", "[::1]", "/.well-known/est/cacerts"),
            ("https://192.0.2.1/x", "192.0.2.1", "/x/cacerts"),
        ] {
            let url = EstUrl::parse(text).unwrap();
            assert_eq!(
                (url.authority().as_str(), url.operation("cacerts").as_str()),
                (authority, path)
            );
        }
        for text in [
            "est.example",
            "http://est.example",
            "https://",
            "https://:8443",
            "https://a:x",
            "https://a:0",
            "https://u:p@a",
            "https://a/?x",
            "https://a b",
            "https://[::1",
            "https://a:70000",
        ] {
            assert!(EstUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_server_without_port_listens_at_443() {
        for (text, host, port) in [
            ("https://est.example", "est.example", 443),
            ("https://est.example:/", "est.example", 443),
            ("https://[2001:db8::1]", "2001:db8::1", 443),
            ("https://[2001:db8::1]/est", "2001:db8::1", 443),
            ("https://[2001:db8::1]:8443", "2001:db8::1", 8443),
            ("https://192.0.2.1/est", "192.0.2.1", 443),
        ] {
            let url = EstUrl::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
        }
    }

    #[test]
    fn only_the_same_server_is_here() {
        let url = EstUrl::parse("https://a.example:8443").unwrap();
        let led = |location: &str| url.redirect("/x/cacerts", location);
        for (location, path) in [
            ("/y", "/y"),
            ("https://A.example:8443/z", "/z"),
            ("//a.example:8443/z", "/z"),
            ("cacerts/", "/x/cacerts/"),
        ] {
            assert_eq!(led(location), Redirect::Here(path.into()), "{location}");
        }
        for location in [
            "https://a.example/z",
            "http://a.example:8443/z",
            "https://b.example:8443/z",
            "//evil/z",
            "https://a.example:8443@evil/z",
            "https://a.example:8443.evil/z",
        ] {
            assert!(
                matches!(led(location), Redirect::Elsewhere(_)),
                "{location}"
            );
        }
    }
}
