//! The model families that publish tiktoken files: the file itself has no more
//! than bytes and ranks.

use types::TokenId;

use crate::split_patterns::{KIMI, LLAMA3, QWEN2};

/// What a family's own tokenizer code says.
#[derive(Debug)]
pub(super) struct Family {
    /// As error messages call it.
    pub(super) name: &'static str,
    /// Of `tokenizer_config.json`, if it names the family's own class.
    class: Option<&'static str>,
    /// The file's name, where the class does not decide.
    file: Option<&'static str>,
    pub(super) pattern: &'static str,
    /// Text is composed first.
    pub(super) nfc: bool,
    /// A token's rank is its line's number among the tokens that are new,
    /// whatever the file says.
    pub(super) ranks_by_line: bool,
    /// The tokens that follow those of the file, from the id given on.
    pub(super) special_tokens: fn(TokenId) -> Vec<String>,
    /// `special_tokens` is no more than names for what `tokenizer_config.json`
    /// leaves out.
    pub(super) needs_config: bool,
    pub(super) roles: &'static [(&'static str, &'static str)],
    /// Put before every text unless `add_bos_token` says otherwise.
    pub(super) before: &'static [&'static str],
}

/// Sorted.
const FAMILIES: [Family; 5] = [
    Family {
        name: "GLM-4",
        class: Some("ChatGLM4Tokenizer"),
        file: None,
        pattern: LLAMA3,
        nfc: false,
        ranks_by_line: false,
        special_tokens: |_| GLM4.map(str::to_owned).to_vec(),
        needs_config: false,
        roles: &[("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
        before: &["[gMASK]", "<sop>"],
    },
    Family {
        name: "Hunyuan",
        class: Some("HYTokenizer"),
        file: Some("hy.tiktoken"),
        pattern: QWEN2,
        nfc: true,
        ranks_by_line: true,
        special_tokens: |_| {
            let named = ["endoftext", "startoftext", "bos", "eos", "pad"].map(bracketed);
            named.into_iter().chain(extras()).collect()
        },
        needs_config: false,
        roles: &[
            ("bos_token", "<|startoftext|>"),
            ("eos_token", "<|eos|>"),
            ("pad_token", "<|pad|>"),
        ],
        before: &[],
    },
    Family {
        name: "Kimi",
        class: Some("TikTokenTokenizer"),
        file: Some("tiktoken.model"),
        pattern: KIMI,
        nfc: false,
        ranks_by_line: false,
        special_tokens: |first| {
            (first..first + 258).map(|id| bracketed(&format!("reserved_token_{id}"))).collect()
        },
        needs_config: true,
        roles: &[("bos_token", "[BOS]"), ("eos_token", "[EOS]")],
        before: &[],
    },
    Family {
        name: "Llama 3",
        class: None,
        file: Some("tokenizer.model"),
        pattern: LLAMA3,
        nfc: false,
        ranks_by_line: false,
        special_tokens: |_| llama3(),
        needs_config: false,
        roles: &[("bos_token", "<|begin_of_text|>"), ("eos_token", "<|end_of_text|>")],
        before: &["<|begin_of_text|>"],
    },
    Family {
        name: "Qwen",
        class: Some("QWenTokenizer"),
        file: Some("qwen.tiktoken"),
        pattern: QWEN2,
        nfc: true,
        ranks_by_line: false,
        special_tokens: |_| {
            let named = ["endoftext", "im_start", "im_end"].map(bracketed);
            named.into_iter().chain(extras()).collect()
        },
        needs_config: false,
        roles: &[("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
        before: &[],
    },
];

const GLM4: [&str; 14] = [
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
];

/// By `tokenizer_class`, else by the file's name. The error is the names of all.
pub(super) fn find(class: Option<&str>, file: &str) -> Result<&'static Family, String> {
    let by_class = FAMILIES.iter().find(|family| class.is_some() && family.class == class);
    let by_file = || FAMILIES.iter().find(|family| family.file == Some(file));
    by_class.or_else(by_file).ok_or_else(|| FAMILIES.map(|family| family.name).join(", "))
}

fn bracketed(name: &str) -> String {
    format!("<|{name}|>")
}

fn extras() -> impl Iterator<Item = String> {
    (0..205).map(|index| bracketed(&format!("extra_{index}")))
}

/// Those of Llama 3.1, which uses some that Llama 3 reserves.
fn llama3() -> Vec<String> {
    let mut reserved = (0..).map(|index| format!("reserved_special_token_{index}"));
    let named = |id| match id {
        0 => Some("begin_of_text"),
        1 => Some("end_of_text"),
        4 => Some("finetune_right_pad_id"),
        6 => Some("start_header_id"),
        7 => Some("end_header_id"),
        8 => Some("eom_id"),
        9 => Some("eot_id"),
        10 => Some("python_tag"),
        _ => None,
    };
    let mut token = |id: u32| match named(id) {
        Some(name) => bracketed(name),
        None => bracketed(&reserved.next().unwrap_or_default()),
    };
    (0..256).map(&mut token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_known_by_its_class_or_its_file() {
        let name = |class, file| find(class, file).map(|family| family.name);
        assert_eq!(name(Some("ChatGLM4Tokenizer"), "tokenizer.model"), Ok("GLM-4"));
        assert_eq!(name(Some("PreTrainedTokenizerFast"), "tokenizer.model"), Ok("Llama 3"));
        assert_eq!(name(None, "tiktoken.model"), Ok("Kimi"));
        assert_eq!(
            name(None, "other.tiktoken"),
            Err("GLM-4, Hunyuan, Kimi, Llama 3, Qwen".to_owned())
        );
    }

    #[test]
    fn special_tokens_have_the_places_that_the_families_give_them() {
        let tokens = llama3();
        assert_eq!(tokens.len(), 256);
        assert_eq!(tokens[5], "<|reserved_special_token_2|>");
        assert_eq!(tokens[9], "<|eot_id|>");
        assert_eq!(tokens[255], "<|reserved_special_token_247|>");
        let tokens = |file| (find(None, file).unwrap().special_tokens)(7);
        assert_eq!(tokens("qwen.tiktoken").len(), 208);
        assert_eq!(tokens("hy.tiktoken")[209], "<|extra_204|>");
        assert_eq!(tokens("tiktoken.model")[257], "<|reserved_token_264|>");
    }
}
