//! Fields that are a text or a list of parts.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};

/// A text, or a list of parts of some kind.
///
/// Read by hand and not as an untagged enum, so that an error inside a part
/// names what is wrong with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TextOr<T> {
    /// Plain.
    Text(String),
    /// In parts.
    Parts(Vec<T>),
}

impl<T> Default for TextOr<T> {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl<T> From<String> for TextOr<T> {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}

struct TextOrVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrVisitor<T> {
    type Value = TextOr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of objects")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextOr::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(TextOr::Parts)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::from_str;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Part {
        text: String,
    }

    #[test]
    fn a_text_or_parts_and_nothing_else() {
        let part = Part { text: "b".to_owned() };
        assert_eq!(from_str::<TextOr<Part>>(r#""a""#).unwrap(), TextOr::Text("a".to_owned()));
        let parts = from_str::<TextOr<Part>>(r#"[{"text":"b"}]"#).unwrap();
        assert_eq!(parts, TextOr::Parts(vec![part]));
        for (bad, reason) in [("3", "a string or a list"), (r#"[{"no":1}]"#, "`text`")] {
            let error = from_str::<TextOr<Part>>(bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
