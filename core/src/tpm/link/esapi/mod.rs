//! The link through libtss2's ESAPI: for transports that only libtss2 knows, and the oracle that
//! the wire link is tested against. The only place that names `tss_esapi`.
//!
//! Not promised here, since libtss2 has none of it: a time limit, close-on-exec, and silence on the
//! host's stderr (it obeys the environment variable `TSS2_LOG=all+none`).

mod commands;

use crate::tpm::{Auth, ResponseCode, SaltKey, TpmError, Used};
use log::debug;
use std::collections::HashMap;
use std::str::FromStr;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{SessionType, Tss2ResponseCode};
use tss_esapi::handles::{
    KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle, SessionHandle, TpmHandle,
};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{self, SymmetricDefinition};
use tss_esapi::utils::TpmsContext;
use tss_esapi::{Context, TctiNameConf};

/// What of a command, beside the authorisation value, is nobody else's business.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    None,
    /// Its first parameter.
    Command,
    /// The first parameter of its response.
    Response,
}

const OWNER: u32 = 0x4000_0001;
const ENDORSEMENT: u32 = 0x4000_000B;

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

    /// ESAPI's own handle of a key or a hierarchy.
    fn used(&mut self, used: Used) -> Result<ObjectHandle, tss_esapi::Error> {
        match used.handle {
            OWNER => Ok(ObjectHandle::Owner),
            ENDORSEMENT => Ok(ObjectHandle::Endorsement),
            handle => self.resource(handle),
        }
    }

    /// Runs a command that uses something: by an empty password, or in an HMAC auth session for
    /// this command alone, which encrypts what is secret of it.
    fn authorised<R>(
        &mut self,
        used: Used,
        secrecy: Secrecy,
        command: impl FnOnce(&mut Context) -> Result<R, tss_esapi::Error>,
    ) -> Result<R, tss_esapi::Error> {
        let Auth::Value(value, salt_key) = used.auth else {
            let password = Some(AuthSession::Password);
            return self.context.execute_with_session(password, command);
        };
        let entity = self.used(used)?;
        let salted_to = salt_key.map(|key| self.salt(key)).transpose()?;
        let session = self.context.start_auth_session(
            salted_to,
            None,
            None,
            SessionType::Hmac,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )?;
        let result = self.in_session(session, entity, value, secrecy, command);
        if result.is_err()
            && let Some(session) = session
            && let Err(error) = self
                .context
                .flush_context(SessionHandle::from(session).into())
        {
            debug!("TPM2_FlushContext of an auth session: {error}");
        }
        result
    }

    fn in_session<R>(
        &mut self,
        session: Option<AuthSession>,
        entity: ObjectHandle,
        value: &[u8],
        secrecy: Secrecy,
        command: impl FnOnce(&mut Context) -> Result<R, tss_esapi::Error>,
    ) -> Result<R, tss_esapi::Error> {
        if let Some(session) = session {
            let (attributes, mask) = SessionAttributesBuilder::new()
                .with_continue_session(false)
                .with_decrypt(secrecy == Secrecy::Command)
                .with_encrypt(secrecy == Secrecy::Response)
                .build();
            self.context
                .tr_sess_set_attributes(session, attributes, mask)?;
        }
        self.context
            .tr_set_auth(entity, structures::Auth::try_from(value)?)?;
        let result = self.context.execute_with_session(session, command);
        // ESAPI is not to remember it.
        self.context
            .tr_set_auth(entity, structures::Auth::default())?;
        result
    }

    /// The key that reads the salt, if it still is the one that is meant: whoever offers another
    /// could test guesses against what it reads.
    fn salt(&mut self, key: &SaltKey) -> Result<KeyHandle, tss_esapi::Error> {
        let resource = self.resource(key.handle)?;
        let there = self.context.tr_get_name(resource)?;
        match there.value() == key.name {
            true => Ok(KeyHandle::from(resource)),
            false => Err(tss_esapi::Error::WrapperError(
                tss_esapi::WrapperErrorKind::InconsistentParams,
            )),
        }
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
