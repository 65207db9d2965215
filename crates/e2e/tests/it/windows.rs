//! A model most of whose layers see a window: those layers keep a few pages a request, and
//! nobody can tell by the tokens.

use e2e::{start, tiny_windows};
use serde_json::json;
use test_kit::{Client, ServerProcess};

use crate::toy::{generate, prompt};

const PAGE_SIZE: usize = 16;
const WINDOW: usize = 48;

fn server(folder: &tempfile::TempDir, more: &[&str]) -> ServerProcess {
    tiny_windows(folder.path(), WINDOW).unwrap();
    let path = folder.path().to_str().unwrap();
    let args = ["--model-path", path, "--skip-tokenizer-init", "--page-size", "16"];
    let sizes = ["--max-total-tokens", "4096", "--chunked-prefill-size", "64"];
    start(&[&args[..], &sizes, more].concat()).unwrap()
}

fn gauge(client: &Client, name: &str) -> usize {
    let text = client.get("/metrics").unwrap().text().to_owned();
    let line = text.lines().find(|line| line.starts_with(&format!("sglang:{name}{{")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_few_window_pages_give_the_tokens_of_all() {
    let (all, few) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = server(&all, &["--disable-hybrid-swa-memory", "--disable-radix-cache"]);
    let few = server(&few, &["--swa-full-tokens-ratio", "0.1", "--enable-mixed-chunk"]);
    let (all, few) = (all.client(), few.client());
    assert_eq!(gauge(&all, "max_total_num_tokens_swa"), 0);
    // A tenth of 256 pages for whatever runs and whatever is remembered.
    assert_eq!(gauge(&few, "max_total_num_tokens_swa"), 26 * PAGE_SIZE);

    // A prompt of 75 pages, whole and then but for its last token.
    let long = prompt(1, 75 * PAGE_SIZE);
    let (expected, _) = generate(&all, &long);
    assert!(expected.iter().any(|id| *id != expected[0]), "tokens that differ: {expected:?}");
    assert_eq!(generate(&few, &long), (expected.clone(), 0));
    assert_eq!(gauge(&few, "swa_used_tokens"), 0);
    assert!(gauge(&few, "swa_evictable_tokens") >= WINDOW);
    assert_eq!(generate(&few, &long), (expected.clone(), long.len() - PAGE_SIZE));

    // The next turn of the conversation recomputes less than a page of what was written.
    let turn = [&long[..], &expected, &prompt(9, 20)].concat();
    let (tokens, cached) = generate(&few, &turn);
    let written = long.len() + expected.len() - 1;
    assert!(cached + PAGE_SIZE > written, "{cached} of {written}");
    assert_eq!(tokens, generate(&all, &turn).0);
    assert_eq!(client_flush(&few), 200);
    assert_eq!(gauge(&few, "swa_available_tokens"), 26 * PAGE_SIZE);

    // More requests than there are windows, of prefixes in common; those that run ride on the
    // others' prompts.
    let prompts: Vec<_> = (0..8).map(|salt| prompt(salt / 2, 30 + 37 * salt as usize)).collect();
    let alone: Vec<_> = prompts.iter().map(|prompt| generate(&all, prompt).0).collect();
    std::thread::scope(|scope| {
        let answers: Vec<_> =
            prompts.iter().map(|prompt| scope.spawn(|| generate(&few, prompt).0)).collect();
        for (answer, alone) in answers.into_iter().zip(&alone) {
            assert_eq!(&answer.join().unwrap(), alone);
        }
    });
}

fn client_flush(client: &Client) -> u16 {
    client.post("/flush_cache?timeout=10", &json!({})).unwrap().status
}
