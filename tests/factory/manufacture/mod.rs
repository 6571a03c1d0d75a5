//! `devid-manufacture` on a TPM in the state in which the chip manufacturer delivers it, and the
//! output of the module and `devid` afterwards.

mod devices;
mod kills;
mod page;
mod refused;
mod swtpm_setup;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::factory::script;
use testkit::home::Home;
use testkit::module::{library, manufacture, tool};
use testkit::programs::{Said, program, run};
use testkit::proxy::{Proxy, Seen, command};
use testkit::tpm::Swtpm;

const SERIAL: &str = "SN-7";
const MODEL: &str = "EX-1000";
/// Commands that write to a TPM.
const WRITING: [u32; 4] = [
    command::EVICT_CONTROL,
    command::NV_DEFINE_SPACE,
    command::NV_WRITE,
    command::NV_WRITE_LOCK,
];

/// A place on the line: a TPM behind a proxy, and a folder.
struct Line {
    tpm: Swtpm,
    proxy: Proxy,
    home: Home,
}

impl Line {
    fn new() -> Line {
        Line::at(Swtpm::blank())
    }

    fn at(tpm: Swtpm) -> Line {
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&proxy.tcti());
        fs::create_dir(home.path("ca")).unwrap();
        Line { tpm, proxy, home }
    }

    /// A device with keys of these templates and certificates for them, none of them in NV yet.
    fn with_keys(words: &[&str]) -> Line {
        let line = Line::new();
        line.ends(0, &[&["keys"], words].concat());
        line.certify();
        line
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(manufacture());
        command.args(words).current_dir(self.home.folder());
        self.home.settle(&mut command);
        command
    }

    #[track_caller]
    fn ends(&self, code: i32, words: &[&str]) -> Said {
        let said = run(&mut self.command(words));
        assert_eq!(said.status.code(), Some(code), "{words:?}: {said}");
        said
    }

    /// The commands that it sends meanwhile.
    fn sends(&self, code: i32, words: &[&str]) -> Seen {
        self.proxy.book().take();
        self.ends(code, words);
        self.proxy.book().take()
    }

    fn devid(&self, words: &[&str]) -> Said {
        run(self.home.settle(Command::new(tool()).args(words)))
    }

    fn request(&self) {
        self.ends(
            0,
            &[
                "csr", "--serial", SERIAL, "--model", MODEL, "--out", "requests",
            ],
        );
    }

    /// Requests, and certificates by the test's CA: `idevid.pem`, `iak.pem`, `ca/ca.pem`, `ca/root.pem`.
    fn certify(&self) {
        self.request();
        self.issue("idevid.pem", &[]);
        fs::write(
            self.path("extensions"),
            "keyUsage = critical, digitalSignature\nauthorityKeyIdentifier = keyid:always\n\
             subjectAltName = otherName:1.3.6.1.5.5.7.8.4;SEQ:module\ncertificatePolicies = 2.23.133.11.1.3\n\
             [module]\ntype = OID:2.23.133.1.2\nserial = FORMAT:ASCII,OCTETSTRING:SN-7\n",
        )
        .unwrap();
        let subject = format!("/O=Example Devices/CN={MODEL}/serialNumber={SERIAL}");
        let mut issue = program("openssl");
        issue.args([
            "x509",
            "-new",
            "-force_pubkey",
            "requests/iak-pub.pem",
            "-subj",
        ]);
        issue.args([
            &subject,
            "-CA",
            "ca/ca.pem",
            "-CAkey",
            "ca/ca.key",
            "-days",
            "9999",
        ]);
        issue.args(["-extfile", "extensions", "-out", "iak.pem"]);
        run(issue.current_dir(self.home.folder())).ok();
    }

    /// A certificate for the IDevID key, with options for scripts/authority.
    fn issue(&self, name: &str, options: &[&str]) {
        let mut authority = Command::new(script().with_file_name("authority"));
        authority.args([
            "--dir",
            "ca",
            "--request",
            "requests/idevid.csr",
            "--out",
            name,
        ]);
        authority
            .args(["--serial", SERIAL, "--model", MODEL])
            .args(options);
        run(authority.current_dir(self.home.folder())).ok();
    }

    fn tool(&self, name: &str, words: &[&str]) -> Said {
        run(self
            .tpm
            .tool(name)
            .args(words)
            .current_dir(self.home.folder()))
    }

    /// The content of an NV index; empty if there is no such index.
    fn nv(&self, index: &str) -> Vec<u8> {
        self.tool("tpm2_nvread", &["-C", "o", index]).out
    }

    fn pkcs11_tool(&self, words: &[&str]) -> Said {
        let mut tool = program("pkcs11-tool");
        tool.arg("--module").arg(library());
        tool.args(["--token-label", "idev-id"]).args(words);
        run(self.home.settle(tool.current_dir(self.home.folder()))).ok()
    }
}

/// The words that install both certificates, by this hierarchy.
fn install(by: &str) -> Vec<&str> {
    vec![
        "install",
        "--serial",
        SERIAL,
        "--model",
        MODEL,
        "--idevid-cert",
        "idevid.pem",
        "--iak-cert",
        "iak.pem",
        "--ca",
        "ca/ca.pem",
        "--by",
        by,
    ]
}

/// How many of the commands write to the TPM.
fn writes(seen: &Seen) -> usize {
    WRITING.iter().map(|code| seen.of(*code)).sum()
}

/// A certificate as NV holds it.
fn der(pem: &Path) -> Vec<u8> {
    testkit::openssl::certificate_der(pem)
}
