//! `rope_theta`, `rope_scaling` and `rope_parameters` of config.json.

use serde::{Deserialize, de::Error as _};
use serde_json::{Map, Value};

use crate::{HfConfig, LoadError};

const DEFAULT_THETA: f32 = 10_000.0;

/// Everything config.json says about rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// How it was stretched after training.
    pub scaling: RopeScaling,
    /// Pairs are neighbours, not halves.
    pub traditional: bool,
    /// Length before any stretching, for the dynamic kind.
    pub max_position_embeddings: usize,
    /// How much of a head rotates: its first elements. The rest stays as it is.
    pub partial_rotary_factor: f32,
}

/// Kinds of rope.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    Default,
    /// Positions divided by `factor`.
    Linear {
        /// How much longer the context got.
        factor: f32,
    },
    /// Base raised for positions beyond the trained length (NTK-aware). A
    /// token's own position counts, not the sequence's length so far: its key
    /// must be the same however its prompt was split into chunks.
    Dynamic {
        /// How fast the base grows.
        factor: f32,
    },
    /// Slow pairs slowed down by `factor`, fast ones kept, a ramp between.
    Llama3(Llama3),
    /// Likewise with a ramp over dimensions, and q and k scaled.
    Yarn(Yarn),
    /// The first pairs turn, as many as `partial_rotary_factor` says, `factor` slower. They
    /// are pairs of the whole head: element i with i + head_dim / 2 (Gemma 4's).
    Proportional {
        /// How much slower.
        factor: f32,
    },
    /// Each pair slowed down by a factor of its own, and q and k scaled (Phi-3's
    /// `longrope`, once `su`). The factors for long texts are those of short ones
    /// too: a key must be the same however long its sequence gets.
    Long(LongRope),
}

/// Parameters of the `llama3` kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Llama3 {
    factor: f64,
    #[serde(default = "one")]
    low_freq_factor: f64,
    #[serde(default = "four")]
    high_freq_factor: f64,
    #[serde(default = "llama3_context")]
    original_max_position_embeddings: f64,
}

/// Parameters of the `yarn` kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Yarn {
    factor: f64,
    original_max_position_embeddings: f64,
    #[serde(default = "thirty_two")]
    beta_fast: f64,
    #[serde(default = "one")]
    beta_slow: f64,
    #[serde(default = "one")]
    mscale: f64,
    #[serde(default)]
    mscale_all_dim: f64,
    attention_factor: Option<f64>,
    #[serde(default = "yes")]
    truncate: bool,
}

/// Parameters of the `longrope` kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LongRope {
    long_factor: Vec<f64>,
    attention_factor: Option<f64>,
    /// Length before any stretching; older configs have it beside `rope_scaling`.
    #[serde(default)]
    original_max_position_embeddings: f64,
    #[serde(skip)]
    max_position_embeddings: f64,
}

impl RopeConfig {
    /// Reads the fields, in the old form (`rope_theta`, `rope_scaling`) or the
    /// new one (`rope_parameters`), for models whose heads rotate as a whole.
    ///
    /// # Errors
    /// A kind that is not supported, or a parameter that is missing.
    pub fn from_config(config: &HfConfig) -> Result<Self, LoadError> {
        let parsed = Self::partial_from_config(config)?;
        if parsed.partial_rotary_factor != 1.0 {
            let value = parsed.partial_rotary_factor.to_string();
            return Err(LoadError::Unsupported { what: "partial_rotary_factor", value });
        }
        Ok(parsed)
    }

    /// The same for models that may rotate a part of each head.
    ///
    /// # Errors
    /// As for [`RopeConfig::from_config`].
    pub fn partial_from_config(config: &HfConfig) -> Result<Self, LoadError> {
        let scaling_field = ["rope_scaling", "rope_parameters"]
            .into_iter()
            .find(|field| config.get(field).is_some());
        let empty = Map::new();
        let parameters = match scaling_field.and_then(|field| config.get(field)) {
            None => &empty,
            Some(Value::Object(parameters)) => parameters,
            Some(_) => return Err(config_error("rope_scaling", "expected an object")),
        };
        let number = |field: &str| {
            let value = config.get(field).or_else(|| parameters.get(field));
            let parse = |value: &Value| {
                value
                    .as_f64()
                    .filter(|value| value.is_finite() && *value > 0.0)
                    .ok_or_else(|| config_error(field, "expected a positive number"))
            };
            value.map(parse).transpose()
        };
        let traditional = config.get("rope_traditional").and_then(Value::as_bool);
        let max_position_embeddings = number("max_position_embeddings")?.unwrap_or(2048.0);
        let field = scaling_field.unwrap_or("rope_scaling");
        let mut scaling = RopeScaling::parse(parameters, field)?;
        if let RopeScaling::Long(long) = &mut scaling {
            let original = number("original_max_position_embeddings")?.ok_or_else(|| {
                config_error(field, "missing field `original_max_position_embeddings`")
            })?;
            long.original_max_position_embeddings = original;
            long.max_position_embeddings = max_position_embeddings;
        }
        Ok(Self {
            theta: number("rope_theta")?.map_or(DEFAULT_THETA, |theta| theta as f32),
            scaling,
            traditional: traditional.unwrap_or(false),
            max_position_embeddings: max_position_embeddings as usize,
            partial_rotary_factor: number("partial_rotary_factor")?.map_or(1.0, |part| part as f32),
        })
    }

    /// How many of a head's elements rotate.
    ///
    /// # Errors
    /// Their number is odd, or not that of the scaling's factors.
    pub(super) fn rotary_dims(&self, head_dim: usize) -> Result<usize, LoadError> {
        let dims = (head_dim as f32 * self.partial_rotary_factor) as usize;
        if !dims.is_multiple_of(2) || dims == 0 || dims > head_dim {
            return Err(LoadError::Unsupported { what: "rotary width", value: dims.to_string() });
        }
        match &self.scaling {
            RopeScaling::Proportional { .. } if !head_dim.is_multiple_of(2) => {
                let value = head_dim.to_string();
                Err(LoadError::Unsupported { what: "rotary width", value })
            }
            // The pairs that do not turn are among them.
            RopeScaling::Proportional { .. } => Ok(head_dim),
            RopeScaling::Long(long) if long.long_factor.len() != dims / 2 => {
                let reason = format!("{} factors for {} pairs", long.long_factor.len(), dims / 2);
                Err(config_error("long_factor", &reason))
            }
            _ => Ok(dims),
        }
    }
}

impl RopeScaling {
    fn parse(parameters: &Map<String, Value>, field: &str) -> Result<Self, LoadError> {
        let kind = parameters.get("rope_type").or_else(|| parameters.get("type"));
        let kind = match kind {
            None | Some(Value::Null) => {
                // Parameters of no kind would be ignored, and tokens be wrong.
                let known = ["rope_theta", "partial_rotary_factor", "rope_type", "type"];
                if let Some(other) = parameters.keys().find(|key| !known.contains(&key.as_str())) {
                    return Err(config_error(field, &format!("{other} without a rope_type")));
                }
                "default"
            }
            Some(Value::String(kind)) => kind,
            Some(other) => {
                return Err(config_error(field, &format!("rope_type {other} is not a name")));
            }
        };
        match kind {
            "default" => Ok(Self::Default),
            "linear" => Ok(Self::Linear { factor: factor(parameters, field)? }),
            "proportional" => Ok(Self::Proportional {
                factor: match parameters.contains_key("factor") {
                    true => factor(parameters, field)?,
                    false => 1.0,
                },
            }),
            "dynamic" => Ok(Self::Dynamic { factor: factor(parameters, field)? }),
            "llama3" => typed(parameters, field).map(Self::Llama3),
            "yarn" | "deepseek_yarn" => typed(parameters, field).map(Self::Yarn),
            "longrope" | "su" => LongRope::deserialize(parameters)
                .map(Self::Long)
                .map_err(|error| config_error(field, &error.to_string())),
            other => Err(LoadError::Unsupported { what: "rope type", value: other.to_owned() }),
        }
    }

    /// Factor on q and k.
    pub fn mscale(&self) -> f32 {
        match self {
            Self::Yarn(yarn) => yarn.mscale(),
            Self::Long(long) => long.mscale(),
            _ => 1.0,
        }
    }

    /// Factor on the scale of attention, for models that leave parts of q and k
    /// unrotated and so out of reach of [`RopeScaling::mscale`] (DeepSeek's
    /// `mscale_all_dim`). Models without such parts do not ask.
    pub fn attention_mscale(&self) -> f32 {
        match self {
            Self::Yarn(yarn) => yarn.grown(yarn.mscale_all_dim).powi(2) as f32,
            _ => 1.0,
        }
    }
}

impl Llama3 {
    /// `[dims / 2]`.
    pub(super) fn inverse_frequencies(&self, dims: usize, theta: f32) -> Vec<f64> {
        let low_wavelen = self.original_max_position_embeddings / self.low_freq_factor;
        let high_wavelen = self.original_max_position_embeddings / self.high_freq_factor;
        let stretched = |inverse: f64| {
            let wavelen = 2.0 * std::f64::consts::PI * inverse;
            if wavelen > low_wavelen {
                return inverse * self.factor;
            }
            if wavelen <= high_wavelen {
                return inverse;
            }
            let ramp = (self.original_max_position_embeddings / wavelen - self.low_freq_factor)
                / (self.high_freq_factor - self.low_freq_factor);
            inverse / ((1.0 - ramp) / self.factor + ramp)
        };
        plain(dims, theta).map(stretched).collect()
    }
}

impl Yarn {
    /// `[dims / 2]`.
    pub(super) fn inverse_frequencies(&self, dims: usize, theta: f32) -> Vec<f64> {
        let (low, high) = self.ramp(dims as f64, f64::from(theta));
        let stretched = |(index, inverse): (usize, f64)| {
            // 1 where a pair turns fast enough to be kept.
            let kept = 1.0 - ((index as f64 - low) / (high - low)).clamp(0.0, 1.0);
            let slowed = inverse * self.factor;
            slowed * inverse / (slowed * kept + inverse * (1.0 - kept))
        };
        plain(dims, theta).enumerate().map(stretched).collect()
    }

    /// Where the ramp from kept to slowed begins and ends, in pairs.
    fn ramp(&self, dims: f64, theta: f64) -> (f64, f64) {
        let pair_with = |turns: f64| {
            let wavelen =
                self.original_max_position_embeddings / (turns * 2.0 * std::f64::consts::PI);
            dims * wavelen.ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (pair_with(self.beta_fast), pair_with(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dims - 1.0));
        // A ramp of width zero would divide by it.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }

    fn mscale(&self) -> f32 {
        if let Some(factor) = self.attention_factor {
            return factor as f32;
        }
        (self.grown(self.mscale) / self.grown(self.mscale_all_dim)) as f32
    }

    fn grown(&self, mscale: f64) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 }
    }
}

impl LongRope {
    /// `[dims / 2]`.
    pub(super) fn inverse_frequencies(&self, dims: usize, theta: f32) -> Vec<f64> {
        plain(dims, theta)
            .zip(&self.long_factor)
            .map(|(inverse, factor)| inverse * factor)
            .collect()
    }

    fn mscale(&self) -> f32 {
        if let Some(factor) = self.attention_factor {
            return factor as f32;
        }
        let original = self.original_max_position_embeddings;
        let growth = (self.max_position_embeddings / original).max(1.0);
        (1.0 + growth.ln() / original.ln()).sqrt() as f32
    }
}

/// `theta ^ (2i / dims)`.
pub(super) fn plain(dims: usize, theta: f32) -> impl Iterator<Item = f64> {
    let theta = f64::from(theta);
    (0..dims).step_by(2).map(move |index| theta.powf(index as f64 / dims as f64))
}

fn factor(parameters: &Map<String, Value>, field: &str) -> Result<f32, LoadError> {
    #[derive(Deserialize)]
    struct Factor {
        factor: f32,
    }
    let Factor { factor } = typed(parameters, field)?;
    Ok(factor)
}

fn typed<T: serde::de::DeserializeOwned>(
    parameters: &Map<String, Value>,
    field: &str,
) -> Result<T, LoadError> {
    let parsed = T::deserialize(parameters).and_then(|parsed| {
        let factor = parameters.get("factor").and_then(Value::as_f64);
        match factor {
            Some(factor) if factor.is_finite() && factor > 0.0 => Ok(parsed),
            _ => Err(serde_json::Error::custom("factor must be a positive number")),
        }
    });
    parsed.map_err(|error| config_error(field, &error.to_string()))
}

fn config_error(field: &str, reason: &str) -> LoadError {
    LoadError::Config { file: "config.json", field: field.to_owned(), reason: reason.to_owned() }
}

fn one() -> f64 {
    1.0
}

fn four() -> f64 {
    4.0
}

fn thirty_two() -> f64 {
    32.0
}

fn llama3_context() -> f64 {
    8192.0
}

fn yes() -> bool {
    true
}
