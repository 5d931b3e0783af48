//! `ldm decode`: latents to images.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use ldm::{ImageGrid, Watermark};
use ldm_checkpoint::{Axis, Checkpoint};
use ldm_core::{FileContent, image};
use tch::Tensor;

use crate::args::DecodeArgs;
use crate::output::OutputFolder;
use crate::terminal::outln;
use crate::{model, output};

pub(crate) fn run(args: &DecodeArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.save_pixels {
        output::ensure_writable(path, FileContent::Safetensors, args.output.force)?;
    }
    let model = model::open(&args.model)?;
    model.first_stage().check_shown()?;
    let channels = model.first_stage().latent_channels();
    let axes = [Axis::Any("B"), Axis::Exactly(channels), Axis::Any("h"), Axis::Any("w")];
    let file = Checkpoint::open(&args.latents)?;
    let latents = if file.contains("ids") && !file.contains("latents") {
        model.codebook_entries(&file.tensor("ids")?).with_context(|| args.latents.display().to_string())?
    } else {
        file.floats("latents", &axes)?
    };
    let size = latents.size();
    if args.tile.is_none() {
        model.check_memory([size[2], size[3]].map(|side| side * model.first_stage().factor()))?;
    }
    let folder = OutputFolder::new(&args.output, "decode")?;
    output::ensure_all_new(&folder, size[0] as usize, args.output.force)?;
    let (mut pixels, mut grid) = (Vec::new(), ImageGrid::new(None));
    for index in 0..size[0] {
        let latent = latents.narrow(0, index, 1);
        let decoded = match args.tile {
            None if args.no_quantize => model.decode_unquantized(&latent),
            None => model.decode(&latent),
            Some(side) => model.decode_tiled(&latent, side).context("--tile")?,
        };
        let decoded = decoded.to_device(tch::Device::Cpu);
        if decoded.isfinite().all().int64_value(&[]) == 0 {
            bail!(
                "{}: expected finite pixels of latent {index}, got NaN or Inf; try --dtype f32",
                args.latents.display()
            );
        }
        model.check_files()?;
        output::make(&folder)?;
        let path = output::image(&folder, index as usize);
        let shown = model.first_stage().shown(&decoded).get(0);
        image::write_png(&path, &shown, &[])?;
        outln!("{}", path.display())?;
        grid.push(&shown);
        if args.save_pixels.is_some() {
            pixels.push(decoded);
        }
    }
    grid.save(output::grid(&folder), Watermark::Never)?;
    if let Some(path) = &args.save_pixels {
        let pixels = Tensor::cat(&pixels, 0).contiguous();
        ldm_checkpoint::save(path, &[("pixels".into(), pixels)], &BTreeMap::new())?;
        outln!("{}", path.display())?;
    }
    Ok(())
}
