//! Curves of a study, as the paper's Figures 6 and 7.

use std::ops::Range;

use plotters::coord::combinators::BindKeyPoints;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use ldm_core::Result;

use super::results::{FactorResult, QualityPoint, StudyResults};
use crate::context::Context;

/// An error of the drawing library.
type DrawError = Box<dyn std::error::Error>;

/// A figure.
pub(super) struct StudyPlot {
    pub(super) file: String,
    pub(super) caption: &'static str,
    pub(super) svg: String,
}

/// A curve: its f, and its points.
type Curve = (i64, Vec<(f64, f64)>);

/// One color per factor, in the order of the study, distinct for color-blind readers too.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Returns the figures with data.
pub(super) fn all(results: &StudyResults) -> Result<Vec<StudyPlot>> {
    let along = |x: fn(&QualityPoint) -> f64| -> Vec<Curve> {
        let curve = |factor: &FactorResult| {
            let points = factor.diffusion.points.iter();
            (factor.f, points.map(|point| (x(point), point.quality.frechet_distance)).collect())
        };
        results.factors.iter().map(curve).collect()
    };
    let by_steps: Vec<Curve> = results
        .factors
        .iter()
        .map(|factor| {
            let sets = factor.sampling.by_steps.iter();
            (factor.f, sets.map(|by| (by.images_per_second, by.quality.frechet_distance)).collect())
        })
        .collect();
    let floor = results.reference.floor.frechet_distance;
    let figures = [
        (
            "quality-by-steps.svg",
            "training steps",
            "Fréchet distance during training, by steps (as the paper's Figure 6). Lower is better; the dashed line is \
             that of training images.",
            along(|point| point.step as f64),
            false,
        ),
        (
            "quality-by-seconds.svg",
            "seconds of training",
            "The same, by seconds of training.",
            along(|point| point.seconds),
            false,
        ),
        (
            "quality-by-throughput.svg",
            "images sampled a second (logarithmic)",
            "Fréchet distance against sampling speed, each point a number of DDIM steps (as the paper's Figure 7). Down \
             and to the right is better.",
            by_steps,
            true,
        ),
    ];
    figures
        .into_iter()
        .filter(|(.., curves, _)| curves.iter().any(|(_, points)| !points.is_empty()))
        .map(|(file, x, caption, curves, log)| {
            Ok(StudyPlot { file: file.into(), caption, svg: figure(&curves, floor, x, log).context(file)? })
        })
        .collect()
}

/// Returns the range of positive numbers, with a margin.
fn room(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(f64::MIN_POSITIVE, f64::max);
    (least * 0.85).max(f64::MIN_POSITIVE)..greatest * 1.15
}

fn figure(curves: &[Curve], floor: f64, x: &str, log: bool) -> std::result::Result<String, DrawError> {
    let points = || curves.iter().flat_map(|(_, points)| points.iter().copied()).filter(|point| point.1 > 0.);
    let high = room(points().map(|point| point.1).chain((floor > 0.).then_some(floor)));
    let wide = room(points().map(|point| point.0));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(12).x_label_area_size(48).y_label_area_size(80);
        let up = high.clone().log_scale().with_key_points(ticks(&high));
        if log {
            let across = wide.clone().log_scale().with_key_points(ticks(&wide));
            draw(builder.build_cartesian_2d(across, up)?, curves, floor, (x, wide))?;
        } else {
            let wide = 0. ..wide.end;
            draw(builder.build_cartesian_2d(wide.clone(), up)?, curves, floor, (x, wide))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Ticks of a logarithmic axis: 1, 2 and 5 of each decade, or more within a decade.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let (least, greatest) = (range.start.log10(), range.end.log10());
    let digits: &[f64] =
        if greatest - least > 1. { &[1., 2., 5.] } else { &[1., 1.2, 1.5, 2., 2.5, 3., 4., 5., 6., 8.] };
    (least.floor() as i32..=greatest.ceil() as i32)
        .flat_map(|decade| digits.iter().map(move |digit| digit * 10_f64.powi(decade)))
        .filter(|tick| range.contains(tick))
        .collect()
}

/// Draws the curves, and the floor as a dashed line.
fn draw<'a, X, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    curves: &[Curve],
    floor: f64,
    (x, wide): (&str, Range<f64>),
) -> std::result::Result<(), DrawError>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc("Fréchet distance (logarithmic)")
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 15))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .light_line_style(WHITE)
        .draw()?;
    if floor > 0. {
        let ends = [(wide.start, floor), (wide.end, floor)];
        let gray = RGBColor(130, 130, 130);
        chart.draw_series(DashedLineSeries::new(ends, 6, 5, gray.stroke_width(1)))?;
    }
    for (index, (f, points)) in curves.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(format!("f = {f}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}

/// Returns a number with about three digits.
fn short(value: f64) -> String {
    let digits = if value == 0. { 0 } else { (2 - value.abs().log10().floor() as i64).clamp(0, 6) };
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{short, ticks};

    #[test]
    fn ticks_are_round_and_labels_short() {
        assert_eq!(ticks(&(0.8..30.)), [1., 2., 5., 10., 20.]);
        assert_eq!(ticks(&(1.1..2.7)), [1.2, 1.5, 2., 2.5]);
        let shown = [0., 0.0512, 1.25, 20., 1500.].map(short);
        assert_eq!(shown, ["0", "0.0512", "1.25", "20", "1500"]);
    }
}
