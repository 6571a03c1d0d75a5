//! Colours for text output. Colours are used only if standard output is a terminal that supports
//! them. Environment variables can override this rule (NO_COLOR, CLICOLOR, CLICOLOR_FORCE,
//! TERM=dumb).

use anstyle::{AnsiColor, Style};
use std::io::stdout;

/// The kind of a text, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Title,
    Good,
    Note,
    Problem,
}

/// Colours texts, or leaves them unchanged if the terminal has no colours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Painter {
    has_colours: bool,
}

impl Painter {
    /// Decides whether standard output has colours, and returns the painter.
    pub(crate) fn of_standard_output() -> Self {
        let choice = anstream::AutoStream::choice(&stdout());
        Self {
            has_colours: choice != anstream::ColorChoice::Never,
        }
    }

    /// Returns the text in this colour, on one line. Control characters in the text are replaced,
    /// so that the text cannot control the terminal.
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
