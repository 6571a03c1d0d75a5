//! Properties of the machine from files of a test: /etc/machine-id and the serial number of the
//! firmware.

use super::{Device, programs};
use std::process::Command;

/// Opens `machine-id` and `product_serial` of the folder MACHINE in the place of the system's.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *instead(const char *path, char *place)
{
    const char *name = NULL;
    if (strcmp(path, "/etc/machine-id") == 0)
        name = "machine-id";
    if (strcmp(path, "/sys/class/dmi/id/product_serial") == 0)
        name = "product_serial";
    if (name == NULL)
        return path;
    snprintf(place, PATH_MAX, "%s/%s", getenv("MACHINE"), name);
    return place;
}

#define MODE(last) \
    va_list rest; va_start(rest, last); int mode = va_arg(rest, int); va_end(rest)
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        char place[PATH_MAX]; MODE(flags); \
        int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        return next(instead(path, place), flags, mode); }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        char place[PATH_MAX]; MODE(flags); \
        int (*next)(int, const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        return next(folder, instead(path, place), flags, mode); }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
"#;

/// `devid` on a machine with this ID and this serial number; `None` where there is no such file.
pub fn on<'a>(
    device: &Device,
    machine_id: Option<&str>,
    serial: Option<&str>,
    command: &'a mut Command,
) -> &'a mut Command {
    let library = device.path("machine.so");
    if !library.exists() {
        let source = device.home.write("machine.c", SOURCE);
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library);
        programs::run(cc.arg(&source)).ok();
    }
    for (name, content) in [("machine-id", machine_id), ("product_serial", serial)] {
        match content {
            Some(content) => drop(device.home.write(name, content)),
            None => drop(std::fs::remove_file(device.path(name))),
        }
    }
    command
        .env("MACHINE", device.home.folder())
        .env("LD_PRELOAD", library)
}
