//! The vendor attributes, read by a C program with the project's header.

use std::collections::HashMap;
use testkit::home::Home;
use testkit::host::host;
use testkit::link::Link;
use testkit::openssl::digest;
use testkit::programs::run;
use testkit::tpm::Swtpm;

over_our_transport!(a_c_program_reads_handle_name_and_area,);

fn a_c_program_reads_handle_name_and_area(link: Link) {
    for (template, hash, algorithm) in [
        ("h1", "-sha256", "000b"),
        ("h2", "-sha256", "000b"),
        ("h3", "-sha384", "000c"),
    ] {
        let (tpm, _identity) = Swtpm::manufactured_with(&["--template", template]);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        let said = run(&mut host(&home, "vendor", &[])).ok().text();
        let said: HashMap<_, _> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        assert_eq!(said["handle"], "81020000");
        assert_eq!((said["tpm"], said["persistent"]), ("1", "1"));
        // The name is the algorithm of the area's digest, and the digest (TPM 2.0, Part 1, 16).
        let named = format!("{algorithm}{}", hex(&digest(hash, &bytes(said["area"]))));
        assert_eq!(said["name"], named, "{template}");
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
