//! Which parsers a model needs, from its chat template and its vocabulary.
//!
//! The rules, their order and the names they give are upstream's. A name may
//! be that of a parser that this crate does not have.
//!
//! Upstream: `sglang/srt/parser/template_detection.py`.

use regex::Regex;

use crate::reasoning::Toggle;

/// What a chat template says about the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detected {
    /// What asks for reasoning, if the template shows it.
    pub toggle: Option<Toggle>,
    /// Upstream's name of the reasoning parser.
    pub reasoning: Option<&'static str>,
    /// The template has the tags of reasoning, and nothing shows whether the
    /// model always uses them.
    pub is_guess: bool,
    /// Upstream's name of the tool-call parser.
    pub tool_call: Option<&'static str>,
}

/// Looks at a chat template; `has_token` says what is in the vocabulary.
pub fn detect(template: &str, has_token: &dyn Fn(&str) -> bool) -> Detected {
    let mut facts = Facts { template, has_token, config: Config::None };
    facts.config = facts.config();
    let first = |rules: &[Rule]| rules.iter().find(|rule| (rule.1)(&facts)).map(|rule| rule.0);
    let reasoning = first(REASONING_RULES);
    let toggle = facts.config.toggle();
    Detected {
        toggle,
        reasoning,
        is_guess: reasoning == Some("deepseek-r1") && toggle.is_none(),
        tool_call: first(TOOL_CALL_RULES),
    }
}

struct Facts<'a> {
    template: &'a str,
    has_token: &'a dyn Fn(&str) -> bool,
    config: Config,
}

/// How a template turns reasoning on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Config {
    None,
    Always,
    Mistral,
    HunyuanEffort,
    EnableThinking(bool),
    /// On by default, and there is a weaker kind of it.
    EnableThinkingOrLow,
    Thinking(bool),
}

impl Config {
    fn toggle(self) -> Option<Toggle> {
        match self {
            Self::None | Self::HunyuanEffort => None,
            Self::Always => Some(Toggle::Always),
            Self::Mistral => Some(Toggle::Effort),
            Self::EnableThinking(default) => {
                Some(Toggle::Kwarg { name: "enable_thinking", default })
            }
            Self::EnableThinkingOrLow => {
                Some(Toggle::Kwarg { name: "enable_thinking", default: true })
            }
            Self::Thinking(default) => Some(Toggle::Kwarg { name: "thinking", default }),
        }
    }
}

impl Facts<'_> {
    fn has(&self, text: &str) -> bool {
        self.template.contains(text)
    }

    fn all(&self, texts: &[&str]) -> bool {
        texts.iter().all(|text| self.has(text))
    }

    fn token(&self, token: &str) -> bool {
        (self.has_token)(token)
    }

    fn matches(&self, pattern: &str) -> bool {
        // The patterns are ours: all of them compile, as a test shows.
        Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(self.template))
    }

    fn config(&self) -> Config {
        if self.all(&["<ifm|think>", "<ifm|think_fast>", "reasoning_effort"])
            || self.has("<|channel|>")
            || (self.has("<|im_start|>assistant\\n<think>\\n") && !self.has("thinking"))
            || is_glm53(self)
        {
            Config::Always
        } else if self.all(&["reasoning_effort", "[THINK]"]) {
            Config::Mistral
        } else if self.all(&["reasoning_effort", "reasoning_mode_token", "no_think"]) {
            Config::HunyuanEffort
        } else if self.sets_default("enable_thinking", false) {
            Config::EnableThinking(false)
        } else if self.all(&["low_effort", "truncate_history_thinking"]) {
            Config::EnableThinkingOrLow
        } else if self.sets_default("enable_thinking", true) || self.means_on("enable_thinking") {
            Config::EnableThinking(true)
        } else if self.sets_default("thinking", false) {
            Config::Thinking(false)
        } else if self.sets_default("thinking", true) || self.means_on("thinking") {
            Config::Thinking(true)
        } else {
            Config::None
        }
    }

    /// `{% if not x is defined %}{% set x = false %}`, or the filter `default`.
    fn sets_default(&self, name: &str, default: bool) -> bool {
        let value = if default { "(?:true|True)" } else { "(?:false|False)" };
        let block = format!(
            r"(?s)\{{%\s*if\s+not\s+{name}\s+is\s+defined\s*%\}}.*?\{{%\s*set\s+{name}\s*=\s*{value}\s*%\}}"
        );
        // `default(true, true)` turns an explicit false into true: no toggle.
        let mode = if default { "(?:false|False)" } else { "(?:true|True|false|False)" };
        let filter = format!(
            r"\b{name}\s*\|\s*(?:default|d)\(\s*{value}\s*(?:,\s*(?:boolean\s*=\s*)?{mode}\s*)?\)"
        );
        self.matches(&block) || self.matches(&filter)
    }

    /// Conditions that hold unless the variable is false.
    fn means_on(&self, name: &str) -> bool {
        [
            format!(
                r"set\s+{name}\s*=\s*{name}\s+if\s+{name}\s+is\s+defined\s+else\s+(?:true|True)"
            ),
            format!(r"{name}\s+is\s+defined\s+and\s+(?:{name}\s+is\s+false|not\s+{name})"),
            format!(r"{name}\s+is\s+not\s+defined\s+or\s+{name}"),
            format!(r"namespace\([^)]*{name}\s*=\s*true"),
        ]
        .iter()
        .any(|pattern| self.matches(pattern))
    }

    /// The word is there, and not only as the end of a closing tag.
    fn has_switch(&self, word: &str) -> bool {
        let mut places = self.template.match_indices(word);
        places.any(|(at, _)| !self.template[..at].ends_with('<'))
    }
}

/// A name and what a model with that parser looks like.
type Rule = (&'static str, fn(&Facts<'_>) -> bool);

static REASONING_RULES: &[Rule] = &[
    ("iquest_q1", |f| f.has("<|iquest_assistant|>")),
    ("k2_horizon", is_k2_v3),
    ("apertus2509", |f| f.token("<|inner_prefix|>")),
    ("gemma4", |f| f.has("<|channel>")),
    ("kimi", |f| f.has("◁think▷")),
    ("interns1", is_interns1),
    ("mistral", |f| f.config == Config::Mistral),
    ("beam", |f| f.all(&["<|channel|>", "<rfl:parameter"])),
    ("gpt-oss", |f| f.has("<|channel|>")),
    ("kimi_k2", |f| f.token("<|tool_calls_section_begin|>")),
    ("granite_thinking_parser", |f| is_nemotron_3(f) && f.has("defer_loading")),
    ("nemotron_3", is_nemotron_3),
    ("glm45", is_glm),
    ("hunyuan", is_hunyuan),
    ("poolside_v1", is_poolside_v1),
    ("mimo", |f| f.config == Config::EnableThinking(false)),
    ("minimax-m3", is_minimax_m3),
    ("minimax", |f| f.has("<minimax:tool_call>")),
    ("step3p5", is_step3p5),
    ("step3", is_step3),
    ("ling3", is_ling3),
    ("qwen3", |f| f.config == Config::EnableThinking(true)),
    ("deepseek-v41", |f| f.has("<｜DSML｜ calls>")),
    ("deepseek-v4", |f| f.has("<｜DSML｜tool_calls>")),
    ("deepseek-v3", |f| f.config == Config::Thinking(false)),
    ("gigachat35", |f| f.has("<｜GCML｜tool_calls>")),
    ("deepseek-r1", |f| f.config == Config::Always),
    ("deepseek-r1", |f| !is_lfm2(f) && (f.has("<think>") || f.has("</think>"))),
];

static TOOL_CALL_RULES: &[Rule] = &[
    ("iquest_q1", |f| f.has("<|iquest_assistant|>")),
    ("gigachat35", |f| f.has("<｜GCML｜tool_calls>")),
    ("k2_horizon", is_k2_v3),
    ("apertus2509", |f| f.token("<|inner_prefix|>")),
    ("gemma4", |f| f.has("<|channel>")),
    ("beam", |f| f.all(&["<|channel|>", "<rfl:parameter"])),
    ("gpt-oss", |f| f.has("<|channel|>")),
    ("kimi_k2", |f| f.token("<|tool_calls_section_begin|>")),
    ("minimax-m3", is_minimax_m3),
    ("minimax-m2", |f| f.has("<minimax:tool_call>")),
    ("interns1", is_interns1),
    ("mistral", |f| f.config == Config::Mistral),
    ("deepseekv41", |f| f.has("<｜DSML｜ calls>")),
    ("deepseekv4", |f| f.has("<｜DSML｜tool_calls>")),
    ("deepseekv32", |f| f.has("<｜DSML｜function_calls>")),
    ("deepseekv31", |f| f.all(&["<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"])),
    ("lfm2", is_lfm2),
    ("glm47", |f| is_glm(f) && f.matches(r#"\{\{[-\s]*['"]<tool_call>['"]\s*[+~]\s*tc\.name"#)),
    ("glm45", is_glm),
    ("minicpm5", is_minicpm5),
    ("hunyuan", is_hunyuan),
    ("poolside_v1", is_poolside_v1),
    ("step3p5", is_step3p5),
    ("step3", is_step3),
    ("ling3", is_ling3),
    ("glm45", |f| f.token("<arg_key>") && f.token("<arg_value>")),
    ("mimo", |f| f.config == Config::EnableThinking(false)),
    ("qwen3_coder", is_qwen3_coder),
    ("qwen", |f| f.config == Config::EnableThinking(true)),
    ("deepseekv3", |f| f.config == Config::Thinking(false)),
    ("deepseekv3", |f| f.config == Config::Always),
];

fn is_k2_v3(f: &Facts<'_>) -> bool {
    f.all(&["<ifm|think>", "<ifm|tool_calls>", "<ifm|tool_call>"])
}

fn is_interns1(f: &Facts<'_>) -> bool {
    f.has("default_thinking_sys") && f.config == Config::EnableThinking(true)
}

fn is_nemotron_3(f: &Facts<'_>) -> bool {
    let is_on = matches!(f.config, Config::EnableThinking(true) | Config::EnableThinkingOrLow);
    f.has("truncate_history_thinking") && is_on
}

fn is_glm45(f: &Facts<'_>) -> bool {
    (f.has("[gMASK]<sop>") || f.has_switch("/nothink") || f.has_switch("/think"))
        && f.token("<tool_call>")
        && f.config == Config::EnableThinking(true)
        && (f.token("<|user|>") || f.token("<|endoftext|>"))
}

fn is_glm53(f: &Facts<'_>) -> bool {
    let texts = ["[gMASK]<sop>", "Reasoning Effort:", "<tool_call>", "<arg_key>", "<arg_value>"];
    f.all(&texts) && !f.has("enable_thinking")
}

fn is_glm(f: &Facts<'_>) -> bool {
    is_glm45(f) || is_glm53(f)
}

fn is_hunyuan(f: &Facts<'_>) -> bool {
    let there = |name: &str| {
        let suffixed = format!("{}:opensource>", &name[..name.len() - 1]);
        f.has(name) || f.token(name) || f.token(&suffixed)
    };
    let takes_effort = f.config == Config::HunyuanEffort && there("<arg_key>");
    (there("<tool_calls>") && (there("<tool_sep>") || takes_effort))
        || f.all(&["reasoning_effort", "interleaved_thinking"])
}

fn is_poolside_v1(f: &Facts<'_>) -> bool {
    let says_so = f.has("unescaped XML-like object")
        || f.has("All available function signatures are listed below");
    let there = |name: &str| f.has(name) || f.token(name);
    (f.all(&["<arg_key>", "<arg_value>"]) && says_so)
        || (f.config == Config::EnableThinking(false)
            && !is_hunyuan(f)
            && there("<arg_key>")
            && there("<arg_value>"))
}

fn is_minimax_m3(f: &Facts<'_>) -> bool {
    f.has("<mm:think>") || f.has("]<]minimax[>[")
}

fn is_minicpm5(f: &Facts<'_>) -> bool {
    (f.token("<function") && f.token("<param"))
        || (f.matches(r"<function\s+name=") && f.matches(r"<param\s+name="))
}

fn is_lfm2(f: &Facts<'_>) -> bool {
    let there = |name: &str| f.has(name) || f.token(name);
    there("<|tool_call_start|>") && there("<|tool_call_end|>")
}

fn is_step3p5(f: &Facts<'_>) -> bool {
    f.matches(r"(?i)Step-?3(?:\.|p)?[57]")
        || (f.all(&["reasoning_effort", "Reasoning: "]) && is_qwen3_coder(f))
}

fn is_step3(f: &Facts<'_>) -> bool {
    f.has("<steptml:invoke") || f.all(&["<｜tool_calls_begin｜>", "<｜tool_sep｜>"])
}

fn is_ling3(f: &Facts<'_>) -> bool {
    let roles = ["<role>SYSTEM</role>", "<role>ASSISTANT</role>", "<|role_end|>"];
    f.all(&roles) && f.all(&["<arg_key>", "<arg_value>"])
}

fn is_qwen3_coder(f: &Facts<'_>) -> bool {
    f.all(&["<function=", "<parameter="])
}

#[cfg(test)]
mod tests;
