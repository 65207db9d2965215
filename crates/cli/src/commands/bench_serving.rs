//! `bench-serving`: load on a running server, ours or another.
//!
//! Flags and defaults are upstream's but for the data set: upstream's default is
//! a download, here it is `random-ids`.
//!
//! Upstream: `sglang/bench_serving.py`.

mod args;

use std::{
    fs::OpenOptions,
    io::{IsTerminal, Write, stderr, stdout},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use bench_serving::{
    Client, Load, Metrics, Recording, RequestShape, Tcp, apply,
    dataset::{Dataset, Lengths, conversations},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

pub(crate) use args::BenchServingArgs;

/// Tokens that a warm-up request generates at most, as upstream.
const WARMUP_OUTPUT_LEN: usize = 32;

pub(crate) fn run(args: &BenchServingArgs) -> Result<ExitCode> {
    let dataset = args.dataset()?;
    let url = args.url()?;
    let shape = args.request_shape()?;
    let conversations = conversations(&dataset, args.vocab_size, args.seed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = Client::new(Arc::new(Tcp(url.clone())), url, args.api_key.clone());
    let (shape, recording) = runtime.block_on(async {
        let shape = name_model(shape, &client).await?;
        prepare(args, &client, &shape, &dataset).await?;
        let total = conversations.iter().map(Vec::len).sum();
        let bar = bar(args, total);
        let (load, ticks) = (args.load(), bar.clone());
        let recording = apply(&load, &client, &shape, conversations, move |_| ticks.inc(1)).await;
        bar.finish_and_clear();
        anyhow::Ok((shape, recording))
    })?;
    let metrics = Metrics::of(&recording);
    write!(stdout(), "{}", bench_serving::table(&settings_shown(args), &recording, &metrics))?;
    if let Some(file) = &args.output_file {
        append(file, &result(args, &shape, &recording, &metrics))?;
    }
    if let Some(file) = &args.plot {
        let heading = format!("{} on {}", args.dataset_name, shape.backend);
        std::fs::write(file, bench_serving::plot(&heading, &recording, &metrics))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if metrics.completed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks the server for its model's name if requests need one and none is given.
async fn name_model(mut shape: RequestShape, client: &Client) -> Result<RequestShape> {
    if shape.model.is_empty() && shape.backend.needs_model() {
        shape.model = client.first_model().await.context("name the model with --model")?;
    }
    Ok(shape)
}

/// Warm-up requests, with prompts of their own so that the measured ones are new
/// to the prefix cache.
async fn prepare(
    args: &BenchServingArgs,
    client: &Client,
    shape: &RequestShape,
    dataset: &Dataset,
) -> Result<()> {
    if args.warmup_requests > 0 {
        let exactly = |full| Lengths { full, range_ratio: 1.0 };
        let (input, output) = match *dataset {
            Dataset::RandomIds { input, output, .. } => (input.full, output.full),
            Dataset::SharedPrefix { question, output, .. } => (question.full, output.full),
        };
        let warmup = Dataset::RandomIds {
            num_prompts: args.warmup_requests,
            num_turns: 1,
            input: exactly(input),
            output: exactly(output.min(WARMUP_OUTPUT_LEN)),
        };
        let prompts = conversations(&warmup, args.vocab_size, !args.seed)?;
        let load = Load { request_rate: f64::INFINITY, ..args.load() };
        let recording = apply(&load, client, shape, prompts, |_| ()).await;
        let error = recording.outputs.into_iter().find_map(|output| output.error);
        if let Some(error) = error {
            anyhow::bail!("the warm-up failed: {error}");
        }
    }
    if args.flush_cache {
        client.flush_cache().await?;
    }
    Ok(())
}

fn bar(args: &BenchServingArgs, total: usize) -> ProgressBar {
    if args.disable_tqdm || !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} [{elapsed}<{eta}]") {
        bar.set_style(style);
    }
    bar
}

fn settings_shown(args: &BenchServingArgs) -> [(&'static str, String); 4] {
    let limit = args.max_concurrency.map_or_else(|| "not set".to_owned(), |max| max.to_string());
    [
        ("Backend", args.backend.to_string()),
        ("Dataset", args.dataset_name.to_string()),
        ("Traffic request rate", args.request_rate.to_string()),
        ("Max request concurrency", limit),
    ]
}

/// The line for `--output-file`.
fn result(
    args: &BenchServingArgs,
    shape: &RequestShape,
    recording: &Recording,
    metrics: &Metrics,
) -> Map<String, Value> {
    // JSON has no infinity.
    let rate = args.request_rate;
    let rate = if rate.is_finite() { json!(rate) } else { json!("inf") };
    let settings = [
        ("backend", json!(shape.backend.name())),
        ("model", json!(shape.model)),
        ("dataset_name", json!(args.dataset_name.to_string())),
        ("request_rate", rate),
        ("max_concurrency", json!(args.max_concurrency)),
        ("num_prompts", json!(args.num_prompts)),
        ("random_input_len", json!(args.random_input_len)),
        ("random_output_len", json!(args.random_output_len)),
        ("random_range_ratio", json!(args.random_range_ratio)),
        ("seed", json!(args.seed)),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let mut line = bench_serving::json(Map::from_iter(settings), metrics);
    if args.output_details {
        line.extend(bench_serving::details(recording));
    }
    line
}

fn append(file: &Path, line: &Map<String, Value>) -> Result<()> {
    let open = OpenOptions::new().create(true).append(true).open(file);
    let text = serde_json::to_string(line)? + "\n";
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests;
