//! Each filter against a plain computation, and rows that do not disturb each other.

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
};
const PLAIN: SamplingRow = SamplingRow { temperature: 1.0, ..GREEDY };

fn choose(logits: &Array, rows: &[SamplingRow]) -> Result<Array> {
    sample(logits, &rows.iter().collect::<Vec<_>>())
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
