//! Each fault at each command of each story: a connection that ends before or after the command,
//! half an answer, an answer without meaning, a missing answer, and each code that a client must
//! handle.
//!
//! After each fault the story continues, the conditions for altered answers are met, and no file is
//! half-written. If an answer asks for another try, no call fails.
//!
//! `DEVID_FAULTS=N` runs N cases of each story, evenly chosen from all cases (default 8).
//! `DEVID_FAULTS=all` runs every case. A failure names its case. `DEVID_FAULT_ONLY=CASE` runs only
//! that case.

use super::case::{Case, Faults, Story, VARIANTS};
use std::collections::BTreeMap;
use std::env;
use testkit::proxy::{Fault, answer};

/// Codes that ask for the same command again (Part 2, section 6.6).
const AGAIN: [u32; 4] = [
    answer::RETRY,
    answer::YIELDED,
    answer::TESTING,
    answer::NV_RATE,
];

/// Codes by which a TPM refuses: INITIALIZE, FAILURE, COMMAND_CODE, DISABLED, AUTH_UNAVAILABLE, NV_SPACE;
/// of a handle, a parameter and a session; CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, SESSION_HANDLES,
/// REFERENCE_H0, REFERENCE_S0, LOCKOUT, NV_UNAVAILABLE; a resource manager's.
const REFUSED: [u32; 22] = [
    0x100,
    0x101,
    0x143,
    0x120,
    0x12F,
    0x14B,
    0x18B,
    0x184,
    0x1C4,
    0x2D5,
    0x09F,
    0x98E,
    0x9A2,
    0x901,
    0x902,
    0x903,
    0x905,
    0x910,
    0x918,
    answer::LOCKOUT,
    0x923,
    0x000B_0101,
];

/// One case: what happens to which command of which variant.
#[derive(Clone, Copy, Debug)]
struct Place {
    variant: usize,
    /// The command's code, and how many with that code go before.
    code: u32,
    spared: u32,
    fault: Fault,
}

impl Place {
    fn name(self) -> String {
        let Self {
            variant,
            code,
            spared,
            fault,
        } = self;
        format!("{variant}:{code:#x}:{spared}:{fault:?}")
    }

    fn asks_again(self) -> bool {
        matches!(self.fault, Fault::Code(code) if AGAIN.contains(&code))
    }
}

fn faults() -> Vec<Fault> {
    let ways = [
        Fault::Drop,
        Fault::Lost,
        Fault::Half,
        Fault::Garbage,
        Fault::Stall,
    ];
    let codes = AGAIN.into_iter().chain(REFUSED).map(Fault::Code);
    ways.into_iter().chain(codes).collect()
}

fn told(mut story: Story) {
    let (keys, recordings) = story.prepare();
    let mut failed = Vec::new();
    for variant in 0..VARIANTS {
        let count = |case: &Case| failed.push(case.told.failed().len());
        story.told_once(&keys, variant, |_| Default::default(), count);
    }
    let mut all = Vec::new();
    for (variant, recording) in recordings.iter().enumerate() {
        let mut seen = BTreeMap::new();
        for (code, _) in recording.iter() {
            let spared = seen.entry(*code).or_insert(0);
            all.extend(faults().into_iter().map(|fault| Place {
                variant,
                code: *code,
                spared: *spared,
                fault,
            }));
            *spared += 1;
        }
    }
    let chosen = chosen(&all);
    let (mut found, mut met) = (Faults::default(), BTreeMap::new());
    for place in &chosen {
        let mut tell = |place: Place| {
            story.told_once(
                &keys,
                place.variant,
                |stage| stage.break_after(place.code, place.spared, place.fault),
                |case| judge(case, place, failed[place.variant]),
            )
        };
        let mut judged = tell(*place);
        // A TPM asks for another try when it likes: one time more in the recording than here.
        if !judged.met {
            judged = tell(Place {
                spared: 0,
                ..*place
            });
        }
        if judged.met {
            *met.entry(place.code).or_insert(0) += 1;
        }
        found.note(&place.name(), judged);
    }
    println!(
        "\n{}: faults of {} by command: {met:x?}",
        story.name,
        all.len()
    );
    let count: usize = met.values().sum();
    assert_eq!(count, chosen.len(), "{}: faults that happened", story.name);
    found.end(story.name, "DEVID_FAULT_ONLY=CASE tells one alone");
}

/// The cases that are told.
fn chosen(all: &[Place]) -> Vec<Place> {
    if let Ok(only) = env::var("DEVID_FAULT_ONLY") {
        let named = all.iter().copied();
        return named.filter(|place| place.name() == only).collect();
    }
    let wanted = match env::var("DEVID_FAULTS").as_deref() {
        Ok("all") => return all.to_vec(),
        Ok(text) => text.parse().expect("DEVID_FAULTS is a number or all"),
        Err(_) => 8,
    };
    // A step that has no factor in common with the number of faults meets each of them in turn.
    let (count, kinds) = (all.len(), faults().len());
    let mut step = (count / wanted).max(1);
    while (2..=kinds).any(|factor| kinds.is_multiple_of(factor) && step.is_multiple_of(factor)) {
        step += 1;
    }
    let place = |n: usize| all[n * step % count];
    (0..wanted.min(count)).map(place).collect()
}

fn judge(case: &Case, place: Place, expected: usize) {
    let failed = case.told.failed();
    if place.asks_again() && failed.len() > expected {
        case.fault(format!("asked for another try, and {failed:?} failed"));
    }
    let half = case.stage.half_written();
    if !half.is_empty() {
        case.fault(format!("half-written files are left: {half:?}"));
    }
}

macro_rules! each_fault {
    ($($story:ident),+ $(,)?) => {
        $(fn $story() {
            told(super::$story());
        })+
        once!($($story),+);
    };
}

each_fault!(
    listing,
    signing,
    login,
    first_key,
    generation,
    generation_with_pin,
    import,
    destroy,
    pin_change,
    provisioning,
    attestation,
);
