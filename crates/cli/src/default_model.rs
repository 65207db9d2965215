//! The model that is served when none is named: small enough for any machine,
//! fetched by `make setup`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Below the workspace, or below a folder above the executable.
const RELATIVE: &str = "third_party/models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Nothing was named and nothing was fetched.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no --model-path given, and the default model is not there ({RELATIVE}); run `make setup` \
     to fetch it, or name a model"
)]
pub(crate) struct NoDefaultModel;

/// Where the default model is.
///
/// # Errors
/// It was never fetched.
pub(crate) fn default_model_path() -> Result<PathBuf, NoDefaultModel> {
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    starts.iter().flatten().find_map(|start| find_above(start)).ok_or(NoDefaultModel)
}

fn find_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(RELATIVE)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn is_found_in_any_folder_above() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("target/debug");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(find_above(&deep), None);
        let model = root.path().join(RELATIVE);
        fs::create_dir_all(model.parent().unwrap()).unwrap();
        fs::write(&model, "GGUF").unwrap();
        assert_eq!(find_above(&deep), Some(model));
    }
}
