//! Writes land in place, and only where they should.

use std::time::{Duration, Instant};

use mlx::memory;

use super::*;

const HEADS: usize = 4;
const HEAD_DIM: usize = 64;

fn shape(layer_id: usize) -> AttentionShape {
    AttentionShape {
        layer_id,
        num_heads: HEADS,
        num_kv_heads: HEADS,
        head_dim: HEAD_DIM,
        scale: 1.0,
        ..AttentionShape::default()
    }
}

fn config(num_pages: usize) -> KvPoolConfig {
    KvPoolConfig { num_pages, page_size: 4, dtype: Dtype::Float32.into(), max_buffer_bytes: None }
}

fn int32(values: &[i32]) -> Array {
    Array::from_slice(values, &[values.len()]).unwrap()
}

/// Of one request.
fn index(slots: &[i32]) -> SlotIndex {
    SlotIndex::new(slots, 1, slots.len()).unwrap()
}

/// One step: a write, and a read that the result depends on.
fn step(pool: &mut KvPool, slots: &Array, rows: &Array, index: &SlotIndex) -> Array {
    pool.write(0, slots, rows, rows).unwrap();
    let LayerCache::Full(cache) = pool.layer(0) else { panic!() };
    let (k, v) = cache.gather(index).unwrap();
    k.add(&v).unwrap().sum(&[0, 1, 2, 3], false).unwrap()
}

/// Fastest step, and memory on top of the pool, over several steps.
fn cost(num_pages: usize) -> (Duration, usize) {
    let mut pool = KvPool::new(&[shape(0)], &config(num_pages)).unwrap();
    let (slots, index) = (int32(&[3, 17, 40, 2]), index(&[0, 3, 17, 40]));
    let rows = Array::ones(&[4, HEADS, HEAD_DIM], Dtype::Float32).unwrap();
    mlx::eval(&[&slots, &rows]).unwrap();
    let before = memory::active_bytes();
    memory::reset_peak();
    let mut fastest = Duration::MAX;
    let mut running: Option<Array> = None;
    for _ in 0..30 {
        let start = Instant::now();
        // The engine's order: build while the last step runs, wait, submit.
        let next = step(&mut pool, &slots, &rows, &index);
        if let Some(running) = running.replace(next.clone()) {
            running.eval().unwrap();
        }
        mlx::async_eval(&[&next]).unwrap();
        fastest = fastest.min(start.elapsed());
    }
    running.unwrap().eval().unwrap();
    (fastest, memory::peak_bytes().saturating_sub(before))
}

/// Alone in this test binary's process it would be exact; other tests allocate
/// meanwhile, so bounds are a fraction of the copy that must not happen.
#[test]
fn a_write_costs_the_same_in_a_pool_50_times_as_large() {
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    const SMALL: usize = 1_000;
    let (small_time, _) = cost(SMALL);
    let (large_time, large_peak) = cost(50 * SMALL);
    // K alone is 205 MB: copying it takes some 50 ms.
    let buffer = 50 * SMALL * 4 * HEADS * HEAD_DIM * 4;
    assert!(large_peak < buffer / 2, "{large_peak} bytes on top of a pool of 2 x {buffer}");
    assert!(
        large_time < small_time * 4 + Duration::from_millis(5),
        "{small_time:?} became {large_time:?}"
    );
}

#[test]
fn rows_land_in_their_slots_and_nowhere_else() {
    let mut pool = KvPool::new(&[shape(0), shape(1)], &config(8)).unwrap();
    let rows = |first: f32| {
        let values: Vec<f32> = (0..3 * HEADS * HEAD_DIM).map(|i| first + i as f32).collect();
        Array::from_slice(&values, &[3, HEADS, HEAD_DIM]).unwrap()
    };
    pool.write(1, &int32(&[5, 30, 6]), &rows(1.0), &rows(-5000.0)).unwrap();
    let LayerCache::Full(cache) = pool.layer(1) else { panic!() };
    let all: Vec<i32> = (0..32).collect();
    let (k, v) = cache.gather(&index(&all)).unwrap();
    assert_eq!(k.shape(), [1, HEADS, 32, HEAD_DIM]);
    let (k, v): (Vec<f32>, Vec<f32>) = (k.to_vec().unwrap(), v.to_vec().unwrap());
    for head in 0..HEADS {
        let at = |values: &[f32], slot: usize| values[(head * 32 + slot) * HEAD_DIM];
        let first = (head * HEAD_DIM) as f32;
        for slot in 0..32 {
            let held = match slot {
                5 => 1.0 + first,
                30 => 257.0 + first,
                6 => 513.0 + first,
                _ => 0.0,
            };
            assert_eq!(at(&k, slot), held, "slot {slot}");
        }
        assert_eq!(at(&v, 5), -5000.0 + first);
    }
    let LayerCache::Full(other) = pool.layer(0) else { panic!() };
    let (k, _) = other.gather(&index(&all)).unwrap();
    assert!(k.to_vec::<f32>().unwrap().iter().all(|&value| value == 0.0));
}

#[test]
fn buffers_stay_below_the_devices_limit() {
    let head_bytes = 8 * 4 * HEAD_DIM * 4;
    let limited = |limit| KvPoolConfig { max_buffer_bytes: Some(limit), ..config(8) };
    for limit in [head_bytes, 2 * head_bytes + 1, 3 * head_bytes, 100 * head_bytes] {
        let mut pool = KvPool::new(&[shape(0)], &limited(limit)).unwrap();
        assert_eq!(pool.nbytes(), 2 * HEADS * head_bytes);
        let values: Vec<f32> = (0..HEADS * HEAD_DIM).map(|i| i as f32).collect();
        let rows = Array::from_slice(&values, &[1, HEADS, HEAD_DIM]).unwrap();
        pool.write(0, &int32(&[9]), &rows, &rows).unwrap();
        let LayerCache::Full(cache) = pool.layer(0) else { panic!() };
        let (k, _) = cache.gather(&index(&[9, 8])).unwrap();
        let k: Vec<f32> = k.to_vec().unwrap();
        for (held, values) in k.chunks(2 * HEAD_DIM).zip(values.chunks(HEAD_DIM)) {
            assert_eq!(held[..HEAD_DIM], *values);
            assert!(held[HEAD_DIM..].iter().all(|&value| value == 0.0));
        }
    }
    let error = KvPool::new(&[shape(0)], &limited(head_bytes - 1)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "a K/V pool of 32 slots needs buffers of 8192 bytes, the device allows 8191"
    );
}
