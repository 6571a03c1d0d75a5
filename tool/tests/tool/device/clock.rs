//! The clock of a device that started without battery. `devid` runs normally, and only its time is
//! wrong.

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

/// Lets the command believe that the year is 1970. A library for this is compiled into `folder`.
pub fn in_1970<'a>(folder: &Path, command: &'a mut Command) -> &'a mut Command {
    at(10, folder, command)
}

/// Lets the command believe that the time is this number of seconds after the epoch.
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
