//! Typed look-ups in GGUF metadata. A key of the wrong type is an error that
//! names the key; so is an absent one, unless the look-up says optional.

use std::collections::BTreeMap;

use super::reader::GgufValue;
use crate::FileProblem;

/// All entries by key.
#[derive(Debug, Default)]
pub(crate) struct Metadata(BTreeMap<String, GgufValue>);

impl Metadata {
    pub(crate) fn new(entries: Vec<(String, GgufValue)>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// All keys, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes an entry out, so that long lists are moved and not copied.
    pub(crate) fn remove(&mut self, key: &str) -> Option<GgufValue> {
        self.0.remove(key)
    }

    pub(crate) fn usize(&self, key: &str) -> Result<usize, FileProblem> {
        self.optional_usize(key)?.ok_or_else(|| FileProblem::metadata(key, "is missing"))
    }

    pub(crate) fn float(&self, key: &str) -> Result<f64, FileProblem> {
        self.optional_float(key)?.ok_or_else(|| FileProblem::metadata(key, "is missing"))
    }

    pub(crate) fn optional_usize(&self, key: &str) -> Result<Option<usize>, FileProblem> {
        Ok(self.optional_u32(key)?.map(|value| value as usize))
    }

    pub(crate) fn optional_u32(&self, key: &str) -> Result<Option<u32>, FileProblem> {
        self.find(key, "expected a count", |value| match value {
            GgufValue::Int(value) => u32::try_from(*value).ok(),
            _ => None,
        })
    }

    pub(crate) fn optional_float(&self, key: &str) -> Result<Option<f64>, FileProblem> {
        self.find(key, "expected a finite float", |value| match value {
            GgufValue::Float(value) => Some(*value).filter(|value| value.is_finite()),
            _ => None,
        })
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>, FileProblem> {
        self.find(key, "expected true or false", |value| match value {
            GgufValue::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(crate) fn optional_str(&self, key: &str) -> Result<Option<&str>, FileProblem> {
        self.find(key, "expected a string", |value| match value {
            GgufValue::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    /// A number, or a list of them per layer that are all the same.
    pub(crate) fn same_for_all_layers(&self, key: &str) -> Result<Option<usize>, FileProblem> {
        let Some(GgufValue::Array(values)) = self.0.get(key) else {
            return self.optional_usize(key);
        };
        self.find(key, "different counts per layer are not supported", |_| {
            let first = values.first()?;
            let GgufValue::Int(count) = first else { return None };
            let count = usize::try_from(*count).ok()?;
            values.iter().all(|value| value == first).then_some(count)
        })
    }

    pub(crate) fn is_list(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some(GgufValue::Array(_)))
    }

    pub(crate) fn optional_bools(&self, key: &str) -> Result<Option<Vec<bool>>, FileProblem> {
        let flag = |value: &GgufValue| match value {
            GgufValue::Bool(flag) => Some(*flag),
            GgufValue::Int(value @ (0 | 1)) => Some(*value == 1),
            _ => None,
        };
        self.find(key, "expected a list of true and false", |value| match value {
            GgufValue::Array(values) => values.iter().map(flag).collect(),
            _ => None,
        })
    }

    fn find<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>, FileProblem> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| FileProblem::metadata(key, expected))
    }
}

/// The elements of a list that are all of one kind.
pub(crate) fn list<T>(
    key: &str,
    value: Option<GgufValue>,
    read: impl Fn(GgufValue) -> Option<T>,
) -> Result<Option<Vec<T>>, FileProblem> {
    let Some(value) = value else { return Ok(None) };
    let items = match value {
        GgufValue::Array(items) => items.into_iter().map(read).collect(),
        _ => None,
    };
    items.map(Some).ok_or_else(|| FileProblem::metadata(key, "expected a list of one type"))
}
