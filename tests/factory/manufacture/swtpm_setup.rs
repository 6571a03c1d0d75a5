//! The device is equal to a device of swtpm_setup, byte for byte where possible: public areas,
//! handles, and NV indices with their attributes and contents.

use super::Line;
use std::fs;
use testkit::folders;
use testkit::programs::{program, run};
use testkit::tpm::{Swtpm, copy_state};

const HANDLES: [&str; 2] = ["0x81020000", "0x81020001"];
const INDICES: [&str; 2] = ["0x01C90200", "0x01C90100"];

/// Public areas, NV public areas and contents.
fn dump(line: &Line) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for handle in HANDLES {
        line.tool(
            "tpm2_readpublic",
            &["-c", handle, "-f", "tss", "-o", "area"],
        )
        .ok();
        all.push(fs::read(line.path("area")).unwrap());
    }
    for index in INDICES {
        all.push(line.tool("tpm2_nvreadpublic", &[index]).ok().out);
        all.push(line.nv(index));
    }
    all
}

#[test]
fn makes_the_same() {
    for (state, template) in [("p384", "h3"), ("rsa2048", "h1")] {
        let mut tpm = Swtpm::blank();
        tpm.shut_down();
        let from = folders::root().join("tests/inputs/swtpm-setup");
        let folder = tpm.state();
        fs::remove_dir_all(&folder).unwrap();
        copy_state(&from, &folder);
        fs::rename(
            folder.join(format!("{state}.permall")),
            folder.join("tpm2-00.permall"),
        )
        .unwrap();
        tpm.restart();
        let line = Line::at(tpm);
        let theirs = dump(&line);
        // Its keys and its certificates are taken as they are.
        let keys = ["keys", "--template", template, "--unique", "x"];
        assert_eq!(super::writes(&line.sends(0, &keys)), 0);

        for (index, name) in INDICES.into_iter().zip(["idevid", "iak"]) {
            fs::write(line.path(name), line.nv(index)).unwrap();
            let mut convert = program("openssl");
            convert.args(["x509", "-inform", "DER", "-in", name, "-out"]);
            let pem = format!("{name}.pem");
            run(convert.arg(pem).current_dir(line.home.folder())).ok();
        }
        // `devid` finds nothing wrong with theirs; its CA is not at hand.
        let verified = line.devid(&["verify", "idev-id"]);
        assert_eq!(verified.status.code(), Some(3), "{verified}");
        // The places are made empty, and filled again by us.
        for handle in HANDLES {
            line.tool("tpm2_evictcontrol", &["-C", "o", "-c", handle])
                .ok();
        }
        for index in INDICES {
            line.tool("tpm2_nvundefine", &["-C", "p", index]).ok();
        }
        line.ends(0, &keys);
        // They name a serial number and no model.
        let install = [
            "install",
            "--serial",
            "EX-1000",
            "--by",
            "platform",
            "--idevid-cert",
            "idevid.pem",
            "--iak-cert",
            "iak.pem",
        ];
        line.ends(0, &install);
        for (ours, theirs) in dump(&line).iter().zip(&theirs) {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            assert!(
                ours == theirs,
                "{template}: {} / {}",
                text(ours),
                text(theirs)
            );
        }
    }
}
