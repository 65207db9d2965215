//! How fast the kernels are, on the shapes of an 8B model: 32 heads, 8 K/V heads
//! of 128, bf16.

use std::{error::Error, time::Instant};

use kernels::{
    AttentionSpec, DecodeInputs, ExtendInputs, ExtendTiling, Kernels, KvDtype, KvWriteInputs,
    Reach, RopeInputs, RopeSpec, add_rms_norm, kv_write, paged_decode, paged_extend,
    paged_extend::paged_extend_tiled, rope_kv_write, silu_and_mul,
};
use mlx::{Array, Dtype, random};

use crate::products;

pub(crate) type Section = fn(&Kernels) -> Result<(), Box<dyn Error>>;

/// Everything that is timed.
pub(crate) const SECTIONS: &[(&str, Section)] = &[
    ("time of decode", decode),
    ("time of decode over packed K/V", decode_packed),
    ("time of extend", extend),
    ("time of K/V writes", writes),
    ("time of rows", rows),
    ("time of products", products::products),
    ("time of products by experts", products::experts),
    ("time of tilings of products", products::tilings),
];

pub(crate) const DTYPE: Dtype = Dtype::Bfloat16;
const PAGE: usize = 16;

const SPEC: AttentionSpec = AttentionSpec {
    num_heads: 32,
    num_kv_heads: 8,
    head_dim: 128,
    page_size: PAGE,
    scale: 0.088_388_35,
    reach: Reach::ALL,
    soft_cap: None,
    has_sinks: false,
    dtype: DTYPE,
    kv_dtype: KvDtype::Plain(DTYPE),
};

/// Microseconds of one step of a chain that starts at `first`. Every step needs
/// the one before, as in a model: steps that do not would run side by side. Many
/// are evaluated together, so that the host's part is hidden where the device's
/// is longer.
pub(crate) fn time(
    first: &Array,
    step: impl Fn(&Array) -> Result<Array, Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    const TOGETHER: usize = 40;
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        let mut last = step(first)?;
        for _ in 1..TOGETHER {
            last = step(&last)?;
        }
        last.eval()?;
        best = best.min(start.elapsed().as_secs_f64() / TOGETHER as f64);
    }
    Ok(best * 1e6)
}

struct Pool {
    k: Array,
    v: Array,
    /// `[batch, max_pages]`, pages in a scattered order.
    pages: Array,
    chain: Array,
}

impl Pool {
    fn new(batch: usize, longest: usize) -> Result<Self, Box<dyn Error>> {
        let normal = |shape: &[usize]| random::normal(shape, DTYPE, None);
        Self::of(batch, longest, SPEC.head_dim, normal)
    }

    /// With pools of rows of `row` elements that `fill` makes.
    fn of(
        batch: usize,
        longest: usize,
        row: usize,
        fill: impl Fn(&[usize]) -> mlx::Result<Array>,
    ) -> Result<Self, Box<dyn Error>> {
        let max_pages = longest.div_ceil(PAGE);
        let num_pages = batch * max_pages;
        let shape = [num_pages * PAGE, SPEC.num_kv_heads, row];
        // A step that has no factor with the count visits every page once.
        let step = (num_pages / 3..).find(|step| gcd(*step, num_pages) == 1).unwrap_or(1);
        let pages: Vec<i32> = (0..num_pages)
            .map(|at| i32::try_from(at * step % num_pages))
            .collect::<Result<_, _>>()?;
        let pool = Self {
            k: fill(&shape)?,
            v: fill(&shape)?,
            pages: Array::from_slice(&pages, &[batch, max_pages])?,
            chain: Array::zeros(&[8], Dtype::Int32)?,
        };
        mlx::eval(&[&pool.k, &pool.v, &pool.pages, &pool.chain])?;
        Ok(pool)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn int_array(values: &[usize]) -> Result<Array, Box<dyn Error>> {
    let values = values.iter().map(|x| i32::try_from(*x)).collect::<Result<Vec<_>, _>>()?;
    let array = Array::from_slice(&values, &[values.len()])?;
    array.eval()?;
    Ok(array)
}

fn decode(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    for (batch, longest, ragged) in [
        (1, 128, false),
        (1, 2048, false),
        (1, 16384, false),
        (8, 2048, false),
        (8, 16384, false),
        (32, 256, false),
        (32, 2048, false),
        (32, 2048, true),
        (128, 1024, true),
    ] {
        let pool = Pool::new(batch, longest)?;
        let lens: Vec<usize> =
            (0..batch).map(|at| if ragged { 1 + (at * 7919) % longest } else { longest }).collect();
        let micros = decode_time(kernels, &SPEC, &pool, &lens, longest)?;
        let tokens: usize = lens.iter().sum();
        let rate = (tokens * 8 * 128 * 2 * 2) as f64 / micros / 1e3;
        let kind = if ragged { "ragged to" } else { "x" };
        println!("  {batch} {kind} {longest}: {micros:.1} us, {rate:.0} GB/s");
    }
    Ok(())
}

/// Microseconds of a decode step.
fn decode_time(
    kernels: &Kernels,
    spec: &AttentionSpec,
    pool: &Pool,
    lens: &[usize],
    longest: usize,
) -> Result<f64, Box<dyn Error>> {
    let batch = lens.len();
    let seq_lens = int_array(lens)?;
    let q = random::normal(&[batch, 32, 128], DTYPE, None)?;
    q.eval()?;
    let inputs = DecodeInputs {
        q: &q,
        k_pool: &pool.k,
        v_pool: &pool.v,
        page_table: &pool.pages,
        seq_lens: &seq_lens,
        sinks: None,
        chain: &pool.chain,
    };
    time(&q, |q| {
        let inputs = DecodeInputs { q, ..inputs };
        Ok(paged_decode(kernels, spec, &inputs, longest)?.reshape(&[batch, 32, 128])?)
    })
}

fn decode_packed(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    for kv_dtype in KvDtype::PACKED {
        let spec = AttentionSpec { kv_dtype, ..SPEC };
        for (batch, longest) in [(1, 2048), (1, 16384), (8, 16384), (32, 2048)] {
            let zeros = |shape: &[usize]| Array::zeros(shape, Dtype::Uint8);
            let pool = Pool::of(batch, longest, kv_dtype.row_len(128), zeros)?;
            let micros = decode_time(kernels, &spec, &pool, &vec![longest; batch], longest)?;
            let rate = (batch * longest * 8 * kv_dtype.row_bytes(128) * 2) as f64 / micros / 1e3;
            println!("  {kv_dtype}, {batch} x {longest}: {micros:.1} us, {rate:.0} GB/s");
        }
    }
    Ok(())
}

fn extend(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    for (batch, new, prefix) in
        [(1, 2048, 0), (1, 512, 4096), (1, 2048, 14336), (4, 512, 0), (8, 64, 2048), (1, 64, 4096)]
    {
        let pool = Pool::new(batch, prefix + new)?;
        let new_lens = vec![new; batch];
        let starts: Vec<usize> = (0..batch).map(|at| at * new).collect();
        let chosen = ExtendTiling::new(&SPEC)?;
        let tiles = tiles(&chosen, &new_lens)?;
        let q = random::normal(&[batch * new, 32, 128], DTYPE, None)?;
        q.eval()?;
        let inputs = ExtendInputs {
            q: &q,
            k_pool: &pool.k,
            v_pool: &pool.v,
            page_table: &pool.pages,
            starts: &int_array(&starts)?,
            new_lens: &int_array(&new_lens)?,
            prefix_lens: &int_array(&vec![prefix; batch])?,
            tiles: &tiles,
            sinks: None,
            chain: &pool.chain,
        };
        let micros =
            time(&q, |q| Ok(paged_extend(kernels, &SPEC, &ExtendInputs { q, ..inputs })?))?;
        let pairs = batch * (new * prefix + new * (new + 1) / 2);
        let rate = (pairs * 4 * 128 * 32) as f64 / micros / 1e6;
        println!("  {batch} x {new} after {prefix}: {micros:.0} us, {rate:.1} TFLOP/s");
        for (row_tiles, block) in [(1, 32), (1, 64), (2, 16), (2, 32)] {
            let tiling = ExtendTiling::on_matrix_unit(&SPEC, row_tiles, block)?;
            let tiles = &self::tiles(&tiling, &new_lens)?;
            let inputs = ExtendInputs { tiles, ..inputs };
            let micros = time(&q, |q| {
                Ok(paged_extend_tiled(kernels, &SPEC, tiling, &ExtendInputs { q, ..inputs })?)
            })?;
            println!("    {row_tiles} tiles of rows, {block} keys at a time: {micros:.0} us");
        }
    }
    Ok(())
}

fn tiles(tiling: &ExtendTiling, new_lens: &[usize]) -> Result<Array, Box<dyn Error>> {
    let tiles = tiling.tiles(new_lens);
    let tiles = Array::from_slice(&tiles, &[tiles.len() / 2, 2])?;
    tiles.eval()?;
    Ok(tiles)
}

fn writes(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    let rope = RopeSpec {
        num_heads: 32,
        num_kv_heads: 8,
        head_dim: 128,
        rotary_dim: 128,
        traditional: false,
        mscale: 1.0,
        norm_eps: None,
        dtype: DTYPE,
        kv_dtype: KvDtype::Plain(DTYPE),
    };
    let inv_freq: Vec<f32> = (0..64_u8).map(|i| 1e4_f32.powf(-f32::from(i) / 64.0)).collect();
    let inv_freq = Array::from_slice(&inv_freq, &[64])?;
    inv_freq.eval()?;
    // The time must not grow with the pool: the write is in place.
    for (tokens, pool_tokens) in [(32, 4096), (32, 262_144), (2048, 4096), (2048, 262_144)] {
        let pool = Pool::new(1, pool_tokens)?;
        let slots = int_array(&(0..tokens).map(|at| at * 2).collect::<Vec<_>>())?;
        let k = random::normal(&[tokens, 8, 128], DTYPE, None)?;
        let qkv = random::normal(&[tokens, 48 * 128], DTYPE, None)?;
        mlx::eval(&[&k, &qkv])?;
        let (k_pool, v_pool) = (&pool.k, &pool.v);
        let (slots, after) = (&slots, &pool.chain);
        let plain = KvWriteInputs { k: &k, v: &k, k_pool, v_pool, slots, after };
        let positions = slots;
        let fused = RopeInputs {
            qkv: &qkv,
            norms: None,
            inv_freq: &inv_freq,
            positions,
            k_pool,
            v_pool,
            slots,
            after,
        };
        let plain = time(after, |after| {
            Ok(kv_write(kernels, DTYPE.into(), &KvWriteInputs { after, ..plain })?)
        })?;
        let fused = time(after, |after| {
            Ok(rope_kv_write(kernels, &rope, &RopeInputs { after, ..fused })?.1)
        })?;
        println!(
            "  {tokens} tokens of {pool_tokens}: write {plain:.1} us, with rope {fused:.1} us"
        );
    }
    Ok(())
}

fn rows(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    const WIDTH: usize = 14336;
    let weight = random::normal(&[4096], DTYPE, None)?;
    for rows in [1, 32, 2048] {
        let hidden = random::normal(&[rows, 4096], DTYPE, None)?;
        let gate_up = random::normal(&[rows, 2 * WIDTH], DTYPE, None)?;
        mlx::eval(&[&weight, &hidden, &gate_up])?;
        let norm =
            time(&hidden, |last| Ok(add_rms_norm(kernels, last, &hidden, &weight, 1e-5)?.1))?;
        // A copy makes the result as wide as the input again.
        let silu = time(&gate_up, |last| {
            let once = silu_and_mul(kernels, last)?;
            Ok(Array::concatenate(&[&once, &once], 1)?)
        })?;
        println!(
            "  {rows} rows: norm of a sum of 4096 {norm:.1} us, silu of {WIDTH} and a copy of \
             twice that {silu:.1} us"
        );
    }
    Ok(())
}
