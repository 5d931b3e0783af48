//! `ldm reconstruct`: encodes and decodes images.

use ldm::{ImageGrid, Watermark};
use ldm_autoencoder::ImageKind;
use ldm_core::image;
use ldm_core::json::number;
use ldm_metrics::{label_accuracy, psnr};
use serde_json::json;
use tch::Tensor;

use crate::args::ReconstructArgs;
use crate::output::OutputFolder;
use crate::terminal::{self, outln};
use crate::{model, output};

pub(crate) fn run(args: &ReconstructArgs) -> anyhow::Result<()> {
    let model = model::open(&args.model)?;
    model.first_stage().check_reconstructs()?;
    model.first_stage().check_shown()?;
    // Label maps have labels to compare, and no signal.
    let maps = matches!(model.input(), ImageKind::LabelMap(_));
    let (measure, unit, key): (fn(&Tensor, &Tensor) -> Tensor, _, _) =
        if maps { (label_accuracy, "% of labels", "accuracy") } else { (psnr, "dB", "psnr") };
    let folder = OutputFolder::new(&args.output, "reconstruct")?;
    output::ensure_all_new(&folder, args.images.images.len(), args.output.force)?;
    let (mut sum, mut grid) = (0., ImageGrid::new(None));
    for (index, path) in args.images.images.iter().enumerate() {
        let image = args.images.size.size().read(path, &model)?;
        let back = match args.tile {
            None => model.decode(&model.checked_for(&image)?.encode(&image).mode()),
            Some(side) => model.decode_tiled(&model.encode_tiled(&image, side)?.mode(), side)?,
        };
        let back = back.to_device(tch::Device::Cpu);
        let fidelity = measure(&back, &image).double_value(&[0]);
        sum += fidelity;
        model.check_files()?;
        output::make(&folder)?;
        let out = output::image(&folder, index);
        let [image, back] = [image, back].map(|each| model.first_stage().shown(&each));
        image::write_png(&out, &back.get(0), &[])?;
        if args.json {
            terminal::write_json(&json!({"path": out, "image": path, key: number(fidelity)}), true)?;
        } else {
            outln!("{}  {fidelity:.2} {unit}  {}", out.display(), path.display())?;
        }
        for each in [image, back] {
            grid.push(&each.get(0));
        }
    }
    let count = args.images.images.len();
    if !args.json {
        outln!("mean {:.2} {unit} over {count}", sum / count as f64)?;
    }
    grid.save(output::grid(&folder), Watermark::Never)?;
    Ok(())
}
