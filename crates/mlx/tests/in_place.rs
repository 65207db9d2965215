//! The K/V pool's pattern: rows are written in place, whatever the pool's size.
//!
//! One test, because peak memory belongs to the process.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod util;

use std::time::{Duration, Instant};

use mlx::{Array, Dtype, memory};
use util::noise;

const ROW: [usize; 2] = [4, 64];
const NUM_ROWS: usize = 32;
const MIB: usize = 1 << 20;

fn pool(mib: usize) -> Array {
    let slots = mib * MIB / (ROW[0] * ROW[1] * 4);
    let pool = Array::zeros(&[slots, ROW[0], ROW[1]], Dtype::Float32).unwrap();
    pool.eval().unwrap();
    pool
}

/// Rows spread over the whole pool, other ones each time.
fn slots(pool: &Array, step: usize) -> Array {
    let stride = pool.dim(0) / NUM_ROWS;
    let slots: Vec<i32> = (0..NUM_ROWS).map(|i| (i * stride + step % stride) as i32).collect();
    util::vector(&slots)
}

fn rows(step: usize) -> Array {
    util::array(&noise(NUM_ROWS * ROW[0] * ROW[1], step as u64), &[NUM_ROWS, ROW[0], ROW[1]])
}

/// Peak growth in bytes and median time of one write.
fn writes(mib: usize) -> (usize, Duration) {
    let mut pool = pool(mib);
    memory::clear_cache();
    memory::reset_peak();
    let before = memory::active_bytes();
    let mut times = Vec::new();
    for step in 0..25 {
        let (slots, rows) = (slots(&pool, step), rows(step));
        mlx::eval(&[&slots, &rows]).unwrap();
        let start = Instant::now();
        pool = pool.put_rows(&slots, &rows).unwrap();
        pool.eval().unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    (memory::peak_bytes().saturating_sub(before), times[times.len() / 2])
}

/// One write and one read per step. Each step's graph is built while the one
/// before runs, and handed over when that one is done. Returns the peak growth
/// in bytes.
fn steps_ahead(mib: usize) -> usize {
    let mut pool = pool(mib);
    memory::clear_cache();
    memory::reset_peak();
    let before = memory::active_bytes();
    let mut previous: Option<(Array, f32)> = None;
    for step in 0..12 {
        let (slots, rows) = (slots(&pool, step), rows(step));
        pool = pool.put_rows(&slots, &rows).unwrap();
        let sum = pool.take(&slots, 0).unwrap().sum(&[0, 1, 2], false).unwrap();
        let expected = noise(rows.size(), step as u64).iter().sum::<f32>();
        if let Some((sum, expected)) = previous.take() {
            util::assert_close("sum", &[sum.item::<f32>().unwrap()], &[expected], 1e-3);
        }
        mlx::async_eval(&[&sum]).unwrap();
        previous = Some((sum, expected));
    }
    mlx::synchronize().unwrap();
    memory::peak_bytes().saturating_sub(before)
}

#[test]
fn rows_are_written_in_place() {
    let (small_growth, small_time) = writes(8);
    let (large_growth, large_time) = writes(400);
    assert!(small_growth < MIB, "{small_growth} bytes");
    assert!(large_growth < MIB, "{large_growth} bytes");
    // A copy of 400 MiB takes longer than 50 ms on any machine of today.
    let limit = small_time * 20 + Duration::from_millis(5);
    assert!(large_time < limit, "{large_time:?} against {small_time:?}");

    let growth = steps_ahead(200);
    assert!(growth < 4 * MIB, "{growth} bytes for steps ahead");

    // That this would be seen: a second owner costs a copy.
    let pool = pool(64);
    let before = memory::active_bytes();
    memory::reset_peak();
    let written = pool.put_rows(&slots(&pool, 0), &rows(0)).unwrap();
    written.eval().unwrap();
    assert!(memory::peak_bytes() - before >= 64 * MIB);
    assert_eq!(pool.sum(&[0, 1, 2], false).unwrap().item::<f32>().unwrap(), 0.0);
}
