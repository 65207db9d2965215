//! Other weights for a model that runs.

use scheduler::Scheduler;
use types::WeightUpdate;

use super::*;
use crate::{engine_thread::Device, model_runner::ModelRunner};

fn update(folder: &Path) -> WeightUpdate {
    WeightUpdate {
        model_path: folder.to_str().unwrap().to_owned(),
        load_format: None,
        abort_all_requests: false,
        flush_cache: true,
    }
}

fn tokens(scheduler: &mut Scheduler<ModelRunner>) -> Vec<TokenId> {
    let req = requests().remove(1);
    let mut inbox = vec![SchedulerMsg::FlushCache, SchedulerMsg::Generate(Box::new(req))];
    let mut events = Vec::new();
    while scheduler.step(inbox.drain(..), &mut events).unwrap() == Progress::Busy {}
    let ids = events.into_iter().flat_map(|event| match event {
        SchedulerEvent::Req { event, .. } => event.token_ids,
        _ => Vec::new(),
    });
    ids.collect()
}

#[test]
fn a_model_runs_the_weights_it_was_last_given() {
    let _alone = alone();
    let (first, second) = (tiny_llama(), tiny_llama_of(1));
    let mut expected = [&first, &second].map(|folder| {
        tokens(&mut loading::load(&config(folder.path()), &Quiet).unwrap().scheduler)
    });
    assert_ne!(expected[0], expected[1], "the weights differ");

    let mut scheduler = loading::load(&config(first.path()), &Quiet).unwrap().scheduler;
    assert_eq!(tokens(&mut scheduler), expected[0]);
    let before = scheduler.executor().memory();
    for (round, folder) in [&second, &first, &second].into_iter().enumerate() {
        expected.reverse();
        scheduler.executor_mut().update_weights(&update(folder.path())).unwrap();
        assert_eq!(tokens(&mut scheduler), expected[0], "round {round}");
        let after = scheduler.executor().memory();
        let difference = after.weight_bytes.abs_diff(before.weight_bytes);
        assert!(difference < before.weight_bytes / 10, "{difference} bytes more or less");
        let grown = after.active_memory_bytes.saturating_sub(before.active_memory_bytes);
        assert!(grown < before.weight_bytes / 4, "the old weights are gone: {grown} bytes more");
    }
}

#[test]
fn room_is_asked_for_by_the_size_of_the_new_weights() {
    let _alone = alone();
    let (first, second) = (tiny_llama(), tiny_llama_of(1));
    let mut scheduler = loading::load(&config(first.path()), &Quiet).unwrap().scheduler;
    let expected = tokens(&mut scheduler);
    let file = fs::metadata(second.path().join("model.safetensors")).unwrap().len() as usize;
    let runner = scheduler.executor_mut();
    // As if those that run took nothing.
    runner.reloader.shape.weight_bytes = 0;
    runner.reloader.platform.memory_bytes = mlx::memory::active_bytes() + file / 2;
    let error = runner.update_weights(&update(second.path())).unwrap_err().to_string();
    assert!(error.starts_with("there is no room for the old and the new weights"), "{error}");
    assert_eq!(tokens(&mut scheduler), expected);
}

#[test]
fn weights_that_do_not_fit_change_nothing() {
    let _alone = alone();
    let folder = tiny_llama();
    let mut scheduler = loading::load(&config(folder.path()), &Quiet).unwrap().scheduler;
    let expected = tokens(&mut scheduler);
    let other = |change: &str, to: serde_json::Value| {
        let other = tiny_llama_of(1);
        let mut config = llama_config();
        config[change] = to;
        fs::write(other.path().join("config.json"), config.to_string()).unwrap();
        other
    };
    let short = other("max_position_embeddings", 256.into());
    let narrow = other("hidden_size", 32.into());
    let stranger = other("architectures", serde_json::json!(["Qwen2ForCausalLM"]));
    let empty = tempfile::tempdir().unwrap();
    for (folder, words) in [
        (&short, "the model that runs has other sizes"),
        (&narrow, "has shape [64], the model needs [32]"),
        (&stranger, "the model that runs has other architectures: [\"LlamaForCausalLM\"]"),
        (&empty, "config.json"),
    ] {
        let update = update(folder.path());
        let error = scheduler.executor_mut().update_weights(&update).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let unknown = WeightUpdate { load_format: Some("pt".to_owned()), ..update(folder.path()) };
    let error = scheduler.executor_mut().update_weights(&unknown).unwrap_err().to_string();
    assert_eq!(error, "load_format: `pt` is not one of auto, dummy, gguf, safetensors");
    assert_eq!(tokens(&mut scheduler), expected);
}
