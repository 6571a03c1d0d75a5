//! TPM response codes (Part 2, section 6.6).

use std::fmt;

/// A TPM response code other than TPM_RC_SUCCESS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

/// The part of the command to which a format-one response code refers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Parameter,
    /// A handle or an auth session of the command.
    Other,
    Untold,
}

impl ResponseCode {
    const RETRY: u32 = 0x922;
    const YIELDED: u32 = 0x908;
    const TESTING: u32 = 0x90A;
    const NV_RATE: u32 = 0x920;
    const LOCKOUT: u32 = 0x921;
    const NV_SPACE: u32 = 0x14B;
    const NV_DEFINED: u32 = 0x14C;
    const TYPE: u32 = 0x08A;
    const INTEGRITY: u32 = 0x09F;
    const SENSITIVE: u32 = 0x155;
    const OBJECT_MEMORY: u32 = 0x902;
    const SESSION_MEMORY: u32 = 0x903;
    const SESSION_HANDLES: u32 = 0x905;
    const AUTH_FAIL: u32 = 0x08E;
    const BAD_AUTH: u32 = 0x0A2;
    const HANDLE: u32 = 0x08B;
    const HIERARCHY: u32 = 0x085;
    const CURVE: u32 = 0x0A6;
    const INITIALIZE: u32 = 0x100;
    const FAILURE: u32 = 0x101;
    /// The errors that concern the state of the TPM, not the command. Besides INITIALIZE and
    /// FAILURE these are EXCLUSIVE, UPGRADE, TOO_MANY_CONTEXTS, REBOOT and NEEDS_TEST.
    const OF_STATE: [u32; 7] = [
        Self::INITIALIZE,
        Self::FAILURE,
        0x121,
        0x12D,
        0x12E,
        0x130,
        0x153,
    ];

    /// Returns true if the TPM did not run the command and asks for the same command again.
    pub fn asks_for_resend(self) -> bool {
        matches!(
            self.0,
            Self::RETRY | Self::YIELDED | Self::TESTING | Self::NV_RATE
        )
    }

    /// Returns true if the command may succeed later. The TPM asks for the command again, or its
    /// slots are in use.
    pub fn is_temporary(self) -> bool {
        self.asks_for_resend() || self.is_out_of_objects()
    }

    /// Returns true if the TPM is in dictionary-attack lockout.
    pub fn is_lockout(self) -> bool {
        self.0 == Self::LOCKOUT
    }

    /// Returns true if the TPM must be reset or started before it runs commands.
    pub fn is_out_of_order(self) -> bool {
        matches!(self.0, Self::INITIALIZE | Self::FAILURE)
    }

    /// Returns true if the authorisation value was wrong.
    pub fn is_wrong_auth(self) -> bool {
        matches!(self.base(), Self::AUTH_FAIL | Self::BAD_AUTH)
    }

    /// Returns true if the hierarchy is disabled.
    #[cfg(feature = "manufacture")]
    pub fn is_disabled_hierarchy(self) -> bool {
        self.base() == Self::HIERARCHY
    }

    /// Returns true if the TPM refuses a parameter of the command. The same command then fails
    /// again.
    ///
    /// Some TPMs omit which part of the command they refuse. This function treats a code without
    /// this information as the refusal of a parameter. Exceptions are HANDLE, HIERARCHY and the
    /// codes for a wrong authorisation value.
    pub fn is_parameter(self) -> bool {
        match self.about() {
            Some(About::Parameter) => true,
            Some(About::Untold) => {
                !matches!(self.base(), Self::HANDLE | Self::HIERARCHY) && !self.is_wrong_auth()
            }
            Some(About::Other) | None => false,
        }
    }

    /// Returns true if the object is a hash sequence, which has no public area.
    #[cfg(feature = "evidence")]
    pub fn is_of_sequence(self) -> bool {
        const SEQUENCE: u32 = 0x103;
        self.0 == SEQUENCE
    }

    /// Returns true if the public area and the sensitive area belong to two objects.
    #[cfg(feature = "evidence")]
    pub fn is_of_unbound_halves(self) -> bool {
        const BINDING: u32 = 0x0A5;
        self.base() == BINDING
    }

    /// Returns the number of the refused parameter. The first parameter has the number 1.
    #[cfg(feature = "evidence")]
    pub fn parameter(self) -> Option<u32> {
        (self.about() == Some(About::Parameter)).then_some(self.0 >> 8 & 0xF)
    }

    /// Returns true if the TPM refuses a handle, an auth session or the hierarchy of the command.
    /// Other parameters would not help.
    pub fn is_of_handle_or_session(self) -> bool {
        match self.about() {
            Some(About::Other) => true,
            Some(About::Untold) => self.base() == Self::HIERARCHY || self.is_wrong_auth(),
            Some(About::Parameter) | None => self.is_wrong_auth(),
        }
    }

    /// Returns true if the TPM refuses the second session of the command, which authorises the
    /// second handle.
    #[cfg(feature = "evidence")]
    pub fn is_of_second_session(self) -> bool {
        const SECOND_SESSION: u32 = 0xA00;
        self.about() == Some(About::Other) && self.0 & 0xF00 == SECOND_SESSION
    }

    /// Returns true if a handle of the command contains no object: HANDLE or TPM_RC_REFERENCE.
    pub fn is_missing_handle(self) -> bool {
        self.base() == Self::HANDLE || (0x910..=0x916).contains(&self.0)
    }

    /// Returns true if the TPM refuses the value of the first handle. The TPM returns this code if
    /// a resource manager passes an unknown handle to the TPM.
    pub fn is_unknown_handle(self) -> bool {
        self.0 == 0x184
    }

    /// Returns true if the persistent handle already contains an object.
    pub fn is_taken(self) -> bool {
        self.0 == Self::NV_DEFINED
    }

    /// Returns true if the TPM has no room for another persistent key.
    pub fn is_no_room(self) -> bool {
        matches!(self.0, Self::NV_SPACE | Self::OBJECT_MEMORY)
    }

    /// Returns true if the TPM does not implement a value: a curve, a size or an algorithm.
    pub fn is_unsupported_value(self) -> bool {
        // ASYMMETRIC, HASH, VALUE, KEY_SIZE, SCHEME, SYMMETRIC
        matches!(self.base(), 0x081 | 0x083 | 0x084 | 0x087 | 0x092 | 0x096)
            || self.is_unsupported_curve()
    }

    /// Returns true if the TPM does not implement the curve.
    pub fn is_unsupported_curve(self) -> bool {
        self.base() == Self::CURVE
    }

    /// Returns true if TPM2_Load found that the parent did not wrap this object in this form.
    pub fn is_unsound_object(self) -> bool {
        self.is_parameter() || self.0 == Self::SENSITIVE
    }

    /// Returns true if the command does not accept the type of the entity in a handle.
    pub fn is_other_kind(self) -> bool {
        let about = self.about();
        matches!(about, Some(About::Other | About::Untold)) && self.base() == Self::TYPE
    }

    /// Returns true if the entity needs a policy session instead of an authorisation value.
    pub fn asks_for_policy(self) -> bool {
        matches!(self.base(), 0x124 | 0x12F)
    }

    /// Returns true if all slots for objects or all slots for sessions are in use.
    pub fn is_out_of_objects(self) -> bool {
        self.0 == Self::OBJECT_MEMORY || self.is_out_of_sessions()
    }

    /// Returns true if all slots for sessions are in use.
    pub fn is_out_of_sessions(self) -> bool {
        matches!(self.0, Self::SESSION_MEMORY | Self::SESSION_HANDLES)
    }

    /// Returns true if the TPM finally refuses the request. The function returns true for errors
    /// and vendor errors. It returns false for warnings and for errors of the TPM's state.
    pub fn is_definite(self) -> bool {
        match self.0 {
            0x100..=0x17F => !Self::OF_STATE.contains(&self.0),
            0x500..=0x57F => true,
            _ => self.about().is_some(),
        }
    }

    /// Returns the part of the command that a format-one code is about; `None` for other codes.
    fn about(self) -> Option<About> {
        const FORMAT_ONE: u32 = 1 << 7;
        const PARAMETER: u32 = 1 << 6;
        const NUMBER: u32 = 0xF00;
        match self.0 {
            0x1000.. => None,
            code if code & FORMAT_ONE == 0 => None,
            code if code & PARAMETER != 0 => Some(About::Parameter),
            code if code & NUMBER != 0 => Some(About::Other),
            _ => Some(About::Untold),
        }
    }

    /// Returns a format-one code without the number of its handle, session or parameter. Returns
    /// other codes unchanged.
    fn base(self) -> u32 {
        match self.about() {
            None => self.0,
            Some(_) => self.0 & 0x0BF,
        }
    }

    fn name(self) -> Option<&'static str> {
        Some(match self.base() {
            Self::INITIALIZE => "TPM_RC_INITIALIZE: the TPM was not started",
            Self::FAILURE => "TPM_RC_FAILURE",
            0x120 => "TPM_RC_DISABLED",
            0x124 => "TPM_RC_AUTH_TYPE",
            0x12F => "TPM_RC_AUTH_UNAVAILABLE",
            0x143 => "TPM_RC_COMMAND_CODE",
            0x148 => "TPM_RC_NV_LOCKED",
            0x149 => "TPM_RC_NV_AUTHORIZATION",
            0x14A => "TPM_RC_NV_UNINITIALIZED",
            Self::NV_SPACE => "TPM_RC_NV_SPACE: no room for another persistent key",
            Self::NV_DEFINED => "TPM_RC_NV_DEFINED",
            Self::INTEGRITY => "TPM_RC_INTEGRITY",
            Self::OBJECT_MEMORY => "TPM_RC_OBJECT_MEMORY: all slots for objects are in use",
            Self::SESSION_MEMORY => "TPM_RC_SESSION_MEMORY",
            0x904 => "TPM_RC_MEMORY",
            Self::YIELDED => "TPM_RC_YIELDED",
            0x909 => "TPM_RC_CANCELED",
            Self::TESTING => "TPM_RC_TESTING",
            0x910..=0x916 => "TPM_RC_REFERENCE: handle not loaded",
            Self::NV_RATE => "TPM_RC_NV_RATE",
            Self::LOCKOUT => "TPM_RC_LOCKOUT",
            Self::RETRY => "TPM_RC_RETRY",
            Self::SENSITIVE => "TPM_RC_SENSITIVE",
            0x082 => "TPM_RC_ATTRIBUTES",
            0x923 => "TPM_RC_NV_UNAVAILABLE",
            0x083 => "TPM_RC_HASH",
            0x084 => "TPM_RC_VALUE",
            Self::TYPE => "TPM_RC_TYPE",
            Self::HANDLE => "TPM_RC_HANDLE",
            Self::AUTH_FAIL => "TPM_RC_AUTH_FAIL",
            0x087 => "TPM_RC_KEY_SIZE",
            0x081 => "TPM_RC_ASYMMETRIC",
            Self::HIERARCHY => "TPM_RC_HIERARCHY",
            0x092 => "TPM_RC_SCHEME",
            0x095 => "TPM_RC_SIZE",
            0x09C => "TPM_RC_KEY",
            Self::BAD_AUTH => "TPM_RC_BAD_AUTH",
            Self::CURVE => "TPM_RC_CURVE: a curve that the TPM does not have",
            _ => return None,
        })
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "0x{:03X} ({name})", self.0),
            None => write!(f, "0x{:03X}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_one_codes_lose_only_what_they_are_about() {
        assert!(ResponseCode(0x98E).is_wrong_auth());
        assert!(ResponseCode(0xA8E).is_wrong_auth());
        assert!(ResponseCode(0x9A2).is_wrong_auth());
        assert!(!ResponseCode(0x921).is_wrong_auth());
        assert!(ResponseCode(0x921).is_lockout());
    }

    #[test]
    fn only_codes_after_which_nothing_was_done_are_sent_again() {
        for code in [0x922, 0x908, 0x90A, 0x920] {
            assert!(ResponseCode(code).asks_for_resend(), "{code:x}");
        }
        for code in [0x101, 0x921, 0x98E, 0x902, 0x909] {
            assert!(!ResponseCode(code).asks_for_resend(), "{code:x}");
        }
    }

    #[test]
    fn a_failure_is_not_an_answer() {
        // Errors with and without a number, errors of a command, errors of a vendor.
        for code in [
            0x18B, 0x08B, 0x14A, 0x149, 0x148, 0x98E, 0x08E, 0x12F, 0x1C4, 0x0A6, 0x0BF, 0x143,
            0x17F, 0x501, 0x57F,
        ] {
            assert!(ResponseCode(code).is_definite(), "{code:x}");
        }
        // Codes of the TPM's state, warnings, vendor warnings, codes of TPM 1.2 and of other
        // software layers.
        for code in [
            0x101,
            0x100,
            0x130,
            0x153,
            0x922,
            0x921,
            0x902,
            0x910,
            0x97F,
            0xD01,
            0x01E,
            0x000A_000A,
            0x0007_0084,
        ] {
            assert!(!ResponseCode(code).is_definite(), "{code:x}");
        }
    }

    #[test]
    fn a_bare_code_is_a_parameters_unless_it_cannot_be() {
        for code in [
            0x2E6, 0x0E6, 0x0A6, 0x09F, 0x1DF, 0x084, 0x083, 0x095, 0x0BF, 0x08A,
        ] {
            assert!(ResponseCode(code).is_parameter(), "{code:x}");
        }
        for code in [
            0x08B,
            0x085,
            0x08E,
            0x0A2,
            0x18B,
            0x184,
            0x98E,
            0x101,
            0x922,
            0x0007_00C4,
        ] {
            assert!(!ResponseCode(code).is_parameter(), "{code:x}");
        }
        for code in [0x0A6, 0x2E6, 0x084, 0x2C4, 0x083] {
            assert!(ResponseCode(code).is_unsupported_value(), "{code:x}");
        }
        for (code, about) in [
            (0x18B, true),
            (0x185, true),
            (0x98E, true),
            (0x085, true),
            (0x0C5, false),
            (0x2C4, false),
        ] {
            assert_eq!(
                ResponseCode(code).is_of_handle_or_session(),
                about,
                "{code:x}"
            );
        }
        assert!(ResponseCode(0x08B).is_missing_handle());
        assert!(ResponseCode(0x08A).is_other_kind() && ResponseCode(0x18A).is_other_kind());
        assert!(!ResponseCode(0x1CA).is_other_kind());
    }

    #[test]
    fn codes_say_their_name() {
        assert_eq!(ResponseCode(0x921).to_string(), "0x921 (TPM_RC_LOCKOUT)");
        assert_eq!(ResponseCode(0x2FF).to_string(), "0x2FF");
    }
}
