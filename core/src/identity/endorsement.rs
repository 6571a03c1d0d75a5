//! Creates the TPM client with two additions: the file that records the storage root key, and the
//! trusted manufacturers of endorsement keys.

use super::trusted_files::check_trusted;
use crate::config::Config;
use crate::key::PublicKey;
use crate::oid::TCG_KP_EK_CERTIFICATE;
use crate::store::folder::KeyFolder;
use crate::tpm::{EndorsementVerifier, Refusals, StorageRoot, Tpm};
use crate::x509::Certificate;
use crate::x509::clock::now;
use crate::x509::files;
use crate::x509::path::{PathResult, build_path};
use std::path::PathBuf;
use std::sync::Arc;

/// Returns the client of the configured TPM. Opens no connection and sends no command.
pub fn configured_tpm(config: &Config, refusals: Refusals) -> Tpm {
    let folder = config.tokens.first().map(|devid| config.key_folder(devid));
    let root = folder.map_or_else(StorageRoot::default, |folder| {
        StorageRoot::remembered_by(Arc::new(KeyFolder::new(folder)))
    });
    let roots = config.master.ek_roots.clone();
    let endorser = roots.map(|folder| Arc::new(EkRoots { folder }) as Arc<dyn EndorsementVerifier>);
    config.tpm(refusals).with_root(root.endorsed_by(endorser))
}

/// A folder with root certificates of TPM manufacturers (`ek_roots`).
#[derive(Debug)]
struct EkRoots {
    folder: PathBuf,
}

impl EkRoots {
    fn trusted(&self) -> Result<Vec<Certificate>, String> {
        let folder = self.folder.display();
        check_trusted(&self.folder).map_err(|fault| fault.to_string())?;
        let files = files::in_folder(&self.folder).map_err(|error| format!("{folder}: {error}"))?;
        let found: Vec<_> = files
            .into_iter()
            .filter_map(|file| file.certificates.ok())
            .flatten()
            .collect();
        match found.is_empty() {
            true => Err(format!(
                "{folder} holds no certificate; put the root certificate of the TPM's maker into \
                 the folder"
            )),
            false => Ok(found),
        }
    }
}

impl EndorsementVerifier for EkRoots {
    fn key_of(&self, certificate: &[u8]) -> Result<PublicKey, String> {
        let found = Certificate::parse_all(certificate).map_err(|why| why.to_string())?;
        let [leaf, others @ ..] = &found[..] else {
            return Err("no certificate".into());
        };
        let purposes = leaf.purposes().map_err(|why| why.to_string())?;
        if !purposes.is_some_and(|all| all.contains(&TCG_KP_EK_CERTIFICATE)) {
            return Err(
                "the certificate is not for an endorsement key (tcg-kp-EKCertificate is missing)"
                    .into(),
            );
        }
        match build_path(leaf, &self.trusted()?, others, now().ok()) {
            PathResult::Trusted(_) => {}
            PathResult::NoIssuer(issuer) => {
                return Err(format!(
                    "{} does not hold the certificate of the issuer {issuer}",
                    self.folder.display()
                ));
            }
            PathResult::SelfSigned => return Err("the certificate is self-signed".into()),
            PathResult::Invalid(why) => return Err(why),
        }
        let public = leaf.public_key();
        public.ok_or_else(|| {
            "the public key of the certificate is of a type that is not supported".into()
        })
    }

    fn instead(&self) -> String {
        format!(
            "Put the root certificate of the TPM's maker into {}. Or remove the setting ek_roots \
             under [master], so that the storage root key is trusted at its first use",
            self.folder.display()
        )
    }
}
