//! Model folders: which file wins, what is added, what is refused.

use std::fs;

use serde_json::json;

use super::*;
use crate::{ChatTemplate, RenderOptions, testing};

/// A model folder with the small byte-level tokenizer.
fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tokenizer = gguf::tokenizer_json(&testing::byte_level_vocab()).unwrap();
    tokenizer["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn rendered(dir: &tempfile::TempDir, options: &RenderOptions) -> Option<String> {
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let template = ChatTemplate::for_tokenizer(&tokenizer, None).unwrap()?;
    Some(template.render(&[json!({"role": "user", "content": "hi"})], options).unwrap())
}

#[test]
fn a_folder_says_the_same_as_a_gguf_file() {
    let dir = folder(&[
        (
            "tokenizer_config.json",
            json!({"bos_token": "<|im_start|>", "chat_template": "{{ bos_token }}config"}),
        ),
        ("special_tokens_map.json", json!({"eos_token": {"content": "<|im_end|>"}})),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let other = testing::byte_level();
    let text = "in the 12<|im_end|>";
    assert_eq!(tokenizer.encode(text, true).unwrap(), other.encode(text, true).unwrap());
    assert_eq!(tokenizer.vocab_size(), other.vocab_size());
    assert_eq!((tokenizer.bos_token_id(), tokenizer.eos_token_id()), (Some(1), Some(2)));
    assert_eq!(tokenizer.pad_token_id(), None);
    assert_eq!(rendered(&dir, &RenderOptions::default()).unwrap(), "<|im_start|>config");
}

#[test]
fn a_pair_has_marks_between_its_texts_and_says_where_the_second_begins() {
    let special = |token, text| json!({"SpecialToken": {"id": token, "type_id": text}});
    let sequence = |name, text| json!({"Sequence": {"id": name, "type_id": text}});
    let template = |second| {
        json!({
            "type": "TemplateProcessing", "single": [sequence("A", 0)],
            "pair": [special("<|im_start|>", 0), sequence("A", 0), special("<|im_end|>", 0),
                     sequence("B", second), special("<|im_end|>", second)],
            "special_tokens": {
                "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]},
                "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]},
            },
        })
    };
    for (second, begins_at) in [(1, Some(4)), (0, None)] {
        let dir = folder(&[]);
        let path = dir.path().join("tokenizer.json");
        let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        json["post_processor"] = template(second);
        fs::write(&path, json.to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let [a, b] = ["12", "3"].map(|text| tokenizer.encode(text, false).unwrap());
        assert_eq!((a.len(), b.len()), (2, 1));
        let expected = [vec![1], a, vec![2], b, vec![2]].concat();
        assert_eq!(tokenizer.encode_pair("12", "3").unwrap(), (expected, begins_at));
    }
    let skipped = Tokenizer::skipped().encode_pair("a", "b").unwrap_err();
    assert!(matches!(skipped, TokenizerError::Skipped));
}

#[test]
fn tokens_of_the_config_are_added() {
    let token = |content, special| {
        json!({"content": content, "special": special, "lstrip": false,
        "rstrip": false, "single_word": false, "normalized": false})
    };
    let added = json!({"272": token("<b>", false), "271": token("<a>", true), "1": token("<|im_start|>", true)});
    let dir = folder(&[(
        "tokenizer_config.json",
        json!({"added_tokens_decoder": added, "additional_special_tokens": ["<tool>"]}),
    )]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("<a><b><tool>", false).unwrap(), [271, 272, 3]);
    assert_eq!([271, 272, 3].map(|id| tokenizer.is_special(id)), [true, false, true]);
    assert_eq!(tokenizer.decode(&[271, 272, 3], true), "<b>");
    assert_eq!(tokenizer.vocab_size(), 273);
}

#[test]
fn an_added_token_with_another_id_is_refused() {
    let token = json!({"content": "<a>", "special": true, "lstrip": false, "rstrip": false,
        "single_word": false, "normalized": false});
    let dir = folder(&[("tokenizer_config.json", json!({"added_tokens_decoder": {"900": token}}))]);
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "added token '<a>' would get id 271, tokenizer_config.json says 900"
    );
}

#[test]
fn newer_template_files_win() {
    let config = ("tokenizer_config.json", json!({"chat_template": "config"}));
    let json_file = ("chat_template.json", json!({"chat_template": "json"}));
    let jinja_file = ("chat_template.jinja", json!("jinja"));
    let options = RenderOptions::default();
    let with = |files: &[(&str, Value)]| rendered(&folder(files), &options);
    assert_eq!(with(&[]), None);
    assert_eq!(with(std::slice::from_ref(&config)).unwrap(), "config");
    assert_eq!(with(&[config.clone(), json_file.clone()]).unwrap(), "json");
    assert_eq!(with(&[config, json_file, jinja_file]).unwrap(), "jinja");
}

#[test]
fn named_templates_are_chosen_by_tools() {
    let named = json!([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]);
    let dir = folder(&[("tokenizer_config.json", json!({"chat_template": named}))]);
    let options = RenderOptions::default();
    assert_eq!(rendered(&dir, &options).unwrap(), "plain");
    let options = RenderOptions { tools: vec![json!({})], ..options };
    assert_eq!(rendered(&dir, &options).unwrap(), "tools");

    // Newer checkpoints have files instead.
    let more = dir.path().join("additional_chat_templates");
    fs::create_dir(&more).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(rendered(&dir, &options).unwrap(), "file");
    fs::write(more.join("tool_use.jinja"), "tool file").unwrap();
    fs::write(more.join("rag.jinja"), "rag file").unwrap();
    assert_eq!(rendered(&dir, &options).unwrap(), "tool file");

    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let named = |name| ChatTemplate::for_tokenizer(&tokenizer, Some(name));
    let rag = named("rag").unwrap().unwrap();
    assert_eq!(rag.render(&[], &options).unwrap(), "rag file");
    assert_eq!(
        named("raq").unwrap_err().to_string(),
        "the model has no chat template 'raq' (it has: default, rag, tool_use)"
    );
}

#[test]
fn a_gguf_file_may_name_several_templates() {
    let named = |name: &str| (name.to_owned(), format!("{name} {{{{ bos_token }}}}"));
    let chat_templates = vec![named("default"), named("tool_use")];
    let vocab = GgufVocab { chat_templates, ..testing::byte_level_vocab() };
    let tokenizer = Tokenizer::from_gguf(&vocab).unwrap();
    let template = ChatTemplate::for_tokenizer(&tokenizer, None).unwrap().unwrap();
    let options = RenderOptions::default();
    assert_eq!(template.render(&[], &options).unwrap(), "default <|im_start|>");
    let options = RenderOptions { tools: vec![json!({})], ..options };
    assert_eq!(template.render(&[], &options).unwrap(), "tool_use <|im_start|>");
}

#[test]
fn a_template_of_the_users_choice() {
    let dir = folder(&[
        ("mine.jinja", json!("mine {{ eos_token }}")),
        ("mine.json", json!({"chat_template": "json"})),
        ("empty.json", json!({})),
        ("tokenizer_config.json", json!({"eos_token": "<|im_end|>"})),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let render = |name| {
        let special_tokens = tokenizer.special_tokens().clone();
        let template = ChatTemplate::from_argument(&dir.path().join(name), special_tokens)?;
        template.render(&[], &RenderOptions::default())
    };
    assert_eq!(render("mine.jinja").unwrap(), "mine <|im_end|>");
    assert_eq!(render("mine.json").unwrap(), "json");
    let error = render("empty.json").unwrap_err();
    assert!(error.to_string().ends_with("empty.json holds no chat template"), "{error}");
    let error = render("absent.jinja").unwrap_err();
    assert!(error.to_string().starts_with("no chat template file "), "{error}");
    assert!(!error.is_request_fault());
}

#[test]
fn files_that_are_missing_or_broken_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    let listed = error.to_string();
    assert!(listed.starts_with("no tokenizer.json, tiktoken.model, "), "{listed}");
    assert!(listed.ends_with(&format!(" in {}", dir.path().display())), "{listed}");
    fs::write(dir.path().join("tokenizer.json"), "{\"model\":").unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, TokenizerError::Invalid { .. }), "{error:?}");
    let dir = folder(&[("tokenizer_config.json", json!("{broken"))]);
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("tokenizer_config.json is not valid JSON"), "{error}");
}

/// Lengths that lead out of the map, and a trie that leads out of itself.
#[test]
fn a_damaged_character_map_is_refused_or_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let load = |map: &str| {
        let mut json = gguf::tokenizer_json(&testing::byte_level_vocab()).unwrap();
        json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": map});
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        Tokenizer::from_dir(dir.path())
    };
    let error = load("////fwAAAAA=").unwrap_err().to_string();
    assert!(error.ends_with("precompiled_charsmap: the trie is longer than the map"), "{error}");
    assert!(error.contains("tokenizer.json"), "{error}");
    // One unit that points far away, and one replacement.
    let tokenizer = load("BAAAAAD8//9hAA==").unwrap();
    let error = tokenizer.encode("a", false).unwrap_err();
    assert!(matches!(error, TokenizerError::Encode { .. }), "{error:?}");
}

#[test]
fn long_texts_of_one_character_are_encoded() {
    let tokenizer = testing::byte_level();
    for c in [" ", "a", "1", "\n", "😀", "<|im_"] {
        let text = c.repeat(20_000);
        let ids = tokenizer.encode(&text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
}

#[test]
fn none_encodes_nothing_and_decodes_to_nothing() {
    let tokenizer = Tokenizer::skipped();
    assert!(!tokenizer.is_there());
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_token_id()), (0, None));
    assert_eq!(tokenizer.decode(&[1, 2, 3], true), "");
    assert!(matches!(tokenizer.encode("text", false), Err(TokenizerError::Skipped)));
}
