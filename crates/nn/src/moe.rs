//! Mixture of experts: a router picks a few experts for each token, and their
//! results are added up.
//!
//! On CUDA a decode step takes kernels that read each chosen expert once, on the CPU
//! every step does. Elsewhere, and for prompts, MLX's gathered products do: rows in the
//! order of their experts if there are many, so that each expert's matrix is read once.
//!
//! Upstream: `sglang/srt/layers/moe/` (`topk.py`, `fused_moe_triton/layer.py`).

use std::rc::Rc;

use kernels::{Kernels, TopKSpec, cpu, moe_sum, moe_topk, qmm_few};
use mlx::{Array, Dtype, Result};

use crate::{
    Activation, LinearWeight, LoadError, Weights,
    activation::clamped_swiglu,
    device::{on_cpu, on_cuda},
};

mod biased;
mod experts;
mod routing;

use biased::ExpertBiases;
use experts::{Axes, Experts};
pub use routing::{ExpertGroups, GroupScore, Routing, Scoring};

/// Gate, up and down of stacked experts, in the MLX format.
const STACKS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Rows of a gathered product from which sorting them by expert pays.
const SORTED_ROWS: usize = 64;

/// Which experts a token gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopK {
    /// Experts of a token.
    pub top_k: usize,
    /// Whether the weights of a token's experts add up to one.
    pub renormalize: bool,
}

/// Experts of each token, and their weights.
struct Chosen {
    /// `[num_tokens, top_k]` int32, or flat.
    experts: Array,
    /// As `experts`, f32.
    weights: Array,
}

impl Chosen {
    /// Experts and weights of all tokens in a row.
    fn by_slot(self) -> Result<(Array, Array)> {
        Ok((self.experts.flatten(0, 1)?, self.weights.flatten(0, 1)?))
    }
}

impl TopK {
    fn check(self, num_experts: usize) -> Result<(), LoadError> {
        if (1..=num_experts).contains(&self.top_k) {
            return Ok(());
        }
        let value = format!("{} of {num_experts}", self.top_k);
        Err(LoadError::Unsupported { what: "experts of a token", value })
    }

    /// Softmax over `logits` `[num_tokens, num_experts]`, then the largest.
    fn choose(self, logits: &Array) -> Result<Chosen> {
        let probs = logits.astype(Dtype::Float32)?.softmax(-1, true)?;
        self.pick(&probs, &probs)
    }

    /// The experts of the largest `ranks`, weighed by their `scores`; both are
    /// `[num_tokens, num_experts]` f32.
    fn pick(self, ranks: &Array, scores: &Array) -> Result<Chosen> {
        let (rows, num_experts) = (ranks.dim(0) as i32, ranks.dim(1) as i32);
        let first = num_experts - self.top_k as i32;
        let order = ranks.argpartition(first, -1)?;
        let experts = order.slice(&[0, first], &[rows, num_experts], &[1, 1])?;
        let mut weights = scores.take_along_axis(&experts, -1)?;
        if self.renormalize {
            weights = weights.divide(&weights.sum(&[-1], true)?)?;
        }
        Ok(Chosen { experts: experts.astype(Dtype::Int32)?, weights })
    }
}

/// What rows of an expert's first products become before the last one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Between {
    /// `act(gate) * value`.
    Gated(Activation),
    /// `act(value)`.
    Ungated(Activation),
    /// [`clamped_swiglu`].
    Clamped { limit: f32 },
}

/// The experts of a layer: MLPs of one shape, most often gated.
pub struct FusedMoe {
    top_k: TopK,
    /// None: the plain rule, which has kernels.
    routing: Option<Routing>,
    num_experts: usize,
    /// Gates and values, or values alone.
    gate_up: Experts,
    down: Experts,
    between: Between,
    biases: Option<ExpertBiases>,
}

/// Sizes of a [`FusedMoe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoeDims {
    /// Experts.
    pub num_experts: usize,
    /// Width of hidden states.
    pub hidden: usize,
    /// Width inside an expert.
    pub inner: usize,
}

impl FusedMoe {
    /// Takes the experts: stacked ones at `stacked`, or one module each at `single`
    /// (`single.0`, ...), or gates and values of all in one tensor there. `names` are
    /// gate, up and down of single ones.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load(
        (stacked, single): (&Weights, &Weights),
        names: [&str; 3],
        dims: MoeDims,
        top_k: TopK,
        act: Activation,
    ) -> Result<Self, LoadError> {
        let MoeDims { num_experts, hidden, inner } = dims;
        top_k.check(num_experts)?;
        let [gate, up, down]: [_; 3] = std::array::from_fn(|part| (names[part], STACKS[part]));
        if single.has("gate_up_proj") {
            let sizes = [num_experts, hidden, inner];
            let [gate_up, down] =
                Experts::fused((stacked, single), STACKS, sizes, Axes::OutputsFirst)?;
            let between = Between::Gated(act);
            return Ok(Self::unbiased(top_k, num_experts, (gate_up, between, down)));
        }
        let matrices = |names: &[(&str, &str)], in_dims, out_dims| {
            if single.is_empty() || !stacked.is_empty() {
                let names: Vec<&str> = names.iter().map(|name| name.1).collect();
                Experts::stacked(stacked, &names, num_experts, in_dims, out_dims)
            } else {
                Experts::single((stacked, single), names, num_experts, in_dims, out_dims)
            }
        };
        let gate_up = matrices(&[gate, up], hidden, inner)?;
        let down = matrices(&[down], inner, hidden)?;
        Ok(Self::unbiased(top_k, num_experts, (gate_up, Between::Gated(act), down)))
    }

    /// By the plain rule.
    fn unbiased(
        top_k: TopK,
        num_experts: usize,
        (gate_up, between, down): (Experts, Between, Experts),
    ) -> Self {
        Self { top_k, routing: None, num_experts, gate_up, down, between, biases: None }
    }

    /// Of a stack each of gates, values and the matrices behind them, which were taken at
    /// `w`.
    ///
    /// # Errors
    /// They are not packed alike, or `top_k` is more than there are.
    pub fn from_stacks(
        [gate, up, down]: [LinearWeight; 3],
        w: &Weights,
        dims: MoeDims,
        top_k: TopK,
        act: Activation,
    ) -> Result<Self, LoadError> {
        top_k.check(dims.num_experts)?;
        let gate_up = Experts::new(LinearWeight::stacked_along(1, &[gate, up])?, w)?;
        let down = Experts::new(Some(down), w)?;
        Ok(Self::unbiased(top_k, dims.num_experts, (gate_up, Between::Gated(act), down)))
    }

    /// As [`FusedMoe::load`] of stacked experts, or of `gate_up_proj` `[num_experts, hidden,
    /// 2 * inner]` and `down_proj` `[num_experts, inner, hidden]`: inputs before outputs, as
    /// Llama 4's are published.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_inputs_first(
        w: &Weights,
        names: [&str; 3],
        dims: MoeDims,
        top_k: TopK,
        act: Activation,
    ) -> Result<Self, LoadError> {
        // Stacked ones are modules of their own, with a `weight` each.
        if !w.has("gate_up_proj") && !w.has("down_proj") {
            return Self::load((w, w), names, dims, top_k, act);
        }
        let MoeDims { num_experts, hidden, inner } = dims;
        top_k.check(num_experts)?;
        let sizes = [num_experts, hidden, inner];
        let [gate_up, down] = Experts::fused((w, w), names, sizes, Axes::InputsFirst)?;
        Ok(Self::unbiased(top_k, num_experts, (gate_up, Between::Gated(act), down)))
    }

    /// Experts without gates, `down(act(up(x)))`: stacked ones, `fc1` and `fc2`, or one
    /// module each with `up_proj` and `down_proj`.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_ungated(
        (stacked, single): (&Weights, &Weights),
        dims: MoeDims,
        top_k: TopK,
        act: Activation,
    ) -> Result<Self, LoadError> {
        let MoeDims { num_experts, hidden, inner } = dims;
        top_k.check(num_experts)?;
        let matrix = |name, stacked_name, in_dims, out_dims| match single.is_empty() {
            true => Experts::stacked(stacked, &[stacked_name], num_experts, in_dims, out_dims),
            false => {
                let names = [(name, stacked_name)];
                Experts::single((stacked, single), &names, num_experts, in_dims, out_dims)
            }
        };
        let up = matrix("up_proj", "fc1", hidden, inner)?;
        let down = matrix("down_proj", "fc2", inner, hidden)?;
        Ok(Self::unbiased(top_k, num_experts, (up, Between::Ungated(act), down)))
    }

    /// Chooses by `routing` in place of softmax and the largest.
    ///
    /// # Errors
    /// A number does not fit the others; the error names its field.
    pub fn with_routing(self, routing: Routing) -> Result<Self, LoadError> {
        routing.check(self.top_k.top_k, self.num_experts)?;
        Ok(Self { routing: Some(routing), ..self })
    }

    /// `x` `[num_tokens, hidden]` and the router's `logits` `[num_tokens,
    /// num_experts]` to `[num_tokens, hidden]`.
    ///
    /// # Errors
    /// Those of MLX.
    pub fn forward(&self, x: &Array, logits: &Array) -> Result<Array> {
        if let Some(kernels) = self.kernels(x, logits) {
            let fused = |x: &Array, logits: &Array| self.forward_fused(&kernels, x, logits);
            return in_pieces(self.rows_of_kernels(), x, logits, fused);
        }
        if on_cpu()? && self.gate_up.has_cpu_kernel() && self.down.has_cpu_kernel() {
            return self.forward_on_cpu(x, logits);
        }
        self.forward_by_mlx(x, logits)
    }

    /// A token's result does not depend on the others, bit by bit.
    fn forward_on_cpu(&self, x: &Array, logits: &Array) -> Result<Array> {
        let TopK { top_k, renormalize } = self.top_k;
        let (experts, weights) = match &self.routing {
            None => cpu::moe::moe_topk(logits, top_k, renormalize)?,
            Some(routing) => routing.choose(self.top_k, logits)?.by_slot()?,
        };
        let inner = self.activate(&self.gate_up.gather_on_cpu(x, &experts)?, &experts)?;
        let out = self.with_bias(self.down.gather_on_cpu(&inner, &experts)?, &experts)?;
        cpu::moe::moe_sum(&out, &weights, top_k)
    }

    fn forward_by_mlx(&self, x: &Array, logits: &Array) -> Result<Array> {
        let chosen = match &self.routing {
            None => self.top_k.choose(logits)?,
            Some(routing) => routing.choose(self.top_k, logits)?,
        };
        let slots = x.dim(0) * self.top_k.top_k;
        let out = match slots < SORTED_ROWS {
            true => self.forward_in_order(x, &chosen.experts)?,
            false => self.forward_sorted(x, &chosen.experts)?,
        };
        let weights = chosen.weights.expand_dims(-1)?;
        out.astype(Dtype::Float32)?.multiply(&weights)?.sum(&[1], false)?.astype(x.dtype())
    }

    /// `[num_tokens, top_k, hidden]`, one product for each token and expert.
    fn forward_in_order(&self, x: &Array, experts: &Array) -> Result<Array> {
        let x = x.expand_dims(1)?.expand_dims(1)?;
        let (tokens, top_k) = (x.dim(0), self.top_k.top_k);
        let slots = experts.reshape(&[tokens * top_k])?;
        let inner = self.gate_up.matmul(&x, experts, false)?;
        let inner = self.activate(&inner.reshape(&[tokens * top_k, inner.dim(-1)])?, &slots)?;
        let inner = inner.reshape(&[tokens, top_k, 1, inner.dim(1)])?;
        let out = self.down.matmul(&inner, experts, false)?;
        let out = self.with_bias(out.reshape(&[tokens * top_k, out.dim(-1)])?, &slots)?;
        out.reshape(&[tokens, top_k, out.dim(1)])
    }

    /// The same with rows in the order of their experts.
    fn forward_sorted(&self, x: &Array, experts: &Array) -> Result<Array> {
        let (tokens, top_k) = (x.dim(0), self.top_k.top_k);
        let flat = experts.reshape(&[tokens * top_k])?;
        let order = flat.argsort(-1)?;
        let back = order.argsort(-1)?;
        let rows = order.astype(Dtype::Int32)?.floor_divide(&Array::scalar(top_k as i32)?)?;
        let sorted = flat.take(&order, 0)?;
        let x = x.take(&rows, 0)?.expand_dims(1)?;
        let inner = self.gate_up.matmul(&x, &sorted, true)?.squeeze(1)?;
        let inner = self.activate(&inner, &sorted)?.expand_dims(1)?;
        let out = self.with_bias(self.down.matmul(&inner, &sorted, true)?.squeeze(1)?, &sorted)?;
        out.take(&back, 0)?.reshape(&[tokens, top_k, out.dim(1)])
    }

    /// Results of the first products to rows of the second, of slots with these `experts`.
    fn activate(&self, rows: &Array, experts: &Array) -> Result<Array> {
        let biased = self.biases.as_ref().map(|biases| biases.add_to_gate_up(rows, experts));
        let biased = biased.transpose()?;
        let rows = biased.as_ref().unwrap_or(rows);
        match self.between {
            Between::Gated(act) => act.and_mul(rows),
            Between::Ungated(act) => act.apply(rows),
            Between::Clamped { limit } => clamped_swiglu(rows, limit),
        }
    }

    /// Results of the second products.
    fn with_bias(&self, rows: Array, experts: &Array) -> Result<Array> {
        match &self.biases {
            Some(biases) => biases.add_to_down(&rows, experts),
            None => Ok(rows),
        }
    }

    /// Tokens that our kernels take at a time.
    fn rows_of_kernels(&self) -> usize {
        qmm_few::MAX_ROWS.min(qmm_few::MAX_SLOTS / self.top_k.top_k)
    }

    /// If our kernels know these experts. Prompts too are theirs on CUDA, piece by piece:
    /// MLX's product for rows in the order of their experts gives wrong rows there, and
    /// the one for rows in any order reads a matrix for each.
    fn kernels(&self, x: &Array, logits: &Array) -> Option<Rc<Kernels>> {
        let is_known = on_cuda()
            && !matches!(self.between, Between::Gated(act) if act != Activation::Silu)
            && self.rows_of_kernels() > 0
            && (self.routing.is_some() || moe_topk::supports(&self.top_k_spec(), logits.dtype()))
            && self.gate_up.has_kernel(x.dtype())
            && self.down.has_kernel(x.dtype());
        is_known.then(Kernels::here).flatten()
    }

    fn top_k_spec(&self) -> TopKSpec {
        let TopK { top_k, renormalize } = self.top_k;
        TopKSpec { num_experts: self.num_experts, top_k, renormalize }
    }

    fn forward_fused(&self, kernels: &Kernels, x: &Array, logits: &Array) -> Result<Array> {
        let top_k = self.top_k.top_k;
        let (experts, weights) = match &self.routing {
            None => moe_topk(kernels, &self.top_k_spec(), logits)?,
            Some(routing) => routing.choose(self.top_k, logits)?.by_slot()?,
        };
        let inner = self.gate_up.gather(kernels, x, &experts, top_k)?;
        let inner = self.activate(&inner, &experts)?;
        let slots = self.down.gather(kernels, &inner, &experts, 1)?;
        let slots = self.with_bias(slots, &experts)?;
        Ok(moe_sum(kernels, &slots, &weights, top_k)?)
    }
}

/// `forward` over rows of `x` and `logits`, no more than `most` at a time.
fn in_pieces(
    most: usize,
    x: &Array,
    logits: &Array,
    forward: impl Fn(&Array, &Array) -> Result<Array>,
) -> Result<Array> {
    let num_rows = x.dim(0);
    if num_rows <= most {
        return forward(x, logits);
    }
    let rows = |of: &Array, first: usize, end: usize| {
        of.slice(&[first as i32, 0], &[end as i32, of.dim(1) as i32], &[1, 1])
    };
    let pieces = (0..num_rows)
        .step_by(most)
        .map(|first| {
            let end = (first + most).min(num_rows);
            forward(&rows(x, first, end)?, &rows(logits, first, end)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Array::concatenate(&pieces.iter().collect::<Vec<_>>(), 0)
}

/// What experts gave, and as much of what the shared one did as its gate lets through:
/// `x + shared * sigmoid(gates)`, `[num_tokens, hidden]`, `gates` `[num_tokens, 1]`.
///
/// # Errors
/// Those of MLX.
pub fn add_gated(x: &Array, shared: &Array, gates: &Array) -> Result<Array> {
    if !on_cpu()?
        && (shared.dtype(), gates.dtype()) == (x.dtype(), x.dtype())
        && kernels::add_gated::supports(x.dim(1), x.dtype())
        && let Some(kernels) = Kernels::here()
    {
        return Ok(kernels::add_gated(&kernels, x, shared, gates)?);
    }
    x.add(&shared.multiply(&gates.sigmoid()?)?)
}

#[cfg(test)]
mod tests;
