//! `ldm eval paired`.

use ldm_study::evaluation::paired;
use serde_json::json;

use super::source;
use crate::args::PairedArgs;
use crate::model;
use crate::progress::Printer;
use crate::reporter::CliReporter;

pub(crate) fn run(args: &PairedArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let reporter = CliReporter::new(printer);
    let mask = args.mask.as_deref();
    let found = paired(&args.generated, &source(&args.data), mask, device, &reporter)?;
    let mut document = json!(found);
    document["mask"] = json!(args.mask);
    document["ldm"] = env!("CARGO_PKG_VERSION").into();
    Ok(super::print(&document, &found.table(), args.json)?)
}
