//! Flags, refusals, and the line of results.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: BenchServingArgs,
}

fn parse(words: &str) -> Result<BenchServingArgs, String> {
    let words = std::iter::once("bench-serving").chain(words.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
}

#[test]
fn upstreams_words_are_understood() {
    let args = parse(
        "--backend vllm --host ::1 --dataset-name generated-shared-prefix --gsp-num-groups 2 \
         --gsp-prompts-per-group 3 --gsp-num-turns 2 --request-rate inf --max-concurrency 8 \
         --disable-stream",
    )
    .unwrap();
    assert_eq!(args.url().unwrap().to_string(), "http://[::1]:8000");
    assert_eq!(args.load().max_concurrency, Some(8));
    let shape = args.request_shape().unwrap();
    assert!(!shape.stream && shape.ignore_eos);
    let dataset = args.dataset().unwrap();
    let made = conversations(&dataset, 100, 1).unwrap();
    assert_eq!(made.len(), 6);
    assert!(made.iter().all(|turns| turns.len() == 2 && turns[0].prompt.len() == 2176));
}

#[test]
fn only_multi_turn_takes_turns() {
    let turns = |words: &str| match parse(words).unwrap().dataset().unwrap() {
        Dataset::RandomIds { num_turns, num_prompts, .. } => (num_turns, num_prompts),
        Dataset::SharedPrefix { .. } => panic!("not asked for"),
    };
    assert_eq!(turns("--dataset-name multi-turn --num-prompts 5"), (4, 5));
    assert_eq!(turns(""), (1, 1000));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (words, text) in [
        ("--dataset-name sharegpt", "`sharegpt` needs data that sglang-mlx does not fetch"),
        ("--dataset-name nonsense", "no data set of that name"),
        ("--backend trt", "unknown backend `trt`"),
        ("--base-url https://example.org", "https is not supported"),
        ("--lora-name a", "'--lora-name'"),
        ("--output-details", "--output-file"),
    ] {
        let error = parse(words).unwrap_err();
        assert!(error.contains(text), "{words}: {error}");
    }
    let late = |words: &str| {
        let args = parse(words).unwrap();
        args.dataset().map(drop).and(args.request_shape().map(drop)).unwrap_err().to_string()
    };
    assert_eq!(late("--request-rate 0"), "--request-rate must be positive");
    assert_eq!(late("--extra-request-body []"), "--extra-request-body must be a JSON object");
    assert_eq!(
        late("--backend vllm-chat --tokenize-prompt"),
        "--tokenize-prompt: `vllm-chat` takes text only"
    );
}

#[test]
fn results_are_lines_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.jsonl");
    let args = parse("--random-input-len 7").unwrap();
    let recording = Recording::default();
    let shape = args.request_shape().unwrap();
    let line = result(&args, &shape, &recording, &Metrics::of(&recording));
    append(&file, &line).unwrap();
    append(&file, &line).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["request_rate"], "inf");
    assert_eq!(lines[1]["random_input_len"], 7);
    assert_eq!(lines[1]["completed"], 0);
}
