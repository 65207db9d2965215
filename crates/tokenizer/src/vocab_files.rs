//! Which file of a model folder the vocabulary is in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    Result, TokenizerError,
    merges_file::{self, MergesError},
    sentencepiece,
    text_encoder::Vocabulary,
    tiktoken,
    tokenizer::{Config, read_json_object, read_optional},
    word_piece,
};

/// Several times the largest that are known, of 160 000 tokens.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The folder's vocabulary. Of several files `tokenizer.json` goes first: the
/// others are what it was made from.
pub(crate) fn read(dir: &Path, config: &Config) -> Result<(PathBuf, Vocabulary)> {
    let path = dir.join("tokenizer.json");
    if let Some(json) = read_optional(&path)? {
        check_chars_maps(&path, &json)?;
        return Ok((path, Vocabulary { json, roles: Default::default(), encoder: None }));
    }
    for path in tiktoken_files(dir)? {
        if let Some(bytes) = read_limited(&path)? {
            let vocabulary = read_tiktoken(&path, &bytes, config)?;
            return Ok((path, vocabulary));
        }
    }
    for name in ["tokenizer.model", "spiece.model"] {
        let path = dir.join(name);
        let Some(bytes) = read_limited(&path)? else { continue };
        let vocabulary = match tiktoken::is_one(&bytes) {
            true => read_tiktoken(&path, &bytes, config)?,
            false => sentencepiece::read(&bytes, &config.json)
                .map_err(|source| TokenizerError::SentencePiece { path: path.clone(), source })?,
        };
        return Ok((path, vocabulary));
    }
    match read_lists(dir, config)? {
        Some(vocabulary) => Ok(vocabulary),
        None => Err(TokenizerError::NotFound { dir: dir.to_owned() }),
    }
}

/// The library believes the lengths in a character map, and would ask for any
/// amount of memory.
fn check_chars_maps(path: &Path, json: &str) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Normalizer {
        normalizer: Value,
    }
    const KEY: &str = "precompiled_charsmap";
    if !json.contains(KEY) {
        return Ok(());
    }
    // What is not valid JSON the library refuses.
    let Ok(Normalizer { normalizer }) = serde_json::from_str(json) else { return Ok(()) };
    let steps = normalizer["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
    for map in steps.iter().chain([&normalizer]).filter_map(|step| step[KEY].as_str()) {
        // As above: base64.
        let Ok(map) = STANDARD.decode(map) else { continue };
        sentencepiece::check_chars_map(&map)
            .map_err(|source| TokenizerError::SentencePiece { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// The vocabulary of `vocab.json` and `merges.txt`, or of `vocab.txt`.
fn read_lists(dir: &Path, config: &Config) -> Result<Option<(PathBuf, Vocabulary)>> {
    let path = dir.join("merges.txt");
    if let Some(merges) = read_optional(&path)? {
        let vocab = read_json_object(dir.join("vocab.json"))?;
        return match merges_file::read(&vocab, &merges, &config.json) {
            Ok(vocabulary) => Ok(Some((path, vocabulary))),
            Err(MergesError::Class(class)) => Err(TokenizerError::UnsupportedClass { path, class }),
            Err(MergesError::Line(line)) => {
                let reason = "not two tokens that make a third".to_owned();
                Err(TokenizerError::Line { path, line, reason })
            }
        };
    }
    let path = dir.join("vocab.txt");
    let Some(text) = read_optional(&path)? else { return Ok(None) };
    match word_piece::read(&text, &config.json, &config.special_tokens) {
        Ok(vocabulary) => Ok(Some((path, vocabulary))),
        Err((line, reason)) => Err(TokenizerError::Line { path, line, reason }),
    }
}

/// `tiktoken.model`, then the files that are called `*.tiktoken`.
fn tiktoken_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| TokenizerError::Read { path: dir.to_owned(), source };
    let mut named = Vec::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                named.push(entry.map_err(failed)?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    named.retain(|path| path.extension().is_some_and(|extension| extension == "tiktoken"));
    named.sort();
    Ok([vec![dir.join("tiktoken.model")], named].concat())
}

fn read_tiktoken(path: &Path, bytes: &[u8], config: &Config) -> Result<Vocabulary> {
    let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let flag = |name| config.json.get(name).and_then(Value::as_bool);
    let settings = tiktoken::Settings {
        class: config.json.get("tokenizer_class").and_then(Value::as_str),
        added: &config.added_tokens,
        roles: &config.special_tokens,
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
    };
    tiktoken::read(bytes, &file, &settings)
        .map_err(|source| TokenizerError::Tiktoken { path: path.to_owned(), source })
}

/// The file's bytes, or `None` if there is no such file.
fn read_limited(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = |source| TokenizerError::Read { path: path.to_owned(), source };
    match fs::metadata(path).map(|metadata| metadata.len()) {
        Ok(len) if len > MAX_FILE_BYTES => {
            Err(TokenizerError::FileSize { path: path.to_owned(), len, max: MAX_FILE_BYTES })
        }
        Ok(_) => Ok(Some(fs::read(path).map_err(failed)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
