//! The radix cache as a client sees it: cached tokens, and a shorter wait.

use std::time::{Duration, Instant};

use e2e::{Goldens, exclusive};
use serde_json::json;
use test_kit::Client;

/// A thousand tokens that no other test sends.
fn prefix(salt: u32) -> Vec<u32> {
    let mut ids = Goldens::read("plain").unwrap().prompt("ledger-1500").input_ids.clone();
    ids.insert(0, salt);
    ids.truncate(1000);
    ids
}

/// Time to the first event, and the prompt tokens that were cached.
fn first_token(client: &Client, input_ids: &[u32]) -> (Duration, u64) {
    let body = json!({
        "input_ids": input_ids, "stream": true,
        "sampling_params": { "temperature": 0, "max_new_tokens": 4, "ignore_eos": true },
    });
    let start = Instant::now();
    let mut events = client.stream("/generate", &body).unwrap();
    let first = events.next().unwrap().unwrap().data();
    let ttft = start.elapsed();
    events.collect_data().unwrap();
    (ttft, first["meta_info"]["cached_tokens"].as_u64().unwrap())
}

fn flush(client: &Client) {
    let response = client.post("/flush_cache?timeout=10", &json!({})).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Tokens that live requests and the cache hold.
fn tokens_held(client: &Client) -> u64 {
    let loads = client.get("/v1/loads").unwrap().json();
    loads["loads"][0]["num_total_tokens"].as_u64().unwrap()
}

#[test]
fn a_shared_prefix_is_computed_and_stored_once() {
    let server = exclusive();
    flush(&server);
    let with = |suffix: u32| [prefix(1000), vec![suffix; 4]].concat();
    let (cold, cached) = first_token(&server, &with(3000));
    assert_eq!(cached, 0);
    let (warm, cached) = first_token(&server, &with(4000));
    assert!(cached >= 984, "{cached} of 1000 tokens were cached");
    assert!(cold >= warm * 5, "cold {cold:?}, warm {warm:?}");

    // Two requests of 1008 tokens that share 1000: the tree holds whole pages of
    // one prefix, not of two.
    let held = tokens_held(&server);
    assert!((984..1100).contains(&held), "{held} tokens are held");
}

#[test]
fn a_flushed_cache_is_empty() {
    let server = exclusive();
    let prompt = prefix(2000);
    first_token(&server, &prompt[..200]);
    assert!(first_token(&server, &prompt[..200]).1 >= 184);
    flush(&server);
    assert_eq!(first_token(&server, &prompt[..200]).1, 0);
}
