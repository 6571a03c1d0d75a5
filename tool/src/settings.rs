//! The settings of a run, and the file of `--config`.

use crate::output::CommandError;
use devid_core::config::{self, Config};
use devid_core::identity::Device;
use log::{info, warn};
use std::ffi::OsString;
use std::path::PathBuf;

const CONFIG: &str = "DEVID_PKCS11_CONFIG";

/// The source of the settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The absolute path of the file that `--config` names.
    pub(crate) file: Option<PathBuf>,
    is_privileged: bool,
}

impl Settings {
    /// # Errors
    ///
    /// Fails if the program has more rights than its caller, and the caller gave a settings file.
    /// Such a program does not accept settings from its caller.
    pub(crate) fn new(file: Option<PathBuf>) -> Result<Self, CommandError> {
        let is_privileged = config::is_privileged();
        let file = match file {
            Some(_) if is_privileged => Err(CommandError::new(
                6,
                "--config: this program has more rights than its caller, and reads \
                 /etc/devid-pkcs11/config.toml only",
            )),
            Some(path) if path.as_os_str().is_empty() => {
                Err(CommandError::new(2, "--config: not the name of a file"))
            }
            Some(path) => {
                let absolute = std::path::absolute(&path);
                let fault = |error| CommandError::new(1, format!("{}: {error}", path.display()));
                absolute.map(Some).map_err(fault)
            }
            None => Ok(None),
        }?;
        Ok(Self {
            file,
            is_privileged,
        })
    }

    /// Returns the environment variables. The file of `--config` overrides its variable.
    pub(crate) fn environment(&self) -> impl Fn(&str) -> Option<OsString> {
        let environment = config::environment(self.is_privileged);
        let file = self.file.clone();
        move |name| match (&file, name) {
            (Some(file), CONFIG) => Some(file.into()),
            _ => environment(name),
        }
    }

    /// Reads the settings, and logs warnings about them.
    pub(crate) fn read(&self) -> Result<Config, CommandError> {
        let config = config::load(&self.environment()).config?;
        config.warnings().for_each(|warning| warn!("{warning}"));
        let (drop_ins, state) = (config.drop_ins.display(), config.state.display());
        info!(
            "TPM {}, state {state}, settings beside {drop_ins}",
            config.tcti
        );
        Ok(config)
    }

    /// Reads the settings, and returns the device that they describe.
    pub(crate) fn device(&self) -> Result<Device, CommandError> {
        Ok(Device::new(self.read()?))
    }
}
