//! Times paged attention on the CPU device: bytes of K and V per second in
//! decode, operations per second in extend. `docs/notes/cpu-attention.md` has
//! figures.
//!
//! `cargo run --release -p kernels --example cpu_attention`
#![expect(clippy::print_stdout, reason = "its results are for a reader")]

use std::{sync::Arc, time::Instant};

use kernels::cpu::attention::{
    AttentionInputs, AttentionParams, AttentionPlan, AttentionSeq, paged_attention,
};
use mlx::{
    Array, Dtype, Result,
    device::{self, DeviceKind},
};

const PAGE_SIZE: usize = 16;

/// Query heads, K/V heads, width of a head.
const SHAPES: [(&str, [usize; 3]); 2] =
    [("SmolLM2-135M", [9, 3, 64]), ("Llama-3.1-8B", [32, 8, 128])];

struct Case {
    params: Arc<AttentionParams>,
    /// Requests, rows of each, tokens before them.
    step: [usize; 3],
    dtype: Dtype,
}

impl Case {
    fn new(
        [num_heads, num_kv_heads, head_dim]: [usize; 3],
        step: [usize; 3],
        dtype: Dtype,
    ) -> Self {
        let scale = (head_dim as f32).sqrt().recip();
        let params =
            AttentionParams { num_heads, num_kv_heads, head_dim, scale, ..Default::default() };
        Self { params: Arc::new(params), step, dtype }
    }

    /// Seconds of a call: the median of several.
    fn seconds(&self) -> Result<f64> {
        let [num_reqs, len, prefix_len] = self.step;
        let AttentionParams { num_heads, num_kv_heads, head_dim, .. } = *self.params;
        let pages_each = (prefix_len + len).div_ceil(PAGE_SIZE);
        let num_slots = num_reqs * pages_each * PAGE_SIZE;
        let seq = |index: usize| AttentionSeq {
            start: index * len,
            len,
            prefix_len,
            // Pages of all requests in turn, as they come when requests grow together.
            pages: (0..pages_each).map(|page| (page * num_reqs + index) as u32).collect(),
        };
        let seqs: Vec<_> = (0..num_reqs).map(seq).collect();
        let slot = |seq: &AttentionSeq, token: usize| {
            seq.pages[token / PAGE_SIZE] as i32 * PAGE_SIZE as i32 + (token % PAGE_SIZE) as i32
        };
        let slots: Vec<i32> = seqs
            .iter()
            .flat_map(|seq| (prefix_len..prefix_len + len).map(|token| slot(seq, token)))
            .collect();
        let slots = Array::from_slice(&slots, &[slots.len()])?;
        let plan = Arc::new(AttentionPlan { seqs, page_size: PAGE_SIZE });
        let random = |shape: &[usize], dtype| -> Result<Array> {
            let array = mlx::random::normal(shape, Dtype::Float32, None)?.astype(dtype)?;
            array.eval()?;
            Ok(array)
        };
        let kv_pool = [num_slots, num_kv_heads, head_dim];
        let (k_pool, v_pool) = (random(&kv_pool, self.dtype)?, random(&kv_pool, self.dtype)?);
        let q = random(&[num_reqs * len, num_heads, head_dim], Dtype::Float32)?;
        let kv = random(&[num_reqs * len, num_kv_heads, head_dim], Dtype::Float32)?;
        let inputs = AttentionInputs {
            q: &q,
            k: &kv,
            v: &kv,
            slots: &slots,
            k_pool: &k_pool,
            v_pool: &v_pool,
            writes: true,
        };
        let begin = Instant::now();
        let mut times = Vec::new();
        while times.len() < 5 || begin.elapsed().as_secs_f64() < 0.4 {
            let start = Instant::now();
            paged_attention(&self.params, &plan, inputs)?.eval()?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// Bytes of K and V that a step reads.
    fn kv_bytes(&self) -> f64 {
        let [num_reqs, len, prefix_len] = self.step;
        let AttentionParams { num_kv_heads, head_dim, .. } = *self.params;
        let elements = 2 * num_reqs * (prefix_len + len) * num_kv_heads * head_dim;
        (elements * self.dtype.size_in_bytes()) as f64
    }

    /// Multiplications and additions of the two products, the causal part only.
    fn operations(&self) -> f64 {
        let [num_reqs, len, prefix_len] = self.step;
        let pairs = num_reqs * (len * prefix_len + len * (len + 1) / 2);
        (4 * pairs * self.params.num_heads * self.params.head_dim) as f64
    }
}

fn main() -> Result<()> {
    device::set_default(DeviceKind::Cpu)?;
    println!(
        "{} threads, {:?}",
        kernels::cpu::parallel::num_threads(),
        kernels::cpu::isa::Isa::detect()
    );
    for (name, shape) in SHAPES {
        for dtype in [Dtype::Float32, Dtype::Bfloat16, Dtype::Float16] {
            println!("{name}, pool of {dtype}");
            for (num_reqs, context) in [(1, 128), (1, 2048), (1, 16384), (8, 512), (8, 2048)] {
                let case = Case::new(shape, [num_reqs, 1, context - 1], dtype);
                let seconds = case.seconds()?;
                println!(
                    "  decode {num_reqs} x {context:5}: {:9.1} us, {:5.1} GB/s",
                    seconds * 1e6,
                    case.kv_bytes() / seconds / 1e9
                );
            }
            for prefix_len in [0, 2048, 7500] {
                let case = Case::new(shape, [1, 512, prefix_len], dtype);
                let seconds = case.seconds()?;
                println!(
                    "  extend 512 after {prefix_len:4}: {:7.2} ms, {:5.1} GFLOP/s",
                    seconds * 1e3,
                    case.operations() / seconds / 1e9
                );
            }
        }
    }
    Ok(())
}
