//! Seeds, lengths, shared prefixes.

use std::collections::BTreeSet;

use super::*;

const fn exactly(full: usize) -> Lengths {
    Lengths { full, range_ratio: 1.0 }
}

const RANDOM: Dataset = Dataset::RandomIds {
    num_prompts: 200,
    num_turns: 1,
    input: Lengths { full: 40, range_ratio: 0.5 },
    output: Lengths { full: 10, range_ratio: 0.0 },
};

const SHARED: Dataset = Dataset::SharedPrefix {
    num_groups: 3,
    prompts_per_group: 4,
    num_prompts: None,
    num_turns: 2,
    system: exactly(50),
    question: exactly(5),
    output: exactly(7),
    ordered: false,
};

#[test]
fn the_seed_decides() {
    for dataset in [RANDOM, SHARED] {
        let make = |seed| conversations(&dataset, 1000, seed).unwrap();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}

#[test]
fn random_lengths_fill_their_range() {
    let all = conversations(&RANDOM, 100, 3).unwrap();
    assert_eq!(all.len(), 200);
    let inputs: BTreeSet<_> = all.iter().map(|turns| turns[0].prompt.len()).collect();
    let outputs: BTreeSet<_> = all.iter().map(|turns| turns[0].output_len).collect();
    assert_eq!((inputs.first(), inputs.last()), (Some(&20), Some(&40)));
    assert_eq!(outputs, (1..=10).collect());
    assert!(all.iter().flat_map(|turns| &turns[0].prompt).all(|&id| id < 100));
}

#[test]
fn groups_share_their_prefix() {
    let all = conversations(&SHARED, 1000, 4).unwrap();
    assert_eq!(all.len(), 12);
    assert!(all.iter().all(|turns| turns.len() == 2 && turns[1].prompt.len() == 5));
    let prefix = |turns: &Conversation| turns[0].prompt[..50].to_vec();
    let prefixes: BTreeSet<_> = all.iter().map(prefix).collect();
    let prompts: BTreeSet<_> = all.iter().map(|turns| turns[0].prompt.clone()).collect();
    assert_eq!((prefixes.len(), prompts.len()), (3, 12));
}

#[test]
fn order_and_number_are_as_asked() {
    let mut dataset = SHARED;
    if let Dataset::SharedPrefix { ordered, num_prompts, .. } = &mut dataset {
        (*ordered, *num_prompts) = (true, Some(6));
    }
    let all = conversations(&dataset, 1000, 4).unwrap();
    let prefixes: Vec<_> = all.iter().map(|turns| &turns[0].prompt[..50]).collect();
    assert_eq!(all.len(), 6);
    assert!(prefixes[..4].iter().all(|prefix| *prefix == prefixes[0]));
    assert!(prefixes[4] != prefixes[0] && prefixes[4] == prefixes[5]);
}

#[test]
fn nothing_to_ask_is_an_error() {
    let none =
        Dataset::RandomIds { num_prompts: 1, num_turns: 1, input: exactly(0), output: exactly(1) };
    assert!(conversations(&none, 10, 0).unwrap_err().to_string().starts_with("input: "));
    assert!(conversations(&RANDOM, 0, 0).is_err());
}
