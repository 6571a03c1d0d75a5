//! The HMAC challenge of OpenConfig's enrollz and bootz: an owner who knows a device's endorsement key, or
//! its platform primary key, learns which IAK is in the same TPM.
//!
//! Messages are those of `tpm_enrollz.proto` and `bootz.proto`, in the JSON that Protocol Buffers have for
//! them (ProtoJSON): byte strings are base64, and a field has either of its names.

use super::collect::leaving_nothing;
use super::json::{Bytes, LARGEST_DOCUMENT};
use crate::identity::{Device, IdentityError};
use crate::key::hex;
use crate::tpm::{
    AttestationKey, Certification, EndorsementKey, Hash, HmacKey, HmacOutcome, KeyAlgorithm,
    ResponseCode, TpmError, sized,
};
use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;

/// What an owner sends, and in which message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacChallenge {
    envelope: Envelope,
    wrapped_for: WrappingKey,
    key: HmacKey,
}

/// The reason why a message is not a valid challenge (InvalidArgument of enrollz).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidChallenge(String);

/// The TPM's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacAnswer {
    envelope: Envelope,
    response: Response,
    transport_key: Option<Bytes>,
}

/// The message around the challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Envelope {
    /// None: `openconfig.attestz.HMACChallenge`.
    Bare,
    /// `openconfig.attestz.ChallengeRequest`.
    Enrollz,
    /// `ChallengeRequestTPM20HMAC` of bootz's `BootstrapStreamResponseV1`.
    Bootz,
}

/// The key that the HMAC key is wrapped for (`openconfig.attestz.Key`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrappingKey {
    Endorsement,
    Platform,
}

/// The fields of the three messages.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Message {
    #[serde(alias = "control_card_selection")]
    control_card_selection: Option<IgnoredAny>,
    key: Option<KeyType>,
    challenge: Option<Parts>,
    #[serde(alias = "key_type")]
    key_type: Option<KeyType>,
    #[serde(alias = "hmac_encrypted")]
    hmac_encrypted: Option<Parts>,
    #[serde(alias = "hmac_pub_key")]
    hmac_pub_key: Option<String>,
    duplicate: Option<String>,
    #[serde(alias = "in_sym_seed")]
    in_sym_seed: Option<String>,
}

/// `openconfig.attestz.HMACChallenge`
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parts {
    #[serde(alias = "hmac_pub_key")]
    hmac_pub_key: Option<String>,
    duplicate: Option<String>,
    #[serde(alias = "in_sym_seed")]
    in_sym_seed: Option<String>,
}

/// A value of an enumeration: its name, or its number.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeyType {
    Name(String),
    Number(i64),
}

/// `openconfig.attestz.HMACChallengeResponse`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    /// TPM2B_PUBLIC.
    iak_pub: Bytes,
    /// TPM2B_ATTEST.
    iak_certify_info: Bytes,
    /// TPMT_SIGNATURE.
    iak_certify_info_signature: Bytes,
}

impl HmacChallenge {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// It is none of the three, a field is empty or cut, or the HMAC key is of another kind.
    pub fn from_json(document: &[u8]) -> Result<Self, InvalidChallenge> {
        if document.len() > LARGEST_DOCUMENT {
            return Err(InvalidChallenge(format!(
                "{} bytes; {LARGEST_DOCUMENT} are read at most",
                document.len()
            )));
        }
        let none = |why: String| InvalidChallenge(format!("no message of enrollz or bootz: {why}"));
        if !document.trim_ascii_start().starts_with(b"{") {
            return Err(none("no JSON object".into()));
        }
        let message: Message =
            serde_json::from_slice(document).map_err(|why| none(why.to_string()))?;
        let Message {
            control_card_selection,
            key,
            challenge,
            key_type,
            hmac_encrypted,
            hmac_pub_key,
            duplicate,
            in_sym_seed,
        } = message;
        let bare = Parts {
            hmac_pub_key,
            duplicate,
            in_sym_seed,
        };
        let is_bootz = key_type.is_some() || hmac_encrypted.is_some();
        let is_enrollz = control_card_selection.is_some() || key.is_some() || challenge.is_some();
        let (envelope, key, parts) = match (is_enrollz, is_bootz, bare.is_there()) {
            (false, false, _) => (Envelope::Bare, None, Some(bare)),
            (true, false, false) => (Envelope::Enrollz, Some((key, "key")), challenge),
            (false, true, false) => (Envelope::Bootz, Some((key_type, "keyType")), hmac_encrypted),
            _ => {
                return Err(InvalidChallenge(
                    "fields of two messages: HMACChallenge, ChallengeRequest and \
                     ChallengeRequestTPM20HMAC are three"
                        .into(),
                ));
            }
        };
        let wrapped_for = match key {
            None => WrappingKey::Endorsement,
            Some((key, field)) => WrappingKey::of(key, field)?,
        };
        Ok(Self {
            envelope,
            wrapped_for,
            key: parts.unwrap_or_default().key()?,
        })
    }

    /// True if the message is of bootz, whose answer has a transport key.
    pub fn wants_transport_key(&self) -> bool {
        self.envelope == Envelope::Bootz
    }

    /// True if the answer can have a transport key.
    pub fn takes_transport_key(&self) -> bool {
        self.envelope != Envelope::Enrollz
    }
}

impl WrappingKey {
    fn of(key: Option<KeyType>, field: &str) -> Result<Self, InvalidChallenge> {
        let unfit = |what: String| {
            InvalidChallenge(format!("{field}: {what}; KEY_EK and KEY_PPK are answered"))
        };
        match key {
            Some(KeyType::Name(name)) if name == "KEY_EK" => Ok(Self::Endorsement),
            Some(KeyType::Name(name)) if name == "KEY_PPK" => Ok(Self::Platform),
            Some(KeyType::Number(1)) => Ok(Self::Endorsement),
            Some(KeyType::Number(2)) => Ok(Self::Platform),
            None | Some(KeyType::Number(0)) => Err(unfit("it is KEY_UNSPECIFIED".into())),
            Some(KeyType::Name(name)) => Err(unfit(format!("it is {name:?}"))),
            Some(KeyType::Number(number)) => Err(unfit(format!("it is {number}"))),
        }
    }

    fn called(self) -> &'static str {
        match self {
            Self::Endorsement => "endorsement key",
            Self::Platform => "platform primary key",
        }
    }
}

impl Parts {
    fn is_there(&self) -> bool {
        self.hmac_pub_key.is_some() || self.duplicate.is_some() || self.in_sym_seed.is_some()
    }

    fn key(self) -> Result<HmacKey, InvalidChallenge> {
        let area = content("hmacPubKey", "TPM2B_PUBLIC", self.hmac_pub_key)?;
        let duplicate = content("duplicate", "TPM2B_PRIVATE", self.duplicate)?;
        let seed = content("inSymSeed", "TPM2B_ENCRYPTED_SECRET", self.in_sym_seed)?;
        HmacKey::new(area, duplicate, seed).map_err(|why| {
            InvalidChallenge(format!(
                "hmacPubKey: no public area of a restricted HMAC key as enrollz has it: {why}"
            ))
        })
    }
}

/// The content of a TPM2B in base64.
fn content(
    field: &str,
    structure: &str,
    text: Option<String>,
) -> Result<Vec<u8>, InvalidChallenge> {
    let invalid = |why: String| InvalidChallenge(format!("{field}: {why}"));
    let text = text.unwrap_or_default();
    // A reader of ProtoJSON takes both alphabets, with and without padding.
    let bytes = Base64::decode_vec(&text)
        .or_else(|_| Base64Unpadded::decode_vec(&text))
        .or_else(|_| Base64Url::decode_vec(&text))
        .or_else(|_| Base64UrlUnpadded::decode_vec(&text))
        .map_err(|_| invalid("no base64".into()))?;
    let Some((size, rest)) = bytes.split_first_chunk() else {
        return Err(invalid(match bytes.is_empty() {
            true => "it is empty".into(),
            false => format!("no {structure}: it is cut"),
        }));
    };
    let said = usize::from(u16::from_be_bytes(*size));
    match said == rest.len() && said > 0 {
        true => Ok(rest.to_vec()),
        false => Err(invalid(format!(
            "no {structure}: its size says {said} bytes, and {} follow",
            rest.len()
        ))),
    }
}

impl HmacAnswer {
    /// Has the TPM answer. `transport_key` is a serialised `TransportKey` of bootz: the answer is bound to
    /// it by a TPMT_HA with its SHA-256 in extraData.
    ///
    /// # Errors
    ///
    /// The device has no IAK, the HMAC key was wrapped for another TPM, or its parts are of two keys.
    pub fn to(
        device: &Device,
        challenge: &HmacChallenge,
        transport_key: Option<&[u8]>,
    ) -> Result<Self, IdentityError> {
        leaving_nothing(device, || Self::made(device, challenge, transport_key))
    }

    fn made(
        device: &Device,
        challenge: &HmacChallenge,
        transport_key: Option<&[u8]>,
    ) -> Result<Self, IdentityError> {
        let found = AttestationKey::of_factory(device, &device.inventory(), None)?;
        let (iak, _) = found.ok_or_else(|| {
            IdentityError::refused(
                "this device has no IAK: no handle from 0x81020000 to 0x8102FFFF holds one, and there is no \
                 certificate of one. The maker makes IDevID and IAK (devid-manufacture keys)",
            )
        })?;
        let qualifying = transport_key.map(|key| {
            let digest = Hash::Sha256.digest(&[key]);
            [&Hash::Sha256.algorithm().to_be_bytes()[..], &digest].concat()
        });
        let certified = Challenged {
            device,
            challenge,
            iak: &iak,
            qualifying: qualifying.unwrap_or_default(),
        }
        .certified()?;
        Ok(Self {
            envelope: challenge.envelope,
            response: Response {
                iak_pub: sized(iak.area()).into(),
                iak_certify_info: sized(&certified.attest).into(),
                iak_certify_info_signature: certified.signature.into(),
            },
            transport_key: transport_key.map(Bytes::from),
        })
    }

    /// The answer to the message that the challenge came in.
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, IdentityError> {
        let response = &self.response;
        let message = match self.envelope {
            Envelope::Bare => json!(response),
            Envelope::Enrollz => json!({ "challengeResp": response }),
            Envelope::Bootz => json!({
                "serializedTransportKey": self.transport_key,
                "hmac": response,
            }),
        };
        let text = serde_json::to_string_pretty(&message);
        let text = text.map_err(|why| IdentityError::failed(format!("the answer: {why}")))?;
        Ok(text + "\n")
    }
}

/// A challenge on its way to the TPM.
struct Challenged<'a> {
    device: &'a Device,
    challenge: &'a HmacChallenge,
    iak: &'a AttestationKey,
    qualifying: Vec<u8>,
}

impl Challenged<'_> {
    /// Tries the keys that the HMAC key may be wrapped for.
    fn certified(&self) -> Result<Certification, IdentityError> {
        let tpm = &*self.device.tpm;
        let HmacChallenge {
            wrapped_for, key, ..
        } = self.challenge;
        let algorithm = key.wrapped_for().ok_or_else(|| {
            IdentityError::refused(
                "inSymSeed is of no length that an RSA-2048, RSA-3072 or RSA-4096 key has, and no point of \
                 P-256, P-384 or P-521: the TPM imports no such key",
            )
        })?;
        let _try = self.iak.lock_try(tpm)?;
        let mut tried = Vec::new();
        let answered = match wrapped_for {
            WrappingKey::Endorsement => {
                tpm.first_endorsement_key(algorithm, None, |parent| self.by(&parent, &mut tried))?
            }
            WrappingKey::Platform => {
                let mut found = None;
                for parent in tpm.platform_keys_in_handles()? {
                    if KeyAlgorithm::of(parent.public()) == algorithm {
                        found = self.by(&parent, &mut tried)?;
                    }
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        answered.ok_or_else(|| self.not_imported(algorithm, &tried))
    }

    /// `None` if the HMAC key is wrapped for another key than this one. What the TPM answered then is
    /// added to `tried`.
    fn by(
        &self,
        parent: &EndorsementKey,
        tried: &mut Vec<(String, Option<ResponseCode>)>,
    ) -> Result<Option<Certification>, IdentityError> {
        let HmacChallenge { key, .. } = self.challenge;
        if !key.may_be_for(parent) {
            tried.push((hex(parent.name()), None));
            return Ok(None);
        }
        let tpm = &*self.device.tpm;
        match tpm.certify_by_hmac_key(self.iak, parent, key, &self.qualifying) {
            Ok(HmacOutcome::Certified(certification)) => Ok(Some(certification)),
            Ok(HmacOutcome::NotImported(code)) => {
                tried.push((hex(parent.name()), Some(code)));
                Ok(None)
            }
            Ok(HmacOutcome::NotLoaded(code)) => Err(IdentityError::refused(format!(
                "the TPM does not take the HMAC key ({code}): hmacPubKey and duplicate are of two keys"
            ))),
            Ok(HmacOutcome::HasValue) => Err(IdentityError::refused(
                "the HMAC key has an authorisation value: those of enrollz have none",
            )),
            // Some TPMs say that they failed where RSA's padding is wrong, and work on.
            Err(TpmError::Response(code))
                if code.is_out_of_order() && tpm.random(&mut [0]).is_ok() =>
            {
                tried.push((hex(parent.name()), Some(code)));
                Ok(None)
            }
            Err(error) => Err(IdentityError::from(error).while_doing("the HMAC challenge")),
        }
    }

    fn not_imported(
        &self,
        algorithm: KeyAlgorithm,
        tried: &[(String, Option<ResponseCode>)],
    ) -> IdentityError {
        let called = self.challenge.wrapped_for.called();
        let kind = match algorithm {
            KeyAlgorithm::Ec(curve) => format!("P-{}", curve.bits()),
            KeyAlgorithm::Rsa(bits) => format!("RSA-{bits}"),
        };
        if tried.is_empty() {
            let place = match self.challenge.wrapped_for {
                WrappingKey::Endorsement => "neither in a handle nor by a template of the TCG",
                WrappingKey::Platform => {
                    "a persistent handle from 0x81800000 to 0x81FFFFFF would hold it"
                }
            };
            return IdentityError::refused(format!(
                "the HMAC key is wrapped for a key of {kind}, and this TPM has no such {called}: {place}"
            ));
        }
        let tried: Vec<String> = tried
            .iter()
            .map(|(name, code)| match code {
                Some(code) => format!("TPM name {name}: {code}{}", part(*code)),
                None => format!("TPM name {name}: the seed is none for it"),
            })
            .collect();
        IdentityError::refused(format!(
            "the TPM does not import the HMAC key ({}): it was wrapped for another {called}, or it was \
             changed on its way. Have the owner look up this device's {called}, and make a new challenge",
            tried.join("; ")
        ))
    }
}

/// The field of the challenge that a response code of TPM2_Import is about.
fn part(code: ResponseCode) -> &'static str {
    match code.parameter() {
        Some(2) => " (hmacPubKey)",
        Some(3) => " (duplicate)",
        Some(4) => " (inSymSeed)",
        _ => "",
    }
}

impl fmt::Display for InvalidChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid request: {}", self.0)
    }
}

impl std::error::Error for InvalidChallenge {}
