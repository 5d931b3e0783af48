//! `ldm encode`: images to latents.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use ldm_core::FileContent;
use ldm_core::noise::Seeded;
use tch::{Kind, Tensor};

use crate::args::EncodeArgs;
use crate::terminal::outln;
use crate::{model, output};

pub(crate) fn run(args: &EncodeArgs) -> anyhow::Result<()> {
    output::ensure_writable(&args.out, FileContent::Safetensors, args.force)?;
    let model = model::open(&args.model)?;
    let mut latents: Vec<Tensor> = Vec::new();
    for (index, path) in args.images.images.iter().enumerate() {
        let image = args.images.size.size().read(path, &model)?;
        let posterior = match args.tile {
            None => model.checked_for(&image)?.encode(&image),
            Some(side) => model.encode_tiled(&image, side).context("--tile")?,
        };
        let latent = if args.ids {
            model.codebook_ids(&posterior.mode()).context("--ids")?
        } else if args.sample {
            posterior.sample(&mut Seeded::new([args.seed + index as u64]))
        } else {
            posterior.mode()
        };
        let kind = if args.ids { Kind::Int64 } else { Kind::Float };
        let latent = latent.to_device(tch::Device::Cpu).to_kind(kind).contiguous();
        if let Some(first) = latents.first()
            && first.size() != latent.size()
        {
            bail!(
                "{}: expected a latent of {:?}, as of the first image, got {:?}; try --center-crop N",
                path.display(),
                &first.size()[1..],
                &latent.size()[1..]
            );
        }
        latents.push(latent);
    }
    model.check_files()?;
    let name = if args.ids { "ids" } else { "latents" };
    ldm_checkpoint::save(&args.out, &[(name.into(), Tensor::cat(&latents, 0))], &BTreeMap::new())?;
    outln!("{}", args.out.display())?;
    Ok(())
}
