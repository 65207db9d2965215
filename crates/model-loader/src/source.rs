//! What `--model-path` names.

use std::path::{Path, PathBuf};

use crate::{LoadError, folder};

#[cfg(test)]
mod tests;

/// A model, not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder with config.json.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// `org/name` on the hub.
    Hub {
        /// `org/name`.
        id: String,
        /// Branch, tag or commit; `None` is the main branch.
        revision: Option<String>,
    },
}

impl ModelSource {
    /// Finds out what `spec` is. What exists on disk goes before the hub.
    ///
    /// # Errors
    /// Neither; or a folder or file that holds no model.
    pub fn resolve(spec: &str, revision: Option<&str>) -> Result<Self, LoadError> {
        let path = Path::new(spec);
        if path.is_dir() {
            return Self::of_folder(path);
        }
        if path.is_file() {
            let is_gguf = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
            return match is_gguf {
                true => Ok(Self::Gguf(path.to_owned())),
                false => Err(LoadError::NotAModel { path: path.to_owned() }),
            };
        }
        if is_hub_id(spec) {
            let revision = revision.map(str::to_owned);
            return Ok(Self::Hub { id: spec.to_owned(), revision });
        }
        Err(LoadError::NotFound { spec: spec.to_owned() })
    }

    /// A folder with config.json, or with one GGUF file and nothing else to
    /// choose from.
    fn of_folder(path: &Path) -> Result<Self, LoadError> {
        if path.join("config.json").is_file() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let mut ggufs = folder::entries(path)?;
        ggufs.retain(|file| {
            file.is_file() && file.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
        });
        match &ggufs[..] {
            [one] => Ok(Self::Gguf(one.clone())),
            _ => Err(LoadError::NoConfig { path: path.to_owned(), ggufs: ggufs.len() }),
        }
    }
}

/// `org/name` in the characters that the hub allows.
fn is_hub_id(spec: &str) -> bool {
    let is_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=96).contains(&part.len())
            && part.bytes().all(allowed)
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
    };
    spec.split_once('/').is_some_and(|(org, name)| is_part(org) && is_part(name))
}
