//! Where the model runs.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use engine::DeviceChoice;
use serde::Serialize;

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Device")]
pub(crate) struct DeviceArgs {
    /// mlx (the best there is), metal, cuda or cpu.
    #[arg(long, default_value = "mlx")]
    #[serde(serialize_with = "super::as_text")]
    pub(crate) device: DeviceChoice,

    /// Seeds requests that bring no seed; without it, a different one each start.
    #[arg(long, value_name = "SEED")]
    pub(crate) random_seed: Option<u64>,

    /// Seconds after which a step that has not ended ends the process.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS")]
    pub(crate) watchdog_timeout: f64,

    /// GiB that Metal keeps wired (ours). Off by default: wiring has taken Macs down.
    #[arg(long, value_name = "GIB")]
    pub(crate) mlx_wired_limit_gb: Option<f64>,
}

impl DeviceArgs {
    /// How long a step may take.
    ///
    /// # Errors
    /// Not a positive time.
    pub(crate) fn watchdog_timeout(&self) -> Result<Duration> {
        let seconds = self.watchdog_timeout;
        match Duration::try_from_secs_f64(seconds) {
            Ok(timeout) if !timeout.is_zero() => Ok(timeout),
            _ => bail!("--watchdog-timeout must be positive, got {seconds}"),
        }
    }
}
