//! The `sglang-mlx` command.
//!
//! Arguments are parsed twice over in one go: the derived ones, and the flags of
//! SGLang that are missing here, so that those are refused by name.

mod args;
mod commands;
mod default_model;
mod logging;
mod progress;
mod resolve;
mod text;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::args::{ServerArgs, refused};

/// An SGLang-compatible LLM server on Apple's MLX.
#[derive(Debug, Parser)]
#[command(name = "sglang-mlx", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Serve a model over HTTP.
    #[command(visible_alias = "serve", alias = "launch_server")]
    LaunchServer(Box<ServerArgs>),
    /// Complete one prompt.
    Generate(Box<commands::generate::GenerateArgs>),
    /// Measure prefill and decode at fixed batch sizes, without HTTP.
    #[command(alias = "bench_one_batch")]
    BenchOneBatch(Box<commands::bench_one_batch::BenchArgs>),
    /// Measure a running server: throughput and latencies under load.
    #[command(alias = "bench_serving")]
    BenchServing(Box<commands::bench_serving::BenchServingArgs>),
    /// Write a model as a folder in the MLX format, quantized if asked for.
    Convert(Box<commands::convert::ConvertArgs>),
    /// Report the platform, MLX and what is missing.
    #[command(alias = "check_env")]
    CheckEnv(commands::check_env::CheckEnvArgs),
}

/// Commands that run a model, and so know all of SGLang's flags.
const MODEL_COMMANDS: [&str; 3] = ["launch-server", "generate", "bench-one-batch"];

fn command() -> clap::Command {
    let mut command = Cli::command();
    for name in MODEL_COMMANDS {
        command = command.mut_subcommand(name, refused::augment);
    }
    command
}

fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> anyhow::Result<Cli> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    if let Some((name, matches)) = matches.subcommand()
        && MODEL_COMMANDS.contains(&name)
        && let Some(command) = command.find_subcommand(name)
    {
        refused::check(command, matches)?;
    }
    Ok(Cli::from_arg_matches(&matches)?)
}

fn run() -> anyhow::Result<ExitCode> {
    match parse(std::env::args_os())?.command {
        Commands::LaunchServer(args) => commands::launch_server::run(&args),
        Commands::Generate(args) => commands::generate::run(&args),
        Commands::BenchOneBatch(args) => commands::bench_one_batch::run(&args),
        Commands::BenchServing(args) => commands::bench_serving::run(&args),
        Commands::Convert(args) => commands::convert::run(&args),
        Commands::CheckEnv(args) => commands::check_env::run(&args),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// One line for people; help and usage errors in clap's own form.
#[expect(clippy::print_stderr, reason = "the last words of a command-line program")]
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        usage.exit();
    }
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
