//! Linker flags of the shared library.

fn main() {
    // A host that unloads the module must not lose the code behind the fork handler or a
    // thread-local's destructor: the library stays mapped.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libdevid_pkcs11.so");
    println!("cargo::rerun-if-changed=build.rs");
}
