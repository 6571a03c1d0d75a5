//! `scripts/import-tpm2-pkcs11` imports the keys of a tpm2-pkcs11 store into a token. Debian's
//! tpm2_ptool and tpm2-pkcs11 make the stores. OpenSSL verifies the signatures.

use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::devid::folder;
use testkit::home::Home;
use testkit::managers::Broker;
use testkit::module::{Opened, library, loaded, tool, ulong};
use testkit::own::{Own, slot_of};
use testkit::pages::block;
use testkit::pins::{LABEL, OFFICER, Token, USER};
use testkit::programs::{Said, find, program, run};
use testkit::tpm::{Swtpm, tool as tpm2};

once!(
    a_store_is_taken_over,
    files_of_tpm2_openssl_by_the_page,
    a_wrong_pin_is_shown_once,
    a_token_without_pin_takes_no_key,
    a_parent_elsewhere_is_named
);

/// The PIN of the store's user.
const PIN: &str = "the store's own";

/// A TPM behind tpm2-abrmd, which tpm2_ptool needs; a store of tpm2-pkcs11; a home.
struct Bench {
    _tpm: Swtpm,
    _broker: Broker,
    home: Home,
}

impl Bench {
    fn new() -> Bench {
        let tpm = Swtpm::blank();
        let home = Home::new(Broker::tcti());
        let broker = Broker::new(&tpm.tcti(), &home);
        fs::create_dir(home.path("store")).unwrap();
        home.write("store-pin", PIN);
        home.write("pin", USER);
        Bench {
            _tpm: tpm,
            _broker: broker,
            home,
        }
    }

    /// A program with the TPM and the store.
    fn program(&self, name: &str, words: &[&str]) -> Command {
        let mut command = tpm2(name, Broker::tcti());
        command.args(words).current_dir(self.home.folder());
        command.env("TPM2_PKCS11_TCTI", Broker::tcti());
        command.env("TPM2_PKCS11_STORE", self.home.path("store"));
        command.env("TSS2_LOG", "all+none");
        command
    }

    #[track_caller]
    fn ptool(&self, verb: &str, words: &[&str]) {
        let words = [&[verb, "--path", "store"], words].concat();
        run(&mut self.program("tpm2_ptool", &words)).ok();
    }

    /// pkcs11-tool with the module of tpm2-pkcs11.
    #[track_caller]
    fn peer(&self, words: &[&str]) {
        let libraries = [
            "x86_64-linux-gnu",
            "aarch64-linux-gnu",
            "arm-linux-gnueabihf",
        ];
        let path = |one| PathBuf::from(format!("/usr/lib/{one}/pkcs11/libtpm2_pkcs11.so"));
        let mut there = libraries.map(path).into_iter();
        let library = there.find(|one| one.exists()).expect("libtpm2-pkcs11-1");
        let library = library.to_str().unwrap();
        let login = [
            "--module",
            library,
            "--token-label",
            "store",
            "--login",
            "--pin",
            PIN,
        ];
        run(&mut self.program("pkcs11-tool", &[&login, words].concat())).ok();
    }

    /// A store with one key of tpm2_ptool.
    fn begin(&self) {
        let token = ["--label", "store", "--userpin", PIN];
        self.ptool("init", &[]);
        self.ptool(
            "addtoken",
            &[&token[..], &["--pid", "1", "--sopin", "officer"]].concat(),
        );
        let key = ["--algorithm", "ecc256", "--key-label", "made by ptool"];
        self.ptool("addkey", &[&token[..], &key].concat());
    }

    /// A store with keys of tpm2_ptool and of the module, and a certificate for one of them.
    fn fill(&self) {
        self.begin();
        let token = ["--label", "store", "--userpin", PIN];
        let key = ["--algorithm", "rsa2048", "--key-label", "rsa"];
        self.ptool("addkey", &[&token[..], &key].concat());
        let ec = [
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--usage-sign",
        ];
        self.peer(&[&ec[..], &["--label", "by pkcs11-tool", "--id", "0102"]].concat());
        let rsa = ["--keypairgen", "--key-type", "rsa:2048", "--usage-sign"];
        self.peer(&[&rsa[..], &["--label", "web", "--id", "0103"]].concat());
        self.peer(&[
            "--read-object",
            "--type",
            "pubkey",
            "--id",
            "0103",
            "-o",
            "web.pub",
        ]);
        let shell = "openssl pkey -pubin -inform DER -in web.pub -out web.pub.pem
            openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 9 2>/dev/null
            openssl x509 -new -force_pubkey web.pub.pem -subj /CN=web -days 9 -CA ca.pem -CAkey ca.key \
                -outform DER -out web.der";
        run(&mut self.program("bash", &["-euc", shell])).ok();
        self.peer(&[
            "--write-object",
            "web.der",
            "--type",
            "cert",
            "--label",
            "web",
            "--id",
            "0103",
        ]);
    }

    /// The module with PINs on the token `devid`, whose PIN the configuration names.
    fn token(&self) -> Token {
        let setting = format!(
            "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
            self.home.path("pin").display()
        );
        self.home.write("config.toml", setting);
        let raw = loaded(&self.home);
        raw.initialize().expect("C_Initialize");
        let slot = slot_of(&raw, "devid");
        let token = Token { raw, slot };
        token.become_one_with_pins();
        token
    }

    fn import(&self, words: &[&str]) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/import-tpm2-pkcs11");
        let mut import = self.program("python3", &[script.to_str().unwrap()]);
        import.arg("--devid").arg(tool());
        import.args(["--pin-file", "store-pin"]).args(words);
        run(self.home.settle(&mut import))
    }

    /// A block of docs/MIGRATION.md, in the home.
    #[track_caller]
    fn page(&self, name: &str) -> Said {
        let folder = folder(&self.home);
        let text = block("docs/MIGRATION.md", name);
        let text = text.replace("/var/lib/devid-pkcs11/devid", folder.to_str().unwrap());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        std::os::unix::fs::symlink(scripts, self.home.path("scripts")).ok();
        let mut shell = self.program("bash", &["-euxc", &text]);
        let path = std::env::var_os("PATH").unwrap();
        let all = [tool().parent().unwrap().to_owned()].into_iter();
        let all = all.chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(all).unwrap());
        shell
            .env("M", library())
            .env("SO_PIN", OFFICER)
            .env("PIN", USER);
        shell.env("TPM2OPENSSL_TCTI", Broker::tcti());
        run(self.home.settle(&mut shell)).ok()
    }

    fn store(&self) -> Vec<u8> {
        fs::read(self.home.path("store/tpm2_pkcs11.sqlite3")).unwrap()
    }

    /// Files of the key folder that hold objects, with what is in them.
    fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(folder(&self.home)).into_iter().flatten();
        let named = files.map(|one| one.unwrap().path());
        let named = named.map(|one| (one.file_name().unwrap().to_str().unwrap().to_owned(), one));
        let mut found: Vec<_> = named
            .filter(|(name, _)| !name.starts_with('.'))
            .map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect();
        found.sort();
        found
    }

    fn failed_tries(&self) -> String {
        let all = run(&mut self.program("tpm2_getcap", &["properties-variable"])).ok();
        let text = all.text();
        let counter = text.lines().find(|line| line.contains("LOCKOUT_COUNTER"));
        counter
            .unwrap()
            .split_whitespace()
            .last()
            .unwrap()
            .to_owned()
    }
}

fn a_store_is_taken_over() {
    let bench = Bench::new();
    bench.fill();
    let before = bench.store();
    let listed = bench.import(&["--list"]).ok().text();
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(bench.objects().is_empty(), "only listed");

    let taken = bench.page("migration");
    assert_eq!(taken.text().matches("was imported").count(), 5, "{taken}");
    assert!(!taken.all().contains(PIN));
    let objects = bench.objects();
    assert_eq!(objects.len(), 5);
    for (name, content) in &objects {
        let says_auth = String::from_utf8_lossy(content).contains("\nAuth: ");
        assert_eq!(
            says_auth,
            name.starts_with("key-"),
            "{name}: behind the PIN"
        );
    }

    let raw = loaded(&bench.home);
    raw.initialize().expect("C_Initialize");
    let own = Own::with(raw, LABEL);
    own.raw
        .login(own.session, CKU_USER, USER.as_bytes())
        .expect("C_Login");
    let labels = own.labels(CKO_PRIVATE_KEY);
    let expected = ["by pkcs11-tool", "made by ptool", "rsa", "web"];
    assert_eq!(labels, expected);
    for label in expected {
        let key = own.key_called(label);
        own.signs(key);
        assert_eq!(own.attribute(key, CKA_PRIVATE), [CK_TRUE], "{label}");
    }
    let web = own.key_called("web");
    assert_eq!(own.attribute(web, CKA_ID), [1, 3]);
    assert_eq!(
        own.attribute(own.key_called("by pkcs11-tool"), CKA_ID),
        [1, 2]
    );
    let certificates = own.find(&[(CKA_CLASS, ulong(CKO_CERTIFICATE))]);
    assert_eq!(certificates.len(), 1);
    assert_eq!(own.attribute(certificates[0], CKA_ID), [1, 3]);
    assert_eq!(own.label(certificates[0]), "web");
    assert_eq!(
        own.attribute(certificates[0], CKA_VALUE),
        fs::read(bench.home.path("web.der")).unwrap()
    );

    let again = bench.import(&["--into-pin-file", "pin"]).ok();
    assert_eq!(
        again.text().matches("was already stored").count(),
        5,
        "{again}"
    );
    assert_eq!(bench.objects(), objects, "the second run changes nothing");
    assert_eq!(bench.store(), before, "the store is only read");
    bench.peer(&[
        "--sign",
        "--mechanism",
        "ECDSA-SHA256",
        "--id",
        "0102",
        "-i",
        "web.der",
        "-o",
        "old.sig",
    ]);
    assert_eq!(bench.failed_tries(), "0x0");
    let is_key = |(name, _): &&(String, Vec<u8>)| name.starts_with("key-");
    let key = objects.iter().find(is_key).expect("a key");
    let key = bench.home.write("copy.pem", &key.1);
    let parsed = run(program("openssl").args(["asn1parse", "-in"]).arg(key)).ok();
    assert!(
        parsed.text().contains("81000001"),
        "its own parent: {parsed}"
    );
}

/// A key file without password is put into the folder; one with a password is taken over by its value.
fn files_of_tpm2_openssl_by_the_page() {
    let bench = Bench::new();
    let listed = bench.page("keyfile");
    assert!(listed.text().contains("label:      agent"), "{listed}");
    let own = Own::new(&bench.home);
    own.signs(own.key_called("agent"));
    fs::remove_file(folder(&bench.home).join("agent.pem")).unwrap();
    own.raw.finalize().expect("C_Finalize");
    let token = bench.token();
    bench.home.write("auth", "secret");
    let taken = bench.page("keyfile-password");
    assert!(taken.text().contains("was imported"), "{taken}");
    let own = Own::with(token.raw, LABEL);
    own.raw
        .login(own.session, CKU_USER, USER.as_bytes())
        .expect("C_Login");
    own.signs(own.key_called("agent"));
}

fn a_wrong_pin_is_shown_once() {
    let bench = Bench::new();
    bench.begin();
    bench.token();
    bench.home.write("wrong", "not the PIN");
    for counted in ["0x1", "0x2"] {
        let said = bench.import(&["--pin-file", "wrong"]);
        assert_eq!(said.status.code(), Some(6), "{said}");
        assert!(said.err.contains("the PIN of the store's token"), "{said}");
        assert_eq!(bench.failed_tries(), counted);
    }
    // A third one would be lockout on this TPM: not the right one either is tried.
    let said = bench.import(&["--pin-file", "wrong"]);
    assert!(said.err.contains("not tried"), "{said}");
    assert_eq!(bench.failed_tries(), "0x2");
    assert!(bench.objects().is_empty());
}

fn a_token_without_pin_takes_no_key() {
    let bench = Bench::new();
    bench.begin();
    let said = bench.import(&[]);
    assert_eq!(said.status.code(), Some(6), "{said}");
    assert!(said.err.contains("no user PIN"), "{said}");
    assert!(said.err.contains("docs/PINS.md"), "{said}");
    assert!(bench.objects().is_empty());
    assert_eq!(bench.failed_tries(), "0x0");
}

/// A parent that counts wrong passwords is used where the configuration says that it has none.
fn a_parent_elsewhere_is_named() {
    let bench = Bench::new();
    run(&mut bench.program(
        "tpm2_createprimary",
        &["-Q", "-C", "o", "-G", "ecc", "-c", "parent.ctx"],
    ))
    .ok();
    let keep = ["-Q", "-C", "o", "-c", "parent.ctx", "0x81000010"];
    run(&mut bench.program("tpm2_evictcontrol", &keep)).ok();
    let token = ["--label", "store", "--userpin", PIN];
    bench.ptool("init", &["--primary-handle", "0x81000010"]);
    bench.ptool(
        "addtoken",
        &[&token[..], &["--pid", "1", "--sopin", "officer"]].concat(),
    );
    let key = ["--algorithm", "ecc256", "--key-label", "below"];
    bench.ptool("addkey", &[&token[..], &key].concat());
    let token = bench.token();
    let refused = bench.import(&[]);
    assert!(!refused.status.success(), "{refused}");
    assert!(
        refused.err.contains("parents"),
        "the setting is named: {refused}"
    );
    assert!(bench.objects().is_empty());
    let settings = fs::read_to_string(bench.home.path("config.toml")).unwrap();
    bench
        .home
        .write("config.toml", format!("{settings}parents = [0x81000010]\n"));
    bench.import(&[]).ok();
    token.raw.finalize().unwrap();
    token.raw.initialize().unwrap();
    let session = token.read_write();
    token.login(session, USER).expect("C_Login");
    let own = Own(Opened {
        raw: token.raw,
        slot: token.slot,
        session,
    });
    own.signs(own.key_called("below"));
}

/// Makes a store by SQL, and says what the script answers to it.
fn of_store(sql: &str) -> Said {
    let home = tempfile::TempDir::new().unwrap();
    let make = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])";
    let path = home.path().join("tpm2_pkcs11.sqlite3");
    let mut python = Command::new(find("python3"));
    run(python.args(["-c", make]).arg(&path).arg(sql)).ok();
    read(home.path())
}

fn read(folder: &Path) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/import-tpm2-pkcs11");
    run(program("python3")
        .arg(script)
        .args(["--list", "--store"])
        .arg(folder))
}

const TABLES: &str = "CREATE TABLE tokens(id INTEGER PRIMARY KEY, pid INTEGER, label TEXT, config TEXT);
    CREATE TABLE sealobjects(id INTEGER PRIMARY KEY, tokid INTEGER, userpub BLOB, userpriv BLOB,
        userauthsalt TEXT, sopub BLOB, sopriv BLOB, soauthsalt TEXT);
    CREATE TABLE pobjects(id INTEGER PRIMARY KEY, hierarchy TEXT, config TEXT, objauth TEXT);
    CREATE TABLE tobjects(id INTEGER PRIMARY KEY, tokid INTEGER, attrs TEXT);
    CREATE TABLE schema(id INTEGER PRIMARY KEY, schema_version INTEGER);
    INSERT INTO schema VALUES (1, 8);
    INSERT INTO tokens VALUES (1, 1, 'store', '!!map { ? !!str \"token-init\" : !!bool \"true\", }');
    INSERT INTO pobjects VALUES (1, 'o',
        '!!map { ? !!str \"transient\" : !!bool \"false\", ? !!str \"esys-tr\" : !!str \"81000001\", }', '');";

/// What is not known is refused in words that name it, and no TPM is asked.
#[test]
fn stores_of_other_forms() {
    assert!(of_store(TABLES).status.success(), "{}", of_store(TABLES));
    for (change, words) in [
        ("UPDATE schema SET schema_version = 99", &["99", "newer"][..]),
        ("UPDATE schema SET schema_version = 3", &["version 3", "dbup"]),
        ("DROP TABLE schema", &["schema"]),
        ("ALTER TABLE tobjects ADD COLUMN secret", &["tobjects", "secret"]),
        ("UPDATE pobjects SET objauth = 'x'", &["password"]),
        ("UPDATE pobjects SET hierarchy = 'e'", &["hierarchy"]),
        ("UPDATE pobjects SET config = '!!map { ? !!str \"new\" : !!str \"x\", }'", &["new"]),
        ("UPDATE pobjects SET config = 'transient: false'", &["parent", "form"]),
        ("UPDATE pobjects SET config = replace(config, '81000001', '80000001')", &["0x80000001"]),
        ("UPDATE pobjects SET config = replace(config, '81000001', 'xyz')", &["hexadecimal"]),
        (
            "UPDATE pobjects SET config =
            '!!map { ? !!str \"transient\" : !!bool \"true\", ? !!str \"template-name\" : !!str \"tpm2-tools-default\", }'",
            &["tpm2_evictcontrol", "--parent"],
        ),
        ("INSERT INTO tokens SELECT 2, 1, 'other', config FROM tokens", &["'store'", "'other'", "--token"]),
        ("DELETE FROM tokens", &["none"]),
        ("DELETE FROM pobjects", &["missing"]),
        ("UPDATE pobjects SET config = NULL", &["configuration of the parent"]),
        ("UPDATE pobjects SET config = '!!map { ? { } : \"x\", }'", &["configuration of the parent"]),
        ("UPDATE pobjects SET config = '!!map { ? \"esys-tr\" : \"81\", }'", &["0x00000081"]),
        ("UPDATE tokens SET config = x'ff'", &["configuration of token 1"]),
    ] {
        let said = of_store(&format!("{TABLES}{change};"));
        assert_eq!(said.status.code(), Some(1), "{change}: {said}");
        assert!(said.err.starts_with("import-tpm2-pkcs11: "), "{change}: {said}");
        for word in words {
            assert!(said.err.contains(word), "{change}: {word} in {said}");
        }
    }
    // An object in an unknown form stops no other object.
    let said = of_store(&format!(
        "{TABLES} INSERT INTO tobjects VALUES (1, 1, '!!map {{ ? !!int \"0\" : !!int \"4\", }}'), (2, 1, 'x'),
        (3, 1, NULL), (4, 1, '!!map {{ ? !!int \"0\" : !!int \"3\", ? !!int \"256\" : \"ec\", }}');"
    ));
    assert!(said.text().contains("object 1 '': a secret key"), "{said}");
    assert!(said.text().contains("object 2"), "{said}");
    assert!(said.text().contains("object 3"), "{said}");
    assert!(
        said.text()
            .contains("object 4 '': the key has the type 'ec'"),
        "{said}"
    );
}

#[test]
fn folders_without_a_store() {
    let home = tempfile::TempDir::new().unwrap();
    let said = read(home.path());
    assert!(said.err.contains("no tpm2_pkcs11.sqlite3"), "{said}");
    fs::create_dir(home.path().join("P_ECCP256SHA256")).unwrap();
    let said = read(home.path());
    assert!(said.err.contains("FAPI"), "{said}");
    fs::write(home.path().join("tpm2_pkcs11.sqlite3"), "").unwrap();
    let said = read(home.path());
    assert_eq!(said.status.code(), Some(1), "{said}");
    fs::write(home.path().join("tpm2_pkcs11.sqlite3"), [7; 9000]).unwrap();
    let said = read(home.path());
    assert!(said.err.contains("no store of tpm2-pkcs11"), "{said}");
}
