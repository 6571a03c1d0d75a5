//! `scripts/install` on a running system with a key in use. After removal and a new installation,
//! the key signs as before.

use rustix::process::geteuid;
use std::path::Path;
use tempfile::TempDir;
use testkit::module::tool;
use testkit::programs::{program, run};
use testkit::tpm::Swtpm;

/// The steps on the device. The lower file system is this machine, and writes stay in memory.
const LIFE: &str = r#"
cd "$SOURCE"
PATH=/opt/devid/bin:$PATH
install="scripts/install --prefix /opt/devid --built $BUILT"
$install
devid key generate web
devid csr web --out /tmp/before.pem
find /var/lib/devid-pkcs11 -type f -exec sha256sum {} + | sort > /tmp/keys
$install --uninstall > /tmp/said
grep -q /var/lib/devid-pkcs11 /tmp/said
test ! -e /opt/devid/bin/devid
sha256sum --check --quiet /tmp/keys
$install
sha256sum --check --quiet /tmp/keys
devid csr web --out /tmp/after.pem
for request in before after; do
    openssl req -in /tmp/$request.pem -noout -verify -pubkey > /tmp/$request.pub
done
cmp /tmp/before.pub /tmp/after.pub
devid key delete web --yes
$install --uninstall
"#;

/// A root of overlayfs over this one; /tmp is in memory.
const ENTER: &str = r#"
mount -t tmpfs tmpfs "$FOLDER"
mkdir "$FOLDER/upper" "$FOLDER/work" "$FOLDER/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root" 2>/dev/null || exit 77
mount --rbind "$SOURCE" "$FOLDER/root$SOURCE"
mount --rbind "$BUILT" "$FOLDER/root$BUILT"
mount --rbind /proc "$FOLDER/root/proc"
mount --rbind /dev "$FOLDER/root/dev"
exec chroot "$FOLDER/root" sh -euc "$LIFE"
"#;

/// Runs if root runs the tests on a kernel with overlayfs.
#[test]
fn a_key_outlives_the_removal_of_the_software() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = tool().parent().unwrap().to_owned();
    if !geteuid().is_root() {
        return;
    }
    let tpm = Swtpm::blank();
    let folder = TempDir::new().unwrap();
    let mut inside = program("unshare");
    inside
        .args(["--mount", "sh", "-euc", ENTER])
        .env("FOLDER", folder.path())
        .env("SOURCE", source)
        .env("BUILT", &built)
        .env("LIFE", LIFE)
        .env("DEVID_PKCS11_TCTI", tpm.tcti());
    let said = run(&mut inside);
    match said.status.code() {
        Some(77) => println!("no overlayfs here: not run"),
        _ => drop(said.ok()),
    }
}
