//! EST (RFC 7030, RFC 8951): sends the operations to a server, and interprets the answers.

use super::credentials::Credentials;
use super::http::{HttpError, Request, Response};
use super::tls::{self, ClientIdentity, ClientProof};
use super::trust::{Bootstrap, TrustedServers, verifier};
use super::url::{EstUrl, Redirect};
use crate::output::CommandError;
use devid_core::identity::TlsIdentity;
use devid_core::x509::{Certificate, CsrAttributes, certificates_of_answer};
use rustls::{AlertDescription, CertificateError};
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const MOST_REDIRECTS: usize = 3;
/// The time before the next request if the server names no time, and the limits of that time.
const WAIT: Duration = Duration::from_secs(60);
const SHORTEST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A server, the certificates that it is trusted by, and the identity that logs in.
pub(super) struct Client {
    pub(super) url: EstUrl,
    pub(super) servers: Arc<TrustedServers>,
    pub(super) identity: Option<Arc<ClientIdentity>>,
    pub(super) credentials: Option<Credentials>,
    /// The time limit of one request and its answer.
    pub(super) limit: Duration,
}

/// The result of a request for a certificate.
#[derive(Debug)]
pub(super) enum Issued {
    /// Certificates in any order.
    Certificates(Vec<Certificate>),
    /// The server has not decided yet. The request must be repeated after this time.
    Later(Duration),
}

/// The EST operation that requests a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Enroll,
    Reenroll,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Enroll => "simpleenroll",
            Self::Reenroll => "simplereenroll",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Client {
    /// Requests the certificates of the server's CAs.
    pub(super) fn cacerts(&self) -> Result<Vec<Certificate>, CommandError> {
        let response = self.ask("cacerts", None)?;
        match response.status {
            200 => certificates_of_answer(&response.body)
                .map_err(|why| self.fault("cacerts", format!("the server answered {why}"))),
            _ => Err(self.refused("cacerts", &response)),
        }
    }

    /// Requests the server's requirements for a certificate request.
    pub(super) fn csrattrs(&self) -> Result<CsrAttributes, CommandError> {
        let response = self.ask("csrattrs", None)?;
        match response.status {
            200 => CsrAttributes::parse(&response.body)
                .map_err(|why| self.fault("csrattrs", format!("the server answered {why}"))),
            // The server has no requirements.
            204 | 404 | 405 | 501 => Ok(CsrAttributes::default()),
            _ => Err(self.refused("csrattrs", &response)),
        }
    }

    /// Requests a certificate.
    pub(super) fn issue(
        &self,
        operation: Operation,
        request: &[u8],
    ) -> Result<Issued, CommandError> {
        let name = operation.name();
        let response = self.ask(name, Some(request))?;
        match response.status {
            // At least one server answers 201 and not 200.
            200 | 201 => certificates_of_answer(&response.body)
                .map(Issued::Certificates)
                .map_err(|why| self.fault(name, format!("the server answered {why}"))),
            202 => {
                let wait = response.retry_after(SystemTime::now()).unwrap_or(WAIT);
                Ok(Issued::Later(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)))
            }
            _ => Err(self.refused(name, &response)),
        }
    }

    /// Runs one operation. Follows redirects to the same server. Sends the password if the server
    /// requires a password.
    fn ask(&self, name: &str, pkcs10: Option<&[u8]>) -> Result<Response, CommandError> {
        let (mut path, mut authorization, mut led) = (self.url.operation(name), None, 0);
        loop {
            let response = self.send(name, &path, pkcs10, authorization.as_deref())?;
            match response.status {
                301 | 302 | 307 | 308 => {
                    let location = response.header("location").unwrap_or_default();
                    path = match self.url.redirect(&path, location.trim()) {
                        Redirect::Here(path) if led < MOST_REDIRECTS && !location.is_empty() => {
                            path
                        }
                        Redirect::Here(_) => {
                            return Err(self.fault(name, "the server redirects too often".into()));
                        }
                        Redirect::Elsewhere(to) => {
                            return Err(self.fault(
                                name,
                                format!(
                                    "the server redirects to another server, {to}, and nothing was sent to that server; if you \
                                     want to use it, give its URL with --est, and give --trust or --fingerprint"
                                ),
                            ));
                        }
                    };
                    led += 1;
                }
                401 if authorization.is_none() => match &self.credentials {
                    Some(credentials) => {
                        let method = if pkcs10.is_some() { "POST" } else { "GET" };
                        let challenges = response.headers("www-authenticate");
                        let fresh = fresh_digits().map_err(|why| self.fault(name, why))?;
                        let value = credentials.answer(&challenges, method, &path, &fresh);
                        authorization = Some(value.map_err(|why| self.fault(name, why))?);
                    }
                    None => return Ok(response),
                },
                _ => return Ok(response),
            }
        }
    }

    fn send(
        &self,
        name: &str,
        path: &str,
        pkcs10: Option<&[u8]>,
        authorization: Option<&str>,
    ) -> Result<Response, CommandError> {
        let place = (self.url.host.as_str(), self.url.port);
        let servers = verifier(&self.servers);
        let opened = tls::open(place, servers, self.identity.as_ref(), self.limit);
        let mut stream = opened.map_err(|error| self.unreachable(name, &error))?;
        if let Some(identity) = &self.identity
            && let ClientProof::NoScheme(offered) = identity.proof()
            && self.credentials.is_none()
        {
            return Err(self.fault(
                name,
                format!(
                    "the key of {} makes none of the signatures that the server accepts ({offered}); try another \
                     identity with --as LABEL",
                    identity.label()
                ),
            ));
        }
        let host = self.url.authority();
        let request = Request {
            host: &host,
            path,
            authorization,
            pkcs10,
        };
        request.exchange(&mut stream).map_err(|error| match error {
            HttpError::Io(error) => self.unreachable(name, &error),
            HttpError::Broken(what) => self.fault(name, what),
        })
    }

    fn fault(&self, name: &str, what: String) -> CommandError {
        CommandError::new(1, format!("{} ({name}): {what}", self.url))
    }

    fn unreachable(&self, name: &str, error: &io::Error) -> CommandError {
        if let Some(identity) = &self.identity
            && let ClientProof::NoSignature(why) = identity.proof()
        {
            let label = identity.label();
            return self.fault(name, format!("the key of {label} did not sign: {why}"));
        }
        self.fault(name, transport_fault(error, self.limit))
    }

    /// Returns the error for an HTTP status that is not a success.
    fn refused(&self, name: &str, response: &Response) -> CommandError {
        let words = response
            .words()
            .map_or(String::new(), |words| format!(": {words}"));
        let proof = self.identity.as_ref().map(|identity| identity.proof());
        let hint = match (response.status, proof, &self.credentials) {
            (401 | 403, Some(ClientProof::NotAsked), _) => {
                "; the server did not ask for a certificate in the TLS handshake (renegotiation is not supported)"
            }
            (401 | 403, None, None) => {
                "; no identity and no password were sent: give --as LABEL, or --user"
            }
            (401, _, None) => "; if the server wants a password: --user NAME --password-file FILE",
            (401, _, Some(_)) => "; the server does not accept this password",
            (403, ..) => "; the server does not allow this certificate for this identity",
            (404, ..) => "; the path of the URL may be wrong",
            (500..=599, ..) => "; the fault is in the server; try again later",
            _ => "",
        };
        let what = format!("the server answered {}{words}{hint}", response.status);
        self.fault(name, what)
    }
}

/// Requests the server's CA certificates, and returns them with the certificate that has the
/// fingerprint. At this time only the fingerprint is trusted. No identity is sent to the server.
pub(super) fn bootstrap(
    url: &EstUrl,
    fingerprint: &[u8; 32],
    limit: Duration,
) -> Result<Certificate, CommandError> {
    let fault = |what: String| CommandError::new(1, format!("{url} (cacerts): {what}"));
    let bootstrap = Arc::new(Bootstrap::default());
    let place = (url.host.as_str(), url.port);
    let mut path = url.operation("cacerts");
    for _ in 0..=MOST_REDIRECTS {
        let opened = tls::open(place, verifier(&bootstrap), None, limit);
        let mut stream = opened.map_err(|error| fault(transport_fault(&error, limit)))?;
        let host = url.authority();
        let request = Request {
            host: &host,
            path: &path,
            authorization: None,
            pkcs10: None,
        };
        // Even if the server refused the request, the TLS handshake showed the server's
        // certificate.
        let answer = request.exchange(&mut stream).unwrap_or_default();
        if let (301 | 302 | 307 | 308, Some(location)) = (answer.status, answer.header("location"))
            && let Redirect::Here(other) = url.redirect(&path, location.trim())
        {
            path = other;
            continue;
        }
        let told = match answer.status {
            200 => certificates_of_answer(&answer.body).unwrap_or_default(),
            _ => Vec::new(),
        };
        let all: Vec<Certificate> = told.into_iter().chain(bootstrap.seen()).collect();
        if let Some(found) = all.iter().find(|one| one.sha256() == *fingerprint) {
            return Ok(found.clone());
        }
        let seen: Vec<String> = all
            .iter()
            .map(|one| format!("{} {}", one.subject(), devid_core::key::hex(&one.sha256())))
            .collect();
        return Err(fault(format!(
            "no certificate of the server has the given fingerprint, so the server is not trusted, and \
             nothing was sent; the server has {}. Ask the CA's operator for the right fingerprint",
            seen.join(", ")
        )));
    }
    Err(fault("the server redirects too often".into()))
}

/// Opens a TLS session with this identity, to check whether the server accepts the identity. In TLS
/// 1.3 the server can refuse after the handshake. Therefore this function waits a short time.
pub(super) fn open_session(
    place: (&str, u16),
    servers: Arc<TrustedServers>,
    identity: Arc<TlsIdentity>,
    limit: Duration,
) -> Result<(), String> {
    const MOMENT: Duration = Duration::from_secs(1);
    let identity = Arc::new(ClientIdentity::new(identity));
    let words = |error: &io::Error| transport_fault(error, limit);
    let mut stream = tls::open(place, verifier(&servers), Some(&identity), limit)
        .map_err(|error| words(&error))?;
    match identity.proof() {
        ClientProof::Shown => {}
        ClientProof::NotAsked => return Err("the server asks for no certificate".into()),
        ClientProof::NoScheme(offered) => {
            return Err(format!(
                "the key makes none of the signatures that the server accepts ({offered})"
            ));
        }
        ClientProof::NoSignature(why) => return Err(why),
    }
    stream.sock.end_within(MOMENT);
    match stream.read(&mut [0; 1]) {
        Ok(_) => Ok(()),
        Err(error)
            if error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>()) =>
        {
            Err(words(&error))
        }
        Err(_) => Ok(()),
    }
}

fn fresh_digits() -> Result<String, String> {
    let mut fresh = [0; 16];
    devid_core::random(&mut fresh).map_err(|error| error.to_string())?;
    Ok(devid_core::key::hex(&fresh))
}

/// Describes the error of a failed connection or handshake.
fn transport_fault(error: &io::Error, limit: Duration) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None if error.kind() == io::ErrorKind::TimedOut => {
            format!("the server did not answer within {} s", limit.as_secs())
        }
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server ended the connection during the TLS handshake".into()
        }
        None => error.to_string(),
        Some(rustls::Error::AlertReceived(alert)) => alert_words(*alert),
        Some(rustls::Error::InvalidCertificate(why)) => certificate_words(why),
        Some(rustls::Error::InvalidMessage(_)) => "the server does not use TLS".into(),
        Some(other) => format!("TLS: {other}"),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            "the server does not accept the identity's certificate"
        }
        AlertDescription::CertificateRevoked => "the identity's certificate is revoked",
        AlertDescription::CertificateExpired => "the identity's certificate has expired",
        AlertDescription::UnknownCA => {
            "the server does not know the CA of the identity's certificate"
        }
        AlertDescription::CertificateRequired => {
            "the server wants a certificate, and none was sent: give --as LABEL"
        }
        AlertDescription::AccessDenied => "the server does not admit this identity",
        AlertDescription::DecryptError => {
            "the server does not accept the signature of the identity's key"
        }
        AlertDescription::IllegalParameter => {
            "with TLS 1.2 a server may want a key on a curve other than P-521"
        }
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => {
            "client and server share no version or cipher of TLS 1.2 or 1.3"
        }
        _ => "the server gives no reason",
    };
    format!("the server refused the TLS session ({alert:?}): {why}")
}

fn certificate_words(why: &CertificateError) -> String {
    let what = match why {
        CertificateError::UnknownIssuer => {
            "no trusted certificate verifies this certificate".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is for another name ({why})")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate or a CA certificate in its chain has expired ({why})")
        }
        other => other.to_string(),
    };
    format!("the server's certificate is not trusted: {what}")
}
