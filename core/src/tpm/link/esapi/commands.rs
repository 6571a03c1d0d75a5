//! Our vocabulary of commands through ESAPI.

use super::{Esapi, OWNER, Secrecy};
use crate::tpm::link::MOST_HANDLES;
use crate::tpm::{
    Hash, Link, Lockout, NvPublic, Property, Scheme, Secret, Secrets, Signature, TpmError, Used,
};
use std::mem;
use tss_esapi::attributes::NvIndexAttributes;
use tss_esapi::constants::{CapabilityType, PropertyTag};
use tss_esapi::handles::{KeyHandle, NvIndexTpmHandle, ObjectHandle, PersistentTpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth, Provision};
use tss_esapi::structures::{
    self, CapabilityData, Digest, HashScheme, HashcheckTicket, Public, PublicParameters,
    Signature as Esys, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::tss2_esys::{TPMT_PUBLIC, TPMT_PUBLIC_PARMS, TPMT_TK_HASHCHECK};

fn hashing(hash: Hash) -> HashingAlgorithm {
    match hash {
        Hash::Sha1 => HashingAlgorithm::Sha1,
        Hash::Sha256 => HashingAlgorithm::Sha256,
        Hash::Sha384 => HashingAlgorithm::Sha384,
        Hash::Sha512 => HashingAlgorithm::Sha512,
    }
}

/// A public area, or a template of one.
fn public(area: &[u8]) -> Result<Public, TpmError> {
    let unfit = |error| TpmError::Unsupported(format!("public area: {error}"));
    Public::unmarshall(area).map_err(unfit)
}

impl Link for Esapi {
    fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        const AT_ONCE: u32 = 254;
        let mut found: Vec<u32> = Vec::new();
        let mut next = first;
        loop {
            let (data, more) = self.call(|connection| {
                connection
                    .context
                    .get_capability(CapabilityType::Handles, next, AT_ONCE)
            })?;
            let CapabilityData::Handles(list) = data else {
                return Err(TpmError::Broken(
                    "handles asked for, something else came".into(),
                ));
            };
            found.extend(list.into_inner().into_iter().map(u32::from));
            match (more, found.last()) {
                (true, Some(last)) if *last >= next && found.len() < MOST_HANDLES => {
                    next = last.saturating_add(1);
                }
                _ => return Ok(found),
            }
        }
    }

    fn algorithms(&mut self) -> Result<Vec<u16>, TpmError> {
        const AT_ONCE: u32 = 254;
        let (data, _) = self.call(|connection| {
            connection
                .context
                .get_capability(CapabilityType::Algorithms, 0, AT_ONCE)
        })?;
        match data {
            CapabilityData::Algorithms(list) => Ok(list
                .as_ref()
                .iter()
                .map(|one| u16::from(one.algorithm_identifier()))
                .collect()),
            _ => Err(TpmError::Broken(
                "algorithms asked for, something else came".into(),
            )),
        }
    }

    fn lockout(&mut self) -> Result<Lockout, TpmError> {
        let (data, _) = self.call(|connection| {
            let properties = CapabilityType::TpmProperties;
            connection
                .context
                .get_capability(properties, Lockout::FIRST, Lockout::COUNT)
        })?;
        let CapabilityData::TpmProperties(list) = data else {
            return Err(TpmError::Broken(
                "properties asked for, something else came".into(),
            ));
        };
        let found = Lockout::of(
            list.into_iter()
                .map(|one| (u32::from(one.property()), one.value())),
        );
        found.ok_or_else(|| TpmError::Unsupported("the TPM does not tell of lockout".into()))
    }

    fn property(&mut self, property: Property) -> Result<u32, TpmError> {
        let tag = match property {
            Property::NvBufferMax => PropertyTag::NvBufferMax,
            Property::LockoutRecovery => PropertyTag::LockoutRecovery,
            Property::Manufacturer => PropertyTag::Manufacturer,
            Property::Vendor1 => PropertyTag::VendorString1,
            Property::Vendor2 => PropertyTag::VendorString2,
            Property::Vendor3 => PropertyTag::VendorString3,
            Property::Vendor4 => PropertyTag::VendorString4,
            Property::Firmware1 => PropertyTag::FirmwareVersion1,
            Property::Firmware2 => PropertyTag::FirmwareVersion2,
            Property::NvIndexMax => PropertyTag::NvIndexMax,
            Property::Permanent => PropertyTag::Permanent,
            Property::Persistent => PropertyTag::HrPersistent,
            Property::PersistentRoom => PropertyTag::HrPersistentAvail,
        };
        self.call(|connection| connection.context.get_tpm_property(tag))?
            .ok_or_else(|| TpmError::Unsupported(format!("the TPM does not tell {property:?}")))
    }

    fn test_parameters(&mut self, area: &[u8]) -> Result<(), TpmError> {
        let public = TPMT_PUBLIC::from(public(area)?);
        let parameters = TPMT_PUBLIC_PARMS {
            type_: public.type_,
            parameters: public.parameters,
        };
        self.call(|connection| {
            let parameters = PublicParameters::try_from(parameters)?;
            connection.context.test_parms(parameters)
        })
    }

    fn read_public(&mut self, key: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        self.call(|connection| {
            let key = KeyHandle::from(connection.resource(key)?);
            let (public, name, _) = connection.context.read_public(key)?;
            Ok((public.marshall()?, name.value().to_vec()))
        })
    }

    fn qualified_name(&mut self, key: u32) -> Result<Vec<u8>, TpmError> {
        self.call(|connection| {
            let key = KeyHandle::from(connection.resource(key)?);
            let (_, _, qualified) = connection.context.read_public(key)?;
            Ok(qualified.value().to_vec())
        })
    }

    fn create_primary(
        &mut self,
        hierarchy: Used,
        template: &[u8],
    ) -> Result<(u32, Vec<u8>, Vec<u8>), TpmError> {
        let public = public(template)?;
        self.call(|connection| {
            let place = match hierarchy.handle {
                OWNER => Hierarchy::Owner,
                _ => Hierarchy::Endorsement,
            };
            let made = connection.authorised(hierarchy, Secrecy::None, |context| {
                context.create_primary(place, public, None, None, None, None)
            })?;
            let (_, name, _) = connection.context.read_public(made.key_handle)?;
            let handle = connection.transient(made.key_handle.into());
            Ok((handle, made.out_public.marshall()?, name.value().to_vec()))
        })
    }

    fn create(
        &mut self,
        parent: Used,
        secrets: Secrets,
        template: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let public = public(template)?;
        self.call(|connection| {
            let key = KeyHandle::from(connection.used(parent)?);
            let value = structures::Auth::try_from(secrets.value)?;
            let data = match secrets.data {
                [] => None,
                data => Some(structures::SensitiveData::try_from(data)?),
            };
            let made = connection.authorised(parent, Secrecy::Command, |context| {
                context.create(key, public, Some(value), data, None, None)
            })?;
            Ok((
                made.out_public.marshall()?,
                made.out_private.value().to_vec(),
            ))
        })
    }

    fn unseal(&mut self, sealed: Used) -> Result<Secret, TpmError> {
        self.call(|connection| {
            let object = connection.used(sealed)?;
            let data = connection
                .authorised(sealed, Secrecy::Response, |context| context.unseal(object))?;
            Ok(Secret::new(data.value().to_vec()))
        })
    }

    fn load(
        &mut self,
        parent: Used,
        area: &[u8],
        private: &[u8],
    ) -> Result<(u32, Vec<u8>), TpmError> {
        let public = public(area)?;
        self.call(|connection| {
            let key = KeyHandle::from(connection.used(parent)?);
            let private = structures::Private::try_from(private)?;
            let loaded = connection.authorised(parent, Secrecy::None, |context| {
                context.load(key, private, public)
            })?;
            let loaded = ObjectHandle::from(loaded);
            // ESAPI computed it from the public area; no command.
            let name = connection.context.tr_get_name(loaded)?;
            Ok((connection.transient(loaded), name.value().to_vec()))
        })
    }

    fn import(
        &mut self,
        parent: Used,
        area: &[u8],
        duplicate: &[u8],
        seed: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let public = public(area)?;
        self.call(|connection| {
            let key = connection.used(parent)?;
            let duplicate = structures::Private::try_from(duplicate)?;
            let seed = structures::EncryptedSecret::try_from(seed)?;
            let private = connection.authorised(parent, Secrecy::None, |context| {
                let none = SymmetricDefinitionObject::Null;
                context.import(key, None, public, duplicate, seed, none)
            })?;
            Ok(private.value().to_vec())
        })
    }

    fn evict(
        &mut self,
        owner: Used,
        object: (u32, &[u8]),
        persistent: u32,
    ) -> Result<(), TpmError> {
        self.call(|connection| {
            let resource = connection.resource(object.0)?;
            let place = PersistentTpmHandle::new(persistent)?;
            connection.authorised(owner, Secrecy::None, |context| {
                context.evict_control(Provision::Owner, resource, place.into())
            })?;
            // What stands at the handle now is another object, or none.
            connection.resources.remove(&persistent);
            Ok(())
        })
    }

    /// libtss2 wraps contexts in a form of its own; this gives the number under which one is kept.
    fn context_save(&mut self, key: u32) -> Result<Vec<u8>, TpmError> {
        let context = self.call(|connection| {
            let key = connection.resource(key)?;
            connection.context.context_save(key)
        })?;
        self.saved.push(context);
        Ok(self.token(self.saved.len() - 1))
    }

    fn context_load(&mut self, context: &[u8]) -> Result<u32, TpmError> {
        let number = (0..self.saved.len()).find(|number| self.token(*number) == context);
        let saved = number.and_then(|number| self.saved.get(number)).cloned();
        let saved = saved.ok_or(TpmError::Unsupported("a context of another link".into()))?;
        self.call(|connection| {
            let loaded = connection.context.context_load(saved)?;
            Ok(connection.transient(loaded))
        })
    }

    fn flush(&mut self, key: u32) -> Result<(), TpmError> {
        self.call(|connection| {
            let resource = connection.resource(key)?;
            connection.resources.remove(&key);
            connection.context.flush_context(resource)
        })
    }

    fn nv_read_public(&mut self, index: u32) -> Result<NvPublic, TpmError> {
        self.call(|connection| {
            let index = connection.nv_index(index)?;
            let (public, _) = connection.context.nv_read_public(index)?;
            let attributes = public.attributes().0;
            // An NV index holds at most 65535 bytes: its size is a UINT16 in the TPM.
            Ok(NvPublic {
                attributes,
                size: u16::try_from(public.data_size()).unwrap_or(u16::MAX),
            })
        })
    }

    fn nv_read(
        &mut self,
        by: Used,
        (index, _): (u32, &[u8]),
        offset: u16,
        size: u16,
    ) -> Result<Vec<u8>, TpmError> {
        self.call(|connection| {
            let resource = connection.nv_index(index)?;
            let auth = match by.handle == index {
                true => NvAuth::NvIndex(resource),
                false => NvAuth::Owner,
            };
            connection
                .authorised(by, Secrecy::None, |context| {
                    context.nv_read(auth, resource, size, offset)
                })
                .map(|data| data.value().to_vec())
        })
    }

    fn nv_define(&mut self, owner: Used, index: u32, public: NvPublic) -> Result<(), TpmError> {
        self.call(|connection| {
            let public = structures::NvPublic::builder()
                .with_nv_index(NvIndexTpmHandle::new(index)?)
                .with_index_name_algorithm(HashingAlgorithm::Sha256)
                .with_index_attributes(NvIndexAttributes(public.attributes))
                .with_data_area_size(public.size.into())
                .build()?;
            let resource = connection.authorised(owner, Secrecy::None, |context| {
                context.nv_define_space(Provision::Owner, None, public)
            })?;
            connection.resources.insert(index, resource.into());
            Ok(())
        })
    }

    fn nv_write(
        &mut self,
        owner: Used,
        (index, _): (u32, &[u8]),
        offset: u16,
        data: &[u8],
    ) -> Result<(), TpmError> {
        self.call(|connection| {
            let resource = connection.nv_index(index)?;
            let data = structures::MaxNvBuffer::try_from(data)?;
            connection.authorised(owner, Secrecy::None, |context| {
                context.nv_write(NvAuth::Owner, resource, data, offset)
            })
        })
    }

    fn nv_undefine(&mut self, owner: Used, (index, _): (u32, &[u8])) -> Result<(), TpmError> {
        self.call(|connection| {
            let resource = connection.nv_index(index)?;
            connection.authorised(owner, Secrecy::None, |context| {
                context.nv_undefine_space(Provision::Owner, resource)
            })?;
            connection.resources.remove(&index);
            Ok(())
        })
    }

    fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        self.call(|connection| connection.context.get_random(count.into()))
            .map(|bytes| bytes.value().to_vec())
    }

    fn sign(&mut self, key: Used, scheme: Scheme, digest: &[u8]) -> Result<Signature, TpmError> {
        let signature = self.call(|connection| {
            let handle = KeyHandle::from(connection.used(key)?);
            let digest = Digest::try_from(digest)?;
            let hash_scheme = HashScheme::new(hashing(scheme.hash()));
            let scheme = match scheme {
                Scheme::Ecdsa(_) => SignatureScheme::EcDsa { hash_scheme },
                Scheme::Rsassa(_) => SignatureScheme::RsaSsa { hash_scheme },
                Scheme::Rsapss(_) => SignatureScheme::RsaPss { hash_scheme },
            };
            // The NULL ticket: the digest was made outside, as an unrestricted key allows.
            let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
                tag: tss_esapi::constants::tss::TPM2_ST_HASHCHECK,
                hierarchy: tss_esapi::constants::tss::TPM2_RH_NULL,
                digest: Default::default(),
            })?;
            connection.authorised(key, Secrecy::None, |context| {
                context.sign(handle, digest, scheme, ticket)
            })
        })?;
        match signature {
            Esys::EcDsa(pair) => Ok(Signature::Ecc {
                r: pair.signature_r().value().to_vec(),
                s: pair.signature_s().value().to_vec(),
            }),
            Esys::RsaSsa(one) | Esys::RsaPss(one) => {
                Ok(Signature::Rsa(one.signature().value().to_vec()))
            }
            _ => Err(TpmError::Broken(
                "a signature of a kind that was not asked for".into(),
            )),
        }
    }

    fn rsa_decrypt(&mut self, key: Used, cipher: &[u8]) -> Result<Secret, TpmError> {
        self.call(|connection| {
            let handle = KeyHandle::from(connection.used(key)?);
            let cipher = structures::PublicKeyRsa::try_from(cipher)?;
            let scheme = structures::RsaDecryptionScheme::Null;
            let label = structures::Data::default();
            let plain = connection.authorised(key, Secrecy::Response, |context| {
                context.rsa_decrypt(handle, cipher, scheme, label)
            })?;
            Ok(Secret::new(plain.value().to_vec()))
        })
    }

    fn ecdh_z(&mut self, key: Used, (x, y): (&[u8], &[u8])) -> Result<Secret, TpmError> {
        self.call(|connection| {
            let handle = KeyHandle::from(connection.used(key)?);
            let point = structures::EccPoint::new(x.try_into()?, y.try_into()?);
            let shared = connection.authorised(key, Secrecy::Response, |context| {
                context.ecdh_z_gen(handle, point)
            })?;
            Ok(Secret::new(shared.x().value().to_vec()))
        })
    }

    fn abandon(mut self: Box<Self>) {
        // Dropping a context flushes what it loaded, and that is the parent's: leak it.
        mem::forget(self.connection.take());
    }
}
