//! Executes a command: authorisation, frame, response (Part 1, section 18; HMAC auth sessions:
//! sections 17 to 19 and 21).

use super::{FRAME_MAX, HEADER, Link, check};
use crate::tpm::patience::Class;
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
    TpmFrame, TpmStartAuthSessionCommand, TpmStartAuthSessionResponse, TpmUnmarshalBody,
};
use zeroize::Zeroizing;

/// TPM_RS_PW: an authorisation by password.
const PASSWORD: u32 = 0x4000_0009;
/// TPM_RH_NULL: no salt key, nothing bound to.
const NULL: u32 = 0x4000_0007;
/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// What authorises a command, and what of it is nobody else's business.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    /// What the command's first handle names.
    pub(super) used: Used<'a>,
    /// The names of its other handles.
    pub(super) others: &'a [&'a [u8]],
    /// TPMA_SESSION: [`DECRYPT`] encrypts the command's first parameter, [`ENCRYPT`] the response's;
    /// 0 neither. Counts in an auth session alone.
    pub(super) encryption: u8,
}

impl<'a> By<'a> {
    /// Nothing of the command is secret, and it has one handle.
    pub(super) fn new(used: Used<'a>) -> Self {
        Self {
            used,
            others: &[],
            encryption: 0,
        }
    }
}

/// What a response says beside its header and its authorisation.
pub(super) struct Answer {
    handles: Vec<u8>,
    pub(super) parameters: Secret,
}

impl Answer {
    /// As the structure of the response.
    ///
    /// A sound frame with a structure that the library does not know (a vendor's algorithm, say) is
    /// no fault of the connection: asking again would bring the same.
    pub(super) fn read<R: TpmUnmarshalBody>(&self) -> Result<R, TpmError> {
        R::unmarshal_body(&self.handles, &self.parameters)
            .map_err(|error| TpmError::Unsupported(format!("response: {error}")))
    }
}

impl Link {
    /// A command without authorisation.
    pub(super) fn call<C: TpmFrame, R: TpmUnmarshalBody>(
        &mut self,
        command: &C,
    ) -> Result<R, TpmError> {
        self.execute(command, parameters(command)?, None, R::HANDLES)?
            .read()
    }

    /// A command with authorisation.
    pub(super) fn call_by<C: TpmFrame, R: TpmUnmarshalBody>(
        &mut self,
        command: &C,
        by: By,
    ) -> Result<R, TpmError> {
        self.execute(command, parameters(command)?, Some(by), R::HANDLES)?
            .read()
    }

    /// Executes one command. `parameters` are those of the command, or others in their place;
    /// `handles` is the number of the response's handles.
    ///
    /// A value is proven in an auth session of this command alone: one command more.
    pub(super) fn execute<C: TpmFrame>(
        &mut self,
        command: &C,
        mut parameters: Secret,
        by: Option<By>,
        handles: usize,
    ) -> Result<Answer, TpmError> {
        let code = command.cc().value();
        let class = Class::of(code, &parameters);
        let named = written(|writer| command.marshal_handles(writer))?;
        let mut session = match by.map(|by| by.used.auth) {
            Some(Auth::Value(value, salt_key)) => Some(self.start_auth_session(salt_key, value)?),
            Some(Auth::Empty) | None => None,
        };
        let auth = match by {
            Some(by) => authorisation(code, by, session.as_mut(), &mut parameters).map(Some),
            None => Ok(None),
        };
        let answered = auth
            .and_then(|auth| frame(code, &named, auth.as_deref(), &parameters))
            .and_then(|frame| self.transact(&frame, class))
            .and_then(|response| {
                check(&response)?;
                answer(code, &response, handles, by.is_some(), session.as_mut())
            });
        // A command that succeeded took its session with it; one that failed left it. Where the
        // answer was lost it may be either, and nobody can have been given the number since. Where
        // the TPM is silent, a further command would only wait as long again.
        let is_silent = matches!(
            answered,
            Err(TpmError::Timeout(_) | TpmError::Busy(_) | TpmError::Unreachable(_))
        );
        if let (Err(_), Some(session)) = (&answered, session)
            && !is_silent
            && let Err(error) = self.flush(session.handle)
        {
            debug!("TPM2_FlushContext of an auth session: {error}");
        }
        answered
    }

    fn start_auth_session(
        &mut self,
        salt_key: Option<&SaltKey>,
        value: &[u8],
    ) -> Result<AuthSession, TpmError> {
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
}

/// The authorisation area of a command. In an auth session the first of its parameters may be
/// encrypted for it.
fn authorisation(
    code: u32,
    by: By,
    session: Option<&mut AuthSession>,
    parameters: &mut Secret,
) -> Result<Vec<u8>, TpmError> {
    let Some(session) = session else {
        // An empty nonce, no attributes, an empty password.
        return Ok([&PASSWORD.to_be_bytes()[..], &[0; 5]].concat());
    };
    let nonce = Secret::new(session.next_nonce()?.to_vec());
    if by.encryption & DECRYPT != 0 {
        session.encrypt(parameters)?;
    }
    let names = [&[by.used.name], by.others].concat();
    let hmac = session.command_hmac(code, &names, parameters, by.encryption);
    let handle = session.handle.to_be_bytes();
    Ok([&handle[..], &sized(&nonce), &[by.encryption], &sized(&hmac)].concat())
}

/// The bytes of a command; `auth` is its authorisation area.
fn frame(
    code: u32,
    handles: &[u8],
    auth: Option<&[u8]>,
    parameters: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let (tag, auth_size) = match auth {
        Some(auth) => (SESSIONS, 4 + auth.len()),
        None => (NO_SESSIONS, 0),
    };
    let size = HEADER + handles.len() + auth_size + parameters.len();
    if size > FRAME_MAX {
        return Err(TpmError::Unsupported(format!("a command of {size} bytes")));
    }
    let mut frame = Zeroizing::new(Vec::with_capacity(size));
    frame.extend(tag.to_be_bytes());
    frame.extend((size as u32).to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame.extend(handles);
    if let Some(auth) = auth {
        frame.extend((auth.len() as u32).to_be_bytes());
        frame.extend(auth);
    }
    frame.extend(parameters);
    Ok(frame)
}

/// What a successful response says. In an auth session its HMAC is verified, and what was encrypted
/// is decrypted.
fn answer(
    code: u32,
    response: &[u8],
    handles: usize,
    authorised: bool,
    session: Option<&mut AuthSession>,
) -> Result<Answer, TpmError> {
    let short = || TpmError::Unsupported("response: shorter than it says".into());
    let unlike = || TpmError::WrongAnswer("a response that does not answer this command".into());
    let tag = if authorised { SESSIONS } else { NO_SESSIONS };
    let body = response
        .strip_prefix(&tag.to_be_bytes())
        .ok_or_else(unlike)?;
    let split = body
        .get(HEADER - 2..)
        .and_then(|body| body.split_at_checked(4 * handles));
    let (handles, rest) = split.ok_or_else(short)?;
    if !authorised {
        return Ok(Answer {
            handles: handles.to_vec(),
            parameters: Secret::new(rest.to_vec()),
        });
    }
    let (parameters, rest) = rest
        .split_first_chunk()
        .and_then(|(size, rest)| rest.split_at_checked(u32::from_be_bytes(*size) as usize))
        .ok_or_else(short)?;
    let authorisation = content(rest).and_then(|(nonce, rest)| {
        let (&attributes, rest) = rest.split_first()?;
        let (hmac, end) = content(rest)?;
        end.is_empty().then_some((nonce, attributes, hmac))
    });
    let (nonce, attributes, hmac) = authorisation
        .ok_or_else(|| TpmError::WrongAnswer("a response without its authorisation".into()))?;
    let mut answer = Answer {
        handles: handles.to_vec(),
        parameters: Secret::new(parameters.to_vec()),
    };
    let Some(session) = session else {
        return Ok(answer);
    };
    if !session.verifies_response(code, parameters, nonce, attributes, hmac) {
        return Err(TpmError::WrongAnswer(
            "a response that does not come from the TPM that holds the key".into(),
        ));
    }
    if attributes & ENCRYPT != 0 {
        session.decrypt(&mut answer.parameters)?;
    }
    Ok(answer)
}

/// The content of a TPM2B, and what follows it.
pub(super) fn content(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*size).into())
}

/// The parameters of a command as bytes.
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
