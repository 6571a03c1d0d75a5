//! Checks a new certificate from a server before it replaces the present certificate of the key.

use crate::identity::key_file::read_key;
use crate::identity::prove::{NOT_TRIED, PossessionProof, prove};
use crate::identity::{Device, IdentityError, Imported, TlsIdentity, TokenEntry};
use crate::key::PublicKey;
use crate::x509::Certificate;
use crate::x509::clock::{now, valid_at};
use crate::x509::path::PathResult;
use serde::Serialize;
use std::sync::Arc;

/// The CAs that may have issued a new certificate.
#[derive(Clone, Copy, Default)]
pub struct EnrolmentRules<'a> {
    /// Trusted certificates in addition to those in `trust/`.
    pub trusted: &'a [Certificate],
    /// CA certificates that the path may use. They need not be trusted.
    pub others: &'a [Certificate],
    /// An additional check, for example a TLS handshake with the new identity. Its error tells why
    /// the check failed.
    pub proof: Option<&'a dyn Fn(Arc<TlsIdentity>) -> Result<(), String>>,
}

/// The result of an enrolment: the imported certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enrolled {
    /// What the import changed in the token.
    #[serde(flatten)]
    pub imported: Imported,
    /// The subject of the new certificate.
    pub subject: String,
    /// The notAfter of the new certificate (RFC 3339, UTC).
    pub not_after: Option<String>,
    /// The subjects of the CA certificates above the new certificate. The trusted certificate is
    /// last.
    pub chain: Vec<String>,
    /// True if the clock was plausible, so that the validity was checked.
    pub validity_checked: bool,
}

impl Device {
    /// Imports the certificate from a server's answer. The certificate is for the key of an entry,
    /// or for the successor of that key. It must pass these checks:
    ///
    /// - The certificate is for the key, and the key signs.
    /// - The certificate is valid now, and is not a CA certificate.
    /// - The certificate is not older than the one that it replaces.
    /// - The certificate leads to a trusted certificate.
    ///
    /// # Errors
    ///
    /// Fails if a check fails. After an error nothing was changed.
    pub fn accept(
        &self,
        entry: &TokenEntry,
        successor: Option<&TokenEntry>,
        answer: &[Certificate],
        rules: EnrolmentRules,
    ) -> Result<Enrolled, IdentityError> {
        let certified = successor.unwrap_or(entry);
        let public = certified.public.as_ref();
        let public =
            public.ok_or_else(|| IdentityError::failed("the type of the key is not supported"))?;
        let leaf = leaf_for(public, answer)?;
        self.check_new(entry, leaf)?;
        let (mut cas, mut known) = (Vec::new(), rules.others.to_vec());
        for one in answer.iter().filter(|one| *one != leaf && one.is_ca()) {
            cas.push(one.clone());
        }
        known.extend(cas.iter().cloned());
        known.extend(self.known_ca_certificates());
        let way = self.way_to_trusted(leaf, &known, rules)?;
        self.check_possession(certified, public)?;
        // The CA certificates of the path are stored, whatever their source is. So the device can
        // present the whole chain.
        for one in way.iter().skip(1).chain(rules.others.iter()) {
            if !cas.contains(one) {
                cas.push(one.clone());
            }
        }
        if let Some(proof) = rules.proof {
            let identity = self.new_identity(certified, &way)?;
            proof(Arc::new(identity)).map_err(|why| {
                IdentityError::refused(format!(
                    "the new certificate of {} did not pass the additional check: {why}; the old \
                     certificate stays in use",
                    leaf.subject()
                ))
            })?;
        }
        let taken = match self.store_of(entry) {
            Some(_) if successor.is_some() => self.succeed(entry, leaf, &cas),
            Some(store) => self.take(store, entry, leaf.clone(), &cas),
            None if entry.software.is_some() => self.take_in_software(entry, leaf, &cas),
            None => Err(IdentityError::refused(format!(
                "{}: devid does not replace the certificate of this key",
                entry.label
            ))),
        };
        self.tell_others();
        let mut imported = taken?;
        // A server may list all its CAs. The user gets no message about CA certificates that the
        // new certificate does not need.
        imported
            .unrelated
            .retain(|subject| answer.iter().any(|one| one.subject() == *subject));
        Ok(Enrolled {
            imported,
            subject: leaf.subject(),
            not_after: leaf.not_after().ok().map(|time| time.to_string()),
            chain: way.iter().skip(1).map(Certificate::subject).collect(),
            validity_checked: now().is_ok(),
        })
    }

    /// Checks the new certificate without its chain: it is for the key of the entry, for a device,
    /// valid, and not older than the present certificate.
    fn check_new(&self, entry: &TokenEntry, leaf: &Certificate) -> Result<(), IdentityError> {
        let refused = |why: String| {
            IdentityError::refused(format!(
                "the server's certificate of {} {why}; the old certificate stays in use",
                leaf.subject()
            ))
        };
        if let Some(why) = leaf.why_ca() {
            return Err(refused(format!("is not for a device: {why}")));
        }
        if let Ok(now) = now() {
            valid_at(leaf, now).map_err(&refused)?;
        }
        // A CA may set the start of a new certificate to an earlier time. The new certificate must
        // at least end later.
        let times = |one: &Certificate| one.not_before().ok().zip(one.not_after().ok());
        if let Some(old) = entry.certificate()
            && let (Some(new), Some(old)) = (times(leaf), times(old))
            && new.0 < old.0
            && new.1 <= old.1
        {
            return Err(refused(format!(
                "is older (from {} to {}) than the certificate that it should replace (from {} to \
                 {})",
                new.0, new.1, old.0, old.1
            )));
        }
        Ok(())
    }

    fn way_to_trusted(
        &self,
        leaf: &Certificate,
        known: &[Certificate],
        rules: EnrolmentRules,
    ) -> Result<Vec<Certificate>, IdentityError> {
        let trusted = self.trusted(None)?.and(rules.trusted);
        let why = match trusted.build_path(leaf, known, now().ok())? {
            PathResult::Trusted(way) => return Ok(way),
            PathResult::NoIssuer(issuer) => format!(
                "does not lead to a trusted certificate: the certificate of {issuer} is not in {}",
                self.config().trust.display()
            ),
            PathResult::SelfSigned => "is self-signed: no CA issued it".into(),
            PathResult::Invalid(why) => format!("does not lead to a trusted certificate: {why}"),
        };
        Err(IdentityError::refused(format!(
            "the server's certificate of {} {why}; the old certificate stays in use",
            leaf.subject()
        )))
    }

    /// Checks that the private key of the new certificate signs.
    fn check_possession(
        &self,
        entry: &TokenEntry,
        public: &PublicKey,
    ) -> Result<(), IdentityError> {
        let proof = match &entry.software {
            Some(path) => {
                let key = read_key(path).map_err(|unread| unread.fault(path))?;
                prove(&self.tpm, &key, public)
            }
            None => prove(&self.tpm, self.signing_key(entry, None)?.as_ref(), public),
        };
        let label = &entry.label;
        match proof {
            PossessionProof::Proven => Ok(()),
            PossessionProof::OtherKey => Err(IdentityError::failed(format!(
                "{label}: another key than the certified key made the signature; the old \
                 certificate stays in use"
            ))),
            PossessionProof::NotTried => {
                Err(IdentityError::failed(format!("{label}: {NOT_TRIED}")))
            }
            PossessionProof::NoSignature(error) => Err(error.into()),
        }
    }
}

/// Returns the certificate in the server's answer that is for the key of the entry. If there are
/// several, returns the newest.
fn leaf_for<'a>(
    public: &PublicKey,
    answer: &'a [Certificate],
) -> Result<&'a Certificate, IdentityError> {
    let ours = answer
        .iter()
        .filter(|one| one.public_key().as_ref() == Some(public));
    ours.max_by_key(|one| one.not_before().ok()).ok_or_else(|| {
        let others: Vec<String> = answer.iter().map(Certificate::subject).collect();
        IdentityError::refused(format!(
            "the server's certificate is for another key ({}); the old certificate stays in use",
            others.join("; ")
        ))
    })
}
