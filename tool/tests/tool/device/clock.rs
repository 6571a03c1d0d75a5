//! A clock that stands where a device without battery starts: `devid` itself runs, and only what it
//! is told of the time is wrong.

use super::programs;
use std::path::Path;
use std::process::Command;

/// `SECONDS` after the epoch; all other clocks go on.
const SOURCE: &str = r"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long code = syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && clock == CLOCK_REALTIME)
        now->tv_sec = SECONDS;
    return (int)code;
}
";

/// Has the command believe that it is 1970. What is compiled for it goes into `folder`.
pub fn in_1970<'a>(folder: &Path, command: &'a mut Command) -> &'a mut Command {
    at(10, folder, command)
}

/// The same for so many seconds after the epoch.
pub fn at<'a>(seconds: i64, folder: &Path, command: &'a mut Command) -> &'a mut Command {
    let library = folder.join(format!("clock-{seconds}.so"));
    if !library.exists() {
        let source = folder.join("clock.c");
        std::fs::write(&source, SOURCE).expect("a file");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library);
        cc.arg(format!("-DSECONDS={seconds}"));
        programs::run(cc.arg(&source)).ok();
    }
    command.env("LD_PRELOAD", library)
}
