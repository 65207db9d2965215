//! What formats put around the arguments of a call, for grammars.
//!
//! Upstream: `structure_info` of each detector in `sglang/srt/function_call`.

/// Marks before and after a call's arguments, which are a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure {
    /// Up to the function's name.
    before_name: &'static str,
    /// From there to the arguments.
    after_name: &'static str,
    /// After the arguments.
    pub end: &'static str,
    /// With what a call announces itself: free text up to there.
    pub trigger: &'static str,
}

impl Structure {
    /// All before the arguments of a call of `name`.
    pub fn begin(&self, name: &str) -> String {
        format!("{}{name}{}", self.before_name, self.after_name)
    }
}

pub(super) static DEEPSEEK_V3: Structure = Structure {
    before_name: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    after_name: "\n```json\n",
    end: "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    trigger: "<｜tool▁calls▁begin｜>",
};

pub(super) static DEEPSEEK_V31: Structure = Structure {
    before_name: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    after_name: "<｜tool▁sep｜>",
    end: "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    trigger: "<｜tool▁calls▁begin｜>",
};

pub(super) static HERMES: Structure = Structure {
    before_name: "<tool_call>{\"name\":\"",
    after_name: "\", \"arguments\":",
    end: "}</tool_call>",
    trigger: "<tool_call>",
};

pub(super) static KIMI_K2: Structure = Structure {
    before_name: "<|tool_calls_section_begin|><|tool_call_begin|>functions.",
    after_name: ":0<|tool_call_argument_begin|>",
    end: "<|tool_call_end|><|tool_calls_section_end|>",
    trigger: "<|tool_calls_section_begin|>",
};

pub(super) static LLAMA3: Structure = Structure {
    before_name: "<|python_tag|>{\"name\":\"",
    after_name: "\", \"arguments\":",
    end: "}",
    trigger: "<|python_tag|>",
};

pub(super) static MISTRAL: Structure = Structure {
    before_name: "[TOOL_CALLS] [{\"name\":\"",
    after_name: "\", \"arguments\":",
    end: "}]",
    trigger: "[TOOL_CALLS]",
};

pub(super) static QWEN: Structure = Structure {
    before_name: "<tool_call>\n{\"name\":\"",
    after_name: "\", \"arguments\":",
    end: "}\n</tool_call>",
    trigger: "<tool_call>",
};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::tool_call::{ParsedCalls, TOOL_CALL_PARSERS, Tools};

    /// What a grammar makes is what the parser of the same name reads.
    #[test]
    fn every_structure_is_read_as_a_call() {
        let tools = [json!({"type": "function", "function": {"name": "f"}})];
        let tools = Arc::new(Tools::new(&tools).unwrap());
        let mut count = 0;
        for entry in TOOL_CALL_PARSERS {
            let Some(structure) = entry.structure else { continue };
            count += 1;
            let begin = structure.begin("f");
            assert!(begin.starts_with(structure.trigger), "{}", entry.name);
            let text = format!("So: {begin}{{\"a\": 1}}{}", structure.end);
            let parsed = ParsedCalls::of_text(entry, Arc::clone(&tools), &text);
            assert_eq!(parsed.text, "So:", "{}", entry.name);
            let calls: Vec<_> =
                parsed.calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
            assert_eq!(calls, [("f", "{\"a\": 1}")], "{}", entry.name);
        }
        assert_eq!(count, 8);
    }
}
