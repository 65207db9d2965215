//! Each filter against a plain computation, and rows that do not disturb each other.

use std::sync::Arc;

use scheduler::{RowMask, RowPenalties};
use types::{LogprobParams, Penalties, TokenLogprobs};

use super::*;

const VOCAB: usize = 12;
const DRAWS: usize = 24_000;

const GREEDY: SamplingRow = SamplingRow {
    temperature: 0.0,
    top_k: TOP_K_ALL,
    top_p: 1.0,
    min_p: 0.0,
    seed: 0,
    token_index: 0,
    suppress: None,
    penalties: None,
    logit_bias: None,
    logprobs: None,
    is_constrained: false,
};
const PLAIN: SamplingRow = SamplingRow { temperature: 1.0, ..GREEDY };

fn choose(logits: &Array, rows: &[SamplingRow]) -> Result<Array> {
    let rows: Vec<_> = rows.iter().collect();
    sample(&edit(logits, &rows, None)?, &rows)
}

/// Unordered, with a long tail, so that every filter cuts somewhere.
fn logits() -> Vec<f32> {
    vec![0.3, 2.0, -1.0, 1.4, 0.0, -2.5, 1.9, 0.9, -0.4, 1.1, -3.0, 0.6]
}

/// The definition, one row at a time, in f64.
fn reference(logits: &[f32], row: &SamplingRow) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|&x| f64::from(x / row.temperature)).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scaled.iter().map(|x| (x - max).exp()).collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    order.truncate(row.top_k as usize);
    let in_top_k: f64 = order.iter().map(|&i| weights[i]).sum();
    let mut before = 0.0;
    order.retain(|&i| {
        let keep = before / in_top_k <= f64::from(row.top_p);
        before += weights[i];
        keep && weights[i] >= f64::from(row.min_p)
    });
    let total: f64 = order.iter().map(|&i| weights[i]).sum();
    let mut probs = vec![0.0; logits.len()];
    order.iter().for_each(|&i| probs[i] = weights[i] / total);
    probs
}

/// `DRAWS` draws: rows of a batch get different seeds, or steps of one seed.
fn histogram(row: &SamplingRow, by_step: bool) -> Vec<usize> {
    let batch = 2000;
    let mut counts = vec![0; VOCAB];
    let tiled = Array::from_slice(&logits().repeat(batch), &[batch, VOCAB]).unwrap();
    for start in (0..DRAWS).step_by(batch) {
        let rows: Vec<_> = (start..start + batch)
            .map(|i| match by_step {
                true => SamplingRow { seed: 7, token_index: i, ..row.clone() },
                false => SamplingRow { seed: i as u64, token_index: 3, ..row.clone() },
            })
            .collect();
        let ids: Vec<i32> = choose(&tiled, &rows).unwrap().to_vec().unwrap();
        ids.iter().for_each(|&id| counts[id as usize] += 1);
    }
    counts
}

fn assert_distribution(row: &SamplingRow) {
    let probs = reference(&logits(), row);
    for by_step in [true, false] {
        let counts = histogram(row, by_step);
        let mut chi2 = 0.0;
        for (&count, &prob) in counts.iter().zip(&probs) {
            if prob == 0.0 {
                assert_eq!(count, 0, "a token outside the filters: {row:?} {counts:?}");
                continue;
            }
            let expected = prob * DRAWS as f64;
            chi2 += (count as f64 - expected).powi(2) / expected;
        }
        let freedom = probs.iter().filter(|&&prob| prob > 0.0).count() - 1;
        // 1 in 10 000 for 1 to 11 degrees of freedom (Wilson and Hilferty).
        let k = freedom.max(1) as f64;
        let critical = k * (1.0 - 2.0 / (9.0 * k) + 3.719 * (2.0 / (9.0 * k)).sqrt()).powi(3);
        assert!(chi2 < critical.max(1e-9), "{row:?}: chi2 {chi2} >= {critical}, {counts:?}");
    }
}

#[test]
fn temperature_alone() {
    for temperature in [0.5, 1.0, 1.7] {
        assert_distribution(&SamplingRow { temperature, ..PLAIN });
    }
}

#[test]
fn each_filter_alone() {
    for top_k in [2, 5, 100] {
        assert_distribution(&SamplingRow { top_k, ..PLAIN });
    }
    for top_p in [0.1, 0.5, 0.9] {
        assert_distribution(&SamplingRow { top_p, ..PLAIN });
    }
    for min_p in [0.05, 0.3, 1.0] {
        assert_distribution(&SamplingRow { min_p, ..PLAIN });
    }
}

#[test]
fn filters_combined() {
    // top_p of the top_k: without renormalisation the cut falls elsewhere.
    let both = SamplingRow { top_k: 4, top_p: 0.8, ..PLAIN };
    assert_eq!(reference(&logits(), &both).iter().filter(|&&p| p > 0.0).count(), 3);
    assert_distribution(&both);
    assert_distribution(&SamplingRow {
        temperature: 0.7,
        top_k: 8,
        top_p: 0.95,
        min_p: 0.1,
        ..PLAIN
    });
}

#[test]
fn suppressed_tokens_are_never_chosen() {
    let logits = Array::from_slice(&logits().repeat(2), &[2, VOCAB]).unwrap();
    let rows = [SamplingRow { suppress: Some([1, 999].into()), ..GREEDY }, GREEDY];
    assert_eq!(choose(&logits, &rows).unwrap().to_vec::<i32>().unwrap(), [6, 1]);

    let rows: Vec<_> = (0..2)
        .map(|seed| SamplingRow {
            suppress: Some([0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11].into()),
            seed,
            ..PLAIN
        })
        .collect();
    assert_eq!(choose(&logits, &rows).unwrap().to_vec::<i32>().unwrap(), [7, 7]);
}

/// Every kind of row, alone and amid the others, in both orders.
#[test]
fn neighbours_change_nothing() {
    let kinds = [
        GREEDY,
        PLAIN,
        SamplingRow { top_k: 3, ..PLAIN },
        SamplingRow { top_p: 0.7, temperature: 1.3, ..PLAIN },
        SamplingRow { min_p: 0.2, ..PLAIN },
    ];
    let rows: Vec<_> = (0..40)
        .map(|i| SamplingRow { seed: i as u64 * 31, token_index: i % 7, ..kinds[i % 5].clone() })
        .collect();
    let logits_of = |i: usize| -> Vec<f32> {
        let mut logits = logits();
        logits.rotate_left(i % VOCAB);
        logits
    };
    let run = |order: &[usize]| -> Vec<i32> {
        let flat: Vec<f32> = order.iter().flat_map(|&i| logits_of(i)).collect();
        let logits = Array::from_slice(&flat, &[order.len(), VOCAB]).unwrap();
        let rows: Vec<_> = order.iter().map(|&i| rows[i].clone()).collect();
        choose(&logits, &rows).unwrap().to_vec().unwrap()
    };
    let alone: Vec<i32> = (0..40).map(|i| run(&[i])[0]).collect();
    let forward: Vec<usize> = (0..40).collect();
    let backward: Vec<usize> = (0..40).rev().collect();
    assert_eq!(run(&forward), alone);
    assert_eq!(run(&backward).into_iter().rev().collect::<Vec<_>>(), alone);
}

#[test]
fn half_precision_logits_are_sampled_in_f32() {
    let logits = Array::from_slice(&logits(), &[1, VOCAB]).unwrap();
    let half = logits.astype(Dtype::Bfloat16).unwrap();
    let ids = choose(&half, &[SamplingRow { top_k: 2, seed: 3, ..PLAIN }]).unwrap();
    assert_eq!(ids.dtype(), Dtype::Int32);
    assert!([1, 6].contains(&ids.to_vec::<i32>().unwrap()[0]));
}

fn penalized(penalties: Penalties, counts: &[(u32, u32)], pending: Option<usize>) -> SamplingRow {
    let penalties = Some(RowPenalties { penalties, counts: counts.to_vec(), pending });
    SamplingRow { penalties, ..PLAIN }
}

/// Rows with penalties, bias and neither, against the definition; the last has a token that
/// only the device knows.
#[test]
fn penalties_and_bias_change_their_rows_alone() {
    let none = Penalties::default();
    let rows = [
        penalized(Penalties { frequency: 0.5, ..none }, &[(1, 3), (2, 1)], None),
        PLAIN,
        penalized(Penalties { presence: -1.5, ..none }, &[(6, 2)], None),
        SamplingRow { logit_bias: Some([(0, 4.0), (11, -2.0)].into()), ..PLAIN },
        penalized(Penalties { repetition: 1.6, ..none }, &[(1, 1), (5, 9)], None),
        SamplingRow {
            logit_bias: Some([(1, 0.25)].into()),
            suppress: Some([3].into()),
            ..penalized(
                Penalties { frequency: 0.25, presence: 0.5, repetition: 0.5 },
                &[(1, 1), (2, 2)],
                Some(1),
            )
        },
    ];
    let tiled = Array::from_slice(&logits().repeat(rows.len()), &[rows.len(), VOCAB]).unwrap();
    let previous = Array::from_slice(&[7_i32, 2, 9], &[3]).unwrap();
    let edited = edit(&tiled, &rows.iter().collect::<Vec<_>>(), Some(&previous)).unwrap();
    let edited: Vec<f32> = edited.to_vec().unwrap();
    for (index, (row, edited)) in rows.iter().zip(edited.chunks(VOCAB)).enumerate() {
        let mut expected = logits();
        if let Some(known) = &row.penalties {
            let mut counts = [0_u32; VOCAB];
            known.counts.iter().for_each(|&(id, count)| counts[id as usize] += count);
            known.pending.iter().for_each(|&row| counts[[7, 2, 9][row]] += 1);
            for (logit, count) in expected.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
                *logit -= known.penalties.frequency * count as f32 + known.penalties.presence;
                let repetition = known.penalties.repetition;
                *logit = if *logit < 0.0 { *logit * repetition } else { *logit / repetition };
            }
        }
        for &(id, bias) in row.logit_bias.as_deref().unwrap_or_default() {
            expected[id as usize] += bias;
        }
        for &id in row.suppress.as_deref().unwrap_or_default() {
            expected[id as usize] = f32::NEG_INFINITY;
        }
        let is_close = |(a, b): (&f32, &f32)| a == b || (a - b).abs() < 1e-5;
        assert!(edited.iter().zip(&expected).all(is_close), "{index}: {edited:?} {expected:?}");
    }
}

/// Log-softmax in f64.
fn log_softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|&x| f64::from(x / temperature)).collect();
    let total: f64 = scaled.iter().map(|x| x.exp()).sum();
    scaled.iter().map(|x| x - total.ln()).collect()
}

fn assert_logprobs(found: &TokenLogprobs, expected: &[f64], token: usize, params: &LogprobParams) {
    let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-5, "{a} {b}");
    close(found.logprob, expected[token]);
    let mut order: Vec<usize> = (0..expected.len()).collect();
    order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
    order.truncate(params.top_logprobs_num);
    let top: Vec<usize> = found.top.iter().map(|&(_, id)| id as usize).collect();
    assert_eq!(top, order);
    found.top.iter().for_each(|&(logprob, id)| close(logprob, expected[id as usize]));
    assert_eq!(found.of_ids.len(), params.token_ids.len());
    for (&logprob, &id) in found.of_ids.iter().zip(params.token_ids.iter()) {
        close(logprob, expected[id as usize]);
    }
}

#[test]
fn logprobs_are_those_of_the_whole_vocabulary() {
    let params = |top_logprobs_num, token_ids: &[u32]| {
        Arc::new(LogprobParams { start_len: None, top_logprobs_num, token_ids: token_ids.into() })
    };
    let wanted = [params(0, &[]), params(3, &[10, 1]), params(100, &[]), params(0, &[4])];
    let with = |row: SamplingRow, index: usize| SamplingRow {
        logprobs: Some(Arc::clone(&wanted[index])),
        ..row
    };
    let rows = [
        with(GREEDY, 0),
        with(SamplingRow { temperature: 0.5, top_k: 2, ..PLAIN }, 1),
        PLAIN,
        with(SamplingRow { temperature: 2.0, ..PLAIN }, 2),
        with(GREEDY, 3),
    ];
    let rows: Vec<_> = rows.iter().collect();
    let tiled = Array::from_slice(&logits().repeat(rows.len()), &[rows.len(), VOCAB]).unwrap();
    let ids = sample(&tiled, &rows).unwrap();
    let found = PositionLogprobs::of_sampled(&tiled, &ids, &rows).unwrap().unwrap().read().unwrap();
    let ids: Vec<i32> = ids.to_vec().unwrap();
    assert_eq!(found.len(), 4);
    for ((found, row), index) in found.iter().zip([0, 1, 3, 4]).zip(0..) {
        let temperature = if row == 0 || row == 4 { 1.0 } else { rows[row].temperature };
        let expected = log_softmax(&logits(), temperature);
        assert_logprobs(found, &expected, ids[row] as usize, &wanted[index]);
    }
    let asks_nothing = PositionLogprobs::of_sampled(&tiled, &ids_array(&ids), &[&PLAIN]).unwrap();
    assert!(asks_nothing.is_none());
}

fn ids_array(ids: &[i32]) -> Array {
    Array::from_slice(ids, &[ids.len()]).unwrap()
}

/// More positions than are computed at once, with what each wants cycling.
#[test]
fn many_positions_come_in_pieces() {
    let kinds: [&[u32]; 3] = [&[], &[3, 8], &[0]];
    let count = 150;
    let params: Vec<_> = (0..count)
        .map(|i| LogprobParams {
            start_len: Some(0),
            top_logprobs_num: i % 4,
            token_ids: kinds[i % 3].into(),
        })
        .map(Arc::new)
        .collect();
    let rows: Vec<Vec<f32>> = (0..count)
        .map(|i| {
            let mut row = logits();
            row.rotate_left(i % VOCAB);
            row
        })
        .collect();
    let flat = Array::from_slice(&rows.concat(), &[count, VOCAB]).unwrap();
    let tokens: Vec<i32> = (0..count).map(|i| (i * 5 % VOCAB) as i32).collect();
    let found = PositionLogprobs::new(&flat, &ids_array(&tokens), params.clone()).unwrap();
    let found = found.read().unwrap();
    assert_eq!(found.len(), count);
    for (i, found) in found.iter().enumerate() {
        assert_logprobs(found, &log_softmax(&rows[i], 1.0), tokens[i] as usize, &params[i]);
    }
}

#[test]
fn masks_leave_what_they_allow_and_rows_without_one() {
    let vocab = 70;
    let values: Vec<f32> = (0..4 * vocab).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    let logits = Array::from_slice(&values, &[4, vocab]).unwrap();
    let mask = |sampled_row: usize| {
        let word = |word: usize| 0x9e37_79b9_u32.wrapping_mul((sampled_row * 7 + word + 1) as u32);
        // More words than there are tokens for.
        RowMask { sampled_row, words: (0..4).map(word).collect() }
    };
    for rows in [&[0, 1, 2, 3][..], &[2], &[3, 0]] {
        let masks: Vec<_> = rows.iter().map(|&row| mask(row)).collect();
        let masked: Vec<f32> = restrict(logits.clone(), &masks).unwrap().to_vec().unwrap();
        for (place, (&before, &after)) in values.iter().zip(&masked).enumerate() {
            let (row, token) = (place / vocab, place % vocab);
            let words = masks.iter().find(|mask| mask.sampled_row == row).map(|mask| &mask.words);
            let allowed = words.is_none_or(|words| words[token / 32] >> (token % 32) & 1 == 1);
            let expected = if allowed { before } else { f32::NEG_INFINITY };
            assert_eq!(after, expected, "rows {rows:?}: row {row}, token {token}");
        }
    }
}
