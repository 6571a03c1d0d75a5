//! The link through libtss2's ESAPI: for transports that only libtss2 knows, and the oracle that
//! the wire link is tested against. The only place that names `tss_esapi`.
//!
//! Not promised here, since libtss2 has none of it: a time limit, close-on-exec, and silence on the
//! host's stderr (it obeys the environment variable `TSS2_LOG=all+none`).

use super::MOST_HANDLES;
use crate::tpm::{Hash, Link, NvPublic, Property, ResponseCode, Scheme, Signature, TpmError};
use std::collections::HashMap;
use std::mem;
use std::str::FromStr;
use tss_esapi::constants::{CapabilityType, PropertyTag, Tss2ResponseCode};
use tss_esapi::handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    CapabilityData, Digest, HashScheme, HashcheckTicket, Public, Signature as Esys, SignatureScheme,
};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;
use tss_esapi::utils::TpmsContext;
use tss_esapi::{Context, TctiNameConf};

/// A TPM behind ESAPI.
pub(super) struct Esapi {
    text: String,
    conf: TctiNameConf,
    connection: Option<Connection>,
    /// Contexts that were saved, by their number.
    saved: Vec<TpmsContext>,
}

struct Connection {
    context: Context,
    /// ESAPI's own handles of what was named already; each costs a command to make.
    resources: HashMap<u32, ObjectHandle>,
}

impl Esapi {
    /// # Errors
    ///
    /// The string names no transport that tss-esapi knows, or one that it would misread.
    pub(super) fn open(conf: &str) -> Result<Self, TpmError> {
        if conf.contains("path=") {
            // tss-esapi 7 drops what it does not know and would take 127.0.0.1:2321 instead.
            return Err(TpmError::Unsupported(format!(
                "esapi:{conf}: path= is not understood"
            )));
        }
        let parsed = TctiNameConf::from_str(conf)
            .map_err(|error| TpmError::Unsupported(format!("esapi:{conf}: {error}")))?;
        Ok(Self {
            text: conf.to_owned(),
            conf: parsed,
            connection: None,
            saved: Vec::new(),
        })
    }

    /// What stands for a saved context outside: of no use to another link, such as a forked
    /// child's, which has contexts of its own under the same numbers.
    fn token(&self, number: usize) -> Vec<u8> {
        format!("{} {number}", std::process::id()).into_bytes()
    }

    fn call<R>(
        &mut self,
        command: impl FnOnce(&mut Connection) -> Result<R, tss_esapi::Error>,
    ) -> Result<R, TpmError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let context = Context::new(self.conf.clone()).map_err(|error| {
                    let code = number(&error).unwrap_or_default();
                    TpmError::Unreachable(format!(
                        "libtss2 cannot open {} (0x{code:X}): is it there, and may this user use it?",
                        self.text
                    ))
                })?;
                none.insert(Connection {
                    context,
                    resources: HashMap::new(),
                })
            }
        };
        let result = command(connection).map_err(plain);
        if result.as_ref().is_err_and(TpmError::is_transport_fault) {
            // ESAPI stays in its "bad sequence" after a fault: only a new context helps.
            self.connection = None;
        }
        result
    }
}

impl Connection {
    fn resource(&mut self, handle: u32) -> Result<ObjectHandle, tss_esapi::Error> {
        if let Some(known) = self.resources.get(&handle) {
            return Ok(*known);
        }
        let resource = self
            .context
            .tr_from_tpm_public(TpmHandle::try_from(handle)?)?;
        self.resources.insert(handle, resource);
        Ok(resource)
    }

    /// A number for an object that only ESAPI has a handle of.
    fn transient(&mut self, resource: ObjectHandle) -> u32 {
        let handle = tss_esapi::tss2_esys::ESYS_TR::from(resource);
        self.resources.insert(handle, resource);
        handle
    }

    fn nv_index(&mut self, index: u32) -> Result<NvIndexHandle, tss_esapi::Error> {
        NvIndexTpmHandle::new(index)?;
        self.resource(index).map(NvIndexHandle::from)
    }
}

/// ESAPI's error in our words: a code of the TPM, or of a layer above it.
fn plain(error: tss_esapi::Error) -> TpmError {
    const LAYERS: u32 = 0x00FF_0000;
    const RESOURCE_MANAGER_TPM_LAYER: u32 = 0x000B_0000;
    let Some(number) = number(&error) else {
        return TpmError::Unsupported(format!("esapi: {error}"));
    };
    match number & LAYERS {
        0 if number != 0 => ResponseCode(number).into(),
        RESOURCE_MANAGER_TPM_LAYER => ResponseCode(number & 0xFFFF).into(),
        _ => TpmError::Broken(format!("libtss2: 0x{number:X} {error}")),
    }
}

/// The code as libtss2 gave it, layer and all; `None` for a fault of the wrapper's own.
fn number(error: &tss_esapi::Error) -> Option<u32> {
    // The number itself is public in no other form than this text, "Response code value: 0x…".
    let text = match error {
        tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.to_string(),
        tss_esapi::Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.to_string(),
        _ => return None,
    };
    let (_, digits) = text.rsplit_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

fn hashing(hash: Hash) -> HashingAlgorithm {
    match hash {
        Hash::Sha1 => HashingAlgorithm::Sha1,
        Hash::Sha256 => HashingAlgorithm::Sha256,
        Hash::Sha384 => HashingAlgorithm::Sha384,
        Hash::Sha512 => HashingAlgorithm::Sha512,
    }
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

    fn property(&mut self, property: Property) -> Result<u32, TpmError> {
        let tag = match property {
            Property::NvBufferMax => PropertyTag::NvBufferMax,
            Property::LockoutCounter => PropertyTag::LockoutCounter,
            Property::LockoutInterval => PropertyTag::LockoutInterval,
        };
        self.call(|connection| connection.context.get_tpm_property(tag))?
            .ok_or_else(|| TpmError::Unsupported(format!("the TPM does not tell {property:?}")))
    }

    fn read_public(&mut self, key: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        self.call(|connection| {
            let key = KeyHandle::from(connection.resource(key)?);
            let (public, name, _) = connection.context.read_public(key)?;
            Ok((public.marshall()?, name.value().to_vec()))
        })
    }

    fn create_primary(&mut self, template: &[u8]) -> Result<(u32, Vec<u8>, Vec<u8>), TpmError> {
        let public = Public::unmarshall(template)
            .map_err(|error| TpmError::Unsupported(format!("template: {error}")))?;
        self.call(|connection| {
            let made = connection.context.execute_with_session(
                Some(AuthSession::Password),
                |context| {
                    context.create_primary(Hierarchy::Endorsement, public, None, None, None, None)
                },
            )?;
            let (_, name, _) = connection.context.read_public(made.key_handle)?;
            let handle = connection.transient(made.key_handle.into());
            Ok((handle, made.out_public.marshall()?, name.value().to_vec()))
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

    fn nv_read(&mut self, index: u32, offset: u16, size: u16) -> Result<Vec<u8>, TpmError> {
        self.call(|connection| {
            let index = connection.nv_index(index)?;
            connection
                .context
                .execute_with_session(Some(AuthSession::Password), |context| {
                    context.nv_read(NvAuth::NvIndex(index), index, size, offset)
                })
                .map(|data| data.value().to_vec())
        })
    }

    fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        self.call(|connection| connection.context.get_random(count.into()))
            .map(|bytes| bytes.value().to_vec())
    }

    fn sign(&mut self, key: u32, scheme: Scheme, digest: &[u8]) -> Result<Signature, TpmError> {
        let signature = self.call(|connection| {
            let key = KeyHandle::from(connection.resource(key)?);
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
            connection
                .context
                .execute_with_session(Some(AuthSession::Password), |context| {
                    context.sign(key, digest, scheme, ticket)
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

    fn abandon(mut self: Box<Self>) {
        // Dropping a context flushes what it loaded, and that is the parent's: leak it.
        mem::forget(self.connection.take());
    }
}
