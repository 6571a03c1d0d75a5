//! Exports keys for other programs: PEM files, files of tpm2-tools and of SPIRE, and settings of
//! Keylime.

use super::IdentityError;
use super::device::Device;
use super::entry::{FACTORY, TokenEntry};
use crate::file;
use crate::pem::PemReader;
use crate::shell::{argument, word};
use crate::store::Protection;
use crate::store::folder::Tss2Key;
use crate::tpm::{
    Hash, KeyScheme, Parent, PublicArea, SignatureScheme, TpmError, sized, template_name,
};
use crate::x509::Certificate;
use serde::Serialize;
use std::path::{Path, PathBuf};

const TSS2_BEGIN: &str = "-----BEGIN TSS2 PRIVATE KEY-----";
const TSS2_END: &str = "-----END TSS2 PRIVATE KEY-----";
/// The largest size of a file in the key folder, in bytes.
const LARGEST: u64 = 64 << 10;

/// The result of an export: the written files, and the settings for the program that uses them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The paths of the files that were written.
    pub files: Vec<PathBuf>,
    /// The commands or settings for the program, one per line.
    pub usage: Vec<String>,
    /// What the user must still do after the export, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Device {
    /// Returns the key as a PEM block `TSS2 PRIVATE KEY`, which other programs read. Only this TPM
    /// can use the key.
    ///
    /// # Errors
    ///
    /// Fails if the key has no wrapped form. A factory key is an example.
    pub fn wrapped_key(&self, entry: &TokenEntry) -> Result<String, IdentityError> {
        if entry.file.is_empty() {
            return Err(IdentityError::refused(format!(
                "{}: this key has no wrapped form; devid uri {} prints its URI for programs",
                entry.label,
                argument(&entry.label)
            )));
        }
        let store = self.store_of(entry).unwrap_or(&self.own);
        let path = store.file(&entry.file);
        let protection = entry.key.as_ref().map(|key| key.protection());
        let is_in_memory = entry.secret.is_some()
            || matches!(protection, Some(Protection::Sealed | Protection::File));
        if is_in_memory {
            return Err(IdentityError::refused(format!(
                "{}: this key has no wrapped form: it is used in memory, and the TPM seals only \
                 the key that encrypts {}",
                entry.label,
                path.display()
            )));
        }
        if self.lives_in_handle_alone(entry) {
            return Err(IdentityError::refused(format!(
                "{}: the master key that wrapped this key is lost, so its wrapped form is useless. \
                 Only its handle holds the key; devid uri {0} prints its URI for programs",
                entry.label
            )));
        }
        let bytes = file::read(&path, LARGEST).map_err(IdentityError::file(&path))?;
        let text = String::from_utf8_lossy(&bytes);
        let block = text.find(TSS2_BEGIN).and_then(|begin| {
            let end = text[begin..].find(TSS2_END)? + TSS2_END.len();
            text.get(begin..begin + end)
        });
        let missing = || {
            IdentityError::failed(format!(
                "{}: the file has no line {TSS2_BEGIN}",
                path.display()
            ))
        };
        Ok(format!("{}\n", block.ok_or_else(missing)?))
    }

    /// Writes a wrapped key in the format of tpm2-tools: the TPM2B_PUBLIC to `key.pub` and the
    /// TPM2B_PRIVATE to `key.priv`.
    ///
    /// # Errors
    ///
    /// Fails if the key has no wrapped form, or if a file cannot be written.
    pub fn export_to_tools(
        &self,
        entry: &TokenEntry,
        folder: &Path,
    ) -> Result<Exported, IdentityError> {
        let key = self.tss2_key(entry)?;
        let files = written(
            folder,
            &[
                ("key.pub", sized(&key.public), 0o644),
                ("key.priv", sized(&key.private), 0o600),
            ],
        )?;
        let [public, private] = &files[..] else {
            return Err(IdentityError::failed("two files were to be written"));
        };
        let (public, private) = (word(public), word(private));
        let load =
            |parent: &str| format!("tpm2_load -C {parent} -u {public} -r {private} -c key.ctx");
        let usage = match key.wrapped().map(|key| key.parent().clone()) {
            Ok(Parent::Persistent(parent)) => vec![load(&format!("0x{parent:08X}"))],
            Ok(Parent::Owner { rsa }) => vec![
                format!(
                    "tpm2_createprimary -C o -G {} -a '{ROOT_ATTRIBUTES}' -c primary.ctx",
                    if rsa { "rsa2048" } else { "ecc" }
                ),
                load("primary.ctx"),
            ],
            Err(why) => return Err(IdentityError::refused(format!("{}: {why}", entry.label))),
        };
        let has_value = entry
            .key
            .as_ref()
            .is_some_and(|key| key.auth_salt().is_some());
        Ok(Exported {
            files,
            usage,
            note: has_value.then(|| {
                "the authorisation value of the key is derived from the token's PIN: tpm2_load can \
                 load the key, but tpm2-tools cannot use it"
                    .into()
            }),
        })
    }

    /// Writes the files of SPIRE's tpm_devid plugin. `devid.pub` holds the TPMT_PUBLIC,
    /// `devid.priv` the wrapped private key, and `devid.crt.pem` the certificate with its chain.
    /// Lets the TPM load the key once before the files are written.
    ///
    /// # Errors
    ///
    /// Fails if SPIRE cannot use the key. SPIRE needs a key with these properties:
    ///
    /// - its parent is the storage root key that every program derives;
    /// - it has a fixed scheme with SHA-256;
    /// - its authorisation value permits its use.
    pub fn export_to_spire(
        &self,
        entry: &TokenEntry,
        folder: &Path,
    ) -> Result<Exported, IdentityError> {
        let label = argument(&entry.label);
        let refused = |why: &str| {
            Err(IdentityError::refused(format!(
                "{}: SPIRE cannot use this key: {why}. To make a key that SPIRE can use, run devid \
                 key generate LABEL --parent srk",
                entry.label
            )))
        };
        if entry.token == FACTORY {
            return refused(
                "SPIRE certifies a key only by its authorisation value, but the certification of a \
                 factory key needs a policy",
            );
        }
        let key = self.tss2_key(entry)?;
        let wrapped = key.wrapped();
        let wrapped = wrapped.map_err(|why| {
            IdentityError::refused(format!("{}: SPIRE cannot use this key: {why}", entry.label))
        })?;
        let Parent::Owner { rsa } = *wrapped.parent() else {
            return refused("SPIRE derives the parent, but the parent of this key is in a handle");
        };
        let area = PublicArea::parse(wrapped.area());
        let scheme = area.as_ref().map(|area| area.scheme);
        let is_rsa = match scheme {
            Some(KeyScheme::Fixed(SignatureScheme::Ecdsa(Hash::Sha256))) => false,
            Some(KeyScheme::Fixed(SignatureScheme::Rsassa(Hash::Sha256))) => true,
            _ => {
                return refused("its scheme is neither ECDSA nor RSASSA-PKCS1-v1_5 with SHA-256");
            }
        };
        if rsa != is_rsa {
            return refused(
                "SPIRE expects an RSA parent for an RSA key, and a P-256 parent for other keys",
            );
        }
        self.tpm
            .check_loads(&wrapped)
            .map_err(|error| match error {
                TpmError::Unloadable(why) => IdentityError::failed(format!(
                    "{}: the TPM does not load the key below a storage root key that it derived \
                     anew: {why}",
                    entry.label
                )),
                other => other.into(),
            })?;
        let mut parts = vec![
            ("devid.pub", key.public.clone(), 0o644),
            ("devid.priv", key.private.clone(), 0o600),
        ];
        let chain = match entry.certificate() {
            Some(_) => self.chain(entry)?,
            None => Vec::new(),
        };
        let pem: String = chain.iter().map(Certificate::pem).collect();
        if !chain.is_empty() {
            parts.push(("devid.crt.pem", pem.into_bytes(), 0o644));
        }
        let files = written(folder, &parts)?;
        let setting = |name: &str, file: &str| {
            format!("{name} = {:?}", folder.join(file).display().to_string())
        };
        Ok(Exported {
            files,
            usage: vec![
                setting("devid_cert_path", "devid.crt.pem"),
                setting("devid_priv_path", "devid.priv"),
                setting("devid_pub_path", "devid.pub"),
            ],
            note: chain.is_empty().then(|| {
                format!(
                    "the key has no certificate yet, so devid.crt.pem was not written. Make the \
                     request with devid csr {label}, import the certificate with devid \
                     import-cert, then run this command again"
                )
            }),
        })
    }

    /// Returns the settings by which Keylime's agent finds the keys of the factory
    /// (keylime-agent.conf). If a folder is given, also writes the certificates into the folder.
    ///
    /// # Errors
    ///
    /// Fails if the key is not a factory key, or if the TPM has no certificate of an IAK.
    pub fn keylime_settings(
        &self,
        entry: &TokenEntry,
        folder: Option<&Path>,
    ) -> Result<Exported, IdentityError> {
        let refused = |why: &str| Err(IdentityError::refused(format!("{}: {why}", entry.label)));
        if entry.token != FACTORY {
            return refused(
                "Keylime's agent uses an IDevID and an IAK of the factory, but this key is not \
                 from the factory",
            );
        }
        let inventory = self.inventory();
        let factory = || inventory.entries.iter().filter(|one| one.token == FACTORY);
        let Some(idevid) = factory().find(|one| !one.attests && one.key.is_some()) else {
            return refused("this TPM has no IDevID key with a certificate");
        };
        let Some(iak) = factory().find(|one| one.attests) else {
            return refused(
                "this TPM has no certificate of an IAK, and Keylime's agent uses an IDevID only \
                 together with an IAK",
            );
        };
        let key = idevid.key.as_ref();
        if let Some(key) = key {
            key.prepare(&self.tpm)?;
        }
        let template = key.and_then(|key| template_name(key.public_area()?));
        let template = template.as_deref().and_then(|name| name.split_once(' '));
        // Without this setting, Keylime's agent assumes P-256 even for the template H-5.
        let template = match template {
            Some((name, _)) if name.starts_with("H-") => name,
            _ => "detect",
        };
        let place = folder.unwrap_or(Path::new(KEYLIME));
        let files = [(IDEVID_FILE, idevid), (IAK_FILE, iak)];
        let line = |name: &str, value: &str| format!("{name} = {value:?}");
        let handle = |number: Option<u32>| {
            number.map_or_else(String::new, |number| format!("0x{number:08x}"))
        };
        let path = |file: &str| place.join(file).display().to_string();
        let usage = vec![
            "enable_iak_idevid = true".into(),
            line("iak_idevid_template", template),
            line("idevid_handle", &handle(key.and_then(|key| key.handle()))),
            line("idevid_password", ""),
            line("idevid_cert", &path(IDEVID_FILE)),
            line("iak_handle", &handle(self.attestation_handle(iak)?)),
            line("iak_password", ""),
            line("iak_cert", &path(IAK_FILE)),
        ];
        let Some(folder) = folder else {
            return Ok(Exported {
                files: Vec::new(),
                usage,
                note: Some(format!(
                    "devid show {} --keylime --out {KEYLIME} writes the two certificates into this \
                     folder",
                    argument(&entry.label)
                )),
            });
        };
        let pem = |entry: &TokenEntry| {
            entry
                .certificate()
                .map(Certificate::pem)
                .unwrap_or_default()
        };
        let parts = files.map(|(file, entry)| (file, pem(entry).into_bytes(), 0o644));
        Ok(Exported {
            files: written(folder, &parts)?,
            usage,
            note: None,
        })
    }

    /// Returns the persistent handle of the factory's attestation key for the certificate of the
    /// entry `iak`, if a handle holds that key.
    fn attestation_handle(&self, iak: &TokenEntry) -> Result<Option<u32>, IdentityError> {
        for handle in self.factory_handles()? {
            let area = match self.tpm.persistent_key(handle) {
                Err(TpmError::Response(_) | TpmError::Unsupported(_)) => continue,
                other => other?.0,
            };
            let public = PublicArea::parse(&area).map(|area| area.key);
            if public.is_some() && public == iak.public {
                return Ok(Some(handle));
            }
        }
        Ok(None)
    }

    /// Parses the TSS2 object in the file of a wrapped key.
    fn tss2_key(&self, entry: &TokenEntry) -> Result<Tss2Key, IdentityError> {
        let text = self.wrapped_key(entry)?;
        let mut blocks = PemReader::of(text.as_bytes()).blocks.into_iter().flatten();
        let none = || IdentityError::failed("the file of the key has no PEM block");
        let block = blocks.next().ok_or_else(none)?;
        Tss2Key::from_der(&block.der).map_err(|why| IdentityError::failed(why.to_string()))
    }
}

/// The default folder of Keylime's agent, followed by the names of its certificate files.
const KEYLIME: &str = "/var/lib/keylime";
const IDEVID_FILE: &str = "idevid-cert.crt";
const IAK_FILE: &str = "iak-cert.crt";

/// The attributes that tpm2_createprimary needs to derive the storage root key.
const ROOT_ATTRIBUTES: &str =
    "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";

/// Writes files into a folder. Creates the folder if it is missing.
fn written(folder: &Path, files: &[(&str, Vec<u8>, u32)]) -> Result<Vec<PathBuf>, IdentityError> {
    std::fs::create_dir_all(folder).map_err(IdentityError::file(folder))?;
    let mut paths = Vec::new();
    for (name, content, mode) in files {
        let path = folder.join(name);
        file::write(&path, content, *mode).map_err(IdentityError::file(&path))?;
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::identity::IdentityErrorKind;
    use crate::key::{Curve, PrivateKeyInfo};
    use crate::store::folder::KeyOrigin;
    use crate::store::folder::ObjectAttributes;
    use crate::store::folder::{
        EntryContent, KeyAuth, KeyFolder, KeyMaterial, KeyPair, Tss2Key, Tss2Kind,
    };

    /// The TPM seals the key that encrypts the file, but not the key in the file.
    #[test]
    fn a_key_that_is_used_in_memory_has_no_wrapped_form() {
        let state = tempfile::tempdir().unwrap();
        let device = Device::new(config::Config {
            state: state.path().to_owned(),
            ..config::defaults(&|_| None)
        });
        let key = PrivateKeyInfo::from_scalar(Curve::P256, &[7; 32]).unwrap();
        let seal = Tss2Key {
            kind: Tss2Kind::Sealed,
            ..Tss2Key::loadable(0x8100_0080, vec![0, 8, 0, 11], vec![1; 40])
        };
        let sealed = KeyPair {
            public: key.public().clone(),
            material: KeyMaterial::Sealed {
                seal,
                encrypted: vec![0x30, 0],
            },
            handle: None,
            auth: KeyAuth::Unsaid,
            origin: KeyOrigin::Generated,
            private: ObjectAttributes::labelled("sealed"),
            shown_public: None,
        };
        let folder = KeyFolder::new(device.folder());
        let name = folder.add(EntryContent::Pair(sealed)).unwrap().name;
        let written = std::fs::read_to_string(device.own.file(&name)).unwrap();
        assert!(written.contains(TSS2_BEGIN), "{written}");
        let entry = device.find("sealed").unwrap();
        let fault = device.wrapped_key(&entry).unwrap_err();
        assert_eq!(fault.kind, IdentityErrorKind::Refused, "{fault}");
    }
}
