//! gpt-oss's experts: matrices with biases, and the clamped SwiGLU between them.
//!
//! In the MLX format they are three stacks with `bias` beside `weight`. As published, gates
//! and values are rows of one tensor by turns. What is packed has rows for outputs there
//! (`gate_up_proj.weight`, once blocks are joined); what is not has columns, as transformers
//! multiplies it (`gate_up_proj`).
//!
//! Upstream: `sglang/srt/models/gpt_oss.py` (`_load_mxfp4_experts_weights`,
//! `_load_normal_weights`).

use mlx::{Array, Result};

use super::{Between, Experts, FusedMoe, MoeDims, STACKS, TopK};
use crate::{LinearWeight, LoadError, Weights};

/// Added to what the products give.
pub(super) struct ExpertBiases {
    /// `[num_experts, 2 * inner]`.
    gate_up: Array,
    /// `[num_experts, hidden]`.
    down: Array,
}

impl FusedMoe {
    /// Takes experts with biases, `down(clamped_swiglu(gate_up(x)))`, gates kept below
    /// `limit` and values between `-limit` and it.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn load_clamped(
        w: &Weights,
        dims: MoeDims,
        top_k: TopK,
        limit: f32,
    ) -> std::result::Result<Self, LoadError> {
        let MoeDims { num_experts, hidden, inner } = dims;
        top_k.check(num_experts)?;
        let is_published = w.has("gate_up_proj_bias");
        let (gate_up, down) = match (is_published, w.has("gate_up_proj")) {
            (false, _) => (
                Experts::stacked(w, &STACKS[..2], num_experts, hidden, inner)?,
                Experts::stacked(w, &STACKS[2..], num_experts, inner, hidden)?,
            ),
            (true, false) => {
                (by_turns(w, dims)?, Experts::stacked(w, &STACKS[2..], num_experts, inner, hidden)?)
            }
            (true, true) => by_columns(w, dims)?,
        };
        let biases = match is_published {
            true => ExpertBiases::published(w, dims)?,
            false => ExpertBiases::stacked(w, dims)?,
        };
        let (routing, biases, between) = (None, Some(biases), Between::Clamped { limit });
        Ok(Self { top_k, routing, num_experts, gate_up, down, between, biases })
    }
}

impl ExpertBiases {
    fn stacked(w: &Weights, dims: MoeDims) -> std::result::Result<Self, LoadError> {
        let MoeDims { num_experts, hidden, inner } = dims;
        let take = |name: &str, width| w.at(name).take("bias", &[num_experts, width]);
        let [gate, up, down] = STACKS;
        let gate_up = Array::concatenate(&[&take(gate, inner)?, &take(up, inner)?], 1)?;
        gate_up.eval()?;
        Ok(Self { gate_up, down: take(down, hidden)? })
    }

    fn published(w: &Weights, dims: MoeDims) -> std::result::Result<Self, LoadError> {
        let MoeDims { num_experts, hidden, inner } = dims;
        let silent = w.silent();
        let gate_up = silent.take("gate_up_proj_bias", &[num_experts, 2 * inner])?;
        let gate_up = gates_first(&gate_up)?;
        gate_up.eval()?;
        let down = silent.take("down_proj_bias", &[num_experts, hidden])?;
        let halves = gate_up.split(2, 1)?;
        for (name, bias) in STACKS.iter().zip(halves.iter().chain([&down])) {
            w.at(name).report_bias(&bias.contiguous()?)?;
        }
        Ok(Self { gate_up, down })
    }

    /// To rows `[num_slots, 2 * inner]` of slots whose experts are `[num_slots]`.
    pub(super) fn add_to_gate_up(&self, rows: &Array, experts: &Array) -> Result<Array> {
        add(rows, &self.gate_up, experts)
    }

    /// To rows `[num_slots, hidden]`.
    pub(super) fn add_to_down(&self, rows: &Array, experts: &Array) -> Result<Array> {
        add(rows, &self.down, experts)
    }
}

fn add(rows: &Array, biases: &Array, experts: &Array) -> Result<Array> {
    rows.add(&biases.take(experts, 0)?)
}

/// Gates and values of packed experts, rows by turns.
fn by_turns(w: &Weights, dims: MoeDims) -> std::result::Result<Experts, LoadError> {
    let MoeDims { num_experts, hidden, inner } = dims;
    let turns = w.at("gate_up_proj").silent();
    let turns = turns.stacked_linear_parts(num_experts, hidden, 2 * inner)?;
    let sorted = turns.map(gates_first)?;
    drop(turns);
    for (name, half) in STACKS.iter().zip([0, 1]) {
        let half = sorted.map(|part| part.split(2, 1)?[half].contiguous())?;
        w.at(name).report(&half)?;
    }
    Experts::new(Some(sorted), w)
}

/// Experts that are not packed, `gate_up_proj` `[num_experts, hidden, 2 * inner]` and
/// `down_proj` `[num_experts, inner, hidden]`.
fn by_columns(w: &Weights, dims: MoeDims) -> std::result::Result<(Experts, Experts), LoadError> {
    let MoeDims { num_experts, hidden, inner } = dims;
    let silent = w.silent();
    let gate_up = silent.take("gate_up_proj", &[num_experts, hidden, 2 * inner])?;
    let gate_up = gates_first(&gate_up.transpose(&[0, 2, 1])?)?;
    let halves = gate_up.split(2, 1)?;
    let part = |name: &str, half: &Array| w.at(name).derived(&half.contiguous()?);
    let halves = [part(STACKS[0], &halves[0])?, part(STACKS[1], &halves[1])?];
    let down = silent.take("down_proj", &[num_experts, inner, hidden])?;
    let down = part(STACKS[2], &down.transpose(&[0, 2, 1])?)?;
    let gate_up = LinearWeight::stacked_along(1, &halves)?;
    Ok((Experts::new(gate_up, w)?, Experts::new(Some(down), w)?))
}

/// `[num_experts, 2 * inner, ...]` by turns to gates, then values. Computed.
fn gates_first(turns: &Array) -> Result<Array> {
    let shape = turns.shape();
    let pairs = [&[shape[0], shape[1] / 2, 2], &shape[2..]].concat();
    let sorted = turns.reshape(&pairs)?.swapaxes(1, 2)?.reshape(&shape)?.contiguous()?;
    sorted.eval()?;
    Ok(sorted)
}

#[cfg(test)]
mod tests;
