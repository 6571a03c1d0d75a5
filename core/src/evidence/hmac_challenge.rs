//! Answers the HMAC challenge of OpenConfig's enrollz and bootz. The owner knows the endorsement
//! key or the platform primary key of a device. The answer proves which IAK is in the same TPM.
//!
//! The messages are those of `tpm_enrollz.proto` and `bootz.proto`, in the JSON of Protocol Buffers
//! (ProtoJSON). Byte strings are in base64, and a field may have either of its two names.

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

/// An owner's HMAC challenge, and the type of message that contained it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacChallenge {
    envelope: Envelope,
    wrapped_for: WrappingKey,
    key: HmacKey,
}

/// The reason why a message is not a valid challenge (InvalidArgument of enrollz).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidChallenge(String);

/// The TPM's answer to an HMAC challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacAnswer {
    envelope: Envelope,
    response: Response,
    transport_key: Option<Bytes>,
}

/// The type of message that contains the HMAC challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Envelope {
    /// The HMAC challenge alone: `openconfig.attestz.HMACChallenge`.
    Bare,
    /// The message `openconfig.attestz.ChallengeRequest`.
    Enrollz,
    /// The message `ChallengeRequestTPM20HMAC` of bootz's `BootstrapStreamResponseV1`.
    Bootz,
}

/// The type of key to which the HMAC key is encrypted (`openconfig.attestz.Key`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrappingKey {
    Endorsement,
    Platform,
}

/// The fields of the three messages that can contain an HMAC challenge.
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

/// The message `openconfig.attestz.HMACChallenge`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Parts {
    #[serde(alias = "hmac_pub_key")]
    hmac_pub_key: Option<String>,
    duplicate: Option<String>,
    #[serde(alias = "in_sym_seed")]
    in_sym_seed: Option<String>,
}

/// A value of an enumeration in ProtoJSON: its name or its number.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeyType {
    Name(String),
    Number(i64),
}

/// The message `openconfig.attestz.HMACChallengeResponse`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    /// A TPM2B_PUBLIC.
    iak_pub: Bytes,
    /// A TPM2B_ATTEST.
    iak_certify_info: Bytes,
    /// A TPMT_SIGNATURE.
    iak_certify_info_signature: Bytes,
}

impl HmacChallenge {
    /// Parses a message with an HMAC challenge.
    ///
    /// # Errors
    ///
    /// Fails if the document is none of the three messages, if a field is empty or incomplete, or
    /// if the HMAC key is of another kind.
    pub fn from_json(document: &[u8]) -> Result<Self, InvalidChallenge> {
        if document.len() > LARGEST_DOCUMENT {
            return Err(InvalidChallenge(format!(
                "{} bytes, but at most {LARGEST_DOCUMENT} are permitted",
                document.len()
            )));
        }
        let none = |why: String| {
            InvalidChallenge(format!("this is not a message of enrollz or bootz: {why}"))
        };
        if !document.trim_ascii_start().starts_with(b"{") {
            return Err(none("it is not a JSON object".into()));
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
                    "it has fields of two messages; use the fields of only one: HMACChallenge, \
                     ChallengeRequest or ChallengeRequestTPM20HMAC"
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

    /// Returns true if the message is from bootz, whose answer contains a transport key.
    pub fn wants_transport_key(&self) -> bool {
        self.envelope == Envelope::Bootz
    }

    /// Returns true if the answer can contain a transport key.
    pub fn takes_transport_key(&self) -> bool {
        self.envelope != Envelope::Enrollz
    }
}

impl WrappingKey {
    fn of(key: Option<KeyType>, field: &str) -> Result<Self, InvalidChallenge> {
        let unfit = |what: String| {
            InvalidChallenge(format!(
                "{field}: {what}; the supported values are KEY_EK and KEY_PPK"
            ))
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
                "hmacPubKey: this is not the public area of a restricted HMAC key of enrollz: {why}"
            ))
        })
    }
}

/// Returns the content of a TPM2B that the message holds in base64.
fn content(
    field: &str,
    structure: &str,
    text: Option<String>,
) -> Result<Vec<u8>, InvalidChallenge> {
    let invalid = |why: String| InvalidChallenge(format!("{field}: {why}"));
    let text = text.unwrap_or_default();
    // A ProtoJSON reader must accept both alphabets of base64, with and without padding.
    let bytes = Base64::decode_vec(&text)
        .or_else(|_| Base64Unpadded::decode_vec(&text))
        .or_else(|_| Base64Url::decode_vec(&text))
        .or_else(|_| Base64UrlUnpadded::decode_vec(&text))
        .map_err(|_| invalid("no base64".into()))?;
    let Some((size, rest)) = bytes.split_first_chunk() else {
        return Err(invalid(match bytes.is_empty() {
            true => "it is empty".into(),
            false => format!("this is not a {structure}: it is incomplete"),
        }));
    };
    let said = usize::from(u16::from_be_bytes(*size));
    match said == rest.len() && said > 0 {
        true => Ok(rest.to_vec()),
        false => Err(invalid(format!(
            "this is not a {structure}: its size field is {said}, but {} bytes follow",
            rest.len()
        ))),
    }
}

impl HmacAnswer {
    /// Lets the TPM answer the HMAC challenge. `transport_key` is a serialised `TransportKey` of
    /// bootz. A TPMT_HA with its SHA-256 in extraData binds the answer to this key.
    ///
    /// # Errors
    ///
    /// Fails if the device has no IAK, if the HMAC key was wrapped for another TPM, or if its parts
    /// belong to two keys.
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
                "this device has no IAK: no handle from 0x81020000 to 0x8102FFFF holds an IAK, and \
                 no certificate of an IAK exists. The maker of the device makes IDevID and IAK \
                 (devid-manufacture keys)",
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

    /// Returns the answer as the message that enrollz or bootz expects for the type of the
    /// challenge.
    ///
    /// # Errors
    ///
    /// Fails if the answer cannot be written as JSON.
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

/// An HMAC challenge, with the device and the IAK that answer it.
struct Challenged<'a> {
    device: &'a Device,
    challenge: &'a HmacChallenge,
    iak: &'a AttestationKey,
    qualifying: Vec<u8>,
}

impl Challenged<'_> {
    /// Tries each endorsement key or platform key to which the HMAC key may be encrypted.
    fn certified(&self) -> Result<Certification, IdentityError> {
        let tpm = &*self.device.tpm;
        let HmacChallenge {
            wrapped_for, key, ..
        } = self.challenge;
        let algorithm = key.wrapped_for().ok_or_else(|| {
            IdentityError::refused(
                "inSymSeed has neither the length of an RSA-2048, RSA-3072 or RSA-4096 key, nor is \
                 it a point of P-256, P-384 or P-521, so the TPM cannot import the HMAC key",
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

    /// Imports the HMAC key under the key `parent` and certifies the IAK. Returns `None` if the
    /// HMAC key is wrapped for another key. In this case, adds the TPM's error to `tried`.
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
                "the TPM does not load the HMAC key ({code}): hmacPubKey and duplicate belong to \
                 two different keys"
            ))),
            Ok(HmacOutcome::HasValue) => Err(IdentityError::refused(
                "the HMAC key has an authorisation value, but HMAC keys of enrollz must have none",
            )),
            // Some TPMs return TPM_RC_FAILURE if the RSA padding is wrong, although they continue
            // to work.
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
                WrappingKey::Endorsement => {
                    "no handle holds it, and no template of the TCG gives it"
                }
                WrappingKey::Platform => {
                    "no persistent handle from 0x81800000 to 0x81FFFFFF holds it"
                }
            };
            return IdentityError::refused(format!(
                "the HMAC key is wrapped for a {kind} key, but this TPM has no such {called}: \
                 {place}"
            ));
        }
        let tried: Vec<String> = tried
            .iter()
            .map(|(name, code)| match code {
                Some(code) => format!("TPM name {name}: {code}{}", part(*code)),
                None => format!("TPM name {name}: the seed is not for this key"),
            })
            .collect();
        IdentityError::refused(format!(
            "the TPM does not import the HMAC key ({}): it was wrapped for another {called}, or it \
             was changed in transit. Ask the owner to check the {called} of this device, and to \
             make a new challenge",
            tried.join("; ")
        ))
    }
}

/// Returns the field of the challenge that a response code of TPM2_Import refers to.
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
