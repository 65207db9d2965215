//! What a model path names.

use std::fs;

use tempfile::tempdir;

use super::*;

fn error(spec: &str) -> String {
    ModelSource::resolve(spec, None).unwrap_err().to_string()
}

#[test]
fn folders_and_files() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(error(path).ends_with("no config.json, and 0 GGUF files (one would do)"));
    let gguf = folder.path().join("a.GGUF");
    fs::write(&gguf, "").unwrap();
    assert_eq!(ModelSource::resolve(path, None).unwrap(), ModelSource::Gguf(gguf.clone()));
    let spec = gguf.to_str().unwrap();
    assert_eq!(ModelSource::resolve(spec, None).unwrap(), ModelSource::Gguf(gguf.clone()));
    fs::write(folder.path().join("b.gguf"), "").unwrap();
    assert!(error(path).ends_with("no config.json, and 2 GGUF files (one would do)"));
    let config = folder.path().join("config.json");
    fs::write(&config, "{}").unwrap();
    let expected = ModelSource::Folder(folder.path().to_owned());
    assert_eq!(ModelSource::resolve(path, None).unwrap(), expected);
    assert!(error(config.to_str().unwrap()).contains("is not a model: expected a folder"));
}

#[test]
fn hub_ids() {
    let id = "mlx-community/Llama-3.2-1B_4.bit";
    let expected = ModelSource::Hub { id: id.to_owned(), revision: Some("v1".to_owned()) };
    assert_eq!(ModelSource::resolve(id, Some("v1")).unwrap(), expected);
    for spec in ["", "gpt2", "a/b/c", "../x", "a/..", "a/", "/a", "a b/c", "a/b--c", "-a/b", "a/b?"]
    {
        let text = error(spec);
        assert!(text.starts_with(&format!("no model at {spec:?}")), "{text}");
        assert!(text.contains("no such folder or file") && text.contains("hub id"), "{text}");
    }
}
