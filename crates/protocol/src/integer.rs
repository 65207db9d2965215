//! Integers of requests.

use std::fmt;

use serde::{Deserializer, de};

/// Integers up to here are told apart by floating-point numbers.
const MAX_EXACT: f64 = (1_u64 << 53) as f64;

/// An integer that may be written with a fraction of zero, such as `256.0`: clients whose
/// numbers are all floating-point ones send that, and upstream takes it. A field with it needs
/// `default`, too.
pub(crate) fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    deserializer.deserialize_any(IntegerVisitor)
}

struct IntegerVisitor;

impl de::Visitor<'_> for IntegerVisitor {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        let too_large = |_| E::invalid_value(de::Unexpected::Unsigned(value), &"a 64-bit integer");
        i64::try_from(value).map(Some).map_err(too_large)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if value.fract() == 0.0 && value.abs() <= MAX_EXACT {
            return Ok(Some(value as i64));
        }
        Err(E::invalid_type(de::Unexpected::Float(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Body {
        #[serde(deserialize_with = "integer")]
        n: Option<i64>,
    }

    fn read(json: &str) -> Result<Option<i64>, String> {
        let body: Result<Body, _> = serde_json::from_str(json);
        body.map(|body| body.n).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fraction_of_zero_is_none() {
        for (json, expected) in [
            (r#"{"n":256.0}"#, Some(256)),
            (r#"{"n":-1.0}"#, Some(-1)),
            (r#"{"n":1e2}"#, Some(100)),
            (r#"{"n":-7}"#, Some(-7)),
            (r#"{"n":9223372036854775807}"#, Some(i64::MAX)),
            (r#"{"n":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(read(json), Ok(expected), "{json}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        for (json, reason) in [
            (r#"{"n":2.5}"#, "floating point `2.5`, expected an integer"),
            (r#"{"n":1e300}"#, "expected an integer"),
            (r#"{"n":9223372036854775808}"#, "expected a 64-bit integer"),
            (r#"{"n":"2"}"#, "string \"2\", expected an integer"),
            (r#"{"n":true}"#, "boolean `true`, expected an integer"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
