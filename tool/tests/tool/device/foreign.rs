//! Objects of other programs in persistent handles.

use super::{Device, tpm2};

/// The TPM name of what is at a handle.
pub fn name_at(device: &mut Device, handle: &str) -> String {
    let text = tpm2(device, "tpm2_readpublic", &["-c", handle]).text();
    let line = text.lines().find(|line| line.starts_with("name:"));
    line.expect("a name").to_owned()
}

/// The objects that other programs may put into a handle.
pub const OCCUPANTS: [&str; 4] = ["storage", "signing", "sealed", "as ours"];

/// Puts something of somebody else's into this handle; gives its TPM name.
pub fn occupy(device: &mut Device, handle: &str, kind: &str) -> String {
    let path = |name: &str| device.path(name).display().to_string();
    let (context, root) = (path("other.ctx"), path("root.ctx"));
    let (public, private) = (path("other.pub"), path("other.priv"));
    let content = device.home.write("content", "data").display().to_string();
    let sign = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";
    let ours = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
    let below = |device: &mut Device, parent: &str, words: &[&str]| {
        let create = ["-C", parent, "-u", &public, "-r", &private];
        tpm2(device, "tpm2_create", &[&create[..], words].concat());
        tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
        let load = ["-C", parent, "-u", &public, "-r", &private, "-c", &context];
        tpm2(device, "tpm2_load", &load);
    };
    match kind {
        "storage" => drop(tpm2(
            device,
            "tpm2_createprimary",
            &["-C", "o", "-G", "ecc256:aes128cfb", "-c", &context],
        )),
        "signing" => drop(tpm2(
            device,
            "tpm2_createprimary",
            &["-C", "o", "-G", "rsa2048", "-a", sign, "-c", &context],
        )),
        "sealed" => {
            let primary = ["-C", "o", "-G", "ecc256:aes128cfb", "-c", &root];
            tpm2(device, "tpm2_createprimary", &primary);
            below(device, &root, &["-i", &content]);
        }
        // As another installation of ours makes its master key.
        _ => below(
            device,
            "0x81000001",
            &["-G", "ecc256:aes128cfb", "-a", ours],
        ),
    }
    let put = ["-C", "o", "-c", &context, handle];
    tpm2(device, "tpm2_evictcontrol", &put);
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
    name_at(device, handle)
}
