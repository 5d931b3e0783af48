//! The report of the demo: one HTML page.

use std::collections::BTreeMap;

use ldm_core::device::device_name;
use ldm_core::{Error, Result};
use maud::{Markup, html};
use plotters::prelude::*;
use tch::{Device, Tensor};

use super::embedded::{self, CAPTIONS};
use super::{PER_CLASS, TrainedStage, png};
use crate::context::Context;
use crate::page::{figure, img, page, svg};

/// The content of the page.
pub(super) struct DemoReport<'a> {
    pub(super) stages: [&'a TrainedStage; 2],
    /// Originals and reconstructions.
    pub(super) pairs: [Tensor; 2],
    /// PSNR of each pair.
    pub(super) decibels: Vec<f64>,
    /// Samples by class.
    pub(super) rows: Vec<(String, Tensor)>,
    /// The predicted image during one sampling run.
    pub(super) denoising: Tensor,
    /// Images of the text model inside the program, and their seconds.
    pub(super) emoji: Option<(Tensor, f64)>,
    pub(super) sampling_seconds: f64,
    pub(super) total_seconds: f64,
    pub(super) device: Device,
}

impl DemoReport<'_> {
    /// Returns the page.
    pub(super) fn html(&self) -> Result<String> {
        let stages = self.stages.into_iter().map(stage).collect::<Result<Vec<Markup>>>()?;
        let body = html! {
            p {
                "A latent diffusion model in two stages, trained from scratch on synthetic scenes: a first stage that \
                 compresses images, and a class-conditional diffusion model on its latents. "
                (format!("{:.0}", self.total_seconds)) " seconds in total, on " (device_name(self.device))
                " with " (ldm_libtorch::threads()) " threads."
            }
            @for stage in stages { (stage) }
            (self.images())
            @if let Some((images, seconds)) = &self.emoji { (emoji(images, *seconds)) }
            @for stage in self.stages {
                h2 { "Config: " (stage.title) }
                pre { (stage.config.to_text()) }
            }
        };
        Ok(page("ldm demo", &body))
    }

    fn images(&self) -> Markup {
        let [originals, back] = &self.pairs;
        let columns = originals.size()[0];
        let mean = self.decibels.iter().sum::<f64>() / self.decibels.len().max(1) as f64;
        let each: Vec<String> = self.decibels.iter().map(|value| format!("{value:.1}")).collect();
        let both = Tensor::cat(&[originals, &back.to_device(originals.device())], 0);
        html! {
            h2 { "Reconstructions" }
            (figure(
                &img(&png(&both, columns), "originals above reconstructions"),
                &format!(
                    "Held-out scenes above, their reconstructions below: {} dB, mean {mean:.1} dB.",
                    each.join(", ")
                ),
            ))
            h2 { "Samples" }
            p {
                (PER_CLASS) " of each class, 50 DDIM steps with eta 1, guidance " (super::GUIDANCE)
                (format!(", {:.1} s in total.", self.sampling_seconds))
            }
            table {
                @for (name, images) in &self.rows {
                    tr { th { (name) } td { (img(&png(images, PER_CLASS as i64), name)) } }
                }
            }
            h2 { "Denoising" }
            (figure(
                &img(&png(&self.denoising, self.denoising.size()[0]), "the predicted image at eight steps"),
                "The predicted image, from the first step to the last.",
            ))
        }
    }
}

/// Returns the images of the text model inside the program.
fn emoji(images: &Tensor, seconds: f64) -> Markup {
    let columns = CAPTIONS.len() as i64 / 2;
    html! {
        h2 { "The model inside the program" }
        (figure(
            &img(&png(images, columns), "emoji of twelve captions"),
            &format!(
                "{}. {} DDIM steps, guidance {}, {seconds:.1} s with loading. Another one: ldm txt2img \"red heart\"",
                CAPTIONS.join(", "),
                embedded::STEPS,
                embedded::GUIDANCE
            ),
        ))
    }
}

/// Returns the metrics of a stage and its loss curve.
fn stage(stage: &TrainedStage) -> Result<Markup> {
    let lines = read_metrics(stage)?;
    let (train, batch) = (&stage.config.train, stage.config.data.batch_size);
    let images = train.steps * train.accumulate * batch as u64;
    let last = |key: &str| lines.iter().rev().find_map(|line| line.get(key)).copied();
    let key = if lines.iter().any(|line| line.contains_key("rec_loss")) { "rec_loss" } else { "loss_simple" };
    let points: Vec<(f64, f64)> =
        lines.iter().filter_map(|line| Some((*line.get("step")?, *line.get(key)?))).collect();
    let curve = curve(&points, key).context("report.html")?;
    Ok(html! {
        h2 { (capitalized(stage.title)) }
        table {
            tr { th { "parameters" } td { (format!("{:.2} million", stage.parameters as f64 / 1e6)) } }
            tr { th { "steps" } td { (train.steps) " of " (batch) " images (" (images) " in total)" } }
            tr { th { "time" } td {
                (format!("{:.0} s ({:.0} images a second)", stage.seconds, images as f64 / stage.seconds))
            } }
            @if let Some(psnr) = last("val/psnr") {
                tr { th { "PSNR, held-out scenes" } td { (format!("{psnr:.3} dB")) } }
            }
            @if let Some(loss) = last("val/loss_simple") {
                tr { th { "loss, held-out scenes" } td { (format!("{loss:.3}")) } }
            }
        }
        (figure(&svg(&curve), &format!("{key} over steps, logarithmic")))
    })
}

fn read_metrics(stage: &TrainedStage) -> Result<Vec<BTreeMap<String, f64>>> {
    let path = &stage.metrics;
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let parse = |line| serde_json::from_str(line).map_err(|error| Error::format(path, error.to_string()));
    text.lines().map(parse).collect()
}

/// Returns a line chart as SVG, its vertical axis logarithmic.
fn curve(points: &[(f64, f64)], label: &str) -> std::result::Result<String, Box<dyn std::error::Error>> {
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

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
