//! What the TPM says of itself, and what each of its persistent handles and NV indices was taken
//! for.

use super::Finding;
use crate::identity::device::{Device, FACTORY};
use crate::identity::status::TpmStatus;
use crate::tpm::{Hash, PublicArea, is_own_key, recognised};

const PERSISTENT: u32 = 0x8100_0000;
const NV: u32 = 0x0100_0000;

/// NV indices that somebody is known to use (TCG, Registry of Reserved TPM 2.0 Handles; makers of
/// clouds).
const NV_RANGES: [(u32, u32, &str); 8] = [
    (
        0x01C0_0002,
        0x01C0_002F,
        "an endorsement key's certificate, nonce or template",
    ),
    (
        0x01C0_0100,
        0x01C0_01FF,
        "certificates above an endorsement key's",
    ),
    (0x01C0_7F01, 0x01C0_7F04, "the policy of endorsement keys"),
    (0x01C0_8000, 0x01C0_8000, "the platform's certificate"),
    (
        0x01C1_0000,
        0x01C1_0003,
        "Google's attestation key: certificate or template",
    ),
    (
        0x01C1_01D0,
        0x01C1_01D0,
        "Azure's attestation key: certificate",
    ),
    (
        0x01C9_0010,
        0x01C9_001B,
        "the policy of device identity keys",
    ),
    (0x01C9_0000, 0x01C9_FFFF, "a device identity's certificate"),
];

pub(super) fn look_at(device: &Device, findings: &mut Vec<Finding>) {
    let about = "TPM";
    let tpm = &device.tpm;
    match TpmStatus::of(tpm) {
        Err(error) => {
            findings.push(Finding::problem(
                about,
                format!("{}: {error}", tpm.tcti()),
                "look at what is said of the TPM device above; dmesg | grep -i tpm".into(),
            ));
            return;
        }
        Ok(status) => {
            findings.push(Finding::ok(
                about,
                format!(
                    "{} {}, firmware {}",
                    status.maker, status.model, status.firmware
                ),
            ));
            lockout(&status, findings);
        }
    }
    abilities(device, findings);
    handles(device, findings);
    indices(device, findings);
    if let Ok(Some(false)) = device.own.master_is_held() {
        findings.push(Finding::problem(
            "master key",
            format!(
                "handle 0x{:08X} does not hold the key that wraps those of {}: the TPM was \
                 cleared or exchanged",
                device.config.master.handle,
                device.folder().display()
            ),
            "bring back the TPM, or devid reset --factory --yes".into(),
        ));
    }
}

fn lockout(status: &TpmStatus, findings: &mut Vec<Finding>) {
    let (counter, most) = (status.lockout_counter, status.lockout_at);
    let text = format!(
        "{counter} of {most} failed tries count; one is forgotten each {} s",
        status.lockout_interval
    );
    findings.push(match counter {
        0 => Finding::ok("lockout", text),
        counter if counter < most => Finding::note("lockout", text),
        _ => Finding::problem(
            "lockout",
            format!("{text}: the TPM is locked, and the factory identity cannot sign"),
            "wait, or tpm2_dictionarylockout --clear-lockout".into(),
        ),
    });
}

fn abilities(device: &Device, findings: &mut Vec<Finding>) {
    match device.tpm.hashes() {
        Ok(hashes) if !hashes.contains(&Hash::Sha256) => findings.push(Finding::problem(
            "TPM",
            "it does not know SHA-256".into(),
            "no key of ours can be made in this TPM; use another".into(),
        )),
        Ok(hashes) => {
            let names: Vec<String> = hashes.iter().map(|hash| format!("{hash:?}")).collect();
            findings.push(Finding::ok("TPM", format!("it knows {}", names.join(", "))));
        }
        Err(error) => findings.push(Finding::note("TPM", error.to_string())),
    }
}

/// What each persistent handle was taken for.
fn handles(device: &Device, findings: &mut Vec<Finding>) {
    let about = "handle";
    let handles = match device.tpm.handles(PERSISTENT) {
        Ok(handles) => handles,
        Err(error) => return findings.push(Finding::note(about, error.to_string())),
    };
    let contents = device.contents();
    let orphans = device.orphans().unwrap_or_default();
    for handle in handles {
        let known = contents.entities.iter().find(|one| {
            one.key
                .as_ref()
                .is_some_and(|key| key.handle() == Some(handle))
        });
        let shown = format!("0x{handle:08X}");
        if let Some(known) = known {
            let whose = match known.token.as_str() {
                FACTORY => "factory identity",
                _ => "key of ours",
            };
            findings.push(Finding::ok(
                about,
                format!("{shown}: {whose} {}", known.label),
            ));
            continue;
        }
        if orphans.iter().any(|orphan| orphan.0.handle == handle) {
            findings.push(Finding {
                mend: Some(format!("tpm2_evictcontrol -C o -c {shown}")),
                ..Finding::note(about, format!("{shown}: a key of ours whose file is gone"))
            });
            continue;
        }
        let area = match device.tpm.resident_key(handle) {
            Ok((area, _)) => area,
            Err(error) => {
                findings.push(Finding::note(about, format!("{shown}: {error}")));
                continue;
            }
        };
        let what = taken_for(handle, &area, device.config.master.handle);
        findings.push(Finding::ok(about, format!("{shown}: {what}")));
    }
}

fn taken_for(handle: u32, area: &[u8], master: u32) -> String {
    let Some(parsed) = PublicArea::parse(area) else {
        return "of a kind that is not used here".into();
    };
    if handle == master && parsed.is_storage_key() {
        return "the master key".into();
    }
    let key = &parsed.key;
    match handle {
        0x8100_0001 | 0x8100_0002 if parsed.is_storage_key() => {
            format!("storage root key, {key}")
        }
        0x8101_0000..=0x8101_FFFF if parsed.is_storage_key() => format!("endorsement key, {key}"),
        _ if parsed.is_storage_key() => format!("a storage key, {key}"),
        _ if parsed.attests() => format!(
            "an attestation key, {key}: it signs only what the TPM made, so it is of no use to TLS \
             and not used (clouds have such keys)"
        ),
        _ => match recognised(area) {
            Some(template) => {
                format!("made from the factory template {template}, but no certificate is for it")
            }
            None if is_own_key(area) => format!("a signing key like ours, {key}"),
            None if parsed.is_identity() => {
                format!("could be an identity, {key}, but no certificate is for it")
            }
            None => format!("{key}, somebody else's"),
        },
    }
}

/// What each NV index was taken for.
fn indices(device: &Device, findings: &mut Vec<Finding>) {
    let about = "NV index";
    let indices = match device.tpm.handles(NV) {
        Ok(indices) => indices,
        Err(error) => return findings.push(Finding::note(about, error.to_string())),
    };
    for index in indices {
        let ours = device.config.provision.nv_index == Some(index);
        let known = NV_RANGES
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&index));
        let what = match (ours, known) {
            (true, _) => "the copy of the device's own certificate",
            (false, Some((_, _, what))) => what,
            (false, None) => "somebody else's",
        };
        findings.push(Finding::ok(about, format!("0x{index:08X}: {what}")));
    }
}
