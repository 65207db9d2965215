//! How a folder of sentence-transformers pools: `modules.json`, and the config of the
//! pooling module that it names.
//!
//! Upstream: `get_pooling_config` in `sglang/srt/configs/model_config.py`.

use std::path::Path;

use serde::Deserialize;
use types::Pooling;

use crate::{FileProblem, LoadError, folder::read_optional};

/// Lists the modules that a text goes through.
const MODULES: &str = "modules.json";

/// A step of a text's way to its embedding.
#[derive(Deserialize)]
struct Module {
    /// A folder, empty for the model's own.
    #[serde(default)]
    path: String,
    /// A class, with the package before it.
    #[serde(rename = "type")]
    class: String,
}

/// Which of these are set; the newer form is a word.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// `None` for a folder without `modules.json`, which is no embedding model by itself.
///
/// # Errors
/// A file is damaged; a module or a pooling that is not supported.
pub(crate) fn pooling(folder: &Path) -> Result<Option<Pooling>, LoadError> {
    let path = folder.join(MODULES);
    let Some(text) = read_optional(&path)? else { return Ok(None) };
    let modules: Vec<Module> = parse(&path, &text)?;
    let mut pooling = Pooling::Last;
    for module in &modules {
        match module.class.rsplit('.').next().unwrap_or_default() {
            // Embeddings are normalised in any case, as upstream.
            "Transformer" | "Normalize" => {}
            "Pooling" => pooling = pooling_of(folder, &module.path)?,
            class => {
                let module = class.to_owned();
                return Err(LoadError::File { path, problem: FileProblem::Module { module } });
            }
        }
    }
    Ok(Some(pooling))
}

fn pooling_of(folder: &Path, module: &str) -> Result<Pooling, LoadError> {
    let path = folder.join(module).join("config.json");
    let Some(text) = read_optional(&path)? else {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(LoadError::Io { path, source });
    };
    let config: PoolingConfig = parse(&path, &text)?;
    match config.set().as_slice() {
        ["cls"] => Ok(Pooling::First),
        ["mean"] => Ok(Pooling::Mean),
        ["lasttoken"] => Ok(Pooling::Last),
        set => {
            let pooling = set.join(" and ");
            Err(LoadError::File { path, problem: FileProblem::Pooling { pooling } })
        }
    }
}

impl PoolingConfig {
    fn set(&self) -> Vec<&str> {
        if let Some(word) = &self.pooling_mode {
            return vec![word.as_str()];
        }
        let flags = [
            ("cls", self.pooling_mode_cls_token),
            ("mean", self.pooling_mode_mean_tokens),
            ("max", self.pooling_mode_max_tokens),
            ("mean_sqrt_len_tokens", self.pooling_mode_mean_sqrt_len_tokens),
            ("weightedmean", self.pooling_mode_weightedmean_tokens),
            ("lasttoken", self.pooling_mode_lasttoken),
        ];
        flags.into_iter().filter(|flag| flag.1).map(|flag| flag.0).collect()
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, LoadError> {
    serde_json::from_str(text).map_err(|error| LoadError::File {
        path: path.to_owned(),
        problem: FileProblem::Json(error),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CLASSES: [&str; 3] = [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    ];

    fn of(classes: &[&str], config: &str) -> Result<Option<Pooling>, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["", "1_Pooling", "2_Normalize"];
        let modules: Vec<_> = classes
            .iter()
            .zip(paths)
            .map(|(class, path)| serde_json::json!({"path": path, "type": class}))
            .collect();
        let modules = serde_json::Value::from(modules).to_string();
        fs::write(folder.path().join(MODULES), modules).unwrap();
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        fs::write(folder.path().join("1_Pooling/config.json"), config).unwrap();
        let root = folder.path().to_str().unwrap().to_owned();
        pooling(folder.path()).map_err(|error| error.to_string().replace(&root, "."))
    }

    #[test]
    fn the_pooling_module_decides() {
        for (config, expected) in [
            (r#"{"pooling_mode_cls_token": true}"#, Pooling::First),
            (r#"{"word_embedding_dimension": 9, "pooling_mode_mean_tokens": true}"#, Pooling::Mean),
            (r#"{"pooling_mode_lasttoken": true}"#, Pooling::Last),
            (r#"{"pooling_mode": "mean"}"#, Pooling::Mean),
        ] {
            assert_eq!(of(&CLASSES, config), Ok(Some(expected)), "{config}");
        }
        assert_eq!(of(&CLASSES[..1], "{}"), Ok(Some(Pooling::Last)), "upstream's default");
        assert_eq!(pooling(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let two = r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#;
        assert_eq!(
            of(&CLASSES, two).unwrap_err(),
            "./1_Pooling/config.json: pooling by cls and max is not supported (cls, mean and \
             lasttoken are)"
        );
        assert_eq!(
            of(&[CLASSES[0], "sentence_transformers.models.Dense"], "{}").unwrap_err(),
            "./modules.json: the module Dense is not supported (Transformer, Pooling and \
             Normalize are)"
        );
    }
}
