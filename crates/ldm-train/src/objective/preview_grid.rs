//! Image grids of previews.

use ldm_autoencoder::FirstStage;
use ldm_core::channels;
use tch::{Kind, Tensor};

/// Shows decoded images as RGB: label maps in colors, alpha over white.
///
/// # Shapes
/// - `images`: `[B, C, H, W]`; returns `[B, 3, H, W]` in `[-1, 1]`
pub(crate) fn shown_rgb(first_stage: &dyn FirstStage, images: &Tensor) -> Tensor {
    channels::shown(&first_stage.shown(&images.to_kind(Kind::Float)).clamp(-1., 1.))
}

/// Arranges rows of images below each other, in groups of at most eight columns.
///
/// # Shapes
/// - `rows`: `[B, 3, H, W]` each, in `[-1, 1]`; returns `[3, H', W']`
pub(crate) fn in_rows(rows: &[Tensor]) -> Tensor {
    let count = rows[0].size()[0];
    let columns = count.min(8);
    let parts: Vec<Tensor> = (0..count)
        .step_by(columns as usize)
        .flat_map(|start| {
            let width = columns.min(count - start);
            rows.iter().map(move |row| {
                let row = row.narrow(0, start, width);
                let mut size = row.size();
                size[0] = columns - width;
                Tensor::cat(&[&row, &Tensor::full(size, -1., (Kind::Float, row.device()))], 0)
            })
        })
        .collect();
    ldm_core::image::grid(&Tensor::cat(&parts, 0), columns, 2)
}

/// Frames images in green if they are `correct`, and in red otherwise.
///
/// # Shapes
/// - `images`: `[B, 3, H, W]` in `[-1, 1]`; `correct`: `[B]` bool; returns the shape of `images`
pub(crate) fn framed(images: &Tensor, correct: &Tensor) -> Tensor {
    let size = images.size();
    let width = (size[2].min(size[3]) / 32).max(1);
    let green = correct.to_kind(Kind::Float).view([-1, 1, 1, 1]) * 2. - 1.; // 1 or -1
    let color = Tensor::cat(&[&(-&green), &green, &green.ones_like().neg()], 1); // [B, 3, 1, 1]
    let out = color.expand(&size, false).contiguous();
    let inner = |x: &Tensor| x.narrow(2, width, size[2] - 2 * width).narrow(3, width, size[3] - 2 * width);
    inner(&out).copy_(&inner(images));
    out
}
