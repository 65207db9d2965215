//! Mistakes planted in kernels are caught, and the same kernels without the
//! mistake pass.

use kernel_emulator::{Constant, ElementType, EmulatorError, Launch, Tensor, TileLayout, run};

fn planted(
    kernel: &str,
    constants: &[(&str, i32)],
    threads: usize,
    groups: usize,
    buffers: &mut [(&str, &mut Tensor)],
) -> Result<(), EmulatorError> {
    let constants: Vec<_> =
        constants.iter().map(|(name, value)| (*name, Constant::Int(*value))).collect();
    let launch = Launch {
        kernel,
        types: &[],
        constants: &constants,
        groups: [groups, 1, 1],
        threads,
        tiles: TileLayout::Cuda,
    };
    run(&launch, buffers)
}

fn zeros(len: usize) -> Tensor {
    Tensor::floats(ElementType::F32, &[len], &vec![0.0; len])
}

fn message(result: Result<(), EmulatorError>) -> String {
    result.expect_err("the mistake is caught").message
}

#[test]
fn a_race_between_barriers() {
    let run = |with_barrier| {
        let values: Vec<f32> = (0..128_u8).map(f32::from).collect();
        let mut x = Tensor::floats(ElementType::F32, &[128], &values);
        let mut out = Tensor::unwritten(ElementType::F32, &[128]);
        let constants = [("WITH_BARRIER", with_barrier)];
        let buffers = &mut [("x", &mut x), ("out", &mut out)];
        planted("planted_race", &constants, 64, 2, buffers).map(|()| out.to_f32())
    };
    let out = run(1).unwrap();
    assert_eq!((out[0], out[63], out[64]), (40.0, 39.0, 104.0));
    let caught = message(run(0).map(|_| ()));
    assert!(
        // Which of the two sees the other first depends on who runs first.
        caught.contains("race") || caught.contains("which nobody wrote"),
        "{caught}"
    );
}

#[test]
fn a_simdgroup_barrier_orders_its_own_lanes_only() {
    let run = |readers| {
        let mut out = zeros(64);
        planted("planted_simd_race", &[("READERS", readers)], 64, 1, &mut [("out", &mut out)])
    };
    run(32).unwrap();
    let caught = message(run(64));
    assert!(caught.contains("race: read of element 0 of the threadgroup array"), "{caught}");
}

#[test]
fn two_groups_that_write_the_same_place() {
    let run = |sharing| {
        let (mut pool, mut chain) = (zeros(128), Tensor::ints(&[1], &[1]));
        let buffers = &mut [("pool", &mut pool), ("chain", &mut chain)];
        planted("planted_device_race", &[("SHARING", sharing)], 32, 4, buffers)
            .map(|()| pool.to_f32())
    };
    assert_eq!(run(1).unwrap()[127], 31.0);
    let caught = message(run(2).map(|_| ()));
    assert!(caught.contains("race: write of pool[0], which another thread wrote"), "{caught}");
}

#[test]
fn accesses_out_of_bounds() {
    let run = |read, write| {
        let (mut x, mut out) = (zeros(32), zeros(32));
        let constants = [("READ_OFFSET", read), ("WRITE_OFFSET", write)];
        let buffers = &mut [("x", &mut x), ("out", &mut out)];
        planted("planted_out_of_bounds", &constants, 32, 1, buffers)
    };
    run(0, 0).unwrap();
    let caught = message(run(1, 0));
    assert!(caught.contains("read of x[32] is out of bounds: it has 32 elements"), "{caught}");
    assert!(caught.contains("thread 31"), "{caught}");
    assert!(message(run(-1, 0)).contains("read of x[-1]"));
    assert!(message(run(0, 1)).contains("write of element 32 of the threadgroup array"));
}

#[test]
fn reads_of_what_nobody_wrote() {
    let run = |writers| {
        let mut out = zeros(32);
        planted("planted_unwritten", &[("WRITERS", writers)], 32, 2, &mut [("out", &mut out)])
    };
    // Two groups would write the same output: one is enough here.
    assert!(message(run(32)).contains("race"));
    assert!(message(run(16)).contains("element 16 of the threadgroup array"));
}

#[test]
fn threads_that_do_not_meet() {
    let run = |stays, sums| {
        let mut out = zeros(64);
        let constants = [("STAYS", stays), ("SUMS", sums)];
        planted("planted_divergence", &constants, 64, 1, &mut [("out", &mut out)])
            .map(|()| out.to_f32())
    };
    assert_eq!(run(64, 32).unwrap()[0], 496.0);
    let barrier = message(run(40, 32).map(|_| ()));
    assert!(barrier.contains("threads diverge") && barrier.contains("at its end"), "{barrier}");
    let sum = message(run(64, 31).map(|_| ()));
    assert!(sum.contains("diverge"), "{sum}");
}

fn tile_value(at: usize, step: usize) -> f32 {
    (at * step % 13) as f32 - 6.0
}

/// Products of two matrices of 16 x 16, the second as it is and transposed.
fn tiles(
    layout: TileLayout,
    meets: i32,
    waits: i32,
) -> Result<(Vec<f32>, Vec<f32>), EmulatorError> {
    let matrix = |step: usize| {
        let values: Vec<f32> = (0..256).map(|at| tile_value(at, step)).collect();
        Tensor::floats(ElementType::Bf16, &[16, 16], &values)
    };
    let (mut a, mut b) = (matrix(5), matrix(7));
    let (mut out, mut turned) = (zeros(256), zeros(256));
    let launch = Launch {
        kernel: "planted_tiles",
        types: &[("T", ElementType::Bf16)],
        constants: &[("MEETS", Constant::Int(meets)), ("WAITS", Constant::Int(waits))],
        groups: [1, 1, 1],
        threads: 32,
        tiles: layout,
    };
    let buffers = &mut [("a", &mut a), ("b", &mut b), ("out", &mut out), ("turned", &mut turned)];
    run(&launch, buffers)?;
    Ok((out.to_f32(), turned.to_f32()))
}

#[test]
fn tiles_of_the_matrix_unit() {
    for layout in [TileLayout::Cuda, TileLayout::Metal] {
        let (out, turned) = tiles(layout, 32, 1).unwrap();
        for (row, column) in (0..16).flat_map(|row| (0..16).map(move |column| (row, column))) {
            let sum = |of_b: &dyn Fn(usize) -> usize| -> f32 {
                (0..16).map(|k| tile_value(row * 16 + k, 5) * tile_value(of_b(k), 7)).sum()
            };
            assert_eq!(out[row * 16 + column], sum(&|k| k * 16 + column), "{row} {column}");
            assert_eq!(turned[row * 16 + column], sum(&|k| column * 16 + k), "{row} {column}");
        }
        let caught = message(tiles(layout, 20, 1).map(|_| ()));
        assert!(caught.contains("diverge"), "{caught}");
    }
    // What has not arrived is not a number.
    assert!(tiles(TileLayout::Cuda, 32, 0).unwrap().0.iter().all(|value| value.is_nan()));
}

#[test]
fn a_launch_that_does_not_fit_the_kernel() {
    let mut out = zeros(64);
    let unknown = planted("no_such", &[], 32, 1, &mut []);
    assert!(message(unknown).contains("no kernel of this name"));
    let missing = planted("planted_divergence", &[], 32, 1, &mut [("out", &mut out)]);
    assert!(message(missing).contains("the kernel has 2 constants, given 0"));
}
