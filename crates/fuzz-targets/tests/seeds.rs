//! Good inputs go through every target, whose own assertions are what is tested.

use fuzz_targets::*;
use serde_json::Value;

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn json(path: &str) -> Value {
    serde_json::from_slice(&file(path)).expect("JSON")
}

fn file(path: &str) -> Vec<u8> {
    std::fs::read(format!("{TESTDATA}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn outputs_of_models() {
    let outputs = json("parsers/testdata/outputs.json");
    for (kind, run) in [("tool_call", tool_call::run as fn(&[u8])), ("reasoning", reasoning::run)] {
        for (index, case) in outputs[kind].as_array().unwrap().iter().enumerate() {
            let text = case["text"].as_str().unwrap().as_bytes();
            run(&[&[index as u8, index as u8], text].concat());
        }
    }
}

#[test]
fn bodies_of_all_routes() {
    let bodies = json("server/testdata/bodies.json");
    let bodies = bodies.as_object().unwrap();
    for (index, route) in http_body::ROUTES.iter().enumerate() {
        let mut several = vec![index as u8, 1];
        for body in bodies[*route].as_array().unwrap() {
            let body = body.to_string().into_bytes();
            http_body::run(&[&[index as u8, 0], body.as_slice()].concat());
            several.extend([&body, b"\n----\n".as_slice(), &[index as u8]].concat());
        }
        http_body::run(&several);
    }
    assert_eq!(bodies.len(), http_body::ROUTES.len());
}

#[test]
fn grammars_and_templates() {
    for backend in [0, 4] {
        for (kind, text) in [
            (
                0,
                r#"{"type": "object", "properties": {"a": {"enum": ["x", 5]}}, "required": ["a"]}"#,
            ),
            (1, "[a-c]{2,5}(x|y)*"),
            (2, "root ::= \"a\" root \"b\" | \"x\""),
            (
                3,
                r#"{"structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}], "triggers": ["<f"]}"#,
            ),
        ] {
            (0..8).for_each(|seed| {
                grammar::run(&[&[kind + backend, seed], text.as_bytes()].concat())
            });
        }
    }
    let template = "{% for m in messages %}{{ m.content }}{{ tools | tojson }}{% endfor %}";
    chat_template::run(format!("{template}\n----\n[{{\"content\": \"é\"}}]").as_bytes());
}

#[test]
fn files_of_models() {
    gguf::run(&file("model-loader/testdata/gguf/smollm3.gguf"));
    tokenizer::run(
        &[b"\x02", file("tokenizer/testdata/sentencepiece/bpe.model").as_slice()].concat(),
    );
    tokenizer::run(
        &[b"\x01", file("tokenizer/testdata/tiktoken/small.tiktoken").as_slice()].concat(),
    );
    let header = br#"{"a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}"#;
    let len = (header.len() as u64).to_le_bytes();
    safetensors::run(&[[0; 4].as_slice(), &len, header, &[0; 16]].concat());
}
