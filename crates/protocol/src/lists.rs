//! "One or a list of" fields.
//!
//! Written by hand instead of as untagged enums: those buffer the whole value
//! first, which turns a 60 MB list of small numbers into gigabytes. The lists
//! here are also cut off early: a body can be small and still name a million
//! empty strings.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use types::TokenId;

/// Most sequences one request may ask for, `n` included.
pub const MAX_BATCH_SIZE: usize = 4096;

/// A value, or a list of at most [`MAX_BATCH_SIZE`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A bare value: not a batch.
    One(T),
    /// A list, of length one too: a batch.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values in order.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(values) => values.len(),
        }
    }

    /// True for an empty list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for a list.
    pub fn is_many(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

/// Scalars that may stand alone or in a list.
pub trait Scalar: for<'de> Deserialize<'de> {
    /// For "expected ..." messages.
    const NAME: &'static str;
    /// From a JSON string, if strings are of this kind.
    fn from_str(_: &str) -> Option<Self> {
        None
    }
    /// From a JSON integer, if numbers are of this kind.
    fn from_i64(_: i64) -> Option<Self> {
        None
    }
    /// From a JSON boolean, if booleans are of this kind.
    fn from_bool(_: bool) -> Option<Self> {
        None
    }
}

impl Scalar for String {
    const NAME: &'static str = "a string";
    fn from_str(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Scalar for i64 {
    const NAME: &'static str = "an integer";
    fn from_i64(value: i64) -> Option<Self> {
        Some(value)
    }
}

impl Scalar for bool {
    const NAME: &'static str = "a boolean";
    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl<'de, T: Scalar> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Scalar> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or a list of them", T::NAME)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let value = T::from_str(text);
        value.map(OneOrMany::One).ok_or_else(|| E::invalid_type(de::Unexpected::Str(text), &self))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        let scalar = T::from_bool(value);
        scalar
            .map(OneOrMany::One)
            .ok_or_else(|| E::invalid_type(de::Unexpected::Bool(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        let scalar = T::from_i64(value);
        scalar
            .map(OneOrMany::One)
            .ok_or_else(|| E::invalid_type(de::Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        let scalar = i64::try_from(value).ok().and_then(T::from_i64);
        scalar
            .map(OneOrMany::One)
            .ok_or_else(|| E::invalid_type(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            push_limited(&mut values, value)?;
        }
        Ok(OneOrMany::Many(values))
    }
}

pub(crate) fn push_limited<T, E: de::Error>(values: &mut Vec<T>, value: T) -> Result<(), E> {
    if values.len() == MAX_BATCH_SIZE {
        return Err(E::custom(format_args!("a list may have at most {MAX_BATCH_SIZE} entries")));
    }
    values.push(value);
    Ok(())
}

/// Prompts as token ids: `[1, 2]` is one prompt, `[[1, 2], [3]]` a batch.
///
/// Ids keep their sign and width, so that `-1` and `2^40` can be refused by
/// value and not as a type error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptIds {
    /// A flat list.
    One(Vec<i64>),
    /// A list of lists.
    Many(Vec<Vec<i64>>),
}

impl PromptIds {
    /// Every prompt, checked against the vocabulary; the offending id if one
    /// is outside it.
    pub fn checked(self, vocab_size: usize) -> Result<OneOrMany<Vec<TokenId>>, i64> {
        let check = |ids: Vec<i64>| -> Result<Vec<TokenId>, i64> {
            ids.into_iter()
                .map(|id| match TokenId::try_from(id) {
                    Ok(token) if (token as usize) < vocab_size => Ok(token),
                    _ => Err(id),
                })
                .collect()
        };
        Ok(match self {
            Self::One(ids) => OneOrMany::One(check(ids)?),
            Self::Many(prompts) => {
                OneOrMany::Many(prompts.into_iter().map(check).collect::<Result<_, _>>()?)
            }
        })
    }
}

impl<'de> Deserialize<'de> for PromptIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PromptIdsVisitor)
    }
}

struct PromptIdsVisitor;

impl<'de> Visitor<'de> for PromptIdsVisitor {
    type Value = PromptIds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids or a list of such lists")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        match seq.next_element::<IdOrIds>()? {
            None => Ok(PromptIds::One(Vec::new())),
            Some(IdOrIds::Id(first)) => {
                let mut ids = vec![first];
                while let Some(id) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(PromptIds::One(ids))
            }
            Some(IdOrIds::Ids(first)) => {
                let mut prompts = vec![first];
                while let Some(ids) = seq.next_element()? {
                    push_limited(&mut prompts, ids)?;
                }
                Ok(PromptIds::Many(prompts))
            }
        }
    }
}

enum IdOrIds {
    Id(i64),
    Ids(Vec<i64>),
}

impl<'de> Deserialize<'de> for IdOrIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrIdsVisitor;
        impl<'de> Visitor<'de> for IdOrIdsVisitor {
            type Value = IdOrIds;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id or a list of token ids")
            }
            fn visit_i64<E: de::Error>(self, id: i64) -> Result<IdOrIds, E> {
                Ok(IdOrIds::Id(id))
            }
            fn visit_u64<E: de::Error>(self, id: u64) -> Result<IdOrIds, E> {
                let id = i64::try_from(id);
                id.map(IdOrIds::Id).map_err(|_| E::custom("a token id is too large"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<IdOrIds, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(IdOrIds::Ids(ids))
            }
        }
        deserializer.deserialize_any(IdOrIdsVisitor)
    }
}

/// `stop`: a string or a list. Only the first [`StopStrings::MAX`] are kept;
/// `count` says how many there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStrings {
    /// At most [`StopStrings::MAX`] strings.
    pub strings: Vec<String>,
    /// Length of the list as sent.
    pub count: usize,
}

impl StopStrings {
    /// Most stop strings a request may have.
    pub const MAX: usize = 32;
}

impl<'de> Deserialize<'de> for StopStrings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StopVisitor;
        impl<'de> Visitor<'de> for StopVisitor {
            type Value = StopStrings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<StopStrings, E> {
                Ok(StopStrings { strings: vec![text.to_owned()], count: 1 })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StopStrings, A::Error> {
                let mut stop = StopStrings::default();
                while stop.count < StopStrings::MAX
                    && let Some(text) = seq.next_element()?
                {
                    stop.strings.push(text);
                    stop.count += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    stop.count += 1;
                }
                Ok(stop)
            }
        }
        deserializer.deserialize_any(StopVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::from_str;

    use super::*;

    #[test]
    fn one_or_many() {
        let one: OneOrMany<String> = from_str(r#""a""#).unwrap();
        assert_eq!(one, OneOrMany::One("a".into()));
        let many: OneOrMany<String> = from_str(r#"["a","b"]"#).unwrap();
        assert_eq!(many.into_vec(), ["a", "b"]);
        assert!(from_str::<OneOrMany<String>>("3").is_err());
        assert!(from_str::<OneOrMany<i64>>(r#""3""#).is_err());
        assert_eq!(from_str::<OneOrMany<i64>>("-3").unwrap(), OneOrMany::One(-3));
        assert_eq!(from_str::<OneOrMany<bool>>("[true]").unwrap(), OneOrMany::Many(vec![true]));
        assert!(from_str::<OneOrMany<bool>>("1").is_err());
        let long = format!("[{}\"\"]", "\"\",".repeat(MAX_BATCH_SIZE));
        let error = from_str::<OneOrMany<String>>(&long).unwrap_err().to_string();
        assert!(error.starts_with("a list may have at most 4096 entries"), "{error}");
    }

    #[test]
    fn prompt_ids() {
        assert_eq!(from_str::<PromptIds>("[1,2]").unwrap(), PromptIds::One(vec![1, 2]));
        assert_eq!(from_str::<PromptIds>("[]").unwrap(), PromptIds::One(vec![]));
        assert_eq!(
            from_str::<PromptIds>("[[1],[],[2,3]]").unwrap(),
            PromptIds::Many(vec![vec![1], vec![], vec![2, 3]])
        );
        for bad in ["[1,[2]]", "[[1],2]", "[1.5]", r#"["a"]"#, "[true]", "1", "[[[1]]]", "[1e3]"] {
            assert!(from_str::<PromptIds>(bad).is_err(), "{bad}");
        }
        assert_eq!(PromptIds::One(vec![1, -1]).checked(10), Err(-1));
        assert_eq!(PromptIds::Many(vec![vec![9], vec![10]]).checked(10), Err(10));
        assert_eq!(PromptIds::One(vec![9]).checked(10), Ok(OneOrMany::One(vec![9])));
    }

    #[test]
    fn stop_strings_are_counted_but_not_all_kept() {
        let one: StopStrings = from_str(r#""x""#).unwrap();
        assert_eq!((one.strings.len(), one.count), (1, 1));
        let many = format!("[{}\"z\"]", "\"y\",".repeat(9_999));
        let many: StopStrings = from_str(&many).unwrap();
        assert_eq!((many.strings.len(), many.count), (StopStrings::MAX, 10_000));
        assert!(from_str::<StopStrings>("[1]").is_err());
    }
}
