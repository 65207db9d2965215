//! By hand, on eight experts in four groups.

use mlx::device::{self, DeviceKind};

use super::*;

const PAIRS: ExpertGroups = ExpertGroups { num_groups: 4, top_groups: 2, score: GroupScore::Best };

/// Logits whose softmax is these, as they add up to one.
const PROBS: [f32; 8] = [0.30, 0.01, 0.16, 0.15, 0.02, 0.17, 0.14, 0.05];

fn softmax(groups: Option<ExpertGroups>, scale: f32) -> Routing {
    Routing { scoring: Scoring::Softmax, groups, bias: None, scale, expert_scale: None }
}

/// Experts of one token with their weights, by expert.
fn chosen(routing: &Routing, top_k: TopK, logits: &[f32]) -> Vec<(i32, f32)> {
    device::set_default(DeviceKind::Cpu).unwrap();
    let logits = Array::from_slice(logits, &[1, logits.len()]).unwrap();
    let chosen = routing.choose(top_k, &logits).unwrap();
    let experts = chosen.experts.to_vec::<i32>().unwrap();
    let mut pairs: Vec<_> =
        experts.into_iter().zip(chosen.weights.to_vec::<f32>().unwrap()).collect();
    pairs.sort_by_key(|pair| pair.0);
    pairs
}

#[track_caller]
fn assert_chosen(found: &[(i32, f32)], expected: &[(i32, f32)]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.0, expected.0, "{found:?} {expected:?}");
        assert!((found.1 - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
    }
}

#[test]
fn groups_that_lose_give_no_expert() {
    let logits = PROBS.map(f32::ln);
    let top_k = TopK { top_k: 3, renormalize: false };
    let all = chosen(&softmax(None, 1.0), top_k, &logits);
    assert_chosen(&all, &[(0, 0.30), (2, 0.16), (5, 0.17)]);
    // Best experts of the pairs: 0.30, 0.16, 0.17, 0.14.
    let limited = chosen(&softmax(Some(PAIRS), 1.0), top_k, &logits);
    assert_chosen(&limited, &[(0, 0.30), (4, 0.02), (5, 0.17)]);
    // Sums of the pairs: 0.31, 0.31, 0.19, 0.19.
    let groups = ExpertGroups { score: GroupScore::BestTwo, ..PAIRS };
    let by_sum = chosen(&softmax(Some(groups), 1.0), top_k, &logits);
    assert_chosen(&by_sum, &[(0, 0.30), (2, 0.16), (3, 0.15)]);
    let every = ExpertGroups { top_groups: 4, ..PAIRS };
    assert_chosen(&chosen(&softmax(Some(every), 1.0), top_k, &logits), &all);
}

#[test]
fn weights_are_normalized_then_scaled() {
    let logits = PROBS.map(f32::ln);
    let top_k = TopK { top_k: 2, renormalize: true };
    let found = chosen(&softmax(Some(PAIRS), 2.5), top_k, &logits);
    assert_chosen(&found, &[(0, 2.5 * 0.30 / 0.47), (5, 2.5 * 0.17 / 0.47)]);
    let top_k = TopK { renormalize: false, ..top_k };
    let found = chosen(&softmax(Some(PAIRS), 16.0), top_k, &logits);
    assert_chosen(&found, &[(0, 16.0 * 0.30), (5, 16.0 * 0.17)]);
}

#[test]
fn a_bias_chooses_and_does_not_weigh() {
    let logits = PROBS.map(|score| (score / (1.0 - score)).ln());
    // All below zero: a group that is left out must not win by a score of 0.
    let bias = [-2.0, -1.0, -2.0, -2.0, -2.0, -2.0, -1.0, -1.0_f32];
    let routing = Routing {
        scoring: Scoring::Sigmoid,
        groups: Some(ExpertGroups { score: GroupScore::BestTwo, ..PAIRS }),
        bias: Some(Array::from_slice(&bias, &[8]).unwrap()),
        scale: 1.0,
        expert_scale: None,
    };
    // Sums of the pairs: -2.69, -3.69, -3.81, -1.81.
    let found = chosen(&routing, TopK { top_k: 4, renormalize: false }, &logits);
    assert_chosen(&found, &[(0, 0.30), (1, 0.01), (6, 0.14), (7, 0.05)]);
    let found = chosen(&routing, TopK { top_k: 2, renormalize: true }, &logits);
    assert_chosen(&found, &[(6, 0.14 / 0.19), (7, 0.05 / 0.19)]);
}

#[test]
fn experts_weigh_as_much_as_they_say() {
    let logits = PROBS.map(|score| (score / (1.0 - score)).ln());
    let of_expert = [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5_f32];
    let routing = Routing {
        scoring: Scoring::Sigmoid,
        expert_scale: Some(Array::from_slice(&of_expert, &[8]).unwrap()),
        ..softmax(None, 3.0)
    };
    let found = chosen(&routing, TopK { top_k: 8, renormalize: true }, &logits);
    let scaled =
        |expert: usize| 3.0 * of_expert[expert] * PROBS[expert] / PROBS.iter().sum::<f32>();
    let expected: Vec<(i32, f32)> = (0..8).map(|expert| (expert as i32, scaled(expert))).collect();
    assert_chosen(&found, &expected);
    let expert_scale = Some(Array::from_slice(&of_expert[..6], &[6]).unwrap());
    let error = Routing { expert_scale, ..softmax(None, 1.0) }.check(2, 8).unwrap_err();
    assert_eq!(error.to_string(), "shape of per_expert_scale \"[6]\" is not supported");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let check = |num_groups, top_groups, score, top_k| {
        let groups = ExpertGroups { num_groups, top_groups, score };
        softmax(Some(groups), 1.0).check(top_k, 8).unwrap_err().to_string()
    };
    let refused = [
        (check(3, 1, GroupScore::Best, 2), "n_group \"3 for 8 experts\""),
        (check(0, 1, GroupScore::Best, 2), "n_group \"0 for 8 experts\""),
        (check(8, 4, GroupScore::BestTwo, 2), "n_group \"8 for 8 experts\""),
        (check(4, 5, GroupScore::Best, 2), "topk_group \"5 of 4\""),
        (check(4, 0, GroupScore::Best, 2), "topk_group \"0 of 4\""),
        (check(4, 1, GroupScore::Best, 3), "experts of a token \"3 of 2 in topk_group groups\""),
    ];
    for (found, expected) in refused {
        assert_eq!(found, format!("{expected} is not supported"));
    }
    let bias = Some(Array::from_slice(&[0.0_f32; 6], &[6]).unwrap());
    let error = Routing { bias, ..softmax(None, 1.0) }.check(2, 8).unwrap_err();
    assert_eq!(error.to_string(), "shape of e_score_correction_bias \"[6]\" is not supported");
    assert!(softmax(Some(PAIRS), 1.0).check(4, 8).is_ok());
    let error = Scoring::from_name("relu").unwrap_err();
    assert_eq!(error.to_string(), "scoring_func \"relu\" is not supported");
    assert_eq!(Scoring::from_name("sigmoid").unwrap(), Scoring::Sigmoid);
}
