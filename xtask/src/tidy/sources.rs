//! The files that tidy looks at: every `.rs` file, masked once (see `mask`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::mask::mask;

/// One Rust file.
pub(crate) struct SourceFile {
    /// Relative to the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with comments and literals blanked out; same length in bytes.
    pub(crate) code: String,
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: mask(text) }
    }

    /// Test code by its place: `tests.rs`, `tests/`, `benches/`.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.split('/').any(|part| part == "tests" || part == "benches")
    }

    /// Number of lines before the first `#[cfg(test)] mod`, blank lines and comments included.
    pub(crate) fn non_test_lines(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        let inline_tests = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]"
                && pair[1].trim_start().starts_with("mod ")
                && pair[1].trim_end().ends_with('{')
        });
        inline_tests.unwrap_or(lines.len())
    }
}

pub(crate) fn rust_files(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for path in repo_files(root)? {
        if path.ends_with(".rs") {
            files.push(SourceFile::new(&path, &read(root, &path)?));
        }
    }
    Ok(files)
}

/// Every file of the repository that we wrote, sorted; build output, fetched
/// binaries and hidden folders other than `.github` and `.ci` are left out.
pub(crate) fn repo_files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".github" && name != ".ci";
            if hidden || matches!(name.as_str(), "target" | "third_party" | "__pycache__") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(relative(root, &entry.path())?);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    let path: PathBuf = path.strip_prefix(root)?.to_owned();
    Ok(path.to_string_lossy().replace('\\', "/"))
}

pub(super) fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_inline_tests_begin() {
        let text = "//! A.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        assert_eq!(SourceFile::new("crates/a/src/lib.rs", text).non_test_lines(), 3);
        let sibling = "//! A.\nfn a() {}\n#[cfg(test)]\nmod tests;\nfn c() {}\n";
        assert_eq!(SourceFile::new("crates/a/src/lib.rs", sibling).non_test_lines(), 5);
    }

    #[test]
    fn walk_leaves_out_build_output() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["src", "target/debug", "third_party/mlx", ".git", ".ci"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("a.rs"), "").unwrap();
        }
        assert_eq!(repo_files(root.path()).unwrap(), [".ci/a.rs", "src/a.rs"]);
    }
}
