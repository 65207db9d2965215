//! `response_format`: what the answer has to look like.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema {
        /// The schema and its name.
        #[serde(default)]
        json_schema: Option<JsonSchemaFormat>,
        /// The schema without one, if `json_schema` is not there.
        #[serde(default)]
        schema: Option<Map<String, Value>>,
    },
    /// Tags with grammars of their own: `structures` and `triggers`, or `format`.
    StructuralTag(Map<String, Value>),
}

/// A named schema.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct JsonSchemaFormat {
    /// For people.
    pub name: String,
    /// The schema.
    #[serde(default)]
    pub schema: Option<Map<String, Value>>,
    /// Followed either way.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// The grammars that a body of OpenAI's form can ask for, as `sampling_params` names them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerGrammar {
    /// JSON of a schema.
    pub json_schema: Option<String>,
    /// JSON of structural tags.
    pub structural_tag: Option<String>,
}

impl ResponseFormat {
    /// JSON of a schema that has no name.
    pub fn of_schema(schema: Map<String, Value>) -> Self {
        Self::JsonSchema { json_schema: None, schema: Some(schema) }
    }

    /// What it comes to.
    ///
    /// # Errors
    /// `json_schema` without a schema.
    pub fn grammar(&self) -> Result<AnswerGrammar, &'static str> {
        let json = |map: &Map<String, Value>| Value::Object(map.clone()).to_string();
        match self {
            Self::Text => Ok(AnswerGrammar::default()),
            Self::JsonObject => Ok(AnswerGrammar {
                json_schema: Some(r#"{"type": "object"}"#.to_owned()),
                ..AnswerGrammar::default()
            }),
            Self::JsonSchema { json_schema, schema } => {
                let schema = match json_schema {
                    Some(format) => format.schema.as_ref(),
                    None => schema.as_ref(),
                };
                let schema =
                    schema.ok_or("schema_ is required for json_schema response format request.")?;
                Ok(AnswerGrammar { json_schema: Some(json(schema)), ..AnswerGrammar::default() })
            }
            Self::StructuralTag(tag) => {
                let mut tag = tag.clone();
                tag.insert("type".to_owned(), "structural_tag".into());
                Ok(AnswerGrammar { structural_tag: Some(json(&tag)), ..AnswerGrammar::default() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grammar(format: Value) -> Result<AnswerGrammar, String> {
        let format: ResponseFormat =
            serde_json::from_value(format).map_err(|error| error.to_string())?;
        format.grammar().map_err(str::to_owned)
    }

    #[test]
    fn each_form_becomes_the_grammar_of_its_name() {
        assert_eq!(grammar(json!({"type": "text"})), Ok(AnswerGrammar::default()));
        let object = grammar(json!({"type": "json_object"})).unwrap();
        assert_eq!(object.json_schema.unwrap(), r#"{"type": "object"}"#);
        let schema = json!({"type": "json_schema", "json_schema":
            {"name": "a", "strict": true, "schema": {"type": "object", "b": 1, "a": 2}}});
        let schema = grammar(schema).unwrap();
        // The order of properties means something.
        assert_eq!(schema.json_schema.unwrap(), r#"{"type":"object","b":1,"a":2}"#);
        let nameless = grammar(json!({"type": "json_schema", "schema": {"a": 1}})).unwrap();
        assert_eq!(nameless.json_schema.unwrap(), r#"{"a":1}"#);
        let tag = json!({"type": "structural_tag", "structures": [], "triggers": ["<"]});
        let tag: Value =
            serde_json::from_str(&grammar(tag).unwrap().structural_tag.unwrap()).unwrap();
        assert_eq!(tag, json!({"type": "structural_tag", "structures": [], "triggers": ["<"]}));
    }

    #[test]
    fn a_schema_must_be_there_and_the_type_known() {
        for format in [
            json!({"type": "json_schema"}),
            json!({"type": "json_schema", "json_schema": {"name": "a"}}),
        ] {
            assert!(grammar(format).unwrap_err().contains("schema_ is required"));
        }
        assert!(grammar(json!({"type": "xml"})).unwrap_err().contains("unknown variant `xml`"));
    }
}
