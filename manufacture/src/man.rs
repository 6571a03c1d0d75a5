//! Makes the manual page from the verbs and their arguments.

use crate::cli::Arguments;
use crate::output::Output;
use clap::CommandFactory;
use clap_mangen::Man;
use devid_core::identity::{IdentityError, IdentityErrorKind};

/// Returns the manual page in roff.
pub(crate) fn page() -> Result<Output, IdentityError> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut roff = Vec::new();
    let mut render = |command: clap::Command| Man::new(command).render(&mut roff);
    let rendered = render(command.clone()).and_then(|()| {
        let verbs = command.get_subcommands().cloned().collect::<Vec<_>>();
        verbs.into_iter().try_for_each(&mut render)
    });
    rendered.map_err(|error| {
        IdentityError::new(IdentityErrorKind::Failed, format!("manual page: {error}"))
    })?;
    Ok(Output::text(String::from_utf8_lossy(&roff).into_owned()))
}
