//! A process that makes, changes, uses and destroys keys of the token `devid` is killed at random
//! moments, hundreds of times, and sometimes before the answer to TPM2_Load. After each kill the
//! folder is consistent.

use cryptoki_sys::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use testkit::devid::{
    Bench, Inspection, Kind, Own, PERSISTENT, label, other_process, part, persistent, random,
    say_ready, yes,
};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::proxy::{Fault, command};
use testkit::raw::Code;

over_our_transport!(a_killed_writer_leaves_whole_keys,);

/// How often over each link.
const KILLS: usize = 150;
/// One of so many kills is before the answer to TPM2_Load. The TPM keeps that object.
const IN_LOAD: usize = 15;
/// More keys are not made, that each can be tried after each kill.
const MOST: usize = 4;
/// The time after which a busy machine needs no further kills. A story may take 170 s.
const LONGEST: Duration = Duration::from_secs(100);
/// Longer than a round of the writer takes.
const SPAN: Duration = Duration::from_millis(40);

#[test]
#[ignore = "the killed process of another test"]
fn writes_until_it_is_killed() {
    if part().is_none() {
        return;
    }
    let own = Own::here();
    say_ready();
    loop {
        change_something(&own).unwrap();
    }
}

fn change_something(own: &Own) -> Result<(), Code> {
    let keys = own.keys();
    let any = |objects: &[CK_OBJECT_HANDLE]| {
        let at = random(objects.len().max(1) as u64) as usize;
        objects.get(at).copied()
    };
    match (random(7), any(&keys)) {
        (0, _) if keys.len() < MOST => drop(own.make(Kind::P256, "new")?),
        (1, _) if keys.len() < MOST => drop(own.make_persistent(Kind::P256, "new")?),
        (2, Some(key)) => own.change(key, &[label(&format!("label {}", random(1000)))])?,
        (3, Some(key)) => own.destroy(key)?,
        (4, _) => {
            let key = own.make_with(Kind::P256, &[], &[])?.private;
            own.sign_data(key, b"by a key of the session")?;
        }
        (5, Some(key)) => drop(own.sign_data(key, b"by a key of the token")?),
        (6, _) => match any(&own.find(&[(CKA_CLASS, ulong(CKO_DATA))])) {
            Some(data) => own.destroy(data)?,
            None => drop(own.create_data("data", &[7; 3000])?),
        },
        _ => {}
    }
    // A public key that outlives its private half is an object of its own.
    for public in own.find(&[(CKA_CLASS, ulong(CKO_PUBLIC_KEY))]) {
        let id = own.attribute(public, CKA_ID);
        if own
            .find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), (CKA_ID, id)])
            .is_empty()
        {
            own.destroy(public)?;
        }
    }
    Ok(())
}

fn a_killed_writer_leaves_whole_keys(link: Link) {
    let bench = Bench::new(link);
    let mut own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    let (mut kills, mut signed, mut changed, mut left, mut in_handles) = (0, 0, 0, 0, 0);
    let begun = Instant::now();
    let book = bench.proxy.book();
    // On a busy machine more kills are needed until some were at an interesting moment.
    for kill in 0.. {
        let interesting = changed > KILLS / 5;
        if kill >= KILLS && (interesting || begun.elapsed() > LONGEST) {
            break;
        }
        kills += 1;
        let before = Inspection::of(&bench.folder());
        let in_load = kill % IN_LOAD == 0;
        if in_load {
            book.break_next(command::LOAD, Fault::Stall);
        }
        let mut writer = other_process(
            concat!(module_path!(), "::writes_until_it_is_killed"),
            &bench.home,
            "writer",
        );
        // On a busy machine the writer needs longer for a round.
        let span = match changed * 4 >= kill {
            true => SPAN,
            false => SPAN * 16,
        };
        match in_load {
            true => book.await_stall(),
            false => thread::sleep(Duration::from_micros(random(span.as_micros() as u64))),
        }
        writer.kill();
        book.heal();
        book.await_quiet();
        let objects = bench.tpm.transients();
        assert!(objects > 0 || !in_load, "the TPM lost the loaded object");
        left += objects;
        changed += usize::from(!before.to(&Inspection::of(&bench.folder())).is_empty());

        // Whoever looked before sees it at the next search; so does who starts now.
        if kill % 4 == 0 {
            own = own.anew();
        }
        let keys = own.keys();
        assert!(keys.len() <= MOST);
        for key in &keys {
            own.signs(*key);
        }
        signed += keys.len();
        for data in own.find(&[(CKA_CLASS, ulong(CKO_DATA))]) {
            assert_eq!(own.attribute(data, CKA_VALUE), [7; 3000]);
        }
        let kept = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), yes(PERSISTENT)]);
        in_handles += kept.len();
        let filled: BTreeSet<_> = persistent(&bench.tpm).into_iter().collect();
        let ours: BTreeSet<_> = filled.range(0x8100_0100..=0x8100_01FF).copied().collect();
        let named = handles_named(&bench.folder());
        assert!(
            ours.is_subset(&named),
            "{ours:x?} are not all of {named:x?}"
        );
        assert!(!bench.home.log().contains("holds no valid object"));
        fs::remove_file(bench.home.path("log")).ok();
    }
    println!(
        "\n{kills} kills in {:?}: {changed} after a change, {left} transient objects left, \
         {signed} signatures right, {in_handles} of keys in handles",
        begun.elapsed()
    );
    assert!(changed > KILLS / 5, "{changed} kills after a change");
}

/// The handles that files name.
fn handles_named(folder: &Path) -> BTreeSet<u32> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let texts = files.filter_map(|path| fs::read_to_string(path).ok());
    let handle = |line: &str| {
        let digits = line.strip_prefix("Handle: 0x")?;
        Some(u32::from_str_radix(digits, 16).expect("a handle"))
    };
    texts
        .flat_map(|text| text.lines().filter_map(handle).collect::<Vec<_>>())
        .collect()
}
