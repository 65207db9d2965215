//! The commands other than the server.

use std::fs;

use e2e::{Goldens, run, sglang_mlx, tiny_config};
use serde_json::Value;

fn json_lines(command: &str, args: &[&str]) -> Vec<Value> {
    let output = run(command, args).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn generate_prints_tokens_and_text() {
    let goldens = Goldens::read("plain").unwrap();
    let golden = goldens.prompt("capital");
    let ids: Vec<String> = golden.input_ids.iter().map(u32::to_string).collect();
    let ids = ids.join(",");
    let lines = json_lines("generate", &["--input-ids", &ids, "--max-new-tokens", "8", "--json"]);
    let [answer] = lines.as_slice() else { panic!("one line expected: {lines:?}") };
    let found: Vec<u32> = serde_json::from_value(answer["output_ids"].clone()).unwrap();
    assert!(golden.output_ids.starts_with(&found) && !found.is_empty(), "{found:?}");
    assert!(answer["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(answer["prompt_tokens"], ids.split(',').count());
    assert!(answer["timings"].is_object());
}

#[test]
fn generate_applies_the_chat_template() {
    let args = ["--chat", "--prompt", "What is the capital of France?", "--json"];
    let lines = json_lines("generate", &[args.as_slice(), &["--max-new-tokens", "16"]].concat());
    assert!(lines[0]["text"].as_str().unwrap().contains("Paris"), "{lines:?}");
}

#[test]
fn bench_runs_with_nothing_but_a_config() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), tiny_config().to_string()).unwrap();
    let model = folder.path().to_str().unwrap();
    let lines = json_lines(
        "bench-one-batch",
        &[
            "--model-path",
            model,
            "--load-format",
            "dummy",
            "--batch-size",
            "1",
            "4",
            "--input-len",
            "32",
            "40",
            "--output-len",
            "8",
            "--json",
        ],
    );
    let sizes: Vec<_> =
        lines.iter().map(|line| [&line["input_len"], &line["batch_size"]]).collect();
    assert_eq!(sizes, [[32, 1], [32, 4], [40, 1], [40, 4]]);
    for line in &lines {
        for key in [
            "prefill_tps",
            "decode_tps",
            "ttft_ms",
            "step_ms_median",
            "peak_memory_bytes",
            "weight_bytes",
        ] {
            assert!(line[key].as_f64().is_some_and(|value| value > 0.0), "{key} in {line}");
        }
        assert!(line["host_ms_median"].as_f64().is_some(), "{line}");
    }
}

#[test]
fn check_env_finds_this_machine_fit() {
    let output = sglang_mlx().command().arg("check-env").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("MLX"), "{text}");
}

#[test]
fn flags_we_lack_are_refused_by_name() {
    let output = run("launch-server", &["--tp-size", "2"]).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0));
    assert!(text.contains("--tp-size"), "{text}");
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    for (flags, words) in [
        (
            ["--chat-template", "chatml", "--hf-chat-template-name", "default"].as_slice(),
            "--hf-chat-template-name picks one of the templates that --chat-template replaces",
        ),
        (
            ["--enable-strict-thinking", "--port", "0"].as_slice(),
            "--enable-strict-thinking needs a --reasoning-parser",
        ),
    ] {
        let output = run("serve", flags).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(words), "{errors}");
    }
}
