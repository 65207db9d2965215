//! `reasoning_effort`.

use serde::{Deserialize, Deserializer, Serialize, de};

/// How much a model is asked to think: a level, or SGLang's number.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ReasoningEffort {
    /// One of [`LEVELS`].
    Level(String),
    /// From 0 to 0.99.
    Number(f64),
}

/// The levels there are.
const LEVELS: [&str; 8] = ["none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max"];

impl ReasoningEffort {
    /// The level, if it is one.
    pub fn level(&self) -> Option<&str> {
        match self {
            Self::Level(level) => Some(level),
            Self::Number(_) => None,
        }
    }

    /// Whether there is to be reasoning.
    pub fn is_on(&self) -> bool {
        self.level() != Some("none")
    }
}

impl From<&str> for ReasoningEffort {
    fn from(level: &str) -> Self {
        Self::Level(level.to_owned())
    }
}

impl<'de> Deserialize<'de> for ReasoningEffort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "reasoning_effort as a level or a number")]
        enum Sent {
            Text(String),
            Number(f64),
        }
        let number = match Sent::deserialize(deserializer)? {
            Sent::Text(text) if LEVELS.contains(&text.as_str()) => return Ok(Self::Level(text)),
            // Gateways write numbers as text.
            Sent::Text(text) => text.parse().ok(),
            Sent::Number(number) => Some(number),
        };
        let number = number.filter(|number| (0.0..=0.99).contains(number));
        number.map(Self::Number).ok_or_else(|| {
            let levels = LEVELS.join(", ");
            de::Error::custom(format!(
                "reasoning_effort must be one of {levels}, or a number from 0 to 0.99"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_and_numbers_are_taken_and_nothing_else() {
        let effort = |value| serde_json::from_value::<ReasoningEffort>(value);
        assert_eq!(effort(json!("high")).unwrap(), "high".into());
        assert_eq!(effort(json!(0.5)).unwrap(), ReasoningEffort::Number(0.5));
        assert_eq!(effort(json!("0.25")).unwrap(), ReasoningEffort::Number(0.25));
        assert_eq!(serde_json::to_value(ReasoningEffort::Number(0.5)).unwrap(), json!(0.5));
        for value in [json!("much"), json!(1), json!(-0.1), json!(true), json!({}), json!("NaN")] {
            let error = effort(value.clone()).unwrap_err().to_string();
            assert!(error.contains("reasoning_effort"), "{value}: {error}");
        }
    }
}
