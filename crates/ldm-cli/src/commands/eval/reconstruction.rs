//! `ldm eval reconstruction`.

use ldm_core::files;
use ldm_study::Spread;
use ldm_study::evaluation::{ReconstructionEvaluation, reconstruction};
use serde_json::json;

use super::{options, source};
use crate::args::ReconstructionArgs;
use crate::output::OutputFolder;
use crate::progress::Printer;
use crate::reporter::CliReporter;
use crate::terminal::{self, StdoutError, outln};
use crate::{model, output};

pub(crate) fn run(args: &ReconstructionArgs, printer: Printer) -> anyhow::Result<()> {
    let folder = OutputFolder::new(&args.output, "eval")?;
    let [results, best, worst] = ["results.json", "best.png", "worst.png"].map(|name| folder.join(name));
    [&results, &best, &worst].into_iter().try_for_each(|path| output::ensure_new(path, args.output.force))?;
    let model = model::open(&args.model)?;
    let device = model::device(&args.model.device, None)?;
    let reporter = CliReporter::new(printer);
    let found = reconstruction(&model, device, &source(&args.data), &options(&args.metrics), &reporter)?;
    let mut document = json!(found);
    document["model"] = json!(args.model.model);
    document["dtype"] = json!(args.model.dtype);
    document["ldm"] = env!("CARGO_PKG_VERSION").into();
    output::make(&folder)?;
    found.extremes.write(&best, &worst)?;
    files::write_bytes(&results, format!("{document:#}\n").as_bytes())?;
    if args.metrics.json {
        terminal::write_json(&document, false)?;
    } else {
        print(&found)?;
    }
    Ok(())
}

fn print(found: &ReconstructionEvaluation) -> Result<(), StdoutError> {
    let line = |name: &str, Spread { mean, std }: Spread, unit: &str| {
        if mean.is_nan() { Ok(()) } else { outln!("{name:<17} {mean:.4} +- {std:.4}{unit}") }
    };
    outln!("{} images of {}", found.images, found.dataset)?;
    line("PSNR", found.psnr, " dB")?;
    line("SSIM", found.ssim, "")?;
    found.ms_ssim.into_iter().try_for_each(|ms_ssim| line("MS-SSIM", ms_ssim, ""))?;
    line("LPIPS", found.lpips, &format!(" ({})", found.lpips_trunk))?;
    let distance = found.frechet_distance.unwrap_or(f64::NAN);
    outln!("{:<17} {distance:.4} ({})", "Frechet distance", found.features)
}
