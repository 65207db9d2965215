//! The fields of `quantization_config`, complaints with the method's name.

use mlx::quantized::QuantMode;
use nn::QuantSpec;
use serde_json::{Map, Value};

use crate::LoadError;

/// What a config says about its method.
#[derive(Clone)]
pub(super) struct Settings<'a> {
    method: &'static str,
    fields: &'a Map<String, Value>,
}

impl<'a> Settings<'a> {
    pub(super) fn new(method: &'static str, fields: &'a Map<String, Value>) -> Self {
        Self { method, fields }
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }

    /// The settings in an object of their own.
    pub(super) fn within(&self, fields: &'a Map<String, Value>) -> Self {
        Self { method: self.method, fields }
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn number(&self, field: &'static str, default: usize) -> Result<usize, LoadError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| self.refuse(field))
    }

    /// Fails unless the field is absent or one of `known`, in any case.
    pub(super) fn expect(&self, field: &'static str, known: &[&str]) -> Result<(), LoadError> {
        let Some(value) = self.get(field) else { return Ok(()) };
        let is_known = |text: &str| known.iter().any(|name| text.eq_ignore_ascii_case(name));
        match value.as_str().is_some_and(is_known) {
            true => Ok(()),
            false => Err(self.refuse(field)),
        }
    }

    /// Integers of one of the widths, with a scale and a bias for each group.
    pub(super) fn affine(
        &self,
        bits: (&'static str, &[usize]),
        default_group_size: usize,
    ) -> Result<QuantSpec, LoadError> {
        self.affine_of(bits, self.number("group_size", default_group_size)?)
    }

    /// The same with one scale and bias for a whole row, which MLX has no form for: each
    /// of its groups has the same.
    pub(super) fn affine_rows(
        &self,
        bits: (&'static str, &[usize]),
    ) -> Result<QuantSpec, LoadError> {
        self.affine_of(bits, QuantSpec::of_mode(QuantMode::Affine).group_size)
    }

    fn affine_of(
        &self,
        (field, widths): (&'static str, &[usize]),
        group_size: usize,
    ) -> Result<QuantSpec, LoadError> {
        let bits = self.number(field, 4)?;
        if !widths.contains(&bits) {
            return Err(self.refuse(field));
        }
        QuantSpec::new("affine", Some(group_size), Some(bits))
            .map_err(|_| self.refuse("group_size"))
    }

    /// Rows and columns that share a scale: a pair of numbers.
    pub(super) fn block(&self, field: &'static str) -> Result<Option<[usize; 2]>, LoadError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let pair: Option<Vec<u64>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_u64).collect());
        match pair.as_deref() {
            Some(&[rows @ 1..=65536, columns @ 1..=65536]) => {
                Ok(Some([rows as usize, columns as usize]))
            }
            _ => Err(self.refuse(field)),
        }
    }

    pub(super) fn refuse(&self, field: &'static str) -> LoadError {
        let value = self.get(field).cloned().unwrap_or_default().to_string();
        LoadError::ImportSetting { method: self.method, field, value }
    }
}
