//! A conversation as its next request shows it.

use serde_json::{Value, json};

use crate::{Backend, RequestOutput};

/// Common words: one token each, or nearly, in any vocabulary of English.
const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "in", "for", "is", "on", "that", "by", "this", "with", "you", "it",
    "not", "or", "be", "are", "from", "at", "as", "your", "all", "have", "new", "more", "an",
    "was", "we", "will", "home", "can", "us", "about", "if", "page", "my", "has", "search", "free",
    "but", "our", "one", "other", "do", "no", "time", "they", "site", "he", "up", "may", "what",
    "which", "their", "news", "out", "use", "any", "there", "see", "only", "so", "his",
];

/// What was said so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum History {
    /// As `input_ids` and `prompt` take them.
    Ids(Vec<u32>),
    /// For interfaces that answer in text only.
    Text(String),
    /// `messages`.
    Messages(Vec<Value>),
}

impl History {
    /// Nothing said yet, in the form that `backend` needs for so many turns.
    pub(crate) fn new(backend: Backend, num_turns: usize) -> Self {
        match backend.api() {
            crate::backend::Api::Generate => Self::Ids(Vec::new()),
            crate::backend::Api::Completions if num_turns == 1 => Self::Ids(Vec::new()),
            crate::backend::Api::Completions => Self::Text(String::new()),
            crate::backend::Api::Chat => Self::Messages(Vec::new()),
        }
    }

    /// The user's next words.
    pub(crate) fn ask(&mut self, prompt: &[u32]) {
        match self {
            Self::Ids(ids) => ids.extend_from_slice(prompt),
            Self::Text(text) => {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(&words(prompt));
            }
            Self::Messages(messages) => {
                messages.push(json!({"role": "user", "content": words(prompt)}));
            }
        }
    }

    /// What the server said; false if the answer lacks what this form needs.
    pub(crate) fn answer(&mut self, output: &RequestOutput) -> bool {
        match self {
            Self::Ids(ids) => ids.extend_from_slice(&output.output_ids),
            Self::Text(text) => text.push_str(&output.text),
            Self::Messages(messages) => {
                messages.push(json!({"role": "assistant", "content": output.text}));
            }
        }
        !matches!(self, Self::Ids(_)) || !output.output_ids.is_empty()
    }
}

fn words(ids: &[u32]) -> String {
    let words: Vec<_> = ids.iter().map(|&id| WORDS[id as usize % WORDS.len()]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_gets_its_form() {
        let said = RequestOutput {
            text: "yes".to_owned(),
            output_ids: vec![7, 8],
            ..RequestOutput::default()
        };
        let talk = |backend: &str, num_turns| {
            let mut history = History::new(backend.parse().unwrap(), num_turns);
            history.ask(&[0, 65]);
            assert!(history.answer(&said));
            history.ask(&[2]);
            history
        };
        assert_eq!(talk("sglang", 2), History::Ids(vec![0, 65, 7, 8, 2]));
        assert_eq!(talk("vllm", 1), History::Ids(vec![0, 65, 7, 8, 2]));
        assert_eq!(talk("sglang-oai", 2), History::Text("the ofyes and".to_owned()));
        let History::Messages(messages) = talk("vllm-chat", 2) else { panic!("no messages") };
        assert_eq!(
            Value::Array(messages),
            json!([
                {"role": "user", "content": "the of"},
                {"role": "assistant", "content": "yes"},
                {"role": "user", "content": "and"},
            ])
        );
        assert!(!History::Ids(Vec::new()).answer(&RequestOutput::default()));
    }
}
