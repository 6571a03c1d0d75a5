//! `devid attest`, `devid activate` and `devid challenge`: makes evidence, and answers challenges.

use crate::cli::OutputFormat;
use crate::destination::Destination;
use crate::evidence_cli::{AttestArgs, ChallengeArgs};
use crate::input;
use crate::output::{CommandError, Output};
use crate::verify::read_pin;
use devid_core::evidence::bundle::BUNDLE_FORMAT;
use devid_core::evidence::challenge::RESPONSE_FORMAT;
use devid_core::evidence::tcg_csr::TcgCsrForm;
use devid_core::evidence::{
    self, Audience, Bytes, Challenge, Collection, DocumentError, EvidenceForm, HmacAnswer,
    HmacChallenge, acme_nonce, nonce_of,
};
use devid_core::identity::{Device, FileKind};
use devid_core::key::hex;
use serde_json::json;
use std::path::Path;

/// The largest permitted size of a challenge, in bytes.
const LARGEST: u64 = 1 << 20;

/// Makes evidence for a key.
pub(crate) fn attest(
    device: &Device,
    args: AttestArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let label = args.name();
    let out = Destination::from(args.out);
    let foreign = args.form.foreign();
    let kind = match foreign {
        None => FileKind::Document(BUNDLE_FORMAT),
        Some(_) => FileKind::Bytes,
    };
    let beside = signature_file(foreign, &out)?;
    for place in [Some(&out), beside.as_ref()].into_iter().flatten() {
        place.check(kind)?;
    }
    let nonce = match (&args.nonce, &args.acme) {
        (_, Some(authorization)) => Some(acme_nonce(authorization)),
        (nonce, None) => nonce.as_deref().map(nonce_of).transpose()?,
    };
    let pin = read_pin(args.pin_file)?;
    if let Some(service) = args
        .service
        .as_deref()
        .filter(|one| !device.is_service(one))
    {
        return Err(CommandError::new(
            5,
            format!(
                "{service}: no token of a service has this name; make the token: devid token add {service} \
                 --group GROUP"
            ),
        ));
    }
    let collection = Collection {
        nonce: nonce.as_deref(),
        pin: pin.as_ref(),
        ek_files: &args.ek_cert,
        audience: match args.to_ca {
            true => Audience::Ca,
            false => Audience::Anybody,
        },
    };
    // Evidence for the CA shows which device runs the service, so no other user may read it.
    let mode = if args.to_ca { 0o600 } else { 0o644 };
    let (bundle, made) = evidence::leaving_nothing(device, || {
        let inventory = device.inventory();
        let entry = device.find_in(&inventory, &label)?;
        let mut bundle = evidence::collect(device, &inventory, &entry, collection)?;
        if let Some(path) = &args.ak_cert {
            bundle.add_attestation_certificates(path)?;
        }
        let in_form = |form| evidence::in_form(device, &entry, &bundle, form, pin.as_ref());
        let made = foreign.map(in_form).transpose()?;
        Ok::<_, CommandError>((bundle, made))
    })?;
    let complaint = bundle.nonce.is_none().then(|| {
        "the evidence is not fresh, because it has no nonce; give the nonce of the CA with --nonce"
            .into()
    });
    let output = match made {
        None => document(bundle.to_json(), BUNDLE_FORMAT, &out, mode, form)?,
        Some(made) => {
            out.write(&made.document, kind, mode)?;
            if let (Some(place), Some(signature)) = (&beside, &made.signature) {
                place.write(signature, kind, mode)?;
            }
            let told = json!({
                "evidence": Bytes::from(&made.document[..]),
                "signature": made.signature.map(Bytes::from),
                "file": out.path(),
            });
            let output = Output::new(form, &told, String::new)?;
            match out {
                Destination::File(_) => output,
                Destination::StandardOutput => Output {
                    bytes: Some(made.document),
                    ..output
                },
            }
        }
    };
    Ok(Output {
        complaint,
        ..output
    })
}

/// Returns the file for a signature that is not part of the evidence file.
fn signature_file(
    form: Option<EvidenceForm>,
    out: &Destination,
) -> Result<Option<Destination>, CommandError> {
    match (form, out) {
        (Some(EvidenceForm::TcgCsr(TcgCsrForm::Detached)), Destination::File(file)) => {
            let mut path = file.path().as_os_str().to_owned();
            path.push(".sig");
            Ok(Some(Destination::new(path.into(), file.is_forced())))
        }
        (Some(EvidenceForm::TcgCsr(TcgCsrForm::Detached)), Destination::StandardOutput) => {
            Err(CommandError::new(
                2,
                "--form tcg-csr needs --out FILE; its signature goes to FILE.sig",
            ))
        }
        _ => Ok(None),
    }
}

/// Answers the challenge of a CA (TPM2_ActivateCredential).
pub(crate) fn activate(
    device: &Device,
    path: &Path,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let challenge = read(path)?;
    if evidence::is_of_tools(&challenge) {
        out.check(FileKind::Bytes)?;
        let secret = evidence::activate_of_tools(device, &challenge)?;
        out.write(&secret, FileKind::Bytes, 0o600)?;
        let told = json!({ "secret": Bytes::from(secret.as_slice()), "file": out.path() });
        return Output::new(form, &told, || match out.path() {
            Some(_) => String::new(),
            None => format!("{}\n", hex(&secret)),
        });
    }
    out.check(FileKind::Document(RESPONSE_FORMAT))?;
    let challenge = Challenge::from_json(&challenge)
        .map_err(|why| CommandError::new(2, format!("{}: {why}", path.display())))?;
    let response = evidence::activate(device, &challenge)?;
    document(response.to_json(), RESPONSE_FORMAT, out, 0o644, form)
}

/// Answers an owner's HMAC challenge.
pub(crate) fn challenge(
    device: &Device,
    args: ChallengeArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let out = Destination::from(args.out);
    out.check(FileKind::Bytes)?;
    let message = input::file(&args.challenge, LARGEST)?;
    let challenge = HmacChallenge::from_json(&message)
        .map_err(|why| CommandError::new(2, format!("{}: {why}", args.challenge.display())))?;
    let transport_key = args.transport_key.map(|path| input::file(&path, LARGEST));
    let transport_key = transport_key.transpose()?;
    let unfit = match transport_key {
        None if challenge.wants_transport_key() => Some(
            "the message is a bootz challenge, and its answer is bound to a transport key; give the \
             transport key with --transport-key FILE",
        ),
        Some(_) if !challenge.takes_transport_key() => Some(
            "--transport-key: the message is an enrollz challenge, and its answer has no field for a transport key; run the command without this option",
        ),
        _ => None,
    };
    if let Some(why) = unfit {
        return Err(CommandError::new(2, why));
    }
    let answer = HmacAnswer::to(device, &challenge, transport_key.as_deref())?.to_json()?;
    written(answer, FileKind::Bytes, &out, 0o644, form)
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    devid_core::read_file(path, LARGEST)
        .map_err(|error| CommandError::new(1, format!("{}: {error}", path.display())))
}

/// Writes evidence in this format to the file, or returns it if there is no file.
fn document(
    text: Result<String, DocumentError>,
    format: &str,
    out: &Destination,
    mode: u32,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let text = text.map_err(|why| CommandError::new(1, why.to_string()))?;
    written(text, FileKind::Document(format), out, mode, form)
}

/// Writes a JSON document to the file, or returns the document if there is no file.
fn written(
    text: String,
    kind: FileKind<'_>,
    out: &Destination,
    mode: u32,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    out.write(text.as_bytes(), kind, mode)?;
    if let Some(path) = out.path() {
        return Output::new(form, &json!({ "file": path }), String::new);
    }
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|why| CommandError::new(1, format!("the document: {why}")))?;
    Output::new(form, &value, || text)
}
