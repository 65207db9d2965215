//! Lock files of packages outside the workspace, which CI does not build: our crates have
//! the versions and dependencies in them that their manifests name, and what these bring
//! is what the workspace has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    edges::metadata,
    sources::{read, repo_files},
};

/// One package of a lock file.
#[derive(Debug, Default, PartialEq)]
struct Locked {
    name: String,
    version: String,
    /// It is not a crate of this repository.
    is_foreign: bool,
    /// A name, and a version where several of that name are locked.
    dependencies: Vec<String>,
}

/// What a manifest says; by name in [`Manifests`].
#[derive(Debug, Clone, PartialEq)]
struct Manifest {
    version: String,
    /// By name: whether it is always there, and not just for a feature or for tests.
    dependencies: BTreeMap<String, bool>,
}

type Manifests = BTreeMap<String, Manifest>;

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let workspace = packages(&read(root, "Cargo.lock")?);
    let members = manifests(&metadata(root)?)?;
    let mut found = Vec::new();
    for path in repo_files(root)? {
        let Some(folder) = path.strip_suffix("/Cargo.lock") else { continue };
        let locked = packages(&read(root, &path)?);
        let mut ours = manifests(&metadata(&root.join(folder))?)?;
        let mut problems = different_versions(&locked, &workspace, &members);
        ours.extend(members.clone());
        problems.extend(stale_crates(&locked, &ours));
        found.extend(problems.into_iter().map(|problem| format!("{path}: {problem}")));
    }
    Ok(found)
}

fn packages(lock: &str) -> Vec<Locked> {
    let package = |block: &str| {
        let mut package = Locked::default();
        for line in block.lines() {
            let (key, value) = line.split_once(" = ").unwrap_or(("", line));
            let value = value.trim().trim_end_matches(',').trim_matches('"');
            match key {
                "name" => package.name = value.to_owned(),
                "version" => package.version = value.to_owned(),
                "source" => package.is_foreign = true,
                "" if line.starts_with(' ') => package.dependencies.push(value.to_owned()),
                _ => {}
            }
        }
        package
    };
    lock.split("[[package]]").skip(1).map(package).collect()
}

fn manifests(metadata: &Value) -> Result<Manifests> {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned).context("a text");
    let mut manifests = Manifests::new();
    for package in metadata["packages"].as_array().context("cargo metadata has packages")? {
        let mut dependencies = BTreeMap::new();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let is_always = dependency["optional"] != true && dependency["kind"] != "dev";
            *dependencies.entry(text(dependency, "name")?).or_default() |= is_always;
        }
        let manifest = Manifest { version: text(package, "version")?, dependencies };
        manifests.insert(text(package, "name")?, manifest);
    }
    Ok(manifests)
}

/// Our crates that are locked otherwise than their manifests say.
fn stale_crates(locked: &[Locked], ours: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    for package in locked.iter().filter(|package| !package.is_foreign) {
        let name = &package.name;
        let Some(manifest) = ours.get(name) else {
            found.push(format!("`{name}` is no crate any more"));
            continue;
        };
        if package.version != manifest.version {
            found.push(format!("`{name}` is {}, not {}", manifest.version, package.version));
        }
        let names: BTreeSet<&str> =
            package.dependencies.iter().filter_map(|text| text.split(' ').next()).collect();
        for (dependency, _) in manifest.dependencies.iter().filter(|(_, is_always)| **is_always) {
            if !names.contains(dependency.as_str()) {
                found.push(format!("`{name}` has come to use `{dependency}`"));
            }
        }
        for dependency in names {
            if !manifest.dependencies.contains_key(dependency) {
                found.push(format!("`{name}` does not use `{dependency}` any more"));
            }
        }
    }
    found
}

/// What `members` of the workspace bring in versions that the workspace does not have.
fn different_versions(locked: &[Locked], workspace: &[Locked], members: &Manifests) -> Vec<String> {
    let is_member = |package: &&Locked| members.contains_key(&package.name);
    let mut queue: Vec<&Locked> = locked.iter().filter(is_member).collect();
    let mut reached: BTreeMap<(&str, &str), &Locked> = BTreeMap::new();
    while let Some(package) = queue.pop() {
        if reached.insert((&package.name, &package.version), package).is_some() {
            continue;
        }
        for dependency in &package.dependencies {
            let mut words = dependency.split(' ');
            let (name, version) = (words.next().unwrap_or_default(), words.next());
            queue.extend(locked.iter().filter(|package| {
                package.name == name && version.is_none_or(|version| package.version == version)
            }));
        }
    }
    let mut found = Vec::new();
    for package in reached.into_values().filter(|package| package.is_foreign) {
        let same = workspace.iter().filter(|other| other.name == package.name);
        let versions: Vec<&str> = same.map(|other| other.version.as_str()).collect();
        if !versions.is_empty() && !versions.contains(&package.version.as_str()) {
            let (name, version) = (&package.name, &package.version);
            let versions = versions.join(", ");
            found.push(format!("`{name}` is {version} here and {versions} in the workspace"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOCK: &str = r#"
version = 4

[[package]]
name = "server"
version = "0.1.0"
dependencies = [
 "axum",
 "rand 0.9.5",
]

[[package]]
name = "axum"
version = "0.8.9"
source = "registry+https://example.org"
checksum = "00"
dependencies = [
 "tokio",
]

[[package]]
name = "rand"
version = "0.8.8"
source = "registry+https://example.org"

[[package]]
name = "rand"
version = "0.9.5"
source = "registry+https://example.org"

[[package]]
name = "tokio"
version = "1.54.0"
source = "registry+https://example.org"
"#;

    fn server(version: &str, dependencies: Value) -> Manifests {
        let package = json!({"name": "server", "version": version, "dependencies": dependencies});
        manifests(&json!({ "packages": [package] })).unwrap()
    }

    fn dependency(name: &str, kind: Option<&str>, optional: bool) -> Value {
        json!({"name": name, "kind": kind, "optional": optional})
    }

    #[test]
    fn blocks_are_packages() {
        let locked = packages(LOCK);
        let names = locked.iter().map(|package| (&*package.name, &*package.version));
        let names: Vec<_> = names.collect();
        assert_eq!(names[2..4], [("rand", "0.8.8"), ("rand", "0.9.5")]);
        let server = Locked {
            name: "server".into(),
            version: "0.1.0".into(),
            is_foreign: false,
            dependencies: vec!["axum".into(), "rand 0.9.5".into()],
        };
        assert_eq!(locked[0], server);
        assert!(locked[1].is_foreign);
    }

    #[test]
    fn our_crates_are_locked_as_their_manifests_say() {
        let locked = packages(LOCK);
        let axum = dependency("axum", None, false);
        let rand = dependency("rand", None, true);
        let tempfile = dependency("tempfile", Some("dev"), false);
        let good = server("0.1.0", json!([axum, rand, tempfile]));
        assert_eq!(stale_crates(&locked, &good), [""; 0]);
        let cc = dependency("cc", Some("build"), false);
        assert_eq!(
            stale_crates(&locked, &server("0.2.0", json!([axum, cc]))),
            [
                "`server` is 0.2.0, not 0.1.0",
                "`server` has come to use `cc`",
                "`server` does not use `rand` any more",
            ]
        );
        assert_eq!(stale_crates(&locked, &Manifests::new()), ["`server` is no crate any more"]);
    }

    #[test]
    fn what_our_crates_bring_is_what_the_workspace_has() {
        let members = server("0.1.0", json!([]));
        let locked = packages(LOCK);
        assert_eq!(different_versions(&locked, &locked, &members), [""; 0]);
        let workspace = packages(&LOCK.replace("1.54.0", "1.55.0").replace("0.8.8", "0.7.0"));
        assert_eq!(
            different_versions(&locked, &workspace, &members),
            ["`tokio` is 1.54.0 here and 1.55.0 in the workspace"],
            "0.8.8 of rand is somebody else's"
        );
        assert_eq!(different_versions(&locked, &workspace, &Manifests::new()), [""; 0]);
    }
}
