//! Logits and greedy tokens of mlx-lm in f32.

use std::collections::BTreeMap;

use mlx::{Array, Dtype};
use models::{CausalLm, MODELS};
use nn::{LoadOptions, Unpack};

use crate::{
    runner::{Runner, distance},
    tiny::{Golden, checkpoint, golden, goldens, load},
};

/// A token whose lead is smaller may turn into the runner-up by rounding.
const MARGIN: f32 = 1e-3;

/// Logits after the prompt, and the greedy tokens up to the first that rounding may change.
pub(crate) fn assert_golden(model: Box<dyn CausalLm>, golden: &Golden) {
    let mut runner = Runner::new(model, 4);
    let mut seq = runner.seq(&golden.prompt);
    let logits = runner.prefill(&mut seq, usize::MAX);
    let off = distance(&logits, &golden.logits);
    assert!(off < 2e-4, "{}: logits off by {off}", golden.name);
    let tokens = runner.decode(&mut seq, logits, golden.output_ids.len());
    let sure = golden.margins.iter().take_while(|&&margin| margin > MARGIN).count();
    assert!(sure >= 8, "{}: {sure} sure tokens", golden.name);
    assert_eq!(tokens[..sure], golden.output_ids[..sure], "{}", golden.name);
}

#[test]
fn logits_and_greedy_tokens_are_those_of_mlx_lm() {
    for golden in goldens() {
        for unpack in [Unpack::Always, Unpack::WithoutKernel, Unpack::Never] {
            assert_golden(golden.load(unpack), &golden);
        }
    }
}

#[test]
fn every_architecture_has_its_golden() {
    let golden: Vec<String> =
        goldens().iter().flat_map(|golden| golden.hf_config().architectures().to_vec()).collect();
    for architecture in MODELS.iter().flat_map(|entry| entry.architectures) {
        assert!(golden.iter().any(|name| name == architecture), "{architecture} has no golden");
    }
}

#[test]
fn every_family_has_a_plain_and_a_quantized_golden() {
    for entry in MODELS {
        let of_entry = |golden: &&Golden| {
            let hf = golden.hf_config();
            hf.architectures().iter().any(|name| entry.architectures.contains(&name.as_str()))
        };
        let goldens = goldens();
        let quantized =
            goldens.iter().filter(of_entry).map(|golden| golden.config.get("quantization"));
        let (packed, plain): (Vec<_>, Vec<_>) = quantized.partition(Option::is_some);
        assert!(!packed.is_empty() && !plain.is_empty(), "{:?}", entry.architectures);
    }
}

/// Checkpoints with eyes, as transformers writes them now: other prefixes, and tensors
/// of the eyes.
#[test]
fn text_sides_load_as_published() {
    for name in ["gemma3-nested", "gemma4-nested", "gemma4-unified-tied", "mistral3", "qwen3-vl"] {
        let golden = golden(name);
        let published = |name: String| match name.strip_prefix("language_model.model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None => name.replace("language_model.lm_head", "lm_head"),
        };
        let tensors = checkpoint(&golden.config).into_iter();
        let mut tensors: BTreeMap<_, _> =
            tensors.map(|(name, array)| (published(name), array)).collect();
        for eyes in ["model.vision_tower.patch.weight", "model.multi_modal_projector.norm.weight"] {
            tensors.insert(eyes.to_owned(), Array::zeros(&[2], Dtype::Float32).unwrap());
        }
        let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Never };
        let model = load(&golden.config, &tensors, options).unwrap();
        let mut runner = Runner::new(model, 4);
        let mut seq = runner.seq(&golden.prompt);
        let off = distance(&runner.prefill(&mut seq, usize::MAX), &golden.logits);
        assert!(off < 2e-4, "{name}: logits off by {off}");
    }
}
