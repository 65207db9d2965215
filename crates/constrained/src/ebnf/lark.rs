//! Rules to Lark.

use std::fmt::Write;

use super::{Expr, Rules, parser::parse};
use crate::compiler::MAX_LEVELS;

/// Lark with the same language.
///
/// # Errors
/// What is wrong with the EBNF, and in which line.
pub(crate) fn to_lark(text: &str) -> Result<String, String> {
    let rules = parse(text)?;
    let num_levels: usize = rules.bodies.iter().map(Expr::depth).sum();
    if num_levels > MAX_LEVELS {
        return Err(format!("its rules nest {num_levels} levels together, {MAX_LEVELS} at most"));
    }
    let mut writer = Writer { is_regular: regular(&rules), lines: String::new(), num_runs: 0 };
    let root = writer.reference(rules.root);
    writer.line("start", &root);
    for (rule, body) in rules.bodies.iter().enumerate() {
        let name = writer.reference(rule);
        let body = match writer.is_regular[rule] {
            true => writer.terminal(body),
            false => writer.expr(body),
        };
        writer.line(&name, &body);
    }
    Ok(writer.lines)
}

/// Which rules never come back to themselves, nor do those that they refer to.
fn regular(rules: &Rules) -> Vec<bool> {
    let count = rules.bodies.len();
    let mut is_regular = vec![false; count];
    // A rule is regular once all that it refers to is; in a cycle none ever is.
    let mut waits_for = vec![0_usize; count];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (rule, body) in rules.bodies.iter().enumerate() {
        body.for_each_rule(&mut |used| {
            waits_for[rule] += 1;
            users[used].push(rule);
        });
    }
    let mut ready: Vec<usize> = (0..count).filter(|&rule| waits_for[rule] == 0).collect();
    while let Some(rule) = ready.pop() {
        is_regular[rule] = true;
        for &user in &users[rule] {
            waits_for[user] -= 1;
            if waits_for[user] == 0 {
                ready.push(user);
            }
        }
    }
    is_regular
}

struct Writer {
    is_regular: Vec<bool>,
    lines: String,
    /// Terminals made of runs inside of rules.
    num_runs: usize,
}

impl Writer {
    fn line(&mut self, name: &str, body: &str) {
        let _ = writeln!(self.lines, "{name}: {body}");
    }

    /// Lark tells terminals by their upper case.
    fn reference(&self, rule: usize) -> String {
        let letter = if self.is_regular[rule] { 'T' } else { 'r' };
        format!("{letter}{rule}")
    }

    fn is_terminal(&self, expr: &Expr) -> bool {
        let mut all = true;
        expr.for_each_rule(&mut |rule| all &= self.is_regular[rule]);
        all
    }

    /// What refers to terminals only.
    fn terminal(&self, expr: &Expr) -> String {
        self.joined(expr, &mut |part| self.terminal(part))
    }

    /// Anything. The largest parts that are terminals get names of their own.
    fn expr(&mut self, expr: &Expr) -> String {
        if let Expr::Rule(rule) = expr {
            return self.reference(*rule);
        }
        if self.is_terminal(expr) {
            return self.run(expr);
        }
        match expr {
            Expr::Sequence(parts) => {
                let together = |a: &Expr, b: &Expr| self.is_terminal(a) && self.is_terminal(b);
                let runs: Vec<&[Expr]> = parts.chunk_by(together).collect();
                let mut texts = Vec::new();
                for run in runs {
                    texts.push(match run {
                        [one] => self.expr(one),
                        many => self.run(&Expr::Sequence(many.to_vec())),
                    });
                }
                format!("({})", texts.join(" "))
            }
            Expr::Choice(parts) => {
                let texts: Vec<_> = parts.iter().map(|part| self.expr(part)).collect();
                format!("({})", texts.join(" | "))
            }
            Expr::Repeat { inner, min, max } => {
                format!("({}){}", self.expr(inner), quantifier(*min, *max))
            }
            Expr::Literal(_) | Expr::Class { .. } | Expr::Rule(_) => self.terminal(expr),
        }
    }

    fn run(&mut self, expr: &Expr) -> String {
        if *expr == Expr::Literal(String::new()) {
            return "\"\"".to_owned();
        }
        let name = format!("S{}", self.num_runs);
        self.num_runs += 1;
        let body = self.terminal(expr);
        self.line(&name, &body);
        name
    }

    fn joined(&self, expr: &Expr, part: &mut dyn FnMut(&Expr) -> String) -> String {
        match expr {
            Expr::Literal(text) => serde_json::Value::from(text.as_str()).to_string(),
            Expr::Class { ranges, is_negated } => class(ranges, *is_negated),
            Expr::Rule(rule) => self.reference(*rule),
            Expr::Sequence(parts) if parts.is_empty() => "\"\"".to_owned(),
            Expr::Sequence(parts) => {
                format!("({})", parts.iter().map(part).collect::<Vec<_>>().join(" "))
            }
            Expr::Choice(parts) => {
                format!("({})", parts.iter().map(part).collect::<Vec<_>>().join(" | "))
            }
            Expr::Repeat { inner, min, max } => {
                format!("({}){}", part(inner), quantifier(*min, *max))
            }
        }
    }
}

fn quantifier(min: u32, max: Option<u32>) -> String {
    match (min, max) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (min, None) => format!("{{{min},}}"),
        (min, Some(max)) => format!("{{{min},{max}}}"),
    }
}

/// By numbers, so that nothing has to be escaped. A class without a character matches
/// nothing, and one that excludes nothing matches all.
fn class(ranges: &[(char, char)], is_negated: bool) -> String {
    if ranges.is_empty() {
        return if is_negated { r"/(.|\n)/" } else { r"/[^\x{0}-\x{10FFFF}]/" }.to_owned();
    }
    let mut text = String::from(if is_negated { "/[^" } else { "/[" });
    for &(low, high) in ranges {
        let _ = write!(text, r"\x{{{:X}}}-\x{{{:X}}}", low as u32, high as u32);
    }
    text + "]/"
}
