//! Runs a story many times with altered answers, each time with another seed. Checks the conditions
//! after each run.

use super::report::Told;
use super::stage::{Outcome, PERSISTENT, SESSIONS, Stage, TRANSIENT};
use super::stories::{ANOTHER, DATA};
use cryptoki_sys::CK_ULONG;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use testkit::devid::{Judge, MASTER, SRK};
use testkit::memory::contains;
use testkit::mutation::{Altered, Dice, Done, Kind, Recording, makes_a_handle};
use testkit::pins::{OFFICER, USER, value_of};
use testkit::proxy::command;

/// How many stories share the answers that are asked for.
const STORIES: usize = 9;
/// If all of these slots are taken, no value can be proven.
const SESSION_SLOTS: usize = 3;
/// The number of faults that are shown completely.
const SHOWN: usize = 3;
/// How many ways there are to tell a story.
pub const VARIANTS: usize = 4;

/// A story that ran with altered answers, and the state that was found afterwards without them.
pub struct Case<'a> {
    pub stage: &'a Stage,
    pub variant: usize,
    /// The keys from before, and who judges them.
    keys: &'a Keys,
    /// The report of the story.
    pub told: Told,
    /// The state afterwards.
    pub found: Told,
    /// How many answers were altered.
    pub altered: usize,
    /// True if the TPM did not answer: then the result of a command is unknown.
    pub was_silent: bool,
    /// How many failed tries of authorisations the TPM counted meanwhile.
    tries: u32,
    /// The module's log during the story.
    log: String,
    faults: RefCell<Vec<String>>,
}

/// Keys by their names, with their public halves.
pub struct Keys {
    named: Vec<(String, Vec<u8>)>,
    judges: BTreeMap<Vec<u8>, Judge>,
}

impl Keys {
    fn of(told: &Told) -> Keys {
        let seen = told.seen("key ");
        let judge = |(_, info): &(_, Vec<u8>)| (info.clone(), Judge::new(info, is_ec(info)));
        Keys {
            judges: seen.iter().map(judge).collect(),
            named: seen
                .into_iter()
                .map(|(name, info)| (name.to_owned(), info))
                .collect(),
        }
    }

    /// OpenSSL says whether it is a signature of [`DATA`] by this key.
    fn accept(&self, info: &[u8], signature: &[u8]) -> bool {
        let accepts = |judge: &Judge| judge.accepts(DATA, signature).status.success();
        // Two numbers of one width, or one of even width.
        let is_whole = !signature.is_empty() && signature.len().is_multiple_of(2);
        is_whole
            && match self.judges.get(info) {
                Some(judge) => accepts(judge),
                None => accepts(&Judge::new(info, is_ec(info))),
            }
    }
}

pub fn is_ec(info: &[u8]) -> bool {
    const ID_EC_PUBLIC_KEY: [u8; 7] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
    contains(info, &ID_EC_PUBLIC_KEY)
}

impl Case<'_> {
    pub fn fault(&self, text: impl Into<String>) {
        self.faults.borrow_mut().push(text.into());
    }

    /// A key with this name and this public half is there and signs.
    pub fn holds(&self, name: &str, info: &[u8]) {
        if let Err(fault) = self.signs(name, info) {
            self.fault(fault);
        }
    }

    fn signs(&self, name: &str, info: &[u8]) -> Result<(), String> {
        match self.shown(name)[..] {
            [ref there] if there == info => {}
            [_] => return Err(format!("{name} is another key")),
            ref shown => return Err(format!("{name} is there {} times", shown.len())),
        }
        let signed = self.found.seen(&format!("signature {name}"));
        let Some((_, signature)) = signed.into_iter().find(|(rest, _)| rest.is_empty()) else {
            let code = self.found.code(&format!("sign {name}"));
            return Err(format!("{name} does not sign: {code:?}"));
        };
        match self.keys.accept(info, &signature) {
            true => Ok(()),
            false => Err(format!("{name} signs, and OpenSSL refuses it")),
        }
    }

    fn shown(&self, name: &str) -> Vec<Vec<u8>> {
        let shown = self.found.seen(&format!("key {name}"));
        let exactly = shown.into_iter().filter(|(rest, _)| rest.is_empty());
        exactly.map(|(_, info)| info).collect()
    }

    pub fn is_shown(&self, name: &str) -> bool {
        !self.shown(name).is_empty()
    }

    /// True if the signature is by one of the earlier keys, as `accepts` decides.
    pub fn is_by_known_key(&self, accepts: impl Fn(&Self, &[u8]) -> bool) -> bool {
        self.keys.judges.keys().any(|info| accepts(self, info))
    }

    pub fn accepts(&self, info: &[u8], signature: &[u8]) -> bool {
        self.keys.accept(info, signature)
    }

    /// Each wrong value counts once. A changed nonce of an auth session makes a correct value
    /// wrong.
    fn tries_no_more(&self, done: &Altered, wrong: usize) {
        let spoilt = done
            .iter()
            .filter(|(code, kind)| {
                *code == command::START_AUTH_SESSION && !matches!(kind, Kind::Unsent | Kind::Gone)
            })
            .count();
        if self.tries as usize > wrong + spoilt {
            self.fault(format!(
                "{} tries count, {wrong} values were wrong",
                self.tries
            ));
        }
    }

    /// Nothing stays in the TPM, except objects that the module cannot know. A file names every key
    /// in a handle.
    fn leaves_nothing(&self, before: Vec<u32>, left: [usize; 2], done: &Altered) {
        // After an answer with a handle, or an answer that was not trusted, the module may not know
        // the contents of the TPM. To a TPM that does not answer it sends no more commands. See
        // [`Stage::fill`].
        let hidden = done
            .iter()
            .filter(|(code, kind)| match kind {
                Kind::Unsent => *code == command::FLUSH_CONTEXT,
                // What is gone is not flushed: in its place may be another's.
                Kind::Gone => true,
                _ => makes_a_handle(*code),
            })
            .count();
        let is_lost = ["no answer from the TPM", "connection to the TPM failed"]
            .iter()
            .any(|words| self.log.contains(words));
        for (what, left) in ["objects", "auth sessions"].iter().zip(left) {
            if left > hidden && !is_lost {
                self.fault(format!("{left} {what} stay in the TPM"));
            }
        }
        let mut named = before;
        named.extend([SRK, MASTER]);
        for (_, handle) in self.found.seen("handle ") {
            let handle = handle.try_into().map(CK_ULONG::from_ne_bytes);
            named.extend(handle.map(|handle| handle as u32));
        }
        let after = self.stage.handles(PERSISTENT);
        let extra: Vec<_> = after
            .iter()
            .filter(|handle| !named.contains(handle))
            .collect();
        if !extra.is_empty() {
            self.fault(format!(
                "no file names what these handles hold: {extra:#x?}"
            ));
        }
    }
}

/// Tells a story on the stage in the way of this variant.
type Tell = Box<dyn Fn(&Stage, usize) -> Outcome>;
/// How the stage looks at what is there.
type Look = Box<dyn Fn(&Stage, usize, Option<&Told>) -> Outcome>;

/// A story: its steps, and the conditions after it.
pub struct Story {
    pub name: &'static str,
    pub stage: Stage,
    /// Tells it in the way of this variant.
    pub tell: Tell,
    /// Checks the state without the proxy, after the report of the story. `None`: before any story.
    pub look: Look,
    pub judge: Box<dyn Fn(&Case)>,
    /// Tells whether the earlier keys are there and sign.
    pub keeps_keys: Box<dyn Fn(&Case) -> bool>,
    /// How many wrong values it shows.
    pub wrong: usize,
    /// Secrets that must not cross the bus, in addition to PINs.
    pub secrets: Vec<Vec<u8>>,
}

impl Story {
    /// The keys from before, and the answers of each variant when nobody alters any.
    pub fn prepare(&mut self) -> (Keys, Vec<Recording>) {
        self.stage.reset();
        let (ended, known) = (self.look)(&self.stage, 0, None);
        ended.expect("a look before all");
        let tell = &self.tell;
        let record = |variant| self.stage.record(|stage| tell(stage, variant).0);
        let recordings: Vec<_> = (0..VARIANTS).map(record).collect();
        let pins = [USER, OFFICER, ANOTHER, "a wrong one"];
        self.secrets.extend(pins.map(|pin| pin.as_bytes().to_vec()));
        self.secrets.extend(pins.map(value_of));
        (Keys::of(&known), recordings)
    }

    /// Tells it once in the way of this variant, while somebody does what `spoil` arranges; what was
    /// done, and what did not hold. `judge` judges beside what is judged of each case.
    pub fn told_once(
        &mut self,
        keys: &Keys,
        variant: usize,
        spoil: impl FnOnce(&Stage) -> Done,
        judge: impl FnOnce(&Case),
    ) -> Judged {
        self.stage.reset();
        let before = self.stage.handles(PERSISTENT);
        self.stage.proxy.book().keep();
        let done = spoil(&self.stage);
        let (ended, told) = (self.tell)(&self.stage, variant);
        self.stage.proxy.book().mutate(None);
        let met = self.stage.proxy.book().all_broken();
        // What was stalled comes to the TPM now, behind the story.
        self.stage.proxy.book().heal();
        self.stage.proxy.book().await_quiet();
        let done = std::mem::take(&mut *done.lock().unwrap());
        let left = [TRANSIENT, SESSIONS].map(|first| self.stage.handles(first).len());
        let log = self.stage.home.log();
        let tries = self.stage.tries();
        self.stage.forgets_tries();
        // Nobody can tell whose a session is whose handle was never told.
        if left[1] >= SESSION_SLOTS {
            self.stage.tool("tpm2_flushcontext", &["--loaded-session"]);
        }
        if left[0] > 0 {
            self.stage.fill();
        }
        let (looked, found) = (self.look)(&self.stage, variant, Some(&told));
        let case = Case {
            stage: &self.stage,
            variant,
            keys,
            told,
            found,
            altered: done.len(),
            was_silent: done.iter().any(|(_, kind)| *kind == Kind::Silent),
            tries,
            log,
            faults: RefCell::default(),
        };
        for (what, ended) in [("while told", ended), ("at the look", looked)] {
            if let Err(fault) = ended {
                case.fault(format!("{what} {fault}"));
            }
        }
        let wire = self.stage.proxy.book().wire();
        for secret in &self.secrets {
            if wire.iter().any(|packet| contains(packet, secret)) {
                let text = String::from_utf8_lossy(secret).into_owned();
                case.fault(format!("a secret is on the wire: {text:?}"));
            }
        }
        case.leaves_nothing(before, left, &done);
        case.tries_no_more(&done, self.wrong);
        if (self.keeps_keys)(&case) {
            for (name, info) in &keys.named {
                case.holds(name, info);
            }
        }
        (self.judge)(&case);
        judge(&case);
        let Case {
            told,
            found,
            log,
            faults,
            ..
        } = case;
        Judged {
            done,
            met,
            faults: faults.into_inner(),
            evidence: format!("told {told:#?}\nfound {found:#?}\n--- log\n{log}"),
        }
    }

    /// Tells it until so many answers were altered, and fails if something did not hold.
    pub fn run(mut self) {
        let (keys, recordings) = self.prepare();
        let wanted = number("DEVID_MUTATIONS").unwrap_or(180) as usize / STORIES;
        let first = number("DEVID_MUTATION_SEED").unwrap_or(1) << 32;
        let only = number("DEVID_MUTATION_ONLY");
        let (mut altered, mut cases, mut faults) = (0, 0, Faults::default());
        let mut counts = BTreeMap::new();
        while altered < wanted.max(1) && (only.is_none() || cases == 0) {
            let seed = only.unwrap_or(first + cases);
            cases += 1;
            let variant = Dice::new(seed).below(VARIANTS);
            let recording = &recordings[variant];
            let spoil = |stage: &Stage| stage.alter(seed, recording);
            let judged = self.told_once(&keys, variant, spoil, |_| {});
            altered += judged.done.len();
            for (_, kind) in &judged.done {
                *counts.entry(*kind).or_insert(0) += 1;
            }
            let how = judged
                .done
                .iter()
                .map(|(code, kind)| format!("{code:#x} {kind:?}"));
            let how: Vec<_> = how.collect();
            faults.note(&format!("seed {seed:#x} [{}]", how.join(", ")), judged);
        }
        println!(
            "\n{}: {altered} altered answers in {cases} cases: {counts:?}",
            self.name
        );
        let way = "DEVID_MUTATION_ONLY=SEED tells one alone";
        faults.end(self.name, way);
    }
}

/// What came of one story.
pub struct Judged {
    pub done: Altered,
    /// Whether what was to happen to a command did happen.
    pub met: bool,
    faults: Vec<String>,
    /// What was told, found and logged.
    evidence: String,
}

/// What did not hold in any case of a story.
#[derive(Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Takes the faults of one case; the first ones are shown with all that is known of them.
    pub fn note(&mut self, case: &str, judged: Judged) {
        if judged.faults.is_empty() {
            return;
        }
        self.0.push(format!("{case}: {}", judged.faults.join("; ")));
        if self.0.len() <= SHOWN {
            println!("{case}: {}", judged.evidence);
        }
    }

    /// Fails if there is one. `way` says how a case is told alone.
    #[track_caller]
    pub fn end(self, story: &str, way: &str) {
        assert!(
            self.0.is_empty(),
            "{story}: {} cases; {way}:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

/// A number that the environment says.
pub fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
