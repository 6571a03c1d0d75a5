//! Passes the build target on, because testkit builds the module for this target.

fn main() {
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=DEVID_BUILT_FOR={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
