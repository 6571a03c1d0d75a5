//! The flags of C_GetTokenInfo that tell of wrong PINs (PKCS#11 3.0, section 3.2).
//!
//! The TPM counts wrong PINs of all processes, and a correct PIN does not reset its counter. So
//! this process remembers the counter after the last correct PIN.

use devid_core::store::UserType;

/// The results of the PINs that this process tried.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PinTries {
    user: Tries,
    officer: Tries,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    /// The TPM's counter at the last correct PIN; 0 before the first.
    counter: u32,
    /// True if that counter was not read yet.
    is_due: bool,
    /// True if this process tried a wrong PIN since then.
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

    /// True if a wrong PIN was entered since the last correct PIN. `counted` is the TPM's counter.
    pub(super) fn has_failed(&mut self, who: UserType, counted: u32) -> bool {
        let tries = self.of(who);
        if tries.is_due && !tries.failed {
            (tries.counter, tries.is_due) = (counted, false);
        }
        // The TPM reduces its counter over time.
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
        assert!(tries.has_failed(UserType::User, 3), "the order counts");
        assert!(
            !tries.has_failed(UserType::User, 0),
            "somebody has forgiven"
        );
        tries.right(UserType::User);
        assert!(!tries.has_failed(UserType::User, 3));
        // The TPM forgets a try over time. The next wrong PIN is still noticed.
        assert!(!tries.has_failed(UserType::User, 2));
        assert!(tries.has_failed(UserType::User, 3));
    }
}
