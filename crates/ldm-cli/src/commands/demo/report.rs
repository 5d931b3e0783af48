//! One self-contained page: curves, images, numbers.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Context;
use ldm_core::device::device_name;
use plotters::prelude::*;
use tch::{Device, Tensor};

use super::{PER_CLASS, Stage, png};
use crate::page::{escape, head, img};

/// What the page shows.
pub(super) struct Report<'a> {
    pub(super) stages: [&'a Stage; 2],
    /// Originals and reconstructions.
    pub(super) pairs: [Tensor; 2],
    /// PSNR of each pair.
    pub(super) decibels: Vec<f64>,
    /// Samples by class.
    pub(super) rows: Vec<(String, Tensor)>,
    /// The predicted image along one sampling.
    pub(super) denoising: Tensor,
    pub(super) sampling_seconds: f64,
    pub(super) total_seconds: f64,
    pub(super) device: Device,
}

impl Report<'_> {
    /// The page.
    pub(super) fn html(&self) -> anyhow::Result<String> {
        let mut page = head("ldm demo");
        write!(
            page,
            "<p>A latent diffusion model in two stages, trained from nothing on drawn scenes: a first stage that \
             makes images small, and a class-conditional diffusion model on its latents. \
             {:.0} seconds in all, on {} with {} threads.</p>",
            self.total_seconds,
            device_name(self.device),
            ldm_libtorch::threads(),
        )?;
        for stage in self.stages {
            write_stage(&mut page, stage)?;
        }
        self.images(&mut page)?;
        for stage in self.stages {
            write!(page, "<h2>Config: {}</h2><pre>{}</pre>", stage.title, escape(&stage.config.to_text()))?;
        }
        page.push_str("</html>\n");
        Ok(page)
    }

    fn images(&self, page: &mut String) -> anyhow::Result<()> {
        let [originals, back] = &self.pairs;
        let columns = originals.size()[0];
        let mean = self.decibels.iter().sum::<f64>() / self.decibels.len().max(1) as f64;
        let each: Vec<String> = self.decibels.iter().map(|value| format!("{value:.1}")).collect();
        let both = Tensor::cat(&[originals, &back.to_device(originals.device())], 0);
        write!(
            page,
            "<h2>Reconstructions</h2><figure>{}<figcaption>Held-back scenes above, what the first stage makes of \
             them below: {} dB, mean {mean:.1} dB.</figcaption></figure>",
            img(&png(&both, columns), "originals above reconstructions"),
            each.join(", "),
        )?;
        write!(
            page,
            "<h2>Samples</h2><p>{PER_CLASS} of each class, 50 DDIM steps with fresh noise (eta 1), guidance {}, {:.1} s in all.</p><table>",
            super::GUIDANCE,
            self.sampling_seconds
        )?;
        for (name, images) in &self.rows {
            write!(page, "<tr><th>{}<td>{}", escape(name), img(&png(images, PER_CLASS as i64), name))?;
        }
        write!(
            page,
            "</table><h2>Denoising</h2><figure>{}<figcaption>What the model takes for the image, from the first \
             step to the last.</figcaption></figure>",
            img(&png(&self.denoising, self.denoising.size()[0]), "the predicted image at eight steps"),
        )?;
        Ok(())
    }
}

/// A stage's numbers and its loss curve.
fn write_stage(page: &mut String, stage: &Stage) -> anyhow::Result<()> {
    let lines = read_metrics(stage)?;
    write!(page, "<h2>{}</h2><table>", capital(stage.title))?;
    let train = &stage.config.train;
    let images = train.steps * train.accumulate * stage.config.data.batch_size as u64;
    let mut row = |name: &str, value: String| write!(page, "<tr><th>{name}<td>{value}");
    row("parameters", format!("{:.2} million", stage.parameters as f64 / 1e6))?;
    row("steps", format!("{} of {} images ({images} in all)", train.steps, stage.config.data.batch_size))?;
    row("time", format!("{:.0} s ({:.0} images a second)", stage.seconds, images as f64 / stage.seconds))?;
    for (key, label) in
        [("val/psnr", "PSNR, held-back scenes"), ("val/loss_simple", "loss, held-back scenes")]
    {
        if let Some(value) = lines.iter().rev().find_map(|line| line.get(key)) {
            let unit = if key == "val/psnr" { " dB" } else { "" };
            row(label, format!("{value:.3}{unit}"))?;
        }
    }
    page.push_str("</table>");
    let key = if lines.iter().any(|line| line.contains_key("rec_loss")) { "rec_loss" } else { "loss_simple" };
    let points: Vec<(f64, f64)> =
        lines.iter().filter_map(|line| Some((*line.get("step")?, *line.get(key)?))).collect();
    write!(
        page,
        "<figure>{}<figcaption>{key} over steps, logarithmic</figcaption></figure>",
        curve(&points, key)?
    )?;
    Ok(())
}

fn read_metrics(stage: &Stage) -> anyhow::Result<Vec<BTreeMap<String, f64>>> {
    let text =
        std::fs::read_to_string(&stage.metrics).with_context(|| stage.metrics.display().to_string())?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A line chart as SVG, its vertical axis logarithmic.
fn curve(points: &[(f64, f64)], label: &str) -> anyhow::Result<String> {
    let positive = || points.iter().filter(|(_, value)| *value > 0.);
    let last = points.last().map_or(1., |(step, _)| *step);
    let low = positive().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let high = positive().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return Ok(String::new());
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, 300)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(60)
            .build_cartesian_2d(0. ..last, ((low * 0.9)..(high * 1.1)).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc(label)
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|value| format!("{value:.2}"))
            .light_line_style(WHITE)
            .draw()?;
        chart.draw_series(LineSeries::new(positive().copied(), &BLUE))?;
        area.present()?;
    }
    Ok(svg)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
