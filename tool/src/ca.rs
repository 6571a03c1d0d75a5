//! `devid ca`: verifies the evidence of devices, and issues certificates.

use crate::cli::OutputFormat;
use crate::destination::Destination;
use crate::evidence_cli::{CaVerb, VerifyArgs};
use crate::output::{CommandError, Output};
use crate::text::row;
use devid_core::evidence::{
    Bundle, CHALLENGE_FORMAT, Ca, EvidencePolicy, EvidenceReport, Issuance, Issued, Response,
    WhatToCertify, nonce_of,
};
use devid_core::identity::FileKind;
use devid_core::key::hex;
use serde_json::json;

const CERTIFICATE: FileKind = FileKind::Pem("CERTIFICATE");

pub(crate) fn run(verb: CaVerb, form: OutputFormat) -> Result<Output, CommandError> {
    match verb {
        CaVerb::Nonce {
            state,
            lifetime,
            out,
        } => {
            let out = Destination::from(out);
            out.check(FileKind::Hex)?;
            let nonce = hex(&Ca { state: state.state }.nonce(lifetime.valid_for)?);
            let text = format!("{nonce}\n");
            out.write(text.as_bytes(), FileKind::Hex, 0o644)?;
            let told = json!({ "nonce": nonce, "file": out.path() });
            Output::new(form, &told, || shown(&out, text))
        }
        CaVerb::Challenge {
            evidence,
            state,
            lifetime,
            out,
        } => {
            let kind = FileKind::Document(CHALLENGE_FORMAT);
            let out = Destination::from(out);
            out.check(kind)?;
            let bundle = Bundle::from_file(&evidence)?;
            let challenge = Ca { state: state.state }.challenge(&bundle, lifetime.valid_for)?;
            let text = challenge.to_json();
            let text = text.map_err(|why| CommandError::new(1, why.to_string()))?;
            out.write(text.as_bytes(), kind, 0o644)?;
            let told = json!({ "challenge": challenge, "file": out.path() });
            Output::new(form, &told, || shown(&out, text))
        }
        CaVerb::Verify { how } => {
            let (report, _) = verified(&how, None)?;
            let output = Output::new(form, &report, || paragraph(&report))?;
            Ok(judged(output, &report))
        }
        CaVerb::Issue {
            how,
            ca_cert,
            ca_key,
            days,
            subject,
            attestation_key,
            identifier,
            service,
            out,
        } => {
            let out = Destination::from(out);
            out.check(CERTIFICATE)?;
            let issuance = Issuance {
                ca_certificate: ca_cert,
                ca_key,
                days,
                what: match (service, attestation_key) {
                    (Some(service), _) => WhatToCertify::ServiceAttestationKey(service),
                    (None, true) => WhatToCertify::AttestationKey(identifier),
                    (None, false) => WhatToCertify::AttestedKey(subject),
                },
            };
            let (report, issued) = verified(&how, Some(&issuance))?;
            let pem = issued.as_ref().map(Issued::pem);
            if let Some(pem) = &pem {
                out.write(pem.as_bytes(), CERTIFICATE, 0o644)?;
            }
            let told = json!({ "evidence": report, "pem": pem, "file": out.path() });
            let output = Output::new(form, &told, || match pem {
                Some(pem) => shown(&out, pem),
                None => paragraph(&report),
            })?;
            Ok(judged(output, &report))
        }
    }
}

/// Verifies evidence. Issues a certificate too if `issuance` is given.
fn verified(
    how: &VerifyArgs,
    issuance: Option<&Issuance>,
) -> Result<(EvidenceReport, Option<Issued>), CommandError> {
    let bundle = Bundle::from_file(&how.evidence)?;
    let nonce = how.nonce.as_deref().map(nonce_of).transpose()?;
    let response = how
        .response
        .as_deref()
        .map(Response::from_file)
        .transpose()?;
    let policy = EvidencePolicy {
        roots: &how.roots,
        nonce: nonce.as_deref(),
        allow_no_nonce: how.allow_no_nonce,
        response: response.as_ref(),
    };
    let ca = Ca {
        state: how.state.state.clone(),
    };
    Ok(match issuance {
        Some(issuance) => ca.issue(&bundle, policy, issuance)?,
        None => (ca.verify(&bundle, policy)?, None),
    })
}

/// Returns the text. Returns an empty text if the text was written to a file.
fn shown(out: &Destination, text: String) -> String {
    match out.path() {
        Some(_) => String::new(),
        None => text,
    }
}

fn judged(output: Output, report: &EvidenceReport) -> Output {
    let failed = !report.verified;
    Output {
        code: u8::from(failed),
        complaint: failed.then(|| report.summary.clone()),
        ..output
    }
}

fn paragraph(report: &EvidenceReport) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = match check.ok {
            true => "ok",
            false => "FAILED",
        };
        row(
            &mut text,
            format_args!("{mark:<8} {}: {}", check.name, check.detail),
        );
    }
    // Failures go to standard error.
    if report.verified {
        row(&mut text, &report.summary);
    }
    text
}
