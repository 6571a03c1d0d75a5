//! The paths of the system at which other programs find the module.

use crate::config::{Config, environment, is_privileged};
use crate::file;
use std::path::{Path, PathBuf};

pub(super) const LIBRARY: &str = "libdevid_pkcs11.so";
/// A byte string that every build of the module contains. It identifies the module under any file
/// name.
pub(super) const MARK: &[u8] = b"DEVID_PKCS11_CONFIG";
/// The largest size of a file that can be the module, in bytes.
const LARGEST: u64 = 256 << 20;
const LARGEST_TEXT: u64 = 1 << 20;

/// The paths at which other programs search modules and their configuration.
pub(super) struct InstallPaths {
    /// The folders of PKCS#11 modules.
    pub(super) modules: Vec<PathBuf>,
    /// The configuration file of p11-kit.
    pub(super) p11_kit_conf: PathBuf,
    /// The folders of p11-kit's `.module` files. Settings in the first folder have precedence.
    pub(super) p11_kit: Vec<PathBuf>,
    /// The folders of OpenSSL's providers.
    pub(super) providers: Vec<PathBuf>,
    /// The system-wide configuration of OpenSSL.
    pub(super) openssl: PathBuf,
    /// The OpenSSL configuration that this project installs, which programs can select with
    /// OPENSSL_CONF.
    pub(super) openssl_of_ours: Option<PathBuf>,
}

impl InstallPaths {
    pub(super) fn of_this_system(config: &Config) -> Self {
        let lib = Path::new("/usr/lib");
        let below = std::fs::read_dir(lib).into_iter().flatten().flatten();
        let mut libs: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        libs.sort();
        libs.extend([lib.into(), "/usr/lib64".into(), "/usr/local/lib".into()]);
        let named = |name: &str| libs.iter().map(|lib| lib.join(name)).collect();
        let said = environment(is_privileged())("OPENSSL_CONF").map(PathBuf::from);
        let beside = config.trust.with_file_name("openssl.cnf");
        Self {
            modules: named("pkcs11"),
            p11_kit_conf: "/etc/pkcs11/pkcs11.conf".into(),
            p11_kit: vec![
                "/etc/pkcs11/modules".into(),
                "/usr/share/p11-kit/modules".into(),
            ],
            providers: named("ossl-modules"),
            openssl_of_ours: said.is_none().then_some(beside),
            openssl: said.unwrap_or_else(|| "/etc/ssl/openssl.cnf".into()),
        }
    }
}

/// Returns true if a file is this module, in any version.
pub(super) fn is_this_module(path: &Path) -> bool {
    let bytes = file::read(path, LARGEST).unwrap_or_default();
    bytes.windows(MARK.len()).any(|window| window == MARK)
}

pub(super) fn read_text(path: &Path) -> std::io::Result<String> {
    let bytes = file::read(path, LARGEST_TEXT)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
