//! Operations of devid-core with a TPM whose answers have the right form but any content.
#![no_main]

use devid_core::config::Config;
use devid_core::evidence::leaving_nothing;
use devid_core::identity::{Device, IdentityError};
use devid_core::key::{Curve, PublicKey};
use devid_core::store::Store;
use devid_core::store::devid::DevidStore;
use devid_core::store::idevid::IdevidStore;
use devid_core::tpm::{AuthValue, KeyAlgorithm, KeyPurpose, Property, Refusals};
use devid_fuzz::answers::{GENERATOR, Script};
use devid_fuzz::bytes::Bytes;
use devid_fuzz::host;
use devid_fuzz::memory::Installed;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const CERTIFICATES: &[&[u8]] = &[
    include_bytes!("../../core/testdata/leaf.pem"),
    include_bytes!("../../core/testdata/ca.pem"),
    include_bytes!("../../core/testdata/shapes/rdn-multi-unsorted.der"),
    include_bytes!("../../core/testdata/shapes/enc-ber-longlen.der"),
];
const SRK: u32 = 0x8100_0001;
const INDEX: u32 = 0x01C9_0000;

fuzz_target!(|data: &[u8]| {
    let mut choices = Bytes::new(data);
    let operation = choices.below(20);
    let config = host::config("timeout_ms = 300000\ngeneration_timeout_ms = 300000\n");
    let mut script = Script::new(choices, CERTIFICATES);
    let _tpm = Installed::new(Box::new(move |command| script.answer(command)));
    run(operation, config);
});

fn run(operation: usize, config: Config) {
    let tpm = Arc::new(config.tpm(Refusals::default()));
    let open = AuthValue::default();
    let value = || AuthValue::new(vec![7; 32].into());
    let usage = KeyPurpose {
        signs: true,
        decrypts: false,
    };
    match operation {
        0 => drop(IdevidStore::new(&config, tpm).find()),
        1 => drop(Store::Factory(IdevidStore::new(&config, tpm)).scan()),
        2 => {
            let _ = (
                tpm.algorithms(),
                tpm.property(Property::NvBufferMax),
                tpm.lockout(),
            );
        }
        3 => drop(tpm.handles(INDEX).and(tpm.handles(0x8100_0000))),
        4 => {
            let mut room = [0; 100];
            let _ = tpm.random(&mut room);
        }
        5 => drop(tpm.nv_content(INDEX, &open)),
        6 => drop(tpm.nv_store(INDEX, &[9; 1500], &open)),
        7 => {
            let key = PublicKey::from_coordinates(Curve::P256, GENERATOR.0, GENERATOR.1);
            let _ = tpm.find_primary_key(&key.expect("a point"), None);
        }
        8 => drop(tpm.salt_key().and_then(|_| tpm.nv_read(INDEX, 900))),
        9 => drop(tpm.make_storage_key(0x8100_0100, &value())),
        10..=13 => {
            let Ok(Some(parent)) = tpm.storage_key(SRK) else {
                return;
            };
            let secret = vec![1; 32].into();
            let made = match operation {
                10 => tpm.create_key(&parent, &secret, KeyAlgorithm::Ec(Curve::P256), usage),
                11 => tpm.seal(&parent, &secret, &vec![2; 32].into(), true),
                12 => tpm.create_key(&parent, &secret, KeyAlgorithm::Rsa(2048), usage),
                _ => {
                    let _ = tpm.is_primary(&parent);
                    return;
                }
            };
            if let Ok(made) = made {
                let _ = tpm.unseal(&made, &value());
                let _ = tpm.persist(&made, 0x8100_0200, &open);
            }
        }
        14 => drop(Device::new(config).status()),
        15 => drop(Device::new(config).tree()),
        16 => drop(Store::Factory(IdevidStore::of_owner(&config, tpm)).scan()),
        17 => {
            for store in DevidStore::all(&config, &tpm) {
                let _ = (
                    store.scan(),
                    store.keys_in_handles(),
                    store.master_is_held(),
                );
            }
        }
        18 => {
            let device = Device::new(config);
            if let Ok(entry) = device.find("idev-id") {
                let _ = device.describe(&entry);
            }
        }
        _ => {
            let swept: Result<(), IdentityError> = leaving_nothing(&Device::new(config), || Ok(()));
            drop(swept);
        }
    }
}
