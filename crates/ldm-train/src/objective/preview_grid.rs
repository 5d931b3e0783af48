//! Image grids of previews.

use tch::{Kind, Tensor};

/// Arranges originals above their reconstructions, in rows of at most eight pairs.
///
/// # Shapes
/// - `above`, `below`: `[B, 3, H, W]` in `[-1, 1]`; returns `[3, H', W']`
pub(crate) fn two_rows(above: &Tensor, below: &Tensor) -> Tensor {
    let count = above.size()[0];
    let columns = count.min(8);
    let rows: Vec<Tensor> = (0..count)
        .step_by(columns as usize)
        .flat_map(|start| {
            let width = columns.min(count - start);
            let pad = |rows: &Tensor| {
                let rows = rows.narrow(0, start, width).to_kind(Kind::Float).clamp(-1., 1.);
                let mut size = rows.size();
                size[0] = columns - width;
                Tensor::cat(&[&rows, &Tensor::full(size, -1., (Kind::Float, rows.device()))], 0)
            };
            [pad(above), pad(below)]
        })
        .collect();
    ldm_core::image::grid(&Tensor::cat(&rows, 0), columns, 2)
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
