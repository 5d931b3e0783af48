//! The report of a study: one HTML page.

use ldm_core::{Error, Result};
use maud::{Markup, html};

use super::plots::StudyPlot;
use super::results::{FactorResult, StudyResults};
use super::study_dir::StudyDir;
use crate::page::{figure, img, page, svg};

/// Returns the page.
pub(super) fn html(results: &StudyResults, plots: &[StudyPlot], folder: &StudyDir) -> Result<String> {
    let path = folder.path("study.yaml");
    let study = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let images =
        results.factors.iter().map(|factor| images(factor, folder)).collect::<Result<Vec<Markup>>>()?;
    let body = html! {
        (introduction(results))
        (first_stages(&results.factors))
        (diffusion(results))
        @for plot in plots { (figure(&svg(&plot.svg), plot.caption)) }
        h2 { "Images" }
        @for image in images { (image) }
        h2 { "The study" }
        p {
            "ldm " (results.ldm) ". To repeat it: " code { "ldm compare-f study.yaml --out DIR" }
            " with the file below; the results are next to this page as results.json, results.csv and first-stages.csv."
        }
        pre { (study) }
    };
    Ok(page("How much to compress before diffusion", &body))
}

fn introduction(results: &StudyResults) -> Markup {
    let (reference, measure) = (&results.reference, &results.study.measure);
    let [height, width] = reference.size;
    let factors: Vec<String> = results.factors.iter().map(|factor| factor.f.to_string()).collect();
    let ends = results
        .factors
        .iter()
        .filter_map(|factor| Some((factor.f, factor.diffusion.points.last()?.quality.frechet_distance)));
    let threads = reference.threads;
    html! {
        p {
            "Latent diffusion models of one data set and one budget, by the downsampling factor f of their first stages \
             (Rombach et al. 2022, §4.1): f = " (factors.join(", ")) " on " (reference.dataset) " at "
            (width) "x" (height) " pixels, on " (reference.device) " with " (threads)
            (if threads == 1 { " thread" } else { " threads" }) ". Each f was trained once, from one seed."
        }
        p { strong { (verdict(ends.collect())) } }
        p {
            "Sets are compared by the Fréchet distance of features of " em { (reference.features) } ": "
            (measure.images) " generated images to " (reference.images) " held-out ones, in "
            (measure.progress_steps) " DDIM steps with eta " (measure.eta) ". As many training images are at "
            (format!("{:.4}", reference.floor.frechet_distance))
            " from the held-out ones: a floor of all distances."
            @if !reference.features.starts_with("Inception") {
                " These features are not Inception's: the numbers compare the models of this page only."
            }
        }
    }
}

/// Returns the best f in a sentence, by the distance of each at the end of its training.
fn verdict(mut ends: Vec<(i64, f64)>) -> String {
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let Some((best, _)) = ends.first().copied() else { return "Nothing is measured yet.".into() };
    let order: Vec<String> = ends.iter().map(|(f, distance)| format!("f = {f} ({distance:.4})")).collect();
    let order = order.join(", then ");
    let factors = || ends.iter().map(|(f, _)| *f);
    if ends.len() < 3 {
        format!("After this budget, nearest to the data first: {order}.")
    } else if Some(best) == factors().min() || Some(best) == factors().max() {
        format!(
            "After this budget, nearest to the data first: {order}. The best is an end of the list: these numbers show no \
             optimum between too little and too much compression."
        )
    } else {
        format!(
            "After this budget, nearest to the data first: {order}. The best lies within the list: less compression trains \
             too slowly for this budget, and more loses too much."
        )
    }
}

fn first_stages(factors: &[FactorResult]) -> Markup {
    let trunk =
        factors.iter().filter_map(|factor| Some(&factor.first_stage.as_ref()?.lpips_trunk)).next_back();
    html! {
        h2 { "First stages" }
        table {
            tr {
                @for name in ["f", "parameters", "PSNR", "SSIM", "LPIPS", "Fréchet distance", "trained on", "encoded", "decoded"] {
                    th { (name) }
                }
            }
            @for factor in factors {
                tr {
                    td { (factor.f) }
                    @if let Some(stage) = &factor.first_stage {
                        td { (millions(stage.training.parameters)) }
                        td { (format!("{:.2} dB", stage.psnr.mean)) }
                        td { (format!("{:.4}", stage.ssim.mean)) }
                        td { (format!("{:.4}", stage.lpips.mean)) }
                        td { (format!("{:.4}", stage.frechet_distance)) }
                        td { (format!("{} images, {:.0} s", stage.training.images, stage.training.seconds)) }
                        td { (format!("{:.0}/s", stage.encoded_per_second)) }
                        td { (format!("{:.0}/s", stage.decoded_per_second)) }
                    } @else {
                        td colspan="8" { "none: diffusion in pixels" }
                    }
                }
            }
        }
        @if let Some(trunk) = trunk { p { "LPIPS by: " (trunk) "." } }
    }
}

fn diffusion(results: &StudyResults) -> Markup {
    let columns = [
        "f",
        "latent",
        "parameters",
        "steps",
        "images seen",
        "training",
        "Fréchet distance",
        "precision",
        "recall",
        "seconds per image",
        "memory, training",
        "sampling",
    ];
    html! {
        h2 { "Diffusion models" }
        table {
            tr { @for name in columns { th { (name) } } }
            @for factor in &results.factors {
                (diffusion_row(factor, results.study.measure.progress_steps))
            }
        }
    }
}

fn diffusion_row(factor: &FactorResult, steps: usize) -> Markup {
    let share = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
    let training = &factor.diffusion.training;
    let [c, h, w] = factor.diffusion.latent;
    let last = factor.diffusion.points.last().map(|point| &point.quality);
    // The number of steps nearest to that of the measurements during training.
    let cost = factor.sampling.by_steps.iter().min_by_key(|by| by.steps.abs_diff(steps));
    html! {
        tr {
            td { (factor.f) }
            td { (c) "x" (h) "x" (w) }
            td { (millions(training.parameters)) }
            td { (training.steps) }
            td { (training.images) }
            td { (format!("{:.0} s, {:.1}/s", training.seconds, training.images_per_second)) }
            td { (last.map_or("–".into(), |quality| format!("{:.4}", quality.frechet_distance))) }
            td { (share(last.and_then(|quality| quality.precision))) }
            td { (share(last.and_then(|quality| quality.recall))) }
            td { (cost.map_or("–".into(), |by| format!("{:.4} s in {} steps", by.seconds_per_image, by.steps))) }
            td { (gigabytes(training.peak_memory)) }
            td { (gigabytes(factor.sampling.peak_memory)) }
        }
    }
}

fn images(factor: &FactorResult, folder: &StudyDir) -> Result<Markup> {
    let f = factor.f;
    let read = |name: &str| {
        let path = folder.of(f, name);
        std::fs::read(&path).map_err(Error::io(&path))
    };
    let reconstructions = factor.first_stage.as_ref().map(|_| read("reconstructions.png")).transpose()?;
    let last = factor.diffusion.points.last().map(|point| point.step);
    let samples =
        last.map(|step| Ok::<_, Error>((step, read(&format!("samples-{step:07}.png"))?))).transpose()?;
    Ok(html! {
        @if let Some(bytes) = reconstructions {
            (figure(
                &img(&bytes, &format!("f = {f}: originals above reconstructions")),
                &format!("f = {f}: held-out images above, their reconstructions below"),
            ))
        }
        @if let Some((step, bytes)) = samples {
            (figure(
                &img(&bytes, &format!("f = {f}: samples")),
                &format!("f = {f}: samples after {step} steps of training"),
            ))
        }
    })
}

fn millions(count: usize) -> String {
    format!("{:.2} M", count as f64 / 1e6)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn optimum_is_claimed_only_within_the_list() {
        let within = verdict(vec![(1, 3.), (2, 1.5), (4, 1.), (8, 2.)]);
        assert!(within.starts_with(
            "After this budget, nearest to the data first: f = 4 (1.0000), then f = 2 (1.5000)"
        ));
        assert!(within.contains("The best lies within the list"), "{within}");
        for end in [vec![(1, 1.), (2, 1.5), (4, 2.)], vec![(1, 3.), (2, 2.5), (4, 2.)]] {
            assert!(verdict(end).contains("The best is an end of the list"));
        }
        assert!(!verdict(vec![(2, 1.), (4, 2.)]).contains("The best"), "two factors have no middle");
        assert_eq!(verdict(Vec::new()), "Nothing is measured yet.");
    }
}
