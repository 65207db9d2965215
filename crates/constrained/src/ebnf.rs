//! XGrammar's EBNF (GBNF) as the Lark of llguidance.
//!
//! `root ::= "a" [0-9]+ | other`, with `#` comments, groups, `* + ? {n} {n,} {n,m}`.
//! What does not refer to itself becomes one terminal, which matches as a regular
//! expression does. In a rule that does, runs of such parts are terminals, and each of them
//! takes the longest text it can.
//!
//! Upstream: `https://xgrammar.mlc.ai/docs/tutorials/ebnf_guided_generation.html`.

mod lark;
mod parser;

pub(crate) use lark::to_lark;

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    /// This text.
    Literal(String),
    /// One character of these ranges, or of none of them.
    Class { ranges: Vec<(char, char)>, is_negated: bool },
    /// Another rule, by its index.
    Rule(usize),
    /// One after the other.
    Sequence(Vec<Expr>),
    /// Any one of these.
    Choice(Vec<Expr>),
    /// From `min` to `max` times.
    Repeat { inner: Box<Expr>, min: u32, max: Option<u32> },
}

/// All rules; the first one is where a completion begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    bodies: Vec<Expr>,
    root: usize,
}

impl Expr {
    /// Levels of nesting.
    fn depth(&self) -> usize {
        match self {
            Self::Literal(_) | Self::Class { .. } | Self::Rule(_) => 1,
            Self::Sequence(parts) | Self::Choice(parts) => {
                1 + parts.iter().map(Self::depth).max().unwrap_or(0)
            }
            Self::Repeat { inner, .. } => 1 + inner.depth(),
        }
    }

    /// Calls `visit` with every rule that is referred to.
    fn for_each_rule(&self, visit: &mut impl FnMut(usize)) {
        match self {
            Self::Literal(_) | Self::Class { .. } => {}
            Self::Rule(rule) => visit(*rule),
            Self::Sequence(parts) | Self::Choice(parts) => {
                parts.iter().for_each(|part| part.for_each_rule(visit));
            }
            Self::Repeat { inner, .. } => inner.for_each_rule(visit),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        GrammarKind::Ebnf,
        testing::{check, refusals},
    };

    #[test]
    fn rules_groups_classes_and_repetitions() {
        let dates = r#"
            # a comment
            root ::= year "-" month | "never" # another
            year ::= [0-9]{4}
            month ::= ("0" [1-9] | "1" [0-2])
        "#;
        check(Ebnf, dates, &["2024-09", "never", "1999-12"], &["2024-13", "24-01", "nev"]);
        check(Ebnf, r#"root ::= "a"* "b"+ "c"?"#, &["b", "aabbc", "bb"], &["a", "abcc", ""]);
        check(Ebnf, r#"root ::= "x"{2,} | "y"{1,2}"#, &["xx", "xxxx", "y", "yy"], &["x", "yyy"]);
        check(
            Ebnf,
            r#"root ::= ("a" | b){0} "x"
            b ::= "(" b{0,0} ")""#,
            &["x"],
            &["a", "ax", "()x"],
        );
        check(Ebnf, r#"root ::= "a"{0}"#, &[""], &["a"]);
        check(Ebnf, r#"root ::= "a"?{2}+*"#, &["", "a", "aa", "aaa"], &["b"]);
        check(Ebnf, r#"root ::= [^a-c\]"\n]+"#, &["xyz", "[é"], &["a", "]", "\"", "\n"]);
        check(Ebnf, r#"root ::= "\"\\\n\x41\u00e9" | ''"#, &["\"\\\nAé", ""], &["\"", "x"]);
        check(Ebnf, r#"root ::= [a-z]* "x" [/-]"#, &["abx/", "x-"], &["ab/", "abxy"]);
    }

    #[test]
    fn rules_that_refer_to_themselves() {
        let sums = r#"
            root ::= expr
            expr ::= term ("+" term)*
            term ::= number | "(" expr ")"
            number ::= [0-9]+
        "#;
        check(Ebnf, sums, &["1", "(1+2)+34", "((5))"], &["1+", "(1", "()", "1)"]);
        let json = r#"
            root ::= value
            value ::= object | "[" ws (value ("," ws value)*)? "]" ws | string ws | [0-9]+ ws
            object ::= "{" ws (pair ("," ws pair)*)? "}" ws
            pair ::= string ws ":" ws value
            string ::= "\"" [^"\\]* "\""
            ws ::= [ \t\n]*
        "#;
        let texts = [r#"{"a": [1, {"b" : "c"}], "d":2}"#, "[]", "[ [ ] ]", r#""x""#];
        check(Ebnf, json, &texts, &[r#"{"a"}"#, "[1,]", r#"{"a":}"#, "[1"]);
    }

    #[test]
    fn what_is_malformed_or_not_there_is_refused_by_name() {
        for (grammar, reason) in [
            ("", "no rule `root`"),
            ("top ::= \"a\"", "no rule `root`"),
            ("root ::= other", "no rule `other`"),
            ("root ::= \"a", "line 1: a string without an end"),
            ("root ::= [a", "line 1: a class without an end"),
            ("root ::= [z-a]", "line 1: a range from `z` to `a`"),
            ("root ::= (\"a\"", "line 1: `)` is expected"),
            ("root ::= \"a\"{3,2}", "line 1: {3,2} is no range"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2: the rule `root` is there already"),
            ("root ::= * \"a\"", "line 1: `*` is unexpected"),
            ("root ::= TagDispatch((\"a\", b))", "line 1: `TagDispatch(...)` is not supported"),
            ("root ::= \"a\" (= \"b\")", "line 1: lookahead `(=` is not supported"),
            ("root ::= root \"a\" | \"a\"{1,100001}", "line 1: {1,100001} is too much"),
        ] {
            for error in refusals(Ebnf, grammar) {
                let message = error.to_string();
                assert!(message.contains(reason), "{grammar}: {message}");
            }
        }
        let stars = format!("root ::= \"x\"{}", "*".repeat(1_000_000));
        for many in ["root ::= \"x\"{1}?+{2,3}*", &stars] {
            for error in refusals(Ebnf, many) {
                let message = error.to_string();
                assert!(message.ends_with("more than 4 quantifiers in a row are not supported"));
                assert!(message.len() < 100, "{message}");
            }
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(2000), ")".repeat(2000));
        for error in refusals(Ebnf, &deep) {
            assert!(error.to_string().contains("too deeply nested"), "{error}");
        }
    }
}
