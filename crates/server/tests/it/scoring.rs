//! `/v1/score`, `/v1/rerank` and `/v1/classify`.

use serde_json::{Value, json};
use server::AppState;
use tokenizer::ChatTemplate;
use types::{Matryoshka, PooledModel, PooledOutput, Pooling, TokenId};

use crate::{
    embeddings::{assert_near, classifier, embedder},
    support::{Answer, FakeEngine, Server, bytes_as_ids, config, tokenizer_with},
};

/// What the engine of these tests says of a token.
fn logprob(id: TokenId) -> f64 {
    -f64::from(id) / 8.0
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap()
}

#[tokio::test]
async fn scores_are_probabilities_of_the_labels_after_the_text() {
    let server = Server::answering("x");
    let body = json!({"query": "q:", "items": ["ab", "c"], "label_token_ids": [8, 16],
                      "return_token_logprobs": true, "model": "m"});
    let answer = server.post("/v1/score", body).await.json();
    let expected = [logprob(8).exp(), logprob(16).exp()];
    assert_near(&answer["scores"][0], &expected);
    assert_near(&answer["scores"][1], &expected);
    assert_near(&answer["token_logprobs"][1], &[-1.0, -2.0]);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("scoring"), &json!("m")));
    assert_eq!(answer["usage"]["prompt_tokens"], 7);
    let req = server.engine.next_req().await;
    assert_eq!(req.input_ids, bytes_as_ids("q:ab"));
    assert_eq!(req.sampling_params.max_new_tokens, Some(1));
    assert_eq!(req.sampling_params.temperature, 1.0);
    assert_eq!(req.logprobs.unwrap().token_ids[..], [8, 16]);
}

#[tokio::test]
async fn items_may_come_first_and_each_may_have_its_labels() {
    let server = Server::answering("x");
    let body = json!({"query": [1, 2], "items": [[3], [4]], "label_token_ids": [[8], [16, 8]],
                      "item_first": true, "apply_softmax": true, "temperature": 0.5});
    let answer = server.post("/v1/score", body).await.json();
    assert_near(&answer["scores"][0], &[1.0]);
    let yes = 1.0 / (1.0 + 1.0_f64.exp());
    assert_near(&answer["scores"][1], &[yes, 1.0 - yes]);
    assert!(answer.get("token_logprobs").is_none());
    let req = server.engine.next_req().await;
    assert_eq!((req.input_ids, req.sampling_params.temperature), (vec![3, 1, 2], 0.5));
    let body = json!({"query": "q", "items": [], "label_token_ids": [8]});
    assert_eq!(server.post("/v1/score", body).await.json()["scores"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_scored_is_named() {
    let server = Server::answering("x");
    for (body, expected) in [
        (json!({"query": "q", "items": "a"}), "label_token_ids must be provided"),
        (json!({"query": "q", "label_token_ids": [1]}), "items must be provided"),
        (
            json!({"query": "q", "items": "a", "label_token_ids": [260]}),
            "Token ID 260 is out of vocabulary (vocab size: 260)",
        ),
        (
            json!({"query": "q", "items": [[1]], "label_token_ids": [1]}),
            "Invalid combination of query/items types for score_request.",
        ),
        (
            json!({"query": "q", "items": ["a"], "label_token_ids": [[1], [2]]}),
            "2 lists of label_token_ids for 1 items",
        ),
        (
            json!({"query": "q", "items": "a", "label_token_ids": [1], "temperature": 0}),
            "temperature must be positive, got 0",
        ),
    ] {
        let answer = server.post("/v1/score", body).await;
        assert_eq!((answer.status.as_u16(), message(&answer.json())), (400, expected));
    }
}

#[tokio::test]
async fn a_head_of_labels_scores_without_tokens() {
    let server = Server::new(classifier());
    let body = json!({"query": "q", "items": ["ab"]});
    let answer = server.post("/v1/score", body.clone()).await.json();
    assert_near(&answer["scores"][0], &[3.0, 113.0]);
    let softmax = json!({"query": [0, 0], "items": [[1]], "apply_softmax": true});
    let answer = server.post("/v1/score", softmax).await.json();
    let least = (-3.0_f64).exp() / (1.0 + (-3.0_f64).exp());
    assert_near(&answer["scores"][0], &[1.0 - least, least]);
    let server = Server::new(embedder(Matryoshka::No));
    let answer = server.post("/v1/score", body).await;
    assert_eq!(message(&answer.json()), "This model gives embeddings and no scores.");
}

#[tokio::test]
async fn classes_are_named_by_the_model() {
    let server = Server::new(classifier());
    // The prompt's length and first token are the two scores.
    let body = json!({"input": [[2, 0], [4, 0, 0]], "model": "m"});
    let answer = server.post("/v1/classify", body).await.json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("m")));
    assert!(answer["id"].as_str().unwrap().starts_with("classify-"));
    let data = &answer["data"];
    assert_eq!(
        (&data[0]["label"], &data[1]["label"], &data[1]["index"]),
        (&json!("bad"), &json!("good"), &json!(1)),
        "the first of equals"
    );
    assert_near(&data[0]["probs"], &[0.5, 0.5]);
    let good = 1.0 / (1.0 + (-1.0_f64).exp());
    assert_near(&data[1]["probs"], &[1.0 - good, good]);
    assert_eq!((&data[0]["num_classes"], &answer["usage"]["total_tokens"]), (&json!(2), &json!(5)));
    let server = Server::new(embedder(Matryoshka::No));
    let answer = server.post("/v1/classify", json!({"input": "a"})).await;
    assert_eq!(message(&answer.json()), "This model gives embeddings and no labels.");
}

/// Answers "yes" with 258 and "no" with 259.
fn reranker(engine: FakeEngine) -> Server {
    let tokenizer = tokenizer_with(["<s>", "</s>", "yes", "no"]);
    let template = "The answer can only be \"yes\" or \"no\". {{ instruct | default('find') }} \
                    {{ messages[0].content }}|{{ messages[1].content }}";
    let template = ChatTemplate::new(template, tokenizer.special_tokens().clone()).unwrap();
    let state = AppState::new(config(), engine.handle(), tokenizer, Some(template));
    Server::of_state(state, engine)
}

#[tokio::test]
async fn documents_come_in_the_order_of_their_scores() {
    let server = reranker(FakeEngine::start(|_| Answer::text("x")));
    let body = json!({"query": "q", "documents": ["a", [{"type": "text", "text": "bc"}]],
                      "instruct": "look for"});
    let answer = server.post("/v1/rerank", body).await.json();
    let score = 1.0 / (1.0 + (logprob(259) - logprob(258)).exp());
    assert!((answer[0]["score"].as_f64().unwrap() - score).abs() < 1e-6, "{answer}");
    assert_eq!((&answer[0]["document"], &answer[1]["document"]), (&json!("a"), &json!("bc")));
    assert_eq!((&answer[1]["index"], &answer[1]["meta_info"]), (&json!(1), &json!(null)));
    let mut prompt = bytes_as_ids("The answer can only be \"");
    prompt.push(258);
    prompt.extend(bytes_as_ids("\" or \""));
    prompt.push(259);
    prompt.extend(bytes_as_ids("\". look for q|a"));
    assert_eq!(server.engine.next_req().await.input_ids, prompt);

    let body =
        json!({"query": "q", "documents": ["a", "b"], "top_n": 1, "return_documents": false});
    let answer = server.post("/v1/rerank", body).await.json();
    assert_eq!((answer.as_array().unwrap().len(), &answer[0]["document"]), (1, &json!(null)));
}

/// An encoder whose score of a pair is how many tokens it has.
fn cross_encoder(labels: &[&str]) -> Server {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Server::new(FakeEngine::pooled(PooledModel {
        pooling: Pooling::First,
        output: PooledOutput::Scores { labels },
        is_encoder: true,
    }))
}

#[tokio::test]
async fn a_cross_encoder_reads_query_and_document_together() {
    let server = cross_encoder(&["LABEL_0"]);
    let body = json!({"query": "qu", "documents": ["a", "bcd", "ef"], "top_n": 2});
    let answer = server.post("/v1/rerank", body).await.json();
    let expected = json!([
        {"score": 5.0, "document": "bcd", "index": 1, "meta_info": null},
        {"score": 4.0, "document": "ef", "index": 2, "meta_info": null},
    ]);
    assert_eq!(answer, expected);
    let req = server.engine.next_req().await;
    assert_eq!((req.input_ids, req.second_text), (bytes_as_ids("qua"), Some(2)));
    assert_eq!(req.pooling, Some(Pooling::First));
    let body = json!({"query": "q", "documents": ["a", "b".repeat(300)]});
    let answer = server.post("/v1/rerank", body.clone()).await;
    assert_eq!(answer.status, 400);
    assert!(message(&answer.json()).contains("longer than the model's context"));
    let answer = cross_encoder(&["bad", "good"]).post("/v1/rerank", body).await.json();
    assert_eq!(message(&answer), "A reranker has one label, this model has 2.");
}

#[tokio::test]
async fn what_cannot_be_ranked_is_named() {
    let server = reranker(FakeEngine::start(|_| Answer::text("x")));
    for (query, documents, expected) in [
        ("", json!(["a"]), "Query cannot be empty"),
        (" ", json!(["a"]), "Query cannot be empty or whitespace only"),
        ("q", json!([]), "Documents cannot be empty"),
        ("q", json!(["a", ""]), "Each document must be a non-empty string"),
        ("q", json!(["a", " "]), "Each document cannot be empty or whitespace only"),
    ] {
        let body = json!({"query": query, "documents": documents});
        let answer = server.post("/v1/rerank", body).await;
        assert_eq!((answer.status.as_u16(), message(&answer.json())), (400, expected));
    }
    let body = json!({"query": "q", "documents": ["a"]});
    let server = reranker(embedder(Matryoshka::No));
    let answer = server.post("/v1/rerank", body.clone()).await.json();
    assert!(
        message(&answer).ends_with("relaunch without --is-embedding for Qwen3-Reranker models.")
    );
    let answer = Server::answering("x").post("/v1/rerank", body).await.json();
    assert!(message(&answer).starts_with("This model is no reranker: "));
}
