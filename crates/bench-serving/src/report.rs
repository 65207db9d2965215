//! The figures as upstream's table and as one JSON object with upstream's names.
//!
//! Upstream: `print_metrics` and `save_results` in `sglang/benchmark/serving.py`.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value, json};

use crate::{Metrics, Recording, Spread};

const WIDTH: usize = 50;
/// Of the names; the figures come behind.
const NAMES: usize = 40;
/// Kinds of errors shown one by one.
const SHOWN_ERRORS: usize = 5;

/// The table. `settings` are named lines above the figures.
pub fn table(settings: &[(&str, String)], recording: &Recording, metrics: &Metrics) -> String {
    let mut lines = vec![title("Serving Benchmark Result", '=')];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<NAMES$} {value}"));
    for (name, value) in settings {
        line(&format!("{name}:"), value.clone());
    }
    line("Successful requests:", metrics.completed.to_string());
    line("Failed requests:", metrics.failed.to_string());
    line("Benchmark duration (s):", format!("{:.2}", metrics.duration));
    line("Total input tokens:", metrics.total_input_tokens.to_string());
    line("Total cached input tokens:", metrics.total_cached_tokens.to_string());
    line("Total generated tokens:", metrics.total_output_tokens.to_string());
    for (name, value) in [
        ("Request throughput (req/s):", metrics.request_throughput),
        ("Input token throughput (tok/s):", metrics.input_throughput),
        ("Output token throughput (tok/s):", metrics.output_throughput),
        ("Total token throughput (tok/s):", metrics.total_throughput),
        ("Concurrency:", metrics.concurrency),
    ] {
        line(name, format!("{value:.2}"));
    }
    line("Peak output token throughput (tok/s):", metrics.max_output_tokens_per_s.to_string());
    line("Peak concurrent requests:", metrics.max_concurrent_requests.to_string());
    for (heading, name, spread) in [
        ("End-to-End Latency", "E2E Latency", &metrics.e2e_latency),
        ("Time to First Token", "TTFT", &metrics.ttft),
        ("Time per Output Token (excl. 1st token)", "TPOT", &metrics.tpot),
        ("Inter-Token Latency", "ITL", &metrics.itl),
    ] {
        lines.push(title(heading, '-'));
        for (figure, _, value) in figures(spread).into_iter().filter(|figure| figure.1 != "std") {
            lines.push(format!("{:<NAMES$} {value:.2}", format!("{figure} {name} (ms):")));
        }
    }
    lines.extend(errors(recording));
    lines.push("=".repeat(WIDTH));
    lines.join("\n") + "\n"
}

fn title(text: &str, fill: char) -> String {
    let room = WIDTH.saturating_sub(text.len());
    let side = |width| fill.to_string().repeat(width);
    format!("{}{text}{}", side(room / 2), side(room - room / 2))
}

/// Name for people, name in JSON, ms.
fn figures(spread: &Spread) -> [(&'static str, &'static str, f64); 7] {
    [
        ("Mean", "mean", spread.mean),
        ("Median", "median", spread.median),
        ("Std", "std", spread.std),
        ("P90", "p90", spread.p90),
        ("P95", "p95", spread.p95),
        ("P99", "p99", spread.p99),
        ("Max", "max", spread.max),
    ]
}

/// What failed requests said, the commonest first.
fn errors(recording: &Recording) -> Vec<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for error in recording.outputs.iter().filter_map(|output| output.error.as_deref()) {
        *counts.entry(error).or_default() += 1;
    }
    if counts.is_empty() {
        return Vec::new();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let mut lines = vec![title("Errors", '-')];
    lines.extend(
        counts.iter().take(SHOWN_ERRORS).map(|(error, count)| format!("{count} x {error}")),
    );
    if counts.len() > SHOWN_ERRORS {
        lines.push(format!("and {} other errors", counts.len() - SHOWN_ERRORS));
    }
    lines
}

/// The figures behind `settings`, which are the first fields.
pub fn json(settings: Map<String, Value>, metrics: &Metrics) -> Map<String, Value> {
    let mut object = settings;
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("duration", json!(metrics.duration));
    put("completed", json!(metrics.completed));
    put("failed", json!(metrics.failed));
    put("total_input_tokens", json!(metrics.total_input_tokens));
    put("total_cached_tokens", json!(metrics.total_cached_tokens));
    put("total_output_tokens", json!(metrics.total_output_tokens));
    put("request_throughput", json!(metrics.request_throughput));
    put("input_throughput", json!(metrics.input_throughput));
    put("output_throughput", json!(metrics.output_throughput));
    put("total_throughput", json!(metrics.total_throughput));
    put("concurrency", json!(metrics.concurrency));
    put("max_output_tokens_per_s", json!(metrics.max_output_tokens_per_s));
    put("max_concurrent_requests", json!(metrics.max_concurrent_requests));
    let mut name = String::new();
    for (latency, spread) in [
        ("e2e_latency", &metrics.e2e_latency),
        ("ttft", &metrics.ttft),
        ("tpot", &metrics.tpot),
        ("itl", &metrics.itl),
    ] {
        for (_, figure, value) in figures(spread) {
            name.clear();
            write!(name, "{figure}_{latency}_ms").expect("a String takes everything");
            put(&name, json!(value));
        }
    }
    object
}

/// Upstream's `--output-details`: a list each, one entry a request, in seconds.
pub fn details(recording: &Recording) -> Map<String, Value> {
    let outputs = &recording.outputs;
    let list = |of: fn(&crate::RequestOutput) -> Value| outputs.iter().map(of).collect::<Value>();
    let mut object = Map::new();
    for (name, values) in [
        ("input_lens", list(|output| json!(output.prompt_len))),
        ("output_lens", list(|output| json!(output.output_len))),
        ("start_times", list(|output| json!(output.start.as_secs_f64()))),
        ("ttfts", list(|output| json!(output.ttft().as_secs_f64()))),
        ("itls", list(|output| output.itls().map(|gap| json!(gap.as_secs_f64())).collect())),
        ("generated_texts", list(|output| json!(output.text))),
        ("errors", list(|output| json!(output.error.as_deref().unwrap_or("")))),
    ] {
        object.insert(name.to_owned(), values);
    }
    object
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::RequestOutput;

    fn recording() -> Recording {
        let good = RequestOutput {
            latency: Duration::from_millis(250),
            prompt_len: 3,
            output_len: 1,
            ..RequestOutput::default()
        };
        let outputs = vec![good, RequestOutput::failed("full"), RequestOutput::failed("full")];
        Recording { duration: Duration::from_secs(1), outputs }
    }

    #[test]
    fn tables_are_upstreams() {
        let recording = recording();
        let settings = [("Backend", "sglang".to_owned())];
        let table = table(&settings, &recording, &Metrics::of(&recording));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "=============Serving Benchmark Result=============");
        assert_eq!(lines[1], "Backend:                                 sglang");
        for line in [
            "Successful requests:                     1",
            "Mean TTFT (ms):                          250.00",
            "2 x full",
        ] {
            assert!(lines.contains(&line), "{line} in\n{table}");
        }
        assert!(lines.iter().all(|line| line.len() <= 60));
    }

    #[test]
    fn json_has_upstreams_names() {
        let recording = recording();
        let metrics = Metrics::of(&recording);
        let settings = Map::from_iter([("backend".to_owned(), json!("sglang"))]);
        let object = json(settings, &metrics);
        assert_eq!(object.keys().next().map(String::as_str), Some("backend"));
        for (name, value) in [
            ("completed", json!(1)),
            ("failed", json!(2)),
            ("total_input_tokens", json!(3)),
            ("request_throughput", json!(1.0)),
            ("mean_e2e_latency_ms", json!(250.0)),
            ("p99_ttft_ms", json!(250.0)),
            ("median_itl_ms", json!(0.0)),
            ("std_tpot_ms", json!(0.0)),
        ] {
            assert_eq!(object[name], value, "{name}");
        }
        assert_eq!(details(&recording)["errors"], json!(["", "full", "full"]));
    }
}
