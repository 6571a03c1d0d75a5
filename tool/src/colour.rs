//! Colours of text for a person: only where standard output is a terminal that has them, unless the
//! environment says otherwise (NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM=dumb).

use anstyle::{AnsiColor, Style};
use std::io::stdout;

/// What a text is, and so how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Title,
    Good,
    Note,
    Problem,
}

/// Paints, or leaves text as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Painter {
    has_colours: bool,
}

impl Painter {
    /// As standard output has it.
    pub(crate) fn of_standard_output() -> Self {
        let choice = anstream::AutoStream::choice(&stdout());
        Self {
            has_colours: choice != anstream::ColorChoice::Never,
        }
    }

    /// A text of a line, which steers no terminal itself.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let style = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Title => Style::new().bold(),
            Colour::Good => AnsiColor::Green.on_default(),
            Colour::Note => AnsiColor::Yellow.on_default(),
            Colour::Problem => AnsiColor::Red.on_default().bold(),
        };
        match self.has_colours {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}
