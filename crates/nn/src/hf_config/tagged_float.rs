//! Deserializes from JSON in which `{"__float__": "Infinity"}` is a number.
//!
//! JSON has no infinities and `serde_json::Value` cannot hold one, so the
//! marker stays in the raw map and becomes a float on the way into a struct. Python also
//! writes and reads such numbers as bare words; those become marked first.

use std::borrow::Cow;

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value};

const TAG: &str = "__float__";

/// Marks the numbers that are bare words.
pub(super) fn tag_bare(text: &str) -> Cow<'_, str> {
    if !text.contains("Infinity") && !text.contains("NaN") {
        return text.into();
    }
    let infinity = format!(r#"{{"{TAG}": "Infinity"}}"#);
    let marked = |between: &str| {
        let marked = between.replace("NaN", &infinity.replace("Infinity", "NaN"));
        let marked = marked.replace("Infinity", &infinity);
        marked.replace(&format!("-{infinity}"), &infinity.replace("Inf", "-Inf"))
    };
    let (mut out, mut rest) = (String::with_capacity(2 * text.len()), text);
    while let Some(quote) = rest.find('"') {
        let end = quote + string_len(&rest[quote..]);
        out += &marked(&rest[..quote]);
        out += &rest[quote..end];
        rest = &rest[end..];
    }
    (out + &marked(rest)).into()
}

/// Bytes of the string in quotes that a text begins with; all if it has no end.
fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !is_escaped => return at + 1,
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    text.len()
}

/// The struct, or the path of the offending field and what is wrong with it.
pub(super) fn parse<T: DeserializeOwned>(
    fields: &Map<String, Value>,
) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(Tagged::Object(fields))
        .map_err(|error| (error.path().to_string(), error.inner().to_string()))
}

/// A value, borrowed.
#[derive(Clone, Copy)]
enum Tagged<'a> {
    Object(&'a Map<String, Value>),
    Other(&'a Value),
}

impl<'a> Tagged<'a> {
    fn new(value: &'a Value) -> Self {
        value.as_object().map_or(Self::Other(value), Self::Object)
    }

    fn float(fields: &Map<String, Value>) -> Option<f64> {
        let name = fields.get(TAG).filter(|_| fields.len() == 1)?.as_str()?;
        Some(match name {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            _ => return None,
        })
    }
}

impl<'de> Deserializer<'de> for Tagged<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Object(fields) => match Self::float(fields) {
                Some(float) => visitor.visit_f64(float),
                None => {
                    let entries =
                        fields.iter().map(|(key, value)| (key.as_str(), Tagged::new(value)));
                    visitor.visit_map(MapDeserializer::new(entries))
                }
            },
            Self::Other(Value::Array(items)) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(Tagged::new)))
            }
            Self::Other(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Other(Value::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Object(fields) => fields.deserialize_enum(name, variants, visitor),
            Self::Other(value) => value.deserialize_enum(name, variants, visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Tagged<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
