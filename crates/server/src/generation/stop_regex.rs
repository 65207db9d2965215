//! `stop_regex`: patterns that end a sequence.
//!
//! They are looked for after each token, in what the text has become by then; its end is what
//! `$` stands for. As upstream, the match stays in the text, with the rest of the token that
//! completed it. Patterns are those of the crate `regex`: no look-around and no backreferences,
//! and a search that is linear in the text whatever the pattern.
//!
//! Upstream: `_check_str_based_finish` of `sglang/srt/managers/schedule_batch.py`.

use std::sync::Arc;

use protocol::StopStrings;
use regex::{Regex, RegexBuilder};

use crate::error::ApiError;

/// Upstream's limit.
const MAX_PATTERN_BYTES: usize = 256;
/// `(a{99}){99}` is short, but not what it stands for.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// How far back a match may begin, where the pattern itself sets no limit: each token is searched
/// from there.
const MAX_MATCH_BYTES: usize = 16 << 10;

/// Checked and compiled; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopPatterns(Arc<[Pattern]>);

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    max_match_bytes: usize,
}

/// Looks for patterns in a text that grows.
#[derive(Debug)]
pub(super) struct StopRegexChecker {
    patterns: StopPatterns,
    /// All of it, if there are patterns: `^` is its beginning.
    text: String,
}

impl StopPatterns {
    /// Empty patterns, like empty stop strings, stand for none.
    ///
    /// # Errors
    /// Too many, too long, or not a regular expression of the kind that is supported.
    pub(crate) fn new(sent: Option<StopStrings>) -> Result<Self, ApiError> {
        let StopStrings { strings, count } = sent.unwrap_or_default();
        if count > StopStrings::MAX {
            let max = StopStrings::MAX;
            let message = format!("at most {max} stop_regex are allowed, got {count}");
            return Err(ApiError::value(message));
        }
        let patterns = strings.iter().filter(|pattern| !pattern.is_empty());
        Ok(Self(patterns.map(|pattern| Pattern::new(pattern)).collect::<Result<_, _>>()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for StopPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(Pattern::as_str).eq(other.0.iter().map(Pattern::as_str))
    }
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, ApiError> {
        let refuse = |reason: &dyn std::fmt::Display| {
            ApiError::value(format!("stop_regex {pattern:?}: {reason}"))
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(refuse(&format_args!("more than {MAX_PATTERN_BYTES} bytes")));
        }
        let regex = RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build();
        let regex = regex.map_err(|error| refuse(&error))?;
        let parsed = regex_syntax::parse(pattern).map_err(|error| refuse(&error))?;
        let max_match_bytes = parsed.properties().maximum_len().unwrap_or(MAX_MATCH_BYTES);
        Ok(Self { regex, max_match_bytes: max_match_bytes.min(MAX_MATCH_BYTES) })
    }

    fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether `text` has a match now, if it had none when it was `known` bytes long.
    fn matches(&self, text: &str, known: usize) -> bool {
        let start = text.floor_char_boundary(known.saturating_sub(self.max_match_bytes));
        self.regex.is_match_at(text, start)
    }
}

impl StopRegexChecker {
    pub(super) fn new(patterns: StopPatterns) -> Self {
        Self { patterns, text: String::new() }
    }

    /// Takes the text of the next token; the first pattern that matches now, if any.
    pub(super) fn push(&mut self, piece: &str) -> Option<String> {
        if self.patterns.is_empty() {
            return None;
        }
        let known = self.text.len();
        self.text.push_str(piece);
        let found = self.patterns.0.iter().find(|pattern| pattern.matches(&self.text, known));
        found.map(|pattern| pattern.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Result<StopPatterns, String> {
        let strings = list.iter().map(|&pattern| pattern.to_owned()).collect();
        let sent = StopStrings { strings, count: list.len() };
        StopPatterns::new(Some(sent)).map_err(|error| error.message)
    }

    /// The piece at which a pattern is found, and the pattern.
    fn found(list: &[&str], pieces: &[&str]) -> Option<(usize, String)> {
        let mut checker = StopRegexChecker::new(patterns(list).unwrap());
        pieces.iter().enumerate().find_map(|(at, piece)| Some((at, checker.push(piece)?)))
    }

    #[test]
    fn a_match_may_lie_across_tokens() {
        let at = |at: usize, pattern: &str| Some((at, pattern.to_owned()));
        assert_eq!(found(&["b+c"], &["ab", "b", "bd", "bc", "bc"]), at(3, "b+c"));
        assert_eq!(found(&[r"\d{4}"], &["12", "3a1", "23", "4"]), at(3, r"\d{4}"));
        assert_eq!(found(&["x", "[bc]"], &["a", "cx"]), at(1, "x"));
        assert_eq!(found(&["é.ü"], &["aé", "ö", "ü"]), at(2, "é.ü"));
        assert_eq!(found(&["b"], &["a", "", "c"]), None);
        assert_eq!(found(&[], &["a"]), None);
        assert_eq!(found(&[""], &["a"]), None);
    }

    #[test]
    fn anchors_mean_the_text_as_a_whole() {
        let at = |at: usize, pattern: &str| Some((at, pattern.to_owned()));
        assert_eq!(found(&["^b"], &["a", "b"]), None);
        assert_eq!(found(&["^ab"], &["a", "b"]), at(1, "^ab"));
        assert_eq!(found(&["a$"], &["a"]), at(0, "a$"));
        assert_eq!(found(&[r"a\B"], &["a", "b"]), at(1, r"a\B"));
        assert_eq!(found(&["(?m)^end$"], &["a\n", "en", "d"]), at(2, "(?m)^end$"));
    }

    #[test]
    fn a_long_match_is_found_within_the_limit() {
        let near = "x".repeat(MAX_MATCH_BYTES - 1);
        let far = "x".repeat(MAX_MATCH_BYTES + 1);
        assert!(found(&["a.*b"], &["a", &near, "b"]).is_some());
        assert!(found(&["a.*b"], &["a", &far, "b"]).is_none());
    }

    #[test]
    fn what_is_not_supported_is_said() {
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        let many = ["a"; StopStrings::MAX + 1];
        for (list, reason) in [
            (&["("][..], "unclosed group"),
            (&["a(?=b)"], "look-around"),
            (&[r"(a)\1"], "backreferences"),
            (&["(a{99}){99}{99}"], "limit"),
            (&[&long], "256 bytes"),
            (&many, "at most 32"),
        ] {
            let error = patterns(list).unwrap_err();
            assert!(error.contains("stop_regex") && error.contains(reason), "{error}");
        }
    }
}
