//! What the engine relies on, for every tiny checkpoint: how a prompt is cut
//! into steps, who shares a step and what was cached must not show.

use attention::{AttentionShape, ForwardMode};
use mlx::Dtype;
use nn::Unpack;

use crate::{
    runner::{Runner, argmax, distance},
    tiny::{Golden, golden, goldens},
};

/// f32 sums in another order.
const TOLERANCE: f32 = 5e-5;

fn prompt(seed: usize, len: usize) -> Vec<i32> {
    (0..len).map(|i| ((i * i * 7 + i * 31 + seed * 53) % 256) as i32).collect()
}

fn runner(golden: &Golden) -> Runner {
    Runner::new(golden.load(Unpack::Always), 4)
}

#[test]
fn chunks_do_not_show() {
    for golden in goldens() {
        let (mut runner, ids) = (runner(&golden), prompt(1, 41));
        let mut seq = runner.seq(&ids);
        let whole = runner.prefill(&mut seq, usize::MAX);
        for chunk in [1, 5, 16] {
            let mut seq = runner.seq(&ids);
            let chunked = runner.prefill(&mut seq, chunk);
            let off = distance(&whole, &chunked);
            assert!(off < TOLERANCE, "{} in chunks of {chunk}: off by {off}", golden.name);
        }
    }
}

#[test]
fn decoding_a_prompt_token_by_token_is_prefilling_it() {
    for golden in goldens() {
        let (mut runner, ids) = (runner(&golden), prompt(2, 23));
        let mut seq = runner.seq(&ids);
        let whole = runner.prefill(&mut seq, usize::MAX);
        let mut seq = runner.seq(&ids);
        let mut last = Vec::new();
        for _ in &ids {
            last = runner.step(ForwardMode::Decode, &mut [(&mut seq, 1)]).remove(0);
        }
        let off = distance(&whole, &last);
        assert!(off < TOLERANCE, "{}: off by {off}", golden.name);
    }
}

#[test]
fn neighbours_do_not_show() {
    for golden in goldens() {
        let mut runner = runner(&golden);
        let prompts: Vec<_> = (0..16).map(|seed| prompt(seed, 1 + seed * seed % 45)).collect();
        let alone: Vec<_> = prompts
            .iter()
            .map(|ids| {
                let mut seq = runner.seq(ids);
                let first = runner.prefill(&mut seq, usize::MAX);
                seq.ids.push(argmax(&first));
                let second = runner.step(ForwardMode::Decode, &mut [(&mut seq, 1)]).remove(0);
                (first, second)
            })
            .collect();
        let mut runner = Runner::new(golden.load(Unpack::Always), 8);
        let mut seqs: Vec<_> = prompts.iter().map(|ids| runner.seq(ids)).collect();
        let mut parts: Vec<_> =
            seqs.iter_mut().zip(&prompts).map(|(s, ids)| (s, ids.len())).collect();
        let first = runner.step(ForwardMode::Extend, &mut parts);
        for (seq, logits) in seqs.iter_mut().zip(&first) {
            seq.ids.push(argmax(logits));
        }
        let mut parts: Vec<_> = seqs.iter_mut().map(|seq| (seq, 1)).collect();
        let second = runner.step(ForwardMode::Decode, &mut parts);
        for (index, (alone, together)) in alone.iter().zip(first.iter().zip(&second)).enumerate() {
            let off = distance(&alone.0, together.0).max(distance(&alone.1, together.1));
            assert!(off < TOLERANCE, "{} request {index}: off by {off}", golden.name);
        }
    }
}

#[test]
fn a_cached_prefix_does_not_show() {
    for golden in goldens() {
        let mut runner = runner(&golden);
        let mut first = runner.seq(&prompt(3, 30));
        runner.prefill(&mut first, 7);
        for (len, tail) in [(4, 1), (16, 9), (28, 3)] {
            let mut hit = runner.seq_after(&first, len, &prompt(9, tail));
            let mut miss = runner.seq(&hit.ids);
            let hit = runner.prefill(&mut hit, usize::MAX);
            let miss = runner.prefill(&mut miss, usize::MAX);
            let off = distance(&hit, &miss);
            assert!(off < TOLERANCE, "{} with {len} cached: off by {off}", golden.name);
        }
    }
}

#[test]
fn packed_and_unpacked_weights_agree() {
    let quantized: Vec<_> = goldens()
        .into_iter()
        .filter(|golden| golden.config.get("quantization").is_some())
        .collect();
    assert!(quantized.len() >= 3);
    for golden in quantized {
        let ids = prompt(4, 19);
        let [packed, dense] = [Unpack::Never, Unpack::Always].map(|unpack| {
            let mut runner = Runner::new(golden.load(unpack), 4);
            let mut seq = runner.seq(&ids);
            runner.prefill(&mut seq, usize::MAX)
        });
        let off = distance(&packed, &dense);
        assert!(off < 2e-4, "{}: off by {off}", golden.name);
    }
}

/// Some f32 scalar or table somewhere would promote all that follows.
#[test]
fn a_narrow_model_stays_narrow() {
    for golden in goldens() {
        for (dtype, pool_dtype) in
            [(Dtype::Bfloat16, Dtype::Bfloat16), (Dtype::Float16, Dtype::Float32)]
        {
            let model = golden.load_as(dtype, Unpack::Never);
            let mut runner = Runner::with_dtypes(model, 4, dtype, pool_dtype.into());
            let mut seq = runner.seq(&golden.prompt);
            runner.prefill(&mut seq, 16);
            seq.ids.push(1);
            let logits = runner.step(ForwardMode::Decode, &mut [(&mut seq, 1)]).remove(0);
            assert!(logits.iter().all(|logit| logit.is_finite()), "{}", golden.name);
        }
    }
}

#[test]
fn shape_is_told_as_config_json_has_it() {
    for golden in goldens() {
        let (model, config) = (golden.load(Unpack::Always), golden.hf_config());
        let number = |field: &str| config.get(field).unwrap().as_u64().unwrap() as usize;
        assert_eq!(model.vocab_size(), number("vocab_size"));
        assert_eq!(model.hidden_size(), number("hidden_size"));
        let optional = |field: &str| config.get(field).map(|_| number(field));
        // What a token's experts have together counts where it is more.
        let inner = number("intermediate_size");
        let of_expert = optional("moe_intermediate_size").unwrap_or(inner);
        let top_k = ["num_experts_per_tok", "num_experts_per_token", "top_k_experts"];
        let top_k = top_k.into_iter().find_map(optional).unwrap_or(0);
        let shared = [
            "shared_expert_intermediate_size",
            "moe_shared_expert_intermediate_size",
            "shared_intermediate_size",
        ];
        let shared = shared.into_iter().find_map(optional).unwrap_or(0);
        // And so do queries in the space of latents.
        let latent = optional("kv_lora_rank").map(|rank| rank + number("qk_rope_head_dim"));
        let absorbed = latent.unwrap_or(0) * number("num_attention_heads");
        // Layers that share K/V may have MLPs twice as wide, and layers inputs of their own.
        let num_shared = optional("num_kv_shared_layers").unwrap_or(0);
        let is_double = num_shared > 0 && config.get("use_double_wide_mlp").unwrap() == true;
        let mlp = if is_double { 2 * inner } else { inner };
        let inputs = optional("hidden_size_per_layer_input").unwrap_or(0);
        let inputs = inputs * number("num_hidden_layers");
        // Some recurrent layers project to more.
        let projected = match config.model_type() {
            Some("nemotron_h") => 2 * 4 * 32 + 2 * 2 * 16 + 4,
            Some("granitemoehybrid") => model.state_layout().first().map_or(0, |layer| {
                let [heads, head_dim, _] = layer.scan.unwrap();
                heads * head_dim + layer.channels + heads
            }),
            Some("kimi_linear") => model.state_layout()[0].channels,
            _ => 0,
        };
        // Llama 4's layers without experts are wider than its experts.
        let dense = optional("intermediate_size_mlp").unwrap_or(0);
        let all = [mlp, dense, top_k * of_expert, shared, absorbed, inputs, projected];
        let widest = all.into_iter().max().unwrap();
        assert_eq!(model.intermediate_size(), widest);
        assert_eq!(model.context_length(), config.context_length());
        let layers = model.kv_layout();
        let recurrent = model.state_layout();
        if config.model_type() != Some("nemotron_h") {
            assert_eq!(layers.len() + recurrent.len() + num_shared, number("num_hidden_layers"));
        }
        assert!((0..).zip(&recurrent).all(|(index, layer)| layer.state_id == index));
        assert!((0..).zip(&layers).all(|(index, layer)| layer.layer_id == index));
        let kv_heads = if latent.is_some() { 1 } else { number("num_key_value_heads") };
        // Those of layers without a window may differ.
        let global = optional("num_global_key_value_heads").unwrap_or(kv_heads);
        let expected =
            |layer: &AttentionShape| if layer.sliding_window.is_none() { global } else { kv_heads };
        assert!(layers.iter().all(|layer| layer.num_kv_heads == expected(layer)));
        assert!(layers.iter().all(|layer| latent.is_none_or(|width| layer.head_dim == width)));
    }
}

/// Its MLPs and experts are layers by themselves.
#[test]
fn layers_of_nemotron_h_are_where_its_pattern_has_them() {
    let layers = |name: &str| {
        let model = golden(name).load(Unpack::Always);
        [model.kv_layout().len(), model.state_layout().len()]
    };
    assert_eq!(layers("nemotron-h"), [1, 1]);
    assert_eq!(layers("nemotron-h-dense"), [1, 2]);
    assert_eq!(layers("nemotron-h-latent"), [1, 1]);
    assert_eq!(layers("nemotron-h-q4"), [1, 2]);
}

/// mlx-lm's Gemma 2 has no windows, so its goldens cannot tell.
#[test]
fn windows_are_where_the_families_have_them() {
    let windows = |name: &str| {
        let layers = golden(name).load(Unpack::Always).kv_layout();
        layers.iter().map(|layer| layer.sliding_window).collect::<Vec<_>>()
    };
    assert_eq!(windows("gemma2"), [Some(4096), None, Some(4096), None]);
    assert_eq!(windows("gemma3"), [Some(8), Some(8), None, Some(8)]);
    assert_eq!(windows("gemma4-shared"), [Some(8), Some(8), None]);
    assert_eq!(windows("mistral-window"), [Some(8), None, Some(8)]);
}
