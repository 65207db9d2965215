//! `/v1/embeddings`, `/encode` and `/classify`.

use serde_json::{Value, json};
use types::{Matryoshka, PooledModel, PooledOutput, Pooling};

use crate::support::{FakeEngine, Server};

/// Its vectors are the prompt's length and first token.
pub(crate) fn embedder(shorter: Matryoshka) -> FakeEngine {
    let output = PooledOutput::Embedding { size: 2, shorter };
    FakeEngine::pooled(PooledModel { pooling: Pooling::Last, output, is_encoder: false })
}

pub(crate) fn classifier() -> FakeEngine {
    let labels = ["bad", "good"].map(str::to_owned).into();
    FakeEngine::pooled(PooledModel {
        pooling: Pooling::Last,
        output: PooledOutput::Scores { labels },
        is_encoder: false,
    })
}

fn numbers(vector: &Value) -> Vec<f64> {
    vector.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

pub(crate) fn assert_near(found: &Value, expected: &[f64]) {
    let found = numbers(found);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    let is_near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(is_near, "{found:?} instead of {expected:?}");
}

/// Of a prompt of so many tokens that begins with this one.
fn unit(len: f64, first: f64) -> [f64; 2] {
    let length = len.hypot(first);
    [len / length, first / length]
}

#[tokio::test]
async fn openais_route_takes_every_kind_of_input() {
    let server = Server::new(embedder(Matryoshka::No));
    for (input, expected) in [
        (json!("abc"), vec![unit(3.0, 97.0)]),
        (json!(["abc", "b"]), vec![unit(3.0, 97.0), unit(1.0, 98.0)]),
        (json!([4, 5]), vec![unit(2.0, 4.0)]),
        (json!([[4, 5], [7]]), vec![unit(2.0, 4.0), unit(1.0, 7.0)]),
    ] {
        let body = json!({"input": input, "model": "any", "user": "me"});
        let answer = server.post("/v1/embeddings", body).await.json();
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("models/tiny")));
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), expected.len());
        for (index, (object, expected)) in data.iter().zip(&expected).enumerate() {
            assert_eq!(object["object"], "embedding");
            assert_eq!(object["index"], index);
            assert_near(&object["embedding"], expected);
        }
        assert_eq!(answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]);
        assert_eq!(answer["usage"]["completion_tokens"], 0);
    }
    let req = server.engine.next_req().await;
    assert_eq!(req.pooling, Some(Pooling::Last));
}

#[tokio::test]
async fn answers_name_the_weights_that_are_there_now() {
    let server = Server::new(embedder(Matryoshka::No));
    let update = json!({"model_path": "models/new", "weight_version": "2"});
    assert_eq!(server.post("/update_weights_from_disk", update).await.status, 200);
    let answer = server.post("/v1/embeddings", json!({"input": "a"})).await.json();
    assert_eq!(answer["model"], "models/new");
    let answer = server.post("/encode", json!({"text": "a"})).await.json();
    assert_eq!(answer["meta_info"]["weight_version"], "2");
}

#[tokio::test]
async fn base64_is_the_bytes_of_f32() {
    let server = Server::new(embedder(Matryoshka::No));
    let body = json!({"input": [[3, 9, 9, 9]], "encoding_format": "base64"});
    let answer = server.post("/v1/embeddings", body).await.json();
    // 0.8 and 0.6.
    assert_eq!(answer["data"][0]["embedding"], "zcxMP5qZGT8=");
    assert_eq!(answer["usage"]["prompt_tokens"], 4);
    let body = json!({"input": "a", "encoding_format": "int8"});
    let answer = server.post("/v1/embeddings", body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["message"], "encoding_format must be float or base64, got int8");
}

#[tokio::test]
async fn inputs_that_say_nothing_are_refused() {
    let server = Server::new(embedder(Matryoshka::No));
    for (input, message) in [
        (json!(""), "Input cannot be empty or whitespace only"),
        (json!(" \n"), "Input cannot be empty or whitespace only"),
        (json!([]), "Input cannot be empty"),
        (json!(["a", " "]), "Input at index 1 cannot be empty or whitespace only"),
        (json!([[1], []]), "Input at index 1 cannot be empty"),
        (json!([260]), "Token id 260 is outside the vocabulary [0, 260)."),
    ] {
        let answer = server.post("/v1/embeddings", json!({"input": input})).await;
        assert_eq!(answer.status, 400, "{input}");
        assert_eq!(answer.json()["message"], message, "{input}");
    }
}

#[tokio::test]
async fn shorter_embeddings_are_those_that_the_model_was_trained_for() {
    let message = |answer: Value| answer["message"].as_str().unwrap().to_owned();
    let ask = |dimensions: i64| json!({"input": [[3, 9, 9, 9]], "dimensions": dimensions});
    let server = Server::new(embedder(Matryoshka::No));
    assert_eq!(
        message(server.post("/v1/embeddings", ask(1)).await.json()),
        "Model 'models/tiny' does not support matryoshka representation, changing output \
         dimensions will lead to poor results."
    );
    let server = Server::new(embedder(Matryoshka::Sizes(vec![2, 1])));
    let answer = server.post("/v1/embeddings", ask(1)).await.json();
    assert_near(&answer["data"][0]["embedding"], &[1.0]);
    assert_eq!(
        message(server.post("/v1/embeddings", ask(3)).await.json()),
        "Model 'models/tiny' only supports [2, 1] matryoshka dimensions, using other output \
         dimensions will lead to poor results."
    );
    let server = Server::new(embedder(Matryoshka::Any));
    let answer = server.post("/encode", json!({"text": "a", "dimensions": 1})).await.json();
    assert_near(&answer["embedding"], &[1.0]);
    for (asked, expected) in [
        (0, "Requested dimensions must be greater than 0"),
        (3, "Provided dimensions are greater than max embedding dimension: 2"),
    ] {
        assert_eq!(message(server.post("/v1/embeddings", ask(asked)).await.json()), expected);
    }
}

#[tokio::test]
async fn sglangs_route_answers_as_it_is_asked() {
    let server = Server::new(embedder(Matryoshka::No));
    let body = json!({"text": "abc", "rid": "r", "return_prompt_token_ids": true});
    let answer = server.post("/encode", body).await.json();
    assert_near(&answer["embedding"], &unit(3.0, 97.0));
    assert_eq!(answer["prompt_token_ids"], json!([97, 98, 99]));
    let meta = &answer["meta_info"];
    assert_eq!((&meta["id"], &meta["prompt_tokens"]), (&json!("r"), &json!(3)));
    assert_eq!(meta["finish_reason"], json!({"type": "length", "length": 0}));
    assert!(meta["e2e_latency"].as_f64().unwrap() >= 0.0);
    let answer = server.post("/encode", json!({"input_ids": [[4, 5], [7]]})).await.json();
    assert_near(&answer[1]["embedding"], &unit(1.0, 7.0));

    let server = Server::new(classifier());
    let answer = server.post("/classify", json!({"text": ["abc"]})).await.json();
    assert_near(&answer[0]["embedding"], &[3.0, 97.0]);
    let answer = server.post("/classify", json!({"text": "a", "dimensions": 1})).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn each_kind_of_model_refuses_the_others_requests() {
    let server = Server::answering("x");
    let expected = "This model does not appear to be an embedding model by default. Please add \
                    `--is-embedding` when launching the server or try another model.";
    let answer = server.post("/v1/embeddings", json!({"input": "a"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["message"]), (400, &json!(expected)));
    let answer = server.post("/encode", json!({"text": "a"})).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], expected);
    assert_eq!(server.get("/model_info").await.json()["is_generation"], true);

    let server = Server::new(embedder(Matryoshka::No));
    let expected = "This model gives embeddings or scores and no tokens: use /v1/embeddings, \
                    /encode or /classify.";
    let answer = server.post("/generate", json!({"text": "a"})).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], expected);
    let answer = server.post("/v1/completions", json!({"prompt": "a"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["message"]), (400, &json!(expected)));
    assert_eq!(server.get("/model_info").await.json()["is_generation"], false);
    assert_eq!(server.get("/health_generate").await.status, 200);
    server::warmup(&server.state).await.unwrap();
}

#[tokio::test]
async fn vectors_count_in_the_metrics() {
    let server = Server::new(embedder(Matryoshka::No));
    server.post("/v1/embeddings", json!({"input": ["abc", "de"]})).await;
    let text = server.get("/metrics").await.text;
    let count = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name) && line.contains("tiny"));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!(count("sglang:num_requests_total").as_deref(), Some("2"));
    assert_eq!(count("sglang:prompt_tokens_total").as_deref(), Some("5"));
}
