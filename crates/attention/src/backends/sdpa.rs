//! Gather through the page tables, then MLX's fused attention: runs on every
//! device and is what other backends are measured against.
//!
//! Decode makes one padded call for requests of similar length; extend makes
//! one call a request. Index arrays and masks are made once a step.
//!
//! Upstream: `sglang/srt/layers/attention/torch_native_backend.py`.

use std::rc::Rc;

use kernels::Reach;
use mlx::{
    Array, Result,
    device::{self, DeviceKind},
    fast::SdpaMask,
};

use crate::{
    AttentionBackend, AttentionCall, AttentionShape, CacheKind, ForwardMetadata, ForwardMode, Qkv,
    SlotIndex, StepLayout, registry::BackendEntry,
};

mod plan;
mod scores;
#[cfg(test)]
mod tests;

use plan::{DecodeGroup, DecodePlan, Mask};

pub(super) use plan::ExtendSeq;

pub(crate) const ENTRY: BackendEntry = BackendEntry {
    name: "sdpa",
    supports: |layers| layers.iter().all(is_known),
    reads_packed: false,
    new: |layers, _| Rc::new(Sdpa::new(layers)),
};

/// Elements of K that one decode call gathers on the CPU. Larger temporaries
/// come fresh from the system each time, and cost more than the calls that one
/// call saves (figures in docs/notes/attention-sdpa.md).
const MAX_GATHER_ON_CPU: usize = 1 << 20;

/// Scores that a call over latents computes at most: no kernel of MLX's attends with keys
/// so wide, so they exist. 16 heads, 2048 queries, 2048 keys.
pub const MAX_LATENT_SCORES: usize = if cfg!(test) { 1 << 9 } else { 1 << 26 };

fn is_known(layer: &AttentionShape) -> bool {
    match layer.cache {
        CacheKind::Full => true,
        CacheKind::Latent { .. } => layer.reach() == Reach::ALL && layer.num_kv_heads == 1,
    }
}

struct Sdpa {
    /// Distinct reaches of the model's layers.
    reaches: Vec<Reach>,
    /// In decode, query heads of one K/V head are passed as queries of it: they
    /// see the same keys. On the CPU this makes one product of several rows out
    /// of several that each read all keys; GPU kernels know about groups.
    folded: bool,
    /// Keys that one decode call gathers at most, over all its requests.
    max_group_keys: usize,
}

/// The plan of a step, for each reach of the model.
struct SdpaMetadata {
    plans: Vec<(Reach, Plan)>,
}

enum Plan {
    Extend(Vec<ExtendSeq>),
    Decode(DecodePlan),
}

impl Sdpa {
    fn new(layers: &[AttentionShape]) -> Self {
        let widest = layers.iter().map(|layer| layer.num_kv_heads * layer.head_dim).max();
        let folded = device::default().is_ok_and(|device| device == DeviceKind::Cpu);
        let mut reaches: Vec<_> = layers.iter().map(AttentionShape::reach).collect();
        reaches.sort_unstable();
        reaches.dedup();
        let limit =
            if folded { MAX_GATHER_ON_CPU / widest.unwrap_or(1).max(1) } else { usize::MAX };
        Self { reaches, folded, max_group_keys: limit }
    }
}

impl AttentionBackend for Sdpa {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn init_forward_metadata(&self, step: &StepLayout<'_>) -> Result<ForwardMetadata> {
        let plan = |&reach: &Reach| {
            let plan = match step.mode {
                ForwardMode::Extend => Plan::Extend(ExtendSeq::plan(step, reach)?),
                ForwardMode::Decode => {
                    Plan::Decode(DecodePlan::new(step, reach, self.max_group_keys)?)
                }
            };
            Ok((reach, plan))
        };
        let reaches = self.reaches.iter().filter(|&&reach| step.layers.has(reach));
        let plans = reaches.map(plan).collect::<Result<_>>()?;
        Ok(ForwardMetadata::new(SdpaMetadata { plans }))
    }

    fn forward_extend(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let Plan::Extend(seqs) = plan_of(call) else {
            unreachable!("the mode of a step does not change");
        };
        write(call, qkv)?;
        let gather = |slots: &_| gather(call, slots);
        let outs = seqs
            .iter()
            .map(|seq| match call.shape.cache {
                CacheKind::Full => extend_one((call, qkv), seq, gather),
                CacheKind::Latent { .. } => extend_latents((call, qkv), seq, gather),
            })
            .collect::<Result<Vec<_>>>()?;
        one_below_the_other(&outs)
    }

    fn forward_decode(&self, call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<Array> {
        let Plan::Decode(plan) = plan_of(call) else {
            unreachable!("the mode of a step does not change");
        };
        write(call, qkv)?;
        let outs = plan.groups.iter().map(|group| decode_group(call, qkv.q, group, self.folded));
        let out = one_below_the_other(&outs.collect::<Result<Vec<_>>>()?)?;
        match &plan.restore {
            Some(order) => out.take(order, 0),
            None => Ok(out),
        }
    }
}

fn plan_of<'a>(call: &AttentionCall<'a>) -> &'a Plan {
    let metadata: &SdpaMetadata = call.metadata.get();
    let reach = call.shape.reach();
    let found = metadata.plans.iter().find(|(planned, _)| *planned == reach);
    &found.expect("the backend was made for the layers of this model").1
}

fn write(call: &AttentionCall<'_>, qkv: &Qkv<'_>) -> Result<()> {
    if call.reads_only {
        return Ok(());
    }
    let mut pool = call.kv_pool.borrow_mut();
    pool.write(call.shape.layer_id, call.out_cache_loc, qkv.k, qkv.v)
}

/// Keys and values in some slots.
fn gather(call: &AttentionCall<'_>, slots: &SlotIndex) -> Result<(Array, Array)> {
    call.kv_pool.borrow().layer(call.shape.layer_id).gather(slots)
}

/// Rows of one request, `[len, num_heads, head_dim]`. `gather` gives the keys and
/// values in some slots, this step's among them.
pub(super) fn extend_one(
    (call, qkv): (&AttentionCall<'_>, &Qkv<'_>),
    seq: &ExtendSeq,
    gather: impl Fn(&SlotIndex) -> Result<(Array, Array)>,
) -> Result<Array> {
    let (k, v) = keys_and_values(qkv, seq, gather)?;
    let q = batch_of_one(&rows(qkv.q, seq.start, seq.len)?)?;
    let out = scores::attend(call, &q, (&k, &v), seq.mask.as_sdpa())?;
    out.squeeze(0)?.transpose(&[1, 0, 2])
}

/// The same over latents, whose scores exist: by as many queries at a time as keep them
/// few.
fn extend_latents(
    (call, qkv): (&AttentionCall<'_>, &Qkv<'_>),
    seq: &ExtendSeq,
    gather: impl Fn(&SlotIndex) -> Result<(Array, Array)>,
) -> Result<Array> {
    let (k, v) = keys_and_values(qkv, seq, gather)?;
    let num_keys = k.dim(2);
    let block = (MAX_LATENT_SCORES / (call.shape.num_heads * num_keys)).clamp(1, seq.len);
    let prefix_len = num_keys - seq.len;
    let attend = |first: usize| {
        let len = block.min(seq.len - first);
        let keys = |x: &Array| {
            let stops = [1, 1, (prefix_len + first + len) as i32, x.dim(3) as i32];
            x.slice(&[0; 4], &stops, &[1; 4])
        };
        let q = batch_of_one(&rows(qkv.q, seq.start + first, len)?)?;
        // Queries are the last keys.
        let mask = if len == 1 { SdpaMask::None } else { SdpaMask::Causal };
        let (k, v) = (keys(&k)?, keys(&v)?);
        let out = scores::attend(call, &q, (&k, &v), mask)?;
        out.squeeze(0)?.transpose(&[1, 0, 2])
    };
    one_below_the_other(&(0..seq.len).step_by(block).map(attend).collect::<Result<Vec<_>>>()?)
}

/// What a request's rows of this step see.
fn keys_and_values(
    qkv: &Qkv<'_>,
    seq: &ExtendSeq,
    gather: impl Fn(&SlotIndex) -> Result<(Array, Array)>,
) -> Result<(Array, Array)> {
    let own = |x: &Array| batch_of_one(&rows(x, seq.start, seq.len)?);
    match &seq.slots {
        Some(slots) => gather(slots),
        // No prefix: the step's own keys are all there are.
        None => Ok((own(qkv.k)?, own(qkv.v)?)),
    }
}

fn one_below_the_other(outs: &[Array]) -> Result<Array> {
    match outs {
        [out] => Ok(out.clone()),
        outs => Array::concatenate(&outs.iter().collect::<Vec<_>>(), 0),
    }
}

/// Rows of the requests of a group, in the group's order.
fn decode_group(
    call: &AttentionCall<'_>,
    q: &Array,
    group: &DecodeGroup,
    folded: bool,
) -> Result<Array> {
    let q = match &group.rows {
        Some(rows) => q.take(rows, 0)?,
        None => q.clone(),
    };
    let AttentionShape { num_heads, num_kv_heads, head_dim, .. } = *call.shape;
    let (k, v) = gather(call, &group.slots)?;
    let per_kv_head = num_heads / num_kv_heads;
    // A sink belongs to a head, which a folded query is not.
    let q = if folded && call.sinks.is_none() {
        q.reshape(&[group.num_reqs, num_kv_heads, per_kv_head, head_dim])?
    } else {
        q.expand_dims(2)?
    };
    let out = scores::attend(call, &q, (&k, &v), group.mask.as_sdpa())?;
    out.reshape(&[group.num_reqs, num_heads, call.shape.value_dim()])
}

/// `[tokens, heads, head_dim]` to `[1, heads, tokens, head_dim]`.
fn batch_of_one(x: &Array) -> Result<Array> {
    x.transpose(&[1, 0, 2])?.expand_dims(0)
}

fn rows(x: &Array, start: usize, len: usize) -> Result<Array> {
    if start == 0 && len == x.dim(0) {
        return Ok(x.clone());
    }
    let (start, stop) = (start as i32, (start + len) as i32);
    x.slice(&[start, 0, 0], &[stop, x.dim(1) as i32, x.dim(2) as i32], &[1, 1, 1])
}

impl Mask {
    fn as_sdpa(&self) -> SdpaMask<'_> {
        match self {
            Self::None => SdpaMask::None,
            Self::Causal => SdpaMask::Causal,
            Self::Array(mask) => SdpaMask::Array(mask),
        }
    }
}
