//! Our parsers beside those of the crates `tool-parser` and `reasoning-parser`, which serve
//! SGLang's models in another gateway: recorded outputs whole, and in two pieces at every place.
//!
//!     cargo run --manifest-path tools/acceptance/parser-differential/Cargo.toml [-- --all]
//!
//! Prints each output of which the two make something else, what the difference is, and a table
//! at the end. Fails if a family of ours depends on where its text is cut. Whether a difference
//! is wanted is for people to judge: `docs/compat/parsers.md` explains each kind.

mod reasoning;
mod tool_calls;

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// How two results differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Same,
    /// In white space around content or reasoning only.
    WhiteSpace,
    /// In content or reasoning.
    Text,
    /// Other calls, or other arguments.
    Calls,
    /// The other parser fails.
    Fails,
}

/// What one parser makes of a text, for comparison.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    /// Content; with reasoning, both.
    texts: Vec<String>,
    /// Name and arguments.
    calls: Vec<(String, Value)>,
}

type Outcome = Result<Found, String>;

impl Kind {
    fn of(ours: &Found, theirs: &Outcome) -> Self {
        let Ok(theirs) = theirs else { return Self::Fails };
        let trimmed = |found: &Found| -> Vec<String> {
            found.texts.iter().map(|text| text.trim().to_owned()).collect()
        };
        match theirs {
            theirs if theirs == ours => Self::Same,
            theirs if theirs.calls != ours.calls => Self::Calls,
            theirs if trimmed(theirs) == trimmed(ours) => Self::WhiteSpace,
            _ => Self::Text,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::WhiteSpace => "white space",
            Self::Text => "text",
            Self::Calls => "calls",
            Self::Fails => "fails",
        })
    }
}

/// One recorded output.
struct Case {
    family: String,
    title: String,
    text: String,
}

/// Both sides of a family.
struct Sides<'a> {
    ours: &'a dyn Fn(&[&str]) -> Found,
    theirs_whole: &'a dyn Fn(&str) -> Outcome,
    theirs_streamed: &'a dyn Fn(&[&str]) -> Outcome,
}

/// How often each kind of difference occurs, by family: whole, and in pieces.
#[derive(Default)]
struct Table(BTreeMap<String, [BTreeMap<Kind, usize>; 2]>);

impl Table {
    fn compare(&mut self, case: &Case, sides: &Sides<'_>, shows_all: bool) {
        let ours = (sides.ours)(&[&case.text]);
        let counts = self.0.entry(case.family.clone()).or_default();
        let whole = (sides.theirs_whole)(&case.text);
        let kind = Kind::of(&ours, &whole);
        *counts[0].entry(kind).or_default() += 1;
        if kind != Kind::Same || shows_all {
            println!("{} / {}: whole: {kind}", case.family, case.title);
            println!("    text   {:?}\n    ours   {ours:?}\n    theirs {whole:?}", case.text);
        }
        let mut odd: BTreeMap<Kind, (usize, String)> = BTreeMap::new();
        for (at, _) in case.text.char_indices().skip(1) {
            let pieces = [&case.text[..at], &case.text[at..]];
            let again = (sides.ours)(&pieces);
            assert_eq!(again, ours, "{} / {}: cut {pieces:?}", case.family, case.title);
            let streamed = (sides.theirs_streamed)(&pieces);
            let kind = Kind::of(&ours, &streamed);
            *counts[1].entry(kind).or_default() += 1;
            let example = || (0, format!("{pieces:?}\n        theirs {streamed:?}"));
            odd.entry(kind).or_insert_with(example).0 += 1;
        }
        odd.remove(&Kind::Same);
        for (kind, (count, example)) in odd {
            println!("{} / {}: cut in two: {kind} at {count} places", case.family, case.title);
            println!("    e.g. {example}");
        }
    }

    fn print(&self) {
        for (family, counts) in &self.0 {
            let shown = counts.each_ref().map(|counts| {
                let shown = counts.iter().map(|(kind, count)| format!("{kind} {count}"));
                shown.collect::<Vec<_>>().join(", ")
            });
            println!("{family}: whole: {}; cut in two: {}", shown[0], shown[1]);
        }
    }
}

fn main() {
    let shows_all = std::env::args().any(|argument| argument == "--all");
    let outputs = include_str!("../../../../crates/parsers/testdata/outputs.json");
    let outputs: Value = serde_json::from_str(outputs).expect("JSON");
    let mut table = Table::default();
    tool_calls::compare(&outputs, &mut table, shows_all);
    reasoning::compare(&outputs, &mut table, shows_all);
    println!();
    table.print();
}

/// The recorded outputs of one kind.
fn cases(outputs: &Value, kind: &str) -> impl Iterator<Item = (Case, Value)> {
    let cases = outputs[kind].as_array().expect("a list").clone();
    cases.into_iter().map(|case| {
        let text = |key: &str| case[key].as_str().expect("a text").to_owned();
        let case_of = Case { family: text("parser"), title: text("title"), text: text("text") };
        (case_of, case)
    })
}
