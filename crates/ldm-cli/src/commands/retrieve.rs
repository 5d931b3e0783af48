//! `ldm retrieve`: databases of image embeddings.

use std::path::Path;

use anyhow::Context;
use ldm_conditioning::Clip;
use ldm_core::FileContent;
use ldm_retrieval::Search;
use ldm_study::retrieval::{
    IndexOptions, NamedNeighbor, RetrievalQuery, Retriever, find_neighbors, index_images,
};
use serde_json::json;
use tch::Tensor;

use crate::args::{DeviceArgs, IndexArgs, QueryArgs, RetrieveCommand};
use crate::progress::Printer;
use crate::reporter::CliReporter;
use crate::terminal::{self, outln};
use crate::{model, output};

pub(crate) fn run(command: &RetrieveCommand, printer: Printer) -> anyhow::Result<()> {
    let reporter = CliReporter::new(printer);
    match command {
        RetrieveCommand::Index(args) => index(args, printer, &reporter),
        RetrieveCommand::Search { database, query, json, device } => {
            let (_, neighbors) = retrieve(query, device, Some(database), &reporter)?;
            if *json {
                return Ok(terminal::write_json(&json!({ "neighbors": neighbors }), false)?);
            }
            neighbors.iter().try_for_each(|near| outln!("{:.4}  {}", near.score, near.name))?;
            Ok(())
        }
        RetrieveCommand::Neighbors { images, index, k, exact, out } => {
            output::ensure_writable(&out.out, FileContent::Safetensors, out.force)?;
            let database = index.as_ref().unwrap_or(images);
            find_neighbors(images, database, k.get(), search(*exact), &out.out, &reporter)?;
            Ok(outln!("{}", out.out.display())?)
        }
    }
}

fn index(args: &IndexArgs, printer: Printer, reporter: &CliReporter) -> anyhow::Result<()> {
    output::ensure_writable(&args.out.out, FileContent::Safetensors, args.out.force)?;
    let device = model::device(&args.device, Some(printer))?;
    let clip = args.clip.as_ref().map(|path| Clip::open(path, device).context("--clip")).transpose()?;
    let options =
        IndexOptions { batch_size: args.batch_size.get(), partition: args.partition, strict: args.strict };
    let database = index_images(&args.images, clip.as_ref(), options, &args.out.out, reporter)?;
    Ok(outln!("{}: {} images", args.out.out.display(), database.len())?)
}

fn search(exact: bool) -> Search {
    if exact { Search::Exact } else { Search::Partitioned }
}

/// The context of the query of the flags, `[1, 1 + k, D]`, and its neighbors.
pub(crate) fn retrieve(
    args: &QueryArgs,
    device: &DeviceArgs,
    database: Option<&Path>,
    reporter: &CliReporter,
) -> anyhow::Result<(Tensor, Vec<NamedNeighbor>)> {
    let clip = args.clip.as_ref().context("--clip: expected a CLIP model, got none")?;
    let mut retriever = Retriever::new(Clip::open(clip, model::device(device, None)?).context("--clip")?);
    if let Some(path) = database {
        retriever = retriever.with_database(path, args.k.get(), search(args.exact))?;
    }
    let query = RetrievalQuery::new(args.prompt.as_deref(), args.image.as_deref());
    let (context, mut neighbors) = retriever.context(&query, reporter)?;
    Ok((context, neighbors.remove(0)))
}
