//! The TPM commands of this project (Part 3). Each command is one method.

use super::created::check_created;
use super::execute::{CommandAuth, written};
use super::flush;
use super::response_reader::ResponseReader;
use super::session::{AUDIT, DECRYPT, ENCRYPT};
use super::ticket::HashTicket;
use super::{Link, marshalled};
use crate::tpm::{
    AuthHandle, Hash, NvPublic, Secret, SensitiveCreate, Signature, SignatureScheme, TpmError,
    name_of,
};
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::*;
use tpm2_protocol::frame::*;

fn handle(value: u32) -> TpmHandle {
    TpmHandle::new(value)
}

/// Returns the TPM_ALG_ID of a hash, in the type of the library.
pub(super) fn algorithm(hash: Hash) -> TpmAlgId {
    match hash {
        Hash::Sha1 => TpmAlgId::Sha1,
        Hash::Sha256 => TpmAlgId::Sha256,
        Hash::Sha384 => TpmAlgId::Sha384,
        Hash::Sha512 => TpmAlgId::Sha512,
    }
}

/// Parses a public area or a template.
fn public(area: &[u8]) -> Result<Tpm2bPublic, TpmError> {
    let unfit = |error| TpmError::Unsupported(format!("public area: {error}"));
    let (inner, _) = TpmtPublic::unmarshal(area).map_err(unfit)?;
    Ok(Tpm2bPublic { inner })
}

fn unfit(error: tpm2_protocol::TpmError) -> TpmError {
    TpmError::Unsupported(format!("parameter: {error}"))
}

/// Returns the parameters of TPM2_Create, with these secrets instead of the empty
/// TPM2B_SENSITIVE_CREATE. This function builds the bytes itself, because the structures of the
/// library would leave copies of the secrets in memory.
fn with_secrets(parameters: &[u8], secrets: SensitiveCreate) -> Result<Secret, TpmError> {
    let mut reading = ResponseReader::new(parameters);
    reading.tpm2b()?;
    let rest = reading.rest();
    let SensitiveCreate { value, data } = secrets;
    let too_long = |_| TpmError::Unsupported("command: the secret is too long".into());
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

/// Returns the authorisation for a command with two handles. `others` contains the name of the
/// second entity.
fn naming<'a>(used: AuthHandle<'a>, others: &'a [&'a [u8]]) -> CommandAuth<'a> {
    CommandAuth {
        others,
        ..CommandAuth::new(used)
    }
}

impl Link {
    /// TPM2_TestParms: succeeds if the TPM implements the parameters of this TPMT_PUBLIC.
    ///
    /// # Errors
    ///
    /// Fails with the response code of the TPM if it does not implement them.
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

    /// TPM2_ReadPublic: returns the TPMT_PUBLIC as the TPM gave it, and the name of the object. The
    /// object may have a type that is unknown to this project.
    pub(crate) fn read_public(&mut self, key: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let [area, name, _] = self.public(key)?;
        Ok((area, name))
    }

    /// TPM2_ReadPublic in an audit session: returns the TPMT_PUBLIC. The HMAC proves that the
    /// response comes from the TPM that has the salt key, and that the object has this name. Sends
    /// two commands.
    pub(crate) fn read_public_proven(&mut self, key: AuthHandle) -> Result<Vec<u8>, TpmError> {
        let command = TpmReadPublicCommand {
            handles: [handle(key.handle)],
        };
        let by = CommandAuth {
            attributes: AUDIT,
            ..CommandAuth::new(key)
        };
        let answer: TpmReadPublicResponse = self.call_by(&command, by)?;
        marshalled(&answer.out_public.inner)
    }

    /// TPM2_ReadPublic: returns the qualified name of the object, which depends on its ancestors.
    /// Returns `None` if the TPM returns the name instead of the qualified name, or an empty value.
    pub(crate) fn qualified_name(&mut self, key: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let [_, name, qualified] = self.public(key)?;
        Ok(Some(qualified).filter(|qualified| !qualified.is_empty() && *qualified != name))
    }

    /// TPM2_ReadPublic: returns the TPMT_PUBLIC, the name and the qualified name.
    fn public(&mut self, key: u32) -> Result<[Vec<u8>; 3], TpmError> {
        let command = TpmReadPublicCommand {
            handles: [handle(key)],
        };
        let answer = self.execute(&command, None, None, 0)?;
        let mut reading = ResponseReader::new(&answer.parameters);
        let mut next = || reading.tpm2b().map(<[u8]>::to_vec);
        Ok([next()?, next()?, next()?])
    }

    /// TPM2_CreatePrimary of a key without authorisation value: returns a transient handle, the
    /// TPMT_PUBLIC and the name. The caller must flush the handle.
    pub(crate) fn create_primary(
        &mut self,
        hierarchy: AuthHandle,
        template: &[u8],
    ) -> Result<(u32, Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmCreatePrimaryCommand {
            handles: [handle(hierarchy.handle)],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: public(template)?,
            outside_info: Tpm2bData::default(),
            creation_pcr: TpmlPcrSelection::default(),
        };
        let answer: TpmCreatePrimaryResponse =
            self.call_by(&command, CommandAuth::new(hierarchy))?;
        let (key, name) = (answer.handles[0].value(), answer.name.to_vec());
        let made = check_created(&command.in_public.inner, &answer.out_public.inner);
        let made = made.and_then(|area| match name_of(&area) {
            Some(computed) if computed != name => Err(TpmError::Unsupported(
                "the TPM answered with a name that does not belong to the key".into(),
            )),
            _ => Ok((key, area, name)),
        });
        if made.is_err() {
            flush(self, key, &made);
        }
        made
    }

    /// TPM2_Create below `parent`, with the given secrets. Returns the TPMT_PUBLIC and the wrapped
    /// private part (the content of a TPM2B_PRIVATE).
    pub(crate) fn create(
        &mut self,
        parent: AuthHandle,
        secrets: SensitiveCreate,
        template: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmCreateCommand {
            handles: [handle(parent.handle)],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: public(template)?,
            outside_info: Tpm2bData::default(),
            creation_pcr: TpmlPcrSelection::default(),
        };
        let parameters = with_secrets(
            &written(|writer| command.marshal_parameters(writer))?,
            secrets,
        )?;
        let by = CommandAuth {
            attributes: DECRYPT,
            ..CommandAuth::new(parent)
        };
        let answer: TpmCreateResponse = self
            .execute(&command, Some(parameters), Some(by), 0)?
            .read()?;
        let area = check_created(&command.in_public.inner, &answer.out_public.inner)?;
        Ok((area, answer.out_private.to_vec()))
    }

    /// TPM2_Unseal: returns the sealed data. In an auth session the TPM encrypts the data on the
    /// bus.
    pub(crate) fn unseal(&mut self, sealed: AuthHandle) -> Result<Secret, TpmError> {
        let command = TpmUnsealCommand {
            handles: [handle(sealed.handle)],
        };
        self.secret(&command, sealed)
    }

    /// TPM2_Load of a result of [`Link::create`] or [`Link::import`]: returns a transient handle
    /// and the name. The caller must flush the handle.
    pub(crate) fn load(
        &mut self,
        parent: AuthHandle,
        area: &[u8],
        private: &[u8],
    ) -> Result<(u32, Vec<u8>), TpmError> {
        let command = TpmLoadCommand {
            handles: [handle(parent.handle)],
            in_private: Tpm2bPrivate::try_from(private).map_err(unfit)?,
            in_public: public(area)?,
        };
        let answer: TpmLoadResponse = self.call_by(&command, CommandAuth::new(parent))?;
        Ok((answer.handles[0].value(), answer.name.to_vec()))
    }

    /// TPM2_Import of a duplicate without inner wrapper. Returns the private part, wrapped by
    /// `parent`.
    pub(crate) fn import(
        &mut self,
        parent: AuthHandle,
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
        let answer: TpmImportResponse = self.call_by(&command, CommandAuth::new(parent))?;
        Ok(answer.out_private.to_vec())
    }

    /// TPM2_ObjectChangeAuth of the key with this handle. `parent` is the handle and name of the
    /// parent. Returns the private part with the new authorisation value, wrapped by the parent.
    /// The key in the TPM, and the private part from which it was loaded, keep the old value. The
    /// new value crosses the bus encrypted.
    pub(crate) fn object_change_auth(
        &mut self,
        key: AuthHandle,
        (parent, name): (u32, &[u8]),
        value: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let command = TpmObjectChangeAuthCommand {
            handles: [handle(key.handle), handle(parent)],
            new_auth: Tpm2bAuth::default(),
        };
        let too_long =
            |_| TpmError::Unsupported("command: the authorisation value is too long".into());
        let size = u16::try_from(value.len()).map_err(too_long)?;
        let mut parameters = Secret::new(Vec::with_capacity(2 + value.len()));
        parameters.extend(size.to_be_bytes());
        parameters.extend(value);
        let others = [name];
        let by = CommandAuth {
            attributes: DECRYPT,
            ..naming(key, &others)
        };
        let answer: TpmObjectChangeAuthResponse = self
            .execute(&command, Some(parameters), Some(by), 0)?
            .read()?;
        Ok(answer.out_private.to_vec())
    }

    /// TPM2_EvictControl: makes the object with this handle and name persistent at the handle
    /// `persistent`. If the object is persistent at this handle already, the command removes it.
    /// Writes to the TPM.
    pub(crate) fn evict(
        &mut self,
        owner: AuthHandle,
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

    /// TPM2_ContextSave: returns a context for [`Link::context_load`] of this link.
    pub(crate) fn context_save(&mut self, key: u32) -> Result<Vec<u8>, TpmError> {
        let command = TpmContextSaveCommand {
            handles: [handle(key)],
        };
        let answer: TpmContextSaveResponse = self.call(&command)?;
        marshalled(&answer.context)
    }

    /// TPM2_ContextLoad: returns a transient handle, which the caller must flush.
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
        let answer = self.execute(&command, None, None, 0)?;
        let mut reading = ResponseReader::new(ResponseReader::new(&answer.parameters).tpm2b()?);
        let (told, _name_hash) = (reading.uint32()?, reading.uint16()?);
        let attributes = reading.uint32()?;
        reading.tpm2b()?; // the authPolicy
        if told != index {
            return Err(TpmError::WrongAnswer(format!(
                "the TPM answered with NV index 0x{told:08X} instead of 0x{index:08X}"
            )));
        }
        Ok(NvPublic {
            attributes,
            size: reading.uint16()?,
        })
    }

    /// TPM2_NV_Read of the index with this handle and name. The index itself or the owner
    /// authorises the read.
    pub(crate) fn nv_read(
        &mut self,
        by: AuthHandle,
        (index, name): (u32, &[u8]),
        offset: u16,
        size: u16,
    ) -> Result<Vec<u8>, TpmError> {
        let command = TpmNvReadCommand {
            handles: [handle(by.handle), handle(index)],
            size: TpmUint16::new(size),
            offset: TpmUint16::new(offset),
        };
        let others = [name];
        let by = naming(by, &others);
        let answer = self.execute(&command, None, Some(by), 0)?;
        Ok(ResponseReader::new(&answer.parameters).tpm2b()?.to_vec())
    }

    /// TPM2_NV_DefineSpace of an index with a SHA-256 name, without policy, with the empty
    /// authorisation value. Writes to the TPM.
    pub(crate) fn nv_define(
        &mut self,
        owner: AuthHandle,
        index: u32,
        public: NvPublic,
    ) -> Result<(), TpmError> {
        let (inner, _) = TpmsNvPublic::unmarshal(&public.area(index)).map_err(unfit)?;
        let command = TpmNvDefineSpaceCommand {
            handles: [handle(owner.handle)],
            auth: Tpm2bAuth::default(),
            public_info: Tpm2bNvPublic { inner },
        };
        let _: TpmNvDefineSpaceResponse = self.call_by(&command, CommandAuth::new(owner))?;
        Ok(())
    }

    /// TPM2_NV_Write to the index with this handle and name, authorised by the owner. Writes to the
    /// TPM.
    pub(crate) fn nv_write(
        &mut self,
        owner: AuthHandle,
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

    /// TPM2_NV_WriteLock of an index with the attribute WRITEDEFINE. No program can write to the
    /// index afterwards. Writes to the TPM.
    #[cfg(feature = "manufacture")]
    pub(crate) fn nv_write_lock(
        &mut self,
        by: AuthHandle,
        (index, name): (u32, &[u8]),
    ) -> Result<(), TpmError> {
        let command = TpmNvWriteLockCommand {
            handles: [handle(by.handle), handle(index)],
        };
        let _: TpmNvWriteLockResponse = self.call_by(&command, naming(by, &[name]))?;
        Ok(())
    }

    /// TPM2_NV_UndefineSpace. Writes to the TPM.
    pub(crate) fn nv_undefine(
        &mut self,
        owner: AuthHandle,
        (index, name): (u32, &[u8]),
    ) -> Result<(), TpmError> {
        let command = TpmNvUndefineSpaceCommand {
            handles: [handle(owner.handle), handle(index)],
        };
        let _: TpmNvUndefineSpaceResponse = self.call_by(&command, naming(owner, &[name]))?;
        Ok(())
    }

    /// TPM2_GetRandom: returns at most `count` random bytes.
    pub(crate) fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        let command = TpmGetRandomCommand {
            handles: [],
            bytes_requested: TpmUint16::new(count),
        };
        let answer = self.execute(&command, None, None, 0)?;
        Ok(ResponseReader::new(&answer.parameters).tpm2b()?.to_vec())
    }

    /// TPM2_Sign: returns the signature of `digest`, which must be as long as a digest of the
    /// scheme's hash.
    pub(crate) fn sign(
        &mut self,
        key: AuthHandle,
        scheme: SignatureScheme,
        digest: &[u8],
    ) -> Result<Signature, TpmError> {
        self.sign_by_ticket(key, scheme, digest, &HashTicket::none())
    }

    /// TPM2_Sign of a digest that the TPM made, as the ticket shows. A restricted key signs no
    /// other digest.
    pub(in crate::tpm) fn sign_by_ticket(
        &mut self,
        key: AuthHandle,
        scheme: SignatureScheme,
        digest: &[u8],
        ticket: &HashTicket,
    ) -> Result<Signature, TpmError> {
        let digest = Tpm2bDigest::try_from(digest)
            .map_err(|error| TpmError::Unsupported(format!("digest: {error}")))?;
        let command = TpmSignCommand {
            handles: [handle(key.handle)],
            digest,
            in_scheme: TpmtSigScheme {
                scheme: match scheme {
                    SignatureScheme::Ecdsa(_) => TpmAlgId::Ecdsa,
                    SignatureScheme::Rsassa(_) => TpmAlgId::Rsassa,
                    SignatureScheme::Rsapss(_) => TpmAlgId::Rsapss,
                },
                details: TpmuSigScheme::Hash(TpmsSchemeHash {
                    hash_alg: algorithm(scheme.hash()),
                }),
            },
            validation: ticket.0,
        };
        let answer = self.execute(&command, None, Some(CommandAuth::new(key)), 0)?;
        let mut reading = ResponseReader::new(&answer.parameters);
        let (by, hash) = (reading.uint16()?, reading.uint16()?);
        if (by, hash) != (scheme.algorithm(), scheme.hash().algorithm()) {
            return Err(TpmError::WrongAnswer(format!(
                "the command asked for a signature by {scheme:?}, but the TPM used the scheme \
                 0x{by:04X} with the hash 0x{hash:04X}"
            )));
        }
        let mut number = || reading.tpm2b().map(<[u8]>::to_vec);
        Ok(match scheme {
            SignatureScheme::Ecdsa(_) => Signature::Ecc {
                r: number()?,
                s: number()?,
            },
            SignatureScheme::Rsassa(_) | SignatureScheme::Rsapss(_) => Signature::Rsa(number()?),
        })
    }

    /// TPM2_RSA_Decrypt without padding: returns the whole block, as wide as the modulus but
    /// without leading zeros. In an auth session the block is encrypted on the bus.
    pub(crate) fn rsa_decrypt(
        &mut self,
        key: AuthHandle,
        cipher: &[u8],
    ) -> Result<Secret, TpmError> {
        let command = TpmRsaDecryptCommand {
            handles: [handle(key.handle)],
            cipher_text: Tpm2bPublicKeyRsa::try_from(cipher).map_err(unfit)?,
            in_scheme: TpmtRsaDecrypt::default(),
            label: Tpm2bData::default(),
        };
        self.secret(&command, key)
    }

    /// TPM2_ECDH_ZGen with the point of the peer: returns the x coordinate without leading zeros.
    /// In an auth session the coordinate is encrypted on the bus.
    pub(crate) fn ecdh_z(
        &mut self,
        key: AuthHandle,
        (x, y): (&[u8], &[u8]),
    ) -> Result<Secret, TpmError> {
        let inner = TpmsEccPoint {
            x: Tpm2bEccParameter::try_from(x).map_err(unfit)?,
            y: Tpm2bEccParameter::try_from(y).map_err(unfit)?,
        };
        let command = TpmEcdhZGenCommand {
            handles: [handle(key.handle)],
            in_point: Tpm2bEccPoint { inner },
        };
        let point = self.secret(&command, key)?;
        Ok(Secret::new(ResponseReader::new(&point).tpm2b()?.to_vec()))
    }

    /// Runs a command whose response begins with a secret. Returns the content of the TPM2B. This
    /// function reads the bytes itself, because the structures of the library would leave copies of
    /// the secret in memory.
    fn secret<C: TpmFrame>(&mut self, command: &C, used: AuthHandle) -> Result<Secret, TpmError> {
        let by = CommandAuth {
            attributes: ENCRYPT,
            ..CommandAuth::new(used)
        };
        let answer = self.execute(command, None, Some(by), 0)?;
        Ok(Secret::new(
            ResponseReader::new(&answer.parameters).tpm2b()?.to_vec(),
        ))
    }
}
