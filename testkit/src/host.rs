//! C programs that load the module, like the hosts of a device.

use super::folders;
use super::home::Home;
use super::module::library;
use super::programs::{output, program, run};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/c/NAME.c` into the home. Returns the path of the program. scripts/sanitize gives
/// more flags for the compiler, separated by blanks, in the variable `DEVID_HOST_FLAGS`.
pub fn compiled(home: &Home, name: &str) -> PathBuf {
    let more = env::var("DEVID_HOST_FLAGS").unwrap_or_default();
    let kind: Vec<&str> = more.split_whitespace().chain(["-pthread"]).collect();
    compile(home.path(name), name, &kind)
}

/// Compiles `tests/c/NAME.c` as a library for LD_PRELOAD. Returns the path of the library.
pub fn preloaded(folder: &Path, name: &str) -> PathBuf {
    compile(folder.join(name), name, &["-shared", "-fPIC", "-O1"])
}

/// Compiles for the target of the module.
fn compile(into: PathBuf, name: &str, kind: &[&str]) -> PathBuf {
    let root = folders::root();
    let flags = String::from_utf8(output("pkg-config", ["--cflags", "p11-kit-1"])).unwrap();
    let mut compiler = program(match cfg!(target_arch = "x86") {
        true => "i686-linux-gnu-gcc",
        false => "gcc",
    });
    compiler
        .args(["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror"])
        .args(kind)
        .args(flags.split_whitespace())
        .arg("-I")
        .arg(root.join("include"))
        .arg(root.join("tests/c").join(name).with_extension("c"));
    run(compiler.arg("-o").arg(&into)).ok();
    into
}

/// Returns a command for the program `tests/c/NAME.c`, with the path of the module as the first
/// argument.
pub fn host(home: &Home, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(compiled(home, name));
    command.arg(library()).args(arguments);
    home.settle(&mut command);
    command
}
