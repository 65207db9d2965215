//! Which fields a body may not set, and the walk that finds them.
//!
//! The walk reads a body without building it: values are looked at, compared
//! with the field's default and dropped. So a large body costs time here, but
//! no memory.
//!
//! Upstream: `sglang/srt/entrypoints/api_contract.py`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Values that mean "not used", besides `null`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unset {
    /// Only `null`, and the empty list, object and string.
    Empty,
    /// This number (or a list of it).
    Number(f64),
    /// This boolean (or a list of it).
    Bool(bool),
    /// One of these strings.
    Strings(&'static [&'static str]),
    /// An object whose `type` is this.
    Type(&'static str),
    /// Whatever it is: it only steers features that are refused themselves.
    Any,
}

/// A field that SGLang has and this server refuses when it is set.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Key in the body.
    pub name: &'static str,
    /// What it may be nevertheless.
    pub unset: Unset,
}

impl Field {
    /// A field whose default is `null`.
    pub const fn empty(name: &'static str) -> Self {
        Self { name, unset: Unset::Empty }
    }

    /// A field whose default is false.
    pub const fn off(name: &'static str) -> Self {
        Self { name, unset: Unset::Bool(false) }
    }

    /// A field whose default is true.
    pub const fn on(name: &'static str) -> Self {
        Self { name, unset: Unset::Bool(true) }
    }

    /// A field whose default is a number.
    pub const fn number(name: &'static str, default: f64) -> Self {
        Self { name, unset: Unset::Number(default) }
    }

    /// A field that changes nothing here whatever it says.
    pub const fn any(name: &'static str) -> Self {
        Self { name, unset: Unset::Any }
    }
}

/// The fields of one kind of body, or of an object inside it.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Refused when set.
    pub unsupported: &'static [Field],
    /// If given, a key that is in neither list is an error: upstream ignores
    /// unknown keys of a body, but not of `sampling_params`.
    pub supported: Option<&'static [&'static str]>,
    /// Objects inside (or lists of objects), with tables of their own.
    pub nested: &'static [(&'static str, &'static Table)],
}

impl Table {
    /// Of a body that may say anything, as long as it is an object.
    pub const EMPTY: Self = Self { unsupported: &[], supported: None, nested: &[] };
}

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldError {
    /// SGLang has the field, this server does not.
    Unsupported {
        /// Its name, with the path inside the body.
        name: String,
    },
    /// Nobody has the field.
    Unknown {
        /// Its name.
        name: String,
        /// The names there are.
        expected: &'static [&'static str],
    },
    /// Not JSON, or not an object.
    Malformed {
        /// The parser's words.
        message: String,
    },
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { name } => write!(f, "`{name}` is not supported by this server"),
            Self::Unknown { name, expected } => {
                write!(f, "unknown field `{name}`, expected one of ")?;
                for (i, key) in expected.iter().enumerate() {
                    write!(f, "{}`{key}`", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Malformed { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for FieldError {}

/// Walks a JSON body and refuses the first field that is set and in `table`.
///
/// # Errors
/// A [`FieldError`]; `Malformed` if `body` is not a JSON object.
pub fn refuse_unsupported(body: &[u8], table: &'static Table) -> Result<(), FieldError> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    Walk { table, path: "", found: &mut found }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| FieldError::Malformed { message: error.to_string() })?;
    found.map_or(Ok(()), Err)
}

struct Walk<'a> {
    table: &'static Table,
    path: &'a str,
    found: &'a mut Option<FieldError>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            deserializer.deserialize_map(self)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if self.found.is_some() {
                map.next_value::<IgnoredAny>()?;
            } else if let Some((name, table)) =
                self.table.nested.iter().find(|(name, _)| *name == key)
            {
                map.next_value_seed(Walk { table, path: name, found: self.found })?;
            } else if let Some(field) = self.table.unsupported.iter().find(|f| f.name == key) {
                if !map.next_value::<Brief>()?.is_unset(field.unset) {
                    let dot = if self.path.is_empty() { "" } else { "." };
                    let name = format!("{}{dot}{key}", self.path);
                    *self.found = Some(FieldError::Unsupported { name });
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                if let Some(expected) = self.table.supported
                    && !expected.contains(&key.as_str())
                {
                    *self.found = Some(FieldError::Unknown { name: key, expected });
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { table, path, found } = self;
        while seq.next_element_seed(Walk { table, path, found: &mut *found })?.is_some() {}
        Ok(())
    }

    // A nested value of another type: its own type will refuse it.
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// As much of a value as it takes to tell a default from something else.
enum Brief {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// Every element equals the field's default, which only the caller knows:
    /// so the distinct ones are kept, up to two.
    List(Vec<Brief>),
    Object {
        is_empty: bool,
        kind: Option<String>,
    },
}

impl Brief {
    fn is_unset(&self, unset: Unset) -> bool {
        match (self, unset) {
            (Self::Null, _) | (_, Unset::Any) => true,
            (Self::Text(text), Unset::Strings(allowed)) => allowed.contains(&text.as_str()),
            (Self::Text(text), Unset::Empty) => text.is_empty(),
            (Self::Bool(value), Unset::Bool(default)) => *value == default,
            (Self::Number(value), Unset::Number(default)) => *value == default,
            (Self::List(values), _) => values.iter().all(|value| value.is_unset(unset)),
            (Self::Object { kind, .. }, Unset::Type(default)) => kind.as_deref() == Some(default),
            (Self::Object { is_empty, .. }, _) => *is_empty,
            _ => false,
        }
    }

    fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Brief {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BriefVisitor)
    }
}

struct BriefVisitor;

impl<'de> Visitor<'de> for BriefVisitor {
    type Value = Brief;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Brief, E> {
        Ok(Brief::Null)
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Brief, E> {
        Ok(Brief::Bool(value))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Brief, E> {
        Ok(Brief::Number(value as f64))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Brief, E> {
        Ok(Brief::Number(value as f64))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Brief, E> {
        Ok(Brief::Number(value))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Brief, E> {
        // Long enough for every default that is a string.
        Ok(Brief::Text(text.chars().take(64).collect()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Brief, A::Error> {
        let mut values: Vec<Brief> = Vec::new();
        while let Some(value) = seq.next_element::<Brief>()? {
            // Two different values besides null cannot both be the default.
            if values.len() < 3 && !values.iter().any(|known| known.same_as(&value)) {
                values.push(value);
            }
        }
        Ok(Brief::List(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Brief, A::Error> {
        let (mut is_empty, mut kind) = (true, None);
        while let Some(key) = map.next_key::<String>()? {
            is_empty = false;
            if key == "type"
                && let Brief::Text(text) = map.next_value()?
            {
                kind = Some(text);
            } else if key != "type" {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Brief::Object { is_empty, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Table = Table {
        unsupported: &[Field::number("penalty", 0.0), Field::empty("regex")],
        supported: Some(&["temperature", "penalty", "regex"]),
        nested: &[],
    };
    static OUTER: Table = Table {
        unsupported: &[
            Field::off("logprob"),
            Field::empty("image"),
            Field { name: "format", unset: Unset::Type("text") },
            Field { name: "choice", unset: Unset::Strings(&["auto", "none"]) },
            Field::any("hint"),
        ],
        supported: None,
        nested: &[("params", &INNER)],
    };

    fn check(body: &str) -> Result<(), String> {
        refuse_unsupported(body.as_bytes(), &OUTER).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_nulls_pass() {
        for body in [
            "{}",
            r#"{"logprob":false,"image":null,"format":{"type":"text"},"choice":"auto"}"#,
            r#"{"logprob":[false,null,false],"image":[],"hint":{"a":[1]},"other":{"regex":"x"}}"#,
            r#"{"params":{"penalty":0,"regex":"","temperature":1}}"#,
            r#"{"params":[{"penalty":0.0},{"regex":null}],"image":[null,null]}"#,
            r#"{"params":null}"#,
            r#"{"params":3}"#,
        ] {
            assert_eq!(check(body), Ok(()), "{body}");
        }
    }

    #[test]
    fn set_values_are_refused_by_name() {
        for (body, name) in [
            (r#"{"logprob":true}"#, "logprob"),
            (r#"{"logprob":[false,true]}"#, "logprob"),
            (r#"{"logprob":1}"#, "logprob"),
            (r#"{"image":"x"}"#, "image"),
            (r#"{"image":[null,"x"]}"#, "image"),
            (r#"{"image":{"a":1}}"#, "image"),
            (r#"{"format":{"type":"json_object"}}"#, "format"),
            (r#"{"choice":"required"}"#, "choice"),
            (r#"{"params":{"penalty":0.5}}"#, "params.penalty"),
            (r#"{"params":[{},{"regex":"a"}]}"#, "params.regex"),
        ] {
            assert_eq!(check(body), Err(format!("`{name}` is not supported by this server")));
        }
    }

    #[test]
    fn unknown_keys_are_refused_only_where_the_table_says_so() {
        assert_eq!(check(r#"{"foo":1}"#), Ok(()));
        assert_eq!(
            check(r#"{"params":{"foo":1}}"#),
            Err("unknown field `foo`, expected one of `temperature`, `penalty`, `regex`".into())
        );
    }

    #[test]
    fn not_an_object_is_malformed() {
        for body in ["", "[]", "3", "{", r#"{"a":1}}"#, r#"{"a":NaN}"#, r#"{"logprob":1e999}"#] {
            assert!(
                matches!(
                    refuse_unsupported(body.as_bytes(), &OUTER),
                    Err(FieldError::Malformed { .. })
                ),
                "{body}"
            );
        }
    }

    #[test]
    fn deep_nesting_is_harmless() {
        let nest =
            |key: &str| format!(r#"{{"{key}":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(check(&nest("other")), Ok(()));
        for key in ["image", "params"] {
            assert!(check(&nest(key)).unwrap_err().contains("recursion limit"), "{key}");
        }
    }
}
