//! Decides whether a server is trusted: by given certificates, or by the fingerprint of a
//! certificate.

use super::tls::provider;
use devid_core::x509::Certificate;
use devid_core::x509::clock_is_wrong;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The object identifier id-kp-cmcRA. A certificate with this purpose identifies an EST server with
/// any name (RFC 7030, section 3.6.1).
const CMC_RA: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 28];

/// Parses the SHA-256 of a whole certificate: hexadecimal digits, with or without colons.
///
/// # Errors
///
/// Fails if the text is not such a fingerprint.
pub(crate) fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.strip_prefix("sha256").unwrap_or(&lower);
    let digits = digits.trim_start_matches([':', ' ', '=']);
    let digits: String = digits.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    let bytes = devid_core::key::from_hex(&digits);
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        format!(
            "{text:?}: not a fingerprint; expected the SHA-256 of a whole certificate, 64 hexadecimal \
             digits (openssl x509 -noout -fingerprint -sha256 -in ca.pem)"
        )
    })
}

/// Trusts a server by these certificates. A CA certificate verifies a server that has the requested
/// name, or that may issue certificates by EST. The certificate of a server verifies only that
/// server.
#[derive(Debug)]
pub(super) struct TrustedServers {
    trusted: Vec<Certificate>,
    roots: Vec<TrustAnchor<'static>>,
    by_name: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl TrustedServers {
    /// # Errors
    ///
    /// Fails if no certificate can be used.
    pub(super) fn new(trusted: &[Certificate]) -> Result<Self, String> {
        let provider = provider();
        let (mut store, mut roots) = (RootCertStore::empty(), Vec::new());
        let mut why = String::from("there is no certificate");
        for one in trusted {
            if let Err(over) = one.is_valid_now() {
                why = format!("the trusted certificate of {} {over}", one.subject());
                continue;
            }
            let der = CertificateDer::from(one.der().to_vec());
            match anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned()) {
                Ok(anchor) => roots.push(anchor),
                Err(error) => why = format!("the certificate of {}: {error}", one.subject()),
            }
            let _ = store.add(der);
        }
        if roots.is_empty() {
            return Err(format!("no server can be trusted: {why}"));
        }
        let by_name =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        Ok(Self {
            trusted: trusted.to_vec(),
            roots,
            by_name: by_name.build().ok(),
            provider,
        })
    }

    /// Checks that the server's certificate may issue certificates by EST. The name of the server
    /// is not checked.
    fn is_registration_authority(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let says_so = Certificate::from_der(end_entity);
        if !says_so.is_ok_and(|one| one.is_of_registration_authority()) {
            return false;
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        EndEntityCert::try_from(end_entity).is_ok_and(|certificate| {
            // The CA certificates in the chain need not have this purpose.
            let usage = KeyUsage::required_if_present(CMC_RA);
            let way = certificate.verify_for_usage(
                algorithms,
                &self.roots,
                intermediates,
                now,
                usage,
                None,
                None,
            );
            way.is_ok()
        })
    }
}

impl CertificateJudge for TrustedServers {
    fn judge(&self, shown: &Shown) -> Result<(), Error> {
        let is_it = |one: &Certificate| one.der() == shown.end_entity.as_ref();
        if self.trusted.iter().any(is_it) {
            return Ok(());
        }
        let now = believed(shown.end_entity, shown.now);
        let Some(by_name) = &self.by_name else {
            return Err(Error::General("no trusted certificate can be used".into()));
        };
        let named = by_name.verify_server_cert(
            shown.end_entity,
            shown.intermediates,
            shown.server_name,
            shown.ocsp_response,
            now,
        );
        match named {
            Err(error)
                if !self.is_registration_authority(shown.end_entity, shown.intermediates, now) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// The server's certificates in a handshake, and the data that their check needs.
pub(super) struct Shown<'a> {
    end_entity: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    server_name: &'a ServerName<'a>,
    ocsp_response: &'a [u8],
    now: UnixTime,
}

/// Decides whether the certificates of a server are trusted.
pub(super) trait CertificateJudge: Debug + Send + Sync {
    fn judge(&self, shown: &Shown) -> Result<(), Error>;
}

/// Connects a judge to rustls. The signature of the handshake is always verified.
#[derive(Debug)]
struct ServerVerifier<J> {
    judge: Arc<J>,
    provider: Arc<CryptoProvider>,
}

/// Returns the rustls verifier that asks this judge.
pub(super) fn verifier<J: CertificateJudge + 'static>(
    judge: &Arc<J>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(ServerVerifier {
        judge: Arc::clone(judge),
        provider: provider(),
    })
}

impl<J: CertificateJudge> ServerCertVerifier for ServerVerifier<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Shown {
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        };
        self.judge.judge(&shown)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Returns the time for the check of a server's certificate. If the clock is before the build time
/// of this program, the clock is wrong. Then the start of the certificate's validity is used as the
/// time.
fn believed(end_entity: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    if !clock_is_wrong() {
        return now;
    }
    let begins = Certificate::from_der(end_entity)
        .ok()
        .and_then(|one| one.not_before().ok());
    let seconds = begins.and_then(|time| u64::try_from(time.unix_seconds()).ok());
    seconds.map_or(now, |seconds| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds + 1))
    })
}

/// Accepts any server, and records its certificates. Used only for the request for CA certificates,
/// whose answer is compared with a fingerprint. No other data is sent to such a server.
#[derive(Debug, Default)]
pub(super) struct Bootstrap {
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Bootstrap {
    /// Returns the certificates that the server showed in the handshake.
    pub(super) fn seen(&self) -> Vec<Certificate> {
        let seen = self
            .seen
            .lock()
            .map(|seen| seen.clone())
            .unwrap_or_default();
        seen.iter()
            .filter_map(|der| Certificate::from_der(der).ok())
            .collect()
    }
}

impl CertificateJudge for Bootstrap {
    fn judge(&self, shown: &Shown) -> Result<(), Error> {
        if let Ok(mut seen) = self.seen.lock() {
            let all = std::iter::once(shown.end_entity).chain(shown.intermediates);
            *seen = all.map(|one| one.as_ref().to_vec()).collect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_of_every_form() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in [
            plain.clone(),
            colons.clone(),
            format!("sha256 Fingerprint={colons}").replace(" Fingerprint", ""),
            format!("SHA256:{plain}"),
        ] {
            assert_eq!(fingerprint(&text), Ok([0xAB; 32]), "{text}");
        }
        for text in ["", "ab", &plain[1..], &"zz".repeat(32), &"ab".repeat(20)] {
            assert!(fingerprint(text).is_err(), "{text}");
        }
    }
}
