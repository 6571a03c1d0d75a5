//! Commands with an authorisation: an empty password, or a value that is proven in an HMAC auth
//! session (Part 1, sections 18.5 to 18.9).

use super::{FRAME_MAX, HEADER, Transport, Wire, check};
use crate::tpm::session::{AuthSession, Beginning, DECRYPT, ENCRYPT};
use crate::tpm::{Auth, SaltKey, Secret, TpmError, Used, sized};
use log::debug;
use tpm2_protocol::TpmWriter;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::{
    Tpm2bEncryptedSecret, Tpm2bNonce, TpmAlgId, TpmSe, TpmtSymDefObject, TpmuSymKeyBits,
    TpmuSymMode,
};
use tpm2_protocol::frame::{
    TpmFlushContextCommand, TpmFlushContextResponse, TpmFrame, TpmStartAuthSessionCommand,
    TpmStartAuthSessionResponse, TpmUnmarshalBody,
};
use zeroize::Zeroizing;

/// TPM_RS_PW: an authorisation by password.
const PASSWORD: u32 = 0x4000_0009;
/// TPM_RH_NULL: no salt key, nothing bound to.
const NULL: u32 = 0x4000_0007;
const SESSIONS_TAG: u16 = 0x8002;

/// What of a command, beside the authorisation value, is nobody else's business.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Nothing.
    None,
    /// Its first parameter.
    Command,
    /// The first parameter of its response.
    Response,
}

impl<T: Transport> Wire<T> {
    /// A command whose first handle is `used`; `others` are the names of its other handles.
    pub(super) fn call_with<C, R>(
        &mut self,
        command: &C,
        used: Used,
        others: &[&[u8]],
        secrecy: Secrecy,
    ) -> Result<R, TpmError>
    where
        C: TpmFrame,
        R: TpmUnmarshalBody,
    {
        let parameters = parameters(command)?;
        let answer = self.call_by_bytes(command, parameters, used, others, secrecy, R::HANDLES)?;
        R::unmarshal_body(&answer.handles, &answer.parameters)
            .map_err(|error| TpmError::Unsupported(format!("response: {error}")))
    }

    /// A command whose response begins with a secret, which is encrypted on its way: the content
    /// of the TPM2B. The library's structures would leave copies of it.
    pub(super) fn call_for_secret<C: TpmFrame>(
        &mut self,
        command: &C,
        used: Used,
    ) -> Result<Secret, TpmError> {
        let parameters = parameters(command)?;
        let answer = self.call_by_bytes(command, parameters, used, &[], Secrecy::Response, 0)?;
        let (secret, _) = content(&answer.parameters).ok_or_else(|| short("response"))?;
        Ok(Secret::new(secret.to_vec()))
    }

    /// The same with parameters as bytes, whatever those of `command` are; `handles` is the number
    /// of the response's.
    pub(super) fn call_by_bytes<C: TpmFrame>(
        &mut self,
        command: &C,
        parameters: Secret,
        used: Used,
        others: &[&[u8]],
        secrecy: Secrecy,
        handles: usize,
    ) -> Result<Body, TpmError> {
        let Auth::Value(value, salt_key) = used.auth else {
            return self.call_open(command, &parameters, handles);
        };
        let mut session = self.begin(salt_key, value)?;
        let names = [&[used.name], others].concat();
        let answer = self.call_in(&mut session, command, parameters, &names, secrecy, handles);
        // A command that succeeded took its session with it; one that failed left it. Where the
        // answer was lost it may be either, and nobody can have been given the number since.
        let failed = |error: &TpmError| {
            matches!(error, TpmError::Response(_) | TpmError::Unsupported(_))
                || error.is_transport_fault()
        };
        if answer.as_ref().is_err_and(failed) {
            let flush = TpmFlushContextCommand {
                handles: [],
                flush_handle: TpmHandle::new(session.handle),
            };
            if let Err(error) = self.call::<_, TpmFlushContextResponse>(&flush) {
                debug!("TPM2_FlushContext of an auth session: {error}");
            }
        }
        answer
    }

    fn call_open<C: TpmFrame>(
        &mut self,
        command: &C,
        parameters: &[u8],
        handles: usize,
    ) -> Result<Body, TpmError> {
        // Handle, an empty nonce, no attributes, an empty password.
        let auth = [&PASSWORD.to_be_bytes()[..], &[0; 5]].concat();
        let frame = framed(command, &self::handles(command)?, &auth, parameters)?;
        let response = self.transact(&frame)?;
        check(&response)?;
        let answer = Authorised::of(&response, handles).ok_or_else(|| short("response"))?;
        Ok(Body {
            handles: answer.handles.to_vec(),
            parameters: Secret::new(answer.parameters.to_vec()),
        })
    }

    fn begin(&mut self, salt_key: Option<&SaltKey>, value: &[u8]) -> Result<AuthSession, TpmError> {
        let unfit = |error| TpmError::Unsupported(format!("auth session: {error}"));
        let beginning = Beginning::new(salt_key)?;
        let salted_to = salt_key.map_or(NULL, |key| key.handle);
        let command = TpmStartAuthSessionCommand {
            handles: [TpmHandle::new(salted_to), TpmHandle::new(NULL)],
            nonce_caller: Tpm2bNonce::try_from(&beginning.nonce[..]).map_err(unfit)?,
            encrypted_salt: Tpm2bEncryptedSecret::try_from(&beginning.encrypted_salt[..])
                .map_err(unfit)?,
            session_type: TpmSe::Hmac,
            symmetric: TpmtSymDefObject {
                algorithm: TpmAlgId::Aes,
                key_bits: TpmuSymKeyBits::Aes(TpmUint16::new(128)),
                mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
            },
            auth_hash: TpmAlgId::Sha256,
        };
        let answer: TpmStartAuthSessionResponse = self.call(&command)?;
        Ok(beginning.begun(answer.handles[0].value(), answer.nonce_tpm.to_vec(), value))
    }

    fn call_in<C: TpmFrame>(
        &mut self,
        session: &mut AuthSession,
        command: &C,
        mut parameters: Secret,
        names: &[&[u8]],
        secrecy: Secrecy,
        handles: usize,
    ) -> Result<Body, TpmError> {
        let code = command.cc().value();
        let attributes = match secrecy {
            Secrecy::None => 0,
            Secrecy::Command => DECRYPT,
            Secrecy::Response => ENCRYPT,
        };
        let nonce = Secret::new(session.next_nonce()?.to_vec());
        if secrecy == Secrecy::Command {
            session.encrypt(&mut parameters)?;
        }
        let mut auth = session.handle.to_be_bytes().to_vec();
        auth.extend(sized(&nonce));
        auth.push(attributes);
        auth.extend(sized(&session.command_hmac(
            code,
            names,
            &parameters,
            attributes,
        )));
        let frame = framed(command, &self::handles(command)?, &auth, &parameters)?;
        let response = self.transact(&frame)?;
        check(&response)?;
        let answer = Authorised::of(&response, handles)
            .ok_or_else(|| TpmError::Broken("a response without its authorisation".into()))?;
        let Authorised {
            handles,
            parameters,
            nonce,
            attributes,
            hmac,
        } = answer;
        if !session.verifies_response(code, parameters, nonce, attributes, hmac) {
            return Err(TpmError::Broken(
                "a response that does not come from the TPM that holds the key".into(),
            ));
        }
        let mut parameters = Secret::new(parameters.to_vec());
        if attributes & ENCRYPT != 0 {
            session.decrypt(&mut parameters)?;
        }
        Ok(Body {
            handles: handles.to_vec(),
            parameters,
        })
    }
}

/// What a response holds beside its authorisation.
pub(super) struct Body {
    pub(super) handles: Vec<u8>,
    pub(super) parameters: Secret,
}

/// The parts of a response with one authorisation.
struct Authorised<'a> {
    handles: &'a [u8],
    parameters: &'a [u8],
    nonce: &'a [u8],
    attributes: u8,
    hmac: &'a [u8],
}

impl<'a> Authorised<'a> {
    fn of(response: &'a [u8], handles: usize) -> Option<Self> {
        let body = response.get(HEADER..)?;
        let (handles, rest) = body.split_at_checked(4 * handles)?;
        let (size, rest) = rest.split_first_chunk()?;
        let (parameters, rest) = rest.split_at_checked(u32::from_be_bytes(*size) as usize)?;
        let (nonce, rest) = content(rest)?;
        let (&attributes, rest) = rest.split_first()?;
        let (hmac, rest) = content(rest)?;
        rest.is_empty().then_some(Self {
            handles,
            parameters,
            nonce,
            attributes,
            hmac,
        })
    }
}

/// The content of a TPM2B, and what follows it.
pub(super) fn content(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*size).into())
}

/// A command with one authorisation.
fn framed<C: TpmFrame>(
    command: &C,
    handles: &[u8],
    auth: &[u8],
    parameters: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let size = HEADER + handles.len() + 4 + auth.len() + parameters.len();
    if size > FRAME_MAX {
        return Err(TpmError::Unsupported(format!("a command of {size} bytes")));
    }
    let mut frame = Zeroizing::new(Vec::with_capacity(size));
    frame.extend(SESSIONS_TAG.to_be_bytes());
    frame.extend((size as u32).to_be_bytes());
    frame.extend(command.cc().value().to_be_bytes());
    frame.extend(handles);
    frame.extend((auth.len() as u32).to_be_bytes());
    frame.extend(auth);
    frame.extend(parameters);
    Ok(frame)
}

fn handles<C: TpmFrame>(command: &C) -> Result<Vec<u8>, TpmError> {
    written(|writer| command.marshal_handles(writer)).map(|handles| handles.to_vec())
}

pub(super) fn parameters<C: TpmFrame>(command: &C) -> Result<Secret, TpmError> {
    written(|writer| command.marshal_parameters(writer))
}

fn written(
    write: impl FnOnce(&mut TpmWriter) -> tpm2_protocol::TpmResult<()>,
) -> Result<Secret, TpmError> {
    let mut bytes = Zeroizing::new([0; FRAME_MAX]);
    let mut writer = TpmWriter::new(&mut bytes[..]);
    write(&mut writer).map_err(|error| TpmError::Unsupported(format!("command: {error}")))?;
    Ok(Secret::new(writer.as_bytes().to_vec()))
}

fn short(what: &str) -> TpmError {
    TpmError::Unsupported(format!("{what}: shorter than it says"))
}
