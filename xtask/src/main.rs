//! The project's own chores: `cargo run -p xtask -- <ci|tidy|docs>`.
//!
//! `ci` is what the public workflow and `make test` run, so nothing can be
//! green here and red there.

#![expect(clippy::print_stdout, reason = "a command-line tool reports on stdout")]

mod ci;
mod docs;
mod tidy;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo run -p xtask -- <command>

  ci             everything the public CI checks, each step timed
  tidy           house rules: crate edges, sizes, unsafe, headers, words
  docs --check   links and file names in the documentation, the route table";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = repo_root()?;
    match args.as_slice() {
        ["ci"] => ci::run(&root),
        ["tidy"] => report("tidy", &tidy::check(&root)?),
        ["docs", "--check"] => report("docs", &docs::check(&root)?),
        _ => bail!("{USAGE}"),
    }
}

/// Prints each violation; any makes the command fail.
fn report(name: &str, violations: &[String]) -> Result<()> {
    for violation in violations {
        println!("{name}: {violation}");
    }
    match violations.len() {
        0 => Ok(()),
        n => bail!("{name}: {n} violation(s)"),
    }
}

fn repo_root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .context("xtask lies in the repository's root")
}
