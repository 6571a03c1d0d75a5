//! Keys below the storage root key that every program can derive in the owner hierarchy (TCG, TPM
//! 2.0 Provisioning Guidance, section 7.5.1). A program can use these keys without knowing a
//! persistent handle of the storage root key.

use super::exchange::Exchange;
use super::storage::by_owner;
use super::{
    Auth, AuthHandle, AuthValue, KeyAlgorithm, Parent, SaltKey, Secret, SensitiveCreate,
    SignatureScheme, Tpm, TpmError, WrappedKey, flush, template,
};

impl Tpm {
    /// Makes a new key that signs by this scheme only. The parent is the derived storage root key
    /// of the same type: RSA-2048 for an RSA key, P-256 for an EC key. Sends five commands. The
    /// HMACs of the responses prove that the TPM with the storage root key made the key and derived
    /// the parent.
    pub fn create_below_owner(
        &self,
        algorithm: KeyAlgorithm,
        scheme: SignatureScheme,
        value: &Secret,
        owner: &AuthValue,
    ) -> Result<WrappedKey, TpmError> {
        let unfit =
            || TpmError::Unsupported("a key of this type cannot sign by this scheme".into());
        let template = template::signing_key(algorithm, scheme).ok_or_else(unfit)?;
        let rsa = matches!(algorithm, KeyAlgorithm::Rsa(_));
        let root = template::storage_root(rsa);
        let salt_key = self.session_key(owner)?;
        let making = Exchange::new("Create")
            .needing_object_slot()
            .showing_owner(owner);
        let made = making.run(self, |link| {
            let hierarchy = AuthHandle::owner(Auth::Value(owner.as_bytes(), Some(&salt_key)));
            let (parent, area, name) = by_owner(link.create_primary(hierarchy, &root))?;
            let own = SaltKey::from_area(parent, &area);
            let made = match &own {
                Some(own) => {
                    let used = AuthHandle::new(parent, &name, Auth::Value(&[], Some(own)));
                    let secrets = SensitiveCreate { value, data: &[] };
                    link.create(used, secrets, &template)
                }
                None => Err(TpmError::Unsupported(
                    "the TPM made a storage root key that cannot decrypt a salt".into(),
                )),
            };
            flush(link, parent, &made);
            made
        });
        let (area, private) = made?;
        Ok(WrappedKey::new(Parent::Owner { rsa }, area, private))
    }
}
