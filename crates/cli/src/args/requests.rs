//! What is kept of requests.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use server::{LogTarget, RequestLogOptions};

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Logging")]
pub(crate) struct RequestArgs {
    /// A line in the request log when a request comes and one when it ends.
    #[arg(long)]
    pub(crate) log_requests: bool,

    /// 0: metadata; 1: sampling parameters too; 2: the ends of long inputs and outputs too; 3: all
    /// of them.
    #[arg(long, default_value_t = 2, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub(crate) log_requests_level: u8,

    /// text or json.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) log_requests_format: String,

    /// stdout, or folders for a file each; by default stdout.
    #[arg(long, num_args = 1.., value_name = "stdout|DIR")]
    pub(crate) log_requests_target: Vec<String>,

    /// Folder to write live requests, and those of the last five minutes, to as JSON when the
    /// engine dies or hangs.
    #[arg(long, value_name = "DIR")]
    pub(crate) crash_dump_folder: Option<PathBuf>,
}

impl RequestArgs {
    /// # Errors
    /// An unknown format, a folder that cannot be written.
    pub(crate) fn log_options(&self) -> Result<RequestLogOptions> {
        let options = RequestLogOptions {
            is_on: self.log_requests,
            level: self.log_requests_level,
            format: self.log_requests_format.parse().context("--log-requests-format")?,
            targets: self.log_requests_target.iter().map(|t| LogTarget::from(t.as_str())).collect(),
        };
        options.check().context("--log-requests-target")?;
        Ok(options)
    }
}
