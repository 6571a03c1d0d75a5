//! devid.
fn main() {}
