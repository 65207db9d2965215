//! The tokenizer of a model.
//!
//! Encoding is Hugging Face's library, or `text_encoder` for vocabularies that
//! are not in its form; decoding is our own table (see
//! `detokenizer`), so that streamed and whole text cannot differ.
//!
//! Upstream: `sglang/srt/utils/hf_transformers_utils.py` (`get_tokenizer`).

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};
use tokenizers::AddedToken;
use types::TokenId;

use crate::{
    GgufVocab, IncrementalDecoder, Result, SpecialTokens, TokenizerError,
    chat_template::TemplateSources,
    detokenizer::Detokenizer,
    gguf, length_bound,
    text_encoder::{OwnEncoder, Vocabulary},
    vocab_files,
};

/// Keeps a stray id in a damaged file from claiming all memory.
const MAX_VOCAB_SIZE: usize = 1 << 22;

/// Encodes and decodes. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    /// `None` if there is no tokenizer at all.
    library: Option<tokenizers::Tokenizer>,
    /// `None`: the library encodes.
    encoder: Option<OwnEncoder>,
    detokenizer: Detokenizer,
    /// `None`: no limit.
    max_text_bytes_per_token: Option<usize>,
    special_tokens: SpecialTokens,
    templates: TemplateSources,
}

impl Tokenizer {
    /// Reads the vocabulary of a model folder (`tokenizer.json`, or where there
    /// is none a tiktoken file or SentencePiece's `tokenizer.model`) and, where
    /// present, `tokenizer_config.json`, `special_tokens_map.json` and the chat
    /// template.
    ///
    /// # Errors
    /// No vocabulary, an unreadable or invalid file, an unknown decoder, a
    /// tiktoken file of an unknown family, a SentencePiece model of a kind that
    /// is not supported.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let mut config = Config::read(dir)?;
        let (path, vocabulary) = vocab_files::read(dir, &config)?;
        let origin = path.display().to_string();
        config.special_tokens.fill(&vocabulary.roles);
        let templates = TemplateSources::from_dir(dir, &config.json)?;
        Self::build(origin, vocabulary, &config.added_tokens, config.special_tokens, templates)
    }

    /// Builds the tokenizer that a GGUF file describes in its metadata.
    ///
    /// # Errors
    /// A tokenizer model or pre-tokenizer that is not supported, by its name;
    /// metadata that contradict each other.
    pub fn from_gguf(vocab: &GgufVocab) -> Result<Self> {
        let json = gguf::tokenizer_json(vocab)?.to_string();
        let templates = TemplateSources::named(vocab.chat_templates.clone());
        let roles = gguf::special_tokens(vocab)?;
        let vocabulary = Vocabulary { json, roles: roles.clone(), encoder: None };
        Self::build("the GGUF file".to_owned(), vocabulary, &[], roles, templates)
    }

    /// For a server of token ids: encodes nothing, and every id stands for no text.
    pub fn skipped() -> Self {
        let detokenizer = Detokenizer::new(&Value::Null, &[]);
        Self(Arc::new(Inner {
            library: None,
            encoder: None,
            detokenizer: detokenizer.expect("no decoder is a decoder"),
            max_text_bytes_per_token: None,
            special_tokens: SpecialTokens::default(),
            templates: TemplateSources::single(None),
        }))
    }

    /// False for [`Tokenizer::skipped`].
    pub fn is_there(&self) -> bool {
        self.0.library.is_some()
    }

    fn build(
        origin: String,
        vocabulary: Vocabulary,
        added_tokens: &[(TokenId, AddedToken)],
        special_tokens: SpecialTokens,
        templates: TemplateSources,
    ) -> Result<Self> {
        let invalid = |source| TokenizerError::Invalid { origin: origin.clone(), source };
        // A damaged normalizer panics where it meets an added token.
        let parse = || tokenizers::Tokenizer::from_bytes(vocabulary.json.as_bytes());
        let parsed = panic::catch_unwind(AssertUnwindSafe(parse));
        let parsed = parsed.unwrap_or_else(|_| Err("the tokenizer panics".into()));
        let mut library = parsed.map_err(invalid)?;
        // Limits of the training set-up, not of the model.
        library.with_truncation(None).map_err(invalid)?.with_padding(None);
        add_missing_tokens(&mut library, added_tokens, &special_tokens)?;
        let decoder =
            serde_json::to_value(library.get_decoder()).map_err(|error| invalid(error.into()))?;
        let detokenizer = Detokenizer::new(&decoder, &token_list(&library)?)?;
        let max_text_bytes_per_token = length_bound::max_text_bytes_per_token(
            &library,
            vocabulary.encoder.as_ref(),
            &detokenizer,
        );
        Ok(Self(Arc::new(Inner {
            library: Some(library),
            encoder: vocabulary.encoder,
            detokenizer,
            max_text_bytes_per_token,
            special_tokens,
            templates,
        })))
    }

    /// Token ids of `text`. Special tokens that are spelt out in the text are
    /// recognised; `add_special_tokens` adds those that the model wants around
    /// every text (BOS, as a rule).
    ///
    /// # Errors
    /// Text that the pre-tokenizer's regular expression gives up on.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<TokenId>> {
        let failed = |reason: String| TokenizerError::Encode { len: text.len(), reason };
        let library = self.0.library.as_ref().ok_or(TokenizerError::Skipped)?;
        let encode = || match &self.0.encoder {
            Some(encoder) => encoder.encode(library, text, add_special_tokens),
            None => {
                let encoding = library.encode_fast(text, add_special_tokens)?;
                Ok(encoding.get_ids().to_vec())
            }
        };
        // The regex engine panics where its back-tracking limits are reached.
        match panic::catch_unwind(AssertUnwindSafe(encode)) {
            Ok(Ok(ids)) => Ok(ids),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("the pre-tokenizer gave up".to_owned())),
        }
    }

    /// Token ids of two texts that belong together, with the special tokens that the model
    /// wants around and between them, and where the second text begins if the model tells
    /// texts apart (BERT does, RoBERTa does not).
    ///
    /// # Errors
    /// As [`Self::encode`]; a tokenizer that is not from a `tokenizer.json`.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<(Vec<TokenId>, Option<usize>)> {
        let len = first.len() + second.len();
        let failed = |reason: String| TokenizerError::Encode { len, reason };
        let library = self.0.library.as_ref().ok_or(TokenizerError::Skipped)?;
        if self.0.encoder.is_some() {
            return Err(failed("pairs of texts need a tokenizer.json".to_owned()));
        }
        let encode = || library.encode_fast((first, second), true);
        match panic::catch_unwind(AssertUnwindSafe(encode)) {
            Ok(Ok(pair)) => {
                let begins_at = pair.get_type_ids().iter().position(|&text| text == 1);
                Ok((pair.get_ids().to_vec(), begins_at))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("the pre-tokenizer gave up".to_owned())),
        }
    }

    /// No text of `len_bytes` bytes is fewer tokens than this. A prompt that is
    /// too long by this count need not be encoded, which would take some hundred
    /// bytes of memory per byte of text. 0 if the tokenizer sets no such limit.
    pub fn fewest_tokens(&self, len_bytes: usize) -> usize {
        self.0.max_text_bytes_per_token.map_or(0, |most| len_bytes.div_ceil(most))
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD, ids outside
    /// the vocabulary stand for nothing. Spaces are never "cleaned up", and
    /// SGLang's `spaces_between_special_tokens` has no effect (as with every
    /// fast tokenizer of transformers).
    pub fn decode(&self, ids: &[TokenId], skip_special_tokens: bool) -> String {
        let mut decoder = IncrementalDecoder::new(self, skip_special_tokens);
        let mut text = decoder.push(ids).to_owned();
        text.push_str(decoder.flush());
        text
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.0.library.as_ref()?.token_to_id(token)
    }

    /// A token's spelling in the vocabulary (`Ġthe`, `▁the`, `<0x0A>`).
    pub fn id_to_token(&self, id: TokenId) -> Option<String> {
        self.0.library.as_ref()?.id_to_token(id)
    }

    /// The bytes a token stands for; empty for ids outside the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.0.detokenizer.token_bytes(id)
    }

    /// One more than the highest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.0.detokenizer.vocab_size()
    }

    /// True for tokens that `skip_special_tokens` leaves out.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.0.detokenizer.is_special(id)
    }

    /// Texts of the tokens with a role.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.0.special_tokens
    }

    /// The id of the token that begins a text.
    pub fn bos_token_id(&self) -> Option<TokenId> {
        self.role_id("bos_token")
    }

    /// The id of the token that ends a text. A model may have more than this
    /// one: see [`eos_token_ids`](crate::eos_token_ids).
    pub fn eos_token_id(&self) -> Option<TokenId> {
        self.role_id("eos_token")
    }

    /// The id of the token that fills up batches.
    pub fn pad_token_id(&self) -> Option<TokenId> {
        self.role_id("pad_token")
    }

    fn role_id(&self, role: &str) -> Option<TokenId> {
        self.token_to_id(self.0.special_tokens.get(role)?)
    }

    /// True if text stands between the tokens of a text, which no token has.
    pub fn joins_tokens(&self) -> bool {
        !self.0.detokenizer.joiner().is_empty()
    }

    pub(crate) fn templates(&self) -> &TemplateSources {
        &self.0.templates
    }

    pub(crate) fn detokenizer(&self) -> &Detokenizer {
        &self.0.detokenizer
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// What a model folder says about its vocabulary, whatever file that is in.
pub(crate) struct Config {
    /// `tokenizer_config.json`.
    pub(crate) json: Map<String, Value>,
    /// Its `added_tokens_decoder`, sorted by id.
    pub(crate) added_tokens: Vec<(TokenId, AddedToken)>,
    /// The tokens that have a role by `tokenizer_config.json` or
    /// `special_tokens_map.json`.
    pub(crate) special_tokens: SpecialTokens,
}

impl Config {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        let json = read_json_object(path.clone())?;
        let mut special_tokens = SpecialTokens::default();
        special_tokens.merge_json(&json);
        special_tokens.merge_json(&read_json_object(dir.join("special_tokens_map.json"))?);
        let mut added_tokens = Vec::new();
        let entries = json.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, entry) in entries.into_iter().flatten() {
            let failed = |reason: String| TokenizerError::AddedToken {
                path: path.clone(),
                id: id.clone(),
                reason,
            };
            let number = id.parse().map_err(|_| failed("the id is not a number".to_owned()))?;
            let token = serde_json::from_value(entry.clone());
            added_tokens.push((number, token.map_err(|error| failed(error.to_string()))?));
        }
        added_tokens.sort_by_key(|(id, _)| *id);
        Ok(Self { json, added_tokens, special_tokens })
    }
}

/// Adds what `tokenizer_config.json` knows and the vocabulary does not: added
/// tokens, and that a token is special.
fn add_missing_tokens(
    encoder: &mut tokenizers::Tokenizer,
    added_tokens: &[(TokenId, AddedToken)],
    special_tokens: &SpecialTokens,
) -> Result<()> {
    let invalid =
        |source| TokenizerError::Invalid { origin: "added_tokens_decoder".to_owned(), source };
    let known = encoder.get_added_vocabulary().get_vocab();
    let tokens = added_tokens.iter().map(|(_, token)| token.clone());
    let unknown: Vec<_> = tokens.filter(|token| !known.contains_key(&token.content)).collect();
    encoder.add_tokens(unknown).map_err(invalid)?;
    for (id, AddedToken { content, .. }) in added_tokens {
        match encoder.token_to_id(content) {
            Some(got) if got != *id => {
                return Err(TokenizerError::AddedTokenId {
                    content: content.clone(),
                    id: *id,
                    got,
                });
            }
            _ => {}
        }
    }

    let named = special_tokens.roles().map(|(_, text)| text);
    let named = named.chain(special_tokens.additional().iter().map(String::as_str));
    let named: Vec<_> = named
        .filter(|text| encoder.token_to_id(text).is_some())
        .filter(|text| !encoder.get_added_vocabulary().is_special_token(text))
        .map(|text| AddedToken::from(text, true).normalized(false))
        .collect();
    encoder.add_special_tokens(named).map_err(invalid)?;
    Ok(())
}

/// Text and specialness of every id up to the highest.
fn token_list(encoder: &tokenizers::Tokenizer) -> Result<Vec<Option<(String, bool)>>> {
    let size = encoder.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
    if size > MAX_VOCAB_SIZE {
        return Err(TokenizerError::VocabSize { size, max: MAX_VOCAB_SIZE });
    }
    let token = |id| {
        let text = encoder.id_to_token(id)?;
        let special = encoder.get_added_vocabulary().is_special_token(&text);
        Some((text, special))
    };
    Ok((0..size as TokenId).map(token).collect())
}

/// The file's text, or `None` if there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}

/// The file's JSON object; empty if there is no such file or it is no object.
pub(crate) fn read_json_object(path: PathBuf) -> Result<Map<String, Value>> {
    let Some(text) = read_optional(&path)? else { return Ok(Map::new()) };
    match serde_json::from_str(&text).map_err(|source| TokenizerError::Json { path, source })? {
        Value::Object(object) => Ok(object),
        _ => Ok(Map::new()),
    }
}

#[cfg(test)]
mod tests;
