//! The flags of C_GetTokenInfo that report wrong PINs (PKCS#11 3.0, section 3.2).
//!
//! The TPM counts the wrong PINs of all processes. A correct PIN does not reset the TPM's counter.
//! Therefore this process remembers the value of the counter after its last correct PIN.

use devid_core::store::UserType;

/// Whether the PINs that this process tried were right or wrong.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PinTries {
    user: Tries,
    officer: Tries,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    /// The TPM's counter after the last correct PIN. The value is 0 before the first correct PIN.
    counter: u32,
    /// True if the TPM's dictionary-attack counter must still be read after a correct PIN.
    is_due: bool,
    /// True if this process tried a wrong PIN after the last correct PIN.
    failed: bool,
}

impl PinTries {
    pub(super) fn right(&mut self, who: UserType) {
        *self.of(who) = Tries {
            is_due: true,
            ..Tries::default()
        };
    }

    pub(super) fn wrong(&mut self, who: UserType) {
        self.of(who).failed = true;
    }

    /// Returns true if a wrong PIN was entered after the last correct PIN. `counted` is the TPM's
    /// counter now.
    pub(super) fn has_failed(&mut self, who: UserType, counted: u32) -> bool {
        let tries = self.of(who);
        if tries.is_due && !tries.failed {
            (tries.counter, tries.is_due) = (counted, false);
        }
        // The TPM reduces its dictionary-attack counter over time.
        tries.counter = tries.counter.min(counted);
        counted > 0 && (tries.failed || counted > tries.counter)
    }

    fn of(&mut self, who: UserType) -> &mut Tries {
        match who {
            UserType::User => &mut self.user,
            UserType::SecurityOfficer => &mut self.officer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_pin_is_told_until_the_next_right_one() {
        let mut tries = PinTries::default();
        assert!(!tries.has_failed(UserType::User, 0));
        // Another process entered a wrong PIN.
        assert!(tries.has_failed(UserType::User, 1));
        tries.right(UserType::User);
        assert!(!tries.has_failed(UserType::User, 1));
        assert!(
            tries.has_failed(UserType::SecurityOfficer, 1),
            "who did not log in"
        );
        tries.wrong(UserType::User);
        assert!(tries.has_failed(UserType::User, 2));
        tries.right(UserType::User);
        tries.wrong(UserType::User);
        assert!(
            tries.has_failed(UserType::User, 3),
            "the wrong PIN came after the correct PIN"
        );
        assert!(
            !tries.has_failed(UserType::User, 0),
            "the TPM has reduced its counter"
        );
        tries.right(UserType::User);
        assert!(!tries.has_failed(UserType::User, 3));
        // The TPM reduces its counter over time. The next wrong PIN is still noticed.
        assert!(!tries.has_failed(UserType::User, 2));
        assert!(tries.has_failed(UserType::User, 3));
    }
}
