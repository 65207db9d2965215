//! Whether a GPU nobody has measured runs our kernels: each against MLX's own
//! operations, on a handful of numbers, before the first model is built.
//!
//! A driver that does not take a text, or computes something else from it, costs
//! speed then, not the service.

use mlx::{
    Array, Dtype,
    fast::{self, SdpaMask, scaled_dot_product_attention},
    quantized::{QuantMode, dequantize, quantize},
};

use crate::{
    AttentionSpec, DecodeInputs, EmbedSpec, ExtendInputs, ExtendTiling, KernelError, Kernels,
    KvDtype, KvWriteInputs, QmvWeights, Reach, add_bias::add_bias, add_gated::add_gated,
    add_rms_norm, embed_packed, kv_write, kv_write::CHAIN_LEN, paged_decode, paged_extend,
    rms_norm, silu_and_mul,
};

type Outcome = Result<(Array, Array), KernelError>;
type Probe = fn(&Kernels) -> Outcome;

const DTYPE: Dtype = Dtype::Float16;
const EPS: f32 = 1e-5;
/// Of values near one, in f16.
const TOLERANCE: f32 = 0.01;

/// Runs every probe.
///
/// # Errors
/// What the first kernel did that it should not.
pub fn probe(kernels: &Kernels) -> Result<(), String> {
    let probes: [(&str, Probe); 8] = [
        ("rms_norm", norm),
        ("add_rms_norm", norm_of_sum),
        ("silu_and_mul", gated_activation),
        ("add_bias", bias),
        ("add_gated", gated_sum),
        ("embed_packed", embedding),
        ("paged_decode", decode),
        ("paged_extend", extend),
    ];
    for (name, run) in probes {
        let off = run(kernels).and_then(|(ours, expected)| distance(&ours, &expected));
        match off {
            Ok(off) if off <= TOLERANCE => {}
            Ok(off) => return Err(format!("{name} is off by {off}")),
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    Ok(())
}

fn distance(ours: &Array, expected: &Array) -> Result<f32, KernelError> {
    let values = |array: &Array| array.astype(Dtype::Float32)?.to_vec::<f32>();
    let (ours, expected) = (values(ours)?, values(expected)?);
    if ours.len() != expected.len() {
        return Ok(f32::INFINITY);
    }
    // Not `max`, which passes NaN over.
    let off = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    Ok(off.fold(0.0, |worst, off| if off <= worst { worst } else { off }))
}

/// Numbers between -1 and 1, other ones for another seed.
fn numbers(seed: usize, shape: &[usize]) -> mlx::Result<Array> {
    let len: usize = shape.iter().product();
    let value = |i: usize| ((i * 37 + seed * 101 + i * i % 17) % 127) as f32 / 64.0 - 1.0;
    Array::from_slice(&(0..len).map(value).collect::<Vec<_>>(), shape)?.astype(DTYPE)
}

fn norm(kernels: &Kernels) -> Outcome {
    let (x, weight) = (numbers(1, &[3, 192])?, numbers(2, &[192])?);
    Ok((rms_norm(kernels, &x, &weight, EPS)?, fast::rms_norm(&x, Some(&weight), EPS)?))
}

fn norm_of_sum(kernels: &Kernels) -> Outcome {
    let (x, delta, weight) = (numbers(1, &[3, 192])?, numbers(2, &[3, 192])?, numbers(3, &[192])?);
    let (sum, normed) = add_rms_norm(kernels, &x, &delta, &weight, EPS)?;
    let expected = x.add(&delta)?;
    let expected_norm = fast::rms_norm(&expected, Some(&weight), EPS)?;
    Ok((
        Array::concatenate(&[&sum, &normed], 0)?,
        Array::concatenate(&[&expected, &expected_norm], 0)?,
    ))
}

fn gated_activation(kernels: &Kernels) -> Outcome {
    let x = numbers(4, &[3, 256])?;
    let (gate, up) =
        (x.slice(&[0, 0], &[3, 128], &[1, 1])?, x.slice(&[0, 128], &[3, 256], &[1, 1])?);
    Ok((silu_and_mul(kernels, &x)?, gate.multiply(&gate.sigmoid()?)?.multiply(&up)?))
}

fn bias(kernels: &Kernels) -> Outcome {
    let (x, bias) = (numbers(5, &[3, 96])?, numbers(6, &[96])?);
    Ok((add_bias(kernels, &x, &bias)?, x.add(&bias)?))
}

fn gated_sum(kernels: &Kernels) -> Outcome {
    let (x, values, gates) = (numbers(7, &[3, 96])?, numbers(8, &[3, 96])?, numbers(9, &[3, 1])?);
    let expected = x.add(&values.multiply(&gates.sigmoid()?)?)?;
    Ok((add_gated(kernels, &x, &values, &gates)?, expected))
}

fn embedding(kernels: &Kernels) -> Outcome {
    let packed = quantize(&numbers(10, &[8, 128])?, 64, 4, QuantMode::Affine)?;
    let (w, scales) = (&packed.weight, &packed.scales);
    let Some(biases) = &packed.biases else {
        return Err(KernelError::ElementType { dtype: scales.dtype() });
    };
    let ids = Array::from_slice(&[5_i32, 0, 7], &[3])?;
    let (dtype, scale_dtype) = (DTYPE, scales.dtype());
    let spec = EmbedSpec { width: 128, bits: 4, group_size: 64, dtype, scale_dtype };
    let ours = embed_packed(kernels, &spec, &ids, &QmvWeights { w, scales, biases })?;
    let all = dequantize(w, scales, Some(biases), 64, 4, QuantMode::Affine, Some(DTYPE))?;
    Ok((ours, all.take(&ids, 0)?))
}

/// Heads of 64, two of them for one of K and V, in pages of 4.
const SPEC: AttentionSpec = AttentionSpec {
    num_heads: 4,
    num_kv_heads: 2,
    head_dim: 64,
    page_size: 4,
    scale: 0.125,
    reach: Reach::ALL,
    soft_cap: None,
    has_sinks: false,
    dtype: DTYPE,
    kv_dtype: KvDtype::Plain(DTYPE),
};
/// Tokens of the one request: seven, in pages 2 and 0.
const LEN: usize = 7;
const SLOTS: [i32; LEN] = [8, 9, 10, 11, 0, 1, 2];

struct Pool {
    k: Array,
    v: Array,
    k_pool: Array,
    v_pool: Array,
    page_table: Array,
    chain: Array,
}

/// A pool that K and V of the request were written to in place.
fn pool(kernels: &Kernels) -> Result<Pool, KernelError> {
    let (k, v) = (numbers(11, &[LEN, 2, 64])?, numbers(12, &[LEN, 2, 64])?);
    let [k_pool, v_pool] = [(); 2].map(|()| Array::zeros(&[16, 2, 64], DTYPE));
    let (k_pool, v_pool) = (k_pool?, v_pool?);
    let after = Array::zeros(&[CHAIN_LEN], Dtype::Int32)?;
    mlx::eval(&[&k_pool, &v_pool, &after])?;
    let slots = Array::from_slice(&SLOTS, &[LEN])?;
    let inputs = KvWriteInputs {
        k: &k,
        v: &v,
        k_pool: &k_pool,
        v_pool: &v_pool,
        slots: &slots,
        after: &after,
    };
    let chain = kv_write(kernels, DTYPE.into(), &inputs)?;
    let page_table = Array::from_slice(&[2_i32, 0], &[1, 2])?;
    Ok(Pool { k, v, k_pool, v_pool, page_table, chain })
}

/// `rows` last queries over all keys, `[rows, 4 * 64]`.
fn expected(pool: &Pool, q: &Array, rows: usize) -> mlx::Result<Array> {
    let batch_of_one = |x: &Array| x.transpose(&[1, 0, 2])?.expand_dims(0);
    let (q, k, v) = (batch_of_one(q)?, batch_of_one(&pool.k)?, batch_of_one(&pool.v)?);
    let mask = SdpaMask::Causal;
    let out = scaled_dot_product_attention(&q, &k, &v, SPEC.scale, mask, None)?;
    out.squeeze(0)?.transpose(&[1, 0, 2])?.reshape(&[rows, 4 * 64])
}

fn decode(kernels: &Kernels) -> Outcome {
    let (pool, q) = (pool(kernels)?, numbers(13, &[1, 4, 64])?);
    let inputs = DecodeInputs {
        q: &q,
        k_pool: &pool.k_pool,
        v_pool: &pool.v_pool,
        page_table: &pool.page_table,
        seq_lens: &Array::from_slice(&[LEN as i32], &[1])?,
        sinks: None,
        chain: &pool.chain,
    };
    Ok((paged_decode(kernels, &SPEC, &inputs, LEN)?, expected(&pool, &q, 1)?))
}

fn extend(kernels: &Kernels) -> Outcome {
    const NEW: usize = 5;
    let (pool, q) = (pool(kernels)?, numbers(14, &[NEW, 4, 64])?);
    let one = |value: usize| Array::from_slice(&[value as i32], &[1]);
    let tiles = ExtendTiling::new(&SPEC)?.tiles(&[NEW]);
    let inputs = ExtendInputs {
        q: &q,
        k_pool: &pool.k_pool,
        v_pool: &pool.v_pool,
        page_table: &pool.page_table,
        starts: &one(0)?,
        new_lens: &one(NEW)?,
        prefix_lens: &one(LEN - NEW)?,
        tiles: &Array::from_slice(&tiles, &[tiles.len() / 2, 2])?,
        sinks: None,
        chain: &pool.chain,
    };
    let ours = paged_extend(kernels, &SPEC, &inputs)?.reshape(&[NEW, 4 * 64])?;
    Ok((ours, expected(&pool, &q, NEW)?))
}
