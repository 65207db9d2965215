//! A page of charts: how TTFT and ITL are distributed, and throughput over time.

use std::time::Duration;

use crate::{
    Metrics, Recording, RequestOutput, Spread, metrics,
    svg::{self, Chart},
};

/// Points of a distribution's line: enough for its width in pixels.
const MAX_POINTS: usize = 600;
/// Parts that time is cut into.
const TIME_STEPS: f64 = 120.0;

/// The charts as an SVG document.
pub fn plot(heading: &str, recording: &Recording, metrics: &Metrics) -> String {
    let good: Vec<&RequestOutput> =
        recording.outputs.iter().filter(|output| output.error.is_none()).collect();
    let ttfts = good.iter().map(|output| output.ttft());
    let itls = good.iter().flat_map(|output| output.itls());
    let charts = [
        distribution("Time to first token", "share of requests", &metrics.ttft, ttfts),
        distribution("Inter-token latency", "share of tokens", &metrics.itl, itls),
        throughput(recording, metrics),
    ];
    svg::document(heading, &charts)
}

fn distribution(
    title: &str,
    y_label: &'static str,
    spread: &Spread,
    times: impl Iterator<Item = Duration>,
) -> Chart {
    let mut ms: Vec<_> = times.map(|time| time.as_secs_f64() * 1e3).collect();
    ms.sort_unstable_by(f64::total_cmp);
    let last = ms.len().saturating_sub(1);
    let every = ms.len().div_ceil(MAX_POINTS).max(1);
    let share = |index: usize| (index + 1) as f64 / ms.len() as f64;
    let points = ms.iter().enumerate().filter(|&(index, _)| index % every == 0 || index == last);
    Chart {
        title: format!("{title}: median {:.1} ms, p99 {:.1} ms", spread.median, spread.p99),
        x_label: "ms",
        y_label,
        points: points.map(|(index, &ms)| (ms, share(index))).collect(),
        marks: vec![(spread.median, "p50".to_owned()), (spread.p99, "p99".to_owned())],
    }
}

fn throughput(recording: &Recording, metrics: &Metrics) -> Chart {
    let step = (metrics.duration / TIME_STEPS).max(1e-3);
    let tokens = metrics::tokens_over_time(recording, step);
    // The last part is cut short by the end.
    let points = tokens.iter().enumerate().map(|(index, &tokens)| {
        let length = (metrics.duration - index as f64 * step).clamp(1e-3, step);
        ((index as f64 + 0.5) * step, tokens as f64 / length)
    });
    Chart {
        title: format!("Output tokens a second: {:.1} on average", metrics.output_throughput),
        x_label: "s",
        y_label: "tokens/s",
        points: points.collect(),
        marks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arrival;

    fn charts_of(recording: &Recording) -> (Vec<String>, Vec<String>) {
        let svg = plot("8 streams & <more>", recording, &Metrics::of(recording));
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        let lines = document.descendants().filter(|node| node.has_tag_name("polyline"));
        (
            texts.map(|node| node.text().unwrap().to_owned()).collect(),
            lines.map(|node| node.attribute("points").unwrap().to_owned()).collect(),
        )
    }

    #[test]
    fn the_document_parses_and_shows_the_figures() {
        let ms = Duration::from_millis;
        let arrivals = (1..=50).map(|index| Arrival { at: ms(20 * index), tokens: 1 }).collect();
        let output = RequestOutput {
            latency: ms(1000),
            arrivals,
            output_len: 50,
            ..RequestOutput::default()
        };
        let recording = Recording { duration: ms(1000), outputs: vec![output] };
        let (texts, lines) = charts_of(&recording);
        for text in [
            "8 streams & <more>",
            "Time to first token: median 20.0 ms, p99 20.0 ms",
            "Inter-token latency: median 20.0 ms, p99 20.0 ms",
            "Output tokens a second: 50.0 on average",
        ] {
            assert!(texts.iter().any(|found| found == text), "{text} in {texts:?}");
        }
        let points = |line: &String| line.split_whitespace().count();
        assert_eq!(lines.iter().map(points).collect::<Vec<_>>(), [1, 49, 120]);
        assert!(lines.iter().all(|line| !line.contains("NaN") && !line.contains("inf")));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let (_, lines) = charts_of(&Recording::default());
        assert!(lines.iter().all(|line| !line.contains("NaN") && !line.contains("inf")));
    }
}
