//! What structural tags are made of.

use types::TokenId;

/// A part of a completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// What is regular, as a part of a terminal.
    Text(String),
    /// A special token.
    Token(TokenId),
    /// An instance of a schema.
    Json(String),
    /// What a rule describes.
    Rule(String),
    /// One after the other.
    Sequence(Vec<Part>),
    /// Any one of these.
    Choice(Vec<Part>),
    /// Any number of times.
    Many(Box<Part>),
}

impl Part {
    /// Whether it is regular, so that a terminal can say it. A terminal matches as a regular
    /// expression does; where there are several in a row, each takes the longest text it can.
    pub(super) fn is_terminal(&self) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Token(_) | Self::Json(_) | Self::Rule(_) => false,
            Self::Sequence(parts) | Self::Choice(parts) => parts.iter().all(Self::is_terminal),
            Self::Many(part) => part.is_terminal(),
        }
    }

    /// The text of a terminal; of what is regular only.
    pub(super) fn terminal(&self) -> String {
        let joined = |parts: &[Self], separator: &str| {
            let texts: Vec<_> = parts.iter().map(Self::terminal).collect();
            format!("({})", texts.join(separator))
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::Sequence(parts) if parts.is_empty() => "\"\"".to_owned(),
            Self::Sequence(parts) => joined(parts, " "),
            Self::Choice(parts) => joined(parts, " | "),
            Self::Many(part) => format!("({})*", part.terminal()),
            Self::Token(_) | Self::Json(_) | Self::Rule(_) => {
                unreachable!("it is not regular")
            }
        }
    }
}

/// Parts in a row, those of inner sequences too: their runs can be joined.
pub(super) fn sequence(parts: Vec<Part>) -> Part {
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Part::Sequence(inner) => flat.extend(inner),
            part => flat.push(part),
        }
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => Part::Sequence(flat),
    }
}

/// Any one of the parts.
pub(super) fn choice(mut parts: Vec<Part>) -> Part {
    match parts.len() {
        1 => parts.remove(0),
        _ => Part::Choice(parts),
    }
}
