//! Results of a study as CSV.

use std::fmt::Write;

use super::results::{Quality, StudyResults};
use crate::Spread;

/// Returns one line per measurement: during training, and by sampling steps after it.
pub(super) fn sets(results: &StudyResults) -> String {
    let mut out = String::from(
        "f,when,train_step,train_images,train_seconds,sampling_steps,images_per_second,images,frechet_distance,\
         spatial_frechet_distance,kernel_distance,precision,recall,density,coverage,inception_score\n",
    );
    for factor in &results.factors {
        let (f, training) = (factor.f, &factor.diffusion.training);
        for point in &factor.diffusion.points {
            let (step, images, seconds) = (point.step, point.images, point.seconds);
            let steps = results.study.measure.progress_steps;
            line(&mut out, &format!("{f},training,{step},{images},{seconds:.1},{steps},"), &point.quality);
        }
        for by in &factor.sampling.by_steps {
            let head = format!(
                "{f},trained,{},{},{:.1},{},{:.4}",
                training.steps, training.images, training.seconds, by.steps, by.images_per_second
            );
            line(&mut out, &head, &by.quality);
        }
    }
    out
}

fn line(out: &mut String, head: &str, quality: &Quality) {
    let mean = |spread: Option<Spread>| spread.map(|spread| spread.mean);
    let numbers = [
        Some(quality.frechet_distance),
        quality.spatial_frechet_distance,
        mean(quality.kernel_distance),
        quality.precision,
        quality.recall,
        quality.density,
        quality.coverage,
        mean(quality.inception_score),
    ];
    write!(out, "{head},{}", quality.images).expect("writing to a string cannot fail");
    for number in numbers {
        match number {
            Some(number) => write!(out, ",{number:.6}").expect("writing to a string cannot fail"),
            None => out.push(','),
        }
    }
    out.push('\n');
}

/// Returns one line per first stage.
pub(super) fn first_stages(results: &StudyResults) -> String {
    let mut out = String::from(
        "f,parameters,train_steps,train_images,train_seconds,images,psnr,ssim,lpips,frechet_distance,encoded_per_second,\
         decoded_per_second,peak_memory\n",
    );
    for factor in &results.factors {
        let Some(stage) = &factor.first_stage else { continue };
        let training = &stage.training;
        writeln!(
            out,
            "{},{},{},{},{:.1},{},{:.4},{:.4},{:.4},{:.6},{:.1},{:.1},{}",
            factor.f,
            training.parameters,
            training.steps,
            training.images,
            training.seconds,
            stage.images,
            stage.psnr.mean,
            stage.ssim.mean,
            stage.lpips.mean,
            stage.frechet_distance,
            stage.encoded_per_second,
            stage.decoded_per_second,
            training.peak_memory
        )
        .expect("writing to a string cannot fail");
    }
    out
}
