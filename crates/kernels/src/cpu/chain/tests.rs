//! A step as one node gives what its kernels give alone.

use mlx::device::{self, DeviceKind};

use super::*;
use crate::cpu::{
    add_rms_norm,
    attention::{AttentionInputs, AttentionParams, AttentionPlan, AttentionSeq, paged_attention},
    silu_and_mul,
};

fn array(shape: &[usize], seed: usize) -> Array {
    let len: usize = shape.iter().product();
    let values: Vec<f32> =
        (0..len).map(|at| ((at + seed) * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Array::from_slice(&values, shape).unwrap()
}

/// Norms and activations in a row, each width half the one before.
fn step(x: &Array, delta: &Array, weight: &Array) -> Result<Array> {
    let (sum, normed) = add_rms_norm(x, delta, weight, 1e-5)?;
    let (_, again) = add_rms_norm(&sum, &normed, weight, 1e-5)?;
    silu_and_mul(&silu_and_mul(&again)?)
}

#[test]
fn gives_what_kernels_give_alone_in_steps_of_any_shape() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let weight = array(&[64], 5);
    let mut recorder = ChainRecorder::new();
    for (seed, rows) in [1, 1, 3, 1].into_iter().enumerate() {
        let (x, delta) = (array(&[rows, 64], seed), array(&[rows, 64], seed + 50));
        // What MLX computes before the first kernel is an input.
        let x = x.add(&delta).unwrap();
        let node = recorder.record(|| step(&x, &delta, &weight)).unwrap().unwrap();
        let alone = step(&x, &delta, &weight).unwrap();
        assert_eq!(node.shape(), [rows, 16]);
        assert_eq!(node.to_vec::<f32>().unwrap(), alone.to_vec::<f32>().unwrap());
    }
}

#[test]
fn operations_of_mlx_between_kernels_are_refused() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let (x, weight) = (array(&[2, 64], 0), array(&[64], 1));
    let mut recorder = ChainRecorder::new();
    let between = recorder.record(|| {
        let (sum, normed) = add_rms_norm(&x, &x, &weight, 1e-5)?;
        silu_and_mul(&sum.add(&normed)?)
    });
    assert_eq!(between.unwrap().unwrap_err(), ChainError::Foreign);
    let after = recorder.record(|| silu_and_mul(&x)?.add_scalar(1.0));
    assert_eq!(after.unwrap().unwrap_err(), ChainError::ForeignResult);
    // A step that failed leaves nothing behind.
    assert!(recorder.record(|| x.reshape(&[3, 5])).is_err());
    let alone = silu_and_mul(&x).unwrap();
    assert!(alone.eval().is_ok());
}

/// Layers that share K and V: the second one reads the pools that the first one changes.
#[test]
fn a_second_use_of_the_same_pools_is_refused() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let pools = [array(&[4, 1, 64], 0), array(&[4, 1, 64], 9)];
    let (x, slots) = (array(&[1, 1, 64], 3), Array::from_slice(&[2], &[1]).unwrap());
    let params =
        AttentionParams { num_heads: 1, num_kv_heads: 1, head_dim: 64, ..Default::default() };
    let seq = AttentionSeq { start: 0, len: 1, prefix_len: 2, pages: vec![0] };
    let plan = Arc::new(AttentionPlan { seqs: vec![seq], page_size: 4 });
    let layer = |q: &Array, writes| {
        let [k_pool, v_pool] = &pools;
        let inputs = AttentionInputs { q, k: &x, v: &x, slots: &slots, k_pool, v_pool, writes };
        paged_attention(&Arc::new(params.clone()), &plan, inputs)
    };
    let mut recorder = ChainRecorder::new();
    assert!(recorder.record(|| layer(&x, true)).unwrap().is_ok());
    let both = recorder.record(|| layer(&layer(&x, true)?, false));
    assert_eq!(both.unwrap().unwrap_err(), ChainError::SharedInPlace);
}

#[test]
fn stand_ins_are_never_read() {
    device::set_default(DeviceKind::Cpu).unwrap();
    let stand_in = cpu_kernel::stand_ins(&[(&[2], Dtype::Float32)]).unwrap().remove(0);
    assert!(cpu_kernel::awaits_cpu_kernel(&stand_in.add(&stand_in).unwrap()));
    let error = stand_in.eval().unwrap_err().to_string();
    assert!(error.contains("only stands for a later one"), "{error}");
}

#[test]
fn places_are_free_after_the_last_reader_only() {
    let value = |nbytes, last_use| Value {
        shape: vec![],
        dtype: Dtype::Float32,
        nbytes,
        offset: 0,
        last_use,
    };
    struct Nothing;
    impl CpuKernel for Nothing {
        fn run(&self, _operands: Operands<'_>) {}
    }
    let stage = |inputs: &[usize], outputs| Stage {
        kernel: Arc::new(Nothing),
        inputs: inputs.iter().map(|&at| Operand::Value(at)).collect(),
        in_place: 0..0,
        outputs,
    };
    // 0 is read by stages 1 and 2, 1 by stage 2; 4 is the result.
    let mut values = [value(100, 2), value(100, 2), value(100, 3), value(60, 3), value(8, 4)];
    let stages = [
        stage(&[], 0..1),
        stage(&[0], 1..2),
        stage(&[0, 1], 2..3),
        stage(&[2], 3..4),
        stage(&[3], 4..5),
    ];
    let nbytes = place(&stages, &mut values, 4);
    let offsets: Vec<usize> = values[..4].iter().map(|value| value.offset).collect();
    assert_eq!((offsets.as_slice(), nbytes), (&[0, 128, 256, 384][..], 448));
    // A fourth value of 100 bytes takes the place of the first that is done.
    let mut values = [value(100, 1), value(100, 2), value(100, 3), value(8, 3)];
    let stages = [stage(&[], 0..1), stage(&[0], 1..2), stage(&[1], 2..3), stage(&[2], 3..4)];
    assert_eq!(place(&stages, &mut values, 3), 256);
    assert_eq!(values[2].offset, values[0].offset);
}
