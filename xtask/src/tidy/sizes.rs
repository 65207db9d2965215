//! Size limits of functions and files, as a ratchet.
//!
//! `xtask/tidy-exceptions.txt` lists what is too long today with its exact
//! size. A listed item that shrinks must be written down smaller, one that
//! fits must go, one that grows fails: the list only ever gets shorter.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};

use super::sources::{SourceFile, read};

/// Lines of code in a function, blank lines and comments not counted.
const FUNCTION_LIMIT: usize = 70;
const FILE_LIMIT: usize = 600;
const MODEL_FILE_LIMIT: usize = 350;
const ROUTE_FILE_LIMIT: usize = 400;

const EXCEPTIONS: &str = "xtask/tidy-exceptions.txt";

/// `file <path>` or `fn <path> <name>`, and its size.
type Sizes = BTreeMap<String, usize>;

pub(crate) fn check(root: &Path, files: &[SourceFile]) -> Result<Vec<String>> {
    let exceptions = parse_exceptions(&read(root, EXCEPTIONS)?)?;
    Ok(compare(&too_long(files), &exceptions))
}

fn parse_exceptions(text: &str) -> Result<Sizes> {
    let mut sizes = Sizes::new();
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (item, size) = line.rsplit_once(' ').context("`<item> <size>` a line")?;
        sizes.insert(item.to_owned(), size.parse().with_context(|| line.to_owned())?);
    }
    Ok(sizes)
}

fn too_long(files: &[SourceFile]) -> Sizes {
    let mut sizes = Sizes::new();
    for file in files {
        let lines = file.non_test_lines();
        if !file.is_test_file() && lines > file_limit(&file.path) {
            sizes.insert(format!("file {}", file.path), lines);
        }
        for (name, lines) in function_sizes(&file.code) {
            if lines > FUNCTION_LIMIT {
                sizes.insert(format!("fn {} {name}", file.path), lines);
            }
        }
    }
    sizes
}

fn file_limit(path: &str) -> usize {
    let is_route = path.starts_with("crates/server/src/routes/");
    match path.strip_prefix("crates/models/src/") {
        Some(file) if file != "lib.rs" && file != "registry.rs" => MODEL_FILE_LIMIT,
        _ if is_route => ROUTE_FILE_LIMIT,
        _ => FILE_LIMIT,
    }
}

fn compare(sizes: &Sizes, exceptions: &Sizes) -> Vec<String> {
    let mut violations = Vec::new();
    for (item, size) in sizes {
        match exceptions.get(item) {
            None => violations.push(format!("{item}: {size} lines are too many: split it")),
            Some(listed) if size > listed => {
                violations.push(format!("{item}: grew from {listed} to {size} lines: split it"));
            }
            Some(listed) if size < listed => {
                violations.push(format!("{item}: shrank: write {size} into {EXCEPTIONS}"));
            }
            Some(_) => {}
        }
    }
    for item in exceptions.keys().filter(|item| !sizes.contains_key(*item)) {
        violations.push(format!("{item}: fits now: remove it from {EXCEPTIONS}"));
    }
    violations
}

/// Name and number of code lines of each function with a body in masked code.
fn function_sizes(code: &str) -> Vec<(String, usize)> {
    let mut sizes = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = code[..at].chars().next_back().is_none_or(|c| c.is_whitespace());
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        if let Some(len) = body_end(&code[at..]) {
            let lines = code[at..at + len].lines().filter(|line| !line.trim().is_empty()).count();
            sizes.push((name, lines));
        }
    }
    sizes
}

/// Length up to the brace that closes the body; `None` for a declaration.
fn body_end(code: &str) -> Option<usize> {
    // `;` ends a declaration, unless it is inside brackets: `[u8; 4]`.
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        let body = "    call();\n\n    // why\n".repeat(lines - 2);
        format!("//! A.\nfn long_one(a: [u8; 4]) {{\n{body}}}\n")
    }

    #[test]
    fn functions_are_measured_in_code_lines() {
        let file = SourceFile::new("crates/a/src/lib.rs", &function(70));
        assert_eq!(function_sizes(&file.code), [("long_one".to_owned(), 70)]);
        assert_eq!(too_long(&[file]), Sizes::new());
        let file = SourceFile::new("crates/a/src/lib.rs", &function(71));
        let expected = Sizes::from([("fn crates/a/src/lib.rs long_one".to_owned(), 71)]);
        assert_eq!(too_long(&[file]), expected);
    }

    #[test]
    fn declarations_have_no_size() {
        assert_eq!(
            function_sizes("trait T { fn a(&self) -> [u8; 2]; fn b() {} }"),
            [("b".to_owned(), 1)]
        );
    }

    #[test]
    fn each_kind_of_file_has_its_limit() {
        let long = |path: &str, lines: usize| {
            too_long(&[SourceFile::new(path, &"//! A.\n".repeat(lines))]).len()
        };
        assert_eq!(long("crates/models/src/llama.rs", 350), 0);
        assert_eq!(long("crates/models/src/llama.rs", 351), 1);
        assert_eq!(long("crates/server/src/routes/generate/mod.rs", 401), 1);
        assert_eq!(long("crates/engine/src/lib.rs", 600), 0);
        assert_eq!(long("crates/engine/src/lib.rs", 601), 1);
        assert_eq!(long("crates/engine/src/scheduler/tests.rs", 2000), 0);
    }

    #[test]
    fn the_list_of_exceptions_only_shrinks() {
        let listed = parse_exceptions("# why\nfile a.rs 700\nfn b.rs f 90\n").unwrap();
        let now = |size: usize| compare(&Sizes::from([("file a.rs".to_owned(), size)]), &listed);
        assert_eq!(now(700).len(), 1, "only `fn b.rs f`, which fits now");
        assert!(now(701).iter().any(|line| line.contains("grew from 700 to 701")));
        assert!(now(650).iter().any(|line| line.contains("write 650")));
        assert!(compare(&Sizes::new(), &listed).iter().all(|line| line.contains("remove it")));
        assert!(compare(&listed, &Sizes::new()).iter().all(|line| line.contains("split it")));
    }
}
