//! The parsers by upstream's names.

use super::{
    ToolCallParser,
    gemma4::Gemma4,
    glm::Glm,
    gpt_oss::GptOss,
    json_array::JsonArray,
    llama3::Llama3,
    marked::Marked,
    mistral::Mistral,
    pythonic::{Lfm2, Pythonic},
    structure::{self, Structure},
    tagged_json::TaggedJson,
    xml::Xml,
};
use crate::UnknownParser;

/// One parser.
#[derive(Debug)]
pub struct ToolCallEntry {
    /// As in `--tool-call-parser`.
    pub name: &'static str,
    /// Calls of functions that are not among the tools are reported too.
    pub(super) forwards_unknown: bool,
    /// What is around the arguments of a call, where they are JSON.
    pub structure: Option<&'static Structure>,
    pub(super) new: fn() -> Box<dyn ToolCallParser>,
}

/// Names are unique.
impl PartialEq for ToolCallEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Leaves calls of unknown functions out.
const fn known(name: &'static str, new: fn() -> Box<dyn ToolCallParser>) -> ToolCallEntry {
    ToolCallEntry { name, forwards_unknown: false, structure: None, new }
}

/// Reports calls of unknown functions, as upstream does for these formats.
const fn any(name: &'static str, new: fn() -> Box<dyn ToolCallParser>) -> ToolCallEntry {
    ToolCallEntry { name, forwards_unknown: true, structure: None, new }
}

/// Its calls are JSON between marks.
const fn with(structure: &'static Structure, entry: ToolCallEntry) -> ToolCallEntry {
    ToolCallEntry { structure: Some(structure), ..entry }
}

/// Of answers that must call, whatever the model's own format; has no name in options.
pub static JSON_ARRAY: ToolCallEntry = known("json_array", || Box::new(JsonArray::default()));

/// All parsers, by name.
pub static TOOL_CALL_PARSERS: &[ToolCallEntry] = &[
    with(&structure::DEEPSEEK_V3, known("deepseekv3", || Box::new(Marked::deepseek_v3()))),
    with(&structure::DEEPSEEK_V31, known("deepseekv31", || Box::new(Marked::deepseek_v31()))),
    any("gemma4", || Box::new(Gemma4::default())),
    known("glm", || Box::new(Glm::default())),
    known("glm45", || Box::new(Glm::default())),
    known("glm47", || Box::new(Glm::default())),
    known("gpt-oss", || Box::new(GptOss::default())),
    with(&structure::HERMES, known("hermes", || Box::new(TaggedJson::default()))),
    with(&structure::KIMI_K2, any("kimi_k2", || Box::new(Marked::kimi_k2()))),
    known("lfm2", || Box::new(Lfm2::default())),
    with(&structure::LLAMA3, known("llama3", || Box::new(Llama3::default()))),
    known("minimax-m2", || Box::new(Xml::minimax_m2())),
    with(&structure::MISTRAL, known("mistral", || Box::new(Mistral::default()))),
    any("nanbeige", || Box::new(Xml::qwen3_coder())),
    known("pythonic", || Box::new(Pythonic::default())),
    with(&structure::QWEN, known("qwen", || Box::new(TaggedJson::default()))),
    with(&structure::QWEN, known("qwen25", || Box::new(TaggedJson::default()))),
    any("qwen3_coder", || Box::new(Xml::qwen3_coder())),
    any("step3p5", || Box::new(Xml::qwen3_coder())),
];

/// The parser of this name.
///
/// # Errors
/// There is none; the error lists those there are.
pub fn find(name: &str) -> Result<&'static ToolCallEntry, UnknownParser> {
    let entry = TOOL_CALL_PARSERS.iter().find(|entry| entry.name == name);
    entry.ok_or_else(|| UnknownParser {
        kind: "tool-call parser",
        name: name.to_owned(),
        known: TOOL_CALL_PARSERS.iter().map(|entry| entry.name).collect(),
    })
}
