//! Paged decode.

use kernel_emulator::Tensor;
use kernels::paged_decode::DecodePlan;
use rand::Rng;

use crate::{
    cases::{attention::Batch, compare, epsilon, rng},
    element, ints, run,
};

fn decode(batch: &Batch, plan: &DecodePlan) -> Vec<f32> {
    let spec = &batch.spec;
    let pool = [batch.num_slots, spec.num_kv_heads, spec.head_dim];
    let q_shape = [batch.size(), spec.num_heads, spec.head_dim];
    let mut q = Tensor::floats(element(spec.dtype), &q_shape, &batch.q);
    let mut k_pool = Tensor::floats(element(spec.kv_dtype), &pool, &batch.k_pool);
    let mut v_pool = Tensor::floats(element(spec.kv_dtype), &pool, &batch.v_pool);
    let mut pages = Tensor::ints(&[batch.size(), batch.max_pages], &batch.page_table);
    let mut lens = ints(&batch.seq_lens);
    let mut sinks =
        Tensor::floats(kernel_emulator::ElementType::F32, &[spec.num_heads], &batch.sinks);
    let mut chain = Tensor::ints(&[8], &[0; 8]);
    let mut out = run(
        &plan.decode,
        &mut [&mut q, &mut k_pool, &mut v_pool, &mut pages, &mut lens, &mut sinks, &mut chain],
    )
    .unwrap();
    if let Some(merge) = &plan.merge {
        out = run(merge, &mut [&mut out[0], &mut sinks]).unwrap();
    }
    out[0].to_f32()
}

fn check(seeds: std::ops::Range<u64>, longest: usize) {
    for seed in seeds {
        let mut rng = rng(seed);
        let batch = Batch::decode(&mut rng, longest);
        let splits = 1 << rng.random_range(0..5);
        let plan = DecodePlan::with_splits(&batch.spec, batch.size(), splits);
        let tolerance = epsilon(batch.spec.dtype);
        if let Err(error) = compare(&decode(&batch, &plan), &batch.expected(), tolerance) {
            let (spec, lens) = (&batch.spec, &batch.seq_lens);
            panic!("case {seed}: {error}\n{spec:?}\nlengths {lens:?}, {splits} splits");
        }
    }
}

#[test]
fn agrees_with_the_reference() {
    check(0..500, 200);
}

#[test]
fn agrees_with_the_reference_on_long_contexts() {
    check(10_000..10_020, 8192);
}
