//! Correct, unusual and wrong values of extensions, for the mutations of test certificates.

use super::Random;
use super::draft::{Draft, SEQUENCE, name, unhex};
use crate::ber::encoded;

pub(super) const BASIC_CONSTRAINTS: &str = "0603551d13";
pub(super) const KEY_USAGE: &str = "0603551d0f";
pub(super) const AUTHORITY_KEY_ID: &str = "0603551d23";
pub(super) const SUBJECT_KEY_ID: &str = "0603551d0e";
const SUBJECT_ALT_NAME: &str = "0603551d11";
const POLICIES: &str = "0603551d20";
const POLICY_MAPPINGS: &str = "0603551d21";
const POLICY_CONSTRAINTS: &str = "0603551d24";
const INHIBIT_ANY_POLICY: &str = "0603551d36";
const NAME_CONSTRAINTS: &str = "0603551d1e";

const FIXED: &[(&str, &[&str])] = &[
    (
        BASIC_CONSTRAINTS,
        &[
            "3000",
            "30030101ff",
            "3003010101",
            "3003010100",
            "30060101ff020100",
            "30060101ff020101",
            "30060101ff0201ff",
            "30070101ff020203e8",
            "300e0101ff020901000000000000000000",
            "30070101ff02020001",
            "3003020100",
            "0500",
            "",
            "30030101ff00",
            "30040102ffff",
            "308103 0101ff",
            "3080 0101ff 0000",
            "31030101ff",
            "30060101ff0101ff",
            "3002010100",
        ],
    ),
    (
        KEY_USAGE,
        &[
            "03020106",
            "03020204",
            "03020780",
            "03020186",
            "03020780",
            "0303070080",
            "030307047f",
            "030400060000",
            "030400800000",
            "03020004",
            "0500",
            "",
            "0302010600",
            "030100",
            "03020906",
            "04020106",
            "2304 03020106",
            "03020100",
            "03020600",
            "030106",
        ],
    ),
    (
        "0603551d25",
        &[
            "300a06082b06010505070301",
            "3000",
            "",
            "0500",
            "300a06082b0601050507030100",
            "300306012a",
            "30020600",
            "3004 06028000",
            "3004020101",
            "3003 060180",
        ],
    ),
    (
        AUTHORITY_KEY_ID,
        &[
            "3000",
            "30068004000000",
            "3006800400000001",
            "3006800400000002",
            "30068004deadbeef",
            "0500",
            "",
            "3006800400000001ff",
            "300e800400000001 8200",
            "3003820141",
            "300e 820c 414141414141414141414141",
            "300e 820c 424242424242424242424242",
            "30028100",
            "3004a1020500",
            "3000 00",
            "3010 820c 424242424242424242424242 8000",
            "3006 a104 82026869",
            "3006 a104 84026869",
        ],
    ),
    (
        SUBJECT_KEY_ID,
        &[
            "040400000001",
            "040400000002",
            "0404deadbeef",
            "0400",
            "",
            "0500",
            "04040000000100",
            "240604 0400000001",
        ],
    ),
    (
        SUBJECT_ALT_NAME,
        &[
            "3000",
            "",
            "0500",
            "30048202 6869",
            "3004820268ff",
            "3006 870401020304",
            "3003 870101",
            "3005 8603 613a2f",
            "3005 8103 614062",
            "3003 88012a",
            "3004 88028001",
            "3002 8800",
            "3004 a3020500",
            "3002 a300",
            "3004 83020500",
            "3004 a4023000",
            "3002 a400",
            "3004 a4020500",
            "300e a50c a0040c026869 a1040c026869",
            "3008 a506 a1040c026869",
            "3004a5023000",
            "3002 8900",
            "3009 a007 06022a03 a0010c",
            "300a a008 06022a03 a0020c00",
            "3008 a006 06022a03 0500",
            "30048202 686900",
        ],
    ),
    (
        "0603551d1f",
        &[
            "300a3008a006a00486026869",
            "300030",
            "3000",
            "3004 3002 8100",
            "30023000",
            "3006 3004 81020780",
            "3008 3006 a2048602 6869",
            "3006 3004 a002 a000",
            "3004 3002 a000",
            "0500",
            "",
        ],
    ),
    // Values of netscape-cert-type and authorityInfoAccess.
    (
        "0609608648 0186f8420101",
        &["03020780", "0500", "", "03020001", "0302090180"],
    ),
    ("06082b06010505070101", &["3000", "0500"]),
    // Values of proxyCertInfo, and of the extensions for IP addresses and AS numbers.
    (
        "06082b0601050507010e",
        &["300c300a06082b06010505071501", "3000"],
    ),
    ("06082b06010505070107", &["3000", "3008 3006 04020001 0500"]),
    ("06082b06010505070108", &["3000", "3004 a002 0500"]),
    (
        POLICIES,
        &[
            "3000",
            "",
            "0500",
            "3006300406022a0300",
            "3005 3003 06012a",
            "300a 3008 06022a03 3002 3000",
            "300c300406022a03300406022a03",
            "300a3008 0606 2a8648ce3d01",
        ],
    ),
    (
        POLICY_MAPPINGS,
        &[
            "3000",
            "",
            "0500",
            "300a3008 06022a0306022a04",
            "300c300a 0604551d2000 06022a03",
            "300c300a 06022a03 0604551d2000",
            "3006 3004 06022a03",
        ],
    ),
    (
        POLICY_CONSTRAINTS,
        &[
            "3000",
            "",
            "0500",
            "3003800100",
            "3003810100",
            "3003800101",
            "3006800100810100",
            "30038001ff",
            "3006810100800100",
            "3003 820100",
            "3003 a00100",
        ],
    ),
    (
        INHIBIT_ANY_POLICY,
        &["020100", "020101", "0201ff", "", "0500", "0200", "02020080"],
    ),
    (
        NAME_CONSTRAINTS,
        &[
            "3000",
            "",
            "0500",
            "3002a000",
            "3006a0043002 8200",
            "3008 a006 3004 8202 6869",
            "300b a109 3007 8202 6869 800101",
            "300b a009 3007 8202 6869 810101",
            "300b a009 3007 8202 6869 800100",
            "300a a008 3006 8704 01020304",
            "300e a00c 300a 8708 01020304 ffffffff",
            "300e a10c 300a 8708 00000000 00000000",
            "3008 a106 3004 8102 6869",
            "3008 a006 3004 8602 6869",
            "3008 a006 3004 a002 3000",
            "300a a008 3006 a404 30023100",
            "3008 a006 3004 a402 3000",
            "3008 a106 3004 a402 3000",
            "3008 a006 3004 8802 2a03",
        ],
    ),
];

/// Adds an extension to a test certificate, or changes the value of an existing extension.
pub(super) fn put(draft: &mut Draft, random: &mut Random) {
    match random.below(5) {
        0 => put_policies(draft, 1 + random.below(2), random),
        1 => put_names(draft, random.below(3), random),
        _ => {
            let (oid, values) = random.of(FIXED);
            let value = unhex(random.of(values));
            draft.set(oid, random.below(3) == 0, &value);
        }
    }
}

fn policy(random: &mut Random) -> Vec<u8> {
    unhex(random.of(&[
        "06022a03",
        "06022a03",
        "06022a04",
        "06022a05",
        "0604551d2000",
    ]))
}

/// Adds certificatePolicies to a test certificate. For a CA, also adds policy mappings and policy
/// constraints.
pub(super) fn put_policies(draft: &mut Draft, at: usize, random: &mut Random) {
    if random.below(6) > 0 {
        let mut all: Vec<_> = (0..=random.below(3)).map(|_| policy(random)).collect();
        if random.below(10) > 0 {
            all.sort();
            all.dedup();
        }
        let all = all
            .iter()
            .map(|one| encoded(SEQUENCE, one))
            .collect::<Vec<_>>()
            .concat();
        draft.set(POLICIES, random.below(2) == 0, &encoded(SEQUENCE, &all));
    }
    if at == 0 {
        return;
    }
    let count = |random: &mut Random| random.below(3) as u8;
    if random.below(3) == 0 {
        let pair = |random: &mut Random| {
            let mut some = || loop {
                let one = policy(random);
                if one.len() == 4 || random.below(12) == 0 {
                    return one;
                }
            };
            encoded(SEQUENCE, &[some(), some()].concat())
        };
        let pairs: Vec<_> = (0..=random.below(2)).map(|_| pair(random)).collect();
        draft.set(
            POLICY_MAPPINGS,
            random.below(2) == 0,
            &encoded(SEQUENCE, &pairs.concat()),
        );
    }
    if random.below(2) == 0 {
        let parts = match random.below(3) {
            0 => vec![0x80, 1, count(random)],
            1 => vec![0x81, 1, count(random)],
            _ => vec![0x80, 1, count(random), 0x81, 1, count(random)],
        };
        draft.set(
            POLICY_CONSTRAINTS,
            random.below(2) == 0,
            &encoded(SEQUENCE, &parts),
        );
    }
    if random.below(4) == 0 {
        draft.set(INHIBIT_ANY_POLICY, true, &[2, 1, count(random)]);
    }
}

fn general_name(random: &mut Random) -> Vec<u8> {
    let directory = |text: &str| encoded(0xA4, &name(text));
    match random.below(12) {
        0 => encoded(0x82, b"a.example.com"),
        1 => encoded(0x82, b"example.com"),
        2 => encoded(0x82, b"Example.COM"),
        3 => encoded(0x82, b".example.com"),
        4 => encoded(0x82, b"badexample.com"),
        5 => encoded(0x82, b""),
        6 => directory("O=ex  AMPLE"),
        7 => directory("O=other"),
        8 => directory("CN=device one,O=Ex ample"),
        9 => unhex(random.of(&[
            "8704 0a000001",
            "8708 0a000000 ff000000",
            "8708 0a000002 ffffffff",
            "8710 00000000000000000000000000000001",
        ])),
        10 => encoded(0x81, b"who@example.com"),
        _ => encoded(0x86, b"https://a.example.com/x"),
    }
}

/// Adds names to the subjectAltName of a test certificate. For a CA, also adds name constraints.
pub(super) fn put_names(draft: &mut Draft, at: usize, random: &mut Random) {
    let names: Vec<_> = (0..=random.below(2))
        .map(|_| general_name(random))
        .collect();
    if at == 0 {
        if random.below(4) > 0 {
            draft.set(
                SUBJECT_ALT_NAME,
                random.below(2) == 0,
                &encoded(SEQUENCE, &names.concat()),
            );
        }
        if random.below(4) == 0 {
            let common = random.of(&["a.example.com", "evil.com", "-a.com", "a..b", "single"]);
            draft.subject = name(&format!("CN={common},O=Ex ample"));
        }
        return;
    }
    let subtree = |name: &Vec<u8>| encoded(SEQUENCE, name);
    let subtrees: Vec<u8> = names.iter().map(subtree).collect::<Vec<_>>().concat();
    let tags: &[u8] = random.of(&[&[0xA0][..], &[0xA1], &[0xA0, 0xA1]]);
    let all = tags
        .iter()
        .map(|tag| encoded(*tag, &subtrees))
        .collect::<Vec<_>>()
        .concat();
    draft.set(
        NAME_CONSTRAINTS,
        random.below(2) == 0,
        &encoded(SEQUENCE, &all),
    );
}
