//! Recipes that give some matrices more bits than others.
//!
//! Upstream: `mlx_lm/convert.py`, `mixed_quant_predicate_builder`.

use std::{fmt, str::FromStr};

use nn::{QuantChoice, QuantSpec};

/// More bits for the matrices whose rounding hurts most: values and down projections
/// of the first, the last and every third layer between, and the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedRecipe {
    low: usize,
    high: usize,
}

/// Names of the recipes: bits of most matrices, and of those.
const RECIPES: [(&str, MixedRecipe); 4] = [
    ("mixed_2_6", MixedRecipe { low: 2, high: 6 }),
    ("mixed_3_4", MixedRecipe { low: 3, high: 4 }),
    ("mixed_3_6", MixedRecipe { low: 3, high: 6 }),
    ("mixed_4_6", MixedRecipe { low: 4, high: 6 }),
];

impl FromStr for MixedRecipe {
    type Err = UnknownRecipe;

    fn from_str(name: &str) -> Result<Self, UnknownRecipe> {
        let found = RECIPES.iter().find(|entry| entry.0 == name);
        found.map(|entry| entry.1).ok_or_else(|| UnknownRecipe(name.to_owned()))
    }
}

impl fmt::Display for MixedRecipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mixed_{}_{}", self.low, self.high)
    }
}

impl MixedRecipe {
    /// The rule for a model of so many layers, in place of its family's.
    pub fn rule(
        self,
        num_layers: usize,
        spec: QuantSpec,
    ) -> impl Fn(&str) -> QuantChoice + 'static {
        let eighth = num_layers / 8;
        let like = move |bits| QuantChoice::Like(QuantSpec { bits, ..spec });
        move |path: &str| {
            let index = path.split('.').find_map(|part| part.parse::<usize>().ok()).unwrap_or(0);
            let matters = index < eighth
                || index >= 7 * num_layers / 8
                || index.checked_sub(eighth).is_some_and(|past| past % 3 == 2);
            let is_value =
                ["v_proj", "v_a_proj", "v_b_proj"].iter().any(|name| path.contains(name));
            if matters && (is_value || path.contains("down_proj")) || path.contains("lm_head") {
                return like(self.high);
            }
            like(self.low)
        }
    }
}

/// A recipe that is not one of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6")]
pub struct UnknownRecipe(String);

#[cfg(test)]
mod tests {
    use mlx::quantized::QuantMode;

    use super::*;

    #[test]
    fn a_recipe_gives_more_bits_where_they_matter() {
        let affine = QuantSpec::of_mode(QuantMode::Affine);
        let recipe: MixedRecipe = "mixed_3_6".parse().unwrap();
        let rule = recipe.rule(16, affine);
        let bits = |path: &str| match rule(path) {
            QuantChoice::Like(spec) => spec.bits,
            other => panic!("{other:?}"),
        };
        let down = |layer: usize| bits(&format!("model.layers.{layer}.mlp.down_proj"));
        let high: Vec<usize> = (0..16).filter(|&layer| down(layer) == 6).collect();
        assert_eq!(high, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!((bits("model.layers.4.self_attn.v_proj"), bits("lm_head")), (6, 6));
        assert_eq!((bits("model.layers.0.self_attn.q_proj"), bits("model.embed_tokens")), (3, 3));
        assert_eq!(recipe.to_string(), "mixed_3_6");
        let error = "mixed_1_2".parse::<MixedRecipe>().unwrap_err().to_string();
        assert!(error.starts_with("`mixed_1_2` is not one of mixed_2_6"), "{error}");
    }
}
