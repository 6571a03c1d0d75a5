//! Folders of this workspace: the sources, and the results of cargo.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Returns the root of the workspace.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a package of the workspace")
}

/// Returns the folder with the results of this profile. This program is in its subfolder `deps`.
pub fn results() -> PathBuf {
    let exe = env::current_exe().expect("this program has a path");
    let deps = exe.parent().expect("in a folder");
    deps.parent().expect("in a folder").to_owned()
}

/// Returns a folder for files that tests share. In cargo it is CARGO_TARGET_TMPDIR.
pub fn scratch() -> PathBuf {
    let folder = results().with_file_name("tmp");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}
