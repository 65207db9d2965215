//! The ways to split text before byte-level BPE, by the names that GGUF files
//! use for them.

use serde_json::{Value, json};

use crate::{
    Result, TokenizerError,
    split_patterns::{GPT2, LLAMA3, QWEN2, byte_level, isolated},
};

/// What a `tokenizer.ggml.pre` name stands for.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// Sorted. All names with the same rules.
    names: &'static [&'static str],
    /// Applied in a row: each splits the pieces that the one before left.
    splits: &'static [Split],
    /// Text is composed first.
    pub(super) nfc: bool,
    /// A piece that is a token is that token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Texts begin with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
}

#[derive(Debug)]
enum Split {
    /// Every match is a piece, and so is what lies between two matches.
    Regex(&'static str),
    /// Every digit (Unicode's N categories) is a piece.
    Digits,
    /// GPT-2's regular expression.
    Gpt2,
}

const SEED: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const PLAIN: PreTokenizer = PreTokenizer {
    names: &[],
    splits: &[Split::Gpt2],
    nfc: false,
    ignores_merges: false,
    adds_bos: false,
};

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        splits: &[
            Split::Regex(r"[\p{P}\$\+<=>\^~\|]+"),
            Split::Gpt2,
            Split::Regex(r"\p{N}+"),
            Split::Regex("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
    PreTokenizer { names: &["gpt-2", "granite-docling", "olmo", "phi-2"], ..PLAIN },
    PreTokenizer {
        names: &["llama-bpe", "llama-v3", "llama3"],
        splits: &[Split::Regex(LLAMA3)],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["chatglm-bpe", "dbrx", "smaug-bpe"],
        splits: &[Split::Regex(LLAMA3)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["glm4"],
        splits: &[Split::Regex(LLAMA3)],
        ignores_merges: true,
        ..PLAIN
    },
    PreTokenizer { names: &["seed-coder"], splits: &[Split::Regex(SEED)], ..PLAIN },
    PreTokenizer { names: &["deepseek-r1-qwen"], splits: &[Split::Regex(QWEN2)], ..PLAIN },
    PreTokenizer { names: &["qwen2"], splits: &[Split::Regex(QWEN2)], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["command-r", "refact", "smollm", "starcoder"],
        splits: &[Split::Digits, Split::Gpt2],
        ..PLAIN
    },
];

/// Files from before the key existed have none: that is `default`.
pub(super) fn find(pre: Option<&str>) -> Result<&'static PreTokenizer> {
    let pre = pre.unwrap_or("default");
    PRE_TOKENIZERS.iter().find(|known| known.names.contains(&pre)).ok_or_else(|| {
        let mut known: Vec<_> = PRE_TOKENIZERS.iter().flat_map(|known| known.names).collect();
        known.sort();
        let known = known.into_iter().copied().collect::<Vec<_>>().join(", ");
        TokenizerError::UnsupportedPreTokenizer { pre: pre.to_owned(), known }
    })
}

impl PreTokenizer {
    /// The `pre_tokenizer` entry of a `tokenizer.json`.
    pub(super) fn to_json(&self, add_prefix_space: bool) -> Value {
        let steps = self.splits.iter().map(|split| match split {
            Split::Regex(regex) => isolated(regex),
            Split::Digits => json!({"type": "Digits", "individual_digits": true}),
            Split::Gpt2 => isolated(GPT2),
        });
        let steps: Vec<_> = steps.chain([byte_level(add_prefix_space)]).collect();
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}
