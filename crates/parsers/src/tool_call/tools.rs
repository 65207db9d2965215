//! The functions that a request offers.

use std::collections::HashMap;

use serde_json::{Map, Value};
use thiserror::Error;

use super::schema;

/// Functions by name, with the schemas of their parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    functions: HashMap<String, Function>,
    only: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Function {
    position: usize,
    properties: Map<String, Value>,
}

/// A tool definition that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("tools[{index}] {problem}")]
pub struct ToolError {
    /// Its position in the list.
    pub index: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Tools {
    /// Reads OpenAI's `tools`.
    ///
    /// # Errors
    /// An entry that is no function with a name.
    pub fn new(tools: &[Value]) -> Result<Self, ToolError> {
        let mut functions = HashMap::new();
        for (index, tool) in tools.iter().enumerate() {
            let problem = |problem| ToolError { index, problem };
            if tool.get("type").is_some_and(|kind| kind != "function") {
                return Err(problem("is not of type `function`"));
            }
            let function = tool.get("function").ok_or(problem("has no `function`"))?;
            let name = function.get("name").and_then(Value::as_str);
            let name = name.filter(|name| !name.is_empty());
            let name = name.ok_or(problem("has a function without a name"))?.to_owned();
            let parameters = function.get("parameters").unwrap_or(&Value::Null);
            if !parameters.is_null() && !parameters.is_object() {
                return Err(problem("has parameters that are no JSON schema"));
            }
            let properties = schema::properties(parameters);
            functions.insert(name, Function { position: index, properties });
        }
        let only = match tools.len() {
            1 => functions.keys().next().cloned(),
            _ => None,
        };
        Ok(Self { functions, only })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// The schema of a parameter.
    pub(crate) fn parameter(&self, function: &str, name: &str) -> Option<&Value> {
        self.functions.get(function)?.properties.get(name)
    }

    /// The function that takes most of these arguments and lacks fewest; the
    /// only one, if there is one.
    pub(crate) fn best_match(&self, arguments: &Map<String, Value>) -> Option<&str> {
        if let Some(only) = &self.only {
            return Some(only);
        }
        let score = |function: &Function| {
            let known = arguments.keys().filter(|&key| function.properties.contains_key(key));
            let num_known = known.count() as i64;
            2 * num_known - arguments.len() as i64
        };
        let described = self.functions.iter().filter(|(_, f)| !f.properties.is_empty());
        let best = described
            .max_by_key(|(_, function)| (score(function), std::cmp::Reverse(function.position)));
        best.map(|(name, _)| name.as_str())
    }
}
