//! Good bodies of all routes with something wrong in them: each is answered, and no answer
//! is the server's fault. The fuzz target `http_body` does the same, byte by byte, for longer.

use serde_json::{Map, Value, json};
use server::{AnswerParsers, ServerConfig};
use types::{Matryoshka, PooledModel, PooledOutput, Pooling};

use crate::support::{Answer, FakeEngine, Server, config, tokenizer};

const NUM_REQUESTS: usize = 1600;

fn bodies() -> Vec<(String, Value)> {
    let routes: Map<String, Value> =
        serde_json::from_str(include_str!("../../testdata/bodies.json")).unwrap();
    let mut bodies = Vec::new();
    for (route, list) in routes {
        bodies.extend(list.as_array().unwrap().iter().map(|body| (route.clone(), body.clone())));
    }
    bodies
}

/// What a field may turn out to be.
fn odd_values() -> Vec<Value> {
    let nested = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let words = ["", "\0é", "auto", "json_object", "a{1,", "<think>x</think><tool_call>{\"name\""];
    let numbers = json!([0, 1, -1, 7, 1.5, -0.0, 1e308, i64::MIN, u64::MAX, 4_294_967_296_u64]);
    let others = json!([null, true, false, [], {}, [null], [[]], {"type": "text", "text": "x"}]);
    let mut values: Vec<Value> = words.map(Value::from).into();
    values.extend([nested, json!("x".repeat(3000)), json!(vec![3; 300])]);
    for list in [numbers, others] {
        values.extend(list.as_array().unwrap().iter().cloned());
    }
    values
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// One of the values that `value` is made of, itself first.
fn part<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| part(item, number)),
        Value::Object(members) => members.values_mut().find_map(|member| part(member, number)),
        _ => None,
    }
}

fn any_part<'a>(value: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let mut number = dice.below(count(value));
    part(value, &mut number).unwrap()
}

fn scramble(body: &mut Value, bodies: &[(String, Value)], odd: &[Value], dice: &mut Dice) {
    let mut other = dice.pick(bodies).1.clone();
    let choice = dice.below(5);
    let target = any_part(body, dice);
    match (choice, target) {
        (0, Value::Object(members)) if !members.is_empty() => {
            let key = members.keys().nth(dice.below(members.len())).unwrap().clone();
            members.remove(&key);
        }
        (1, Value::Object(members)) => {
            let source = other.as_object_mut().unwrap();
            members.extend(std::mem::take(source).into_iter().take(1 + dice.below(3)));
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let item = dice.pick(items).clone();
            items.push(item);
        }
        (3, target) => *target = any_part(&mut other, dice).take(),
        (_, target) => *target = dice.pick(odd).clone(),
    }
}

fn servers() -> Vec<Server> {
    let parsing = |(reasoning, tool_call)| {
        let parsers = AnswerParsers::choose(reasoning, tool_call, None, &tokenizer()).unwrap();
        let config = ServerConfig { parsers, enable_streaming_session: true, ..config() };
        Server::with_config(FakeEngine::start(Answer::echo), config)
    };
    let pooled = |output| {
        Server::new(FakeEngine::pooled(PooledModel {
            pooling: Pooling::Last,
            output,
            is_encoder: false,
        }))
    };
    let labels = ["bad", "good"].map(str::to_owned).into();
    let parsers = [("none", "none"), ("qwen3", "qwen25"), ("gpt-oss", "gpt-oss")];
    let mut servers: Vec<Server> = parsers.into_iter().map(parsing).collect();
    servers.push(pooled(PooledOutput::Embedding { size: 2, shorter: Matryoshka::Any }));
    servers.push(pooled(PooledOutput::Scores { labels }));
    servers
}

#[tokio::test]
async fn no_body_is_the_servers_fault() {
    let (bodies, odd, servers) = (bodies(), odd_values(), servers());
    let mut dice = Dice(1);
    let mut num_good = 0;
    for round in 0..NUM_REQUESTS {
        let (route, body) = &bodies[round % bodies.len()];
        let mut body = body.clone();
        for _ in 0..dice.below(4) {
            scramble(&mut body, &bodies, &odd, &mut dice);
        }
        let server = dice.pick(&servers);
        let answer = server.post(route, body.clone()).await;
        let status = answer.status.as_u16();
        assert!(
            matches!(status, 200..=499 | 501 | 503),
            "{route} {body}: {status} {}",
            answer.text
        );
        assert!(!answer.text.is_empty() || status == 200, "{route} {body}: {status}");
        num_good += usize::from(status == 200);
        while !server.engine.has_seen_nothing().await {}
    }
    assert!(num_good > NUM_REQUESTS / 5, "only {num_good} are good at all");
}
