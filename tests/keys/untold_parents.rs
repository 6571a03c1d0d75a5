//! A TPM that returns the name as the qualified name does not show the parent of an object. Because
//! of this, no object of the project may be lost or made twice.

use std::fs;
use testkit::devid::{self, FIRST, Kind, MASTER, Own};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::tool;
use testkit::programs::{Said, program, run};
use testkit::proxy::{Proxy, command};
use testkit::tpm::Swtpm;

over_our_transport!(
    a_lost_folder_leads_to_no_second_identity,
    a_reset_takes_all_of_ours,
    a_reset_without_folder_takes_all_of_ours,
    a_storage_root_key_is_no_master_key,
    a_master_key_of_ours_is_taken_over,
);

struct Bench {
    tpm: Swtpm,
    home: Home,
    _proxy: Proxy,
}

impl Bench {
    fn new(link: Link, tells: bool) -> Bench {
        let (tpm, _identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        if !tells {
            proxy
                .book()
                .alter(command::READ_PUBLIC, |_, answer| named_twice(&answer));
        }
        Bench {
            tpm,
            home,
            _proxy: proxy,
        }
    }

    fn devid(&self, words: &[&str]) -> Said {
        let mut command = program(tool().to_str().unwrap());
        run(self.home.settle(command.args(words)))
    }

    /// Key folder and marker are gone, and so is each record of the master key.
    fn lose_the_disk(&self) {
        let state = self.home.path("state");
        fs::remove_dir_all(&state).unwrap();
        fs::create_dir(state).unwrap();
    }

    /// TPM names of what is in persistent handles of ours.
    fn names(&self) -> Vec<(u32, String)> {
        let ours = |handle: &u32| (MASTER..=FIRST + 0xFF).contains(handle);
        let handles = devid::persistent(&self.tpm).into_iter().filter(ours);
        let name = |handle| {
            let mut read = self.tpm.tool("tpm2_readpublic");
            let said = run(read.arg("-c").arg(format!("{handle:#x}"))).ok().text();
            let name = said.lines().find(|line| line.starts_with("name:"));
            (handle, name.expect("a name").to_owned())
        };
        handles.map(name).collect()
    }
}

/// The answer to a TPM2_ReadPublic with the name where the qualified name is.
fn named_twice(answer: &[u8]) -> Vec<u8> {
    let size = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
    let name = 12 + size(10);
    let qualified = name + 2 + size(name);
    [&answer[..qualified], &answer[name..qualified]].concat()
}

fn a_lost_folder_leads_to_no_second_identity(link: Link) {
    for tells in [true, false] {
        let bench = Bench::new(link, tells);
        bench.devid(&["provision"]).ok();
        let before = bench.names();
        assert_eq!(before.len(), 2, "the master key and the identity");
        bench.lose_the_disk();
        let said = bench.devid(&["provision"]);
        assert!(!said.status.success(), "{tells}: {said}");
        assert!(said.all().contains("0x81000100"), "{said}");
        assert_eq!(bench.names(), before, "{tells}");
    }
}

#[track_caller]
fn is_new(before: &[(u32, String)], after: &[(u32, String)]) {
    assert_eq!(after.len(), 2, "a master key and an identity: {after:?}");
    let stays = |one: &(u32, String)| after.iter().any(|(_, name)| *name == one.1);
    assert!(!before.iter().any(stays), "{before:?} {after:?}");
}

fn a_reset_takes_all_of_ours(link: Link) {
    for tells in [true, false] {
        let bench = Bench::new(link, tells);
        bench.devid(&["provision"]).ok();
        let own = Own::new(&bench.home);
        own.make_persistent(Kind::P256, "more").unwrap();
        own.raw.finalize().unwrap();
        let before = bench.names();
        bench.devid(&["reset", "--factory", "--yes"]).ok();
        is_new(&before, &bench.names());
        bench.devid(&["provision"]).ok();
    }
}

fn a_reset_without_folder_takes_all_of_ours(link: Link) {
    for tells in [true, false] {
        let bench = Bench::new(link, tells);
        bench.devid(&["provision"]).ok();
        let before = bench.names();
        bench.lose_the_disk();
        bench.devid(&["reset", "--factory", "--yes"]).ok();
        is_new(&before, &bench.names());
    }
}

/// A copy of a primary key at the master key's handle comes back from its template.
fn a_storage_root_key_is_no_master_key(link: Link) {
    for tells in [true, false] {
        let bench = Bench::new(link, tells);
        bench.devid(&["provision"]).ok();
        bench.devid(&["reset", "--factory", "--yes"]).ok();
        let handle = format!("{MASTER:#x}");
        let evict = |bench: &Bench, what: &[&str]| {
            let mut command = bench.tpm.tool("tpm2_evictcontrol");
            run(command.args(["-C", "o", "-c"]).args(what)).ok();
        };
        evict(&bench, &[&handle]);
        let context = bench.home.path("root.ctx");
        let mut make = bench.tpm.tool("tpm2_createprimary");
        make.args(["-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb", "-a"]);
        make.arg("restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda");
        run(make.arg("-c").arg(&context)).ok();
        evict(&bench, &[context.to_str().unwrap(), &handle]);
        run(bench
            .tpm
            .tool("tpm2_flushcontext")
            .arg("--transient-object"))
        .ok();
        bench.lose_the_disk();
        let own = Own::new(&bench.home);
        let refused = own.make(Kind::P256, "key").map(drop);
        assert!(refused.is_err(), "{tells}");
        bench.home.log_says(&[
            "that devid did not create",
            "set another handle under [master]",
        ]);
        own.raw.finalize().unwrap();
    }
}

/// The master key of a folder that is lost wraps new keys: it is no primary key.
fn a_master_key_of_ours_is_taken_over(link: Link) {
    for tells in [true, false] {
        let bench = Bench::new(link, tells);
        let own = Own::new(&bench.home);
        own.make(Kind::P256, "key").unwrap();
        own.raw.finalize().unwrap();
        let before = bench.names();
        bench.lose_the_disk();
        let own = Own::new(&bench.home);
        let key = own.make(Kind::P256, "another").unwrap().private;
        own.signs(key);
        own.raw.finalize().unwrap();
        assert_eq!(bench.names(), before, "{tells}");
    }
}
