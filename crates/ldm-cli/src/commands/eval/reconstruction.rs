//! `ldm eval reconstruction`.

use ldm_core::device::dtype_name;
use ldm_core::files;
use ldm_study::evaluation::reconstruction;
use serde_json::json;

use super::{options, source};
use crate::args::ReconstructionArgs;
use crate::output::OutputFolder;
use crate::progress::Printer;
use crate::reporter::CliReporter;
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
    document["dtype"] = json!(dtype_name(model.kind()));
    document["ldm"] = env!("CARGO_PKG_VERSION").into();
    output::make(&folder)?;
    found.extremes.write(&best, &worst)?;
    files::write_bytes(&results, format!("{document:#}\n").as_bytes())?;
    Ok(super::print(&document, &found.table(), args.metrics.json)?)
}
