//! The common parts of the fuzz targets: an input as choices, a TPM in this process, and changes of
//! its answers. The module is used through its C interface. The targets are in `fuzz_targets/`.
//! `scripts/fuzz` runs them.

pub mod answers;
pub mod bytes;
pub mod calls;
pub mod device;
pub mod host;
pub mod libtpms;
pub mod lies;
pub mod memory;
pub mod templates;

use std::path::PathBuf;
use std::sync::OnceLock;

/// Returns a folder in memory for the files of this process. A later process removes the folder
/// with [`tidy`].
pub fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let place = PathBuf::from("/dev/shm");
            let place = if place.is_dir() {
                place
            } else {
                std::env::temp_dir()
            };
            tidy(&place);
            let folder = place.join(format!("{PREFIX}{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            folder
        })
        .clone()
}

const PREFIX: &str = "devid-fuzz-";

/// Removes the folders of processes that have ended.
fn tidy(place: &std::path::Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if process.is_some_and(|id| !std::path::Path::new("/proc").join(id).exists()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}
