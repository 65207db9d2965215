//! JSON schemas as regular expressions for their instances.
//!
//! What an expression cannot say, or not in a sensible size, is refused by its keyword. Where
//! a schema leaves open how an instance looks (other properties, how deep any JSON goes), the
//! expression is narrower: every completion is an instance, but not the reverse.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::json_text::{self, STRING_CHAR};
use crate::{GrammarSpec, JsonOptions};

/// Times that a reference is followed inside of itself, and levels of any JSON.
const MAX_RECURSION: usize = 3;
/// Schemas inside of schemas, references included.
const MAX_DEPTH: usize = 60;
/// Bytes of the expression.
const MAX_BYTES: usize = 1 << 20;

/// Keywords of the standard that are not supported.
const UNSUPPORTED: &[&str] = &[
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "additionalItems",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "if",
    "maxContains",
    "maximum",
    "minContains",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "patternProperties",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];
/// Those that are supported.
const ASSERTIONS: &[&str] = &[
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minItems",
    "minLength",
    "minProperties",
    "pattern",
    "prefixItems",
    "properties",
    "required",
    "type",
];
static ANYTHING: Value = Value::Bool(true);
static NO_KEYWORDS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// An expression for the instances of the schema `text`.
///
/// # Errors
/// What is malformed, or not supported, by its keyword.
pub(super) fn to_regex(text: &str, options: &JsonOptions) -> Result<String, String> {
    let root = match text {
        GrammarSpec::ANY_JSON => Value::Object(Map::new()),
        text => serde_json::from_str(text).map_err(|error| error.to_string())?,
    };
    let (item, key, white) = match (&options.whitespace_pattern, options.disable_any_whitespace) {
        (_, true) => (", ".to_owned(), ": ".to_owned(), String::new()),
        (pattern, false) => {
            let white = format!("(?:{})", pattern.as_deref().unwrap_or(r"[ \n\r\t]*"));
            (format!("{white},{white}"), format!("{white}:{white}"), white)
        }
    };
    let mut writer = Writer { root: &root, refs: Vec::new(), depth: 0, any: 0, item, key, white };
    writer.schema(&root).map_err(|error| match error {
        Failed::Reason(reason) => reason,
        Failed::NoInstance => {
            format!("it has no instance, or none within {MAX_RECURSION} levels of recursion")
        }
    })
}

enum Failed {
    Reason(String),
    /// Nothing is an instance, or its recursion is deeper than we follow: what is optional
    /// is left out instead.
    NoInstance,
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

type Regex = Result<String, Failed>;

struct Writer<'a> {
    root: &'a Value,
    /// References that are being followed.
    refs: Vec<&'a str>,
    depth: usize,
    /// Levels of any JSON around.
    any: usize,
    item: String,
    key: String,
    white: String,
}

impl<'a> Writer<'a> {
    fn schema(&mut self, schema: &'a Value) -> Regex {
        if self.depth == MAX_DEPTH {
            return failed("schemas are too deeply nested");
        }
        self.depth += 1;
        let regex = match schema {
            Value::Object(schema) => self.object_schema(schema),
            Value::Bool(true) => self.any_json(),
            Value::Bool(false) => Err(Failed::NoInstance),
            _ => failed("a schema is an object"),
        };
        self.depth -= 1;
        regex.and_then(short)
    }

    fn object_schema(&mut self, schema: &'a Map<String, Value>) -> Regex {
        if let Some(key) = schema.keys().find(|key| UNSUPPORTED.contains(&key.as_str())) {
            return Err(Failed::Reason(format!("`{key}` is not supported")));
        }
        for key in ["$ref", "anyOf", "allOf", "const", "enum"] {
            let Some(value) = schema.get(key) else { continue };
            let is_beside = |other: &&String| {
                let is_type = *other == "type" && matches!(key, "const" | "enum");
                other.as_str() != key && !is_type && is_assertion(other)
            };
            if let Some(other) = schema.keys().find(is_beside) {
                return Err(Failed::Reason(format!("`{other}` beside `{key}` is not supported")));
            }
            return match key {
                "$ref" => self.reference(value),
                "anyOf" => self.any_of(list(value, key)?),
                "allOf" => match list(value, key)?.as_slice() {
                    [only] => self.schema(only),
                    _ => failed("`allOf` of several is not supported"),
                },
                "const" => self.values(std::slice::from_ref(value), schema.get("type")),
                _ => self.values(list(value, key)?, schema.get("type")),
            };
        }
        self.typed(schema)
    }

    fn typed(&mut self, schema: &'a Map<String, Value>) -> Regex {
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            Some(_) => return failed("`type` is a name, or a list of names"),
            None if schema.keys().any(|key| is_assertion(key)) => TYPES.to_vec(),
            None => return self.any_json(),
        };
        let mut kinds = Vec::new();
        for kind in types {
            match self.of_type(kind, schema) {
                Ok(regex) => kinds.push(regex),
                Err(Failed::NoInstance) => {}
                Err(error) => return Err(error),
            }
        }
        choice(&kinds)
    }

    fn of_type(&mut self, kind: &str, schema: &'a Map<String, Value>) -> Regex {
        match kind {
            "null" => Ok("null".to_owned()),
            "boolean" => Ok("(?:true|false)".to_owned()),
            "integer" => Ok(r"-?(?:0|[1-9][0-9]*)".to_owned()),
            "number" => Ok(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+\-]?[0-9]+)?".to_owned()),
            "string" => string(schema),
            "array" => self.array(schema),
            "object" => self.object(schema),
            _ => Err(Failed::Reason(format!("there is no type `{kind}`"))),
        }
    }

    fn any_json(&mut self) -> Regex {
        if self.any >= MAX_RECURSION {
            return Err(Failed::NoInstance);
        }
        self.any += 1;
        let kinds: Result<Vec<String>, Failed> =
            TYPES.iter().map(|kind| self.of_type(kind, &NO_KEYWORDS)).collect();
        self.any -= 1;
        choice(&kinds?)
    }

    fn reference(&mut self, value: &'a Value) -> Regex {
        let path = value.as_str().unwrap_or_default();
        let pointer =
            path.strip_prefix('#').filter(|path| path.is_empty() || path.starts_with('/'));
        let target = pointer.and_then(|pointer| self.root.pointer(pointer));
        let target = target.ok_or_else(|| format!("the reference `{path}` leads nowhere"))?;
        if self.refs.iter().filter(|followed| **followed == path).count() >= MAX_RECURSION {
            return Err(Failed::NoInstance);
        }
        self.refs.push(path);
        let regex = self.schema(target);
        self.refs.pop();
        regex
    }

    fn any_of(&mut self, schemas: &'a [Value]) -> Regex {
        let mut regexes = Vec::new();
        for schema in schemas {
            regexes.extend(self.optional(schema)?);
        }
        choice(&regexes)
    }

    /// `None` where the recursion is too deep, or nothing is an instance.
    fn optional(&mut self, schema: &'a Value) -> Result<Option<String>, Failed> {
        match self.schema(schema) {
            Err(Failed::NoInstance) => Ok(None),
            regex => regex.map(Some),
        }
    }

    fn values(&self, values: &[Value], kind: Option<&Value>) -> Regex {
        let is_of = |value: &&Value| match kind {
            None => true,
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| is_of_type(value, kind)),
            Some(kind) => is_of_type(value, kind),
        };
        choice(&values.iter().filter(is_of).map(|value| self.value(value)).collect::<Vec<_>>())
    }

    fn value(&self, value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.value(item)).collect();
                self.enclosed(r"\[", &items.join(&self.item), r"\]")
            }
            Value::Object(object) => {
                let pairs = object.iter().map(|(name, value)| self.pair(name, &self.value(value)));
                self.enclosed(r"\{", &pairs.collect::<Vec<_>>().join(&self.item), r"\}")
            }
            Value::String(text) => format!("\"{}\"", json_text::literal(text)),
            other => regex_syntax::escape(&other.to_string()),
        }
    }

    fn pair(&self, name: &str, value: &str) -> String {
        format!("\"{}\"{}{value}", json_text::literal(name), self.key)
    }

    fn enclosed(&self, open: &str, inner: &str, close: &str) -> String {
        let white = &self.white;
        match inner.is_empty() {
            true => format!("{open}{white}{close}"),
            false => format!("{open}{white}{inner}{white}{close}"),
        }
    }

    fn array(&mut self, schema: &'a Map<String, Value>) -> Regex {
        let (min, max) = (count(schema, "minItems")?.unwrap_or(0), count(schema, "maxItems")?);
        let mut first = Vec::new();
        if let Some(items) = schema.get("prefixItems") {
            for item in list(items, "prefixItems")?.iter().take(max.unwrap_or(usize::MAX)) {
                first.push(self.schema(item)?);
            }
        }
        let (min, max) = (min.saturating_sub(first.len()), max.map(|max| max - first.len()));
        let item = match schema.get("items") {
            Some(items) => self.optional(items)?,
            None => self.optional(&ANYTHING)?,
        };
        let first = first.join(&self.item);
        let inner = match item {
            None if min == 0 => first,
            None => return Err(Failed::NoInstance),
            Some(_) if max == Some(0) => first,
            Some(item) if first.is_empty() => {
                let (min_more, max_more) = (min.saturating_sub(1), max.map(|max| max - 1));
                let more = repeat(&format!("{}{item}", self.item), min_more, max_more);
                optional_if(min == 0, &format!("{item}{more}"))
            }
            Some(item) => first + &repeat(&format!("{}{item}", self.item), min, max),
        };
        Ok(self.enclosed(r"\[", &inner, r"\]"))
    }

    fn object(&mut self, schema: &'a Map<String, Value>) -> Regex {
        for key in ["minProperties", "maxProperties"] {
            if schema.contains_key(key) && schema.contains_key("properties") {
                return Err(Failed::Reason(format!(
                    "`{key}` beside `properties` is not supported"
                )));
            }
        }
        let required: Vec<&str> = match schema.get("required") {
            Some(names) => list(names, "required")?.iter().filter_map(Value::as_str).collect(),
            None => Vec::new(),
        };
        match schema.get("properties") {
            Some(Value::Object(properties)) if !properties.is_empty() => {
                self.properties(properties, &required)
            }
            Some(Value::Object(_)) | None if required.is_empty() => self.map(schema),
            _ => failed("`required` names what is not in `properties`"),
        }
    }

    /// The properties in their order, and no others.
    fn properties(&mut self, properties: &'a Map<String, Value>, required: &[&str]) -> Regex {
        if let Some(name) = required.iter().find(|name| !properties.contains_key(**name)) {
            return Err(Failed::Reason(format!("`{name}` is required, but not in `properties`")));
        }
        let mut pairs = Vec::new();
        for (name, schema) in properties {
            let is_required = required.contains(&name.as_str());
            match self.optional(schema)? {
                Some(value) => pairs.push((self.pair(name, &value), is_required)),
                None if is_required => return Err(Failed::NoInstance),
                None => {}
            }
        }
        // From the last one on: what may follow other pairs, and what may stand first.
        let (mut after, mut first) = (String::new(), String::new());
        for (pair, is_required) in pairs.iter().rev() {
            let begins = format!("{pair}{after}");
            first = match (is_required, first.is_empty()) {
                (true, _) => begins,
                (false, true) => optional_if(true, &begins),
                (false, false) => format!("(?:{begins}|{first})"),
            };
            let follows = format!("{}{pair}", self.item);
            after = optional_if(!is_required, &follows) + &after;
            first = short(first)?;
        }
        Ok(self.enclosed(r"\{", &first, r"\}"))
    }

    /// Any names.
    fn map(&mut self, schema: &'a Map<String, Value>) -> Regex {
        let (min, max) =
            (count(schema, "minProperties")?.unwrap_or(0), count(schema, "maxProperties")?);
        let value = match schema.get("additionalProperties") {
            Some(value) => self.optional(value)?,
            None => self.optional(&ANYTHING)?,
        };
        let inner = match value {
            _ if max == Some(0) => String::new(),
            None if min == 0 => String::new(),
            None => return Err(Failed::NoInstance),
            Some(value) if min <= 1 && max.is_none() => {
                let pair = format!("\"{STRING_CHAR}*\"{}{value}", self.key);
                optional_if(min == 0, &format!("{pair}(?:{}{pair})*", self.item))
            }
            // Names that come twice would count twice.
            Some(_) => return failed("a number of properties is not supported"),
        };
        Ok(self.enclosed(r"\{", &inner, r"\}"))
    }
}

fn string(schema: &Map<String, Value>) -> Regex {
    let (min, max) = (count(schema, "minLength")?, count(schema, "maxLength")?);
    let inner = match (schema.get("pattern"), schema.get("format"), min.or(max)) {
        (None, None, _) => repeat(STRING_CHAR, min.unwrap_or(0), max),
        (Some(pattern), None, None) => {
            let pattern = pattern.as_str().ok_or_else(|| "`pattern` is a text".to_owned())?;
            json_text::pattern(pattern)?
        }
        (None, Some(format), None) => {
            let format = format.as_str().unwrap_or_default();
            json_text::format(format)
                .ok_or_else(|| format!("the format `{format}` is not supported"))?
        }
        _ => return failed("a string's `pattern`, `format` and length together are not supported"),
    };
    Ok(format!("\"{inner}\""))
}

/// Whether a keyword takes instances away.
fn is_assertion(key: &str) -> bool {
    ASSERTIONS.contains(&key)
}

fn is_of_type(value: &Value, kind: &Value) -> bool {
    match (kind.as_str(), value) {
        (Some("integer"), Value::Number(number)) => !number.is_f64(),
        (Some("number"), Value::Number(_))
        | (Some("null"), Value::Null)
        | (Some("boolean"), Value::Bool(_))
        | (Some("string"), Value::String(_))
        | (Some("array"), Value::Array(_))
        | (Some("object"), Value::Object(_)) => true,
        _ => false,
    }
}

fn failed<T>(reason: &str) -> Result<T, Failed> {
    Err(Failed::Reason(reason.to_owned()))
}

fn short(regex: String) -> Regex {
    match regex.len() > MAX_BYTES {
        true => Err(Failed::Reason(format!("its expression takes more than {MAX_BYTES} bytes"))),
        false => Ok(regex),
    }
}

fn choice(regexes: &[String]) -> Regex {
    match regexes {
        [] => Err(Failed::NoInstance),
        [one] => Ok(one.clone()),
        many => Ok(format!("(?:{})", many.join("|"))),
    }
}

fn optional_if(is_optional: bool, regex: &str) -> String {
    if is_optional { format!("(?:{regex})?") } else { regex.to_owned() }
}

fn repeat(regex: &str, min: usize, max: Option<usize>) -> String {
    match (min, max) {
        (0, None) => format!("(?:{regex})*"),
        (min, None) => format!("(?:{regex}){{{min},}}"),
        (min, Some(max)) => format!("(?:{regex}){{{min},{max}}}"),
    }
}

fn count(schema: &Map<String, Value>, key: &str) -> Result<Option<usize>, String> {
    let Some(value) = schema.get(key) else { return Ok(None) };
    let float = value.as_f64().filter(|count| count.fract() == 0.0 && *count >= 0.0);
    float.map(|count| Some(count as usize)).ok_or_else(|| format!("`{key}` is a count"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("`{key}` is a list"))
}
