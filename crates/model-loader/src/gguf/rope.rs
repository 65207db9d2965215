//! Rotary positions: what the keys and tensors of a GGUF file say of their scaling.
//!
//! Rope scaling of Llama 3 arrives as a tensor of finished factors: the parameters are found by
//! recomputing them. Phi-3's factors are two tensors, for short and for long texts.

use serde_json::{Value, json};

use super::{
    architecture::{ConfigProblem, GgufModelFile},
    tensors::GgufTensor,
};
use crate::TensorProblem;

/// The factors of Llama 3's rope scaling.
const FREQS: &str = "rope_freqs.weight";
/// The factors of Phi-3's for long texts.
const LONG_FACTORS: &str = "rope_factors_long.weight";

/// Tensors that are settings and no weights. The factors for short texts are not used: see
/// `RopeScaling::Long`.
pub(super) const TENSORS: [&str; 3] = [FREQS, LONG_FACTORS, "rope_factors_short.weight"];

/// `rope_scaling` of config.json.
pub(super) fn scaling(
    file: &GgufModelFile<'_>,
    rotary_dims: usize,
    rope_theta: f64,
) -> Result<Option<Value>, ConfigProblem> {
    if let Some(tensor) = file.tensor(FREQS) {
        let factors = tensor.read_f32()?;
        return match llama3(&factors, rotary_dims, rope_theta) {
            Some(scaling) => Ok(scaling),
            None => Err(tensor.problem(TensorProblem::RopeFactors).into()),
        };
    }
    if let Some(tensor) = file.tensor(LONG_FACTORS) {
        return long(file, tensor).map(Some);
    }
    let factor = match file.optional_float("rope.scaling.factor")? {
        None => file.optional_float("rope.scale_linear")?,
        found => found,
    };
    let kind = file.optional_str("rope.scaling.type")?.unwrap_or(match factor {
        Some(_) => "linear",
        None => "none",
    });
    let factor = || factor.ok_or_else(|| file.problem("rope.scaling.factor", "is missing"));
    const ORIGIN: &str = "rope.scaling.original_context_length";
    Ok(match kind {
        "none" => None,
        // The context length of the file is the stretched one: said so by the
        // field that stops config readers from stretching it again.
        "linear" => {
            let origin = match file.optional_usize(ORIGIN)? {
                Some(origin) => origin,
                None => file.usize("context_length")?,
            };
            Some(json!({"rope_type": "linear", "factor": factor()?,
                        "original_max_position_embeddings": origin}))
        }
        "yarn" => {
            let mut scaling = json!({"rope_type": "yarn", "factor": factor()?,
                                     "original_max_position_embeddings": file.usize(ORIGIN)?});
            for (key, field) in [
                ("rope.scaling.attn_factor", "attention_factor"),
                ("rope.scaling.yarn_attn_factor", "attention_factor"),
                ("rope.scaling.yarn_beta_fast", "beta_fast"),
                ("rope.scaling.yarn_beta_slow", "beta_slow"),
            ] {
                if let Some(value) = file.optional_float(key)? {
                    scaling[field] = json!(value);
                }
            }
            Some(scaling)
        }
        other => {
            let reason = format!("rope scaling {other:?} is not supported");
            return Err(file.problem("rope.scaling.type", reason).into());
        }
    })
}

/// Phi-3's.
fn long(file: &GgufModelFile<'_>, tensor: &GgufTensor) -> Result<Value, ConfigProblem> {
    let factors = tensor.read_f32()?;
    if !factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
        return Err(tensor.problem(TensorProblem::RopeFactors).into());
    }
    let mut scaling = json!({"rope_type": "longrope", "long_factor": factors,
        "original_max_position_embeddings": file.usize("rope.scaling.original_context_length")?});
    if let Some(factor) = file.optional_float("rope.scaling.attn_factor")? {
        scaling["attention_factor"] = json!(factor);
    }
    Ok(scaling)
}

/// Parameters whose factors are these; `Some(None)` if they scale nothing.
fn llama3(factors: &[f32], rotary_dims: usize, rope_theta: f64) -> Option<Option<Value>> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGIN: f64 = 8192.0;
    if factors.len() != rotary_dims / 2 {
        return None;
    }
    if factors.iter().all(|&factor| factor == 1.0) {
        return Some(None);
    }
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let expected = |index: usize| {
        let exponent = (2 * index) as f64 / rotary_dims as f64;
        let wavelength = std::f64::consts::TAU * rope_theta.powf(exponent);
        if wavelength < ORIGIN / HIGH {
            1.0
        } else if wavelength > ORIGIN / LOW {
            factor
        } else {
            let smooth = (ORIGIN / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let fits = factors.iter().enumerate().all(|(index, &found)| {
        let expected = expected(index);
        (f64::from(found) - expected).abs() <= 1e-4 * expected
    });
    fits.then(|| {
        Some(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW,
            "high_freq_factor": HIGH, "original_max_position_embeddings": ORIGIN as u64,
        }))
    })
}
