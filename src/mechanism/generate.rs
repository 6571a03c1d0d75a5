//! The mechanisms that make key pairs (PKCS#11 3.0, sections 6.1.4 and 6.3.6).

use crate::error::Error;
use crate::mechanism::key_type::KeyType;
use crate::mechanism::params::Parameter;
use cryptoki_sys::*;

/// A mechanism that makes key pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generator {
    /// CKM_EC_KEY_PAIR_GEN
    Ec,
    /// CKM_RSA_PKCS_KEY_PAIR_GEN
    Rsa,
}

impl Generator {
    pub(crate) const ALL: [Self; 2] = [Self::Ec, Self::Rsa];

    /// From CK_MECHANISM; neither takes a parameter.
    pub(crate) fn parse(kind: CK_MECHANISM_TYPE, parameter: Parameter) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|one| one.kind() == kind);
        match (known, parameter) {
            (Some(generator), Parameter::None) => Ok(generator),
            (Some(_), _) => Err(Error::MechanismParamInvalid),
            (None, _) => Err(Error::MechanismInvalid),
        }
    }

    pub(crate) const fn kind(self) -> CK_MECHANISM_TYPE {
        self.key_type().generator()
    }

    pub(crate) const fn key_type(self) -> KeyType {
        match self {
            Self::Ec => KeyType::Ec,
            Self::Rsa => KeyType::Rsa,
        }
    }

    /// The smallest and the largest key that it makes, in bits. Whether a TPM has the largest, it
    /// says when it is asked.
    pub(crate) const fn key_sizes(self) -> (u32, u32) {
        match self {
            Self::Ec => (256, 521),
            Self::Rsa => (2048, 4096),
        }
    }

    /// What C_GetMechanismInfo tells.
    pub(crate) fn info(self) -> CK_MECHANISM_INFO {
        let (smallest, largest) = self.key_sizes();
        CK_MECHANISM_INFO {
            ulMinKeySize: smallest.into(),
            ulMaxKeySize: largest.into(),
            flags: CKF_HW | CKF_GENERATE_KEY_PAIR | self.key_type().mechanism_flags(),
        }
    }
}
