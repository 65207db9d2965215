//! The Jinja environment: what transformers' has, within bounds.

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig, value::ValueKind};

use super::{ChatTemplateError, json, methods};

const DEFAULT: &str = "chat_template";
const TOOL_USE: &str = "tool_use";

/// Instructions per rendering; 64 bytes of text that an instruction handles
/// count as one more. A chat of a megabyte takes some hundred thousand; this
/// many run for about a second.
const FUEL: u64 = 5_000_000;

/// Nested macro calls and blocks.
const RECURSION_LIMIT: usize = 200;

/// Marks errors that the template raised itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

pub(super) fn new(default: &str, tool_use: Option<&str>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.add_filter("tojson", json::tojson);
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", is_sequence);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    environment.add_template_owned(DEFAULT, strip_generation_tags(default))?;
    if let Some(tool_use) = tool_use {
        environment.add_template_owned(TOOL_USE, strip_generation_tags(tool_use))?;
    }
    Ok(environment)
}

/// Python's: null is not, what is undefined is.
fn is_iterable(value: &Value) -> bool {
    value.is_undefined() || (!value.is_none() && value.try_iter().is_ok())
}

/// What has a length and elements by index or key.
fn is_sequence(value: &Value) -> bool {
    let has_elements = matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map);
    value.is_undefined() || has_elements
}

/// Which template renders a request with or without tools.
pub(super) fn template_name(environment: &Environment<'_>, has_tools: bool) -> &'static str {
    if has_tools && environment.get_template(TOOL_USE).is_ok() { TOOL_USE } else { DEFAULT }
}

/// Tells what the template said from what went wrong in it.
pub(super) fn classify(error: Error) -> ChatTemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return ChatTemplateError::Raised(message.clone());
        }
        if let Some(inner) = cause.downcast_ref::<Error>()
            && inner.kind() == ErrorKind::OutOfFuel
        {
            return ChatTemplateError::OutOfBudget;
        }
        source = cause.source();
    }
    ChatTemplateError::Render(error)
}

/// Removes `{% generation %}` and `{% endgeneration %}`, which mark the
/// assistant's tokens for training and print nothing. A minus sign of theirs
/// goes on trimming, as an empty comment.
fn strip_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let len = tag.find("%}").map_or(tag.len(), |close| close + 2);
        let (tag, after) = tag.split_at(len);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        let word = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        if matches!(word, "generation" | "endgeneration") {
            let sign = |found: bool| if found { "-" } else { "" };
            let (left, right) = (sign(inner.starts_with('-')), sign(inner.ends_with('-')));
            // A block that prints nothing and is trimmed like any other.
            out.push_str(&format!("{{%{left} if false %}}{{% endif {right}%}}"));
        } else {
            out.push_str(tag);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_generation_tags_are_stripped() {
        let source =
            "{% if a %}{%- generation -%} x {% endgeneration %}{% endif %}{% set generation = 1 %}";
        assert_eq!(
            strip_generation_tags(source),
            "{% if a %}{%- if false %}{% endif -%} x {% if false %}{% endif %}{% endif %}{% set generation = 1 %}"
        );
        assert_eq!(strip_generation_tags("{% broken"), "{% broken");
    }
}
