//! Which calls an answer has to make, and the grammar that makes it.
//!
//! An answer that must call is a JSON list of calls, whatever the model's own format is;
//! one that may call, with functions whose arguments must fit, has tags in free text.
//!
//! Upstream: `get_json_schema_constraint` and `get_structure_tag` in
//! `sglang/srt/function_call`.

use constrained::{GrammarKind, GrammarSpec};
use parsers::tool_call::ToolCallEntry;
use protocol::openai::ChatRequest;
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// `tool_choice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// The model decides.
    Auto,
    /// At least one call.
    Required,
    /// One call, of the only function left.
    Named,
}

/// The tools that the model is told of, and whether it must call one: none with
/// `tool_choice` `none`, one with the name of a function.
///
/// # Errors
/// A choice that is none, or of a function that is not there.
pub(super) fn take_tools(request: &mut ChatRequest) -> Result<(Vec<Value>, ToolChoice), ApiError> {
    let tools = request.tools.take().unwrap_or_default();
    let empty = |choice: &str| {
        let message = format!("Tools cannot be empty if tool choice is set to {choice}.");
        Err(ApiError::value(message))
    };
    match &request.tool_choice {
        None | Some(Value::Null) => Ok((tools, ToolChoice::Auto)),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok((tools, ToolChoice::Auto)),
            "none" => Ok((Vec::new(), ToolChoice::Auto)),
            "required" if tools.is_empty() => empty("required"),
            "required" => Ok((tools, ToolChoice::Required)),
            other => {
                let message = format!("tool_choice must be auto, none or required, not {other:?}.");
                Err(ApiError::value(message))
            }
        },
        Some(_) if tools.is_empty() => empty("a specific tool"),
        Some(choice) => {
            let name = choice["function"]["name"].as_str().unwrap_or_default();
            let named = tools.into_iter().find(|tool| tool["function"]["name"] == name);
            let named = named.ok_or_else(|| {
                ApiError::value(format!("Tool '{name}' not found in tools list."))
            })?;
            Ok((vec![named], ToolChoice::Named))
        }
    }
}

/// What the answer follows for the sake of its calls.
///
/// # Errors
/// Functions that must fit with a parser whose calls have no grammar.
pub(super) fn grammar(
    tools: &[Value],
    choice: &ToolChoice,
    is_parallel: bool,
    parser: Option<&ToolCallEntry>,
) -> Result<Option<GrammarSpec>, ApiError> {
    if *choice != ToolChoice::Auto {
        let one = !is_parallel || *choice == ToolChoice::Named;
        return Ok(Some(GrammarSpec::new(
            GrammarKind::JsonSchema,
            calls_schema(tools, one)?.to_string(),
        )));
    }
    let is_strict = |tool: &Value| tool["function"]["strict"] == Value::Bool(true);
    let Some(index) = tools.iter().position(is_strict) else { return Ok(None) };
    let structure = parser.and_then(|entry| entry.structure).ok_or_else(|| {
        let name = parser.map_or("none", |entry| entry.name);
        ApiError::value(format!(
            "tools[{index}].function.strict is not supported with the tool-call parser {name}."
        ))
    })?;
    let structures = tools.iter().map(|tool| {
        let function = &tool["function"];
        let name = function["name"].as_str().unwrap_or_default();
        let schema = if is_strict(tool) { parameters(tool) } else { json!({"type": "object"}) };
        json!({"begin": structure.begin(name), "schema": schema, "end": structure.end})
    });
    let tag = json!({
        "type": "structural_tag",
        "structures": structures.collect::<Vec<_>>(),
        "triggers": [structure.trigger],
    });
    Ok(Some(GrammarSpec::new(GrammarKind::StructuralTag, tag.to_string())))
}

/// A list of calls, of one at most if `one`.
///
/// # Errors
/// A name that two functions define differently.
fn calls_schema(tools: &[Value], one: bool) -> Result<Value, ApiError> {
    let mut definitions = Map::new();
    let mut calls = Vec::new();
    for tool in tools {
        let mut parameters = parameters(tool);
        lift_definitions(&mut parameters, &mut definitions)?;
        calls.push(json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": [tool["function"]["name"]]},
                "parameters": parameters,
            },
            "required": ["name", "parameters"],
            "additionalProperties": false,
        }));
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("array"));
    schema.insert("minItems".to_owned(), json!(1));
    if one {
        schema.insert("maxItems".to_owned(), json!(1));
    }
    let items = match <[Value; 1]>::try_from(calls) {
        Ok([call]) => call,
        Err(calls) => json!({"anyOf": calls}),
    };
    schema.insert("items".to_owned(), items);
    schema.extend(definitions);
    Ok(Value::Object(schema))
}

/// Moves a function's definitions to those of all: references are from the root of the schema
/// on.
fn lift_definitions(
    parameters: &mut Value,
    definitions: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    for key in ["$defs", "definitions"] {
        let own = parameters.as_object_mut().and_then(|schema| schema.remove(key));
        let Some(Value::Object(own)) = own else { continue };
        let all = definitions.entry(key).or_insert_with(|| json!({}));
        for (name, schema) in own {
            match all.get(&name) {
                Some(other) if *other != schema => {
                    let message = format!("tools define {key}.{name} differently.");
                    return Err(ApiError::value(message));
                }
                _ => all[&name] = schema,
            }
        }
    }
    Ok(())
}

/// A function without parameters takes any object.
fn parameters(tool: &Value) -> Value {
    match &tool["function"]["parameters"] {
        Value::Object(schema) if !schema.is_empty() => Value::Object(schema.clone()),
        _ => json!({"type": "object", "properties": {}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, strict: bool) -> Value {
        let parameters = json!({
            "type": "object", "properties": {"a": {"$ref": "#/$defs/n"}},
            "$defs": {"n": {"type": "integer"}},
        });
        json!({"type": "function",
               "function": {"name": name, "strict": strict, "parameters": parameters}})
    }

    fn take(choice: Value, tools: Vec<Value>) -> Result<(usize, ToolChoice), String> {
        let mut request =
            ChatRequest { tools: Some(tools), tool_choice: Some(choice), ..ChatRequest::default() };
        let taken = take_tools(&mut request).map_err(|error| error.message)?;
        Ok((taken.0.len(), taken.1))
    }

    #[test]
    fn a_choice_leaves_the_tools_it_allows() {
        let two = || vec![tool("f", false), tool("g", false)];
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        assert_eq!(take(json!("auto"), two()), Ok((2, ToolChoice::Auto)));
        assert_eq!(take(json!("none"), two()), Ok((0, ToolChoice::Auto)));
        assert_eq!(take(json!("required"), two()), Ok((2, ToolChoice::Required)));
        assert_eq!(take(named("g"), two()), Ok((1, ToolChoice::Named)));
        for (choice, tools, message) in [
            (json!("required"), vec![], "Tools cannot be empty if tool choice is set to required."),
            (named("f"), vec![], "Tools cannot be empty if tool choice is set to a specific tool."),
            (named("h"), two(), "Tool 'h' not found in tools list."),
            (json!("any"), two(), "tool_choice must be auto, none or required, not \"any\"."),
        ] {
            assert_eq!(take(choice, tools), Err(message.to_owned()));
        }
    }

    #[test]
    fn required_calls_are_a_list_with_the_definitions_at_its_root() {
        let two = [tool("f", false), tool("g", false)];
        let spec = grammar(&two, &ToolChoice::Required, true, None).unwrap().unwrap();
        let schema: Value = serde_json::from_str(&spec.text).unwrap();
        assert_eq!((&schema["minItems"], schema.get("maxItems")), (&json!(1), None));
        assert_eq!(schema["$defs"], json!({"n": {"type": "integer"}}));
        let calls = &schema["items"]["anyOf"];
        assert_eq!(calls[1]["properties"]["name"]["enum"], json!(["g"]));
        assert_eq!(calls[0]["properties"]["parameters"].get("$defs"), None);
        let spec = grammar(&two[..1], &ToolChoice::Named, true, None).unwrap().unwrap();
        let schema: Value = serde_json::from_str(&spec.text).unwrap();
        assert_eq!((&schema["maxItems"], &schema["items"]["type"]), (&json!(1), &json!("object")));
    }

    #[test]
    fn definitions_of_one_name_must_be_the_same() {
        let mut two = [tool("f", false), tool("g", false)];
        two[1]["function"]["parameters"]["$defs"]["n"]["type"] = json!("string");
        let error = grammar(&two, &ToolChoice::Required, true, None).unwrap_err();
        assert_eq!(
            (error.status.as_u16(), &*error.message),
            (400, "tools define $defs.n differently.")
        );
        assert!(grammar(&two[1..], &ToolChoice::Named, true, None).is_ok());
    }

    #[test]
    fn strict_functions_are_tags_in_free_text() {
        let parser = parsers::tool_call::find("qwen25").unwrap();
        let loose = [tool("f", false)];
        assert_eq!(grammar(&loose, &ToolChoice::Auto, true, Some(parser)).unwrap(), None);
        let tools = [tool("f", true), tool("g", false)];
        let spec = grammar(&tools, &ToolChoice::Auto, true, Some(parser)).unwrap().unwrap();
        let tag: Value = serde_json::from_str(&spec.text).unwrap();
        assert_eq!(tag["triggers"], json!(["<tool_call>"]));
        let begin = "<tool_call>\n{\"name\":\"f\", \"arguments\":";
        assert_eq!(tag["structures"][0]["begin"], begin);
        assert_eq!(tag["structures"][0]["schema"]["properties"]["a"]["$ref"], "#/$defs/n");
        assert_eq!(tag["structures"][1]["schema"], json!({"type": "object"}));
        let pythonic = parsers::tool_call::find("pythonic").unwrap();
        let error = grammar(&tools, &ToolChoice::Auto, true, Some(pythonic)).unwrap_err();
        let message =
            "tools[0].function.strict is not supported with the tool-call parser pythonic.";
        assert_eq!(error.message, message);
    }
}
