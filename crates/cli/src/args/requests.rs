//! What is kept of requests.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use server::{LogTarget, RequestLog, RequestLogOptions, TraceOptions};

use crate::resolve::environment;

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

    /// A span for each request, to an OpenTelemetry collector.
    #[arg(long)]
    pub(crate) enable_trace: bool,

    /// Host and port of the collector's OTLP over HTTP, or a whole URL; upstream's default is
    /// the port of gRPC.
    #[arg(long, default_value = "localhost:4318", value_name = "HOST:PORT")]
    pub(crate) otlp_traces_endpoint: String,

    /// What the spans call this service; by default `OTEL_SERVICE_NAME`, or else sglang.
    #[arg(long, value_name = "NAME")]
    pub(crate) otlp_service_name: Option<String>,
}

impl RequestArgs {
    /// Where spans go, if they do.
    pub(crate) fn trace_options(&self) -> Option<TraceOptions> {
        let endpoint = self.otlp_traces_endpoint.trim_end_matches('/');
        let with_scheme = match endpoint.contains("://") {
            true => endpoint.to_owned(),
            false => format!("http://{endpoint}"),
        };
        let url = match with_scheme.ends_with("/v1/traces") {
            true => with_scheme,
            false => format!("{with_scheme}/v1/traces"),
        };
        let from_environment = || std::env::var("OTEL_SERVICE_NAME").ok();
        let service_name = self.otlp_service_name.clone().or_else(from_environment);
        let service_name = service_name.unwrap_or_else(|| "sglang".to_owned());
        self.enable_trace.then_some(TraceOptions { url, service_name })
    }

    /// The request log, its files open.
    ///
    /// # Errors
    /// An unknown format, a folder that cannot be written.
    pub(crate) fn request_log(&self) -> Result<RequestLog> {
        let options = RequestLogOptions {
            is_on: self.log_requests,
            level: self.log_requests_level,
            format: self.log_requests_format.parse().context("--log-requests-format")?,
            targets: self.log_requests_target.iter().map(|t| LogTarget::from(t.as_str())).collect(),
            exceeded: environment::log_exceeded()?,
        };
        RequestLog::open(options).context("--log-requests-target")
    }
}
