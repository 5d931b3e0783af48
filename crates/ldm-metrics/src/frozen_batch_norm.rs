//! Batch norm in inference mode, and the loading of networks that have it.

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use tch::Tensor;
use tch::nn::{Init, Path, VarStore};

/// Eps of TensorFlow's networks.
const EPS: f64 = 0.001;

/// Batch norm by the statistics of training.
#[derive(Debug)]
pub(crate) struct FrozenBatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl FrozenBatchNorm {
    pub(crate) fn new(vs: &Path, channels: i64) -> Self {
        let learned = |name: &str, value| vs.var(name, &[channels], Init::Const(value));
        let fixed = |name: &str, value: f64| {
            let mut tensor = vs.zeros_no_train(name, &[channels]);
            let _ = tensor.fill_(value);
            tensor
        };
        Self {
            weight: learned("weight", 1.),
            bias: learned("bias", 0.),
            mean: fixed("running_mean", 0.),
            variance: fixed("running_var", 1.),
        }
    }

    /// Normalizes `[B, C, H, W]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let Self { weight, bias, mean, variance } = self;
        x.batch_norm(Some(weight), Some(bias), Some(mean), Some(variance), false, 0.1, EPS, false)
    }
}

/// Loads all parameters from `checkpoint`, which may also have the counters of its batch norms and the tensors `left_out`,
/// and freezes them.
///
/// # Errors
/// [`Error::Weights`] with every mismatch.
pub(crate) fn load_frozen(vs: &mut VarStore, checkpoint: Checkpoint, left_out: &[&str]) -> Result<()> {
    let counters: Vec<String> =
        checkpoint.names().filter(|name| name.ends_with("num_batches_tracked")).map(Into::into).collect();
    let left_out: Vec<&str> = counters.iter().map(String::as_str).chain(left_out.iter().copied()).collect();
    checkpoint.without(&left_out).load_scope(vs, "")?;
    vs.freeze();
    Ok(())
}

/// Checks that images have three channels.
///
/// # Errors
/// [`Error::Shape`] for another shape than `[B, 3, H, W]`.
pub(crate) fn check_images(images: &Tensor) -> Result<()> {
    let size = images.size();
    if size.len() == 4 && size[1] == 3 {
        return Ok(());
    }
    Err(Error::Shape { what: "images".into(), expected: "[B, 3, H, W]".into(), got: size })
}
