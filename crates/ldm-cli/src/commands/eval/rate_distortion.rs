//! `ldm eval rate-distortion`.

use ldm_core::device::dtype_name;
use ldm_core::files;
use ldm_study::evaluation::{RateOptions, rate_distortion};
use serde_json::json;

use super::source;
use crate::args::RateDistortionArgs;
use crate::output::OutputFolder;
use crate::progress::Printer;
use crate::reporter::CliReporter;
use crate::{model, output};

pub(crate) fn run(args: &RateDistortionArgs, printer: Printer) -> anyhow::Result<()> {
    let folder = OutputFolder::new(&args.output, "eval")?;
    let [results, csv, svg] = ["results.json", "curve.csv", "curve.svg"].map(|name| folder.join(name));
    [&results, &csv, &svg].into_iter().try_for_each(|path| output::ensure_new(path, args.output.force))?;
    let opened = model::open_diffusion(&args.model, None)?;
    opened.to_channels_last();
    let &RateDistortionArgs { num_images, batch_size, steps, seed, .. } = args;
    let options = RateOptions { num_images, batch_size, steps, seed };
    let found = rate_distortion(&opened, &source(&args.data), &options, &CliReporter::new(printer))?;
    let mut document = json!(found);
    document["model"] = json!(args.model.model);
    document["dtype"] = json!(dtype_name(opened.kind()));
    document["seed"] = json!(seed);
    document["ldm"] = env!("CARGO_PKG_VERSION").into();
    output::make(&folder)?;
    files::write_bytes(&csv, found.csv().as_bytes())?;
    files::write_bytes(&svg, found.svg()?.as_bytes())?;
    files::write_bytes(&results, format!("{document:#}\n").as_bytes())?;
    Ok(super::print(&document, &found.table(), args.json)?)
}
