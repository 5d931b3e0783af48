//! Pictures that show how far a model is.

use tch::Tensor;

/// Originals above what became of them, pair by pair in rows of at most eight.
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
                let rows = rows.narrow(0, start, width).to_kind(tch::Kind::Float).clamp(-1., 1.);
                let mut size = rows.size();
                size[0] = columns - width;
                Tensor::cat(&[&rows, &Tensor::full(size, -1., (tch::Kind::Float, rows.device()))], 0)
            };
            [pad(above), pad(below)]
        })
        .collect();
    ldm_core::image::grid(&Tensor::cat(&rows, 0), columns, 2)
}
