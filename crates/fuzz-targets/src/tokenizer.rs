//! Vocabulary files of strangers: the first byte picks the file's name. What loads also
//! encodes and decodes, in pieces as whole.

use std::{fs, path::PathBuf, sync::LazyLock};

use tokenizer::{IncrementalDecoder, Tokenizer};

use crate::{folder, head};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(folder);

const NAMES: [&str; 5] =
    ["tokenizer.json", "vocab.tiktoken", "tokenizer.model", "vocab.txt", "tokenizer_config.json"];
const TEXTS: [&str; 4] =
    ["Hello, world!", " It's 12345\u{a0}€ \r\n\tnaïve 你好 🙂\u{0}", "<s></s><unk>▁Ġ<0x0A>", ""];

/// Runs one input.
pub fn run(data: &[u8]) {
    let ([file], bytes) = head(data);
    for name in NAMES {
        let _ = fs::remove_file(FOLDER.join(name));
    }
    let name = NAMES[usize::from(file) % NAMES.len()];
    if name == "tokenizer_config.json" {
        let vocabulary = include_bytes!("../../tokenizer/testdata/sentencepiece/bpe.model");
        fs::write(FOLDER.join("tokenizer.model"), vocabulary).expect("room for a file");
    }
    fs::write(FOLDER.join(name), bytes).expect("room for a file");
    let Ok(tokenizer) = Tokenizer::from_dir(&FOLDER) else { return };
    for text in TEXTS {
        let Ok(ids) = tokenizer.encode(text, true) else { continue };
        assert!(tokenizer.fewest_tokens(text.len()) <= ids.len(), "{name}: {text:?}: {ids:?}");
        for skip_special_tokens in [true, false] {
            let whole = tokenizer.decode(&ids, skip_special_tokens);
            let mut decoder = IncrementalDecoder::new(&tokenizer, skip_special_tokens);
            let mut streamed: String =
                ids.iter().map(|&id| decoder.push(&[id]).to_owned()).collect();
            streamed.push_str(decoder.flush());
            assert_eq!(streamed, whole, "{name}: {text:?}: {ids:?}");
        }
    }
}
