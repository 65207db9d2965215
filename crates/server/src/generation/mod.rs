//! From a validated request to tokens and text, for every endpoint alike.

mod grammar;
mod logprobs;
mod pooled;
mod prompt;
mod sampling;
mod sequence;
mod set;
mod stop_regex;

pub use grammar::GrammarConfig;
pub(crate) use grammar::{Constraint, Grammars, response_grammar};
pub(crate) use logprobs::{LogprobSpec, SequenceLogprobs, Tokens};
pub(crate) use pooled::{VectorForm, label_plan, pair_plan, pooled_plan, softmax};
pub(crate) use prompt::{ChatPrompt, Prompts, check_text, tokenize_chat, tokenize_texts};
pub(crate) use sampling::{SamplingSpec, budget};
pub(crate) use sequence::{Sequence, SequenceFlags, Update};
pub(crate) use set::{GenerationPlan, SequenceSet};
