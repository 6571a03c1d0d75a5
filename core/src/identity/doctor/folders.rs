//! Checks the state folder and the key folders. Finds wrong permissions, files that hold no valid
//! object, and files of keys that were lost or replaced.

use super::Finding;
use crate::accounts::{group_name, group_number, user_name};
use crate::config::not_read;
use crate::identity::IdentityError;
use crate::identity::device::Device;
use crate::identity::entry::OWN;
use crate::identity::permissions::{for_open_folder, for_unread_file};
use crate::identity::permissions::{is_member, membership, missing_permission};
use crate::identity::provision::{LOCK, provision_lock};
use crate::identity::remedy::Remedy;
use crate::identity::software::Software;
use crate::shell::word;
use crate::store::devid::{DevidStore, StoreError};
use crate::store::folder::FolderError;
use crate::trouble::is_there;
use crate::x509::Certificate;
use rustix::fs::{Access, access, stat};
use rustix::process::geteuid;
use std::path::Path;

const STATE: &str = "state folder";
const KEYS: &str = "key folder";
const GROUP: &str = "devid";

pub(super) fn check(device: &Device, findings: &mut Vec<Finding>) {
    let state = device.config.state.as_path();
    findings.push(state_folder(state));
    findings.extend(group());
    if let Some(what) = provision_lock(state) {
        let path = state.join(LOCK);
        let text = format!(
            "{}: {what}, so devid provision does nothing",
            path.display()
        );
        findings.push(in_the_way("state.in-the-way", STATE, text, &path));
    }
    for store in device.stores() {
        for (name, what) in store.in_the_way() {
            let path = store.path().join(name);
            let text = format!("{}: {what}", path.display());
            findings.push(in_the_way("keys.in-the-way", KEYS, text, &path));
        }
        // For a folder outside of the state folder, the administrator may have given another group
        // read access.
        if store.name() == OWN || store.path().starts_with(state) {
            findings.extend(readers(state, store.path()));
        }
        findings.extend(lost(store));
        files(store, findings);
        unusable(store, findings);
    }
    let retired = Software::in_state(state).retired().unwrap_or_default();
    if !retired.is_empty() {
        let text = format!(
            "{} files of the software identity that the device used before it moved to the TPM",
            retired.len()
        );
        findings.push(
            Finding::note("keys.retired", KEYS, text).with_remedy(Remedy::by_hand(
                "devid prune deletes these files for ever; run it when they are not needed any more",
            )),
        );
    }
    let read = device
        .stores()
        .flat_map(|store| device.token_contents(store));
    let issuer = |one: Option<&Certificate>| one.is_some_and(Certificate::is_ca);
    for one in read.flat_map(|read| read.entries) {
        if one.has_key() || issuer(one.certificate()) {
            continue;
        }
        let called = match one.token.as_str() {
            OWN => one.label,
            token => format!("{token}/{}", one.label),
        };
        let text = format!("{called}: the token has this certificate, but not its key");
        findings.push(Finding::note("keys.lone-certificate", KEYS, text).about_object(called));
    }
}

/// Returns the finding for a file of another program that has the name of a file of devid. The
/// purpose of the file is unknown.
fn in_the_way(id: &'static str, about: &'static str, text: String, path: &Path) -> Finding {
    let remedy = Remedy::by_hand(
        "Check who made this file, and for which purpose. Then remove it from the folder, without \
         following symbolic links",
    );
    Finding::problem(id, about, text, remedy).about_object(path.display().to_string())
}

/// Finds the files of a token that hold no valid object. If the folder cannot be read, reports the
/// reason.
fn files(store: &DevidStore, findings: &mut Vec<Finding>) {
    let path = store.path();
    match store.refused_files() {
        Ok(refused) => {
            let refused = refused.into_iter();
            findings.extend(left_out(store));
            findings.extend(refused.map(|one| {
                let file = path.join(&one.file);
                let said = file.display().to_string();
                let text = format!("{said}: {}", one.why);
                let remedy = for_unread_file(path, &file, one.by_content);
                Finding::problem("keys.file", KEYS, text, remedy).about_object(said)
            }));
        }
        Err(error) => {
            let remedy = unlisted(path, &error);
            let finding = Finding::problem(
                "keys.unreadable",
                KEYS,
                IdentityError::from(error).text,
                remedy,
            );
            findings.push(finding.about_object(path.display().to_string()));
        }
    }
}

/// Finds the files of keys that were lost with a former master key.
fn lost(store: &DevidStore) -> Option<Finding> {
    let lost = store.lost_files().unwrap_or_default();
    let first = lost.first()?.display().to_string();
    let text = format!(
        "{} files of keys that were lost with a former master key; the first file is {first}",
        lost.len()
    );
    let remedy = Remedy::by_hand("devid prune deletes these files for ever");
    Some(
        Finding::note("keys.lost", KEYS, text)
            .about_object(store.path().display().to_string())
            .with_remedy(remedy),
    )
}

/// Returns the remedy for a key folder that cannot be listed.
fn unlisted(folder: &Path, error: &StoreError) -> Remedy {
    if let StoreError::Folder(FolderError::Unsafe { path, .. }) = error {
        return for_open_folder(path);
    }
    let denied = missing_permission(folder, Access::READ_OK | Access::EXEC_OK);
    denied.unwrap_or_else(|| {
        Remedy::by_hand(
            "Check the folder: this user must be able to list it. If the error was temporary, no \
             step is needed",
        )
    })
}

/// Finds keys that cannot be used, although their files can be read.
fn unusable(store: &DevidStore, findings: &mut Vec<Finding>) {
    let all = store.unusable_keys().unwrap_or_default();
    findings.extend(all.into_iter().map(|one| {
        let file = store.file(&one.name).display().to_string();
        let remedy = match one.is_damaged {
            true => for_unread_file(store.path(), &store.file(&one.name), true),
            false => Remedy::by_hand(
                "Other keys are not affected. Remove the cause, or move this file out of the folder",
            ),
        };
        Finding::problem("keys.unusable", KEYS, one.why, remedy).about_object(file)
    }));
}

/// Finds files in a key folder that are ignored because their names do not end in `.pem`. Finds no
/// file if the folder cannot be listed.
fn left_out(store: &DevidStore) -> impl Iterator<Item = Finding> {
    let names = store.left_out_files().unwrap_or_default().into_iter();
    names.map(|name| {
        let path = store.path().join(name);
        let remedy = Remedy::by_hand(
            "If this file is a key or certificate in PEM, give it a name that ends in .pem. \
             Otherwise remove it from the folder",
        );
        let finding = Finding::note("keys.left-out", KEYS, not_read(&path, ".pem"));
        finding
            .about_object(path.display().to_string())
            .with_remedy(remedy)
    })
}

fn state_folder(state: &Path) -> Finding {
    let shown = state.display();
    match is_there(state) {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("{shown} does not exist yet, because no key was stored");
            return Finding::note("state.none", STATE, text);
        }
        Err(error) => {
            let note = Finding::note("state.closed", STATE, format!("{shown}: {error}"));
            let remedy = missing_permission(state, Access::EXISTS);
            return match remedy {
                Some(remedy) => note.with_remedy(remedy),
                None => note,
            };
        }
    }
    if access(state, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let user = geteuid().as_raw();
        let text = format!(
            "{shown}: user {user} has no write permission, so this user can use keys but cannot \
             make new keys"
        );
        return Finding::note("state.read-only", STATE, text);
    }
    Finding::ok("state", STATE, format!("{shown} can be written"))
}

/// Checks that the group of key folders exists, and that the user of this process is in it.
fn group() -> Option<Finding> {
    let Some(devid) = group_number(GROUP) else {
        let text = format!("the group {GROUP}, which key folders may belong to, does not exist");
        return Some(
            Finding::note("group.none", "group", text).with_remedy(Remedy::by_command(
                "systemd-sysusers makes the group if devid-pkcs11.conf is installed; or run",
                format!("groupadd --system {GROUP}"),
            )),
        );
    };
    (!is_member(devid) && !geteuid().is_root()).then(|| {
        let user = user_name(geteuid().as_raw());
        let text = format!("user {user} is not in the group {GROUP}");
        Finding::note("group.not-member", "group", text).with_remedy(membership(GROUP))
    })
}

/// Checks that the group of the state folder can also read the key folder.
fn readers(state: &Path, keys: &Path) -> Option<Finding> {
    let (above, below) = (stat(state).ok()?, stat(keys).ok()?);
    let root = 0;
    if above.st_gid == below.st_gid || above.st_gid == root {
        return None;
    }
    let group = group_name(above.st_gid).unwrap_or_else(|| above.st_gid.to_string());
    Some(
        Finding::problem(
            "keys.group",
            KEYS,
            format!(
                "{} does not belong to the group {group}, but {} does: members of the group see no \
                 keys",
                keys.display(),
                state.display()
            ),
            Remedy::on_paths(
                "To give the folder and its future files to the group, run",
                // The command names files in the folder, so other users must not be able to
                // exchange them.
                &[state, keys, &keys.join("file")],
                format!(
                    "chgrp -RhP --reference={0} {1} && chmod g+s {0} {1}",
                    word(state),
                    word(keys)
                ),
            ),
        )
        .about_object(keys.display().to_string()),
    )
}
