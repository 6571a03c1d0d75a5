//! The wire link: builds the bytes of a command and reads those of its response
//! (TPM 2.0 Library, Part 1, section 18; Part 3).

use super::MOST_HANDLES;
use crate::tpm::{Hash, Link, NvPublic, Property, ResponseCode, Scheme, Signature, TpmError};
use std::time::{Duration, Instant};
use tpm2_protocol::basic::{TpmHandle, TpmUint16, TpmUint32};
use tpm2_protocol::data::{
    Tpm2bData, Tpm2bDigest, Tpm2bPublic, Tpm2bSensitiveCreate, TpmAlgId, TpmCap, TpmRh, TpmSt,
    TpmlPcrSelection, TpmsAuthCommand, TpmsContext, TpmsSchemeHash, TpmtPublic, TpmtSigScheme,
    TpmtTkHashcheck, TpmuCapabilities, TpmuSigScheme, TpmuSignature,
};
use tpm2_protocol::frame::{
    TpmContextLoadCommand, TpmContextLoadResponse, TpmContextSaveCommand, TpmContextSaveResponse,
    TpmCreatePrimaryCommand, TpmCreatePrimaryResponse, TpmFlushContextCommand,
    TpmFlushContextResponse, TpmFrame, TpmGetCapabilityCommand, TpmGetCapabilityResponse,
    TpmGetRandomCommand, TpmGetRandomResponse, TpmNvReadCommand, TpmNvReadPublicCommand,
    TpmNvReadPublicResponse, TpmNvReadResponse, TpmReadPublicCommand, TpmReadPublicResponse,
    TpmResponse, TpmSignCommand, TpmSignResponse, TpmUnmarshalBody, tpm_marshal_command,
};
use tpm2_protocol::{TpmMarshal, TpmUnmarshal, TpmWriter};

/// The most bytes of a command or a response (Part 2, section 4: implementations use 4096).
pub(super) const FRAME_MAX: usize = 4096;
/// Bytes before a command's handles or a response's: tag, size, code.
pub(super) const HEADER: usize = 10;
/// TPM_RH_ENDORSEMENT.
const ENDORSEMENT: u32 = 0x4000_000B;
/// TPM_RS_PW: an authorisation by password, here an empty one.
const PASSWORD_AUTH: u32 = 0x4000_0009;
/// How many handles are asked for at once; a TPM answers with as many as fit.
const HANDLES_AT_ONCE: u32 = 254;

/// Takes a command to the TPM and brings its response.
pub(super) trait Transport: Send {
    /// One command, one response, before `deadline`. After an error the next call starts afresh.
    fn transact(&mut self, command: &[u8], deadline: Instant) -> Result<Vec<u8>, Fault>;
    /// In a forked child: closes its copy of the parent's connection.
    fn abandon(&mut self);
}

/// How a transport fails.
pub(super) enum Fault {
    Unreachable(String),
    Broken(String),
    Timeout,
}

impl Fault {
    /// A fault met while a command was under way.
    pub(super) fn broken(doing: &str, error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{doing}: {error}"))
    }
}

/// A link over any byte transport.
pub(super) struct Wire<T> {
    transport: T,
    limit: Duration,
}

impl<T: Transport> Wire<T> {
    pub(super) fn new(transport: T, limit: Duration) -> Self {
        Self { transport, limit }
    }

    fn call<C, R>(&mut self, command: &C, auths: &[TpmsAuthCommand]) -> Result<R, TpmError>
    where
        C: TpmFrame,
        R: TpmUnmarshalBody,
    {
        let tag = if auths.is_empty() {
            TpmSt::NoSessions
        } else {
            TpmSt::Sessions
        };
        let mut frame = [0; FRAME_MAX];
        let mut writer = TpmWriter::new(&mut frame);
        tpm_marshal_command(command, tag, auths, &mut writer)
            .map_err(|error| TpmError::Unsupported(format!("command: {error}")))?;
        let response = self
            .transport
            .transact(writer.as_bytes(), Instant::now() + self.limit)
            .map_err(|fault| match fault {
                Fault::Unreachable(why) => TpmError::Unreachable(why),
                Fault::Broken(why) => TpmError::Broken(why),
                Fault::Timeout => TpmError::Timeout(self.limit),
            })?;
        body(&response)
    }
}

/// The body of a response, or the code that it carries instead.
///
/// The code is read by hand: a vendor's code that no table knows is an answer, not a fault.
fn body<R: TpmUnmarshalBody>(response: &[u8]) -> Result<R, TpmError> {
    let garbage = |why: String| TpmError::Broken(format!("response not understood: {why}"));
    let header: [u8; HEADER] = response
        .get(..HEADER)
        .and_then(|header| header.try_into().ok())
        .ok_or_else(|| garbage(format!("{} bytes", response.len())))?;
    let [tag0, tag1, _, _, _, _, code @ ..] = header;
    let code = u32::from_be_bytes(code);
    match u16::from_be_bytes([tag0, tag1]) {
        // TPM_ST_RSP_COMMAND, of TPM 1.2, is how a TPM of either kind says "bad tag".
        0x00C4 | 0x8001 | 0x8002 if code != 0 => return Err(ResponseCode(code).into()),
        _ => {}
    }
    let frame = TpmResponse::cast(response).map_err(|error| garbage(error.to_string()))?;
    // A sound frame with a structure that the library does not know (a vendor's algorithm, say)
    // is no fault of the connection: asking again would bring the same.
    frame
        .unmarshal()
        .map_err(|error| TpmError::Unsupported(format!("response: {error}")))
}

fn empty_auth() -> [TpmsAuthCommand; 1] {
    [TpmsAuthCommand {
        session_handle: handle(PASSWORD_AUTH),
        ..Default::default()
    }]
}

/// A structure as bytes.
fn marshalled(structure: &impl TpmMarshal) -> Result<Vec<u8>, TpmError> {
    let mut bytes = [0; FRAME_MAX];
    let mut writer = TpmWriter::new(&mut bytes);
    let unfit = |error| TpmError::Unsupported(format!("response: {error}"));
    structure.marshal(&mut writer).map_err(unfit)?;
    Ok(writer.as_bytes().to_vec())
}

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

impl<T: Transport> Link for Wire<T> {
    fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        let mut found = Vec::new();
        let mut next = first;
        loop {
            let command = TpmGetCapabilityCommand {
                handles: [],
                cap: TpmCap::Handles,
                property: TpmUint32::new(next),
                property_count: TpmUint32::new(HANDLES_AT_ONCE),
            };
            let answer: TpmGetCapabilityResponse = self.call(&command, &[])?;
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

    fn algorithms(&mut self) -> Result<Vec<u16>, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: TpmCap::Algs,
            property: TpmUint32::new(0),
            property_count: TpmUint32::new(HANDLES_AT_ONCE),
        };
        let answer: TpmGetCapabilityResponse = self.call(&command, &[])?;
        match answer.capability_data.data {
            TpmuCapabilities::Algs(list) => Ok(list.iter().map(|one| one.alg.value()).collect()),
            _ => Err(TpmError::Broken(
                "algorithms asked for, something else came".into(),
            )),
        }
    }

    fn property(&mut self, property: Property) -> Result<u32, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: TpmCap::TpmProperties,
            property: TpmUint32::new(property.tag()),
            property_count: TpmUint32::new(1),
        };
        let answer: TpmGetCapabilityResponse = self.call(&command, &[])?;
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

    fn read_public(&mut self, key: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmReadPublicCommand {
            handles: [handle(key)],
        };
        let answer: TpmReadPublicResponse = self.call(&command, &[])?;
        Ok((marshalled(&answer.out_public.inner)?, answer.name.to_vec()))
    }

    fn create_primary(&mut self, template: &[u8]) -> Result<(u32, Vec<u8>, Vec<u8>), TpmError> {
        let unfit = |error| TpmError::Unsupported(format!("template: {error}"));
        let (inner, _) = TpmtPublic::unmarshal(template).map_err(unfit)?;
        let command = TpmCreatePrimaryCommand {
            handles: [handle(ENDORSEMENT)],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: Tpm2bPublic { inner },
            outside_info: Tpm2bData::default(),
            creation_pcr: TpmlPcrSelection::default(),
        };
        let answer: TpmCreatePrimaryResponse = self.call(&command, &empty_auth())?;
        let area = marshalled(&answer.out_public.inner)?;
        Ok((answer.handles[0].value(), area, answer.name.to_vec()))
    }

    fn context_save(&mut self, key: u32) -> Result<Vec<u8>, TpmError> {
        let command = TpmContextSaveCommand {
            handles: [handle(key)],
        };
        let answer: TpmContextSaveResponse = self.call(&command, &[])?;
        marshalled(&answer.context)
    }

    fn context_load(&mut self, context: &[u8]) -> Result<u32, TpmError> {
        let unfit = |error| TpmError::Unsupported(format!("context: {error}"));
        let (context, _) = TpmsContext::unmarshal(context).map_err(unfit)?;
        let command = TpmContextLoadCommand {
            handles: [],
            context,
        };
        let answer: TpmContextLoadResponse = self.call(&command, &[])?;
        Ok(answer.handles[0].value())
    }

    fn flush(&mut self, key: u32) -> Result<(), TpmError> {
        let command = TpmFlushContextCommand {
            handles: [],
            flush_handle: handle(key),
        };
        let _: TpmFlushContextResponse = self.call(&command, &[])?;
        Ok(())
    }

    fn nv_read_public(&mut self, index: u32) -> Result<NvPublic, TpmError> {
        let command = TpmNvReadPublicCommand {
            handles: [handle(index)],
        };
        let answer: TpmNvReadPublicResponse = self.call(&command, &[])?;
        let public = answer.nv_public.inner;
        Ok(NvPublic {
            attributes: public.attributes.bits(),
            size: public.data_size.value(),
        })
    }

    fn nv_read(&mut self, index: u32, offset: u16, size: u16) -> Result<Vec<u8>, TpmError> {
        let command = TpmNvReadCommand {
            handles: [handle(index), handle(index)],
            size: TpmUint16::new(size),
            offset: TpmUint16::new(offset),
        };
        let answer: TpmNvReadResponse = self.call(&command, &empty_auth())?;
        Ok(answer.data.to_vec())
    }

    fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        let command = TpmGetRandomCommand {
            handles: [],
            bytes_requested: TpmUint16::new(count),
        };
        let answer: TpmGetRandomResponse = self.call(&command, &[])?;
        Ok(answer.random_bytes.to_vec())
    }

    fn sign(&mut self, key: u32, scheme: Scheme, digest: &[u8]) -> Result<Signature, TpmError> {
        let digest = Tpm2bDigest::try_from(digest)
            .map_err(|error| TpmError::Unsupported(format!("digest: {error}")))?;
        let command = TpmSignCommand {
            handles: [handle(key)],
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
        let answer: TpmSignResponse = self.call(&command, &empty_auth())?;
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

    fn abandon(mut self: Box<Self>) {
        self.transport.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers the command and answers what the test wants.
    struct Canned {
        sent: std::sync::Arc<parking_lot::Mutex<Vec<u8>>>,
        answer: Vec<u8>,
    }

    impl Transport for Canned {
        fn transact(&mut self, command: &[u8], _: Instant) -> Result<Vec<u8>, Fault> {
            *self.sent.lock() = command.to_vec();
            Ok(self.answer.clone())
        }
        fn abandon(&mut self) {}
    }

    fn wire(answer: &[u8]) -> (Wire<Canned>, std::sync::Arc<parking_lot::Mutex<Vec<u8>>>) {
        let sent = std::sync::Arc::default();
        let canned = Canned {
            sent: std::sync::Arc::clone(&sent),
            answer: answer.to_vec(),
        };
        (Wire::new(canned, Duration::from_secs(1)), sent)
    }

    #[test]
    fn a_sign_command_has_the_bytes_of_the_standard() {
        let (mut link, sent) = wire(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x21]);
        let error = link
            .sign(0x8102_0000, Scheme::Ecdsa(Hash::Sha256), &[7; 32])
            .unwrap_err();
        assert_eq!(error, TpmError::Response(ResponseCode(0x921)));
        let mut expected = vec![0x80, 2, 0, 0, 0, 73 + 4, 0, 0, 1, 0x5D, 0x81, 2, 0, 0];
        expected.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]); // one empty password
        expected.extend([0, 32]);
        expected.extend([7; 32]);
        expected.extend([0, 0x18, 0, 0x0B]); // ECDSA with SHA-256
        expected.extend([0x80, 0x24, 0x40, 0, 0, 7, 0, 0]); // NULL ticket
        expected[5] = expected.len() as u8;
        assert_eq!(*sent.lock(), expected);
    }

    #[test]
    fn a_code_that_no_table_knows_is_still_the_tpms_answer() {
        let (mut link, _) = wire(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0x05, 0x7F]);
        assert_eq!(link.random(8), Err(TpmError::Response(ResponseCode(0x57F))));
    }

    #[test]
    fn garbage_is_a_transport_fault() {
        for garbage in [
            &b""[..],
            &[0x80, 1, 0],
            &[0xFF; 40],
            &[0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0],
        ] {
            let (mut link, _) = wire(garbage);
            let error = link.random(8).unwrap_err();
            assert!(error.is_transport_fault(), "{garbage:x?}: {error}");
        }
    }
}
