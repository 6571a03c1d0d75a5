//! Executes a command: authorises it, sends it, and checks the response (Part 1, section 18; HMAC
//! auth sessions: sections 17 to 19 and 21).
//!
//! Each authorised handle has its own authorisation: a password or an auth session.

use super::Link;
use super::commands::algorithm;
use super::flush;
use super::response_reader::ResponseReader;
use super::session::{AuthSession, DECRYPT, ENCRYPT, HASH, StartAuthSession, answers_attributes};
use crate::tpm::CommandClass;
use crate::tpm::transport::{FRAME_MAX, HEADER};
use crate::tpm::{Auth, AuthHandle, Hash, ResponseCode, SaltKey, Secret, TpmError, handle, sized};
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
use zeroize::{Zeroize, Zeroizing};

/// The authorisation area of the empty password: TPM_RS_PW, an empty nonce, no attributes.
const EMPTY_PASSWORD: [u8; 9] = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
/// TPM_ST_NO_SESSIONS and TPM_ST_SESSIONS.
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// TPM_ST_RSP_COMMAND of TPM 1.2. Every TPM answers a command with a bad tag by this tag.
const BAD_TAG: u16 = 0x00C4;

/// The authorisation of a command, and the parameters that are encrypted.
#[derive(Clone, Copy)]
pub(super) struct CommandAuth<'a> {
    /// The entity of the first handle.
    pub(super) used: AuthHandle<'a>,
    /// The entities of further handles that need authorisation.
    pub(super) also: &'a [AuthHandle<'a>],
    /// The names of the entities that need no authorisation.
    pub(super) others: &'a [&'a [u8]],
    /// The TPMA_SESSION of the session of `used`; 0 for none. [`DECRYPT`] encrypts the first
    /// parameter of the command. [`ENCRYPT`] encrypts the first parameter of the response.
    /// [`AUDIT`](super::session::AUDIT) is for a command without authorisation.
    pub(super) attributes: u8,
}

impl<'a> CommandAuth<'a> {
    /// Creates the value for a command with one handle and no secret parameters.
    pub(super) fn new(used: AuthHandle<'a>) -> Self {
        Self {
            used,
            also: &[],
            others: &[],
            attributes: 0,
        }
    }

    /// Returns the authorised entities, in the order of their handles.
    fn authorised(&self) -> impl Iterator<Item = AuthHandle<'a>> + use<'a> {
        std::iter::once(self.used).chain(self.also.iter().copied())
    }
}

/// The authorisation of one handle: an auth session, or the empty password.
struct Authorisation {
    session: Option<AuthSession>,
    /// True if the session was started for this command only.
    is_own: bool,
}

/// The handles and parameters of a response.
pub(super) struct Response {
    handles: Vec<u8>,
    pub(super) parameters: Secret,
}

impl Response {
    /// Parses the response into a structure of the library.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if the library does not know the structure, such as a vendor's
    /// algorithm. The connection works, and a repetition would have an equal answer.
    pub(super) fn read<R: TpmUnmarshalBody>(&self) -> Result<R, TpmError> {
        R::unmarshal_body(&self.handles, &self.parameters)
            .map_err(|error| TpmError::Unsupported(format!("response: {error}")))
    }
}

impl Link {
    /// Executes a command without authorisation.
    pub(super) fn call<C: TpmFrame, R: TpmUnmarshalBody>(
        &mut self,
        command: &C,
    ) -> Result<R, TpmError> {
        self.execute(command, None, None, R::HANDLES)?.read()
    }

    /// Executes a command with authorisation.
    pub(super) fn call_by<C: TpmFrame, R: TpmUnmarshalBody>(
        &mut self,
        command: &C,
        by: CommandAuth,
    ) -> Result<R, TpmError> {
        self.execute(command, None, Some(by), R::HANDLES)?.read()
    }

    /// Executes one command. `parameters`, if given, replace the parameters of `command`. `handles`
    /// is the number of handles in the response.
    ///
    /// An authorisation value is proven in an auth session for this command. The session costs one
    /// more command.
    pub(super) fn execute<C: TpmFrame>(
        &mut self,
        command: &C,
        parameters: Option<Secret>,
        by: Option<CommandAuth>,
        handles: usize,
    ) -> Result<Response, TpmError> {
        let code = command.cc().value();
        let mut parameters = match parameters {
            Some(parameters) => parameters,
            None => written(|writer| command.marshal_parameters(writer))?,
        };
        let class = CommandClass::of_command(code, &parameters);
        let named = written(|writer| command.marshal_handles(writer))?;
        let mut authorisations = match by {
            Some(by) => self.authorisations(by)?,
            None => Vec::new(),
        };
        let auth = by
            .map(|by| authorisation(code, by, &mut authorisations, &mut parameters))
            .transpose();
        let answered = auth
            .and_then(|auth| frame(code, &named, auth.as_deref(), &parameters))
            .and_then(|frame| self.transact(&frame, class))
            .and_then(|response| answer(code, &response, handles, by, &mut authorisations));
        // After success the TPM has ended the session. After a failure the session remains. If the
        // answer was lost, either is possible. No other program can have received this session
        // handle in the meantime, so the flush is safe. If the TPM does not answer, a further
        // command would only time out again.
        if let Err(error) = &answered
            && !error.is_silence()
        {
            self.end(authorisations);
        }
        answered
    }

    /// Starts the auth sessions that a command needs.
    fn authorisations(&mut self, by: CommandAuth) -> Result<Vec<Authorisation>, TpmError> {
        let mut all = Vec::new();
        for used in by.authorised() {
            let begun = match used.auth {
                Auth::Empty => Ok(None),
                Auth::Value(value, salt_key) => self.start_auth_session(salt_key, value).map(Some),
                Auth::Policy(session) => Ok(Some(session.0.clone())),
            };
            match begun {
                Ok(session) => all.push(Authorisation {
                    session,
                    is_own: matches!(used.auth, Auth::Value(..)),
                }),
                Err(error) if error.is_silence() => return Err(error),
                Err(error) => {
                    self.end(all);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Flushes the sessions that were started for a failed command.
    fn end(&mut self, authorisations: Vec<Authorisation>) {
        let own = authorisations.into_iter().filter(|one| one.is_own);
        for session in own.filter_map(|one| one.session) {
            if let Err(error) = self.flush(session.handle) {
                debug!("TPM2_FlushContext of an auth session: {error}");
            }
        }
    }

    fn start_auth_session(
        &mut self,
        salt_key: Option<&SaltKey>,
        value: &[u8],
    ) -> Result<AuthSession, TpmError> {
        let Some(key) = salt_key else {
            return self.start_session(TpmSe::Hmac, HASH, None, handle::NULL, value);
        };
        let (key, handle, is_passing) = self.with_salt_key(key)?;
        let started = self.start_session(TpmSe::Hmac, HASH, Some(&key), handle, value);
        if is_passing {
            flush(self, handle, &started);
        }
        started
    }

    /// TPM2_StartAuthSession with a salt for the key in this handle: returns the session.
    pub(super) fn start_session(
        &mut self,
        session_type: TpmSe,
        hash: Hash,
        salt_key: Option<&SaltKey>,
        salted_to: u32,
        value: &[u8],
    ) -> Result<AuthSession, TpmError> {
        let unfit = |error| TpmError::Unsupported(format!("auth session: {error}"));
        let start = StartAuthSession::new(salt_key, hash)?;
        let command = TpmStartAuthSessionCommand {
            handles: [TpmHandle::new(salted_to), TpmHandle::new(handle::NULL)],
            nonce_caller: Tpm2bNonce::try_from(&start.nonce[..]).map_err(unfit)?,
            encrypted_salt: Tpm2bEncryptedSecret::try_from(&start.encrypted_salt[..])
                .map_err(unfit)?,
            session_type,
            symmetric: TpmtSymDefObject {
                algorithm: TpmAlgId::Aes,
                key_bits: TpmuSymKeyBits::Aes(TpmUint16::new(128)),
                mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
            },
            auth_hash: algorithm(hash),
        };
        let answer: TpmStartAuthSessionResponse = self.call(&command)?;
        let (handle, nonce) = (answer.handles[0].value(), answer.nonce_tpm.to_vec());
        let mut session = start.session(handle, nonce, value);
        session.is_policy = session_type == TpmSe::Policy;
        Ok(session)
    }
}

/// Returns the authorisation area of a command. The first session may encrypt the first parameter.
fn authorisation(
    code: u32,
    by: CommandAuth,
    authorisations: &mut [Authorisation],
    parameters: &mut Secret,
) -> Result<Vec<u8>, TpmError> {
    let mut nonces = Vec::new();
    for one in authorisations.iter_mut() {
        nonces.push(match &mut one.session {
            Some(session) => Secret::new(session.next_nonce()?.to_vec()),
            None => Secret::default(),
        });
    }
    let first = authorisations.first().and_then(|one| one.session.as_ref());
    if let Some(session) = first
        && by.attributes & DECRYPT != 0
    {
        session.encrypt(parameters)?;
    }
    let names: Vec<&[u8]> = by.authorised().map(|one| one.name).collect();
    let names = [&names[..], by.others].concat();
    let mut area = Vec::new();
    for (number, (one, nonce)) in authorisations.iter().zip(&nonces).enumerate() {
        let Some(session) = &one.session else {
            area.extend(EMPTY_PASSWORD);
            continue;
        };
        let attributes = asked_of(by, number);
        let hmac = session.command_hmac(code, &names, parameters, attributes);
        area.extend(session.handle.to_be_bytes());
        area.extend(sized(nonce));
        area.push(attributes);
        area.extend(sized(&hmac));
    }
    Ok(area)
}

/// Returns the TPMA_SESSION of the session with this position in the command.
fn asked_of(by: CommandAuth, number: usize) -> u8 {
    match number {
        0 => by.attributes,
        _ => 0,
    }
}

/// Returns the bytes of a command. `auth` is its authorisation area.
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
        return Err(TpmError::Unsupported(format!(
            "a command of {size} bytes is too long"
        )));
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

/// Returns a response code without the layer bits that a resource manager sets (TSS 2.0 Overview,
/// section 3.3).
fn of_any_layer(code: u32) -> u32 {
    const LAYER: u32 = 0xFFFF_0000;
    match code & LAYER {
        0x000B_0000 | 0x000C_0000 => code & !LAYER,
        _ => code,
    }
}

/// Parses a successful response. With an auth session the HMAC is verified, and an encrypted
/// parameter is decrypted.
fn answer(
    code: u32,
    response: &[u8],
    handles: usize,
    by: Option<CommandAuth>,
    authorisations: &mut [Authorisation],
) -> Result<Response, TpmError> {
    let short = || TpmError::Unsupported("response: shorter than its size field says".into());
    let garbage = || {
        TpmError::Broken(format!(
            "the answer of {} bytes is not a TPM response",
            response.len()
        ))
    };
    let mut reading = ResponseReader::new(response);
    let (Ok(tag), Ok(size), Ok(failure)) = (reading.uint16(), reading.uint32(), reading.uint32())
    else {
        return Err(garbage());
    };
    if size as usize != response.len() {
        return Err(garbage());
    }
    let expected = if by.is_some() { SESSIONS } else { NO_SESSIONS };
    match (tag, failure) {
        (tag, 0) if tag == expected => {}
        (SESSIONS | NO_SESSIONS, 0) => {
            return Err(TpmError::WrongAnswer(
                "the response does not belong to this command".into(),
            ));
        }
        // An unknown response code is still an answer.
        (SESSIONS | NO_SESSIONS | BAD_TAG, failure) if failure != 0 => {
            return Err(ResponseCode(of_any_layer(failure)).into());
        }
        _ => return Err(garbage()),
    }
    let split = reading.rest().split_at_checked(4 * handles);
    let (handles, rest) = split.ok_or_else(short)?;
    let Some(by) = by else {
        return Ok(Response {
            handles: handles.to_vec(),
            parameters: Secret::new(rest.to_vec()),
        });
    };
    let (parameters, rest) = rest
        .split_first_chunk()
        .and_then(|(size, rest)| rest.split_at_checked(u32::from_be_bytes(*size) as usize))
        .ok_or_else(short)?;
    let mut answer = Response {
        handles: handles.to_vec(),
        parameters: Secret::new(parameters.to_vec()),
    };
    let mut reading = ResponseReader::new(rest);
    for (number, one) in authorisations.iter_mut().enumerate() {
        let (Ok(nonce), Ok(attributes), Ok(hmac)) =
            (reading.tpm2b(), reading.uint8(), reading.tpm2b())
        else {
            return Err(without_authorisation());
        };
        let Some(session) = &mut one.session else {
            continue;
        };
        if !session.verifies_response(code, parameters, nonce, attributes, hmac) {
            return Err(TpmError::WrongAnswer(
                "the response does not come from the TPM that has the key".into(),
            ));
        }
        let asked = asked_of(by, number);
        if !answers_attributes(asked, attributes) {
            return Err(TpmError::WrongAnswer(format!(
                "the session of the response has the attributes 0x{attributes:02X}, and not \
                 0x{asked:02X} as the command asked"
            )));
        }
        if attributes & ENCRYPT != 0 {
            session.decrypt(&mut answer.parameters)?;
        }
    }
    match reading.is_at_end() {
        true => Ok(answer),
        false => Err(without_authorisation()),
    }
}

fn without_authorisation() -> TpmError {
    TpmError::WrongAnswer("the response has no authorisation".into())
}

/// Marshals into bytes that are wiped when they are dropped.
pub(super) fn written(
    write: impl Fn(&mut TpmWriter) -> tpm2_protocol::TpmResult<()>,
) -> Result<Secret, TpmError> {
    // Room for nearly all: to clean a whole frame costs as much as all else of a command.
    let mut bytes = [0; 256];
    let mut writer = TpmWriter::new(&mut bytes);
    if write(&mut writer).is_err() {
        bytes.zeroize();
        return written_in_a_frame(write);
    }
    let used = writer.len();
    let content = Secret::new(bytes[..used].to_vec());
    bytes[..used].zeroize();
    Ok(content)
}

fn written_in_a_frame(
    write: impl Fn(&mut TpmWriter) -> tpm2_protocol::TpmResult<()>,
) -> Result<Secret, TpmError> {
    let mut bytes = Zeroizing::new([0; FRAME_MAX]);
    let mut writer = TpmWriter::new(&mut bytes[..]);
    write(&mut writer).map_err(|error| TpmError::Unsupported(format!("command: {error}")))?;
    Ok(Secret::new(writer.as_bytes().to_vec()))
}
