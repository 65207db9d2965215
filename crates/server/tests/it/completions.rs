//! `/v1/completions`.

use serde_json::json;

use crate::support::{Answer, FakeEngine, Server, bytes_as_ids, config};

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn one_answer() {
    let server = Server::answering(" Paris");
    let body = json!({"model": "m", "prompt": "Capital:", "rid": "cmpl", "temperature": 0,
                      "max_tokens": 9});
    let answer = server.post(PATH, body).await;
    assert_eq!(answer.status, 200);
    insta::assert_snapshot!(answer.redacted_json());
    let req = server.engine.next_req().await;
    assert_eq!(req.sampling_params.max_new_tokens, Some(9));
    assert_eq!(req.sampling_params.temperature, 0.0);
}

#[tokio::test]
async fn a_stream_with_usage() {
    let server = Server::answering("né!");
    let body = json!({"prompt": "x", "rid": "cmpl", "stream": true, "stop": "!",
                      "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(server.post(PATH, body).await.transcript());
}

#[tokio::test]
async fn prompts_of_every_kind_and_n() {
    let server = Server::answering("x");
    for (prompt, num_choices) in [
        (json!("ab"), 2),
        (json!(["ab", "cd"]), 4),
        (json!([97, 98]), 2),
        (json!([[97, 98], [99, 100]]), 4),
    ] {
        let answer = server.post(PATH, json!({"prompt": prompt, "n": 2})).await.json();
        let choices = answer["choices"].as_array().unwrap();
        let indices: Vec<_> = choices.iter().map(|c| c["index"].as_u64().unwrap()).collect();
        assert_eq!(indices, (0..num_choices).collect::<Vec<_>>());
        // Each prompt counts once, each sample has a letter and EOS.
        assert_eq!(answer["usage"]["prompt_tokens"], num_choices);
        assert_eq!(answer["usage"]["completion_tokens"], 2 * num_choices);
    }
}

#[tokio::test]
async fn echo_puts_the_prompt_first() {
    let server = Server::answering("!");
    let body = json!({"prompt": ["ab", "cd"], "echo": true, "n": 2});
    let answer = server.post(PATH, body).await.json();
    let texts: Vec<_> = (0..4).map(|i| answer["choices"][i]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["ab!", "ab!", "cd!", "cd!"]);
    let body = json!({"prompt": [97, 98], "echo": true, "stream": true});
    let events = server.post(PATH, body).await.events();
    let text: String = events.iter().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, "ab!");
}

#[tokio::test]
async fn a_completion_may_stand_before_a_suffix() {
    let template = server::CompletionTemplate::from_argument("star_coder".as_ref()).unwrap();
    let with_template = server::ServerConfig { completion_template: Some(template), ..config() };
    let engine = FakeEngine::start(|_| Answer::text("x"));
    let server = Server::with_config(engine, with_template.clone());
    let body = json!({"prompt": "a", "suffix": "b", "echo": true});
    let answer = server.post(PATH, body.clone()).await.json();
    assert_eq!(answer["choices"][0]["text"], "ax");
    let prompt = "<fim_prefix>a<fim_suffix>b<fim_middle>";
    assert_eq!(server.engine.next_req().await.input_ids, bytes_as_ids(prompt));
    for suffix in [json!(""), json!(null)] {
        let plain = json!({"prompt": "a", "suffix": suffix});
        assert_eq!(server.post(PATH, plain).await.status, 200);
        assert_eq!(server.engine.next_req().await.input_ids, bytes_as_ids("a"));
    }
    let ids = json!({"prompt": [97], "suffix": "b"});
    assert!(server.post(PATH, ids).await.text.contains("must be text"));
    let refused = Server::answering("x").post(PATH, body).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("`suffix` is not supported"), "{}", refused.text);
    let config = server::ServerConfig { max_body_bytes: 300, ..with_template };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    let many = json!({"prompt": vec!["a"; 40], "suffix": "a dozen more"});
    let refused = server.post(PATH, many).await;
    assert!(refused.text.contains("too long for so many prompts"), "{}", refused.text);
}

#[tokio::test]
async fn cached_tokens_are_reported_on_demand() {
    let config = server::ServerConfig { enable_cache_report: true, ..config() };
    let server = Server::with_config(FakeEngine::start(|_| Answer::text("x")), config);
    let answer = server.post(PATH, json!({"prompt": "abcdefgh"})).await.json();
    assert_eq!(answer["usage"]["prompt_tokens_details"], json!({"cached_tokens": 4}));
}
