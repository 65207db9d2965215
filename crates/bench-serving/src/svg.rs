//! Just enough SVG: a page of charts with axes, lines and labels.

use std::fmt::Write;

/// Outer size of a chart in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

/// A chart with lines.
#[derive(Debug, Default)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    /// Points from left to right; both axes start at zero.
    pub(crate) points: Vec<(f64, f64)>,
    /// Upright lines: place and label.
    pub(crate) marks: Vec<(f64, String)>,
}

/// A document with `charts` below each other.
pub(crate) fn document(heading: &str, charts: &[Chart]) -> String {
    let mut svg = String::new();
    let height = 30.0 + HEIGHT * charts.len() as f64;
    draw(&mut svg, heading, charts, height).expect("a String takes everything");
    svg
}

fn draw(svg: &mut String, heading: &str, charts: &[Chart], height: f64) -> std::fmt::Result {
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{}</text>",
        escape(heading)
    )?;
    for (index, chart) in charts.iter().enumerate() {
        writeln!(svg, "<g transform=\"translate(0 {})\">", 30.0 + HEIGHT * index as f64)?;
        draw_chart(svg, chart)?;
        writeln!(svg, "</g>")?;
    }
    writeln!(svg, "</svg>")
}

fn draw_chart(svg: &mut String, chart: &Chart) -> std::fmt::Result {
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let x_step = step(most(&mut chart.points.iter().map(|point| point.0)), 8.0);
    let y_step = step(most(&mut chart.points.iter().map(|point| point.1)), 5.0);
    let top_of = |step: f64, value: f64| (value / step).ceil().max(1.0) * step;
    let x_max = top_of(x_step, most(&mut chart.points.iter().map(|point| point.0)));
    let y_max = top_of(y_step, most(&mut chart.points.iter().map(|point| point.1)));
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM);
    let (left, right, floor) = (x(0.0), x(x_max), y(0.0));

    writeln!(svg, "<text x=\"{left}\" y=\"{}\">{}</text>", TOP - 10.0, escape(&chart.title))?;
    let (middle, below) = (f64::midpoint(left, right), HEIGHT - 8.0);
    let (x_label, y_label) = (escape(chart.x_label), escape(chart.y_label));
    writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{x_label}</text>")?;
    let middle = f64::midpoint(floor, TOP);
    writeln!(
        svg,
        "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>"
    )?;
    for value in ticks(x_step, x_max) {
        let (at, label) = (x(value), number(value, x_step));
        line(svg, (at, TOP), (at, floor), "#ddd")?;
        let y = floor + 16.0;
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>")?;
    }
    for value in ticks(y_step, y_max) {
        let (at, label) = (y(value), number(value, y_step));
        line(svg, (left, at), (right, at), "#ddd")?;
        let (x, y) = (left - 6.0, at + 4.0);
        writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{label}</text>")?;
    }
    for (place, label) in &chart.marks {
        let at = x(place.min(x_max));
        line(svg, (at, TOP), (at, floor), "#c44")?;
        let (x, y, label) = (at + 3.0, TOP + 12.0, escape(label));
        writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" fill=\"#c44\" font-size=\"10\">{label}</text>"
        )?;
    }
    write!(svg, "<polyline fill=\"none\" stroke=\"#247\" stroke-width=\"1.5\" points=\"")?;
    for &(at, value) in &chart.points {
        write!(svg, "{:.1},{:.1} ", x(at), y(value))?;
    }
    writeln!(svg, "\"/>")
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) -> std::fmt::Result {
    writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    )
}

/// 1, 2 or 5 times a power of ten, at most `parts` of them up to `max`.
fn step(max: f64, parts: f64) -> f64 {
    if max <= 0.0 {
        return 1.0;
    }
    let magnitude = 10_f64.powf((max / parts).log10().floor());
    let fits = |factor: &f64| max / (factor * magnitude) <= parts;
    [1.0, 2.0, 5.0].into_iter().find(fits).unwrap_or(10.0) * magnitude
}

fn ticks(step: f64, max: f64) -> impl Iterator<Item = f64> {
    (0..=(max / step).round() as usize).map(move |index| index as f64 * step)
}

fn number(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (max, parts, expected) in
            [(100.0, 5.0, 20.0), (7.3, 8.0, 1.0), (0.013, 5.0, 0.005), (0.0, 5.0, 1.0)]
        {
            assert!((step(max, parts) - expected).abs() < 1e-12, "{max}: {}", step(max, parts));
        }
        assert_eq!(ticks(2.0, 6.0).collect::<Vec<_>>(), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!((number(0.015, 0.005), number(40.0, 20.0)), ("0.015".into(), "40".into()));
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }
}
