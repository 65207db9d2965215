//! Greedy tokens against mlx-lm's on the same weights, in f32.

use std::{fs, path::Path, thread};

use e2e::{Golden, Goldens, Weights, generate, model_folder, run, shared, smollm2_gguf, start};
use serde_json::{Value, json};
use test_kit::Client;

/// mlx-lm's lead below which either token is right: two f32 programs may
/// round a tie to different sides.
const MARGIN: f32 = 1e-3;

/// Compares each prompt up to the first token that may differ and does;
/// returns the number of tokens compared.
fn check_prompts(client: &Client, prompts: &[Golden]) -> usize {
    thread::scope(|scope| {
        let started: Vec<_> =
            prompts.iter().map(|golden| scope.spawn(|| check_prompt(client, golden))).collect();
        started.into_iter().map(|handle| handle.join().unwrap()).sum()
    })
}

fn check_prompt(client: &Client, golden: &Golden) -> usize {
    let params = json!({
        "temperature": 0, "max_new_tokens": golden.output_ids.len(), "ignore_eos": true,
    });
    let answer = generate(client, &golden.input_ids, &params);
    let found: Vec<u32> = serde_json::from_value(answer["output_ids"].clone()).unwrap();
    assert_eq!(found.len(), golden.output_ids.len(), "{}", golden.name);
    for (i, (expected, found)) in golden.output_ids.iter().zip(&found).enumerate() {
        if expected != found {
            let margin = golden.margins[i];
            assert!(margin < MARGIN, "{}: token {i} is {found}, not {expected}", golden.name);
            return i;
        }
    }
    found.len()
}

#[test]
fn the_gguf_file_gives_mlx_lms_tokens() {
    let goldens = Goldens::read("plain").unwrap();
    let compared = check_prompts(&shared(), &goldens.prompts);
    assert!(compared >= 19 * 48, "only {compared} tokens could be compared");
}

#[test]
fn the_gguf_file_gives_mlx_lms_logits() {
    check_logits(&smollm2_gguf(), &Goldens::read("plain").unwrap());
}

/// Compares the logits after one prompt, element by element.
fn check_logits(model_path: &Path, goldens: &Goldens) {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("logits.safetensors");
    let ids = &goldens.prompt(&goldens.logits_of).input_ids;
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let model_path = model_path.to_str().unwrap();
    let args = ["--model-path", model_path, "--input-ids", &ids, "--dump-logits"];
    let output = run("generate", &[&args, [file.to_str().unwrap()].as_slice()].concat()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = last_row(&file, goldens.logits.len());
    let pairs = found.iter().zip(&goldens.logits);
    let worst = pairs.map(|(found, golden)| (found - golden).abs()).fold(0.0, f32::max);
    assert!(worst <= 2e-4, "logits differ by up to {worst}");
}

/// The last `len` values of the file's tensor `logits`.
fn last_row(file: &Path, len: usize) -> Vec<f32> {
    let bytes = fs::read(file).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    assert_eq!(
        (&header["logits"]["dtype"], &header["logits"]["shape"][1]),
        (&json!("F32"), &json!(len))
    );
    let end = 8 + header_len + header["logits"]["data_offsets"][1].as_u64().unwrap() as usize;
    let row = &bytes[end - len * 4..end];
    row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn prompts_are_tokenized_as_mlx_lm_does() {
    let server = shared();
    let goldens = Goldens::read("plain").unwrap();
    let texts = goldens.prompts.iter().filter_map(|golden| Some((golden, golden.text.as_ref()?)));
    let mut compared = 0;
    for (golden, text) in texts {
        let body = json!({ "model": "default", "prompt": text, "add_special_tokens": false });
        let answer = server.post("/tokenize", &body).unwrap().json();
        assert_eq!(answer["tokens"], json!(golden.input_ids), "{}", golden.name);
        compared += 1;
    }
    assert!(compared >= 18);
}

#[test]
fn every_form_of_the_model_gives_mlx_lms_tokens() {
    // The f16 forms hold the GGUF's values exactly; with scales in bf16 it is
    // another model, and has goldens of its own.
    for (weights, goldens) in
        [(Weights::MlxF16, "plain"), (Weights::Plain, "plain"), (Weights::MlxBf16, "mlx-bf16")]
    {
        let folder = tempfile::tempdir().unwrap();
        model_folder(&smollm2_gguf(), folder.path(), weights).unwrap();
        let server = start(&["--model-path", folder.path().to_str().unwrap()]).unwrap();
        let goldens = Goldens::read(goldens).unwrap();
        check_logits(folder.path(), &goldens);
        let short = &goldens.prompts[..18];
        assert_eq!(check_prompts(&server.client(), short), 18 * 48, "{weights:?}");
    }
}
