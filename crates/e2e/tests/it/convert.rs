//! `convert` and `--quantization` with the real model.

use std::{fs, path::Path};

use e2e::{Goldens, Weights, model_folder, run, smollm2_gguf};
use serde_json::Value;

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Greedy tokens after the prompt about a capital.
fn tokens(model: &Path, flags: &[&str]) -> Vec<u32> {
    let goldens = Goldens::read("plain").unwrap();
    let ids = &goldens.prompt("capital").input_ids;
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let args = ["--model-path", words(model), "--input-ids", &ids, "--max-new-tokens", "16"];
    let args = [args.as_slice(), &["--ignore-eos", "--json"], flags].concat();
    let output = run("generate", &args).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(answer["output_ids"].clone()).unwrap()
}

fn convert(source: &Path, target: &Path, flags: &[&str]) -> (bool, String) {
    let args = ["--hf-path", words(source), "--mlx-path", words(target)];
    let output = run("convert", &[args.as_slice(), flags].concat()).unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_converted_folder_gives_the_tokens_of_packing_on_load() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (plain, packed, dense) = (at("plain"), at("packed"), at("dense"));
    fs::create_dir(&plain).unwrap();
    model_folder(&smollm2_gguf(), &plain, Weights::Plain).unwrap();

    let (ok, log) = convert(&plain, &packed, &["-q", "--q-bits", "8"]);
    assert!(ok && log.contains("9.006 bits per weight"), "{log}");
    let size = |folder: &Path| fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(size(&packed) * 3 < size(&plain), "{} of {}", size(&packed), size(&plain));
    let expected = tokens(&plain, &["--quantization", "mlx_8bit"]);
    assert_eq!(tokens(&packed, &[]), expected);
    // Asked for what is there already.
    assert_eq!(tokens(&packed, &["--quantization", "mlx_q8"]), expected);

    let (ok, log) = convert(&packed, &dense, &["--dequantize"]);
    assert!(ok, "{log}");
    assert_eq!(size(&dense), size(&plain));
    assert_eq!(tokens(&dense, &[]), expected);

    let (ok, log) = convert(&plain, &packed, &["-q"]);
    assert!(!ok && log.contains("exists already"), "{log}");
    let (ok, log) = convert(&packed, &at("again"), &["-q"]);
    assert!(!ok && log.contains("quantized already") && !at("again").exists(), "{log}");
}

#[test]
fn what_cannot_be_packed_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("out");
    let (ok, log) = convert(&smollm2_gguf(), &target, &["-q"]);
    assert!(!ok && log.contains("is a GGUF file"), "{log}");
    let (ok, log) = convert(place.path(), &target, &["-q", "--q-bits", "7"]);
    assert!(!ok && log.contains("affine 7-bit"), "{log}");
    let (ok, log) = convert(place.path(), &target, &["-q", "--quant-predicate", "mixed_1_2"]);
    assert!(!ok && log.contains("mixed_2_6, mixed_3_4"), "{log}");
    let refused = |method: &str| {
        let output = run("generate", &["--prompt", "x", "--quantization", method]).unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refused("bitnet");
    assert!(error.contains("`bitnet` is not one of mlx_2bit"), "{error}");
    let error = refused("awq");
    assert!(error.contains("this one is by none of these"), "{error}");
    assert!(refused("mlx_4bit").contains("quantized already"), "{}", refused("mlx_4bit"));
}
