//! What a chat request says about reasoning, and the template's switch for it.

use protocol::openai::{ChatRequest, ReasoningEffort};
use serde_json::{Map, Value};

use super::thinking_switch;
use crate::AppState;

/// Makes one of `reasoning` and `reasoning_effort`, and turns the template's switch as they
/// say, unless the request has it too.
pub(crate) fn settle_reasoning(request: &mut ChatRequest) {
    let wish = request.reasoning.take().unwrap_or_default();
    request.reasoning_effort = wish.effort.or(request.reasoning_effort.take());
    let is_on = request.reasoning_effort.as_ref().map(ReasoningEffort::is_on);
    if let Some(is_on) = is_on.or(wish.enabled.filter(|&is_on| is_on)) {
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
            settle_reasoning(&mut request);
            assert_eq!(json!(request.reasoning_effort), effort, "{body}");
            assert_eq!(json!(request.chat_template_kwargs), kwargs, "{body}");
        }
    }
}
