//! `devid export` in the file formats of other programs, and `devid show --keylime`.

use crate::cli::OutputFormat;
use crate::output::{CommandError, Output};
use crate::text::row;
use devid_core::identity::{Device, Exported};
use std::path::Path;

/// Exports files for tpm2-tools.
pub(crate) fn to_tools(
    device: &Device,
    label: &str,
    folder: &Path,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    told(&device.export_to_tools(&device.find(label)?, folder)?, form)
}

/// Exports files for SPIRE.
pub(crate) fn to_spire(
    device: &Device,
    label: &str,
    folder: &Path,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    told(&device.export_to_spire(&device.find(label)?, folder)?, form)
}

/// Exports files for Keylime.
pub(crate) fn keylime(
    device: &Device,
    label: &str,
    folder: Option<&Path>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    told(
        &device.keylime_settings(&device.find(label)?, folder)?,
        form,
    )
}

/// Returns the settings for the other program, for standard output. Missing files are named on
/// standard error.
fn told(exported: &Exported, form: OutputFormat) -> Result<Output, CommandError> {
    let output = Output::new(form, exported, || {
        let mut text = String::new();
        exported.usage.iter().for_each(|one| row(&mut text, one));
        text
    })?;
    let complaint = match form {
        OutputFormat::Text => exported.note.clone(),
        OutputFormat::Json => None,
    };
    Ok(Output {
        complaint,
        ..output
    })
}
