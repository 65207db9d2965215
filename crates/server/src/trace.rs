//! OpenTelemetry traces: a span for each request, sent as JSON over OTLP/HTTP.
//!
//! The exporter is this file and the HTTP client that downloads use: what OpenTelemetry's own
//! crates would add (protobuf, gRPC, a second HTTP client) is more than all of the server. Names
//! of attributes are upstream's. A request that comes with a `traceparent` joins its trace.
//!
//! Upstream: `sglang/srt/observability/trace.py`.

mod export;
mod parent;

use std::time::Duration;

use serde_json::{Value, json};
use types::{FinishReason, ReqCounts};
use uuid::Uuid;

pub(crate) use export::Exporter;
pub(crate) use parent::{TraceParent, adopt_parent, current_parent};

use crate::requests::Received;

/// OTLP's numbers of kinds of spans, and of a status.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const ERROR: u8 = 2;

/// `--enable-trace` and its companions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// Where spans are posted, e.g. `http://localhost:4318/v1/traces`.
    pub url: String,
    /// `service.name` of the spans.
    pub service_name: String,
}

/// How a request went, for its spans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome<'a> {
    pub(crate) model: &'a str,
    pub(crate) counts: ReqCounts,
    /// `None`: the client left.
    pub(crate) finish_reason: Option<&'a FinishReason>,
    /// Since the request came.
    pub(crate) first_token: Option<Duration>,
    pub(crate) last_token: Option<Duration>,
    pub(crate) end: Duration,
}

/// The request, its time to the first token (waiting included), and its decoding.
pub(crate) fn spans(request: &Received, outcome: &Outcome<'_>) -> Vec<Value> {
    let parent = request.parent.as_ref();
    let trace = parent.map_or_else(trace_id, |parent| parent.trace_id.clone());
    let root = span_id();
    let at = |since: Duration| ((request.at * 1e9) as u128 + since.as_nanos()).to_string();
    let span = |kind: u8, (id, parent): (&str, &str), name: &str, (from, to): (_, _)| {
        json!({
            "traceId": trace, "spanId": id, "parentSpanId": parent, "name": name, "kind": kind,
            "startTimeUnixNano": at(from), "endTimeUnixNano": at(to),
        })
    };
    let part = |name: &str, times| span(INTERNAL, (&span_id(), &root), name, times);
    let caller = parent.map_or("", |parent| parent.span_id.as_str());
    let name = format!("Req {}", request.rid);
    let mut whole = span(SERVER, (&root, caller), &name, (Duration::ZERO, outcome.end));
    whole["attributes"] = attributes(request, outcome);
    if let Some(FinishReason::Abort { message, .. }) = outcome.finish_reason {
        whole["status"] = json!({"code": ERROR, "message": message});
    }
    let first = outcome.first_token;
    let prefill = first.map(|first| part("prefill", (Duration::ZERO, first)));
    let decode = first.zip(outcome.last_token).map(|times| part("decode", times));
    [Some(whole), prefill, decode].into_iter().flatten().collect()
}

fn attributes(request: &Received, outcome: &Outcome<'_>) -> Value {
    let (params, counts) = (&request.params, outcome.counts);
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    // 64-bit integers are strings in protobuf's JSON.
    let int =
        |key: &str, value: usize| json!({"key": key, "value": {"intValue": value.to_string()}});
    let float = |key: &str, value: f64| json!({"key": key, "value": {"doubleValue": value}});
    let reason = match outcome.finish_reason {
        Some(FinishReason::Stop { .. }) => "stop",
        Some(FinishReason::Length { .. }) => "length",
        Some(FinishReason::Abort { .. }) | None => "abort",
    };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let decode = outcome.first_token.zip(outcome.last_token).map(|(first, last)| last - first);
    let mut attributes = vec![
        text("gen_ai.request.id", &request.rid),
        text("gen_ai.response.model", outcome.model),
        text("gen_ai.response.finish_reasons", reason),
        int("gen_ai.usage.prompt_tokens", counts.prompt_tokens),
        int("gen_ai.usage.completion_tokens", counts.completion_tokens),
        int("gen_ai.usage.cached_tokens", counts.cached_tokens),
        float("gen_ai.request.temperature", params.temperature.into()),
        float("gen_ai.request.top_p", params.top_p.into()),
        int("gen_ai.request.top_k", params.top_k as usize),
        float("gen_ai.latency.e2e", outcome.end.as_secs_f64()),
    ];
    let maybe = [
        params.max_new_tokens.map(|max| int("gen_ai.request.max_tokens", max)),
        seconds(outcome.first_token).map(|s| float("gen_ai.latency.time_to_first_token", s)),
        seconds(decode).map(|s| float("gen_ai.latency.time_in_model_decode", s)),
    ];
    attributes.extend(maybe.into_iter().flatten());
    Value::Array(attributes)
}

/// 16 random bytes, in hexadecimal.
fn trace_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// 8 random bytes, in hexadecimal.
fn span_id() -> String {
    trace_id()[16..].to_owned()
}

#[cfg(test)]
mod tests {
    use types::SamplingParams;

    use super::*;

    fn request(parent: Option<TraceParent>) -> Received {
        Received {
            rid: "r".to_owned(),
            prompt_ids: [1, 2].into(),
            params: SamplingParams { max_new_tokens: Some(7), ..SamplingParams::default() },
            is_streaming: true,
            at: 1000.5,
            parent,
        }
    }

    fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
        let attributes = span["attributes"].as_array().unwrap();
        &attributes.iter().find(|attribute| attribute["key"] == key).unwrap()["value"]
    }

    #[test]
    fn a_request_is_a_span_with_two_parts() {
        let parent = TraceParent { trace_id: "a".repeat(32), span_id: "b".repeat(16) };
        let outcome = Outcome {
            model: "tiny",
            counts: ReqCounts { prompt_tokens: 2, completion_tokens: 3, ..ReqCounts::default() },
            finish_reason: Some(&FinishReason::Length { length: 3 }),
            first_token: Some(Duration::from_millis(250)),
            last_token: Some(Duration::from_millis(750)),
            end: Duration::from_secs(1),
        };
        let spans = spans(&request(Some(parent)), &outcome);
        let [whole, prefill, decode] = spans.as_slice() else { panic!("{spans:?}") };
        assert!(spans.iter().all(|span| span["traceId"] == "a".repeat(32).as_str()));
        assert_eq!((&whole["parentSpanId"], &whole["kind"]), (&json!("b".repeat(16)), &json!(2)));
        assert_eq!(whole["name"], "Req r");
        for (part, name) in [(prefill, "prefill"), (decode, "decode")] {
            assert_eq!((&part["name"], &part["parentSpanId"]), (&json!(name), &whole["spanId"]));
            assert_ne!(part["spanId"], whole["spanId"]);
        }
        let times = |span: &Value| {
            [&span["startTimeUnixNano"], &span["endTimeUnixNano"]].map(Value::to_string)
        };
        assert_eq!(times(whole), ["\"1000500000000\"", "\"1001500000000\""]);
        assert_eq!(times(prefill), ["\"1000500000000\"", "\"1000750000000\""]);
        assert_eq!(times(decode), ["\"1000750000000\"", "\"1001250000000\""]);
        for (key, value) in [
            ("gen_ai.request.id", json!({"stringValue": "r"})),
            ("gen_ai.response.finish_reasons", json!({"stringValue": "length"})),
            ("gen_ai.usage.completion_tokens", json!({"intValue": "3"})),
            ("gen_ai.request.max_tokens", json!({"intValue": "7"})),
            ("gen_ai.latency.time_to_first_token", json!({"doubleValue": 0.25})),
            ("gen_ai.latency.time_in_model_decode", json!({"doubleValue": 0.5})),
        ] {
            assert_eq!(attribute(whole, key), &value, "{key}");
        }
        assert!(whole.get("status").is_none());
    }

    #[test]
    fn an_aborted_request_has_a_trace_of_its_own_and_an_error() {
        let aborted = FinishReason::aborted();
        let outcome = Outcome {
            model: "tiny",
            counts: ReqCounts::default(),
            finish_reason: Some(&aborted),
            first_token: None,
            last_token: None,
            end: Duration::ZERO,
        };
        let [one, two] = [0, 1].map(|_| spans(&request(None), &outcome));
        assert_eq!((one.len(), two.len()), (1, 1));
        assert_eq!(one[0]["status"]["code"], 2);
        assert_eq!(one[0]["parentSpanId"], "");
        assert_ne!(one[0]["traceId"], two[0]["traceId"]);
        assert_eq!(one[0]["traceId"].as_str().map(str::len), Some(32));
        assert_eq!(one[0]["spanId"].as_str().map(str::len), Some(16));
    }
}
