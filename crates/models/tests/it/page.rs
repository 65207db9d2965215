//! `docs/compat/models.md`, written from the registry and the goldens.

use std::{fs, path::Path};

use models::MODELS;

use crate::tiny::goldens;

/// `UPDATE_DOCS=1 cargo test -p models` writes the page anew.
#[test]
fn the_page_of_models_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat/models.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/compat/models.md is stale: UPDATE_DOCS=1 cargo test -p models");
}

fn page() -> String {
    let mut page = String::from(
        "# Models\n\n\
         A checkpoint runs if its `architectures` (or, where config.json names none, its \
         `model_type`) is in this\ntable: as published on Hugging Face or converted by mlx-lm, \
         plain or quantized. A config value that the\nmodel's code does not follow is refused by \
         name. This page is written by a test\n(`UPDATE_DOCS=1 cargo test -p models`).\n\n\
         Each golden is a tiny checkpoint with what mlx-lm 0.32.2 computes from it in f32: logits \
         agree within 2e-4,\ngreedy tokens are the same. How to add a family: \
         [add-a-model.md](../howto/add-a-model.md).\n\n\
         | architecture | `model_type` | models | goldens |\n|---|---|---|---|\n",
    );
    let goldens = goldens();
    for entry in MODELS {
        let names = |names: &[&str]| {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let cases: Vec<_> = goldens
            .iter()
            .filter(|golden| {
                let hf = golden.hf_config();
                hf.architectures().iter().any(|name| entry.architectures.contains(&name.as_str()))
            })
            .map(|golden| golden.name.as_str())
            .collect();
        let (architectures, types) = (names(entry.architectures), names(entry.model_types));
        let cases = cases.join(", ");
        page += &format!("| {architectures} | {types} | {} | {cases} |\n", entry.models);
    }
    page
}
