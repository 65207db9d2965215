//! `/openapi.json`: which routes there are.
//!
//! Paths, methods and a line on each. Bodies are any object: what they may hold is
//! SGLang's contract, and a field that is not supported is named when it is refused.

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

use crate::{
    AppState,
    route_table::{Row, rows},
};

pub(crate) async fn openapi(State(state): State<AppState>) -> Json<Value> {
    let mut paths = Map::new();
    for row in rows().iter().filter(|row| row.is_served) {
        let (path, parameter) = path_of(row.path);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        for method in &row.methods {
            item[method.to_ascii_lowercase()] = operation(row, method, parameter.as_deref());
        }
    }
    Json(json!({
        "openapi": "3.1.0",
        "info": {"title": "sglang-mlx", "version": state.config.version},
        "paths": paths,
    }))
}

/// A path as OpenAPI writes it, and its parameter if it has one.
fn path_of(path: &str) -> (String, Option<String>) {
    let path = path.replace("{*", "{");
    let parameter = path.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let parameter = parameter.map(|(name, _)| name.to_owned());
    (path, parameter)
}

fn operation(row: &Row, method: &str, parameter: Option<&str>) -> Value {
    let mut operation = json!({"responses": {"200": {"description": "The answer"}}});
    if !row.note.is_empty() {
        operation["summary"] = row.note.into();
    }
    if let Some(name) = parameter {
        let schema = json!({"type": "string"});
        operation["parameters"] =
            json!([{"name": name, "in": "path", "required": true, "schema": schema}]);
    }
    if method == "POST" || method == "PUT" {
        let content = json!({"application/json": {"schema": {"type": "object"}}});
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_paths() {
        assert_eq!(path_of("/a"), ("/a".to_owned(), None));
        assert_eq!(path_of("/a/{*id}"), ("/a/{id}".to_owned(), Some("id".to_owned())));
        assert_eq!(path_of("/a/{b}/c"), ("/a/{b}/c".to_owned(), Some("b".to_owned())));
    }
}
