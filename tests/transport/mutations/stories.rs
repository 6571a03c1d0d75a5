//! The steps of the child processes. They continue after every answer, and report the answer.

use super::report::Report;
use super::stage::Scene;
use cryptoki_sys::*;
use testkit::devid::{Kind, Own, PERSISTENT, TPM_HANDLE, label, yes};
use testkit::module::{Opened, ulong};
use testkit::own::P256;
use testkit::pins::{LABEL, OFFICER, Token, USER};
use testkit::raw::{Code, text};

pub const ANOTHER: &str = "another PIN";
pub const DATA: &[u8] = b"data";

/// A slot with a token, and a session there.
struct Place {
    slot: CK_SLOT_ID,
    token: String,
    session: CK_SESSION_HANDLE,
}

impl Place {
    fn is_own(&self) -> bool {
        self.token == "devid" || self.token == LABEL
    }
}

/// All slots that show a token, each with a session where one could be opened.
fn places(scene: &Scene, report: &mut Report) -> Vec<Place> {
    let raw = &scene.raw;
    let slots = report
        .called("C_GetSlotList", raw.slots(true))
        .unwrap_or_default();
    let place = |slot: CK_SLOT_ID| {
        let info = report.called("C_GetTokenInfo", raw.token_info(slot))?;
        let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION);
        let session = report.called("C_OpenSession", session)?;
        let token = text(&info.label);
        Some(Place {
            slot,
            token,
            session,
        })
    };
    slots.into_iter().filter_map(place).collect()
}

impl Scene {
    fn attribute(
        &self,
        at: &Place,
        key: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Option<Vec<u8>> {
        self.raw.attribute(at.session, key, kind).ok()
    }

    fn private_keys(&self, at: &Place) -> Vec<CK_OBJECT_HANDLE> {
        let private = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
        self.raw.find(at.session, &private).unwrap_or_default()
    }

    fn name(&self, at: &Place, key: CK_OBJECT_HANDLE) -> String {
        let label = self.attribute(at, key, CKA_LABEL).unwrap_or_default();
        let token = if at.is_own() { "devid" } else { "idev-id" };
        format!("{token}/{}", String::from_utf8_lossy(&label))
    }

    fn sign(
        &self,
        at: &Place,
        key: CK_OBJECT_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Result<Vec<u8>, Code> {
        let pss = [CKM_SHA256, CKG_MGF1_SHA256, 32];
        let parameter = match mechanism {
            CKM_SHA256_RSA_PKCS_PSS => &pss[..],
            _ => &[],
        };
        self.raw
            .sign_init_with(at.session, mechanism, parameter, key)?;
        self.raw.sign(at.session, DATA)
    }

    /// The module's own token, with a session.
    fn own(&self, report: &mut Report) -> Option<Place> {
        places(self, report).into_iter().find(Place::is_own)
    }
}

/// All objects and what they say.
pub fn listing(scene: &Scene, report: &mut Report) {
    report.called("C_Initialize", scene.raw.initialize());
    for at in places(scene, report) {
        report.called("C_GetMechanismList", scene.raw.mechanisms(at.slot));
        let found = report.called("C_FindObjects", scene.raw.find(at.session, &[]));
        for object in found.unwrap_or_default() {
            for kind in [
                CKA_CLASS,
                CKA_LABEL,
                CKA_ID,
                CKA_VALUE,
                CKA_SUBJECT,
                CKA_MODULUS,
                CKA_EC_POINT,
                CKA_PUBLIC_KEY_INFO,
                TPM_HANDLE,
            ] {
                scene.attribute(&at, object, kind);
            }
        }
        report.called("C_GenerateRandom", scene.raw.random(at.session, 40));
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// One signature with each key and each mechanism. `pin`: after a login.
pub fn signing(scene: &Scene, report: &mut Report, pin: Option<&str>) {
    report.called("C_Initialize", scene.raw.initialize());
    for at in places(scene, report) {
        if let (Some(pin), true) = (pin, at.is_own()) {
            let answer = scene.raw.login(at.session, CKU_USER, pin.as_bytes());
            report.called("C_Login", answer);
        }
        for key in scene.private_keys(&at) {
            let is_ec = scene.attribute(&at, key, CKA_KEY_TYPE) == Some(ulong(CKK_EC));
            let mechanisms: &[_] = match is_ec {
                true => &[CKM_ECDSA_SHA256],
                false => &[CKM_SHA256_RSA_PKCS, CKM_SHA256_RSA_PKCS_PSS],
            };
            for mechanism in mechanisms {
                let signed = scene.sign(&at, key, *mechanism);
                if let Some(signature) = report.called("C_Sign", signed) {
                    let name = scene.name(&at, key);
                    report.saw(&format!("signed {mechanism:#x} {name}"), &signature);
                }
            }
        }
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// The right PIN, a signature, and a wrong PIN.
pub fn login(scene: &Scene, report: &mut Report) {
    signing(scene, report, Some(USER));
    report.called("C_Initialize", scene.raw.initialize());
    if let Some(at) = scene.own(report) {
        let wrong = scene.raw.login(at.session, CKU_USER, b"a wrong one");
        report.called("a wrong PIN", wrong);
        let keys = scene.private_keys(&at).len();
        report.saw(
            "keys after a wrong PIN",
            &[u8::try_from(keys).expect("few")],
        );
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// Key pairs: what each of these would be certified as.
pub fn generation(
    scene: &Scene,
    report: &mut Report,
    pin: Option<&str>,
    wanted: &[(&str, Kind, bool)],
) {
    report.called("C_Initialize", scene.raw.initialize());
    if let Some(own) = logged_in(scene, report, pin) {
        for (name, kind, persistent) in wanted {
            let more = persistent.then(|| yes(PERSISTENT));
            let hidden = pin.map(|_| yes(CKA_PRIVATE));
            let private = [hidden.as_slice(), more.as_slice()].concat();
            let made = own.make_with(*kind, &[label(name), yes(CKA_TOKEN)], &private);
            if let Some(made) = report.called(&format!("make {name}"), made)
                && let Ok(info) = own
                    .raw
                    .attribute(own.session, made.public, CKA_PUBLIC_KEY_INFO)
            {
                report.saw(&format!("made {name}"), &info);
            }
        }
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// A session on the module's own token, after a login if there is a PIN.
fn logged_in(scene: &Scene, report: &mut Report, pin: Option<&str>) -> Option<Own> {
    let Place { slot, session, .. } = scene.own(report)?;
    if let Some(pin) = pin {
        let answer = scene.raw.login(session, CKU_USER, pin.as_bytes());
        report.called("C_Login", answer)?;
    }
    let raw = scene.raw.clone();
    Some(Own(Opened { raw, slot, session }))
}

/// A private key from outside by its numbers, and one that came wrapped for the key `rsa`.
pub fn import(scene: &Scene, report: &mut Report, scalar: &[u8], wrapped: &[u8]) {
    use testkit::ciphers::{mechanism, oaep};
    use testkit::wrapping::{rsa_aes, wanted};
    report.called("C_Initialize", scene.raw.initialize());
    if let Some(own) = logged_in(scene, report, None) {
        let brought = own.create(&[
            (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_EC)),
            yes(CKA_TOKEN),
            label("brought"),
            (CKA_EC_PARAMS, P256.to_vec()),
            (CKA_VALUE, scalar.to_vec()),
        ]);
        report.called("import brought", brought);
        let rsa = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), label("rsa")];
        let rsa = own.raw.find(own.session, &rsa).unwrap_or_default();
        if let Some(rsa) = rsa.first() {
            let inner = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
            let parameter = rsa_aes(256, &inner);
            let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
            let more = [yes(CKA_TOKEN), label("unwrapped")];
            let unwrapped = own.unwrap(by, *rsa, wrapped, &wanted(CKK_EC, &more));
            report.called("import unwrapped", unwrapped);
        }
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// Destroys two keys: one on the disk, and one in a handle.
pub fn destroy(scene: &Scene, report: &mut Report) {
    report.called("C_Initialize", scene.raw.initialize());
    if let Some(own) = logged_in(scene, report, None) {
        for name in ["ec", "kept"] {
            let wanted = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), label(name)];
            let found = own.raw.find(own.session, &wanted).unwrap_or_default();
            if let Some(key) = found.first() {
                let destroyed = own.destroy(*key);
                report.called(&format!("destroy {name}"), destroyed);
            }
        }
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// A change of a PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    ByUser,
    ByOfficer,
    ForUser,
    Anew,
}

/// The PIN becomes [`ANOTHER`].
pub fn pin_change(scene: &Scene, report: &mut Report, change: Change) {
    report.called("C_Initialize", scene.raw.initialize());
    let raw = &scene.raw;
    if let Some(Place { slot, session, .. }) = scene.own(report) {
        let token = Token {
            raw: raw.clone(),
            slot,
        };
        let user = |report: &mut Report| report.called("C_Login", token.login(session, USER));
        let officer =
            |report: &mut Report| report.called("C_Login", token.officer(session, OFFICER));
        match change {
            Change::ByUser => {
                user(report);
                report.called("change", token.set_pin(session, USER, ANOTHER));
            }
            // Without the login it would be the user's PIN that is changed, or nobody's.
            Change::ByOfficer if officer(report).is_some() => {
                report.called("change", token.set_pin(session, OFFICER, ANOTHER));
            }
            Change::ForUser if officer(report).is_some() => {
                report.called("change", token.init_pin(session, ANOTHER));
            }
            Change::ByOfficer | Change::ForUser => {}
            Change::Anew => {
                // C_InitToken wants no session open, and proves the officer's PIN.
                report.called("C_CloseSession", raw.close(session));
                report.called("change", token.init(OFFICER, LABEL));
            }
        }
    }
    report.called("C_Finalize", scene.raw.finalize());
}

/// All private keys, each with a signature; after a login by the first of these PINs that is taken.
pub fn look(scene: &Scene, report: &mut Report, pins: &[&str], officers: &[&str]) {
    scene.raw.initialize().expect("C_Initialize");
    for at in places(scene, report) {
        if at.is_own() {
            let takes =
                |user, pin: &&&str| scene.raw.login(at.session, user, pin.as_bytes()).is_ok();
            if let Some(pin) = officers.iter().find(|pin| takes(CKU_SO, pin)) {
                report.saw("officer", pin.as_bytes());
                scene.raw.logout(at.session).expect("C_Logout");
            }
            if let Some(pin) = pins.iter().find(|pin| takes(CKU_USER, pin)) {
                report.saw("user", pin.as_bytes());
            }
        }
        for key in scene.private_keys(&at) {
            let name = scene.name(&at, key);
            let attribute = |kind| scene.attribute(&at, key, kind);
            report.saw(
                &format!("key {name}"),
                &attribute(CKA_PUBLIC_KEY_INFO).unwrap_or_default(),
            );
            report.saw(
                &format!("handle {name}"),
                &attribute(TPM_HANDLE).unwrap_or_default(),
            );
            let mechanism = match attribute(CKA_KEY_TYPE) == Some(ulong(CKK_EC)) {
                true => CKM_ECDSA_SHA256,
                false => CKM_SHA256_RSA_PKCS,
            };
            let signed = scene.sign(&at, key, mechanism);
            if let Some(signature) = report.called(&format!("sign {name}"), signed) {
                report.saw(&format!("signature {name}"), &signature);
            }
        }
    }
    scene.raw.finalize().expect("C_Finalize");
}

/// Keys of a device in use: `ec`, `kept` in a handle, and `rsa`, which unwraps.
pub fn makes_keys(scene: &Scene) {
    scene.raw.initialize().expect("C_Initialize");
    let own = Own::with(scene.raw.clone(), "devid");
    own.make(Kind::P256, "ec").expect("a key");
    own.make_persistent(Kind::P256, "kept")
        .expect("a key in a handle");
    let both = [label("rsa"), yes(CKA_TOKEN)];
    own.make_with(Kind::Rsa(2048), &both, &[yes(CKA_UNWRAP)])
        .expect("an RSA key");
    own.raw.finalize().expect("C_Finalize");
}

/// With PINs, and without the RSA key.
pub fn makes_keys_with_pins(scene: &Scene) {
    scene.raw.initialize().expect("C_Initialize");
    let slot = scene.raw.slots(true).expect("C_GetSlotList")[1];
    let token = Token {
        raw: scene.raw.clone(),
        slot,
    };
    token.become_one_with_pins();
    let session = token.read_write();
    token.login(session, USER).expect("C_Login");
    for (name, more) in [("ec", None), ("kept", Some(yes(PERSISTENT)))] {
        token.pair(session, name, more.as_slice());
    }
    token.raw.finalize().expect("C_Finalize");
}
