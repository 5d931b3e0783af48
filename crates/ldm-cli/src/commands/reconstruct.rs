//! `ldm reconstruct`: encodes and decodes images.

use ldm::Watermark;
use ldm_core::image;
use ldm_metrics::psnr;
use serde_json::json;
use tch::Tensor;

use crate::args::ReconstructArgs;
use crate::{images, model, output};

pub(crate) fn run(args: &ReconstructArgs) -> anyhow::Result<()> {
    let model = model::open(&args.model)?;
    let folder = output::folder(&args.output, "reconstruct");
    output::ensure_all_new(&folder, args.images.images.len(), args.output.force)?;
    let (mut sum, mut pairs) = (0., Vec::new());
    for (index, path) in args.images.images.iter().enumerate() {
        let image = images::read(path, args.images.size, model.first_stage())?;
        let back = model.decode(&model.encode(&image).mode()).to_device(tch::Device::Cpu);
        let decibels = psnr(&back, &image).double_value(&[0]);
        sum += decibels;
        output::make(&folder)?;
        let out = output::image(&folder, index);
        image::write_png(&out, &back.get(0), &[])?;
        if args.json {
            println!("{}", json!({"path": out, "image": path, "psnr": decibels}));
        } else {
            println!("{}  {decibels:.2} dB  {}", out.display(), path.display());
        }
        pairs.extend([image, back]);
    }
    let count = args.images.images.len();
    if !args.json {
        println!("mean {:.2} dB over {count}", sum / count as f64);
    }
    // A grid needs images of one size.
    if pairs.iter().all(|each| each.size() == pairs[0].size()) {
        output::grid(&folder, &Tensor::cat(&pairs, 0), Watermark::Never)?;
    }
    Ok(())
}
