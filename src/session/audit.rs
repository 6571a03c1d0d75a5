//! The audit line for the use of a key (`[log] audit`).

use super::Session;
use crate::error::Error;
use crate::mechanism::table::Mechanism;
use crate::object::Object;
use cryptoki_sys::CKA_LABEL;
use devid_core::audit::{AuditLog, AuditSubject};
use devid_core::key::hex;

impl Session {
    /// Writes an audit line: the key, the mechanism and the result. The line has no information
    /// about the data.
    pub(super) fn note_use<T>(
        &self,
        audit: &AuditLog,
        object: &Object,
        mechanism: &Mechanism,
        result: &Result<T, Error>,
    ) {
        let key = object.private();
        let label = object.attribute(CKA_LABEL).ok();
        let subject = AuditSubject {
            token: self.slot.known_token().map(|token| token.label.clone()),
            label: label.map(|label| String::from_utf8_lossy(label).into_owned()),
            key_name: key.and_then(|key| key.name()).map(hex),
            key_id: key.map(|key| hex(key.public().id().as_bytes())),
        };
        let result = result.as_ref().map(drop);
        let result = result.map_err(|error| format!("0x{:08X} {error}", error.rv()));
        audit.key_used(mechanism.name, &subject, result);
    }
}
