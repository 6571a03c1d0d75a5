//! `devid tree`: shows the device and its objects as a tree.

use crate::cli::OutputFormat;
use crate::colour::{Colour, Painter};
use crate::output::{CommandError, Output};
use crate::text::printable;
use devid_core::identity::{
    CertificateBranch, Device, DeviceTree, Expiry, MasterKey, ObjectBranch, TokenBranch, TpmBranch,
};
use std::fmt::Write;

/// A certificate that ends within this number of days is marked.
const SOON: i64 = 30;

/// Shows the device, its TPM, its tokens and their objects. Works without TPM.
pub(crate) fn run(
    device: &Device,
    painter: Painter,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let tree = device.tree();
    Output::new(form, &tree, || {
        let strokes = Strokes::of_environment();
        whole(&tree).text(&strokes, painter)
    })
}

/// A line of the tree, and the lines below it.
struct Node {
    text: String,
    colour: Colour,
    below: Vec<Node>,
}

/// The characters that draw the branches.
struct Strokes {
    /// The characters before a branch that has a next branch, and before the last branch.
    branch: [&'static str; 2],
    /// The characters in front of the lines below a branch.
    trunk: [&'static str; 2],
}

impl Strokes {
    const UNICODE: Self = Self {
        branch: ["├── ", "└── "],
        trunk: ["│   ", "    "],
    };
    const ASCII: Self = Self {
        branch: ["|-- ", "`-- "],
        trunk: ["|   ", "    "],
    };

    /// Chooses the characters by the locale. The first variable of the list that is set decides
    /// (POSIX, section 8.2).
    fn of_environment() -> Self {
        let mut values = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(std::env::var_os);
        let locale = values.find(|value| !value.is_empty()).unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        match locale.contains("utf-8") || locale.contains("utf8") {
            true => Self::UNICODE,
            false => Self::ASCII,
        }
    }
}

impl Node {
    fn new(text: impl Into<String>) -> Self {
        Self::coloured(text, Colour::Plain)
    }

    fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self {
            text: text.into(),
            colour,
            below: Vec::new(),
        }
    }

    fn with(self, below: Vec<Node>) -> Self {
        Self { below, ..self }
    }

    fn text(&self, strokes: &Strokes, painter: Painter) -> String {
        let mut text = String::new();
        self.draw(&mut text, "", "", strokes, painter);
        text
    }

    /// Writes the node and the nodes below it. `first` stands before the line of the node, and
    /// `rest` before all lines below it.
    fn draw(
        &self,
        text: &mut String,
        first: &str,
        rest: &str,
        strokes: &Strokes,
        painter: Painter,
    ) {
        let line = painter.paint(self.colour, &printable(&self.text));
        let _ = writeln!(text, "{first}{line}");
        for (number, node) in self.below.iter().enumerate() {
            let is_last = usize::from(number + 1 == self.below.len());
            let first = format!("{rest}{}", strokes.branch[is_last]);
            let rest = format!("{rest}{}", strokes.trunk[is_last]);
            node.draw(text, &first, &rest, strokes, painter);
        }
    }
}

fn whole(tree: &DeviceTree) -> Node {
    let name = match (&tree.serial, &tree.model) {
        (Some(serial), Some(model)) => format!("device {serial}, {model}"),
        (Some(serial), None) => format!("device {serial}"),
        (None, _) => "device without a certificate that names it".into(),
    };
    let mut below = vec![tpm(&tree.tpm), master(&tree.master)];
    below.extend(tree.tokens.iter().map(token));
    Node::coloured(name, Colour::Title).with(below)
}

fn tpm(tpm: &TpmBranch) -> Node {
    let TpmBranch {
        tcti,
        status,
        problem,
    } = tpm;
    let Some(status) = status else {
        let why = problem.as_deref().unwrap_or("the TPM does not answer");
        return Node::coloured(format!("TPM at {tcti}: {why}"), Colour::Problem);
    };
    let about = Node::new(format!(
        "TPM at {tcti}: {} {}, firmware {}",
        status.maker, status.model, status.firmware
    ));
    match status.locked {
        false => about,
        true => about.with(vec![Node::coloured(
            "in lockout: the factory keys cannot sign (see devid doctor)",
            Colour::Problem,
        )]),
    }
}

fn master(master: &MasterKey) -> Node {
    let handle = &master.handle;
    match (master.held, master.needed) {
        (Some(true), _) => Node::new(format!("master key in handle {handle}")),
        (Some(false), _) => Node::coloured(
            format!("master key: missing in handle {handle} (see devid doctor)"),
            Colour::Problem,
        ),
        (None, true) => Node::new(format!("master key in handle {handle}, not confirmed")),
        (None, false) => Node::new("master key: none yet"),
    }
}

fn token(token: &TokenBranch) -> Node {
    let mut below: Vec<Node> = token
        .problems
        .iter()
        .map(|why| Node::coloured(why, Colour::Problem))
        .collect();
    below.extend(token.objects.iter().map(object));
    for file in &token.lost {
        let text = format!("lost with an earlier master key: {}", file.display());
        below.push(Node::coloured(text, Colour::Problem));
    }
    let empty = match below.is_empty() {
        true => ", empty",
        false => "",
    };
    let name = match &token.serial {
        Some(serial) => format!("token {}, serial {serial}{empty}", token.token),
        None => format!("token {}{empty}", token.token),
    };
    Node::coloured(name, Colour::Title).with(below)
}

fn object(object: &ObjectBranch) -> Node {
    let ObjectBranch {
        label,
        key,
        attests,
        lost,
        certificates,
        ..
    } = object;
    let below = certificates.iter().map(certificate).collect();
    let (text, colour) = match key {
        Some(key) if *lost => (
            format!("{label}: {}, lost: its master key is gone", key.algorithm),
            Colour::Problem,
        ),
        Some(key) => (
            format!("{label}: {}, {}", key.algorithm, key.place),
            Colour::Plain,
        ),
        None if *attests => (
            format!("{label}: attestation key in this TPM"),
            Colour::Plain,
        ),
        None => (
            format!("{label}: certificate without key in this device"),
            Colour::Plain,
        ),
    };
    Node::coloured(text, colour).with(below)
}

fn certificate(branch: &CertificateBranch) -> Node {
    let CertificateBranch {
        subject,
        expiry,
        self_issued,
        trusted,
        issuer,
        missing_issuer,
        ..
    } = branch;
    let colour = match expiry {
        Expiry::At { days_left, .. } if *days_left < 0 => Colour::Problem,
        Expiry::At { days_left, .. } if *days_left < SOON => Colour::Note,
        Expiry::Unreadable { .. } | Expiry::ClockWrong { .. } => Colour::Note,
        Expiry::NotYet { .. } => Colour::Problem,
        Expiry::At { .. } | Expiry::Never => Colour::Plain,
    };
    let kind = match (self_issued, trusted) {
        (_, true) => ", trusted",
        (true, false) => ", self-issued",
        (false, false) => "",
    };
    let subject = match subject.is_empty() {
        true => "no subject",
        false => subject,
    };
    let mut below: Vec<Node> = issuer.iter().map(|issuer| certificate(issuer)).collect();
    below.extend(missing_issuer.iter().map(|name| {
        let name = match name.is_empty() {
            true => "nobody",
            false => name,
        };
        Node::new(format!("issued by {name}, whose certificate is missing"))
    }));
    Node::coloured(format!("{subject}, {expiry}{kind}"), colour).with(below)
}
