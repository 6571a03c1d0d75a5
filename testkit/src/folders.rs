//! Folders of this workspace: its sources, and what cargo builds from them.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The root of the workspace.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a package of the workspace")
}

/// The folder of this profile's results; this program lies in `deps` below it.
pub fn results() -> PathBuf {
    let exe = env::current_exe().expect("this program has a path");
    let deps = exe.parent().expect("in a folder");
    deps.parent().expect("in a folder").to_owned()
}

/// A folder for files that tests share and keep; CARGO_TARGET_TMPDIR in cargo.
pub fn scratch() -> PathBuf {
    let folder = results().with_file_name("tmp");
    fs::create_dir_all(&folder).expect("a folder");
    folder
}
