//! Pieces of chat templates, and what upstream's rules say about them.
//! `tools/acceptance/parser_detection.py` compares whole ones.

use super::*;

fn found(template: &str, tokens: &[&str]) -> Detected {
    detect(template, &|token| tokens.contains(&token))
}

fn kwarg(name: &'static str, default: bool) -> Option<Toggle> {
    Some(Toggle::Kwarg { name, default })
}

#[test]
fn names_by_family() {
    for (template, tokens, reasoning, tool_call) in [
        ("{{ messages }}", &[][..], None, None),
        ("<|channel|>analysis", &[], Some("gpt-oss"), Some("gpt-oss")),
        ("<|channel>thought", &[], Some("gemma4"), Some("gemma4")),
        ("{{ x }}", &["<|tool_calls_section_begin|>"], Some("kimi_k2"), Some("kimi_k2")),
        ("reasoning_effort [THINK]", &[], Some("mistral"), Some("mistral")),
        (
            "<think> <｜tool▁calls▁begin｜><｜tool▁sep｜>",
            &[],
            Some("deepseek-r1"),
            Some("deepseekv31"),
        ),
        ("<minimax:tool_call>", &[], Some("minimax"), Some("minimax-m2")),
        ("<|tool_call_start|> <|tool_call_end|> <think>", &[], None, Some("lfm2")),
        ("<function= <parameter=", &[], None, Some("qwen3_coder")),
        ("x", &["<arg_key>", "<arg_value>"], None, Some("glm45")),
        ("<|im_start|>assistant\\n<think>\\n", &[], Some("deepseek-r1"), Some("deepseekv3")),
    ] {
        let found = found(template, tokens);
        assert_eq!((found.reasoning, found.tool_call), (reasoning, tool_call), "{template}");
    }
}

#[test]
fn tags_alone_are_a_guess() {
    assert!(found("<think>", &[]).is_guess);
    for sure in ["<|im_start|>assistant\\n<think>\\n", "<minimax:tool_call> <think>", "x"] {
        assert!(!found(sure, &[]).is_guess, "{sure}");
    }
}

#[test]
fn qwen_and_glm_share_a_switch() {
    let switch = "{%- if enable_thinking is defined and enable_thinking is false %}";
    let qwen = found(switch, &["<tool_call>"]);
    assert_eq!((qwen.reasoning, qwen.tool_call), (Some("qwen3"), Some("qwen")));
    assert_eq!(qwen.toggle, kwarg("enable_thinking", true));
    let tokens = ["<tool_call>", "<|user|>"];
    let glm = found(&format!("[gMASK]<sop>{switch}"), &tokens);
    assert_eq!((glm.reasoning, glm.tool_call), (Some("glm45"), Some("glm45")));
    let glm = found(&format!("[gMASK]<sop>{switch}{{{{- '<tool_call>' + tc.name }}}}"), &tokens);
    assert_eq!(glm.tool_call, Some("glm47"));
    // `</think>` is no switch.
    assert_eq!(found(&format!("</think>{switch}"), &tokens).reasoning, Some("qwen3"));
    assert_eq!(found(&format!("/think{switch}"), &tokens).reasoning, Some("glm45"));
}

#[test]
fn switches_and_their_defaults() {
    let off = kwarg("enable_thinking", false);
    let on = kwarg("enable_thinking", true);
    for (template, toggle) in [
        ("{% if not thinking is defined %}{% set thinking = false %}", kwarg("thinking", false)),
        ("{% if not thinking is defined %} {% set thinking = True %}", kwarg("thinking", true)),
        ("{% set enable_thinking = enable_thinking | default(false) %}", off),
        ("{% set enable_thinking = enable_thinking|d(False, true) %}", off),
        ("{{ enable_thinking | default(true, boolean=false) }}", on),
        ("{{ enable_thinking | default(true, true) }}", None),
        ("{% set enable_thinking = enable_thinking if enable_thinking is defined else true %}", on),
        ("{% set ns = namespace(a=1, enable_thinking=true) %}", on),
        ("{{ thinking is not defined or thinking }}", kwarg("thinking", true)),
        ("reasoning_effort [THINK]", Some(Toggle::Effort)),
        ("<|channel|>", Some(Toggle::Always)),
        ("<think>", None),
    ] {
        assert_eq!(found(template, &[]).toggle, toggle, "{template}");
    }
}

#[test]
fn patterns_compile() {
    // A pattern that does not compile matches nothing: these must match.
    let everything = "namespace(x thinking = true <function name= <param name= Step3.5";
    let facts = Facts { template: everything, has_token: &|_| false, config: Config::None };
    assert!(facts.means_on("thinking") && is_minicpm5(&facts) && is_step3p5(&facts));
    let tag = Facts { template: "{{- '<tool_call>' ~ tc.name", ..facts };
    assert!(tag.matches(r#"\{\{[-\s]*['"]<tool_call>['"]\s*[+~]\s*tc\.name"#));
}
