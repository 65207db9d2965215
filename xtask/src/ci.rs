//! `xtask ci`: the steps in order, cheapest first, each timed.
//!
//! Tests run in the dev profile (dependencies at `opt-level = 1`): a release build
//! would double the time. The binary that the end-to-end tests start is built
//! with them, because `cli` has an integration test; a step of its own would
//! compile most dependencies again, with fewer features.
//!
//! Lints come with the build: Clippy's driver is a compiler, so our crates are
//! compiled by it. `cargo clippy` before `cargo test` would go through every
//! dependency and every crate once more, five minutes on two cores.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const CARGO_STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("build and lints", &["test", "--workspace", "--all-targets", "--locked", "--no-run"]),
    ("doc tests", &["test", "--workspace", "--doc", "--locked"]),
    ("test", &["test", "--workspace", "--all-targets", "--locked"]),
];
/// What `cargo clippy -- -D warnings` hands to the driver.
const CLIPPY_ARGS: &str = "-Dwarnings__CLIPPY_HACKERY__";

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut times = Vec::new();
    timed("tidy", &mut times, || crate::report("tidy", &crate::tidy::check(root)?))?;
    timed("docs", &mut times, || crate::report("docs", &crate::docs::check(root)?))?;
    let mut tests = Tests::default();
    for (name, args) in CARGO_STEPS {
        timed(name, &mut times, || cargo(root, args, &mut tests))?;
    }
    println!("\nci: all steps passed, {} tests in {} binaries", tests.passed, tests.binaries);
    for (name, time) in &times {
        println!("ci: {:>7.1} s  {name}", time.as_secs_f64());
    }
    Ok(())
}

fn timed(
    name: &str,
    times: &mut Vec<(String, Duration)>,
    step: impl FnOnce() -> Result<()>,
) -> Result<()> {
    println!("\n=== {name}");
    let start = Instant::now();
    step().with_context(|| format!("ci step `{name}` failed"))?;
    println!("=== {name}: {:.1} s", start.elapsed().as_secs_f64());
    times.push((name.to_owned(), start.elapsed()));
    Ok(())
}

/// What the closing lines of `cargo test` add up to.
#[derive(Debug, Default, PartialEq)]
struct Tests {
    binaries: usize,
    passed: usize,
}

impl Tests {
    /// `test result: ok. 19 passed; 0 failed; ...`
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ok. ") else { return };
        let passed = result.split(' ').next().and_then(|number| number.parse::<usize>().ok());
        self.binaries += 1;
        self.passed += passed.unwrap_or_default();
    }
}

/// Runs cargo, with Clippy's driver as the compiler of our crates; its output goes through as it comes.
fn cargo(root: &Path, args: &[&str], tests: &mut Tests) -> Result<()> {
    let program = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // A toolchain has both in one folder.
    let driver = program.with_file_name("clippy-driver");
    let mut child = Command::new(program)
        .args(args)
        .env("RUSTC_WORKSPACE_WRAPPER", driver)
        .env("CLIPPY_ARGS", CLIPPY_ARGS)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        tests.count(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", args.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Tests;

    #[test]
    fn closing_lines_are_added_up() {
        let mut tests = Tests::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tests.count(line);
        }
        assert_eq!(tests, Tests { binaries: 2, passed: 44 });
    }
}
