//! Dictionary-attack lockout (Part 1, section 19.8): the counter, and the command that resets it.

use super::Tcti;
use crate::shell::quoted;

/// The dictionary-attack state of the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// The number of failed authorisations that the TPM counts now.
    pub counter: u32,
    /// The number of failed authorisations that causes lockout.
    pub most: u32,
    /// The seconds until the TPM forgets one failed try. 0 if it forgets none, or if the TPM does
    /// not report the time.
    pub interval: u32,
}

impl Lockout {
    /// Returns the number of failed authorisations that remain before lockout.
    pub fn tries_left(&self) -> u32 {
        self.most.saturating_sub(self.counter)
    }
}

impl Tcti {
    /// Returns the shell command that ends lockout early.
    pub(crate) fn clearing_lockout(&self) -> String {
        self.tool("tpm2_dictionarylockout --clear-lockout")
    }

    /// Returns a shell command of tpm2-tools for this TPM. The option `--tcti` is omitted if
    /// tpm2-tools uses this TPM by default.
    pub(crate) fn tool(&self, command: &str) -> String {
        let (name, words) = command.split_once(' ').unwrap_or((command, ""));
        match *self == Self::default() {
            true => command.to_owned(),
            false => format!("{name} --tcti {} {words}", quoted(&self.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_tpm_as_its_tools_do() {
        let command = |tcti: &str| tcti.parse::<Tcti>().unwrap().tool("tpm2_x -y");
        assert_eq!(command("device:/dev/tpmrm0"), "tpm2_x -y");
        assert_eq!(
            command("device:/dev/tpm0"),
            "tpm2_x --tcti device:/dev/tpm0 -y"
        );
        let swtpm = "tpm2_x --tcti 'swtpm:host=h,port=1' -y";
        for tcti in ["swtpm:host=h,port=1", "esapi:swtpm:host=h,port=1"] {
            assert_eq!(command(tcti), swtpm, "{tcti}");
        }
        assert_eq!(
            command("tabrmd:bus_type=session"),
            "tpm2_x --tcti 'tabrmd:bus_type=session' -y"
        );
    }
}
