//! A rotation of the owner's certificates is killed at every step. Then the old certificates or the
//! new certificates are stored, and never a mix of both.

use crate::device::cut::{End, run_until};
use crate::device::{Device, files};
use std::fs;
use std::path::PathBuf;

const FILE: &str = "state-owner/certificates.pem";

/// A certificate for the factory's key by an owner's CA, with its chain.
fn certified(device: &Device, model: &str) -> PathBuf {
    let request = device.path(&format!("{model}.csr"));
    device.ends(
        0,
        &[
            "csr",
            "idev-id",
            "--out",
            request.to_str().unwrap(),
            "--force",
        ],
    );
    let folder = device.path("owner");
    fs::create_dir_all(&folder).unwrap();
    let leaf = device.certified_with(&["--model", model], &request, &folder);
    let parts = [leaf, folder.join("ca.pem"), folder.join("root.pem")];
    let whole = parts.map(|part| fs::read(part).unwrap()).concat();
    device.home.write(&format!("{model}.pem"), whole)
}

#[test]
fn a_rotation_that_is_killed() {
    let (device, _) = Device::manufactured();
    let [old, new] = ["old", "new"].map(|model| {
        let chain = certified(&device, model);
        chain.to_str().unwrap().to_owned()
    });
    let import = |chain: &str| device.ends(0, &["import-cert", "--owner", chain]);
    import(&new);
    let after = fs::read(device.path(FILE)).unwrap();
    import(&old);
    let before = fs::read(device.path(FILE)).unwrap();
    assert_ne!(before, after);
    let mut seen = [0, 0];
    for cut in 1.. {
        let end = run_until(&mut device.command(&["import-cert", "--owner", &new]), cut);
        let now = fs::read(device.path(FILE)).unwrap();
        assert!(now == before || now == after, "cut {cut}");
        seen[usize::from(now == after)] += 1;
        // The next run ends the work, and leaves nothing over.
        import(&new);
        assert_eq!(fs::read(device.path(FILE)).unwrap(), after, "cut {cut}");
        let left = fs::read_dir(device.path("state-owner")).unwrap();
        assert_eq!(left.count(), 1, "cut {cut}");
        if end == End::Exited(0) {
            break;
        }
        assert_eq!(end, End::Cut);
        import(&old);
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert!(files(&device, "cert").is_empty(), "a service sees them");
}
