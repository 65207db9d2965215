//! What single architectures add: fields of config.json, rewritten tensors, and what of them is
//! refused. Whole models of each are in `crates/models/tests/it/gguf.rs`.

use std::path::PathBuf;

use super::*;

/// The writer's file, said to be of another architecture.
fn of(name: &str) -> GgufWriter {
    llama().renamed("llama", name).str("general.architecture", name)
}

fn bools(values: &[u8]) -> Vec<u8> {
    [&7u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes(), values].concat()
}

fn gemma(name: &str) -> GgufWriter {
    let ones = [1.5; HIDDEN as usize];
    of(name)
        .u32(&format!("{name}.attention.sliding_window"), 32)
        .f32_tensor("blk.0.post_attention_norm.weight", &[HIDDEN], &ones)
        .f32_tensor("blk.0.post_ffw_norm.weight", &[HIDDEN], &ones)
}

#[test]
fn norms_are_less_one_where_they_are_stored_plus_one() {
    let norm = |writer: &GgufWriter, name: &str| {
        taken(writer, DENSE, |weights| {
            let layer = weights.at("model.layers.0");
            layer.at(name).take("weight", &[64]).unwrap().to_vec::<f32>().unwrap()
        })
    };
    assert_eq!(norm(&gemma("gemma2"), "post_feedforward_layernorm"), [0.5; 64]);
    assert_eq!(norm(&gemma("gemma2"), "pre_feedforward_layernorm"), [0.0; 64]);
    assert_eq!(norm(&llama(), "post_attention_layernorm"), [1.0; 64]);
}

#[test]
fn the_largest_gemmas_scale_queries_by_the_hidden_size() {
    let scalar = |name: &str, layers| {
        let writer = gemma(name).u32(&format!("{name}.block_count"), layers);
        let writer = writer
            .without(&format!("{name}.rope.dimension_count"))
            .u32(&format!("{name}.attention.key_length"), 32);
        opened(&writer, PACKED).config["query_pre_attn_scalar"].clone()
    };
    assert_eq!([scalar("gemma2", 26), scalar("gemma2", 46)], [json!(32), json!(16)]);
    assert_eq!([scalar("gemma3", 46), scalar("gemma3", 62)], [json!(32), json!(16)]);
}

#[test]
fn windows_follow_the_file_or_the_pattern_of_the_architecture() {
    let (slides, full) = ("sliding_attention", "full_attention");
    let types = |writer: GgufWriter| opened(&writer, PACKED).config["layer_types"].clone();
    let key = "gemma2.attention.sliding_window_pattern";
    let three = || gemma("gemma2").u32("gemma2.block_count", 3);
    assert_eq!(types(three()), json!([slides, full, slides]));
    assert_eq!(types(three().u32(key, 3)), json!([slides, slides, full]));
    assert_eq!(types(three().raw(key, 9, &bools(&[0, 1, 1]))), json!([full, slides, slides]));
    // OLMo 2 is OLMo 3 if it has a window.
    let olmo = of("olmo2").u32("olmo2.block_count", 4);
    assert_eq!(opened(&olmo, PACKED).config["architectures"], json!(["Olmo2ForCausalLM"]));
    let olmo = opened(&olmo.u32("olmo2.attention.sliding_window", 8), PACKED).config;
    assert_eq!(olmo["architectures"], json!(["Olmo3ForCausalLM"]));
    assert_eq!(olmo["layer_types"], json!([slides, slides, slides, full]));
}

#[test]
fn heads_rotate_in_part_where_the_model_can() {
    let writer = of("phi3").u32("phi3.rope.dimension_count", 12);
    let config = opened(&writer.u32("phi3.attention.sliding_window", 0), PACKED).config;
    assert_eq!((&config["partial_rotary_factor"], &config["head_dim"]), (&json!(0.75), &json!(16)));
    assert_eq!(config.get("sliding_window"), None);
}

#[test]
fn phi3s_factors_for_long_texts() {
    let factors = |values: &[f32]| {
        of("phi3")
            .u32("phi3.rope.scaling.original_context_length", 128)
            .f32_tensor("rope_factors_long.weight", &[values.len() as u64], values)
            .f32_tensor("rope_factors_short.weight", &[8], &[1.0; 8])
    };
    let good = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5];
    let writer = factors(&good).f32("phi3.rope.scaling.attn_factor", 1.25);
    let expected = json!({"rope_type": "longrope", "long_factor": good,
        "original_max_position_embeddings": 128, "attention_factor": 1.25});
    assert_eq!(opened(&writer, PACKED).config["rope_scaling"], expected);
    check(vec![
        (
            factors(&[0.0; 8]).bytes(),
            "tensor rope_factors_long.weight: holds frequency factors of no known rope scaling",
        ),
        (
            factors(&good).without("phi3.rope.scaling.original_context_length").bytes(),
            "metadata phi3.rope.scaling.original_context_length: is missing",
        ),
        (
            factors(&good).tensor("rope_factors_long.weight", &[8], 1, vec![0; 16]).bytes(),
            "tensor rope_factors_long.weight: element type other than F32 is not supported",
        ),
    ]);
}

#[test]
fn what_an_architecture_needs_and_lacks_is_named() {
    let pattern = "gemma2.attention.sliding_window_pattern";
    let moe = of("qwen2moe").u32("qwen2moe.expert_count", 4);
    let capped = gemma("gemma3").f32("gemma3.final_logit_softcapping", 30.0);
    let windowless = gemma("gemma3").without("gemma3.attention.sliding_window");
    let strings = gemma("gemma2").strings(pattern, &["yes"]);
    let two = gemma("gemma2").raw(pattern, 9, &bools(&[0, 1]));
    let cohere = of("cohere2").f32("cohere2.attention.layer_norm_epsilon", 1e-5);
    check(vec![
        (capped.bytes(), "metadata gemma3.final_logit_softcapping: caps on logits are not"),
        (windowless.bytes(), "metadata gemma3.attention.sliding_window: is missing"),
        (strings.bytes(), "sliding_window_pattern: expected a list of true and false"),
        (two.bytes(), "sliding_window_pattern: 2 entries for 1 layers"),
        (
            of("glm4").u32("glm4.rope.dimension_count", 99).bytes(),
            "metadata glm4.rope.dimension_count: 99 of 16 elements of a head",
        ),
        (of("cohere2").bytes(), "metadata cohere2.attention.layer_norm_epsilon: is missing"),
        (cohere.bytes(), "metadata cohere2.logit_scale: is missing"),
        (of("granite").bytes(), "metadata granite.logit_scale: is missing"),
        (moe.bytes(), "metadata qwen2moe.expert_shared_feed_forward_length: is missing"),
        (
            of("gemma2").u32("gemma2.expert_count", 2).bytes(),
            "metadata gemma2.expert_count: a mixture of 2 experts is not supported",
        ),
        (
            of("phi3").f32_tensor("blk.0.attn_sinks.weight", &[4], &[0.0; 4]).bytes(),
            "tensor blk.0.attn_sinks.weight: is not part of the phi3 architecture",
        ),
    ]);
}

/// Files of another writer, one of each architecture, damaged at random: no panic, and every
/// error says something.
#[test]
fn damaged_files_of_every_architecture_do_not_panic() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/gguf");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<PathBuf> =
        paths.filter(|path| path.extension() == Some("gguf".as_ref())).collect();
    assert_eq!(paths.len(), 12);
    let scratch = tempdir().unwrap();
    let target = scratch.path().join("model.gguf");
    for path in paths {
        let good = fs::read(&path).unwrap();
        let mut noise = noise(good.len() as u64);
        let mut place = |below: usize| {
            let bytes: [u8; 4] = std::array::from_fn(|_| noise.next().unwrap());
            u32::from_le_bytes(bytes) as usize % below
        };
        for _ in 0..20 {
            fs::write(&target, &good[..place(good.len() - 32)]).unwrap();
            assert!(open(&target, PACKED).is_err(), "{} opens", path.display());
            let mut bytes = good.clone();
            bytes[place(6000)] ^= 1 << place(8);
            fs::write(&target, &bytes).unwrap();
            let opened = open(&target, PACKED);
            assert!(opened.is_ok() || !opened.err().unwrap().to_string().is_empty());
        }
    }
}
