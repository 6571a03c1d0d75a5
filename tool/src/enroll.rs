//! `devid enroll`: requests a certificate from a server.

use crate::certificates::{subject, taken};
use crate::cli::{EnrollArgs, OutputFormat};
use crate::est::{Credentials, Enrolment, EstUrl, Outcome, ServerTrust, fingerprint, note_failure};
use crate::keys::algorithm;
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use crate::verify::read_pin;
use devid_core::identity::{Device, FACTORY};
use std::time::Duration;

/// The exit code if the EST server has not decided yet (HTTP status 202).
pub(crate) const PENDING: u8 = 7;

/// Requests a certificate from an EST server.
pub(crate) fn run(
    device: &Device,
    args: EnrollArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let usage = |why: String| CommandError::new(2, why);
    let label = args.name();
    if let Some(service) = &args.service
        && !device.tokens().contains(&service.as_str())
    {
        return Err(CommandError::new(
            5,
            format!(
                "{service}: no token has this name; make the token: devid token add {service} --group GROUP"
            ),
        ));
    }
    let trust = match (args.trust, args.fingerprint) {
        (Some(file), _) => ServerTrust::File(file),
        (None, Some(text)) => ServerTrust::Fingerprint(fingerprint(&text).map_err(usage)?),
        (None, None) => {
            return Err(usage(
                "the server is not trusted yet: give --trust FILE or --fingerprint HEX".into(),
            ));
        }
    };
    let password = read_pin(args.password_file)?;
    let credentials = args.user.zip(password);
    let credentials = credentials.map(|(user, password)| Credentials { user, password });
    let enrolment = Enrolment {
        device,
        url: EstUrl::parse(&args.est).map_err(usage)?,
        trust,
        as_identity: args.as_identity,
        content: args.content.content()?,
        algorithm: args.algorithm.map(algorithm),
        new_key: args.new_key,
        pin: read_pin(args.pin_file)?,
        limit: Duration::from_secs(args.timeout.max(1)),
        patience: Duration::from_secs(args.wait),
        believes_server: true,
        prove: None,
        reloads: false,
        label,
    };
    let _turn = device.enrolment_turn()?;
    let outcome = enrolment.run(credentials).inspect_err(|error| {
        if let Ok(entry) = device.find(&enrolment.label)
            && entry.token != FACTORY
            && (entry.key.is_some() || entry.software.is_some())
        {
            let key = (entry.token.as_str(), entry.label.as_str());
            note_failure(device, key, &enrolment.url.to_string(), error);
        }
    })?;
    let output = Output::new(form, &outcome, || paragraph(&outcome))?;
    let output = output.about(subject(device, outcome.label.clone()));
    Ok(match outcome.retry_after {
        Some(_) => Output {
            code: PENDING,
            ..output
        },
        None => output,
    })
}

fn paragraph(outcome: &Outcome) -> String {
    let mut text = String::new();
    if outcome.key_made {
        row(&mut text, format_args!("a key was made: {}", outcome.label));
    }
    if let Some(trusted) = &outcome.trusted {
        row(
            &mut text,
            format_args!("trusted by its fingerprint: {}", trusted.subject),
        );
        line(&mut text, "SHA-256", &trusted.sha256);
    }
    if let Some(enrolled) = &outcome.enrolled {
        text += &taken(&enrolled.imported);
        line(&mut text, "subject", &enrolled.subject);
        if let Some(end) = &enrolled.not_after {
            line(&mut text, "until", end);
        }
        for subject in &enrolled.chain {
            line(&mut text, "issued by", subject);
        }
        if !enrolled.validity_checked {
            line(
                &mut text,
                "note",
                "the clock is wrong, so the validity was not checked",
            );
        }
    }
    if let Some(seconds) = outcome.retry_after {
        row(
            &mut text,
            format_args!(
                "pending: the server has the request for {} and has not decided yet; run the \
                 same command again in {seconds} s",
                outcome.label
            ),
        );
    }
    text
}
