//! `devid token`: makes and removes the tokens of services.

use crate::cli::{OutputFormat, TokenVerb};
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use devid_core::config::Config;
use devid_core::identity::{ServiceToken, add_service_token, remove_service_token};

/// Makes or removes a token.
pub(crate) fn run(
    config: &Config,
    verb: &TokenVerb,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let (done, text) = match verb {
        TokenVerb::Add { name, group, user } => {
            let done = add_service_token(config, name, group, user.as_deref())?;
            let text = added(&done);
            (done, text)
        }
        TokenVerb::Remove { name } => {
            let done = remove_service_token(config, name)?;
            let text = removed(&done);
            (done, text)
        }
    };
    let output = Output::new(form, &done, || text)?;
    Ok(Output {
        is_unchanged: !done.changed,
        ..output
    })
}

fn added(done: &ServiceToken) -> String {
    let mut text = String::new();
    let what = match done.changed {
        true => "made",
        false => "exists already",
    };
    row(&mut text, format_args!("token {}: {what}", done.token));
    line(&mut text, "keys in", &done.folder.display().to_string());
    line(&mut text, "setting", &done.drop_in.display().to_string());
    text
}

fn removed(done: &ServiceToken) -> String {
    let mut text = String::new();
    row(&mut text, format_args!("token {}: removed", done.token));
    if done.kept {
        let folder = done.folder.display().to_string();
        line(&mut text, "keys stay in", &folder);
    }
    text
}
