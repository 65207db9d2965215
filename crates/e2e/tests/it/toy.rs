//! Requests to the toy models of `hybrid` and `windows`, which have no tokenizer.

use serde_json::json;
use test_kit::Client;

/// Ids of a vocabulary of 256; prompts of one salt begin alike.
pub(crate) fn prompt(salt: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + i * 31 + salt * 53) % 256).collect()
}

/// The completion, and the prompt tokens that were cached.
pub(crate) fn generate(client: &Client, input_ids: &[u32]) -> (Vec<u32>, usize) {
    let sampling = json!({ "temperature": 0, "max_new_tokens": 24, "ignore_eos": true });
    let answer = e2e::generate(client, input_ids, &sampling);
    let ids = answer["output_ids"].as_array().unwrap();
    let ids = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
    (ids, answer["meta_info"]["cached_tokens"].as_u64().unwrap() as usize)
}
