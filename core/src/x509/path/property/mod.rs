//! Mutates certificate chains, and compares the results of this project and OpenSSL. This project
//! must not verify a chain that OpenSSL refuses. If only OpenSSL verifies a chain, the reason must
//! be in a list.
//!
//! `DEVID_CHAIN_CASES=N` sets the number of cases, `DEVID_CHAIN_SEED=N` the seed. Each case has its
//! own number. To keep the certificates of a case, set the seed to this number, the number of cases
//! to 1, and `DEVID_CHAIN_KEEP=DIR`.

mod draft;
mod mutations;
mod values;

use super::*;
use crate::x509::checks::{Check, Outcome, profile_checks, validity_check};
use crate::x509::samples::in_year;
use draft::Keys;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const CASES: usize = 3000;
const SEED: usize = 20_261_128;

/// The permitted reasons for refusing a chain that OpenSSL verifies. Each entry has words of this
/// project's message, and the justification.
const STRICTER: &[(&str, &str)] = &[
    (
        "basic constraints: CA:TRUE",
        "a DevID certificate must not be a CA certificate (802.1AR, section 8)",
    ),
    (
        "digitalSignature is missing",
        "keyUsage of a DevID certificate must include digitalSignature (802.1AR, section 8)",
    ),
    (
        "issuer: none",
        "the field issuer must not be empty (RFC 5280, section 4.1.2.4)",
    ),
    (
        "extension that cannot be read, or that occurs twice",
        "an extension must not occur twice (RFC 5280, section 4.2), and an evaluated extension \
         must be complete DER without trailing bytes",
    ),
    (
        "critical extension",
        "this project does not evaluate the critical extension",
    ),
    (
        "is not a CA certificate",
        "a CA certificate of version 3 must have basicConstraints (RFC 5280, section 4.2.1.9)",
    ),
    ("SHA-1", "signatures with SHA-1 can be forged"),
    (
        "signed by an unsupported algorithm",
        "the signature algorithm is neither ECDSA nor RSA with SHA-2",
    ),
    (
        "has an unsupported type",
        "this project does not support the curve, the type or the size of the key",
    ),
    (
        "is refused: it",
        "this project does not evaluate the extensions of RFC 3820 and RFC 3779",
    ),
    (
        "requires a policy",
        "the policies of the trusted certificate apply too (RFC 5937)",
    ),
    (
        "maps anyPolicy",
        "the trusted certificate must not map anyPolicy either",
    ),
    (
        "is not supported",
        "this project does not compare names of this type (e-mail, URI, registeredID)",
    ),
    (
        "cannot be read",
        "the field does not have the encoding of RFC 5280",
    ),
];

/// The options that make OpenSSL check policies. OpenSSL checks policies only on request, and
/// accepts any policy only with anyPolicy.
const POLICIES: &[&str] = &["-policy_check", "-policy", "2.5.29.32.0"];

/// Reproducible random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        let mut random = Self((seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() >> 33) as usize % count
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[5]
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// A chain for both verifiers, and the mutations that made it.
struct Case {
    done: Vec<&'static str>,
    /// The certificates; the leaf is first.
    chain: Vec<Vec<u8>>,
    trusted: usize,
}

impl Case {
    fn new(keys: &Keys, seed: usize) -> Self {
        let mut random = Random::new(seed);
        let (mut chain, trusted) = mutations::base(keys, &mut random);
        let mut done = Vec::new();
        if random.below(8) == 0 {
            done.push(mutations::restructure(&mut chain, &mut random));
        }
        for _ in 0..random.below(4) {
            let at = random.below(chain.len());
            done.push(mutations::mutate(&mut chain[at], &mut random));
        }
        let mut chain: Vec<_> = chain.iter().map(|draft| draft.build(keys)).collect();
        if chain.len() == 3 && trusted == 1 && random.below(20) == 0 {
            done.push("a missing CA");
            chain.remove(1);
        }
        Self {
            done,
            chain,
            trusted,
        }
    }

    fn trusted(&self) -> &[Vec<u8>] {
        &self.chain[self.chain.len() - self.trusted..]
    }

    fn others(&self) -> &[Vec<u8>] {
        let rest = &self.chain[..self.chain.len() - self.trusted];
        rest.get(1..).unwrap_or_default()
    }

    /// Returns the result of `devid verify` for the chain: the path, or the reason of the failure.
    /// The check that the TPM holds the key counts as passed.
    fn ours(&self) -> Result<Vec<Certificate>, String> {
        let now = in_year(2026);
        let read = |all: &[Vec<u8>]| -> Vec<Certificate> {
            let all = all.iter().map(|der| Certificate::from_der(der));
            all.filter_map(Result::ok).collect()
        };
        let leaf = Certificate::from_der(&self.chain[0]).map_err(|why| why.to_string())?;
        let (trusted, others) = (read(self.trusted()), read(self.others()));
        let path = match build_path(&leaf, &trusted, &others, Some(now)) {
            PathResult::Trusted(path) => path,
            PathResult::NoIssuer(issuer) => return Err(format!("open: {issuer}")),
            PathResult::SelfSigned => return Err("self-signed".into()),
            PathResult::Invalid(why) => return Err(why),
        };
        let mut points = profile_checks(&leaf);
        points.push(validity_check(&leaf, Ok(now)));
        let mut failed = points.iter().filter(|one| one.outcome == Outcome::Failed);
        match failed.next().map(Check::to_string) {
            Some(why) => Err(why),
            None if leaf.public_key().is_none() => Err("the key has an unsupported type".into()),
            None => Ok(path),
        }
    }

    /// Returns OpenSSL's result for a path that consists of these certificates only. If two CAs
    /// have one name, OpenSSL takes the trusted CA. In that case each step of the path is verified
    /// separately.
    fn step_by_step(&self, way: &[Certificate], folder: &Path) -> Result<(), String> {
        let der =
            |all: &[Certificate]| -> Vec<_> { all.iter().map(|one| one.der().to_vec()).collect() };
        let (end, below) = way.split_last().unwrap();
        let between = der(below.get(1..).unwrap_or_default());
        let whole = self.openssl(&der(std::slice::from_ref(end)), &between, folder, POLICIES);
        let is_end = |one: &Certificate| is_same_name(one.subject_der(), end.subject_der());
        if whole.is_ok() || !below.iter().skip(1).any(is_end) {
            return whole;
        }
        for pair in way.windows(2) {
            let step = Self {
                done: Vec::new(),
                chain: der(pair),
                trusted: 1,
            };
            step.openssl(step.trusted(), &[], folder, POLICIES)?;
        }
        Ok(())
    }

    /// Runs `openssl verify` on the chain and returns the result.
    fn openssl(
        &self,
        trusted: &[Vec<u8>],
        others: &[Vec<u8>],
        folder: &Path,
        more: &[&str],
    ) -> Result<(), String> {
        let pem = |all: &[Vec<u8>]| {
            let all = all
                .iter()
                .map(|der| crate::pem::render("CERTIFICATE", der).unwrap());
            all.collect::<String>()
        };
        let write = |name: &str, all: &[Vec<u8>]| {
            let path = folder.join(name);
            std::fs::write(&path, pem(all)).unwrap();
            path
        };
        let mut command = Command::new("openssl");
        command.env("OPENSSL_CONF", "/dev/null");
        command.args([
            "verify",
            "-partial_chain",
            "-no-CApath",
            "-no-CAstore",
            "-no-CAfile",
        ]);
        command.args([
            "-attime",
            &in_year(2026).unix_duration().as_secs().to_string(),
        ]);
        command.args(more);
        command.arg("-trusted").arg(write("trusted", trusted));
        if !others.is_empty() {
            command.arg("-untrusted").arg(write("others", others));
        }
        command.arg(write("leaf", &self.chain[..1]));
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

struct Answers {
    ours: Result<Vec<Certificate>, String>,
    plain: Result<(), String>,
    /// OpenSSL's result with its checks of policies, if OpenSSL verified the chain without them.
    of_policies: Result<(), String>,
    /// OpenSSL's result for the path of this project, if only this project verified the chain.
    of_our_way: Result<(), String>,
}

impl Answers {
    fn of(case: &Case, folder: &Path) -> Self {
        let ours = case.ours();
        let plain = case.openssl(case.trusted(), case.others(), folder, &[]);
        let mut of_policies = Ok(());
        let mut of_our_way = Err(String::new());
        let may_be_of_policies = match &ours {
            Ok(_) => true,
            Err(why) => ["requires a policy", "maps anyPolicy"]
                .iter()
                .any(|it| why.contains(it)),
        };
        if plain.is_ok() && may_be_of_policies {
            of_policies = case.openssl(case.trusted(), case.others(), folder, POLICIES);
        }
        if let (Ok(way), true) = (&ours, plain.is_err() || of_policies.is_err()) {
            of_our_way = case.step_by_step(way, folder);
        }
        Self {
            ours,
            plain,
            of_policies,
            of_our_way,
        }
    }
}

#[derive(Default)]
struct Counts {
    cases: usize,
    both_verify: usize,
    both_refuse: usize,
    /// The number of chains for which OpenSSL verifies this project's path, but searched another
    /// path. OpenSSL continues above a trusted certificate, and tries only one of two issuers.
    other_way: usize,
    stricter: BTreeMap<&'static str, usize>,
    /// Chains that only this project verified, and chains that it refused for a reason that is not
    /// listed.
    wrong: Vec<String>,
    /// For each mutation: the number of cases, and the number that OpenSSL verified.
    done: BTreeMap<&'static str, [usize; 2]>,
}

impl Counts {
    fn take(&mut self, case: &Case, seed: usize, answers: Answers) {
        self.cases += 1;
        for what in &case.done {
            let counts = self.done.entry(what).or_default();
            counts[0] += 1;
            counts[1] += usize::from(answers.plain.is_ok());
        }
        let wrong = match (answers.ours, answers.plain.and(answers.of_policies)) {
            (Ok(_), Ok(())) => {
                self.both_verify += 1;
                return;
            }
            (Err(_), Err(_)) => {
                self.both_refuse += 1;
                return;
            }
            (Ok(_), Err(_)) if answers.of_our_way.is_ok() => {
                self.other_way += 1;
                return;
            }
            (Ok(_), Err(why)) => format!("verified by devid; OpenSSL: {why}"),
            (Err(why), Ok(())) => match STRICTER.iter().find(|(words, _)| why.contains(words)) {
                Some((words, _)) => {
                    *self.stricter.entry(words).or_default() += 1;
                    return;
                }
                None => format!("verified by OpenSSL; devid: {why}"),
            },
        };
        self.wrong.push(format!("{seed}: {:?}: {wrong}", case.done));
    }

    fn table(&self) -> String {
        let mut text = format!(
            "{} cases: {} verified by both, {} refused by both\n",
            self.cases, self.both_verify, self.both_refuse
        );
        writeln!(
            text,
            "{:6} verified by devid only: by a path that OpenSSL did not search",
            self.other_way
        )
        .unwrap();
        for (words, why) in STRICTER {
            let count = self.stricter.get(words).copied().unwrap_or_default();
            writeln!(text, "{count:6} refused by devid only: {words:?} ({why})").unwrap();
        }
        for (what, [cases, verified]) in &self.done {
            writeln!(
                text,
                "{cases:6} with {what}, {verified} verified by OpenSSL"
            )
            .unwrap();
        }
        text
    }
}

fn setting(name: &str, default: usize) -> usize {
    let said = std::env::var(name);
    said.map_or(default, |said| said.parse().unwrap())
}

#[test]
fn what_openssl_refuses_is_never_verified() {
    let (cases, first) = (
        setting("DEVID_CHAIN_CASES", CASES),
        setting("DEVID_CHAIN_SEED", SEED),
    );
    let keys = Keys::new();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let folder = tempfile::tempdir().unwrap();
                let kept = std::env::var_os("DEVID_CHAIN_KEEP").map(PathBuf::from);
                let folder = kept.as_deref().unwrap_or(folder.path());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cases {
                        return;
                    }
                    let case = Case::new(&keys, first + number);
                    let answers = Answers::of(&case, folder);
                    let mut counts = counts.lock().unwrap();
                    counts.take(&case, first + number, answers);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    // The table is printed even if the test passes.
    std::io::Write::write_all(&mut std::io::stdout(), counts.table().as_bytes()).unwrap();
    assert_eq!(counts.cases, cases);
    assert!(counts.wrong.is_empty(), "{:#?}", counts.wrong);
    if cases < CASES {
        return;
    }
    // At least a tenth of the cases must be verified by both, and at least a tenth refused by both.
    assert!(counts.both_verify * 10 > cases && counts.both_refuse * 10 > cases);
}
