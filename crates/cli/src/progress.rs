//! Progress of downloads: a bar on a terminal, log lines elsewhere.

use std::{
    io::{IsTerminal, stderr},
    sync::{Mutex, PoisonError},
};

use engine::{Bytes, LoadProgress};
use indicatif::{ProgressBar, ProgressStyle};

/// The kind that suits standard error.
pub(crate) fn progress() -> Box<dyn LoadProgress + Send> {
    if stderr().is_terminal() { Box::new(Bars::default()) } else { Box::new(Lines) }
}

/// One file after the other.
#[derive(Default)]
struct Bars(Mutex<Option<ProgressBar>>);

impl Bars {
    fn with(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl LoadProgress for Bars {
    fn file_started(&self, name: &str, have: u64, total: Option<u64>) {
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let style = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        bar.set_position(have);
        self.with(|current| *current = Some(bar));
    }

    fn file_advanced(&self, _name: &str, bytes: u64) {
        self.with(|current| {
            if let Some(bar) = current {
                bar.inc(bytes);
            }
        });
    }

    fn file_finished(&self, _name: &str) {
        self.with(|current| {
            if let Some(bar) = current.take() {
                bar.finish();
            }
        });
    }
}

struct Lines;

impl LoadProgress for Lines {
    fn file_started(&self, name: &str, have: u64, total: Option<u64>) {
        let total = total
            .map_or_else(|| "unknown size".to_owned(), |total| Bytes(total as usize).to_string());
        tracing::info!("downloading {name}: {total}, {} are here", Bytes(have as usize));
    }

    fn file_finished(&self, name: &str) {
        tracing::info!("downloaded {name}");
    }
}
