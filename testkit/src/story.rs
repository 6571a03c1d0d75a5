//! A story is a test with its own process. The module reads the environment, forks and ends in this
//! process, and the output to stderr is captured.
//!
//! `cargo test` runs tests as threads of one process. The test therefore starts its own binary
//! again for this single test, and the second process runs the story.

use super::programs::{self, Running};
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::Command;
use std::time::Duration;

/// The time limit of a story. The limit is longer than any story on a busy machine. A story that
/// hangs is killed at the limit.
const LIMIT: Duration = Duration::from_secs(170);
const TELLING: &str = "DEVID_TEST_STORY";

/// Returns the time limit. The limit is longer for a story with more altered answers
/// (`DEVID_MUTATIONS`) or more faults (`DEVID_FAULTS`) than usual.
fn limit() -> Duration {
    let more = |variable: &str, usual: u32| match env::var(variable).as_deref() {
        Ok("all") => 1000,
        Ok(wanted) => wanted
            .parse()
            .map_or(1, |wanted: u32| wanted.div_ceil(usual)),
        Err(_) => 1,
    };
    // scripts/torture tells how long its long stories last.
    let long = env::var("DEVID_STORY_SECONDS").map_or(0, |text| text.parse().expect("seconds"));
    Duration::from_secs(long)
        + LIMIT
            * more("DEVID_MUTATIONS", 180)
                .max(more("DEVID_FAULTS", 8))
                .max(1)
}

/// Returns the name of the test in the test harness. `path` is the module path, which begins with
/// the crate.
pub fn test_name(path: &str) -> &str {
    let (_, name) = path.split_once("::").expect("a path begins with the crate");
    name
}

/// Runs the story of the test `name` in its own process. `name` is the module path, which begins
/// with the crate. Fails if the story fails or writes to stderr.
pub fn tell(name: &str, story: impl FnOnce()) {
    tell_with(name, &[], story);
}

/// Runs the story with these environment variables.
pub fn tell_with(name: &str, variables: &[(&str, &OsStr)], story: impl FnOnce()) {
    let name = test_name(name);
    if env::var(TELLING).is_ok_and(|telling| telling == name) {
        return story();
    }
    let (out, err) = (file(), file());
    let mut again = Command::new(env::current_exe().expect("this program has a path"));
    again
        .args([
            "--exact",
            name,
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(TELLING, name);
    again.env("TSS2_LOG", "all+none"); // libtss2 logs to stderr unless this variable is set
    for (key, _) in env::vars_os() {
        if key.to_string_lossy().starts_with("DEVID_PKCS11_") {
            again.env_remove(key);
        }
    }
    again.envs(variables.iter().copied());
    again
        .stdout(out.try_clone().expect("dup"))
        .stderr(err.try_clone().expect("dup"));
    let mut running = Running::start(name, &mut again);
    let limit = limit();
    let status = running.wait(limit);
    let (out, err) = (text(out), text(err));
    match status {
        Some(status) if !status.success() => panic!("{name}: {status}\n{out}\n{err}"),
        Some(_) if !out.contains("1 passed") => panic!("{name} did not run\n{out}\n{err}"),
        Some(_) if !err.is_empty() => panic!("{name}: something wrote to stderr:\n{err}"),
        Some(_) => print!("{}", own_words(&out)),
        None => panic!("{name}: still running after {limit:?}, killed\n{out}\n{err}"),
    }
}

/// Returns the output of the story, without the lines of the test harness.
fn own_words(out: &str) -> String {
    let harness = |line: &&str| line.starts_with("running ") || line.starts_with("test ");
    let own = out
        .lines()
        .filter(|line| !harness(line) && !line.is_empty() && *line != "ok");
    own.map(|line| format!("{line}\n")).collect()
}

/// Calls `look` again and again until it returns a value. Fails with `what` after `limit`.
pub fn await_some<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    programs::poll(limit, look).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}

fn file() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read back");
    String::from_utf8_lossy(&bytes).into_owned()
}
