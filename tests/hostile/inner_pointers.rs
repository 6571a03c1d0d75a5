//! The parameters of CKM_RSA_PKCS_OAEP, CKM_RSA_AES_KEY_WRAP, CKM_AES_GCM and the ECDH mechanisms
//! point to further memory. The module must not read that memory if it does not support the
//! mechanism in this call, or does not support a hash or function in the parameter. A program that
//! tries mechanisms may leave any values in these pointers.

use cryptoki_sys::*;
use std::mem::size_of;
use std::ptr;
use testkit::link::Link;
use testkit::own::{Own, without_tpm};
use testkit::raw::Code;

over_our_transport!(nothing_is_read_that_an_unsupported_mechanism_names);

/// No memory of this process is there.
const NOWHERE: usize = 8;

fn mechanism<T>(mechanism: CK_MECHANISM_TYPE, parameter: &mut T) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism,
        pParameter: ptr::from_mut(parameter).cast(),
        ulParameterLen: size_of::<T>() as CK_ULONG,
    }
}

fn oaep(hash: CK_MECHANISM_TYPE, mgf: CK_RSA_PKCS_MGF_TYPE) -> CK_RSA_PKCS_OAEP_PARAMS {
    CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: hash,
        mgf,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: ptr::without_provenance_mut(NOWHERE),
        ulSourceDataLen: 64,
    }
}

fn ecdh(kdf: CK_EC_KDF_TYPE) -> CK_ECDH1_DERIVE_PARAMS {
    CK_ECDH1_DERIVE_PARAMS {
        kdf,
        ulSharedDataLen: 64,
        pSharedData: ptr::without_provenance_mut(NOWHERE),
        ulPublicDataLen: 65,
        pPublicData: ptr::without_provenance_mut(NOWHERE),
    }
}

fn gcm(tag_bits: CK_ULONG) -> CK_GCM_PARAMS {
    CK_GCM_PARAMS {
        pIv: ptr::without_provenance_mut(NOWHERE),
        ulIvLen: 12,
        ulIvBits: 96,
        pAAD: ptr::without_provenance_mut(NOWHERE),
        ulAADLen: 64,
        ulTagBits: tag_bits,
    }
}

fn nothing_is_read_that_an_unsupported_mechanism_names(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (table, session) = (&own.raw.table, own.session);
    let mut inner = oaep(CKM_SHA256, CKG_MGF1_SHA256);
    let mut wrap = CK_RSA_AES_KEY_WRAP_PARAMS {
        ulAESKeyBits: 256,
        pOAEPParams: ptr::without_provenance_mut(NOWHERE),
    };
    let mut agreed = ecdh(CKD_SHA256_KDF);
    let mut sealed = gcm(128);
    let unsupported = Err(Code(CKR_MECHANISM_INVALID));
    for what in ["oaep", "wrap", "ecdh", "gcm", "cofactor"] {
        let mut by = match what {
            "oaep" => mechanism(CKM_RSA_PKCS_OAEP, &mut inner),
            "wrap" => mechanism(CKM_RSA_AES_KEY_WRAP, &mut wrap),
            "ecdh" => mechanism(CKM_ECDH1_DERIVE, &mut agreed),
            "gcm" => mechanism(CKM_AES_GCM, &mut sealed),
            _ => mechanism(CKM_ECDH1_COFACTOR_DERIVE, &mut agreed),
        };
        let by = &raw mut by;
        let (mut one, mut other) = (0, 0);
        let (one, other) = (&raw mut one, &raw mut other);
        let none = ptr::null_mut();
        assert_eq!(
            call!(table, C_SignInit(session, by, 1)).result(),
            unsupported,
            "{what}"
        );
        assert_eq!(
            call!(table, C_VerifyInit(session, by, 1)).result(),
            unsupported,
            "{what}"
        );
        assert_eq!(
            call!(table, C_DigestInit(session, by)).result(),
            unsupported,
            "{what}"
        );
        let made = call!(
            table,
            C_GenerateKeyPair(session, by, none, 0, ptr::null_mut(), 0, one, other)
        );
        assert_eq!(made.result(), unsupported, "{what}");
        if !matches!(what, "oaep" | "gcm") {
            assert_eq!(
                call!(table, C_EncryptInit(session, by, 1)).result(),
                unsupported,
                "{what}"
            );
            assert_eq!(
                call!(table, C_DecryptInit(session, by, 1)).result(),
                unsupported,
                "{what}"
            );
        }
        if what != "wrap" {
            let unwrapped = call!(
                table,
                C_UnwrapKey(session, by, 1, ptr::null_mut(), 0, ptr::null_mut(), 0, one)
            );
            assert_eq!(unwrapped.result(), unsupported, "{what}");
        }
        if matches!(what, "oaep" | "wrap" | "gcm") {
            let derived = call!(table, C_DeriveKey(session, by, 1, ptr::null_mut(), 0, one));
            assert_eq!(derived.result(), unsupported, "{what}");
        }
    }
    let wrong = Err(Code(CKR_MECHANISM_PARAM_INVALID));
    for (hash, mgf) in [
        (CKM_SHA224, CKG_MGF1_SHA1),
        (CKM_SHA256, CKG_MGF1_SHA224),
        (CKM_MD5, 0),
    ] {
        let mut inner = oaep(hash, mgf);
        let mut by = mechanism(CKM_RSA_PKCS_OAEP, &mut inner);
        let begun = call!(table, C_DecryptInit(session, &raw mut by, 1));
        assert_eq!(begun.result(), wrong, "{hash:#x} {mgf:#x}");
    }
    for tag_bits in [0, 64, 127, 256, CK_ULONG::MAX] {
        let mut sealed = gcm(tag_bits);
        let mut by = mechanism(CKM_AES_GCM, &mut sealed);
        let begun = call!(table, C_EncryptInit(session, &raw mut by, 1));
        assert_eq!(begun.result(), wrong, "{tag_bits}");
    }
    for kdf in [CKD_SHA224_KDF, 0, 0x7777] {
        let mut agreed = ecdh(kdf);
        let mut by = mechanism(CKM_ECDH1_DERIVE, &mut agreed);
        let mut key = 0;
        let (none, key) = (ptr::null_mut(), &raw mut key);
        let derived = call!(table, C_DeriveKey(session, &raw mut by, 1, none, 0, key));
        assert_eq!(derived.result(), wrong, "{kdf:#x}");
    }
}
