//! Notes when the build was: a clock that stands before it is wrong, and nobody's certificate is
//! judged by it. `SOURCE_DATE_EPOCH` makes the build reproducible.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map(|now| now.as_secs()).unwrap_or_default();
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let built = given.and_then(|given| given.parse().ok()).unwrap_or(now);
    println!("cargo:rustc-env=DEVID_BUILT={built}");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
}
