//! Writes a status in the text format of Prometheus (exposition format 0.0.4).

use devid_core::identity::{CheckedCertificate, Mode, Status, StatusCheck};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Returns all Prometheus metrics of a device. Times are in seconds since 1970-01-01.
pub(crate) fn metrics(status: &Status, check: &StatusCheck) -> String {
    let mut text = String::new();
    let modes = [
        ("tpm", Mode::Tpm),
        ("software", Mode::Software),
        ("error", Mode::Error),
    ];
    family(
        &mut text,
        "devid_identity_mode",
        "Location of the device's identity: 1 for the current mode.",
        modes.iter().map(|(name, mode)| {
            let labels = format!("{{mode=\"{name}\"}}");
            (labels, i64::from(status.mode == *mode))
        }),
    );
    let bare = |value| std::iter::once((String::new(), value));
    family(
        &mut text,
        "devid_tpm_up",
        "1 if the TPM answers.",
        bare(i64::from(status.tpm.is_some())),
    );
    if let Some(tpm) = &status.tpm {
        let help = "1 if the TPM is in lockout.";
        family(
            &mut text,
            "devid_tpm_locked",
            help,
            bare(i64::from(tpm.locked)),
        );
        let help = "Number of wrong authorisation values that the TPM counts now.";
        let counted = i64::from(tpm.lockout_counter);
        family(&mut text, "devid_tpm_lockout_tries", help, bare(counted));
    }
    let findings = i64::try_from(check.findings.len()).unwrap_or(i64::MAX);
    let help = "Number of problems.";
    family(&mut text, "devid_findings", help, bare(findings));
    let named = named(&check.certificates);
    let times = |end: bool| {
        let of = move |(labels, one): &(String, &CheckedCertificate)| {
            let (from, until) = one.role.validity?;
            Some((format!("{{{labels}}}"), if end { until } else { from }))
        };
        named.iter().filter_map(of)
    };
    family(
        &mut text,
        "devid_certificate_not_before_timestamp_seconds",
        "Start of a certificate's validity.",
        times(false),
    );
    family(
        &mut text,
        "devid_certificate_not_after_timestamp_seconds",
        "End of a certificate's validity; 253402300799 means no end.",
        times(true),
    );
    family(
        &mut text,
        "devid_certificate_state",
        "State of a certificate: 1 for the current state.",
        named.iter().map(|(labels, one)| {
            let state = one.state.name();
            (format!("{{{labels},state=\"{state}\"}}"), 1)
        }),
    );
    let mut seen = BTreeSet::new();
    let enrolments = status.enrolments.iter().filter_map(|one| {
        let label = format!("{{label=\"{}\"}}", escaped(&one.label));
        let is_new = seen.insert(label.clone());
        is_new.then(|| (label, i64::from(one.failures)))
    });
    family(
        &mut text,
        "devid_enrolment_failures",
        "Number of consecutive failures of a key's enrolment.",
        enrolments,
    );
    text
}

/// Returns each certificate with Prometheus labels that no other certificate has.
fn named(all: &[CheckedCertificate]) -> Vec<(String, &CheckedCertificate)> {
    let mut seen = BTreeSet::new();
    let labels = |one: &CheckedCertificate| {
        let role = &one.role;
        format!(
            "token=\"{}\",label=\"{}\",id=\"{}\",role=\"{}\"",
            escaped(&role.token),
            escaped(&role.label),
            escaped(&role.id),
            role.role
        )
    };
    let named = all.iter().map(|one| (labels(one), one));
    named
        .filter(|(labels, _)| seen.insert(labels.clone()))
        .collect()
}

/// Writes a metric and its values. Writes nothing if there are no values.
fn family(text: &mut String, name: &str, help: &str, values: impl Iterator<Item = (String, i64)>) {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (labels, value) in values {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// Escapes the value of a Prometheus label, which stands between quotes.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_label_keeps_its_characters() {
        assert_eq!(escaped("a\"b\\c\nd é"), "a\\\"b\\\\c\\nd é");
    }
}
