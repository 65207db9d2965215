//! Structural tags against a matcher that tries everything, on all short texts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    GrammarKind::StructuralTag,
    testing::{END, byte_tokens, compile},
};

const ALPHABET: [&str; 4] = ["a", "1", "<", ">"];
const MAX_LEN: usize = 6;

/// Places where `format`, and one of `ends` if there are any, may have ended.
fn ends_of(format: &Value, ends: &[&str], text: &str, from: usize) -> BTreeSet<usize> {
    let list = |key: &str| format[key].as_array().unwrap().iter();
    let mut found = BTreeSet::new();
    match format["type"].as_str().unwrap() {
        "any_text" => return free_text(ends, &[], text, from, &mut |_, _| BTreeSet::new()),
        "triggered_tags" => return triggered(format, ends, text, from, true),
        "or" => return list("elements").flat_map(|one| ends_of(one, ends, text, from)).collect(),
        "sequence" => {
            let parts: Vec<_> = list("elements").collect();
            let mut at = BTreeSet::from([from]);
            for (index, part) in parts.iter().enumerate() {
                let ends = if index + 1 == parts.len() { ends } else { &[] };
                at = at.iter().flat_map(|&from| ends_of(part, ends, text, from)).collect();
            }
            return at;
        }
        "const_string" => found.extend(after(format["value"].as_str().unwrap(), text, from)),
        "regex" => {
            let regex =
                regex::Regex::new(&format!("^(?:{})$", format["pattern"].as_str().unwrap()));
            let regex = regex.unwrap();
            found.extend((from..=text.len()).filter(|&to| regex.is_match(&text[from..to])));
        }
        "json_schema" => {
            let values = format["json_schema"]["enum"].as_array().unwrap();
            found.extend(values.iter().filter_map(|value| after(&value.to_string(), text, from)));
        }
        "tag" => {
            if let Some(at) = after(format["begin"].as_str().unwrap(), text, from) {
                found.extend(ends_of(
                    &format["content"],
                    &[format["end"].as_str().unwrap()],
                    text,
                    at,
                ));
            }
        }
        "tags_with_separator" => {
            let tags = |from| list("tags").flat_map(move |tag| ends_of(tag, &[], text, from));
            let mut new: BTreeSet<usize> = tags(from).collect();
            while !new.is_empty() {
                found.extend(&new);
                let separator = format["separator"].as_str().unwrap();
                new = new
                    .iter()
                    .filter_map(|&at| after(separator, text, at))
                    .flat_map(tags)
                    .collect();
            }
            if format["at_least_one"] != true {
                found.insert(from);
            }
        }
        kind => panic!("{kind}"),
    }
    if ends.is_empty() {
        return found;
    }
    let ended = |&at: &usize| ends.iter().filter_map(move |end| after(end, text, at));
    found.iter().flat_map(ended).collect()
}

fn after(literal: &str, text: &str, from: usize) -> Option<usize> {
    text[from..].starts_with(literal).then_some(from + literal.len())
}

/// Up to the first place where a mark has been read; `go_on` from there if it is a trigger.
fn free_text(
    ends: &[&str],
    triggers: &[&str],
    text: &str,
    from: usize,
    go_on: &mut dyn FnMut(&str, usize) -> BTreeSet<usize>,
) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for at in from..=text.len() {
        let ends_here = |mark: &&&str| text[from..at].ends_with(**mark);
        let end = ends.iter().find(ends_here);
        let here: Vec<_> = triggers.iter().filter(ends_here).collect();
        if end.is_some() {
            found.insert(at);
        }
        for trigger in &here {
            found.extend(go_on(trigger, at));
        }
        if end.is_some() || !here.is_empty() {
            break;
        }
        if ends.is_empty() {
            found.insert(at);
        }
    }
    found
}

fn triggered(
    format: &Value,
    ends: &[&str],
    text: &str,
    from: usize,
    is_first: bool,
) -> BTreeSet<usize> {
    let triggers: Vec<_> =
        format["triggers"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let stops = format["stop_after_first"] == true;
    let mut go_on = |trigger: &str, at: usize| -> BTreeSet<usize> {
        let tags = format["tags"].as_array().unwrap().iter();
        let own = tags.filter(|tag| {
            let begin = tag["begin"].as_str().unwrap();
            triggers.iter().find(|trigger| begin.starts_with(**trigger)) == Some(&trigger)
        });
        let after_tag: BTreeSet<usize> =
            own.flat_map(|tag| ends_of(tag, &[], text, at - trigger.len())).collect();
        match stops {
            false => {
                after_tag.iter().flat_map(|&at| triggered(format, ends, text, at, false)).collect()
            }
            true if ends.is_empty() => after_tag,
            true => after_tag
                .iter()
                .flat_map(|&at| ends.iter().filter_map(move |end| after(end, text, at)))
                .collect(),
        }
    };
    if is_first && format["at_least_one"] == true {
        let starts =
            triggers.iter().filter_map(|trigger| Some((trigger, after(trigger, text, from)?)));
        return starts.flat_map(|(trigger, at)| go_on(trigger, at)).collect();
    }
    free_text(ends, &triggers, text, from, &mut go_on)
}

/// All texts that the grammar takes as whole completions.
fn taken(grammar: &dyn types::TokenGrammar, text: &mut String, found: &mut BTreeSet<String>) {
    let mut grammar = grammar.boxed_clone();
    let Ok(next) = grammar.next_tokens() else { return };
    if next.allows(END) {
        found.insert(text.clone());
    }
    for symbol in ALPHABET {
        let token = byte_tokens(symbol)[0];
        if text.len() < MAX_LEN && next.allows(token) {
            let mut longer = grammar.boxed_clone();
            longer.accept(token).unwrap();
            text.push_str(symbol);
            taken(&*longer, text, found);
            text.pop();
        }
    }
}

fn check(format: Value) {
    let mut texts = vec![String::new()];
    for at in 0.. {
        if texts.get(at).is_none_or(|text| text.len() == MAX_LEN) {
            break;
        }
        let text = texts[at].clone();
        texts.extend(ALPHABET.map(|symbol| format!("{text}{symbol}")));
    }
    texts.retain(|text| ends_of(&format, &[], text, 0).contains(&text.len()));
    let expected: BTreeSet<String> = texts.into_iter().collect();
    assert!(!expected.is_empty(), "{format}");
    for grammar in compile(StructuralTag, &json!({"format": format}).to_string()) {
        let mut found = BTreeSet::new();
        taken(&*grammar, &mut String::new(), &mut found);
        let missing: Vec<_> = expected.difference(&found).take(5).collect();
        let surplus: Vec<_> = found.difference(&expected).take(5).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{format}: not {missing:?}, but {surplus:?}"
        );
    }
}

fn tag(begin: &str, content: Value, end: &str) -> Value {
    json!({"type": "tag", "begin": begin, "content": content, "end": end})
}

fn of(kind: &str, elements: Value) -> Value {
    json!({"type": kind, "elements": elements})
}

fn text() -> Value {
    json!({"type": "any_text"})
}

fn regex(pattern: &str) -> Value {
    json!({"type": "regex", "pattern": pattern})
}

fn number() -> Value {
    json!({"type": "json_schema", "json_schema": {"enum": [1, 11, 111]}})
}

#[test]
fn free_text_in_a_tag_ends_where_its_end_first_stands() {
    check(tag("<", text(), ">"));
    check(tag("<", text(), "1a1"));
    check(tag("<", of("or", json!([text(), regex("a>?")])), ">"));
    check(tag("<", of("or", json!([number(), regex("a+>")])), ">"));
    check(tag("<", of("sequence", json!([regex("a*"), text()])), "1>"));
    check(tag(
        "<",
        of("sequence", json!([number(), of("or", json!([text(), regex("^<a$")]))])),
        ">",
    ));
    check(of("sequence", json!([tag("<", text(), ">"), regex("^1|a$"), text()])));
}

#[test]
fn tags_in_free_text_may_stand_in_a_tag() {
    let triggered = |content: Value, extra: Value| {
        let mut format = json!({"type": "triggered_tags", "triggers": ["<1"],
            "tags": [tag("<1", content, ">"), tag("<1a", regex("a?"), ">")]});
        format.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        format
    };
    for content in [text(), number(), regex("1+")] {
        for extra in [
            json!({}),
            json!({"at_least_one": true}),
            json!({"stop_after_first": true}),
            json!({"at_least_one": true, "stop_after_first": true}),
        ] {
            check(triggered(content.clone(), extra.clone()));
            check(tag("a", triggered(content.clone(), extra), ">"));
        }
    }
    let two = json!({"type": "triggered_tags", "triggers": ["<", "a1"],
        "tags": [tag("<a", number(), ">"), tag("a1", text(), "1")]});
    check(
        of("or", json!([tag("1", two.clone(), ">>"), regex("a{2}")]))
            .pointer("/elements/0")
            .unwrap()
            .clone(),
    );
    check(two);
}

#[test]
fn separated_tags_may_stand_in_a_tag() {
    for content in [text(), number()] {
        let tags = json!({"type": "tags_with_separator", "separator": "a", "at_least_one": true,
            "tags": [tag("<", content, ">"), tag("<a", regex("1*"), ">>")]});
        check(tags.clone());
        check(tag("1", tags, "a"));
    }
}
