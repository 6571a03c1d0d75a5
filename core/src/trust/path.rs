//! Checks all folders on the path of a file: no untrusted user may be able to replace the file.

use super::{GROUP_WRITES, Owned, STICKY, WORLD_WRITES};
use crate::trouble::{found, trouble};
use rustix::fs::{FileType, Stat, lstat, readlink};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::read_to_string;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

const ROOT: u32 = 0;
/// The maximum number of symbolic links in a path, as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The reason why a file or folder is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distrust {
    /// The path that is not trusted: the file itself, or a folder of its path.
    pub(crate) place: PathBuf,
    /// The reason as text: which users could change the file or folder.
    pub(crate) why: String,
    /// The system error, if the check is not possible now. A later check may succeed.
    pub(crate) unread: Option<Errno>,
}

/// Returns the reason why the file or folder at a path is not trusted; `None` if it is trusted.
/// Links are followed, and each folder of the path is checked. A missing or unreachable file is not
/// trusted.
pub(crate) fn distrusted(path: &Path) -> Option<Distrust> {
    walk(path, TrustRule::Folders).err()
}

/// Checks that only root and the user of this process can make, replace or remove a name in a
/// folder. If the folder is missing, the last existing folder of its path is checked. The users who
/// may write to that folder could make the missing folder.
///
/// # Errors
///
/// Fails if other users can do so, or if the check is not possible.
pub(crate) fn names_only_ours(folder: &Path) -> Result<(), Distrust> {
    let (End::There(last) | End::Missing(last)) = walk(folder, TrustRule::Alone)?;
    let about = lstat(&last).map_err(|errno| Distrust::unread(&last, &errno.into()))?;
    TrustRule::Alone.judge_folder(&last, &about)?;
    match TrustRule::Alone.writers(Owned::from(&about)) {
        None => Ok(()),
        Some(who) => Err(Distrust::of(&last, may_write(&who))),
    }
}

fn may_write(who: &str) -> String {
    format!("{who} may write into this folder")
}

/// The result of following a path: whether it exists.
enum End {
    /// The path exists. The value is the path after all symbolic links were followed.
    There(PathBuf),
    /// A part of the path does not exist. The value is the last existing folder.
    Missing(PathBuf),
}

/// Returns the resolved path of a folder; `None` if it does not exist. Fails unless only root and
/// the user of this process can replace the folders of the path, and the files in the folder.
///
/// # Errors
///
/// Fails if other users can do so, or if the check is not possible.
pub(crate) fn alone(folder: &Path) -> Result<Option<PathBuf>, Distrust> {
    Ok(match walk(folder, TrustRule::Alone)? {
        End::There(folder) => Some(folder),
        End::Missing(_) => None,
    })
}

/// Which users may write to the folders of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrustRule {
    /// Root, the user of this process, the owner of the folder, and the folder's group if the mode
    /// lets the group write.
    Folders,
    /// Only root and the user of this process.
    Alone,
}

fn walk(path: &Path, rule: TrustRule) -> Result<End, Distrust> {
    let from = match path.is_absolute() {
        true => PathBuf::new(),
        false => {
            let here = std::env::current_dir();
            here.map_err(|error| Distrust::unread(path, &error))?
        }
    };
    let mut rest = parts(&from.join(path));
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        let there = here.join(&part);
        let sight = |path: &Path| {
            let about = found(|| lstat(path));
            about.map_err(|error| Distrust::unread(path, &error))
        };
        let (Some(folder), Some(about)) = (sight(&here)?, sight(&there)?) else {
            return Ok(End::Missing(here));
        };
        rule.judge_entry((&here, &folder), (&there, &about))?;
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Symlink => {
                links += 1;
                let unread = |errno: Errno| Distrust::unread(&there, &errno.into());
                if links > MOST_LINKS {
                    return Err(unread(Errno::LOOP));
                }
                let target = readlink(&there, Vec::new()).map_err(unread)?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes()));
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(parts(target));
            }
            FileType::Directory => {
                if rest.is_empty() {
                    rule.judge_folder(&there, &about)?;
                }
                here = there;
            }
            _ => {
                let judged = Owned::from(&about).as_file_in(Owned::from(&folder), geteuid());
                judged.map_err(|why| match why.unread {
                    Some(errno) => Distrust::unread(&there, &errno.into()),
                    None => Distrust::of(&there, why.to_string()),
                })?;
                here = there;
            }
        }
    }
    Ok(End::There(here))
}

/// Splits a path into its names. The last name of the path is the first of the list.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    let named = names.filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned()).collect()
}

impl TrustRule {
    /// Checks that no untrusted user could have created, or can replace, an entry of a folder.
    fn judge_entry(
        self,
        (here, folder): (&Path, &Stat),
        (there, entry): (&Path, &Stat),
    ) -> Result<(), Distrust> {
        let folder = Owned::from(folder);
        let entry = Owned::from(entry);
        if self == Self::Alone
            && !is_ours(folder.owner)
            && !is_unmapped(folder.owner).map_err(|error| Distrust::unread(here, &error))?
        {
            return Err(Distrust::of(here, stranger(folder.owner)));
        }
        let Some(who) = self.writers(folder) else {
            return Ok(());
        };
        if !folder.lets(STICKY) {
            return Err(Distrust::of(here, may_write(&who)));
        }
        match is_ours(entry.owner) {
            true => Ok(()),
            false => Err(Distrust::of(
                there,
                format!(
                    "{}, and {who} may create files in this folder",
                    stranger(entry.owner)
                ),
            )),
        }
    }

    fn judge_folder(self, path: &Path, about: &Stat) -> Result<(), Distrust> {
        let folder = Owned::from(about);
        folder.as_folder().map_err(|why| Distrust::of(path, why))?;
        if self == Self::Folders {
            return Ok(());
        }
        if !is_ours(folder.owner) {
            return Err(Distrust::of(path, stranger(folder.owner)));
        }
        match self.writers(folder) {
            Some(who) if !folder.lets(STICKY) => Err(Distrust::of(path, may_write(&who))),
            _ => Ok(()),
        }
    }

    /// Returns the users who are not trusted but may write to a folder.
    fn writers(self, folder: Owned) -> Option<String> {
        if folder.lets(WORLD_WRITES) {
            return Some("everybody".into());
        }
        let group = self == Self::Alone && folder.lets(GROUP_WRITES) && folder.group != ROOT;
        group.then(|| format!("the group {}", folder.group))
    }
}

/// Returns true for root and the user of this process.
pub(super) fn is_ours(user: u32) -> bool {
    user == ROOT || user == geteuid().as_raw()
}

/// Returns true if a user number stands for users outside of the current user namespace
/// (user_namespaces(7)). The creator of the container made the files with this user number. No user
/// inside the container can write these files, unless the mode lets all users write.
///
/// # Errors
///
/// Fails if the check is not possible now. Without /proc the function returns false.
pub(super) fn is_unmapped(user: u32) -> io::Result<bool> {
    let read = |file: &str| match read_to_string(file) {
        Err(error) if trouble(&error).is_none() => Ok(String::new()),
        other => other,
    };
    if read("/proc/sys/fs/overflowuid")?.trim().parse() != Ok(user) {
        return Ok(false);
    }
    let map = read("/proc/self/uid_map")?;
    let ranges = map.lines().map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.nth(1)?.ok()?))
    });
    let is_mapped = |range: Option<(u64, u64)>| {
        range.is_none_or(|(first, count)| (first..first + count).contains(&u64::from(user)))
    };
    Ok(!map.is_empty() && !ranges.into_iter().any(is_mapped))
}

fn stranger(user: u32) -> String {
    format!("it belongs to user {user}")
}

impl Distrust {
    pub(crate) fn of(place: &Path, why: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            why: why.into(),
            unread: None,
        }
    }

    fn unread(place: &Path, error: &io::Error) -> Self {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let why = match errno {
            Errno::ACCESS | Errno::PERM => {
                let user = geteuid().as_raw();
                format!("user {user} has no right to read which users may write to it ({error})")
            }
            _ => format!("it is not known now which users may write to it ({error})"),
        };
        Self {
            unread: Some(errno),
            ..Self::of(place, why)
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place.display(), self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const OTHER: u32 = 12345;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Gives a file or link to another user. Returns `false` if the tests do not run as root.
    fn give(path: &Path) -> bool {
        std::os::unix::fs::lchown(path, Some(OTHER), None).is_ok()
    }

    #[test]
    fn who_could_exchange_a_file_on_the_way() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), b"").unwrap();
        let file = at("a/b/file");
        mode(&file, 0o644);
        assert_eq!(distrusted(&file), None);
        for (name, bits, sound) in [
            ("a/b/file", 0o646, false),
            ("a/b/file", 0o600, true),
            ("a/b", 0o777, false),
            ("a/b", 0o755, true),
            ("a", 0o777, false),
            // The sticky bit of the folder protects the entries of the user of this process.
            ("a", 0o1777, true),
            ("a/b", 0o1777, true),
        ] {
            mode(&at(name), bits);
            assert_eq!(distrusted(&file).is_none(), sound, "{name} {bits:o}");
        }
        assert!(distrusted(&at("a/b")).is_some(), "all users may add files");
        assert_eq!(distrusted(&at("none/at/all")), None);
        // A link to a file of another user, in a world-writable folder.
        symlink(&file, at("a/link")).unwrap();
        assert_eq!(distrusted(&at("a/link")), None);
        if give(&at("a/link")) {
            let why = distrusted(&at("a/link")).unwrap();
            assert_eq!(why.place, at("a/link"));
            assert!(give(&file));
            assert_eq!(distrusted(&file).unwrap().place, file);
        }
    }

    #[test]
    fn a_store_of_links_is_believed_as_far_as_its_owner() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("store/one")).unwrap();
        fs::write(at("store/one/config.toml"), b"").unwrap();
        mode(&at("store"), 0o1775);
        symlink("store/../store/one", at("static")).unwrap();
        symlink(at("static/config.toml"), at("config.toml")).unwrap();
        assert_eq!(distrusted(&at("config.toml")), None);
        mode(&at("store"), 0o777);
        let why = distrusted(&at("config.toml")).unwrap();
        assert_eq!(why.place, at("store").canonicalize().unwrap());
        symlink("loop", at("loop")).unwrap();
        let unread = |path: &Path| distrusted(path).and_then(|why| why.unread);
        assert_eq!(unread(&at("loop")), Some(Errno::LOOP));
        assert_eq!(unread(&at("loop/below")), Some(Errno::LOOP));
        let long = at(&"x".repeat(300));
        assert_eq!(unread(&long), Some(Errno::NAMETOOLONG));
        assert_eq!(alone(&long).unwrap_err().place, long);
        mode(&at("store"), 0o1775);
        assert_eq!(distrusted(&at("config.toml/below")), None, "no folder");
    }

    #[test]
    fn a_folder_of_our_own_alone() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("lock");
        assert_eq!(alone(&folder), Ok(None));
        fs::create_dir(&folder).unwrap();
        for (bits, sound) in [(0o750, true), (0o1777, false), (0o777, false)] {
            mode(&folder, bits);
            assert_eq!(alone(&folder).is_ok(), sound, "{bits:o}");
        }
        mode(&folder, 0o770);
        if chown(&folder, None, Some(OTHER)).is_ok() {
            mode(&folder, 0o770);
            assert!(alone(&folder).is_err(), "the group may replace files");
            mode(&folder, 0o1770);
            assert!(alone(&folder).is_ok());
            mode(home.path(), 0o770);
            chown(home.path(), None, Some(OTHER)).unwrap();
            assert!(alone(&folder).is_err(), "the group may replace the folder");
            mode(home.path(), 0o700);
            chown(home.path(), Some(OTHER), None).unwrap();
            assert!(alone(&folder).is_err(), "the owner may replace the folder");
            chown(home.path(), Some(ROOT), None).unwrap();
            assert!(give(&folder));
            assert!(alone(&folder).is_err());
        }
    }

    #[test]
    fn nobody_is_from_outside_where_all_users_are_known() {
        assert!(!is_unmapped(ROOT).unwrap());
        assert!(!is_unmapped(geteuid().as_raw()).unwrap());
    }
}
