//! Vectors of prompts: the same whatever happens around them, and those of the model's own
//! logits.

use types::{Matryoshka, PooledModel, PooledOutput, Pooling};

use super::*;

fn embedder(folder: &Path) -> EngineConfig {
    let load = LoadConfig { is_embedding: true, ..LoadConfig::default() };
    EngineConfig { load, ..config(folder) }
}

/// The prompts of [`requests`].
fn asking(pooling: Pooling) -> Vec<GenerateReq> {
    let mut requests = requests();
    for req in &mut requests {
        req.pooling = Some(pooling);
    }
    requests
}

/// Vectors, and how many tokens came from the cache.
fn vectors(
    config: &EngineConfig,
    requests: &[GenerateReq],
    together: bool,
) -> (Vec<Vec<f32>>, u64) {
    let mut scheduler = loading::load(config, &Quiet).unwrap().scheduler;
    let mut vectors = vec![Vec::new(); requests.len()];
    let mut events = Vec::new();
    for group in requests.chunks(if together { requests.len() } else { 1 }) {
        let inbox = group.iter().map(|req| SchedulerMsg::Generate(Box::new(req.clone())));
        let mut inbox: Vec<_> = inbox.collect();
        while scheduler.step(inbox.drain(..), &mut events).unwrap() == Progress::Busy {}
    }
    for event in events {
        let SchedulerEvent::Req { rid, event } = event else { panic!("unexpected: {event:?}") };
        assert_eq!(event.finish_reason, Some(FinishReason::Length { length: 0 }));
        assert!(event.token_ids.is_empty());
        let index = requests.iter().position(|req| req.rid == rid).unwrap();
        vectors[index] = event.pooled.expect("a vector");
    }
    (vectors, scheduler.stats().cached_tokens)
}

fn assert_same(found: &[Vec<f32>], expected: &[Vec<f32>], how: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), HIDDEN, "{how}: request {index}");
        let far = found.iter().zip(expected).find(|(a, b)| (*a - *b).abs() > 1e-4);
        assert_eq!(far, None, "{how}: request {index}");
    }
}

#[test]
fn vectors_do_not_depend_on_batch_cache_or_schedule() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = embedder(folder.path());
    for pooling in [Pooling::Last, Pooling::First, Pooling::Mean] {
        let requests = asking(pooling);
        let (expected, cached) = vectors(&base, &requests, false);
        assert_eq!(cached >= 80, pooling == Pooling::Last, "{pooling:?}: {cached} cached");
        assert_same(&vectors(&base, &requests, true).0, &expected, "in a batch");
        let schedule = ScheduleConfig {
            disable_radix_cache: true,
            overlap: Overlap::Off,
            ..base.schedule.clone()
        };
        let no_radix = EngineConfig { schedule, ..base.clone() };
        let (found, cached) = vectors(&no_radix, &requests, true);
        assert_eq!(cached, 0);
        assert_same(&found, &expected, "without radix cache and overlap");
        let memory = MemoryOptions {
            chunked_prefill: ChunkedPrefill::Tokens(16),
            max_total_tokens: Some(256),
            ..base.memory.clone()
        };
        let chunked = EngineConfig { memory, ..base.clone() };
        assert_same(&vectors(&chunked, &requests, true).0, &expected, "in chunks of 16");
    }
}

/// A token sees those before it alone, so the last one of a prefix has the hidden state that
/// it has in the whole.
#[test]
fn first_and_mean_are_made_of_the_last_of_prefixes() {
    let _alone = alone();
    let folder = tiny_llama();
    let config = embedder(folder.path());
    let prompt = requests().remove(2).input_ids[..20].to_vec();
    let of = |pooling, len: usize| GenerateReq {
        rid: Rid::new(format!("{pooling:?} {len}")),
        input_ids: prompt[..len].to_vec(),
        pooling: Some(pooling),
        ..requests().remove(0)
    };
    let mut requests: Vec<_> = (1..=20).map(|len| of(Pooling::Last, len)).collect();
    requests.extend([of(Pooling::First, 20), of(Pooling::Mean, 20)]);
    let (vectors, _) = vectors(&config, &requests, false);
    let mean = |at: usize| vectors[..20].iter().map(|last| last[at]).sum::<f32>() / 20.0;
    let expected = [vectors[0].clone(), (0..HIDDEN).map(mean).collect()];
    assert_same(&vectors[20..], &expected, "first and mean");
    assert!(vectors[0] != vectors[19]);
}

#[test]
fn the_head_makes_logits_of_the_last_vector() {
    let _alone = alone();
    let folder = tiny_llama();
    let req = asking(Pooling::Last).remove(4);
    let (vectors, _) = vectors(&embedder(folder.path()), std::slice::from_ref(&req), true);
    let (weights, _) = mlx::io::load_safetensors(&folder.path().join("model.safetensors")).unwrap();
    let head: Vec<f32> = weights["lm_head.weight"].to_vec().unwrap();

    let file = folder.path().join("logits.safetensors");
    crate::dump_prompt_logits(&config(folder.path()), &req.input_ids, &file, &Quiet).unwrap();
    let (arrays, _) = mlx::io::load_safetensors(&file).unwrap();
    let logits: Vec<f32> = arrays["logits"].to_vec().unwrap();
    let last = &logits[(req.input_ids.len() - 1) * VOCAB..];
    for (row, &logit) in head.chunks_exact(HIDDEN).zip(last) {
        let expected: f32 = row.iter().zip(&vectors[0]).map(|(w, x)| w * x).sum();
        assert!((expected - logit).abs() < 1e-4, "{expected} and {logit}");
    }
}

#[test]
fn a_folder_of_sentence_transformers_is_an_embedding_model() {
    let _alone = alone();
    let folder = tiny_llama();
    let modules =
        r#"[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]"#;
    fs::write(folder.path().join("modules.json"), modules).unwrap();
    fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let pooling = r#"{"pooling_mode_mean_tokens": true}"#;
    fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    let mut config = EngineConfig { warm_up: true, ..config(folder.path()) };
    let sizes = serde_json::json!([32, 64]);
    config.load.config_overrides.insert("matryoshka_dimensions".to_owned(), sizes);
    let engine = start(config.clone()).unwrap();
    let shorter = Matryoshka::Sizes(vec![32, 64]);
    let output = PooledOutput::Embedding { size: HIDDEN, shorter };
    let expected = PooledModel { pooling: Pooling::Mean, output, is_encoder: false };
    assert_eq!(engine.handle.model().pooled, Some(expected));
    engine.handle.submit(EngineMsg::Drain).unwrap();
    engine.join().unwrap();

    let error = crate::OneBatch::load(&config, &Quiet).err().unwrap().to_string();
    assert!(error.ends_with("is an embedding or classification model: it gives no tokens"));
}

/// A folder with a tiny random BERT.
fn tiny_bert() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 4,
        "vocab_size": VOCAB, "max_position_embeddings": 512, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "torch_dtype": "float32",
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    mlx::device::set_default(mlx::device::DeviceKind::Cpu).unwrap();
    let mut weights = BTreeMap::new();
    let mut add = |name: &str, shape: &[usize]| {
        let key = mlx::random::key(weights.len() as u64).unwrap();
        let values = mlx::random::normal(shape, Dtype::Float32, Some(&key));
        weights.insert(name.to_owned(), values.and_then(|x| x.mul_scalar(0.2)).unwrap());
    };
    for (name, rows) in [("word", VOCAB), ("position", 512), ("token_type", 2)] {
        add(&format!("embeddings.{name}_embeddings.weight"), &[rows, HIDDEN]);
    }
    let layer = "encoder.layer.0";
    let attention = format!("{layer}.attention");
    for norm in ["embeddings", &format!("{attention}.output"), &format!("{layer}.output")] {
        add(&format!("{norm}.LayerNorm.weight"), &[HIDDEN]);
        add(&format!("{norm}.LayerNorm.bias"), &[HIDDEN]);
    }
    let square = ["self.query", "self.key", "self.value", "output.dense"];
    let square = square.map(|name| (format!("{attention}.{name}"), HIDDEN, HIDDEN));
    let mlp = [
        (format!("{layer}.intermediate.dense"), INNER, HIDDEN),
        (format!("{layer}.output.dense"), HIDDEN, INNER),
    ];
    for (name, rows, cols) in square.into_iter().chain(mlp) {
        add(&format!("{name}.weight"), &[rows, cols]);
        add(&format!("{name}.bias"), &[rows]);
    }
    let file = folder.path().join("model.safetensors");
    mlx::io::save_safetensors(&file, &weights, &BTreeMap::new()).unwrap();
    folder
}

/// Whatever was asked for, prompts come whole and nothing is kept: a token sees those after it.
#[test]
fn an_encoder_reads_whole_prompts() {
    let _alone = alone();
    let folder = tiny_bert();
    let memory = MemoryOptions {
        max_total_tokens: None,
        chunked_prefill: ChunkedPrefill::Tokens(16),
        ..config(folder.path()).memory
    };
    let config = EngineConfig { memory, ..config(folder.path()) };
    let info = loading::load(&config, &Quiet).unwrap().info;
    assert_eq!(info.pooled.map(|pooled| pooled.pooling), Some(Pooling::First));
    assert_eq!(info.max_total_num_tokens, 16 * 512);
    for pooling in [Pooling::First, Pooling::Mean] {
        let requests = asking(pooling);
        let (expected, _) = vectors(&config, &requests, false);
        let (found, cached) = vectors(&config, &requests, true);
        assert_eq!(cached, 0);
        assert_same(&found, &expected, "in a batch");
        let mut shorter = requests[4].clone();
        shorter.input_ids.pop();
        let (shorter, _) = vectors(&config, &[shorter], true);
        assert!(shorter[0] != expected[4], "the last token is seen from everywhere");
    }
}

#[test]
fn an_encoder_tells_the_second_of_two_texts_from_the_first() {
    let _alone = alone();
    let folder = tiny_bert();
    let config = config(folder.path());
    let pair = |second_text: Option<usize>| GenerateReq {
        rid: Rid::new(format!("{second_text:?}")),
        input_ids: (1..13).collect(),
        pooling: Some(Pooling::First),
        second_text,
        ..requests().remove(0)
    };
    let pairs = [None, Some(12), Some(5), Some(0)].map(pair);
    let (alone, _) = vectors(&config, &pairs, false);
    assert_same(&vectors(&config, &pairs, true).0, &alone, "in a batch");
    assert_same(&alone[1..2], &alone[..1], "there is no second text");
    let far = |a: usize, b: usize| {
        alone[a].iter().zip(&alone[b]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    for (a, b) in [(0, 2), (2, 3), (0, 3)] {
        assert!(far(a, b) > 1e-2, "{a}, {b}: {}", far(a, b));
    }
}
