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
    let expected = PooledModel { pooling: Pooling::Mean, output };
    assert_eq!(engine.handle.model().pooled, Some(expected));
    engine.handle.submit(EngineMsg::Drain).unwrap();
    engine.join().unwrap();

    let error = crate::OneBatch::load(&config, &Quiet).err().unwrap().to_string();
    assert!(error.ends_with("is an embedding or classification model: it gives no tokens"));
}
