//! Logits and greedy tokens of mlx-lm in f32.

use models::MODELS;
use nn::Unpack;

use crate::{
    runner::{Runner, distance},
    tiny::{Golden, goldens},
};

/// A token whose lead is smaller may turn into the runner-up by rounding.
const MARGIN: f32 = 1e-3;

#[test]
fn logits_and_greedy_tokens_are_those_of_mlx_lm() {
    for golden in goldens() {
        for unpack in [Unpack::Always, Unpack::WithoutKernel, Unpack::Never] {
            let mut runner = Runner::new(golden.load(unpack), 4);
            let mut seq = runner.seq(&golden.prompt);
            let logits = runner.prefill(&mut seq, usize::MAX);
            let off = distance(&logits, &golden.logits);
            assert!(off < 2e-4, "{}: logits off by {off}", golden.name);
            let tokens = runner.decode(&mut seq, logits, golden.output_ids.len());
            let sure = golden.margins.iter().take_while(|&&margin| margin > MARGIN).count();
            assert!(sure >= 8, "{}: {sure} sure tokens", golden.name);
            assert_eq!(tokens[..sure], golden.output_ids[..sure], "{}", golden.name);
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
