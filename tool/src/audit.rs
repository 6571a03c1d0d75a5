//! The audit line of a verb that changes an object or uses a private key.

use crate::cli::{KeyVerb, MasterVerb, RenewArgs, TokenVerb, Verb};
use crate::evidence_cli::CaVerb;
use crate::output::{Output, kind_of};
use crate::settings::Settings;
use devid_core::audit::{AuditLog, AuditSubject};
use devid_core::config;
use log::{info, warn};

/// The audit line of a command of `devid`.
pub(crate) struct Audited {
    verb: &'static str,
    /// The label of the object that the command line names.
    label: Option<String>,
    /// True if the verb changes an object. A change is always audited. A use of a key is audited
    /// only if `[log] audit` is set.
    is_change: bool,
}

impl Audited {
    /// Returns the audit entry of a verb. Returns `None` if the verb only reads.
    pub(crate) fn of(verb: &Verb) -> Option<Self> {
        let change = |verb| Some((verb, None, true));
        let changes = |verb, label: &String| Some((verb, Some(label.clone()), true));
        let uses = |verb, label: &String| Some((verb, Some(label.clone()), false));
        let audited = match verb {
            Verb::Provision { .. } => change("provision"),
            Verb::Reset { .. } => change("reset"),
            Verb::Prune => change("prune"),
            Verb::Key(KeyVerb::Generate { label, .. }) => changes("key generate", label),
            Verb::Key(KeyVerb::Import { .. }) => change("key import"),
            Verb::Key(KeyVerb::Unseal { .. }) => Some(("key unseal", None, false)),
            Verb::Key(KeyVerb::Delete { label, .. }) => changes("key delete", label),
            Verb::Master(MasterVerb::Renew { .. }) => change("master renew"),
            Verb::Token(TokenVerb::Add { .. }) => change("token add"),
            Verb::Token(TokenVerb::Remove { .. }) => change("token remove"),
            Verb::ImportCert { .. } => change("import-cert"),
            #[cfg(feature = "est")]
            Verb::Enroll(args) => changes("enroll", &args.name()),
            Verb::Key(KeyVerb::Rekey(args)) => changes("key rekey", &args.label),
            Verb::Renew(RenewArgs {
                label: Some(label), ..
            }) => changes("renew", label),
            Verb::Renew(_) => change("renew"),
            Verb::Persist { label, .. } => changes("persist", label),
            Verb::Csr(args) => uses("csr", &args.label),
            // If the TPM has no attestation key of the factory, this verb makes an attestation key.
            Verb::Attest(args) => changes("attest", &args.name()),
            Verb::Ca(CaVerb::Issue { .. }) => change("ca issue"),
            Verb::Activate { .. } => Some(("activate", None, false)),
            Verb::Challenge(_) => Some(("challenge", None, false)),
            Verb::Sign { label, .. } => uses("sign", label),
            Verb::Verify { label, .. } => uses("verify", label),
            Verb::Status(_)
            | Verb::List
            | Verb::Tree
            | Verb::Ca(_)
            | Verb::Show { .. }
            | Verb::Doctor
            | Verb::Bench
            | Verb::Key(KeyVerb::List)
            | Verb::Export { .. }
            | Verb::Uri { .. }
            | Verb::Man { .. }
            | Verb::Completions { .. }
            | Verb::Uri2pem { .. } => None,
        };
        audited.map(|(verb, label, is_change)| Self {
            verb,
            label,
            is_change,
        })
    }

    /// Writes the audit line with the result of the command.
    pub(crate) fn write(self, settings: &Settings, output: &Output) {
        let config = config::load(&settings.environment()).config;
        let is_asked_for = config.is_ok_and(|config| config.audit);
        if output.is_unchanged && output.code == 0 || !self.is_change && !is_asked_for {
            return;
        }
        let named = AuditSubject {
            label: self.label,
            ..AuditSubject::default()
        };
        let each = output.each.clone().unwrap_or_else(|| {
            let subject = output.subject.clone().unwrap_or(named);
            vec![(subject, output.code)]
        });
        let log = AuditLog::default();
        for (subject, code) in each {
            let result = match code {
                0 => Ok(()),
                code => Err(kind_of(code).to_owned()),
            };
            match log.changed(self.verb, &subject, result) {
                Ok(()) => {}
                Err(error) if is_asked_for => warn!("the audit line was lost: {error}"),
                Err(error) => info!("the audit line was lost: {error}"),
            }
        }
    }
}
