//! What is measured of requests, and how it is told.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use server::{LatencyBuckets, MetricsOptions};

#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Metrics")]
pub(crate) struct MetricsArgs {
    /// JSON object of labels for every sample of scheduler and requests.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    pub(crate) extra_metric_labels: String,

    /// Upper bounds of the histogram, in seconds; by default upstream's.
    #[arg(long, num_args = 1.., value_name = "SECONDS")]
    pub(crate) bucket_time_to_first_token: Option<Vec<f64>>,

    /// Upper bounds of the histogram, in seconds; by default upstream's.
    #[arg(long, num_args = 1.., value_name = "SECONDS")]
    pub(crate) bucket_inter_token_latency: Option<Vec<f64>>,

    /// Upper bounds of the histogram, in seconds; by default upstream's.
    #[arg(long, num_args = 1.., value_name = "SECONDS")]
    pub(crate) bucket_e2e_request_latency: Option<Vec<f64>>,
}

impl MetricsArgs {
    /// # Errors
    /// Labels that are no names, bounds that do not rise.
    pub(crate) fn options(&self) -> Result<MetricsOptions> {
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&self.extra_metric_labels).context("--extra-metric-labels")?;
        if let Some(name) = labels.keys().find(|name| !is_label_name(name)) {
            anyhow::bail!("--extra-metric-labels: {name:?} cannot be the name of a label");
        }
        if let Some(name) =
            labels.keys().find(|name| MetricsOptions::OWN_LABELS.contains(&name.as_str()))
        {
            anyhow::bail!("--extra-metric-labels: every sample has a label {name:?} of its own");
        }
        let default = LatencyBuckets::default();
        let buckets = LatencyBuckets {
            time_to_first_token: bounds(
                "--bucket-time-to-first-token",
                self.bucket_time_to_first_token.as_ref(),
                default.time_to_first_token,
            )?,
            inter_token_latency: bounds(
                "--bucket-inter-token-latency",
                self.bucket_inter_token_latency.as_ref(),
                default.inter_token_latency,
            )?,
            e2e_request_latency: bounds(
                "--bucket-e2e-request-latency",
                self.bucket_e2e_request_latency.as_ref(),
                default.e2e_request_latency,
            )?,
        };
        Ok(MetricsOptions { extra_labels: labels, buckets })
    }
}

fn bounds(flag: &str, given: Option<&Vec<f64>>, default: Vec<f64>) -> Result<Vec<f64>> {
    let Some(given) = given else { return Ok(default) };
    let rises = given.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(rises && given.iter().all(|bound| bound.is_finite()), "{flag}: bounds must rise");
    Ok(given.clone())
}

/// Prometheus' rule, without the names it keeps for itself.
fn is_label_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins_well && !name.starts_with("__") && name.chars().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(labels: &str, bounds: &[f64]) -> MetricsArgs {
        MetricsArgs {
            extra_metric_labels: labels.to_owned(),
            bucket_time_to_first_token: Some(bounds.to_vec()),
            bucket_inter_token_latency: None,
            bucket_e2e_request_latency: None,
        }
    }

    #[test]
    fn labels_and_bounds_are_checked() {
        let options = args(r#"{"zone": "eu"}"#, &[0.5, 1.0]).options().unwrap();
        assert_eq!(options.extra_labels["zone"], "eu");
        assert_eq!(options.buckets.time_to_first_token, [0.5, 1.0]);
        let default = LatencyBuckets::default();
        assert_eq!(options.buckets.inter_token_latency, default.inter_token_latency);
        for (labels, bounds, words) in [
            ("[]", &[1.0][..], "--extra-metric-labels"),
            (r#"{"a-b": "c"}"#, &[1.0], "\"a-b\" cannot be the name of a label"),
            (r#"{"__a": "c"}"#, &[1.0], "\"__a\" cannot"),
            (r#"{"model_name": "c"}"#, &[1.0], "a label \"model_name\" of its own"),
            (r#"{"le": "c"}"#, &[1.0], "a label \"le\" of its own"),
            ("{}", &[1.0, 1.0], "--bucket-time-to-first-token: bounds must rise"),
            ("{}", &[f64::NAN], "bounds must rise"),
        ] {
            let error = format!("{:#}", args(labels, bounds).options().unwrap_err());
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
