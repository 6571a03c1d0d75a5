//! What programs, `devid doctor` and the administrator see when the TPM changes: docs/TPM-CHANGES.md. Each
//! story makes one change, and compares the results with the page. Then it runs the commands of the page, and
//! compares again.

mod page;
mod stage;

use page::{Section, names, table};
use stage::{Seen, Stage, devid, seen_by, started};
use std::fs;
use std::path::Path;
use std::time::Duration;
use testkit::devid::{other_process, part, say_ready};
use testkit::folders;
use testkit::home::Home;
use testkit::link::Link;
use testkit::programs::run;
use testkit::proxy::{command, number_at};
use testkit::story::await_some;
use testkit::tpm::{Swtpm, copy_state};

over_our_transport!(
    cleared,
    exchanged,
    without_its_tpm,
    new_endorsement_seed,
    new_platform_seed,
    cloned,
    moved,
    locked_out,
    absent,
    slow,
    other_firmware,
    #[ignore = "needs a newer swtpm: scripts/test-profile"]
    profile_newer_software
);

/// Each row of the page's overview names the story of a section, and each section has a row.
#[test]
fn each_change_has_a_row_and_a_story() {
    let page = fs::read_to_string(folders::root().join(page::PAGE)).unwrap();
    let here = fs::read_to_string(folders::root().join(file!())).unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ["))
        .collect();
    let names = names();
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(&names) {
        assert!(row.contains(&format!("](#{name}) |")), "{name}: {row}");
        let story = row.rsplit('`').nth(1).expect("a story");
        assert!(here.contains(&format!("fn {story}(link: Link)")), "{story}");
        assert!(here.contains(&format!("\"{name}\",")), "{name}");
    }
    let stories = here
        .lines()
        .filter(|line| line.starts_with("fn ") && line.contains("(link: Link)"));
    assert_eq!(stories.count(), rows.len());
}

/// A program that starts after the change.
#[test]
#[ignore = "one of the processes of other tests"]
fn program() {
    let Some(part) = part() else {
        return;
    };
    say_ready();
    let seen = seen_by(&started(), Path::new(&part).parent().unwrap());
    fs::write(part, seen.0.join("\n")).unwrap();
}

/// A program that starts now, on this device.
#[track_caller]
fn new_program(home: &Home) -> Seen {
    let file = home.path("seen");
    let name = concat!(module_path!(), "::program");
    let mut running = other_process(name, home, file.to_str().unwrap());
    let status = running.wait(Duration::from_secs(120)).expect("it ends");
    assert!(status.success(), "{status}");
    let text = fs::read_to_string(file).unwrap();
    Seen(text.lines().map(str::to_owned).collect())
}

/// Makes the change, and compares what follows with the page. `back` does what no command does.
#[track_caller]
fn compare(name: &str, mut stage: Stage, change: fn(&mut Stage), back: fn(&mut Stage)) {
    let home = stage.home.folder().to_owned();
    let before = stage.findings();
    let new = |stage: &Stage| {
        let all = stage.findings().into_iter();
        all.filter(|one| !before.contains(one)).collect::<String>()
    };
    assert!(seen_by(&stage.running, &home).all_sign());
    change(&mut stage);
    let made = stage.tries();
    let mut counts = Vec::new();
    let mut look = |stage: &Stage| {
        let seen = [seen_by(&stage.running, &home), new_program(&stage.home)];
        let said = new(stage);
        counts.extend(stage.tries());
        (seen, said)
    };
    let ([running, started], doctor) = look(&stage);
    back(&mut stage);
    let section = Section::read(name);
    section
        .commands()
        .iter()
        .for_each(|line| stage.run_line(line));
    let ([restored, after], left) = look(&stage);
    // Neither programs nor the doctor nor the way back tries a wrong value.
    for count in counts {
        assert!(count <= made.unwrap_or(0), "{name}: {count} tries count");
    }
    section.says(
        &table([&running, &started, &restored, &after]),
        &doctor,
        &left,
    );
}

fn nothing(_: &mut Stage) {}

fn cleared(link: Link) {
    let clear = |stage: &mut Stage| {
        run(stage.tpm.tool("tpm2_clear").args(["-c", "p"])).ok();
    };
    compare("cleared", Stage::new(link), clear, nothing);
}

/// Another device's TPM, which has an identity and keys of its own.
fn exchanged(link: Link) {
    let exchange = |stage: &mut Stage| {
        let (mut other, _) = Swtpm::manufactured_with(&["--serial", "another"]);
        let home = Home::new(&other.tcti());
        devid(&home, &["provision", "--wait", "0"]).ok();
        other.shut_down();
        let tpm = &mut stage.tpm;
        tpm.shut_down();
        let own = tpm.state().with_file_name("own");
        copy_state(&tpm.state(), &own);
        fs::remove_dir_all(tpm.state()).unwrap();
        copy_state(&other.state(), &tpm.state());
        stage.is_used_without_tpm();
        stage.tpm.restart();
    };
    compare("exchanged", Stage::new(link), exchange, put_back);
}

fn put_back(stage: &mut Stage) {
    let tpm = &mut stage.tpm;
    tpm.shut_down();
    fs::remove_dir_all(tpm.state()).unwrap();
    copy_state(&tpm.state().with_file_name("own"), &tpm.state());
    stage.is_used_without_tpm();
    stage.tpm.restart();
}

/// The disk of a device in a machine whose TPM was never used.
fn without_its_tpm(link: Link) {
    let exchange = |stage: &mut Stage| {
        let tpm = &mut stage.tpm;
        tpm.shut_down();
        let own = tpm.state().with_file_name("own");
        copy_state(&tpm.state(), &own);
        fs::remove_dir_all(tpm.state()).unwrap();
        fs::create_dir(tpm.state()).unwrap();
        stage.is_used_without_tpm();
        stage.tpm.restart();
    };
    let back = |stage: &mut Stage| {
        put_back(stage);
        stage.await_factory_key();
    };
    compare("without-its-tpm", Stage::new(link), exchange, back);
}

fn new_endorsement_seed(link: Link) {
    let change = |stage: &mut Stage| {
        run(&mut stage.tpm.tool("tpm2_changeeps")).ok();
    };
    compare("new-endorsement-seed", Stage::new(link), change, nothing);
}

fn new_platform_seed(link: Link) {
    let change = |stage: &mut Stage| {
        run(&mut stage.tpm.tool("tpm2_changepps")).ok();
    };
    compare("new-platform-seed", Stage::new(link), change, nothing);
}

/// A snapshot of disk and virtual TPM runs beside the original, which goes on.
fn cloned(link: Link) {
    compare("cloned", Stage::new(link), Stage::becomes_clone, nothing);
}

/// A virtual machine goes on elsewhere, and its TPM's state with it.
fn moved(link: Link) {
    let change = |stage: &mut Stage| {
        stage.tpm.shut_down();
        let elsewhere = stage.tpm.state().with_file_name("elsewhere");
        fs::rename(stage.tpm.state(), &elsewhere).unwrap();
        copy_state(&elsewhere, &stage.tpm.state());
        stage.tpm.restart();
    };
    compare("moved", Stage::new(link), change, nothing);
}

fn locked_out(link: Link) {
    let lock = |stage: &mut Stage| {
        let home = stage.home.folder().to_owned();
        let tool = |name: &str, words: &str| {
            let mut tool = stage.tpm.tool(name);
            run(tool.args(words.split(' ')).current_dir(&home))
        };
        tool("tpm2_createprimary", "-C o -p right -c pin.ctx").ok();
        tool("tpm2_flushcontext", "--transient-object").ok();
        while stage.tpm.lockout_counter() < 3 {
            assert!(!tool("tpm2_create", "-C pin.ctx -P wrong").status.success());
            tool("tpm2_flushcontext", "--transient-object").ok();
        }
    };
    compare("locked-out", Stage::new(link), lock, nothing);
}

fn absent(link: Link) {
    let end = |stage: &mut Stage| stage.tpm.shut_down();
    let begin = |stage: &mut Stage| stage.tpm.restart();
    compare("absent", Stage::new(link), end, begin);
}

/// The TPM takes longer for each command than `timeout_ms`.
fn slow(link: Link) {
    let pause = |stage: &mut Stage| stage.book().delay_each(Some(Duration::from_millis(3500)));
    let faster = |stage: &mut Stage| {
        stage.book().delay_each(None);
        // Answers to earlier commands are still under way.
        await_some("the TPM", Duration::from_secs(60), || {
            let said = devid(&stage.home, &["status"]);
            said.status.success().then_some(())
        });
    };
    let stage = Stage::behind_proxy(link, "timeout_ms = 2000\n");
    compare("slow", stage, pause, faster);
}

/// TPM_CAP_ALGS and TPM_CAP_TPM_PROPERTIES.
const ALGORITHMS: u32 = 0;
const PROPERTIES: u32 = 6;
const FIRMWARE: [u8; 4] = [0, 0, 1, 0x0B];
const GONE: [[u8; 2]; 2] = [[0, 4], [0, 0x0D]];

/// An update that keeps the seeds: another version number, and neither SHA-1 nor SHA-512 any more.
fn other_firmware(link: Link) {
    let update =
        |stage: &mut Stage| {
            stage.proxy.as_ref().unwrap().book().alter(
                command::GET_CAPABILITY,
                |asked, mut answer| match number_at(asked, 10) {
                    PROPERTIES => {
                        for one in answer[19..].chunks_exact_mut(8) {
                            if one[..4] == FIRMWARE {
                                one[4..].copy_from_slice(&[0, 7, 0, 2]);
                            }
                        }
                        answer
                    }
                    ALGORITHMS => {
                        let all = answer[19..].chunks_exact(6);
                        let left: Vec<&[u8]> = all
                            .filter(|one| !GONE.iter().any(|gone| one[..2] == *gone))
                            .collect();
                        let count = u32::try_from(left.len()).unwrap().to_be_bytes();
                        [&answer[..15], &count, &left.concat()].concat()
                    }
                    _ => answer,
                },
            );
        };
    compare(
        "other-firmware",
        Stage::behind_proxy(link, ""),
        update,
        nothing,
    );
}

/// The state of this machine's swtpm under a newer libtpms.
fn profile_newer_software(link: Link) {
    let update = |stage: &mut Stage| {
        let newer = std::env::var_os("DEVID_SWTPM").expect("DEVID_SWTPM names a newer swtpm");
        stage.tpm.shut_down();
        stage.tpm.becomes(newer.into());
        stage.tpm.restart();
    };
    compare("newer-software", Stage::new(link), update, nothing);
}
