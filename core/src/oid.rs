//! Object identifiers: shorter names for identifiers of const-oid's database, and identifiers that
//! the database lacks.

pub(crate) use x509_cert::der::oid::db::rfc2985::PKCS_9_AT_EMAIL_ADDRESS as EMAIL_ADDRESS;
#[cfg(feature = "evidence")]
pub(crate) use x509_cert::der::oid::db::rfc2985::PKCS_9_AT_EXTENSION_REQUEST as EXTENSION_REQUEST;
pub(crate) use x509_cert::der::oid::db::rfc4519::{COMMON_NAME, SERIAL_NUMBER};
pub(crate) use x509_cert::der::oid::db::rfc5280::{
    ANY_POLICY, ID_CE_AUTHORITY_KEY_IDENTIFIER as AUTHORITY_KEY_ID,
    ID_CE_BASIC_CONSTRAINTS as BASIC_CONSTRAINTS,
    ID_CE_CERTIFICATE_POLICIES as CERTIFICATE_POLICIES,
    ID_CE_CRL_DISTRIBUTION_POINTS as CRL_DISTRIBUTION_POINTS, ID_CE_CRL_REASONS as REASON_CODE,
    ID_CE_DELTA_CRL_INDICATOR as DELTA_CRL_INDICATOR, ID_CE_EXT_KEY_USAGE as EXTENDED_KEY_USAGE,
    ID_CE_INHIBIT_ANY_POLICY as INHIBIT_ANY_POLICY,
    ID_CE_ISSUING_DISTRIBUTION_POINT as ISSUING_DISTRIBUTION_POINT, ID_CE_KEY_USAGE as KEY_USAGE,
    ID_CE_NAME_CONSTRAINTS as NAME_CONSTRAINTS, ID_CE_POLICY_CONSTRAINTS as POLICY_CONSTRAINTS,
    ID_CE_POLICY_MAPPINGS as POLICY_MAPPINGS, ID_CE_SUBJECT_ALT_NAME as SUBJECT_ALT_NAME,
    ID_CE_SUBJECT_KEY_IDENTIFIER as SUBJECT_KEY_ID,
};
pub(crate) use x509_cert::der::oid::db::rfc5911::ID_ON_HARDWARE_MODULE_NAME as HARDWARE_MODULE_NAME;
pub(crate) use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, ID_EC_PUBLIC_KEY as EC_PUBLIC_KEY,
    ID_MGF_1 as MGF_1, ID_RSASSA_PSS as RSASSA_PSS, ID_SHA_1 as SHA_1, ID_SHA_256 as SHA_256,
    ID_SHA_384 as SHA_384, ID_SHA_512 as SHA_512, RSA_ENCRYPTION, SHA_1_WITH_RSA_ENCRYPTION,
    SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
#[cfg(feature = "evidence")]
pub(crate) use x509_cert::der::oid::db::tcgtpm::{
    TCG_AT_TPM_MANUFACTURER as TPM_MANUFACTURER, TCG_AT_TPM_MODEL as TPM_MODEL,
    TCG_AT_TPM_VERSION as TPM_VERSION,
};
pub(crate) use x509_cert::der::oid::db::tcgtpm::{TCG_KP_AIK_CERTIFICATE, TCG_KP_EK_CERTIFICATE};

use x509_cert::der::asn1::ObjectIdentifier;

/// ecdsa-with-SHA1 (RFC 3279, section 2.2.3).
pub(crate) const ECDSA_WITH_SHA_1: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// id-aa-attestation (draft-ietf-lamps-csr-attestation).
#[cfg(feature = "evidence")]
pub(crate) const ATTESTATION_ATTRIBUTE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.59");
/// tcg-attest-tpm-certify (draft-ietf-lamps-csr-attestation, an appendix of earlier versions).
#[cfg(feature = "evidence")]
pub(crate) const TCG_ATTEST_TPM_CERTIFY: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.23.133.20.1");

/// tcg-cap-verifiedTPMResidency and tcg-cap-verifiedTPMFixed (TCG, TPM 2.0 Keys for Device Identity
/// and Attestation, section 8).
#[cfg(feature = "evidence")]
pub(crate) const TCG_CAP_VERIFIED_TPM_RESIDENCY: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.23.133.11.1.1");
#[cfg(feature = "evidence")]
pub(crate) const TCG_CAP_VERIFIED_TPM_FIXED: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.23.133.11.1.2");
/// tcg-cap-verifiedTPMRestricted (TCG, TPM 2.0 Keys for Device Identity and Attestation, section 8).
pub(crate) const TCG_CAP_VERIFIED_TPM_RESTRICTED: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.23.133.11.1.3");
/// id-kp-clientAuth and anyExtendedKeyUsage (RFC 5280, section 4.2.1.12).
pub(crate) const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
pub(crate) const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// id-kp-cmcRA (RFC 6402, section 2.10).
pub(crate) const CMC_RA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.28");
/// The certificate type of Netscape, an older form of keyUsage.
pub(crate) const NETSCAPE_CERT_TYPE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("2.16.840.1.113730.1.1");
/// id-pe-proxyCertInfo (RFC 3820, section 3.8).
pub(crate) const PROXY_CERT_INFO: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.14");
/// id-pe-ipAddrBlocks (RFC 3779, section 2).
pub(crate) const IP_ADDR_BLOCKS: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.7");
/// id-pe-autonomousSysIds (RFC 3779, section 3).
pub(crate) const AUTONOMOUS_SYS_IDS: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.8");
/// id-on-SmtpUTF8Mailbox (RFC 9598, section 3).
pub(crate) const SMTP_UTF8_MAILBOX: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.9");
