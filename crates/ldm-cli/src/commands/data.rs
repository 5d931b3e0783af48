//! `ldm data`: inspection of an image dataset.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use ldm_core::{FileContent, image};
use ldm_data::{
    Dataset, Info, Loader, LoaderConfig, TransformConfig, contact_sheet, none_readable, open_path,
    refuse_passed_over, unreadable,
};
use ldm_train::DataModule;
use serde_json::json;

use crate::args::{DataArgs, DataCommand};
use crate::output;
use crate::progress::Printer;
use crate::terminal::{self, outln};

pub(crate) fn run(command: &DataCommand) -> anyhow::Result<()> {
    match command {
        DataCommand::Info { data, json } => info(data, *json),
        DataCommand::Preview { data, out, num_images, force } => preview(data, out, *num_images, *force),
    }
}

/// Opens a dataset, or the training set of a config.
fn open(args: &DataArgs) -> anyhow::Result<Arc<dyn Dataset>> {
    let path = &args.dataset;
    if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        let data = DataModule::read(path)?;
        return Ok(data.train.open(path.parent().unwrap_or(Path::new(".")))?);
    }
    let transform = args.size.map_or_else(TransformConfig::default, TransformConfig::square);
    Ok(open_path(path, transform)?)
}

fn info(args: &DataArgs, as_json: bool) -> anyhow::Result<()> {
    let data = open(args)?;
    let info = Info::of(&*data, data.len());
    let bad = unreadable(&*data);
    if as_json {
        let mut document = info.to_json();
        document.insert("passed_over".into(), json!(data.passed_over()));
        document.insert("unreadable".into(), bad.iter().map(ToString::to_string).collect());
        terminal::write_json(&document.into(), false)?;
    } else {
        outln!("{}: {} images", info.name, info.count)?;
        outln!("fingerprint  {}", info.fingerprint)?;
        for ([width, height], count) in info.sizes.iter().take(8) {
            outln!("size         {width}x{height}: {count}")?;
        }
        for (name, count) in &info.classes {
            outln!("class        {name}: {count}")?;
        }
        if info.captioned > 0 {
            outln!("captions     {}", info.captioned)?;
        }
        for caption in info.captions.iter().take(5) {
            outln!("             {caption}")?;
        }
        for error in &bad {
            outln!("unreadable   {error}")?;
        }
        for entry in data.passed_over() {
            outln!("passed over  {entry}")?;
        }
    }
    if args.strict && !bad.is_empty() {
        bail!("{}: expected readable images, got {} of {} unreadable", info.name, bad.len(), info.count);
    }
    if args.strict {
        refuse_passed_over(&*data)?;
    }
    Ok(())
}

fn preview(args: &DataArgs, out: &Path, count: usize, force: bool) -> anyhow::Result<()> {
    output::ensure_writable(out, FileContent::Png, force)?;
    let data = open(args)?;
    let count = count.clamp(1, data.len());
    let config =
        LoaderConfig { workers: 0, strict: args.strict, drop_last: false, ..LoaderConfig::new(count, 0) };
    let mut loader = Loader::one_pass(Arc::clone(&data), config)?;
    let batch = loader.next();
    let unreadable: Vec<&str> = loader.skipped().values().map(String::as_str).collect();
    let Some(batch) = batch else { return Err(none_readable(&*data, unreadable.first().copied()).into()) };
    for error in &unreadable {
        Printer::warn(&format!("unreadable: {error}"));
    }
    data.passed_over().iter().for_each(|entry| Printer::warn(&format!("passed over: {entry}")));
    image::write_png(out, &contact_sheet(&batch?), &[])?;
    outln!("{}", out.display())?;
    Ok(())
}
