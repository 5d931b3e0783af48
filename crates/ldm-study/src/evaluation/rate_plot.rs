//! The curve of [`RateDistortion`] as SVG.

use ldm_core::Result;
use plotters::prelude::*;

use super::rate_distortion::RateDistortion;
use crate::context::Context;

const BLUE: RGBColor = RGBColor(0, 114, 178);
const GRAY: RGBColor = RGBColor(130, 130, 130);

/// Draws distortion against rate, and the distortion of the first stage as a dashed line.
pub(super) fn svg(curve: &RateDistortion) -> Result<String> {
    let mut svg = String::new();
    draw(curve, &mut svg).context("curve.svg")?;
    Ok(svg)
}

fn draw(curve: &RateDistortion, svg: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points: Vec<(f64, f64)> = curve.points.iter().map(|point| (point.rate, point.distortion)).collect();
    let greatest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let wide = greatest(&mut points.iter().map(|point| point.0));
    let high = greatest(&mut points.iter().map(|point| point.1));
    let area = SVGBackend::with_string(svg, (640, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&area);
    builder.margin(12).x_label_area_size(48).y_label_area_size(64);
    let mut chart = builder.build_cartesian_2d(0. ..wide, 0. ..high)?;
    chart
        .configure_mesh()
        .x_desc("rate (bits per dimension)")
        .y_desc("distortion (RMSE)")
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 15))
        .light_line_style(WHITE)
        .draw()?;
    let floor = [(0., curve.first_stage), (wide, curve.first_stage)];
    chart.draw_series(DashedLineSeries::new(floor, 6, 5, GRAY.stroke_width(1)))?;
    chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
    area.present()?;
    Ok(())
}
