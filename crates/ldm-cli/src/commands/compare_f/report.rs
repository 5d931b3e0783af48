//! One page: what was compared, what came of it, and what it says.

use std::fmt::Write;

use super::layout::Folder;
use super::plots::Plot;
use super::results::{Factor, Results};
use crate::page::{escape, head, img};

/// The page.
pub(super) fn html(results: &Results, plots: &[Plot], folder: &Folder) -> anyhow::Result<String> {
    let mut page = head("How much to compress before diffusing");
    let (reference, measure) = (&results.reference, &results.study.measure);
    let [height, width] = reference.size;
    let factors: Vec<String> = results.factors.iter().map(|factor| factor.f.to_string()).collect();
    write!(
        page,
        "<p>Latent diffusion models of one data set and one budget, by the downsampling factor f of their first stages \
         (Rombach et al. 2022, §4.1): f = {} on {} at {width}x{height} pixels, on {} with {} thread{}. Each f was trained \
         once, from one seed.</p>",
        factors.join(", "),
        escape(&reference.dataset),
        escape(&reference.device),
        reference.threads,
        if reference.threads == 1 { "" } else { "s" },
    )?;
    let ends = results
        .factors
        .iter()
        .filter_map(|factor| Some((factor.f, factor.diffusion.points.last()?.quality.frechet_distance)));
    let ends = ends.collect();
    write!(page, "<p><strong>{}</strong></p>", escape(&verdict(ends)))?;
    write!(
        page,
        "<p>Sets are compared by the Fréchet distance of features of <em>{}</em>: {} made images to {} held-back ones, in \
         {} DDIM steps with eta {}. As many training images are at {:.4} from the held-back ones: nothing can be expected \
         to be nearer.{}</p>",
        escape(&reference.features),
        measure.images,
        reference.images,
        measure.progress_steps,
        measure.eta,
        reference.floor.frechet_distance,
        if reference.features.starts_with("Inception") {
            ""
        } else {
            " These features are no Inception's: the numbers order the models of this page and compare with no others."
        },
    )?;
    first_stages(&mut page, &results.factors)?;
    diffusion(&mut page, results)?;
    for plot in plots {
        write!(page, "<figure>{}<figcaption>{}</figcaption></figure>", plot.svg, escape(plot.caption))?;
    }
    page.push_str("<h2>ImageSet</h2>");
    for factor in &results.factors {
        images(&mut page, factor, folder)?;
    }
    let study = std::fs::read_to_string(folder.path("study.yaml"))?;
    writeln!(
        page,
        "<h2>The study</h2><p>ldm {}. The same again: <code>ldm compare-f study.yaml --out DIR</code> with the file below; \
         what was found lies beside this page as results.json, results.csv and first-stages.csv.</p><pre>{}</pre></html>",
        results.ldm,
        escape(&study)
    )?;
    Ok(page)
}

/// Where the best f lies, in a sentence: of each f, how far its images were at the end of its training.
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

fn first_stages(page: &mut String, factors: &[Factor]) -> anyhow::Result<()> {
    page.push_str(
        "<h2>First stages</h2><table><tr><th>f<th>parameters<th>PSNR<th>SSIM<th>LPIPS<th>Fréchet distance<th>trained on\
         <th>encoded<th>decoded",
    );
    let mut trunk = None;
    for factor in factors {
        let Some(stage) = &factor.first_stage else {
            write!(page, "<tr><td>{}<td colspan=8>none: diffusion in pixels", factor.f)?;
            continue;
        };
        trunk = Some(&stage.lpips_trunk);
        write!(
            page,
            "<tr><td>{}<td>{}<td>{:.2} dB<td>{:.4}<td>{:.4}<td>{:.4}<td>{} images, {:.0} s<td>{:.0}/s<td>{:.0}/s",
            factor.f,
            millions(stage.training.parameters),
            stage.psnr.mean,
            stage.ssim.mean,
            stage.lpips.mean,
            stage.frechet_distance,
            stage.training.images,
            stage.training.seconds,
            stage.encoded_per_second,
            stage.decoded_per_second,
        )?;
    }
    page.push_str("</table>");
    if let Some(trunk) = trunk {
        write!(page, "<p>LPIPS by: {}.</p>", escape(trunk))?;
    }
    Ok(())
}

fn diffusion(page: &mut String, results: &Results) -> anyhow::Result<()> {
    let steps = results.study.measure.progress_steps;
    write!(
        page,
        "<h2>Diffusion models</h2><table><tr><th>f<th>latent<th>parameters<th>steps<th>images seen<th>training\
         <th>Fréchet distance<th>precision<th>recall<th>an image costs<th>memory, training<th>sampling"
    )?;
    let share = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
    for factor in &results.factors {
        let training = &factor.diffusion.training;
        let [c, h, w] = factor.diffusion.latent;
        let last = factor.diffusion.points.last().map(|point| &point.quality);
        // The number of steps nearest to that of the measurements along the training.
        let cost = factor.sampling.by_steps.iter().min_by_key(|by| by.steps.abs_diff(steps));
        write!(
            page,
            "<tr><td>{}<td>{c}x{h}x{w}<td>{}<td>{}<td>{}<td>{:.0} s, {:.1}/s<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            factor.f,
            millions(training.parameters),
            training.steps,
            training.images,
            training.seconds,
            training.images_per_second,
            last.map_or("–".into(), |quality| format!("{:.4}", quality.frechet_distance)),
            share(last.and_then(|quality| quality.precision)),
            share(last.and_then(|quality| quality.recall)),
            cost.map_or("–".into(), |by| format!("{:.4} s in {} steps", by.seconds_per_image, by.steps)),
            gigabytes(training.peak_memory),
            gigabytes(factor.sampling.peak_memory),
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn images(page: &mut String, factor: &Factor, folder: &Folder) -> anyhow::Result<()> {
    let f = factor.f;
    if factor.first_stage.is_some() {
        let bytes = std::fs::read(folder.of(f, "reconstructions.png"))?;
        write!(
            page,
            "<figure>{}<figcaption>f = {f}: held-back images above, what the first stage makes of them below</figcaption></figure>",
            img(&bytes, &format!("f = {f}: originals above reconstructions"))
        )?;
    }
    if let Some(last) = factor.diffusion.points.last() {
        let bytes = std::fs::read(folder.of(f, &format!("samples-{:07}.png", last.step)))?;
        write!(
            page,
            "<figure>{}<figcaption>f = {f}: samples after {} steps of training</figcaption></figure>",
            img(&bytes, &format!("f = {f}: samples")),
            last.step
        )?;
    }
    Ok(())
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
    fn an_optimum_is_claimed_only_where_it_lies_within() {
        let within = verdict(vec![(1, 3.), (2, 1.5), (4, 1.), (8, 2.)]);
        assert!(within.starts_with(
            "After this budget, nearest to the data first: f = 4 (1.0000), then f = 2 (1.5000)"
        ));
        assert!(within.contains("The best lies within the list"), "{within}");
        for end in [vec![(1, 1.), (2, 1.5), (4, 2.)], vec![(1, 3.), (2, 2.5), (4, 2.)]] {
            assert!(verdict(end).contains("The best is an end of the list"));
        }
        assert!(!verdict(vec![(2, 1.), (4, 2.)]).contains("The best"), "two say nothing of a middle");
        assert_eq!(verdict(Vec::new()), "Nothing is measured yet.");
    }
}
