//! Checks the TPM: its maker, lockout, algorithms, and free space.

use super::{Finding, handles};
use crate::identity::device::Device;
use crate::identity::free_name::free_name;
use crate::identity::remedy::Remedy;
use crate::identity::status::TpmStatus;
use crate::key::Curve;
use crate::shell::word;
use crate::store::{Advised, WAIT};
use crate::tpm::{CLEARED_OR_EXCHANGED, Hash, KeyAlgorithm, Property, SRK, Tcti, TpmError, handle};

/// The number of free persistent handles that the TPM needs to hold a device key.
const FEWEST_FREE: u32 = 2;

pub(super) fn check(device: &Device, findings: &mut Vec<Finding>) {
    let about = "TPM";
    let tpm = &device.tpm;
    match TpmStatus::read(tpm) {
        Err(error @ TpmError::Busy(_)) => {
            findings.push(Finding::problem(
                "tpm.busy",
                about,
                Advised(&error).to_string(),
                Remedy::by_hand("Wait until the other key is made, then run devid doctor again"),
            ));
            return;
        }
        Err(error) => {
            findings.push(Finding::problem(
                "tpm.silent",
                about,
                format!("{}: {}", tpm.tcti(), Advised(&error)),
                unanswered(tpm.tcti(), &error),
            ));
            return;
        }
        Ok(status) => {
            findings.push(Finding::ok(
                "tpm",
                about,
                format!(
                    "{} {}, firmware {}",
                    status.maker, status.model, status.firmware
                ),
            ));
            findings.push(lockout(device, &status));
        }
    }
    findings.extend(owner(device));
    findings.push(abilities(device).unwrap_or_else(|error| {
        Finding::note("tpm.abilities-unknown", "TPM", Advised(&error).to_string())
    }));
    findings.extend(room(device).ok());
    findings.extend(slots(device));
    handles::check(device, findings);
    findings.extend(root(device));
    findings.extend(master(device));
}

fn unanswered(tcti: &Tcti, error: &TpmError) -> Remedy {
    match (tcti, error) {
        (_, TpmError::Timeout(_)) => Remedy::by_hand(
            "Find out why the TPM does not answer: its device, its driver, or the program behind the \
             socket. If it answers, but takes longer, raise timeout_ms in config.toml",
        ),
        (Tcti::Device(_), _) => Remedy::by_command(
            "See the finding about the TPM device above, or read the messages of the kernel",
            "dmesg | grep -i tpm",
        ),
        _ => Remedy::by_hand("Start the TPM, or correct tcti in config.toml"),
    }
}

fn lockout(device: &Device, status: &TpmStatus) -> Finding {
    let about = "lockout";
    let (counter, most) = (status.lockout_counter, status.lockout_at);
    let text = format!(
        "the TPM counts {counter} of {most} failed tries; it forgets one every {} s",
        status.lockout_interval
    );
    let clear = || Remedy::by_command(WAIT, device.config.tcti.clearing_lockout());
    match counter {
        0 => Finding::ok("tpm.lockout", about, text),
        counter if counter < most => {
            Finding::note("tpm.lockout-counts", about, text).with_remedy(clear())
        }
        _ => Finding::problem(
            "tpm.lockout-locked",
            about,
            format!("{text}: the TPM is in lockout, so factory keys cannot sign"),
            clear(),
        ),
    }
}

/// Finds an owner hierarchy whose authorisation value is not configured.
fn owner(device: &Device) -> Option<Finding> {
    const OWNER_AUTH_SET: u32 = 1;
    let permanent = device.tpm.property(Property::Permanent).ok()??;
    let asks = permanent & OWNER_AUTH_SET != 0;
    match device.own.owner_auth() {
        Ok(value) if asks && value.is_empty() => Some(Finding::problem(
            "tpm.owner-asks",
            "TPM",
            "the owner hierarchy has an authorisation value that is not configured, so no key can \
             be made persistent"
                .into(),
            Remedy::by_hand(
                "Put the value into a file that only root can read, and set owner_auth = \
                 \"file:/PATH\" under [master] in config.toml",
            ),
        )),
        Ok(_) => None,
        Err(error) => Some(Finding::problem(
            "tpm.owner-unreadable",
            "TPM",
            error.to_string(),
            Remedy::by_hand(
                "Correct owner_auth under [master] in config.toml, or the secret that this setting \
                 names",
            ),
        )),
    }
}

/// Lists the hashes, curves and RSA sizes of the TPM that the module uses.
fn abilities(device: &Device) -> Result<Finding, TpmError> {
    let tpm = &device.tpm;
    let hashes = tpm.algorithms()?.hashes();
    let mut all: Vec<String> = hashes.iter().map(|hash| format!("{hash:?}")).collect();
    for curve in [Curve::P256, Curve::P384, Curve::P521] {
        if tpm.implements(KeyAlgorithm::Ec(curve))? {
            all.push(format!("{curve:?}"));
        }
    }
    for bits in [2048, 3072, 4096] {
        if tpm.implements(KeyAlgorithm::Rsa(bits))? {
            all.push(format!("RSA-{bits}"));
        }
    }
    let text = format!("it supports {}", all.join(", "));
    let needed = hashes.contains(&Hash::Sha256) && all.iter().any(|one| one == "P256");
    Ok(match needed {
        true => Finding::ok("tpm.abilities", "TPM", text),
        false => Finding::problem(
            "tpm.unfit",
            "TPM",
            format!(
                "{text}. Without SHA-256 and P-256, the TPM cannot hold own keys of the device"
            ),
            Remedy::by_hand(
                "Use another TPM. Or use a software identity: set fallback = \"software\" under \
                 [provision] in config.toml, and remove tcti for this TPM",
            ),
        ),
    })
}

/// Counts the used and the free persistent handles. No TPM reports its free NV memory.
fn room(device: &Device) -> Result<Finding, TpmError> {
    let tpm = &device.tpm;
    let taken = tpm.handles(handle::PERSISTENT)?.len();
    let counted = tpm.property(Property::Persistent)?;
    // If the TPM reports a wrong number of used handles, its number of free handles is wrong too.
    let counts = counted.is_some_and(|counted| usize::try_from(counted) == Ok(taken));
    let free = tpm.property(Property::PersistentRoom)?.filter(|_| counts);
    let of_index = match tpm.property(Property::NvIndexMax)? {
        Some(most) => format!("an NV index holds at most {most} bytes"),
        None => "the TPM does not report how many bytes an NV index holds".into(),
    };
    let room = match free {
        Some(free) => format!("{free} more keys fit into the TPM"),
        None => "the TPM does not report how many more keys fit".into(),
    };
    let text = format!("{taken} persistent handles are in use, and {room}; {of_index}");
    Ok(match free {
        Some(..FEWEST_FREE) => {
            Finding::note("tpm.room-short", "TPM", text).with_remedy(Remedy::by_hand(
                "The owners of unknown handles below may evict their keys (tpm2_evictcontrol). The \
                 handles of devid are in use",
            ))
        }
        _ => Finding::ok("tpm.room", "TPM", text),
    })
}

/// Finds that all object slots of the TPM are in use, if programs share the TPM without a resource
/// manager.
fn slots(device: &Device) -> Option<Finding> {
    /// The smallest number of object slots that a TPM must have (PC Client Platform TPM Profile).
    const FEWEST: usize = 3;
    if device.config.tcti.is_managed() {
        return None;
    }
    let loaded = device.tpm.handles(handle::TRANSIENT).ok()?.len();
    let finding = Finding::problem(
        "tpm.slots-full",
        "TPM",
        format!(
            "{loaded} objects are loaded in the few slots of the TPM, without a resource manager. \
             If a killed program left these objects, other programs cannot load keys"
        ),
        Remedy::by_command(
            "If no program uses the TPM now, run this command (a running program must load its \
             keys again)",
            device
                .config
                .tcti
                .tool("tpm2_flushcontext --transient-object"),
        ),
    );
    (loaded >= FEWEST).then_some(finding)
}

/// Checks that the TPM's storage root key is the key that the file `.storage-root` records. Keys
/// below the master key do not need the storage root key.
fn root(device: &Device) -> Option<Finding> {
    let about = "storage root key";
    match device.tpm.has_other_root() {
        Ok(false) => None,
        Ok(true) => {
            let path = device.tpm.root().path();
            let remedy = Remedy::to_free_name(
                "Find the cause. Only if you know the cause, trust the current storage root key of \
                 the TPM with",
                &[&path],
                free_name(&path, "old"),
                |aside| format!("mv -T {} {}", word(&path), word(aside)),
            );
            let text = format!(
                "handle 0x{SRK:08X} holds another storage root key than {} records, or none: the \
                 TPM {CLEARED_OR_EXCHANGED}, another program changed the handle, or an attacker is \
                 between this program and the TPM. Keys below the present master key can be used, \
                 but no new master key is made",
                path.display()
            );
            Some(Finding::problem("tpm.root-other", about, text, remedy))
        }
        Err(error) => Some(Finding::note(
            "tpm.root-unknown",
            about,
            Advised(&error).to_string(),
        )),
    }
}

/// Checks that the TPM holds the master key.
fn master(device: &Device) -> Option<Finding> {
    let about = "master key";
    match device.master_fault(device.observe().ok().as_ref()) {
        Ok(None) => None,
        Ok(Some(said)) => Some(Finding::problem(said.id, about, said.text, said.remedy)),
        Err(fault) => Some(Finding::note("master-key.unknown", about, fault.text)),
    }
}
