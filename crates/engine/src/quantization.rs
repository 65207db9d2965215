//! `--quantization`: names of packings, which matrices are packed, and how.
//!
//! Upstream: `sglang/srt/layers/quantization/__init__.py`.

use std::{rc::Rc, str::FromStr};

use mlx::quantized::QuantMode;
use model_loader::LoadedModel;
use nn::{QuantSpec, QuantizeOnLoad};

use crate::{EngineError, UnknownName};

/// What `--quantization` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// Matrices that are stored dense are packed like this.
    Pack(QuantSpec),
    /// The checkpoint was quantized by this tool; nothing is to be done.
    Stored(&'static str),
}

/// Names of all packings: `mlx_4bit` and `mlx_q4` are the same.
const PACKINGS: [&str; 15] = [
    "mlx_2bit", "mlx_3bit", "mlx_4bit", "mlx_5bit", "mlx_6bit", "mlx_8bit", "mlx_q2", "mlx_q3",
    "mlx_q4", "mlx_q5", "mlx_q6", "mlx_q8", "mxfp4", "mxfp8", "nvfp4",
];

/// Upstream's names that say what a checkpoint holds.
const STORED: [&str; 5] = ["awq", "compressed-tensors", "fp8", "gptq", "modelopt"];

impl FromStr for Quantization {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        if let Some(stored) = STORED.into_iter().find(|stored| *stored == name) {
            return Ok(Self::Stored(stored));
        }
        if !PACKINGS.contains(&name) {
            return Err(UnknownName::new(name, PACKINGS.into_iter().chain(STORED)));
        }
        let bits = name.chars().find_map(|c| c.to_digit(10)).expect("every name holds its bits");
        let is_affine = name.starts_with("mlx_");
        let mode = if is_affine { QuantMode::Affine } else { name.parse().expect("a mode") };
        Ok(Self::Pack(QuantSpec { bits: bits as usize, ..QuantSpec::of_mode(mode) }))
    }
}

impl Quantization {
    /// The packing that is asked for.
    pub(crate) fn spec(self) -> Option<QuantSpec> {
        match self {
            Self::Pack(spec) => Some(spec),
            Self::Stored(_) => None,
        }
    }

    /// How `opened` is packed as asked, with the exceptions of its family; `None` if it
    /// comes so.
    ///
    /// # Errors
    /// It comes in another way.
    pub(crate) fn on_load(
        self,
        opened: &LoadedModel,
    ) -> Result<Option<QuantizeOnLoad>, EngineError> {
        let spec = match self {
            Self::Pack(spec) => spec,
            Self::Stored(asked) if opened.imported_from == Some(asked) => return Ok(None),
            Self::Stored(asked) => {
                let found = opened.imported_from.unwrap_or("none of these");
                return Err(EngineError::QuantizedOtherwise { asked, found });
            }
        };
        match opened.config.quant().default_spec() {
            Some(found) if found == spec => return Ok(None),
            None if !opened.weights.has_packed() => {}
            _ => return Err(EngineError::QuantizedAlready { asked: spec }),
        }
        let choose = models::quant_rule(&opened.config)?;
        Ok(Some(QuantizeOnLoad { spec, dtype: None, choose: Rc::new(choose) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_packings() {
        let parse = |name: &str| match name.parse::<Quantization>().unwrap() {
            Quantization::Pack(spec) => spec,
            Quantization::Stored(name) => panic!("{name} packs nothing"),
        };
        let affine = |bits| QuantSpec { group_size: 64, bits, mode: QuantMode::Affine };
        assert_eq!((parse("mlx_4bit"), parse("mlx_q4")), (affine(4), affine(4)));
        assert_eq!((parse("mlx_8bit"), parse("mlx_q3")), (affine(8), affine(3)));
        let spec = |group_size, bits, mode| QuantSpec { group_size, bits, mode };
        assert_eq!(parse("mxfp4"), spec(32, 4, QuantMode::Mxfp4));
        assert_eq!(parse("mxfp8"), spec(32, 8, QuantMode::Mxfp8));
        assert_eq!(parse("nvfp4"), spec(16, 4, QuantMode::Nvfp4));
        assert_eq!("awq".parse(), Ok(Quantization::Stored("awq")));
        let error = "bitnet".parse::<Quantization>().unwrap_err().to_string();
        assert!(error.starts_with("`bitnet` is not one of mlx_2bit, mlx_3bit"), "{error}");
    }
}
