//! The user who is logged in to a token (PKCS#11 3.0, section 2.6).

use devid_core::store::UserType;
use std::sync::atomic::{AtomicU8, Ordering};

/// The user who is logged in. The value is empty if no user is logged in.
#[derive(Debug, Default)]
pub(crate) struct CurrentUser(AtomicU8);

impl CurrentUser {
    const NOBODY: u8 = 0;
    const USER: u8 = 1;
    const OFFICER: u8 = 2;

    pub(crate) fn who(&self) -> Option<UserType> {
        Self::named(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, who: UserType) {
        let who = match who {
            UserType::User => Self::USER,
            UserType::SecurityOfficer => Self::OFFICER,
        };
        self.0.store(who, Ordering::Release);
    }

    /// Logs the user out, and returns the user who was logged in.
    pub(crate) fn clear(&self) -> Option<UserType> {
        Self::named(self.0.swap(Self::NOBODY, Ordering::AcqRel))
    }

    /// Returns a copy of the current user for a forked child.
    pub(crate) fn for_child(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Acquire)))
    }

    fn named(who: u8) -> Option<UserType> {
        match who {
            Self::USER => Some(UserType::User),
            Self::OFFICER => Some(UserType::SecurityOfficer),
            _ => None,
        }
    }
}
