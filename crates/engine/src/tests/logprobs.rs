//! Penalties and log-probabilities of whole requests: the same whatever happens around
//! them, and those of the model's own logits.

use std::sync::Arc;

use types::{LogprobParams, Penalties, TokenLogprobs};

use super::*;

/// All ask for the completion's, most for the prompt's from somewhere on; two of three
/// have penalties.
fn asking() -> Vec<GenerateReq> {
    let mut requests = requests();
    for (index, req) in requests.iter_mut().enumerate() {
        let start_len = (index % 4 != 3).then_some([0, 2, 90, 1, 33, 0, 0, 4][index]);
        let params =
            LogprobParams { start_len, top_logprobs_num: index % 3, token_ids: [7].into() };
        req.logprobs = Some(Arc::new(params));
        req.sampling_params.penalties = match index % 3 {
            0 => Penalties::default(),
            1 => Penalties { frequency: 0.5, presence: 0.25, ..Penalties::default() },
            _ => Penalties { repetition: 1.3, ..Penalties::default() },
        };
    }
    requests
}

/// Values of every kind, end to end.
fn values(positions: &[TokenLogprobs]) -> Vec<f32> {
    let values = |position: &TokenLogprobs| {
        let top = position.top.iter().map(|&(logprob, _)| logprob);
        let all = std::iter::once(position.logprob).chain(top);
        all.chain(position.of_ids.iter().copied()).collect::<Vec<_>>()
    };
    positions.iter().flat_map(values).collect()
}

fn assert_same(found: &Outcome, expected: &Outcome, how: &str) {
    assert_eq!(found.tokens, expected.tokens, "{how}");
    for (index, (found, expected)) in found.logprobs.iter().zip(&expected.logprobs).enumerate() {
        let parts = [(&found.input, &expected.input), (&found.output, &expected.output)];
        for (found, expected) in parts {
            let (found, expected) = (values(found), values(expected));
            assert_eq!(found.len(), expected.len(), "{how}: request {index}");
            let far = found.iter().zip(&expected).find(|(a, b)| (*a - *b).abs() > 1e-4);
            assert_eq!(far, None, "{how}: request {index}");
        }
    }
}

#[test]
fn logprobs_and_penalties_do_not_depend_on_batch_or_schedule() {
    let _alone = alone();
    let folder = tiny_llama();
    let base = config(folder.path());
    let requests = asking();
    let expected = run(&base, &requests, false);
    for (req, said) in requests.iter().zip(&expected.logprobs) {
        assert_eq!(Some(said.output.len()), req.sampling_params.max_new_tokens);
        let start = req.logprobs.as_ref().unwrap().start_len;
        let num_input = start.map_or(0, |start| req.input_ids.len() - 1 - start);
        assert_eq!(said.input.len(), num_input);
    }
    assert_ne!(run(&base, &super::requests(), false).tokens, expected.tokens, "penalties tell");

    assert_same(&run(&base, &requests, true), &expected, "in a batch");
    let schedule = ScheduleConfig { overlap: Overlap::Off, ..base.schedule.clone() };
    let no_overlap = EngineConfig { schedule, ..base.clone() };
    assert_same(&run(&no_overlap, &requests, true), &expected, "without overlap");
    let memory = MemoryOptions {
        chunked_prefill: ChunkedPrefill::Tokens(16),
        page_size: 1,
        ..base.memory.clone()
    };
    let chunked = EngineConfig { memory, ..base.clone() };
    assert_same(&run(&chunked, &requests, true), &expected, "in chunks of 16");
    assert_same(&run_flat(&chunked, 64, &requests, true), &expected, "as decode steps");
    let memory = MemoryOptions { max_total_tokens: Some(256), ..base.memory.clone() };
    let small = run(&EngineConfig { memory, ..base }, &requests, true);
    assert_same(&small, &expected, "in a small pool");
}

#[test]
fn logprobs_of_a_prompt_are_those_of_its_logits() {
    let _alone = alone();
    let folder = tiny_llama();
    let config = config(folder.path());
    let mut req = requests().remove(2);
    let params = LogprobParams { start_len: Some(0), top_logprobs_num: 1, ..Default::default() };
    req.logprobs = Some(Arc::new(params));
    let said = run(&config, std::slice::from_ref(&req), true).logprobs.remove(0);

    let file = folder.path().join("logits.safetensors");
    crate::dump_prompt_logits(&config, &req.input_ids, &file, &Quiet).unwrap();
    let (arrays, _) = mlx::io::load_safetensors(&file).unwrap();
    let logits: Vec<f32> = arrays["logits"].to_vec().unwrap();
    assert_eq!(said.input.len(), req.input_ids.len() - 1);
    for (position, said) in said.input.iter().enumerate() {
        let row: Vec<f64> =
            logits[position * VOCAB..][..VOCAB].iter().map(|&x| f64::from(x)).collect();
        let total = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        let next = req.input_ids[position + 1] as usize;
        let expected = row[next] - total;
        assert!((f64::from(said.logprob) - expected).abs() < 1e-4, "{position}: {said:?}");
        let best = (0..VOCAB).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(said.top[0].1 as usize, best, "{position}");
    }
}
