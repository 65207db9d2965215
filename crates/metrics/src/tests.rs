//! The exposition as Prometheus reads it.

use types::{EngineState, SchedulerStats};

use super::*;

fn stats() -> SchedulerStats {
    SchedulerStats {
        num_running_reqs: 3,
        max_total_num_tokens: 100,
        num_free_tokens: 50,
        num_protected_tokens: 25,
        num_private_tokens: 25,
        max_total_num_tokens_swa: 80,
        num_free_tokens_swa: 40,
        num_evictable_tokens_swa: 30,
        num_retractions: 2,
        retracted_input_tokens: 70,
        retracted_output_tokens: 9,
        evicted_tokens: 4,
        prompt_tokens: 10,
        cached_tokens: 4,
        prefilled_tokens: 9,
        generation_tokens: 5,
        ..SchedulerStats::default()
    }
}

fn sample(text: &str, name_and_labels: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name_and_labels));
    line.unwrap_or_else(|| panic!("no {name_and_labels} in {text}")).trim().parse().unwrap()
}

const LABELS: &str =
    r#"{model_name="m",engine_type="unified",tp_rank="0",pp_rank="0",moe_ep_rank="0"}"#;

#[test]
fn gauges_and_counters_follow_the_stats() {
    let metrics = Metrics::new("m");
    let facts = StaticFacts {
        max_running_requests: 6,
        max_total_num_tokens: 100,
        page_size: 4,
        ..StaticFacts::default()
    };
    metrics.scheduler.observe_queue_time(0.003);
    metrics.scheduler.observe(&stats(), 1.5, &facts);
    metrics
        .scheduler
        .observe_memory(&EngineState { weight_bytes: 1 << 31, ..EngineState::default() });
    let text = metrics.export(Format::Prometheus);
    for (name, value) in [
        ("num_running_reqs", 3.0),
        ("token_usage", 0.5),
        ("num_used_tokens", 50.0),
        ("swa_token_usage", 0.125),
        ("swa_used_tokens", 10.0),
        ("gen_throughput", 1.5),
        ("utilization", 0.5),
        ("weight_memory_usage_gb", 2.0),
        ("num_retracted_requests_total", 2.0),
        ("num_retracted_input_tokens_total", 70.0),
        ("num_retracted_output_tokens_total", 9.0),
        ("num_retracted_reqs", 2.0),
        ("evicted_tokens_total", 4.0),
        ("page_size", 4.0),
        ("num_pages", 25.0),
        ("queue_time_seconds_sum", 0.003),
        ("queue_time_seconds_count", 1.0),
    ] {
        assert_eq!(sample(&text, &format!("sglang:{name}{LABELS}")), value, "{name}");
    }
    for (mode, value) in [("prefill_compute", 9.0), ("prefill_cache", 4.0), ("decode", 5.0)] {
        let labels = LABELS.replace('}', &format!(",mode=\"{mode}\"}}"));
        assert_eq!(
            sample(&text, &format!("sglang:realtime_tokens_total{labels}")),
            value,
            "{mode}"
        );
    }
    // Totals are totals however often they are observed.
    metrics.scheduler.observe(&stats(), 1.5, &facts);
    let text = metrics.export(Format::Prometheus);
    assert_eq!(sample(&text, &format!("sglang:num_retracted_requests_total{LABELS}")), 2.0);
    assert_eq!(sample(&text, &format!("sglang:num_retracted_reqs{LABELS}")), 0.0);
}

#[test]
fn a_finished_request_is_counted_everywhere() {
    let metrics = Metrics::new("m");
    metrics.request.observe_first_token(0.3, true);
    metrics.request.observe_inter_token(0.03, 3);
    metrics.request.observe_finished(&FinishedRequest {
        is_streaming: true,
        prompt_tokens: 400,
        generation_tokens: 4,
        cached_tokens: 150,
        e2e_latency: 0.5,
        time_per_output_token: Some(0.01),
    });
    metrics.request.observe_aborted();
    let text = metrics.export(Format::Prometheus);
    let streaming = r#"{model_name="m",is_streaming="true"}"#;
    for (name, value) in [
        (format!("prompt_tokens_total{streaming}"), 400.0),
        (format!("generation_tokens_total{streaming}"), 4.0),
        (format!("num_requests_total{streaming}"), 1.0),
        (r#"cached_tokens_total{model_name="m",cache_source="device"}"#.to_owned(), 150.0),
        (r#"num_aborted_requests_total{model_name="m"}"#.to_owned(), 1.0),
        (format!("time_to_first_token_seconds_sum{streaming}"), 0.3),
        (r#"inter_token_latency_seconds_count{model_name="m"}"#.to_owned(), 3.0),
        (r#"inter_token_latency_seconds_bucket{model_name="m",le="0.008"}"#.to_owned(), 0.0),
        (r#"inter_token_latency_seconds_bucket{model_name="m",le="0.01"}"#.to_owned(), 3.0),
        (r#"prompt_tokens_histogram_bucket{model_name="m",le="500.0"}"#.to_owned(), 1.0),
        (r#"uncached_prompt_tokens_histogram_bucket{model_name="m",le="300.0"}"#.to_owned(), 1.0),
    ] {
        assert_eq!(sample(&text, &format!("sglang:{name}")), value, "{name}");
    }
}

#[test]
fn grammars_are_counted_by_how_they_were_come_by() {
    let metrics = Metrics::new("m");
    let grammar = &metrics.grammar;
    (0..4).for_each(|_| grammar.observe_request());
    grammar.observe_cache_hit();
    grammar.observe_aborted();
    grammar.observe_timeout();
    grammar.observe_compilation(0.015);
    let waiting = grammar.wait();
    drop(grammar.wait());
    let text = metrics.export(Format::Prometheus);
    for (name, value) in [
        ("num_grammar_total", 4.0),
        ("num_grammar_cache_hit_total", 1.0),
        ("num_grammar_aborted_total", 1.0),
        ("num_grammar_timeout_total", 1.0),
        ("num_grammar_queue_reqs", 1.0),
        ("grammar_compilation_time_seconds_sum", 0.015),
    ] {
        assert_eq!(sample(&text, &format!("sglang:{name}{LABELS}")), value, "{name}");
    }
    drop(waiting);
    let text = metrics.export(Format::Prometheus);
    assert_eq!(sample(&text, &format!("sglang:num_grammar_queue_reqs{LABELS}")), 0.0);
}

#[test]
fn http_requests_are_active_until_answered() {
    let metrics = Metrics::new("m");
    let active = |metrics: &Metrics| {
        let text = metrics.export(Format::Prometheus);
        sample(&text, r#"sglang:http_requests_active{endpoint="/a",method="GET"}"#)
    };
    let first = metrics.http.begin("/a", "GET");
    let second = metrics.http.begin("/a", "GET");
    assert_eq!(active(&metrics), 2.0);
    first.answered(200);
    drop(second);
    assert_eq!(active(&metrics), 0.0);
    let text = metrics.export(Format::Prometheus);
    assert_eq!(sample(&text, r#"sglang:http_requests_total{endpoint="/a",method="GET"}"#), 2.0);
    let responses = r#"sglang:http_responses_total{endpoint="/a",status_code="200",method="GET"}"#;
    assert_eq!(sample(&text, responses), 1.0);
}

#[test]
fn the_prometheus_format_is_consistent() {
    let metrics = Metrics::new("we\"ird\\model\n");
    metrics.request.observe_aborted();
    let text = metrics.export(Format::Prometheus);
    let mut types: Vec<(&str, &str)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            types.push(rest.split_once(' ').unwrap());
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let (family, kind) = *types.last().unwrap();
            let suffix = name.strip_prefix(family).unwrap();
            let allowed: &[&str] = match kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(allowed.contains(&suffix), "{line} under {family} {kind}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(name.starts_with("sglang:"), "{line}");
        }
    }
    assert!(text.contains(r#"model_name="we\"ird\\model\n""#), "{text}");
    assert!(!text.contains("# EOF"));
}

#[test]
fn formats_are_negotiated() {
    assert_eq!(Format::negotiate(None), Format::Prometheus);
    assert_eq!(Format::negotiate(Some("text/plain, */*")), Format::Prometheus);
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    assert_eq!(Format::negotiate(Some(accept)), Format::OpenMetrics);
    let text = Metrics::new("m").export(Format::OpenMetrics);
    assert!(text.contains("# TYPE sglang:num_aborted_requests counter\n"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn operators_choose_labels_and_buckets() {
    let options = MetricsOptions {
        extra_labels: [("zone".to_owned(), "eu".to_owned())].into(),
        buckets: LatencyBuckets {
            time_to_first_token: vec![0.5, 2.0],
            inter_token_latency: vec![0.25],
            e2e_request_latency: vec![3.0],
        },
    };
    let metrics = Metrics::with_options("m", &options);
    metrics.request.observe_first_token(1.0, true);
    metrics.request.observe_inter_token(0.5, 2);
    metrics.request.observe_finished(&FinishedRequest {
        e2e_latency: 4.0,
        time_per_output_token: Some(0.125),
        ..FinishedRequest::default()
    });
    let text = metrics.export(Format::Prometheus);
    for (sample_of, value) in [
        (
            r#"time_to_first_token_seconds_bucket{model_name="m",zone="eu",le="0.5",is_streaming="true"}"#,
            0.0,
        ),
        (
            r#"time_to_first_token_seconds_bucket{model_name="m",zone="eu",le="2.0",is_streaming="true"}"#,
            1.0,
        ),
        (r#"inter_token_latency_seconds_bucket{model_name="m",zone="eu",le="0.25"}"#, 2.0),
        (
            r#"e2e_request_latency_seconds_bucket{model_name="m",zone="eu",le="3.0",is_streaming="false"}"#,
            0.0,
        ),
        (
            r#"request_time_per_output_token_seconds_bucket{model_name="m",zone="eu",le="0.25",is_streaming="false"}"#,
            1.0,
        ),
        (r#"num_aborted_requests_total{model_name="m",zone="eu"}"#, 0.0),
    ] {
        assert_eq!(sample(&text, &format!("sglang:{sample_of}")), value, "{sample_of}");
    }
    let of_scheduler = text.lines().find(|line| line.starts_with("sglang:token_usage{")).unwrap();
    assert!(of_scheduler.contains(r#"moe_ep_rank="0",zone="eu""#), "{of_scheduler}");
}

/// What SGLang's Grafana dashboard asks for, `model_name` included.
#[test]
fn the_dashboard_finds_its_metrics() {
    let metrics = Metrics::new("m");
    metrics.request.observe_first_token(1.0, true);
    metrics.request.observe_finished(&FinishedRequest::default());
    let text = metrics.export(Format::Prometheus);
    for name in [
        "e2e_request_latency_seconds_bucket",
        "e2e_request_latency_seconds_sum",
        "e2e_request_latency_seconds_count",
        "time_to_first_token_seconds_bucket",
        "time_to_first_token_seconds_sum",
        "time_to_first_token_seconds_count",
        "num_running_reqs",
        "gen_throughput",
        "cache_hit_rate",
        "num_queue_reqs",
    ] {
        let mut samples = text.lines().filter(|line| line.starts_with(&format!("sglang:{name}{{")));
        assert!(samples.next().is_some_and(|line| line.contains(r#"model_name="m""#)), "{name}");
    }
}

#[test]
fn labels_of_samples_are_told() {
    let metrics = Metrics::new("m");
    metrics.scheduler.observe(&stats(), 1.5, &StaticFacts::default());
    metrics.request.observe_first_token(1.0, true);
    metrics.request.observe_finished(&FinishedRequest { cached_tokens: 1, ..Default::default() });
    let text = metrics.export(Format::Prometheus);
    for line in text.lines().filter(|line| line.contains("{model_name")) {
        let labels = line.split(['{', '}']).nth(1).unwrap();
        for label in labels.split(',') {
            let name = label.split_once('=').unwrap().0;
            assert!(MetricsOptions::OWN_LABELS.contains(&name), "{line}");
        }
    }
}
