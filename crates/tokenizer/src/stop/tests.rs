//! Stop strings: every split of a text against a search in the whole.

use proptest::prelude::*;

use super::*;

/// Text before the match (or all of it) and the match, by brute force: the
/// stop string that ends first, the first of the list if several do.
fn whole_text_search(text: &str, stops: &[String], no_stop_trim: bool) -> (String, Option<String>) {
    for end in 0..=text.len() {
        let ends_here = |stop: &&String| {
            !stop.is_empty() && text.is_char_boundary(end) && text[..end].ends_with(stop.as_str())
        };
        if let Some(stop) = stops.iter().find(ends_here) {
            let keep = if no_stop_trim { end } else { end - stop.len() };
            return (text[..keep].to_owned(), Some(stop.clone()));
        }
    }
    (text.to_owned(), None)
}

fn streamed(
    pieces: &[&str],
    stops: &[String],
    no_stop_trim: bool,
) -> (String, Option<String>, Vec<String>) {
    let mut checker = StopChecker::new(stops, no_stop_trim);
    let (mut text, mut matched, mut outputs) = (String::new(), None, Vec::new());
    for piece in pieces {
        let output = checker.push(piece);
        text.push_str(&output.text);
        outputs.push(output.text);
        assert!(matched.is_none() || output.matched.is_none());
        matched = matched.or(output.matched);
    }
    text.push_str(&checker.flush());
    assert_eq!(checker.matched(), matched.as_deref());
    (text, matched, outputs)
}

fn owned(stops: &[&str]) -> Vec<String> {
    stops.iter().map(|&stop| stop.to_owned()).collect()
}

#[test]
fn holds_back_what_may_become_a_stop_string() {
    let mut checker = StopChecker::new(&["<|end|>", "\n\n"], false);
    let texts: Vec<_> = ["Hi <", "|en", "glish|>\n", "x\n", "\nrest", "more"]
        .map(|piece| checker.push(piece).text)
        .into_iter()
        .collect();
    assert_eq!(texts, ["Hi ", "", "<|english|>", "\nx", "", ""]);
    assert_eq!(checker.matched(), Some("\n\n"));
    assert_eq!(checker.flush(), "");
}

#[test]
fn flush_returns_what_never_became_one() {
    let mut checker = StopChecker::new(&["stop"], false);
    assert_eq!(checker.push("a sto").text, "a ");
    assert_eq!(checker.flush(), "sto");
    // The flushed text is gone: its rest is no match.
    assert_eq!(checker.push("p").text, "p");
}

#[test]
fn the_match_that_ends_first_wins() {
    let check = |stops: &[&str], text: &str| {
        let (text, matched, _) = streamed(&[text], &owned(stops), false);
        (text, matched.unwrap())
    };
    assert_eq!(check(&["abcd", "bc"], "xabcd"), ("xa".into(), "bc".into()));
    assert_eq!(check(&["b", "ab"], "xab"), ("xa".into(), "b".into()));
    assert_eq!(check(&["ab", "b"], "xab"), ("x".into(), "ab".into()));
}

#[test]
fn no_stop_trim_keeps_the_stop_string_and_nothing_after_it() {
    let (text, matched, _) = streamed(&["one tw", "o three"], &owned(&["two"]), true);
    assert_eq!((text.as_str(), matched.as_deref()), ("one two", Some("two")));
}

#[test]
fn without_stop_strings_everything_passes() {
    for stops in [vec![], owned(&[""])] {
        let (text, matched, outputs) = streamed(&["a", "", "b"], &stops, false);
        assert_eq!((text.as_str(), matched), ("ab", None));
        assert_eq!(outputs, ["a", "", "b"]);
    }
}

#[test]
fn ten_thousand_stop_strings_cost_no_more_than_one() {
    let stops: Vec<String> = (0..10_000).map(|i| format!("{}{i:05}", "a".repeat(40))).collect();
    let mut checker = StopChecker::new(&stops, false);
    // A text of prefixes: the worst case for a search that starts over.
    for _ in 0..2_000 {
        checker.push(&"a".repeat(100));
    }
    assert_eq!(checker.matched(), None);
    let text = checker.push("00042tail");
    assert_eq!(text.matched.as_deref(), Some(stops[42].as_str()));
    assert_eq!(text.text, "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_split_gives_the_result_of_the_whole_text(
        text in "[abé😀]{0,24}",
        stops in prop::collection::vec("[abé😀]{0,4}", 0..6),
        cuts in prop::collection::vec(0_usize..100, 0..8),
        no_stop_trim: bool,
    ) {
        let (expected, expected_match) = whole_text_search(&text, &stops, no_stop_trim);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&at| text.is_char_boundary(at)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
        let (got, matched, outputs) = streamed(&pieces, &stops, no_stop_trim);
        prop_assert_eq!(&got, &expected);
        prop_assert_eq!(matched, expected_match);
        // What is given out is never taken back.
        prop_assert!(expected.starts_with(&outputs.concat()));
    }
}
