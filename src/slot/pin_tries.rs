//! Whether a wrong PIN was entered since the last right one, as C_GetTokenInfo tells (PKCS#11 3.0,
//! section 3.2).
//!
//! The TPM counts wrong PINs of all processes, and a right one does not set its counter back. So this
//! process remembers what the counter was after the last right PIN.

use devid_core::store::UserType;

/// What came of the PINs that this process tried.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PinTries {
    user: Tries,
    officer: Tries,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tries {
    /// The TPM's counter when a right PIN was last entered; 0 before the first.
    counter: u32,
    /// Whether that counter is still to be read.
    is_due: bool,
    /// Whether a wrong PIN was entered here since.
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

    /// Whether a wrong PIN was entered since the last right one, the TPM having counted so many.
    pub(super) fn has_failed(&mut self, who: UserType, counted: u32) -> bool {
        let tries = self.of(who);
        if tries.is_due && !tries.failed {
            (tries.counter, tries.is_due) = (counted, false);
        }
        // What the TPM has forgotten is over.
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
        // By another process.
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
        // The TPM forgets one with time; the next wrong PIN is told all the same.
        assert!(!tries.has_failed(UserType::User, 2));
        assert!(tries.has_failed(UserType::User, 3));
    }
}
