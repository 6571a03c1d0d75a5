//! ESAPI of libtss2 as an independent check: its own commands confirm the module's attributes and
//! signatures of a key.
#![cfg(all(feature = "tss", target_pointer_width = "64"))]

use cryptoki_sys::*;
use testkit::devid::{Bench, Kind, Own, TPM_HANDLE, TPM_PUBLIC};
use testkit::link::Link;
use testkit::openssl::digest;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::{KeyHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Digest, EccSignature, HashScheme, HashcheckTicket, Signature, SignatureScheme,
};
use tss_esapi::traits::Marshall;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;
use tss_esapi::{Context, TctiNameConf};

over_our_transport!(a_key_and_its_signatures);

const DATA: &[u8] = b"judged by ESAPI";

fn a_key_and_its_signatures(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let key = own.make_persistent(Kind::P256, "key").unwrap().private;
    let handle = own.attribute(key, TPM_HANDLE);
    let handle = CK_ULONG::from_ne_bytes(handle.try_into().unwrap());
    let signature = own.sign_data(key, DATA).unwrap();

    let conf: TctiNameConf = bench.tpm.tcti().parse().unwrap();
    let mut esapi = Context::new(conf).unwrap();
    let handle = TpmHandle::try_from(u32::try_from(handle).unwrap()).unwrap();
    let object = esapi.tr_from_tpm_public(handle).unwrap();
    let (area, ..) = esapi.read_public(KeyHandle::from(object)).unwrap();
    assert_eq!(area.marshall().unwrap(), own.attribute(key, TPM_PUBLIC));

    let hashed = Digest::try_from(digest("-sha256", DATA)).unwrap();
    let (r, s) = signature.split_at(32);
    let (r, s) = (r.try_into().unwrap(), s.try_into().unwrap());
    let ours = EccSignature::create(HashingAlgorithm::Sha256, r, s).unwrap();
    let ours = Signature::EcDsa(ours);
    let judged = esapi.verify_signature(KeyHandle::from(object), hashed.clone(), ours);
    judged.expect("TPM2_VerifySignature");

    let scheme = SignatureScheme::EcDsa {
        hash_scheme: HashScheme::new(HashingAlgorithm::Sha256),
    };
    let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    });
    let theirs = esapi.execute_with_session(Some(AuthSession::Password), |esapi| {
        esapi.sign(KeyHandle::from(object), hashed, scheme, ticket.unwrap())
    });
    let Signature::EcDsa(theirs) = theirs.unwrap() else {
        panic!("an ECDSA signature");
    };
    let half = |value: &[u8]| [&vec![0; 32 - value.len()][..], value].concat();
    let theirs = [
        half(theirs.signature_r().value()),
        half(theirs.signature_s().value()),
    ];
    own.judge(key).accepts(DATA, &theirs.concat()).ok();
}
