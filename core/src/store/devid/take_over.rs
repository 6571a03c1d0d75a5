//! A token takes over keys that another program created in this TPM. Each key keeps its parent and
//! its private number. The key gets a new authorisation value, which only the PIN of the token
//! opens.

use super::{DevidStore, OpenedBy, StoreError};
use crate::store::folder::{EntryContent, KeyAuth, KeyOrigin, KeyPair, Tss2Key, Tss2Kind};
use crate::store::{LoginError, Pins};
use crate::tpm::{AuthValue, PublicArea, Secret, TpmError};

/// The result of taking over one key or certificate of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The name of the object's file, without `.pem`.
    pub name: String,
    /// True if the token had the object before. In this case nothing was changed.
    pub known: bool,
}

impl DevidStore {
    /// Takes over a key with its attributes. `value` is its current authorisation value. The file
    /// of the other program stays unchanged, and its key can still be used with that value. The
    /// user must be logged in.
    ///
    /// # Errors
    ///
    /// After an error nothing is stored. A wrong `value` is sent to the TPM only once, and never as
    /// the last try before lockout.
    ///
    /// - [`StoreError::Protection`]: the token has no PIN.
    /// - [`StoreError::Unsupported`]: the key needs a policy, or this TPM cannot load it.
    pub fn take_over_key(&self, pair: &KeyPair, value: Secret) -> Result<TakenOver, StoreError> {
        if self.pins() != Pins::User {
            return Err(StoreError::Protection(format!(
                "the token {} has no user PIN, so every user could read the authorisation value of \
                 the key from its file. Set the PINs while the token holds no objects, as \
                 docs/PINS.md shows",
                self.name
            )));
        }
        if let Some(name) = self.known_key(pair)? {
            return Ok(TakenOver { name, known: true });
        }
        let unfit = |why: &str| StoreError::Unsupported(why.to_owned());
        let material = pair.material.wrapped();
        let tss2 = material
            .ok_or_else(|| unfit("only keys that the TPM itself uses can be taken over"))?;
        let area = PublicArea::parse(&tss2.public);
        let key = self.wrapped_key(tss2, area, None).map_err(unfit)?;
        if let Some(why) = key.obstacle() {
            return Err(StoreError::Unsupported(why));
        }
        let counts = PublicArea::parse(&tss2.public).is_none_or(|area| area.counts_wrong_auth());
        let (access, new) = self.access_for_new_key(OpenedBy::User)?;
        let wrapped = key
            .on_disk()
            .ok_or_else(|| unfit("the key is not wrapped by the TPM"))?;
        let turn = match counts {
            true => self.tpm.lock_pin_try(false)?,
            false => None,
        };
        let changed = self
            .tpm
            .with_new_value(wrapped, &AuthValue::new(value), &new)?;
        drop(turn);
        let key = self.usable(changed, access)?;
        let name = self.keep(
            &key,
            KeyOrigin::Unknown,
            pair.private.clone(),
            pair.shown_public.clone(),
            false,
        )?;
        Ok(TakenOver { name, known: false })
    }

    /// Takes over a certificate with its attributes.
    ///
    /// # Errors
    ///
    /// After an error nothing is stored.
    pub fn take_over_certificate(&self, content: EntryContent) -> Result<TakenOver, StoreError> {
        let listing = self.whole_listing()?;
        let same = listing.entries.iter().find(|one| one.content == content);
        match same {
            Some(entry) => Ok(TakenOver {
                name: entry.name.clone(),
                known: true,
            }),
            None => self
                .add(content)
                .map(|name| TakenOver { name, known: false }),
        }
    }

    /// Unseals data that another program sealed in this TPM. The authorisation value and the data
    /// cross the bus encrypted.
    ///
    /// # Errors
    ///
    /// Fails with [`LoginError::Wrong`] for a wrong value, which the TPM counts. The last try
    /// before lockout is not used, unless the configuration of the token permits it
    /// (`allow_last_try`).
    pub fn unseal(&self, seal: &Tss2Key, value: Secret) -> Result<Secret, LoginError> {
        let unfit = |why: &str| LoginError::Store(StoreError::Unsupported(why.to_owned()));
        if seal.kind != Tss2Kind::Sealed {
            return Err(unfit("it holds a key, not sealed data"));
        }
        if seal.has_policy() {
            return Err(unfit("its file states that a use needs a policy"));
        }
        let sealed = seal.wrapped().map_err(unfit)?.of_unknown_value();
        let sealed = match self.is_open(sealed.parent()) {
            true => sealed,
            false => sealed.below_stranger(),
        };
        let _turn = self.tpm.lock_pin_try(self.allow_last_try)?;
        let opened = self.tpm.unseal(&sealed, &AuthValue::new(value));
        opened.map_err(|error| match error {
            TpmError::WrongAuth(_) => LoginError::Wrong,
            TpmError::Lockout(tcti) => LoginError::Locked(tcti),
            error => error.into(),
        })
    }

    /// Returns the name of the key with this public key, if the token has the key behind the PIN.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Protection`] if the token has the key without a PIN.
    fn known_key(&self, pair: &KeyPair) -> Result<Option<String>, StoreError> {
        let listing = self.whole_listing()?;
        let same = listing.entries.iter().find_map(|one| match &one.content {
            EntryContent::Pair(known) if known.public == pair.public => Some((one, known)),
            _ => None,
        });
        match same {
            None => Ok(None),
            Some((entry, known)) => match known.auth {
                KeyAuth::Salt(_) => Ok(Some(entry.name.clone())),
                KeyAuth::Open | KeyAuth::Unsaid => Err(StoreError::Protection(format!(
                    "the token already has this key, and its file protects it by no PIN: {}",
                    self.file(&entry.name).display()
                ))),
            },
        }
    }
}
