//! Keys in persistent handles.

use super::exchange::{AuthSubject, Exchange};
use super::{Auth, AuthHandle, AuthValue, Link, Tpm, TpmError};
use std::sync::atomic::{AtomicU64, Ordering};

/// A key in a persistent handle. `name` is the TPM name that the key had at the scan.
#[derive(Debug)]
pub struct PersistentKey {
    handle: u32,
    name: Vec<u8>,
    /// The count of transport faults when the handle was last known to contain the key of this
    /// name.
    seen_at: AtomicU64,
}

impl Tpm {
    /// Returns all handles of the same range as `first`, from `first` on, in ascending order.
    pub fn handles(&self, first: u32) -> Result<Vec<u32>, TpmError> {
        Exchange::new("GetCapability(handles)").run(self, |link| link.handles(first))
    }

    /// Reads the public area (TPMT_PUBLIC) of a persistent handle. Returns the public area and the
    /// key.
    pub fn persistent_key(&self, handle: u32) -> Result<(Vec<u8>, PersistentKey), TpmError> {
        let seen_at = self.faults();
        let (area, name) =
            Exchange::new("ReadPublic").run(self, |link| link.read_public(handle))?;
        let key = PersistentKey {
            handle,
            name,
            seen_at: AtomicU64::new(seen_at),
        };
        Ok((area, key))
    }

    /// Runs commands with a persistent key. `value` is its authorisation value, which may be empty.
    ///
    /// After a transport fault one more command first checks the name in the handle. A value that
    /// is not empty costs one more command each time. With the empty value the commands may run
    /// twice.
    pub(crate) fn with_persistent<R>(
        &self,
        what: &str,
        key: &PersistentKey,
        value: &AuthValue,
        mut commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let salt_key = self.salt_key_for(value)?;
        let subject = AuthSubject {
            id: &key.name,
            called: "key",
            handle: Some(key.handle),
            value: value.as_bytes(),
        };
        let exchange = Exchange::authorised(what, subject, salt_key.as_ref());
        exchange.run(self, |link| {
            let faults = self.faults();
            if key.seen_at.load(Ordering::Acquire) != faults {
                let (_, name) = link.read_public(key.handle)?;
                if name != key.name {
                    return Err(TpmError::KeyReplaced(key.handle));
                }
                key.seen_at.store(faults, Ordering::Release);
            }
            let auth = Auth::by(value.as_bytes(), salt_key.as_ref());
            commands(link, AuthHandle::new(key.handle, &key.name, auth))
        })
    }
}

impl PersistentKey {
    /// Returns the persistent handle.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Returns the TPM name: algorithm and digest of the public area (Part 1, section 16).
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::fake::{
        FIXED, FakeTpm, GET_CAPABILITY, IDENTITY, READ_PUBLIC, Reply, SIGN, p256_area, public,
        signature,
    };
    use crate::tpm::{CommandClass, Hash, Signature, SignatureScheme};

    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(20);
    const HANDLE: u32 = 0x8102_0000;
    const ECDSA: SignatureScheme = SignatureScheme::Ecdsa(Hash::Sha256);

    fn sign(tpm: &Tpm, key: &PersistentKey) -> Result<Signature, TpmError> {
        tpm.with_persistent("Sign", key, &AuthValue::default(), |link, used| {
            link.sign(used, ECDSA, &[7; 32])
        })
    }

    fn found() -> Reply {
        public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 1])
    }

    fn key_of(tpm: &Tpm) -> PersistentKey {
        tpm.persistent_key(HANDLE).unwrap().1
    }

    #[test]
    fn a_tpm_that_asks_for_it_gets_the_command_again() {
        let codes = [0x922, 0x908, 0x90A, 0x920].map(Reply::Code);
        let replies = [found()]
            .into_iter()
            .chain(codes)
            .chain([signature(&[1], &[2])]);
        let fake = FakeTpm::new(replies);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        let pair = sign(&tpm, &key).unwrap();
        assert_eq!(
            pair,
            Signature::Ecc {
                r: vec![1],
                s: vec![2]
            }
        );
        assert_eq!(fake.seen(), [READ_PUBLIC, SIGN, SIGN, SIGN, SIGN, SIGN]);
    }

    #[test]
    fn after_a_fault_the_name_is_compared_before_the_next_signature() {
        let fake = FakeTpm::new([
            found(),
            Reply::Hangup,
            found(),
            signature(&[1], &[2]),
            signature(&[3], &[4]),
            Reply::Hangup,
            public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 9]),
        ]);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        let sign = || sign(&tpm, &key);
        assert!(sign().is_ok() && sign().is_ok());
        assert_eq!(sign(), Err(TpmError::KeyReplaced(HANDLE)));
        let (asked, signed) = (READ_PUBLIC, SIGN);
        assert_eq!(
            fake.seen(),
            [asked, signed, asked, signed, signed, signed, asked]
        );
    }

    #[test]
    fn a_connection_that_keeps_failing_is_given_up() {
        let fake = FakeTpm::new([Reply::Hangup, Reply::Hangup]);
        let tpm = fake.tpm(LIMIT);
        assert!(tpm.handles(0x8100_0000).unwrap_err().is_transport_fault());
        assert_eq!((fake.seen().len(), tpm.faults()), (2, 2));
    }

    #[test]
    fn silence_ends_at_the_limit() {
        let fake = FakeTpm::new([Reply::Silence]);
        let limit = Duration::from_millis(50);
        let tpm = fake.tpm(limit);
        let began = Instant::now();
        assert_eq!(
            tpm.random(&mut [0]),
            Err(TpmError::Timeout(
                tpm.limits().for_class(CommandClass::Ordinary)
            ))
        );
        assert!(began.elapsed() >= limit);
    }

    #[test]
    fn a_key_that_wants_an_authorisation_is_asked_once() {
        let fake = FakeTpm::new([found(), Reply::Code(0x98E)]);
        let tpm = fake.tpm(LIMIT);
        let key = key_of(&tpm);
        for _ in 0..3 {
            let refused = sign(&tpm, &key);
            assert_eq!(refused, Err(TpmError::NeedsAuth("key 0x81020000".into())));
        }
        assert_eq!(
            fake.seen(),
            [READ_PUBLIC, SIGN],
            "each try would count towards lockout"
        );
    }

    #[test]
    fn lockout_is_told_and_not_retried() {
        let fake = FakeTpm::new([found(), Reply::Code(0x921), Reply::Code(0x101)]);
        let tpm = fake.tpm(LIMIT);
        let refused = sign(&tpm, &key_of(&tpm));
        assert_eq!(refused, Err(TpmError::Lockout(tpm.tcti().clone())));
        assert_eq!(fake.seen(), [READ_PUBLIC, SIGN, GET_CAPABILITY]);
    }
}
