//! Rules on the text of single files: header, `unsafe`, unfinished code, and
//! words that have no place in a public repository.

use std::path::Path;

use anyhow::Result;

use super::sources::{SourceFile, read, repo_files};

/// The only homes of `unsafe`: the ways to C++ (MLX, and the emulator that runs
/// GPU kernels in tests), and SIMD.
const UNSAFE_HOMES: &[&str] =
    &["crates/mlx-sys/", "crates/mlx/", "crates/kernels/src/cpu/", "crates/kernel-emulator/"];

/// Code that does not belong in a commit: pattern and what to do.
const UNFINISHED: &[(&str, &str)] = &[
    ("#[ignore", "an ignored test tests nothing: run it or remove it"),
    ("todo!", "finish it, or return an error that names what is missing"),
    ("unimplemented!", "return an error that names what is missing"),
    ("dbg!", "remove it"),
];

pub(crate) fn check(files: &[SourceFile]) -> Vec<String> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let mut violations = Vec::new();
    if !file.text.starts_with("//!") {
        violations.push(format!("{}: starts with no `//!` header: say what it is for", file.path));
    }
    let may_be_unsafe = UNSAFE_HOMES.iter().any(|home| file.path.starts_with(home));
    for (number, line) in (1..).zip(file.code.lines()) {
        let mut add = |what: &str| violations.push(format!("{}:{number}: {what}", file.path));
        if !may_be_unsafe && has_word(line, "unsafe") {
            add("`unsafe` lives in mlx-sys, mlx, kernels/src/cpu and kernel-emulator only");
        }
        for (pattern, advice) in UNFINISHED {
            if line.contains(pattern) {
                add(&format!("`{pattern}`: {advice}"));
            }
        }
    }
    violations
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// Paths of one person's machine and hosts of package registries: a fresh
/// clone elsewhere has neither. Spelled in pieces so that this file passes.
fn forbidden_words() -> Vec<String> {
    let folders = ["/work", "/root", "/home", "/Users"].map(|folder| format!("{folder}/"));
    let hosts = [["files.python", "hosted.org"], ["pypi", ".org"], ["index.", "crates.io"]];
    folders.into_iter().chain(hosts.map(|parts| parts.concat())).collect()
}

/// Looks for forbidden words in every text file of the repository.
pub(crate) fn check_words(root: &Path) -> Result<Vec<String>> {
    let words = forbidden_words();
    let mut violations = Vec::new();
    for path in repo_files(root)? {
        // Goldens hold arbitrary text; lock files are written by cargo.
        if path.contains("/testdata/") || path.ends_with(".lock") {
            continue;
        }
        let Ok(text) = read(root, &path) else { continue };
        violations.extend(words_in(&path, &text, &words));
    }
    Ok(violations)
}

fn words_in(path: &str, text: &str, words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for word in words.iter().filter(|word| has_path(line, word)) {
            found.push(format!("{path}:{number}: `{word}` belongs to one machine or registry"));
        }
    }
    found
}

/// Whether `word` stands at the start of a path: a folder of ours may end in the same name.
fn has_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !word.starts_with('/')
            || !before.is_some_and(|c| c.is_alphanumeric() || "._-}$".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(path: &str, text: &str) -> Vec<String> {
        check(&[SourceFile::new(path, text)])
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(violations("crates/a/src/lib.rs", "//! A.\n\n// unsafe todo!\n"), [""; 0]);
    }

    #[test]
    fn planted_violations_are_found() {
        let text = format!("fn f() {{\n    {}!();\n    {} {{ }}\n}}\n", "todo", "unsafe");
        let found = violations("crates/scheduler/src/lib.rs", &text);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("`//!` header"));
        assert!(found[1].starts_with("crates/scheduler/src/lib.rs:2: `todo!`"));
        assert!(found[2].starts_with("crates/scheduler/src/lib.rs:3: `unsafe`"));
    }

    #[test]
    fn unsafe_has_its_homes() {
        let text = format!("//! A.\n{} fn f() {{}}\nfn un{}() {{}}\n", "unsafe", "safe_code");
        assert_eq!(violations("crates/mlx-sys/src/lib.rs", &text), [""; 0]);
        assert_eq!(violations("crates/nn/src/lib.rs", &text).len(), 1);
    }

    #[test]
    fn ignored_tests_are_found() {
        let text = format!("//! A.\n#[test]\n#[{} = \"slow\"]\nfn f() {{}}\n", "ignore");
        assert_eq!(violations("crates/nn/src/lib.rs", &text).len(), 1);
    }

    #[test]
    fn machine_paths_and_registry_hosts_are_found() {
        let words = forbidden_words();
        let line = |text: &str| words_in("docs/a.md", text, &words).len();
        assert_eq!(line(&format!("see {}/models", "/work")), 1);
        assert_eq!(line(&format!("https://{}/simple", "pypi".to_owned() + ".org")), 1);
        assert_eq!(line("crates/work/src and target/home/x"), 0);
    }
}
