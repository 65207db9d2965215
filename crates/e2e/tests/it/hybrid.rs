//! A model with recurrent layers: prefixes are shared up to a snapshot of their state,
//! and nobody can tell by the tokens.

use e2e::{start, tiny_hybrid};
use serde_json::json;
use test_kit::ServerProcess;

use crate::toy::{generate, prompt};

const PAGE_SIZE: usize = 16;
/// Tokens of a prompt between two snapshots.
const INTERVAL: usize = 1024;

fn server(folder: &tempfile::TempDir, more: &[&str]) -> ServerProcess {
    tiny_hybrid(folder.path()).unwrap();
    let path = folder.path().to_str().unwrap();
    let page_size = PAGE_SIZE.to_string();
    let args = ["--model-path", path, "--skip-tokenizer-init", "--page-size", &page_size];
    start(&[&args, more].concat()).unwrap()
}

#[test]
fn hits_end_at_snapshots_and_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder, &[]);
    let client = server.client();
    let shared = prompt(1, INTERVAL + 200);
    let prompts: Vec<_> = (2..5).map(|salt| [&shared[..], &prompt(salt, 60)].concat()).collect();
    let mut cold = Vec::new();
    for prompt in &prompts {
        assert_eq!(client.post("/flush_cache", &json!({})).unwrap().status, 200);
        let (ids, cached) = generate(&client, prompt);
        assert_eq!(cached, 0);
        cold.push(ids);
    }
    assert!(cold[0] != cold[1] && cold[1] != cold[2], "a test of tokens that differ: {cold:?}");
    assert_eq!(client.post("/flush_cache", &json!({})).unwrap().status, 200);

    // The first leaves snapshots at the interval and at its end, the second one where
    // it leaves the first, and so the third recomputes less than a page of it.
    let branch = shared.len() / PAGE_SIZE * PAGE_SIZE;
    let expected = [0, INTERVAL, branch];
    for ((prompt, cold), expected) in prompts.iter().zip(&cold).zip(expected) {
        assert_eq!(generate(&client, prompt), (cold.clone(), expected));
    }
    let whole = (prompts[0].len() - 1) / PAGE_SIZE * PAGE_SIZE;
    assert_eq!(generate(&client, &prompts[0]), (cold[0].clone(), whole));

    // The next turn of a conversation goes on from the completion's last page.
    let turn = [&prompts[0][..], &cold[0], &prompt(9, 20)].concat();
    let (warm, cached) = generate(&client, &turn);
    let written = prompts[0].len() + cold[0].len() - 1;
    assert!(cached + PAGE_SIZE > written, "{cached} of {written}");
    assert_eq!(client.post("/flush_cache", &json!({})).unwrap().status, 200);
    assert_eq!(generate(&client, &turn), (warm, 0));
}

/// More requests than states allow at a time, and prompts in pieces on which others ride.
#[test]
fn a_crowd_gets_what_each_would_get_alone() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--max-running-requests", "3", "--chunked-prefill-size", "64"];
    let server = server(&folder, &[&args[..], &["--enable-mixed-chunk"]].concat());
    let client = server.client();
    let prompts: Vec<_> = (0..12).map(|salt| prompt(salt / 2, 40 + 23 * salt as usize)).collect();
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            assert_eq!(client.post("/flush_cache", &json!({})).unwrap().status, 200);
            generate(&client, prompt).0
        })
        .collect();
    std::thread::scope(|scope| {
        let answers: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let client = &client;
                scope.spawn(move || generate(client, prompt).0)
            })
            .collect();
        for (answer, alone) in answers.into_iter().zip(&alone) {
            assert_eq!(&answer.join().unwrap(), alone);
        }
    });
}
