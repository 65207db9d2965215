//! What mlx-lm made of twenty prompts, stored by `tools/oracle/mlx_lm_parity.py`.

use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One file of goldens.
#[derive(Debug, Deserialize)]
pub struct Goldens {
    /// The prompt whose logits lie in [`Self::logits`].
    pub logits_of: String,
    /// In the order of the file.
    pub prompts: Vec<Golden>,
    /// After the last token of `logits_of`: `[vocab_size]`.
    #[serde(skip)]
    pub logits: Vec<f32>,
}

/// One prompt with its greedy continuation.
#[derive(Debug, Deserialize)]
pub struct Golden {
    /// What it is about.
    pub name: String,
    /// Absent if the prompt was cut to a number of tokens.
    pub text: Option<String>,
    /// The prompt.
    pub input_ids: Vec<u32>,
    /// Greedy tokens.
    pub output_ids: Vec<u32>,
    /// Lead of each token over the runner-up, in nats.
    pub margins: Vec<f32>,
}

impl Goldens {
    /// Reads `testdata/parity/<name>.json` and its logits.
    pub fn read(name: &str) -> Result<Self> {
        let folder = crate::repo_root().join("crates/e2e/testdata/parity");
        let text =
            fs::read_to_string(folder.join(format!("{name}.json"))).context(name.to_owned())?;
        let mut goldens: Self = serde_json::from_str(&text)?;
        let bytes = fs::read(folder.join(format!("{name}.logits.f32")))?;
        goldens.logits =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(goldens)
    }

    /// The prompt called `name`; panics if there is none.
    pub fn prompt(&self, name: &str) -> &Golden {
        let found = self.prompts.iter().find(|golden| golden.name == name);
        found.unwrap_or_else(|| panic!("no golden is called {name}"))
    }
}
