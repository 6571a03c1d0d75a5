//! An enrolment: finds or makes the key, logs in at the server, sends the request, and stores the
//! answer.

use super::credentials::Credentials;
use super::protocol::{Client, Issued, Operation, bootstrap, open_session};
use super::tls::ClientIdentity;
use super::trust::TrustedServers;
use super::url::EstUrl;
use crate::output::CommandError;
use devid_core::identity::{
    Device, Enrolled, EnrolmentRecord, EnrolmentRules, FACTORY, IdentityErrorKind, KeyStorage,
    TlsIdentity, TokenEntry,
};
use devid_core::key::{Curve, PublicKey};
use devid_core::store::devid::{KeyAlgorithm, KeyPurpose};
use devid_core::tpm::Secret;
use devid_core::x509::{Certificate, CsrAttributes, RequestContent};
use log::{info, warn};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How the EST server is verified.
#[derive(Debug, Clone)]
pub(crate) enum ServerTrust {
    /// A certificate in this file must verify the server.
    File(PathBuf),
    /// A CA certificate of the server must have this SHA-256 fingerprint.
    Fingerprint([u8; 32]),
}

/// The parameters of an enrolment by EST.
pub(crate) struct Enrolment<'a> {
    pub(crate) device: &'a Device,
    pub(crate) label: String,
    pub(crate) url: EstUrl,
    pub(crate) trust: ServerTrust,
    /// The identity that logs in at the server.
    pub(crate) as_identity: Option<String>,
    /// The content of the certificate request.
    pub(crate) content: RequestContent,
    /// The algorithm of a new key. The default is the algorithm that the server requires, or else
    /// P-256.
    pub(crate) algorithm: Option<KeyAlgorithm>,
    /// True if a new key will replace the current key.
    pub(crate) new_key: bool,
    pub(crate) pin: Option<Secret>,
    /// The time limit of one HTTP request and its response.
    pub(crate) limit: Duration,
    /// The longest wait for a server that has not decided yet.
    pub(crate) patience: Duration,
    /// True if the server's root certificates may verify the new certificate, in addition to the
    /// certificates in `trust/`.
    pub(crate) believes_server: bool,
    /// The server (HOST:PORT) for a test: devid must open a TLS session with the new certificate
    /// before the certificate replaces the old certificate.
    pub(crate) prove: Option<String>,
    /// True if `reload` commands will run after the enrolment. The record of the enrolment is then
    /// kept until they have run.
    pub(crate) reloads: bool,
}

/// The result of an enrolment by EST.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) label: String,
    pub(crate) server: String,
    /// The EST operation: `simpleenroll` or `simplereenroll`.
    pub(crate) operation: String,
    /// True if `devid` generated the key for this enrolment.
    pub(crate) key_made: bool,
    /// The identity that logged in at the server.
    pub(crate) shown: Option<String>,
    /// The certificate with the given fingerprint.
    pub(crate) trusted: Option<TrustedCertificate>,
    /// The stored certificate.
    pub(crate) enrolled: Option<Enrolled>,
    /// The time in seconds before the next request. `Some` means that no certificate was stored
    /// yet.
    pub(crate) retry_after: Option<u64>,
}

/// A key, its successor that waits for a certificate, and the record of the request. If there is a
/// successor, the request is for the successor.
struct Requested {
    key: TokenEntry,
    successor: Option<TokenEntry>,
    record: EnrolmentRecord,
}

/// A certificate that was trusted by its fingerprint.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TrustedCertificate {
    pub(crate) subject: String,
    pub(crate) sha256: String,
}

impl Enrolment<'_> {
    /// Requests a certificate and stores it.
    ///
    /// # Errors
    ///
    /// If this function fails, no certificate was stored, and the previous certificate stays in
    /// use. The request is recorded, so the next call continues with it.
    pub(crate) fn run(&self, credentials: Option<Credentials>) -> Result<Outcome, CommandError> {
        let there = self.key()?;
        let shown = self.shown(there.as_ref())?;
        let operation = match (&there, &shown) {
            (Some(key), Some(shown)) if is_same(key, shown) && !self.content.names_somebody() => {
                Operation::Reenroll
            }
            _ => Operation::Enroll,
        };
        let identity = shown.as_ref().map(|shown| {
            let identity = self.device.tls_identity(shown, self.pin.as_ref())?;
            Ok::<_, CommandError>(Arc::new(ClientIdentity::new(Arc::new(identity))))
        });
        let (given, trusted) = self.trusted_certificates()?;
        let client = Client {
            url: self.url.clone(),
            servers: Arc::new(
                TrustedServers::new(&given).map_err(|why| CommandError::new(1, why))?,
            ),
            identity: identity.transpose()?,
            credentials,
            limit: self.limit,
        };
        let cas = client.cacerts()?;
        let mut outcome = Outcome {
            label: self.label.clone(),
            server: self.url.to_string(),
            operation: operation.to_string(),
            key_made: there.is_none(),
            shown: shown.as_ref().map(|one| one.label.clone()),
            trusted,
            enrolled: None,
            retry_after: None,
        };
        let Requested {
            key,
            successor,
            record,
        } = self.requested(there, operation, &client)?;
        outcome.key_made |= successor.is_some();
        let asked = self.issued(&client, operation, &record);
        let done = asked.and_then(|issued| match issued {
            Issued::Later(wait) => Ok(Err(wait)),
            Issued::Certificates(answer) => {
                let mut trusted = given.clone();
                if self.believes_server {
                    trusted.extend(roots(&cas));
                }
                let prove = |identity| self.prove(identity, &given);
                let rules = EnrolmentRules {
                    trusted: &trusted,
                    others: &cas,
                    proof: self.prove.as_ref().map(|_| &prove as _),
                };
                if self.reloads {
                    self.device.keep_enrolment(&EnrolmentRecord {
                        reload_due: true,
                        ..record.clone()
                    })?;
                }
                let accepted = self.device.accept(&key, successor.as_ref(), &answer, rules);
                Ok(Ok(accepted?))
            }
        });
        match done {
            Ok(Ok(enrolled)) => {
                match self.reloads {
                    true => self.device.keep_enrolment(&EnrolmentRecord {
                        reload_due: true,
                        failures: 0,
                        fault: String::new(),
                        ..record.with_request(None)
                    })?,
                    false => self.device.forget_enrolment(&key.token, &key.label)?,
                }
                outcome.enrolled = Some(enrolled);
            }
            Ok(Err(wait)) => {
                self.device.keep_enrolment(&EnrolmentRecord {
                    retry_at: seconds_now().saturating_add(wait.as_secs()),
                    failures: 0,
                    fault: String::new(),
                    ..record
                })?;
                outcome.retry_after = Some(wait.as_secs());
            }
            Err(error) => {
                // The request may be the cause of the refusal. The next run makes a new request.
                self.device.keep_enrolment(&EnrolmentRecord {
                    retry_at: 0,
                    ..record.with_request(None)
                })?;
                return Err(error);
            }
        }
        Ok(outcome)
    }

    /// Returns the key with this label. Returns `None` if no key has the label.
    fn key(&self) -> Result<Option<TokenEntry>, CommandError> {
        let entry = match self.device.find(&self.label) {
            Ok(entry) => entry,
            Err(fault) if fault.kind == IdentityErrorKind::NotFound => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        let label = &self.label;
        match (
            entry.token == FACTORY,
            entry.key.is_some() || entry.software.is_some(),
        ) {
            (true, _) => Err(CommandError::new(
                6,
                format!(
                    "{label}: the factory's certificate is never replaced; enroll a key under another label \
                     with --as {label}"
                ),
            )),
            (false, true) => Ok(Some(entry)),
            (false, false) => Err(CommandError::new(
                6,
                format!("{label}: this object is not a private key; choose another label"),
            )),
        }
    }

    /// Returns the identity that logs in at the server: the named identity, or the identity to be
    /// renewed, or the factory identity.
    fn shown(&self, key: Option<&TokenEntry>) -> Result<Option<TokenEntry>, CommandError> {
        if let Some(named) = &self.as_identity {
            return Ok(Some(self.device.find(named)?));
        }
        let is_issued = |one: &Certificate| {
            !one.is_self_signed() && one.is_for_clients() && one.is_valid_now().is_ok()
        };
        if let Some(key) = key.filter(|key| key.certificate().is_some_and(is_issued)) {
            return Ok(Some(key.clone()));
        }
        match self.device.find(FACTORY) {
            Ok(factory) if factory.key.is_some() => Ok(Some(factory)),
            Ok(_) => Ok(None),
            Err(fault) if fault.kind == IdentityErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Returns the certificates that verify the server. If a fingerprint was given, also returns
    /// the certificate with that fingerprint.
    fn trusted_certificates(
        &self,
    ) -> Result<(Vec<Certificate>, Option<TrustedCertificate>), CommandError> {
        match &self.trust {
            ServerTrust::File(path) => Ok((self.device.certificates_in(path)?, None)),
            ServerTrust::Fingerprint(wanted) => {
                let found = bootstrap(&self.url, wanted, self.limit)?;
                let trusted = TrustedCertificate {
                    subject: found.subject(),
                    sha256: devid_core::key::hex(&found.sha256()),
                };
                info!(
                    "trusted by its fingerprint: {} {}",
                    trusted.subject, trusted.sha256
                );
                Ok((vec![found], Some(trusted)))
            }
        }
    }

    /// Returns the key and its request. Makes the key if it is missing. The request is the request
    /// that the server already has, or a new request. A new request is recorded before it is sent.
    fn requested(
        &self,
        there: Option<TokenEntry>,
        operation: Operation,
        client: &Client,
    ) -> Result<Requested, CommandError> {
        let asked = format!("{operation} {:?} {:?}", self.content, self.algorithm);
        let waits = match &there {
            Some(key) => self.device.successor(key)?,
            None => None,
        };
        if let Some(key) = &there {
            let known = self
                .device
                .enrolment(&key.token, &key.label)
                .unwrap_or_else(|fault| {
                    warn!("{fault}");
                    None
                });
            let known = known.filter(|one| one.url == self.url.to_string() && one.asked == asked);
            let request = known.as_ref().and_then(EnrolmentRecord::request_der);
            if let (Some(record), Some(request)) = (known, request)
                && self
                    .device
                    .is_request_of(waits.as_ref().unwrap_or(key), &request)
                && (waits.is_some() || !self.new_key)
            {
                info!("the request of the last run is sent again");
                return Ok(Requested {
                    key: key.clone(),
                    successor: waits,
                    record,
                });
            }
        }
        let wishes = client.csrattrs()?;
        if wishes.wants_channel_binding {
            return Err(CommandError::new(
                1,
                format!(
                    "{}: the server requires requests that are bound to the TLS session (tls-unique), and \
                     devid does not support this; ask the server's operator to switch it off",
                    self.url
                ),
            ));
        }
        let (key, successor) = match there {
            Some(key) if self.new_key || waits.is_some() => {
                let algorithm = self.algorithm.or(self.wished(&wishes)?);
                let (waits, _) = self.device.rekey(&key, algorithm)?;
                (key, Some(waits))
            }
            Some(key) => (key, None),
            None => (self.make_key(&wishes)?, None),
        };
        let certified = successor.as_ref().unwrap_or(&key);
        check_kind(certified, &wishes, self)?;
        let mut content = match (operation, key.certificate()) {
            (Operation::Reenroll, Some(old)) => {
                RequestContent::renewing(old)?.overridden_by(self.content.clone())
            }
            _ => self.content.clone(),
        };
        content.with_wishes(&wishes)?;
        let request = self
            .device
            .request(certified, &content, self.pin.as_ref())?;
        let before = self.device.enrolment(&key.token, &key.label).ok().flatten();
        let record = EnrolmentRecord {
            token: key.token.clone(),
            label: key.label.clone(),
            url: self.url.to_string(),
            asked,
            retry_at: 0,
            ..before.unwrap_or_default()
        };
        let record = record.with_request(Some(&request));
        self.device.keep_enrolment(&record)?;
        Ok(Requested {
            key,
            successor,
            record,
        })
    }

    /// Returns the key algorithm that the server requires in its CSR attributes.
    fn wished(&self, wishes: &CsrAttributes) -> Result<Option<KeyAlgorithm>, CommandError> {
        match &wishes.key {
            Some(Err(kind)) if self.algorithm.is_none() => Err(self.unknown_kind(kind)),
            Some(Ok(kind)) => Ok(Some(*kind)),
            _ => Ok(None),
        }
    }

    fn make_key(&self, wishes: &CsrAttributes) -> Result<TokenEntry, CommandError> {
        let wished = self.wished(wishes)?;
        let algorithm = self
            .algorithm
            .or(wished)
            .unwrap_or(KeyAlgorithm::Ec(Curve::P256));
        let usage = KeyPurpose {
            signs: true,
            decrypts: false,
        };
        let made = self
            .device
            .generate_key(&self.label, algorithm, usage, KeyStorage::Wrapped)?;
        info!("a key was made: {}", self.label);
        Ok(made)
    }

    fn unknown_kind(&self, kind: &str) -> CommandError {
        CommandError::new(
            1,
            format!(
                "{}: the server requires {kind}, and this device does not make such keys",
                self.url
            ),
        )
    }

    /// Sends the request. Sends the request again while the server has not decided and the time
    /// limit has not passed.
    fn issued(
        &self,
        client: &Client,
        operation: Operation,
        record: &EnrolmentRecord,
    ) -> Result<Issued, CommandError> {
        let request = record.request_der().unwrap_or_default();
        let mut left = self.patience;
        loop {
            match client.issue(operation, &request)? {
                Issued::Later(wait) if wait <= left => {
                    info!(
                        "the server has not decided yet; the next request is in {} s",
                        wait.as_secs()
                    );
                    std::thread::sleep(wait);
                    left -= wait;
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Opens a TLS session with the new identity, to the server that the configuration names.
    fn prove(&self, identity: Arc<TlsIdentity>, trusted: &[Certificate]) -> Result<(), String> {
        let Some((host, port)) = self
            .prove
            .as_deref()
            .and_then(|place| place.rsplit_once(':'))
        else {
            return Ok(());
        };
        let port: u16 = port
            .parse()
            .map_err(|_| format!("{port:?} is not a port"))?;
        let all = [trusted, &self.device.trusted_certificates()?].concat();
        let servers = Arc::new(TrustedServers::new(&all)?);
        let place = (host.trim_matches(['[', ']']), port);
        open_session(place, servers, identity, self.limit)
            .map_err(|why| format!("{host}:{port}: {why}"))
    }
}

/// Records the reason of a failed enrolment.
pub(crate) fn note_failure(
    device: &Device,
    (token, label): (&str, &str),
    url: &str,
    error: &CommandError,
) {
    let before = device.enrolment(token, label).ok().flatten();
    let before = before.unwrap_or_else(|| EnrolmentRecord {
        token: token.to_owned(),
        label: label.to_owned(),
        url: url.to_owned(),
        ..EnrolmentRecord::default()
    });
    let noted = device.keep_enrolment(&EnrolmentRecord {
        url: match before.request.is_empty() {
            true => url.to_owned(),
            false => before.url.clone(),
        },
        failures: before.failures.saturating_add(1),
        fault: error.text.clone(),
        failed_at: seconds_now(),
        ..before
    });
    if let Err(fault) = noted {
        warn!("the failure could not be recorded: {fault}");
    }
}

/// Checks that the key has the algorithm that the server requires.
fn check_kind(
    key: &TokenEntry,
    wishes: &CsrAttributes,
    enrolment: &Enrolment,
) -> Result<(), CommandError> {
    let is = match &key.public {
        Some(PublicKey::Ec { curve, .. }) => KeyAlgorithm::Ec(*curve),
        Some(public @ PublicKey::Rsa { .. }) => KeyAlgorithm::Rsa(public.bits()),
        None => return Ok(()),
    };
    let words = |kind: KeyAlgorithm| match kind {
        KeyAlgorithm::Ec(curve) => format!("{curve:?}"),
        KeyAlgorithm::Rsa(bits) => format!("RSA-{bits}"),
    };
    match &wishes.key {
        Some(Err(kind)) => Err(enrolment.unknown_kind(kind)),
        Some(Ok(wanted)) if *wanted != is => Err(CommandError::new(
            1,
            format!(
                "{}: the server requires a {} key, and {} is a {} key; use a new label, so that devid \
                 makes a key of the required type",
                enrolment.url,
                words(*wanted),
                key.label,
                words(is)
            ),
        )),
        _ => Ok(()),
    }
}

fn is_same(one: &TokenEntry, other: &TokenEntry) -> bool {
    one.token == other.token && one.public == other.public
}

/// Returns the self-signed certificates in `cas`.
fn roots(cas: &[Certificate]) -> Vec<Certificate> {
    cas.iter()
        .filter(|one| one.is_self_signed())
        .cloned()
        .collect()
}

fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
