//! House rules that no compiler checks. Each rule is one file and returns its
//! violations as lines of text; an empty list means clean.

mod edges;
mod locks;
mod mask;
mod sizes;
mod sources;
mod text;

use std::path::Path;

use anyhow::Result;

pub(crate) use sources::{SourceFile, repo_files};

/// Runs every rule on the repository at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let files = sources::rust_files(root)?;
    let mut violations = edges::check(root)?;
    violations.extend(locks::check(root)?);
    violations.extend(text::check(&files));
    violations.extend(text::check_words(root)?);
    violations.extend(sizes::check(root, &files)?);
    Ok(violations)
}
