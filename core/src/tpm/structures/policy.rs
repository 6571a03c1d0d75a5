//! Policies of the TCG templates: their digests, and the assertions of a policy session that
//! satisfies them (Part 1, section 19.7). The templates are in TCG, TPM 2.0 Keys for Device
//! Identity and Attestation, section 7.3.6, and EK Credential Profile for TPM 2.0, section B.6.

use super::public::{attributes_of, auth_policy_of, name_hash_of};
use crate::tpm::{Hash, command_code, handle, sized};
use tpm2_protocol::data::TpmaObject;

/// The attributes of an index that may authorise a policy: POLICYWRITE, WRITEALL, PPREAD,
/// OWNERREAD, AUTHREAD, POLICYREAD, NO_DA, WRITTEN.
const INDEX_ATTRIBUTES: u32 = 0x220F_1008;

/// The kind of a TCG key to which a policy belongs.
#[cfg_attr(
    not(feature = "manufacture"),
    allow(unreachable_pub, reason = "that feature alone shows it outside")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevIdKind {
    /// An IDevID key, which signs any data.
    Identity,
    /// An IAK, which signs only data that the TPM made.
    Attestation,
}

/// The authorisation role of a handle in a command (Part 1, section 19.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) enum AuthRole {
    /// USER: the command uses the key.
    User,
    /// ADMIN: the command with this TPM_CC administers the key. A key with adminWithPolicy then
    /// needs a policy session, and no authorisation value.
    Admin(u32),
}

/// The authorisation that a handle of a command needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tpm) enum AuthWay {
    /// A password or HMAC session with the authorisation value.
    Value,
    /// A policy session with these assertions.
    Policy(PolicySteps),
    /// A policy that the TCG does not define for identity or endorsement keys.
    UnknownPolicy,
}

/// The assertions of a policy session, in this order: TPM2_PolicySecret of the endorsement
/// hierarchy, TPM2_PolicyCommandCode, TPM2_PolicyOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tpm) struct PolicySteps {
    /// The hash of the session, which is the nameAlg of the key.
    pub(in crate::tpm) hash: Hash,
    /// The TPM_CC of the only command that the session authorises; `None` for any command.
    pub(in crate::tpm) command: Option<u32>,
    /// The branches of TPM2_PolicyOR; empty for a policy without branches.
    pub(in crate::tpm) branches: Vec<Vec<u8>>,
}

/// Returns the authorisation that a key with this TPMT_PUBLIC needs in a role. If both the TCG
/// policy and the authorisation value are possible, the policy is chosen. A policy cannot cause a
/// failed try.
pub(in crate::tpm) fn auth_way(area: &[u8], role: AuthRole) -> AuthWay {
    let attributes = attributes_of(area);
    let takes_value = match role {
        AuthRole::User => attributes & TpmaObject::USER_WITH_AUTH.bits() != 0,
        AuthRole::Admin(_) => attributes & TpmaObject::ADMIN_WITH_POLICY.bits() == 0,
    };
    match known_steps(area, role) {
        Some(steps) => AuthWay::Policy(steps),
        None if takes_value => AuthWay::Value,
        None => AuthWay::UnknownPolicy,
    }
}

fn known_steps(area: &[u8], role: AuthRole) -> Option<PolicySteps> {
    let (hash, policy) = (name_hash_of(area)?, auth_policy_of(area)?);
    let steps = |command, branches| PolicySteps {
        hash,
        command,
        branches,
    };
    if policy == secret(hash) && role == AuthRole::User {
        return Some(steps(None, Vec::new()));
    }
    if policy == endorsement(hash) && role == AuthRole::User {
        return Some(steps(None, endorsement_branches(hash)));
    }
    let kinds = [DevIdKind::Identity, DevIdKind::Attestation];
    let kind = kinds
        .into_iter()
        .find(|kind| policy == devid(*kind, hash))?;
    let command = match role {
        AuthRole::User => None,
        AuthRole::Admin(command @ (command_code::CERTIFY | command_code::ACTIVATE_CREDENTIAL)) => {
            Some(command)
        }
        AuthRole::Admin(_) => return None,
    };
    Some(steps(command, devid_branches(kind, hash)))
}

/// Returns the digest of TPM2_PolicySecret of the endorsement hierarchy: PolicyA of the EK
/// Credential Profile.
pub(in crate::tpm) fn secret(hash: Hash) -> Vec<u8> {
    const ENDORSEMENT: [u8; 4] = handle::ENDORSEMENT.to_be_bytes();
    let zeros = vec![0; hash.width()];
    let code = command_code::POLICY_SECRET.to_be_bytes();
    let entity = hash.digest(&[&zeros, &code, &ENDORSEMENT]);
    hash.digest(&[&entity]) // the policyRef is empty
}

/// Returns the digest of PolicyB of the EK Credential Profile, for endorsement keys of the high
/// range.
pub(in crate::tpm) fn endorsement(hash: Hash) -> Vec<u8> {
    one_of(hash, &endorsement_branches(hash))
}

/// Returns the branches of PolicyB: the digests of PolicyA and PolicyC.
fn endorsement_branches(hash: Hash) -> Vec<Vec<u8>> {
    let index = match hash {
        Hash::Sha1 | Hash::Sha256 => 0x01C0_7F01,
        Hash::Sha384 => 0x01C0_7F02,
        Hash::Sha512 => 0x01C0_7F03,
    };
    vec![secret(hash), authorised_by(hash, index)]
}

/// Returns the digest of the policy of a DevID key.
pub(in crate::tpm) fn devid(kind: DevIdKind, hash: Hash) -> Vec<u8> {
    one_of(hash, &devid_branches(kind, hash))
}

/// Returns the four branches of the policy of a DevID key (section 7.3.6). Three use the secret of
/// the endorsement hierarchy: alone, with TPM2_Certify, and with TPM2_ActivateCredential. The
/// fourth is the policy that an NV index authorises.
fn devid_branches(kind: DevIdKind, hash: Hash) -> Vec<Vec<u8>> {
    let secret = secret(hash);
    let for_command = |command: u32| {
        let code = command_code::POLICY_COMMAND_CODE.to_be_bytes();
        hash.digest(&[&secret, &code, &command.to_be_bytes()])
    };
    // Section 7.3.2.
    let first = match kind {
        DevIdKind::Identity => 0x01C9_0010,
        DevIdKind::Attestation => 0x01C9_0018,
    };
    let index = first
        + match hash {
            Hash::Sha1 | Hash::Sha256 => 0,
            Hash::Sha384 => 1,
            Hash::Sha512 => 2,
        };
    vec![
        secret.clone(),
        for_command(command_code::CERTIFY),
        for_command(command_code::ACTIVATE_CREDENTIAL),
        authorised_by(hash, index),
    ]
}

/// Returns the digest of TPM2_PolicyAuthorizeNV for an NV index. The TCG reserves the index for
/// such a policy.
fn authorised_by(hash: Hash, index: u32) -> Vec<u8> {
    let zeros = vec![0; hash.width()];
    let algorithm = hash.algorithm().to_be_bytes();
    let public = hash.digest(&[
        &index.to_be_bytes(),
        &algorithm,
        &INDEX_ATTRIBUTES.to_be_bytes(),
        &sized(&secret(hash)),
        &(hash.width() as u16 + 2).to_be_bytes(),
    ]);
    let name = [&algorithm[..], &public].concat();
    let code = command_code::POLICY_AUTHORIZE_NV.to_be_bytes();
    hash.digest(&[&zeros, &code, &name])
}

/// Returns the policy digest of TPM2_PolicyOR with these branches.
fn one_of(hash: Hash, branches: &[Vec<u8>]) -> Vec<u8> {
    let zeros = vec![0; hash.width()];
    let code = command_code::POLICY_OR.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![&zeros, &code];
    parts.extend(branches.iter().map(Vec::as_slice));
    hash.digest(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;

    /// The expected policy digests were computed by three independent implementations.
    #[test]
    fn policies_are_those_of_the_standard() {
        use DevIdKind::{Attestation, Identity};
        for (kind, hash, expected) in [
            (
                Identity,
                Hash::Sha256,
                "ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea",
            ),
            (
                Identity,
                Hash::Sha384,
                "4db1aa836d0b5615df6ee53a40ef70c61c217f4303d44695925972bc927006cf\
                 a5cbdf6dc18c4dbe329b2f1542c3dd33",
            ),
            (
                Identity,
                Hash::Sha512,
                "7dd7500fd6c1b94f97a6af910da147301ef28f662fee06f225a4ccadda3b4e6b\
                 38e66b2f3ad5dee1a0503cd2daedb1e68cfe4f84b03a8cd22bb6a976f071a72f",
            ),
            (
                Attestation,
                Hash::Sha256,
                "5437182326e414fca797d5f174615a1641f61255797c3a2b22c21d120b2d1e07",
            ),
            (
                Attestation,
                Hash::Sha384,
                "129d94ebf84556652c6eef43bbb757512ac87e52be7b349ca6ce4d826f749fcf\
                 672f51716c5cbb605f313bf345aab312",
            ),
            (
                Attestation,
                Hash::Sha512,
                "8060d1fb31716a29e48a6e5fece088bcfc1b278fc162255e81c3eca3544cd44a\
                 f94410c3715d561cccd9e39a6cb2646d43535bb54ea88710deb5f7836bd9b586",
            ),
        ] {
            assert_eq!(hex(&devid(kind, hash)), expected);
        }
    }

    #[test]
    fn policies_of_endorsement_keys_are_those_of_the_standard() {
        for (hash, expected) in [
            (
                Hash::Sha256,
                "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
            ),
            (
                Hash::Sha384,
                "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca\
                 cb47ba09699646150f9fc000f3f80e12",
            ),
            (
                Hash::Sha512,
                "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4\
                 29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
            ),
        ] {
            assert_eq!(hex(&endorsement(hash)), expected);
        }
    }
}
