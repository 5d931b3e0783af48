//! `ldm reconstruct`: encodes and decodes images.

use ldm::{ImageGrid, Watermark};
use ldm_core::image;
use ldm_metrics::psnr;
use serde_json::json;

use crate::args::ReconstructArgs;
use crate::output::OutputFolder;
use crate::terminal::{self, outln};
use crate::{images, model, output};

pub(crate) fn run(args: &ReconstructArgs) -> anyhow::Result<()> {
    let model = model::open(&args.model)?;
    let folder = OutputFolder::new(&args.output, "reconstruct")?;
    output::ensure_all_new(&folder, args.images.images.len(), args.output.force)?;
    let (mut sum, mut grid) = (0., ImageGrid::new(None));
    for (index, path) in args.images.images.iter().enumerate() {
        let image = images::read(path, args.images.size, model.first_stage())?;
        let back = model.decode(&model.encode(&image).mode()).to_device(tch::Device::Cpu);
        let decibels = psnr(&back, &image).double_value(&[0]);
        sum += decibels;
        model.check_files()?;
        output::make(&folder)?;
        let out = output::image(&folder, index);
        image::write_png(&out, &back.get(0), &[])?;
        if args.json {
            terminal::write_json(&json!({"path": out, "image": path, "psnr": decibels}), true)?;
        } else {
            outln!("{}  {decibels:.2} dB  {}", out.display(), path.display())?;
        }
        [image, back].iter().for_each(|each| grid.push(&each.get(0)));
    }
    let count = args.images.images.len();
    if !args.json {
        outln!("mean {:.2} dB over {count}", sum / count as f64)?;
    }
    grid.save(output::grid(&folder), Watermark::Never)?;
    Ok(())
}
