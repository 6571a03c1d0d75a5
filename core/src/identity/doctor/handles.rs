//! Tells for each persistent handle and NV index which key or certificate it holds. Uses the
//! factory store, the key folders, and the numbers and types of unknown objects.

use super::Finding;
use crate::identity::Inventory;
use crate::identity::device::Device;
use crate::identity::entry::{FACTORY, OWN, TokenEntry};
use crate::identity::orphan::Orphan;
use crate::identity::remedy::Remedy;
use crate::store::idevid::NvFinding;
use crate::tpm::{PublicArea, handle, is_device_key, other_kind, template_name};
use crate::x509::Certificate;
use std::collections::HashMap;

const HANDLE: &str = "handle";
const INDEX: &str = "NV index";

/// The NV indices that other programs use (TCG, Registry of Reserved TPM 2.0 Handles; cloud
/// providers).
const RESERVED: [(u32, u32, &str); 7] = [
    (
        0x01C0_0002,
        0x01C0_002F,
        "the certificate, nonce or template of an endorsement key",
    ),
    (
        0x01C0_0100,
        0x01C0_01FF,
        "the CA certificates above an endorsement key's certificate",
    ),
    (0x01C0_7F01, 0x01C0_7F04, "the policy of endorsement keys"),
    (0x01C0_8000, 0x01C0_8000, "the platform certificate"),
    (
        0x01C1_0000,
        0x01C1_0003,
        "the certificate or template of Google's attestation key",
    ),
    (
        0x01C1_01D0,
        0x01C1_01D0,
        "the certificate of Azure's attestation key",
    ),
    (
        0x01C9_0010,
        0x01C9_001B,
        "the policy of device identity keys",
    ),
];

pub(super) fn check(device: &Device, findings: &mut Vec<Finding>) {
    let inventory = device.inventory();
    let list = |first| device.tpm.handles(first);
    match list(handle::PERSISTENT) {
        Ok(handles) => {
            let look = Handles {
                device,
                inventory: &inventory,
                orphans: device.orphans().unwrap_or_default(),
            };
            findings.extend(handles.into_iter().map(|handle| look.at(handle)));
        }
        Err(error) => findings.push(Finding::note("handle.unknown", HANDLE, error.to_string())),
    }
    match list(handle::NV_INDEX) {
        Ok(indices) => {
            let looked = device.factory.indices(&device.tpm).unwrap_or_default();
            let looked: HashMap<u32, NvFinding> = looked.into_iter().collect();
            for index in indices {
                let found = match (device.config.provision.nv_index, looked.get(&index)) {
                    (Some(ours), _) if ours == index => the_copy(device, &inventory),
                    (_, Some(taken)) => taken_as(taken, &inventory, index),
                    (_, None) => Finding::ok("nv.foreign", INDEX, reserved(index, "not read")),
                };
                let shown = format!("0x{index:08X}");
                let text = format!("{shown}: {}", found.text);
                findings.push(Finding { text, ..found }.about_object(shown));
            }
        }
        Err(error) => findings.push(Finding::note("nv.unknown", INDEX, error.to_string())),
    }
}

impl Device {
    /// Describes the object in a persistent handle.
    pub(in crate::identity) fn describe_handle(&self, handle: u32) -> String {
        let look = Handles {
            device: self,
            inventory: &self.inventory(),
            orphans: Vec::new(),
        };
        look.taken(handle).text
    }
}

struct Handles<'a> {
    device: &'a Device,
    inventory: &'a Inventory,
    /// The keys with the template of device keys in handles that no file names.
    orphans: Vec<Orphan>,
}

impl Handles<'_> {
    fn at(&self, handle: u32) -> Finding {
        let shown = format!("0x{handle:08X}");
        let found = self.taken(handle);
        let text = format!("{shown}: {}", found.text);
        Finding { text, ..found }.about_object(shown)
    }

    fn taken(&self, handle: u32) -> Finding {
        let ok = |id, text| Finding::ok(id, HANDLE, text);
        let at_handle = |one: &&TokenEntry| {
            let key = one.key.as_ref();
            key.is_some_and(|key| key.handle() == Some(handle))
        };
        if let Some(known) = self.inventory.entries.iter().find(at_handle) {
            return match known.token.as_str() {
                FACTORY => ok(
                    "handle.factory",
                    format!("factory identity {}", known.label),
                ),
                _ if self.device.lives_in_handle_alone(known) => Finding::note(
                    "handle.alone",
                    HANDLE,
                    format!(
                        "key {} of this device: only this handle holds the key, because the master \
                         key that wrapped its file is lost",
                        known.label
                    ),
                )
                .with_remedy(Remedy::by_hand("Do not change the handle")),
                _ => ok("handle.own", format!("key {} of this device", known.label)),
            };
        }
        if self.orphans.iter().any(|orphan| orphan.0.handle == handle) {
            let text = "a key of this device whose file is missing: only this handle holds the key";
            return Finding::note("handle.orphan", HANDLE, text.into()).with_remedy(Remedy::by_hand(format!(
                "Restore the file of the key in {} from a backup. Do not evict the key from the \
                 handle: an evicted key is lost for ever",
                self.device.folder().display()
            )));
        }
        let area = match self.device.tpm.persistent_key(handle) {
            Ok((area, _)) => area,
            Err(error) => return Finding::note("handle.unknown", HANDLE, error.to_string()),
        };
        match PublicArea::parse(&area) {
            None => {
                let kind = other_kind(&area);
                ok(
                    "handle.foreign",
                    format!("an object of a type that devid does not support: {kind}"),
                )
            }
            Some(parsed) => self.by_kind(handle, &area, &parsed),
        }
    }

    /// Returns the finding for a handle whose object devid does not know, by the type of the
    /// object.
    fn by_kind(&self, handle: u32, area: &[u8], parsed: &PublicArea) -> Finding {
        let ok = |id, text| Finding::ok(id, HANDLE, text);
        let key = &parsed.key;
        if parsed.is_storage_key() {
            let master = handle == self.device.config.master.handle;
            return match (handle, master) {
                (_, true) if self.device.own.master_is_held() == Ok(Some(true)) => {
                    ok("handle.master", "the master key".into())
                }
                (_, true) => Finding::note(
                    "handle.master-unknown",
                    HANDLE,
                    format!(
                        "a storage key, {key}, in the handle of the master key, but {} has no \
                         record of it",
                        self.device.folder().display()
                    ),
                ),
                (handle::SRK | handle::SECOND_SRK, _) => {
                    ok("handle.root", format!("storage root key, {key}"))
                }
                (at, _) if handle::ENDORSEMENT_KEYS.contains(&at) => {
                    ok("handle.endorsement", format!("endorsement key, {key}"))
                }
                _ => ok("handle.foreign", format!("a storage key, {key}")),
            };
        }
        let of_key = |one: &&TokenEntry| one.public.as_ref() == Some(key);
        let certified = self.inventory.entries.iter().find(of_key);
        let what = match certified {
            Some(one) => format!("the key belongs to the certificate {}", one.label),
            None if self.inventory.entries.iter().any(is_not_understood) => {
                "its certificate is unknown, because a certificate of this device has a key of a \
                 type or encoding that is not supported"
                    .into()
            }
            None => "no known certificate is for this key".into(),
        };
        if parsed.attests() {
            return ok(
                "handle.attestation",
                format!(
                    "an attestation key, {key}; {what}. It signs only data that the TPM created, \
                     so TLS cannot use it (TPMs of clouds have such keys)"
                ),
            );
        }
        match template_name(area) {
            Some(template) => Finding::note(
                "handle.uncertified",
                HANDLE,
                format!("a key from the factory template {template}; {what}"),
            ),
            None if is_device_key(area) => ok(
                "handle.foreign",
                format!("a signing key of type {key}, made from the template of device keys"),
            ),
            None if parsed.is_identity() => Finding::note(
                "handle.uncertified",
                HANDLE,
                format!("a key that may be an identity, {key}; {what}"),
            ),
            None => ok(
                "handle.foreign",
                format!("a key of another program, {key}; {what}"),
            ),
        }
    }
}

/// Returns true for a certificate whose key has a type that is not supported.
fn is_not_understood(entry: &TokenEntry) -> bool {
    entry.public.is_none() && entry.key.is_none() && !entry.certificates.is_empty()
}

/// Returns the finding for an NV index that the factory store has read.
fn taken_as(taken: &NvFinding, inventory: &Inventory, index: u32) -> Finding {
    match taken {
        NvFinding::TooSmall => Finding::ok(
            "nv.foreign",
            INDEX,
            reserved(index, "too small to hold a certificate"),
        ),
        NvFinding::ContinuationOf(first) => Finding::ok(
            "nv.continuation",
            INDEX,
            format!("the continuation of index 0x{first:08X}"),
        ),
        NvFinding::Nothing(why) => Finding::note(
            "nv.nothing",
            INDEX,
            format!(
                "in the range for certificates of identities, but without a usable certificate: \
                 {why}"
            ),
        ),
        NvFinding::Certificates(all) => {
            let labels: Vec<String> = all.iter().map(|one| label_of(one, inventory)).collect();
            Finding::ok(
                "nv.certificate",
                INDEX,
                format!("certificate {}", labels.join(", ")),
            )
        }
    }
}

fn label_of(certificate: &Certificate, inventory: &Inventory) -> String {
    let has = |one: &&TokenEntry| {
        let mut placed = one.certificates.iter();
        placed.any(|placed| placed.certificate == *certificate)
    };
    let shown = inventory.entries.iter().find(has);
    shown.map_or_else(
        || format!("of {}, which no token shows", certificate.subject()),
        |one| one.label.clone(),
    )
}

/// Returns the finding for the NV index with the copy of the certificate `devid`.
fn the_copy(device: &Device, inventory: &Inventory) -> Finding {
    let elsewhere =
        || Remedy::by_hand("Set nv_index to another index under [provision] in config.toml");
    let copy = match device.nv_copy() {
        Ok(copy) => copy,
        Err(error) => {
            return Finding::problem("nv.unknown", INDEX, error.text, elsewhere());
        }
    };
    if copy.as_ref().is_some_and(|copy| !copy.is_ours) {
        let text = "another program uses this index, so it holds no copy of the own certificate";
        return Finding::note("nv.not-ours", INDEX, text.into()).with_remedy(elsewhere());
    }
    let write = || {
        Remedy::by_command(
            "The next start writes the copy; to write it now, run",
            "devid provision",
        )
    };
    let own = inventory
        .entries
        .iter()
        .find(|one| one.protected && one.token == OWN);
    let too_large = own
        .and_then(TokenEntry::certificate)
        .map(|own| device.copy_too_large(own));
    if let Some(Ok(Some(why))) = too_large {
        return Finding::note("nv.too-large", INDEX, why);
    }
    let Some(certificate) = copy.and_then(|copy| copy.certificate) else {
        let text = "the configuration requests a copy of the own certificate, but the index holds \
                    none";
        return Finding::note("nv.copy-bad", INDEX, text.into()).with_remedy(write());
    };
    let of_key = |one: &&TokenEntry| {
        one.token != FACTORY && one.key.is_some() && one.public == certificate.public_key()
    };
    match inventory.entries.iter().find(of_key) {
        Some(_) => Finding::ok("nv.copy", INDEX, "the copy of the own certificate".into()),
        None => Finding::problem(
            "nv.stray",
            INDEX,
            format!(
                "the certificate of {}, but no file names its key",
                certificate.subject()
            ),
            Remedy::by_hand(format!(
                "Restore the file of the key in {} from a backup. Or set nv_index to another index \
                 under [provision] in config.toml",
                device.folder().display()
            )),
        ),
    }
}

fn reserved(index: u32, how: &str) -> String {
    let known = RESERVED
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&index));
    match known {
        Some((_, _, what)) => format!("{how}; this index is reserved for {what}"),
        None => format!("{how}; another program uses this index"),
    }
}
