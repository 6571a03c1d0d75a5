//! An attacker between the module and its TPM alters answers: bits, sizes and counts; missing and
//! additional data; older answers and answers to other commands; slow, short and missing answers;
//! other codes.
//!
//! In every case the host neither crashes nor hangs, and no secret crosses the wire. A returned
//! signature is valid. A key that is shown as made is in this TPM. No key is lost, and nothing
//! stays in the TPM.
//!
//! `DEVID_MUTATIONS=N` alters N answers in all stories together (default 180).
//! `DEVID_MUTATION_SEED=N` starts with another seed. `DEVID_MUTATION_ONLY=SEED` runs only the case
//! of this seed, which a failure names.

mod case;
mod grid;
mod report;
mod stage;
mod stories;

use case::{Case, Story, VARIANTS, is_ec};
use report::Told;
use stage::{Outcome, Scene, Stage};
use std::path::Path;
use stories::{ANOTHER, Change, DATA};
use testkit::devid::Kind;
use testkit::openssl::{Verifier, digest};
use testkit::own::{P256_KEY, outside, public_pem};
use testkit::pins::{OFFICER, USER, hex};
use testkit::programs::{output, program, run, run_with};
use testkit::wrapping::{openssl_wraps, private_key_info};

/// The same stories, told while somebody alters answers by chance.
mod chance {
    fn listing() {
        super::listing().run();
    }
    fn signing() {
        super::signing().run();
    }
    fn login() {
        super::login().run();
    }
    fn first_key() {
        super::first_key().run();
    }
    fn generation() {
        super::generation().run();
    }
    fn generation_with_pin() {
        super::generation_with_pin().run();
    }
    fn import() {
        super::import().run();
    }
    fn pin_change() {
        super::pin_change().run();
    }
    fn provisioning() {
        super::provisioning().run();
    }
    once!(
        listing,
        signing,
        login,
        first_key,
        generation,
        generation_with_pin,
        import,
        pin_change,
        provisioning,
    );
}

const OWNER: &str = "the owner's secret";

/// A device whose keys are made in a process of their own.
fn stage(make: fn(&Scene)) -> Stage {
    Stage::new("", |stage| {
        stage.plays(|scene, _| make(scene)).0.expect("keys")
    })
}

/// A device without keys of its own, and a TPM whose owner has a secret.
fn new_device() -> Stage {
    let secret = hex(OWNER.as_bytes());
    let settings = format!("[master]\nowner_auth = \"hex:{secret}\"\n");
    let owned = |stage: &Stage| stage.tool("tpm2_changeauth", &["-c", "owner", OWNER]);
    Stage::new(&settings, owned)
}

fn look(stage: &Stage, _: usize, _: Option<&Told>) -> Outcome {
    stage.plays(|scene, report| stories::look(scene, report, &[], &[]))
}

fn look_with_pin(stage: &Stage, _: usize, _: Option<&Told>) -> Outcome {
    stage.plays(|scene, report| stories::look(scene, report, &[USER], &[]))
}

fn listing() -> Story {
    Story {
        name: "listing",
        stage: stage(stories::makes_keys),
        tell: Box::new(move |stage, _| stage.plays_through_proxy(stories::listing)),
        look: Box::new(look),
        judge: Box::new(move |_| {}),
        keeps_keys: Box::new(move |_| true),
        wrong: 0,
        secrets: Vec::new(),
    }
}

/// Each signature that was given out is one by a key of this stage.
fn gives_out_signatures(case: &Case) {
    for (name, signature) in case.told.seen("signed ") {
        let is_pss = name.starts_with("0x43 ");
        let accepts = |case: &Case, info: &[u8]| match is_pss {
            true => !is_ec(info) && accepts_pss(case.stage, info, &signature),
            false => case.accepts(info, &signature),
        };
        if !case.is_by_known_key(accepts) {
            let fault = format!("an invalid signature was given out: {name}");
            return case.fault(fault);
        }
    }
}

fn accepts_pss(stage: &Stage, info: &[u8], signature: &[u8]) -> bool {
    let judge = Verifier::new(&stage.home.write("judge.pem", public_pem(info)));
    let said = judge.accepts_pss("sha256", &digest("-sha256", DATA), signature);
    said.status.success()
}

fn signing() -> Story {
    Story {
        name: "signing",
        stage: stage(stories::makes_keys),
        tell: Box::new(move |stage, _| {
            stage.plays_through_proxy(|scene, report| stories::signing(scene, report, None))
        }),
        look: Box::new(look),
        judge: Box::new(gives_out_signatures),
        keeps_keys: Box::new(move |_| true),
        wrong: 0,
        secrets: Vec::new(),
    }
}

fn login() -> Story {
    Story {
        name: "login",
        stage: stage(stories::makes_keys_with_pins),
        tell: Box::new(move |stage, _| stage.plays_through_proxy(stories::login)),
        look: Box::new(look_with_pin),
        judge: Box::new(move |case| {
            gives_out_signatures(case);
            if case.told.ok("a wrong PIN") {
                case.fault("a wrong PIN was taken");
            }
            let keys = case.told.seen("keys after a wrong PIN");
            if keys.iter().any(|(_, count)| *count != [0]) {
                case.fault("private keys are seen after a wrong PIN");
            }
        }),
        keeps_keys: Box::new(move |_| true),
        wrong: 1,
        secrets: Vec::new(),
    }
}

/// The objects of one variant: names, kinds, and whether in a handle.
const WANTED: [&[(&str, Kind, bool)]; VARIANTS] = [
    &[("one", Kind::P256, false)],
    &[("one", Kind::P256, true)],
    &[("one", Kind::P384, false), ("two", Kind::P256, true)],
    &[("one", Kind::Rsa(2048), false)],
];

fn makes(stage: &Stage, variant: usize, pin: Option<&str>) -> Outcome {
    let wanted = WANTED[variant];
    stage.plays_through_proxy(|scene, report| stories::generation(scene, report, pin, wanted))
}

/// A made object is there as it was shown. An object that was not made is not there, and the next
/// key can be made.
fn made_or_not(case: &Case) {
    for (name, ..) in WANTED[case.variant] {
        let place = format!("devid/{name}");
        let shown = case.told.seen(&format!("made {name}"));
        let shown = shown.into_iter().next();
        match (case.told.ok(&format!("make {name}")), shown) {
            (true, Some((_, info))) => case.holds(&place, &info),
            (true, None) => {} // its public half could not be read meanwhile
            // If faults continue, a change cannot be undone. If the TPM does not answer, the file
            // is kept.
            (false, _) if case.altered == 1 && !case.was_silent && case.is_shown(&place) => {
                case.fault(format!("{name} was not made, said the call, and is there"));
            }
            (false, _) => {}
        }
    }
    let next = case.found.seen("made next");
    match next.into_iter().next() {
        Some((_, info)) => case.holds("devid/next", &info),
        None => {
            let code = case.found.code("make next").map(str::to_owned);
            case.fault(format!("no further key can be made: {code:?}"));
        }
    }
}

/// A look; after a story the next key is made before it.
fn look_and_make(stage: &Stage, told: Option<&Told>, pin: Option<&str>) -> Outcome {
    let next = [("next", Kind::P256, false)];
    stage.plays(|scene, report| {
        if told.is_some() {
            stories::generation(scene, report, pin, &next);
        }
        stories::look(scene, report, pin.as_slice(), &[]);
    })
}

fn first_key() -> Story {
    Story {
        name: "first_key",
        stage: new_device(),
        tell: Box::new(move |stage, variant| makes(stage, variant, None)),
        look: Box::new(move |stage, _, told| look_and_make(stage, told, None)),
        judge: Box::new(made_or_not),
        keeps_keys: Box::new(move |_| false), // but for the factory's none is there before
        wrong: 0,
        secrets: vec![OWNER.as_bytes().to_vec()],
    }
}

fn generation() -> Story {
    Story {
        name: "generation",
        stage: stage(stories::makes_keys),
        tell: Box::new(move |stage, variant| makes(stage, variant, None)),
        look: Box::new(move |stage, _, told| look_and_make(stage, told, None)),
        judge: Box::new(made_or_not),
        keeps_keys: Box::new(move |_| true),
        wrong: 0,
        secrets: Vec::new(),
    }
}

fn generation_with_pin() -> Story {
    Story {
        name: "generation_with_pin",
        stage: stage(stories::makes_keys_with_pins),
        tell: Box::new(move |stage, variant| makes(stage, variant, Some(USER))),
        look: Box::new(move |stage, _, told| look_and_make(stage, told, Some(USER))),
        judge: Box::new(made_or_not),
        keeps_keys: Box::new(move |_| true),
        wrong: 0,
        secrets: Vec::new(),
    }
}

fn import() -> Story {
    let stage = stage(stories::makes_keys);
    outside(&stage.home, "outside", &P256_KEY);
    let key = stage.path("outside.key");
    let der = output("openssl", ["ec", "-in", &key, "-outform", "DER"]);
    assert_eq!(der[5..7], [4, 32], "ECPrivateKey (RFC 5915)");
    let scalar = der[7..39].to_vec();
    let secrets = vec![scalar.clone()];
    let public = output("openssl", ["ec", "-in", &key, "-pubout", "-outform", "DER"]);
    let (_, known) = look(&stage, 0, None);
    let rsa = known.seen("key devid/rsa").remove(0).1;
    let rsa = stage.home.write("rsa.pem", public_pem(&rsa));
    let info = private_key_info(&stage.home, "outside");
    let wrapped = openssl_wraps(&stage.home, &rsa, (256, "sha256"), &info);
    Story {
        name: "import",
        stage,
        tell: Box::new(move |stage, _| {
            stage.plays_through_proxy(|scene, report| {
                stories::import(scene, report, &scalar, &wrapped);
            })
        }),
        look: Box::new(look),
        judge: Box::new(move |case| {
            for name in ["brought", "unwrapped"] {
                let place = format!("devid/{name}");
                match case.told.ok(&format!("import {name}")) {
                    true => case.holds(&place, &public),
                    false if case.is_shown(&place) => {
                        case.fault(format!(
                            "{name} was not taken in, said the call, and is there"
                        ));
                    }
                    false => {}
                }
            }
        }),
        keeps_keys: Box::new(move |_| true),
        wrong: 0,
        secrets,
    }
}

const CHANGES: [Change; VARIANTS] = [
    Change::ByUser,
    Change::ByOfficer,
    Change::ForUser,
    Change::Anew,
];

/// The PINs of the user and of the officer after this change.
fn pins_after(change: Change, told: Option<&Told>) -> [&'static str; 2] {
    match (told.is_some_and(|told| told.ok("change")), change) {
        (true, Change::ByUser | Change::ForUser) => [ANOTHER, OFFICER],
        (true, Change::ByOfficer) => [USER, ANOTHER],
        _ => [USER, OFFICER],
    }
}

fn begins_anew(case: &Case) -> bool {
    CHANGES[case.variant] == Change::Anew && case.told.ok("change")
}

fn pin_change() -> Story {
    Story {
        name: "pin_change",
        stage: stage(stories::makes_keys_with_pins),
        tell: Box::new(move |stage, variant| {
            let change = CHANGES[variant];
            stage.plays_through_proxy(|scene, report| stories::pin_change(scene, report, change))
        }),
        // The right one first, since a wrong one counts.
        look: Box::new(move |stage, variant, told| {
            let [user, officer] = pins_after(CHANGES[variant], told);
            let other = |pin, old| if pin == old { ANOTHER } else { old };
            let users = [user, other(user, USER)];
            let officers = [officer, other(officer, OFFICER)];
            stage.plays(|scene, report| stories::look(scene, report, &users, &officers))
        }),
        judge: Box::new(move |case| {
            let change = CHANGES[case.variant];
            let [user, officer] = pins_after(change, Some(&case.told));
            let wanted = match begins_anew(case) {
                true => [("user", None), ("officer", Some(officer))],
                false => [("user", Some(user)), ("officer", Some(officer))],
            };
            for (who, pin) in wanted {
                let taken = case.found.seen(who);
                let taken = taken.first().map(|(_, pin)| String::from_utf8_lossy(pin));
                if taken.as_deref() != pin {
                    let text = format!("{change:?}: the {who}'s PIN is {taken:?}, not {pin:?}");
                    case.fault(text);
                }
            }
            if begins_anew(case) && case.is_shown("devid/ec") {
                case.fault("a key outlived C_InitToken");
            }
        }),
        keeps_keys: Box::new(move |case| !begins_anew(case)),
        wrong: 0,
        secrets: Vec::new(),
    }
}

/// A key of the disk and one in a handle are destroyed.
fn destroy() -> Story {
    Story {
        name: "destroy",
        stage: stage(stories::makes_keys),
        tell: Box::new(|stage, _| stage.plays_through_proxy(stories::destroy)),
        look: Box::new(look),
        judge: Box::new(|case| {
            for name in ["ec", "kept"] {
                let place = format!("devid/{name}");
                if case.told.ok(&format!("destroy {name}")) && case.is_shown(&place) {
                    case.fault(format!("{name} is destroyed, said the call, and is there"));
                }
            }
            if !case.is_shown("devid/rsa") {
                case.fault("another key is gone");
            }
        }),
        keeps_keys: Box::new(|_| false), // what is to be destroyed may be gone
        wrong: 0,
        secrets: Vec::new(),
    }
}

/// `devid attest`: evidence of a key, with the TPM's endorsement key.
fn attestation() -> Story {
    Story {
        name: "attestation",
        stage: stage(stories::makes_keys),
        tell: Box::new(|stage, _| {
            let words = ["attest", "ec", "--nonce", "01"];
            stage.runs_devid(&stage.proxy.tcti(), &words, &words)
        }),
        look: Box::new(look),
        judge: Box::new(|_| {}),
        keeps_keys: Box::new(|_| true),
        wrong: 0,
        secrets: Vec::new(),
    }
}

/// `devid provision`, and the request that a CA would certify.
fn provisioning() -> Story {
    Story {
        name: "provisioning",
        stage: new_device(),
        tell: Box::new(move |stage, _| {
            stage.runs_devid(
                &stage.proxy.tcti(),
                &["provision", "--wait", "0"],
                &["csr", "devid"],
            )
        }),
        look: Box::new(move |stage, _, _| {
            let (ended, told) =
                stage.runs_devid(&stage.tpm.tcti(), &["provision"], &["csr", "devid"]);
            let (looked, found) = look(stage, 0, None);
            (ended.and(looked), found.and(told))
        }),
        judge: Box::new(move |case| {
            // A key is certified by its request: it is the device's, and signs there.
            let requests = [case.told.seen("saw csr"), case.found.seen("saw csr")].concat();
            for (_, request) in &requests {
                match key_of_request(&case.stage.home.write("judged.csr", request)) {
                    Ok(info) => case.holds("devid/devid", &info),
                    Err(said) => {
                        case.fault(format!("the request is not signed by its key: {said}"))
                    }
                }
            }
            let keys = case.found.seen("key devid/").len();
            if !case.found.ok("provision") || keys != 1 {
                let code = case.found.code("provision").map(str::to_owned);
                case.fault(format!(
                    "then provision ends with {code:?}, and {keys} keys are there"
                ));
            }
        }),
        keeps_keys: Box::new(move |_| false),
        wrong: 0,
        secrets: vec![OWNER.as_bytes().to_vec()],
    }
}

/// The public key of a request, if the request is signed by it.
fn key_of_request(request: &Path) -> Result<Vec<u8>, String> {
    let openssl = |options: &[&str]| {
        run(program("openssl")
            .args(["req", "-noout", "-in"])
            .arg(request)
            .args(options))
    };
    let said = openssl(&["-verify"]);
    if !said.status.success() || !said.all().contains("verify OK") {
        return Err(said.all());
    }
    let pem = openssl(&["-pubkey"]).ok().out;
    let public = run_with(
        program("openssl").args(["pkey", "-pubin", "-outform", "DER"]),
        &pem,
    );
    Ok(public.ok().out)
}
