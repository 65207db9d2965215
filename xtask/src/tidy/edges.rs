//! Which crate may use which, read from `cargo metadata`.
//!
//! The table below is the map of the house. A crate that is not in it fails:
//! adding a room is a decision, made here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Crate, then what it may depend on (build and normal dependencies).
const ALLOWED: &[(&str, &[&str])] = &[
    ("mlx-sys", &[]),
    ("mlx", &["mlx-sys"]),
    // For the tests of `kernels` only.
    ("kernel-emulator", &[]),
    ("kernels", &["mlx"]),
    ("nn", &["kernels", "mlx"]),
    ("attention", &["kernels", "mlx", "nn"]),
    ("models", &["attention", "kernels", "mlx", "nn"]),
    ("model-loader", &["mlx", "nn", "tokenizer", "types"]),
    ("types", &[]),
    ("mem-cache", &["types"]),
    ("scheduler", &["mem-cache", "types"]),
    ("constrained", &["tokenizer", "types"]),
    ("tokenizer", &["types"]),
    ("parsers", &["types"]),
    ("protocol", &["types"]),
    (
        "engine",
        &[
            "attention",
            "kernels",
            "mem-cache",
            "metrics",
            "mlx",
            "model-loader",
            "models",
            "nn",
            "scheduler",
            "tokenizer",
            "types",
        ],
    ),
    ("bench-serving", &[]),
    ("metrics", &["types"]),
    ("server", &["constrained", "metrics", "parsers", "protocol", "tokenizer", "types"]),
    (
        "cli",
        &[
            "bench-serving",
            "constrained",
            "engine",
            "metrics",
            "mlx",
            "model-loader",
            "protocol",
            "server",
            "tokenizer",
            "types",
        ],
    ),
    (
        "fuzz-targets",
        &["constrained", "mlx", "model-loader", "nn", "parsers", "server", "tokenizer", "types"],
    ),
    ("test-kit", &["types"]),
    ("e2e", &["test-kit"]),
    ("xtask", &[]),
];

/// Crates that build and test without MLX.
const NO_MLX: &[&str] = &[
    "kernel-emulator",
    "types",
    "mem-cache",
    "scheduler",
    "constrained",
    "tokenizer",
    "parsers",
    "protocol",
    "metrics",
    "server",
    "test-kit",
    "xtask",
];

/// One workspace crate and its direct dependencies inside the workspace.
#[derive(Debug, Default)]
struct Edges {
    normal: BTreeSet<String>,
    dev: BTreeSet<String>,
}

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    Ok(violations(&workspace_edges(&metadata(root)?)?))
}

/// What the manifests of the package or workspace at `root` say.
pub(super) fn metadata(root: &Path) -> Result<Value> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn workspace_edges(metadata: &Value) -> Result<BTreeMap<String, Edges>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has packages")?;
    let name = |value: &Value| value["name"].as_str().map(str::to_owned).context("a name");
    let members: BTreeSet<String> = packages.iter().map(name).collect::<Result<_>>()?;
    let mut edges = BTreeMap::new();
    for package in packages {
        let mut own = Edges::default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = name(dependency)?;
            if !members.contains(&target) {
                continue;
            }
            match dependency["kind"].as_str() {
                Some("dev") => own.dev.insert(target),
                _ => own.normal.insert(target),
            };
        }
        edges.insert(name(package)?, own);
    }
    Ok(edges)
}

fn violations(edges: &BTreeMap<String, Edges>) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut found = Vec::new();
    for (name, own) in edges {
        let Some(allowed) = allowed.get(name.as_str()) else {
            found.push(format!("crate `{name}` is not in the table of xtask/src/tidy/edges.rs"));
            continue;
        };
        for target in own.normal.iter().filter(|target| !allowed.contains(&target.as_str())) {
            found.push(format!("edge `{name} -> {target}` is not allowed"));
        }
        if NO_MLX.contains(&name.as_str()) && reaches_mlx(name, edges) {
            found.push(format!("`{name}` has MLX in its dependency tree"));
        }
    }
    found
}

/// Whether building `name`, or its tests, pulls in MLX.
fn reaches_mlx(name: &str, edges: &BTreeMap<String, Edges>) -> bool {
    let Some(own) = edges.get(name) else { return false };
    let mut queue: Vec<&String> = own.normal.iter().chain(&own.dev).collect();
    let mut seen = BTreeSet::new();
    while let Some(next) = queue.pop() {
        if next.starts_with("mlx") {
            return true;
        }
        if seen.insert(next) {
            queue.extend(edges.get(next).into_iter().flat_map(|edges| &edges.normal));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(packages: Value) -> Vec<String> {
        violations(&workspace_edges(&json!({ "packages": packages })).unwrap())
    }

    #[test]
    fn allowed_edges_pass() {
        let packages = json!([
            { "name": "types", "dependencies": [{ "name": "serde", "kind": null }] },
            { "name": "mem-cache", "dependencies": [{ "name": "types", "kind": null }] },
            { "name": "scheduler", "dependencies": [{ "name": "mem-cache", "kind": null }] },
        ]);
        assert_eq!(found(packages), [""; 0]);
    }

    #[test]
    fn a_forbidden_edge_and_an_unknown_crate_are_found() {
        let packages = json!([
            { "name": "types", "dependencies": [{ "name": "extras", "kind": "build" }] },
            { "name": "extras", "dependencies": [] },
        ]);
        assert_eq!(
            found(packages),
            [
                "crate `extras` is not in the table of xtask/src/tidy/edges.rs",
                "edge `types -> extras` is not allowed",
            ]
        );
    }

    #[test]
    fn mlx_above_the_line_is_found_through_others_and_through_tests() {
        let packages = json!([
            { "name": "mlx-sys", "dependencies": [] },
            { "name": "mlx", "dependencies": [{ "name": "mlx-sys", "kind": null }] },
            { "name": "tokenizer", "dependencies": [{ "name": "mlx", "kind": "dev" }] },
            { "name": "types", "dependencies": [{ "name": "mlx", "kind": null }] },
            { "name": "server", "dependencies": [{ "name": "types", "kind": null }] },
        ]);
        let found = found(packages);
        for name in ["tokenizer", "types", "server"] {
            assert!(
                found.contains(&format!("`{name}` has MLX in its dependency tree")),
                "{found:?}"
            );
        }
        assert_eq!(found.len(), 4, "and the edge types -> mlx: {found:?}");
    }

    #[test]
    fn every_crate_without_mlx_has_a_row() {
        for name in NO_MLX {
            assert!(ALLOWED.iter().any(|(row, _)| row == name), "{name}");
        }
    }
}
