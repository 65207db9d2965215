//! What a chat request says about reasoning, and the template's switch for it.

use protocol::{
    native::CustomParams,
    openai::{ChatRequest, ReasoningEffort, ThinkingKind},
};
use serde_json::{Map, Value};

use super::thinking_switch;
use crate::AppState;

/// Makes one of `reasoning`, `reasoning_effort` and `thinking`, and turns the template's switch
/// as they say, unless the request has it too. Where reasoning is not told from the answer,
/// `thinking` limits none.
pub(crate) fn settle_reasoning(request: &mut ChatRequest, tells_reasoning: bool) {
    let wish = request.reasoning.take().unwrap_or_default();
    request.reasoning_effort = wish.effort.or(request.reasoning_effort.take());
    let thinking = request.thinking.take();
    let budget = thinking.as_ref().filter(|thinking| thinking.kind != ThinkingKind::Disabled);
    let budget = budget.and_then(|thinking| thinking.budget_tokens).filter(|_| tells_reasoning);
    if let Some(budget) = budget {
        let params = request.custom_params.get_or_insert_with(CustomParams::default);
        params.thinking_budget.get_or_insert(budget);
    }
    let is_on = thinking
        .map(|thinking| thinking.kind != ThinkingKind::Disabled)
        .or(request.reasoning_effort.as_ref().map(ReasoningEffort::is_on))
        .or(wish.enabled.filter(|&is_on| is_on));
    if let Some(is_on) = is_on {
        let kwargs = request.chat_template_kwargs.get_or_insert_default();
        for (name, is_on) in thinking_switch(is_on) {
            kwargs.entry(name).or_insert(is_on);
        }
    }
}

/// Whether there is an effort other than `none`: the request's variable of the template, its
/// field, or the server's variable.
pub(super) fn has_effort(state: &AppState, request: &ChatRequest) -> bool {
    let of = |kwargs: Option<&Map<String, Value>>| {
        let effort = kwargs.and_then(|kwargs| kwargs.get("reasoning_effort"));
        effort.filter(|effort| !effort.is_null()).map(|effort| effort != "none")
    };
    of(request.chat_template_kwargs.as_ref())
        .or(request.reasoning_effort.as_ref().map(ReasoningEffort::is_on))
        .or(of(Some(&state.config.chat_template_kwargs)))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn efforts_turn_the_switch_that_is_not_turned_yet() {
        let both = |is_on: bool| json!({"enable_thinking": is_on, "thinking": is_on});
        for (body, effort, kwargs) in [
            (json!({}), json!(null), json!(null)),
            (json!({"reasoning_effort": "none"}), json!("none"), both(false)),
            (json!({"reasoning_effort": 0.5}), json!(0.5), both(true)),
            (json!({"reasoning": {"effort": "low"}}), json!("low"), both(true)),
            (json!({"reasoning": {"enabled": true}}), json!(null), both(true)),
            (json!({"reasoning": {"enabled": false}}), json!(null), json!(null)),
            (json!({"thinking": {"type": "adaptive"}}), json!(null), both(true)),
            (
                json!({"thinking": {"type": "disabled"}, "reasoning_effort": "low"}),
                json!("low"),
                both(false),
            ),
            (
                json!({"reasoning": {"effort": "none"}, "reasoning_effort": "high"}),
                json!("none"),
                both(false),
            ),
            (
                json!({"reasoning_effort": "low", "chat_template_kwargs": {"thinking": false}}),
                json!("low"),
                json!({"enable_thinking": true, "thinking": false}),
            ),
        ] {
            let mut request: ChatRequest = serde_json::from_value(body.clone()).unwrap();
            settle_reasoning(&mut request, true);
            assert_eq!(json!(request.reasoning_effort), effort, "{body}");
            assert_eq!(json!(request.chat_template_kwargs), kwargs, "{body}");
        }
        let budget = |kind: &str, tells_reasoning| {
            let body = json!({"thinking": {"type": kind, "budget_tokens": 9}});
            let mut request: ChatRequest = serde_json::from_value(body).unwrap();
            settle_reasoning(&mut request, tells_reasoning);
            request.custom_params.and_then(|params| params.thinking_budget)
        };
        assert_eq!(budget("enabled", true), Some(9));
        assert_eq!(budget("enabled", false), None);
        assert_eq!(budget("disabled", true), None);
    }
}
