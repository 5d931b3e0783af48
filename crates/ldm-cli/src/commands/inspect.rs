//! `ldm inspect`: what a file holds. Runs no code from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ldm_core::weights::Checkpoint;
use ldm_pipelines::{Model, ModelConfig, ModelFile, weights_file};
use serde_json::json;
use sha2::{Digest, Sha256};
use tch::{Device, Kind};

use crate::args::InspectArgs;

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    if args.path.is_file() && starts_as_png(&args.path)? {
        return png(&args.path, args.json);
    }
    let weights = if args.path.is_dir() { weights_file(&args.path)? } else { args.path.clone() };
    let config = args
        .config
        .clone()
        .or_else(|| Some(weights.with_file_name("config.yaml")).filter(|path| path.is_file()));
    let checkpoint = Checkpoint::open(&weights)?;
    let found = Found::of(&checkpoint);
    let (architecture, fits) = match &config {
        Some(config) => held_against(config, checkpoint.clone())?,
        None => ("unknown: no config beside it, and none given by --config".into(), None),
    };
    let sha256 = sha256(&weights)?;
    if args.json {
        let document = json!({
            "path": weights, "format": checkpoint.format().to_string(), "sha256": sha256,
            "architecture": architecture, "config": config, "fits": fits.as_ref().map(Result::is_ok),
            "misfit": fits.as_ref().and_then(|fits| fits.as_ref().err()),
            "tensors": found.tensors, "parameters": found.parameters, "parts": found.parts, "dtypes": found.dtypes,
            "ema": checkpoint.has_ema(), "metadata": checkpoint.metadata(),
        });
        println!("{document:#}");
        return Ok(());
    }
    println!("{}", weights.display());
    println!("format        {}", checkpoint.format());
    println!("sha256        {sha256}");
    println!("architecture  {architecture}");
    match fits {
        Some(Ok(())) => println!("fits          every name and shape, both ways"),
        Some(Err(why)) => println!("fits not      {why}"),
        None => {}
    }
    println!("tensors       {} ({} parameters)", found.tensors, grouped(found.parameters));
    for (part, count) in &found.parts {
        println!("  {part:24} {:>14}", grouped(*count));
    }
    let dtypes: Vec<String> = found.dtypes.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("dtypes        {}", dtypes.join(", "));
    println!("ema           {}", if checkpoint.has_ema() { "yes, beside the weights" } else { "no copy" });
    for (key, value) in checkpoint.metadata() {
        println!("{key:13} {value}");
    }
    Ok(())
}

/// Counts by part and dtype.
struct Found {
    tensors: usize,
    parameters: u64,
    parts: BTreeMap<String, u64>,
    dtypes: BTreeMap<String, usize>,
}

impl Found {
    fn of(checkpoint: &Checkpoint) -> Self {
        let mut found = Self { tensors: 0, parameters: 0, parts: BTreeMap::new(), dtypes: BTreeMap::new() };
        for name in checkpoint.names() {
            let info = checkpoint.info(name).expect("a name of the file");
            let count = info.shape.iter().product::<i64>() as u64;
            found.tensors += 1;
            found.parameters += count;
            *found.parts.entry(part(name)).or_default() += count;
            *found.dtypes.entry(dtype(info.kind)).or_default() += 1;
        }
        found
    }
}

/// Schedule buffers lie at the root; everything else is named by its first word.
fn part(name: &str) -> String {
    match name.split_once('.') {
        None => "(buffers)".into(),
        Some(("model", rest)) if rest.starts_with("diffusion_model.") => "model.diffusion_model".into(),
        Some((first, _)) => first.into(),
    }
}

fn dtype(kind: Kind) -> String {
    match kind {
        Kind::Float => "f32".into(),
        Kind::Double => "f64".into(),
        Kind::Half => "f16".into(),
        Kind::BFloat16 => "bf16".into(),
        Kind::Int64 => "i64".into(),
        Kind::Int => "i32".into(),
        Kind::Uint8 => "u8".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// What a config says it is, and whether the file is that.
type Verdict = (String, Option<Result<(), String>>);

fn held_against(config: &Path, checkpoint: Checkpoint) -> anyhow::Result<Verdict> {
    let file = ModelFile::read(config, &[])?;
    let architecture = match &file.model {
        ModelConfig::Kl(kl) => {
            format!("KL first stage, f = {}, {} latent channels", kl.ddconfig.factor(), kl.embed_dim)
        }
        ModelConfig::Vq(vq) => {
            format!(
                "VQ first stage, f = {}, {} latent channels, {} codes",
                vq.ddconfig.factor(),
                vq.embed_dim,
                vq.n_embed
            )
        }
        ModelConfig::LatentDiffusion(model) => {
            let condition = match model.conditioning_key() {
                None => "unconditional".into(),
                Some(key) => format!("conditioned by {}", format!("{key:?}").to_lowercase()),
            };
            format!(
                "latent diffusion, {} x {} x {} latents, {condition}",
                model.channels, model.image_size, model.image_size
            )
        }
    };
    let fits = Model::load(&file.model, checkpoint, true, Device::Cpu, Kind::Float);
    Ok((architecture, Some(fits.map(|_| ()).map_err(|error| error.to_string()))))
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let context = || path.display().to_string();
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path).with_context(context)?, &mut hash).with_context(context)?;
    let digest = hash.finalize();
    Ok(digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

/// 12345678 → 12,345,678.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn starts_as_png(path: &PathBuf) -> anyhow::Result<bool> {
    let mut head = [0; 8];
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(file.read(&mut head).with_context(|| path.display().to_string())? == 8
        && head == *b"\x89PNG\r\n\x1a\n")
}

/// The text chunks of a PNG.
fn png(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader =
        png::Decoder::new(BufReader::new(file)).read_info().with_context(|| path.display().to_string())?;
    let mut row = vec![0; reader.output_buffer_size().context("a picture that fits in memory")?];
    reader.next_frame(&mut row).with_context(|| path.display().to_string())?;
    reader.finish().with_context(|| path.display().to_string())?;
    let info = reader.info();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for chunk in &info.utf8_text {
        texts.insert(chunk.keyword.clone(), chunk.get_text()?);
    }
    for chunk in &info.uncompressed_latin1_text {
        texts.insert(chunk.keyword.clone(), chunk.text.clone());
    }
    if as_json {
        println!("{:#}", json!({"path": path, "width": info.width, "height": info.height, "texts": texts}));
    } else if texts.is_empty() {
        bail!("{}: a picture of {}x{} without text", path.display(), info.width, info.height);
    } else {
        println!("{}: {}x{}", path.display(), info.width, info.height);
        for (keyword, text) in texts {
            println!("{keyword}: {text}");
        }
    }
    Ok(())
}
