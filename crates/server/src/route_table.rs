//! The page of routes as data: what is served, and what is left out and why.
//!
//! `xtask docs --check` compares the page with the router.

use std::sync::LazyLock;

const PAGE: &str = include_str!("../../../docs/compat/routes.md");

/// A path of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// `GET`, `POST`, ...
    pub(crate) methods: Vec<&'static str>,
    pub(crate) path: &'static str,
    pub(crate) is_served: bool,
    /// Of one left out: why.
    pub(crate) note: &'static str,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| rows_of(PAGE));

/// Every path of the page, in its order.
pub(crate) fn rows() -> &'static [Row] {
    &ROWS
}

/// Whether this very path is served; one of a row with parameters is not looked for.
pub(crate) fn is_served(path: &str) -> bool {
    rows().iter().any(|row| row.is_served && row.path == path)
}

/// Why a path that SGLang serves is left out here.
pub(crate) fn reason_left_out(path: &str) -> Option<&'static str> {
    let row = rows().iter().find(|row| !row.is_served && row.path == path)?;
    Some(row.note)
}

fn rows_of(page: &'static str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", methods, paths, state @ ("served" | "left out"), note, ""] = cells[..] else {
            continue;
        };
        let methods: Vec<&str> = methods.split(',').map(str::trim).collect();
        rows.extend(paths.split('`').skip(1).step_by(2).map(|path| Row {
            methods: methods.clone(),
            path,
            is_served: state == "served",
            note,
        }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_page() {
        let page = "# A\n| method | path | state | notes |\n|---|---|---|---|\n\
                    | GET, POST | `/a`, `/b/{id}` | served | x |\n\
                    | PUT | `/c` | left out | because |\n| GET | `/d` | elsewhere | |\n";
        let row = |methods: &[&'static str], path, is_served, note| Row {
            methods: methods.to_vec(),
            path,
            is_served,
            note,
        };
        let (both, put) = (["GET", "POST"], ["PUT"]);
        let expected = [
            row(&both, "/a", true, "x"),
            row(&both, "/b/{id}", true, "x"),
            row(&put, "/c", false, "because"),
        ];
        assert_eq!(rows_of(page), expected);
    }

    #[test]
    fn whatever_is_left_out_has_its_reason() {
        let left_out: Vec<_> = rows().iter().filter(|row| !row.is_served).collect();
        assert!(!left_out.is_empty());
        for row in left_out {
            assert!(!row.note.is_empty(), "{} has no reason", row.path);
            assert_eq!(reason_left_out(row.path), Some(row.note));
        }
        assert_eq!(reason_left_out("/generate"), None);
    }
}
