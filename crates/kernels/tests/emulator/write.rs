//! Writes of K and V.

use kernel_emulator::Tensor;
use kernels::kv_write;
use mlx::Dtype;
use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    cases::{any_dtype, floats, rng, rounded},
    element, run,
};

/// Slots for `num_tokens` rows, all different, some negative.
pub(crate) fn slots(rng: &mut SmallRng, num_tokens: usize, num_slots: usize) -> Vec<i32> {
    let mut all: Vec<i32> = (0..i32::try_from(num_slots).unwrap()).collect();
    all.shuffle(rng);
    all.truncate(num_tokens);
    all.iter_mut().filter(|_| rng.random_bool(0.1)).for_each(|slot| *slot = -1);
    all
}

#[test]
fn rows_land_in_their_slots_and_nothing_else_changes() {
    for seed in 0..300 {
        let mut rng = rng(seed);
        let dtype = any_dtype(&mut rng);
        let kv_dtype = if dtype == Dtype::Float32 && rng.random() { Dtype::Float16 } else { dtype };
        let (heads, dim) = (rng.random_range(1..5), [64, 80, 96, 128, 256][rng.random_range(0..5)]);
        let (num_tokens, row) = (rng.random_range(1..20), heads * dim);
        let num_slots = num_tokens + rng.random_range(0..30);
        let slots = slots(&mut rng, num_tokens, num_slots);
        let mut values = |dtype, rows: usize| floats(&mut rng, dtype, rows * row);
        let (k, v) = (values(dtype, num_tokens), values(dtype, num_tokens));
        let (k_pool, v_pool) = (values(kv_dtype, num_slots), values(kv_dtype, num_slots));
        let rows = |dtype, count: usize, values: &[f32]| {
            Tensor::floats(element(dtype), &[count, heads, dim], values)
        };
        let mut k_after = rows(kv_dtype, num_slots, &k_pool);
        let mut v_after = rows(kv_dtype, num_slots, &v_pool);
        let chain = run(
            &kv_write::call(num_tokens, row, dtype, kv_dtype).unwrap(),
            &mut [
                &mut rows(dtype, num_tokens, &k),
                &mut rows(dtype, num_tokens, &v),
                &mut k_after,
                &mut v_after,
                &mut Tensor::ints(&[num_tokens], &slots),
                &mut Tensor::ints(&[8], &[0; 8]),
            ],
        )
        .unwrap();
        assert_eq!(chain[0].to_f32(), [0.0; 8]);
        for (mut pool, rows, after) in [(k_pool, k, k_after), (v_pool, v, v_after)] {
            for (slot, values) in slots.iter().zip(rows.chunks(row)) {
                let Ok(slot) = usize::try_from(*slot) else { continue };
                let values: Vec<f32> = values.iter().map(|x| rounded(kv_dtype, *x)).collect();
                pool[slot * row..][..row].copy_from_slice(&values);
            }
            assert_eq!(after.to_f32(), pool, "case {seed}");
        }
    }
}

#[test]
fn a_slot_that_occurs_twice_is_a_race() {
    let call = kv_write::call(2, 64, Dtype::Float32, Dtype::Float32).unwrap();
    let rows = || Tensor::floats(element(Dtype::Float32), &[2, 1, 64], &[0.0; 128]);
    let caught = run(
        &call,
        &mut [
            &mut rows(),
            &mut rows(),
            &mut rows(),
            &mut rows(),
            &mut Tensor::ints(&[2], &[1, 1]),
            &mut Tensor::ints(&[8], &[0; 8]),
        ],
    )
    .unwrap_err();
    assert!(caught.message.contains("race: write of k_pool[64]"), "{caught}");
}
