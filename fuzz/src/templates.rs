//! Correct, almost correct and wrong templates and mechanisms of a C caller.

use crate::bytes::Bytes;
use cryptoki_sys::*;
use std::ffi::c_void;
use std::ptr;

/// Owns the values to which the pointers of a call lead. Each value has its own allocation of
/// exactly its size, so that the sanitizer detects every access after its end.
#[derive(Default)]
pub struct Kept(Vec<Box<[u8]>>);

impl Kept {
    /// Copies these bytes and returns a pointer to the copy.
    pub fn keep(&mut self, bytes: &[u8]) -> *mut u8 {
        self.0.push(bytes.into());
        self.0.last_mut().expect("kept").as_mut_ptr()
    }

    /// Copies this value and returns a pointer to the copy, and the length.
    fn keep_value<T>(&mut self, value: &T) -> (*mut c_void, CK_ULONG) {
        let length = size_of::<T>();
        // SAFETY: The value consists of C types. Its bytes are only copied.
        let bytes =
            unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), length) };
        (self.keep(bytes).cast(), length as CK_ULONG)
    }
}

pub const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

const CURVES: [&[u8]; 5] = [
    P256,
    b"\x06\x05\x2b\x81\x04\x00\x22",
    b"\x06\x05\x2b\x81\x04\x00\x23",
    b"\x06\x05\x2b\x81\x04\x00\x0a",
    b"\x13\x0asecp256r1x",
];

const TYPES: [CK_ATTRIBUTE_TYPE; 68] = [
    CKA_CLASS,
    CKA_TOKEN,
    CKA_PRIVATE,
    CKA_LABEL,
    CKA_UNIQUE_ID,
    CKA_APPLICATION,
    CKA_VALUE,
    CKA_OBJECT_ID,
    CKA_CERTIFICATE_TYPE,
    CKA_ISSUER,
    CKA_SERIAL_NUMBER,
    CKA_TRUSTED,
    CKA_CERTIFICATE_CATEGORY,
    CKA_JAVA_MIDP_SECURITY_DOMAIN,
    CKA_URL,
    CKA_HASH_OF_SUBJECT_PUBLIC_KEY,
    CKA_HASH_OF_ISSUER_PUBLIC_KEY,
    CKA_CHECK_VALUE,
    CKA_KEY_TYPE,
    CKA_SUBJECT,
    CKA_ID,
    CKA_SENSITIVE,
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_VERIFY,
    CKA_VERIFY_RECOVER,
    CKA_DERIVE,
    CKA_START_DATE,
    CKA_END_DATE,
    CKA_MODULUS,
    CKA_MODULUS_BITS,
    CKA_PUBLIC_EXPONENT,
    CKA_PRIVATE_EXPONENT,
    CKA_PRIME_1,
    CKA_PRIME_2,
    CKA_EXPONENT_1,
    CKA_EXPONENT_2,
    CKA_COEFFICIENT,
    CKA_PUBLIC_KEY_INFO,
    CKA_PRIME,
    CKA_VALUE_BITS,
    CKA_VALUE_LEN,
    CKA_EXTRACTABLE,
    CKA_LOCAL,
    CKA_NEVER_EXTRACTABLE,
    CKA_ALWAYS_SENSITIVE,
    CKA_KEY_GEN_MECHANISM,
    CKA_MODIFIABLE,
    CKA_COPYABLE,
    CKA_DESTROYABLE,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_ALWAYS_AUTHENTICATE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_WRAP_TEMPLATE,
    CKA_UNWRAP_TEMPLATE,
    CKA_DERIVE_TEMPLATE,
    CKA_ALLOWED_MECHANISMS,
    CKA_HW_FEATURE_TYPE,
    CKA_PROFILE_ID,
    CKA_MECHANISM_TYPE,
    CKA_NAME_HASH_ALGORITHM,
    CKA_VENDOR_DEFINED,
    0x8000_1234,
];

const CLASSES: [CK_ULONG; 10] = [
    CKO_DATA,
    CKO_CERTIFICATE,
    CKO_PUBLIC_KEY,
    CKO_PRIVATE_KEY,
    CKO_SECRET_KEY,
    CKO_HW_FEATURE,
    CKO_DOMAIN_PARAMETERS,
    CKO_MECHANISM,
    CKO_PROFILE,
    0x8000_0000,
];
const KEY_TYPES: [CK_ULONG; 6] = [
    CKK_RSA,
    CKK_EC,
    CKK_AES,
    CKK_GENERIC_SECRET,
    CKK_DES3,
    CKK_SHA256_HMAC,
];

/// The mechanisms of the module, and some mechanisms that the module lacks.
pub const MECHANISMS: [CK_MECHANISM_TYPE; 48] = [
    CKM_EC_KEY_PAIR_GEN,
    CKM_RSA_PKCS_KEY_PAIR_GEN,
    CKM_ECDSA,
    CKM_ECDSA_SHA1,
    CKM_ECDSA_SHA256,
    CKM_ECDSA_SHA384,
    CKM_ECDSA_SHA512,
    CKM_RSA_PKCS,
    CKM_SHA1_RSA_PKCS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
    CKM_RSA_X_509,
    CKM_ECDH1_DERIVE,
    CKM_ECDH1_COFACTOR_DERIVE,
    CKM_RSA_PKCS_OAEP,
    CKM_AES_KEY_GEN,
    CKM_AES_ECB,
    CKM_AES_CBC,
    CKM_AES_CBC_PAD,
    CKM_AES_GCM,
    CKM_GENERIC_SECRET_KEY_GEN,
    CKM_SHA_1_HMAC,
    CKM_SHA224_HMAC,
    CKM_SHA256_HMAC,
    CKM_SHA384_HMAC,
    CKM_SHA512_HMAC,
    CKM_SHA_1_HMAC_GENERAL,
    CKM_SHA224_HMAC_GENERAL,
    CKM_SHA256_HMAC_GENERAL,
    CKM_SHA384_HMAC_GENERAL,
    CKM_SHA512_HMAC_GENERAL,
    CKM_RSA_AES_KEY_WRAP,
    CKM_AES_KEY_WRAP,
    CKM_AES_KEY_WRAP_KWP,
    CKM_SHA_1,
    CKM_SHA224,
    CKM_SHA256,
    CKM_SHA384,
    CKM_SHA512,
    CKM_MD5,
    CKM_AES_CTR,
    CKM_AES_KEY_WRAP_PAD,
    CKM_VENDOR_DEFINED,
];

fn value(choices: &mut Bytes, kind: CK_ATTRIBUTE_TYPE) -> Vec<u8> {
    let ulong = |number: CK_ULONG| number.to_ne_bytes().to_vec();
    match choices.below(8) {
        0 => choices.some(),
        1 => ulong(CK_ULONG::from(choices.long())),
        _ => match kind {
            CKA_CLASS => ulong(choices.pick(&CLASSES)),
            CKA_KEY_TYPE => ulong(choices.pick(&KEY_TYPES)),
            CKA_CERTIFICATE_TYPE | CKA_CERTIFICATE_CATEGORY | CKA_JAVA_MIDP_SECURITY_DOMAIN => {
                ulong(choices.pick(&[0, 1, 2, 3]))
            }
            CKA_MODULUS_BITS => ulong(choices.pick(&[2048, 1024, 2047, 0, 1 << 40])),
            CKA_VALUE_LEN => ulong(choices.pick(&[16, 32, 24, 1, 1024, 1025, 0, CK_ULONG::MAX])),
            CKA_NAME_HASH_ALGORITHM | CKA_MECHANISM_TYPE | CKA_KEY_GEN_MECHANISM => {
                ulong(choices.pick(&MECHANISMS))
            }
            CKA_ALLOWED_MECHANISMS => {
                let count = choices.below(5);
                (0..count)
                    .flat_map(|_| ulong(choices.pick(&MECHANISMS)))
                    .collect()
            }
            CKA_EC_PARAMS => choices.pick(&CURVES).to_vec(),
            CKA_EC_POINT => {
                let (x, y) = crate::answers::GENERATOR;
                [&[4, 65, 4][..], x, y].concat()
            }
            CKA_PUBLIC_EXPONENT => choices
                .pick(&[&[1_u8, 0, 1][..], &[3], &[], &[0, 1, 0, 1]])
                .to_vec(),
            CKA_START_DATE | CKA_END_DATE => b"20260131".to_vec(),
            CKA_LABEL | CKA_ID | CKA_VALUE | CKA_SUBJECT | CKA_ISSUER | CKA_SERIAL_NUMBER
            | CKA_MODULUS | CKA_PRIME_1 | CKA_PRIME_2 | CKA_PRIVATE_EXPONENT | CKA_APPLICATION
            | CKA_OBJECT_ID | CKA_URL | CKA_CHECK_VALUE | CKA_PUBLIC_KEY_INFO => choices.some(),
            _ => vec![choices.pick(&[1, 0, 1, 0, 0xFF])],
        },
    }
}

/// Returns a template that begins with the attributes `first`.
pub fn template(
    choices: &mut Bytes,
    kept: &mut Kept,
    first: &[(CK_ATTRIBUTE_TYPE, &[u8])],
) -> Vec<CK_ATTRIBUTE> {
    let mut all: Vec<_> = first
        .iter()
        .map(|(kind, value)| attribute(kept, *kind, value))
        .collect();
    for _ in 0..choices.below(7) {
        let kind = choices.pick(&TYPES);
        let value = value(choices, kind);
        let mut item = attribute(kept, kind, &value);
        match choices.below(24) {
            0 => item.pValue = ptr::null_mut(),
            1 => (item.pValue, item.ulValueLen) = (ptr::null_mut(), 0),
            2 => item.ulValueLen = 0,
            3 => item.ulValueLen = CK_ULONG::MAX,
            4 => (item.pValue, item.ulValueLen) = (ptr::null_mut(), CK_ULONG::MAX / 2),
            _ => {}
        }
        // A wrong length with a pointer would be undefined behaviour of the caller, so the pointer
        // becomes NULL.
        if item.ulValueLen == CK_ULONG::MAX && !item.pValue.is_null() {
            item.pValue = ptr::null_mut();
        }
        all.push(item);
    }
    all
}

/// Returns an attribute. Its value has its own allocation.
pub fn attribute(kept: &mut Kept, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: kept.keep(value).cast(),
        ulValueLen: value.len() as CK_ULONG,
    }
}

/// Returns a template for C_GetAttributeValue, with a buffer for each value.
pub fn question(choices: &mut Bytes, kept: &mut Kept) -> Vec<CK_ATTRIBUTE> {
    let mut all = Vec::new();
    for _ in 0..1 + choices.below(6) {
        let kind = choices.pick(&TYPES);
        let room = vec![0xAA; choices.pick(&[0, 1, 8, 64, 4096])];
        let mut item = attribute(kept, kind, &room);
        if choices.rarely(4) {
            item.pValue = ptr::null_mut();
        }
        all.push(item);
    }
    all
}

/// Returns a mechanism with a parameter that is correct, almost correct, or wrong.
pub fn mechanism(choices: &mut Bytes, kept: &mut Kept, kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    let mut given = CK_MECHANISM {
        mechanism: kind,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let (parameter, length) = match choices.below(8) {
        0 => {
            // With the length of a struct, the module would take random bytes for pointers. No
            // module can check such pointers.
            let mut bytes = choices.some();
            if bytes.len().is_multiple_of(size_of::<*const u8>()) {
                bytes.pop();
            }
            (kept.keep(&bytes).cast(), bytes.len() as CK_ULONG)
        }
        1 => {
            // A parameter as long as the struct of another mechanism. All its pointers are NULL.
            let zeros = vec![0; choices.pick(&[8, 16, 24, 40, 48])];
            (kept.keep(&zeros).cast(), zeros.len() as CK_ULONG)
        }
        2 => (
            ptr::null_mut(),
            choices.pick(&[0, 1, 16, 24, CK_ULONG::MAX]),
        ),
        _ => parameter(choices, kept, kind),
    };
    (given.pParameter, given.ulParameterLen) = (parameter, length);
    given
}

fn bytes_of(choices: &mut Bytes, kept: &mut Kept) -> (*mut u8, CK_ULONG) {
    let bytes = choices.some();
    match choices.below(12) {
        0 => (ptr::null_mut(), bytes.len() as CK_ULONG),
        1 => (ptr::null_mut(), CK_ULONG::MAX),
        2 => (kept.keep(&bytes), 0),
        _ => (kept.keep(&bytes), bytes.len() as CK_ULONG),
    }
}

fn oaep(choices: &mut Bytes, kept: &mut Kept) -> CK_RSA_PKCS_OAEP_PARAMS {
    let (label, length) = bytes_of(choices, kept);
    CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: choices.pick(&[CKM_SHA256, CKM_SHA_1, CKM_SHA512, CKM_MD5, 0]),
        mgf: choices.pick(&[CKG_MGF1_SHA256, CKG_MGF1_SHA1, 0, 99]),
        source: choices.pick(&[CKZ_DATA_SPECIFIED, 0, 7]),
        pSourceData: label.cast(),
        ulSourceDataLen: length,
    }
}

fn parameter(
    choices: &mut Bytes,
    kept: &mut Kept,
    kind: CK_MECHANISM_TYPE,
) -> (*mut c_void, CK_ULONG) {
    match kind {
        CKM_RSA_PKCS_PSS
        | CKM_SHA256_RSA_PKCS_PSS
        | CKM_SHA384_RSA_PKCS_PSS
        | CKM_SHA512_RSA_PKCS_PSS => {
            let parameter = CK_RSA_PKCS_PSS_PARAMS {
                hashAlg: choices.pick(&[CKM_SHA256, CKM_SHA384, CKM_SHA512, CKM_SHA_1, 7]),
                mgf: choices.pick(&[CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512, 0]),
                sLen: choices.pick(&[32, 48, 64, 0, 20, 222, CK_ULONG::MAX]),
            };
            kept.keep_value(&parameter)
        }
        CKM_RSA_PKCS_OAEP => {
            let parameter = oaep(choices, kept);
            kept.keep_value(&parameter)
        }
        CKM_RSA_AES_KEY_WRAP => {
            let inner = oaep(choices, kept);
            let (inner, _) = kept.keep_value(&inner);
            let parameter = CK_RSA_AES_KEY_WRAP_PARAMS {
                ulAESKeyBits: choices.pick(&[256, 128, 0, 7, CK_ULONG::MAX]),
                pOAEPParams: match choices.below(6) {
                    0 => ptr::null_mut(),
                    _ => inner.cast(),
                },
            };
            kept.keep_value(&parameter)
        }
        CKM_ECDH1_DERIVE | CKM_ECDH1_COFACTOR_DERIVE => {
            let (x, y) = crate::answers::GENERATOR;
            let point = [&[4][..], x, y].concat();
            let (public, public_length) = match choices.below(3) {
                0 => bytes_of(choices, kept),
                _ => (kept.keep(&point), point.len() as CK_ULONG),
            };
            let (shared, shared_length) = bytes_of(choices, kept);
            let parameter = CK_ECDH1_DERIVE_PARAMS {
                kdf: choices.pick(&[CKD_NULL, CKD_SHA256_KDF, CKD_SHA1_KDF, 0, 99]),
                ulSharedDataLen: shared_length,
                pSharedData: shared,
                ulPublicDataLen: public_length,
                pPublicData: public,
            };
            kept.keep_value(&parameter)
        }
        CKM_AES_GCM => {
            let (iv, iv_length) = bytes_of(choices, kept);
            let (aad, aad_length) = bytes_of(choices, kept);
            let parameter = CK_GCM_PARAMS {
                pIv: iv,
                ulIvLen: iv_length,
                ulIvBits: CK_ULONG::from(choices.word()),
                pAAD: aad,
                ulAADLen: aad_length,
                ulTagBits: choices.pick(&[128, 96, 32, 0, 129, CK_ULONG::MAX]),
            };
            kept.keep_value(&parameter)
        }
        CKM_AES_CBC | CKM_AES_CBC_PAD => kept.keep_value(&[choices.byte(); 16]),
        CKM_AES_KEY_WRAP | CKM_AES_KEY_WRAP_KWP => {
            let initial = choices.take(choices_length(kind));
            (kept.keep(&initial).cast(), initial.len() as CK_ULONG)
        }
        CKM_SHA_1_HMAC_GENERAL
        | CKM_SHA224_HMAC_GENERAL
        | CKM_SHA256_HMAC_GENERAL
        | CKM_SHA384_HMAC_GENERAL
        | CKM_SHA512_HMAC_GENERAL => {
            let length: CK_ULONG = choices.pick(&[16, 32, 0, 64, 65, CK_ULONG::MAX]);
            kept.keep_value(&length)
        }
        _ => (ptr::null_mut(), 0),
    }
}

/// Returns the length of the initial value of an AES key wrap.
fn choices_length(kind: CK_MECHANISM_TYPE) -> usize {
    match kind {
        CKM_AES_KEY_WRAP => 8,
        _ => 4,
    }
}
