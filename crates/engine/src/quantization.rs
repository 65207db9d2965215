//! `--quantization`: names of packings, which matrices are packed, and how.
//!
//! Upstream: `sglang/srt/layers/quantization/__init__.py`.

use std::rc::Rc;

use mlx::quantized::QuantMode;
use model_loader::LoadedModel;
use nn::{QuantSpec, QuantizeOnLoad};

use crate::{EngineError, UnknownName};

/// Names of all packings: `mlx_4bit` and `mlx_q4` are the same.
pub const QUANTIZATIONS: [&str; 15] = [
    "mlx_2bit", "mlx_3bit", "mlx_4bit", "mlx_5bit", "mlx_6bit", "mlx_8bit", "mlx_q2", "mlx_q3",
    "mlx_q4", "mlx_q5", "mlx_q6", "mlx_q8", "mxfp4", "mxfp8", "nvfp4",
];

/// The packing of a name.
///
/// # Errors
/// There is none of this name; lists them.
pub fn parse_quantization(name: &str) -> Result<QuantSpec, UnknownName> {
    if !QUANTIZATIONS.contains(&name) {
        return Err(UnknownName::new(name, QUANTIZATIONS));
    }
    let bits = name.chars().find_map(|c| c.to_digit(10)).expect("every name holds its bits");
    let mode =
        if name.starts_with("mlx_") { QuantMode::Affine } else { name.parse().expect("a mode") };
    Ok(QuantSpec { bits: bits as usize, ..QuantSpec::of_mode(mode) })
}

/// Packs `opened` as asked, with the exceptions of its family; `None` if it comes
/// packed so.
///
/// # Errors
/// It comes packed in another way.
pub(crate) fn on_load(
    opened: &LoadedModel,
    spec: QuantSpec,
) -> Result<Option<QuantizeOnLoad>, EngineError> {
    match opened.config.quant().default_spec() {
        Some(found) if found == spec => return Ok(None),
        None if !opened.weights.has_packed() => {}
        _ => return Err(EngineError::QuantizedAlready { asked: spec }),
    }
    let choose = models::quant_rule(&opened.config)?;
    Ok(Some(QuantizeOnLoad { spec, dtype: None, choose: Rc::new(choose) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_packings() {
        let parse = |name| parse_quantization(name).unwrap();
        let affine = |bits| QuantSpec { group_size: 64, bits, mode: QuantMode::Affine };
        assert_eq!((parse("mlx_4bit"), parse("mlx_q4")), (affine(4), affine(4)));
        assert_eq!((parse("mlx_8bit"), parse("mlx_q3")), (affine(8), affine(3)));
        let spec = |group_size, bits, mode| QuantSpec { group_size, bits, mode };
        assert_eq!(parse("mxfp4"), spec(32, 4, QuantMode::Mxfp4));
        assert_eq!(parse("mxfp8"), spec(32, 8, QuantMode::Mxfp8));
        assert_eq!(parse("nvfp4"), spec(16, 4, QuantMode::Nvfp4));
        let error = parse_quantization("awq").unwrap_err().to_string();
        assert!(error.starts_with("`awq` is not one of mlx_2bit, mlx_3bit"), "{error}");
    }
}
