//! `xtask ci`: the steps in order, cheapest first, each timed.
//!
//! Tests run in the dev profile (dependencies at `opt-level = 1`), the binary
//! for the end-to-end tests included: a release build would double the time.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const CARGO_STEPS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    ("build sglang-mlx", &["build", "--locked", "-p", "cli", "--bin", "sglang-mlx"]),
    ("test", &["test", "--workspace", "--all-targets", "--locked"]),
    ("doc tests", &["test", "--workspace", "--doc", "--locked"]),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut times = Vec::new();
    timed("tidy", &mut times, || crate::report("tidy", &crate::tidy::check(root)?))?;
    timed("docs", &mut times, || crate::report("docs", &crate::docs::check(root)?))?;
    for (name, args) in CARGO_STEPS {
        timed(name, &mut times, || cargo(root, args))?;
    }
    println!("\nci: all steps passed");
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

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(args).current_dir(root).status()?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", args.join(" "));
    }
    Ok(())
}
