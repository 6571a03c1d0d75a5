//! Our vocabulary of commands in bytes (Part 3).

use super::execute::{By, content, parameters};
use super::made::made_from;
use super::{Link, marshalled};
use crate::tpm::session::{AUDIT, DECRYPT, ENCRYPT};
use crate::tpm::wrapped::flush;
use crate::tpm::{
    Hash, Lockout, NvPublic, Property, Scheme, Secret, Secrets, Signature, TpmError, Used, name_of,
};
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::basic::{TpmHandle, TpmUint16, TpmUint32};
use tpm2_protocol::data::*;
use tpm2_protocol::frame::*;

/// How many handles are asked for at once; a TPM answers with as many as fit.
const HANDLES_AT_ONCE: u32 = 254;
/// No TPM has so many handles; one that goes on telling of more is not believed.
const MOST_HANDLES: usize = 10_000;

fn handle(value: u32) -> TpmHandle {
    TpmHandle::new(value)
}

fn algorithm(hash: Hash) -> TpmAlgId {
    match hash {
        Hash::Sha1 => TpmAlgId::Sha1,
        Hash::Sha256 => TpmAlgId::Sha256,
        Hash::Sha384 => TpmAlgId::Sha384,
        Hash::Sha512 => TpmAlgId::Sha512,
    }
}

/// A public area, or a template of one.
fn public(area: &[u8]) -> Result<Tpm2bPublic, TpmError> {
    let unfit = |error| TpmError::Unsupported(format!("public area: {error}"));
    let (inner, _) = TpmtPublic::unmarshal(area).map_err(unfit)?;
    Ok(Tpm2bPublic { inner })
}

fn unfit(error: tpm2_protocol::TpmError) -> TpmError {
    TpmError::Unsupported(format!("parameter: {error}"))
}

/// The parameters of TPM2_Create with these in the place of the empty TPM2B_SENSITIVE_CREATE that
/// they begin with: written by hand, since the library's structures would leave copies.
fn with_secrets(parameters: &[u8], secrets: Secrets) -> Result<Secret, TpmError> {
    let (_, rest) = content(parameters)
        .ok_or_else(|| TpmError::Unsupported("command: no sensitive part".into()))?;
    let Secrets { value, data } = secrets;
    let too_long = |_| TpmError::Unsupported("command: a secret that is too long".into());
    let size = |count: usize| u16::try_from(count).map(u16::to_be_bytes).map_err(too_long);
    let sensitive = 4 + value.len() + data.len();
    let mut bytes = Secret::new(Vec::with_capacity(2 + sensitive + rest.len()));
    bytes.extend(size(sensitive)?);
    bytes.extend(size(value.len())?);
    bytes.extend(value);
    bytes.extend(size(data.len())?);
    bytes.extend(data);
    bytes.extend(rest);
    Ok(bytes)
}

/// A command of two handles; the second one's entity has this name.
fn naming<'a>(used: Used<'a>, others: &'a [&'a [u8]]) -> By<'a> {
    By {
        others,
        ..By::new(used)
    }
}

impl Link {
    /// TPM2_GetCapability(TPM_CAP_HANDLES): the handles from `first` to the end of its range,
    /// ascending; one command for each full answer.
    pub(crate) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        let mut found = Vec::new();
        let mut next = first;
        loop {
            let command = TpmGetCapabilityCommand {
                handles: [],
                cap: TpmCap::Handles,
                property: TpmUint32::new(next),
                property_count: TpmUint32::new(HANDLES_AT_ONCE),
            };
            let answer: TpmGetCapabilityResponse = self.call(&command)?;
            let TpmuCapabilities::Handles(list) = answer.capability_data.data else {
                return Err(TpmError::Broken(
                    "handles asked for, something else came".into(),
                ));
            };
            found.extend(list.iter().map(|handle| handle.value()));
            match (answer.more_data.into(), found.last()) {
                (true, Some(last)) if *last >= next && found.len() < MOST_HANDLES => {
                    next = last.saturating_add(1);
                }
                _ => return Ok(found),
            }
        }
    }

    /// TPM2_GetCapability(TPM_CAP_ALGS): the identifiers of all algorithms.
    pub(crate) fn algorithms(&mut self) -> Result<Vec<u16>, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: TpmCap::Algs,
            property: TpmUint32::new(0),
            property_count: TpmUint32::new(HANDLES_AT_ONCE),
        };
        let answer: TpmGetCapabilityResponse = self.call(&command)?;
        match answer.capability_data.data {
            TpmuCapabilities::Algs(list) => Ok(list.iter().map(|one| one.alg.value()).collect()),
            _ => Err(TpmError::Broken(
                "algorithms asked for, something else came".into(),
            )),
        }
    }

    /// TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES): all about lockout.
    pub(crate) fn lockout(&mut self) -> Result<Lockout, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: TpmCap::TpmProperties,
            property: TpmUint32::new(Lockout::FIRST),
            property_count: TpmUint32::new(Lockout::COUNT),
        };
        let answer: TpmGetCapabilityResponse = self.call(&command)?;
        let TpmuCapabilities::TpmProperties(list) = answer.capability_data.data else {
            return Err(TpmError::Broken(
                "properties asked for, something else came".into(),
            ));
        };
        let found = Lockout::of(
            list.iter()
                .map(|one| (one.property.value(), one.value.value())),
        );
        found.ok_or_else(|| TpmError::Unsupported("the TPM does not tell of lockout".into()))
    }

    /// TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES).
    pub(crate) fn property(&mut self, property: Property) -> Result<u32, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: TpmCap::TpmProperties,
            property: TpmUint32::new(property.tag()),
            property_count: TpmUint32::new(1),
        };
        let answer: TpmGetCapabilityResponse = self.call(&command)?;
        match answer.capability_data.data {
            TpmuCapabilities::TpmProperties(list)
                if list
                    .first()
                    .is_some_and(|found| found.property.value() == property.tag()) =>
            {
                Ok(list[0].value.value())
            }
            _ => Err(TpmError::Unsupported(format!(
                "the TPM does not tell {property:?}"
            ))),
        }
    }

    /// TPM2_TestParms: whether the TPM implements the parameters of this TPMT_PUBLIC; it fails as
    /// the TPM does if not.
    pub(crate) fn test_parameters(&mut self, area: &[u8]) -> Result<(), TpmError> {
        let public = public(area)?.inner;
        let command = TpmTestParmsCommand {
            handles: [],
            parameters: TpmtPublicParms {
                object_type: public.object_type,
                parameters: public.parameters,
            },
        };
        self.call::<_, TpmTestParmsResponse>(&command).map(drop)
    }

    /// TPM2_ReadPublic: the TPMT_PUBLIC as bytes, and the object's name.
    pub(crate) fn read_public(&mut self, key: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmReadPublicCommand {
            handles: [handle(key)],
        };
        let answer: TpmReadPublicResponse = self.call(&command)?;
        Ok((marshalled(&answer.out_public.inner)?, answer.name.to_vec()))
    }

    /// The same in an auth session that is there for its HMAC alone: the response comes from the TPM
    /// that reads the session's salt, and its object has this name. Two commands.
    pub(crate) fn read_public_proven(&mut self, key: Used) -> Result<Vec<u8>, TpmError> {
        let command = TpmReadPublicCommand {
            handles: [handle(key.handle)],
        };
        let by = By {
            attributes: AUDIT,
            ..By::new(key)
        };
        let answer: TpmReadPublicResponse = self.call_by(&command, by)?;
        marshalled(&answer.out_public.inner)
    }

    /// TPM2_ReadPublic: the object's qualified name, which tells what it lies below.
    pub(crate) fn qualified_name(&mut self, key: u32) -> Result<Vec<u8>, TpmError> {
        let command = TpmReadPublicCommand {
            handles: [handle(key)],
        };
        let answer: TpmReadPublicResponse = self.call(&command)?;
        Ok(answer.qualified_name.to_vec())
    }

    /// TPM2_CreatePrimary, a key without authorisation value: a transient handle, the TPMT_PUBLIC
    /// and the name. To be flushed.
    pub(crate) fn create_primary(
        &mut self,
        hierarchy: Used,
        template: &[u8],
    ) -> Result<(u32, Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmCreatePrimaryCommand {
            handles: [handle(hierarchy.handle)],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: public(template)?,
            outside_info: Tpm2bData::default(),
            creation_pcr: TpmlPcrSelection::default(),
        };
        let answer: TpmCreatePrimaryResponse = self.call_by(&command, By::new(hierarchy))?;
        let (key, name) = (answer.handles[0].value(), answer.name.to_vec());
        let made = made_from(&command.in_public.inner, &answer.out_public.inner);
        let made = made.and_then(|area| match name_of(&area) {
            Some(computed) if computed != name => Err(TpmError::Unsupported(
                "the TPM answered with a name that is not its key's".into(),
            )),
            _ => Ok((key, area, name)),
        });
        if made.is_err() {
            flush(self, key, &made);
        }
        made
    }

    /// TPM2_Create below `parent`, with this authorisation value, of data that are to be sealed if
    /// the template is for that: the TPMT_PUBLIC, and the private half as the parent wraps it (the
    /// content of a TPM2B_PRIVATE).
    pub(crate) fn create(
        &mut self,
        parent: Used,
        secrets: Secrets,
        template: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmCreateCommand {
            handles: [handle(parent.handle)],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: public(template)?,
            outside_info: Tpm2bData::default(),
            creation_pcr: TpmlPcrSelection::default(),
        };
        let parameters = with_secrets(&parameters(&command)?, secrets)?;
        let by = By {
            attributes: DECRYPT,
            ..By::new(parent)
        };
        let answer: TpmCreateResponse = self.execute(&command, parameters, Some(by), 0)?.read()?;
        let area = made_from(&command.in_public.inner, &answer.out_public.inner)?;
        Ok((area, answer.out_private.to_vec()))
    }

    /// TPM2_Unseal: the data. By an auth session they are encrypted on their way.
    pub(crate) fn unseal(&mut self, sealed: Used) -> Result<Secret, TpmError> {
        let command = TpmUnsealCommand {
            handles: [handle(sealed.handle)],
        };
        self.secret(&command, sealed)
    }

    /// TPM2_Load of what [`Link::create`] or [`Link::import`] gave: a transient handle and the
    /// name. To be flushed.
    pub(crate) fn load(
        &mut self,
        parent: Used,
        area: &[u8],
        private: &[u8],
    ) -> Result<(u32, Vec<u8>), TpmError> {
        let command = TpmLoadCommand {
            handles: [handle(parent.handle)],
            in_private: Tpm2bPrivate::try_from(private).map_err(unfit)?,
            in_public: public(area)?,
        };
        let answer: TpmLoadResponse = self.call_by(&command, By::new(parent))?;
        Ok((answer.handles[0].value(), answer.name.to_vec()))
    }

    /// TPM2_Import of a duplicate without inner wrapper: the private half as `parent` wraps it.
    pub(crate) fn import(
        &mut self,
        parent: Used,
        area: &[u8],
        duplicate: &[u8],
        seed: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let command = TpmImportCommand {
            handles: [handle(parent.handle)],
            encryption_key: Tpm2bData::default(),
            object_public: public(area)?,
            duplicate: Tpm2bPrivate::try_from(duplicate).map_err(unfit)?,
            in_sym_seed: Tpm2bEncryptedSecret::try_from(seed).map_err(unfit)?,
            symmetric_alg: TpmtSymDef::default(),
        };
        let answer: TpmImportResponse = self.call_by(&command, By::new(parent))?;
        Ok(answer.out_private.to_vec())
    }

    /// TPM2_EvictControl: puts the object with this handle and name at `persistent`, or takes it
    /// away from there if it is what is there. Writes to the TPM.
    pub(crate) fn evict(
        &mut self,
        owner: Used,
        (object, name): (u32, &[u8]),
        persistent: u32,
    ) -> Result<(), TpmError> {
        let command = TpmEvictControlCommand {
            handles: [handle(owner.handle), handle(object)],
            persistent_handle: handle(persistent),
        };
        let _: TpmEvictControlResponse = self.call_by(&command, naming(owner, &[name]))?;
        Ok(())
    }

    /// TPM2_ContextSave: what [`Link::context_load`] of this link takes.
    pub(crate) fn context_save(&mut self, key: u32) -> Result<Vec<u8>, TpmError> {
        let command = TpmContextSaveCommand {
            handles: [handle(key)],
        };
        let answer: TpmContextSaveResponse = self.call(&command)?;
        marshalled(&answer.context)
    }

    /// TPM2_ContextLoad: a transient handle. To be flushed.
    pub(crate) fn context_load(&mut self, context: &[u8]) -> Result<u32, TpmError> {
        let unfit = |error| TpmError::Unsupported(format!("context: {error}"));
        let (context, _) = TpmsContext::unmarshal(context).map_err(unfit)?;
        let command = TpmContextLoadCommand {
            handles: [],
            context,
        };
        let answer: TpmContextLoadResponse = self.call(&command)?;
        Ok(answer.handles[0].value())
    }

    /// TPM2_FlushContext.
    pub(crate) fn flush(&mut self, key: u32) -> Result<(), TpmError> {
        let command = TpmFlushContextCommand {
            handles: [],
            flush_handle: handle(key),
        };
        let _: TpmFlushContextResponse = self.call(&command)?;
        Ok(())
    }

    /// TPM2_NV_ReadPublic.
    pub(crate) fn nv_read_public(&mut self, index: u32) -> Result<NvPublic, TpmError> {
        let command = TpmNvReadPublicCommand {
            handles: [handle(index)],
        };
        let answer: TpmNvReadPublicResponse = self.call(&command)?;
        let public = answer.nv_public.inner;
        Ok(NvPublic {
            attributes: public.attributes.bits(),
            size: public.data_size.value(),
        })
    }

    /// TPM2_NV_Read of the index with this handle and name, authorised by itself or by the owner.
    pub(crate) fn nv_read(
        &mut self,
        by: Used,
        (index, name): (u32, &[u8]),
        offset: u16,
        size: u16,
    ) -> Result<Vec<u8>, TpmError> {
        let command = TpmNvReadCommand {
            handles: [handle(by.handle), handle(index)],
            size: TpmUint16::new(size),
            offset: TpmUint16::new(offset),
        };
        let answer: TpmNvReadResponse = self.call_by(&command, naming(by, &[name]))?;
        Ok(answer.data.to_vec())
    }

    /// TPM2_NV_DefineSpace, the name by SHA-256, no policy, the authorisation value empty. Writes to
    /// the TPM.
    pub(crate) fn nv_define(
        &mut self,
        owner: Used,
        index: u32,
        public: NvPublic,
    ) -> Result<(), TpmError> {
        let (inner, _) = TpmsNvPublic::unmarshal(&public.area(index)).map_err(unfit)?;
        let command = TpmNvDefineSpaceCommand {
            handles: [handle(owner.handle)],
            auth: Tpm2bAuth::default(),
            public_info: Tpm2bNvPublic { inner },
        };
        let _: TpmNvDefineSpaceResponse = self.call_by(&command, By::new(owner))?;
        Ok(())
    }

    /// TPM2_NV_Write into the index with this handle and name, authorised by the owner. Writes to
    /// the TPM.
    pub(crate) fn nv_write(
        &mut self,
        owner: Used,
        (index, name): (u32, &[u8]),
        offset: u16,
        data: &[u8],
    ) -> Result<(), TpmError> {
        let command = TpmNvWriteCommand {
            handles: [handle(owner.handle), handle(index)],
            data: Tpm2bMaxNvBuffer::try_from(data).map_err(unfit)?,
            offset: TpmUint16::new(offset),
        };
        let _: TpmNvWriteResponse = self.call_by(&command, naming(owner, &[name]))?;
        Ok(())
    }

    /// TPM2_NV_UndefineSpace. Writes to the TPM.
    pub(crate) fn nv_undefine(
        &mut self,
        owner: Used,
        (index, name): (u32, &[u8]),
    ) -> Result<(), TpmError> {
        let command = TpmNvUndefineSpaceCommand {
            handles: [handle(owner.handle), handle(index)],
        };
        let _: TpmNvUndefineSpaceResponse = self.call_by(&command, naming(owner, &[name]))?;
        Ok(())
    }

    /// TPM2_GetRandom: at most `count` bytes.
    pub(crate) fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        let command = TpmGetRandomCommand {
            handles: [],
            bytes_requested: TpmUint16::new(count),
        };
        let answer: TpmGetRandomResponse = self.call(&command)?;
        Ok(answer.random_bytes.to_vec())
    }

    /// TPM2_Sign; `digest` has the width of the scheme's hash.
    pub(crate) fn sign(
        &mut self,
        key: Used,
        scheme: Scheme,
        digest: &[u8],
    ) -> Result<Signature, TpmError> {
        let digest = Tpm2bDigest::try_from(digest)
            .map_err(|error| TpmError::Unsupported(format!("digest: {error}")))?;
        let command = TpmSignCommand {
            handles: [handle(key.handle)],
            digest,
            in_scheme: TpmtSigScheme {
                scheme: match scheme {
                    Scheme::Ecdsa(_) => TpmAlgId::Ecdsa,
                    Scheme::Rsassa(_) => TpmAlgId::Rsassa,
                    Scheme::Rsapss(_) => TpmAlgId::Rsapss,
                },
                details: TpmuSigScheme::Hash(TpmsSchemeHash {
                    hash_alg: algorithm(scheme.hash()),
                }),
            },
            // The NULL ticket: the digest was made outside, as an unrestricted key allows.
            validation: TpmtTkHashcheck {
                tag: TpmSt::HashCheck,
                hierarchy: TpmRh::Null,
                digest: Tpm2bDigest::default(),
            },
        };
        let answer: TpmSignResponse = self.call_by(&command, By::new(key))?;
        match answer.signature.signature {
            TpmuSignature::Ecdsa(pair) => Ok(Signature::Ecc {
                r: pair.signature_r.to_vec(),
                s: pair.signature_s.to_vec(),
            }),
            TpmuSignature::Rsassa(one) | TpmuSignature::Rsapss(one) => {
                Ok(Signature::Rsa(one.sig.to_vec()))
            }
            _ => Err(TpmError::Broken(
                "a signature of a kind that was not asked for".into(),
            )),
        }
    }

    /// TPM2_RSA_Decrypt without padding: the whole block, as wide as the modulus but for leading
    /// zeros. By an auth session it is encrypted on its way.
    pub(crate) fn rsa_decrypt(&mut self, key: Used, cipher: &[u8]) -> Result<Secret, TpmError> {
        let command = TpmRsaDecryptCommand {
            handles: [handle(key.handle)],
            cipher_text: Tpm2bPublicKeyRsa::try_from(cipher).map_err(unfit)?,
            in_scheme: TpmtRsaDecrypt::default(),
            label: Tpm2bData::default(),
        };
        self.secret(&command, key)
    }

    /// TPM2_ECDH_ZGen with the other side's point: the x coordinate, but for leading zeros; encrypted
    /// likewise.
    pub(crate) fn ecdh_z(&mut self, key: Used, (x, y): (&[u8], &[u8])) -> Result<Secret, TpmError> {
        let inner = TpmsEccPoint {
            x: Tpm2bEccParameter::try_from(x).map_err(unfit)?,
            y: Tpm2bEccParameter::try_from(y).map_err(unfit)?,
        };
        let command = TpmEcdhZGenCommand {
            handles: [handle(key.handle)],
            in_point: Tpm2bEccPoint { inner },
        };
        let point = self.secret(&command, key)?;
        let (x, _) = content(&point)
            .ok_or_else(|| TpmError::Unsupported("response: a point without x".into()))?;
        Ok(Secret::new(x.to_vec()))
    }

    /// A command whose response begins with a secret: the content of the TPM2B. The library's
    /// structures would leave copies of it.
    fn secret<C: TpmFrame>(&mut self, command: &C, used: Used) -> Result<Secret, TpmError> {
        let by = By {
            attributes: ENCRYPT,
            ..By::new(used)
        };
        let answer = self.execute(command, parameters(command)?, Some(by), 0)?;
        let (secret, _) = content(&answer.parameters)
            .ok_or_else(|| TpmError::Unsupported("response: shorter than it says".into()))?;
        Ok(Secret::new(secret.to_vec()))
    }
}
