//! The key stores of a device, for changes that only a program with the module could make.

use super::Device;
use devid_core::config;
use devid_core::store::UserType;
use devid_core::store::devid::DevidStore;
use devid_core::tpm::Refusals;
use std::sync::Arc;

impl Device {
    /// The store of the `number`th token of the device's own keys; `devid` is the first.
    pub fn store(&self, number: usize) -> DevidStore {
        let variables = self.home.variables();
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone())
        };
        let config = config::load(&variable).config.unwrap();
        let tpm = Arc::new(config.tpm(Refusals::default()));
        DevidStore::all(&config, &tpm).remove(number)
    }

    /// Gives the token `devid` an officer's and a user's PIN, as C_InitToken and C_InitPIN do.
    pub fn set_pins(&self, pin: &str) {
        let store = self.store(0);
        store.initialize(b"12345678", "devid").unwrap();
        store.login(UserType::SecurityOfficer, b"12345678").unwrap();
        store.set_user_pin(pin.as_bytes()).unwrap();
    }

    /// Sets the PINs, and names the user's PIN in the configuration.
    pub fn set_configured_pins(&self, pin: &str) {
        self.set_pins(pin);
        let file = self.home.write("pin", pin);
        let setting = format!(
            "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
            file.display()
        );
        self.home.write("config.toml", setting);
    }
}
