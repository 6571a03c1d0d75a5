//! TLS sessions with an EST server: the server is verified, and the client proves its identity.

use devid_core::identity::TlsIdentity;
use devid_core::key::{Curve, PublicKey};
use devid_core::tpm::{Hash, SignatureScheme as KeyScheme};
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig, ClientConnection, SignatureAlgorithm, SignatureScheme, StreamOwned,
    SupportedProtocolVersion, version,
};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A TLS session with a time limit.
pub(super) type Stream = StreamOwned<ClientConnection, LimitedStream>;

/// A TCP connection with one time limit for all reads and writes.
#[derive(Debug)]
pub(super) struct LimitedStream {
    tcp: TcpStream,
    end: Instant,
}

impl LimitedStream {
    /// Connects to the first IP address of the host that accepts a connection.
    pub(super) fn connect(host: &str, port: u16, limit: Duration) -> io::Result<Self> {
        let end = Instant::now() + limit;
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(end)?) {
                Ok(tcp) => return Ok(Self { tcp, end }),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl LimitedStream {
    /// Reduces the remaining time of the connection to this limit.
    pub(super) fn end_within(&mut self, limit: Duration) {
        self.end = self.end.min(Instant::now() + limit);
    }
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// Replaces the kernel's error "try again" by a timeout error.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for LimitedStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(left(self.end)?))?;
        self.tcp.read(room).map_err(timed_out)
    }
}

impl Write for LimitedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(left(self.end)?))?;
        self.tcp.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// The use of the client's identity in the handshake: used, not asked for, or not possible.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum ClientProof {
    /// The server asked for no certificate.
    #[default]
    NotAsked,
    /// The server asked for a certificate, and the client sent its certificate.
    Shown,
    /// The server accepts only signatures that the key cannot make.
    NoScheme(String),
    /// The key did not sign the handshake. The text is the reason.
    NoSignature(String),
}

/// The identity that is sent to a server that asks for a certificate.
#[derive(Debug)]
pub(super) struct ClientIdentity {
    identity: Arc<TlsIdentity>,
    certified: Option<Arc<CertifiedKey>>,
    proof: Arc<Mutex<ClientProof>>,
}

impl ClientIdentity {
    pub(super) fn new(identity: Arc<TlsIdentity>) -> Self {
        let proof = Arc::<Mutex<ClientProof>>::default();
        let chain = identity.chain().iter();
        let chain = chain
            .map(|one| CertificateDer::from(one.der().to_vec()))
            .collect();
        let key = StoreKey {
            identity: Arc::clone(&identity),
            proof: Arc::clone(&proof),
        };
        Self {
            certified: Some(Arc::new(CertifiedKey::new(chain, Arc::new(key)))),
            identity,
            proof,
        }
    }

    /// Returns whether the identity signed the last handshake.
    pub(super) fn proof(&self) -> ClientProof {
        self.proof
            .lock()
            .map(|proof| proof.clone())
            .unwrap_or_default()
    }

    pub(super) fn label(&self) -> &str {
        self.identity.label()
    }

    /// Returns the TLS versions that are offered. TLS 1.3 is offered only if the key can make a
    /// signature of TLS 1.3.
    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        match schemes(&self.identity, true).is_empty() {
            true => vec![&version::TLS12],
            false => rustls::DEFAULT_VERSIONS.to_vec(),
        }
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        set(&self.proof, ClientProof::Shown);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn set(proof: &Mutex<ClientProof>, value: ClientProof) {
    if let Ok(mut proof) = proof.lock() {
        *proof = value;
    }
}

/// A key of a token that signs handshakes.
#[derive(Debug)]
struct StoreKey {
    identity: Arc<TlsIdentity>,
    proof: Arc<Mutex<ClientProof>>,
}

/// A key of a token, and the signature scheme that was chosen for the handshake.
#[derive(Debug)]
struct StoreSigner {
    identity: Arc<TlsIdentity>,
    proof: Arc<Mutex<ClientProof>>,
    scheme: SignatureScheme,
    by: KeyScheme,
}

impl SigningKey for StoreKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        // rustls removes the schemes that TLS 1.3 forbids from the server's list. Every list of a
        // TLS 1.2 server contains PKCS#1 v1.5.
        let is_13 = !offered.iter().any(|one| is_pkcs1(*one));
        let found = schemes(&self.identity, is_13).into_iter();
        let found = found
            .into_iter()
            .find(|(scheme, _)| offered.contains(scheme));
        let Some((scheme, by)) = found else {
            let offered: Vec<String> = offered.iter().map(|one| format!("{one:?}")).collect();
            set(&self.proof, ClientProof::NoScheme(offered.join(", ")));
            return None;
        };
        Some(Box::new(StoreSigner {
            identity: Arc::clone(&self.identity),
            proof: Arc::clone(&self.proof),
            scheme,
            by,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.identity.public() {
            PublicKey::Ec { .. } => SignatureAlgorithm::ECDSA,
            PublicKey::Rsa { .. } => SignatureAlgorithm::RSA,
        }
    }
}

impl Signer for StoreSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.identity.sign(self.by, message).map_err(|error| {
            set(&self.proof, ClientProof::NoSignature(error.to_string()));
            rustls::Error::General(error.to_string())
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

fn is_pkcs1(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
    )
}

/// Returns the signature schemes of a key, the best scheme first. The hash that belongs to the key
/// comes before other hashes. In TLS 1.3 each curve has one hash.
fn schemes(identity: &TlsIdentity, is_13: bool) -> Vec<(SignatureScheme, KeyScheme)> {
    use SignatureScheme as S;
    let ecdsa = |scheme, hash| (scheme, KeyScheme::Ecdsa(hash));
    let (p256, p384, p521) = (
        ecdsa(S::ECDSA_NISTP256_SHA256, Hash::Sha256),
        ecdsa(S::ECDSA_NISTP384_SHA384, Hash::Sha384),
        ecdsa(S::ECDSA_NISTP521_SHA512, Hash::Sha512),
    );
    let all = match identity.public() {
        PublicKey::Ec { curve, .. } => {
            let all = match curve {
                Curve::P256 => vec![p256, p384, p521],
                Curve::P384 => vec![p384, p521, p256],
                Curve::P521 => vec![p521, p384, p256],
            };
            all[..if is_13 { 1 } else { 3 }].to_vec()
        }
        PublicKey::Rsa { .. } => {
            let pss = [
                (S::RSA_PSS_SHA256, KeyScheme::Rsapss(Hash::Sha256)),
                (S::RSA_PSS_SHA384, KeyScheme::Rsapss(Hash::Sha384)),
                (S::RSA_PSS_SHA512, KeyScheme::Rsapss(Hash::Sha512)),
            ];
            let pkcs1 = [
                (S::RSA_PKCS1_SHA256, KeyScheme::Rsassa(Hash::Sha256)),
                (S::RSA_PKCS1_SHA384, KeyScheme::Rsassa(Hash::Sha384)),
                (S::RSA_PKCS1_SHA512, KeyScheme::Rsassa(Hash::Sha512)),
            ];
            pss.into_iter()
                .chain(pkcs1.into_iter().filter(|_| !is_13))
                .collect()
        }
    };
    all.into_iter()
        .filter(|(_, by)| identity.signs(*by))
        .collect()
}

/// Returns the cryptographic algorithms for all TLS sessions.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Opens a session. Without an identity no certificate is sent.
///
/// # Errors
///
/// Fails if the server cannot be reached, or if the TLS handshake fails.
pub(super) fn open(
    (host, port): (&str, u16),
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    identity: Option<&Arc<ClientIdentity>>,
    limit: Duration,
) -> io::Result<Stream> {
    let versions = match identity {
        Some(identity) => identity.versions(),
        None => rustls::DEFAULT_VERSIONS.to_vec(),
    };
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions);
    let config = config.map_err(io::Error::other)?;
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => {
            set(&identity.proof, ClientProof::NotAsked);
            config.with_client_cert_resolver(Arc::<ClientIdentity>::clone(identity))
        }
        None => config.with_no_client_auth(),
    };
    // A resumed session may not contain the identity of the client.
    config.resumption = rustls::client::Resumption::disabled();
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| io::Error::other(format!("{host:?} is not a host name")))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let tcp = LimitedStream::connect(host, port, limit)?;
    let mut stream = StreamOwned::new(connection, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}
