//! Images of a batch as a first stage takes them.

use ldm_autoencoder::ImageKind;
use ldm_core::{Error, Result, channels, upload};
use ldm_data::Batch;
use tch::{Device, Kind, Tensor};

/// Converts the images of a batch to those of a first stage: gray or RGB, with their alpha channel where it takes one,
/// or their one-hot label maps.
///
/// # Shapes
/// - returns `[B, C, H, W]` f32: pixels in `[-1, 1]`, labels 0 or 1
///
/// # Errors
/// [`Error::Invalid`] for a first stage of other channels than those of images; [`Error::Data`] when the data have no
/// alpha channel, no label maps, or labels beyond those of the model.
pub(crate) fn input_images(kind: ImageKind, batch: &Batch) -> Result<Tensor> {
    let name = batch.names.first().map_or("the data", String::as_str);
    match kind {
        ImageKind::Pixels(count) => {
            kind.pixels()?;
            let given = batch.images.size()[1];
            if channels::has_alpha(count) && !channels::has_alpha(given) {
                return Err(Error::data(
                    name,
                    format!(
                        "expected an alpha channel for the first stage's {count} channels, got RGB; try alpha: true in \
                         the params of the dataset"
                    ),
                ));
            }
            Ok(channels::convert(&batch.images, count))
        }
        ImageKind::LabelMap(labels) => match (&batch.label_map, &batch.prompt.mask) {
            (Some(map), _) => one_hot("label map", map, labels, Device::Cpu)
                .map_err(|error| Error::data(name, error.to_string())),
            (None, Some(map)) if map.size()[1] == labels => Ok(map.to_kind(Kind::Float)),
            _ => Err(Error::data(
                name,
                format!(
                    "expected a map of the first stage's {labels} labels, got none; try label_maps in the dataset"
                ),
            )),
        },
    }
}

/// Converts `[B, H, W]` labels to one-hot `[B, labels, H, W]` on `device`, after the transfer of the smaller label map.
///
/// # Errors
/// [`Error::Invalid`] naming `what`, when a label map on the CPU has a label that the model does not have.
pub(crate) fn one_hot(what: &str, map: &Tensor, labels: i64, device: Device) -> Result<Tensor> {
    if map.device() == Device::Cpu && map.numel() > 0 {
        let highest = map.max().int64_value(&[]);
        if highest >= labels {
            return Err(Error::invalid(format!(
                "{what}: expected classes 0 to {}, got {highest}",
                labels - 1
            )));
        }
    }
    let index = upload(map, device).to_kind(Kind::Int64).unsqueeze(1); // [B, 1, H, W]
    let mut size = index.size();
    size[1] = labels;
    Ok(Tensor::zeros(size, (Kind::Float, index.device())).scatter_value(1, &index, 1.))
}
