//! A request's tokens do not depend on its company, nor on how its prompt was
//! cut up, nor on what the cache held.

use std::thread;

use e2e::{Goldens, generate, shared, start};
use serde_json::{Value, json};
use test_kit::{Client, EventStream, ServerProcess};

/// Sixteen requests of mixed length and sampling.
fn requests() -> Vec<Value> {
    let goldens = Goldens::read("plain").unwrap();
    let short = goldens.prompts.iter().filter(|golden| golden.input_ids.len() < 100);
    let mut requests: Vec<Value> = short
        .take(15)
        .enumerate()
        .map(|(i, golden)| {
            let sampling_params = match i % 4 {
                0 => json!({ "temperature": 0, "max_new_tokens": 12 + i }),
                1 => json!({ "temperature": 0.8, "top_p": 0.9, "sampling_seed": i, "max_new_tokens": 20 }),
                2 => json!({ "temperature": 1.0, "top_k": 40, "sampling_seed": i, "max_new_tokens": 16 }),
                _ => json!({ "temperature": 0.7, "min_p": 0.05, "sampling_seed": i, "max_new_tokens": 9 }),
            };
            request(&golden.input_ids, sampling_params)
        })
        .collect();
    let long = goldens.prompt("ledger-400");
    requests.push(request(&long.input_ids, json!({ "temperature": 0, "max_new_tokens": 8 })));
    requests
}

fn request(input_ids: &[u32], mut sampling_params: Value) -> Value {
    sampling_params["ignore_eos"] = json!(true);
    json!({ "input_ids": input_ids, "sampling_params": sampling_params })
}

/// Tokens and text of one answer.
fn outcome(answer: &Value) -> (Value, Value) {
    (answer["output_ids"].clone(), answer["text"].clone())
}

fn post(client: &Client, request: &Value) -> Value {
    let response = client.post("/generate", request).unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// All requests at once, answers in their order.
fn together(client: &Client, requests: &[Value]) -> Vec<Value> {
    thread::scope(|scope| {
        let started: Vec<_> =
            requests.iter().map(|request| scope.spawn(|| post(client, request))).collect();
        started.into_iter().map(|handle| handle.join().unwrap()).collect()
    })
}

fn check_same(what: &str, expected: &[Value], found: &[Value]) {
    assert_eq!(expected.len(), found.len());
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(outcome(expected), outcome(found), "{what}: request {i}");
    }
}

#[test]
fn company_cuts_and_cache_change_nothing() {
    let requests = requests();
    let alone: Vec<Value> = {
        let server = shared();
        let alone = requests.iter().map(|request| post(&server, request)).collect::<Vec<_>>();
        check_same("in a batch of 16", &alone, &together(&server, &requests));
        check_same("as one batch request", &alone, &as_one_batch(&server, &requests));
        alone
    };
    for (what, args) in [
        ("prefill in chunks of 16", ["--chunked-prefill-size", "16"].as_slice()),
        ("without radix cache", &["--disable-radix-cache"]),
        ("without overlap", &["--disable-overlap-schedule"]),
    ] {
        let server = start(args).unwrap();
        check_same(what, &alone, &together(&server.client(), &requests));
    }
}

fn as_one_batch(client: &Client, requests: &[Value]) -> Vec<Value> {
    let column =
        |key: &str| requests.iter().map(|request| request[key].clone()).collect::<Vec<_>>();
    let body = json!({
        "input_ids": column("input_ids"), "sampling_params": column("sampling_params"),
    });
    post(client, &body).as_array().unwrap().clone()
}

#[test]
fn retracted_requests_end_the_same() {
    let requests: Vec<Value> = (0..4)
        .map(|i| {
            let params = json!({ "temperature": 0.9, "sampling_seed": i, "max_new_tokens": 80 });
            request(&[504, 2644, 282, 260 + i], params)
        })
        .collect();
    let expected = as_one_batch(&shared(), &requests);
    // Room for two requests of 84 tokens; the optimistic estimate admits all four,
    // as long as each comes when those before are under way.
    let args = ["--max-total-tokens", "192", "--schedule-conservativeness", "0.1"];
    let server = start(&args).unwrap();
    let streams: Vec<_> = requests.iter().map(|request| begun(&server, request)).collect();
    let found: Vec<Value> = streams.into_iter().map(last_event).collect();
    check_same("after retraction", &expected, &found);
    let retractions: u64 =
        found.iter().map(|answer| answer["meta_info"]["num_retractions"].as_u64().unwrap()).sum();
    assert!(retractions > 0, "192 tokens are too few for four requests of 84");
}

/// The request as a stream that has brought its first token.
fn begun(server: &ServerProcess, request: &Value) -> EventStream {
    let mut request = request.clone();
    request["stream"] = json!(true);
    let mut events = server.client().stream("/generate", &request).unwrap();
    events.next().unwrap().unwrap();
    events
}

fn last_event(events: EventStream) -> Value {
    events.collect_data().unwrap().pop().unwrap()
}

#[test]
fn samples_of_one_prompt_are_listed_in_order() {
    let server = shared();
    let body = json!({
        "input_ids": [[504, 2644], [504, 3575]],
        "sampling_params": { "n": 2, "temperature": 0, "max_new_tokens": 6, "ignore_eos": true },
    });
    let answers = post(&server, &body);
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 4);
    let params = json!({ "temperature": 0, "max_new_tokens": 6, "ignore_eos": true });
    for (i, prompt) in [[504, 2644], [504, 2644], [504, 3575], [504, 3575]].iter().enumerate() {
        assert_eq!(answers[i]["output_ids"], generate(&server, prompt, &params)["output_ids"]);
    }
}
