//! How the turns of a conversation are joined: upstream's `SeparatorStyle`.
//!
//! A style is four expressions of Jinja. They see `system` (the system prompt), `roles` (the
//! user's and the assistant's), `sep`, `sep2` and `seps` (the two); inside a turn also `role`,
//! `text` and its index `i`. Upstream alternates by index, not by role, and so do they.
//!
//! `QWEN2_VL_EMBED` is left out: it makes prompts of embedding models.

/// How turns are joined.
#[derive(Debug, PartialEq)]
pub(super) struct Style {
    /// Upstream's.
    pub(super) name: &'static str,
    /// Before the first turn.
    head: &'static str,
    /// A turn.
    turn: &'static str,
    /// After a turn that is over.
    end: &'static str,
    /// A turn without a text, and the beginning of the answer.
    open: &'static str,
}

const ALWAYS: &str = "system ~ sep";
const UNLESS_EMPTY: &str = "system ~ sep if system else ''";
const IF_MESSAGE: &str = "system if system_message else ''";
const COLON_SPACE: &str = "role ~ ': ' ~ text";
const COLON: &str = "role ~ ':'";
const NEW_LINE: &str = r"role ~ '\n' ~ text";
const ALTERNATE: &str = "seps[i % 2]";

/// Sorted by name.
const STYLES: &[Style] = &[
    Style { name: "ADD_COLON_SINGLE", head: ALWAYS, turn: COLON_SPACE, end: "sep", open: COLON },
    Style {
        name: "ADD_COLON_SPACE_SINGLE",
        head: ALWAYS,
        turn: COLON_SPACE,
        end: "sep",
        open: "role ~ ': '",
    },
    Style { name: "ADD_COLON_TWO", head: ALWAYS, turn: COLON_SPACE, end: ALTERNATE, open: COLON },
    Style {
        name: "ADD_NEW_LINE_SINGLE",
        head: "system ~ sep if system and system_message else ''",
        turn: NEW_LINE,
        end: "sep",
        open: r"role ~ '\n'",
    },
    Style {
        name: "CHATGLM",
        head: UNLESS_EMPTY,
        turn: "chatglm_round(i) ~ role ~ '：' ~ text",
        end: "sep",
        open: "chatglm_round(i) ~ role ~ '：'",
    },
    Style { name: "CHATGLM3", head: IF_MESSAGE, turn: NEW_LINE, end: "''", open: "role" },
    Style {
        name: "CHATINTERN",
        head: "system",
        turn: "('<s>' if i % 2 == 0 else '') ~ role ~ ':' ~ text",
        end: r"seps[i % 2] ~ '\n'",
        open: "('<s>' if i % 2 == 0 else '') ~ role ~ ':'",
    },
    Style {
        name: "CHATML",
        head: r"system ~ sep ~ '\n' if system else ''",
        turn: NEW_LINE,
        end: r"sep ~ '\n'",
        open: r"role ~ '\n'",
    },
    Style { name: "DEEPSEEK_CHAT", head: "system", turn: COLON_SPACE, end: ALTERNATE, open: COLON },
    Style {
        name: "DOLLY",
        head: "system",
        turn: r"role ~ ':\n' ~ text",
        end: r"seps[i % 2] ~ ('\n\n' if i % 2 == 1 else '')",
        open: r"role ~ ':\n'",
    },
    Style {
        name: "DeepSeekVL2",
        head: UNLESS_EMPTY,
        turn: COLON_SPACE,
        end: ALTERNATE,
        open: COLON,
    },
    Style {
        name: "FALCON_CHAT",
        head: "system ~ sep if system_message else ''",
        turn: COLON_SPACE,
        end: "sep",
        open: COLON,
    },
    Style {
        name: "GEMMA3",
        head: "system",
        turn: "text if i == 0 else role ~ text",
        end: "sep",
        open: "role",
    },
    Style {
        name: "LLAMA2",
        head: "system if system_message else '[INST] '",
        turn: "text if i == 0 else roles[i % 2] ~ ' ' ~ text",
        end: "' ' if i == 0 else seps[i % 2]",
        open: "roles[i % 2]",
    },
    Style {
        name: "LLAMA3",
        head: IF_MESSAGE,
        turn: r"'<|start_header_id|>' ~ role ~ '<|end_header_id|>\n\n' ~ text.strip()",
        end: "'<|eot_id|>'",
        open: r"'<|start_header_id|>' ~ role ~ '<|end_header_id|>\n\n'",
    },
    Style {
        name: "LLAMA4",
        head: IF_MESSAGE,
        turn: r"'<|header_start|>' ~ role ~ '<|header_end|>\n\n' ~ text.strip()",
        end: "'<|eot|>'",
        open: r"'<|header_start|>' ~ role ~ '<|header_end|>\n\n'",
    },
    Style {
        name: "METAMATH",
        head: UNLESS_EMPTY,
        turn: r"role ~ (':\n' if i % 2 == 0 else ': ' ~ sep2) ~ text",
        end: "sep if i % 2 == 0 else ''",
        open: r"role ~ (':\n' if i % 2 == 0 else ': ' ~ sep2)",
    },
    Style { name: "MPT", head: ALWAYS, turn: "role ~ text", end: "sep", open: "role" },
    Style {
        name: "NO_COLON_SINGLE",
        head: "system",
        turn: "role ~ text",
        end: "sep",
        open: "role",
    },
    Style {
        name: "NO_COLON_TWO",
        head: "system",
        turn: "role ~ text",
        end: ALTERNATE,
        open: "role",
    },
    Style {
        name: "PADDLE_OCR",
        head: "system",
        turn: COLON_SPACE,
        end: r"'\n' if role == roles[0] else sep",
        open: "role ~ ': '",
    },
    Style {
        name: "PHOENIX",
        head: "system",
        turn: "role ~ ': <s>' ~ text",
        end: "'</s>'",
        open: "role ~ ': <s>'",
    },
    Style {
        name: "QWEN2_AUDIO",
        head: UNLESS_EMPTY,
        turn: NEW_LINE,
        end: "sep",
        open: r"role ~ '\n'",
    },
    Style {
        name: "ROBIN",
        head: ALWAYS,
        turn: r"role ~ ':\n' ~ text",
        end: "sep",
        open: r"role ~ ':\n'",
    },
    Style {
        name: "RWKV",
        head: "system",
        turn: r"role ~ ': ' ~ text.replace('\r\n', '\n').replace('\n\n', '\n')",
        end: r"'\n\n'",
        open: COLON,
    },
    Style {
        name: "UNLIMITED_OCR",
        head: UNLESS_EMPTY,
        turn: "role ~ text",
        end: ALTERNATE,
        open: "role",
    },
];

/// What all styles share. Every tag trims, so that only expressions print.
const TEMPLATE: &str = r#"
{%- macro text_of(message) -%}
    {{- message.content if message.content is string else message.content | join(attribute='text') -}}
{%- endmacro -%}
{%- macro chatglm_round(i) -%}
    {{- '[Round ' ~ (i // 2 + (1 if name == 'chatglm2' else 0)) ~ ']' ~ sep if i % 2 == 0 -}}
{%- endmacro -%}
{%- set seps = [sep, sep2] -%}
{%- set system_turns = messages | selectattr('role', 'equalto', 'system') | list -%}
{%- set turns = messages | rejectattr('role', 'equalto', 'system') | list -%}
{%- set system_message = text_of(system_turns | last) if system_turns else default_system_message -%}
{%- set system = system_template.replace('{system_message}', system_message) -%}
{{- HEAD -}}
{%- for message in turns -%}
    {%- if message.role not in ['user', 'assistant'] -%}
        {{- raise_exception('Unknown role: ' ~ message.role) -}}
    {%- endif -%}
    {%- set role = roles[0] if message.role == 'user' else roles[1] -%}
    {%- set i = loop.index0 -%}
    {%- set text = text_of(message) -%}
    {%- if text -%}
        {{- TURN -}}
        {%- if not (loop.last and continue_final_message) -%}
            {{- END -}}
        {%- endif -%}
    {%- else -%}
        {{- OPEN -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not continue_final_message -%}
    {%- set role = roles[1] -%}
    {%- set i = turns | length -%}
    {{- OPEN -}}
{%- endif -%}
"#;

impl Style {
    pub(super) fn find(name: &str) -> Result<&'static Self, String> {
        STYLES.iter().find(|style| style.name == name).ok_or_else(|| {
            let known = STYLES.iter().map(|style| style.name).collect::<Vec<_>>().join(", ");
            format!("unknown sep_style '{name}' (known: {known})")
        })
    }

    /// Whether a separator after answers has to be given.
    pub(super) fn needs_sep2(&self) -> bool {
        [self.turn, self.end]
            .iter()
            .any(|expression| expression.contains("seps[") || expression.contains("sep2"))
    }

    /// The Jinja template.
    pub(super) fn source(&self) -> String {
        TEMPLATE
            .replace("HEAD", self.head)
            .replace("TURN", self.turn)
            .replace("END", self.end)
            .replace("OPEN", self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_an_unknown_one_lists_them() {
        assert!(STYLES.is_sorted_by_key(|style| style.name));
        let error = Style::find("CHATML2").unwrap_err();
        assert!(error.starts_with("unknown sep_style 'CHATML2' (known: ADD_COLON_SINGLE, "));
    }
}
