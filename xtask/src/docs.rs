//! `xtask docs --check`: what the documentation says must exist.
//!
//! Checked: relative links, file names in code spans, types and functions that
//! ARCHITECTURE.md names, and the table of routes against the server's router.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::Result;

use crate::tidy::{SourceFile, repo_files};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const ARCHITECTURE_LIMIT: usize = 250;
const ROUTES: &str = "docs/compat/routes.md";

/// A code span that starts so is the name of a file of the repository.
const PATH_STARTS: &[&str] =
    &["crates/", "docs/", "xtask/", "tools/", "setup/", ".github/", ".ci/"];

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let files = repo_files(root)?;
    let mut violations = Vec::new();
    for path in files.iter().filter(|path| path.ends_with(".md")) {
        let text = fs::read_to_string(root.join(path))?;
        violations.extend(broken_links(root, path, &text));
        violations.extend(missing_paths(root, path, &text));
        if path == ARCHITECTURE {
            violations.extend(stale_architecture(root, &files, &text)?);
        }
        if path == ROUTES {
            violations.extend(stale_routes(&text, &served_routes(root, &files)?));
        }
    }
    Ok(violations)
}

/// Targets of `[text](target)` that are files, and do not exist.
fn broken_links(root: &Path, path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for (at, _) in line.match_indices("](") {
            let Some(target) = line[at + 2..].split(')').next() else { continue };
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let folder = Path::new(path).parent().unwrap_or(Path::new(""));
            if !root.join(normalized(&folder.join(file))).exists() {
                broken.push(format!("{path}:{number}: broken link `{target}`"));
            }
        }
    }
    broken
}

fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn missing_paths(root: &Path, path: &str, text: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (number, span) in code_spans(text) {
        let is_path = PATH_STARTS.iter().any(|start| span.starts_with(start));
        let is_pattern = span.contains(['<', '*', '{', ' ']);
        if is_path && !is_pattern && !root.join(span).exists() {
            missing.push(format!("{path}:{number}: `{span}` does not exist"));
        }
    }
    missing
}

/// Code spans outside fenced blocks, with their line numbers.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut spans = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
    }
    spans
}

fn stale_architecture(root: &Path, files: &[String], text: &str) -> Result<Vec<String>> {
    let mut words = BTreeSet::new();
    for path in files.iter().filter(|path| path.ends_with(".rs")) {
        let source = fs::read_to_string(root.join(path))?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        words.extend(source.split(|c| !is_word(c)).map(str::to_owned));
    }
    Ok(unknown_symbols(text, &words))
}

/// Symbols (`Type`, `Type::method`, `module::function`) that no source file
/// holds, and lines beyond the limit.
fn unknown_symbols(text: &str, words: &BTreeSet<String>) -> Vec<String> {
    let mut unknown = Vec::new();
    for (number, span) in code_spans(text) {
        let symbol = span.trim_end_matches("()");
        let is_symbol = symbol.chars().all(|c| c.is_alphanumeric() || "_:".contains(c))
            && (symbol.contains("::") || symbol.starts_with(|c: char| c.is_uppercase()));
        let known = |part: &str| part.is_empty() || words.contains(part);
        if is_symbol && !symbol.split("::").all(known) {
            unknown.push(format!("{ARCHITECTURE}:{number}: no source names `{span}`"));
        }
    }
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LIMIT {
        unknown.push(format!("{ARCHITECTURE}: {lines} lines, at most {ARCHITECTURE_LIMIT}"));
    }
    unknown
}

/// First argument of each `.route(...)` in the server.
fn served_routes(root: &Path, files: &[String]) -> Result<BTreeSet<String>> {
    let mut routes = BTreeSet::new();
    for path in files {
        let name = Path::new(path).file_name().unwrap_or_default();
        if path.starts_with("crates/server/src/") && name != "tests.rs" {
            let text = fs::read_to_string(root.join(path))?;
            routes.extend(routes_in(&SourceFile::new(path, &text)));
        }
    }
    Ok(routes)
}

fn routes_in(file: &SourceFile) -> Vec<String> {
    let mut routes = Vec::new();
    for (at, call) in file.code.match_indices(".route(") {
        let argument = file.text[at + call.len()..].trim_start();
        if let Some(literal) = argument.strip_prefix('"') {
            routes.extend(literal.split('"').next().map(str::to_owned));
        }
    }
    routes
}

/// Compares the table's `served` rows with the router, both ways.
fn stale_routes(text: &str, served: &BTreeSet<String>) -> Vec<String> {
    let mut violations = Vec::new();
    let mut listed: BTreeMap<&str, bool> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, _, paths, state, ..] = cells.as_slice() else { continue };
        for path in paths.split('`').skip(1).step_by(2) {
            listed.insert(path, *state == "served");
        }
    }
    for (path, is_served) in &listed {
        if *is_served && !served.contains(*path) {
            violations.push(format!("{ROUTES}: `{path}` is listed as served, the router lacks it"));
        }
    }
    for path in served.iter().filter(|path| listed.get(path.as_str()) != Some(&true)) {
        violations.push(format!("{ROUTES}: the router serves `{path}`, the table does not say so"));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_and_missing_files_are_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("docs/howto")).unwrap();
        fs::write(root.path().join("README.md"), "").unwrap();
        let text = "[a](../../README.md#top) [b](https://example.org) [c](gone.md)\n\
                    `docs/howto` `docs/none.md` `crates/*/src`\n```\n`docs/fenced.md`\n```\n";
        assert_eq!(
            broken_links(root.path(), "docs/howto/x.md", text),
            ["docs/howto/x.md:1: broken link `gone.md`"]
        );
        assert_eq!(
            missing_paths(root.path(), "docs/howto/x.md", text),
            ["docs/howto/x.md:2: `docs/none.md` does not exist"]
        );
    }

    #[test]
    fn symbols_must_be_in_the_sources() {
        let words = ["Scheduler", "step"].map(str::to_owned).into();
        let text =
            "`Scheduler::step` `Scheduler` `Sequencer` `Scheduler::stop()` `make test` `a_b`";
        let unknown = unknown_symbols(text, &words);
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        assert!(unknown[0].contains("`Sequencer`") && unknown[1].contains("`Scheduler::stop()`"));
        assert_eq!(unknown_symbols(&"\n".repeat(251), &words).len(), 1);
    }

    #[test]
    fn the_route_table_is_compared_both_ways() {
        let router = "//! A.\nfn f() { r.route(\"/a\", get(a)).route(\n  \"/b\", get(b)) } // .route(\"/c\")";
        let served: BTreeSet<String> =
            routes_in(&SourceFile::new("crates/server/src/router.rs", router))
                .into_iter()
                .collect();
        assert_eq!(served.iter().collect::<Vec<_>>(), ["/a", "/b"]);
        let table = "| method | path | state | note |\n|---|---|---|---|\n\
                     | GET | `/a`, `/d` | served | |\n| GET | `/b` | not yet | |\n";
        let found = stale_routes(table, &served);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`/d` is listed") && found[1].contains("serves `/b`"));
    }
}
