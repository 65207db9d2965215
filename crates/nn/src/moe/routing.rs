//! Routing that is more than a softmax and its largest: experts in groups of which a
//! token sees a few, sigmoid scores, a bias that chooses but does not weigh, a factor for
//! all experts or for each.
//!
//! Always MLX's operations: the router's kernels know the plain rule only. Experts of
//! groups that are left out have score -inf, not 0 as in the models' first releases, so
//! that a bias below zero cannot let them in.
//!
//! Upstream: `sglang/srt/layers/moe/topk.py` (`grouped_topk`, `biased_grouped_topk`).

use mlx::{Array, Dtype, Result};

use super::{Chosen, TopK};
use crate::LoadError;

/// What scores are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// A token's scores add up to one.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
}

impl Scoring {
    /// By the value of `scoring_func` in config.json.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn from_name(name: &str) -> Result<Self, LoadError> {
        match name {
            "softmax" => Ok(Self::Softmax),
            "sigmoid" => Ok(Self::Sigmoid),
            _ => Err(LoadError::Unsupported { what: "scoring_func", value: name.to_owned() }),
        }
    }
}

/// What a group of experts is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best expert: `group_limited_greedy`.
    Best,
    /// The sum of its two best: `noaux_tc`.
    BestTwo,
}

/// Groups of neighbouring experts, equally many in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertGroups {
    /// Groups (`n_group`).
    pub num_groups: usize,
    /// Groups that a token may choose from (`topk_group`).
    pub top_groups: usize,
    /// How those are found.
    pub score: GroupScore,
}

/// The rule by which [`TopK`] chooses, where it is not the plain one.
pub struct Routing {
    /// What scores are made of.
    pub scoring: Scoring,
    /// None: a token may choose from all experts.
    pub groups: Option<ExpertGroups>,
    /// `[num_experts]`, added to scores to choose, not to weigh
    /// (`e_score_correction_bias`).
    pub bias: Option<Array>,
    /// Weights are multiplied by this at the end (`routed_scaling_factor`).
    pub scale: f32,
    /// `[num_experts]`: each weight is multiplied by its expert's in the end
    /// (`per_expert_scale`).
    pub expert_scale: Option<Array>,
}

impl Routing {
    /// # Errors
    /// A number does not fit the others; the error names its field.
    pub(super) fn check(&self, top_k: usize, num_experts: usize) -> Result<(), LoadError> {
        let refuse = |what, value| Err(LoadError::Unsupported { what, value });
        if let Some(bias) = &self.bias
            && bias.shape() != [num_experts]
        {
            return refuse("shape of e_score_correction_bias", format!("{:?}", bias.shape()));
        }
        if let Some(scale) = &self.expert_scale
            && scale.shape() != [num_experts]
        {
            return refuse("shape of per_expert_scale", format!("{:?}", scale.shape()));
        }
        let Some(ExpertGroups { num_groups, top_groups, score }) = self.groups else {
            return Ok(());
        };
        if num_groups == 0 || !num_experts.is_multiple_of(num_groups) {
            return refuse("n_group", format!("{num_groups} for {num_experts} experts"));
        }
        if top_groups == 0 || top_groups > num_groups {
            return refuse("topk_group", format!("{top_groups} of {num_groups}"));
        }
        let group = num_experts / num_groups;
        if score == GroupScore::BestTwo && group < 2 {
            return refuse("n_group", format!("{num_groups} for {num_experts} experts"));
        }
        if top_k > top_groups * group {
            let value = format!("{top_k} of {} in topk_group groups", top_groups * group);
            return refuse("experts of a token", value);
        }
        Ok(())
    }

    /// By `logits`, `[num_tokens, num_experts]`.
    pub(super) fn choose(&self, top_k: TopK, logits: &Array) -> Result<Chosen> {
        let logits = logits.astype(Dtype::Float32)?;
        let scores = match self.scoring {
            Scoring::Softmax => logits.softmax(-1, true)?,
            Scoring::Sigmoid => logits.sigmoid()?,
        };
        let mut ranks = scores.clone();
        if let Some(bias) = &self.bias {
            ranks = ranks.add(&bias.astype(Dtype::Float32)?)?;
        }
        if let Some(groups) = self.groups {
            ranks = groups.leave_out(&ranks)?;
        }
        let Chosen { experts, weights } = top_k.pick(&ranks, &scores)?;
        let weights = weights.mul_scalar(self.scale)?;
        let Some(scale) = &self.expert_scale else {
            return Ok(Chosen { experts, weights });
        };
        let scale = scale.astype(Dtype::Float32)?.take(&experts, 0)?;
        Ok(Chosen { experts, weights: weights.multiply(&scale)? })
    }
}

impl ExpertGroups {
    /// `ranks` `[num_tokens, num_experts]` with -inf in all but a token's best groups.
    fn leave_out(self, ranks: &Array) -> Result<Array> {
        let left_out = self.num_groups - self.top_groups;
        if left_out == 0 {
            return Ok(ranks.clone());
        }
        let (rows, num_experts) = (ranks.dim(0), ranks.dim(1));
        let grouped = ranks.reshape(&[rows, self.num_groups, num_experts / self.num_groups])?;
        let groups = match self.score {
            GroupScore::Best => grouped.max(&[-1], false)?,
            GroupScore::BestTwo => grouped.topk(2, -1)?.sum(&[-1], false)?,
        };
        let worst = groups.argpartition(left_out as i32 - 1, -1)?;
        let worst = worst.slice(&[0, 0], &[rows as i32, left_out as i32], &[1, 1])?;
        let nothing = Array::full(&[rows, left_out], f32::NEG_INFINITY, Dtype::Float32)?;
        let mask = Array::zeros(&[rows, self.num_groups], Dtype::Float32)?;
        let mask = mask.put_along_axis(&worst, &nothing, -1)?.expand_dims(-1)?;
        grouped.add(&mask)?.reshape(&[rows, num_experts])
    }
}

#[cfg(test)]
mod tests;
