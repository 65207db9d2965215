//! `check-env`: what this machine has, what is missing, and what mends it.
//!
//! Asks MLX nothing before its version is known to fit, so it also works when
//! that is the trouble.

use std::{
    io::{Write, stdout},
    process::ExitCode,
    thread::available_parallelism,
};

use anyhow::Result;
use clap::Args;
use engine::{Bytes, platform};

use crate::default_model::default_model_path;

#[derive(Debug, Args)]
pub(crate) struct CheckEnvArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    ok: bool,
    /// What was found, or what is missing and how to mend it.
    text: String,
}

impl Finding {
    fn new(what: &'static str, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        Self { what, ok, text: result.unwrap_or_else(|text| text) }
    }
}

pub(crate) fn run(args: &CheckEnvArgs) -> Result<ExitCode> {
    let findings = findings();
    let text = if args.json { json(&findings) } else { lines(&findings) };
    writeln!(stdout(), "{text}")?;
    let all_well = findings.iter().all(|finding| finding.ok);
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn findings() -> Vec<Finding> {
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let memory = platform::host_memory();
    let version = mlx::check_version().map_err(|error| error.message);
    let mlx_fits = version.is_ok();
    let mut findings = vec![
        Finding::new("platform", Ok(format!("{os} {arch}, {cores} cores"))),
        Finding::new(
            "memory",
            memory
                .map(|bytes| format!("{} available", Bytes(bytes)))
                .ok_or_else(|| "the system does not say how much there is".to_owned()),
        ),
        Finding::new("MLX", version.map(|()| mlx::version())),
    ];
    if mlx_fits {
        findings.push(Finding::new("device", device()));
    }
    let model = default_model_path();
    findings.push(Finding::new(
        "default model",
        model.map(|path| path.display().to_string()).map_err(|error| error.to_string()),
    ));
    findings
}

/// The device that `--device mlx` takes, and all that there are.
fn device() -> Result<String, String> {
    let best =
        platform::Platform::select(engine::DeviceChoice::Mlx).map_err(|error| error.to_string())?;
    let names: Vec<_> = platform::PLATFORMS
        .iter()
        .filter(|entry| (entry.available)())
        .map(|entry| entry.name)
        .collect();
    let (name, memory) = (&best.device_name, Bytes(best.memory_bytes));
    Ok(format!("{name}, {memory} usable (available: {})", names.join(", ")))
}

fn lines(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mark = if finding.ok { "ok" } else { "missing" };
        format!("{mark:<8} {:<14} {}", finding.what, finding.text)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn json(findings: &[Finding]) -> String {
    let entry = |finding: &Finding| {
        let value = serde_json::json!({"ok": finding.ok, "text": finding.text});
        (finding.what.replace(' ', "_"), value)
    };
    serde_json::Value::Object(findings.iter().map(entry).collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_names_what_is_missing() {
        let findings = [
            Finding::new("memory", Ok("2 GiB".to_owned())),
            Finding::new("default model", Err("run `make setup`".to_owned())),
        ];
        assert_eq!(
            lines(&findings),
            "ok       memory         2 GiB\nmissing  default model  run `make setup`"
        );
        assert_eq!(
            json(&findings),
            r#"{"memory":{"ok":true,"text":"2 GiB"},"default_model":{"ok":false,"text":"run `make setup`"}}"#
        );
    }

    #[test]
    fn platform_memory_and_mlx_are_always_reported() {
        let findings = findings();
        let names: Vec<_> = findings.iter().map(|finding| finding.what).collect();
        assert_eq!(names[..3], ["platform", "memory", "MLX"]);
        assert_eq!(names.last(), Some(&"default model"));
    }
}
