//! Turns of a conversation as clients send them, to those that templates know.

use protocol::openai::{ChatMessage, Content, ContentPart};

use crate::error::ApiError;

/// Upstream's roles.
const ROLES: [&str; 8] =
    ["system", "assistant", "tool", "function", "developer", "latest_reminder", "root", "user"];

/// # Errors
/// A role that is none, or thoughts that are not an assistant's.
pub(super) fn settle_turns(messages: &mut [ChatMessage]) -> Result<(), ApiError> {
    for message in messages {
        message.role.make_ascii_lowercase();
        if !ROLES.contains(&message.role.as_str()) {
            let roles = ROLES.join(", ");
            return Err(ApiError::schema(format!("'role' must be one of {roles}.")));
        }
        settle_thoughts(message)?;
    }
    Ok(())
}

/// Parts that are thoughts become the message's `reasoning_content`.
fn settle_thoughts(message: &mut ChatMessage) -> Result<(), ApiError> {
    let Some(Content::Parts(parts)) = &mut message.content else { return Ok(()) };
    let is_thought = |part: &ContentPart| matches!(part.kind.as_str(), "thinking" | "reasoning");
    if !parts.iter().any(is_thought) {
        return Ok(());
    }
    if message.role != "assistant" {
        let message = "thinking content parts are only valid in assistant messages";
        return Err(ApiError::schema(message));
    }
    let (thoughts, rest) = std::mem::take(parts).into_iter().partition(is_thought);
    *parts = rest;
    let mut text = String::new();
    for thought in thoughts {
        let ((None, Some(said)) | (Some(said), None)) = (thought.thinking, thought.text) else {
            let message = "thinking parts require exactly one of 'thinking' or 'text'";
            return Err(ApiError::schema(message));
        };
        text += &said;
    }
    message.reasoning_content.get_or_insert(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settled(message: Value) -> Result<Value, String> {
        let mut messages = [serde_json::from_value(message).unwrap()];
        settle_turns(&mut messages).map_err(|error| error.message)?;
        Ok(json!(messages[0]))
    }

    #[test]
    fn roles_are_of_any_case_and_known() {
        let message = settled(json!({"role": "System", "content": "x"})).unwrap();
        assert_eq!(message, json!({"role": "system", "content": "x"}));
        let error = settled(json!({"role": "alien", "content": "x"})).unwrap_err();
        assert!(error.starts_with("'role' must be one of system, assistant, "), "{error}");
    }

    #[test]
    fn thoughts_of_an_assistant_are_told_from_the_text() {
        let parts = json!([{"type": "thinking", "thinking": "Hm"}, {"type": "reasoning", "text": "m."},
                           {"type": "text", "text": "So."}]);
        let message = settled(json!({"role": "assistant", "content": parts})).unwrap();
        let wanted = json!({"role": "assistant", "content": [{"type": "text", "text": "So."}],
                            "reasoning_content": "Hmm."});
        assert_eq!(message, wanted);
        let error = settled(json!({"role": "user", "content": parts})).unwrap_err();
        assert!(error.contains("only valid in assistant messages"), "{error}");
        let both = json!([{"type": "thinking", "thinking": "a", "text": "b"}]);
        let error = settled(json!({"role": "assistant", "content": both})).unwrap_err();
        assert!(error.contains("exactly one of"), "{error}");
    }
}
