//! A token for one service: a key folder that only the user of the service owns, and a drop-in file
//! of root that configures the token.

use super::device::Device;
use super::public_folder::make_public_folder;
use super::{IdentityError, SOFTWARE};
use crate::accounts::{group_number, user_named};
use crate::config::{Config, FACTORY, OWN, SESSIONS, beside_state};
use crate::file;
use crate::store::devid::DevidStore;
use crate::trust::distrusted_folder;
use rustix::fs::{Access, Gid, Mode, OFlags, Uid, access, fchmod, fchown, fstat, mkdir, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The mode of the key folder. The group may read and enter the folder, and new files get this
/// group.
const FOLDER_MODE: u32 = 0o2750;
const LONGEST: usize = 32;

/// The token of a service that `devid token` added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceToken {
    /// The name of the service's token.
    pub token: String,
    /// The key folder of the token.
    pub folder: PathBuf,
    /// The file in `config.d/` that configures the token.
    pub drop_in: PathBuf,
    /// True if the command changed the folder or the configuration.
    pub changed: bool,
    /// True if the key folder still exists after the token was removed, with its keys.
    pub kept: bool,
}

/// Adds a token for a service, or completes an interrupted run. `user` owns the key folder. The
/// default is the user with the name of the group.
///
/// # Errors
///
/// Fails in these cases, without a change of objects of other users:
///
/// - the name has other characters than a token name may have;
/// - the group or the user does not exist;
/// - the configuration has a token of this name with another folder;
/// - the folder belongs to another user.
pub fn add_service_token(
    config: &Config,
    name: &str,
    group: &str,
    user: Option<&str>,
) -> Result<ServiceToken, IdentityError> {
    let token = place(config, name)?;
    let group_id =
        group_number(group).ok_or_else(|| refused(format!("/etc/group has no group {group}")))?;
    let user = user.unwrap_or(group);
    let user_id = user_named(user).ok_or_else(|| {
        refused(format!(
            "/etc/passwd has no user {user}; give the user of the service with --user"
        ))
    })?;
    let elsewhere = config.tokens.iter().find(|one| one.name == name);
    if let Some(other) = elsewhere.filter(|one| one.path.as_ref() != Some(&token.folder)) {
        let path = other.path.as_ref();
        let path = path.map_or("the state folder".into(), |path| path.display().to_string());
        return Err(refused(format!(
            "the configuration already has a token {name}, whose key folder is in {path}"
        )));
    }
    let parent = token.folder.parent().unwrap_or(Path::new("/"));
    let made = make_public_folder(parent)?;
    if let Some(why) = distrusted_folder(parent, true).map_err(IdentityError::file(parent))? {
        return Err(refused(format!("{}: {why}", parent.display())));
    }
    let made = made_folder(&token.folder)? | made;
    let given = give(&token.folder, (user_id, user), (group_id, group))?;
    let text = format!(
        "# Made by devid token add; devid token remove {name} takes it away.\n[[token]]\nname = \"{name}\"\n\
         path = \"{}\"\nservice = true\n",
        token.folder.display()
    );
    let written = match file::read(&token.drop_in, 1 << 16) {
        Ok(there) if there == text.as_bytes() => false,
        Ok(_) => {
            return Err(refused(format!(
                "{} has other content than this command writes; check the file",
                token.drop_in.display()
            )));
        }
        Err(_) => {
            let fault = IdentityError::file(&token.drop_in);
            if !config.drop_ins.exists() {
                make_public_folder(&config.drop_ins)?;
            }
            file::write(&token.drop_in, text.as_bytes(), 0o644).map_err(fault)?;
            true
        }
    };
    Ok(ServiceToken {
        changed: made || given || written,
        ..token
    })
}

/// Removes the configuration of the token. Its keys stay in the folder. An empty folder is removed.
///
/// # Errors
///
/// Fails if the drop-in file does not exist, or cannot be removed.
pub fn remove_service_token(config: &Config, name: &str) -> Result<ServiceToken, IdentityError> {
    let token = place(config, name)?;
    if !token.drop_in.exists() {
        return Err(IdentityError::new(
            super::IdentityErrorKind::NotFound,
            format!(
                "{}: this file does not exist, so devid token add did not make the token {name}",
                token.drop_in.display()
            ),
        ));
    }
    file::remove(&token.drop_in).map_err(IdentityError::file(&token.drop_in))?;
    let kept = std::fs::remove_dir(&token.folder).is_err() && token.folder.exists();
    Ok(ServiceToken {
        changed: true,
        kept,
        ..token
    })
}

/// Returns the paths of the token `name`: key folder and drop-in file.
fn place(config: &Config, name: &str) -> Result<ServiceToken, IdentityError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let reserved = [OWN, FACTORY, SESSIONS, SOFTWARE].contains(&name);
    let sound = (1..=LONGEST).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !sound || reserved {
        return Err(IdentityError::new(
            super::IdentityErrorKind::Usage,
            format!(
                "{name:?} is not a valid name: a name has 1 to {LONGEST} letters, digits and the \
                 characters . _ -, begins with a letter or digit, and is none of {OWN}, {FACTORY}, \
                 {SESSIONS}, {SOFTWARE}"
            ),
        ));
    }
    if !geteuid().is_root() {
        return Err(refused(
            "only root can add and remove tokens for services; run the command as root".into(),
        ));
    }
    Ok(ServiceToken {
        token: name.to_owned(),
        folder: beside_state(&config.state, "services").join(name),
        drop_in: config.drop_ins.join(format!("service-{name}.toml")),
        changed: false,
        kept: true,
    })
}

fn refused(why: String) -> IdentityError {
    IdentityError::refused(format!("{why}; nothing was changed"))
}

/// Creates a folder with access for root only, if the folder is missing. Returns true if it created
/// the folder.
fn made_folder(path: &Path) -> Result<bool, IdentityError> {
    match mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(IdentityError::file(path)(error.into())),
    }
}

/// Changes the owner and group of a folder of root to the user and group of a service. Returns true
/// if this changed the folder.
fn give(path: &Path, user: (u32, &str), group: (u32, &str)) -> Result<bool, IdentityError> {
    let fault = |error: Errno| IdentityError::file(path)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty()).map_err(fault)?;
    let about = fstat(&folder).map_err(fault)?;
    let is_new = about.st_uid == 0 && about.st_mode & 0o7777 == 0o700;
    if (about.st_uid, about.st_gid) != (user.0, group.0) && !is_new {
        return Err(refused(format!(
            "{} belongs to user {} and group {}, not to {} and {}; devid token remove does not \
             delete it. Give the service another name, or move the folder away",
            path.display(),
            about.st_uid,
            about.st_gid,
            user.1,
            group.1
        )));
    }
    let is_given =
        (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (user.0, group.0, FOLDER_MODE);
    if !is_given {
        fchown(&folder, None, Some(Gid::from_raw(group.0))).map_err(fault)?;
        fchmod(&folder, Mode::from_raw_mode(0o700)).map_err(fault)?;
        fchown(&folder, Some(Uid::from_raw(user.0)), None).map_err(fault)?;
        fchmod(&folder, Mode::from_raw_mode(FOLDER_MODE)).map_err(fault)?;
    }
    Ok(!is_given)
}

impl Device {
    /// Returns the token of the service whose user runs this process. The user of this process can
    /// write the key folder of this token, but no other key folder and not the state folder.
    pub fn service_token(&self) -> Option<&str> {
        self.service_store().map(DevidStore::name)
    }

    /// Returns true if the token `token` belongs to one service.
    pub fn is_service(&self, token: &str) -> bool {
        let mut stores = self.stores();
        stores.any(|store| store.name() == token && store.is_service())
    }

    /// Returns the token that shows a token entry, if the token belongs to one service.
    #[cfg(feature = "evidence")]
    pub(crate) fn service_of(&self, entry: &super::TokenEntry) -> Option<&DevidStore> {
        self.store_of(entry).filter(|store| store.is_service())
    }

    /// Returns the tokens that may have an attestation key: `devid`, and the tokens of services.
    #[cfg(feature = "evidence")]
    pub(crate) fn attesting_stores(&self) -> impl Iterator<Item = &DevidStore> {
        let own = self.own.name();
        self.open_stores()
            .filter(move |store| store.is_service() || store.name() == own)
    }

    /// Returns the tokens that this process maintains. For the user of a service this is only the
    /// token of the service.
    pub(super) fn open_stores(&self) -> impl Iterator<Item = &DevidStore> {
        let service = self.service_store().map(DevidStore::name);
        self.stores()
            .filter(move |store| service.is_none_or(|name| name == store.name()))
    }

    pub(super) fn service_store(&self) -> Option<&DevidStore> {
        let may_write = |path: &Path| access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        if geteuid().is_root() || may_write(&self.config.state) {
            return None;
        }
        let mut its = self.stores().filter(|store| may_write(store.path()));
        let found = its.next()?;
        its.next().is_none().then_some(found)
    }

    /// Returns true if this process automatically renews the certificate of the key `label`. The
    /// user of a service renews only certificates of its own token. Root renews no certificate in a
    /// folder of another user.
    pub fn looks_after(&self, label: &str) -> bool {
        let in_token = |store: &DevidStore| {
            let rest = label.strip_prefix(store.name());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if let Some(own) = self.service_store() {
            return in_token(own);
        }
        let mut stores = self.stores();
        let owner = stores.find(|store| in_token(store)).map(|store| {
            rustix::fs::stat(store.path()).map_or(geteuid().as_raw(), |about| about.st_uid)
        });
        owner.is_none_or(|owner| owner == geteuid().as_raw())
    }
}
